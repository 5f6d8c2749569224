//! One pass over a batch: forward, loss, backward.

use std::ops::Range;

use kernels::attention::{CacheFormat, Chunk, PAGE_LEN};
use kernels::ops;
use kernels::pool::Pool;
use kernels::train::backward::rms_norm_backward;
use kernels::train::panels::Precision;

use super::head::{self, HeadScratch, Wanted};
use super::mtp::{self, Module};
use super::{Arithmetic, Gradients, Objective, Outcome, TrainBatch, Trainable};
use crate::cache::{Cache, LayerCache};
use crate::forward::{Ropes, embed};
use crate::layers::{self, Backward, BlockActivations, BlockScratch, Step, block, router, sized};
use crate::load::Model;
use crate::parameters::{ParameterSpec, Part, Place};
use crate::rope::angles;
use crate::spec::{BlockSpec, Ffn, ModelSpec};
use crate::weights::BlockWeights;

/// Buffers of training, kept from step to step.
#[derive(Default)]
pub struct TrainState {
    /// How latent attention computes; rollouts must use the same to get the same bits.
    pub arithmetic: Arithmetic,
    /// Whether the entropy of predictions is told.
    pub entropy: bool,
    cache: Option<(ModelSpec, Cache)>,
    /// One for each layer, or one for all where only inputs are kept.
    acts: Vec<BlockActivations>,
    /// The blocks' inputs, `[T, hidden]` each.
    inputs: Vec<Vec<f32>>,
    /// `[T, hidden]`: the residual stream, and after the last norm.
    x: Vec<f32>,
    normed: Vec<f32>,
    /// Their gradients.
    dx: Vec<f32>,
    dnormed: Vec<f32>,
    scratch: BlockScratch,
    head: HeadScratch,
    modules: Vec<Module>,
    /// Gradients of a block whose parameters are not trained, on their way to those of adapters.
    frozen: Vec<Vec<f32>>,
}

/// What every part of a pass needs.
pub(super) struct Context<'a> {
    pub(super) trainable: &'a Trainable,
    pub(super) model: &'a Model,
    pub(super) pool: &'a Pool,
    pub(super) ropes: Ropes,
    pub(super) arithmetic: Arithmetic,
    pub(super) precision: Precision,
    pub(super) balance: f32,
}

/// Rows of whole sequences, as the layers see them.
pub(super) struct RowSet<'a> {
    pub(super) sequences: &'a [usize],
    pub(super) chunks: Vec<Chunk<'a>>,
    /// Of each different rotary embedding.
    angles: Vec<Vec<f32>>,
}

impl<'a> RowSet<'a> {
    /// `pages` are the numbers `0 ..` of as many pages as [`pages_of`] says.
    pub(super) fn new(context: &Context, sequences: &'a [usize], pages: &'a [u32]) -> RowSet<'a> {
        let (mut chunks, mut first_row, mut rest) = (Vec::with_capacity(sequences.len()), 0, pages);
        for &rows in sequences {
            let (own, after) = rest.split_at(rows.div_ceil(PAGE_LEN));
            chunks.push(Chunk { first_row, rows, position: 0, pages: own });
            (first_row, rest) = (first_row + rows, after);
        }
        let longest = sequences.iter().copied().max().unwrap_or(0);
        let of_table = |(rope, frequencies): &(crate::spec::RopeSpec, Vec<f32>)| {
            let mut once = Vec::new();
            angles(frequencies, rope.magnitude(), 0..longest, &mut once);
            sequences.iter().flat_map(|&rows| &once[..rows * rope.dim]).copied().collect()
        };
        RowSet { sequences, chunks, angles: context.ropes.tables.iter().map(of_table).collect() }
    }

    fn step(&'a self, context: &'a Context, block: usize) -> Step<'a> {
        let (main, _) = context.ropes.of_block[block];
        Step {
            pool: context.pool,
            chunks: &self.chunks,
            angles: &self.angles[main],
            index_angles: None,
            arithmetic: context.arithmetic,
        }
    }
}

/// Pages that the sequences need, each its own.
pub(super) fn pages_of(sequences: &[usize]) -> usize {
    sequences.iter().map(|rows| rows.div_ceil(PAGE_LEN)).sum()
}

/// A block by its number; prediction modules stand after the layers.
pub(super) fn block_of(model: &Model, block: usize) -> (&BlockSpec, &BlockWeights) {
    let (spec, weights) = (&model.spec, &model.weights);
    match block.checked_sub(spec.blocks.len()) {
        None => (&spec.blocks[block], &weights.blocks[block]),
        Some(i) => (&spec.mtp[i], &weights.mtp[i].block),
    }
}

/// The place of a block by its number.
fn place_of(model: &Model, block: usize) -> Place {
    block.checked_sub(model.spec.blocks.len()).map_or(Place::Block(block), Place::Mtp)
}

/// The parameters of a place that stand together in the list: all but the model's own do.
pub(super) fn range_of(parameters: &[ParameterSpec], place: Place) -> Range<usize> {
    let is = |p: &ParameterSpec| p.slot.place == place;
    let first = parameters.iter().position(is).unwrap_or(0);
    first..first + parameters[first..].iter().take_while(|p| is(p)).count()
}

/// The number of one of the model's own parameters.
pub(super) fn number_of(parameters: &[ParameterSpec], part: Part) -> Option<usize> {
    parameters.iter().position(|p| p.slot.place == Place::Model && p.slot.part == part)
}

/// Runs block number `block` on `x`.
pub(super) fn forward_block(
    context: &Context,
    block: usize,
    rows: &RowSet,
    x: &mut [f32],
    cache: &mut LayerCache,
    acts: &mut BlockActivations,
) {
    let (spec, weights) = block_of(context.model, block);
    block::forward(spec, weights, &rows.step(context, block), x, cache, acts);
}

/// From the gradient of the block's output to that of its input, in `dx`.
pub(super) fn backward_block(
    context: &Context,
    block: usize,
    rows: &RowSet,
    dx: &mut [f32],
    acts: &BlockActivations,
    scratch: &mut BlockScratch,
    gradients: &mut Gradients,
    frozen: &mut Vec<Vec<f32>>,
) {
    let (spec, weights) = block_of(context.model, block);
    let step = rows.step(context, block);
    let balance = context.balance / rows.sequences.iter().filter(|&&n| n > 0).count().max(1) as f32;
    let t = Backward { step: &step, sequences: rows.sequences, precision: context.precision, balance };
    let trainable = context.trainable;
    let range = range_of(trainable.layout(), place_of(context.model, block));
    let parameters = &trainable.layout()[range.clone()];
    let Some(adapters) = trainable.adapters() else {
        let mut gradients = layers::Gradients { parameters, parts: &mut gradients.parts[range] };
        return block::backward(spec, weights, &t, dx, acts, scratch, &mut gradients);
    };
    frozen.resize_with(frozen.len().max(range.len()), Vec::new);
    for (part, parameter) in frozen.iter_mut().zip(parameters) {
        part.clear();
        part.resize(parameter.elements() as usize, 0.0);
    }
    let mut of_block = layers::Gradients { parameters, parts: &mut frozen[..range.len()] };
    block::backward(spec, weights, &t, dx, acts, scratch, &mut of_block);
    adapters.project(context.pool, range, frozen, trainable.masters(), &mut gradients.parts);
}

/// What a block with experts tells: the tokens of each expert and, where it is asked for, the mean
/// over sequences of the balance loss.
pub(super) fn tell_experts(
    context: &Context,
    block: usize,
    rows: &RowSet,
    acts: &BlockActivations,
    outcome: &mut Outcome,
) {
    let Ffn::Moe(moe) = &block_of(context.model, block).0.ffn else { return };
    let mut counts = vec![0u32; moe.experts];
    acts.ffn.choices.iter().for_each(|choice| counts[choice.expert] += 1);
    outcome.expert_tokens.push(counts);
    if context.balance != 0.0 {
        let count = rows.sequences.iter().filter(|&&n| n > 0).count().max(1);
        let loss = router::balance_loss(moe, context.pool, &acts.ffn.affinity, rows.sequences);
        outcome.balance_loss += loss / count as f64;
    }
}

/// [`super::forward_backward`], or [`super::forward_only`] without gradients.
pub(super) fn run(
    trainable: &Trainable,
    pool: &Pool,
    state: &mut TrainState,
    batch: &TrainBatch,
    objective: &Objective,
    mut gradients: Option<&mut Gradients>,
) -> Outcome {
    let model = trainable.model();
    check(trainable, batch, gradients.as_deref());
    let modules = objective.mtp_weight != 0.0 && !model.spec.mtp.is_empty();
    assert!(!modules || trainable.adapters().is_none(), "prediction modules are not trained through adapters");
    let context = Context {
        trainable,
        model,
        pool,
        ropes: Ropes::of(model),
        arithmetic: state.arithmetic,
        precision: trainable.precision(),
        balance: objective.balance,
    };
    let pages: Vec<u32> = (0..pages_of(batch.sequences) as u32).collect();
    let rows = RowSet::new(&context, batch.sequences, &pages);
    state.make_cache(&model.spec, pages.len());
    let mut outcome = Outcome { logprobs: vec![0.0; batch.tokens.len()], ..Outcome::default() };
    let keep = if gradients.is_none() {
        Keep::Nothing
    } else if objective.checkpointing {
        Keep::Inputs
    } else {
        Keep::All
    };
    forward(&context, state, &rows, batch, keep, &mut outcome);
    loss(&context, state, batch, gradients.as_deref_mut(), &mut outcome);
    if modules {
        let TrainState { cache, modules, normed, dnormed, scratch, head, .. } = state;
        let cache = &mut cache.as_mut().expect("made above").1;
        let mut run = mtp::Run { context: &context, cache, modules, scratch, head };
        run.all(batch, normed, dnormed, objective.mtp_weight, gradients.as_deref_mut(), &mut outcome);
    } else {
        let moe = |block: &BlockSpec| match &block.ffn {
            Ffn::Moe(moe) => Some(vec![0; moe.experts]),
            Ffn::Dense(_) => None,
        };
        outcome.expert_tokens.extend(model.spec.mtp.iter().filter_map(moe));
    }
    if let Some(gradients) = gradients.as_deref_mut() {
        backward(&context, state, &rows, batch, keep, gradients);
    }
    outcome.nonfinite = nonfinite(&context, state, keep, &outcome, gradients.as_deref());
    outcome
}

/// What a forward pass keeps for the backward pass.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Nothing,
    Inputs,
    All,
}

fn check(trainable: &Trainable, batch: &TrainBatch, gradients: Option<&Gradients>) {
    let (rows, vocab) = (batch.tokens.len(), trainable.model().spec.vocab as u32);
    assert_eq!(batch.sequences.iter().sum::<usize>(), rows, "rows of all sequences");
    assert!(
        batch.targets.len() == rows && batch.weights.len() == rows,
        "a target and a weight for each of {rows} rows"
    );
    assert!(batch.tokens.iter().chain(batch.targets).all(|&t| t < vocab), "tokens and targets below {vocab}");
    if let Some(soft) = &batch.soft_targets {
        let n = rows * soft.per_row;
        assert!(soft.tokens.len() == n && soft.probabilities.len() == n, "{} soft targets a row", soft.per_row);
        assert!(soft.tokens.iter().all(|&t| t < vocab), "soft targets below {vocab}");
    }
    if let Some(gradients) = gradients {
        let same =
            trainable.parameters().iter().map(|p| p.elements()).eq(gradients.parts.iter().map(|g| g.len() as u64));
        assert!(same, "gradients of this model's parameters");
    }
}

impl TrainState {
    /// Empty buffers for passes with this arithmetic of latent attention.
    pub fn new(arithmetic: Arithmetic) -> TrainState {
        TrainState { arithmetic, ..TrainState::default() }
    }

    /// Makes sure that there are `pages` pages for every block.
    fn make_cache(&mut self, spec: &ModelSpec, pages: usize) {
        if self.cache.as_ref().is_some_and(|(of, cache)| of == spec && cache.pages() >= pages) {
            return;
        }
        let mut all = spec.clone();
        all.blocks.extend(spec.mtp.iter().cloned());
        self.cache = Some((spec.clone(), Cache::new(&all, CacheFormat::F32, pages)));
    }
}

/// The layers: from tokens to `state.x`.
fn forward(
    context: &Context,
    state: &mut TrainState,
    rows: &RowSet,
    batch: &TrainBatch,
    keep: Keep,
    outcome: &mut Outcome,
) {
    let count = context.model.spec.blocks.len();
    let TrainState { cache, acts, inputs, x, .. } = state;
    let cache = &mut cache.as_mut().expect("made before").1;
    // Never less than before: evaluation between steps does not give the memory back.
    acts.resize_with(acts.len().max(if keep == Keep::All { count } else { 1 }), BlockActivations::default);
    inputs.resize_with(inputs.len().max(if keep == Keep::Inputs { count } else { 0 }), Vec::new);
    embed(context.model, context.pool, batch.tokens, x);
    for l in 0..count {
        if keep == Keep::Inputs {
            layers::copy(context.pool, &mut inputs[l], x);
        }
        let acts = &mut acts[if keep == Keep::All { l } else { 0 }];
        forward_block(context, l, rows, x, &mut cache.layers[l], acts);
        tell_experts(context, l, rows, acts, outcome);
    }
}

/// The last norm, the head and the loss; their gradients down to `state.dnormed`.
fn loss(
    context: &Context,
    state: &mut TrainState,
    batch: &TrainBatch,
    gradients: Option<&mut Gradients>,
    outcome: &mut Outcome,
) {
    let (model, pool) = (context.model, context.pool);
    let normed = sized(&mut state.normed, state.x.len());
    ops::rms_norm(pool, normed, &state.x, &model.weights.final_norm, model.spec.final_norm_eps);
    let wanted =
        Wanted { targets: batch.targets, weights: batch.weights, soft: batch.soft_targets, entropy: state.entropy };
    let dnormed = sized(&mut state.dnormed, normed.len());
    let gradients = gradients.map(|g| (dnormed, head_gradient(context, g), context.precision.outside_fp8()));
    let told = head::loss(model, pool, normed, &wanted, &mut outcome.logprobs, gradients, &mut state.head);
    outcome.loss = told.loss;
    outcome.entropy = state.entropy.then(|| told.entropy.0 / told.entropy.1.max(1) as f64);
}

/// The gradient of the head's matrix: the embedding's where they are tied; none where it is not trained.
pub(super) fn head_gradient<'a>(context: &Context, gradients: &'a mut Gradients) -> Option<&'a mut [f32]> {
    let part = if context.model.spec.head.tied { Part::Embedding } else { Part::Head };
    let number = number_of(context.trainable.layout(), part).expect("every model has one");
    context.trainable.adapters().is_none().then(|| gradients.parts[number].as_mut_slice())
}

/// From `state.dnormed` down to the embedding.
fn backward(
    context: &Context,
    state: &mut TrainState,
    rows: &RowSet,
    batch: &TrainBatch,
    keep: Keep,
    gradients: &mut Gradients,
) {
    let (model, pool) = (context.model, context.pool);
    let TrainState { cache, acts, inputs, x, dx, dnormed, scratch, frozen, .. } = state;
    let cache = &mut cache.as_mut().expect("made before").1;
    let norm = number_of(context.trainable.layout(), Part::FinalNorm).expect("every model has one");
    let (weight, eps) = (&model.weights.final_norm, model.spec.final_norm_eps);
    let mut untrained = Vec::new();
    let dnorm = match context.trainable.adapters() {
        None => gradients.parts[norm].as_mut_slice(),
        Some(_) => sized(&mut untrained, weight.len()),
    };
    rms_norm_backward(pool, sized(dx, x.len()), dnorm, dnormed, x, weight, eps);
    for l in (0..model.spec.blocks.len()).rev() {
        if keep == Keep::Inputs {
            layers::copy(pool, x, &inputs[l]);
            forward_block(context, l, rows, x, &mut cache.layers[l], &mut acts[0]);
        }
        let acts = &acts[if keep == Keep::All { l } else { 0 }];
        backward_block(context, l, rows, dx, acts, scratch, gradients, frozen);
    }
    embedding_backward(context, batch.tokens, dx, gradients);
}

/// Adds each row's gradient to that of its token, in the order of rows.
pub(super) fn embedding_backward(context: &Context, tokens: &[u32], dx: &[f32], gradients: &mut Gradients) {
    const TOKENS: usize = 128;
    let (hidden, scale) = (context.model.spec.hidden, context.model.spec.embedding_scale.unwrap_or(1.0));
    if context.trainable.adapters().is_some() {
        return;
    }
    let number = number_of(context.trainable.layout(), Part::Embedding).expect("every model has one");
    context.pool.for_each_piece(&mut gradients.parts[number], TOKENS * hidden, |i, gradient| {
        let own = i * TOKENS..i * TOKENS + gradient.len() / hidden;
        for (&token, dx) in tokens.iter().zip(dx.chunks_exact(hidden)) {
            if own.contains(&(token as usize)) {
                let to = &mut gradient[(token as usize - own.start) * hidden..][..hidden];
                to.iter_mut().zip(dx).for_each(|(to, v)| *to += scale * v);
            }
        }
    });
}

/// Names the first layer whose output is not finite, or the first parameter whose gradient is not.
fn nonfinite(
    context: &Context,
    state: &TrainState,
    keep: Keep,
    outcome: &Outcome,
    gradients: Option<&Gradients>,
) -> Option<String> {
    let bad = |values: &[f32]| !all_finite(context.pool, values);
    if !outcome.loss.is_finite() || !outcome.mtp_loss.is_finite() || bad(&outcome.logprobs) {
        let layers = context.model.spec.blocks.len();
        let input = |l: usize| match keep {
            Keep::All => Some(state.acts[l].input.as_slice()),
            Keep::Inputs => Some(state.inputs[l].as_slice()),
            Keep::Nothing => None,
        };
        let first = (0..layers).find(|&l| input(l).is_some_and(bad));
        return Some(match first {
            Some(0) => "the embedding".into(),
            Some(l) => format!("the output of layer {}", l - 1),
            None => "the output of the last layer, the head or a prediction module".into(),
        });
    }
    let parameters = context.trainable.parameters().iter().zip(&gradients?.parts);
    parameters.into_iter().find(|(_, gradient)| bad(gradient)).map(|(p, _)| format!("the gradient of {:?}", p.slot))
}

/// Whether all values are finite numbers.
fn all_finite(pool: &Pool, values: &[f32]) -> bool {
    use std::sync::atomic::{AtomicBool, Ordering};
    const PIECE: usize = 1 << 16;
    let finite = AtomicBool::new(true);
    pool.run(values.len().div_ceil(PIECE), |i| {
        let piece = &values[i * PIECE..values.len().min((i + 1) * PIECE)];
        if !piece.iter().fold(true, |all, v| all & v.is_finite()) {
            finite.store(false, Ordering::Relaxed);
        }
    });
    finite.into_inner()
}
