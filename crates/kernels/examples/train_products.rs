//! Measures the products of training: forward, gradient of the inputs and gradient of the weights,
//! each also as a share of the peak that this machine reaches in the same process.
//!
//! The best of many runs counts, so that other processes hardly do. `FATHOM_ISA` chooses the instruction set.
//!
//! `cargo run --release -p kernels --example train_products`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use kernels::gemm::Kernels;
use kernels::isa::isa;
use kernels::matmul::matmul_grouped;
use kernels::measure::{Operation, arithmetic_peaks};
use kernels::pool::Pool;
use kernels::train::panels::{Panels, Precision};
use kernels::train::products::{matmul_grouped_dw, matmul_grouped_dx};
use kernels::weight::Weight;

/// Tokens, inputs, outputs, and groups (experts) among which the tokens are divided.
const SHAPES: [(&str, usize, usize, usize, usize); 14] = [
    ("cache-resident", 256, 256, 256, 1),
    ("nano q, 1024 rows", 1024, 256, 384, 1),
    ("nano latent, 1024", 1024, 256, 80, 1),
    ("nano expert, 1024", 1024, 256, 160, 1),
    ("nano down, 1024", 1024, 160, 256, 1),
    ("nano head, 256", 256, 256, 4096, 1),
    ("1024 cubed", 1024, 1024, 1024, 1),
    ("256 x 8192 x 1024", 256, 8192, 1024, 1),
    ("nano q", 8192, 256, 384, 1),
    ("nano latent", 8192, 256, 80, 1),
    ("nano 16 experts up", 16384, 256, 160, 16),
    ("nano 16 experts down", 16384, 160, 256, 16),
    ("nano dense", 8192, 256, 640, 1),
    ("nano head", 8192, 256, 4096, 1),
];

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let kernels = Kernels::of(isa());
    println!("{kernels:?}");
    let peaks = arithmetic_peaks(threads);
    let peak = |operation: Operation| {
        let of = |threads: usize| {
            let each = peaks.iter().filter(|p| p.operation == operation);
            each.map(|p| if threads == 1 { p.one_thread_gop_per_s.best } else { p.all_threads_gop_per_s.best })
                .fold(0.0, f64::max)
        };
        (of(1), of(threads))
    };
    println!("{:20} {:>5} {:>3}  {:>15} {:>15} {:>15}  GFLOP/s, share", "shape", "", "", "forward", "dx", "dw");
    for (precision, operation) in [(Precision::Bf16, Operation::Bf16Dot), (Precision::F32, Operation::F32Fma)] {
        for threads in [1, threads] {
            let pool = Pool::new(threads);
            let peak = if threads == 1 { peak(operation).0 } else { peak(operation).1 };
            for (name, t, k, n, groups) in SHAPES {
                let best = measure(&pool, precision, t, k, n, groups);
                let cells = best.map(|s| {
                    let rate = 2.0 * (t * k * n) as f64 / s / 1e9;
                    format!("{rate:>9.1} {:>4.0}%", 100.0 * rate / peak)
                });
                println!("{name:20} {precision:>5?} {threads:>3}  {}", cells.join(" "));
            }
        }
    }
}

/// Best seconds of the three products, interleaved.
fn measure(pool: &Pool, precision: Precision, t: usize, k: usize, n: usize, groups: usize) -> [f64; 3] {
    let values = |len: usize| -> Vec<f32> { (0..len).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect() };
    let (x, dy) = (values(t * k), values(t * n));
    let (mut y, mut dx) = (vec![0.0; t * n], vec![0.0; t * k]);
    let weights: Vec<Weight> = (0..groups)
        .map(|_| Weight::from_panels(Arc::new(Panels::pack(pool, n, k, &values(n * k), precision))))
        .collect();
    let rows = t / groups;
    let list: Vec<(usize, &Weight)> = weights.iter().map(|w| (rows, w)).collect();
    let mut dw = vec![0.0; groups * n * k];
    let mut best = [f64::INFINITY; 3];
    // Fresh memory is given by the system page by page, at the first touch.
    y.fill(1.0);
    dx.fill(1.0);
    dw.fill(1.0);
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < 0.25 {
        let run = Instant::now();
        matmul_grouped(pool, black_box(&mut y), black_box(&x), &list);
        best[0] = best[0].min(run.elapsed().as_secs_f64());
        let run = Instant::now();
        matmul_grouped_dx(pool, black_box(&mut dx), black_box(&dy), &list);
        best[1] = best[1].min(run.elapsed().as_secs_f64());
        let mut dws: Vec<(usize, &mut [f32])> = dw.chunks_exact_mut(n * k).map(|dw| (rows, dw)).collect();
        let run = Instant::now();
        matmul_grouped_dw(pool, black_box(&mut dws), black_box(&dy), black_box(&x), n, k, precision);
        best[2] = best[2].min(run.elapsed().as_secs_f64());
    }
    best
}
