//! Files that are written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Writes a file beside its final place and gives it its name when all of it is on the disk. Only its owner can read
/// it: what is written here comes from conversations.
pub(crate) fn write(path: &Path, content: impl FnOnce(&mut File) -> std::io::Result<()>) -> anyhow::Result<()> {
    let part = part_of(path);
    let written = create(&part)
        .and_then(|mut file| {
            content(&mut file)?;
            file.flush()?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        // What could not be finished is of no use; the error says what happened.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("{}: cannot be written", path.display()))
}

/// `NAME.part`, in the same directory.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".part");
    PathBuf::from(name)
}

fn create(path: &Path) -> std::io::Result<File> {
    // What an earlier attempt left; never through a link that somebody else put there.
    let _ = std::fs::remove_file(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.json");
        super::write(&path, |file| file.write_all(b"first")).expect("written");
        let failed = super::write(&path, |file| {
            file.write_all(b"sec")?;
            Err(std::io::Error::other("the disk is full"))
        });
        let message = format!("{:#}", failed.expect_err("a failure"));
        assert!(message.ends_with("a.json: cannot be written: the disk is full"), "{message}");
        assert_eq!(std::fs::read(&path).expect("the file"), b"first");
        assert_eq!(std::fs::read_dir(directory.path()).expect("the directory").count(), 1);
    }
}
