//! Grouped-query attention (Ainslie et al. 2023), with the variants of the families: biases, norms of
//! queries and keys, sliding windows, sinks.

use kernels::attention::{Cached, Plane, Shape, attend};
use kernels::ops;

use super::{Step, linear, sized};
use crate::spec::GqaSpec;
use crate::weights::GqaWeights;

/// What the layer computes on the way.
#[derive(Default)]
pub(crate) struct GqaActivations {
    /// `[T, heads * head_dim]`
    pub(crate) query: Vec<f32>,
    /// `[T, kv_heads * head_dim]`
    pub(crate) key: Vec<f32>,
    /// `[T, kv_heads * head_dim]`
    pub(crate) value: Vec<f32>,
    /// `[T, heads * head_dim]`, the weighted values of all heads.
    pub(crate) heads: Vec<f32>,
}

/// `out = attention(x)`, both `[T, hidden]`; keys and values of the batch go into the cache.
pub(crate) fn forward(
    spec: &GqaSpec,
    w: &GqaWeights,
    step: &Step,
    x: &[f32],
    keys: &mut Plane,
    values: &mut Plane,
    acts: &mut GqaActivations,
    out: &mut Vec<f32>,
) {
    let pool = step.pool;
    linear(pool, &mut acts.query, x, &w.query);
    linear(pool, &mut acts.key, x, &w.key);
    linear(pool, &mut acts.value, x, &w.value);
    let d = spec.head_dim;
    if let (Some(eps), Some(query_norm), Some(key_norm)) = (spec.qk_norm_eps, &w.query_norm, &w.key_norm) {
        ops::rms_norm_within(pool, &mut acts.query, d, 0, query_norm, eps);
        ops::rms_norm_within(pool, &mut acts.key, d, 0, key_norm, eps);
    }
    let (dim, layout) = (spec.rope.dim, spec.rope.layout);
    ops::rope(&mut acts.query, d, 0, dim, layout, step.angles, spec.heads);
    ops::rope(&mut acts.key, d, 0, dim, layout, step.angles, spec.kv_heads);
    super::store(keys, step.chunks, &acts.key);
    super::store(values, step.chunks, &acts.value);

    let shape = Shape {
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        key_dim: d,
        value_dim: d,
        scale: spec.scale,
        window: spec.window,
        softcap: None,
    };
    let heads = sized(&mut acts.heads, acts.query.len());
    attend(pool, &shape, heads, &acts.query, Cached::Separate(keys, values), step.chunks, w.sinks.as_deref(), None);
    linear(pool, out, &acts.heads, &w.output);
}
