//! Multi-head latent attention.
//!
//! Equation numbers are those of the DeepSeek-V3 report (section 2.1.1); `docs/NOTATION.md` maps its
//! symbols to the names here and to checkpoint tensors. Two arithmetics give the same result up to
//! rounding: the expanded one forms every head's keys and values from the cached latents, the
//! absorbed one (V2 report, section 2.1.2) moves the up projections to the query and the output, so
//! that all heads attend to the latent itself.

use kernels::attention::{CacheFormat, Cached, Chunk, PAGE_LEN, Plane, Selection, Shape, attend};
use kernels::matmul::{HeadWeight, matmul, matmul_heads};
use kernels::ops;

use super::{Step, indexer, linear, sized, store};
use crate::spec::MlaSpec;
use crate::weights::{MlaWeights, QueryWeights};

/// How latent attention computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Heads attend to the latent; nothing is formed for each cached token.
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
    /// `[c^KV | k^R]`, `[T, kv_rank + rope_dim]`
    pub(crate) latent: Vec<f32>,
    /// `[T, heads * nope_dim]`
    pub(crate) query_nope: Vec<f32>,
    /// `[T, heads * kv_rank]`
    pub(crate) query_absorbed: Vec<f32>,
    /// `[T, heads * (kv_rank + rope_dim)]`
    pub(crate) query_wide: Vec<f32>,
    /// `[T, heads * kv_rank]`
    pub(crate) latent_sum: Vec<f32>,
    /// o, `[T, heads * v_dim]`
    pub(crate) heads: Vec<f32>,
    pub(crate) indexer: indexer::IndexerActivations,
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
    let (rope_dim, layout) = (spec.rope.dim, spec.rope.layout);

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
    ops::rope(&mut acts.query, spec.key_dim(), spec.nope_dim, rope_dim, layout, step.angles, spec.heads); // (8)

    linear(pool, &mut acts.latent, x, &w.kv_down); // (1), (3)
    ops::rms_norm_within(pool, &mut acts.latent, spec.latent_dim(), 0, &w.kv_norm, spec.latent_norm_eps);
    ops::rope(&mut acts.latent, spec.latent_dim(), spec.kv_rank, rope_dim, layout, step.angles, 1); // (3)
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

/// (2), (5) and (10) with W^UK taken into the query and W^UV into the output.
fn absorbed(
    spec: &MlaSpec,
    w: &MlaWeights,
    step: &Step,
    latents: &Plane,
    chosen: Selection,
    acts: &mut MlaActivations,
) {
    let (rank, rope_dim) = (spec.kv_rank, spec.rope_dim);
    let rows = acts.query.len() / spec.key_dim(); // tokens * heads
    let nope = sized(&mut acts.query_nope, rows * spec.nope_dim);
    for (to, from) in nope.chunks_exact_mut(spec.nope_dim).zip(acts.query.chunks_exact(spec.key_dim())) {
        to.copy_from_slice(&from[..spec.nope_dim]);
    }
    matmul_heads(step.pool, sized(&mut acts.query_absorbed, rows * rank), nope, &w.key_up);
    let wide = sized(&mut acts.query_wide, rows * spec.latent_dim());
    let parts = acts.query_absorbed.chunks_exact(rank).zip(acts.query.chunks_exact(spec.key_dim()));
    for (to, (absorbed, query)) in wide.chunks_exact_mut(rank + rope_dim).zip(parts) {
        to[..rank].copy_from_slice(absorbed);
        to[rank..].copy_from_slice(&query[spec.nope_dim..]);
    }
    let shape = shape(spec, 1, spec.latent_dim(), rank);
    let sum = sized(&mut acts.latent_sum, rows * rank);
    attend(step.pool, &shape, sum, wide, Cached::Latent(latents), step.chunks, None, chosen);
    matmul_heads(step.pool, sized(&mut acts.heads, rows * spec.v_dim), sum, &w.value_up);
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
    let h = spec.heads;
    let shape = shape(spec, h, spec.key_dim(), spec.v_dim);
    let rows = acts.query.len() / spec.key_dim();
    sized(&mut acts.heads, rows * spec.v_dim);
    let (q_width, out_width) = (h * spec.key_dim(), h * spec.v_dim);
    for chunk in step.chunks {
        let (keys, values) = expand(spec, w, step, latents, chunk);
        let pages: Vec<u32> = (0..chunk.pages.len() as u32).collect();
        let own = Chunk { first_row: 0, rows: chunk.rows, position: chunk.position, pages: &pages };
        let span = chunk.first_row..chunk.first_row + chunk.rows;
        let q = &acts.query[span.start * q_width..span.end * q_width];
        let out = &mut acts.heads[span.start * out_width..span.end * out_width];
        let chosen = chosen.map(|c| &c[span]);
        attend(step.pool, &shape, out, q, Cached::Separate(&keys, &values), &[own], None, chosen);
    }
}

/// Keys and values of all heads for every position that a chunk sees, by page number `0 ..`.
fn expand(spec: &MlaSpec, w: &MlaWeights, step: &Step, latents: &Plane, chunk: &Chunk) -> (Plane, Plane) {
    let (h, rank) = (spec.heads, spec.kv_rank);
    let total = chunk.position + chunk.rows;
    let mut keys = Plane::new(CacheFormat::F32, h * spec.key_dim(), chunk.pages.len());
    let mut values = Plane::new(CacheFormat::F32, h * spec.v_dim, chunk.pages.len());
    let pages: Vec<u32> = (0..chunk.pages.len() as u32).collect();
    // The same stored matrices as in the absorbed form, used in the other direction.
    let key_up: Vec<HeadWeight> =
        w.key_up.iter().map(|k| HeadWeight { weight: k.weight.clone(), transposed: !k.transposed }).collect();
    let mut latent = vec![0.0; spec.latent_dim()];
    for first in (0..total).step_by(PAGE_LEN) {
        let count = PAGE_LEN.min(total - first);
        // Every head reads the same latent.
        let mut repeated = vec![0.0; count * h * rank];
        let mut rotary = vec![0.0; count * spec.rope_dim];
        for i in 0..count {
            latents.row(chunk.pages, first + i, &mut latent);
            repeated[i * h * rank..][..h * rank]
                .chunks_exact_mut(rank)
                .for_each(|to| to.copy_from_slice(&latent[..rank]));
            rotary[i * spec.rope_dim..][..spec.rope_dim].copy_from_slice(&latent[rank..]);
        }
        let mut nope = vec![0.0; count * h * spec.nope_dim];
        let mut value = vec![0.0; count * h * spec.v_dim];
        matmul_heads(step.pool, &mut nope, &repeated, &key_up); // (2)
        matmul_heads(step.pool, &mut value, &repeated, &w.value_up); // (5)
        for i in 0..count {
            let mut row = vec![0.0; h * spec.key_dim()];
            for (head, to) in row.chunks_exact_mut(spec.key_dim()).enumerate() {
                to[..spec.nope_dim].copy_from_slice(&nope[(i * h + head) * spec.nope_dim..][..spec.nope_dim]);
                to[spec.nope_dim..].copy_from_slice(&rotary[i * spec.rope_dim..][..spec.rope_dim]); // (4)
            }
            keys.store(&pages, first + i, &row);
            values.store(&pages, first + i, &value[i * h * spec.v_dim..][..h * spec.v_dim]);
        }
    }
    (keys, values)
}
