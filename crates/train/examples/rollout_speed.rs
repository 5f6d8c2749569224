//! How fast answers are sampled, and how fast they are learned from.
//!
//!     cargo run --release -p train --example rollout_speed -- MODEL [answers] [tokens_max] [threads] [rounds]
//!
//! Prints wall-clock and processor time of each part: on a busy machine the second is the one to compare.

use std::path::Path;
use std::time::Instant;

use engine::compute::Kept;
use kernels::pool::Pool;
use kernels::train::panels::Precision;
use model::load::Model;
use model::train::{Arithmetic, Gradients, Objective, TrainBatch, TrainState, Trainable, forward_backward};
use train::reinforce::rollout::{Sample, sample};

/// Tokens that go through the model at once.
const MICRO_BATCH: usize = 8192;

fn main() {
    let mut args = std::env::args().skip(1);
    let model = args.next().expect("a model's folder");
    let mut number = |default: usize| args.next().map_or(default, |text| text.parse().expect("a number"));
    let (answers, tokens_max, threads, rounds) = (number(512), number(128), number(2), number(2));
    let micro = number(MICRO_BATCH);
    let pool = Pool::new(threads);
    let model = Model::open(Path::new(&model)).expect("a model");
    let trainable = Trainable::from_model(&model, Precision::Bf16, &pool).expect("a model that can be trained");
    // A prompt of the built-in model's form: 35 tokens that are no special ones.
    let prompts: Vec<Vec<u32>> =
        (0..answers / 16).map(|i| (0..35).map(|j| 20 + (i * 7 + j * 13) as u32 % 300).collect()).collect();
    let each: Vec<&[u32]> = (0..answers).map(|i| prompts[i / 16 % prompts.len()].as_slice()).collect();
    let seeds: Vec<u64> = (0..answers as u64).collect();
    // No token ends an answer: all are equally long.
    let how = Sample { tokens_max, temperature: 1.0, end: 2, at_once: answers };
    let mut kept = Kept::default();
    let mut state = TrainState::new(Arithmetic::Absorbed);
    state.entropy = true;
    let mut gradients = Gradients::new(trainable.parameters());
    for _ in 0..rounds {
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let out = sample(&trainable, &pool, &mut kept, &each, &seeds, &how).expect("answers");
        let tokens: usize = out.iter().map(|answer| answer.tokens.len()).sum();
        told("sampled", tokens, begun, cpu, threads);
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let whole: Vec<Vec<u32>> = each.iter().zip(&out).map(|(p, a)| [p, &a.tokens[..]].concat()).collect();
        let mut rows = 0;
        for part in whole.chunks(micro / (35 + tokens_max)) {
            let sequences: Vec<usize> = part.iter().map(|tokens| tokens.len() - 1).collect();
            let tokens: Vec<u32> = part.iter().flat_map(|tokens| &tokens[..tokens.len() - 1]).copied().collect();
            let targets: Vec<u32> = part.iter().flat_map(|tokens| &tokens[1..]).copied().collect();
            let weights: Vec<f32> =
                sequences.iter().flat_map(|&n| (0..n).map(|t| if t < 34 { 0.0 } else { 1e-4 })).collect();
            rows += tokens.len();
            let batch = TrainBatch {
                tokens: &tokens,
                sequences: &sequences,
                targets: &targets,
                weights: &weights,
                soft_targets: None,
            };
            forward_backward(&trainable, &pool, &mut state, &batch, &Objective::default(), &mut gradients);
        }
        told("learned", rows, begun, cpu, threads);
    }
}

fn told(what: &str, tokens: usize, begun: Instant, cpu: f64, threads: usize) {
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (by_wall, by_cpu) = (tokens as f64 / wall, tokens as f64 / cpu * threads as f64);
    println!(
        "{what} {tokens}: {wall:.2} s, {by_wall:.0} a second; {cpu:.2} s of processors, {by_cpu:.0} a second of all"
    );
}

/// Seconds of processors that this process has used, in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().expect("a name in brackets");
    let ticks = |i: usize| after_name.split_whitespace().nth(i).and_then(|n| n.parse::<f64>().ok()).expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}
