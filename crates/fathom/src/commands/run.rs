//! `fathom run`: one answer, streamed to standard output.

use std::io::{IsTerminal, Read};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use engine::session::Session;
use serde_json::{Map, Value, json};

use crate::answer::{Event, Prompt, Settings, answer};
use crate::opened::{Opened, template_of};
use crate::options::{MachineArgs, SamplingArgs};
use crate::terminal::Screen;

/// Answer one prompt and stop
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  fathom run ORG/NAME -p \"What is 37 * 43?\"
  fathom run model.gguf -p \"Once upon a time\" --raw -n 100
  git diff | fathom run ORG/NAME -p \"Write a commit message for this:\"

The answer goes to standard output, figures and notes to standard error. Reasoning is shown dimmed on a terminal;
--no-reasoning leaves it out.")]
pub(crate) struct Args {
    /// A directory, a .gguf file, or the name of a pulled model
    model: String,

    /// The prompt; text on standard input is added after it
    #[arg(long, short = 'p', value_name = "TEXT")]
    prompt: Option<String>,

    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,

    /// Let the model go on with the text itself, without its chat template
    #[arg(long)]
    raw: bool,

    /// Ask models that can do both to think first, or not to
    #[arg(long, value_name = "YES_OR_NO")]
    think: Option<Switch>,

    /// Do not print the reasoning
    #[arg(long)]
    no_reasoning: bool,

    /// Print one JSON object with the answer, its tokens and figures
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    machine: MachineArgs,
}

/// A choice that a template knows.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Switch {
    Yes,
    No,
}

/// The variables by which published templates switch thinking.
pub(crate) fn thinking(switch: Option<Switch>) -> Map<String, Value> {
    let Some(switch) = switch else { return Map::new() };
    let on = matches!(switch, Switch::Yes);
    // Qwen3 reads the first, DeepSeek V3.1 the second.
    Map::from_iter([("enable_thinking".to_string(), json!(on)), ("thinking".to_string(), json!(on))])
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let text = prompt_text(&args)?;
    let opened = Opened::open(&args.model)?;
    let mut screen = Screen::new();
    opened.model.notices.iter().for_each(|notice| screen.note(&format!("note: {notice}")));
    let tokenizer = opened.tokenizer()?;
    let settings = args.sampling.settings(&opened)?;
    let prompt = match template_of(tokenizer)? {
        Some(template) if !args.raw => {
            let system = args.system.iter().map(|s| json!({"role": "system", "content": s}));
            let messages: Vec<Value> = system.chain([json!({"role": "user", "content": text})]).collect();
            Prompt::chat(tokenizer, &template, &messages, &thinking(args.think))?
        }
        None if args.system.is_some() => bail!("--system needs a chat template, and this model has none"),
        None if !args.raw => {
            screen.note("note: the model has no chat template; it goes on with the text itself");
            Prompt::plain(tokenizer, &text)?
        }
        _ => Prompt::plain(tokenizer, &text)?,
    };
    let pool = args.machine.pool()?;
    let context = args.machine.context(&opened)?;
    let mut session = Session::new(&opened.model, &pool, context, args.machine.cache.format());
    let never = AtomicBool::new(false);
    let seed = settings.seed;
    let settings = Settings {
        sampling: settings,
        max_tokens: args.sampling.max_tokens,
        stop: &args.sampling.stop,
        cancel: &never,
    };
    let show = !args.json;
    let done = answer(&mut session, tokenizer, &prompt, settings, |event| match event {
        Event::Reasoning(text) if show && !args.no_reasoning => screen.reasoning(text),
        Event::Content(text) if show => screen.content(text),
        _ => Ok(()),
    })?;
    if args.json {
        println!("{}", done.as_json());
    } else {
        screen.end()?;
        screen.note(&format!("{}, seed {seed}", done.summary()));
    }
    Ok(())
}

/// The prompt from the flag, from standard input, or both.
fn prompt_text(args: &Args) -> anyhow::Result<String> {
    let mut piped = String::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin().read_to_string(&mut piped).context("standard input cannot be read as text")?;
    }
    match (&args.prompt, piped.is_empty()) {
        (None, true) => bail!("there is no prompt; give one with -p TEXT or on standard input"),
        (Some(prompt), true) => Ok(prompt.clone()),
        (None, false) => Ok(piped),
        (Some(prompt), false) => Ok(format!("{prompt}\n\n{piped}")),
    }
}
