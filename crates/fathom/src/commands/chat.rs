//! `fathom chat`: a conversation in the terminal.
//!
//! What is typed and answered stays in memory; the only file that is ever written is the one that /save names.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use engine::sampler::Sampling;
use engine::session::Session;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Map, Value, json};
use text::{ChatTemplate, Tokenizer};

use crate::answer::{Answer, Finish, Prompt, Settings, answer};
use crate::opened::Opened;
use crate::options::{DraftsArgs, MachineArgs, SamplingArgs, Switch, ThinkArgs, thinking};
use crate::terminal::{Screen, broken_pipe, complain, interrupt_flag, note, print};
use crate::whole_file;

/// Talk to a model in the terminal
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Ctrl-C stops an answer and not the program; Ctrl-D leaves. Reasoning is shown dimmed. /help lists the commands. What \
was said is stored nowhere, unless you say /save.")]
pub(crate) struct Args {
    /// A directory, a .gguf file, or the name of a pulled model
    model: String,

    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    #[command(flatten)]
    think: ThinkArgs,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    drafts: DraftsArgs,
}

const HELP: &str = "\
\x20 /help               this list
  /new                begin a new conversation
  /retry              answer the last message again, differently
  /undo               take back the last message and its answer
  /system [TEXT]      set the instructions, or remove them, and begin a new conversation
  /think on|off       ask for reasoning, or for none, where the model can do both
  /set [NAME VALUE]   temperature, top-p, top-k, min-p, seed, max-tokens; alone: show them
  /save FILE          write the conversation as JSON, for your eyes only
  /load FILE          go on with a conversation from such a file
  /exit               leave (also Ctrl-D)

A line that ends with \\ goes on in the next one. Ctrl-C stops an answer.
Arrow up brings back what you typed. A space before / makes it a message.
";

/// Longest file that /load reads.
const LOAD_LIMIT_BYTES: u64 = 64 << 20;

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let opened = Opened::open(&args.model, args.machine.inputs())?;
    opened.model.notices.iter().for_each(|notice| note(&format!("note: {notice}")));
    let tokenizer = opened.tokenizer()?;
    let Some(template) = opened.template()? else {
        bail!("{}: the model has no chat template; `fathom run --raw` goes on with plain text", opened.path.display());
    };
    let sampling = args.sampling.settings(&opened)?;
    let context = args.machine.context(&opened)?;
    let pool = args.machine.pool()?;
    // Before the handler of Ctrl-C: the editor takes that signal for itself when it is made.
    let editor = DefaultEditor::new().context("the terminal cannot be read")?;
    // Where nobody types, Ctrl-C can only mean the program.
    let cancel = if std::io::stdin().is_terminal() { interrupt_flag(false)? } else { Arc::new(AtomicBool::new(false)) };
    let mut session = Session::new(&opened.model, &pool, context, args.machine.cache.format());
    session.set_drafts(args.drafts.drafts());
    let chat = Chat {
        session,
        tokenizer,
        template,
        system: args.system,
        messages: Vec::new(),
        variables: thinking(args.think.think, tokenizer),
        sampling,
        max_tokens: args.sampling.max_tokens,
        stop: args.sampling.stop,
        cancel,
        screen: Screen::new(),
        vocab: opened.model.spec.vocab,
        file: None,
    };
    let name = opened.path.file_name().map_or_else(|| args.model.clone(), |n| n.to_string_lossy().into_owned());
    let threads = match pool.threads() {
        1 => "1 thread".to_string(),
        n => format!("{n} threads"),
    };
    note(&format!("{name}, {threads}, context of {context} tokens. /help lists the commands."));
    chat.talk(editor)
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
    /// The file that this conversation was saved to or loaded from, and that /save may therefore replace.
    file: Option<PathBuf>,
}

/// What a line asks for.
enum Next {
    Go,
    Leave,
}

impl Chat<'_> {
    fn talk(mut self, mut editor: DefaultEditor) -> anyhow::Result<()> {
        loop {
            match read_message(&mut editor) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    // In memory only.
                    let _ = editor.add_history_entry(&line);
                    match self.line(&line) {
                        Ok(Next::Go) => {}
                        Ok(Next::Leave) => return Ok(()),
                        // Nobody reads the answers.
                        Err(error) if broken_pipe(&error) => return Err(error),
                        // What cannot be done is said, and the conversation goes on.
                        Err(error) => complain(&error),
                    }
                }
                Err(ReadlineError::Interrupted) => note("Ctrl-D or /exit leaves"),
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error).context("the terminal cannot be read"),
            }
        }
    }

    fn line(&mut self, line: &str) -> anyhow::Result<Next> {
        if let Some(command) = line.strip_prefix('/') {
            let (command, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
            return self.command(command, rest.trim());
        }
        let text = if line.starts_with(" /") { &line[1..] } else { line };
        self.messages.push(json!({"role": "user", "content": text}));
        let answered = self.reply();
        if !matches!(answered, Ok(true)) {
            self.messages.pop();
        }
        answered?;
        Ok(Next::Go)
    }

    fn command(&mut self, command: &str, rest: &str) -> anyhow::Result<Next> {
        match command {
            "help" | "?" => print(HELP)?,
            "exit" | "quit" | "bye" => return Ok(Next::Leave),
            "new" | "clear" => self.begin_anew(),
            "system" => {
                self.system = Some(rest.to_string()).filter(|s| !s.is_empty());
                self.begin_anew();
            }
            "retry" => self.retry()?,
            "undo" => self.undo()?,
            "set" => self.set(rest)?,
            "think" => match rest {
                "on" => self.variables = thinking(Some(Switch::Yes), self.tokenizer),
                "off" => self.variables = thinking(Some(Switch::No), self.tokenizer),
                _ => bail!("/think takes on or off"),
            },
            "save" => self.save(rest)?,
            "load" => self.load(rest)?,
            _ => bail!("there is no command /{command}; /help lists those there are"),
        }
        Ok(Next::Go)
    }

    fn begin_anew(&mut self) {
        self.messages.clear();
        self.file = None;
        note("a new conversation");
    }

    fn retry(&mut self) -> anyhow::Result<()> {
        let before = self.messages.clone();
        if self.messages.last().is_some_and(|m| m["role"] == "assistant") {
            self.messages.pop();
        }
        if self.messages.last().is_none_or(|m| m["role"] != "user") {
            self.messages = before;
            bail!("there is no message to answer again");
        }
        // Another seed, or the answer would be the same.
        self.sampling.seed = self.sampling.seed.wrapping_add(1);
        let answered = self.reply();
        if !matches!(answered, Ok(true)) {
            self.messages = before;
        }
        answered.map(|_| ())
    }

    fn undo(&mut self) -> anyhow::Result<()> {
        let Some(last) = self.messages.iter().rposition(|m| m["role"] == "user") else {
            bail!("there is no message to take back");
        };
        self.messages.truncate(last);
        note(match self.messages.len() {
            0 => "taken back; the conversation is empty",
            _ => "taken back",
        });
        Ok(())
    }

    /// Answers the last message; whether there is an answer (it may have been stopped before the first word).
    fn reply(&mut self) -> anyhow::Result<bool> {
        let done = self.answer()?;
        note(&done.summary());
        if done.finish == Finish::Cancelled && done.content.is_empty() {
            note("stopped before the answer; your message is taken back (arrow up brings it here)");
            return Ok(false);
        }
        let mut message = json!({"role": "assistant", "content": done.content});
        if !done.reasoning.is_empty() {
            message["reasoning_content"] = json!(done.reasoning);
        }
        self.messages.push(message);
        Ok(true)
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let system = self.system.iter().map(|s| json!({"role": "system", "content": s}));
        let messages: Vec<Value> = system.chain(self.messages.iter().cloned()).collect();
        let prompt = Prompt::chat(self.tokenizer, &self.template, &messages, &self.variables)?;
        let (limit, len) = (self.session.context(), prompt.tokens.len());
        if len > limit {
            bail!(
                "the conversation has {len} tokens and the context holds {limit}; begin a /new one, take messages \
                 back with /undo, or start with a larger --context"
            );
        }
        self.cancel.store(false, Ordering::Relaxed);
        let settings = Settings {
            sampling: self.sampling.clone(),
            max_tokens: self.max_tokens,
            stop: &self.stop,
            cancel: &self.cancel,
        };
        let screen = &mut self.screen;
        let done = answer(&mut self.session, self.tokenizer, &prompt, settings, |event| screen.event(event, len));
        screen.end()?;
        done
    }

    fn set(&mut self, rest: &str) -> anyhow::Result<()> {
        if rest.is_empty() {
            note(&self.settings());
            return Ok(());
        }
        let Some((name, value)) = rest.split_once(char::is_whitespace) else {
            bail!("/set takes a name and a value, such as /set temperature 0.6");
        };
        let value = value.trim();
        let number = || value.parse::<f32>().map_err(|_| anyhow::anyhow!("{name} is {value:?}; it must be a number"));
        let whole =
            || value.parse::<u64>().map_err(|_| anyhow::anyhow!("{name} is {value:?}; it must be a whole number"));
        let mut changed = self.sampling.clone();
        match name {
            "temperature" => changed.temperature = number()?,
            "top-p" => changed.top_p = number()?,
            "min-p" => changed.min_p = number()?,
            "top-k" => changed.top_k = usize::try_from(whole()?)?,
            "seed" => changed.seed = whole()?,
            "max-tokens" => match usize::try_from(whole()?)? {
                0 => bail!("max-tokens is 0; it must be at least 1"),
                max => self.max_tokens = Some(max),
            },
            _ => bail!("{name} is not one of temperature, top-p, top-k, min-p, seed, max-tokens"),
        }
        changed.check(self.vocab)?;
        self.sampling = changed;
        note(&self.settings());
        Ok(())
    }

    fn settings(&self) -> String {
        let s = &self.sampling;
        let max = self.max_tokens.map_or_else(|| "unlimited".to_string(), |max| max.to_string());
        format!(
            "temperature {}, top-p {}, top-k {}, min-p {}, seed {}, max-tokens {max}",
            s.temperature, s.top_p, s.top_k, s.min_p, s.seed
        )
    }

    fn save(&mut self, file: &str) -> anyhow::Result<()> {
        if file.is_empty() {
            bail!("/save takes the name of a file");
        }
        let path = Path::new(file);
        if path.exists() && self.file.as_deref() != Some(path) {
            bail!("{file}: exists already; give another name");
        }
        let text = serde_json::to_string_pretty(&json!({"system": self.system, "messages": self.messages}))? + "\n";
        whole_file::write(path, |part| std::io::Write::write_all(part, text.as_bytes()))?;
        self.file = Some(path.to_path_buf());
        note(&format!("{file}: {} messages", self.messages.len()));
        Ok(())
    }

    fn load(&mut self, file: &str) -> anyhow::Result<()> {
        if file.is_empty() {
            bail!("/load takes the name of a file that /save wrote");
        }
        let mut text = String::new();
        std::fs::File::open(file)
            .and_then(|open| open.take(LOAD_LIMIT_BYTES + 1).read_to_string(&mut text))
            .with_context(|| format!("{file}: cannot be read"))?;
        if text.len() as u64 > LOAD_LIMIT_BYTES {
            bail!("{file}: is larger than {LOAD_LIMIT_BYTES} bytes; it cannot be a conversation");
        }
        let saved: Value = serde_json::from_str(&text).with_context(|| format!("{file}: is not valid JSON"))?;
        let Some(messages) = saved["messages"].as_array() else {
            bail!("{file}: has no list \"messages\"; it is not a conversation that /save wrote");
        };
        if let Some(at) = messages.iter().position(|m| !m["role"].is_string() || !m["content"].is_string()) {
            bail!("{file}: messages[{at}] has no \"role\" or no \"content\" that is text");
        }
        self.messages = messages.clone();
        self.system = saved["system"].as_str().map(str::to_string);
        self.file = Some(PathBuf::from(file));
        note(&format!("{file}: {} messages", messages.len()));
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
