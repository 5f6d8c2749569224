//! Multi-head latent attention.
//!
//! Equation numbers are those of the DeepSeek-V3 report (section 2.1.1); `docs/NOTATION.md` maps its
//! symbols to the names here and to checkpoint tensors. Two arithmetics give the same result up to
//! rounding: the expanded one forms every head's keys and values from the cached latents, the
//! absorbed one (V2 report, section 2.1.2) moves the up projections to the query and the output, so
//! that all heads attend to the latent itself.

use kernels::attention::{CacheFormat, Cached, Chunk, PAGE_LEN, Plane, Selection, Shape, attend};
use kernels::attention_backward::{KeyValueGradients, KeyValues, attend_backward};
use kernels::matmul::{HeadWeight, matmul, matmul_heads};
use kernels::ops;
use kernels::train::backward::{rms_norm_backward, rms_norm_within_backward};
use kernels::train::products::{matmul_dw, matmul_dx, matmul_dx_add, matmul_heads_dw, matmul_heads_dx};

use super::{
    Backward, Gradients, Step, copy, for_rows, indexer, linear, linear_backward, linear_backward_add, rope, sized,
    store, unrope,
};
use crate::parameters::Part;
use crate::spec::MlaSpec;
use crate::weights::{MlaWeights, QueryWeights};

/// How latent attention computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Heads attend to the latent; nothing is formed for each cached token.
    #[default]
    Absorbed,
    /// Keys and values of all heads are formed from the latents at every call.
    Expanded,
}

/// What the layer computes on the way.
#[derive(Default)]
pub(crate) struct MlaActivations {
    /// c^Q before and after its norm, `[T, q_rank]`.
    pub(crate) query_latent: Vec<f32>,
    pub(crate) query_latent_normed: Vec<f32>,
    /// `[T, heads * (nope_dim + rope_dim)]`
    pub(crate) query: Vec<f32>,
    /// `[c^KV | k^R]` before norm and rotation, `[T, kv_rank + rope_dim]`.
    pub(crate) latent_unnormed: Vec<f32>,
    /// The same after them.
    pub(crate) latent: Vec<f32>,
    /// o, `[T, heads * v_dim]`
    pub(crate) heads: Vec<f32>,
    pub(crate) absorbed: Absorbed,
    pub(crate) expanded: Expanded,
    pub(crate) indexer: indexer::IndexerActivations,
}

/// What the absorbed arithmetic computes on the way; gradients of it too.
#[derive(Default)]
pub(crate) struct Absorbed {
    /// `[T, heads * nope_dim]`
    pub(crate) query_nope: Vec<f32>,
    /// `[T, heads * kv_rank]`
    pub(crate) query_absorbed: Vec<f32>,
    /// `[T, heads * (kv_rank + rope_dim)]`
    pub(crate) query_wide: Vec<f32>,
    /// `[T, heads * kv_rank]`
    pub(crate) latent_sum: Vec<f32>,
}

/// What the expanded arithmetic computes on the way, a row for each position that a chunk sees (S in
/// all; where chunks are whole sequences, S is T); gradients of it too.
#[derive(Default)]
pub(crate) struct Expanded {
    /// `[c^KV | k^R]`, `[S, kv_rank + rope_dim]`
    pub(crate) latent: Vec<f32>,
    /// c^KV, `[S, kv_rank]`
    pub(crate) compressed: Vec<f32>,
    /// k^C and v^C of all heads, `[S, heads * (nope_dim + v_dim)]`
    pub(crate) both: Vec<f32>,
    /// k, `[S, heads * (nope_dim + rope_dim)]`
    pub(crate) key: Vec<f32>,
    /// v^C, `[S, heads * v_dim]`
    pub(crate) value: Vec<f32>,
    /// Keys and values in so many pages.
    planes: Option<(usize, Plane, Plane)>,
}

/// Gradients of [`MlaActivations`].
#[derive(Default)]
pub(crate) struct MlaScratch {
    pub(crate) query_latent: Vec<f32>,
    pub(crate) query_latent_normed: Vec<f32>,
    pub(crate) query: Vec<f32>,
    pub(crate) latent: Vec<f32>,
    pub(crate) heads: Vec<f32>,
    pub(crate) absorbed: Absorbed,
    pub(crate) expanded: Expanded,
}

/// `out = attention(x)`, both `[T, hidden]`; the latents of the batch go into the cache.
pub(crate) fn forward(
    spec: &MlaSpec,
    w: &MlaWeights,
    step: &Step,
    x: &[f32],
    latents: &mut Plane,
    index_keys: Option<&mut Plane>,
    acts: &mut MlaActivations,
    out: &mut Vec<f32>,
) {
    let pool = step.pool;
    let tokens = x.len() / w.kv_down.weight.cols();
    let rotated = (spec.rope.dim, spec.rope.layout);

    match &w.query {
        QueryWeights::Full(weight) => {
            matmul(pool, sized(&mut acts.query, tokens * weight.rows()), x, weight);
        }
        QueryWeights::Compressed { down, norm, up } => {
            linear(pool, &mut acts.query_latent, x, down); // (6)
            let normed = sized(&mut acts.query_latent_normed, acts.query_latent.len());
            ops::rms_norm(pool, normed, &acts.query_latent, norm, spec.latent_norm_eps);
            matmul(pool, sized(&mut acts.query, tokens * up.rows()), normed, up); // (7), (8)
        }
    }
    rope(pool, &mut acts.query, (spec.key_dim(), spec.nope_dim), rotated, step.angles, spec.heads); // (8)

    linear(pool, &mut acts.latent_unnormed, x, &w.kv_down); // (1), (3)
    copy(pool, &mut acts.latent, &acts.latent_unnormed);
    ops::rms_norm_within(pool, &mut acts.latent, spec.latent_dim(), 0, &w.kv_norm, spec.latent_norm_eps);
    rope(pool, &mut acts.latent, (spec.latent_dim(), spec.kv_rank), rotated, step.angles, 1); // (3)
    store(latents, step.chunks, &acts.latent);

    let chosen = match (&spec.indexer, &w.indexer, index_keys) {
        (Some(spec), Some(w), Some(keys)) => {
            Some(indexer::select(spec, w, step, x, &acts.query_latent_normed, keys, &mut acts.indexer))
        }
        _ => None,
    };
    match step.arithmetic {
        Arithmetic::Absorbed => absorbed(spec, w, step, latents, chosen.as_deref(), acts),
        Arithmetic::Expanded => expanded(spec, w, step, latents, chosen.as_deref(), acts),
    }
    linear(pool, out, &acts.heads, &w.output); // (11)
}

/// From the gradient of `out` to that of `x`. The indexer's choice has no gradient.
pub(crate) fn backward(
    spec: &MlaSpec,
    w: &MlaWeights,
    t: &Backward,
    dx: &mut Vec<f32>,
    dout: &[f32],
    x: &[f32],
    acts: &MlaActivations,
    s: &mut MlaScratch,
    g: &mut Gradients,
) {
    let (pool, eps) = (t.step.pool, spec.latent_norm_eps);
    let rotated = (spec.rope.dim, spec.rope.layout);

    let output = [Part::AttentionOutput, Part::AttentionOutputBias];
    linear_backward(t, &mut s.heads, dout, &acts.heads, &w.output, g, output); // (11)
    match t.step.arithmetic {
        Arithmetic::Absorbed => absorbed_backward(spec, w, t, acts, s, g.of(Part::KvUp)),
        Arithmetic::Expanded => expanded_backward(spec, w, t, acts, s, g.of(Part::KvUp)),
    }

    unrope(pool, &mut s.latent, (spec.latent_dim(), spec.kv_rank), rotated, t.step.angles, 1); // (3)
    let (unnormed, width) = (&acts.latent_unnormed, spec.latent_dim());
    rms_norm_within_backward(pool, &mut s.latent, g.of(Part::KvNorm), unnormed, width, 0, &w.kv_norm, eps);
    linear_backward(t, dx, &s.latent, x, &w.kv_down, g, [Part::KvDown, Part::KvDownBias]); // (1), (3)

    unrope(pool, &mut s.query, (spec.key_dim(), spec.nope_dim), rotated, t.step.angles, spec.heads); // (8)
    match &w.query {
        QueryWeights::Full(weight) => {
            matmul_dw(pool, g.of(Part::Query), &s.query, x, t.precision);
            matmul_dx_add(pool, dx, &s.query, weight);
        }
        QueryWeights::Compressed { down, norm, up } => {
            matmul_dw(pool, g.of(Part::QueryUp), &s.query, &acts.query_latent_normed, t.precision); // (7), (8)
            let normed = sized(&mut s.query_latent_normed, acts.query_latent.len());
            matmul_dx(pool, normed, &s.query, up);
            let latent = sized(&mut s.query_latent, normed.len());
            rms_norm_backward(pool, latent, g.of(Part::QueryNorm), normed, &acts.query_latent, norm, eps);
            linear_backward_add(t, dx, latent, x, down, g, [Part::QueryDown, Part::QueryDownBias]); // (6)
        }
    }
}

/// (2), (5) and (10) with W^UK taken into the query and W^UV into the output.
fn absorbed(
    spec: &MlaSpec,
    w: &MlaWeights,
    step: &Step,
    latents: &Plane,
    chosen: Selection,
    acts: &mut MlaActivations,
) {
    let (pool, rank, a) = (step.pool, spec.kv_rank, &mut acts.absorbed);
    let rows = acts.query.len() / spec.key_dim(); // tokens * heads
    let query = |r: usize| &acts.query[r * spec.key_dim()..][..spec.key_dim()];
    sized(&mut a.query_nope, rows * spec.nope_dim);
    for_rows(pool, &mut a.query_nope, spec.nope_dim, |r, to| to.copy_from_slice(&query(r)[..spec.nope_dim]));
    matmul_heads(pool, sized(&mut a.query_absorbed, rows * rank), &a.query_nope, &w.key_up);
    sized(&mut a.query_wide, rows * spec.latent_dim());
    for_rows(pool, &mut a.query_wide, spec.latent_dim(), |r, to| {
        to[..rank].copy_from_slice(&a.query_absorbed[r * rank..][..rank]);
        to[rank..].copy_from_slice(&query(r)[spec.nope_dim..]);
    });
    let sum = sized(&mut a.latent_sum, rows * rank);
    attend(pool, &shape_absorbed(spec), sum, &a.query_wide, Cached::Latent(latents), step.chunks, None, chosen);
    matmul_heads(pool, sized(&mut acts.heads, rows * spec.v_dim), sum, &w.value_up);
}

/// From the gradient of `heads` to those of `query` and `latent`.
fn absorbed_backward(
    spec: &MlaSpec,
    w: &MlaWeights,
    t: &Backward,
    acts: &MlaActivations,
    s: &mut MlaScratch,
    kv_up: &mut [f32],
) {
    let (pool, rank, a) = (t.step.pool, spec.kv_rank, &mut s.absorbed);
    let rows = acts.query.len() / spec.key_dim();
    let (mut key_up, mut value_up): (Vec<_>, Vec<_>) = kv_up
        .chunks_exact_mut((spec.nope_dim + spec.v_dim) * rank)
        .map(|head| head.split_at_mut(spec.nope_dim * rank))
        .unzip();
    matmul_heads_dw(pool, &mut value_up, &s.heads, &acts.absorbed.latent_sum, &w.value_up, t.precision);
    matmul_heads_dx(pool, sized(&mut a.latent_sum, rows * rank), &s.heads, &w.value_up);

    let dq = sized(&mut a.query_wide, rows * spec.latent_dim());
    let dkv = KeyValueGradients::Latent(sized(&mut s.latent, acts.latent.len()));
    let (q, kv) = (&acts.absorbed.query_wide, KeyValues::Latent(&acts.latent));
    attend_backward(pool, &shape_absorbed(spec), t.sequences, q, kv, None, &a.latent_sum, dq, dkv);

    let wide = |r: usize| &a.query_wide[r * spec.latent_dim()..][..spec.latent_dim()];
    sized(&mut a.query_absorbed, rows * rank);
    for_rows(pool, &mut a.query_absorbed, rank, |r, to| to.copy_from_slice(&wide(r)[..rank]));
    matmul_heads_dw(pool, &mut key_up, &a.query_absorbed, &acts.absorbed.query_nope, &w.key_up, t.precision);
    matmul_heads_dx(pool, sized(&mut a.query_nope, rows * spec.nope_dim), &a.query_absorbed, &w.key_up);
    sized(&mut s.query, acts.query.len());
    for_rows(pool, &mut s.query, spec.key_dim(), |r, to| {
        to[..spec.nope_dim].copy_from_slice(&a.query_nope[r * spec.nope_dim..][..spec.nope_dim]);
        to[spec.nope_dim..].copy_from_slice(&wide(r)[rank..]);
    });
}

fn shape_absorbed(spec: &MlaSpec) -> Shape {
    shape(spec, 1, spec.latent_dim(), spec.kv_rank)
}

fn shape(spec: &MlaSpec, kv_heads: usize, key_dim: usize, value_dim: usize) -> Shape {
    Shape { heads: spec.heads, kv_heads, key_dim, value_dim, scale: spec.scale, window: None, softcap: None }
}

/// (2), (4), (5) and (10) as they stand.
fn expanded(
    spec: &MlaSpec,
    w: &MlaWeights,
    step: &Step,
    latents: &Plane,
    chosen: Selection,
    acts: &mut MlaActivations,
) {
    let (h, e) = (spec.heads, &mut acts.expanded);
    expand(spec, w, step, latents, e);
    // The keys of each chunk in pages of their own.
    let pages = |chunk: &Chunk| (chunk.position + chunk.rows).div_ceil(PAGE_LEN);
    let count: usize = step.chunks.iter().map(pages).sum();
    let all: Vec<u32> = (0..count as u32).collect();
    let mut rest = all.as_slice();
    let mut own = Vec::with_capacity(step.chunks.len());
    for chunk in step.chunks {
        let (first, after) = rest.split_at(pages(chunk));
        own.push(Chunk { pages: first, ..*chunk });
        rest = after;
    }
    if e.planes.as_ref().is_none_or(|planes| planes.0 < count) {
        let plane = |width: usize| Plane::new(CacheFormat::F32, h * width, count);
        e.planes = Some((count, plane(spec.key_dim()), plane(spec.v_dim)));
    }
    let (_, keys, values) = e.planes.as_mut().expect("made above");
    let mut row = 0;
    for chunk in &own {
        for position in 0..chunk.position + chunk.rows {
            keys.store(chunk.pages, position, &e.key[row * h * spec.key_dim()..][..h * spec.key_dim()]);
            values.store(chunk.pages, position, &e.value[row * h * spec.v_dim..][..h * spec.v_dim]);
            row += 1;
        }
    }
    let out = sized(&mut acts.heads, acts.query.len() / spec.key_dim() * spec.v_dim);
    attend(step.pool, &shape_expanded(spec), out, &acts.query, Cached::Separate(keys, values), &own, None, chosen);
}

fn shape_expanded(spec: &MlaSpec) -> Shape {
    shape(spec, spec.heads, spec.key_dim(), spec.v_dim)
}

/// Keys and values of all heads for every position that a chunk sees.
fn expand(spec: &MlaSpec, w: &MlaWeights, step: &Step, latents: &Plane, e: &mut Expanded) {
    let (pool, rank, width) = (step.pool, spec.kv_rank, spec.latent_dim());
    let seen: usize = step.chunks.iter().map(|c| c.position + c.rows).sum();
    let mut rest = sized(&mut e.latent, seen * width);
    for chunk in step.chunks {
        let (rows, after) = rest.split_at_mut((chunk.position + chunk.rows) * width);
        for_rows(pool, rows, width, |position, to| latents.row(chunk.pages, position, to));
        rest = after;
    }
    let latent = |r: usize| &e.latent[r * width..][..width];
    sized(&mut e.compressed, seen * rank);
    for_rows(pool, &mut e.compressed, rank, |r, to| to.copy_from_slice(&latent(r)[..rank]));
    up(spec, w, step, e.compressed.as_slice(), sized(&mut e.both, seen * spec.heads * (spec.nope_dim + spec.v_dim)));
    let both = |r: usize| &e.both[r * (spec.nope_dim + spec.v_dim)..][..spec.nope_dim + spec.v_dim];
    sized(&mut e.key, seen * spec.heads * spec.key_dim());
    for_rows(pool, &mut e.key, spec.key_dim(), |r, to| {
        to[..spec.nope_dim].copy_from_slice(&both(r)[..spec.nope_dim]);
        to[spec.nope_dim..].copy_from_slice(&latent(r / spec.heads)[rank..]); // (4)
    });
    sized(&mut e.value, seen * spec.heads * spec.v_dim);
    for_rows(pool, &mut e.value, spec.v_dim, |r, to| to.copy_from_slice(&both(r)[spec.nope_dim..]));
}

/// (2) and (5): head by head k^C and v^C.
fn up(spec: &MlaSpec, w: &MlaWeights, step: &Step, compressed: &[f32], both: &mut [f32]) {
    let (pool, h, rank) = (step.pool, spec.heads, spec.kv_rank);
    if let Some(weight) = &w.kv_up {
        matmul(pool, both, compressed, weight);
        return;
    }
    // Stored in two: every head reads the same latent, and W^UK is used in the other direction.
    let key_up: Vec<HeadWeight> =
        w.key_up.iter().map(|k| HeadWeight { weight: k.weight.clone(), transposed: !k.transposed }).collect();
    let rows = compressed.len() / rank * h;
    let mut repeated = vec![0.0; rows * rank];
    for_rows(pool, &mut repeated, rank, |r, to| to.copy_from_slice(&compressed[r / h * rank..][..rank]));
    let (mut nope, mut value) = (vec![0.0; rows * spec.nope_dim], vec![0.0; rows * spec.v_dim]);
    matmul_heads(pool, &mut nope, &repeated, &key_up);
    matmul_heads(pool, &mut value, &repeated, &w.value_up);
    for_rows(pool, both, spec.nope_dim + spec.v_dim, |r, to| {
        to[..spec.nope_dim].copy_from_slice(&nope[r * spec.nope_dim..][..spec.nope_dim]);
        to[spec.nope_dim..].copy_from_slice(&value[r * spec.v_dim..][..spec.v_dim]);
    });
}

/// From the gradient of `heads` to those of `query` and `latent`.
fn expanded_backward(
    spec: &MlaSpec,
    w: &MlaWeights,
    t: &Backward,
    acts: &MlaActivations,
    s: &mut MlaScratch,
    kv_up: &mut [f32],
) {
    let (pool, h, rank) = (t.step.pool, spec.heads, spec.kv_rank);
    let (forward, e) = (&acts.expanded, &mut s.expanded);
    let dq = sized(&mut s.query, acts.query.len());
    let (dk, dv) = (sized(&mut e.key, forward.key.len()), sized(&mut e.value, forward.value.len()));
    let dkv = KeyValueGradients::Separate(dk, dv);
    let (q, kv) = (&acts.query, KeyValues::Separate(&forward.key, &forward.value));
    attend_backward(pool, &shape_expanded(spec), t.sequences, q, kv, None, &s.heads, dq, dkv);

    let key = |r: usize| &e.key[r * spec.key_dim()..][..spec.key_dim()];
    sized(&mut e.both, forward.both.len());
    for_rows(pool, &mut e.both, spec.nope_dim + spec.v_dim, |r, to| {
        to[..spec.nope_dim].copy_from_slice(&key(r)[..spec.nope_dim]);
        to[spec.nope_dim..].copy_from_slice(&e.value[r * spec.v_dim..][..spec.v_dim]);
    });
    let weight = w.kv_up.as_ref().expect("a model in training has the projection in one");
    matmul_dw(pool, kv_up, &e.both, &forward.compressed, t.precision); // (2), (5)
    matmul_dx(pool, sized(&mut e.compressed, forward.compressed.len()), &e.both, weight);
    sized(&mut s.latent, acts.latent.len());
    for_rows(pool, &mut s.latent, spec.latent_dim(), |r, to| {
        to[..rank].copy_from_slice(&e.compressed[r * rank..][..rank]);
        to[rank..].fill(0.0);
        for head in 0..h {
            ops::add(&mut to[rank..], &key(r * h + head)[spec.nope_dim..]); // (4)
        }
    });
}
