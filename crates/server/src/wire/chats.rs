//! Stored chats, usage by day, and the balance.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A chat in a list.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct ChatRow {
    /// Its name, made by the page.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
    /// Rises with each change.
    pub revision: i64,
    /// Its size.
    pub bytes: i64,
    /// In answers to a search: the text around the first hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChatRows {
    /// The chats, newest change first.
    pub chats: Vec<ChatRow>,
    /// What to ask for the next page with.
    pub next: Option<String>,
}

/// A whole chat.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StoredChat {
    /// Its row.
    #[serde(flatten)]
    pub row: ChatRow,
    /// The page's own object.
    pub chat: Value,
}

/// A chat to be stored.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct PutChat {
    /// The revision that the page knows; null for a new chat.
    pub revision: Option<i64>,
    /// The page's own object; `title` is read.
    pub chat: Value,
}

/// A new title.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct PatchChat {
    /// The title.
    pub title: String,
}

/// Usage of a key by day and model.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// Such as `USD`.
    pub currency: String,
    /// What is left, if the key has a balance.
    pub balance: Option<String>,
    /// Days and models.
    pub rows: Vec<UsageRow>,
    /// All of them.
    pub total: UsageSum,
}

/// A day and a model.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct UsageRow {
    /// `YYYY-MM-DD`, UTC.
    pub day: String,
    /// The model.
    pub model: String,
    /// Its sums.
    #[serde(flatten)]
    pub sum: UsageSum,
}

/// Sums of usage.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct UsageSum {
    /// Requests.
    pub requests: i64,
    /// Tokens of prompts that were in the cache.
    pub cache_hit_tokens: i64,
    /// Those that were not.
    pub cache_miss_tokens: i64,
    /// Tokens of answers.
    pub completion_tokens: i64,
    /// Those of reasoning among them.
    pub reasoning_tokens: i64,
    /// Money, as a decimal number.
    pub cost: String,
    /// Seconds of computing, measured.
    pub seconds: f64,
    /// Energy, where it is known.
    pub joules: Option<f64>,
    /// `measured` or `estimated`.
    pub joules_label: Option<String>,
}

/// DeepSeek's `/user/balance`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// Whether requests are taken.
    pub is_available: bool,
    /// In each currency.
    pub balance_infos: Vec<BalanceInfo>,
}

/// The balance in a currency.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BalanceInfo {
    /// Such as `USD`.
    pub currency: String,
    /// What is left.
    pub total_balance: String,
    /// What was given.
    pub granted_balance: String,
    /// What was paid in.
    pub topped_up_balance: String,
}
