//! Integer products with AVX2.
//!
//! Bytes are multiplied in pairs to 16 bits, which must not saturate: `u` up to 63 times an input fits
//! twice. Wider elements are taken as signed numbers `w = u - 128`, and |w| (up to 128) is multiplied with
//! the input that has w's sign.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::Few;
use super::coded::*;
use super::eights::{Eight, X};
use super::x86::{AHEAD, floats, sums_of_8, value};
use crate::quant::int::{E2M1, IQ4};

/// A format's integers in registers: `u`, or `u - 128` where it is wide. Pointers are to whole blocks.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
pub(super) trait Registers: Coded {
    /// What is subtracted from the elements as this code has them.
    const LESS: i32 = if Self::WIDE { 0 } else { Self::OFFSET };
    /// The elements of a block, 32 in each register; blocks of 32 fill the first one.
    unsafe fn bytes(a: *const u8) -> [__m256i; 8];
    /// The integer scales of a block of 256, 16 bits each, and the minima; zeros after the last one.
    unsafe fn scales_and_mins(a: *const u8) -> (__m256i, __m256i) {
        let _ = a;
        unreachable!("blocks of 32")
    }
}

struct Avx2<F>(PhantomData<F>);

/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn few<F: Registers>(job: &Few) {
    // SAFETY: the caller's promise.
    unsafe { super::eights::few::<Avx2<F>>(job) }
}

impl<F: Registers> Eight for Avx2<F> {
    type Format = F;
    #[inline(always)]
    unsafe fn add<const T: usize, const FULL: bool>(
        start: *const u8,
        scales: *const u8,
        first: usize,
        count: usize,
        x: &[X; T],
        out: &mut [f32; T],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut parts = [[_mm256_setzero_si256(); 8]; T];
            let mut mins = [[_mm256_setzero_si256(); 8]; T];
            for i in 0..count {
                let block = start.add(i * F::BYTES);
                for line in 0..F::BYTES.div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(AHEAD + 64 * line).cast());
                }
                if F::BLOCK == 256 {
                    large::<F, T>(block, first, i, x, &mut parts, &mut mins);
                } else {
                    let w = F::bytes(block)[0];
                    for r in 0..T {
                        let q = _mm256_load_si256(x[r].q.add(first / 8 * x[r].q_step + 32 * i).cast());
                        parts[r][i] = _mm256_madd_epi16(pairs::<F>(w, q), _mm256_set1_epi16(1));
                    }
                }
            }
            let floats = floats::<F, FULL>(start, scales, (F::BYTES, F::SCALE_BYTES), count);
            for r in 0..T {
                let mut s = sums_of_8(&parts[r]);
                let mut min = s;
                if F::BLOCK == 32 {
                    min = _mm256_loadu_si256(x[r].block_sums.add(first).cast());
                    s = _mm256_sub_epi32(s, _mm256_mullo_epi32(min, _mm256_set1_epi32(F::LESS)));
                } else if F::M.is_some() {
                    min = sums_of_8(&mins[r]);
                }
                out[r] += value::<F, FULL>(floats, s, min, x[r].d.add(first), count);
            }
        }
    }
}

/// Block `first + i`, of 256.
#[inline(always)]
unsafe fn large<F: Registers, const T: usize>(
    block: *const u8,
    first: usize,
    i: usize,
    x: &[X; T],
    parts: &mut [[__m256i; 8]; T],
    mins: &mut [[__m256i; 8]; T],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let w = F::bytes(block);
        let (scale, min) = F::scales_and_mins(block);
        let mut scales = [0i16; 16];
        _mm256_storeu_si256(scales.as_mut_ptr().cast(), scale);
        for r in 0..T {
            let q = x[r].q.add((first + i) * x[r].q_step);
            let sums = x[r].sums.add((first + i) * x[r].sums_step);
            let sums = if F::GROUP == 16 {
                _mm256_loadu_si256(sums.cast())
            } else {
                _mm256_zextsi128_si256(_mm_loadu_si128(sums.add(16).cast()))
            };
            let less = _mm256_mullo_epi32(_mm256_madd_epi16(scale, sums), _mm256_set1_epi32(-F::LESS));
            let mut acc = less;
            for j in 0..8 {
                let products = pairs::<F>(w[j], _mm256_load_si256(q.add(32 * j).cast()));
                let scale = if F::GROUP == 16 {
                    _mm256_set_m128i(_mm_set1_epi16(scales[2 * j + 1]), _mm_set1_epi16(scales[2 * j]))
                } else {
                    _mm256_set1_epi16(scales[j])
                };
                acc = _mm256_add_epi32(acc, _mm256_madd_epi16(products, scale));
            }
            parts[r][i] = acc;
            if F::M.is_some() {
                mins[r][i] = _mm256_madd_epi16(min, sums);
            }
        }
    }
}

/// Sums of two neighbouring products, 16 bits each.
#[inline(always)]
pub(super) unsafe fn pairs<F: Registers>(w: __m256i, q: __m256i) -> __m256i {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        if F::WIDE {
            _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w))
        } else {
            _mm256_maddubs_epi16(w, q)
        }
    }
}

// SAFETY (all blocks below): pointers to whole blocks and the instruction set, by the trait's contract.

/// The first register alone.
#[inline(always)]
unsafe fn alone(w: __m256i) -> [__m256i; 8] {
    // SAFETY: see above.
    let zero = unsafe { _mm256_setzero_si256() };
    [w, zero, zero, zero, zero, zero, zero, zero]
}

/// Sixteen low nibbles, then sixteen high ones.
#[inline(always)]
unsafe fn nibbles(a: *const u8) -> __m256i {
    // SAFETY: see above.
    unsafe {
        let low = _mm_loadu_si128(a.cast());
        _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi64::<4>(low), low), _mm256_set1_epi8(15))
    }
}

/// 16 in the bytes whose bit is set in the word at `a`.
#[inline(always)]
unsafe fn fifth_bits(a: *const u8) -> __m256i {
    // SAFETY: see above.
    unsafe {
        let word = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
        let byte_of_lane = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
        let bits = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
        let bytes = _mm256_and_si256(_mm256_shuffle_epi8(word, byte_of_lane), bits);
        _mm256_and_si256(_mm256_cmpeq_epi8(bytes, bits), _mm256_set1_epi8(16))
    }
}

/// `values[nibble] + offset` for each byte.
#[inline(always)]
unsafe fn looked_up(nibbles: __m256i, values: &[i8; 16], offset: i32) -> __m256i {
    let mut table = [0u8; 16];
    for (to, value) in table.iter_mut().zip(values) {
        *to = (i32::from(*value) + offset) as u8;
    }
    // SAFETY: see above.
    unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), nibbles) }
}

/// Implements the trait for a format of 32 elements by an expression over its block.
macro_rules! small_format {
    ($format:ident, $a:ident => $bytes:expr) => {
        impl Registers for $format {
            #[inline(always)]
            unsafe fn bytes($a: *const u8) -> [__m256i; 8] {
                // SAFETY: see above.
                unsafe { alone($bytes) }
            }
        }
    };
}

small_format!(Q4_0, a => nibbles(a.add(2)));
small_format!(Q4_1, a => nibbles(a.add(4)));
small_format!(Q5_0, a => _mm256_or_si256(nibbles(a.add(6)), fifth_bits(a.add(2))));
small_format!(Q5_1, a => _mm256_or_si256(nibbles(a.add(8)), fifth_bits(a.add(4))));
small_format!(Q8_0, a => _mm256_loadu_si256(a.add(2).cast()));
small_format!(Iq4Nl, a => looked_up(nibbles(a.add(2)), &IQ4, 0));
small_format!(Mxfp4, a => looked_up(nibbles(a.add(1)), &E2M1, E2M1_OFFSET));
small_format!(Mxfp4Split, a => {
    let v = looked_up(nibbles(a), &E2M1, E2M1_OFFSET);
    let (even, odd) = (_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd))
});

/// Group `2 p` in the low nibbles of bytes `32 p ..`, group `2 p + 1` in the high ones.
#[inline(always)]
unsafe fn paired_nibbles(bytes: *const u8) -> [__m256i; 8] {
    // SAFETY: see above.
    unsafe {
        let mut u = alone(_mm256_setzero_si256());
        for p in 0..4 {
            let both = _mm256_loadu_si256(bytes.add(32 * p).cast());
            u[2 * p] = _mm256_and_si256(both, _mm256_set1_epi8(15));
            u[2 * p + 1] = _mm256_and_si256(_mm256_srli_epi64::<4>(both), _mm256_set1_epi8(15));
        }
        u
    }
}

/// Bit `g` of a byte goes to bit `to` of the same byte in group `g`.
#[inline(always)]
unsafe fn with_group_bits(u: &mut [__m256i; 8], bits: __m256i, to: i32) {
    // SAFETY: see above.
    unsafe {
        for g in 0..8 {
            let bit = _mm256_set1_epi8((1u8 << g) as i8);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit);
            u[g] = _mm256_or_si256(u[g], _mm256_and_si256(set, _mm256_set1_epi8(1 << to)));
        }
    }
}

/// Elements `128 h + 32 g + l` from bits `2g` of byte `32 h + l`.
#[inline(always)]
unsafe fn two_bits(bytes: *const u8) -> [__m256i; 8] {
    // SAFETY: see above.
    unsafe {
        let mut u = alone(_mm256_setzero_si256());
        for h in 0..2 {
            let four = _mm256_loadu_si256(bytes.add(32 * h).cast());
            let mask = _mm256_set1_epi8(3);
            u[4 * h] = _mm256_and_si256(four, mask);
            u[4 * h + 1] = _mm256_and_si256(_mm256_srli_epi64::<2>(four), mask);
            u[4 * h + 2] = _mm256_and_si256(_mm256_srli_epi64::<4>(four), mask);
            u[4 * h + 3] = _mm256_and_si256(_mm256_srli_epi64::<6>(four), mask);
        }
        u
    }
}

/// The integers that the specification reads, for what is not worth code of its own.
#[inline(always)]
unsafe fn plain_scales<F: Coded>(a: *const u8) -> (__m256i, __m256i) {
    // SAFETY: see above.
    unsafe {
        let (scale, min) = F::scales(std::slice::from_raw_parts(a, F::BYTES));
        (_mm256_loadu_si256(scale.as_ptr().cast()), _mm256_loadu_si256(min.as_ptr().cast()))
    }
}

/// Implements the trait for a format of 256 elements by an expression over its block.
macro_rules! large_format {
    ($format:ident, $a:ident => $bytes:expr) => {
        impl Registers for $format {
            #[inline(always)]
            unsafe fn bytes($a: *const u8) -> [__m256i; 8] {
                // SAFETY: see above.
                unsafe { $bytes }
            }
            #[inline(always)]
            unsafe fn scales_and_mins(a: *const u8) -> (__m256i, __m256i) {
                // SAFETY: see above.
                unsafe { plain_scales::<$format>(a) }
            }
        }
    };
}

large_format!(Q2K, a => two_bits(a.add(16)));
large_format!(Q3K, a => {
    let mut u = two_bits(a.add(32));
    with_group_bits(&mut u, _mm256_loadu_si256(a.cast()), 2);
    u
});
large_format!(Q4K, a => paired_nibbles(a.add(16)));
large_format!(Q5K, a => {
    let mut u = paired_nibbles(a.add(48));
    with_group_bits(&mut u, _mm256_loadu_si256(a.add(16).cast()), 4);
    u
});
large_format!(Q6K, a => {
    let mut u = two_bits(a.add(128));
    for h in 0..2 {
        let mask = _mm256_set1_epi8(15);
        for l in 0..2 {
            let both = _mm256_loadu_si256(a.add(64 * h + 32 * l).cast());
            let (low, high) = (_mm256_and_si256(both, mask), _mm256_and_si256(_mm256_srli_epi64::<4>(both), mask));
            let (i, j) = (4 * h + l, 4 * h + 2 + l);
            // The upper bits are 0 to 3: a shift does not leave their byte.
            u[i] = _mm256_or_si256(low, _mm256_slli_epi64::<4>(u[i]));
            u[j] = _mm256_or_si256(high, _mm256_slli_epi64::<4>(u[j]));
        }
    }
    u
});
large_format!(Iq4Xs, a => {
    let mut w = alone(_mm256_setzero_si256());
    for g in 0..8 {
        w[g] = looked_up(nibbles(a.add(8 + 16 * g)), &IQ4, 0);
    }
    w
});
