//! Measures matrix products: arithmetic and weight bytes per second, each also as a share of what
//! this machine can do (`kernels::measure`), for several formats, numbers of rows and threads.
//!
//! The weights of a single row come from memory, not from a cache: products go through as many
//! copies of the matrix as outgrow the caches. `FATHOM_ISA` chooses the instruction set. Formats with
//! integer products are measured with them, or with `--exact` in floats.
//!
//! `cargo run --release -p kernels --example matmul_speed [--exact] [FORMAT ...]`

use std::hint::black_box;
use std::time::Instant;

use kernels::bytes::Bytes;
use kernels::format::Format;
use kernels::isa::isa;
use kernels::matmul::matmul;
use kernels::measure::{Limits, Operation};
use kernels::pool::Pool;
use kernels::quant::quantize_row;
use kernels::weight::{Inputs, Weight};

const OUTPUTS: usize = 2048;
const INPUTS: usize = 2048;
/// Bytes of weights that a product goes through before it comes back to the first ones.
const OUTGROW_BYTES: usize = 192 << 20;

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let inputs = if names.iter().any(|n| n == "--exact") { Inputs::Exact } else { Inputs::Int8 };
    let names: Vec<String> = names.into_iter().filter(|n| n != "--exact").collect();
    let formats = [Format::F32, Format::BF16, Format::Q8_0, Format::Q4K, Format::Q6K];
    let chosen = |f: &Format| if names.is_empty() { formats.contains(f) } else { names.iter().any(|n| n == f.name()) };
    let limits = Limits::measure().expect("memory for the measurement");
    let peak = limits.arithmetic.iter().filter(|p| p.operation == Operation::F32Fma);
    let peak = peak.map(|p| (p.one_thread_gop_per_s.best, p.all_threads_gop_per_s.best));
    let (one, all) = peak.fold((0.0, 0.0), |best: (f64, f64), p| (best.0.max(p.0), best.1.max(p.1)));
    let threads = limits.machine.processors;
    let read = [limits.read_one_thread.gb_per_s.best, limits.read_all_threads.gb_per_s.best];
    println!(
        "{} x {}, {}; limits: {one:.0} and {all:.0} GFLOP/s, {:.1} and {:.1} GB/s with 1 and {threads} threads\n",
        OUTPUTS,
        INPUTS,
        isa().name(),
        read[0],
        read[1]
    );
    println!(
        "{:8} {:>4} {:>7} {:>9} {:>6} {:>9} {:>6}",
        "format", "rows", "threads", "GFLOP/s", "share", "GB/s", "share"
    );
    for format in Format::ALL.into_iter().filter(chosen) {
        let weights = weights(format, inputs);
        for (threads, flops, bytes) in [(1, one, read[0]), (threads, all, read[1])] {
            let pool = Pool::new(threads);
            for rows in [1, 2, 4, 8, 16, 48, 256] {
                let seconds = time(&pool, rows, &weights);
                let gflop = 2.0 * (rows * OUTPUTS * INPUTS) as f64 / seconds / 1e9;
                let gb = weights[0].bytes() as f64 / seconds / 1e9;
                let (name, shares) = (format.name(), (gflop / flops * 100.0, gb / bytes * 100.0));
                println!(
                    "{name:8} {rows:>4} {threads:>7} {gflop:>9.1} {:>5.0}% {gb:>9.2} {:>5.0}%",
                    shares.0, shares.1
                );
            }
        }
    }
}

/// As many matrices of the same values as outgrow the caches.
fn weights(format: Format, inputs: Inputs) -> Vec<Weight> {
    let row_bytes = format.row_bytes(INPUTS).expect("whole blocks");
    let mut bytes = vec![0u8; row_bytes * OUTPUTS];
    for (r, to) in bytes.chunks_exact_mut(row_bytes).enumerate() {
        let row: Vec<f32> = (0..INPUTS).map(|i| ((r * 7919 + i * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect();
        quantize_row(format, &row, to).expect("finite values");
    }
    let copies = OUTGROW_BYTES.div_ceil(bytes.len());
    let weight = |_| {
        let weight = Weight::new(format, OUTPUTS, INPUTS, Bytes::from(bytes.clone())).expect("whole rows");
        weight.with_inputs(inputs)
    };
    (0..copies).map(weight).collect()
}

/// Seconds of one product: the best of many, since the machine may do other things meanwhile.
fn time(pool: &Pool, rows: usize, weights: &[Weight]) -> f64 {
    let x: Vec<f32> = (0..rows * INPUTS).map(|i| (i * 31 % 61) as f32 / 30.0 - 1.0).collect();
    let mut out = vec![0.0; rows * OUTPUTS];
    let (mut best, start) = (f64::INFINITY, Instant::now());
    for weight in weights.iter().cycle() {
        let run = Instant::now();
        matmul(pool, black_box(&mut out), black_box(&x), weight);
        best = best.min(run.elapsed().as_secs_f64());
        if start.elapsed().as_secs_f64() > 0.3 {
            break;
        }
    }
    best
}
