//! Checkpoints: everything that a run needs to go on with the same bits.
//!
//! A checkpoint is a folder `step-NNNNNNNN` with `masters.f32` and `moments.f32` (little-endian, in the order of the
//! parameter list), `state.json`, and `SHA256SUMS` over the three. It is written under another name, put on the disk,
//! and only then renamed: under its name there is a whole checkpoint or none. Reading verifies every hash; a damaged
//! checkpoint is passed over, loudly, for the one before it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::parameters::ParameterSpec;
use serde::{Deserialize, Serialize};

use super::RunError;
use crate::files;
use crate::optimizer::Optimizer;

const MASTERS: &str = "masters.f32";
const MOMENTS: &str = "moments.f32";
const STATE: &str = "state.json";
const SUMS: &str = "SHA256SUMS";

/// What a run remembers besides weights and moments.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct State {
    /// Steps that are done.
    pub step: u64,
    /// Steps that changed the weights.
    pub updates: u64,
    /// Steps in a row, up to now, that were skipped.
    pub skipped_in_a_row: u64,
    /// Steps that were skipped in all.
    pub skipped: u64,
    /// The last gradient norms, as the bits of f64 (text would round).
    pub norms: Vec<u64>,
    /// Hash of the recipe without `[run]`.
    pub recipe_sha256: String,
    /// Hash of the data's manifest.
    pub manifest_sha256: String,
    /// Numbers of all parameters together.
    pub elements: u64,
    /// Seconds of training so far, over all starts.
    pub seconds: f64,
    /// Joules so far, as far as they could be measured.
    pub joules: f64,
    /// How often the run was started.
    pub starts: u64,
    /// What a run of another kind remembers besides.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub more: serde_json::Value,
}

/// The folders of a run's checkpoints, by step.
pub fn list(folder: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// Writes a checkpoint and removes those that the policy does not keep.
pub(crate) fn save(
    folder: &Path,
    state: &State,
    masters: &[Vec<f32>],
    optimizer: &Optimizer,
    keep_last: usize,
    keep_every: u64,
) -> Result<PathBuf, RunError> {
    let path = folder.join(format!("step-{:08}", state.step));
    let part = folder.join(format!("part-{:08}", state.step));
    let written = (|| {
        fs::create_dir_all(folder)?;
        remove(&part)?;
        fs::create_dir(&part)?;
        let mut sums = String::new();
        let mut put = |name: &str, content: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>| {
            let hash = files::write_whole(&part.join(name), content)?;
            sums += &format!("{hash}  {name}\n");
            io::Result::Ok(())
        };
        put(MASTERS, &mut |out| masters.iter().try_for_each(|list| files::write_f32(out, list)))?;
        put(MOMENTS, &mut |out| {
            let lists = optimizer.moments.iter().flat_map(|moments| moments.lists());
            lists.into_iter().try_for_each(|list| files::write_f32(out, list))
        })?;
        let text = serde_json::to_string_pretty(state)?;
        put(STATE, &mut |out| out.write_all(text.as_bytes()))?;
        files::write_whole(&part.join(SUMS), |out| out.write_all(sums.as_bytes()))?;
        // A step that is done again after a fall-back to an older checkpoint.
        remove(&path)?;
        fs::rename(&part, &path)?;
        files::sync_folder(folder)
    })();
    if let Err(source) = written {
        let _ = fs::remove_dir_all(&part);
        return Err(RunError::Write { path, source });
    }
    prune(folder, keep_last, keep_every);
    Ok(path)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what the policy does not keep: all but the newest, and those of round steps; and what a kill left behind.
fn prune(folder: &Path, keep_last: usize, keep_every: u64) {
    let all = list(folder);
    let old = all.len().saturating_sub(keep_last.max(1));
    for (step, path) in &all[..old] {
        if keep_every == 0 || !step.is_multiple_of(keep_every) {
            // Under another name first: half a checkpoint must not look like one.
            let part = folder.join(format!("part-{step:08}"));
            let _ = fs::rename(path, &part).and_then(|()| fs::remove_dir_all(&part));
        }
    }
    clean(folder);
}

/// Removes what a kill left behind.
pub(crate) fn clean(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with("part-")) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Checks every hash of a checkpoint and reads its state.
///
/// # Errors
/// One sentence on what is missing or damaged.
pub fn verify(path: &Path) -> Result<State, RunError> {
    let damaged = |reason: String| RunError::Checkpoint { path: path.to_path_buf(), reason };
    let sums = fs::read_to_string(path.join(SUMS)).map_err(|error| damaged(format!("{SUMS}: {error}")))?;
    let mut names = Vec::new();
    for line in sums.lines() {
        let (hash, name) = line.split_once("  ").ok_or_else(|| damaged(format!("{SUMS} is no list of hashes")))?;
        // Names come from a file: only those that are known are opened.
        if ![MASTERS, MOMENTS, STATE].contains(&name) {
            return Err(damaged(format!("{SUMS} names an unknown file")));
        }
        let found = files::sha256_file(&path.join(name)).map_err(|error| damaged(format!("{name}: {error}")))?;
        if found.0 != hash {
            return Err(damaged(format!("the content of {name} has changed: its hash is not the one in {SUMS}")));
        }
        names.push(name);
    }
    if names != [MASTERS, MOMENTS, STATE] {
        return Err(damaged(format!("{SUMS} does not name all files")));
    }
    let state = fs::read(path.join(STATE)).map_err(|error| damaged(format!("{STATE}: {error}")))?;
    serde_json::from_slice(&state).map_err(|error| damaged(format!("{STATE}: {error}")))
}

/// The newest checkpoint that is whole; `warn` hears of those that are not.
pub fn newest(folder: &Path, warn: &mut dyn FnMut(&str)) -> Option<(PathBuf, State)> {
    list(folder).into_iter().rev().find_map(|(_, path)| match verify(&path) {
        Ok(state) => Some((path, state)),
        Err(error) => {
            warn(&format!("{error}; going on from the one before it"));
            None
        }
    })
}

/// The weights of a verified checkpoint, in the order of the parameter list.
///
/// # Errors
/// If the file cannot be read or is not as long as the parameters are together.
pub fn masters(path: &Path, parameters: &[ParameterSpec]) -> Result<Vec<Vec<f32>>, RunError> {
    let mut lists: Vec<Vec<f32>> = parameters.iter().map(|p| vec![0.0; p.elements() as usize]).collect();
    fill(&path.join(MASTERS), lists.iter_mut().collect())?;
    Ok(lists)
}

/// Reads weights and moments of a verified checkpoint.
pub(crate) fn restore(path: &Path, masters: &mut [Vec<f32>], optimizer: &mut Optimizer) -> Result<(), RunError> {
    fill(&path.join(MASTERS), masters.iter_mut().collect())?;
    fill(&path.join(MOMENTS), optimizer.moments.iter_mut().flat_map(|moments| moments.lists_mut()).collect())
}

fn fill(path: &Path, lists: Vec<&mut Vec<f32>>) -> Result<(), RunError> {
    let damaged = |reason: String| RunError::Checkpoint { path: path.to_path_buf(), reason };
    let mut file = File::open(path).map_err(|error| damaged(error.to_string()))?;
    let wanted: u64 = lists.iter().map(|list| list.len() as u64 * 4).sum();
    let found = file.metadata().map_err(|error| damaged(error.to_string()))?.len();
    if found != wanted {
        return Err(damaged(format!("it has {found} bytes; the recipe's model needs {wanted}")));
    }
    let mut bytes = vec![0; 1 << 18];
    for list in lists {
        for values in list.chunks_mut(1 << 16) {
            let bytes = &mut bytes[..values.len() * 4];
            file.read_exact(bytes).map_err(|error| damaged(error.to_string()))?;
            let read = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            values.iter_mut().zip(read).for_each(|(value, read)| *value = read);
        }
    }
    Ok(())
}
