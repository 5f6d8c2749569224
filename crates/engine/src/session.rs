//! One sequence on a model: a prompt in chunks, then token by token.
//!
//! What the cache holds of an earlier prompt is kept as far as the new one begins the same way.

use kernels::attention::{CacheFormat, Chunk};
use kernels::pool::Pool;
use model::cache::Cache;
use model::forward::{Activations, Arithmetic, Batch, Runner};
use model::load::Model;
use thiserror::Error;

use crate::drafts::{Credit, DraftCount, Drafts, lookup};

/// Why tokens cannot be computed.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SessionError {
    /// More tokens than the context holds.
    #[error("{tokens} tokens do not fit in the context of {limit}")]
    Full {
        /// Tokens that would be in the context.
        tokens: usize,
        /// Its size.
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
    /// Nothing to compute.
    #[error("there are no tokens to compute")]
    Empty,
}

/// Tokens of a prompt that are computed at once.
pub const CHUNK_LEN: usize = 256;

/// One sequence on a model.
pub struct Session<'a> {
    runner: Runner<'a>,
    cache: Cache,
    acts: Activations,
    pages: Vec<u32>,
    /// Tokens whose keys and latents are in the cache.
    tokens: Vec<u32>,
    context: usize,
    drafts: Drafts,
    credit: Credit,
    ahead: Ahead,
    drafted: DraftCount,
}

/// What was computed beyond the sequence's tokens, in the hope that they come next.
#[derive(Default)]
struct Ahead {
    draft: Vec<u32>,
    /// `[1 + draft, vocab]`, after the token before the draft, then after each of its tokens.
    logits: Vec<f32>,
    /// Tokens of the draft that have come.
    accepted: usize,
}

impl<'a> Session<'a> {
    /// An empty sequence of up to `context` tokens.
    pub fn new(model: &'a Model, pool: &'a Pool, context: usize, format: CacheFormat) -> Session<'a> {
        let pages = Cache::pages_for(context);
        Session {
            runner: Runner::new(model, pool),
            cache: Cache::new(&model.spec, format, pages),
            acts: Activations::default(),
            pages: (0..pages as u32).collect(),
            tokens: Vec::new(),
            context,
            drafts: Drafts::Off,
            credit: Credit::new(Drafts::Off),
            ahead: Ahead::default(),
            drafted: DraftCount::default(),
        }
    }

    /// Chooses how latent attention computes.
    pub fn set_arithmetic(&mut self, arithmetic: Arithmetic) {
        self.runner.arithmetic = arithmetic;
    }

    /// Chooses whether [`Session::push`] computes drafts as well; no logits depend on it.
    pub fn set_drafts(&mut self, drafts: Drafts) {
        self.drafts = drafts;
        self.credit = Credit::new(drafts);
    }

    /// What was computed as drafts since the session was made.
    pub fn drafted(&self) -> DraftCount {
        self.drafted
    }

    /// Tokens in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that the sequence may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Makes `prompt` the sequence and returns the logits after its last token. What is in the cache
    /// already is not computed again; `progress` is told the number of tokens done, and stops the
    /// work by returning false (`None` is returned then).
    ///
    /// # Errors
    /// If the prompt is empty, too long, or has tokens that are not of the vocabulary.
    pub fn prompt(
        &mut self,
        prompt: &[u32],
        mut progress: impl FnMut(usize) -> bool,
    ) -> Result<Option<Vec<f32>>, SessionError> {
        self.check(prompt, 0)?;
        self.settle();
        self.credit = Credit::new(self.drafts);
        let same = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // The last token is computed in any case: its logits are wanted.
        self.tokens.truncate(same.min(prompt.len() - 1));
        let mut logits = None;
        while self.tokens.len() < prompt.len() {
            if !progress(self.tokens.len()) {
                return Ok(None);
            }
            let end = prompt.len().min(self.tokens.len() + CHUNK_LEN);
            let chunk = &prompt[self.tokens.len()..end];
            let wanted: &[usize] = if end == prompt.len() { &[chunk.len() - 1] } else { &[] };
            logits = Some(self.run(chunk, wanted));
        }
        Ok(logits)
    }

    /// Appends one token and returns the logits after it. Where drafts are on and the token is the one that was
    /// guessed, its logits are there already.
    ///
    /// # Errors
    /// If the context is full or the token is not of the vocabulary.
    pub fn push(&mut self, token: u32) -> Result<Vec<f32>, SessionError> {
        self.check(&[token], self.tokens.len())?;
        if self.ahead.draft.get(self.ahead.accepted) == Some(&token) {
            self.ahead.accepted += 1;
            self.drafted.accepted += 1;
            self.tokens.push(token);
            let vocab = self.runner.model().spec.vocab;
            return Ok(self.ahead.logits[self.ahead.accepted * vocab..][..vocab].to_vec());
        }
        self.settle();
        match self.drafts.are_made(1) {
            true => Ok(self.push_with_draft(token)),
            false => Ok(self.run(&[token], &[0])),
        }
    }

    /// Computes a token and a draft of those after it.
    fn push_with_draft(&mut self, token: u32) -> Vec<f32> {
        let position = self.tokens.len();
        self.tokens.push(token);
        let room = (self.context - self.tokens.len()).min(self.credit.tokens());
        let mut draft = Vec::new();
        lookup(&self.tokens, room, &mut draft);
        self.tokens.truncate(position);
        self.drafted.drafted += draft.len();
        let rows: Vec<u32> = std::iter::once(token).chain(draft.iter().copied()).collect();
        let wanted: Vec<usize> = (0..rows.len()).collect();
        let logits = self.run(&rows, &wanted);
        // The draft's rows stay in the cache; what comes in their place is written over them.
        self.tokens.truncate(position + 1);
        let first = logits[..logits.len() / rows.len()].to_vec();
        self.ahead = Ahead { draft, logits, accepted: 0 };
        first
    }

    /// Puts what was computed ahead aside.
    fn settle(&mut self) {
        let Ahead { draft, accepted, .. } = std::mem::take(&mut self.ahead);
        self.credit.settle(1 + accepted, DraftCount { drafted: draft.len(), accepted });
    }

    /// Appends `tokens`, all computed at once, and returns the logits after each, `[T, vocab]`.
    ///
    /// # Errors
    /// As [`Session::prompt`].
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, SessionError> {
        self.check(tokens, self.tokens.len())?;
        self.settle();
        let wanted: Vec<usize> = (0..tokens.len()).collect();
        Ok(self.run(tokens, &wanted))
    }

    fn check(&self, tokens: &[u32], before: usize) -> Result<(), SessionError> {
        let vocab = self.runner.model().spec.vocab;
        if tokens.is_empty() {
            return Err(SessionError::Empty);
        }
        if before + tokens.len() > self.context {
            return Err(SessionError::Full { tokens: before + tokens.len(), limit: self.context });
        }
        match tokens.iter().find(|&&token| token as usize >= vocab) {
            Some(&token) => Err(SessionError::Token { token, vocab }),
            None => Ok(()),
        }
    }

    fn run(&mut self, tokens: &[u32], wanted: &[usize]) -> Vec<f32> {
        let chunk = Chunk { first_row: 0, rows: tokens.len(), position: self.tokens.len(), pages: &self.pages };
        let batch = Batch { tokens, chunks: &[chunk] };
        let logits = self.runner.forward(&batch, &mut self.cache, &mut self.acts, wanted);
        self.tokens.extend_from_slice(tokens);
        logits
    }
}
