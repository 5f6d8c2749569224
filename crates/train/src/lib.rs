//! From data to a trained model: corpora, optimisers, runs, checkpoints, export.

pub mod corpus;
