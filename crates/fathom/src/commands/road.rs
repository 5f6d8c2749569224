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

use super::{reinforce as reinforce_command, sample as sample_command, train as train_command};
use crate::options::pool;
use crate::terminal::{INTERRUPTED, interrupt_flag, note, print};

/// Run several stages one after the other, each from its recipe; the same command again goes on where it stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A road is a TOML file with a list of stages:

  [[stage]]
  name = \"base\"                    # FOLDER/base is the run, FOLDER/base-model the model that it makes
  kind = \"pretrain\"                # pretrain, sft, reinforce or sample
  recipe = \"nano-pretrain.toml\"    # beside the road's file

  [[stage]]
  name = \"zero\"
  kind = \"reinforce\"
  recipe = \"nano-zero.toml\"
  from = \"base\"                    # begins with that stage's model, whatever the recipe says

  [[stage]]
  name = \"right\"                   # FOLDER/right.jsonl is what it makes
  kind = \"sample\"                  # answers of a model, as `fathom sample` writes them
  from = \"zero\"
  options = \"--tasks countdown3,words --keep formed\"

  [[stage]]
  name = \"chat\"
  kind = \"sft\"
  recipe = \"chat.toml\"
  from = \"base\"
  chats = \"right\"                  # what that stage made, in place of the files of the recipe's one source of chats

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
    recipe: Option<PathBuf>,
    from: Option<String>,
    chats: Option<String>,
    options: Option<String>,
}

impl Stage {
    /// What the stage makes, in the road's folder.
    fn result(&self, folder: &Path) -> PathBuf {
        let kind = if self.kind == Kind::Sample { ".jsonl" } else { "-model" };
        folder.join(format!("{}{kind}", self.name))
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Pretrain,
    Sft,
    Reinforce,
    Sample,
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
        let (name, result) = (&stage.name, stage.result(&site.folder));
        let place = format!("stage {} of {}, {name}", at + 1, road.stages.len());
        if result.exists() {
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
        site.export(stage, &result).with_context(|| format!("stage {name}"))?;
        print(&format!("{}\n", result.display()))?;
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
        let makes = |other: &str, samples: bool| {
            before.iter().any(|stage| stage.name == other && (stage.kind == Kind::Sample) == samples)
        };
        if let Some(from) = stage.from.as_ref().filter(|from| !makes(from, false)) {
            bail!("stage {name} begins with {from}, and no earlier stage makes a model of that name");
        }
        if let Some(chats) = stage.chats.as_ref().filter(|chats| !makes(chats, true)) {
            bail!("stage {name} learns from {chats}, and no earlier stage samples chats of that name");
        }
        let samples = stage.kind == Kind::Sample;
        if matches!(stage.kind, Kind::Sft | Kind::Sample) && stage.from.is_none() {
            bail!("stage {name} begins with nothing; from must name an earlier stage");
        }
        if (samples, !samples) != (stage.options.is_some(), stage.recipe.is_some()) {
            bail!("stage {name}: sampling has options and no recipe, any other stage a recipe and no options");
        }
        if stage.chats.is_some() && matches!(stage.kind, Kind::Sample | Kind::Reinforce) {
            bail!("stage {name}: chats are learned by fine-tuning and pre-training alone");
        }
        if let Some(options) = &stage.options {
            sample_command::args_of(options, Path::new("model"), Path::new("out"))
                .with_context(|| format!("stage {name}"))?;
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
    /// The model that an earlier stage made.
    fn model(&self, stage: &str) -> PathBuf {
        self.folder.join(format!("{stage}-model"))
    }

    fn run(&self, stage: &Stage) -> anyhow::Result<End> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(End::Interrupted);
        }
        let from = stage.from.as_deref().map(|from| self.model(from));
        match (&stage.recipe, &stage.options, from) {
            (None, Some(options), Some(from)) => self.sample(options, &from, &stage.result(&self.folder)),
            (Some(recipe), _, from) if stage.kind == Kind::Reinforce => self.reinforce(stage, recipe, from),
            (Some(recipe), _, from) => self.pretrain(stage, recipe, from),
            _ => bail!("it has neither a recipe nor options and a model to begin with"),
        }
    }

    fn sample(&self, options: &str, from: &Path, out: &Path) -> anyhow::Result<End> {
        let args = sample_command::args_of(options, from, out)?;
        let in_time = || self.until.is_none_or(|until| Instant::now() < until);
        let goes_on = || !self.stop.load(Ordering::Relaxed) && in_time();
        let done = sample_command::sample_with(&args, &self.pool, &goes_on)?;
        Ok(if done {
            End::Finished
        } else if in_time() {
            End::Interrupted
        } else {
            End::Time
        })
    }

    fn reinforce(&self, stage: &Stage, recipe: &Path, from: Option<PathBuf>) -> anyhow::Result<End> {
        let mut recipe = reinforce::Recipe::read(&self.recipes.join(recipe))?;
        recipe.from = from.unwrap_or_else(|| recipe.from());
        let limits = reinforce::Limits { until_step: None, stop_after: self.time_left() };
        let mut screen = reinforce_command::Screen::new();
        Ok(reinforce(&recipe, &self.folder.join(&stage.name), &self.pool, &limits, &self.stop, &mut screen)?.1)
    }

    fn pretrain(&self, stage: &Stage, recipe: &Path, from: Option<PathBuf>) -> anyhow::Result<End> {
        let (path, folder) = (self.recipes.join(recipe), self.folder.join(&stage.name));
        let mut recipe = Recipe::read_from(&path, from)?;
        if let Some(chats) = &stage.chats {
            let mut sources: Vec<_> = recipe.data.sources.iter_mut().filter(|source| !source.chat.is_empty()).collect();
            let [source] = &mut sources[..] else {
                bail!("{}: {} sources of chats; the road's chats need one", path.display(), sources.len());
            };
            source.chat = vec![self.folder.join(format!("{chats}.jsonl"))];
        }
        let peak_per_second = peak(&folder, self.pool.threads());
        let limits = pretrain::Limits { until_step: None, stop_after: self.time_left(), peak_per_second };
        let mut screen = train_command::Screen::new();
        Ok(pretrain(&recipe, &folder, &self.pool, &limits, &self.stop, &mut screen)?.1)
    }

    fn time_left(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn export(&self, stage: &Stage, out: &Path) -> anyhow::Result<()> {
        let (folder, mut warn) = (self.folder.join(&stage.name), |text: &str| note(&format!("WARNING: {text}")));
        // All bits: the next stage goes on from them.
        match stage.kind {
            Kind::Reinforce => reinforce::export(&folder, out, Storage::F32, &mut warn).map(|_| ())?,
            Kind::Pretrain | Kind::Sft => export(&folder, out, Storage::F32, &mut warn).map(|_| ())?,
            Kind::Sample => (), // its file is what it makes
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
        let sample = |options: &str| {
            format!("[[stage]]\nname = \"s\"\nkind = \"sample\"\nfrom = \"base\"\noptions = \"{options}\"\n")
        };
        let checked =
            |text: String| check(&toml::from_str::<Road>(&text).unwrap()).map_err(|error| format!("{error:#}"));
        let base = stage("base", "pretrain", "");
        assert_eq!(checked(format!("{base}{}", stage("zero", "reinforce", "from = \"base\""))), Ok(()));
        for (text, wanted) in [
            ("stage = []".to_string(), "there is no stage"),
            (format!("{base}{base}"), "two stages are called base"),
            (stage("../x", "pretrain", ""), "is not made of letters"),
            (format!("{}{base}", stage("zero", "reinforce", "from = \"base\"")), "no earlier stage makes a model"),
            (stage("chat", "sft", ""), "begins with nothing"),
            (
                format!("{base}{}", stage("chat", "sft", "from = \"base\"\nchats = \"base\"")),
                "samples chats of that name",
            ),
            (format!("{base}{}", stage("right", "sample", "from = \"base\"")), "options and no recipe"),
            (format!("{base}{}", sample("--keep right")), "required arguments were not provided"),
            (format!("{base}{}", sample("--tasks words --kep right")), "--kep"),
            (format!("{base}{}{}", sample("--tasks words"), stage("z", "reinforce", "from = \"s\"")), "makes a model"),
        ] {
            let error = checked(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
