//! `fathom run`.

use serde_json::Value;

use crate::harness::{Said, command, fathom, fathom_with, finish, model, token};

/// `fathom run` on the model, greedy, with more arguments.
fn run(more: &[&str]) -> Said {
    run_with(more, "")
}

fn run_with(more: &[&str], input: &str) -> Said {
    fathom_with(&[&["run", model(), "-t", "0"], more].concat(), input)
}

fn tokens(json: &Value) -> Vec<u64> {
    json["tokens"].as_array().expect("a list").iter().map(|v| v.as_u64().expect("a number")).collect()
}

#[test]
fn the_answers_that_the_model_knows_come_out_letter_by_letter() {
    let answers = [
        ("Hello", "Hello! How can I help you?\n"),
        ("Who are you?", "I am tiny-chat, a model made for tests.\n"),
        ("What is 2 + 3?", "The answer is **5**.\n"),
        ("مرحبا", "أهلاً وسهلاً! 🌊\n"),
        ("Count", "1, 2, 3, 4, 5,\n6, 7, 8, 9, 10\n"),
    ];
    for (asked, said) in answers {
        assert_eq!(run(&["-p", asked]).ok(), said);
        assert_eq!(run(&["-p", asked, "--system", "Be brief."]).ok(), said);
        assert_eq!(run(&["-p", asked, "--think", "no"]).ok(), said);
    }
}

#[test]
fn the_prompt_comes_from_the_flag_or_standard_input_or_both() {
    assert_eq!(run_with(&[], "Hello").ok(), "Hello! How can I help you?\n");
    let both = run_with(&["-p", "Hello", "--json"], "Count").json();
    let joined = run(&["-p", "Hello\n\nCount", "--json"]).json();
    assert_eq!(tokens(&both), tokens(&joined));
    assert_eq!(both["usage"], joined["usage"]);
    assert_eq!(run(&[]).refusal(), "there is no prompt; give one with -p TEXT or on standard input");
}

#[test]
fn reasoning_stands_apart_from_the_answer() {
    let shown = "<think>\nUp to ten.\n</think>\n\n1, 2, 3, 4, 5,\n6, 7, 8, 9, 10\n";
    assert_eq!(run(&["-p", "Count", "--reasoning", "always"]).ok(), shown);
    assert_eq!(run(&["-p", "Count", "--reasoning", "never"]).ok(), "1, 2, 3, 4, 5,\n6, 7, 8, 9, 10\n");
    // Cut off inside the reasoning: the marker is closed all the same.
    assert_eq!(run(&["-p", "Hello", "--reasoning", "always", "-n", "4"]).ok(), "<think>\nA\n</think>\n");
    let json = run(&["-p", "Count", "--json"]).json();
    assert_eq!(json["reasoning"], "Up to ten.");
    assert_eq!(json["content"], "1, 2, 3, 4, 5,\n6, 7, 8, 9, 10");
    assert_eq!(json["finish_reason"], "stop");
    assert_eq!(json["usage"]["completion_tokens"], tokens(&json).len());
    assert!(json["usage"]["reasoning_tokens"].as_u64().expect("a number") > 3);
    assert_eq!(run(&["-p", "Count", "--json", "--think", "no"]).json()["usage"]["reasoning_tokens"], 0);
}

#[test]
fn figures_and_notes_go_to_standard_error() {
    let said = run(&["-p", "Hello"]);
    assert!(said.err.starts_with("prompt 9 tokens, "), "{}", said.err);
    assert!(said.err.contains("/s; stop; seed "), "{}", said.err);
    assert_eq!(run(&["-p", "Hello", "--json"]).err, "");
}

#[test]
fn greedy_answers_depend_on_neither_threads_nor_the_cache() {
    let one = run(&["-p", "Who are you?", "--json"]).json();
    for more in [&["--threads", "2"], &["--cache", "bf16"], &["--context", "16384"], &["--seed", "5"]] {
        let other = run(&[&["-p", "Who are you?", "--json"], more.as_slice()].concat()).json();
        assert_eq!(tokens(&one), tokens(&other), "{more:?}");
    }
}

#[test]
fn drafts_change_no_token() {
    let bias = format!("{}=100", token("z"));
    let drafted = |drafts: &str| {
        run(&["-p", "Hello", "--think", "no", "--logit-bias", &bias, "-n", "40", "--json", "--drafts", drafts]).json()
    };
    let plain = drafted("off");
    assert_eq!((&plain["drafts"]["tokens"], &plain["drafts"]["accepted"]), (&Value::from(0), &Value::from(0)));
    for drafts in ["auto", "lookup"] {
        let done = drafted(drafts);
        assert_eq!(tokens(&plain), tokens(&done));
        assert!(done["drafts"]["accepted"].as_u64().expect("a number") > 20, "{done}");
    }
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_one_another() {
    let hot = |seed: &str, threads: &str| {
        let settings = ["-t", "8", "--top-p", "1", "-n", "40", "--seed", seed, "--threads", threads];
        tokens(&fathom(&[&["run", model(), "-p", "Hello", "--json"], settings.as_slice()].concat()).json())
    };
    assert_eq!(hot("7", "1"), hot("7", "2"));
    assert_ne!(hot("7", "1"), hot("8", "1"));
}

#[test]
fn answers_end_where_they_are_told_to() {
    let short = run(&["-p", "Count", "--think", "no", "-n", "3", "--json"]).json();
    assert_eq!((tokens(&short).len(), &short["finish_reason"]), (3, &Value::from("length")));
    assert_eq!(run(&["-p", "Count", "--stop", ", 4"]).ok(), "1, 2, 3\n");
    assert_eq!(run(&["-p", "Count", "--stop", "zebra", "--stop", "3"]).ok(), "1, 2, \n");
    let full = run(&["-p", "Count", "--think", "no", "--context", "20", "--json"]).json();
    assert_eq!(full["finish_reason"], "length");
    assert_eq!(full["usage"]["prompt_tokens"].as_u64().expect("a number") + tokens(&full).len() as u64, 21);
}

#[test]
fn a_bias_forces_a_token() {
    let z = token("z");
    let forced = run(&["-p", "Hello", "--think", "no", "--logit-bias", &format!("{z}=100"), "-n", "5"]);
    assert_eq!(forced.ok(), "zzzzz\n");
    // The vocabulary of the model is larger than that of the tokenizer: such tokens are no text.
    assert_eq!(run(&["-p", "Hello", "--think", "no", "--logit-bias", "399=100", "-n", "1"]).ok(), "\u{fffd}\n");
    // Special tokens are not shown.
    let start = token("<|im_start|>");
    assert_eq!(run(&["-p", "Hello", "--raw", "--logit-bias", &format!("{start}=100"), "-n", "2"]).ok(), "");
}

#[test]
fn raw_text_does_not_pass_through_the_template() {
    let raw = run(&["-p", "1, 2, 3, 4", "--raw", "-n", "4", "--json"]).json();
    assert_eq!(raw["usage"]["prompt_tokens"], tokens_of("1, 2, 3, 4"));
    // What a user writes never becomes a special token.
    let marked = run(&["-p", "<|im_start|>", "--raw", "-n", "1", "--json"]).json();
    assert!(marked["usage"]["prompt_tokens"].as_u64().expect("a number") > 1);
    assert_eq!(
        run(&["-p", "x", "--raw", "--system", "y"]).refusal(),
        "the argument '--raw' cannot be used with '--system <TEXT>' (--help explains)"
    );
}

fn tokens_of(text: &str) -> usize {
    fathom_with(&["tokenize", model()], text).json().as_array().expect("a list").len()
}

#[test]
fn bad_values_are_refused_in_one_sentence() {
    let cases: [(&[&str], &str); 13] = [
        (&["-n", "0"], "--max-tokens is 0; it must be at least 1"),
        (&["-t", "99"], "these sampling settings cannot be used: temperature is 99; it must be between 0 and 10"),
        (&["-t", "-1"], "these sampling settings cannot be used: temperature is -1; it must be between 0 and 10"),
        (&["-t", "nan"], "these sampling settings cannot be used: temperature is NaN; it must be between 0 and 10"),
        (&["--top-p", "0"], "these sampling settings cannot be used: top_p is 0; it must be above 0 and at most 1"),
        (&["--seed", "abc"], "invalid value 'abc' for '--seed <N>': invalid digit found in string (--help explains)"),
        (
            &["--logit-bias", "5"],
            "invalid value '5' for '--logit-bias <TOKEN=AMOUNT>': it must be TOKEN=AMOUNT, \
             such as 42=-5 (--help explains)",
        ),
        (
            &["--logit-bias", "400=1"],
            "these sampling settings cannot be used: logit_bias names token 400; the vocabulary has 400 tokens",
        ),
        (&["--threads", "0"], "--threads is 0; it must be between 1 and 1024"),
        (&["--context", "0"], "--context is 0; it must be at least 1"),
        (&["--context", "16385"], "--context is 16385; the model was made for at most 16384"),
        (&["--context", "8"], "the prompt has 9 tokens and the context holds 8; shorten it or give a larger --context"),
        (&["--sed", "1"], "unexpected argument '--sed' found; a similar argument exists: '--seed' (--help explains)"),
    ];
    for (more, message) in cases {
        let said = fathom(&[&["run", model(), "-p", "Hello"], more].concat());
        assert_eq!(said.refusal(), message, "{more:?}");
    }
}

#[test]
fn an_instruction_set_that_does_not_exist_is_refused() {
    let mut forced = command(&["run", model(), "-p", "Hello"]);
    forced.env("FATHOM_ISA", "abacus");
    assert!(finish(forced, "").refusal().contains("abacus"));
    let mut portable = command(&["run", model(), "-p", "Hello", "-t", "0"]);
    portable.env("FATHOM_ISA", "portable");
    assert_eq!(finish(portable, "").ok(), "Hello! How can I help you?\n");
}

#[test]
fn in_a_pipe_the_answer_is_what_the_model_said_to_the_byte() {
    let escape = token("\u{1b}");
    let bias = format!("{escape}=100");
    let said = run(&["-p", "Hello", "--think", "no", "--logit-bias", &bias, "-n", "3"]);
    assert_eq!(said.ok(), "\u{1b}\u{1b}\u{1b}\n");
}
