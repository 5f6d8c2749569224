//! What the integer products of the x86-64 instruction sets share: the floats of eight blocks, which are one
//! AVX2 register.
//!
//! (No closures around instructions in hot loops: the compiler does not always inline them into code that
//! has the instruction set.)

use std::arch::x86_64::*;

use super::coded::{Coded, Scale};
use crate::quant::int::e8m0_half_to_f32;

/// `(d * S + m * M) * x.d` of eight blocks and the sum of their tree.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn value<F: Coded, const FULL: bool>(
    (d, m): (__m256, __m256),
    s: __m256i,
    min: __m256i,
    scales: *const f32,
    count: usize,
) -> f32 {
    // SAFETY: the caller's promise; scales are padded to eights.
    unsafe {
        let mut value = _mm256_mul_ps(d, _mm256_cvtepi32_ps(s));
        if F::M.is_some() {
            value = _mm256_add_ps(value, _mm256_mul_ps(m, _mm256_cvtepi32_ps(min)));
        }
        tree::<FULL>(_mm256_mul_ps(value, _mm256_loadu_ps(scales)), count)
    }
}

/// How far ahead weights are asked for, in bytes: what memory delivers while one line is under way (some 100 ns at 40
/// GB/s), and as much again. The processor by itself asks only within a page of 4 KiB.
pub(super) const AHEAD: usize = 8192;

/// Eight lanes from `8 - count` on: the first `count`.
const FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The sum of the first `count` of `values` as the tree of an eight.
#[inline(always)]
unsafe fn tree<const FULL: bool>(values: __m256, count: usize) -> f32 {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        let v = if FULL {
            values
        } else {
            let mask = _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast());
            _mm256_and_ps(values, _mm256_castsi256_ps(mask))
        };
        let pairs = _mm256_add_ps(v, _mm256_movehdup_ps(v));
        let fours = _mm256_add_ps(pairs, _mm256_permute_ps::<0b10>(pairs));
        let low = _mm256_castps256_ps128(fours);
        _mm_cvtss_f32(_mm_add_ss(low, _mm256_extractf128_ps::<1>(fours)))
    }
}

/// `d` and `m` of up to eight blocks, so many bytes apart; blocks after the last one repeat it.
#[inline(always)]
pub(super) unsafe fn floats<F: Coded, const FULL: bool>(
    block: *const u8,
    scale: *const u8,
    (step, scale_step): (usize, usize),
    count: usize,
) -> (__m256, __m256) {
    // SAFETY: blocks that exist; the instruction set is the caller's promise.
    unsafe {
        let at = |i: usize| if FULL { i } else { i.min(count - 1) };
        match (F::D, F::M) {
            // Both stand side by side: one word.
            (Scale::F16(d), Some((m, sign))) if m == d + 2 => {
                let one = |i: usize| block.add(at(i) * step + d).cast::<i32>().read_unaligned();
                let v = _mm256_setr_epi32(one(0), one(1), one(2), one(3), one(4), one(5), one(6), one(7));
                let low = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
                let (d, m) = (halves(low), halves(_mm256_srli_epi32::<16>(v)));
                (d, _mm256_mul_ps(_mm256_set1_ps(sign), m))
            }
            (_, Some(_)) => unreachable!("minima's floats follow the scales'"),
            (Scale::F16(d), None) => {
                let one = |i: usize| block.add(at(i) * step + d).cast::<i16>().read_unaligned();
                let v = _mm_setr_epi16(one(0), one(1), one(2), one(3), one(4), one(5), one(6), one(7));
                (_mm256_cvtph_ps(v), _mm256_setzero_ps())
            }
            (power, None) => {
                let one = |i: usize| match *scale.add(at(i) * scale_step) {
                    255 if power == Scale::E8m0OrNan => f32::NAN,
                    e => e8m0_half_to_f32(e),
                };
                let d = _mm256_setr_ps(one(0), one(1), one(2), one(3), one(4), one(5), one(6), one(7));
                (d, _mm256_setzero_ps())
            }
        }
    }
}

/// The sums of eight registers of eight lanes.
#[inline(always)]
pub(super) unsafe fn sums_of_8(v: &[__m256i; 8]) -> __m256i {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        let quarter = |v: &[__m256i]| _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
        let (a, b) = (quarter(&v[..4]), quarter(&v[4..]));
        _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
    }
}

/// Eight 16-bit floats, each in the lower half of 32 bits.
#[inline(always)]
unsafe fn halves(v: __m256i) -> __m256 {
    // SAFETY: the instruction set is the caller's promise.
    unsafe { _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v))) }
}
