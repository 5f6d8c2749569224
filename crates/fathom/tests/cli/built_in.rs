//! The model inside the program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::harness::{command, fathom, fathom_with};

#[test]
fn the_built_in_model_answers_in_both_languages() {
    for (asked, wanted) in
        [("Find 3+4.", "7\n"), ("مع نبيل 9 صور. مع حسن 11 صورة. ما الفرق بين عدد صور حسن وعدد صور نبيل؟", "2\n")]
    {
        assert_eq!(fathom(&["run", "nano", "-t", "0", "-p", asked]).ok(), wanted, "{asked}");
    }
    let itself = fathom(&["run", "nano", "-t", "0", "-p", "who are you?"]).ok();
    assert!(itself.contains("nano"), "{itself}");
}

#[test]
fn every_command_that_takes_a_model_takes_it() {
    let description = fathom(&["describe", "nano"]).ok();
    assert!(description.contains("DeepSeek") && description.contains("q8_0"), "{description}");
    let numbers: Vec<u32> = serde_json::from_value(fathom_with(&["tokenize", "nano"], "12+3").json()).expect("numbers");
    assert_eq!(numbers.len(), 4, "each digit and sign is a token");
    let copy = tempfile::tempdir().expect("a directory");
    let out = copy.path().join("copy.gguf");
    fathom(&["convert", "nano", "--to", "q8_0", out.to_str().expect("UTF-8")]).ok();
    let same = |model: &str| fathom(&["run", model, "-t", "0", "-p", "Find 8*9."]).ok();
    assert_eq!(same("nano"), same(out.to_str().expect("UTF-8")), "what was written is the same model");
}

/// Ends the server, whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_arguments_it_is_served_on_this_machine_with_its_page() {
    let home = tempfile::tempdir().expect("a directory");
    let mut program = command(&[]);
    program.env("FATHOM_HOME", home.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running(program.spawn().expect("the program starts"));
    let mut first = String::new();
    let mut out = BufReader::new(running.0.stdout.take().expect("standard output"));
    out.read_line(&mut first).expect("a line");
    let address = first.trim_end().strip_prefix("nano is served at http://").expect("the address").to_string();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let ask = |request: String| {
        let mut socket = TcpStream::connect(&address).expect("a connection");
        socket.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let page = ask(format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<html"), "{page}");
    let body = r#"{"model": "nano", "temperature": 0, "messages": [{"role": "user", "content": "Find 3+4."}]}"#;
    let head = "Content-Type: application/json\r\nConnection: close";
    let length = body.len();
    let answer = ask(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    assert!(answer.contains(r#""content":"7""#) && answer.contains("3+4=7"), "{answer}");
}
