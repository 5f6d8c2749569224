//! Reading GGUF, versions 2 and 3, little-endian (`docs/gguf.md` of the ggml project).
//!
//! Header, metadata and tensor list are read in one pass; no count or length is believed before the
//! bytes that it needs are known to exist, and nothing is allocated for it before. Tensors may lie
//! in any order and with gaps, but each inside the file, aligned, and apart from all others.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;

use kernels::bytes::Bytes;
use kernels::format::Format;

use super::metadata::{FromItem, Metadata, Value, ValueType};
use super::{Dtype, Tensor, show};

/// Tensors have at most this many dimensions.
pub(super) const MAX_DIMS: usize = 4;
/// Arrays of arrays are at most this deep; no known file goes past two.
const MAX_DEPTH: usize = 4;
/// Bytes of a key or tensor name, at most (the format's own limit for keys).
pub(super) const MAX_NAME_BYTES: usize = 65_535;
/// Tensor data starts at multiples of this unless `general.alignment` says otherwise.
pub(super) const DEFAULT_ALIGNMENT: u32 = 32;
/// The fewest bytes of a metadata entry: key length, type, value.
const MIN_ENTRY_BYTES: usize = 13;
/// The fewest bytes of a tensor's entry: name length, dimension count, type, offset.
const MIN_TENSOR_BYTES: usize = 24;

/// A parsed GGUF file.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// Hyperparameters and tokenizer.
    pub metadata: Metadata,
    /// The tensors in the order of the file's list, names unique.
    pub tensors: Vec<Tensor>,
}

/// Why bytes are not a GGUF file that can be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum GgufError {
    #[error("is not a GGUF file: it starts with \"{found}\", not \"GGUF\"")]
    Magic { found: String },
    #[error("is a big-endian GGUF file; only little-endian files are supported")]
    BigEndian,
    #[error("has GGUF version {version}; versions 2 and 3 are supported")]
    Version { version: u32 },
    #[error("is truncated: {field} at byte {at} needs {need} bytes, but {remaining} remain")]
    Truncated { field: String, at: usize, need: u64, remaining: usize },
    #[error(
        "declares {count} {what} at byte {at}, which take at least {each} bytes each, but {remaining} bytes remain"
    )]
    Count { what: String, at: usize, count: u64, each: usize, remaining: usize },
    #[error("{field} at byte {at} is {length} bytes long; the limit is {limit}")]
    NameLength { field: String, at: usize, length: u64, limit: usize },
    #[error("{field} at byte {at} is not UTF-8: \"{found}\"")]
    Utf8 { field: String, at: usize, found: String },
    #[error("metadata key `{key}` occurs twice, the second time at byte {at}")]
    DuplicateKey { key: String, at: usize },
    #[error("{field} at byte {at} has type {id}; the types of GGUF are 0 to 12")]
    ValueType { field: String, at: usize, id: u32 },
    #[error("{field} at byte {at} is a bool with the value {found}; 0 and 1 are allowed")]
    BoolValue { field: String, at: usize, found: u8 },
    #[error("{field} at byte {at} is an array inside more than {limit} arrays")]
    Depth { field: String, at: usize, limit: usize },
    #[error("general.alignment is {found}; a u32 that is a power of two and at least 8 was expected")]
    Alignment { found: String },
    #[error("tensor `{tensor}` occurs twice in the list of tensors, the second time at byte {at}")]
    DuplicateTensor { tensor: String, at: usize },
    #[error("tensor `{tensor}` has {dims} dimensions; the limit is {limit}")]
    Dims { tensor: String, dims: u32, limit: usize },
    #[error("tensor `{tensor}` has type {id} ({name}), which is not supported")]
    TensorType { tensor: String, id: u32, name: &'static str },
    #[error(
        "tensor `{tensor}` has rows of {cols} elements; {dtype} stores blocks of {block}, which rows must be a multiple of"
    )]
    RowLength { tensor: String, cols: u64, dtype: Dtype, block: usize },
    #[error("tensor `{tensor}` of shape {shape:?} in {dtype} is larger than the address space")]
    TooLarge { tensor: String, shape: Vec<u64>, dtype: Dtype },
    #[error(
        "tensor `{tensor}` starts at offset {offset} of the data, which is not a multiple of the alignment, {alignment}"
    )]
    Misaligned { tensor: String, offset: u64, alignment: u32 },
    #[error(
        "tensor `{tensor}` lies outside the file: {size} bytes at offset {offset} of the data, which is {available} bytes long \
             (is the file complete?)"
    )]
    OutsideFile { tensor: String, offset: u64, size: usize, available: usize },
    #[error(
        "tensors `{first}` and `{second}` overlap: the second starts at offset {offset} of the data, {bytes} bytes before the \
             first ends"
    )]
    Overlap { first: String, second: String, offset: usize, bytes: usize },
}

/// Parses a whole GGUF file. The tensors and arrays of the result are views into `bytes`.
///
/// # Errors
/// If the bytes are not a GGUF file, or any number in it does not fit the others.
pub fn parse(bytes: &Bytes) -> Result<Gguf, GgufError> {
    let mut cursor = Cursor { bytes, at: 0 };
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.count(Field::Header("the tensor count"), "tensors", MIN_TENSOR_BYTES)?;
    let entry_count = cursor.count(Field::Header("the metadata count"), "metadata entries", MIN_ENTRY_BYTES)?;
    let metadata = read_metadata(&mut cursor, entry_count)?;
    let alignment = alignment(&metadata)?;
    let infos = read_infos(&mut cursor, tensor_count)?;
    let data_start = cursor.at.checked_next_multiple_of(alignment as usize).unwrap_or(usize::MAX);
    let ranges = locate(&infos, data_start, bytes.len(), alignment)?;
    check_overlaps(&infos, &ranges, data_start)?;
    let tensors = infos.into_iter().zip(ranges).map(|(info, range)| Tensor {
        name: info.name,
        dtype: info.dtype,
        shape: info.shape,
        data: bytes.slice(range),
    });
    Ok(Gguf { version, metadata, tensors: tensors.collect() })
}

/// The element type with ggml's number `id`, or the type's name if it is not supported.
fn dtype_of(id: u32) -> Result<Dtype, &'static str> {
    Ok(match id {
        0 => Dtype::Stored(Format::F32),
        1 => Dtype::Stored(Format::F16),
        2 => Dtype::Stored(Format::Q4_0),
        3 => Dtype::Stored(Format::Q4_1),
        6 => Dtype::Stored(Format::Q5_0),
        7 => Dtype::Stored(Format::Q5_1),
        8 => Dtype::Stored(Format::Q8_0),
        10 => Dtype::Stored(Format::Q2K),
        11 => Dtype::Stored(Format::Q3K),
        12 => Dtype::Stored(Format::Q4K),
        13 => Dtype::Stored(Format::Q5K),
        14 => Dtype::Stored(Format::Q6K),
        20 => Dtype::Stored(Format::Iq4Nl),
        23 => Dtype::Stored(Format::Iq4Xs),
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::Stored(Format::BF16),
        39 => Dtype::Stored(Format::Mxfp4),
        _ => return Err(unsupported_name(id)),
    })
}

/// The names of ggml's types that we do not read.
fn unsupported_name(id: u32) -> &'static str {
    match id {
        4 => "Q4_2, withdrawn by ggml",
        5 => "Q4_3, withdrawn by ggml",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        29 => "IQ1_M",
        31 => "Q4_0_4_4, withdrawn by ggml",
        32 => "Q4_0_4_8, withdrawn by ggml",
        33 => "Q4_0_8_8, withdrawn by ggml",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4, withdrawn by ggml",
        37 => "IQ4_NL_4_8, withdrawn by ggml",
        38 => "IQ4_NL_8_8, withdrawn by ggml",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => "unknown",
    }
}

/// ggml's number of an element type; `None` if GGUF has no such type.
pub(super) fn type_id(dtype: Dtype) -> Option<u32> {
    (0..=39).find(|&id| dtype_of(id) == Ok(dtype))
}

/// Checks magic and version. Version 1 had other length fields and is long gone.
fn read_version(cursor: &mut Cursor) -> Result<u32, GgufError> {
    let start = &cursor.bytes[..cursor.bytes.len().min(4)];
    if !b"GGUF".starts_with(start) || start.is_empty() {
        return Err(GgufError::Magic { found: show(start) });
    }
    cursor.take(4, Field::Header("the magic number"))?;
    match cursor.u32(Field::Header("the version"))? {
        version @ (2 | 3) => Ok(version),
        version if matches!(version.swap_bytes(), 1..=3) => Err(GgufError::BigEndian),
        version => Err(GgufError::Version { version }),
    }
}

fn read_metadata(cursor: &mut Cursor, count: u64) -> Result<Metadata, GgufError> {
    let mut values = BTreeMap::new();
    for index in 0..count {
        let at = cursor.at;
        let key = cursor.name(Field::Key(index))?;
        if values.contains_key(key) {
            return Err(GgufError::DuplicateKey { key: show(key.as_bytes()), at });
        }
        let value = cursor.value(Field::Value(key))?;
        values.insert(key.to_owned(), value);
    }
    Ok(Metadata::new(values))
}

fn alignment(metadata: &Metadata) -> Result<u32, GgufError> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match u32::from_item(value.item()) {
        Some(alignment) if value.kind() == ValueType::U32 && alignment >= 8 && alignment.is_power_of_two() => {
            Ok(alignment)
        }
        _ => Err(GgufError::Alignment { found: format!("{} (type {})", value.item(), value.kind()) }),
    }
}

/// An entry of the tensor list, its size already computed.
struct Info {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    size: usize,
    offset: u64,
}

fn read_infos(cursor: &mut Cursor, count: u64) -> Result<Vec<Info>, GgufError> {
    let mut infos = Vec::new();
    let mut names = HashSet::new();
    for index in 0..count {
        let at = cursor.at;
        let name = cursor.name(Field::Name(index))?;
        if !names.insert(name) {
            return Err(GgufError::DuplicateTensor { tensor: show(name.as_bytes()), at });
        }
        infos.push(read_info(cursor, name)?);
    }
    Ok(infos)
}

fn read_info(cursor: &mut Cursor, name: &str) -> Result<Info, GgufError> {
    let tensor = || show(name.as_bytes());
    let dims = cursor.u32(Field::Tensor(name, "the dimension count"))?;
    if dims as usize > MAX_DIMS {
        return Err(GgufError::Dims { tensor: tensor(), dims, limit: MAX_DIMS });
    }
    let mut stored = [0u64; MAX_DIMS];
    let stored = &mut stored[..dims as usize];
    for dim in stored.iter_mut() {
        *dim = cursor.u64(Field::Tensor(name, "a dimension"))?;
    }
    stored.reverse();
    let id = cursor.u32(Field::Tensor(name, "the type"))?;
    let dtype = dtype_of(id).map_err(|name| GgufError::TensorType { tensor: tensor(), id, name })?;
    let offset = cursor.u64(Field::Tensor(name, "the offset"))?;
    let cols = stored.last().copied().unwrap_or(1);
    let block = dtype.block().0;
    if !cols.is_multiple_of(block as u64) {
        return Err(GgufError::RowLength { tensor: tensor(), cols, dtype, block });
    }
    let too_large = || GgufError::TooLarge { tensor: tensor(), shape: stored.to_vec(), dtype };
    let shape: Result<Vec<usize>, _> = stored.iter().map(|&dim| usize::try_from(dim)).collect();
    let shape = shape.map_err(|_| too_large())?;
    let size = dtype.tensor_bytes(&shape).ok_or_else(too_large)?;
    Ok(Info { name: name.to_owned(), dtype, shape, size, offset })
}

/// The bytes of the file that each tensor takes.
fn locate(infos: &[Info], data_start: usize, file_len: usize, alignment: u32) -> Result<Vec<Range<usize>>, GgufError> {
    let place = |info: &Info| {
        let &Info { offset, size, .. } = info;
        let tensor = || show(info.name.as_bytes());
        if offset % u64::from(alignment) != 0 {
            return Err(GgufError::Misaligned { tensor: tensor(), offset, alignment });
        }
        let range = usize::try_from(offset).ok().and_then(|offset| {
            let start = data_start.checked_add(offset)?;
            let end = start.checked_add(size)?;
            (end <= file_len).then_some(start..end)
        });
        let available = file_len.saturating_sub(data_start);
        range.ok_or_else(|| GgufError::OutsideFile { tensor: tensor(), offset, size, available })
    };
    infos.iter().map(place).collect()
}

/// Refuses tensors that share bytes. Empty tensors share none, wherever they lie.
fn check_overlaps(infos: &[Info], ranges: &[Range<usize>], data_start: usize) -> Result<(), GgufError> {
    let mut order: Vec<usize> = (0..ranges.len()).filter(|&index| !ranges[index].is_empty()).collect();
    order.sort_unstable_by_key(|&index| (ranges[index].start, index));
    for pair in order.windows(2) {
        let (first, second) = (&ranges[pair[0]], &ranges[pair[1]]);
        if second.start < first.end {
            return Err(GgufError::Overlap {
                first: show(infos[pair[0]].name.as_bytes()),
                second: show(infos[pair[1]].name.as_bytes()),
                offset: second.start - data_start,
                bytes: first.end - second.start,
            });
        }
    }
    Ok(())
}

/// What is being read, for error messages; formatted only when there is an error.
#[derive(Clone, Copy)]
enum Field<'a> {
    Header(&'static str),
    Key(u64),
    Value(&'a str),
    Element(&'a str, u64),
    Name(u64),
    Tensor(&'a str, &'static str),
}

impl Field<'_> {
    /// The same key's element number `index`; inside nested arrays the innermost index is named.
    fn element(self, index: u64) -> Self {
        match self {
            Field::Value(key) | Field::Element(key, _) => Field::Element(key, index),
            other => other,
        }
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Header(what) => write!(f, "{what}"),
            Field::Key(index) => write!(f, "the key of metadata entry {index}"),
            Field::Value(key) => write!(f, "the value of metadata key `{}`", show(key.as_bytes())),
            Field::Element(key, index) => write!(f, "element {index} of metadata key `{}`", show(key.as_bytes())),
            Field::Name(index) => write!(f, "the name of tensor {index}"),
            Field::Tensor(name, what) => write!(f, "{what} of tensor `{}`", show(name.as_bytes())),
        }
    }
}

/// A reading position; never past the end of the bytes.
struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `need` bytes.
    fn take(&mut self, need: u64, field: Field) -> Result<&'a [u8], GgufError> {
        let remaining = self.remaining();
        if need > remaining as u64 {
            return Err(GgufError::Truncated { field: field.to_string(), at: self.at, need, remaining });
        }
        let start = self.at;
        self.at += need as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn u32(&mut self, field: Field) -> Result<u32, GgufError> {
        let bytes = self.take(4, field)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self, field: Field) -> Result<u64, GgufError> {
        let low = self.take(8, field)?;
        Ok(u64::from_le_bytes([low[0], low[1], low[2], low[3], low[4], low[5], low[6], low[7]]))
    }

    /// A count of things of at least `each` bytes, of which there must be enough.
    fn count(&mut self, field: Field, what: &str, each: usize) -> Result<u64, GgufError> {
        let at = self.at;
        let count = self.u64(field)?;
        let remaining = self.remaining();
        if count > (remaining / each) as u64 {
            return Err(GgufError::Count { what: what.to_owned(), at, count, each, remaining });
        }
        Ok(count)
    }

    /// A key or tensor name.
    fn name(&mut self, field: Field) -> Result<&'a str, GgufError> {
        let at = self.at;
        let length = self.u64(field)?;
        if length > MAX_NAME_BYTES as u64 {
            return Err(GgufError::NameLength { field: field.to_string(), at, length, limit: MAX_NAME_BYTES });
        }
        let bytes = self.take(length, field)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 {
            field: field.to_string(),
            at: at + 8,
            found: show(bytes),
        })
    }

    /// The number of a value type.
    fn value_type(&mut self, field: Field) -> Result<ValueType, GgufError> {
        let at = self.at;
        let id = self.u32(field)?;
        ValueType::from_id(id).ok_or_else(|| GgufError::ValueType { field: field.to_string(), at, id })
    }

    /// A type and a value of that type.
    fn value(&mut self, field: Field) -> Result<Value, GgufError> {
        match self.value_type(field)? {
            ValueType::String => {
                let length = self.u64(field)?;
                let start = self.at;
                self.take(length, field)?;
                Ok(Value::text(self.bytes.slice(start..self.at)))
            }
            ValueType::Array => {
                let (kind, len, range) = self.array(field, 1)?;
                Ok(Value::encoded_array(kind, len, self.bytes.slice(range)))
            }
            kind => {
                let at = self.at;
                let bytes = self.take(kind.min_bytes() as u64, field)?;
                check_bools(kind, bytes, field, at)?;
                Ok(Value::scalar(kind, bytes))
            }
        }
    }

    /// Checks an array and passes over it: its element type, its count, and where its elements lie.
    fn array(&mut self, field: Field, depth: usize) -> Result<(ValueType, usize, Range<usize>), GgufError> {
        if depth > MAX_DEPTH {
            return Err(GgufError::Depth { field: field.to_string(), at: self.at, limit: MAX_DEPTH });
        }
        let kind = self.value_type(field)?;
        let (count_at, each) = (self.at, kind.min_bytes());
        let count = self.u64(field)?;
        let remaining = self.remaining();
        if count > (remaining / each) as u64 {
            let what = format!("elements of type {kind} for {field}");
            return Err(GgufError::Count { what, at: count_at, count, each, remaining });
        }
        let start = self.at;
        match kind {
            ValueType::String => {
                for index in 0..count {
                    let length = self.u64(field.element(index))?;
                    self.take(length, field.element(index))?;
                }
            }
            ValueType::Array => {
                for index in 0..count {
                    self.array(field.element(index), depth + 1)?;
                }
            }
            _ => {
                let bytes = self.take(count * each as u64, field)?;
                check_bools(kind, bytes, field, start)?;
            }
        }
        Ok((kind, count as usize, start..self.at))
    }
}

/// Refuses bytes other than 0 and 1 where the type is bool.
fn check_bools(kind: ValueType, bytes: &[u8], field: Field, at: usize) -> Result<(), GgufError> {
    if kind != ValueType::Bool {
        return Ok(());
    }
    match bytes.iter().position(|&byte| byte > 1) {
        None => Ok(()),
        Some(index) => Err(GgufError::BoolValue { field: field.to_string(), at: at + index, found: bytes[index] }),
    }
}
