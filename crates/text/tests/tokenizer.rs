//! Tokenizers against published vocabularies and against hostile files.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use text::{EncodeError, GgufVocabulary, Segment, Specials, StreamDecoder, Tokenizer};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

fn deepseek() -> &'static Tokenizer {
    static TOKENIZER: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    TOKENIZER.get_or_init(|| Tokenizer::from_directory(&fixtures().join("deepseek")).unwrap())
}

/// The vocabulary as `reference/text_cut_vocab.py` cuts it; tokens that were cut have placeholder texts.
fn cut_vocabulary(name: &str) -> GgufVocabulary {
    let text = std::fs::read_to_string(fixtures().join(format!("{name}.vocab.json"))).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let size = file["size"].as_u64().unwrap() as usize;
    let mut tokens: Vec<String> = (0..size).map(|id| format!("(cut {id})")).collect();
    let mut token_types = vec![1; size];
    for (id, token) in file["tokens"].as_object().unwrap() {
        tokens[id.parse::<usize>().unwrap()] = token.as_str().unwrap().into();
    }
    for (id, kind) in file["types"].as_object().unwrap() {
        if file["tokens"].get(id).is_some() {
            token_types[id.parse::<usize>().unwrap()] = kind.as_i64().unwrap() as i32;
        }
    }
    let merges = file["merges"].as_array().unwrap().iter().map(|merge| merge.as_str().unwrap().into());
    GgufVocabulary {
        model: "gpt2".into(),
        pre: file["pre"].as_str().map(String::from),
        tokens,
        token_types,
        merges: merges.collect(),
        ..GgufVocabulary::default()
    }
}

#[test]
fn deepseek_gives_the_reference_ids_and_text() {
    let tokenizer = deepseek();
    let lines = std::fs::read_to_string(fixtures().join("deepseek/expected.jsonl")).unwrap();
    let mut cases = 0;
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let ids: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode_with_specials(text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, Specials::Show), case["decoded"].as_str().unwrap());
        cases += 1;
    }
    assert!(cases > 20, "{cases}");
    assert_eq!(tokenizer.vocab_size(), 129_280);
    assert_eq!(tokenizer.bos_id(), Some(0));
    assert_eq!(tokenizer.eos_ids(), [1]);
    assert!(!tokenizer.add_bos());
}

#[test]
fn gguf_vocabularies_give_the_reference_ids() {
    let cases = std::fs::read_to_string(fixtures().join("cases.txt")).unwrap();
    for name in ["deepseek-llm", "llama-bpe", "qwen2"] {
        let tokenizer = Tokenizer::from_gguf(cut_vocabulary(name)).unwrap();
        let expected = std::fs::read_to_string(fixtures().join(format!("{name}.ids"))).unwrap();
        let texts: Vec<&str> = cases.split("\n__ggml_vocab_test__\n").collect();
        assert_eq!(texts.len(), expected.lines().count() + 1);
        for (text, ids) in texts.iter().zip(expected.lines()) {
            let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{name} {text:?}");
            assert_eq!(tokenizer.decode(&ids, Specials::Show), *text, "{name}");
        }
    }
}

#[test]
fn text_never_becomes_a_reserved_token() {
    let tokenizer = deepseek();
    let reserved = tokenizer.reserved_ids();
    assert!(reserved.len() > 1000);
    for &id in &reserved {
        let token = tokenizer.token(id).unwrap().to_string();
        let ids = tokenizer.encode(&token).unwrap();
        assert!(ids.iter().all(|id| !reserved.contains(id)), "{token} {ids:?}");
        assert_eq!(tokenizer.decode(&ids, Specials::Show), token);
        // Half of it from each side of a border, in either order of trust.
        let characters: Vec<char> = token.chars().collect();
        for cut in 0..=characters.len() {
            let (left, right) =
                (characters[..cut].iter().collect::<String>(), characters[cut..].iter().collect::<String>());
            for trust in [false, true] {
                let mut segments = [Segment::trusted(left.as_str()), Segment::trusted(right.as_str())];
                segments[usize::from(trust)].trusted = false;
                let untrusted_is_empty = segments[usize::from(trust)].text.is_empty();
                let ids = tokenizer.encode_segments(&segments).unwrap();
                let found = ids.iter().any(|id| reserved.contains(id));
                assert!(!found || untrusted_is_empty, "{token} cut at {cut}: {ids:?}");
            }
        }
    }
}

#[test]
fn segments_give_the_ids_of_the_whole_text() {
    let tokenizer = deepseek();
    let segments = [
        Segment::trusted("<｜User｜>\n"),
        Segment::untrusted("\n\nHello wor"),
        Segment::untrusted("ld"),
        Segment::trusted("!<｜Assistant｜>"),
    ];
    let whole: String = segments.iter().map(|segment| segment.text.as_str()).collect();
    assert_eq!(tokenizer.encode_segments(&segments).unwrap(), tokenizer.encode_with_specials(&whole).unwrap());
}

#[test]
fn a_stream_gives_the_text_of_the_whole() {
    let tokenizer = deepseek();
    let mut state = 1u64;
    for _ in 0..300 {
        let ids: Vec<u32> = (0..40)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                // Half of them single bytes, so that most sequences of bytes are no UTF-8.
                (state >> 33) as u32 % if state >> 63 == 1 { 260 } else { 130_000 }
            })
            .collect();
        for specials in [Specials::Show, Specials::Hide] {
            let mut stream = StreamDecoder::new(tokenizer, specials);
            let pieces: String = ids.iter().map(|&id| stream.push(id)).collect();
            let bytes: Vec<u8> = ids
                .iter()
                .filter(|&&id| specials == Specials::Show || !tokenizer.is_special(id))
                .flat_map(|&id| reference_bytes(tokenizer, id))
                .collect();
            let whole = pieces + &stream.finish();
            assert_eq!(whole, String::from_utf8_lossy(&bytes));
            assert_eq!(whole, tokenizer.decode(&ids, specials));
        }
    }
}

/// The bytes of a token of DeepSeek's vocabulary, by the definition of the byte alphabet.
fn reference_bytes(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let Some(token) = tokenizer.token(id) else { return "\u{fffd}".into() };
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others: Vec<u8> = (0..=255).filter(|byte| !printable(byte)).collect();
    let byte = |c: char| match u32::from(c) {
        code @ 0..=0xff => Some(code as u8).filter(printable),
        code => others.get(code as usize - 0x100).copied(),
    };
    token.chars().map(byte).collect::<Option<Vec<u8>>>().unwrap_or(token.into())
}

fn small(changes: &[(&str, Value)]) -> Result<Tokenizer, text::TokenizerError> {
    let mut file = json!({
        "added_tokens": [{"id": 4, "content": "<s>", "special": true}],
        "normalizer": null,
        "pre_tokenizer": null,
        "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<unk>": 3}, "merges": ["a b"], "unk_token": "<unk>"},
    });
    for (pointer, value) in changes {
        *file.pointer_mut(pointer).unwrap() = value.clone();
    }
    Tokenizer::from_json(file.to_string().as_bytes())
}

#[test]
fn broken_files_end_in_an_error_that_names_the_fault() {
    assert_eq!(small(&[]).unwrap().encode("abba<s>").unwrap(), [2, 1, 0, 3, 3, 3]);
    let cases = [
        ("/model/merges", json!(["a c"]), "merge 0: \"c\" is not in the vocabulary"),
        ("/model/merges", json!(["b a"]), "merge 0: \"ba\" is not in the vocabulary"),
        ("/model/merges", json!(["ab"]), "is not two tokens"),
        ("/model/merges", json!([["a", "b", "c"]]), "tokenizer.json is not valid"),
        ("/model/vocab", json!({"a": 0, "b": 0, "<unk>": 3}), "id 0 belongs to both"),
        ("/model/vocab", json!({"<unk>": 0, "a": 4_000_000_000u32}), "too large for a vocabulary"),
        ("/model/vocab", json!({"a": -1}), "tokenizer.json is not valid"),
        ("/model/unk_token", json!("none"), "the unknown token \"none\""),
        ("/model/type", json!("Unigram"), "model \"Unigram\" is not supported (supported: BPE)"),
        ("/normalizer", json!({"type": "Precompiled"}), "normalizer \"Precompiled\" is not supported"),
        ("/pre_tokenizer", json!({"type": "Magic"}), "pre_tokenizer \"Magic\" is not supported"),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "(a+)+(?=b)"}, "behavior": "Isolated"}),
            "look-around",
        ),
        ("/pre_tokenizer", json!({"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}), "pattern"),
        ("/decoder", json!({"type": "CTC"}), "decoder \"CTC\" is not supported"),
        ("/added_tokens", json!([{"id": 0, "content": "c"}]), "id 0 belongs to both"),
        ("/added_tokens", json!([{"id": 9, "content": "a"}]), "two ids"),
    ];
    for (pointer, value, message) in cases {
        let error = small(&[(pointer, value.clone())]).err().unwrap_or_else(|| panic!("{pointer} {value}"));
        assert!(error.to_string().contains(message), "{error}");
    }
    let duplicate = br#"{"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}}"#;
    assert!(Tokenizer::from_json(duplicate).err().unwrap().to_string().contains("two ids"));
    for broken in [&b""[..], b"{", b"[]", b"{\"model\": {}}", &b"[".repeat(100_000)] {
        assert!(Tokenizer::from_json(broken).is_err());
    }
}

#[test]
fn merges_never_form_a_reserved_token() {
    let added = json!([{"id": 2, "content": "ab", "special": true}]);
    assert_eq!(small(&[("/added_tokens", added)]).unwrap().encode("ab").unwrap(), [0, 1]);
}

#[test]
fn growing_rules_and_slow_patterns_end_in_an_error() {
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let bomb = json!({"type": "Sequence", "normalizers": vec![replace("a", &"a".repeat(100)); 8]});
    let error = small(&[("/normalizer", bomb)]).unwrap().encode(&"a".repeat(1000)).unwrap_err();
    assert!(matches!(error, EncodeError::Growth { .. }));
    let slow = json!({"type": "Split", "pattern": {"Regex": "a*c|a"}, "behavior": "Isolated"});
    let error = small(&[("/pre_tokenizer", slow)]).unwrap().encode(&"a".repeat(100_000)).unwrap_err();
    assert!(matches!(error, EncodeError::SlowPattern { .. }));
}

#[test]
fn gguf_errors_name_the_fault() {
    let mut unknown = cut_vocabulary("qwen2");
    unknown.pre = Some("new-model".into());
    let error = Tokenizer::from_gguf(unknown).err().unwrap().to_string();
    assert!(error.contains("\"new-model\"") && error.contains("llama-bpe, "), "{error}");
    for name in text::known_pre_tokenizers() {
        let mut vocabulary = cut_vocabulary("qwen2");
        vocabulary.pre = Some(name.into());
        let tokenizer = Tokenizer::from_gguf(vocabulary).unwrap();
        let text = "It's 12345 Über-größe,\n\n 你好  x";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap(), Specials::Show), text, "{name}");
    }
    let mut lengths = cut_vocabulary("qwen2");
    lengths.token_types.pop();
    assert!(Tokenizer::from_gguf(lengths).err().unwrap().to_string().contains("token_type"));
    let mut bos = cut_vocabulary("qwen2");
    bos.bos = Some(10_000_000);
    assert!(Tokenizer::from_gguf(bos).err().unwrap().to_string().contains("id 10000000 is no token"));
}

#[test]
fn single_letters_of_the_byte_table_are_text() {
    // DeepSeek's first models: `ö` is an added token, and text with an ö becomes it.
    let tokenizer = Tokenizer::from_gguf(cut_vocabulary("deepseek-llm")).unwrap();
    let ids = tokenizer.encode("schön").unwrap();
    assert_eq!(ids, [870, 71, 100_003, 77]);
    assert_eq!(tokenizer.decode(&ids, Specials::Show), "schön");
}

#[test]
fn a_byte_level_vocabulary_without_merges_is_refused() {
    let mut vocabulary = cut_vocabulary("qwen2");
    vocabulary.merges.clear();
    let error = Tokenizer::from_gguf(vocabulary).err().unwrap().to_string();
    assert!(error.contains("tokenizer.ggml.merges is missing or empty"), "{error}");
}

fn sentence_piece(prefix: bool) -> Tokenizer {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let mut token_types = vec![2, 3, 3];
    token_types.extend([6; 256]);
    let mut scores = vec![0.0; 259];
    for (text, score) in
        [("▁", -9.0), ("a", -9.0), ("b", -9.0), ("ab", -1.0), ("▁a", -2.0), ("ba", -1.0), ("abab", -3.0), ("xy", -0.5)]
    {
        tokens.push(text.into());
        token_types.push(1);
        scores.push(score);
    }
    tokens.push("<think>".into());
    token_types.push(4);
    scores.push(0.0);
    let add_space_prefix = Some(prefix);
    Tokenizer::from_gguf(GgufVocabulary {
        model: "llama".into(),
        tokens,
        token_types,
        scores,
        bos: Some(1),
        eos: Some(2),
        add_space_prefix,
        ..GgufVocabulary::default()
    })
    .unwrap()
}

#[test]
fn sentence_piece_merges_by_score_and_falls_back_on_bytes() {
    let tokenizer = sentence_piece(true);
    let tokens = |text: &str| -> Vec<String> {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&ids, Specials::Show), text);
        ids.iter().map(|&id| tokenizer.token(id).unwrap().to_string()).collect()
    };
    // "ab" (-1) goes before "▁a" (-2); of the equals "ab" and "ba" the leftmost is joined first.
    assert_eq!(tokens("abab"), ["▁", "abab"]);
    assert_eq!(tokens("aba"), ["▁", "ab", "a"]);
    assert_eq!(tokens("a a"), ["▁a", "▁a"]);
    assert_eq!(tokens("é"), ["▁", "<0xC3>", "<0xA9>"]);
    // "x" is no token, but "xy" is.
    assert_eq!(tokens("xyx"), ["▁", "xy", "<0x78>"]);
    // Control tokens and bytes are never formed from text.
    assert!(tokenizer.encode("<s><0x41><think>").unwrap().iter().all(|&id| id > 2));
    assert!(tokens("<s>").iter().all(|token| token.starts_with("<0x") || token == "▁"));
    assert_eq!(tokenizer.encode_with_specials("<s>a</s>").unwrap(), [1, 263, 2]);
    assert!(tokenizer.add_bos());
    assert_eq!(sentence_piece(false).encode("abab").unwrap(), [265]);
    // One replacement character for each invalid byte.
    assert_eq!(tokenizer.decode(&[3 + 0xe2, 3 + 0x82, 260], Specials::Show), "\u{fffd}\u{fffd}a");
}

/// Time that this thread has spent running, where the system tells it: other programs do not count.
fn running_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e9)
}

#[test]
fn long_runs_take_linear_time() {
    let tokenizer = deepseek();
    let seconds = |text: &str| {
        let (start, ran) = (std::time::Instant::now(), running_seconds());
        assert!(!tokenizer.encode(text).unwrap().is_empty());
        let ran = running_seconds().zip(ran).map(|(after, before)| after - before);
        ran.unwrap_or(start.elapsed().as_secs_f64())
    };
    for run in ["a", " ", "\n", "_", "^", "7", "字", "🙂", "a ", "<"] {
        let quarter = run.repeat((256 << 10) / run.len());
        let small = (0..3).map(|_| seconds(&quarter)).fold(f64::MAX, f64::min);
        let large = (0..2).map(|_| seconds(&quarter.repeat(4))).fold(f64::MAX, f64::min);
        println!("{run:?}: 1 MiB in {large:.3} s, {:.2} times a quarter", large / small);
        // Linear time is 4, quadratic time 16; caches and busy machines lie between.
        assert!(large / small < 12.0, "{run:?}: {small} s, then {large} s");
    }
}
