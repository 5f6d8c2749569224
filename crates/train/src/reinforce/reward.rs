//! What an answer is worth, by rules alone.
//!
//! An answer in the right form reasons, closes its reasoning once, gives nothing but an answer and ends. What follows
//! the reasoning is graded by the same grader that evaluates models (`eval`). The parts of the reward, with their
//! weights from the recipe:
//!
//! - `correct`, for an answer that is right *and* in the right form: a right number in a babbled sentence, or two
//!   answers of which one is right, earn nothing that could be learned instead of the form;
//! - `format`, a small part for the right form alone, so that a model that solves nothing yet has something to climb
//!   (R1-Zero's format reward; 0.1 as in TinyZero);
//! - `language`, for reasoning in the question's language (R1's second stage), for answers in the right form;
//! - the last `overlong_share` of the length limit takes the reward away in a straight line.

use eval::{Problem, grade_answer, language_share};
use text::{Specials, Tokenizer};

use super::recipe::Reinforce;
use super::rollout::Answer;
use crate::random::Random;

/// An answer's worth, and what it is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worth {
    /// The sum.
    pub reward: f64,
    /// Whether the answer is right, whatever its form.
    pub correct: bool,
    /// Whether its form is.
    pub format: bool,
    /// Share of the reasoning's letters that are of the question's language; 1 where there are none.
    pub language: f64,
    /// Words that begin another attempt.
    pub retries: usize,
}

/// Words with which the corpora begin another attempt; `wait` is R1's own.
const RETRY_WORDS: [&str; 6] = ["try again", "no, or", "wait", "أحاول مرة أخرى", "لا، أو", "لحظة"];

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
        let said = said.filter(|_| answer.stopped);
        let grade = said.map(|said| grade_answer(problem, &said));
        let (correct, format) = grade.map_or((false, false), |grade| (grade.correct, grade.format_ok));
        let language = language_share(&reasoning, problem.language);
        let s = self.settings;
        let kept = kept(answer.tokens.len(), tokens_max, s.overlong_share);
        let flag = |yes: bool| f64::from(u8::from(yes));
        let reward = kept
            * (s.correct * flag(correct && format) + s.format * flag(format) + s.language * flag(format) * language);
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

/// The weight with which each answer of a group is learned, so that at most `most` have one (0: all): of those with a
/// positive and those with a negative advantage some are drawn, about as many of either, and each stands for its share
/// of its kind. The expected sum over the group is that of all.
pub(crate) fn chosen(advantages: &[f64], most: usize, random: &mut Random) -> Vec<f64> {
    let mut kinds: [Vec<usize>; 2] = [true, false]
        .map(|positive| (0..advantages.len()).filter(|&i| (advantages[i] > 0.0) == positive).collect::<Vec<_>>());
    if most == 0 || advantages.len() <= most {
        return vec![1.0; advantages.len()];
    }
    let [positive, negative] = [kinds[0].len(), kinds[1].len()];
    let own = positive.min((most / 2).max(most.saturating_sub(negative)));
    let mut weights = vec![0.0; advantages.len()];
    for (kind, count) in kinds.iter_mut().zip([own, negative.min(most - own)]) {
        random.shuffle(kind);
        let weight = kind.len() as f64 / count.max(1) as f64;
        kind[..count].iter().for_each(|&i| weights[i] = weight);
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_group_stands_for_all_of_it() {
        let rewards = [1.0, 0.0, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let advantages = advantages(&rewards);
        let mut sums = [0.0; 10];
        const DRAWS: u64 = 4000;
        for draw in 0..DRAWS {
            let weights = chosen(&advantages, 4, &mut Random::new(&[draw]));
            assert_eq!(weights.iter().filter(|w| **w > 0.0).count(), 4);
            let right: f64 = [0, 4].iter().map(|&i| weights[i]).sum();
            assert_eq!((right, weights.iter().sum::<f64>()), (2.0, 10.0));
            sums.iter_mut().zip(&weights).for_each(|(sum, w)| *sum += w / DRAWS as f64);
        }
        assert!(sums.iter().all(|mean| (mean - 1.0).abs() < 0.15), "{sums:?}");
        let few = chosen(&advantages, 0, &mut Random::new(&[1]));
        assert_eq!(few, vec![1.0; 10]);
        // All but one are right: the wrong one is never left out.
        let weights = chosen(&[0.1, 0.1, 0.1, -0.3], 2, &mut Random::new(&[5]));
        assert_eq!((weights[3], weights.iter().sum::<f64>()), (1.0, 4.0));
    }

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
