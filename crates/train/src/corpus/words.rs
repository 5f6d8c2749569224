//! Word problems with their steps, in English and Arabic.
//!
//! The problems are those of [`Split::Pretrain`]; held-out sentence forms and the problems of reinforcement learning
//! never appear. Some questions are written as people type: Arabic without hamza on its alefs, English in lower case,
//! without the last full stop; the reasoning never is.

use eval::rng::Rng;
use eval::words::{OPERATIONS_MAX, word_problem};
use eval::{Language, Split};

use super::chat::{Turn, chat};
use super::{Document, Source, plain, typed};

/// How often each number of operations is asked.
const WEIGHTS: [u32; OPERATIONS_MAX as usize] = [3, 4, 4, 3, 3, 3];

/// The corpus of word problems.
pub(super) struct Words {
    pub(super) seed: u64,
    pub(super) chat: f64,
    pub(super) arabic: f64,
}

impl Source for Words {
    fn name(&self) -> &'static str {
        "words"
    }

    fn origin(&self) -> String {
        "Word problems of 1 to 6 operations with worked steps in English and Arabic, grammar version 4; held-out forms \
         and the problems of reinforcement learning excluded."
            .into()
    }

    fn document(&self, index: u64) -> Document {
        let mut rng = Rng::new(self.seed, "words", index);
        let rng = &mut rng;
        let arabic = rng.chance(self.arabic);
        let language = if arabic { Language::Arabic } else { Language::English };
        let operations = rng.weighted(&WEIGHTS) as u8 + 1;
        let worked = word_problem(rng, Split::Pretrain, operations, language);
        let question = typed(rng, worked.problem.question, language);
        let steps = worked.steps.join("\n");
        if !rng.chance(self.chat) {
            let kind = if arabic { "words/ar plain" } else { "words/en plain" };
            return plain(kind, format!("{question}\n{steps}\n{}", worked.answer));
        }
        let turn = Turn { user: question, think: steps, answer: worked.answer };
        chat(rng, if arabic { "words/ar" } else { "words/en" }, vec![turn], 0.03)
    }
}
