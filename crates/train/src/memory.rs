//! What a run needs of memory, said before its first step.

use model::parameters::ParameterSpec;
use model::spec::{Attention, BlockSpec, Ffn, ModelSpec};
use serde::{Deserialize, Serialize};

use crate::optimizer::Optimizer;
use crate::recipe::{Precision, Recipe};
use crate::run::RunError;

const GIB: f64 = (1u64 << 30) as f64;

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct MemoryPlan {
    /// f32 weights.
    pub masters: u64,
    /// Weights as products read them, both ways round.
    pub copies: u64,
    /// f32 gradients.
    pub gradients: u64,
    /// What the optimiser remembers.
    pub moments: u64,
    /// What a micro-batch leaves for its backward pass.
    pub activations: u64,
}

impl MemoryPlan {
    /// The plan of a recipe.
    pub fn of(recipe: &Recipe, spec: &ModelSpec) -> MemoryPlan {
        let parameters = spec.parameters();
        let elements: u64 = parameters.iter().map(ParameterSpec::elements).fold(0, u64::saturating_add);
        let copy = match recipe.train.precision {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        };
        MemoryPlan {
            masters: elements.saturating_mul(4),
            copies: elements.saturating_mul(2 * copy),
            gradients: elements.saturating_mul(4),
            moments: Optimizer::bytes(&recipe.optimizer, &parameters),
            activations: activations(recipe, spec),
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        let parts = [self.masters, self.copies, self.gradients, self.moments, self.activations];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    /// If less memory is free than is needed, with the parts and what would help.
    pub fn check(&self, free_bytes: Option<u64>) -> Result<(), RunError> {
        let Some(free) = free_bytes.filter(|&free| free < self.total()) else { return Ok(()) };
        let gib = |bytes: u64| bytes as f64 / GIB;
        let parts = format!(
            "weights {:.1}, copies {:.1}, gradients {:.1}, optimiser {:.1}, activations {:.1}",
            gib(self.masters),
            gib(self.copies),
            gib(self.gradients),
            gib(self.moments),
            gib(self.activations)
        );
        let advice = match self.activations > self.total() / 2 {
            true => "a smaller train.micro_batch_tokens or train.checkpointing = true takes less",
            false => "only a smaller model takes less",
        };
        Err(RunError::Memory { needed_gib: gib(self.total()), free_gib: gib(free), parts, advice })
    }
}

/// Floats that the forward pass of a micro-batch leaves behind.
fn activations(recipe: &Recipe, spec: &ModelSpec) -> u64 {
    let (tokens, hidden) = (recipe.train.micro_batch_tokens as u64, spec.hidden as u64);
    let blocks = || spec.blocks.iter().chain(&spec.mtp);
    let each = |block: &BlockSpec| block_floats(block, hidden);
    let layers: u64 = match recipe.train.checkpointing {
        false => blocks().map(each).sum(),
        true => blocks().map(each).max().unwrap_or(0) + hidden * blocks().count() as u64,
    };
    // Logits and their gradient, of the head and of each prediction module, one after the other.
    let head = 2 * spec.vocab as u64 + 4 * hidden;
    tokens.saturating_mul(layers + head).saturating_mul(4)
}

/// Floats of a token in a block: residual stream, norms, attention, network.
fn block_floats(block: &BlockSpec, hidden: u64) -> u64 {
    let attention = match &block.attention {
        Attention::Mla(mla) => {
            let heads = mla.heads as u64;
            let queries = heads * mla.key_dim() as u64 + mla.q_rank.unwrap_or(0) as u64 * 2;
            queries + heads * (mla.key_dim() + 2 * mla.v_dim) as u64 + 2 * mla.latent_dim() as u64
        }
        Attention::Gqa(gqa) => ((2 * gqa.heads + 2 * gqa.kv_heads) * gqa.head_dim) as u64,
    };
    let network = match &block.ffn {
        Ffn::Dense(dense) => 3 * dense.width as u64,
        Ffn::Moe(moe) => {
            let routed = moe.used as u64 * (3 * moe.expert.width as u64 + 2 * hidden);
            routed + moe.shared.map_or(0, |shared| 3 * shared.width as u64 + hidden) + 3 * moe.experts as u64
        }
    };
    4 * hidden + attention + network
}
