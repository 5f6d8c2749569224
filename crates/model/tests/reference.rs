//! Our logits are the reference's: tiny models of every family, computed by Hugging Face transformers
//! in f32 (`reference/model_fixtures.py` says how).

mod common;

use common::{Session, all_models, difference, expected};
use kernels::ops::argmax;
use kernels::pool::Pool;
use model::forward::Arithmetic;
use model::load::Model;

/// Largest difference of a logit from the reference.
const TOLERANCE: f32 = 2e-3;

#[test]
fn logits_and_greedy_continuation_of_every_family() {
    let pool = Pool::new(2);
    let mut failures = Vec::new();
    for path in all_models() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let model = match Model::open(&path) {
            Ok(model) => model,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let want = expected(&path);
        let vocab = model.spec.vocab;
        for arithmetic in [Arithmetic::Absorbed, Arithmetic::Expanded] {
            let mut session = Session::new(&model, &pool, want.tokens.len() + want.greedy.len());
            session.runner.arithmetic = arithmetic;
            let logits = session.push(&want.tokens);
            let worst = difference(&logits, &want.logits);
            if worst > TOLERANCE {
                failures.push(format!("{name} {arithmetic:?}: {worst}"));
                continue;
            }
            let mut next = argmax(&logits[logits.len() - vocab..]) as u32;
            let mut greedy = Vec::new();
            for _ in 0..want.greedy.len() {
                greedy.push(next);
                next = argmax(&session.push(&[next])) as u32;
            }
            if greedy != want.greedy {
                failures.push(format!("{name} {arithmetic:?}: greedy {greedy:?}, not {:?}", want.greedy));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn chunks_tokens_and_threads_give_the_same_bits() {
    for path in all_models() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let model = Model::open(&path).unwrap();
        let tokens = expected(&path).tokens;
        for arithmetic in [Arithmetic::Absorbed, Arithmetic::Expanded] {
            let run = |threads: usize, sizes: &[usize]| {
                let pool = Pool::new(threads);
                let mut session = Session::new(&model, &pool, tokens.len());
                session.runner.arithmetic = arithmetic;
                let (mut logits, mut rest) = (Vec::new(), tokens.as_slice());
                for &size in sizes.iter().cycle() {
                    let (chunk, after) = rest.split_at(size.min(rest.len()));
                    logits.extend(session.push(chunk));
                    rest = after;
                    if rest.is_empty() {
                        break;
                    }
                }
                logits.iter().map(|v| v.to_bits()).collect::<Vec<u32>>()
            };
            let whole = run(1, &[tokens.len()]);
            for (threads, sizes) in [(2, vec![tokens.len()]), (1, vec![1]), (2, vec![7, 1, 16]), (3, vec![5])] {
                let other = run(threads, &sizes);
                assert!(whole == other, "{name} {arithmetic:?}: {threads} threads, chunks of {sizes:?}");
            }
        }
    }
}
