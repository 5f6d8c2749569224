//! `/v1/chat/completions`: OpenAI's types with DeepSeek's additions (`reasoning_content`, `thinking`, `prefix`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::usage::{Extension, Usage};
use super::{OneOrMany, StreamOptions, Thinking};

/// A request.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct ChatRequest {
    /// A model's name; without it the only one that is served.
    pub model: Option<String>,
    /// The conversation.
    pub messages: Vec<Message>,
    /// From 0 (always the most likely token) to 2.
    pub temperature: Option<f32>,
    /// From 0 to 1.
    pub top_p: Option<f32>,
    /// 0: all.
    pub top_k: Option<u32>,
    /// From 0 to 1.
    pub min_p: Option<f32>,
    /// Above 0, at most 10; 1 changes nothing.
    pub repetition_penalty: Option<f32>,
    /// From -2 to 2.
    pub presence_penalty: Option<f32>,
    /// From -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Bias (-100 to 100) by token number.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Longest answer, reasoning counted.
    pub max_tokens: Option<u32>,
    /// OpenAI's newer name for `max_tokens`.
    pub max_completion_tokens: Option<u32>,
    /// Answers.
    pub n: Option<u32>,
    /// The same seed gives the same answer. Any whole number.
    pub seed: Option<i64>,
    /// Texts before which the answer ends.
    pub stop: Option<OneOrMany>,
    /// Send the answer as it comes.
    pub stream: Option<bool>,
    /// How.
    pub stream_options: Option<StreamOptions>,
    /// Tell the log-probability of each token.
    pub logprobs: Option<bool>,
    /// And of so many likely ones.
    pub top_logprobs: Option<u32>,
    /// The form of the answer.
    pub response_format: Option<ResponseFormat>,
    /// Functions that the model may call.
    pub tools: Option<Vec<Tool>>,
    /// Whether it may, must, and which.
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls may come at once; false: the answer ends with the first.
    pub parallel_tool_calls: Option<bool>,
    /// Whether the model reasons first.
    pub thinking: Option<Thinking>,
    /// How much: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, `ultra`.
    pub reasoning_effort: Option<String>,
    /// Further variables of the chat template, such as `enable_thinking`.
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// For whom this is asked: users of one key share no cached pages, and take turns. At most 512 bytes; not kept.
    pub user_id: Option<String>,
}

/// A message of a conversation.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Option<Content>,
    /// The reasoning before an assistant's message; may be sent back or not.
    pub reasoning_content: Option<String>,
    /// Calls that an assistant's message makes.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call that a tool's message answers.
    pub tool_call_id: Option<String>,
    /// A name of the speaker.
    pub name: Option<String>,
    /// The last message is the beginning of the answer (DeepSeek's prefix completion).
    pub prefix: Option<bool>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// OpenAI's newer name for instructions.
    Developer,
    /// The one who asks.
    #[default]
    User,
    /// The model.
    Assistant,
    /// A function that was called.
    Tool,
}

/// What is said.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of parts of type \"text\"")]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts of a text.
    Parts(Vec<Part>),
}

/// A part of a text.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Part {
    /// `text`; this server reads nothing else.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: Option<String>,
}

/// The form of the answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: FormatKind,
    /// With `json_schema`: the schema.
    pub json_schema: Option<NamedSchema>,
}

/// A form of answer.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatKind {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON after a schema.
    JsonSchema,
}

/// A JSON schema.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct NamedSchema {
    /// Its name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The schema.
    pub schema: Option<Value>,
    /// Ignored: answers always follow the schema.
    pub strict: Option<bool>,
}

/// A function that the model may call.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Tool {
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function.
    pub function: FunctionDescription,
}

/// A function as the model sees it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct FunctionDescription {
    /// `[A-Za-z0-9_.-]`, at most 64.
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A JSON schema of an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Calls follow the schema also where the model may call or not. Forced calls always do. Not kept by models that
    /// write calls as bare JSON, where nothing tells a call from text before it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// Whether functions are called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": ..}}"
)]
pub enum ToolChoice {
    /// `none`, `auto` or `required`.
    Mode(ToolMode),
    /// This one.
    Named(NamedTool),
}

/// Whether functions are called.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolMode {
    /// No calls.
    None,
    /// As the model likes.
    Auto,
    /// At least one.
    Required,
}

/// One function.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NamedTool {
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which.
    pub function: ToolName,
}

/// A function's name.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ToolName {
    /// The name.
    pub name: String,
}

/// A call of a function.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, ToSchema)]
pub struct ToolCall {
    /// In streams: which of the calls this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// A name of the call, for its answer.
    #[serde(default)]
    pub id: String,
    /// `function`.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// What is called.
    pub function: FunctionCall,
}

fn function() -> String {
    "function".into()
}

/// What is called.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, ToSchema)]
pub struct FunctionCall {
    /// The function.
    pub name: String,
    /// Its arguments, a JSON object as text.
    pub arguments: String,
}

/// The log-probabilities of an answer's tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct Logprobs {
    /// Of the answer.
    pub content: Option<Vec<TokenLogprob>>,
    /// Of the reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<Vec<TokenLogprob>>,
}

/// A token and its log-probability.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct TokenLogprob {
    /// Its text; U+FFFD where it is no text by itself.
    pub token: String,
    /// Natural logarithm, under the model itself.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Option<Vec<u8>>,
    /// The likeliest tokens in its place.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A likely token.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct TopLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Option<Vec<u8>>,
}

/// An answer that did not stream.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChatCompletion {
    /// A name of the request.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// The program.
    pub system_fingerprint: String,
    /// The answers.
    pub choices: Vec<Choice>,
    /// Tokens.
    pub usage: Usage,
    /// Time, money, energy.
    pub fathom: Extension,
}

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Choice {
    /// Which of `n`.
    pub index: usize,
    /// What was said.
    pub message: AnswerMessage,
    /// Log-probabilities, if asked for.
    pub logprobs: Option<Logprobs>,
    /// `stop`, `length` or `tool_calls`.
    pub finish_reason: String,
}

/// What the model said.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`.
    pub role: String,
    /// The answer; null if there are only calls.
    pub content: Option<String>,
    /// The reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls of functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
}

/// A piece of a stream.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChatChunk {
    /// A name of the request.
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// The program.
    pub system_fingerprint: String,
    /// Pieces of the answers; none in the chunk with the usage.
    pub choices: Vec<ChunkChoice>,
    /// In the last chunk, if asked for; null before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// In the last chunk, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fathom: Option<Extension>,
}

/// A piece of an answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChunkChoice {
    /// Which of `n`.
    pub index: usize,
    /// What is new.
    pub delta: Delta,
    /// Log-probabilities of the tokens that are new.
    pub logprobs: Option<Logprobs>,
    /// In the last piece of an answer.
    pub finish_reason: Option<String>,
}

/// What is new.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, ToSchema)]
pub struct Delta {
    /// In the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Of the reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
}
