//! `fathom list`: the models on this machine.

use hub::progress::bytes_text;
use hub::{Kind, Model, State, Store};

/// Show the models that `fathom pull` brought to this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The names in the first column are what run, chat, describe and convert take; a path to a model works there as well.
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
        println!("{}", serde_json::to_string_pretty(&models)?);
        return Ok(());
    }
    if models.is_empty() {
        println!("No models here yet. Get one: fathom pull ORG/NAME");
        return Ok(());
    }
    let width = models.iter().map(|model| model.name.len()).max().unwrap_or(0);
    for model in &models {
        println!("{:width$}  {:>8}  {}", model.name, bytes_text(model.size_bytes), what(model));
        if args.paths {
            println!("{:width$}  {}", "", model.path.display());
        }
    }
    Ok(())
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
