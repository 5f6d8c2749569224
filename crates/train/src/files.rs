//! Files that are written whole or not at all, and their hashes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A hash as 64 hexadecimal digits.
pub(crate) type Hash = String;

/// The hash of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    hex(&Sha256::digest(bytes))
}

/// The hash of a file and its length.
pub(crate) fn sha256_file(path: &Path) -> io::Result<(Hash, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((hex(&hasher.finalize()), length));
        }
        hasher.update(&buffer[..n]);
        length += n as u64;
    }
}

/// A hash over a model's files: their names, lengths and contents. Of a folder those that a model is opened from.
pub(crate) fn sha256_model(path: &Path) -> io::Result<Hash> {
    let mut paths = vec![path.to_path_buf()];
    if path.is_dir() {
        let known = |path: &Path| {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            ["safetensors", "json", "jinja", "gguf"].contains(&extension) && path.is_file()
        };
        let entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        // What fathom writes about a model is no part of it.
        let about = ["manifest.json", "recipe.json"];
        paths = entries.iter().map(|entry| entry.path()).filter(|path| known(path)).collect();
        paths.retain(|path| !path.file_name().is_some_and(|name| about.iter().any(|about| name == *about)));
        paths.sort();
    }
    let mut all = String::new();
    for path in paths {
        let (hash, length) = sha256_file(&path)?;
        all += &format!("{hash} {length} {}\n", path.file_name().unwrap_or_default().to_string_lossy());
    }
    Ok(sha256(all.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file beside its final place, makes sure that it is on the disk, and gives it its name. Returns its hash.
pub(crate) fn write_whole(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Hash> {
    let part = part_of(path);
    let written = (|| {
        let mut out = Hashed { out: BufWriter::with_capacity(1 << 20, File::create(&part)?), hasher: Sha256::new() };
        content(&mut out)?;
        let Hashed { out, hasher } = out;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&part, path)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))?;
        Ok(hex(&hasher.finalize()))
    })();
    if written.is_err() {
        // What could not be finished is of no use, and its space is needed.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Makes names in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// `NAME.part`, in the same folder.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".part");
    PathBuf::from(name)
}

struct Hashed {
    out: BufWriter<File>,
    hasher: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes numbers as they lie in memory of a little-endian machine.
pub(crate) fn write_f32(out: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(values.len().min(1 << 16) * 4);
    for chunk in values.chunks(1 << 16) {
        bytes.clear();
        chunk.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let hash = write_whole(&path, |out| out.write_all(b"abc")).unwrap();
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sha256_file(&path).unwrap(), (hash, 3));
        write_whole(&path, |out| {
            out.write_all(b"de")?;
            Err(io::Error::other("the disk is full"))
        })
        .unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
