//! The log of a run of reinforcement learning: `log.jsonl`, a line a step, and `evaluations.jsonl`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::run::RunError;

/// A step.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Line {
    /// Steps that are done.
    pub step: u64,
    /// Mean reward of an answer.
    pub reward: f64,
    /// Share of right answers.
    pub correct: f64,
    /// Share of answers in the right form.
    pub format: f64,
    /// Mean share of the reasoning's letters that are of the question's language.
    pub language: f64,
    /// Share of answers with another attempt.
    pub retry_share: f64,
    /// Mean number of further attempts.
    pub retries: f64,
    /// Share of answers that ended by themselves.
    pub ended: f64,
    /// Share of answers that another one repeats.
    pub repeated: f64,
    /// Mean length of an answer, tokens.
    pub length: f64,
    /// The limit of that.
    pub tokens_max: u64,
    /// Tokens of all answers.
    pub tokens: u64,
    /// Those that were learned from.
    pub learned_tokens: u64,
    /// Share of problems whose answers all got the same reward.
    pub equal_groups: f64,
    /// Mean entropy of the choices, nats.
    pub entropy: f64,
    /// Mean divergence from the reference, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// The largest difference between the sampler's and the learner's log-probability of a token.
    pub logprob_difference: f64,
    /// The norm of all gradients.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The level of each task after the step.
    pub levels: Vec<u8>,
    /// For each task and level that was asked: answers, right ones, tokens.
    #[serde(default)]
    pub by_task: BTreeMap<String, [u64; 3]>,
    /// The first thing found that is not a finite number: the step changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonfinite: Option<String>,
    /// Seconds of sampling.
    pub rollout_seconds: f64,
    /// Tokens of answers a second, prompts not counted.
    pub rollout_tokens_per_second: f64,
    /// Seconds of learning.
    pub learn_seconds: f64,
}

/// An evaluation on held-out problems.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Measured {
    /// Steps that were done.
    pub step: u64,
    /// For each task and level: answers, right ones, tokens.
    pub by_task: BTreeMap<String, [u64; 3]>,
    /// For each task and level, where several answers were sampled: pass@k for k = 1, 2, 4 and so on, as (k, share).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pass_at: BTreeMap<String, Vec<(u32, f64)>>,
    /// Some answers in full, to the same problems each time.
    pub shown: Vec<Shown>,
}

/// An answer in full.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Shown {
    /// Task and level.
    pub task: String,
    /// What was asked.
    pub question: String,
    /// The reasoning.
    pub reasoning: String,
    /// The answer, where there is one.
    pub answer: Option<String>,
    /// Whether it is right.
    pub correct: bool,
}

/// Counts an answer.
pub(super) fn count(by_task: &mut BTreeMap<String, [u64; 3]>, task: &str, correct: bool, tokens: usize) {
    let counts = by_task.entry(task.to_string()).or_default();
    counts[0] += 1;
    counts[1] += u64::from(correct);
    counts[2] += tokens as u64;
}

impl Measured {
    /// In a line.
    pub fn text(&self) -> String {
        let parts: Vec<String> = self
            .by_task
            .iter()
            .map(|(task, [problems, right, _])| format!("{task} {:.0} %", 100.0 * *right as f64 / *problems as f64))
            .collect();
        format!("held out at step {}: {}", self.step, parts.join(", "))
    }
}

/// The two files of a run.
pub struct Log {
    steps: (PathBuf, File),
    evaluations: (PathBuf, File),
}

impl Log {
    /// Opens both; lines of steps after `step` belong to work that a kill undid, and are dropped.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Log, RunError> {
        let steps = reopened::<Line>(&folder.join("log.jsonl"), |line| line.step <= step)?;
        let evaluations =
            reopened::<Measured>(&folder.join("evaluations.jsonl"), |line| line.step <= step && step > 0)?;
        Ok(Log { steps, evaluations })
    }

    pub(super) fn add(&mut self, line: &Line) -> Result<(), RunError> {
        append(&mut self.steps, line)
    }

    pub(super) fn measured(&mut self, measured: &Measured) -> Result<(), RunError> {
        append(&mut self.evaluations, measured)
    }
}

/// Both logs of a run.
///
/// # Errors
/// If a file cannot be read.
pub fn read_log(folder: &Path) -> Result<(Vec<Line>, Vec<Measured>), RunError> {
    Ok((read(&folder.join("log.jsonl"))?, read(&folder.join("evaluations.jsonl"))?))
}

fn append<T: Serialize>((path, file): &mut (PathBuf, File), line: &T) -> Result<(), RunError> {
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    file.write_all(text.as_bytes()).map_err(|source| RunError::Write { path: path.clone(), source })
}

fn reopened<T: DeserializeOwned + Serialize>(
    path: &Path,
    keep: impl Fn(&T) -> bool,
) -> Result<(PathBuf, File), RunError> {
    let write = |source| RunError::Write { path: path.to_path_buf(), source };
    if path.is_file() {
        let kept: Vec<T> = read(path)?.into_iter().filter(keep).collect();
        let lines: Vec<String> = kept.iter().map(|line| serde_json::to_string(line).unwrap_or_default()).collect();
        files::write_whole(path, |out| lines.iter().try_for_each(|line| writeln!(out, "{line}"))).map_err(write)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(write)?;
    Ok((path.to_path_buf(), file))
}

/// The lines of a file; a last one that a kill cut short is left out.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RunError> {
    let fail = |source| RunError::Read { path: path.to_path_buf(), source };
    let mut lines = Vec::new();
    for line in BufReader::new(File::open(path).map_err(fail)?).split(b'\n') {
        if let Ok(parsed) = serde_json::from_slice(&line.map_err(fail)?) {
            lines.push(parsed);
        }
    }
    Ok(lines)
}
