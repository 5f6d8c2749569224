//! Reading safetensors files and the index of a sharded model.
//!
//! A safetensors file is an 8-byte header length, a JSON header and the data; its tensors lie one
//! after another without gap or overlap to the end of the file. The header is read here and not by
//! the format's own crate for three reasons: errors name the tensor and the field, a name that
//! occurs twice is refused (a JSON map keeps the last one silently), and no sum can overflow. What
//! this parser accepts, the crate accepts; tests and the fuzz target hold it to that.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Component, Path};

use ::safetensors::Dtype as Stored;
use kernels::bytes::Bytes;
use kernels::format::Format;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::{Dtype, Tensor, show};

/// The header is at most this long, by the format's definition.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The header's length stands in this many bytes before it.
const LENGTH_BYTES: usize = 8;

/// A parsed safetensors file.
#[derive(Clone, Debug)]
pub struct Safetensors {
    /// The tensors in the order of their data, names unique.
    pub tensors: Vec<Tensor>,
    /// The free-form `__metadata__` of the header.
    pub metadata: BTreeMap<String, String>,
}

/// Why bytes are not a safetensors file that can be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum SafetensorsError {
    #[error("is {size} bytes long; a safetensors file starts with 8 bytes of header length")]
    TooShort { size: usize },
    #[error("declares a header of {length} bytes; the limit is {MAX_HEADER_BYTES}")]
    HeaderTooLong { length: u64 },
    #[error("is truncated or not a safetensors file: the header length is {length} bytes, but {remaining} remain")]
    HeaderTruncated { length: u64, remaining: usize },
    #[error("has a header that starts with \"{found}\" and not with a JSON object")]
    HeaderStart { found: String },
    #[error("has a header that is not UTF-8 from byte {at}")]
    HeaderUtf8 { at: usize },
    #[error("has a damaged header at {place}: {reason}")]
    Header { place: String, reason: String },
    #[error("tensor `{tensor}` has dtype {dtype}, which is not supported")]
    UnsupportedDtype { tensor: String, dtype: String },
    #[error("tensor `{tensor}` of shape {shape:?} in {dtype} is larger than the address space")]
    TooLarge { tensor: String, shape: Vec<usize>, dtype: Dtype },
    #[error("tensor `{tensor}` has data_offsets [{start}, {end}], of which the second is below the first")]
    OffsetsReversed { tensor: String, start: u64, end: u64 },
    #[error(
        "tensor `{tensor}` has data_offsets [{start}, {end}], which are {given} bytes; shape {shape:?} in {dtype} takes {needed}"
    )]
    Size { tensor: String, start: u64, end: u64, given: u64, shape: Vec<usize>, dtype: Dtype, needed: usize },
    #[error(
        "tensor `{tensor}` starts at offset {start} of the data; the tensors before it end at {expected}, and there must be \
             neither gap nor overlap"
    )]
    NotAdjacent { tensor: String, start: u64, expected: u64 },
    #[error("has {available} bytes of tensor data, but its tensors end at {end} (is the file complete?)")]
    DataLength { end: u64, available: usize },
}

/// Parses a whole safetensors file. The tensors of the result are views into `bytes`.
///
/// # Errors
/// If the bytes are not a safetensors file, or any number in it does not fit the others.
pub fn parse(bytes: &Bytes) -> Result<Safetensors, SafetensorsError> {
    let header = header(bytes)?;
    let data_start = LENGTH_BYTES + header.len();
    let Header { mut entries, metadata } = read_header(header)?;
    // A stable order for tensors without bytes: those come first, in the order of the header.
    entries.sort_by_key(|(_, entry)| (entry.start, entry.end));
    let mut expected = 0;
    let mut tensors = Vec::new();
    for (name, entry) in entries {
        let (dtype, shape) = check_entry(&name, &entry, expected)?;
        let Entry { start, end, .. } = entry;
        expected = end;
        let available = bytes.len() - data_start;
        if end > available as u64 {
            return Err(SafetensorsError::DataLength { end, available });
        }
        let data = bytes.slice(data_start + start as usize..data_start + end as usize);
        tensors.push(Tensor { name, dtype, shape, data });
    }
    let available = bytes.len() - data_start;
    if expected != available as u64 {
        return Err(SafetensorsError::DataLength { end: expected, available });
    }
    Ok(Safetensors { tensors, metadata })
}

/// Why an index file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum IndexError {
    #[error("is not a usable index at {place}: {reason}")]
    Json { place: String, reason: String },
    #[error("has no weight_map")]
    NoWeightMap,
    #[error(
        "puts tensor `{tensor}` in \"{file}\"; the plain name of a .safetensors file in the same directory was expected"
    )]
    FileName { tensor: String, file: String },
}

/// Parses a `model.safetensors.index.json`: the (tensor, file) pairs of its `weight_map`, in its
/// order. Each file is a plain name, so that it lies in the directory of the index.
///
/// # Errors
/// If it is not such a file, names a tensor twice, or names a file by a path.
pub fn parse_index(json: &[u8]) -> Result<Vec<(String, String)>, IndexError> {
    let place = Place::default();
    let mut json = serde_json::Deserializer::from_slice(json);
    let index = Object { what: "an object with a weight_map", place: &place, read: IndexReader::default() };
    let result = index.deserialize(&mut json).and_then(|index| json.end().map(|()| index));
    let index = result.map_err(|error| IndexError::Json { place: place.take(), reason: reason(&error) })?;
    let pairs = index.pairs.ok_or(IndexError::NoWeightMap)?;
    for (tensor, file) in &pairs {
        if !is_plain_file_name(file) {
            let (tensor, file) = (show(tensor.as_bytes()), show(file.as_bytes()));
            return Err(IndexError::FileName { tensor, file });
        }
    }
    Ok(pairs)
}

/// Whether `name` is a file name and nothing more: no directory, no way up.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
        && name.ends_with(".safetensors")
        && !name.contains(['\\', ':', '\0'])
}

/// The JSON text of the header, its length checked against the file and the format's limit.
fn header(bytes: &[u8]) -> Result<&str, SafetensorsError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(SafetensorsError::TooShort { size: bytes.len() });
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(SafetensorsError::HeaderTooLong { length });
    }
    let Some(header) = rest.get(..length as usize) else {
        return Err(SafetensorsError::HeaderTruncated { length, remaining: rest.len() });
    };
    if header.first() != Some(&b'{') {
        return Err(SafetensorsError::HeaderStart { found: show(&header[..header.len().min(16)]) });
    }
    std::str::from_utf8(header).map_err(|error| SafetensorsError::HeaderUtf8 { at: LENGTH_BYTES + error.valid_up_to() })
}

/// An entry of the header as it stands there.
struct Entry {
    dtype: Stored,
    shape: Vec<usize>,
    start: u64,
    end: u64,
}

/// The type and shape of an entry whose data must start at `expected` and fit them.
fn check_entry(name: &str, entry: &Entry, expected: u64) -> Result<(Dtype, Vec<usize>), SafetensorsError> {
    let tensor = || show(name.as_bytes());
    let Entry { dtype, shape, start, end } = entry;
    let (start, end) = (*start, *end);
    let Some(dtype) = dtype_of(*dtype) else {
        return Err(SafetensorsError::UnsupportedDtype { tensor: tensor(), dtype: dtype.to_string() });
    };
    if end < start {
        return Err(SafetensorsError::OffsetsReversed { tensor: tensor(), start, end });
    }
    let Some(needed) = dtype.tensor_bytes(shape) else {
        return Err(SafetensorsError::TooLarge { tensor: tensor(), shape: short(shape), dtype });
    };
    if end - start != needed as u64 {
        let (tensor, given, shape) = (tensor(), end - start, short(shape));
        return Err(SafetensorsError::Size { tensor, start, end, given, shape, dtype, needed });
    }
    if start != expected {
        return Err(SafetensorsError::NotAdjacent { tensor: tensor(), start, expected });
    }
    Ok((dtype, shape.clone()))
}

/// A shape for an error message, without the tail of an absurdly long one.
fn short(shape: &[usize]) -> Vec<usize> {
    shape[..shape.len().min(8)].to_vec()
}

fn dtype_of(stored: Stored) -> Option<Dtype> {
    Some(match stored {
        Stored::F32 => Dtype::Stored(Format::F32),
        Stored::F16 => Dtype::Stored(Format::F16),
        Stored::BF16 => Dtype::Stored(Format::BF16),
        Stored::F8_E4M3 => Dtype::Stored(Format::F8E4M3),
        Stored::F8_E5M2 => Dtype::F8E5M2,
        Stored::F8_E8M0 => Dtype::F8E8M0,
        Stored::F64 => Dtype::F64,
        Stored::BOOL => Dtype::Bool,
        Stored::U8 => Dtype::U8,
        Stored::I8 => Dtype::I8,
        Stored::U16 => Dtype::U16,
        Stored::I16 => Dtype::I16,
        Stored::U32 => Dtype::U32,
        Stored::I32 => Dtype::I32,
        Stored::U64 => Dtype::U64,
        Stored::I64 => Dtype::I64,
        _ => return None,
    })
}

/// The header before its numbers are compared with each other.
#[derive(Default)]
struct Header {
    entries: Vec<(String, Entry)>,
    metadata: BTreeMap<String, String>,
}

fn read_header(header: &str) -> Result<Header, SafetensorsError> {
    let place = Place::default();
    let mut json = serde_json::Deserializer::from_str(header);
    let object = Object { what: "an object of tensors", place: &place, read: HeaderReader::default() };
    let result = object.deserialize(&mut json).and_then(|read| json.end().map(|()| read));
    match result {
        Ok(read) => Ok(read.header),
        Err(error) => Err(SafetensorsError::Header { place: place.take(), reason: reason(&error) }),
    }
}

/// What the JSON reader says, on one line and without the middle if it quotes a long text.
fn reason(error: &serde_json::Error) -> String {
    const START: usize = 160;
    const END: usize = 120;
    let mut said: Vec<char> = Vec::new();
    for c in error.to_string().chars() {
        match c {
            '"' | '\'' | '\\' => said.push(c),
            _ => said.extend(c.escape_debug()),
        }
    }
    if said.len() <= START + END {
        return said.into_iter().collect();
    }
    said[..START].iter().chain(&['…']).chain(&said[said.len() - END..]).collect()
}

/// Where in the JSON the reader is: the keys on the way down, for error messages.
#[derive(Default)]
struct Place(RefCell<Vec<String>>);

impl Place {
    fn enter(&self, key: &str) {
        self.0.borrow_mut().push(key.to_owned());
    }

    fn leave(&self) {
        self.0.borrow_mut().pop();
    }

    fn take(&self) -> String {
        let keys = self.0.take();
        if keys.is_empty() {
            return "the top level".to_owned();
        }
        let keys: Vec<String> = keys.iter().map(|key| format!("`{}`", show(key.as_bytes()))).collect();
        keys.join(", ")
    }
}

/// Reads the members of a JSON object one by one.
trait ReadMembers<'de>: Sized {
    /// Reads the value of `key`. Keys may repeat; refusing that is the reader's part.
    fn member<A: MapAccess<'de>>(&mut self, key: String, map: &mut A, place: &Place) -> Result<(), A::Error>;
}

/// A JSON object that `read` reads, with its place kept for errors.
struct Object<'p, R> {
    what: &'static str,
    place: &'p Place,
    read: R,
}

impl<'de, R: ReadMembers<'de>> DeserializeSeed<'de> for Object<'_, R> {
    type Value = R;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<R, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, R: ReadMembers<'de>> Visitor<'de> for Object<'_, R> {
    type Value = R;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<R, A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            self.place.enter(&key);
            self.read.member(key, &mut map, self.place)?;
            self.place.leave();
        }
        Ok(self.read)
    }
}

/// Reads the header: tensors by name, and `__metadata__`.
#[derive(Default)]
struct HeaderReader {
    header: Header,
    names: HashSet<String>,
}

impl<'de> ReadMembers<'de> for HeaderReader {
    fn member<A: MapAccess<'de>>(&mut self, key: String, map: &mut A, place: &Place) -> Result<(), A::Error> {
        if !self.names.insert(key.clone()) {
            return Err(A::Error::custom("the name occurs twice"));
        }
        if key == "__metadata__" {
            let texts = Object { what: "an object of strings", place, read: TextReader::default() };
            self.header.metadata = map.next_value_seed(texts)?.0;
            return Ok(());
        }
        let entry =
            Object { what: "an object with dtype, shape and data_offsets", place, read: EntryReader::default() };
        let EntryReader { dtype, shape, offsets } = map.next_value_seed(entry)?;
        let dtype = dtype.ok_or_else(|| A::Error::missing_field("dtype"))?;
        let shape = shape.ok_or_else(|| A::Error::missing_field("shape"))?;
        let (start, end) = offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?;
        self.header.entries.push((key, Entry { dtype, shape, start, end }));
        Ok(())
    }
}

/// Reads the entry of a tensor. Other fields are ignored, as the format's own reader does.
#[derive(Default)]
struct EntryReader {
    dtype: Option<Stored>,
    shape: Option<Vec<usize>>,
    offsets: Option<(u64, u64)>,
}

impl<'de> ReadMembers<'de> for EntryReader {
    fn member<A: MapAccess<'de>>(&mut self, key: String, map: &mut A, _: &Place) -> Result<(), A::Error> {
        let repeated = match key.as_str() {
            "dtype" => self.dtype.replace(map.next_value()?).is_some(),
            "shape" => self.shape.replace(map.next_value()?).is_some(),
            "data_offsets" => self.offsets.replace(map.next_value()?).is_some(),
            _ => {
                map.next_value::<IgnoredAny>()?;
                false
            }
        };
        if repeated { Err(A::Error::custom("the field occurs twice")) } else { Ok(()) }
    }
}

/// Reads an object of strings, `__metadata__`.
#[derive(Default)]
struct TextReader(BTreeMap<String, String>);

impl<'de> ReadMembers<'de> for TextReader {
    fn member<A: MapAccess<'de>>(&mut self, key: String, map: &mut A, _: &Place) -> Result<(), A::Error> {
        match self.0.insert(key, map.next_value()?) {
            Some(_) => Err(A::Error::custom("the key occurs twice")),
            None => Ok(()),
        }
    }
}

/// Reads an index file; only `weight_map` matters.
#[derive(Default)]
struct IndexReader {
    pairs: Option<Vec<(String, String)>>,
}

impl<'de> ReadMembers<'de> for IndexReader {
    fn member<A: MapAccess<'de>>(&mut self, key: String, map: &mut A, place: &Place) -> Result<(), A::Error> {
        if key != "weight_map" {
            map.next_value::<IgnoredAny>()?;
            return Ok(());
        }
        let pairs = Object { what: "an object of file names", place, read: PairReader::default() };
        match self.pairs.replace(map.next_value_seed(pairs)?.pairs) {
            Some(_) => Err(A::Error::custom("weight_map occurs twice")),
            None => Ok(()),
        }
    }
}

/// Reads a `weight_map`, keeping its order.
#[derive(Default)]
struct PairReader {
    pairs: Vec<(String, String)>,
    names: HashSet<String>,
}

impl<'de> ReadMembers<'de> for PairReader {
    fn member<A: MapAccess<'de>>(&mut self, key: String, map: &mut A, _: &Place) -> Result<(), A::Error> {
        if !self.names.insert(key.clone()) {
            return Err(A::Error::custom("the tensor occurs twice"));
        }
        self.pairs.push((key, map.next_value()?));
        Ok(())
    }
}
