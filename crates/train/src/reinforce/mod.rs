//! Reinforcement learning from a rule's reward: GRPO as R1-Zero used it, with what the field has settled on since.
//!
//! A step asks some problems, samples a group of answers to each from the very weights that learn, grades them by rule
//! ([`reward`]), and moves the weights along the advantage-weighted gradient of the answers' log-probability. It is
//! on-policy: each answer is used once, so the importance ratio is one and nothing is clipped. Choices, with sources:
//!
//! - advantage without the standard deviation (Liu et al. 2025; V3.2 report): rare successes are not blown up;
//! - one normaliser for all tokens of a step (DAPO, token-level): long wrong answers are not favoured;
//! - groups in which all rewards are equal teach nothing and are left out (DAPO, dynamic sampling);
//! - the divergence from a reference is off unless the recipe weighs it, and the reference is renewed (R1);
//! - rollout and learning run one forward pass on one set of weights: the largest difference between their
//!   log-probabilities is in every line of the log, and is 0. Routing is equal for the same reason.

mod export;
mod log;
mod problems;
pub mod recipe;
pub mod report;
pub mod reward;
pub mod rollout;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::compute::Kept;
use eval::statistics::pass_at_k;
use kernels::pool::Pool;
use kernels::train::optim::global_norm;
use kernels::train::panels::Precision as Rounding;
use model::load::Model;
use model::train::{
    Arithmetic, Gradients, Objective, TrainBatch, TrainState, Trainable, forward_backward, forward_only,
};
use serde::{Deserialize, Serialize};
use text::{ChatInput, ChatTemplate, Tokenizer};

use crate::files;
use crate::optimizer::Optimizer;
use crate::random::Random;
use crate::recipe::piecewise;
use crate::run::checkpoint::{self, State};
use crate::run::{End, RunError};
use crate::schedule::rate;

pub use export::export;
pub use log::{Line, Log, Measured, Shown, read_log};
pub use problems::Rung;
pub use recipe::Recipe;

use problems::Asked;
use reward::{Judge, Worth, advantages, chosen};
use rollout::{Answer, Sample};

/// Problems of each task and level of which an evaluation keeps an answer in full.
const SHOWN: usize = 2;

/// How long a run goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Stop when so many steps of the run are done.
    pub until_step: Option<u64>,
    /// Stop after this time.
    pub stop_after: Option<Duration>,
}

/// Who is told what happens.
pub trait Observer {
    /// Something worth knowing.
    fn note(&mut self, text: &str);
    /// A step is done.
    fn step(&mut self, line: &Line, steps: u64, left: Duration);
}

/// What a run remembers besides weights and moments.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Memory {
    rungs: Vec<Rung>,
}

/// Runs a recipe in `folder`, or goes on with it; saves before it returns.
///
/// # Errors
/// One sentence on what is missing, does not fit, or cannot be read or written.
pub fn reinforce(
    recipe: &Recipe,
    folder: &Path,
    pool: &Pool,
    limits: &Limits,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(State, End), RunError> {
    let _held = crate::run::lock(folder)?;
    let tokenizer = Tokenizer::from_directory(&recipe.from()).map_err(|error| RunError::Model(error.to_string()))?;
    let mut run = Loop::open(recipe, folder, pool, &tokenizer, observer)?;
    let end = run.until_end(limits, stop, observer)?;
    run.save(observer)?;
    Ok((run.state, end))
}

struct Loop<'a> {
    recipe: &'a Recipe,
    pool: &'a Pool,
    prompter: Prompter<'a>,
    judge: Judge<'a>,
    trainable: Trainable,
    reference: Option<Trainable>,
    passes: TrainState,
    kept: Kept,
    gradients: Gradients,
    optimizer: Optimizer,
    rungs: Vec<Rung>,
    state: State,
    saved: Option<u64>,
    checkpoints: PathBuf,
    log: Log,
    seconds_before: f64,
    begun: Instant,
}

/// A step's answers with what they are worth.
struct Rollout {
    asked: Vec<Asked>,
    prompts: Vec<Vec<u32>>,
    /// `group` for each problem, one after the other.
    answers: Vec<Answer>,
    worths: Vec<Worth>,
    tokens_max: usize,
}

impl<'a> Loop<'a> {
    fn open(
        recipe: &'a Recipe,
        folder: &Path,
        pool: &'a Pool,
        tokenizer: &'a Tokenizer,
        observer: &mut dyn Observer,
    ) -> Result<Loop<'a>, RunError> {
        let model = Model::open(&recipe.from()).map_err(|error| RunError::Model(format!("from: {error}")))?;
        let rounding = Rounding::from(recipe.reinforce.precision);
        let refuse = |error: &dyn std::fmt::Display| RunError::Model(error.to_string());
        let trainable = match recipe.noise {
            Some(std) => Trainable::init(model.spec.clone(), rounding, std, recipe.seed, pool),
            None => Trainable::from_model(&model, rounding, pool),
        };
        let mut trainable = trainable.map_err(|error| refuse(&error))?;
        let mut optimizer = Optimizer::new(&recipe.optimizer, trainable.parameters());
        let no_reasoning = "the tokenizer has no token </think>: the model does not reason";
        let judge = Judge::new(tokenizer, &recipe.reinforce).ok_or_else(|| refuse(&no_reasoning))?;
        let prompter = Prompter::new(tokenizer)?;

        let checkpoints = folder.join("checkpoints");
        fs::create_dir_all(&checkpoints).map_err(|source| RunError::Write { path: checkpoints.clone(), source })?;
        checkpoint::clean(&checkpoints);
        let (mut state, rungs) = restored(recipe, &checkpoints, &mut trainable, &mut optimizer, pool, observer)?;
        let saved = (state.step > 0).then_some(state.step);
        export::keep_start(recipe, folder)?;
        let seconds_before = state.seconds;
        state.starts += 1;
        let mut run = Loop {
            recipe,
            pool,
            prompter,
            judge,
            gradients: Gradients::new(trainable.parameters()),
            trainable,
            reference: None,
            passes: TrainState::new(Arithmetic::Absorbed),
            kept: Kept::default(),
            optimizer,
            rungs,
            log: Log::open(folder, state.step)?,
            state,
            saved,
            checkpoints,
            seconds_before,
            begun: Instant::now(),
        };
        run.passes.entropy = true;
        if recipe.reinforce.kl > 0.0 {
            run.reference = Some(run.reference_model(&model, rounding)?);
        }
        Ok(run)
    }

    /// The reference of the divergence: the start, or the weights of the last renewal, which are a kept checkpoint's.
    fn reference_model(&self, start: &Model, rounding: Rounding) -> Result<Trainable, RunError> {
        let refuse = |error: &dyn std::fmt::Display| RunError::Model(error.to_string());
        let mut reference = Trainable::from_model(start, rounding, self.pool).map_err(|error| refuse(&error))?;
        let every = self.recipe.reinforce.reference_every;
        let renewed = self.state.step.checked_div(every).map_or(0, |times| times * every);
        if renewed > 0 {
            let path = self.checkpoints.join(format!("step-{renewed:08}"));
            checkpoint::verify(&path)?;
            let masters = checkpoint::masters(&path, reference.parameters())?;
            reference.masters_mut().clone_from_slice(&masters);
            reference.refresh(self.pool);
        }
        Ok(reference)
    }

    fn until_end(&mut self, limits: &Limits, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<End, RunError> {
        let steps = self.recipe.reinforce.steps;
        let mut durations: Vec<f64> = Vec::new();
        if self.state.step == 0 {
            let measured = self.evaluate()?;
            self.log.measured(&measured)?;
        }
        loop {
            let step = self.state.step;
            if step >= steps {
                return Ok(End::Finished);
            } else if stop.load(Ordering::Relaxed) {
                return Ok(End::Interrupted);
            } else if limits.until_step.is_some_and(|limit| step >= limit) {
                return Ok(End::Steps);
            } else if limits.stop_after.is_some_and(|limit| self.begun.elapsed() >= limit) {
                return Ok(End::Time);
            }
            let line = self.step()?;
            durations.push(line.rollout_seconds + line.learn_seconds);
            let recent = &durations[durations.len().saturating_sub(20)..];
            let left = recent.iter().sum::<f64>() / recent.len() as f64 * (steps - line.step) as f64;
            observer.step(&line, steps, Duration::from_secs_f64(left.clamp(0.0, 1e9)));
            self.log.add(&line)?;
            let done = self.state.step;
            if done.is_multiple_of(self.recipe.run.evaluate_every) || done == steps {
                let measured = self.evaluate()?;
                observer.note(&measured.text());
                self.log.measured(&measured)?;
            }
            let renews = self.recipe.reinforce.kl > 0.0 && {
                let every = self.recipe.reinforce.reference_every;
                every > 0 && done.is_multiple_of(every)
            };
            if done.is_multiple_of(self.recipe.run.checkpoint_every) || renews {
                self.save(observer)?;
            }
            if renews && let Some(reference) = &mut self.reference {
                reference.masters_mut().clone_from_slice(self.trainable.masters());
                reference.refresh(self.pool);
            }
        }
    }

    fn step(&mut self) -> Result<Line, RunError> {
        let begun = Instant::now();
        let rollout = self.rollout()?;
        let rollout_seconds = begun.elapsed().as_secs_f64();
        let learning = Instant::now();
        let mut line = self.learn(&rollout);
        line.rollout_seconds = rollout_seconds;
        line.learn_seconds = learning.elapsed().as_secs_f64();
        let step_seconds = rollout_seconds.max(1e-9);
        line.rollout_tokens_per_second = line.tokens as f64 / step_seconds;
        for (at, (rung, task)) in self.rungs.iter_mut().zip(&self.recipe.tasks).enumerate() {
            let here = rollout.by_problem().filter(|(asked, _)| asked.task == at && asked.level == rung.level);
            let (mut answers, mut right) = (0, 0);
            for (_, worths) in here {
                answers += worths.len() as u64;
                right += worths.iter().filter(|worth| worth.correct).count() as u64;
            }
            rung.count(task, answers, right);
        }
        for (i, answer) in rollout.answers.iter().enumerate() {
            let name = self.name_of(&rollout.asked[i / self.recipe.reinforce.group]);
            log::count(&mut line.by_task, &name, rollout.worths[i].correct, answer.tokens.len());
        }
        line.levels = self.rungs.iter().map(|rung| rung.level).collect();
        self.state.step += 1;
        line.step = self.state.step;
        Ok(line)
    }

    fn rollout(&mut self) -> Result<Rollout, RunError> {
        let (recipe, step) = (self.recipe, self.state.step);
        let settings = &recipe.reinforce;
        let asked: Vec<Asked> = (0..settings.prompts as u64)
            .map(|i| problems::ask(recipe.seed, step, i, &recipe.tasks, &self.rungs))
            .collect();
        let prompts = asked.iter().map(|asked| self.prompter.prompt(&asked.problem.question));
        let prompts = prompts.collect::<Result<Vec<_>, RunError>>()?;
        let share = step as f64 / settings.steps as f64;
        let tokens_max = piecewise(&settings.tokens_max, share) as usize;
        let each: Vec<&[u32]> =
            prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.as_slice(), settings.group)).collect();
        let mut random = Random::new(&[recipe.seed, 0x726f_6c6c, step]);
        let seeds: Vec<u64> = each.iter().map(|_| random.next()).collect();
        let how = self.sample(tokens_max, settings.temperature as f32);
        let answers = rollout::sample(&self.trainable, self.pool, &mut self.kept, &each, &seeds, &how)
            .map_err(RunError::Model)?;
        let worths = answers.iter().enumerate();
        let worths = worths.map(|(i, a)| self.judge.weigh(&asked[i / settings.group].problem, a, tokens_max)).collect();
        Ok(Rollout { asked, prompts, answers, worths, tokens_max })
    }

    fn sample(&self, tokens_max: usize, temperature: f32) -> Sample {
        Sample { tokens_max, temperature, end: self.prompter.end, at_once: self.recipe.reinforce.answers_at_once }
    }

    /// One step of the optimiser on a rollout's answers.
    fn learn(&mut self, rollout: &Rollout) -> Line {
        let settings = &self.recipe.reinforce;
        let mut line = rollout.summary(settings.group);
        let rewards: Vec<f64> = rollout.worths.iter().map(|worth| worth.reward).collect();
        let advantages: Vec<f64> = rewards.chunks(settings.group).flat_map(advantages).collect();
        let taught = |i: &usize| advantages[*i] != 0.0 || settings.kl > 0.0;
        // One normaliser for all tokens of the step, those of answers that are left out as well.
        let tokens: usize = (0..advantages.len()).filter(taught).map(|i| rollout.answers[i].tokens.len()).sum();
        let mut random = Random::new(&[self.recipe.seed, 0x7061_7274, self.state.step]);
        let groups = advantages.chunks(settings.group);
        let shares: Vec<f64> = groups.flat_map(|group| chosen(group, settings.learn_answers, &mut random)).collect();
        let mut used: Vec<usize> = (0..advantages.len()).filter(taught).filter(|&i| shares[i] > 0.0).collect();
        // Long ones together: the parts that go through the model at once are filled evenly.
        used.sort_by_key(|&i| std::cmp::Reverse(rollout.answers[i].tokens.len()));
        line.learned_tokens = used.iter().map(|&i| rollout.answers[i].tokens.len() as u64).sum();
        let lr = rate(&self.recipe.schedule, self.recipe.optimizer.lr, settings.steps, self.state.step);
        line.learning_rate = lr;
        if used.is_empty() {
            return line;
        }
        self.gradients.clear(self.pool);
        let (mut entropy, mut rows, mut divergence) = (0.0, 0usize, 0.0);
        for part in micro_batches(&used, rollout, settings.group, settings.micro_batch_tokens) {
            let mut batch = Rows::of(part, rollout, settings.group, |i| shares[i] * advantages[i] / tokens as f64);
            if let Some(reference) = &self.reference {
                divergence += batch.pull(reference, self.pool, &mut self.passes, settings.kl / tokens as f64);
            }
            let outcome = forward_backward(
                &self.trainable,
                self.pool,
                &mut self.passes,
                &batch.train(),
                &Objective::default(),
                &mut self.gradients,
            );
            line.logprob_difference = line.logprob_difference.max(batch.largest_difference(&outcome.logprobs));
            line.nonfinite = line.nonfinite.take().or(outcome.nonfinite);
            let learned = batch.sampled.iter().filter(|s| s.is_some()).count();
            entropy += outcome.entropy.unwrap_or(0.0) * learned as f64;
            rows += learned;
        }
        line.entropy = entropy / rows.max(1) as f64;
        line.kl = self.reference.as_ref().map(|_| divergence / rows.max(1) as f64);
        let parts: Vec<&[f32]> = self.gradients.parts.iter().map(Vec::as_slice).collect();
        line.gradient_norm = global_norm(self.pool, &parts);
        if line.nonfinite.is_none() && line.gradient_norm.is_finite() {
            let clip = (settings.clip / line.gradient_norm.max(f64::MIN_POSITIVE)).min(1.0) as f32;
            self.state.updates += 1;
            let parameters = self.trainable.parameters().to_vec();
            let masters = self.trainable.masters_mut();
            self.optimizer.step(self.pool, &parameters, masters, &self.gradients.parts, lr, self.state.updates, clip);
            self.trainable.refresh(self.pool);
        } else {
            self.state.skipped += 1;
        }
        line
    }

    /// Held-out problems: sampled answers, one each or, before the first step and after the last, several; and some
    /// answers to the same few problems in full for the report.
    fn evaluate(&mut self) -> Result<Measured, RunError> {
        let (recipe, step) = (self.recipe, self.state.step);
        let settings = &recipe.reinforce;
        let samples = if step == 0 || step >= settings.steps { settings.evaluate_samples } else { 1 };
        let all = problems::held_out(&recipe.tasks, 0, settings.evaluate_problems);
        let prompts = all.iter().map(|asked| self.prompter.prompt(&asked.problem.question));
        let prompts = prompts.collect::<Result<Vec<_>, RunError>>()?;
        let each: Vec<&[u32]> = prompts.iter().flat_map(|p| std::iter::repeat_n(p.as_slice(), samples)).collect();
        // The same seeds at every evaluation, whatever the number of samples: a problem is comparable over the run.
        let seed = |i: usize| ((i % samples) as u64) << 32 | (i / samples) as u64;
        let seeds: Vec<u64> = (0..each.len()).map(seed).collect();
        let tokens_max = settings.tokens_max.iter().map(|(_, n)| *n as usize).max().unwrap_or(1);
        let how = self.sample(tokens_max, settings.temperature as f32);
        let answers = rollout::sample(&self.trainable, self.pool, &mut self.kept, &each, &seeds, &how);
        let answers = answers.map_err(RunError::Model)?;
        let mut measured = Measured { step, ..Measured::default() };
        let mut rights: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, (asked, answers)) in all.iter().zip(answers.chunks(samples)).enumerate() {
            let name = self.name_of(asked);
            let worths: Vec<Worth> = answers.iter().map(|a| self.judge.weigh(&asked.problem, a, tokens_max)).collect();
            for (worth, answer) in worths.iter().zip(answers) {
                log::count(&mut measured.by_task, &name, worth.correct, answer.tokens.len());
            }
            rights.entry(name.clone()).or_default().push(worths.iter().filter(|worth| worth.correct).count());
            if i % settings.evaluate_problems < SHOWN {
                let (reasoning, answer) = self.judge.split(&answers[0]);
                let (question, correct) = (asked.problem.question.clone(), worths[0].correct);
                measured.shown.push(Shown { task: name, question, reasoning, answer, correct });
            }
        }
        if samples > 1 {
            measured.pass_at = rights.into_iter().map(|(name, rights)| (name, pass_curve(&rights, samples))).collect();
        }
        Ok(measured)
    }

    /// Task and level.
    fn name_of(&self, asked: &Asked) -> String {
        format!("{} {}", self.recipe.tasks[asked.task].name, asked.level)
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), RunError> {
        if self.saved == Some(self.state.step) {
            return Ok(());
        }
        self.state.seconds = self.seconds_before + self.begun.elapsed().as_secs_f64();
        self.state.more = serde_json::to_value(Memory { rungs: self.rungs.clone() }).unwrap_or_default();
        let run = &self.recipe.run;
        let every = if self.recipe.reinforce.kl > 0.0 { self.recipe.reinforce.reference_every } else { 0 };
        let keep_every = if every > 0 { every } else { run.keep_every };
        let masters = self.trainable.masters();
        let path =
            checkpoint::save(&self.checkpoints, &self.state, masters, &self.optimizer, run.keep_last, keep_every)?;
        self.saved = Some(self.state.step);
        observer.note(&format!("saved {}", path.display()));
        Ok(())
    }
}

/// Mean over problems of pass@k for k = 1, 2, 4 .. up to the number of samples; `rights` are each problem's right ones.
fn pass_curve(rights: &[usize], samples: usize) -> Vec<(u32, f64)> {
    let ks = std::iter::successors(Some(1usize), |k| Some(k * 2)).take_while(|k| *k <= samples);
    let mean = |k: usize| rights.iter().map(|&right| pass_at_k(samples, right, k)).sum::<f64>() / rights.len() as f64;
    ks.map(|k| (k as u32, mean(k))).collect()
}

/// What the newest whole checkpoint remembers, its weights and moments put back; or a start.
fn restored(
    recipe: &Recipe,
    checkpoints: &Path,
    trainable: &mut Trainable,
    optimizer: &mut Optimizer,
    pool: &Pool,
    observer: &mut dyn Observer,
) -> Result<(State, Vec<Rung>), RunError> {
    let recipe_sha256 = files::sha256(recipe.fingerprint_text().as_bytes());
    let Some((path, state)) = checkpoint::newest(checkpoints, &mut |text| observer.note(text)) else {
        let elements = trainable.parameters().iter().map(|p| p.elements()).sum();
        let state = State { recipe_sha256, elements, ..State::default() };
        return Ok((state, recipe.tasks.iter().map(Rung::start).collect()));
    };
    if state.recipe_sha256 != recipe_sha256 {
        return Err(RunError::Changed { path, what: "recipe" });
    }
    checkpoint::restore(&path, trainable.masters_mut(), optimizer)?;
    trainable.refresh(pool);
    let memory: Memory = serde_json::from_value(state.more.clone())
        .map_err(|error| RunError::Checkpoint { path, reason: error.to_string() })?;
    observer.note(&format!("going on from step {}", state.step));
    Ok((state, memory.rungs))
}

impl Rollout {
    /// Each problem with its answers' worths.
    fn by_problem(&self) -> impl Iterator<Item = (&Asked, &[Worth])> {
        let group = self.worths.len() / self.asked.len().max(1);
        self.asked.iter().zip(self.worths.chunks(group.max(1)))
    }

    fn summary(&self, group: usize) -> Line {
        let n = self.worths.len().max(1) as f64;
        let mean = |f: &dyn Fn(&Worth) -> f64| self.worths.iter().map(f).sum::<f64>() / n;
        let flag = |yes: bool| f64::from(u8::from(yes));
        let tokens: usize = self.answers.iter().map(|answer| answer.tokens.len()).sum();
        let equal = self.worths.chunks(group).filter(|g| g.iter().all(|w| w.reward == g[0].reward)).count();
        Line {
            reward: mean(&|worth| worth.reward),
            correct: mean(&|worth| flag(worth.correct)),
            format: mean(&|worth| flag(worth.format)),
            language: mean(&|worth| worth.language),
            retry_share: mean(&|worth| flag(worth.retries > 0)),
            retries: mean(&|worth| worth.retries as f64),
            ended: self.answers.iter().filter(|answer| answer.stopped).count() as f64 / n,
            repeated: rollout::repeated_share(&self.answers),
            length: tokens as f64 / n,
            tokens: tokens as u64,
            tokens_max: self.tokens_max as u64,
            equal_groups: equal as f64 / self.asked.len().max(1) as f64,
            ..Line::default()
        }
    }
}

/// Answers that go through the model together: prompts and answers of at most `tokens_max` tokens (or one alone).
fn micro_batches<'u>(used: &'u [usize], rollout: &Rollout, group: usize, tokens_max: usize) -> Vec<&'u [usize]> {
    let length = |i: usize| rollout.prompts[i / group].len() + rollout.answers[i].tokens.len();
    let mut parts = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (at, &i) in used.iter().enumerate() {
        if at > start && sum + length(i) > tokens_max {
            parts.push(&used[start..at]);
            (start, sum) = (at, 0);
        }
        sum += length(i);
    }
    parts.push(&used[start..]);
    parts
}

/// Rows of some answers: prompt and answer as one sequence each.
struct Rows {
    tokens: Vec<u32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
    lengths: Vec<usize>,
    /// The sampler's log-probability of each row's target, where it chose it.
    sampled: Vec<Option<f32>>,
}

impl Rows {
    fn of(part: &[usize], rollout: &Rollout, group: usize, weight: impl Fn(usize) -> f64) -> Rows {
        let mut rows = Rows {
            tokens: Vec::new(),
            targets: Vec::new(),
            weights: Vec::new(),
            lengths: Vec::new(),
            sampled: Vec::new(),
        };
        for &i in part {
            let (prompt, answer) = (&rollout.prompts[i / group], &rollout.answers[i]);
            let whole: Vec<u32> = prompt.iter().chain(&answer.tokens).copied().collect();
            rows.tokens.extend_from_slice(&whole[..whole.len() - 1]);
            rows.targets.extend_from_slice(&whole[1..]);
            rows.lengths.push(whole.len() - 1);
            // The last token of the prompt predicts the first of the answer.
            rows.weights.extend(std::iter::repeat_n(0.0, prompt.len() - 1));
            rows.weights.extend(std::iter::repeat_n(weight(i) as f32, answer.tokens.len()));
            rows.sampled.extend(std::iter::repeat_n(None, prompt.len() - 1));
            rows.sampled.extend(answer.logprobs.iter().copied().map(Some));
        }
        rows
    }

    fn train(&self) -> TrainBatch<'_> {
        let Rows { tokens, targets, weights, lengths, .. } = self;
        TrainBatch { tokens, sequences: lengths, targets, weights, soft_targets: None }
    }

    /// Adds the gradient of `weight` times the divergence from the reference to the rows' weights, and returns the
    /// sum of the divergence over the sampled rows: `r - ln r - 1` with `r = p_ref / p` (Schulman 2020; R1's
    /// objective), whose derivative by `ln p` is `1 - r`.
    fn pull(&mut self, reference: &Trainable, pool: &Pool, passes: &mut TrainState, weight: f64) -> f64 {
        let outcome = forward_only(reference, pool, passes, &self.train(), &Objective::default());
        let mut sum = 0.0;
        for ((row, sampled), reference) in self.weights.iter_mut().zip(&self.sampled).zip(&outcome.logprobs) {
            let Some(sampled) = sampled else { continue };
            let difference = f64::from(*reference) - f64::from(*sampled);
            sum += difference.exp() - difference - 1.0;
            // A row's weight is the loss's derivative by minus the log-probability.
            *row -= (weight * (1.0 - difference.exp())) as f32;
        }
        sum
    }

    fn largest_difference(&self, logprobs: &[f32]) -> f64 {
        let both = self.sampled.iter().zip(logprobs);
        both.filter_map(|(s, l)| s.map(|s| (f64::from(s) - f64::from(*l)).abs())).fold(0.0, f64::max)
    }
}

/// Questions to prompts, by the model's own chat template.
struct Prompter<'a> {
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    bos: String,
    eos: String,
    end: u32,
}

impl<'a> Prompter<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Result<Prompter<'a>, RunError> {
        let refuse = |text: &str| RunError::Model(text.to_string());
        let source = tokenizer.chat_template(None).ok_or_else(|| refuse("the model has no chat template"))?;
        let template = ChatTemplate::parse(source).map_err(|error| refuse(&error.to_string()))?;
        let end = *tokenizer.eos_ids().first().ok_or_else(|| refuse("the tokenizer has no token that ends a text"))?;
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default().to_string();
        Ok(Prompter { tokenizer, template, bos: text(tokenizer.bos_id()), eos: text(Some(end)), end })
    }

    fn prompt(&self, question: &str) -> Result<Vec<u32>, RunError> {
        let messages = [serde_json::json!({ "role": "user", "content": question })];
        let input = ChatInput {
            messages: &messages,
            add_generation_prompt: true,
            bos_token: &self.bos,
            eos_token: &self.eos,
            ..ChatInput::default()
        };
        let segments = self.template.render_segments(&input).map_err(|error| RunError::Model(error.to_string()))?;
        self.tokenizer.encode_segments(&segments).map_err(|error| RunError::Model(error.to_string()))
    }
}
