//! What goes wrong with a request: DeepSeek's status codes, OpenAI's bodies.
//!
//! 400 what cannot be read, 401 the key, 402 the balance, 404 no such thing, 409 another revision, 413 and 415 the
//! body, 422 a value, 429 too much at once (`Retry-After`), 500 our fault, 503 not now. A message is one sentence and
//! holds no path, address or content of other requests.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::stream::json as json_text;
use crate::wire::error::{ErrorBody, ErrorDetail};

/// A refusal, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// One sentence.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// A name for programs.
    pub code: Option<&'static str>,
    /// Seconds after which it may work.
    pub retry_after_s: Option<u64>,
}

/// Whose shape an error's body has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
}

/// The result of a handler.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), param: None, code: None, retry_after_s: None }
    }

    /// The body is not what its format says.
    pub(crate) fn format(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message).with_code("invalid_request_error")
    }

    /// A field has a value that cannot be used.
    pub(crate) fn value(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message);
        ApiError { param: Some(param.into()), ..error.with_code("invalid_request_error") }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message).with_code("not_found")
    }

    /// Too much at once.
    pub(crate) fn too_many(message: impl Into<String>, retry_after_s: u64) -> ApiError {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message).with_code("rate_limit_reached");
        ApiError { retry_after_s: Some(retry_after_s), ..error }
    }

    /// Not now.
    pub(crate) fn unavailable(message: impl Into<String>, retry_after_s: u64) -> ApiError {
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).with_code("overloaded");
        ApiError { retry_after_s: Some(retry_after_s), ..error }
    }

    /// Our fault.
    pub(crate) fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message).with_code("internal_error")
    }

    pub(crate) fn with_code(self, code: &'static str) -> ApiError {
        ApiError { code: Some(code), ..self }
    }

    /// OpenAI's name for the kind of error.
    pub(crate) fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            402 => "insufficient_balance",
            403 => "permission_error",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            500..=599 => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body in OpenAI's shape.
    pub(crate) fn body(&self) -> ErrorBody {
        let (message, param) = (self.message.clone(), self.param.clone());
        let code = self.code.map(str::to_string);
        ErrorBody { error: ErrorDetail { message, kind: self.kind().to_string(), param, code } }
    }

    /// The answer in a dialect.
    pub(crate) fn respond(self, dialect: Dialect) -> Response {
        match dialect {
            Dialect::OpenAi => self.into_response(),
            Dialect::Anthropic => self.into_anthropic(),
        }
    }

    /// The body in a dialect, where the status has been sent already.
    pub(crate) fn text(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::OpenAi => json_text(&self.body()),
            Dialect::Anthropic => json_text(&self.anthropic_body()),
        }
    }

    /// The answer in Anthropic's shape; its API has no 422.
    pub(crate) fn into_anthropic(mut self) -> Response {
        if self.status == StatusCode::UNPROCESSABLE_ENTITY {
            self.status = StatusCode::BAD_REQUEST;
        }
        self.answer(Json(self.anthropic_body()).into_response())
    }

    /// The body in Anthropic's shape.
    pub(crate) fn anthropic_body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            500..=599 => "api_error",
            _ => "invalid_request_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": self.message}})
    }

    fn answer(&self, mut response: Response) -> Response {
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.answer(Json(self.body()).into_response())
    }
}
