//! The backward of the row-wise operations of `ops`, and the loss.
//!
//! Each function takes what its forward took and the gradient of what it gave. Gradients of
//! parameters are added to what is there (`+=`); gradients of activations are written, unless the
//! name says `add`. A row's gradient depends on that row alone.

use crate::isa::{Isa, isa};
use crate::ops::{Activation, RopeLayout, exp, rope, sigmoid, tanh};
use crate::pool::{Pool, SharedMut};
use crate::quant::compiled::compiled_for_isa;
use crate::train::sum16;

/// Rows whose share in a weight's gradient is summed before it is added.
const ROW_BLOCK: usize = 128;
/// Elements that one task of an elementwise operation takes.
const PIECE: usize = 8192;

/// The backward of [`crate::ops::rms_norm`]: writes `dx`, adds to `dweight`; `x` is the norm's input.
///
/// With `s = 1 / sqrt(mean(x^2) + eps)` and `g = dy * weight`:
/// `dx = s g - x s^3 mean(g x)`, `dweight += sum over rows of dy x s`.
///
/// # Panics
/// If the sizes do not agree.
pub fn rms_norm_backward(
    pool: &Pool,
    dx: &mut [f32],
    dweight: &mut [f32],
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
) {
    assert_eq!(dy.len(), dx.len(), "gradients of output and input");
    norm_backward(pool, dx, dweight, x, weight, eps, Rows { width: weight.len(), offset: 0 }, Mode::Write(dy));
}

/// [`rms_norm_backward`] with `dx += ..`: for an input that also goes around the norm (the residual).
///
/// # Panics
/// If the sizes do not agree.
pub fn rms_norm_backward_add(
    pool: &Pool,
    dx: &mut [f32],
    dweight: &mut [f32],
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
) {
    assert_eq!(dy.len(), dx.len(), "gradients of output and input");
    norm_backward(pool, dx, dweight, x, weight, eps, Rows { width: weight.len(), offset: 0 }, Mode::Add(dy));
}

/// The backward of [`crate::ops::rms_norm_within`], in place: elements `offset .. offset + d` of each
/// row of `grad` go from the gradient of the norm's output to that of its input; the others stay.
/// `x` holds the rows as they were before the norm, equally `width` wide.
///
/// # Panics
/// If the sizes do not agree.
pub fn rms_norm_within_backward(
    pool: &Pool,
    grad: &mut [f32],
    dweight: &mut [f32],
    x: &[f32],
    width: usize,
    offset: usize,
    weight: &[f32],
    eps: f32,
) {
    norm_backward(pool, grad, dweight, x, weight, eps, Rows { width, offset }, Mode::InPlace);
}

/// Where the elements of a norm lie in each row.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    width: usize,
    offset: usize,
}

/// Where the gradient of a norm's output is, and what becomes of the one of its input.
#[derive(Clone, Copy)]
pub(crate) enum Mode<'a> {
    Write(&'a [f32]),
    Add(&'a [f32]),
    InPlace,
}

fn norm_backward(
    pool: &Pool,
    dx: &mut [f32],
    dweight: &mut [f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
    rows: Rows,
    mode: Mode,
) {
    let (d, Rows { width, offset }) = (weight.len(), rows);
    assert!(d > 0 && offset + d <= width && x.len().is_multiple_of(width), "{} elements in rows of {width}", x.len());
    assert!(dx.len() == x.len() && dweight.len() == d, "gradients of {} inputs and {d} weights", x.len());
    let blocks = (x.len() / width).div_ceil(ROW_BLOCK);
    let mut partial = vec![0.0f32; blocks * d];
    let shares = &SharedMut::new(&mut partial);
    let isa = isa();
    pool.for_each_piece(dx, ROW_BLOCK * width, |block, dx| {
        // SAFETY: one range for each block of rows.
        let share = unsafe { shares.range(block * d, d) };
        let first = block * ROW_BLOCK * width;
        norm_rows(isa, dx, share, &x[first..first + dx.len()], first, weight, eps, rows, mode);
    });
    for share in partial.chunks_exact(d) {
        dweight.iter_mut().zip(share).for_each(|(to, from)| *to += from);
    }
}

compiled_for_isa!(norm_rows = norm_rows_inline, (dx: &mut [f32], share: &mut [f32], x: &[f32], first: usize,
    weight: &[f32], eps: f32, rows: Rows, mode: Mode<'_>));

/// A block of rows, which begins at element `first`; `share` is its part of the weight's gradient.
#[inline(always)]
fn norm_rows_inline(
    dx: &mut [f32],
    share: &mut [f32],
    x: &[f32],
    first: usize,
    weight: &[f32],
    eps: f32,
    Rows { width, offset }: Rows,
    mode: Mode,
) {
    let d = weight.len();
    let mut dy_row = vec![0.0f32; if matches!(mode, Mode::InPlace) { d } else { 0 }];
    for (t, (dx, x)) in dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
        let (x, dx) = (&x[offset..offset + d], &mut dx[offset..offset + d]);
        let at = first + t * width + offset;
        match mode {
            Mode::Write(dy) => norm_row(dx, share, &dy[at..at + d], x, weight, eps, |_, value| value),
            Mode::Add(dy) => norm_row(dx, share, &dy[at..at + d], x, weight, eps, |old, value| old + value),
            Mode::InPlace => {
                dy_row.copy_from_slice(dx);
                norm_row(dx, share, &dy_row, x, weight, eps, |_, value| value);
            }
        }
    }
}

#[inline(always)]
fn norm_row(
    dx: &mut [f32],
    share: &mut [f32],
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
    put: impl Fn(f32, f32) -> f32,
) {
    let d = dx.len();
    let (share, dy, x, weight) = (&mut share[..d], &dy[..d], &x[..d], &weight[..d]);
    let scale = 1.0 / (sum16(d, |i| x[i] * x[i]) / d as f32 + eps).sqrt();
    let mean = sum16(d, |i| dy[i] * weight[i] * x[i]) / d as f32;
    let back = scale * scale * scale * mean;
    for i in 0..d {
        let value = scale * (dy[i] * weight[i]) - x[i] * back;
        dx[i] = put(dx[i], value);
        share[i] += dy[i] * (x[i] * scale);
    }
}

/// The backward of [`crate::ops::rope`] with the same arguments, in place on the gradient: the
/// rotation by the opposite angle.
///
/// # Panics
/// As [`crate::ops::rope`].
pub fn rope_backward(
    grad: &mut [f32],
    width: usize,
    offset: usize,
    dim: usize,
    layout: RopeLayout,
    angles: &[f32],
    rows_per_token: usize,
) {
    let back: Vec<f32> = angles.chunks_exact(2).flat_map(|angle| [angle[0], -angle[1]]).collect();
    assert_eq!(back.len(), angles.len(), "pairs of cos and sin");
    rope(grad, width, offset, dim, layout, &back, rows_per_token);
}

/// The backward of [`Activation::apply`]: `gate` and `up` are the two projections as they were before
/// it, `dout` the gradient of its result.
///
/// # Panics
/// If the lengths differ.
pub fn gated_backward(
    pool: &Pool,
    activation: Activation,
    dgate: &mut [f32],
    dup: &mut [f32],
    dout: &[f32],
    gate: &[f32],
    up: &[f32],
) {
    let n = dout.len();
    assert!([dgate.len(), dup.len(), gate.len(), up.len()] == [n; 4], "gradients of {n} outputs");
    let (isa, dup) = (isa(), &SharedMut::new(dup));
    pool.for_each_piece(dgate, PIECE, |i, dgate| {
        let (start, len) = (i * PIECE, dgate.len());
        // SAFETY: the same disjoint pieces as those of `dgate`.
        let dup = unsafe { dup.range(start, len) };
        let (dout, gate, up) = (&dout[start..][..len], &gate[start..][..len], &up[start..][..len]);
        gated_piece(isa, activation, dgate, dup, dout, gate, up);
    });
}

compiled_for_isa!(gated_piece = gated_piece_inline, (activation: Activation, dgate: &mut [f32], dup: &mut [f32],
    dout: &[f32], gate: &[f32], up: &[f32]));

#[inline(always)]
fn gated_piece_inline(
    activation: Activation,
    dgate: &mut [f32],
    dup: &mut [f32],
    dout: &[f32],
    gate: &[f32],
    up: &[f32],
) {
    let each = dgate.iter_mut().zip(dup).zip(dout).zip(gate.iter().zip(up));
    match activation {
        Activation::Silu => each.for_each(|(((dg, du), d), (g, u))| (*dg, *du) = silu_backward(*d, *g, *u)),
        Activation::GeluTanh => each.for_each(|(((dg, du), d), (g, u))| (*dg, *du) = gelu_backward(*d, *g, *u)),
        Activation::ClampedSwiglu { alpha, limit } => {
            each.for_each(|(((dg, du), d), (g, u))| (*dg, *du) = clamped_backward(*d, *g, *u, alpha, limit));
        }
    }
}

/// Of `g sigmoid(g) u`.
#[inline(always)]
fn silu_backward(d: f32, g: f32, u: f32) -> (f32, f32) {
    let s = sigmoid(g);
    (d * u * (s * (1.0 + g * (1.0 - s))), d * (g * s))
}

/// Of `gelu_tanh(g) u`.
#[inline(always)]
fn gelu_backward(d: f32, g: f32, u: f32) -> (f32, f32) {
    const ROOT: f32 = 0.797_884_6; // sqrt(2 / pi)
    const CUBE: f32 = 0.044_715;
    let t = tanh(ROOT * (g + CUBE * g * g * g));
    let slope = ROOT * (1.0 + 3.0 * CUBE * g * g);
    (d * u * (0.5 * (1.0 + t) + 0.5 * g * (1.0 - t * t) * slope), d * (0.5 * g * (1.0 + t)))
}

/// Of gpt-oss' clamped SwiGLU; a clamped value passes no gradient.
#[inline(always)]
fn clamped_backward(d: f32, g: f32, u: f32, alpha: f32, limit: f32) -> (f32, f32) {
    let (gate, up) = (g.min(limit), u.clamp(-limit, limit));
    let s = sigmoid(alpha * gate);
    let dg = d * (up + 1.0) * (s + alpha * gate * (s * (1.0 - s)));
    let du = d * (gate * s);
    (if g > limit { 0.0 } else { dg }, if u.abs() > limit { 0.0 } else { du })
}

/// The backward of `softmax` for one row, in place: `grad` goes from the gradient of the
/// probabilities `p` to that of what they were made of. `grad = p (grad - sum(grad p))`.
///
/// # Panics
/// If the lengths differ.
pub fn softmax_backward(grad: &mut [f32], p: &[f32]) {
    assert_eq!(grad.len(), p.len());
    let dot = sum16(p.len(), |i| grad[i] * p[i]);
    grad.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - dot));
}

/// The backward of `sigmoid`, in place: `s` are its results. `grad = grad s (1 - s)`.
///
/// # Panics
/// If the lengths differ.
pub fn sigmoid_backward(grad: &mut [f32], s: &[f32]) {
    assert_eq!(grad.len(), s.len());
    grad.iter_mut().zip(s).for_each(|(g, s)| *g *= s * (1.0 - s));
}

/// The loss of each row and its gradient, in place.
///
/// `logits` is `[rows, vocab]`. For each row, `logprobs[t]` becomes the log-probability of
/// `targets[t]`, and the row becomes `weights[t] (softmax - onehot)`: the gradient of
/// `-weights[t] logprobs[t]`. A row of weight 0 gets zeros (whatever its logits are), but its
/// log-probability is still told.
///
/// # Panics
/// If the sizes do not agree or a target is not below `vocab`.
pub fn cross_entropy(
    pool: &Pool,
    logits: &mut [f32],
    vocab: usize,
    targets: &[u32],
    weights: &[f32],
    logprobs: &mut [f32],
) {
    let rows = targets.len();
    assert!(weights.len() == rows && logprobs.len() == rows, "a weight and a log-probability for each of {rows} rows");
    let isa = isa();
    loss_rows(pool, logits, vocab, logprobs, |t, row, logprob| {
        let (target, weight) = (targets[t] as usize, weights[t]);
        assert!(target < vocab, "target {target} of row {t} in a vocabulary of {vocab}");
        let of_target = row[target];
        let (max, sum) = exp_row(isa, row);
        *logprob = (f64::from(of_target) - f64::from(max) - sum.ln()) as f32;
        if weight == 0.0 {
            row.fill(0.0);
            return;
        }
        let factor = (f64::from(weight) / sum) as f32;
        scale_row(isa, row, factor);
        row[target] -= weight;
    });
}

/// [`cross_entropy`] with soft targets (distillation): `teacher` is `[rows, vocab]`, probabilities;
/// `losses[t]` becomes `-sum(teacher log softmax(logits))`, and the row becomes
/// `weights[t] (softmax sum(teacher) - teacher)`. The loss differs from the divergence of the two by
/// the teacher's entropy, which has no gradient.
///
/// # Panics
/// If the sizes do not agree.
pub fn cross_entropy_soft(
    pool: &Pool,
    logits: &mut [f32],
    vocab: usize,
    teacher: &[f32],
    weights: &[f32],
    losses: &mut [f32],
) {
    let rows = weights.len();
    assert!(losses.len() == rows && teacher.len() == logits.len(), "teacher and loss for each of {rows} rows");
    let isa = isa();
    loss_rows(pool, logits, vocab, losses, |t, row, loss| {
        let (teacher, weight) = (&teacher[t * vocab..][..vocab], weights[t]);
        // A token that the teacher never gives costs nothing, also where the student's logit is -inf.
        let weighted = |q: f32, x: f32| if q == 0.0 { 0.0 } else { f64::from(q) * f64::from(x) };
        let cross: f64 = teacher.iter().zip(&*row).map(|(&q, &x)| weighted(q, x)).sum();
        let mass: f64 = teacher.iter().map(|&q| f64::from(q)).sum();
        let (max, sum) = exp_row(isa, row);
        *loss = (mass * (f64::from(max) + sum.ln()) - cross) as f32;
        if weight == 0.0 {
            row.fill(0.0);
            return;
        }
        let factor = (f64::from(weight) * mass / sum) as f32;
        row.iter_mut().zip(teacher).for_each(|(v, q)| *v = *v * factor - weight * q);
    });
}

/// The log-probability of `index` under `softmax(logits)`, by the arithmetic of [`cross_entropy`].
///
/// # Panics
/// If `index` is not below the number of logits.
pub fn log_probability(logits: &[f32], index: usize) -> f32 {
    LogSoftmax::of(logits).of_logit(logits[index])
}

/// What turns logits into log-probabilities, for several of one row.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax {
    max: f64,
    ln_sum: f64,
}

impl LogSoftmax {
    /// Of a row of logits.
    pub fn of(logits: &[f32]) -> LogSoftmax {
        let (max, sum) = exp_sum(isa(), logits);
        LogSoftmax::of_parts(max, sum)
    }

    /// Of the largest logit and the sum of the exponentials of the others less it.
    pub(crate) fn of_parts(max: f32, sum: f64) -> LogSoftmax {
        LogSoftmax { max: f64::from(max), ln_sum: sum.ln() }
    }

    /// The log-probability of one of them.
    pub fn of_logit(self, logit: f32) -> f32 {
        (f64::from(logit) - self.max - self.ln_sum) as f32
    }
}

fn loss_rows(
    pool: &Pool,
    logits: &mut [f32],
    vocab: usize,
    told: &mut [f32],
    f: impl Fn(usize, &mut [f32], &mut f32) + Sync,
) {
    assert!(vocab > 0 && logits.len() == told.len() * vocab, "{} logits, {} rows of {vocab}", logits.len(), told.len());
    let told = &SharedMut::new(told);
    pool.for_each_piece(logits, vocab, |t, row| {
        // SAFETY: one element for each row.
        let told = unsafe { told.range(t, 1) };
        f(t, row, &mut told[0]);
    });
}

compiled_for_isa!(exp_row = exp_row_inline, (row: &mut [f32]) -> (f32, f64));
compiled_for_isa!(exp_sum = exp_sum_inline, (row: &[f32]) -> (f32, f64));
compiled_for_isa!(scale_row = scale_row_inline, (row: &mut [f32], factor: f32));

/// `row = exp(row - max)`; returns the largest and the sum.
#[inline(always)]
fn exp_row_inline(row: &mut [f32]) -> (f32, f64) {
    let max = largest(row);
    row.iter_mut().for_each(|v| *v = exp(*v - max));
    (max, sum16_f64(row, |v| v))
}

/// [`exp_row_inline`] without a change of the row.
#[inline(always)]
fn exp_sum_inline(row: &[f32]) -> (f32, f64) {
    let max = largest(row);
    (max, sum16_f64(row, |v| exp(v - max)))
}

#[inline(always)]
fn scale_row_inline(row: &mut [f32], factor: f32) {
    row.iter_mut().for_each(|v| *v *= factor);
}

/// The largest element; NaN is never it.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut most = [f32::NEG_INFINITY; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for chunk in whole {
        most.iter_mut().zip(chunk).for_each(|(most, &v)| *most = larger(*most, v));
    }
    most.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// Sixteen partial sums in f64, element `i` to lane `i % 16`, added in rising lane.
#[inline(always)]
pub(crate) fn sum16_f64(x: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut sums = [0.0f64; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for chunk in whole {
        sums.iter_mut().zip(chunk).for_each(|(sum, &v)| *sum += f64::from(f(v)));
    }
    sums.iter_mut().zip(rest).for_each(|(sum, &v)| *sum += f64::from(f(v)));
    sums.iter().sum()
}
