//! `fathom chat`: a conversation in the terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use engine::sampler::Sampling;
use engine::session::Session;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Map, Value, json};
use text::{ChatTemplate, Tokenizer};

use super::run::{Switch, thinking};
use crate::answer::{Answer, Event, Prompt, Settings, answer};
use crate::opened::{Opened, template_of};
use crate::options::{MachineArgs, SamplingArgs};
use crate::terminal::Screen;

/// Talk to a model in the terminal
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Ctrl-C stops an answer; at the empty prompt it asks you to type /exit. Reasoning is shown dimmed. /help lists the
commands. Nothing is stored unless you say /save.")]
pub(crate) struct Args {
    /// A directory, a .gguf file, or the name of a pulled model
    model: String,

    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Ask models that can do both to think first, or not to
    #[arg(long, value_name = "YES_OR_NO")]
    think: Option<Switch>,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    machine: MachineArgs,
}

const HELP: &str = "\
  /help               this list
  /system TEXT        set the instructions (without TEXT: remove them) and begin anew
  /new                begin a new conversation
  /retry              answer the last message again
  /undo               take back the last message and its answer
  /set NAME VALUE     temperature, top-p, top-k, min-p, seed, max-tokens
  /think on|off       ask for reasoning, or for none, where the model can do both
  /save FILE          write the conversation as JSON
  /load FILE          go on with a conversation from such a file
  /exit               leave (also Ctrl-D)
  A line that ends with \\ goes on in the next one. Ctrl-C stops an answer.";

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let opened = Opened::open(&args.model)?;
    let tokenizer = opened.tokenizer()?;
    let Some(template) = template_of(tokenizer)? else {
        bail!("{}: the model has no chat template; `fathom run --raw` goes on with plain text", opened.path.display());
    };
    let pool = args.machine.pool()?;
    let context = args.machine.context(&opened)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&cancel);
    ctrlc::set_handler(move || handler.store(true, Ordering::Relaxed)).context("Ctrl-C cannot be handled")?;
    let mut chat = Chat {
        session: Session::new(&opened.model, &pool, context, args.machine.cache.format()),
        tokenizer,
        template,
        system: args.system,
        messages: Vec::new(),
        variables: thinking(args.think),
        sampling: args.sampling.settings(&opened)?,
        max_tokens: args.sampling.max_tokens,
        stop: args.sampling.stop,
        cancel,
        screen: Screen::new(),
        vocab: opened.model.spec.vocab,
    };
    opened.model.notices.iter().for_each(|notice| chat.screen.note(&format!("note: {notice}")));
    let name = opened.path.file_name().map_or_else(|| args.model.clone(), |n| n.to_string_lossy().into_owned());
    chat.screen.note(&format!("{name}, {} threads, context {context}. /help lists the commands.", pool.threads()));
    chat.talk()
}

struct Chat<'a> {
    session: Session<'a>,
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    system: Option<String>,
    messages: Vec<Value>,
    variables: Map<String, Value>,
    sampling: Sampling,
    max_tokens: Option<usize>,
    stop: Vec<String>,
    cancel: Arc<AtomicBool>,
    screen: Screen,
    vocab: usize,
}

/// What a line asks for.
enum Next {
    Go,
    Leave,
}

impl Chat<'_> {
    fn talk(&mut self) -> anyhow::Result<()> {
        let mut editor = DefaultEditor::new().context("the terminal cannot be read")?;
        loop {
            match read_message(&mut editor) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    match self.line(&line) {
                        Ok(Next::Go) => {}
                        Ok(Next::Leave) => return Ok(()),
                        // What cannot be done is said, and the conversation goes on.
                        Err(error) => eprintln!("fathom: {error:#}"),
                    }
                }
                Err(ReadlineError::Interrupted) => self.screen.note("type /exit or press Ctrl-D to leave"),
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error).context("the terminal cannot be read"),
            }
        }
    }

    fn line(&mut self, line: &str) -> anyhow::Result<Next> {
        let Some(command) = line.strip_prefix('/') else {
            self.messages.push(json!({"role": "user", "content": line}));
            self.reply()?;
            return Ok(Next::Go);
        };
        let (command, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        self.command(command, rest.trim())
    }

    fn command(&mut self, command: &str, rest: &str) -> anyhow::Result<Next> {
        match command {
            "help" | "?" => println!("{HELP}"),
            "exit" | "quit" | "bye" => return Ok(Next::Leave),
            "new" | "clear" => self.messages.clear(),
            "system" => {
                self.system = Some(rest.to_string()).filter(|s| !s.is_empty());
                self.messages.clear();
            }
            "retry" => {
                if !self.drop_answer() {
                    bail!("there is nothing to answer again");
                }
                // Another seed, or the answer would be the same.
                self.sampling.seed = self.sampling.seed.wrapping_add(1);
                self.reply()?;
            }
            "undo" => {
                self.drop_answer();
                if self.messages.pop().is_none() {
                    bail!("the conversation is empty");
                }
            }
            "set" => self.set(rest)?,
            "think" => match rest {
                "on" => self.variables = thinking(Some(Switch::Yes)),
                "off" => self.variables = thinking(Some(Switch::No)),
                _ => bail!("/think takes on or off"),
            },
            "save" => self.save(rest)?,
            "load" => self.load(rest)?,
            _ => bail!("there is no command /{command}; /help lists those that are"),
        }
        Ok(Next::Go)
    }

    /// Removes the last answer; whether the conversation then ends with a user's message.
    fn drop_answer(&mut self) -> bool {
        if self.messages.last().is_some_and(|m| m["role"] == "assistant") {
            self.messages.pop();
        }
        self.messages.last().is_some_and(|m| m["role"] == "user")
    }

    /// Answers the last message; if that fails the message is taken back.
    fn reply(&mut self) -> anyhow::Result<()> {
        match self.try_reply() {
            Ok(done) => {
                let mut message = json!({"role": "assistant", "content": done.content});
                if !done.reasoning.is_empty() {
                    message["reasoning_content"] = json!(done.reasoning);
                }
                self.messages.push(message);
                self.screen.note(&done.summary());
                Ok(())
            }
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    fn try_reply(&mut self) -> anyhow::Result<Answer> {
        let system = self.system.iter().map(|s| json!({"role": "system", "content": s}));
        let messages: Vec<Value> = system.chain(self.messages.iter().cloned()).collect();
        let prompt = Prompt::chat(self.tokenizer, &self.template, &messages, &self.variables)?;
        self.cancel.store(false, Ordering::Relaxed);
        let settings = Settings {
            sampling: self.sampling.clone(),
            max_tokens: self.max_tokens,
            stop: &self.stop,
            cancel: &self.cancel,
        };
        let (screen, total) = (&mut self.screen, prompt.tokens.len());
        let progress = std::io::stderr().is_terminal();
        let mut shown = false;
        let done = answer(&mut self.session, self.tokenizer, &prompt, settings, |event| {
            if shown {
                eprint!("\r\x1b[K");
                shown = false;
            }
            match event {
                // Only prompts that take more than a moment are worth a line.
                Event::Prompt(done) if progress && done > 0 && total - done > 512 => {
                    eprint!("reading {done} of {total} tokens");
                    shown = true;
                    Ok(())
                }
                Event::Prompt(_) => Ok(()),
                Event::Reasoning(text) => screen.reasoning(text),
                Event::Content(text) => screen.content(text),
            }
        })?;
        self.screen.end()?;
        Ok(done)
    }

    fn set(&mut self, rest: &str) -> anyhow::Result<()> {
        let Some((name, value)) = rest.split_once(char::is_whitespace) else {
            bail!("/set takes a name and a value, such as /set temperature 0.6");
        };
        let value = value.trim();
        let number = || value.parse::<f32>().with_context(|| format!("{value:?} is not a number"));
        let whole = || value.parse::<u64>().with_context(|| format!("{value:?} is not a whole number"));
        let mut changed = self.sampling.clone();
        match name {
            "temperature" => changed.temperature = number()?,
            "top-p" => changed.top_p = number()?,
            "min-p" => changed.min_p = number()?,
            "top-k" => changed.top_k = whole()? as usize,
            "seed" => changed.seed = whole()?,
            "max-tokens" => self.max_tokens = Some(whole()?.max(1) as usize),
            _ => bail!("{name} is not one of temperature, top-p, top-k, min-p, seed, max-tokens"),
        }
        changed.check(self.vocab)?;
        self.sampling = changed;
        Ok(())
    }

    fn save(&self, file: &str) -> anyhow::Result<()> {
        if file.is_empty() {
            bail!("/save takes a file name");
        }
        let text = serde_json::to_string_pretty(&json!({"system": self.system, "messages": self.messages}))?;
        std::fs::write(file, text + "\n").with_context(|| format!("{file}: cannot be written"))
    }

    fn load(&mut self, file: &str) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(file).with_context(|| format!("{file}: cannot be read"))?;
        let saved: Value = serde_json::from_str(&text).with_context(|| format!("{file}: is not valid JSON"))?;
        let Some(messages) = saved["messages"].as_array() else {
            bail!("{file}: has no list \"messages\"");
        };
        self.messages = messages.clone();
        self.system = saved["system"].as_str().map(str::to_string);
        self.screen.note(&format!("{} messages", messages.len()));
        Ok(())
    }
}

/// A line, or several that a backslash joins.
fn read_message(editor: &mut DefaultEditor) -> Result<String, ReadlineError> {
    let mut message = String::new();
    loop {
        let line = editor.readline(if message.is_empty() { "> " } else { ". " })?;
        match line.strip_suffix('\\') {
            Some(start) => {
                message.push_str(start);
                message.push('\n');
            }
            None => {
                message.push_str(&line);
                return Ok(message);
            }
        }
    }
}
