//! The metadata of a GGUF file: typed values by key.
//!
//! Values keep the encoding of the file. A list of 150,000 tokens is one range of the mapped file,
//! checked when the file is parsed and decoded when it is asked for, so that opening stays cheap.
//! The getters say which key has which type when it is not the one that was asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernels::bytes::Bytes;

use super::show;

/// The types of GGUF metadata values, with the numbers that stand for them in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the types' own
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// The type with this number.
    pub const fn from_id(id: u32) -> Option<ValueType> {
        Some(match id {
            0 => ValueType::U8,
            1 => ValueType::I8,
            2 => ValueType::U16,
            3 => ValueType::I16,
            4 => ValueType::U32,
            5 => ValueType::I32,
            6 => ValueType::F32,
            7 => ValueType::Bool,
            8 => ValueType::String,
            9 => ValueType::Array,
            10 => ValueType::U64,
            11 => ValueType::I64,
            12 => ValueType::F64,
            _ => return None,
        })
    }

    /// Bytes of a value, or for strings and arrays the fewest that one takes (their length fields).
    pub const fn min_bytes(self) -> usize {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::String => 8,
            ValueType::Array => 12,
        }
    }

    /// The name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value as it is encoded in the file, already checked.
#[derive(Clone)]
pub struct Value {
    kind: ValueType,
    /// Scalars: their little-endian bytes; strings: the text alone; arrays: as in [`Array`].
    data: Data,
    /// Element type and count, for arrays.
    elements: (ValueType, usize),
}

/// Scalars are kept in place: a file has many, and a shared range costs more than their bytes.
#[derive(Clone)]
enum Data {
    Scalar([u8; 8]),
    Range(Bytes),
}

impl Value {
    /// A scalar from its little-endian bytes, of which there are `kind.min_bytes()`.
    pub(super) fn scalar(kind: ValueType, bytes: &[u8]) -> Value {
        let mut scalar = [0; 8];
        scalar[..bytes.len()].copy_from_slice(bytes);
        Value { kind, data: Data::Scalar(scalar), elements: (kind, 0) }
    }

    /// A string from its text.
    pub(super) fn text(text: Bytes) -> Value {
        Value { kind: ValueType::String, data: Data::Range(text), elements: (ValueType::String, 0) }
    }

    /// An array from its checked encoding (without element type and count).
    pub(super) fn encoded_array(kind: ValueType, len: usize, data: Bytes) -> Value {
        Value { kind: ValueType::Array, data: Data::Range(data), elements: (kind, len) }
    }

    /// The type.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// The decoded value; arrays and strings are borrowed.
    pub fn item(&self) -> Item<'_> {
        match &self.data {
            Data::Scalar(bytes) => decode_scalar(self.kind, bytes),
            Data::Range(text) if self.kind == ValueType::String => Item::String(text),
            Data::Range(data) => Item::Array(Array { kind: self.elements.0, len: self.elements.1, data }),
        }
    }

    /// Appends the value as GGUF encodes it, without its type.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match &self.data {
            Data::Scalar(bytes) => out.extend_from_slice(&bytes[..self.kind.min_bytes()]),
            Data::Range(text) if self.kind == ValueType::String => {
                out.extend_from_slice(&(text.len() as u64).to_le_bytes());
                out.extend_from_slice(text);
            }
            Data::Range(data) => {
                out.extend_from_slice(&(self.elements.0 as u32).to_le_bytes());
                out.extend_from_slice(&(self.elements.1 as u64).to_le_bytes());
                out.extend_from_slice(data);
            }
        }
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.item())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::text(Bytes::from(text.as_bytes().to_vec()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::text(Bytes::from(text.into_bytes()))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::scalar(ValueType::Bool, &[value as u8])
    }
}

impl From<&[&str]> for Value {
    fn from(texts: &[&str]) -> Value {
        string_array(texts)
    }
}

impl From<&[String]> for Value {
    fn from(texts: &[String]) -> Value {
        string_array(texts)
    }
}

fn string_array<T: AsRef<str>>(texts: &[T]) -> Value {
    let mut data = Vec::with_capacity(texts.iter().map(|text| 8 + text.as_ref().len()).sum());
    for text in texts {
        data.extend_from_slice(&(text.as_ref().len() as u64).to_le_bytes());
        data.extend_from_slice(text.as_ref().as_bytes());
    }
    Value::encoded_array(ValueType::String, texts.len(), Bytes::from(data))
}

impl From<&[bool]> for Value {
    fn from(values: &[bool]) -> Value {
        let data: Vec<u8> = values.iter().map(|&value| value as u8).collect();
        Value::encoded_array(ValueType::Bool, values.len(), Bytes::from(data))
    }
}

macro_rules! numbers {
    ($($number:ty => $kind:ident),*) => {$(
        impl From<$number> for Value {
            fn from(value: $number) -> Value {
                Value::scalar(ValueType::$kind, &value.to_le_bytes())
            }
        }

        impl From<&[$number]> for Value {
            fn from(values: &[$number]) -> Value {
                let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Value::encoded_array(ValueType::$kind, values.len(), Bytes::from(data))
            }
        }
    )*};
}

numbers!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32);
numbers!(i32 => I32, f32 => F32, u64 => U64, i64 => I64, f64 => F64);

/// An array of metadata values in the encoding of the file.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    data: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of the elements.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let Array { kind, len, mut data } = *self;
        (0..len).map_while(move |_| {
            let (item, rest) = decode(kind, data)?;
            data = rest;
            Some(item)
        })
    }
}

/// A decoded value. Whole numbers of all sizes are widened; they are narrowed, with a check, by
/// the getter.
#[derive(Clone, Copy)]
pub enum Item<'a> {
    /// u8 to u64.
    Unsigned(u64),
    /// i8 to i64.
    Signed(i64),
    /// f32 and f64.
    Float(f64),
    /// Stored as a byte 0 or 1.
    Bool(bool),
    /// Text, which the format wants to be UTF-8, but which is not until it has been checked.
    String(&'a [u8]),
    /// An array.
    Array(Array<'a>),
}

impl std::fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Item::Unsigned(value) => write!(f, "{value}"),
            Item::Signed(value) => write!(f, "{value}"),
            Item::Float(value) => write!(f, "{value}"),
            Item::Bool(value) => write!(f, "{value}"),
            Item::String(text) => write!(f, "\"{}\"", show(text)),
            Item::Array(array) => write!(f, "array of {} {}", array.len(), array.kind()),
        }
    }
}

impl std::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// A Rust type that metadata values can be read as.
pub trait FromItem<'a>: Sized {
    /// What to call the type in an error.
    const WANT: &'static str;

    /// The value, if it is of this type and in its range.
    fn from_item(item: Item<'a>) -> Option<Self>;
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl FromItem<'_> for $number {
            const WANT: &'static str = stringify!($number);

            fn from_item(item: Item<'_>) -> Option<Self> {
                match item {
                    Item::Unsigned(value) => value.try_into().ok(),
                    Item::Signed(value) => value.try_into().ok(),
                    _ => None,
                }
            }
        }
    )*};
}

whole_numbers!(u8, i8, u16, i16, u32, i32, u64, i64, usize);

impl FromItem<'_> for f32 {
    const WANT: &'static str = "f32";

    fn from_item(item: Item<'_>) -> Option<f32> {
        f64::from_item(item).map(|value| value as f32)
    }
}

impl FromItem<'_> for f64 {
    const WANT: &'static str = "f64";

    fn from_item(item: Item<'_>) -> Option<f64> {
        match item {
            Item::Float(value) => Some(value),
            _ => None,
        }
    }
}

impl FromItem<'_> for bool {
    const WANT: &'static str = "bool";

    fn from_item(item: Item<'_>) -> Option<bool> {
        match item {
            Item::Bool(value) => Some(value),
            _ => None,
        }
    }
}

impl<'a> FromItem<'a> for &'a str {
    const WANT: &'static str = "string in UTF-8";

    fn from_item(item: Item<'a>) -> Option<&'a str> {
        match item {
            Item::String(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }
}

impl<'a> FromItem<'a> for &'a [u8] {
    const WANT: &'static str = "string";

    fn from_item(item: Item<'a>) -> Option<&'a [u8]> {
        match item {
            Item::String(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> FromItem<'a> for Array<'a> {
    const WANT: &'static str = "array";

    fn from_item(item: Item<'a>) -> Option<Array<'a>> {
        match item {
            Item::Array(array) => Some(array),
            _ => None,
        }
    }
}

/// Why a metadata value cannot be had as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum MetadataError {
    #[error("{}: metadata key `{key}` is missing; a value of type {want} is needed", .file.display())]
    Missing { file: PathBuf, key: String, want: &'static str },
    #[error("{}: metadata key `{key}` holds {found} (type {kind}); {want} was expected", .file.display())]
    Type { file: PathBuf, key: String, kind: ValueType, found: String, want: &'static str },
    #[error("{}: element {index} of metadata key `{key}` holds {found} (type {kind}); {want} was expected", .file.display())]
    Element { file: PathBuf, key: String, index: usize, kind: ValueType, found: String, want: &'static str },
}

/// The metadata of a GGUF file, in the order of the keys.
#[derive(Clone, Default, Debug)]
pub struct Metadata {
    file: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    pub(crate) fn new(values: BTreeMap<String, Value>) -> Metadata {
        Metadata { file: PathBuf::new(), values }
    }

    /// Sets the file that errors name.
    pub(super) fn of_file(self, file: &Path) -> Metadata {
        Metadata { file: file.to_path_buf(), ..self }
    }

    /// The value of `key` as it is stored.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of `key`, or `None` if there is no such key.
    ///
    /// # Errors
    /// If the value is not a `T` or out of its range. Whole numbers of any size are read as any
    /// other as long as the value fits.
    pub fn find<'a, T: FromItem<'a>>(&'a self, key: &str) -> Result<Option<T>, MetadataError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        T::from_item(value.item()).map(Some).ok_or_else(|| self.type_error(key, value, T::WANT))
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// As [`Metadata::find`], and if there is no such key.
    pub fn need<'a, T: FromItem<'a>>(&'a self, key: &str) -> Result<T, MetadataError> {
        self.find(key)?.ok_or_else(|| self.missing(key, T::WANT))
    }

    /// The array at `key`, or `None` if there is no such key.
    ///
    /// # Errors
    /// If the value is not an array, or an element is not a `T` or out of its range.
    pub fn find_list<'a, T: FromItem<'a>>(&'a self, key: &str) -> Result<Option<Vec<T>>, MetadataError> {
        let Some(array) = self.find::<Array<'a>>(key)? else { return Ok(None) };
        let element = |(index, item): (usize, Item<'a>)| {
            T::from_item(item).ok_or_else(|| MetadataError::Element {
                file: self.file.clone(),
                key: key.to_owned(),
                index,
                kind: array.kind(),
                found: item.to_string(),
                want: T::WANT,
            })
        };
        array.iter().enumerate().map(element).collect::<Result<Vec<T>, _>>().map(Some)
    }

    /// The array at `key`.
    ///
    /// # Errors
    /// As [`Metadata::find_list`], and if there is no such key.
    pub fn need_list<'a, T: FromItem<'a>>(&'a self, key: &str) -> Result<Vec<T>, MetadataError> {
        self.find_list(key)?.ok_or_else(|| self.missing(key, "array"))
    }

    /// The whole number at `key`. Errors as [`Metadata::need`].
    pub fn u32(&self, key: &str) -> Result<u32, MetadataError> {
        self.need(key)
    }

    /// The number at `key`. Errors as [`Metadata::need`].
    pub fn f32(&self, key: &str) -> Result<f32, MetadataError> {
        self.need(key)
    }

    /// The truth value at `key`. Errors as [`Metadata::need`].
    pub fn bool(&self, key: &str) -> Result<bool, MetadataError> {
        self.need(key)
    }

    /// The text at `key`. Errors as [`Metadata::need`].
    pub fn string(&self, key: &str) -> Result<&str, MetadataError> {
        self.need(key)
    }

    /// The texts at `key`. Errors as [`Metadata::need_list`].
    pub fn strings(&self, key: &str) -> Result<Vec<&str>, MetadataError> {
        self.need_list(key)
    }

    fn missing(&self, key: &str, want: &'static str) -> MetadataError {
        MetadataError::Missing { file: self.file.clone(), key: key.to_owned(), want }
    }

    fn type_error(&self, key: &str, value: &Value, want: &'static str) -> MetadataError {
        let (file, key, kind) = (self.file.clone(), key.to_owned(), value.kind());
        MetadataError::Type { file, key, kind, found: value.item().to_string(), want }
    }
}

/// The first value of this type in `data`, and the rest. `None` cannot occur in checked data.
fn decode(kind: ValueType, data: &[u8]) -> Option<(Item<'_>, &[u8])> {
    match kind {
        ValueType::String => {
            let (len, rest) = data.split_first_chunk::<8>()?;
            let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
            Some((Item::String(text), rest))
        }
        ValueType::Array => {
            let (kind, rest) = data.split_first_chunk::<4>()?;
            let (len, rest) = rest.split_first_chunk::<8>()?;
            let kind = ValueType::from_id(u32::from_le_bytes(*kind))?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
            let bytes = array_bytes(kind, len, rest)?;
            let (data, rest) = rest.split_at_checked(bytes)?;
            Some((Item::Array(Array { kind, len, data }), rest))
        }
        _ => {
            let (bytes, rest) = data.split_at_checked(kind.min_bytes())?;
            let mut scalar = [0; 8];
            scalar[..bytes.len()].copy_from_slice(bytes);
            Some((decode_scalar(kind, &scalar), rest))
        }
    }
}

/// Bytes that the `len` elements at the start of `data` take.
fn array_bytes(kind: ValueType, len: usize, data: &[u8]) -> Option<usize> {
    if !matches!(kind, ValueType::String | ValueType::Array) {
        return len.checked_mul(kind.min_bytes());
    }
    let mut rest = data;
    for _ in 0..len {
        rest = decode(kind, rest)?.1;
    }
    Some(data.len() - rest.len())
}

/// The scalar in the first `kind.min_bytes()` of `bytes`; the others are zero.
fn decode_scalar(kind: ValueType, bytes: &[u8; 8]) -> Item<'static> {
    let [a, b, c, d, ..] = *bytes;
    match kind {
        ValueType::Bool => Item::Bool(a != 0),
        ValueType::I8 => Item::Signed(i64::from(a as i8)),
        ValueType::I16 => Item::Signed(i64::from(i16::from_le_bytes([a, b]))),
        ValueType::I32 => Item::Signed(i64::from(i32::from_le_bytes([a, b, c, d]))),
        ValueType::I64 => Item::Signed(i64::from_le_bytes(*bytes)),
        ValueType::F32 => Item::Float(f64::from(f32::from_le_bytes([a, b, c, d]))),
        ValueType::F64 => Item::Float(f64::from_le_bytes(*bytes)),
        _ => Item::Unsigned(u64::from_le_bytes(*bytes)),
    }
}
