//! Integer products for 64-bit Arm.
//!
//! Elements are signed bytes here, less their offset. Their products with inputs are summed by SDOT, four at a
//! time, where the processor has it (Armv8.2), else by multiplications to 16 bits. (By `asm!`: the compiler's
//! own functions for SDOT are not stable.)

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use super::Few;
use super::coded::*;
use super::eights::{Eight, X};
use crate::quant::int::{E2M1, IQ4};

/// A format's integers in registers. Pointers are to whole blocks.
///
/// # Safety
/// As [`Coded`]'s functions, for whole blocks.
pub(super) trait Registers: Coded {
    /// The elements of a block less their offset, sixteen in each register; blocks of 32 fill the first two.
    unsafe fn bytes(a: *const u8) -> [int8x16_t; 16];
}

/// How products of bytes are summed.
///
/// # Safety
/// The processor has the instructions.
pub(super) trait Dot {
    /// Adds the products of four neighbours to each of four sums.
    unsafe fn dot(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// What every 64-bit Arm processor has.
struct Widening;
/// SDOT.
struct Sdot;

impl Dot for Widening {
    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: part of the architecture. Two products of at most 128 * 127 fit 16 bits.
        unsafe {
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            let high = vmull_s8(vget_high_s8(w), vget_high_s8(x));
            vpadalq_s16(vpadalq_s16(sums, low), high)
        }
    }
}

impl Dot for Sdot {
    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        let mut sums = sums;
        // SAFETY: the instruction is the caller's promise.
        unsafe {
            asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) w, in(vreg) x,
                options(pure, nomem, nostack, preserves_flags));
        }
        sums
    }
}

struct Neon<F, D>(PhantomData<(F, D)>);

/// Few rows of inputs, with what every processor has.
pub(super) fn few<F: Registers>(job: &Few) {
    // SAFETY: NEON is part of the architecture.
    unsafe { super::eights::few::<Neon<F, Widening>>(job) }
}

/// Few rows of inputs, with SDOT.
///
/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn few_sdot<F: Registers>(job: &Few) {
    // SAFETY: the caller's promise.
    unsafe { super::eights::few::<Neon<F, Sdot>>(job) }
}

impl<F: Registers, D: Dot> Eight for Neon<F, D> {
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
            let zero = vdupq_n_s32(0);
            let (mut parts, mut mins) = ([[zero; 8]; T], [[zero; 8]; T]);
            let (mut d, mut m) = ([0.0f32; 8], [0.0f32; 8]);
            for i in 0..count {
                let block = start.add(i * F::BYTES);
                let bytes = std::slice::from_raw_parts(block, F::BYTES);
                d[i] = F::d(bytes, std::slice::from_raw_parts(scales.add(i * F::SCALE_BYTES), F::SCALE_BYTES.min(1)));
                m[i] = F::m(bytes).unwrap_or(0.0);
                if F::BLOCK == 256 {
                    large::<F, D, T>(block, first + i, i, x, &mut parts, &mut mins);
                } else {
                    let w = F::bytes(block);
                    for r in 0..T {
                        let q = x[r].q.add(first / 8 * x[r].q_step + 32 * i);
                        parts[r][i] = D::dot(D::dot(zero, w[0], vld1q_s8(q)), w[1], vld1q_s8(q.add(16)));
                    }
                }
            }
            for r in 0..T {
                let mut value = [vdupq_n_f32(0.0); 2];
                for half in 0..2 {
                    let at = 4 * half;
                    let s = vcvtq_f32_s32(sums_of_4(&parts[r][at..]));
                    value[half] = vmulq_f32(vld1q_f32(d[at..].as_ptr()), s);
                    if F::M.is_some() {
                        let min = if F::BLOCK == 256 {
                            sums_of_4(&mins[r][at..])
                        } else {
                            vld1q_s32(x[r].block_sums.add(first + at))
                        };
                        let min = vmulq_f32(vld1q_f32(m[at..].as_ptr()), vcvtq_f32_s32(min));
                        value[half] = vaddq_f32(value[half], min);
                    }
                    value[half] = vmulq_f32(value[half], vld1q_f32(x[r].d.add(first + at)));
                }
                let keep = |half: usize| if FULL { value[half] } else { first_of(value[half], count, 4 * half) };
                // The tree of an eight: neighbours, pairs of them, both halves.
                let pairs = vpaddq_f32(keep(0), keep(1));
                let fours = vpaddq_f32(pairs, pairs);
                out[r] += vpadds_f32(vget_low_f32(fours));
            }
        }
    }
}

/// Block `number`, of 256, the `i`th of its eight.
#[inline(always)]
unsafe fn large<F: Registers, D: Dot, const T: usize>(
    block: *const u8,
    number: usize,
    i: usize,
    x: &[X; T],
    parts: &mut [[int32x4_t; 8]; T],
    mins: &mut [[int32x4_t; 8]; T],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let w = F::bytes(block);
        let (scale, min) = F::scales(std::slice::from_raw_parts(block, F::BYTES));
        for r in 0..T {
            let q = x[r].q.add(number * x[r].q_step);
            let mut total = vdupq_n_s32(0);
            for g in 0..256 / F::GROUP {
                let mut part = vdupq_n_s32(0);
                for k in (g * F::GROUP..(g + 1) * F::GROUP).step_by(16) {
                    part = D::dot(part, w[k / 16], vld1q_s8(q.add(k)));
                }
                total = vmlaq_n_s32(total, part, i32::from(scale[g]));
            }
            parts[r][i] = total;
            if F::M.is_some() {
                let sums = x[r].sums.add(number * x[r].sums_step + if F::GROUP == 16 { 0 } else { 16 });
                let mut total = vdupq_n_s32(0);
                for g in (0..256 / F::GROUP).step_by(4) {
                    total = vmlal_s16(total, vld1_s16(min[g..].as_ptr()), vld1_s16(sums.add(g)));
                }
                mins[r][i] = total;
            }
        }
    }
}

/// The sums of four registers.
#[inline(always)]
unsafe fn sums_of_4(v: &[int32x4_t]) -> int32x4_t {
    // SAFETY: part of the architecture.
    unsafe { vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3])) }
}

/// Zeros in the lanes from `count - at` on.
#[inline(always)]
unsafe fn first_of(values: float32x4_t, count: usize, at: usize) -> float32x4_t {
    // SAFETY: part of the architecture.
    unsafe {
        let lane = vld1q_u32([0u32, 1, 2, 3].as_ptr());
        let there = vcltq_u32(lane, vdupq_n_u32(count.saturating_sub(at) as u32));
        vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(values), there))
    }
}

// SAFETY (all blocks below): pointers to whole blocks, by the trait's contract; NEON is part of the architecture.

/// Two registers alone.
#[inline(always)]
unsafe fn alone([a, b]: [int8x16_t; 2]) -> [int8x16_t; 16] {
    // SAFETY: see above.
    let mut all = [unsafe { vdupq_n_s8(0) }; 16];
    (all[0], all[1]) = (a, b);
    all
}

/// Sixteen low nibbles, and the sixteen high ones.
#[inline(always)]
unsafe fn nibbles(a: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: see above.
    unsafe {
        let both = vld1q_u8(a);
        [vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both)]
    }
}

/// Both less `offset`.
#[inline(always)]
unsafe fn less(u: [uint8x16_t; 2], offset: i32) -> [int8x16_t; 2] {
    // SAFETY: see above.
    unsafe {
        let offset = vdupq_n_s8(offset as i8);
        [vsubq_s8(vreinterpretq_s8_u8(u[0]), offset), vsubq_s8(vreinterpretq_s8_u8(u[1]), offset)]
    }
}

/// Adds 16 to the bytes whose bit is set in the four bytes at `a`.
#[inline(always)]
unsafe fn with_fifth_bits(u: [uint8x16_t; 2], a: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: see above.
    unsafe {
        let bit = vld1q_u8([1u8, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128].as_ptr());
        let half = |i: usize| {
            let bytes = vcombine_u8(vdup_n_u8(*a.add(2 * i)), vdup_n_u8(*a.add(2 * i + 1)));
            vorrq_u8(u[i], vandq_u8(vtstq_u8(bytes, bit), vdupq_n_u8(16)))
        };
        [half(0), half(1)]
    }
}

/// `values[nibble]` for each byte.
#[inline(always)]
unsafe fn looked_up(nibbles: [uint8x16_t; 2], values: &[i8; 16]) -> [int8x16_t; 2] {
    // SAFETY: see above.
    unsafe {
        let table = vld1q_s8(values.as_ptr());
        [vqtbl1q_s8(table, nibbles[0]), vqtbl1q_s8(table, nibbles[1])]
    }
}

/// Implements the trait for a format of 32 elements by an expression over its block.
macro_rules! small_format {
    ($format:ident, $a:ident => $bytes:expr) => {
        impl Registers for $format {
            #[inline(always)]
            unsafe fn bytes($a: *const u8) -> [int8x16_t; 16] {
                // SAFETY: see above.
                unsafe { alone($bytes) }
            }
        }
    };
}

small_format!(Q4_0, a => less(nibbles(a.add(2)), Self::OFFSET));
small_format!(Q4_1, a => less(nibbles(a.add(4)), 0));
small_format!(Q5_0, a => less(with_fifth_bits(nibbles(a.add(6)), a.add(2)), Self::OFFSET));
small_format!(Q5_1, a => less(with_fifth_bits(nibbles(a.add(8)), a.add(4)), 0));
small_format!(Q8_0, a => [vld1q_s8(a.add(2).cast()), vld1q_s8(a.add(18).cast())]);
small_format!(Iq4Nl, a => looked_up(nibbles(a.add(2)), &IQ4));
small_format!(Mxfp4, a => looked_up(nibbles(a.add(1)), &E2M1));
small_format!(Mxfp4Split, a => {
    let [even, odd] = looked_up(nibbles(a), &E2M1);
    [vzip1q_s8(even, odd), vzip2q_s8(even, odd)]
});

/// Group `2 p` in the low nibbles of bytes `32 p ..`, group `2 p + 1` in the high ones.
#[inline(always)]
unsafe fn paired_nibbles(bytes: *const u8) -> [uint8x16_t; 16] {
    // SAFETY: see above.
    unsafe {
        let mut u = [vdupq_n_u8(0); 16];
        for i in 0..8 {
            let at = i / 2 * 4 + i % 2;
            [u[at], u[at + 2]] = nibbles(bytes.add(16 * i));
        }
        u
    }
}

/// Bit `g` of byte `l` goes to bit `to` of element `32 g + l`.
#[inline(always)]
unsafe fn with_group_bits(u: &mut [uint8x16_t; 16], bits: *const u8, to: u32) {
    // SAFETY: see above.
    unsafe {
        let bits = [vld1q_u8(bits), vld1q_u8(bits.add(16))];
        for i in 0..16 {
            let set = vtstq_u8(bits[i % 2], vdupq_n_u8(1 << (i / 2)));
            u[i] = vorrq_u8(u[i], vandq_u8(set, vdupq_n_u8(1 << to)));
        }
    }
}

/// Elements `128 h + 32 g + l` from bits `2g` of byte `32 h + l`.
#[inline(always)]
unsafe fn two_bits(bytes: *const u8) -> [uint8x16_t; 16] {
    // SAFETY: see above.
    unsafe {
        let mut u = [vdupq_n_u8(0); 16];
        for i in 0..16 {
            let four = vld1q_u8(bytes.add(i / 8 * 32 + i % 2 * 16));
            let right = vdupq_n_s8(-2 * (i as i8 / 2 % 4));
            u[i] = vandq_u8(vshlq_u8(four, right), vdupq_n_u8(3));
        }
        u
    }
}

/// All less `offset`.
#[inline(always)]
unsafe fn all_less(u: [uint8x16_t; 16], offset: i32) -> [int8x16_t; 16] {
    // SAFETY: see above.
    unsafe {
        let mut w = [vdupq_n_s8(0); 16];
        for i in 0..16 {
            w[i] = vsubq_s8(vreinterpretq_s8_u8(u[i]), vdupq_n_s8(offset as i8));
        }
        w
    }
}

/// Implements the trait for a format of 256 elements by an expression over its block.
macro_rules! large_format {
    ($format:ident, $a:ident => $bytes:expr) => {
        impl Registers for $format {
            #[inline(always)]
            unsafe fn bytes($a: *const u8) -> [int8x16_t; 16] {
                // SAFETY: see above.
                unsafe { $bytes }
            }
        }
    };
}

large_format!(Q2K, a => all_less(two_bits(a.add(16)), 0));
large_format!(Q3K, a => {
    let mut u = two_bits(a.add(32));
    with_group_bits(&mut u, a, 2);
    all_less(u, Self::OFFSET)
});
large_format!(Q4K, a => all_less(paired_nibbles(a.add(16)), 0));
large_format!(Q5K, a => {
    let mut u = paired_nibbles(a.add(48));
    with_group_bits(&mut u, a.add(16), 4);
    all_less(u, 0)
});
large_format!(Q6K, a => {
    let mut u = two_bits(a.add(128));
    for h in 0..2 {
        for l in 0..4 {
            let low = nibbles(a.add(64 * h + 16 * l));
            let (i, j) = (8 * h + l, 8 * h + 4 + l);
            u[i] = vorrq_u8(low[0], vshlq_n_u8::<4>(u[i]));
            u[j] = vorrq_u8(low[1], vshlq_n_u8::<4>(u[j]));
        }
    }
    all_less(u, Self::OFFSET)
});
large_format!(Iq4Xs, a => {
    let mut w = [vdupq_n_s8(0); 16];
    for g in 0..8 {
        [w[2 * g], w[2 * g + 1]] = looked_up(nibbles(a.add(8 + 16 * g)), &IQ4);
    }
    w
});
