//! Integer products: the same bits from every instruction set, tile, batch and thread; within the bound
//! that rounding the inputs to bytes has; bad inputs stay in their row.

mod common;

use common::{Random, assert_same_bits};
use kernels::bytes::Bytes;
use kernels::format::Format;
use kernels::isa::{Isa, isa};
use kernels::matmul::{
    HeadWeight, matmul_grouped_many, matmul_grouped_with, matmul_heads_with, matmul_many, matmul_with,
};
use kernels::pool::Pool;
use kernels::quant::quantize_row;
use kernels::weight::{Inputs, Weight};

/// Formats with integer products.
fn formats() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| !format.is_float())
}

/// Lengths of rows of whole blocks: one block, around the pieces that kernels cut at, and long.
fn lengths(format: Format) -> &'static [usize] {
    match format.block().0 {
        32 => &[32, 64, 96, 224, 256, 288, 480, 512, 544, 1056, 2400],
        _ => &[256, 512, 768, 1792, 2048, 2304, 4352],
    }
}

#[test]
fn every_instruction_set_gives_the_bits_of_the_portable_code() {
    let (pool, mut random) = (Pool::new(2), Random(1));
    for format in formats() {
        for &k in lengths(format) {
            for weight in weights(format, 37, k, &mut random) {
                for t in [1, 2, 3, 4, 5, 8, 9, 17, 33] {
                    let x = random.floats(t * k);
                    let want = product(Isa::Portable, &pool, &x, &weight);
                    check(&want, &x, &weight);
                    for isa in Isa::available().skip(1) {
                        let what = || format!("{format}, {isa:?}, {t} x {k}");
                        assert_same_bits(&product(isa, &pool, &x, &weight), &want, what);
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_alone_is_the_row_among_others() {
    let (pools, mut random) = ([Pool::new(1), Pool::new(3)], Random(2));
    for format in formats() {
        let (t, k, n) = (70, 512, 83);
        let weight = stored(format, n, k, &mut random);
        let x = random.floats(t * k);
        for isa in Isa::available() {
            let whole = product(isa, &pools[0], &x, &weight);
            let what = || format!("{format}, {isa:?}");
            assert_same_bits(&product(isa, &pools[1], &x, &weight), &whole, what);
            for (row, want) in x.chunks(k).zip(whole.chunks(n)) {
                assert_same_bits(&product(isa, &pools[0], row, &weight), want, what);
            }
            for count in [2, 6, 13, 23, 64] {
                let part = product(isa, &pools[1], &x[k..(1 + count) * k], &weight);
                assert_same_bits(&part, &whole[n..(1 + count) * n], || format!("{format}, {isa:?}, {count} rows"));
            }
        }
    }
}

#[test]
fn any_number_of_outputs_and_views() {
    let (pool, mut random) = (Pool::new(2), Random(3));
    for format in [Format::Q4K, Format::Q6K, Format::Q8_0, Format::Q5_1, Format::Mxfp4] {
        let k = 512;
        for weight in weights(format, 70, k, &mut random) {
            for t in [1, 3, 40] {
                let x = random.floats(t * k);
                for isa in Isa::available() {
                    let whole = product(isa, &pool, &x, &weight);
                    let rows = |picked: &[usize]| -> Vec<f32> {
                        whole.chunks(70).flat_map(|row| picked.iter().map(|&n| row[n])).collect()
                    };
                    for n in [0, 1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 69] {
                        let picked: Vec<usize> = (70 - n..70).collect();
                        let view = weight.row_range(70 - n..70);
                        let what = || format!("{format}, {isa:?}, {t} rows, {n} outputs");
                        assert_same_bits(&product(isa, &pool, &x, &view), &rows(&picked), what);
                    }
                    let odd: Vec<usize> = (1..70).step_by(2).collect();
                    let view = weight.every_other_row(1);
                    assert_same_bits(&product(isa, &pool, &x, &view), &rows(&odd), || format!("{format}, odd rows"));
                }
            }
        }
    }
}

#[test]
fn groups_are_products_of_their_own() {
    let (pool, mut random) = (Pool::new(2), Random(4));
    for (format, k, n) in [(Format::Q4K, 512, 70), (Format::Q5_0, 352, 33), (Format::Q8_0, 64, 5)] {
        for counts in [&[0, 1, 5, 0, 17, 1, 40, 0][..], &[0, 0, 0], &[1], &[1, 1, 1, 1, 1, 1], &[0, 90]] {
            let weights: Vec<Weight> = counts.iter().map(|_| stored(format, n, k, &mut random)).collect();
            let groups: Vec<(usize, &Weight)> = counts.iter().copied().zip(&weights).collect();
            let x = random.floats(counts.iter().sum::<usize>() * k);
            for isa in Isa::available() {
                let mut rest = x.as_slice();
                let mut want = Vec::new();
                for &(count, weight) in &groups {
                    let (own, after) = rest.split_at(count * k);
                    rest = after;
                    want.extend(product(isa, &pool, own, weight));
                }
                let mut out = vec![f32::NAN; want.len()];
                matmul_grouped_with(isa, &pool, &mut out, &x, &groups);
                assert_same_bits(&out, &want, || format!("{format}, {isa:?}, groups {counts:?}"));
            }
        }
    }
}

/// Experts whose formats differ, some of them exact: each is the product of its own arithmetic.
#[test]
fn groups_of_different_formats() {
    let (pool, mut random) = (Pool::new(2), Random(5));
    let (k, n) = (512, 20);
    let mut weights: Vec<Weight> = formats().map(|format| stored(format, n, k, &mut random)).collect();
    weights.push(Weight::from_f32(n, k, random.floats(n * k)).with_inputs(Inputs::Int8));
    weights.push(stored(Format::Q4K, n, k, &mut random).with_inputs(Inputs::Exact));
    let groups: Vec<(usize, &Weight)> = weights.iter().enumerate().map(|(i, w)| (1 + i % 3 * 8, w)).collect();
    let x = random.floats(groups.iter().map(|(count, _)| count * k).sum());
    for isa in Isa::available() {
        let mut out = vec![f32::NAN; x.len() / k * n];
        matmul_grouped_with(isa, &pool, &mut out, &x, &groups);
        let mut start = 0;
        for &(count, weight) in &groups {
            let want = product(isa, &pool, &x[start * k..(start + count) * k], weight);
            let got = &out[start * n..(start + count) * n];
            assert_same_bits(got, &want, || format!("{} {isa:?}", weight.format()));
            start += count;
        }
    }
}

#[test]
fn heads_are_products_of_their_own() {
    let (pool, mut random) = (Pool::new(2), Random(6));
    for (format, inputs, outputs) in [(Format::Q8_0, 128, 50), (Format::Q6K, 512, 33)] {
        let weight =
            |random: &mut Random| HeadWeight { weight: stored(format, outputs, inputs, random), transposed: false };
        let heads: Vec<HeadWeight> = (0..3).map(|_| weight(&mut random)).collect();
        for t in [1, 2, 23] {
            let x = random.floats(t * 3 * inputs);
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; t * 3 * outputs];
                matmul_heads_with(isa, &pool, &mut out, &x, &heads);
                for (i, (x, got)) in x.chunks(inputs).zip(out.chunks(outputs)).enumerate() {
                    let want = product(isa, &pool, x, &heads[i % 3].weight);
                    assert_same_bits(got, &want, || format!("{format}, {isa:?}, head {}", i % 3));
                }
            }
        }
    }
}

/// Several weights at once, of any formats and numbers of outputs, are the products one by one.
#[test]
fn products_of_the_same_inputs_together() {
    let (pool, mut random) = (Pool::new(2), Random(9));
    let k = 512;
    let sets: [&[Format]; 4] =
        [&[Format::Q4K, Format::Q4K], &[Format::Q4K, Format::Q6K, Format::Q8_0], &[Format::Q4K, Format::F32], &[]];
    for formats in sets {
        for t in [1, 3, 20] {
            let x = random.floats(t * k);
            let weights: Vec<Weight> =
                formats.iter().enumerate().map(|(i, &f)| stored(f, 20 + 13 * i, k, &mut random)).collect();
            let each: Vec<&Weight> = weights.iter().collect();
            let mut outs: Vec<Vec<f32>> = weights.iter().map(|w| vec![f32::NAN; t * w.rows()]).collect();
            let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
            matmul_many(&pool, &mut slices, &x, &each);
            for (out, weight) in outs.iter().zip(&weights) {
                assert_same_bits(out, &product(isa(), &pool, &x, weight), || format!("{formats:?}, {t} rows"));
            }
            let counts = [t / 2, 0, t - t / 2];
            let lists: Vec<Vec<(usize, &Weight)>> =
                weights.iter().map(|w| counts.iter().map(|&count| (count, w)).collect()).collect();
            let lists: Vec<&[(usize, &Weight)]> = lists.iter().map(Vec::as_slice).collect();
            let mut again: Vec<Vec<f32>> = weights.iter().map(|w| vec![f32::NAN; t * w.rows()]).collect();
            let mut slices: Vec<&mut [f32]> = again.iter_mut().map(Vec::as_mut_slice).collect();
            matmul_grouped_many(&pool, &mut slices, &x, &lists);
            for (out, want) in again.iter().zip(&outs) {
                assert_same_bits(out, want, || format!("{formats:?}, {t} rows in groups"));
            }
        }
    }
}

/// A row with NaN or infinity gives NaN, and the other rows what they give without it.
#[test]
fn bad_inputs_stay_in_their_row() {
    let (pool, mut random) = (Pool::new(2), Random(7));
    for format in [Format::Q4K, Format::Q6K, Format::Q5_0, Format::Q4_1] {
        let (k, n) = (512, 40);
        let weight = stored(format, n, k, &mut random);
        for t in [1, 4, 30] {
            let x = random.floats(t * k);
            for isa in Isa::available() {
                let clean = product(isa, &pool, &x, &weight);
                for (bad, value) in [(0, f32::NAN), (t / 2, f32::INFINITY), (t - 1, f32::NEG_INFINITY)] {
                    let mut spoilt = x.clone();
                    spoilt[bad * k + 300] = value;
                    let got = product(isa, &pool, &spoilt, &weight);
                    for (row, (got, clean)) in got.chunks(n).zip(clean.chunks(n)).enumerate() {
                        if row == bad {
                            assert!(got.iter().all(|v| v.is_nan()), "{format}, {isa:?}: a row with {value}");
                        } else {
                            assert_same_bits(got, clean, || format!("{isa:?}, row {row} beside {value}"));
                        }
                    }
                }
            }
        }
    }
}

/// The largest and smallest inputs, zeros, and the widest integers that formats can hold.
#[test]
fn extreme_values() {
    let (pool, mut random) = (Pool::new(1), Random(8));
    for format in formats() {
        let k = 512;
        // Random bytes: scales and elements at their limits (and scales that are NaN or infinite).
        let size = format.row_bytes(k).unwrap();
        let bytes: Vec<u8> = (0..19 * size).map(|_| [0, 255, 127, 128, random.next() as u8][random.below(5)]).collect();
        let weight = Weight::new(format, 19, k, Bytes::from(bytes)).unwrap().with_inputs(Inputs::Int8);
        let mut x = random.floats(8 * k);
        for (row, x) in x.chunks_mut(k).enumerate() {
            x.iter_mut().for_each(|v| match row {
                0 => *v = 0.0,
                1 => *v *= f32::MAX,
                2 => *v *= f32::MIN_POSITIVE,
                3 => *v = f32::MAX,
                4 => *v = -1.0,
                5 => *v *= 1e-36,
                6 => *v = -0.0,
                _ => *v = v.signum() * 3.0,
            });
        }
        for t in [1, 8] {
            for x in x.chunks(t * k) {
                let want = product(Isa::Portable, &pool, x, &weight);
                for isa in Isa::available().skip(1) {
                    assert_same_bits(&product(isa, &pool, x, &weight), &want, || {
                        format!("{format}, {isa:?}, {t} rows")
                    });
                }
            }
        }
    }
}

fn product(isa: Isa, pool: &Pool, x: &[f32], weight: &Weight) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / weight.cols() * weight.rows()];
    matmul_with(isa, pool, &mut out, x, weight);
    out
}

/// Each output within what rounding inputs to bytes allows: in each block, half a step of the inputs
/// times the sum of the weights' magnitudes; and the roundings of the floats.
#[track_caller]
fn check(out: &[f32], x: &[f32], weight: &Weight) {
    let (k, n, w) = (weight.cols(), weight.rows(), weight.to_f32());
    let block = weight.format().block().0;
    for (i, &got) in out.iter().enumerate() {
        let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
        let (mut want, mut allowed) = (0.0, 0.0);
        for (x, w) in x.chunks(block).zip(w.chunks(block)) {
            let step = x.iter().fold(0.0f32, |a, x| a.max(x.abs())) / 127.0;
            for (x, w) in x.iter().zip(w) {
                want += f64::from(*x) * f64::from(*w);
                allowed += 0.5001 * f64::from(step) * f64::from(w.abs()) + 1e-6 * f64::from((x * w).abs());
            }
        }
        // Minima are subtracted from larger numbers: their roundings weigh more than the result's.
        let ok = (f64::from(got) - want).abs() <= allowed * 1.001 + 1e-4 * (k as f64).sqrt();
        assert!(ok, "{}: {got}, exact {want}, allowed {allowed}", weight.format());
    }
}

/// Random weights in a format, in each of its layouts.
fn weights(format: Format, rows: usize, cols: usize, random: &mut Random) -> Vec<Weight> {
    let mut all = vec![stored(format, rows, cols, random)];
    if format == Format::Mxfp4 {
        let bytes: Vec<u8> = (0..rows * cols / 2).map(|_| random.next() as u8).collect();
        let scales: Vec<u8> = (0..rows * cols / 32).map(|_| 120 + random.below(9) as u8).collect();
        let split = Weight::mxfp4_split(rows, cols, Bytes::from(bytes), Bytes::from(scales)).unwrap();
        all.push(split.with_inputs(Inputs::Int8));
    }
    all
}

fn stored(format: Format, rows: usize, cols: usize, random: &mut Random) -> Weight {
    let size = format.row_bytes(cols).unwrap();
    let mut bytes = vec![0; rows * size];
    for row in bytes.chunks_mut(size) {
        quantize_row(format, &random.floats(cols), row).unwrap();
    }
    Weight::new(format, rows, cols, Bytes::from(bytes)).unwrap().with_inputs(Inputs::Int8)
}
