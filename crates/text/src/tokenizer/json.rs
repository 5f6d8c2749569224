//! `tokenizer.json`, the format of the Hugging Face `tokenizers` library.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::added::AddedToken;
use super::bpe::MergeTable;
use super::error::{TokenizerError, shorten};
use super::pattern::Pattern;
use super::pieces::{Behavior, LOWER_BLOCK, Normalizer, PreTokenizer, Prepend};
use super::{Meta, Parts, TokenDecoder, Tokenizer};

/// Largest file that is read; the largest published one has 34 MB.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;
/// Most steps of one part; published files have at most five.
const MAX_STEPS: usize = 16;
/// The pattern of GPT-2, built into the `ByteLevel` step.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedTokenFile>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: ModelFile,
}

#[derive(Deserialize)]
struct AddedTokenFile {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct ModelFile {
    r#type: Option<String>,
    #[serde(default)]
    vocab: VocabFile,
    #[serde(default)]
    merges: Vec<MergeFile>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

/// The vocabulary in the order of the file; a map of tokens to ids.
#[derive(Default)]
struct VocabFile(Vec<(u32, String)>);

/// `"a b"` in older files, `["a", "b"]` in newer ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum MergeFile {
    Joined(String),
    Pair(String, String),
}

impl<'de> Deserialize<'de> for VocabFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = VocabFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tokens to ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VocabFile, A::Error> {
                let mut entries = Vec::new();
                while let Some((token, id)) = map.next_entry::<String, u32>()? {
                    entries.push((id, token));
                }
                Ok(VocabFile(entries))
            }
            /// Other models than BPE have a list here; the type of the model is checked afterwards.
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<VocabFile, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(VocabFile::default())
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// Begin- and end-of-sequence tokens are not named in this file; [`Tokenizer::from_directory`] reads them from the
    /// files beside it. What the file's post-processor puts before a text counts as the begin token.
    pub fn from_json(bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let what = "tokenizer.json".to_string();
            return Err(TokenizerError::TooLarge { what, bytes: bytes.len() as u64, limit: MAX_FILE_BYTES });
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| TokenizerError::Json {
            file: "tokenizer.json".into(),
            reason: shorten(&error.to_string()),
        })?;
        check_model(&file.model)?;
        let added = file.added_tokens.into_iter().filter(|token| !token.content.is_empty()).map(|token| AddedToken {
            id: token.id,
            content: token.content,
            special: token.special,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
        });
        let mut parts = Parts {
            vocabulary: file.model.vocab.0,
            added: added.collect(),
            ignore_merges: file.model.ignore_merges.unwrap_or(false),
            byte_fallback: file.model.byte_fallback.unwrap_or(false),
            fuse_unknown: file.model.fuse_unk.unwrap_or(false),
            ..Parts::default()
        };
        if let Some(text) = &file.model.unk_token {
            let known = parts.vocabulary.iter().find(|(_, token)| token == text);
            let id = known.map(|(id, _)| *id).ok_or_else(|| {
                TokenizerError::Vocabulary(format!("the unknown token {:?} is not in the vocabulary", shorten(text)))
            })?;
            parts.unknown = Some(id);
            parts.hidden.insert(id);
        }
        steps("normalizer", "normalizers", file.normalizer.as_ref(), &mut |step| {
            parts.normalizers.push(normalizer(step)?);
            Ok(())
        })?;
        let mut byte_level = false;
        steps("pre_tokenizer", "pretokenizers", file.pre_tokenizer.as_ref(), &mut |step| {
            byte_level |= step.get("type").and_then(Value::as_str) == Some("ByteLevel");
            pre_tokenizer(step, &mut parts.pre_tokenizers)
        })?;
        if parts.byte_fallback {
            parts.hidden.extend(byte_ids(&parts.vocabulary));
        }
        parts.decoder = decoder(file.decoder.as_ref(), byte_level)?;
        parts.meta = begin_of_sequence(file.post_processor.as_ref(), &parts.added);
        let merges = file.model.merges;
        parts.assemble(|ids, _| read_merges(&merges, ids))
    }
}

fn byte_ids(vocabulary: &[(u32, String)]) -> Vec<u32> {
    vocabulary.iter().filter(|(_, token)| super::byte_of_token(token).is_some()).map(|(id, _)| *id).collect()
}

fn unsupported(part: &'static str, name: &str, known: &str) -> TokenizerError {
    TokenizerError::Unsupported { part, name: shorten(name), known: known.into() }
}

fn check_model(model: &ModelFile) -> Result<(), TokenizerError> {
    match model.r#type.as_deref() {
        Some("BPE") => {}
        // Files before the field existed: a BPE model is the one with merges.
        None if !model.merges.is_empty() => {}
        other => return Err(unsupported("model", other.unwrap_or("(none)"), "BPE")),
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err(unsupported("model", "BPE with dropout", "BPE without it"));
    }
    let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
    if affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
        return Err(unsupported("model", "BPE with a subword prefix or word suffix", "BPE without them"));
    }
    Ok(())
}

fn read_merges(merges: &[MergeFile], ids: &HashMap<String, u32>) -> Result<MergeTable, TokenizerError> {
    let mut table = MergeTable::default();
    for (index, merge) in merges.iter().enumerate() {
        let error = |reason: String| TokenizerError::Merge { index, reason };
        let (left, right) = match merge {
            MergeFile::Pair(left, right) => (left.as_str(), right.as_str()),
            MergeFile::Joined(text) => {
                text.split_once(' ').ok_or_else(|| error(format!("{:?} is not two tokens", shorten(text))))?
            }
        };
        let rank = u32::try_from(index).map_err(|_| error("too many merges".into()))?;
        let id = |token: &str| {
            ids.get(token).copied().ok_or_else(|| error(format!("{:?} is not in the vocabulary", shorten(token))))
        };
        table.insert(id(left)?, id(right)?, rank, id(&format!("{left}{right}"))?);
    }
    Ok(table)
}

/// Calls `each` for every step of a part, sequences flattened.
fn steps(
    part: &'static str,
    list: &str,
    value: Option<&Value>,
    each: &mut dyn FnMut(&Value) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let mut flat = Vec::new();
    let mut open: Vec<&Value> = value.into_iter().collect();
    while let Some(step) = open.pop() {
        if step.is_null() {
            continue;
        }
        match step.get("type").and_then(Value::as_str) {
            Some("Sequence") => {
                let inner = step.get(list).and_then(Value::as_array);
                let inner = inner.ok_or_else(|| unsupported(part, "Sequence without a list", list))?;
                open.extend(inner.iter().rev());
            }
            Some(_) => flat.push(step),
            None => return Err(unsupported(part, "a step without a type", "steps with a type")),
        }
        if flat.len() > MAX_STEPS {
            return Err(unsupported(part, "more than 16 steps", "at most 16 steps"));
        }
    }
    flat.into_iter().try_for_each(each)
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn flag(step: &Value, key: &str, default: bool) -> bool {
    step.get(key).and_then(Value::as_bool).unwrap_or(default)
}

fn text<'a>(part: &'static str, step: &'a Value, key: &str) -> Result<&'a str, TokenizerError> {
    let missing = || unsupported(part, &format!("{} without {key}", kind(step)), "a text there");
    step.get(key).and_then(Value::as_str).ok_or_else(missing)
}

/// `{"String": ".."}` or `{"Regex": ".."}`.
fn pattern(part: &'static str, step: &Value) -> Result<Pattern, TokenizerError> {
    let value = step.get("pattern");
    if let Some(literal) = value.and_then(|value| value.get("String")).and_then(Value::as_str) {
        return Pattern::literal(literal);
    }
    if let Some(source) = value.and_then(|value| value.get("Regex")).and_then(Value::as_str) {
        return Pattern::regex(source);
    }
    Err(unsupported(part, &format!("{} without a pattern", kind(step)), "a String or a Regex"))
}

fn normalizer(step: &Value) -> Result<Normalizer, TokenizerError> {
    const PART: &str = "normalizer";
    Ok(match kind(step) {
        "NFC" => Normalizer::Nfc,
        "NFD" => Normalizer::Nfd,
        "NFKC" => Normalizer::Nfkc,
        "NFKD" => Normalizer::Nfkd,
        "Lowercase" => Normalizer::Lowercase,
        "Strip" => Normalizer::Strip { left: flag(step, "strip_left", true), right: flag(step, "strip_right", true) },
        "Prepend" => Normalizer::Prepend(text(PART, step, "prepend")?.into()),
        "Replace" => {
            Normalizer::Replace { pattern: pattern(PART, step)?, content: text(PART, step, "content")?.into() }
        }
        other => return Err(unsupported(PART, other, "NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace")),
    })
}

fn split(pattern: &str, behavior: Behavior) -> Result<PreTokenizer, TokenizerError> {
    Ok(PreTokenizer::Split { pattern: Pattern::regex(pattern)?, behavior, invert: false })
}

fn behavior(step: &Value) -> Result<Behavior, TokenizerError> {
    Ok(match text("pre_tokenizer", step, "behavior")? {
        "Removed" => Behavior::Removed,
        "Isolated" => Behavior::Isolated,
        "MergedWithPrevious" => Behavior::MergedWithPrevious,
        "MergedWithNext" => Behavior::MergedWithNext,
        "Contiguous" => Behavior::Contiguous,
        other => {
            let known = "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous";
            return Err(unsupported("pre_tokenizer", other, known));
        }
    })
}

fn pre_tokenizer(step: &Value, out: &mut Vec<PreTokenizer>) -> Result<(), TokenizerError> {
    const PART: &str = "pre_tokenizer";
    match kind(step) {
        "Split" => out.push(PreTokenizer::Split {
            pattern: pattern(PART, step)?,
            behavior: behavior(step)?,
            invert: flag(step, "invert", false),
        }),
        "ByteLevel" => {
            // The reference adds the space before its own pattern cuts; a `Split` alone cannot say that.
            let add_prefix_space = flag(step, "add_prefix_space", true);
            if flag(step, "use_regex", true) {
                if add_prefix_space {
                    out.push(PreTokenizer::PrefixSpace);
                }
                out.push(split(GPT2, Behavior::Isolated)?);
                out.push(PreTokenizer::ByteAlphabet { add_prefix_space: false });
            } else {
                out.push(PreTokenizer::ByteAlphabet { add_prefix_space });
            }
        }
        "Metaspace" => {
            let mut replacement = step.get("replacement").and_then(Value::as_str).unwrap_or("\u{2581}").chars();
            let replacement = replacement.next().unwrap_or(LOWER_BLOCK);
            let prepend = prepend_scheme(step)?;
            let split = flag(step, "split", true).then(|| Pattern::literal(&replacement.to_string())).transpose()?;
            out.push(PreTokenizer::Metaspace { replacement, prepend, split });
        }
        "Digits" => {
            let individual = flag(step, "individual_digits", false);
            out.push(split(if individual { r"\p{N}" } else { r"\p{N}+" }, Behavior::Isolated)?);
        }
        "Punctuation" => {
            let behavior = if step.get("behavior").is_some() { behavior(step)? } else { Behavior::Isolated };
            out.push(split(r"[!-/:-@\[-`{-~\p{P}]", behavior)?);
        }
        "Whitespace" => {
            let pattern = Pattern::regex(r"\w+|[^\w\s]+")?;
            out.push(PreTokenizer::Split { pattern, behavior: Behavior::Removed, invert: true });
        }
        "WhitespaceSplit" => out.push(split(r"\s", Behavior::Removed)?),
        other => {
            let known = "Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit";
            return Err(unsupported(PART, other, known));
        }
    }
    Ok(())
}

fn prepend_scheme(step: &Value) -> Result<Prepend, TokenizerError> {
    match step.get("prepend_scheme").and_then(Value::as_str) {
        Some("first") => Ok(Prepend::First),
        Some("never") => Ok(Prepend::Never),
        Some("always") => Ok(Prepend::Always),
        // Older files have a flag instead.
        None => Ok(if flag(step, "add_prefix_space", true) { Prepend::Always } else { Prepend::Never }),
        Some(other) => Err(unsupported("prepend_scheme", other, "first, never, always")),
    }
}

fn decoder(value: Option<&Value>, byte_level: bool) -> Result<TokenDecoder, TokenizerError> {
    const PART: &str = "decoder";
    let mut decoder = TokenDecoder::default();
    if value.is_none_or(Value::is_null) {
        decoder.byte_level = byte_level;
        return Ok(decoder);
    }
    let mut fused = false;
    steps(PART, "decoders", value, &mut |step| {
        match kind(step) {
            "ByteLevel" => decoder.byte_level = true,
            "ByteFallback" => {
                decoder.byte_fallback = true;
                decoder.decoding.byte_runs = true;
            }
            "Fuse" => fused = true,
            "Replace" => {
                let from = step.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
                let from = from.filter(|from| !from.is_empty());
                let from = from.ok_or_else(|| unsupported(PART, "Replace without a String", "Replace of a String"))?;
                let to = text(PART, step, "content")?;
                // A list of growing replacements could make one token huge.
                if to.len() > from.len() {
                    return Err(unsupported(PART, "Replace by a longer text", "Replace by a text at most as long"));
                }
                decoder.replace.push((from.into(), to.into()));
            }
            "Metaspace" => {
                let replacement = step.get("replacement").and_then(Value::as_str).unwrap_or("\u{2581}");
                decoder.replace.push((replacement.into(), " ".into()));
                decoder.decoding.first_token_spaces = prepend_scheme(step)? != Prepend::Never;
            }
            "Strip" => {
                let start = step.get("start").and_then(Value::as_u64).unwrap_or(0);
                let spaces = step.get("content").and_then(Value::as_str) == Some(" ");
                if !spaces || !fused || step.get("stop").and_then(Value::as_u64).unwrap_or(0) != 0 {
                    return Err(unsupported(PART, "Strip", "Strip of leading spaces after Fuse"));
                }
                decoder.decoding.leading_spaces = usize::try_from(start).unwrap_or(usize::MAX);
            }
            other => {
                let known = "ByteLevel, ByteFallback, Fuse, Replace, Metaspace, Strip";
                return Err(unsupported(PART, other, known));
            }
        }
        Ok(())
    })?;
    if decoder.byte_level && decoder.byte_fallback {
        return Err(unsupported(PART, "ByteFallback with ByteLevel", "either of them"));
    }
    Ok(decoder)
}

/// The special token that the post-processor puts first, if any.
fn begin_of_sequence(value: Option<&Value>, added: &[AddedToken]) -> Meta {
    let mut open: Vec<&Value> = value.into_iter().collect();
    while let Some(step) = open.pop() {
        open.extend(step.get("processors").and_then(Value::as_array).into_iter().flatten());
        let first = step.get("single").and_then(|single| single.get(0)).and_then(|item| item.get("SpecialToken"));
        let name = first.and_then(|token| token.get("id")).and_then(Value::as_str);
        if let Some(token) = name.and_then(|name| added.iter().find(|token| token.content == name)) {
            return Meta { bos: Some(token.id), add_bos: true, ..Meta::default() };
        }
    }
    Meta::default()
}
