//! The command line from end to end: every command on a tiny model that knows five answers by heart
//! (`reference/cli_fixture.py` wrote it), what each says of bad input, and what a terminal gets to see.

mod bench;
mod built_in;
#[cfg(unix)]
mod chat;
mod errors;
mod eval;
mod harness;
mod network;
mod plan;
mod run;
mod tools;
mod train;
