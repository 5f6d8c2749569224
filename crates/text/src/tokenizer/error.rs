//! What can be wrong with a tokenizer, and with a text for it.

use std::path::PathBuf;

/// Why a tokenizer could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is larger than any known tokenizer.
    #[error("{what} has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// The file or field.
        what: String,
        /// Its size.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// A file is not the JSON that it should be.
    #[error("{file} is not valid: {reason}")]
    Json {
        /// The file.
        file: String,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A component that this tokenizer does not implement. Guessing would give wrong tokens.
    #[error("{part} \"{name}\" is not supported (supported: {known})")]
    Unsupported {
        /// Which part of the tokenizer, such as `normalizer`.
        part: &'static str,
        /// What the file asks for.
        name: String,
        /// What is implemented.
        known: String,
    },
    /// A vocabulary that contradicts itself.
    #[error("vocabulary: {0}")]
    Vocabulary(String),
    /// A merge that names a token which is not in the vocabulary.
    #[error("merge {index}: {reason}")]
    Merge {
        /// The position in the list of merges.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A pattern that cannot be searched for in linear time, or is no pattern at all.
    #[error("pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern, shortened.
        pattern: String,
        /// Why it is refused.
        reason: String,
    },
}

/// Why a text could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The text is longer than positions are counted.
    #[error("the text has {bytes} bytes; the limit is {limit}")]
    TooLong {
        /// Its size.
        bytes: usize,
        /// The longest text that is encoded.
        limit: usize,
    },
    /// The tokenizer's normalizers make the text many times longer.
    #[error("the tokenizer's rules make the text grow from {from} to more than {limit} bytes")]
    Growth {
        /// The size of the text.
        from: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// The tokenizer's pattern needs more than linear time on this text.
    #[error("the tokenizer's pattern {pattern:?} looks at each byte of this text more than {limit} times on average")]
    SlowPattern {
        /// The pattern, shortened.
        pattern: String,
        /// The most looks per byte.
        limit: usize,
    },
}

/// A text shortened for an error message.
pub(crate) fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 {
        return text.to_string();
    }
    text.chars().take(79).chain(['…']).collect()
}
