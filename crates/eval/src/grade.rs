//! The grader: one rule for benchmarks and for the reward of reinforcement learning.
//!
//! **What counts as the answer.** The text after the reasoning (`</think>`), without white space around it. If the
//! reasoning was opened and never closed there is no answer. Of several lines the last one counts; inside it the last
//! `<answer>..</answer>` or `\boxed{..}`, else what follows the last colon, without `$`, `*`, backticks and full stop.
//! `correct` says whether that is right, `format_ok` whether the answer was nothing but the answer: one line, no
//! wrapping. A reward that gives credit for `correct` alone cannot be won by several answers, since only one counts.

use std::fmt;

use text::{ReasoningFormat, ReasoningPiece, ReasoningSplitter};

use crate::expression::{Expression, ExpressionError, parse};
use crate::problem::{Expected, Language, Problem};

/// Most digits of a number that is compared.
const DIGITS_MAX: usize = 30;

/// What a grader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grade {
    /// The answer is right.
    pub correct: bool,
    /// The reasoning was closed, and the answer is in the plain form that was asked for.
    pub format_ok: bool,
    /// Why.
    pub reason: Reason,
}

/// Why an answer is right or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is right.
    Right,
    /// The reasoning never ended.
    Unfinished,
    /// Nothing follows the reasoning.
    Empty,
    /// No expression with an integer value.
    Expression(ExpressionError),
    /// An expression, but not of each given number exactly once.
    Numbers,
    /// An expression with another value.
    Value(i64),
    /// After `=` stands something else than the target.
    Claim,
    /// No number, letter or text of the kind that was asked for.
    Nothing,
    /// A program that does not pass its tests, with the last line of its error.
    Program(String),
    /// A program that has not been run.
    NotRun,
    /// Another answer.
    Other,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Right => f.write_str("right"),
            Reason::Unfinished => f.write_str("the reasoning does not end"),
            Reason::Empty => f.write_str("there is no answer"),
            Reason::Expression(error) => error.fmt(f),
            Reason::Numbers => f.write_str("each given number must be used exactly once"),
            Reason::Value(value) => write!(f, "the value is {value}"),
            Reason::Claim => f.write_str("it does not equal what it says"),
            Reason::Nothing => f.write_str("the answer has no value of the kind that was asked for"),
            Reason::Program(error) => f.write_str(error),
            Reason::NotRun => f.write_str("the program has not been run"),
            Reason::Other => f.write_str("another answer"),
        }
    }
}

impl Reason {
    /// The same as [`fmt::Display`] in Arabic, without details.
    pub fn arabic(&self) -> &'static str {
        match self {
            Reason::Right => "صحيح",
            Reason::Unfinished => "لم ينته التفكير",
            Reason::Empty => "لا توجد إجابة",
            Reason::Expression(_) => "ليست عبارة حسابية ذات قيمة صحيحة",
            Reason::Numbers => "يجب استعمال كل عدد معطى مرة واحدة فقط",
            Reason::Value(_) => "القيمة غير المطلوبة",
            Reason::Claim => "لا يساوي ما كتب",
            Reason::Nothing => "لا توجد في الإجابة قيمة من النوع المطلوب",
            Reason::Other => "إجابة أخرى",
        }
    }
}

/// Whether the prompt that a text continues ended inside the reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The prompt ended with `<think>`: without `</think>` there is no answer.
    Yes,
    /// The text may begin with `<think>`, or be the answer as a whole.
    No,
}

/// Grades what a model wrote after the prompt.
pub fn grade(problem: &Problem, written: &str, opened: Opened) -> Grade {
    match part(written, ReasoningFormat::think(opened == Opened::Yes)) {
        Some(answer) => grade_answer(problem, &answer),
        None => Grade { correct: false, format_ok: false, reason: Reason::Unfinished },
    }
}

/// Grades an answer whose reasoning has been taken off.
pub fn grade_answer(problem: &Problem, answer: &str) -> Grade {
    let answer = answer.trim();
    if answer.is_empty() {
        return Grade { correct: false, format_ok: false, reason: Reason::Empty };
    }
    let one_line = !answer.contains('\n') && !answer.contains("<|") && !answer.contains("think>");
    let line = last_line(answer);
    let bare = extract(line);
    let plain = one_line && bare == line;
    let (reason, format_ok) = match &problem.expected {
        Expected::Countdown { numbers, target } => (countdown(bare, numbers, *target), plain && parse(bare).is_ok()),
        Expected::Integer(expected) => match integer(bare) {
            Some(value) => (decide(value == *expected), plain && strict_integer(bare).is_some()),
            None => (Reason::Nothing, false),
        },
        Expected::Text(expected) => {
            let right = answer == expected.trim();
            (decide(right), right)
        }
        Expected::FreeNumber(expected) => {
            let found = last_number(line).or_else(|| last_number(answer));
            let right = found.is_some() && found == last_number(expected);
            (if found.is_none() { Reason::Nothing } else { decide(right) }, found.is_some())
        }
        Expected::Program { .. } => (Reason::NotRun, false),
        Expected::Choice { letter, choices } => match choice(line, bare, *choices) {
            Some(found) => (decide(found == *letter), plain && bare.chars().count() == 1),
            None => (Reason::Nothing, false),
        },
    };
    Grade { correct: reason == Reason::Right, format_ok, reason }
}

/// The share of the letters in `text` that belong to `language`, 1 if there are no letters: R1's language-consistency
/// reward, by letters.
pub fn language_share(text: &str, language: Language) -> f64 {
    let is_arabic = |c: char| ('\u{600}'..='\u{6ff}').contains(&c);
    let (mut own, mut all) = (0u32, 0u32);
    for c in text.chars().filter(|c| c.is_alphabetic()) {
        all += 1;
        own += u32::from(is_arabic(c) == (language == Language::Arabic));
    }
    if all == 0 { 1.0 } else { f64::from(own) / f64::from(all) }
}

/// What follows the reasoning; `None` if that does not end.
pub(crate) fn part(written: &str, format: ReasoningFormat) -> Option<String> {
    let mut splitter = ReasoningSplitter::new(format);
    let mut pieces = splitter.push(written);
    let open = splitter.in_reasoning();
    pieces.extend(splitter.finish());
    let content = pieces.into_iter().filter_map(|piece| match piece {
        ReasoningPiece::Content(text) => Some(text),
        _ => None,
    });
    (!open).then(|| content.collect())
}

/// What counts as the answer in a text whose reasoning has been taken off.
pub(crate) fn stated(answer: &str) -> &str {
    extract(last_line(answer))
}

fn last_line(answer: &str) -> &str {
    answer.trim().lines().next_back().unwrap_or_default().trim()
}

/// The answer inside its line.
fn extract(line: &str) -> &str {
    let inside = between(line, "<answer>", "</answer>").or_else(|| between(line, "\\boxed{", "}"));
    let after = inside.unwrap_or_else(|| line.rsplit(':').next().unwrap_or(line));
    after.trim_matches(|c: char| c.is_whitespace() || "$`*.".contains(c))
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let rest = &text[text.rfind(open)? + open.len()..];
    rest.find(close).map(|end| &rest[..end])
}

fn decide(right: bool) -> Reason {
    if right { Reason::Right } else { Reason::Other }
}

fn countdown(text: &str, numbers: &[u32], target: u32) -> Reason {
    let text = text.replace("\\times", "*").replace("\\cdot", "*").replace("\\div", "/");
    let (left, claim) = match text.split_once('=') {
        Some((left, claim)) => (left, Some(claim)),
        None => (text.as_str(), None),
    };
    let Expression { value, numbers: mut used, .. } = match parse(left.trim()) {
        Ok(expression) => expression,
        Err(error) => return Reason::Expression(error),
    };
    let mut given = numbers.to_vec();
    given.sort_unstable();
    used.sort_unstable();
    if used != given {
        return Reason::Numbers;
    }
    if value != i64::from(target) {
        return Reason::Value(value);
    }
    if claim.is_some_and(|claim| claim.trim() != target.to_string()) {
        return Reason::Claim;
    }
    Reason::Right
}

/// An integer and nothing else, without leading zeros.
fn strict_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = canonical && (digits == "0" || !digits.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

/// An integer, alone or as the last number of a sentence.
fn integer(text: &str) -> Option<i64> {
    strict_integer(text).or_else(|| last_number(text)?.parse().ok())
}

/// The last number of a text in canonical form: no separators, no trailing zeros after the point, no leading zeros.
fn last_number(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let end = bytes.iter().rposition(u8::is_ascii_digit)? + 1;
    // Digits, separators between them, and one point.
    let mut start = end;
    while start > 0 {
        let byte = bytes[start - 1];
        let joins = (byte == b',' || byte == b'.') && start >= 2 && bytes[start - 2].is_ascii_digit();
        if !byte.is_ascii_digit() && !joins {
            break;
        }
        start -= 1;
    }
    // `1, 2` is two numbers, `1,000` is one: a comma must part off three digits.
    let mut number = &text[start..end];
    if let Some(comma) = number.rfind(',') {
        let group = number[comma + 1..].split('.').next().unwrap_or_default();
        if group.len() != 3 {
            number = &number[comma + 1..];
        }
    }
    let negative = number.len() == end - start && start > 0 && is_sign(bytes, start - 1);
    let digits: String = number.chars().filter(|&c| c != ',').collect();
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    if digits.len() > DIGITS_MAX || fraction.contains('.') {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// A minus that is no operator: nothing or white space, a bracket or an equals sign stands before it.
fn is_sign(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b'-' && (at == 0 || b" \t\n(=$:".contains(&bytes[at - 1]))
}

/// A letter that stands alone: as the whole answer, in brackets, or before the end or a sign.
fn choice(line: &str, bare: &str, choices: u8) -> Option<char> {
    let is_choice = |c: char| c.is_ascii_uppercase() && (c as u8 - b'A') < choices;
    let mut only = bare.chars();
    if let (Some(c), None) = (only.next(), only.next()) {
        return is_choice(c.to_ascii_uppercase()).then(|| c.to_ascii_uppercase());
    }
    let characters: Vec<char> = line.chars().collect();
    let stands_alone = |at: usize| {
        let before = at.checked_sub(1).map(|before| characters[before]);
        let after = characters.get(at + 1);
        before.is_none_or(|c| !c.is_alphanumeric() && c != '\'')
            && after.is_none_or(|c| !c.is_alphanumeric() && *c != ' ' && *c != '\'')
    };
    (0..characters.len()).rev().find(|&at| is_choice(characters[at]) && stands_alone(at)).map(|at| characters[at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(expected: Expected) -> Problem {
        let (key, question) = (String::new(), String::new());
        Problem { task: "test", key, question, language: Language::English, level: 1, expected }
    }

    fn puzzle() -> Problem {
        problem(Expected::Countdown { numbers: vec![12, 4, 3], target: 24 })
    }

    fn countdown_of(answer: &str) -> Grade {
        grade(&puzzle(), answer, Opened::Yes)
    }

    #[test]
    fn right_answers_of_countdown() {
        let plain = countdown_of("12-4=8\n8*3=24\n24=24 yes\n</think>\n(12-4)*3");
        assert_eq!(plain, Grade { correct: true, format_ok: true, reason: Reason::Right });
        for wrapped in [
            "</think>(12-4)*3 = 24",
            "</think><answer>(12-4)*3</answer>",
            "</think>The answer is: (12-4)*3.",
            "</think>First\nthen $\\boxed{(12-4)\\times3}$",
            "</think>**(12 - 4) × 3**",
        ] {
            let grade = countdown_of(wrapped);
            assert!(grade.correct, "{wrapped}: {}", grade.reason);
        }
        assert!(!countdown_of("</think><answer>(12-4)*3</answer>").format_ok);
    }

    #[test]
    fn cheating_at_countdown() {
        use Reason::*;
        let long = format!("</think>{}12-4*3", "(".repeat(100_000));
        let cases = [
            ("(12-4)*3", Unfinished),
            ("<think>(12-4)*3", Unfinished),
            ("hm </think>", Empty),
            ("</think>  \n ", Empty),
            ("</think>24", Numbers),
            ("</think>12+12", Numbers),
            ("</think>(12-4)*3*1", Numbers),
            ("</think>12*4-3*12+12", Numbers),
            ("</think>12+4*3", Reason::Right),
            ("</think>12*4+3", Value(51)),
            ("</think>12/(4-3)*2", Numbers),
            ("</think>(12-4)*3=25", Claim),
            ("</think>(12-4)*3=24=24", Claim),
            ("</think>(12-4)*3 or 12+4*3", Expression(ExpressionError::Character('o'))),
            ("</think>(12-4)*3\n12*4+3", Value(51)),
            ("</think>12*4+3</think>(12-4)*3", Expression(ExpressionError::Character('<'))),
            ("</think>(١٢-4)*3", Expression(ExpressionError::Character('١'))),
            ("</think>12-4/0*3", Expression(ExpressionError::Division)),
            ("</think>3/4*12", Expression(ExpressionError::Division)),
            ("</think>--12", Expression(ExpressionError::Form)),
            ("</think>999999999999", Expression(ExpressionError::Number)),
            (&long, Expression(ExpressionError::TooLong(100_006))),
        ];
        for (text, reason) in cases {
            assert_eq!(countdown_of(text).reason, reason, "{:.40}", text);
        }
    }

    #[test]
    fn numbers() {
        let of = |text: &str| grade(&problem(Expected::Integer(57)), text, Opened::No);
        assert!(of("57").correct && of("57").format_ok);
        assert!(of("<think>\n1\n</think>\n57").format_ok);
        for said in ["The answer is 57.", "= 57", "Answer: **57**", "\\boxed{57}", "19*3=57"] {
            assert!(of(said).correct && !of(said).format_ok, "{said}");
        }
        for wrong in ["58", "57 58", "5 7", "٥٧", "57.5", "-57", "1,057", "fifty-seven", "", "57\n58", "0x39", "570"]
        {
            assert!(!of(wrong).correct, "{wrong}");
        }
        assert!(!of("057").format_ok);
        let free = |expected: &str, text: &str| {
            grade(&problem(Expected::FreeNumber(expected.into())), text, Opened::No).correct
        };
        assert!(free("1234.5", "That makes $1,234.50."));
        assert!(free("-3", "x = -3"));
        assert!(free("18", "#### 18"));
        assert!(!free("3", "x = -3"));
        assert!(free("20", "10, 20"));
    }

    #[test]
    fn choices() {
        let of = |text: &str| {
            let grade = grade(&problem(Expected::Choice { letter: 'B', choices: 4 }), text, Opened::No);
            (grade.correct, grade.format_ok)
        };
        assert_eq!(of("B"), (true, true));
        for right in ["b", "(B)", "The answer is B.", "The answer is (B) because", "Answer: B", "B) a dog"] {
            assert!(of(right).0, "{right}");
        }
        for wrong in ["A", "E", "A big dog", "", "A or B? C"] {
            assert!(!of(wrong).0, "{wrong}");
        }
    }

    #[test]
    fn exact_text() {
        let of = |text: &str| grade(&problem(Expected::Text("[a], b\nc".into())), text, Opened::No).correct;
        assert!(of("[a], b\nc\n") && !of("[a], b") && !of("Sure: [a], b\nc"));
    }

    #[test]
    fn languages() {
        assert_eq!(language_share("12+7=19", Language::Arabic), 1.0);
        assert_eq!(language_share("سارة 5+3=8", Language::Arabic), 1.0);
        assert_eq!(language_share("ab سا", Language::English), 0.5);
    }

    proptest! {
        /// Only an expression of exactly these numbers with this value is ever correct, whatever is written.
        #[test]
        fn nothing_else_wins(text in r"(</think>)?[0-9+*/() =\n<>a:.$x-]{0,40}") {
            let found = grade(&puzzle(), &text, Opened::Yes);
            if found.correct {
                let answer = text.rsplit("</think>").next().unwrap_or_default();
                let line = answer.trim().lines().next_back().unwrap_or_default();
                let mut digits: Vec<u32> = line
                    .split(|c: char| !c.is_ascii_digit())
                    .filter_map(|part| part.parse().ok())
                    .take(3)
                    .collect();
                digits.sort_unstable();
                prop_assert_eq!(digits, vec![3, 4, 12]);
                prop_assert!(text.contains("</think>"));
            }
        }

        /// Random arrangements of the pieces of right answers: correct exactly if an independent reading agrees.
        #[test]
        fn rearranged_pieces(parts in prop::collection::vec(
            prop::sample::select(vec!["12", "4", "3", "+", "-", "*", "/", "(", ")", " "]), 0..12))
        {
            let text = parts.concat();
            let found = grade(&puzzle(), &format!("</think>\n{text}"), Opened::Yes);
            let parts = text.split(|c: char| !c.is_ascii_digit());
            let numbers: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            let right = sorted == ["12", "3", "4"] && parse(&text).is_ok_and(|expression| expression.value == 24);
            prop_assert_eq!(found.correct, right);
        }

        #[test]
        fn any_text_is_graded(text in ".{0,200}", number in any::<i64>()) {
            for expected in [
                Expected::Integer(number),
                Expected::FreeNumber(number.to_string()),
                Expected::Text("x".into()),
                Expected::Choice { letter: 'B', choices: 4 },
                Expected::Countdown { numbers: vec![1, 2], target: 3 },
            ] {
                for opened in [Opened::Yes, Opened::No] {
                    let _ = grade(&problem(expected.clone()), &text, opened);
                }
            }
        }
    }
}
