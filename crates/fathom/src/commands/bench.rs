//! `fathom bench`: how fast a model runs here, and how far that is from what the machine can do.
//!
//! Each line is one measurement: decoding (one new token of each sequence) or reading a prompt, at a
//! depth, with a number of threads. What it must read and compute at least is counted from the model
//! (`model::cost`), and what memory and arithmetic allow is measured with as many threads, arithmetic
//! before the first line, memory before and after each one (on a shared machine it changes from minute
//! to minute, by half); the larger of the two times is the limit, and a line says which share of it was
//! reached. The tokens before a depth are not computed: the cache is filled with noise, which is as
//! slow to read. Best and median of several runs are told; the share is of the best, as the limits are.

mod figures;
mod plot;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use engine::session::CHUNK_LEN;
use kernels::attention::{CacheFormat, Chunk};
use kernels::measure::{Machine, Memory, ReadBandwidth, Spread, ThreadLimits, Topology, read_bandwidth, topology};
use kernels::pool::Pool;
use model::cache::Cache;
use model::cost::Work;
use model::forward::{Activations, Batch, Runner};
use model::load::Model;

use crate::opened::checkpoint;
use crate::options::{CacheArg, inputs};
use crate::terminal::{Progress, note, print};
use crate::whole_file;
use figures::{Figures, Kind, Line};

/// Measure how fast a model runs, and which share of this machine's limits that is
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Measures best when nothing else runs. A list is given as 1,2,3; every combination is measured.

Examples:
  fathom bench model.gguf
  fathom bench model.gguf --prompt 64,512,2048 --depth 0,512,4096 --batch 1,4 --threads 1,2 --plot speed.svg

Columns: best tokens per second of all sequences together, median in brackets; bytes read and operations done for a \
token, at least; the limit, memory or arithmetic, as tokens per second; the share of it that was reached. Products \
with quantised weights count against the int8 peak, with bf16 weights against the bf16 peak, all else against f32.")]
pub(crate) struct Args {
    /// A directory, a .gguf file, or the name of a pulled model
    model: String,

    /// Prompts of so many tokens; 0 measures none
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "512")]
    prompt: Vec<usize>,

    /// Tokens that are in the cache before [default: 0,4096, as far as the model's context goes]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    depth: Vec<usize>,

    /// Sequences that are decoded at once; 0 measures no decoding
    #[arg(long, value_name = "SEQUENCES", value_delimiter = ',', default_value = "1")]
    batch: Vec<usize>,

    /// Threads [default: all processors]
    #[arg(long, env = "FATHOM_THREADS", hide_env_values = true, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,

    /// How the cache is stored
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32", hide_possible_values = true)]
    cache: CacheArg,

    /// Read weights as floats and multiply in floats
    #[arg(long)]
    exact: bool,

    /// How long each line is measured; a prompt is read at least once and a token decoded five times
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Also draw speed over depth into this file
    #[arg(long, value_name = "OUT.svg")]
    plot: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let (path, checkpoint) = checkpoint(&args.model)?;
    let mut model = Model::from_checkpoint(&checkpoint)?;
    model.weights.set_inputs(inputs(args.exact));
    model.notices.iter().for_each(|notice| note(&format!("note: {notice}")));
    let plan = Plan::new(&args, &model)?;
    let mut progress = Progress::new();
    progress.show("measuring the limits of this machine");
    let machine = Machine::read();
    let limits: Result<Vec<_>, _> = plan.threads.iter().map(|&n| ThreadLimits::measure(&machine, n)).collect();
    let mut figures = Figures {
        model: path.file_name().map_or_else(|| args.model.clone(), |name| name.to_string_lossy().into_owned()),
        family: model.spec.family,
        counts: model.spec.counts(),
        format: plan.format,
        machine,
        limits: limits.context("cannot measure this machine")?,
        topology_before: topology(),
        topology_after: None,
        lines: Vec::new(),
    };
    progress.clear();
    if !args.json {
        print(&figures.heading())?;
    }
    measure_all(&plan, &model, &mut figures, &mut progress, |line| if args.json { Ok(()) } else { print(line) })?;
    figures.topology_after = topology();
    print(&if args.json { format!("{}\n", figures.as_json()) } else { figures.closing() })?;
    if let Some(path) = &args.plot {
        let drawing = plot::draw(&figures);
        whole_file::write(path, |file| std::io::Write::write_all(file, drawing.as_bytes()))?;
    }
    Ok(())
}

/// What is measured, checked.
struct Plan {
    prompts: Vec<usize>,
    depths: Vec<usize>,
    batches: Vec<usize>,
    threads: Vec<usize>,
    format: CacheFormat,
    time: Duration,
}

impl Plan {
    fn new(args: &Args, model: &Model) -> anyhow::Result<Plan> {
        let context = model.spec.context;
        let listed = |list: &[usize]| {
            let mut list: Vec<usize> = list.to_vec();
            list.sort_unstable();
            list.dedup();
            list
        };
        let without_zero = |list: &[usize]| listed(list).into_iter().filter(|&n| n > 0).collect::<Vec<_>>();
        let (prompts, batches) = (without_zero(&args.prompt), without_zero(&args.batch));
        let longest = prompts.last().copied().unwrap_or(0).max(usize::from(!batches.is_empty()));
        if longest == 0 {
            bail!("--prompt and --batch are both 0; there is nothing to measure");
        }
        let depths = match listed(&args.depth) {
            given if !given.is_empty() => given,
            _ => [0, 4096].into_iter().filter(|&depth| depth == 0 || depth + longest <= context).collect(),
        };
        let deepest = depths.last().copied().unwrap_or(0);
        if deepest.saturating_add(longest) > context {
            bail!("{longest} tokens at depth {deepest} are more than the {context} that the model was made for");
        }
        let threads = match listed(&args.threads) {
            given if !given.is_empty() => given,
            _ => vec![std::thread::available_parallelism().map_or(1, |n| n.get())],
        };
        if let Some(&wrong) = threads.iter().find(|&&n| !(1..=1024).contains(&n)) {
            bail!("--threads is {wrong}; it must be between 1 and 1024");
        }
        if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
            bail!("--seconds is {}; it must be more than 0 and at most 3600", args.seconds);
        }
        // Said before the measuring and not after it.
        if let Some(path) = &args.plot
            && path.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && !parent.is_dir())
        {
            bail!("{}: cannot be written: there is no such directory", path.display());
        }
        let time = Duration::from_secs_f64(args.seconds);
        let plan = Plan { prompts, depths, batches, threads, format: args.cache.format(), time };
        plan.check_memory(model)?;
        Ok(plan)
    }

    /// Pages of one sequence: the greatest depth and what is computed there.
    fn pages(&self) -> usize {
        let new = self.prompts.last().copied().unwrap_or(0).max(1);
        Cache::pages_for(self.depths.last().copied().unwrap_or(0) + new)
    }

    /// Sequences that the cache has room for.
    fn sequences(&self) -> usize {
        self.batches.last().copied().unwrap_or(1)
    }

    fn check_memory(&self, model: &Model) -> anyhow::Result<()> {
        let page_bytes = Cache::page_bytes(&model.spec, self.format);
        let bytes = self.pages().saturating_mul(self.sequences()).saturating_mul(page_bytes);
        let available = Memory::read().available_bytes.unwrap_or(u64::MAX);
        if bytes as u64 > available || self.pages().saturating_mul(self.sequences()) > u32::MAX as usize {
            let gib = |n: u64| n as f64 / (1u64 << 30) as f64;
            bail!(
                "the cache of {} sequences of {} tokens takes {:.1} GiB and {:.1} GiB of memory are free; a smaller \
                 --depth, --batch or --cache int8 takes less",
                self.sequences(),
                self.pages() * kernels::attention::PAGE_LEN,
                gib(bytes as u64),
                gib(available)
            );
        }
        Ok(())
    }

    /// Every measurement: threads, depth, kind.
    fn lines(&self) -> Vec<(usize, usize, Kind)> {
        let kinds: Vec<Kind> = self
            .batches
            .iter()
            .map(|&batch| Kind::Decode { batch })
            .chain(self.prompts.iter().map(|&prompt| Kind::Prompt { prompt }))
            .collect();
        let mut lines = Vec::new();
        for &threads in &self.threads {
            for &kind in &kinds {
                lines.extend(self.depths.iter().map(|&depth| (threads, depth, kind)));
            }
        }
        lines
    }
}

/// Measures every line of the plan and hands it on as text.
fn measure_all(
    plan: &Plan,
    model: &Model,
    figures: &mut Figures,
    progress: &mut Progress,
    mut show: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    progress.show("reading the model");
    let mut cache = Cache::new(&model.spec, plan.format, plan.pages() * plan.sequences());
    cache.fill_with_noise();
    let (mut acts, lines) = (Activations::default(), plan.lines());
    let mut pool = Pool::new(plan.threads[0]);
    for (number, &(threads, depth, kind)) in lines.iter().enumerate() {
        if pool.threads() != threads {
            pool = Pool::new(threads);
        }
        let mut stand = Stand { runner: Runner::new(model, &pool), cache: &mut cache, acts: &mut acts, plan, token: 0 };
        if number == 0 {
            // The first use of a weight waits for the file.
            stand.prompt(0, 64.min(plan.pages() * kernels::attention::PAGE_LEN));
        }
        progress.show(&format!(
            "measuring {} at depth {depth} with {}: line {} of {}",
            kind.text(),
            super::doctor::threads(threads),
            number + 1,
            lines.len()
        ));
        let before = memory_now(&figures.machine, threads)?;
        let tokens_per_s = stand.measure(kind, depth);
        let after = memory_now(&figures.machine, threads)?;
        let work = kind.work(depth, plan.format);
        let limits = figures.limits.iter().find(|limits| limits.threads == threads).context("limits of every plan")?;
        let read = if before.gb_per_s.best > after.gb_per_s.best { before } else { after };
        let limits = ThreadLimits { read, ..limits.clone() };
        let line = Line::new(kind, threads, depth, tokens_per_s, model.cost(&work), &limits);
        progress.clear();
        show(&line.as_text())?;
        figures.lines.push(line);
    }
    Ok(())
}

/// How fast memory is read at this moment.
fn memory_now(machine: &Machine, threads: usize) -> anyhow::Result<ReadBandwidth> {
    let [read] = read_bandwidth(machine, [threads]).context("cannot measure this machine's memory")?;
    Ok(read)
}

/// A model with everything that a measurement needs.
struct Stand<'a> {
    runner: Runner<'a>,
    cache: &'a mut Cache,
    acts: &'a mut Activations,
    plan: &'a Plan,
    token: u32,
}

impl Stand<'_> {
    /// Tokens per second of all sequences together, run after run.
    fn measure(&mut self, kind: Kind, depth: usize) -> Spread {
        const RUNS_MAX: usize = 2000;
        let (tokens, runs_min) = match kind {
            Kind::Decode { batch } => (batch, 5),
            Kind::Prompt { prompt } => (prompt, 1),
        };
        if let Kind::Decode { batch } = kind {
            self.decode(depth, batch); // buffers grow, threads wake
        }
        let mut rates = Vec::new();
        let begin = Instant::now();
        while rates.len() < runs_min || (rates.len() < RUNS_MAX && begin.elapsed() < self.plan.time) {
            let start = Instant::now();
            match kind {
                Kind::Decode { batch } => self.decode(depth, batch),
                Kind::Prompt { prompt } => self.prompt(depth, prompt),
            }
            rates.push(tokens as f64 / start.elapsed().as_secs_f64());
        }
        Spread::of(rates).expect("at least one run")
    }

    /// One token of each sequence, with logits.
    fn decode(&mut self, depth: usize, batch: usize) {
        let pages: Vec<Vec<u32>> = (0..batch).map(|sequence| self.pages(sequence)).collect();
        let chunks: Vec<Chunk> = pages
            .iter()
            .enumerate()
            .map(|(row, pages)| Chunk { first_row: row, rows: 1, position: depth, pages })
            .collect();
        let tokens = self.tokens(batch);
        let wanted: Vec<usize> = (0..batch).collect();
        self.forward(&tokens, &chunks, &wanted);
    }

    /// A prompt in the chunks of a session, with the logits of its last token.
    fn prompt(&mut self, depth: usize, prompt: usize) {
        let pages = self.pages(0);
        let tokens = self.tokens(prompt);
        for (i, part) in tokens.chunks(CHUNK_LEN).enumerate() {
            let first = i * CHUNK_LEN;
            let chunk = Chunk { first_row: 0, rows: part.len(), position: depth + first, pages: &pages };
            let last = [part.len() - 1];
            let wanted: &[usize] = if first + part.len() == prompt { &last } else { &[] };
            self.forward(part, &[chunk], wanted);
        }
    }

    fn forward(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) {
        let logits = self.runner.forward(&Batch { tokens, chunks }, self.cache, self.acts, wanted);
        std::hint::black_box(logits);
    }

    fn pages(&self, sequence: usize) -> Vec<u32> {
        let each = self.plan.pages();
        (sequence * each..(sequence + 1) * each).map(|page| page as u32).collect()
    }

    /// Tokens all over the vocabulary, others each time: experts are chosen as in real use.
    fn tokens(&mut self, count: usize) -> Vec<u32> {
        let vocab = self.runner.model().spec.vocab as u64;
        let mut next = || {
            self.token = self.token.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            ((u64::from(self.token) * vocab) >> 32) as u32
        };
        (0..count).map(|_| next()).collect()
    }
}

impl Kind {
    /// What one run computes.
    fn work(self, depth: usize, cache: CacheFormat) -> Work {
        match self {
            Kind::Decode { batch } => Work { sequences: batch, tokens: 1, depth, logits: batch, cache },
            Kind::Prompt { prompt } => Work { sequences: 1, tokens: prompt, depth, logits: 1, cache },
        }
    }
}

/// Whether the first two processors are two cores.
fn topology_words(topology: Option<Topology>) -> String {
    topology.map_or("unknown".to_string(), super::doctor::topology_text)
}
