//! Few rows of inputs: going through rows and blocks, eight blocks at a time, in any instruction set.

use super::Few;
use super::coded::Coded;

/// Rows of inputs that are multiplied with weights once they are in registers.
pub(super) const TOGETHER: usize = 4;

/// A row of inputs.
#[derive(Clone, Copy)]
pub(super) struct X {
    /// Bytes of the first piece, and from a piece to the next.
    pub(super) q: *const i8,
    pub(super) q_step: usize,
    /// Sums of the first piece (blocks of 256), and from a piece to the next.
    pub(super) sums: *const i16,
    pub(super) sums_step: usize,
    /// Sums of all blocks of 32.
    pub(super) block_sums: *const i32,
    /// Scales of all blocks.
    pub(super) d: *const f32,
}

/// Products of eight blocks in some instruction set.
///
/// # Safety
/// The processor has the instruction set.
pub(super) trait Eight {
    type Format: Coded;
    /// Adds the products of the `count` blocks (eight, where `FULL`) at `start`, the first of which is
    /// block `first` of the row, to `out`.
    unsafe fn add<const T: usize, const FULL: bool>(
        start: *const u8,
        scales: *const u8,
        first: usize,
        count: usize,
        x: &[X; T],
        out: &mut [f32; T],
    );
}

/// All outputs of all rows of inputs.
///
/// # Safety
/// As [`Eight`].
#[inline(always)]
pub(super) unsafe fn few<E: Eight>(job: &Few) {
    for t in (0..job.rows).step_by(TOGETHER) {
        // SAFETY: the caller's promise.
        unsafe {
            match job.rows - t {
                1 => rows::<E, 1>(job, t),
                2 => rows::<E, 2>(job, t),
                3 => rows::<E, 3>(job, t),
                _ => rows::<E, 4>(job, t),
            }
        }
    }
}

/// All outputs of rows `t .. t + T`.
#[inline(always)]
unsafe fn rows<E: Eight, const T: usize>(job: &Few, t: usize) {
    let (weight, blocks) = (&job.job.weight, job.cols / E::Format::BLOCK);
    let x: [X; T] = std::array::from_fn(|i| {
        let (q, q_step, sums, sums_step, block_sums, d) = job.inputs.pointers(job.input_row(t + i));
        X { q, q_step, sums, sums_step, block_sums, d }
    });
    for n in job.n.clone() {
        let w = weight.data[n * weight.stride..][..blocks * E::Format::BYTES].as_ptr();
        let scales = weight.scales[n * weight.scale_stride..][..blocks * E::Format::SCALE_BYTES].as_ptr();
        let mut sums = [0.0f32; T];
        // SAFETY: all blocks lie inside the row of weights (the slices above) and of inputs (`pointers`);
        // the instruction set is the caller's promise.
        unsafe {
            for first in (0..blocks / 8 * 8).step_by(8) {
                eight::<E, T, true>(w, scales, first, 8, &x, &mut sums);
            }
            if blocks % 8 > 0 {
                eight::<E, T, false>(w, scales, blocks / 8 * 8, blocks % 8, &x, &mut sums);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            job.write(t + i, n, sum);
        }
    }
}

#[inline(always)]
unsafe fn eight<E: Eight, const T: usize, const FULL: bool>(
    w: *const u8,
    scales: *const u8,
    first: usize,
    count: usize,
    x: &[X; T],
    out: &mut [f32; T],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let start = w.add(first * E::Format::BYTES);
        let scales = scales.add(first * E::Format::SCALE_BYTES);
        E::add::<T, FULL>(start, scales, first, if FULL { 8 } else { count }, x, out);
    }
}
