//! What a run needs of memory, said before its first step.

use model::parameters::{ParameterSpec, Part, Place};
use model::spec::{Attention, BlockSpec, Ffn, ModelSpec, NormPlacement};
use serde::{Deserialize, Serialize};

use crate::optimizer::Optimizer;
use crate::recipe::{Precision, Recipe};
use crate::run::RunError;

const GIB: f64 = (1u64 << 30) as f64;

/// Rows of a panel: packed matrices are filled up to whole ones.
const PANEL: u64 = 16;
/// What every process takes: code, tokenizer, threads, files that are read.
const PROCESS: u64 = 40 << 20;

/// Bytes by what they are for. Pages of mapped files are not counted: the system drops them when it needs memory.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct MemoryPlan {
    /// f32 weights that are trained.
    pub masters: u64,
    /// Weights as products read them, both ways round.
    pub copies: u64,
    /// f32 gradients.
    pub gradients: u64,
    /// What the optimiser remembers.
    pub moments: u64,
    /// What a micro-batch leaves for its backward pass, and what passes and updates work with.
    pub activations: u64,
}

impl MemoryPlan {
    /// The plan of a recipe.
    pub fn of(recipe: &Recipe, spec: &ModelSpec) -> MemoryPlan {
        let all = spec.parameters();
        let adapters = recipe.lora.as_ref().and_then(|lora| lora.settings(spec).adapters(spec).ok());
        let trained: Vec<ParameterSpec> = match &adapters {
            None => all.clone(),
            Some(adapters) => adapters.iter().flat_map(|adapter| adapter.parts.clone()).collect(),
        };
        let floats = |list: &[ParameterSpec]| {
            let elements = list.iter().map(ParameterSpec::elements).fold(0, u64::saturating_add);
            elements.saturating_mul(4)
        };
        // Adapters: the gradients of one block of the model at a time, and a matrix that is being merged.
        let frozen = adapters.map_or(0, |_| {
            let of_block = |l: usize| {
                let own = |p: &&ParameterSpec| p.slot.place == Place::Block(l);
                all.iter().filter(own).map(ParameterSpec::elements).sum::<u64>()
            };
            let largest = all.iter().filter(|p| p.shape.len() == 2).map(ParameterSpec::elements).max().unwrap_or(0);
            let block = (0..spec.blocks.len()).map(of_block).max().unwrap_or(0);
            block.saturating_add(largest).saturating_mul(4)
        });
        let work = activations(recipe, spec).saturating_add(Optimizer::work_bytes(&recipe.optimizer, &trained));
        MemoryPlan {
            masters: floats(&trained),
            copies: copies(recipe, spec, &all),
            gradients: floats(&trained).saturating_add(frozen),
            moments: Optimizer::bytes(&recipe.optimizer, &trained),
            activations: work.saturating_add(PROCESS),
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

/// Packed matrices, both ways round; the latent's up projection whole and head by head.
fn copies(recipe: &Recipe, spec: &ModelSpec, parameters: &[ParameterSpec]) -> u64 {
    let bytes_of = |p: &ParameterSpec| match (recipe.train.precision, p.slot.part) {
        (Precision::F32, _) | (_, Part::Router) => 4,
        // Simulated: what FP8 holds is kept as floats.
        (Precision::Fp8, part) if !matches!(part, Part::Embedding | Part::Head) => 4,
        (Precision::Bf16 | Precision::Fp8, _) => 2,
    };
    let packed = |rows: u64, cols: u64| {
        let way = |outputs: u64, inputs: u64| outputs.next_multiple_of(PANEL).saturating_mul(inputs);
        way(rows, cols).saturating_add(way(cols, rows))
    };
    let each = |p: &ParameterSpec| {
        let [rows, cols] = *p.shape else { return p.elements().saturating_mul(4) };
        // That of a frozen model is looked up in its file.
        if recipe.lora.is_some() && p.slot.part == Part::Embedding && !spec.head.tied {
            return 0;
        }
        let (rows, cols) = (rows as u64, cols as u64);
        let block = match p.slot.place {
            Place::Block(l) => spec.blocks.get(l),
            Place::Mtp(i) => spec.mtp.get(i),
            Place::Model => None,
        };
        let heads = match block.map(|block| &block.attention) {
            Some(Attention::Mla(mla)) if p.slot.part == Part::KvUp => {
                let head = packed(mla.nope_dim as u64, cols).saturating_add(packed(mla.v_dim as u64, cols));
                head.saturating_mul(mla.heads as u64)
            }
            _ => 0,
        };
        packed(rows, cols).saturating_add(heads).saturating_mul(bytes_of(p))
    };
    parameters.iter().map(each).fold(0, u64::saturating_add)
}

/// Bytes that a micro-batch leaves behind, and that its passes work with.
fn activations(recipe: &Recipe, spec: &ModelSpec) -> u64 {
    let (tokens, hidden) = (recipe.train.micro_batch_tokens as u64, spec.hidden as u64);
    let modules = match recipe.train.mtp_weight.iter().any(|(_, weight)| *weight > 0.0) {
        true => spec.mtp.as_slice(),
        false => &[],
    };
    let kept = |block: &BlockSpec| block_floats(block, hidden);
    let largest = |of: &dyn Fn(&BlockSpec) -> u64| spec.blocks.iter().chain(modules).map(of).max().unwrap_or(0);
    let layers: u64 = match recipe.train.checkpointing {
        false => spec.blocks.iter().map(kept).sum(),
        true => largest(&kept) + hidden * spec.blocks.len() as u64,
    };
    // A module keeps its block, whatever the layers do, and thirteen rows of its own.
    let of_modules: u64 = modules.iter().map(|block| kept(block) + 13 * hidden).sum();
    let caches: u64 = spec.blocks.iter().chain(&spec.mtp).map(cache_floats).sum();
    // The residual stream, normed, and the gradients of both.
    let of_tokens = layers + of_modules + caches + 4 * hidden + largest(&|block| scratch_floats(block, hidden));
    let vocab = spec.vocab as u64;
    let rows = (HEAD_FLOATS / vocab / HEAD_ROWS).max(1) * HEAD_ROWS;
    let logits = rows.min(tokens).saturating_mul(vocab) * if recipe.teacher.is_some() { 2 } else { 1 };
    tokens.saturating_mul(of_tokens).saturating_add(logits).saturating_mul(4)
}

/// Logits that the head holds at a time, and the rows that it takes at least (`model::train`).
const HEAD_FLOATS: u64 = 1 << 21;
const HEAD_ROWS: u64 = 256;

/// Floats of a token in the cache of a block.
fn cache_floats(block: &BlockSpec) -> u64 {
    match &block.attention {
        Attention::Mla(mla) => mla.latent_dim() as u64,
        Attention::Gqa(gqa) => (2 * gqa.kv_heads * gqa.head_dim) as u64,
    }
}

/// Floats of a token in a block: residual stream, norms, attention, network. A choice of an expert with its places
/// takes eight.
fn block_floats(block: &BlockSpec, hidden: u64) -> u64 {
    let attention = match &block.attention {
        Attention::Mla(mla) => {
            let (key, v) = (mla.heads * mla.key_dim(), mla.heads * mla.v_dim);
            let expanded = mla.latent_dim() + mla.kv_rank + mla.heads * (mla.nope_dim + mla.v_dim) + 2 * (key + v);
            (2 * mla.q_rank.unwrap_or(0) + key + 2 * mla.latent_dim() + v + expanded) as u64
        }
        Attention::Gqa(gqa) => {
            let unnormed = if gqa.qk_norm_eps.is_some() { gqa.heads + gqa.kv_heads } else { 0 };
            ((2 * gqa.heads + 2 * gqa.kv_heads + unnormed) * gqa.head_dim) as u64
        }
    };
    let network = match &block.ffn {
        Ffn::Dense(dense) => 3 * dense.width as u64,
        Ffn::Moe(moe) => {
            let routed = moe.used as u64 * (3 * moe.expert.width as u64 + 2 * hidden + 8);
            routed + moe.shared.map_or(0, |shared| 3 * shared.width as u64 + hidden) + moe.experts as u64
        }
    };
    let norms = if block.norms == NormPlacement::Sandwich { 8 } else { 6 };
    norms * hidden + attention + network
}

/// Floats of a token that the backward pass of a block works with.
fn scratch_floats(block: &BlockSpec, hidden: u64) -> u64 {
    let attention = match &block.attention {
        Attention::Mla(mla) => {
            let (key, v) = (mla.heads * mla.key_dim(), mla.heads * mla.v_dim);
            let expanded = mla.latent_dim() + mla.kv_rank + mla.heads * (mla.nope_dim + mla.v_dim) + key + v;
            (2 * mla.q_rank.unwrap_or(0) + key + mla.latent_dim() + v + expanded) as u64
        }
        Attention::Gqa(gqa) => ((2 * gqa.heads + 2 * gqa.kv_heads) * gqa.head_dim) as u64,
    };
    let network = match &block.ffn {
        Ffn::Dense(dense) => 3 * dense.width as u64,
        Ffn::Moe(moe) => {
            let routed = moe.used as u64 * (3 * moe.expert.width as u64 + 3 * hidden + 1);
            routed + moe.shared.map_or(0, |shared| 3 * shared.width as u64) + moe.experts as u64
        }
    };
    2 * hidden + attention + network
}
