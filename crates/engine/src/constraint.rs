//! Which tokens may come next: the hook of constrained decoding.
//!
//! The engine asks before each token of an answer and tells the token that was chosen. What the
//! constraint is made of (a grammar, a schema, a length of reasoning) is the caller's; it must not
//! depend on anything but the tokens it was told, or the same request would not give the same answer.

use std::fmt;

use thiserror::Error;

/// A set of tokens, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u32>,
}

impl TokenSet {
    /// No token of a vocabulary of `vocab`.
    pub fn empty(vocab: usize) -> TokenSet {
        TokenSet { words: vec![0; vocab.div_ceil(32)] }
    }

    /// The set whose words, 32 tokens each from the lowest bit, are `words`.
    pub fn from_words(words: Vec<u32>) -> TokenSet {
        TokenSet { words }
    }

    /// Adds a token; one that the set has no room for is left out.
    pub fn insert(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word |= 1 << (token % 32);
        }
    }

    /// Takes a token out.
    pub fn remove(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word &= !(1 << (token % 32));
        }
    }

    /// Whether the set has the token.
    pub fn contains(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// Whether the set has no token.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }
}

/// The tokens that may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Every token.
    All,
    /// Every token but these.
    Except(Vec<u32>),
    /// This token.
    Only(u32),
    /// One of these.
    Set(TokenSet),
}

impl Allowed {
    /// Whether `token` may come next.
    pub fn contains(&self, token: u32) -> bool {
        match self {
            Allowed::All => true,
            Allowed::Except(tokens) => !tokens.contains(&token),
            Allowed::Only(only) => *only == token,
            Allowed::Set(set) => set.contains(token),
        }
    }
}

/// A constraint that cannot go on, in its own words.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("{0}")]
pub struct ConstraintError(pub String);

/// What an answer must look like.
pub trait Constraint: Send {
    /// The tokens that may come next.
    ///
    /// # Errors
    /// If the constraint cannot tell; the answer ends with this error.
    fn allowed(&mut self) -> Result<Allowed, ConstraintError>;

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// If it was not one of those allowed.
    fn accept(&mut self, token: u32) -> Result<(), ConstraintError>;

    /// The next tokens, as far as each of them is the only one that may come and that is known without effort; at most
    /// `most`. They are computed together.
    fn certain(&self, most: usize) -> Vec<u32> {
        let _ = most;
        Vec::new()
    }

    /// A copy in the same state.
    fn copy(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Box<dyn Constraint> {
        self.copy()
    }
}

impl fmt::Debug for dyn Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Constraint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let mut set = TokenSet::empty(40);
        assert!(set.is_empty());
        for token in [0, 31, 32, 39, 4000] {
            set.insert(token);
        }
        assert!(set.contains(0) && set.contains(31) && set.contains(32) && set.contains(39));
        assert!(!set.contains(1) && !set.contains(4000));
        set.remove(31);
        assert!(!set.contains(31) && !set.is_empty());
    }
}
