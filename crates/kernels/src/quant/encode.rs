//! Floats to blocks: the plain floats, ggml's reference quantisers of the simple formats, MXFP4.

use super::codebook::E2M1;
use super::encode_super as super_block;
use super::float::{e8m0_half_to_f32, f32_to_bf16, f32_to_f8e4m3, f32_to_f16};
use crate::format::Format;

/// Applies `block` to each block; the error is the position of the largest value of a block that
/// did not fit. (A macro, so that the block is inlined: see the reader's.)
macro_rules! blocks {
    ($row:ident, $out:ident, $block:path) => {{
        let mut start = 0;
        for (x, out) in $row.as_chunks().0.iter().zip($out.as_chunks_mut().0) {
            if let Err(TooLarge) = $block(x, out) {
                return Err(start + largest(x).0);
            }
            start += x.len();
        }
    }};
}

/// A block's values do not fit its format.
pub(super) struct TooLarge;

/// Writes a row of finite values whose size was checked. The error is the position of a value
/// that is too large.
#[inline(always)]
pub(super) fn quantize_row_inline(format: Format, row: &[f32], out: &mut [u8]) -> Result<(), usize> {
    match format {
        Format::F32 => blocks!(row, out, f32),
        Format::F16 => blocks!(row, out, f16),
        Format::BF16 => blocks!(row, out, bf16),
        Format::F8E4M3 => blocks!(row, out, f8e4m3),
        Format::Q4_0 => blocks!(row, out, q4_0),
        Format::Q4_1 => blocks!(row, out, q4_1),
        Format::Q5_0 => blocks!(row, out, q5_0),
        Format::Q5_1 => blocks!(row, out, q5_1),
        Format::Q8_0 => blocks!(row, out, q8_0),
        Format::Q2K => blocks!(row, out, super_block::q2_k),
        Format::Q3K => blocks!(row, out, super_block::q3_k),
        Format::Q4K => blocks!(row, out, super_block::q4_k),
        Format::Q5K => blocks!(row, out, super_block::q5_k),
        Format::Q6K => blocks!(row, out, super_block::q6_k),
        Format::Iq4Nl => blocks!(row, out, super_block::iq4_nl),
        Format::Iq4Xs => blocks!(row, out, super_block::iq4_xs),
        Format::Mxfp4 => blocks!(row, out, mxfp4),
    }
    Ok(())
}

/// Writes a half, if it is finite.
#[inline(always)]
pub(super) fn put_f16(x: f32, out: &mut [u8; 2]) -> Result<(), TooLarge> {
    let bits = f32_to_f16(x);
    *out = bits.to_le_bytes();
    if bits & 0x7fff == 0x7c00 { Err(TooLarge) } else { Ok(()) }
}

/// The first value of the largest magnitude, and its position.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> (usize, f32) {
    let mut best = (0, 0.0_f32);
    for (i, &x) in x.iter().enumerate() {
        if x.abs() > best.1.abs() {
            best = (i, x);
        }
    }
    best
}

#[inline(always)]
fn f32([x]: &[f32; 1], out: &mut [u8; 4]) -> Result<(), TooLarge> {
    *out = x.to_le_bytes();
    Ok(())
}

#[inline(always)]
fn f16([x]: &[f32; 1], out: &mut [u8; 2]) -> Result<(), TooLarge> {
    put_f16(*x, out)
}

#[inline(always)]
fn bf16([x]: &[f32; 1], out: &mut [u8; 2]) -> Result<(), TooLarge> {
    let bits = f32_to_bf16(*x);
    *out = bits.to_le_bytes();
    if bits & 0x7fff == 0x7f80 { Err(TooLarge) } else { Ok(()) }
}

#[inline(always)]
fn f8e4m3([x]: &[f32; 1], out: &mut [u8; 1]) -> Result<(), TooLarge> {
    *out = [f32_to_f8e4m3(*x)];
    Ok(())
}

#[inline(always)]
fn q4_0(x: &[f32; 32], out: &mut [u8; 18]) -> Result<(), TooLarge> {
    let (d, q) = from_largest::<8>(x);
    put_nibbles(&q, out.last_chunk_mut().unwrap());
    put_f16(d, out.first_chunk_mut().unwrap())
}

#[inline(always)]
fn q5_0(x: &[f32; 32], out: &mut [u8; 22]) -> Result<(), TooLarge> {
    let (d, q) = from_largest::<16>(x);
    put_nibbles(&q, out.last_chunk_mut().unwrap());
    out[2..6].copy_from_slice(&fifth_bits(&q));
    put_f16(d, out.first_chunk_mut().unwrap())
}

#[inline(always)]
fn q4_1(x: &[f32; 32], out: &mut [u8; 20]) -> Result<(), TooLarge> {
    let (d, m, q) = from_range::<15>(x);
    put_nibbles(&q, out.last_chunk_mut().unwrap());
    put_f16(m, out[2..].first_chunk_mut().unwrap())?;
    put_f16(d, out.first_chunk_mut().unwrap())
}

#[inline(always)]
fn q5_1(x: &[f32; 32], out: &mut [u8; 24]) -> Result<(), TooLarge> {
    let (d, m, q) = from_range::<31>(x);
    put_nibbles(&q, out.last_chunk_mut().unwrap());
    out[4..8].copy_from_slice(&fifth_bits(&q));
    put_f16(m, out[2..].first_chunk_mut().unwrap())?;
    put_f16(d, out.first_chunk_mut().unwrap())
}

#[inline(always)]
fn q8_0(x: &[f32; 32], out: &mut [u8; 34]) -> Result<(), TooLarge> {
    let d = largest(x).1.abs() / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    for i in 0..32 {
        // Ties away from zero, as C's roundf.
        out[2 + i] = (x[i] * inverse).round() as i8 as u8;
    }
    put_f16(d, out.first_chunk_mut().unwrap())
}

/// ggml's scale for codes `0..2 * HALF` with an offset of `HALF`: the value of the largest magnitude
/// gets code 0, so that its sign decides the sign of the scale.
#[inline(always)]
fn from_largest<const HALF: u8>(x: &[f32; 32]) -> (f32, [u8; 32]) {
    let half = f32::from(HALF);
    let d = largest(x).1 / -half;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut q = [0; 32];
    for i in 0..32 {
        // A cast of a float saturates, and gives 0 for the NaN of 0 * infinity.
        q[i] = ((x[i] * inverse + (half + 0.5)) as u8).min(2 * HALF - 1);
    }
    (d, q)
}

/// ggml's scale and minimum for codes `0..=MAX`: the range of the values, cut evenly.
#[inline(always)]
fn from_range<const MAX: u8>(x: &[f32; 32]) -> (f32, f32, [u8; 32]) {
    let (mut min, mut max) = (x[0], x[0]);
    for &x in &x[1..] {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    let d = (max - min) / f32::from(MAX);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut q = [0; 32];
    for i in 0..32 {
        q[i] = (((x[i] - min) * inverse + 0.5) as u8).min(MAX);
    }
    (d, min, q)
}

/// The scale is the power of two of the largest magnitude, less 2 (the power of two of E2M1's
/// largest value), as OCP microscaling says in 6.3. Elements go to the nearest value; of two equally
/// near the one nearer to zero, as ggml does.
#[inline(always)]
fn mxfp4(x: &[f32; 32], out: &mut [u8; 17]) -> Result<(), TooLarge> {
    let exponent = (largest(x).1.abs().to_bits() >> 23) as u8;
    out[0] = exponent.saturating_sub(2);
    let d = e8m0_half_to_f32(out[0]);
    let mut q = [0; 32];
    for i in 0..32 {
        let mut best_error = x[i].abs();
        for (code, value) in E2M1.iter().enumerate().skip(1) {
            let error = (d * f32::from(*value) - x[i]).abs();
            q[i] = if error < best_error { code as u8 } else { q[i] };
            best_error = if error < best_error { error } else { best_error };
        }
    }
    put_nibbles(&q, out.last_chunk_mut().unwrap());
    Ok(())
}

/// Byte `j`: element `j` low, element `16 + j` high.
#[inline(always)]
pub(super) fn put_nibbles(q: &[u8; 32], out: &mut [u8; 16]) {
    for j in 0..16 {
        out[j] = q[j] & 15 | q[16 + j] << 4;
    }
}

#[inline(always)]
fn fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    let mut bits = 0_u32;
    for (i, q) in q.iter().enumerate() {
        bits |= u32::from(q >> 4 & 1) << i;
    }
    bits.to_le_bytes()
}
