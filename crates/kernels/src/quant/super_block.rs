//! The "K" formats: super-blocks of 256 elements whose sub-blocks have small integer scales.
//!
//! Elements are coded in groups of 32 that share the same bytes: group `g` of a half (128 elements)
//! lies in bits `2g` (or in nibble) of the same 32 (or 64) bytes.

use super::float::f16_at;
use super::one_block_at_a_time;

/// 16 bytes of scales (low nibble: scale, high nibble: minimum, of 16 elements each), 64 bytes of
/// 2 bits, d: f16, dmin: f16. `((d * scale) * q) - (dmin * min)`
#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    let mut scale = [0.0; 16];
    let mut min = [0.0; 16];
    for i in 0..16 {
        scale[i] = d * f32::from(block[i] & 15);
        min[i] = dmin * f32::from(block[i] >> 4);
    }
    let q = two_bits(block[16..80].as_array().unwrap());
    let (out, q) = (out.as_chunks_mut::<16>().0, q.as_chunks::<16>().0);
    for i in 0..16 {
        for j in 0..16 {
            out[i][j] = scale[i] * i32::from(q[i][j]) as f32 - min[i];
        }
        one_block_at_a_time();
    }
}

/// 32 bytes of third bits (bit `g` of byte `l` is element `32 g + l`'s; set means no offset),
/// 64 bytes of 2 bits, 12 bytes of 6-bit scales (16 elements each, offset 32), d: f16.
/// `(d * (scale - 32)) * (q - (0 or 4))`
#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at(block, 108);
    let scales: &[u8; 12] = block[96..108].as_array().unwrap();
    let mut scale = [0.0; 16];
    for i in 0..16 {
        let low = scales[i % 8] >> (4 * (i / 8)) & 15;
        let high = scales[8 + i % 4] >> (2 * (i / 4)) & 3;
        scale[i] = d * (i32::from(low | high << 4) - 32) as f32;
    }
    let third: &[u8; 32] = block.first_chunk().unwrap();
    let mut q = two_bits(block[32..96].as_array().unwrap());
    for g in 0..8 {
        for l in 0..32 {
            // Four more than the value, which lies in -4..=3.
            q[32 * g + l] |= (third[l] >> g & 1) << 2;
        }
    }
    scaled(&q, 4, &scale, out);
}

/// d: f16, dmin: f16, 12 bytes of 6-bit scales and minima (32 elements each), 128 bytes of nibbles.
/// `((d * scale) * q) - (dmin * min)`
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, min) = scales_and_mins(block.first_chunk().unwrap());
    let q: &[u8; 128] = block.last_chunk().unwrap();
    let (out, q) = (out.as_chunks_mut::<32>().0, q.as_chunks::<32>().0);
    for i in 0..8 {
        // Elements 64 p + l lie in the low nibble of byte 32 p + l, the next 32 in its high nibble.
        let shift = 4 * (i % 2);
        for l in 0..32 {
            out[i][l] = scale[i] * i32::from(q[i / 2][l] >> shift & 15) as f32 - min[i];
        }
        one_block_at_a_time();
    }
}

/// d: f16, dmin: f16, 12 bytes of 6-bit scales and minima (32 elements each), 32 bytes of fifth
/// bits (bit `g` of byte `l` is element `32 g + l`'s), 128 bytes of nibbles.
/// `((d * scale) * q) - (dmin * min)`
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scale, min) = scales_and_mins(block.first_chunk().unwrap());
    let mut q = paired_nibbles(block.last_chunk().unwrap());
    let fifth: &[u8; 32] = block[16..48].as_array().unwrap();
    for g in 0..8 {
        for l in 0..32 {
            q[32 * g + l] |= (fifth[l] >> g & 1) << 4;
        }
    }
    scaled_from_min(&q, &scale, &min, out);
}

/// 128 bytes of low nibbles, 64 bytes of the upper 2 bits, 16 signed 8-bit scales (16 elements
/// each), d: f16. `(d * scale) * (q - 32)`
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = f16_at(block, 208);
    let mut scale = [0.0; 16];
    for i in 0..16 {
        scale[i] = d * f32::from(block[192 + i] as i8);
    }
    let mut q = two_bits(block[128..192].as_array().unwrap());
    let low: &[u8; 128] = block.first_chunk().unwrap();
    for (half, q) in q.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        for l in 0..64 {
            q[l] = q[l] << 4 | low[64 * half + l] & 15;
        }
        for l in 0..64 {
            q[64 + l] = q[64 + l] << 4 | low[64 * half + l] >> 4;
        }
    }
    scaled(&q, 32, &scale, out);
}

/// `scale[i] * (q - offset)` over sub-blocks of 16.
#[inline(always)]
fn scaled(q: &[u8; 256], offset: i32, scale: &[f32; 16], out: &mut [f32; 256]) {
    let (out, q) = (out.as_chunks_mut::<16>().0, q.as_chunks::<16>().0);
    for i in 0..16 {
        for j in 0..16 {
            out[i][j] = scale[i] * (i32::from(q[i][j]) - offset) as f32;
        }
        one_block_at_a_time();
    }
}

/// `scale[i] * q - min[i]` over sub-blocks of 32.
#[inline(always)]
fn scaled_from_min(q: &[u8; 256], scale: &[f32; 8], min: &[f32; 8], out: &mut [f32; 256]) {
    let (out, q) = (out.as_chunks_mut::<32>().0, q.as_chunks::<32>().0);
    for i in 0..8 {
        for j in 0..32 {
            out[i][j] = scale[i] * i32::from(q[i][j]) as f32 - min[i];
        }
        one_block_at_a_time();
    }
}

/// Elements `128 h + 32 g + l` from bits `2g` of byte `32 h + l`.
#[inline(always)]
fn two_bits(bytes: &[u8; 64]) -> [u8; 256] {
    let mut q = [0; 256];
    for h in 0..2 {
        for g in 0..4 {
            for l in 0..32 {
                q[128 * h + 32 * g + l] = bytes[32 * h + l] >> (2 * g) & 3;
            }
        }
    }
    q
}

/// Elements `64 p + l` from the low nibble of byte `32 p + l`, elements `64 p + 32 + l` from its
/// high nibble.
#[inline(always)]
fn paired_nibbles(bytes: &[u8; 128]) -> [u8; 256] {
    let mut q = [0; 256];
    for p in 0..4 {
        for l in 0..32 {
            q[64 * p + l] = bytes[32 * p + l] & 15;
        }
        for l in 0..32 {
            q[64 * p + 32 + l] = bytes[32 * p + l] >> 4;
        }
    }
    q
}

/// The head of Q4_K and Q5_K: d, dmin and eight pairs of 6-bit integers. The first four scales are
/// the low 6 bits of bytes 0..4, the first four minima those of bytes 4..8; the last four have their
/// low 4 bits in bytes 8..12 (scale low, minimum high) and their upper 2 bits in the upper 2 bits
/// of bytes 0..8.
#[inline(always)]
fn scales_and_mins(head: &[u8; 16]) -> ([f32; 8], [f32; 8]) {
    let (d, dmin) = (f16_at(head, 0), f16_at(head, 2));
    let packed: &[u8; 12] = head.last_chunk().unwrap();
    let mut scale = [0.0; 8];
    let mut min = [0.0; 8];
    for i in 0..4 {
        scale[i] = d * f32::from(packed[i] & 63);
        min[i] = dmin * f32::from(packed[4 + i] & 63);
        scale[4 + i] = d * f32::from(packed[8 + i] & 15 | packed[i] >> 2 & 48);
        min[4 + i] = dmin * f32::from(packed[8 + i] >> 4 | packed[4 + i] >> 2 & 48);
    }
    (scale, min)
}
