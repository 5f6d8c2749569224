//! What a run trains: parameters, and gradients of a batch.
//!
//! The loop knows models only through [`Learner`], so that its own promises (resume, checkpoints, skipped steps) are
//! tested with a small one.

mod teacher;
mod transformer;

use kernels::pool::Pool;
use model::parameters::ParameterSpec;

use crate::data::Batch;

pub use teacher::Teacher;
pub use transformer::Transformer;

/// What is learned beside the next token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Aims {
    /// Weight of multi-token prediction.
    pub mtp_weight: f32,
    /// Weight of the sequence-wise balance loss.
    pub balance: f32,
    /// Whether only the inputs of layers are kept.
    pub checkpointing: bool,
}

/// What a batch gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passed {
    /// The sum over learned targets of their negative log probability times the batch's weight.
    pub loss: f64,
    /// The same of multi-token prediction.
    pub mtp_loss: f64,
    /// The balance loss.
    pub balance_loss: f64,
    /// Tokens that each expert of each layer with experts saw.
    pub expert_tokens: Vec<Vec<u32>>,
    /// The first value that was not finite, if any: where.
    pub nonfinite: Option<String>,
    /// Log probability of each target.
    pub log_probabilities: Vec<f32>,
}

/// A model that can be trained.
pub trait Learner {
    /// Its parameters, in the order of the lists below.
    fn parameters(&self) -> &[ParameterSpec];

    /// The weights.
    fn masters(&self) -> &[Vec<f32>];

    /// The weights, to be changed; [`Learner::refresh`] must follow.
    fn masters_mut(&mut self) -> &mut [Vec<f32>];

    /// Takes over changed weights.
    fn refresh(&mut self, pool: &Pool);

    /// Adds the gradients of a batch to `gradients`; every learned target counts `weight`.
    fn learn(&mut self, pool: &Pool, batch: &Batch, weight: f32, aims: &Aims, gradients: &mut Vec<Vec<f32>>) -> Passed;

    /// The log probabilities of a batch's targets, without gradients.
    fn measure(&mut self, pool: &Pool, batch: &Batch) -> Passed;
}
