//! Bodies of requests: no larger and no slower than the limits, and JSON of the right types.

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::error::{ApiError, ApiResult};
use crate::limits::Limits;

/// Reads a body.
pub(crate) async fn read(limits: &Limits, body: Body) -> ApiResult<Bytes> {
    let too_large = || {
        let message = format!("the body has more than {} bytes", limits.body_bytes_max);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).with_code("request_too_large")
    };
    if axum::body::HttpBody::size_hint(&body).lower() > limits.body_bytes_max as u64 {
        return Err(too_large());
    }
    let (mut body, mut out, begun) = (body, BytesMut::new(), Instant::now());
    loop {
        let earned = out.len() as f64 / limits.body_bytes_per_second_min.max(1) as f64;
        let deadline = begun + limits.body_wait + std::time::Duration::from_secs_f64(earned);
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body comes too slowly").with_code("request_timeout")
        })?;
        let Some(frame) = frame else { return Ok(out.freeze()) };
        let frame = frame.map_err(|_| ApiError::format("the body broke off"))?;
        if let Ok(data) = frame.into_data() {
            if out.len() + data.len() > limits.body_bytes_max {
                return Err(too_large());
            }
            out.extend_from_slice(&data);
        }
    }
}

/// Reads a body as JSON; an error names the field.
pub(crate) async fn read_json<T: DeserializeOwned>(limits: &Limits, body: Body) -> ApiResult<T> {
    parse(&read(limits, body).await?)
}

/// JSON of a type: 400 if it is no JSON, 422 if a field is missing or wrong.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json);
    let value: T = parsed.map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                let field = field_of(&path, &inner.to_string());
                let message = format!("{field}: {}", clip(&inner.to_string()));
                ApiError::value(field, message)
            }
            _ => ApiError::format(format!("the body is not valid JSON: {}", clip(&inner.to_string()))),
        }
    })?;
    json.end()
        .map_err(|error| ApiError::format(format!("the body is not valid JSON: {}", clip(&error.to_string()))))?;
    Ok(value)
}

/// The field that an error is about: the path, or the name of what is missing.
fn field_of(path: &str, message: &str) -> String {
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    match (path, missing) {
        (".", None) => "body".into(),
        (".", Some(missing)) => missing.into(),
        (path, None) => clip(path),
        (path, Some(missing)) => format!("{}.{missing}", clip(path)),
    }
}

/// Messages repeat what was sent; a line of it is enough.
fn clip(text: &str) -> String {
    let mut out: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::chat::ChatRequest;

    fn wrong(body: &str) -> (u16, Option<String>) {
        let error = parse::<ChatRequest>(body.as_bytes()).unwrap_err();
        assert!(!error.message.is_empty());
        (error.status.as_u16(), error.param)
    }

    #[test]
    fn what_is_no_json_is_400_and_wrong_fields_are_422_and_named() {
        assert_eq!(wrong("{"), (400, None));
        assert_eq!(wrong(""), (400, None));
        assert_eq!(wrong("{\"messages\": []} x"), (400, None));
        assert_eq!(wrong("[]"), (422, Some("body".into())));
        assert_eq!(wrong("{}"), (422, Some("messages".into())));
        assert_eq!(wrong("{\"messages\": 3}"), (422, Some("messages".into())));
        let message = "{\"messages\": [{\"role\": \"user\"}, {\"role\": \"king\"}]}";
        assert_eq!(wrong(message), (422, Some("messages[1].role".into())));
        assert_eq!(wrong("{\"messages\": [], \"n\": -1}"), (422, Some("n".into())));
        assert_eq!(wrong("{\"messages\": [], \"stream\": \"yes\"}"), (422, Some("stream".into())));
        assert_eq!(wrong("{\"messages\": [], \"seed\": 1e40}"), (422, Some("seed".into())));
        let deep = format!("{{\"messages\": {}", "[".repeat(100_000));
        assert!(wrong(&deep).0 < 500);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let body = "{\"messages\": [{\"role\": \"user\", \"content\": \"x\", \"colour\": 1}], \"future\": {}}";
        assert_eq!(parse::<ChatRequest>(body.as_bytes()).unwrap().messages.len(), 1);
    }
}
