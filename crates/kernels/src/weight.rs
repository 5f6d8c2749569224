//! A matrix of weights in its stored format, as a view into shared bytes.

use std::ops::Range;
use std::sync::Arc;

use crate::bytes::Bytes;
use crate::format::Format;
use crate::quant;

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
        })
    }

    /// A matrix of our own floats, row after row.
    ///
    /// # Panics
    /// If `values` is not `rows * cols` long.
    pub fn from_f32(rows: usize, cols: usize, values: Vec<f32>) -> Weight {
        assert_eq!(values.len(), rows * cols, "a {rows} x {cols} matrix");
        Weight { rows, cols, storage: Storage::Blocks(Format::F32), data: Bytes::from(values), stride: cols * 4 }
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
        fits.then_some(Weight { rows, cols, storage, data, stride: cols })
    }

    /// gpt-oss' MXFP4: `data` is `[rows, cols / 2]`, `scales` is `[rows, cols / 32]`, both bytes.
    pub fn mxfp4_split(rows: usize, cols: usize, data: Bytes, scales: Bytes) -> Option<Weight> {
        let fits =
            cols % 32 == 0 && rows.checked_mul(cols / 2)? == data.len() && rows.checked_mul(cols / 32)? == scales.len();
        let storage = Storage::Mxfp4Split { scales, scale_stride: cols / 32 };
        fits.then_some(Weight { rows, cols, storage, data, stride: cols / 2 })
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
        match self.storage {
            Storage::Blocks(format) => format,
            Storage::Fp8Blocks { .. } => Format::F8E4M3,
            Storage::Mxfp4Split { .. } => Format::Mxfp4,
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
        };
        let data = self.data.slice(span(self.stride, row_bytes));
        Weight { rows, cols: self.cols, storage, data, stride: self.stride * step }
    }

    /// Row `row` as floats.
    ///
    /// # Panics
    /// If `row` is not below `rows` or `out` is not `cols` long.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {} x {}", self.rows, self.cols);
        let start = row * self.stride;
        match &self.storage {
            Storage::Blocks(format) => {
                let bytes = format.row_bytes(self.cols).expect("checked when made");
                quant::dequantize_row(*format, &self.data[start..start + bytes], out);
            }
            Storage::Fp8Blocks { scales, scale_cols, block, first_row, row_step } => {
                let block_row = (first_row + row * row_step) / block;
                let scales = &scales[block_row * scale_cols..(block_row + 1) * scale_cols];
                quant::dequantize_row(Format::F8E4M3, &self.data[start..start + self.cols], out);
                for (part, scale) in out.chunks_mut(*block).zip(scales) {
                    part.iter_mut().for_each(|v| *v *= scale);
                }
            }
            Storage::Mxfp4Split { scales, scale_stride } => {
                let blocks = &self.data[start..start + self.cols / 2];
                let scales = &scales[row * scale_stride..row * scale_stride + self.cols / 32];
                quant::mxfp4_split_row(blocks, scales, out);
            }
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
