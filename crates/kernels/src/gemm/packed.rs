//! Matrices in panels of sixteen outputs.

use super::Kernels;
use super::micro::{self, Micro, Step, bf16_to_f32};
use super::tasks::{pack_block, pack_inputs};
use crate::pool::Pool;
use crate::train::panels::Precision;

/// Outputs in a panel.
pub(crate) const PANEL: usize = 16;

/// A matrix in panels: `[outputs / 16][steps]` steps of sixteen, zeros where a panel or a pair is not
/// full.
#[derive(Debug)]
pub(crate) struct Packed {
    outputs: usize,
    inputs: usize,
    precision: Precision,
    data: Vec<Step>,
}

/// A part of a packed matrix: `first_output` and `first_input` are multiples of sixteen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    packed: &'a Packed,
    first_output: usize,
    first_input: usize,
    /// Outputs of the part.
    pub(crate) outputs: usize,
    /// Inputs of the part.
    pub(crate) inputs: usize,
}

impl Packed {
    /// A matrix of zeros.
    pub(crate) fn zeros(outputs: usize, inputs: usize, precision: Precision) -> Packed {
        let data = vec![Step([0; 16]); outputs.div_ceil(PANEL) * steps(inputs, precision)];
        Packed { outputs, inputs, precision, data }
    }

    /// Steps from one panel to the next.
    fn stride(&self) -> usize {
        steps(self.inputs, self.precision)
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Matrix<'_> {
        self.part(0, self.outputs, 0, self.inputs)
    }

    /// `outputs` outputs from `first_output` (a multiple of sixteen, and so is the end where it is not
    /// the last output), and the like of the inputs.
    pub(crate) fn part(&self, first_output: usize, outputs: usize, first_input: usize, inputs: usize) -> Matrix<'_> {
        assert!(first_output + outputs <= self.outputs && first_input + inputs <= self.inputs, "inside the matrix");
        let whole = |at: usize, all: usize| at.is_multiple_of(PANEL) || at == all;
        assert!(whole(first_output, self.outputs) && whole(first_input, self.inputs), "whole panels");
        Matrix { packed: self, first_output, first_input, outputs, inputs }
    }

    /// Writes all elements from rows of `stride` floats: row `o` holds the inputs of output `o`, or
    /// (`transposed`) row `i` holds input `i` of all outputs.
    pub(crate) fn fill(&mut self, kernels: Kernels, pool: &Pool, from: &[f32], stride: usize, transposed: bool) {
        let (outputs, inputs, precision) = (self.outputs, self.inputs, self.precision);
        if outputs == 0 || inputs == 0 {
            return;
        }
        let piece = self.stride();
        pool.for_each_piece(&mut self.data, piece, |panel, to| {
            let part = Part { first: panel * PANEL, count: (outputs - panel * PANEL).min(PANEL), inputs, stride };
            if transposed {
                dispatch!(kernels, precision, fill_from_inputs(part: Part, from: &[f32], to: &mut [Step]));
            } else {
                dispatch!(kernels, precision, fill_from_outputs(part: Part, from: &[f32], to: &mut [Step]));
            }
        });
    }

    pub(crate) fn get(&self, output: usize, input: usize) -> f32 {
        let step = &self.data[output / PANEL * self.stride() + input / step_inputs(self.precision)];
        let word = step.0[output % PANEL];
        match self.precision {
            Precision::F32 | Precision::Fp8 => f32::from_bits(word),
            Precision::Bf16 => bf16_to_f32((word >> (16 * (input % 2))) as u16),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }
}

impl Matrix<'_> {
    pub(crate) fn precision(&self) -> Precision {
        self.packed.precision
    }

    /// The panel of output `16 panel`, from input `input` (a multiple of sixteen) on, and the steps from
    /// one panel to the next.
    pub(crate) fn panel(&self, panel: usize, input: usize) -> (&[Step], usize) {
        let stride = self.packed.stride();
        let start = (self.first_output / PANEL + panel) * stride
            + (self.first_input + input) / step_inputs(self.packed.precision);
        (&self.packed.data[start..], stride)
    }
}

/// Inputs in a step.
pub(crate) const fn step_inputs(precision: Precision) -> usize {
    match precision {
        Precision::F32 | Precision::Fp8 => 1,
        Precision::Bf16 => 2,
    }
}

/// Steps that hold `inputs`.
pub(crate) const fn steps(inputs: usize, precision: Precision) -> usize {
    inputs.div_ceil(step_inputs(precision))
}

/// Which outputs a panel holds, and the distance between the rows that it is filled from.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    count: usize,
    inputs: usize,
    stride: usize,
}

/// A panel from rows that hold all outputs of an input.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn fill_from_inputs<V: Micro>(part: Part, from: &[f32], to: &mut [Step]) {
    let row = |i: usize| &from[i * part.stride + part.first..][..part.count];
    let stride = to.len();
    // SAFETY: the instruction set is the caller's promise.
    unsafe { pack_block::<V>(row, 0..part.inputs, to, stride) };
}

/// A panel from rows that hold all inputs of an output: thirty-two inputs of sixteen rows at a time are
/// rounded, and turned in the first-level cache.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn fill_from_outputs<V: Micro>(part: Part, from: &[f32], to: &mut [Step]) {
    let mut rows = [[Step([0; 16]); 2]; PANEL];
    for (k, to) in (0..part.inputs).step_by(32).zip(to.chunks_mut(32 / V::STEP)) {
        let len = (part.inputs - k).min(32);
        for (o, row) in rows[..part.count].iter_mut().enumerate() {
            // SAFETY: the instruction set is the caller's promise.
            unsafe { pack_inputs::<V>(&from[(part.first + o) * part.stride + k..][..len], row) };
        }
        for (s, step) in to.iter_mut().enumerate() {
            *step = Step(std::array::from_fn(|o| rows[o][s / 16].0[s % 16]));
        }
    }
}
