//! The log of a run: `log.jsonl`, one object a step, for people and programs.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{HeldOut, RunError};
use crate::files;

/// A step in the log.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Line {
    /// Steps that are done.
    pub step: u64,
    /// Tokens that went through the model so far.
    pub tokens: u64,
    /// Nats a token.
    pub loss: f64,
    /// The same of multi-token prediction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtp_loss: Option<f64>,
    /// The balance loss, with its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance_loss: Option<f64>,
    /// The norm of all gradients, before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The speed of the routers' biases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias_speed: Option<f64>,
    /// For each layer with experts: tokens of each expert as a share of the mean.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expert_load: Vec<Vec<f32>>,
    /// Why the step changed nothing, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The loss on held-out data, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// Duration of the step, evaluation not included.
    pub seconds: f64,
    /// Speed of the step.
    pub tokens_per_second: f64,
    /// Useful operations as a share of the machine's peak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_share: Option<f64>,
}

impl Line {
    /// The least and the greatest load of an expert on any layer, as shares of the mean. Layers that saw no token (a
    /// prediction module that has no weight yet) do not count.
    pub fn load_range(&self) -> Option<(f32, f32)> {
        let ran = |loads: &&Vec<f32>| loads.iter().any(|&load| load > 0.0);
        let mut all = self.expert_load.iter().filter(ran).flatten().copied();
        let first = all.next()?;
        Some(all.fold((first, first), |(low, high), load| (low.min(load), high.max(load))))
    }
}

/// Loads as shares of the mean, to three digits.
pub(super) fn loads(expert_tokens: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let of_layer = |tokens: &Vec<u32>| {
        let mean = tokens.iter().map(|&n| f64::from(n)).sum::<f64>() / tokens.len().max(1) as f64;
        let share = |&n: &u32| ((f64::from(n) / mean.max(f64::MIN_POSITIVE) * 1000.0).round() / 1000.0) as f32;
        tokens.iter().map(share).collect()
    };
    expert_tokens.iter().map(of_layer).collect()
}

/// A log that is being written. Lines that cannot be written are kept until they can.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    waiting: String,
    failing: bool,
    pub(super) last_refusal: Option<String>,
}

impl Log {
    /// Opens the log; lines of steps after `step` belong to work that a kill undid, and are dropped.
    pub(super) fn open(path: &Path, step: u64) -> Result<Log, RunError> {
        let write = |source| RunError::Write { path: path.to_path_buf(), source };
        if path.is_file() {
            let kept: Vec<String> =
                whole_lines(path)?.into_iter().filter(|(line, _)| line.step <= step).map(|l| l.1).collect();
            files::write_whole(path, |out| kept.iter().try_for_each(|line| writeln!(out, "{line}"))).map_err(write)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(write)?;
        Ok(Log { path: path.to_path_buf(), file, waiting: String::new(), failing: false, last_refusal: None })
    }

    /// Adds a line; a warning if it cannot be written for the first time in a row.
    pub(super) fn add(&mut self, line: Line) -> Option<String> {
        self.last_refusal = line.skipped.clone().or(self.last_refusal.take());
        self.waiting += &serde_json::to_string(&line).unwrap_or_default();
        self.waiting += "\n";
        let failed = self.write().err();
        let first = failed.is_some() && !self.failing;
        self.failing = failed.is_some();
        let path = self.path.display();
        failed
            .filter(|_| first)
            .map(|error| format!("{path}: cannot be written: {error}; its lines are kept in memory"))
    }

    fn write(&mut self) -> io::Result<()> {
        // A write that ends in the middle leaves the rest for the next attempt.
        while !self.waiting.is_empty() {
            let n = self.file.write(self.waiting.as_bytes())?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            // Lines hold no text of others beside reasons in ASCII, but a cut must be at a character.
            let rest = String::from_utf8_lossy(&self.waiting.as_bytes()[n..]).into_owned();
            self.waiting = rest;
        }
        Ok(())
    }

    /// Puts everything on the disk.
    pub(super) fn flush(&mut self) -> Result<(), RunError> {
        let flushed = self.write().and_then(|()| self.file.sync_all());
        flushed.map_err(|source| RunError::Write { path: self.path.clone(), source })
    }
}

/// Reads a log; a last line that a kill cut short is left out.
///
/// # Errors
/// If the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<Line>, RunError> {
    Ok(whole_lines(path)?.into_iter().map(|(line, _)| line).collect())
}

fn whole_lines(path: &Path) -> Result<Vec<(Line, String)>, RunError> {
    let read = |source| RunError::Read { path: path.to_path_buf(), source };
    let mut lines = Vec::new();
    for line in BufReader::new(File::open(path).map_err(read)?).split(b'\n') {
        let line = line.map_err(read)?;
        let Ok(parsed) = serde_json::from_slice(&line) else { continue };
        lines.push((parsed, String::from_utf8_lossy(&line).into_owned()));
    }
    Ok(lines)
}
