//! Gemma 3: norms before and after, norms of queries and keys, sliding and full layers in turn.

use kernels::ops::RopeLayout;

use super::{Family, Source, activation, layer_types, layers, rope_from, whole_rotation};
use crate::config::{HfConfig, SpecError};
use crate::parameters::Part;
use crate::spec::{
    Attention, BlockSpec, DenseSpec, Ffn, GqaSpec, HeadSpec, ModelSpec, NormPlacement, RopeScaling, RopeSpec,
};
use kernels::ops::Activation;

/// Gemma 3 (the language model; images are not read).
pub(super) static GEMMA3: Family =
    Family { model_types: &["gemma3_text", "gemma3"], read, names: NAMES, norm_offset: 1.0 };

const NAMES: &[(Part, Source)] = {
    use Part::*;
    use Source::Tensor;
    &[
        (PostAttentionNorm, Tensor("model.layers.{l}.post_attention_layernorm.weight")),
        (FfnNorm, Tensor("model.layers.{l}.pre_feedforward_layernorm.weight")),
        (PostFfnNorm, Tensor("model.layers.{l}.post_feedforward_layernorm.weight")),
    ]
};

fn read(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let hidden = config.size_or("hidden_size", 2304)?;
    let n_layers = if config.has("num_hidden_layers") { layers(config)? } else { 26 };
    let context = config.size_or("max_position_embeddings", 131_072)?;
    let eps = config.positive_or("rms_norm_eps", 1e-6)?;
    if config.bool_or("use_bidirectional_attention", false)? {
        return Err(config.unsupported("use_bidirectional_attention", "only causal models are"));
    }
    // The reference reads this key and does not apply it; a model that sets it was not made for that.
    if config.opt_f32("attn_logit_softcapping")?.is_some() {
        return Err(config.unsupported("attn_logit_softcapping", "Gemma 3's attention has no cap"));
    }
    let head_dim = config.size_or("head_dim", 256)?;
    let bias = config.bool_or("attention_bias", false)?;
    let (full, local) = ropes(config, head_dim, context)?;
    let gqa = GqaSpec {
        heads: config.size_or("num_attention_heads", 8)?,
        kv_heads: config.size_or("num_key_value_heads", 4)?,
        head_dim,
        qkv_bias: bias,
        output_bias: bias,
        qk_norm_eps: Some(eps),
        rope: full,
        scale: config.positive_or("query_pre_attn_scalar", 256.0)?.powf(-0.5),
        window: None,
        sinks: false,
    };
    let window = Some(super::window(config, 4096)?);
    let activation = match config.get("hidden_activation") {
        Some(_) => activation(config, "hidden_activation")?,
        None => Activation::GeluTanh,
    };
    config.opt_str("hidden_act")?;
    let dense = DenseSpec { width: config.size_or("intermediate_size", 9216)?, activation, bias: false };
    let block = |sliding: bool| BlockSpec {
        attention: Attention::Gqa(if sliding {
            GqaSpec { window, rope: local.clone(), ..gqa.clone() }
        } else {
            gqa.clone()
        }),
        ffn: Ffn::Dense(dense),
        norms: NormPlacement::Sandwich,
        norm_eps: eps,
    };
    Ok(ModelSpec {
        family: "Gemma 3",
        hidden,
        vocab: config.size_or("vocab_size", 262_208)?,
        context,
        embedding_scale: Some((hidden as f32).sqrt()),
        blocks: sliding_layers(config, n_layers)?.into_iter().map(block).collect(),
        final_norm_eps: eps,
        head: HeadSpec { tied: config.bool_or("tie_word_embeddings", true)?, softcap: softcap(config)? },
        mtp: Vec::new(),
    })
}

/// The bound of logits.
fn softcap(config: &HfConfig) -> Result<Option<f32>, SpecError> {
    config.opt_f32("final_logit_softcapping")?;
    if config.get("final_logit_softcapping").is_none() {
        return Ok(None);
    }
    config.positive_or("final_logit_softcapping", 1.0).map(Some)
}

/// Which layers slide: listed, or all but every sixth.
fn sliding_layers(config: &HfConfig, n_layers: usize) -> Result<Vec<bool>, SpecError> {
    let pattern = config.size_or("sliding_window_pattern", 6)?;
    let listed = layer_types(config, n_layers)?;
    Ok(listed.unwrap_or_else(|| (0..n_layers).map(|l| !(l + 1).is_multiple_of(pattern)).collect()))
}

/// The rotary embeddings of full and of sliding layers. In the old style only the full ones scale.
fn ropes(config: &HfConfig, dim: usize, context: usize) -> Result<(RopeSpec, RopeSpec), SpecError> {
    let full_base = config.positive_or("rope_theta", 1e6)?;
    let local_base = config.positive_or("rope_local_base_freq", 10000.0)?;
    whole_rotation(config)?;
    let layout = RopeLayout::Half;
    let one = |parameters: Option<HfConfig>, base: f32| match parameters {
        Some(parameters) => rope_from(&parameters, dim, layout, base, context, None),
        None => Ok(RopeSpec { dim, layout, base, scaling: RopeScaling::None }),
    };
    let ropes = match config.object("rope_parameters")? {
        Some(by_type) => {
            let (full, local) = (by_type.object("full_attention")?, by_type.object("sliding_attention")?);
            // The reference passes over settings that stand beside these two.
            by_type.finish()?;
            (one(full, full_base)?, one(local, local_base)?)
        }
        None => {
            let scaling = config.object("rope_scaling")?;
            // The reference of one year scales by the old name of the kind, that of another does not.
            if let Some(scaling) = scaling.as_ref().filter(|s| s.has("type") && !s.has("rope_type")) {
                return Err(scaling.unsupported("type", "the family's files call it rope_type"));
            }
            (one(scaling, full_base)?, one(None, local_base)?)
        }
    };
    if matches!(ropes.0.scaling, RopeScaling::Yarn { truncate: false, .. }) {
        return Err(config.unsupported("rope_scaling", "the reference rounds YaRN's ramp whatever it says"));
    }
    Ok(ropes)
}
