//! Measures the thread pool: what an empty region costs, and how much of the quiet speed is left when
//! another thread keeps one of the processors busy.
//!
//! The load is like decoding: regions of some tens of microseconds with a few tasks for each thread, a
//! hundred of them a token, and a pause after each token.
//!
//! `cargo run --release -p kernels --example pool_speed [THREADS]`

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kernels::pool::Pool;

const REGIONS: usize = 100;
const TASKS: usize = 16;
const TOKENS_SPAN: Duration = Duration::from_secs(2);

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads);
    let empty = region_us(&pool, |i| {
        black_box(i);
    });
    // Each task waits until all threads have come.
    let come = AtomicUsize::new(0);
    let all = region_us(&pool, |_| {
        let round = come.fetch_add(1, Ordering::SeqCst) / threads;
        while come.load(Ordering::SeqCst) < (round + 1) * threads {
            std::hint::spin_loop();
        }
    });
    println!("a region that is empty: {empty:.2} us; one that waits for all {threads} threads: {all:.2} us");
    let quiet = tokens_per_s(&pool);
    let alone = tokens_per_s(&Pool::new(1));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                black_box(work(1000));
            }
        });
        let disturbed = tokens_per_s(&pool);
        stop.store(true, Ordering::Relaxed);
        println!(
            "regions of 100 us of work: {quiet:.1} rounds/s with {threads} threads, {alone:.1} with 1; beside a busy \
             thread {disturbed:.1}, {:.2} of the quiet speed",
            disturbed / quiet
        );
    });
}

/// The best of many thousands.
fn region_us(pool: &Pool, task: impl Fn(usize) + Sync) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let start = Instant::now();
        for _ in 0..100 {
            pool.run(pool.threads(), &task);
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e4);
    }
    best
}

/// Rounds of regions in a second.
fn tokens_per_s(pool: &Pool) -> f64 {
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < TOKENS_SPAN {
        for _ in 0..REGIONS {
            pool.run(TASKS, |_| {
                black_box(work(6));
            });
        }
        black_box(work(20));
        rounds += 1;
    }
    f64::from(rounds) / start.elapsed().as_secs_f64()
}

/// About so many microseconds of arithmetic.
fn work(us: usize) -> f32 {
    (0..us * 250).fold(black_box(1.0f32), |x, _| x * 0.999 + 0.001)
}
