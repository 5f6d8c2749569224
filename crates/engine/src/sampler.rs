//! From logits to the next token.
//!
//! The steps, in this order:
//! 1. `logit_bias` is added.
//! 2. The repetition penalty divides positive and multiplies negative logits of every token seen, in
//!    the prompt or the answer (Keskar et al. 2019).
//! 3. `frequency_penalty` times the count, and `presence_penalty`, are subtracted for tokens of the
//!    answer (OpenAI's definition).
//! 4. Tokens that a constraint does not allow are taken out.
//! 5. Temperature 0: the largest logit, ties to the lower token. Otherwise logits are divided by it.
//! 6. `top_k` keeps the k largest.
//! 7. Softmax over what is left; `top_p` keeps the smallest set, most likely first, whose sum reaches p.
//! 8. `min_p` keeps those at least `min_p` times as likely as the first.
//! 9. One is drawn, in order of likelihood. Where 6 to 8 keep every token, in order of the tokens: the same
//!    distribution without sorting the vocabulary.
//!
//! The random number of a draw depends on the seed and on the position in the answer, on nothing
//! else: the same request gives the same tokens whatever runs beside it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use kernels::draw;
use kernels::train::backward::{LogSoftmax, log_probability};
use thiserror::Error;

use crate::constraint::Allowed;

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: greedy. Up to 10.
    pub temperature: f32,
    /// 0: all tokens.
    pub top_k: usize,
    /// Above 0, at most 1; 1 keeps all.
    pub top_p: f32,
    /// From 0 (keeps all) to 1.
    pub min_p: f32,
    /// Above 0; 1 changes nothing.
    pub repetition_penalty: f32,
    /// From -2 to 2; 0 changes nothing.
    pub presence_penalty: f32,
    /// From -2 to 2; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens, from -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    /// Of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// A setting outside its limits, or logits that nothing can be chosen from.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SamplingError {
    /// A setting outside its limits.
    #[error("{name} is {value}; it must be {limit}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        limit: &'static str,
    },
    /// A bias for a token that the vocabulary does not have.
    #[error("logit_bias names token {token}; the vocabulary has {vocab} tokens")]
    Token {
        /// The token.
        token: u32,
        /// The size of the vocabulary.
        vocab: usize,
    },
    /// The model's output is not a number: its weights are damaged, or its arithmetic overflowed.
    #[error("the model's logit of token {token} is {value}; its weights may be damaged")]
    NonFinite {
        /// The first such token.
        token: usize,
        /// What stands there.
        value: f32,
    },
    /// A constraint that allows no token.
    #[error("no token of the vocabulary may come next in the form that was asked for")]
    NothingAllowed,
}

/// A chosen token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// The natural logarithm of its probability under the model itself (softmax of the raw logits).
    pub logprob: f32,
}

impl Sampling {
    /// Checks every setting against its limits and the vocabulary.
    ///
    /// # Errors
    /// The first setting outside its limits.
    pub fn check(&self, vocab: usize) -> Result<(), SamplingError> {
        let within = |name, value: f32, ok: bool, limit| {
            if ok { Ok(()) } else { Err(SamplingError::Setting { name, value: value.to_string(), limit }) }
        };
        let t = self.temperature;
        within("temperature", t, (0.0..=10.0).contains(&t), "between 0 and 10")?;
        within("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1")?;
        within("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "between 0 and 1")?;
        let penalty = self.repetition_penalty;
        within("repetition_penalty", penalty, penalty > 0.0 && penalty <= 10.0, "above 0 and at most 10")?;
        let range = -2.0..=2.0;
        within("presence_penalty", self.presence_penalty, range.contains(&self.presence_penalty), "between -2 and 2")?;
        within(
            "frequency_penalty",
            self.frequency_penalty,
            range.contains(&self.frequency_penalty),
            "between -2 and 2",
        )?;
        for &(token, bias) in &self.logit_bias {
            if token as usize >= vocab {
                return Err(SamplingError::Token { token, vocab });
            }
            within("logit_bias", bias, (-100.0..=100.0).contains(&bias), "between -100 and 100")?;
        }
        Ok(())
    }

    fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Whether steps 1 to 3 do anything.
    fn changes_logits(&self) -> bool {
        self.penalises() || !self.logit_bias.is_empty()
    }

    /// Whether steps 6 to 8 do nothing.
    fn keeps_all(&self, vocab: usize) -> bool {
        (self.top_k == 0 || self.top_k >= vocab) && self.top_p >= 1.0 && self.min_p == 0.0
    }
}

thread_local! {
    /// A row of probabilities.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Chooses the tokens of one answer.
pub struct Sampler {
    settings: Sampling,
    /// Tokens of the prompt and the answer.
    seen: HashMap<u32, Count>,
    /// Tokens chosen so far.
    chosen: u64,
}

#[derive(Clone, Copy, Default)]
struct Count {
    /// How often in the answer.
    answer: u32,
}

impl Sampler {
    /// A sampler for an answer to `prompt`.
    ///
    /// # Errors
    /// As [`Sampling::check`].
    pub fn new(settings: Sampling, prompt: &[u32], vocab: usize) -> Result<Sampler, SamplingError> {
        settings.check(vocab)?;
        let seen = prompt.iter().map(|&token| (token, Count::default())).collect();
        Ok(Sampler { settings, seen, chosen: 0 })
    }

    /// Chooses the next token; `logits` holds one number a token.
    ///
    /// # Errors
    /// If a logit is not a finite number.
    pub fn sample(&mut self, logits: &[f32]) -> Result<Sampled, SamplingError> {
        self.sample_of(logits, &Allowed::All)
    }

    /// Chooses the next token from those that are `allowed`.
    ///
    /// # Errors
    /// If a logit is not a finite number, or no token is allowed.
    pub fn sample_of(&mut self, logits: &[f32], allowed: &Allowed) -> Result<Sampled, SamplingError> {
        if let Some(token) = draw::nonfinite(logits) {
            return Err(SamplingError::NonFinite { token, value: logits[token] });
        }
        let mut changed = Cow::Borrowed(logits);
        if self.settings.changes_logits() {
            self.penalise(changed.to_mut());
        }
        if *allowed != Allowed::All {
            restrict(changed.to_mut(), allowed)?;
        }
        let unchanged = matches!(changed, Cow::Borrowed(_));
        let (token, logprob) = self.choose(&changed);
        // The softmax that was drawn from is the model's own where nothing was changed.
        let logprob = logprob.filter(|_| unchanged).unwrap_or_else(|| log_probability(logits, token as usize));
        self.chosen += 1;
        self.seen.entry(token).or_default().answer += 1;
        Ok(Sampled { token, logprob })
    }

    /// Steps 5 to 9: a token and, where it was drawn from the softmax of `logits` as they are, its log-probability.
    fn choose(&self, logits: &[f32]) -> (u32, Option<f32>) {
        let s = &self.settings;
        if s.temperature == 0.0 {
            return (kernels::ops::argmax(logits) as u32, None);
        }
        let u = uniform(s.seed, self.chosen);
        if s.keeps_all(logits.len()) {
            let (token, all) = SCRATCH.with_borrow_mut(|scratch| draw::draw(logits, s.temperature, u, scratch));
            return (token as u32, (s.temperature == 1.0).then(|| all.of_logit(logits[token])));
        }
        (draw_of(&self.candidates(logits), u), None)
    }

    /// Steps 1 to 3.
    fn penalise(&self, logits: &mut [f32]) {
        let s = &self.settings;
        for &(token, bias) in &s.logit_bias {
            logits[token as usize] += bias;
        }
        if !s.penalises() {
            return;
        }
        for (&token, count) in &self.seen {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / s.repetition_penalty } else { *logit * s.repetition_penalty };
            if count.answer > 0 {
                *logit -= s.frequency_penalty * count.answer as f32 + s.presence_penalty;
            }
        }
    }

    /// Steps 5 to 8: tokens and their unnormalised probabilities, most likely first.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let s = &self.settings;
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let limit = if s.top_k == 0 { logits.len() } else { s.top_k.min(logits.len()) };
        let mut best = Best::new(logits);
        let likelihood = |logit: f32| (((logit - max) / s.temperature) as f64).exp();
        // Only the tokens that top-k keeps count towards the mass that top-p is a share of.
        let mass: f64 = match limit == logits.len() {
            true => logits.iter().map(|&v| likelihood(v)).sum(),
            false => best.first(limit)[..limit].iter().map(|&t| likelihood(logits[t as usize])).sum(),
        };
        let mut kept = Vec::new();
        let mut sum = 0.0;
        while kept.len() < limit {
            let Some(&token) = best.first(kept.len() + 1).get(kept.len()) else { break };
            let p = likelihood(logits[token as usize]);
            // The first has likelihood 1, so min-p compares with that.
            if !kept.is_empty() && (sum >= s.top_p as f64 * mass || p < s.min_p as f64 || p == 0.0) {
                break;
            }
            sum += p;
            kept.push((token, p));
        }
        kept
    }
}

/// Step 4.
fn restrict(logits: &mut [f32], allowed: &Allowed) -> Result<(), SamplingError> {
    let mut any = false;
    for (token, logit) in logits.iter_mut().enumerate() {
        if allowed.contains(token as u32) {
            any = true;
        } else {
            *logit = f32::NEG_INFINITY;
        }
    }
    if any { Ok(()) } else { Err(SamplingError::NothingAllowed) }
}

/// The `count` likeliest tokens under the model itself and their log-probabilities, most likely first, ties
/// by rising token.
pub fn top_logprobs(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let log_softmax = LogSoftmax::of(logits);
    let mut best = Best::new(logits);
    let tokens = best.first(count).iter().take(count);
    tokens.map(|&token| (token, log_softmax.of_logit(logits[token as usize]))).collect()
}

/// Tokens by falling logit (ties by rising token), sorted as far as asked for.
struct Best<'a> {
    logits: &'a [f32],
    order: Vec<u32>,
    sorted: usize,
}

impl<'a> Best<'a> {
    fn new(logits: &'a [f32]) -> Best<'a> {
        Best { logits, order: (0..logits.len() as u32).collect(), sorted: 0 }
    }

    /// At least the first `count` in order (or all there are).
    fn first(&mut self, count: usize) -> &[u32] {
        let count = count.min(self.order.len());
        if self.sorted < count {
            // Sorting ahead in growing steps keeps the usual case (a few tokens) cheap.
            let target = count.max(self.sorted * 4).max(64).min(self.order.len());
            let rest = &mut self.order[self.sorted..];
            let logits = self.logits;
            let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
            let wanted = target - self.sorted;
            if wanted < rest.len() {
                rest.select_nth_unstable_by(wanted, by_logit);
            }
            rest[..wanted].sort_unstable_by(by_logit);
            self.sorted = target;
        }
        &self.order[..self.sorted]
    }
}

/// The candidate at which the running sum passes `u` of the whole.
fn draw_of(candidates: &[(u32, f64)], u: f64) -> u32 {
    let total: f64 = candidates.iter().map(|(_, p)| p).sum();
    let mut left = u * total;
    for &(token, p) in candidates {
        left -= p;
        if left < 0.0 {
            return token;
        }
    }
    candidates[candidates.len() - 1].0
}

/// The `index`-th number of the stream of `seed`, in [0, 1): SplitMix64 (Steele, Lea and Flood 2014)
/// as a function of a counter.
fn uniform(seed: u64, index: u64) -> f64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let bits =
        mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::TokenSet;

    fn counts(settings: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut counts = vec![0; logits.len()];
        for seed in 0..draws as u64 {
            let mut sampler = Sampler::new(Sampling { seed, ..settings.clone() }, &[], logits.len()).unwrap();
            counts[sampler.sample(logits).unwrap().token as usize] += 1;
        }
        counts
    }

    fn plain() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::default() }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(Sampling::default(), &[], 4).unwrap();
        assert_eq!(sampler.sample(&[0.0, 2.0, 2.0, 1.0]).unwrap().token, 1);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0f32, 2.0f32.ln(), 5.0f32.ln()];
        let counts = counts(plain(), &logits, 40_000);
        for (count, p) in counts.iter().zip([1.0 / 8.0, 2.0 / 8.0, 5.0 / 8.0]) {
            let sd = (40_000.0f64 * p * (1.0 - p)).sqrt();
            assert!((*count as f64 - 40_000.0 * p).abs() < 5.0 * sd, "{count} draws of {}", 40_000.0 * p);
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits = [0.0f32, 1.0, 2.0, 3.0];
        let kept = |settings: Sampling| counts(settings, &logits, 2000).iter().map(|&c| c > 0).collect::<Vec<_>>();
        assert_eq!(kept(plain()), [true, true, true, true]);
        assert_eq!(kept(Sampling { top_k: 2, ..plain() }), [false, false, true, true]);
        // Probabilities 0.032, 0.087, 0.237, 0.644.
        assert_eq!(kept(Sampling { top_p: 0.6, ..plain() }), [false, false, false, true]);
        assert_eq!(kept(Sampling { top_p: 0.7, ..plain() }), [false, false, true, true]);
        assert_eq!(kept(Sampling { min_p: 0.1, ..plain() }), [false, true, true, true]);
        // Within the best two the first has 0.731.
        assert_eq!(kept(Sampling { top_k: 2, top_p: 0.73, ..plain() }), [false, false, false, true]);
    }

    #[test]
    fn penalties_and_biases() {
        let logits = [1.0f32, 0.9, -1.0, -1.05];
        let first = |settings: Sampling, prompt: &[u32]| {
            Sampler::new(settings, prompt, 4).unwrap().sample(&logits).unwrap().token
        };
        assert_eq!(first(Sampling { repetition_penalty: 2.0, ..Sampling::default() }, &[0]), 1);
        assert_eq!(
            first(Sampling { presence_penalty: 2.0, ..Sampling::default() }, &[0]),
            0,
            "the prompt does not count"
        );
        assert_eq!(first(Sampling { logit_bias: vec![(3, 5.0)], ..Sampling::default() }, &[]), 3);
        let mut sampler = Sampler::new(Sampling { frequency_penalty: 0.2, ..Sampling::default() }, &[], 4).unwrap();
        let tokens: Vec<u32> = (0..4).map(|_| sampler.sample(&logits).unwrap().token).collect();
        assert_eq!(tokens, [0, 1, 0, 1]);
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let logits: Vec<f32> = (0..500).map(|i| ((i * 37) % 101) as f32 / 20.0).collect();
        let run = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, top_p: 0.95, ..plain() }, &[], 500).unwrap();
            (0..50).map(|_| sampler.sample(&logits).unwrap().token).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn log_probabilities_are_the_models_own() {
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }, &[], 2).unwrap();
        let sampled = sampler.sample(&[0.0, 3.0f32.ln()]).unwrap();
        assert!((sampled.logprob - 0.75f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn the_likeliest_tokens_come_in_order_with_the_same_log_probabilities() {
        let logits: Vec<f32> = (0..300).map(|i| ((i * 37) % 101) as f32 / 20.0).collect();
        let top = top_logprobs(&logits, 5);
        assert_eq!(top.len(), 5);
        for (token, value) in &top {
            assert_eq!(value.to_bits(), log_probability(&logits, *token as usize).to_bits());
        }
        assert!(top.windows(2).all(|w| w[0].1 > w[1].1 || (w[0].1 == w[1].1 && w[0].0 < w[1].0)));
        assert_eq!(top[0].0 as usize, kernels::ops::argmax(&logits));
        assert_eq!(top_logprobs(&logits, 1000).len(), 300);
    }

    #[test]
    fn only_allowed_tokens_are_chosen() {
        let logits = [0.0f32, 1.0, 2.0, 3.0];
        let mut set = TokenSet::empty(4);
        set.insert(0);
        set.insert(2);
        for seed in 0..200 {
            let mut sampler = Sampler::new(Sampling { seed, ..plain() }, &[], 4).unwrap();
            let token = sampler.sample_of(&logits, &Allowed::Set(set.clone())).unwrap().token;
            assert!([0, 2].contains(&token));
            assert_eq!(sampler.sample_of(&logits, &Allowed::Only(1)).unwrap().token, 1);
            assert_ne!(sampler.sample_of(&logits, &Allowed::Except(vec![3])).unwrap().token, 3);
        }
        let mut greedy = Sampler::new(Sampling::default(), &[], 4).unwrap();
        assert_eq!(greedy.sample_of(&logits, &Allowed::Set(set)).unwrap().token, 2);
        let nothing = Allowed::Set(TokenSet::empty(4));
        assert_eq!(greedy.sample_of(&logits, &nothing), Err(SamplingError::NothingAllowed));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let error = Sampling { temperature: -1.0, ..Sampling::default() }.check(10).unwrap_err();
        assert_eq!(error.to_string(), "temperature is -1; it must be between 0 and 10");
        assert!(Sampling { top_p: f32::NAN, ..Sampling::default() }.check(10).is_err());
        assert!(Sampling { logit_bias: vec![(10, 1.0)], ..Sampling::default() }.check(10).is_err());
        let mut sampler = Sampler::new(Sampling::default(), &[], 2).unwrap();
        assert_eq!(
            sampler.sample(&[0.0, f32::NAN]).unwrap_err().to_string(),
            "the model's logit of token 1 is NaN; its weights may be damaged"
        );
    }
}
