//! One request's work: its answers run in the engine, are read, billed, and handed on piece by piece.
//!
//! Each request has a task of its own. It owns the way from the engine, so that whatever happens to the client, the
//! request is cancelled, its cost comes back from the engine, and the ledger is written. What the client sees last is
//! told after that.

use std::sync::Arc;
use std::time::Instant;

use engine::request::{Finish, Request};
use engine::sampler::Sampling;
use tokio::sync::mpsc;

use crate::admission::Place;
use crate::driver::{Cost, Told};
use crate::error::ApiError;
use crate::guide::Guide;
use crate::language::Prompt;
use crate::reader::{Calls, Piece, Reader};
use crate::state::{Caller, State};
use crate::store::ledger::{Entry, money};
use crate::wire::chat::{Logprobs, TokenLogprob, TopLogprob};
use crate::wire::usage::{Extension, Usage, Verdict, Words};

/// What is to be answered.
pub(crate) struct Job {
    /// Prompts; each gets `n` answers, none if it is only scored.
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) n: usize,
    /// Whether the log-probabilities of the prompts' own tokens are told before the answers.
    pub(crate) scored: bool,
    /// The first answer to a prompt has this seed, the next ones those after it.
    pub(crate) sampling: Sampling,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) stops: Vec<String>,
    pub(crate) calls: Calls,
    /// An answer ends with its first call.
    pub(crate) one_call: bool,
    /// `None`: no log-probabilities.
    pub(crate) top_logprobs: Option<usize>,
    /// What answers must look like.
    pub(crate) guide: Option<Guide>,
    /// What the user asks, and how the answer begins already, where a rule may know what is right.
    pub(crate) checked: Option<Checked>,
}

/// A question whose answer a rule can check.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) question: String,
    /// What the answer has said so far, without its reasoning.
    pub(crate) answer: String,
}

impl Checked {
    /// What the rule says.
    fn verdict(&self) -> Option<Verdict> {
        let eval::tasks::recognise::Verdict { task, ok, detail: [en, ar] } =
            eval::tasks::recognise::verdict(&self.question, &self.answer)?;
        Some(Verdict { task: task.into(), ok, detail: Some(Words { en, ar }) })
    }
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By the model, or by a stop string.
    Stop(Option<String>),
    /// It is as long as it may be.
    Length,
    /// With calls of tools.
    Calls,
}

impl End {
    /// OpenAI's word.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            End::Stop(_) => "stop",
            End::Length => "length",
            End::Calls => "tool_calls",
        }
    }
}

/// What happens to a request.
#[derive(Debug)]
pub(crate) enum Output {
    /// The first answer was taken up by the engine.
    Started { prompt_tokens: u64, cached_tokens: u64 },
    /// A prompt is scored: its tokens from the second on. Before anything of its answers.
    Scored { prompt: usize, logprobs: Vec<TokenLogprob> },
    /// Something new of an answer.
    Pieces { answer: usize, pieces: Vec<Piece>, logprobs: Option<Logprobs> },
    /// An answer is complete.
    Ended { answer: usize, end: End },
    /// All answers are complete and in the ledger.
    Done(Box<Summary>),
    /// The request failed; nothing follows.
    Failed(ApiError),
}

/// A request in figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) usage: Usage,
    pub(crate) extension: Extension,
}

/// Begins to work on a job; its outputs come from the channel, and the job is given up when that is dropped.
pub(crate) fn begin(state: &Arc<State>, caller: &Caller, job: Job, place: Place) -> mpsc::Receiver<Output> {
    let (sender, receiver) = mpsc::channel(16);
    let (work, phases) = Work::new(Arc::clone(state), caller.clone(), job, place);
    tokio::spawn(work.run(phases, sender));
    receiver
}

impl Job {
    /// Answer `i` to a prompt, as the engine is asked for it.
    fn request(&self, state: &State, caller: &Caller, prompt: &Prompt, i: u64) -> Request {
        Request {
            id: state.driver.next_id(),
            owner: caller.owner(),
            prompt: prompt.tokens.clone(),
            sampling: Sampling { seed: self.sampling.seed.wrapping_add(i), ..self.sampling.clone() },
            max_tokens: self.max_tokens.unwrap_or(state.served.context_tokens),
            stop_tokens: state.served.tokenizer.eos_ids().to_vec(),
            top_logprobs: self.top_logprobs.unwrap_or(0),
            constraint: self.guide.as_ref().map(|guide| guide.constraint(prompt)),
        }
    }

    /// What is known of an answer before it begins.
    fn answer(&self, state: &State, request: &Request, number: usize, prompt: &Prompt) -> Answer {
        let forced = self.guide.as_ref().is_some_and(Guide::forces_calls);
        let calls = if forced { Calls::Forced } else { self.calls };
        let reader = Reader::new(state.served.tokenizer, prompt.format.clone(), self.stops.clone(), calls);
        Answer {
            id: request.id,
            prompt: number,
            scores: false,
            prompt_tokens: prompt.tokens.len() as u64,
            reader: Some(reader),
            stop_tokens: request.stop_tokens.clone(),
            tokens: 0,
            reasoning_tokens: 0,
            logprobs: Logprobs::default(),
            any_call: false,
            cached: 0,
            first: None,
            reasoning_end: None,
            cost: None,
            live: false,
        }
    }
}

struct Work {
    state: Arc<State>,
    caller: Caller,
    answers: Vec<Answer>,
    with_logprobs: bool,
    one_call: bool,
    checked: Option<Checked>,
    seed: u64,
    begun: Instant,
    /// Held as long as the request counts against limits.
    _place: Place,
}

/// An answer to a prompt, or a prompt that is scored.
struct Answer {
    id: u64,
    prompt: usize,
    scores: bool,
    prompt_tokens: u64,
    reader: Option<Reader>,
    stop_tokens: Vec<u32>,
    tokens: u64,
    reasoning_tokens: u64,
    /// Log-probabilities that have not been handed on.
    logprobs: Logprobs,
    any_call: bool,
    cached: u64,
    first: Option<Instant>,
    reasoning_end: Option<Instant>,
    cost: Option<Cost>,
    /// The engine has it and has more to say about it.
    live: bool,
}

/// Requests that the engine works on together, with the numbers of their answers.
type Phase = Vec<(usize, Request)>;

impl Work {
    /// The work, and what the engine is asked for, one phase after the other.
    fn new(state: Arc<State>, caller: Caller, job: Job, place: Place) -> (Work, [Phase; 2]) {
        let (mut answers, mut requests, mut scoring) = (Vec::new(), Phase::new(), Phase::new());
        for (number, prompt) in job.prompts.iter().enumerate() {
            for i in 0..job.n as u64 {
                let request = job.request(&state, &caller, prompt, i);
                answers.push(job.answer(&state, &request, number, prompt));
                requests.push((answers.len() - 1, request));
            }
        }
        for (number, prompt) in job.prompts.iter().enumerate().filter(|_| job.scored) {
            let request = job.request(&state, &caller, prompt, 0);
            answers.push(Answer { scores: true, ..job.answer(&state, &request, number, prompt) });
            scoring.extend(crate::scoring::scoring(request).map(|request| (answers.len() - 1, request)));
        }
        let (with_logprobs, one_call, seed) = (job.top_logprobs.is_some(), job.one_call, job.sampling.seed);
        let checked = job.checked.filter(|_| answers.len() == 1);
        let begun = Instant::now();
        let work = Work { state, caller, answers, with_logprobs, one_call, checked, seed, begun, _place: place };
        (work, [scoring, requests])
    }

    async fn run(mut self, phases: [Phase; 2], out: mpsc::Sender<Output>) {
        if let Some(cache) = &self.state.prompt_cache {
            cache.bind(self.caller.owner(), self.caller.bound());
        }
        // Of one token nothing can be told.
        for answer in self.answers.iter().filter(|answer| answer.scores && answer.prompt_tokens < 2) {
            // Whoever asked may be gone; the phases see that.
            let _ = out.send(Output::Scored { prompt: answer.prompt, logprobs: Vec::new() }).await;
        }
        let mut outcome = Ok(());
        for phase in phases {
            if outcome.is_ok() {
                outcome = self.phase(phase, &out).await;
            }
        }
        let summary = self.summary();
        let recorded = self.record(&summary).await;
        let last = match (outcome, recorded) {
            (Err(None), _) => return,
            (Err(Some(error)), _) | (Ok(()), Err(error)) => Output::Failed(error),
            (Ok(()), Ok(())) => Output::Done(Box::new(summary)),
        };
        // Whoever asked may be gone by now; the ledger knows.
        let _ = out.send(last).await;
    }

    /// Gives requests to the engine and follows them to their end.
    async fn phase(&mut self, requests: Phase, out: &mpsc::Sender<Output>) -> Result<(), Option<ApiError>> {
        let (sender, mut told) = mpsc::channel(self.state.limits.tokens_behind_max);
        for (number, request) in requests {
            self.answers[number].live = self.state.driver.submit(request, (number, sender.clone()));
        }
        drop(sender);
        let outcome = self.follow(&mut told, out).await;
        if outcome.is_err() {
            self.answers.iter().filter(|answer| answer.live).for_each(|answer| self.state.driver.cancel(answer.id));
            self.settle(&mut told).await;
        }
        outcome
    }

    /// Reads answers until all are complete. The error is `None` if nobody wants them any more.
    async fn follow(
        &mut self,
        told: &mut mpsc::Receiver<(usize, Told)>,
        out: &mpsc::Sender<Output>,
    ) -> Result<(), Option<ApiError>> {
        let queue_end = tokio::time::Instant::now() + self.state.limits.queue_wait;
        let mut waiting = true;
        while self.answers.iter().any(|answer| answer.live) {
            let (number, event) = tokio::select! {
                event = told.recv() => event.ok_or_else(|| Some(self.lost()))?,
                () = out.closed() => return Err(None),
                () = tokio::time::sleep_until(queue_end), if waiting => {
                    return Err(Some(ApiError::unavailable("the request waited too long to be taken up", 30)));
                }
            };
            waiting &= !matches!(event, Told::Started { .. });
            for output in self.event(number, event).map_err(Some)? {
                out.send(output).await.map_err(|_| None)?;
            }
        }
        Ok(())
    }

    /// Waits until the engine has let go of everything, reading nothing but costs.
    async fn settle(&mut self, told: &mut mpsc::Receiver<(usize, Told)>) {
        while let Some((number, event)) = told.recv().await {
            if let Told::Finished { cost, .. } = event {
                self.answers[number].cost = Some(cost);
            }
        }
    }

    fn event(&mut self, number: usize, event: Told) -> Result<Vec<Output>, ApiError> {
        match event {
            Told::Started { cached_tokens } => {
                let answer = &mut self.answers[number];
                answer.cached = cached_tokens as u64;
                let (prompt_tokens, cached_tokens) = (answer.prompt_tokens, answer.cached);
                Ok(if number == 0 { vec![Output::Started { prompt_tokens, cached_tokens }] } else { Vec::new() })
            }
            Told::Token { token, logprob, top, at } => Ok(self.token(number, (token, logprob), &top, at)),
            Told::Finished { finish, cost } => {
                self.answers[number].live = false;
                self.answers[number].cost = Some(cost);
                self.finished(number, finish)
            }
            Told::Embedded { .. } => Ok(Vec::new()),
            Told::Refused(refusal) => {
                self.answers[number].live = false;
                Err(refused(refusal))
            }
            Told::Broken => {
                self.answers[number].live = false;
                Err(ApiError::internal("the engine broke down while it worked on this request"))
            }
        }
    }

    fn token(&mut self, number: usize, (token, logprob): (u32, f32), top: &[(u32, f32)], at: Instant) -> Vec<Output> {
        let entry = self.with_logprobs.then(|| self.state.logprob(token, logprob, top));
        let answer = &mut self.answers[number];
        if answer.scores {
            answer.logprobs.content.get_or_insert_default().extend(entry);
            return Vec::new();
        }
        let wanted = !(self.one_call && answer.any_call);
        let Some(reader) = answer.reader.as_mut().filter(|reader| wanted && reader.stopped_by().is_none()) else {
            return Vec::new();
        };
        answer.tokens += 1;
        answer.first.get_or_insert(at);
        let reasoned = reader.in_reasoning();
        let pieces = reader.push(token);
        answer.reasoning_tokens = reader.reasoning_tokens;
        if reasoned && !reader.in_reasoning() {
            answer.reasoning_end = Some(at);
        }
        if let Some(entry) = entry.filter(|_| !answer.stop_tokens.contains(&token)) {
            // The markers of reasoning are of the reasoning.
            let list = match reasoned || reader.in_reasoning() {
                true => answer.logprobs.reasoning_content.get_or_insert_default(),
                false => answer.logprobs.content.get_or_insert_default(),
            };
            list.push(entry);
        }
        if reader.stopped_by().is_some() {
            // The rest of what the engine says about it is not read.
            self.state.driver.cancel(answer.id);
        }
        self.pieces(number, pieces)
    }

    fn pieces(&mut self, number: usize, mut pieces: Vec<Piece>) -> Vec<Output> {
        if self.one_call {
            self.end_with_call(number, &mut pieces);
        }
        if pieces.is_empty() {
            return Vec::new();
        }
        if let Some(checked) = &mut self.checked {
            checked.answer.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Content(text) => Some(text.as_str()),
                Piece::Reasoning(_) | Piece::Call(_) => None,
            }));
        }
        let answer = &mut self.answers[number];
        answer.any_call |= pieces.iter().any(|piece| matches!(piece, Piece::Call(_)));
        let logprobs = self.with_logprobs.then(|| std::mem::take(&mut answer.logprobs));
        vec![Output::Pieces { answer: number, pieces, logprobs }]
    }

    /// Leaves out what comes after an answer's first call, and ends the answer there.
    fn end_with_call(&mut self, number: usize, pieces: &mut Vec<Piece>) {
        let answer = &self.answers[number];
        let end = match answer.any_call {
            true => Some(0),
            false => pieces.iter().position(|piece| matches!(piece, Piece::Call(_))).map(|at| at + 1),
        };
        if let Some(end) = end {
            pieces.truncate(end);
            self.state.driver.cancel(answer.id);
        }
    }

    /// A prompt was scored.
    fn scored(&mut self, number: usize, finish: Finish) -> Result<Vec<Output>, ApiError> {
        match finish {
            Finish::Stop | Finish::Length => {}
            Finish::Cancelled => return Err(self.lost()),
            Finish::Failed(error) => return Err(ApiError::internal(error.to_string())),
            Finish::Unconstrained(error) => return Err(ApiError::internal(error.to_string())),
        }
        let answer = &mut self.answers[number];
        let logprobs = std::mem::take(&mut answer.logprobs).content.unwrap_or_default();
        Ok(vec![Output::Scored { prompt: answer.prompt, logprobs }])
    }

    fn finished(&mut self, number: usize, finish: Finish) -> Result<Vec<Output>, ApiError> {
        if self.answers[number].scores {
            return self.scored(number, finish);
        }
        let Some(reader) = self.answers[number].reader.take() else { return Ok(Vec::new()) };
        let stopped = reader.stopped_by().is_some();
        let (pieces, stopped_by) = reader.finish();
        let mut outputs = self.pieces(number, pieces);
        let answer = &mut self.answers[number];
        // Log-probabilities of tokens whose text never came.
        let left = answer.logprobs.content.is_some() || answer.logprobs.reasoning_content.is_some();
        if left {
            let logprobs = Some(std::mem::take(&mut answer.logprobs));
            outputs.push(Output::Pieces { answer: number, pieces: Vec::new(), logprobs });
        }
        let end = match finish {
            _ if answer.any_call => End::Calls,
            _ if stopped_by.is_some() => End::Stop(stopped_by),
            Finish::Stop => End::Stop(None),
            Finish::Length => End::Length,
            Finish::Cancelled if stopped => End::Stop(stopped_by),
            Finish::Cancelled => return Err(self.lost()),
            Finish::Failed(error) => return Err(ApiError::internal(error.to_string())),
            Finish::Unconstrained(error) => return Err(ApiError::internal(error.to_string())),
        };
        outputs.push(Output::Ended { answer: number, end });
        Ok(outputs)
    }

    /// Why the engine went silent or cancelled what nobody here did.
    fn lost(&self) -> ApiError {
        if self.state.stopping() {
            return ApiError::unavailable("the server is stopping", 5);
        }
        let limit = self.state.limits.tokens_behind_max;
        ApiError::new(
            axum::http::StatusCode::REQUEST_TIMEOUT,
            format!("the reader is more than {limit} tokens behind; the answer was given up"),
        )
    }

    fn summary(&self) -> Summary {
        let (prompt, cached) = self.prompt_tokens();
        let (scores, answers): (Vec<&Answer>, Vec<&Answer>) = self.answers.iter().partition(|answer| answer.scores);
        let completion: u64 = answers.iter().map(|a| a.tokens).sum();
        let reasoning = answers.iter().map(|a| a.reasoning_tokens).sum();
        let usage = Usage::of(prompt, cached, completion, reasoning);
        // What a prompt is scored for is time of the prompt.
        let of_prompt = |cost: Cost| Cost { prompt_s: cost.prompt_s + cost.decode_s, decode_s: 0.0, ..cost };
        let scoring = scores.iter().filter_map(|a| a.cost.map(of_prompt));
        let costs: Vec<Cost> = answers.iter().filter_map(|a| a.cost).chain(scoring).collect();
        let largest = |pick: fn(&Cost) -> f64| costs.iter().map(pick).fold(0.0, f64::max);
        let (prompt_s, decode_s) = (largest(|c| c.prompt_s), largest(|c| c.decode_s));
        let joules: Vec<f64> = costs.iter().filter_map(|c| c.joules).collect();
        let rate = |tokens: u64, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
        let reasoned = answers.first().and_then(|a| Some((a.reasoning_end? - a.first?).as_secs_f64()));
        let pico = self.caller.prices.cost_pico(&usage);
        let extension = Extension {
            queue_seconds: largest(|c| c.queue_s),
            prompt_seconds: prompt_s,
            decode_seconds: decode_s,
            compute_seconds: costs.iter().map(|c| c.compute_s).sum(),
            prompt_tokens_per_second: rate(prompt - cached, prompt_s),
            tokens_per_second: rate(completion.saturating_sub(answers.len() as u64), decode_s),
            reasoning_seconds: reasoned,
            cost: money(pico),
            currency: self.caller.prices.currency.clone(),
            joules: (!joules.is_empty()).then(|| joules.iter().sum()),
            joules_label: self.state.driver.meter().label().map(str::to_string),
            seed: self.seed,
            verdict: self.checked.as_ref().and_then(Checked::verdict),
        };
        Summary { usage, extension }
    }

    /// Tokens of all prompts, and those that were found in the cache. A prompt is counted once, whatever the number of
    /// its answers; one that is scored is computed for that.
    fn prompt_tokens(&self) -> (u64, u64) {
        let scored = self.answers.iter().any(|answer| answer.scores);
        let mut counted: Vec<&Answer> = self.answers.iter().filter(|answer| answer.scores == scored).collect();
        counted.dedup_by_key(|answer| answer.prompt);
        counted.iter().fold((0, 0), |(prompt, cached), a| (prompt + a.prompt_tokens, cached + a.cached))
    }

    /// Writes the request into the ledger, if it has cost anything.
    async fn record(&self, summary: &Summary) -> Result<(), ApiError> {
        if self.answers.iter().all(|answer| answer.cost.is_none()) {
            return Ok(());
        }
        let wall = self.begun.elapsed();
        self.state.metrics.request(&summary.usage, &summary.extension, wall);
        let entry = Entry::new(&self.caller, &self.state.served.id, summary);
        self.state.store(move |store| store.ledger_add(&entry)).await
    }
}

/// A refusal of the engine as an answer.
pub(crate) fn refused(refusal: engine::request::Refusal) -> ApiError {
    use engine::request::Refusal;
    let message = refusal.to_string();
    match refusal {
        Refusal::Busy { .. } | Refusal::OwnerBusy { .. } => ApiError::too_many(message, 1),
        Refusal::TooLong { .. } => ApiError::format(message).with_code("context_length_exceeded"),
        Refusal::Duplicate(_) => ApiError::internal(message),
        Refusal::TopLogprobs { .. } => ApiError::value("top_logprobs", message),
        Refusal::EmptyPrompt => ApiError::value("prompt", message),
        Refusal::EmptyAnswer => ApiError::value("max_tokens", message),
        Refusal::Token { .. } => ApiError::value("prompt", message),
        Refusal::NoEmbeddings => ApiError::value("model", message),
        Refusal::Sampling(_) => ApiError::value("sampling", message),
    }
}

impl State {
    fn logprob(&self, token: u32, logprob: f32, top: &[(u32, f32)]) -> TokenLogprob {
        let text = |token| self.served.token_text(token);
        let bytes = |token| self.served.tokenizer.token_bytes(token).map(<[u8]>::to_vec);
        let top = top.iter().map(|&(t, logprob)| TopLogprob { token: text(t), logprob, bytes: bytes(t) });
        TokenLogprob { token: text(token), logprob, bytes: bytes(token), top_logprobs: top.collect() }
    }
}
