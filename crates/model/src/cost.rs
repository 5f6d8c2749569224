//! What a forward pass costs: the bytes that it must read and the operations that it must do.
//!
//! These are the least that any program needs: each matrix that is used is read once however many
//! rows it meets, each cached row once. Dividing them by what a machine can read and compute in a
//! second gives the limit that speeds are compared with. Norms, biases and activations are left out;
//! together they are less than a hundredth of a model.

use kernels::attention::CacheFormat;
use kernels::format::Format;
use kernels::weight::Weight;

use crate::cache::Cache;
use crate::load::Model;
use crate::spec::{Attention, BlockSpec, Ffn};
use crate::weights::{AttentionWeights, BlockWeights, FfnWeights, GatedWeights, QueryWeights};

/// A forward pass: the same number of new tokens of several sequences, all of one depth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Sequences in the batch.
    pub sequences: usize,
    /// New tokens of each.
    pub tokens: usize,
    /// Tokens of each that are in the cache before.
    pub depth: usize,
    /// Rows whose logits are wanted, in all.
    pub logits: usize,
    /// How the cache is stored.
    pub cache: CacheFormat,
}

/// What the work costs, all rows together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes of weights that are read. Of a mixture's experts so many as are used on average where
    /// every expert is as likely as any other.
    pub weight_bytes: f64,
    /// Bytes of the cache that are read or written.
    pub cache_bytes: f64,
    /// Operations of products with weights by the format that these are stored in; a multiplication
    /// and an addition are two.
    pub product_operations: Vec<(Format, f64)>,
    /// Operations of attention: scores and weighted values, over what each token may see.
    pub attention_operations: f64,
}

impl Cost {
    /// Weights and cache.
    pub fn bytes(&self) -> f64 {
        self.weight_bytes + self.cache_bytes
    }

    /// Products and attention.
    pub fn operations(&self) -> f64 {
        self.product_operations.iter().map(|(_, n)| n).sum::<f64>() + self.attention_operations
    }

    /// A matrix: the number of its copies that are read, and of rows that are multiplied with one.
    fn add(&mut self, weight: &Weight, copies: f64, rows: f64) {
        self.weight_bytes += weight.bytes() as f64 * copies;
        let operations = 2.0 * weight.rows() as f64 * weight.cols() as f64 * rows;
        match self.product_operations.iter_mut().find(|(format, _)| *format == weight.format()) {
            Some((_, sum)) => *sum += operations,
            None => self.product_operations.push((weight.format(), operations)),
        }
    }
}

impl Model {
    /// What `work` costs at least.
    pub fn cost(&self, work: &Work) -> Cost {
        let mut cost = Cost::default();
        let rows = (work.sequences * work.tokens) as f64;
        for (spec, weights) in self.spec.blocks.iter().zip(&self.weights.blocks) {
            attention_matrices(&weights.attention).into_iter().for_each(|weight| cost.add(weight, 1.0, rows));
            ffn_cost(&mut cost, spec, weights, rows);
            attention_cost(&mut cost, spec, work);
        }
        let embedding = &self.weights.embedding;
        cost.weight_bytes += embedding.bytes() as f64 / embedding.rows().max(1) as f64 * rows;
        if work.logits > 0 {
            cost.add(self.weights.head.as_ref().unwrap_or(embedding), 1.0, work.logits as f64);
        }
        cost
    }
}

fn attention_matrices(weights: &AttentionWeights) -> Vec<&Weight> {
    match weights {
        AttentionWeights::Mla(w) => {
            let mut list = match &w.query {
                QueryWeights::Full(weight) => vec![weight],
                QueryWeights::Compressed { down, up, .. } => vec![&down.weight, up],
            };
            list.push(&w.kv_down.weight);
            list.extend(w.key_up.iter().chain(&w.value_up).map(|head| &head.weight));
            list.push(&w.output.weight);
            if let Some(indexer) = &w.indexer {
                list.extend([&indexer.query, &indexer.key, &indexer.head_weights]);
            }
            list
        }
        AttentionWeights::Gqa(w) => vec![&w.query.weight, &w.key.weight, &w.value.weight, &w.output.weight],
    }
}

fn gated_matrices(weights: &GatedWeights) -> [&Weight; 3] {
    [&weights.gate.weight, &weights.up.weight, &weights.down.weight]
}

fn ffn_cost(cost: &mut Cost, spec: &BlockSpec, weights: &BlockWeights, rows: f64) {
    match (&spec.ffn, &weights.ffn) {
        (Ffn::Dense(_), FfnWeights::Dense(dense)) => {
            gated_matrices(dense).into_iter().for_each(|weight| cost.add(weight, 1.0, rows));
        }
        (Ffn::Moe(moe), FfnWeights::Moe(w)) => {
            cost.add(&w.router.weight, 1.0, rows);
            let (experts, used) = (moe.experts as f64, moe.used as f64);
            // Each row leaves an expert out with this probability; all experts are of one shape.
            let copies = experts * (1.0 - (1.0 - used / experts).powf(rows));
            if let Some(expert) = w.experts.first() {
                gated_matrices(expert).into_iter().for_each(|weight| cost.add(weight, copies, rows * used));
            }
            if let Some(shared) = &w.shared {
                gated_matrices(shared).into_iter().for_each(|weight| cost.add(weight, 1.0, rows));
            }
        }
        _ => unreachable!("weights are made from the spec"),
    }
}

/// Cached bytes and the operations on them.
fn attention_cost(cost: &mut Cost, spec: &BlockSpec, work: &Work) {
    let (depth, tokens, sequences) = (work.depth, work.tokens, work.sequences as f64);
    // Positions that the tokens see, each for itself, where one sees at most `limit`.
    let seen = |limit: usize| (depth + 1..=depth + tokens).map(|n| n.min(limit) as f64).sum::<f64>();
    let written = tokens as f64 * Cache::token_bytes(spec, work.cache) as f64;
    let (operations, read) = match &spec.attention {
        Attention::Mla(mla) => {
            let each = 2 * mla.heads * (mla.latent_dim() + mla.kv_rank);
            let limit = mla.indexer.as_ref().map_or(usize::MAX, |i| i.top_k);
            let index = mla.indexer.as_ref().map_or((0, 0), |i| (2 * i.heads * i.dim, work.cache.row_bytes(i.dim)));
            // Different tokens choose different positions: at most all of them are read.
            let latents = depth.min(tokens.saturating_mul(limit)) * work.cache.row_bytes(mla.latent_dim());
            (seen(limit) * each as f64 + seen(usize::MAX) * index.0 as f64, latents + depth * index.1)
        }
        Attention::Gqa(gqa) => {
            let limit = gqa.window.unwrap_or(usize::MAX);
            let each = 4 * gqa.heads * gqa.head_dim;
            (seen(limit) * each as f64, depth.min(limit.saturating_sub(1)) * Cache::token_bytes(spec, work.cache))
        }
    };
    cost.attention_operations += operations * sequences;
    cost.cache_bytes += (read as f64 + written) * sequences;
}
