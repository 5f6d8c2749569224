//! Norms, activations, rotary embedding and other row-wise operations, in f32.
//!
//! Each is a plain loop over one row; sums over a row keep sixteen partial sums and add them in the
//! order of `lanes`, so that a row's result depends on that row alone.

use crate::pool::Pool;

/// Rows below which an operation is not worth waking other threads for.
const ROWS_ALONE: usize = 4;

/// `out = x / sqrt(mean(x^2) + eps) * weight`, for each row of `weight.len()` elements.
///
/// RMSNorm (Zhang and Sennrich 2019, equation 4).
pub fn rms_norm(pool: &Pool, out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let d = weight.len();
    assert!(out.len() == x.len() && d > 0 && x.len().is_multiple_of(d), "{} elements in rows of {d}", x.len());
    for_rows(pool, out, d, |t, out| {
        let x = &x[t * d..(t + 1) * d];
        let scale = 1.0 / (sum_lanes(x, |v| v * v) / d as f32 + eps).sqrt();
        out.iter_mut().zip(x).zip(weight).for_each(|((o, v), w)| *o = v * scale * w);
    });
}

/// [`rms_norm`] of rows that lie inside wider rows, in place: elements `offset .. offset + d` of each
/// row of `width` (a latent beside its rotary key), or all heads of `d` elements where `width == d`.
pub fn rms_norm_within(pool: &Pool, x: &mut [f32], width: usize, offset: usize, weight: &[f32], eps: f32) {
    let d = weight.len();
    assert!(d > 0 && offset + d <= width && x.len().is_multiple_of(width), "{} elements in rows of {width}", x.len());
    for_rows(pool, x, width, |_, row| {
        let row = &mut row[offset..offset + d];
        let scale = 1.0 / (sum_lanes(row, |v| v * v) / d as f32 + eps).sqrt();
        row.iter_mut().zip(weight).for_each(|(v, w)| *v = *v * scale * w);
    });
}

/// `x = (x - mean) / sqrt(var + eps) * weight + bias`, for each row, in place.
///
/// LayerNorm (Ba, Kiros and Hinton 2016, equation 4).
pub fn layer_norm(pool: &Pool, x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let d = weight.len();
    assert!(bias.len() == d && d > 0 && x.len().is_multiple_of(d), "{} elements in rows of {d}", x.len());
    for_rows(pool, x, d, |_, row| {
        let mean = sum_lanes(row, |v| v) / d as f32;
        let variance = sum_lanes(row, |v| (v - mean) * (v - mean)) / d as f32;
        let scale = 1.0 / (variance + eps).sqrt();
        row.iter_mut().zip(weight.iter().zip(bias)).for_each(|(v, (w, b))| *v = (*v - mean) * scale * w + b);
    });
}

/// `x += y`
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `x += bias`, for each row.
pub fn add_bias(x: &mut [f32], bias: &[f32]) {
    assert!(!bias.is_empty() && x.len().is_multiple_of(bias.len()), "{} elements in rows of {}", x.len(), bias.len());
    x.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
}

/// `x *= factor`
pub fn scale(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|v| *v *= factor);
}

/// How a gated feed-forward network combines its two projections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `silu(gate) * up` (SwiGLU, Shazeer 2020).
    Silu,
    /// `gelu(gate) * up` with the tanh form of GELU.
    GeluTanh,
    /// gpt-oss: `(up + 1) * gate * sigmoid(alpha * gate)`, after `gate <= limit` and
    /// `-limit <= up <= limit`.
    ClampedSwiglu {
        /// Slope inside the sigmoid.
        alpha: f32,
        /// Bound of both projections.
        limit: f32,
    },
}

impl Activation {
    /// `gate = activation(gate, up)`, element by element.
    pub fn apply(self, pool: &Pool, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        const PIECE: usize = 8192;
        pool.for_each_piece(gate, PIECE, |i, gate| {
            let up = &up[i * PIECE..][..gate.len()];
            let pairs = gate.iter_mut().zip(up);
            match self {
                Activation::Silu => pairs.for_each(|(g, u)| *g = silu(*g) * u),
                Activation::GeluTanh => pairs.for_each(|(g, u)| *g = gelu_tanh(*g) * u),
                Activation::ClampedSwiglu { alpha, limit } => pairs.for_each(|(g, u)| {
                    let (gate, up) = (g.min(limit), u.clamp(-limit, limit));
                    *g = (up + 1.0) * (gate * sigmoid(alpha * gate));
                }),
            }
        });
    }
}

/// `1 / (1 + e^-x)`
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x * sigmoid(x)`
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`
pub fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + tanh(inner))
}

/// Hyperbolic tangent, by `exp`.
pub fn tanh(x: f32) -> f32 {
    // Beyond 10 the result rounds to one; the clamp keeps exp finite, NaN passes through.
    let e = exp(2.0 * x.clamp(-10.0, 10.0));
    (e - 1.0) / (e + 1.0)
}

/// `e^x` within 2 units in the last place, without a branch, so that loops over it vectorise and
/// every platform gives the same bits.
///
/// Cody-Waite reduction to `|r| <= ln(2) / 2`, the Taylor polynomial to degree 7, and the power of
/// two by two multiplications, so that results below the smallest normal number are rounded right.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-104.0, 89.0);
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * LN2_HI) - n * LN2_LO;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    // The integer stands in the lowest bits; a conversion that minds NaN would keep this from being vectors.
    let n = rounded.to_bits() as i32 - ROUND.to_bits() as i32;
    let half = n >> 1;
    let power = |e: i32| f32::from_bits(((e + 127) << 23) as u32);
    p * power(half) * power(n - half)
}

/// `x = softmax(x)`; a row of minus infinities gives zeros.
pub fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        x.fill(0.0);
        return;
    }
    x.iter_mut().for_each(|v| *v = exp(*v - max));
    let total = sum_lanes(x, |v| v);
    scale(x, 1.0 / total);
}

/// How the pairs that rotate together lie in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeLayout {
    /// Elements `2i` and `2i + 1` (DeepSeek, GGUF's `llama`).
    Interleaved,
    /// Elements `i` and `i + dim / 2` (Hugging Face's `rotate_half`).
    Half,
}

/// Rotates elements `offset .. offset + dim` of every row of `width`, in place.
///
/// `angles` holds, for token `t`, `dim / 2` pairs (cos, sin) at `t * dim`; each token has
/// `rows_per_token` rows (its heads). RoPE (Su et al. 2021, equation 34).
pub fn rope(
    x: &mut [f32],
    width: usize,
    offset: usize,
    dim: usize,
    layout: RopeLayout,
    angles: &[f32],
    rows_per_token: usize,
) {
    assert!(offset + dim <= width && dim.is_multiple_of(2) && width > 0, "rotary {offset}+{dim} of {width}");
    assert!(x.len().is_multiple_of(width * rows_per_token), "{} elements in rows of {width}", x.len());
    assert_eq!(angles.len() * width * rows_per_token, x.len() * dim, "one angle for each pair of a token");
    if dim == 0 {
        return;
    }
    let (first, step, apart) = match layout {
        RopeLayout::Interleaved => (offset, 2, 1),
        RopeLayout::Half => (offset, 1, dim / 2),
    };
    for (token, angles) in x.chunks_exact_mut(width * rows_per_token).zip(angles.chunks_exact(dim)) {
        for row in token.chunks_exact_mut(width) {
            for (i, angle) in angles.chunks_exact(2).enumerate() {
                let (a, b) = (first + i * step, first + i * step + apart);
                let (cos, sin) = (angle[0], angle[1]);
                let (u, v) = (row[a], row[b]);
                row[a] = u * cos - v * sin;
                row[b] = u * sin + v * cos;
            }
        }
    }
}

/// The index of the largest element; ties go to the lower index. NaN is never the largest.
pub fn argmax(x: &[f32]) -> usize {
    let mut best = 0;
    for (i, &v) in x.iter().enumerate() {
        if v > x[best] || (x[best].is_nan() && !v.is_nan()) {
            best = i;
        }
    }
    best
}

/// Sixteen partial sums of `f` over `x`, added as the tree of `lanes`.
fn sum_lanes(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut acc = [0.0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for chunk in whole {
        for (a, &v) in acc.iter_mut().zip(chunk) {
            *a += f(v);
        }
    }
    for (a, &v) in acc.iter_mut().zip(rest) {
        *a += f(v);
    }
    let a: [f32; 8] = std::array::from_fn(|i| acc[i] + acc[i + 8]);
    let b: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
    (b[0] + b[2]) + (b[1] + b[3])
}

/// Calls `f(row, elements)` for each row of `width`; in parallel where there are many.
fn for_rows(pool: &Pool, x: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if x.len() / width < ROWS_ALONE * pool.threads() {
        x.chunks_exact_mut(width).enumerate().for_each(|(t, row)| f(t, row));
    } else {
        pool.for_each_piece(x, width * ROWS_ALONE, |i, rows| {
            rows.chunks_exact_mut(width).enumerate().for_each(|(t, row)| f(i * ROWS_ALONE + t, row));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -1_040_000..890_000 {
            let x = i as f32 * 1e-4;
            let want = (x as f64).exp();
            let got = exp(x);
            if want < f32::MIN_POSITIVE as f64 {
                assert!((got as f64 - want).abs() <= 2.0 * 1.5e-45, "exp({x}) = {got}, not {want}");
                continue;
            }
            if want > f32::MAX as f64 {
                assert_eq!(got, f32::INFINITY, "exp({x})");
                continue;
            }
            let ulp = (f32::from_bits((want as f32).to_bits() + 1) - want as f32) as f64;
            worst = worst.max((got as f64 - want).abs() / ulp);
        }
        assert!(worst <= 2.0, "{worst} units in the last place");
    }

    #[test]
    fn exp_of_the_extremes() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn norms_against_f64() {
        let pool = Pool::new(2);
        let x: Vec<f32> = (0..37 * 50).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect();
        let w: Vec<f32> = (0..37).map(|i| 0.5 + i as f32 / 37.0).collect();
        let mut out = vec![0.0; x.len()];
        rms_norm(&pool, &mut out, &x, &w, 1e-5);
        for t in 0..50 {
            let row = &x[t * 37..(t + 1) * 37];
            let ms: f64 = row.iter().map(|&v| v as f64 * v as f64).sum::<f64>() / 37.0;
            for i in 0..37 {
                let want = row[i] as f64 / (ms + 1e-5).sqrt() * w[i] as f64;
                assert!((out[t * 37 + i] as f64 - want).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn rotation_keeps_lengths_and_undoes_itself() {
        for layout in [RopeLayout::Interleaved, RopeLayout::Half] {
            let x: Vec<f32> = (0..2 * 3 * 10).map(|i| i as f32 - 20.0).collect();
            let angles: Vec<f32> = (0..2 * 3).flat_map(|i| [(i as f32).cos(), (i as f32).sin()]).collect();
            let back: Vec<f32> = (0..2 * 3).flat_map(|i| [(i as f32).cos(), -(i as f32).sin()]).collect();
            let mut y = x.clone();
            rope(&mut y, 10, 3, 6, layout, &angles, 3);
            assert_ne!(x, y);
            assert_eq!((&x[..3], x[9]), (&y[..3], y[9]), "elements outside the rotated ones");
            rope(&mut y, 10, 3, 6, layout, &back, 3);
            assert!(x.iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[f32::NAN, 3.0, f32::NAN]), 1);
    }
}
