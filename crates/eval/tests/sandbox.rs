//! Programs run in the sandbox, or not at all: where it can be opened a program sees and reaches nothing, passes and
//! fails as it should, and is ended; where it cannot, the reason is one sentence.

use eval::programs::grade_program;
use eval::runner::Sample;
use eval::sandbox::{Ran, Sandbox};
use eval::{Expected, Grade, Language, Problem, Reason};

#[test]
fn programs_pass_fail_and_end() {
    let sandbox = match Sandbox::open() {
        Ok(sandbox) => sandbox,
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with("programs are run in a sandbox only") && !said.contains('\n'), "{said}");
            return;
        }
    };
    let run = |program: &str| sandbox.run(program, 60).expect("it runs");
    assert_eq!(run("assert 1 + 1 == 2"), Ran::Passed);
    assert_eq!(run("print('x' * 10_000_000)"), Ran::Passed);
    assert_eq!(run("assert 1 + 1 == 3, 'wrong sum'"), Ran::Failed("AssertionError: wrong sum".into()));
    assert_eq!(sandbox.run("while True: pass", 1).expect("it runs"), Ran::TimedOut);
    let hidden = format!("open({:?})", std::env::current_exe().expect("a test's file"));
    for (program, says) in [
        (hidden.as_str(), "FileNotFoundError"),
        ("open('/usr/lib/x', 'w')", "Error"),
        ("x = bytearray(4 << 30)", "MemoryError"),
        ("import socket; socket.create_connection(('127.0.0.1', 22), 1)", "Error"),
        ("import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(1000)", "Error"),
        ("open('/tmp/x', 'wb').write(b'x' * (64 << 20))", "Error"),
    ] {
        match run(program) {
            Ran::Failed(error) => assert!(error.contains(says), "{program}: {error}"),
            other => panic!("{program}: {other:?}"),
        }
    }
    assert!(sandbox.run(&"#".repeat(2 << 20), 1).is_err());

    let problem = Problem {
        task: "humaneval",
        key: "HumanEval/0".into(),
        question: "..".into(),
        language: Language::English,
        level: 1,
        expected: Expected::Program {
            prompt: "def twice(x):\n    \"\"\"Twice x\"\"\"\n".into(),
            test: "def check(candidate):\n    assert candidate(4) == 8".into(),
            entry_point: "twice".into(),
        },
    };
    let graded = |answer: &str| {
        let grade = Grade { correct: false, format_ok: false, reason: Reason::NotRun };
        let mut sample = Sample { written: String::new(), answer: answer.into(), grade, tokens: 1, stopped: true };
        grade_program(&sandbox, &problem, &mut sample).expect("it runs");
        sample.grade
    };
    assert_eq!(graded("    return x + x"), Grade { correct: true, format_ok: false, reason: Reason::Right });
    assert!(graded("```python\ndef twice(x):\n    return 2 * x\n```").correct);
    assert_eq!(graded("    return x").reason, Reason::Program("AssertionError".into()));
    assert_eq!(graded("").reason, Reason::NotRun);
}
