//! From data to a trained model: corpora, optimisers, runs, checkpoints, export.

pub mod bpe;
pub mod corpus;
