//! The only user of the HTTP client: one GET with redirects, the token rule, and what a status means.
//!
//! Redirects are followed here and not by the client, because three rules hang on them: the token goes to the
//! endpoint's origin only, an encrypted connection is never followed by an unencrypted one, and the headers of the
//! hub's own answer (`X-Repo-Commit`, `X-Linked-Etag`) are wanted although it redirects to a store elsewhere.
//!
//! Trust: Mozilla's root certificates, built in (`webpki-roots`). They are the same on each system, need no package
//! of certificates in a small container and no platform code; `SSL_CERT_FILE` replaces them where a company or a
//! mirror has its own.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{self, HeaderMap};
use ureq::http::{Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, Timeout};

use crate::config::{Config, Retry, Token};
use crate::error::{ConfigError, PullError, clip};
use crate::progress::{Event, Progress};
use crate::reference::Reference;

/// The largest JSON answer that is read. The file list of the largest repositories is a few megabytes.
pub(crate) const JSON_LIMIT_BYTES: u64 = 64 << 20;
/// Longest chain of redirects.
const REDIRECT_LIMIT: usize = 8;
/// Longest PEM file.
const CERTIFICATES_LIMIT_BYTES: u64 = 16 << 20;

/// Scheme, host and port: what the token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    pub(crate) host: String,
    port: u16,
}

impl Origin {
    /// The origin of an absolute http or https URL; the error is the end of a sentence.
    pub(crate) fn of(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "is not a URL")?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("is not an absolute URL");
        };
        if scheme != "http" && scheme != "https" {
            return Err("is neither http nor https");
        }
        if authority.as_str().contains('@') {
            return Err("has a user name in it");
        }
        if authority.host().is_empty() {
            return Err("has no host");
        }
        let default_port = if scheme == "https" { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(default_port);
        Ok(Self { scheme: scheme.to_string(), host: authority.host().to_ascii_lowercase(), port })
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }

    pub(crate) fn is_this_machine(&self) -> bool {
        matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "[::1]")
    }
}

/// A failure, and whether another try may help.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Try again, after the pause that the server asked for if it did.
    Passing(PullError, Option<Duration>),
    /// Another try would give the same.
    Final(PullError),
}

impl From<PullError> for Fault {
    fn from(error: PullError) -> Self {
        Self::Final(error)
    }
}

/// A successful answer (200 or 206) after redirects.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The headers of the endpoint's own answer, before any redirect.
    pub(crate) hub_headers: HeaderMap,
    /// The headers of the last answer.
    pub(crate) headers: HeaderMap,
    /// Who gave the last answer.
    pub(crate) host: String,
    pub(crate) body: Body,
}

/// A connection to one hub, for one model.
pub(crate) struct Client<'a> {
    agent: Agent,
    pub(crate) endpoint: &'a str,
    origin: Origin,
    token: Option<&'a Token>,
    pub(crate) retry: Retry,
    reference: &'a Reference,
}

impl<'a> Client<'a> {
    pub(crate) fn new(config: &'a Config, reference: &'a Reference) -> Result<Self, ConfigError> {
        let origin = config.check()?;
        let roots = match &config.ca_file {
            Some(path) => read_certificates(path)?,
            None => RootCerts::WebPki,
        };
        let agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .proxy(config.proxy.as_ref().map(|proxy| proxy.0.clone()))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("fathom/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(config.stall_timeout))
            .timeout_per_read(Some(config.stall_timeout))
            .build()
            .new_agent();
        let token = config.token.as_ref();
        Ok(Self {
            agent,
            endpoint: config.endpoint.trim_end_matches('/'),
            origin,
            token,
            retry: config.retry,
            reference,
        })
    }

    /// GET a path of the endpoint; with `from_byte`, only what follows that byte.
    pub(crate) fn get(&self, path: &str, from_byte: Option<u64>) -> Result<Answer, Fault> {
        let mut url = format!("{}{path}", self.endpoint);
        let mut hub_headers = None;
        for _ in 0..=REDIRECT_LIMIT {
            let origin = Origin::of(&url).map_err(|why| self.redirect_error(&url, why))?;
            let response = self.get_once(&url, &origin, from_byte)?;
            let status = response.status().as_u16();
            if matches!(status, 301 | 302 | 303 | 307 | 308) {
                url = self.redirect_target(&url, &origin, response.headers())?;
                hub_headers.get_or_insert(response.into_parts().0.headers);
                continue;
            }
            if status != 200 && status != 206 {
                return Err(self.status_fault(status, path, &origin, response.headers()));
            }
            let (parts, body) = response.into_parts();
            let hub_headers = hub_headers.unwrap_or_else(|| parts.headers.clone());
            return Ok(Answer { status, hub_headers, headers: parts.headers, host: origin.host, body });
        }
        Err(self.redirect_error(&url, "is one redirect too many").into())
    }

    /// GET a path of the endpoint whole, within the limit for JSON, trying again as needed.
    pub(crate) fn get_json(&self, path: &str, progress: &dyn Progress) -> Result<(Vec<u8>, HeaderMap), PullError> {
        self.with_retries(progress, || {
            let answer = self.get(path, None)?;
            let too_large = || self.answer_error(path, format!("it is larger than {} MiB", JSON_LIMIT_BYTES >> 20));
            if answer.body.content_length().is_some_and(|bytes| bytes > JSON_LIMIT_BYTES) {
                return Err(too_large().into());
            }
            let mut content = Vec::new();
            let broken = |cause: std::io::Error| Fault::Passing(self.unreachable(&answer.host, &cause), None);
            answer.body.into_reader().take(JSON_LIMIT_BYTES + 1).read_to_end(&mut content).map_err(broken)?;
            if content.len() as u64 > JSON_LIMIT_BYTES {
                return Err(too_large().into());
            }
            Ok((content, answer.headers))
        })
    }

    fn with_retries<T>(
        &self,
        progress: &dyn Progress,
        mut action: impl FnMut() -> Result<T, Fault>,
    ) -> Result<T, PullError> {
        let mut failures = 0;
        loop {
            let fault = match action() {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            failures += 1;
            self.pause_after(fault, failures, progress)?;
        }
    }

    /// Waits before the next try after `failures` in a row, or says that there is none.
    pub(crate) fn pause_after(&self, fault: Fault, failures: u32, progress: &dyn Progress) -> Result<(), PullError> {
        let (error, asked) = match fault {
            Fault::Final(error) => return Err(error),
            Fault::Passing(error, asked) => (error, asked),
        };
        let doubled = self.retry.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let pause = asked.unwrap_or(doubled.min(self.retry.longest_pause));
        if failures >= self.retry.attempts || pause > self.retry.longest_pause {
            return Err(error);
        }
        progress.event(Event::Retry { cause: &error.to_string(), pause });
        // In slices, so that stopping does not wait for the pause to end.
        let mut left = pause;
        while !left.is_zero() {
            if progress.cancelled() {
                return Err(PullError::Cancelled);
            }
            let slice = left.min(Duration::from_millis(100));
            std::thread::sleep(slice);
            left -= slice;
        }
        Ok(())
    }

    pub(crate) fn answer_error(&self, path: &str, why: impl Into<String>) -> PullError {
        PullError::Answer { host: self.origin.host.clone(), path: clip(path, 200), why: why.into() }
    }

    pub(crate) fn unreachable(&self, host: &str, cause: &dyn std::fmt::Display) -> PullError {
        PullError::Unreachable { host: host.to_string(), cause: clip(&cause.to_string(), 200) }
    }

    fn get_once(&self, url: &str, origin: &Origin, from_byte: Option<u64>) -> Result<Response<Body>, Fault> {
        let mut request = self.agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token
            && *origin == self.origin
        {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        if let Some(from_byte) = from_byte {
            request = request.header(header::RANGE, format!("bytes={from_byte}-"));
        }
        request.call().map_err(|error| self.transport_fault(&origin.host, error))
    }

    fn transport_fault(&self, host: &str, error: ureq::Error) -> Fault {
        let is_tls = match &error {
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => true,
            // The TLS library reports a failed handshake as invalid data.
            ureq::Error::Io(cause) => cause.kind() == std::io::ErrorKind::InvalidData,
            _ => false,
        };
        if is_tls {
            let cause = clip(&error.to_string(), 200);
            return Fault::Final(PullError::Tls { host: host.to_string(), cause });
        }
        match &error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                Fault::Passing(self.unreachable(host, &"no connection within 30 s"), None)
            }
            ureq::Error::Timeout(_) => Fault::Passing(self.unreachable(host, &"no answer in time"), None),
            ureq::Error::HostNotFound => Fault::Passing(self.unreachable(host, &"there is no such host"), None),
            ureq::Error::LargeResponseHeader(..) => Fault::Final(self.answer_error("", "its headers are too large")),
            _ => Fault::Passing(self.unreachable(host, &error), None),
        }
    }

    fn redirect_error(&self, target: &str, why: &'static str) -> PullError {
        PullError::Redirect { host: self.origin.host.clone(), target: clip(target, 200), why }
    }

    fn redirect_target(&self, url: &str, from: &Origin, headers: &HeaderMap) -> Result<String, PullError> {
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let target = absolute_url(url, location).ok_or_else(|| self.redirect_error(location, "is no URL"))?;
        let to = Origin::of(&target).map_err(|why| self.redirect_error(location, why))?;
        if from.is_encrypted() && !to.is_encrypted() {
            return Err(self.redirect_error(location, "is not encrypted"));
        }
        Ok(target)
    }

    /// What a status means. The hub says more in `X-Error-Code`; 401 also stands for "no such model".
    fn status_fault(&self, status: u16, path: &str, origin: &Origin, headers: &HeaderMap) -> Fault {
        let model = self.reference.model();
        let host = origin.host.clone();
        let code = headers.get("x-error-code").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let plain = || PullError::Status { host: host.clone(), status, path: clip(path, 200) };
        if *origin != self.origin {
            // A signed address of the file store expires; the next try gets a new one from the hub.
            let passing = status >= 500 || matches!(status, 401 | 403 | 408 | 429);
            return if passing { Fault::Passing(plain(), retry_after(headers)) } else { Fault::Final(plain()) };
        }
        match (status, code) {
            (_, "GatedRepo") => {
                Fault::Final(PullError::Gated { page: format!("{}/{model}", self.endpoint), model, status })
            }
            (_, "RevisionNotFound") => {
                Fault::Final(PullError::NoRevision { model, revision: self.reference.revision_or_main().to_string() })
            }
            (404, code) if code == "EntryNotFound" || (code.is_empty() && path.contains("/resolve/")) => {
                Fault::Final(PullError::NoFile { model, file: clip(path, 200) })
            }
            (404, _) | (_, "RepoNotFound") => {
                Fault::Final(PullError::NotFound { model, endpoint: self.endpoint.to_string(), status })
            }
            (401, _) if self.token.is_none() => {
                Fault::Final(PullError::NotFound { model, endpoint: self.endpoint.to_string(), status })
            }
            (401, _) => {
                let advice = "HF_TOKEN is not valid there; make a new access token, or unset it for public models";
                Fault::Final(PullError::Refused { model, host, status, advice })
            }
            (403, _) => {
                let advice = "accept the model's licence on its page if it has one, and set HF_TOKEN to a token that may read it";
                Fault::Final(PullError::Refused { model, host, status, advice })
            }
            (429, _) => {
                let asked = retry_after(headers);
                let seconds = asked.unwrap_or(self.retry.longest_pause).as_secs();
                Fault::Passing(PullError::RateLimited { host, seconds }, asked)
            }
            (408 | 425 | 500..=599, _) => Fault::Passing(plain(), retry_after(headers)),
            _ => Fault::Final(plain()),
        }
    }
}

/// The pause that a server asks for, in its form as seconds; the form as a date is left to our own pauses.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// `location` seen from `base` (RFC 3986 section 5, the forms that servers send).
fn absolute_url(base: &str, location: &str) -> Option<String> {
    if location.is_empty() || !location.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let (scheme, rest) = base.split_once("://")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let has_scheme = location.split(['/', '?', '#']).next().is_some_and(|head| head.contains(':'));
    if has_scheme {
        Some(location.to_string())
    } else if location.starts_with("//") {
        Some(format!("{scheme}:{location}"))
    } else if location.starts_with('/') {
        Some(format!("{scheme}://{authority}{location}"))
    } else {
        let path = rest[authority.len()..].split(['?', '#']).next().unwrap_or_default();
        let directory = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
        let slash = if directory.is_empty() { "/" } else { "" };
        Some(format!("{scheme}://{authority}{slash}{directory}{location}"))
    }
}

fn read_certificates(path: &std::path::Path) -> Result<RootCerts, ConfigError> {
    let fail = |why: String| ConfigError::Certificates { path: path.to_path_buf(), why };
    let file = std::fs::File::open(path).map_err(|error| fail(error.to_string()))?;
    let mut pem = Vec::new();
    file.take(CERTIFICATES_LIMIT_BYTES).read_to_end(&mut pem).map_err(|error| fail(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(fail(clip(&error.to_string(), 200))),
        }
    }
    if certificates.is_empty() {
        return Err(fail("there is no certificate in it".to_string()));
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_targets() {
        let base = "https://hub.example:8443/a/b/resolve/main/f?x=1";
        let cases = [
            ("https://cdn.example/x?sig=1", "https://cdn.example/x?sig=1"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/api/x", "https://hub.example:8443/api/x"),
            ("g", "https://hub.example:8443/a/b/resolve/main/g"),
            ("file:///etc/passwd", "file:///etc/passwd"),
        ];
        for (location, expected) in cases {
            assert_eq!(absolute_url(base, location).as_deref(), Some(expected), "{location}");
        }
        assert_eq!(absolute_url(base, ""), None);
        assert_eq!(absolute_url(base, "/a\u{7f}"), None);
        assert_eq!(absolute_url("http://h", "x").as_deref(), Some("http://h/x"));
    }

    #[test]
    fn unsafe_redirects_are_refused() {
        let config = Config::new("/nowhere");
        let reference = Reference::parse("a/b").unwrap();
        let client = Client::new(&config, &reference).unwrap();
        let base = "https://huggingface.co/a/b/resolve/main/f";
        let target = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().unwrap());
            client.redirect_target(base, &Origin::of(base).unwrap(), &headers)
        };
        assert_eq!(target("https://cdn.example/x").unwrap(), "https://cdn.example/x");
        for location in
            ["http://huggingface.co/x", "file:///etc/passwd", "https://huggingface.co@evil/", "https://", ""]
        {
            assert!(matches!(target(location), Err(PullError::Redirect { .. })), "{location}");
        }
    }

    #[test]
    fn origins_compare_scheme_host_and_port() {
        let origin = |url| Origin::of(url).unwrap();
        assert_eq!(origin("https://Hub.example/a"), origin("https://hub.example:443/b"));
        assert_ne!(origin("https://hub.example"), origin("http://hub.example"));
        assert_ne!(origin("https://hub.example"), origin("https://hub.example:444"));
        assert_ne!(origin("https://hub.example"), origin("https://hub.example.evil"));
        assert!(Origin::of("https://hub.example@evil/").is_err());
        assert!(Origin::of("file:///etc/passwd").is_err());
    }
}
