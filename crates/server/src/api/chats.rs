//! Chats that are stored on the server, each under the key that stored it: another key's chat does not exist.

use std::sync::Arc;

use async_stream::stream;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::http::body::{parse, read};
use crate::http::stream::json;
use crate::state::State;
use crate::store::StoreError;
use crate::store::chats::Put;
use crate::wire::chats::{ChatRow, ChatRows, PatchChat, PutChat, StoredChat};

/// Chats of one page of a list.
const PAGE_MAX: usize = 200;
const TITLE_CHARS_MAX: usize = 200;
/// Words of a search.
const WORDS_MAX: usize = 16;

/// A list's parameters.
#[derive(Deserialize)]
pub(crate) struct Listing {
    limit: Option<usize>,
    before: Option<String>,
    q: Option<String>,
}

/// `GET /api/chats`.
pub(crate) async fn list(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Query(listing): Query<Listing>,
) -> ApiResult<Json<ChatRows>> {
    let caller = state.caller(&headers)?;
    let limit = listing.limit.unwrap_or(50);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(ApiError::value("limit", format!("limit is {limit}; it must be between 1 and {PAGE_MAX}")));
    }
    let before = listing.before.map(|text| cursor(&text)).transpose()?;
    let query = listing.q.unwrap_or_default().to_lowercase();
    let words: Vec<String> = query.split_whitespace().map(str::to_string).collect();
    if words.len() > WORDS_MAX {
        return Err(ApiError::value("q", format!("q has more than {WORDS_MAX} words")));
    }
    let chats = state.store(move |store| store.chats(caller.key, &words, before, limit + 1)).await?;
    let more = chats.len() > limit;
    let chats: Vec<ChatRow> = chats.into_iter().take(limit).collect();
    let next = chats.last().filter(|_| more).map(|last| format!("{}.{}", last.updated_ms, last.id));
    Ok(Json(ChatRows { chats, next }))
}

/// Where a page ended: a time and an id.
fn cursor(text: &str) -> ApiResult<(i64, String)> {
    let parts = text.split_once('.').and_then(|(ms, id)| Some((ms.parse().ok()?, id.to_string())));
    parts.ok_or_else(|| ApiError::value("before", "before is not what an earlier page gave as next"))
}

/// `GET /api/chats/ID`.
pub(crate) async fn get(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> ApiResult<Json<StoredChat>> {
    let caller = state.caller(&headers)?;
    let chat = state.store(move |store| store.chat(caller.key, &id)).await?;
    chat.map(Json).ok_or_else(no_chat)
}

/// `PUT /api/chats/ID`.
pub(crate) async fn put(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Path(id): Path<String>,
    request: Request<Body>,
) -> ApiResult<Json<ChatRow>> {
    let caller = state.caller(&headers)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !(8..=64).contains(&id.len()) || !id.chars().all(good) || id == "export" {
        return Err(ApiError::value("id", "a chat's id has 8 to 64 of the characters A-Z a-z 0-9 - _"));
    }
    let bytes = read(&state.limits, request.into_body()).await?;
    let limit = state.limits.chat_bytes_max;
    if bytes.len() > limit {
        let message = format!("the chat has {} bytes; the limit is {limit}", bytes.len());
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).with_code("request_too_large"));
    }
    let request: PutChat = parse(&bytes)?;
    check_chat(&request.chat)?;
    let chats_max = state.limits.chats_max;
    let done = state.store(move |store| store.chat_put(caller.key, &id, request.revision, &request.chat, chats_max));
    stored(done.await?, chats_max)
}

fn stored(done: Put, chats_max: usize) -> ApiResult<Json<ChatRow>> {
    match done {
        Put::Stored(row) => Ok(Json(row)),
        Put::Conflict(found) => {
            let message = match found {
                Some(revision) => format!("the chat was changed elsewhere; its revision is {revision}"),
                None => "the chat does not exist any more".to_string(),
            };
            Err(ApiError::new(StatusCode::CONFLICT, message).with_code("revision_conflict"))
        }
        Put::Full => {
            Err(ApiError::value("id", format!("this key has {chats_max} chats; delete some before storing another")))
        }
    }
}

fn check_chat(chat: &Value) -> ApiResult<()> {
    let Some(fields) = chat.as_object() else {
        return Err(ApiError::value("chat", "chat must be an object"));
    };
    match fields.get("title").and_then(Value::as_str) {
        Some(title) if title.chars().count() <= TITLE_CHARS_MAX => Ok(()),
        _ => {
            let message = format!("chat.title must be a text of at most {TITLE_CHARS_MAX} characters");
            Err(ApiError::value("chat.title", message))
        }
    }
}

/// `PATCH /api/chats/ID`: a new title.
pub(crate) async fn patch(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Path(id): Path<String>,
    request: Request<Body>,
) -> ApiResult<Json<ChatRow>> {
    let caller = state.caller(&headers)?;
    let request: PatchChat = parse(&read(&state.limits, request.into_body()).await?)?;
    let chats_max = state.limits.chats_max;
    let (key, wanted) = (caller.key, id.clone());
    let Some(mut found) = state.store(move |store| store.chat(key, &wanted)).await? else { return Err(no_chat()) };
    let Some(fields) = found.chat.as_object_mut() else { return Err(no_chat()) };
    fields.insert("title".into(), Value::String(request.title));
    check_chat(&found.chat)?;
    let known = Some(found.row.revision);
    let done = state.store(move |store| store.chat_put(key, &id, known, &found.chat, chats_max));
    stored(done.await?, chats_max)
}

/// `DELETE /api/chats/ID`.
pub(crate) async fn delete(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    let caller = state.caller(&headers)?;
    match state.store(move |store| store.chats_delete(caller.key, Some(&id))).await? {
        0 => Err(no_chat()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// `DELETE /api/chats`.
pub(crate) async fn delete_all(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> ApiResult<StatusCode> {
    let caller = state.caller(&headers)?;
    let cache = state.prompt_cache.clone();
    state
        .store(move |store| {
            store.chats_delete(caller.key, None)?;
            // What was said in them is in the prompt cache as well.
            cache.map_or(Ok(()), |cache| cache.forget(&caller.binding)).map_err(StoreError::PromptCache)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/chats/export`: all chats of the key as one file, read and sent one by one.
pub(crate) async fn export(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> ApiResult<Response> {
    let caller = state.caller(&headers)?;
    let key = caller.key;
    let ids = state.store(move |store| store.chat_ids(key)).await?;
    let bytes = stream! {
        yield Ok(Bytes::from_static(b"{\"format\":\"fathom-chats-1\",\"chats\":["));
        let mut first = true;
        for id in ids {
            match state.store(move |store| store.chat(key, &id)).await {
                // Deleted since the list was made.
                Ok(None) => continue,
                Ok(Some(chat)) => {
                    let comma = if std::mem::take(&mut first) { "" } else { "," };
                    yield Ok(Bytes::from(format!("{comma}{}", json(&chat))));
                }
                // The file must not look complete.
                Err(error) => {
                    yield Err(std::io::Error::other(error.message));
                    return;
                }
            }
        }
        yield Ok(Bytes::from_static(b"]}"));
    };
    let mut response = Body::from_stream(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let name = HeaderValue::from_static("attachment; filename=\"fathom-chats.json\"");
    headers.insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

fn no_chat() -> ApiError {
    ApiError::not_found("there is no such chat")
}
