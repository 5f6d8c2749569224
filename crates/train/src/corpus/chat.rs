//! Documents in the chat format of the built-in model.
//!
//! ```text
//! <|user|>QUESTION<|assistant|><think>
//! REASONING
//! </think>
//! ANSWER<|eos|>
//! ```
//!
//! Earlier turns of a conversation stand without their reasoning, as the chat template (see [`crate::bpe`]) writes
//! them. Without reasoning the block is empty: `<think>\n\n</think>\n`. Begin and end tokens of the document are the
//! packer's.

use eval::rng::Rng;
use text::Segment;

use super::Document;

/// What stands before a question.
pub(crate) const USER: &str = "<|user|>";
/// What stands before an answer.
pub(crate) const ASSISTANT: &str = "<|assistant|>";
/// What ends an answer inside a conversation.
pub(crate) const END: &str = "<|eos|>";

/// A question and its answer.
pub(super) struct Turn {
    pub(super) user: String,
    pub(super) think: String,
    pub(super) answer: String,
}

/// A conversation; with a probability of `silent` the last answer comes without reasoning.
pub(super) fn chat(rng: &mut Rng, kind: &'static str, turns: Vec<Turn>, silent: f64) -> Document {
    let mut segments = Vec::with_capacity(turns.len() * 5);
    let last = turns.len().saturating_sub(1);
    for (at, turn) in turns.into_iter().enumerate() {
        segments.push(Segment::trusted(USER));
        segments.push(Segment::untrusted(turn.user));
        if at < last {
            segments.push(Segment::trusted(ASSISTANT));
            segments.push(Segment::untrusted(turn.answer));
            segments.push(Segment::trusted(END));
            continue;
        }
        let think = if rng.chance(silent) { String::new() } else { turn.think };
        segments.push(Segment::trusted(format!("{ASSISTANT}<think>\n")));
        segments.push(Segment::untrusted(think));
        segments.push(Segment::trusted("\n</think>\n"));
        segments.push(Segment::untrusted(turn.answer));
    }
    Document { segments, kind }
}
