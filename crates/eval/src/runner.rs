//! Problems on the engine: prompts in batches, samples graded, figures summed up.
//!
//! The engine's answers do not depend on what runs beside them, so neither do these figures: the same model, seed and
//! problems give the same samples whatever the batch is.

use engine::request::{Command, Event, Finish, Refusal, Request};
use engine::sampler::{Sampling, SamplingError};
use engine::step::{Compute, Engine};
use text::{ReasoningFormat, Specials, Tokenizer};

use crate::budget::ThinkingBudget;
use crate::grade::{Grade, Reason, grade_answer, part};
use crate::problem::Problem;
use crate::rng::Rng;
use crate::statistics::{majority, pass_at_k, wilson};

/// A prompt to be continued.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its tokens.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Longest continuation.
    pub max_tokens: usize,
    /// Tokens that end it.
    pub stop_tokens: Vec<u32>,
    /// The most tokens of reasoning, and the token that closes it then; the prompt opens it.
    pub thinking: Option<(usize, u32)>,
}

/// A continuation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Its tokens, the one that ended it included.
    pub tokens: Vec<u32>,
    /// The log-probability of each under the model.
    pub logprobs: Vec<f32>,
    /// The model ended it; otherwise it is as long as was allowed.
    pub stopped: bool,
}

impl Output {
    /// Its tokens without the one that ended it.
    pub fn said(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - usize::from(self.stopped)]
    }
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The engine does not take a prompt.
    #[error("prompt {index}: {refusal}")]
    Refused {
        /// Its place.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
    /// The model's output is not usable.
    #[error("prompt {index}: {error}")]
    Failed {
        /// Its place.
        index: usize,
        /// Why.
        error: SamplingError,
    },
    /// It was stopped.
    #[error("stopped")]
    Stopped,
}

/// Runs all jobs, at most `at_once` in the engine at a time (within its limits). `progress` is told jobs and tokens
/// that are done, and stops the run by returning false.
pub fn run_jobs<C: Compute>(
    engine: &mut Engine<C>,
    jobs: &[Job],
    at_once: usize,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Vec<Output>, RunError> {
    let mut outputs = vec![Output::default(); jobs.len()];
    let (mut next, mut done, mut tokens) = (0, 0, 0);
    let mut inbox = Vec::new();
    while done < jobs.len() {
        let (running, waiting) = engine.load();
        let room = at_once.max(1).saturating_sub(running + waiting);
        for (index, job) in jobs.iter().enumerate().skip(next).take(room) {
            inbox.push(Command::Submit(Request {
                id: index as u64,
                owner: 0,
                prompt: job.prompt.clone(),
                sampling: job.sampling.clone(),
                max_tokens: job.max_tokens,
                stop_tokens: job.stop_tokens.clone(),
                top_logprobs: 0,
                constraint: job.thinking.map(|(most, close)| Box::new(ThinkingBudget::new(close, most)) as _),
            }));
            next = index + 1;
        }
        for event in engine.step(&mut inbox) {
            match event {
                Event::Started { .. } | Event::Embedded { .. } => {}
                Event::Refused(id, refusal) => return Err(RunError::Refused { index: id as usize, refusal }),
                Event::Token { id, token, logprob, .. } => {
                    tokens += 1;
                    let output = &mut outputs[id as usize];
                    output.tokens.push(token);
                    output.logprobs.push(logprob);
                }
                Event::Finished { id, finish, .. } => {
                    done += 1;
                    finish_output(&mut outputs[id as usize], id as usize, finish)?;
                }
            }
        }
        if !progress(done, tokens) {
            return Err(RunError::Stopped);
        }
    }
    Ok(outputs)
}

fn finish_output(output: &mut Output, index: usize, finish: Finish) -> Result<(), RunError> {
    match finish {
        Finish::Stop => output.stopped = true,
        Finish::Length => {}
        // Nothing is cancelled here, and a budget always allows a token.
        Finish::Cancelled | Finish::Unconstrained(_) => return Err(RunError::Stopped),
        Finish::Failed(error) => return Err(RunError::Failed { index, error }),
    }
    Ok(())
}

/// The seed of one sample of one problem.
pub fn sample_seed(seed: u64, problem: usize, sample: usize) -> u64 {
    Rng::new(seed, "sample", ((problem as u64) << 20) ^ sample as u64).bits()
}

/// A graded sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What the model wrote after the prompt.
    pub written: String,
    /// The part after the reasoning.
    pub answer: String,
    /// The grade.
    pub grade: Grade,
    /// Tokens that were written.
    pub tokens: usize,
    /// The model ended it itself.
    pub stopped: bool,
}

/// Grades a continuation of a prompt after which reasoning has this form.
pub fn grade_output(problem: &Problem, output: &Output, tokenizer: &Tokenizer, format: &ReasoningFormat) -> Sample {
    // Markers of reasoning may be special tokens.
    let written = tokenizer.decode(output.said(), Specials::Show);
    let (answer, grade) = match part(&written, format.clone()) {
        Some(answer) => {
            let grade = grade_answer(problem, &answer);
            (answer, grade)
        }
        None => (String::new(), Grade { correct: false, format_ok: false, reason: Reason::Unfinished }),
    };
    Sample { written, answer, grade, tokens: output.said().len(), stopped: output.stopped }
}

/// A problem with its samples.
#[derive(Clone, Debug)]
pub struct Solved {
    /// The problem.
    pub problem: Problem,
    /// At least one.
    pub samples: Vec<Sample>,
}

impl Solved {
    fn right(&self) -> usize {
        self.samples.iter().filter(|sample| sample.grade.correct).count()
    }

    /// Whether the most frequent answer is right; samples without an answer do not vote.
    fn majority_right(&self) -> bool {
        let answer = |sample: &Sample| {
            let line = sample.answer.trim().lines().next_back().unwrap_or_default();
            line.chars().filter(|c| !c.is_whitespace()).collect::<String>()
        };
        let votes: Vec<String> = self.samples.iter().map(answer).filter(|answer| !answer.is_empty()).collect();
        let votes: Vec<&str> = votes.iter().map(String::as_str).collect();
        majority(&votes).is_some_and(|most| self.samples.iter().any(|s| s.grade.correct && answer(s) == most))
    }
}

/// Figures of one task, or of one level of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The task.
    pub task: &'static str,
    /// One level, or all.
    pub level: Option<u8>,
    /// Problems.
    pub problems: usize,
    /// Samples of each.
    pub samples: usize,
    /// Mean share of right samples.
    pub pass_1: f64,
    /// Wilson's interval of it, 95 %, with the problems as trials.
    pub interval: (f64, f64),
    /// Share of problems with a right one among as many samples as there are.
    pub pass_k: f64,
    /// Share of problems whose most frequent answer is right.
    pub majority: f64,
    /// Share of samples in the form that was asked for.
    pub format: f64,
    /// Mean length of a sample.
    pub tokens: f64,
    /// Share of samples that were cut off.
    pub cut_off: f64,
}

/// The figures of a task's solved problems: all levels together first, then each, if there are several.
pub fn summaries(solved: &[Solved]) -> Vec<Summary> {
    let Some(first) = solved.first() else { return Vec::new() };
    let all: Vec<&Solved> = solved.iter().collect();
    let mut out = vec![summary(first.problem.task, None, &all)];
    let mut levels: Vec<u8> = solved.iter().map(|one| one.problem.level).collect();
    levels.sort_unstable();
    levels.dedup();
    for &level in levels.iter().filter(|_| levels.len() > 1) {
        let own: Vec<&Solved> = solved.iter().filter(|one| one.problem.level == level).collect();
        out.push(summary(first.problem.task, Some(level), &own));
    }
    out
}

fn summary(task: &'static str, level: Option<u8>, solved: &[&Solved]) -> Summary {
    let samples: Vec<&Sample> = solved.iter().flat_map(|one| &one.samples).collect();
    let mean = |of: &dyn Fn(&Solved) -> f64| solved.iter().map(|one| of(one)).sum::<f64>() / solved.len().max(1) as f64;
    let share = |of: &dyn Fn(&Sample) -> f64| {
        samples.iter().map(|sample| of(sample)).sum::<f64>() / samples.len().max(1) as f64
    };
    let pass_1 = mean(&|one| pass_at_k(one.samples.len(), one.right(), 1));
    Summary {
        task,
        level,
        problems: solved.len(),
        samples: samples.len() / solved.len().max(1),
        pass_1,
        interval: wilson(pass_1, solved.len()),
        pass_k: mean(&|one| pass_at_k(one.samples.len(), one.right(), one.samples.len())),
        majority: mean(&|one| f64::from(one.majority_right())),
        format: share(&|sample| f64::from(sample.grade.format_ok)),
        tokens: share(&|sample| sample.tokens as f64),
        cut_off: share(&|sample| f64::from(!sample.stopped)),
    }
}
