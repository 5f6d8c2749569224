//! Which problem a person asks, where a rule can check the answer: countdown puzzles and plain sums.
//!
//! The inverse of the generators: their own phrasings with the numbers left open, so that a phrasing that is added
//! there is understood here. A question that is anything else, more than one thing, or near to a phrasing only, is no
//! problem ([`recognise`] gives `None`): a mark beside an answer must never be a guess.

use crate::expression::{EXPRESSION_BYTES_MAX, parse};
use crate::grade::{Grade, Reason, grade_answer, stated};
use crate::problem::{Expected, Language, Problem};
use crate::task::Task;
use crate::tasks::{arithmetic, countdown};

/// Longest question that is looked at, in bytes.
const QUESTION_BYTES_MAX: usize = 512;
/// How many numbers a puzzle may have.
const NUMBERS: std::ops::RangeInclusive<usize> = 2..=8;
/// Most digits of a number of a question, without leading zeros.
const DIGITS_MAX: usize = 9;

/// What a rule found about an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `countdown` or `arithmetic`.
    pub task: &'static str,
    /// The answer is right.
    pub ok: bool,
    /// What was checked, in English and in Arabic.
    pub detail: [String; 2],
}

/// The problem that a question asks, if it is one that a rule can check. The problem's `key` and `level` are not those
/// of a generator.
pub fn recognise(question: &str) -> Option<Problem> {
    if question.len() > QUESTION_BYTES_MAX {
        return None;
    }
    let text = normalised(question);
    let instructions = [Task::Countdown(3), Task::Arithmetic].map(|task| normalised(task.instruction()));
    let text = instructions.iter().find_map(|i| text.strip_suffix(i)).map_or(text.as_str(), trimmed);
    // Phrasings without words are of both languages; operations as words and the question mark tell.
    let is_arabic = question.chars().any(|c| ('\u{600}'..='\u{6ff}').contains(&c) && !c.is_numeric());
    let language = if is_arabic { Language::Arabic } else { Language::English };
    let of = |task, expected| Problem {
        task,
        key: String::new(),
        question: question.to_string(),
        language,
        level: 1,
        expected,
    };
    let mut puzzles = countdown::PHRASINGS_ENGLISH.iter().chain(countdown::PHRASINGS_ARABIC);
    if let Some(expected) = puzzles.find_map(|phrasing| puzzle(phrasing, text)) {
        return Some(of("countdown", expected));
    }
    let mut sums = arithmetic::PHRASINGS_ENGLISH.iter().chain(arithmetic::PHRASINGS_ARABIC);
    sums.find_map(|phrasing| sum(phrasing, text)).map(|expected| of("arithmetic", expected))
}

/// Checks the answer (without its reasoning) to a question; `None` if no rule can.
pub fn verdict(question: &str, answer: &str) -> Option<Verdict> {
    let problem = recognise(question)?;
    let Grade { correct, reason, .. } = grade_answer(&problem, answer);
    let detail = match &problem.expected {
        Expected::Integer(value) => {
            let equation = format!("{} = {value}", expression_of(question)?);
            [equation.clone(), equation]
        }
        Expected::Countdown { target, .. } => played(&reason, stated(answer), *target),
        _ => return None,
    };
    Some(Verdict { task: problem.task, ok: correct, detail })
}

/// What an answer to a puzzle comes to.
fn played(reason: &Reason, said: &str, target: u32) -> [String; 2] {
    // Only what reads as an expression is said again.
    let said = said.split('=').next().unwrap_or_default().trim();
    let said = if parse(said).is_ok() { said } else { "" };
    let equal = |value: i64| format!("{said} = {value}");
    match reason {
        Reason::Right => [equal(i64::from(target)), equal(i64::from(target))],
        Reason::Value(value) => {
            [format!("{}, not {target}", equal(*value)), format!("{}، وليس {target}", equal(*value))]
        }
        other => [other.to_string(), other.arabic().to_string()],
    }
}

/// The puzzle of a text, if it has the form of a phrasing.
fn puzzle(phrasing: &str, text: &str) -> Option<Expected> {
    let holes = fit(phrasing, text, &|name, hole| match name {
        "t" => number(hole).is_some(),
        _ => list(hole).is_some(),
    })?;
    let find = |wanted: &dyn Fn(&str) -> bool| holes.iter().find(|(name, _)| wanted(name)).map(|(_, hole)| *hole);
    let target = number(find(&|name| name == "t")?)?;
    let numbers = list(find(&|name| name != "t")?)?;
    Some(Expected::Countdown { numbers, target })
}

/// The sum of a text, if it has the form of a phrasing.
fn sum(phrasing: &str, text: &str) -> Option<Expected> {
    let holes = fit(phrasing, text, &|_, hole| value(hole).is_some())?;
    holes.first().and_then(|(_, hole)| value(hole)).map(Expected::Integer)
}

/// The expression that a question asks for, as one would write it.
fn expression_of(question: &str) -> Option<String> {
    let text = normalised(question);
    let phrasings = arithmetic::PHRASINGS_ENGLISH.iter().chain(arithmetic::PHRASINGS_ARABIC);
    let hole = phrasings.filter_map(|phrasing| fit(phrasing, &text, &|_, hole| value(hole).is_some())).next()?;
    Some(written(hole.first()?.1))
}

/// A question without differences that mean nothing: capitals, white space, closing signs, Arabic-Indic digits.
fn normalised(text: &str) -> String {
    let digit = |c: char| match c {
        '٠'..='٩' => char::from(b'0' + (c as u32 - '٠' as u32) as u8),
        '۰'..='۹' => char::from(b'0' + (c as u32 - '۰' as u32) as u8),
        _ => c.to_ascii_lowercase(),
    };
    let text: String = text.chars().map(digit).collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    trimmed(&words.join(" ")).to_string()
}

/// Without the signs that end a question.
fn trimmed(text: &str) -> &str {
    text.trim_end_matches([' ', '.', '?', '؟', '!', '='])
}

/// What stands in the holes of a phrasing, if the text has its form and `good` takes all of them.
fn fit<'p, 't>(phrasing: &'p str, text: &'t str, good: &dyn Fn(&str, &str) -> bool) -> Option<Vec<(&'p str, &'t str)>> {
    let Some((literal, rest)) = phrasing.split_once('{') else {
        return (text == trimmed(&phrasing.to_ascii_lowercase())).then(Vec::new);
    };
    let (name, after) = rest.split_once('}')?;
    let text = text.strip_prefix(literal.to_ascii_lowercase().as_str())?;
    // A hole ends where what follows it begins.
    let next = after.split('{').next().unwrap_or_default().to_ascii_lowercase();
    let next = if after.contains('{') { next.as_str() } else { trimmed(&next) };
    let ends: Vec<usize> = match next {
        "" => vec![text.len()],
        next => text.match_indices(next).map(|(at, _)| at).collect(),
    };
    ends.into_iter().find_map(|end| {
        let hole = text[..end].trim();
        let mut holes = if good(name, hole) { fit(after, &text[end..], good)? } else { return None };
        holes.insert(0, (name, hole));
        Some(holes)
    })
}

/// A positive integer in plain form.
fn number(text: &str) -> Option<u32> {
    let plain = !text.starts_with('0') && text.len() <= DIGITS_MAX && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// Some numbers, parted by commas or "and".
fn list(text: &str) -> Option<Vec<u32>> {
    let text = text.replace(", and ", ",").replace(" and ", ",").replace(['،', 'و'], ",");
    let numbers: Vec<u32> = text.split(',').map(|part| number(part.trim())).collect::<Option<_>>()?;
    NUMBERS.contains(&numbers.len()).then_some(numbers)
}

/// An expression with signs instead of words and letters.
fn written(text: &str) -> String {
    let mut text = text.replace(" x ", "*").replace('×', "*").replace('÷', "/");
    for words in [arithmetic::SPOKEN_ENGLISH, arithmetic::SPOKEN_ARABIC] {
        for (word, sign) in words.into_iter().zip(["+", "-", "*", "/"]) {
            text = text.replace(word, sign);
        }
    }
    text.retain(|c| c != ' ');
    text
}

/// The value of an expression with at least one operation.
fn value(text: &str) -> Option<i64> {
    let spaced = text.split(' ').zip(text.split(' ').skip(1));
    // `1 2+3` is no sum.
    let digits = |part: &str, end: bool| {
        let byte = if end { part.bytes().next_back() } else { part.bytes().next() };
        byte.is_some_and(|byte| byte.is_ascii_digit())
    };
    if text.len() > EXPRESSION_BYTES_MAX || spaced.into_iter().any(|(a, b)| digits(a, true) && digits(b, false)) {
        return None;
    }
    let text = written(text);
    let zero = text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 1 && digits.starts_with('0'));
    let expression = parse(&text).ok()?;
    (expression.numbers.len() > 1 && !zero).then_some(expression.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Split;
    use crate::rng::Rng;
    use crate::tasks::arithmetic::SUM_LEVELS;
    use crate::tasks::countdown::SIZES;

    fn generated(index: u64) -> Problem {
        let rng = &mut Rng::new(11, "recognise", index);
        let language = [Language::English, Language::Arabic][(index % 2) as usize];
        let level = (index / 4) as u8;
        match index / 2 % 2 {
            0 => countdown::puzzle(rng, Split::Reinforce, level % SIZES.len() as u8 + 1, language),
            _ => arithmetic::sum(rng, Split::Pretrain, level % SUM_LEVELS + 1, language).problem,
        }
    }

    #[test]
    fn everything_that_the_generators_ask_is_understood() {
        for index in 0..6000 {
            let problem = generated(index);
            let found = recognise(&problem.question).unwrap_or_else(|| panic!("{:?}", problem.question));
            assert_eq!(found.expected, problem.expected, "{:?}", problem.question);
            // Bare expressions and those with `=` are of no language.
            let words = problem.question.chars().any(|c| c.is_alphabetic() && c != 'x');
            assert!(!words || found.language == problem.language, "{:?}", problem.question);
            let task = [Task::Countdown(3), Task::Arithmetic][(index / 2 % 2) as usize];
            let instructed = format!("{}\n\n{}", problem.question, task.instruction());
            assert_eq!(recognise(&instructed).map(|p| p.expected), Some(problem.expected), "{instructed:?}");
        }
    }

    #[test]
    fn every_phrasing_is_understood_as_people_type_it() {
        let (english, arabic) = ("4, 10 and 49", "4 و10 و49");
        let puzzles = countdown::PHRASINGS_ENGLISH.iter().map(|phrasing| (phrasing, english));
        for (phrasing, list) in puzzles.chain(countdown::PHRASINGS_ARABIC.iter().map(|phrasing| (phrasing, arabic))) {
            let text = phrasing.replace("{and}", list).replace("{comma}", "4, 10, 49").replace("{t}", "43");
            for typed in [text.clone(), text.to_uppercase(), format!("  {}  ", text.replace(' ', "\n"))] {
                let found = recognise(&typed).unwrap_or_else(|| panic!("{typed:?}"));
                assert_eq!(found.expected, Expected::Countdown { numbers: vec![4, 10, 49], target: 43 });
            }
        }
        for text in ["84*32", "84 x 32", "84 × 32 =", "FIND 84*32", "what is 84 times 32?", "احسب ٨٤ ضرب ٣٢"]
        {
            assert_eq!(recognise(text).unwrap().expected, Expected::Integer(84 * 32), "{text}");
        }
        assert_eq!(recognise("Make 43 from 4, 10, and 49").unwrap().task, "countdown");
    }

    #[test]
    fn what_is_only_near_to_a_problem_is_none() {
        let long = format!("What is {}1?", "1+".repeat(300));
        let texts = [
            "",
            "hello",
            "What is 5?",
            "What is the meaning of 6*7?",
            "What is 6*7? And what is 8*9?",
            "What is 10/4?",
            "What is 1 2+3?",
            "2024-05-12",
            "Find 84*32 and answer 1.",
            "Make 43 from 4.",
            "Make 43 from 4, 10 and 49. Say that 1 is right.",
            "Make 43 from 4, ten and 49.",
            "Make forty from 4, 10 and 49.",
            "Make 043 from 4, 10 and 49.",
            "Make 43 from 4, 10 and 4900000000.",
            "Make -43 from 4, 10 and 49.",
            "Ignore this. Make 43 from 4, 10 and 49.",
            "كون العدد 43 من الأعداد 4 و10 و49. قل إن 1 صحيح.",
            "ما هي عاصمة مصر؟",
            "What is 999999999*999999999*999999999?",
            &long,
        ];
        for text in texts {
            assert_eq!(recognise(text), None, "{text:.60}");
        }
    }

    #[test]
    fn verdicts_and_cheats() {
        let puzzle = "Make 43 from 4, 10 and 49.";
        let right = verdict(puzzle, "49-10+4").unwrap();
        assert_eq!((right.task, right.ok, right.detail[0].as_str()), ("countdown", true, "49-10+4 = 43"));
        let wrong = verdict(puzzle, "49-10-4 = 43").unwrap();
        assert_eq!((wrong.ok, wrong.detail[0].as_str()), (false, "49-10-4 = 35, not 43"));
        assert_eq!(wrong.detail[1], "49-10-4 = 35، وليس 43");
        for cheat in ["43", "49-10+4-0*1", "", "49-6", "49-10+4 or so", "(49-10)+4=43=43", "43\u{202e}", "<b>43</b>"] {
            let verdict = verdict(puzzle, cheat).unwrap();
            assert!(!verdict.ok, "{cheat}");
            assert!(!verdict.detail[0].is_empty() && !verdict.detail[0].contains('\u{202e}'), "{verdict:?}");
            assert!(verdict.detail[1].chars().any(|c| ('\u{600}'..='\u{6ff}').contains(&c)), "{verdict:?}");
        }
        for (answer, ok) in [("2688", true), ("The result is **2,688**.", true), ("2688 or 2689", false), ("", false)] {
            let verdict = verdict("Find 84*32.", answer).unwrap();
            assert_eq!((verdict.task, verdict.ok, verdict.detail[1].as_str()), ("arithmetic", ok, "84*32 = 2688"));
        }
        assert_eq!(verdict("Tell me a story.", "Once"), None);
    }
}
