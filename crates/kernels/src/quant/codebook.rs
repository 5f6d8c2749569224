//! Formats whose 4 bits are an index into 16 fixed values: IQ4_NL, IQ4_XS and MXFP4.

use super::float::{e8m0_half_to_f32, f16_at};
use super::simple::nibbles;

/// The values of IQ4_NL and IQ4_XS, ascending: denser in the middle, as weights are.
pub(crate) const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The values of E2M1, doubled to be integers. (Index 8 is negative zero, lost in the doubling.)
pub(crate) const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// d: f16, 16 bytes of nibbles. `d * value`
#[inline(always)]
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    scaled(f16_at(block, 0), &IQ4, block.last_chunk().unwrap(), out);
}

/// d: f16, upper 2 bits of eight 6-bit scales (16 bits), their lower 4 bits (4 bytes), then the
/// nibbles of eight sub-blocks, 16 bytes each. `(d * (scale - 32)) * value`
#[inline(always)]
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    let nibbles = block[8..].as_chunks::<16>().0;
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = i32::from(block[4 + i / 2] >> (4 * (i % 2)) & 15);
        let scale = low | i32::from(high >> (2 * i) & 3) << 4;
        scaled(d * (scale - 32) as f32, &IQ4, &nibbles[i], out);
    }
}

/// E8M0 scale, 16 bytes of nibbles. `2^(e - 128) * doubled value`
#[inline(always)]
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    scaled(e8m0_half_to_f32(block[0]), &E2M1, block.last_chunk().unwrap(), out);
}

/// As [`mxfp4`], with neighbours sharing a byte, negative zero, and NaN for the scale 255.
#[inline(always)]
pub(super) fn mxfp4_split(bytes: &[u8; 16], scale: u8, out: &mut [f32; 32]) {
    let d = if scale == 255 { f32::NAN } else { e8m0_half_to_f32(scale) };
    let q = nibbles(bytes);
    let (low, high) = (q.first_chunk::<16>().unwrap(), q.last_chunk::<16>().unwrap());
    for j in 0..16 {
        out[2 * j] = d * e2m1_doubled(low[j]);
        out[2 * j + 1] = d * e2m1_doubled(high[j]);
    }
}

/// A nibble's E2M1 value, doubled, by arithmetic: 1 sign, 2 exponent and 1 mantissa bits.
#[inline(always)]
fn e2m1_doubled(nibble: u8) -> f32 {
    let magnitude = u32::from(nibble & 7);
    let sign = u32::from(nibble & 8) << 28;
    let normal = (magnitude << 22) + (127 << 23);
    let subnormal = (magnitude as i32 as f32).to_bits();
    f32::from_bits(sign | if magnitude < 2 { subnormal } else { normal })
}

/// `d * values[nibble]`
#[inline(always)]
fn scaled(d: f32, values: &[i8; 16], bytes: &[u8; 16], out: &mut [f32; 32]) {
    let v = lookup(values, &nibbles(bytes));
    for (out, v) in out.iter_mut().zip(v) {
        *out = d * f32::from(v);
    }
}

/// `values[q[i]]` for each of 32 nibbles, as a tree of selections by the index's bits. On bytes this
/// is a few dozen operations for all 32 on any instruction set that has vectors, where a load for
/// each element would be 32.
#[inline(always)]
fn lookup(values: &[i8; 16], q: &[u8; 32]) -> [i8; 32] {
    let mut out = [0; 32];
    for i in 0..32 {
        let select = |bit: u8, a: i8, b: i8| {
            let mask = (q[i] << (7 - bit)) as i8 >> 7;
            a ^ (a ^ b) & mask
        };
        let mut v = *values;
        for bit in 0..4 {
            for k in 0..8 >> bit {
                v[k] = select(bit, v[2 * k], v[2 * k + 1]);
            }
        }
        out[i] = v[0];
    }
    out
}
