//! A file of samples that grows: lines, and beside them how far they are good.
//!
//! Lines go to `OUT.part`; after each portion they are put on the disk, and then `OUT.state.json` says how many bytes
//! are good and what was counted. A kill between the two leaves bytes behind the good ones, which the next start cuts
//! off. At the end the lines get their name, and the state becomes the manifest.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Counts, Manifest, SampleError, Settings};
use crate::files;

/// What is done so far.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct State {
    fingerprint: String,
    /// Problems.
    done: u64,
    /// Good bytes of the lines.
    bytes: u64,
    counts: BTreeMap<String, Counts>,
}

/// Lines that are being written.
pub(super) struct Unfinished {
    out: PathBuf,
    lines: File,
    fingerprint: String,
    bytes: u64,
    /// Problems that are done.
    pub(super) done: u64,
    pub(super) counts: BTreeMap<String, Counts>,
}

fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

impl Unfinished {
    /// Begins, or finds what was begun with the same model and settings.
    pub(super) fn open(out: &Path, model_sha256: &str, settings: &Settings) -> Result<Unfinished, SampleError> {
        if out.exists() {
            return Err(SampleError::There { path: out.to_path_buf() });
        }
        let settings = serde_json::to_string(settings).unwrap_or_default();
        let fingerprint = files::sha256(format!("samples 1\n{model_sha256}\n{settings}").as_bytes());
        let (part, path) = (beside(out, ".part"), beside(out, ".state.json"));
        let damaged = |reason: String| SampleError::Damaged { path: path.clone(), reason };
        let state = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<State>(&bytes).map_err(|error| damaged(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                State { fingerprint: fingerprint.clone(), done: 0, bytes: 0, counts: BTreeMap::new() }
            }
            Err(source) => return Err(SampleError::Read { path, source }),
        };
        if state.fingerprint != fingerprint {
            return Err(SampleError::Changed { path });
        }
        let write = |source| SampleError::Write { path: part.clone(), source };
        let mut lines =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&part).map_err(write)?;
        let there = lines.metadata().map_err(write)?.len();
        if there < state.bytes {
            let reason = format!("{} has {there} bytes and should have {}", part.display(), state.bytes);
            return Err(damaged(reason));
        }
        lines.set_len(state.bytes).and_then(|()| lines.seek(SeekFrom::End(0))).map_err(write)?;
        let State { done, bytes, counts, .. } = state;
        Ok(Unfinished { out: out.to_path_buf(), lines, fingerprint, bytes, done, counts })
    }

    /// Adds the lines of some more problems; they and the counts are on the disk when this returns.
    pub(super) fn add(&mut self, lines: &str, problems: u64) -> Result<(), SampleError> {
        let part = beside(&self.out, ".part");
        let written = self.lines.write_all(lines.as_bytes()).and_then(|()| self.lines.sync_data());
        written.map_err(|source| SampleError::Write { path: part, source })?;
        (self.done, self.bytes) = (self.done + problems, self.bytes + lines.len() as u64);
        let (fingerprint, counts) = (self.fingerprint.clone(), self.counts.clone());
        let state = State { fingerprint, done: self.done, bytes: self.bytes, counts };
        put(&beside(&self.out, ".state.json"), &serde_json::to_string_pretty(&state).unwrap_or_default())
    }

    /// Gives the lines their name.
    pub(super) fn finish(self, model: &Path, model_sha256: &str, settings: &Settings) -> Result<Manifest, SampleError> {
        let Unfinished { out, lines, counts, .. } = self;
        let part = beside(&out, ".part");
        let write = |source| SampleError::Write { path: out.clone(), source };
        lines.sync_all().map_err(write)?;
        drop(lines);
        let (sha256, _) = files::sha256_file(&part).map_err(write)?;
        let (model, model_sha256) = (model.display().to_string(), model_sha256.to_string());
        let manifest = Manifest { model, model_sha256, settings: settings.clone(), counts, sha256 };
        let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
        put(&beside(&out, ".manifest.json"), &text)?;
        fs::rename(&part, &out).map_err(write)?;
        files::sync_folder(out.parent().unwrap_or(Path::new("."))).map_err(write)?;
        // What is left of it is of no use.
        let _ = fs::remove_file(beside(&out, ".state.json"));
        Ok(manifest)
    }
}

fn put(path: &Path, text: &str) -> Result<(), SampleError> {
    let written = files::write_whole(path, |out| out.write_all(text.as_bytes()));
    written.map(|_| ()).map_err(|source| SampleError::Write { path: path.to_path_buf(), source })
}
