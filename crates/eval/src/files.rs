//! Published benchmarks from files: GSM8K (JSON lines), SVAMP (one JSON list), multiple choice in MMLU's form (JSON
//! lines with `question`, `choices`, and `answer` as a number from 0 or a letter), and HumanEval (JSON lines).

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::problem::{Expected, Language, Problem};
use crate::programs::is_name;
use crate::task::Task;

/// Largest file that is read; GSM8K's training part has 4 MB.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Most choices of a question.
const CHOICES_MAX: usize = 26;

/// Why a file gives no problems.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{path}: larger than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// An entry is not of the task's form.
    #[error("{path}, entry {entry}: {reason}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        entry: usize,
        /// What is wrong.
        reason: String,
    },
    /// A task that has no files.
    #[error("{0} makes its own problems; it is not read from a file")]
    Generated(&'static str),
}

/// The problems of a file.
pub fn read_problems(task: Task, path: &Path) -> Result<Vec<Problem>, FileError> {
    let bytes = read(path)?;
    let fail = |entry, reason: String| FileError::Entry { path: path.to_path_buf(), entry, reason };
    let json = |entry, bytes: &[u8]| serde_json::from_slice(bytes).map_err(|error| fail(entry, error.to_string()));
    let entries: Vec<Value> = match task {
        Task::Svamp => match json(1, &bytes)? {
            Value::Array(entries) => entries,
            _ => return Err(fail(1, "the file is no JSON list".into())),
        },
        Task::Gsm8k | Task::Choice | Task::HumanEval => {
            let lines = bytes.split(|&byte| byte == b'\n').enumerate();
            let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
            lines.map(|(at, line)| json(at + 1, line)).collect::<Result<_, _>>()?
        }
        _ => return Err(FileError::Generated(task.name())),
    };
    let problem = |(at, entry): (usize, &Value)| problem(task, entry).map_err(|reason| fail(at + 1, reason));
    entries.iter().enumerate().map(problem).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_path_buf() });
    }
    Ok(bytes)
}

fn problem(task: Task, entry: &Value) -> Result<Problem, String> {
    let text = |key: &str| entry[key].as_str().ok_or_else(|| format!("there is no text {key:?}"));
    let (question, expected) = match task {
        Task::Gsm8k => {
            let (_, answer) = text("answer")?.rsplit_once("####").ok_or("the answer has no ####")?;
            (text("question")?.to_string(), Expected::FreeNumber(answer.trim().to_string()))
        }
        Task::Svamp => {
            let answer = match &entry["Answer"] {
                Value::Number(number) => number.to_string(),
                Value::String(text) => text.clone(),
                _ => return Err("there is no number \"Answer\"".into()),
            };
            (format!("{} {}", text("Body")?.trim(), text("Question")?), Expected::FreeNumber(answer))
        }
        Task::HumanEval => {
            let [prompt, test, entry_point] = ["prompt", "test", "entry_point"].map(&text);
            let (prompt, test, entry_point) = (prompt?.to_string(), test?.to_string(), entry_point?.to_string());
            if !is_name(&entry_point) {
                return Err(format!("the entry point {entry_point:?} is no name of a function"));
            }
            let question = format!("Complete this function:\n```python\n{}\n```", prompt.trim_end());
            (question, Expected::Program { prompt, test, entry_point })
        }
        _ => choice(entry, text("question")?)?,
    };
    Ok(Problem {
        task: task.name(),
        key: format!("{} {question}", task.name()),
        question,
        language: Language::English,
        level: 1,
        expected,
    })
}

fn choice(entry: &Value, question: &str) -> Result<(String, Expected), String> {
    let choices = entry["choices"].as_array().ok_or("there is no list \"choices\"")?;
    if choices.len() < 2 || choices.len() > CHOICES_MAX {
        return Err(format!("there are {} choices; from 2 to {CHOICES_MAX}", choices.len()));
    }
    let right = match &entry["answer"] {
        Value::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
        Value::String(letter) if letter.len() == 1 => {
            letter.bytes().next().and_then(|byte| byte.to_ascii_uppercase().checked_sub(b'A')).map(usize::from)
        }
        _ => None,
    };
    let right = right.filter(|&right| right < choices.len()).ok_or("the answer is none of the choices")?;
    let letter = |at: usize| char::from(b'A' + at as u8);
    let mut asked = question.to_string();
    for (at, choice) in choices.iter().enumerate() {
        let choice = choice.as_str().ok_or("a choice is no text")?;
        asked.push_str(&format!("\n{}. {choice}", letter(at)));
    }
    Ok((asked, Expected::Choice { letter: letter(right), choices: choices.len() as u8 }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn problems(task: Task, content: &str) -> Result<Vec<Problem>, String> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(content.as_bytes()).expect("written");
        read_problems(task, file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn published_forms() {
        let gsm = problems(Task::Gsm8k, "{\"question\":\"q\",\"answer\":\"1+1=2\\n#### 1,002\"}\n\n").expect("reads");
        assert_eq!(gsm[0].expected, Expected::FreeNumber("1,002".into()));
        let svamp = "[{\"Body\":\"b.\",\"Question\":\"q?\",\"Answer\":145.0}]";
        let svamp = problems(Task::Svamp, svamp).expect("reads");
        assert_eq!((svamp[0].question.as_str(), &svamp[0].expected), ("b. q?", &Expected::FreeNumber("145.0".into())));
        let choice =
            problems(Task::Choice, "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":1}").expect("reads");
        assert_eq!(choice[0].question, "q\nA. x\nB. y");
        assert_eq!(choice[0].expected, Expected::Choice { letter: 'B', choices: 2 });
    }

    #[test]
    fn broken_files_say_where() {
        for (task, content, says) in [
            (Task::Gsm8k, "{\"question\":\"q\",\"answer\":\"#### 1\"}\n{\"question\":\"q\"}", "entry 2"),
            (Task::Gsm8k, "not json", "entry 1"),
            (Task::Svamp, "{}", "no JSON list"),
            (Task::Svamp, "[{\"Body\":\"b\",\"Question\":\"q\"}]", "Answer"),
            (Task::Choice, "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":2}", "none of the choices"),
            (Task::Choice, "{\"question\":\"q\",\"choices\":[\"x\"],\"answer\":0}", "1 choices"),
            (Task::HumanEval, "{\"prompt\":\"def f():\",\"test\":\"\",\"entry_point\":\"f()\"}", "no name"),
            (Task::Countdown(3), "", "makes its own"),
        ] {
            let error = problems(task, content).expect_err(content);
            assert!(error.contains(says), "{error}");
        }
        assert!(read_problems(Task::Gsm8k, Path::new("/nowhere/at/all")).is_err());
    }
}
