//! `/v1/embeddings`: vectors of texts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::completions::Prompt;
use super::usage::{Extension, Usage};

/// A request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct EmbeddingRequest {
    /// A model's name; without it the only one that is served.
    pub model: Option<String>,
    /// A text or several, or tokens.
    pub input: Prompt,
    /// How vectors are written.
    pub encoding_format: Option<EncodingFormat>,
    /// Elements of a vector; only as many as the model's vectors have.
    pub dimensions: Option<u32>,
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// A list of numbers.
    Float,
    /// The bytes of 32-bit floats, lowest first, in base 64.
    Base64,
}

/// The vectors.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Embeddings {
    /// `list`.
    pub object: String,
    /// One for each text.
    pub data: Vec<Embedding>,
    /// The model that made them.
    pub model: String,
    /// Tokens of all texts.
    pub usage: Usage,
    /// Time, money, energy.
    pub fathom: Extension,
}

/// The vector of a text, of length 1.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Embedding {
    /// `embedding`.
    pub object: String,
    /// Which text.
    pub index: usize,
    /// The vector.
    pub embedding: Vector,
}

/// A vector.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    /// As numbers.
    Float(Vec<f32>),
    /// As base 64.
    Base64(String),
}
