//! What a request has cost, as DeepSeek and OpenAI tell it, and what more we know.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Tokens of a request. `prompt_tokens = prompt_cache_hit_tokens + prompt_cache_miss_tokens`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of all answers, with their reasoning.
    pub completion_tokens: u64,
    /// Both together.
    pub total_tokens: u64,
    /// Tokens of the prompt that were in the cache.
    pub prompt_cache_hit_tokens: u64,
    /// Those that were not.
    pub prompt_cache_miss_tokens: u64,
    /// OpenAI's word for hits.
    pub prompt_tokens_details: PromptTokensDetails,
    /// What the answers were made of.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// The prompt in parts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct PromptTokensDetails {
    /// Tokens that were in the cache.
    pub cached_tokens: u64,
}

/// The answers in parts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct CompletionTokensDetails {
    /// Tokens of reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Of a prompt, its tokens that were in the cache, its answers' tokens and those of reasoning among them.
    pub fn of(prompt: u64, cached: u64, completion: u64, reasoning: u64) -> Usage {
        Usage {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt + completion,
            prompt_cache_hit_tokens: cached,
            prompt_cache_miss_tokens: prompt - cached,
            prompt_tokens_details: PromptTokensDetails { cached_tokens: cached },
            completion_tokens_details: CompletionTokensDetails { reasoning_tokens: reasoning },
        }
    }
}

/// What fathom knows beyond tokens: time, money and energy of a request.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct Extension {
    /// Seconds before it was taken up.
    pub queue_seconds: f64,
    /// Seconds from there to the first token.
    pub prompt_seconds: f64,
    /// Seconds from there to the end.
    pub decode_seconds: f64,
    /// Its share of the time that the engine computed, measured.
    pub compute_seconds: f64,
    /// Tokens of the prompt that were computed, a second.
    pub prompt_tokens_per_second: f64,
    /// Tokens after the first, a second, all answers together.
    pub tokens_per_second: f64,
    /// Seconds of `decode_seconds` until the reasoning ended, if there was reasoning.
    pub reasoning_seconds: Option<f64>,
    /// Money, as a decimal number.
    pub cost: String,
    /// Of what.
    pub currency: String,
    /// Its share of the engine's energy.
    pub joules: Option<f64>,
    /// `measured` (by the processor's own meter) or `estimated` (from the watts that were configured).
    pub joules_label: Option<String>,
    /// The seed of the first answer.
    pub seed: u64,
    /// What a rule says about the answer, where there is one answer and the question is one that a rule can check.
    pub verdict: Option<Verdict>,
}

/// What a rule says about an answer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, ToSchema)]
pub struct Verdict {
    /// `countdown` or `arithmetic`.
    pub task: String,
    /// The answer is right.
    pub ok: bool,
    /// What was checked.
    pub detail: Option<Words>,
}

/// A few words in the languages of the page.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, ToSchema)]
pub struct Words {
    /// English.
    pub en: String,
    /// Arabic.
    pub ar: String,
}
