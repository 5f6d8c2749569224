//! `fathom report`: runs as a page.

use std::path::PathBuf;

use anyhow::bail;
use train::reinforce::report as reinforced;
use train::report::{Reported, write};

use crate::terminal::{note, print};

/// Write a report of a training run, alone or beside others: one HTML file that needs nothing else
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Several runs of pre-training are compared. Of runs of reinforcement learning the first is told in full and the others
(controls, other seeds) stand beside it; --stage adds a column to a table of stages from what `fathom eval --json`
printed.

Example:
  fathom report runs/nano-zero runs/nano-zero-random --stage R1-Zero=zero.json --stage R1=r1.json --out zero.html")]
pub(crate) struct Args {
    /// The runs' folders
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,

    /// A stage's name and what `fathom eval --json` printed of its model
    #[arg(long = "stage", value_name = "NAME=FILE.json", value_parser = stage)]
    stages: Vec<(String, PathBuf)>,

    /// The file to write [default: report.html in the first run's folder]
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

fn stage(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_string(), file.into())),
        _ => Err("it must be a name and a file, such as R1=r1.json".to_string()),
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let out = args.out.unwrap_or_else(|| args.runs[0].join("report.html"));
    if args.runs.iter().any(|run| reinforced::is_run(run)) {
        let runs = args.runs.iter().map(|run| reinforced::Reported::read(run)).collect::<Result<Vec<_>, _>>()?;
        let stages = args.stages.iter().map(|(name, file)| reinforced::Stage::read(name, file));
        reinforced::write(&runs, &stages.collect::<Result<Vec<_>, _>>()?, &out)?;
    } else {
        if !args.stages.is_empty() {
            bail!("--stage belongs to reports of reinforcement learning, and {} is none", args.runs[0].display());
        }
        let mut warn = |text: &str| note(&format!("WARNING: {text}"));
        let runs = args.runs.iter().map(|run| Reported::read(run, &mut warn)).collect::<Result<Vec<_>, _>>()?;
        write(&runs, &out)?;
    }
    print(&format!("{}\n", out.display()))?;
    Ok(())
}
