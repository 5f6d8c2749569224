//! The formats of 32 elements with one 16-bit scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! Nibbles: byte `j` of 16 holds element `j` (low) and element `16 + j` (high).

use super::float::f16_at;

/// d: f16, 16 bytes of nibbles. `d * (q - 8)`
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let q = nibbles(block.last_chunk().unwrap());
    for (out, q) in out.iter_mut().zip(q) {
        *out = d * (i32::from(q) - 8) as f32;
    }
}

/// d: f16, m: f16, 16 bytes of nibbles. `(d * q) + m`
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let q = nibbles(block.last_chunk().unwrap());
    for (out, q) in out.iter_mut().zip(q) {
        *out = d * i32::from(q) as f32 + m;
    }
}

/// d: f16, 32 fifth bits (bit `i` is element `i`'s), 16 bytes of nibbles. `d * (q - 16)`
#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let q = nibbles(block.last_chunk().unwrap());
    let high = fifth_bits([block[2], block[3], block[4], block[5]]);
    for i in 0..32 {
        out[i] = d * (i32::from(q[i]) + high[i] - 16) as f32;
    }
}

/// d: f16, m: f16, 32 fifth bits, 16 bytes of nibbles. `(d * q) + m`
#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let q = nibbles(block.last_chunk().unwrap());
    let high = fifth_bits([block[4], block[5], block[6], block[7]]);
    for i in 0..32 {
        out[i] = d * (i32::from(q[i]) + high[i]) as f32 + m;
    }
}

/// d: f16, 32 signed bytes. `q * d`
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let q: &[u8; 32] = block.last_chunk().unwrap();
    for (out, &q) in out.iter_mut().zip(q) {
        *out = f32::from(q as i8) * d;
    }
}

/// Low nibbles, then high nibbles.
#[inline(always)]
pub(super) fn nibbles(bytes: &[u8; 16]) -> [u8; 32] {
    let mut q = [0; 32];
    for j in 0..16 {
        q[j] = bytes[j] & 15;
    }
    for j in 0..16 {
        q[16 + j] = bytes[j] >> 4;
    }
    q
}

/// 16 where the bit of the element is set, else 0.
#[inline(always)]
fn fifth_bits(bytes: [u8; 4]) -> [i32; 32] {
    // A table instead of shifts by the index: every instruction set compares, not every one shifts
    // each lane by its own count.
    const BIT: [u32; 32] = {
        let mut bit = [0; 32];
        let mut i = 0;
        while i < 32 {
            bit[i] = 1 << i;
            i += 1;
        }
        bit
    };
    let bits = u32::from_le_bytes(bytes);
    let mut high = [0; 32];
    for i in 0..32 {
        high[i] = if bits & BIT[i] != 0 { 16 } else { 0 };
    }
    high
}
