//! The types on the wire: what requests may say and what answers look like.
//!
//! Unknown fields are ignored, as OpenAI's API does. A known field of a wrong type is an error that names it; values
//! are checked where a request is turned into work (`api`).

pub mod chat;
pub mod chats;
pub mod completions;
pub mod embeddings;
pub mod error;
pub mod info;
pub mod messages;
pub mod responses;
pub mod usage;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One text or several.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(untagged, expecting = "a text or a list of texts")]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

/// How a stream is sent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, ToSchema)]
pub struct StreamOptions {
    /// A last chunk with the usage.
    pub include_usage: Option<bool>,
}

/// Whether the model reasons before it answers.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
pub struct Thinking {
    /// `enabled`, `disabled` or `adaptive` (the model decides).
    #[serde(rename = "type")]
    pub kind: ThinkingKind,
    /// The most tokens of reasoning.
    pub budget_tokens: Option<u32>,
}

/// Whether the model reasons.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ThinkingKind {
    /// It does.
    Enabled,
    /// It does not.
    Disabled,
    /// As the model's template has it.
    Adaptive,
}
