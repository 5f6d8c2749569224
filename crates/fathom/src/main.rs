//! `fathom`: open-weight language models on the processor you have.
//!
//! One file a command under `commands/`; what several share is in `opened` (a model by name), `options`
//! (flags), `answer` (tokens to streamed text) and `terminal` (what is shown). Errors are one sentence on stderr and
//! exit code 2; a run that Ctrl-C ended has exit code 130.

mod answer;
mod built_in;
mod opened;
mod options;
mod terminal;
mod whole_file;

mod commands {
    pub(crate) mod bench;
    pub(crate) mod cache;
    pub(crate) mod chat;
    pub(crate) mod convert;
    pub(crate) mod describe;
    pub(crate) mod doctor;
    pub(crate) mod eval;
    pub(crate) mod keys;
    pub(crate) mod list;
    pub(crate) mod logits;
    pub(crate) mod plan;
    pub(crate) mod prompt;
    pub(crate) mod pull;
    pub(crate) mod reinforce;
    pub(crate) mod report;
    pub(crate) mod road;
    pub(crate) mod run;
    pub(crate) mod sample;
    pub(crate) mod serve;
    pub(crate) mod tokenize;
    pub(crate) mod train;
    pub(crate) mod usage;
}

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Open-weight language models on the processor you have: DeepSeek V2, V3 and R1, Qwen, Llama, Mistral,
/// Gemma, gpt-oss. No GPU, no Python, no account; only `fathom pull` ever opens a connection.
#[derive(Parser)]
#[command(
    name = "fathom",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "\
First steps:
  fathom                      the built-in model: web chat and API on this machine
  fathom pull deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
  fathom chat deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
  fathom COMMAND --help

A MODEL is a directory as Hugging Face publishes it, a .gguf file, the name of what was pulled (ORG/NAME), or nano, the
small model inside the program.

Environment:
  FATHOM_HOME     where pulled models are kept
  FATHOM_THREADS  number of threads, where --threads is not given
  FATHOM_ISA      portable, avx2, avx512, amx or neon: forces an instruction set, for comparing
  NO_COLOR        no colours and no dimmed text"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Chat(commands::chat::Args),
    Run(commands::run::Args),
    Serve(Box<commands::serve::Args>),
    Keys(commands::keys::Args),
    Usage(commands::usage::Args),
    Cache(commands::cache::Args),
    Pull(commands::pull::Args),
    List(commands::list::Args),
    Describe(commands::describe::Args),
    Convert(commands::convert::Args),
    Tokenize(commands::tokenize::Args),
    Prompt(commands::prompt::Args),
    Plan(commands::plan::Args),
    Logits(commands::logits::Args),
    Train(commands::train::Args),
    Eval(commands::eval::Args),
    Sample(commands::sample::Args),
    Report(commands::report::Args),
    Doctor(commands::doctor::Args),
    Bench(commands::bench::Args),
}

fn main() -> ExitCode {
    // Without a command: the built-in model, served on this machine, with its page.
    let alone = || Cli::try_parse_from(["fathom", "serve"]);
    let parsed = Cli::try_parse().and_then(|cli| if cli.command.is_none() { alone() } else { Ok(cli) });
    let command = match parsed {
        Ok(Cli { command }) => command,
        Err(error) if error.exit_code() == 0 => error.exit(),
        Err(error) => {
            terminal::complain_text(&wrong_usage(&error.to_string()));
            return ExitCode::from(2);
        }
    };
    match command.map_or(Ok(ExitCode::SUCCESS), execute) {
        Ok(code) => code,
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if terminal::broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&error);
            ExitCode::from(2)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    kernels::isa::Isa::detect()?;
    match command {
        Command::Run(args) => return commands::run::run(args),
        Command::Train(args) => return commands::train::run(args),
        Command::Serve(args) => commands::serve::run(*args),
        Command::Keys(args) => commands::keys::run(args),
        Command::Usage(args) => commands::usage::run(args),
        Command::Cache(args) => commands::cache::run(args),
        Command::Eval(args) => return commands::eval::run(args),
        Command::Sample(args) => return commands::sample::run(&args),
        Command::Report(args) => commands::report::run(args),
        Command::Chat(args) => commands::chat::run(args),
        Command::Describe(args) => commands::describe::run(args),
        Command::Convert(args) => commands::convert::run(args),
        Command::Pull(args) => commands::pull::run(args),
        Command::List(args) => commands::list::run(args),
        Command::Tokenize(args) => commands::tokenize::run(args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Prompt(args) => commands::prompt::run(args),
        Command::Logits(args) => commands::logits::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Bench(args) => commands::bench::run(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// What is wrong with the arguments in one line; the parser's own message has five.
fn wrong_usage(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let told = lines.filter(|line| !line.is_empty() && !line.starts_with("Usage:") && !line.starts_with("For more"));
    let line = told.collect::<Vec<_>>().join(" ").replace(" tip: ", "; ");
    format!("{} (--help explains)", line.strip_prefix("error: ").unwrap_or(&line))
}
