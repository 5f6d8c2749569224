//! Model files: opened, checked once, and handed on as named tensors.
//!
//! A [`Checkpoint`] is a Hugging Face directory (config.json beside safetensors files) or a GGUF
//! file, in one part or split. Its weights are views into the mapped files, in the format in which
//! they are stored; nothing is copied, so opening costs as much as reading the headers.
//!
//! A model file is hostile until it is parsed. Every count, length, offset and product is checked
//! before it is used or allocated, and what is wrong is a typed error that names the file, the
//! field or tensor, the value and the limit. After opening, each [`Tensor`] holds exactly the bytes
//! that its type and shape ask for, no name occurs twice, and no two tensors share a byte.
//!
//! The parsers ([`gguf::parse`], [`safetensors::parse`]) take bytes and do no I/O; [`Checkpoint::open`]
//! finds and maps the files. [`GgufWriter`] writes GGUF, a tensor at a time.

mod dtype;
mod error;
pub mod gguf;
mod metadata;
mod open;
pub mod safetensors;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use kernels::bytes::Bytes;

pub use dtype::Dtype;
pub use error::CheckpointError;
pub use metadata::{Array, FromItem, Item, Metadata, MetadataError, Value, ValueType};
pub use writer::{GgufSink, GgufWriteError, GgufWriter};

/// A named array in a model file.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The name in the file.
    pub name: String,
    /// How the elements are stored.
    pub dtype: Dtype,
    /// Outermost dimension first, the contiguous one last. GGUF's order is turned round.
    pub shape: Vec<usize>,
    /// The stored bytes: exactly as many as `dtype` and `shape` ask for. The format decides their
    /// alignment (GGUF: `general.alignment`; safetensors: none is promised).
    pub data: Bytes,
}

/// What describes the model beside its tensors.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory as Hugging Face writes it.
    HuggingFace {
        /// The parsed config.json.
        config: serde_json::Value,
        /// The directory, which also holds the tokenizer.
        directory: PathBuf,
    },
    /// A GGUF file; of a split set, the metadata of the first part.
    Gguf {
        /// Hyperparameters and tokenizer.
        metadata: Metadata,
    },
}

/// An opened model.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The kind of file, with what it says of the model.
    pub kind: Kind,
    /// Every tensor of every file.
    pub tensors: Tensors,
    /// The files that the tensors lie in, in reading order.
    pub files: Vec<PathBuf>,
    /// What is odd but harmless, each one sentence for the user.
    pub notices: Vec<String>,
}

impl Checkpoint {
    /// Opens the model at `path`: a Hugging Face directory, a directory that holds one GGUF file or
    /// one split set, a `.gguf` file (of a split set, any part), or a `.safetensors` file beside its
    /// config.json.
    ///
    /// # Errors
    /// If there is no model at `path`, or one that is damaged, incomplete or not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
        open::open(path.as_ref())
    }

    /// Opens a whole GGUF file that is already in memory; `label` stands for the file in errors.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; one part of a split set is refused.
    pub fn from_gguf(label: impl Into<PathBuf>, bytes: Bytes) -> Result<Checkpoint, CheckpointError> {
        open::from_gguf(label.into(), bytes)
    }

    /// The file that holds the tensor `name`, if there is such a tensor.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        let index = *self.tensors.index.get(name)?;
        Some(&self.files[self.tensors.file[index]])
    }
}

/// Tensors by name, and in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Tensors {
    list: Vec<Tensor>,
    /// For each tensor the index of its file.
    file: Vec<usize>,
    /// The standard hasher: names come from files, and colliding ones must not cost time.
    index: HashMap<String, usize>,
}

impl Tensors {
    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&index| &self.list[index])
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The tensors in the order of the files, and within a file in the order of its header (GGUF)
    /// or data (safetensors).
    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.list.iter()
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none, as in a GGUF that holds only a tokenizer.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a tensor of file number `file`; the index of the tensor of that name, if there is one.
    pub(crate) fn insert(&mut self, tensor: Tensor, file: usize) -> Result<(), usize> {
        if let Some(&index) = self.index.get(&tensor.name) {
            return Err(index);
        }
        self.index.insert(tensor.name.clone(), self.list.len());
        self.list.push(tensor);
        self.file.push(file);
        Ok(())
    }
}

impl<'a> IntoIterator for &'a Tensors {
    type Item = &'a Tensor;
    type IntoIter = std::slice::Iter<'a, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A name or text from a file, made fit for an error message: one line, no control characters, at
/// most about 80 characters.
fn show(text: &[u8]) -> String {
    let mut shown = String::new();
    for c in String::from_utf8_lossy(&text[..text.len().min(320)]).chars() {
        shown.extend(c.escape_debug());
        if shown.len() >= 80 {
            shown.push('…');
            break;
        }
    }
    shown
}
