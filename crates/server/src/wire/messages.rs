//! Anthropic's `/v1/messages`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Thinking;

/// A request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct MessagesRequest {
    /// A model's name; `claude-*` is taken for the one that is served.
    pub model: Option<String>,
    /// The conversation.
    pub messages: Vec<Turn>,
    /// Instructions.
    pub system: Option<Text>,
    /// Longest answer; counting tokens does not need it.
    pub max_tokens: Option<u32>,
    /// Texts before which the answer ends.
    pub stop_sequences: Option<Vec<String>>,
    /// Send the answer as it comes.
    pub stream: Option<bool>,
    /// From 0 to 1 (2 is taken as well).
    pub temperature: Option<f32>,
    /// From 0 to 1.
    pub top_p: Option<f32>,
    /// 0: all.
    pub top_k: Option<u32>,
    /// Whether the model reasons first.
    pub thinking: Option<Thinking>,
    /// How much it reasons, and the form of the answer.
    pub output_config: Option<OutputConfig>,
    /// Functions that the model may call.
    pub tools: Option<Vec<ToolDescription>>,
    /// Whether it may, must, and which.
    pub tool_choice: Option<Choice>,
    /// For whom this is asked.
    pub metadata: Option<Metadata>,
}

/// For whom a request is made.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct Metadata {
    /// As `user_id` of a chat.
    pub user_id: Option<String>,
}

/// How much the model reasons, and the form of its answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct OutputConfig {
    /// As `reasoning_effort`.
    pub effort: Option<String>,
    /// The form of the answer.
    pub format: Option<OutputFormat>,
}

/// The form of an answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct OutputFormat {
    /// `json_schema`.
    #[serde(rename = "type")]
    pub kind: super::chat::FormatKind,
    /// The schema.
    pub schema: Option<Value>,
}

/// A text, or blocks of text.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of blocks of type \"text\"")]
pub enum Text {
    /// A text.
    Plain(String),
    /// Blocks.
    Blocks(Vec<TextBlock>),
}

/// A block of text.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct TextBlock {
    /// The text; blocks without one are of a type that this server does not read.
    pub text: Option<String>,
}

/// A message.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Turn {
    /// `user` or `assistant`.
    pub role: Speaker,
    /// What is said.
    pub content: TurnContent,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// What is said.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of blocks")]
pub enum TurnContent {
    /// A text.
    Plain(String),
    /// Blocks.
    Blocks(Vec<InputBlock>),
}

/// A block of a message: the fields of all types, of which `type` says which are used.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct InputBlock {
    /// `text`, `thinking`, `redacted_thinking`, `tool_use` or `tool_result`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of `text`.
    pub text: Option<String>,
    /// Of `thinking`.
    pub thinking: Option<String>,
    /// Of `tool_use`.
    pub id: Option<String>,
    /// Of `tool_use`.
    pub name: Option<String>,
    /// Of `tool_use`: the arguments.
    pub input: Option<Value>,
    /// Of `tool_result`.
    pub tool_use_id: Option<String>,
    /// Of `tool_result`.
    pub content: Option<Text>,
    /// Of `tool_result`.
    pub is_error: Option<bool>,
}

/// A function that the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ToolDescription {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// A JSON schema of an object.
    pub input_schema: Option<Value>,
    /// Calls follow the schema also where the model may call or not (see chat completions).
    pub strict: Option<bool>,
}

/// Whether functions are called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Choice {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(rename = "type")]
    pub kind: ChoiceKind,
    /// With `tool`: which.
    pub name: Option<String>,
    /// At most one call.
    pub disable_parallel_tool_use: Option<bool>,
}

/// Whether functions are called.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChoiceKind {
    /// As the model likes.
    Auto,
    /// At least one.
    Any,
    /// This one.
    Tool,
    /// None.
    None,
}

/// An answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MessageAnswer {
    /// A name of the answer.
    pub id: String,
    /// `message`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `assistant`.
    pub role: &'static str,
    /// The model that answered.
    pub model: String,
    /// What was said.
    pub content: Vec<OutputBlock>,
    /// `end_turn`, `max_tokens`, `stop_sequence` or `tool_use`.
    pub stop_reason: Option<String>,
    /// The text that ended the answer.
    pub stop_sequence: Option<String>,
    /// Tokens.
    pub usage: MessageUsage,
}

/// A block of an answer.
#[derive(Clone, Debug, Serialize, PartialEq, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputBlock {
    /// Text.
    Text {
        /// It.
        text: String,
    },
    /// Reasoning.
    Thinking {
        /// It.
        thinking: String,
        /// A name of the answer: reasoning may be sent back or not, and nothing is checked then.
        signature: String,
    },
    /// A call of a function.
    ToolUse {
        /// A name of the call.
        id: String,
        /// The function.
        name: String,
        /// Its arguments.
        input: Value,
    },
}

/// Tokens, as Anthropic counts them: `input_tokens` are those that were not in the cache.
#[derive(Clone, Debug, Default, Serialize, PartialEq, ToSchema)]
pub struct MessageUsage {
    /// Tokens of the prompt that were computed.
    pub input_tokens: u64,
    /// Nothing is charged for writing the cache.
    pub cache_creation_input_tokens: u64,
    /// Tokens of the prompt that were in the cache.
    pub cache_read_input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
}

/// The answer of `/v1/messages/count_tokens`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CountedTokens {
    /// Tokens of the prompt.
    pub input_tokens: usize,
}
