//! Nothing but `pull` opens a socket. The system itself is the witness: strace writes down every call.

use std::process::Command;

use crate::harness::{command, finish, model};

/// The calls about sockets that a command makes, as strace tells them.
fn socket_calls(arguments: &[&str], input: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("calls");
    let fathom = command(arguments);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=%network", "-e", "signal=none", "-o"]).arg(&log);
    // A pull tries for half a minute; its first seconds say enough.
    let seconds = if arguments[0] == "pull" { "5" } else { "300" };
    traced.args(["timeout", seconds]).arg(fathom.get_program()).args(fathom.get_args());
    for (name, value) in fathom.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced.env("HF_ENDPOINT", "http://127.0.0.1:9");
    finish(traced, input);
    std::fs::read_to_string(log).expect("strace's log")
}

#[test]
fn only_pull_opens_a_socket() {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: strace is not here or may not trace, so nobody watched the sockets");
        return;
    }
    // The witness sees what there is to see.
    assert!(socket_calls(&["pull", "org/name"], "").contains("socket("), "pull is seen to open a socket");
    let home = tempfile::tempdir().expect("a directory");
    let tokens = crate::harness::file(home.path(), "tokens.json", "[1, 2]");
    let out = home.path().join("out");
    let talk = r#"[{"role": "user", "content": "Hello"}]"#;
    let commands: [(&[&str], &str); 9] = [
        (&["run", model(), "-t", "0", "--threads", "2"], "Hello"),
        (&["run", "org/name", "-p", "x"], ""),
        (&["chat", model(), "-t", "0"], "Hello\n/help\n/exit\n"),
        (&["describe", model()], ""),
        (&["tokenize", model()], "Hello"),
        (&["prompt", model()], talk),
        (&["logits", model(), "--tokens", &tokens, "--out", out.to_str().expect("UTF-8")], ""),
        (&["list"], ""),
        (&["--help"], ""),
    ];
    for (arguments, input) in commands {
        assert_eq!(socket_calls(arguments, input), "", "{arguments:?}");
    }
}
