//! What goes into the engine and what comes out.

use thiserror::Error;

use crate::constraint::{Constraint, ConstraintError};
use crate::pages::{Owner, PageId};
use crate::sampler::{Sampling, SamplingError};

/// A request's number, given by the caller; not used twice at the same time.
pub type RequestId = u64;

/// What the caller wants of the engine.
#[derive(Clone, Debug)]
pub enum Command {
    /// Answer this.
    Submit(Request),
    /// Make a vector of this.
    Embed(EmbedRequest),
    /// Stop answering; pages are free when the step returns.
    Cancel(RequestId),
    /// Take pages that were computed before into the cache, so that requests that come later find them.
    Restore(Restored),
}

/// A text to be made a vector of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedRequest {
    /// Its number.
    pub id: RequestId,
    /// Who pays.
    pub owner: Owner,
    /// At least one token.
    pub tokens: Vec<u32>,
    /// How the rows of its tokens become one.
    pub pooling: Pooling,
}

/// How the rows of a text's tokens, after the model's last norm, become one vector. It is then scaled to length 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The last token's row, the only one that has seen all of the text.
    Last,
    /// The mean of all rows, added in f64 in the order of the tokens.
    Mean,
}

/// Pages of the cache that were kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Whose they are.
    pub owner: Owner,
    /// A text from its beginning on.
    pub tokens: Vec<u32>,
    /// Which page of the text is the first of `pages`; those before it are in the cache.
    pub first: usize,
    /// What [`crate::step::Compute::read_page`] gave for the pages of the text from `first` on.
    pub pages: Vec<Vec<u8>>,
}

/// Pages of the cache that have become known: full, computed, and found by requests from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Whose they are.
    pub owner: Owner,
    /// The text from its beginning to the end of the last of the pages.
    pub tokens: Vec<u32>,
    /// Which page of the text stands where.
    pub pages: Vec<(usize, PageId)>,
}

/// A prompt to be answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number.
    pub id: RequestId,
    /// Who pays and whose cached pages may be used.
    pub owner: Owner,
    /// At least one token.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Longest answer; at least one token.
    pub max_tokens: usize,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<u32>,
    /// How many of the likeliest tokens are told with each token.
    pub top_logprobs: usize,
    /// What the answer must look like.
    pub constraint: Option<Box<dyn Constraint>>,
}

/// The most tokens that [`Request::top_logprobs`] may ask for.
pub const TOP_LOGPROBS_MAX: usize = 100;

/// Why a request is not taken on.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Refusal {
    /// Too many requests wait.
    #[error("{waiting} requests wait already; the limit is {limit}")]
    Busy {
        /// Requests that wait.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many requests of this owner wait.
    #[error("{waiting} requests of this key wait already; the limit is {limit}")]
    OwnerBusy {
        /// Requests that wait.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// The number is in use.
    #[error("there is a request {0} already")]
    Duplicate(RequestId),
    /// No tokens, or no room for an answer.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// An answer of no tokens.
    #[error("max_tokens is 0; it must be at least 1")]
    EmptyAnswer,
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens; with an answer the limit is {limit}")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of a prompt and its answer together.
        limit: usize,
    },
    /// A token that the model does not have.
    #[error("token {token} is not of the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: u32,
        /// The size of the vocabulary.
        vocab: usize,
    },
    /// More likely tokens than are told.
    #[error("top_logprobs is {asked}; it must be at most {limit}")]
    TopLogprobs {
        /// What was asked for.
        asked: usize,
        /// The limit.
        limit: usize,
    },
    /// Sampling settings outside their limits.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// No rows to make vectors of.
    #[error("this model gives no embeddings")]
    NoEmbeddings,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    /// By one of its stop tokens.
    Stop,
    /// It is as long as was asked for, or the context is full.
    Length,
    /// It was cancelled.
    Cancelled,
    /// The model's output could not be used.
    Failed(SamplingError),
    /// The constraint could not go on.
    Unconstrained(ConstraintError),
}

/// What a request has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those that were found in the cache when the request was taken up.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
}

/// What happened in a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The request is not taken on.
    Refused(RequestId, Refusal),
    /// The request was taken up for the first time.
    Started {
        /// The request.
        id: RequestId,
        /// Tokens of its prompt that were found in the cache.
        cached_tokens: usize,
    },
    /// A token of the answer, with the logarithm of its probability under the model.
    Token {
        /// The request.
        id: RequestId,
        /// The token.
        token: u32,
        /// Natural logarithm.
        logprob: f32,
        /// The likeliest tokens and their log-probabilities, as many as were asked for, most likely first.
        top: Vec<(u32, f32)>,
    },
    /// The vector of a text, of length 1; the request is finished next.
    Embedded {
        /// The request.
        id: RequestId,
        /// As long as a row of the model.
        vector: Vec<f32>,
    },
    /// The answer is complete; its last token has been told.
    Finished {
        /// The request.
        id: RequestId,
        /// Why it ended.
        finish: Finish,
        /// What it has cost.
        usage: Usage,
    },
}
