//! Small models of every kind that can be trained, and something to learn.

use kernels::ops::{Activation, RopeLayout};
use model::spec::*;
use model::train::TrainBatch;

/// Numbers without a pattern, from -1 to 1.
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..8).for_each(|_| {
        next();
    });
    (0..n).map(|_| next()).collect()
}

/// Sequences of noise.
pub struct Data {
    pub tokens: Vec<u32>,
    pub sequences: Vec<usize>,
    pub targets: Vec<u32>,
    pub weights: Vec<f32>,
}

impl Data {
    pub fn new(sequences: &[usize], vocab: usize) -> Data {
        let rows = sequences.iter().sum();
        let token = |v: &f32| ((v + 1.0) * 0.5 * vocab as f32) as u32 % vocab as u32;
        let tokens: Vec<u32> = noise(rows, 11).iter().map(token).collect();
        let targets = noise(rows, 12).iter().map(token).collect();
        // Some rows do not count, some count against.
        let weights = noise(rows, 13).iter().map(|v| if *v < -0.8 { 0.0 } else { 0.1 * (v + 0.3) }).collect();
        Data { tokens, sequences: sequences.to_vec(), targets, weights }
    }

    pub fn batch(&self) -> TrainBatch<'_> {
        TrainBatch {
            tokens: &self.tokens,
            sequences: &self.sequences,
            targets: &self.targets,
            weights: &self.weights,
            soft_targets: None,
        }
    }
}

fn rope(dim: usize, layout: RopeLayout) -> RopeSpec {
    RopeSpec { dim, layout, base: 10000.0, scaling: RopeScaling::None }
}

fn yarn(dim: usize) -> RopeSpec {
    let scaling = RopeScaling::Yarn {
        factor: 4.0,
        original: 16.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        magnitude: 1.1,
    };
    RopeSpec { dim, layout: RopeLayout::Interleaved, base: 10000.0, scaling }
}

fn dense(width: usize, bias: bool) -> DenseSpec {
    DenseSpec { width, activation: Activation::Silu, bias }
}

fn mla(q_rank: Option<usize>, bias: bool, rope: RopeSpec) -> Attention {
    Attention::Mla(MlaSpec {
        heads: 3,
        q_rank,
        kv_rank: 10,
        nope_dim: 5,
        rope_dim: rope.dim,
        v_dim: 7,
        bias,
        latent_norm_eps: 1e-6,
        rope,
        scale: 0.35,
        indexer: None,
    })
}

fn moe(router: RouterSpec, shared: bool, expert: DenseSpec) -> Ffn {
    let shared = shared.then(|| dense(9, false));
    Ffn::Moe(MoeSpec { experts: 8, used: 3, expert, shared, router })
}

fn block(attention: Attention, ffn: Ffn) -> BlockSpec {
    BlockSpec { attention, ffn, norms: NormPlacement::Pre, norm_eps: 1e-5 }
}

fn model(blocks: Vec<BlockSpec>, mtp: Vec<BlockSpec>, tied: bool) -> ModelSpec {
    ModelSpec {
        family: "test",
        hidden: 18,
        vocab: 37,
        context: 512,
        embedding_scale: None,
        blocks,
        final_norm_eps: 1e-5,
        head: HeadSpec { tied, softcap: None },
        mtp,
    }
}

/// Latent attention with YaRN, sigmoid routers in groups with the correction bias, two prediction modules.
pub fn v3(compressed_query: bool) -> ModelSpec {
    let attention = || mla(compressed_query.then_some(11), compressed_query, yarn(4));
    let router = RouterSpec {
        score: Score::Sigmoid,
        groups: Some(GroupLimit { groups: 4, used: 2, score: GroupScore::TopTwo }),
        correction_bias: true,
        bias: false,
        normalise: true,
        scale: 2.5,
    };
    let experts = || block(attention(), moe(router, true, dense(6, false)));
    let first = block(attention(), Ffn::Dense(dense(20, false)));
    model(vec![first, experts(), experts()], vec![experts(), experts()], false)
}

/// Latent attention, softmax routers without normalisation.
pub fn v2() -> ModelSpec {
    let attention = || mla(None, false, rope(4, RopeLayout::Interleaved));
    let router = RouterSpec { scale: 1.7, ..RouterSpec::softmax(false) };
    let experts = || block(attention(), moe(router, true, dense(6, false)));
    model(vec![experts(), experts()], vec![], false)
}

fn gqa(head_dim: usize) -> GqaSpec {
    GqaSpec {
        heads: 4,
        kv_heads: 2,
        head_dim,
        qkv_bias: false,
        output_bias: false,
        qk_norm_eps: None,
        rope: rope(head_dim, RopeLayout::Half),
        scale: 0.4,
        window: None,
        sinks: false,
    }
}

/// Biases, tied head.
pub fn qwen2() -> ModelSpec {
    let attention = || Attention::Gqa(GqaSpec { qkv_bias: true, ..gqa(6) });
    let blocks = (0..2).map(|_| block(attention(), Ffn::Dense(dense(20, false)))).collect();
    model(blocks, vec![], true)
}

/// Norms of queries and keys, a window, softmax experts with normalisation.
pub fn qwen3() -> ModelSpec {
    let attention = |window| Attention::Gqa(GqaSpec { qk_norm_eps: Some(1e-6), window, ..gqa(8) });
    let router = RouterSpec::softmax(true);
    let experts = |window| block(attention(window), moe(router, false, dense(6, false)));
    model(vec![experts(None), experts(Some(3))], vec![], false)
}

/// Norms after as well, GELU, scaled embedding, soft cap.
pub fn gemma3() -> ModelSpec {
    let gelu = DenseSpec { width: 20, activation: Activation::GeluTanh, bias: true };
    let attention = || Attention::Gqa(GqaSpec { output_bias: true, kv_heads: 1, ..gqa(6) });
    let sandwich = || BlockSpec { norms: NormPlacement::Sandwich, ..block(attention(), Ffn::Dense(gelu)) };
    let plain = model(vec![sandwich(), sandwich()], vec![], true);
    ModelSpec { embedding_scale: Some(3.0), head: HeadSpec { tied: true, softcap: Some(2.0) }, ..plain }
}

/// Sinks, clamped SwiGLU, biased router and experts, softmax over the chosen.
pub fn gpt_oss() -> ModelSpec {
    let attention =
        |window| Attention::Gqa(GqaSpec { qkv_bias: true, output_bias: true, sinks: true, window, ..gqa(6) });
    let router = RouterSpec { score: Score::SoftmaxOfChosen, bias: true, scale: 1.3, ..RouterSpec::softmax(false) };
    let expert = DenseSpec { width: 6, activation: Activation::ClampedSwiglu { alpha: 1.7, limit: 7.0 }, bias: true };
    let experts = |window| block(attention(window), moe(router, false, expert));
    model(vec![experts(Some(4)), experts(None)], vec![], false)
}
