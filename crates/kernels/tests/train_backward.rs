//! The backward of row-wise operations and the loss: against finite differences in f64.

mod common;

use common::tolerance::TRAINING_ROW;
use common::{Random, assert_same_bits};
use kernels::ops::{Activation, RopeLayout, rope, sigmoid, softmax};
use kernels::pool::Pool;
use kernels::train::backward::*;

/// The derivative of `f` by each element of `x`, by the five-point rule.
fn differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const H: f64 = 1e-3;
    let at = |i: usize, step: f64| {
        let mut x = x.to_vec();
        x[i] += step;
        f(&x)
    };
    (0..x.len()).map(|i| (8.0 * (at(i, H) - at(i, -H)) - (at(i, 2.0 * H) - at(i, -2.0 * H))) / (12.0 * H)).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[track_caller]
fn close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-3f64, |most, v| most.max(v.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= TRAINING_ROW.share(0) * scale, "{what}, element {i}: {got:e}, not {want:e} (of {scale:e})");
    }
}

fn rms_norm_f64(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    let d = w.len();
    let norm = |row: &[f64]| {
        let scale = 1.0 / (dot(row, row) / d as f64 + eps).sqrt();
        row.iter().zip(w).map(|(v, w)| v * scale * w).collect::<Vec<f64>>()
    };
    x.chunks(d).flat_map(norm).collect()
}

#[test]
fn rms_norm_gradients() {
    let (pool, mut random) = (Pool::new(2), Random(1));
    for (rows, d) in [(1, 1), (3, 5), (2, 16), (4, 37), (0, 4)] {
        let (x, w, dy) = (random.floats(rows * d), random.floats(d), random.floats(rows * d));
        let eps = 1e-3;
        let (x64, w64, dy64) = (wide(&x), wide(&w), wide(&dy));
        let want_x = differences(&x64, |x| dot(&rms_norm_f64(x, &w64, eps), &dy64));
        let want_w = differences(&w64, |w| dot(&rms_norm_f64(&x64, w, eps), &dy64));
        let (mut dx, mut dw) = (vec![f32::NAN; rows * d], vec![0.5; d]);
        rms_norm_backward(&pool, &mut dx, &mut dw, &dy, &x, &w, eps as f32);
        close(&dx, &want_x, "dx");
        dw.iter_mut().for_each(|v| *v -= 0.5);
        close(&dw, &want_w, "dweight");

        let (mut sum, mut again) = (vec![1.0; rows * d], vec![0.0; d]);
        rms_norm_backward_add(&pool, &mut sum, &mut again, &dy, &x, &w, eps as f32);
        assert_same_bits(&sum, &dx.iter().map(|v| 1.0 + v).collect::<Vec<f32>>(), || "dx +=".into());

        // The same rows inside wider ones.
        let (width, offset) = (d + 5, 2);
        let spread = |rows: &[f32]| -> Vec<f32> {
            rows.chunks(d).flat_map(|row| [&[7.0, 8.0][..], row, &[9.0; 3]].concat()).collect()
        };
        let (mut grad, mut dw) = (spread(&dy), vec![0.0; d]);
        rms_norm_within_backward(&pool, &mut grad, &mut dw, &spread(&x), width, offset, &w, eps as f32);
        assert_same_bits(&grad, &spread(&dx), || "within".into());
        assert_same_bits(&dw, &again, || "dweight within".into());
    }
}

#[test]
fn threads_do_not_change_a_gradient() {
    let mut random = Random(2);
    let (rows, d) = (1000, 33);
    let (x, w, dy) = (random.floats(rows * d), random.floats(d), random.floats(rows * d));
    let run = |threads| {
        let (mut dx, mut dw) = (vec![0.0; rows * d], vec![0.1; d]);
        rms_norm_backward(&Pool::new(threads), &mut dx, &mut dw, &dy, &x, &w, 1e-6);
        (dx, dw)
    };
    let one = run(1);
    for threads in [2, 3] {
        let many = run(threads);
        assert_same_bits(&many.0, &one.0, || "dx".into());
        assert_same_bits(&many.1, &one.1, || "dweight".into());
    }
}

#[test]
fn rotation_goes_back() {
    let mut random = Random(3);
    for layout in [RopeLayout::Interleaved, RopeLayout::Half] {
        let (width, offset, dim, heads, t) = (11, 3, 6, 2, 4);
        let turn: Vec<f32> = random.floats(t * dim / 2);
        let angles: Vec<f32> = turn.iter().flat_map(|a| [a.cos(), a.sin()]).collect();
        let (x, dy) = (random.floats(t * heads * width), random.floats(t * heads * width));
        let mut y = x.clone();
        rope(&mut y, width, offset, dim, layout, &angles, heads);
        let mut dx = dy.clone();
        rope_backward(&mut dx, width, offset, dim, layout, &angles, heads);
        // The map is linear: <dy, R x> = <R^T dy, x>.
        let (left, right) = (dot(&wide(&dy), &wide(&y)), dot(&wide(&dx), &wide(&x)));
        assert!((left - right).abs() < 1e-5, "{layout:?}: {left} and {right}");
        assert_ne!(dx, dy);
    }
}

fn gated_f64(activation: Activation, g: f64, u: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => g * sigmoid(g) * u,
        Activation::GeluTanh => {
            0.5 * g * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g)).tanh()) * u
        }
        Activation::ClampedSwiglu { alpha, limit } => {
            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
            let (g, u) = (g.min(limit), u.clamp(-limit, limit));
            (u + 1.0) * g * sigmoid(alpha * g)
        }
    }
}

#[test]
fn gated_activations() {
    let (pool, mut random) = (Pool::new(2), Random(4));
    let clamped = Activation::ClampedSwiglu { alpha: 1.702, limit: 2.0 };
    for activation in [Activation::Silu, Activation::GeluTanh, clamped] {
        let n = 20_001;
        let wider = |v: Vec<f32>| -> Vec<f32> { v.into_iter().map(|v| 3.0 * v).collect() };
        let (gate, up, dout) = (wider(random.floats(n)), wider(random.floats(n)), random.floats(n));
        let (mut dgate, mut dup) = (vec![f32::NAN; n], vec![f32::NAN; n]);
        gated_backward(&pool, activation, &mut dgate, &mut dup, &dout, &gate, &up);
        for i in (0..n).step_by(7) {
            let (g, u, d) = (f64::from(gate[i]), f64::from(up[i]), f64::from(dout[i]));
            // A difference across the corner of a clamp is not a derivative.
            if [g, u, -u].iter().any(|v| (v - 2.0).abs() < 5e-3) {
                continue;
            }
            let want = differences(&[g, u], |p| d * gated_f64(activation, p[0], p[1]));
            let got = [f64::from(dgate[i]), f64::from(dup[i])];
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= 4e-6 * d.abs() * (1.0 + g.abs()) * (1.0 + u.abs()), "{got} not {want}");
            }
        }
    }
}

fn softmax_f64(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|v| (v - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|v| v / sum).collect()
}

#[test]
fn router_scores() {
    let mut random = Random(5);
    for n in [1, 2, 16, 37] {
        let (x, dy) = (random.floats(n), random.floats(n));
        let mut p = x.clone();
        softmax(&mut p);
        let mut grad = dy.clone();
        softmax_backward(&mut grad, &p);
        close(&grad, &differences(&wide(&x), |x| dot(&softmax_f64(x), &wide(&dy))), "softmax");
        let s: Vec<f32> = x.iter().map(|&v| sigmoid(v)).collect();
        let mut grad = dy.clone();
        sigmoid_backward(&mut grad, &s);
        let of = |x: &[f64]| x.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect::<Vec<f64>>();
        close(&grad, &differences(&wide(&x), |x| dot(&of(x), &wide(&dy))), "sigmoid");
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    let (pool, mut random) = (Pool::new(2), Random(6));
    for (rows, vocab) in [(0, 3), (1, 1), (5, 37), (40, 100)] {
        let logits: Vec<f32> = random.floats(rows * vocab).iter().map(|v| 8.0 * v).collect();
        let targets: Vec<u32> = (0..rows).map(|_| random.below(vocab) as u32).collect();
        let weights: Vec<f32> = (0..rows).map(|t| if t % 4 == 1 { 0.0 } else { random.float() }).collect();
        let (mut grad, mut logprobs) = (logits.clone(), vec![f32::NAN; rows]);
        cross_entropy(&pool, &mut grad, vocab, &targets, &weights, &mut logprobs);
        for t in 0..rows {
            let row = &logits[t * vocab..][..vocab];
            let target = targets[t] as usize;
            let loss = |x: &[f64]| softmax_f64(x)[target].ln();
            let want = loss(&wide(row));
            assert!((f64::from(logprobs[t]) - want).abs() < 2e-6 * (1.0 + want.abs()), "{} {want}", logprobs[t]);
            assert_eq!(logprobs[t].to_bits(), log_probability(row, target).to_bits());
            let want = differences(&wide(row), |x| -f64::from(weights[t]) * loss(x));
            close(&grad[t * vocab..][..vocab], &want, "dlogits");
            if weights[t] == 0.0 {
                assert!(grad[t * vocab..][..vocab].iter().all(|&v| v == 0.0));
            }
        }
    }
}

#[test]
fn a_row_without_weight_passes_nothing_whatever_it_holds() {
    let pool = Pool::new(1);
    let mut logits = vec![f32::NAN, 1.0, 2.0, 0.0, 1.0, 2.0];
    let mut logprobs = [0.0; 2];
    cross_entropy(&pool, &mut logits, 3, &[1, 2], &[0.0, 1.0], &mut logprobs);
    assert_eq!(logits[..3], [0.0; 3]);
    assert!(logits[3..].iter().all(|v| v.is_finite()) && logprobs[1].is_finite() && logprobs[0].is_nan());
}

#[test]
fn soft_targets() {
    let (pool, mut random) = (Pool::new(2), Random(7));
    let (rows, vocab) = (6, 41);
    let logits: Vec<f32> = random.floats(rows * vocab).iter().map(|v| 5.0 * v).collect();
    let mut teacher: Vec<f32> = random.floats(rows * vocab).iter().map(|v| 5.0 * v).collect();
    teacher.chunks_mut(vocab).for_each(softmax);
    let weights: Vec<f32> = (0..rows).map(|t| t as f32 / 2.0).collect();
    let (mut grad, mut losses) = (logits.clone(), vec![0.0; rows]);
    cross_entropy_soft(&pool, &mut grad, vocab, &teacher, &weights, &mut losses);
    for t in 0..rows {
        let (row, q) = (wide(&logits[t * vocab..][..vocab]), wide(&teacher[t * vocab..][..vocab]));
        let loss = |x: &[f64]| -dot(&q, &softmax_f64(x).iter().map(|p| p.ln()).collect::<Vec<f64>>());
        assert!((f64::from(losses[t]) - loss(&row)).abs() < 1e-5);
        let want = differences(&row, |x| f64::from(weights[t]) * loss(x));
        close(&grad[t * vocab..][..vocab], &want, "dlogits");
    }
    // A teacher that is certain is a hard target.
    let targets: Vec<u32> = (0..rows).map(|_| random.below(vocab) as u32).collect();
    let mut certain = vec![0.0; rows * vocab];
    targets.iter().enumerate().for_each(|(t, &target)| certain[t * vocab + target as usize] = 1.0);
    let (mut soft, mut hard, mut logprobs) = (logits.clone(), logits, vec![0.0; rows]);
    cross_entropy_soft(&pool, &mut soft, vocab, &certain, &weights, &mut losses);
    cross_entropy(&pool, &mut hard, vocab, &targets, &weights, &mut logprobs);
    assert_same_bits(&soft, &hard, || "certain teacher".into());
    assert!(losses.iter().zip(&logprobs).all(|(a, b)| (a + b).abs() <= 1e-6 * (1.0 + b.abs())));
}
