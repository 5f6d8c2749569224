//! `fathom pull`: download a model from a hub into the local store. The only command that opens a connection.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use hub::progress::bytes_text;
use hub::{Config, Event, Progress, Reference, Store};
use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal::{note, print};

/// Download a model from the Hugging Face hub, or from a mirror of it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fathom pull deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B    all that a model needs
  fathom pull ORG/NAME-GGUF:Q4_K_M                         one quantisation of several
  fathom pull ORG/NAME@v1.0                                a branch, tag or commit

A download that stopped goes on where it was when you run the same command again. Every file is checked against the \
hash that the hub lists for it.

Environment:
  HF_TOKEN       access token, for gated and private models; sent to the hub alone
  HF_ENDPOINT    a mirror to use in place of https://huggingface.co
  FATHOM_HOME    where models are kept (else $XDG_DATA_HOME/fathom, else ~/.local/share/fathom)
  SSL_CERT_FILE  root certificates of a mirror or proxy of your own
  HTTPS_PROXY    a proxy to connect through")]
pub(crate) struct Args {
    /// The model's name on the hub; of a GGUF repository with :QUANT (such as :Q4_K_M) or :FILE.gguf after it
    #[arg(value_name = "ORG/NAME[:QUANT]")]
    pub(crate) reference: Reference,

    /// Read everything that was pulled again and check its hashes; downloads nothing
    #[arg(long)]
    pub(crate) verify: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let bar = if std::io::stdout().is_terminal() { Some(Bar::new()) } else { None };
    let progress: &dyn Progress = bar.as_ref().map_or(&Retries, |bar| bar);
    if args.verify {
        let checked_bytes = Store::from_env()?.verify(&args.reference, progress)?;
        finish(bar);
        let (name, read) = (args.reference.stored_name(), bytes_text(checked_bytes));
        return Ok(print(&format!("{name}: {read} read, all hashes are right\n"))?);
    }
    let config = Config::from_env()?;
    let result = hub::pull(&config, &args.reference, progress);
    finish(bar);
    let pulled = result.with_context(|| format!("cannot pull {}", args.reference))?;
    let what = if pulled.received_bytes == 0 { "already here" } else { "complete and verified" };
    Ok(print(&format!(
        "{name}: {what}, {} in {} files\n  in    {}\n  from  {} at commit {}\n  talk  fathom chat {name}\n",
        bytes_text(pulled.size_bytes),
        pulled.files,
        pulled.directory.display(),
        config.endpoint,
        pulled.commit,
        name = args.reference,
    ))?)
}

fn finish(bar: Option<Bar>) {
    if let Some(bar) = bar {
        bar.bar.finish_and_clear();
    }
}

/// Where nobody watches a bar, only what makes it take longer is said.
struct Retries;

impl Progress for Retries {
    fn event(&self, event: Event<'_>) {
        if let Event::Retry { cause, pause } = event {
            note(&retry(cause, pause));
        }
    }
}

fn retry(cause: &str, pause: Duration) -> String {
    format!("{cause}; next try in {:.0} s", pause.as_secs_f64().ceil())
}

/// One bar over all files, with the name of the current one.
struct Bar {
    bar: ProgressBar,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// Bytes of the files before the current one.
    before_bytes: u64,
    current_bytes: u64,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        let template = "{msg}\n{bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        // The template is a constant; if it were wrong, the default bar still shows the progress.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, files: Mutex::new(Files::default()) }
    }
}

impl Progress for Bar {
    fn event(&self, event: Event<'_>) {
        let mut files = self.files.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match event {
            Event::Planned { total_bytes, .. } => self.bar.set_length(total_bytes),
            Event::File { path, size_bytes } => {
                files.current_bytes = size_bytes;
                self.bar.set_message(path.to_string());
            }
            Event::Position { bytes } => self.bar.set_position(files.before_bytes + bytes),
            Event::FileDone { .. } => {
                files.before_bytes += files.current_bytes;
                files.current_bytes = 0;
                self.bar.set_position(files.before_bytes);
            }
            Event::Retry { cause, pause } => {
                self.bar.println(retry(cause, pause));
            }
        }
    }
}
