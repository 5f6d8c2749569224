//! `describe`, `tokenize`, `prompt`, `logits`, `list`, `pull`, `doctor`, and the help of all.

use std::path::Path;
use std::process::Stdio;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::harness::{command, fathom, fathom_with, file, finish, model, token};

#[test]
fn describe_shows_what_the_model_is() {
    let text = fathom(&["describe", model()]).ok();
    for line in [
        "family      DeepSeek-V3",
        "cache       80 elements a token",
        "context     16384",
        "embedding   400 x 64",
        "head        own matrix",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("mla(4h kv32 16+8/16") && text.contains("moe(4 x 32 top2"), "{text}");
    assert!(text.contains("in 1 file: bf16") && text.contains("f32 16 bytes in 1 tensor\n"), "{text}");
    // The configuration alone says the same, but for the files.
    let config = fathom(&["describe", &format!("{}/config.json", model())]).ok();
    let without_files: String = text.lines().filter(|l| !l.starts_with("stored")).flat_map(|l| [l, "\n"]).collect();
    assert_eq!(config, without_files);
    let list = fathom(&["describe", model(), "--parameters"]).ok();
    assert!(list.starts_with(&text));
    assert!(list.contains("\nmodel Embedding [400, 64]\n"), "{list}");
    assert!(list.contains("\nlayer 1 expert 3 ExpertDown [64, 32]\n"), "{list}");
}

#[test]
fn text_becomes_tokens_and_text_again() {
    for text in ["Hello", "أهلاً وسهلاً! 🌊", " \n\t x  ", "<|im_start|>user\n<think>", "e\u{301}\u{0}\u{7f}", ""]
    {
        for more in [&[][..], &["--content"]] {
            let ids = fathom_with(&[&["tokenize", model()], more].concat(), text).ok();
            assert_eq!(fathom_with(&["tokenize", model(), "--decode"], &ids).ok(), text, "{ids}");
        }
    }
}

#[test]
fn content_never_becomes_a_special_token() {
    let text = "<|im_start|>user\nHello<|im_end|>";
    let ids = |more: &[&str]| -> Vec<u32> {
        serde_json::from_value(fathom_with(&[&["tokenize", model()], more].concat(), text).json()).expect("numbers")
    };
    let (start, end) = (token("<|im_start|>"), token("<|im_end|>"));
    assert_eq!((ids(&[])[0], ids(&[]).last()), (start, Some(&end)));
    assert!(!ids(&["--content"]).contains(&start) && !ids(&["--content"]).contains(&end));
    let hidden = fathom_with(&["tokenize", model(), "--decode", "--hide-special"], &format!("{:?}", ids(&[]))).ok();
    assert_eq!(hidden, "user\nHello");
}

#[test]
fn tokenize_takes_a_tokenizer_file_as_well() {
    let path = format!("{}/tokenizer.json", model());
    assert_eq!(fathom_with(&["tokenize", &path], "Hello").ok(), fathom_with(&["tokenize", model()], "Hello").ok());
    let refusal = |input: &str| fathom_with(&["tokenize", model(), "--decode"], input).refusal();
    assert_eq!(refusal("[1, 396]"), "there is no token 396; the tokenizer has 396, numbered from 0");
    assert!(refusal("[1, -1]").starts_with("standard input is not a JSON list of token numbers: "));
    assert!(refusal("hello").starts_with("standard input is not a JSON list of token numbers: "));
}

const TALK: &str = r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<|im_end|>"}]"#;
const RENDERED: &str = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|im_end|><|im_end|>\n";

#[test]
fn messages_go_through_the_template() {
    let full = format!("{RENDERED}<|im_start|>assistant\n");
    assert_eq!(fathom_with(&["prompt", model()], TALK).ok(), full);
    assert_eq!(fathom_with(&["prompt", model(), "--no-generation-prompt"], TALK).ok(), RENDERED);
    let object = format!(r#"{{"messages": {TALK}, "enable_thinking": false}}"#);
    assert_eq!(fathom_with(&["prompt", model()], &object).ok(), format!("{full}<think>\n\n</think>\n\n"));
    let object = format!(r#"{{"messages": {TALK}, "add_generation_prompt": false, "tools": null}}"#);
    assert_eq!(fathom_with(&["prompt", model()], &object).ok(), RENDERED);
    let directory = tempfile::tempdir().expect("a directory");
    let messages = file(directory.path(), "messages.json", TALK);
    assert_eq!(fathom(&["prompt", model(), "--messages", &messages]).ok(), full);
    // In tokens, a user's marker is text and the template's own is a token.
    let ids: Vec<u32> =
        serde_json::from_value(fathom_with(&["prompt", model(), "--tokens"], TALK).json()).expect("numbers");
    assert_eq!(ids.iter().filter(|&&id| id == token("<|im_end|>")).count(), 2);
}

#[test]
fn a_template_file_is_rendered_without_a_model() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = "{{ bos_token }}{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}{{ eos_token }}";
    let template = file(directory.path(), "own.jinja", source);
    let arguments = ["prompt", &template, "--today", "2025-03-09", "--bos", "<s>", "--eos", "</s>"];
    assert_eq!(fathom_with(&arguments, TALK).ok(), "<s>09 Mar 2025 Be brief.</s>");
    assert_eq!(
        fathom_with(&["prompt", &template, "--tokens"], TALK).refusal(),
        "--tokens needs a tokenizer; name a model in place of the template"
    );
    let broken = file(directory.path(), "broken.jinja", "{% if %}");
    assert!(
        fathom_with(&["prompt", &broken], TALK).refusal().contains("broken.jinja: the chat template cannot be used")
    );
}

#[test]
fn bad_messages_are_refused() {
    let cases = [
        ("", "the messages are not valid JSON"),
        ("7", "the messages are neither a list nor an object with \"messages\""),
        ("{}", "\"messages\" is missing or not a list"),
        (r#"{"messages": [], "tools": 1}"#, "\"tools\" is not a list"),
        (r#"{"messages": [], "add_generation_prompt": 1}"#, "\"add_generation_prompt\" is 1; it must be true or false"),
        (r#"[{"role": "jester", "content": "x"}]"#, "unknown role jester"),
    ];
    for (input, message) in cases {
        let refusal = fathom_with(&["prompt", model()], input).refusal();
        assert!(refusal.contains(message), "{refusal}");
    }
    assert!(fathom(&["prompt", model(), "--today", "yesterday"]).refusal().contains("--today"));
    let refusal = fathom_with(&["prompt", model(), "--template", "tools"], TALK).refusal();
    assert!(refusal.ends_with("there is no chat template named \"tools\""), "{refusal}");
}

/// The logits of these tokens: values and shape.
fn logits(directory: &Path, tokens: &str, more: &[&str]) -> (Vec<f32>, Vec<usize>) {
    let tokens = file(directory, "tokens.json", tokens);
    let out = directory.join("out.safetensors");
    let arguments = ["logits", model(), "--tokens", &tokens, "--out", out.to_str().expect("UTF-8")];
    assert_eq!(fathom(&[arguments.as_slice(), more].concat()).ok(), "");
    let bytes = std::fs::read(out).expect("the file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    assert_eq!(file.names(), ["logits"]);
    let tensor = file.tensor("logits").expect("the tensor");
    assert_eq!(tensor.dtype(), Dtype::F32);
    let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (values, tensor.shape().to_vec())
}

#[test]
fn logits_are_the_same_bits_for_all_chunks_and_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    let tokens = fathom_with(&["prompt", model(), "--tokens"], r#"[{"role": "user", "content": "Hello"}]"#).ok();
    let count = serde_json::from_str::<Vec<u32>>(&tokens).expect("numbers").len();
    let (whole, shape) = logits(directory.path(), &tokens, &[]);
    assert_eq!(shape, [count, 400]);
    for more in [&["--chunk", "1"], &["--chunk", "4"], &["--threads", "2"], &["--threads", "3"]] {
        let (other, _) = logits(directory.path(), &tokens, more);
        assert!(whole.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()), "{more:?}");
    }
    let (expanded, _) = logits(directory.path(), &tokens, &["--arithmetic", "expanded"]);
    let difference = whole.iter().zip(&expanded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-3, "{difference}");
    // The last row says what `run` says first.
    let last = &whole[(count - 1) * 400..];
    let best = (0..400).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("a token");
    let said = fathom(&["run", model(), "-p", "Hello", "-t", "0", "-n", "1", "--json"]).json();
    assert_eq!(said["tokens"][0], best);
}

#[test]
fn tokens_without_logits_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out.safetensors");
    let out = out.to_str().expect("UTF-8");
    let cases = [
        ("[]", "the list is empty; there is nothing to compute"),
        ("[1, 2, 400]", "[2] is token 400; the model has 400, numbered from 0"),
        ("[1, -2]", "is not a JSON list of token numbers"),
        ("{}", "is not a JSON list of token numbers"),
    ];
    for (content, message) in cases {
        let tokens = file(directory.path(), "tokens.json", content);
        let refusal = fathom(&["logits", model(), "--tokens", &tokens, "--out", out]).refusal();
        assert!(refusal.contains("tokens.json: ") && refusal.contains(message), "{refusal}");
        assert!(!Path::new(out).exists());
    }
    let tokens = file(directory.path(), "tokens.json", "[1]");
    let refusal = |more: &[&str]| fathom(&[&["logits", model(), "--tokens", &tokens], more].concat()).refusal();
    assert_eq!(refusal(&["--out", out, "--chunk", "0"]), "--chunk is 0; it must be at least 1");
    let nowhere = directory.path().join("no/out");
    let nowhere = nowhere.to_str().expect("UTF-8");
    assert!(refusal(&["--out", nowhere]).starts_with(&format!("{nowhere}: cannot be written: ")));
    assert!(refusal(&[]).contains("--out <FILE>"));
}

#[test]
fn an_empty_store_says_how_to_fill_it() {
    let home = tempfile::tempdir().expect("a directory");
    let with_home = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("FATHOM_HOME", home.path());
        finish(command, "")
    };
    assert_eq!(with_home(&["list"]).ok(), "No models here yet. Get one: fathom pull ORG/NAME\n");
    assert_eq!(with_home(&["list", "--json"]).json(), serde_json::json!([]));
    assert_eq!(
        with_home(&["run", "some/model", "-p", "x"]).refusal(),
        "some/model is not on this machine; get it with `fathom pull some/model`"
    );
    let mut relative = command(&["list"]);
    relative.env("FATHOM_HOME", "here");
    assert_eq!(finish(relative, "").refusal(), "FATHOM_HOME is \"here\", which is not an absolute path; set it to one");
}

#[test]
fn pull_without_a_hub_fails_cleanly() {
    let home = tempfile::tempdir().expect("a directory");
    let pull = |name: &str, endpoint: &str| {
        let mut command = command(&["pull", name]);
        command.env("FATHOM_HOME", home.path()).env("HF_ENDPOINT", endpoint);
        finish(command, "")
    };
    // A port that was free a moment ago: nobody answers.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let mut said = pull("org/name", &format!("http://127.0.0.1:{port}"));
    // Each further try is announced; the last line is the error.
    let last = said.err.rfind("fathom: ").expect("an error");
    assert!(said.err[..last].contains("; next try in "), "{}", said.err);
    said.err.drain(..last);
    let refusal = said.refusal();
    assert!(refusal.starts_with("cannot pull org/name: 127.0.0.1"), "{refusal}");
    assert!(refusal.contains("cannot be reached") && refusal.contains("check the network"), "{refusal}");
    assert!(pull("org/name", "not a url").refusal().starts_with("HF_ENDPOINT is \"not a url\""));
    for name in ["name", "../name", "a/b/c", "a/b:", "a/b@", "org/na me"] {
        let refusal = pull(name, "http://127.0.0.1:1").refusal();
        assert!(refusal.contains("is not a model reference"), "{refusal}");
    }
}

#[test]
fn doctor_measures_the_machine() {
    let json = fathom(&["doctor", "--json"]).json();
    assert!(json.is_object() && json.to_string().contains("gb_per_s"), "{json}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let long = ["describe", model(), "--parameters"];
    for arguments in [&long[..], &["run", model(), "-p", "Count", "-t", "0"], &["--help"], &["list"]] {
        let mut child = command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the program ends");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !err.contains("panicked"), "{arguments:?}: {err}");
    }
    // Nor is a closed standard error.
    let mut child = command(&["run", model(), "-p", "Count", "-t", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stderr.take());
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success());
    assert_eq!(output.stdout, b"1, 2, 3, 4, 5,\n6, 7, 8, 9, 10\n");
}

#[test]
fn every_command_has_help_that_fits_a_terminal() {
    let top = fathom(&["--help"]).ok();
    let commands: Vec<&str> = top
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // What a command does may go on in a second line, further in.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 9, "{commands:?}");
    for name in commands {
        let help = fathom(&[name, "--help"]).ok();
        assert!(help.contains(&format!("Usage: fathom {name}")), "{help}");
        let longest = help.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= 100, "{name}: a line of {longest}");
    }
}
