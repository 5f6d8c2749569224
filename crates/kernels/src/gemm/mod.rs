//! Products of many rows with packed matrices: the forward pass and both backward products of
//! training.
//!
//! The inner kernel is an outer product: a few rows of inputs times a panel of sixteen outputs, one
//! register of sums for each row. Every output is one chain of additions in rising input (for
//! bfloat16, the odd input of a pair before the even one, as the processor's instruction does it).
//! The chain does not depend on the tile, the block or the thread, so one row alone and the same row
//! among many give the same bits.

use crate::isa::Isa;
use crate::matmul::HeadWeight;
use crate::pool::{Pool, SharedMut};
use crate::train::panels::Precision;
use crate::weight::Weight;

/// Rows (tokens) whose products are summed before they are added to a gradient.
pub const SUM_BLOCK: usize = 512;

/// Outputs in a panel.
pub(crate) const PANEL: usize = 16;

/// A matrix in panels of sixteen outputs: `[outputs / 16][steps][16]`, zeros where a panel or a pair
/// is not full.
#[derive(Debug)]
pub(crate) struct Packed {
    outputs: usize,
    inputs: usize,
    data: Elements,
}

#[derive(Debug)]
enum Elements {
    /// One step for each input.
    F32(Vec<f32>),
    /// One step for two inputs; the even one is in the lower half.
    Bf16(Vec<u32>),
}

impl Packed {
    /// A matrix of zeros.
    pub(crate) fn zeros(outputs: usize, inputs: usize, precision: Precision) -> Packed {
        let panels = outputs.div_ceil(PANEL) * PANEL;
        let data = match precision {
            Precision::F32 => Elements::F32(vec![0.0; panels * inputs]),
            Precision::Bf16 => Elements::Bf16(vec![0; panels * inputs.div_ceil(2)]),
        };
        Packed { outputs, inputs, data }
    }

    /// Writes all elements from rows of `stride` floats: row `o` holds the inputs of output `o`, or
    /// (`transposed`) row `i` holds input `i` of all outputs.
    pub(crate) fn fill(&mut self, pool: &Pool, from: &[f32], stride: usize, transposed: bool) {
        let (outputs, inputs) = (self.outputs, self.inputs);
        if outputs == 0 || inputs == 0 {
            return;
        }
        let at = |o: usize, i: usize| match (o < outputs && i < inputs, transposed) {
            (false, _) => 0.0,
            (true, false) => from[o * stride + i],
            (true, true) => from[i * stride + o],
        };
        match &mut self.data {
            Elements::F32(data) => pool.for_each_piece(data, inputs * PANEL, |panel, data| {
                for (i, step) in data.chunks_exact_mut(PANEL).enumerate() {
                    step.iter_mut().enumerate().for_each(|(o, to)| *to = at(panel * PANEL + o, i));
                }
            }),
            Elements::Bf16(data) => pool.for_each_piece(data, inputs.div_ceil(2) * PANEL, |panel, data| {
                for (i, step) in data.chunks_exact_mut(PANEL).enumerate() {
                    for (o, to) in step.iter_mut().enumerate() {
                        let half = |i: usize| u32::from(f32_to_bf16(at(panel * PANEL + o, i)));
                        *to = half(2 * i) | half(2 * i + 1) << 16;
                    }
                }
            }),
        }
    }

    pub(crate) fn get(&self, output: usize, input: usize) -> f32 {
        let (panel, lane) = (output / PANEL, output % PANEL);
        match &self.data {
            Elements::F32(data) => data[(panel * self.inputs + input) * PANEL + lane],
            Elements::Bf16(data) => {
                let pair = data[(panel * self.inputs.div_ceil(2) + input / 2) * PANEL + lane];
                bf16_to_f32((pair >> (16 * (input % 2))) as u16)
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match &self.data {
            Elements::F32(data) => data.len() * 4,
            Elements::Bf16(data) => data.len() * 4,
        }
    }

    pub(crate) fn precision(&self) -> Precision {
        match self.data {
            Elements::F32(_) => Precision::F32,
            Elements::Bf16(_) => Precision::Bf16,
        }
    }
}

/// A part of a packed matrix: `first_output` and `first_input` are multiples of sixteen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    pub(crate) packed: &'a Packed,
    pub(crate) first_output: usize,
    pub(crate) outputs: usize,
    pub(crate) first_input: usize,
    pub(crate) inputs: usize,
}

/// Where the rows of a matrix lie in a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) offset: usize,
    pub(crate) stride: usize,
}

impl At {
    pub(crate) fn row(self, t: usize) -> usize {
        self.offset + t * self.stride
    }
}

/// `out[t, o] = sum over i of x[t, i] * matrix[o, i]` for `rows` rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    pub(crate) matrix: Matrix<'a>,
    pub(crate) rows: usize,
    pub(crate) x: At,
    pub(crate) out: At,
}

/// `out[i, o] += sum over t of left[t, i] * right[t, o]` for `rows` rows `t`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    pub(crate) rows: usize,
    pub(crate) left: At,
    pub(crate) left_cols: usize,
    pub(crate) right: At,
    pub(crate) right_cols: usize,
}

/// Runs all products as one parallel region. Their outputs must not overlap.
pub(crate) fn multiply(_isa: Isa, pool: &Pool, out: &mut [f32], x: &[f32], products: &[Product], add: bool) {
    let out = &SharedMut::new(out);
    for p in products {
        pool.run(p.rows, |t| {
            // SAFETY: one task for each row, and rows do not overlap.
            let to = unsafe { out.range(p.out.row(t), p.matrix.outputs) };
            let x = &x[p.x.row(t)..][..p.matrix.inputs];
            let precision = p.matrix.packed.precision();
            for (o, to) in to.iter_mut().enumerate() {
                let term = |i: usize| {
                    rounded(x[i], precision) * p.matrix.packed.get(p.matrix.first_output + o, p.matrix.first_input + i)
                };
                let sum = chain(0..x.len(), precision, term);
                *to = if add { *to + sum } else { sum };
            }
        });
    }
}

/// Adds all outer products to `outs`, one for each, as one parallel region.
pub(crate) fn accumulate(
    _isa: Isa,
    pool: &Pool,
    outs: &mut [&mut [f32]],
    left: &[f32],
    right: &[f32],
    outers: &[Outer],
    precision: Precision,
) {
    for (out, p) in outs.iter_mut().zip(outers) {
        assert_eq!(out.len(), p.left_cols * p.right_cols, "gradient of {} x {} weights", p.left_cols, p.right_cols);
        if p.right_cols == 0 {
            continue;
        }
        pool.for_each_piece(out, p.right_cols, |i, row| {
            for (o, to) in row.iter_mut().enumerate() {
                let term = |t: usize| {
                    rounded(left[p.left.row(t) + i], precision) * rounded(right[p.right.row(t) + o], precision)
                };
                for t in (0..p.rows).step_by(SUM_BLOCK) {
                    *to += chain(t..(t + SUM_BLOCK).min(p.rows), precision, term);
                }
            }
        });
    }
}

fn rounded(value: f32, precision: Precision) -> f32 {
    crate::train::panels::rounded(value, precision)
}

/// The sum of `term` over `range` in the order of this module.
fn chain(range: std::ops::Range<usize>, precision: Precision, term: impl Fn(usize) -> f32) -> f32 {
    match precision {
        Precision::F32 => range.fold(0.0, |sum, i| sum + term(i)),
        Precision::Bf16 => range.clone().step_by(2).fold(0.0, |sum, i| {
            let sum = if i + 1 < range.end { sum + term(i + 1) } else { sum };
            sum + term(i)
        }),
    }
}

/// `matmul` where the weight is stored in panels; `false` (nothing done) where it is not.
pub(crate) fn forward(isa: Isa, pool: &Pool, out: &mut [f32], x: &[f32], w: &Weight) -> bool {
    let Some(view) = w.panels() else { return false };
    let at = |stride| At { offset: 0, stride };
    let rows = x.len() / w.cols();
    multiply(isa, pool, out, x, &[Product { matrix: view.by_row(), rows, x: at(w.cols()), out: at(w.rows()) }], false);
    true
}

/// `matmul_heads` where the weights are stored in panels; `false` (nothing done) where none is.
pub(crate) fn forward_heads(isa: Isa, pool: &Pool, out: &mut [f32], x: &[f32], heads: &[HeadWeight]) -> bool {
    if heads.iter().all(|head| head.weight.panels().is_none()) {
        return false;
    }
    multiply(isa, pool, out, x, &head_products(heads, x.len(), false), false);
    true
}

/// `matmul_grouped` where the weights are stored in panels; `false` (nothing done) where none is.
pub(crate) fn forward_grouped(isa: Isa, pool: &Pool, out: &mut [f32], x: &[f32], groups: &[(usize, &Weight)]) -> bool {
    if groups.iter().all(|(_, weight)| weight.panels().is_none()) {
        return false;
    }
    let products = group_products(groups, x.len(), out.len(), false);
    multiply(isa, pool, out, x, &products, false);
    true
}

/// The products of heads over `[T, heads, inputs]`, or (`backward`) of the gradients of their outputs.
///
/// # Panics
/// If heads differ in shape, or one is not in panels.
pub(crate) fn head_products(heads: &[HeadWeight], x_len: usize, backward: bool) -> Vec<Product<'_>> {
    let Some(first) = heads.first() else { return Vec::new() };
    let (mut inputs, mut outputs) = (first.inputs(), first.outputs());
    if backward {
        (inputs, outputs) = (outputs, inputs);
    }
    let (in_stride, out_stride) = (heads.len() * inputs, heads.len() * outputs);
    assert!(in_stride > 0 && x_len.is_multiple_of(in_stride), "{x_len} inputs in rows of {in_stride}");
    let mut products = Vec::with_capacity(heads.len());
    for (h, head) in heads.iter().enumerate() {
        assert!(head.inputs() == first.inputs() && head.outputs() == first.outputs(), "heads of one shape");
        let view = panels_of(&head.weight);
        // A transposed head multiplies with the other copy, and so does backward.
        let matrix = if head.transposed != backward { view.by_col() } else { view.by_row() };
        let x = At { offset: h * inputs, stride: in_stride };
        let out = At { offset: h * outputs, stride: out_stride };
        products.push(Product { matrix, rows: x_len / in_stride, x, out });
    }
    products
}

/// The products of groups of rows, or (`backward`) of the gradients of their outputs.
///
/// # Panics
/// If weights differ in shape, one is not in panels, or the lengths are not those of all groups.
pub(crate) fn group_products<'a>(
    groups: &[(usize, &'a Weight)],
    x_len: usize,
    out_len: usize,
    backward: bool,
) -> Vec<Product<'a>> {
    let Some(&(_, first)) = groups.first() else { return Vec::new() };
    let mut start = 0;
    let mut products = Vec::with_capacity(groups.len());
    for &(rows, weight) in groups {
        assert!(weight.rows() == first.rows() && weight.cols() == first.cols(), "experts of one shape");
        let view = panels_of(weight);
        let matrix = if backward { view.by_col() } else { view.by_row() };
        let at = |width: usize| At { offset: start * width, stride: width };
        products.push(Product { matrix, rows, x: at(matrix.inputs), out: at(matrix.outputs) });
        start += rows;
    }
    let (inputs, outputs) = (products[0].matrix.inputs, products[0].matrix.outputs);
    assert_eq!((x_len, out_len), (start * inputs, start * outputs), "{start} grouped rows");
    products
}

/// The panels of a weight.
///
/// # Panics
/// If it is stored in another way.
pub(crate) fn panels_of(weight: &Weight) -> crate::train::panels::PanelsView<'_> {
    let format = weight.format();
    weight.panels().unwrap_or_else(|| panic!("a {format} weight where all are in panels; pack it with Panels::pack"))
}

/// To the nearest bfloat16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The float that a bfloat16 stands for.
#[inline(always)]
pub(crate) fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}
