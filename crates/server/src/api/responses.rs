//! OpenAI's `POST /v1/responses`: turned into a chat request, answered in items.
//!
//! A response is kept, and can be gone on with (`previous_response_id`), only if its request says `"store": true`.

pub(crate) mod stored;

use std::sync::Arc;

use async_stream::stream;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::stored::Keep;
use super::blocks::{Block, Blocks, Change};
use super::chat::{Head, start};
use crate::error::{ApiError, ApiResult, Dialect};
use crate::http::body::read_json;
use crate::http::stream::{self, Event};
use crate::reader::Piece;
use crate::state::State;
use crate::wire::chat::{
    ChatRequest, Content, FunctionCall, FunctionDescription, Message, NamedSchema, NamedTool, ResponseFormat, Role,
    Tool, ToolCall, ToolChoice,
};
use crate::wire::responses::{Input, Item, ItemContent, ResponsesChoice, ResponsesRequest, ResponsesTool, TextFormat};
use crate::work::{End, Output, Summary};

/// The handler.
pub(crate) async fn create(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    match answer(state, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(state: Arc<State>, request: Request<Body>) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    let caller = state.caller(&parts.headers)?;
    let mut request: ResponsesRequest = read_json(&state.limits, body).await?;
    let (stream, store, asked) = (request.stream == Some(true), request.store == Some(true), asked(&request));
    let mut items = match request.previous_response_id.take() {
        Some(id) => stored::conversation(&state, caller.key, id).await?,
        None => Vec::new(),
    };
    let before = items.len();
    items.extend(take_input(&mut request));
    let keep = if store { Some(Keep::prepare(&state, caller.key, &items).await?) } else { None };
    let outputs = start(&state, &caller, chat_request(request, items, before)?).await?;
    let head = Responding { head: Head::new("resp_", &state)?, asked };
    let every = state.limits.keep_alive_every;
    if stream {
        return Ok(stream::events(events(head, outputs, keep), every));
    }
    Ok(stream::value(whole(head, outputs, keep), every, Dialect::OpenAi).await)
}

/// What responses begin with, and what they say of their request.
#[derive(Clone)]
struct Responding {
    head: Head,
    asked: Value,
}

/// The fields of a request that its response says again.
fn asked(request: &ResponsesRequest) -> Value {
    let format = request.text.as_ref().and_then(|text| text.format.as_ref());
    let choice = match &request.tool_choice {
        None => json!("auto"),
        Some(ResponsesChoice::Mode(mode)) => json!(mode),
        Some(ResponsesChoice::Named(function)) => json!({"type": "function", "name": function.name}),
    };
    json!({
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata.clone().unwrap_or_default(),
        "parallel_tool_calls": request.parallel_tool_calls.unwrap_or(true),
        "previous_response_id": request.previous_response_id,
        "store": request.store == Some(true),
        "reasoning": {"effort": request.reasoning.as_ref().and_then(|r| r.effort.clone()), "summary": null},
        "temperature": request.temperature,
        "text": {"format": format.map_or_else(|| json!({"type": "text"}), |format| json!(format))},
        "tool_choice": choice,
        "tools": request.tools.clone().unwrap_or_default(),
        "top_p": request.top_p,
        "truncation": "disabled",
    })
}

/// The items of a request, a text as what the user says.
fn take_input(request: &mut ResponsesRequest) -> Vec<Item> {
    match std::mem::replace(&mut request.input, Input::Items(Vec::new())) {
        Input::Items(items) => items,
        Input::Text(text) => {
            let (kind, role, content) = (Some("message".into()), Some(Role::User), Some(ItemContent::Text(text)));
            vec![Item { kind, role, content, ..Item::default() }]
        }
    }
}

/// The same request in the words of chat completions, with the items of its conversation, of which the first `before`
/// are those of an earlier response.
fn chat_request(request: ResponsesRequest, items: Vec<Item>, before: usize) -> ApiResult<ChatRequest> {
    if request.background == Some(true) {
        return Err(ApiError::value("background", "background is not offered: stream the answer instead"));
    }
    let mut messages = Vec::new();
    if let Some(text) = request.instructions {
        messages.push(said(Role::System, text));
    }
    for (i, item) in items.into_iter().enumerate() {
        let field = i.checked_sub(before).map_or("previous_response_id".into(), |i| format!("input[{i}]"));
        push_item(&mut messages, item, &field)?;
    }
    let format = request.text.and_then(|text| text.format).map(|TextFormat { kind, name, schema }| ResponseFormat {
        kind,
        json_schema: Some(NamedSchema { name, description: None, schema, strict: None }),
    });
    let tools = request.tools.map(|tools| tools.into_iter().enumerate().map(tool).collect::<ApiResult<Vec<_>>>());
    let tool_choice = request.tool_choice.map(|choice| match choice {
        ResponsesChoice::Mode(mode) => ToolChoice::Mode(mode),
        ResponsesChoice::Named(function) => ToolChoice::Named(NamedTool { kind: "function".into(), function }),
    });
    Ok(ChatRequest {
        model: request.model,
        messages,
        temperature: request.temperature,
        top_p: request.top_p,
        max_tokens: request.max_output_tokens,
        response_format: format,
        tools: tools.transpose()?,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
        reasoning_effort: request.reasoning.and_then(|reasoning| reasoning.effort),
        ..ChatRequest::default()
    })
}

fn said(role: Role, text: String) -> Message {
    Message { role, content: Some(Content::Text(text)), ..Message::default() }
}

fn tool((i, tool): (usize, ResponsesTool)) -> ApiResult<Tool> {
    let field = format!("tools[{i}]");
    match tool.name {
        Some(name) if tool.kind == "function" => {
            let (description, parameters) = (tool.description, tool.parameters);
            let function = FunctionDescription { name, description, parameters, strict: tool.strict };
            Ok(Tool { kind: tool.kind, function })
        }
        _ => Err(ApiError::value(&field, format!("{field}: only named tools of type \"function\" are offered"))),
    }
}

/// Adds an item; calls and reasoning go to the assistant's message that they belong to.
fn push_item(messages: &mut Vec<Message>, item: Item, field: &str) -> ApiResult<()> {
    let missing = |what: &str| ApiError::value(format!("{field}.{what}"), format!("{field}: {what} is missing"));
    match item.kind.as_deref().unwrap_or("message") {
        "message" => {
            let role = item.role.ok_or_else(|| missing("role"))?;
            let text = text_of(item.content.ok_or_else(|| missing("content"))?, field)?;
            match messages.last_mut().filter(|last| is_bare_reasoning(last)) {
                Some(last) if role == Role::Assistant => last.content = Some(Content::Text(text)),
                _ => messages.push(said(role, text)),
            }
        }
        "reasoning" => {
            let text = item.content.map(|content| text_of(content, field)).transpose()?;
            let reasoning_content = text.filter(|text| !text.is_empty());
            if reasoning_content.is_some() {
                messages.push(Message { role: Role::Assistant, reasoning_content, ..Message::default() });
            }
        }
        "function_call" => {
            let name = item.name.ok_or_else(|| missing("name"))?;
            let arguments = item.arguments.ok_or_else(|| missing("arguments"))?;
            let id = item.call_id.ok_or_else(|| missing("call_id"))?;
            let call =
                ToolCall { index: None, id, kind: "function".into(), function: FunctionCall { name, arguments } };
            match messages.last_mut().filter(|last| last.role == Role::Assistant) {
                Some(last) => last.tool_calls.get_or_insert_default().push(call),
                None => {
                    let tool_calls = Some(vec![call]);
                    messages.push(Message { role: Role::Assistant, tool_calls, ..Message::default() });
                }
            }
        }
        "function_call_output" => {
            let text = text_of(item.output.ok_or_else(|| missing("output"))?, field)?;
            let mut message = said(Role::Tool, text);
            message.tool_call_id = Some(item.call_id.ok_or_else(|| missing("call_id"))?);
            messages.push(message);
        }
        kind => {
            let kind: String = kind.chars().take(40).collect();
            let message = format!("{field}: items of type {kind:?} are not read");
            return Err(ApiError::value(field, message));
        }
    }
    Ok(())
}

fn is_bare_reasoning(message: &Message) -> bool {
    message.role == Role::Assistant && message.content.is_none() && message.tool_calls.is_none()
}

fn text_of(content: ItemContent, field: &str) -> ApiResult<String> {
    match content {
        ItemContent::Text(text) => Ok(text),
        ItemContent::Parts(parts) => {
            let texts = parts.into_iter().map(|part| {
                let kind: String = part.kind.chars().take(40).collect();
                let message = format!("{field}: a part of type {kind:?} has no text; this server reads only text");
                part.text.ok_or_else(|| ApiError::value(field, message))
            });
            texts.collect()
        }
    }
}

/// A block as an item.
fn item(head: &Head, number: usize, block: &Block, status: &str) -> Value {
    let id = |prefix: &str| format!("{prefix}_{}{number:02}", head.id.trim_start_matches("resp_"));
    match block {
        Block::Reasoning(text) => {
            let content = if text.is_empty() { json!([]) } else { json!([{"type": "reasoning_text", "text": text}]) };
            json!({"type": "reasoning", "id": id("rs"), "summary": [], "content": content, "status": status})
        }
        Block::Text(text) => {
            let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
            let content = if status == "in_progress" { json!([]) } else { json!([part]) };
            json!({"type": "message", "id": id("msg"), "role": "assistant", "status": status, "content": content})
        }
        Block::Call(call) => {
            let arguments = if status == "in_progress" { "" } else { call.arguments.as_str() };
            json!({
                "type": "function_call", "id": id("fc"), "call_id": head.call_id(0, number), "name": call.name,
                "arguments": arguments, "status": status,
            })
        }
    }
}

/// The response object.
fn response(head: &Responding, output: Vec<Value>, status: &str, done: Option<&Summary>) -> Value {
    let Responding { head, asked } = head;
    let incomplete = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
    let usage = done.map(|done| {
        let usage = &done.usage;
        json!({
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.prompt_cache_hit_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.completion_tokens_details.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        })
    });
    let mut response = json!({
        "id": head.id, "object": "response", "created_at": head.created, "status": status, "model": head.model,
        "output": output, "error": null, "incomplete_details": incomplete, "usage": usage,
        "fathom": done.map(|done| &done.extension),
    });
    if let (Some(response), Value::Object(asked)) = (response.as_object_mut(), asked) {
        response.extend(asked.clone());
    }
    response
}

fn status_of(end: Option<&End>) -> &'static str {
    if end == Some(&End::Length) { "incomplete" } else { "completed" }
}

/// The answer in one piece.
async fn whole(head: Responding, mut outputs: mpsc::Receiver<Output>, keep: Option<Keep>) -> ApiResult<Value> {
    let (mut blocks, mut ended) = (Blocks::default(), None);
    while let Some(output) = outputs.recv().await {
        match output {
            Output::Started { .. } | Output::Scored { .. } => {}
            Output::Pieces { pieces, .. } => pieces.into_iter().for_each(|piece| drop(blocks.push(piece))),
            Output::Ended { end, .. } => ended = Some(end),
            Output::Failed(error) => return Err(error),
            Output::Done(summary) => {
                let status = status_of(ended.as_ref());
                let blocks = blocks.finish();
                let items = blocks.iter().enumerate().map(|(i, block)| item(&head.head, i, block, "completed"));
                let mut whole = response(&head, items.collect(), status, Some(&summary));
                if let Some(keep) = keep {
                    keep.finish(&mut whole).await;
                }
                return Ok(whole);
            }
        }
    }
    Err(ApiError::internal("the answer broke off"))
}

/// Events with their numbers.
struct Numbered {
    next: u64,
}

impl Numbered {
    fn event(&mut self, name: &'static str, fields: Value) -> Event {
        let mut event = json!({"type": name, "sequence_number": self.next});
        if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
            event.extend(fields);
        }
        self.next += 1;
        Event::named(name, &event)
    }

    /// The events of a change of blocks.
    fn change(&mut self, head: &Head, change: Change) -> Vec<Event> {
        let at = |index: usize, block: &Block, fields: Value| {
            let id = item(head, index, block, "in_progress")["id"].clone();
            let mut out = json!({"item_id": id, "output_index": index});
            if let (Some(out), Value::Object(fields)) = (out.as_object_mut(), fields) {
                out.extend(fields);
            }
            out
        };
        const TEXT: &str = "output_text";
        let part = |text: &str| json!({"type": TEXT, "text": text, "annotations": [], "logprobs": []});
        match change {
            Change::Opened(index, block) => {
                let added = json!({"output_index": index, "item": item(head, index, &block, "in_progress")});
                let mut events = vec![self.event("response.output_item.added", added)];
                if let Block::Text(_) = &block {
                    let fields = at(index, &block, json!({"content_index": 0, "part": part("")}));
                    events.push(self.event("response.content_part.added", fields));
                }
                if let Block::Call(call) = &block {
                    let delta = at(index, &block, json!({"delta": call.arguments}));
                    events.push(self.event("response.function_call_arguments.delta", delta));
                }
                events
            }
            Change::Added(index, piece) => {
                let (name, block, text) = match piece {
                    Piece::Reasoning(text) => ("response.reasoning_text.delta", Block::Reasoning(String::new()), text),
                    Piece::Content(text) => ("response.output_text.delta", Block::Text(String::new()), text),
                    Piece::Call(_) => return Vec::new(),
                };
                let fields = at(index, &block, json!({"content_index": 0, "delta": text, "logprobs": []}));
                vec![self.event(name, fields)]
            }
            Change::Closed(index, block) => {
                let done = |text: &str| at(index, &block, json!({"content_index": 0, "text": text, "logprobs": []}));
                let mut events = match &block {
                    Block::Reasoning(text) => vec![self.event("response.reasoning_text.done", done(text))],
                    Block::Text(text) => {
                        let whole = at(index, &block, json!({"content_index": 0, "part": part(text)}));
                        let first = self.event("response.output_text.done", done(text));
                        vec![first, self.event("response.content_part.done", whole)]
                    }
                    Block::Call(call) => {
                        let fields = at(index, &block, json!({"arguments": call.arguments, "name": call.name}));
                        vec![self.event("response.function_call_arguments.done", fields)]
                    }
                };
                let done = json!({"output_index": index, "item": item(head, index, &block, "completed")});
                events.push(self.event("response.output_item.done", done));
                events
            }
        }
    }
}

/// The answer as a stream.
fn events(
    head: Responding,
    mut outputs: mpsc::Receiver<Output>,
    mut keep: Option<Keep>,
) -> impl Stream<Item = Event> + Send {
    stream! {
        let (mut blocks, mut ended, mut numbered) = (Blocks::default(), None, Numbered { next: 0 });
        for name in ["response.created", "response.in_progress"] {
            yield numbered.event(name, json!({"response": response(&head, Vec::new(), "in_progress", None)}));
        }
        while let Some(output) = outputs.recv().await {
            match output {
                Output::Started { .. } | Output::Scored { .. } => {}
                Output::Pieces { pieces, .. } => {
                    for change in pieces.into_iter().flat_map(|piece| blocks.push(piece)).collect::<Vec<_>>() {
                        for event in numbered.change(&head.head, change) {
                            yield event;
                        }
                    }
                }
                Output::Ended { end, .. } => {
                    if let Some(change) = blocks.close() {
                        for event in numbered.change(&head.head, change) {
                            yield event;
                        }
                    }
                    ended = Some(end);
                }
                Output::Failed(error) => {
                    let code = error.code.unwrap_or("server_error");
                    let mut failed = response(&head, Vec::new(), "failed", None);
                    failed["error"] = json!({"code": code, "message": error.message});
                    yield numbered.event("response.failed", json!({"response": failed}));
                    break;
                }
                Output::Done(summary) => {
                    let status = status_of(ended.as_ref());
                    let all = std::mem::take(&mut blocks).finish();
                    let items = all.iter().enumerate().map(|(i, block)| item(&head.head, i, block, "completed"));
                    let mut whole = response(&head, items.collect(), status, Some(&summary));
                    if let Some(keep) = keep.take() {
                        keep.finish(&mut whole).await;
                    }
                    let name = if status == "completed" { "response.completed" } else { "response.incomplete" };
                    yield numbered.event(name, json!({"response": whole}));
                    break;
                }
            }
        }
    }
}
