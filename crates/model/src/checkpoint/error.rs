//! Why a model cannot be opened.

use std::io;
use std::path::PathBuf;

use super::gguf::GgufError;
use super::safetensors::{IndexError, SafetensorsError};

/// Why a model cannot be opened, in one sentence that names the file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum CheckpointError {
    /// The system refused: no such file, no permission, a loop of symbolic links.
    #[error("{}: cannot be opened: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: is a {what}, not a regular file", .path.display())]
    NotAFile { path: PathBuf, what: &'static str },
    #[error("{}: is neither a directory nor a .gguf or .safetensors file", .path.display())]
    UnknownExtension { path: PathBuf },
    #[error("{}: the directory holds no model: neither config.json with .safetensors files nor a .gguf file", .path.display())]
    NoModel { path: PathBuf },
    #[error("{}: no config.json beside the .safetensors files, so nothing says what model it is", .path.display())]
    NoConfig { path: PathBuf },
    #[error("{}: there is a config.json but no .safetensors or .gguf file: the weights are missing", .path.display())]
    NoWeights { path: PathBuf },
    #[error("{}: the weights are PyTorch files ({example}), which can run code when they are read and are \
             not supported; save the model as safetensors or convert it to GGUF", .path.display())]
    PyTorch { path: PathBuf, example: String },
    #[error("{}: the directory holds several GGUF models ({names}); name one of the files", .path.display())]
    SeveralModels { path: PathBuf, names: String },
    #[error("{}: is a Git LFS pointer of {size} bytes, not the file itself; fetch it with `git lfs pull` or \
             download it again", .path.display())]
    LfsPointer { path: PathBuf, size: u64 },
    #[error("{}: is {size} bytes long; the limit for this file is {limit} bytes", .path.display())]
    TooLong { path: PathBuf, size: u64, limit: u64 },
    #[error("{}: is not valid JSON: {source}", .path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: holds a JSON {found}; an object was expected", .path.display())]
    ConfigNotObject { path: PathBuf, found: &'static str },
    #[error("{}: {source}", .path.display())]
    Index { path: PathBuf, source: IndexError },
    #[error("{}: {source}", .path.display())]
    Gguf { path: PathBuf, source: GgufError },
    #[error("{}: {source}", .path.display())]
    Safetensors { path: PathBuf, source: SafetensorsError },
    #[error("{}: tensor `{tensor}` is also in {}", .path.display(), .other.display())]
    DuplicateTensor { path: PathBuf, other: PathBuf, tensor: String },
    #[error("{}: does not hold tensor `{tensor}`, which {} says is there", .path.display(), .index.display())]
    NotInShard { path: PathBuf, index: PathBuf, tensor: String },
    #[error("{}: the file that {} names is missing", .path.display(), .index.display())]
    ShardMissing { path: PathBuf, index: PathBuf },
    #[error("{}: part {part} of {count} of the split model is missing", .path.display())]
    PartMissing { path: PathBuf, part: u32, count: u32 },
    #[error("{}: split.count says that this is one of {count} parts, but the file is not named \
             NAME-00001-of-{count:05}.gguf, so the others cannot be found", .path.display())]
    PartName { path: PathBuf, count: u32 },
    #[error("{}: {key} is {found}; {expected} was expected of this part of a split model", .path.display())]
    PartField { path: PathBuf, key: &'static str, found: String, expected: String },
    #[error("{}: the parts of the split model hold {found} tensors; split.tensors.count says {expected}", .path.display())]
    PartTensors { path: PathBuf, found: usize, expected: u32 },
}
