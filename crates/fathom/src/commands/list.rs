//! `fathom list`: the models on this machine.

use hub::progress::bytes_text;
use hub::{Kind, Model, State, Store};

use crate::terminal::print;

/// Show the models that `fathom pull` brought to this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The names in the first column are what every command takes as MODEL; a path to a model works there as well. \
To remove a model, delete its directory (--paths shows it).")]
pub(crate) struct Args {
    /// Print JSON, with sizes in bytes, commits and paths
    #[arg(long)]
    pub(crate) json: bool,

    /// Show each model's directory
    #[arg(long)]
    pub(crate) paths: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let models = Store::from_env()?.list()?;
    if args.json {
        return Ok(print(&(serde_json::to_string_pretty(&models)? + "\n"))?);
    }
    if models.is_empty() {
        return Ok(print("No models here yet. Get one: fathom pull ORG/NAME\n")?);
    }
    let width = models.iter().map(|model| model.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for model in &models {
        text += &format!("{:width$}  {:>8}  {}\n", model.name, bytes_text(model.size_bytes), what(model));
        if args.paths {
            text += &format!("{:width$}  {}\n", "", model.path.display());
        }
    }
    Ok(print(&text)?)
}

fn what(model: &Model) -> String {
    let kind = match &model.kind {
        Some(Kind::Directory) => "safetensors".to_string(),
        Some(Kind::Gguf(quants)) => format!("GGUF: {}", quants.join(", ")),
        None => String::new(),
    };
    match &model.state {
        State::Complete => kind,
        State::Partial => format!("incomplete: go on with fathom pull {}", model.name),
        State::CompleteAndPulling => format!("{kind} (a further pull is unfinished)"),
        State::Damaged(why) => format!("damaged: {why}"),
    }
}
