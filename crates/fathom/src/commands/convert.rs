//! `fathom convert`: a model as GGUF, in another format.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, bail};
use hub::progress::bytes_text;
use indicatif::{ProgressBar, ProgressStyle};
use model::convert::{Options, Progress, RECIPES, Recipe, Summary};

use crate::opened::checkpoint;
use crate::terminal::{note, print};

/// Write a model as GGUF, in any format: to make it smaller, or for another engine
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Formats, from large to small files (bits per weight):
  f32 (32)  bf16 f16 (16)          as they are; bf16 loses nothing of most published models
  q8_0 (8.5)                       hardly to be told from the original
  q6_k (6.6)  q5_k_m q5_k (5.5)    very close
  q4_k_m (4.9)  q4_k_s (4.6)       the usual choice; q4_k_m keeps more of what matters most
  iq4_nl (4.5)  iq4_xs (4.3)       four bits on a curve: a little better than q4_0
  q5_1 q5_0 q4_1 q4_0              simple blocks of 32, for any width
  mxfp4_moe                        experts in MXFP4 (gpt-oss' own format, kept as it is), the rest in q8_0
  mxfp4 (4.25)  q4_k (4.5)         one format for all matrices but the head
  q3_k_l q3_k_m q3_k (3.4)  q2_k   only where memory leaves no choice
The mixtures (_s, _m, _l, q2_k) give better formats to the matrices that need them, by llama.cpp's recipes. Norms,
biases and routers stay in f32. Matrices whose rows are not a multiple of a block get the nearest format that fits.

Examples:
  fathom convert deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --to q4_k_m r1-1.5b-q4_k_m.gguf
  fathom convert model-f16.gguf --to q8_0 model-q8_0.gguf")]
pub(crate) struct Args {
    /// A model that was pulled, a directory as Hugging Face has it, or a .gguf file
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,

    /// The file to write
    #[arg(value_name = "OUT.gguf")]
    pub(crate) out: PathBuf,

    /// The format of the weights (see below)
    #[arg(long, value_name = "FORMAT", value_parser = recipe)]
    pub(crate) to: Recipe,

    /// Give every matrix the same format, head and embedding included
    #[arg(long)]
    pub(crate) pure: bool,

    /// Leave the tokenizer out, if GGUF cannot say what it is
    #[arg(long)]
    pub(crate) without_tokenizer: bool,

    /// Replace OUT.gguf if it is there
    #[arg(long)]
    pub(crate) force: bool,
}

fn recipe(text: &str) -> Result<Recipe, String> {
    Recipe::parse(text).ok_or_else(|| {
        let names: Vec<&str> = RECIPES.iter().map(Recipe::name).collect();
        format!("known formats are {}", names.join(", "))
    })
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let out = args.out.display();
    if args.out.extension().is_none_or(|extension| extension != "gguf") {
        bail!("{out}: the file to write must be called NAME.gguf, or nothing will find it to be a model");
    }
    if !args.force && args.out.exists() {
        bail!("{out} is already there; --force replaces it");
    }
    let (_, checkpoint) = checkpoint(&args.model)?;
    let recipe = if args.pure { args.to.pure() } else { args.to };
    let options = Options { recipe, without_tokenizer: args.without_tokenizer };
    let bar = if std::io::stderr().is_terminal() { bar() } else { ProgressBar::hidden() };
    let result = model::convert::convert(&checkpoint, &args.out, &options, &mut |progress: Progress<'_>| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
        if bar.message() != progress.tensor {
            bar.set_message(progress.tensor.to_string());
        }
    });
    bar.finish_and_clear();
    let summary = result.with_context(|| format!("cannot convert {} to {}", args.model, args.to.name()))?;
    for notice in &summary.notices {
        note(&format!("note: {notice}"));
    }
    print(&text(&summary, &args.out.display().to_string()))?;
    Ok(())
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{msg}\n{bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    // The template is a constant; if it were wrong, the default bar still shows the progress.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// What was written, a line for each format.
fn text(summary: &Summary, out: &str) -> String {
    let Summary { architecture, tensors, tensor_bytes, .. } = summary;
    let mut text = format!("{out}: {}, {tensors} tensors, architecture {architecture}\n", bytes_text(*tensor_bytes));
    for (format, count, bytes) in &summary.formats {
        text += &format!("  {:<8} {count:>5} tensors  {:>10}\n", format.name(), bytes_text(*bytes));
    }
    for (wanted, used, count) in &summary.fallbacks {
        let block = wanted.block().0;
        text += &format!(
            "  {count} of them are {used} because their rows are no multiple of {block}, a block of {wanted}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::format::Format;

    #[test]
    fn formats_are_named_in_any_case_and_unknown_ones_listed() {
        assert_eq!(recipe("Q4_K_M").unwrap().name(), "q4_k_m");
        let error = recipe("q9").unwrap_err();
        assert!(error.contains("q8_0, q6_k"), "{error}");
    }

    #[test]
    fn the_summary_says_what_fell_back() {
        let summary = Summary {
            architecture: "llama",
            tensors: 3,
            tensor_bytes: 3000,
            formats: vec![(Format::Q4K, 2, 2000), (Format::Q5_0, 1, 1000)],
            fallbacks: vec![(Format::Q4K, Format::Q5_0, 1)],
            notices: Vec::new(),
        };
        let text = text(&summary, "x.gguf");
        assert!(
            text.contains("1 of them are q5_0 because their rows are no multiple of 256, a block of q4_k"),
            "{text}"
        );
        assert!(text.starts_with("x.gguf: ") && text.contains("q4_k         2 tensors"), "{text}");
    }
}
