//! The models of `model`, as a run trains them.

use std::path::Path;

use kernels::pool::Pool;
use model::load::Model;
use model::parameters::ParameterSpec;
use model::spec::ModelSpec;
use model::train::{
    Arithmetic, Gradients, Objective, Outcome, TrainBatch, TrainState, Trainable, forward_backward, forward_only,
};

use super::{Aims, Learner, Passed, Teacher};
use crate::data::Batch;
use crate::recipe::Recipe;
use crate::run::RunError;

/// A model and what its passes work with.
pub struct Transformer {
    trainable: Trainable,
    state: TrainState,
    gradients: Gradients,
    teacher: Option<Teacher>,
}

impl Transformer {
    /// The model of a recipe at its start: noise, or the weights of `init.from`.
    ///
    /// # Errors
    /// If the model has parts that cannot be trained, or the weights to start from are another model's.
    pub fn new(recipe: &Recipe, spec: ModelSpec, pool: &Pool) -> Result<Transformer, RunError> {
        let rounding = recipe.train.precision.into();
        let trainable = match (&recipe.init.from, &recipe.lora) {
            (None, _) => Trainable::init(spec, rounding, recipe.init.std, recipe.seed, pool),
            (Some(path), None) => Trainable::from_model(&opened(&recipe.path(path), &spec)?, rounding, pool),
            (Some(path), Some(lora)) => {
                let model = opened(&recipe.path(path), &spec)?;
                Trainable::adapted(model, &lora.settings(&spec), rounding, recipe.seed, pool)
            }
        };
        let trainable = trainable.map_err(|error| RunError::Model(error.to_string()))?;
        Ok(Transformer::of(trainable))
    }

    /// A model that is there already.
    pub fn of(trainable: Trainable) -> Transformer {
        // Gradients come from the loop; these only lend their type.
        let gradients = Gradients { parts: Vec::new() };
        // Whole sequences at once: expanding keys and values costs less than absorbing them.
        Transformer { trainable, state: TrainState::new(Arithmetic::Expanded), gradients, teacher: None }
    }

    /// From now on the teacher's distributions are learned. What is measured stays the data's own tokens.
    pub fn learn_from(&mut self, teacher: Teacher) {
        self.teacher = Some(teacher);
    }

    /// The model with its present weights.
    pub fn model(&self) -> &Model {
        self.trainable.model()
    }
}

fn opened(path: &Path, spec: &ModelSpec) -> Result<Model, RunError> {
    let model = Model::open(path).map_err(|error| RunError::Model(format!("init.from: {error}")))?;
    if model.spec != *spec {
        let path = path.display();
        return Err(RunError::Model(format!("init.from: {path} is not the model that the table [model] describes")));
    }
    Ok(model)
}

impl Learner for Transformer {
    fn parameters(&self) -> &[ParameterSpec] {
        self.trainable.parameters()
    }

    fn masters(&self) -> &[Vec<f32>] {
        self.trainable.masters()
    }

    fn masters_mut(&mut self) -> &mut [Vec<f32>] {
        self.trainable.masters_mut()
    }

    fn refresh(&mut self, pool: &Pool) {
        self.trainable.refresh(pool);
    }

    fn learn(&mut self, pool: &Pool, batch: &Batch, weight: f32, aims: &Aims, gradients: &mut Vec<Vec<f32>>) -> Passed {
        let weights = weights(batch, weight);
        let objective =
            Objective { mtp_weight: aims.mtp_weight, balance: aims.balance, checkpointing: aims.checkpointing };
        std::mem::swap(&mut self.gradients.parts, gradients);
        let vocab = self.trainable.model().spec.vocab;
        let soft = self.teacher.as_mut().map(|teacher| teacher.targets(pool, batch, vocab));
        let soft_targets = soft.as_ref().map(|soft| soft.borrowed());
        let batch = TrainBatch { soft_targets, ..train_batch(batch, &weights) };
        let outcome = forward_backward(&self.trainable, pool, &mut self.state, &batch, &objective, &mut self.gradients);
        std::mem::swap(&mut self.gradients.parts, gradients);
        passed(outcome, aims.balance)
    }

    fn measure(&mut self, pool: &Pool, batch: &Batch) -> Passed {
        let weights = weights(batch, 1.0);
        let batch = train_batch(batch, &weights);
        passed(forward_only(&self.trainable, pool, &mut self.state, &batch, &Objective::default()), 0.0)
    }
}

fn weights(batch: &Batch, weight: f32) -> Vec<f32> {
    batch.learned.iter().map(|learned| if *learned { weight } else { 0.0 }).collect()
}

fn train_batch<'a>(batch: &'a Batch, weights: &'a [f32]) -> TrainBatch<'a> {
    let Batch { tokens, lengths, targets, .. } = batch;
    TrainBatch { tokens, sequences: lengths, targets, weights, soft_targets: None }
}

fn passed(outcome: Outcome, balance: f32) -> Passed {
    Passed {
        loss: outcome.loss,
        mtp_loss: outcome.mtp_loss,
        balance_loss: outcome.balance_loss * f64::from(balance),
        // Layers without experts have no counts.
        expert_tokens: outcome.expert_tokens.into_iter().filter(|tokens| !tokens.is_empty()).collect(),
        nonfinite: outcome.nonfinite,
        log_probabilities: outcome.logprobs,
    }
}
