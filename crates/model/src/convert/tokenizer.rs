//! From a tokenizer to `tokenizer.ggml.*`: `tokenizer.json` and the small files beside it as GGUF says
//! them, or the keys of another GGUF file.
//!
//! GGUF knows two tokenizers that matter here: `gpt2`, byte-level BPE with merges, whose pre-tokenizer
//! has a name and not a pattern ([`super::patterns`]); and `llama`, SentencePiece's BPE, where tokens
//! have scores and not merges. What it cannot say is a notice where texts are still tokenised alike
//! in nearly all cases. Byte-level BPE with a pre-tokenizer or normalizer that has no name goes into the file
//! as the whole tokenizer.json; the rest is an error.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use thiserror::Error;

use super::patterns::pre_tokenizer;
use crate::checkpoint::{Checkpoint, Kind, Value};

/// Largest file that is read. The largest published tokenizer.json has 35 MB.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Why a tokenizer cannot be written into GGUF.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum TokenizerError {
    #[error("{}: cannot be read: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: is more than {limit} bytes long, the limit for this file", .path.display())]
    TooLong { path: PathBuf, limit: u64 },
    #[error("{}: is not valid JSON: {source}", .path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {what} (the model can be converted without its tokenizer)", .path.display())]
    Unsupported { path: PathBuf, what: String },
}

/// Metadata entries and what the user must know about them.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    pub(super) entries: Vec<(String, Value)>,
    pub(super) notices: Vec<String>,
}

/// The kinds of tokens that GGUF knows (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// The tokenizer of a model of `vocab` tokens.
pub(super) fn vocabulary(checkpoint: &Checkpoint, vocab: usize, without: bool) -> Result<Vocabulary, TokenizerError> {
    let none = |notice: &str| {
        let entries = vec![("tokenizer.ggml.model".to_string(), Value::from("none"))];
        Vocabulary { entries, notices: vec![notice.to_string()] }
    };
    if without {
        return Ok(none("the file has no tokenizer, as asked: it takes and gives numbers of tokens"));
    }
    match &checkpoint.kind {
        Kind::Gguf { metadata } => {
            let kept = metadata.iter().filter(|(key, _)| key.starts_with("tokenizer."));
            let entries: Vec<_> = kept.map(|(key, value)| (key.to_string(), value.clone())).collect();
            if entries.is_empty() {
                return Ok(none("the source has no tokenizer, and so the file has none"));
            }
            Ok(Vocabulary { entries, notices: Vec::new() })
        }
        Kind::HuggingFace { directory, config } => match read_json(directory, "tokenizer.json")? {
            Some(tokenizer) => Files::read(directory, tokenizer, config)?.vocabulary(vocab),
            None => Ok(none("there is no tokenizer.json beside the model, so the file has no tokenizer")),
        },
    }
}

/// A tokenizer and what stands beside it.
struct Files {
    path: PathBuf,
    tokenizer: Json,
    config: Json,
    special: Json,
    generation: Json,
    model: Json,
    template: Option<String>,
}

impl Files {
    fn read(directory: &Path, tokenizer: Json, model: &Json) -> Result<Files, TokenizerError> {
        let or_empty = |name| Ok::<_, TokenizerError>(read_json(directory, name)?.unwrap_or(Json::Null));
        let path = directory.join("chat_template.jinja");
        let template = read(&path)?.map(String::from_utf8).transpose();
        let template =
            template.map_err(|error| TokenizerError::Unsupported { path, what: format!("is not text: {error}") })?;
        Ok(Files {
            path: directory.join("tokenizer.json"),
            tokenizer,
            config: or_empty("tokenizer_config.json")?,
            special: or_empty("special_tokens_map.json")?,
            generation: or_empty("generation_config.json")?,
            model: model.clone(),
            template,
        })
    }

    fn unsupported(&self, what: impl Into<String>) -> TokenizerError {
        TokenizerError::Unsupported { path: self.path.clone(), what: what.into() }
    }

    fn vocabulary(&self, vocab: usize) -> Result<Vocabulary, TokenizerError> {
        let model = &self.tokenizer["model"];
        if model["type"].as_str().is_some_and(|kind| kind != "BPE") || !model["merges"].is_array() {
            let kind = model["type"].as_str().unwrap_or("of an unknown kind");
            return Err(self.unsupported(format!("the tokenizer is {kind}; GGUF files of these models have BPE")));
        }
        let sentence_piece = model["byte_fallback"].as_bool() == Some(true);
        let mut out = Vocabulary::default();
        let list = self.tokens(vocab, sentence_piece, &mut out.notices)?;
        if sentence_piece {
            self.sentence_piece(&list, &mut out)?;
        } else {
            self.byte_level(&list, &mut out)?;
        }
        self.special_tokens(&list, &mut out);
        self.templates(&mut out);
        Ok(out)
    }

    /// Every token by id, with its kind.
    fn tokens(&self, vocab: usize, sentence_piece: bool, notices: &mut Vec<String>) -> Result<Tokens, TokenizerError> {
        let model = &self.tokenizer["model"];
        let ordinary = model["vocab"].as_object().ok_or_else(|| self.unsupported("model.vocab is not an object"))?;
        let mut texts: Vec<Option<(String, Type)>> = vec![None; vocab];
        let unknown = model["unk_token"].as_str();
        for (text, id) in ordinary {
            let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < vocab);
            let id =
                id.ok_or_else(|| self.unsupported(format!("the id of the token {text:?} is not below {vocab}")))?;
            if let Some((other, _)) = &texts[id] {
                return Err(self.unsupported(format!("the tokens {other:?} and {text:?} have the same id {id}")));
            }
            let kind = match () {
                () if Some(text.as_str()) == unknown => Type::Unknown,
                () if sentence_piece && is_byte(text) => Type::Byte,
                () => Type::Normal,
            };
            texts[id] = Some((text.clone(), kind));
        }
        let (mut beyond, mut modes) = (0, 0);
        for token in self.tokenizer["added_tokens"].as_array().into_iter().flatten() {
            let (Some(text), Some(id)) = (token["content"].as_str(), token["id"].as_u64()) else {
                return Err(self.unsupported("an added token has no content or no id"));
            };
            let Some(slot) = usize::try_from(id).ok().and_then(|id| texts.get_mut(id)) else {
                beyond += 1;
                continue;
            };
            modes += usize::from(["lstrip", "rstrip", "single_word"].iter().any(|mode| token[*mode] == true));
            let kind = match token["special"].as_bool() {
                _ if Some(text) == unknown => Type::Unknown,
                Some(true) => Type::Control,
                _ => Type::UserDefined,
            };
            // By the format's convention, SentencePiece's own tokens are stored as the text they match.
            let stored = if sentence_piece && kind == Type::UserDefined {
                text.replace('\u{2581}', " ")
            } else {
                text.to_string()
            };
            *slot = Some((stored, kind));
        }
        if beyond > 0 {
            notices
                .push(format!("{beyond} added tokens lie beyond the {vocab} rows of the embedding and were left out"));
        }
        if modes > 0 {
            notices.push(format!(
                "{modes} added tokens take the space beside them or match whole words, which GGUF cannot say"
            ));
        }
        let pad = |id| (format!("[PAD{id}]"), Type::Unused);
        let (texts, kinds) = texts.into_iter().enumerate().map(|(id, token)| token.unwrap_or_else(|| pad(id))).unzip();
        Ok(Tokens { texts, kinds })
    }

    fn byte_level(&self, list: &Tokens, out: &mut Vocabulary) -> Result<(), TokenizerError> {
        let ignore_merges = self.tokenizer["model"]["ignore_merges"].as_bool() == Some(true);
        let named = pre_tokenizer(&self.tokenizer["pre_tokenizer"], ignore_merges);
        let strange = self.normalizers().into_iter().find(|name| name != "NFC");
        let strange = strange.map(|name| format!("GGUF has no name for the normalizer {name}"));
        let known = match (named, strange) {
            (Ok(known), None) => known,
            (Err(what), _) | (_, Some(what)) => {
                self.whole(&what, out);
                return Ok(());
            }
        };
        if known.ignore_merges != ignore_merges {
            out.notices.push(format!(
                "the tokenizer {} pieces that are tokens; GGUF's \"{}\" {}, which may split rare words otherwise",
                if ignore_merges { "does not merge" } else { "merges also" },
                known.name,
                if ignore_merges { "merges them" } else { "does not" },
            ));
        }
        if !self.normalizers().is_empty() {
            out.notices.push(
                "the tokenizer brings text into Unicode's form NFC, which GGUF cannot say; nearly all text is in it"
                    .into(),
            );
        }
        let merges = self.merges()?;
        // A space inside a token would end it: such spaces are written as the byte alphabet has them.
        let escape = |part: &str| part.replace(' ', "\u{120}");
        let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{} {}", escape(a), escape(b))).collect();
        list.put("gpt2", known.name, out);
        out.put("merges", merges.as_slice());
        Ok(())
    }

    /// Merges by rank become scores by token: of two tokens the one that is made first has the higher.
    fn sentence_piece(&self, list: &Tokens, out: &mut Vocabulary) -> Result<(), TokenizerError> {
        let prefix = self.space_prefix(&mut out.notices)?;
        let mut rank: HashMap<String, (f32, usize)> = HashMap::new();
        let (mut last, mut late) = (String::new(), 0);
        for (index, (a, b)) in self.merges()?.iter().enumerate() {
            let token = format!("{a}{b}");
            let entry = rank.entry(token.clone()).or_insert((-(index as f32), 0));
            late += usize::from(entry.1 > 0 && last != token);
            entry.1 += 1;
            last = token;
        }
        let unmerged = list.unmerged(&rank);
        if late + unmerged > 0 {
            out.notices.push(format!(
                "GGUF scores tokens where this tokenizer ranks merges, and for {} merges that is not the same: \
                 rare words may be split otherwise",
                late + unmerged
            ));
        }
        let scores: Vec<f32> = list.texts.iter().map(|text| rank.get(text).map_or(0.0, |(score, _)| *score)).collect();
        list.put("llama", "default", out);
        out.put("scores", scores.as_slice());
        out.put("add_space_prefix", prefix);
        Ok(())
    }

    /// The whole file, for a tokenizer that GGUF's own keys cannot say.
    fn whole(&self, what: &str, out: &mut Vocabulary) {
        out.put("model", "none");
        out.entries.push(("tokenizer.huggingface.json".into(), Value::from(self.tokenizer.to_string())));
        out.notices.push(format!(
            "{what}: the file has the whole tokenizer.json, which fathom reads and other engines mostly do not"
        ));
    }

    /// Whether a space is put before the text, from the normalizers or the pre-tokenizer.
    fn space_prefix(&self, notices: &mut Vec<String>) -> Result<bool, TokenizerError> {
        let mut prefix = false;
        for normalizer in sequence(&self.tokenizer["normalizer"], "normalizers") {
            match normalizer["type"].as_str() {
                Some("Prepend") => prefix = true,
                Some("Replace") if normalizer["pattern"]["String"] == " " && normalizer["content"] == "\u{2581}" => {}
                Some(name) => return Err(self.unsupported(format!("the normalizer {name} cannot be said in GGUF"))),
                None => {}
            }
        }
        for step in sequence(&self.tokenizer["pre_tokenizer"], "pretokenizers") {
            match (step["type"].as_str(), step["prepend_scheme"].as_str()) {
                (Some("Metaspace"), Some("never")) => {}
                (Some("Metaspace"), Some("first")) => {
                    prefix = true;
                    notices.push(
                        "a space is put before the first text only, where GGUF has it after every special token".into(),
                    );
                }
                (Some("Metaspace"), _) => prefix |= step["add_prefix_space"] != false,
                // Gemma splits at spaces, of which its normalizer leaves none.
                (Some("Split"), _) if step["pattern"]["String"] == " " => {}
                (Some(name), _) => {
                    return Err(self.unsupported(format!("the pre-tokenizer {name} cannot be said in GGUF")));
                }
                (None, _) => {}
            }
        }
        Ok(prefix)
    }

    fn normalizers(&self) -> Vec<String> {
        let all = sequence(&self.tokenizer["normalizer"], "normalizers");
        all.filter_map(|normalizer| normalizer["type"].as_str().map(str::to_string)).collect()
    }

    /// Merges as pairs, from either style: `"a b"` or `["a", "b"]`.
    fn merges(&self) -> Result<Vec<(&str, &str)>, TokenizerError> {
        let merges = self.tokenizer["model"]["merges"].as_array().into_iter().flatten();
        let mut out = Vec::new();
        for (index, merge) in merges.enumerate() {
            let pair = match merge {
                Json::String(text) => text.split_once(' '),
                Json::Array(pair) => pair.first().and_then(Json::as_str).zip(pair.get(1).and_then(Json::as_str)),
                _ => None,
            };
            out.push(pair.ok_or_else(|| self.unsupported(format!("merge {index} is not a pair of tokens")))?);
        }
        Ok(out)
    }

    fn special_tokens(&self, list: &Tokens, out: &mut Vocabulary) {
        let ids: HashMap<&str, usize> = list.texts.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
        let text = |value: &Json| value.as_str().or_else(|| value["content"].as_str()).map(str::to_string);
        let mut strangers = Vec::new();
        let mut named = |key: &str| {
            let text = [&self.config, &self.special].into_iter().find_map(|file| text(&file[key]))?;
            let id = ids.get(text.as_str()).copied();
            if id.is_none() {
                strangers.push(format!("the {key} is no token of the vocabulary and was left out"));
            }
            id
        };
        let in_range =
            |id: &Json| id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < list.texts.len());
        let listed = |value: &Json| -> Vec<usize> {
            match value {
                Json::Array(ids) => ids.iter().filter_map(in_range).collect(),
                id => in_range(id).into_iter().collect(),
            }
        };
        let bos = named("bos_token").or_else(|| listed(&self.model["bos_token_id"]).first().copied());
        let mut ends: Vec<usize> = named("eos_token").into_iter().collect();
        ends.extend(listed(&self.generation["eos_token_id"]));
        if ends.is_empty() {
            ends = listed(&self.model["eos_token_id"]);
        }
        let mut seen = HashSet::new();
        ends.retain(|id| seen.insert(*id));
        let unknown = list.kinds.iter().position(|&kind| kind == Type::Unknown);
        let pad = named("pad_token");
        out.notices.append(&mut strangers);
        // The format has three places for tokens that end an answer.
        let keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
        for (key, &id) in keys.iter().zip(&ends) {
            out.put(key, id as u32);
        }
        if ends.len() > keys.len() {
            out.notices.push(format!("{} tokens end an answer; GGUF has room for {} of them", ends.len(), keys.len()));
        }
        for (key, id) in [("bos_token_id", bos), ("unknown_token_id", unknown), ("padding_token_id", pad)] {
            if let Some(id) = id {
                out.put(key, id as u32);
            }
        }
        let add_bos = self.config["add_bos_token"].as_bool().unwrap_or_else(|| self.template_starts_with(bos, &ids));
        out.put("add_bos_token", add_bos && bos.is_some());
        out.put("add_eos_token", self.config["add_eos_token"].as_bool() == Some(true));
    }

    /// Whether the post-processor begins every text with the token `bos`.
    fn template_starts_with(&self, bos: Option<usize>, ids: &HashMap<&str, usize>) -> bool {
        sequence(&self.tokenizer["post_processor"], "processors").any(|step| {
            let first = step["single"][0]["SpecialToken"]["id"].as_str();
            first.is_some_and(|text| bos.is_some() && ids.get(text).copied() == bos)
        })
    }

    fn templates(&self, out: &mut Vocabulary) {
        let mut templates: Vec<(String, String)> = Vec::new();
        match &self.config["chat_template"] {
            Json::String(text) => templates.push(("default".into(), text.clone())),
            Json::Array(list) => {
                let pair =
                    |entry: &Json| Some((entry["name"].as_str()?.to_string(), entry["template"].as_str()?.to_string()));
                templates.extend(list.iter().filter_map(pair));
            }
            _ => {}
        }
        if let Some(text) = &self.template {
            templates.retain(|(name, _)| name != "default");
            templates.push(("default".into(), text.clone()));
        }
        let mut names = Vec::new();
        let mut seen = HashSet::new();
        for (name, text) in templates {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !plain || !seen.insert(name.clone()) {
                out.notices.push(format!(
                    "the chat template {:?} was left out: GGUF cannot say its name",
                    name.chars().take(40).collect::<String>()
                ));
            } else if name == "default" {
                out.entries.push(("tokenizer.chat_template".into(), Value::from(text)));
            } else {
                out.entries.push((format!("tokenizer.chat_template.{name}"), Value::from(text)));
                names.push(name);
            }
        }
        if !names.is_empty() {
            out.entries.push(("tokenizer.chat_templates".into(), Value::from(names.as_slice())));
        }
    }
}

/// Tokens by id.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<Type>,
}

impl Tokens {
    fn put(&self, model: &str, pre: &str, out: &mut Vocabulary) {
        let kinds: Vec<i32> = self.kinds.iter().map(|&kind| kind as i32).collect();
        out.put("model", model);
        out.put("pre", pre);
        out.put("tokens", self.texts.as_slice());
        out.put("token_type", kinds.as_slice());
    }

    /// Pairs of tokens that make a token together and that the list of merges does not have:
    /// SentencePiece merges them, and the tokenizer does not.
    fn unmerged(&self, rank: &HashMap<String, (f32, usize)>) -> usize {
        // Longer ones would take long to look through, and hardly a text is made of them.
        const TOKEN_BYTES_MAX: usize = 256;
        let normal = |id: usize| self.kinds[id] == Type::Normal && self.texts[id].len() <= TOKEN_BYTES_MAX;
        let all: HashSet<&str> =
            (0..self.texts.len()).filter(|&id| normal(id)).map(|id| self.texts[id].as_str()).collect();
        let splits = |text: &str| {
            let inner = text.char_indices().skip(1);
            inner.filter(|&(at, _)| all.contains(&text[..at]) && all.contains(&text[at..])).count()
        };
        all.iter().map(|&text| splits(text).saturating_sub(rank.get(text).map_or(0, |(_, merges)| *merges))).sum()
    }
}

impl Vocabulary {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.entries.push((format!("tokenizer.ggml.{key}"), value.into()));
    }
}

/// The steps of a component: its own list, itself, or none.
pub(super) fn sequence<'a>(component: &'a Json, list: &str) -> impl Iterator<Item = &'a Json> {
    let steps: &[Json] = match &component[list] {
        Json::Array(steps) => steps,
        _ if component.is_object() => std::slice::from_ref(component),
        _ => &[],
    };
    steps.iter()
}

/// Whether a token stands for one byte: `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    hex.is_some_and(|hex| hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn read_json(directory: &Path, name: &str) -> Result<Option<Json>, TokenizerError> {
    let path = directory.join(name);
    let Some(bytes) = read(&path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| TokenizerError::Json { path, source })
}

/// A whole file; `None` if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    let failed = |source| TokenizerError::Io { path: path.to_path_buf(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TokenizerError::TooLong { path: path.to_path_buf(), limit: FILE_BYTES_MAX });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Array, FromItem, Item};
    use serde_json::json;

    fn files(tokenizer: Json, config: Json) -> Files {
        let (special, generation, model) =
            (Json::Null, json!({ "eos_token_id": [4, 5] }), json!({ "bos_token_id": 9 }));
        Files { path: "tokenizer.json".into(), tokenizer, config, special, generation, model, template: None }
    }

    fn find<'a>(vocabulary: &'a Vocabulary, key: &str) -> Option<&'a Value> {
        let key = if key.contains('.') { format!("tokenizer.{key}") } else { format!("tokenizer.ggml.{key}") };
        vocabulary.entries.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    fn list<'a, T: FromItem<'a>>(vocabulary: &'a Vocabulary, key: &str) -> Vec<T> {
        let array = find(vocabulary, key).and_then(|value| Array::from_item(value.item())).unwrap();
        array.iter().map(|item| T::from_item(item).unwrap()).collect()
    }

    fn number(vocabulary: &Vocabulary, key: &str) -> Option<u32> {
        find(vocabulary, key).and_then(|value| u32::from_item(value.item()))
    }

    fn text<'a>(vocabulary: &'a Vocabulary, key: &str) -> Option<&'a str> {
        find(vocabulary, key).and_then(|value| <&str>::from_item(value.item()))
    }

    fn byte_level(regex: &str) -> Json {
        json!({
            "model": {
                "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2, "\u{120}": 3 }, "merges": [["a", "b"], [" ", "a"]],
            },
            "normalizer": { "type": "NFC" },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false },
                { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
            ] },
            "post_processor": { "type": "TemplateProcessing", "single": [
                { "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
            ] },
            "added_tokens": [
                { "id": 4, "content": "</s>", "special": true },
                { "id": 5, "content": "<eot>", "special": true },
                { "id": 6, "content": "<think>", "special": false },
                { "id": 7, "content": "<s>", "special": true, "lstrip": true },
                { "id": 12, "content": "<image>", "special": true },
            ],
        })
    }

    const QWEN2: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}\
        | ?[^\\s\\p{L}\\p{N}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

    #[test]
    fn byte_level_bpe_becomes_gpt2() {
        let config = json!({
            "bos_token": { "content": "<s>" }, "eos_token": "</s>", "pad_token": "b",
            "chat_template": [{ "name": "default", "template": "T" }, { "name": "tool_use", "template": "U" }],
        });
        let out = files(byte_level(QWEN2), config).vocabulary(10).unwrap();
        assert_eq!((text(&out, "model"), text(&out, "pre")), (Some("gpt2"), Some("qwen2")));
        let tokens = ["a", "b", "ab", "\u{120}", "</s>", "<eot>", "<think>", "<s>", "[PAD8]", "[PAD9]"];
        assert_eq!(list::<&str>(&out, "tokens"), tokens);
        assert_eq!(list::<i32>(&out, "token_type"), [1, 1, 1, 1, 3, 3, 4, 3, 5, 5]);
        assert_eq!(list::<&str>(&out, "merges"), ["a b", "\u{120} a"]);
        let ids = ["bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id", "padding_token_id"];
        assert_eq!(ids.map(|key| number(&out, key)), [Some(7), Some(4), Some(5), None, Some(1)]);
        // The post-processor says so; the configuration does not.
        assert!(matches!(find(&out, "add_bos_token").unwrap().item(), Item::Bool(true)));
        assert_eq!((text(&out, "tokenizer.chat_template"), text(&out, "x.y")), (None, None));
        let template = |key: &str| out.entries.iter().any(|(k, _)| k == key);
        assert!(template("tokenizer.chat_template") && template("tokenizer.chat_template.tool_use"));
        let notices = out.notices.join("\n");
        for wanted in ["NFC", "1 added tokens lie beyond the 10 rows", "1 added tokens take the space beside them"] {
            assert!(notices.contains(wanted), "{wanted}: {notices}");
        }
    }

    #[test]
    fn sentence_piece_becomes_llama_with_scores() {
        let tokenizer = json!({
            "model": {
                "type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
                "merges": ["a b", "\u{2581} ab", "\u{2581}a b"],
                "vocab": {
                    "<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "a": 4, "b": 5,
                    "\u{2581}": 6, "ab": 7, "\u{2581}ab": 8, "\u{2581}a": 9,
                },
            },
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": "\u{2581}" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" },
            ] },
            "added_tokens": [
                { "id": 0, "content": "<unk>", "special": true },
                { "id": 1, "content": "<s>", "special": true },
                { "id": 2, "content": "</s>", "special": true },
                { "id": 10, "content": "\u{2581}\u{2581}", "special": false },
            ],
        });
        let config = json!({ "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true });
        let out = files(tokenizer, config).vocabulary(11).unwrap();
        assert_eq!((text(&out, "model"), text(&out, "pre")), (Some("llama"), Some("default")));
        assert_eq!(list::<i32>(&out, "token_type"), [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4]);
        assert_eq!(list::<f32>(&out, "scores"), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0]);
        assert_eq!(list::<&str>(&out, "tokens")[10], "  ");
        assert!(matches!(find(&out, "add_space_prefix").unwrap().item(), Item::Bool(true)));
        // "\u{2581}" and "a" make a token, and no merge says so.
        assert!(out.notices.iter().any(|notice| notice.contains("for 1 merges")), "{:?}", out.notices);
    }

    #[test]
    fn what_gguf_has_no_words_for_is_refused() {
        type Change = fn(&mut Json);
        let refused = |change: Change| {
            let mut tokenizer = byte_level(QWEN2);
            change(&mut tokenizer);
            files(tokenizer, Json::Null).vocabulary(10).unwrap_err().to_string()
        };
        let cases: [(Change, &str); 4] = [
            (|t| t["model"]["type"] = "Unigram".into(), "the tokenizer is Unigram"),
            (|t| t["model"]["vocab"]["z"] = 10.into(), "the id of the token \"z\" is not below 10"),
            (|t| t["model"]["vocab"]["z"] = 1.into(), "have the same id 1"),
            (|t| t["model"]["merges"][1] = "ab".into(), "merge 1 is not a pair of tokens"),
        ];
        for (change, wanted) in cases {
            let error = refused(change);
            assert!(error.contains(wanted) && error.contains("without its tokenizer"), "{error}");
        }
    }

    #[test]
    fn a_tokenizer_of_another_form_goes_into_the_file_whole() {
        type Change = fn(&mut Json);
        let regex: Change = |t| t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "[a-z]+".into();
        let cases: [(Change, &str); 2] = [
            (regex, "GGUF has no name for the pre-tokenizer [\"[a-z]+\"]"),
            (|t| t["normalizer"]["type"] = "Lowercase".into(), "GGUF has no name for the normalizer Lowercase"),
        ];
        for (change, wanted) in cases {
            let mut tokenizer = byte_level(QWEN2);
            change(&mut tokenizer);
            let out = files(tokenizer.clone(), json!({ "eos_token": "</s>" })).vocabulary(10).unwrap();
            assert!(out.notices.iter().any(|notice| notice.contains(wanted)), "{:?}", out.notices);
            assert_eq!((text(&out, "model"), number(&out, "eos_token_id")), (Some("none"), Some(4)));
            let whole: Json = serde_json::from_str(text(&out, "huggingface.json").unwrap()).unwrap();
            assert_eq!(whole, tokenizer);
        }
    }

    #[test]
    fn pre_tokenizers_are_known_by_their_patterns() {
        let split = |regex: &str| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated" });
        let name = |steps: Vec<Json>, ignore_merges: bool| {
            let component = json!({ "type": "Sequence", "pretokenizers": steps });
            pre_tokenizer(&component, ignore_merges).map(|known| known.name)
        };
        let llama3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|");
        assert_eq!(name(vec![split(&llama3)], true), Ok("llama-bpe"));
        assert_eq!(name(vec![split(&llama3)], false), Ok("smaug-bpe"));
        assert_eq!(name(vec![json!({ "type": "ByteLevel", "add_prefix_space": false })], false), Ok("gpt-2"));
        let v3 = [
            r"\p{N}{1,3}",
            "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+\
             |[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*\
             |\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
        ];
        assert_eq!(name(v3.map(split).to_vec(), false), Ok("deepseek-v3"));
        let coder = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+"];
        let mut steps = coder.map(split).to_vec();
        steps.push(json!({ "type": "Digits", "individual_digits": true }));
        assert_eq!(name(steps, false), Ok("deepseek-coder"));
        assert!(name(vec![json!({ "type": "Whitespace" })], false).unwrap_err().contains("Whitespace"));
    }
}
