//! Problems whose answer is a program (HumanEval, Chen et al. 2021): from an answer to a program with its tests, and
//! its grade by running it in the sandbox.

use crate::grade::{Grade, Reason};
use crate::problem::{Expected, Problem};
use crate::runner::Sample;
use crate::sandbox::{Ran, Sandbox, SandboxError};

/// The longest that a program may run, seconds; HumanEval's own harness gives it 3.
const SECONDS: u64 = 10;

/// Grades a sample whose problem asks for a program; others stay as they are.
///
/// # Errors
/// If programs cannot be run.
pub fn grade_program(sandbox: &Sandbox, problem: &Problem, sample: &mut Sample) -> Result<(), SandboxError> {
    let Expected::Program { prompt, test, entry_point } = &problem.expected else { return Ok(()) };
    let Some((code, fenced)) = code(&sample.answer) else { return Ok(()) };
    let program = program(prompt, &code, test, entry_point);
    let reason = match sandbox.run(&program, SECONDS)? {
        Ran::Passed => Reason::Right,
        Ran::Failed(error) => Reason::Program(error),
        Ran::TimedOut => Reason::Program(format!("it ran longer than {SECONDS} s")),
    };
    sample.grade = Grade { correct: reason == Reason::Right, format_ok: fenced, reason };
    Ok(())
}

/// The code in an answer, and whether it was fenced: the last block between three backticks, or the answer as a whole.
fn code(answer: &str) -> Option<(String, bool)> {
    if answer.trim().is_empty() {
        return None;
    }
    let parts: Vec<&str> = answer.split("```").collect();
    // Text, block, text, block, text: a block is every second part; one that never ends counts as well.
    let block = parts.iter().skip(1).step_by(2).next_back();
    Some(match block {
        None => (answer.trim_end().to_string(), false),
        Some(block) => {
            let (first, rest) = block.split_once('\n').unwrap_or(("", block));
            let names_language = first.trim().chars().all(|c| c.is_ascii_alphanumeric());
            (if names_language { rest } else { block }.trim_end().to_string(), true)
        }
    })
}

/// The program that is run: the function, its tests, and their call.
fn program(prompt: &str, code: &str, test: &str, entry_point: &str) -> String {
    let whole = code.contains(&format!("def {entry_point}"));
    // What the question imports is there also where the answer repeats the function without it.
    let imports: String = prompt.lines().filter(|l| l.starts_with("import ") || l.starts_with("from ")).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    );
    let function = if whole { format!("{imports}{code}") } else { format!("{prompt}{code}") };
    format!("{function}\n\n{test}\n\ncheck({entry_point})\n")
}

/// Whether a text is a name of Python's: nothing else is put into a program as one.
pub(crate) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_taken_from_its_fence() {
        let all = |answer: &str| code(answer);
        assert_eq!(all(" \n"), None);
        assert_eq!(all("    return 1\n"), Some(("    return 1".into(), false)));
        assert_eq!(all("So:\n```python\ndef f():\n    return 1\n```\n"), Some(("def f():\n    return 1".into(), true)));
        assert_eq!(all("```\nx = 1\n```\nor\n```py\nx = 2\n```"), Some(("x = 2".into(), true)));
        assert_eq!(all("```python\nx = 1"), Some(("x = 1".into(), true)));
    }

    #[test]
    fn a_body_follows_the_question_and_a_function_stands_for_itself() {
        let prompt = "import math\n\ndef f(x):\n    \"\"\"Doc\"\"\"\n";
        let body = program(prompt, "    return x", "def check(c):\n    assert c(1) == 1", "f");
        assert!(body.starts_with(prompt) && body.contains("\"\"\"\n    return x\n") && body.ends_with("check(f)\n"));
        let whole = program(prompt, "def f(x):\n    return math.pi", "TEST", "f");
        assert!(whole.starts_with("import math\ndef f(x):") && !whole.contains("Doc"));
    }

    #[test]
    fn names_are_names() {
        assert!(is_name("has_close_elements") && is_name("_f1"));
        assert!(!is_name("") && !is_name("1f") && !is_name("f)\nimport os"));
    }
}
