//! The handlers, one file for each family of paths.

pub(crate) mod blocks;
pub(crate) mod chat;
pub(crate) mod chats;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod info;
pub(crate) mod messages;
pub(crate) mod responses;
pub(crate) mod settings;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use self::responses::stored;
use crate::error::ApiError;
use crate::http::guard::{Allowed, guard};
use crate::page;
use crate::state::State;

/// All paths.
pub(crate) fn router(state: Arc<State>, allowed: Allowed) -> Router {
    let mut router = Router::new()
        .route("/openapi.json", get(info::openapi))
        .route("/health", get(info::health))
        .route("/metrics", get(info::metrics))
        .route("/user/balance", get(info::balance))
        .route("/api/info", get(info::info))
        .route("/api/usage", get(info::usage))
        .route("/api/tokenize", post(info::tokenize))
        .route("/api/chats", get(chats::list).delete(chats::delete_all))
        .route("/api/chats/export", get(chats::export))
        .route("/api/chats/{id}", get(chats::get).put(chats::put).patch(chats::patch).delete(chats::delete));
    for base in ["/v1", "/anthropic/v1", "/anthropic"] {
        router = router
            .route(&format!("{base}/messages"), post(messages::create))
            .route(&format!("{base}/messages/count_tokens"), post(messages::count));
    }
    for base in ["", "/v1"] {
        router = router
            .route(&format!("{base}/responses"), post(responses::create))
            .route(&format!("{base}/responses/{{id}}"), get(stored::get).delete(stored::delete))
            .route(&format!("{base}/responses/{{id}}/input_items"), get(stored::input_items));
    }
    // DeepSeek's base addresses are the host, /v1 and /beta; OpenAI's is /v1.
    for base in ["", "/v1", "/beta", "/beta/v1"] {
        router = router
            .route(&format!("{base}/models"), get(info::models))
            .route(&format!("{base}/models/{{*id}}"), get(info::model))
            .route(&format!("{base}/chat/completions"), post(chat::complete))
            .route(&format!("{base}/completions"), post(completions::complete))
            .route(&format!("{base}/embeddings"), post(embeddings::embed));
    }
    router
        .fallback(page::page)
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path knows other methods")
                .with_code("method_not_allowed")
        })
        // Bodies are read with limits of their own.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state((Arc::clone(&state), Arc::new(allowed)), guard))
        .with_state(state)
}
