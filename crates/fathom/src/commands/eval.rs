//! `fathom eval`: a model on tasks with right answers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use engine::compute::ModelCompute;
use engine::limits::Limits;
use engine::sampler::Sampling;
use engine::session::Session;
use engine::step::Engine;
use eval::audit::Audit;
use eval::bits::{Bits, bits_of_text};
use eval::files::read_problems;
use eval::programs::grade_program;
use eval::report;
use eval::runner::{Job, RunError, Solved, grade_output, run_jobs, sample_seed, summaries};
use eval::sandbox::Sandbox;
use eval::task::Task;
use eval::{Problem, Split};
use model::cache::Cache;
use serde_json::{Map, Value, json};
use text::{ChatTemplate, ReasoningFormat, Tokenizer};

use crate::answer::chat_input;
use crate::opened::Opened;
use crate::options::{MachineArgs, ThinkArgs, thinking};
use crate::terminal::{INTERRUPTED, Progress, interrupt_flag, note, print};
use crate::whole_file;

/// Measure a model on tasks with right answers
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  fathom eval ORG/NAME --tasks countdown3,arithmetic --problems 200
  fathom eval ORG/NAME --tasks gsm8k --data gsm8k/test.jsonl --instruct --max-tokens 1024
  fathom eval ORG/NAME --tasks countdown4 --samples 16 --plot countdown.svg
  fathom eval ORG/NAME --tasks countdown4 --budgets 64,128,256,512 --max-tokens 576 --json
  fathom eval ORG/NAME --tasks none --text book.txt

Generated problems are held out: no training document of this repository shows them. The same seed gives the same \
problems and samples, whatever --at-once and --threads are. pass@1 stands with its 95 % interval (Wilson); pass@k is \
the share of problems with a right one among the samples; majority that of the most frequent answer.")]
pub(crate) struct Args {
    /// A directory, a .gguf file, or the name of a pulled model
    model: String,

    /// Tasks: arithmetic, compare, countdown2, countdown3, countdown4, words, words_ar, copy, sort, reverse, largest,
    /// count, needle, format; from a file: gsm8k, svamp, choice, humaneval (its programs run in a sandbox); or none
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "arithmetic,countdown3,words,words_ar")]
    tasks: Vec<String>,

    /// The file of a task that has one: GSM8K's lines, SVAMP's list, or lines with question, choices and answer
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,

    /// Also measure how well this text is predicted: bits per byte, and perplexity per token
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,

    /// Problems of each task (of a file: the first)
    #[arg(long, value_name = "N", default_value_t = 120)]
    problems: usize,

    /// Samples of each problem
    #[arg(long, value_name = "K", default_value_t = 1)]
    samples: usize,

    /// Say in each question in which form the answer must end, for models that were not trained on these tasks
    #[arg(long)]
    instruct: bool,

    /// 0 takes the most likely token each time [default: 0 for one sample, 1 for several]
    #[arg(long, short = 't', value_name = "T")]
    temperature: Option<f32>,

    /// Keep the most likely tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,

    /// Of the problems and samples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Longest answer in tokens, reasoning included
    #[arg(long, short = 'n', value_name = "TOKENS", default_value_t = 512)]
    max_tokens: usize,

    /// Measure at several limits on reasoning, in tokens: it is closed there and the answer follows, as the server does
    /// with a thinking budget
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    budgets: Vec<usize>,

    /// Samples that are computed together; figures do not depend on it
    #[arg(long, value_name = "N", default_value_t = 64)]
    at_once: usize,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Write a chart of pass@1 over difficulty (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Write every sample with its grade (JSON lines)
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,

    /// Also look by rule at the answers that are right: whether their reasoning leads to them (at the standard error)
    #[arg(long)]
    audit: bool,

    #[command(flatten)]
    think: ThinkArgs,

    #[command(flatten)]
    machine: MachineArgs,
}

/// Most problems or samples: a typing mistake beyond that.
const COUNT_MAX: usize = 1_000_000;
/// Largest text that is measured.
const TEXT_BYTES_MAX: u64 = 256 << 20;
/// Most samples that are computed together.
const AT_ONCE_MAX: usize = 4096;

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let tasks = tasks(&args)?;
    let opened = Opened::open(&args.model, args.machine.inputs())?;
    opened.model.notices.iter().for_each(|notice| note(&format!("note: {notice}")));
    let mut asker = Asker::new(&args, &opened)?;
    let pool = args.machine.pool()?;
    let cancel = interrupt_flag(true)?;
    let started = Instant::now();
    if !args.budgets.is_empty() {
        return over_budgets(&args, &opened, &mut asker, &pool, &cancel, &tasks);
    }
    let (mut all, mut solved_all, mut tokens_all) = (Vec::new(), Vec::new(), 0);
    for (task, problems) in &tasks {
        let Some((solved, tokens)) = solve(&args, &opened, &mut asker, &pool, &cancel, *task, problems)? else {
            return Ok(ExitCode::from(INTERRUPTED));
        };
        tokens_all += tokens;
        all.extend(summaries(&solved));
        solved_all.extend(solved);
    }
    if args.audit {
        let mut audit = Audit::default();
        audit.look_at(&solved_all);
        note(audit.text().trim_end());
        for (finding, (_, examples)) in &audit.found {
            for (question, written) in examples {
                note(&format!("{finding}: {question}\n{written}"));
            }
        }
    }
    let bits = match &args.text {
        Some(path) => Some(bits(&args, &opened, &pool, path, &cancel)?),
        None => None,
    };
    if matches!(bits, Some(None)) {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let done = Done { all, solved: solved_all, bits: bits.flatten(), tokens: tokens_all, started };
    show(&args, &done)?;
    Ok(ExitCode::SUCCESS)
}

/// A task's problems with their samples and the tokens of these; `None` if Ctrl-C ended it.
fn solve(
    args: &Args,
    opened: &Opened,
    asker: &mut Asker,
    pool: &kernels::pool::Pool,
    cancel: &AtomicBool,
    task: Task,
    problems: &[Problem],
) -> anyhow::Result<Option<(Vec<Solved>, usize)>> {
    let jobs = asker.jobs(task, problems)?;
    let mut engine = engine(args, opened, pool, &jobs)?;
    let mut progress = Progress::new();
    let outputs = run_jobs(&mut engine, &jobs, args.at_once, &mut |done, tokens| {
        progress.show(&format!("{}: {done} of {} samples, {tokens} tokens", task.name(), jobs.len()));
        !cancel.load(Ordering::Relaxed)
    });
    progress.clear();
    let outputs = match outputs {
        Err(RunError::Stopped) => return Ok(None),
        outputs => outputs.with_context(|| format!("{}, {}", opened.path.display(), task.name()))?,
    };
    let tokens = outputs.iter().map(|output| output.said().len()).sum();
    let samples = outputs.chunks(args.samples).zip(problems);
    let solved = samples.map(|(outputs, problem)| asker.solved(problem.clone(), outputs));
    Ok(Some((solved.collect::<anyhow::Result<_>>()?, tokens)))
}

/// The tasks at each limit on reasoning: the curve behind a slider of thinking.
fn over_budgets(
    args: &Args,
    opened: &Opened,
    asker: &mut Asker,
    pool: &kernels::pool::Pool,
    cancel: &AtomicBool,
    tasks: &[(Task, Vec<Problem>)],
) -> anyhow::Result<ExitCode> {
    let name = "</think>";
    let Some(close) = opened.tokenizer()?.id(name) else {
        bail!("{}: the tokenizer has no token {name}; --budgets is for models that reason", opened.path.display());
    };
    let mut found = Vec::new();
    for &budget in &args.budgets {
        asker.thinking = Some((budget, close));
        let mut all = Vec::new();
        for (task, problems) in tasks {
            let Some((solved, _)) = solve(args, opened, asker, pool, cancel, *task, problems)? else {
                return Ok(ExitCode::from(INTERRUPTED));
            };
            all.extend(summaries(&solved));
        }
        if !args.json {
            print(&format!("{budget} tokens of reasoning\n{}\n", report::table(&all)))?;
        }
        found.push(json!({ "budget": budget, "tasks": report::as_json(&all) }));
    }
    if args.json {
        print(&format!("{}\n", json!({ "model": args.model, "seed": args.seed, "budgets": found })))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The tasks with their problems; everything that can be wrong with the arguments is found before the model is opened.
fn tasks(args: &Args) -> anyhow::Result<Vec<(Task, Vec<Problem>)>> {
    for (name, value, limit) in [
        ("--problems", args.problems, COUNT_MAX),
        ("--samples", args.samples, COUNT_MAX),
        ("--at-once", args.at_once, AT_ONCE_MAX),
        ("--max-tokens", args.max_tokens, COUNT_MAX),
    ] {
        if value == 0 || value > limit {
            bail!("{name} is {value}; it must be from 1 to {limit}");
        }
    }
    if let Some(budget) = args.budgets.iter().find(|&&budget| budget >= args.max_tokens) {
        bail!("--budgets has {budget}; each must be below --max-tokens {}: the answer needs room", args.max_tokens);
    }
    if !args.budgets.is_empty() && (args.text.is_some() || args.plot.is_some() || args.keep.is_some()) {
        bail!("--budgets goes with neither --text nor --plot nor --keep");
    }
    if args.problems.saturating_mul(args.samples) > COUNT_MAX {
        bail!("--problems {} times --samples {} is over {COUNT_MAX}", args.problems, args.samples);
    }
    let mut tasks = Vec::new();
    for name in args.tasks.iter().filter(|name| name.as_str() != "none") {
        let Some(task) = Task::of_name(name.trim()) else {
            let known: Vec<&str> = Task::all().into_iter().map(Task::name).collect();
            bail!("there is no task {name:?}; known are: {}", known.join(", "));
        };
        let mut problems = match (&args.data, task.needs_file()) {
            (_, false) => task.problems(args.seed, args.problems, Split::HeldOut),
            (Some(path), true) => read_problems(task, path)?,
            (None, true) => bail!("the task {name} reads its problems from a file; give it with --data"),
        };
        problems.truncate(args.problems);
        if problems.is_empty() {
            bail!("the task {name} has no problems");
        }
        tasks.push((task, problems));
    }
    Ok(tasks)
}

/// From problems to prompts, and from tokens to grades.
struct Asker<'a> {
    args: &'a Args,
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    variables: Map<String, Value>,
    sampling: Sampling,
    format: ReasoningFormat,
    /// The most tokens of reasoning, and the token that closes it.
    thinking: Option<(usize, u32)>,
    /// Where a task asks for programs.
    sandbox: Option<Sandbox>,
}

impl<'a> Asker<'a> {
    fn new(args: &'a Args, opened: &'a Opened) -> anyhow::Result<Asker<'a>> {
        let tokenizer = opened.tokenizer()?;
        let template = opened.template()?;
        if template.is_none() {
            note("note: the model has no chat template; it goes on with `Question: ..` and `Answer:`");
        }
        let temperature = args.temperature.unwrap_or(if args.samples > 1 { 1.0 } else { 0.0 });
        let sampling = Sampling { temperature, top_p: args.top_p, ..Sampling::default() };
        sampling.check(opened.model.spec.vocab).context("these sampling settings cannot be used")?;
        let variables = thinking(args.think.think, tokenizer);
        let programs = args.tasks.iter().any(|name| name.trim() == Task::HumanEval.name());
        let sandbox = if programs { Some(Sandbox::open()?) } else { None };
        Ok(Asker {
            args,
            tokenizer,
            template,
            variables,
            sampling,
            format: ReasoningFormat::think(false),
            thinking: None,
            sandbox,
        })
    }

    /// One job for each sample of each problem.
    fn jobs(&mut self, task: Task, problems: &[Problem]) -> anyhow::Result<Vec<Job>> {
        let mut jobs = Vec::with_capacity(problems.len() * self.args.samples);
        for (at, problem) in problems.iter().enumerate() {
            let prompt = self.prompt(task, problem)?;
            for sample in 0..self.args.samples {
                let seed = sample_seed(self.args.seed, at, sample);
                jobs.push(Job {
                    prompt: prompt.clone(),
                    sampling: Sampling { seed, ..self.sampling.clone() },
                    max_tokens: self.args.max_tokens,
                    stop_tokens: self.tokenizer.eos_ids().to_vec(),
                    thinking: self.thinking,
                });
            }
        }
        Ok(jobs)
    }

    fn prompt(&mut self, task: Task, problem: &Problem) -> anyhow::Result<Vec<u32>> {
        let mut question = problem.question.clone();
        if self.args.instruct {
            question.push('\n');
            question.push_str(task.instruction());
        }
        let Some(template) = &self.template else {
            let mut tokens = self.tokenizer.encode(&format!("Question: {question}\nAnswer:"))?;
            if let Some(bos) = self.tokenizer.bos_id().filter(|_| self.tokenizer.add_bos()) {
                tokens.insert(0, bos);
            }
            return Ok(tokens);
        };
        let messages = [json!({"role": "user", "content": question})];
        let segments = template.render_segments(&chat_input(self.tokenizer, &messages, &self.variables))?;
        let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
        let channels = ["<|channel|>", "<|message|>"].iter().all(|marker| self.tokenizer.id(marker).is_some());
        self.format = if channels {
            ReasoningFormat::Channels { starts_in_header: text.ends_with("<|start|>assistant") }
        } else {
            ReasoningFormat::think_after(&text)
        };
        Ok(self.tokenizer.encode_segments(&segments)?)
    }

    fn solved(&self, problem: Problem, outputs: &[eval::runner::Output]) -> anyhow::Result<Solved> {
        let grade = |output| grade_output(&problem, output, self.tokenizer, &self.format);
        let mut samples: Vec<_> = outputs.iter().map(grade).collect();
        if let Some(sandbox) = &self.sandbox {
            samples.iter_mut().try_for_each(|sample| grade_program(sandbox, &problem, sample))?;
        }
        Ok(Solved { problem, samples })
    }
}

/// An engine with room for the longest of the jobs, as often as they run together.
fn engine<'a>(
    args: &Args,
    opened: &'a Opened,
    pool: &'a kernels::pool::Pool,
    jobs: &[Job],
) -> anyhow::Result<Engine<ModelCompute<'a>>> {
    let spec = &opened.model.spec;
    let longest = jobs.iter().map(|job| job.prompt.len()).max().unwrap_or(0);
    let context = (longest + args.max_tokens).min(args.machine.context.unwrap_or(spec.context)).min(spec.context);
    if longest >= context {
        bail!("a prompt has {longest} tokens and the context holds {context}; nothing is left for an answer");
    }
    let at_once = args.at_once.min(jobs.len());
    let pages = Cache::pages_for(context) * at_once;
    let format = args.machine.cache.format();
    let bytes = pages as u64 * Cache::page_bytes(spec, format) as u64;
    if let Some(available) = kernels::measure::Memory::read().available_bytes
        && bytes > available
    {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        let (needs, has) = (gib(bytes), gib(available));
        bail!(
            "the cache of {at_once} samples takes {needs:.1} GiB and {has:.1} GiB are free; a smaller --at-once fits"
        );
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
    Ok(Engine::new(ModelCompute::new(&opened.model, pool, pages, format), limits))
}

/// How well the model predicts a text file; `None` if Ctrl-C ended it.
fn bits(
    args: &Args,
    opened: &Opened,
    pool: &kernels::pool::Pool,
    path: &Path,
    cancel: &AtomicBool,
) -> anyhow::Result<Option<Bits>> {
    let bytes = std::fs::metadata(path).map(|metadata| metadata.len());
    if bytes.with_context(|| format!("{}: cannot be opened", path.display()))? > TEXT_BYTES_MAX {
        bail!("{}: larger than {TEXT_BYTES_MAX} bytes", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let tokenizer = opened.tokenizer()?;
    let tokens = tokenizer.encode(&text)?;
    let Some(start) = tokenizer.bos_id().or_else(|| tokenizer.eos_ids().first().copied()) else {
        bail!("{}: the tokenizer names no token with which a text begins", opened.path.display());
    };
    if tokens.is_empty() {
        bail!("{}: there is no text in it", path.display());
    }
    let context = args.machine.context(opened)?;
    let mut session = Session::new(&opened.model, pool, context, args.machine.cache.format());
    let mut progress = Progress::new();
    let bits = bits_of_text(&mut session, start, &tokens, text.len(), &mut |done| {
        progress.show(&format!("{}: {done} of {} tokens", path.display(), tokens.len()));
        !cancel.load(Ordering::Relaxed)
    });
    progress.clear();
    bits.with_context(|| opened.path.display().to_string())
}

/// What a run found.
struct Done {
    all: Vec<eval::runner::Summary>,
    solved: Vec<Solved>,
    bits: Option<Bits>,
    tokens: usize,
    started: Instant,
}

fn show(args: &Args, done: &Done) -> anyhow::Result<()> {
    if let Some(path) = &args.plot {
        let svg = report::chart(&args.model, &done.all);
        whole_file::write(path, |file| file.write_all(svg.as_bytes()))?;
    }
    if let Some(path) = &args.keep {
        keep(path, &done.solved)?;
    }
    let (tokens, seconds) = (done.tokens, done.started.elapsed().as_secs_f64());
    if args.json {
        let text = done.bits.map(|bits| {
            let (per_byte, perplexity) = (bits.per_byte(), bits.perplexity());
            json!({ "bytes": bits.bytes, "tokens": bits.tokens, "bits_per_byte": per_byte, "perplexity": perplexity })
        });
        let tasks = report::as_json(&done.all);
        let figures = json!({
            "model": args.model,
            "seed": args.seed,
            "tasks": tasks,
            "text": text,
            "tokens": tokens,
            "seconds": seconds,
        });
        return Ok(print(&format!("{figures}\n"))?);
    }
    if !done.all.is_empty() {
        print(&report::table(&done.all))?;
        note(&format!("{tokens} tokens in {seconds:.1} s; seed {}", args.seed));
    }
    if let Some(bits) = done.bits {
        let (per_byte, perplexity) = (bits.per_byte(), bits.perplexity());
        let (bytes, tokens) = (bits.bytes, bits.tokens);
        print(&format!("{per_byte:.4} bits per byte, perplexity {perplexity:.3} ({bytes} bytes, {tokens} tokens)\n"))?;
    }
    Ok(())
}

fn keep(path: &Path, solved: &[Solved]) -> anyhow::Result<()> {
    whole_file::write(path, |file| {
        let mut file = std::io::BufWriter::new(file);
        for one in solved {
            for sample in &one.samples {
                let line = json!({
                    "task": one.problem.task,
                    "level": one.problem.level,
                    "question": one.problem.question,
                    "written": sample.written,
                    "correct": sample.grade.correct,
                    "format_ok": sample.grade.format_ok,
                    "reason": sample.grade.reason.to_string(),
                    "tokens": sample.tokens,
                    "stopped": sample.stopped,
                });
                writeln!(file, "{line}")?;
            }
        }
        file.flush()
    })
}
