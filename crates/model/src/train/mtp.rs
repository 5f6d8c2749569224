//! Multi-token prediction (V3 report, section 2.2).
//!
//! The module of depth k predicts the token k + 1 places on from the representation of the depth
//! before (for the first, what the head of the model sees) and the embedding of the token k places on.
//! Embedding and head are the model's own. A sequence has one row less at every depth.

use kernels::matmul::matmul;
use kernels::ops;
use kernels::train::backward::rms_norm_backward;
use kernels::train::products::{matmul_dw, matmul_dx};

use super::head::{self, HeadScratch, Wanted};
use super::pass::{
    Context, RowSet, backward_block, embedding_backward, forward_block, head_gradient, pages_of, range_of, tell_experts,
};
use super::{Gradients, Outcome, TrainBatch};
use crate::cache::Cache;
use crate::forward::embed;
use crate::layers::{self, BlockActivations, BlockScratch, add, for_rows, sized};
use crate::parameters::{Part, Place};

/// What a module computes on the way, and the gradients of it.
#[derive(Default)]
pub(super) struct Module {
    sequences: Vec<usize>,
    pages: Vec<u32>,
    /// The row of the depth before that each row goes on from.
    before: Vec<usize>,
    tokens: Vec<u32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
    logprobs: Vec<f32>,
    /// `[R, hidden]`: h of the depth before, and the embedding.
    hidden: Vec<f32>,
    embedded: Vec<f32>,
    /// `[R, 2 hidden]`, the embedding's norm and h's: the files' order.
    joined: Vec<f32>,
    /// `[R, hidden]`: h of this depth, and after its norm.
    x: Vec<f32>,
    normed: Vec<f32>,
    acts: BlockActivations,
    /// Gradients.
    dnormed: Vec<f32>,
    dx: Vec<f32>,
    djoined: Vec<f32>,
    dhalf: Vec<f32>,
    dembedded: Vec<f32>,
    dhidden: Vec<f32>,
}

/// A run of all modules.
pub(super) struct Run<'a, 'b> {
    pub(super) context: &'a Context<'b>,
    pub(super) cache: &'a mut Cache,
    pub(super) modules: &'a mut Vec<Module>,
    pub(super) scratch: &'a mut BlockScratch,
    pub(super) head: &'a mut HeadScratch,
}

impl Run<'_, '_> {
    /// Forward, loss and backward; the gradient of `hidden`, what the model's head sees, is added to
    /// `dhidden`.
    pub(super) fn all(
        &mut self,
        batch: &TrainBatch,
        hidden: &[f32],
        dhidden: &mut [f32],
        lambda: f32,
        mut gradients: Option<&mut Gradients>,
        outcome: &mut Outcome,
    ) {
        let depths = self.context.model.spec.mtp.len();
        self.modules.resize_with(depths, Module::default);
        for i in 0..depths {
            let (before, rest) = self.modules.split_at_mut(i);
            let (hidden, sequences) = match before.last() {
                None => (hidden, batch.sequences),
                Some(before) => (before.x.as_slice(), before.sequences.as_slice()),
            };
            rest[0].prepare(batch, sequences, i + 1);
            rest[0].gather(self.context, hidden);
            self.forward(i, outcome);
            let loss = self.loss(i, lambda / depths as f32, gradients.as_deref_mut());
            outcome.mtp_loss += loss / depths as f64;
        }
        let Some(gradients) = gradients else { return };
        for i in (0..depths).rev() {
            self.backward(i, gradients);
            let (before, rest) = self.modules.split_at_mut(i);
            let to = before.last_mut().map_or(&mut *dhidden, |before| before.dx.as_mut_slice());
            rest[0].scatter(self.context, to);
        }
    }

    /// (21) and (22)
    fn forward(&mut self, i: usize, outcome: &mut Outcome) {
        let (context, m) = (self.context, &mut self.modules[i]);
        let (pool, spec) = (context.pool, &context.model.spec);
        let (d, eps, w) = (spec.hidden, spec.mtp[i].norm_eps, &context.model.weights.mtp[i]);
        embed(context.model, pool, &m.tokens, &mut m.embedded);
        let rows = m.tokens.len();
        // dx and dhalf serve as the two normed halves.
        ops::rms_norm(pool, sized(&mut m.dx, rows * d), &m.embedded, &w.embedding_norm, eps);
        ops::rms_norm(pool, sized(&mut m.dhalf, rows * d), &m.hidden, &w.hidden_norm, eps);
        let (embedded, hidden) = (&m.dx, &m.dhalf);
        for_rows(pool, sized(&mut m.joined, rows * 2 * d), 2 * d, |r, to| {
            to[..d].copy_from_slice(&embedded[r * d..(r + 1) * d]);
            to[d..].copy_from_slice(&hidden[r * d..(r + 1) * d]);
        });
        matmul(pool, sized(&mut m.x, rows * d), &m.joined, &w.projection);
        let block = spec.blocks.len() + i;
        let set = RowSet::new(context, &m.sequences, &m.pages);
        forward_block(context, block, &set, &mut m.x, &mut self.cache.layers[block], &mut m.acts);
        tell_experts(context, block, &set, &m.acts, outcome);
        ops::rms_norm(pool, sized(&mut m.normed, rows * d), &m.x, &w.head_norm, eps);
    }

    /// (23) and (24), without the factor; gradients, with it, down to `dx`.
    fn loss(&mut self, i: usize, factor: f32, gradients: Option<&mut Gradients>) -> f64 {
        let (context, m) = (self.context, &mut self.modules[i]);
        let (model, pool) = (context.model, context.pool);
        let plain: f64 = {
            let scaled: Vec<f32> = m.weights.iter().map(|w| w * factor).collect();
            let wanted = Wanted { targets: &m.targets, weights: &scaled, soft: None, entropy: false };
            m.logprobs.resize(m.targets.len(), 0.0);
            let dnormed = sized(&mut m.dnormed, m.normed.len());
            let gradients = gradients.map(|g| (dnormed, head_gradient(context, g), context.precision.outside_fp8()));
            head::loss(model, pool, &m.normed, &wanted, &mut m.logprobs, gradients, self.head);
            let losses = m.weights.iter().zip(&m.logprobs).filter(|(w, _)| **w != 0.0);
            losses.map(|(w, logprob)| -f64::from(w * logprob)).sum()
        };
        m.dx.resize(m.x.len(), 0.0);
        m.dx.fill(0.0);
        plain
    }

    /// From `dnormed` (and what later depths added to `dx`) to `dhidden` and the embedding.
    fn backward(&mut self, i: usize, gradients: &mut Gradients) {
        let (context, m) = (self.context, &mut self.modules[i]);
        let (pool, spec) = (context.pool, &context.model.spec);
        let (d, eps, w) = (spec.hidden, spec.mtp[i].norm_eps, &context.model.weights.mtp[i]);
        let parameters = context.trainable.layout();
        let range = range_of(parameters, Place::Mtp(i));
        let own = |gradients: &mut Gradients, f: &mut dyn FnMut(&mut layers::Gradients)| {
            let parts = &mut gradients.parts[range.clone()];
            f(&mut layers::Gradients { parameters: &parameters[range.clone()], parts });
        };
        let through = sized(&mut m.dhalf, m.x.len());
        own(gradients, &mut |g| {
            rms_norm_backward(pool, through, g.of(Part::MtpHeadNorm), &m.dnormed, &m.x, &w.head_norm, eps);
        });
        add(pool, &mut m.dx, &m.dhalf);

        let set = RowSet::new(context, &m.sequences, &m.pages);
        backward_block(
            context,
            spec.blocks.len() + i,
            &set,
            &mut m.dx,
            &m.acts,
            self.scratch,
            gradients,
            &mut Vec::new(),
        );
        own(gradients, &mut |g| matmul_dw(pool, g.of(Part::MtpProjection), &m.dx, &m.joined, context.precision));
        matmul_dx(pool, sized(&mut m.djoined, m.joined.len()), &m.dx, &w.projection);

        let djoined = &m.djoined;
        let half =
            |first: usize| move |r: usize, to: &mut [f32]| to.copy_from_slice(&djoined[r * 2 * d + first..][..d]);
        for_rows(pool, sized(&mut m.dhalf, m.x.len()), d, half(0));
        let dembedded = sized(&mut m.dembedded, m.x.len());
        own(gradients, &mut |g| {
            let weight = g.of(Part::MtpEmbeddingNorm);
            rms_norm_backward(pool, dembedded, weight, &m.dhalf, &m.embedded, &w.embedding_norm, eps);
        });
        for_rows(pool, &mut m.dhalf, d, half(d));
        let dhidden = sized(&mut m.dhidden, m.x.len());
        own(gradients, &mut |g| {
            rms_norm_backward(pool, dhidden, g.of(Part::MtpHiddenNorm), &m.dhalf, &m.hidden, &w.hidden_norm, eps);
        });
        embedding_backward(context, &m.tokens, &m.dembedded, gradients);
    }
}

impl Module {
    /// Which rows there are at `depth`, given the `sequences` of the depth before.
    fn prepare(&mut self, batch: &TrainBatch, sequences: &[usize], depth: usize) {
        self.sequences = sequences.iter().map(|n| n.saturating_sub(1)).collect();
        self.pages = (0..pages_of(&self.sequences) as u32).collect();
        self.before.clear();
        self.tokens.clear();
        self.targets.clear();
        self.weights.clear();
        let (mut first_before, mut first) = (0, 0);
        for (s, &rows) in self.sequences.iter().enumerate() {
            if rows > 0 {
                self.before.extend(first_before..first_before + rows);
                let span = first + depth..first + depth + rows;
                self.tokens.extend_from_slice(&batch.tokens[span.clone()]);
                self.targets.extend_from_slice(&batch.targets[span.clone()]);
                self.weights.extend_from_slice(&batch.weights[span]);
            }
            first_before += sequences[s];
            first += batch.sequences[s];
        }
    }

    /// The rows of the depth before.
    fn gather(&mut self, context: &Context, hidden: &[f32]) {
        let (d, before) = (context.model.spec.hidden, &self.before);
        for_rows(context.pool, sized(&mut self.hidden, before.len() * d), d, |r, to| {
            to.copy_from_slice(&hidden[before[r] * d..][..d]);
        });
    }

    /// Adds `dhidden` to the gradients of the depth before.
    fn scatter(&self, context: &Context, to: &mut [f32]) {
        let d = context.model.spec.hidden;
        for (&row, from) in self.before.iter().zip(self.dhidden.chunks_exact(d)) {
            ops::add(&mut to[row * d..][..d], from);
        }
    }
}
