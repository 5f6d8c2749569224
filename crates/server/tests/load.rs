//! Many at once, and many that go away. Counts are small here; the full ones are set from outside:
//!
//!     FATHOM_STREAMS=1000 FATHOM_DISCONNECTS=10000 cargo test --release -p server --test load -- --nocapture
//!
//! Figures are printed; only in full runs are times compared with limits.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Gate, Running, Setup, ask_with, fixture};
use engine::compute::ModelCompute;
use engine::limits::Limits as EngineLimits;
use engine::pages::PageId;
use engine::step::{Chunk, Compute};
use kernels::attention::CacheFormat;
use kernels::pool::Pool;
use model::cache::Cache;
use model::load::Model;
use serde_json::{Value, json};
use server::limits::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn count(name: &str, usual: usize) -> (usize, bool) {
    let given = std::env::var(name).ok().map(|count| count.parse::<usize>().unwrap());
    (given.unwrap_or(usual), given.is_some())
}

/// A real model (latent attention, experts) that waits at the gate.
struct Gated {
    inner: ModelCompute<'static>,
    gate: Arc<Gate>,
}

impl Compute for Gated {
    fn vocab(&self) -> usize {
        self.inner.vocab()
    }

    fn run(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        self.gate.pass();
        self.inner.run(tokens, chunks, wanted)
    }

    fn page_bytes(&self) -> usize {
        self.inner.page_bytes()
    }

    fn read_page(&self, page: PageId, out: &mut Vec<u8>) {
        self.inner.read_page(page, out);
    }

    fn write_page(&mut self, page: PageId, bytes: &[u8]) {
        self.inner.write_page(page, bytes);
    }
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Open files of this process.
fn handles() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

const PROMPTS: usize = 20;
const TOKENS: u32 = 24;

/// Request `i` of many: a few prompts, each with its seed.
fn request(i: usize) -> Value {
    let i = i % PROMPTS;
    let text = format!("Tell me about the number {i}. ").repeat(1 + i % 4);
    let more = json!({"seed": i, "temperature": 1.0, "max_tokens": TOKENS, "stream": true, "logprobs": true});
    ask_with(&text, more)
}

/// What a stream says, with the log-probability of every token; `None` if it is not whole.
fn said(body: &str) -> Option<String> {
    let mut all = String::new();
    for data in body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
        if data == "[DONE]" {
            return Some(all);
        }
        let chunk: Value = serde_json::from_str(data).ok()?;
        let choice = &chunk["choices"][0];
        for field in ["content", "reasoning_content"] {
            all.push_str(choice["delta"][field].as_str().unwrap_or_default());
            for entry in choice["logprobs"][field].as_array().into_iter().flatten() {
                all.push_str(&format!("|{}", entry["logprob"]));
            }
        }
    }
    None
}

#[tokio::test]
async fn many_streams_at_once_say_what_each_says_alone() {
    let (streams, full) = count("FATHOM_STREAMS", 60);
    let model: &'static Model = Box::leak(Box::new(Model::open(&fixture()).unwrap()));
    let pool: &'static Pool = Box::leak(Box::new(Pool::new(2)));
    let pages = 4 * streams + 64;
    let engine = EngineLimits {
        running_max: streams,
        waiting_max: streams,
        waiting_per_owner_max: streams,
        batch_tokens_max: 2048.max(streams),
        context_tokens_max: 1024,
        pages,
        ..EngineLimits::default()
    };
    let limits = Limits { answers_max: streams, answers_per_key_max: streams, ..Limits::default() };
    let server = Running::on(Setup { limits, engine, ..Setup::default() }, move |engine, gate| Gated {
        inner: ModelCompute::new(model, pool, engine.pages, CacheFormat::F32),
        gate: Arc::clone(gate),
    });
    let server = Arc::new(server);
    let ask = |i: usize| {
        let server = Arc::clone(&server);
        async move {
            let sent = server.client.post(server.url("/v1/chat/completions")).json(&request(i)).send().await.unwrap();
            assert_eq!(sent.status(), 200);
            sent.text().await.unwrap()
        }
    };
    let mut alone = Vec::new();
    for i in 0..PROMPTS {
        alone.push(said(&ask(i).await).expect("a whole stream"));
    }
    assert!(alone.iter().any(|text| text != &alone[0]));
    server.assert_at_rest().await;
    // The cache's memory is touched page by page: what it may come to is taken off.
    let cache_bytes = Cache::page_bytes(&model.spec, CacheFormat::F32) * pages;
    let before = resident();
    server.gate.close();
    let running: Vec<_> = (0..streams).map(|i| tokio::spawn(ask(i))).collect();
    while server.handle.load().2 < streams {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begin = Instant::now();
    let refused = server.client.post(server.url("/v1/chat/completions")).json(&request(0)).send().await.unwrap();
    let refused_after = begin.elapsed();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    let opened = resident();
    let begin = Instant::now();
    server.gate.open();
    let mut peak = opened;
    for (i, stream) in running.into_iter().enumerate() {
        let body = stream.await.unwrap();
        assert_eq!(said(&body).expect("a whole stream"), alone[i % PROMPTS], "stream {i}");
        peak = peak.max(resident());
    }
    let (took, each) = (begin.elapsed(), peak.saturating_sub(before + cache_bytes) / streams);
    server.assert_at_rest().await;
    let rate = (streams * TOKENS as usize) as f64 / took.as_secs_f64();
    println!(
        "{streams} streams: all as alone; the next refused after {refused_after:.1?}; {took:.1?}, {rate:.0} tokens/s; \
         {} KiB each beside the cache, client and server together",
        each >> 10
    );
    if full {
        assert!(refused_after < Duration::from_millis(100), "refused after {refused_after:?}");
        assert!(each < 256 << 10, "{each} bytes a stream");
    }
}

#[tokio::test]
async fn clients_that_go_away_leave_nothing_behind() {
    let (disconnects, _) = count("FATHOM_DISCONNECTS", 300);
    let server = Arc::new(Running::start());
    assert_eq!(server.get("/health").await.0, 200);
    let expected = server.chat(ask_with("SAY:still the same", json!({}))).await["choices"].clone();
    server.assert_at_rest().await;
    let (before, begin) = (handles(), Instant::now());
    let gone = |i: usize| {
        let address = server.address;
        async move {
            let more = json!({"max_tokens": 300, "stream": i % 3 != 0, "n": 1 + i % 2});
            let body = ask_with(&format!("words {i} ").repeat(i % 40), more).to_string();
            let head = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 connection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let whole = [head.as_bytes(), body.as_bytes()].concat();
            let mut socket = TcpStream::connect(address).await.unwrap();
            // Some go in the middle of what they send, some before the first byte of the answer, some later.
            let sent = if i % 5 == 0 { whole.len() * (i % 97) / 97 } else { whole.len() };
            socket.write_all(&whole[..sent]).await.unwrap();
            let mut left = if i % 5 == 0 { 0 } else { (i * 7919) % 6000 };
            let mut buffer = [0; 1024];
            while left > 0 {
                let room = left.min(buffer.len());
                match tokio::time::timeout(Duration::from_secs(20), socket.read(&mut buffer[..room])).await {
                    Ok(Ok(count)) if count > 0 => left -= count,
                    _ => break,
                }
            }
        }
    };
    for first in (0..disconnects).step_by(40) {
        let group: Vec<_> = (first..disconnects.min(first + 40)).map(|i| tokio::spawn(gone(i))).collect();
        for one in group {
            one.await.unwrap();
        }
    }
    let took = begin.elapsed();
    server.assert_at_rest().await;
    for _ in 0..2000 {
        // The one of this test's own client may stay open.
        if server.handle.connections() <= 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(server.handle.connections() <= 1, "{} connections", server.handle.connections());
    let after = handles();
    assert!(after <= before + 2, "{before} open files before, {after} after");
    assert_eq!(server.chat(ask_with("SAY:still the same", json!({}))).await["choices"], expected);
    println!("{disconnects} disconnects in {took:.1?}: nothing held, {before} open files before and {after} after");
}
