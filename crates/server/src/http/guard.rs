//! What a request must be before any handler sees it, and what every answer carries.
//!
//! - `Host` is an address, `localhost`, or a name that was allowed: a web page that rebinds its own name to this
//!   machine comes with its own name and is refused.
//! - A browser's `Origin` is the page that this server serves, or one that was allowed; there is no CORS.
//! - A request with a body is JSON, which forms of other pages cannot send.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::{ApiError, ApiResult};
use crate::state::State;

/// Names and origins beyond those of this machine.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Names (without port) under which the server may be reached.
    pub hosts: Vec<String>,
    /// Origins of pages (such as `https://chat.example`) that may call it.
    pub origins: Vec<String>,
}

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Checks a request, hands it on, and adds the headers of every answer.
pub(crate) async fn guard(
    Shared((state, allowed)): Shared<(Arc<State>, Arc<Allowed>)>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let mut response = match check(&request, &allowed) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    state.metrics.status(response.status().as_u16());
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn check(request: &Request<Body>, allowed: &Allowed) -> ApiResult<()> {
    let headers = request.headers();
    let host = host(request)?;
    if !host_allowed(&host, allowed) {
        let host: String = host.chars().take(80).collect();
        let message = format!("this server is not {host:?}; start it with --host-name to serve it under that name");
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, message).with_code("wrong_host"));
    }
    let foreign = || ApiError::new(StatusCode::FORBIDDEN, "pages of other origins may not call this server");
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(&host));
        if !own && !allowed.origins.iter().any(|known| known.eq_ignore_ascii_case(origin)) {
            return Err(foreign().with_code("wrong_origin"));
        }
    } else if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
        && !matches!(*request.method(), Method::GET | Method::HEAD)
    {
        return Err(foreign().with_code("wrong_origin"));
    }
    let changes = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if changes && !is_json(headers) {
        let message = "the body must be JSON: send Content-Type: application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).with_code("invalid_request_error"));
    }
    Ok(())
}

/// The one `Host` of a request.
fn host(request: &Request<Body>) -> ApiResult<String> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let wrong = || ApiError::format("a request has exactly one Host header");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.to_str().map_err(|_| wrong())?.to_string()),
        _ => Err(wrong()),
    }
}

fn host_allowed(host: &str, allowed: &Allowed) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| !address.is_unspecified())
        || allowed.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let mut builder = Request::builder().method(method).uri("/v1/models");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Body::empty()).unwrap()
    }

    #[test]
    fn hosts_are_addresses_localhost_or_allowed_names() {
        let allowed = Allowed { hosts: vec!["box.lan".into()], origins: Vec::new() };
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "192.168.1.5:80", "box.lan:8080"] {
            assert!(check(&request("GET", &[("host", host)]), &allowed).is_ok(), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:80", "0.0.0.0:8080", "[::]:80", "", "localhost.evil"] {
            assert_eq!(check(&request("GET", &[("host", host)]), &allowed).unwrap_err().status, 421, "{host}");
        }
        let two = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(check(&request("GET", &two), &allowed).unwrap_err().status, 400);
        assert_eq!(check(&request("GET", &[]), &allowed).unwrap_err().status, 400);
    }

    #[test]
    fn origins_are_the_page_itself_or_allowed() {
        let allowed = Allowed { hosts: Vec::new(), origins: vec!["https://chat.example".into()] };
        let status = |origin: &str| {
            let headers = [("host", "localhost:8080"), ("origin", origin)];
            check(&request("GET", &headers), &allowed).map_err(|error| error.status.as_u16())
        };
        assert_eq!(status("http://localhost:8080"), Ok(()));
        assert_eq!(status("https://chat.example"), Ok(()));
        for origin in ["null", "http://localhost:8081", "http://evil.example", "http://127.0.0.1:8080", ""] {
            assert_eq!(status(origin), Err(403), "{origin}");
        }
        let fetch = [("host", "localhost"), ("sec-fetch-site", "cross-site"), ("content-type", "application/json")];
        assert_eq!(check(&request("POST", &fetch), &allowed).unwrap_err().status, 403);
    }

    #[test]
    fn bodies_are_json() {
        let status = |kind: &str| {
            let headers = [("host", "localhost"), ("content-type", kind)];
            check(&request("POST", &headers), &Allowed::default()).map_err(|error| error.status.as_u16())
        };
        assert_eq!((status("application/json"), status("Application/JSON; charset=utf-8")), (Ok(()), Ok(())));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
            assert_eq!(status(kind), Err(415), "{kind}");
        }
    }
}
