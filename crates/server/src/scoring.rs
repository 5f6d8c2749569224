//! The log-probabilities of a prompt's own tokens, for `echo` with `logprobs`.
//!
//! A prompt is scored as an answer to its first token that may only be what the prompt says next: the rows that are
//! computed so have the same bits as those of a prompt that is read in chunks, and its pages are found by the answers
//! that come after it. What the prompt says next is certain, so a page of it is computed at a time.

use engine::constraint::{Allowed, Constraint, ConstraintError};
use engine::request::Request;
use engine::sampler::Sampling;

/// What remains to be said.
#[derive(Clone)]
struct Dictated {
    tokens: Vec<u32>,
    next: usize,
}

impl Constraint for Dictated {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        let next = self.tokens.get(self.next);
        next.map(|&token| Allowed::Only(token)).ok_or_else(|| ConstraintError("the prompt has no more tokens".into()))
    }

    fn accept(&mut self, _: u32) -> Result<(), ConstraintError> {
        self.next += 1;
        Ok(())
    }

    fn certain(&self, most: usize) -> Vec<u32> {
        self.tokens.iter().skip(self.next).take(most).copied().collect()
    }

    fn copy(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// Makes a request score its prompt and say nothing of its own; `None` if the prompt has one token, before which there
/// is nothing to expect it by.
pub(crate) fn scoring(request: Request) -> Option<Request> {
    let (&first, rest) = request.prompt.split_first()?;
    (!rest.is_empty()).then(|| Request {
        prompt: vec![first],
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        max_tokens: rest.len(),
        stop_tokens: Vec::new(),
        constraint: Some(Box::new(Dictated { tokens: rest.to_vec(), next: 0 })),
        ..request
    })
}
