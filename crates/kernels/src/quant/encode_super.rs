//! Floats to the K formats, IQ4_NL and IQ4_XS: a search for the least squared error.
//!
//! All weights of a row count alike. Activations are not known here, and with activations of equal
//! variance the expected error of a product is the squared error of the weights.
//!
//! 1. For each sub-block, several clippings of its range are tried; each gives codes, codes give the
//!    scale (and minimum) of least squares in closed form; the best is kept.
//! 2. Sub-block scales become small integers times one 16-bit scale.
//! 3. In turn, the integers move by one where that lowers the error *with the codes chosen anew*,
//!    and the 16-bit scales are solved for by least squares. Nothing is kept that is not better.
//!
//! Sums are kept in eight lanes added in a fixed order, so that the bytes do not depend on the
//! instruction set.

use super::codebook::IQ4;
use super::encode::{TooLarge, largest, put_f16, put_nibbles};
use super::float::{f16_to_f32, f32_to_f16};

/// The sum of a term over `0..n` in eight lanes; `n` is a multiple of eight. (This and the next are
/// macros, because a closure may be compiled for the portable instruction set.)
macro_rules! sum {
    ($n:expr, |$j:ident| $term:expr) => {{
        let mut lanes = [0.0_f32; 8];
        for i in 0..$n / 8 {
            for l in 0..8 {
                let $j = 8 * i + l;
                lanes[l] += $term;
            }
        }
        add_up(lanes)
    }};
}

/// An array with each value replaced.
macro_rules! map {
    ($values:expr, |$x:ident| $value:expr) => {{
        let values = &$values;
        let mut out = [Default::default(); _];
        for i in 0..values.len() {
            let $x = values[i];
            out[i] = $value;
        }
        out
    }};
}

/// How often step 3 is repeated at most.
const ROUNDS: usize = 3;

/// Clippings that are tried: the largest value gets a code this many times the largest code.
const CLIPPINGS: [f32; 8] = [0.85, 0.92, 0.97, 1.0, 1.04, 1.1, 1.18, 1.3];

/// Half of the least positive half-precision number, the least scale: what is smaller than this
/// becomes zero in every format here.
const VANISHES: f32 = f32::from_bits((127 - 25) << 23);

/// Far beyond what any format here can hold, and far from where squares overflow.
const MUCH_TOO_LARGE: f32 = 1e12;

#[inline(always)]
pub(super) fn q2_k(x: &[f32; 256], out: &mut [u8; 84]) -> Result<(), TooLarge> {
    let x = in_range(x)?;
    let x: &[[f32; 16]; 16] = x.as_chunks().0.as_array().unwrap();
    let fit = FromMin::fit(x, 3.0, 15.0)?;
    for i in 0..16 {
        out[i] = fit.scale[i] as u8 | (fit.min[i] as u8) << 4;
    }
    put_two_bits(&fit.codes(x), out[16..80].as_mut_array().unwrap());
    fit.put(out.last_chunk_mut().unwrap());
    Ok(())
}

#[inline(always)]
pub(super) fn q3_k(x: &[f32; 256], out: &mut [u8; 110]) -> Result<(), TooLarge> {
    let x = in_range(x)?;
    let x: &[[f32; 16]; 16] = x.as_chunks().0.as_array().unwrap();
    let code = Uniform { low: -4.0, high: 3.0 };
    let fit = Centred::fit(x, (-32.0, 31.0), code)?;
    let mut q = [0; 256];
    for i in 0..16 {
        for j in 0..16 {
            q[16 * i + j] = (code.nearest(x[i][j] * fit.inverse(i)) + 4.0) as u8;
        }
    }
    out.fill(0);
    for i in 0..256 {
        out[i % 32] |= (q[i] >> 2) << (i / 32);
    }
    put_two_bits(&q, out[32..96].as_mut_array().unwrap());
    for i in 0..16 {
        let scale = (fit.scale[i] + 32.0) as u8;
        out[96 + i % 8] |= (scale & 15) << (4 * (i / 8));
        out[104 + i % 4] |= (scale >> 4) << (2 * (i / 4));
    }
    put_f16(fit.d, out.last_chunk_mut().unwrap())
}

#[inline(always)]
pub(super) fn q4_k(x: &[f32; 256], out: &mut [u8; 144]) -> Result<(), TooLarge> {
    let x = in_range(x)?;
    let x: &[[f32; 32]; 8] = x.as_chunks().0.as_array().unwrap();
    let fit = FromMin::fit(x, 15.0, 63.0)?;
    fit.put(out.first_chunk_mut().unwrap());
    put_six_bits(&fit.scale, &fit.min, out[4..16].as_mut_array().unwrap());
    put_paired_nibbles(&fit.codes(x), out.last_chunk_mut().unwrap());
    Ok(())
}

#[inline(always)]
pub(super) fn q5_k(x: &[f32; 256], out: &mut [u8; 176]) -> Result<(), TooLarge> {
    let x = in_range(x)?;
    let x: &[[f32; 32]; 8] = x.as_chunks().0.as_array().unwrap();
    let fit = FromMin::fit(x, 31.0, 63.0)?;
    fit.put(out.first_chunk_mut().unwrap());
    put_six_bits(&fit.scale, &fit.min, out[4..16].as_mut_array().unwrap());
    let q = fit.codes(x);
    out[16..48].fill(0);
    for i in 0..256 {
        out[16 + i % 32] |= (q[i] >> 4) << (i / 32);
    }
    put_paired_nibbles(&q, out.last_chunk_mut().unwrap());
    Ok(())
}

#[inline(always)]
pub(super) fn q6_k(x: &[f32; 256], out: &mut [u8; 210]) -> Result<(), TooLarge> {
    let x = in_range(x)?;
    let x: &[[f32; 16]; 16] = x.as_chunks().0.as_array().unwrap();
    let code = Uniform { low: -32.0, high: 31.0 };
    let fit = Centred::fit(x, (-128.0, 127.0), code)?;
    let mut q = [0; 256];
    for i in 0..16 {
        for j in 0..16 {
            q[16 * i + j] = (code.nearest(x[i][j] * fit.inverse(i)) + 32.0) as u8;
        }
        out[192 + i] = fit.scale[i] as i8 as u8;
    }
    for (half, q) in q.as_chunks::<128>().0.iter().enumerate() {
        for l in 0..64 {
            out[64 * half + l] = q[l] & 15 | q[64 + l] << 4;
        }
    }
    put_two_bits(&map!(q, |q| q >> 4), out[128..192].as_mut_array().unwrap());
    put_f16(fit.d, out.last_chunk_mut().unwrap())
}

#[inline(always)]
pub(super) fn iq4_nl(x: &[f32; 32], out: &mut [u8; 18]) -> Result<(), TooLarge> {
    let x = [in_range(x)?];
    let fit = Centred::fit(&x, (1.0, 1.0), Iq4)?;
    put_nibbles(&Iq4::indices(&x[0], fit.inverse(0)), out.last_chunk_mut().unwrap());
    put_f16(fit.d, out.first_chunk_mut().unwrap())
}

#[inline(always)]
pub(super) fn iq4_xs(x: &[f32; 256], out: &mut [u8; 136]) -> Result<(), TooLarge> {
    let x = in_range(x)?;
    let x: &[[f32; 32]; 8] = x.as_chunks().0.as_array().unwrap();
    let fit = Centred::fit(x, (-32.0, 31.0), Iq4)?;
    out[..8].fill(0);
    for i in 0..8 {
        let scale = (fit.scale[i] + 32.0) as u8;
        out[2 + i / 4] |= (scale >> 4) << (2 * (i % 4));
        out[4 + i / 2] |= (scale & 15) << (4 * (i % 2));
        let nibbles = out[8 + 16 * i..].first_chunk_mut().unwrap();
        put_nibbles(&Iq4::indices(&x[i], fit.inverse(i)), nibbles);
    }
    put_f16(fit.d, out.first_chunk_mut().unwrap())
}

/// The block, or zeros in its place if it is too small to be stored.
#[inline(always)]
fn in_range<const N: usize>(x: &[f32; N]) -> Result<[f32; N], TooLarge> {
    let magnitude = largest(x).1.abs();
    if magnitude > MUCH_TOO_LARGE {
        return Err(TooLarge);
    }
    Ok(if magnitude < VANISHES { [0.0; N] } else { *x })
}

/// The set of values that a scale multiplies.
trait Code: Copy {
    /// The ends of the set.
    fn ends(self) -> (f32, f32);
    /// The member nearest to `x`.
    fn nearest(self, x: f32) -> f32;
}

/// All integers of a range.
#[derive(Clone, Copy)]
struct Uniform {
    low: f32,
    high: f32,
}

impl Code for Uniform {
    #[inline(always)]
    fn ends(self) -> (f32, f32) {
        (self.low, self.high)
    }

    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        round(x.clamp(self.low, self.high))
    }
}

/// The values of IQ4_NL and IQ4_XS.
#[derive(Clone, Copy)]
struct Iq4;

impl Code for Iq4 {
    #[inline(always)]
    fn ends(self) -> (f32, f32) {
        (f32::from(IQ4[0]), f32::from(IQ4[15]))
    }

    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        let mut value = f32::from(IQ4[0]);
        for k in 0..15 {
            let (a, b) = (f32::from(IQ4[k]), f32::from(IQ4[k + 1]));
            value += if x > (a + b) / 2.0 { b - a } else { 0.0 };
        }
        value
    }
}

impl Iq4 {
    #[inline(always)]
    fn indices(x: &[f32; 32], inverse: f32) -> [u8; 32] {
        let mut q = [0; 32];
        for i in 0..32 {
            for k in 0..15 {
                q[i] += u8::from(x[i] * inverse > (f32::from(IQ4[k]) + f32::from(IQ4[k + 1])) / 2.0);
            }
        }
        q
    }
}

/// A block coded as `d * scale[i] * code`, with signed integer scales for its `S` sub-blocks.
struct Centred<const S: usize> {
    /// Exactly a half-precision number.
    d: f32,
    scale: [f32; S],
}

impl<const S: usize> Centred<S> {
    /// `range` is what the integer scales may be.
    #[inline(always)]
    fn fit<const N: usize>(x: &[[f32; N]; S], range: (f32, f32), code: impl Code) -> Result<Centred<S>, TooLarge> {
        let mut wanted = [0.0; S];
        for i in 0..S {
            wanted[i] = centred_scale(&x[i], code);
        }
        let mut best = Centred { d: to_half(largest(&wanted).1 / range.0)?, scale: [range.0.max(0.0); S] };
        if best.d != 0.0 {
            best.scale = wanted.map(|wanted| round((wanted / best.d).clamp(range.0, range.1)));
        }
        let mut best_error = best.nudge(x, range, code);
        for _ in 0..ROUNDS {
            let Ok(d) = to_half(best.least_squares(x, code)) else { break };
            let mut next = Centred { d, scale: best.scale };
            let error = next.nudge(x, range, code);
            if error >= best_error {
                break;
            }
            (best, best_error) = (next, error);
        }
        Ok(best)
    }

    /// One over the scale of a sub-block, or zero.
    #[inline(always)]
    fn inverse(&self, i: usize) -> f32 {
        let scale = self.d * self.scale[i];
        if scale == 0.0 { 0.0 } else { 1.0 / scale }
    }

    /// Moves each integer scale by one if that is better. Returns the squared error.
    #[inline(always)]
    fn nudge<const N: usize>(&mut self, x: &[[f32; N]; S], range: (f32, f32), code: impl Code) -> f32 {
        let mut total = 0.0;
        for i in 0..S {
            let middle = self.scale[i];
            let mut best_error = f32::INFINITY;
            for candidate in [middle, middle - 1.0, middle + 1.0] {
                if candidate < range.0 || candidate > range.1 {
                    continue;
                }
                let scale = self.d * candidate;
                let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                let error = sum!(N, |j| square(scale * code.nearest(x[i][j] * inverse) - x[i][j]));
                if error < best_error {
                    (self.scale[i], best_error) = (candidate, error);
                }
            }
            total += best_error;
        }
        total
    }

    /// The `d` of least squares with the codes of the present one.
    #[inline(always)]
    fn least_squares<const N: usize>(&self, x: &[[f32; N]; S], code: impl Code) -> f32 {
        let (mut xc, mut cc) = (0.0, 0.0);
        for i in 0..S {
            let (inverse, scale) = (self.inverse(i), self.scale[i]);
            let c: [f32; N] = map!(x[i], |x| code.nearest(x * inverse));
            xc += scale * sum!(N, |j| x[i][j] * c[j]);
            cc += scale * scale * sum!(N, |j| c[j] * c[j]);
        }
        if cc > 0.0 { xc / cc } else { 0.0 }
    }
}

/// The scale that codes one sub-block best.
#[inline(always)]
fn centred_scale<const N: usize>(x: &[f32; N], code: impl Code) -> f32 {
    let largest = largest(x).1;
    if largest.abs() < VANISHES {
        return 0.0;
    }
    let mut best = (0.0, 0.0);
    let (low, high) = code.ends();
    for attempt in 0..2 * CLIPPINGS.len() {
        let inverse = CLIPPINGS[attempt / 2] * if attempt % 2 == 0 { low } else { high } / largest;
        let c: [f32; N] = map!(*x, |x| code.nearest(x * inverse));
        let (xc, cc) = (sum!(N, |j| x[j] * c[j]), sum!(N, |j| c[j] * c[j]));
        // With the scale of least squares, xc / cc, the squared error falls by xc² / cc.
        let gain = if cc > 0.0 { xc * (xc / cc) } else { 0.0 };
        if gain > best.0 {
            best = (gain, xc / cc);
        }
    }
    best.1
}

/// A block coded as `d * scale[i] * code - dmin * min[i]`, with codes `0..=max_code` and integer
/// scales and minima `0..=max_scale` for its `S` sub-blocks.
struct FromMin<const S: usize> {
    max_code: f32,
    max_scale: f32,
    /// Exactly half-precision numbers.
    d: f32,
    dmin: f32,
    scale: [f32; S],
    min: [f32; S],
}

impl<const S: usize> FromMin<S> {
    #[inline(always)]
    fn fit<const N: usize>(x: &[[f32; N]; S], max_code: f32, max_scale: f32) -> Result<FromMin<S>, TooLarge> {
        let (mut scale, mut min) = ([0.0; S], [0.0; S]);
        for i in 0..S {
            (scale[i], min[i]) = scale_and_min(&x[i], max_code);
        }
        let d = to_half(largest(&scale).1 / max_scale)?;
        let dmin = to_half(largest(&min).1 / max_scale)?;
        let to_integer = |value: f32, d: f32| if d == 0.0 { 0.0 } else { round((value / d).min(max_scale)) };
        let scale = scale.map(|scale| to_integer(scale, d));
        let min = min.map(|min| to_integer(min, dmin));
        let mut best = FromMin { max_code, max_scale, d, dmin, scale, min };
        let mut best_error = best.nudge(x);
        for _ in 0..ROUNDS {
            let Some((d, dmin)) = best.least_squares(x) else { break };
            let mut next = FromMin { d, dmin, ..best };
            let error = next.nudge(x);
            if error >= best_error {
                break;
            }
            (best, best_error) = (next, error);
        }
        Ok(best)
    }

    /// d, dmin.
    #[inline(always)]
    fn put(&self, out: &mut [u8; 4]) {
        out[..2].copy_from_slice(&f32_to_f16(self.d).to_le_bytes());
        out[2..].copy_from_slice(&f32_to_f16(self.dmin).to_le_bytes());
    }

    #[inline(always)]
    fn codes<const N: usize>(&self, x: &[[f32; N]; S]) -> [u8; 256] {
        let mut q = [0; 256];
        for i in 0..S {
            let (scale, min) = (self.d * self.scale[i], self.dmin * self.min[i]);
            for j in 0..N {
                q[N * i + j] = code_from_min(x[i][j], inverse(scale), min, self.max_code) as u8;
            }
        }
        q
    }

    /// Moves each integer scale and minimum by one if that is better. Returns the squared error.
    #[inline(always)]
    fn nudge<const N: usize>(&mut self, x: &[[f32; N]; S]) -> f32 {
        let mut total = 0.0;
        for i in 0..S {
            let (scale, min) = (self.scale[i], self.min[i]);
            let mut best_error = f32::INFINITY;
            for ds in [0.0, -1.0, 1.0] {
                for dm in [0.0, -1.0, 1.0] {
                    let (scale, min) = (scale + ds, min + dm);
                    if scale < 0.0 || min < 0.0 || scale > self.max_scale || min > self.max_scale {
                        continue;
                    }
                    let error = from_min_error(&x[i], self.d * scale, self.dmin * min, self.max_code);
                    if error < best_error {
                        (self.scale[i], self.min[i], best_error) = (scale, min, error);
                    }
                }
            }
            total += best_error;
        }
        total
    }

    /// The `d` and `dmin` of least squares with the codes of the present ones, if they are usable.
    #[inline(always)]
    fn least_squares<const N: usize>(&self, x: &[[f32; N]; S]) -> Option<(f32, f32)> {
        // x ≈ d a - dmin b, with a = scale * code and b = min.
        let (mut aa, mut ab, mut bb, mut xa, mut xb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for i in 0..S {
            let (d, min) = (self.d * self.scale[i], self.dmin * self.min[i]);
            let q: [f32; N] = map!(x[i], |x| code_from_min(x, inverse(d), min, self.max_code));
            let (a, b) = (f64::from(self.scale[i]), f64::from(self.min[i]));
            aa += a * a * f64::from(sum!(N, |j| q[j] * q[j]));
            ab += a * b * f64::from(sum!(N, |j| q[j]));
            bb += b * b * N as f64;
            xa += a * f64::from(sum!(N, |j| x[i][j] * q[j]));
            xb += b * f64::from(sum!(N, |j| x[i][j]));
        }
        let determinant = aa * bb - ab * ab;
        let (d, dmin) = if determinant > 1e-9 * aa * bb {
            ((xa * bb - ab * xb) / determinant, (xa * ab - xb * aa) / determinant)
        } else if aa > 0.0 && bb == 0.0 {
            (xa / aa, 0.0)
        } else {
            return None;
        };
        let (d, dmin) = (to_half(d as f32).ok()?, to_half(dmin as f32).ok()?);
        (d >= 0.0 && dmin >= 0.0).then_some((d, dmin))
    }
}

/// The scale and the minimum (which is not negative, and is subtracted) that code one sub-block best.
#[inline(always)]
fn scale_and_min<const N: usize>(x: &[f32; N], max_code: f32) -> (f32, f32) {
    let (mut low, mut high) = (0.0_f32, x[0]);
    for &x in x {
        low = if x < low { x } else { low };
        high = if x > high { x } else { high };
    }
    if high - low < VANISHES {
        return (0.0, -low);
    }
    let sum_x = sum!(N, |j| x[j]);
    let mut best = (0.0, -low);
    let mut best_error = f32::INFINITY;
    for clipping in CLIPPINGS {
        let (mut scale, mut min) = ((high - low) / (max_code * clipping), -low);
        // The range shrinks around its middle.
        min -= ((high - low) - scale * max_code) / 2.0;
        min = min.max(0.0);
        // Codes give the scale and minimum of least squares, these give better codes.
        for _ in 0..2 {
            let q: [f32; N] = map!(*x, |x| code_from_min(x, inverse(scale), min, max_code));
            let (sum_q, sum_qq) = (sum!(N, |j| q[j]), sum!(N, |j| q[j] * q[j]));
            let sum_xq = sum!(N, |j| x[j] * q[j]);
            let n = N as f32;
            let determinant = n * sum_qq - sum_q * sum_q;
            if determinant <= 0.0 {
                break;
            }
            let mut solved =
                ((n * sum_xq - sum_q * sum_x) / determinant, (sum_q * sum_xq - sum_qq * sum_x) / determinant);
            if solved.1 < 0.0 {
                solved = (sum_xq / sum_qq, 0.0);
            }
            if solved.0 <= 0.0 {
                break;
            }
            (scale, min) = solved;
        }
        let error = from_min_error(x, scale, min, max_code);
        if error < best_error {
            (best, best_error) = ((scale, min), error);
        }
    }
    best
}

#[inline(always)]
fn from_min_error<const N: usize>(x: &[f32; N], scale: f32, min: f32, max_code: f32) -> f32 {
    let inverse = inverse(scale);
    sum!(N, |j| square(scale * code_from_min(x[j], inverse, min, max_code) - min - x[j]))
}

#[inline(always)]
fn code_from_min(x: f32, inverse: f32, min: f32, max_code: f32) -> f32 {
    round(((x + min) * inverse).clamp(0.0, max_code))
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[inline(always)]
fn square(x: f32) -> f32 {
    x * x
}

/// To the nearest integer, ties to even, for magnitudes below 2^22: where the unit in the last place
/// is 1, addition rounds. (The library's function is a call on targets without SSE4.1.)
#[inline(always)]
fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23
    (x + MAGIC) - MAGIC
}

/// The sum of eight lanes.
#[inline(always)]
fn add_up([a, b, c, d, e, f, g, h]: [f32; 8]) -> f32 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// To half precision and back.
#[inline(always)]
fn to_half(x: f32) -> Result<f32, TooLarge> {
    let half = f16_to_f32(f32_to_f16(x));
    if half.is_finite() { Ok(half) } else { Err(TooLarge) }
}

/// The lower 2 bits of element `128 h + 32 g + l` into bits `2g` of byte `32 h + l`.
#[inline(always)]
fn put_two_bits(q: &[u8; 256], out: &mut [u8; 64]) {
    for h in 0..2 {
        for l in 0..32 {
            let q = |g: usize| (q[128 * h + 32 * g + l] & 3) << (2 * g);
            out[32 * h + l] = q(0) | q(1) | q(2) | q(3);
        }
    }
}

/// The lower 4 bits of elements `64 p + l` and `64 p + 32 + l` into byte `32 p + l`.
#[inline(always)]
fn put_paired_nibbles(q: &[u8; 256], out: &mut [u8; 128]) {
    for p in 0..4 {
        for l in 0..32 {
            out[32 * p + l] = q[64 * p + l] & 15 | q[64 * p + 32 + l] << 4;
        }
    }
}

/// Eight 6-bit scales and minima; the layout stands at the reader.
#[inline(always)]
fn put_six_bits(scale: &[f32; 8], min: &[f32; 8], out: &mut [u8; 12]) {
    let (scale, min) = (scale.map(|s| s as u8), min.map(|m| m as u8));
    for i in 0..4 {
        out[i] = scale[i] | scale[4 + i] >> 4 << 6;
        out[4 + i] = min[i] | min[4 + i] >> 4 << 6;
        out[8 + i] = scale[4 + i] & 15 | min[4 + i] << 4;
    }
}
