//! What a model *is*: its description, its families, its weights, its forward pass.
//!
//! - [`spec`]: the vocabulary in which every model is described; [`parameters`]: the one list of
//!   parameters that everything else derives from; [`describe`]: the description as text.
//! - [`families`]: published models as data, from `config.json` or GGUF metadata.
//! - [`checkpoint`]: model files; [`load`]: from files to weights.
//! - [`convert`]: any readable model to GGUF, in any format that can be written.
//! - [`cost`]: the bytes and operations that a forward pass needs at least.
//! - [`forward`] and `layers`: the forward pass, one statement an equation; [`cache`]: what it keeps.
//! - [`train`]: the loss, its gradients, and weights that can change.

pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod convert;
pub mod cost;
pub mod describe;
pub mod families;
pub mod forward;
mod layers;
pub mod load;
pub mod parameters;
pub mod rope;
pub mod spec;
pub mod train;
pub mod weights;
