//! Answers to prompts, sampled by the engine in batches.
//!
//! The engine runs on the very weights that learn ([`Trainable::model`]), with a cache in f32 and absorbed latent
//! attention, as the learning pass does: the log-probabilities of both are equal to the bit.

use std::collections::HashMap;

use engine::compute::ModelCompute;
use engine::limits::Limits;
use engine::request::{Command, Event, Finish, Request};
use engine::sampler::Sampling;
use engine::step::Engine;
use kernels::attention::{CacheFormat, PAGE_LEN};
use kernels::pool::Pool;
use model::train::Trainable;

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

/// A sampled answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Its tokens, the one that ends it included.
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the model.
    pub logprobs: Vec<f32>,
    /// Whether it ended by itself.
    pub ended: bool,
}

/// One answer to each prompt; answer `i` depends on its prompt and on `seeds[i]` alone.
///
/// # Errors
/// If the engine refuses a prompt, or the model's output is not finite.
pub fn sample(
    trainable: &Trainable,
    pool: &Pool,
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
    };
    let compute = ModelCompute::new(trainable.model(), pool, pages, CacheFormat::F32);
    let mut engine = Engine::new(compute, limits);
    let mut inbox: Vec<Command> = prompts
        .iter()
        .zip(seeds)
        .enumerate()
        .map(|(id, (prompt, &seed))| Command::Submit(request(id as u64, prompt, seed, how)))
        .collect();
    let mut answers = vec![Answer::default(); prompts.len()];
    while !(engine.is_idle() && inbox.is_empty()) {
        for event in engine.step(&mut inbox) {
            match event {
                Event::Token { id, token, logprob, .. } => {
                    answers[id as usize].tokens.push(token);
                    answers[id as usize].logprobs.push(logprob);
                }
                Event::Finished { id, finish, .. } => match finish {
                    Finish::Stop => answers[id as usize].ended = true,
                    Finish::Length => {}
                    other => return Err(format!("an answer ended with {other:?}")),
                },
                Event::Started { .. } | Event::Embedded { .. } => {}
                Event::Refused(_, refusal) => return Err(refusal.to_string()),
            }
        }
    }
    Ok(answers)
}

fn request(id: u64, prompt: &[u32], seed: u64, how: &Sample) -> Request {
    Request {
        id,
        owner: 0,
        prompt: prompt.to_vec(),
        sampling: Sampling { temperature: how.temperature, seed, ..Sampling::default() },
        max_tokens: how.tokens_max,
        stop_tokens: vec![how.end],
        top_logprobs: 0,
        constraint: None,
    }
}

/// Share of answers that another answer repeats word for word.
pub(super) fn repeated_share(answers: &[Answer]) -> f64 {
    let mut counts: HashMap<&[u32], usize> = HashMap::new();
    answers.iter().for_each(|answer| *counts.entry(&answer.tokens).or_default() += 1);
    let repeated: usize = counts.values().filter(|&&n| n > 1).sum();
    repeated as f64 / answers.len().max(1) as f64
}
