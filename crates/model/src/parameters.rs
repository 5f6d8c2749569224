//! The one list of a model's parameters: slot, shape, initialisation and optimiser group.
//!
//! Allocation, loading, checkpoint names, counts of parameters, operations and bytes all derive from
//! [`ModelSpec::parameters`]; nothing else in the project enumerates weights.

use crate::spec::{Attention, BlockSpec, DenseSpec, Ffn, ModelSpec, NormPlacement};

/// What a parameter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the names say it; `docs/NOTATION.md` gives the papers' symbols
pub enum Part {
    Embedding,
    FinalNorm,
    Head,
    AttentionNorm,
    PostAttentionNorm,
    FfnNorm,
    PostFfnNorm,
    // Attention. `QueryNorm` is over the compressed query in latent attention, over a head elsewhere.
    Query,
    QueryBias,
    Key,
    KeyBias,
    Value,
    ValueBias,
    QueryNorm,
    KeyNorm,
    Sinks,
    QueryDown,
    QueryDownBias,
    QueryUp,
    KvDown,
    KvDownBias,
    KvNorm,
    KvUp,
    AttentionOutput,
    AttentionOutputBias,
    IndexQuery,
    IndexKey,
    IndexKeyNorm,
    IndexKeyNormBias,
    IndexWeights,
    // Feed-forward.
    Gate,
    GateBias,
    Up,
    UpBias,
    Down,
    DownBias,
    Router,
    RouterBias,
    RouterCorrection,
    ExpertGate,
    ExpertGateBias,
    ExpertUp,
    ExpertUpBias,
    ExpertDown,
    ExpertDownBias,
    SharedGate,
    SharedGateBias,
    SharedUp,
    SharedUpBias,
    SharedDown,
    SharedDownBias,
    // Multi-token prediction.
    MtpEmbeddingNorm,
    MtpHiddenNorm,
    MtpProjection,
    MtpHeadNorm,
}

impl Part {
    /// Whether it is the weight of a norm.
    pub fn is_norm(self) -> bool {
        use Part::*;
        matches!(
            self,
            FinalNorm
                | AttentionNorm
                | PostAttentionNorm
                | FfnNorm
                | PostFfnNorm
                | QueryNorm
                | KeyNorm
                | KvNorm
                | IndexKeyNorm
                | MtpEmbeddingNorm
                | MtpHiddenNorm
                | MtpHeadNorm
        )
    }
}

/// Where a parameter belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The model as a whole.
    Model,
    /// Layer `0 ..`.
    Block(usize),
    /// Multi-token prediction module `0 ..`.
    Mtp(usize),
}

/// The identity of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Where it belongs.
    pub place: Place,
    /// What it is for.
    pub part: Part,
    /// Which routed expert, for the parts of experts.
    pub expert: Option<usize>,
}

/// How a parameter starts when a model is trained from nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Normal noise; the recipe says the standard deviation.
    Normal,
    /// All ones.
    Ones,
    /// All zeros.
    Zeros,
}

/// Which optimiser rule a parameter falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Matrices inside the layers.
    Matrix,
    /// Embedding and head.
    Embedding,
    /// Norms, biases and sinks: no weight decay.
    Vector,
    /// Set by a rule of its own and not by gradient (the router's correction bias).
    Rule,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Its identity.
    pub slot: Slot,
    /// `[outputs, inputs]` of a matrix, `[n]` of a vector.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
    /// Its optimiser group.
    pub group: Group,
}

impl ParameterSpec {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, &n| product.saturating_mul(n as u64))
    }
}

/// Counts of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// All parameters of the layers, embedding and head, without multi-token prediction.
    pub total: u64,
    /// Those that one token's forward pass multiplies with: a token's own experts, no embedding rows.
    pub active: u64,
    /// Parameters of the multi-token prediction modules.
    pub mtp: u64,
}

impl ModelSpec {
    /// Every parameter once, in the order of the forward pass.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let mut out = Vec::new();
        self.visit(true, &mut |parameter| out.push(parameter));
        out
    }

    /// Counts of parameters. Without listing each expert: the experts of a layer are alike.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { total: 0, active: 0, mtp: 0 };
        self.visit(false, &mut |parameter| {
            let (slot, n) = (parameter.slot, parameter.elements());
            // All copies of a parameter, and those that one token uses.
            let (copies, used) = match (slot.expert, slot.place) {
                (None, _) | (_, Place::Model) => (1, 1),
                (Some(_), Place::Block(i)) => copies(&self.blocks[i]),
                (Some(_), Place::Mtp(i)) => copies(&self.mtp[i]),
            };
            let all = n.saturating_mul(copies);
            let sum = if matches!(slot.place, Place::Mtp(_)) { &mut counts.mtp } else { &mut counts.total };
            *sum = sum.saturating_add(all);
            let counted = match (slot.place, slot.part) {
                (Place::Mtp(_), _) => 0,
                // Looked up, unless it is the head as well.
                (_, Part::Embedding) if !self.head.tied => 0,
                _ => n.saturating_mul(used),
            };
            counts.active = counts.active.saturating_add(counted);
        });
        counts
    }

    /// Hands on every parameter; of a layer's experts all, or only the first.
    fn visit(&self, all_experts: bool, take: &mut dyn FnMut(ParameterSpec)) {
        let mut list = List { take, all_experts, place: Place::Model, expert: None };
        list.add(Part::Embedding, &[self.vocab, self.hidden], Init::Normal, Group::Embedding);
        for (i, block) in self.blocks.iter().enumerate() {
            list.place = Place::Block(i);
            block_parameters(&mut list, self.hidden, block);
        }
        for (i, block) in self.mtp.iter().enumerate() {
            list.place = Place::Mtp(i);
            list.norm(Part::MtpEmbeddingNorm, self.hidden);
            list.norm(Part::MtpHiddenNorm, self.hidden);
            list.matrix(Part::MtpProjection, self.hidden, 2 * self.hidden);
            block_parameters(&mut list, self.hidden, block);
            list.norm(Part::MtpHeadNorm, self.hidden);
        }
        list.place = Place::Model;
        list.norm(Part::FinalNorm, self.hidden);
        if !self.head.tied {
            list.add(Part::Head, &[self.vocab, self.hidden], Init::Normal, Group::Embedding);
        }
    }
}

/// The experts of a block and those that a token uses.
fn copies(block: &BlockSpec) -> (u64, u64) {
    match &block.ffn {
        Ffn::Moe(moe) => (moe.experts as u64, moe.used as u64),
        Ffn::Dense(_) => (1, 1),
    }
}

/// Where the parameters go as they are named one by one.
struct List<'a> {
    take: &'a mut dyn FnMut(ParameterSpec),
    all_experts: bool,
    place: Place,
    expert: Option<usize>,
}

impl List<'_> {
    fn add(&mut self, part: Part, shape: &[usize], init: Init, group: Group) {
        let slot = Slot { place: self.place, part, expert: self.expert };
        (self.take)(ParameterSpec { slot, shape: shape.to_vec(), init, group });
    }

    fn matrix(&mut self, part: Part, rows: usize, cols: usize) {
        self.add(part, &[rows, cols], Init::Normal, Group::Matrix);
    }

    fn norm(&mut self, part: Part, n: usize) {
        self.add(part, &[n], Init::Ones, Group::Vector);
    }

    fn bias(&mut self, part: Part, n: usize, present: bool) {
        if present {
            self.add(part, &[n], Init::Zeros, Group::Vector);
        }
    }

    /// Gate, up and down projections with their biases.
    fn gated(&mut self, parts: [Part; 6], hidden: usize, dense: &DenseSpec, expert: Option<usize>) {
        self.expert = expert;
        for (i, (rows, cols)) in
            [(dense.width, hidden), (dense.width, hidden), (hidden, dense.width)].into_iter().enumerate()
        {
            self.matrix(parts[2 * i], rows, cols);
            self.bias(parts[2 * i + 1], rows, dense.bias);
        }
        self.expert = None;
    }
}

fn block_parameters(list: &mut List, hidden: usize, block: &BlockSpec) {
    list.norm(Part::AttentionNorm, hidden);
    attention_parameters(list, hidden, &block.attention);
    let sandwich = block.norms == NormPlacement::Sandwich;
    if sandwich {
        list.norm(Part::PostAttentionNorm, hidden);
    }
    list.norm(Part::FfnNorm, hidden);
    ffn_parameters(list, hidden, &block.ffn);
    if sandwich {
        list.norm(Part::PostFfnNorm, hidden);
    }
}

fn attention_parameters(list: &mut List, hidden: usize, attention: &Attention) {
    match attention {
        Attention::Mla(mla) => {
            match mla.q_rank {
                None => list.matrix(Part::Query, mla.heads * mla.key_dim(), hidden),
                Some(rank) => {
                    list.matrix(Part::QueryDown, rank, hidden);
                    list.bias(Part::QueryDownBias, rank, mla.bias);
                    list.norm(Part::QueryNorm, rank);
                    list.matrix(Part::QueryUp, mla.heads * mla.key_dim(), rank);
                }
            }
            list.matrix(Part::KvDown, mla.latent_dim(), hidden);
            list.bias(Part::KvDownBias, mla.latent_dim(), mla.bias);
            list.norm(Part::KvNorm, mla.kv_rank);
            list.matrix(Part::KvUp, mla.heads * (mla.nope_dim + mla.v_dim), mla.kv_rank);
            if let Some(indexer) = &mla.indexer {
                // The index queries come from the same compressed query as the attention's.
                list.matrix(Part::IndexQuery, indexer.heads * indexer.dim, mla.q_rank.unwrap_or(hidden));
                list.matrix(Part::IndexKey, indexer.dim, hidden);
                list.norm(Part::IndexKeyNorm, indexer.dim);
                list.bias(Part::IndexKeyNormBias, indexer.dim, true);
                list.matrix(Part::IndexWeights, indexer.heads, hidden);
            }
            list.matrix(Part::AttentionOutput, hidden, mla.heads * mla.v_dim);
            list.bias(Part::AttentionOutputBias, hidden, mla.bias);
        }
        Attention::Gqa(gqa) => {
            let (q, kv) = (gqa.heads * gqa.head_dim, gqa.kv_heads * gqa.head_dim);
            for (part, bias, rows) in
                [(Part::Query, Part::QueryBias, q), (Part::Key, Part::KeyBias, kv), (Part::Value, Part::ValueBias, kv)]
            {
                list.matrix(part, rows, hidden);
                list.bias(bias, rows, gqa.qkv_bias);
            }
            if gqa.qk_norm_eps.is_some() {
                list.norm(Part::QueryNorm, gqa.head_dim);
                list.norm(Part::KeyNorm, gqa.head_dim);
            }
            list.bias(Part::Sinks, gqa.heads, gqa.sinks);
            list.matrix(Part::AttentionOutput, hidden, q);
            list.bias(Part::AttentionOutputBias, hidden, gqa.output_bias);
        }
    }
}

fn ffn_parameters(list: &mut List, hidden: usize, ffn: &Ffn) {
    use Part::*;
    match ffn {
        Ffn::Dense(dense) => list.gated([Gate, GateBias, Up, UpBias, Down, DownBias], hidden, dense, None),
        Ffn::Moe(moe) => {
            list.matrix(Router, moe.experts, hidden);
            list.bias(RouterBias, moe.experts, moe.router.bias);
            if moe.router.correction_bias {
                list.add(RouterCorrection, &[moe.experts], Init::Zeros, Group::Rule);
            }
            let parts = [ExpertGate, ExpertGateBias, ExpertUp, ExpertUpBias, ExpertDown, ExpertDownBias];
            for expert in 0..if list.all_experts { moe.experts } else { 1 } {
                list.gated(parts, hidden, &moe.expert, Some(expert));
            }
            if let Some(shared) = &moe.shared {
                let parts = [SharedGate, SharedGateBias, SharedUp, SharedUpBias, SharedDown, SharedDownBias];
                list.gated(parts, hidden, shared, None);
            }
        }
    }
}
