//! A server on a stub model that says what it is told to say, for tests over real sockets.
//!
//! The stub reads its context back from the pages that it was given, so that a wrong page shows in its answers. Where
//! the last message has `SAY:text`, it says the text (up to `::END` if that follows); elsewhere its logits are a hash
//! of the whole context.

#![allow(dead_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use engine::limits::Limits as EngineLimits;
use engine::pages::PageId;
use engine::request::Pooling;
use engine::sampler::Sampling;
use engine::step::{Chunk, Compute, Engine, PAGE_LEN};
use serde_json::{Value, json};
use server::limits::Limits;
use server::prompt_cache::PromptCacheOptions;
use server::wire::info::BudgetCurve;
use server::wire::usage::Words;
use server::{Allowed, Embedder, Handle, Options, Served, Server, ServerError};
use text::{ChatTemplate, Specials, Tokenizer};

pub(crate) const VOCAB: usize = 400;
pub(crate) const VECTOR_LEN: usize = 8;
const IM_START: u32 = 392;
const IM_END: u32 = 393;

/// Holds the stub between steps while it is closed.
#[derive(Default)]
pub(crate) struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.changed.notify_all();
    }

    pub(crate) fn pass(&self) {
        let closed = self.closed.lock().unwrap();
        drop(self.changed.wait_while(closed, |closed| *closed).unwrap());
    }
}

pub(crate) struct Stub {
    cache: Vec<u32>,
    tokenizer: &'static Tokenizer,
    gate: Arc<Gate>,
}

impl Compute for Stub {
    fn vocab(&self) -> usize {
        VOCAB
    }

    fn run(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        self.gate.pass();
        let slot = |chunk: &Chunk, p: usize| chunk.pages[p / PAGE_LEN] as usize * PAGE_LEN + p % PAGE_LEN;
        for chunk in chunks {
            for i in 0..chunk.rows {
                self.cache[slot(chunk, chunk.position + i)] = tokens[chunk.first_row + i];
            }
        }
        let mut logits = Vec::with_capacity(wanted.len() * VOCAB);
        for &row in wanted {
            let chunk = chunks.iter().rfind(|c| c.first_row <= row).unwrap();
            let last = chunk.position + row - chunk.first_row;
            let context: Vec<u32> = (0..=last).map(|p| self.cache[slot(chunk, p)]).collect();
            logits.extend(self.logits(&context));
        }
        logits
    }

    fn hidden_len(&self) -> usize {
        VECTOR_LEN
    }

    /// Rows that say the token and its place.
    fn hidden(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        self.run(tokens, chunks, &[]);
        let row = |&row: &usize| {
            let chunk = chunks.iter().rfind(|c| c.first_row <= row).unwrap();
            let (place, token) = (chunk.position + row - chunk.first_row, tokens[row]);
            (0..VECTOR_LEN).map(move |i| ((token as usize * 31 + place * 7 + i * 13) % 97) as f32 - 48.0)
        };
        wanted.iter().flat_map(row).collect()
    }

    fn page_bytes(&self) -> usize {
        4 * PAGE_LEN
    }

    fn read_page(&self, page: PageId, out: &mut Vec<u8>) {
        out.extend(self.cache[page as usize * PAGE_LEN..][..PAGE_LEN].iter().flat_map(|token| token.to_le_bytes()));
    }

    fn write_page(&mut self, page: PageId, bytes: &[u8]) {
        let places = self.cache[page as usize * PAGE_LEN..].iter_mut();
        places.zip(bytes.as_chunks::<4>().0).for_each(|(to, from)| *to = u32::from_le_bytes(*from));
    }
}

impl Stub {
    /// One that waits at no gate.
    pub(crate) fn new(engine: &EngineLimits) -> Stub {
        Stub { cache: vec![u32::MAX; engine.pages * PAGE_LEN], tokenizer: tokenizer(), gate: Arc::default() }
    }

    fn logits(&self, context: &[u32]) -> Vec<f32> {
        let hash =
            context.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &t| (h ^ u64::from(t)).wrapping_mul(0x0100_0000_01b3));
        let noise = |t: u64| {
            let mixed = (hash ^ t).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 40) as f32 / (1u64 << 24) as f32 * 6.0
        };
        let mut logits: Vec<f32> = (0..VOCAB as u64).map(noise).collect();
        // Never an end, a marker or a token without text by chance.
        logits[390..].iter_mut().for_each(|logit| *logit -= 40.0);
        if let Some(next) = self.filled(context).or_else(|| self.scripted(context)) {
            logits[next as usize] += 100.0;
        }
        logits
    }

    /// The next token of `[BEFORE|AFTER]`, if a gap is to be filled and the answer has kept to that so far.
    fn filled(&self, context: &[u32]) -> Option<u32> {
        let at = |name: &str| Some(context.iter().position(|&t| Some(t) == self.tokenizer.id(name)));
        let [begin, hole, end] = [at(FILL[0])??, at(FILL[1])??, at(FILL[2])??];
        assert!(begin == 0 && hole < end, "the order of DeepSeek's models");
        let text = |tokens: &[u32]| self.tokenizer.decode(tokens, Specials::Hide);
        let answer = format!("[{}|{}]", text(&context[1..hole]), text(&context[hole + 1..end]));
        let tokens = self.tokenizer.encode(&answer).unwrap();
        tokens.starts_with(&context[end + 1..]).then(|| tokens.get(context.len() - end - 1).copied().unwrap_or(IM_END))
    }

    /// The next token of what the last message asks for, if the answer has kept to it so far.
    fn scripted(&self, context: &[u32]) -> Option<u32> {
        let whole = |text: &str| self.tokenizer.encode_with_specials(text).unwrap();
        let channels = self.tokenizer.id(CHANNELS[0]);
        let header = whole(if channels.is_some() { "<|start|>assistant" } else { "<|im_start|>assistant\n" });
        // An answer in channels has the same header before each of its messages.
        let turn = match channels {
            Some(_) => context.windows(header.len()).position(|window| window == header)?,
            None => context.iter().rposition(|&t| t == IM_START)?,
        };
        let asked = self.tokenizer.decode(&context[..turn], Specials::Hide);
        let script = &asked[asked.rfind("SAY:")? + 4..];
        let script = script.split("::END").next().unwrap_or(script);
        let script = script.strip_suffix('\n').unwrap_or(script);
        assert!(script != "PANIC", "as it was told");
        let said = &context[turn..];
        let said = said.strip_prefix(header.as_slice())?;
        let closed = whole("<think>\n\n</think>\n\n");
        let said = said.strip_prefix(closed.as_slice()).unwrap_or(said);
        let tokens = whole(script);
        tokens.starts_with(said).then(|| tokens.get(said.len()).copied().unwrap_or(IM_END))
    }
}

pub(crate) fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fathom/tests/fixtures/tiny-chat")
}

pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| Tokenizer::from_directory(&fixture()).unwrap())
}

/// DeepSeek's tokens for gaps: before, the gap itself, after.
const FILL: [&str; 3] = ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"];

/// gpt-oss' tokens of channels.
const CHANNELS: [&str; 4] = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>"];
const CHANNELS_TEMPLATE: &str = "{%- for message in messages %}{{- '<|start|>' + message.role + '<|message|>' + \
    message.content + '<|end|>' }}{%- endfor %}{# tools #}{{- '<|start|>assistant' }}";

/// What the stub's vocabulary and template are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Kind {
    /// Turns between markers.
    #[default]
    Plain,
    /// The same, and it can fill gaps.
    Fill,
    /// Messages in channels.
    Channels,
}

impl Kind {
    fn tokenizer(self) -> &'static Tokenizer {
        static FILLING: OnceLock<Tokenizer> = OnceLock::new();
        static CHANNELED: OnceLock<Tokenizer> = OnceLock::new();
        match self {
            Kind::Plain => tokenizer(),
            Kind::Fill => FILLING.get_or_init(|| tokenizer_with(&FILL, None)),
            Kind::Channels => CHANNELED.get_or_init(|| tokenizer_with(&CHANNELS, Some(CHANNELS_TEMPLATE))),
        }
    }
}

/// The same tokenizer with more special tokens, and perhaps another template.
fn tokenizer_with(names: &[&str], template: Option<&str>) -> Tokenizer {
    let directory = tempfile::tempdir().unwrap();
    let read = |file: &str| serde_json::from_slice(&std::fs::read(fixture().join(file)).unwrap()).unwrap();
    let mut tokens: Value = read("tokenizer.json");
    let added = tokens["added_tokens"].as_array_mut().unwrap();
    for name in names {
        let mut token = added[0].clone();
        (token["id"], token["content"]) = (json!(391 + added.len()), json!(name));
        added.push(token);
    }
    let mut config: Value = read("tokenizer_config.json");
    if let Some(template) = template {
        config["chat_template"] = json!(template);
    }
    for (file, value) in [("tokenizer.json", tokens), ("tokenizer_config.json", config)] {
        // In channels an answer ends with a token of its own.
        let end = if template.is_some() { "<|return|>" } else { "<|im_end|>" };
        std::fs::write(directory.path().join(file), value.to_string().replace("<|im_end|>", end)).unwrap();
    }
    for file in ["generation_config.json", "config.json"] {
        std::fs::copy(fixture().join(file), directory.path().join(file)).unwrap();
    }
    Tokenizer::from_directory(directory.path()).unwrap()
}

/// A running server; stopped when it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) gate: Arc<Gate>,
    pub(crate) data: Arc<tempfile::TempDir>,
    pub(crate) client: reqwest::Client,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// How a test wants its server.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) engine: EngineLimits,
    pub(crate) data: Option<Arc<tempfile::TempDir>>,
    /// The identity of the model whose pages are kept on disk.
    pub(crate) prompt_cache: Option<[u8; 32]>,
    pub(crate) kind: Kind,
}

impl Default for Setup {
    fn default() -> Setup {
        let engine = EngineLimits { running_max: 16, context_tokens_max: 1024, pages: 256, ..EngineLimits::default() };
        Setup { limits: Limits::default(), engine, data: None, prompt_cache: None, kind: Kind::Plain }
    }
}

impl Running {
    pub(crate) fn start() -> Running {
        Running::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Running {
        let tokenizer = setup.kind.tokenizer();
        Running::on(setup, move |engine, gate| {
            let cache = vec![u32::MAX; engine.pages * PAGE_LEN];
            Stub { cache, tokenizer, gate: Arc::clone(gate) }
        })
    }

    /// A server on another model than the stub, which passes the gate at each step.
    pub(crate) fn on<C: Compute>(
        setup: Setup,
        compute: impl Fn(&EngineLimits, &Arc<Gate>) -> C + Send + 'static,
    ) -> Running {
        let data = setup.data.unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
        let tokenizer = setup.kind.tokenizer();
        let listen = "127.0.0.1:0".parse().unwrap();
        let context_tokens = setup.engine.context_tokens_max;
        let server =
            bind_with(listen, data.path(), setup.limits, context_tokens, setup.prompt_cache, tokenizer).unwrap();
        let (address, handle, gate) = (server.address().unwrap(), server.handle(), Arc::new(Gate::default()));
        let (engine, stub_gate) = (setup.engine, Arc::clone(&gate));
        let thread = std::thread::spawn(move || {
            server.run(|| Engine::new(compute(&engine, &stub_gate), engine)).unwrap();
        });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Running { address, handle, gate, data, client, thread: Some(thread) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.client.post(self.url(path)).json(body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.client.get(self.url(path)).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    /// The answer to a chat request; panics on errors.
    pub(crate) async fn chat(&self, body: Value) -> Value {
        let (status, answer) = self.post("/v1/chat/completions", &body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The events of a stream: the data of each, comments left out.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let response = self.client.post(self.url(path)).json(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        let text = response.text().await.unwrap();
        let events = text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
        events.map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_string()).collect()
    }

    /// Waits until nothing is going on, then checks that nothing is left.
    pub(crate) async fn assert_at_rest(&self) {
        for _ in 0..1000 {
            if self.handle.load() == (0, 0, 0) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(self.handle.load(), (0, 0, 0), "running, waiting, admitted");
        let pages = self.handle.check().await.expect("the engine lives");
        assert_eq!(pages.held, 0, "pages held");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gate.open();
        self.handle.stop();
        let outcome = self.thread.take().unwrap().join();
        assert!(outcome.is_ok() || std::thread::panicking(), "the server's thread ends well");
    }
}

/// A request of one user message.
pub(crate) fn ask(text: &str) -> Value {
    json!({"model": "stub", "messages": [{"role": "user", "content": text}]})
}

/// A request with more fields.
pub(crate) fn ask_with(text: &str, fields: Value) -> Value {
    let mut request = ask(text);
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request
}

/// A server with the usual limits that does not run.
pub(crate) fn bind(listen: SocketAddr, data: &Path) -> Result<Server, ServerError> {
    bind_with(listen, data, Limits::default(), 1024, None, tokenizer())
}

/// A curve as it may have been measured.
pub(crate) fn curve() -> BudgetCurve {
    let task = Words { en: "Countdown, 3 numbers".into(), ar: "العد التنازلي، 3 أعداد".into() };
    BudgetCurve { task, points: vec![(64, 0.25), (256, 0.5)] }
}

/// [`bind`] with limits, a prompt cache and a tokenizer.
pub(crate) fn bind_with(
    listen: SocketAddr,
    data: &Path,
    limits: Limits,
    context_tokens: usize,
    identity: Option<[u8; 32]>,
    tokenizer: &'static Tokenizer,
) -> Result<Server, ServerError> {
    let served = Served {
        id: "stub".into(),
        tokenizer,
        template: Some(ChatTemplate::parse(tokenizer.chat_template(None).unwrap()).unwrap()),
        defaults: Sampling { temperature: 0.0, ..Sampling::default() },
        context_tokens,
        vocab: VOCAB,
        today: || (2026, 11, 22),
        built_in: false,
        budget_curve: Some(curve()),
        embedder: Some(Embedder { pooling: Pooling::Mean, length: VECTOR_LEN, end: None }),
    };
    let allowed = Allowed::default();
    let prompt_cache = identity.map(|identity| PromptCacheOptions {
        identity: Box::new(move || Ok(identity)),
        bytes_max: 64 << 20,
        age_max: Duration::from_secs(3600),
        problem: Box::new(|problem| panic!("{problem}")),
    });
    let data = data.to_path_buf();
    Server::bind(Options { listen, data, limits, allowed, watts: Some(10.0), prompt_cache }, served)
}
