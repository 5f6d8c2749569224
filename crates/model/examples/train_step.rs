//! Speed of a training step: tokens per second, and useful operations (6 a token and active weight).
//!
//! `cargo run --release -p model --example train_step [-- threads sequences tokens f32|bf16 absorbed|expanded steps]`,
//! and anywhere `forward`, `no-mtp`, `checkpointing`.

use std::time::Instant;

use kernels::ops::{Activation, RopeLayout};
use kernels::pool::Pool;
use model::spec::*;
use model::train::*;

/// The `nano` shape: one dense layer, seven with experts, one prediction module.
fn nano() -> ModelSpec {
    let rope = RopeSpec { dim: 16, layout: RopeLayout::Interleaved, base: 10000.0, scaling: RopeScaling::None };
    let attention = MlaSpec {
        heads: 8,
        q_rank: None,
        kv_rank: 64,
        nope_dim: 32,
        rope_dim: 16,
        v_dim: 32,
        bias: false,
        latent_norm_eps: 1e-6,
        rope,
        scale: 48f32.powf(-0.5),
        indexer: None,
    };
    let dense = |width| DenseSpec { width, activation: Activation::Silu, bias: false };
    let router = RouterSpec {
        score: Score::Sigmoid,
        groups: None,
        correction_bias: true,
        bias: false,
        normalise: true,
        scale: 1.0,
    };
    let moe = MoeSpec { experts: 16, used: 2, expert: dense(160), shared: Some(dense(160)), router };
    let block = |ffn: Ffn| BlockSpec {
        attention: Attention::Mla(attention.clone()),
        ffn,
        norms: NormPlacement::Pre,
        norm_eps: 1e-6,
    };
    let blocks = (0..8).map(|l| block(if l == 0 { Ffn::Dense(dense(704)) } else { Ffn::Moe(moe.clone()) }));
    ModelSpec {
        family: "nano",
        hidden: 256,
        vocab: 4096,
        context: 1024,
        embedding_scale: None,
        blocks: blocks.collect(),
        final_norm_eps: 1e-6,
        head: HeadSpec { tied: false, softcap: None },
        mtp: vec![block(Ffn::Moe(moe))],
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| arguments.get(i).and_then(|v| v.parse().ok()).unwrap_or(default);
    let (threads, sequences, length) = (number(0, 2), number(1, 16), number(2, 512));
    let has = |name: &str| arguments.iter().any(|a| a == name);
    let precision = if has("f32") { Precision::F32 } else { Precision::Bf16 };
    let arithmetic = if has("absorbed") { Arithmetic::Absorbed } else { Arithmetic::Expanded };
    let mtp_weight = if has("no-mtp") { 0.0 } else { 0.3 };

    let pool = Pool::new(threads);
    let trainable = Trainable::init(nano(), precision, 0.02, 1, &pool).expect("nano can be trained");
    let counts = trainable.model().spec.counts();
    let rows = sequences * length;
    let tokens: Vec<u32> = (0..rows as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52) as u32).collect();
    let targets: Vec<u32> = tokens.iter().skip(1).chain([&tokens[0]]).copied().collect();
    let weights = vec![1.0 / rows as f32; rows];
    let lengths = vec![length; sequences];
    let batch =
        TrainBatch { tokens: &tokens, sequences: &lengths, targets: &targets, weights: &weights, soft_targets: None };
    let objective = Objective { mtp_weight, balance: 1e-4, checkpointing: has("checkpointing") };
    let mut state = TrainState::new(arithmetic);
    let mut gradients = Gradients::new(trainable.parameters());
    let active = counts.active as f64;
    println!("{rows} tokens, {threads} threads, {precision:?}, {arithmetic:?}, {:.2}M active weights", active / 1e6);
    let mut best = f64::INFINITY;
    for step in 0..number(5, 6) {
        let start = Instant::now();
        gradients.clear(&pool);
        let outcome = forward_backward(&trainable, &pool, &mut state, &batch, &objective, &mut gradients);
        let seconds = start.elapsed().as_secs_f64();
        best = best.min(seconds);
        if !has("forward") {
            println!("step {step}: {seconds:.3} s, loss {:.4}", outcome.loss);
            continue;
        }
        let start = Instant::now();
        forward_only(&trainable, &pool, &mut state, &batch, &objective);
        let forward = start.elapsed().as_secs_f64();
        println!("step {step}: {seconds:.3} s, forward alone {forward:.3} s, loss {:.4}", outcome.loss);
    }
    let rate = rows as f64 / best;
    println!("best: {rate:.0} tokens a second, {:.1} useful GFLOP/s (6 N_active)", 6.0 * active * rate / 1e9);
}
