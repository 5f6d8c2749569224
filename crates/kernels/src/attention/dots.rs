//! Attention in bfloat16 with the processor's own dot products (AVX512-BF16).
//!
//! One instruction adds the products of sixteen pairs to sixteen sums, of each pair the odd one first: what
//! [`super::rounded`] does with floats in that order, and so with the same bits.

use std::arch::x86_64::*;

use super::rounded::{COLUMNS, HALF_PAGE, Words};

/// A vector of pairs.
///
/// # Safety
/// The processor has AVX-512; sixteen words at `from`.
#[inline(always)]
unsafe fn pairs(from: *const u32) -> __m512bh {
    // SAFETY: the caller's promise; both are 64 bytes of plain numbers.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
}

/// Sixteen partial sums of each of up to 24 keys with each of up to four queries: those of key `r` and query
/// `c` at `partial[c * stride + 16 * r]`. A key has `words` words, and so has a query, one after the other.
///
/// # Safety
/// The processor has AVX512-BF16; the rows are there, and room for the partial sums of the keys rounded up to
/// a multiple of six.
#[inline(always)]
pub(super) unsafe fn scores(
    keys: &[*const u16],
    (queries, columns): (*const u32, usize),
    words: usize,
    partial: *mut f32,
    stride: usize,
) {
    for r in (0..keys.len()).step_by(6) {
        // Keys past the last one repeat it; their sums are not used.
        let keys: [*const u32; 6] = std::array::from_fn(|i| keys[(r + i).min(keys.len() - 1)].cast());
        let to = partial.wrapping_add(16 * r);
        // SAFETY: the caller's promise.
        unsafe {
            match columns {
                1 => score_tile::<1>(keys, queries, words, to, stride),
                2 => score_tile::<2>(keys, queries, words, to, stride),
                3 => score_tile::<3>(keys, queries, words, to, stride),
                _ => score_tile::<4>(keys, queries, words, to, stride),
            }
        }
    }
}

/// # Safety
/// As [`scores`].
#[inline(always)]
unsafe fn score_tile<const C: usize>(
    keys: [*const u32; 6],
    queries: *const u32,
    words: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); C]; 6];
        for k in (0..words).step_by(16) {
            let mut q = [pairs(queries.add(k)); C];
            for c in 1..C {
                q[c] = pairs(queries.add(c * words + k));
            }
            for r in 0..6 {
                let key = pairs(keys[r].add(k));
                for c in 0..C {
                    sums[r][c] = _mm512_dpbf16_ps(sums[r][c], key, q[c]);
                }
            }
        }
        for r in 0..6 {
            for c in 0..C {
                _mm512_storeu_ps(to.add(c * stride + 16 * r), sums[r][c]);
            }
        }
    }
}

/// Lays out columns `at .. at + 32` of the page's values as pairs of positions: `to[pair * COLUMNS + column]`.
///
/// # Safety
/// The processor has AVX-512; each row is valid for these columns, and `to` for the pairs.
#[inline(always)]
pub(super) unsafe fn interleave(rows: &[*const u16; 2 * HALF_PAGE], pairs: usize, at: usize, to: *mut u32) {
    const FIRST: [u16; 32] = {
        let mut lanes = [0; 32];
        let mut i = 0;
        while i < 16 {
            (lanes[2 * i], lanes[2 * i + 1]) = (i as u16, 32 + i as u16);
            i += 1;
        }
        lanes
    };
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm512_loadu_si512(FIRST.as_ptr().cast());
        let second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
        for pair in 0..pairs {
            let even = _mm512_loadu_si512(rows[2 * pair].add(at).cast());
            let odd = _mm512_loadu_si512(rows[2 * pair + 1].add(at).cast());
            let to = to.add(pair * COLUMNS);
            _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi16(even, first, odd));
            _mm512_storeu_si512(to.add(16).cast(), _mm512_permutex2var_epi16(even, second, odd));
        }
    }
}

/// Adds to `vectors` times sixteen columns of some rows of `acc` (`width` apart) the values of `pairs` pairs,
/// weighted with the rows of `weights`.
///
/// # Safety
/// The processor has AVX512-BF16; the rows, weights and values are there.
#[inline(always)]
pub(super) unsafe fn add(
    acc: *mut f32,
    width: usize,
    weights: &[[Words; 2]],
    values: *const u32,
    pairs: usize,
    vectors: usize,
) {
    let mut at = 0;
    while at < vectors {
        let wide = vectors - at >= 4;
        let mut row = 0;
        while row < weights.len() {
            let w = weights[row].as_ptr().cast();
            // SAFETY: the caller's promise; the rows taken are not more than are left.
            unsafe {
                let (acc, values) = (acc.add(row * width + 16 * at), values.add(16 * at));
                row += match (weights.len() - row, wide) {
                    (1, true) => add_tile::<1, 4>(acc, width, w, values, pairs),
                    (2 | 3, true) => add_tile::<2, 4>(acc, width, w, values, pairs),
                    (4 | 5 | 8, true) => add_tile::<4, 4>(acc, width, w, values, pairs),
                    (_, true) => add_tile::<6, 4>(acc, width, w, values, pairs),
                    (1..6, false) => add_tile::<1, 1>(acc, width, w, values, pairs),
                    (_, false) => add_tile::<6, 1>(acc, width, w, values, pairs),
                };
            }
        }
        at += if wide { 4 } else { 1 };
    }
}

/// The number of rows that it has added to.
///
/// # Safety
/// As [`add`].
#[inline(always)]
unsafe fn add_tile<const R: usize, const C: usize>(
    acc: *mut f32,
    width: usize,
    weights: *const u32,
    values: *const u32,
    count: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); C]; R];
        for r in 0..R {
            for c in 0..C {
                sums[r][c] = _mm512_loadu_ps(acc.add(r * width + 16 * c));
            }
        }
        for pair in 0..count {
            let mut v = [pairs(values.add(pair * COLUMNS)); C];
            for c in 1..C {
                v[c] = pairs(values.add(pair * COLUMNS + 16 * c));
            }
            for r in 0..R {
                let weight = _mm512_set1_epi32(*weights.add(r * HALF_PAGE + pair) as i32);
                let weight = std::mem::transmute::<__m512i, __m512bh>(weight);
                for c in 0..C {
                    sums[r][c] = _mm512_dpbf16_ps(sums[r][c], weight, v[c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                _mm512_storeu_ps(acc.add(r * width + 16 * c), sums[r][c]);
            }
        }
    }
    R
}
