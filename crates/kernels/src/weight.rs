//! A matrix of weights in its stored format, as a view into shared bytes.

use std::ops::Range;
use std::sync::Arc;

use crate::bytes::Bytes;
use crate::format::Format;
use crate::int::CodedRows;
use crate::int::coded::Code;
use crate::isa::{Isa, isa};
use crate::quant;
use crate::quant::compiled::compiled_for_isa;
use crate::train::panels::{Panels, PanelsView};

/// A `[rows, cols]` matrix; row `r` holds the weights of output `r`.
///
/// Cloning and taking sub-ranges share the bytes.
#[derive(Clone, Debug)]
pub struct Weight {
    rows: usize,
    cols: usize,
    storage: Storage,
    data: Bytes,
    /// Bytes from one row to the next (more than a row where rows are interleaved).
    stride: usize,
    inputs: Inputs,
}

/// The arithmetic of products with a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inputs {
    /// Inputs as they are: weights are read as floats. The reference.
    #[default]
    Exact,
    /// Inputs rounded to what the weights are stored in (see `docs/NUMERICS.md`), faster by several
    /// times: to signed bytes in blocks for quantised weights, with products in integers; to bfloat16
    /// for bfloat16. F32, F16, FP8 and transposed products stay exact.
    Int8,
}

#[derive(Clone, Debug)]
enum Storage {
    /// Rows of self-contained blocks.
    Blocks(Format),
    /// DeepSeek-V3's FP8 (V3 report, section 3.3): E4M3 bytes and one scale for each block of
    /// `block` x `block`; `scales` is `[ceil(rows / block), scale_cols]` of the whole matrix.
    Fp8Blocks { scales: Arc<[f32]>, scale_cols: usize, block: usize, first_row: usize, row_step: usize },
    /// gpt-oss as Hugging Face stores it: E2M1 pairs (low nibble first) and E8M0 scales apart.
    Mxfp4Split { scales: Bytes, scale_stride: usize },
    /// Packed for training; row 0 is row `first_row` of the panels.
    Panels { panels: Arc<Panels>, first_row: usize },
}

impl Weight {
    /// A matrix of whole rows of `format`; `None` if `data` is not exactly that many bytes.
    pub fn new(format: Format, rows: usize, cols: usize, data: Bytes) -> Option<Weight> {
        let stride = format.row_bytes(cols)?;
        (rows.checked_mul(stride)? == data.len()).then_some(Weight {
            rows,
            cols,
            storage: Storage::Blocks(format),
            data,
            stride,
            inputs: Inputs::Exact,
        })
    }

    /// A matrix of our own floats, row after row.
    ///
    /// # Panics
    /// If `values` is not `rows * cols` long.
    pub fn from_f32(rows: usize, cols: usize, values: Vec<f32>) -> Weight {
        assert_eq!(values.len(), rows * cols, "a {rows} x {cols} matrix");
        Weight {
            rows,
            cols,
            storage: Storage::Blocks(Format::F32),
            data: Bytes::from(values),
            stride: cols * 4,
            inputs: Inputs::Exact,
        }
    }

    /// E4M3 bytes with one scale for each `block` x `block` square; `None` if a size does not fit.
    pub fn fp8_blocks(rows: usize, cols: usize, data: Bytes, scales: Vec<f32>, block: usize) -> Option<Weight> {
        if block == 0 {
            return None;
        }
        let scale_cols = cols.div_ceil(block);
        let fits =
            rows.checked_mul(cols)? == data.len() && rows.div_ceil(block).checked_mul(scale_cols)? == scales.len();
        let storage = Storage::Fp8Blocks { scales: scales.into(), scale_cols, block, first_row: 0, row_step: 1 };
        fits.then_some(Weight { rows, cols, storage, data, stride: cols, inputs: Inputs::Exact })
    }

    /// gpt-oss' MXFP4: `data` is `[rows, cols / 2]`, `scales` is `[rows, cols / 32]`, both bytes.
    pub fn mxfp4_split(rows: usize, cols: usize, data: Bytes, scales: Bytes) -> Option<Weight> {
        let fits = cols.is_multiple_of(32)
            && rows.checked_mul(cols / 2)? == data.len()
            && rows.checked_mul(cols / 32)? == scales.len();
        let storage = Storage::Mxfp4Split { scales, scale_stride: cols / 32 };
        fits.then_some(Weight { rows, cols, storage, data, stride: cols / 2, inputs: Inputs::Exact })
    }

    /// The same matrix, for products in this arithmetic.
    pub fn with_inputs(mut self, inputs: Inputs) -> Weight {
        self.inputs = inputs;
        self
    }

    /// The arithmetic of products with this matrix.
    pub fn inputs(&self) -> Inputs {
        self.inputs
    }

    /// The rows for integer products, where this matrix is for such.
    pub(crate) fn coded(&self) -> Option<CodedRows<'_>> {
        if self.inputs == Inputs::Exact {
            return None;
        }
        let (code, scales, scale_stride) = match &self.storage {
            Storage::Blocks(format) => (Code::of(*format)?, &*self.data, self.stride),
            Storage::Fp8Blocks { .. } | Storage::Panels { .. } => return None,
            Storage::Mxfp4Split { scales, scale_stride } => (Code::Mxfp4Split, &**scales, *scale_stride),
        };
        let Weight { rows, cols, stride, .. } = *self;
        Some(CodedRows { code, rows, cols, data: &self.data, stride, scales, scale_stride })
    }

    /// The bytes of rows of bfloat16 and the distance from one to the next, where inputs are rounded as well.
    pub(crate) fn bf16_rows(&self) -> Option<(&[u8], usize)> {
        let rounded = self.inputs != Inputs::Exact && matches!(self.storage, Storage::Blocks(Format::BF16));
        rounded.then_some((&*self.data, self.stride))
    }

    /// Weights packed for training. Ranges of their rows begin and end at multiples of sixteen, or at the
    /// last row.
    pub fn from_panels(panels: Arc<Panels>) -> Weight {
        let (rows, cols) = (panels.rows(), panels.cols());
        let storage = Storage::Panels { panels, first_row: 0 };
        Weight { rows, cols, storage, data: Bytes::from(Vec::<u8>::new()), stride: 0, inputs: Inputs::Exact }
    }

    /// The panels, if the weights are stored so.
    pub(crate) fn panels(&self) -> Option<PanelsView<'_>> {
        match &self.storage {
            Storage::Panels { panels, first_row } => Some(panels.view(*first_row..first_row + self.rows)),
            _ => None,
        }
    }

    /// Rows: the number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: the number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The storage format of the elements (FP8 and MXFP4 also where their scales lie apart).
    pub fn format(&self) -> Format {
        match &self.storage {
            Storage::Blocks(format) => *format,
            Storage::Fp8Blocks { .. } => Format::F8E4M3,
            Storage::Mxfp4Split { .. } => Format::Mxfp4,
            Storage::Panels { panels, .. } => panels.format(),
        }
    }

    /// Bytes that a product with every row reads, scales included.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Blocks(format) => self.rows * format.row_bytes(self.cols).unwrap_or(0),
            Storage::Fp8Blocks { scale_cols, block, .. } => {
                self.rows * self.cols + self.rows.div_ceil(*block) * scale_cols * 4
            }
            Storage::Mxfp4Split { .. } => self.rows * (self.cols / 2 + self.cols / 32),
            Storage::Panels { panels, .. } => self.rows * self.cols * panels.format().block().1,
        }
    }

    /// Whether the weights lie in a mapped file.
    pub fn is_mapped(&self) -> bool {
        self.data.is_mapped()
    }

    /// The bytes of row `row`, if they alone say its values (no scales apart).
    pub fn row_blocks(&self, row: usize) -> Option<&[u8]> {
        match self.storage {
            Storage::Blocks(format) => {
                let bytes = format.row_bytes(self.cols).expect("checked when made");
                Some(&self.data[row * self.stride..row * self.stride + bytes])
            }
            _ => None,
        }
    }

    /// The rows of `range` as a matrix of their own.
    ///
    /// # Panics
    /// If the range does not lie inside the matrix.
    pub fn row_range(&self, range: Range<usize>) -> Weight {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        self.pick(range.start, 1, range.len())
    }

    /// Rows `first`, `first + 2`, ...: one half of a matrix whose rows interleave two (gpt-oss' gate
    /// and up projections).
    pub fn every_other_row(&self, first: usize) -> Weight {
        self.pick(first, 2, (self.rows + 1 - first) / 2)
    }

    fn pick(&self, first: usize, step: usize, rows: usize) -> Weight {
        let row_bytes = match self.storage {
            Storage::Blocks(format) => format.row_bytes(self.cols).expect("checked when made"),
            Storage::Fp8Blocks { .. } => self.cols,
            Storage::Mxfp4Split { .. } => self.cols / 2,
            Storage::Panels { .. } => 0,
        };
        let span = |stride: usize, len: usize| {
            let start = if rows == 0 { 0 } else { first * stride };
            start..if rows == 0 { 0 } else { start + (rows - 1) * step * stride + len }
        };
        let storage = match &self.storage {
            Storage::Blocks(format) => Storage::Blocks(*format),
            Storage::Fp8Blocks { scales, scale_cols, block, first_row, row_step } => Storage::Fp8Blocks {
                scales: Arc::clone(scales),
                scale_cols: *scale_cols,
                block: *block,
                first_row: first_row + first * row_step,
                row_step: row_step * step,
            },
            Storage::Mxfp4Split { scales, scale_stride } => Storage::Mxfp4Split {
                scales: scales.slice(span(*scale_stride, self.cols / 32)),
                scale_stride: scale_stride * step,
            },
            Storage::Panels { panels, first_row } => {
                assert!(step == 1, "panels have no view of every other row");
                Storage::Panels { panels: Arc::clone(panels), first_row: first_row + first }
            }
        };
        let data = self.data.slice(span(self.stride, row_bytes));
        Weight { rows, cols: self.cols, storage, data, stride: self.stride * step, inputs: self.inputs }
    }

    /// Row `row` as floats.
    ///
    /// # Panics
    /// If `row` is not below `rows` or `out` is not `cols` long.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {} x {}", self.rows, self.cols);
        unpack(isa(), self, row..row + 1, 0..self.cols, out, self.cols);
    }

    /// Columns `cols` of rows `rows` as floats, rows `stride` apart in `out`, by the code of `isa`.
    /// Columns begin and end at whole blocks. What lies between the rows of `out` is left as it is.
    ///
    /// # Panics
    /// If the ranges do not lie inside the matrix or `out` is too short.
    pub(crate) fn unpack(&self, isa: Isa, rows: Range<usize>, cols: Range<usize>, out: &mut [f32], stride: usize) {
        unpack(isa, self, rows, cols, out, stride);
    }

    /// Asks for the bytes of these columns of rows `rows` to be brought near the processor; rows past
    /// the last one are left out. Changes nothing but the time that reading them takes.
    pub(crate) fn prefetch(&self, rows: Range<usize>, cols: Range<usize>) {
        let (elements, size) = match &self.storage {
            Storage::Blocks(format) => format.block(),
            Storage::Fp8Blocks { .. } => (1, 1),
            Storage::Mxfp4Split { .. } => (2, 1),
            Storage::Panels { .. } => return,
        };
        for row in rows.start..rows.end.min(self.rows) {
            let start = row * self.stride + cols.start / elements * size;
            prefetch(&self.data[start..start + cols.len() / elements * size]);
        }
    }

    /// The whole matrix as floats, row after row.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        if self.cols > 0 {
            out.chunks_exact_mut(self.cols).enumerate().for_each(|(row, out)| self.dequantize_row(row, out));
        }
        out
    }

    /// The transposed matrix in memory of its own; only for formats of single numbers.
    ///
    /// `None` for formats whose blocks run along a row.
    pub fn to_transposed(&self) -> Option<Weight> {
        let Storage::Blocks(format) = self.storage else { return None };
        if !format.is_float() {
            return None;
        }
        let (_, size) = format.block();
        let mut bytes = vec![0u8; self.rows * self.cols * size];
        for row in 0..self.rows {
            for col in 0..self.cols {
                let from = row * self.stride + col * size;
                let to = (col * self.rows + row) * size;
                bytes[to..to + size].copy_from_slice(&self.data[from..from + size]);
            }
        }
        Weight::new(format, self.cols, self.rows, Bytes::from(bytes))
    }
}

#[inline(always)]
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE, which every x86-64 processor has; a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// [`Weight::unpack`].
fn unpack(isa: Isa, weight: &Weight, rows: Range<usize>, cols: Range<usize>, out: &mut [f32], stride: usize) {
    assert!(rows.end <= weight.rows && cols.start <= cols.end && cols.end <= weight.cols, "{rows:?} x {cols:?}");
    let whole = |elements: usize| {
        assert!(cols.start.is_multiple_of(elements) && cols.end.is_multiple_of(elements), "whole blocks");
    };
    match &weight.storage {
        Storage::Blocks(format) => {
            let (elements, size) = format.block();
            whole(elements);
            let from =
                Strided { start: rows.start * weight.stride + cols.start / elements * size, step: weight.stride };
            let to = Strided { start: 0, step: stride };
            block_rows(isa, *format, &weight.data, from, cols.len() / elements * size, out, to, cols.len(), rows.len());
        }
        Storage::Fp8Blocks { scales, scale_cols, block, first_row, row_step } => {
            for (i, row) in rows.enumerate() {
                let scales = &scales[(first_row + row * row_step) / block * scale_cols..][..*scale_cols];
                let bytes = &weight.data[row * weight.stride..][..weight.cols];
                fp8_row(isa, bytes, scales, *block, cols.start, &mut out[i * stride..][..cols.len()]);
            }
        }
        Storage::Mxfp4Split { scales, scale_stride } => {
            whole(32);
            for (i, row) in rows.enumerate() {
                let blocks = &weight.data[row * weight.stride + cols.start / 2..][..cols.len() / 2];
                let scales = &scales[row * scale_stride + cols.start / 32..][..cols.len() / 32];
                quant::compiled::mxfp4_split_row(isa, blocks, scales, &mut out[i * stride..][..cols.len()]);
            }
        }
        Storage::Panels { panels, first_row } => {
            for (i, row) in rows.enumerate() {
                panels.read_row(first_row + row, cols.start, &mut out[i * stride..][..cols.len()]);
            }
        }
    }
}

/// Where rows lie in a slice.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    start: usize,
    step: usize,
}

// The bytes and the floats are arguments of these functions, and not reached through the weight, so
// that the compiler knows that they do not overlap and vectorises.
compiled_for_isa!(block_rows = block_rows_inline,
    (format: Format, bytes: &[u8], from: Strided, size: usize, out: &mut [f32], to: Strided, cols: usize, rows: usize));
compiled_for_isa!(fp8_row = fp8_row_inline,
    (bytes: &[u8], scales: &[f32], block: usize, first_col: usize, out: &mut [f32]));

/// Rows of `size` bytes of whole blocks to rows of `cols` floats.
#[inline(always)]
fn block_rows_inline(
    format: Format,
    bytes: &[u8],
    from: Strided,
    size: usize,
    out: &mut [f32],
    to: Strided,
    cols: usize,
    rows: usize,
) {
    for row in 0..rows {
        let bytes = &bytes[from.start + row * from.step..][..size];
        quant::dequantize_blocks_inline(format, bytes, &mut out[to.start + row * to.step..][..cols]);
    }
}

/// Columns `first_col ..` of a row with one scale for each `block` columns.
#[inline(always)]
fn fp8_row_inline(bytes: &[u8], scales: &[f32], block: usize, first_col: usize, out: &mut [f32]) {
    let (mut col, last) = (first_col, first_col + out.len());
    while col < last {
        let end = last.min((col / block + 1).saturating_mul(block));
        let out = &mut out[col - first_col..end - first_col];
        quant::f8e4m3_scaled_inline(&bytes[col..end], scales[col / block], out);
        col = end;
    }
}
