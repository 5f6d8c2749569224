//! `fathom cache`: the prompt cache of `fathom serve` on disk.

use std::path::PathBuf;

use anyhow::Context;
use server::prompt_cache::{clear, kept};

use super::serve::data_directory;
use crate::terminal::print;

/// Show or clear the prompt cache of `fathom serve`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The server keeps what it has computed of prompts and answers, so that they need not be computed again, after a restart \
either. Pages are encrypted, bound to the model and the API key, and kept in the data directory only. `fathom serve \
--prompt-cache 0` does without.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,

    /// The server's data directory [default: the directory server in FATHOM_HOME]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    data: Option<PathBuf>,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Show how much there is
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove everything, and the secret with which it was encrypted
    Clear,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let data = data_directory(args.data)?;
    let found = kept(&data).with_context(|| format!("{}: the prompt cache cannot be read", data.display()))?;
    let oldest = found.oldest_ms.and_then(|ms| jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    let mib = found.bytes as f64 / (1 << 20) as f64;
    match args.action {
        Action::Show { json: true } => {
            let all = serde_json::json!({
                "pages": found.pages,
                "bytes": found.bytes,
                "keys": found.owners,
                "oldest_use": oldest.map(|time| time.to_string()),
            });
            print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
        }
        Action::Show { json: false } if found.pages == 0 => print("The prompt cache is empty.\n")?,
        Action::Show { json: false } => {
            let last = oldest.map_or_else(String::new, |time| format!(", unused since {time:.0} at the longest"));
            let (pages, keys) = (found.pages, found.owners);
            print(&format!("{pages} pages of {keys} keys (those without a key are one), {mib:.1} MiB{last}\n"))?;
        }
        Action::Clear => {
            clear(&data).with_context(|| format!("{}: the prompt cache cannot be cleared", data.display()))?;
            print(&format!("Removed {} pages, {mib:.1} MiB.\n", found.pages))?;
        }
    }
    Ok(())
}
