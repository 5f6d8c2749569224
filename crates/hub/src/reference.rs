//! `ORG/NAME[@REVISION][:QUANT or :FILE.gguf]`: what a user types to name a model on the hub.
//!
//! Every component ends up in a URL and in a path, so each is limited to plain characters: letters, digits, `-`, `_`
//! and `.`, never starting with `.` or `-`, never with `..` in it. A file may sit in directories.

use std::fmt;

use crate::error::{ReferenceError, clip};

/// A model on the hub, and which of its files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The user or organisation.
    pub org: String,
    /// The repository.
    pub name: String,
    /// A branch, tag or commit; `None` is `main`.
    pub revision: Option<String>,
    /// Which files.
    pub selection: Selection,
}

/// Which files of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selection {
    /// All files that a model needs.
    Model,
    /// The GGUF file or files of this quantisation, such as `Q4_K_M`, in any case.
    Quant(String),
    /// The GGUF file with this path; of a split set, the whole set.
    File(String),
}

/// Longest organisation or repository name; the hub's own limit.
const NAME_LIMIT_CHARS: usize = 96;
/// Longest branch or tag name; a commit has 40.
const REVISION_LIMIT_CHARS: usize = 128;
/// Longest file path, and longest component of it (file systems stop at 255 bytes, `.part` included).
const PATH_LIMIT_CHARS: usize = 512;
const COMPONENT_LIMIT_CHARS: usize = 200;

impl Reference {
    /// Reads a reference.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why: String| ReferenceError { text: clip(text, 120), why };
        let (head, what) = match text.split_once(':') {
            Some((head, what)) => (head, Some(what)),
            None => (text, None),
        };
        // The revision may stand on either side of the colon.
        let (head, before) = split_revision(head);
        let (what, after) = match what.map(split_revision) {
            Some((what, revision)) => (Some(what), revision),
            None => (None, None),
        };
        if before.is_some() && after.is_some() {
            return Err(fail("it has two revisions".to_string()));
        }
        let (org, name) = head.split_once('/').ok_or_else(|| fail("there is no ORG/NAME".to_string()))?;
        for (value, what) in [(org, "ORG"), (name, "NAME")] {
            plain(value, NAME_LIMIT_CHARS).map_err(|why| fail(format!("{what} {why}")))?;
        }
        let revision = before.or(after);
        if let Some(revision) = revision {
            plain(revision, REVISION_LIMIT_CHARS).map_err(|why| fail(format!("REVISION {why}")))?;
        }
        let selection = match what {
            None => Selection::Model,
            Some(file) if is_gguf(file) => {
                plain_path(file).map_err(|why| fail(format!("FILE {why}")))?;
                Selection::File(file.to_string())
            }
            Some(quant) => {
                plain(quant, NAME_LIMIT_CHARS).map_err(|why| fail(format!("QUANT {why}")))?;
                Selection::Quant(quant.to_string())
            }
        };
        let revision = revision.filter(|revision| *revision != "main").map(str::to_string);
        Ok(Self { org: org.to_string(), name: name.to_string(), revision, selection })
    }

    /// `ORG/NAME`.
    pub fn model(&self) -> String {
        format!("{}/{}", self.org, self.name)
    }

    /// The branch, tag or commit to ask for.
    pub fn revision_or_main(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// `ORG/NAME` or `ORG/NAME@REVISION`: what has a directory of its own in the store.
    pub fn stored_name(&self) -> String {
        Self { selection: Selection::Model, ..self.clone() }.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.selection {
            Selection::Model => Ok(()),
            Selection::Quant(what) | Selection::File(what) => write!(f, ":{what}"),
        }
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

fn split_revision(text: &str) -> (&str, Option<&str>) {
    match text.split_once('@') {
        Some((head, revision)) => (head, Some(revision)),
        None => (text, None),
    }
}

pub(crate) fn is_gguf(path: &str) -> bool {
    path.len() > 5 && path.as_bytes()[path.len() - 5..].eq_ignore_ascii_case(b".gguf")
}

/// Checks one component; the error is the end of a sentence.
pub(crate) fn plain(text: &str, limit_chars: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".to_string());
    }
    if text.len() > limit_chars {
        return Err(format!("is longer than {limit_chars} characters"));
    }
    if text.starts_with(['.', '-']) || text.ends_with('.') || text.contains("..") {
        return Err(format!("{text:?} starts with '.' or '-', ends with '.' or has '..' in it"));
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        Some(bad) => Err(format!("has the character {bad:?}; letters, digits, '-', '_' and '.' are allowed")),
        None => Ok(()),
    }
}

/// Checks a relative path of plain components.
pub(crate) fn plain_path(path: &str) -> Result<(), String> {
    if path.len() > PATH_LIMIT_CHARS {
        return Err(format!("is longer than {PATH_LIMIT_CHARS} characters"));
    }
    path.split('/').try_for_each(|component| plain(component, COMPONENT_LIMIT_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    #[test]
    fn forms() {
        let plain = parse("deepseek-ai/DeepSeek-V2-Lite");
        assert_eq!((plain.org.as_str(), plain.name.as_str()), ("deepseek-ai", "DeepSeek-V2-Lite"));
        assert_eq!((plain.revision_or_main(), &plain.selection), ("main", &Selection::Model));
        assert_eq!(parse("a/b:Q4_K_M").selection, Selection::Quant("Q4_K_M".into()));
        assert_eq!(parse("a/b:x/Y-1.GGUF").selection, Selection::File("x/Y-1.GGUF".into()));
        for text in ["a/b@v1.0:Q8_0", "a/b:Q8_0@v1.0"] {
            assert_eq!(parse(text).revision.as_deref(), Some("v1.0"));
            assert_eq!(parse(text).to_string(), "a/b@v1.0:Q8_0");
            assert_eq!(parse(text).stored_name(), "a/b@v1.0");
        }
        assert_eq!(parse("a/b@main"), parse("a/b"), "the default revision has one name");
    }

    #[test]
    fn bad_forms() {
        let long = "x".repeat(97);
        let bad = [
            "",
            "/",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a/.b",
            "a/-b",
            "a/b.",
            "a/b:",
            "a/b@",
            "a/b@x/y",
            "a/b:../x.gguf",
            "a/b:/x.gguf",
            "a/b:x//y.gguf",
            "a/b:.gguf",
            "a/b@x@y",
            "a/b@x:Q4@y",
            "a/b:Q4:Q5",
            "a b/c",
            "a/b\0",
            "a/b\n",
            "ä/b",
            "a\\b/c",
            "a/b?x",
            "a/b#x",
            "a/%2e%2e",
            "a/b:Q4/K",
            "a/b..c",
            &format!("a/{long}"),
            &format!("{long}/a"),
        ];
        for text in bad {
            let error = Reference::parse(text).expect_err(text);
            assert!(error.to_string().contains("ORG/NAME"), "{error}");
        }
    }

    #[test]
    fn long_texts_are_cut_in_messages() {
        let error = Reference::parse(&"é/".repeat(1 << 20)).unwrap_err();
        assert!(error.to_string().len() < 600);
    }
}
