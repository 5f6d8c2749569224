//! Llama 2 and 3, Mistral (Magistral too), Mixtral: the plain grouped-query transformer.

use kernels::ops::RopeLayout;

use super::{Family, Source, activation, layer_types, layers, rope};
use crate::config::{HfConfig, SpecError};
use crate::parameters::Part;
use crate::spec::{
    Attention, BlockSpec, DenseSpec, Ffn, GqaSpec, HeadSpec, ModelSpec, MoeSpec, NormPlacement, RouterSpec,
};

/// Llama 2, 3, 3.1 and 3.2 (text).
pub(super) static LLAMA: Family = Family { model_types: &["llama"], read: read_llama, names: &[], norm_offset: 0.0 };

/// Mistral, Mistral Nemo, Mistral Small, Magistral.
pub(super) static MISTRAL: Family =
    Family { model_types: &["mistral"], read: read_mistral, names: &[], norm_offset: 0.0 };

/// Mixtral.
pub(super) static MIXTRAL: Family =
    Family { model_types: &["mixtral"], read: read_mixtral, names: MIXTRAL_NAMES, norm_offset: 0.0 };

const MIXTRAL_NAMES: &[(Part, Source)] = {
    use Part::*;
    use Source::Tensor;
    &[
        (Router, Tensor("model.layers.{l}.block_sparse_moe.gate.weight")),
        (ExpertGate, Tensor("model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight")),
        (ExpertUp, Tensor("model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight")),
        (ExpertDown, Tensor("model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight")),
    ]
};

fn read_llama(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let bias = config.bool_or("attention_bias", false)?;
    let plain = Plain {
        family: "Llama",
        base: 10000.0,
        eps: 1e-6,
        context: 2048,
        kv_heads: None,
        qkv_bias: bias,
        output_bias: bias,
    };
    let ffn = Ffn::Dense(dense(config, config.bool_or("mlp_bias", false)?)?);
    plain.read(config, |_| Ok(None), |_| Ok(ffn.clone()))
}

fn read_mistral(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    // The reference's default where the key is absent; null means none.
    let window = if config.has("sliding_window") { config.opt_size("sliding_window")? } else { Some(4096) };
    let ffn = Ffn::Dense(dense(config, false)?);
    if layer_types(config, layers(config)?)?.is_some_and(|types| types.iter().any(|&slides| slides != window.is_some()))
    {
        return Err(config.unsupported("layer_types", "all layers of this family are alike"));
    }
    let plain = Plain {
        family: "Mistral",
        base: 10000.0,
        eps: 1e-6,
        context: 131_072,
        kv_heads: Some(8),
        qkv_bias: false,
        output_bias: false,
    };
    plain.read(config, |_| Ok(window), |_| Ok(ffn.clone()))
}

fn read_mixtral(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let window = config.opt_size("sliding_window")?;
    let moe = Ffn::Moe(MoeSpec {
        experts: config.size_or("num_local_experts", 8)?,
        used: config.size_or("num_experts_per_tok", 2)?,
        expert: dense(config, false)?,
        shared: None,
        router: RouterSpec::softmax(true),
    });
    let plain = Plain {
        family: "Mixtral",
        base: 1e6,
        eps: 1e-5,
        context: 131_072,
        kv_heads: Some(8),
        qkv_bias: false,
        output_bias: false,
    };
    plain.read(config, |_| Ok(window), |_| Ok(moe.clone()))
}

/// The gated network of `intermediate_size`.
pub(super) fn dense(config: &HfConfig, bias: bool) -> Result<DenseSpec, SpecError> {
    Ok(DenseSpec { width: config.size("intermediate_size")?, activation: activation(config, "hidden_act")?, bias })
}

/// What differs among the plain families.
pub(super) struct Plain {
    pub(super) family: &'static str,
    /// Rotary base where none is given.
    pub(super) base: f32,
    /// Norm epsilon where none is given.
    pub(super) eps: f32,
    /// Context where none is given.
    pub(super) context: usize,
    /// Key heads where the key is absent; none: as many as query heads.
    pub(super) kv_heads: Option<usize>,
    pub(super) qkv_bias: bool,
    pub(super) output_bias: bool,
}

impl Plain {
    /// The whole model; `window` and `ffn` say what differs from layer to layer.
    pub(super) fn read(
        &self,
        config: &HfConfig,
        window: impl Fn(usize) -> Result<Option<usize>, SpecError>,
        ffn: impl Fn(usize) -> Result<Ffn, SpecError>,
    ) -> Result<ModelSpec, SpecError> {
        let context = config.size_or("max_position_embeddings", self.context)?;
        let eps = config.positive_or("rms_norm_eps", self.eps)?;
        let gqa = self.attention(config, context)?;
        let block = |l: usize| {
            Ok(BlockSpec {
                attention: Attention::Gqa(GqaSpec { window: window(l)?, ..gqa.clone() }),
                ffn: ffn(l)?,
                norms: NormPlacement::Pre,
                norm_eps: eps,
            })
        };
        Ok(ModelSpec {
            family: self.family,
            hidden: config.size("hidden_size")?,
            vocab: config.size("vocab_size")?,
            context,
            embedding_scale: None,
            blocks: (0..layers(config)?).map(block).collect::<Result<_, SpecError>>()?,
            final_norm_eps: eps,
            head: HeadSpec { tied: config.bool_or("tie_word_embeddings", false)?, softcap: None },
            mtp: Vec::new(),
        })
    }

    fn attention(&self, config: &HfConfig, context: usize) -> Result<GqaSpec, SpecError> {
        let (hidden, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
        let head_dim = head_dim(config, hidden, heads)?;
        Ok(GqaSpec {
            heads,
            kv_heads: kv_heads(config, heads, self.kv_heads)?,
            head_dim,
            qkv_bias: self.qkv_bias,
            output_bias: self.output_bias,
            qk_norm_eps: None,
            rope: rope(config, head_dim, RopeLayout::Half, self.base, context)?,
            scale: (head_dim as f32).powf(-0.5),
            window: None,
            sinks: false,
        })
    }
}

/// The size of a head: given, or the share of the hidden size.
pub(super) fn head_dim(config: &HfConfig, hidden: usize, heads: usize) -> Result<usize, SpecError> {
    match config.opt_size("head_dim")? {
        Some(dim) => Ok(dim),
        None if hidden.is_multiple_of(heads) => Ok(hidden / heads),
        None => Err(config.range("num_attention_heads", heads, format!("a divisor of hidden_size {hidden}"))),
    }
}

/// The number of key heads. Null means one for each query head, as in the first models; what an
/// absent key means differs from family to family.
pub(super) fn kv_heads(config: &HfConfig, heads: usize, absent: Option<usize>) -> Result<usize, SpecError> {
    let default = if config.has("num_key_value_heads") { heads } else { absent.unwrap_or(heads) };
    config.size_or("num_key_value_heads", default)
}
