//! `fathom train`: from a recipe to a trained model.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use train::export::{Storage, export};
use train::pretrain::{Limits, peak, pretrain};
use train::recipe::Recipe;
use train::reinforce;
use train::run::log::Line;
use train::run::{End, Observer};
use train::vocabulary::train_tokenizer;

use crate::options::pool;
use crate::terminal::{INTERRUPTED, interrupt_flag, note, print};

/// Train a model: pre-training and fine-tuning from a recipe, export
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Pretrain(Pretrain),
    /// Fine-tune the model that the recipe's table init names, on chats (of which only the answers are learned) or
    /// text; with a table lora by adapters, the model itself staying as it is
    Sft(Pretrain),
    /// Learn the distributions of the model that the recipe's table teacher names; from samples of one, see `fathom
    /// sample`
    Distill(Pretrain),
    Reinforce(super::reinforce::Args),
    Tokenizer(Tokenizer),
    Export(Export),
    Road(super::road::Args),
}

/// Train a tokenizer on the generated sources of a recipe
#[derive(Debug, clap::Args)]
struct Tokenizer {
    /// The recipe, a TOML file
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,

    /// The folder to write tokenizer.json and tokenizer_config.json to
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,
}

/// Write the newest checkpoint of a run as a model in Hugging Face's layout, with its model card
#[derive(Debug, clap::Args)]
#[command(after_help = "\
`fathom run OUT_DIR` opens the result, and so does transformers; `fathom convert OUT_DIR --to q8_0 OUT.gguf` makes a
file for other engines.")]
struct Export {
    /// The run's folder
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// The folder to make
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,

    /// How matrices are stored
    #[arg(long, value_name = "bf16|f32", default_value = "bf16", hide_possible_values = true)]
    dtype: DtypeArg,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum DtypeArg {
    Bf16,
    F32,
}

/// Train by a recipe; the same command again goes on where it stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A recipe is one TOML file: model, tokenizer, data, optimiser, schedule (see recipes/). The run's folder gets log.jsonl
(a line a step), checkpoints, and the training set with its manifest. Ctrl-C saves and stops; a run that is killed
loses what it did since its last checkpoint. Either way it ends with the same bits.

Example:
  fathom train pretrain recipes/nano-pretrain.toml --stop-after 90m")]
struct Pretrain {
    /// The recipe, a TOML file
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,

    /// The run's folder [default: runs/NAME, with the recipe's name]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,

    /// Stop when so many steps of the run are done
    #[arg(long, value_name = "N")]
    steps: Option<u64>,

    /// Stop after this time, such as 90m, 2h or 30s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    stop_after: Option<Duration>,

    /// Threads [default: all processors]; the result does not depend on it
    #[arg(long, env = "FATHOM_THREADS", hide_env_values = true, value_name = "N")]
    threads: Option<usize>,
}

/// A time such as `90m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "it must be a number and s, m or h, such as 90m".to_string())?;
    let unit = match &text[digits.len()..] {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("its unit must be s, m or h, such as 90m".to_string()),
    };
    let seconds = number * unit;
    if !(0.0..1e9).contains(&seconds) {
        return Err("it must be between 0 s and 30 years".to_string());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Pretrain(args) => run_pretrain(&args, Kind::Pretrain),
        Command::Sft(args) => run_pretrain(&args, Kind::Sft),
        Command::Distill(args) => run_pretrain(&args, Kind::Distill),
        Command::Tokenizer(args) => {
            train_tokenizer(&Recipe::read(&args.recipe)?, &args.out)?;
            print(&format!("{}\n", args.out.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Reinforce(args) => super::reinforce::run(&args),
        Command::Export(args) => run_export(&args),
        Command::Road(args) => super::road::run(&args),
    }
}

fn run_export(args: &Export) -> anyhow::Result<ExitCode> {
    let storage = match args.dtype {
        DtypeArg::Bf16 => Storage::Bf16,
        DtypeArg::F32 => Storage::F32,
    };
    let mut warn = |text: &str| note(&format!("WARNING: {text}"));
    let (name, step) = if reinforce::report::is_run(&args.run) {
        let (recipe, state) = reinforce::export(&args.run, &args.out, storage, &mut warn)?;
        (recipe.name, state.step)
    } else {
        let run = export(&args.run, &args.out, storage, &mut warn)?;
        (run.recipe.name, run.state.step)
    };
    print(&format!("{}: {name} after step {step}\n", args.out.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// What a recipe must have besides.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Pretrain,
    Sft,
    Distill,
}

fn run_pretrain(args: &Pretrain, kind: Kind) -> anyhow::Result<ExitCode> {
    let recipe = Recipe::read(&args.recipe)?;
    let folder = args.run.clone().unwrap_or_else(|| Path::new("runs").join(&recipe.name));
    let file = args.recipe.display();
    if kind == Kind::Sft && recipe.init.from.is_none() {
        bail!("{file}: fine-tuning begins with a model; the table [init] must name one (from = \"...\")");
    }
    if kind == Kind::Distill && recipe.teacher.is_none() {
        bail!("{file}: there is nobody to learn from; the table [teacher] must name a model (from = \"...\")");
    }
    if args.steps == Some(0) {
        bail!("--steps is 0; it must be at least 1");
    }
    let pool = pool(args.threads)?;
    let stop = interrupt_flag(true)?;
    let peak_per_second = peak(&folder, pool.threads());
    let limits = Limits { until_step: args.steps, stop_after: args.stop_after, peak_per_second };
    let mut screen = Screen::new();
    let (state, end) = pretrain(&recipe, &folder, &pool, &limits, &stop, &mut screen)?;
    let (folder, step, steps) = (folder.display(), state.step, recipe.steps());
    let hours = state.seconds / 3600.0;
    print(&match end {
        End::Finished => format!("{folder}: finished, {steps} steps in {hours:.2} h\n"),
        End::Steps | End::Time => format!("{folder}: stopped at step {step} of {steps}; the same command goes on\n"),
        End::Interrupted => format!("{folder}: interrupted at step {step} of {steps}; the same command goes on\n"),
    })?;
    Ok(if end == End::Interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Steps as they are done, on standard error: on a terminal every one in place, elsewhere one now and then.
pub(crate) struct Screen {
    terminal: bool,
    shown: Option<Instant>,
    open: bool,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        Screen { terminal: std::io::stderr().is_terminal(), shown: None, open: false }
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Observer for Screen {
    fn note(&mut self, text: &str) {
        self.close();
        note(text);
    }

    fn warn(&mut self, text: &str) {
        self.close();
        note(&format!("WARNING: {text}"));
    }

    fn step(&mut self, line: &Line, steps: u64, left: Duration) {
        let text = progress(line, steps, left);
        let long_ago = self.shown.is_none_or(|shown| shown.elapsed() >= Duration::from_secs(30));
        if line.held_out.is_some() || (!self.terminal && (long_ago || line.step == steps)) {
            self.close();
            note(&text);
            self.shown = Some(Instant::now());
        } else if self.terminal {
            eprint!("\r\x1b[K{text}");
            self.open = true;
        }
    }
}

/// A step in a line: how far, how good, how fast, how long still.
fn progress(line: &Line, steps: u64, left: Duration) -> String {
    let mut text = format!("{:>6}/{steps}  loss {:.4}", line.step, line.loss);
    if let Some(held_out) = &line.held_out {
        text += &format!("  held-out {:.4} ({:.4} bits/byte)", held_out.loss, held_out.bits_per_byte);
    }
    text += &format!("  norm {:.2}  lr {:.2e}", line.gradient_norm, line.learning_rate);
    if let Some((low, high)) = line.load_range() {
        text += &format!("  load {low:.2}-{high:.2}");
    }
    text += &format!("  {:.0} tok/s", line.tokens_per_second);
    if let Some(share) = line.peak_share {
        text += &format!("  {:.0} % of f32 peak", share * 100.0);
    }
    let minutes = left.as_secs() / 60;
    text + &match minutes {
        0 => format!("  {} s left", left.as_secs()),
        1..120 => format!("  {minutes} min left"),
        _ => format!("  {:.1} h left", left.as_secs_f64() / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_a_unit() {
        assert_eq!(duration("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        for wrong in ["", "90", "m", "-5m", "90min", "1e300h", "nanm"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_step_is_one_line() {
        let line = Line {
            step: 7,
            loss: 2.5,
            learning_rate: 1e-3,
            tokens_per_second: 1234.0,
            peak_share: Some(0.21),
            expert_load: vec![vec![0.5, 1.5]],
            ..Line::default()
        };
        let text = progress(&line, 100, Duration::from_secs(300));
        let wanted =
            "     7/100  loss 2.5000  norm 0.00  lr 1.00e-3  load 0.50-1.50  1234 tok/s  21 % of f32 peak  5 min left";
        assert_eq!(text, wanted);
    }
}
