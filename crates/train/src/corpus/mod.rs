//! Corpora that this repository generates: their origin is known to the last token.
//!
//! A corpus is endless and seeded: document `i` is a pure function of the seed and `i`, so that any thread can make any
//! part of it, in any order, with the same result.

use std::collections::BTreeMap;

use text::Segment;

/// A document, without begin and end tokens (packing puts them around each).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its text. Trusted segments may hold special tokens; what a generator or a file says is untrusted.
    pub segments: Vec<Segment>,
    /// What sort of document it is, such as `countdown/3`; counted in the manifest.
    pub kind: &'static str,
}

/// An endless seeded corpus.
pub trait Source: Send + Sync {
    /// The name by which recipes ask for it.
    fn name(&self) -> &'static str;

    /// One sentence for the manifest: what it is and how it was made.
    fn origin(&self) -> String;

    /// The document of this number: a pure function of the seed and the number.
    fn document(&self, index: u64) -> Document;
}

/// The names that [`open`] knows.
pub const NAMES: &[&str] = &[];

/// The corpus of a name, with the options of the recipe's source table.
///
/// # Errors
/// One sentence, if there is no such corpus, no such option, or a value is out of range.
pub fn open(name: &str, _seed: u64, _options: &BTreeMap<String, f64>) -> Result<Box<dyn Source>, String> {
    Err(format!("there is no corpus {name:?}; known are: {}", NAMES.join(", ")))
}
