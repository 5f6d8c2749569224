//! `fathom train reinforce`: learning from a rule's reward.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use train::reinforce::{Limits, Line, Observer, Recipe, reinforce};
use train::run::End;

use crate::options::pool;
use crate::terminal::{INTERRUPTED, interrupt_flag, note, print};

/// Learn to reason from a rule's reward (GRPO); the same command again goes on where it stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A recipe is one TOML file: the model to begin with, tasks with their levels, how many answers to how many problems (see
recipes/). The run's folder gets log.jsonl (a line a step), evaluations.jsonl (held-out problems, with answers in full)
and checkpoints.

Example:
  fathom train reinforce recipes/nano-zero.toml --stop-after 60m")]
pub(crate) struct Args {
    /// The recipe, a TOML file
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,

    /// The run's folder [default: runs/NAME, with the recipe's name]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,

    /// Stop when so many steps of the run are done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,

    /// Stop after this time, such as 90m, 2h or 30s
    #[arg(long, value_name = "TIME", value_parser = super::train::duration)]
    stop_after: Option<Duration>,

    /// Threads [default: all processors]; the result does not depend on it
    #[arg(long, env = "FATHOM_THREADS", hide_env_values = true, value_name = "N")]
    threads: Option<usize>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let recipe = Recipe::read(&args.recipe)?;
    let folder = args.run.clone().unwrap_or_else(|| Path::new("runs").join(&recipe.name));
    let pool = pool(args.threads)?;
    let stop = interrupt_flag(true)?;
    let limits = Limits { until_step: args.steps, stop_after: args.stop_after };
    let mut screen = Screen::new();
    let (state, end) = reinforce(&recipe, &folder, &pool, &limits, &stop, &mut screen)?;
    let (folder, step, steps) = (folder.display(), state.step, recipe.reinforce.steps);
    print(&match end {
        End::Finished => format!("{folder}: finished, {steps} steps in {:.2} h\n", state.seconds / 3600.0),
        End::Steps | End::Time => format!("{folder}: stopped at step {step} of {steps}; the same command goes on\n"),
        End::Interrupted => format!("{folder}: interrupted at step {step} of {steps}; the same command goes on\n"),
    })?;
    Ok(if end == End::Interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Steps as they are done: on a terminal every one, elsewhere one now and then.
pub(crate) struct Screen {
    terminal: bool,
    shown: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        Screen { terminal: std::io::stderr().is_terminal(), shown: None }
    }
}

impl Observer for Screen {
    fn note(&mut self, text: &str) {
        note(text);
    }

    fn step(&mut self, line: &Line, steps: u64, left: Duration) {
        let long_ago = self.shown.is_none_or(|shown| shown.elapsed() >= Duration::from_secs(20));
        if !(self.terminal || long_ago || line.step == steps) {
            return;
        }
        self.shown = Some(Instant::now());
        note(&progress(line, steps, left));
    }
}

/// A step in a line.
fn progress(line: &Line, steps: u64, left: Duration) -> String {
    let levels: Vec<String> = line.levels.iter().map(u8::to_string).collect();
    format!(
        "{:>5}/{steps}  reward {:.3}  right {:.1} %  form {:.1} %  length {:.0}  retries {:.1} %  entropy {:.2}  level {}  \
         dlogp {:.0e}  {:.0} tok/s  {:.0}+{:.0} s  {} min left",
        line.step,
        line.reward,
        100.0 * line.correct,
        100.0 * line.format,
        line.length,
        100.0 * line.retry_share,
        line.entropy,
        levels.join(","),
        line.logprob_difference,
        line.rollout_tokens_per_second,
        line.rollout_seconds,
        line.learn_seconds,
        left.as_secs() / 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_line() {
        let line = Line { step: 3, reward: 0.5, correct: 0.25, levels: vec![2, 1], ..Line::default() };
        let text = progress(&line, 100, Duration::from_secs(600));
        assert!(text.starts_with("    3/100  reward 0.500  right 25.0 %") && text.contains("level 2,1"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
