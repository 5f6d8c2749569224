//! Times integer products alone, variants interleaved: best of many short runs.
use kernels::{
    bytes::Bytes,
    format::Format,
    matmul::matmul,
    pool::Pool,
    quant::quantize_row,
    weight::{Inputs, Weight},
};
use std::{hint::black_box, time::Instant};
fn main() {
    let pool = Pool::new(1);
    let rows: Vec<usize> =
        std::env::args().nth(2).map_or(vec![1], |a| a.split(',').map(|v| v.parse().unwrap()).collect());
    let names = std::env::args().nth(1).unwrap_or("q4_k,q5_k,q6_k,q8_0,q5_0,q4_0".into());
    let hz = {
        let t = Instant::now();
        let mut x = 1u64;
        for _ in 0..200_000_000u64 {
            x = black_box(x + 1);
        }
        let _ = x;
        2e8 / t.elapsed().as_secs_f64()
    };
    println!("{:.2} G simple loop turns/s", hz / 1e9);
    let limits = kernels::measure::Limits::measure().unwrap();
    for p in &limits.arithmetic {
        println!("{p:?}");
    }
    println!("{:?}", limits.read_one_thread);
    for name in names.split(',') {
        let format = Format::ALL.into_iter().find(|f| f.name() == name).unwrap();
        let (n, k) = (256, 2048);
        let size = format.row_bytes(k).unwrap();
        let mut one = vec![0u8; n * size];
        for (r, to) in one.chunks_mut(size).enumerate() {
            let row: Vec<f32> = (0..k).map(|i| ((r * 7919 + i * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect();
            quantize_row(format, &row, to).unwrap();
        }
        let copies = (160 << 20) / one.len();
        let big: Vec<u8> = one.iter().copied().cycle().take(one.len() * copies).collect();
        let all = Weight::new(format, n * copies, k, Bytes::from(big)).unwrap().with_inputs(Inputs::Int8);
        for &t in &rows {
            let x: Vec<f32> = (0..t * k).map(|i| (i * 31 % 61) as f32 / 30.0 - 1.0).collect();
            let mut out = vec![0.0; t * n];
            let (mut hot, mut cold) = (f64::INFINITY, f64::INFINITY);
            for i in 0..if t < 32 { copies } else { 60 } {
                let w = all.row_range((i % copies) * n..(i % copies + 1) * n);
                for best in [&mut cold, &mut hot] {
                    let s = Instant::now();
                    matmul(&pool, black_box(&mut out), black_box(&x), &w);
                    *best = best.min(s.elapsed().as_secs_f64());
                }
            }
            let (gb, gop) = ((n * size) as f64 / 1e9, 2.0 * (n * k * t) as f64 / 1e9);
            println!(
                "{name:7} {t:4} rows: cold {:6.2} GB/s, hot {:6.2} GB/s, {:6.1} GOP/s",
                gb / cold,
                gb / hot,
                gop / hot
            );
        }
    }
}
