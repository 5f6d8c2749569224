//! The loss and its gradients: training's forward and backward pass.
//!
//! The forward pass is that of inference, layer by layer the same functions on the same weights
//! ([`Trainable::model`]), so the log-probabilities of a [`TrainBatch`] are those that a sampler got
//! for the same tokens, to the bit. Training only keeps what the layers compute on the way, or the
//! blocks' inputs, from which it computes that again ([`Objective::checkpointing`]).
//!
//! Gradients are sums over rows in a fixed order: threads and checkpointing change no bit of them.

mod adapters;
mod head;
mod mtp;
mod pass;
mod trainable;
mod values;

use kernels::pool::Pool;

use crate::parameters::ParameterSpec;

pub use crate::layers::mla::Arithmetic;
pub use adapters::{Adapter, Lora, merged};
pub use kernels::train::panels::Precision;
pub use pass::TrainState;
pub use trainable::{TrainError, Trainable};

/// Gradients of all parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    /// In the order of [`Trainable::parameters`].
    pub parts: Vec<Vec<f32>>,
}

impl Gradients {
    /// Zeros for all parameters.
    pub fn new(parameters: &[ParameterSpec]) -> Gradients {
        Gradients { parts: parameters.iter().map(|p| vec![0.0; p.elements() as usize]).collect() }
    }

    /// Zeros again.
    pub fn clear(&mut self, pool: &Pool) {
        const PIECE: usize = 1 << 16;
        self.parts.iter_mut().for_each(|part| pool.for_each_piece(part, PIECE, |_, piece| piece.fill(0.0)));
    }
}

/// Rows to learn from: whole sequences, one after the other, each of which sees itself alone.
#[derive(Clone, Copy, Debug)]
pub struct TrainBatch<'a> {
    /// One token a row.
    pub tokens: &'a [u32],
    /// Rows of each sequence, in order.
    pub sequences: &'a [usize],
    /// The token that each row is to predict (ignored where its weight is 0, but it is of the
    /// vocabulary): the next one.
    pub targets: &'a [u32],
    /// The loss is the sum of `-weight * log p(target)`: 1/n in pre-training, masked in fine-tuning,
    /// advantages in reinforcement learning (which may be negative).
    pub weights: &'a [f32],
    /// Distributions to learn instead of single tokens (distillation).
    pub soft_targets: Option<SoftTargets<'a>>,
}

/// A teacher's distribution for each row: its most likely tokens. The loss of a row is
/// `-weight * sum of p log q`.
#[derive(Clone, Copy, Debug)]
pub struct SoftTargets<'a> {
    /// Tokens a row.
    pub per_row: usize,
    /// `[T, per_row]`
    pub tokens: &'a [u32],
    /// `[T, per_row]`
    pub probabilities: &'a [f32],
}

/// What is minimised besides the loss of the next token, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Objective {
    /// lambda of multi-token prediction (V3 report, equation 25); 0: the modules do not run.
    pub mtp_weight: f32,
    /// alpha of the sequence-wise balance loss (equation 17), for the mean over the batch's sequences.
    /// Who accumulates batches divides it by their number.
    pub balance: f32,
    /// Keep only the blocks' inputs and compute the rest again: less memory, the same bits.
    pub checkpointing: bool,
}

/// What a pass computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Of each row's target.
    pub logprobs: Vec<f32>,
    /// The sum of `-weight * logprob` (with soft targets, of their losses).
    pub loss: f64,
    /// The same of multi-token prediction, the mean over its depths, without lambda.
    pub mtp_loss: f64,
    /// The sum over layers of the mean over sequences, without alpha; 0 where alpha is.
    pub balance_loss: f64,
    /// Mean entropy of the predictions of rows with a weight, in nats; where the state asks for it.
    pub entropy: Option<f64>,
    /// For each layer with experts (prediction modules last), the tokens of each expert.
    pub expert_tokens: Vec<Vec<u32>>,
    /// The first thing found that is not a finite number.
    pub nonfinite: Option<String>,
}

/// Computes the loss of a batch and adds its gradients to `gradients`.
///
/// # Panics
/// If the batch's sizes do not agree, a token is not of the vocabulary, `gradients` are of another model, or
/// prediction modules are to be trained through adapters.
pub fn forward_backward(
    trainable: &Trainable,
    pool: &Pool,
    state: &mut TrainState,
    batch: &TrainBatch,
    objective: &Objective,
    gradients: &mut Gradients,
) -> Outcome {
    pass::run(trainable, pool, state, batch, objective, Some(gradients))
}

/// The losses of a batch without gradients.
///
/// # Panics
/// As [`forward_backward`].
pub fn forward_only(
    trainable: &Trainable,
    pool: &Pool,
    state: &mut TrainState,
    batch: &TrainBatch,
    objective: &Objective,
) -> Outcome {
    pass::run(trainable, pool, state, batch, objective, None)
}
