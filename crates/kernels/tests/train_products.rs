//! Products of training: against sums in f64, and the equalities that `docs/NUMERICS.md` promises.

mod common;

use std::sync::Arc;

use common::tolerance::TRAINING_PRODUCT;
use common::{Random, assert_same_bits};
use kernels::gemm::Kernels;
use kernels::matmul::{HeadWeight, matmul, matmul_grouped, matmul_heads};
use kernels::pool::Pool;
use kernels::train::panels::{Panels, Precision, rounded};
use kernels::train::products::{
    SUM_BLOCK, matmul_dw, matmul_dx, matmul_dx_add, matmul_grouped_dw, matmul_grouped_dx, matmul_heads_dw,
    matmul_heads_dx, products_with,
};
use kernels::weight::Weight;

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Tokens, inputs and outputs: multiples of nothing, around what kernels cut at, and none.
const SIZES: [(usize, usize, usize); 14] = [
    (1, 1, 1),
    (0, 5, 7),
    (3, 1, 17),
    (2, 33, 1),
    (5, 31, 33),
    (13, 32, 48),
    (12, 256, 160),
    (17, 70, 97),
    (25, 511, 40),
    (26, 512, 33),
    (27, 513, 31),
    (40, 1100, 19),
    (130, 64, 600),
    (1041, 37, 21),
];

fn packed(pool: &Pool, n: usize, k: usize, w: &[f32], precision: Precision) -> Weight {
    Weight::from_panels(Arc::new(Panels::pack(pool, n, k, w, precision)))
}

/// `out[i, j] = sum over s of left(i, s) right(s, j)` in f64 of rounded factors, with the sum of
/// magnitudes.
fn exact(
    (m, n, len): (usize, usize, usize),
    precision: Precision,
    left: impl Fn(usize, usize) -> f32,
    right: impl Fn(usize, usize) -> f32,
) -> Vec<(f64, f64)> {
    let round = |v: f32| f64::from(rounded(v, precision));
    let element = |e: usize| {
        let terms = (0..len).map(|s| round(left(e / n, s)) * round(right(s, e % n)));
        terms.fold((0.0, 0.0), |(sum, all), term| (sum + term, all + term.abs()))
    };
    (0..m * n).map(element).collect()
}

/// Each is within the bound for a sum of `terms`.
#[track_caller]
fn check(got: &[f32], want: &[(f64, f64)], terms: usize, what: impl Fn() -> String) {
    assert_eq!(got.len(), want.len(), "{}", what());
    for (i, (got, (want, all))) in got.iter().zip(want).enumerate() {
        let allowed = TRAINING_PRODUCT.share(terms) * all;
        let error = (f64::from(*got) - want).abs();
        assert!(error <= allowed, "{}, element {i}: {got:e}, not {want:e}; {allowed:e} is allowed", what());
    }
}

#[test]
fn forward_and_both_backward_against_f64() {
    let (pool, mut random) = (Pool::new(2), Random(1));
    for (t, k, n) in SIZES {
        let (x, w, dy) = (random.floats(t * k), random.floats(n * k), random.floats(t * n));
        for precision in PRECISIONS {
            let what = |name| move || format!("{name} of {t} x {k} x {n}, {precision:?}");
            let weight = packed(&pool, n, k, &w, precision);
            let mut y = vec![f32::NAN; t * n];
            matmul(&pool, &mut y, &x, &weight);
            check(&y, &exact((t, n, k), precision, |t, i| x[t * k + i], |i, o| w[o * k + i]), k, what("y"));

            let mut dx = vec![f32::NAN; t * k];
            matmul_dx(&pool, &mut dx, &dy, &weight);
            let want = exact((t, k, n), precision, |t, o| dy[t * n + o], |o, i| w[o * k + i]);
            check(&dx, &want, n, what("dx"));
            let old = random.floats(t * k);
            let mut sum = old.clone();
            matmul_dx_add(&pool, &mut sum, &dy, &weight);
            let plus: Vec<f32> = old.iter().zip(&dx).map(|(a, b)| a + b).collect();
            if n <= SUM_BLOCK {
                assert_same_bits(&sum, &plus, what("dx +="));
            }
            let want: Vec<(f64, f64)> =
                want.iter().zip(&old).map(|(w, &o)| (w.0 + f64::from(o), w.1 + f64::from(o.abs()))).collect();
            check(&sum, &want, n + 1, what("dx +="));

            let old = random.floats(n * k);
            let mut dw = old.clone();
            matmul_dw(&pool, &mut dw, &dy, &x, precision);
            let mut want = exact((n, k, t), precision, |o, t| dy[t * n + o], |t, i| x[t * k + i]);
            want.iter_mut().zip(&old).for_each(|(w, &o)| *w = (w.0 + f64::from(o), w.1 + f64::from(o.abs())));
            check(&dw, &want, t + 1, what("dw"));
        }
    }
}

#[test]
fn a_row_alone_and_any_number_of_threads_give_the_same_bits() {
    let mut random = Random(2);
    let pools = [1, 2, 3].map(Pool::new);
    for (t, k, n) in SIZES.into_iter().filter(|s| s.0 < 200) {
        let (x, w, dy) = (random.floats(t * k), random.floats(n * k), random.floats(t * n));
        for precision in PRECISIONS {
            let weight = packed(&pools[0], n, k, &w, precision);
            let [first, ..] = pools.each_ref().map(|pool| {
                let (mut y, mut dx, mut dw) = (vec![0.0; t * n], vec![0.0; t * k], vec![0.5; n * k]);
                matmul(pool, &mut y, &x, &weight);
                matmul_dx(pool, &mut dx, &dy, &weight);
                matmul_dw(pool, &mut dw, &dy, &x, precision);
                for part in [1, 2, 3, 7, 12] {
                    for start in (0..t).step_by(part) {
                        let rows = start..(start + part).min(t);
                        let mut alone = vec![0.0; rows.len() * n];
                        matmul(pool, &mut alone, &x[rows.start * k..rows.end * k], &weight);
                        let what = || format!("rows {rows:?} of {t} x {k} x {n}, {precision:?}");
                        assert_same_bits(&alone, &y[rows.start * n..rows.end * n], what);
                        let mut alone = vec![0.0; rows.len() * k];
                        matmul_dx(pool, &mut alone, &dy[rows.start * n..rows.end * n], &weight);
                        assert_same_bits(&alone, &dx[rows.start * k..rows.end * k], what);
                    }
                }
                (y, dx, dw)
            });
            for pool in &pools[1..] {
                let what = || format!("{t} x {k} x {n}, {precision:?}, {} threads", pool.threads());
                let (mut y, mut dx, mut dw) = (vec![0.0; t * n], vec![0.0; t * k], vec![0.5; n * k]);
                matmul(pool, &mut y, &x, &weight);
                matmul_dx(pool, &mut dx, &dy, &weight);
                matmul_dw(pool, &mut dw, &dy, &x, precision);
                assert_same_bits(&y, &first.0, what);
                assert_same_bits(&dx, &first.1, what);
                assert_same_bits(&dw, &first.2, what);
            }
        }
    }
}

#[test]
fn groups_are_their_own_products() {
    let (pool, mut random) = (Pool::new(2), Random(3));
    for (k, n) in [(37, 21), (256, 160), (16, 33)] {
        let counts = [0, 1, 13, 0, 37, 5, 600];
        let t: usize = counts.iter().sum();
        let (x, dy) = (random.floats(t * k), random.floats(t * n));
        for precision in PRECISIONS {
            let weights: Vec<Weight> =
                counts.iter().map(|_| packed(&pool, n, k, &random.floats(n * k), precision)).collect();
            let groups: Vec<(usize, &Weight)> = counts.into_iter().zip(&weights).collect();
            let (mut y, mut dx) = (vec![f32::NAN; t * n], vec![f32::NAN; t * k]);
            matmul_grouped(&pool, &mut y, &x, &groups);
            matmul_grouped_dx(&pool, &mut dx, &dy, &groups);
            let mut dw = vec![vec![0.25f32; n * k]; counts.len()];
            let mut dws: Vec<(usize, &mut [f32])> = counts.into_iter().zip(dw.iter_mut().map(|w| &mut w[..])).collect();
            matmul_grouped_dw(&pool, &mut dws, &dy, &x, n, k, precision);
            let mut start = 0;
            for ((count, weight), dw) in groups.iter().zip(&dw) {
                let (x, dy) = (&x[start * k..][..count * k], &dy[start * n..][..count * n]);
                let (mut one, mut back) = (vec![0.0; count * n], vec![0.0; count * k]);
                let mut alone = vec![0.25f32; n * k];
                matmul(&pool, &mut one, x, weight);
                matmul_dx(&pool, &mut back, dy, weight);
                matmul_dw(&pool, &mut alone, dy, x, precision);
                let what = || format!("{count} rows of {k} x {n}, {precision:?}");
                assert_same_bits(&y[start * n..][..count * n], &one, what);
                assert_same_bits(&dx[start * k..][..count * k], &back, what);
                assert_same_bits(dw, &alone, what);
                start += count;
            }
        }
    }
}

/// Heads are row ranges of one matrix, used both ways (latent attention's up-projection).
#[test]
fn heads_of_one_matrix_and_its_transposed() {
    let (pool, mut random) = (Pool::new(2), Random(4));
    let (heads, rows, cols, t) = (3, 32, 37, 29);
    let w = random.floats(heads * rows * cols);
    for precision in PRECISIONS {
        let whole = packed(&pool, heads * rows, cols, &w, precision);
        for transposed in [false, true] {
            let head = |h: usize| HeadWeight { weight: whole.row_range(h * rows..(h + 1) * rows), transposed };
            let list: Vec<HeadWeight> = (0..heads).map(head).collect();
            let (k, n) = (list[0].inputs(), list[0].outputs());
            let (x, dy) = (random.floats(t * heads * k), random.floats(t * heads * n));
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
            matmul_heads(&pool, &mut y, &x, &list);
            matmul_heads_dx(&pool, &mut dx, &dy, &list);
            let mut dw = vec![0.0f32; w.len()];
            let mut parts: Vec<&mut [f32]> = dw.chunks_exact_mut(rows * cols).collect();
            matmul_heads_dw(&pool, &mut parts, &dy, &x, &list, precision);
            for h in 0..heads {
                let what = |name| move || format!("{name} of head {h}, transposed {transposed}, {precision:?}");
                let w = &w[h * rows * cols..][..rows * cols];
                let weight = |o: usize, i: usize| if transposed { w[i * cols + o] } else { w[o * cols + i] };
                let x = |t: usize, i: usize| x[(t * heads + h) * k + i];
                let dy = |t: usize, o: usize| dy[(t * heads + h) * n + o];
                let of = |all: &[f32], width: usize| -> Vec<f32> {
                    (0..t).flat_map(|t| all[(t * heads + h) * width..][..width].to_vec()).collect()
                };
                check(&of(&y, n), &exact((t, n, k), precision, x, |i, o| weight(o, i)), k, what("y"));
                check(&of(&dx, k), &exact((t, k, n), precision, dy, weight), n, what("dx"));
                let want = match transposed {
                    false => exact((n, k, t), precision, |o, t| dy(t, o), x),
                    true => exact((k, n, t), precision, |i, t| x(t, i), dy),
                };
                check(&dw[h * rows * cols..][..rows * cols], &want, t + 1, what("dw"));
            }
        }
    }
}

#[test]
fn nan_stays_in_its_row() {
    let (pool, mut random) = (Pool::new(2), Random(5));
    let (t, k, n) = (30, 45, 50);
    let w = random.floats(n * k);
    for precision in PRECISIONS {
        let weight = packed(&pool, n, k, &w, precision);
        let mut x = random.floats(t * k);
        x[7 * k + 44] = f32::NAN;
        x[20 * k] = f32::INFINITY;
        let mut y = vec![0.0; t * n];
        matmul(&pool, &mut y, &x, &weight);
        for (row, y) in y.chunks(n).enumerate() {
            assert!(y.iter().all(|v| v.is_finite() != (row == 7 || row == 20)), "row {row}, {precision:?}");
        }
        let (mut dw, dy) = (vec![0.0; n * k], random.floats(t * n));
        matmul_dw(&pool, &mut dw, &dy, &x, precision);
        for (i, v) in dw.iter().enumerate() {
            assert_eq!(v.is_finite(), i % k != 44 && i % k != 0, "element {i}, {precision:?}");
        }
    }
}

#[test]
fn panels_give_back_their_rounded_rows_and_their_transposed() {
    let (pool, mut random) = (Pool::new(2), Random(6));
    for (rows, cols) in [(1, 1), (17, 5), (32, 33), (50, 64)] {
        for precision in PRECISIONS {
            let master = random.floats(rows * cols);
            let mut panels = Panels::pack(&pool, rows, cols, &vec![1.0; rows * cols], precision);
            panels.repack(&pool, &master);
            let want: Vec<f32> = master.iter().map(|&v| rounded(v, precision)).collect();
            assert_same_bits(&Weight::from_panels(Arc::new(panels)).to_f32(), &want, || format!("{rows} x {cols}"));
            let turned = Weight::from_panels(Arc::new(Panels::pack_transposed(&pool, rows, cols, &master, precision)));
            assert_eq!((turned.rows(), turned.cols()), (cols, rows));
            let turned = turned.to_f32();
            for (i, v) in turned.iter().enumerate() {
                assert_eq!(*v, want[i % rows * cols + i / rows]);
            }
        }
    }
}

/// In bfloat16 every product of two factors is exact in f32, so that all instruction sets round the
/// same sums in the same order, but for AMX, whose order is its own; in f32, those that fuse agree with
/// each other.
#[test]
fn every_instruction_set() {
    let (pool, mut random) = (Pool::new(2), Random(7));
    for (t, k, n) in SIZES {
        let (x, w, dy) = (random.floats(t * k), random.floats(n * k), random.floats(t * n));
        for precision in PRECISIONS {
            let weight = packed(&pool, n, k, &w, precision);
            let by = |kernels: Kernels| {
                let (mut y, mut dx, mut dw) = (vec![f32::NAN; t * n], vec![f32::NAN; t * k], vec![0.5; n * k]);
                products_with(kernels, &pool, [&mut y, &mut dx, &mut dw], &x, &dy, &weight, precision);
                let what = || format!("{t} x {k} x {n}, {precision:?}, {kernels:?}");
                check(&y, &exact((t, n, k), precision, |t, i| x[t * k + i], |i, o| w[o * k + i]), k, what);
                check(&dx, &exact((t, k, n), precision, |t, o| dy[t * n + o], |o, i| w[o * k + i]), n, what);
                [y, dx, dw]
            };
            let mut before: Option<[Vec<f32>; 3]> = None;
            for kernels in Kernels::ALL.into_iter().filter(|k| k.is_available()) {
                let got = by(kernels);
                if (kernels, precision) == (Kernels::Amx, Precision::Bf16) {
                    continue; // `gemm::amx` has the order in plain code.
                }
                for (got, before) in got.iter().zip(before.iter().flatten()) {
                    assert_same_bits(got, before, || format!("{t} x {k} x {n}, {precision:?}, {kernels:?}"));
                }
                let fused = precision == Precision::Bf16 || kernels != Kernels::Portable;
                before = fused.then_some(got);
            }
        }
    }
}
