//! `fathom run`: one answer, streamed to standard output.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use anyhow::{Context, bail};
use engine::session::Session;
use serde_json::{Value, json};
use text::Tokenizer;

use crate::answer::{Event, Finish, Prompt, Settings, answer};
use crate::opened::Opened;
use crate::options::{DraftsArgs, MachineArgs, SamplingArgs, ThinkArgs, thinking};
use crate::terminal::{INTERRUPTED, Screen, interrupt_flag, note, print};

/// Answer one prompt and stop
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  fathom run ORG/NAME -p \"What is 37 * 43?\"
  fathom run model.gguf -p \"Once upon a time\" --raw -n 100
  git diff | fathom run ORG/NAME -p \"Write a commit message for this:\"

The answer goes to standard output, figures and notes to standard error. Reasoning is shown dimmed on a terminal and \
left out elsewhere; with --reasoning always it stands between <think> and </think> there. Ctrl-C ends the answer with \
what there is, and exit code 130.")]
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

    #[command(flatten)]
    think: ThinkArgs,

    /// When to print the reasoning; auto: on a terminal
    #[arg(long, value_name = "auto|always|never", default_value = "auto", hide_possible_values = true)]
    reasoning: When,

    /// Print one JSON object with answer, reasoning, tokens and figures
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    drafts: DraftsArgs,
}

/// When something is done.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
enum When {
    Auto,
    Always,
    Never,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.prompt.is_none() && std::io::stdin().is_terminal() {
        bail!("{NO_PROMPT}");
    }
    let opened = Opened::open(&args.model, args.machine.inputs())?;
    opened.model.notices.iter().for_each(|notice| note(&format!("note: {notice}")));
    let tokenizer = opened.tokenizer()?;
    let sampling = args.sampling.settings(&opened)?;
    let context = args.machine.context(&opened)?;
    let pool = args.machine.pool()?;
    let prompt = prompt(&args, &opened, tokenizer)?;
    if prompt.tokens.len() > context {
        let tokens = prompt.tokens.len();
        bail!("the prompt has {tokens} tokens and the context holds {context}; shorten it or give a larger --context");
    }
    let cancel = interrupt_flag(true)?;
    let mut session = Session::new(&opened.model, &pool, context, args.machine.cache.format());
    session.set_drafts(args.drafts.drafts());
    let seed = sampling.seed;
    let settings =
        Settings { sampling, max_tokens: args.sampling.max_tokens, stop: &args.sampling.stop, cancel: &cancel };
    let mut screen = Screen::new();
    let show_reasoning = match args.reasoning {
        When::Auto => screen.is_terminal(),
        always_or_never => always_or_never == When::Always,
    };
    let done = answer(&mut session, tokenizer, &prompt, settings, |event| match event {
        Event::Reasoning(_) if args.json || !show_reasoning => Ok(()),
        Event::Content(_) if args.json => Ok(()),
        event => screen.event(event, prompt.tokens.len()),
    });
    screen.end()?;
    let done = done.with_context(|| opened.path.display().to_string())?;
    if args.json {
        print(&format!("{}\n", done.as_json()))?;
    } else {
        note(&format!("{}; seed {seed}", done.summary()));
    }
    Ok(ExitCode::from(if done.finish == Finish::Cancelled { INTERRUPTED } else { 0 }))
}

const NO_PROMPT: &str = "there is no prompt; give one with -p TEXT or on standard input";

/// The prompt through the chat template, or as it is.
fn prompt(args: &Args, opened: &Opened, tokenizer: &Tokenizer) -> anyhow::Result<Prompt> {
    let template = if args.raw { None } else { opened.template()? };
    if template.is_none() && args.system.is_some() {
        bail!("{}: the model has no chat template, so there is no place for --system", opened.path.display());
    }
    let text = prompt_text(args)?;
    let Some(template) = template else {
        if !args.raw {
            note("note: the model has no chat template; it goes on with the text itself (--raw says the same)");
        }
        return Prompt::plain(tokenizer, &text);
    };
    let system = args.system.iter().map(|s| json!({"role": "system", "content": s}));
    let messages: Vec<Value> = system.chain([json!({"role": "user", "content": text})]).collect();
    Prompt::chat(tokenizer, &template, &messages, &thinking(args.think.think, tokenizer))
        .with_context(|| opened.path.display().to_string())
}

/// The prompt from the flag, from standard input, or both.
fn prompt_text(args: &Args) -> anyhow::Result<String> {
    let mut piped = String::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin().read_to_string(&mut piped).context("standard input is not valid UTF-8 text")?;
    }
    match (&args.prompt, piped.is_empty()) {
        (None, true) => bail!("{NO_PROMPT}"),
        (Some(prompt), true) => Ok(prompt.clone()),
        (None, false) => Ok(piped),
        (Some(prompt), false) => Ok(format!("{prompt}\n\n{piped}")),
    }
}
