//! `fathom train road`: stages one after the other, from nothing to the model that is served.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kernels::pool::Pool;
use serde::Deserialize;
use train::export::{Storage, export};
use train::pretrain::{self, peak, pretrain};
use train::recipe::Recipe;
use train::reinforce::{self, reinforce};
use train::run::End;

use super::{reinforce as reinforce_command, train as train_command};
use crate::options::pool;
use crate::terminal::{INTERRUPTED, interrupt_flag, note, print};

/// Run several stages one after the other, each from its recipe; the same command again goes on where it stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A road is a TOML file with a list of stages:

  [[stage]]
  name = \"base\"                    # FOLDER/base is the run, FOLDER/base-model the model that it makes
  kind = \"pretrain\"                # pretrain, sft or reinforce
  recipe = \"nano-pretrain.toml\"    # beside the road's file

  [[stage]]
  name = \"zero\"
  kind = \"reinforce\"
  recipe = \"nano-zero.toml\"
  from = \"base\"                    # begins with that stage's model, whatever the recipe says

Example:
  fathom train road recipes/nano.toml --stop-after 2h")]
pub(crate) struct Args {
    /// The road, a TOML file
    #[arg(value_name = "ROAD.toml")]
    road: PathBuf,

    /// The folder of all runs and models [default: runs/NAME, with the name of the file]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,

    /// Stop after this time, such as 90m, 2h or 30s
    #[arg(long, value_name = "TIME", value_parser = super::train::duration)]
    stop_after: Option<Duration>,

    /// Threads [default: all processors]; the result does not depend on it
    #[arg(long, env = "FATHOM_THREADS", hide_env_values = true, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Road {
    #[serde(rename = "stage")]
    stages: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    name: String,
    kind: Kind,
    recipe: PathBuf,
    from: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Pretrain,
    Sft,
    Reinforce,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let file = args.road.display();
    let text = std::fs::read_to_string(&args.road).with_context(|| format!("{file}: cannot be read"))?;
    let road: Road = toml::from_str(&text).with_context(|| format!("{file}: cannot be understood"))?;
    check(&road).with_context(|| file.to_string())?;
    let name = args.road.file_stem().unwrap_or_default();
    let folder = args.folder.clone().unwrap_or_else(|| Path::new("runs").join(name));
    std::fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    // Recipes name files relative to themselves, and these must not be.
    let folder = folder.canonicalize().with_context(|| format!("{}: cannot be found", folder.display()))?;
    let begun = Instant::now();
    let site = Site {
        recipes: args.road.parent().unwrap_or(Path::new("")).to_path_buf(),
        folder,
        pool: pool(args.threads)?,
        stop: interrupt_flag(true)?,
        until: args.stop_after.map(|limit| begun + limit),
    };
    for (at, stage) in road.stages.iter().enumerate() {
        let (name, model) = (&stage.name, site.model(&stage.name));
        let place = format!("stage {} of {}, {name}", at + 1, road.stages.len());
        if model.exists() {
            note(&format!("{place}: done before"));
            continue;
        }
        note(&place);
        let end = site.run(stage).with_context(|| format!("stage {name}"))?;
        if end != End::Finished {
            print(&format!("{}: stopped in stage {name}; the same command goes on\n", site.folder.display()))?;
            let interrupted = end == End::Interrupted;
            return Ok(if interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS });
        }
        site.export(stage, &model).with_context(|| format!("stage {name}"))?;
        print(&format!("{}\n", model.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check(road: &Road) -> anyhow::Result<()> {
    if road.stages.is_empty() {
        bail!("there is no stage");
    }
    for (at, stage) in road.stages.iter().enumerate() {
        let (name, before) = (&stage.name, &road.stages[..at]);
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            bail!("the stage name {name:?} is not made of letters, digits, - and _");
        }
        if before.iter().any(|other| other.name == *name) {
            bail!("two stages are called {name}");
        }
        if let Some(from) = stage.from.as_ref().filter(|from| before.iter().all(|other| other.name != **from)) {
            bail!("stage {name} begins with {from}, and no earlier stage is called that");
        }
        if stage.kind == Kind::Sft && stage.from.is_none() {
            bail!("stage {name} is fine-tuning and begins with nothing; from must name an earlier stage");
        }
    }
    Ok(())
}

/// What all stages share.
struct Site {
    recipes: PathBuf,
    folder: PathBuf,
    pool: Pool,
    stop: std::sync::Arc<AtomicBool>,
    until: Option<Instant>,
}

impl Site {
    /// The model that a stage makes.
    fn model(&self, stage: &str) -> PathBuf {
        self.folder.join(format!("{stage}-model"))
    }

    fn run(&self, stage: &Stage) -> anyhow::Result<End> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(End::Interrupted);
        }
        let stop_after = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let (path, folder) = (self.recipes.join(&stage.recipe), self.folder.join(&stage.name));
        let from = stage.from.as_deref().map(|from| self.model(from));
        if stage.kind == Kind::Reinforce {
            let mut recipe = reinforce::Recipe::read(&path)?;
            recipe.from = from.unwrap_or_else(|| recipe.from());
            let limits = reinforce::Limits { until_step: None, stop_after };
            let mut screen = reinforce_command::Screen::new();
            return Ok(reinforce(&recipe, &folder, &self.pool, &limits, &self.stop, &mut screen)?.1);
        }
        let mut recipe = Recipe::read(&path)?;
        if from.is_some() {
            recipe.init.from = from;
        }
        let peak_per_second = peak(&folder, self.pool.threads());
        let limits = pretrain::Limits { until_step: None, stop_after, peak_per_second };
        let mut screen = train_command::Screen::new();
        Ok(pretrain(&recipe, &folder, &self.pool, &limits, &self.stop, &mut screen)?.1)
    }

    fn export(&self, stage: &Stage, out: &Path) -> anyhow::Result<()> {
        let (folder, mut warn) = (self.folder.join(&stage.name), |text: &str| note(&format!("WARNING: {text}")));
        // All bits: the next stage goes on from them.
        match stage.kind {
            Kind::Reinforce => reinforce::export(&folder, out, Storage::F32, &mut warn).map(|_| ())?,
            Kind::Pretrain | Kind::Sft => export(&folder, out, Storage::F32, &mut warn).map(|_| ())?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roads_that_lead_nowhere_are_refused() {
        let stage = |name: &str, kind: &str, more: &str| {
            format!("[[stage]]\nname = \"{name}\"\nkind = \"{kind}\"\nrecipe = \"r.toml\"\n{more}\n")
        };
        let checked = |text: String| check(&toml::from_str::<Road>(&text).unwrap()).map_err(|error| error.to_string());
        let base = stage("base", "pretrain", "");
        assert_eq!(checked(format!("{base}{}", stage("zero", "reinforce", "from = \"base\""))), Ok(()));
        for (text, wanted) in [
            ("stage = []".to_string(), "there is no stage"),
            (format!("{base}{base}"), "two stages are called base"),
            (stage("../x", "pretrain", ""), "is not made of letters"),
            (format!("{}{base}", stage("zero", "reinforce", "from = \"base\"")), "no earlier stage"),
            (stage("chat", "sft", ""), "begins with nothing"),
        ] {
            let error = checked(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
