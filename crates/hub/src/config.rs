//! Settings of a pull. The environment is read here and nowhere else in this crate; tests fill [`Config`] by hand.
//!
//! | variable | meaning |
//! |---|---|
//! | `FATHOM_HOME` | where models are kept; else `$XDG_DATA_HOME/fathom`, else `~/.local/share/fathom` |
//! | `HF_ENDPOINT` | the hub or a mirror of it, also with a path; default `https://huggingface.co` |
//! | `HF_TOKEN` | access token, sent to the endpoint's own host only |
//! | `SSL_CERT_FILE` | PEM file of root certificates, in place of the built-in ones |
//! | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | as everywhere |

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::ConfigError;
use crate::http::Origin;

/// The hub that is asked unless `HF_ENDPOINT` says otherwise.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Everything a pull needs to know besides what to pull.
#[derive(Debug, Clone)]
pub struct Config {
    /// The hub: scheme, host, perhaps a port and a path; no `/` at the end.
    pub endpoint: String,
    /// The access token, if any.
    pub token: Option<Token>,
    /// The directory that holds `models/` and `locks/`.
    pub home: PathBuf,
    /// PEM file with the only root certificates to trust; `None`: the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// A proxy; `None`: connect directly.
    pub proxy: Option<Proxy>,
    /// How failures that may pass are tried again.
    pub retry: Retry,
    /// A connection that delivers nothing for so long counts as broken.
    pub stall_timeout: Duration,
}

/// How often and how patiently a failure is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries in a row without progress before giving up, the first included.
    pub attempts: u32,
    /// The pause after the first failure; each further one doubles it.
    pub first_pause: Duration,
    /// The longest pause, also when the server asks for one (`Retry-After`): beyond it the pull stops with an error.
    pub longest_pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(60) }
    }
}

/// An access token. Its text shows up in no message and no debug print.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token; it has to be visible ASCII, so that it cannot smuggle a header.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        let text = text.trim();
        if text.is_empty() || text.len() > 4096 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::Token);
        }
        Ok(Self(text.to_string()))
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The proxy of the environment.
#[derive(Clone)]
pub struct Proxy(pub(crate) ureq::Proxy);

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.0.host(), self.0.port())
    }
}

impl Config {
    /// The public hub, no token, no proxy, models below `home`.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.to_string(),
            token: None,
            home: home.into(),
            ca_file: None,
            proxy: None,
            retry: Retry::default(),
            stall_timeout: Duration::from_secs(60),
        }
    }

    /// The settings of the environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut config = Self::from_lookup(std::env::var_os)?;
        config.proxy = ureq::Proxy::try_from_env().map(Proxy);
        Ok(config)
    }

    fn from_lookup(get: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let text = |name| set(&get, name).map(|value| value.to_string_lossy().into_owned());
        let mut config = Self::new(home_from_lookup(&get)?);
        if let Some(endpoint) = text("HF_ENDPOINT") {
            config.endpoint = endpoint.trim().trim_end_matches('/').to_string();
        }
        config.token = text("HF_TOKEN").map(|token| Token::new(&token)).transpose()?;
        config.ca_file = set(&get, "SSL_CERT_FILE").map(PathBuf::from);
        for name in ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            if text(name).is_some_and(|proxy| ureq::Proxy::new(&proxy).is_err()) {
                return Err(ConfigError::Proxy);
            }
        }
        config.check()?;
        Ok(config)
    }

    /// The parsed endpoint. A token for a host that is reached without encryption is refused, except on this machine.
    pub(crate) fn check(&self) -> Result<Origin, ConfigError> {
        let bad = |why| ConfigError::Endpoint { value: crate::error::clip(&self.endpoint, 200), why };
        let origin = Origin::of(&self.endpoint).map_err(bad)?;
        if self.endpoint.contains(['?', '#']) {
            return Err(bad("has a query or a fragment"));
        }
        if self.token.is_some() && !origin.is_encrypted() && !origin.is_this_machine() {
            return Err(ConfigError::PlainToken { endpoint: self.endpoint.clone() });
        }
        Ok(origin)
    }
}

/// The directory for models that the environment names.
pub fn home_from_env() -> Result<PathBuf, ConfigError> {
    home_from_lookup(&|name| std::env::var_os(name))
}

fn home_from_lookup(get: &impl Fn(&'static str) -> Option<OsString>) -> Result<PathBuf, ConfigError> {
    for (name, below) in [("FATHOM_HOME", ""), ("XDG_DATA_HOME", "fathom"), ("HOME", ".local/share/fathom")] {
        let Some(value) = set(get, name).map(PathBuf::from) else { continue };
        if value.is_absolute() {
            return Ok(if below.is_empty() { value } else { value.join(below) });
        }
        // The XDG specification says to ignore a relative path; for our own variable that would hide a mistake.
        if name != "XDG_DATA_HOME" {
            return Err(ConfigError::RelativeHome { name, value });
        }
    }
    Err(ConfigError::NoHome)
}

/// A variable that is set to something: an empty one counts as unset.
fn set(get: &impl Fn(&'static str) -> Option<OsString>, name: &'static str) -> Option<OsString> {
    get(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn home_in_order() {
        let home = |pairs: &[(&'static str, &str)]| config(pairs).unwrap().home;
        assert_eq!(home(&[("HOME", "/h")]), PathBuf::from("/h/.local/share/fathom"));
        assert_eq!(home(&[("HOME", "/h"), ("XDG_DATA_HOME", "/x")]), PathBuf::from("/x/fathom"));
        assert_eq!(home(&[("HOME", "/h"), ("XDG_DATA_HOME", "relative")]), PathBuf::from("/h/.local/share/fathom"));
        assert_eq!(home(&[("XDG_DATA_HOME", "/x"), ("FATHOM_HOME", "/f")]), PathBuf::from("/f"));
        assert_eq!(home(&[("FATHOM_HOME", ""), ("HOME", "/h")]), PathBuf::from("/h/.local/share/fathom"));
        assert!(matches!(config(&[]), Err(ConfigError::NoHome)));
        assert!(matches!(config(&[("FATHOM_HOME", "models")]), Err(ConfigError::RelativeHome { .. })));
    }

    #[test]
    fn endpoint_and_token() {
        let with = |endpoint, token| config(&[("HOME", "/h"), ("HF_ENDPOINT", endpoint), ("HF_TOKEN", token)]);
        assert_eq!(with("https://mirror.example/hf/", "").unwrap().endpoint, "https://mirror.example/hf");
        assert_eq!(with("", "").unwrap().endpoint, DEFAULT_ENDPOINT);
        assert!(with("", "hf_abc").unwrap().token.is_some());
        assert!(with("http://127.0.0.1:9000", "hf_abc").is_ok());
        assert!(matches!(with("http://mirror.example", "hf_abc"), Err(ConfigError::PlainToken { .. })));
        assert!(matches!(with("", "a b"), Err(ConfigError::Token)));
        assert!(matches!(with("", "a\r\nX-Evil: 1"), Err(ConfigError::Token)));
        for endpoint in
            ["ftp://x", "mirror.example", "https://", "https://a@b", "https://x?y", "https://x#y", "https://x y"]
        {
            assert!(matches!(with(endpoint, ""), Err(ConfigError::Endpoint { .. })), "{endpoint}");
        }
    }

    #[test]
    fn token_is_never_printed() {
        let config = config(&[("HOME", "/h"), ("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn broken_proxy_is_an_error() {
        assert!(matches!(config(&[("HOME", "/h"), ("HTTPS_PROXY", "gopher://x")]), Err(ConfigError::Proxy)));
    }
}
