//! The scheduler under a seeded simulation: requests arrive, share beginnings, are cancelled and put
//! back for want of pages; every answer must be the one that the request gets alone.
//!
//! A failure prints its seed; `SEED=n cargo test -p engine --test simulation` runs that one.

use std::collections::HashMap;
use std::path::Path;

use engine::compute::ModelCompute;
use engine::constraint::{Allowed, Constraint, ConstraintError};
use engine::limits::Limits;
use engine::request::{Command, Event, Finish, Refusal, Request};
use engine::sampler::Sampling;
use engine::step::{Compute, Engine};
use kernels::attention::{CacheFormat, Chunk, PAGE_LEN};
use kernels::pool::Pool;
use model::load::Model;

const VOCAB: usize = 40;

/// A model whose next token is a hash of what its cache holds, so that a wrong page shows.
struct Stub {
    cache: Vec<u32>,
}

impl Stub {
    fn new(pages: usize) -> Stub {
        Stub { cache: vec![u32::MAX; pages * PAGE_LEN] }
    }
}

impl Compute for Stub {
    fn vocab(&self) -> usize {
        VOCAB
    }

    fn run(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        let slot = |chunk: &Chunk, p: usize| chunk.pages[p / PAGE_LEN] as usize * PAGE_LEN + p % PAGE_LEN;
        let mut written = std::collections::HashSet::new();
        for chunk in chunks {
            for i in 0..chunk.rows {
                let at = slot(chunk, chunk.position + i);
                assert!(written.insert(at), "two requests write one place");
                self.cache[at] = tokens[chunk.first_row + i];
            }
        }
        let mut logits = Vec::new();
        for &row in wanted {
            let chunk = chunks.iter().rfind(|c| c.first_row <= row).unwrap();
            let last = chunk.position + row - chunk.first_row;
            let mut hash = 0xcbf2_9ce4_8422_2325u64;
            for p in 0..=last {
                hash = (hash ^ self.cache[slot(chunk, p)] as u64).wrapping_mul(0x0100_0000_01b3);
            }
            logits.extend((0..VOCAB as u64).map(|t| {
                let mixed = (hash ^ t).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (mixed >> 40) as f32 / (1u64 << 24) as f32 * 6.0
            }));
        }
        logits
    }
}

/// A small generator (xorshift), so that a seed says everything.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }
}

type Tokens = Vec<(u32, u32)>; // token and the bits of its log-probability

/// The answer of one request with the engine to itself.
fn alone(compute: impl Compute, request: Request) -> (Tokens, Finish) {
    let pages = (request.prompt.len() + request.max_tokens).div_ceil(PAGE_LEN) + 1;
    let context_tokens_max = pages * PAGE_LEN;
    let limits = Limits { pages, context_tokens_max, ..Limits::default() };
    let mut engine = Engine::new(compute, limits);
    let mut inbox = vec![Command::Submit(request)];
    let mut tokens = Vec::new();
    loop {
        for event in engine.step(&mut inbox) {
            match event {
                Event::Token { token, logprob, .. } => tokens.push((token, logprob.to_bits())),
                Event::Finished { finish, .. } => return (tokens, finish),
                Event::Refused(_, refusal) => panic!("{refusal}"),
                Event::Started { .. } => {}
            }
        }
    }
}

fn request(random: &mut Random, id: u64, vocab: usize, longest: usize) -> Request {
    // A few common beginnings, so that pages are shared.
    let (beginning, shared) = (random.below(3) as u32, random.below(longest));
    let own = 1 + random.below(longest / 2);
    let common = (0..shared as u32).map(|i| (i * 31 + beginning * 7 + i * i) % vocab as u32);
    let mut prompt: Vec<u32> = common.collect();
    prompt.extend((0..own).map(|_| random.below(vocab) as u32));
    let temperature = if random.below(2) == 0 { 0.0 } else { 1.0 };
    let sampling = Sampling { temperature, seed: random.0, frequency_penalty: 0.3, ..Sampling::default() };
    let (max_tokens, stop) = (1 + random.below(longest), random.below(vocab) as u32);
    let (owner, stop_tokens) = (random.below(3) as u64, vec![stop]);
    Request { id, owner, prompt, sampling, max_tokens, stop_tokens, top_logprobs: 2, constraint: None }
}

#[test]
fn every_answer_is_the_one_it_gets_alone() {
    let only = std::env::var("SEED").ok().map(|s| s.parse::<u64>().unwrap());
    let (mut put_back, mut shared) = (0, 0);
    for seed in only.map_or(1..300, |s| s..s + 1) {
        let (p, s) = simulate(seed);
        put_back += p;
        shared += s;
    }
    if only.is_none() {
        assert!(put_back > 100, "the simulation puts requests back ({put_back})");
        assert!(shared > 1000, "the simulation shares pages ({shared} tokens)");
    }
}

/// One run; how often requests were put back, and tokens found in the cache.
fn simulate(seed: u64) -> (usize, usize) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let pages = 8 + random.below(24);
    let limits = Limits {
        running_max: 1 + random.below(10),
        waiting_max: 20,
        waiting_per_owner_max: 12,
        batch_tokens_max: 10 + random.below(200),
        chunk_tokens_max: 1 + random.below(100),
        context_tokens_max: 8 * PAGE_LEN,
        pages,
    };
    let mut engine = Engine::new(Stub::new(pages), limits);
    let mut requests: HashMap<u64, Request> = HashMap::new();
    let mut answers: HashMap<u64, Tokens> = HashMap::new();
    let (mut next, mut done, mut put_back, mut shared, mut steps) = (0, 0, 0, 0, 0);
    while next < 25 || !engine.is_idle() {
        steps += 1;
        assert!(steps < 50_000, "seed {seed}: no end in sight");
        let mut inbox = Vec::new();
        while next < 25 && random.below(4) == 0 {
            let request = request(&mut random, next, VOCAB, 200);
            requests.insert(next, request.clone());
            answers.insert(next, Vec::new());
            inbox.push(Command::Submit(request));
            next += 1;
        }
        if next > 0 && random.below(30) == 0 {
            inbox.push(Command::Cancel(random.below(next as usize) as u64));
        }
        let waiting = engine.load().1;
        let arrived = inbox.len();
        for event in engine.step(&mut inbox) {
            match event {
                Event::Started { id, .. } => assert!(answers[&id].is_empty(), "seed {seed}: {id} starts once"),
                Event::Token { id, token, logprob, .. } => {
                    answers.get_mut(&id).unwrap().push((token, logprob.to_bits()))
                }
                Event::Refused(id, refusal) => {
                    assert!(
                        matches!(refusal, Refusal::Busy { .. } | Refusal::OwnerBusy { .. }),
                        "seed {seed}: {refusal}"
                    );
                    requests.remove(&id);
                }
                Event::Finished { id, finish, usage } => {
                    shared += usage.cached_tokens;
                    done += 1;
                    let request = requests.remove(&id).unwrap_or_else(|| panic!("seed {seed}: {id} ends twice"));
                    let (want, ended) = alone(Stub::new(16), request);
                    let got = &answers[&id];
                    if finish == Finish::Cancelled {
                        assert!(want.starts_with(got), "seed {seed}: cancelled request {id}");
                    } else {
                        assert_eq!((got, &finish), (&want, &ended), "seed {seed}: request {id}");
                    }
                }
            }
        }
        put_back += usize::from(engine.load().1 > waiting + arrived);
        engine.check();
    }
    assert!(requests.is_empty(), "seed {seed}: {} requests never ended, {done} did", requests.len());
    (put_back, shared)
}

#[test]
fn a_tiny_latent_attention_model_gives_the_same_bits_in_any_company() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/models/deepseek-v3");
    let model = Model::open(&path).unwrap();
    let (one, two) = (Pool::new(1), Pool::new(2));
    let mut random = Random(77);
    let requests: Vec<Request> = (0..12).map(|id| request(&mut random, id, model.spec.vocab, 90)).collect();
    let limits = Limits {
        running_max: 5,
        batch_tokens_max: 50,
        chunk_tokens_max: 23,
        context_tokens_max: 5 * PAGE_LEN,
        pages: 9,
        ..Limits::default()
    };
    let mut engine = Engine::new(ModelCompute::new(&model, &two, limits.pages, CacheFormat::F32), limits);
    let mut inbox: Vec<Command> = requests.iter().cloned().map(Command::Submit).collect();
    let mut answers: HashMap<u64, Tokens> = HashMap::new();
    while !engine.is_idle() || !inbox.is_empty() {
        for event in engine.step(&mut inbox) {
            if let Event::Token { id, token, logprob, .. } = event {
                answers.entry(id).or_default().push((token, logprob.to_bits()));
            }
        }
        engine.check();
    }
    for request in requests {
        let id = request.id;
        let compute = ModelCompute::new(&model, &one, 8, CacheFormat::F32);
        assert_eq!(answers[&id], alone(compute, request).0, "request {id}");
    }
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_reason() {
    let limits = Limits { context_tokens_max: PAGE_LEN, pages: 4, ..Limits::default() };
    let mut engine = Engine::new(Stub::new(4), limits);
    let plain = |id, prompt: Vec<u32>| Request {
        id,
        owner: 0,
        prompt,
        sampling: Sampling::default(),
        max_tokens: 3,
        stop_tokens: vec![],
        top_logprobs: 0,
        constraint: None,
    };
    let mut hot = plain(5, vec![1]);
    hot.sampling.temperature = 99.0;
    let mut inbox = vec![
        Command::Submit(plain(0, vec![])),
        Command::Submit(plain(1, vec![1; PAGE_LEN])),
        Command::Submit(plain(2, vec![VOCAB as u32])),
        Command::Submit(plain(3, vec![1])),
        Command::Submit(plain(3, vec![1])),
        Command::Submit(hot),
    ];
    let refused: Vec<String> = engine
        .step(&mut inbox)
        .into_iter()
        .filter_map(|e| match e {
            Event::Refused(id, refusal) => Some(format!("{id}: {refusal}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        refused,
        [
            "0: the prompt has no tokens",
            "1: the prompt has 64 tokens; with an answer the limit is 64",
            "2: token 40 is not of the vocabulary of 40",
            "3: there is a request 3 already",
            "5: temperature is 99; it must be between 0 and 10",
        ]
    );
}

#[test]
fn cancelling_frees_pages_within_the_step() {
    let limits = Limits { pages: 8, context_tokens_max: 8 * PAGE_LEN, ..Limits::default() };
    let mut engine = Engine::new(Stub::new(8), limits);
    let sampling = Sampling::default();
    let (prompt, stop_tokens) = (vec![3; 200], vec![]);
    let long =
        Request { id: 1, owner: 0, prompt, sampling, max_tokens: 100, stop_tokens, top_logprobs: 0, constraint: None };
    engine.step(&mut vec![Command::Submit(long)]);
    let events = engine.step(&mut vec![Command::Cancel(1), Command::Cancel(99)]);
    assert!(matches!(&events[..], [Event::Finished { id: 1, finish: Finish::Cancelled, .. }]));
    assert!(engine.is_idle());
    engine.check();
}

/// Begins with token 7 and never says the same token twice in a row.
#[derive(Clone)]
struct Alternate {
    last: Option<u32>,
}

impl Constraint for Alternate {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        Ok(self.last.map_or(Allowed::Only(7), |last| Allowed::Except(vec![last])))
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        if self.last == Some(token) {
            return Err(ConstraintError("twice".into()));
        }
        self.last = Some(token);
        Ok(())
    }

    fn copy(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn a_constraint_holds_for_every_token_and_in_any_company() {
    let mut random = Random(991);
    let constrained = |mut request: Request| {
        request.constraint = Some(Box::new(Alternate { last: None }));
        request.stop_tokens.clear();
        request
    };
    let requests: Vec<Request> = (0..10).map(|id| constrained(request(&mut random, id, VOCAB, 200))).collect();
    let limits = Limits { running_max: 6, context_tokens_max: 8 * PAGE_LEN, pages: 10, ..Limits::default() };
    let mut engine = Engine::new(Stub::new(limits.pages), limits);
    let mut inbox: Vec<Command> = requests.iter().cloned().map(Command::Submit).collect();
    let mut answers: HashMap<u64, Tokens> = HashMap::new();
    while !engine.is_idle() || !inbox.is_empty() {
        for event in engine.step(&mut inbox) {
            match event {
                Event::Token { id, token, logprob, top } => {
                    assert_eq!(top.len(), 2);
                    answers.entry(id).or_default().push((token, logprob.to_bits()));
                }
                Event::Finished { finish, .. } => assert_eq!(finish, Finish::Length),
                _ => {}
            }
        }
        engine.check();
    }
    for request in requests {
        let got = &answers[&request.id];
        assert!(got[0].0 == 7 && got.windows(2).all(|w| w[0].0 != w[1].0));
        assert_eq!(got, &alone(Stub::new(16), request).0);
    }
    assert_eq!(engine.page_use().held, 0);
}
