//! From a prompt to an answer: tokens are chosen, decoded and parted into reasoning and content as
//! they come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::drafts::DraftCount;
use engine::sampler::{Sampler, Sampling};
use engine::session::Session;
use serde_json::{Map, Value, json};
use text::{
    ChatInput, ChatTemplate, ReasoningFormat, ReasoningPiece, ReasoningSplitter, Segment, Specials, StopStrings,
    StreamDecoder, Tokenizer,
};

/// A prompt in tokens, and how its answer begins.
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<u32>,
    format: ReasoningFormat,
}

impl Prompt {
    /// Messages through the model's chat template.
    pub(crate) fn chat(
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        messages: &[Value],
        variables: &Map<String, Value>,
    ) -> anyhow::Result<Prompt> {
        let input = chat_input(tokenizer, messages, variables);
        let segments = template.render_segments(&input)?;
        let text: String = segments.iter().map(|s| s.text.as_str()).collect();
        Ok(Prompt { tokens: tokenizer.encode_segments(&segments)?, format: format(tokenizer, &text) })
    }

    /// Plain text that the model goes on with.
    pub(crate) fn plain(tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Prompt> {
        let mut tokens = tokenizer.encode_segments(&[Segment::untrusted(text)])?;
        if let Some(bos) = tokenizer.bos_id().filter(|_| tokenizer.add_bos()) {
            tokens.insert(0, bos);
        }
        Ok(Prompt { tokens, format: format(tokenizer, text) })
    }
}

/// The input of a chat template for the next answer.
pub(crate) fn chat_input<'a>(
    tokenizer: &'a Tokenizer,
    messages: &'a [Value],
    variables: &'a Map<String, Value>,
) -> ChatInput<'a> {
    ChatInput {
        messages,
        tools: None,
        add_generation_prompt: true,
        bos_token: tokenizer.bos_id().and_then(|id| tokenizer.token(id)).unwrap_or_default(),
        eos_token: tokenizer.eos_ids().first().and_then(|&id| tokenizer.token(id)).unwrap_or_default(),
        today: Some(today()),
        variables: Some(variables),
    }
}

/// Year, month and day here and now.
pub(crate) fn today() -> (i32, u32, u32) {
    let date = jiff::Zoned::now().date();
    (date.year().into(), date.month() as u32, date.day() as u32)
}

/// gpt-oss answers in channels, the others reason between `<think>` markers if at all.
fn format(tokenizer: &Tokenizer, prompt: &str) -> ReasoningFormat {
    if tokenizer.id("<|channel|>").is_some() && tokenizer.id("<|message|>").is_some() {
        return ReasoningFormat::Channels { starts_in_header: prompt.ends_with("<|start|>assistant") };
    }
    ReasoningFormat::think_after(prompt)
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model ended it, or a stop string did.
    Stop,
    /// It is as long as was asked for, or the context is full.
    Length,
    /// It was cut off by Ctrl-C.
    Cancelled,
}

impl Finish {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// What happens on the way to an answer.
pub(crate) enum Event<'a> {
    /// Tokens of the prompt that are done.
    Prompt(usize),
    /// A piece of reasoning.
    Reasoning(&'a str),
    /// A piece of the answer.
    Content(&'a str),
}

/// A finished answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reasoning: String,
    pub(crate) content: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) finish: Finish,
    pub(crate) prompt_tokens: usize,
    /// Tokens of the prompt that were in the cache already.
    pub(crate) cached_tokens: usize,
    pub(crate) reasoning_tokens: usize,
    pub(crate) drafts: DraftCount,
    /// Until the first token was chosen.
    pub(crate) prompt_time: Duration,
    /// From there to the end.
    pub(crate) decode_time: Duration,
}

impl Answer {
    /// Tokens of the prompt that were computed, a second.
    pub(crate) fn prompt_speed(&self) -> f64 {
        (self.prompt_tokens - self.cached_tokens) as f64 / self.prompt_time.as_secs_f64().max(1e-9)
    }

    /// Tokens after the first, a second.
    pub(crate) fn decode_speed(&self) -> f64 {
        self.tokens.len().saturating_sub(1) as f64 / self.decode_time.as_secs_f64().max(1e-9)
    }

    /// One line about the work, short enough for a terminal's.
    pub(crate) fn summary(&self) -> String {
        let cached = if self.cached_tokens > 0 { format!(" ({} cached)", self.cached_tokens) } else { String::new() };
        let tokens = |count: usize| if count == 1 { "1 token".to_string() } else { format!("{count} tokens") };
        let speed = |value: f64| if value < 99.5 { format!("{value:.1}/s") } else { format!("{value:.0}/s") };
        let mut line = format!("prompt {}{cached}, {}", tokens(self.prompt_tokens), speed(self.prompt_speed()));
        if !self.tokens.is_empty() {
            line += &format!("; answer {}", tokens(self.tokens.len()));
        }
        // A speed needs two tokens: the time of the first is the prompt's.
        if self.tokens.len() > 1 {
            line += &format!(", {}", speed(self.decode_speed()));
        }
        format!("{line}; {}", self.finish.name())
    }

    /// The answer and its figures as one JSON object.
    pub(crate) fn as_json(&self) -> Value {
        json!({
            "content": self.content,
            "reasoning": self.reasoning,
            "finish_reason": self.finish.name(),
            "tokens": self.tokens,
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "cached_tokens": self.cached_tokens,
                "completion_tokens": self.tokens.len(),
                "reasoning_tokens": self.reasoning_tokens,
            },
            "drafts": { "tokens": self.drafts.drafted, "accepted": self.drafts.accepted },
            "first_token_s": self.prompt_time.as_secs_f64(),
            "prompt_tokens_per_s": self.prompt_speed(),
            "decode_tokens_per_s": self.decode_speed(),
        })
    }
}

/// How an answer is made.
pub(crate) struct Settings<'a> {
    pub(crate) sampling: Sampling,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) stop: &'a [String],
    /// Set from outside to end the answer.
    pub(crate) cancel: &'a AtomicBool,
}

/// Answers `prompt`, telling `on_event` what happens as it happens.
pub(crate) fn answer(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &Prompt,
    settings: Settings,
    mut on_event: impl FnMut(Event) -> std::io::Result<()>,
) -> anyhow::Result<Answer> {
    let start = Instant::now();
    let cancelled = || settings.cancel.load(Ordering::Relaxed);
    let same = session.tokens().iter().zip(&prompt.tokens).take_while(|(a, b)| a == b).count();
    let cached_tokens = same.min(prompt.tokens.len().saturating_sub(1));
    let drafted = session.drafted();
    let mut outcome = Ok(());
    let logits = session.prompt(&prompt.tokens, |done| {
        outcome = on_event(Event::Prompt(done));
        outcome.is_ok() && !cancelled()
    })?;
    outcome?;
    let prompt_time = start.elapsed();
    let mut pieces = Pieces::new(tokenizer, &prompt.format, settings.stop, on_event);
    let mut tokens = Vec::new();
    let mut finish = Finish::Cancelled;
    if let Some(mut logits) = logits {
        let mut sampler = Sampler::new(settings.sampling, &prompt.tokens, logits.len())?;
        finish = loop {
            if cancelled() {
                break Finish::Cancelled;
            }
            let token = sampler.sample(&logits)?.token;
            tokens.push(token);
            if tokenizer.eos_ids().contains(&token) || pieces.push(token)? {
                break Finish::Stop;
            }
            let full = session.tokens().len() >= session.context();
            if full || settings.max_tokens.is_some_and(|max| tokens.len() >= max) {
                break Finish::Length;
            }
            logits = session.push(token)?;
        };
    }
    let said = pieces.finish()?;
    Ok(Answer {
        reasoning: said.reasoning,
        content: said.content,
        tokens,
        finish,
        prompt_tokens: prompt.tokens.len(),
        cached_tokens,
        reasoning_tokens: said.reasoning_tokens,
        drafts: session.drafted().since(drafted),
        prompt_time,
        decode_time: start.elapsed() - prompt_time,
    })
}

/// Markers that are special tokens in some vocabularies and have to be seen all the same: they part reasoning from
/// content, and are not shown either.
const THINK_MARKERS: [&str; 2] = ["<think>", "</think>"];

/// Tokens to text, parted into reasoning and content, watched for stop strings.
struct Pieces<'a, F> {
    tokenizer: &'a Tokenizer,
    /// In gpt-oss' channels every special token has a meaning for the splitter.
    all_specials: bool,
    decoder: StreamDecoder<'a>,
    splitter: ReasoningSplitter,
    output: Output<F>,
}

/// Where the pieces go.
struct Output<F> {
    stops: StopStrings,
    stopped: bool,
    said: Said,
    on_event: F,
}

/// All that was said.
#[derive(Default)]
struct Said {
    reasoning: String,
    content: String,
    reasoning_tokens: usize,
}

impl<'a, F: FnMut(Event) -> std::io::Result<()>> Pieces<'a, F> {
    fn new(tokenizer: &'a Tokenizer, format: &ReasoningFormat, stop: &[String], on_event: F) -> Pieces<'a, F> {
        let stops = StopStrings::new(stop.to_vec());
        Pieces {
            tokenizer,
            all_specials: matches!(format, ReasoningFormat::Channels { .. }),
            decoder: StreamDecoder::new(tokenizer, Specials::Show),
            splitter: ReasoningSplitter::new(format.clone()),
            output: Output { stops, stopped: false, said: Said::default(), on_event },
        }
    }

    /// Takes a token; true if a stop string is complete.
    fn push(&mut self, token: u32) -> std::io::Result<bool> {
        if self.is_text(token) {
            let text = self.decoder.push(token);
            self.output.take(self.splitter.push(&text))?;
        }
        if self.splitter.in_reasoning() {
            self.output.said.reasoning_tokens += 1;
        }
        Ok(self.output.stopped)
    }

    /// Ends the answer: what the decoder, the splitter and the stop strings held back is text now.
    fn finish(self) -> std::io::Result<Said> {
        let Pieces { decoder, mut splitter, mut output, .. } = self;
        output.take(splitter.push(&decoder.finish()))?;
        output.take(splitter.finish())?;
        output.finish()
    }

    fn is_text(&self, token: u32) -> bool {
        self.all_specials
            || !self.tokenizer.is_special(token)
            || self.tokenizer.token(token).is_some_and(|name| THINK_MARKERS.contains(&name))
    }
}

impl<F: FnMut(Event) -> std::io::Result<()>> Output<F> {
    fn take(&mut self, pieces: Vec<ReasoningPiece>) -> std::io::Result<()> {
        for piece in pieces {
            match piece {
                _ if self.stopped => {}
                // Other channels are calls of tools and notes to the program, not to the reader.
                ReasoningPiece::Reasoning(text) | ReasoningPiece::Channel { text, .. } => self.reasoning(&text)?,
                ReasoningPiece::Content(text) => {
                    let matched = self.stops.push(&text);
                    self.stopped = matched.stopped_by.is_some();
                    self.content(&matched.text)?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<Said> {
        let rest = std::mem::replace(&mut self.stops, StopStrings::new([])).finish();
        self.content(&rest.text)?;
        Ok(self.said)
    }

    fn reasoning(&mut self, text: &str) -> std::io::Result<()> {
        self.said.reasoning.push_str(text);
        if text.is_empty() { Ok(()) } else { (self.on_event)(Event::Reasoning(text)) }
    }

    fn content(&mut self, text: &str) -> std::io::Result<()> {
        self.said.content.push_str(text);
        if text.is_empty() { Ok(()) } else { (self.on_event)(Event::Content(text)) }
    }
}
