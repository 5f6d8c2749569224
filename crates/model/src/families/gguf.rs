//! Every family in GGUF: one reader of metadata and one table of names.
//!
//! GGUF says some things by the presence of a tensor (a tied head has no `output`, biases are there
//! or not) and leaves some to the reading engine; what is left open here follows llama.cpp, whose
//! files these are. Keys under `fathom.` are our converter's own: they say what the format cannot.

use kernels::ops::{Activation, RopeLayout};

use super::Source;
use crate::checkpoint::{FromItem, Metadata, Tensors};
use crate::config::{SpecError, clip};
use crate::parameters::Part;
use crate::rope::yarn_magnitude;
use crate::spec::{
    Attention, BlockSpec, DenseSpec, Ffn, GqaSpec, GroupLimit, GroupScore, HeadSpec, IndexerSpec, MlaSpec, ModelSpec,
    MoeSpec, NormPlacement, RopeScaling, RopeSpec, RouterSpec, Score,
};

/// Tensor names of every architecture. Where a part has several, the first that is there counts.
pub const NAMES: &[(Part, Source)] = {
    use Part::*;
    use Source::*;
    &[
        (Embedding, Tensor("token_embd.weight")),
        (FinalNorm, Tensor("output_norm.weight")),
        (Head, Tensor("output.weight")),
        (AttentionNorm, Tensor("blk.{l}.attn_norm.weight")),
        (PostAttentionNorm, Tensor("blk.{l}.post_attention_norm.weight")),
        (FfnNorm, Tensor("blk.{l}.ffn_norm.weight")),
        (FfnNorm, Tensor("blk.{l}.post_attention_norm.weight")),
        (PostFfnNorm, Tensor("blk.{l}.post_ffw_norm.weight")),
        (Query, Tensor("blk.{l}.attn_q.weight")),
        (Query, QkvPart("blk.{l}.attn_qkv.weight", 0)),
        (QueryBias, Tensor("blk.{l}.attn_q.bias")),
        (QueryBias, QkvPart("blk.{l}.attn_qkv.bias", 0)),
        (Key, Tensor("blk.{l}.attn_k.weight")),
        (Key, QkvPart("blk.{l}.attn_qkv.weight", 1)),
        (KeyBias, Tensor("blk.{l}.attn_k.bias")),
        (KeyBias, QkvPart("blk.{l}.attn_qkv.bias", 1)),
        (Value, Tensor("blk.{l}.attn_v.weight")),
        (Value, QkvPart("blk.{l}.attn_qkv.weight", 2)),
        (ValueBias, Tensor("blk.{l}.attn_v.bias")),
        (ValueBias, QkvPart("blk.{l}.attn_qkv.bias", 2)),
        (QueryNorm, Tensor("blk.{l}.attn_q_norm.weight")),
        (QueryNorm, Tensor("blk.{l}.attn_q_a_norm.weight")),
        (KeyNorm, Tensor("blk.{l}.attn_k_norm.weight")),
        (Part::Sinks, Tensor("blk.{l}.attn_sinks.weight")),
        (QueryDown, Tensor("blk.{l}.attn_q_a.weight")),
        (QueryDownBias, Tensor("blk.{l}.attn_q_a.bias")),
        (QueryUp, Tensor("blk.{l}.attn_q_b.weight")),
        (KvDown, Tensor("blk.{l}.attn_kv_a_mqa.weight")),
        (KvDownBias, Tensor("blk.{l}.attn_kv_a_mqa.bias")),
        (KvNorm, Tensor("blk.{l}.attn_kv_a_norm.weight")),
        (KvUp, KvUpSplit("blk.{l}.attn_k_b.weight", "blk.{l}.attn_v_b.weight")),
        (KvUp, Tensor("blk.{l}.attn_kv_b.weight")),
        (AttentionOutput, Tensor("blk.{l}.attn_output.weight")),
        (AttentionOutputBias, Tensor("blk.{l}.attn_output.bias")),
        (IndexQuery, Tensor("blk.{l}.indexer.attn_q_b.weight")),
        (IndexKey, Tensor("blk.{l}.indexer.attn_k.weight")),
        (IndexKeyNorm, Tensor("blk.{l}.indexer.k_norm.weight")),
        (IndexKeyNormBias, Tensor("blk.{l}.indexer.k_norm.bias")),
        (IndexWeights, Tensor("blk.{l}.indexer.proj.weight")),
        (Gate, Tensor("blk.{l}.ffn_gate.weight")),
        (GateBias, Tensor("blk.{l}.ffn_gate.bias")),
        (Up, Tensor("blk.{l}.ffn_up.weight")),
        (UpBias, Tensor("blk.{l}.ffn_up.bias")),
        (Down, Tensor("blk.{l}.ffn_down.weight")),
        (DownBias, Tensor("blk.{l}.ffn_down.bias")),
        (Router, Tensor("blk.{l}.ffn_gate_inp.weight")),
        (RouterBias, Tensor("blk.{l}.ffn_gate_inp.bias")),
        (RouterCorrection, Tensor("blk.{l}.exp_probs_b.bias")),
        (ExpertGate, Stacked("blk.{l}.ffn_gate_exps.weight")),
        (ExpertGate, StackedGateUp("blk.{l}.ffn_gate_up_exps.weight", 0)),
        (ExpertGate, Tensor("blk.{l}.ffn_gate.{e}.weight")),
        (ExpertGateBias, Stacked("blk.{l}.ffn_gate_exps.bias")),
        (ExpertUp, Stacked("blk.{l}.ffn_up_exps.weight")),
        (ExpertUp, StackedGateUp("blk.{l}.ffn_gate_up_exps.weight", 1)),
        (ExpertUp, Tensor("blk.{l}.ffn_up.{e}.weight")),
        (ExpertUpBias, Stacked("blk.{l}.ffn_up_exps.bias")),
        (ExpertDown, Stacked("blk.{l}.ffn_down_exps.weight")),
        (ExpertDown, Tensor("blk.{l}.ffn_down.{e}.weight")),
        (ExpertDownBias, Stacked("blk.{l}.ffn_down_exps.bias")),
        (SharedGate, Tensor("blk.{l}.ffn_gate_shexp.weight")),
        (SharedGateBias, Tensor("blk.{l}.ffn_gate_shexp.bias")),
        (SharedUp, Tensor("blk.{l}.ffn_up_shexp.weight")),
        (SharedUpBias, Tensor("blk.{l}.ffn_up_shexp.bias")),
        (SharedDown, Tensor("blk.{l}.ffn_down_shexp.weight")),
        (SharedDownBias, Tensor("blk.{l}.ffn_down_shexp.bias")),
        (MtpEmbeddingNorm, Tensor("blk.{l}.nextn.enorm.weight")),
        (MtpHiddenNorm, Tensor("blk.{l}.nextn.hnorm.weight")),
        (MtpProjection, Tensor("blk.{l}.nextn.eh_proj.weight")),
        (MtpHeadNorm, Tensor("blk.{l}.nextn.shared_head_norm.weight")),
    ]
};

/// The architectures that are read.
pub const ARCHITECTURES: &[&str] =
    &["llama", "qwen2", "qwen3", "qwen3moe", "deepseek2", "deepseek32", "gemma3", "gpt-oss"];

/// YaRN's ramp where the metadata does not say.
const BETAS: (f32, f32) = (32.0, 1.0);

/// The description of the model in GGUF metadata.
///
/// # Errors
/// If the architecture is unknown, a key is missing, or sizes make no sense.
pub fn read_gguf(metadata: &Metadata, tensors: &Tensors) -> Result<ModelSpec, SpecError> {
    let arch = metadata.string("general.architecture")?;
    if !ARCHITECTURES.contains(&arch) {
        let (key, known) = ("general.architecture".to_string(), ARCHITECTURES.join(", "));
        return Err(SpecError::Architecture { key, found: clip(arch), known });
    }
    let gguf = Gguf { metadata, tensors, arch };
    let spec = match arch {
        "deepseek2" | "deepseek32" => gguf.latent()?,
        _ => gguf.grouped()?,
    };
    super::check(&spec)?;
    Ok(spec)
}

/// The largest sizes that are taken for a model's and not for damage.
const SIZE_MAX: usize = 1 << 24;

struct Gguf<'a> {
    metadata: &'a Metadata,
    tensors: &'a Tensors,
    arch: &'a str,
}

impl<'a> Gguf<'a> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn find<T: FromItem<'a>>(&self, key: &str) -> Result<Option<T>, SpecError> {
        Ok(self.metadata.find(&self.key(key))?)
    }

    /// A size that must be there; at least one and below any that a model could have.
    fn size(&self, key: &str) -> Result<usize, SpecError> {
        let value: u32 = self.metadata.need(&self.key(key))?;
        self.bounded(key, value)
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize, SpecError> {
        self.find(key)?.map_or(Ok(default), |value: u32| self.bounded(key, value))
    }

    /// A size where zero and absent mean none.
    fn opt_size(&self, key: &str) -> Result<Option<usize>, SpecError> {
        let value = self.find::<u32>(key)?.filter(|&v| v != 0);
        value.map(|v| self.bounded(key, v)).transpose()
    }

    fn bounded(&self, key: &str, value: u32) -> Result<usize, SpecError> {
        match value as usize {
            size @ 1..=SIZE_MAX => Ok(size),
            size => Err(super::range(self.key(key), size, format!("between 1 and {SIZE_MAX}"))),
        }
    }

    /// A number that is the same for all layers or listed for each.
    fn per_layer(&self, key: &str, layers: usize) -> Result<Vec<usize>, SpecError> {
        let full = self.key(key);
        if let Ok(Some(list)) = self.metadata.find_list::<u32>(&full) {
            if list.len() < layers {
                return Err(super::range(full, format!("a list of {}", list.len()), format!("{layers} layers")));
            }
            return list.into_iter().take(layers).map(|v| self.bounded(key, v)).collect();
        }
        Ok(vec![self.size(key)?; layers])
    }

    fn has(&self, layer: usize, name: &str) -> bool {
        self.tensors.contains(&format!("blk.{layer}.{name}"))
    }

    /// Layers, and multi-token prediction modules after them.
    fn layers(&self) -> Result<(usize, usize), SpecError> {
        let all = self.size("block_count")?;
        let mtp = self.find::<u32>("nextn_predict_layers")?.unwrap_or(0) as usize;
        if all > 4096 || mtp >= all {
            return Err(super::range(self.key("block_count"), all, "at most 4096, and more than nextn_predict_layers"));
        }
        Ok((all - mtp, mtp))
    }

    fn vocab(&self) -> Result<usize, SpecError> {
        let embedding = self.tensors.get("token_embd.weight");
        let shape = embedding.map(|t| t.shape.as_slice());
        match shape {
            // The other side is checked against the hidden size when the tensor is loaded.
            Some(&[vocab @ 1..=SIZE_MAX, _]) => Ok(vocab),
            Some(other) => {
                let limit = format!("a matrix of 1 to {SIZE_MAX} rows");
                Err(super::range("token_embd.weight", format!("of shape {other:?}"), limit))
            }
            None => Err(SpecError::Missing { key: "token_embd.weight".into() }),
        }
    }

    fn eps(&self) -> Result<f32, SpecError> {
        Ok(self.metadata.need(&self.key("attention.layer_norm_rms_epsilon"))?)
    }

    fn head(&self) -> Result<HeadSpec, SpecError> {
        let softcap = self.find::<f32>("final_logit_softcapping")?.filter(|&v| v != 0.0);
        Ok(HeadSpec { tied: !self.tensors.contains("output.weight"), softcap })
    }

    /// Grouped-query models: all but DeepSeek's.
    fn grouped(&self) -> Result<ModelSpec, SpecError> {
        let (n, _) = self.layers()?;
        let hidden = self.size("embedding_length")?;
        let eps = self.eps()?;
        let (gemma, gpt_oss) = (self.arch == "gemma3", self.arch == "gpt-oss");
        let widths = self.per_layer("feed_forward_length", n)?;
        let context = self.size_or("context_length", 4096)?;
        let gqa = self.gqa(n, hidden, eps, context)?;
        let sliding = self.sliding(n)?;
        let local = self.local_rope(&gqa.rope)?;
        let moe = if self.opt_size("expert_count")?.is_some() { Some(self.moe()?) } else { None };
        let activation = if gemma { Activation::GeluTanh } else { Activation::Silu };
        let block = |l: usize| BlockSpec {
            attention: Attention::Gqa(match sliding[l] {
                None => gqa.clone(),
                window => GqaSpec { window, rope: local.clone(), ..gqa.clone() },
            }),
            ffn: match &moe {
                Some(moe) if self.has(l, "ffn_gate_inp.weight") => Ffn::Moe(moe.clone()),
                _ => Ffn::Dense(DenseSpec { width: widths[l], activation, bias: self.has(l, "ffn_gate.bias") }),
            },
            norms: if gemma { NormPlacement::Sandwich } else { NormPlacement::Pre },
            norm_eps: eps,
        };
        Ok(ModelSpec {
            family: match self.arch {
                "qwen2" => "Qwen2",
                "qwen3" => "Qwen3",
                "qwen3moe" => "Qwen3-MoE",
                "gemma3" => "Gemma 3",
                "gpt-oss" => "gpt-oss",
                _ => "Llama",
            },
            hidden,
            vocab: self.vocab()?,
            context,
            embedding_scale: gemma.then(|| (hidden as f32).sqrt()),
            blocks: (0..n).map(block).collect(),
            final_norm_eps: eps,
            head: self.head()?,
            mtp: if gpt_oss || gemma { Vec::new() } else { self.no_mtp()? },
        })
    }

    fn no_mtp(&self) -> Result<Vec<BlockSpec>, SpecError> {
        match self.layers()? {
            (_, 0) => Ok(Vec::new()),
            (_, n) => Err(super::range(self.key("nextn_predict_layers"), n, "0 for this architecture")),
        }
    }

    fn gqa(&self, n: usize, hidden: usize, eps: f32, context: usize) -> Result<GqaSpec, SpecError> {
        let heads = self.size("attention.head_count")?;
        let head_dim = match self.opt_size("attention.key_length")? {
            Some(dim) => dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(super::range(self.key("attention.head_count"), heads, format!("a divisor of {hidden}")));
            }
        };
        let value_dim = self.size_or("attention.value_length", head_dim)?;
        if value_dim != head_dim {
            return Err(super::range(self.key("attention.value_length"), value_dim, format!("the key's {head_dim}")));
        }
        let layout = if self.arch == "llama" { RopeLayout::Interleaved } else { RopeLayout::Half };
        // llama.cpp knows the 27B model, whose scale is the share of a head of the hidden size, by
        // its number of layers: the format has no key for it.
        let scaled_dim = if self.arch == "gemma3" && n == 62 { hidden / heads } else { head_dim };
        let dim = self.size_or("rope.dimension_count", head_dim)?;
        if dim > head_dim {
            return Err(super::range(self.key("rope.dimension_count"), dim, format!("at most the head's {head_dim}")));
        }
        Ok(GqaSpec {
            heads,
            kv_heads: self.size_or("attention.head_count_kv", heads)?,
            head_dim,
            qkv_bias: self.has(0, "attn_q.bias") || self.has(0, "attn_qkv.bias"),
            output_bias: self.has(0, "attn_output.bias"),
            qk_norm_eps: self.has(0, "attn_q_norm.weight").then_some(eps),
            rope: self.rope(dim, layout, context)?,
            scale: (scaled_dim as f32).powf(-0.5),
            window: None,
            sinks: self.has(0, "attn_sinks.weight"),
        })
    }

    /// Each layer's window.
    fn sliding(&self, n: usize) -> Result<Vec<Option<usize>>, SpecError> {
        let Some(window) = self.opt_size("attention.sliding_window")? else { return Ok(vec![None; n]) };
        let key = self.key("attention.sliding_window_pattern");
        if let Ok(Some(list)) = self.metadata.find_list::<bool>(&key) {
            if list.len() < n {
                return Err(super::range(key, format!("a list of {}", list.len()), format!("{n} layers")));
            }
            return Ok(list.into_iter().take(n).map(|slides| slides.then_some(window)).collect());
        }
        // Layer l slides unless it closes a period.
        let period = match (self.opt_size("attention.sliding_window_pattern")?, self.arch) {
            (Some(period), _) => Some(period),
            (None, "gemma3") => Some(6),
            (None, "gpt-oss") => Some(2),
            (None, _) => None,
        };
        Ok((0..n).map(|l| Some(window).filter(|_| period.is_none_or(|p| l % p < p - 1))).collect())
    }

    /// The rotary embedding of sliding layers: Gemma's have a base of their own and are not scaled.
    fn local_rope(&self, full: &RopeSpec) -> Result<RopeSpec, SpecError> {
        if self.arch != "gemma3" {
            return Ok(full.clone());
        }
        let base = self.find("rope.freq_base_swa")?.unwrap_or(10000.0);
        Ok(RopeSpec { base, scaling: RopeScaling::None, ..full.clone() })
    }

    fn rope(&self, dim: usize, layout: RopeLayout, context: usize) -> Result<RopeSpec, SpecError> {
        // Before the divisors are read: every layer has them.
        super::check::head(&self.key("rope.dimension_count"), dim)?;
        let base = self.find("rope.freq_base")?.unwrap_or(10000.0);
        if let Some(divisors) = self.tensors.get("rope_freqs.weight") {
            let values = crate::load::vector(divisors).filter(|v| v.len() == dim / 2);
            let values = values.ok_or_else(|| {
                super::range("rope_freqs.weight", format!("{:?}", divisors.shape), format!("{} numbers", dim / 2))
            })?;
            return Ok(RopeSpec { dim, layout, base, scaling: RopeScaling::Divisors(values) });
        }
        Ok(RopeSpec { dim, layout, base, scaling: self.scaling(context)?.0 })
    }

    /// The change of rotary frequencies, with cosine and sine scaled as plain models have it; and
    /// YaRN's own factor, by which latent attention reckons.
    fn scaling(&self, context: usize) -> Result<(RopeScaling, f32), SpecError> {
        let kind: &str = self.find("rope.scaling.type")?.unwrap_or("linear");
        let factor = match self.find::<f32>("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.find::<f32>("rope.scale_linear")?.unwrap_or(0.0),
        };
        let attn_factor = self.find::<f32>("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let scaling = match kind {
            "none" => RopeScaling::None,
            "linear" if factor == 0.0 || factor == 1.0 => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor },
            "yarn" => RopeScaling::Yarn {
                factor,
                original: self.size_or("rope.scaling.original_context_length", context)? as f32,
                beta_fast: self.find("rope.scaling.yarn_beta_fast")?.unwrap_or(BETAS.0),
                beta_slow: self.find("rope.scaling.yarn_beta_slow")?.unwrap_or(BETAS.1),
                truncate: self.metadata.find("fathom.rope.yarn_truncate")?.unwrap_or(self.arch != "gpt-oss"),
                magnitude: yarn_magnitude(factor, 1.0) * attn_factor,
            },
            other => {
                let (value, why) = (clip(other), "known are none, linear and yarn".to_string());
                return Err(SpecError::Unsupported { key: self.key("rope.scaling.type"), value, why });
            }
        };
        if !(factor.is_finite() && factor >= 0.0) || (kind == "yarn" && factor == 0.0) {
            return Err(super::range(self.key("rope.scaling.factor"), factor, "a number above 0"));
        }
        Ok((scaling, attn_factor))
    }

    /// Experts of the grouped-query models.
    fn moe(&self) -> Result<MoeSpec, SpecError> {
        let gpt_oss = self.arch == "gpt-oss";
        let width = match self.opt_size("expert_feed_forward_length")? {
            Some(width) => width,
            None => self.size("feed_forward_length")?,
        };
        let activation = if gpt_oss {
            Activation::ClampedSwiglu {
                alpha: self.metadata.find("fathom.swiglu_alpha")?.unwrap_or(1.702),
                limit: self.metadata.find("fathom.swiglu_limit")?.unwrap_or(7.0),
            }
        } else {
            Activation::Silu
        };
        Ok(MoeSpec {
            experts: self.size("expert_count")?,
            used: self.size("expert_used_count")?,
            expert: DenseSpec { width, activation, bias: gpt_oss },
            shared: None,
            router: RouterSpec {
                score: if gpt_oss { Score::SoftmaxOfChosen } else { Score::Softmax },
                groups: None,
                correction_bias: false,
                bias: gpt_oss,
                normalise: !gpt_oss && self.find("expert_weights_norm")?.unwrap_or(true),
                scale: 1.0,
            },
        })
    }

    /// DeepSeek V2, V3 and V3.2.
    fn latent(&self) -> Result<ModelSpec, SpecError> {
        let (n, mtp) = self.layers()?;
        let hidden = self.size("embedding_length")?;
        let eps = self.eps()?;
        let context = self.size_or("context_length", 4096)?;
        // The router's presence says which layers have experts, as `leading_dense_block_count` does for
        // the patterns that it can express.
        self.find::<u32>("leading_dense_block_count")?;
        let sparse = |l: usize| self.has(l, "ffn_gate_inp.weight");
        let mla = self.mla(context, eps)?;
        let bias = self.has(0, "ffn_gate.bias");
        let dense =
            DenseSpec { width: self.per_layer("feed_forward_length", n)?[0], activation: Activation::Silu, bias };
        let moe = (0..n + mtp).find(|&l| sparse(l)).map(|l| self.deepseek_moe(l)).transpose()?;
        let block = |l: usize| BlockSpec {
            attention: Attention::Mla(mla.clone()),
            ffn: match &moe {
                Some(moe) if sparse(l) => Ffn::Moe(moe.clone()),
                _ => Ffn::Dense(dense),
            },
            norms: NormPlacement::Pre,
            norm_eps: eps,
        };
        Ok(ModelSpec {
            family: if self.arch == "deepseek32" { "DeepSeek-V3.2" } else { "DeepSeek-V2/V3" },
            hidden,
            vocab: self.vocab()?,
            context,
            embedding_scale: None,
            blocks: (0..n).map(block).collect(),
            final_norm_eps: eps,
            head: self.head()?,
            mtp: (n..n + mtp).map(block).collect(),
        })
    }

    fn mla(&self, context: usize, eps: f32) -> Result<MlaSpec, SpecError> {
        let heads = self.size("attention.head_count")?;
        let rope_dim = self.size("rope.dimension_count")?;
        // Files from before the latent cache give the sizes of the expanded heads here.
        let (key, value) = match self.opt_size("attention.key_length_mla")? {
            Some(key) => (key, self.size("attention.value_length_mla")?),
            None => (self.size("attention.key_length")?, self.size("attention.value_length")?),
        };
        if key <= rope_dim {
            return Err(super::range(
                self.key("attention.key_length_mla"),
                key,
                format!("above the {rope_dim} rotary elements"),
            ));
        }
        let (scaling, scale) = self.latent_scaling(context, key)?;
        let base = self.find("rope.freq_base")?.unwrap_or(10000.0);
        let rope = RopeSpec { dim: rope_dim, layout: RopeLayout::Interleaved, base, scaling };
        let indexer = if self.arch == "deepseek32" {
            let dim = self.size("attention.indexer.key_length")?;
            if dim < rope_dim {
                return Err(super::range(
                    self.key("attention.indexer.key_length"),
                    dim,
                    format!("at least {rope_dim}"),
                ));
            }
            Some(IndexerSpec {
                heads: self.size("attention.indexer.head_count")?,
                dim,
                top_k: self.size("attention.indexer.top_k")?,
                norm_eps: 1e-6,
                rope: RopeSpec { layout: RopeLayout::Half, ..rope.clone() },
            })
        } else {
            None
        };
        Ok(MlaSpec {
            heads,
            q_rank: self.opt_size("attention.q_lora_rank")?,
            kv_rank: self.size("attention.kv_lora_rank")?,
            nope_dim: key - rope_dim,
            rope_dim,
            v_dim: value,
            bias: self.has(0, "attn_kv_a_mqa.bias"),
            latent_norm_eps: self.metadata.find("fathom.latent_norm_epsilon")?.unwrap_or(eps),
            rope,
            scale,
            indexer,
        })
    }

    /// YaRN as llama.cpp reads it for these architectures: with `m = yarn_log_multiplier / 0.1`, the
    /// softmax is scaled by `(a (1 + 0.1 m ln s))^2` and cosine and sine by `a`.
    fn latent_scaling(&self, context: usize, key_dim: usize) -> Result<(RopeScaling, f32), SpecError> {
        let plain = (key_dim as f32).powf(-0.5);
        let (mut scaling, attn_factor) = self.scaling(context)?;
        let RopeScaling::Yarn { factor, magnitude, .. } = &mut scaling else { return Ok((scaling, plain)) };
        let m = self.find::<f32>("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0) / 0.1;
        // Written out: a correction below one is possible here.
        let correction = |m: f32| 1.0 + 0.1 * m * factor.ln();
        let temperature = if m == 0.0 {
            *magnitude
        } else if self.arch == "deepseek32" {
            *magnitude = correction(1.0) / correction(m) * attn_factor;
            *magnitude * correction(m)
        } else {
            *magnitude = attn_factor;
            attn_factor * correction(m)
        };
        Ok((scaling, plain * temperature * temperature))
    }

    /// The experts, as they are in layer `first`.
    fn deepseek_moe(&self, first: usize) -> Result<MoeSpec, SpecError> {
        let width = self.size("expert_feed_forward_length")?;
        let expert = DenseSpec { width, activation: Activation::Silu, bias: false };
        let shared = self.opt_size("expert_shared_count")?;
        let bias = self.has(first, "ffn_gate_shexp.bias");
        let score = match self.find::<u32>("expert_gating_func")? {
            None | Some(1) => Score::Softmax,
            Some(2) => Score::Sigmoid,
            Some(other) => {
                return Err(super::range(self.key("expert_gating_func"), other, "1 (softmax) or 2 (sigmoid)"));
            }
        };
        let groups = match (self.opt_size("expert_group_count")?, self.opt_size("expert_group_used_count")?) {
            (Some(groups), Some(used)) if used < groups => {
                let score = if score == Score::Softmax { GroupScore::Max } else { GroupScore::TopTwo };
                Some(GroupLimit { groups, used, score })
            }
            _ => None,
        };
        Ok(MoeSpec {
            experts: self.size("expert_count")?,
            used: self.size("expert_used_count")?,
            expert,
            shared: shared.map(|n| DenseSpec { width: width * n, bias, ..expert }),
            router: RouterSpec {
                score,
                groups,
                correction_bias: self.has(first, "exp_probs_b.bias"),
                bias: false,
                normalise: self.find("expert_weights_norm")?.unwrap_or(false),
                scale: self.find::<f32>("expert_weights_scale")?.filter(|&s| s != 0.0).unwrap_or(1.0),
            },
        })
    }
}
