//! The engine's thread: commands in, what happens to each request out.
//!
//! The thread owns the engine. Requests come through one inbox; what happens to a request goes to its own bounded
//! channel. A reader that falls too far behind, or is gone, has its request cancelled; its pages are free within one
//! step. A panic in a step (a fault of ours) ends the requests that were in the engine with an error, and the thread
//! goes on with a new engine.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::request::{Command, EmbedRequest, Event, Finish, Refusal, Request, RequestId, Restored, Usage};
use engine::step::{Compute, Engine, PageUse};
use tokio::sync::{mpsc, oneshot};

use crate::meter::Meter;
use crate::prompt_cache::PromptCache;

/// What a request is told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// It was taken up.
    Started { cached_tokens: usize },
    /// A token of the answer, and when the step that chose it ended.
    Token { token: u32, logprob: f32, top: Vec<(u32, f32)>, at: Instant },
    /// The vector of the text.
    Embedded { vector: Vec<f32> },
    /// The answer is complete.
    Finished { finish: Finish, cost: Cost },
    /// The engine did not take it on.
    Refused(Refusal),
    /// The engine broke down while it had the request.
    Broken,
}

/// What a request has cost, as far as the machine can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// From submission until it was taken up.
    pub(crate) queue_s: f64,
    /// From there to the first token.
    pub(crate) prompt_s: f64,
    /// From there to the end.
    pub(crate) decode_s: f64,
    /// Its share of the time of the steps that computed it, by rows.
    pub(crate) compute_s: f64,
    /// Its share of their energy, where it is known.
    pub(crate) joules: Option<f64>,
}

/// Where the events of a request go: the channel, and the number of the answer within it.
pub(crate) type Listener = (usize, mpsc::Sender<(usize, Told)>);

/// The way to the engine's thread.
pub(crate) struct Driver {
    inbox: Arc<Inbox>,
    prompt_cache: Option<Arc<PromptCache>>,
    next_id: AtomicU64,
    /// The state after the last step.
    seen: Mutex<Seen>,
    meter: Meter,
}

/// What waits for the engine's thread.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<Message>,
    closed: bool,
}

impl Inbox {
    /// False if the engine has stopped.
    fn send(&self, message: Message) -> bool {
        let mut waiting = lock(&self.waiting);
        if !waiting.closed {
            waiting.messages.push(message);
            self.wake.notify_all();
        }
        !waiting.closed
    }

    /// What has come; waits for something where there is nothing to do. `None` at the end.
    fn take(&self, idle: bool) -> Option<Vec<Message>> {
        let mut waiting = lock(&self.waiting);
        while idle && waiting.messages.is_empty() && !waiting.closed {
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        (!waiting.closed).then(|| std::mem::take(&mut waiting.messages))
    }
}

enum Message {
    Submit(Box<Request>, Listener),
    Embed(EmbedRequest, Listener),
    Cancel(RequestId),
    Check(oneshot::Sender<PageUse>),
    /// What was on disk for a request.
    Restored(RequestId, Restored),
}

/// The engine as the outside sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) pages: PageUse,
    pub(crate) steps: u64,
    pub(crate) step_s: f64,
    pub(crate) rows: u64,
    pub(crate) drafted: u64,
    pub(crate) accepted: u64,
    pub(crate) breakdowns: u64,
}

/// A request that the engine has.
struct Live {
    listener: Listener,
    submitted: Instant,
    started: Option<Instant>,
    first: Option<Instant>,
    compute_s: f64,
    joules: Option<f64>,
}

impl Driver {
    pub(crate) fn new(meter: Meter, prompt_cache: Option<Arc<PromptCache>>) -> Driver {
        Driver { inbox: Arc::default(), prompt_cache, next_id: AtomicU64::new(1), seen: Mutex::default(), meter }
    }

    /// A number for a request.
    pub(crate) fn next_id(&self) -> RequestId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives a request to the engine; false if the engine has stopped.
    pub(crate) fn submit(&self, request: Request, listener: Listener) -> bool {
        self.inbox.send(Message::Submit(Box::new(request), listener))
    }

    /// Gives a text to the engine, to make a vector of.
    pub(crate) fn embed(&self, request: EmbedRequest, listener: Listener) -> bool {
        self.inbox.send(Message::Embed(request, listener))
    }

    /// Stops a request; unknown ones are ignored.
    pub(crate) fn cancel(&self, id: RequestId) {
        self.inbox.send(Message::Cancel(id));
    }

    /// Checks the engine's books and tells how the pages are used; `None` if the engine has stopped.
    pub(crate) async fn check(&self) -> Option<PageUse> {
        let (sender, receiver) = oneshot::channel();
        self.inbox.send(Message::Check(sender));
        receiver.await.ok()
    }

    /// Ends the thread; requests that it still has are told nothing more.
    pub(crate) fn close(&self) {
        lock(&self.inbox.waiting).closed = true;
        self.inbox.wake.notify_all();
    }

    /// The state after the last step.
    pub(crate) fn seen(&self) -> Seen {
        *lock(&self.seen)
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Runs engines until [`Driver::close`]; `make` makes one, again after each breakdown.
    pub(crate) fn run<C: Compute>(&self, mut make: impl FnMut() -> Engine<C>) {
        let mut live = HashMap::new();
        loop {
            let mut engine = make();
            if let Some(cache) = &self.prompt_cache {
                let inbox = Arc::clone(&self.inbox);
                // The engine may have stopped meanwhile.
                let deliver = move |id, restored| _ = inbox.send(Message::Restored(id, restored));
                cache.start(engine.compute().page_bytes(), Box::new(deliver));
                engine.tell_published();
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| self.serve(&mut engine, &mut live)));
            if outcome.is_ok() {
                // Their channels close with them: they are told that the server stops.
                return;
            }
            for (_, request) in live.drain() {
                request.tell(Told::Broken);
            }
            lock(&self.seen).breakdowns += 1;
        }
    }

    fn serve<C: Compute>(&self, engine: &mut Engine<C>, live: &mut HashMap<RequestId, Live>) {
        let mut commands = Vec::new();
        // Requests whose beginnings are being read from disk.
        let mut reading: HashMap<RequestId, Request> = HashMap::new();
        loop {
            let Some(messages) = self.inbox.take(engine.is_idle()) else { return };
            for message in messages {
                match message {
                    Message::Submit(request, listener) => {
                        live.insert(request.id, Live::new(listener));
                        match self.fetch(engine, &request) {
                            true => _ = reading.insert(request.id, *request),
                            false => commands.push(Command::Submit(*request)),
                        }
                    }
                    Message::Embed(request, listener) => {
                        live.insert(request.id, Live::new(listener));
                        commands.push(Command::Embed(request));
                    }
                    Message::Restored(id, restored) => {
                        // What was cancelled meanwhile is not wanted any more.
                        if let Some(request) = reading.remove(&id) {
                            commands.extend([Command::Restore(restored), Command::Submit(request)]);
                        }
                    }
                    Message::Cancel(id) if reading.remove(&id).is_some() => {
                        let (finish, usage, now) = (Finish::Cancelled, Usage::default(), Instant::now());
                        self.tell(live, Event::Finished { id, finish, usage }, now, now);
                    }
                    Message::Cancel(id) => commands.push(Command::Cancel(id)),
                    Message::Check(sender) => {
                        // What was asked for before the check is done before it.
                        self.step(engine, live, &mut commands);
                        engine.check();
                        // Whoever asked may be gone.
                        let _ = sender.send(engine.page_use());
                    }
                }
            }
            self.step(engine, live, &mut commands);
        }
    }

    /// Whether what a request begins with is being read from disk: more of it is there than in memory.
    fn fetch<C: Compute>(&self, engine: &Engine<C>, request: &Request) -> bool {
        let Some(cache) = &self.prompt_cache else { return false };
        let known = engine.known_pages(request.owner, &request.prompt);
        cache.find(request.id, request.owner, &request.prompt, known).is_some_and(|read| cache.fetch(read))
    }

    /// One step, its cost shared by the requests that it computed, and its events told.
    fn step<C: Compute>(
        &self,
        engine: &mut Engine<C>,
        live: &mut HashMap<RequestId, Live>,
        commands: &mut Vec<Command>,
    ) {
        let (begin, energy) = (Instant::now(), self.meter.read());
        let events = engine.step(commands);
        let spent = begin.elapsed();
        if let Some(cache) = &self.prompt_cache {
            cache.keep(engine.published(), |page, out| engine.compute().read_page(page, out));
        }
        let joules = self.meter.joules(energy, spent);
        let total: usize = engine.rows().iter().map(|(_, rows)| rows).sum();
        for (id, rows) in engine.rows() {
            if let Some(request) = live.get_mut(id) {
                request.charge(*rows as f64 / total as f64, spent, joules);
            }
        }
        // The state is told before the events: who sees an event finds a state that knows of it.
        let (running, waiting) = engine.load();
        let mut seen = lock(&self.seen);
        (seen.running, seen.waiting, seen.pages) = (running, waiting, engine.page_use());
        seen.steps += u64::from(total > 0);
        seen.rows += total as u64;
        seen.drafted += engine.drafts().drafted as u64;
        seen.accepted += engine.drafts().accepted as u64;
        seen.step_s += if total > 0 { spent.as_secs_f64() } else { 0.0 };
        drop(seen);
        let end = begin + spent;
        for event in events {
            self.tell(live, event, begin, end);
        }
    }

    /// Tells an event of the step from `begin` to `end`.
    fn tell(&self, live: &mut HashMap<RequestId, Live>, event: Event, begin: Instant, end: Instant) {
        let (id, told) = match event {
            Event::Refused(id, refusal) => (id, Told::Refused(refusal)),
            Event::Started { id, cached_tokens } => (id, Told::Started { cached_tokens }),
            Event::Token { id, token, logprob, top } => (id, Told::Token { token, logprob, top, at: end }),
            Event::Embedded { id, vector } => (id, Told::Embedded { vector }),
            Event::Finished { id, finish, .. } => {
                let cost = live.get(&id).map(|request| request.cost(end)).unwrap_or_default();
                (id, Told::Finished { finish, cost })
            }
        };
        let last = matches!(told, Told::Refused(_) | Told::Finished { .. });
        let Some(request) = live.get_mut(&id) else { return };
        match told {
            Told::Started { .. } => request.started = Some(begin),
            Told::Token { .. } | Told::Embedded { .. } => _ = request.first.get_or_insert(end),
            _ => {}
        }
        if !request.tell(told) && !last {
            self.cancel(id);
        }
        if last {
            live.remove(&id);
        }
    }
}

impl Live {
    fn new(listener: Listener) -> Live {
        let submitted = Instant::now();
        Live { listener, submitted, started: None, first: None, compute_s: 0.0, joules: None }
    }

    /// False if nobody listens, or the listener is too far behind.
    fn tell(&self, told: Told) -> bool {
        self.listener.1.try_send((self.listener.0, told)).is_ok()
    }

    fn charge(&mut self, share: f64, spent: Duration, joules: Option<f64>) {
        self.compute_s += share * spent.as_secs_f64();
        if let Some(joules) = joules {
            *self.joules.get_or_insert(0.0) += share * joules;
        }
    }

    /// What it has cost until `end`.
    fn cost(&self, end: Instant) -> Cost {
        let started = self.started.unwrap_or(end);
        let first = self.first.unwrap_or(end);
        Cost {
            queue_s: started.saturating_duration_since(self.submitted).as_secs_f64(),
            prompt_s: first.saturating_duration_since(started).as_secs_f64(),
            decode_s: end.saturating_duration_since(first).as_secs_f64(),
            compute_s: self.compute_s,
            joules: self.joules,
        }
    }
}

/// The locks here hold plain data that is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
