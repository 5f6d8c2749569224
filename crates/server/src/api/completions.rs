//! `POST /v1/completions`: plain text that the model goes on with, and gaps that it fills.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_stream::stream;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use tokio::sync::mpsc;

use super::chat::{FINGERPRINT, Head};
use super::settings::{Asked, at_most, number, stops};
use crate::error::{ApiError, ApiResult};
use crate::http::body::read_json;
use crate::http::stream::{self, Event};
use crate::language;
use crate::reader::{Calls, Piece};
use crate::state::State;
use crate::wire::chat::{Logprobs, TokenLogprob};
use crate::wire::completions::{Completion, CompletionChoice, CompletionLogprobs, CompletionRequest, Prompt};
use crate::work::{Job, Output, begin};

/// Tokens of an answer where nothing is said: OpenAI's default here is 16.
const MAX_TOKENS: usize = 16;
/// The most likely tokens that may be asked for: OpenAI's limit here is 5.
const LOGPROBS_MAX: usize = 5;

/// The handler.
pub(crate) async fn complete(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    match answer(state, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(state: Arc<State>, request: Request<Body>) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    let caller = state.caller(&parts.headers)?;
    let request: CompletionRequest = read_json(&state.limits, body).await?;
    caller.check_balance()?;
    state.check_model(request.model.as_deref())?;
    let n = number("n", request.n, 1, state.limits.n_max)?.unwrap_or(1);
    let prompts = request.prompt.count();
    at_most("prompt", prompts, state.limits.prompts_max)?;
    let place = state.admission.enter(&state.limits, &caller, n * prompts)?;
    let (stream, every) = (request.stream == Some(true), state.limits.keep_alive_every);
    let usage = request.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true));
    let worker = Arc::clone(&state);
    let prepared = tokio::task::spawn_blocking(move || job(&worker, request, n)).await;
    let (job, echo) = prepared.map_err(|_| ApiError::internal("the request could not be prepared"))??;
    let outputs = begin(&state, &caller, job, place);
    let head = Head::new("cmpl-", &state)?;
    if stream {
        return Ok(stream::events(chunks(head, outputs, echo, usage), every));
    }
    Ok(stream::value(whole(head, outputs, echo), every, IntoResponse::into_response).await)
}

/// All that a request asks for, checked, and what stands before each answer.
fn job(state: &State, request: CompletionRequest, n: usize) -> ApiResult<(Job, Vec<String>)> {
    let limits = &state.limits;
    if request.best_of.is_some_and(|best| best as usize != n) {
        return Err(ApiError::value("best_of", "best_of must be as n; the best of more is not offered"));
    }
    let echo = request.echo == Some(true);
    let top = number("logprobs", request.logprobs, 0, LOGPROBS_MAX)?;
    if echo && (top.is_some() || request.suffix.is_some()) {
        return Err(ApiError::value("echo", "echo cannot be combined with logprobs or suffix"));
    }
    let (prompts, texts) = prompts(state, request.prompt, request.suffix.as_deref())?;
    let before = if echo { texts.into_iter().flat_map(|text| vec![text; n]).collect() } else { Vec::new() };
    let asked = Asked {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        repetition_penalty: request.repetition_penalty,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        logit_bias: request.logit_bias,
        seed: request.seed,
    };
    let job = Job {
        prompts,
        n,
        sampling: asked.sampling(state)?,
        max_tokens: number("max_tokens", request.max_tokens, 1, limits.max_tokens_max)?.or(Some(MAX_TOKENS)),
        stops: stops(request.stop, limits)?,
        calls: Calls::Ignored,
        top_logprobs: top,
        guide: None,
        checked: None,
    };
    Ok((job, before))
}

/// Prompts in tokens, and their texts.
pub(crate) fn prompts(
    state: &State,
    prompt: Prompt,
    suffix: Option<&str>,
) -> ApiResult<(Vec<language::Prompt>, Vec<String>)> {
    let lists = match prompt {
        Prompt::Text(texts) => {
            let texts = texts.into_vec();
            let prompts = texts.iter().map(|text| match (suffix, state.traits.fill) {
                (None, _) => state.served.plain(text),
                (Some(suffix), Some(fill)) => state.served.fill(fill, text, suffix),
                (Some(_), None) => Err(ApiError::value("suffix", "this model cannot fill in; leave suffix out")),
            });
            return Ok((prompts.collect::<ApiResult<_>>()?, texts));
        }
        _ if suffix.is_some() => {
            return Err(ApiError::value("suffix", "suffix needs a prompt that is text"));
        }
        Prompt::Tokens(tokens) => vec![tokens],
        Prompt::ManyTokens(lists) => lists,
    };
    let texts = lists.iter().map(|list| state.served.tokenizer.decode(list, text::Specials::Show)).collect();
    let prompts = lists.into_iter().map(|tokens| {
        // Tokens that are given as numbers may be special ones: whoever writes numbers means them.
        if tokens.is_empty() {
            return Err(ApiError::value("prompt", "prompt: a list of tokens is empty"));
        }
        match tokens.iter().find(|&&token| token as usize >= state.served.vocab) {
            Some(token) => Err(ApiError::value("prompt", format!("prompt: there is no token {token}"))),
            None => Ok(language::Prompt { tokens, format: None }),
        }
    });
    Ok((prompts.collect::<ApiResult<_>>()?, texts))
}

fn completion(head: &Head, choices: Vec<CompletionChoice>) -> Completion {
    Completion {
        id: head.id.clone(),
        object: "text_completion".into(),
        created: head.created,
        model: head.model.clone(),
        system_fingerprint: FINGERPRINT.into(),
        choices,
        usage: None,
        fathom: None,
    }
}

/// The text of pieces: all of it is content, since nothing else is looked for.
fn text_of(pieces: Vec<Piece>) -> String {
    let texts = pieces.into_iter().map(|piece| match piece {
        Piece::Content(text) | Piece::Reasoning(text) => text,
        Piece::Call(_) => String::new(),
    });
    texts.collect()
}

/// Log-probabilities in lists, those of an answer's text from character `offset` on.
fn lists(logprobs: Logprobs, mut offset: usize) -> CompletionLogprobs {
    let mut out = CompletionLogprobs::default();
    for TokenLogprob { token, logprob, top_logprobs, .. } in logprobs.content.unwrap_or_default() {
        out.text_offset.push(offset);
        offset += token.chars().count();
        out.tokens.push(token);
        out.token_logprobs.push(logprob);
        out.top_logprobs.push(top_logprobs.into_iter().map(|t| (t.token, t.logprob)).collect::<BTreeMap<_, _>>());
    }
    out
}

fn extend(all: &mut CompletionLogprobs, more: CompletionLogprobs) {
    all.tokens.extend(more.tokens);
    all.token_logprobs.extend(more.token_logprobs);
    all.top_logprobs.extend(more.top_logprobs);
    all.text_offset.extend(more.text_offset);
}

/// The answers in one piece.
async fn whole(head: Head, mut outputs: mpsc::Receiver<Output>, echo: Vec<String>) -> ApiResult<Completion> {
    let mut choices: Vec<CompletionChoice> = Vec::new();
    let at = |choices: &mut Vec<CompletionChoice>, answer: usize| {
        for index in choices.len()..=answer {
            let text = echo.get(index).cloned().unwrap_or_default();
            choices.push(CompletionChoice { index, text, logprobs: None, finish_reason: None });
        }
    };
    while let Some(output) = outputs.recv().await {
        match output {
            Output::Started { .. } => {}
            Output::Pieces { answer, pieces, logprobs } => {
                at(&mut choices, answer);
                let choice = &mut choices[answer];
                if let Some(logprobs) = logprobs {
                    let offset = choice.text.chars().count();
                    extend(choice.logprobs.get_or_insert_default(), lists(logprobs, offset));
                }
                choice.text.push_str(&text_of(pieces));
            }
            Output::Ended { answer, end } => {
                at(&mut choices, answer);
                choices[answer].finish_reason = Some(end.reason().to_string());
            }
            Output::Failed(error) => return Err(error),
            Output::Done(summary) => {
                let mut done = completion(&head, choices);
                done.usage = Some(Some(summary.usage));
                done.fathom = Some(summary.extension);
                return Ok(done);
            }
        }
    }
    Err(ApiError::internal("the answer broke off"))
}

/// The answers as a stream.
fn chunks(
    head: Head,
    mut outputs: mpsc::Receiver<Output>,
    echo: Vec<String>,
    usage: bool,
) -> impl Stream<Item = Event> + Send {
    let chunk = move |head: &Head, choice: CompletionChoice| {
        let mut chunk = completion(head, vec![choice]);
        chunk.usage = usage.then_some(None);
        Event::data(&chunk)
    };
    stream! {
        // Characters of each answer that were sent.
        let mut sent: BTreeMap<usize, usize> = BTreeMap::new();
        for (index, text) in echo.into_iter().enumerate() {
            sent.insert(index, text.chars().count());
            yield chunk(&head, CompletionChoice { index, text, logprobs: None, finish_reason: None });
        }
        while let Some(output) = outputs.recv().await {
            match output {
                Output::Started { .. } => {}
                Output::Pieces { answer, pieces, logprobs } => {
                    let (text, offset) = (text_of(pieces), sent.entry(answer).or_default());
                    let logprobs = logprobs.map(|logprobs| lists(logprobs, *offset));
                    *offset += text.chars().count();
                    yield chunk(&head, CompletionChoice { index: answer, text, logprobs, finish_reason: None });
                }
                Output::Ended { answer, end } => {
                    let finish_reason = Some(end.reason().to_string());
                    let (text, logprobs) = (String::new(), None);
                    yield chunk(&head, CompletionChoice { index: answer, text, logprobs, finish_reason });
                }
                Output::Failed(error) => {
                    yield Event::data(&error.body());
                    break;
                }
                Output::Done(summary) => {
                    if usage {
                        let mut last = completion(&head, Vec::new());
                        last.usage = Some(Some(summary.usage));
                        last.fathom = Some(summary.extension);
                        yield Event::data(&last);
                    }
                    yield Event::done();
                    break;
                }
            }
        }
    }
}
