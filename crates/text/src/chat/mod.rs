//! Chat templates: messages to the prompt of a model.
//!
//! Published templates are Jinja programs written for Python. They run here in an interpreter over plain values (no
//! attribute of a host object, no file, no network), with bounds on instructions, recursion, copied text and output,
//! and give the text that the reference gives.
//!
//! **Origin of text.** A prompt mixes what the template wrote (which may contain special tokens) and what messages and
//! tools contain (which must not). [`ChatTemplate::render_segments`] returns both apart. Each character of a message
//! is marked before the template runs ([`ink`]), and the template is rewritten so that its comparisons, searches and
//! methods see through the marks ([`instrument`], [`functions`]). So a marker that a user writes stays text, even if
//! the template looks for it (`content.split('</think>')`), trims it, or glues it to another field.
//!
//! What counts as the template's own: its literals; `bos_token` and `eos_token`; a `role` that is a plain lower-case
//! word; names of fields made of ASCII letters, digits, `_`, `-`, `$`; numbers, `True`, `False`, `None`. Limits:
//! sorting by text and regrouping see marked characters, so their order of equal-looking keys may differ; code points
//! of the unassigned planes 4 to 13 become U+FFFD.

mod functions;
mod ink;
mod instrument;
mod python;

use std::sync::atomic::AtomicU64;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Value as Json;

use crate::segment::Segment;
use functions::{BUDGET, Budget, RAISED};

/// Longest template; the longest published one has 20 KB.
const MAX_SOURCE_BYTES: usize = 512 << 10;
/// Most characters that are neither letters nor in quotes in one tag.
const MAX_TAG_SIGNS: usize = 1500;
/// Most `elif` branches of a template.
const MAX_ELIFS: usize = 200;
/// Instructions of a render: these, and some for each message. Fuzzing has smaller limits, because it looks for wrong
/// origins and panics, and most of its templates that loop at all loop for ever.
const FUEL: u64 = if cfg!(fuzzing) { 2_000 } else { 400_000 };
const FUEL_PER_MESSAGE: u64 = if cfg!(fuzzing) { 500 } else { 5_000 };
/// Text that a render may touch: this much, and each byte of the input so many times.
const BUDGET_BYTES: u64 = if cfg!(fuzzing) { 64 << 10 } else { 16 << 20 };
const BUDGET_PER_INPUT_BYTE: u64 = 256;
/// Largest output: this, or four times the input.
const MAX_OUTPUT_BYTES: usize = if cfg!(fuzzing) { 64 << 10 } else { 4 << 20 };

/// The variables that a request may set besides those of [`ChatInput`]. No others: a template's own variables are not
/// a request's to change.
const ALLOWED_VARIABLES: [&str; 12] = [
    "enable_thinking",
    "thinking",
    "thinking_budget",
    "reasoning_effort",
    "model_identity",
    "date_string",
    "tools_in_user_message",
    "builtin_tools",
    "documents",
    "add_vision_id",
    "continue_final_message",
    "strftime_now",
];

/// Why a template could not be read or rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model has no template.
    #[error("the model has no chat template; give one, or send plain text")]
    Missing,
    /// The template is no template.
    #[error("chat template: {0}")]
    Syntax(String),
    /// The template refuses these messages; its own words.
    #[error("the chat template refuses the messages: {0}")]
    Refused(String),
    /// The template failed while it ran.
    #[error("chat template: {0}")]
    Failed(String),
    /// The template runs too long, too deep, or writes too much.
    #[error("chat template: stopped because it {0}")]
    TooMuch(String),
    /// A variable that requests may not set.
    #[error("\"{name}\" is not a variable that can be set (those are: {known})")]
    Variable {
        /// The variable.
        name: String,
        /// Those that can be set.
        known: String,
    },
}

/// What a template is rendered with.
#[derive(Clone, Debug, Default)]
pub struct ChatInput<'a> {
    /// The messages: objects with `role`, `content`, and what else the template knows.
    pub messages: &'a [Json],
    /// The tools, if any.
    pub tools: Option<&'a [Json]>,
    /// Whether the prompt ends where the assistant's answer begins.
    pub add_generation_prompt: bool,
    /// The text of the begin token.
    pub bos_token: &'a str,
    /// The text of the end token.
    pub eos_token: &'a str,
    /// The date that `strftime_now` formats: year, month, day. Without it such templates fail.
    pub today: Option<(i32, u32, u32)>,
    /// Further variables, such as `enable_thinking`.
    pub variables: Option<&'a serde_json::Map<String, Json>>,
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Parses a template.
    pub fn parse(source: &str) -> Result<ChatTemplate, TemplateError> {
        if source.trim().is_empty() {
            return Err(TemplateError::Missing);
        }
        check_source(source)?;
        let syntax = || SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax().map_err(|error| TemplateError::Syntax(describe(&error)))?;
        let printed = instrument::instrument(&without_generation_tags(source), syntax)
            .map_err(|error| TemplateError::Syntax(describe(&error)))?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(100);
        environment.set_debug(false);
        environment.set_formatter(|out, state, value| {
            let text = match value.kind() {
                ValueKind::String => None,
                _ => Some(python::to_str(value)?),
            };
            let text = text.as_deref().or_else(|| value.as_str()).unwrap_or_default();
            functions::charge(state, text.len())?;
            out.write_str(text).map_err(minijinja::Error::from)
        });
        functions::install(&mut environment);
        let added = environment.add_template_owned("chat_template", printed);
        added.map_err(|error| TemplateError::Syntax(describe(&error)))?;
        Ok(ChatTemplate { environment })
    }

    /// The prompt as one text.
    pub fn render(&self, input: &ChatInput<'_>) -> Result<String, TemplateError> {
        Ok(self.render_segments(input)?.into_iter().map(|segment| segment.text).collect())
    }

    /// The prompt as runs of text with their origin.
    pub fn render_segments(&self, input: &ChatInput<'_>) -> Result<Vec<Segment>, TemplateError> {
        let input_bytes = input_size(input);
        let context = context(input, input_bytes)?;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_MESSAGE * input.messages.len() as u64));
        if let Some(today) = input.today {
            environment.add_function("strftime_now", move |format: String| strftime(&format, today));
        }
        let template = environment.get_template("chat_template").map_err(|error| failure(&error))?;
        let limit = MAX_OUTPUT_BYTES.max(input_bytes.saturating_mul(4)).saturating_mul(2);
        let mut output = Limited { bytes: Vec::new(), limit };
        let rendered = template.render_captured_to(context, &mut output);
        if output.bytes.len() >= output.limit {
            return Err(TemplateError::TooMuch("writes more than 4 MiB and four times its input".into()));
        }
        drop(rendered.map_err(|error| failure(&error))?);
        let text = String::from_utf8(output.bytes).map_err(|error| TemplateError::Failed(error.to_string()))?;
        Ok(ink::segments(&text))
    }
}

/// A buffer that takes no more than its limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(self.limit - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn context(input: &ChatInput<'_>, input_bytes: usize) -> Result<Value, TemplateError> {
    let failed = |error: minijinja::Error| failure(&error);
    let messages: Result<Vec<Value>, _> = input.messages.iter().map(ink::ink_message).collect();
    let tools = match input.tools {
        Some(tools) => {
            let tools: Result<Vec<Value>, _> = tools.iter().map(|tool| ink::ink_json(tool, 0)).collect();
            Value::from(tools.map_err(failed)?)
        }
        None => Value::from(()),
    };
    let budget = BUDGET_BYTES + BUDGET_PER_INPUT_BYTE * input_bytes as u64;
    let mut pairs = Vec::from([
        ("messages".to_string(), Value::from(messages.map_err(failed)?)),
        ("tools".into(), tools),
        ("documents".into(), Value::from(())),
        ("add_generation_prompt".into(), Value::from(input.add_generation_prompt)),
        ("bos_token".into(), Value::from(input.bos_token)),
        ("eos_token".into(), Value::from(input.eos_token)),
        (BUDGET.into(), Value::from_object(Budget(AtomicU64::new(budget)))),
    ]);
    for (name, value) in input.variables.into_iter().flatten() {
        if name == "strftime_now" || !ALLOWED_VARIABLES.contains(&name.as_str()) {
            let known = ALLOWED_VARIABLES.iter().filter(|name| **name != "strftime_now");
            let known = known.copied().collect::<Vec<_>>().join(", ");
            return Err(TemplateError::Variable { name: name.chars().take(80).collect(), known });
        }
        pairs.push((name.clone(), ink::ink_json(value, 0).map_err(failed)?));
    }
    Ok(Value::from_pairs(pairs))
}

/// The bytes of all texts of the input.
fn input_size(input: &ChatInput<'_>) -> usize {
    let values = input.messages.iter().chain(input.tools.into_iter().flatten());
    let mut open: Vec<&Json> = values.chain(input.variables.into_iter().flat_map(|map| map.values())).collect();
    let mut total = 0;
    while let Some(value) = open.pop() {
        match value {
            Json::String(text) => total += text.len(),
            Json::Array(items) => open.extend(items),
            Json::Object(fields) => {
                total += fields.keys().map(String::len).sum::<usize>();
                open.extend(fields.values());
            }
            _ => total += 8,
        }
    }
    total
}

fn failure(error: &minijinja::Error) -> TemplateError {
    let text = describe(error);
    if let Some(at) = text.find(RAISED) {
        return TemplateError::Refused(text[at + RAISED.len()..].to_string());
    }
    match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::TooMuch("runs too long".into()),
        _ if text.contains("recursion limit") => TemplateError::TooMuch("nests too deeply".into()),
        _ => TemplateError::Failed(text),
    }
}

/// What went wrong, without positions: they would be those of the rewritten template.
fn describe(error: &minijinja::Error) -> String {
    let text = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    ink::plain_text(&text.chars().take(400).collect::<String>())
}

/// Refuses sources whose syntax tree would be too deep, before they are parsed.
fn check_source(source: &str) -> Result<(), TemplateError> {
    let refuse = |what: &str| Err(TemplateError::Syntax(what.to_string()));
    if source.len() > MAX_SOURCE_BYTES {
        return refuse("longer than 512 KiB");
    }
    if source.chars().any(|c| (4..=13).contains(&(u32::from(c) >> 16))) {
        return refuse("it contains unassigned code points");
    }
    if source.matches("elif").count() > MAX_ELIFS {
        return refuse("more than 200 elif branches");
    }
    let bytes = source.as_bytes();
    let mut at = 0;
    while let Some(open) = source[at..].find(['{']).map(|found| at + found) {
        at = open + 1;
        if !matches!(bytes.get(at), Some(b'%' | b'{')) {
            continue;
        }
        let (mut signs, mut quote) = (0, None);
        while at < bytes.len() {
            match (bytes[at], quote) {
                (b'\\', Some(_)) => at += 1,
                (byte, Some(open)) if byte == open => quote = None,
                (_, Some(_)) => {}
                (b'"' | b'\'', None) => quote = Some(bytes[at]),
                (b'%' | b'}', None) if bytes.get(at + 1) == Some(&b'}') => break,
                (byte, None) if !byte.is_ascii_alphanumeric() => signs += 1,
                _ => {}
            }
            at += 1;
        }
        if signs > MAX_TAG_SIGNS {
            return refuse("a tag with more than 1500 operators");
        }
        at = source.ceil_char_boundary(at.min(source.len()));
    }
    Ok(())
}

/// `{% generation %}` marks what is trained on; for a prompt it is no more than a block.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let (before, tag) = rest.split_at(open);
        out.push_str(before);
        let Some(close) = tag[2..].find("%}").map(|at| at + 2) else {
            rest = tag;
            break;
        };
        let inner = &tag[2..close];
        let name = inner.trim_matches(['-', '+']).trim();
        let tag_text = &tag[..close + 2];
        match name {
            "generation" => out.push_str(&tag_text.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag_text.replace("endgeneration", "endif")),
            _ => out.push_str(tag_text),
        }
        rest = &tag[close + 2..];
    }
    out.push_str(rest);
    out
}

/// `strftime` of a date at midnight, with the directives that templates use.
fn strftime(format: &str, (year, month, day): (i32, u32, u32)) -> Result<String, minijinja::Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let failed = |what: String| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    let month_name = month.checked_sub(1).and_then(|index| MONTHS.get(index as usize));
    let month_name = month_name.ok_or_else(|| failed(format!("{month} is no month")))?;
    // Zeller's rule as Sakamoto writes it.
    let offsets = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
    let y = i64::from(year) - i64::from(month < 3);
    let weekday = (y + y / 4 - y / 100 + y / 400 + offsets[month as usize - 1] + i64::from(day)).rem_euclid(7);
    let weekday = DAYS[weekday as usize];
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => out.push_str(&format!("{year:04}")),
            Some('y') => out.push_str(&format!("{:02}", year.rem_euclid(100))),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('H' | 'M' | 'S') => out.push_str("00"),
            Some('F') => out.push_str(&format!("{year:04}-{month:02}-{day:02}")),
            Some('%') => out.push('%'),
            other => return Err(failed(format!("strftime_now: directive %{} is not known", other.unwrap_or(' ')))),
        }
    }
    Ok(out)
}
