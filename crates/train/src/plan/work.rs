//! What a token costs in arithmetic, by kind of product, from a model's description.
//!
//! A multiplication and an addition count as two operations. Attention is causal: a token sees half of the
//! sequence on average.

use model::parameters::{Group, Part, Place};
use model::spec::{Attention, BlockSpec, Ffn, ModelSpec};

/// Parameters and operations of a model, by how fast a machine does them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Parameters of all layers, embedding, head and multi-token prediction.
    pub parameters: u64,
    /// Those of routed experts.
    pub expert_parameters: u64,
    /// Parameters that a token multiplies with in attention projections, dense networks and routers.
    pub dense_active: u64,
    /// The same of experts, shared ones included.
    pub expert_active: u64,
    /// The same of the head.
    pub head_active: u64,
    /// Operations of scores and weighted sums of one token's forward pass.
    pub attention_operations: f64,
    /// Parameters of latent attention's up projections, which V3's recipe computes twice.
    pub recomputed: u64,
}

impl Work {
    /// Counts for sequences of `sequence` tokens. Multi-token prediction modules are part of training: each is a
    /// layer more and computes the head once more.
    pub fn of(spec: &ModelSpec, sequence: u64) -> Work {
        let mut work = Work::default();
        for parameter in spec.parameters() {
            let elements = parameter.elements();
            work.parameters += elements;
            let block = match parameter.slot.place {
                Place::Block(i) => Some(&spec.blocks[i]),
                Place::Mtp(i) => Some(&spec.mtp[i]),
                Place::Model => None,
            };
            work.count(parameter.slot.part, elements, parameter.slot.expert.is_some(), block, parameter.group);
        }
        let head = (spec.vocab * spec.hidden) as u64;
        work.head_active = head * (1 + spec.mtp.len() as u64);
        let blocks = spec.blocks.iter().chain(&spec.mtp);
        work.attention_operations = blocks.map(|block| attention_operations(block, sequence)).sum();
        work
    }

    fn count(&mut self, part: Part, elements: u64, routed: bool, block: Option<&BlockSpec>, group: Group) {
        if routed {
            self.expert_parameters += elements;
            let Some(BlockSpec { ffn: Ffn::Moe(moe), .. }) = block else { return };
            // Every expert is listed; a token uses some of them.
            self.expert_active += elements * moe.used as u64 / moe.experts as u64;
        } else if group == Group::Matrix {
            match part {
                Part::SharedGate | Part::SharedUp | Part::SharedDown => self.expert_active += elements,
                _ => self.dense_active += elements,
            }
            if matches!(part, Part::KvUp | Part::QueryUp) {
                self.recomputed += elements;
            }
        }
    }

    /// Parameters that a token multiplies with.
    pub fn active(&self) -> u64 {
        self.dense_active + self.expert_active + self.head_active
    }

    /// Operations of training on one token: forward and both backward products (6 for each active parameter), and
    /// attention, whose backward pass computes the scores again (3.5 times its forward pass).
    pub fn training_operations(&self) -> f64 {
        6.0 * self.active() as f64 + 3.5 * self.attention_operations
    }
}

fn attention_operations(block: &BlockSpec, sequence: u64) -> f64 {
    let (heads, widths, window) = match &block.attention {
        Attention::Mla(mla) => (mla.heads, mla.key_dim() + mla.v_dim, None),
        Attention::Gqa(gqa) => (gqa.heads, 2 * gqa.head_dim, gqa.window),
    };
    let seen = sequence as f64 / 2.0;
    let seen = window.map_or(seen, |window| seen.min(window as f64));
    2.0 * heads as f64 * widths as f64 * seen
}
