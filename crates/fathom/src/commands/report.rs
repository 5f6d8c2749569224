//! `fathom report`: a run, or several side by side, as a page.

use std::path::PathBuf;

use train::report::{Reported, write};

use crate::terminal::{note, print};

/// Write a report of a training run, or of several to compare them: one HTML file that needs nothing else
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run's folder
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// Others, to compare it with
    #[arg(value_name = "RUN2")]
    others: Vec<PathBuf>,

    /// The file to write [default: report.html in the run's folder]
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mut warn = |text: &str| note(&format!("WARNING: {text}"));
    let mut runs = vec![Reported::read(&args.run, &mut warn)?];
    for other in &args.others {
        runs.push(Reported::read(other, &mut warn)?);
    }
    let out = args.out.unwrap_or_else(|| args.run.join("report.html"));
    write(&runs, &out)?;
    print(&format!("{}\n", out.display()))?;
    Ok(())
}
