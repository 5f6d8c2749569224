//! Where the repository is, which files it tracks, and how to call git and cargo in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is crates/xtask").to_path_buf()
}

/// The tracked files that exist, as paths from the root with forward slashes, sorted.
///
/// Without git or its data (sources from an archive) all files count but build output.
pub(crate) fn files(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = if root.join(".git").exists() {
        let listing = output(Command::new("git").args(["ls-files", "-z"]).current_dir(root))?;
        listing.split_terminator('\0').map(str::to_string).collect()
    } else {
        walk(root, "")?
    };
    // A file that is deleted but not yet committed as such is still listed.
    files.retain(|file| root.join(file).is_file());
    files.sort();
    Ok(files)
}

/// Every file below `root/prefix`, without build output and hidden directories of tools.
fn walk(root: &Path, prefix: &str) -> anyhow::Result<Vec<String>> {
    const SKIPPED: [&str; 5] = ["target", "node_modules", "__pycache__", "corpus", "artifacts"];
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join(prefix)).with_context(|| format!("cannot list {prefix}"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        if !entry.file_type()?.is_dir() {
            files.push(path);
        } else if !SKIPPED.contains(&name.as_str()) {
            files.extend(walk(root, &path)?);
        }
    }
    Ok(files)
}

/// The cargo that runs this program.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// What a command prints; an error with its own words if it fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} printed what is not UTF-8"))
}
