//! `POST /v1/chat/completions`.

use std::sync::Arc;

use async_stream::stream;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::settings::{Asked, alias_thinks, at_most, number, stops};
use crate::error::{ApiError, ApiResult, Dialect};
use crate::guide::Form;
use crate::http::body::read_json;
use crate::http::stream::{self, Event};
use crate::language::{Wishes, content_text};
use crate::limits::Limits;
use crate::reader::{Calls, Piece};
use crate::state::{Caller, State, now_s};
use crate::wire::chat::{
    AnswerMessage, ChatChunk, ChatCompletion, ChatRequest, Choice, ChunkChoice, Content, Delta, FormatKind,
    FunctionCall, Logprobs, Message, NamedSchema, ResponseFormat, Role, Tool, ToolCall, ToolChoice, ToolMode,
};
use crate::wire::{Thinking, ThinkingKind};
use crate::work::{Checked, Job, Output, begin};

/// The program's name in answers.
pub(crate) const FINGERPRINT: &str = concat!("fathom-", env!("CARGO_PKG_VERSION"));

/// Tokens of reasoning for a low effort, where the model has no word for efforts.
const LOW_EFFORT_TOKENS: u32 = 2048;

/// The handler.
pub(crate) async fn complete(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    match answer(state, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(state: Arc<State>, request: Request<Body>) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    let caller = state.caller(&parts.headers)?;
    let request: ChatRequest = read_json(&state.limits, body).await?;
    let (stream, usage) = (request.stream == Some(true), include_usage(&request));
    let outputs = start(&state, &caller, request).await?;
    let head = Head::new("chatcmpl-", &state)?;
    let every = state.limits.keep_alive_every;
    if stream {
        return Ok(stream::events(chunks(head, outputs, usage), every));
    }
    Ok(stream::value(whole(head, outputs), every, Dialect::OpenAi).await)
}

fn include_usage(request: &ChatRequest) -> bool {
    request.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true))
}

/// Checks a request and begins to work on it.
pub(crate) async fn start(
    state: &Arc<State>,
    caller: &Caller,
    request: ChatRequest,
) -> ApiResult<mpsc::Receiver<Output>> {
    caller.check_balance()?;
    let caller = &caller.clone().for_user(request.user_id.as_deref())?;
    state.check_model(request.model.as_deref())?;
    let n = number("n", request.n, 1, state.limits.n_max)?.unwrap_or(1);
    // Before the work of reading a long conversation.
    let place = state.admission.enter(&state.limits, caller, n)?;
    let worker = Arc::clone(state);
    let job = tokio::task::spawn_blocking(move || job(&worker, request, n)).await;
    let job = job.map_err(|_| ApiError::internal("the request could not be prepared"))??;
    Ok(begin(state, caller, job, place))
}

/// All that a request asks for, checked.
fn job(state: &State, request: ChatRequest, n: usize) -> ApiResult<Job> {
    let limits = &state.limits;
    check_messages(&request.messages, limits)?;
    let tools = request.tools.unwrap_or_default();
    check_tools(&tools, limits)?;
    let choice = request.tool_choice;
    let chosen = chosen_tools(&tools, choice.as_ref())?;
    let schema = schema_of(request.response_format.as_ref(), limits)?;
    let (think, budget) = thinking(request.thinking.as_ref(), request.reasoning_effort.as_deref(), state)?;
    let think = think.or_else(|| alias_thinks(request.model.as_deref()));
    let variables = request.chat_template_kwargs.unwrap_or_default();
    let wishes = Wishes { think, effort: request.reasoning_effort, variables };
    let shown = shown_tools(&tools, choice.as_ref());
    let prompt = state.served.chat(&state.traits, &request.messages, shown, &wishes)?;
    let one_call = request.parallel_tool_calls == Some(false);
    let form = match (&chosen, &schema) {
        (Some(chosen), _) => Form::Calls(chosen),
        (None, Some(schema)) => Form::Schema(schema),
        (None, None) if shown.iter().any(|tool| tool.function.strict == Some(true)) => {
            Form::Strict(shown, state.traits.tool_format, one_call)
        }
        (None, None) => Form::Any,
    };
    let plain = matches!(form, Form::Any) && shown.is_empty();
    let guide = state.grammars.guide(form, budget, prompt.format.as_ref())?;
    let most = request.max_completion_tokens.or(request.max_tokens);
    let sampling = Asked {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        repetition_penalty: request.repetition_penalty,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        logit_bias: request.logit_bias,
        seed: request.seed,
    };
    let top = number("top_logprobs", request.top_logprobs, 0, limits.top_logprobs_max)?;
    if top.is_some_and(|top| top > 0) && request.logprobs != Some(true) {
        return Err(ApiError::value("top_logprobs", "top_logprobs needs logprobs to be true"));
    }
    Ok(Job {
        prompts: vec![prompt],
        n,
        scored: false,
        sampling: sampling.sampling(state)?,
        max_tokens: number("max_tokens", most, 1, limits.max_tokens_max)?,
        stops: stops(request.stop, limits)?,
        calls: if shown.is_empty() { Calls::Ignored } else { Calls::Of(state.traits.tool_format) },
        one_call,
        top_logprobs: (request.logprobs == Some(true)).then_some(top.unwrap_or(0)),
        guide,
        checked: checked(&request.messages, plain),
    })
}

/// The tools that the model is told of.
fn shown_tools<'a>(tools: &'a [Tool], choice: Option<&ToolChoice>) -> &'a [Tool] {
    if matches!(choice, Some(ToolChoice::Mode(ToolMode::None))) { &[] } else { tools }
}

/// Tokens of the prompt that a request makes.
pub(crate) fn count_tokens(state: &State, request: ChatRequest) -> ApiResult<usize> {
    check_messages(&request.messages, &state.limits)?;
    let tools = request.tools.unwrap_or_default();
    check_tools(&tools, &state.limits)?;
    let (think, _) = thinking(request.thinking.as_ref(), request.reasoning_effort.as_deref(), state)?;
    let wishes = Wishes { think, effort: request.reasoning_effort, variables: Map::default() };
    let shown = shown_tools(&tools, request.tool_choice.as_ref());
    Ok(state.served.chat(&state.traits, &request.messages, shown, &wishes)?.tokens.len())
}

/// What the user's last message asks, if the answer to it is plain text and a rule can check it.
fn checked(messages: &[Message], plain: bool) -> Option<Checked> {
    let asked = messages.iter().rfind(|message| message.role == Role::User)?;
    let begun = messages.last().filter(|message| message.prefix == Some(true));
    let question = content_text(asked.content.as_ref());
    let answer = begun.map(|message| content_text(message.content.as_ref())).unwrap_or_default();
    (plain && eval::tasks::recognise::recognise(&question).is_some()).then_some(Checked { question, answer })
}

pub(crate) fn check_messages(messages: &[Message], limits: &Limits) -> ApiResult<()> {
    at_most("messages", messages.len(), limits.messages_max)?;
    if messages.is_empty() {
        return Err(ApiError::value("messages", "messages is empty; there must be at least one"));
    }
    for (i, message) in messages.iter().enumerate() {
        let wrong = |what: String| Err(ApiError::value(format!("messages[{i}]"), format!("messages[{i}]: {what}")));
        if let Some(Content::Parts(parts)) = &message.content {
            if let Some(part) = parts.iter().find(|part| part.kind != "text") {
                let kind: String = part.kind.chars().take(40).collect();
                return wrong(format!("a part is of type {kind:?}; this server reads only \"text\""));
            }
            if parts.iter().any(|part| part.text.is_none()) {
                return wrong("a part of type \"text\" has no text".into());
            }
        }
        let empty = message.content.is_none() && message.tool_calls.as_ref().is_none_or(Vec::is_empty);
        if empty && (message.role != Role::Assistant || message.reasoning_content.is_none()) {
            return wrong("content is missing".into());
        }
        if message.tool_calls.is_some() && message.role != Role::Assistant {
            return wrong("only the assistant's messages have tool_calls".into());
        }
        if message.prefix == Some(true) && (i + 1 < messages.len() || message.role != Role::Assistant) {
            return wrong("prefix is for the last message, which must be the assistant's".into());
        }
    }
    Ok(())
}

fn check_tools(tools: &[Tool], limits: &Limits) -> ApiResult<()> {
    at_most("tools", tools.len(), limits.tools_max)?;
    let bytes: usize = tools.iter().map(|tool| json!(tool).to_string().len()).sum();
    if bytes > limits.schema_bytes_max {
        let message = format!("tools has {bytes} bytes; the limit is {}", limits.schema_bytes_max);
        return Err(ApiError::value("tools", message));
    }
    for (i, tool) in tools.iter().enumerate() {
        let (field, name) = (format!("tools[{i}]"), &tool.function.name);
        if tool.kind != "function" {
            return Err(ApiError::value(&field, format!("{field}: type must be \"function\"")));
        }
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            let message = format!("{field}: a function's name has 1 to 64 of the characters A-Z a-z 0-9 _ - .");
            return Err(ApiError::value(field, message));
        }
        if tool.function.parameters.as_ref().is_some_and(|p| !p.is_object() && !p.is_null()) {
            return Err(ApiError::value(&field, format!("{field}: parameters must be a JSON schema of an object")));
        }
    }
    Ok(())
}

/// The tools of which one must be called.
fn chosen_tools(tools: &[Tool], choice: Option<&ToolChoice>) -> ApiResult<Option<Vec<Tool>>> {
    match choice {
        None | Some(ToolChoice::Mode(ToolMode::Auto | ToolMode::None)) => Ok(None),
        Some(ToolChoice::Mode(ToolMode::Required)) if tools.is_empty() => {
            Err(ApiError::value("tool_choice", "tool_choice is \"required\" and there are no tools"))
        }
        Some(ToolChoice::Mode(ToolMode::Required)) => Ok(Some(tools.to_vec())),
        Some(ToolChoice::Named(named)) => match tools.iter().find(|tool| tool.function.name == named.function.name) {
            Some(tool) => Ok(Some(vec![tool.clone()])),
            None => Err(ApiError::value("tool_choice", "tool_choice names a function that is not one of the tools")),
        },
    }
}

/// The schema that answers must follow.
fn schema_of(format: Option<&ResponseFormat>, limits: &Limits) -> ApiResult<Option<Value>> {
    match format {
        None | Some(ResponseFormat { kind: FormatKind::Text, .. }) => Ok(None),
        Some(ResponseFormat { kind: FormatKind::JsonObject, .. }) => Ok(Some(json!({"type": "object"}))),
        Some(ResponseFormat { kind: FormatKind::JsonSchema, json_schema }) => {
            const FIELD: &str = "response_format.json_schema.schema";
            let Some(NamedSchema { schema: Some(schema), .. }) = json_schema else {
                return Err(ApiError::value(FIELD, format!("{FIELD} is missing")));
            };
            let bytes = schema.to_string().len();
            if bytes > limits.schema_bytes_max {
                let message = format!("{FIELD} has {bytes} bytes; the limit is {}", limits.schema_bytes_max);
                return Err(ApiError::value(FIELD, message));
            }
            Ok(Some(schema.clone()))
        }
    }
}

/// Whether to reason, and for how many tokens at most.
fn thinking(
    thinking: Option<&Thinking>,
    effort: Option<&str>,
    state: &State,
) -> ApiResult<(Option<bool>, Option<u32>)> {
    let by_effort = match effort {
        None => (None, None),
        Some("none") => (Some(false), None),
        Some("minimal" | "low") => (None, (!state.traits.effort).then_some(LOW_EFFORT_TOKENS)),
        Some("medium" | "high" | "xhigh" | "max" | "ultra") => (None, None),
        Some(_) => {
            let message = "reasoning_effort must be one of none, minimal, low, medium, high, xhigh, max, ultra";
            return Err(ApiError::value("reasoning_effort", message));
        }
    };
    Ok(match thinking {
        None => by_effort,
        Some(thinking) => {
            let think = match thinking.kind {
                ThinkingKind::Enabled => Some(true),
                ThinkingKind::Disabled => Some(false),
                ThinkingKind::Adaptive => None,
            };
            (think, thinking.budget_tokens.or(by_effort.1))
        }
    })
}

/// What all parts of an answer begin with.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
}

impl Head {
    pub(crate) fn new(prefix: &str, state: &State) -> ApiResult<Head> {
        let mut random = [0u8; 12];
        getrandom::fill(&mut random).map_err(|_| ApiError::internal("the system gives no random numbers"))?;
        let id = format!("{prefix}{}", crate::store::keys::hex(&random));
        Ok(Head { id, created: now_s(), model: state.served.id.clone() })
    }

    /// The name of a call in this answer.
    pub(crate) fn call_id(&self, answer: usize, call: usize) -> String {
        let (_, random) = self.id.rsplit_once(['-', '_']).unwrap_or(("", &self.id));
        format!("call_{random}{answer}{call:02}")
    }

    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".into(),
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: FINGERPRINT.into(),
            choices,
            usage: None,
            fathom: None,
        }
    }
}

/// A call as it is sent.
fn tool_call(head: &Head, answer: usize, number: usize, call: crate::tools::Call, streams: bool) -> ToolCall {
    ToolCall {
        index: streams.then_some(number as u32),
        id: head.call_id(answer, number),
        kind: "function".into(),
        function: FunctionCall { name: call.name, arguments: call.arguments },
    }
}

/// The answer in one piece.
pub(crate) async fn whole(head: Head, mut outputs: mpsc::Receiver<Output>) -> ApiResult<ChatCompletion> {
    let mut choices: Vec<Choice> = Vec::new();
    while let Some(output) = outputs.recv().await {
        match output {
            Output::Started { .. } | Output::Scored { .. } => {}
            Output::Pieces { answer, pieces, logprobs } => {
                let choice = choice_at(&mut choices, answer);
                for piece in pieces {
                    add(&head, choice, piece);
                }
                if let Some(more) = logprobs {
                    merge(choice.logprobs.get_or_insert_default(), more);
                }
            }
            Output::Ended { answer, end } => choice_at(&mut choices, answer).finish_reason = end.reason().into(),
            Output::Failed(error) => return Err(error),
            Output::Done(summary) => {
                for choice in &mut choices {
                    let message = &mut choice.message;
                    // OpenAI's content is null only beside calls.
                    if message.content.is_none() && message.tool_calls.is_none() {
                        message.content = Some(String::new());
                    }
                }
                return Ok(ChatCompletion {
                    id: head.id,
                    object: "chat.completion".into(),
                    created: head.created,
                    model: head.model,
                    system_fingerprint: FINGERPRINT.into(),
                    choices,
                    usage: summary.usage,
                    fathom: summary.extension,
                });
            }
        }
    }
    Err(ApiError::internal("the answer broke off"))
}

fn choice_at(choices: &mut Vec<Choice>, index: usize) -> &mut Choice {
    for index in choices.len()..=index {
        let message = AnswerMessage { role: "assistant".into(), ..AnswerMessage::default() };
        choices.push(Choice { index, message, logprobs: None, finish_reason: String::new() });
    }
    &mut choices[index]
}

fn add(head: &Head, choice: &mut Choice, piece: Piece) {
    let message = &mut choice.message;
    match piece {
        Piece::Reasoning(text) => message.reasoning_content.get_or_insert_default().push_str(&text),
        Piece::Content(text) => message.content.get_or_insert_default().push_str(&text),
        Piece::Call(call) => {
            let calls = message.tool_calls.get_or_insert_default();
            calls.push(tool_call(head, choice.index, calls.len(), call, false));
        }
    }
}

/// Adds log-probabilities to those before.
pub(crate) fn merge(all: &mut Logprobs, more: Logprobs) {
    for (all, more) in [(&mut all.content, more.content), (&mut all.reasoning_content, more.reasoning_content)] {
        if let Some(more) = more {
            all.get_or_insert_default().extend(more);
        }
    }
}

/// The answer as a stream.
fn chunks(head: Head, mut outputs: mpsc::Receiver<Output>, usage: bool) -> impl Stream<Item = Event> + Send {
    stream! {
        let mut begun: Vec<usize> = Vec::new();
        let mut calls: Vec<usize> = Vec::new();
        while let Some(output) = outputs.recv().await {
            match output {
                Output::Started { .. } | Output::Scored { .. } => {}
                Output::Pieces { answer, pieces, mut logprobs } => {
                    if let Some(first) = first_chunk(&head, &mut begun, &mut calls, answer, usage) {
                        yield first;
                    }
                    let mut pieces = pieces.into_iter().peekable();
                    loop {
                        let piece = pieces.next();
                        let delta = piece.map(|piece| delta(&head, answer, &mut calls[answer], piece));
                        // Log-probabilities go with the last of the pieces that came together.
                        let logprobs = if pieces.peek().is_none() { logprobs.take() } else { None };
                        if delta.is_some() || logprobs.is_some() {
                            let delta = delta.unwrap_or_default();
                            let choice = ChunkChoice { index: answer, delta, logprobs, finish_reason: None };
                            yield chunk(&head, vec![choice], usage);
                        }
                        if pieces.peek().is_none() {
                            break;
                        }
                    }
                }
                Output::Ended { answer, end } => {
                    if let Some(first) = first_chunk(&head, &mut begun, &mut calls, answer, usage) {
                        yield first;
                    }
                    let finish_reason = Some(end.reason().to_string());
                    let choice = ChunkChoice { index: answer, delta: Delta::default(), logprobs: None, finish_reason };
                    yield chunk(&head, vec![choice], usage);
                }
                Output::Failed(error) => {
                    yield Event::data(&error.body());
                    break;
                }
                Output::Done(summary) => {
                    if usage {
                        let mut last = head.chunk(Vec::new());
                        last.usage = Some(Some(summary.usage));
                        last.fathom = Some(summary.extension);
                        yield Event::data(&last);
                    }
                    yield Event::done();
                    break;
                }
            }
        }
    }
}

fn chunk(head: &Head, choices: Vec<ChunkChoice>, usage: bool) -> Event {
    let mut chunk = head.chunk(choices);
    // OpenAI: with the usage asked for, all chunks have the field, null but in the last.
    chunk.usage = usage.then_some(None);
    Event::data(&chunk)
}

/// The chunk that names the role, before the first of an answer.
fn first_chunk(
    head: &Head,
    begun: &mut Vec<usize>,
    calls: &mut Vec<usize>,
    answer: usize,
    usage: bool,
) -> Option<Event> {
    if begun.contains(&answer) {
        return None;
    }
    begun.push(answer);
    calls.resize(calls.len().max(answer + 1), 0);
    let delta = Delta { role: Some("assistant".into()), content: Some(String::new()), ..Delta::default() };
    let choice = ChunkChoice { index: answer, delta, logprobs: None, finish_reason: None };
    Some(chunk(head, vec![choice], usage))
}

fn delta(head: &Head, answer: usize, calls: &mut usize, piece: Piece) -> Delta {
    match piece {
        Piece::Reasoning(text) => Delta { reasoning_content: Some(text), ..Delta::default() },
        Piece::Content(text) => Delta { content: Some(text), ..Delta::default() },
        Piece::Call(call) => {
            *calls += 1;
            let call = tool_call(head, answer, *calls - 1, call, true);
            Delta { tool_calls: Some(vec![call]), ..Delta::default() }
        }
    }
}
