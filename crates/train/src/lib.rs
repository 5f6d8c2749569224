//! From data to a trained model: corpora, optimisers, runs, checkpoints, export.
//!
//! - [`recipe`]: a run in one TOML file; [`data`]: from sources to packed sequences; [`corpus`]: what this repository
//!   generates.
//! - [`plan`]: what a run of any size would take; [`trial`]: what one takes here.
//! - [`reinforce`]: learning from a rule's reward.
//! - [`samples`]: right answers of a model, to learn from.
//! - [`run`]: the loop, its log and its checkpoints; [`learner`]: what it asks of a model.

pub mod bill;
pub mod bpe;
mod card;
pub mod corpus;
pub mod data;
pub mod export;
mod files;
pub mod learner;
pub mod memory;
mod optimizer;
pub mod plan;
pub mod pretrain;
mod random;
pub mod recipe;
pub mod reinforce;
pub mod report;
pub mod run;
pub mod samples;
pub mod schedule;
pub mod trial;
pub mod vocabulary;
