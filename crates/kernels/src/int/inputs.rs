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

/// 1.5 * 2^23: added to a small float it leaves the nearest integer, ties to even, in the lowest bits.
const MAGIC: f32 = 12_582_912.0;

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
            // SAFETY: all ranges here are this row's, and each row is one task's.
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
    #[inline(always)]
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

compiled_for_isa!(large_block_compiled = large_block_inline,
    (x: &[f32], q: &mut [Line], d: &mut [f32], sums: &mut [i16]));
compiled_for_isa!(small_blocks = small_blocks_inline,
    (x: &[f32], q: &mut [Line], d: &mut [f32], sums: &mut [i32]));

/// A block of 256. AVX-512 has code of its own: the compiler makes gathers and single elements of the portable code.
fn large_block(isa: Isa, x: &[f32], q: &mut [Line], d: &mut [f32], sums: &mut [i16]) {
    #[cfg(target_arch = "x86_64")]
    if matches!(isa, Isa::Avx512 | Isa::Amx) {
        assert!(isa.is_available(), "{} code on a processor without it", isa.name());
        let (x, q) = (x.as_array().expect("a whole block"), q.as_mut_array().expect("four lines"));
        // SAFETY: the processor was just found to have the instruction set.
        return unsafe { large_block_avx512(x, q, &mut d[0], sums.as_mut_array().expect("sums of a block")) };
    }
    large_block_compiled(isa, x, q, d, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn large_block_avx512(x: &[f32; PIECE], q: &mut [Line; PIECE / 64], d: &mut f32, sums: &mut [i16; SUMS]) {
    use std::arch::x86_64::*;
    let (scale, factor) = scale_of(x);
    *d = scale;
    if factor == 0.0 {
        q.iter_mut().for_each(|line| line.0.fill(0));
        return sums.fill(0);
    }
    let (factor, magic) = (_mm512_set1_ps(factor), _mm512_set1_ps(MAGIC));
    let mut fours = [_mm512_setzero_si512(); PIECE / 64];
    for (line, (q, x)) in q.iter_mut().zip(x.as_chunks::<64>().0).enumerate() {
        for (q, x) in q.0.as_chunks_mut::<16>().0.iter_mut().zip(x.as_chunks::<16>().0) {
            // SAFETY: sixteen floats and sixteen bytes.
            unsafe {
                let x = _mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), factor);
                let bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(_mm512_add_ps(x, magic)));
                _mm_storeu_si128(q.as_mut_ptr().cast(), bytes);
            }
        }
        // SAFETY: 64 bytes.
        let q = unsafe { _mm512_load_si512(q.0.as_ptr().cast()) };
        let pairs = _mm512_maddubs_epi16(_mm512_set1_epi8(1), q);
        fours[line] = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
    }
    // Sums of four, four to a sixteenth of the block: element `4 k + i` of the sum is that of sixteen `k` of line `i`.
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(fours[0], fours[1]), _mm512_unpackhi_epi32(fours[0], fours[1]));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(fours[2], fours[3]), _mm512_unpackhi_epi32(fours[2], fours[3]));
    let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let of_16 = _mm512_cvtepi32_epi16(_mm512_permutexvar_epi32(order, all));
    let of_32 = _mm256_cvtepi32_epi16(_mm256_madd_epi16(of_16, _mm256_set1_epi16(1)));
    // SAFETY: 16 and 8 sums, of the 24.
    unsafe {
        _mm256_storeu_si256(sums.as_mut_ptr().cast(), of_16);
        _mm_storeu_si128(sums.as_mut_ptr().add(16).cast(), of_32);
    }
}

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
    // (NaN: inf * 0.)
    let x = if factor == 0.0 { 0.0 } else { x * factor };
    (x + MAGIC).to_bits() as i8
}
