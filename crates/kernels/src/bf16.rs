//! Products of inputs rounded to bfloat16 with bfloat16 weights, as they lie in the file.
//!
//! An output keeps sixteen partial sums. Of each thirty-two inputs, pair `i` (inputs `2i` and `2i + 1`)
//! goes to sum `i`, its odd product before the even one; the sums are added as the tree of
//! [`Lanes`](crate::lanes::Lanes). Products of bfloat16 are exact in f32, so this is what processors'
//! own dot products of pairs give ([`run`]); elsewhere the elements are put in that order as floats
//! ([`in_order`]) and go through the same loops as exact products (`matmul`). A row alone and the same
//! row among many give the same bits.

use crate::gemm::{bf16_to_f32, f32_to_bf16};

/// Elements that the order of the sums moves about among themselves.
pub(crate) const BLOCK: usize = 32;

/// To the nearest bfloat16, as a float.
#[inline(always)]
pub(crate) fn rounded(v: f32) -> f32 {
    bf16_to_f32(f32_to_bf16(v))
}

/// Rounded floats in the order of the sums: of each thirty-two the odd ones, then the even ones.
#[inline(always)] // for the caller's instruction set
pub(crate) fn in_order(row: &mut [f32]) {
    for block in row.as_chunks_mut::<BLOCK>().0 {
        let from = *block;
        for i in 0..BLOCK / 2 {
            block[i] = rounded(from[2 * i + 1]);
            block[BLOCK / 2 + i] = rounded(from[2 * i]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use dots::{Job, run};

#[cfg(target_arch = "x86_64")]
mod dots {
    use std::arch::x86_64::*;
    use std::cell::RefCell;
    use std::ops::Range;

    use super::BLOCK;
    use crate::gemm::f32_to_bf16;
    use crate::lanes::{Avx512, Lanes};
    use crate::pool::{Pool, SharedMut};

    /// A product of some rows of inputs with a matrix of bfloat16.
    pub(crate) struct Job<'a> {
        /// Bytes of the weights, rows `stride` bytes apart.
        pub(crate) data: &'a [u8],
        pub(crate) stride: usize,
        pub(crate) outputs: usize,
        pub(crate) cols: usize,
        pub(crate) rows: usize,
        /// Row `t` of the inputs is at `x.0 + t * x.1`, of the outputs at `out.0 + t * out.1`.
        pub(crate) x: (usize, usize),
        pub(crate) out: (usize, usize),
    }

    /// Thirty-two rounded inputs, where loads never cross a line of the cache.
    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    struct Line([u16; BLOCK]);

    /// Outputs of a tile, and outputs of a tile of one row of inputs.
    const TILE: usize = 4;
    const TILE_ALONE: usize = 8;
    /// Rows of inputs of a tile.
    const COLUMNS: usize = 6;
    /// Inputs that are multiplied at a time: so many of a tile's rows stay in the first-level cache.
    const PIECE: usize = 2048;
    /// Bytes of weights that stay in the second-level cache while rows of inputs stream past them.
    const PANEL_BYTES: usize = 384 << 10;
    /// The most outputs of a task.
    const TASK_OUTPUTS: usize = 96;
    /// Multiplications below which a task is not worth another thread's attention.
    const TASK_WORK: usize = 64 * 1024;
    /// Floats that one thread rounds as fast as several do.
    const ALONE: usize = 16 * 1024;

    thread_local! {
        static INPUTS: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
        static SUMS: RefCell<Vec<[f32; 16]>> = const { RefCell::new(Vec::new()) };
    }

    /// Runs all jobs. Outputs of different jobs must not overlap.
    ///
    /// # Panics
    /// If weights, inputs or outputs are shorter than the jobs say.
    ///
    /// # Safety
    /// The processor has AVX512-BF16.
    pub(crate) unsafe fn run(pool: &Pool, out: &SharedMut<f32>, x: &[f32], jobs: &[Job]) {
        let mut inputs = INPUTS.take();
        // SAFETY: the caller's promise.
        let first_lines = unsafe { round(pool, x, jobs, &mut inputs) };
        let all: usize = jobs.iter().filter(|job| job.rows > 0).map(|job| job.outputs).sum();
        let fair = all.div_ceil(4 * pool.threads());
        let mut first_tasks = Vec::with_capacity(jobs.len());
        let mut tasks = 0;
        for job in jobs {
            let row_bytes = 2 * job.cols;
            assert!(job.outputs == 0 || job.data.len() >= (job.outputs - 1) * job.stride + row_bytes, "whole rows");
            let most = (PANEL_BYTES / row_bytes.max(1)).clamp(TILE_ALONE, TASK_OUTPUTS);
            let least = TASK_WORK.div_ceil(job.cols * job.rows.max(1));
            let each = fair.min(most).max(least).next_multiple_of(TILE_ALONE);
            first_tasks.push((tasks, each));
            tasks += if job.rows == 0 { 0 } else { job.outputs.div_ceil(each) };
        }
        pool.run_streams(tasks, |task| {
            let at = first_tasks.partition_point(|&(first, _)| first <= task) - 1;
            let ((first, each), job) = (first_tasks[at], &jobs[at]);
            let n = (task - first) * each..((task - first + 1) * each).min(job.outputs);
            let inputs = &inputs[first_lines[at]..][..job.rows * job.cols.div_ceil(BLOCK)];
            // SAFETY: the caller's promise; outputs of jobs do not overlap, and these are this task's.
            SUMS.with_borrow_mut(|sums| unsafe { outputs(job, n, inputs, sums, out) });
        });
        INPUTS.set(inputs);
    }

    /// Rounds the rows of all jobs, each padded with zeros to whole lines. Returns each job's first line.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn round(pool: &Pool, x: &[f32], jobs: &[Job], inputs: &mut Vec<Line>) -> Vec<usize> {
        let mut firsts = Vec::with_capacity(jobs.len());
        let mut rows = Vec::new();
        let mut lines = 0;
        for job in jobs {
            firsts.push(lines);
            let width = job.cols.div_ceil(BLOCK);
            rows.extend((0..job.rows).map(|t| (job.x.0 + t * job.x.1, job.cols, lines + t * width)));
            lines += job.rows * width;
        }
        if inputs.len() < lines {
            inputs.resize(lines, Line([0; BLOCK]));
        }
        let shared = SharedMut::new(inputs.as_mut_slice());
        let one = |&(from, cols, first): &(usize, usize, usize)| {
            // SAFETY: rows have lines of their own; the instruction set is the caller's promise.
            unsafe { round_row(&x[from..from + cols], shared.range(first, cols.div_ceil(BLOCK))) };
        };
        if lines * BLOCK <= ALONE {
            rows.iter().for_each(one);
        } else {
            let each = rows.len().div_ceil(4 * pool.threads()).clamp(1, 16);
            let parts: Vec<_> = rows.chunks(each).collect();
            pool.run(parts.len(), |part| parts[part].iter().for_each(one));
        }
        firsts
    }

    /// # Safety
    /// The processor has AVX-512.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn round_row(x: &[f32], to: &mut [Line]) {
        let (whole, rest) = x.as_chunks::<BLOCK>();
        for (to, x) in to.iter_mut().zip(whole) {
            to.0 = x.map(f32_to_bf16);
        }
        if !rest.is_empty() {
            let mut last = [0; BLOCK];
            last.iter_mut().zip(rest).for_each(|(to, &v)| *to = f32_to_bf16(v));
            to[whole.len()].0 = last;
        }
    }

    /// Outputs `n` of all rows of a job.
    ///
    /// # Safety
    /// As [`run`]; no other task writes these outputs.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn outputs(job: &Job, n: Range<usize>, inputs: &[Line], sums: &mut Vec<[f32; 16]>, out: &SharedMut<f32>) {
        let (width, padded) = (job.cols.div_ceil(BLOCK), n.len().next_multiple_of(TILE_ALONE));
        if sums.len() < padded * COLUMNS {
            sums.resize(padded * COLUMNS, [0.0; 16]);
        }
        for t in (0..job.rows).step_by(COLUMNS) {
            let count = (job.rows - t).min(COLUMNS);
            let x: [*const Line; COLUMNS] = std::array::from_fn(|c| inputs[(t + c.min(count - 1)) * width..].as_ptr());
            for from in (0..job.cols).step_by(PIECE) {
                let piece = from..(from + PIECE).min(job.cols);
                // SAFETY: the rows are there (checked in `run`), and so is room for the sums.
                unsafe {
                    match count {
                        1 => piece_sums::<TILE_ALONE, 1>(job, &n, piece, &x, sums, padded),
                        2 => piece_sums::<TILE, 2>(job, &n, piece, &x, sums, padded),
                        3 => piece_sums::<TILE, 3>(job, &n, piece, &x, sums, padded),
                        4 => piece_sums::<TILE, 4>(job, &n, piece, &x, sums, padded),
                        5 => piece_sums::<TILE, 5>(job, &n, piece, &x, sums, padded),
                        _ => piece_sums::<TILE, COLUMNS>(job, &n, piece, &x, sums, padded),
                    }
                }
            }
            for (c, sums) in sums.chunks_exact(padded).take(count).enumerate() {
                // SAFETY: this task alone writes these outputs (the caller's promise).
                let to = unsafe { out.range(job.out.0 + (t + c) * job.out.1 + n.start, n.len()) };
                // SAFETY: the instruction set is the caller's promise.
                to.iter_mut().zip(sums).for_each(|(to, sums)| *to = unsafe { Avx512::load(sums.as_ptr()).sum() });
            }
        }
    }

    /// Adds inputs `piece` to the partial sums of outputs `n`, or begins them: output `r` of row `c` is at
    /// `sums[c * padded + r]`.
    ///
    /// # Safety
    /// The processor has AVX512-BF16, the rows of weights and inputs are there, and `sums` has room for
    /// `C * padded`.
    #[inline(always)]
    unsafe fn piece_sums<const R: usize, const C: usize>(
        job: &Job,
        n: &Range<usize>,
        piece: Range<usize>,
        x: &[*const Line; COLUMNS],
        sums: &mut [[f32; 16]],
        padded: usize,
    ) {
        debug_assert!(sums.len() >= C * padded && padded.is_multiple_of(R));
        for r in (0..n.len()).step_by(R) {
            // Rows past the last one repeat it; their sums are not used.
            let w: [*const u8; R] = std::array::from_fn(|i| {
                let row = n.start + (r + i).min(n.len() - 1);
                job.data.as_ptr().wrapping_add(row * job.stride + 2 * piece.start)
            });
            let x: [*const Line; C] = std::array::from_fn(|c| x[c].wrapping_add(piece.start / BLOCK));
            let to = sums.as_mut_ptr().wrapping_add(r);
            // SAFETY: the caller's promise.
            unsafe { tile::<R, C>(w, x, piece.len(), R * job.stride, to, padded, piece.start == 0) };
        }
    }

    /// # Safety
    /// As [`piece_sums`]; `len` inputs of each row.
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(
        w: [*const u8; R],
        x: [*const Line; C],
        len: usize,
        ahead: usize,
        to: *mut [f32; 16],
        padded: usize,
        first: bool,
    ) {
        // SAFETY: the caller's promise; a prefetch reads nothing.
        unsafe {
            let at = |r: usize, c: usize| to.add(c * padded + r).cast::<f32>();
            let mut sums = [[_mm512_setzero_ps(); C]; R];
            if !first {
                for r in 0..R {
                    for c in 0..C {
                        sums[r][c] = _mm512_loadu_ps(at(r, c));
                    }
                }
            }
            for step in 0..len / BLOCK {
                let xs: [__m512bh; C] = std::array::from_fn(|c| inputs(x[c].add(step)));
                for r in 0..R {
                    let from = w[r].add(64 * step);
                    if C == 1 {
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(ahead).cast());
                    }
                    let wr = std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast()));
                    for c in 0..C {
                        sums[r][c] = _mm512_dpbf16_ps(sums[r][c], wr, xs[c]);
                    }
                }
            }
            let rest = len % BLOCK;
            if rest > 0 {
                let step = len / BLOCK;
                let there = (1u32 << rest) - 1;
                for r in 0..R {
                    let wr = _mm512_maskz_loadu_epi16(there, w[r].add(64 * step).cast());
                    let wr = std::mem::transmute::<__m512i, __m512bh>(wr);
                    for c in 0..C {
                        sums[r][c] = _mm512_dpbf16_ps(sums[r][c], wr, inputs(x[c].add(step)));
                    }
                }
            }
            for r in 0..R {
                for c in 0..C {
                    _mm512_storeu_ps(at(r, c), sums[r][c]);
                }
            }
        }
    }

    /// # Safety
    /// The processor has AVX-512; a line at `from`.
    #[inline(always)]
    unsafe fn inputs(from: *const Line) -> __m512bh {
        // SAFETY: the caller's promise; both are 64 bytes of plain numbers.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_load_si512(from.cast())) }
    }
}
