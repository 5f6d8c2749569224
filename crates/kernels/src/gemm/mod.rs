//! Products of many rows with packed matrices: the forward pass and both backward products of
//! training.
//!
//! The inner kernel is an outer product: a few rows of inputs times a panel of sixteen outputs, one
//! register of sums for each row. Every output is one chain of additions in rising input (for
//! bfloat16, the odd input of a pair before the even one, as the processor's instruction does it).
//! The chain does not depend on the tile, the block or the thread, so one row alone and the same row
//! among many give the same bits.

/// Calls the generic function `$f` compiled for the instruction set of `$kernels` and `$precision`.
macro_rules! dispatch {
    ($kernels:expr, $precision:expr, $f:ident ( $($arg:ident : $type:ty),* $(,)? )) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2<V: micro::Micro>($($arg: $type),*) {
            // SAFETY: this function is only called where the set was detected; the rest is the caller's.
            unsafe { $f::<V>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512<V: micro::Micro>($($arg: $type),*) {
            // SAFETY: as above.
            unsafe { $f::<V>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512_bf16<V: micro::Micro>($($arg: $type),*) {
            // SAFETY: as above.
            unsafe { $f::<V>($($arg),*) }
        }
        // SAFETY: `is_available` holds wherever kernels are chosen, tasks write disjoint outputs, and the
        // type has the precision of the operands.
        unsafe {
            match ($kernels, $precision) {
                (Kernels::Portable, Precision::F32 | Precision::Fp8) => $f::<micro::PortableF32>($($arg),*),
                (Kernels::Portable, Precision::Bf16) => $f::<micro::PortableBf16>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                (Kernels::Avx2, Precision::F32 | Precision::Fp8) => avx2::<micro::Avx2F32>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                (Kernels::Avx2, Precision::Bf16) => avx2::<micro::Avx2Bf16>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                (_, Precision::F32 | Precision::Fp8) => avx512::<micro::Avx512F32>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                (Kernels::Avx512, Precision::Bf16) => avx512::<micro::Avx512RoundedBf16>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                (Kernels::Avx512Bf16 | Kernels::Amx, Precision::Bf16) => avx512_bf16::<micro::Avx512Bf16>($($arg),*),
                #[cfg(not(target_arch = "x86_64"))]
                _ => unreachable!("kernels of other processors are refused above"),
            }
        }
    }};
}

#[cfg(target_arch = "x86_64")]
mod amx;
mod micro;
mod packed;
mod tasks;

use std::cell::RefCell;

use crate::isa::Isa;
use crate::matmul::HeadWeight;
use crate::pool::{Pool, SharedMut};
use crate::train::panels::{PanelsView, Precision};
use crate::weight::Weight;

pub(crate) use micro::{bf16_to_f32, f32_to_bf16};
use packed::PANEL;
pub(crate) use packed::{Matrix, Packed};
use tasks::{OUTER_MAX, PANELS_PUT_ASIDE, PANELS_TOGETHER, ROWS_MAX, Scratch, outer_task, product_task};

/// Rows (tokens) whose products are summed before they are added to a gradient.
pub const SUM_BLOCK: usize = 256;

/// Which micro-kernels a product uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Plain Rust: the specification.
    Portable,
    /// AVX2 with FMA; bfloat16 is multiplied as floats.
    Avx2,
    /// AVX-512; bfloat16 is multiplied as floats.
    Avx512,
    /// AVX-512 with dot products of bfloat16 pairs.
    Avx512Bf16,
    /// bfloat16 on the tiles of AMX, in an order of its own; f32 as AVX-512.
    Amx,
}

impl Kernels {
    /// All of them, in rising order.
    pub const ALL: [Kernels; 5] =
        [Kernels::Portable, Kernels::Avx2, Kernels::Avx512, Kernels::Avx512Bf16, Kernels::Amx];

    /// Whether this processor has their instructions.
    pub fn is_available(self) -> bool {
        match self {
            Kernels::Portable => true,
            Kernels::Avx2 => Isa::Avx2.is_available(),
            Kernels::Avx512 => Isa::Avx512.is_available(),
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512Bf16 => Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(not(target_arch = "x86_64"))]
            Kernels::Avx512Bf16 => false,
            Kernels::Amx => Isa::Amx.is_available(),
        }
    }

    /// The best of this processor that use no more than `isa`.
    pub fn of(isa: Isa) -> Kernels {
        let most = match isa {
            Isa::Portable | Isa::Neon => Kernels::Portable,
            Isa::Avx2 => Kernels::Avx2,
            Isa::Avx512 => Kernels::Avx512Bf16,
            Isa::Amx => Kernels::Amx,
        };
        let fits = |k: &Kernels| *k as usize <= most as usize && k.is_available();
        Kernels::ALL.into_iter().rfind(fits).unwrap_or(Kernels::Portable)
    }
}

/// Where the rows of a matrix lie in a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) offset: usize,
    pub(crate) stride: usize,
}

impl At {
    pub(crate) fn row(self, t: usize) -> usize {
        self.offset + t * self.stride
    }
}

/// `out[t, o] = sum over i of x[t, i] * matrix[o, i]` for `rows` rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    pub(crate) matrix: Matrix<'a>,
    pub(crate) rows: usize,
    pub(crate) x: At,
    pub(crate) out: At,
}

/// `out[i, o] += sum over t of left[t, i] * right[t, o]` for `rows` rows `t`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    pub(crate) rows: usize,
    pub(crate) left: At,
    pub(crate) left_cols: usize,
    pub(crate) right: At,
    pub(crate) right_cols: usize,
    /// Which side holds inputs of a layer (the other holds gradients of its outputs); FP8 tells them apart.
    pub(crate) inputs: Side,
}

/// A side of an outer product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Multiplications below which a task is not worth another thread's attention (some 10 microseconds).
const TASK_WORK: usize = 256 * 1024;

/// A piece of work with its first task, and the size of a task by rows and by columns.
struct Planned<T> {
    work: T,
    first_task: usize,
    size: (usize, usize),
    columns: usize,
}

impl<T> Planned<T> {
    /// The task's number along rows and along columns.
    fn place(&self, task: usize) -> (usize, usize) {
        ((task - self.first_task) / self.columns, (task - self.first_task) % self.columns)
    }
}

fn find<T>(planned: &[Planned<T>], task: usize) -> &Planned<T> {
    &planned[planned.partition_point(|plan| plan.first_task <= task) - 1]
}

/// Runs all products as one parallel region. Their outputs must not overlap.
pub(crate) fn multiply(kernels: Kernels, pool: &Pool, out: &mut [f32], x: &[f32], products: &[Product], add: bool) {
    assert!(kernels.is_available(), "{kernels:?} kernels on a processor without them");
    let work = |p: &Product| p.rows * p.matrix.outputs * p.matrix.inputs;
    let share = (products.iter().map(work).sum::<usize>() / (8 * pool.threads())).max(TASK_WORK);
    let mut tasks = 0;
    let mut planned = Vec::with_capacity(products.len());
    for p in products.iter().filter(|p| p.rows > 0 && p.matrix.outputs > 0) {
        let panels = p.matrix.outputs.div_ceil(PANEL);
        let per_row = (p.matrix.outputs * p.matrix.inputs).max(1);
        let rows = (share / per_row).next_multiple_of(12).clamp(12, ROWS_MAX).min(p.rows);
        // Few rows and many outputs: a task takes some of the outputs.
        let group = (share / (rows * p.matrix.inputs * PANEL).max(1)).max(1).next_multiple_of(PANELS_TOGETHER);
        let group = if rows * per_row > 2 * share { group.min(panels) } else { panels };
        // Sums that are put aside between blocks of inputs stay in the second-level cache.
        let group = if p.matrix.inputs > SUM_BLOCK { group.min(PANELS_PUT_ASIDE) } else { group };
        let columns = panels.div_ceil(group);
        planned.push(Planned { work: p, first_task: tasks, size: (rows, group), columns });
        tasks += p.rows.div_ceil(rows) * columns;
    }
    let out = &SharedMut::new(out);
    pool.run(tasks, |task| {
        let plan = find(&planned, task);
        let (p, (row, column)) = (plan.work, plan.place(task));
        let rows = row * plan.size.0..((row + 1) * plan.size.0).min(p.rows);
        let panels = column * plan.size.1..((column + 1) * plan.size.1).min(p.matrix.outputs.div_ceil(PANEL));
        SCRATCH.with_borrow_mut(|s| {
            let precision = p.matrix.precision();
            #[cfg(target_arch = "x86_64")]
            if (kernels, precision) == (Kernels::Amx, Precision::Bf16) {
                // SAFETY: the kernels are available, as was found above, and tasks write disjoint outputs.
                return unsafe { amx::product(p, rows, panels, x, out, add, s) };
            }
            dispatch!(kernels, precision, product_task(p: &Product<'_>, rows: std::ops::Range<usize>,
                panels: std::ops::Range<usize>, x: &[f32], out: &SharedMut<'_, f32>, add: bool, s: &mut Scratch));
        });
    });
}

/// Adds all outer products to `outs`, one for each, as one parallel region.
pub(crate) fn accumulate(
    kernels: Kernels,
    pool: &Pool,
    outs: &mut [&mut [f32]],
    left: &[f32],
    right: &[f32],
    outers: &[Outer],
    precision: Precision,
) {
    assert!(kernels.is_available(), "{kernels:?} kernels on a processor without them");
    let work = |p: &Outer| p.rows * p.left_cols * p.right_cols;
    let all = outers.iter().map(work).sum::<usize>();
    let mut tasks = 0;
    let mut planned = Vec::with_capacity(outers.len());
    for (p, out) in outers.iter().zip(outs) {
        assert_eq!(out.len(), p.left_cols * p.right_cols, "gradient of {} x {} weights", p.left_cols, p.right_cols);
        if p.rows == 0 || out.is_empty() {
            continue;
        }
        let across = p.right_cols.min(OUTER_MAX.1);
        // Each task packs its columns of both sides itself, so tasks are not cut smaller than they must:
        // as many as there are threads, or more where they outgrow the cache.
        let share = (work(p) * pool.threads()).div_ceil(all);
        let parts = p.left_cols.div_ceil(OUTER_MAX.0).next_multiple_of(share.max(1));
        let parts = parts.min(work(p).div_ceil(TASK_WORK));
        let down = p.left_cols.div_ceil(parts).next_multiple_of(PANEL);
        let columns = p.right_cols.div_ceil(across);
        planned.push(Planned { work: (p, SharedMut::new(out)), first_task: tasks, size: (down, across), columns });
        tasks += p.left_cols.div_ceil(down) * columns;
    }
    let (sides, fp8) = ((left, right), precision == Precision::Fp8);
    pool.run(tasks, |task| {
        let plan = find(&planned, task);
        let ((p, out), (row, column)) = (&plan.work, plan.place(task));
        let left = row * plan.size.0..((row + 1) * plan.size.0).min(p.left_cols);
        let right = column * plan.size.1..((column + 1) * plan.size.1).min(p.right_cols);
        SCRATCH.with_borrow_mut(|s| {
            #[cfg(target_arch = "x86_64")]
            if (kernels, precision) == (Kernels::Amx, Precision::Bf16) {
                // SAFETY: the kernels are available, as was found above, and tasks write disjoint outputs.
                return unsafe { amx::outer(p, left, right, sides, out, s) };
            }
            dispatch!(kernels, precision, outer_task(p: &Outer, left: std::ops::Range<usize>,
                right: std::ops::Range<usize>, sides: (&[f32], &[f32]), fp8: bool, out: &SharedMut<'_, f32>,
                s: &mut Scratch));
        });
    });
}

/// `matmul` where the weight is stored in panels; `false` (nothing done) where it is not.
pub(crate) fn forward(kernels: Kernels, pool: &Pool, out: &mut [f32], x: &[f32], w: &Weight) -> bool {
    let Some(view) = w.panels() else { return false };
    let at = |stride| At { offset: 0, stride };
    let rows = x.len() / w.cols();
    multiply(
        kernels,
        pool,
        out,
        x,
        &[Product { matrix: view.by_row(), rows, x: at(w.cols()), out: at(w.rows()) }],
        false,
    );
    true
}

/// `matmul_heads` where the weights are stored in panels; `false` (nothing done) where none is.
pub(crate) fn forward_heads(kernels: Kernels, pool: &Pool, out: &mut [f32], x: &[f32], heads: &[HeadWeight]) -> bool {
    if heads.iter().all(|head| head.weight.panels().is_none()) {
        return false;
    }
    multiply(kernels, pool, out, x, &head_products(heads, x.len(), false), false);
    true
}

/// `matmul_grouped` where the weights are stored in panels; `false` (nothing done) where none is.
pub(crate) fn forward_grouped(
    kernels: Kernels,
    pool: &Pool,
    out: &mut [f32],
    x: &[f32],
    groups: &[(usize, &Weight)],
) -> bool {
    if groups.iter().all(|(_, weight)| weight.panels().is_none()) {
        return false;
    }
    let products = group_products(groups, x.len(), out.len(), false);
    multiply(kernels, pool, out, x, &products, false);
    true
}

/// The products of heads over `[T, heads, inputs]`, or (`backward`) of the gradients of their outputs.
///
/// # Panics
/// If heads differ in shape, or one is not in panels.
pub(crate) fn head_products(heads: &[HeadWeight], x_len: usize, backward: bool) -> Vec<Product<'_>> {
    let Some(first) = heads.first() else { return Vec::new() };
    let (mut inputs, mut outputs) = (first.inputs(), first.outputs());
    if backward {
        (inputs, outputs) = (outputs, inputs);
    }
    let (in_stride, out_stride) = (heads.len() * inputs, heads.len() * outputs);
    assert!(in_stride > 0 && x_len.is_multiple_of(in_stride), "{x_len} inputs in rows of {in_stride}");
    let mut products = Vec::with_capacity(heads.len());
    for (h, head) in heads.iter().enumerate() {
        assert!(head.inputs() == first.inputs() && head.outputs() == first.outputs(), "heads of one shape");
        let view = panels_of(&head.weight);
        // A transposed head multiplies with the other copy, and so does backward.
        let matrix = if head.transposed != backward { view.by_col() } else { view.by_row() };
        let x = At { offset: h * inputs, stride: in_stride };
        let out = At { offset: h * outputs, stride: out_stride };
        products.push(Product { matrix, rows: x_len / in_stride, x, out });
    }
    products
}

/// The products of groups of rows, or (`backward`) of the gradients of their outputs.
///
/// # Panics
/// If weights differ in shape, one is not in panels, or the lengths are not those of all groups.
pub(crate) fn group_products<'a>(
    groups: &[(usize, &'a Weight)],
    x_len: usize,
    out_len: usize,
    backward: bool,
) -> Vec<Product<'a>> {
    let Some(&(_, first)) = groups.first() else { return Vec::new() };
    let mut start = 0;
    let mut products = Vec::with_capacity(groups.len());
    for &(rows, weight) in groups {
        assert!(weight.rows() == first.rows() && weight.cols() == first.cols(), "experts of one shape");
        let view = panels_of(weight);
        let matrix = if backward { view.by_col() } else { view.by_row() };
        let at = |width: usize| At { offset: start * width, stride: width };
        products.push(Product { matrix, rows, x: at(matrix.inputs), out: at(matrix.outputs) });
        start += rows;
    }
    let (inputs, outputs) = (products[0].matrix.inputs, products[0].matrix.outputs);
    assert_eq!((x_len, out_len), (start * inputs, start * outputs), "{start} grouped rows");
    products
}

/// The panels of a weight.
///
/// # Panics
/// If it is stored in another way.
pub(crate) fn panels_of(weight: &Weight) -> PanelsView<'_> {
    let format = weight.format();
    weight.panels().unwrap_or_else(|| panic!("a {format} weight where all are in panels; pack it with Panels::pack"))
}
