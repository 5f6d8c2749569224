//! A served model as text: its names, its tokenizer, its template, and prompts made with them.
//!
//! Text of users, tools and the model itself never becomes a special token: prompts are lists of [`Segment`]s, and
//! only what a template (or this file, for markers) wrote is trusted.

use engine::request::Pooling;
use engine::sampler::Sampling;
use serde_json::{Map, Value, json};
use text::{ChatInput, ChatTemplate, ReasoningFormat, Segment, Tokenizer};

use crate::error::{ApiError, ApiResult};
use crate::tools::ToolFormat;
use crate::wire::chat::{Content, Message, Role, Tool};
use crate::wire::info::BudgetCurve;

/// A model as the server sees it. The tokenizer is `'static` because streams of answers outlive every call; models are
/// served as long as the process lives.
pub struct Served {
    /// The name in answers and in `/v1/models`.
    pub id: String,
    /// Text to tokens and back.
    pub tokenizer: &'static Tokenizer,
    /// How a conversation is written, if the model has a way.
    pub template: Option<ChatTemplate>,
    /// What is used where a request says nothing (its seed is not used).
    pub defaults: Sampling,
    /// Tokens of a prompt and its answer together.
    pub context_tokens: usize,
    /// Logits of the model, at least as many as the tokenizer has tokens.
    pub vocab: usize,
    /// Today: year, month, day, for templates that state it.
    pub today: fn() -> (i32, u32, u32),
    /// Whether it is the model inside the program; the page then suggests what that can do.
    pub built_in: bool,
    /// How right its answers are by tokens of reasoning, where that was measured; the page draws it.
    pub budget_curve: Option<BudgetCurve>,
    /// How vectors of texts are made, if the model gives any.
    pub embedder: Option<Embedder>,
}

/// How vectors of texts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedder {
    /// How a text's rows become one.
    pub pooling: Pooling,
    /// Elements of a vector.
    pub length: usize,
    /// A token that the model was trained to see after each text.
    pub end: Option<u32>,
}

/// What can be known of a model from its template and its vocabulary.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    /// The template has words for tools.
    pub(crate) tools: bool,
    /// It wants the arguments of calls as objects and not as text.
    pub(crate) object_arguments: bool,
    pub(crate) tool_format: ToolFormat,
    /// It reasons before it answers.
    pub(crate) reasoning: bool,
    /// Variables of the template that switch reasoning.
    pub(crate) switches: Vec<&'static str>,
    /// The template reads `reasoning_effort`.
    pub(crate) effort: bool,
    /// It answers in channels (gpt-oss).
    pub(crate) channels: bool,
    pub(crate) fill: Option<FillTokens>,
}

/// The tokens of fill-in-the-middle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FillTokens {
    pub(crate) prefix: u32,
    pub(crate) suffix: u32,
    pub(crate) middle: u32,
}

/// A prompt in tokens, and how its answer is read.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<u32>,
    /// `None`: all of the answer is content.
    pub(crate) format: Option<ReasoningFormat>,
}

/// How a conversation is to be answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Reason or not; as the template has it where nothing is said.
    pub(crate) think: Option<bool>,
    pub(crate) effort: Option<String>,
    /// Further variables of the template.
    pub(crate) variables: Map<String, Value>,
}

/// How published models write the tokens of fill-in-the-middle: before, after, the gap itself, in the order in which
/// they stand.
const FILLS: [(&str, &str, &str); 5] = [
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"),
    ("<PRE>", "<SUF>", "<MID>"),
];

/// Qwen3 reads the first, DeepSeek V3.1 the second.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];

impl Served {
    pub(crate) fn traits(&self) -> Traits {
        let source = self.tokenizer.chat_template(None).unwrap_or_default();
        let id = |name: &str| self.tokenizer.id(name);
        let channels = id("<|channel|>").is_some() && id("<|message|>").is_some();
        let tools = source.contains("tools");
        let fill = FILLS.iter().find_map(|(prefix, suffix, middle)| {
            Some(FillTokens { prefix: id(prefix)?, suffix: id(suffix)?, middle: id(middle)? })
        });
        Traits {
            tools,
            object_arguments: tools && self.wants_object_arguments(),
            tool_format: if channels { ToolFormat::Channels } else { ToolFormat::of_template(source) },
            reasoning: channels || source.contains("</think>") || id("</think>").is_some(),
            switches: SWITCHES.into_iter().filter(|name| mentions(source, name)).collect(),
            effort: mentions(source, "reasoning_effort"),
            channels,
            fill,
        }
    }

    /// Whether a call's arguments given as text come out quoted once more, and given as an object do not.
    fn wants_object_arguments(&self) -> bool {
        let rendered = |arguments: Value| {
            let call = json!({"type": "function", "id": "call_1", "function": {"name": "f", "arguments": arguments}});
            let messages = [
                json!({"role": "user", "content": "x"}),
                json!({"role": "assistant", "content": "", "tool_calls": [call]}),
                json!({"role": "tool", "content": "y", "tool_call_id": "call_1", "name": "f"}),
            ];
            let segments = self.render(&messages, None, true, &Map::new()).ok()?;
            Some(segments.into_iter().map(|s| s.text).collect::<String>())
        };
        let plain = |text: String| text.contains("{\"probe\":") && !text.contains("\\\"probe");
        let as_text = rendered(json!("{\"probe\": 1}")).is_some_and(plain);
        !as_text && rendered(json!({"probe": 1})).is_some_and(plain)
    }

    fn render(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        add_generation_prompt: bool,
        variables: &Map<String, Value>,
    ) -> ApiResult<Vec<Segment>> {
        let Some(template) = &self.template else {
            let message = "this model has no chat template; /v1/completions goes on with plain text";
            return Err(ApiError::value("messages", message));
        };
        let token = |id: Option<u32>| id.and_then(|id| self.tokenizer.token(id)).unwrap_or_default();
        let input = ChatInput {
            messages,
            tools,
            add_generation_prompt,
            bos_token: token(self.tokenizer.bos_id()),
            eos_token: token(self.tokenizer.eos_ids().first().copied()),
            today: Some((self.today)()),
            variables: Some(variables),
        };
        template.render_segments(&input).map_err(|error| ApiError::value("messages", error.to_string()))
    }

    /// The prompt of a conversation.
    pub(crate) fn chat(
        &self,
        traits: &Traits,
        messages: &[Message],
        tools: &[Tool],
        wishes: &Wishes,
    ) -> ApiResult<Prompt> {
        let (given, prefix) = match messages.split_last() {
            Some((last, before)) if last.prefix == Some(true) => (before, Some(last)),
            _ => (messages, None),
        };
        let mut rendered: Vec<Value> = given.iter().map(|message| as_template_reads(message, traits)).collect();
        let tools: Vec<Value> = tools.iter().map(|tool| json!(tool)).collect();
        if !tools.is_empty() && !traits.tools {
            explain_tools(&mut rendered, &tools);
        }
        let native = (!tools.is_empty() && traits.tools).then_some(tools.as_slice());
        let mut variables = wishes.variables.clone();
        if let Some(think) = wishes.think {
            variables.extend(traits.switches.iter().map(|name| (name.to_string(), json!(think))));
        }
        if let Some(effort) = wishes.effort.as_ref().filter(|_| traits.effort) {
            variables.insert("reasoning_effort".into(), json!(effort_word(effort, traits.channels)));
        }
        let mut segments = self.render(&rendered, native, true, &variables)?;
        if wishes.think == Some(false) && traits.reasoning && !traits.channels {
            skip_reasoning(&mut segments);
        }
        if let Some(prefix) = prefix {
            begin_answer(&mut segments, prefix)?;
        }
        let text: String = segments.iter().map(|s| s.text.as_str()).collect();
        let tokens = self.encode(&segments)?;
        Ok(Prompt { tokens, format: Some(reasoning_format(traits, &text)) })
    }

    /// Plain text to go on with.
    pub(crate) fn plain(&self, text: &str) -> ApiResult<Prompt> {
        let mut tokens = self.encode(&[Segment::untrusted(text)])?;
        if let Some(bos) = self.tokenizer.bos_id().filter(|_| self.tokenizer.add_bos()) {
            tokens.insert(0, bos);
        }
        Ok(Prompt { tokens, format: None })
    }

    /// The gap between two texts.
    pub(crate) fn fill(&self, fill: FillTokens, before: &str, after: &str) -> ApiResult<Prompt> {
        let mut tokens: Vec<u32> = self.tokenizer.bos_id().filter(|_| self.tokenizer.add_bos()).into_iter().collect();
        tokens.push(fill.prefix);
        tokens.extend(self.encode(&[Segment::untrusted(before)])?);
        tokens.push(fill.suffix);
        tokens.extend(self.encode(&[Segment::untrusted(after)])?);
        tokens.push(fill.middle);
        Ok(Prompt { tokens, format: None })
    }

    fn encode(&self, segments: &[Segment]) -> ApiResult<Vec<u32>> {
        let tokens = self.tokenizer.encode_segments(segments);
        tokens.map_err(|error| ApiError::format(format!("the text cannot be turned into tokens: {error}")))
    }

    /// The text of one token, as answers show it.
    pub(crate) fn token_text(&self, token: u32) -> String {
        match self.tokenizer.token_bytes(token) {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => String::from(char::REPLACEMENT_CHARACTER),
        }
    }
}

/// A request's word for effort as templates know it: gpt-oss has three words, DeepSeek's models have three others.
fn effort_word(asked: &str, channels: bool) -> &str {
    match (asked, channels) {
        ("none" | "minimal", _) => "low",
        ("xhigh" | "max" | "ultra", true) | ("medium" | "xhigh", false) => "high",
        ("ultra", false) => "max",
        (word, _) => word,
    }
}

/// gpt-oss answers in channels, the others reason between `<think>` markers if at all.
fn reasoning_format(traits: &Traits, prompt: &str) -> ReasoningFormat {
    if traits.channels {
        return ReasoningFormat::Channels { starts_in_header: prompt.ends_with("<|start|>assistant") };
    }
    ReasoningFormat::think_after(prompt)
}

/// Whether a template has a word, not as a part of another.
fn mentions(source: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    source.match_indices(word).any(|(at, _)| {
        !source[..at].ends_with(part) && !source[at + word.len()..].starts_with(part) && !source[..at].ends_with('/')
    })
}

/// A message as templates read it.
fn as_template_reads(message: &Message, traits: &Traits) -> Value {
    let role = match message.role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut out = Map::new();
    out.insert("role".into(), json!(role));
    out.insert("content".into(), json!(content_text(message.content.as_ref())));
    let texts = [("reasoning_content", &message.reasoning_content), ("tool_call_id", &message.tool_call_id)];
    for (name, text) in texts.into_iter().chain([("name", &message.name)]) {
        if let Some(text) = text {
            out.insert(name.into(), json!(text));
        }
    }
    let calls = message.tool_calls.iter().flatten().map(|call| {
        let parsed = serde_json::from_str::<Value>(&call.function.arguments).ok();
        let arguments = match parsed.filter(|value| value.is_object() && traits.object_arguments) {
            Some(object) => object,
            None => json!(call.function.arguments),
        };
        let function = json!({"name": call.function.name, "arguments": arguments});
        json!({"id": call.id, "type": "function", "function": function})
    });
    let calls: Vec<Value> = calls.collect();
    if calls.is_empty() {
        return Value::Object(out);
    }
    if traits.tools {
        out.insert("tool_calls".into(), json!(calls));
    } else {
        // Templates without words for tools: what the model said when it called.
        let mut text = content_text(message.content.as_ref());
        for call in message.tool_calls.iter().flatten() {
            let arguments: Value = serde_json::from_str(&call.function.arguments).unwrap_or_default();
            let said = json!({"name": call.function.name, "arguments": arguments});
            text.push_str(&format!("\n<tool_call>\n{said}\n</tool_call>"));
        }
        out.insert("content".into(), json!(text.trim_start()));
    }
    Value::Object(out)
}

/// All text of a message.
pub(crate) fn content_text(content: Option<&Content>) -> String {
    match content {
        None => String::new(),
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Parts(parts)) => parts.iter().filter_map(|part| part.text.as_deref()).collect(),
    }
}

/// Tells a model whose template has no words for tools what they are, in the form that Hermes and Qwen models use;
/// answers of tools become messages of the user.
fn explain_tools(messages: &mut Vec<Value>, tools: &[Value]) {
    let list: String = tools.iter().map(|tool| format!("{tool}\n")).collect();
    let text = format!(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nThe functions are given as \
         JSON within <tools></tools>:\n<tools>\n{list}</tools>\n\nFor each call, answer with a JSON object with the \
         function's name and arguments within <tool_call></tool_call>:\n<tool_call>\n{{\"name\": <name>, \
         \"arguments\": <arguments>}}\n</tool_call>"
    );
    for message in messages.iter_mut().filter(|message| message["role"] == "tool") {
        let answer = message["content"].as_str().unwrap_or_default();
        *message = json!({"role": "user", "content": format!("<tool_response>\n{answer}\n</tool_response>")});
    }
    match messages.first_mut().filter(|message| message["role"] == "system") {
        Some(system) => {
            let own = system["content"].as_str().unwrap_or_default();
            *system = json!({"role": "system", "content": format!("{own}\n\n{text}")});
        }
        None => messages.insert(0, json!({"role": "system", "content": text})),
    }
}

/// Closes the reasoning before it begins, where the template has no switch that did.
fn skip_reasoning(segments: &mut Vec<Segment>) {
    let text: String = segments.iter().map(|s| s.text.as_str()).collect();
    let end = text.trim_end();
    if end.ends_with("</think>") {
        return;
    }
    let close = if end.ends_with("<think>") { "\n</think>\n\n" } else { "<think>\n\n</think>\n\n" };
    segments.push(Segment::trusted(close));
}

/// Adds the beginning of an answer that a request gives.
fn begin_answer(segments: &mut Vec<Segment>, prefix: &Message) -> ApiResult<()> {
    if prefix.role != Role::Assistant {
        return Err(ApiError::value("messages", "only a last message of the assistant can be a prefix"));
    }
    let text: String = segments.iter().map(|s| s.text.as_str()).collect();
    let open = text.trim_end().ends_with("<think>");
    let content = content_text(prefix.content.as_ref());
    if let Some(reasoning) = prefix.reasoning_content.as_ref().filter(|text| !text.is_empty()) {
        if !open {
            segments.push(Segment::trusted("<think>\n"));
        }
        segments.push(Segment::untrusted(reasoning));
        if content.is_empty() {
            return Ok(());
        }
        segments.push(Segment::trusted("\n</think>\n\n"));
    } else if open && !content.is_empty() {
        segments.push(Segment::trusted("\n</think>\n\n"));
    }
    segments.push(Segment::untrusted(content));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::effort_word;

    #[test]
    fn efforts_become_words_that_templates_know() {
        let asked = ["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"];
        let words = |channels| asked.map(|word| effort_word(word, channels)).join(" ");
        assert_eq!(words(true), "low low low medium high high high high");
        assert_eq!(words(false), "low low low high high high max max");
    }
}
