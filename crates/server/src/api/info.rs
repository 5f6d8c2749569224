//! What the server says about itself, its models, its costs.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::error::{ApiError, ApiResult};
use crate::http::body::read_json;
use crate::language::Wishes;
use crate::metrics::render;
use crate::state::State;
use crate::store::ledger::{day, money};
use crate::store::now_ms;
use crate::wire::chats::{Balance, BalanceInfo, UsageReport};
use crate::wire::info::{
    Health, Info, InfoLimits, ModelInfo, ModelList, ModelObject, Prices, SamplingDefaults, TokenizeRequest, Tokenized,
};

/// Tokens that are listed; more are only counted.
const TOKENS_LISTED_MAX: usize = 4096;
/// Days that are shown where nothing is said.
const USAGE_DAYS: i64 = 30;
/// What the server offers.
const FEATURES: [&str; 10] =
    ["chat", "completions", "json", "tools", "chats", "usage", "tokenize", "embeddings", "messages", "responses"];
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// `GET /health`: 200 while requests are taken.
pub(crate) async fn health(Shared(state): Shared<Arc<State>>) -> Response {
    if state.stopping() {
        return ApiError::unavailable("the server is stopping", 5).into_response();
    }
    let seen = state.driver.seen();
    let more = json!({"model": state.served.id, "running": seen.running, "waiting": seen.waiting});
    let more = more.as_object().cloned().unwrap_or_default();
    Json(Health { status: "ok".into(), more }).into_response()
}

/// `GET /openapi.json`.
pub(crate) async fn openapi() -> ApiResult<Response> {
    let text = crate::openapi::json().map_err(|_| ApiError::internal("the description has no JSON form"))?;
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// `GET /metrics`: numbers; the key is needed where one is, since they tell of others' work.
pub(crate) async fn metrics(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> ApiResult<Response> {
    state.caller(&headers)?;
    let mut response = render(&state).into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn model_object(state: &State) -> ModelObject {
    ModelObject {
        id: state.served.id.clone(),
        object: "model".into(),
        created: state.started_s,
        owned_by: "fathom".into(),
        context_length: state.served.context_tokens,
    }
}

/// `GET /v1/models`.
pub(crate) async fn models(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> ApiResult<Json<ModelList>> {
    state.caller(&headers)?;
    Ok(Json(ModelList { object: "list".into(), data: vec![model_object(&state)] }))
}

/// `GET /v1/models/ID`.
pub(crate) async fn model(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> ApiResult<Json<ModelObject>> {
    state.caller(&headers)?;
    if id != state.served.id {
        return Err(ApiError::not_found("there is no such model").with_code("model_not_found"));
    }
    Ok(Json(model_object(&state)))
}

/// `GET /api/info`: needs no key; a key shows its prices.
pub(crate) async fn info(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> ApiResult<Json<Info>> {
    let key_needed = state.store(|store| store.any_key()).await?;
    let (served, traits, limits) = (&state.served, &state.traits, &state.limits);
    let prices = state.caller(&headers).ok().map(|caller| {
        let unit = |micro: i64| micro as f64 / 1e6;
        let prices = caller.prices;
        let (cache_hit, cache_miss) = (unit(prices.hit_micro), unit(prices.miss_micro));
        Prices { currency: prices.currency, cache_hit, cache_miss, output: unit(prices.output_micro) }
    });
    let own = &served.defaults;
    let model = ModelInfo {
        id: served.id.clone(),
        context_tokens: served.context_tokens,
        chat: served.template.is_some(),
        reasoning: traits.reasoning,
        thinking_switch: traits.reasoning && !traits.channels,
        tools: traits.tools,
        fill_in_the_middle: traits.fill.is_some(),
        embeddings: served.embedder.is_some(),
        built_in: served.built_in,
        budget_curve: served.budget_curve.clone(),
        defaults: SamplingDefaults {
            temperature: own.temperature,
            top_p: own.top_p,
            top_k: own.top_k,
            min_p: own.min_p,
            repetition_penalty: own.repetition_penalty,
        },
    };
    Ok(Json(Info {
        name: "fathom".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        key_needed,
        store: true,
        models: vec![model],
        limits: InfoLimits {
            body_bytes_max: limits.body_bytes_max,
            stop_max: limits.stop_max,
            n_max: limits.n_max,
            tools_max: limits.tools_max,
            chat_bytes_max: limits.chat_bytes_max,
            chats_max: limits.chats_max,
        },
        prices,
        joules: state.driver.meter().label().map(str::to_string),
        features: FEATURES.map(String::from).to_vec(),
    }))
}

/// The days of a usage report.
#[derive(Deserialize)]
pub(crate) struct Days {
    from: Option<String>,
    to: Option<String>,
}

/// `GET /api/usage`.
pub(crate) async fn usage(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    Query(days): Query<Days>,
) -> ApiResult<Json<UsageReport>> {
    let caller = state.caller(&headers)?;
    let from = checked_day("from", days.from, now_ms() - (USAGE_DAYS - 1) * DAY_MS)?;
    let to = checked_day("to", days.to, now_ms())?;
    let (rows, total) = state.store(move |store| store.usage(Some(caller.key), &from, &to)).await?;
    let balance = caller.balance_pico.map(money);
    Ok(Json(UsageReport { currency: caller.prices.currency, balance, rows, total }))
}

fn checked_day(field: &'static str, given: Option<String>, default_ms: i64) -> ApiResult<String> {
    let Some(given) = given else { return Ok(day(default_ms)) };
    match given.parse::<jiff::civil::Date>() {
        Ok(date) => Ok(date.strftime("%Y-%m-%d").to_string()),
        Err(_) => Err(ApiError::value(field, format!("{field} is not a day, such as 2026-11-21"))),
    }
}

/// `GET /user/balance`, DeepSeek's.
pub(crate) async fn balance(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> ApiResult<Json<Balance>> {
    let caller = state.caller(&headers)?;
    let is_available = caller.check_balance().is_ok();
    let infos = caller.balance_pico.map(|pico| BalanceInfo {
        currency: caller.prices.currency.clone(),
        total_balance: money(pico),
        granted_balance: money(0),
        topped_up_balance: money(pico),
    });
    Ok(Json(Balance { is_available, balance_infos: infos.into_iter().collect() }))
}

/// `POST /api/tokenize`.
pub(crate) async fn tokenize(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    request: Request<Body>,
) -> ApiResult<Json<Tokenized>> {
    state.caller(&headers)?;
    let request: TokenizeRequest = read_json(&state.limits, request.into_body()).await?;
    state.check_model(request.model.as_deref())?;
    let worker = Arc::clone(&state);
    let done = tokio::task::spawn_blocking(move || {
        let served = &worker.served;
        let tokens = match (request.text, request.messages) {
            (Some(text), None) => served.tokenizer.encode(&text).map_err(|e| ApiError::format(e.to_string()))?,
            (None, Some(messages)) if !messages.is_empty() => {
                let tools = request.tools.unwrap_or_default();
                served.chat(&worker.traits, &messages, &tools, &Wishes::default())?.tokens
            }
            _ => return Err(ApiError::value("text", "give either text or messages")),
        };
        let count = tokens.len();
        let listed: Vec<u32> = tokens.into_iter().take(TOKENS_LISTED_MAX).collect();
        let pieces = listed.iter().map(|&token| served.token_text(token)).collect();
        Ok(Tokenized { count, tokens: listed, pieces })
    });
    done.await.map_err(|_| ApiError::internal("the text could not be read"))?.map(Json)
}
