//! The element types of tensors in files: the weight formats, and what stands beside weights.

use kernels::format::Format;

/// How the elements of a tensor are stored.
///
/// Weights that a kernel can multiply with are [`Dtype::Stored`]. The other types occur as packed
/// blocks (gpt-oss keeps MXFP4 in two U8 tensors), as scales and as tables of indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the types' own
pub enum Dtype {
    /// A weight format.
    Stored(Format),
    F64,
    /// FP8 E5M2.
    F8E5M2,
    /// A power of two: the scale of OCP microscaling formats.
    F8E8M0,
    /// One byte an element, 0 or 1.
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
}

impl Dtype {
    /// The weight format, if it is one.
    pub const fn format(self) -> Option<Format> {
        match self {
            Dtype::Stored(format) => Some(format),
            _ => None,
        }
    }

    /// (elements per block, bytes per block)
    pub const fn block(self) -> (usize, usize) {
        match self {
            Dtype::Stored(format) => format.block(),
            Dtype::F64 | Dtype::U64 | Dtype::I64 => (1, 8),
            Dtype::U32 | Dtype::I32 => (1, 4),
            Dtype::U16 | Dtype::I16 => (1, 2),
            Dtype::U8 | Dtype::I8 | Dtype::Bool | Dtype::F8E5M2 | Dtype::F8E8M0 => (1, 1),
        }
    }

    /// Bytes of a row of `cols` elements; `None` if the row is not a whole number of blocks or the
    /// size does not fit in memory's address range.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        let (elements, bytes) = self.block();
        if !cols.is_multiple_of(elements) {
            return None;
        }
        (cols / elements).checked_mul(bytes)
    }

    /// Bytes of a tensor of this shape (outermost dimension first); `None` as for
    /// [`Dtype::row_bytes`]. An empty shape is a single element.
    pub fn tensor_bytes(self, shape: &[usize]) -> Option<usize> {
        let (&cols, outer) = shape.split_last().unwrap_or((&1, &[]));
        let rows = outer.iter().try_fold(1usize, |rows, &dim| rows.checked_mul(dim))?;
        rows.checked_mul(self.row_bytes(cols)?)
    }

    /// The name in lower case (`q4_k`, `bf16`, `u8`).
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Stored(format) => format.name(),
            Dtype::F64 => "f64",
            Dtype::F8E5M2 => "f8_e5m2",
            Dtype::F8E8M0 => "f8_e8m0",
            Dtype::Bool => "bool",
            Dtype::U8 => "u8",
            Dtype::I8 => "i8",
            Dtype::U16 => "u16",
            Dtype::I16 => "i16",
            Dtype::U32 => "u32",
            Dtype::I32 => "i32",
            Dtype::U64 => "u64",
            Dtype::I64 => "i64",
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Format> for Dtype {
    fn from(format: Format) -> Dtype {
        Dtype::Stored(format)
    }
}
