//! What the server says about itself: `/v1/models` and `/api/info`; and `/api/tokenize`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::chat::{Message, Tool};
use super::usage::Words;

/// `/v1/models`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: String,
    /// The models.
    pub data: Vec<ModelObject>,
}

/// A model.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ModelObject {
    /// Its name.
    pub id: String,
    /// `model`.
    pub object: String,
    /// When the server began to serve it, in seconds since 1970.
    pub created: u64,
    /// `fathom`.
    pub owned_by: String,
    /// Tokens of a prompt and its answer together.
    pub context_length: usize,
}

/// `/api/info`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// `fathom`.
    pub name: String,
    /// Of the program.
    pub version: String,
    /// Whether requests need a key.
    pub key_needed: bool,
    /// Whether chats can be stored on the server.
    pub store: bool,
    /// The models.
    pub models: Vec<ModelInfo>,
    /// Limits that a client may run into.
    pub limits: InfoLimits,
    /// Prices of the key that asked.
    pub prices: Option<Prices>,
    /// Where joules come from: `measured`, `estimated`, or not known.
    pub joules: Option<String>,
    /// What the server offers.
    pub features: Vec<String>,
}

/// A model and what it can do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ModelInfo {
    /// Its name.
    pub id: String,
    /// Tokens of a prompt and its answer together.
    pub context_tokens: usize,
    /// Whether it has a chat template.
    pub chat: bool,
    /// Whether it reasons before it answers.
    pub reasoning: bool,
    /// Whether that can be switched off.
    pub thinking_switch: bool,
    /// Whether its template knows tools; others are told of tools in plain words.
    pub tools: bool,
    /// Whether it can fill in.
    pub fill_in_the_middle: bool,
    /// Whether `/v1/embeddings` answers.
    pub embeddings: bool,
    /// Whether it is the one inside the program.
    pub built_in: bool,
    /// How right its answers are by tokens of reasoning, where that was measured.
    pub budget_curve: Option<BudgetCurve>,
    /// What is used where a request says nothing.
    pub defaults: SamplingDefaults,
}

/// The measured share of right answers by the most tokens that a model may reason for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct BudgetCurve {
    /// The task that was measured, such as `Countdown, 4 numbers`.
    pub task: Words,
    /// Tokens of reasoning, and the share of right answers, 0 to 1.
    pub points: Vec<(u32, f64)>,
}

/// Sampling settings.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct SamplingDefaults {
    /// Temperature.
    pub temperature: f32,
    /// Top-p.
    pub top_p: f32,
    /// Top-k, 0: all.
    pub top_k: usize,
    /// Min-p.
    pub min_p: f32,
    /// Repetition penalty.
    pub repetition_penalty: f32,
}

/// Limits that a client may run into.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InfoLimits {
    /// Bytes of a request.
    pub body_bytes_max: usize,
    /// Stop strings.
    pub stop_max: usize,
    /// Answers to a prompt.
    pub n_max: usize,
    /// Tools.
    pub tools_max: usize,
    /// Bytes of a stored chat.
    pub chat_bytes_max: usize,
    /// Stored chats.
    pub chats_max: usize,
}

/// Prices for a million tokens.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct Prices {
    /// Such as `USD`.
    pub currency: String,
    /// Tokens of prompts that were in the cache.
    pub cache_hit: f64,
    /// Those that were not.
    pub cache_miss: f64,
    /// Tokens of answers.
    pub output: f64,
}

/// `/api/tokenize`: a text or a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// A model's name.
    pub model: Option<String>,
    /// A text.
    pub text: Option<String>,
    /// A conversation.
    pub messages: Option<Vec<Message>>,
    /// Its tools.
    pub tools: Option<Vec<Tool>>,
}

/// The tokens.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Tokenized {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub tokens: Vec<u32>,
    /// Their texts.
    pub pieces: Vec<String>,
}

/// `/health`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// More, for people.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}
