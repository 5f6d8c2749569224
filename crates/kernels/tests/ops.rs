//! Norms, activations, softmax and rotary embedding against f64, over rows of every awkward length.

mod common;

use common::tolerance::{CLAMPED_SWIGLU, EXP, GELU, LAYER_NORM, RMS_NORM, ROPE, SIGMOID, SOFTMAX, TANH};
use common::{Random, assert_same_bits, assert_within};
use kernels::ops::{self, Activation, RopeLayout};
use kernels::pool::Pool;

const WIDTHS: [usize; 12] = [1, 2, 15, 16, 17, 31, 48, 100, 128, 255, 1000, 4097];

#[test]
fn rms_norms() {
    let (pool, one, mut random) = (Pool::new(3), Pool::new(1), Random(1));
    for d in WIDTHS {
        for rows in [1, 2, 30] {
            let (x, weight) = (random.floats(rows * d), random.floats(d));
            let mut out = vec![f32::NAN; x.len()];
            ops::rms_norm(&pool, &mut out, &x, &weight, 1e-6);
            let mut again = vec![f32::NAN; x.len()];
            ops::rms_norm(&one, &mut again, &x, &weight, 1e-6);
            assert_same_bits(&again, &out, || format!("{rows} rows of {d}, threads"));
            let mut within = x.clone();
            ops::rms_norm_within(&pool, &mut within, d, 0, &weight, 1e-6);
            assert_same_bits(&within, &out, || format!("{rows} rows of {d}, in place"));
            for (i, &got) in out.iter().enumerate() {
                let row = &x[i / d * d..][..d];
                let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / d as f64;
                let want = f64::from(x[i]) / (mean + 1e-6).sqrt() * f64::from(weight[i % d]);
                assert_within(RMS_NORM, d, want.abs(), got, want, || format!("row of {d}, element {i}"));
            }
        }
    }
}

#[test]
fn a_norm_inside_wider_rows_leaves_the_rest_alone() {
    let (pool, mut random) = (Pool::new(2), Random(2));
    let (width, offset, weight) = (50, 7, random.floats(20));
    let x = random.floats(30 * width);
    let mut got = x.clone();
    ops::rms_norm_within(&pool, &mut got, width, offset, &weight, 1e-5);
    for (got, x) in got.chunks(width).zip(x.chunks(width)) {
        let mut want = vec![0.0; 20];
        ops::rms_norm(&pool, &mut want, &x[offset..offset + 20], &weight, 1e-5);
        assert_same_bits(&got[offset..offset + 20], &want, || "the part".into());
        assert_same_bits(&got[..offset], &x[..offset], || "before it".into());
        assert_same_bits(&got[offset + 20..], &x[offset + 20..], || "after it".into());
    }
}

#[test]
fn layer_norms() {
    let (pool, mut random) = (Pool::new(2), Random(3));
    for d in WIDTHS.into_iter().filter(|&d| d > 1) {
        let (x, weight, bias) = (random.floats(20 * d), random.floats(d), random.floats(d));
        let mut out = x.clone();
        ops::layer_norm(&pool, &mut out, &weight, &bias, 1e-5);
        for (t, row) in x.chunks(d).enumerate() {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / d as f64;
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / d as f64;
            let deviation = (variance + 1e-5).sqrt();
            for i in 0..d {
                let want = (f64::from(row[i]) - mean) / deviation * f64::from(weight[i]) + f64::from(bias[i]);
                let scale = 1.0 / deviation + f64::from(bias[i]).abs();
                assert_within(LAYER_NORM, d, scale, out[t * d + i], want, || format!("row of {d}, element {i}"));
            }
        }
    }
}

#[test]
fn softmax_rows() {
    let mut random = Random(4);
    for d in WIDTHS {
        let x: Vec<f32> = random.floats(d).into_iter().map(|v| v * 8.0).collect();
        let mut out = x.clone();
        ops::softmax(&mut out);
        let total: f64 = x.iter().map(|&v| f64::from(v).exp()).sum();
        for (i, &got) in out.iter().enumerate() {
            let want = f64::from(x[i]).exp() / total;
            assert_within(SOFTMAX, d, want, got, want, || format!("row of {d}, element {i}"));
        }
    }
    let mut masked = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 1.0];
    ops::softmax(&mut masked);
    assert_eq!(masked, [0.0, 0.5, 0.0, 0.5]);
    let mut nothing = [f32::NEG_INFINITY; 3];
    ops::softmax(&mut nothing);
    assert_eq!(nothing, [0.0; 3]);
}

#[test]
fn functions_of_one_number() {
    for i in -120_000..=120_000 {
        let x = i as f32 * 7.3e-4; // to 87.6 both ways
        let wide = f64::from(x);
        let sigmoid = 1.0 / (1.0 + (-wide).exp());
        let gelu = 0.5 * wide * (1.0 + (0.797_884_560_802_865_4 * (wide + 0.044715 * wide.powi(3))).tanh());
        for (name, bound, scale, got, want) in [
            ("exp", EXP, wide.exp(), ops::exp(x), wide.exp()),
            ("sigmoid", SIGMOID, sigmoid, ops::sigmoid(x), sigmoid),
            ("silu", SIGMOID, (wide * sigmoid).abs(), ops::silu(x), wide * sigmoid),
            ("tanh", TANH, 1.0, ops::tanh(x), wide.tanh()),
            ("gelu_tanh", GELU, wide.abs().max(1.0), ops::gelu_tanh(x), gelu),
        ] {
            assert_within(bound, 1, scale, got, want, || format!("{name}({x})"));
        }
    }
    for (x, sigmoid, silu, tanh) in
        [(f32::INFINITY, 1.0, f32::INFINITY, 1.0), (1e4, 1.0, 1e4, 1.0), (-1e4, 0.0, 0.0, -1.0)]
    {
        assert_eq!((ops::sigmoid(x), ops::silu(x).abs(), ops::tanh(x)), (sigmoid, silu, tanh), "{x}");
    }
    assert!([ops::sigmoid, ops::silu, ops::tanh, ops::gelu_tanh].iter().all(|f| f(f32::NAN).is_nan()));
}

#[test]
fn gated_activations() {
    let (pool, one, mut random) = (Pool::new(3), Pool::new(1), Random(5));
    for n in [0, 1, 100, 8192, 8193, 30_000] {
        let gate: Vec<f32> = random.floats(n).into_iter().map(|v| v * 12.0).collect();
        let up: Vec<f32> = random.floats(n).into_iter().map(|v| v * 12.0).collect();
        for activation in
            [Activation::Silu, Activation::GeluTanh, Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 }]
        {
            let mut out = gate.clone();
            activation.apply(&pool, &mut out, &up);
            let mut again = gate.clone();
            activation.apply(&one, &mut again, &up);
            assert_same_bits(&again, &out, || format!("{activation:?} of {n}, threads"));
            for ((&got, &g), &u) in out.iter().zip(&gate).zip(&up) {
                let what = || format!("{activation:?} of {g} and {u}");
                let (g, u) = (f64::from(g), f64::from(u));
                let silu = |g: f64, slope: f64| g / (1.0 + (-slope * g).exp());
                match activation {
                    Activation::Silu => {
                        let want = silu(g, 1.0) * u;
                        assert_within(SIGMOID, 1, want.abs(), got, want, what);
                    }
                    Activation::GeluTanh => {
                        let tanh = (0.797_884_560_802_865_4 * (g + 0.044715 * g.powi(3))).tanh();
                        let scale = g.abs().max(1.0) * u.abs();
                        assert_within(GELU, 1, scale, got, 0.5 * g * (1.0 + tanh) * u, what);
                    }
                    Activation::ClampedSwiglu { .. } => {
                        let (g, u) = (g.min(7.0), u.clamp(-7.0, 7.0));
                        let want = (u + 1.0) * silu(g, f64::from(1.702f32));
                        assert_within(CLAMPED_SWIGLU, 1, want.abs(), got, want, what);
                    }
                }
            }
        }
    }
}

#[test]
fn rotary_embedding() {
    let mut random = Random(6);
    for (width, offset, dim, heads) in [(2, 0, 2, 1), (64, 0, 64, 3), (40, 8, 32, 2), (17, 3, 6, 5), (5, 2, 0, 2)] {
        for layout in [RopeLayout::Interleaved, RopeLayout::Half] {
            let tokens = 7;
            let x = random.floats(tokens * heads * width);
            let turns: Vec<f64> = (0..tokens * dim / 2).map(|i| i as f64 * 0.37).collect();
            let angles: Vec<f32> = turns.iter().flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect();
            let mut out = x.clone();
            ops::rope(&mut out, width, offset, dim, layout, &angles, heads);
            for (i, &got) in out.iter().enumerate() {
                let (row, col) = (i / width, i % width);
                if col < offset || col >= offset + dim {
                    assert_eq!(got.to_bits(), x[i].to_bits(), "{layout:?}, element {col} is not rotated");
                    continue;
                }
                let (pair, first, other) = match layout {
                    RopeLayout::Interleaved => ((col - offset) / 2, (col - offset) % 2 == 0, 1),
                    RopeLayout::Half => ((col - offset) % (dim / 2), col - offset < dim / 2, dim / 2),
                };
                let (sin, cos) = turns[row / heads * dim / 2 + pair].sin_cos();
                let (u, v) = if first { (x[i], x[i + other]) } else { (x[i - other], x[i]) };
                let (u, v) = (f64::from(u), f64::from(v));
                let want = if first { u * cos - v * sin } else { u * sin + v * cos };
                assert_within(ROPE, 1, u.abs() + v.abs(), got, want, || format!("{layout:?}, {dim} of {width}, {i}"));
            }
        }
    }
}

#[test]
fn sums_and_biases() {
    let mut random = Random(7);
    let (x, y) = (random.floats(12), random.floats(4));
    let mut out = x.clone();
    ops::add_bias(&mut out, &y);
    ops::scale(&mut out, 0.5);
    assert!(out.iter().enumerate().all(|(i, &v)| v == (x[i] + y[i % 4]) * 0.5));
    assert_eq!(ops::argmax(&[2.0, 5.0, 5.0]), 1, "ties go to the lower index");
}
