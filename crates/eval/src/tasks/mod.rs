//! The tasks that make their own problems.

pub mod arithmetic;
pub mod countdown;
pub mod lists;
pub mod recognise;
