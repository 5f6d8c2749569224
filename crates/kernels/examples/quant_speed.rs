//! Measures the storage formats on one core: elements read per second from a row that fits the L1
//! cache, for each instruction set, then elements written per second and the root mean square error
//! on normally distributed values.
//!
//! `cargo run --release -p kernels --example quant_speed`

use std::hint::black_box;
use std::time::Instant;

use kernels::format::Format;
use kernels::isa::Isa;
use kernels::quant::{dequantize_row, dequantize_row_with, quantize_row, quantize_row_with};

const COLS: usize = 2048;

fn main() {
    let row = normal(COLS);
    println!("read, 10^9 elements/s (GB/s of floats)");
    println!("{:8} {:>16} {:>16} {:>16}", "", "portable", "avx2", "avx512");
    for format in Format::ALL {
        let mut bytes = vec![0; format.row_bytes(COLS).unwrap()];
        quantize_row(format, &row, &mut bytes).unwrap();
        print!("{:8}", format.name());
        for isa in Isa::ALL {
            if !isa.is_available() {
                print!(" {:>16}", "-");
                continue;
            }
            let mut out = vec![0.0; COLS];
            let rate = rate(|| dequantize_row_with(isa, format, black_box(&bytes), black_box(&mut out)));
            print!(" {:>7.2} ({:>6.1})", rate / 1e9, rate * 4.0 / 1e9);
        }
        println!();
    }
    println!("\nwrite, 10^6 elements/s; RMS error on N(0, 1)");
    println!("{:8} {:>10} {:>10} {:>10} {:>12}", "", "portable", "avx2", "avx512", "RMS error");
    let many = normal(256 * COLS);
    for format in Format::ALL {
        let mut bytes = vec![0; format.row_bytes(COLS).unwrap()];
        print!("{:8}", format.name());
        for isa in Isa::ALL {
            if !isa.is_available() {
                print!(" {:>10}", "-");
                continue;
            }
            let rate = rate(|| quantize_row_with(isa, format, black_box(&row), black_box(&mut bytes)).unwrap());
            print!(" {:>10.1}", rate / 1e6);
        }
        println!(" {:>12.6}", rms_error(format, &many));
    }
}

/// Elements per second: the best of several timings, each long enough for the clock.
fn rate(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let mut repeat = 1;
    let mut timings = 0;
    while timings < 100 {
        let start = Instant::now();
        for _ in 0..repeat {
            work();
        }
        let seconds = start.elapsed().as_secs_f64();
        if seconds < 2e-4 {
            repeat *= 2;
            continue;
        }
        best = best.min(seconds / f64::from(repeat));
        timings += 1;
    }
    COLS as f64 / best
}

fn rms_error(format: Format, values: &[f32]) -> f64 {
    let mut bytes = vec![0; format.row_bytes(values.len()).unwrap()];
    let mut back = vec![0.0; values.len()];
    quantize_row(format, values, &mut bytes).unwrap();
    dequantize_row(format, &bytes, &mut back);
    let sum: f64 = values.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / values.len() as f64).sqrt()
}

/// Normally distributed values from a fixed seed (Box and Muller over a multiplicative generator).
fn normal(n: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    (0..n).map(|_| ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32).collect()
}
