//! Integer products in whole models: how far inputs rounded to bytes move the distribution of the next
//! token from the exact products with the same stored weights, and that bits stay those of a row alone.

mod common;

use common::{Session, all_models, expected};
use kernels::bytes::Bytes;
use kernels::format::Format;
use kernels::pool::Pool;
use kernels::quant::quantize_row;
use kernels::weight::{Inputs, Weight};
use model::load::Model;
use model::spec::{Attention, Ffn};

/// Nats a token, mean over a prompt, of networks without choices. These are random weights, with which
/// a difference grows from layer to layer as it does not in trained ones: an upper bound.
const DENSE: f64 = 2e-3;
/// Gemma 3's fixture has logits of twice the size, from norms with large weights.
const GEMMA: f64 = 3e-2;
/// The median token where a router chooses: a few tokens get another expert, since random routers are
/// often near a tie, and differ as far as two random experts do.
const ROUTED: f64 = 3e-2;

#[test]
fn divergence_from_exact_products() {
    let pool = Pool::new(2);
    let (mut measured, mut failures) = (0, Vec::new());
    for path in all_models() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for format in [Format::Q8_0, Format::Q4_0, Format::Q6K, Format::Q4K] {
            let mut model = Model::open(&path).unwrap();
            // The lightning indexer chooses positions by scores that tie in these fixtures.
            let indexed =
                model.spec.blocks.iter().any(|b| matches!(&b.attention, Attention::Mla(a) if a.indexer.is_some()));
            if indexed || store_as(format, &mut model) == 0 {
                continue;
            }
            let tokens = expected(&path).tokens;
            let exact = Session::new(&model, &pool, tokens.len()).push(&tokens);
            model.weights.set_inputs(Inputs::Int8);
            let rounded = Session::new(&model, &pool, tokens.len()).push(&tokens);
            assert!(exact != rounded, "{name} {format}: the products are the same ones");
            let mut each = divergences(&exact, &rounded, model.spec.vocab);
            each.sort_by(f64::total_cmp);
            let (mean, median) = (each.iter().sum::<f64>() / each.len() as f64, each[each.len() / 2]);
            let routed = model.spec.blocks.iter().any(|b| matches!(b.ffn, Ffn::Moe(_)));
            println!("{name} {format}: mean {mean:.1e}, median {median:.1e} nats a token");
            let (value, bound) = match routed {
                true => (median, ROUTED),
                false if name.starts_with("gemma") => (mean, GEMMA),
                false => (mean, DENSE),
            };
            if value.is_nan() || value >= bound {
                failures.push(format!("{name} {format}: {value:.1e}, allowed {bound:.1e}"));
            }
            measured += 1;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(measured >= 30, "{measured} models and formats");
}

#[test]
fn chunks_and_threads_give_the_same_bits() {
    for path in all_models() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut model = Model::open(&path).unwrap();
        store_as(Format::Q8_0, &mut model);
        model.weights.set_inputs(Inputs::Int8);
        let tokens = expected(&path).tokens;
        let run = |threads: usize, size: usize| {
            let pool = Pool::new(threads);
            let mut session = Session::new(&model, &pool, tokens.len());
            let logits: Vec<f32> = tokens.chunks(size).flat_map(|chunk| session.push(chunk)).collect();
            logits.iter().map(|v| v.to_bits()).collect::<Vec<u32>>()
        };
        let whole = run(1, tokens.len());
        for (threads, size) in [(2, tokens.len()), (1, 1), (3, 5)] {
            assert!(whole == run(threads, size), "{name}: {threads} threads, chunks of {size}");
        }
    }
}

/// Stores the projections that are whole blocks of `format` in it; returns their number.
fn store_as(format: Format, model: &mut Model) -> usize {
    let mut stored = 0;
    model.weights.projections(|weight| {
        let Some(size) = format.row_bytes(weight.cols()) else { return };
        let mut bytes = vec![0; size * weight.rows()];
        for (row, to) in weight.to_f32().chunks(weight.cols()).zip(bytes.chunks_mut(size)) {
            quantize_row(format, row, to).unwrap();
        }
        *weight = Weight::new(format, weight.rows(), weight.cols(), Bytes::from(bytes)).unwrap();
        stored += 1;
    });
    stored
}

/// The sum of p ln(p / q) of each token, with the softmax of both rows.
fn divergences(p: &[f32], q: &[f32], vocab: usize) -> Vec<f64> {
    let logs = |row: &[f32]| -> Vec<f64> {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - largest).exp()).sum();
        row.iter().map(|v| f64::from(v - largest) - sum.ln()).collect()
    };
    let of_row = |(p, q): (&[f32], &[f32])| logs(p).iter().zip(logs(q)).map(|(p, q)| p.exp() * (p - q)).sum();
    p.chunks(vocab).zip(q.chunks(vocab)).map(of_row).collect()
}
