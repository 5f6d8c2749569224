//! Optimiser steps and V3's FP8 scheme: against f64, and the same bits for any number of threads.

mod common;

use common::{Random, assert_same_bits};
use kernels::pool::Pool;
use kernels::train::fp8::{simulate_activations, simulate_weights};
use kernels::train::optim::*;

#[test]
fn norm_of_all_parts() {
    let mut random = Random(1);
    let parts: Vec<Vec<f32>> = [0, 1, 5000, 131_073, 17].map(|n| random.floats(n)).into();
    let slices: Vec<&[f32]> = parts.iter().map(|part| &part[..]).collect();
    let want = parts.iter().flatten().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    let norms = [1, 2, 3].map(|threads| global_norm(&Pool::new(threads), &slices));
    assert!((norms[0] / want - 1.0).abs() < 1e-12, "{} {want}", norms[0]);
    assert!(norms.iter().all(|norm| norm.to_bits() == norms[0].to_bits()));
    assert_eq!(global_norm(&Pool::new(2), &[]), 0.0);
}

/// 50 steps against the definition in f64.
#[test]
fn adamw_against_its_definition() {
    let n = 9001;
    let run = |threads| {
        let (pool, mut random) = (Pool::new(threads), Random(2));
        let mut w = random.floats(n);
        let mut exact: Vec<[f64; 3]> = w.iter().map(|&w| [f64::from(w), 0.0, 0.0]).collect();
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        for step in 1..=50 {
            let grad = random.floats(n);
            let set = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step };
            adamw_step(&pool, &mut w, &grad, &mut m, &mut v, &set, 0.5);
            for ([w, m, v], g) in exact.iter_mut().zip(&grad) {
                let g = f64::from(*g) * 0.5;
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.95 * *v + 0.05 * g * g;
                let (mean, square) = (*m / (1.0 - 0.9f64.powi(step as i32)), *v / (1.0 - 0.95f64.powi(step as i32)));
                *w -= 1e-2 * (mean / (square.sqrt() + 1e-8) + 0.1 * *w);
            }
        }
        exact.iter().zip(&w).for_each(|(e, w)| assert!((e[0] - f64::from(*w)).abs() < 5e-6, "{} {w}", e[0]));
        (w, m, v)
    };
    let one = run(1);
    for threads in [2, 3] {
        let many = run(threads);
        assert_same_bits(&many.0, &one.0, || "weights".into());
        assert_same_bits(&many.1, &one.1, || "m".into());
        assert_same_bits(&many.2, &one.2, || "v".into());
    }
}

/// One Newton-Schulz iteration in f64.
fn newton_schulz_f64(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let gram = |i: usize, j: usize| (0..cols).map(|c| x[i * cols + c] * x[j * cols + c]).sum::<f64>();
    let a: Vec<f64> = (0..rows * rows).map(|e| gram(e / rows, e % rows)).collect();
    let poly = |i: usize, j: usize| {
        -4.7750 * a[i * rows + j] + 2.0315 * (0..rows).map(|s| a[i * rows + s] * a[s * rows + j]).sum::<f64>()
    };
    let b: Vec<f64> = (0..rows * rows).map(|e| poly(e / rows, e % rows)).collect();
    let next = |i: usize, c: usize| {
        3.4445 * x[i * cols + c] + (0..rows).map(|s| b[i * rows + s] * x[s * cols + c]).sum::<f64>()
    };
    (0..rows * cols).map(|e| next(e / cols, e % cols)).collect()
}

#[test]
fn muon_against_its_definition() {
    for (rows, cols) in [(1, 1), (7, 20), (20, 7), (16, 16), (33, 70)] {
        for nesterov in [true, false] {
            let set = Muon {
                lr: 0.02,
                momentum: 0.95,
                weight_decay: 0.1,
                update_rms: 0.18,
                nesterov,
                newton_schulz_steps: 5,
            };
            let (pool, mut random, n) = (Pool::new(2), Random(3), rows * cols);
            let (mut w, mut momentum) = (random.floats(n), vec![0.0; n]);
            let mut exact: Vec<f64> = w.iter().map(|&w| f64::from(w)).collect();
            let mut sum = vec![0.0f64; n];
            for _ in 0..3 {
                let grad = random.floats(n);
                muon_step(&pool, rows, cols, &mut w, &grad, &mut momentum, &set, 0.5);
                let half: Vec<f64> = grad.iter().map(|&g| 0.5 * f64::from(g)).collect();
                sum.iter_mut().zip(&half).for_each(|(s, g)| *s = 0.95 * *s + g);
                let update = |s: f64, g: f64| if nesterov { g + 0.95 * s } else { s };
                let mut x: Vec<f64> = sum.iter().zip(&half).map(|(s, g)| update(*s, *g)).collect();
                let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
                x.iter_mut().for_each(|v| *v /= norm);
                let turn = |x: &[f64], rows: usize, cols: usize| -> Vec<f64> {
                    (0..rows * cols).map(|e| x[e % rows * cols + e / rows]).collect()
                };
                let wide = if rows > cols { turn(&x, rows, cols) } else { x };
                let (short, long) = (rows.min(cols), rows.max(cols));
                let done = (0..5).fold(wide, |x, _| newton_schulz_f64(&x, short, long));
                let done = if rows > cols { turn(&done, cols, rows) } else { done };
                let factor = 0.02 * 0.18 * (long as f64).sqrt();
                exact.iter_mut().zip(&done).for_each(|(w, u)| *w = *w * (1.0 - 0.002) - factor * u);
            }
            // The iterations are of bfloat16 factors: a few parts in a hundred of three updates whose root
            // mean square is lr rms.
            let square = exact.iter().zip(&w).map(|(e, w)| (e - f64::from(*w)).powi(2)).sum::<f64>();
            let error = (square / n as f64).sqrt() / (0.02 * 0.18);
            assert!(error < 0.1, "{rows} x {cols}, nesterov {nesterov}: off by {error} of an update");
        }
    }
}

#[test]
fn muon_of_a_batch_and_of_any_number_of_threads() {
    let (rows, cols, count) = (21, 48, 5);
    let n = rows * cols;
    let set =
        Muon { lr: 0.02, momentum: 0.9, weight_decay: 0.0, update_rms: 0.18, nesterov: true, newton_schulz_steps: 5 };
    let mut random = Random(4);
    let (start, grad) = (random.floats(n * count), random.floats(n * count));
    let run = |threads, together| {
        let (pool, mut w, mut momentum) = (Pool::new(threads), start.clone(), vec![0.1f32; n * count]);
        let parts = w.chunks_exact_mut(n).zip(grad.chunks_exact(n)).zip(momentum.chunks_exact_mut(n));
        let mut items: Vec<MuonItem> =
            parts.map(|((master, grad), momentum)| MuonItem { master, grad, momentum }).collect();
        match together {
            true => muon_steps(&pool, rows, cols, &mut items, &set, 1.0),
            false => items.iter_mut().for_each(|item| {
                muon_step(&pool, rows, cols, item.master, item.grad, item.momentum, &set, 1.0);
            }),
        }
        w
    };
    let alone = run(1, false);
    for threads in [1, 2, 3] {
        assert_same_bits(&run(threads, true), &alone, || format!("{threads} threads"));
    }
}

/// Singular values near one: the rows of a wide matrix become nearly orthonormal.
#[test]
fn orthogonalised_rows() {
    let (pool, mut random) = (Pool::new(2), Random(5));
    let (rows, cols) = (8, 200);
    let mut x = random.floats(rows * cols);
    orthogonalise(&pool, rows, cols, &mut x, 5);
    for i in 0..rows {
        for j in 0..rows {
            let dot: f32 = (0..cols).map(|c| x[i * cols + c] * x[j * cols + c]).sum();
            let ok = if i == j { (0.4..1.6).contains(&dot) } else { dot.abs() < 0.35 };
            assert!(ok, "{i} . {j} = {dot}");
        }
    }
}

#[test]
fn fp8_by_search_of_the_nearest_number() {
    let (pool, mut random) = (Pool::new(2), Random(6));
    // All finite E4M3 numbers.
    let numbers: Vec<f64> = (0..127u32)
        .map(|b| match (b >> 3, b & 7) {
            (0, m) => f64::from(m) * 0.5f64.powi(9),
            (e, m) => (1.0 + f64::from(m) / 8.0) * 2f64.powi(e as i32 - 7),
        })
        .collect();
    let (rows, cols) = (3, 300);
    let x: Vec<f32> = (0..rows * cols).map(|i| random.float() * 10f32.powi(i as i32 % 7 - 3)).collect();
    let mut got = x.clone();
    simulate_activations(&pool, &mut got, cols);
    for row in 0..rows {
        for start in (0..cols).step_by(128) {
            let tile = row * cols + start..row * cols + (start + 128).min(cols);
            let most = x[tile.clone()].iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let scale = f64::from(most / 448.0);
            for i in tile {
                let v = f64::from(x[i]).abs() / scale;
                let nearest = numbers.iter().map(|n| (n - v).abs()).fold(f64::INFINITY, f64::min);
                let error = (f64::from(got[i]) - f64::from(x[i])).abs() / scale;
                assert!(error <= nearest + v * 3e-7, "{} to {}: {error} and not {nearest}", x[i], got[i]);
                let number = f64::from(got[i]).abs() / scale;
                assert!(numbers.iter().any(|n| (n - number).abs() <= 3e-7 * n), "{number} is not E4M3");
            }
        }
    }
}

#[test]
fn fp8_blocks_of_weights() {
    let (pool, mut random) = (Pool::new(2), Random(7));
    let (rows, cols) = (130, 200);
    let w = random.floats(rows * cols);
    let mut got = w.clone();
    simulate_weights(&pool, &mut got, rows, cols);
    for (r, c) in [(0..128, 0..128), (0..128, 128..200), (128..130, 0..128), (128..130, 128..200)] {
        let most = r.clone().flat_map(|r| &w[r * cols + c.start..r * cols + c.end]).fold(0.0f32, |m, v| m.max(v.abs()));
        for i in r.flat_map(|r| (c.clone()).map(move |c| r * cols + c)) {
            // Half a unit of three bits, or of the subnormal numbers.
            assert!((got[i] - w[i]).abs() <= (w[i].abs() / 16.0).max(most / 448.0 / 1024.0) * 1.000_01);
            if w[i].abs() == most {
                assert!((got[i] / w[i] - 1.0).abs() < 1e-6);
            }
        }
    }
    let mut odd = [f32::NAN, 1.0, f32::INFINITY, -0.0];
    simulate_activations(&pool, &mut odd, 4);
    assert!(odd[0].is_nan() && odd[1] == 1.0 && odd[2] == f32::INFINITY && odd[3] == 0.0);
    let mut zeros = [0.0; 5];
    simulate_activations(&pool, &mut zeros, 5);
    assert_eq!(zeros, [0.0; 5]);
}
