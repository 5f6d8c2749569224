//! From data to a trained model: corpora, optimisers, runs, checkpoints, export.
//!
//! - [`recipe`]: a run in one TOML file; [`data`]: from sources to packed sequences; [`corpus`]: what this repository
//!   generates.

pub mod corpus;
pub mod data;
mod files;
mod random;
pub mod recipe;
