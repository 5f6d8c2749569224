//! Integer matrix products: weights in their stored integers, inputs as signed bytes.
//!
//! The rows of `x` are rounded to bytes in blocks as long as the weights' blocks (`inputs`). Within a
//! block all arithmetic is exact in 32-bit integers: `S`, the sum of weights (with the integer scales
//! of their groups) times inputs, and `M`, the sum of the groups' minima times inputs. Each operation
//! on floats is rounded by itself, never fused:
//!
//! ```text
//! v[b] = (d * S + m * M) * x.d                                    for each block b
//! out = 0;  for each eight blocks: out = out + (((v0+v1) + (v2+v3)) + ((v4+v5) + (v6+v7)))
//! ```
//!
//! with zeros for the blocks that the last eight lacks. (`coded` says what `d`, `m` and the integers of
//! each format are.) Integer sums may be taken in any order, so the portable code (the specification),
//! AVX2, AVX-512, AMX and NEON give the same bits, for one row or many, whatever the tile, the task or the thread.
//!
//! Few rows of inputs: weights are used as they are read, from memory at its speed. Many: 32 outputs
//! of a piece are laid out once as a panel of bytes in the first-level cache, and all rows of inputs
//! stream past it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_panel;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_panel;
pub(crate) mod coded;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod eights;
mod inputs;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_panel;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::cell::RefCell;
use std::ops::Range;

use coded::{Code, Coded, coded};
use inputs::{Inputs, Line};

use crate::isa::Isa;
use crate::pool::{Pool, SharedMut};

/// Rows of weights in blocks of a code.
#[derive(Clone, Copy)]
pub(crate) struct CodedRows<'a> {
    pub(crate) code: Code,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: &'a [u8],
    pub(crate) stride: usize,
    /// The blocks' scales where they lie apart, else as `data`.
    pub(crate) scales: &'a [u8],
    pub(crate) scale_stride: usize,
}

/// A product of some rows of x with one weight. Row `t` is row `first + t * step` of x.
pub(crate) struct IntJob<'a> {
    pub(crate) weight: CodedRows<'a>,
    pub(crate) rows: usize,
    pub(crate) first: usize,
    pub(crate) step: usize,
    /// Output `n` of row `t` is `out[offset + t * stride + n]`.
    pub(crate) out: &'a SharedMut<'a, f32>,
    pub(crate) offset: usize,
    pub(crate) stride: usize,
}

/// Which code computes.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// Many rows on tiles; few as VNNI.
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// With SDOT.
    #[cfg(target_arch = "aarch64")]
    Sdot,
    /// Many rows with SMMLA; few with SDOT.
    #[cfg(target_arch = "aarch64")]
    Smmla,
}

impl Path {
    fn of(isa: Isa) -> Path {
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Amx {
            return Path::Amx;
        }
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 && is_x86_feature_detected!("avx512vnni") {
            return Path::Vnni;
        }
        // AVX-512 without VNNI too: it has nothing for this that AVX2 lacks but width.
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 {
            return Path::Avx2;
        }
        #[cfg(target_arch = "aarch64")]
        if isa == Isa::Neon {
            use std::arch::is_aarch64_feature_detected;
            return match (is_aarch64_feature_detected!("dotprod"), is_aarch64_feature_detected!("i8mm")) {
                (true, true) => Path::Smmla,
                (true, false) => Path::Sdot,
                (false, _) => Path::Neon,
            };
        }
        let _ = isa;
        Path::Portable
    }

    /// Whether so many rows of inputs are worth a panel.
    fn panels(self, rows: usize) -> bool {
        #[cfg(target_arch = "aarch64")]
        return self == Path::Smmla && rows > FEW_ROWS;
        #[cfg(not(target_arch = "aarch64"))]
        return self != Path::Portable && rows > FEW_ROWS;
    }
}

thread_local! {
    static INPUTS: RefCell<[Inputs; 2]> = RefCell::default();
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Memory of a thread for the task at hand. Only what a task has written does it read.
#[derive(Default)]
struct Scratch {
    /// Weights of a piece of [`PANEL`] outputs.
    panel: Vec<Line>,
    /// Sums of rows of inputs with [`PANEL`] outputs.
    sums: Vec<f32>,
    /// Integer sums that AMX's tiles leave.
    #[cfg(target_arch = "x86_64")]
    integers: Vec<Line>,
}

/// Outputs of a panel.
const PANEL: usize = 32;
/// Rows of inputs up to which weights are used as they are read.
const FEW_ROWS: usize = 4;
/// Rows of inputs whose sums are kept at a time.
const MOST_ROWS: usize = 1024;

/// Multiplications below which a task is not worth another thread's attention.
const TASK_WORK: usize = 128 * 1024;

/// Runs all jobs as one parallel region; all weights have `cols` columns. Outputs of different jobs
/// must not overlap.
pub(crate) fn run(isa: Isa, pool: &Pool, x: &[f32], cols: usize, jobs: &[IntJob]) {
    assert!(isa.is_available(), "{} kernels on a processor without them", isa.name());
    // Taken, not borrowed: the caller may itself be a task of another pool.
    let mut inputs = INPUTS.take();
    for (inputs, block) in inputs.iter_mut().zip([32, 256]) {
        if jobs.iter().any(|job| job.weight.code.block() == block && job.rows > 0) {
            inputs.fill(isa, pool, x, cols, block);
        }
    }
    let path = Path::of(isa);
    let all_rows: usize = jobs.iter().filter(|job| job.rows > 0).map(|job| job.weight.rows).sum();
    let fair = all_rows.div_ceil(8 * pool.threads());
    let mut first_tasks = Vec::with_capacity(jobs.len());
    let mut tasks = 0;
    for job in jobs {
        let least = TASK_WORK.div_ceil(cols * job.rows.max(1));
        let rows = fair.max(least).next_multiple_of(if path.panels(job.rows) { PANEL } else { 4 });
        first_tasks.push((tasks, rows));
        tasks += if job.rows == 0 { 0 } else { job.weight.rows.div_ceil(rows) };
    }
    pool.run_streams(tasks, |task| {
        let at = first_tasks.partition_point(|&(first, _)| first <= task) - 1;
        let ((first, rows), job) = (first_tasks[at], &jobs[at]);
        let n = (task - first) * rows..((task - first + 1) * rows).min(job.weight.rows);
        let inputs = &inputs[usize::from(job.weight.code.block() == 256)];
        let task = Few { n, inputs, cols, rows: job.rows, job };
        if path.panels(job.rows) { many_rows(path, &task) } else { few_rows(path, &task) }
    });
    INPUTS.set(inputs);
}

/// Outputs `n` of all rows of a job.
struct Few<'a> {
    n: Range<usize>,
    cols: usize,
    rows: usize,
    inputs: &'a Inputs,
    job: &'a IntJob<'a>,
}

impl Few<'_> {
    /// Block `block` of row `n` of the weights: its bytes and its scale.
    #[inline(always)]
    fn block<F: Coded>(&self, n: usize, block: usize) -> (&[u8], &[u8]) {
        let w = &self.job.weight;
        let bytes = &w.data[n * w.stride + block * F::BYTES..][..F::BYTES];
        let scale = &w.scales[n * w.scale_stride + block * F::SCALE_BYTES..][..F::SCALE_BYTES];
        (bytes, scale)
    }

    /// The row of the inputs that is row `t` of the job.
    #[inline(always)]
    fn input_row(&self, t: usize) -> usize {
        self.job.first + t * self.job.step
    }

    /// Writes output `n` of row `t`.
    #[inline(always)]
    fn write(&self, t: usize, n: usize, value: f32) {
        self.write_row(t, n, &[value]);
    }

    /// Writes outputs `n ..` of row `t`.
    #[inline(always)]
    fn write_row(&self, t: usize, n: usize, values: &[f32]) {
        let inside = self.n.contains(&n) && values.len() <= self.n.end - n;
        assert!(inside && t < self.rows, "{} outputs at {n} of row {t}", values.len());
        // SAFETY: outputs of jobs do not overlap, and these are this task's alone.
        unsafe { self.job.out.range(self.job.offset + t * self.job.stride + n, values.len()) }.copy_from_slice(values);
    }
}

fn few_rows(path: Path, few: &Few) {
    let code = few.job.weight.code;
    assert_eq!(few.inputs.block(), code.block(), "inputs in the weights' blocks");
    match path {
        Path::Portable => coded!(code, F => portable::few::<F>(few)),
        // SAFETY: this path exists only where the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => coded!(code, F => unsafe { avx2::few::<F>(few) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Path::Vnni | Path::Amx => coded!(code, F => unsafe { avx512::few::<F>(few) }),
        #[cfg(target_arch = "aarch64")]
        Path::Neon => coded!(code, F => neon::few::<F>(few)),
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Path::Sdot | Path::Smmla => coded!(code, F => unsafe { neon::few_sdot::<F>(few) }),
    }
}

fn many_rows(path: Path, many: &Few) {
    let code = many.job.weight.code;
    assert_eq!(many.inputs.block(), code.block(), "inputs in the weights' blocks");
    SCRATCH.with_borrow_mut(|scratch| match path {
        // SAFETY: this path exists only where the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => coded!(code, F => unsafe { avx2_panel::many::<F>(many, scratch) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Path::Vnni => coded!(code, F => unsafe { avx512_panel::many::<F, false>(many, scratch) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Path::Amx => coded!(code, F => unsafe { avx512_panel::many::<F, true>(many, scratch) }),
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Path::Smmla => coded!(code, F => unsafe { neon_panel::many::<F>(many, scratch) }),
        _ => unreachable!("code without panels"),
    });
}

/// What becomes of a block's values in the tree of its eight: they are added to the levels in `fold`,
/// lowest first, and go to level `to` (3: the output's sum).
#[derive(Clone, Copy)]
struct Climb {
    fold: [bool; 3],
    to: usize,
}

impl Climb {
    /// Block `block` of `blocks`.
    fn of(block: usize, blocks: usize) -> Climb {
        let bit = |level: usize| block >> level & 1 == 1;
        if block + 1 == blocks {
            return Climb { fold: [bit(0), bit(1), bit(2)], to: 3 };
        }
        let to = (0..3).find(|&level| !bit(level)).unwrap_or(3);
        Climb { fold: [to > 0, to > 1, to > 2], to }
    }
}
