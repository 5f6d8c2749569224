//! Integer products of many rows of inputs with AVX2: as `avx512_panel`, with panels of 16-bit scales that
//! are multiplied with pairs of products.

use std::arch::x86_64::*;

use super::avx2::{Registers, pairs};
use super::inputs::PIECE;
use super::x86::floats;
use super::{Climb, Few, Line, MOST_ROWS, PANEL, Scratch};

/// Where a panel has its parts, in bytes: for each four columns the four bytes of each output.
const U: usize = 0;
/// Blocks of 256: a group's scale for each output, twice 16 bits.
const SCALES: usize = U + PIECE * PANEL;
/// Scales of two groups for each output, 16 bits each; and minima.
const PAIRS: usize = SCALES + 16 * PANEL * 4;
const MINS: usize = PAIRS + 8 * PANEL * 4;
/// `d` of each block and output, then `m`.
const D: usize = MINS + 8 * PANEL * 4;
const M: usize = D + 8 * PANEL * 4;
const END: usize = M + 8 * PANEL * 4;

/// Rows of inputs in a tile, and registers of eight outputs.
const TILE: usize = 4;
const WIDTH: usize = 2;

/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "avx2,fma,f16c")]
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
                    let all = All { job, panel, sums: sums.as_mut_ptr(), rows, piece, pieces };
                    for outputs in (0..PANEL).step_by(8 * WIDTH) {
                        for t in (0..rows / TILE * TILE).step_by(TILE) {
                            tile::<F, TILE>(&all, first, t, outputs);
                        }
                        for t in rows / TILE * TILE..rows {
                            tile::<F, 1>(&all, first, t, outputs);
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
    rows: usize,
    piece: usize,
    pieces: usize,
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

type Ints<const R: usize> = [[__m256i; WIDTH]; R];
type Floats<const R: usize> = [[__m256; WIDTH]; R];

/// Adds a piece's products of rows `first + t ..` with outputs `outputs ..` of the panel.
#[inline(always)]
unsafe fn tile<F: Registers, const R: usize>(all: &All, first: usize, t: usize, outputs: usize) {
    let x: [X; R] = std::array::from_fn(|r| X::of(all, first + t + r));
    // SAFETY: the caller's promise.
    unsafe {
        let panel = all.panel.add(4 * outputs);
        let level =
            |level: usize, r: usize, i: usize| all.sums.add((level * all.rows + t + r) * PANEL + outputs + 8 * i);
        let (values, climb) = if F::BLOCK == 256 {
            let (s, min) = large::<F, R>(panel, &x);
            (values::<F, R>(panel, 0, &x, &s, &min), Climb::of(all.piece, all.pieces))
        } else {
            (small::<F, R>(panel, &x), Climb { fold: [false; 3], to: 3 })
        };
        for r in 0..R {
            for i in 0..WIDTH {
                let mut v = values[r][i];
                for l in 0..3 {
                    if climb.fold[l] {
                        v = _mm256_add_ps(_mm256_loadu_ps(level(l, r, i)), v);
                    }
                }
                if climb.to == 3 {
                    v = _mm256_add_ps(_mm256_loadu_ps(level(3, r, i)), v);
                }
                _mm256_storeu_ps(level(climb.to, r, i), v);
            }
        }
    }
}

/// `WIDTH` registers of the panel.
#[inline(always)]
unsafe fn load(from: *const u8) -> [__m256i; WIDTH] {
    // SAFETY: the caller's promise.
    unsafe { [_mm256_load_si256(from.cast()), _mm256_load_si256(from.add(32).cast())] }
}

/// Adds `columns` columns' products, times the scales (twice 16 bits), to the sums.
#[inline(always)]
unsafe fn multiply<F: Registers, const R: usize>(
    panel: *const u8,
    x: &[X; R],
    column: usize,
    columns: usize,
    scale: [__m256i; WIDTH],
    sums: &mut Ints<R>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for k in (column..column + columns).step_by(8) {
            let (a, b) = (load(panel.add(U + k * PANEL)), load(panel.add(U + (k + 4) * PANEL)));
            for r in 0..R {
                let qa = _mm256_set1_epi32(x[r].q.add(k).cast::<i32>().read_unaligned());
                let qb = _mm256_set1_epi32(x[r].q.add(k + 4).cast::<i32>().read_unaligned());
                for i in 0..WIDTH {
                    let (pa, pb) = (pairs::<F>(a[i], qa), pairs::<F>(b[i], qb));
                    let products = if F::WIDE {
                        _mm256_add_epi32(_mm256_madd_epi16(pa, scale[i]), _mm256_madd_epi16(pb, scale[i]))
                    } else {
                        // Four products of at most 63 * 127 fit 16 bits.
                        _mm256_madd_epi16(_mm256_add_epi16(pa, pb), scale[i])
                    };
                    sums[r][i] = _mm256_add_epi32(sums[r][i], products);
                }
            }
        }
    }
}

/// The two integer sums of a block of 256.
#[inline(always)]
unsafe fn large<F: Registers, const R: usize>(panel: *const u8, x: &[X; R]) -> (Ints<R>, Ints<R>) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut s: Ints<R> = [[_mm256_setzero_si256(); WIDTH]; R];
        for group in 0..PIECE / F::GROUP {
            let scale = load(panel.add(SCALES + group * PANEL * 4));
            multiply::<F, R>(panel, x, group * F::GROUP, F::GROUP, scale, &mut s);
        }
        let mut min: Ints<R> = [[_mm256_setzero_si256(); WIDTH]; R];
        if F::M.is_some() || F::LESS != 0 {
            for pair in 0..PIECE / F::GROUP / 2 {
                let scales = load(panel.add(PAIRS + pair * PANEL * 4));
                let mins = load(panel.add(MINS + pair * PANEL * 4));
                for r in 0..R {
                    let at = if F::GROUP == 16 { 0 } else { 16 };
                    let two = _mm256_set1_epi32(x[r].sums.add(at + 2 * pair).cast::<i32>().read_unaligned());
                    for i in 0..WIDTH {
                        if F::M.is_some() {
                            min[r][i] = _mm256_add_epi32(min[r][i], _mm256_madd_epi16(mins[i], two));
                        } else {
                            let less =
                                _mm256_mullo_epi32(_mm256_madd_epi16(scales[i], two), _mm256_set1_epi32(F::LESS));
                            s[r][i] = _mm256_sub_epi32(s[r][i], less);
                        }
                    }
                }
            }
        }
        (s, min)
    }
}

/// Eight blocks of 32: the sums of their trees.
#[inline(always)]
unsafe fn small<F: Registers, const R: usize>(panel: *const u8, x: &[X; R]) -> Floats<R> {
    // SAFETY: the caller's promise.
    unsafe {
        let zero: Floats<R> = [[_mm256_setzero_ps(); WIDTH]; R];
        let mut halves = zero;
        for half in 0..2 {
            let mut quarters = zero;
            for quarter in 0..2 {
                let first = 4 * half + 2 * quarter;
                let (a, b) = (small_block::<F, R>(panel, x, first), small_block::<F, R>(panel, x, first + 1));
                let both = added(&a, &b);
                quarters = if quarter == 0 { both } else { added(&quarters, &both) };
            }
            halves = if half == 0 { quarters } else { added(&halves, &quarters) };
        }
        halves
    }
}

#[inline(always)]
unsafe fn small_block<F: Registers, const R: usize>(panel: *const u8, x: &[X; R], block: usize) -> Floats<R> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut s: Ints<R> = [[_mm256_setzero_si256(); WIDTH]; R];
        let mut min = s;
        for r in 0..R {
            let sum = *x[r].block_sums.add(block);
            min[r] = [_mm256_set1_epi32(sum); WIDTH];
            s[r] = [_mm256_set1_epi32(-F::LESS * sum); WIDTH];
        }
        multiply::<F, R>(panel, x, 32 * block, 32, [_mm256_set1_epi16(1); WIDTH], &mut s);
        values::<F, R>(panel, block, x, &s, &min)
    }
}

#[inline(always)]
unsafe fn added<const R: usize>(a: &Floats<R>, b: &Floats<R>) -> Floats<R> {
    let mut out = *a;
    for r in 0..R {
        for i in 0..WIDTH {
            // SAFETY: the instruction set is the caller's promise.
            out[r][i] = unsafe { _mm256_add_ps(a[r][i], b[r][i]) };
        }
    }
    out
}

/// `(d * S + m * M) * x.d` of a block.
#[inline(always)]
unsafe fn values<F: Registers, const R: usize>(
    panel: *const u8,
    block: usize,
    x: &[X; R],
    s: &Ints<R>,
    min: &Ints<R>,
) -> Floats<R> {
    // SAFETY: the caller's promise.
    unsafe {
        let (d, m) = (load(panel.add(D + block * PANEL * 4)), load(panel.add(M + block * PANEL * 4)));
        let mut out = [[_mm256_setzero_ps(); WIDTH]; R];
        for r in 0..R {
            let scale = _mm256_set1_ps(*x[r].d.add(block));
            for i in 0..WIDTH {
                let mut value = _mm256_mul_ps(_mm256_castsi256_ps(d[i]), _mm256_cvtepi32_ps(s[r][i]));
                if F::M.is_some() {
                    let min = _mm256_mul_ps(_mm256_castsi256_ps(m[i]), _mm256_cvtepi32_ps(min[r][i]));
                    value = _mm256_add_ps(value, min);
                }
                out[r][i] = _mm256_mul_ps(value, scale);
            }
        }
        out
    }
}

/// Lays out a piece of outputs `n .. n + PANEL`; outputs that the task lacks repeat its last one.
#[inline(always)]
unsafe fn pack<F: Registers>(job: &Few, n: usize, piece: usize, panel: *mut u8) {
    let weight = &job.job.weight;
    let (first, last) = (piece * (PIECE / F::BLOCK), job.n.end - 1);
    let blocks = (job.cols / F::BLOCK - first).min(PIECE / F::BLOCK);
    for i in 0..PANEL {
        let row = (n + i).min(last);
        let w = &weight.data[row * weight.stride + first * F::BYTES..][..blocks * F::BYTES];
        // SAFETY: whole blocks, parts inside the panel; the instruction set is the caller's promise.
        unsafe {
            let word = |at: usize| panel.add(at + 4 * i).cast::<[i16; 2]>();
            for block in 0..blocks {
                let bytes = F::bytes(w.as_ptr().add(block * F::BYTES));
                let mut elements = [0i32; 64];
                for j in 0..F::BLOCK / 32 {
                    _mm256_storeu_si256(elements.as_mut_ptr().add(8 * j).cast(), bytes[j]);
                }
                for k in 0..F::BLOCK / 4 {
                    let at = U + (block * (F::BLOCK / 4) + k) * PANEL * 4 + 4 * i;
                    panel.add(at).cast::<i32>().write(elements[k]);
                }
            }
            if F::BLOCK == 256 {
                let (mut scale, mut min) = ([0i16; 16], [0i16; 16]);
                let (scales, mins) = F::scales_and_mins(w.as_ptr());
                _mm256_storeu_si256(scale.as_mut_ptr().cast(), scales);
                _mm256_storeu_si256(min.as_mut_ptr().cast(), mins);
                for g in 0..PIECE / F::GROUP {
                    word(SCALES + g * PANEL * 4).write([scale[g], scale[g]]);
                }
                for g in 0..PIECE / F::GROUP / 2 {
                    word(PAIRS + g * PANEL * 4).write([scale[2 * g], scale[2 * g + 1]]);
                    word(MINS + g * PANEL * 4).write([min[2 * g], min[2 * g + 1]]);
                }
            }
        }
    }
    for i in (0..PANEL).step_by(8) {
        let row = (n + i).min(last);
        let w = &weight.data[row * weight.stride + first * F::BYTES..][..blocks * F::BYTES];
        let s = &weight.scales[row * weight.scale_stride + first * F::SCALE_BYTES..][..blocks * F::SCALE_BYTES];
        let rows = (last + 1).saturating_sub(n + i).clamp(1, 8);
        for block in 0..PIECE / F::BLOCK {
            // SAFETY: as above; `rows` rows from this one on exist.
            unsafe {
                let (d, m) = if block < blocks {
                    let (w, s) = (w.as_ptr().add(block * F::BYTES), s.as_ptr().add(block * F::SCALE_BYTES));
                    floats::<F, false>(w, s, (weight.stride, weight.scale_stride), rows)
                } else {
                    (_mm256_setzero_ps(), _mm256_setzero_ps())
                };
                let at = (block * PANEL + i) * 4;
                _mm256_store_ps(panel.add(D + at).cast(), d);
                _mm256_store_ps(panel.add(M + at).cast(), m);
            }
        }
    }
}
