//! Requests to tokens.
//!
//! - [`sampler`]: from logits to the next token, deterministic for a seed.
//! - [`session`]: one sequence on a model: prompt in chunks, then token by token.
//!
//! This crate knows no text, no clock and no network.

pub mod sampler;
pub mod session;
