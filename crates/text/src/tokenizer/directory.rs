//! A model's directory: `tokenizer.json` and the small files beside it that say how the tokenizer is used.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::Tokenizer;
use super::error::{TokenizerError, shorten};
use super::json::MAX_FILE_BYTES;

/// Largest of the small files that is read. Some `tokenizer_config.json` repeat all added tokens.
const MAX_SMALL_FILE_BYTES: u64 = 16 << 20;
/// Most chat templates of one model.
const MAX_TEMPLATES: usize = 32;

impl Tokenizer {
    /// Reads `tokenizer.json` and, where they exist, `tokenizer_config.json`, `special_tokens_map.json`,
    /// `generation_config.json` (more tokens that end an answer), `config.json` (end tokens if no other file has any)
    /// and `chat_template.jinja`.
    pub fn from_directory(directory: &Path) -> Result<Tokenizer, TokenizerError> {
        let path = directory.join("tokenizer.json");
        let bytes = read(&path, MAX_FILE_BYTES)?
            .ok_or_else(|| TokenizerError::Io { path: path.clone(), source: std::io::ErrorKind::NotFound.into() })?;
        let mut tokenizer = Tokenizer::from_json(&bytes)?;
        drop(bytes);
        let config = json(directory, "tokenizer_config.json")?;
        let map = json(directory, "special_tokens_map.json")?;
        let named =
            |key: &str| [&config, &map].into_iter().find_map(|file| token_text(file.get(key)?)).map(str::to_string);
        if let Some(bos) = named("bos_token") {
            tokenizer.meta.bos = Some(tokenizer.named_id("bos_token", &bos)?);
        }
        if let Some(eos) = named("eos_token") {
            let id = tokenizer.named_id("eos_token", &eos)?;
            tokenizer.meta.eos.push(id);
        }
        if let Some(add_bos) = config.get("add_bos_token").and_then(Value::as_bool) {
            tokenizer.meta.add_bos = add_bos && tokenizer.meta.bos.is_some();
        }
        let generation = json(directory, "generation_config.json")?;
        tokenizer.add_eos("generation_config.json", generation.get("eos_token_id"))?;
        if tokenizer.meta.eos.is_empty() {
            let config = json(directory, "config.json")?;
            tokenizer.add_eos("config.json", config.get("eos_token_id"))?;
        }
        tokenizer.meta.templates = templates(&config)?;
        if let Some(bytes) = read(&directory.join("chat_template.jinja"), MAX_SMALL_FILE_BYTES)? {
            let source = String::from_utf8(bytes).map_err(|error| TokenizerError::Json {
                file: "chat_template.jinja".into(),
                reason: error.to_string(),
            })?;
            tokenizer.meta.templates.retain(|(name, _)| name != "default");
            tokenizer.meta.templates.push(("default".into(), source));
        }
        Ok(tokenizer)
    }

    fn named_id(&self, key: &str, token: &str) -> Result<u32, TokenizerError> {
        self.id(token).ok_or_else(|| {
            TokenizerError::Vocabulary(format!("the {key} {:?} of tokenizer_config.json is no token", shorten(token)))
        })
    }

    /// Adds end tokens: one id or a list.
    fn add_eos(&mut self, file: &str, value: Option<&Value>) -> Result<(), TokenizerError> {
        let ids = match value {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(id) => std::slice::from_ref(id),
        };
        for value in ids {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| self.token(id).is_some());
            let Some(id) = id else {
                return Err(TokenizerError::Vocabulary(format!("eos_token_id of {file}: {value} is no token")));
            };
            if !self.meta.eos.contains(&id) {
                self.meta.eos.push(id);
            }
        }
        Ok(())
    }
}

/// A token is written as its text or as an object with `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// `chat_template`: one source, or a list of `{name, template}`.
fn templates(config: &Value) -> Result<Vec<(String, String)>, TokenizerError> {
    let wrong = |reason: String| TokenizerError::Json { file: "tokenizer_config.json".into(), reason };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(source)) => Ok(Vec::from([("default".to_string(), source.clone())])),
        Some(Value::Array(list)) if list.len() <= MAX_TEMPLATES => list
            .iter()
            .map(|entry| {
                let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_string);
                text("name").zip(text("template")).ok_or_else(|| wrong("chat_template: no name or no template".into()))
            })
            .collect(),
        Some(_) => Err(wrong("chat_template is neither a text nor a list of at most 32".into())),
    }
}

/// A JSON file of the directory; an empty object if it does not exist.
fn json(directory: &Path, name: &str) -> Result<Value, TokenizerError> {
    match read(&directory.join(name), MAX_SMALL_FILE_BYTES)? {
        None => Ok(Value::Object(serde_json::Map::new())),
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| TokenizerError::Json { file: name.into(), reason: shorten(&error.to_string()) }),
    }
}

/// A whole file, `None` if it does not exist.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TokenizerError> {
    let failed = |source| TokenizerError::Io { path: path.to_path_buf(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if read as u64 > limit {
        let bytes = std::fs::metadata(path).map_or(limit + 1, |metadata| metadata.len());
        return Err(TokenizerError::TooLarge { what: path.display().to_string(), bytes, limit });
    }
    Ok(Some(bytes))
}
