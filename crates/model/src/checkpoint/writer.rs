//! Writing GGUF version 3, a tensor at a time.
//!
//! Metadata and the list of tensors come first ([`GgufWriter`]); then the data is appended in the
//! order of the list ([`GgufSink`]), in pieces of any size, so that a conversion of any size holds no
//! more than the rows at hand. The file is written under a temporary name beside its final one and
//! renamed when it is complete and on disk: there is never half a model under the final name.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::gguf::{DEFAULT_ALIGNMENT, MAX_DIMS, MAX_NAME_BYTES, type_id};
use super::metadata::Value;
use super::{Dtype, show};

/// Tensor names of up to 63 bytes are what ggml reads.
const MAX_TENSOR_NAME_BYTES: usize = 63;
const BUFFER_BYTES: usize = 1 << 20;

/// Why a GGUF file cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum GgufWriteError {
    #[error("{}: cannot be written: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("metadata key `{key}` is {length} bytes long; 1 to {limit} are allowed")]
    KeyLength { key: String, length: usize, limit: usize },
    #[error("metadata key `{key}` is given twice")]
    DuplicateKey { key: String },
    #[error("metadata key `general.alignment` is set by the writer")]
    Alignment,
    #[error("the name of tensor `{tensor}` is {length} bytes long; 1 to {limit} are allowed")]
    NameLength { tensor: String, length: usize, limit: usize },
    #[error("tensor `{tensor}` is planned twice")]
    DuplicateTensor { tensor: String },
    #[error("tensor `{tensor}` has {dims} dimensions; the limit is {limit}")]
    Dims { tensor: String, dims: usize, limit: usize },
    #[error("tensor `{tensor}` is of type {dtype}, which GGUF does not have")]
    TensorType { tensor: String, dtype: Dtype },
    #[error(
        "tensor `{tensor}` of shape {shape:?} cannot be stored in {dtype}: its rows must be a multiple of {block} elements, and \
             its size fit the address space"
    )]
    Shape { tensor: String, shape: Vec<usize>, dtype: Dtype, block: usize },
    #[error("{}: data was given for tensor `{given}`, but {expected} is next", .path.display())]
    Order { path: PathBuf, given: String, expected: String },
    #[error("{}: {given} more bytes were given for tensor `{tensor}`, which lacks only {missing}", .path.display())]
    TooMuch { path: PathBuf, tensor: String, given: usize, missing: usize },
    #[error("{}: not complete: tensor `{tensor}` lacks {missing} bytes", .path.display())]
    Incomplete { path: PathBuf, tensor: String, missing: usize },
}

/// A tensor that will be written.
#[derive(Clone, Debug)]
struct Planned {
    name: String,
    dtype: Dtype,
    type_id: u32,
    shape: Vec<usize>,
    size: usize,
}

/// The plan of a GGUF file: its metadata and the list of its tensors.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, Value)>,
    keys: HashSet<String>,
    tensors: Vec<Planned>,
    names: HashSet<String>,
}

impl GgufWriter {
    /// An empty plan.
    pub fn new() -> GgufWriter {
        GgufWriter::default()
    }

    /// Adds a metadata entry; entries are written in the order in which they are added. Values are
    /// made from numbers, bools, strings and slices of them, or taken from another file's metadata.
    ///
    /// # Errors
    /// If the key is given twice, is empty or too long, or is `general.alignment`.
    pub fn metadata(&mut self, key: &str, value: impl Into<Value>) -> Result<(), GgufWriteError> {
        if key.is_empty() || key.len() > MAX_NAME_BYTES {
            let (length, limit) = (key.len(), MAX_NAME_BYTES);
            return Err(GgufWriteError::KeyLength { key: show(key.as_bytes()), length, limit });
        }
        if key == "general.alignment" {
            return Err(GgufWriteError::Alignment);
        }
        if !self.keys.insert(key.to_owned()) {
            return Err(GgufWriteError::DuplicateKey { key: show(key.as_bytes()) });
        }
        self.metadata.push((key.to_owned(), value.into()));
        Ok(())
    }

    /// Plans a tensor, with its outermost dimension first. The data must be given in the order of
    /// these calls.
    ///
    /// # Errors
    /// If GGUF cannot hold the tensor: its name (63 bytes at most), its dimensions (4 at most), its
    /// type, or rows that are not whole blocks.
    pub fn tensor(&mut self, name: &str, shape: &[usize], dtype: impl Into<Dtype>) -> Result<(), GgufWriteError> {
        let dtype = dtype.into();
        let tensor = || show(name.as_bytes());
        if name.is_empty() || name.len() > MAX_TENSOR_NAME_BYTES {
            let (length, limit) = (name.len(), MAX_TENSOR_NAME_BYTES);
            return Err(GgufWriteError::NameLength { tensor: tensor(), length, limit });
        }
        if shape.len() > MAX_DIMS {
            return Err(GgufWriteError::Dims { tensor: tensor(), dims: shape.len(), limit: MAX_DIMS });
        }
        let type_id = type_id(dtype).ok_or_else(|| GgufWriteError::TensorType { tensor: tensor(), dtype })?;
        let size = dtype.tensor_bytes(shape).ok_or_else(|| GgufWriteError::Shape {
            tensor: tensor(),
            shape: shape.to_vec(),
            dtype,
            block: dtype.block().0,
        })?;
        if !self.names.insert(name.to_owned()) {
            return Err(GgufWriteError::DuplicateTensor { tensor: tensor() });
        }
        self.tensors.push(Planned { name: name.to_owned(), dtype, type_id, shape: shape.to_vec(), size });
        Ok(())
    }

    /// The size of the tensor data in bytes, with padding.
    pub fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| padded(tensor.size as u64)).sum()
    }

    /// Starts the file that will be called `path`: writes everything before the data.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn start(self, path: impl AsRef<Path>) -> Result<GgufSink, GgufWriteError> {
        let header = self.header();
        let path = path.as_ref().to_path_buf();
        let (temporary, file) =
            create_temporary(&path).map_err(|source| GgufWriteError::Io { path: path.clone(), source })?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut sink = GgufSink { path, temporary: Some(temporary), out, plan: self.tensors, next: 0, given: 0 };
        sink.put(&header)?;
        sink.pad(header.len())?;
        sink.skip_empty();
        Ok(sink)
    }

    /// Everything before the data, without the padding after it.
    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        let put_text = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        for (key, value) in &self.metadata {
            put_text(&mut out, key);
            out.extend_from_slice(&(value.kind() as u32).to_le_bytes());
            value.encode(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            put_text(&mut out, &tensor.name);
            out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for &dim in tensor.shape.iter().rev() {
                out.extend_from_slice(&(dim as u64).to_le_bytes());
            }
            out.extend_from_slice(&tensor.type_id.to_le_bytes());
            out.extend_from_slice(&u64::to_le_bytes(offset));
            offset += padded(tensor.size as u64);
        }
        out
    }
}

/// A GGUF file that is being written. If it is dropped before [`GgufSink::finish`], nothing remains.
#[derive(Debug)]
pub struct GgufSink {
    path: PathBuf,
    /// `None` once the file has its final name.
    temporary: Option<PathBuf>,
    out: BufWriter<File>,
    plan: Vec<Planned>,
    /// The tensor whose data is due, and how much of it was given.
    next: usize,
    given: usize,
}

impl GgufSink {
    /// The tensor whose data is due (its name, shape and type) and how many of its bytes are
    /// missing; `None` when all are written.
    pub fn due(&self) -> Option<(&str, &[usize], Dtype, usize)> {
        let tensor = self.plan.get(self.next)?;
        Some((&tensor.name, &tensor.shape, tensor.dtype, tensor.size - self.given))
    }

    /// Appends bytes (rows, or any other piece) to the data of the tensor that is due, which must
    /// be `name`. When it is complete the next one is due. Tensors without elements are never due.
    ///
    /// # Errors
    /// If another tensor is due, the bytes are too many, or the file cannot be written.
    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), GgufWriteError> {
        let due = self.plan.get(self.next).filter(|tensor| tensor.name == name);
        let Some(tensor) = due else {
            let expected = self.plan.get(self.next).map(|tensor| format!("`{}`", show(tensor.name.as_bytes())));
            let expected = expected.unwrap_or_else(|| "the end of the file".to_owned());
            return Err(GgufWriteError::Order { path: self.path.clone(), given: show(name.as_bytes()), expected });
        };
        let (size, missing) = (tensor.size, tensor.size - self.given);
        if bytes.len() > missing {
            let (path, tensor) = (self.path.clone(), show(name.as_bytes()));
            return Err(GgufWriteError::TooMuch { path, tensor, given: bytes.len(), missing });
        }
        self.put(bytes)?;
        self.given += bytes.len();
        if self.given == size {
            self.pad(size)?;
            (self.next, self.given) = (self.next + 1, 0);
            self.skip_empty();
        }
        Ok(())
    }

    /// Completes the file: everything on disk, then the final name.
    ///
    /// # Errors
    /// If data is missing or the file cannot be written; then nothing remains.
    pub fn finish(mut self) -> Result<(), GgufWriteError> {
        if let Some((name, _, _, missing)) = self.due() {
            let tensor = show(name.as_bytes());
            return Err(GgufWriteError::Incomplete { path: self.path.clone(), tensor, missing });
        }
        self.publish().map_err(|source| self.io_error(source))
    }

    fn publish(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path)?;
        }
        self.temporary = None;
        // The new name must outlive a power cut too. Not every system can sync a directory.
        if cfg!(unix) {
            File::open(parent(&self.path))?.sync_all()?;
        }
        Ok(())
    }

    fn skip_empty(&mut self) {
        while self.plan.get(self.next).is_some_and(|tensor| tensor.size == 0) {
            self.next += 1;
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), GgufWriteError> {
        self.out.write_all(bytes).map_err(|source| self.io_error(source))
    }

    /// Pads what was `len` bytes long to the alignment.
    fn pad(&mut self, len: usize) -> Result<(), GgufWriteError> {
        let zeros = [0; DEFAULT_ALIGNMENT as usize];
        let len = len as u64;
        self.put(&zeros[..(padded(len) - len) as usize])
    }

    fn io_error(&self, source: io::Error) -> GgufWriteError {
        GgufWriteError::Io { path: self.path.clone(), source }
    }
}

impl Drop for GgufSink {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nothing can be done about a failure here, and the name says what the file is.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn padded(len: u64) -> u64 {
    len.next_multiple_of(u64::from(DEFAULT_ALIGNMENT))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a new file beside `path`, under a name that no one else uses and no reader opens.
fn create_temporary(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    for attempt in 0..100 {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{attempt}.partial", std::process::id()));
        let temporary = parent(path).join(hidden);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}
