//! A run: the loop from a recipe to trained weights.
//!
//! A run's folder holds a copy of the recipe, `log.jsonl` (one line a step), `checkpoints/` and, unless the recipe puts
//! them elsewhere, the prepared data. Starting a run again goes on from its newest whole checkpoint, and gives the same
//! bits as if it had never stopped: weights, moments, order of data and schedule depend on the step alone.

pub mod checkpoint;
mod evaluate;
pub mod log;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kernels::measure::{EnergyCounters, EnergyReading};
use kernels::pool::Pool;
use kernels::train::optim::global_norm;
use serde::{Deserialize, Serialize};

use crate::data::{Data, DataError, Order};
use crate::files;
use crate::learner::{Aims, Learner, Passed};
use crate::optimizer::{Optimizer, balance};
use crate::recipe::{Recipe, RecipeError, piecewise};
use crate::schedule::learning_rate;
use checkpoint::State;
use log::{Line, Log};

pub use evaluate::{HeldOut, evaluate};

/// Gradient norms that the median of is compared with.
const NORMS: usize = 128;
/// How many of them must be there before a step can be a spike.
const NORMS_MIN: usize = 32;

/// Why a run cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum RunError {
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("{}: cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("checkpoint {}: {reason}", .path.display())]
    Checkpoint { path: PathBuf, reason: String },
    #[error("{}: another process is training in this folder", .path.display())]
    Busy { path: PathBuf },
    #[error(
        "{}: this run was begun with another {what}; go on with the same one, or start a new run in another folder", 
        .path.display()
    )]
    Changed { path: PathBuf, what: &'static str },
    #[error("the run needs about {needed_gib:.1} GiB of memory ({parts}) and {free_gib:.1} GiB are free; {advice}")]
    Memory { needed_gib: f64, free_gib: f64, parts: String, advice: &'static str },
    #[error("{0}")]
    Model(String),
    #[error("stopped at step {step}: {skipped} steps in a row had to be skipped, the last because of {reason}")]
    Diverged { step: u64, skipped: u64, reason: String },
}

/// Where and how long a run goes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The run's folder.
    pub folder: PathBuf,
    /// Stop when so many steps of the run are done.
    pub until_step: Option<u64>,
    /// Stop after this time.
    pub stop_after: Option<Duration>,
    /// Operations per second of this machine at best, for the share of it that is used.
    pub peak_per_second: Option<f64>,
    /// Useful operations of a token.
    pub operations_per_token: f64,
    /// The recipes with which the run was started before.
    pub before: Vec<Recipe>,
    /// Other models that the run depends on.
    pub origins: Origins,
}

/// A model that a run depends on, as its checkpoints remember it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Origin {
    /// Where it was when the run was last started.
    pub path: PathBuf,
    /// A hash of its files.
    pub sha256: String,
}

/// All such models.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Origins {
    /// The frozen one that the run's weights are adapters of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Origin>,
    /// The one whose distributions are learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Origin>,
}

impl Origin {
    /// The model at `path`.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn at(path: &Path) -> Result<Origin, RunError> {
        let read = |source| RunError::Read { path: path.to_path_buf(), source };
        let path = fs::canonicalize(path).map_err(read)?;
        let sha256 = files::sha256_model(&path).map_err(read)?;
        Ok(Origin { path, sha256 })
    }
}

impl Origins {
    /// What a checkpoint remembers.
    pub fn of(state: &State) -> Origins {
        serde_json::from_value(state.more.clone()).unwrap_or_default()
    }

    fn to_value(&self) -> serde_json::Value {
        if *self == Origins::default() {
            return serde_json::Value::Null;
        }
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Whether the models have the same contents, wherever they lie.
    fn same(&self, other: &Origins) -> bool {
        let hashes =
            |origins: &Origins| [&origins.base, &origins.teacher].map(|o| o.as_ref().map(|o| o.sha256.clone()));
        hashes(self) == hashes(other)
    }
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Finished,
    /// As many as were asked for.
    Steps,
    /// The time is over.
    Time,
    /// Somebody stopped it.
    Interrupted,
}

/// Who is told what happens.
pub trait Observer {
    /// Something worth knowing.
    fn note(&mut self, text: &str);
    /// Something that should not go unseen.
    fn warn(&mut self, text: &str);
    /// A step is done; `left` is the time that the rest will take.
    fn step(&mut self, line: &Line, steps: u64, left: Duration);
}

/// Trains until the end, or until it is stopped; saves before it returns. `accepted` is called before the first step,
/// when it is certain that the recipe is the run's own.
///
/// # Errors
/// If the run's folder belongs to another recipe or data, a checkpoint cannot be read, the last one cannot be written,
/// or too many steps in a row are useless.
pub fn run(
    recipe: &Recipe,
    learner: &mut dyn Learner,
    data: &Data,
    pool: &Pool,
    options: &Options,
    accepted: &mut dyn FnMut() -> Result<(), RunError>,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(State, End), RunError> {
    let mut run = Loop::open(recipe, learner, data, pool, options, observer)?;
    accepted()?;
    let end = run.until_end(stop, observer)?;
    run.save(observer)?;
    Ok((run.state, end))
}

/// Takes a run's folder for this process, for as long as the file lives.
///
/// # Errors
/// If another process has it, or it cannot be written.
pub fn lock(folder: &Path) -> Result<File, RunError> {
    let write = |source| RunError::Write { path: folder.to_path_buf(), source };
    fs::create_dir_all(folder).map_err(write)?;
    let file = File::create(folder.join("lock")).map_err(write)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(RunError::Busy { path: folder.to_path_buf() }),
        Err(fs::TryLockError::Error(source)) => Err(write(source)),
    }
}

/// Whether the run was begun with a recipe that differs in its length and schedules alone, and would have done the same
/// so far: so a run with a constant learning rate can be made longer or shorter until its end comes in sight.
fn same_so_far(recipe: &Recipe, options: &Options, state: &State) -> bool {
    let begun_with = |before: &&Recipe| files::sha256(before.fingerprint_text().as_bytes()) == state.recipe_sha256;
    let Some(before) = options.before.iter().find(begun_with) else { return false };
    let mut same = before.clone();
    same.train.tokens = recipe.train.tokens;
    same.train.mtp_weight = recipe.train.mtp_weight.clone();
    same.train.bias_speed = recipe.train.bias_speed.clone();
    same.schedule = recipe.schedule.clone();
    let setting = |recipe: &Recipe, step: u64| {
        let share = step as f64 / recipe.steps() as f64;
        let pieces = [&recipe.train.mtp_weight, &recipe.train.bias_speed].map(|list| piecewise(list, share));
        (learning_rate(recipe, step), pieces, step >= recipe.decay_start())
    };
    same.fingerprint_text() == recipe.fingerprint_text()
        && recipe.steps() >= state.step
        && (0..state.step).all(|step| setting(recipe, step) == setting(before, step))
}

struct Loop<'a> {
    recipe: &'a Recipe,
    learner: &'a mut dyn Learner,
    optimizer: Optimizer,
    data: &'a Data,
    pool: &'a Pool,
    options: &'a Options,
    checkpoints: PathBuf,
    log: Log,
    state: State,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    gradients: Vec<Vec<f32>>,
    orders: [Order; 2],
    norms: VecDeque<f64>,
    begun: Instant,
    seconds_before: f64,
    /// Durations of the last steps.
    durations: VecDeque<f64>,
    /// The machine's counters and what they said last.
    energy: Option<(EnergyCounters, EnergyReading)>,
}

/// The machine's counters, if they can be read, and what they say now.
fn energy_counters() -> Option<(EnergyCounters, EnergyReading)> {
    let counters = EnergyCounters::open()?;
    counters.read().map(|reading| (counters, reading))
}

/// What the micro-batches of a step gave together.
struct Step {
    passed: Passed,
    norm: f64,
    /// Why the step must not change the weights.
    refused: Option<String>,
}

impl<'a> Loop<'a> {
    fn open(
        recipe: &'a Recipe,
        learner: &'a mut dyn Learner,
        data: &'a Data,
        pool: &'a Pool,
        options: &'a Options,
        observer: &mut dyn Observer,
    ) -> Result<Loop<'a>, RunError> {
        let checkpoints = options.folder.join("checkpoints");
        fs::create_dir_all(&checkpoints).map_err(|source| RunError::Write { path: checkpoints.clone(), source })?;
        checkpoint::clean(&checkpoints);
        let mut optimizer = Optimizer::new(&recipe.optimizer, learner.parameters());
        let recipe_sha256 = files::sha256(recipe.fingerprint_text().as_bytes());
        let manifest_sha256 = data.manifest.sha256();
        let elements = learner.parameters().iter().map(|p| p.elements()).sum();
        let any = !checkpoint::list(&checkpoints).is_empty();
        let found = checkpoint::newest(&checkpoints, &mut |text| observer.warn(text));
        if any && found.is_none() {
            let reason = "no checkpoint of this run is whole; move the folder away to start anew".to_string();
            return Err(RunError::Checkpoint { path: checkpoints, reason });
        }
        let saved = found.as_ref().map(|(_, state)| state.step);
        let more = options.origins.to_value();
        let state = match found {
            None => State { recipe_sha256, manifest_sha256, elements, more, ..State::default() },
            Some((path, state)) => {
                let changed = |what| Err(RunError::Changed { path: path.clone(), what });
                if state.recipe_sha256 != recipe_sha256 && !same_so_far(recipe, options, &state) {
                    return changed("recipe");
                }
                if state.manifest_sha256 != manifest_sha256 {
                    return changed("training set");
                }
                if !Origins::of(&state).same(&options.origins) {
                    return changed("model to begin with or to learn from");
                }
                checkpoint::restore(&path, learner.masters_mut(), &mut optimizer)?;
                learner.refresh(pool);
                observer.note(&format!("going on from step {}", state.step));
                State { recipe_sha256, more, ..state }
            }
        };
        let log = Log::open(&options.folder.join("log.jsonl"), state.step)?;
        let gradients = learner.masters().iter().map(|list| vec![0.0; list.len()]).collect();
        let decay_rows = data.decay.as_ref().map_or(1, |set| set.rows());
        let orders = [Order::new(data.main.rows(), recipe.seed, 1), Order::new(decay_rows, recipe.seed, 2)];
        let norms = state.norms.iter().map(|&bits| f64::from_bits(bits)).collect();
        let (begun, seconds_before) = (Instant::now(), state.seconds);
        let state = State { starts: state.starts + 1, ..state };
        let (durations, energy) = (VecDeque::new(), energy_counters());
        Ok(Loop {
            recipe,
            learner,
            optimizer,
            data,
            pool,
            options,
            checkpoints,
            log,
            state,
            saved,
            gradients,
            orders,
            norms,
            begun,
            seconds_before,
            durations,
            energy,
        })
    }

    fn until_end(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<End, RunError> {
        let steps = self.recipe.steps();
        let run = &self.recipe.run;
        loop {
            let step = self.state.step;
            let ended = |limit: Option<u64>| limit.is_some_and(|limit| step >= limit);
            if ended(Some(steps)) {
                return Ok(End::Finished);
            } else if stop.load(Ordering::Relaxed) {
                return Ok(End::Interrupted);
            } else if ended(self.options.until_step) {
                return Ok(End::Steps);
            } else if self.options.stop_after.is_some_and(|limit| self.begun.elapsed() >= limit) {
                return Ok(End::Time);
            }
            let mut line = self.step()?;
            let done = self.state.step;
            if done.is_multiple_of(run.evaluate_every) || done == steps {
                let tokens = run.evaluate_tokens;
                let mask = self.recipe.data.mask_documents;
                let at_once = self.recipe.train.micro_batch_tokens / self.recipe.data.sequence;
                line.held_out = Some(evaluate(self.learner, self.pool, self.data, tokens, at_once, mask)?);
            }
            self.tell(line, observer);
            if self.state.skipped_in_a_row > run.skipped_max {
                let (step, skipped) = (done, self.state.skipped_in_a_row);
                let reason = self.log.last_refusal.clone().unwrap_or_default();
                return Err(RunError::Diverged { step, skipped, reason });
            }
            if done.is_multiple_of(run.checkpoint_every) && done < steps {
                // A full disk must not end a run that could still be saved later.
                if let Err(error) = self.save(observer) {
                    observer.warn(&format!(
                        "{error}; training goes on, the last good checkpoint is {}; saving is tried again in {} steps",
                        self.saved.map_or("none".to_string(), |step| format!("step {step}")),
                        run.checkpoint_every
                    ));
                }
            }
        }
    }

    /// One step of the optimiser.
    fn step(&mut self) -> Result<Line, RunError> {
        let begun = Instant::now();
        let (step, recipe) = (self.state.step, self.recipe);
        let share = step as f64 / recipe.steps() as f64;
        let (lr, speed) = (learning_rate(recipe, step), piecewise(&recipe.train.bias_speed, share));
        let Step { passed, norm, refused } = self.gradients(share)?;
        if refused.is_none() {
            let clip = (recipe.train.clip / norm.max(f64::MIN_POSITIVE)).min(1.0) as f32;
            self.state.updates += 1;
            let parameters = self.learner.parameters().to_vec();
            let masters = self.learner.masters_mut();
            self.optimizer.step(self.pool, &parameters, masters, &self.gradients, lr, self.state.updates, clip);
            balance(&parameters, masters, &passed.expert_tokens, speed);
            self.learner.refresh(self.pool);
            self.norms.push_back(norm);
            while self.norms.len() > NORMS {
                self.norms.pop_front();
            }
            self.state.skipped_in_a_row = 0;
        } else {
            self.state.skipped += 1;
            self.state.skipped_in_a_row += 1;
        }
        self.state.step += 1;
        if let Some((counters, before)) = &mut self.energy
            && let Some(now) = counters.read()
        {
            self.state.joules += counters.joules(before, &now);
            *before = now;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let tokens_per_second = recipe.train.batch_tokens as f64 / seconds.max(1e-9);
        let operations_per_second = tokens_per_second * self.options.operations_per_token;
        Ok(Line {
            step: self.state.step,
            tokens: self.state.step * recipe.train.batch_tokens as u64,
            loss: passed.loss,
            mtp_loss: (!recipe.train.mtp_weight.is_empty()).then_some(passed.mtp_loss),
            balance_loss: (recipe.train.balance_alpha > 0.0).then_some(passed.balance_loss),
            gradient_norm: norm,
            learning_rate: lr,
            bias_speed: (!recipe.train.bias_speed.is_empty()).then_some(speed),
            expert_load: log::loads(&passed.expert_tokens),
            skipped: refused,
            held_out: None,
            seconds,
            tokens_per_second,
            peak_share: self.options.peak_per_second.map(|peak| operations_per_second / peak),
        })
    }

    /// Goes through the micro-batches of the step and adds up their gradients.
    fn gradients(&mut self, share: f64) -> Result<Step, RunError> {
        let (recipe, step) = (self.recipe, self.state.step);
        let rows = recipe.rows_per_step();
        let decay_start = recipe.decay_start();
        let (set, order, first) = match &self.data.decay {
            Some(decay) if step >= decay_start => (decay, &mut self.orders[1], step - decay_start),
            _ => (&self.data.main, &mut self.orders[0], step),
        };
        let numbers: Vec<usize> = (0..rows as u64).map(|i| order.row(first * rows as u64 + i)).collect();
        let at_once = recipe.train.micro_batch_tokens / recipe.data.sequence;
        let batches = numbers.chunks(at_once).map(|rows| set.batch(rows, recipe.data.mask_documents));
        let batches = batches.collect::<Result<Vec<_>, DataError>>()?;
        let learned: usize = batches.iter().map(|batch| batch.learned_count()).sum();
        let aims = Aims {
            mtp_weight: piecewise(&recipe.train.mtp_weight, share) as f32,
            balance: recipe.train.balance_alpha as f32 / batches.len() as f32,
            checkpointing: recipe.train.checkpointing,
        };
        self.gradients.iter_mut().for_each(|list| list.fill(0.0));
        let mut all = Passed::default();
        for batch in &batches {
            let weight = 1.0 / learned.max(1) as f32;
            let passed = self.learner.learn(self.pool, batch, weight, &aims, &mut self.gradients);
            all.add(passed);
        }
        let parts: Vec<&[f32]> = self.gradients.iter().map(Vec::as_slice).collect();
        let norm = global_norm(self.pool, &parts);
        let refused = self.refusal(&all, norm);
        Ok(Step { passed: all, norm, refused })
    }

    /// Why a step must not change the weights.
    fn refusal(&self, passed: &Passed, norm: f64) -> Option<String> {
        if let Some(place) = &passed.nonfinite {
            return Some(format!("a value that is not finite in {place}"));
        }
        if !(passed.loss.is_finite() && norm.is_finite()) {
            return Some(format!("a loss of {} with a gradient norm of {norm}", passed.loss));
        }
        let factor = self.recipe.run.spike_factor;
        if factor == 0.0 || self.norms.len() < NORMS_MIN {
            return None;
        }
        let mut sorted: Vec<f64> = self.norms.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        (norm > factor * median).then(|| format!("a gradient norm of {norm:.3}, {factor} times the usual {median:.3}"))
    }

    fn tell(&mut self, line: Line, observer: &mut dyn Observer) {
        if let Some(reason) = &line.skipped {
            observer.warn(&format!("step {} is skipped because of {reason}", line.step));
        }
        self.durations.push_back(line.seconds);
        while self.durations.len() > 20 {
            self.durations.pop_front();
        }
        let mean = self.durations.iter().sum::<f64>() / self.durations.len() as f64;
        let left = mean * (self.recipe.steps() - line.step) as f64;
        observer.step(&line, self.recipe.steps(), Duration::from_secs_f64(left.clamp(0.0, 1e9)));
        if let Some(warning) = self.log.add(line) {
            observer.warn(&warning);
        }
    }

    /// Saves, unless this step is saved already.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), RunError> {
        if self.saved == Some(self.state.step) {
            return Ok(());
        }
        self.log.flush()?;
        self.state.norms = self.norms.iter().map(|norm| norm.to_bits()).collect();
        self.state.seconds = self.seconds_before + self.begun.elapsed().as_secs_f64();
        let run = &self.recipe.run;
        let saved = checkpoint::save(
            &self.checkpoints,
            &self.state,
            self.learner.masters(),
            &self.optimizer,
            run.keep_last,
            run.keep_every,
        )?;
        self.saved = Some(self.state.step);
        observer.note(&format!("saved {}", saved.display()));
        Ok(())
    }
}

impl Passed {
    fn add(&mut self, other: Passed) {
        self.loss += other.loss;
        self.mtp_loss += other.mtp_loss;
        self.balance_loss += other.balance_loss;
        self.nonfinite = self.nonfinite.take().or(other.nonfinite);
        if self.expert_tokens.is_empty() {
            self.expert_tokens = other.expert_tokens;
            return;
        }
        for (sum, more) in self.expert_tokens.iter_mut().zip(other.expert_tokens) {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }
}
