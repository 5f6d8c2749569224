//! The commands `pull` and `list` alone, for trying them without the rest of the program:
//! `cargo run -p hub --example store -- pull ORG/NAME`.

use clap::Parser;

#[path = "../../fathom/src/commands/list.rs"]
mod list;
#[path = "../../fathom/src/commands/pull.rs"]
mod pull;

#[derive(Parser)]
enum Command {
    Pull(pull::Args),
    List(list::Args),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Pull(args) => pull::run(args),
        Command::List(args) => list::run(args),
    }
}
