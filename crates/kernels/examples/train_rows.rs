//! Measures what a training step does beside its products: packing of weights, row-wise backward
//! operations, the loss and the optimiser steps, by the time of one thread on the processor.
//!
//! `cargo run --release -p kernels --example train_rows`

use kernels::ops::Activation;
use kernels::pool::Pool;
use kernels::train::backward::{cross_entropy, gated_backward, rms_norm_backward_add};
use kernels::train::optim::{AdamW, Muon, MuonItem, adamw_step, global_norm, muon_steps};
use kernels::train::panels::{Panels, Precision};

/// The best of many runs, in nanoseconds.
fn best_ns(mut f: impl FnMut()) -> f64 {
    let told = || std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse::<f64>().ok();
    let start = std::time::Instant::now();
    let now = || {
        // A thread that gives way is charged up to this moment.
        std::thread::yield_now();
        told().unwrap_or_else(|| start.elapsed().as_nanos() as f64)
    };
    let mut best = f64::INFINITY;
    while start.elapsed().as_secs_f64() < 0.5 {
        let before = now();
        f();
        best = best.min(now() - before);
    }
    best
}

fn main() {
    let pool = Pool::new(1);
    let values = |n: usize| -> Vec<f32> { (0..n).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect() };
    let tell = |name: &str, n: usize, ns: f64| println!("{name:28} {:8.3} ns an element", ns / n as f64);

    let n = 256 * 640;
    let master = values(n);
    let mut panels = Panels::pack(&pool, 640, 256, &master, Precision::Bf16);
    tell("repack, both copies", n, best_ns(|| panels.repack(&pool, &master)));

    let n = 1024 * 256;
    let (x, dy, w, mut dx, mut dw) = (values(n), values(n), values(256), values(n), values(256));
    tell("rms_norm backward", n, best_ns(|| rms_norm_backward_add(&pool, &mut dx, &mut dw, &dy, &x, &w, 1e-6)));

    let (gate, up, mut dup) = (values(n), values(n), values(n));
    let silu = Activation::Silu;
    tell("SwiGLU backward", n, best_ns(|| gated_backward(&pool, silu, &mut dx, &mut dup, &dy, &gate, &up)));

    let (rows, vocab) = (128, 4096);
    let (mut logits, mut told) = (values(rows * vocab), vec![0.0; rows]);
    let (targets, weights) = (vec![7; rows], vec![1.0; rows]);
    let ns = best_ns(|| cross_entropy(&pool, &mut logits, vocab, &targets, &weights, &mut told));
    tell("cross entropy", rows * vocab, ns);

    let (mut master, grad, mut m, mut v) = (values(n), values(n), vec![0.0; n], vec![0.0; n]);
    let set = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 1 };
    tell("AdamW", n, best_ns(|| adamw_step(&pool, &mut master, &grad, &mut m, &mut v, &set, 1.0)));
    tell("norm", n, best_ns(|| assert!(global_norm(&pool, &[&grad]) > 0.0)));

    let (rows, cols) = (160, 256);
    let n = rows * cols;
    let (mut master, grad, mut momentum) = (values(n), values(n), vec![0.0; n]);
    let nesterov = true;
    let set = Muon { lr: 0.02, momentum: 0.95, weight_decay: 0.1, update_rms: 0.18, nesterov, newton_schulz_steps: 5 };
    let ns = best_ns(|| {
        let item = MuonItem { master: &mut master, grad: &grad, momentum: &mut momentum };
        muon_steps(&pool, rows, cols, &mut [item], &set, 1.0);
    });
    tell("Muon, 160 x 256", n, ns);
    let operations = 5.0 * 2.0 * (2 * rows * rows * cols + rows * rows * rows) as f64;
    println!("{:28} {:8.1} GFLOP/s", "", operations / ns);
}
