//! Requests to tokens.
//!
//! - [`step`]: many requests at once, as a pure state machine; [`request`] is what goes in and comes
//!   out, [`limits`] what it takes on, [`pages`] who holds which page of the cache, [`compute`] the
//!   model behind it.
//! - [`constraint`]: which tokens may come next, where an answer must have a form.
//! - [`drafts`]: guesses at the next tokens, which a step checks all at once.
//! - [`sampler`]: from logits to the next token, deterministic for a seed.
//! - [`session`]: one sequence on a model, for commands that have only one.
//!
//! This crate knows no text, no clock and no network.

pub mod compute;
pub mod constraint;
pub mod drafts;
pub mod limits;
pub mod pages;
pub mod request;
pub mod sampler;
pub mod session;
pub mod step;

/// What computing costs in energy, for those who keep account and know no kernels.
pub use kernels::measure::{EnergyCounters, EnergyReading};
