//! The layers: one file each, the statements of a file in the order of the papers' equations.
//!
//! Each file has a forward and a backward pass side by side. The forward pass writes what it computes
//! on the way to named buffers; the backward pass reads them. Inference hands the same buffers to all
//! layers, training hands each layer its own: there is one forward pass.
//!
//! In a backward pass, gradients of parameters are added to what is there; gradients of activations
//! are written. Buffers of gradients have the names of the activations.

pub(crate) mod block;
pub(crate) mod ffn;
pub(crate) mod gqa;
pub(crate) mod indexer;
pub(crate) mod mla;
pub(crate) mod router;

use kernels::attention::{Chunk, Plane};
use kernels::matmul::{matmul, matmul_many};
use kernels::ops::{self, RopeLayout};
use kernels::pool::Pool;
use kernels::train::backward::rope_backward;
use kernels::train::panels::Precision;
use kernels::train::products::{matmul_dw, matmul_dx, matmul_dx_add};

use crate::parameters::{ParameterSpec, Part};
use crate::weights::Linear;

/// What all layers of one forward pass share.
pub(crate) struct Step<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) chunks: &'a [Chunk<'a>],
    /// (cos, sin) of the attention's rotary embedding, `[T, dim]`.
    pub(crate) angles: &'a [f32],
    /// The same of the indexer's.
    pub(crate) index_angles: Option<&'a [f32]>,
    pub(crate) arithmetic: mla::Arithmetic,
}

/// What all layers of one backward pass share.
pub(crate) struct Backward<'a> {
    /// The forward pass; its chunks are whole sequences.
    pub(crate) step: &'a Step<'a>,
    /// Rows of each sequence.
    pub(crate) sequences: &'a [usize],
    /// What the inputs of the products of weight gradients are rounded to.
    pub(crate) precision: Precision,
    /// alpha of the sequence-wise balance loss, over the number of sequences.
    pub(crate) balance: f32,
}

/// The gradients of the parameters of one place: a layer, a prediction module, the model.
pub(crate) struct Gradients<'a> {
    pub(crate) parameters: &'a [ParameterSpec],
    /// In the order of `parameters`.
    pub(crate) parts: &'a mut [Vec<f32>],
}

impl Gradients<'_> {
    /// The gradient of a parameter that is not one of many experts'.
    ///
    /// # Panics
    /// If the place has no such parameter.
    pub(crate) fn of(&mut self, part: Part) -> &mut [f32] {
        let at = self.parameters.iter().position(|p| p.slot.part == part && p.slot.expert.is_none());
        &mut self.parts[at.unwrap_or_else(|| panic!("no {part:?} among the parameters"))]
    }

    /// The gradients of one part of all experts, in their order.
    pub(crate) fn of_experts(&mut self, part: Part) -> Vec<&mut [f32]> {
        let all = self.parameters.iter().zip(self.parts.iter_mut());
        all.filter(|(p, _)| p.slot.part == part).map(|(_, gradient)| gradient.as_mut_slice()).collect()
    }
}

/// What a block computes on the way to its output.
#[derive(Default)]
pub(crate) struct BlockActivations {
    /// `[T, hidden]`, the block's input.
    pub(crate) input: Vec<f32>,
    /// `[T, hidden]`, the input of attention.
    pub(crate) attention_in: Vec<f32>,
    pub(crate) mla: mla::MlaActivations,
    pub(crate) gqa: gqa::GqaActivations,
    /// `[T, hidden]`, what attention adds, before its norm where there is one (sandwich norms).
    pub(crate) attention_unnormed: Vec<f32>,
    pub(crate) attention_out: Vec<f32>,
    /// `[T, hidden]`, the residual stream between the two.
    pub(crate) middle: Vec<f32>,
    /// `[T, hidden]`, the input of the feed-forward network.
    pub(crate) ffn_in: Vec<f32>,
    pub(crate) ffn: ffn::FfnActivations,
    /// `[T, hidden]`, what the network adds, before its norm where there is one.
    pub(crate) ffn_unnormed: Vec<f32>,
    pub(crate) ffn_out: Vec<f32>,
}

/// Gradients of what a block computes on the way; all layers of a backward pass share them.
#[derive(Default)]
pub(crate) struct BlockScratch {
    pub(crate) attention_in: Vec<f32>,
    pub(crate) mla: mla::MlaScratch,
    pub(crate) gqa: gqa::GqaScratch,
    /// `[T, hidden]`, either sum's gradient before its norm (sandwich norms).
    pub(crate) unnormed: Vec<f32>,
    pub(crate) ffn_in: Vec<f32>,
    pub(crate) ffn: ffn::FfnScratch,
}

/// Elements that one task of an elementwise operation takes.
const PIECE: usize = 16384;

/// `buffer` with exactly `len` elements; what they hold is left over.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// `out = x W^T + b`
pub(crate) fn linear(pool: &Pool, out: &mut Vec<f32>, x: &[f32], w: &Linear) {
    let rows = x.len() / w.weight.cols();
    matmul(pool, sized(out, rows * w.weight.rows()), x, &w.weight);
    if let Some(bias) = &w.bias {
        ops::add_bias(out, bias);
    }
}

/// [`linear`] of the same `x` with several weights, which is read once for all of them.
pub(crate) fn linears<const N: usize>(pool: &Pool, outs: [&mut Vec<f32>; N], x: &[f32], w: [&Linear; N]) {
    let weights = w.map(|w| &w.weight);
    let mut outs = outs;
    for (out, weight) in outs.iter_mut().zip(weights) {
        sized(out, x.len() / weight.cols() * weight.rows());
    }
    matmul_many(pool, &mut outs.each_mut().map(|out| out.as_mut_slice()), x, &weights);
    for (out, w) in outs.into_iter().zip(w) {
        if let Some(bias) = &w.bias {
            ops::add_bias(out, bias);
        }
    }
}

/// The gradients of [`linear`]: `dx = dy W`, `dW += dy^T x`, `db +=` the sum of dy's rows.
pub(crate) fn linear_backward(
    t: &Backward,
    dx: &mut Vec<f32>,
    dy: &[f32],
    x: &[f32],
    w: &Linear,
    gradients: &mut Gradients,
    [weight, bias]: [Part; 2],
) {
    matmul_dx(t.step.pool, sized(dx, x.len()), dy, &w.weight);
    linear_parameters(t, dy, x, w, gradients, [weight, bias]);
}

/// [`linear_backward`] with `dx += dy W`.
pub(crate) fn linear_backward_add(
    t: &Backward,
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    w: &Linear,
    gradients: &mut Gradients,
    [weight, bias]: [Part; 2],
) {
    matmul_dx_add(t.step.pool, dx, dy, &w.weight);
    linear_parameters(t, dy, x, w, gradients, [weight, bias]);
}

fn linear_parameters(
    t: &Backward,
    dy: &[f32],
    x: &[f32],
    w: &Linear,
    gradients: &mut Gradients,
    [weight, bias]: [Part; 2],
) {
    matmul_dw(t.step.pool, gradients.of(weight), dy, x, t.precision);
    if w.bias.is_some() {
        add_rows(t.step.pool, gradients.of(bias), dy);
    }
}

/// `to +=` the sum of the rows of `x`, in rising order.
pub(crate) fn add_rows(pool: &Pool, to: &mut [f32], x: &[f32]) {
    const PIECE: usize = 64;
    let width = to.len();
    pool.for_each_piece(to, PIECE, |i, to| {
        for row in x.chunks_exact(width) {
            to.iter_mut().zip(&row[i * PIECE..]).for_each(|(to, v)| *to += v);
        }
    });
}

/// `x += y`, by all threads.
pub(crate) fn add(pool: &Pool, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    pool.for_each_piece(x, PIECE, |i, x| ops::add(x, &y[i * PIECE..][..x.len()]));
}

/// `to = x + y`, by all threads.
pub(crate) fn sum(pool: &Pool, to: &mut [f32], x: &[f32], y: &[f32]) {
    assert!(x.len() == to.len() && y.len() == to.len());
    pool.for_each_piece(to, PIECE, |i, to| {
        let (x, y) = (&x[i * PIECE..][..to.len()], &y[i * PIECE..][..to.len()]);
        to.iter_mut().zip(x.iter().zip(y)).for_each(|(to, (x, y))| *to = x + y);
    });
}

/// `to = from`, by all threads.
pub(crate) fn copy(pool: &Pool, to: &mut Vec<f32>, from: &[f32]) {
    pool.for_each_piece(sized(to, from.len()), PIECE, |i, to| to.copy_from_slice(&from[i * PIECE..][..to.len()]));
}

/// Calls `f(row, elements)` for each row of `width`, by all threads.
pub(crate) fn for_rows(pool: &Pool, x: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    const TOGETHER: usize = 32;
    pool.for_each_piece(x, TOGETHER * width, |i, rows| {
        rows.chunks_exact_mut(width).enumerate().for_each(|(r, row)| f(i * TOGETHER + r, row));
    });
}

/// [`ops::rope`] by all threads: `heads` rows of `width` a token.
pub(crate) fn rope(
    pool: &Pool,
    x: &mut [f32],
    (width, offset): (usize, usize),
    (dim, layout): (usize, RopeLayout),
    angles: &[f32],
    heads: usize,
) {
    for_tokens(pool, x, (width, dim), angles, heads, |x, angles| {
        ops::rope(x, width, offset, dim, layout, angles, heads)
    });
}

/// The gradient of [`rope`], in place: the rotation backwards.
pub(crate) fn unrope(
    pool: &Pool,
    dx: &mut [f32],
    (width, offset): (usize, usize),
    (dim, layout): (usize, RopeLayout),
    angles: &[f32],
    heads: usize,
) {
    for_tokens(pool, dx, (width, dim), angles, heads, |dx, angles| {
        rope_backward(dx, width, offset, dim, layout, angles, heads);
    });
}

/// Calls `f` for some tokens' rows and angles at a time.
fn for_tokens(
    pool: &Pool,
    x: &mut [f32],
    (width, dim): (usize, usize),
    angles: &[f32],
    heads: usize,
    f: impl Fn(&mut [f32], &[f32]) + Sync,
) {
    const TOKENS: usize = 16;
    assert_eq!(angles.len() * width * heads, x.len() * dim, "one angle for each pair of a token");
    pool.for_each_piece(x, TOKENS * heads * width, |i, x| {
        let tokens = x.len() / (heads * width);
        f(x, &angles[i * TOKENS * dim..][..tokens * dim]);
    });
}

/// Stores the rows of a batch in the cache.
pub(crate) fn store(plane: &mut Plane, chunks: &[Chunk], rows: &[f32]) {
    let width = plane.width();
    for chunk in chunks {
        for i in 0..chunk.rows {
            let row = &rows[(chunk.first_row + i) * width..][..width];
            plane.store(chunk.pages, chunk.position + i, row);
        }
    }
}
