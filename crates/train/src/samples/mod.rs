//! Answers of a model to generated problems, kept where the grader finds them right: rejection sampling.
//!
//! It is the third stage of R1 (section 2.3.3) and the way R1's students were made (section 2.4): sample several
//! answers to each problem, keep the right ones, fine-tune on them. [`sample`] writes chats in JSON lines, which
//! `fathom train sft` reads, and beside them a manifest with counts.
//!
//! Problems are those of reinforcement learning ([`Split::Reinforce`]): no document shows them and no evaluation asks
//! them. A sample is a function of model, seed, problem and number, so the file is the same whatever runs at once and
//! however often the work is stopped: what is done is on disk after each portion of problems, and the same call goes
//! on.

mod file;
mod prompt;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use engine::compute::ModelCompute;
use engine::limits::Limits;
use engine::sampler::Sampling;
use engine::step::Engine;
use eval::runner::{self, Job, Output, grade_output, run_jobs, sample_seed};
use eval::task::Task;
use eval::{Problem, Split, language_share};
use kernels::attention::CacheFormat;
use kernels::pool::Pool;
use model::cache::Cache;
use model::load::Model;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use text::{ChatTemplate, Tokenizer};

use crate::files;
use file::Unfinished;
use prompt::{Prompt, Prompter, parted};

/// Samples of a portion, in multiples of those that run at once: work between two savings.
const PORTION: usize = 4;

/// Which samples are kept. Those that were cut off and those that repeat another of the same problem never are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// All.
    All,
    /// Those whose answer is right.
    #[default]
    Right,
    /// Those whose answer is right and nothing but the answer.
    Formed,
}

/// What is asked, and how.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Settings {
    /// Names of generated tasks.
    pub tasks: Vec<String>,
    /// Problems of each.
    pub problems: usize,
    /// Samples of each problem.
    pub per_problem: usize,
    /// What is kept.
    pub keep: Keep,
    /// Most samples that are kept of a problem, the first ones; 0: all.
    pub kept_max: usize,
    /// Least share of the reasoning's letters that are of the question's language (R1 drops mixed languages).
    pub language_share_min: f64,
    /// Whether the question says in which form the answer must end (the written chat has the question without it).
    pub instruct: bool,
    /// Of problems and samples.
    pub seed: u64,
    /// Of the choice of tokens.
    pub temperature: f32,
    /// The likeliest tokens that together have this probability.
    pub top_p: f32,
    /// Longest answer, tokens, reasoning included.
    pub max_tokens: usize,
    /// Variables of the chat template.
    pub variables: Map<String, Value>,
    /// The arithmetic in a few words: another one may give other samples.
    pub arithmetic: String,
}

/// What the samples of a task came to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Counts {
    /// Problems that were asked.
    pub problems: u64,
    /// Problems with a right sample.
    pub problems_solved: u64,
    /// Samples.
    pub samples: u64,
    /// Those whose answer is right.
    pub right: u64,
    /// Those that were longer than is allowed.
    pub cut_off: u64,
    /// Those that ended inside their reasoning.
    pub unfinished: u64,
    /// Those that would have been kept, had they not repeated another of the same problem.
    pub repeated: u64,
    /// The same, had they been in the question's language.
    pub other_language: u64,
    /// The same, had there not been enough of the same problem.
    pub over_kept_max: u64,
    /// Lines that were written.
    pub kept: u64,
    /// Tokens of all samples.
    pub tokens: u64,
    /// Tokens of the kept ones.
    pub kept_tokens: u64,
}

/// What is known of a file of samples.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Manifest {
    /// The model that answered, as it was named.
    pub model: String,
    /// A hash of its files.
    pub model_sha256: String,
    /// What was asked.
    pub settings: Settings,
    /// By task.
    pub counts: BTreeMap<String, Counts>,
    /// The hash of the file.
    pub sha256: String,
}

/// A model that answers.
pub struct Teacher<'a> {
    /// Where it lies.
    pub path: &'a Path,
    /// Its weights.
    pub model: &'a Model,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat template.
    pub template: &'a ChatTemplate,
}

/// How the machine is used; changes no sample but through the cache's format.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// Threads.
    pub pool: &'a Pool,
    /// Samples that run together.
    pub at_once: usize,
    /// How keys, values and latents are stored.
    pub cache: CacheFormat,
}

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum SampleError {
    #[error("{what} is {value}; it must be {limit}")]
    Setting { what: &'static str, value: String, limit: String },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{}: is there already; remove it or choose another name", .path.display())]
    There { path: PathBuf },
    #[error(
        "{}: was begun with another model or other settings; remove it to begin anew, or choose another name",
        .path.display()
    )]
    Changed { path: PathBuf },
    #[error("{}: is damaged: {reason}; remove it to begin anew", .path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("task {task}, problem {problem}: {reason}")]
    Prompt { task: String, problem: usize, reason: String },
    #[error(
        "the cache of {at_once} samples takes {needs_gib:.1} GiB and {free_gib:.1} GiB are free; fewer at once fit"
    )]
    Memory { at_once: usize, needs_gib: f64, free_gib: f64 },
    #[error("stopped; what is done is kept, and the same command goes on")]
    Stopped,
}

/// Asks all problems and writes what is kept to the new file `out`, and the manifest to `out` with `.manifest.json`
/// behind it. `progress` is told samples that are done, of how many, and tokens of this portion; it stops the work by
/// returning false. What was done before is found and not done again.
///
/// # Errors
/// If a setting cannot work, the file is there already or was begun otherwise, a prompt does not fit, or it was
/// stopped.
pub fn sample(
    teacher: &Teacher,
    settings: &Settings,
    machine: &Machine,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64, usize) -> bool,
) -> Result<Manifest, SampleError> {
    let tasks = check(settings, machine)?;
    let read = |source| SampleError::Read { path: teacher.path.to_path_buf(), source };
    let model_sha256 = files::sha256_model(teacher.path).map_err(read)?;
    let mut unfinished = Unfinished::open(out, &model_sha256, settings)?;
    let portion = (PORTION * machine.at_once).div_ceil(settings.per_problem).max(1);
    let mut asked: Vec<(Task, usize, Problem)> = Vec::new();
    for &task in &tasks {
        let problems = task.problems(settings.seed, settings.problems, Split::Reinforce);
        asked.extend(problems.into_iter().enumerate().map(|(i, problem)| (task, i, problem)));
    }
    let samples = (asked.len() * settings.per_problem) as u64;
    while (unfinished.done as usize) < asked.len() {
        let first = unfinished.done as usize;
        let some = &asked[first..asked.len().min(first + portion)];
        let done = (first * settings.per_problem) as u64;
        let outputs =
            answers(teacher, settings, machine, some, &mut |of, tokens| progress(done + of as u64, samples, tokens))?;
        let mut lines = String::new();
        for ((task, number, problem), (prompt, outputs)) in some.iter().zip(outputs) {
            let counts = unfinished.counts.entry(task.name().to_string()).or_default();
            lines += &kept(teacher.tokenizer, settings, problem, *number, &prompt, &outputs, counts);
        }
        unfinished.add(&lines, some.len() as u64)?;
    }
    unfinished.finish(teacher.path, &model_sha256, settings)
}

/// The tasks of the settings, whose numbers are within their limits.
fn check(s: &Settings, machine: &Machine) -> Result<Vec<Task>, SampleError> {
    let refuse = |what, value: String, limit: &str| Err(SampleError::Setting { what, value, limit: limit.to_string() });
    const MOST: usize = 1_000_000;
    for (what, value, most) in [
        ("problems", s.problems, MOST),
        ("per-problem", s.per_problem, 1024),
        ("max-tokens", s.max_tokens, MOST),
        ("at-once", machine.at_once, 4096),
    ] {
        if !(1..=most).contains(&value) {
            return refuse(what, value.to_string(), &format!("from 1 to {most}"));
        }
    }
    if !(0.0..=1.0).contains(&s.language_share_min) {
        return refuse("language-share", s.language_share_min.to_string(), "between 0 and 1");
    }
    let mut tasks = Vec::new();
    for name in &s.tasks {
        let generated = || Task::all().into_iter().filter(|task| !task.needs_file());
        let Some(task) = generated().find(|task| task.name() == name) else {
            let known: Vec<&str> = generated().map(Task::name).collect();
            return refuse("task", format!("{name:?}"), &format!("one of {}", known.join(", ")));
        };
        if tasks.contains(&task) {
            return refuse("task", format!("{name:?} twice"), "named once");
        }
        tasks.push(task);
    }
    if tasks.is_empty() {
        return refuse("tasks", "absent".to_string(), "at least one task");
    }
    Ok(tasks)
}

/// The prompt and all samples of each problem.
fn answers(
    teacher: &Teacher,
    settings: &Settings,
    machine: &Machine,
    asked: &[(Task, usize, Problem)],
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Vec<(Prompt, Vec<Output>)>, SampleError> {
    let Teacher { tokenizer, template, .. } = *teacher;
    let prompter = Prompter { tokenizer, template, variables: &settings.variables };
    let mut prompts = Vec::with_capacity(asked.len());
    let mut jobs = Vec::with_capacity(asked.len() * settings.per_problem);
    for (task, number, problem) in asked {
        let mut question = problem.question.clone();
        if settings.instruct {
            question = format!("{question}\n{}", task.instruction());
        }
        let refuse = |reason| SampleError::Prompt { task: task.name().to_string(), problem: *number, reason };
        let prompt = prompter.prompt(&question).map_err(refuse)?;
        jobs.extend((0..settings.per_problem).map(|sample| Job {
            prompt: prompt.tokens.clone(),
            sampling: Sampling {
                temperature: settings.temperature,
                top_p: settings.top_p,
                seed: sample_seed(settings.seed, *number, sample),
                ..Sampling::default()
            },
            max_tokens: settings.max_tokens,
            stop_tokens: tokenizer.eos_ids().to_vec(),
            thinking: None,
        }));
        prompts.push(prompt);
    }
    let of_job = |index: usize| &asked[index / settings.per_problem];
    let failed = |error: runner::RunError| match error {
        runner::RunError::Stopped => SampleError::Stopped,
        runner::RunError::Refused { index, .. } | runner::RunError::Failed { index, .. } => {
            let (task, number, _) = of_job(index);
            let (task, reason) = (task.name().to_string(), error.to_string());
            SampleError::Prompt { task, problem: *number, reason }
        }
    };
    let mut engine = engine(teacher, machine, settings, &jobs)?;
    let outputs = run_jobs(&mut engine, &jobs, machine.at_once, progress).map_err(failed)?;
    let mut outputs = outputs.into_iter();
    Ok(prompts.into_iter().map(|prompt| (prompt, outputs.by_ref().take(settings.per_problem).collect())).collect())
}

/// An engine with room for the longest of the jobs, as often as they run together.
fn engine<'a>(
    teacher: &Teacher<'a>,
    machine: &Machine<'a>,
    settings: &Settings,
    jobs: &[Job],
) -> Result<Engine<ModelCompute<'a>>, SampleError> {
    let spec = &teacher.model.spec;
    let longest = jobs.iter().map(|job| job.prompt.len()).max().unwrap_or(0);
    let context = (longest + settings.max_tokens + 1).min(spec.context);
    let at_once = machine.at_once.min(jobs.len()).max(1);
    let pages = Cache::pages_for(context) * at_once;
    let bytes = pages as u64 * Cache::page_bytes(spec, machine.cache) as u64;
    if let Some(available) = kernels::measure::Memory::read().available_bytes
        && bytes > available
    {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        return Err(SampleError::Memory { at_once, needs_gib: gib(bytes), free_gib: gib(available) });
    }
    let limits = Limits {
        running_max: at_once,
        waiting_max: at_once * 2,
        waiting_per_owner_max: at_once * 2,
        batch_tokens_max: Limits::default().batch_tokens_max.max(at_once),
        context_tokens_max: context,
        pages,
        ..Limits::default()
    };
    Ok(Engine::new(ModelCompute::new(teacher.model, machine.pool, pages, machine.cache), limits))
}

/// The lines of a problem's kept samples; all are counted.
fn kept(
    tokenizer: &Tokenizer,
    settings: &Settings,
    problem: &Problem,
    number: usize,
    prompt: &Prompt,
    outputs: &[Output],
    counts: &mut Counts,
) -> String {
    let (mut lines, mut seen, mut solved, mut kept) = (String::new(), BTreeSet::new(), false, 0);
    for (i, output) in outputs.iter().enumerate() {
        let sample = grade_output(problem, output, tokenizer, &prompt.format);
        let (correct, formed) = (sample.grade.correct, sample.grade.format_ok);
        counts.samples += 1;
        counts.tokens += sample.tokens as u64;
        counts.right += u64::from(correct && sample.stopped);
        solved |= correct && sample.stopped;
        if !sample.stopped {
            counts.cut_off += 1;
            continue;
        }
        let Some((reasoning, answer)) = parted(&sample.written, &prompt.format) else {
            counts.unfinished += 1;
            continue;
        };
        let wanted = match settings.keep {
            Keep::All => true,
            Keep::Right => correct,
            Keep::Formed => correct && formed,
        };
        if !wanted {
            continue;
        }
        if language_share(&reasoning, problem.language) < settings.language_share_min {
            counts.other_language += 1;
        } else if !seen.insert(sample.written) {
            counts.repeated += 1;
        } else if settings.kept_max > 0 && kept == settings.kept_max {
            counts.over_kept_max += 1;
        } else {
            (kept, counts.kept) = (kept + 1, counts.kept + 1);
            counts.kept_tokens += sample.tokens as u64;
            let line = json!({
                "messages": [
                    { "role": "user", "content": problem.question },
                    { "role": "assistant", "reasoning_content": reasoning, "content": answer },
                ],
                "task": problem.task,
                "level": problem.level,
                "problem": number,
                "sample": i,
                "correct": correct,
                "format_ok": formed,
                "tokens": sample.tokens,
            });
            lines += &format!("{line}\n");
        }
    }
    counts.problems += 1;
    counts.problems_solved += u64::from(solved);
    lines
}
