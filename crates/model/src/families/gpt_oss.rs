//! gpt-oss: sinks, biases everywhere, clamped SwiGLU, experts in MXFP4.

use kernels::ops::{Activation, RopeLayout};

use super::{Family, Source, layer_types, layers, rope};
use crate::config::{HfConfig, SpecError};
use crate::families::llama::{head_dim, kv_heads};
use crate::parameters::Part;
use crate::rope::yarn_magnitude;
use crate::spec::{
    Attention, BlockSpec, DenseSpec, Ffn, GqaSpec, HeadSpec, ModelSpec, MoeSpec, NormPlacement, RopeScaling, RopeSpec,
    RouterSpec, Score,
};

/// gpt-oss.
pub(super) static GPT_OSS: Family = Family { model_types: &["gpt_oss"], read, names: NAMES, norm_offset: 0.0 };

const NAMES: &[(Part, Source)] = {
    use Part::*;
    use Source::*;
    &[
        (Part::Sinks, Tensor("model.layers.{l}.self_attn.sinks")),
        (Router, Tensor("model.layers.{l}.mlp.router.weight")),
        (RouterBias, Tensor("model.layers.{l}.mlp.router.bias")),
        (ExpertGate, StackedByInputHalf("model.layers.{l}.mlp.experts.gate_up_proj", 0)),
        (ExpertGateBias, StackedHalf("model.layers.{l}.mlp.experts.gate_up_proj_bias", 0)),
        (ExpertUp, StackedByInputHalf("model.layers.{l}.mlp.experts.gate_up_proj", 1)),
        (ExpertUpBias, StackedHalf("model.layers.{l}.mlp.experts.gate_up_proj_bias", 1)),
        (ExpertDown, StackedByInput("model.layers.{l}.mlp.experts.down_proj")),
        (ExpertDownBias, Stacked("model.layers.{l}.mlp.experts.down_proj_bias")),
    ]
};

fn read(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let hidden = config.size("hidden_size")?;
    let n_layers = layers(config)?;
    let context = config.size_or("max_position_embeddings", 131_072)?;
    let eps = config.positive_or("rms_norm_eps", 1e-5)?;
    let bias = config.bool_or("attention_bias", true)?;
    let heads = config.size("num_attention_heads")?;
    let head_dim = head_dim(config, hidden, heads)?;
    let gqa = GqaSpec {
        heads,
        kv_heads: kv_heads(config, heads, Some(8))?,
        head_dim,
        qkv_bias: bias,
        output_bias: bias,
        qk_norm_eps: None,
        rope: rotary(config, head_dim, context)?,
        scale: (head_dim as f32).powf(-0.5),
        window: None,
        sinks: true,
    };
    let used = config.size_or("num_experts_per_tok", 4)?;
    super::agrees(config, "experts_per_token", used)?;
    if !matches!(config.opt_str("hidden_act")?, None | Some("silu")) {
        return Err(config.unsupported("hidden_act", "the family's experts use their own clamped SwiGLU"));
    }
    let activation = Activation::ClampedSwiglu {
        alpha: config.f32_or("swiglu_alpha", 1.702)?,
        limit: config.positive_or("swiglu_limit", 7.0)?,
    };
    let ffn = Ffn::Moe(MoeSpec {
        experts: config.size("num_local_experts")?,
        used,
        expert: DenseSpec { width: config.size("intermediate_size")?, activation, bias: true },
        shared: None,
        router: RouterSpec {
            score: Score::SoftmaxOfChosen,
            groups: None,
            correction_bias: false,
            bias: true,
            normalise: false,
            scale: 1.0,
        },
    });
    let window = Some(super::window(config, 128)?);
    let sliding = layer_types(config, n_layers)?.unwrap_or_else(|| (0..n_layers).map(|l| l % 2 == 0).collect());
    let block = |sliding: bool| BlockSpec {
        attention: Attention::Gqa(GqaSpec { window: window.filter(|_| sliding), ..gqa.clone() }),
        ffn: ffn.clone(),
        norms: NormPlacement::Pre,
        norm_eps: eps,
    };
    Ok(ModelSpec {
        family: "gpt-oss",
        hidden,
        vocab: config.size("vocab_size")?,
        context,
        embedding_scale: None,
        blocks: sliding.into_iter().map(block).collect(),
        final_norm_eps: eps,
        head: HeadSpec { tied: config.bool_or("tie_word_embeddings", false)?, softcap: None },
        mtp: Vec::new(),
    })
}

/// The family scales its context with YaRN where the configuration says nothing.
fn rotary(config: &HfConfig, dim: usize, context: usize) -> Result<RopeSpec, SpecError> {
    let given = config.get("rope_parameters").is_some() || config.get("rope_scaling").is_some();
    let mut spec = rope(config, dim, RopeLayout::Half, 150_000.0, context)?;
    if !given {
        spec.scaling = RopeScaling::Yarn {
            factor: 32.0,
            original: 4096.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: false,
            magnitude: yarn_magnitude(32.0, 1.0),
        };
    }
    Ok(spec)
}
