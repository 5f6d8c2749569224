//! Every gradient is a finite difference of the loss, and no bit of it depends on threads or on what
//! the forward pass keeps.
//!
//! For each parameter the loss is taken on both sides along the parameter's own gradient and along
//! noise: the slopes must be those that the gradient says. `backward.rs` compares with PyTorch.

mod common;

use common::Session;
use common::train::*;
use kernels::pool::Pool;
use kernels::train::backward::log_probability;
use kernels::train::fp8::simulate_weights;
use kernels::train::panels::rounded;
use model::parameters::{Group, Part};
use model::spec::ModelSpec;
use model::train::*;

/// What a pass minimises.
fn total(outcome: &Outcome, objective: &Objective) -> f64 {
    outcome.loss
        + f64::from(objective.mtp_weight) * outcome.mtp_loss
        + f64::from(objective.balance) * outcome.balance_loss
}

fn trainable(spec: ModelSpec, pool: &Pool) -> Trainable {
    let mut trainable = Trainable::init(spec, Precision::F32, 0.25, 7, pool).unwrap();
    // Biases and norms that start as zeros and ones would hide mistakes.
    let count = trainable.parameters().len();
    for i in 0..count {
        if trainable.parameters()[i].group == Group::Vector {
            let noise = noise(trainable.masters()[i].len(), 100 + i as u64);
            trainable.masters_mut()[i].iter_mut().zip(noise).for_each(|(w, v)| *w += 0.2 * v);
        }
    }
    trainable.refresh(pool);
    trainable
}

struct Setup {
    name: &'static str,
    spec: ModelSpec,
    arithmetic: Arithmetic,
    objective: Objective,
}

fn setups() -> Vec<Setup> {
    let setup = |name, spec, arithmetic, mtp_weight, balance| {
        let objective = Objective { mtp_weight, balance, checkpointing: false };
        Setup { name, spec, arithmetic, objective }
    };
    vec![
        setup("v3, absorbed", v3(true), Arithmetic::Absorbed, 0.3, 0.05),
        setup("v3, expanded", v3(false), Arithmetic::Expanded, 0.3, 0.05),
        setup("v2, softmax, absorbed", v2(), Arithmetic::Absorbed, 0.0, 0.05),
        setup("v2, softmax, expanded", v2(), Arithmetic::Expanded, 0.0, 0.0),
        setup("qwen2, tied, biases", qwen2(), Arithmetic::Absorbed, 0.0, 0.0),
        setup("qwen3, norms of heads, windows", qwen3(), Arithmetic::Absorbed, 0.0, 0.0),
        setup("gemma3, sandwich norms", gemma3(), Arithmetic::Absorbed, 0.0, 0.0),
        setup("gpt-oss, sinks, biased experts", gpt_oss(), Arithmetic::Absorbed, 0.0, 0.0),
    ]
}

#[test]
fn gradients_are_finite_differences() {
    let pool = Pool::new(2);
    let (mut failures, mut compared, mut jumps) = (Vec::new(), 0, 0);
    for Setup { name, spec, arithmetic, objective } in setups() {
        let data = Data::new(&[9, 5, 1], spec.vocab);
        let mut trainable = trainable(spec, &pool);
        let mut state = TrainState::new(arithmetic);
        let mut gradients = Gradients::new(trainable.parameters());
        let outcome = forward_backward(&trainable, &pool, &mut state, &data.batch(), &objective, &mut gradients);
        assert_eq!(outcome.nonfinite, None, "{name}");
        assert_eq!(total(&outcome, &objective), {
            let alone = forward_only(&trainable, &pool, &mut state, &data.batch(), &objective);
            total(&alone, &objective)
        });
        for i in 0..trainable.parameters().len() {
            let parameter = trainable.parameters()[i].clone();
            let gradient = gradients.parts[i].clone();
            if parameter.group == Group::Rule {
                assert!(gradient.iter().all(|g| *g == 0.0), "{name}: {:?}", parameter.slot);
                continue;
            }
            if parameter.slot.expert.is_some_and(|e| e % 4 != 1) {
                continue; // experts are alike
            }
            let master = trainable.masters()[i].clone();
            for direction in [gradient.clone(), noise(master.len(), i as u64)] {
                let length = direction.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                let slope: f64 =
                    gradient.iter().zip(&direction).map(|(g, v)| f64::from(*g) * f64::from(*v) / length).sum();
                if length == 0.0 {
                    continue; // an expert that no token uses
                }
                let mut at = |step: f64| {
                    trainable.masters_mut()[i] = master
                        .iter()
                        .zip(&direction)
                        .map(|(w, v)| w + (step / length * f64::from(*v)) as f32)
                        .collect();
                    trainable.refresh(&pool);
                    let outcome = forward_only(&trainable, &pool, &mut state, &data.batch(), &objective);
                    total(&outcome, &objective)
                };
                const STEP: f64 = 2e-3;
                let (a, b, c, d) = (at(-2.0 * STEP), at(-STEP), at(STEP), at(2.0 * STEP));
                let (wide, narrow) = ((d - a) / (4.0 * STEP), (c - b) / (2.0 * STEP));
                let found = (4.0 * narrow - wide) / 3.0; // the five-point rule
                let close = |a: f64, b: f64| (a - b).abs() <= 2e-3 * b.abs() + 1e-3;
                compared += 1;
                if !close(found, slope) {
                    // Where the choice of experts changes, the loss jumps, and no two steps agree.
                    if (wide - narrow).abs() > 0.2 * (found - slope).abs() {
                        jumps += 1;
                    } else {
                        failures.push(format!("{name}: {:?}: slope {found}, gradient {slope}", parameter.slot));
                    }
                }
            }
            trainable.masters_mut()[i] = master;
        }
    }
    assert!(failures.is_empty(), "{} slopes differ:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 500 && jumps * 10 < compared, "{jumps} jumps in {compared} slopes");
}

#[test]
fn threads_and_checkpointing_change_no_bit() {
    for Setup { name, spec, arithmetic, objective } in setups() {
        for precision in [Precision::F32, Precision::Bf16, Precision::Fp8] {
            let data = Data::new(&[70, 1, 130], spec.vocab);
            let run = |threads: usize, checkpointing: bool| {
                let pool = Pool::new(threads);
                let trainable = Trainable::init(spec.clone(), precision, 0.2, 3, &pool).unwrap();
                let mut state = TrainState::new(arithmetic);
                let mut gradients = Gradients::new(trainable.parameters());
                let objective = Objective { checkpointing, ..objective };
                let outcome =
                    forward_backward(&trainable, &pool, &mut state, &data.batch(), &objective, &mut gradients);
                // Buffers of a step before change nothing.
                let mut again = Gradients::new(trainable.parameters());
                forward_backward(&trainable, &pool, &mut state, &data.batch(), &objective, &mut again);
                assert!(again == gradients, "{name} {precision:?}: the second time");
                (outcome, gradients)
            };
            let one = run(1, false);
            assert!(one == run(2, false), "{name} {precision:?}: two threads");
            assert!(one == run(3, true), "{name} {precision:?}: three threads with checkpointing");
        }
    }
}

#[test]
fn log_probabilities_are_those_of_a_rollout() {
    let pool = Pool::new(2);
    for Setup { name, spec, arithmetic, objective } in setups() {
        for precision in [Precision::F32, Precision::Bf16, Precision::Fp8] {
            let data = Data::new(&[67, 1, 130], spec.vocab);
            let trainable = Trainable::init(spec.clone(), precision, 0.2, 3, &pool).unwrap();
            let mut state = TrainState::new(arithmetic);
            let outcome = forward_only(&trainable, &pool, &mut state, &data.batch(), &objective);
            let mut first = 0;
            for &rows in &data.sequences {
                // A prompt in chunks, then token by token.
                let mut session = Session::new(trainable.model(), &pool, rows);
                session.runner.arithmetic = arithmetic;
                let (mut logits, mut at) = (Vec::new(), 0);
                for size in [13, 40, 9].into_iter().chain(std::iter::repeat(1)) {
                    let end = (at + size).min(rows);
                    if at < end {
                        logits.extend(session.push(&data.tokens[first + at..first + end]));
                    } else {
                        break;
                    }
                    at = end;
                }
                for (t, logits) in logits.chunks_exact(trainable.model().spec.vocab).enumerate() {
                    let found = log_probability(logits, data.targets[first + t] as usize);
                    let told = outcome.logprobs[first + t];
                    assert_eq!(found.to_bits(), told.to_bits(), "{name} {precision:?}: row {t}: {found}, {told}");
                }
                first += rows;
            }
        }
    }
}

/// V3's scheme: matrices of layers go through E4M3 in blocks of the whole matrix, also where heads hold parts of it;
/// embedding and head are bfloat16's, routers and norms stay as they are.
#[test]
fn fp8_rounds_the_matrices_of_layers_alone() {
    let pool = Pool::new(2);
    let trainable = Trainable::init(v3(true), Precision::Fp8, 0.2, 3, &pool).unwrap();
    let seen = Trainable::from_model(trainable.model(), Precision::F32, &pool).unwrap();
    for ((parameter, master), seen) in trainable.parameters().iter().zip(trainable.masters()).zip(seen.masters()) {
        let mut want = master.clone();
        match (parameter.slot.part, &parameter.shape[..]) {
            (Part::Embedding | Part::Head, _) => want.iter_mut().for_each(|v| *v = rounded(*v, Precision::Bf16)),
            (Part::Router, _) => {}
            (_, &[rows, cols]) => simulate_weights(&pool, &mut want, rows, cols),
            _ => {}
        }
        assert!(*seen == want, "{:?}", parameter.slot);
    }
}

/// What FP8 costs in one pass: the loss moves, but little, and every gradient points where that of f32 does.
#[test]
fn fp8_gradients_point_where_those_of_f32_do() {
    let (pool, mut failures) = (Pool::new(2), Vec::new());
    for Setup { name, spec, arithmetic, objective } in setups() {
        let data = Data::new(&[70, 1, 300], spec.vocab);
        let run = |precision| {
            let trainable = Trainable::init(spec.clone(), precision, 0.05, 3, &pool).unwrap();
            let mut gradients = Gradients::new(trainable.parameters());
            let mut state = TrainState::new(arithmetic);
            let outcome = forward_backward(&trainable, &pool, &mut state, &data.batch(), &objective, &mut gradients);
            (outcome.loss, gradients.parts.concat())
        };
        let (exact, fp8) = (run(Precision::F32), run(Precision::Fp8));
        let off = (fp8.0 / exact.0 - 1.0).abs();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let cosine = dot(&exact.1, &fp8.1) / (dot(&exact.1, &exact.1) * dot(&fp8.1, &fp8.1)).sqrt();
        if !(off > 0.0 && off < 0.01 && cosine > 0.99) {
            failures.push(format!("{name}: losses {} and {}, cosine {cosine}", exact.0, fp8.0));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_sequence_learns_the_same_alone_and_among_others() {
    let pool = Pool::new(2);
    for Setup { name, spec, arithmetic, objective } in setups() {
        let objective = Objective { balance: 0.0, ..objective };
        let data = Data::new(&[70, 0, 130, 2], spec.vocab);
        let trainable = Trainable::init(spec, Precision::F32, 0.2, 3, &pool).unwrap();
        let mut state = TrainState::new(arithmetic);
        let (mut together, mut apart) =
            (Gradients::new(trainable.parameters()), Gradients::new(trainable.parameters()));
        let all = forward_backward(&trainable, &pool, &mut state, &data.batch(), &objective, &mut together);
        let (mut logprobs, mut loss, mut first) = (Vec::new(), 0.0, 0);
        for &rows in &data.sequences {
            let span = first..first + rows;
            let alone = TrainBatch {
                tokens: &data.tokens[span.clone()],
                sequences: &[rows],
                targets: &data.targets[span.clone()],
                weights: &data.weights[span],
                soft_targets: None,
            };
            let outcome = forward_backward(&trainable, &pool, &mut state, &alone, &objective, &mut apart);
            logprobs.extend(outcome.logprobs);
            loss += outcome.loss;
            first += rows;
        }
        assert!(logprobs == all.logprobs, "{name}: log-probabilities are the same to the bit");
        assert!((loss - all.loss).abs() < 1e-9 * (1.0 + loss.abs()), "{name}: {loss} and {}", all.loss);
        // Sums over more rows are rounded elsewhere.
        for (i, (a, b)) in together.parts.iter().zip(&apart.parts).enumerate() {
            let size = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let worst = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= 2e-5 * size, "{name}: {:?}: {worst} of {size}", trainable.parameters()[i].slot);
        }
    }
}

#[test]
fn soft_targets_of_one_token_are_a_target() {
    let pool = Pool::new(2);
    let data = Data::new(&[9, 20], qwen2().vocab);
    let trainable = Trainable::init(qwen2(), Precision::F32, 0.2, 3, &pool).unwrap();
    let run = |soft_targets| {
        let mut gradients = Gradients::new(trainable.parameters());
        let batch = TrainBatch { soft_targets, ..data.batch() };
        let mut state = TrainState::default();
        state.entropy = true;
        let outcome = forward_backward(&trainable, &pool, &mut state, &batch, &Objective::default(), &mut gradients);
        (outcome, gradients)
    };
    let (hard, gradients) = run(None);
    let (tokens, probabilities): (Vec<u32>, Vec<f32>) =
        data.targets.iter().flat_map(|&t| [(t, 0.75), (0, 0.0), (t, 0.25)]).unzip();
    let (soft, others) = run(Some(SoftTargets { per_row: 3, tokens: &tokens, probabilities: &probabilities }));
    assert_eq!(hard.logprobs, soft.logprobs);
    assert!((hard.loss - soft.loss).abs() < 1e-5);
    let entropy = hard.entropy.unwrap();
    assert!(entropy > 0.5 && entropy < (qwen2().vocab as f64).ln(), "{entropy}");
    for (a, b) in gradients.parts.iter().zip(&others.parts) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
