//! Copying, sorting, reversing, counting and finding: what a model needs to carry text from one place to another; and
//! answers in a form that the question prescribes.

use crate::problem::{Expected, Language, Problem, Split, Worked};
use crate::rng::Rng;

/// What to do with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListTask {
    /// Say it again.
    Copy,
    /// Numbers, smallest first.
    Sort,
    /// Last first.
    Reverse,
    /// The largest number.
    Largest,
    /// How many entries.
    Count,
    /// What belongs to a key that was mentioned among others.
    Needle,
    /// Answer with exactly these words, in the form that the question prescribes.
    Format,
}

impl ListTask {
    /// All of them.
    pub const ALL: [ListTask; 7] = [
        ListTask::Copy,
        ListTask::Sort,
        ListTask::Reverse,
        ListTask::Largest,
        ListTask::Count,
        ListTask::Needle,
        ListTask::Format,
    ];

    /// The name of the task.
    pub fn name(self) -> &'static str {
        match self {
            ListTask::Copy => "copy",
            ListTask::Sort => "sort",
            ListTask::Reverse => "reverse",
            ListTask::Largest => "largest",
            ListTask::Count => "count",
            ListTask::Needle => "needle",
            ListTask::Format => "format",
        }
    }
}

const WORDS_ENGLISH: &[&str] = &[
    "apple", "river", "stone", "cloud", "bird", "lamp", "green", "salt", "window", "horse", "paper", "ring", "wolf",
    "garden", "sugar", "boat", "winter", "blue", "table", "fish", "rain", "honey", "road", "star", "glass", "mouse",
    "bread", "hill", "shoe", "king", "moon", "tree", "silver", "door", "cake", "sand", "light", "drum", "red", "leaf",
];
const WORDS_ARABIC: &[&str] = &[
    "تفاحة",
    "نهر",
    "حجر",
    "غيمة",
    "عصفور",
    "مصباح",
    "أخضر",
    "ملح",
    "نافذة",
    "حصان",
    "ورقة",
    "خاتم",
    "حديقة",
    "سكر",
    "قارب",
    "شتاء",
    "أزرق",
    "طاولة",
    "سمكة",
    "مطر",
    "عسل",
    "طريق",
    "نجمة",
    "زجاج",
    "خبز",
    "جبل",
    "قمر",
    "شجرة",
    "باب",
    "كعكة",
    "رمل",
    "ضوء",
    "طبل",
    "أحمر",
    "كتاب",
    "قلم",
];

/// A problem of this kind; `level` is about the number of entries (1: 2 to 4, 2: 4 to 7, 3: 7 to 12).
pub fn list_problem(rng: &mut Rng, split: Split, task: ListTask, level: u8, language: Language) -> Worked {
    loop {
        let (low, high) = [(2, 4), (4, 7), (7, 12)][usize::from(level.clamp(1, 3)) - 1];
        let length = rng.range(low, high) as usize;
        let words = match language {
            Language::English => WORDS_ENGLISH,
            Language::Arabic => WORDS_ARABIC,
        };
        let made = match task {
            ListTask::Copy | ListTask::Reverse | ListTask::Count => plain(rng, task, words, length, language),
            ListTask::Sort | ListTask::Largest => numbers(rng, task, length, language),
            ListTask::Needle => needle(rng, words, length, language),
            ListTask::Format => format(rng, words, language),
        };
        let key = format!("{} {}", task.name(), made.input);
        if Split::of(&key) != split {
            continue;
        }
        let expected = match made.answer.parse() {
            Ok(number) => Expected::Integer(number),
            Err(_) => Expected::Text(made.answer.clone()),
        };
        let problem = Problem { task: task.name(), key, question: made.question, language, level, expected };
        return Worked { problem, steps: made.steps, answer: made.answer };
    }
}

struct Made {
    input: String,
    question: String,
    steps: Vec<String>,
    answer: String,
}

fn comma(language: Language) -> &'static str {
    if language == Language::English { ", " } else { "، " }
}

fn plain(rng: &mut Rng, task: ListTask, words: &[&str], length: usize, language: Language) -> Made {
    let of_digits = rng.chance(0.3);
    let items: Vec<String> = (0..length)
        .map(|_| if of_digits { rng.range(0, 99).to_string() } else { rng.pick(words).to_string() })
        .collect();
    let input = items.join(comma(language));
    let mut steps = Vec::new();
    let (templates, answer): (&[&str], String) = match (task, language) {
        (ListTask::Copy, Language::English) => {
            (&["Repeat: {x}", "Copy this: {x}", "Say this again: {x}", "Write the same: {x}"], input.clone())
        }
        (ListTask::Copy, Language::Arabic) => (&["كرر: {x}", "انسخ هذا: {x}", "اكتب مرة أخرى: {x}"], input.clone()),
        (ListTask::Count, _) => {
            steps = items.iter().enumerate().map(|(at, item)| format!("{} {item}", at + 1)).collect();
            let templates: &[&str] = match language {
                Language::English => &["How many entries are in this list: {x}?", "Count: {x}"],
                Language::Arabic => &["كم عنصرا في هذه القائمة: {x}؟", "عد العناصر: {x}"],
            };
            (templates, length.to_string())
        }
        _ => {
            let reversed: Vec<&str> = items.iter().rev().map(String::as_str).collect();
            let templates: &[&str] = match language {
                Language::English => &["Reverse: {x}", "Write this backwards: {x}", "Turn this list around: {x}"],
                Language::Arabic => &["اعكس القائمة: {x}", "اكتب القائمة من آخرها إلى أولها: {x}"],
            };
            (templates, reversed.join(comma(language)))
        }
    };
    Made { question: rng.pick(templates).replace("{x}", &input), input, steps, answer }
}

fn numbers(rng: &mut Rng, task: ListTask, length: usize, language: Language) -> Made {
    let top = *rng.choose(&[20, 99, 99, 999]);
    let list: Vec<i64> = (0..length).map(|_| rng.range(0, top)).collect();
    let text = |list: &[i64]| list.iter().map(i64::to_string).collect::<Vec<_>>().join(comma(language));
    let input = text(&list);
    let mut sorted = list.clone();
    sorted.sort_unstable();
    let (templates, answer): (&[&str], String) = match (task, language) {
        (ListTask::Sort, Language::English) => {
            (&["Sort: {x}", "Sort from small to large: {x}", "Put these numbers in order: {x}"], text(&sorted))
        }
        (ListTask::Sort, Language::Arabic) => (&["رتب من الأصغر إلى الأكبر: {x}", "رتب هذه الأعداد: {x}"], text(&sorted)),
        (_, Language::English) => (
            &["What is the largest of {x}?", "Find the largest number: {x}"],
            sorted.last().map_or(0, |last| *last).to_string(),
        ),
        (_, Language::Arabic) => {
            (&["ما أكبر عدد من {x}؟", "أوجد أكبر عدد: {x}"], sorted.last().map_or(0, |last| *last).to_string())
        }
    };
    // The largest by a running comparison.
    let mut steps = Vec::new();
    if task == ListTask::Largest {
        let mut best = list[0];
        for &next in &list[1..] {
            let sign = ['<', '=', '>'][(best.cmp(&next) as i8 + 1) as usize];
            steps.push(format!("{best}{sign}{next}"));
            best = best.max(next);
        }
    }
    Made { question: rng.pick(templates).replace("{x}", &input), input, steps, answer }
}

fn needle(rng: &mut Rng, words: &[&str], length: usize, language: Language) -> Made {
    let mut keys = words.to_vec();
    rng.shuffle(&mut keys);
    keys.truncate(length.max(2));
    let facts: Vec<(&str, String)> = keys
        .into_iter()
        .map(|key| (key, if rng.chance(0.5) { rng.range(1, 99).to_string() } else { rng.pick(words).to_string() }))
        .collect();
    let lines: Vec<String> = facts.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let (key, value) = rng.choose(&facts);
    let templates: &[&str] = match language {
        Language::English => &["{x}\nWhat belongs to {k}?", "{x}\nWhat stands at {k}?", "Remember:\n{x}\nNow say {k}."],
        Language::Arabic => &["{x}\nما الذي يقابل {k}؟", "{x}\nماذا كتب عند {k}؟"],
    };
    let input = lines.join("\n");
    let question = rng.pick(templates).replace("{x}", &input).replace("{k}", key);
    Made { input: format!("{key} in {input}"), question, steps: vec![format!("{key}: {value}")], answer: value.clone() }
}

fn format(rng: &mut Rng, words: &[&str], language: Language) -> Made {
    let word = rng.pick(words);
    let other = rng.pick(words);
    let times = rng.range(2, 5) as usize;
    let english = language == Language::English;
    let (question, answer) = match rng.below(5) {
        0 if english => (format!("Answer with exactly one word: {word}."), word.to_string()),
        0 => (format!("أجب بكلمة واحدة فقط: {word}."), word.to_string()),
        1 if english => (format!("Write the word {word} {times} times, with commas."), vec![word; times].join(", ")),
        1 => {
            let often = if times == 2 { "مرتين".to_string() } else { format!("{times} مرات") };
            (format!("اكتب كلمة {word} {often} مع فواصل."), vec![word; times].join("، "))
        }
        2 if english => (format!("Put {word} in brackets."), format!("[{word}]")),
        2 => (format!("ضع {word} بين قوسين."), format!("({word})")),
        3 if english => (format!("Write {word} and {other} on two lines."), format!("{word}\n{other}")),
        3 => (format!("اكتب {word} و{other} في سطرين."), format!("{word}\n{other}")),
        _ if english => (format!("Write {word}, then a dash, then {other}."), format!("{word}-{other}")),
        _ => (format!("اكتب {word} ثم شرطة ثم {other}."), format!("{word}-{other}")),
    };
    Made { input: question.clone(), question, steps: Vec::new(), answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_follow_from_the_questions() {
        for index in 0..2000 {
            let mut rng = Rng::new(5, "test", index);
            let task = ListTask::ALL[(index % 7) as usize];
            let worked = list_problem(&mut rng, Split::Pretrain, task, 2, Language::English);
            let question = &worked.problem.question;
            let list = question.split_once(": ").map(|(_, list)| list).unwrap_or_default();
            match task {
                ListTask::Copy => assert_eq!(list, worked.answer),
                ListTask::Sort => {
                    let mut numbers: Vec<i64> = list.split(", ").map(|n| n.parse().expect("a number")).collect();
                    numbers.sort_unstable();
                    let text: Vec<String> = numbers.iter().map(i64::to_string).collect();
                    assert_eq!(text.join(", "), worked.answer);
                }
                ListTask::Needle => assert!(question.contains(&worked.steps[0]), "{question}"),
                _ => assert!(!worked.answer.is_empty()),
            }
        }
    }
}
