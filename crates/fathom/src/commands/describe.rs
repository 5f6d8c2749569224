//! `fathom describe`: what a model is.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use kernels::attention::CacheFormat;
use model::cache::Cache;
use model::checkpoint::Checkpoint;
use model::families::read_config;
use model::load::Model;
use model::parameters::Place;
use model::spec::ModelSpec;

use crate::opened::resolve;

/// Show what a model is: layers, attention, experts, parameters, memory
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A directory, a .gguf file, the name of a pulled model, or a config.json alone
    model: String,

    /// List every parameter with its shape
    #[arg(long)]
    parameters: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let path = resolve(&args.model)?;
    let spec = if path.is_file() && path.extension().is_some_and(|e| e == "json") {
        let spec = from_config(&path)?;
        print!("{}", spec.describe());
        spec
    } else {
        let checkpoint = Checkpoint::open(&path)?;
        let model = Model::from_checkpoint(&checkpoint)?;
        print!("{}", model.spec.describe());
        print_storage(&checkpoint);
        model.notices.iter().for_each(|notice| println!("{:<12}{notice}", "note"));
        model.spec
    };
    print_cache(&spec);
    if args.parameters {
        for parameter in spec.parameters() {
            let place = match parameter.slot.place {
                Place::Model => "model".to_string(),
                Place::Block(l) => format!("layer {l}"),
                Place::Mtp(i) => format!("mtp {i}"),
            };
            let expert = parameter.slot.expert.map_or_else(String::new, |e| format!(" expert {e}"));
            println!("{place}{expert} {:?} {:?}", parameter.slot.part, parameter.shape);
        }
    }
    Ok(())
}

fn from_config(path: &Path) -> anyhow::Result<ModelSpec> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let json = serde_json::from_slice(&bytes).with_context(|| format!("{}: is not valid JSON", path.display()))?;
    let (spec, _) = read_config(&json).with_context(|| path.display().to_string())?;
    Ok(spec)
}

/// Bytes by storage format.
fn print_storage(checkpoint: &Checkpoint) {
    let mut formats: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for tensor in checkpoint.tensors.iter() {
        let (count, bytes) = formats.entry(tensor.dtype.name()).or_default();
        *count += 1;
        *bytes += tensor.data.len();
    }
    let total: usize = formats.values().map(|(_, bytes)| bytes).sum();
    let mut parts: Vec<_> = formats.into_iter().collect();
    parts.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let list: Vec<String> =
        parts.iter().map(|(name, (count, bytes))| format!("{name} {} in {count} tensors", size(*bytes))).collect();
    println!("{:<12}{} in {} file(s): {}", "stored", size(total), checkpoint.files.len(), list.join(", "));
}

fn print_cache(spec: &ModelSpec) {
    let bytes = |tokens: usize, format| Cache::pages_for(tokens) * Cache::page_bytes(spec, format);
    let tokens = spec.context.min(32_768);
    println!(
        "{:<12}{} for {tokens} tokens in f32, {} in bf16",
        "memory",
        size(bytes(tokens, CacheFormat::F32)),
        size(bytes(tokens, CacheFormat::BF16))
    );
}

fn size(bytes: usize) -> String {
    let (kib, bytes) = (1024.0, bytes as f64);
    match bytes {
        b if b < kib * kib => format!("{:.1} KiB", b / kib),
        b if b < kib * kib * kib => format!("{:.1} MiB", b / kib / kib),
        b => format!("{:.2} GiB", b / kib / kib / kib),
    }
}
