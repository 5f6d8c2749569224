//! Qwen2, Qwen2.5 (and the R1 distillations of it), Qwen3, Qwen3-MoE.

use super::{Family, layer_types, layers};
use crate::config::{HfConfig, SpecError};
use crate::families::llama::{Plain, dense};
use crate::spec::{Attention, DenseSpec, Ffn, ModelSpec, MoeSpec, RouterSpec};

/// Qwen2 and Qwen2.5.
pub(super) static QWEN2: Family = Family { model_types: &["qwen2"], read: read_qwen2, names: &[], norm_offset: 0.0 };

/// Qwen3.
pub(super) static QWEN3: Family = Family { model_types: &["qwen3"], read: read_qwen3, names: &[], norm_offset: 0.0 };

/// Qwen3-MoE.
pub(super) static QWEN3_MOE: Family =
    Family { model_types: &["qwen3_moe"], read: read_qwen3_moe, names: &[], norm_offset: 0.0 };

fn read_qwen2(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let plain = Plain {
        family: "Qwen2",
        base: 10000.0,
        eps: 1e-6,
        context: 32768,
        kv_heads: Some(32),
        qkv_bias: true,
        output_bias: false,
    };
    let windows = windows(config)?;
    let ffn = Ffn::Dense(dense(config, false)?);
    plain.read(config, |l| Ok(windows[l]), |_| Ok(ffn.clone()))
}

fn read_qwen3(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let windows = windows(config)?;
    let ffn = Ffn::Dense(dense(config, false)?);
    // The reference's default of this size is not the share of a head, and null breaks it.
    if config.opt_size("head_dim")?.is_none() {
        return Err(SpecError::Missing { key: config.key("head_dim") });
    }
    let spec = qwen3_plain(config, "Qwen3", 32)?.read(config, |l| Ok(windows[l]), |_| Ok(ffn.clone()))?;
    Ok(with_head_norms(spec))
}

fn read_qwen3_moe(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let n_layers = layers(config)?;
    // Unlike the dense models, every layer slides where the window is switched on.
    let window = config.opt_size("sliding_window")?;
    let window = if config.bool_or("use_sliding_window", false)? { window } else { None };
    config.opt_count("max_window_layers")?;
    if let Some(types) = layer_types(config, n_layers)?
        && types.iter().any(|&sliding| sliding != window.is_some())
    {
        return Err(config.unsupported("layer_types", "all layers of this family are alike"));
    }
    let dense = dense(config, false)?;
    let experts = match config.opt_size("num_experts")? {
        Some(n) => n,
        None => config.size_or("num_local_experts", 128)?,
    };
    super::agrees(config, "num_local_experts", experts)?;
    let moe = MoeSpec {
        experts,
        used: config.size_or("num_experts_per_tok", 8)?,
        expert: DenseSpec { width: config.size("moe_intermediate_size")?, ..dense },
        shared: None,
        router: RouterSpec::softmax(config.bool_or("norm_topk_prob", false)?),
    };
    let (step, dense_layers) = (config.size_or("decoder_sparse_step", 1)?, config.counts("mlp_only_layers")?);
    if dense_layers.len() > n_layers {
        let found = format!("a list of {}", dense_layers.len());
        return Err(config.range("mlp_only_layers", found, format!("at most the {n_layers} layers")));
    }
    let sparse = |l: usize| !dense_layers.contains(&l) && (l + 1).is_multiple_of(step);
    let ffn = |l| Ok(if sparse(l) { Ffn::Moe(moe.clone()) } else { Ffn::Dense(dense) });
    let spec = qwen3_plain(config, "Qwen3-MoE", 4)?.read(config, |_| Ok(window), ffn)?;
    Ok(with_head_norms(spec))
}

fn qwen3_plain(config: &HfConfig, family: &'static str, kv_heads: usize) -> Result<Plain, SpecError> {
    let bias = config.bool_or("attention_bias", false)?;
    Ok(Plain {
        family,
        base: 10000.0,
        eps: 1e-6,
        context: 32768,
        kv_heads: Some(kv_heads),
        qkv_bias: bias,
        output_bias: bias,
    })
}

/// Queries and keys are normed head by head, with the epsilon of the other norms.
fn with_head_norms(mut spec: ModelSpec) -> ModelSpec {
    for block in &mut spec.blocks {
        if let Attention::Gqa(gqa) = &mut block.attention {
            gqa.qk_norm_eps = Some(block.norm_eps);
        }
    }
    spec
}

/// Each layer's window: where switched on, layers from `max_window_layers` on slide, or those listed.
fn windows(config: &HfConfig) -> Result<Vec<Option<usize>>, SpecError> {
    let n_layers = layers(config)?;
    let on = config.bool_or("use_sliding_window", false)?;
    let width = config.size_or("sliding_window", 4096);
    let width =
        if config.get("sliding_window").is_none() && config.has("sliding_window") { None } else { Some(width?) };
    let first = config.count_or("max_window_layers", 28)?;
    let types = layer_types(config, n_layers)?;
    let slides = |l: usize| types.as_ref().map_or(l >= first, |t| t[l]);
    if !on && types.as_ref().is_some_and(|t| t.contains(&true)) {
        return Err(config.unsupported("layer_types", "layers slide although use_sliding_window is false"));
    }
    if on && width.is_none() && types.as_ref().is_some_and(|t| t.contains(&true)) {
        return Err(SpecError::Missing { key: config.key("sliding_window") });
    }
    Ok((0..n_layers).map(|l| width.filter(|_| on && slides(l))).collect())
}
