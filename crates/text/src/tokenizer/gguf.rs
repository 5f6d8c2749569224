//! The vocabularies inside GGUF files (`tokenizer.ggml.*`).
//!
//! A GGUF file names its pre-tokenizer (`tokenizer.ggml.pre`) instead of carrying the pattern; the patterns stand in
//! the table below, each as the `tokenizer.json` of the family has it. `gpt2` vocabularies are byte-level BPE with
//! merges, `llama` vocabularies SentencePiece BPE with scores. A file whose tokenizer has neither form says `none` and
//! may carry the whole `tokenizer.json` (`tokenizer.huggingface.json`, as the GGUF specification has it).

use std::collections::HashSet;

use super::added::AddedToken;
use super::bpe::MergeTable;
use super::error::{TokenizerError, shorten};
use super::pattern::Pattern;
use super::pieces::{Behavior, Normalizer, PreTokenizer};
use super::{Decoding, Meta, Parts, TokenDecoder, Tokenizer};

/// `tokenizer.ggml.*` metadata as plain data; the caller reads it from the file.
#[derive(Clone, Debug, Default)]
pub struct GgufVocabulary {
    /// `model`: `gpt2`, `llama`, or `none`.
    pub model: String,
    /// `tokenizer.huggingface.json`: where `model` is `none`, the tokenizer.
    pub json: Option<String>,
    /// `pre`: the name of the pre-tokenizer, for `gpt2`.
    pub pre: Option<String>,
    /// `tokens`, by id.
    pub tokens: Vec<String>,
    /// `token_type`, by id: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte. Empty: all normal.
    pub token_types: Vec<i32>,
    /// `scores`, by id, for `llama`.
    pub scores: Vec<f32>,
    /// `merges`, for `gpt2`.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `eot_token_id`: the end of a turn.
    pub eot: Option<u32>,
    /// `eom_token_id`: the end of a message that waits for a tool.
    pub eom: Option<u32>,
    /// `unknown_token_id`.
    pub unknown: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

const GPT2: &[&str] = &[r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"];
const LLAMA3: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
const QWEN2: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
const QWEN35: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
/// Characters of East Asian writing, as the patterns of DeepSeek's first models have them.
const EAST_ASIAN: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";
const DEEPSEEK_LLM: &[&str] = &[
    r"[\r\n]",
    // White space and letters with case.
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+",
    r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
    r"\s+$",
    EAST_ASIAN,
    r"\p{N}+",
];
const DEEPSEEK_CODER: &[&str] = &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST_ASIAN, r"\p{N}"];
const DEEPSEEK_V3: &[&str] = &[
    r"\p{N}{1,3}",
    r"[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];
const TEKKEN: &[&str] = &[
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
const GPT4O: &[&str] = &[
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
const KIMI_K2: &[&str] = &[
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
const DEFAULT: &[&str] = &[
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

/// A pre-tokenizer: its name, its patterns in order, and whether pieces that are tokens are left unmerged.
const PRE_TOKENIZERS: &[(&str, &[&str], bool)] = &[
    ("default", DEFAULT, false),
    ("gpt-2", GPT2, false),
    ("gigachat", GPT2, false),
    ("llama-bpe", LLAMA3, true),
    ("llama3", LLAMA3, true),
    ("llama-v3", LLAMA3, true),
    ("falcon3", LLAMA3, true),
    ("pixtral", LLAMA3, true),
    ("smaug-bpe", LLAMA3, false),
    ("dbrx", LLAMA3, false),
    ("glm4", LLAMA3, true),
    ("chatglm-bpe", LLAMA3, false),
    ("qwen2", QWEN2, false),
    ("deepseek-r1-qwen", QWEN2, false),
    ("qwen35", QWEN35, false),
    ("deepseek-llm", DEEPSEEK_LLM, false),
    ("deepseek-coder", DEEPSEEK_CODER, false),
    ("deepseek-v3", DEEPSEEK_V3, false),
    ("hunyuan-dense", DEEPSEEK_V3, false),
    ("tekken", TEKKEN, true),
    ("gpt-4o", GPT4O, false),
    ("llama4", GPT4O, false),
    ("kimi-k2", KIMI_K2, false),
];

/// The names that `tokenizer.ggml.pre` may have.
pub fn known_pre_tokenizers() -> impl Iterator<Item = &'static str> {
    PRE_TOKENIZERS.iter().map(|(name, ..)| *name)
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    pub fn from_gguf(vocabulary: GgufVocabulary) -> Result<Tokenizer, TokenizerError> {
        if let Some(json) = vocabulary.json.as_ref().filter(|_| vocabulary.model == "none") {
            let mut tokenizer = Tokenizer::from_json(json.as_bytes())?;
            tokenizer.meta = meta(&vocabulary);
            let named = tokenizer.meta.bos.iter().chain(&tokenizer.meta.eos);
            return match named.copied().find(|&id| tokenizer.token(id).is_none()) {
                Some(id) => Err(TokenizerError::Vocabulary(format!("the special token {id} is no token"))),
                None => Ok(tokenizer),
            };
        }
        check_lengths(&vocabulary)?;
        let mut parts = Parts { duplicates_allowed: true, ..Parts::default() };
        sort_tokens(&vocabulary, &mut parts);
        parts.meta = meta(&vocabulary);
        match vocabulary.model.as_str() {
            "gpt2" => byte_level(&vocabulary, parts),
            "llama" => sentence_piece(&vocabulary, parts),
            other => Err(TokenizerError::Unsupported {
                part: "tokenizer.ggml.model",
                name: shorten(other),
                known: "gpt2, llama".into(),
            }),
        }
    }
}

fn meta(vocabulary: &GgufVocabulary) -> Meta {
    Meta {
        bos: vocabulary.bos,
        eos: end_tokens(vocabulary),
        add_bos: vocabulary.add_bos.unwrap_or(vocabulary.model == "llama") && vocabulary.bos.is_some(),
        templates: vocabulary.chat_template.iter().map(|text| ("default".into(), text.clone())).collect(),
    }
}

fn check_lengths(vocabulary: &GgufVocabulary) -> Result<(), TokenizerError> {
    let count = vocabulary.tokens.len();
    let lengths = [("token_type", vocabulary.token_types.len()), ("scores", vocabulary.scores.len())];
    for (name, length) in lengths {
        if length != 0 && length != count {
            return Err(TokenizerError::Vocabulary(format!(
                "tokenizer.ggml.{name} has {length} entries for {count} tokens"
            )));
        }
    }
    if vocabulary.model == "llama" && vocabulary.scores.is_empty() {
        return Err(TokenizerError::Vocabulary("tokenizer.ggml.scores is missing".into()));
    }
    if let Some(id) = vocabulary.scores.iter().position(|score| !score.is_finite()) {
        return Err(TokenizerError::Vocabulary(format!("the score of token {id} is not a number")));
    }
    if u32::try_from(count).is_err() {
        return Err(TokenizerError::Vocabulary(format!("{count} tokens; the limit is 4294967295")));
    }
    Ok(())
}

/// Sorts the tokens into the ordinary vocabulary, added tokens and hidden ones.
fn sort_tokens(vocabulary: &GgufVocabulary, parts: &mut Parts) {
    let mut seen = HashSet::new();
    for (text, id) in vocabulary.tokens.iter().zip(0u32..) {
        let kind = vocabulary.token_types.get(id as usize).copied().unwrap_or(NORMAL);
        // An id needs a text of its own to be shown; empty ones occur as padding.
        let text = if text.is_empty() { format!("[EMPTY_{id}]") } else { text.clone() };
        if matches!(kind, CONTROL | USER_DEFINED) && seen.insert(text.clone()) {
            parts.added.push(AddedToken {
                id,
                content: text.clone(),
                special: kind == CONTROL,
                single_word: false,
                lstrip: false,
                rstrip: false,
            });
        }
        if kind == UNKNOWN && parts.unknown.is_none() {
            parts.unknown = Some(id);
        }
        if matches!(kind, UNKNOWN | CONTROL | BYTE) {
            parts.hidden.insert(id);
        }
        parts.vocabulary.push((id, text));
    }
    parts.unknown = vocabulary.unknown.or(parts.unknown);
}

/// The end tokens: those that the file names, and those that are known by their text, because many files name only
/// one of several.
fn end_tokens(vocabulary: &GgufVocabulary) -> Vec<u32> {
    const KNOWN: [&str; 8] = [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|eom_id|>",
        "<｜end▁of▁sentence｜>",
        "<|return|>",
    ];
    let mut ends: Vec<u32> = [vocabulary.eos, vocabulary.eot, vocabulary.eom].into_iter().flatten().collect();
    // gpt-oss ends messages, not answers, with `<|end|>`.
    let harmony = vocabulary.tokens.iter().any(|token| token == "<|channel|>");
    for (token, id) in vocabulary.tokens.iter().zip(0u32..) {
        let control = vocabulary.token_types.get(id as usize) == Some(&CONTROL);
        let known = KNOWN.contains(&token.as_str()) && !(harmony && token == "<|end|>");
        let known = known || (harmony && token == "<|call|>");
        if control && known && !ends.contains(&id) {
            ends.push(id);
        }
    }
    let mut seen = HashSet::new();
    ends.retain(|&id| seen.insert(id));
    ends
}

fn byte_level(vocabulary: &GgufVocabulary, mut parts: Parts) -> Result<Tokenizer, TokenizerError> {
    let name = vocabulary.pre.as_deref().unwrap_or("default");
    let Some((_, patterns, ignore_merges)) = PRE_TOKENIZERS.iter().find(|(known, ..)| *known == name) else {
        return Err(TokenizerError::Unsupported {
            part: "tokenizer.ggml.pre",
            name: shorten(name),
            known: known_pre_tokenizers().collect::<Vec<_>>().join(", "),
        });
    };
    // Without merges every text would become single bytes, far from what the model was trained on. Every vocabulary
    // that was trained has one of these tokens.
    let trained = |token: &&String| ["in", "he", "\u{120}t", "\u{120}a"].contains(&token.as_str());
    if vocabulary.merges.is_empty()
        && let Some(token) = vocabulary.tokens.iter().find(trained)
    {
        let reason = format!("tokenizer.ggml.merges is missing or empty, but tokens such as {token:?} need merges");
        return Err(TokenizerError::Vocabulary(reason));
    }
    for pattern in *patterns {
        let pattern = Pattern::regex(pattern)?;
        parts.pre_tokenizers.push(PreTokenizer::Split { pattern, behavior: Behavior::Isolated, invert: false });
    }
    parts.pre_tokenizers.push(PreTokenizer::ByteAlphabet { add_prefix_space: false });
    parts.ignore_merges = *ignore_merges;
    parts.decoder.byte_level = true;
    parts.assemble(|ids, _| {
        let mut table = MergeTable::default();
        for (index, merge) in vocabulary.merges.iter().enumerate() {
            let error = |reason: String| TokenizerError::Merge { index, reason };
            // The first character of a token may be a space in files that were not written by the usual tools.
            let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            let at = at.ok_or_else(|| error(format!("{:?} is not two tokens", shorten(merge))))?;
            let (left, right) = (&merge[..at], &merge[at + 1..]);
            let id = |token: &str| {
                ids.get(token).copied().ok_or_else(|| error(format!("{:?} is not in the vocabulary", shorten(token))))
            };
            let rank = u32::try_from(index).map_err(|_| error("too many merges".into()))?;
            let (left_id, right_id) = (id(left)?, id(right)?);
            // Engines that read these files split what a merge makes into bytes again if it is no token, so such a
            // merge (cut vocabularies have them) has no effect.
            if let Some(&joined) = ids.get(format!("{left}{right}").as_str()) {
                table.insert(left_id, right_id, rank, joined);
            }
        }
        Ok(table)
    })
}

fn sentence_piece(vocabulary: &GgufVocabulary, mut parts: Parts) -> Result<Tokenizer, TokenizerError> {
    let prefix = vocabulary.add_space_prefix.unwrap_or(true);
    if prefix {
        parts.normalizers.push(Normalizer::Prepend(" ".into()));
    }
    let space = Pattern::literal(" ")?;
    parts.normalizers.push(Normalizer::Replace { pattern: space, content: "\u{2581}".into() });
    parts.byte_fallback = true;
    parts.fuse_unknown = true;
    parts.decoder = TokenDecoder {
        replace: Vec::from([("\u{2581}".to_string(), " ".to_string())]),
        byte_fallback: true,
        decoding: Decoding { leading_spaces: usize::from(prefix), replace_each_byte: true, ..Decoding::default() },
        ..TokenDecoder::default()
    };
    let hidden = parts.hidden.clone();
    let scores = &vocabulary.scores;
    parts.assemble(|ids, first_free_id| {
        let formable = ids.iter().filter(|(_, id)| !hidden.contains(id));
        let tokens: Vec<(u32, &str, f32)> =
            formable.map(|(text, &id)| (id, text.as_str(), scores.get(id as usize).copied().unwrap_or(0.0))).collect();
        MergeTable::from_scores(&tokens, first_free_id)
    })
}
