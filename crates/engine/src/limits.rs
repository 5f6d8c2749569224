//! Every limit of the engine in one place.

use crate::drafts::Drafts;

/// How much the engine takes on. What is beyond a limit is refused with a typed reason; nothing grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that run at the same time.
    pub running_max: usize,
    /// Requests that wait, all owners together.
    pub waiting_max: usize,
    /// Requests that wait for one owner.
    pub waiting_per_owner_max: usize,
    /// Tokens computed in one step.
    pub batch_tokens_max: usize,
    /// Tokens of one prompt computed in one step, so that a long one does not stop the others.
    pub chunk_tokens_max: usize,
    /// Tokens of a prompt and its answer together.
    pub context_tokens_max: usize,
    /// Pages of the cache.
    pub pages: usize,
    /// Whether next tokens are guessed at; no answer depends on it.
    pub drafts: Drafts,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            running_max: 64,
            waiting_max: 1024,
            waiting_per_owner_max: 256,
            batch_tokens_max: 512,
            chunk_tokens_max: 256,
            context_tokens_max: 8192,
            pages: 1024,
            drafts: Drafts::Off,
        }
    }
}
