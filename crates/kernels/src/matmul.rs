//! Matrix products with weights in any stored format.
//!
//! `out[t, n] = sum over k of x[t, k] * w[n, k]`: rows of weights are unpacked into floats that stay
//! in the first- or second-level cache and are used for all rows of `x`. Every output is one sum over
//! sixteen lanes in rising `k` (see `lanes`), whatever the number of rows, the tile that computed it
//! or the thread: a row alone and the same row in a batch give the same bits.
//!
//! One core (`run_jobs`) serves the plain product, the product per head and the grouped product of
//! experts: they are lists of jobs over the same `x` and `out`. Jobs whose inputs are rounded go to `int`
//! (quantised weights) or `bf16` where the processor has dot products of bfloat16.

use std::cell::RefCell;
use std::ops::Range;

use crate::bf16;
use crate::gemm::{self, Kernels};
use crate::int::{self, IntJob};
use crate::isa::{Isa, isa};
use crate::lanes::{Lanes, dispatch};
use crate::pool::{Pool, SharedMut};
use crate::tile::{ROW_STEP, Rows, axpy, multiply, room};
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
    if gemm::forward(Kernels::of(isa), pool, out, x, w) {
        return;
    }
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
    if gemm::forward_heads(Kernels::of(isa), pool, out, x, heads) {
        return;
    }
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
    if gemm::forward_grouped(Kernels::of(isa), pool, out, x, groups) {
        return;
    }
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

/// Products of the same `x` with several weights: `outs[i]` is [`matmul`] with `weights[i]`. Integer
/// products read `x` and start the threads once for all of them.
///
/// # Panics
/// If the sizes do not agree.
pub fn matmul_many(pool: &Pool, outs: &mut [&mut [f32]], x: &[f32], weights: &[&Weight]) {
    assert_eq!(outs.len(), weights.len(), "an output for each weight");
    if !weights.iter().all(|w| w.coded().is_some()) {
        outs.iter_mut().zip(weights).for_each(|(out, w)| matmul(pool, out, x, w));
        return;
    }
    let rows = weights.first().map_or(0, |w| rows_of(x, w.cols()));
    let groups: Vec<Vec<(usize, &Weight)>> = weights.iter().map(|&w| vec![(rows, w)]).collect();
    let groups: Vec<&[(usize, &Weight)]> = groups.iter().map(Vec::as_slice).collect();
    matmul_grouped_many(pool, outs, x, &groups);
}

/// The same for grouped products: `outs[i]` is [`matmul_grouped`] with `groups[i]`.
///
/// # Panics
/// If the sizes do not agree.
pub fn matmul_grouped_many(pool: &Pool, outs: &mut [&mut [f32]], x: &[f32], groups: &[&[(usize, &Weight)]]) {
    assert_eq!(outs.len(), groups.len(), "an output for each list of weights");
    let all = || groups.iter().flat_map(|groups| groups.iter());
    let cols = all().next().map_or(0, |(_, w)| w.cols());
    if cols == 0 || !all().all(|(_, w)| w.coded().is_some() && w.cols() == cols) {
        outs.iter_mut().zip(groups).for_each(|(out, groups)| matmul_grouped(pool, out, x, groups));
        return;
    }
    let rows = rows_of(x, cols);
    for (out, groups) in outs.iter().zip(groups) {
        let (count, size) = groups.iter().fold((0, 0), |(count, size), (n, w)| (count + n, size + n * w.rows()));
        assert_eq!((count, out.len()), (rows, size), "rows and outputs of a list of weights");
    }
    let outs: Vec<Out> = outs.iter_mut().map(|out| Out::new(out)).collect();
    let mut jobs = Vec::new();
    for (out, groups) in outs.iter().zip(groups) {
        let (mut first, mut offset) = (0, 0);
        for &(count, weight) in groups.iter() {
            let weight = weight.coded().expect("looked at above");
            let stride = weight.rows;
            jobs.push(IntJob { weight, rows: count, first, step: 1, out, offset, stride });
            (first, offset) = (first + count, offset + count * stride);
        }
    }
    int::run(isa(), pool, x, cols, &jobs);
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

impl<'a> Job<'a> {
    /// The job for integer products, where its weight is for such.
    fn coded(&self, out: &'a Out<'a>) -> Option<IntJob<'a>> {
        let weight = self.weight.coded().filter(|_| !self.transposed)?;
        let (first, step) = (self.x.offset / weight.cols, self.x.stride / weight.cols);
        let At { offset, stride } = self.out;
        Some(IntJob { weight, rows: self.rows, first, step, out, offset, stride })
    }

    /// Whether inputs are rounded to bfloat16.
    fn rounded(&self) -> bool {
        !self.transposed && self.weight.bf16_rows().is_some()
    }

    /// The job for dot products of bfloat16, where its weight is for such.
    #[cfg(target_arch = "x86_64")]
    fn bf16(&self) -> Option<bf16::Job<'a>> {
        let (data, stride) = self.weight.bf16_rows()?;
        let (outputs, cols, rows) = (self.weight.rows(), self.weight.cols(), self.rows);
        let (x, out) = ((self.x.offset, self.x.stride), (self.out.offset, self.out.stride));
        Some(bf16::Job { data, stride, outputs, cols, rows, x, out })
    }

    /// Elements that a row's piece is filled up to, with zeros: whole vectors, or whole blocks of the order of
    /// rounded products.
    fn step(&self) -> usize {
        if self.rounded() { bf16::BLOCK } else { 16 }
    }
}

/// Rows of x that one task of a transposed product takes.
const TRANSPOSED_ROWS: usize = 16;
/// Rows of x up to which weights are unpacked piece by piece, each used at once for all rows of x.
const FEW_ROWS: usize = 16;
/// Elements of a row that are multiplied at a time: whole blocks of every format, and a tile's rows
/// of so many floats fit the first-level cache.
const PIECE: usize = 512;
/// Floats of unpacked weights that stay in the second-level cache (384 KiB).
const PANEL_FLOATS: usize = 96 * 1024;
/// The most rows of weights in a task.
const TASK_ROWS: usize = 48;
/// Multiplications below which a task is not worth another thread's attention.
const TASK_WORK: usize = 32 * 1024;

/// A job with the number of weight rows that one task of it takes, and its first task.
struct Planned<'a> {
    job: &'a Job<'a>,
    rows: usize,
    first_task: usize,
}

/// Cuts jobs into tasks: large enough to be worth handing out, small enough that threads end
/// together. Returns the number of tasks. No result depends on the cut.
fn plan<'a>(jobs: &'a [Job<'a>], threads: usize) -> (Vec<Planned<'a>>, usize) {
    let all_rows: usize = jobs.iter().filter(|job| job.rows > 0).map(|job| job.weight.rows()).sum();
    let fair = all_rows.div_ceil(4 * threads).next_multiple_of(ROW_STEP);
    let mut tasks = 0;
    let mut planned = Vec::with_capacity(jobs.len());
    for job in jobs {
        let pieces = job.weight.cols().div_ceil(PIECE) * PIECE;
        let most =
            if job.rows <= FEW_ROWS { TASK_ROWS } else { (PANEL_FLOATS / pieces).clamp(12, TASK_ROWS) / 12 * 12 };
        // Work that is not worth a second thread stays in one task, however many rows that is.
        let least = TASK_WORK.div_ceil(job.weight.cols() * (job.rows + 3)).next_multiple_of(ROW_STEP);
        let rows = if job.rows <= FEW_ROWS { fair.min(most).max(least) } else { fair.max(least).min(most) };
        planned.push(Planned { job, rows, first_task: tasks });
        tasks += match (job.rows, job.transposed) {
            (0, _) => 0,
            (_, true) => job.rows.div_ceil(TRANSPOSED_ROWS),
            (_, false) => job.weight.rows().div_ceil(rows),
        };
    }
    (planned, tasks)
}

fn rows_of(x: &[f32], width: usize) -> usize {
    assert!(width > 0 && x.len().is_multiple_of(width), "{} inputs in rows of {width}", x.len());
    x.len() / width
}

/// Runs all jobs, of weights with the same number of columns where they are not transposed. Outputs
/// of different jobs must not overlap: the public functions above build them so.
fn run_jobs(isa: Isa, pool: &Pool, out: &mut [f32], x: &[f32], jobs: &[Job]) {
    assert!(isa.is_available(), "{} kernels on a processor without them", isa.name());
    let out = &Out::new(out);
    let (in_integers, in_floats): (Vec<Job>, Vec<Job>) = jobs.iter().partition(|job| job.coded(out).is_some());
    if let Some(job) = in_integers.first() {
        let jobs: Vec<IntJob> = in_integers.iter().filter_map(|job| job.coded(out)).collect();
        int::run(isa, pool, x, job.weight.cols(), &jobs);
    }
    #[cfg(target_arch = "x86_64")]
    if matches!(Kernels::of(isa), Kernels::Avx512Bf16 | Kernels::Amx) {
        let (in_bf16, in_floats): (Vec<Job>, Vec<Job>) = in_floats.iter().partition(|job| job.rounded());
        let in_bf16: Vec<bf16::Job> = in_bf16.iter().filter_map(Job::bf16).collect();
        if !in_bf16.is_empty() {
            // SAFETY: these kernels are of processors that have AVX512-BF16.
            unsafe { bf16::run(pool, out, x, &in_bf16) };
        }
        return run_float_jobs(isa, pool, out, x, &in_floats);
    }
    run_float_jobs(isa, pool, out, x, &in_floats);
}

/// [`run_jobs`] of weights as floats, in one parallel region.
fn run_float_jobs(isa: Isa, pool: &Pool, out: &Out, x: &[f32], jobs: &[Job]) {
    if jobs.is_empty() {
        return;
    }
    let (planned, tasks) = plan(jobs, pool.threads());
    pool.run_streams(tasks, |task| {
        let plan = &planned[planned.partition_point(|plan| plan.first_task <= task) - 1];
        let (job, part) = (plan.job, task - plan.first_task);
        SCRATCH.with_borrow_mut(|s| {
            if job.transposed {
                let t = part * TRANSPOSED_ROWS..((part + 1) * TRANSPOSED_ROWS).min(job.rows);
                dispatch!(
                    isa,
                    transposed_task(isa: Isa, job: &Job<'_>, t: Range<usize>, x: &[f32], out: &Out<'_>, s: &mut Scratch)
                );
                return;
            }
            let n = part * plan.rows..((part + 1) * plan.rows).min(job.weight.rows());
            if job.rows <= FEW_ROWS {
                dispatch!(
                    isa,
                    few_rows_task(isa: Isa, job: &Job<'_>, n: Range<usize>, x: &[f32], out: &Out<'_>, s: &mut Scratch)
                );
            } else {
                dispatch!(
                    isa,
                    many_rows_task(isa: Isa, job: &Job<'_>, n: Range<usize>, x: &[f32], out: &Out<'_>, s: &mut Scratch)
                );
            }
        });
    });
}

/// The outputs of all tasks of a call.
type Out<'a> = SharedMut<'a, f32>;

/// Memory of a thread for the task at hand. Only what a task has written does it read.
#[derive(Default)]
struct Scratch {
    /// Unpacked weights, `[pieces, rows, PIECE]`.
    w: Vec<f32>,
    /// Rows of x, `[pieces, rows, PIECE]`.
    x: Vec<f32>,
    /// Partial sums, sixteen for each output.
    acc: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// The piece of a job's rows that begins at column `k`: its end, and its length with the zeros that fill up the
/// last vector.
fn piece(k: usize, job: &Job) -> (usize, usize) {
    let end = (k + PIECE).min(job.weight.cols());
    (end, (end - k).next_multiple_of(job.step()))
}

/// Rows `n` of the weight as `[rows, PIECE]` floats: columns `k ..` with zeros after the last one.
fn unpack_piece(isa: Isa, job: &Job, n: Range<usize>, k: usize, to: &mut [f32]) {
    let (end, len) = piece(k, job);
    if len > end - k {
        to.chunks_exact_mut(PIECE).for_each(|row| row[end - k..len].fill(0.0));
    }
    job.weight.unpack(isa, n, k..end, to, PIECE);
    if job.rounded() {
        to.chunks_exact_mut(PIECE).for_each(|row| bf16::in_order(&mut row[..len]));
    }
}

/// Rows `t` of x as `[pieces, rows, PIECE]`, with zeros after the last column.
fn pack_x(job: &Job, t: Range<usize>, x: &[f32], to: &mut [f32]) {
    let cols = job.weight.cols();
    for (k, to) in (0..cols).step_by(PIECE).zip(to.chunks_exact_mut(t.len() * PIECE)) {
        let (end, len) = piece(k, job);
        for (row, to) in t.clone().zip(to.chunks_exact_mut(PIECE)) {
            to[..end - k].copy_from_slice(&x[job.x.row(row)..][k..end]);
            to[end - k..len].fill(0.0);
            if job.rounded() {
                bf16::in_order(&mut to[..len]);
            }
        }
    }
}

/// Adds up the partial sums of outputs `t`, `n`: `acc` is `[t.len(), stride]`.
///
/// # Safety
/// The processor has `V`'s instruction set, no other task writes these outputs, and `acc` was written.
#[inline(always)]
unsafe fn write_sums<V: Lanes>(job: &Job, t: Range<usize>, n: Range<usize>, acc: &[f32], stride: usize, out: &Out) {
    for (t, acc) in t.zip(acc.chunks_exact(stride)) {
        // SAFETY: this task alone writes these outputs (the caller's promise).
        let to = unsafe { out.range(job.out.row(t) + n.start, n.len()) };
        for (to, lanes) in to.iter_mut().zip(acc.as_chunks::<16>().0) {
            // SAFETY: sixteen floats; the instruction set is the caller's promise.
            *to = unsafe { V::load(lanes.as_ptr()).sum() };
        }
    }
}

/// Outputs `n` of all rows of x, of which there are few: a piece of some rows of weights is unpacked
/// into the first-level cache and multiplied with every row of x before the next one.
///
/// # Safety
/// The processor has `V`'s instruction set, and no other task writes the same outputs.
#[inline(always)]
unsafe fn few_rows_task<V: Lanes>(isa: Isa, job: &Job, n: Range<usize>, x: &[f32], out: &Out, s: &mut Scratch) {
    const STRIDE: usize = ROW_STEP * 16;
    let (cols, t) = (job.weight.cols(), job.rows);
    let group = if t == 1 { 8 } else { 12 };
    let xs = room(&mut s.x, cols.div_ceil(PIECE) * PIECE * t);
    pack_x(job, 0..t, x, xs);
    let acc = room(&mut s.acc, t * STRIDE);
    for first in n.clone().step_by(group) {
        let part = first..(first + group).min(n.end);
        let w = room(&mut s.w, part.len() * PIECE);
        for k in (0..cols).step_by(PIECE) {
            unpack_piece(isa, job, part.clone(), k, w);
            let (end, len) = piece(k, job);
            // The pieces lie apart, which the processor does not foresee.
            job.weight.prefetch(part.end..part.end + group, k..end);
            let x = &xs[k * t..][..t * PIECE];
            for c in (0..t).step_by(V::TILE.1) {
                let count = (t - c).min(V::TILE.1);
                let w = Rows { start: w.as_ptr(), stride: PIECE, count: part.len() };
                let x = Rows { start: x[c * PIECE..].as_ptr(), stride: PIECE, count };
                let acc = acc[c * STRIDE..][..count * STRIDE].as_mut_ptr();
                // SAFETY: `w`, `x` and `acc` hold these rows, columns and partial sums; the
                // instruction set is the caller's promise.
                unsafe { multiply::<V>(w, x, len, acc, STRIDE, k == 0) };
            }
        }
        // SAFETY: the caller's promises.
        unsafe { write_sums::<V>(job, 0..t, part, acc, STRIDE, out) };
    }
}

/// Outputs `n` of all rows of x, of which there are many: the weights are unpacked once into the
/// second-level cache, and for each few rows of x go through the first-level cache piece by piece.
///
/// # Safety
/// As [`few_rows_task`].
#[inline(always)]
unsafe fn many_rows_task<V: Lanes>(isa: Isa, job: &Job, n: Range<usize>, x: &[f32], out: &Out, s: &mut Scratch) {
    let (cols, rows) = (job.weight.cols(), n.len());
    let pieces = cols.div_ceil(PIECE);
    let stride = rows.next_multiple_of(ROW_STEP) * 16;
    let panel = room(&mut s.w, pieces * rows * PIECE);
    for (k, to) in (0..cols).step_by(PIECE).zip(panel.chunks_exact_mut(rows * PIECE)) {
        unpack_piece(isa, job, n.clone(), k, to);
    }
    let acc = room(&mut s.acc, V::TILE.1 * stride);
    for t in (0..job.rows).step_by(V::TILE.1) {
        let count = (job.rows - t).min(V::TILE.1);
        let xs = room(&mut s.x, pieces * count * PIECE);
        pack_x(job, t..t + count, x, xs);
        for k in (0..cols).step_by(PIECE) {
            let (_, len) = piece(k, job);
            let w = Rows { start: panel[k * rows..][..rows * PIECE].as_ptr(), stride: PIECE, count: rows };
            let x = Rows { start: xs[k * count..][..count * PIECE].as_ptr(), stride: PIECE, count };
            // SAFETY: `w`, `x` and `acc` hold these rows, columns and partial sums; the instruction
            // set is the caller's promise.
            unsafe { multiply::<V>(w, x, len, acc.as_mut_ptr(), stride, k == 0) };
        }
        // SAFETY: the caller's promises.
        unsafe { write_sums::<V>(job, t..t + count, n.clone(), acc, stride, out) };
    }
}

/// Rows `t` of `out[t, :] = sum over n of x[t, n] * w[n, :]`, in rising `n`.
///
/// # Safety
/// As [`few_rows_task`].
#[inline(always)]
unsafe fn transposed_task<V: Lanes>(isa: Isa, job: &Job, t: Range<usize>, x: &[f32], out: &Out, s: &mut Scratch) {
    const TOGETHER: usize = 4;
    let (rows, width) = (job.weight.rows(), job.weight.cols());
    // SAFETY: this task alone writes these rows (the caller's promise), and no two live at once.
    let row = |t: usize| unsafe { out.range(job.out.row(t), width) };
    t.clone().for_each(|t| row(t).fill(0.0));
    for n in (0..rows).step_by(TOGETHER) {
        let count = (rows - n).min(TOGETHER);
        let w = room(&mut s.w, TOGETHER * width);
        job.weight.unpack(isa, n..n + count, 0..width, w, width);
        let w = |i: usize| &w[i * width..(i + 1) * width];
        for t in t.clone() {
            let scale = &x[job.x.row(t) + n..][..count];
            // SAFETY: the instruction set is the caller's promise.
            unsafe {
                match *scale {
                    [a, b, c, d] => axpy::<V, 4>(row(t), std::array::from_fn(w), [a, b, c, d]),
                    _ => (0..count).for_each(|i| axpy::<V, 1>(row(t), [w(i)], [scale[i]])),
                }
            }
        }
    }
}
