//! Development tasks, by `cargo xtask TASK`: the same on a developer's machine and in CI.
//!
//! `ci` runs all checks but the tests; `tidy` checks the sources, `borders` the arrows among the
//! crates (both are tests as well), and `bench` runs a command of the release build and keeps a
//! record of it in `bench/runs/`. This crate holds no product code.

mod bench;
mod borders;
mod ci;
mod repository;
mod scan;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask TASK

  ci                        format, clippy, tidy, borders, documentation; stops at the first failure
  tidy                      check the tracked files (crates/xtask/src/tidy.rs lists the rules)
  borders                   check which crate uses which (crates/xtask/src/borders.rs has the table)
  bench [--name N] MODEL .. build fathom for release, run `fathom bench MODEL .. --json`, record it in bench/runs/
  bench [--name N] -- ARGS  the same with `fathom ARGS`
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["borders"] => borders::run(),
        ["bench", ref rest @ ..] => bench::run(rest),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
