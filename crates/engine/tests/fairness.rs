//! Who is served when: owners take turns, and a long prompt stops nobody.

use engine::limits::Limits;
use engine::request::{Command, Event, Request, RequestId};
use engine::sampler::Sampling;
use engine::step::{Compute, Engine};
use kernels::attention::{Chunk, PAGE_LEN};

const VOCAB: usize = 8;

/// A model that finds every token equally likely.
struct Flat;

impl Compute for Flat {
    fn vocab(&self) -> usize {
        VOCAB
    }

    fn run(&mut self, _: &[u32], _: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        vec![0.0; wanted.len() * VOCAB]
    }
}

/// A prompt that has nothing in common with those of other requests.
fn ask(id: RequestId, owner: u64, prompt_len: usize, max_tokens: usize) -> Command {
    let prompt = (0..prompt_len).map(|i| (id as usize + i) as u32 % VOCAB as u32).collect();
    let (sampling, stop_tokens) = (Sampling { temperature: 0.0, ..Sampling::default() }, Vec::new());
    Command::Submit(Request { id, owner, prompt, sampling, max_tokens, stop_tokens, top_logprobs: 0, constraint: None })
}

fn engine(running_max: usize) -> Engine<Flat> {
    let limits = Limits {
        running_max,
        batch_tokens_max: 64,
        chunk_tokens_max: 32,
        context_tokens_max: 32 * PAGE_LEN,
        pages: 64,
        ..Limits::default()
    };
    Engine::new(Flat, limits)
}

fn started(events: &[Event]) -> impl Iterator<Item = RequestId> + '_ {
    events.iter().filter_map(|event| match event {
        Event::Started { id, .. } => Some(*id),
        _ => None,
    })
}

#[test]
fn the_key_with_one_request_does_not_wait_for_the_one_with_many() {
    let mut engine = engine(2);
    let mut inbox: Vec<Command> = (1..=8).map(|id| ask(id, 1, 4, 5)).collect();
    inbox.push(ask(9, 2, 4, 5));
    let mut order = Vec::new();
    while !inbox.is_empty() || !engine.is_idle() {
        order.extend(started(&engine.step(&mut inbox)));
        if order.len() == 4 && !order.contains(&10) {
            // One more of the second key, while both places are taken by the first and six of it wait.
            inbox.push(ask(10, 2, 4, 5));
        }
        engine.check();
        assert!(order.len() < 20);
    }
    let place = |id| order.iter().position(|&other| other == id).unwrap();
    assert_eq!((order.len(), place(9)), (10, 1), "{order:?}");
    assert!(place(10) <= 5, "the next place that is free: {order:?}");
}

#[test]
fn a_long_prompt_is_read_between_the_tokens_of_others() {
    let mut engine = engine(4);
    engine.step(&mut vec![ask(1, 1, 4, 200)]);
    let mut inbox = vec![ask(2, 1, 1000, 1), ask(3, 2, 20, 1)];
    let (mut steps, mut short) = (0, None);
    let read = loop {
        let events = engine.step(&mut inbox);
        steps += 1;
        let told = |wanted| events.iter().any(|event| matches!(event, Event::Token { id, .. } if *id == wanted));
        let rows = engine.rows();
        assert!(told(1), "step {steps}: whoever answers gets a token in every step");
        assert!(rows.iter().all(|&(_, count)| count <= 32), "chunks: {rows:?}");
        assert!(rows.iter().map(|(_, count)| count).sum::<usize>() <= 64, "a batch: {rows:?}");
        short = short.or(told(3).then_some(steps));
        if told(2) {
            break steps;
        }
    };
    assert_eq!(read, 1000usize.div_ceil(32), "a chunk in every step");
    assert_eq!(short, Some(1), "the short prompt is read beside the first chunk of the long one");
    engine.check();
}
