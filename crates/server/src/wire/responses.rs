//! OpenAI's `/v1/responses`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::chat::FormatKind;

/// A request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ResponsesRequest {
    /// A model's name; without it the only one that is served.
    pub model: Option<String>,
    /// A text, or the items of a conversation.
    pub input: Input,
    /// Instructions before the conversation.
    pub instructions: Option<String>,
    /// Longest answer, reasoning counted.
    pub max_output_tokens: Option<u32>,
    /// From 0 to 2.
    pub temperature: Option<f32>,
    /// From 0 to 1.
    pub top_p: Option<f32>,
    /// Send the answer as it comes.
    pub stream: Option<bool>,
    /// The form of the answer.
    pub text: Option<TextOptions>,
    /// How much to reason.
    pub reasoning: Option<ReasoningOptions>,
    /// Functions that the model may call.
    pub tools: Option<Vec<ResponsesTool>>,
    /// `none`, `auto`, `required`, or `{"type": "function", "name": ..}`.
    pub tool_choice: Option<ResponsesChoice>,
    /// Whether several calls may come at once; false: the answer ends with the first.
    pub parallel_tool_calls: Option<bool>,
    /// Said again in the response.
    pub metadata: Option<Map<String, Value>>,
    /// A kept response that this request goes on with: its conversation and its output come before `input`.
    pub previous_response_id: Option<String>,
    /// Keep the response and its conversation under the key for 30 days; without it nothing is kept (OpenAI keeps
    /// unless told not to).
    pub store: Option<bool>,
    /// Not offered.
    pub background: Option<bool>,
}

/// A text, or items.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of items")]
pub enum Input {
    /// What the user says.
    Text(String),
    /// The conversation.
    Items(Vec<Item>),
}

/// An item of a conversation: the fields of all types, of which `type` says which are used.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub struct Item {
    /// `message` (also if left out), `function_call`, `function_call_output` or `reasoning`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of `message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<super::chat::Role>,
    /// Of `message` and `reasoning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<ItemContent>,
    /// Of calls and their outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// Of `function_call`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of `function_call`: a JSON object as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// Of `function_call_output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<ItemContent>,
}

/// A text, or parts.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of parts")]
pub enum ItemContent {
    /// A text.
    Text(String),
    /// Parts.
    Parts(Vec<ItemPart>),
}

/// A part of a text.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ItemPart {
    /// `input_text`, `output_text`, `reasoning_text`, `text` or `refusal`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The form of the answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct TextOptions {
    /// It.
    pub format: Option<TextFormat>,
}

/// The form of the answer.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct TextFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: FormatKind,
    /// The schema's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

/// How much to reason.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ReasoningOptions {
    /// As `reasoning_effort`.
    pub effort: Option<String>,
}

/// A function that the model may call.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ResponsesTool {
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// A JSON schema of an object.
    pub parameters: Option<Value>,
    /// As in chat completions; false where it is absent.
    pub strict: Option<bool>,
}

/// Whether functions are called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"name\": ..}")]
pub enum ResponsesChoice {
    /// `none`, `auto` or `required`.
    Mode(super::chat::ToolMode),
    /// This one.
    Named(super::chat::ToolName),
}
