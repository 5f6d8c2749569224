//! Downloads from a model hub, and the local store they land in.
//!
//! This is the only crate of the product that can open an outbound connection, and [`pull()`] is the only function
//! that does: [`Store`] works on local files alone. The hub is the Hugging Face hub or a mirror of it (`HF_ENDPOINT`).
//!
//! A pull pins the revision to a commit first, downloads each file to `NAME.part`, checks it against the hash that the
//! hub's file list gives for that commit, and only then gives it its name. `fathom-manifest.json` is written last: a
//! model without it is incomplete, and the next pull of the same reference goes on where the last one stopped.
//!
//! Everything that a server says is hostile until checked: sizes of answers, number of files, file names, redirects.
//! The access token goes to the endpoint's own host and nowhere else.
//!
//! Modules, from the outside in: [`config`] (environment), [`reference`](mod@reference) (`ORG/NAME[@REV][:WHAT]`),
//! [`store`] (layout, manifest, locks), [`pull`](mod@pull) (the whole job), `select` (which files), `api` (the hub's
//! answers), `download` (one file), `http` (the only user of the HTTP client).

mod api;
pub mod config;
mod download;
pub mod error;
mod hash;
mod http;
pub mod progress;
pub mod pull;
pub mod reference;
mod select;
pub mod store;

pub use config::{Config, Proxy, Retry, Token};
pub use error::{ConfigError, PullError, ReferenceError, StoreError};
pub use progress::{Event, Progress, Silent};
pub use pull::{Pulled, pull};
pub use reference::{Reference, Selection};
pub use store::{Kind, Model, State, Store};
