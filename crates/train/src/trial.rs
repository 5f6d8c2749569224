//! What a recipe's run will take on this machine, by trying: two micro-batches of noise and one update of the weights,
//! with the recipe's own model, optimiser and settings.
//!
//! No table of shares of peaks can say how a shape of model runs on a processor that nobody has measured; seconds of
//! trying can. Noise costs what text costs, but for two things: documents that do not see each other
//! (`data.mask_documents`) are taken to be `DOCUMENT` tokens long, and routers of noise use all experts alike, as
//! balanced ones do.

use std::time::Instant;

use kernels::measure::Memory;
use kernels::pool::Pool;
use kernels::train::optim::global_norm;

use crate::data::Batch;
use crate::learner::{Aims, Learner, Transformer};
use crate::memory::MemoryPlan;
use crate::optimizer::Optimizer;
use crate::random::Random;
use crate::recipe::{Recipe, piecewise};
use crate::run::RunError;

/// Length of a document where documents are masked, tokens.
const DOCUMENT: usize = 128;

/// What a run takes, as far as trying can say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Memory that the run will allocate.
    pub memory: MemoryPlan,
    /// Seconds of a step of the optimiser, at the start of the run (before prediction modules count, where they count
    /// later) and at its end.
    pub step_seconds: [f64; 2],
    /// Seconds of measuring held-out text, over the run.
    pub evaluation_seconds: f64,
    /// Seconds of the whole run, data and checkpoints not counted.
    pub seconds: f64,
}

/// Tries the recipe's model. The run's data is not needed.
///
/// # Errors
/// If the model cannot be made, or the memory does not suffice.
pub fn trial(recipe: &Recipe, pool: &Pool) -> Result<Trial, RunError> {
    let spec = recipe.spec()?;
    let memory = MemoryPlan::of(recipe, &spec);
    memory.check(Memory::read().available_bytes)?;
    let vocab = spec.vocab;
    let mut learner = Transformer::new(recipe, spec, pool)?;
    let mut optimizer = Optimizer::new(&recipe.optimizer, learner.parameters());
    let mut gradients: Vec<Vec<f32>> = learner.masters().iter().map(|list| vec![0.0; list.len()]).collect();
    let batch = noise(recipe, vocab);
    let micro = |learner: &mut Transformer, gradients: &mut Vec<Vec<f32>>, share: f64| {
        let mtp_weight = piecewise(&recipe.train.mtp_weight, share) as f32;
        let (balance, checkpointing) = (recipe.train.balance_alpha as f32, recipe.train.checkpointing);
        let aims = Aims { mtp_weight, balance, checkpointing };
        // The first of two also allocates.
        let times = [0, 1].map(|_| seconds(|| drop(learner.learn(pool, &batch, 1e-6, &aims, gradients))));
        times[1]
    };
    let early = micro(&mut learner, &mut gradients, 0.0);
    let late = match recipe.train.mtp_weight.len() {
        0 | 1 => early,
        _ => micro(&mut learner, &mut gradients, 1.0),
    };
    let parameters = learner.parameters().to_vec();
    let update = seconds(|| {
        gradients.iter_mut().for_each(|list| list.fill(1e-4));
        let parts: Vec<&[f32]> = gradients.iter().map(Vec::as_slice).collect();
        let norm = global_norm(pool, &parts);
        let scale = (recipe.train.clip / norm).min(1.0) as f32;
        optimizer.step(pool, &parameters, learner.masters_mut(), &gradients, 1e-6, 1, scale);
        learner.refresh(pool);
    });
    let measure = seconds(|| drop(learner.measure(pool, &batch)));

    let micro_batches = (recipe.train.batch_tokens / recipe.train.micro_batch_tokens) as f64;
    let step_seconds = [early, late].map(|micro| micro * micro_batches + update);
    let steps = recipe.steps();
    // Prediction modules take as long as a layer; some recipes begin without them, or end so.
    let with_modules = |share: f64| piecewise(&recipe.train.mtp_weight, share) > 0.0;
    let changed = |step: &u64| with_modules(*step as f64 / steps as f64) != with_modules(0.0);
    let late_steps = (0..steps).filter(changed).count() as f64;
    let evaluations = steps.div_ceil(recipe.run.evaluate_every) as f64;
    let per_evaluation = recipe.run.evaluate_tokens as f64 / recipe.train.micro_batch_tokens as f64;
    let evaluation_seconds = evaluations * per_evaluation * measure;
    let seconds = (steps as f64 - late_steps) * step_seconds[0] + late_steps * step_seconds[1] + evaluation_seconds;
    Ok(Trial { memory, step_seconds, evaluation_seconds, seconds })
}

/// A micro-batch of noise.
fn noise(recipe: &Recipe, vocab: usize) -> Batch {
    let (rows, sequence) = (recipe.train.micro_batch_tokens, recipe.data.sequence);
    let mut random = Random::new(&[recipe.seed, 6]);
    let tokens: Vec<u32> = (0..rows).map(|_| random.below(vocab) as u32).collect();
    let targets = tokens.iter().skip(1).chain(tokens.first()).copied().collect();
    let length = if recipe.data.mask_documents { DOCUMENT.min(sequence) } else { sequence };
    let lengths = (0..rows).step_by(length).map(|start| length.min(rows - start)).collect();
    let starts = (0..rows).step_by(sequence).collect();
    Batch { tokens, lengths, targets, learned: vec![true; rows], starts }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}
