//! A limit on reasoning: after so many tokens it is closed, and the answer follows.
//!
//! This is what the server does with `budget_tokens`, so a curve of accuracy over budgets that is measured with it is
//! the curve of what a user gets.

use engine::constraint::{Allowed, Constraint, ConstraintError};

/// Closes reasoning that has begun with the prompt after a number of tokens.
#[derive(Clone, Debug)]
pub struct ThinkingBudget {
    /// The token that closes reasoning.
    close: u32,
    /// Tokens of reasoning that may still come; none: it is closed.
    left: Option<usize>,
}

impl ThinkingBudget {
    /// At most `most` tokens, then the token `close`.
    pub fn new(close: u32, most: usize) -> ThinkingBudget {
        ThinkingBudget { close, left: Some(most) }
    }
}

impl Constraint for ThinkingBudget {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        Ok(if self.left == Some(0) { Allowed::Only(self.close) } else { Allowed::All })
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.left = self.left.filter(|_| token != self.close).map(|left| left.saturating_sub(1));
        Ok(())
    }

    fn copy(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_is_closed_when_its_tokens_are_spent() {
        let mut budget = ThinkingBudget::new(6, 2);
        for token in [10, 11] {
            assert_eq!(budget.allowed(), Ok(Allowed::All));
            budget.accept(token).expect("accepted");
        }
        assert_eq!(budget.allowed(), Ok(Allowed::Only(6)));
        for token in [6, 12, 13, 14] {
            budget.accept(token).expect("accepted");
            assert_eq!(budget.allowed(), Ok(Allowed::All), "the answer is free");
        }
        let mut early = ThinkingBudget::new(6, 2);
        early.accept(6).expect("accepted");
        (0..5).for_each(|token| early.accept(token).expect("accepted"));
        assert_eq!(early.allowed(), Ok(Allowed::All));
    }
}
