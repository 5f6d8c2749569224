//! The scheduler under a seeded simulation: requests arrive, share beginnings, are cancelled and put
//! back for want of pages; every answer must be the one that the request gets alone.
//!
//! A failure prints its seed; `SEED=n cargo test -p engine --test simulation` runs that one.

use std::collections::HashMap;
use std::path::Path;

use engine::compute::ModelCompute;
use engine::constraint::{Allowed, Constraint, ConstraintError};
use engine::drafts::{DraftCount, Drafts};
use engine::limits::Limits;
use engine::pages::PageId;
use engine::request::{Command, EmbedRequest, Event, Finish, Pooling, Refusal, Request, Restored};
use engine::sampler::{Sampler, Sampling};
use engine::session::Session;
use engine::step::{Compute, Engine};
use kernels::attention::{CacheFormat, Chunk, PAGE_LEN};
use kernels::pool::Pool;
use model::cache::Cache;
use model::forward::{Activations, Batch, Runner};
use model::load::Model;

const VOCAB: usize = 40;

/// A model whose next token is a hash of what its cache holds, so that a wrong page shows.
struct Stub {
    cache: Vec<u32>,
    /// It goes by the last so many tokens only, except at every 37th position: its texts repeat themselves for a
    /// while, so that drafts are right, wrong, and right for a part.
    memory: usize,
}

impl Stub {
    fn new(pages: usize) -> Stub {
        Stub::forgetful(pages, usize::MAX)
    }

    fn forgetful(pages: usize, memory: usize) -> Stub {
        Stub { cache: vec![u32::MAX; pages * PAGE_LEN], memory }
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
            let from = if last % 37 == 0 { 0 } else { (last + 1).saturating_sub(self.memory) };
            for p in from..=last {
                hash = (hash ^ self.cache[slot(chunk, p)] as u64).wrapping_mul(0x0100_0000_01b3);
            }
            logits.extend((0..VOCAB as u64).map(|t| {
                let mixed = (hash ^ t).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (mixed >> 40) as f32 / (1u64 << 24) as f32 * 6.0
            }));
        }
        logits
    }

    fn page_bytes(&self) -> usize {
        4 * PAGE_LEN
    }

    fn read_page(&self, page: PageId, out: &mut Vec<u8>) {
        let tokens = &self.cache[page as usize * PAGE_LEN..][..PAGE_LEN];
        out.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    }

    fn write_page(&mut self, page: PageId, bytes: &[u8]) {
        let places = self.cache[page as usize * PAGE_LEN..].iter_mut();
        places.zip(bytes.as_chunks::<4>().0).for_each(|(to, from)| *to = u32::from_le_bytes(*from));
    }
}

/// Pages that were kept elsewhere: by owner and by the text to their end.
#[derive(Default)]
struct Kept(HashMap<(u64, Vec<u32>), Vec<u8>>);

impl Kept {
    /// Keeps what the last step made known.
    fn keep(&mut self, engine: &Engine<impl Compute>) {
        for published in engine.published() {
            for &(place, page) in &published.pages {
                let mut bytes = Vec::new();
                engine.compute().read_page(page, &mut bytes);
                assert_eq!(bytes.len(), engine.compute().page_bytes());
                let text = published.tokens[..(place + 1) * PAGE_LEN].to_vec();
                self.0.insert((published.owner, text), bytes);
            }
        }
    }

    /// The pages that a request begins with, from `first` on.
    fn find(&self, request: &Request, first: usize) -> Restored {
        let text = |place: usize| request.prompt.get(..(place + 1) * PAGE_LEN).map(<[u32]>::to_vec);
        let pages = (first..).map_while(|place| self.0.get(&(request.owner, text(place)?)).cloned()).collect();
        Restored { owner: request.owner, tokens: request.prompt.clone(), first, pages }
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
                Event::Started { .. } | Event::Embedded { .. } => {}
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
    let frequency_penalty = if random.below(2) == 0 { 0.3 } else { 0.0 };
    let sampling = Sampling { temperature, seed: random.0, frequency_penalty, ..Sampling::default() };
    let (max_tokens, stop) = (1 + random.below(longest), random.below(vocab) as u32);
    let (owner, stop_tokens) = (random.below(3) as u64, vec![stop]);
    Request { id, owner, prompt, sampling, max_tokens, stop_tokens, top_logprobs: 2, constraint: None }
}

#[test]
fn every_answer_is_the_one_it_gets_alone() {
    let only = std::env::var("SEED").ok().map(|s| s.parse::<u64>().unwrap());
    let (mut put_back, mut shared, mut restored) = (0, 0, 0);
    let mut drafts = DraftCount::default();
    for seed in only.map_or(1..300, |s| s..s + 1) {
        let (p, s, r, d) = simulate(seed);
        put_back += p;
        shared += s;
        restored += r;
        drafts.add(d);
    }
    if only.is_none() {
        let wrong = drafts.drafted - drafts.accepted;
        assert!(wrong > 5000 && drafts.accepted > 5000, "drafts are wrong as well as right ({drafts:?})");
        assert!(restored > 300, "the simulation restores pages ({restored})");
        assert!(put_back > 100, "the simulation puts requests back ({put_back})");
        assert!(shared > 1000, "the simulation shares pages ({shared} tokens)");
    }
}

/// One run; how often requests were put back, tokens found in the cache, pages that were restored, and drafts.
fn simulate(seed: u64) -> (usize, usize, usize, DraftCount) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let pages = 8 + random.below(24);
    let memory = [usize::MAX, 2, 1][random.below(3)];
    let drafts = [Drafts::ALWAYS, Drafts::AUTO, Drafts::Off, Drafts::ALWAYS][random.below(4)];
    let limits = Limits {
        running_max: 1 + random.below(10),
        waiting_max: 20,
        waiting_per_owner_max: 12,
        batch_tokens_max: 10 + random.below(200),
        chunk_tokens_max: 1 + random.below(100),
        context_tokens_max: 8 * PAGE_LEN,
        pages,
        drafts,
    };
    let mut drafted = DraftCount::default();
    let mut engine = Engine::new(Stub::forgetful(pages, memory), limits);
    engine.tell_published();
    let (mut kept, mut restored) = (Kept::default(), 0);
    let mut requests: HashMap<u64, Request> = HashMap::new();
    let mut answers: HashMap<u64, Tokens> = HashMap::new();
    let (mut next, mut done, mut put_back, mut shared, mut steps) = (0, 0, 0, 0, 0);
    while next < 25 || !engine.is_idle() {
        steps += 1;
        assert!(steps < 50_000, "seed {seed}: no end in sight");
        let mut inbox = Vec::new();
        while next < 25 && random.below(4) == 0 {
            let request = request(&mut random, next, VOCAB, 200);
            if random.below(2) == 0 {
                // Sometimes from a place that is not the right one any more.
                let known = engine.known_pages(request.owner, &request.prompt);
                let found = kept.find(&request, (known + random.below(3)).saturating_sub(1));
                restored += found.pages.len();
                inbox.push(Command::Restore(found));
            }
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
                Event::Embedded { .. } => panic!("seed {seed}: nobody asked for a vector"),
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
                    let (want, ended) = alone(Stub::forgetful(16, memory), request);
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
        drafted.add(engine.drafts());
        engine.check();
        kept.keep(&engine);
    }
    assert!(requests.is_empty(), "seed {seed}: {} requests never ended, {done} did", requests.len());
    (put_back, shared, restored, drafted)
}

#[test]
fn a_prefix_has_the_same_bits_computed_from_memory_and_from_elsewhere() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/models/deepseek-v3");
    let model = Model::open(&path).unwrap();
    let pool = Pool::new(2);
    for format in [CacheFormat::F32, CacheFormat::BF16, CacheFormat::Int8] {
        let limits = Limits { chunk_tokens_max: 30, context_tokens_max: 6 * PAGE_LEN, pages: 12, ..Limits::default() };
        let make = || {
            let mut engine = Engine::new(ModelCompute::new(&model, &pool, limits.pages, format), limits);
            engine.tell_published();
            engine
        };
        let (mut kept, mut first, mut again) = (Kept::default(), make(), make());
        let prompt: Vec<u32> = (0..200).map(|i| (i * i * 7 + i) % model.spec.vocab as u32).collect();
        let ask = Request {
            id: 0,
            owner: 1,
            prompt,
            sampling: Sampling { temperature: 1.0, seed: 5, ..Sampling::default() },
            max_tokens: 30,
            stop_tokens: vec![],
            top_logprobs: 0,
            constraint: None,
        };
        let computed = answer(&mut first, &mut kept, &ask);
        let remembered = answer(&mut first, &mut kept, &Request { id: 1, ..ask.clone() });
        let found = kept.find(&ask, 0);
        assert_eq!(found.pages.len(), 3);
        let others = Restored { owner: 2, tokens: ask.prompt.clone(), first: 0, pages: Vec::new() };
        again.step(&mut vec![Command::Restore(found), Command::Restore(others)]);
        let stranger = answer(&mut again, &mut kept, &Request { owner: 2, ..ask.clone() });
        let restored = answer(&mut again, &mut kept, &ask);
        assert_eq!((computed.1, remembered.1, stranger.1, restored.1), (0, 192, 0, 192), "cached tokens");
        assert!(computed.0 == remembered.0 && computed.0 == restored.0 && computed.0 == stranger.0, "{format:?}");
    }
}

/// The answer to a request, and how many tokens of its prompt were in the cache.
fn answer(engine: &mut Engine<impl Compute>, kept: &mut Kept, request: &Request) -> (Tokens, usize) {
    let (mut inbox, mut tokens, mut cached) = (vec![Command::Submit(request.clone())], Vec::new(), 0);
    while !engine.is_idle() || !inbox.is_empty() {
        for event in engine.step(&mut inbox) {
            match event {
                Event::Token { token, logprob, .. } => tokens.push((token, logprob.to_bits())),
                Event::Finished { usage, .. } => cached = usage.cached_tokens,
                _ => {}
            }
        }
        kept.keep(engine);
    }
    engine.check();
    (tokens, cached)
}

#[test]
fn vectors_are_the_same_in_any_company() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/models/deepseek-v3");
    let model = Model::open(&path).unwrap();
    let pool = Pool::new(2);
    let text: Vec<u32> = (0..150).map(|i| (i * i * 5 + i) % model.spec.vocab as u32).collect();
    let mut random = Random(5);
    for pooling in [Pooling::Last, Pooling::Mean] {
        let mut seen: Vec<Vec<u32>> = Vec::new();
        for (chunk_tokens_max, company) in [(256, 0), (17, 0), (40, 3)] {
            let limits = Limits { chunk_tokens_max, context_tokens_max: 6 * PAGE_LEN, pages: 30, ..Limits::default() };
            let mut engine = Engine::new(ModelCompute::new(&model, &pool, limits.pages, CacheFormat::F32), limits);
            let others = (10..10 + company).map(|id| request(&mut random, id, model.spec.vocab, 90));
            let mut inbox: Vec<Command> = others.map(Command::Submit).collect();
            let ask = |id| Command::Embed(EmbedRequest { id, owner: 0, tokens: text.clone(), pooling });
            inbox.extend([ask(0), ask(1)]);
            while !engine.is_idle() || !inbox.is_empty() {
                for event in engine.step(&mut inbox) {
                    match event {
                        Event::Embedded { vector, .. } => {
                            let length: f32 = vector.iter().map(|v| v * v).sum();
                            assert!(vector.len() == model.spec.hidden && (length - 1.0).abs() < 1e-5);
                            seen.push(vector.iter().map(|v| v.to_bits()).collect());
                        }
                        Event::Finished { id, usage, .. } if id < 2 => {
                            assert_eq!((usage.prompt_tokens, usage.completion_tokens), (150, 0));
                        }
                        _ => {}
                    }
                }
                engine.check();
            }
        }
        assert!(seen.len() == 6 && seen.iter().all(|vector| vector == &seen[0]), "{pooling:?}");
        // What the head reads, computed in one piece.
        let runner = Runner::new(&model, &pool);
        let mut cache = Cache::new(&model.spec, CacheFormat::F32, 3);
        let chunks = [Chunk { first_row: 0, rows: text.len(), position: 0, pages: &[0, 1, 2] }];
        let (batch, wanted) = (Batch { tokens: &text, chunks: &chunks }, (0..text.len()).collect::<Vec<_>>());
        let rows = runner.hidden(&batch, &mut cache, &mut Activations::default(), &wanted);
        let rows: Vec<&[f32]> = rows.chunks_exact(model.spec.hidden).collect();
        let used = if pooling == Pooling::Last { &rows[rows.len() - 1..] } else { &rows[..] };
        let sum: Vec<f64> =
            (0..model.spec.hidden).map(|i| used.iter().map(|row| f64::from(row[i])).sum::<f64>()).collect();
        let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
        for (bits, want) in seen[0].iter().zip(sum) {
            assert!((f64::from(f32::from_bits(*bits)) - want / length).abs() < 1e-6);
        }
    }
    let mut engine = Engine::new(Stub::new(4), Limits { context_tokens_max: PAGE_LEN, pages: 4, ..Limits::default() });
    let none = EmbedRequest { id: 0, owner: 0, tokens: vec![1], pooling: Pooling::Last };
    let events = engine.step(&mut vec![Command::Embed(none)]);
    assert_eq!(events, [Event::Refused(0, Refusal::NoEmbeddings)]);
}

#[test]
fn equal_prompts_at_the_same_time_are_computed_once() {
    let limits = Limits { chunk_tokens_max: 50, context_tokens_max: 8 * PAGE_LEN, pages: 32, ..Limits::default() };
    let mut engine = Engine::new(Stub::new(limits.pages), limits);
    let prompt: Vec<u32> = (0..(3 * PAGE_LEN + 10) as u32).map(|i| i % VOCAB as u32).collect();
    let ask = |id, owner| Request {
        id,
        owner,
        prompt: prompt.clone(),
        sampling: Sampling { temperature: 1.0, seed: id, ..Sampling::default() },
        max_tokens: 1,
        stop_tokens: vec![],
        top_logprobs: 0,
        constraint: None,
    };
    let mut inbox: Vec<Command> = (0..4).map(|id| Command::Submit(ask(id, 0))).collect();
    inbox.push(Command::Submit(ask(4, 1)));
    let (mut computed, mut held) = (0, 0);
    while !engine.is_idle() || !inbox.is_empty() {
        engine.step(&mut inbox);
        computed += engine.rows().iter().map(|(_, rows)| rows).sum::<usize>();
        held = held.max(engine.page_use().held);
        engine.check();
    }
    // Once for each owner, and the last, partial page for each answer.
    assert_eq!(computed, 2 * 3 * PAGE_LEN + 5 * 10);
    assert!(held <= 2 * 3 + 5, "{held} pages");
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

/// A prompt whose answer is of two or three tokens, so that there is something to look up, right and wrong.
fn repeating(random: &mut Random, id: u64, vocab: usize) -> Request {
    let plain = request(random, id, vocab, 90);
    let logit_bias = (0..2 + id as u32 % 2).map(|i| (3 + 5 * i, 90.0)).collect();
    let sampling = Sampling { frequency_penalty: 0.0, logit_bias, ..plain.sampling.clone() };
    Request { sampling, stop_tokens: Vec::new(), max_tokens: 60, ..plain }
}

#[test]
fn a_tiny_latent_attention_model_gives_the_same_bits_with_drafts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/models/deepseek-v3");
    let model = Model::open(&path).unwrap();
    let (one, two) = (Pool::new(1), Pool::new(2));
    let mut random = Random(78);
    let requests: Vec<Request> = (0..10).map(|id| repeating(&mut random, id, model.spec.vocab)).collect();
    let limits = Limits {
        running_max: 3,
        context_tokens_max: 5 * PAGE_LEN,
        pages: 9,
        drafts: Drafts::ALWAYS,
        ..Limits::default()
    };
    for format in [CacheFormat::F32, CacheFormat::Int8] {
        let mut engine = Engine::new(ModelCompute::new(&model, &two, limits.pages, format), limits);
        let mut inbox: Vec<Command> = requests.iter().cloned().map(Command::Submit).collect();
        let mut answers: HashMap<u64, Tokens> = HashMap::new();
        let mut drafts = DraftCount::default();
        while !engine.is_idle() || !inbox.is_empty() {
            for event in engine.step(&mut inbox) {
                if let Event::Token { id, token, logprob, .. } = event {
                    answers.entry(id).or_default().push((token, logprob.to_bits()));
                }
            }
            drafts.add(engine.drafts());
            engine.check();
        }
        assert!(drafts.drafted > drafts.accepted && drafts.accepted > 0, "{drafts:?}");
        for request in &requests {
            let compute = ModelCompute::new(&model, &one, 8, format);
            assert_eq!(answers[&request.id], alone(compute, request.clone()).0, "request {}", request.id);
        }
    }
}

#[test]
fn a_session_gives_the_same_logits_with_drafts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/models/deepseek-v3");
    let model = Model::open(&path).unwrap();
    let pool = Pool::new(2);
    let mut random = Random(79);
    let mut plain = Session::new(&model, &pool, 160, CacheFormat::F32);
    let mut drafting = Session::new(&model, &pool, 160, CacheFormat::F32);
    drafting.set_drafts(Drafts::AUTO);
    for id in 0..6 {
        let ask = repeating(&mut random, id, model.spec.vocab);
        let mut sampler = Sampler::new(ask.sampling.clone(), &ask.prompt, model.spec.vocab).unwrap();
        let mut want = plain.prompt(&ask.prompt, |_| true).unwrap().unwrap();
        let mut got = drafting.prompt(&ask.prompt, |_| true).unwrap().unwrap();
        loop {
            assert!(want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()), "prompt {id}");
            assert_eq!(plain.tokens(), drafting.tokens());
            if plain.tokens().len() == plain.context() {
                break;
            }
            let token = sampler.sample(&want).unwrap().token;
            want = plain.push(token).unwrap();
            got = drafting.push(token).unwrap();
        }
    }
    let drafts = drafting.drafted();
    assert!(drafts.drafted > drafts.accepted && drafts.accepted > 0, "{drafts:?}");
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
fn an_answer_ends_within_a_draft_where_it_ends_without() {
    let limits = Limits { pages: 8, context_tokens_max: 3 * PAGE_LEN, drafts: Drafts::ALWAYS, ..Limits::default() };
    let ask = |max_tokens, stop_tokens| Request {
        id: 0,
        owner: 0,
        prompt: vec![1, 2, 3, 1, 2, 3, 1, 2],
        sampling: Sampling::default(),
        max_tokens,
        stop_tokens,
        top_logprobs: 0,
        constraint: None,
    };
    let whole = alone(Stub::forgetful(16, 2), ask(150, vec![])).0;
    let mut drafts = DraftCount::default();
    for n in 1..=150 {
        for stop in [vec![], vec![whole[n - 1].0]] {
            let request = ask(if stop.is_empty() { n } else { 150 }, stop);
            let mut engine = Engine::new(Stub::forgetful(limits.pages, 2), limits);
            let (mut inbox, mut tokens) = (vec![Command::Submit(request.clone())], Vec::new());
            let (mut ended, mut steps) = (None, 0);
            while ended.is_none() {
                for event in engine.step(&mut inbox) {
                    match event {
                        Event::Token { token, logprob, .. } => tokens.push((token, logprob.to_bits())),
                        Event::Finished { finish, usage, .. } => ended = Some((finish, usage.completion_tokens)),
                        _ => {}
                    }
                }
                steps += 1;
                drafts.add(engine.drafts());
                engine.check();
            }
            let (want, finish) = alone(Stub::forgetful(16, 2), request);
            assert_eq!((&tokens, ended), (&want, Some((finish, want.len()))));
            assert!(steps <= want.len(), "{steps} steps for {} tokens", want.len());
        }
    }
    assert!(drafts.accepted > 1000, "{drafts:?}");
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
    let limits = Limits {
        running_max: 6,
        context_tokens_max: 8 * PAGE_LEN,
        pages: 10,
        drafts: Drafts::ALWAYS,
        ..Limits::default()
    };
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

/// Says its tokens and nothing else.
#[derive(Clone)]
struct Dictated {
    tokens: Vec<u32>,
    said: usize,
    /// Whether it tells what comes.
    tells: bool,
}

impl Constraint for Dictated {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        Ok(Allowed::Only(self.tokens[self.said]))
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        assert_eq!(token, self.tokens[self.said]);
        self.said += 1;
        Ok(())
    }

    fn certain(&self, most: usize) -> Vec<u32> {
        let next = self.tokens.iter().skip(self.said).filter(|_| self.tells);
        next.take(most).copied().collect()
    }

    fn copy(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn what_is_certain_is_computed_together_with_the_same_bits() {
    let mut random = Random(77);
    let count = 3 * PAGE_LEN + 11;
    let dictation: Vec<Vec<u32>> = (0..5).map(|_| (0..count).map(|_| random.below(VOCAB) as u32).collect()).collect();
    let limits = Limits { running_max: 4, context_tokens_max: 8 * PAGE_LEN, pages: 12, ..Limits::default() };
    let mut outcomes = [true, false].map(|tells| {
        let mut engine = Engine::new(Stub::new(limits.pages), limits);
        let ask = |(id, tokens): (u64, &Vec<u32>)| {
            let constraint = Dictated { tokens: tokens.clone(), said: 0, tells };
            let mut request = request(&mut Random(id + 1), id, VOCAB, 200);
            (request.prompt, request.max_tokens, request.stop_tokens) = (vec![3], count, Vec::new());
            Command::Submit(Request { constraint: Some(Box::new(constraint)), ..request })
        };
        let mut inbox: Vec<Command> = (0..).zip(&dictation).map(ask).collect();
        let (mut answers, mut steps) = (HashMap::<u64, Tokens>::new(), 0);
        while !engine.is_idle() || !inbox.is_empty() {
            for event in engine.step(&mut inbox) {
                if let Event::Token { id, token, logprob, .. } = event {
                    answers.entry(id).or_default().push((token, logprob.to_bits()));
                }
            }
            engine.check();
            steps += 1;
        }
        (answers, steps)
    });
    let (told, untold) = (std::mem::take(&mut outcomes[0]), std::mem::take(&mut outcomes[1]));
    assert_eq!(told.0, untold.0);
    assert!((0..).zip(&dictation).all(|(id, tokens)| told.0[&id].iter().map(|(token, _)| token).eq(tokens)));
    assert!(told.1 <= 14 && untold.1 > count, "{} and {} steps", told.1, untold.1);
}
