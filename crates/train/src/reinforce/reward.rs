//! What an answer is worth, by rules alone.
//!
//! An answer in the right form reasons, closes its reasoning once, gives an answer and ends. What follows the
//! reasoning is graded by the same grader that evaluates models (`eval`).

use eval::{Problem, grade_answer, language_share};
use text::{Specials, Tokenizer};

use super::recipe::Reinforce;
use super::rollout::Answer;

/// An answer's worth, and what it is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worth {
    /// The sum.
    pub reward: f64,
    /// Whether the answer is right.
    pub correct: bool,
    /// Whether its form is.
    pub format: bool,
    /// Share of the reasoning's letters that are of the question's language; 1 where there are none.
    pub language: f64,
    /// Words that begin another attempt.
    pub retries: usize,
}

/// Words with which the corpora begin another attempt; `wait` is R1's own.
const RETRY_WORDS: [&str; 4] = ["try again", "wait", "أحاول مرة أخرى", "لحظة"];

/// Splits answers and weighs them.
pub struct Judge<'a> {
    tokenizer: &'a Tokenizer,
    settings: &'a Reinforce,
    /// The token that closes the reasoning.
    close: u32,
}

impl<'a> Judge<'a> {
    /// A judge; none if the tokenizer has no `</think>`.
    pub fn new(tokenizer: &'a Tokenizer, settings: &'a Reinforce) -> Option<Judge<'a>> {
        Some(Judge { tokenizer, settings, close: tokenizer.id("</think>")? })
    }

    /// The reasoning and the answer as text; the answer is none where the reasoning does not end, or ends twice.
    pub fn split(&self, answer: &Answer) -> (String, Option<String>) {
        let text = |tokens: &[u32]| self.tokenizer.decode(tokens, Specials::Hide);
        let mut closes = answer.tokens.iter().enumerate().filter(|(_, token)| **token == self.close).map(|(i, _)| i);
        match (closes.next(), closes.next()) {
            (Some(at), None) => (text(&answer.tokens[..at]), Some(text(&answer.tokens[at + 1..]))),
            _ => (text(&answer.tokens), None),
        }
    }

    /// What the answer is worth where `tokens_max` was the limit.
    pub fn weigh(&self, problem: &Problem, answer: &Answer, tokens_max: usize) -> Worth {
        let (reasoning, said) = self.split(answer);
        let said = said.filter(|_| answer.ended);
        let grade = said.map(|said| grade_answer(problem, &said));
        let (correct, format) = grade.map_or((false, false), |grade| (grade.correct, grade.format_ok));
        let language = language_share(&reasoning, problem.language);
        let s = self.settings;
        let kept = kept(answer.tokens.len(), tokens_max, s.overlong_share);
        let flag = |yes: bool| f64::from(u8::from(yes));
        let reward =
            kept * (s.correct * flag(correct) + s.format * flag(format) + s.language * flag(format) * language);
        let lower = reasoning.to_lowercase();
        let retries = RETRY_WORDS.iter().map(|word| lower.matches(word).count()).sum();
        Worth { reward, correct, format, language, retries }
    }
}

/// The share of its reward that an answer of `length` tokens keeps (DAPO, section 3.4, in proportion to the reward).
fn kept(length: usize, tokens_max: usize, overlong_share: f64) -> f64 {
    let soft = overlong_share * tokens_max as f64;
    let left = tokens_max as f64 - length as f64;
    if soft > 0.0 { (left / soft).clamp(0.0, 1.0) } else { 1.0 }
}

/// Advantages of a group: each reward less the mean, without dividing by the deviation (Liu et al. 2025, V3.2 report).
/// Zeros where all are equal.
pub fn advantages(rewards: &[f64]) -> Vec<f64> {
    let mean = rewards.iter().sum::<f64>() / rewards.len().max(1) as f64;
    if rewards.iter().all(|r| r == &rewards[0]) {
        return vec![0.0; rewards.len()];
    }
    rewards.iter().map(|r| r - mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_sum_to_zero_and_equal_rewards_give_none() {
        assert_eq!(advantages(&[1.0, 0.0, 0.0, 1.0]), [0.5, -0.5, -0.5, 0.5]);
        assert_eq!(advantages(&[0.1; 3]), [0.0; 3]);
        assert!(advantages(&[]).is_empty());
    }

    #[test]
    fn long_answers_lose_their_reward_softly() {
        let kept = |length| kept(length, 100, 0.2);
        assert_eq!([kept(10), kept(80), kept(90), kept(100)], [1.0, 1.0, 0.5, 0.0]);
        assert_eq!(super::kept(100, 100, 0.0), 1.0);
    }
}
