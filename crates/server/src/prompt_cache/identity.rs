//! What makes two models the same: every byte of their files, how they are computed, and the program that computes.
//!
//! Large files are read once: what a file's bytes hash to is remembered in the data directory under what the file
//! system says of it (device, number, size, and the times of its last change, of which no program can set the last).
//! A file that changed in any way is read again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Identity;
use super::seal::{Bytes32, private};
use crate::store::keys::hex;

/// The name of the file with what is remembered.
const MEMO: &str = "model-hashes.json";
/// Files that are remembered.
const MEMO_MAX: usize = 1000;

/// A part of a model.
#[derive(Clone, Debug)]
pub enum Part {
    /// A file.
    File(PathBuf),
    /// Bytes inside the program.
    Bytes(&'static [u8]),
}

/// The identity of a model made of `parts`, computed as `settings` says (instruction set, format of the cache), by this
/// program.
pub fn identity(data: &Path, parts: Vec<Part>, settings: String) -> Identity {
    let memo = data.join(MEMO);
    Box::new(move || {
        let program = Part::File(std::env::current_exe()?);
        let mut all = Sha256::new();
        all.update((settings.len() as u64).to_le_bytes());
        all.update(settings);
        for part in parts.iter().chain([&program]) {
            all.update(match part {
                Part::File(path) => of_file(path, &memo)?,
                Part::Bytes(bytes) => Sha256::digest(bytes).into(),
            });
        }
        Ok(all.finalize().into())
    })
}

/// The hash of a file's bytes, from the memo if the file is the one that was read then.
fn of_file(path: &Path, memo: &Path) -> io::Result<Bytes32> {
    let mut file = File::open(path).map_err(|error| named(path, &error))?;
    let before = stamp(&file)?;
    // A memo that cannot be read costs the time of reading the file, and nothing else.
    let mut known: BTreeMap<String, String> =
        fs::read(memo).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let remembered = before.as_ref().and_then(|stamp| known.get(stamp)).and_then(|hash| bytes_of(hash));
    if let Some(hash) = remembered {
        return Ok(hash);
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(|error| named(path, &error))? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    let hash: Bytes32 = hash.finalize().into();
    if let Some(stamp) = before.filter(|before| stamp(&file).is_ok_and(|after| after.as_ref() == Some(before))) {
        if known.len() >= MEMO_MAX {
            known.clear();
        }
        known.insert(stamp, hex(&hash));
        let _ = remember(memo, &known);
    }
    Ok(hash)
}

fn remember(memo: &Path, known: &BTreeMap<String, String>) -> io::Result<()> {
    let temporary = memo.with_extension(format!("new-{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    private(&mut options).open(&temporary)?.write_all(&serde_json::to_vec(known)?)?;
    fs::rename(&temporary, memo)
}

/// What the file system says of a file; `None` where it says too little.
#[cfg(unix)]
fn stamp(file: &File) -> io::Result<Option<String>> {
    use std::os::unix::fs::MetadataExt;
    let m = file.metadata()?;
    let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
    Ok(Some(format!("{} {} {} {times:?}", m.dev(), m.ino(), m.len())))
}

#[cfg(not(unix))]
fn stamp(_file: &File) -> io::Result<Option<String>> {
    Ok(None)
}

fn bytes_of(text: &str) -> Option<Bytes32> {
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_every_setting_counts_and_files_are_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let (model, config) = (directory.path().join("model"), directory.path().join("config"));
        fs::write(&model, vec![7; 3 << 20]).unwrap();
        fs::write(&config, b"{}").unwrap();
        let now = |settings: &str| {
            let parts = vec![Part::File(config.clone()), Part::File(model.clone()), Part::Bytes(b"inside")];
            identity(directory.path(), parts, settings.into())()
        };
        let first = now("f32").unwrap();
        let memo = directory.path().join(MEMO);
        let remembered = fs::read(&memo).unwrap();
        assert_eq!((now("f32").unwrap(), fs::read(&memo).unwrap()), (first, remembered));
        assert_ne!(now("bf16").unwrap(), first);
        // One byte, with the size and the time that programs can set as they were.
        let time = fs::metadata(&model).unwrap().modified().unwrap();
        let mut bytes = fs::read(&model).unwrap();
        bytes[1 << 20] ^= 1;
        fs::write(&model, &bytes).unwrap();
        File::options().write(true).open(&model).unwrap().set_modified(time).unwrap();
        assert_ne!(now("f32").unwrap(), first);
        bytes[1 << 20] ^= 1;
        fs::write(&model, bytes).unwrap();
        fs::write(&memo, b"no JSON").unwrap();
        assert_eq!(now("f32").unwrap(), first);
        fs::remove_file(&model).unwrap();
        assert!(now("f32").unwrap_err().to_string().contains("model: "));
    }
}
