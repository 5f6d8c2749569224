//! Countdown as random honest play: no document shows how to find a solution.
//!
//! The puzzles are those of [`Split::Pretrain`], with the same phrasing as in reinforcement learning, whose own
//! puzzles no document shows. An attempt plays random valid operations until one number is left and says honestly
//! whether that is the target: `25<30 no` or `30=30 yes`. Mostly there is one attempt; a stated share of the documents
//! goes on: with `no, try again` from the beginning, or with `no, or` and another last operation on the same two
//! numbers, as a coin falls. All attempts of a document differ, each is as random as the first, and they stop where one
//! meets the target by chance or their number runs out. The answer is always the last attempt as an expression, also
//! where it misses. Nothing looks at the target to choose an operation.
//!
//! The option `solved` is for one control alone (fine-tuning on solutions): that share of the documents shows a single
//! attempt, which meets the target. No recipe of the built-in model sets it.

use std::collections::BTreeSet;

use eval::rng::Rng;
use eval::tasks::countdown::{Attempt, SIZES, attempt, puzzle};
use eval::{Expected, Language, Split};

use super::chat::{Turn, chat};
use super::{Document, Source};

/// Most attempts of a document.
const ATTEMPTS_MAX: usize = 18;
/// Where a document's attempts end at the latest, in characters of its operations: 512 tokens then mostly hold it (of
/// documents with several attempts one in thirty is longer, and is cut where documents are packed).
const OPERATIONS_CHARS_MAX: usize = 320;
/// Share of the further attempts that change the last operation alone, where there is another one.
const ENDINGS: f64 = 0.5;
/// Random plays that are tried for one that meets the target: with four numbers about one in thirty does.
const SOLVING_MAX: usize = 2000;
/// How often each of [`SIZES`] is asked.
const LEVEL_WEIGHTS: [u32; SIZES.len()] = [2, 4, 4, 3, 3, 3];

/// The corpus of attempts.
pub(super) struct Countdown {
    pub(super) seed: u64,
    /// Share of the documents with more than one attempt.
    pub(super) retries: f64,
    /// Share of the documents with one attempt that meets the target.
    pub(super) solved: f64,
    pub(super) arabic: f64,
}

impl Source for Countdown {
    fn name(&self) -> &'static str {
        "countdown"
    }

    fn origin(&self) -> String {
        let sought = match self.solved {
            0.0 => "none with a sought solution".to_string(),
            share => format!("{share} of them with a sought solution"),
        };
        format!(
            "Random honest attempts at countdown puzzles, generator version 2; {} of the documents with several attempts, \
             {sought}; puzzles of reinforcement learning and evaluation excluded by hash.",
            self.retries
        )
    }

    fn document(&self, index: u64) -> Document {
        let mut rng = Rng::new(self.seed, "countdown", index);
        let rng = &mut rng;
        let language = if rng.chance(self.arabic) { Language::Arabic } else { Language::English };
        let level = rng.weighted(&LEVEL_WEIGHTS) as u8 + 1;
        let solved = self.solved > 0.0 && rng.chance(self.solved);
        let several = !solved && rng.chance(self.retries);
        loop {
            let problem = puzzle(rng, Split::Pretrain, level, language);
            let Expected::Countdown { numbers, target } = &problem.expected else { continue };
            let (numbers, target): (Vec<i64>, i64) = (numbers.iter().map(|&n| n.into()).collect(), (*target).into());
            let most = if numbers.len() == 2 { 4 } else { ATTEMPTS_MAX };
            let tries = if several { rng.range(2, most as i64) as usize } else { 1 };
            let whole = |attempt| Try { attempt, ending: false };
            let attempts: Vec<Try> = match solved {
                true => solution(rng, &numbers, target).into_iter().map(whole).collect(),
                false => play(rng, &numbers, target, tries),
            };
            // Rarely every play of a puzzle needs a held-out fact.
            let Some(last) = attempts.last() else { continue };
            let answer = last.attempt.expression.clone();
            let turn = Turn { user: problem.question, think: trace(&attempts, target, language), answer };
            return chat(rng, kind(numbers.len(), several), vec![turn], 0.01);
        }
    }
}

/// The first random play that meets the target.
fn solution(rng: &mut Rng, numbers: &[i64], target: i64) -> Option<Attempt> {
    let mut plays = (0..SOLVING_MAX).map(|_| attempt(rng, Split::Pretrain, numbers));
    plays.find_map(|play| play.filter(|play| play.value() == target))
}

/// An attempt of a document.
struct Try {
    attempt: Attempt,
    /// Whether it has all operations of the one before but the last.
    ending: bool,
}

/// Up to `tries` different attempts, the last of them the first that meets the target.
fn play(rng: &mut Rng, numbers: &[i64], target: i64, tries: usize) -> Vec<Try> {
    let mut seen = BTreeSet::new();
    let mut attempts: Vec<Try> = Vec::new();
    let mut chars = 0;
    // Small puzzles have few different plays.
    for _ in 0..tries * 4 {
        let mut endings = attempts.last().map_or_else(Vec::new, |last| last.attempt.endings(Split::Pretrain));
        endings.retain(|ending| !seen.contains(&ending.expression));
        let ending = !endings.is_empty() && rng.chance(ENDINGS);
        let next = if ending { Some(endings.swap_remove(rng.below(endings.len()))) } else { None };
        let Some(next) = next.or_else(|| attempt(rng, Split::Pretrain, numbers)) else { continue };
        if !seen.insert(next.expression.clone()) {
            continue;
        }
        let next = Try { attempt: next, ending };
        let met = next.attempt.value() == target;
        chars += next.lines().map(|line| line.len() + 1).sum::<usize>();
        attempts.push(next);
        if met || attempts.len() == tries || chars > OPERATIONS_CHARS_MAX {
            break;
        }
    }
    attempts
}

impl Try {
    /// The operations that are written.
    fn lines(&self) -> impl Iterator<Item = String> {
        let steps = &self.attempt.steps;
        steps[if self.ending { steps.len() - 1 } else { 0 }..].iter().map(ToString::to_string)
    }
}

/// The attempts as reasoning.
fn trace(attempts: &[Try], target: i64, language: Language) -> String {
    let (no, again, or, yes) = match language {
        Language::English => (" no", ", try again", ", or", " yes"),
        Language::Arabic => (" لا", "، أحاول مرة أخرى", "، أو", " نعم"),
    };
    let mut lines = Vec::new();
    for (at, one) in attempts.iter().enumerate() {
        lines.extend(one.lines());
        let value = one.attempt.value();
        let sign = ['<', '=', '>'][(value.cmp(&target) as i8 + 1) as usize];
        let verdict = if value == target { yes } else { no };
        let more = attempts.get(at + 1).map_or("", |next| if next.ending { or } else { again });
        lines.push(format!("{value}{sign}{target}{verdict}{more}"));
    }
    lines.join("\n")
}

fn kind(numbers: usize, several: bool) -> &'static str {
    match (numbers, several) {
        (2, false) => "countdown/2",
        (2, true) => "countdown/2 retries",
        (3, false) => "countdown/3",
        (3, true) => "countdown/3 retries",
        (_, false) => "countdown/4",
        (_, true) => "countdown/4 retries",
    }
}
