//! What a run of reinforcement learning depends on, in one TOML file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::recipe::nearest::with_hint;
use crate::recipe::{Optimizer, Precision, RecipeError, Run, Schedule};

/// Largest recipe file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A run, described.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name of what is trained.
    pub name: String,
    /// The seed of problems and answers.
    #[serde(default)]
    pub seed: u64,
    /// The model to begin with: a folder in Hugging Face layout, with its tokenizer.
    pub from: PathBuf,
    /// Begin with noise of this standard deviation in place of the model's weights: the control that shows what
    /// pre-training gives.
    #[serde(default)]
    pub noise: Option<f32>,
    /// How much.
    pub reinforce: Reinforce,
    /// What is asked.
    #[serde(rename = "task")]
    pub tasks: Vec<Task>,
    /// How parameters change.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// The learning rate over the run.
    #[serde(default)]
    pub schedule: Schedule,
    /// What happens beside: evaluation and checkpoints. May be changed between a stop and a resume.
    #[serde(default)]
    pub run: Run,
    /// Where the recipe lies: relative paths are relative to it.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// The settings of group relative policy optimisation.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reinforce {
    /// Optimiser steps.
    pub steps: u64,
    /// Problems of a step.
    pub prompts: usize,
    /// Answers to each problem.
    pub group: usize,
    /// Answers of a group that are learned from (0: all). Learning from a token costs about three times what sampling
    /// it does, so some of a group are chosen, right and wrong ones alike, and count for those left out: the expected
    /// gradient is that of the whole group (in the manner of PODS, Xu et al. 2025).
    #[serde(default)]
    pub learn_answers: usize,
    /// The longest answer, from a share of the run on: `[[0, 256], [0.5, 512]]` doubles it in mid-run.
    pub tokens_max: Vec<(f64, f64)>,
    /// The last share of that length in which the reward falls in a straight line to zero (DAPO's soft punishment);
    /// 0: only answers that do not end lose theirs.
    #[serde(default)]
    pub overlong_share: f64,
    /// Temperature of the answers; learning is exact for 1.
    #[serde(default = "one")]
    pub temperature: f64,
    /// Reward for an answer that is right and in the right form.
    #[serde(default = "one")]
    pub correct: f64,
    /// Reward for an answer in the right form, right or wrong.
    #[serde(default)]
    pub format: f64,
    /// Reward for reasoning in the language of the question: times the share of its letters.
    #[serde(default)]
    pub language: f64,
    /// Weight of the divergence from the reference model.
    #[serde(default)]
    pub kl: f64,
    /// Steps after which the reference is replaced by the model as it is (0: never).
    #[serde(default)]
    pub reference_every: u64,
    /// What products are computed in.
    #[serde(default)]
    pub precision: Precision,
    /// Tokens that go through the model at once when it learns.
    #[serde(default = "micro_batch")]
    pub micro_batch_tokens: usize,
    /// Answers that are decoded at once.
    #[serde(default = "at_once")]
    pub answers_at_once: usize,
    /// Largest norm of all gradients together.
    #[serde(default = "one")]
    pub clip: f64,
    /// Problems of each task and level in an evaluation.
    #[serde(default = "evaluate")]
    pub evaluate_problems: usize,
    /// Answers to each of them in the first and the last evaluation, for pass@k; one in the others.
    #[serde(default = "samples")]
    pub evaluate_samples: usize,
}

/// A kind of problem, with its ladder of levels.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The task's name.
    pub name: String,
    /// How often, in proportion to the other tasks.
    pub share: f64,
    /// Share of problems in Arabic.
    #[serde(default)]
    pub arabic: f64,
    /// The first and the last level.
    pub levels: [u8; 2],
    /// The level to begin with.
    #[serde(default = "first")]
    pub start: u8,
    /// A level's running share of right answers at which the next is taken up.
    #[serde(default = "promote")]
    pub promote_at: f64,
    /// Share of problems that stay on lower levels.
    #[serde(default = "easy")]
    pub easy_share: f64,
}

fn one() -> f64 {
    1.0
}
fn micro_batch() -> usize {
    8192
}
fn at_once() -> usize {
    512
}
fn evaluate() -> usize {
    64
}
fn samples() -> usize {
    16
}
fn first() -> u8 {
    1
}
fn promote() -> f64 {
    0.7
}
fn easy() -> f64 {
    0.2
}

impl Recipe {
    /// Reads and checks the recipe at `path`.
    ///
    /// # Errors
    /// One sentence that names the file, the key, the value and the limit.
    pub fn read(path: &Path) -> Result<Recipe, RecipeError> {
        let file = path.display().to_string();
        let io = |source| RecipeError::Io { file: file.clone(), source };
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(RecipeError::TooLarge { file, bytes });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let mut recipe = Recipe::parse(&file, &text)?;
        recipe.folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(recipe)
    }

    /// Checks the text of a recipe; `file` stands for it in errors.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn parse(file: &str, text: &str) -> Result<Recipe, RecipeError> {
        let recipe: Recipe = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
            RecipeError::Syntax { file: file.to_string(), line, message: with_hint(error.message()) }
        })?;
        recipe.check(file)?;
        Ok(recipe)
    }

    /// The folder of the model to begin with.
    pub fn from(&self) -> PathBuf {
        if self.from.is_absolute() { self.from.clone() } else { self.folder.join(&self.from) }
    }

    /// What must not change between a stop and a resume, as text: everything but `[run]`.
    pub fn fingerprint_text(&self) -> String {
        let fixed = Recipe { run: Run::default(), ..self.clone() };
        serde_json::to_string(&fixed).unwrap_or_default()
    }

    fn check(&self, file: &str) -> Result<(), RecipeError> {
        let refuse = |key: &str, value: String, limit: &str| {
            Err(RecipeError::Value { file: file.to_string(), key: key.to_string(), value, limit: limit.to_string() })
        };
        let r = &self.reinforce;
        let counts: [(&str, u64, u64, u64); 8] = [
            ("reinforce.steps", r.steps, 1, 10_000_000),
            ("reinforce.prompts", r.prompts as u64, 1, 65_536),
            ("reinforce.group", r.group as u64, 2, 1024),
            ("reinforce.micro_batch_tokens", r.micro_batch_tokens as u64, 16, 1 << 24),
            ("reinforce.answers_at_once", r.answers_at_once as u64, 1, 65_536),
            ("reinforce.evaluate_samples", r.evaluate_samples as u64, 1, 1024),
            ("reinforce.learn_answers", r.learn_answers as u64, 0, 1024),
            ("reinforce.evaluate_problems", r.evaluate_problems as u64, 1, 100_000),
        ];
        for (key, value, low, high) in counts {
            if !(low..=high).contains(&value) {
                return refuse(key, value.to_string(), &format!("between {low} and {high}"));
            }
        }
        let numbers: [(&str, f64, f64, f64); 7] = [
            ("reinforce.overlong_share", r.overlong_share, 0.0, 1.0),
            ("reinforce.temperature", r.temperature, 0.01, 10.0),
            ("reinforce.correct", r.correct, 0.0, 100.0),
            ("reinforce.format", r.format, 0.0, 100.0),
            ("reinforce.language", r.language, 0.0, 100.0),
            ("reinforce.kl", r.kl, 0.0, 100.0),
            ("reinforce.clip", r.clip, 1e-6, 1e6),
        ];
        for (key, value, low, high) in numbers {
            if !(value.is_finite() && (low..=high).contains(&value)) {
                return refuse(key, value.to_string(), &format!("between {low} and {high}"));
            }
        }
        let rising = r.tokens_max.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let lengths = r.tokens_max.iter().all(|(_, n)| (1.0..=1_048_576.0).contains(n));
        if !(r.tokens_max.first().is_some_and(|(from, _)| *from == 0.0) && rising && lengths) {
            let limit = "pairs of a share of the run, rising from 0, and a length of 1 to 1048576 tokens";
            return refuse("reinforce.tokens_max", format!("{:?}", r.tokens_max), limit);
        }
        if r.learn_answers > 0 && r.kl > 0.0 {
            let limit = "0 where reinforce.kl is above 0: the divergence is of all answers";
            return refuse("reinforce.learn_answers", r.learn_answers.to_string(), limit);
        }
        if let Some(std) = self.noise
            && (!(std > 0.0 && std <= 1.0) || r.kl > 0.0)
        {
            return refuse("noise", std.to_string(), "above 0 and at most 1, and absent where reinforce.kl is above 0");
        }
        if self.tasks.is_empty() {
            return refuse("task", "absent".to_string(), "at least one task");
        }
        for task in &self.tasks {
            let shares = [task.share, task.arabic, task.promote_at, task.easy_share];
            if !(shares.iter().all(|s| (0.0..=1.0).contains(s)) && task.share > 0.0) {
                return refuse(&format!("a share of task {}", task.name), format!("{shares:?}"), "between 0 and 1");
            }
            let [low, high] = task.levels;
            if !(1 <= low && low <= task.start.max(low) && task.start.max(low) <= high) {
                let value = format!("{:?} from {}", task.levels, task.start);
                return refuse(&format!("task {}: levels", task.name), value, "rising, with the start inside");
            }
            if let Err(message) = super::problems::check(&task.name, high) {
                return refuse(&format!("task {}", task.name), format!("up to level {high}"), &message);
            }
        }
        Ok(())
    }
}
