//! From a run of reinforcement learning to a model in Hugging Face's layout.

use std::path::Path;

use model::families::read_config;

use super::Recipe;
use super::log::{Measured, read_log};
use crate::bill::grouped;
use crate::export::{Storage, Values, pretty, read_json, write_model};
use crate::files;
use crate::pretrain::{keep_files, layout};
use crate::run::RunError;
use crate::run::checkpoint::{self, State};

/// What is kept of the model that the run began with.
const START_FILES: [&str; 6] =
    ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md", "manifest.json"];

/// Copies into the run's folder what [`export`] needs, so that it stands for itself.
pub(super) fn keep_start(recipe: &Recipe, folder: &Path) -> Result<(), RunError> {
    let path = folder.join(layout::RECIPE);
    let written = files::write_whole(&path, |out| out.write_all(pretty(recipe).as_bytes()));
    written.map_err(|source| RunError::Write { path, source })?;
    keep_files(&recipe.from(), &START_FILES, &folder.join(layout::START))
}

/// Writes the model of the newest checkpoint of the run in `folder` to the new folder `out`.
///
/// # Errors
/// If the run cannot be read, `out` is there already, or cannot be written.
pub fn export(
    folder: &Path,
    out: &Path,
    storage: Storage,
    warn: &mut dyn FnMut(&str),
) -> Result<(Recipe, State), RunError> {
    let recipe: Recipe = read_json(&folder.join(layout::RECIPE))?;
    let checkpoints = folder.join("checkpoints");
    let none = || RunError::Checkpoint { path: checkpoints.clone(), reason: "there is no whole checkpoint".into() };
    let (checkpoint, state) = checkpoint::newest(&checkpoints, warn).ok_or_else(none)?;
    let start = folder.join(layout::START);
    let before = std::fs::read_to_string(start.join("README.md")).unwrap_or_default();
    let (_, measured) = read_log(folder)?;
    let mut texts = vec![("README.md", card(&before, &recipe, &state, &measured)), ("reinforce.json", pretty(&recipe))];
    // What the model learned from before, if it says so.
    if let Ok(manifest) = std::fs::read_to_string(start.join("manifest.json")) {
        texts.push(("manifest.json", manifest));
    }
    let config = read_json(&start.join("config.json"))?;
    let (spec, _) = read_config(&config).map_err(|error| RunError::Model(error.to_string()))?;
    let values = Values::Whole(checkpoint::masters(&checkpoint, &spec.parameters())?);
    write_model(out, config, &start, &values, storage, &texts)?;
    Ok((recipe, state))
}

/// The card of the model before, and what happened since.
fn card(before: &str, recipe: &Recipe, state: &State, measured: &[Measured]) -> String {
    let settings = &recipe.reinforce;
    let mut text = format!("{}\n\n## Reinforcement learning: {}\n\n", before.trim_end(), recipe.name);
    text += "`reinforce.json` beside this file is the recipe. Answers are rewarded by rule; no solution is shown.\n\n";
    text += &format!(
        "{} of {} steps of {} problems with {} answers each, {:.2} hours.\n",
        grouped(state.step),
        grouped(settings.steps),
        settings.prompts,
        settings.group,
        state.seconds / 3600.0
    );
    let ends = [measured.first(), measured.iter().rev().find(|last| last.step <= state.step)];
    if let [Some(first), Some(last)] = ends {
        text += &format!("\n| held-out problems | step {} | step {} |\n|---|---|---|\n", first.step, last.step);
        let share = |measured: &Measured, task: &str| match measured.by_task.get(task) {
            Some([problems, right, _]) => format!("{:.1} %", 100.0 * *right as f64 / (*problems).max(1) as f64),
            None => String::new(),
        };
        for task in last.by_task.keys() {
            text += &format!("| {task} | {} | {} |\n", share(first, task), share(last, task));
        }
    }
    text
}
