//! A problem: what the user says, what would be right, and to which part of the data it belongs.

use crate::rng::hash;

/// The language of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// English.
    English,
    /// Arabic.
    Arabic,
}

/// Which part of all problems of a task one belongs to, decided by the hash of its key, so that parts never overlap
/// whatever the seeds are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Pre-training and fine-tuning may show it: 8 of 16.
    Pretrain,
    /// Reinforcement learning asks it; no document shows it: 7 of 16.
    Reinforce,
    /// Only evaluation asks it: 1 of 16.
    HeldOut,
}

impl Split {
    /// The part of the problem with this key.
    pub fn of(key: &str) -> Split {
        match hash(key.as_bytes()) >> 60 {
            0 => Split::HeldOut,
            1..=7 => Split::Reinforce,
            _ => Split::Pretrain,
        }
    }
}

/// What a right answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This integer.
    Integer(i64),
    /// An expression that uses each number exactly once and has this value.
    Countdown {
        /// The given numbers.
        numbers: Vec<u32>,
        /// The value to reach.
        target: u32,
    },
    /// Exactly this text, white space at the ends aside.
    Text(String),
    /// A number as free text, such as `1,234.50`: the last number of the answer counts.
    FreeNumber(String),
    /// One of the letters A, B, C, D (or more).
    Choice {
        /// The right letter, in upper case.
        letter: char,
        /// How many there are.
        choices: u8,
    },
    /// A program that passes tests when it is run ([`crate::programs`]).
    Program {
        /// What the function begins with.
        prompt: String,
        /// Python that defines `check`, which takes the function.
        test: String,
        /// The function's name.
        entry_point: String,
    },
}

/// A problem with what its grader needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The task, such as `countdown3`.
    pub task: &'static str,
    /// The problem in canonical form, without its phrasing: what [`Split::of`] looks at.
    pub key: String,
    /// What the user says.
    pub question: String,
    /// The language of the question.
    pub language: Language,
    /// Difficulty, such as the number of operations; 1 is the easiest.
    pub level: u8,
    /// What would be right.
    pub expected: Expected,
}

/// A problem with the steps that lead to its answer, for documents that teach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worked {
    /// The problem.
    pub problem: Problem,
    /// What one would write down on the way, one line a step.
    pub steps: Vec<String>,
    /// The answer.
    pub answer: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_parts_are_as_stated() {
        let mut counts = [0u32; 3];
        for i in 0..16_000 {
            counts[Split::of(&format!("countdown 3 7 {i}")) as usize] += 1;
        }
        let [pretrain, reinforce, held_out] = counts;
        assert!((7750..8250).contains(&pretrain) && (6750..7250).contains(&reinforce), "{counts:?}");
        assert!((900..1100).contains(&held_out), "{counts:?}");
    }
}
