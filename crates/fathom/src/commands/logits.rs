//! `fathom logits`: what a model says of given tokens, for comparing with other implementations.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use engine::session::Session;
use kernels::attention::CacheFormat;
use model::forward::Arithmetic;
use model::load::Model;
use safetensors::tensor::{Dtype, TensorView};

use crate::opened::resolve;

/// Compute the logits after each of some tokens, in f32
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Reads a JSON list of token numbers; writes a safetensors file with `logits`, f32, [tokens, vocabulary].")]
pub(crate) struct Args {
    /// A directory, a .gguf file, or the name of a pulled model
    model: String,

    /// File with the tokens
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,

    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Tokens computed at once (the result does not depend on it)
    #[arg(long, value_name = "TOKENS", default_value_t = engine::session::CHUNK_LEN)]
    chunk: usize,

    /// How latent attention computes (DeepSeek): the same up to rounding
    #[arg(long, value_name = "KIND", default_value = "absorbed")]
    arithmetic: ArithmeticArg,

    /// Threads; all processors if not given (the result does not depend on it)
    #[arg(long, env = "FATHOM_THREADS", value_name = "N")]
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
    let model = Model::open(&resolve(&args.model)?)?;
    let pool = crate::options::pool(args.threads)?;
    let mut session = Session::new(&model, &pool, tokens.len(), CacheFormat::F32);
    session.set_arithmetic(match args.arithmetic {
        ArithmeticArg::Absorbed => Arithmetic::Absorbed,
        ArithmeticArg::Expanded => Arithmetic::Expanded,
    });
    let mut bytes = Vec::new();
    for chunk in tokens.chunks(args.chunk) {
        let logits = session.logits(chunk)?;
        bytes.extend(logits.iter().flat_map(|v| v.to_le_bytes()));
    }
    let shape = vec![tokens.len(), model.spec.vocab];
    let view = TensorView::new(Dtype::F32, shape, &bytes)?;
    safetensors::serialize_to_file(HashMap::from([("logits", view)]), None, &args.out)
        .with_context(|| format!("{}: cannot be written", args.out.display()))
}
