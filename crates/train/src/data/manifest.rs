//! What a training set is made of: for each source its origin, licence, hash, documents, tokens and epochs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The manifest of a prepared set; it travels into the model card.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Manifest {
    /// What the set was made from, as one hash: sources, their settings, tokenizer, sequence length, seed.
    pub fingerprint: String,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// The tokenizer's hash.
    pub tokenizer_sha256: String,
    /// Tokens in its vocabulary.
    pub vocabulary: usize,
    /// The sources, in the order of the recipe.
    pub sources: Vec<SourceEntry>,
    /// The packed sets by name: `main`, `decay` and `held-out`.
    pub sets: BTreeMap<String, SetEntry>,
    /// In an exported model: the manifest of the model that this training began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Manifest>>,
}

/// What one source gave.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct SourceEntry {
    /// Its name in the recipe.
    pub name: String,
    /// Where it comes from.
    pub origin: String,
    /// Its licence.
    pub licence: String,
    /// The files, where it has some.
    pub files: Vec<FileEntry>,
    /// Hash of the text of all documents that were kept, in order.
    pub text_sha256: String,
    /// Documents that were kept for training.
    pub documents: u64,
    /// Documents that were held out.
    pub held_out_documents: u64,
    /// Bytes of text of the training documents, each counted once.
    pub text_bytes: u64,
    /// Tokens of the training documents, each counted once.
    pub tokens: u64,
    /// Tokens that the main part learns from, repeats included.
    pub main_tokens: u64,
    /// Tokens that the last part learns from, repeats included.
    pub decay_tokens: u64,
    /// How often each document occurs in a pass through both parts, on average.
    pub epochs: f64,
    /// Documents that were dropped because an equal one was there.
    pub repeated: u64,
    /// Documents that were dropped because a nearly equal one was there.
    pub nearly_repeated: u64,
    /// Lines or rows that could not be read.
    pub broken: u64,
    /// The first of them, for people.
    pub first_broken: Option<String>,
    /// Documents by kind.
    pub kinds: BTreeMap<String, u64>,
}

/// A file that was read.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct FileEntry {
    /// Its path, as the recipe has it.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash.
    pub sha256: String,
}

/// A packed set.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct SetEntry {
    /// Sequences.
    pub rows: u64,
    /// Tokens that are learned (or measured, of held-out data).
    pub learned: u64,
    /// Share of the places of all sequences that padding fills.
    pub padding_share: f64,
    /// Hash of the file of sequences.
    pub sha256: String,
    /// Hash of its index.
    pub index_sha256: String,
}

impl Manifest {
    /// The hash of everything that the manifest says.
    pub fn sha256(&self) -> String {
        crate::files::sha256(&serde_json::to_vec(self).unwrap_or_default())
    }
}
