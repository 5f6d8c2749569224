//! What a precision costs in loss: one recipe trained in several, step by step beside each other.
//!
//!     cargo run --release -p train --example precision_gap -- recipes/small-fp8.toml FOLDER bf16 fp8
//!
//! The runs stay in FOLDER, so that `fathom report FOLDER/bf16 FOLDER/fp8` plots them together; the same command goes
//! on with what was stopped.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kernels::pool::Pool;
use train::pretrain::{Limits, pretrain};
use train::recipe::{Precision, Recipe};
use train::run::Observer;
use train::run::log::Line;

/// Steps whose mean loss is printed as one number.
const TOGETHER: usize = 25;

/// Prints what goes wrong.
struct Quiet;

impl Observer for Quiet {
    fn note(&mut self, _: &str) {}
    fn warn(&mut self, text: &str) {
        eprintln!("{text}");
    }
    fn step(&mut self, _: &Line, _: u64, _: Duration) {}
}

fn main() {
    let mut args = std::env::args().skip(1);
    let recipe = PathBuf::from(args.next().expect("a recipe"));
    let folder = PathBuf::from(args.next().expect("a folder for the runs"));
    let precisions: Vec<String> = args.collect();
    let runs: Vec<Vec<Line>> = precisions.iter().map(|precision| run(&recipe, &folder, precision)).collect();
    let (first, steps) = (&runs[0], runs[0].len());
    println!("{:>10} {}", "steps", precisions.iter().map(|p| format!("{p:>20}")).collect::<String>());
    let row = |what: String, of_run: &dyn Fn(&[Line]) -> f64| {
        let base = of_run(first);
        let cell =
            |lines: &Vec<Line>| format!("{:>11.4} {:>+6.2} %", of_run(lines), 100.0 * (of_run(lines) / base - 1.0));
        println!("{what:>10} {}", runs.iter().map(cell).collect::<String>());
    };
    for start in (0..steps).step_by(TOGETHER) {
        let end = (start + TOGETHER).min(steps);
        row(format!("{}-{end}", start + 1), &|lines| {
            lines[start..end].iter().map(|line| line.loss).sum::<f64>() / (end - start) as f64
        });
    }
    row("held out".into(), &|lines| {
        lines.iter().rev().find_map(|line| line.held_out.as_ref()).map_or(f64::NAN, |h| h.loss)
    });
}

/// The log of the recipe's run in this precision.
fn run(recipe: &Path, folder: &Path, precision: &str) -> Vec<Line> {
    let mut recipe = Recipe::read(recipe).unwrap_or_else(|error| panic!("{error}"));
    let parsed: Result<Precision, _> = serde_json::from_value(precision.into());
    recipe.train.precision = parsed.unwrap_or_else(|error| panic!("{error}"));
    let folder = folder.join(precision);
    let pool = Pool::new(std::thread::available_parallelism().map_or(1, usize::from));
    pretrain(&recipe, &folder, &pool, &Limits::default(), &AtomicBool::new(false), &mut Quiet)
        .unwrap_or_else(|error| panic!("{error}"));
    let text = std::fs::read_to_string(folder.join("log.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of the log")).collect()
}
