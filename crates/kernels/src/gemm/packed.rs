//! Matrices in panels of sixteen outputs.

use super::micro::{Micro, PortableBf16, PortableF32, Step, bf16_to_f32};
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
    pub(crate) fn fill(&mut self, pool: &Pool, from: &[f32], stride: usize, transposed: bool) {
        let (outputs, inputs, precision) = (self.outputs, self.inputs, self.precision);
        if outputs == 0 || inputs == 0 {
            return;
        }
        let piece = self.stride();
        pool.for_each_piece(&mut self.data, piece, |panel, data| {
            let first = panel * PANEL;
            let count = (outputs - first).min(PANEL);
            // Rows of inputs with all sixteen outputs; those that do not exist stay zeros.
            let mut rows = [[0.0f32; PANEL]; 2];
            for (s, step) in data.iter_mut().enumerate() {
                for (half, row) in rows.iter_mut().enumerate() {
                    let i = s * step_inputs(precision) + half;
                    for (o, to) in row[..count].iter_mut().enumerate() {
                        *to = match (i < inputs, transposed) {
                            (false, _) => 0.0,
                            (true, false) => from[(first + o) * stride + i],
                            (true, true) => from[i * stride + first + o],
                        };
                    }
                }
                let [even, odd] = rows.each_ref().map(|row| row.as_ptr());
                // SAFETY: sixteen floats each, and one step to write.
                unsafe {
                    match precision {
                        Precision::F32 => PortableF32::pair(even, odd, step),
                        Precision::Bf16 => PortableBf16::pair(even, odd, step),
                    }
                }
            }
        });
    }

    pub(crate) fn get(&self, output: usize, input: usize) -> f32 {
        let step = &self.data[output / PANEL * self.stride() + input / step_inputs(self.precision)];
        let word = step.0[output % PANEL];
        match self.precision {
            Precision::F32 => f32::from_bits(word),
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
        Precision::F32 => 1,
        Precision::Bf16 => 2,
    }
}

/// Steps that hold `inputs`.
pub(crate) const fn steps(inputs: usize, precision: Precision) -> usize {
    inputs.div_ceil(step_inputs(precision))
}
