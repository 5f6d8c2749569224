//! `fathom chat`, from a pipe and in a terminal, and Ctrl-C in both commands that answer.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::harness::{Said, command, fathom_with, model, token};

/// A conversation from a pipe, greedy and without the reasoning's first turn in the way.
fn chat(lines: &str) -> Said {
    fathom_with(&["chat", model(), "-t", "0", "--think", "no"], lines)
}

#[test]
fn a_conversation_goes_on_from_turn_to_turn() {
    let said = chat("Hello\nCount\nمرحبا\n");
    let figures: Vec<&str> = said.err.lines().filter(|line| line.starts_with("prompt ")).collect();
    assert_eq!(figures.len(), 3, "{}", said.err);
    // What is in the cache already is not computed again.
    assert!(figures[1].contains(" cached)") && figures[2].contains(" cached)"), "{}", said.err);
    assert_eq!(said.ok(), "Hello! How can I help you?\n1, 2, 3, 4, 5,\n6, 7, 8, 9, 10\nأهلاً وسهلاً! 🌊\n");
}

#[test]
fn commands_do_what_help_says() {
    let help = chat("/help\n").ok();
    for name in ["help", "new", "retry", "undo", "system", "think", "set", "save", "load", "exit"] {
        assert!(help.lines().any(|line| line.starts_with(&format!("  /{name} "))), "{name}: {help}");
    }
    assert_eq!(chat("/exit\nHello\n").ok(), "");
    assert_eq!(chat("Hello\n/retry\n").ok(), "Hello! How can I help you?\nHello! How can I help you?\n");
    let thinking = chat("/think on\nHello\n").ok();
    assert_eq!(thinking, "<think>\nA greeting.\n</think>\n\nHello! How can I help you?\n");
    // After /undo, /new and /system the prompt is as short as the first was.
    for command in ["/undo", "/new", "/system"] {
        let said = chat(&format!("Hello\n{command}\nHello\n"));
        let lengths: Vec<&str> =
            said.err.lines().filter(|line| line.starts_with("prompt ")).filter_map(|l| l.split(' ').nth(1)).collect();
        assert!(lengths.len() == 2 && lengths[0] == lengths[1], "{command}: {}", said.err);
    }
    let said = chat("/set\n/set temperature 0.25\n/set top-k 7\n/set max-tokens 2\nCount\n");
    assert!(said.err.contains("temperature 0.25, ") && said.err.contains(" top-k 7, "), "{}", said.err);
    assert_eq!(said.ok(), "1,\n");
}

#[test]
fn what_a_command_cannot_do_is_said_and_the_conversation_goes_on() {
    let cases = [
        ("/nope", "there is no command /nope; /help lists those there are"),
        ("/undo", "there is no message to take back"),
        ("/retry", "there is no message to answer again"),
        ("/think maybe", "/think takes on or off"),
        ("/set temperature", "/set takes a name and a value, such as /set temperature 0.6"),
        ("/set temperature hot", "temperature is \"hot\"; it must be a number"),
        ("/set temperature 99", "temperature is 99; it must be between 0 and 10"),
        ("/set max-tokens 0", "max-tokens is 0; it must be at least 1"),
        ("/set colour 3", "colour is not one of temperature, top-p, top-k, min-p, seed, max-tokens"),
        ("/save", "/save takes the name of a file"),
        ("/load", "/load takes the name of a file that /save wrote"),
        ("/load no/such/x", "no/such/x: cannot be read: No such file or directory (os error 2)"),
        ("/save no/such/x", "no/such/x: cannot be written: No such file or directory (os error 2)"),
    ];
    for (line, message) in cases {
        let said = chat(&format!("{line}\nHello\n"));
        assert!(said.err.lines().any(|found| found == format!("fathom: {message}")), "{line}: {}", said.err);
        assert_eq!(said.ok(), "Hello! How can I help you?\n");
    }
}

#[test]
fn a_conversation_is_saved_for_its_owner_alone_and_goes_on_after_loading() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("talk.json");
    let name = path.to_str().expect("UTF-8");
    let first = chat(&format!("/system Be brief.\nHello\n/save {name}\nCount\n/save {name}\n"));
    assert!(
        first.err.contains("talk.json: 2 messages") && first.err.contains("talk.json: 4 messages"),
        "{}",
        first.err
    );
    let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("the file")).expect("JSON");
    assert_eq!(saved["system"], "Be brief.");
    assert_eq!(saved["messages"][3]["content"], "1, 2, 3, 4, 5,\n6, 7, 8, 9, 10");
    // Another conversation does not overwrite it.
    let other = chat(&format!("Hello\n/save {name}\n"));
    assert!(other.err.contains("exists already; give another name"), "{}", other.err);
    let again = chat(&format!("/load {name}\n/undo\nCount\n"));
    assert!(again.err.contains("talk.json: 4 messages"), "{}", again.err);
    assert_eq!(again.ok(), "1, 2, 3, 4, 5,\n6, 7, 8, 9, 10\n");
    for (content, message) in [
        ("x", "is not valid JSON"),
        ("{}", "has no list \"messages\""),
        (r#"{"messages": [{"role": "user"}]}"#, "messages[0] has no \"role\" or no \"content\""),
    ] {
        std::fs::write(&path, content).expect("written");
        let refused = chat(&format!("/load {name}\nHello\n"));
        assert!(refused.err.contains(message), "{}", refused.err);
        assert_eq!(refused.ok(), "Hello! How can I help you?\n");
    }
}

#[test]
fn a_message_that_does_not_fit_is_taken_back() {
    let long = "Hello ".repeat(200);
    let said =
        fathom_with(&["chat", model(), "-t", "0", "--think", "no", "--context", "100"], &format!("{long}\nHello\n"));
    assert!(said.err.contains("tokens and the context holds 100; begin a /new one"), "{}", said.err);
    assert_eq!(said.ok(), "Hello! How can I help you?\n");
}

#[test]
fn lines_are_joined_by_a_backslash() {
    let joined = chat("What \\\nis\\\n?\n").err;
    let figures = joined.lines().filter(|line| line.starts_with("prompt ")).count();
    assert_eq!(figures, 1, "{joined}");
}

/// Arguments that make the model go on until the context is full.
fn endless() -> Vec<String> {
    let ends = [token("<|im_end|>"), token("<|endoftext|>")];
    let biases = ends.iter().flat_map(|end| ["--logit-bias".to_string(), format!("{end}=-100")]);
    ["-t", "0", "--context", "16384"].map(String::from).into_iter().chain(biases).collect()
}

#[test]
fn ctrl_c_ends_a_run_with_what_there_is() {
    let arguments: Vec<String> =
        ["run", model(), "-p", "Count"].map(String::from).into_iter().chain(endless()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut run = command(&arguments);
    run.env("FATHOM_ISA", "portable").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.spawn().expect("the program starts");
    let mut out = child.stdout.take().expect("standard output");
    let mut first = [0; 4];
    out.read_exact(&mut first).expect("the answer begins");
    interrupt(&child);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("UTF-8");
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(output.status.code(), Some(130));
    assert!(rest.ends_with('\n'), "{rest:?}");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("; cancelled; seed "), "{err}");
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).expect("the signal is sent");
}

/// The program in a terminal of its own.
struct Terminal {
    child: Child,
    keys: std::fs::File,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let path = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
        let slave =
            || Stdio::from(std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("the terminal opens"));
        let mut program = command(arguments);
        program.env("TERM", "xterm").stdin(slave()).stdout(slave()).stderr(slave());
        program.envs(settings.iter().copied());
        let child = program.spawn().expect("the program starts");
        drop(program);
        let (send, output) = channel();
        let mut reader = std::fs::File::from(OwnedFd::try_clone(&master).expect("a second handle"));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the program is an error on this side.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { child, keys: std::fs::File::from(master), output, seen: String::new() }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys are pressed");
    }

    /// Waits for a text in what comes from here on; what came up to its end.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} does not come: {:?}", self.seen),
            }
        }
    }

    /// The exit code.
    #[track_caller]
    fn ends(mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("the program is there") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        panic!("the program does not end: {:?}", self.seen);
    }
}

#[test]
fn in_a_terminal_reasoning_is_dimmed_and_ctrl_d_leaves() {
    let mut terminal = Terminal::start(&["chat", model(), "-t", "0"], &[]);
    terminal.wait_for("> ");
    terminal.press("Hello\r");
    let answer = terminal.wait_for("; stop");
    assert!(answer.contains("\x1b[2mA greeting.\x1b[0m\r\n\r\nHello! How can I help you?\r\n"), "{answer:?}");
    terminal.wait_for("> ");
    // Ctrl-C at the prompt does not leave; arrow up brings back what was typed.
    terminal.press("\x03");
    terminal.wait_for("Ctrl-D or /exit leaves");
    terminal.wait_for("> ");
    terminal.press("\x1b[A\r");
    terminal.wait_for("Hello! How can I help you?");
    terminal.wait_for("> ");
    terminal.press("\x04");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn lines_that_arrive_together_are_all_read() {
    let mut terminal = Terminal::start(&["chat", model(), "-t", "0"], &[]);
    terminal.wait_for("> ");
    terminal.press("Hello\rCount\r/exit\r");
    terminal.wait_for("Hello! How can I help you?");
    terminal.wait_for("6, 7, 8, 9, 10");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_program() {
    let arguments: Vec<String> = ["chat", model()].map(String::from).into_iter().chain(endless()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut terminal = Terminal::start(&arguments, &[("FATHOM_ISA", "portable")]);
    terminal.wait_for("> ");
    terminal.press("Count\r");
    terminal.wait_for("8, 9, 10");
    interrupt(&terminal.child);
    terminal.wait_for("; cancelled");
    terminal.wait_for("> ");
    terminal.press("/set max-tokens 3\r");
    terminal.wait_for("max-tokens 3");
    terminal.press("Hello\r");
    terminal.wait_for("; length");
    terminal.wait_for("> ");
    terminal.press("/exit\r");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn a_model_cannot_command_the_terminal() {
    let bias = format!("{}=100", token("\u{1b}"));
    let arguments = ["run", model(), "-p", "Hello", "-t", "0", "--think", "no", "--logit-bias", &bias, "-n", "3"];
    let mut terminal = Terminal::start(&arguments, &[("NO_COLOR", "1")]);
    // A terminal as standard input is not read where there is a prompt.
    let shown = terminal.wait_for("; length; seed ");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn a_run_without_a_prompt_does_not_wait_for_the_keyboard() {
    let mut terminal = Terminal::start(&["run", model()], &[]);
    terminal.wait_for("fathom: there is no prompt; give one with -p TEXT or on standard input");
    assert_eq!(terminal.ends(), Some(2));
}
