//! `/v1/completions`: text that the model goes on with, and (with `suffix`) fills in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::usage::{Extension, Usage};
use super::{OneOrMany, StreamOptions};

/// A request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct CompletionRequest {
    /// A model's name; without it the only one that is served.
    pub model: Option<String>,
    /// What to go on with.
    pub prompt: Prompt,
    /// What comes after the gap that is to be filled.
    pub suffix: Option<String>,
    /// From 0 to 2.
    pub temperature: Option<f32>,
    /// From 0 to 1.
    pub top_p: Option<f32>,
    /// 0: all.
    pub top_k: Option<u32>,
    /// From 0 to 1.
    pub min_p: Option<f32>,
    /// Above 0, at most 10; 1 changes nothing.
    pub repetition_penalty: Option<f32>,
    /// From -2 to 2.
    pub presence_penalty: Option<f32>,
    /// From -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Bias (-100 to 100) by token number.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Longest answer; 0 only with `echo`: the prompt alone is told.
    pub max_tokens: Option<u32>,
    /// Answers to each prompt.
    pub n: Option<u32>,
    /// As `n` if it is given; picking the best of more is not offered.
    pub best_of: Option<u32>,
    /// The same seed gives the same answer.
    pub seed: Option<i64>,
    /// Texts before which the answer ends.
    pub stop: Option<OneOrMany>,
    /// Send the answer as it comes.
    pub stream: Option<bool>,
    /// How.
    pub stream_options: Option<StreamOptions>,
    /// Tell log-probabilities, and of so many likely tokens (at most 20).
    pub logprobs: Option<u32>,
    /// Send the prompt before the answer; with `logprobs` its log-probabilities as well.
    pub echo: Option<bool>,
    /// For whom this is asked: users of one key share no cached pages, and take turns. At most 512 bytes; not kept.
    pub user_id: Option<String>,
}

/// What to go on with.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, a list of texts, a list of tokens, or a list of lists of tokens")]
pub enum Prompt {
    /// A text, or several.
    Text(OneOrMany),
    /// A text in tokens.
    Tokens(Vec<u32>),
    /// Several.
    ManyTokens(Vec<Vec<u32>>),
}

impl Prompt {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Prompt::Text(OneOrMany::Many(texts)) => texts.len(),
            Prompt::ManyTokens(lists) => lists.len(),
            Prompt::Text(OneOrMany::One(_)) | Prompt::Tokens(_) => 1,
        }
    }
}

/// An answer, or (in a stream) a piece of one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Completion {
    /// A name of the request.
    pub id: String,
    /// `text_completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// The program.
    pub system_fingerprint: String,
    /// The answers.
    pub choices: Vec<CompletionChoice>,
    /// Tokens; in streams only in the last chunk, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// Time, money, energy; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fathom: Option<Extension>,
}

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CompletionChoice {
    /// Which: prompts in order, `n` answers each.
    pub index: usize,
    /// The text.
    pub text: String,
    /// Log-probabilities, if asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
}

/// Log-probabilities as lists beside each other.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct CompletionLogprobs {
    /// Texts of the tokens.
    pub tokens: Vec<String>,
    /// Their log-probabilities; null for the first token of a prompt, which nothing stands before.
    pub token_logprobs: Vec<Option<f32>>,
    /// The token itself and likely ones in its place.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each begins, in characters of the answer.
    pub text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Adds the first token of a prompt.
    pub(crate) fn push_first(&mut self, token: String) {
        self.tokens.push(token);
        self.token_logprobs.push(None);
        self.top_logprobs.push(None);
        self.text_offset.push(0);
    }
}
