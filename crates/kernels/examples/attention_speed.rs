//! Measures attention: decoding a token and computing 64 of a prompt, at several depths, as a share of
//! what the machine can do (`kernels::measure`): arithmetic by f32 multiply-adds, and reading the cache
//! once from memory.
//!
//! Every call has a cache of its own until all of them outgrow the processor's caches, as the layers of
//! a model have; with `near` there is one, which stays in them. `FATHOM_ISA` chooses the instruction set.
//!
//! With one thread the time is that on the processor, where the system tells it: others on the machine do not
//! count.
//!
//! `cargo run --release -p kernels --example attention_speed [DEPTH | SHAPE | CACHE | decode | prompt | near ..]`

use std::hint::black_box;
use std::time::Instant;

use kernels::attention::{CacheFormat, Cached, Chunk, Factors, PAGE_LEN, Plane, Shape, attend};
use kernels::isa::isa;
use kernels::measure::{Machine, Operation, ThreadLimits};
use kernels::pool::Pool;

/// Bytes of caches that are gone through before the first one comes again.
const OUTGROW_BYTES: usize = 128 << 20;

/// What one row is, and what many are.
const KINDS: [&str; 2] = ["decode", "prompt"];

/// How the cache is stored and multiplied.
const CACHES: [(&str, CacheFormat, Factors); 5] = [
    ("f32", CacheFormat::F32, Factors::Exact),
    ("bf16", CacheFormat::BF16, Factors::Exact),
    ("int8", CacheFormat::Int8, Factors::Exact),
    ("bf16-dots", CacheFormat::BF16, Factors::Bf16),
    ("int8-dots", CacheFormat::Int8, Factors::Bf16),
];

/// (name, heads, key heads, key elements, value elements, one plane for both)
const SHAPES: [(&str, usize, usize, usize, usize, bool); 3] =
    [("V2-Lite", 16, 1, 576, 512, true), ("Qwen2 1.5B", 12, 2, 128, 128, false), ("nano", 8, 1, 80, 64, true)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let depths: Vec<usize> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    let chosen = |all: &[&str], name: &str| {
        arguments.iter().any(|a| a == name) || !arguments.iter().any(|a| all.contains(&a.as_str()))
    };
    let depths = if depths.is_empty() { vec![512, 4096, 16384] } else { depths };
    let machine = Machine::read();
    let all: Vec<ThreadLimits> =
        [1, machine.processors].map(|n| ThreadLimits::measure(&machine, n).expect("memory for the measurement")).into();
    println!("{}", isa().name());
    println!(
        "{:<11} {:<9} {:>6} {:>4} {:>4} {:>10} {:>9} {:>6} {:>8} {:>6}",
        "shape", "cache", "depth", "rows", "thr.", "us", "GFLOP/s", "share", "GB/s", "share"
    );
    let names = SHAPES.map(|shape| shape.0);
    for (name, heads, kv_heads, key_dim, value_dim, latent) in SHAPES.into_iter().filter(|s| chosen(&names, s.0)) {
        let scale = 1.0 / (key_dim as f32).sqrt();
        let shape = Shape { heads, kv_heads, key_dim, value_dim, scale, window: None, softcap: None };
        let names = CACHES.map(|cache| cache.0);
        for (cache, format, factors) in CACHES.into_iter().filter(|c| chosen(&names, c.0)) {
            for &depth in &depths {
                let outgrow_bytes = if arguments.iter().any(|a| a == "near") { 1 } else { OUTGROW_BYTES };
                let planes = planes(&shape, latent, (format, factors), depth + 64, outgrow_bytes);
                for limits in &all {
                    let pool = Pool::new(limits.threads);
                    for rows in [1, 64].into_iter().filter(|rows| chosen(&KINDS, KINDS[rows / 64])) {
                        let seconds = time(&pool, &shape, &planes, depth, rows);
                        let seen: usize = (depth + 1..=depth + rows).sum();
                        let gflop = 2.0 * (heads * (key_dim + value_dim) * seen) as f64 / seconds / 1e9;
                        let row_bytes = planes[0].iter().map(|p| format.row_bytes(p.width())).sum::<usize>();
                        let gb = (row_bytes * (depth + rows)) as f64 / seconds / 1e9;
                        let gflop_share = 100.0 * gflop / limits.peak_gop_per_s(Operation::F32Fma);
                        let gb_share = 100.0 * gb / limits.read.gb_per_s.best;
                        let (threads, us) = (limits.threads, seconds * 1e6);
                        print!("{name:<11} {cache:<9} {depth:>6} {rows:>4} {threads:>4} {us:>10.1} ");
                        println!("{gflop:>9.1} {gflop_share:>5.0}% {gb:>8.2} {gb_share:>5.0}%");
                    }
                }
            }
        }
    }
}

/// As many caches as outgrow the processor's, each of one or two planes.
fn planes(
    shape: &Shape,
    latent: bool,
    (format, factors): (CacheFormat, Factors),
    tokens: usize,
    outgrow_bytes: usize,
) -> Vec<Vec<Plane>> {
    let pages = tokens.div_ceil(PAGE_LEN);
    let widths: &[usize] = if latent { &[shape.key_dim] } else { &[0, 1] };
    let width = |kind: usize| shape.kv_heads * if kind == 0 { shape.key_dim } else { shape.value_dim };
    let one = || -> Vec<Plane> {
        let plane = |kind: usize| {
            let width = if latent { kind } else { width(kind) };
            let mut plane = Plane::new(format, width, pages).with_factors(factors);
            for position in 0..PAGE_LEN {
                let row: Vec<f32> =
                    (0..width).map(|i| ((position * 7919 + i * 104_729) % 2003) as f32 / 1000.0).collect();
                plane.store(&[0], position, &row);
            }
            (1..pages as u32).for_each(|page| plane.copy_page(0, page));
            plane
        };
        widths.iter().map(|&kind| plane(kind)).collect()
    };
    let bytes: usize = widths.iter().map(|&k| format.row_bytes(if latent { k } else { width(k) }) * tokens).sum();
    (0..outgrow_bytes.div_ceil(bytes)).map(|_| one()).collect()
}

/// Seconds of one call: the best of many, since the machine may do other things meanwhile.
fn time(pool: &Pool, shape: &Shape, caches: &[Vec<Plane>], depth: usize, rows: usize) -> f64 {
    let q: Vec<f32> = (0..rows * shape.heads * shape.key_dim).map(|i| (i * 31 % 61) as f32 / 30.0 - 1.0).collect();
    let mut out = vec![0.0; rows * shape.heads * shape.value_dim];
    let pages: Vec<u32> = (0..(depth + 64).div_ceil(PAGE_LEN) as u32).collect();
    let chunk = Chunk { first_row: 0, rows, position: depth, pages: &pages };
    let (mut best, mut runs, start, before) = (f64::INFINITY, 0, Instant::now(), on_processor_s());
    for planes in caches.iter().cycle() {
        let cached = match &planes[..] {
            [keys, values] => Cached::Separate(keys, values),
            latents => Cached::Latent(&latents[0]),
        };
        let run = Instant::now();
        attend(pool, shape, black_box(&mut out), black_box(&q), cached, &[chunk], None, None);
        best = best.min(run.elapsed().as_secs_f64());
        runs += 1;
        if start.elapsed().as_secs_f64() > 0.4 {
            break;
        }
    }
    // The system counts in steps of some milliseconds: only the mean says something, and only of long runs.
    match (pool.threads(), before, on_processor_s()) {
        (1, Some(before), Some(after)) if best > 1e-3 => best.min((after - before) / f64::from(runs)),
        _ => best,
    }
}

/// Seconds that this thread has had a processor.
fn on_processor_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse::<f64>().ok().map(|ns| ns * 1e-9)
}
