//! The lightning indexer of DeepSeek-V3.2 (V3.2-Exp report, section 2, equation 1): small heads score
//! every token before, and attention looks only at the best.

use kernels::attention::{Plane, index_scores};
use kernels::matmul::matmul;
use kernels::ops;

use super::{Step, sized, store};
use crate::spec::IndexerSpec;
use crate::weights::IndexerWeights;

/// What the indexer computes on the way.
#[derive(Default)]
pub(crate) struct IndexerActivations {
    /// q^I, `[T, heads * dim]`
    pub(crate) query: Vec<f32>,
    /// k^I, `[T, dim]`
    pub(crate) key: Vec<f32>,
    /// w^I, `[T, heads]`
    pub(crate) weights: Vec<f32>,
}

/// For each row of the batch, the sorted positions that its attention looks at.
///
/// `x` is the block's normed input, `query_latent` the normed compressed query.
pub(crate) fn select(
    spec: &IndexerSpec,
    w: &IndexerWeights,
    step: &Step,
    x: &[f32],
    query_latent: &[f32],
    keys: &mut Plane,
    acts: &mut IndexerActivations,
) -> Vec<Vec<u32>> {
    let pool = step.pool;
    let tokens = x.len() / w.key.cols();
    let angles = step.index_angles.expect("the indexer's rotary embedding is in the spec");
    let (dim, layout) = (spec.rope.dim, spec.rope.layout);

    matmul(pool, sized(&mut acts.query, tokens * spec.heads * spec.dim), query_latent, &w.query);
    ops::rope(&mut acts.query, spec.dim, 0, dim, layout, angles, spec.heads);
    matmul(pool, sized(&mut acts.key, tokens * spec.dim), x, &w.key);
    ops::layer_norm(pool, &mut acts.key, &w.key_norm, &w.key_norm_bias, spec.norm_eps);
    ops::rope(&mut acts.key, spec.dim, 0, dim, layout, angles, 1);
    store(keys, step.chunks, &acts.key);
    matmul(pool, sized(&mut acts.weights, tokens * spec.heads), x, &w.head_weights);
    ops::scale(&mut acts.weights, (spec.heads as f32).powf(-0.5));

    let mut chosen = Vec::with_capacity(tokens);
    for chunk in step.chunks {
        for i in 0..chunk.rows {
            let (row, seen) = (chunk.first_row + i, chunk.position + i + 1);
            if seen <= spec.top_k {
                chosen.push((0..seen as u32).collect());
                continue;
            }
            let query = &acts.query[row * spec.heads * spec.dim..][..spec.heads * spec.dim];
            let weights = &acts.weights[row * spec.heads..][..spec.heads];
            let scores = index_scores(pool, keys, chunk.pages, seen, query, weights, (spec.dim as f32).powf(-0.5));
            chosen.push(best(&scores, spec.top_k));
        }
    }
    chosen
}

/// The positions of the `count` largest scores, sorted; of equal scores the earlier position.
fn best(scores: &[f32], count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let by_score = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
    order.select_nth_unstable_by(count - 1, by_score);
    order.truncate(count);
    order.sort_unstable();
    order
}
