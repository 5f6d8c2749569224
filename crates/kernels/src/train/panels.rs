//! Weights of a model in training, packed for outer-product kernels.
//!
//! A panel holds sixteen outputs, input after input, so that a kernel multiplies one broadcast input
//! with one vector of weights. Two copies are kept: one whose outputs are the rows of the matrix
//! (forward), and the transposed one (the gradient of the inputs); both are written again after each
//! optimiser step, from the f32 master weights. Rows and columns that do not fill a panel are zeros.

use std::ops::Range;

use crate::format::Format;
use crate::gemm::{Kernels, Matrix, Packed, bf16_to_f32, f32_to_bf16};
use crate::isa::isa;
use crate::pool::Pool;

/// What the factors of a product are rounded to. Sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Not at all.
    F32,
    /// Inputs and weights to bfloat16, to nearest even.
    Bf16,
    /// DeepSeek-V3's FP8 scheme, simulated ([`crate::train::fp8`]): inputs and gradients go through E4M3 where
    /// they are multiplied. A weight's blocks may be parts of a larger matrix, so who packs weights has rounded
    /// them before ([`crate::train::fp8::simulate_weights`]). Products are of floats.
    Fp8,
}

impl Precision {
    /// The same for what V3 keeps out of FP8: embedding, head, routers (V3 report, section 3.3.1).
    pub fn outside_fp8(self) -> Precision {
        if self == Precision::Fp8 { Precision::Bf16 } else { self }
    }
}

/// A `[rows, cols]` matrix in panels of sixteen, of itself and of its transposed.
#[derive(Debug)]
pub struct Panels {
    rows: usize,
    cols: usize,
    precision: Precision,
    /// Outputs are rows, inputs are columns.
    by_row: Packed,
    /// Outputs are columns, inputs are rows.
    by_col: Packed,
}

impl Panels {
    /// Packs `master`, a `[rows, cols]` matrix row after row.
    ///
    /// # Panics
    /// If `master` is not `rows * cols` long.
    pub fn pack(pool: &Pool, rows: usize, cols: usize, master: &[f32], precision: Precision) -> Panels {
        let by_row = Packed::zeros(rows, cols, precision);
        let by_col = Packed::zeros(cols, rows, precision);
        let mut panels = Panels { rows, cols, precision, by_row, by_col };
        panels.repack(pool, master);
        panels
    }

    /// Packs the transposed of `master`: `master` is `[rows, cols]`, the panels are `[cols, rows]`.
    ///
    /// # Panics
    /// If `master` is not `rows * cols` long.
    pub fn pack_transposed(pool: &Pool, rows: usize, cols: usize, master: &[f32], precision: Precision) -> Panels {
        let Panels { by_row, by_col, .. } = Panels::pack(pool, rows, cols, master, precision);
        Panels { rows: cols, cols: rows, precision, by_row: by_col, by_col: by_row }
    }

    /// Packs other values of the same `[rows, cols]` matrix into the memory of these.
    ///
    /// # Panics
    /// If `master` is not `rows * cols` long.
    pub fn repack(&mut self, pool: &Pool, master: &[f32]) {
        assert_eq!(master.len(), self.rows * self.cols, "a {} x {} matrix", self.rows, self.cols);
        let kernels = Kernels::of(isa());
        self.by_row.fill(kernels, pool, master, self.cols, false);
        self.by_col.fill(kernels, pool, master, self.cols, true);
    }

    /// [`Panels::repack`] from the transposed: `master` is `[cols, rows]`, as in
    /// [`Panels::pack_transposed`].
    ///
    /// # Panics
    /// If `master` is not `rows * cols` long.
    pub fn repack_transposed(&mut self, pool: &Pool, master: &[f32]) {
        assert_eq!(master.len(), self.rows * self.cols, "a {} x {} matrix", self.cols, self.rows);
        let kernels = Kernels::of(isa());
        self.by_row.fill(kernels, pool, master, self.rows, true);
        self.by_col.fill(kernels, pool, master, self.rows, false);
    }

    /// Rows: the number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: the number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What the weights, and the inputs that meet them, are rounded to.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes in memory, both copies.
    pub fn bytes(&self) -> usize {
        self.by_row.bytes() + self.by_col.bytes()
    }

    /// The format of an element.
    pub(crate) fn format(&self) -> Format {
        match self.precision {
            Precision::F32 | Precision::Fp8 => Format::F32,
            Precision::Bf16 => Format::BF16,
        }
    }

    /// The rows of `range` as a matrix.
    ///
    /// # Panics
    /// If the range does not begin at a whole panel, or ends neither at one nor at the last row.
    pub(crate) fn view(&self, range: Range<usize>) -> PanelsView<'_> {
        let whole = |row: usize| row.is_multiple_of(16) || row == self.rows || range.is_empty();
        assert!(
            whole(range.start) && whole(range.end),
            "rows {range:?} of panels of sixteen; a view begins and ends at multiples of 16"
        );
        PanelsView { panels: self, rows: range }
    }

    /// Columns `first_col ..` of row `row`.
    pub(crate) fn read_row(&self, row: usize, first_col: usize, out: &mut [f32]) {
        for (col, out) in (first_col..).zip(out) {
            *out = self.by_row.get(row, col);
        }
    }
}

/// Some rows of panels.
#[derive(Clone)]
pub(crate) struct PanelsView<'a> {
    panels: &'a Panels,
    rows: Range<usize>,
}

impl<'a> PanelsView<'a> {
    /// Outputs are the rows of the view, inputs the columns.
    pub(crate) fn by_row(&self) -> Matrix<'a> {
        self.panels.by_row.part(self.rows.start, self.rows.len(), 0, self.panels.cols)
    }

    /// Outputs are the columns, inputs the rows of the view.
    pub(crate) fn by_col(&self) -> Matrix<'a> {
        self.panels.by_col.part(0, self.panels.cols, self.rows.start, self.rows.len())
    }
}

/// `value` rounded as `precision` says, as far as it can be without the tile that it stands in.
pub fn rounded(value: f32, precision: Precision) -> f32 {
    match precision {
        Precision::F32 | Precision::Fp8 => value,
        Precision::Bf16 => bf16_to_f32(f32_to_bf16(value)),
    }
}
