//! Integer products of many rows of inputs with AVX-512 VNNI, or on the tiles of AMX.
//!
//! A piece (256 columns) of 32 outputs is laid out as a panel: for each four columns the four bytes of
//! each output side by side, so that one instruction multiplies a row's four bytes with sixteen outputs.
//! Then six rows of inputs at a time go through the panel, which stays in the first-level cache.
//!
//! Tiles read the same panel: 32 rows of inputs at a time leave their integer sums in memory, from where
//! the same code takes them on. In blocks of 256, each weight is multiplied with its group's scale first;
//! the 16 bits of that are two panels, of the lower and the upper bytes, so that a whole block is one sum.

use std::arch::x86_64::*;

use std::ops::Range;

use super::avx512::{Registers, planes};
use super::inputs::PIECE;
use super::x86::floats;
use super::{Climb, Few, Line, MOST_ROWS, PANEL, Scratch};
use crate::amx::{Kind, Operands, TILE_BYTES, Tiles};

/// Where a panel has its parts, in bytes.
const U: usize = 0;
/// Blocks of 256: a scale for each group and output, 32 bits.
const SCALES: usize = U + PIECE * PANEL;
/// Minima of two groups for each output, 16 bits each.
const MINS: usize = SCALES + 16 * PANEL * 4;
/// `d` of each block and output, then `m`.
const D: usize = MINS + 8 * PANEL * 4;
const M: usize = D + 8 * PANEL * 4;
/// For tiles, blocks of 256: the upper bytes of the weights whose lower ones are at `U`.
const UPPER: usize = M + 8 * PANEL * 4;
const END: usize = UPPER + PIECE * PANEL;

/// Rows of inputs in a tile: its partial sums fill the registers.
const TILE: usize = 6;
/// Rows of inputs that go through AMX's tiles together.
const TILES_ROWS: usize = 2 * crate::amx::TILE;
/// Integers that they leave of each block of 32, or of the lower and of the upper bytes.
const TILES_SUMS: usize = TILES_ROWS * PANEL;

/// # Safety
/// The processor has the instructions, and (`TILES`) AMX.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn many<F: Registers, const TILES: bool>(job: &Few, scratch: &mut Scratch) {
    scratch.panel.resize(END / 64, Line([0; 64]));
    scratch.integers.resize(if TILES { 8 * TILES_SUMS * 4 / 64 } else { 0 }, Line([0; 64]));
    let (panel, integers) = (scratch.panel.as_mut_ptr().cast::<u8>(), scratch.integers.as_mut_ptr().cast::<i32>());
    // SAFETY: AMX is the caller's promise; there are no other tiles on this thread.
    let mut tiles = TILES.then(|| unsafe { Tiles::new([1, 0], TILE_BYTES) });
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
                    pack::<F, TILES>(job, n, piece, panel);
                    let large = F::BLOCK == 256;
                    let climb = if large { Climb::of(piece, pieces) } else { Climb { fold: [false; 3], to: 3 } };
                    let sums = sums.as_mut_ptr();
                    let all = All { job, panel, sums, integers, first, rows, climb, piece, offset: F::OFFSET };
                    through_all::<F, TILES>(&all, tiles.as_mut());
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
    /// What tiles leave: `[8 blocks of 32 | 2 planes, TILES_ROWS, PANEL]`.
    integers: *mut i32,
    /// The first row of inputs, and their number.
    first: usize,
    rows: usize,
    climb: Climb,
    piece: usize,
    /// [`OFFSET`](super::coded::Coded::OFFSET); zero for formats with minima.
    offset: i32,
}

/// Adds a piece's products with all rows to their sums.
///
/// # Safety
/// As [`through`]; there are tiles where `TILES` says so.
#[inline(always)]
unsafe fn through_all<F: Registers, const TILES: bool>(all: &All, tiles: Option<&mut Tiles>) {
    let (large, min) = (F::BLOCK == 256, F::M.is_some());
    // SAFETY: the caller's promise.
    unsafe {
        let Some(tiles) = tiles else {
            return match (large, F::GROUP, min) {
                (true, 16, false) => through::<true, 16, false, false>(all, 0..all.rows),
                (true, 16, true) => through::<true, 16, true, false>(all, 0..all.rows),
                (true, _, false) => through::<true, 32, false, false>(all, 0..all.rows),
                (true, _, true) => through::<true, 32, true, false>(all, 0..all.rows),
                (false, _, false) => through::<false, 32, false, false>(all, 0..all.rows),
                (false, _, true) => through::<false, 32, true, false>(all, 0..all.rows),
            };
        };
        for t in (0..all.rows).step_by(TILES_ROWS) {
            let rows = t..(t + TILES_ROWS).min(all.rows);
            on_tiles(all, tiles, rows.clone(), large);
            match (large, F::GROUP, min) {
                (true, 16, false) => through::<true, 16, false, true>(all, rows),
                (true, 16, true) => through::<true, 16, true, true>(all, rows),
                (true, _, false) => through::<true, 32, false, true>(all, rows),
                (true, _, true) => through::<true, 32, true, true>(all, rows),
                (false, _, false) => through::<false, 32, false, true>(all, rows),
                (false, _, true) => through::<false, 32, true, true>(all, rows),
            }
        }
    }
}

/// Leaves the integer sums of up to [`TILES_ROWS`] rows in `all.integers`.
///
/// # Safety
/// As [`through_all`].
#[inline(always)]
unsafe fn on_tiles(all: &All, tiles: &mut Tiles, rows: Range<usize>, large: bool) {
    let x = X::of(all, all.first + rows.start).q.cast::<u8>();
    let stride = all.job.job.step * PIECE;
    let blocks = [rows.len().min(crate::amx::TILE), rows.len().saturating_sub(crate::amx::TILE)];
    let row = PANEL * 4;
    let from = |inputs: usize, weights: [usize; 2], step: usize, steps: usize| Operands {
        inputs: [x.wrapping_add(inputs), x.wrapping_add(inputs + crate::amx::TILE * stride)],
        input_stride: stride,
        input_step: step,
        weights: weights.map(|at| all.panel.wrapping_add(at).cast()),
        weight_stride: row,
        steps,
    };
    // SAFETY: the inputs have these rows and the panel these columns; the rest is the caller's promise.
    unsafe {
        let place = |block: usize, half: usize| all.integers.add(block * TILES_SUMS + 16 * half).cast::<u8>();
        if large {
            tiles.reshape(blocks, TILE_BYTES);
            for half in 0..2 {
                tiles.zero();
                let weights = [U + 64 * half, UPPER + 64 * half];
                tiles.multiply(Kind::Planes, 2, &from(0, weights, TILE_BYTES, PIECE / TILE_BYTES));
                (0..2).for_each(|plane| tiles.store(plane, place(plane, half), row));
            }
            return;
        }
        tiles.reshape(blocks, 32);
        for block in 0..PIECE / 32 {
            tiles.zero();
            let weights = U + block * 32 * PANEL;
            tiles.multiply(Kind::Bytes, 2, &from(32 * block, [weights, weights + 64], 32, 1));
            (0..2).for_each(|half| tiles.store(half, place(block, half), row));
        }
    }
}

/// Adds a piece's products with some rows to their sums. A function for each shape of block, whatever the
/// format.
///
/// # Safety
/// The processor has the instructions; panel and sums have room for what `all` says.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn through<const LARGE: bool, const GROUP: usize, const MIN: bool, const TILES: bool>(
    all: &All,
    rows: Range<usize>,
) {
    let mut t = rows.start;
    while t < rows.end {
        // SAFETY: the caller's promise.
        unsafe {
            t += match rows.end - t {
                1 => tile::<LARGE, GROUP, MIN, TILES, 1>(all, t),
                2 => tile::<LARGE, GROUP, MIN, TILES, 2>(all, t),
                3 => tile::<LARGE, GROUP, MIN, TILES, 3>(all, t),
                4 => tile::<LARGE, GROUP, MIN, TILES, 4>(all, t),
                5 => tile::<LARGE, GROUP, MIN, TILES, 5>(all, t),
                _ => tile::<LARGE, GROUP, MIN, TILES, TILE>(all, t),
            }
        }
    }
}

/// Rows `t .. t + R` of [`through`]; returns `R`.
#[inline(always)]
unsafe fn tile<const LARGE: bool, const GROUP: usize, const MIN: bool, const TILES: bool, const R: usize>(
    all: &All,
    t: usize,
) -> usize {
    let x: [X; R] = std::array::from_fn(|r| X::of(all, all.first + t + r));
    // SAFETY: the caller's promise.
    unsafe {
        let sums = all.sums.add(t * PANEL);
        let left = all.integers.wrapping_add(t % TILES_ROWS * PANEL);
        if LARGE {
            large::<GROUP, MIN, TILES, R>(all, x, sums, left)
        } else {
            small::<MIN, TILES, R>(all, x, sums, left)
        }
    }
    R
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

/// Sixteen outputs twice, for each row.
type Ints<const R: usize> = [[__m512i; 2]; R];
type Floats<const R: usize> = [[__m512; 2]; R];

/// Adds `COLUMNS` columns' products to the sums.
#[inline(always)]
unsafe fn multiply<const R: usize>(u: *const u8, x: &[X; R], column: usize, columns: usize, sums: &mut Ints<R>) {
    // SAFETY: the caller's promise.
    unsafe {
        for k in (column..column + columns).step_by(4) {
            let w = [_mm512_load_si512(u.add(k * PANEL).cast()), _mm512_load_si512(u.add(k * PANEL + 64).cast())];
            for r in 0..R {
                let q = _mm512_set1_epi32(x[r].q.add(k).cast::<i32>().read_unaligned());
                sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], w[0], q);
                sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], w[1], q);
            }
        }
    }
}

/// The sums of products of a block of 256, group by group.
#[inline(always)]
unsafe fn by_groups<const GROUP: usize, const MIN: bool, const R: usize>(all: &All, x: &[X; R]) -> Ints<R> {
    // SAFETY: the caller's promise.
    unsafe {
        let panel = all.panel;
        let mut total: Ints<R> = [[_mm512_setzero_si512(); 2]; R];
        for group in 0..PIECE / GROUP {
            let mut part: Ints<R> = [[_mm512_setzero_si512(); 2]; R];
            if !MIN {
                for r in 0..R {
                    let at = if GROUP == 16 { group } else { 16 + group };
                    let offset = -all.offset * i32::from(*x[r].sums.add(at));
                    part[r] = [_mm512_set1_epi32(offset); 2];
                }
            }
            multiply(panel.add(U), x, group * GROUP, GROUP, &mut part);
            let scale = panel.add(SCALES + group * PANEL * 4);
            let scale = [_mm512_load_si512(scale.cast()), _mm512_load_si512(scale.add(64).cast())];
            for r in 0..R {
                for half in 0..2 {
                    total[r][half] = _mm512_add_epi32(total[r][half], _mm512_mullo_epi32(part[r][half], scale[half]));
                }
            }
        }
        total
    }
}

/// The sums of rows that tiles left of a block of 32, or of a plane.
#[inline(always)]
unsafe fn left_by_tiles<const R: usize>(left: *const i32, block: usize) -> Ints<R> {
    // SAFETY: the caller's promise.
    unsafe {
        let at = |r: usize, half: usize| left.add(block * TILES_SUMS + r * PANEL + 16 * half).cast();
        std::array::from_fn(|r| [_mm512_load_si512(at(r, 0)), _mm512_load_si512(at(r, 1))])
    }
}

/// A block of 256.
#[inline(always)]
unsafe fn large<const GROUP: usize, const MIN: bool, const TILES: bool, const R: usize>(
    all: &All,
    x: [X; R],
    sums: *mut f32,
    left: *const i32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let panel = all.panel;
        let total = if TILES {
            let (mut total, upper) = (left_by_tiles::<R>(left, 0), left_by_tiles::<R>(left, 1));
            for r in 0..R {
                for half in 0..2 {
                    total[r][half] = _mm512_add_epi32(total[r][half], _mm512_slli_epi32::<8>(upper[r][half]));
                }
            }
            total
        } else {
            by_groups::<GROUP, MIN, R>(all, &x)
        };
        let mut min: Ints<R> = [[_mm512_setzero_si512(); 2]; R];
        if MIN {
            for pair in 0..PIECE / GROUP / 2 {
                let mins = panel.add(MINS + pair * PANEL * 4);
                let mins = [_mm512_load_si512(mins.cast()), _mm512_load_si512(mins.add(64).cast())];
                for r in 0..R {
                    let at = if GROUP == 16 { 0 } else { 16 };
                    let two = _mm512_set1_epi32(x[r].sums.add(at + 2 * pair).cast::<i32>().read_unaligned());
                    min[r] =
                        [_mm512_dpwssd_epi32(min[r][0], mins[0], two), _mm512_dpwssd_epi32(min[r][1], mins[1], two)];
                }
            }
        }
        let level = |level: usize, r: usize, half: usize| sums.add((level * all.rows + r) * PANEL + 16 * half);
        let values = values::<MIN, R>(panel, 0, &x, &total, &min);
        for r in 0..R {
            for half in 0..2 {
                let mut v = values[r][half];
                for l in 0..3 {
                    if all.climb.fold[l] {
                        v = _mm512_add_ps(_mm512_loadu_ps(level(l, r, half)), v);
                    }
                }
                if all.climb.to == 3 {
                    v = _mm512_add_ps(_mm512_loadu_ps(level(3, r, half)), v);
                }
                _mm512_storeu_ps(level(all.climb.to, r, half), v);
            }
        }
    }
}

/// `(d * S + m * M) * x.d` of a block.
#[inline(always)]
unsafe fn values<const MIN: bool, const R: usize>(
    panel: *const u8,
    block: usize,
    x: &[X; R],
    s: &Ints<R>,
    min: &Ints<R>,
) -> Floats<R> {
    // SAFETY: the caller's promise.
    unsafe {
        let two = |at: usize| {
            let at = panel.add(at + block * PANEL * 4).cast::<f32>();
            [_mm512_load_ps(at), _mm512_load_ps(at.add(16))]
        };
        let (d, m) = (two(D), two(M));
        let mut out = [[_mm512_setzero_ps(); 2]; R];
        for r in 0..R {
            let scale = _mm512_set1_ps(*x[r].d.add(block));
            for half in 0..2 {
                let mut value = _mm512_mul_ps(d[half], _mm512_cvtepi32_ps(s[r][half]));
                if MIN {
                    let min = _mm512_mul_ps(m[half], _mm512_cvtepi32_ps(min[r][half]));
                    value = _mm512_add_ps(value, min);
                }
                out[r][half] = _mm512_mul_ps(value, scale);
            }
        }
        out
    }
}

/// Eight blocks of 32.
#[inline(always)]
unsafe fn small<const MIN: bool, const TILES: bool, const R: usize>(
    all: &All,
    x: [X; R],
    sums: *mut f32,
    left: *const i32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let zero: Floats<R> = [[_mm512_setzero_ps(); 2]; R];
        let mut halves = zero;
        for half in 0..2 {
            let mut quarters = zero;
            for quarter in 0..2 {
                let first = 4 * half + 2 * quarter;
                let a = small_block::<MIN, TILES, R>(all, &x, first, left);
                let b = small_block::<MIN, TILES, R>(all, &x, first + 1, left);
                let both = added(&a, &b);
                quarters = if quarter == 0 { both } else { added(&quarters, &both) };
            }
            halves = if half == 0 { quarters } else { added(&halves, &quarters) };
        }
        for r in 0..R {
            for half in 0..2 {
                let to = sums.add((3 * all.rows + r) * PANEL + 16 * half);
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), halves[r][half]));
            }
        }
    }
}

#[inline(always)]
unsafe fn small_block<const MIN: bool, const TILES: bool, const R: usize>(
    all: &All,
    x: &[X; R],
    block: usize,
    left: *const i32,
) -> Floats<R> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut part: Ints<R> = [[_mm512_setzero_si512(); 2]; R];
        let mut min = part;
        if TILES {
            part = left_by_tiles::<R>(left, block);
        }
        for r in 0..R {
            let sum = *x[r].block_sums.add(block);
            min[r] = [_mm512_set1_epi32(sum); 2];
            if !MIN {
                let less = _mm512_set1_epi32(all.offset * sum);
                (0..2).for_each(|half| part[r][half] = _mm512_sub_epi32(part[r][half], less));
            }
        }
        if !TILES {
            multiply(all.panel.add(U), x, 32 * block, 32, &mut part);
        }
        values::<MIN, R>(all.panel, block, x, &part, &min)
    }
}

#[inline(always)]
unsafe fn added<const R: usize>(a: &Floats<R>, b: &Floats<R>) -> Floats<R> {
    let mut out = *a;
    for r in 0..R {
        for half in 0..2 {
            // SAFETY: the instruction set is the caller's promise.
            out[r][half] = unsafe { _mm512_add_ps(a[r][half], b[r][half]) };
        }
    }
    out
}

/// Lays out a piece of outputs `n .. n + PANEL`; outputs that the task lacks repeat its last one.
#[inline(always)]
unsafe fn pack<F: Registers, const TILES: bool>(job: &Few, n: usize, piece: usize, panel: *mut u8) {
    let weight = &job.job.weight;
    let (first, last) = (piece * (PIECE / F::BLOCK), job.n.end - 1);
    let blocks = (job.cols / F::BLOCK - first).min(PIECE / F::BLOCK);
    let row = |i: usize| {
        let row = (n + i).min(last);
        let w = &weight.data[row * weight.stride + first * F::BYTES..][..blocks * F::BYTES];
        w.as_ptr()
    };
    // What is packed next: the row's next piece, or after the last one the same row of the next panel.
    let next = match (piece + 1) * PIECE < job.cols {
        true => PIECE / F::BLOCK * F::BYTES,
        false => (PANEL * weight.stride).wrapping_sub(first * F::BYTES),
    };
    // SAFETY: blocks inside the rows (the slices above) and parts inside the panel; the instruction set
    // is the caller's promise.
    unsafe {
        for half in 0..2 {
            let mut bytes = [[_mm512_setzero_si512(); 16]; 4];
            let mut upper = bytes;
            let mut integers = [_mm512_setzero_si512(); 16];
            for i in 0..16 {
                let w = row(16 * half + i);
                // So many rows at once are more than the processor foresees.
                for line in 0..(PIECE / F::BLOCK * F::BYTES).div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(next).wrapping_add(64 * line).cast());
                }
                if F::BLOCK == 256 {
                    let mut u = F::bytes(w);
                    let (scale, min) = F::scales_and_mins(w);
                    if TILES {
                        let [low, high] = planes::<F>(u, scale);
                        u = low;
                        (0..4).for_each(|j| upper[j][i] = high[j]);
                    }
                    (0..4).for_each(|j| bytes[j][i] = u[j]);
                    integers[i] = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(scale), min);
                } else {
                    for j in 0..blocks.div_ceil(2) {
                        bytes[j][i] = F::pair(w.add(2 * j * F::BYTES), w.add((2 * j + 1).min(blocks - 1) * F::BYTES));
                    }
                }
            }
            for j in 0..(blocks * F::BLOCK).div_ceil(64) {
                for (k, v) in transposed(&bytes[j]).into_iter().enumerate() {
                    _mm512_store_si512(panel.add(U + (16 * j + k) * PANEL * 4 + 64 * half).cast(), v);
                }
                if TILES && F::BLOCK == 256 {
                    for (k, v) in transposed(&upper[j]).into_iter().enumerate() {
                        _mm512_store_si512(panel.add(UPPER + (16 * j + k) * PANEL * 4 + 64 * half).cast(), v);
                    }
                }
            }
            if F::BLOCK == 256 {
                let pairs = transposed(&integers);
                for k in 0..PIECE / F::GROUP / 2 {
                    let scale = panel.add(SCALES + 2 * k * PANEL * 4 + 64 * half);
                    let even = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs[k]));
                    _mm512_store_si512(scale.cast(), even);
                    _mm512_store_si512(scale.add(PANEL * 4).cast(), _mm512_srai_epi32::<16>(pairs[k]));
                    _mm512_store_si512(panel.add(MINS + k * PANEL * 4 + 64 * half).cast(), pairs[8 + k]);
                }
            }
        }
    }
    // SAFETY: as above.
    unsafe { pack_floats::<F>(job, n, piece, panel) };
}

/// The floats of [`pack`]: `d` and `m` of each block and output, zeros for blocks that the piece lacks.
#[inline(always)]
unsafe fn pack_floats<F: Registers>(job: &Few, n: usize, piece: usize, panel: *mut u8) {
    let weight = &job.job.weight;
    let (first, last) = (piece * (PIECE / F::BLOCK), job.n.end - 1);
    let blocks = (job.cols / F::BLOCK - first).min(PIECE / F::BLOCK);
    // SAFETY: as `pack`; `rows` rows from each eighth on exist.
    unsafe {
        for i in (0..PANEL).step_by(8) {
            let row = (n + i).min(last);
            let w = weight.data[row * weight.stride + first * F::BYTES..][..blocks * F::BYTES].as_ptr();
            let s = row * weight.scale_stride + first * F::SCALE_BYTES;
            let s = weight.scales[s..][..blocks * F::SCALE_BYTES].as_ptr();
            let rows = (last + 1).saturating_sub(n + i).clamp(1, 8);
            for block in 0..PIECE / F::BLOCK {
                let (d, m) = if block < blocks {
                    let steps = (weight.stride, weight.scale_stride);
                    floats::<F, false>(w.add(block * F::BYTES), s.add(block * F::SCALE_BYTES), steps, rows)
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

/// Sixteen rows of sixteen 32-bit elements to sixteen columns.
#[inline(always)]
unsafe fn transposed(rows: &[__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        let mut a = *rows;
        for i in (0..16).step_by(2) {
            a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        // b[4 i + c]: in quarter q the elements 4 q + c of rows 4 i ..
        let mut b = a;
        for i in (0..16).step_by(4) {
            b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
            b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
            b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
            b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
        }
        let mut out = b;
        for c in 0..4 {
            let low = _mm512_shuffle_i32x4::<0b01_00_01_00>(b[c], b[4 + c]);
            let high = _mm512_shuffle_i32x4::<0b11_10_11_10>(b[c], b[4 + c]);
            let low2 = _mm512_shuffle_i32x4::<0b01_00_01_00>(b[8 + c], b[12 + c]);
            let high2 = _mm512_shuffle_i32x4::<0b11_10_11_10>(b[8 + c], b[12 + c]);
            out[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low2);
            out[4 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low2);
            out[8 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high2);
            out[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high2);
        }
        out
    }
}
