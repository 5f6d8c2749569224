//! Optimiser steps: AdamW for vectors, embeddings and heads, Muon for matrices.
//!
//! Each element or matrix is worked on alone, in an order that does not depend on the number of
//! threads. `grad_scale` multiplies the gradient as it is read (clipping, and the mean over
//! accumulated batches), so that gradients need not be written again.

use crate::gemm::{At, Kernels, Packed, Product, multiply};
use crate::isa::{Isa, isa};
use crate::pool::{Pool, SharedMut};
use crate::quant::compiled::compiled_for_isa;
use crate::train::panels::Precision;

/// Elements that one task takes; also the block of the norm's sum.
const PIECE: usize = 4096;

/// The Euclidean norm of all parts together, in f64: sums of blocks of 4,096 elements (counted from
/// the beginning of each part), added in order.
pub fn global_norm(pool: &Pool, parts: &[&[f32]]) -> f64 {
    let mut blocks = Vec::new();
    for part in parts {
        blocks.extend(part.chunks(PIECE));
    }
    let mut sums = vec![0.0f64; blocks.len()];
    const BLOCKS: usize = 16;
    pool.for_each_piece(&mut sums, BLOCKS, |i, sums| {
        for (sum, block) in sums.iter_mut().zip(&blocks[i * BLOCKS..]) {
            *sum = square_sum(block);
        }
    });
    sums.iter().sum::<f64>().sqrt()
}

/// In eight partial sums.
fn square_sum(x: &[f32]) -> f64 {
    let mut acc = [0.0f64; 8];
    for chunk in x.chunks(8) {
        for (a, &v) in acc.iter_mut().zip(chunk) {
            *a += f64::from(v) * f64::from(v);
        }
    }
    acc.iter().sum()
}

/// The settings of an AdamW step (Loshchilov and Hutter 2019, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Share of the weight that a step of learning rate one takes away.
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub step: u64,
}

/// One step of AdamW: `m` and `v` are the running means of gradients and of their squares, both zeros
/// before the first step.
///
/// # Panics
/// If the lengths differ or `step` is zero.
pub fn adamw_step(
    pool: &Pool,
    master: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    adamw: &AdamW,
    grad_scale: f32,
) {
    let n = master.len();
    assert!([grad.len(), m.len(), v.len()] == [n; 3], "gradient and means of {n} weights");
    assert!(adamw.step > 0, "steps are counted from 1");
    let correction = |beta: f32| 1.0 - f64::from(beta).powi(adamw.step.min(i32::MAX as u64) as i32);
    let step_size = (f64::from(adamw.lr) / correction(adamw.beta1)) as f32;
    let root = (1.0 / correction(adamw.beta2).sqrt()) as f32;
    let keep = 1.0 - adamw.lr * adamw.weight_decay;
    let AdamW { beta1, beta2, eps, .. } = *adamw;
    let settings = AdamWStep { beta1, beta2, eps, grad_scale, keep, step_size, root };
    let isa = isa();
    let (m, v) = (&SharedMut::new(m), &SharedMut::new(v));
    pool.for_each_piece(master, PIECE, |i, master| {
        let (start, len) = (i * PIECE, master.len());
        // SAFETY: the same disjoint pieces as those of `master`.
        let (m, v) = unsafe { (m.range(start, len), v.range(start, len)) };
        adamw_piece(isa, master, &grad[start..][..len], m, v, settings);
    });
}

/// What a step of AdamW is made of.
#[derive(Clone, Copy)]
pub(crate) struct AdamWStep {
    beta1: f32,
    beta2: f32,
    eps: f32,
    grad_scale: f32,
    /// What remains of a weight.
    keep: f32,
    /// Learning rate over the correction of the mean.
    step_size: f32,
    /// One over the root of the correction of the square.
    root: f32,
}

compiled_for_isa!(adamw_piece = adamw_piece_inline,
    (master: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], step: AdamWStep));

#[inline(always)]
fn adamw_piece_inline(master: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], step: AdamWStep) {
    let AdamWStep { beta1, beta2, eps, grad_scale, keep, step_size, root } = step;
    for ((w, g), (m, v)) in master.iter_mut().zip(grad).zip(m.iter_mut().zip(v)) {
        let g = g * grad_scale;
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * (g * g);
        *w = *w * keep - step_size * *m / (v.sqrt() * root + eps);
    }
}

/// The settings of a Muon step (Jordan et al. 2024).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the sum of gradients.
    pub momentum: f32,
    /// Share of the weight that a step of learning rate one takes away.
    pub weight_decay: f32,
    /// Root mean square of an update before the learning rate: 0.18 in DeepSeek-V4, so that Muon and
    /// AdamW share their learning rate.
    pub update_rms: f32,
    /// Whether the gradient is added to the momentum once more before it is made orthogonal.
    pub nesterov: bool,
    /// Iterations of Newton-Schulz; five are usual.
    pub newton_schulz_steps: usize,
}

/// One matrix of a [`muon_steps`].
#[derive(Debug)]
pub struct MuonItem<'a> {
    /// Weights, `[rows, cols]`.
    pub master: &'a mut [f32],
    /// Their gradient.
    pub grad: &'a [f32],
    /// The running sum of gradients, zeros before the first step.
    pub momentum: &'a mut [f32],
}

/// One step of Muon for a `[rows, cols]` matrix:
/// `momentum = mu momentum + grad`, `update = orthogonal(grad + mu momentum)` with Nesterov or
/// `orthogonal(momentum)` without, `master = master (1 - lr decay) - lr rms sqrt(max(rows, cols)) update`.
///
/// # Panics
/// If a length is not `rows * cols`.
pub fn muon_step(
    pool: &Pool,
    rows: usize,
    cols: usize,
    master: &mut [f32],
    grad: &[f32],
    momentum: &mut [f32],
    muon: &Muon,
    grad_scale: f32,
) {
    muon_steps(pool, rows, cols, &mut [MuonItem { master, grad, momentum }], muon, grad_scale);
}

/// [`muon_step`] for matrices of one shape (the experts of a layer), each by itself.
///
/// # Panics
/// If a length is not `rows * cols`.
pub fn muon_steps(pool: &Pool, rows: usize, cols: usize, items: &mut [MuonItem], muon: &Muon, grad_scale: f32) {
    let n = rows * cols;
    let fits = |item: &MuonItem| [item.master.len(), item.grad.len(), item.momentum.len()] == [n; 3];
    assert!(items.iter().all(fits), "matrices of {rows} x {cols}");
    if n == 0 {
        return;
    }
    let one = |pool: &Pool, item: &mut MuonItem| {
        let mut update = vec![0.0f32; n];
        let momentum = item.momentum.iter_mut().zip(item.grad).zip(update.iter_mut());
        momentum.for_each(|((momentum, g), update)| {
            let g = g * grad_scale;
            *momentum = muon.momentum * *momentum + g;
            *update = if muon.nesterov { g + muon.momentum * *momentum } else { *momentum };
        });
        orthogonalise(pool, rows, cols, &mut update, muon.newton_schulz_steps);
        let keep = 1.0 - muon.lr * muon.weight_decay;
        let factor = muon.lr * muon.update_rms * (rows.max(cols) as f32).sqrt();
        item.master.iter_mut().zip(&update).for_each(|(w, u)| *w = *w * keep - factor * u);
    };
    if items.len() < pool.threads() {
        items.iter_mut().for_each(|item| one(pool, item));
    } else {
        // A matrix stays with one thread, and in its cache.
        pool.for_each_piece(items, 1, |_, item| one(&Pool::new(1), &mut item[0]));
    }
}

/// Coefficients of the quintic iteration (Jordan et al. 2024): steep at zero, so that small singular
/// values rise fast; they end between 0.7 and 1.2.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// Replaces a `[rows, cols]` matrix by one with the same singular vectors and singular values near one:
/// `steps` times `X <- a X + (b A + c A^2) X` with `A = X X^T`, from `X / |X|`. The products are of
/// bfloat16 factors, as in the original.
///
/// # Panics
/// If `x` is not `rows * cols` long.
pub fn orthogonalise(pool: &Pool, rows: usize, cols: usize, x: &mut [f32], steps: usize) {
    assert_eq!(x.len(), rows * cols, "a {rows} x {cols} matrix");
    let norm = x.chunks(PIECE).map(square_sum).sum::<f64>().sqrt();
    let scale = (1.0 / (norm + 1e-7)) as f32;
    // The iteration works on the shorter side.
    if rows > cols {
        let mut turned = transposed(x, rows, cols);
        turned.iter_mut().for_each(|v| *v *= scale);
        NewtonSchulz::new(cols, rows).run(pool, &mut turned, steps);
        x.copy_from_slice(&transposed(&turned, cols, rows));
    } else {
        x.iter_mut().for_each(|v| *v *= scale);
        NewtonSchulz::new(rows, cols).run(pool, x, steps);
    }
}

/// The memory of the iterations for a matrix of `rows` (not more than `cols`).
struct NewtonSchulz {
    rows: usize,
    cols: usize,
    /// `A`, then `b A + c A^2`; and `A^2`.
    gram: Vec<f32>,
    square: Vec<f32>,
    next: Vec<f32>,
    /// Operands: `X` by rows, `A`, and `X` by columns.
    by_row: Packed,
    packed_gram: Packed,
    by_col: Packed,
}

impl NewtonSchulz {
    fn new(rows: usize, cols: usize) -> NewtonSchulz {
        NewtonSchulz {
            rows,
            cols,
            gram: vec![0.0; rows * rows],
            square: vec![0.0; rows * rows],
            next: vec![0.0; rows * cols],
            by_row: Packed::zeros(rows, cols, Precision::Bf16),
            packed_gram: Packed::zeros(rows, rows, Precision::Bf16),
            by_col: Packed::zeros(cols, rows, Precision::Bf16),
        }
    }

    fn run(&mut self, pool: &Pool, x: &mut [f32], steps: usize) {
        let ([a, b, c], (rows, cols), kernels) = (QUINTIC, (self.rows, self.cols), Kernels::of(isa()));
        let product = |right: &Packed, left: &[f32], out: &mut [f32], width: usize| {
            let at = |stride| At { offset: 0, stride };
            let product = Product { matrix: right.whole(), rows, x: at(left.len() / rows), out: at(width) };
            multiply(kernels, pool, out, left, &[product], false);
        };
        for _ in 0..steps {
            self.by_row.fill(kernels, pool, x, cols, false);
            self.by_col.fill(kernels, pool, x, cols, true);
            product(&self.by_row, x, &mut self.gram, rows);
            // Symmetric, so that rows and columns are one.
            self.packed_gram.fill(kernels, pool, &self.gram, rows, true);
            product(&self.packed_gram, &self.gram, &mut self.square, rows);
            self.gram.iter_mut().zip(&self.square).for_each(|(g, s)| *g = b * *g + c * s);
            product(&self.by_col, &self.gram, &mut self.next, cols);
            x.iter_mut().zip(&self.next).for_each(|(x, y)| *x = a * *x + y);
        }
    }
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for row in 0..rows {
        for col in 0..cols {
            out[col * rows + row] = x[row * cols + col];
        }
    }
    out
}
