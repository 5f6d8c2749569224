//! Matrix products: against sums in f64, and the equalities that `docs/NUMERICS.md` promises to the
//! bit, for every instruction set of this machine, every format and every awkward size.

mod common;

use common::tolerance::{MATMUL, TRANSPOSED};
use common::{Random, assert_same_bits, assert_within};
use kernels::bytes::Bytes;
use kernels::format::Format;
use kernels::isa::Isa;
use kernels::matmul::{HeadWeight, matmul_grouped_with, matmul_heads_with, matmul_with};
use kernels::pool::Pool;
use kernels::quant::quantize_row;
use kernels::weight::{Inputs, Weight};

/// Numbers of inputs: every remainder by sixteen, and around the sizes that kernels cut at.
fn lengths() -> impl Iterator<Item = usize> {
    (1..=33).chain([63, 64, 65, 127, 129, 256, 300, 511, 512, 513, 1040])
}

#[test]
fn every_length_and_number_of_rows_and_outputs() {
    let (pool, mut random) = (Pool::new(2), Random(1));
    for k in lengths() {
        let (rows, outputs) = (17, 50);
        let (x, w) = (random.floats(rows * k), random.floats(outputs * k));
        let weight = Weight::from_f32(outputs, k, w.clone());
        for isa in Isa::available() {
            let whole = product(isa, &pool, &x, &weight);
            check(isa, &whole, &x, &w, k);
            for t in 1..rows {
                let part = product(isa, &pool, &x[..t * k], &weight);
                assert_same_bits(&part, &whole[..t * outputs], || format!("{isa:?}, {k} inputs, {t} of {rows} rows"));
            }
            let (last, many) = (&x[(rows - 1) * k..], &whole[(rows - 1) * outputs..]);
            assert_same_bits(&product(isa, &pool, last, &weight), many, || format!("{isa:?}, {k} inputs, last row"));
            for n in (1..=17).chain([24, 25, 47, 48, 49]) {
                for t in [1, 3, rows] {
                    let part = product(isa, &pool, &x[..t * k], &weight.row_range(0..n));
                    let want: Vec<f32> = whole.chunks(outputs).take(t).flat_map(|row| &row[..n]).copied().collect();
                    assert_same_bits(&part, &want, || format!("{isa:?}, {t} x {k}, {n} of {outputs} outputs"));
                }
            }
        }
        let by = |isa| product(isa, &pool, &x, &weight);
        same_by_vectors(by, &format!("{k} inputs"));
    }
}

/// Enough rows that weights are unpacked once and inputs stream through.
#[test]
fn many_rows() {
    let (pool, mut random) = (Pool::new(2), Random(2));
    for (t, k, n) in [(18, 70, 97), (33, 512, 130), (50, 1100, 49), (67, 31, 7), (130, 513, 200), (19, 9000, 26)] {
        let (x, w) = (random.floats(t * k), random.floats(n * k));
        let weight = Weight::from_f32(n, k, w.clone());
        for isa in Isa::available() {
            let whole = product(isa, &pool, &x, &weight);
            check(isa, &whole, &x, &w, k);
            for (row, want) in x.chunks(k).zip(whole.chunks(n)) {
                assert_same_bits(&product(isa, &pool, row, &weight), want, || format!("{isa:?}, {t} x {k} x {n}"));
            }
        }
    }
}

#[test]
fn threads_do_not_change_bits() {
    let mut random = Random(3);
    let pools: Vec<Pool> = [1, 2, 3, 7].map(Pool::new).into();
    for (t, k, n) in [(1, 2048, 512), (1, 33, 4000), (5, 700, 333), (40, 1024, 200)] {
        let x = random.floats(t * k);
        let weight = Weight::from_f32(n, k, random.floats(n * k));
        for isa in Isa::available() {
            let alone = product(isa, &pools[0], &x, &weight);
            for pool in &pools[1..] {
                let what = || format!("{isa:?}, {t} x {k} x {n}, {} threads", pool.threads());
                assert_same_bits(&product(isa, pool, &x, &weight), &alone, what);
            }
        }
    }
}

/// A product with stored weights has the bits of the product with the floats that they stand for.
#[test]
fn every_format_is_the_product_of_its_floats() {
    let (pool, mut random) = (Pool::new(2), Random(4));
    for format in Format::ALL {
        let lengths: &[usize] = match format.block().0 {
            1 => &[1, 7, 63, 300, 513, 1031],
            32 => &[32, 64, 96, 160, 512, 544, 1056],
            _ => &[256, 512, 768, 1280],
        };
        for &k in lengths {
            let n = 50;
            let weight = stored(format, n, k, &mut random);
            let floats = weight.to_f32();
            let plain = Weight::from_f32(n, k, floats.clone());
            for t in [1, 2, 3, 5, 16, 17, 21] {
                let x = random.floats(t * k);
                for isa in Isa::available() {
                    let got = product(isa, &pool, &x, &weight);
                    let what = || format!("{format}, {isa:?}, {t} x {k}");
                    assert_same_bits(&got, &product(isa, &pool, &x, &plain), what);
                    check(isa, &got, &x, &floats, k);
                }
            }
        }
    }
}

#[test]
fn fp8_blocks_of_any_size_and_views() {
    let (pool, mut random) = (Pool::new(2), Random(5));
    for (rows, cols, block) in
        [(37usize, 83usize, 5usize), (1, 1, 128), (130, 257, 128), (64, 530, 100), (9, 1200, 7), (20, 40, 1000)]
    {
        let (wide, high) = (cols.div_ceil(block), rows.div_ceil(block));
        // No NaN: 0x7f and 0xff.
        let bytes: Vec<u8> =
            (0..rows * cols).map(|_| random.next() as u8).map(|b| if b & 127 == 127 { 0 } else { b }).collect();
        let scales = random.floats(wide * high);
        let mut floats = vec![0.0; rows * cols];
        kernels::quant::dequantize_row(Format::F8E4M3, &bytes, &mut floats);
        for (i, v) in floats.iter_mut().enumerate() {
            *v *= scales[i / cols / block * wide + i % cols / block];
        }
        let weight = Weight::fp8_blocks(rows, cols, Bytes::from(bytes), scales, block).unwrap();
        views_are_rows(&pool, &weight, &floats, &mut random);
    }
}

#[test]
fn views_of_every_format() {
    let (pool, mut random) = (Pool::new(2), Random(6));
    for format in Format::ALL {
        let weight = stored(format, 23, 512, &mut random);
        views_are_rows(&pool, &weight, &weight.to_f32(), &mut random);
    }
    let (rows, cols) = (23, 544);
    let bytes: Vec<u8> = (0..rows * cols / 2).map(|_| random.next() as u8).collect();
    let scales: Vec<u8> = (0..rows * cols / 32).map(|_| 120 + random.below(12) as u8).collect();
    let mut floats = vec![0.0; rows * cols];
    kernels::quant::mxfp4_split_row(&bytes, &scales, &mut floats);
    let weight = Weight::mxfp4_split(rows, cols, Bytes::from(bytes), Bytes::from(scales)).unwrap();
    views_are_rows(&pool, &weight, &floats, &mut random);
}

/// Ranges of rows, every other row, and both of both: products with the rows that they name.
fn views_are_rows(pool: &Pool, weight: &Weight, floats: &[f32], random: &mut Random) {
    let (rows, cols) = (weight.rows(), weight.cols());
    assert_same_bits(&weight.to_f32(), floats, || "the whole matrix".into());
    let half = rows / 2;
    let mut views: Vec<(Weight, Vec<usize>)> = vec![
        (weight.clone(), (0..rows).collect()),
        (weight.row_range(half..rows), (half..rows).collect()),
        (weight.every_other_row(0), (0..rows).step_by(2).collect()),
    ];
    if rows > 8 {
        views.push((weight.every_other_row(1), (1..rows).step_by(2).collect()));
        views.push((weight.every_other_row(1).row_range(1..4), vec![3, 5, 7]));
        views.push((weight.row_range(1..rows).every_other_row(1), (2..rows).step_by(2).collect()));
        views.push((weight.every_other_row(1).every_other_row(1), (3..rows).step_by(4).collect()));
        views.push((weight.row_range(3..3), vec![]));
    }
    for (view, picked) in views {
        let chosen: Vec<f32> = picked.iter().flat_map(|&r| &floats[r * cols..(r + 1) * cols]).copied().collect();
        assert_same_bits(&view.to_f32(), &chosen, || format!("rows {picked:?}"));
        let plain = Weight::from_f32(picked.len(), cols, chosen);
        for t in [1, 6, 18] {
            let x = random.floats(t * cols);
            for isa in Isa::available() {
                let what = || format!("{isa:?}, {t} x {cols}, rows {picked:?}");
                assert_same_bits(&product(isa, pool, &x, &view), &product(isa, pool, &x, &plain), what);
            }
        }
    }
}

#[test]
fn heads_in_both_orientations() {
    let (pools, mut random) = ([Pool::new(1), Pool::new(3)], Random(7));
    for (heads, inputs, outputs) in [(1, 1, 1), (3, 20, 33), (4, 16, 8), (2, 130, 513), (5, 7, 64), (2, 3, 5)] {
        for transposed in [false, true] {
            let (rows, cols) = if transposed { (inputs, outputs) } else { (outputs, inputs) };
            let floats: Vec<Vec<f32>> = (0..heads).map(|_| random.floats(rows * cols)).collect();
            let weight = |w: &Vec<f32>| HeadWeight { weight: Weight::from_f32(rows, cols, w.clone()), transposed };
            let weights: Vec<HeadWeight> = floats.iter().map(weight).collect();
            for t in [1, 2, 15, 16, 17, 40] {
                let x = random.floats(t * heads * inputs);
                for isa in Isa::available() {
                    let by = |pool: &Pool, x: &[f32]| {
                        let mut out = vec![f32::NAN; x.len() / inputs * outputs];
                        matmul_heads_with(isa, pool, &mut out, x, &weights);
                        out
                    };
                    let whole = by(&pools[0], &x);
                    let what = || format!("{isa:?}, {heads} heads, {t} x {inputs} x {outputs}, {transposed}");
                    assert_same_bits(&by(&pools[1], &x), &whole, what);
                    let width = heads * inputs;
                    assert_same_bits(&by(&pools[1], &x[(t - 1) * width..]), &whole[(t - 1) * heads * outputs..], what);
                    for (i, &got) in whole.iter().enumerate() {
                        let (token, head, n) = (i / (heads * outputs), i / outputs % heads, i % outputs);
                        let w = |k: usize| floats[head][if transposed { k * cols + n } else { n * cols + k }];
                        let x = &x[token * width + head * inputs..][..inputs];
                        let (want, scale) = dot(x.iter().copied().zip((0..inputs).map(w)));
                        assert_within(if transposed { TRANSPOSED } else { MATMUL }, inputs, scale, got, want, what);
                    }
                }
                let by = |isa| {
                    let mut out = vec![0.0; t * heads * outputs];
                    matmul_heads_with(isa, &pools[0], &mut out, &x, &weights);
                    out
                };
                same_by_vectors(by, "heads");
            }
        }
    }
}

#[test]
fn groups_are_products_of_their_own() {
    let mut random = Random(8);
    let pools = [Pool::new(1), Pool::new(2), Pool::new(3)];
    for (k, n) in [(1, 1), (70, 30), (512, 100), (768, 49)] {
        for counts in [&[0, 1, 5, 0, 17, 1, 40, 0][..], &[0, 0, 0], &[1], &[1, 1, 1, 1], &[0, 23]] {
            let weights: Vec<Weight> = counts.iter().map(|_| Weight::from_f32(n, k, random.floats(n * k))).collect();
            let groups: Vec<(usize, &Weight)> = counts.iter().copied().zip(&weights).collect();
            let x = random.floats(counts.iter().sum::<usize>() * k);
            for isa in Isa::available() {
                let mut rest = x.as_slice();
                let want: Vec<f32> = groups
                    .iter()
                    .flat_map(|&(count, weight)| {
                        let (own, after) = rest.split_at(count * k);
                        rest = after;
                        if count == 0 { vec![] } else { product(isa, &pools[0], own, weight) }
                    })
                    .collect();
                for pool in &pools {
                    let mut out = vec![f32::NAN; want.len()];
                    matmul_grouped_with(isa, pool, &mut out, &x, &groups);
                    assert_same_bits(&out, &want, || format!("{isa:?}, {k} x {n}, groups {counts:?}"));
                }
            }
        }
    }
}

/// Inputs rounded to bfloat16: the product of the rounded inputs, and the same bits from every instruction set, from
/// one row or many, from part of a matrix, from heads and from groups.
#[test]
fn bfloat16_weights_with_rounded_inputs() {
    let (pools, mut random) = ([Pool::new(1), Pool::new(2)], Random(11));
    for k in (1..=33).chain([63, 64, 65, 96, 511, 512, 513, 2047, 2048, 2100, 4100]) {
        let (rows, outputs) = (20, 50);
        let x = random.floats(rows * k);
        let exact = stored(Format::BF16, outputs, k, &mut random);
        let weight = exact.clone().with_inputs(Inputs::Int8);
        let nearest: Vec<f32> = x.iter().map(|&v| half::bf16::from_f32(v).to_f32()).collect();
        let whole = product(Isa::Portable, &pools[0], &x, &weight);
        check(Isa::Portable, &whole, &nearest, &exact.to_f32(), k);
        for isa in Isa::available() {
            let what = |t: usize, n: usize| move || format!("{isa:?}, {t} x {k}, {n} of {outputs} outputs");
            for pool in &pools {
                assert_same_bits(&product(isa, pool, &x, &weight), &whole, what(rows, outputs));
            }
            for t in [1, 2, 3, 4, 5, 6, 7, 13] {
                let part = product(isa, &pools[1], &x[(rows - t) * k..], &weight);
                assert_same_bits(&part, &whole[(rows - t) * outputs..], what(t, outputs));
            }
            for n in [1, 2, 7, 8, 9, 31] {
                let part = product(isa, &pools[1], &x, &weight.row_range(outputs - n..outputs));
                let want: Vec<f32> = whole.chunks(outputs).flat_map(|row| &row[outputs - n..]).copied().collect();
                assert_same_bits(&part, &want, what(rows, n));
            }
            let halves = [(3, &weight), (0, &weight), (rows - 3, &weight)];
            let mut out = vec![f32::NAN; rows * outputs];
            matmul_grouped_with(isa, &pools[1], &mut out, &x, &halves);
            assert_same_bits(&out, &whole, what(rows, outputs));
            // The same rows as two heads of half as many tokens.
            let heads = [0, 1].map(|_| HeadWeight { weight: weight.clone(), transposed: false });
            let mut out = vec![f32::NAN; rows * outputs];
            matmul_heads_with(isa, &pools[1], &mut out, &x, &heads);
            assert_same_bits(&out, &whole, what(rows / 2, 2 * outputs));
        }
    }
}

/// Rounding of inputs is for weights in bfloat16; other floats stay exact.
#[test]
fn other_floats_are_exact_whatever_the_inputs() {
    let (pool, mut random) = (Pool::new(1), Random(12));
    for format in [Format::F32, Format::F16, Format::BF16] {
        let (x, exact) = (random.floats(3 * 70), stored(format, 9, 70, &mut random));
        let by = |weight: &Weight| product(Isa::available().last().unwrap(), &pool, &x, weight);
        let same = by(&exact) == by(&exact.clone().with_inputs(Inputs::Int8));
        assert_eq!(same, format != Format::BF16, "{format:?}");
    }
}

#[test]
fn nothing_leaks_from_one_row_to_another() {
    let (pool, mut random) = (Pool::new(2), Random(9));
    for (t, k) in [(5, 40), (16, 513), (40, 300)] {
        let weight = Weight::from_f32(30, k, random.floats(30 * k));
        let x = random.floats(t * k);
        for isa in Isa::available() {
            let clean = product(isa, &pool, &x, &weight);
            for bad in [0, t / 2, t - 1] {
                let mut spoilt = x.clone();
                spoilt[bad * k..(bad + 1) * k].fill(f32::NAN);
                let got = product(isa, &pool, &spoilt, &weight);
                for (row, (got, clean)) in got.chunks(30).zip(clean.chunks(30)).enumerate() {
                    if row == bad {
                        assert!(got.iter().all(|v| v.is_nan()), "{isa:?}: row {row} of NaN");
                    } else {
                        assert_same_bits(got, clean, || format!("{isa:?}, row {row} beside NaN in row {bad}"));
                    }
                }
            }
            // Later products with other sizes do not see what this one left in a thread's memory.
            let x = random.floats(3 * 17);
            let small = Weight::from_f32(5, 17, random.floats(5 * 17));
            assert!(product(isa, &pool, &x, &small).iter().all(|v| v.is_finite()), "{isa:?}");
        }
    }
}

#[test]
fn wrong_sizes_panic() {
    let attempts: [fn(); 4] = [
        || matmul_with(Isa::Portable, &Pool::new(1), &mut [0.0; 4], &[0.0; 5], &Weight::from_f32(2, 2, vec![0.0; 4])),
        || matmul_with(Isa::Portable, &Pool::new(1), &mut [0.0; 3], &[0.0; 4], &Weight::from_f32(2, 2, vec![0.0; 4])),
        || {
            let weight = Weight::from_f32(2, 2, vec![0.0; 4]);
            matmul_grouped_with(Isa::Portable, &Pool::new(1), &mut [0.0; 4], &[0.0; 4], &[(1, &weight)]);
        },
        || drop(Weight::from_f32(2, 2, vec![0.0; 4]).row_range(1..3)),
    ];
    for (i, attempt) in attempts.into_iter().enumerate() {
        assert!(std::panic::catch_unwind(attempt).is_err(), "attempt {i}");
    }
}

fn product(isa: Isa, pool: &Pool, x: &[f32], weight: &Weight) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / weight.cols() * weight.rows()];
    matmul_with(isa, pool, &mut out, x, weight);
    out
}

/// The sum of products in f64, and of their magnitudes.
fn dot(pairs: impl Iterator<Item = (f32, f32)>) -> (f64, f64) {
    pairs.map(|(a, b)| f64::from(a) * f64::from(b)).fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
}

#[track_caller]
fn check(isa: Isa, out: &[f32], x: &[f32], w: &[f32], k: usize) {
    let n = w.len() / k;
    for (i, &got) in out.iter().enumerate() {
        let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
        let (want, scale) = dot(x.iter().copied().zip(w.iter().copied()));
        assert_within(MATMUL, k, scale, got, want, || format!("{isa:?}, {k} inputs, row {}, output {}", i / n, i % n));
    }
}

/// AVX2 and AVX-512 give the same bits.
#[track_caller]
fn same_by_vectors(by: impl Fn(Isa) -> Vec<f32>, what: &str) {
    if Isa::Avx512.is_available() {
        assert_same_bits(&by(Isa::Avx2), &by(Isa::Avx512), || format!("AVX2 and AVX-512, {what}"));
    }
}

/// Random weights in `format`.
fn stored(format: Format, rows: usize, cols: usize, random: &mut Random) -> Weight {
    let size = format.row_bytes(cols).unwrap();
    let mut bytes = vec![0; rows * size];
    for row in bytes.chunks_mut(size) {
        quantize_row(format, &random.floats(cols), row).unwrap();
    }
    Weight::new(format, rows, cols, Bytes::from(bytes)).unwrap()
}
