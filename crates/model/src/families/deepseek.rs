//! DeepSeek V2, V2-Lite, V3/R1, V3.2, and what is shaped like V3 (Kimi K2, GigaChat 3).

use kernels::ops::RopeLayout;

use super::{Family, Source, activation, agrees, layer_types, layers, rope};
use crate::config::{HfConfig, SpecError};
use crate::parameters::Part;
use crate::rope::yarn_magnitude;
use crate::spec::{
    Attention, BlockSpec, DenseSpec, Ffn, GroupLimit, GroupScore, HeadSpec, IndexerSpec, MlaSpec, ModelSpec, MoeSpec,
    NormPlacement, RopeScaling, RopeSpec, RouterSpec, Score,
};

/// DeepSeek-V2 and V2-Lite.
pub(super) static V2: Family = Family { model_types: &["deepseek_v2"], read: read_v2, names: NAMES, norm_offset: 0.0 };

/// DeepSeek-V3, R1 and their kin.
pub(super) static V3: Family =
    Family { model_types: &["deepseek_v3", "kimi_k2"], read: read_v3, names: NAMES, norm_offset: 0.0 };

/// DeepSeek-V3.2: V3 with the lightning indexer.
pub(super) static V32: Family =
    Family { model_types: &["deepseek_v32"], read: read_v32, names: NAMES, norm_offset: 0.0 };

const NAMES: &[(Part, Source)] = {
    use Part::*;
    use Source::Tensor;
    &[
        (QueryDown, Tensor("model.layers.{l}.self_attn.q_a_proj.weight")),
        (QueryDownBias, Tensor("model.layers.{l}.self_attn.q_a_proj.bias")),
        (QueryNorm, Tensor("model.layers.{l}.self_attn.q_a_layernorm.weight")),
        (QueryUp, Tensor("model.layers.{l}.self_attn.q_b_proj.weight")),
        (KvDown, Tensor("model.layers.{l}.self_attn.kv_a_proj_with_mqa.weight")),
        (KvDownBias, Tensor("model.layers.{l}.self_attn.kv_a_proj_with_mqa.bias")),
        (KvNorm, Tensor("model.layers.{l}.self_attn.kv_a_layernorm.weight")),
        (KvUp, Tensor("model.layers.{l}.self_attn.kv_b_proj.weight")),
        (IndexQuery, Tensor("model.layers.{l}.self_attn.indexer.wq_b.weight")),
        (IndexKey, Tensor("model.layers.{l}.self_attn.indexer.wk.weight")),
        (IndexKeyNorm, Tensor("model.layers.{l}.self_attn.indexer.k_norm.weight")),
        (IndexKeyNormBias, Tensor("model.layers.{l}.self_attn.indexer.k_norm.bias")),
        (IndexWeights, Tensor("model.layers.{l}.self_attn.indexer.weights_proj.weight")),
        (RouterCorrection, Tensor("model.layers.{l}.mlp.gate.e_score_correction_bias")),
        (SharedGate, Tensor("model.layers.{l}.mlp.shared_experts.gate_proj.weight")),
        (SharedGateBias, Tensor("model.layers.{l}.mlp.shared_experts.gate_proj.bias")),
        (SharedUp, Tensor("model.layers.{l}.mlp.shared_experts.up_proj.weight")),
        (SharedUpBias, Tensor("model.layers.{l}.mlp.shared_experts.up_proj.bias")),
        (SharedDown, Tensor("model.layers.{l}.mlp.shared_experts.down_proj.weight")),
        (SharedDownBias, Tensor("model.layers.{l}.mlp.shared_experts.down_proj.bias")),
        (MtpEmbeddingNorm, Tensor("model.layers.{l}.enorm.weight")),
        (MtpHiddenNorm, Tensor("model.layers.{l}.hnorm.weight")),
        (MtpProjection, Tensor("model.layers.{l}.eh_proj.weight")),
        (MtpHeadNorm, Tensor("model.layers.{l}.shared_head.norm.weight")),
    ]
};

/// Both latents' norms use this epsilon whatever the configuration says of the others (the models'
/// own code leaves it at the class default).
const LATENT_NORM_EPS: f32 = 1e-6;

fn read_v2(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let groups = match config.opt_str("topk_method")?.unwrap_or("greedy") {
        "greedy" => {
            config.opt_size("n_group")?;
            config.opt_size("topk_group")?;
            None
        }
        "group_limited_greedy" => Some(group_limit(config, 1, 1, GroupScore::Max)?),
        _ => return Err(config.unsupported("topk_method", "V2 models use greedy or group_limited_greedy")),
    };
    // DeepSeek's own code and the reference library disagree on what this key does to V2's weights.
    if config.bool_or("norm_topk_prob", false)? {
        return Err(config.unsupported("norm_topk_prob", "no published V2 model sets it and implementations differ"));
    }
    expect_scores(config, "softmax")?;
    let scale = config.f32_or("routed_scaling_factor", 1.0)?;
    let router =
        RouterSpec { score: Score::Softmax, groups, correction_bias: false, bias: false, normalise: false, scale };
    let defaults = Defaults { context: 2048, first_dense: 0, shared: 2, used: 6, interleaved: true };
    read(config, "DeepSeek-V2", router, defaults, config.bool_or("mlp_bias", false)?)
}

fn read_v3(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let router = v3_router(config)?;
    let interleaved = config.bool_or("rope_interleave", true)?;
    let defaults = Defaults { context: 4096, first_dense: 3, shared: 1, used: 8, interleaved };
    read(config, "DeepSeek-V3", router, defaults, false)
}

fn read_v32(config: &HfConfig) -> Result<ModelSpec, SpecError> {
    let router = v3_router(config)?;
    if config.bool_or("mlp_bias", false)? {
        return Err(config.unsupported("mlp_bias", "the reference does not use it"));
    }
    // The attention of this family is always interleaved, and its indexer never is.
    if !config.bool_or("rope_interleave", true)? {
        return Err(config.unsupported("rope_interleave", "V3.2's attention is interleaved"));
    }
    let defaults = Defaults { context: 163_840, first_dense: 3, shared: 1, used: 8, interleaved: true };
    let mut spec = read(config, "DeepSeek-V3.2", router, defaults, false)?;
    let (heads, dim) = (config.size_or("index_n_heads", 64)?, config.size_or("index_head_dim", 128)?);
    let top_k = config.size_or("index_topk", 2048)?;
    for block in spec.blocks.iter_mut().chain(&mut spec.mtp) {
        let Attention::Mla(mla) = &mut block.attention else { continue };
        if mla.q_rank.is_none() {
            return Err(config.unsupported("q_lora_rank", "the indexer reads the compressed query"));
        }
        if mla.rope_dim > dim {
            return Err(config.range("index_head_dim", dim, format!("at least the {} rotary elements", mla.rope_dim)));
        }
        let rope = RopeSpec { layout: RopeLayout::Half, ..mla.rope.clone() };
        mla.indexer = Some(IndexerSpec { heads, dim, top_k, norm_eps: 1e-6, rope });
    }
    Ok(spec)
}

fn v3_router(config: &HfConfig) -> Result<RouterSpec, SpecError> {
    // Null is not the default here: the reference has no routing without groups (one group is none).
    for key in ["n_group", "topk_group"] {
        if config.has(key) && config.get(key).is_none() {
            return Err(config.unsupported(key, "without groups it is 1"));
        }
    }
    expect_scores(config, "sigmoid")?;
    if !matches!(config.opt_str("topk_method")?, None | Some("noaux_tc")) {
        return Err(config.unsupported("topk_method", "V3 models use noaux_tc"));
    }
    Ok(RouterSpec {
        score: Score::Sigmoid,
        groups: Some(group_limit(config, 8, 4, GroupScore::TopTwo)?).filter(|g| g.used != g.groups),
        correction_bias: true,
        bias: false,
        normalise: config.bool_or("norm_topk_prob", true)?,
        scale: config.f32_or("routed_scaling_factor", 2.5)?,
    })
}

fn expect_scores(config: &HfConfig, wanted: &str) -> Result<(), SpecError> {
    match config.opt_str("scoring_func")? {
        Some(found) if found != wanted => Err(config.unsupported("scoring_func", format!("this family uses {wanted}"))),
        _ => Ok(()),
    }
}

fn group_limit(config: &HfConfig, groups: usize, used: usize, score: GroupScore) -> Result<GroupLimit, SpecError> {
    Ok(GroupLimit { groups: config.size_or("n_group", groups)?, used: config.size_or("topk_group", used)?, score })
}

/// What the members of the family take where a key is absent.
struct Defaults {
    context: usize,
    first_dense: usize,
    shared: usize,
    used: usize,
    interleaved: bool,
}

fn read(
    config: &HfConfig,
    family: &'static str,
    router: RouterSpec,
    defaults: Defaults,
    mlp_bias: bool,
) -> Result<ModelSpec, SpecError> {
    let hidden = config.size("hidden_size")?;
    let context = config.size_or("max_position_embeddings", defaults.context)?;
    let n_layers = layers(config)?;
    let eps = config.positive_or("rms_norm_eps", 1e-6)?;
    let attention = attention(config, context, defaults.interleaved)?;
    let activation = activation(config, "hidden_act")?;
    let dense = DenseSpec { width: config.size("intermediate_size")?, activation, bias: mlp_bias };
    let expert = DenseSpec { width: config.size("moe_intermediate_size")?, activation, bias: false };
    let shared = config.count_or("n_shared_experts", defaults.shared)?;
    let moe = MoeSpec {
        experts: config.size("n_routed_experts")?,
        used: config.size_or("num_experts_per_tok", defaults.used)?,
        expert,
        shared: (shared > 0).then_some(DenseSpec { width: expert.width * shared, activation, bias: mlp_bias }),
        router,
    };
    if config.count_or("moe_layer_freq", 1)? != 1 {
        return Err(config.unsupported("moe_layer_freq", "no published model sets it and implementations differ"));
    }
    let sparse = sparse_layers(config, n_layers, config.count_or("first_k_dense_replace", defaults.first_dense)?)?;
    if let Some(types) = layer_types(config, n_layers)?
        && types.contains(&true)
    {
        return Err(config.unsupported("layer_types", "latent attention has no sliding window"));
    }
    let block = |sparse: bool| BlockSpec {
        attention: Attention::Mla(attention.clone()),
        ffn: if sparse { Ffn::Moe(moe.clone()) } else { Ffn::Dense(dense) },
        norms: NormPlacement::Pre,
        norm_eps: eps,
    };
    let mtp = config.count_or("num_nextn_predict_layers", 0)?;
    if mtp > 16 {
        return Err(config.range("num_nextn_predict_layers", mtp, "at most 16"));
    }
    Ok(ModelSpec {
        family,
        hidden,
        vocab: config.size("vocab_size")?,
        context,
        embedding_scale: None,
        blocks: sparse.iter().map(|&s| block(s)).collect(),
        final_norm_eps: eps,
        head: HeadSpec { tied: config.bool_or("tie_word_embeddings", false)?, softcap: None },
        mtp: (0..mtp).map(|_| block(true)).collect(),
    })
}

/// Which layers have experts: listed, or all after the first `first_dense`.
fn sparse_layers(config: &HfConfig, n_layers: usize, first_dense: usize) -> Result<Vec<bool>, SpecError> {
    let Some(types) = config.opt_strings("mlp_layer_types")? else {
        return Ok((0..n_layers).map(|l| l >= first_dense).collect());
    };
    if types.len() != n_layers || types.iter().any(|t| !matches!(*t, "dense" | "sparse")) {
        return Err(config.unsupported("mlp_layer_types", format!("it must say dense or sparse for {n_layers} layers")));
    }
    Ok(types.iter().map(|t| *t == "sparse").collect())
}

fn attention(config: &HfConfig, context: usize, interleaved: bool) -> Result<MlaSpec, SpecError> {
    let heads = config.size("num_attention_heads")?;
    let q_rank = config.opt_size("q_lora_rank")?;
    if q_rank.is_none() && !config.has("q_lora_rank") {
        return Err(SpecError::Missing { key: config.key("q_lora_rank") });
    }
    let (nope_dim, rope_dim) = (config.size_or("qk_nope_head_dim", 128)?, config.size_or("qk_rope_head_dim", 64)?);
    agrees(config, "qk_head_dim", nope_dim + rope_dim)?;
    agrees(config, "num_key_value_heads", heads)?;
    config.opt_count("head_dim")?; // repeats the rotary size in some files and the value size in others
    let layout = if interleaved { RopeLayout::Interleaved } else { RopeLayout::Half };
    let rope = rope(config, rope_dim, layout, 10000.0, context)?;
    Ok(MlaSpec {
        heads,
        q_rank,
        kv_rank: config.size_or("kv_lora_rank", 512)?,
        nope_dim,
        rope_dim,
        v_dim: config.size_or("v_head_dim", 128)?,
        bias: config.bool_or("attention_bias", false)?,
        latent_norm_eps: LATENT_NORM_EPS,
        scale: softmax_scale(config, nope_dim + rope_dim, &rope)?,
        rope,
        indexer: None,
    })
}

/// `1 / sqrt(d)`, times YaRN's correction of the softmax temperature (V2 report, section 3.1.4).
fn softmax_scale(config: &HfConfig, key_dim: usize, rope: &RopeSpec) -> Result<f32, SpecError> {
    let plain = (key_dim as f32).powf(-0.5);
    let parameters = match config.object("rope_scaling")? {
        Some(old) => Some(old),
        None => config.object("rope_parameters")?,
    };
    let Some(parameters) = parameters.filter(|_| rope.scaling != RopeScaling::None) else { return Ok(plain) };
    let mscale = parameters.f32_or("mscale_all_dim", 0.0)?;
    let factor = match rope.scaling {
        RopeScaling::Yarn { factor, .. } | RopeScaling::Linear { factor } | RopeScaling::Llama3 { factor, .. } => {
            factor
        }
        RopeScaling::None | RopeScaling::Divisors(_) => 1.0,
    };
    let correction = if mscale == 0.0 { 1.0 } else { yarn_magnitude(factor, mscale) };
    Ok(plain * correction * correction)
}
