//! From tokens to what an answer says: text, parted into reasoning, content and calls, cut at stop strings.
//!
//! The same pieces in the same order whether an answer streams or not: the handlers only differ in when they send.

use text::{ReasoningFormat, ReasoningPiece, ReasoningSplitter, Specials, StopStrings, StreamDecoder, Tokenizer};

use crate::tools::{Call, MARKERS, Said, ToolFormat, ToolReader, object_call};

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Reasoning(String),
    Content(String),
    Call(Call),
}

/// How calls are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// They are text like any other.
    Ignored,
    /// In the model's own form.
    Of(ToolFormat),
    /// All of the content is a list of calls, because its form was forced.
    Forced,
}

/// Markers that are special tokens in some vocabularies and have to be seen all the same.
const THINK_MARKERS: [&str; 2] = ["<think>", "</think>"];

/// Reads one answer.
pub(crate) struct Reader {
    tokenizer: &'static Tokenizer,
    /// Markers of calls are seen.
    calls: Calls,
    /// In gpt-oss' channels every special token has a meaning.
    all_specials: bool,
    decoder: StreamDecoder<'static>,
    /// `None`: all is content.
    splitter: Option<ReasoningSplitter>,
    stops: StopStrings,
    tools: ToolReader,
    /// Content whose form was forced, until the answer ends.
    forced: String,
    stopped_by: Option<String>,
    /// Tokens so far that were reasoning.
    pub(crate) reasoning_tokens: u64,
}

impl Reader {
    pub(crate) fn new(
        tokenizer: &'static Tokenizer,
        format: Option<ReasoningFormat>,
        stops: Vec<String>,
        calls: Calls,
    ) -> Reader {
        let tools = match calls {
            Calls::Of(format) => format,
            Calls::Ignored | Calls::Forced => ToolFormat::Channels,
        };
        Reader {
            tokenizer,
            calls,
            all_specials: matches!(format, Some(ReasoningFormat::Channels { .. })),
            decoder: StreamDecoder::new(tokenizer, Specials::Show),
            splitter: format.map(ReasoningSplitter::new),
            stops: StopStrings::new(stops),
            tools: ToolReader::new(tools),
            forced: String::new(),
            stopped_by: None,
            reasoning_tokens: 0,
        }
    }

    /// Takes a token.
    pub(crate) fn push(&mut self, token: u32) -> Vec<Piece> {
        let mut out = Vec::new();
        if self.is_text(token) {
            let text = self.decoder.push(token);
            self.take(&text, &mut out);
        }
        self.reasoning_tokens += u64::from(self.in_reasoning());
        out
    }

    /// Whether the answer is inside its reasoning.
    pub(crate) fn in_reasoning(&self) -> bool {
        self.splitter.as_ref().is_some_and(ReasoningSplitter::in_reasoning)
    }

    /// The stop string that ended the answer; nothing that is pushed after it is read.
    pub(crate) fn stopped_by(&self) -> Option<&str> {
        self.stopped_by.as_deref()
    }

    /// Ends the answer: what was held back is text now.
    pub(crate) fn finish(mut self) -> (Vec<Piece>, Option<String>) {
        let mut out = Vec::new();
        let decoder = std::mem::replace(&mut self.decoder, StreamDecoder::new(self.tokenizer, Specials::Show));
        self.take(&decoder.finish(), &mut out);
        if let Some(splitter) = self.splitter.take() {
            self.parted(splitter.finish(), &mut out);
        }
        if self.stopped_by.is_none() {
            let rest = std::mem::replace(&mut self.stops, StopStrings::new([])).finish();
            self.stopped_by = rest.stopped_by;
            self.said(&rest.text, &mut out);
        }
        let tools = std::mem::replace(&mut self.tools, ToolReader::new(ToolFormat::Channels));
        out.extend(tools.finish().into_iter().map(Piece::from));
        if self.calls == Calls::Forced {
            out.extend(forced_calls(&self.forced));
        }
        (out, self.stopped_by)
    }

    fn is_text(&self, token: u32) -> bool {
        let shown = |names: &[&str]| self.tokenizer.token(token).is_some_and(|name| names.contains(&name));
        self.all_specials
            || !self.tokenizer.is_special(token)
            || (self.splitter.is_some() && shown(&THINK_MARKERS))
            || (matches!(self.calls, Calls::Of(_)) && shown(&MARKERS))
    }

    fn take(&mut self, text: &str, out: &mut Vec<Piece>) {
        match &mut self.splitter {
            Some(splitter) => {
                let parts = splitter.push(text);
                self.parted(parts, out);
            }
            None => self.content(text, out),
        }
    }

    fn parted(&mut self, parts: Vec<ReasoningPiece>, out: &mut Vec<Piece>) {
        for part in parts {
            let ended =
                match &part {
                    // Other channels are calls of tools, or notes to the program.
                    ReasoningPiece::Channel { header, text } if !is_commentary(header) => {
                        if let Calls::Of(_) = self.calls { self.tools.channel(header, text) } else { None }
                    }
                    _ => self.tools.close_call(),
                };
            out.extend(ended.map(Piece::from));
            match part {
                ReasoningPiece::Reasoning(text) => push_text(out, Piece::Reasoning(text)),
                ReasoningPiece::Content(text) => self.content(&text, out),
                ReasoningPiece::Channel { header, text } if is_commentary(&header) => self.content(&text, out),
                ReasoningPiece::Channel { .. } => {}
            }
        }
    }

    fn content(&mut self, text: &str, out: &mut Vec<Piece>) {
        if self.stopped_by.is_some() {
            return;
        }
        let matched = self.stops.push(text);
        self.stopped_by = matched.stopped_by;
        self.said(&matched.text, out);
    }

    fn said(&mut self, text: &str, out: &mut Vec<Piece>) {
        match self.calls {
            Calls::Forced => self.forced.push_str(text),
            Calls::Ignored => push_text(out, Piece::Content(text.to_string())),
            Calls::Of(_) => {
                for said in self.tools.push(text) {
                    push_text(out, Piece::from(said));
                }
            }
        }
    }
}

/// Commentary to nobody is for the reader: what the model says before it calls a tool.
fn is_commentary(header: &str) -> bool {
    header == "commentary"
}

impl From<Said> for Piece {
    fn from(said: Said) -> Piece {
        match said {
            Said::Text(text) => Piece::Content(text),
            Said::Call(call) => Piece::Call(call),
        }
    }
}

/// Adds a piece, joined with the one before where both are of one kind.
fn push_text(out: &mut Vec<Piece>, piece: Piece) {
    match (out.last_mut(), piece) {
        (_, Piece::Content(text) | Piece::Reasoning(text)) if text.is_empty() => {}
        (Some(Piece::Content(text)), Piece::Content(more)) => text.push_str(&more),
        (Some(Piece::Reasoning(text)), Piece::Reasoning(more)) => text.push_str(&more),
        (_, piece) => out.push(piece),
    }
}

/// The calls of an answer whose form was forced; an answer that was cut short stays text.
fn forced_calls(text: &str) -> Vec<Piece> {
    let parsed = serde_json::from_str(text.trim()).ok();
    let call = parsed.as_ref().and_then(object_call);
    vec![call.map_or_else(|| Piece::Content(text.to_string()), Piece::Call)]
}
