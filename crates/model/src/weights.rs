//! The weights of a model, shaped as the forward pass uses them.
//!
//! Matrices stay in their stored format (views into the mapped file); norms, biases and other
//! vectors are floats.

use kernels::matmul::HeadWeight;
use kernels::weight::{Inputs, Weight};

/// A projection with its bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[outputs, inputs]`
    pub weight: Weight,
    /// `[outputs]`
    pub bias: Option<Vec<f32>>,
}

/// All weights.
#[derive(Clone, Debug)]
pub struct ModelWeights {
    /// `[vocab, hidden]`
    pub embedding: Weight,
    /// One for each layer.
    pub blocks: Vec<BlockWeights>,
    /// `[hidden]`
    pub final_norm: Vec<f32>,
    /// `[vocab, hidden]`; none where the embedding is the head.
    pub head: Option<Weight>,
    /// Multi-token prediction modules.
    pub mtp: Vec<MtpWeights>,
}

/// The weights of a layer.
#[derive(Clone, Debug)]
pub struct BlockWeights {
    /// `[hidden]`, before attention.
    pub attention_norm: Vec<f32>,
    /// Attention.
    pub attention: AttentionWeights,
    /// `[hidden]`, after attention (sandwich norms).
    pub post_attention_norm: Option<Vec<f32>>,
    /// `[hidden]`, before the feed-forward network.
    pub ffn_norm: Vec<f32>,
    /// The feed-forward network.
    pub ffn: FfnWeights,
    /// `[hidden]`, after it (sandwich norms).
    pub post_ffn_norm: Option<Vec<f32>>,
}

/// The weights of either kind of attention.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one a layer: the difference is some hundred bytes in all
pub enum AttentionWeights {
    /// Latent attention.
    Mla(MlaWeights),
    /// Grouped-query attention.
    Gqa(GqaWeights),
}

/// Latent attention; the papers' symbols are in brackets.
#[derive(Clone, Debug)]
pub struct MlaWeights {
    /// Queries.
    pub query: QueryWeights,
    /// W^DKV above W^KR, `[kv_rank + rope_dim, hidden]`
    pub kv_down: Linear,
    /// `[kv_rank]`
    pub kv_norm: Vec<f32>,
    /// W^UK of each head in the absorbing direction: `nope_dim` inputs, `kv_rank` outputs.
    pub key_up: Vec<HeadWeight>,
    /// W^UV of each head: `kv_rank` inputs, `v_dim` outputs.
    pub value_up: Vec<HeadWeight>,
    /// Both of all heads in one, `[heads * (nope_dim + v_dim), kv_rank]`, where they are stored so.
    pub kv_up: Option<Weight>,
    /// W^O, `[hidden, heads * v_dim]`
    pub output: Linear,
    /// The lightning indexer.
    pub indexer: Option<IndexerWeights>,
}

/// The queries of latent attention.
#[derive(Clone, Debug)]
pub enum QueryWeights {
    /// `[heads * (nope_dim + rope_dim), hidden]`
    Full(Weight),
    /// Through a compressed query.
    Compressed {
        /// W^DQ, `[q_rank, hidden]`
        down: Linear,
        /// `[q_rank]`
        norm: Vec<f32>,
        /// W^UQ above W^QR, `[heads * (nope_dim + rope_dim), q_rank]`
        up: Weight,
    },
}

/// The lightning indexer (V3.2-Exp report, section 2).
#[derive(Clone, Debug)]
pub struct IndexerWeights {
    /// `[heads * dim, q_rank]`
    pub query: Weight,
    /// `[dim, hidden]`
    pub key: Weight,
    /// `[dim]`
    pub key_norm: Vec<f32>,
    /// `[dim]`
    pub key_norm_bias: Vec<f32>,
    /// `[heads, hidden]`
    pub head_weights: Weight,
}

/// Grouped-query attention.
#[derive(Clone, Debug)]
pub struct GqaWeights {
    /// `[heads * head_dim, hidden]`
    pub query: Linear,
    /// `[kv_heads * head_dim, hidden]`
    pub key: Linear,
    /// `[kv_heads * head_dim, hidden]`
    pub value: Linear,
    /// `[head_dim]`
    pub query_norm: Option<Vec<f32>>,
    /// `[head_dim]`
    pub key_norm: Option<Vec<f32>>,
    /// `[heads]`
    pub sinks: Option<Vec<f32>>,
    /// `[hidden, heads * head_dim]`
    pub output: Linear,
}

/// A gated network.
#[derive(Clone, Debug)]
pub struct GatedWeights {
    /// `[width, hidden]`
    pub gate: Linear,
    /// `[width, hidden]`
    pub up: Linear,
    /// `[hidden, width]`
    pub down: Linear,
}

/// The weights of either kind of feed-forward network.
#[derive(Clone, Debug)]
pub enum FfnWeights {
    /// One network.
    Dense(GatedWeights),
    /// A mixture of experts.
    Moe(MoeWeights),
}

/// A mixture of experts.
#[derive(Clone, Debug)]
pub struct MoeWeights {
    /// `[experts, hidden]`
    pub router: Linear,
    /// `[experts]`, added to affinities for the choice only.
    pub correction: Option<Vec<f32>>,
    /// The routed experts.
    pub experts: Vec<GatedWeights>,
    /// The network of every token.
    pub shared: Option<GatedWeights>,
}

/// A multi-token prediction module (V3 report, section 2.2).
#[derive(Clone, Debug)]
pub struct MtpWeights {
    /// `[hidden]`, of the next token's embedding.
    pub embedding_norm: Vec<f32>,
    /// `[hidden]`, of the hidden state.
    pub hidden_norm: Vec<f32>,
    /// M_k, `[hidden, 2 * hidden]`
    pub projection: Weight,
    /// Its transformer block.
    pub block: BlockWeights,
    /// `[hidden]`, before the shared head.
    pub head_norm: Vec<f32>,
}

impl ModelWeights {
    /// Chooses the arithmetic of the projections (see [`ModelWeights::projections`]).
    pub fn set_inputs(&mut self, inputs: Inputs) {
        self.projections(|weight| *weight = weight.clone().with_inputs(inputs));
    }

    /// The arithmetic that was chosen, as the head has it.
    pub fn inputs(&self) -> Inputs {
        self.head.as_ref().unwrap_or(&self.embedding).inputs()
    }

    /// Calls `f` with each matrix of a projection and with the head. Left out are routers and the lightning
    /// indexer, where a small difference can choose another expert or another position, and the embedding
    /// where it is not the head.
    pub fn projections(&mut self, mut f: impl FnMut(&mut Weight)) {
        f(self.head.as_mut().unwrap_or(&mut self.embedding));
        for module in &mut self.mtp {
            f(&mut module.projection);
        }
        for block in self.blocks.iter_mut().chain(self.mtp.iter_mut().map(|module| &mut module.block)) {
            match &mut block.attention {
                AttentionWeights::Mla(w) => {
                    match &mut w.query {
                        QueryWeights::Full(query) => f(query),
                        QueryWeights::Compressed { down, up, .. } => {
                            [&mut down.weight, up].into_iter().for_each(&mut f)
                        }
                    }
                    [&mut w.kv_down.weight, &mut w.output.weight].into_iter().for_each(&mut f);
                    w.key_up.iter_mut().chain(&mut w.value_up).for_each(|head| f(&mut head.weight));
                }
                AttentionWeights::Gqa(w) => {
                    let all = [&mut w.query, &mut w.key, &mut w.value, &mut w.output];
                    all.into_iter().for_each(|w| f(&mut w.weight));
                }
            }
            let gated = |w: &mut GatedWeights| {
                [&mut w.gate, &mut w.up, &mut w.down].into_iter().for_each(|w| f(&mut w.weight));
            };
            match &mut block.ffn {
                FfnWeights::Dense(w) => [w].into_iter().for_each(gated),
                FfnWeights::Moe(w) => w.experts.iter_mut().chain(&mut w.shared).for_each(gated),
            }
        }
    }
}
