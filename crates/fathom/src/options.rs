//! Flags that several commands share.

use anyhow::{Context, bail};
use engine::drafts::Drafts;
use engine::sampler::Sampling;
use kernels::attention::CacheFormat;
use kernels::pool::Pool;
use kernels::weight::Inputs;
use serde_json::{Map, Value, json};
use text::Tokenizer;

use crate::opened::Opened;
use crate::terminal::note;

/// How the machine is used.
#[derive(clap::Args, Debug)]
pub(crate) struct MachineArgs {
    /// Threads [default: all processors]; the answer does not depend on it
    #[arg(long, env = "FATHOM_THREADS", hide_env_values = true, value_name = "N", help_heading = "Machine")]
    pub(crate) threads: Option<usize>,

    /// Tokens that prompt and answer may have together [default: 8192, or the model's own limit if that is less]
    #[arg(long, value_name = "TOKENS", help_heading = "Machine")]
    pub(crate) context: Option<usize>,

    /// How the cache of earlier tokens is stored: f32 is exact, bf16 takes half the memory, int8 hardly more than a
    /// quarter
    #[arg(
        long,
        value_name = "f32|bf16|int8",
        default_value = "f32",
        hide_possible_values = true,
        help_heading = "Machine"
    )]
    pub(crate) cache: CacheArg,

    /// Read weights as floats and multiply in floats; several times slower than the usual integer products, whose
    /// inputs are rounded to 8 bits
    #[arg(long, help_heading = "Machine")]
    pub(crate) exact: bool,
}

/// The storage of the cache, as a flag.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(crate) enum CacheArg {
    F32,
    Bf16,
    Int8,
}

impl CacheArg {
    pub(crate) fn format(self) -> CacheFormat {
        match self {
            CacheArg::F32 => CacheFormat::F32,
            CacheArg::Bf16 => CacheFormat::BF16,
            CacheArg::Int8 => CacheFormat::Int8,
        }
    }
}

/// The arithmetic of matrix products, by the flag `--exact`.
pub(crate) fn inputs(exact: bool) -> Inputs {
    if exact { Inputs::Exact } else { Inputs::Int8 }
}

impl MachineArgs {
    pub(crate) fn pool(&self) -> anyhow::Result<Pool> {
        pool(self.threads)
    }

    /// The arithmetic of matrix products.
    pub(crate) fn inputs(&self) -> Inputs {
        inputs(self.exact)
    }

    /// The size of the context, checked against the model and against free memory.
    pub(crate) fn context(&self, opened: &Opened) -> anyhow::Result<usize> {
        const USUAL: usize = 8192;
        let spec = &opened.model.spec;
        let context = match self.context {
            Some(0) => bail!("--context is 0; it must be at least 1"),
            Some(n) if n > spec.context => {
                bail!("--context is {n}; the model was made for at most {}", spec.context)
            }
            Some(n) => n,
            None => spec.context.min(USUAL),
        };
        let format = self.cache.format();
        let bytes = model::cache::Cache::pages_for(context) * model::cache::Cache::page_bytes(spec, format);
        if let Some(available) = kernels::measure::Memory::read().available_bytes
            && bytes as u64 > available
        {
            let gib = |n: u64| n as f64 / (1u64 << 30) as f64;
            bail!(
                "the cache of {context} tokens takes {:.1} GiB and {:.1} GiB of memory are free; \
                 a smaller --context or --cache int8 takes less",
                gib(bytes as u64),
                gib(available)
            );
        }
        Ok(context)
    }
}

/// A pool of as many threads as asked for.
pub(crate) fn pool(threads: Option<usize>) -> anyhow::Result<Pool> {
    match threads {
        None => Ok(Pool::with_all_processors()),
        // More than a machine has: a typing mistake, and each thread takes memory.
        Some(n @ 1..=1024) => Ok(Pool::new(n)),
        Some(n) => bail!("--threads is {n}; it must be between 1 and 1024"),
    }
}

/// Whether next tokens are guessed at.
#[derive(clap::Args, Debug)]
pub(crate) struct DraftsArgs {
    /// Guess next tokens by looking up where the last ones occurred before, and check the guesses together: the answer
    /// is the same, and comes faster where text repeats itself. auto: while one or two answers are computed and three
    /// of four guesses are right; lookup: however many are computed, while half of the guesses are right
    #[arg(
        long,
        value_name = "auto|off|lookup",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Machine"
    )]
    drafts: DraftsArg,
}

/// Where drafts come from, as a flag.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum DraftsArg {
    Auto,
    Off,
    Lookup,
}

impl DraftsArgs {
    pub(crate) fn drafts(&self) -> Drafts {
        match self.drafts {
            DraftsArg::Auto => Drafts::AUTO,
            DraftsArg::Off => Drafts::Off,
            DraftsArg::Lookup => Drafts::ALWAYS,
        }
    }
}

/// A choice that a chat template knows.
#[derive(clap::Args, Debug)]
pub(crate) struct ThinkArgs {
    /// Ask a model that can do both to think first, or not to [default: as the model's template has it]
    #[arg(long, value_name = "yes|no", hide_possible_values = true)]
    pub(crate) think: Option<Switch>,
}

/// Yes or no.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Switch {
    Yes,
    No,
}

/// The variables by which published templates switch thinking; a note where this model's reads none of them.
pub(crate) fn thinking(switch: Option<Switch>, tokenizer: &Tokenizer) -> Map<String, Value> {
    let Some(switch) = switch else { return Map::new() };
    // Qwen3 reads the first, DeepSeek V3.1 the second.
    const NAMES: [&str; 2] = ["enable_thinking", "thinking"];
    let source = tokenizer.chat_template(None).unwrap_or_default();
    if !NAMES.iter().any(|name| source.contains(name)) {
        note("note: this model's template has no switch for thinking; it does as it was trained");
    }
    NAMES.iter().map(|name| (name.to_string(), json!(matches!(switch, Switch::Yes)))).collect()
}

/// How tokens are chosen.
#[derive(clap::Args, Debug)]
pub(crate) struct SamplingArgs {
    /// 0 takes the most likely token each time; higher is more varied [default: the model's own recommendation, else
    /// 0.6]
    #[arg(long, short = 't', value_name = "T", help_heading = "Sampling", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,

    /// Keep the K most likely tokens (0: all)
    #[arg(long, value_name = "K", help_heading = "Sampling")]
    pub(crate) top_k: Option<usize>,

    /// Keep the most likely tokens that together have this probability [default: the model's own, else 0.95]
    #[arg(long, value_name = "P", help_heading = "Sampling", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,

    /// Drop tokens less likely than this share of the most likely one
    #[arg(long, value_name = "P", help_heading = "Sampling", allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,

    /// Make tokens that have occurred less likely: their logits are divided by this (1: off)
    #[arg(long, value_name = "FACTOR", help_heading = "Sampling", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f32>,

    /// Make tokens of the answer less likely to occur again, from -2 to 2
    #[arg(long, value_name = "AMOUNT", help_heading = "Sampling", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,

    /// The same, for each time that they occurred
    #[arg(long, value_name = "AMOUNT", help_heading = "Sampling", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,

    /// Make a token (by its number) likelier, up to 100, or less likely, down to -100; may be repeated
    #[arg(long, value_name = "TOKEN=AMOUNT", value_parser = bias, help_heading = "Sampling")]
    pub(crate) logit_bias: Vec<(u32, f32)>,

    /// The same seed gives the same answer [default: from the clock, and shown with the answer]
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    pub(crate) seed: Option<u64>,

    /// Longest answer in tokens [default: what is left of the context]
    #[arg(long, short = 'n', value_name = "TOKENS", help_heading = "Sampling")]
    pub(crate) max_tokens: Option<usize>,

    /// End the answer before this text; may be repeated
    #[arg(long, value_name = "TEXT", help_heading = "Sampling")]
    pub(crate) stop: Vec<String>,
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let (token, amount) = text.split_once('=').ok_or("it must be TOKEN=AMOUNT, such as 42=-5")?;
    let token = token.trim().parse().map_err(|_| format!("{token:?} is not a token's number"))?;
    Ok((token, amount.trim().parse().map_err(|_| format!("{amount:?} is not a number"))?))
}

impl SamplingArgs {
    /// The settings: what was given, then what the model's files recommend, then R1's recommendation.
    pub(crate) fn settings(&self, opened: &Opened) -> anyhow::Result<Sampling> {
        if self.max_tokens == Some(0) {
            bail!("--max-tokens is 0; it must be at least 1");
        }
        let recommended = &opened.recommended;
        let plain = Sampling::default();
        let settings = Sampling {
            temperature: self.temperature.or(recommended.temperature).unwrap_or(0.6),
            top_k: self.top_k.or(recommended.top_k).unwrap_or(0),
            top_p: self.top_p.or(recommended.top_p).unwrap_or(0.95),
            min_p: self.min_p.or(recommended.min_p).unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.or(recommended.repetition_penalty).unwrap_or(1.0),
            presence_penalty: self.presence_penalty.unwrap_or(plain.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(plain.frequency_penalty),
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.unwrap_or_else(seed_of_the_clock),
        };
        settings.check(opened.model.spec.vocab).context("these sampling settings cannot be used")?;
        Ok(settings)
    }
}

fn seed_of_the_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Microseconds: short enough to be typed again.
    now.map_or(0, |d| d.as_micros() as u64 % 1_000_000_000)
}
