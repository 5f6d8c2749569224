//! The whole job of `fathom pull`: lock, pin, list, choose, download, write the manifest.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::{RemoteFile, commit_of, files_at};
use crate::config::Config;
use crate::download::{Job, fetch, part_path};
use crate::error::{PullError, StoreError};
use crate::hash::is_hex;
use crate::http::Client;
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::select::select;
use crate::store::{Manifest, PullRecord, Store, StoredFile, create_directories, free_bytes};

/// Left free for what else goes on while a model is downloaded.
const SPARE_BYTES: u64 = 16 << 20;

/// A finished pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The model's directory.
    pub directory: PathBuf,
    /// The commit that the files were taken from.
    pub commit: String,
    /// How many files the reference names.
    pub files: usize,
    /// Their size in total.
    pub size_bytes: u64,
    /// What came over the network this time; 0 when everything was there.
    pub received_bytes: u64,
}

/// Downloads what `reference` names, or the rest of it, into the store below `config.home`.
///
/// Without a revision, `main` is asked for its commit once; an unfinished pull goes on with the commit it began with,
/// also when `main` has moved since.
pub fn pull(config: &Config, reference: &Reference, progress: &dyn Progress) -> Result<Pulled, PullError> {
    let client = Client::new(config, reference)?;
    let store = Store::new(&config.home);
    let _lock = store.lock(reference)?;
    let directory = store.directory(reference);
    let manifest = Manifest::read(&directory)?;
    let record = PullRecord::read(&directory)?;
    let commit = match &record {
        Some(record) => record.commit.clone(),
        None => commit_of(&client, reference, progress)?,
    };
    // An unfinished pull of another file in the same directory keeps its record.
    let is_ours = record.as_ref().is_none_or(|record| record.reference == reference.to_string());
    if let Some(revision) = reference.revision.as_deref().filter(|revision| is_hex(revision, 40))
        && revision != commit
    {
        let why = format!("asked for commit {revision}, it gives {commit}");
        return Err(client.answer_error("/api/models", why));
    }
    let chosen = select(reference, &files_at(&client, reference, &commit, progress)?)?;
    let size_bytes = chosen
        .iter()
        .try_fold(0u64, |sum, file| sum.checked_add(file.size_bytes))
        .ok_or_else(|| client.answer_error("/api/models", "the sizes of its files add up to more than 2^64 bytes"))?;
    let missing = missing_files(reference, &directory, manifest.as_ref(), &chosen, &commit)?;
    progress.event(Event::Planned { commit: &commit, files: chosen.len(), total_bytes: size_bytes });
    let mut pulled = Pulled { directory, commit, files: chosen.len(), size_bytes, received_bytes: 0 };
    if missing.is_empty() {
        if record.is_some() && is_ours {
            PullRecord::remove(&pulled.directory)?;
        }
        return Ok(pulled);
    }
    check_space(&pulled.directory, &missing)?;
    create_directories(&pulled.directory)?;
    if record.is_none() {
        PullRecord { commit: pulled.commit.clone(), reference: reference.to_string() }.write(&pulled.directory)?;
    }
    for &file in &missing {
        let (commit, directory) = (pulled.commit.as_str(), pulled.directory.as_path());
        pulled.received_bytes += fetch(&Job { client: &client, reference, commit, file, directory, progress })?;
    }
    write_manifest(config, reference, manifest, &missing, &pulled)?;
    if is_ours {
        PullRecord::remove(&pulled.directory)?;
    }
    Ok(pulled)
}

/// The chosen files that the manifest does not have. One that it has with other content ends the pull.
fn missing_files<'a>(
    reference: &Reference,
    directory: &Path,
    manifest: Option<&Manifest>,
    chosen: &'a [RemoteFile],
    commit: &str,
) -> Result<Vec<&'a RemoteFile>, PullError> {
    let mut missing = Vec::new();
    for file in chosen {
        let Some(stored) = manifest.and_then(|manifest| manifest.file(&file.path)) else {
            missing.push(file);
            continue;
        };
        if stored.size_bytes != file.size_bytes || stored.hash != file.hash {
            let why = format!("here from commit {}, now at commit {commit}", stored.commit);
            let (model, file) = (reference.model(), file.path.clone());
            return Err(PullError::Changed { model, file, why, directory: directory.to_path_buf() });
        }
        stored.check_present(directory).map_err(|why| StoreError::Damaged {
            name: reference.stored_name(),
            path: file.path.clone(),
            why,
            directory: directory.to_path_buf(),
        })?;
    }
    Ok(missing)
}

/// Checks before the first byte that all of it will fit.
fn check_space(directory: &Path, missing: &[&RemoteFile]) -> Result<(), PullError> {
    let still_to_come = |file: &&RemoteFile| {
        let target = directory.join(&file.path);
        let length = |path: &Path| path.symlink_metadata().map_or(0, |metadata| metadata.len());
        file.size_bytes.saturating_sub(length(&target).max(length(&part_path(&target))))
    };
    let needed_bytes = missing.iter().map(still_to_come).fold(SPARE_BYTES, u64::saturating_add);
    match free_bytes(directory) {
        Some(available_bytes) if available_bytes < needed_bytes => {
            Err(PullError::NoSpace { path: directory.to_path_buf(), needed_bytes, available_bytes })
        }
        // A file system that does not say is left to fail on writing.
        _ => Ok(()),
    }
}

/// Writes the manifest: what an earlier pull had, and what is new.
fn write_manifest(
    config: &Config,
    reference: &Reference,
    before: Option<Manifest>,
    fetched: &[&RemoteFile],
    pulled: &Pulled,
) -> Result<(), PullError> {
    let mut files = before.map(|manifest| manifest.files).unwrap_or_default();
    files.extend(fetched.iter().map(|file| StoredFile {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        hash: file.hash.clone(),
        commit: pulled.commit.clone(),
    }));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let manifest = Manifest {
        format: Manifest::FORMAT,
        model: reference.model(),
        endpoint: config.endpoint.clone(),
        revision: reference.revision_or_main().to_string(),
        commit: pulled.commit.clone(),
        // A clock before 1970 only makes the age in `fathom list` wrong.
        pulled_at_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        files,
    };
    Ok(manifest.write(&pulled.directory)?)
}
