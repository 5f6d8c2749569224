//! Answers to prompts, sampled by the engine in batches.
//!
//! The engine runs on the very weights that learn ([`Trainable::model`]), with a cache in f32 and absorbed latent
//! attention, as the learning pass does: the log-probabilities of both are equal to the bit.

use std::collections::HashMap;

use engine::compute::{Kept, ModelCompute};
use engine::drafts::Drafts;
use engine::limits::Limits;
use engine::sampler::Sampling;
use engine::step::Engine;
use eval::runner::{Job, run_jobs};
use kernels::attention::{CacheFormat, PAGE_LEN};
use kernels::pool::Pool;
use model::train::Trainable;

/// A sampled answer, with the log-probability of each of its tokens under the model.
pub use eval::runner::Output as Answer;

/// Tokens of prompts that are computed in one step.
const PROMPT_TOKENS: usize = 4096;

/// How answers are sampled.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The longest answer, tokens.
    pub tokens_max: usize,
    /// 0: always the most likely token.
    pub temperature: f32,
    /// The token that ends an answer.
    pub end: u32,
    /// Answers that are decoded at once.
    pub at_once: usize,
}

/// One answer to each prompt; answer `i` depends on its prompt and on `seeds[i]` alone. `kept` is the cache, from
/// rollout to rollout.
///
/// # Errors
/// If the engine refuses a prompt, or the model's output is not finite.
pub fn sample(
    trainable: &Trainable,
    pool: &Pool,
    kept: &mut Kept,
    prompts: &[&[u32]],
    seeds: &[u64],
    how: &Sample,
) -> Result<Vec<Answer>, String> {
    assert_eq!(prompts.len(), seeds.len(), "a seed for each prompt");
    let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    let context = longest + how.tokens_max + 1;
    let running = how.at_once.min(prompts.len()).max(1);
    let pages = running * (context.div_ceil(PAGE_LEN) + 1);
    let limits = Limits {
        running_max: running,
        waiting_max: prompts.len().max(1),
        waiting_per_owner_max: prompts.len().max(1),
        batch_tokens_max: PROMPT_TOKENS.max(running),
        chunk_tokens_max: PROMPT_TOKENS,
        context_tokens_max: context,
        pages,
        // Many answers run at the same time; a row more costs what it brings.
        drafts: Drafts::Off,
    };
    let jobs: Vec<Job> = prompts
        .iter()
        .zip(seeds)
        .map(|(prompt, &seed)| Job {
            prompt: prompt.to_vec(),
            sampling: Sampling { temperature: how.temperature, seed, ..Sampling::default() },
            max_tokens: how.tokens_max,
            stop_tokens: vec![how.end],
            thinking: None,
        })
        .collect();
    let compute = ModelCompute::with(std::mem::take(kept), trainable.model(), pool, pages, CacheFormat::F32);
    let mut engine = Engine::new(compute, limits);
    let answers = run_jobs(&mut engine, &jobs, jobs.len(), &mut |_, _| true).map_err(|error| error.to_string());
    *kept = engine.into_compute().keep();
    answers
}

/// Share of answers that another answer repeats word for word.
pub(super) fn repeated_share(answers: &[Answer]) -> f64 {
    let mut counts: HashMap<&[u32], usize> = HashMap::new();
    answers.iter().for_each(|answer| *counts.entry(&answer.tokens).or_default() += 1);
    let repeated: usize = counts.values().filter(|&&n| n > 1).sum();
    repeated as f64 / answers.len().max(1) as f64
}
