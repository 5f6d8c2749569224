//! Tasks, generators, graders and the runner.
//!
//! The grader of a benchmark is the reward of reinforcement learning. Nothing here trains.
