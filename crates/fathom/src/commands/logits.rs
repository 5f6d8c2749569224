//! `fathom logits`: what a model says of given tokens, for comparing with other implementations.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use engine::session::Session;
use kernels::attention::CacheFormat;
use kernels::measure::Memory;
use model::cache::Cache;
use model::forward::Arithmetic;
use model::load::Model;
use safetensors::tensor::{Dtype, TensorView};

use crate::opened::checkpoint;
use crate::terminal::note;

/// Compute the logits after each of some tokens, in f32
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The file has one tensor, `logits`, f32, [tokens, vocabulary]: row i is what the model expects after token i.

Example:
  echo -n 'Once upon a time' | fathom tokenize ORG/NAME > tokens.json
  fathom logits ORG/NAME --tokens tokens.json --out logits.safetensors")]
pub(crate) struct Args {
    /// A directory, a .gguf file, or the name of a pulled model
    model: String,

    /// File with the tokens, a JSON list of numbers
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,

    /// File to write (safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Tokens computed at once (the result does not depend on it)
    #[arg(long, value_name = "TOKENS", default_value_t = engine::session::CHUNK_LEN)]
    chunk: usize,

    /// How latent attention (DeepSeek) computes; both say the same up to rounding
    #[arg(long, value_name = "absorbed|expanded", default_value = "absorbed", hide_possible_values = true)]
    arithmetic: ArithmeticArg,

    /// Threads [default: all processors] (the result does not depend on it)
    #[arg(long, env = "FATHOM_THREADS", hide_env_values = true, value_name = "N")]
    threads: Option<usize>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum ArithmeticArg {
    Absorbed,
    Expanded,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if args.chunk == 0 {
        bail!("--chunk is 0; it must be at least 1");
    }
    let name = args.tokens.display();
    let text = std::fs::read_to_string(&args.tokens).with_context(|| format!("{name}: cannot be read"))?;
    let tokens: Vec<u32> =
        serde_json::from_str(&text).with_context(|| format!("{name}: is not a JSON list of token numbers"))?;
    let model = Model::from_checkpoint(&checkpoint(&args.model)?.1)?;
    check(&tokens, &model).with_context(|| name.to_string())?;
    let pool = crate::options::pool(args.threads)?;
    let mut session = Session::new(&model, &pool, tokens.len(), CacheFormat::F32);
    session.set_arithmetic(match args.arithmetic {
        ArithmeticArg::Absorbed => Arithmetic::Absorbed,
        ArithmeticArg::Expanded => Arithmetic::Expanded,
    });
    let mut bytes = Vec::with_capacity(tokens.len() * model.spec.vocab * 4);
    for chunk in tokens.chunks(args.chunk) {
        let logits = session.logits(chunk)?;
        bytes.extend(logits.iter().flat_map(|v| v.to_le_bytes()));
    }
    let shape = vec![tokens.len(), model.spec.vocab];
    let view = TensorView::new(Dtype::F32, shape, &bytes)?;
    safetensors::serialize_to_file(HashMap::from([("logits", view)]), None, &args.out)
        .with_context(|| format!("{}: cannot be written", args.out.display()))
}

/// Everything that can be wrong with the tokens, before anything is computed.
fn check(tokens: &[u32], model: &Model) -> anyhow::Result<()> {
    let spec = &model.spec;
    if tokens.is_empty() {
        bail!("the list is empty; there is nothing to compute");
    }
    if let Some(at) = tokens.iter().position(|&token| token as usize >= spec.vocab) {
        bail!("[{at}] is token {}; the model has {}, numbered from 0", tokens[at], spec.vocab);
    }
    if tokens.len() > spec.context {
        note(&format!("note: {} tokens; the model was made for at most {}", tokens.len(), spec.context));
    }
    let cache = Cache::pages_for(tokens.len()).saturating_mul(Cache::page_bytes(spec, CacheFormat::F32));
    let logits = tokens.len().saturating_mul(spec.vocab).saturating_mul(4);
    let needed = cache.saturating_add(logits) as u64;
    if let Some(available) = Memory::read().available_bytes
        && needed > available
    {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        bail!(
            "cache and logits of {} tokens take {:.1} GiB and {:.1} GiB of memory are free; give fewer tokens",
            tokens.len(),
            gib(needed),
            gib(available)
        );
    }
    Ok(())
}
