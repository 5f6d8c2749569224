//! The vocabulary in which every model is described.
//!
//! A [`ModelSpec`] says everything that the forward pass, the loader and the counts need to know, and
//! nothing about names or files. Patterns over layers (first k dense, sliding and full in turn) are
//! expanded when the configuration is read: each block says for itself what it is, and behaviour is
//! never keyed on a family's name or a layer's number. What cannot be combined cannot be written.

use kernels::ops::{Activation, RopeLayout};

/// A decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// The family's name, for people; nothing depends on it.
    pub family: &'static str,
    /// Width of the residual stream (the papers' d).
    pub hidden: usize,
    /// Number of tokens in the vocabulary.
    pub vocab: usize,
    /// Positions that the model was made for.
    pub context: usize,
    /// Factor of the embedding, where there is one (Gemma: the root of `hidden`).
    pub embedding_scale: Option<f32>,
    /// The layers, in order.
    pub blocks: Vec<BlockSpec>,
    /// Epsilon of the norm before the head.
    pub final_norm_eps: f32,
    /// Where logits come from.
    pub head: HeadSpec,
    /// Multi-token prediction modules (V3 report, section 2.2), in order of depth.
    pub mtp: Vec<BlockSpec>,
}

/// The output head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSpec {
    /// Whether the embedding matrix is also the head.
    pub tied: bool,
    /// `c * tanh(logit / c)`.
    pub softcap: Option<f32>,
}

/// A layer: attention, then a feed-forward network, each added to the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSpec {
    /// How tokens look at each other.
    pub attention: Attention,
    /// What is done to each token alone.
    pub ffn: Ffn,
    /// Where the norms stand.
    pub norms: NormPlacement,
    /// Epsilon of the block's norms.
    pub norm_eps: f32,
}

/// Where a block's norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and before the network.
    Pre,
    /// Before and after each of the two (Gemma).
    Sandwich,
}

/// How tokens look at each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Attention {
    /// Multi-head latent attention (V2 report, section 2.1).
    Mla(MlaSpec),
    /// Grouped-query attention; with as many key heads as query heads it is multi-head attention.
    Gqa(GqaSpec),
}

/// Multi-head latent attention: keys and values are projections of one small latent a token, which
/// is all that is cached.
#[derive(Clone, Debug, PartialEq)]
pub struct MlaSpec {
    /// Heads (n_h).
    pub heads: usize,
    /// Rank of the compressed queries (d_c'); none: queries are projected directly.
    pub q_rank: Option<usize>,
    /// Rank of the latent (d_c).
    pub kv_rank: usize,
    /// Elements of a head's query and key without position (d_h).
    pub nope_dim: usize,
    /// Elements of a head's rotary query, and of the rotary key that all heads share (d_h^R).
    pub rope_dim: usize,
    /// Elements of a head's value.
    pub v_dim: usize,
    /// Biases of the down projections and the output.
    pub bias: bool,
    /// Epsilon of the norms of both latents.
    pub latent_norm_eps: f32,
    /// The rotary embedding.
    pub rope: RopeSpec,
    /// Factor of the scores, YaRN's correction included.
    pub scale: f32,
    /// V3.2's lightning indexer: which tokens are looked at.
    pub indexer: Option<IndexerSpec>,
}

/// The lightning indexer of DeepSeek-V3.2 (V3.2-Exp report, section 2).
#[derive(Clone, Debug, PartialEq)]
pub struct IndexerSpec {
    /// Index heads (H^I).
    pub heads: usize,
    /// Elements of an index query and key (d^I); the first `rope.dim` of them rotate.
    pub dim: usize,
    /// Tokens that each query looks at.
    pub top_k: usize,
    /// Epsilon of the key's layer norm.
    pub norm_eps: f32,
    /// The rotary embedding of index queries and keys.
    pub rope: RopeSpec,
}

/// Grouped-query attention (Ainslie et al. 2023).
#[derive(Clone, Debug, PartialEq)]
pub struct GqaSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Biases of queries, keys and values.
    pub qkv_bias: bool,
    /// Bias of the output.
    pub output_bias: bool,
    /// Norms over each head's query and key, before the rotation (Qwen3, Gemma 3): their epsilon.
    pub qk_norm_eps: Option<f32>,
    /// The rotary embedding.
    pub rope: RopeSpec,
    /// Factor of the scores.
    pub scale: f32,
    /// Keys that a query sees, itself included; none: all.
    pub window: Option<usize>,
    /// A learned score for each head that takes part in the softmax without a value (gpt-oss).
    pub sinks: bool,
}

/// A rotary embedding (Su et al. 2021).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Elements that rotate.
    pub dim: usize,
    /// Which of them form pairs.
    pub layout: RopeLayout,
    /// Base of the frequencies: pair `i` turns by `base^(-2i / dim)` a position.
    pub base: f32,
    /// How the frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
}

/// Changes of rotary frequencies for contexts longer than the model was trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f32,
        /// `original / low` is the wavelength above which a frequency is low.
        low: f32,
        /// `original / high` is the wavelength below which a frequency is high.
        high: f32,
        /// Context of the training before.
        original: f32,
    },
    /// YaRN (Peng et al. 2023).
    Yarn {
        /// The divisor of low frequencies.
        factor: f32,
        /// Context of the training before.
        original: f32,
        /// Rotations in the original context above which a frequency is kept.
        beta_fast: f32,
        /// Rotations below which it is divided.
        beta_slow: f32,
        /// Whether the ramp's ends are rounded to whole pairs.
        truncate: bool,
        /// Factor of cosine and sine.
        magnitude: f32,
    },
    /// Each pair's frequency divided by a number of its own (GGUF's `rope_freqs`).
    Divisors(Vec<f32>),
}

/// What a block does to each token alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Ffn {
    /// One gated network.
    Dense(DenseSpec),
    /// Some of many networks, chosen by a router.
    Moe(MoeSpec),
}

/// A gated network: `down(activation(gate x, up x))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenseSpec {
    /// Width between the projections.
    pub width: usize,
    /// How the two projections combine.
    pub activation: Activation,
    /// Biases of all three projections.
    pub bias: bool,
}

/// A mixture of experts (DeepSeekMoE; V3 report, section 2.1.2).
#[derive(Clone, Debug, PartialEq)]
pub struct MoeSpec {
    /// Routed experts (N_r).
    pub experts: usize,
    /// Experts that a token uses (K_r).
    pub used: usize,
    /// Each expert: all of one shape.
    pub expert: DenseSpec,
    /// The network that every token passes through (N_s shared experts side by side).
    pub shared: Option<DenseSpec>,
    /// How experts are chosen.
    pub router: RouterSpec,
}

/// How experts are chosen and weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterSpec {
    /// From logits to affinities.
    pub score: Score,
    /// Choice limited to some groups of experts.
    pub groups: Option<GroupLimit>,
    /// A bias added to affinities for the choice only (V3's auxiliary-loss-free balancing).
    pub correction_bias: bool,
    /// A bias of the logits (gpt-oss).
    pub bias: bool,
    /// Whether the chosen affinities are divided by their sum.
    pub normalise: bool,
    /// Factor of the weights, after that.
    pub scale: f32,
}

impl RouterSpec {
    /// The plain router: softmax over all experts, the best are used.
    pub fn softmax(normalise: bool) -> RouterSpec {
        RouterSpec { score: Score::Softmax, groups: None, correction_bias: false, bias: false, normalise, scale: 1.0 }
    }
}

/// From router logits to affinities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoid of each.
    Sigmoid,
    /// Experts are chosen by logit; softmax over the chosen.
    SoftmaxOfChosen,
}

/// Choice limited to the best groups (V2 report, section 2.2.2; V3 report, section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimit {
    /// Groups of equal size, in expert order.
    pub groups: usize,
    /// Groups that a token may use.
    pub used: usize,
    /// What a group is worth.
    pub score: GroupScore,
}

/// What a group of experts is worth to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    /// Its best expert's affinity (V2).
    Max,
    /// The sum of its two best (V3).
    TopTwo,
}

impl MlaSpec {
    /// Elements of a head's query and key.
    pub fn key_dim(&self) -> usize {
        self.nope_dim + self.rope_dim
    }

    /// Elements cached for each token: the latent and the shared rotary key.
    pub fn latent_dim(&self) -> usize {
        self.kv_rank + self.rope_dim
    }
}

impl BlockSpec {
    /// Elements that the block's attention caches for each token; the indexer's keys included.
    pub fn cache_elements(&self) -> usize {
        match &self.attention {
            Attention::Mla(mla) => mla.latent_dim() + mla.indexer.as_ref().map_or(0, |i| i.dim),
            Attention::Gqa(gqa) => 2 * gqa.kv_heads * gqa.head_dim,
        }
    }

    /// The block's rotary embeddings.
    pub fn ropes(&self) -> impl Iterator<Item = &RopeSpec> {
        let (main, indexer) = match &self.attention {
            Attention::Mla(mla) => (&mla.rope, mla.indexer.as_ref().map(|i| &i.rope)),
            Attention::Gqa(gqa) => (&gqa.rope, None),
        };
        std::iter::once(main).chain(indexer)
    }
}

impl ModelSpec {
    /// Elements that the layers cache for each token (without multi-token prediction).
    pub fn cache_elements(&self) -> usize {
        self.blocks.iter().map(BlockSpec::cache_elements).sum()
    }
}
