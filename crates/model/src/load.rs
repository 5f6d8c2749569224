//! From model files to weights.
//!
//! The parameter list of the spec is checked against the file both ways: every slot is filled once,
//! every tensor of the file is used or on the list of tensors that carry nothing.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use kernels::bytes::Bytes;
use kernels::format::Format;
use kernels::matmul::HeadWeight;
use kernels::weight::Weight;
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError, Dtype, Kind, Tensor, Tensors};
use crate::config::SpecError;
use crate::families::{COMMON_NAMES, IGNORED_TENSORS, Source, gguf, read_config};
use crate::parameters::{ParameterSpec, Part, Place, Slot};
use crate::spec::{Attention, BlockSpec, Ffn, ModelSpec};
use crate::weights::*;

/// Why a model cannot be loaded.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum LoadError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{file}: {source}")]
    Spec { file: String, source: Box<SpecError> },
    #[error("{file}: the tensor {name} is missing ({what})")]
    Missing { file: String, name: String, what: String },
    #[error("{file}: the tensor {name} has shape {found:?}; {wanted} was expected")]
    Shape { file: String, name: String, found: Vec<usize>, wanted: String },
    #[error("{file}: the tensor {name} is stored as {found}, which is not supported here; {wanted} was expected")]
    Kind { file: String, name: String, found: String, wanted: String },
    #[error("{file}: {count} tensors belong to no part of the model, the first is {first}")]
    Unused { file: String, count: usize, first: String },
    #[error("{file}: quantization_config.{key} = {value} is not supported; known: fp8 in square blocks, mxfp4")]
    Quantisation { file: String, key: &'static str, value: String },
}

/// A model in memory: its description and weights.
#[derive(Debug)]
pub struct Model {
    /// What it is.
    pub spec: ModelSpec,
    /// Its weights.
    pub weights: ModelWeights,
    /// What is odd but harmless, each one sentence for the user.
    pub notices: Vec<String>,
}

impl Model {
    /// Opens the model at `path` (see [`Checkpoint::open`]).
    ///
    /// # Errors
    /// If the file cannot be opened, is not a model, or does not hold exactly the described weights.
    pub fn open(path: &Path) -> Result<Model, LoadError> {
        Model::from_checkpoint(&Checkpoint::open(path)?)
    }

    /// Takes the weights out of an opened checkpoint.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Model, LoadError> {
        let (spec, mut loader, notices) = Loader::open(checkpoint)?;
        let mut values = HashMap::new();
        for parameter in spec.parameters() {
            values.insert(parameter.slot, loader.value(&parameter)?);
        }
        loader.check_all_used(&spec)?;
        let weights = assemble(&spec, values);
        Ok(Model { spec, weights, notices })
    }
}

/// How slots are named in a checkpoint.
struct Names {
    special: &'static [(Part, Source)],
    common: &'static [(Part, Source)],
    norm_offset: f32,
    /// What stands in place of `model.` and `lm_head.` (image models nest their language model).
    prefixes: (&'static str, &'static str),
}

fn read_spec(checkpoint: &Checkpoint) -> Result<(ModelSpec, Names), LoadError> {
    match &checkpoint.kind {
        Kind::HuggingFace { config, directory } => {
            let file = directory.join("config.json").display().to_string();
            let (spec, family) =
                read_config(config).map_err(|source| LoadError::Spec { file, source: Box::new(source) })?;
            let prefixes = prefixes(&checkpoint.tensors);
            let norm_offset = family.norm_offset;
            Ok((spec, Names { special: family.names, common: COMMON_NAMES, norm_offset, prefixes }))
        }
        Kind::Gguf { metadata } => {
            let spec = gguf::read_gguf(metadata, &checkpoint.tensors);
            let spec =
                spec.map_err(|source| LoadError::Spec { file: first_file(checkpoint), source: Box::new(source) })?;
            let prefixes = ("model.", "lm_head.");
            Ok((spec, Names { special: &[], common: gguf::NAMES, norm_offset: 0.0, prefixes }))
        }
    }
}

/// Where the language model stands among the tensors, by where its embedding is.
fn prefixes(tensors: &Tensors) -> (&'static str, &'static str) {
    [("language_model.model.", "language_model.lm_head."), ("model.language_model.", "lm_head.")]
        .into_iter()
        .find(|(model, _)| tensors.contains(&format!("{model}embed_tokens.weight")))
        .unwrap_or(("model.", "lm_head."))
}

fn first_file(checkpoint: &Checkpoint) -> String {
    checkpoint.files.first().map_or_else(|| "the model".to_string(), |f| f.display().to_string())
}

/// The values of a tensor of single numbers.
pub(crate) fn vector(tensor: &Tensor) -> Option<Vec<f32>> {
    let count = tensor.shape.iter().product();
    match tensor.dtype {
        // FP8 means nothing without scales.
        Dtype::Stored(format) if format.is_float() && format != Format::F8E4M3 => {
            let mut out = vec![0.0; count];
            kernels::quant::dequantize_row(format, &tensor.data, &mut out);
            Some(out)
        }
        Dtype::F64 => Some(tensor.data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()),
        // OCP microscaling: a power of two.
        Dtype::F8E8M0 => Some(tensor.data.iter().map(|&e| f32::exp2(e as f32 - 127.0)).collect()),
        _ => None,
    }
}

/// What fills a slot.
pub(crate) enum Value {
    Matrix(Weight),
    Vector(Vec<f32>),
    /// The latent's up projection in two: keys transposed and values.
    KvUp(Weight, Weight),
}

/// Weights of `spec` out of the values of all its slots.
pub(crate) fn assemble(spec: &ModelSpec, values: HashMap<Slot, Value>) -> ModelWeights {
    Assembly { values }.model(spec)
}

/// Finds the values of a checkpoint, one slot at a time.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    names: Names,
    layers: usize,
    /// Routed experts of each layer, multi-token prediction modules last.
    experts: Vec<usize>,
    /// Heads, and the sizes of their keys (without position) and values, where attention is latent.
    latents: Vec<Option<[usize; 3]>>,
    /// Rows of queries, keys and values together, where they are one projection each.
    fused_rows: Vec<usize>,
    fp8_block: usize,
    used: HashSet<String>,
}

impl<'a> Loader<'a> {
    /// The description of the model that the checkpoint holds, the loader of its values, and what is
    /// odd but harmless.
    pub(crate) fn open(checkpoint: &'a Checkpoint) -> Result<(ModelSpec, Loader<'a>, Vec<String>), LoadError> {
        let (mut spec, names) = read_spec(checkpoint)?;
        let mut notices = checkpoint.notices.clone();
        let loader = Loader::new(checkpoint, &spec, names)?;
        if !spec.mtp.is_empty() && !loader.any_mtp(&spec) {
            notices.push(format!(
                "the configuration names {} multi-token prediction module(s), but the file holds none",
                spec.mtp.len()
            ));
            spec.mtp.clear();
        }
        Ok((spec, loader, notices))
    }

    fn new(checkpoint: &'a Checkpoint, spec: &ModelSpec, names: Names) -> Result<Loader<'a>, LoadError> {
        let fp8_block = quantisation(checkpoint)?;
        let experts = |block: &BlockSpec| match &block.ffn {
            Ffn::Moe(moe) => moe.experts,
            Ffn::Dense(_) => 0,
        };
        let latent = |block: &BlockSpec| match &block.attention {
            Attention::Mla(mla) => Some([mla.heads, mla.nope_dim, mla.v_dim]),
            Attention::Gqa(_) => None,
        };
        let fused = |block: &BlockSpec| match &block.attention {
            Attention::Gqa(gqa) => (gqa.heads + 2 * gqa.kv_heads) * gqa.head_dim,
            Attention::Mla(_) => 0,
        };
        let blocks = || spec.blocks.iter().chain(&spec.mtp);
        let (experts, latents) = (blocks().map(experts).collect(), blocks().map(latent).collect());
        let fused_rows = blocks().map(fused).collect();
        let (layers, used) = (spec.blocks.len(), HashSet::new());
        Ok(Loader { checkpoint, names, layers, experts, latents, fused_rows, fp8_block, used })
    }

    /// The sources of a slot, in the order in which they are tried.
    fn sources(&self, part: Part) -> Vec<Source> {
        let of = |table: &'static [(Part, Source)]| table.iter().filter(move |(p, _)| *p == part).map(|(_, s)| *s);
        let special: Vec<Source> = of(self.names.special).collect();
        if special.is_empty() { of(self.names.common).collect() } else { special }
    }

    /// The number of a slot's layer in the file; multi-token prediction modules follow the layers.
    fn layer(&self, slot: Slot) -> usize {
        match slot.place {
            Place::Model => 0,
            Place::Block(l) => l,
            Place::Mtp(i) => self.layers + i,
        }
    }

    /// A name with the layer and the expert put in.
    fn fill(&self, template: &str, slot: Slot) -> String {
        let layer = self.layer(slot);
        let name = match (template.strip_prefix("model."), template.strip_prefix("lm_head.")) {
            (Some(rest), _) => format!("{}{rest}", self.names.prefixes.0),
            (_, Some(rest)) => format!("{}{rest}", self.names.prefixes.1),
            _ => template.to_string(),
        };
        name.replace("{l}", &layer.to_string()).replace("{e}", &slot.expert.unwrap_or(0).to_string())
    }

    fn any_mtp(&self, spec: &ModelSpec) -> bool {
        let parts = [Part::MtpEmbeddingNorm, Part::MtpHiddenNorm, Part::MtpProjection, Part::AttentionNorm];
        (0..spec.mtp.len()).any(|i| {
            parts.iter().any(|&part| {
                let slot = Slot { place: Place::Mtp(i), part, expert: None };
                self.sources(part).iter().any(|source| match source {
                    Source::Tensor(name) => self.checkpoint.tensors.contains(&self.fill(name, slot)),
                    _ => false,
                })
            })
        })
    }

    /// The value of a slot, a view into the file wherever the forward pass can use it as it is.
    pub(crate) fn value(&mut self, parameter: &ParameterSpec) -> Result<Value, LoadError> {
        let slot = parameter.slot;
        let sources = self.sources(slot.part);
        for &source in &sources {
            if let Some(value) = self.read_source(source, parameter)? {
                return Ok(value);
            }
        }
        Err(LoadError::Missing {
            file: first_file(self.checkpoint),
            name: sources.iter().map(|&source| self.lacking(source, slot)).collect::<Vec<_>>().join(" or "),
            what: format!("{:?} of {}", slot.part, place(slot)),
        })
    }

    /// What a source lacks: of two tensors that belong together, the one that is not there.
    fn lacking(&self, source: Source, slot: Slot) -> String {
        let has = |name: &str| self.checkpoint.tensors.contains(name);
        let name = self.fill(source.name(), slot);
        match source {
            Source::KvUpSplit(_, values) if has(&name) => self.fill(values, slot),
            Source::StackedByInput(_) | Source::StackedByInputHalf(..) => {
                let parts = ["_blocks", "_scales"].map(|suffix| format!("{name}{suffix}"));
                match parts.each_ref().map(|part| has(part)) {
                    [true, false] => parts[1].clone(),
                    [false, true] => parts[0].clone(),
                    _ => name,
                }
            }
            _ => name,
        }
    }

    /// The slot's value from one source; `None` if the file does not have it.
    fn read_source(&mut self, source: Source, parameter: &ParameterSpec) -> Result<Option<Value>, LoadError> {
        let (slot, shape) = (parameter.slot, parameter.shape.as_slice());
        Ok(Some(match source {
            Source::Tensor(name) => {
                let Some(tensor) = self.find(name, "", slot) else { return Ok(None) };
                match shape.len() {
                    1 => Value::Vector(self.norm(slot, self.vector(tensor, shape)?)),
                    _ => Value::Matrix(self.matrix(tensor, shape)?),
                }
            }
            Source::Stacked(name) => {
                let Some(tensor) = self.find(name, "", slot) else { return Ok(None) };
                match *shape {
                    [n] => Value::Vector(self.expert_vector(tensor, n, slot)?),
                    _ => Value::Matrix(self.expert(tensor, shape[0], shape[1], slot)?),
                }
            }
            Source::StackedHalf(name, half) => {
                let Some(tensor) = self.find(name, "", slot) else { return Ok(None) };
                let both = self.expert_vector(tensor, 2 * shape[0], slot)?;
                Value::Vector(both.into_iter().skip(half).step_by(2).collect())
            }
            Source::StackedGateUp(name, half) => {
                let Some(tensor) = self.find(name, "", slot) else { return Ok(None) };
                let both = self.expert(tensor, 2 * shape[0], shape[1], slot)?;
                Value::Matrix(both.row_range(half * shape[0]..(half + 1) * shape[0]))
            }
            Source::StackedByInput(name) => match self.by_input(name, slot, shape[0], shape[1])? {
                Some(weight) => Value::Matrix(weight),
                None => return Ok(None),
            },
            Source::StackedByInputHalf(name, half) => match self.by_input(name, slot, 2 * shape[0], shape[1])? {
                Some(both) => Value::Matrix(both.every_other_row(half)),
                None => return Ok(None),
            },
            Source::KvUpSplit(keys, values) => {
                let (Some(keys), Some(values)) = (self.find(keys, "", slot), self.find(values, "", slot)) else {
                    return Ok(None);
                };
                self.kv_up(keys, values, slot, shape[1])?
            }
            Source::QkvPart(name, part) => {
                let Some(tensor) = self.find(name, "", slot) else { return Ok(None) };
                self.qkv_part(tensor, part, slot, shape)?
            }
        }))
    }

    /// The tensor of a filled-in name and suffix, marked as used.
    fn find(&mut self, template: &str, suffix: &str, slot: Slot) -> Option<&'a Tensor> {
        let name = self.fill(template, slot) + suffix;
        let tensor = self.checkpoint.tensors.get(&name)?;
        self.used.insert(name);
        Some(tensor)
    }

    fn vector(&self, tensor: &Tensor, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        if tensor.shape != shape {
            return Err(self.shape(tensor, format!("{shape:?}")));
        }
        vector(tensor).ok_or_else(|| self.kind(tensor, "f32, f16, bf16 or f64"))
    }

    /// Norm weights as the forward pass multiplies with them.
    fn norm(&self, slot: Slot, mut values: Vec<f32>) -> Vec<f32> {
        if slot.part.is_norm() {
            values.iter_mut().for_each(|v| *v += self.names.norm_offset);
        }
        values
    }

    fn matrix(&mut self, tensor: &Tensor, shape: &[usize]) -> Result<Weight, LoadError> {
        if tensor.shape != shape {
            return Err(self.shape(tensor, format!("{shape:?}")));
        }
        if tensor.dtype == Dtype::Stored(Format::F8E4M3) {
            return self.fp8(tensor, shape);
        }
        self.blocks(tensor, shape[0], shape[1], tensor.data.clone())
    }

    /// DeepSeek-V3's FP8: scales of square blocks in a tensor beside the weight.
    fn fp8(&mut self, tensor: &Tensor, shape: &[usize]) -> Result<Weight, LoadError> {
        let name = format!("{}_scale_inv", tensor.name);
        let Some(scales) = self.checkpoint.tensors.get(&name) else {
            let what = format!("the scales of the fp8 tensor {}", tensor.name);
            return Err(LoadError::Missing { file: self.file(tensor), name, what });
        };
        let block = self.fp8_block;
        let wanted = [shape[0].div_ceil(block), shape[1].div_ceil(block)];
        let values = self.vector(scales, &wanted)?;
        self.used.insert(name);
        let weight = Weight::fp8_blocks(shape[0], shape[1], tensor.data.clone(), values, block);
        weight.ok_or_else(|| self.shape(tensor, format!("{shape:?}")))
    }

    /// The slot's expert of `[experts, rows, cols]`.
    fn expert(&self, tensor: &Tensor, rows: usize, cols: usize, slot: Slot) -> Result<Weight, LoadError> {
        let (experts, expert) = (self.experts[self.layer(slot)], slot.expert.unwrap_or(0));
        let wanted = [experts, rows, cols];
        if tensor.shape != wanted {
            return Err(self.shape(tensor, format!("{wanted:?}")));
        }
        let size = tensor.data.len() / experts;
        self.blocks(tensor, rows, cols, tensor.data.slice(expert * size..(expert + 1) * size))
    }

    /// The slot's expert of `[experts, n]`.
    fn expert_vector(&self, tensor: &Tensor, n: usize, slot: Slot) -> Result<Vec<f32>, LoadError> {
        let (experts, expert) = (self.experts[self.layer(slot)], slot.expert.unwrap_or(0));
        if tensor.shape != [experts, n] {
            return Err(self.shape(tensor, format!("{:?}", [experts, n])));
        }
        // Only this expert's part: reading all of them for each would be quadratic.
        let size = tensor.data.len() / experts;
        let data = tensor.data.slice(expert * size..(expert + 1) * size);
        self.vector(&Tensor { name: tensor.name.clone(), dtype: tensor.dtype, shape: vec![n], data }, &[n])
    }

    /// gpt-oss' experts: MXFP4 in blocks and scales, `[experts, rows, cols / 32, 16]`; or numbers
    /// stored input by input, `[experts, cols, rows]`, which are transposed into memory of our own.
    fn by_input(&mut self, name: &str, slot: Slot, rows: usize, cols: usize) -> Result<Option<Weight>, LoadError> {
        let (experts, expert) = (self.experts[self.layer(slot)], slot.expert.unwrap_or(0));
        if let Some(tensor) = self.find(name, "", slot) {
            let stored = self.expert(tensor, cols, rows, slot)?;
            let weight = stored.to_transposed();
            return weight.map(Some).ok_or_else(|| self.kind(tensor, "f32, f16 or bf16"));
        }
        let (Some(blocks), Some(scales)) = (self.find(name, "_blocks", slot), self.find(name, "_scales", slot)) else {
            return Ok(None);
        };
        for (tensor, wanted) in [(blocks, vec![experts, rows, cols / 32, 16]), (scales, vec![experts, rows, cols / 32])]
        {
            if tensor.dtype != Dtype::U8 {
                return Err(self.kind(tensor, "u8"));
            }
            if tensor.shape != wanted || !cols.is_multiple_of(32) {
                return Err(self.shape(tensor, format!("{wanted:?} for {cols} inputs")));
            }
        }
        let part = |tensor: &Tensor| {
            let size = tensor.data.len() / experts;
            tensor.data.slice(expert * size..(expert + 1) * size)
        };
        Ok(Weight::mxfp4_split(rows, cols, part(blocks), part(scales)))
    }

    /// GGUF's split of the latent's up projection.
    fn kv_up(&self, keys: &Tensor, values: &Tensor, slot: Slot, rank: usize) -> Result<Value, LoadError> {
        let [heads, nope, v] = self.latents[self.layer(slot)].unwrap_or_default();
        let matrix = |tensor: &Tensor, rows: usize, cols: usize| {
            let wanted = [heads, rows, cols];
            if tensor.shape != wanted {
                return Err(self.shape(tensor, format!("{wanted:?}")));
            }
            self.blocks(tensor, heads * rows, cols, tensor.data.clone())
        };
        Ok(Value::KvUp(matrix(keys, rank, nope)?, matrix(values, v, rank)?))
    }

    /// A matrix of a format that needs no scales beside it.
    fn blocks(&self, tensor: &Tensor, rows: usize, cols: usize, data: Bytes) -> Result<Weight, LoadError> {
        let format = tensor.dtype.format().filter(|&format| format != Format::F8E4M3);
        let format = format.ok_or_else(|| self.kind(tensor, "a format of weights"))?;
        let weight = Weight::new(format, rows, cols, data);
        weight.ok_or_else(|| self.shape(tensor, format!("{rows} x {cols} in whole blocks of {format}")))
    }

    /// Rows of a fused projection: queries, then keys, then values.
    fn qkv_part(&mut self, tensor: &Tensor, part: usize, slot: Slot, shape: &[usize]) -> Result<Value, LoadError> {
        let (total, rows) = (self.fused_rows[self.layer(slot)], shape[0]);
        let first = match part {
            0 => 0,
            1 => total - 2 * rows,
            _ => total - rows,
        };
        if shape.len() == 1 {
            return Ok(Value::Vector(self.vector(tensor, &[total])?[first..first + rows].to_vec()));
        }
        Ok(Value::Matrix(self.matrix(tensor, &[total, shape[1]])?.row_range(first..first + rows)))
    }

    /// Refuses tensors that no slot has asked for and that are not known to carry nothing.
    pub(crate) fn check_all_used(&self, spec: &ModelSpec) -> Result<(), LoadError> {
        let unused: Vec<&Tensor> = self
            .checkpoint
            .tensors
            .iter()
            .filter(|t| !self.used.contains(&t.name) && !self.carries_nothing(&t.name, spec))
            .collect();
        match unused.first() {
            None => Ok(()),
            Some(first) => {
                let (file, first) = (self.file(first), first.name.clone());
                Err(LoadError::Unused { file, count: unused.len(), first })
            }
        }
    }

    /// Recomputed tables, other modalities, a head that is tied, and the copies of embedding and head
    /// that published multi-token prediction modules carry.
    fn carries_nothing(&self, name: &str, spec: &ModelSpec) -> bool {
        const MTP_COPIES: &[&str] = &[
            ".embed_tokens.weight",
            ".shared_head.head.weight",
            ".nextn.embed_tokens.weight",
            ".nextn.shared_head_head.weight",
        ];
        let tied_head = spec.head.tied && name == format!("{}weight", self.names.prefixes.1);
        let mtp_copy = !spec.mtp.is_empty()
            && (spec.blocks.len()..spec.blocks.len() + spec.mtp.len()).any(|l| {
                MTP_COPIES.iter().any(|copy| {
                    name == format!("{}layers.{l}{copy}", self.names.prefixes.0) || name == format!("blk.{l}{copy}")
                })
            });
        tied_head || mtp_copy || IGNORED_TENSORS.iter().any(|ignored| name.contains(ignored))
    }

    fn file(&self, tensor: &Tensor) -> String {
        self.checkpoint.file_of(&tensor.name).map_or_else(|| "the model".into(), |f| f.display().to_string())
    }

    fn shape(&self, tensor: &Tensor, wanted: String) -> LoadError {
        LoadError::Shape { file: self.file(tensor), name: tensor.name.clone(), found: tensor.shape.clone(), wanted }
    }

    fn kind(&self, tensor: &Tensor, wanted: &str) -> LoadError {
        let (name, found) = (tensor.name.clone(), tensor.dtype.to_string());
        LoadError::Kind { file: self.file(tensor), name, found, wanted: wanted.to_string() }
    }
}

fn place(slot: Slot) -> String {
    let expert = slot.expert.map_or_else(String::new, |e| format!(", expert {e}"));
    match slot.place {
        Place::Model => "the model".to_string(),
        Place::Block(l) => format!("layer {l}{expert}"),
        Place::Mtp(i) => format!("multi-token prediction module {i}{expert}"),
    }
}

/// The side of FP8's square blocks; other quantisations that a configuration can name are refused.
fn quantisation(checkpoint: &Checkpoint) -> Result<usize, LoadError> {
    const BLOCK: usize = 128;
    let Kind::HuggingFace { config, directory } = &checkpoint.kind else { return Ok(BLOCK) };
    let Some(settings) = config.get("quantization_config").filter(|v| !v.is_null()) else { return Ok(BLOCK) };
    let refuse = |key: &'static str| LoadError::Quantisation {
        file: directory.join("config.json").display().to_string(),
        key,
        value: settings.get(key).map_or_else(|| "absent".into(), |v| v.to_string().chars().take(60).collect()),
    };
    match settings.get("quant_method").and_then(|v| v.as_str()) {
        Some("mxfp4") => Ok(BLOCK),
        Some("fp8") => match settings.get("weight_block_size").and_then(|v| v.as_array()).map(Vec::as_slice) {
            Some([rows, cols]) if rows == cols => {
                let side = rows.as_u64().filter(|side| (1..=1 << 16).contains(side));
                side.map(|side| side as usize).ok_or_else(|| refuse("weight_block_size"))
            }
            _ => Err(refuse("weight_block_size")),
        },
        _ => Err(refuse("quant_method")),
    }
}

/// Puts loaded values where the forward pass looks for them. The values are those of the spec's own
/// parameter list, so each is there.
struct Assembly {
    values: HashMap<Slot, Value>,
}

impl Assembly {
    fn model(mut self, spec: &ModelSpec) -> ModelWeights {
        let blocks = spec.blocks.iter().enumerate().map(|(l, block)| self.block(Place::Block(l), block)).collect();
        let mtp = spec.mtp.iter().enumerate().map(|(i, block)| self.mtp(Place::Mtp(i), block)).collect();
        ModelWeights {
            embedding: self.matrix(Place::Model, Part::Embedding),
            blocks,
            final_norm: self.vector(Place::Model, Part::FinalNorm),
            head: (!spec.head.tied).then(|| self.matrix(Place::Model, Part::Head)),
            mtp,
        }
    }

    fn mtp(&mut self, place: Place, block: &BlockSpec) -> MtpWeights {
        MtpWeights {
            embedding_norm: self.vector(place, Part::MtpEmbeddingNorm),
            hidden_norm: self.vector(place, Part::MtpHiddenNorm),
            projection: self.matrix(place, Part::MtpProjection),
            block: self.block(place, block),
            head_norm: self.vector(place, Part::MtpHeadNorm),
        }
    }

    fn block(&mut self, place: Place, spec: &BlockSpec) -> BlockWeights {
        BlockWeights {
            attention_norm: self.vector(place, Part::AttentionNorm),
            attention: match &spec.attention {
                Attention::Mla(mla) => AttentionWeights::Mla(self.mla(place, mla)),
                Attention::Gqa(_) => AttentionWeights::Gqa(self.gqa(place)),
            },
            post_attention_norm: self.opt_vector(place, Part::PostAttentionNorm),
            ffn_norm: self.vector(place, Part::FfnNorm),
            ffn: match &spec.ffn {
                Ffn::Dense(_) => {
                    let parts = [Part::Gate, Part::GateBias, Part::Up, Part::UpBias, Part::Down, Part::DownBias];
                    FfnWeights::Dense(self.gated(place, parts, None))
                }
                Ffn::Moe(moe) => FfnWeights::Moe(self.moe(place, moe.experts, moe.shared.is_some())),
            },
            post_ffn_norm: self.opt_vector(place, Part::PostFfnNorm),
        }
    }

    fn mla(&mut self, place: Place, spec: &crate::spec::MlaSpec) -> MlaWeights {
        let query = match spec.q_rank {
            None => QueryWeights::Full(self.matrix(place, Part::Query)),
            Some(_) => QueryWeights::Compressed {
                down: self.linear(place, Part::QueryDown, Part::QueryDownBias, None),
                norm: self.vector(place, Part::QueryNorm),
                up: self.matrix(place, Part::QueryUp),
            },
        };
        let (key_up, value_up, kv_up) = self.kv_up(place, spec);
        MlaWeights {
            query,
            kv_down: self.linear(place, Part::KvDown, Part::KvDownBias, None),
            kv_norm: self.vector(place, Part::KvNorm),
            key_up,
            value_up,
            kv_up,
            output: self.linear(place, Part::AttentionOutput, Part::AttentionOutputBias, None),
            indexer: spec.indexer.as_ref().map(|_| IndexerWeights {
                query: self.matrix(place, Part::IndexQuery),
                key: self.matrix(place, Part::IndexKey),
                key_norm: self.vector(place, Part::IndexKeyNorm),
                key_norm_bias: self.vector(place, Part::IndexKeyNormBias),
                head_weights: self.matrix(place, Part::IndexWeights),
            }),
        }
    }

    /// The up projection of keys and values, head by head, and in one where it is stored so.
    fn kv_up(
        &mut self,
        place: Place,
        spec: &crate::spec::MlaSpec,
    ) -> (Vec<HeadWeight>, Vec<HeadWeight>, Option<Weight>) {
        let head = |weight: &Weight, start: usize, rows: usize, transposed: bool| HeadWeight {
            weight: weight.row_range(start..start + rows),
            transposed,
        };
        let (nope, v, rank) = (spec.nope_dim, spec.v_dim, spec.kv_rank);
        let slot = Slot { place, part: Part::KvUp, expert: None };
        match self.values.remove(&slot) {
            Some(Value::KvUp(keys, values)) => {
                let heads =
                    (0..spec.heads).map(|h| (head(&keys, h * rank, rank, false), head(&values, h * v, v, false)));
                let (keys, values) = heads.unzip();
                (keys, values, None)
            }
            Some(Value::Matrix(both)) => {
                let start = |h: usize| h * (nope + v);
                let heads = (0..spec.heads)
                    .map(|h| (head(&both, start(h), nope, true), head(&both, start(h) + nope, v, false)));
                let (keys, values) = heads.unzip();
                (keys, values, Some(both.clone()))
            }
            _ => unreachable!("{slot:?} was loaded as a matrix"),
        }
    }

    fn gqa(&mut self, place: Place) -> GqaWeights {
        GqaWeights {
            query: self.linear(place, Part::Query, Part::QueryBias, None),
            key: self.linear(place, Part::Key, Part::KeyBias, None),
            value: self.linear(place, Part::Value, Part::ValueBias, None),
            query_norm: self.opt_vector(place, Part::QueryNorm),
            key_norm: self.opt_vector(place, Part::KeyNorm),
            sinks: self.opt_vector(place, Part::Sinks),
            output: self.linear(place, Part::AttentionOutput, Part::AttentionOutputBias, None),
        }
    }

    fn moe(&mut self, place: Place, experts: usize, shared: bool) -> MoeWeights {
        use Part::*;
        let expert_parts = [ExpertGate, ExpertGateBias, ExpertUp, ExpertUpBias, ExpertDown, ExpertDownBias];
        let shared_parts = [SharedGate, SharedGateBias, SharedUp, SharedUpBias, SharedDown, SharedDownBias];
        MoeWeights {
            router: self.linear(place, Router, RouterBias, None),
            correction: self.opt_vector(place, RouterCorrection),
            experts: (0..experts).map(|e| self.gated(place, expert_parts, Some(e))).collect(),
            shared: shared.then(|| self.gated(place, shared_parts, None)),
        }
    }

    fn gated(&mut self, place: Place, parts: [Part; 6], expert: Option<usize>) -> GatedWeights {
        GatedWeights {
            gate: self.linear(place, parts[0], parts[1], expert),
            up: self.linear(place, parts[2], parts[3], expert),
            down: self.linear(place, parts[4], parts[5], expert),
        }
    }

    fn linear(&mut self, place: Place, weight: Part, bias: Part, expert: Option<usize>) -> Linear {
        let bias = match self.values.remove(&Slot { place, part: bias, expert }) {
            Some(Value::Vector(values)) => Some(values),
            _ => None,
        };
        match self.values.remove(&Slot { place, part: weight, expert }) {
            Some(Value::Matrix(weight)) => Linear { weight, bias },
            _ => unreachable!("{weight:?} of {place:?} was loaded as a matrix"),
        }
    }

    fn matrix(&mut self, place: Place, part: Part) -> Weight {
        match self.values.remove(&Slot { place, part, expert: None }) {
            Some(Value::Matrix(weight)) => weight,
            _ => unreachable!("{part:?} of {place:?} was loaded as a matrix"),
        }
    }

    fn vector(&mut self, place: Place, part: Part) -> Vec<f32> {
        self.opt_vector(place, part).unwrap_or_else(|| unreachable!("{part:?} of {place:?} was loaded"))
    }

    fn opt_vector(&mut self, place: Place, part: Part) -> Option<Vec<f32>> {
        match self.values.remove(&Slot { place, part, expert: None }) {
            Some(Value::Vector(values)) => Some(values),
            _ => None,
        }
    }
}
