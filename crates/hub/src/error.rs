//! What can go wrong, one enum an entry point. Each message is one sentence that names the thing, the value and what
//! to do; none of them ever holds the access token.

use std::io;
use std::path::{Path, PathBuf};

use crate::progress::bytes_text;

/// Why the environment or the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `HF_ENDPOINT` is not a usable URL.
    #[error("HF_ENDPOINT is {value:?}, which {why}; it has to look like https://huggingface.co")]
    Endpoint {
        /// The value found.
        value: String,
        /// What is wrong with it, as the end of a sentence.
        why: &'static str,
    },
    /// `HF_TOKEN` holds characters that no token has.
    #[error(
        "HF_TOKEN holds a space, a control character or a character outside ASCII; copy the token again from the hub"
    )]
    Token,
    /// A token would be sent without encryption.
    #[error(
        "HF_TOKEN would go unencrypted to {endpoint}; use an https:// address in HF_ENDPOINT, or unset HF_TOKEN if that mirror needs none"
    )]
    PlainToken {
        /// The endpoint.
        endpoint: String,
    },
    /// No directory for models can be found.
    #[error("no home directory for models: set FATHOM_HOME to an absolute path (XDG_DATA_HOME and HOME are not set)")]
    NoHome,
    /// A directory variable holds a relative path.
    #[error("{name} is {value:?}, which is not an absolute path; set it to one")]
    RelativeHome {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: PathBuf,
    },
    /// The proxy variables cannot be read.
    #[error(
        "the proxy address in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not a URL that can be used; correct or unset it"
    )]
    Proxy,
    /// The file of root certificates cannot be used.
    #[error("SSL_CERT_FILE: {path}: {why}; name a file with PEM certificates, or unset it to use the built-in ones")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Why a text is not a model reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a model reference: {why}; write ORG/NAME, ORG/NAME:QUANT or ORG/NAME:FILE.gguf, with @REVISION after NAME if you need one"
)]
pub struct ReferenceError {
    /// The text, cut at 120 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// Why the local store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither a path nor a model reference.
    #[error("{name:?} is no file or directory here, and not a model of the store either ({why})")]
    NoSuchPath {
        /// What was asked for.
        name: String,
        /// Why it cannot be a reference.
        why: String,
    },
    /// A well-formed reference to something never pulled.
    #[error("{name} is not on this machine; get it with `fathom pull {name}`")]
    NotPulled {
        /// The reference.
        name: String,
    },
    /// A pull that never finished.
    #[error("{name} is incomplete: its download stopped before the end; go on with `fathom pull {name}`")]
    Incomplete {
        /// The reference.
        name: String,
    },
    /// A file of a finished pull is gone or has another size.
    #[error("{name} is damaged: {path} {why}; remove {directory} and pull it again")]
    Damaged {
        /// The reference.
        name: String,
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
        /// The model's directory.
        directory: PathBuf,
    },
    /// The reference fits several pulled models, or none of those there.
    #[error("{name}: {why}; here are: {}", available.join(", "))]
    Choose {
        /// The reference.
        name: String,
        /// Why a choice is needed.
        why: String,
        /// What can be named after the colon.
        available: Vec<String>,
    },
    /// A manifest that fathom did not write, or that was changed since.
    #[error(
        "{path}: not a manifest that this version of fathom can read ({why}); remove its directory and pull the model again"
    )]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process works on the same model.
    #[error("{name} is being pulled by another process; wait until that one is done")]
    Busy {
        /// The model.
        name: String,
    },
    /// The file system refused.
    #[error("{path}: {cause}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { path, cause }
    }
}

/// Why a pull failed. What was downloaded up to then stays, and the next pull goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The local store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such model, or a private one.
    #[error(
        "{model} is not on {endpoint}, or is private (HTTP {status}): check the spelling, and for a private or gated model set HF_TOKEN"
    )]
    NotFound {
        /// `ORG/NAME`.
        model: String,
        /// The hub.
        endpoint: String,
        /// The HTTP status.
        status: u16,
    },
    /// No such branch, tag or commit.
    #[error("{model} has no revision {revision:?}; name a branch, a tag or a commit of it")]
    NoRevision {
        /// `ORG/NAME`.
        model: String,
        /// The revision.
        revision: String,
    },
    /// A file of the list that the hub then does not serve.
    #[error("{model}: the hub lists {file} but answers HTTP 404 for it; try again later")]
    NoFile {
        /// `ORG/NAME`.
        model: String,
        /// The file.
        file: String,
    },
    /// The model's licence has to be accepted.
    #[error(
        "{model} is gated (HTTP {status}): accept its licence at {page}, then set HF_TOKEN to an access token of that account"
    )]
    Gated {
        /// `ORG/NAME`.
        model: String,
        /// Where to accept the licence.
        page: String,
        /// The HTTP status.
        status: u16,
    },
    /// The hub refuses, for another reason than a licence.
    #[error("{host} refuses {model} (HTTP {status}): {advice}")]
    Refused {
        /// `ORG/NAME`.
        model: String,
        /// Who refuses.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What to do.
        advice: &'static str,
    },
    /// Too many requests.
    #[error(
        "{host} asks to slow down (HTTP 429) and to come back in {seconds} s; pull again then, what is here is kept (HF_TOKEN raises the limit)"
    )]
    RateLimited {
        /// The host.
        host: String,
        /// When to come back.
        seconds: u64,
    },
    /// An HTTP status that says nothing more.
    #[error("{host} answers HTTP {status} for {path}; pull again later, what is here is kept")]
    Status {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The path asked for.
        path: String,
    },
    /// No connection, or one that broke too often.
    #[error(
        "{host} cannot be reached or the connection breaks ({cause}); check the network and pull again, what is here is kept"
    )]
    Unreachable {
        /// The host.
        host: String,
        /// The last failure.
        cause: String,
    },
    /// The other side could not prove who it is.
    #[error(
        "{host}: no trusted TLS connection ({cause}); behind a proxy that inspects traffic, or for a mirror of your own, set SSL_CERT_FILE to its root certificate"
    )]
    Tls {
        /// The host.
        host: String,
        /// The failure.
        cause: String,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects to {target:?}, which {why}; it is not followed")]
    Redirect {
        /// The host.
        host: String,
        /// Where to, cut at 200 characters.
        target: String,
        /// Why not.
        why: &'static str,
    },
    /// An answer that is not what the hub's API promises.
    #[error("{host}: the answer for {path} cannot be used: {why}")]
    Answer {
        /// The host.
        host: String,
        /// The path asked for.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file name that would leave the model's directory.
    #[error(
        "the hub lists a file named {name:?}, which does not stay inside the model's directory; nothing was downloaded"
    )]
    UnsafeName {
        /// The name, cut at 200 characters.
        name: String,
    },
    /// The selection does not fit what the hub has.
    #[error("{model}: {why}; there is: {}", if available.is_empty() { "nothing that fathom can run".to_string() } else { available.join(", ") })]
    Choose {
        /// `ORG/NAME`.
        model: String,
        /// Why nothing can be chosen.
        why: String,
        /// What can be chosen.
        available: Vec<String>,
    },
    /// A file changed on the hub under a name that was pulled before.
    #[error(
        "{file} of {model} changed on the hub ({why}); nothing here was overwritten: pull {model}@COMMIT to have both, or remove {directory} and pull again"
    )]
    Changed {
        /// `ORG/NAME`.
        model: String,
        /// The file.
        file: String,
        /// What changed.
        why: String,
        /// The model's directory.
        directory: PathBuf,
    },
    /// A file that is in the way.
    #[error("{path} exists and is not the file that the hub lists ({why}); move it away and pull again")]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// In what they differ.
        why: String,
    },
    /// A download whose content is not what the hub listed.
    #[error("{file}: the content has {algorithm} {found}, the hub lists {expected}; it was thrown away, pull again")]
    HashMismatch {
        /// The file.
        file: String,
        /// `SHA-256` or `git SHA-1`.
        algorithm: &'static str,
        /// The listed hash.
        expected: String,
        /// The hash of what came.
        found: String,
    },
    /// The disk is too small.
    #[error("{path} has {} free and the download needs {}; make room, or set FATHOM_HOME to a larger disk", bytes_text(*available_bytes), bytes_text(*needed_bytes))]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What is still to come.
        needed_bytes: u64,
        /// What is free.
        available_bytes: u64,
    },
    /// [`Progress::cancelled`](crate::Progress::cancelled) said so.
    #[error("the pull was stopped; what is here is kept, pull again to go on")]
    Cancelled,
}

impl PullError {
    /// An error of the file system; a full disk gets its own advice.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Store(StoreError::Io { path, cause })
    }
}

/// A text from outside, cut so that it fits a message.
pub(crate) fn clip(text: &str, limit_chars: usize) -> String {
    let mut chars = text.chars();
    let mut clipped: String = chars.by_ref().take(limit_chars).collect();
    if chars.next().is_some() {
        clipped.push('…');
    }
    clipped
}
