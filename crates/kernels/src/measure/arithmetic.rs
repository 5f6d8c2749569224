//! Arithmetic peaks: f32 multiply-add, bf16 and int8 dot products, from registers alone.
//!
//! Each loop keeps more independent accumulators than the processor has multiply-adds in flight,
//! and no memory is touched. One multiplication and one addition count as two operations.

use std::hint::black_box;
use std::time::Duration;

use super::Spread;
use super::team::{Effort, time_rounds};

/// What kind of arithmetic a peak is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// f32 multiply-add.
    F32Fma,
    /// Dot products of pairs of bf16, added up in f32.
    Bf16Dot,
    /// Dot products of unsigned by signed 8-bit integers, added up in 32 bits.
    Int8Dot,
}

impl Operation {
    /// A short name for tables and records.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::F32Fma => "f32 fma",
            Operation::Bf16Dot => "bf16 dot",
            Operation::Int8Dot => "int8 dot",
        }
    }
}

/// The peak of one operation with one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct ArithmeticPeak {
    /// The operation.
    pub operation: Operation,
    /// The instruction set: "portable" is what the compiler makes of plain Rust.
    pub instruction_set: &'static str,
    /// Billions (1e9) of operations per second of one thread.
    pub one_thread_gop_per_s: Spread,
    /// Billions (1e9) of operations per second of all threads together.
    pub all_threads_gop_per_s: Spread,
    /// Number of threads of the latter.
    pub threads: usize,
}

/// Measures every loop that this processor can run, with one thread and with `threads`.
pub fn arithmetic_peaks(threads: usize) -> Vec<ArithmeticPeak> {
    LOOPS.iter().filter(|l| (l.available)()).map(|l| peak(l, threads.max(1))).collect()
}

/// The f32 loop with the widest instruction set here; also what [`super::topology()`] compares.
pub(super) fn widest_f32() -> (fn(usize), usize) {
    let widest = LOOPS.iter().rfind(|l| l.operation == Operation::F32Fma && (l.available)());
    let widest = widest.expect("the portable loop runs everywhere");
    (widest.run, widest.operations_per_iteration)
}

/// One measured loop: `run(iterations)`.
struct Loop {
    operation: Operation,
    instruction_set: &'static str,
    operations_per_iteration: usize,
    available: fn() -> bool,
    run: fn(usize),
}

/// Accumulators of the vector loops: two multiply-adds a cycle at a latency of four to five cycles
/// need ten; with sixteen registers, two of which hold the factors, twelve fit.
const ACCUMULATORS: usize = 12;
/// Accumulator floats of the portable loop: twelve registers of four.
const PORTABLE_FLOATS: usize = 48;

/// In each operation, from the narrowest to the widest.
const LOOPS: &[Loop] = &[
    Loop {
        operation: Operation::F32Fma,
        instruction_set: "portable",
        operations_per_iteration: 2 * PORTABLE_FLOATS,
        available: || true,
        run: fma_portable,
    },
    #[cfg(target_arch = "aarch64")]
    Loop {
        operation: Operation::F32Fma,
        instruction_set: "neon",
        operations_per_iteration: 2 * 4 * ACCUMULATORS,
        available: || std::arch::is_aarch64_feature_detected!("neon"),
        run: aarch64::fma_neon,
    },
    #[cfg(target_arch = "x86_64")]
    Loop {
        operation: Operation::F32Fma,
        instruction_set: "avx2",
        operations_per_iteration: 2 * 8 * ACCUMULATORS,
        available: x86_64::has_avx2,
        run: x86_64::fma_avx2,
    },
    #[cfg(target_arch = "x86_64")]
    Loop {
        operation: Operation::F32Fma,
        instruction_set: "avx512",
        operations_per_iteration: 2 * 16 * ACCUMULATORS,
        available: x86_64::has_avx512,
        run: x86_64::fma_avx512,
    },
    #[cfg(target_arch = "x86_64")]
    Loop {
        operation: Operation::Bf16Dot,
        instruction_set: "avx512-bf16",
        operations_per_iteration: 2 * 32 * ACCUMULATORS,
        available: x86_64::has_avx512_bf16,
        run: x86_64::dot_avx512_bf16,
    },
    #[cfg(target_arch = "x86_64")]
    Loop {
        operation: Operation::Int8Dot,
        instruction_set: "avx-vnni",
        operations_per_iteration: 2 * 32 * ACCUMULATORS,
        available: x86_64::has_avx_vnni,
        run: x86_64::dot_avx_vnni,
    },
    #[cfg(target_arch = "x86_64")]
    Loop {
        operation: Operation::Int8Dot,
        instruction_set: "avx512-vnni",
        operations_per_iteration: 2 * 64 * ACCUMULATORS,
        available: x86_64::has_avx512_vnni,
        run: x86_64::dot_avx512_vnni,
    },
];

/// Long enough that starting the threads is not seen, short enough to fit between disturbances.
const RUN_S: f64 = 4e-3;
const EFFORT: Effort = Effort { runs_min: 5, runs_max: 25, budget: Duration::from_millis(100) };

fn peak(measured: &Loop, threads: usize) -> ArithmeticPeak {
    let iterations = iterations_for(measured, RUN_S);
    let rate = |threads: usize| {
        let operations = (threads * iterations * measured.operations_per_iteration) as f64;
        let seconds = time_rounds(threads, EFFORT, |_, _| (measured.run)(iterations));
        Spread::of(seconds.iter().map(|s| operations / s / 1e9).collect()).expect("at least five runs")
    };
    ArithmeticPeak {
        operation: measured.operation,
        instruction_set: measured.instruction_set,
        one_thread_gop_per_s: rate(1),
        all_threads_gop_per_s: rate(threads),
        threads,
    }
}

/// How many iterations take about `seconds`.
fn iterations_for(measured: &Loop, seconds: f64) -> usize {
    let mut iterations = 1000;
    loop {
        let start = std::time::Instant::now();
        (measured.run)(iterations);
        let taken_s = start.elapsed().as_secs_f64();
        if taken_s > seconds / 8.0 {
            return ((iterations as f64 * seconds / taken_s) as usize).max(1);
        }
        iterations *= 2;
    }
}

/// `x * 0.5 + 1` tends to 2: neither overflow nor denormal numbers, which some processors slow
/// down for. The compiler must not know the factors.
fn factors() -> (f32, f32) {
    black_box((0.5, 1.0))
}

/// Different starts, so that the accumulators are not one and the same to the compiler.
fn starts<const N: usize>() -> [f32; N] {
    black_box(std::array::from_fn(|i| i as f32))
}

fn fma_portable(iterations: usize) {
    let (x, y) = factors();
    let mut sums: [f32; PORTABLE_FLOATS] = starts();
    for _ in 0..iterations {
        for sum in &mut sums {
            *sum = *sum * x + y;
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{ACCUMULATORS, factors, starts};
    use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32};
    use std::hint::black_box;

    pub(super) fn fma_neon(iterations: usize) {
        // SAFETY: `available` has seen NEON.
        unsafe { fma(iterations) }
    }

    #[target_feature(enable = "neon")]
    fn fma(iterations: usize) {
        let (x, y) = factors();
        let (x, y) = (vdupq_n_f32(x), vdupq_n_f32(y));
        let mut sums = starts::<ACCUMULATORS>().map(|start| vdupq_n_f32(start));
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = vfmaq_f32(y, *sum, x);
            }
        }
        black_box(sums);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{ACCUMULATORS, factors, starts};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    pub(super) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    pub(super) fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f")
    }

    pub(super) fn has_avx_vnni() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni")
    }

    pub(super) fn has_avx512_vnni() -> bool {
        has_avx512() && is_x86_feature_detected!("avx512vnni")
    }

    pub(super) fn has_avx512_bf16() -> bool {
        has_avx512() && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16")
    }

    pub(super) fn fma_avx2(iterations: usize) {
        assert!(has_avx2());
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { fma_256(iterations) }
    }

    pub(super) fn fma_avx512(iterations: usize) {
        assert!(has_avx512());
        // SAFETY: the processor has AVX-512F.
        unsafe { fma_512(iterations) }
    }

    pub(super) fn dot_avx_vnni(iterations: usize) {
        assert!(has_avx_vnni());
        // SAFETY: the processor has AVX2 and AVX-VNNI.
        unsafe { dot_256(iterations) }
    }

    pub(super) fn dot_avx512_vnni(iterations: usize) {
        assert!(has_avx512_vnni());
        // SAFETY: the processor has AVX-512F and AVX512-VNNI.
        unsafe { dot_512(iterations) }
    }

    pub(super) fn dot_avx512_bf16(iterations: usize) {
        assert!(has_avx512_bf16());
        // SAFETY: the processor has AVX-512F, BW and BF16.
        unsafe { dot_bf16(iterations) }
    }

    #[target_feature(enable = "avx2,fma")]
    fn fma_256(iterations: usize) {
        let (x, y) = factors();
        let (x, y) = (_mm256_set1_ps(x), _mm256_set1_ps(y));
        let mut sums = starts::<ACCUMULATORS>().map(|start| _mm256_set1_ps(start));
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    fn fma_512(iterations: usize) {
        let (x, y) = factors();
        let (x, y) = (_mm512_set1_ps(x), _mm512_set1_ps(y));
        let mut sums = starts::<ACCUMULATORS>().map(|start| _mm512_set1_ps(start));
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,avxvnni")]
    fn dot_256(iterations: usize) {
        let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(-2)));
        let mut sums = starts::<ACCUMULATORS>().map(|start| _mm256_set1_epi32(start as i32));
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn dot_512(iterations: usize) {
        let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(-2)));
        let mut sums = starts::<ACCUMULATORS>().map(|start| _mm512_set1_epi32(start as i32));
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn dot_bf16(iterations: usize) {
        let (x, y) = factors();
        let (x, y) = (_mm512_set1_ps(x), _mm512_set1_ps(y));
        let (x, y) = (_mm512_cvtne2ps_pbh(x, x), _mm512_cvtne2ps_pbh(y, y));
        let mut sums = starts::<ACCUMULATORS>().map(|start| _mm512_set1_ps(start));
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop that the optimiser removed would be faster than any processor: four multiply-add units
    /// of 512 bits at 6 GHz do 768 operations a nanosecond in f32, twice that in bf16, four times in int8.
    #[test]
    fn no_loop_is_faster_than_a_processor_can_be() {
        for measured in LOOPS.iter().filter(|l| (l.available)()) {
            let iterations = 100_000;
            let start = std::time::Instant::now();
            (measured.run)(iterations);
            let nanoseconds = start.elapsed().as_nanos() as f64;
            let rate = (iterations * measured.operations_per_iteration) as f64 / nanoseconds;
            let limit = match measured.operation {
                Operation::F32Fma => 768.0,
                Operation::Bf16Dot => 1536.0,
                Operation::Int8Dot => 3072.0,
            };
            assert!(rate < limit, "{}: {rate} operations a nanosecond", measured.instruction_set);
        }
    }
}
