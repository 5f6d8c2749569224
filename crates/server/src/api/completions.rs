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
use crate::error::{ApiError, ApiResult, Dialect};
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
    let caller = caller.for_user(request.user_id.as_deref())?;
    state.check_model(request.model.as_deref())?;
    let n = number("n", request.n, 1, state.limits.n_max)?.unwrap_or(1);
    let prompts = request.prompt.count();
    at_most("prompt", prompts, state.limits.prompts_max)?;
    // A prompt is scored before its answers begin: never more at once than answers, or one for each prompt.
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
    Ok(stream::value(whole(head, outputs, echo), every, Dialect::OpenAi).await)
}

/// What stands before answers: the prompts, where they are echoed.
#[derive(Clone, Debug, Default)]
struct Echo {
    /// A text for each prompt, or none.
    texts: Vec<String>,
    /// The first token of each prompt, and whether it is one that the text does not show.
    firsts: Vec<(String, bool)>,
    /// Answers to each prompt; none: the prompts themselves are the answers.
    n: usize,
    /// The engine scores the prompts first.
    scored: bool,
    /// Their log-probabilities are told.
    logprobs: bool,
}

impl Echo {
    /// Where the echo of a prompt goes.
    fn indices(&self, prompt: usize) -> std::ops::Range<usize> {
        let each = self.n.max(1);
        prompt * each..(prompt + 1) * each
    }

    /// A prompt with its log-probabilities, as choice `index` begins.
    fn choice(&self, index: usize, prompt: usize, logprobs: Option<&[TokenLogprob]>) -> CompletionChoice {
        let text = self.texts[prompt].clone();
        let logprobs = logprobs.filter(|_| self.logprobs).map(|logprobs| {
            let (first, hidden) = &self.firsts[prompt];
            let mut all = CompletionLogprobs::default();
            all.push_first(first.clone());
            let offset = if *hidden { 0 } else { first.chars().count() };
            let rest = Logprobs { content: Some(logprobs.to_vec()), reasoning_content: None };
            extend(&mut all, lists(rest, offset));
            all
        });
        let finish_reason = (self.n == 0).then(|| "length".to_string());
        CompletionChoice { index, text, logprobs, finish_reason }
    }
}

/// All that a request asks for, checked, and what stands before each answer.
fn job(state: &State, request: CompletionRequest, n: usize) -> ApiResult<(Job, Echo)> {
    let limits = &state.limits;
    if request.best_of.is_some_and(|best| best as usize != n) {
        return Err(ApiError::value("best_of", "best_of must be as n; the best of more is not offered"));
    }
    let echo = request.echo == Some(true);
    let top = number("logprobs", request.logprobs, 0, limits.top_logprobs_max)?;
    if echo && request.suffix.is_some() {
        return Err(ApiError::value("echo", "echo cannot be combined with suffix"));
    }
    // Without a word of an answer a prompt can only be echoed.
    let least = usize::from(!echo);
    let most = number("max_tokens", request.max_tokens, least, limits.max_tokens_max)?.or(Some(MAX_TOKENS));
    let (n, scored) = (if most == Some(0) { 0 } else { n }, echo && (top.is_some() || most == Some(0)));
    let (prompts, texts) = prompts(state, request.prompt, request.suffix.as_deref())?;
    if scored {
        check_scored(&prompts, state.served.context_tokens)?;
    }
    let echo = match echo {
        true => {
            let firsts = prompts.iter().map(|prompt| first(state, prompt)).collect();
            Echo { texts, firsts, n, scored, logprobs: top.is_some() }
        }
        false => Echo::default(),
    };
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
        max_tokens: most,
        stops: stops(request.stop, limits)?,
        scored,
        calls: Calls::Ignored,
        one_call: false,
        top_logprobs: top,
        guide: None,
        checked: None,
    };
    Ok((job, echo))
}

/// Prompts of which log-probabilities are told fit into the context.
fn check_scored(prompts: &[language::Prompt], context_tokens: usize) -> ApiResult<()> {
    for (i, prompt) in prompts.iter().enumerate() {
        match prompt.tokens.len() {
            0 => return Err(ApiError::value("prompt", format!("prompt {i} has no tokens"))),
            tokens if tokens > context_tokens => {
                let message = format!("prompt {i} has {tokens} tokens; the limit is {context_tokens}");
                return Err(ApiError::format(message).with_code("context_length_exceeded"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first token of a prompt, and whether it is one that the text does not show.
fn first(state: &State, prompt: &language::Prompt) -> (String, bool) {
    let Some(&token) = prompt.tokens.first() else { return (String::new(), true) };
    (state.served.token_text(token), state.served.tokenizer.is_special(token))
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
        let mut top: BTreeMap<String, f32> = top_logprobs.into_iter().map(|t| (t.token, t.logprob)).collect();
        // OpenAI: the token itself is always among them.
        top.insert(token.clone(), logprob);
        out.tokens.push(token);
        out.token_logprobs.push(Some(logprob));
        out.top_logprobs.push(Some(top));
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
async fn whole(head: Head, mut outputs: mpsc::Receiver<Output>, echo: Echo) -> ApiResult<Completion> {
    let mut choices: Vec<CompletionChoice> = Vec::new();
    let at = |choices: &mut Vec<CompletionChoice>, answer: usize| {
        for index in choices.len()..=answer {
            let text = echo.texts.get(index / echo.n.max(1)).cloned().unwrap_or_default();
            choices.push(CompletionChoice { index, text, logprobs: None, finish_reason: None });
        }
    };
    while let Some(output) = outputs.recv().await {
        match output {
            Output::Started { .. } => {}
            Output::Scored { prompt, logprobs } => {
                for index in echo.indices(prompt) {
                    at(&mut choices, index);
                    choices[index] = echo.choice(index, prompt, Some(&logprobs));
                }
            }
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
    echo: Echo,
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
        for prompt in (0..echo.texts.len()).filter(|_| !echo.scored) {
            for index in echo.indices(prompt) {
                sent.insert(index, echo.texts[prompt].chars().count());
                yield chunk(&head, echo.choice(index, prompt, None));
            }
        }
        while let Some(output) = outputs.recv().await {
            match output {
                Output::Started { .. } => {}
                Output::Scored { prompt, logprobs } => {
                    for index in echo.indices(prompt) {
                        sent.insert(index, echo.texts[prompt].chars().count());
                        yield chunk(&head, echo.choice(index, prompt, Some(&logprobs)));
                    }
                }
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
