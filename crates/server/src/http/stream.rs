//! Answers that come over time.
//!
//! A stream is server-sent events, with comments while nothing else comes. An answer in one piece that takes long
//! begins with blank lines (which JSON ignores), so that clients and proxies between do not give up; its status is 200
//! by then, as DeepSeek's is.

use std::time::Duration;

use async_stream::stream;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;

use crate::error::{ApiError, Dialect};

/// One server-sent event.
#[derive(Debug)]
pub(crate) struct Event {
    /// The event's name, where the protocol has names.
    pub(crate) name: Option<&'static str>,
    /// JSON, or a word.
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn data(value: &impl Serialize) -> Event {
        Event { name: None, data: json(value) }
    }

    pub(crate) fn named(name: &'static str, value: &impl Serialize) -> Event {
        Event { name: Some(name), data: json(value) }
    }

    pub(crate) fn done() -> Event {
        Event { name: None, data: "[DONE]".into() }
    }

    fn bytes(&self) -> Bytes {
        let name = self.name.map(|name| format!("event: {name}\n")).unwrap_or_default();
        Bytes::from(format!("{name}data: {}\n\n", self.data))
    }
}

/// Wire types are plain data: they always have a JSON form.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .unwrap_or_else(|error| json(&ApiError::internal(format!("an answer has no JSON form: {error}")).body()))
}

/// A response of events; a comment whenever nothing came for `every`.
pub(crate) fn events(events: impl Stream<Item = Event> + Send + 'static, every: Duration) -> Response {
    let bytes = stream! {
        let mut events = std::pin::pin!(events);
        loop {
            match tokio::time::timeout(every, events.next()).await {
                Ok(Some(event)) => yield Ok::<Bytes, std::convert::Infallible>(event.bytes()),
                Ok(None) => break,
                Err(_) => yield Ok(Bytes::from_static(b": keep-alive\n\n")),
            }
        }
    };
    let mut response = Body::from_stream(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A response of one JSON value: with its own status if it is there within `every`, else after blank lines.
pub(crate) async fn value<T, F>(value: F, every: Duration, dialect: Dialect) -> Response
where
    T: Serialize + Send,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    let mut value = Box::pin(value);
    if let Ok(done) = tokio::time::timeout(every, &mut value).await {
        return match done {
            Ok(value) => json_response(Body::from(json(&value))),
            Err(error) => error.respond(dialect),
        };
    }
    let bytes = stream! {
        loop {
            yield Ok::<Bytes, std::convert::Infallible>(Bytes::from_static(b"\n"));
            let done = tokio::time::timeout(every, &mut value).await;
            let text = done.map(|done| match done {
                Ok(value) => json(&value),
                Err(error) => error.text(dialect),
            });
            if let Ok(text) = text {
                yield Ok(Bytes::from(text));
                break;
            }
        }
    };
    json_response(Body::from_stream(bytes))
}

fn json_response(body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
