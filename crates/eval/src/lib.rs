//! Tasks, generators, graders and the runner.
//!
//! The grader of a benchmark is the reward of reinforcement learning. Nothing here trains.
//!
//! Problems are pure functions of (seed, index) ([`rng`]), and belong to one of three parts by the hash of what they
//! ask ([`Split`]): documents, reinforcement learning and evaluation never share a problem.

pub mod audit;
pub mod bits;
pub mod budget;
pub mod expression;
pub mod files;
mod grade;
pub mod grammar;
mod problem;
pub mod programs;
pub mod report;
pub mod rng;
pub mod runner;
pub mod sandbox;
pub mod statistics;
pub mod task;
pub mod tasks;
pub mod words;

pub use grade::{Grade, Opened, Reason, grade, grade_answer, language_share};
pub use problem::{Expected, Language, Problem, Split, Worked};
