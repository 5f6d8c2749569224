//! Models that are not there, or not whole: one sentence, exit code 2, nothing on standard output.

use crate::harness::{Copied, fathom, fathom_with, model};

/// What `run` says of a model, without the model's own path at the beginning.
fn refusal_of(name: &str) -> String {
    fathom(&["run", name, "-p", "Hello"]).refusal()
}

/// The refusal of a spoiled copy; it begins with a path inside the copy, which is left out.
#[track_caller]
fn spoiled(spoil: impl FnOnce(&Copied)) -> String {
    let copied = Copied::new();
    spoil(&copied);
    let refusal = refusal_of(copied.name());
    refusal.strip_prefix(copied.name()).expect("the model's path comes first").to_string()
}

#[test]
fn what_is_not_there_is_said_to_be_not_there() {
    for name in ["nowhere", "./no/such", "/no/such.gguf"] {
        let message = "there is no such file or directory, and no pulled model of that name (`fathom list`)";
        assert_eq!(refusal_of(name), format!("{name}: {message}"));
        assert_eq!(fathom(&["describe", name]).refusal(), format!("{name}: {message}"));
        assert_eq!(fathom_with(&["tokenize", name], "x").refusal(), format!("{name}: {message}"));
    }
}

#[test]
fn a_directory_without_a_model_is_none() {
    let empty = tempfile::tempdir().expect("a directory");
    let name = empty.path().to_str().expect("UTF-8");
    let message = "the directory holds no model: neither config.json with .safetensors files nor a .gguf file";
    assert_eq!(refusal_of(name), format!("{name}: {message}"));
    let text = crate::harness::file(empty.path(), "notes.txt", "This is no model.");
    assert!(refusal_of(&text).starts_with(&text));
    let gguf = crate::harness::file(empty.path(), "a.gguf", "GGUF\u{3}\0\0\0");
    assert!(refusal_of(&gguf).starts_with(&gguf));
}

#[test]
fn weights_that_are_cut_off_are_refused() {
    let size = std::fs::metadata(format!("{}/model.safetensors", model())).expect("the file").len() as usize;
    for bytes in [0, 7, 8, 100, 3000, size / 2, size - 1] {
        let refusal = spoiled(|copied| copied.cut("model.safetensors", bytes));
        assert!(refusal.starts_with("/model.safetensors: "), "{bytes}: {refusal}");
    }
    let refusal = spoiled(|copied| copied.remove("model.safetensors"));
    assert_eq!(refusal, ": there is a config.json but no .safetensors or .gguf file: the weights are missing");
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let refusal = spoiled(|copied| copied.write("config.json", "{"));
    assert!(refusal.starts_with("/config.json: is not valid JSON: EOF while parsing"), "{refusal}");
    let refusal = spoiled(|copied| copied.without_key("config.json", "hidden_size"));
    assert_eq!(refusal, "/config.json: hidden_size is missing");
    let wider = |copied: &Copied| {
        let path = copied.path.join("config.json");
        let text =
            std::fs::read_to_string(path).expect("the file").replace("\"vocab_size\": 400", "\"vocab_size\": 401");
        copied.write("config.json", &text);
    };
    let refusal = spoiled(wider);
    assert!(refusal.contains("model.embed_tokens.weight") && refusal.contains("401"), "{refusal}");
    let refusal = spoiled(|copied| copied.write("generation_config.json", "{\"temperature\": \"hot\"}"));
    assert!(refusal.starts_with("/generation_config.json: cannot be understood: "), "{refusal}");
}

#[test]
fn a_model_without_a_tokenizer_can_be_described_but_not_asked() {
    let copied = Copied::new();
    copied.remove("tokenizer.json");
    let message = "there is no tokenizer.json; put the one published with the model beside its weights";
    assert_eq!(refusal_of(copied.name()), format!("{}: {message}", copied.name()));
    assert_eq!(fathom_with(&["tokenize", copied.name()], "x").refusal(), format!("{}: {message}", copied.name()));
    assert!(fathom(&["describe", copied.name()]).ok().starts_with("family      DeepSeek-V3\n"));
    let refusal = spoiled(|copied| copied.write("tokenizer.json", "{"));
    assert!(refusal.starts_with(": the tokenizer cannot be used: tokenizer.json is not valid: "), "{refusal}");
}

#[test]
fn a_model_without_a_chat_template_goes_on_with_text_and_does_not_chat() {
    let copied = Copied::new();
    copied.without_key("tokenizer_config.json", "chat_template");
    let said = fathom(&["run", copied.name(), "-p", "1, 2, 3, 4", "-t", "0", "-n", "4"]);
    let raw = fathom(&["run", copied.name(), "-p", "1, 2, 3, 4", "-t", "0", "-n", "4", "--raw"]);
    assert!(
        said.err.starts_with("note: the model has no chat template; it goes on with the text itself"),
        "{}",
        said.err
    );
    assert!(raw.err.starts_with("prompt "), "{}", raw.err);
    assert_eq!(said.ok(), raw.ok());
    assert_eq!(
        fathom(&["chat", copied.name()]).refusal(),
        format!("{}: the model has no chat template; `fathom run --raw` goes on with plain text", copied.name())
    );
    assert_eq!(
        fathom(&["run", copied.name(), "-p", "x", "--system", "y"]).refusal(),
        format!("{}: the model has no chat template, so there is no place for --system", copied.name())
    );
    assert!(fathom(&["prompt", copied.name()]).refusal().ends_with(": there is no chat template"));
    let broken = |copied: &Copied| copied.write("chat_template.jinja", "{% for %}");
    let refusal = spoiled(broken);
    assert!(refusal.starts_with(": the chat template cannot be used: "), "{refusal}");
}

#[test]
fn what_a_file_says_cannot_command_the_terminal() {
    let copied = Copied::new();
    copied.write("config.json", "{\"architectures\": [\"\\u001b]0;owned\\u0007\"], \"model_type\": \"\\u001b[2J\"}");
    let refusal = refusal_of(copied.name());
    assert!(!refusal.chars().any(char::is_control), "{refusal:?}");
}
