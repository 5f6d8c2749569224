//! Matrix products with weights in any stored format.
//!
//! `out[t, n] = sum over k of x[t, k] * w[n, k]`: a row of weights is unpacked into floats that stay
//! in the first- or second-level cache and is used for all rows of `x`. Every output is one sum over
//! sixteen lanes in rising `k` (see `lanes`), whatever the number of rows, the tile that computed it
//! or the thread: a row alone and the same row in a batch give the same bits.
//!
//! One core (`run_jobs`) serves the plain product, the product per head and the grouped product of
//! experts: they are lists of jobs over the same `x` and `out`.

use std::cell::RefCell;

use crate::isa::{Isa, isa};
use crate::lanes::{Lanes, dispatch};
use crate::pool::{Pool, SharedMut};
use crate::weight::Weight;

/// The weights of one head, for [`matmul_heads`].
#[derive(Clone, Debug)]
pub struct HeadWeight {
    /// `[outputs, inputs]`, or `[inputs, outputs]` where `transposed`.
    pub weight: Weight,
    /// Whether the stored matrix is the transposed one of the product.
    pub transposed: bool,
}

impl HeadWeight {
    /// Length of the head's input.
    pub fn inputs(&self) -> usize {
        if self.transposed { self.weight.rows() } else { self.weight.cols() }
    }

    /// Length of the head's output.
    pub fn outputs(&self) -> usize {
        if self.transposed { self.weight.cols() } else { self.weight.rows() }
    }
}

/// `out = x w^T`: `x` is `[T, w.cols]`, `out` is `[T, w.rows]`.
///
/// # Panics
/// If the sizes do not agree.
pub fn matmul(pool: &Pool, out: &mut [f32], x: &[f32], w: &Weight) {
    matmul_with(isa(), pool, out, x, w);
}

/// [`matmul`] with the kernels of `isa`.
#[doc(hidden)]
pub fn matmul_with(isa: Isa, pool: &Pool, out: &mut [f32], x: &[f32], w: &Weight) {
    let t = rows_of(x, w.cols());
    assert_eq!(out.len(), t * w.rows(), "output of {t} x {}", w.rows());
    let job = Job { weight: w, transposed: false, rows: t, x: At::rows(w.cols()), out: At::rows(w.rows()) };
    run_jobs(isa, pool, out, x, &[job]);
}

/// For each token and head, `out[t, h] = W_h x[t, h]`: `x` is `[T, heads * inputs]`, `out` is
/// `[T, heads * outputs]`.
///
/// # Panics
/// If the sizes do not agree or heads differ in shape.
pub fn matmul_heads(pool: &Pool, out: &mut [f32], x: &[f32], heads: &[HeadWeight]) {
    matmul_heads_with(isa(), pool, out, x, heads);
}

/// [`matmul_heads`] with the kernels of `isa`.
#[doc(hidden)]
pub fn matmul_heads_with(isa: Isa, pool: &Pool, out: &mut [f32], x: &[f32], heads: &[HeadWeight]) {
    let Some(first) = heads.first() else { return };
    let (inputs, outputs) = (first.inputs(), first.outputs());
    let t = rows_of(x, heads.len() * inputs);
    assert_eq!(out.len(), t * heads.len() * outputs, "output of {t} x {} x {outputs}", heads.len());
    let jobs: Vec<Job> = heads
        .iter()
        .enumerate()
        .map(|(h, head)| {
            assert!(head.inputs() == inputs && head.outputs() == outputs, "heads of one shape");
            Job {
                weight: &head.weight,
                transposed: head.transposed,
                rows: t,
                x: At { offset: h * inputs, stride: heads.len() * inputs },
                out: At { offset: h * outputs, stride: heads.len() * outputs },
            }
        })
        .collect();
    run_jobs(isa, pool, out, x, &jobs);
}

/// One product for each group of consecutive rows: group `g` is the next `groups[g].0` rows of `x`
/// (`[T, cols]`) and of `out` (`[T, rows]`) with the weights `groups[g].1`. All weights have one shape.
///
/// # Panics
/// If the sizes do not agree.
pub fn matmul_grouped(pool: &Pool, out: &mut [f32], x: &[f32], groups: &[(usize, &Weight)]) {
    matmul_grouped_with(isa(), pool, out, x, groups);
}

/// [`matmul_grouped`] with the kernels of `isa`.
#[doc(hidden)]
pub fn matmul_grouped_with(isa: Isa, pool: &Pool, out: &mut [f32], x: &[f32], groups: &[(usize, &Weight)]) {
    let Some((_, first)) = groups.first() else { return };
    let (rows, cols) = (first.rows(), first.cols());
    let mut start = 0;
    let jobs: Vec<Job> = groups
        .iter()
        .map(|&(count, weight)| {
            assert!(weight.rows() == rows && weight.cols() == cols, "experts of one shape");
            let x = At { offset: start * cols, stride: cols };
            let out = At { offset: start * rows, stride: rows };
            start += count;
            Job { weight, transposed: false, rows: count, x, out }
        })
        .collect();
    assert_eq!((x.len(), out.len()), (start * cols, start * rows), "{start} grouped rows");
    run_jobs(isa, pool, out, x, &jobs);
}

/// Where the rows of a matrix lie in a slice.
#[derive(Clone, Copy)]
struct At {
    offset: usize,
    stride: usize,
}

impl At {
    fn rows(stride: usize) -> At {
        At { offset: 0, stride }
    }

    fn row(self, t: usize) -> usize {
        self.offset + t * self.stride
    }
}

/// A product of `rows` rows with one weight.
#[derive(Clone, Copy)]
struct Job<'a> {
    weight: &'a Weight,
    transposed: bool,
    rows: usize,
    x: At,
    out: At,
}

/// Rows of x that one task of a transposed product takes.
const TRANSPOSED_ROWS: usize = 16;
/// Floats of unpacked weights that stay in the second-level cache (256 KiB).
const PANEL_FLOATS: usize = 64 * 1024;

impl Job<'_> {
    /// Output rows of the weight that one task unpacks and multiplies.
    fn panel_rows(&self) -> usize {
        let padded = self.weight.cols().next_multiple_of(16).max(16);
        (PANEL_FLOATS / padded / 8 * 8).clamp(8, 64)
    }

    fn tasks(&self) -> usize {
        match (self.rows, self.transposed) {
            (0, _) => 0,
            (_, true) => self.rows.div_ceil(TRANSPOSED_ROWS),
            (_, false) => self.weight.rows().div_ceil(self.panel_rows()),
        }
    }
}

fn rows_of(x: &[f32], width: usize) -> usize {
    assert!(width > 0 && x.len().is_multiple_of(width), "{} inputs in rows of {width}", x.len());
    x.len() / width
}

/// Runs all jobs as one parallel region. Outputs of different jobs must not overlap: the public
/// functions above build them so.
fn run_jobs(isa: Isa, pool: &Pool, out: &mut [f32], x: &[f32], jobs: &[Job]) {
    assert!(isa.is_available(), "{} kernels on a processor without them", isa.name());
    let mut first_task = Vec::with_capacity(jobs.len());
    let mut tasks = 0;
    for job in jobs {
        first_task.push(tasks);
        tasks += job.tasks();
    }
    let out = &SharedMut::new(out);
    pool.run(tasks, |task| {
        let j = first_task.partition_point(|&first| first <= task) - 1;
        let (job, part) = (&jobs[j], task - first_task[j]);
        SCRATCH.with_borrow_mut(|scratch| {
            if job.transposed {
                dispatch!(isa, transposed_task(job: &Job<'_>, part: usize, x: &[f32], out: &SharedMut<'_, f32>, scratch: &mut Vec<f32>));
            } else {
                dispatch!(isa, panel_task(job: &Job<'_>, part: usize, x: &[f32], out: &SharedMut<'_, f32>, scratch: &mut Vec<f32>));
            }
        });
    });
}

thread_local! {
    /// Unpacked weights (and padded rows of x) of the task at hand.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Outputs `part * panel_rows ..` of all rows of x.
///
/// # Safety
/// The processor has `V`'s instruction set, and no other task writes the same outputs.
#[inline(always)]
unsafe fn panel_task<V: Lanes>(job: &Job, part: usize, x: &[f32], out: &SharedMut<f32>, scratch: &mut Vec<f32>) {
    let cols = job.weight.cols();
    let padded = cols.next_multiple_of(16);
    let n0 = part * job.panel_rows();
    let n1 = (n0 + job.panel_rows()).min(job.weight.rows());
    let x_floats = if padded == cols { 0 } else { 4 * padded };
    scratch.clear();
    scratch.resize((n1 - n0) * padded + x_floats, 0.0);
    let (panel, x_padded) = scratch.split_at_mut((n1 - n0) * padded);
    // Eight rows at a time, so that with a single row of x they are still in the first-level cache.
    let unpack_all = job.rows > 1;
    if unpack_all {
        for n in n0..n1 {
            job.weight.dequantize_row(n, &mut panel[(n - n0) * padded..][..cols]);
        }
    }
    let mut t = 0;
    while t < job.rows {
        let count = (job.rows - t).min(4);
        let (source, stride) = if padded == cols {
            (&x[job.x.row(t)..], job.x.stride)
        } else {
            for c in 0..count {
                x_padded[c * padded..][..cols].copy_from_slice(&x[job.x.row(t + c)..][..cols]);
            }
            (&*x_padded, padded)
        };
        assert!(source.len() >= (count - 1) * stride + padded, "rows of x inside the slice");
        let mut n = n0;
        while n < n1 {
            let rows = (n1 - n).min(8);
            if !unpack_all {
                for r in n..n + rows {
                    job.weight.dequantize_row(r, &mut panel[(r - n0) * padded..][..cols]);
                }
            }
            let w = &panel[(n - n0) * padded..][..rows * padded];
            let mut sums = [[0.0f32; 8]; 4];
            // SAFETY: `w` holds `rows` rows and `source` `count` rows of `padded` floats (both
            // checked above); the instruction set is the caller's promise.
            unsafe { block::<V>(w.as_ptr(), rows, source.as_ptr(), stride, count, padded, &mut sums) };
            for (c, sums) in sums.iter().enumerate().take(count) {
                // SAFETY: this task alone writes these outputs (the caller's promise).
                unsafe { out.range(job.out.row(t + c) + n, rows) }.copy_from_slice(&sums[..rows]);
            }
            n += rows;
        }
        t += count;
    }
}

/// `sums[c][r] = w[r] . x[c]` for up to 8 rows of weights and 4 rows of x, each `len` floats
/// (a multiple of 16); rows of weights lie one after the other, rows of x `stride` apart.
///
/// # Safety
/// The processor has `V`'s instruction set; the pointers are valid for those rows.
#[inline(always)]
pub(crate) unsafe fn block<V: Lanes>(
    w: *const f32,
    rows: usize,
    x: *const f32,
    stride: usize,
    count: usize,
    len: usize,
    sums: &mut [[f32; 8]; 4],
) {
    // Missing rows repeat the last one, and their sums are dropped: every output is the same chain
    // of sixteen-lane additions whichever tile computes it.
    let row = |r: usize| w.wrapping_add(r.min(rows - 1) * len);
    let col = |c: usize| x.wrapping_add(c.min(count - 1) * stride);
    // SAFETY: all pointers are among the valid rows (`min` above).
    unsafe {
        match count {
            1 => {
                let s = tile::<V, 8, 1>(std::array::from_fn(row), [col(0)], len);
                (0..8).for_each(|r| sums[0][r] = s[r][0]);
            }
            2 => {
                for half in 0..2 {
                    let s = tile::<V, 4, 2>(std::array::from_fn(|r| row(half * 4 + r)), [col(0), col(1)], len);
                    (0..4).for_each(|r| (0..2).for_each(|c| sums[c][half * 4 + r] = s[r][c]));
                }
            }
            _ => {
                for half in 0..2 {
                    let s = tile::<V, 4, 4>(std::array::from_fn(|r| row(half * 4 + r)), std::array::from_fn(col), len);
                    (0..4).for_each(|r| (0..4).for_each(|c| sums[c][half * 4 + r] = s[r][c]));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize, const C: usize>(
    w: [*const f32; R],
    x: [*const f32; C],
    len: usize,
) -> [[f32; C]; R] {
    // SAFETY: the caller's pointers are valid for `len` floats, a multiple of sixteen.
    unsafe {
        let mut acc = [[V::splat(0.0); C]; R];
        let mut k = 0;
        while k < len {
            let xs: [V; C] = std::array::from_fn(|c| V::load(x[c].add(k)));
            for r in 0..R {
                let wr = V::load(w[r].add(k));
                for c in 0..C {
                    acc[r][c] = wr.mul_add(xs[c], acc[r][c]);
                }
            }
            k += 16;
        }
        std::array::from_fn(|r| std::array::from_fn(|c| acc[r][c].sum()))
    }
}

/// Rows `part * TRANSPOSED_ROWS ..` of `out[t, :] = sum over n of x[t, n] * w[n, :]`, in rising `n`.
///
/// # Safety
/// As `panel_task`.
#[inline(always)]
unsafe fn transposed_task<V: Lanes>(job: &Job, part: usize, x: &[f32], out: &SharedMut<f32>, scratch: &mut Vec<f32>) {
    let width = job.weight.cols();
    let t0 = part * TRANSPOSED_ROWS;
    let t1 = (t0 + TRANSPOSED_ROWS).min(job.rows);
    scratch.clear();
    scratch.resize(width, 0.0);
    for t in t0..t1 {
        // SAFETY: this task alone writes these rows (the caller's promise).
        unsafe { out.range(job.out.row(t), width) }.fill(0.0);
    }
    for n in 0..job.weight.rows() {
        job.weight.dequantize_row(n, scratch);
        for t in t0..t1 {
            let scale = x[job.x.row(t) + n];
            // SAFETY: as above; the instruction set is the caller's promise.
            unsafe { axpy::<V>(out.range(job.out.row(t), width), scratch, scale) };
        }
    }
}

/// `out += scale * x`, element by element.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn axpy<V: Lanes>(out: &mut [f32], x: &[f32], scale: f32) {
    assert_eq!(out.len(), x.len());
    let whole = out.len() / 16 * 16;
    // SAFETY: `whole` is inside both slices; the instruction set is the caller's promise.
    unsafe {
        let s = V::splat(scale);
        let mut i = 0;
        while i < whole {
            V::load(x.as_ptr().add(i)).mul_add(s, V::load(out.as_ptr().add(i))).store(out.as_mut_ptr().add(i));
            i += 16;
        }
        // The rest goes through a padded vector: the same arithmetic as a whole one.
        if whole < out.len() {
            let rest = out.len() - whole;
            let (mut a, mut b) = ([0.0f32; 16], [0.0f32; 16]);
            a[..rest].copy_from_slice(&x[whole..]);
            b[..rest].copy_from_slice(&out[whole..]);
            V::load(a.as_ptr()).mul_add(s, V::load(b.as_ptr())).store(b.as_mut_ptr());
            out[whole..].copy_from_slice(&b[..rest]);
        }
    }
}
