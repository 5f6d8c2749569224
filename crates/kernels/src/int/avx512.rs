//! Integer products with AVX-512 VNNI.
//!
//! Sums stay apart in a register's lanes until a block is done; eight blocks are then added up
//! together.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::Few;
use super::coded::*;
use super::eights::{Eight, X};
use super::x86::{AHEAD, floats, value};

/// A format's integers in registers. Pointers are to whole blocks.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, AVX2 and F16C.
pub(super) trait Registers: Coded {
    /// `u` of a block of 256; or of two blocks of 32, `a` in the lower half.
    unsafe fn bytes(a: *const u8) -> [__m512i; 4] {
        let _ = a;
        unreachable!("blocks of 32")
    }
    unsafe fn pair(a: *const u8, b: *const u8) -> __m512i {
        let _ = (a, b);
        unreachable!("blocks of 256")
    }
    /// The integer scales of a block of 256, 16 bits each, and the minima; zeros after the last one.
    unsafe fn scales_and_mins(a: *const u8) -> (__m256i, __m256i) {
        let _ = a;
        unreachable!("blocks of 32")
    }
}

struct Vnni<F>(PhantomData<F>);

/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn few<F: Registers>(job: &Few) {
    // SAFETY: the caller's promise.
    unsafe { super::eights::few::<Vnni<F>>(job) }
}

impl<F: Registers> Eight for Vnni<F> {
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
            if F::BLOCK == 256 {
                large::<F, T, FULL>(start, first, count, x, out);
            } else {
                small::<F, T, FULL>(start, scales, first, count, x, out);
            }
        }
    }
}

/// [`Eight::add`] of blocks of 256.
#[inline(always)]
unsafe fn large<F: Registers, const T: usize, const FULL: bool>(
    start: *const u8,
    first: usize,
    count: usize,
    x: &[X; T],
    out: &mut [f32; T],
) {
    // SAFETY: the caller's promise; lanes of blocks that are not there are not used.
    unsafe {
        let mut parts = [const { MaybeUninit::<[__m512i; 8]>::uninit() }; T];
        let mut mins = [const { MaybeUninit::<[__m256i; 8]>::uninit() }; T];
        if !FULL {
            parts = [const { MaybeUninit::zeroed() }; T];
            mins = [const { MaybeUninit::zeroed() }; T];
        }
        for i in 0..count {
            let block = start.add(i * F::BYTES);
            for line in 0..F::BYTES.div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(AHEAD + 64 * line).cast());
            }
            let u = F::bytes(block);
            let (scale, min) = F::scales_and_mins(block);
            let wide = group_scales::<F>(scale);
            for r in 0..T {
                let q = x[r].q.add((first + i) * x[r].q_step);
                let sums = x[r].sums.add((first + i) * x[r].sums_step);
                let sums = if F::GROUP == 16 {
                    _mm256_loadu_si256(sums.cast())
                } else {
                    _mm256_zextsi128_si256(_mm_loadu_si128(sums.add(16).cast()))
                };
                let mut acc = _mm512_setzero_si512();
                if F::OFFSET != 0 {
                    let offset = _mm256_mullo_epi32(_mm256_madd_epi16(scale, sums), _mm256_set1_epi32(-F::OFFSET));
                    acc = _mm512_zextsi256_si512(offset);
                }
                for j in 0..4 {
                    let x = _mm512_load_si512(q.add(64 * j).cast());
                    acc = if F::WIDE {
                        let s = _mm512_dpbusd_epi32(_mm512_setzero_si512(), u[j], x);
                        _mm512_add_epi32(acc, _mm512_mullo_epi32(s, wide[j]))
                    } else {
                        // Two products of at most 63 * 127 fit 16 bits.
                        _mm512_dpwssd_epi32(acc, _mm512_maddubs_epi16(u[j], x), wide[j])
                    };
                }
                parts[r].as_mut_ptr().cast::<__m512i>().add(i).write(acc);
                if F::M.is_some() && F::GROUP == 32 {
                    // Eight groups: a quarter of a register for each block.
                    let all = _mm_madd_epi16(_mm256_castsi256_si128(min), _mm256_castsi256_si128(sums));
                    mins[r].as_mut_ptr().cast::<__m128i>().add(i).write(all);
                } else if F::M.is_some() {
                    mins[r].as_mut_ptr().cast::<__m256i>().add(i).write(_mm256_madd_epi16(min, sums));
                }
            }
        }
        let floats = floats::<F, FULL>(start, start, (F::BYTES, F::BYTES), count);
        for r in 0..T {
            let s = sums_of_8(parts[r].assume_init_ref());
            let min = match F::M {
                Some(_) if F::GROUP == 32 => sums_of_8_quarters(mins[r].as_ptr().cast()),
                Some(_) => super::x86::sums_of_8(mins[r].assume_init_ref()),
                None => s,
            };
            out[r] += value::<F, FULL>(floats, s, min, x[r].d.add(first), count);
        }
    }
}

/// [`Eight::add`] of blocks of 32.
#[inline(always)]
unsafe fn small<F: Registers, const T: usize, const FULL: bool>(
    start: *const u8,
    scales: *const u8,
    first: usize,
    count: usize,
    x: &[X; T],
    out: &mut [f32; T],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut parts = [[_mm512_setzero_si512(); 4]; T];
        for i in 0..4 {
            let (a, b) = if FULL { (2 * i, 2 * i + 1) } else { ((2 * i).min(count - 1), (2 * i + 1).min(count - 1)) };
            if 64 * i < 8 * F::BYTES {
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(AHEAD + 64 * i).cast());
            }
            let u = F::pair(start.add(a * F::BYTES), start.add(b * F::BYTES));
            for r in 0..T {
                let q = _mm512_load_si512(x[r].q.add(first / 8 * x[r].q_step + 64 * i).cast());
                parts[r][i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), u, q);
            }
        }
        let floats = small_floats::<F, FULL>(start, scales, count);
        for r in 0..T {
            let sums = _mm256_loadu_si256(x[r].block_sums.add(first).cast());
            let mut s = sums_of_4_pairs(&parts[r]);
            if F::OFFSET != 0 {
                s = _mm256_sub_epi32(s, _mm256_mullo_epi32(sums, _mm256_set1_epi32(F::OFFSET)));
            }
            out[r] += value::<F, FULL>(floats, s, sums, x[r].d.add(first), count);
        }
    }
}

/// [`floats`] of eight blocks of 32. The scales of the shortest blocks are picked out of a few registers: one
/// load for each would take as long as all that is done with the elements.
#[inline(always)]
unsafe fn small_floats<F: Registers, const FULL: bool>(
    start: *const u8,
    scales: *const u8,
    count: usize,
) -> (__m256, __m256) {
    // SAFETY: the caller's promise; no byte after the eighth block is read.
    unsafe {
        if !FULL || F::D != Scale::F16(0) || F::M.is_some() || F::BYTES != 18 && F::BYTES != 22 {
            return floats::<F, FULL>(start, scales, (F::BYTES, F::SCALE_BYTES), count);
        }
        let words = |at: usize| _mm512_loadu_si512(start.add(2 * at).cast());
        let step = F::BYTES as i16 / 2;
        let number = _mm512_setr_epi64(0x3_0002_0001_0000, 0x7_0006_0005_0004, 0, 0, 0, 0, 0, 0);
        let places = _mm512_mullo_epi16(number, _mm512_set1_epi16(step));
        let mut picked = _mm512_permutex2var_epi16(words(0), places, words(32));
        if F::BYTES == 22 {
            // The last two lie after the first 64 words; the eighth block ends with word 88.
            let places = _mm512_sub_epi16(places, _mm512_set1_epi16(56));
            picked = _mm512_mask_permutexvar_epi16(picked, 0b1100_0000, places, words(56));
        }
        (_mm256_cvtph_ps(_mm512_castsi512_si128(picked)), _mm256_setzero_ps())
    }
}

/// The scales of a block's groups at the lanes of its four registers: 16 bits each, or 32 where
/// elements are wide.
#[inline(always)]
unsafe fn group_scales<F: Coded>(scale: __m256i) -> [__m512i; 4] {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        let mut out = [_mm512_setzero_si512(); 4];
        if F::WIDE {
            let wide = _mm512_cvtepi16_epi32(scale);
            let upper = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
            for j in 0..4 {
                let of_lane = _mm512_add_epi32(upper, _mm512_set1_epi32(2 * j as i32));
                out[j] = _mm512_permutexvar_epi32(of_lane, wide);
            }
            return out;
        }
        pair_scales::<F>(scale)
    }
}

/// The scales of a block's groups at the 16-bit lanes of its four registers.
#[inline(always)]
unsafe fn pair_scales<F: Coded>(scale: __m256i) -> [__m512i; 4] {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        let mut out = [_mm512_setzero_si512(); 4];
        let scale = _mm512_castsi256_si512(scale);
        // The group of each of the 32 lanes in the first register.
        let (of_lane, groups) = if F::GROUP == 16 {
            let a = _mm512_setr_epi64(0, 0, 0x1_0001_0001_0001, 0x1_0001_0001_0001, TWO, TWO, THREE, THREE);
            (a, 4)
        } else {
            let one = 0x1_0001_0001_0001;
            (_mm512_setr_epi64(0, 0, 0, 0, one, one, one, one), 2)
        };
        for j in 0..4 {
            let of_lane = _mm512_add_epi16(of_lane, _mm512_set1_epi16(groups * j as i16));
            out[j] = _mm512_permutexvar_epi16(of_lane, scale);
        }
        out
    }
}

/// The 16-bit weights `scale * (u - OFFSET)` of a block of 256: their lower bytes, and their upper ones.
#[inline(always)]
pub(super) unsafe fn planes<F: Coded>(u: [__m512i; 4], scale: __m256i) -> [[__m512i; 4]; 2] {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        let (lower, less) = (_mm512_set1_epi16(255), _mm512_set1_epi16(F::OFFSET as i16));
        let scale = pair_scales::<F>(scale);
        let mut out = [[_mm512_setzero_si512(); 4]; 2];
        for j in 0..4 {
            let (even, odd) = (_mm512_and_si512(u[j], lower), _mm512_srli_epi16::<8>(u[j]));
            let even = _mm512_mullo_epi16(_mm512_sub_epi16(even, less), scale[j]);
            let odd = _mm512_mullo_epi16(_mm512_sub_epi16(odd, less), scale[j]);
            out[0][j] = _mm512_or_si512(_mm512_and_si512(even, lower), _mm512_slli_epi16::<8>(odd));
            out[1][j] = _mm512_or_si512(_mm512_srli_epi16::<8>(even), _mm512_andnot_si512(lower, odd));
        }
        out
    }
}

const TWO: i64 = 0x2_0002_0002_0002;
const THREE: i64 = 0x3_0003_0003_0003;

/// Adds up each register's lanes, four registers at a time: lane `4 k + i` is part `k` of register `i`.
#[inline(always)]
unsafe fn quarter_sums(v: &[__m512i]) -> __m512i {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
    }
}

/// The sums of eight registers.
#[inline(always)]
unsafe fn sums_of_8(v: &[__m512i; 8]) -> __m256i {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        let (a, b) = (quarter_sums(&v[..4]), quarter_sums(&v[4..]));
        let s =
            _mm512_add_epi32(_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b));
        let even = _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0b10_00_10_00>(s, s));
        let odd = _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0b11_01_11_01>(s, s));
        _mm256_add_epi32(even, odd)
    }
}

/// The sums of eight quarters of two registers.
#[inline(always)]
unsafe fn sums_of_8_quarters(v: *const [__m512i; 2]) -> __m256i {
    // SAFETY: the instruction set is the caller's promise, and `v` points to eight quarters.
    unsafe {
        let [a, b] = v.read_unaligned();
        let pairs = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let all = _mm512_add_epi32(pairs, _mm512_shuffle_epi32::<0b01_00_11_10>(pairs));
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
        _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, all))
    }
}

/// The sums of the lower and upper halves of four registers, in the order of blocks.
#[inline(always)]
unsafe fn sums_of_4_pairs(v: &[__m512i; 4]) -> __m256i {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        let q = quarter_sums(v);
        let s = _mm512_add_epi32(q, _mm512_shuffle_i32x4::<0b10_11_00_01>(q, q));
        let (even, odd) = (_mm512_castsi512_si128(s), _mm512_extracti32x4_epi32::<2>(s));
        _mm256_set_m128i(_mm_unpackhi_epi32(even, odd), _mm_unpacklo_epi32(even, odd))
    }
}

// SAFETY (all blocks below): pointers to whole blocks and the instruction set, by the trait's contract.

/// Sixteen bytes of nibbles of two blocks: low nibbles, then high ones, of each.
#[inline(always)]
unsafe fn nibble_pair(a: *const u8, b: *const u8) -> __m512i {
    // SAFETY: see above.
    unsafe {
        let a = _mm512_broadcast_i32x4(_mm_loadu_si128(a.cast()));
        let both = _mm512_mask_broadcast_i32x4(a, 0xff00, _mm_loadu_si128(b.cast()));
        let shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
        _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(15))
    }
}

/// Adds 16 to the bytes whose bit is set in the words at `a` (lower half) and `b`.
#[inline(always)]
unsafe fn with_fifth_bits(u: __m512i, a: *const u8, b: *const u8) -> __m512i {
    // SAFETY: see above.
    unsafe {
        let word = |p: *const u8| u64::from(p.cast::<u32>().read_unaligned());
        _mm512_mask_add_epi8(u, word(a) | word(b) << 32, u, _mm512_set1_epi8(16))
    }
}

/// `values[nibble] + offset` for each byte.
#[inline(always)]
unsafe fn looked_up(nibbles: __m512i, values: &[i8; 16], offset: i32) -> __m512i {
    let table: [u8; 16] = std::array::from_fn(|i| (i32::from(values[i]) + offset) as u8);
    // SAFETY: see above.
    unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), nibbles) }
}

impl Registers for Q4_0 {
    #[inline(always)]
    unsafe fn pair(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { nibble_pair(a.add(2), b.add(2)) }
    }
}

impl Registers for Q4_1 {
    #[inline(always)]
    unsafe fn pair(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { nibble_pair(a.add(4), b.add(4)) }
    }
}

impl Registers for Q5_0 {
    #[inline(always)]
    unsafe fn pair(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { with_fifth_bits(nibble_pair(a.add(6), b.add(6)), a.add(2), b.add(2)) }
    }
}

impl Registers for Q5_1 {
    #[inline(always)]
    unsafe fn pair(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { with_fifth_bits(nibble_pair(a.add(8), b.add(8)), a.add(4), b.add(4)) }
    }
}

impl Registers for Q8_0 {
    #[inline(always)]
    unsafe fn pair(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe {
            let a = _mm512_castsi256_si512(_mm256_loadu_si256(a.add(2).cast()));
            let both = _mm512_inserti64x4::<1>(a, _mm256_loadu_si256(b.add(2).cast()));
            _mm512_xor_si512(both, _mm512_set1_epi8(-128))
        }
    }
}

impl Registers for Iq4Nl {
    #[inline(always)]
    unsafe fn pair(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { looked_up(nibble_pair(a.add(2), b.add(2)), &crate::quant::int::IQ4, 128) }
    }
}

impl Registers for Mxfp4 {
    #[inline(always)]
    unsafe fn pair(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { looked_up(nibble_pair(a.add(1), b.add(1)), &crate::quant::int::E2M1, E2M1_OFFSET) }
    }
}

impl Registers for Mxfp4Split {
    #[inline(always)]
    unsafe fn pair(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe {
            let v = looked_up(nibble_pair(a, b), &crate::quant::int::E2M1, E2M1_OFFSET);
            // Of each block: even elements in the first half of it, odd ones in the second.
            let odd = _mm512_shuffle_i32x4::<0b10_11_00_01>(v, v);
            let (low, high) = (_mm512_unpacklo_epi8(v, odd), _mm512_unpackhi_epi8(v, odd));
            let take = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
            _mm512_permutex2var_epi64(low, take, high)
        }
    }
}

/// 32 bytes whose nibbles are groups `2 p` (low) and `2 p + 1` (high), for four `p`.
#[inline(always)]
unsafe fn paired_nibbles(bytes: *const u8) -> [__m512i; 4] {
    // SAFETY: see above.
    unsafe {
        let shifts = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
        let mut u = [_mm512_setzero_si512(); 4];
        for p in 0..4 {
            let both = _mm512_broadcast_i64x4(_mm256_loadu_si256(bytes.add(32 * p).cast()));
            u[p] = _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(15));
        }
        u
    }
}

/// Bit `g` of a byte goes to bit `to` of the same byte in group `g`.
#[inline(always)]
unsafe fn with_group_bits(u: &mut [__m512i; 4], bits: __m256i, to: i64) {
    // SAFETY: see above.
    unsafe {
        let bits = _mm512_broadcast_i64x4(bits);
        for j in 0..4 {
            let (low, high) = ((to - 2 * j as i64) & 63, (to - 2 * j as i64 - 1) & 63);
            let turn = _mm512_setr_epi64(low, low, low, low, high, high, high, high);
            let bit = _mm512_and_si512(_mm512_rolv_epi64(bits, turn), _mm512_set1_epi8(1 << to));
            u[j] = _mm512_or_si512(u[j], bit);
        }
    }
}

/// The packed six-bit scales and minima of Q4_K and Q5_K: four bytes of floats, the lower bits of scales 0 to 3, of
/// minima 0 to 3, and nibbles of scales and minima 4 to 7, whose upper bits are those of the first eight bytes.
#[inline(always)]
unsafe fn six_bit_scales(block: *const u8) -> (__m256i, __m256i) {
    // SAFETY: see above.
    unsafe {
        let x = _mm_loadu_si128(block.cast());
        let lower = _mm_shuffle_epi8(x, _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
        let lower = _mm_srlv_epi32(lower, _mm_setr_epi32(0, 0, 0, 4));
        let lower = _mm_and_si128(lower, _mm_setr_epi32(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f));
        let upper = _mm_shuffle_epi8(x, _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
        let upper = _mm_and_si128(_mm_srli_epi32::<2>(upper), _mm_set1_epi8(0x30));
        let both = _mm256_cvtepu8_epi16(_mm_or_si128(lower, upper));
        let (scale, min) = (_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
        (_mm256_zextsi128_si256(scale), _mm256_zextsi128_si256(min))
    }
}

impl Registers for Q4K {
    #[inline(always)]
    unsafe fn bytes(a: *const u8) -> [__m512i; 4] {
        // SAFETY: see above.
        unsafe { paired_nibbles(a.add(16)) }
    }
    #[inline(always)]
    unsafe fn scales_and_mins(a: *const u8) -> (__m256i, __m256i) {
        // SAFETY: see above.
        unsafe { six_bit_scales(a) }
    }
}

impl Registers for Q5K {
    #[inline(always)]
    unsafe fn bytes(a: *const u8) -> [__m512i; 4] {
        // SAFETY: see above.
        unsafe {
            let mut u = paired_nibbles(a.add(48));
            with_group_bits(&mut u, _mm256_loadu_si256(a.add(16).cast()), 4);
            u
        }
    }
    #[inline(always)]
    unsafe fn scales_and_mins(a: *const u8) -> (__m256i, __m256i) {
        // SAFETY: see above.
        unsafe { six_bit_scales(a) }
    }
}

impl Registers for Q6K {
    #[inline(always)]
    unsafe fn bytes(a: *const u8) -> [__m512i; 4] {
        // SAFETY: see above.
        unsafe {
            let mut u = [_mm512_setzero_si512(); 4];
            for h in 0..2 {
                let low = _mm512_loadu_si512(a.add(64 * h).cast());
                let two = _mm512_broadcast_i64x4(_mm256_loadu_si256(a.add(128 + 32 * h).cast()));
                // Bits 2g, 2g + 1 of a byte to bits 4 and 5, for the groups of 32 of each register.
                let upper = |turn: __m512i| _mm512_and_si512(_mm512_rolv_epi64(two, turn), _mm512_set1_epi8(0x30));
                let first = upper(_mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2));
                let second = upper(_mm512_setr_epi64(0, 0, 0, 0, 62, 62, 62, 62));
                let nibble = _mm512_set1_epi8(15);
                u[2 * h] = _mm512_or_si512(_mm512_and_si512(low, nibble), first);
                u[2 * h + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi64::<4>(low), nibble), second);
            }
            u
        }
    }
    #[inline(always)]
    unsafe fn scales_and_mins(a: *const u8) -> (__m256i, __m256i) {
        // SAFETY: see above.
        unsafe { (_mm256_cvtepi8_epi16(_mm_loadu_si128(a.add(192).cast())), _mm256_setzero_si256()) }
    }
}

/// Elements `128 h + 32 g + l` from bits `2g` of byte `32 h + l`.
#[inline(always)]
unsafe fn two_bits(bytes: *const u8) -> [__m512i; 4] {
    // SAFETY: see above.
    unsafe {
        let mut u = [_mm512_setzero_si512(); 4];
        for j in 0..4 {
            let both = _mm512_broadcast_i64x4(_mm256_loadu_si256(bytes.add(j / 2 * 32).cast()));
            let g = j as i64 % 2 * 4;
            let shifts = _mm512_setr_epi64(g, g, g, g, g + 2, g + 2, g + 2, g + 2);
            u[j] = _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(3));
        }
        u
    }
}

impl Registers for Q2K {
    #[inline(always)]
    unsafe fn bytes(a: *const u8) -> [__m512i; 4] {
        // SAFETY: see above.
        unsafe { two_bits(a.add(16)) }
    }
    #[inline(always)]
    unsafe fn scales_and_mins(a: *const u8) -> (__m256i, __m256i) {
        // SAFETY: see above.
        unsafe {
            let both = _mm_loadu_si128(a.cast());
            let nibble = _mm_set1_epi8(15);
            let (scale, min) = (_mm_and_si128(both, nibble), _mm_and_si128(_mm_srli_epi64::<4>(both), nibble));
            (_mm256_cvtepu8_epi16(scale), _mm256_cvtepu8_epi16(min))
        }
    }
}

impl Registers for Q3K {
    #[inline(always)]
    unsafe fn bytes(a: *const u8) -> [__m512i; 4] {
        // SAFETY: see above.
        unsafe {
            let mut u = two_bits(a.add(32));
            with_group_bits(&mut u, _mm256_loadu_si256(a.cast()), 2);
            u
        }
    }
    #[inline(always)]
    unsafe fn scales_and_mins(a: *const u8) -> (__m256i, __m256i) {
        // SAFETY: see above.
        unsafe {
            let word = |i: usize| a.add(96 + 4 * i).cast::<u32>().read_unaligned();
            let (low, high, two) = (word(0), word(1), word(2));
            let nibble = |v: u32| v & 0x0f0f_0f0f;
            let upper = |by: u32| (two >> by & 0x0303_0303) << 4;
            let scale = _mm_setr_epi32(
                (nibble(low) | upper(0)) as i32,
                (nibble(high) | upper(2)) as i32,
                (nibble(low >> 4) | upper(4)) as i32,
                (nibble(high >> 4) | upper(6)) as i32,
            );
            let scale = _mm_sub_epi8(scale, _mm_set1_epi8(32));
            (_mm256_cvtepi8_epi16(scale), _mm256_setzero_si256())
        }
    }
}

impl Registers for Iq4Xs {
    #[inline(always)]
    unsafe fn bytes(a: *const u8) -> [__m512i; 4] {
        // SAFETY: see above.
        unsafe {
            let mut u = [_mm512_setzero_si512(); 4];
            for j in 0..4 {
                let first = a.add(8 + 32 * j);
                u[j] = looked_up(nibble_pair(first, first.add(16)), &crate::quant::int::IQ4, 128);
            }
            u
        }
    }
    #[inline(always)]
    unsafe fn scales_and_mins(a: *const u8) -> (__m256i, __m256i) {
        // SAFETY: see above.
        unsafe {
            let high = a.add(2).cast::<u16>().read_unaligned();
            let scale: [i16; 8] = std::array::from_fn(|g| {
                let low = *a.add(4 + g / 2) >> (4 * (g % 2)) & 15;
                i16::from(low) | ((high >> (2 * g) & 3) << 4) as i16
            });
            let scale = _mm_sub_epi16(_mm_loadu_si128(scale.as_ptr().cast()), _mm_set1_epi16(32));
            (_mm256_zextsi128_si256(scale), _mm256_setzero_si256())
        }
    }
}
