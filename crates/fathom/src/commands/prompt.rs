//! `fathom prompt`: messages through a chat template, for comparing with other implementations.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use text::{ChatInput, ChatTemplate};

use crate::answer::today;
use crate::opened::open_tokenizer;
use crate::terminal;

/// Show the prompt that a model's chat template makes of messages
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Reads JSON: a list of messages, or an object with \"messages\" and, if wanted, \"tools\", \"add_generation_prompt\" \
and variables of the template such as \"enable_thinking\". Prints the prompt and nothing else.

Example:
  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | fathom prompt ORG/NAME")]
pub(crate) struct Args {
    /// A directory, a .gguf file, the name of a pulled model, or a template (.jinja)
    model: String,

    /// Read the messages from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,

    /// End after the last message, not where the answer begins
    #[arg(long)]
    no_generation_prompt: bool,

    /// The text of the begin token [default: the tokenizer's]
    #[arg(long, value_name = "TEXT")]
    bos: Option<String>,

    /// The text of the end token [default: the tokenizer's]
    #[arg(long, value_name = "TEXT")]
    eos: Option<String>,

    /// The date that templates may state, as YYYY-MM-DD [default: today]
    #[arg(long, value_name = "DATE", value_parser = date)]
    today: Option<(i32, u32, u32)>,

    /// The template of this name, where a model has several
    #[arg(long, value_name = "NAME")]
    template: Option<String>,

    /// Print the token numbers (JSON) instead of the text
    #[arg(long)]
    tokens: bool,
}

fn date(text: &str) -> Result<(i32, u32, u32), String> {
    let date: jiff::civil::Date = text.parse().map_err(|error| format!("{error}"))?;
    Ok((date.year().into(), date.month() as u32, date.day() as u32))
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let tokenizer = if is_template(&args.model) { None } else { Some(open_tokenizer(&args.model)?) };
    let template = match &tokenizer {
        None => std::fs::read_to_string(&args.model).with_context(|| format!("{}: cannot be read", args.model))?,
        Some(tokenizer) => match tokenizer.chat_template(args.template.as_deref()) {
            Some(source) => source.to_string(),
            None => match &args.template {
                Some(name) => bail!("{}: there is no chat template named {name:?}", args.model),
                None => bail!("{}: there is no chat template", args.model),
            },
        },
    };
    let template =
        ChatTemplate::parse(&template).with_context(|| format!("{}: the chat template cannot be used", args.model))?;
    let input = read_input(&args)?;
    let special = |given: &Option<String>, id: Option<u32>| -> String {
        let own = || tokenizer.as_ref().and_then(|t| t.token(id?)).unwrap_or_default().to_string();
        given.clone().unwrap_or_else(own)
    };
    let bos = special(&args.bos, tokenizer.as_ref().and_then(|t| t.bos_id()));
    let eos = special(&args.eos, tokenizer.as_ref().and_then(|t| t.eos_ids().first().copied()));
    let rendered = template.render_segments(&ChatInput {
        messages: &input.messages,
        tools: input.tools.as_deref(),
        add_generation_prompt: input.add_generation_prompt && !args.no_generation_prompt,
        bos_token: &bos,
        eos_token: &eos,
        today: Some(args.today.unwrap_or_else(today)),
        variables: Some(&input.variables),
    });
    let rendered = rendered.with_context(|| args.model.clone())?;
    let text = match (&tokenizer, args.tokens) {
        (_, false) => rendered.into_iter().map(|segment| segment.text).collect(),
        (Some(tokenizer), true) => serde_json::to_string(&tokenizer.encode_segments(&rendered)?)? + "\n",
        (None, true) => bail!("--tokens needs a tokenizer; name a model in place of the template"),
    };
    Ok(terminal::print(&text)?)
}

fn is_template(model: &str) -> bool {
    Path::new(model).extension().is_some_and(|e| e == "jinja" || e == "j2")
}

struct Input {
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
    add_generation_prompt: bool,
    variables: Map<String, Value>,
}

fn read_input(args: &Args) -> anyhow::Result<Input> {
    let text = match &args.messages {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("{}: cannot be read", file.display()))?,
        None => terminal::read_input("the messages as JSON")?,
    };
    let json: Value = serde_json::from_str(&text).context("the messages are not valid JSON")?;
    let mut object = match json {
        Value::Array(messages) => Map::from_iter([("messages".to_string(), Value::Array(messages))]),
        Value::Object(object) => object,
        _ => bail!("the messages are neither a list nor an object with \"messages\""),
    };
    let Some(Value::Array(messages)) = object.remove("messages") else {
        bail!("\"messages\" is missing or not a list");
    };
    let tools = match object.remove("tools") {
        None | Some(Value::Null) => None,
        Some(Value::Array(tools)) => Some(tools),
        Some(_) => bail!("\"tools\" is not a list"),
    };
    let add_generation_prompt = match object.remove("add_generation_prompt") {
        None => true,
        Some(Value::Bool(add)) => add,
        Some(other) => bail!("\"add_generation_prompt\" is {other}; it must be true or false"),
    };
    Ok(Input { messages, tools, add_generation_prompt, variables: object })
}
