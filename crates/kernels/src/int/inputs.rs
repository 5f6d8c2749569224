//! Inputs of integer products: rows of floats as signed bytes with a scale for each block.
//!
//! A block of 32 or 256 elements (as the weights' blocks) with largest magnitude `a` is
//! `d = a / 127` times `q = round(x * (127 / a))`, ties to even, in -127..=127. Blocks below 2^-120
//! are zeros. A block with a NaN or an infinity has the scale NaN, so all outputs of its row are NaN.

use crate::isa::Isa;
use crate::pool::{Pool, SharedMut};
use crate::quant::compiled::compiled_for_isa;

/// Columns that lie together, for all rows: whole blocks of every format.
pub(super) const PIECE: usize = 256;
/// Sums of a piece in blocks of 256: of its sixteen 16s, then of its eight 32s.
pub(super) const SUMS: usize = 24;
/// Scales of a row are padded to a multiple of so many.
const PAD: usize = 8;
/// Elements below which handing out work to threads takes longer than the work.
const ALONE: usize = 16 * 1024;
/// Below it 127 / a is an infinity.
const LEAST: u32 = (127 - 120) << 23;

/// Sixty-four bytes at an address that is a multiple of 64: one load never crosses a line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(super) [i8; 64]);

/// Rows of signed bytes.
#[derive(Default)]
pub(super) struct Inputs {
    /// Elements of a block: 32 or 256.
    block: usize,
    rows: usize,
    pieces: usize,
    /// `[pieces, rows, PIECE]`, zeros after the last column.
    q: Vec<Line>,
    /// `[rows, scale_stride]`, a scale for each block, zeros after the last one.
    d: Vec<f32>,
    /// Blocks of 256: `[pieces, rows, SUMS]`.
    sums: Vec<i16>,
    /// Blocks of 32: `[rows, scale_stride]`, a sum for each block.
    block_sums: Vec<i32>,
}

impl Inputs {
    /// Takes in the rows of `x`, each `cols` long, which is a whole number of blocks.
    pub(super) fn fill(&mut self, isa: Isa, pool: &Pool, x: &[f32], cols: usize, block: usize) {
        (self.block, self.rows, self.pieces) = (block, x.len() / cols, cols.div_ceil(PIECE));
        let (rows, pieces, stride) = (self.rows, self.pieces, self.scale_stride());
        self.q.resize(pieces * rows * (PIECE / 64), Line([0; 64]));
        self.d.resize(rows * stride, 0.0);
        self.sums.resize(if block == PIECE { pieces * rows * SUMS } else { 0 }, 0);
        self.block_sums.resize(if block == PIECE { 0 } else { rows * stride }, 0);
        let (q, d) = (SharedMut::new(&mut self.q), SharedMut::new(&mut self.d));
        let (sums, block_sums) = (SharedMut::new(&mut self.sums), SharedMut::new(&mut self.block_sums));
        let one = |row: usize| {
            // SAFETY: ranges of this row, and each row is one task's; so are those below.
            let d = unsafe { d.range(row * stride, stride) };
            d[cols / block..].fill(0.0);
            let x = &x[row * cols..][..cols];
            for (piece, x) in x.chunks(PIECE).enumerate() {
                // SAFETY: as above.
                let q = unsafe { q.range((piece * rows + row) * (PIECE / 64), PIECE / 64) };
                let first = piece * (PIECE / block);
                let d = &mut d[first..][..x.len() / block];
                if block == PIECE {
                    // SAFETY: as above.
                    let sums = unsafe { sums.range((piece * rows + row) * SUMS, SUMS) };
                    large_block(isa, x, q, d, sums);
                } else {
                    // SAFETY: as above.
                    let sums = unsafe { block_sums.range(row * stride + first, x.len() / block) };
                    small_blocks(isa, x, q, d, sums);
                }
            }
        };
        if x.len() <= ALONE {
            (0..rows).for_each(one);
        } else {
            let each = rows.div_ceil(4 * pool.threads()).clamp(1, 16);
            pool.run(rows.div_ceil(each), |task| (task * each..((task + 1) * each).min(rows)).for_each(&one));
        }
    }

    /// Elements of a block.
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Scales from one row to the next.
    pub(super) fn scale_stride(&self) -> usize {
        if self.block == PIECE { self.pieces.next_multiple_of(PAD) } else { self.pieces * (PIECE / self.block) }
    }

    /// The bytes of a row's piece.
    #[inline(always)]
    pub(super) fn bytes(&self, row: usize, piece: usize) -> &[i8; PIECE] {
        assert!(row < self.rows && piece < self.pieces, "row {row} of {}, piece {piece}", self.rows);
        // SAFETY: four lines of plain bytes, inside the vector by the check above.
        unsafe { &*self.q.as_ptr().add((piece * self.rows + row) * (PIECE / 64)).cast::<[i8; PIECE]>() }
    }

    /// What kernels read of a row, valid for all its pieces and padded scales: bytes of the first piece
    /// and the step to the next, sums of it (null in blocks of 32) and the step to the next, sums of
    /// blocks of 32 (null in blocks of 256), scales.
    pub(super) fn pointers(&self, row: usize) -> (*const i8, usize, *const i16, usize, *const i32, *const f32) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let q = self.q[row * (PIECE / 64)..].as_ptr().cast::<i8>();
        let (q_step, sums_step) = (self.rows * PIECE, self.rows * SUMS);
        if self.block == PIECE {
            (q, q_step, self.sums[row * SUMS..].as_ptr(), sums_step, std::ptr::null(), self.scales(row).as_ptr())
        } else {
            (q, q_step, std::ptr::null(), 0, self.block_sums(row).as_ptr(), self.scales(row).as_ptr())
        }
    }

    /// The scales of a row's blocks.
    #[inline(always)]
    pub(super) fn scales(&self, row: usize) -> &[f32] {
        let stride = self.scale_stride();
        &self.d[row * stride..][..stride]
    }

    /// The sums of a row's blocks of 32.
    #[inline(always)]
    pub(super) fn block_sums(&self, row: usize) -> &[i32] {
        let stride = self.scale_stride();
        &self.block_sums[row * stride..][..stride]
    }
}

compiled_for_isa!(large_block = large_block_inline,
    (x: &[f32], q: &mut [Line], d: &mut [f32], sums: &mut [i16]));
compiled_for_isa!(small_blocks = small_blocks_inline,
    (x: &[f32], q: &mut [Line], d: &mut [f32], sums: &mut [i32]));

#[inline(always)]
fn large_block_inline(x: &[f32], q: &mut [Line], d: &mut [f32], sums: &mut [i16]) {
    let x: &[f32; PIECE] = x.as_array().expect("a whole block");
    let (scale, factor) = scale_of(x);
    d[0] = scale;
    for (x, q) in x.as_chunks::<64>().0.iter().zip(q.iter_mut()) {
        for (q, x) in q.0.iter_mut().zip(x) {
            *q = rounded(*x, factor);
        }
    }
    let (of_16, of_32) = sums.split_at_mut(16);
    for (q, sums) in q.iter().zip(of_16.as_chunks_mut::<4>().0) {
        for (q, sum) in q.0.as_chunks::<16>().0.iter().zip(sums) {
            *sum = q.iter().map(|&q| i16::from(q)).sum();
        }
    }
    of_32.iter_mut().zip(of_16.as_chunks::<2>().0).for_each(|(sum, [a, b])| *sum = a + b);
}

#[inline(always)]
fn small_blocks_inline(x: &[f32], q: &mut [Line], d: &mut [f32], sums: &mut [i32]) {
    for (i, x) in x.as_chunks::<32>().0.iter().enumerate() {
        let (scale, factor) = scale_of(x);
        d[i] = scale;
        let q: &mut [i8] = &mut q[i / 2].0[i % 2 * 32..][..32];
        for (q, x) in q.iter_mut().zip(x) {
            *q = rounded(*x, factor);
        }
        sums[i] = q.iter().map(|&q| i32::from(q)).sum();
    }
    // What is left of the piece.
    for i in x.len() / 32..PIECE / 32 {
        q[i / 2].0[i % 2 * 32..][..32].fill(0);
    }
}

/// The scale of a block and the factor that makes bytes of it.
#[inline(always)]
fn scale_of<const N: usize>(x: &[f32; N]) -> (f32, f32) {
    // Magnitudes order as their bits do, NaN above all.
    let mut largest = [0u32; 16];
    for x in x.as_chunks::<16>().0 {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = (*largest).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let bits = largest.into_iter().fold(0, u32::max);
    let a = f32::from_bits(bits);
    match bits {
        0x7f80_0000.. => (f32::NAN, 0.0),
        LEAST.. => (a / 127.0, 127.0 / a),
        _ => (0.0, 0.0),
    }
}

/// `x * factor` to nearest, ties to even; zero where the factor is, whatever `x`.
#[inline(always)]
fn rounded(x: f32, factor: f32) -> i8 {
    // Adding 1.5 * 2^23 leaves the integer in the lowest bits. (NaN: inf * 0.)
    let x = if factor == 0.0 { 0.0 } else { x * factor };
    (x + 12_582_912.0).to_bits() as i8
}
