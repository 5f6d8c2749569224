//! The local store: what was pulled, and where it is.
//!
//! ```text
//! $FATHOM_HOME/
//!   models/ORG/NAME[@REVISION]/     mode 0700; the files, with the names they have on the hub
//!     fathom-manifest.json          written last: what was pulled, from which commit, sizes and hashes
//!     .fathom-pull.json             while a pull is unfinished: the commit it began with
//!     FILE.part                     while FILE is unfinished
//!   locks/ORG+NAME[@REVISION].lock  held while a process pulls into that directory
//! ```
//!
//! Several GGUF files of one repository share its directory and its manifest. A reference without a revision means
//! `main` and the directory without `@`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::home_from_env;
use crate::error::{ConfigError, StoreError, clip};
use crate::hash::{FileHash, Hasher, is_hex};
use crate::progress::{Event, Progress};
use crate::reference::{Reference, Selection, plain, plain_path};
use crate::select::{Choice, gguf, gguf_sets};

const MANIFEST: &str = "fathom-manifest.json";
const RECORD: &str = ".fathom-pull.json";
/// Longest manifest that is read: 100,000 files with long names fit.
const MANIFEST_LIMIT_BYTES: u64 = 64 << 20;
/// How deep `list` looks into a model's directory, and how many entries it counts there.
const WALK_DEPTH: usize = 4;
const WALK_ENTRIES: usize = 100_000;

/// The models on this machine.
#[derive(Debug, Clone)]
pub struct Store {
    home: PathBuf,
}

/// One model of the store, as `fathom list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// `ORG/NAME[@REVISION]`: what to give to `fathom run`.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// What it is; `None` before the first pull into it is finished.
    pub kind: Option<Kind>,
    /// Whether it can be used.
    pub state: State,
    /// Bytes on the disk, parts included.
    pub size_bytes: u64,
    /// The commit of the last finished pull.
    pub commit: Option<String>,
    /// When that was, in seconds since 1970.
    pub pulled_at_unix_s: Option<u64>,
}

/// In what form a model is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// config.json, safetensors, tokenizer.
    Directory,
    /// GGUF files; the texts are what to write after the colon.
    Gguf(Vec<String>),
}

/// Whether a model can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All files of the manifest are there.
    Complete,
    /// The first pull into it has not finished.
    Partial,
    /// All files of the manifest are there, and a further pull into it has not finished.
    CompleteAndPulling,
    /// The manifest cannot be read, or a file of it is missing or has another size.
    Damaged(String),
}

/// `fathom-manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) model: String,
    pub(crate) endpoint: String,
    pub(crate) revision: String,
    pub(crate) commit: String,
    pub(crate) pulled_at_unix_s: u64,
    pub(crate) files: Vec<StoredFile>,
}

/// A file of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredFile {
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
    pub(crate) hash: FileHash,
    pub(crate) commit: String,
}

/// `.fathom-pull.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PullRecord {
    pub(crate) commit: String,
    pub(crate) reference: String,
}

/// Held while a process pulls; the operating system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// The store below `home`.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into() }
    }

    /// The store that the environment names; see [`config`](crate::config).
    pub fn from_env() -> Result<Self, ConfigError> {
        Ok(Self::new(home_from_env()?))
    }

    /// Where the model of this reference is, or would be.
    pub fn directory(&self, reference: &Reference) -> PathBuf {
        self.home.join("models").join(reference.stored_name())
    }

    /// All models, by name. Directories that are no models are left out.
    pub fn list(&self) -> Result<Vec<Model>, StoreError> {
        let mut models = Vec::new();
        let root = self.home.join("models");
        for org in plain_subdirectories(&root)? {
            for name in subdirectories(&root.join(&org))? {
                let Ok(reference) = Reference::parse(&format!("{org}/{name}")) else { continue };
                if reference.stored_name() == format!("{org}/{name}") {
                    models.extend(self.describe(&reference)?);
                }
            }
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// What `fathom run NAME` opens: an existing path stays as it is, a reference becomes the model's directory or,
    /// for GGUF, its (first) file.
    pub fn resolve(&self, name: &str) -> Result<PathBuf, StoreError> {
        if Path::new(name).exists() {
            return Ok(PathBuf::from(name));
        }
        let reference =
            Reference::parse(name).map_err(|error| StoreError::NoSuchPath { name: clip(name, 200), why: error.why })?;
        let directory = self.directory(&reference);
        let unfinished = PullRecord::read(&directory)?.is_some();
        let Some(manifest) = Manifest::read(&directory)? else {
            let name = reference.to_string();
            return Err(if unfinished { StoreError::Incomplete { name } } else { StoreError::NotPulled { name } });
        };
        if reference.selection == Selection::Model && manifest.is_directory() {
            manifest.check_present(&reference, &directory, &manifest.files)?;
            return Ok(directory);
        }
        let set = gguf(&reference.selection, &manifest.files).map_err(|unclear| {
            let name = reference.to_string();
            match (unclear.ambiguous, unfinished) {
                (true, _) => StoreError::Choose { name, why: unclear.why, available: unclear.available },
                (false, true) => StoreError::Incomplete { name },
                (false, false) => StoreError::NotPulled { name },
            }
        })?;
        manifest.check_present(&reference, &directory, &set.files)?;
        Ok(directory.join(&set.files[0].path))
    }

    /// Reads every file of a pulled model again and compares the hashes. Returns how many bytes were read.
    pub fn verify(&self, reference: &Reference, progress: &dyn Progress) -> Result<u64, StoreError> {
        let directory = self.directory(reference);
        let name = reference.stored_name();
        let manifest = Manifest::read(&directory)?.ok_or_else(|| StoreError::NotPulled { name: name.clone() })?;
        manifest.check_present(reference, &directory, &manifest.files)?;
        let total_bytes = manifest.files.iter().map(|file| file.size_bytes).fold(0, u64::saturating_add);
        progress.event(Event::Planned { commit: &manifest.commit, files: manifest.files.len(), total_bytes });
        for stored in &manifest.files {
            let path = directory.join(&stored.path);
            progress.event(Event::File { path: &stored.path, size_bytes: stored.size_bytes });
            let mut hasher = Hasher::new(&stored.hash, stored.size_bytes);
            let file = File::open(&path).map_err(StoreError::io(&path))?;
            let report = |bytes| {
                progress.event(Event::Position { bytes });
                true
            };
            hasher.read_all(file, report).map_err(StoreError::io(&path))?;
            let found = hasher.finish();
            if found != stored.hash.hex() {
                let why = format!("has {} {found}, not {}", stored.hash.algorithm(), stored.hash.hex());
                return Err(StoreError::Damaged { name, path: stored.path.clone(), why, directory });
            }
            progress.event(Event::FileDone { path: &stored.path });
        }
        Ok(total_bytes)
    }

    /// Locks the model's directory for this process, or says that another one has it.
    pub fn lock(&self, reference: &Reference) -> Result<Lock, StoreError> {
        let directory = self.home.join("locks");
        create_directories(&directory)?;
        // No name has a '+', so no two models share a lock.
        let path = directory.join(format!("{}.lock", reference.stored_name().replace('/', "+")));
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(StoreError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy { name: reference.stored_name() }),
            Err(TryLockError::Error(cause)) => Err(StoreError::Io { path, cause }),
        }
    }

    fn describe(&self, reference: &Reference) -> Result<Option<Model>, StoreError> {
        let path = self.directory(reference);
        let unfinished = path.join(RECORD).exists();
        let (manifest, broken) = match Manifest::read(&path) {
            Ok(manifest) => (manifest, None),
            Err(StoreError::Manifest { why, .. }) => (None, Some(why)),
            Err(error) => return Err(error),
        };
        let state = match (&manifest, broken) {
            (_, Some(why)) => State::Damaged(format!("{MANIFEST}: {why}")),
            (None, None) if unfinished => State::Partial,
            (None, None) => return Ok(None),
            (Some(manifest), None) => match manifest.first_absent(&path, &manifest.files) {
                Some((file, why)) => State::Damaged(format!("{file} {why}")),
                None if unfinished => State::CompleteAndPulling,
                None => State::Complete,
            },
        };
        Ok(Some(Model {
            name: reference.stored_name(),
            kind: manifest.as_ref().map(Manifest::kind),
            state,
            size_bytes: bytes_below(&path, WALK_DEPTH, &mut WALK_ENTRIES.clone()),
            commit: manifest.as_ref().map(|manifest| manifest.commit.clone()),
            pulled_at_unix_s: manifest.as_ref().map(|manifest| manifest.pulled_at_unix_s),
            path,
        }))
    }
}

impl Manifest {
    pub(crate) const FORMAT: u32 = 1;

    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory.join(MANIFEST);
        let Some(manifest) = read_json::<Self>(&path)? else { return Ok(None) };
        let fail = |why: String| StoreError::Manifest { path: path.clone(), why };
        if manifest.format != Self::FORMAT {
            return Err(fail(format!("its format is {}, this version reads {}", manifest.format, Self::FORMAT)));
        }
        for file in &manifest.files {
            plain_path(&file.path).map_err(|why| fail(format!("a path {why}")))?;
            if !file.hash.is_well_formed() {
                return Err(fail(format!("{} has a malformed hash", file.path)));
            }
        }
        Ok(Some(manifest))
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), StoreError> {
        write_json(&directory.join(MANIFEST), self)
    }

    pub(crate) fn file(&self, path: &str) -> Option<&StoredFile> {
        self.files.iter().find(|file| file.path == path)
    }

    fn is_directory(&self) -> bool {
        self.file("config.json").is_some() && self.files.iter().any(|file| file.path.ends_with(".safetensors"))
    }

    fn kind(&self) -> Kind {
        if self.is_directory() {
            return Kind::Directory;
        }
        let sets = gguf_sets(&self.files);
        Kind::Gguf(sets.iter().filter(|set| set.is_complete()).map(|set| set.label()).collect())
    }

    fn first_absent(&self, directory: &Path, files: &[StoredFile]) -> Option<(String, String)> {
        files.iter().find_map(|file| file.check_present(directory).err().map(|why| (file.path.clone(), why)))
    }

    fn check_present(&self, reference: &Reference, directory: &Path, files: &[StoredFile]) -> Result<(), StoreError> {
        match self.first_absent(directory, files) {
            None => Ok(()),
            Some((path, why)) => {
                let (name, directory) = (reference.stored_name(), directory.to_path_buf());
                Err(StoreError::Damaged { name, path, why, directory })
            }
        }
    }
}

impl StoredFile {
    /// Whether the file is there with its size; the error is the end of a sentence.
    pub(crate) fn check_present(&self, directory: &Path) -> Result<(), String> {
        match directory.join(&self.path).metadata() {
            Ok(metadata) if !metadata.is_file() => Err("is not a file".to_string()),
            Ok(metadata) if metadata.len() != self.size_bytes => {
                Err(format!("has {} bytes, not {}", metadata.len(), self.size_bytes))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("cannot be read ({error})")),
        }
    }
}

impl Choice for StoredFile {
    fn path(&self) -> &str {
        &self.path
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl PullRecord {
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory.join(RECORD);
        let record = read_json::<Self>(&path)?;
        match &record {
            Some(record) if !is_hex(&record.commit, 40) => {
                Err(StoreError::Manifest { path, why: "its commit is not one".to_string() })
            }
            _ => Ok(record),
        }
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), StoreError> {
        write_json(&directory.join(RECORD), self)
    }

    pub(crate) fn remove(directory: &Path) -> Result<(), StoreError> {
        let path = directory.join(RECORD);
        fs::remove_file(&path).map_err(StoreError::io(&path))?;
        sync_directory(directory)
    }
}

/// Creates a directory and those above it, readable by this user only.
pub(crate) fn create_directories(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(StoreError::io(path))
}

/// Makes sure that a rename in this directory survives a loss of power.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        File::open(path).and_then(|directory| directory.sync_all()).map_err(StoreError::io(path))?;
    }
    Ok(())
}

/// Free bytes on the disk that holds, or will hold, this path; `None` where the system does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let there = path.ancestors().find(|ancestor| ancestor.exists())?;
        let stat = rustix::fs::statvfs(there).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(StoreError::Io { path: path.to_path_buf(), cause }),
    };
    let fail = |why: String| StoreError::Manifest { path: path.to_path_buf(), why };
    let mut json = Vec::new();
    file.take(MANIFEST_LIMIT_BYTES + 1).read_to_end(&mut json).map_err(StoreError::io(path))?;
    if json.len() as u64 > MANIFEST_LIMIT_BYTES {
        return Err(fail(format!("it is larger than {} MiB", MANIFEST_LIMIT_BYTES >> 20)));
    }
    serde_json::from_slice(&json).map(Some).map_err(|error| fail(clip(&error.to_string(), 200)))
}

/// Writes so that the file is either the old one or the new one, whatever happens in between.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|error| StoreError::Io { path: path.to_path_buf(), cause: std::io::Error::other(error) })?;
    json.push(b'\n');
    let temporary = path.with_extension("json.new");
    let mut file = File::create(&temporary).map_err(StoreError::io(&temporary))?;
    file.write_all(&json).and_then(|()| file.sync_all()).map_err(StoreError::io(&temporary))?;
    fs::rename(&temporary, path).map_err(StoreError::io(path))?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn plain_subdirectories(path: &Path) -> Result<Vec<String>, StoreError> {
    let names = subdirectories(path)?;
    Ok(names.into_iter().filter(|name| plain(name, 96).is_ok()).collect())
}

/// The names of the directories in `path`; none if there is no such path.
fn subdirectories(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(StoreError::Io { path: path.to_path_buf(), cause }),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io(path))?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

/// The size of all files below, for display: what cannot be read counts as nothing.
fn bytes_below(path: &Path, depth: usize, entries_left: &mut usize) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let mut total_bytes = 0u64;
    for entry in entries.flatten() {
        if *entries_left == 0 {
            break;
        }
        *entries_left -= 1;
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() && depth > 0 {
            total_bytes = total_bytes.saturating_add(bytes_below(&entry.path(), depth - 1, entries_left));
        } else if metadata.is_file() {
            total_bytes = total_bytes.saturating_add(metadata.len());
        }
    }
    total_bytes
}
