//! Our tokenizer against the reference library, on texts made of awkward parts.

use std::path::Path;

use proptest::prelude::*;
use text::{Specials, Tokenizer};

const PARTS: [&str; 28] = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "a",
    "The",
    "don't",
    "'LL",
    "123",
    "4567",
    "½",
    "é",
    "e\u{301}",
    "你好",
    "ひらがな",
    "مرحبا",
    "🙂",
    "👨‍👩‍👧",
    "_",
    "...",
    "!?",
    "#include",
    "\u{a0}",
    "\u{3000}",
    "<think>",
    "<｜User｜>",
    "x=1;",
];

/// A file and both tokenizers that it describes.
fn both(file: &[u8]) -> (Tokenizer, tokenizers::Tokenizer) {
    (Tokenizer::from_json(file).unwrap(), tokenizers::Tokenizer::from_bytes(file).unwrap())
}

fn deepseek() -> &'static (Tokenizer, tokenizers::Tokenizer) {
    static BOTH: std::sync::OnceLock<(Tokenizer, tokenizers::Tokenizer)> = std::sync::OnceLock::new();
    BOTH.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers/deepseek/tokenizer.json");
        both(&std::fs::read(path).unwrap())
    })
}

/// A SentencePiece-like file in one of the two styles that are published (Llama 2: normalizers; newer: Metaspace).
fn sentence_piece(metaspace: bool) -> (Tokenizer, tokenizers::Tokenizer) {
    let mut vocabulary: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    vocabulary.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let tokens = [
        "▁", "a", "T", "h", "e", "1", "2", "3", ".", "!", "你", "好", "▁a", "Th", "The", "▁The", "12", "..", "...",
        "▁▁",
    ];
    vocabulary.extend(tokens.map(String::from));
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        vocabulary.into_iter().zip(0..).map(|(token, id)| (token, id.into())).collect();
    let replace =
        |from: &str, to: &str| serde_json::json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let prepend = serde_json::json!({"type": "Prepend", "prepend": "▁"});
    let normalizer = serde_json::json!({"type": "Sequence", "normalizers": [prepend, replace(" ", "▁")]});
    let pre = serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    let strip = serde_json::json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let decoders = serde_json::json!([replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}, strip]);
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "special": true, "normalized": false, "lstrip": false,
            "rstrip": false, "single_word": false})
    };
    let file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "post_processor": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": if metaspace { serde_json::Value::Null } else { normalizer },
        "pre_tokenizer": if metaspace { pre } else { serde_json::Value::Null },
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary,
            "merges": ["▁ a", "T h", "Th e", "▁ The", "1 2", ". .", ".. .", "▁ ▁"]},
    });
    both(file.to_string().as_bytes())
}

fn check((ours, reference): &(Tokenizer, tokenizers::Tokenizer), text: &str) {
    let expected = reference.encode(text, false).unwrap();
    let ids = ours.encode_with_specials(text).unwrap();
    assert_eq!(ids, expected.get_ids(), "{text:?}");
    assert_eq!(ours.decode(&ids, Specials::Show), reference.decode(&ids, false).unwrap(), "{text:?}");
    assert_eq!(ours.decode(&ids, Specials::Hide), reference.decode(&ids, true).unwrap(), "{text:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deepseek_equals_the_reference(parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..24), any in ".{0,12}") {
        check(deepseek(), &(parts.concat() + &any));
    }

    #[test]
    fn sentence_piece_equals_the_reference(
        parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..16),
        metaspace: bool,
    ) {
        let text = parts.join("<s>") + &parts.concat();
        check(&sentence_piece(metaspace), &text);
    }
}

/// Byte tokens, valid and not, among others: whole runs of bytes count, and a stream gives the same.
#[test]
fn runs_of_byte_tokens_decode_as_in_the_reference() {
    for metaspace in [false, true] {
        let (ours, reference) = sentence_piece(metaspace);
        let mut state = 7u64;
        for _ in 0..3000 {
            let mut next = |limit: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % limit
            };
            let mut ids: Vec<u32> = Vec::new();
            for _ in 0..next(8) {
                let text = ["é", "字", "🙂", " ", "a", "\u{80}"][next(6) as usize];
                let bytes = text.bytes().map(|byte| 3 + u32::from(byte));
                match next(5) {
                    0 => ids.push(259 + next(20) as u32),
                    1 => ids.push(3 + next(256) as u32),
                    2 => ids.extend(bytes.take(1)),
                    _ => ids.extend(bytes),
                }
            }
            let expected = reference.decode(&ids, false).unwrap();
            assert_eq!(ours.decode(&ids, Specials::Show), expected, "{ids:?}");
        }
    }
}
