//! Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`: turned into a chat request, answered in blocks.

use std::sync::Arc;

use async_stream::stream;
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::blocks::{Block, Blocks, Change};
use super::chat::{Head, count_tokens, start};
use crate::error::{ApiError, ApiResult, Dialect};
use crate::http::body::read_json;
use crate::http::stream::{self, Event};
use crate::reader::Piece;
use crate::state::State;
use crate::wire::OneOrMany;
use crate::wire::chat::{
    ChatRequest, Content, FunctionCall, FunctionDescription, Message, NamedSchema, NamedTool, ResponseFormat, Role,
    Tool, ToolCall, ToolChoice, ToolMode, ToolName,
};
use crate::wire::messages::{
    ChoiceKind, CountedTokens, InputBlock, MessageAnswer, MessageUsage, MessagesRequest, OutputBlock, OutputFormat,
    Speaker, Text, Turn, TurnContent,
};
use crate::wire::usage::Usage;
use crate::work::{End, Output};

/// The handler of messages.
pub(crate) async fn create(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    match answer(state, request).await {
        Ok(response) => response,
        Err(error) => error.respond(Dialect::Anthropic),
    }
}

/// The handler that only counts.
pub(crate) async fn count(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    match counted(state, request).await {
        Ok(counted) => Json(counted).into_response(),
        Err(error) => error.respond(Dialect::Anthropic),
    }
}

async fn answer(state: Arc<State>, request: Request<Body>) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    let caller = state.caller(&parts.headers)?;
    let request: MessagesRequest = read_json(&state.limits, body).await?;
    if request.max_tokens.is_none() {
        return Err(ApiError::value("max_tokens", "max_tokens is missing"));
    }
    let stream = request.stream == Some(true);
    let outputs = start(&state, &caller, chat_request(request)?).await?;
    let head = Head::new("msg_", &state)?;
    let every = state.limits.keep_alive_every;
    if stream {
        return Ok(stream::events(events(head, outputs), every));
    }
    Ok(stream::value(whole(head, outputs), every, Dialect::Anthropic).await)
}

async fn counted(state: Arc<State>, request: Request<Body>) -> ApiResult<CountedTokens> {
    let (parts, body) = request.into_parts();
    state.caller(&parts.headers)?;
    let request: MessagesRequest = read_json(&state.limits, body).await?;
    let request = chat_request(request)?;
    state.check_model(request.model.as_deref())?;
    let worker = Arc::clone(&state);
    let done = tokio::task::spawn_blocking(move || count_tokens(&worker, request)).await;
    let input_tokens = done.map_err(|_| ApiError::internal("the messages could not be read"))??;
    Ok(CountedTokens { input_tokens })
}

/// The same request in OpenAI's words.
fn chat_request(request: MessagesRequest) -> ApiResult<ChatRequest> {
    let mut messages = Vec::new();
    if let Some(system) = request.system {
        messages.push(said(Role::System, plain("system", system)?));
    }
    for (i, turn) in request.messages.into_iter().enumerate() {
        push_turn(&mut messages, turn, i)?;
    }
    // A last message of the assistant is the beginning of the answer.
    if let Some(last) = messages.last_mut().filter(|last| last.role == Role::Assistant && last.tool_calls.is_none()) {
        last.prefix = Some(true);
    }
    let tools = request.tools.map(|tools| {
        let tools = tools.into_iter().map(|tool| Tool {
            kind: "function".into(),
            function: FunctionDescription {
                name: tool.name,
                description: tool.description,
                parameters: tool.input_schema,
                strict: tool.strict,
            },
        });
        tools.collect()
    });
    let one_call = request.tool_choice.as_ref().and_then(|choice| choice.disable_parallel_tool_use);
    let tool_choice = match request.tool_choice.map(|choice| (choice.kind, choice.name)) {
        None => None,
        Some((ChoiceKind::Auto, _)) => Some(ToolChoice::Mode(ToolMode::Auto)),
        Some((ChoiceKind::Any, _)) => Some(ToolChoice::Mode(ToolMode::Required)),
        Some((ChoiceKind::None, _)) => Some(ToolChoice::Mode(ToolMode::None)),
        Some((ChoiceKind::Tool, Some(name))) => {
            Some(ToolChoice::Named(NamedTool { kind: "function".into(), function: ToolName { name } }))
        }
        Some((ChoiceKind::Tool, None)) => {
            return Err(ApiError::value("tool_choice.name", "tool_choice.name is missing"));
        }
    };
    let (effort, format) = request.output_config.map_or((None, None), |config| (config.effort, config.format));
    Ok(ChatRequest {
        model: request.model.filter(|name| !name.starts_with("claude")),
        messages,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        max_tokens: request.max_tokens,
        stop: request.stop_sequences.map(OneOrMany::Many),
        thinking: request.thinking,
        reasoning_effort: effort,
        response_format: format.map(response_format),
        tools,
        tool_choice,
        parallel_tool_calls: one_call.map(|one| !one),
        user_id: request.metadata.and_then(|metadata| metadata.user_id),
        ..ChatRequest::default()
    })
}

fn response_format(format: OutputFormat) -> ResponseFormat {
    let json_schema = Some(NamedSchema { schema: format.schema, ..NamedSchema::default() });
    ResponseFormat { kind: format.kind, json_schema }
}

fn said(role: Role, text: String) -> Message {
    Message { role, content: Some(Content::Text(text)), ..Message::default() }
}

/// The text of blocks, all of which must be text.
fn plain(field: &str, text: Text) -> ApiResult<String> {
    match text {
        Text::Plain(text) => Ok(text),
        Text::Blocks(blocks) => {
            let texts = blocks.into_iter().map(|block| {
                let message = || format!("{field}: a block is not text; this server reads only text");
                block.text.ok_or_else(|| ApiError::value(field, message()))
            });
            texts.collect()
        }
    }
}

/// Adds a turn: answers of tools become messages of their own, before what else is said.
fn push_turn(messages: &mut Vec<Message>, turn: Turn, number: usize) -> ApiResult<()> {
    let role = if turn.role == Speaker::User { Role::User } else { Role::Assistant };
    let blocks = match turn.content {
        TurnContent::Plain(text) => {
            messages.push(said(role, text));
            return Ok(());
        }
        TurnContent::Blocks(blocks) => blocks,
    };
    let mut message = Message { role, ..Message::default() };
    let (mut text, mut any_text) = (String::new(), false);
    for (i, block) in blocks.into_iter().enumerate() {
        let field = format!("messages[{number}].content[{i}]");
        let missing = |what: &str| ApiError::value(format!("{field}.{what}"), format!("{field}: {what} is missing"));
        match (block.kind.as_str(), role) {
            ("text", _) => {
                text.push_str(&block.text.ok_or_else(|| missing("text"))?);
                any_text = true;
            }
            ("thinking", Role::Assistant) => {
                let thinking = block.thinking.ok_or_else(|| missing("thinking"))?;
                message.reasoning_content.get_or_insert_default().push_str(&thinking);
            }
            ("redacted_thinking", Role::Assistant) => {}
            ("tool_use", Role::Assistant) => {
                message.tool_calls.get_or_insert_default().push(tool_use(block, &missing)?);
            }
            ("tool_result", Role::User) => {
                let answer = block.content.map(|content| plain(&field, content)).transpose()?;
                let mut result = said(Role::Tool, answer.unwrap_or_default());
                result.tool_call_id = Some(block.tool_use_id.ok_or_else(|| missing("tool_use_id"))?);
                messages.push(result);
            }
            (kind, _) => {
                let kind: String = kind.chars().take(40).collect();
                let message = format!("{field}: blocks of type {kind:?} are not read in this place");
                return Err(ApiError::value(field, message));
            }
        }
    }
    message.content = any_text.then_some(Content::Text(text));
    if message.content.is_some() || message.tool_calls.is_some() || message.reasoning_content.is_some() {
        messages.push(message);
    }
    Ok(())
}

fn tool_use(block: InputBlock, missing: &impl Fn(&str) -> ApiError) -> ApiResult<ToolCall> {
    let name = block.name.ok_or_else(|| missing("name"))?;
    let arguments = block.input.filter(Value::is_object).ok_or_else(|| missing("input"))?.to_string();
    let id = block.id.ok_or_else(|| missing("id"))?;
    Ok(ToolCall { index: None, id, kind: "function".into(), function: FunctionCall { name, arguments } })
}

fn usage_of(usage: &Usage) -> MessageUsage {
    MessageUsage {
        input_tokens: usage.prompt_cache_miss_tokens,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: usage.prompt_cache_hit_tokens,
        output_tokens: usage.completion_tokens,
    }
}

/// Anthropic's words for why an answer ended.
fn reason(end: End) -> (String, Option<String>) {
    match end {
        End::Stop(None) => ("end_turn".into(), None),
        End::Stop(Some(stop)) => ("stop_sequence".into(), Some(stop)),
        End::Length => ("max_tokens".into(), None),
        End::Calls => ("tool_use".into(), None),
    }
}

/// What stands in the place of a signature, without which clients do not send thinking back: the answer's name, as
/// DeepSeek does. Nothing is checked when it comes back, since reasoning may be changed or left out.
fn signature(head: &Head) -> String {
    head.id.clone()
}

fn output_block(head: &Head, number: usize, block: Block) -> OutputBlock {
    match block {
        Block::Text(text) => OutputBlock::Text { text },
        Block::Reasoning(thinking) => OutputBlock::Thinking { thinking, signature: signature(head) },
        Block::Call(call) => OutputBlock::ToolUse {
            id: head.call_id(0, number).replacen("call_", "toolu_", 1),
            name: call.name,
            input: serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({})),
        },
    }
}

fn message(head: &Head, content: Vec<OutputBlock>, usage: MessageUsage) -> MessageAnswer {
    MessageAnswer {
        id: head.id.clone(),
        kind: "message",
        role: "assistant",
        model: head.model.clone(),
        content,
        stop_reason: None,
        stop_sequence: None,
        usage,
    }
}

/// The answer in one piece.
async fn whole(head: Head, mut outputs: mpsc::Receiver<Output>) -> ApiResult<MessageAnswer> {
    let (mut blocks, mut ended) = (Blocks::default(), None);
    while let Some(output) = outputs.recv().await {
        match output {
            Output::Started { .. } | Output::Scored { .. } => {}
            Output::Pieces { pieces, .. } => pieces.into_iter().for_each(|piece| drop(blocks.push(piece))),
            Output::Ended { end, .. } => ended = Some(reason(end)),
            Output::Failed(error) => return Err(error),
            Output::Done(summary) => {
                let blocks = blocks.finish().into_iter().enumerate();
                let content = blocks.map(|(i, block)| output_block(&head, i, block)).collect();
                let mut answer = message(&head, content, usage_of(&summary.usage));
                (answer.stop_reason, answer.stop_sequence) = ended.map_or((None, None), |(r, s)| (Some(r), s));
                return Ok(answer);
            }
        }
    }
    Err(ApiError::internal("the answer broke off"))
}

/// The answer as a stream.
fn events(head: Head, mut outputs: mpsc::Receiver<Output>) -> impl Stream<Item = Event> + Send {
    stream! {
        let (mut blocks, mut ended) = (Blocks::default(), None);
        while let Some(output) = outputs.recv().await {
            match output {
                Output::Started { prompt_tokens, cached_tokens } => {
                    let usage = usage_of(&Usage::of(prompt_tokens, cached_tokens, 0, 0));
                    let message = message(&head, Vec::new(), usage);
                    yield Event::named("message_start", &json!({"type": "message_start", "message": message}));
                }
                Output::Scored { .. } => {}
                Output::Pieces { pieces, .. } => {
                    for change in pieces.into_iter().flat_map(|piece| blocks.push(piece)).collect::<Vec<_>>() {
                        for event in block_events(&head, change) {
                            yield event;
                        }
                    }
                }
                Output::Ended { end, .. } => {
                    for event in blocks.close().into_iter().flat_map(|change| block_events(&head, change)) {
                        yield event;
                    }
                    ended = Some(reason(end));
                }
                Output::Failed(error) => {
                    yield Event::named("error", &error.anthropic_body());
                    break;
                }
                Output::Done(summary) => {
                    let (reason, sequence) = ended.take().map_or((None, None), |(r, s)| (Some(r), s));
                    let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
                    let usage = usage_of(&summary.usage);
                    let last = json!({"type": "message_delta", "delta": delta, "usage": usage});
                    yield Event::named("message_delta", &last);
                    yield Event::named("message_stop", &json!({"type": "message_stop"}));
                    break;
                }
            }
        }
    }
}

fn block_events(head: &Head, change: Change) -> Vec<Event> {
    const START: &str = "content_block_start";
    const DELTA: &str = "content_block_delta";
    let delta =
        |index: usize, delta: Value| Event::named(DELTA, &json!({"type": DELTA, "index": index, "delta": delta}));
    match change {
        Change::Opened(index, Block::Call(call)) => {
            let arguments = call.arguments.clone();
            let empty = crate::tools::Call { arguments: "{}".into(), ..call };
            let block = output_block(head, index, Block::Call(empty));
            let start = json!({"type": START, "index": index, "content_block": block});
            let arguments = json!({"type": "input_json_delta", "partial_json": arguments});
            vec![Event::named(START, &start), delta(index, arguments)]
        }
        Change::Opened(index, block) => {
            let mut block = output_block(head, index, block);
            if let OutputBlock::Thinking { signature, .. } = &mut block {
                // It comes when the thinking is complete.
                signature.clear();
            }
            vec![Event::named(START, &json!({"type": START, "index": index, "content_block": block}))]
        }
        Change::Added(index, Piece::Reasoning(text)) => {
            vec![delta(index, json!({"type": "thinking_delta", "thinking": text}))]
        }
        Change::Added(index, Piece::Content(text)) => vec![delta(index, json!({"type": "text_delta", "text": text}))],
        Change::Added(_, Piece::Call(_)) => Vec::new(),
        Change::Closed(index, block) => {
            const STOP: &str = "content_block_stop";
            let signed = matches!(block, Block::Reasoning(_))
                .then(|| delta(index, json!({"type": "signature_delta", "signature": signature(head)})));
            let stop = Event::named(STOP, &json!({"type": STOP, "index": index}));
            signed.into_iter().chain([stop]).collect()
        }
    }
}
