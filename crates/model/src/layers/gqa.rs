//! Grouped-query attention (Ainslie et al. 2023), with the variants of the families: biases, norms of
//! queries and keys, sliding windows, sinks.

use kernels::attention::{Cached, Plane, Shape, attend};
use kernels::attention_backward::{KeyValueGradients, KeyValues, attend_backward};
use kernels::ops;
use kernels::train::backward::rms_norm_within_backward;

use super::{
    Backward, Gradients, Step, copy, linear, linear_backward, linear_backward_add, linears, rope, sized, store, unrope,
};
use crate::parameters::Part;
use crate::spec::GqaSpec;
use crate::weights::GqaWeights;

/// What the layer computes on the way.
#[derive(Default)]
pub(crate) struct GqaActivations {
    /// Queries and keys before their norms, where they have any.
    pub(crate) query_unnormed: Vec<f32>,
    pub(crate) key_unnormed: Vec<f32>,
    /// `[T, heads * head_dim]`, normed and rotated.
    pub(crate) query: Vec<f32>,
    /// `[T, kv_heads * head_dim]`, normed and rotated.
    pub(crate) key: Vec<f32>,
    /// `[T, kv_heads * head_dim]`
    pub(crate) value: Vec<f32>,
    /// `[T, heads * head_dim]`, the weighted values of all heads.
    pub(crate) heads: Vec<f32>,
}

/// Gradients of [`GqaActivations`].
#[derive(Default)]
pub(crate) struct GqaScratch {
    pub(crate) query: Vec<f32>,
    pub(crate) key: Vec<f32>,
    pub(crate) value: Vec<f32>,
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
    linears(pool, [&mut acts.query, &mut acts.key, &mut acts.value], x, [&w.query, &w.key, &w.value]);
    let d = spec.head_dim;
    if let (Some(eps), Some(query_norm), Some(key_norm)) = (spec.qk_norm_eps, &w.query_norm, &w.key_norm) {
        copy(pool, &mut acts.query_unnormed, &acts.query);
        copy(pool, &mut acts.key_unnormed, &acts.key);
        ops::rms_norm_within(pool, &mut acts.query, d, 0, query_norm, eps);
        ops::rms_norm_within(pool, &mut acts.key, d, 0, key_norm, eps);
    }
    let rotated = (spec.rope.dim, spec.rope.layout);
    rope(pool, &mut acts.query, (d, 0), rotated, step.angles, spec.heads);
    rope(pool, &mut acts.key, (d, 0), rotated, step.angles, spec.kv_heads);
    store(keys, step.chunks, &acts.key);
    store(values, step.chunks, &acts.value);

    let (shape, sinks) = (shape(spec), w.sinks.as_deref());
    let heads = sized(&mut acts.heads, acts.query.len());
    attend(pool, &shape, heads, &acts.query, Cached::Separate(keys, values), step.chunks, sinks, None);
    linear(pool, out, &acts.heads, &w.output);
}

/// From the gradient of `out` to that of `x`.
pub(crate) fn backward(
    spec: &GqaSpec,
    w: &GqaWeights,
    t: &Backward,
    dx: &mut Vec<f32>,
    dout: &[f32],
    x: &[f32],
    acts: &GqaActivations,
    s: &mut GqaScratch,
    g: &mut Gradients,
) {
    let (pool, d) = (t.step.pool, spec.head_dim);
    linear_backward(
        t,
        &mut s.heads,
        dout,
        &acts.heads,
        &w.output,
        g,
        [Part::AttentionOutput, Part::AttentionOutputBias],
    );

    let shape = shape(spec);
    let sinks = w.sinks.as_deref().map(|sinks| (sinks, g.of(Part::Sinks)));
    let kv = KeyValues::Separate(&acts.key, &acts.value);
    let dq = sized(&mut s.query, acts.query.len());
    let (dk, dv) = (sized(&mut s.key, acts.key.len()), sized(&mut s.value, acts.value.len()));
    let dkv = KeyValueGradients::Separate(dk, dv);
    attend_backward(pool, &shape, t.sequences, &acts.query, kv, sinks, &s.heads, dq, dkv);

    let rotated = (spec.rope.dim, spec.rope.layout);
    unrope(pool, &mut s.key, (d, 0), rotated, t.step.angles, spec.kv_heads);
    unrope(pool, &mut s.query, (d, 0), rotated, t.step.angles, spec.heads);
    if let (Some(eps), Some(query_norm), Some(key_norm)) = (spec.qk_norm_eps, &w.query_norm, &w.key_norm) {
        rms_norm_within_backward(pool, &mut s.key, g.of(Part::KeyNorm), &acts.key_unnormed, d, 0, key_norm, eps);
        rms_norm_within_backward(
            pool,
            &mut s.query,
            g.of(Part::QueryNorm),
            &acts.query_unnormed,
            d,
            0,
            query_norm,
            eps,
        );
    }
    linear_backward(t, dx, &s.value, x, &w.value, g, [Part::Value, Part::ValueBias]);
    linear_backward_add(t, dx, &s.key, x, &w.key, g, [Part::Key, Part::KeyBias]);
    linear_backward_add(t, dx, &s.query, x, &w.query, g, [Part::Query, Part::QueryBias]);
}

fn shape(spec: &GqaSpec) -> Shape {
    Shape {
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        key_dim: spec.head_dim,
        value_dim: spec.head_dim,
        scale: spec.scale,
        window: spec.window,
        softcap: None,
    }
}
