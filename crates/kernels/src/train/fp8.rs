//! DeepSeek-V3's FP8 training scheme, simulated: values are rounded to what an E4M3 number and a
//! scale can hold, and stay floats (V3 report, section 3.3.2). Sums are f32 throughout.
//!
//! Of the three products of a linear layer,
//! - `y = x W^T` and `dx = dy W` take `x` and `dy` in tiles of 1 x 128 (a token and 128 channels),
//!   `W` in blocks of 128 x 128;
//! - `dW = dy^T x` takes both in tiles of 128 x 1 (128 tokens and a channel), `x` out of the tiles of
//!   1 x 128 that the forward pass stored (section 3.5.2).
//!
//! A scale is the largest magnitude of its tile over 448, E4M3's largest number, so that nothing
//! overflows. Not simulated: the E5M6 copy of the inputs of attention's output projection.

use std::ops::Range;

use crate::pool::Pool;

/// Side of a block, and length of a tile.
pub const BLOCK: usize = 128;

/// The largest E4M3 number.
const LARGEST: f32 = 448.0;

/// Rounds the activations or gradients `x` `[T, cols]` in tiles of 1 x 128, in place.
///
/// # Panics
/// If `x` is not whole rows.
pub fn simulate_activations(pool: &Pool, x: &mut [f32], cols: usize) {
    assert!(cols > 0 && x.len().is_multiple_of(cols), "{} elements in rows of {cols}", x.len());
    pool.for_each_piece(x, cols, |_, row| round_row(row));
}

/// Rounds the weights `w` `[rows, cols]` in blocks of 128 x 128, in place.
///
/// # Panics
/// If `w` is not `rows * cols` long.
pub fn simulate_weights(pool: &Pool, w: &mut [f32], rows: usize, cols: usize) {
    assert_eq!(w.len(), rows * cols, "a {rows} x {cols} matrix");
    if w.is_empty() {
        return;
    }
    pool.for_each_piece(w, BLOCK * cols, |_, band| {
        for col in (0..cols).step_by(BLOCK) {
            let part = col..(col + BLOCK).min(cols);
            let most =
                band.chunks_exact(cols).flat_map(|row| &row[part.clone()]).fold(0.0, |most, v| largest(most, *v));
            let scale = scale_of(most);
            for row in band.chunks_exact_mut(cols) {
                row[part.clone()].iter_mut().for_each(|v| *v = through_e4m3(*v, scale));
            }
        }
    });
}

/// Rounds a row, or a part of one that begins with a tile, in tiles of 1 x 128.
#[inline(always)]
pub(crate) fn round_row(row: &mut [f32]) {
    for tile in row.chunks_mut(BLOCK) {
        let scale = scale_of(tile.iter().fold(0.0, |most, v| largest(most, *v)));
        tile.iter_mut().for_each(|v| *v = through_e4m3(*v, scale));
    }
}

/// Appends the columns `cols` of a row that is rounded in tiles of 1 x 128.
#[inline(always)]
pub(crate) fn round_part(row: &[f32], cols: &Range<usize>, to: &mut Vec<f32>) {
    for first in (cols.start / BLOCK * BLOCK..cols.end).step_by(BLOCK) {
        let tile = first..(first + BLOCK).min(row.len());
        let mut rounded = [0.0f32; BLOCK];
        let rounded = &mut rounded[..tile.len()];
        rounded.copy_from_slice(&row[tile.clone()]);
        round_row(rounded);
        to.extend_from_slice(&rounded[cols.start.max(first) - first..cols.end.min(tile.end) - first]);
    }
}

/// Rounds rows of `width` in tiles of 128 x 1, in place.
#[inline(always)]
pub(crate) fn round_columns(rows: &mut [f32], width: usize) {
    let mut scales = vec![0.0f32; width];
    for band in rows.chunks_mut(BLOCK * width) {
        scales.fill(0.0);
        for row in band.chunks_exact(width) {
            scales.iter_mut().zip(row).for_each(|(most, v)| *most = largest(*most, *v));
        }
        scales.iter_mut().for_each(|scale| *scale = scale_of(*scale));
        for row in band.chunks_exact_mut(width) {
            row.iter_mut().zip(&scales).for_each(|(v, scale)| *v = through_e4m3(*v, *scale));
        }
    }
}

/// The larger magnitude; NaN and infinity do not set a scale (they stay what they are).
#[inline(always)]
fn largest(most: f32, v: f32) -> f32 {
    if v.is_finite() { most.max(v.abs()) } else { most }
}

#[inline(always)]
fn scale_of(most: f32) -> f32 {
    // Below this the scale would not be a normal number; such a tile is as good as zero.
    if most < LARGEST * f32::MIN_POSITIVE { 1.0 } else { most / LARGEST }
}

/// `value` as E4M3 times `scale`: three fractional bits, exponents down to 2^-6, multiples of 2^-9
/// below; to nearest, ties to even. NaN and infinity stay.
#[inline(always)]
fn through_e4m3(value: f32, scale: f32) -> f32 {
    let x = value / scale;
    if !x.is_finite() {
        return value;
    }
    let x = x.clamp(-LARGEST, LARGEST);
    // The exponent of the number, not below that of the smallest normal one; the unit is 2^-3 of it.
    let exponent = ((x.to_bits() >> 23 & 0xff) as i32 - 127).max(-6);
    let unit = f32::from_bits(((exponent - 3 + 127) as u32) << 23);
    (x / unit).round_ties_even() * unit * scale
}
