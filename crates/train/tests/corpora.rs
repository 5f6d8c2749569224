//! What the generated corpora promise: documents are pure functions of seed and number, every equation in them is
//! true and none is held out, countdown shows honest chance play on puzzles that nobody else asks, and texts are
//! complete. And the built-in model's tokenizer encodes them as the reference library does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use eval::Split;
use eval::expression::{Op, Step, parse};
use eval::tasks::arithmetic::is_held_out;
use text::{ChatInput, ChatTemplate, ReasoningFormat, ReasoningPiece, ReasoningSplitter, Tokenizer};
use train::bpe::{Settings, nano_documents};
use train::corpus::{Document, NAMES, Source, open};

fn source(name: &str, seed: u64) -> Box<dyn Source> {
    open(name, seed, &BTreeMap::new()).expect("a known corpus")
}

fn text_of(document: &Document) -> String {
    document.segments.iter().map(|segment| segment.text.as_str()).collect()
}

/// The parts of `text` that are digits joined by single signs of `signs`, with the sign and bounds.
fn relations(text: &str) -> Vec<(i64, Op, i64, i64)> {
    let bytes = text.as_bytes();
    let number = |mut at: usize| {
        let start = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        text[start..at].parse::<i64>().ok().map(|value| (value, at))
    };
    let mut found = Vec::new();
    for start in 0..bytes.len() {
        let inside = start > 0 && (bytes[start - 1].is_ascii_digit() || b"+-*/)".contains(&bytes[start - 1]));
        if inside || !bytes[start].is_ascii_digit() {
            continue;
        }
        let Some((a, at)) = number(start) else { continue };
        let Some(op) = Op::ALL.into_iter().find(|op| bytes.get(at) == Some(&(op.sign() as u8))) else { continue };
        let Some((b, at)) = number(at + 1) else { continue };
        if bytes.get(at) == Some(&b'=')
            && let Some((value, _)) = number(at + 1)
        {
            found.push((a, op, b, value));
        }
    }
    found
}

/// `a<b`, `a=b`, `a>b` as whole lines or before a space.
fn comparisons(text: &str) -> Vec<(i64, char, i64)> {
    let mut found = Vec::new();
    for part in text.lines().filter_map(|line| line.split([' ', '،']).next()) {
        for sign in ['<', '=', '>'] {
            if let Some((a, b)) = part.split_once(sign)
                && let (Ok(a), Ok(b)) = (a.parse(), b.parse())
            {
                found.push((a, sign, b));
            }
        }
    }
    found
}

#[test]
fn documents_are_pure_functions_of_seed_and_number() {
    for name in NAMES {
        let (one, same, other) = (source(name, 1), source(name, 1), source(name, 2));
        let forward: Vec<Document> = (0..50).map(|index| one.document(index)).collect();
        let backward: Vec<Document> = (0..50).rev().map(|index| same.document(index)).collect();
        assert!(forward.iter().eq(backward.iter().rev()), "{name}");
        assert_ne!(forward, (0..50).map(|index| other.document(index)).collect::<Vec<_>>(), "{name}");
        let distinct: BTreeSet<String> = forward.iter().map(text_of).collect();
        assert!(distinct.len() > 40, "{name}: {} of 50 differ", distinct.len());
    }
}

#[test]
fn every_equation_is_true_and_none_is_held_out() {
    let (mut equations, mut compared) = (0, 0);
    for name in NAMES.iter().filter(|name| **name != "nano") {
        let source = source(name, 11);
        for index in 0..10_000 {
            let document = source.document(index);
            let text = text_of(&document);
            for (a, op, b, value) in relations(&text) {
                let step = Step::new(a, op, b);
                assert_eq!(step.map(|step| step.value()), Some(value), "{name} {index}: {a}{}{b}={value}", op.sign());
                assert!(
                    !step.is_some_and(|step| is_held_out(&step)),
                    "{name} {index}: {a}{}{b} is held out",
                    op.sign()
                );
                equations += 1;
            }
            for (a, sign, b) in comparisons(&text) {
                let right = ['<', '=', '>'][(a.cmp(&b) as i8 + 1) as usize];
                assert_eq!(sign, right, "{name} {index}: {a}{sign}{b}");
                compared += 1;
            }
            let broken = ["{", "}", "|]", "[|", "<A", "<B"].iter().any(|sign| text.contains(sign));
            assert!(!broken, "{name} {index}: a template shows: {text}");
            assert!(!text.contains("  ") && !text.trim().is_empty(), "{name} {index}: {text:?}");
        }
    }
    assert!(equations > 150_000 && compared > 30_000, "{equations} equations, {compared} comparisons");
}

#[test]
fn countdown_is_honest_play_on_puzzles_of_its_own() {
    let source = source("countdown", 12);
    let mut first_met: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for index in 0..10_000 {
        let document = source.document(index);
        let [_, question, _, trace, _, answer] = &document.segments[..] else { panic!("{document:?}") };
        let numbers = |text: &str| -> Vec<i64> {
            let digits = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
            digits.map(|part| part.parse().expect("a number")).collect()
        };
        let read = parse(&answer.text).expect("an expression");
        let mut used: Vec<i64> = read.numbers.iter().map(|&number| number.into()).collect();
        let mut given = numbers(&question.text);
        let Some((_, target)) = trace.text.lines().last().and_then(|line| line.split_once(['<', '=', '>'])) else {
            assert!(trace.text.is_empty());
            continue;
        };
        let target = numbers(target)[0];
        given.remove(given.iter().position(|&number| number == target).expect("the target is in the question"));
        used.sort_unstable();
        given.sort_unstable();
        assert_eq!(used, given, "{index}: each number once");
        assert_eq!(Split::of(&eval::tasks::countdown::key(&given, target)), Split::Pretrain, "{index}");
        let lines: Vec<&str> = trace.text.lines().collect();
        let is_verdict = |line: &&str| line.contains([' ', '<', '>']);
        let mut attempts = lines.split_inclusive(is_verdict).peekable();
        let (mut first, mut before) = (true, Vec::new());
        while let Some(attempt) = attempts.next() {
            let [.., last, verdict] = attempt else { panic!("{index}") };
            let (operation, value) = last.split_once('=').expect("an equation");
            let says_yes = verdict.contains(" yes") || verdict.contains(" نعم");
            assert!(verdict.starts_with(value), "{index}: {last} / {verdict}");
            assert_eq!(says_yes, value == target.to_string(), "{index}: {verdict}");
            assert_eq!(attempts.peek().is_none(), !verdict.contains(['،', ',']), "{index}: {verdict}");
            // A whole attempt, or another last operation on the same two numbers.
            let mut pair = numbers(operation);
            pair.sort_unstable();
            match attempt.len() - 1 {
                1 if !first => assert_eq!(pair, before, "{index}: {last}"),
                operations => assert_eq!(operations, given.len() - 1, "{index}: {attempt:?}"),
            }
            before = pair;
            if std::mem::take(&mut first) {
                let counts = first_met.entry(["2", "3", "4"][given.len() - 2]).or_default();
                *counts = (counts.0 + u32::from(says_yes), counts.1 + 1);
            }
            if attempts.peek().is_none() {
                assert_eq!(read.value.to_string(), value, "{index}");
            }
        }
    }
    // Chance alone, as research on uniformly random play has it: about .33, .07 to .10 and .02 to .04.
    let share = |numbers| first_met.get(numbers).map_or(1.0, |&(met, all)| f64::from(met) / f64::from(all));
    let shares = [share("2"), share("3"), share("4")];
    assert!(shares[0] < 0.45 && shares[1] < 0.13 && shares[2] < 0.05, "{shares:?}");
}

#[test]
fn the_share_of_retries_is_the_option() {
    for retries in [0.0, 0.3, 1.0] {
        let source = open("countdown", 3, &[("retries".to_string(), retries)].into()).expect("a corpus");
        let several = (0..2000).filter(|&index| source.document(index).kind.ends_with("retries")).count();
        assert!((several as f64 / 2000.0 - retries).abs() < 0.04, "{several} of 2000 at {retries}");
    }
}

#[test]
fn the_control_of_solutions_shows_one_attempt_that_meets_the_target() {
    let source = open("countdown", 3, &[("solved".to_string(), 1.0)].into()).expect("a corpus");
    assert!(source.origin().contains("1 of them with a sought solution"));
    for index in 0..300 {
        let text = text_of(&source.document(index));
        let yes = [" yes", " نعم"].iter().map(|word| text.matches(word).count()).sum::<usize>();
        // A few documents answer without reasoning.
        assert!(yes == 1 || text.contains("<think>\n\n</think>"), "{text}");
        assert!(!text.contains(" no") && !text.contains(" لا\n"), "{text}");
    }
}

#[test]
fn the_mix_has_its_shares() {
    let source = source("nano", 4);
    let mut bytes: BTreeMap<&str, usize> = BTreeMap::new();
    for index in 0..20_000 {
        let document = source.document(index);
        let group = document.kind.split(['/', ' ']).next().expect("a kind");
        *bytes.entry(group).or_default() += text_of(&document).len();
    }
    let total: usize = bytes.values().sum();
    for (group, share) in [("sums", 0.27), ("countdown", 0.27), ("words", 0.20), ("story", 0.13)] {
        let found = bytes[group] as f64 / total as f64;
        assert!((found - share).abs() < 0.04, "{group}: {found:.3}, not {share}");
    }
}

#[test]
fn unknown_names_options_and_values_are_refused() {
    let error =
        |name: &str, option: &str, value| open(name, 0, &[(option.to_string(), value)].into()).err().expect("an error");
    assert!(error("poems", "arabic", 0.5).contains("sums, countdown"));
    assert!(error("lists", "retries", 0.5).contains("no option \"retries\""));
    assert!(error("countdown", "retries", 1.5).contains("1.5"));
    assert!(error("countdown", "retries", f64::NAN).contains("NaN"));
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano")
}

fn nano() -> Tokenizer {
    Tokenizer::from_directory(&folder()).expect("models/nano")
}

#[test]
fn the_tokenizer_is_the_reference_s() {
    let ours = nano();
    let reference = tokenizers::Tokenizer::from_file(folder().join("tokenizer.json")).expect("models/nano");
    assert_eq!(ours.vocab_size(), 4096);
    let odd =
        ["", " ", "\n\n", "a  b\t\r\n", "٣+٤=٧", "قَلَمٌ ـــ", "don't 'tis", "日本 🙂 \u{200d}é", "<think>x", "x=-12.5e3"];
    let mix = source("nano", 5);
    let documents: Vec<String> = (0..2000).map(|index| text_of(&mix.document(index))).collect();
    for text in odd.into_iter().chain(documents.iter().map(String::as_str)) {
        let expected = reference.encode(text, false).expect("encodes");
        assert_eq!(ours.encode_with_specials(text).expect("encodes"), expected.get_ids(), "{text:?}");
    }
    assert_eq!(ours.encode("٣+٤").expect("encodes"), ours.encode("3+4").expect("encodes"));
    for id in 0..4096 {
        let token = ours.token(id).expect("a token");
        let signs = token.chars().filter(|c| c.is_ascii_digit() || "()[]+*/=<>\u{10a}".contains(*c)).count();
        let special = id < 16;
        assert!(
            special || signs == 0 || token.chars().count() == 1 || (token.starts_with('Ġ') && signs == 1),
            "{token}"
        );
    }
}

#[test]
fn arabic_and_english_text_is_short_in_tokens() {
    let tokenizer = nano();
    for (option, least) in [(0.0, 3.8), (1.0, 5.0)] {
        let stories = open("stories", 6, &[("arabic".to_string(), option), ("chat".to_string(), 0.0)].into());
        let stories = stories.expect("a corpus");
        let texts: Vec<String> = (0..200).map(|index| text_of(&stories.document(index))).collect();
        let tokens: usize = texts.iter().map(|text| tokenizer.encode(text).expect("encodes").len()).sum();
        let bytes: usize = texts.iter().map(String::len).sum();
        let ratio = bytes as f64 / tokens as f64;
        assert!(ratio > least, "{ratio:.2} bytes per token at {option} Arabic");
    }
}

#[test]
fn training_the_tokenizer_twice_gives_the_same_files() {
    let settings = Settings { vocab: 700, ..Settings::nano() };
    let train = || {
        let mut documents = nano_documents().expect("the mix").take(1500);
        train::bpe::train(&mut documents, &settings).expect("a tokenizer")
    };
    let files = train();
    assert_eq!(files, train());
    let too_many = Settings { vocab: 5000, ..Settings::nano() };
    let few = train::bpe::train(&mut nano_documents().expect("the mix").take(3), &too_many);
    assert!(few.expect_err("too little text").to_string().contains("5000"));
    let none = train::bpe::train(&mut std::iter::empty(), &Settings { vocab: 100, ..Settings::nano() });
    assert!(none.expect_err("too small").to_string().contains("272"));
}

#[test]
fn the_template_writes_what_documents_have() {
    let tokenizer = nano();
    let template = ChatTemplate::parse(tokenizer.chat_template(None).expect("a template")).expect("reads");
    let messages = |json: serde_json::Value| json.as_array().expect("a list").clone();
    let render = |messages: Vec<serde_json::Value>, prompt: bool, variables: serde_json::Value| {
        let input = ChatInput {
            messages: &messages,
            add_generation_prompt: prompt,
            bos_token: "<|bos|>",
            eos_token: "<|eos|>",
            variables: variables.as_object(),
            tools: None,
            today: None,
        };
        template.render(&input).expect("renders")
    };
    let talk = messages(serde_json::json!([
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "<think>\nHm.\n</think>\nHello!"},
        {"role": "user", "content": "What is 2+3?"},
    ]));
    let history = "<|bos|><|user|>Hi.<|assistant|>Hello!<|eos|><|user|>What is 2+3?";
    let none = serde_json::json!({});
    assert_eq!(render(talk.clone(), true, none.clone()), format!("{history}<|assistant|><think>\n"));
    for switch in ["enable_thinking", "thinking"] {
        let prompt = render(talk.clone(), true, serde_json::json!({ switch: false }));
        assert_eq!(prompt, format!("{history}<|assistant|><think>\n\n</think>\n"));
        let prompt = render(talk.clone(), true, serde_json::json!({ switch: true }));
        assert_eq!(prompt, format!("{history}<|assistant|><think>\n"));
    }
    let mut whole = talk;
    whole.push(serde_json::json!({"role": "assistant", "reasoning_content": "2+3=5", "content": "5"}));
    let answer = "<think>\n2+3=5\n</think>\n5";
    assert_eq!(render(whole, false, none), format!("{history}<|assistant|>{answer}<|eos|>"));

    let mut splitter = ReasoningSplitter::new(ReasoningFormat::think_after("<|assistant|><think>\n"));
    let mut pieces = splitter.push("2+3=5\n</think>\n5");
    pieces.extend(splitter.finish());
    assert_eq!(pieces, [ReasoningPiece::Reasoning("2+3=5".into()), ReasoningPiece::Content("5".into())]);
}
