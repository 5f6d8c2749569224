//! `fathom describe`: what a model is.

use std::collections::BTreeMap;
use std::path::Path;

use kernels::attention::CacheFormat;
use model::cache::Cache;
use model::checkpoint::Checkpoint;
use model::load::Model;
use model::parameters::Place;
use model::spec::ModelSpec;

use crate::opened::{checkpoint, spec_of_config};
use crate::terminal::print;

/// Show what a model is: layers, attention, experts, parameters, memory
#[derive(clap::Args, Debug)]
#[command(after_help = "\
How to read a layer: `mla(128h q1536 kv512 128+64/128 ..)  moe(256 x 2048 top8 ..)` is latent attention with 128 heads \
whose cache is 512 + 64 numbers a token, and 256 experts, 2048 wide, of which each token asks 8.")]
pub(crate) struct Args {
    /// A directory, a .gguf file, the name of a pulled model, or a config.json alone
    model: String,

    /// List every parameter with its shape
    #[arg(long)]
    parameters: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mut text = String::new();
    let spec = if let Some(spec) = spec_of_config(Path::new(&args.model))? {
        text += &spec.describe();
        spec
    } else {
        let (_, checkpoint) = checkpoint(&args.model)?;
        let model = Model::from_checkpoint(&checkpoint)?;
        text += &model.spec.describe();
        text += &row("stored", &storage(&checkpoint));
        model.notices.iter().for_each(|notice| text += &row("note", notice));
        model.spec
    };
    text += &row("memory", &memory(&spec));
    if args.parameters {
        for parameter in spec.parameters() {
            let place = match parameter.slot.place {
                Place::Model => "model".to_string(),
                Place::Block(l) => format!("layer {l}"),
                Place::Mtp(i) => format!("mtp {i}"),
            };
            let expert = parameter.slot.expert.map_or_else(String::new, |e| format!(" expert {e}"));
            text += &format!("{place}{expert} {:?} {:?}\n", parameter.slot.part, parameter.shape);
        }
    }
    Ok(print(&text)?)
}

fn row(label: &str, value: &str) -> String {
    format!("{label:<12}{value}\n")
}

/// Bytes by storage format.
fn storage(checkpoint: &Checkpoint) -> String {
    let mut formats: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for tensor in checkpoint.tensors.iter() {
        let (count, bytes) = formats.entry(tensor.dtype.name()).or_default();
        *count += 1;
        *bytes += tensor.data.len();
    }
    let total: usize = formats.values().map(|(_, bytes)| bytes).sum();
    let mut parts: Vec<_> = formats.into_iter().collect();
    parts.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let list: Vec<String> = parts
        .iter()
        .map(|(name, (count, bytes))| format!("{name} {} in {}", size(*bytes), counted(*count, "tensor")))
        .collect();
    format!("{} in {}: {}", size(total), counted(checkpoint.files.len(), "file"), list.join(", "))
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// What the cache of a usual context takes.
fn memory(spec: &ModelSpec) -> String {
    let bytes = |tokens: usize, format| Cache::pages_for(tokens) * Cache::page_bytes(spec, format);
    let tokens = spec.context.min(32_768);
    format!(
        "cache of {tokens} tokens: {} in f32, {} in bf16, {} in int8",
        size(bytes(tokens, CacheFormat::F32)),
        size(bytes(tokens, CacheFormat::BF16)),
        size(bytes(tokens, CacheFormat::Int8))
    )
}

fn size(bytes: usize) -> String {
    let (kib, bytes) = (1024.0, bytes as f64);
    match bytes {
        b if b < kib => format!("{b:.0} bytes"),
        b if b < kib * kib => format!("{:.1} KiB", b / kib),
        b if b < kib * kib * kib => format!("{:.1} MiB", b / kib / kib),
        b => format!("{:.2} GiB", b / kib / kib / kib),
    }
}
