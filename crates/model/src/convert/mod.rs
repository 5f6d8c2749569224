//! Any readable model to GGUF, in any format that can be written.
//!
//! The description and the values of the slots are all that is converted: a Hugging Face directory
//! and a GGUF file go the same way, and the writer is the inverse of the reader of GGUF
//! ([`crate::families::gguf`]). Before anything is written the planned metadata is read back and
//! compared with the description, so a model that GGUF cannot say is refused and never altered; what
//! only our own reader understands is said in a notice. Formats are chosen by a [`Recipe`].
//!
//! Values are streamed: a conversion holds one matrix of floats and a few mebibytes of rows, however
//! large the model. The file appears under its name when it is complete (see
//! [`GgufWriter`]).

mod check;
mod keys;
mod patterns;
mod plan;
mod recipe;
mod rows;
mod tokenizer;

use std::path::Path;

use kernels::format::Format;
use kernels::quant::QuantizeError;
use thiserror::Error;

use crate::checkpoint::{Checkpoint, GgufWriteError, GgufWriter, Kind, Value};
use crate::load::{LoadError, Loader};
use crate::spec::{Attention, ModelSpec};
use plan::{Layout, Planned};
pub use recipe::{RECIPES, Recipe};
pub use tokenizer::TokenizerError;

/// Why a model cannot be converted.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum ConvertError {
    #[error(transparent)]
    Load(Box<LoadError>),
    #[error(transparent)]
    Write(#[from] GgufWriteError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("GGUF cannot say {what}: the model has {wanted}, the file would say {found}")]
    NotInGguf { what: String, wanted: String, found: String },
    #[error("row {row} of the tensor {tensor}: {source}")]
    Value { tensor: String, row: usize, source: QuantizeError },
}

impl From<LoadError> for ConvertError {
    fn from(error: LoadError) -> ConvertError {
        ConvertError::Load(Box::new(error))
    }
}

/// What is converted to, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which formats the tensors get.
    pub recipe: Recipe,
    /// Leaves the tokenizer out, for models whose tokenizer GGUF cannot say.
    pub without_tokenizer: bool,
}

/// How far a conversion is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tensor that is being written.
    pub tensor: &'a str,
    /// Bytes of tensors that are written.
    pub done_bytes: u64,
    /// Bytes of all tensors.
    pub total_bytes: u64,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The file's architecture, as GGUF calls it.
    pub architecture: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// How many tensors and bytes each format has, the largest first.
    pub formats: Vec<(Format, usize, u64)>,
    /// Tensors whose rows are not whole blocks of the recipe's format: wanted, used, how many.
    pub fallbacks: Vec<(Format, Format, usize)>,
    /// What the user must know, each one sentence.
    pub notices: Vec<String>,
}

/// Writes the model to `out` as GGUF.
///
/// # Errors
/// If the model is not complete, GGUF cannot say what it is, a value does not fit the format, or the
/// file cannot be written; then nothing remains under the name `out`, and a file that was there
/// before stays as it was.
pub fn convert(
    checkpoint: &Checkpoint,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Summary, ConvertError> {
    let (spec, mut loader, mut notices) = Loader::open(checkpoint)?;
    let arch = plan::architecture(&spec);
    let (stored, query_norm_scale) = stored(&spec, arch);
    let planned = Layout { arch, spec: &stored, query_norm_scale }.tensors(&options.recipe);
    let keys = keys::keys(arch, &stored);
    let mut metadata = general(checkpoint, arch, options);
    metadata.extend(keys.entries);
    check::check(&stored, &metadata, &planned)?;
    notices.extend(keys.notices);
    let mut vocabulary = tokenizer::vocabulary(checkpoint, spec.vocab, options.without_tokenizer)?;
    vocabulary.entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    metadata.extend(vocabulary.entries);
    notices.extend(vocabulary.notices);
    // Everything is there and used before the first byte is written.
    for parameter in spec.parameters() {
        loader.value(&parameter)?;
    }
    loader.check_all_used(&spec)?;

    let mut writer = GgufWriter::new();
    for (key, value) in metadata {
        writer.metadata(&key, value)?;
    }
    for tensor in &planned {
        writer.tensor(&tensor.name, &tensor.shape, tensor.format)?;
    }
    let mut sink = writer.start(out)?;
    let total_bytes = planned.iter().map(bytes).sum();
    let mut done_bytes = 0;
    for tensor in &planned {
        progress(Progress { tensor: &tensor.name, done_bytes, total_bytes });
        rows::write(tensor, &mut loader, &mut sink, &mut |wrote| {
            done_bytes += wrote as u64;
            progress(Progress { tensor: &tensor.name, done_bytes, total_bytes });
        })?;
    }
    sink.finish()?;
    Ok(summary(arch, &planned, notices))
}

fn bytes(tensor: &Planned) -> u64 {
    crate::checkpoint::Dtype::from(tensor.format).tensor_bytes(&tensor.shape).unwrap_or(0) as u64
}

/// The description as it is stored, and the factor of query norms that makes it the same model: the
/// format fixes Gemma's softmax scale, and the norm of the queries takes up the rest.
fn stored(spec: &ModelSpec, arch: &str) -> (ModelSpec, f32) {
    /// llama.cpp knows the 27B model by its number of layers.
    const LAYERS_OF_27B: usize = 62;
    let mut stored = spec.clone();
    let mut factor = 1.0;
    if arch == "gemma3" {
        let layers = spec.blocks.len();
        for block in &mut stored.blocks {
            let Attention::Gqa(gqa) = &mut block.attention else { continue };
            let dim = if layers == LAYERS_OF_27B { spec.hidden / gqa.heads } else { gqa.head_dim };
            let fixed = (dim as f32).powf(-0.5);
            if gqa.qk_norm_eps.is_some() && (gqa.scale / fixed - 1.0).abs() > 1e-6 {
                factor = gqa.scale / fixed;
                gqa.scale = fixed;
            }
        }
    }
    (stored, factor)
}

/// What every file says about itself. From GGUF, everything general but the formats is kept.
fn general(checkpoint: &Checkpoint, arch: &'static str, options: &Options) -> Vec<(String, Value)> {
    /// The version of the layouts of quantised blocks.
    const QUANTIZATION_VERSION: u32 = 2;
    const OWN: [&str; 4] =
        ["general.architecture", "general.file_type", "general.quantization_version", "general.alignment"];
    let mut entries = vec![("general.architecture".to_string(), Value::from(arch))];
    match &checkpoint.kind {
        Kind::Gguf { metadata } => {
            let kept = metadata.iter().filter(|(key, _)| key.starts_with("general.") && !OWN.contains(key));
            entries.extend(kept.map(|(key, value)| (key.to_string(), value.clone())));
        }
        Kind::HuggingFace { directory, .. } => {
            if let Some(name) = directory.file_name().and_then(|name| name.to_str()) {
                entries.push(("general.name".to_string(), Value::from(name)));
            }
            entries.push(("general.type".to_string(), Value::from("model")));
        }
    }
    if let Some(file_type) = options.recipe.file_type() {
        entries.push(("general.file_type".to_string(), Value::from(file_type)));
    }
    entries.push(("general.quantization_version".to_string(), Value::from(QUANTIZATION_VERSION)));
    entries
}

fn summary(architecture: &'static str, planned: &[Planned], notices: Vec<String>) -> Summary {
    let mut formats: Vec<(Format, usize, u64)> = Vec::new();
    let mut fallbacks: Vec<(Format, Format, usize)> = Vec::new();
    for tensor in planned {
        match formats.iter_mut().find(|(format, ..)| *format == tensor.format) {
            Some((_, count, size)) => (*count, *size) = (*count + 1, *size + bytes(tensor)),
            None => formats.push((tensor.format, 1, bytes(tensor))),
        }
        if tensor.wanted == tensor.format {
            continue;
        }
        match fallbacks.iter_mut().find(|(wanted, used, _)| (*wanted, *used) == (tensor.wanted, tensor.format)) {
            Some((.., count)) => *count += 1,
            None => fallbacks.push((tensor.wanted, tensor.format, 1)),
        }
    }
    formats.sort_by_key(|&(_, _, bytes)| std::cmp::Reverse(bytes));
    let tensor_bytes = planned.iter().map(bytes).sum();
    Summary { architecture, tensors: planned.len(), tensor_bytes, formats, fallbacks, notices }
}
