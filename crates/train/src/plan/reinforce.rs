//! What reinforcement learning takes: rollouts wait for their longest answer.
//!
//! A rollout decodes many answers at once and ends when the last one does, so its time is the length limit over the
//! speed of one sequence, or all tokens over the throughput of all devices, whichever is longer. Then come the
//! passes over the answers: a forward pass for the reference model and training.

use super::{Cluster, PlanError, Pretraining, Work};
use model::spec::ModelSpec;

/// A stage of reinforcement learning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reinforcement {
    /// Optimiser steps.
    pub steps: u64,
    /// Answers of a step.
    pub answers_per_step: u64,
    /// Steps that one rollout's answers are used for, each answer once.
    pub steps_per_rollout: u64,
    /// The longest answer allowed, tokens.
    pub tokens_max: u64,
    /// Mean length of an answer, tokens.
    pub tokens_mean: f64,
}

impl Reinforcement {
    /// Hours of one device for the stage.
    ///
    /// # Errors
    /// As [`super::pretraining`].
    pub fn device_hours(&self, spec: &ModelSpec, cluster: &Cluster) -> Result<f64, PlanError> {
        cluster.check()?;
        let speed = cluster.device.decode_tokens_per_s;
        if !(speed.is_finite() && speed > 0.0) {
            return Err(PlanError::Number { name: "device.decode_tokens_per_s", value: speed });
        }
        let rollouts = self.steps as f64 / self.steps_per_rollout as f64;
        let rollout_s = self.tokens_max as f64 / speed;
        let tokens = self.steps as f64 * self.answers_per_step as f64 * self.tokens_mean;
        let run = Pretraining {
            tokens,
            sequence: self.tokens_mean as u64,
            batch: self.answers_per_step,
            fp8: true,
            recompute_up_projections: true,
        };
        // The reference model's forward pass is a third of a training pass.
        let learn_s = super::pretraining(spec, &run, cluster)?.hours * 3600.0 * (4.0 / 3.0);
        Ok((rollouts * rollout_s + learn_s) * cluster.devices as f64 / 3600.0)
    }

    /// Operations of learning from one token of an answer.
    pub fn operations_per_token(&self, spec: &ModelSpec) -> f64 {
        Work::of(spec, self.tokens_mean as u64).training_operations() * (4.0 / 3.0)
    }
}
