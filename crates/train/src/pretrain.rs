//! A training run from its recipe: checks, data, model, loop.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kernels::measure::{Machine, Memory, Operation, arithmetic_peaks};
use kernels::pool::Pool;
use serde::{Deserialize, Serialize};

use crate::data;
use crate::files;
use crate::learner::{Teacher, Transformer};
use crate::memory::MemoryPlan;
use crate::recipe::Recipe;
use crate::report::{self, Reported};
use crate::run::checkpoint::State;
use crate::run::{self, End, Observer, Options, Origin, Origins, RunError};

/// How long a run goes, and on what.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Stop when so many steps of the run are done.
    pub until_step: Option<u64>,
    /// Stop after this time.
    pub stop_after: Option<Duration>,
    /// Operations per second of this machine at best.
    pub peak_per_second: Option<f64>,
}

/// What a run's folder holds.
pub mod layout {
    /// The recipe with all defaults, for export and report.
    pub const RECIPE: &str = "recipe.json";
    /// Recipes of earlier starts, where they differ.
    pub const EARLIER: &str = "recipes";
    /// The manifest of the training set.
    pub const MANIFEST: &str = "manifest.json";
    /// What stands beside the weights of the model that the run began with: its card, its manifest and, for
    /// reinforcement, what its export needs.
    pub const START: &str = "start";
    /// A copy of the tokenizer.
    pub const TOKENIZER: &str = "tokenizer";
    /// The report that is written when a run ends or stops.
    pub const REPORT: &str = "report.html";
}

/// What a machine can do at best, as it is kept in a run's folder.
#[derive(Deserialize, Serialize)]
struct Peak {
    cpu: Option<String>,
    threads: usize,
    f32_per_second: f64,
}

/// This machine's f32 multiply-adds at best, in operations per second: measured once a run (in about a second).
pub fn peak(folder: &Path, threads: usize) -> Option<f64> {
    let (path, cpu) = (folder.join("machine.json"), Machine::read().cpu_name);
    let kept = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Peak>(&bytes).ok());
    if let Some(peak) = kept.filter(|peak| peak.cpu == cpu && peak.threads == threads) {
        return Some(peak.f32_per_second);
    }
    let loops = arithmetic_peaks(threads).into_iter().filter(|peak| peak.operation == Operation::F32Fma);
    let best = loops.map(|peak| peak.all_threads_gop_per_s.best * 1e9).max_by(f64::total_cmp)?;
    let text = serde_json::to_string_pretty(&Peak { cpu, threads, f32_per_second: best }).unwrap_or_default();
    // Without the file it is measured again next time.
    let _ =
        std::fs::create_dir_all(folder).and_then(|()| files::write_whole(&path, |out| out.write_all(text.as_bytes())));
    Some(best)
}

/// What stands beside a model for its tokenizer.
pub(crate) const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// Starts the run in `folder`, or goes on with it.
///
/// # Errors
/// One sentence, before the first step wherever that is possible.
pub fn pretrain(
    recipe: &Recipe,
    folder: &Path,
    pool: &Pool,
    limits: &Limits,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(State, End), RunError> {
    let spec = recipe.spec()?;
    let tokenizer = data::tokenizer(recipe, spec.vocab)?;
    MemoryPlan::of(recipe, &spec).check(Memory::read().available_bytes)?;
    data::check_sources(recipe)?;
    let _held = run::lock(folder)?;
    let counts = spec.counts();
    let steps = recipe.steps();
    observer.note(&format!(
        "{}: {} parameters, {} of them active for a token, {} in prediction modules; {steps} steps of {} tokens",
        recipe.name, counts.total, counts.active, counts.mtp, recipe.train.batch_tokens
    ));
    let data_folder = match &recipe.data.folder {
        Some(path) => recipe.path(path),
        None => folder.join("data"),
    };
    let data = data::prepare(recipe, &tokenizer, &data_folder, pool, &mut |text| observer.note(text))?;
    let before = before(folder);
    let origins = origins(recipe)?;
    let mut learner = Transformer::new(recipe, spec, pool)?;
    if let Some(teacher) = &recipe.teacher {
        learner.learn_from(Teacher::open(&recipe.path(&teacher.from), teacher, &tokenizer)?);
    }
    let options = Options {
        folder: folder.to_path_buf(),
        until_step: limits.until_step,
        stop_after: limits.stop_after,
        peak_per_second: limits.peak_per_second,
        operations_per_token: 6.0 * counts.active as f64,
        before,
        origins,
    };
    let mut accepted = || keep(recipe, &data.manifest, folder);
    let ended = run::run(recipe, &mut learner, &data, pool, &options, &mut accepted, stop, observer)?;
    let path = folder.join(layout::REPORT);
    let report = Reported::read(folder, &mut |text| observer.warn(text)).and_then(|run| report::write(&[run], &path));
    match report {
        Ok(()) => observer.note(&format!("report: {}", path.display())),
        // The run itself is safe.
        Err(error) => observer.warn(&format!("no report: {error}")),
    }
    Ok(ended)
}

/// The models that the recipe names and the run's checkpoints do not hold.
fn origins(recipe: &Recipe) -> Result<Origins, RunError> {
    let base = recipe.init.from.as_ref().filter(|_| recipe.lora.is_some());
    let at = |path: &PathBuf| Origin::at(&recipe.path(path));
    let base = base.map(at).transpose()?;
    let teacher = recipe.teacher.as_ref().map(|teacher| at(&teacher.from)).transpose()?;
    Ok(Origins { base, teacher })
}

/// The recipes with which the run was started before.
fn before(folder: &Path) -> Vec<Recipe> {
    let earlier = std::fs::read_dir(folder.join(layout::EARLIER)).into_iter().flatten().flatten();
    let paths = earlier.map(|entry| entry.path()).chain([folder.join(layout::RECIPE)]);
    paths.filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok()).collect()
}

/// Copies into the run's folder what later commands need, so that it stands for itself.
fn keep(recipe: &Recipe, manifest: &data::Manifest, folder: &Path) -> Result<(), RunError> {
    let put = |path: PathBuf, content: &[u8]| {
        let written = files::write_whole(&path, |out| out.write_all(content));
        written.map(|_| ()).map_err(|source| RunError::Write { path, source })
    };
    let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    // A run whose length was changed: until its next checkpoint, the one before belongs to the earlier recipe.
    let (path, earlier) = (folder.join(layout::RECIPE), folder.join(layout::EARLIER));
    if let Ok(old) = std::fs::read(&path)
        && old != json(serde_json::to_string_pretty(recipe)).as_bytes()
    {
        std::fs::create_dir_all(&earlier).map_err(|source| RunError::Write { path: earlier.clone(), source })?;
        put(earlier.join(format!("{}.json", &files::sha256(&old)[..16])), &old)?;
    }
    put(folder.join(layout::RECIPE), json(serde_json::to_string_pretty(recipe)).as_bytes())?;
    put(folder.join(layout::MANIFEST), json(serde_json::to_string_pretty(manifest)).as_bytes())?;
    if let Some(from) = &recipe.init.from {
        keep_files(&recipe.path(from), &["README.md", layout::MANIFEST], &folder.join(layout::START))?;
    }
    keep_files(&recipe.path(&recipe.tokenizer.folder), &TOKENIZER_FILES, &folder.join(layout::TOKENIZER))
}

/// Copies those of the files in the folder `from` that are there to the folder `to`.
pub(crate) fn keep_files(from: &Path, names: &[&str], to: &Path) -> Result<(), RunError> {
    std::fs::create_dir_all(to).map_err(|source| RunError::Write { path: to.to_path_buf(), source })?;
    for path in names.iter().map(|name| from.join(name)).filter(|path| path.is_file()) {
        let copy = to.join(path.file_name().unwrap_or_default());
        let content = std::fs::read(&path).map_err(|source| RunError::Read { path, source })?;
        let written = files::write_whole(&copy, |out| out.write_all(&content));
        written.map_err(|source| RunError::Write { path: copy, source })?;
    }
    Ok(())
}
