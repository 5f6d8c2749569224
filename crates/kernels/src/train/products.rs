//! Both backward products of a linear layer `y = x W^T`, with `x` `[T, k]`, `W` `[n, k]` and `dy`
//! `[T, n]`: `dx = dy W` and `dW += dy^T x`; plain, per head and grouped by expert.
//!
//! `dx` is one chain of additions in rising `n`, like the forward product, and depends on its row
//! alone. `dW` is summed over blocks of [`SUM_BLOCK`] rows (counted from the first row of the matrix
//! or group), each a chain in rising `t`; the blocks are added to `dW` one after the other.

pub use crate::gemm::SUM_BLOCK;
use crate::gemm::{
    At, Kernels, Outer, Product, Side, accumulate, forward, group_products, head_products, multiply, panels_of,
};
use crate::isa::isa;
use crate::matmul::HeadWeight;
use crate::pool::Pool;
use crate::train::panels::Precision;
use crate::weight::Weight;

/// `dx = dy W`: `dy` is `[T, w.rows]`, `dx` is `[T, w.cols]`; `w` is stored in panels.
///
/// # Panics
/// If the sizes do not agree, or `w` is stored in another way.
pub fn matmul_dx(pool: &Pool, dx: &mut [f32], dy: &[f32], w: &Weight) {
    plain_dx(Kernels::of(isa()), pool, dx, dy, w, false);
}

/// `dx += dy W`, else [`matmul_dx`]: for an input that several layers read. The sum is added
/// in blocks of [`SUM_BLOCK`] terms.
///
/// # Panics
/// As [`matmul_dx`].
pub fn matmul_dx_add(pool: &Pool, dx: &mut [f32], dy: &[f32], w: &Weight) {
    plain_dx(Kernels::of(isa()), pool, dx, dy, w, true);
}

/// `matmul` (of a weight in panels), [`matmul_dx`] and [`matmul_dw`] with other kernels, for tests:
/// `y`, `dx` and `dw`.
#[doc(hidden)]
pub fn products_with(
    kernels: Kernels,
    pool: &Pool,
    [y, dx, dw]: [&mut [f32]; 3],
    x: &[f32],
    dy: &[f32],
    w: &Weight,
    precision: Precision,
) {
    assert!(forward(kernels, pool, y, x, w), "a weight in panels");
    plain_dx(kernels, pool, dx, dy, w, false);
    plain_dw(kernels, pool, dw, dy, x, precision);
}

fn plain_dx(kernels: Kernels, pool: &Pool, dx: &mut [f32], dy: &[f32], w: &Weight, add: bool) {
    let (n, k) = (w.rows(), w.cols());
    assert!(n > 0 && dy.len().is_multiple_of(n), "{} gradients in rows of {n}", dy.len());
    let rows = dy.len() / n;
    assert_eq!(dx.len(), rows * k, "gradient of {rows} x {k} inputs");
    let at = |stride| At { offset: 0, stride };
    let product = Product { matrix: panels_of(w).by_col(), rows, x: at(n), out: at(k) };
    multiply(kernels, pool, dx, dy, &[product], add);
}

/// `dw += dy^T x`: `dy` is `[T, n]`, `x` is `[T, k]`, `dw` is `[n, k]`; the three lengths say what `T`,
/// `n` and `k` are.
///
/// # Panics
/// If no `T`, `n` and `k` have these lengths.
pub fn matmul_dw(pool: &Pool, dw: &mut [f32], dy: &[f32], x: &[f32], precision: Precision) {
    plain_dw(Kernels::of(isa()), pool, dw, dy, x, precision);
}

fn plain_dw(kernels: Kernels, pool: &Pool, dw: &mut [f32], dy: &[f32], x: &[f32], precision: Precision) {
    if dw.is_empty() || dy.is_empty() && x.is_empty() {
        return;
    }
    // |dy| |x| = T n T k = T^2 |dw|
    let rows = ((dy.len() as u128 * x.len() as u128) / dw.len() as u128).isqrt() as usize;
    let (outputs, inputs) = (dy.len() / rows.max(1), x.len() / rows.max(1));
    let fits = dy.len() == rows * outputs && x.len() == rows * inputs && dw.len() == outputs * inputs;
    assert!(fits, "no T, n, k with {} = T n, {} = T k and {} = n k", dy.len(), x.len(), dw.len());
    let at = |stride| At { offset: 0, stride };
    let (left, right) = (at(outputs), at(inputs));
    let outer = Outer { rows, left, left_cols: outputs, right, right_cols: inputs, inputs: Side::Right };
    accumulate(kernels, pool, &mut [dw], dy, x, &[outer], precision);
}

/// `dx = dy W_g` for each group of consecutive rows: group `g` is the next `groups[g].0` rows of `dy`
/// (`[T, rows]`) and `dx` (`[T, cols]`), with the weights `groups[g].1`, as in `matmul_grouped`.
///
/// # Panics
/// If the sizes do not agree, or a weight is not stored in panels.
pub fn matmul_grouped_dx(pool: &Pool, dx: &mut [f32], dy: &[f32], groups: &[(usize, &Weight)]) {
    let products = group_products(groups, dy.len(), dx.len(), true);
    multiply(Kernels::of(isa()), pool, dx, dy, &products, false);
}

/// `dw_g += dy_g^T x_g` for each group of consecutive rows: group `g` is the next `dws[g].0` rows of
/// `dy` (`[T, outputs]`) and `x` (`[T, inputs]`), its gradient `dws[g].1` is `[outputs, inputs]`.
///
/// # Panics
/// If the sizes do not agree.
pub fn matmul_grouped_dw(
    pool: &Pool,
    dws: &mut [(usize, &mut [f32])],
    dy: &[f32],
    x: &[f32],
    outputs: usize,
    inputs: usize,
    precision: Precision,
) {
    let mut start = 0;
    let mut outers = Vec::with_capacity(dws.len());
    let mut outs: Vec<&mut [f32]> = Vec::with_capacity(dws.len());
    for (rows, dw) in dws {
        assert_eq!(dw.len(), outputs * inputs, "gradient of {outputs} x {inputs} weights");
        let at = |stride: usize| At { offset: start * stride, stride };
        let (left, right) = (at(outputs), at(inputs));
        outers.push(Outer { rows: *rows, left, left_cols: outputs, right, right_cols: inputs, inputs: Side::Right });
        outs.push(dw);
        start += *rows;
    }
    assert_eq!((dy.len(), x.len()), (start * outputs, start * inputs), "{start} grouped rows");
    accumulate(Kernels::of(isa()), pool, &mut outs, dy, x, &outers, precision);
}

/// The gradient of the inputs of `matmul_heads`: `dy` is `[T, heads * outputs]`, `dx` is
/// `[T, heads * inputs]`.
///
/// # Panics
/// If the sizes do not agree, heads differ in shape, or a weight is not stored in panels.
pub fn matmul_heads_dx(pool: &Pool, dx: &mut [f32], dy: &[f32], heads: &[HeadWeight]) {
    let products = head_products(heads, dy.len(), true);
    let rows = products.first().map_or(0, |p| p.rows * p.out.stride);
    assert_eq!(dx.len(), rows, "gradient of the inputs of all heads");
    multiply(Kernels::of(isa()), pool, dx, dy, &products, false);
}

/// The gradients of the weights of `matmul_heads`, each added to `dws[h]` in the shape that the head
/// is stored in: `[outputs, inputs]`, or `[inputs, outputs]` where `heads[h].transposed`.
///
/// # Panics
/// If the sizes do not agree or heads differ in shape.
pub fn matmul_heads_dw(
    pool: &Pool,
    dws: &mut [&mut [f32]],
    dy: &[f32],
    x: &[f32],
    heads: &[HeadWeight],
    precision: Precision,
) {
    let Some(first) = heads.first() else { return };
    let (inputs, outputs) = (first.inputs(), first.outputs());
    assert_eq!(dws.len(), heads.len(), "a gradient for each head");
    let width = heads.len() * inputs;
    assert!(width > 0 && x.len().is_multiple_of(width), "{} inputs in rows of {width}", x.len());
    let rows = x.len() / width;
    assert_eq!(dy.len(), rows * heads.len() * outputs, "gradient of the outputs of all heads");
    for transposed in [false, true] {
        let mut outers = Vec::new();
        let mut outs: Vec<&mut [f32]> = Vec::new();
        for (h, (head, dw)) in heads.iter().zip(dws.iter_mut()).enumerate() {
            assert!(head.inputs() == inputs && head.outputs() == outputs, "heads of one shape");
            assert_eq!(dw.len(), inputs * outputs, "gradient of a head's weights");
            if head.transposed == transposed {
                let at = |width: usize| At { offset: h * width, stride: heads.len() * width };
                let (dy, x) = ((at(outputs), outputs), (at(inputs), inputs));
                let (left, right) = if transposed { (x, dy) } else { (dy, x) };
                let (left, left_cols, right, right_cols) = (left.0, left.1, right.0, right.1);
                let inputs = if transposed { Side::Left } else { Side::Right };
                outers.push(Outer { rows, left, left_cols, right, right_cols, inputs });
                outs.push(dw);
            }
        }
        let (left, right) = if transposed { (x, dy) } else { (dy, x) };
        accumulate(Kernels::of(isa()), pool, &mut outs, left, right, &outers, precision);
    }
}
