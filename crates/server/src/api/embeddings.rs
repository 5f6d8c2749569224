//! `POST /v1/embeddings`: vectors of texts, each of length 1.
//!
//! As in [`crate::work`], a task of its own follows the request, so that whatever happens to the client, the engine
//! lets go of it and the ledger is written.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::request::{EmbedRequest, RequestId};
use tokio::sync::{mpsc, oneshot};

use super::settings::at_most;
use crate::admission::Place;
use crate::driver::{Cost, Told};
use crate::error::{ApiError, ApiResult, Dialect};
use crate::http::body::read_json;
use crate::http::stream;
use crate::language::Embedder;
use crate::state::{Caller, State};
use crate::store::ledger::{Entry, money};
use crate::wire::completions::Prompt;
use crate::wire::embeddings::{Embedding, EmbeddingRequest, Embeddings, EncodingFormat, Vector};
use crate::wire::usage::{Extension, Usage};
use crate::work::{Summary, refused};

/// The handler.
pub(crate) async fn embed(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    match answer(state, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(state: Arc<State>, request: Request<Body>) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    let caller = state.caller(&parts.headers)?;
    let request: EmbeddingRequest = read_json(&state.limits, body).await?;
    caller.check_balance()?;
    state.check_model(request.model.as_deref())?;
    let Some(embedder) = state.served.embedder else {
        return Err(ApiError::value("model", "this model gives no embeddings"));
    };
    if let Some(dimensions) = request.dimensions.filter(|&d| d as usize != embedder.length) {
        let message = format!("dimensions is {dimensions}; vectors of this model have {}", embedder.length);
        return Err(ApiError::value("dimensions", message));
    }
    let count = request.input.count();
    at_most("input", count, state.limits.prompts_max)?;
    if count == 0 {
        return Err(ApiError::value("input", "input is empty; there must be at least one text"));
    }
    let place = state.admission.enter(&state.limits, &caller, count)?;
    let (worker, format) = (Arc::clone(&state), request.encoding_format.unwrap_or(EncodingFormat::Float));
    let texts = tokio::task::spawn_blocking(move || texts(&worker, embedder, request.input)).await;
    let texts = texts.map_err(|_| ApiError::internal("the request could not be prepared"))??;
    let (sender, receiver) = oneshot::channel();
    let every = state.limits.keep_alive_every;
    let job = Job::new(state, caller, &texts, place);
    tokio::spawn(job.run(texts, embedder, format, sender));
    let done = async { receiver.await.unwrap_or_else(|_| Err(ApiError::internal("the answer broke off"))) };
    Ok(stream::value(done, every, Dialect::OpenAi).await)
}

/// The texts in tokens.
fn texts(state: &State, embedder: Embedder, input: Prompt) -> ApiResult<Vec<Vec<u32>>> {
    let (prompts, _) = super::completions::prompts(state, input, None)?;
    let limit = state.served.context_tokens - 1;
    let mut texts = Vec::with_capacity(prompts.len());
    for (i, prompt) in prompts.into_iter().enumerate() {
        let mut tokens = prompt.tokens;
        let wrong = |message: String| Err(ApiError { param: Some("input".into()), ..ApiError::format(message) });
        if tokens.is_empty() {
            return wrong(format!("input[{i}] is empty"));
        }
        tokens.extend(embedder.end);
        if tokens.len() > limit {
            return wrong(format!("input[{i}] has {} tokens; the limit is {limit}", tokens.len()));
        }
        texts.push(tokens);
    }
    Ok(texts)
}

/// What is being done for a request.
struct Job {
    state: Arc<State>,
    caller: Caller,
    ids: Vec<RequestId>,
    vectors: Vec<Option<Vec<f32>>>,
    costs: Vec<Cost>,
    prompt_tokens: u64,
    cached_tokens: u64,
    begun: Instant,
    /// Held as long as the request counts against limits.
    _place: Place,
}

type Answer = oneshot::Sender<ApiResult<Embeddings>>;

impl Job {
    fn new(state: Arc<State>, caller: Caller, texts: &[Vec<u32>], place: Place) -> Job {
        Job {
            ids: texts.iter().map(|_| state.driver.next_id()).collect(),
            vectors: vec![None; texts.len()],
            costs: Vec::new(),
            prompt_tokens: texts.iter().map(|text| text.len() as u64).sum(),
            cached_tokens: 0,
            begun: Instant::now(),
            state,
            caller,
            _place: place,
        }
    }

    async fn run(mut self, texts: Vec<Vec<u32>>, embedder: Embedder, format: EncodingFormat, mut answer: Answer) {
        let (sender, mut told) = mpsc::channel(16 * texts.len());
        let pooling = embedder.pooling;
        if let Some(cache) = &self.state.prompt_cache {
            cache.bind(self.caller.owner(), self.caller.bound());
        }
        for (number, (tokens, &id)) in texts.into_iter().zip(&self.ids).enumerate() {
            let request = EmbedRequest { id, owner: self.caller.owner(), tokens, pooling };
            self.state.driver.embed(request, (number, sender.clone()));
        }
        drop(sender);
        let outcome = tokio::select! {
            outcome = self.follow(&mut told) => outcome.map_err(Some),
            () = answer.closed() => Err(None),
        };
        if outcome.is_err() {
            self.ids.iter().for_each(|&id| self.state.driver.cancel(id));
            while let Some((_, event)) = told.recv().await {
                if let Told::Finished { cost, .. } = event {
                    self.costs.push(cost);
                }
            }
        }
        let summary = self.summary();
        let recorded = self.record(&summary).await;
        let last = match (outcome, recorded) {
            (Err(None), _) => return,
            (Err(Some(error)), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(())) => Ok(self.embeddings(summary, format)),
        };
        // Whoever asked may be gone by now; the ledger knows.
        let _ = answer.send(last);
    }

    async fn follow(&mut self, told: &mut mpsc::Receiver<(usize, Told)>) -> ApiResult<()> {
        while let Some((number, event)) = told.recv().await {
            match event {
                Told::Started { cached_tokens } => self.cached_tokens += cached_tokens as u64,
                Told::Embedded { vector } => self.vectors[number] = Some(vector),
                Told::Finished { cost, .. } => self.costs.push(cost),
                Told::Refused(refusal) => return Err(refused(refusal)),
                Told::Broken => {
                    return Err(ApiError::internal("the engine broke down while it worked on this request"));
                }
                Told::Token { .. } => {}
            }
        }
        match self.vectors.iter().all(Option::is_some) {
            true => Ok(()),
            false if self.state.stopping() => Err(ApiError::unavailable("the server is stopping", 5)),
            false => Err(ApiError::internal("the engine gave no vector")),
        }
    }

    fn summary(&self) -> Summary {
        let usage = Usage::of(self.prompt_tokens, self.cached_tokens, 0, 0);
        let largest = |pick: fn(&Cost) -> f64| self.costs.iter().map(pick).fold(0.0, f64::max);
        let joules: Vec<f64> = self.costs.iter().filter_map(|cost| cost.joules).collect();
        let prompt_s = largest(|cost| cost.prompt_s);
        let computed = (self.prompt_tokens - self.cached_tokens) as f64;
        let extension = Extension {
            queue_seconds: largest(|cost| cost.queue_s),
            prompt_seconds: prompt_s,
            compute_seconds: self.costs.iter().map(|cost| cost.compute_s).sum(),
            prompt_tokens_per_second: if prompt_s > 0.0 { computed / prompt_s } else { 0.0 },
            cost: money(self.caller.prices.cost_pico(&usage)),
            currency: self.caller.prices.currency.clone(),
            joules: (!joules.is_empty()).then(|| joules.iter().sum()),
            joules_label: self.state.driver.meter().label().map(str::to_string),
            ..Extension::default()
        };
        Summary { usage, extension }
    }

    async fn record(&self, summary: &Summary) -> ApiResult<()> {
        if self.costs.is_empty() {
            return Ok(());
        }
        self.state.metrics.request(&summary.usage, &summary.extension, self.begun.elapsed());
        let entry = Entry::new(&self.caller, &self.state.served.id, summary);
        self.state.store(move |store| store.ledger_add(&entry)).await
    }

    fn embeddings(self, summary: Summary, format: EncodingFormat) -> Embeddings {
        let written = |vector: Vec<f32>| match format {
            EncodingFormat::Float => Vector::Float(vector),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        };
        let data = self.vectors.into_iter().flatten().enumerate().map(|(index, vector)| Embedding {
            object: "embedding".into(),
            index,
            embedding: written(vector),
        });
        Embeddings {
            object: "list".into(),
            data: data.collect(),
            model: self.state.served.id.clone(),
            usage: summary.usage,
            fathom: summary.extension,
        }
    }
}
