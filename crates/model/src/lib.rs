//! model
pub mod checkpoint;
