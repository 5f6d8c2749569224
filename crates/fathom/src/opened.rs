//! A model by name: its weights, tokenizer, chat template and recommended settings.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use hub::StoreError;
use kernels::bytes::Bytes;
use kernels::weight::Inputs;
use model::checkpoint::{Checkpoint, Kind, Metadata, MetadataError};
use model::families::read_config;
use model::load::Model;
use model::spec::ModelSpec;
use serde::Deserialize;
use text::{ChatTemplate, GgufVocabulary, Tokenizer};

use crate::built_in::BuiltIn;

/// An opened model and what stands beside it.
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) model: Model,
    /// The tokenizer, or why there is none.
    tokenizer: anyhow::Result<Tokenizer>,
    pub(crate) recommended: Recommended,
    /// All files that say what it computes.
    pub(crate) files: Vec<PathBuf>,
}

/// Sampling settings that the model's authors recommend (generation_config.json).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Recommended {
    pub(crate) temperature: Option<f32>,
    pub(crate) top_k: Option<usize>,
    pub(crate) top_p: Option<f32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
}

impl Opened {
    /// Opens a path, a built-in model, or what was pulled under a name. `inputs`: the arithmetic of its products.
    pub(crate) fn open(name: &str, inputs: Inputs) -> anyhow::Result<Opened> {
        let (path, checkpoint) = checkpoint(name)?;
        let mut model = Model::from_checkpoint(&checkpoint)?;
        model.weights.set_inputs(inputs);
        let recommended = match &checkpoint.kind {
            Kind::HuggingFace { directory, .. } => recommended(directory)?,
            Kind::Gguf { .. } => Recommended::default(),
        };
        let mut files = checkpoint.files.clone();
        if let Kind::HuggingFace { directory, .. } = &checkpoint.kind {
            files.push(directory.join("config.json"));
        }
        Ok(Opened { path, model, tokenizer: tokenizer_of(&checkpoint), recommended, files })
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> anyhow::Result<&Tokenizer> {
        let tokenizer = match &self.tokenizer {
            Ok(tokenizer) => tokenizer,
            Err(error) => bail!("{}: {error:#}", self.path.display()),
        };
        let (tokens, vocab) = (tokenizer.vocab_size(), self.model.spec.vocab);
        if tokens > vocab {
            bail!(
                "{}: the tokenizer has {tokens} tokens and the model {vocab}; it is another model's tokenizer",
                self.path.display()
            );
        }
        Ok(tokenizer)
    }

    /// The chat template, if the model has one.
    pub(crate) fn template(&self) -> anyhow::Result<Option<ChatTemplate>> {
        let source = self.tokenizer()?.chat_template(None);
        let template = source.map(ChatTemplate::parse).transpose();
        template.with_context(|| format!("{}: the chat template cannot be used", self.path.display()))
    }
}

/// A model's files, by path, by the name of a built-in model, or by the name under which it was pulled. A file or
/// directory goes before a built-in model of its name. The path of a built-in model is its name.
pub(crate) fn checkpoint(name: &str) -> anyhow::Result<(PathBuf, Checkpoint)> {
    if let Some(built_in) = built_in(name) {
        return Ok((PathBuf::from(name), Checkpoint::from_gguf(name, Bytes::from_static(built_in.bytes()))?));
    }
    let path = resolve(name)?;
    let checkpoint = Checkpoint::open(&path)?;
    Ok((path, checkpoint))
}

/// The built-in model that a name stands for.
pub(crate) fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BuiltIn::find(name).filter(|_| !Path::new(name).exists())
}

/// The path of a model given by path or by the name under which it was pulled.
pub(crate) fn resolve(name: &str) -> anyhow::Result<PathBuf> {
    if Path::new(name).try_exists().with_context(|| format!("{name}: cannot be opened"))? {
        return Ok(PathBuf::from(name));
    }
    hub::Store::from_env()?.resolve(name).map_err(|error| match error {
        StoreError::NoSuchPath { .. } => {
            anyhow!("{name}: there is no such file or directory, and no pulled model of that name (`fathom list`)")
        }
        error => error.into(),
    })
}

/// The description in a configuration alone; none if `path` is no .json file.
pub(crate) fn spec_of_config(path: &Path) -> anyhow::Result<Option<ModelSpec>> {
    if !(path.is_file() && path.extension().is_some_and(|e| e == "json")) {
        return Ok(None);
    }
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let json = serde_json::from_slice(&bytes).with_context(|| format!("{}: is not valid JSON", path.display()))?;
    let (spec, _) = read_config(&json).with_context(|| path.display().to_string())?;
    Ok(Some(spec))
}

/// The description of a model, or of a configuration alone.
pub(crate) fn read_spec(name: &str) -> anyhow::Result<ModelSpec> {
    match spec_of_config(Path::new(name))? {
        Some(spec) => Ok(spec),
        None => Ok(Model::from_checkpoint(&checkpoint(name)?.1)?.spec),
    }
}

/// The tokenizer of a model, a directory, a tokenizer.json or a GGUF file.
pub(crate) fn open_tokenizer(name: &str) -> anyhow::Result<Tokenizer> {
    if built_in(name).is_some() {
        return tokenizer_of(&checkpoint(name)?.1);
    }
    let path = resolve(name)?;
    tokenizer_at(&path).with_context(|| path.display().to_string())
}

fn tokenizer_at(path: &Path) -> anyhow::Result<Tokenizer> {
    let in_directory = path.join("tokenizer.json");
    if in_directory.is_file() {
        return Ok(Tokenizer::from_directory(path)?);
    }
    if path.extension().is_some_and(|e| e == "json") {
        // The files beside a tokenizer.json say which tokens begin and end a text.
        if path.file_name().is_some_and(|n| n == "tokenizer.json")
            && let Some(directory) = path.parent()
        {
            return Ok(Tokenizer::from_directory(directory)?);
        }
        return Ok(Tokenizer::from_json(&std::fs::read(path).context("cannot be read")?)?);
    }
    tokenizer_of(&Checkpoint::open(path)?)
}

fn tokenizer_of(checkpoint: &Checkpoint) -> anyhow::Result<Tokenizer> {
    match &checkpoint.kind {
        Kind::HuggingFace { directory, .. } => {
            if !directory.join("tokenizer.json").is_file() {
                bail!("there is no tokenizer.json; put the one published with the model beside its weights");
            }
            Tokenizer::from_directory(directory).context("the tokenizer cannot be used")
        }
        Kind::Gguf { metadata } => vocabulary(metadata)
            .map_err(anyhow::Error::from)
            .and_then(|vocabulary| Ok(Tokenizer::from_gguf(vocabulary)?))
            .context("the tokenizer inside the file cannot be used"),
    }
}

/// The `tokenizer.*` metadata of a GGUF file.
fn vocabulary(metadata: &Metadata) -> Result<GgufVocabulary, MetadataError> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let strings = |name: &str| -> Result<Vec<String>, MetadataError> {
        let list = metadata.find_list::<&str>(&key(name))?;
        Ok(list.unwrap_or_default().into_iter().map(str::to_string).collect())
    };
    Ok(GgufVocabulary {
        model: metadata.string(&key("model"))?.to_string(),
        json: metadata.find::<&str>("tokenizer.huggingface.json")?.map(str::to_string),
        pre: metadata.find::<&str>(&key("pre"))?.map(str::to_string),
        tokens: strings("tokens")?,
        token_types: metadata.find_list(&key("token_type"))?.unwrap_or_default(),
        scores: metadata.find_list(&key("scores"))?.unwrap_or_default(),
        merges: strings("merges")?,
        bos: metadata.find(&key("bos_token_id"))?,
        eos: metadata.find(&key("eos_token_id"))?,
        eot: metadata.find(&key("eot_token_id"))?,
        eom: metadata.find(&key("eom_token_id"))?,
        unknown: metadata.find(&key("unknown_token_id"))?,
        add_bos: metadata.find(&key("add_bos_token"))?,
        add_space_prefix: metadata.find(&key("add_space_prefix"))?,
        chat_template: metadata.find::<&str>("tokenizer.chat_template")?.map(str::to_string),
    })
}

fn recommended(directory: &Path) -> anyhow::Result<Recommended> {
    const LIMIT_BYTES: u64 = 1 << 20;
    let path = directory.join("generation_config.json");
    match std::fs::metadata(&path) {
        Err(_) => Ok(Recommended::default()),
        Ok(meta) if meta.len() > LIMIT_BYTES => {
            bail!("{}: is {} bytes long; the limit is {LIMIT_BYTES}", path.display(), meta.len())
        }
        Ok(_) => {
            let bytes = std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
            serde_json::from_slice(&bytes).with_context(|| format!("{}: cannot be understood", path.display()))
        }
    }
}
