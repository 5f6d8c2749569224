//! The head and the loss, some rows at a time, so that logits never take more memory than that.

use kernels::draw::entropy;
use kernels::matmul::matmul;
use kernels::ops;
use kernels::pool::Pool;
use kernels::train::backward::{cross_entropy, cross_entropy_soft, log_probability};
use kernels::train::panels::Precision;
use kernels::train::products::{SUM_BLOCK, matmul_dw, matmul_dx};

use super::SoftTargets;
use crate::layers::{for_rows, sized};
use crate::load::Model;

/// Floats of logits that are held at a time, unless a block of the sums over rows has more.
const LOGITS: usize = 1 << 21;

/// Buffers of the head.
#[derive(Default)]
pub(super) struct HeadScratch {
    /// `[rows, vocab]`
    logits: Vec<f32>,
    /// After the soft cap, where there is one.
    capped: Vec<f32>,
    teacher: Vec<f32>,
    losses: Vec<f32>,
}

/// What rows are to predict.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) targets: &'a [u32],
    pub(super) weights: &'a [f32],
    pub(super) soft: Option<SoftTargets<'a>>,
    pub(super) entropy: bool,
}

/// Gradients of the rows (written) and of the head's matrix (added to, where it is trained).
pub(super) type HeadGradients<'a> = (&'a mut [f32], Option<&'a mut [f32]>, Precision);

/// What the head computed: the loss, and the sum and count of entropies.
#[derive(Clone, Copy, Default)]
pub(super) struct HeadLoss {
    pub(super) loss: f64,
    pub(super) entropy: (f64, usize),
}

/// The loss of normed rows `x`, `[T, hidden]`; `logprobs[t]` is that of the target. With gradients where
/// they are wanted.
pub(super) fn loss(
    model: &Model,
    pool: &Pool,
    x: &[f32],
    wanted: &Wanted,
    logprobs: &mut [f32],
    mut gradients: Option<HeadGradients>,
    s: &mut HeadScratch,
) -> HeadLoss {
    let (hidden, vocab) = (model.spec.hidden, model.spec.vocab);
    let head = model.weights.head.as_ref().unwrap_or(&model.weights.embedding);
    // Whole blocks of the sums over rows, so that the cut does not show in the gradient.
    let together = (LOGITS / vocab / SUM_BLOCK).max(1) * SUM_BLOCK;
    let total = wanted.targets.len();
    let mut out = HeadLoss::default();
    for first in (0..total).step_by(together) {
        let rows = first..(first + together).min(total);
        let x = &x[rows.start * hidden..rows.end * hidden];
        let logits = sized(&mut s.logits, rows.len() * vocab);
        matmul(pool, logits, x, head);
        if let Some(cap) = model.spec.head.softcap {
            for_rows(pool, logits, vocab, |_, row| row.iter_mut().for_each(|v| *v = cap * ops::tanh(*v / cap)));
            s.capped.clone_from(&s.logits);
        }
        let part = Wanted {
            targets: &wanted.targets[rows.clone()],
            weights: &wanted.weights[rows.clone()],
            soft: wanted.soft.map(|soft| part_of(soft, rows.start, rows.len())),
            ..*wanted
        };
        let of_part = losses(pool, vocab, &part, &mut logprobs[rows.clone()], s);
        out.loss += of_part.loss;
        out.entropy = (out.entropy.0 + of_part.entropy.0, out.entropy.1 + of_part.entropy.1);
        let Some((dx, dhead, precision)) = &mut gradients else { continue };
        if let Some(cap) = model.spec.head.softcap {
            let capped = &s.capped;
            for_rows(pool, &mut s.logits, vocab, |t, row| {
                row.iter_mut().zip(&capped[t * vocab..]).for_each(|(g, y)| *g *= 1.0 - (y / cap) * (y / cap));
            });
        }
        matmul_dx(pool, &mut dx[rows.start * hidden..rows.end * hidden], &s.logits, head);
        if let Some(dhead) = dhead {
            matmul_dw(pool, dhead, &s.logits, x, *precision);
        }
    }
    out
}

fn part_of(soft: SoftTargets, first: usize, rows: usize) -> SoftTargets {
    let span = first * soft.per_row..(first + rows) * soft.per_row;
    SoftTargets { tokens: &soft.tokens[span.clone()], probabilities: &soft.probabilities[span], ..soft }
}

/// Losses of the rows in `s.logits`, which become their gradients.
fn losses(pool: &Pool, vocab: usize, wanted: &Wanted, logprobs: &mut [f32], s: &mut HeadScratch) -> HeadLoss {
    let mut out = HeadLoss::default();
    if wanted.entropy {
        let counted = |t: &usize| wanted.weights[*t] != 0.0;
        let mut entropies = vec![0.0f32; logprobs.len()];
        let logits = &s.logits;
        for_rows(pool, &mut entropies, 1, |t, to| {
            to[0] = if wanted.weights[t] == 0.0 { 0.0 } else { entropy(&logits[t * vocab..][..vocab]) };
        });
        let of_rows = (0..entropies.len()).filter(counted);
        out.entropy = of_rows.fold((0.0, 0), |(sum, n), t| (sum + f64::from(entropies[t]), n + 1));
    }
    let weighted =
        |t: usize, loss: f32| if wanted.weights[t] == 0.0 { 0.0 } else { f64::from(wanted.weights[t] * loss) };
    match wanted.soft {
        None => {
            cross_entropy(pool, &mut s.logits, vocab, wanted.targets, wanted.weights, logprobs);
            out.loss = logprobs.iter().enumerate().map(|(t, logprob)| weighted(t, -logprob)).sum();
        }
        Some(soft) => {
            let logits = &s.logits;
            for_rows(pool, logprobs, 1, |t, to| {
                to[0] = log_probability(&logits[t * vocab..][..vocab], wanted.targets[t] as usize);
            });
            for_rows(pool, sized(&mut s.teacher, logits.len()), vocab, |t, row| {
                row.fill(0.0);
                let span = t * soft.per_row..(t + 1) * soft.per_row;
                for (&token, p) in soft.tokens[span.clone()].iter().zip(&soft.probabilities[span]) {
                    row[token as usize] += p;
                }
            });
            let told = sized(&mut s.losses, logprobs.len());
            cross_entropy_soft(pool, &mut s.logits, vocab, &s.teacher, wanted.weights, told);
            out.loss = s.losses.iter().enumerate().map(|(t, &loss)| weighted(t, loss)).sum();
        }
    }
    out
}
