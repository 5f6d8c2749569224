//! `fathom sample`: right answers of a model, as chats to learn from.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Context;
use engine::sampler::Sampling;
use kernels::pool::Pool;
use train::samples::{Counts, Keep, Machine, Manifest, SampleError, Settings, Teacher, sample};

use crate::opened::Opened;
use crate::options::{MachineArgs, ThinkArgs, thinking};
use crate::terminal::{INTERRUPTED, Progress, interrupt_flag, note, print};

/// Sample answers to generated problems and keep the right ones, as chats to learn from (rejection sampling)
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  fathom sample nano --tasks countdown3,words --per-problem 4 --out right.jsonl
  fathom sample ORG/TEACHER --tasks words --instruct --keep formed --kept-max 1 --out teacher.jsonl

A recipe for `fathom train sft` learns from the file with
  [[data.source]]
  chat = [\"right.jsonl\"]

Problems are those of reinforcement learning: no document of this repository shows them and `fathom eval` never asks
them. The same seed gives the same file, whatever --at-once and --threads are. A command that was stopped goes on where
it was. FILE.manifest.json has the model's hash, the settings, and what was asked, right and kept.")]
pub(crate) struct Args {
    /// A directory, a .gguf file, or the name of a pulled model
    model: String,

    /// The file to write, one chat a line
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,

    /// Tasks: arithmetic, compare, countdown2, countdown3, countdown4, words, words_ar, copy, sort, reverse, largest,
    /// count, needle, format
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    tasks: Vec<String>,

    /// Problems of each task
    #[arg(long, value_name = "N", default_value_t = 1000)]
    problems: usize,

    /// Samples of each problem
    #[arg(long, value_name = "K", default_value_t = 4)]
    per_problem: usize,

    /// Which samples are kept: right ones, right ones in the form that was asked for, or all that ended by themselves
    #[arg(long, value_name = "right|formed|all", default_value = "right", hide_possible_values = true)]
    keep: KeepArg,

    /// Keep at most so many samples of a problem (0: all)
    #[arg(long, value_name = "N", default_value_t = 0)]
    kept_max: usize,

    /// Drop samples of whose reasoning a smaller share of letters is in the question's language
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    language_share: f64,

    /// Say in each question in which form the answer must end; the written chats have the questions without it
    #[arg(long)]
    instruct: bool,

    /// Higher is more varied
    #[arg(long, short = 't', value_name = "T", default_value_t = 1.0)]
    temperature: f32,

    /// Keep the most likely tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,

    /// Of the problems and samples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Longest answer in tokens, reasoning included
    #[arg(long, short = 'n', value_name = "TOKENS", default_value_t = 512)]
    max_tokens: usize,

    /// Samples that are computed together
    #[arg(long, value_name = "N", default_value_t = 64)]
    at_once: usize,

    #[command(flatten)]
    think: ThinkArgs,

    #[command(flatten)]
    machine: MachineArgs,
}

/// What is kept, as a flag.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum KeepArg {
    Right,
    Formed,
    All,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let cancel = interrupt_flag(true)?;
    let done = sample_with(args, &args.machine.pool()?, &|| !cancel.load(Ordering::Relaxed))?;
    if !done {
        note(&SampleError::Stopped.to_string());
    }
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// The arguments of a stage of a road: its options, the model and the file. What cannot be read is refused.
pub(crate) fn args_of(options: &str, model: &Path, out: &Path) -> anyhow::Result<Args> {
    #[derive(clap::Parser)]
    #[command(name = "fathom sample")]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }
    let given = [OsStr::new("fathom sample"), model.as_os_str(), OsStr::new("--out"), out.as_os_str()];
    let all = given.into_iter().chain(options.split_whitespace().map(OsStr::new));
    let wrong = |error: clap::Error| {
        let text = error.to_string();
        anyhow::anyhow!("options: {}", text.trim_start_matches("error: ").lines().next().unwrap_or_default())
    };
    Ok(<Alone as clap::Parser>::try_parse_from(all).map_err(wrong)?.args)
}

/// Samples while `goes_on` says so; whether all is done. The same call goes on where another stopped.
pub(crate) fn sample_with(args: &Args, pool: &Pool, goes_on: &dyn Fn() -> bool) -> anyhow::Result<bool> {
    let opened = Opened::open(&args.model, args.machine.inputs())?;
    opened.model.notices.iter().for_each(|notice| note(&format!("note: {notice}")));
    let tokenizer = opened.tokenizer()?;
    let template = opened.template()?;
    let template = template.with_context(|| {
        format!("{}: the model has no chat template, by which a question becomes a prompt", opened.path.display())
    })?;
    let settings = settings(args, tokenizer);
    let Settings { temperature, top_p, .. } = settings;
    let sampling = Sampling { temperature, top_p, ..Sampling::default() };
    sampling.check(opened.model.spec.vocab).context("these sampling settings cannot be used")?;
    let teacher = Teacher { path: &opened.path, model: &opened.model, tokenizer, template: &template };
    let machine = Machine { pool, at_once: args.at_once, cache: args.machine.cache.format() };
    let mut progress = Progress::new();
    let done = sample(&teacher, &settings, &machine, &args.out, &mut |done, samples, tokens| {
        progress.show(&format!("{done} of {samples} samples, {tokens} tokens"));
        goes_on()
    });
    progress.clear();
    if matches!(done, Err(SampleError::Stopped)) {
        return Ok(false);
    }
    print(&table(&done?))?;
    Ok(true)
}

fn settings(args: &Args, tokenizer: &text::Tokenizer) -> Settings {
    let keep = match args.keep {
        KeepArg::Right => Keep::Right,
        KeepArg::Formed => Keep::Formed,
        KeepArg::All => Keep::All,
    };
    let products = if args.machine.exact { "exact" } else { "int8" };
    Settings {
        tasks: args.tasks.iter().map(|name| name.trim().to_string()).collect(),
        problems: args.problems,
        per_problem: args.per_problem,
        keep,
        kept_max: args.kept_max,
        language_share_min: args.language_share,
        instruct: args.instruct,
        seed: args.seed,
        temperature: args.temperature,
        top_p: args.top_p,
        max_tokens: args.max_tokens,
        variables: thinking(args.think.think, tokenizer),
        arithmetic: format!("products {products}, cache {:?}", args.machine.cache).to_lowercase(),
    }
}

fn table(manifest: &Manifest) -> String {
    let mut text = format!(
        "{:<12} {:>9} {:>8} {:>9} {:>8} {:>8} {:>8}\n",
        "task", "problems", "solved", "samples", "right", "cut off", "kept"
    );
    let share = |part: u64, of: u64| format!("{:.1} %", 100.0 * part as f64 / of.max(1) as f64);
    for (task, counts) in &manifest.counts {
        let Counts { problems, problems_solved, samples, right, cut_off, kept, .. } = *counts;
        let (solved, right, cut_off) =
            (share(problems_solved, problems), share(right, samples), share(cut_off, samples));
        text += &format!("{task:<12} {problems:>9} {solved:>8} {samples:>9} {right:>8} {cut_off:>8} {kept:>8}\n");
    }
    text
}
