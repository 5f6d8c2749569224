//! The families of published models, as data.
//!
//! A family is a function from a configuration to a [`ModelSpec`] and a table from parts to the names
//! of tensors. Adding one is a file here, a line in [`FAMILIES`], and a fixture.

mod check;
mod deepseek;
mod gemma;
pub mod gguf;
mod gpt_oss;
mod llama;
mod qwen;

pub(crate) use check::check;
use serde_json::Value;

use crate::config::{HfConfig, SpecError, clip};
use crate::parameters::Part;
use crate::rope::yarn_magnitude;
use crate::spec::{ModelSpec, RopeScaling, RopeSpec};
use kernels::ops::{Activation, RopeLayout};

/// A family of models in Hugging Face's layout.
pub struct Family {
    /// The values of `model_type` that mean this family.
    pub model_types: &'static [&'static str],
    /// From configuration to description.
    pub read: fn(&HfConfig) -> Result<ModelSpec, SpecError>,
    /// Tensor names where they differ from [`COMMON_NAMES`] or add to them.
    pub names: &'static [(Part, Source)],
    /// What is added to stored norm weights (Gemma stores the weight minus one).
    pub norm_offset: f32,
}

/// Where the values of a slot come from in a file. Names take `{l}` for the layer and `{e}` for the
/// expert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// A tensor of the slot's own shape.
    Tensor(&'static str),
    /// All experts in one tensor, `[experts, ..]`.
    Stacked(&'static str),
    /// All experts' gate and up projections in one tensor, their rows in turn: gate is half 0, up 1.
    StackedHalf(&'static str, usize),
    /// As `Stacked`, but stored `[experts, inputs, outputs]`; or MXFP4 as `_blocks` and `_scales`,
    /// stored `[experts, outputs, inputs / 32, ..]` (gpt-oss).
    StackedByInput(&'static str),
    /// The two ideas together: half of the outputs of gpt-oss' fused projection.
    StackedByInputHalf(&'static str, usize),
    /// The latent's up projection in two: keys transposed, `[heads, rank, nope]`, and values,
    /// `[heads, v, rank]` (GGUF).
    KvUpSplit(&'static str, &'static str),
    /// Rows of a tensor that holds queries, keys and values one after the other: 0, 1 or 2 (GGUF).
    QkvPart(&'static str, usize),
    /// All experts' gate rows, then up rows: `[experts, 2 * width, hidden]`; half 0 or 1 (GGUF).
    StackedGateUp(&'static str, usize),
}

impl Source {
    /// The (first) name.
    pub fn name(&self) -> &'static str {
        match self {
            Source::Tensor(name)
            | Source::Stacked(name)
            | Source::StackedHalf(name, _)
            | Source::StackedByInput(name)
            | Source::StackedByInputHalf(name, _)
            | Source::KvUpSplit(name, _)
            | Source::QkvPart(name, _)
            | Source::StackedGateUp(name, _) => name,
        }
    }
}

/// The registry.
pub const FAMILIES: &[&Family] = &[
    &deepseek::V2,
    &deepseek::V3,
    &deepseek::V32,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &llama::LLAMA,
    &llama::MISTRAL,
    &llama::MIXTRAL,
    &gemma::GEMMA3,
    &gpt_oss::GPT_OSS,
];

/// Names that nearly every Hugging Face checkpoint uses.
pub const COMMON_NAMES: &[(Part, Source)] = {
    use Part::*;
    use Source::Tensor;
    &[
        (Embedding, Tensor("model.embed_tokens.weight")),
        (FinalNorm, Tensor("model.norm.weight")),
        (Head, Tensor("lm_head.weight")),
        (AttentionNorm, Tensor("model.layers.{l}.input_layernorm.weight")),
        (FfnNorm, Tensor("model.layers.{l}.post_attention_layernorm.weight")),
        (Query, Tensor("model.layers.{l}.self_attn.q_proj.weight")),
        (QueryBias, Tensor("model.layers.{l}.self_attn.q_proj.bias")),
        (Key, Tensor("model.layers.{l}.self_attn.k_proj.weight")),
        (KeyBias, Tensor("model.layers.{l}.self_attn.k_proj.bias")),
        (Value, Tensor("model.layers.{l}.self_attn.v_proj.weight")),
        (ValueBias, Tensor("model.layers.{l}.self_attn.v_proj.bias")),
        (QueryNorm, Tensor("model.layers.{l}.self_attn.q_norm.weight")),
        (KeyNorm, Tensor("model.layers.{l}.self_attn.k_norm.weight")),
        (AttentionOutput, Tensor("model.layers.{l}.self_attn.o_proj.weight")),
        (AttentionOutputBias, Tensor("model.layers.{l}.self_attn.o_proj.bias")),
        (Gate, Tensor("model.layers.{l}.mlp.gate_proj.weight")),
        (GateBias, Tensor("model.layers.{l}.mlp.gate_proj.bias")),
        (Up, Tensor("model.layers.{l}.mlp.up_proj.weight")),
        (UpBias, Tensor("model.layers.{l}.mlp.up_proj.bias")),
        (Down, Tensor("model.layers.{l}.mlp.down_proj.weight")),
        (DownBias, Tensor("model.layers.{l}.mlp.down_proj.bias")),
        (Router, Tensor("model.layers.{l}.mlp.gate.weight")),
        (ExpertGate, Tensor("model.layers.{l}.mlp.experts.{e}.gate_proj.weight")),
        (ExpertUp, Tensor("model.layers.{l}.mlp.experts.{e}.up_proj.weight")),
        (ExpertDown, Tensor("model.layers.{l}.mlp.experts.{e}.down_proj.weight")),
    ]
};

/// Tensors that carry nothing the model needs: recomputed tables and parts of other modalities.
pub const IGNORED_TENSORS: &[&str] =
    &["rotary_emb.inv_freq", "vision_tower.", "vision_model.", "multi_modal_projector.", "rope_freqs"];

/// The description of the model in a parsed `config.json`, and its family.
pub fn read_config(json: &Value) -> Result<(ModelSpec, &'static Family), SpecError> {
    let outer = HfConfig::new(json)?;
    // Models with an image part keep the language model's settings in an object of their own.
    let text = outer.object("text_config")?;
    let config = text.as_ref().unwrap_or(&outer);
    let family = find_family(config, &outer)?;
    let mut spec = (family.read)(config)?;
    config.finish()?;
    if text.is_some() {
        // Where both say whether the head is tied, the reference goes by the whole model's.
        spec.head.tied = outer.bool_or("tie_word_embeddings", spec.head.tied)?;
        outer.finish()?;
    }
    check(&spec)?;
    Ok((spec, family))
}

fn find_family(config: &HfConfig, outer: &HfConfig) -> Result<&'static Family, SpecError> {
    let known = || FAMILIES.iter().flat_map(|f| f.model_types).copied().collect::<Vec<_>>().join(", ");
    let names = match config.opt_strings("architectures")? {
        Some(names) => names,
        None => outer.opt_strings("architectures")?.unwrap_or_default(),
    };
    if let Some(other) = names.iter().find(|n| !n.ends_with("ForCausalLM") && !n.ends_with("ForConditionalGeneration"))
    {
        let why = "only language models that predict the next token are".to_string();
        return Err(SpecError::Unsupported { key: "architectures".into(), value: clip(other), why });
    }
    let model_type =
        config.opt_str("model_type")?.ok_or_else(|| SpecError::Missing { key: config.key("model_type") })?;
    let family = FAMILIES.iter().find(|f| f.model_types.contains(&model_type));
    let unknown = || SpecError::Architecture { key: config.key("model_type"), found: clip(model_type), known: known() };
    family.copied().ok_or_else(unknown)
}

/// Refuses a number outside its limits.
fn range(key: impl Into<String>, value: impl ToString, limit: impl ToString) -> SpecError {
    SpecError::Range { key: key.into(), value: value.to_string(), limit: limit.to_string() }
}

/// The number of layers, bounded.
fn layers(config: &HfConfig) -> Result<usize, SpecError> {
    let layers = config.size("num_hidden_layers")?;
    if layers > 4096 { Err(config.range("num_hidden_layers", layers, "at most 4096")) } else { Ok(layers) }
}

/// The activation that `key` names.
fn activation(config: &HfConfig, key: &str) -> Result<Activation, SpecError> {
    match config.opt_str(key)? {
        None | Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some(_) => Err(config.unsupported(key, "known are silu and gelu_pytorch_tanh")),
    }
}

/// Checks a key that only repeats what others say.
fn agrees(config: &HfConfig, key: &str, expected: usize) -> Result<(), SpecError> {
    match config.opt_count(key)? {
        Some(found) if found != expected => {
            Err(config.range(key, found, format!("{expected}, as the other sizes say")))
        }
        _ => Ok(()),
    }
}

/// The kinds of attention of each layer, where the configuration lists them.
fn layer_types(config: &HfConfig, layers: usize) -> Result<Option<Vec<bool>>, SpecError> {
    let Some(types) = config.opt_strings("layer_types")? else { return Ok(None) };
    if types.len() != layers {
        return Err(config.range("layer_types", format!("a list of {}", types.len()), format!("{layers} layers")));
    }
    let sliding = types.iter().map(|t| match *t {
        "sliding_attention" => Ok(true),
        "full_attention" | "indexed_attention" => Ok(false),
        _ => Err(config.unsupported("layer_types", format!("the kind \"{}\" is not known", clip(t)))),
    });
    sliding.collect::<Result<Vec<_>, _>>().map(Some)
}

/// The window of the layers that slide, where there always are some: null is not the default.
fn window(config: &HfConfig, absent: usize) -> Result<usize, SpecError> {
    if config.has("sliding_window") { config.size("sliding_window") } else { Ok(absent) }
}

/// A rotary embedding from either style of configuration: `rope_parameters`, or `rope_theta` with
/// `rope_scaling` at the top level. A scaling that stands at the top level replaces the other.
fn rope(
    config: &HfConfig,
    dim: usize,
    layout: RopeLayout,
    default_base: f32,
    context: usize,
) -> Result<RopeSpec, SpecError> {
    let new = config.object("rope_parameters")?;
    let old = config.object("rope_scaling")?;
    let base = config.positive_or("rope_theta", default_base)?;
    let top_original = config.opt_size("original_max_position_embeddings")?;
    whole_rotation(config)?;
    let Some(parameters) = old.or(new) else {
        return Ok(RopeSpec { dim, layout, base, scaling: RopeScaling::None });
    };
    rope_from(&parameters, dim, layout, base, context, top_original)
}

/// Partial rotation changes which elements turn; no family here uses it.
fn whole_rotation(config: &HfConfig) -> Result<(), SpecError> {
    match config.opt_f32("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(config.unsupported("partial_rotary_factor", "only whole heads rotate")),
        _ => Ok(()),
    }
}

/// A rotary embedding from the object that describes it.
fn rope_from(
    parameters: &HfConfig,
    dim: usize,
    layout: RopeLayout,
    default_base: f32,
    context: usize,
    top_original: Option<usize>,
) -> Result<RopeSpec, SpecError> {
    let base = parameters.positive_or("rope_theta", default_base)?;
    whole_rotation(parameters)?;
    let (kind, synonym) = (parameters.opt_str("rope_type")?, parameters.opt_str("type")?);
    if kind.is_some() && synonym.is_some() && kind != synonym {
        return Err(parameters.unsupported("type", "rope_type says something else"));
    }
    let kind = kind.or(synonym).unwrap_or("default");
    let original = match top_original {
        Some(original) => original,
        None => parameters.size_or("original_max_position_embeddings", context)?,
    };
    let _ = parameters.get("original_max_position_embeddings");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: positive(parameters, "factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: positive(parameters, "factor")?,
            low: positive(parameters, "low_freq_factor")?,
            high: positive(parameters, "high_freq_factor")?,
            original: original as f32,
        },
        "yarn" => yarn(parameters, context, original)?,
        _ => {
            let key = if parameters.get("rope_type").is_some() { "rope_type" } else { "type" };
            return Err(parameters.unsupported(key, "known are default, linear, llama3 and yarn"));
        }
    };
    parameters.finish()?;
    Ok(RopeSpec { dim, layout, base, scaling })
}

fn positive(config: &HfConfig, key: &str) -> Result<f32, SpecError> {
    config.f32(key)?;
    config.positive_or(key, 1.0)
}

fn yarn(parameters: &HfConfig, context: usize, original: usize) -> Result<RopeScaling, SpecError> {
    let factor = match parameters.opt_f32("factor")? {
        Some(_) => parameters.positive_or("factor", 1.0)?,
        None if parameters.has("factor") => context as f32 / original as f32,
        None => return Err(SpecError::Missing { key: parameters.key("factor") }),
    };
    // Zero means the default, as in the reference.
    let or_default = |key: &str, default: f32| -> Result<f32, SpecError> {
        Ok(parameters.opt_f32(key)?.filter(|v| *v != 0.0).unwrap_or(default))
    };
    let (mscale, mscale_all_dim) = (parameters.f32_or("mscale", 0.0)?, parameters.f32_or("mscale_all_dim", 0.0)?);
    let magnitude = match parameters.opt_f32("attention_factor")? {
        Some(given) => given,
        None if mscale != 0.0 && mscale_all_dim != 0.0 => {
            yarn_magnitude(factor, mscale) / yarn_magnitude(factor, mscale_all_dim)
        }
        None => yarn_magnitude(factor, 1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        original: original as f32,
        beta_fast: or_default("beta_fast", 32.0)?,
        beta_slow: or_default("beta_slow", 1.0)?,
        truncate: parameters.bool_or("truncate", true)?,
        magnitude,
    })
}
