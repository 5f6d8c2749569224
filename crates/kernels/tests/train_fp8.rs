//! Products of V3's FP8 scheme are, to the bit, those of factors that were rounded before, in f32.

mod common;

use std::sync::Arc;

use common::{Random, assert_same_bits};
use kernels::gemm::Kernels;
use kernels::matmul::{HeadWeight, matmul, matmul_grouped, matmul_heads};
use kernels::pool::Pool;
use kernels::train::fp8::{simulate_activations, simulate_weights};
use kernels::train::panels::{Panels, Precision};
use kernels::train::products::{
    matmul_dw, matmul_dx, matmul_grouped_dw, matmul_grouped_dx, matmul_heads_dw, matmul_heads_dx, products_with,
};
use kernels::weight::Weight;

/// Tokens, inputs and outputs around tiles of 128 and blocks of 256, and none.
const SIZES: [(usize, usize, usize); 8] = [
    (1, 1, 1),
    (0, 5, 7),
    (12, 256, 160),
    (129, 127, 300),
    (257, 130, 257),
    (40, 1100, 19),
    (130, 64, 600),
    (700, 37, 21),
];

/// Values of many magnitudes, so that scales differ from tile to tile.
fn values(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|i| random.float() * 2f32.powi((i / 50 % 9) as i32 - 4)).collect()
}

fn packed(pool: &Pool, n: usize, k: usize, w: &[f32], precision: Precision) -> Weight {
    Weight::from_panels(Arc::new(Panels::pack(pool, n, k, w, precision)))
}

/// Blocks of 128 x 128.
fn blocks(pool: &Pool, w: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut w = w.to_vec();
    simulate_weights(pool, &mut w, rows, cols);
    w
}

/// Tiles of 1 x 128.
fn along_channels(pool: &Pool, x: &[f32], cols: usize) -> Vec<f32> {
    let mut x = x.to_vec();
    simulate_activations(pool, &mut x, cols);
    x
}

/// Tiles of 128 x 1: those of the transposed matrix.
fn along_tokens(pool: &Pool, x: &[f32], cols: usize) -> Vec<f32> {
    let rows = x.len() / cols;
    if rows == 0 {
        return Vec::new();
    }
    let turned: Vec<f32> = (0..x.len()).map(|i| x[i % rows * cols + i / rows]).collect();
    let turned = along_channels(pool, &turned, rows);
    (0..x.len()).map(|i| turned[i % cols * rows + i / cols]).collect()
}

#[test]
fn every_instruction_set() {
    let (pool, mut random) = (Pool::new(2), Random(11));
    for (t, k, n) in SIZES {
        let (x, w, dy) = (values(&mut random, t * k), values(&mut random, n * k), values(&mut random, t * n));
        let w = blocks(&pool, &w, n, k);
        let (fp8, exact) = (packed(&pool, n, k, &w, Precision::Fp8), packed(&pool, n, k, &w, Precision::F32));
        let tiles = (along_channels(&pool, &x, k), along_channels(&pool, &dy, n));
        let columns = (along_tokens(&pool, &tiles.0, k), along_tokens(&pool, &dy, n));
        for kernels in Kernels::ALL.into_iter().filter(|k| k.is_available()) {
            let run = |x: &[f32], dy: &[f32], weight: &Weight, precision| {
                let (mut y, mut dx, mut dw) = (vec![f32::NAN; t * n], vec![f32::NAN; t * k], vec![0.5; n * k]);
                products_with(kernels, &pool, [&mut y, &mut dx, &mut dw], x, dy, weight, precision);
                (y, dx, dw)
            };
            let found = run(&x, &dy, &fp8, Precision::Fp8);
            let (y, dx, _) = run(&tiles.0, &tiles.1, &exact, Precision::F32);
            let (_, _, dw) = run(&columns.0, &columns.1, &exact, Precision::F32);
            let what = |name| move || format!("{name} of {t} x {k} x {n}, {kernels:?}");
            assert_same_bits(&found.0, &y, what("y"));
            assert_same_bits(&found.1, &dx, what("dx"));
            assert_same_bits(&found.2, &dw, what("dw"));
        }
    }
}

/// A group's tiles of 128 tokens begin with the group.
#[test]
fn groups_are_their_own_products() {
    let (pool, mut random) = (Pool::new(3), Random(12));
    let (k, n, counts) = (150, 40, [1, 13, 0, 137, 5, 300]);
    let t: usize = counts.iter().sum();
    let (x, dy) = (values(&mut random, t * k), values(&mut random, t * n));
    let weights: Vec<Weight> =
        counts.iter().map(|_| packed(&pool, n, k, &values(&mut random, n * k), Precision::Fp8)).collect();
    let groups: Vec<(usize, &Weight)> = counts.into_iter().zip(&weights).collect();
    let (mut y, mut dx) = (vec![f32::NAN; t * n], vec![f32::NAN; t * k]);
    matmul_grouped(&pool, &mut y, &x, &groups);
    matmul_grouped_dx(&pool, &mut dx, &dy, &groups);
    let mut dw = vec![vec![0.0f32; n * k]; counts.len()];
    let mut dws: Vec<(usize, &mut [f32])> = counts.into_iter().zip(dw.iter_mut().map(|w| &mut w[..])).collect();
    matmul_grouped_dw(&pool, &mut dws, &dy, &x, n, k, Precision::Fp8);
    let mut start = 0;
    for ((count, weight), dw) in groups.iter().zip(&dw) {
        let (x, dy) = (&x[start * k..][..count * k], &dy[start * n..][..count * n]);
        let (mut one, mut back, mut alone) = (vec![0.0; count * n], vec![0.0; count * k], vec![0.0f32; n * k]);
        matmul(&pool, &mut one, x, weight);
        matmul_dx(&pool, &mut back, dy, weight);
        matmul_dw(&pool, &mut alone, dy, x, Precision::Fp8);
        let what = || format!("{count} rows");
        assert_same_bits(&y[start * n..][..count * n], &one, what);
        assert_same_bits(&dx[start * k..][..count * k], &back, what);
        assert_same_bits(dw, &alone, what);
        start += count;
    }
}

/// A head's tiles are those of its own channels, whichever way its matrix is stored.
#[test]
fn heads_are_their_own_products() {
    let (pool, mut random) = (Pool::new(2), Random(13));
    let (heads, k, n, t) = (3, 144, 32, 131);
    let (x, dy) = (values(&mut random, t * heads * k), values(&mut random, t * heads * n));
    let of = |all: &[f32], width: usize, h: usize| -> Vec<f32> {
        (0..t).flat_map(|t| all[(t * heads + h) * width..][..width].to_vec()).collect()
    };
    for transposed in [false, true] {
        let (rows, cols) = if transposed { (k, n) } else { (n, k) };
        let w: Vec<Vec<f32>> = (0..heads).map(|_| values(&mut random, rows * cols)).collect();
        let head = |w: &Vec<f32>| HeadWeight { weight: packed(&pool, rows, cols, w, Precision::Fp8), transposed };
        let list: Vec<HeadWeight> = w.iter().map(head).collect();
        let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
        matmul_heads(&pool, &mut y, &x, &list);
        matmul_heads_dx(&pool, &mut dx, &dy, &list);
        let mut dw = vec![vec![0.0f32; rows * cols]; heads];
        let mut parts: Vec<&mut [f32]> = dw.iter_mut().map(|dw| &mut dw[..]).collect();
        matmul_heads_dw(&pool, &mut parts, &dy, &x, &list, Precision::Fp8);
        let turned = |w: &[f32]| -> Vec<f32> { (0..rows * cols).map(|i| w[i % k * n + i / k]).collect() };
        for h in 0..heads {
            let (w, dw) = if transposed { (turned(&w[h]), turned(&dw[h])) } else { (w[h].clone(), dw[h].clone()) };
            let weight = packed(&pool, n, k, &w, Precision::Fp8);
            let (x, own) = (of(&x, k, h), of(&dy, n, h));
            let (mut one, mut back, mut alone) = (vec![0.0; t * n], vec![0.0; t * k], vec![0.0f32; n * k]);
            matmul(&pool, &mut one, &x, &weight);
            matmul_dx(&pool, &mut back, &own, &weight);
            matmul_dw(&pool, &mut alone, &own, &x, Precision::Fp8);
            let what = || format!("head {h}, transposed {transposed}");
            assert_same_bits(&of(&y, n, h), &one, what);
            assert_same_bits(&of(&dx, k, h), &back, what);
            assert_same_bits(&dw, &alone, what);
        }
    }
}
