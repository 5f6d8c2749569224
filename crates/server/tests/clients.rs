//! The official Python clients, unchanged. Where Python or a package is missing, the test says so and passes.
//!
//! `FATHOM_PYTHON` names another interpreter, such as one of a virtual environment.

mod common;

use std::path::Path;
use std::process::Command;

use common::Running;

fn conversation(package: &str) {
    let python = std::env::var("FATHOM_PYTHON").unwrap_or_else(|_| "python3".into());
    let there = Command::new(&python).args(["-c", &format!("import {package}")]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("NOTICE: {python} has no package {package}; its conversation is skipped");
        return;
    }
    let server = Running::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/clients/{package}_client.py"));
    let output = Command::new(&python).arg(script).arg(server.url("")).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_openai_package_has_a_conversation() {
    conversation("openai");
}

#[test]
fn the_anthropic_package_has_a_conversation() {
    conversation("anthropic");
}
