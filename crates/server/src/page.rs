//! The web page: the built files of `web/dist`, embedded when the program was built.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::error::ApiError;

#[derive(RustEmbed)]
#[folder = "../../web/dist"]
#[allow_missing = true]
struct Files;

const NO_PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>fathom</title><h1>fathom</h1>\
    <p>The server runs. It was built without its web page; the API is at <code>/v1</code>.";

/// Paths of the API, under which a missing one is an error and not the page.
const API: [&str; 6] = ["/v1/", "/beta/", "/api/", "/user/", "/anthropic/", "/chat/"];

/// What no other path answers: files of the page, and the page itself for paths that are its own.
pub(crate) async fn page(request: Request) -> Response {
    let path = request.uri().path();
    if API.iter().any(|api| path.starts_with(api)) || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::not_found("there is no such path").into_response();
    }
    let name = path.trim_start_matches('/');
    if let Some(file) = Files::get(name) {
        return found(name, file.data);
    }
    if name.rsplit('/').next().is_some_and(|last| last.contains('.')) {
        return ApiError::not_found("there is no such file").into_response();
    }
    match Files::get("index.html") {
        Some(index) => found("index.html", index.data),
        None => (StatusCode::OK, Html(NO_PAGE)).into_response(),
    }
}

/// A file; those under `assets/` are named by their content and never change.
fn found(name: &str, data: std::borrow::Cow<'static, [u8]>) -> Response {
    let kind = match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let cache = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = data.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}
