//! Many requests to batches to tokens: the engine as a pure state machine.
//!
//! [`Engine::step`] admits, plans, runs, samples and retires. It has no clock, no thread and no I/O:
//! the same commands in the same steps give the same events. Each request's tokens are those that it
//! would get alone, whatever runs beside it, whatever was cached, and however often it was put back.
//!
//! - Requests that answer go first, one token each; what is left of a step's tokens goes to prompts,
//!   in chunks, so that a long prompt does not stop the others.
//! - Owners take turns: each next request is taken from the owner who has the fewest running.
//! - An answer's token may be computed together with a draft of those after it ([`crate::drafts`]); rows of drafts
//!   that turn out wrong are written over later.
//! - When pages run out, the request that was taken up last is put back; what it has is computed again
//!   later (from cached pages, if they are still there).

use std::collections::{HashMap, VecDeque};

use kernels::pool::Pool;

use crate::constraint::{Allowed, Constraint};
use crate::drafts::{Credit, DraftCount, lookup};
use crate::limits::Limits;
use crate::pages::{Owner, PageId, Pages};
use crate::request::{
    Command, EmbedRequest, Event, Finish, Pooling, Published, Refusal, Request, RequestId, Restored, TOP_LOGPROBS_MAX,
    Usage,
};
use crate::sampler::{Sampled, Sampler, Sampling, top_logprobs};

pub use kernels::attention::{Chunk, PAGE_LEN};

/// The model as the engine sees it: rows of tokens in, logits of some rows out.
pub trait Compute {
    /// Size of the vocabulary.
    fn vocab(&self) -> usize;

    /// Computes the tokens of all chunks, storing what attention keeps in the chunks' pages, and
    /// returns the logits of the rows `wanted`, `[wanted, vocab]`.
    fn run(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32>;

    /// Threads that tokens are chosen with; none: the caller's alone.
    fn pool(&self) -> Option<&Pool> {
        None
    }

    /// Takes the memory of a step's logits back.
    fn recycle(&mut self, logits: Vec<f32>) {
        drop(logits);
    }
    /// Elements of a row after the last norm; 0: there is no [`Compute::hidden`].
    fn hidden_len(&self) -> usize {
        0
    }

    /// As [`Compute::run`], but for what the model's head would read: `[wanted, hidden_len]`.
    fn hidden(&mut self, _tokens: &[u32], _chunks: &[Chunk], _wanted: &[usize]) -> Vec<f32> {
        Vec::new()
    }

    /// Bytes of a page of the cache; 0: pages cannot be kept elsewhere.
    fn page_bytes(&self) -> usize {
        0
    }

    /// Appends what a page of the cache holds, [`Compute::page_bytes`] bytes.
    fn read_page(&self, _page: PageId, _out: &mut Vec<u8>) {}

    /// Makes a page of the cache hold what [`Compute::read_page`] gave.
    fn write_page(&mut self, _page: PageId, _bytes: &[u8]) {}
}

/// The engine.
pub struct Engine<C> {
    compute: C,
    limits: Limits,
    pages: Pages,
    waiting: VecDeque<Sequence>,
    /// In the order in which they were taken up.
    running: Vec<Sequence>,
    /// Rows that the last step computed for each request.
    rows: Vec<(RequestId, usize)>,
    /// What the last step computed as drafts.
    drafts: DraftCount,
    /// What the last step has made known, if anybody wants to know.
    published: Option<Vec<Published>>,
}

/// How the pages of the cache are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageUse {
    /// Held by requests.
    pub held: usize,
    /// Held by nobody, and free or found again by what they hold.
    pub available: usize,
    /// In all.
    pub total: usize,
}

/// A request on its way.
struct Sequence {
    id: RequestId,
    owner: Owner,
    /// The prompt and the answer so far.
    tokens: Vec<u32>,
    prompt_len: usize,
    /// Tokens that are in the cache.
    computed: usize,
    pages: Vec<PageId>,
    sampler: Sampler,
    max_tokens: usize,
    stop_tokens: Vec<u32>,
    top_logprobs: usize,
    constraint: Option<Box<dyn Constraint>>,
    /// Tokens found in the cache when it was first taken up.
    cached: Option<usize>,
    /// Where no answer is wanted but a vector.
    pooling: Option<Pooled>,
    /// Tokens after the last one that this step computes as well; empty between steps.
    draft: Vec<u32>,
    credit: Credit,
}

impl Sequence {
    fn answer_len(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_len,
            cached_tokens: self.cached.unwrap_or(0),
            completion_tokens: self.answer_len(),
        }
    }

    /// How many rows tokens are chosen from, where `count` rows are computed: the last token's and the draft's.
    fn choices(&self, count: usize) -> usize {
        let complete = count > 0 && self.computed + count == self.tokens.len() + self.draft.len();
        if complete { 1 + self.draft.len() } else { 0 }
    }

    /// Pages that are found hold keys and values, not the rows of which a mean is made.
    fn needs_all_rows(&self) -> bool {
        self.pooling.as_ref().is_some_and(|pooled| pooled.pooling == Pooling::Mean)
    }

    /// Why the answer ends after `token`, its last one, if it does.
    fn end_after(&self, token: u32, limits: &Limits) -> Option<Finish> {
        if self.stop_tokens.contains(&token) {
            return Some(Finish::Stop);
        }
        let full = self.tokens.len() >= limits.context_tokens_max;
        (full || self.answer_len() >= self.max_tokens).then_some(Finish::Length)
    }

    fn finished(&self, finish: Finish) -> Event {
        Event::Finished { id: self.id, finish, usage: self.usage() }
    }
}

impl<C: Compute> Engine<C> {
    /// An engine with nothing to do.
    ///
    /// # Panics
    /// If the limits leave no room for a single request of the largest size.
    pub fn new(compute: C, limits: Limits) -> Engine<C> {
        let room = limits.pages * PAGE_LEN;
        assert!(
            limits.context_tokens_max <= room && limits.running_max > 0,
            "{} pages hold {room} tokens, a context has {}",
            limits.pages,
            limits.context_tokens_max
        );
        assert!(
            limits.chunk_tokens_max > 0 && limits.batch_tokens_max >= limits.running_max,
            "a token for each request"
        );
        Engine {
            compute,
            limits,
            pages: Pages::new(limits.pages),
            waiting: VecDeque::new(),
            running: Vec::new(),
            rows: Vec::new(),
            drafts: DraftCount::default(),
            published: None,
        }
    }

    /// Keeps what each step makes known for [`Engine::published`].
    pub fn tell_published(&mut self) {
        self.published = Some(Vec::new());
    }

    /// What the last step has made known; until the next one, [`Compute::read_page`] tells what it holds.
    pub fn published(&self) -> &[Published] {
        self.published.as_deref().unwrap_or_default()
    }

    /// How many pages a request would find in the cache now.
    pub fn known_pages(&self, owner: Owner, tokens: &[u32]) -> usize {
        self.pages.known(owner, tokens)
    }

    /// Whether there is anything to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Requests that run and that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// How the pages of the cache are used.
    pub fn page_use(&self) -> PageUse {
        let (available, total) = (self.pages.available(), self.pages.total());
        PageUse { held: total - available, available, total }
    }

    /// The requests that the last step computed and how many rows of its batch each had: what the step has
    /// cost can be shared by them. Rows of drafts count, right or wrong.
    pub fn rows(&self) -> &[(RequestId, usize)] {
        &self.rows
    }

    /// What the last step computed as drafts.
    pub fn drafts(&self) -> DraftCount {
        self.drafts
    }

    /// The model.
    pub fn compute(&self) -> &C {
        &self.compute
    }

    /// The model again, without its requests.
    pub fn into_compute(self) -> C {
        self.compute
    }

    /// Takes the commands and computes one batch.
    pub fn step(&mut self, inbox: &mut Vec<Command>) -> Vec<Event> {
        let mut events = Vec::new();
        self.published.iter_mut().for_each(Vec::clear);
        for command in inbox.drain(..) {
            match command {
                Command::Restore(restored) => self.restore(restored),
                Command::Submit(request) => self.submit(request.id, self.accept(request), &mut events),
                Command::Embed(request) => self.submit(request.id, self.accept_embed(request), &mut events),
                Command::Cancel(id) => self.cancel(id, &mut events),
            }
        }
        self.admit(&mut events);
        let mut plan = self.plan();
        self.draft(&mut plan);
        self.run(&plan, &mut events);
        events
    }

    /// Checks the ledger of pages and the state of every request.
    ///
    /// # Panics
    /// If something does not add up.
    pub fn check(&self) {
        self.pages.check(self.running.iter().flat_map(|s| s.pages.iter().copied()));
        assert!(self.running.len() <= self.limits.running_max && self.waiting.len() <= self.waiting_bound());
        for sequence in &self.running {
            assert!(sequence.computed < sequence.tokens.len(), "request {} has something to compute", sequence.id);
            assert!(sequence.pages.len() >= sequence.computed.div_ceil(PAGE_LEN), "pages of request {}", sequence.id);
            assert!(sequence.draft.is_empty(), "request {} keeps no draft", sequence.id);
        }
        assert!(self.waiting.iter().all(|s| s.pages.is_empty() && s.computed == 0), "waiting requests hold nothing");
    }

    /// Requests that were put back come on top of those that wait to begin.
    fn waiting_bound(&self) -> usize {
        self.limits.waiting_max + self.limits.running_max
    }

    fn submit(&mut self, id: RequestId, accepted: Result<Sequence, Refusal>, events: &mut Vec<Event>) {
        match accepted {
            Ok(sequence) => self.waiting.push_back(sequence),
            Err(refusal) => events.push(Event::Refused(id, refusal)),
        }
    }

    fn accept(&self, request: Request) -> Result<Sequence, Refusal> {
        let (limits, vocab) = (&self.limits, self.compute.vocab());
        let own = self.waiting.iter().filter(|s| s.owner == request.owner).count();
        if self.waiting.iter().chain(&self.running).any(|s| s.id == request.id) {
            return Err(Refusal::Duplicate(request.id));
        }
        if self.waiting.len() >= limits.waiting_max {
            return Err(Refusal::Busy { waiting: self.waiting.len(), limit: limits.waiting_max });
        }
        if own >= limits.waiting_per_owner_max {
            return Err(Refusal::OwnerBusy { waiting: own, limit: limits.waiting_per_owner_max });
        }
        match (request.prompt.len(), request.max_tokens) {
            (0, _) => return Err(Refusal::EmptyPrompt),
            (_, 0) => return Err(Refusal::EmptyAnswer),
            (tokens, _) if tokens >= limits.context_tokens_max => {
                return Err(Refusal::TooLong { tokens, limit: limits.context_tokens_max });
            }
            _ => {}
        }
        if request.top_logprobs > TOP_LOGPROBS_MAX {
            return Err(Refusal::TopLogprobs { asked: request.top_logprobs, limit: TOP_LOGPROBS_MAX });
        }
        if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= vocab) {
            return Err(Refusal::Token { token, vocab });
        }
        Ok(Sequence {
            id: request.id,
            owner: request.owner,
            sampler: Sampler::new(request.sampling, &request.prompt, vocab)?,
            prompt_len: request.prompt.len(),
            tokens: request.prompt,
            computed: 0,
            pages: Vec::new(),
            max_tokens: request.max_tokens,
            stop_tokens: request.stop_tokens,
            top_logprobs: request.top_logprobs,
            constraint: request.constraint,
            cached: None,
            pooling: None,
            draft: Vec::new(),
            credit: Credit::new(limits.drafts),
        })
    }

    fn accept_embed(&self, request: EmbedRequest) -> Result<Sequence, Refusal> {
        if self.compute.hidden_len() == 0 {
            return Err(Refusal::NoEmbeddings);
        }
        let sequence = self.accept(Request {
            id: request.id,
            owner: request.owner,
            prompt: request.tokens,
            sampling: Sampling::default(),
            max_tokens: 1,
            stop_tokens: Vec::new(),
            top_logprobs: 0,
            constraint: None,
        })?;
        let pooling = Some(Pooled { pooling: request.pooling, sum: Vec::new() });
        Ok(Sequence { pooling, ..sequence })
    }

    fn cancel(&mut self, id: RequestId, events: &mut Vec<Event>) {
        if let Some(i) = self.waiting.iter().position(|s| s.id == id) {
            events.extend(self.waiting.remove(i).map(|s| s.finished(Finish::Cancelled)));
        } else if let Some(i) = self.running.iter().position(|s| s.id == id) {
            let mut sequence = self.running.remove(i);
            release(&mut self.pages, &mut sequence);
            events.push(sequence.finished(Finish::Cancelled));
        }
    }

    /// Takes up waiting requests while there is room for them.
    fn admit(&mut self, events: &mut Vec<Event>) {
        let mut running: HashMap<Owner, usize> = HashMap::new();
        self.running.iter().for_each(|s| *running.entry(s.owner).or_default() += 1);
        while self.running.len() < self.limits.running_max {
            let Some(i) = self.next_in_turn(&running) else { return };
            // Room for all its tokens now, found pages counted, and the one it will write next.
            let needed = (self.waiting[i].tokens.len() + 1).div_ceil(PAGE_LEN);
            let found = match self.waiting[i].needs_all_rows() {
                true => Vec::new(),
                false => self.pages.find(self.waiting[i].owner, &self.waiting[i].tokens),
            };
            if needed - found.len() > self.pages.available() {
                found.into_iter().for_each(|page| self.pages.release(page));
                return;
            }
            let Some(mut sequence) = self.waiting.remove(i) else { return };
            sequence.computed = found.len() * PAGE_LEN;
            if sequence.cached.is_none() {
                let cached_tokens = sequence.computed.min(sequence.prompt_len);
                sequence.cached = Some(cached_tokens);
                events.push(Event::Started { id: sequence.id, cached_tokens });
            }
            sequence.pages = found;
            *running.entry(sequence.owner).or_default() += 1;
            self.running.push(sequence);
        }
    }

    /// The first waiting request of the owner with the fewest running; of equal owners, of the one who
    /// waits longest. Those that would compute what is being computed wait until they find it.
    fn next_in_turn(&self, running: &HashMap<Owner, usize>) -> Option<usize> {
        let turn = |(i, s): (usize, &Sequence)| (running.get(&s.owner).copied().unwrap_or(0), i);
        let free = |i: &usize| !self.is_being_computed(&self.waiting[*i]);
        let first = self.waiting.iter().enumerate().map(turn).min().map(|(_, i)| i)?;
        if free(&first) {
            return Some(first);
        }
        let mut turns: Vec<(usize, usize)> = self.waiting.iter().enumerate().map(turn).collect();
        turns.sort_unstable();
        turns.into_iter().map(|(_, i)| i).find(free)
    }

    /// Whether a running request of the same owner is about to make pages known that this one begins with.
    fn is_being_computed(&self, waiting: &Sequence) -> bool {
        if waiting.needs_all_rows() || waiting.tokens.len() <= PAGE_LEN {
            return false;
        }
        let reading = |s: &&Sequence| s.owner == waiting.owner && s.computed < s.prompt_len;
        let shared = self.running.iter().filter(reading).map(|s| {
            let (own, other) = (&waiting.tokens[..waiting.tokens.len() - 1], &s.tokens[..s.prompt_len]);
            own.iter().zip(other).take_while(|(a, b)| a == b).count() / PAGE_LEN
        });
        shared.max().is_some_and(|pages| pages > self.pages.known(waiting.owner, &waiting.tokens))
    }

    /// Takes pages that were computed before into the cache, as far as nobody needs the room.
    fn restore(&mut self, restored: Restored) {
        let Restored { owner, tokens, first, pages } = restored;
        let mut held = self.pages.find(owner, &tokens);
        // Pages between may have gone since somebody looked.
        for bytes in pages.iter().skip(held.len().saturating_sub(first)) {
            let fits = held.len() >= first && (held.len() + 1) * PAGE_LEN <= tokens.len();
            if !fits || bytes.len() != self.compute.page_bytes() || self.pages.available() == 0 {
                break;
            }
            let Some(page) = self.pages.take() else { break };
            self.compute.write_page(page, bytes);
            held.push(page);
        }
        self.pages.publish(owner, &tokens, &held);
        held.into_iter().rev().for_each(|page| self.pages.release(page));
    }

    /// How many tokens of each running request are computed in this step; pages for them are held.
    fn plan(&mut self) -> Vec<usize> {
        let mut left = self.limits.batch_tokens_max;
        let mut rows = vec![0; self.running.len()];
        // Answers first, then prompts, each in the order of taking up.
        for answering in [true, false] {
            let mut i = 0;
            while i < self.running.len() && left > 0 {
                let todo = self.running[i].tokens.len() - self.running[i].computed;
                if (todo == 1) == answering {
                    let count = todo.min(left).min(self.limits.chunk_tokens_max);
                    if !self.make_room(i, count) {
                        break; // this very request was put back: nothing after it has pages either
                    }
                    rows.truncate(self.running.len());
                    rows[i] = count;
                    left -= count;
                }
                i += 1;
            }
            rows.resize(self.running.len(), 0);
        }
        rows
    }

    /// Holds pages for the next `count` tokens of request `i`, putting back those taken up after it,
    /// last first; false if even that was not enough and the request itself was put back.
    fn make_room(&mut self, i: usize, count: usize) -> bool {
        let needed = (self.running[i].computed + count).div_ceil(PAGE_LEN);
        while self.running[i].pages.len() < needed {
            if let Some(page) = self.pages.take() {
                self.running[i].pages.push(page);
                continue;
            }
            let last = self.running.len() - 1;
            let mut sequence = self.running.remove(last);
            release(&mut self.pages, &mut sequence);
            self.waiting.push_front(sequence);
            if last == i {
                return false;
            }
        }
        true
    }

    /// Adds drafts to the planned rows of answers: what a constraint leaves no choice about, or a guess. As far as
    /// there is room: in what is left of the step's tokens and in pages that are held. A draft takes no page, so that
    /// it puts nobody back and drops nothing that is cached.
    fn draft(&mut self, rows: &mut [usize]) {
        let limits = &self.limits;
        let lookups = limits.drafts.are_made(rows.iter().filter(|&&count| count > 0).count());
        let mut left = limits.batch_tokens_max - rows.iter().sum::<usize>();
        for (sequence, count) in self.running.iter_mut().zip(rows) {
            let len = sequence.tokens.len();
            if *count != 1 || sequence.computed + 1 != len || sequence.pooling.is_some() {
                continue;
            }
            // The step says one token more than are right of the draft.
            let answer = sequence.max_tokens.min(sequence.answer_len() + limits.context_tokens_max - len);
            let room = (sequence.pages.len() * PAGE_LEN - len)
                .min(answer - sequence.answer_len() - 1)
                .min(limits.chunk_tokens_max - 1)
                .min(left);
            sequence.draft = sequence.constraint.as_ref().map_or_else(Vec::new, |constraint| constraint.certain(room));
            sequence.draft.truncate(room);
            if lookups && sequence.draft.is_empty() {
                lookup(&sequence.tokens, sequence.credit.tokens().min(room), &mut sequence.draft);
            }
            *count += sequence.draft.len();
            left -= sequence.draft.len();
        }
    }

    /// Computes the planned rows, chooses tokens and retires what is finished.
    fn run(&mut self, rows: &[usize], events: &mut Vec<Event>) {
        self.rows.clear();
        let planned = self.running.iter().zip(rows).filter(|(_, count)| **count > 0);
        self.rows.extend(planned.map(|(sequence, &count)| (sequence.id, count)));
        let answers = Part::of(&self.running, rows, false);
        let logits = match answers.tokens.is_empty() {
            true => Vec::new(),
            false => self.compute.run(&answers.tokens, &answers.chunks, &answers.wanted),
        };
        let texts = Part::of(&self.running, rows, true);
        let hidden = match texts.tokens.is_empty() {
            true => Vec::new(),
            false => self.compute.hidden(&texts.tokens, &texts.chunks, &texts.wanted),
        };
        let mut said = say_all(&mut self.running, rows, &logits, &self.compute, &self.limits).into_iter();
        self.compute.recycle(logits);
        self.drafts = DraftCount::default();
        let mut hidden = hidden.chunks_exact(self.compute.hidden_len().max(1));
        let mut keep = Vec::with_capacity(self.running.len());
        for (mut sequence, &count) in std::mem::take(&mut self.running).into_iter().zip(rows) {
            let finish = match &mut sequence.pooling {
                Some(pooled) => {
                    let complete = count > 0 && sequence.computed + count == sequence.tokens.len();
                    let rows = pooled.wanted(count, complete);
                    hidden.by_ref().take(rows).for_each(|row| pooled.add(row));
                    let vector = complete.then(|| pooled.vector());
                    self.advance(&mut sequence, count);
                    vector.map(|vector| {
                        events.push(Event::Embedded { id: sequence.id, vector });
                        Finish::Stop
                    })
                }
                None => {
                    let said = said.next().expect("something said for every answer, if only nothing");
                    self.advance(&mut sequence, count + said.drafts.accepted - said.drafts.drafted);
                    self.drafts.add(said.drafts);
                    events.extend(said.events);
                    said.finish
                }
            };
            match finish {
                None => keep.push(sequence),
                Some(finish) => {
                    release(&mut self.pages, &mut sequence);
                    events.push(sequence.finished(finish));
                }
            }
        }
        self.running = keep;
    }

    /// Counts `count` tokens of a request as computed, and makes the pages known that are full by that.
    fn advance(&mut self, sequence: &mut Sequence, count: usize) {
        let full_before = sequence.computed / PAGE_LEN;
        sequence.computed += count;
        if sequence.computed / PAGE_LEN == full_before {
            return;
        }
        let (owner, tokens) = (sequence.owner, &sequence.tokens[..sequence.computed]);
        let pages = self.pages.publish(owner, tokens, &sequence.pages);
        if let (Some(published), Some((last, _))) = (&mut self.published, pages.last()) {
            let tokens = tokens[..(last + 1) * PAGE_LEN].to_vec();
            published.push(Published { owner, tokens, pages });
        }
    }
}

/// The rows of a step that are computed for one purpose.
#[derive(Default)]
struct Part<'a> {
    tokens: Vec<u32>,
    chunks: Vec<Chunk<'a>>,
    wanted: Vec<usize>,
}

impl Part<'_> {
    /// The planned rows of answers, or of texts whose vectors are wanted.
    fn of<'a>(running: &'a [Sequence], rows: &[usize], embedding: bool) -> Part<'a> {
        let mut part = Part::default();
        let own = running.iter().zip(rows).filter(|(s, count)| **count > 0 && s.pooling.is_some() == embedding);
        for (sequence, &count) in own {
            let (begin, end) = (sequence.computed, sequence.computed + count);
            let first_row = part.tokens.len();
            part.chunks.push(Chunk { first_row, rows: count, position: begin, pages: &sequence.pages });
            part.tokens.extend_from_slice(&sequence.tokens[begin..end - sequence.draft.len()]);
            part.tokens.extend_from_slice(&sequence.draft);
            let wanted = match &sequence.pooling {
                Some(pooled) => pooled.wanted(count, end == sequence.tokens.len()),
                None => sequence.choices(count),
            };
            part.wanted.extend(part.tokens.len() - wanted..part.tokens.len());
        }
        part
    }
}

/// Rows on their way to one vector.
struct Pooled {
    pooling: Pooling,
    sum: Vec<f64>,
}

impl Pooled {
    /// How many of the last `count` rows are of use.
    fn wanted(&self, count: usize, complete: bool) -> usize {
        match self.pooling {
            Pooling::Mean => count,
            Pooling::Last => usize::from(complete),
        }
    }

    fn add(&mut self, row: &[f32]) {
        self.sum.resize(row.len(), 0.0);
        self.sum.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
    }

    /// Scaled to length 1, which makes the mean of the sum as well; zeros stay zeros.
    fn vector(&self) -> Vec<f32> {
        let length = self.sum.iter().map(|v| v * v).sum::<f64>().sqrt();
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        self.sum.iter().map(|v| (v * scale) as f32).collect()
    }
}

/// Lets go of a request's pages, the last first, so that the beginning stays cached longest.
fn release(pages: &mut Pages, sequence: &mut Sequence) {
    sequence.pages.drain(..).rev().for_each(|page| pages.release(page));
    sequence.computed = 0;
    sequence.pooling.iter_mut().for_each(|pooled| pooled.sum.clear());
}

/// What a request is given in a step.
#[derive(Default)]
struct Said {
    events: Vec<Event>,
    finish: Option<Finish>,
    drafts: DraftCount,
}

/// Chooses the next tokens of every answer whose last token was computed: something said, if only nothing, for each
/// answer in the order of `running`. A choice depends on its own request alone, so threads change nothing.
fn say_all<C: Compute>(
    running: &mut [Sequence],
    rows: &[usize],
    logits: &[f32],
    compute: &C,
    limits: &Limits,
) -> Vec<Said> {
    /// Requests that one task chooses for.
    const TOGETHER: usize = 8;
    let (vocab, mut left) = (compute.vocab(), logits);
    let mut all: Vec<(&mut Sequence, &[f32], Said)> = Vec::with_capacity(running.len());
    for (sequence, &count) in running.iter_mut().zip(rows).filter(|(sequence, _)| sequence.pooling.is_none()) {
        let (own, others) = left.split_at(sequence.choices(count) * vocab);
        all.push((sequence, own, Said::default()));
        left = others;
    }
    let say_some = |some: &mut [(&mut Sequence, &[f32], Said)]| {
        some.iter_mut().for_each(|(sequence, logits, said)| *said = say(sequence, logits, vocab, limits));
    };
    match compute.pool() {
        Some(pool) => pool.for_each_piece(&mut all, TOGETHER, |_, some| say_some(some)),
        None => say_some(&mut all),
    }
    all.into_iter().map(|(_, _, said)| said).collect()
}

/// Chooses tokens from the rows of `logits`, the last token's and the draft's, as long as the draft's are the chosen.
fn say(sequence: &mut Sequence, logits: &[f32], vocab: usize, limits: &Limits) -> Said {
    let (draft, mut said) = (std::mem::take(&mut sequence.draft), Said::default());
    said.drafts.drafted = draft.len();
    for (row, logits) in logits.chunks_exact(vocab).enumerate() {
        let token = match choose(sequence, logits) {
            Ok((token, event)) => {
                said.events.push(event);
                said.finish = sequence.end_after(token, limits);
                token
            }
            Err(finish) => {
                said.finish = Some(finish);
                break;
            }
        };
        if said.finish.is_some() || draft.get(row) != Some(&token) {
            break;
        }
        said.drafts.accepted += 1;
    }
    sequence.credit.settle(said.events.len(), said.drafts);
    said
}

/// Adds the token that is chosen from a row of logits to the answer, or says why there is none.
fn choose(sequence: &mut Sequence, logits: &[f32]) -> Result<(u32, Event), Finish> {
    let allowed = sequence.constraint.as_mut().map_or(Ok(Allowed::All), |constraint| constraint.allowed());
    let allowed = allowed.map_err(Finish::Unconstrained)?;
    let Sampled { token, logprob } = sequence.sampler.sample_of(logits, &allowed).map_err(Finish::Failed)?;
    let top = top_logprobs(logits, sequence.top_logprobs);
    sequence.constraint.as_mut().map_or(Ok(()), |c| c.accept(token)).map_err(Finish::Unconstrained)?;
    sequence.tokens.push(token);
    Ok((token, Event::Token { id: sequence.id, token, logprob, top }))
}
