//! `cargo xtask ci`: every check but the tests, one after another, each with its time.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::repository::cargo;
use crate::{borders, tidy};

/// One check. A check of generated files (the generator's output equals what is committed) is one
/// more line in [`STEPS`].
struct Step {
    name: &'static str,
    run: fn() -> anyhow::Result<()>,
}

/// The quick ones first.
const STEPS: &[Step] = &[
    Step { name: "format", run: || succeed(&mut cargo(&["fmt", "--all", "--", "--check"])) },
    Step { name: "tidy", run: tidy::run },
    Step { name: "borders", run: borders::run },
    Step { name: "clippy", run: clippy },
    Step { name: "documentation", run: documentation },
];

/// Runs the steps; stops at the first that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    let begin = Instant::now();
    for step in STEPS {
        println!("== {}", step.name);
        let start = Instant::now();
        let result = (step.run)();
        let seconds = start.elapsed().as_secs_f64();
        if let Err(error) = result {
            println!("== {}: FAILED after {seconds:.1} s", step.name);
            return Err(error.context(format!("ci failed at step '{}'", step.name)));
        }
        println!("== {}: ok, {seconds:.1} s", step.name);
    }
    println!("== all {} checks passed in {:.1} s", STEPS.len(), begin.elapsed().as_secs_f64());
    Ok(())
}

fn clippy() -> anyhow::Result<()> {
    succeed(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"]))
}

fn documentation() -> anyhow::Result<()> {
    succeed(cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Runs a command that prints for itself.
fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_command_that_fails_is_an_error() {
        let quiet = |arguments: &[&str]| succeed(cargo(arguments).stdout(Stdio::null()).stderr(Stdio::null()));
        assert!(quiet(&["--version"]).is_ok());
        assert!(quiet(&["no-such-command"]).is_err());
    }
}
