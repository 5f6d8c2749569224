//! Starting the program and looking at what it says.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Said {
    /// Standard output of a command that worked.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// Standard output of a command that worked, as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).expect("JSON on standard output")
    }

    /// The one line of a command that refused: exit code 2, and nothing on standard output.
    #[track_caller]
    pub(crate) fn refusal(self) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(2), ""), "{}", self.err);
        let line = self.err.strip_prefix("fathom: ").expect("the error begins with the program's name");
        assert_eq!(line.matches('\n').count(), 1, "one line: {line}");
        let causes: Vec<&str> = line.trim_end().split(": ").filter(|cause| cause.len() > 12).collect();
        let mut different = causes.clone();
        different.dedup();
        assert_eq!(causes, different, "nothing is said twice");
        line.trim_end().to_string()
    }
}

/// The program, on one thread, with an empty home and no settings from outside.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fathom"));
    command
        .args(arguments)
        .env("FATHOM_THREADS", "1")
        .env("FATHOM_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/home"));
    for name in ["HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "FATHOM_ISA", "NO_COLOR"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

/// Runs the program with nothing on standard input.
pub(crate) fn fathom(arguments: &[&str]) -> Said {
    fathom_with(arguments, "")
}

/// Runs the program with this text on standard input.
pub(crate) fn fathom_with(arguments: &[&str], input: &str) -> Said {
    finish(command(arguments), input)
}

/// Runs a prepared command to its end.
pub(crate) fn finish(mut command: Command, input: &str) -> Said {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().expect("standard input").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let said = Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code() };
    assert!(!said.err.contains("panicked"), "{}", said.err);
    said
}

/// The model that the tests talk to.
pub(crate) fn model() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-chat")
}

/// A copy of the model to be spoiled.
pub(crate) struct Copied {
    _root: TempDir,
    pub(crate) path: PathBuf,
}

impl Copied {
    pub(crate) fn new() -> Copied {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("copy");
        std::fs::create_dir(&path).expect("a directory");
        for entry in std::fs::read_dir(model()).expect("the model") {
            let from = entry.expect("an entry").path();
            std::fs::copy(&from, path.join(from.file_name().expect("a name"))).expect("a copy");
        }
        Copied { _root: root, path }
    }

    pub(crate) fn name(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.path.join(file)).expect("removed");
    }

    pub(crate) fn write(&self, file: &str, content: &str) {
        std::fs::write(self.path.join(file), content).expect("written");
    }

    pub(crate) fn cut(&self, file: &str, bytes: usize) {
        let path = self.path.join(file);
        let content = std::fs::read(&path).expect("the file");
        std::fs::write(path, &content[..bytes]).expect("written");
    }

    /// Removes a key of a JSON file.
    pub(crate) fn without_key(&self, file: &str, key: &str) {
        let text = std::fs::read_to_string(self.path.join(file)).expect("the file");
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json.as_object_mut().expect("an object").remove(key).expect("the key");
        self.write(file, &json.to_string());
    }
}

/// A file with this content.
pub(crate) fn file(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).expect("written");
    path.to_str().expect("UTF-8").to_string()
}

/// The number of a token by its name.
pub(crate) fn token(name: &str) -> u32 {
    let ids: Vec<u32> =
        serde_json::from_value(fathom_with(&["tokenize", model()], name).json()).expect("a list of numbers");
    assert_eq!(ids.len(), 1, "{name:?} is one token");
    ids[0]
}
