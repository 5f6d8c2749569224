//! Responses that are kept, each under the key that made it: another key's response does not exist.
//!
//! Unlike OpenAI's, a response is kept only if its request says `"store": true`. What is kept is the conversation that
//! was answered and the response. Kept responses are deleted on request, and after [`Limits::response_age_max`].
//!
//! [`Limits::response_age_max`]: crate::limits::Limits::response_age_max

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::http::stream::json as text;
use crate::state::State;
use crate::store::responses::StoredResponse;
use crate::wire::responses::Item;

/// `GET /v1/responses/ID`.
pub(crate) async fn get(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let key = state.caller(&headers)?.key;
    let found = find(&state, key, id).await?.ok_or_else(no_response)?;
    Ok(Json(read(&found.response)?))
}

/// `GET /v1/responses/ID/input_items`: the conversation that was answered.
pub(crate) async fn input_items(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let key = state.caller(&headers)?.key;
    let found = find(&state, key, id.clone()).await?.ok_or_else(no_response)?;
    let mut items: Vec<Value> = read(&found.conversation)?;
    for (i, item) in items.iter_mut().enumerate() {
        item["id"] = json!(format!("item_{}{i:04}", id.trim_start_matches("resp_")));
    }
    let ends = (items.first().map(|item| item["id"].clone()), items.last().map(|item| item["id"].clone()));
    Ok(Json(json!({"object": "list", "data": items, "first_id": ends.0, "last_id": ends.1, "has_more": false})))
}

/// `DELETE /v1/responses/ID`.
pub(crate) async fn delete(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let key = state.caller(&headers)?.key;
    let wanted = id.clone();
    match state.store(move |store| store.response_delete(key, &wanted)).await? {
        false => Err(no_response()),
        true => Ok(Json(json!({"id": id, "object": "response", "deleted": true}))),
    }
}

/// The conversation up to and with a kept response, which a request goes on with.
pub(super) async fn conversation(state: &State, key: i64, id: String) -> ApiResult<Vec<Item>> {
    let Some(found) = find(state, key, id.clone()).await? else {
        let id: String = id.chars().take(80).collect();
        let message = format!(
            "previous_response_id: there is no response {id:?} here; one is kept only if its request says \
             \"store\": true"
        );
        let error = ApiError::new(StatusCode::BAD_REQUEST, message).with_code("previous_response_not_found");
        return Err(ApiError { param: Some("previous_response_id".into()), ..error });
    };
    let mut items: Vec<Item> = read(&found.conversation)?;
    let mut response: Value = read(&found.response)?;
    let said: Vec<Item> = serde_json::from_value(response["output"].take()).map_err(|_| unreadable())?;
    items.extend(said);
    Ok(items)
}

/// A response that is to be kept.
pub(super) struct Keep {
    state: Arc<State>,
    key: i64,
    conversation: String,
}

impl Keep {
    /// Refuses what could not be kept before any work is done for it.
    pub(super) async fn prepare(state: &Arc<State>, key: i64, items: &[Item]) -> ApiResult<Keep> {
        let conversation = text(&items);
        let limit = state.limits.chat_bytes_max;
        if conversation.len() > limit {
            let message = format!("store: the conversation has {} bytes; the limit is {limit}", conversation.len());
            return Err(ApiError::value("store", message));
        }
        let (max, age_max) = (state.limits.responses_max, state.limits.response_age_max);
        let count = state.store(move |store| store.responses_expire(age_max).and_then(|()| store.responses(key)));
        if count.await? >= max {
            let message = format!("store: this key has {max} kept responses; delete some before keeping another");
            return Err(ApiError::value("store", message));
        }
        Ok(Keep { state: Arc::clone(state), key, conversation })
    }

    /// Keeps the response, on the disk when this returns. One that cannot be kept says so: its `store` is false, and
    /// nothing else about it is lost.
    pub(super) async fn finish(self, response: &mut Value) {
        let Some(id) = response["id"].as_str().map(str::to_string) else { return };
        let stored = StoredResponse { conversation: self.conversation, response: response.to_string() };
        let key = self.key;
        if self.state.store(move |store| store.response_put(key, &id, &stored)).await.is_err() {
            response["store"] = json!(false);
        }
    }
}

async fn find(state: &State, key: i64, id: String) -> ApiResult<Option<StoredResponse>> {
    let age_max = state.limits.response_age_max;
    state.store(move |store| store.response(key, &id, age_max)).await
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> ApiResult<T> {
    serde_json::from_str(text).map_err(|_| unreadable())
}

fn unreadable() -> ApiError {
    ApiError::internal("a kept response cannot be read")
}

fn no_response() -> ApiError {
    ApiError::not_found("there is no such response; one is kept only if its request says \"store\": true")
}
