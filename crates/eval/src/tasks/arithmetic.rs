//! Sums: single operations, expressions with several, long products, and comparisons.
//!
//! Everything stays in 0..=999 but for long products (two digits times two digits). One in sixteen of all additions
//! and subtractions whose operands both have two digits or more is a held-out fact: no document shows it, as a question
//! or as a step. Products and quotients up to 999 are knowledge, like a times table, and are not held out; long
//! products and expressions are, by their text.

use crate::expression::{Op, Step};
use crate::problem::{Expected, Language, Problem, Split, Worked};
use crate::rng::Rng;

/// Largest value of a step that is done in the head.
pub const VALUE_MAX: i64 = 999;
/// Levels of [`sum`]: 1 to 3 by digits, 4 to 6 expressions of two to four operations, 7 long products.
pub const SUM_LEVELS: u8 = 7;

/// Whether this single operation is kept for evaluation.
pub fn is_held_out(step: &Step) -> bool {
    let (a, op, b) = step.parts();
    match op {
        Op::Add if a.min(b) >= 10 => Split::of(&format!("fact {}+{}", a.min(b), a.max(b))) == Split::HeldOut,
        Op::Sub if b >= 10 && step.value() >= 10 => Split::of(&format!("fact {a}-{b}")) == Split::HeldOut,
        _ => false,
    }
}

/// A step with a value that is done in the head; for documents (`split` other than held out) never a held-out fact.
pub fn step_for(split: Split, a: i64, op: Op, b: i64) -> Option<Step> {
    let step = Step::new(a, op, b)?;
    let fits = (0..=VALUE_MAX).contains(&step.value());
    (fits && (split == Split::HeldOut || !is_held_out(&step))).then_some(step)
}

/// A sum of the given level (see [`SUM_LEVELS`]).
pub fn sum(rng: &mut Rng, split: Split, level: u8, language: Language) -> Worked {
    loop {
        // The first level has no held-out facts.
        let level = if split == Split::HeldOut { level.max(2) } else { level };
        let made = match level {
            0..=3 => single(rng, split, level.max(1)),
            7.. => long_product(rng, split),
            _ => expression(rng, split, usize::from(level) - 2),
        };
        if let Some((text, steps)) = made
            && let Some(last) = steps.last()
        {
            let answer = last.value();
            let problem = Problem {
                task: "arithmetic",
                key: format!("sum {text}"),
                question: question(rng, &text, level, language),
                language,
                level,
                expected: Expected::Integer(answer),
            };
            return Worked { problem, steps: steps.iter().map(Step::to_string).collect(), answer: answer.to_string() };
        }
    }
}

/// Which of two different numbers is larger, or smaller; the step is the comparison as a sign.
pub fn comparison(rng: &mut Rng, split: Split, language: Language) -> Worked {
    loop {
        let top = *rng.choose(&[20, 99, 99, 999, 999]);
        let a = rng.range(1, top);
        let b = if rng.chance(0.4) { (a + rng.range(-12, 12)).clamp(0, VALUE_MAX) } else { rng.range(1, top) };
        let (low, high) = (a.min(b), a.max(b));
        if low == high || Split::of(&format!("compare {low} {high}")) != split {
            continue;
        }
        let larger = rng.chance(0.5);
        let templates: &[&str] = match (language, larger) {
            (Language::English, true) => &["Which is larger, {a} or {b}?", "What is more: {a} or {b}?"],
            (Language::English, false) => &["Which is smaller, {a} or {b}?", "What is less: {a} or {b}?"],
            (Language::Arabic, true) => &["أيهما أكبر، {a} أم {b}؟", "ما العدد الأكبر: {a} أم {b}؟"],
            (Language::Arabic, false) => &["أيهما أصغر، {a} أم {b}؟", "ما العدد الأصغر: {a} أم {b}؟"],
        };
        let text = rng.pick(templates).replace("{a}", &a.to_string()).replace("{b}", &b.to_string());
        let answer = if larger { high } else { low };
        let problem = Problem {
            task: "compare",
            key: format!("compare {low} {high}"),
            question: text,
            language,
            level: if high > 99 { 3 } else { 2 },
            expected: Expected::Integer(answer),
        };
        let sign = if a < b { '<' } else { '>' };
        return Worked { problem, steps: vec![format!("{a}{sign}{b}")], answer: answer.to_string() };
    }
}

/// A single operation as one would write it, and its step.
fn single(rng: &mut Rng, split: Split, level: u8) -> Option<(String, Vec<Step>)> {
    let (low, high) = [(0, 12), (2, 99), (10, 999)][usize::from(level.min(3)) - 1];
    let op = if split == Split::HeldOut { *rng.choose(&Op::ALL[..2]) } else { *rng.choose(&Op::ALL) };
    let (a, b) = match op {
        Op::Add | Op::Sub => (rng.range(low, high), rng.range(low, high)),
        Op::Mul | Op::Div => {
            let (a, b) = factors(rng, level);
            if op == Op::Mul { (a, b) } else { (a * b, b) }
        }
    };
    let (a, b) = if op == Op::Sub { (a.max(b), a.min(b)) } else { (a, b) };
    let step = step_for(split, a, op, b)?;
    if split == Split::HeldOut && !is_held_out(&step) {
        return None;
    }
    Some((format!("{a}{}{b}", op.sign()), vec![step]))
}

/// Two factors with a product up to 999; the levels are those of [`single`].
fn factors(rng: &mut Rng, level: u8) -> (i64, i64) {
    let (a, b) = match level {
        1 => (rng.range(1, 12), rng.range(1, 12)),
        2 => {
            let small = rng.range(2, 10);
            (small, rng.range(2, (VALUE_MAX / small).min(99)))
        }
        _ => {
            let small = rng.range(2, 31);
            (small, rng.range(small, VALUE_MAX / small))
        }
    };
    if rng.chance(0.5) { (a, b) } else { (b, a) }
}

/// An expression of `operations` operations, with the parentheses that it needs.
fn expression(rng: &mut Rng, split: Split, operations: usize) -> Option<(String, Vec<Step>)> {
    struct Part {
        text: String,
        /// 1 for a sum, 2 for a product, 3 for a number.
        binds: u8,
        value: i64,
        steps: Vec<Step>,
    }
    let top = *rng.choose(&[9, 20, 50, 99]);
    let leaf = |value: i64| Part { text: value.to_string(), binds: 3, value, steps: Vec::new() };
    let mut parts: Vec<Part> = (0..=operations).map(|_| leaf(rng.range(1, top))).collect();
    while parts.len() > 1 {
        let at = rng.below(parts.len() - 1);
        let op = *rng.choose(&Op::ALL);
        let binds = if matches!(op, Op::Mul | Op::Div) { 2 } else { 1 };
        let right = parts.remove(at + 1);
        let left = &mut parts[at];
        let step = step_for(split, left.value, op, right.value)?;
        let wrap = |part: &Part, inside: bool| if inside { format!("({})", part.text) } else { part.text.clone() };
        // Right of a minus or a division sign the same binding needs parentheses too, and of `+` and `*` as well
        // here, so that the text says in which order the steps come.
        let text = format!("{}{}{}", wrap(left, left.binds < binds), op.sign(), wrap(&right, right.binds <= binds));
        left.steps.extend(right.steps);
        left.steps.push(step);
        *left = Part { text, binds, value: step.value(), steps: std::mem::take(&mut left.steps) };
    }
    let whole = parts.pop()?;
    (Split::of(&format!("sum {}", whole.text)) == split).then_some((whole.text, whole.steps))
}

/// Two digits times two digits over 999, by tens and ones.
fn long_product(rng: &mut Rng, split: Split) -> Option<(String, Vec<Step>)> {
    let (a, b) = (rng.range(11, 99), rng.range(11, 99));
    let (tens, ones) = (b / 10 * 10, b % 10);
    if a * b <= VALUE_MAX || ones == 0 || Split::of(&format!("product {} {}", a.min(b), a.max(b))) != split {
        return None;
    }
    let first = Step::new(a, Op::Mul, tens)?;
    let second = Step::new(a, Op::Mul, ones)?;
    let both = Step::new(first.value(), Op::Add, second.value())?;
    if split != Split::HeldOut && is_held_out(&both) {
        return None;
    }
    Some((format!("{a}*{b}"), vec![first, second, both]))
}

/// How sums are asked in English; `{e}` is the expression. Those that stand twice are asked twice as often.
pub(super) const PHRASINGS_ENGLISH: &[&str] = &[
    "What is {e}?",
    "What is {e}?",
    "{e}=?",
    "{e}",
    "Calculate {e}.",
    "How much is {e}?",
    "Work out {e}.",
    "Please calculate {e}.",
    "what is {e}",
    "Find {e}.",
    "Can you tell me what {e} is?",
    "{e} =",
];

/// The same in Arabic.
pub(super) const PHRASINGS_ARABIC: &[&str] = &[
    "كم يساوي {e}؟",
    "كم يساوي {e}؟",
    "ما ناتج {e}؟",
    "احسب {e}.",
    "{e}=؟",
    "كم حاصل {e}؟",
    "أوجد ناتج {e}.",
    "من فضلك احسب {e}.",
    "كم {e}؟",
    "هل تستطيع أن تحسب {e}؟",
];

/// `+ - * /` as words.
pub(super) const SPOKEN_ENGLISH: [&str; 4] = [" plus ", " minus ", " times ", " divided by "];
/// The same in Arabic.
pub(super) const SPOKEN_ARABIC: [&str; 4] = [" زائد ", " ناقص ", " ضرب ", " على "];

fn question(rng: &mut Rng, text: &str, level: u8, language: Language) -> String {
    // As people type it.
    let typed = match rng.below(8) {
        0 => text.chars().map(|c| if "+-*/".contains(c) { format!(" {c} ") } else { c.to_string() }).collect(),
        1 => text.replace('*', "×").replace('/', "÷"),
        2 if level <= 3 => text.replace('*', " x ").replace('+', " + "),
        3 if level <= 3 => spoken(text, language),
        _ => text.to_string(),
    };
    let phrasings = match language {
        Language::English => PHRASINGS_ENGLISH,
        Language::Arabic => PHRASINGS_ARABIC,
    };
    rng.pick(phrasings).replace("{e}", &typed)
}

/// The operation as a word.
fn spoken(text: &str, language: Language) -> String {
    let words = match language {
        Language::English => SPOKEN_ENGLISH,
        Language::Arabic => SPOKEN_ARABIC,
    };
    text.chars().map(|c| "+-*/".find(c).map_or(c.to_string(), |at| words[at].to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::parse;

    #[test]
    fn answers_are_values_and_parts_are_apart() {
        for split in [Split::Pretrain, Split::Reinforce, Split::HeldOut] {
            for index in 0..4000 {
                let mut rng = Rng::new(7, "test", index);
                let level = (index % u64::from(SUM_LEVELS)) as u8 + 1;
                let worked = sum(&mut rng, split, level, Language::English);
                let text = worked.problem.key.strip_prefix("sum ").expect("the key of a sum");
                let value = parse(text).expect("an expression").value;
                assert_eq!(worked.problem.expected, Expected::Integer(value), "{text}");
                assert_eq!(worked.answer, value.to_string());
                for step in &worked.steps {
                    let (left, right) = step.split_once('=').expect("an equation");
                    assert_eq!(parse(left).expect("an operation").value.to_string(), right, "{step}");
                }
                if worked.problem.level == 4 {
                    assert_eq!(Split::of(&worked.problem.key), split);
                }
            }
        }
    }

    #[test]
    fn comparisons_say_the_right_number() {
        for index in 0..1000 {
            let worked = comparison(&mut Rng::new(1, "test", index), Split::Pretrain, Language::English);
            let question = &worked.problem.question;
            let numbers: Vec<i64> = question
                .split(|c: char| !c.is_ascii_digit())
                .filter(|part| !part.is_empty())
                .map(|part| part.parse().expect("a number"))
                .collect();
            let larger = question.contains("larger") || question.contains("more");
            let right = if larger { numbers.iter().max() } else { numbers.iter().min() };
            assert_eq!(worked.problem.expected, Expected::Integer(*right.expect("two numbers")));
        }
    }
}
