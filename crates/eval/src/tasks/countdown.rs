//! Countdown: reach a target from given numbers with `+ - * /`, each number exactly once.
//!
//! The target is the value of a random expression, so every puzzle has a solution, but nothing here looks for one: an
//! [`Attempt`] is a random valid play, and meets the target only by chance (about 7 to 10 % with three numbers, 2 to
//! 4 % with four).

use crate::expression::{Op, Step};
use crate::problem::{Expected, Language, Problem, Split};
use crate::rng::Rng;
use crate::tasks::arithmetic::step_for;

/// Size of a puzzle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// How many numbers, 2 to 5.
    pub numbers: usize,
    /// The largest of them.
    pub number_max: i64,
}

/// The sizes from easy to hard; the level of a puzzle is its place here, from 1.
pub const SIZES: [Size; 6] = [
    Size { numbers: 2, number_max: 20 },
    Size { numbers: 3, number_max: 20 },
    Size { numbers: 3, number_max: 50 },
    Size { numbers: 4, number_max: 20 },
    Size { numbers: 4, number_max: 50 },
    Size { numbers: 4, number_max: 99 },
];
/// The smallest and the largest target of puzzles with three numbers or more.
const TARGETS: (i64, i64) = (10, 100);

/// A puzzle of a level (see [`SIZES`]).
pub fn puzzle(rng: &mut Rng, split: Split, level: u8, language: Language) -> Problem {
    let level = level.clamp(1, SIZES.len() as u8);
    let size = SIZES[usize::from(level) - 1];
    loop {
        let numbers: Vec<i64> = (0..size.numbers).map(|_| rng.range(1, size.number_max)).collect();
        let Some(plan) = attempt(rng, Split::HeldOut, &numbers) else { continue };
        let target = plan.value();
        let wanted = if size.numbers == 2 { 1..=VALUE_SMALL_MAX } else { TARGETS.0..=TARGETS.1 };
        let key = key(&numbers, target);
        if !wanted.contains(&target) || Split::of(&key) != split {
            continue;
        }
        return Problem {
            task: ["countdown2", "countdown3", "countdown4"][size.numbers - 2],
            question: question(rng, &numbers, target, language),
            key,
            language,
            level,
            expected: Expected::Countdown {
                numbers: numbers.iter().map(|&number| number as u32).collect(),
                target: target as u32,
            },
        };
    }
}

/// The largest target of puzzles with two numbers.
const VALUE_SMALL_MAX: i64 = 400;

/// The puzzle without its phrasing and the order of its numbers.
pub fn key(numbers: &[i64], target: i64) -> String {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let list: Vec<String> = sorted.iter().map(i64::to_string).collect();
    format!("countdown {} -> {target}", list.join(" "))
}

/// A complete play: every number used once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The operations in order; the last gives the value.
    pub steps: Vec<Step>,
    /// The play as one expression, every inner operation in parentheses: `(3*7)+4`.
    pub expression: String,
    /// The two numbers of the last operation, with how they came about.
    last: [(i64, String); 2],
}

impl Attempt {
    /// What the play reaches.
    pub fn value(&self) -> i64 {
        self.steps.last().map_or(0, Step::value)
    }

    /// The plays that differ from this one in the last operation alone, which may use its two numbers in either order.
    pub fn endings(&self, split: Split) -> Vec<Attempt> {
        let own = self.steps.last();
        let others = moves(split, &self.last).into_iter().filter(|(_, _, step)| Some(step) != own);
        let ending = |(i, j, step): (usize, usize, Step)| {
            let mut steps = self.steps.clone();
            steps.pop();
            let expression = joined(&self.last[i].1, step, &self.last[j].1);
            steps.push(step);
            Attempt { steps, expression, last: self.last.clone() }
        };
        others.map(ending).collect()
    }
}

/// A random valid play: at each step all pairs of numbers and operations are equally likely that give a positive
/// integer up to 999 (and, in documents, no held-out fact). `None` if the play runs into a dead end.
pub fn attempt(rng: &mut Rng, split: Split, numbers: &[i64]) -> Option<Attempt> {
    let mut left: Vec<(i64, String)> = numbers.iter().map(|&number| (number, number.to_string())).collect();
    let mut steps = Vec::with_capacity(numbers.len());
    loop {
        let moves = moves(split, &left);
        if moves.is_empty() {
            return None;
        }
        let &(i, j, step) = rng.choose(&moves);
        let text = joined(&left[i].1, step, &left[j].1);
        steps.push(step);
        if let [first, second] = &left[..] {
            return Some(Attempt { steps, expression: text, last: [first.clone(), second.clone()] });
        }
        left.remove(i.max(j));
        left.remove(i.min(j));
        left.push((step.value(), text));
    }
}

/// The operations on two of the numbers, by their places.
fn moves(split: Split, left: &[(i64, String)]) -> Vec<(usize, usize, Step)> {
    let mut moves = Vec::new();
    for i in 0..left.len() {
        for j in (0..left.len()).filter(|&j| j != i) {
            for op in Op::ALL {
                // One order of the operands that may be exchanged is enough: the larger first.
                let exchanged = matches!(op, Op::Add | Op::Mul) && (left[i].0, j) < (left[j].0, i);
                let step = step_for(split, left[i].0, op, left[j].0).filter(|step| step.value() > 0);
                if let Some(step) = step.filter(|_| !exchanged) {
                    moves.push((i, j, step));
                }
            }
        }
    }
    moves
}

/// An operation on two expressions as one expression.
fn joined(left: &str, step: Step, right: &str) -> String {
    let wrap = |text: &str| if text.contains(['+', '-', '*', '/']) { format!("({text})") } else { text.into() };
    format!("{}{}{}", wrap(left), step.parts().1.sign(), wrap(right))
}

/// How puzzles are asked in English: `{t}` is the target, `{and}` and `{comma}` are the numbers.
pub(super) const PHRASINGS_ENGLISH: &[&str] = &[
    "Use {and} to make {t}.",
    "Make {t} from {and}.",
    "Using the numbers {comma}, make {t}. Use each number once.",
    "Countdown: numbers {comma}, target {t}.",
    "Reach {t} with {and}. Each number once, and + - * /.",
    "Can you make {t} out of {and}?",
];

/// The same in Arabic.
pub(super) const PHRASINGS_ARABIC: &[&str] = &[
    "استعمل الأعداد {and} لتصل إلى {t}.",
    "كون العدد {t} من الأعداد {and}.",
    "الأعداد: {and}. الهدف: {t}. استعمل كل عدد مرة واحدة.",
    "كيف نصل إلى {t} من {and}؟",
    "هل تستطيع الوصول إلى {t} باستعمال {and}؟",
];

fn question(rng: &mut Rng, numbers: &[i64], target: i64, language: Language) -> String {
    let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
    let (last, first) = texts.split_last().map_or(("", &[][..]), |(last, first)| (last.as_str(), first));
    let comma = texts.join(", ");
    let target = target.to_string();
    let (list, phrasings) = match language {
        Language::English => (format!("{} and {last}", first.join(", ")), PHRASINGS_ENGLISH),
        Language::Arabic => (format!("{} و{last}", first.join(" و")), PHRASINGS_ARABIC),
    };
    rng.pick(phrasings).replace("{and}", &list).replace("{comma}", &comma).replace("{t}", &target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::parse;

    #[test]
    fn puzzles_belong_to_their_part_and_attempts_are_what_they_say() {
        let mut reached = 0;
        for index in 0..3000 {
            let mut rng = Rng::new(3, "test", index);
            let split = [Split::Pretrain, Split::Reinforce, Split::HeldOut][(index % 3) as usize];
            let problem = puzzle(&mut rng, split, 2, Language::English);
            assert_eq!(Split::of(&problem.key), split);
            let Expected::Countdown { numbers, target } = &problem.expected else { panic!("{problem:?}") };
            assert_eq!(numbers.len(), 3);
            let given: Vec<i64> = numbers.iter().map(|&number| i64::from(number)).collect();
            assert_eq!(key(&given, i64::from(*target)), problem.key);
            let Some(attempt) = attempt(&mut rng, Split::Pretrain, &given) else { continue };
            for ending in attempt.endings(Split::Pretrain) {
                assert_ne!(ending.expression, attempt.expression);
                assert_eq!(ending.steps[..1], attempt.steps[..1]);
                assert_eq!(parse(&ending.expression).expect("an expression").value, ending.value());
            }
            let read = parse(&attempt.expression).expect("an expression");
            assert_eq!(read.value, attempt.value(), "{}", attempt.expression);
            let (mut used, mut given) = (read.numbers, numbers.clone());
            used.sort_unstable();
            given.sort_unstable();
            assert_eq!(used, given);
            reached += usize::from(read.value == i64::from(*target));
        }
        // By chance alone, about one in ten.
        assert!((120..480).contains(&reached), "{reached} of 3000");
    }
}
