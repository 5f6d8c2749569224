//! Integer products of many rows of inputs for 64-bit Arm with SMMLA, which multiplies two rows of eight bytes
//! with two outputs' eight bytes.
//!
//! A piece (256 columns) of 32 outputs is laid out as a panel: for each eight columns the bytes of each output
//! side by side. Then four rows of inputs at a time go through the panel.

use std::arch::aarch64::*;
use std::arch::asm;

use super::inputs::PIECE;
use super::neon::Registers;
use super::{Climb, Few, Line, MOST_ROWS, PANEL, Scratch};

/// Where a panel has its parts, in bytes: the elements less their offset.
const W: usize = 0;
/// Blocks of 256: a group's scale for each output, 32 bits, and its minimum.
const SCALES: usize = W + PIECE * PANEL;
const MINS: usize = SCALES + 16 * PANEL * 4;
/// `d` of each block and output, then `m`.
const D: usize = MINS + 16 * PANEL * 4;
const M: usize = D + 8 * PANEL * 4;
const END: usize = M + 8 * PANEL * 4;

/// Rows of inputs in a tile.
const ROWS: usize = 4;
/// Outputs in a tile.
const WIDTH: usize = 8;

/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn many<F: Registers>(job: &Few, scratch: &mut Scratch) {
    scratch.panel.resize(END / 64, Line([0; 64]));
    let panel = scratch.panel.as_mut_ptr().cast::<u8>();
    let pieces = job.cols.div_ceil(PIECE);
    for n in job.n.clone().step_by(PANEL) {
        for first in (0..job.rows).step_by(MOST_ROWS) {
            let rows = (job.rows - first).min(MOST_ROWS);
            // The levels of the tree and the outputs' sums: `[4, rows, PANEL]`.
            let sums = crate::tile::room(&mut scratch.sums, 4 * rows * PANEL);
            sums[3 * rows * PANEL..].fill(0.0);
            for piece in 0..pieces {
                // SAFETY: `panel` has room for a panel, `sums` for these rows; the instruction set is the
                // caller's promise.
                unsafe {
                    pack::<F>(job, n, piece, panel);
                    let large = F::BLOCK == 256;
                    let climb = if large { Climb::of(piece, pieces) } else { Climb { fold: [false; 3], to: 3 } };
                    let all = All { job, panel, sums: sums.as_mut_ptr(), rows, piece, climb };
                    for t in (0..rows).step_by(ROWS) {
                        let x = std::array::from_fn(|r| X::of(&all, first + (t + r).min(rows - 1)));
                        for outputs in (0..PANEL).step_by(WIDTH) {
                            tile::<F>(&all, &x, t, outputs);
                        }
                    }
                }
            }
            let outputs = (job.n.end - n).min(PANEL);
            for (t, row) in sums[3 * rows * PANEL..].chunks_exact(PANEL).enumerate() {
                job.write_row(first + t, n, &row[..outputs]);
            }
        }
    }
}

/// What the tiles of a piece share.
struct All<'a> {
    job: &'a Few<'a>,
    panel: *const u8,
    sums: *mut f32,
    /// Rows of inputs.
    rows: usize,
    piece: usize,
    climb: Climb,
}

/// A piece of a row of inputs.
#[derive(Clone, Copy)]
struct X {
    q: *const i8,
    sums: *const i16,
    /// From the piece's first block on.
    block_sums: *const i32,
    d: *const f32,
}

impl X {
    #[inline(always)]
    fn of(all: &All, t: usize) -> X {
        let (q, q_step, sums, sums_step, block_sums, d) = all.job.inputs.pointers(all.job.input_row(t));
        let blocks = all.piece * (PIECE / all.job.inputs.block());
        X {
            q: q.wrapping_add(all.piece * q_step),
            sums: sums.wrapping_add(all.piece * sums_step),
            block_sums: block_sums.wrapping_add(blocks),
            d: d.wrapping_add(blocks),
        }
    }
}

/// Two rows (the halves of a register) with two outputs each: `[pairs of rows][pairs of outputs]`.
type Pairs = [[int32x4_t; WIDTH / 2]; ROWS / 2];
/// Four outputs twice, for each row.
type Ints = [[int32x4_t; WIDTH / 4]; ROWS];
type Floats = [[float32x4_t; WIDTH / 4]; ROWS];

/// Adds a piece's products of rows `t ..` with outputs `outputs ..` of the panel.
#[inline(always)]
unsafe fn tile<F: Registers>(all: &All, x: &[X; ROWS], t: usize, outputs: usize) {
    // SAFETY: the caller's promise; rows after the last one are not stored.
    unsafe {
        let values = if F::BLOCK == 256 { large::<F>(all, x, outputs) } else { small::<F>(all, x, outputs) };
        for r in 0..ROWS.min(all.rows - t) {
            for i in 0..WIDTH / 4 {
                let level = |level: usize| all.sums.add((level * all.rows + t + r) * PANEL + outputs + 4 * i);
                let mut v = values[r][i];
                for l in 0..3 {
                    if all.climb.fold[l] {
                        v = vaddq_f32(vld1q_f32(level(l)), v);
                    }
                }
                if all.climb.to == 3 {
                    v = vaddq_f32(vld1q_f32(level(3)), v);
                }
                vst1q_f32(level(all.climb.to), v);
            }
        }
    }
}

/// Two rows' eight bytes times two outputs' eight bytes, added: row 0 with both outputs, then row 1.
#[inline(always)]
unsafe fn smmla(sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: the instruction is the caller's promise.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) x, in(vreg) w,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// The products of columns `columns`.
#[inline(always)]
unsafe fn products(all: &All, x: &[X; ROWS], columns: std::ops::Range<usize>, outputs: usize) -> Pairs {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums: Pairs = [[vdupq_n_s32(0); WIDTH / 2]; ROWS / 2];
        for k in columns.step_by(8) {
            let w = all.panel.add(W + (k * PANEL + outputs * 8)).cast::<i8>();
            for r in 0..ROWS / 2 {
                let x = vcombine_s8(vld1_s8(x[2 * r].q.add(k)), vld1_s8(x[2 * r + 1].q.add(k)));
                for o in 0..WIDTH / 2 {
                    sums[r][o] = smmla(sums[r][o], x, vld1q_s8(w.add(16 * o)));
                }
            }
        }
        sums
    }
}

/// Pairs of rows and outputs as rows.
#[inline(always)]
unsafe fn rows_of(pairs: &Pairs) -> Ints {
    // SAFETY: part of the architecture.
    unsafe {
        let mut out: Ints = [[vdupq_n_s32(0); WIDTH / 4]; ROWS];
        for r in 0..ROWS / 2 {
            for i in 0..WIDTH / 4 {
                let (a, b) = (vreinterpretq_s64_s32(pairs[r][2 * i]), vreinterpretq_s64_s32(pairs[r][2 * i + 1]));
                out[2 * r][i] = vreinterpretq_s32_s64(vtrn1q_s64(a, b));
                out[2 * r + 1][i] = vreinterpretq_s32_s64(vtrn2q_s64(a, b));
            }
        }
        out
    }
}

/// A block of 256.
#[inline(always)]
unsafe fn large<F: Registers>(all: &All, x: &[X; ROWS], outputs: usize) -> Floats {
    // SAFETY: the caller's promise.
    unsafe {
        let mut total: Pairs = [[vdupq_n_s32(0); WIDTH / 2]; ROWS / 2];
        let mut min: Ints = [[vdupq_n_s32(0); WIDTH / 4]; ROWS];
        for g in 0..PIECE / F::GROUP {
            let part = products(all, x, g * F::GROUP..(g + 1) * F::GROUP, outputs);
            let scale = all.panel.add(SCALES + (g * PANEL + outputs) * 4).cast::<i64>();
            for o in 0..WIDTH / 2 {
                let both = vreinterpretq_s32_s64(vld1q_dup_s64(scale.add(o)));
                for r in 0..ROWS / 2 {
                    total[r][o] = vmlaq_s32(total[r][o], part[r][o], both);
                }
            }
            if F::M.is_some() {
                let mins = all.panel.add(MINS + (g * PANEL + outputs) * 4).cast::<i32>();
                let at = if F::GROUP == 16 { g } else { 16 + g };
                for r in 0..ROWS {
                    let sum = i32::from(*x[r].sums.add(at));
                    (0..WIDTH / 4).for_each(|i| min[r][i] = vmlaq_n_s32(min[r][i], vld1q_s32(mins.add(4 * i)), sum));
                }
            }
        }
        values::<F>(all, x, 0, outputs, &rows_of(&total), &min)
    }
}

/// Eight blocks of 32: the sums of their trees. (Loops and no closures: those are not always inlined into code
/// that has the instructions.)
#[inline(always)]
unsafe fn small<F: Registers>(all: &All, x: &[X; ROWS], outputs: usize) -> Floats {
    // SAFETY: the caller's promise.
    unsafe {
        let zero: Floats = [[vdupq_n_f32(0.0); WIDTH / 4]; ROWS];
        let mut halves = [zero; 2];
        for half in 0..2 {
            let mut quarters = [zero; 2];
            for quarter in 0..2 {
                let first = 4 * half + 2 * quarter;
                let (a, b) = (small_block::<F>(all, x, first, outputs), small_block::<F>(all, x, first + 1, outputs));
                quarters[quarter] = added(&a, &b);
            }
            halves[half] = added(&quarters[0], &quarters[1]);
        }
        added(&halves[0], &halves[1])
    }
}

#[inline(always)]
unsafe fn small_block<F: Registers>(all: &All, x: &[X; ROWS], block: usize, outputs: usize) -> Floats {
    // SAFETY: the caller's promise.
    unsafe {
        let sums = rows_of(&products(all, x, 32 * block..32 * (block + 1), outputs));
        let mut min: Ints = [[vdupq_n_s32(0); WIDTH / 4]; ROWS];
        if F::M.is_some() {
            for r in 0..ROWS {
                min[r] = [vdupq_n_s32(*x[r].block_sums.add(block)); WIDTH / 4];
            }
        }
        values::<F>(all, x, block, outputs, &sums, &min)
    }
}

#[inline(always)]
unsafe fn added(a: &Floats, b: &Floats) -> Floats {
    let mut out = *a;
    for r in 0..ROWS {
        for i in 0..WIDTH / 4 {
            // SAFETY: part of the architecture.
            out[r][i] = unsafe { vaddq_f32(a[r][i], b[r][i]) };
        }
    }
    out
}

/// `(d * S + m * M) * x.d` of a block.
#[inline(always)]
unsafe fn values<F: Registers>(all: &All, x: &[X; ROWS], block: usize, outputs: usize, s: &Ints, min: &Ints) -> Floats {
    // SAFETY: the caller's promise.
    unsafe {
        let at = |part: usize, i: usize| {
            vld1q_f32(all.panel.add(part + (block * PANEL + outputs + 4 * i) * 4).cast::<f32>())
        };
        let mut out: Floats = [[vdupq_n_f32(0.0); WIDTH / 4]; ROWS];
        for i in 0..WIDTH / 4 {
            let (d, m) = (at(D, i), at(M, i));
            for r in 0..ROWS {
                let mut value = vmulq_f32(d, vcvtq_f32_s32(s[r][i]));
                if F::M.is_some() {
                    value = vaddq_f32(value, vmulq_f32(m, vcvtq_f32_s32(min[r][i])));
                }
                out[r][i] = vmulq_n_f32(value, *x[r].d.add(block));
            }
        }
        out
    }
}

/// Lays out a piece of outputs `n .. n + PANEL`; outputs that the task lacks repeat its last one.
#[inline(always)]
unsafe fn pack<F: Registers>(job: &Few, n: usize, piece: usize, panel: *mut u8) {
    let (first, last) = (piece * (PIECE / F::BLOCK), job.n.end - 1);
    let blocks = (job.cols / F::BLOCK - first).min(PIECE / F::BLOCK);
    for i in 0..PANEL {
        let row = (n + i).min(last);
        // SAFETY: whole blocks; parts inside the panel.
        unsafe {
            let word = |at: usize, group: usize| panel.add(at + (group * PANEL + i) * 4);
            for block in 0..PIECE / F::BLOCK {
                if block >= blocks {
                    word(D, block).cast::<f32>().write(0.0);
                    word(M, block).cast::<f32>().write(0.0);
                    continue;
                }
                let (bytes, scale) = job.block::<F>(row, first + block);
                let w = F::bytes(bytes.as_ptr());
                for (k, &w) in w[..F::BLOCK / 16].iter().enumerate() {
                    let to = panel.add(W + (block * F::BLOCK + 16 * k) * PANEL + i * 8).cast::<i8>();
                    vst1_s8(to, vget_low_s8(w));
                    vst1_s8(to.add(8 * PANEL), vget_high_s8(w));
                }
                word(D, block).cast::<f32>().write(F::d(bytes, scale));
                word(M, block).cast::<f32>().write(F::m(bytes).unwrap_or(0.0));
                if F::BLOCK == 256 {
                    let (scales, mins) = F::scales(bytes);
                    for g in 0..PIECE / F::GROUP {
                        word(SCALES, g).cast::<i32>().write(i32::from(scales[g]));
                        word(MINS, g).cast::<i32>().write(i32::from(mins[g]));
                    }
                }
            }
        }
    }
}
