//! Sums over the lanes of many vectors at once, and products of a few rows with many.
//!
//! A score is one dot product: sixteen partial sums, added as the tree of [`Lanes::sum`]. Adding the
//! lanes of sixteen such vectors together takes a third of the instructions of one after the other,
//! with the same additions.

use crate::lanes::{Lanes, Part, Portable};

/// The lanes of several vectors, added.
///
/// # Safety
/// As [`Lanes`].
pub(super) trait Sums: Lanes {
    /// `to[i] = from[16 i ..][..16]`, its lanes added as the tree of [`Lanes::sum`], for `i` below `count`.
    ///
    /// # Safety
    /// The processor has the instruction set. `from` and `to` are valid for `count` vectors and floats,
    /// `count` rounded up to 16.
    #[inline(always)]
    unsafe fn sums(from: *const f32, count: usize, to: *mut f32) {
        for i in 0..count {
            // SAFETY: the caller's promise.
            unsafe { *to.add(i) = Self::load(from.add(16 * i)).sum() };
        }
    }
}

impl Sums for Portable {}

#[cfg(target_arch = "aarch64")]
impl Sums for crate::lanes::Neon {}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::Sums;
    use crate::lanes::{Avx2, Avx512};
    use std::arch::x86_64::*;

    // Every step adds the upper half of what is left of each vector to its lower half, for two vectors
    // at once: 16 lanes of 16 vectors become 8 of 8 pairs, 4, 2, 1. Which vectors are paired puts the
    // results in order.
    //
    // SAFETY (all blocks below): the processor has the instruction set and pointers are valid, both by the
    // trait's contract. Functions and not closures, for they must be inlined to be of that instruction set.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Sums for Avx512 {
        #[inline(always)]
        unsafe fn sums(from: *const f32, count: usize, to: *mut f32) {
            for first in (0..count).step_by(16) {
                unsafe {
                    let from = from.add(16 * first);
                    let (a, b) = (pairs_512(four_512(from), four_512(from.add(16))), from.add(32));
                    let b = pairs_512(four_512(b), four_512(b.add(16)));
                    let sums = _mm512_add_ps(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b));
                    _mm512_storeu_ps(to.add(first), sums);
                }
            }
        }
    }

    /// Vectors 0, 4, 8 and 12, each added up to four lanes.
    #[inline(always)]
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe fn four_512(from: *const f32) -> __m512 {
        unsafe {
            let (a, b) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(4 * 16)));
            let (c, d) = (_mm512_loadu_ps(from.add(8 * 16)), _mm512_loadu_ps(from.add(12 * 16)));
            let a = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
            let c = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(c, d), _mm512_shuffle_f32x4::<0xee>(c, d));
            _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, c), _mm512_shuffle_f32x4::<0xdd>(a, c))
        }
    }

    #[inline(always)]
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe fn pairs_512(a: __m512, b: __m512) -> __m512 {
        unsafe {
            let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
            let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
            _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
        }
    }

    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Sums for Avx2 {
        #[inline(always)]
        unsafe fn sums(from: *const f32, count: usize, to: *mut f32) {
            for first in (0..count).step_by(8) {
                unsafe {
                    let from = from.add(16 * first);
                    let (a, b) = (pairs_256(two_256(from), two_256(from.add(16))), from.add(32));
                    let b = pairs_256(two_256(b), two_256(b.add(16)));
                    let sums = _mm256_add_ps(_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b));
                    _mm256_storeu_ps(to.add(first), sums);
                }
            }
        }
    }

    /// Vectors 0 and 4, each added up to four lanes.
    #[inline(always)]
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe fn two_256(from: *const f32) -> __m256 {
        unsafe {
            let a = _mm256_add_ps(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)));
            let b = _mm256_add_ps(_mm256_loadu_ps(from.add(64)), _mm256_loadu_ps(from.add(72)));
            _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
        }
    }

    #[inline(always)]
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe fn pairs_256(a: __m256, b: __m256) -> __m256 {
        unsafe {
            let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
            let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
            _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
        }
    }
}

/// Rows of weights, `stride` floats apart: `rows[r][slots[k]]` is the weight of the `k`-th value.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) start: *const f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) slots: &'a [u8],
}

/// Adds to each row of `acc` the values, each times its weight, one after the other. A value is `width`
/// floats, a multiple of 16; values lie `value_stride` apart, rows of `acc` `width`.
///
/// # Safety
/// The processor has `V`'s instruction set. `acc` is valid for all rows, `values` for as many values as
/// there are slots, and each row of weights for every slot.
#[inline(always)]
pub(super) unsafe fn add_weighted<V: Lanes>(
    acc: *mut f32,
    weights: Weights,
    values: *const f32,
    value_stride: usize,
    width: usize,
) {
    let mut at = 0;
    // Where a vector is one register, four of them times six rows fill the registers; elsewhere one does.
    while V::Part::WIDTH == 16 && at + 64 <= width {
        // SAFETY: the caller's promise; `at + 64 <= width`.
        unsafe { add_columns::<V, 4>(acc.add(at), width, weights, values.add(at), value_stride) };
        at += 64;
    }
    while at < width {
        // SAFETY: the caller's promise; `width` is a multiple of 16.
        unsafe { add_columns::<V, 1>(acc.add(at), width, weights, values.add(at), value_stride) };
        at += 16;
    }
}

/// # Safety
/// As [`add_weighted`], for `C` vectors.
#[inline(always)]
unsafe fn add_columns<V: Lanes, const C: usize>(
    acc: *mut f32,
    acc_stride: usize,
    weights: Weights,
    values: *const f32,
    value_stride: usize,
) {
    let mut row = 0;
    while row < weights.rows {
        // SAFETY: the caller's promise; the rows taken are not more than are left.
        unsafe {
            let (to, from) = (acc.add(row * acc_stride), weights.start.add(row * weights.stride));
            let w = Weights { start: from, ..weights };
            row += match weights.rows - row {
                1 => add_rows::<V, 1, C>(to, acc_stride, w, values, value_stride),
                2 | 3 => add_rows::<V, 2, C>(to, acc_stride, w, values, value_stride),
                4 | 5 | 8 => add_rows::<V, 4, C>(to, acc_stride, w, values, value_stride),
                _ => add_rows::<V, 6, C>(to, acc_stride, w, values, value_stride),
            };
        }
    }
}

/// The number of rows that it has added to.
///
/// # Safety
/// As [`add_columns`], for `R` rows.
#[inline(always)]
unsafe fn add_rows<V: Lanes, const R: usize, const C: usize>(
    acc: *mut f32,
    acc_stride: usize,
    weights: Weights,
    values: *const f32,
    value_stride: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let at = |r: usize, c: usize| acc.add(r * acc_stride + 16 * c);
        let mut sums: [[V; C]; R] = std::array::from_fn(|r| std::array::from_fn(|c| V::load(at(r, c))));
        for (k, &slot) in weights.slots.iter().enumerate() {
            let value: [V; C] = std::array::from_fn(|c| V::load(values.add(k * value_stride + 16 * c)));
            for r in 0..R {
                let weight = V::splat(*weights.start.add(r * weights.stride + usize::from(slot)));
                for c in 0..C {
                    sums[r][c] = value[c].mul_add(weight, sums[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                sums[r][c].store(at(r, c));
            }
        }
    }
    R
}
