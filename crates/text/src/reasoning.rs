//! Reasoning and answer, parted as the text streams.

use crate::stop::longest_suffix_prefix;

/// How a model marks its reasoning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasoningFormat {
    /// Reasoning stands between two markers, at the beginning of the answer.
    Markers {
        /// Such as `<think>`.
        open: String,
        /// Such as `</think>`.
        close: String,
        /// The prompt already ends with the opening marker.
        starts_open: bool,
    },
    /// gpt-oss ("harmony"): messages in named channels, `<|channel|>analysis<|message|>` .. `<|end|>`. The text must
    /// contain the special tokens.
    Channels {
        /// The prompt already ends with `<|start|>assistant`, so that the text begins with a header.
        starts_in_header: bool,
    },
}

impl ReasoningFormat {
    /// `<think>` and `</think>`; `starts_open` if the prompt ends with `<think>`.
    pub fn think(starts_open: bool) -> ReasoningFormat {
        ReasoningFormat::Markers { open: "<think>".into(), close: "</think>".into(), starts_open }
    }

    /// The markers of [`ReasoningFormat::think`], open if `prompt` ends with an opening marker that nothing closes.
    pub fn think_after(prompt: &str) -> ReasoningFormat {
        ReasoningFormat::think(prompt.trim_end().ends_with("<think>"))
    }
}

/// A piece of what the model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasoningPiece {
    /// Reasoning.
    Reasoning(String),
    /// The answer.
    Content(String),
    /// Text of another channel, such as a call of a tool; only with [`ReasoningFormat::Channels`].
    Channel {
        /// The header of the message, such as `commentary to=functions.get_weather`.
        header: String,
        /// The text.
        text: String,
    },
}

/// Parts streamed text into reasoning and answer. Markers are never shown, not even in parts; all pieces of one kind
/// together are the same however the text was cut.
///
/// With markers: only an opening marker at the very beginning (white space aside) opens the reasoning, so an answer
/// may speak about `<think>`; white space after the markers is dropped, and before the closing one.
pub struct ReasoningSplitter {
    format: ReasoningFormat,
    state: State,
    held: String,
    header: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing but white space has come.
    Start,
    /// The opening marker has been read, only white space since.
    ReasoningStart,
    Reasoning,
    /// The closing marker has been read, only white space since.
    ContentStart,
    Content,
    /// Between messages.
    Between,
    /// After `<|start|>` or `<|channel|>`, before `<|message|>`.
    Header,
    /// In a message, `header` says which.
    Message,
}

const MESSAGE: &str = "<|message|>";
/// What begins a header and what ends a message.
const HEADERS: [&str; 2] = ["<|start|>", "<|channel|>"];
const ENDS: [&str; 5] = ["<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>"];

impl ReasoningSplitter {
    /// Starts an answer.
    pub fn new(format: ReasoningFormat) -> ReasoningSplitter {
        let state = match &format {
            ReasoningFormat::Markers { starts_open: true, .. } => State::ReasoningStart,
            ReasoningFormat::Markers { .. } => State::Start,
            ReasoningFormat::Channels { starts_in_header: true } => State::Header,
            ReasoningFormat::Channels { .. } => State::Between,
        };
        ReasoningSplitter { format, state, held: String::new(), header: String::new() }
    }

    /// Takes the next piece of text and returns what is certain.
    pub fn push(&mut self, piece: &str) -> Vec<ReasoningPiece> {
        self.held.push_str(piece);
        let mut out = Vec::new();
        while self.step(false, &mut out) {}
        out
    }

    /// Ends the answer: what was held back is text now.
    pub fn finish(mut self) -> Vec<ReasoningPiece> {
        let mut out = Vec::new();
        while self.step(true, &mut out) {}
        out
    }

    /// Whether the text so far ends inside the reasoning.
    pub fn in_reasoning(&self) -> bool {
        match self.state {
            State::ReasoningStart | State::Reasoning => true,
            State::Message => self.is_analysis(),
            _ => false,
        }
    }

    fn is_analysis(&self) -> bool {
        self.header.split_whitespace().next() == Some("analysis") && !self.header.contains("to=")
    }

    /// One step; true if another may follow.
    fn step(&mut self, at_end: bool, out: &mut Vec<ReasoningPiece>) -> bool {
        match (&self.format, self.state) {
            (ReasoningFormat::Markers { open, close, .. }, State::Start) => {
                let (open, close) = (open.clone(), close.clone());
                self.start(&open, &close, at_end)
            }
            (ReasoningFormat::Markers { open, close, .. }, State::ReasoningStart | State::Reasoning) => {
                let (open, close) = (open.clone(), close.clone());
                self.reasoning(&open, &close, at_end, out)
            }
            (ReasoningFormat::Markers { .. }, State::ContentStart) => {
                self.drop_leading_space();
                if self.held.is_empty() {
                    return false;
                }
                self.state = State::Content;
                true
            }
            (ReasoningFormat::Markers { .. }, _) => {
                let text = std::mem::take(&mut self.held);
                emit(out, ReasoningPiece::Content(text));
                false
            }
            (ReasoningFormat::Channels { .. }, State::Header) => self.channel_header(at_end),
            (ReasoningFormat::Channels { .. }, State::Message) => self.channel_message(at_end, out),
            (ReasoningFormat::Channels { .. }, _) => self.between(at_end, out),
        }
    }

    fn drop_leading_space(&mut self) {
        let space = self.held.len() - self.held.trim_start().len();
        self.held.drain(..space);
    }

    fn start(&mut self, open: &str, close: &str, at_end: bool) -> bool {
        let text = self.held.trim_start();
        if let Some(rest) = text.strip_prefix(open) {
            self.held = rest.to_string();
            self.state = State::ReasoningStart;
            return true;
        }
        // A template may have opened and the model closes at once.
        if let Some(rest) = text.strip_prefix(close) {
            self.held = rest.to_string();
            self.state = State::ContentStart;
            return true;
        }
        let undecided = text.is_empty() || open.starts_with(text) || close.starts_with(text);
        if undecided && (!at_end || self.held.is_empty()) {
            return false;
        }
        self.state = State::Content;
        true
    }

    fn reasoning(&mut self, open: &str, close: &str, at_end: bool, out: &mut Vec<ReasoningPiece>) -> bool {
        if self.state == State::ReasoningStart {
            self.drop_leading_space();
            // The prompt opened the reasoning and the model opens it again.
            if let Some(rest) = self.held.strip_prefix(open) {
                self.held = rest.to_string();
                return true;
            }
            if self.held.is_empty() || (!at_end && (open.starts_with(&self.held) || close.starts_with(&self.held))) {
                return false;
            }
            self.state = State::Reasoning;
        }
        if let Some(at) = self.held.find(close) {
            let text = self.held[..at].trim_end().to_string();
            emit(out, ReasoningPiece::Reasoning(text));
            self.held.drain(..at + close.len());
            self.state = State::ContentStart;
            return true;
        }
        // White space before the closing marker is dropped, so it waits for what follows.
        let marker = if at_end { 0 } else { longest_suffix_prefix(&self.held, close) };
        let certain = self.held[..self.held.len() - marker].trim_end().len();
        let rest = self.held.split_off(certain);
        emit(out, ReasoningPiece::Reasoning(std::mem::replace(&mut self.held, rest)));
        if at_end {
            self.held.clear();
        }
        false
    }

    fn between(&mut self, at_end: bool, out: &mut Vec<ReasoningPiece>) -> bool {
        if let Some((at, marker)) = first_of(&self.held, &[HEADERS[0], HEADERS[1], MESSAGE]) {
            // Text outside of messages: a model that does not keep to the format. It is not lost.
            emit(out, ReasoningPiece::Content(self.held[..at].to_string()));
            self.held.drain(..at + if marker == MESSAGE { 0 } else { marker.len() });
            self.header.clear();
            self.state = State::Header;
            return true;
        }
        let all = [HEADERS[0], HEADERS[1], MESSAGE];
        let marker =
            if at_end { 0 } else { all.iter().map(|m| longest_suffix_prefix(&self.held, m)).max().unwrap_or(0) };
        let rest = self.held.split_off(self.held.len() - marker);
        emit(out, ReasoningPiece::Content(std::mem::replace(&mut self.held, rest)));
        false
    }

    fn channel_header(&mut self, at_end: bool) -> bool {
        let Some(at) = self.held.find(MESSAGE) else {
            if at_end {
                self.held.clear();
            }
            return false;
        };
        // `assistant<|channel|>analysis`, `analysis`, `commentary to=x <|constrain|>json`, and with the one that is
        // spoken to after the role: `assistant to=x<|channel|>commentary json`.
        let header = &self.held[..at];
        let (role, header) = header.rsplit_once("<|channel|>").unwrap_or(("", header));
        let to = role.split_whitespace().find(|word| word.starts_with("to="));
        let header = header.split("<|constrain|>").next().unwrap_or(header).trim();
        self.header = to.map_or_else(|| header.to_string(), |to| format!("{header} {to}"));
        self.held.drain(..at + MESSAGE.len());
        self.state = State::Message;
        true
    }

    fn channel_message(&mut self, at_end: bool, out: &mut Vec<ReasoningPiece>) -> bool {
        let (end, next) = match first_of(&self.held, &ENDS) {
            Some((at, marker)) => (at, Some((at + marker.len(), HEADERS.contains(&marker)))),
            None => {
                let longest = ENDS.iter().map(|marker| longest_suffix_prefix(&self.held, marker)).max().unwrap_or(0);
                (self.held.len() - if at_end { 0 } else { longest }, None)
            }
        };
        let text = self.held[..end].to_string();
        let analysis = self.is_analysis();
        let plain = self.header.is_empty() || self.header == "final" || self.header == "assistant";
        emit(
            out,
            match (analysis, plain) {
                (true, _) => ReasoningPiece::Reasoning(text),
                (_, true) => ReasoningPiece::Content(text),
                _ => ReasoningPiece::Channel { header: self.header.clone(), text },
            },
        );
        self.held.drain(..next.map_or(end, |(after, _)| after));
        match next {
            Some((_, header)) => {
                self.state = if header { State::Header } else { State::Between };
                true
            }
            None => false,
        }
    }
}

/// The first of the markers in the text, and where.
fn first_of<'m>(text: &str, markers: &[&'m str]) -> Option<(usize, &'m str)> {
    markers.iter().filter_map(|marker| Some((text.find(marker)?, *marker))).min()
}

fn emit(out: &mut Vec<ReasoningPiece>, piece: ReasoningPiece) {
    let (ReasoningPiece::Reasoning(text) | ReasoningPiece::Content(text) | ReasoningPiece::Channel { text, .. }) =
        &piece;
    if text.is_empty() {
        return;
    }
    out.push(piece);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<'a>(format: &ReasoningFormat, pieces: impl IntoIterator<Item = &'a str>) -> Vec<ReasoningPiece> {
        let mut splitter = ReasoningSplitter::new(format.clone());
        let mut all: Vec<ReasoningPiece> = Vec::new();
        let mut out: Vec<ReasoningPiece> = pieces.into_iter().flat_map(|piece| splitter.push(piece)).collect();
        out.extend(splitter.finish());
        for piece in out {
            match (all.last_mut(), piece) {
                (Some(ReasoningPiece::Reasoning(a)), ReasoningPiece::Reasoning(b)) => a.push_str(&b),
                (Some(ReasoningPiece::Content(a)), ReasoningPiece::Content(b)) => a.push_str(&b),
                (Some(ReasoningPiece::Channel { header, text }), ReasoningPiece::Channel { header: h, text: t })
                    if *header == h =>
                {
                    text.push_str(&t)
                }
                (_, piece) => all.push(piece),
            }
        }
        all
    }

    fn reasoning(text: &str) -> ReasoningPiece {
        ReasoningPiece::Reasoning(text.into())
    }

    fn content(text: &str) -> ReasoningPiece {
        ReasoningPiece::Content(text.into())
    }

    #[test]
    fn think_markers() {
        let closed = ReasoningFormat::think(false);
        let open = ReasoningFormat::think_after("<｜Assistant｜><think>\n");
        assert_eq!(run(&closed, ["<think>\nHm.\n</think>\n\n4"]), [reasoning("Hm."), content("4")]);
        assert_eq!(run(&open, ["Hm. <b\n</think>\n\n4"]), [reasoning("Hm. <b"), content("4")]);
        assert_eq!(run(&open, ["<think>Hm.</think>4"]), [reasoning("Hm."), content("4")]);
        assert_eq!(run(&closed, ["4, not <think>5</think>"]), [content("4, not <think>5</think>")]);
        assert_eq!(run(&closed, ["</think>4"]), [content("4")]);
        assert_eq!(run(&open, ["cut off </thi"]), [reasoning("cut off </thi")]);
        assert_eq!(run(&closed, ["  <thi"]), [content("  <thi")]);
        assert_eq!(run(&closed, ["<think></think>"]), []);
    }

    #[test]
    fn channels() {
        let text = "<|channel|>analysis<|message|>Sum.<|end|><|start|>assistant<|channel|>commentary \
                    to=functions.f <|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>4<|return|>";
        let format = ReasoningFormat::Channels { starts_in_header: false };
        let call = ReasoningPiece::Channel { header: "commentary to=functions.f".into(), text: "{}".into() };
        assert_eq!(run(&format, [text]), [reasoning("Sum."), call, content("4")]);
        let header = ReasoningFormat::Channels { starts_in_header: true };
        assert_eq!(run(&header, ["final<|message|>4"]), [content("4")]);
        let turned = " to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>";
        let call = ReasoningPiece::Channel { header: "commentary to=functions.f".into(), text: "{}".into() };
        assert_eq!(run(&header, [turned]), [call], "whom it is for, after the role");
        assert_eq!(run(&format, ["no format < at all"]), [content("no format < at all")]);
    }

    #[test]
    fn half_a_marker_is_never_shown() {
        let mut splitter = ReasoningSplitter::new(ReasoningFormat::think(true));
        assert_eq!(splitter.push("So </thi"), [reasoning("So")]);
        assert!(splitter.in_reasoning());
        assert_eq!(splitter.push("s"), [reasoning(" </this")]);
        assert_eq!(splitter.push("\n</think"), []);
        assert_eq!(splitter.push(">4"), [content("4")]);
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(
            parts in prop::collection::vec(prop::sample::select(vec![
                "<think>", "</think>", "<", "</", "th", "think>", " ", "\n", "é", "x", "<|channel|>", "<|message|>",
                "analysis", "final", "<|end|>", "<|", "|>", "<|start|>", "assistant", "<|return|>",
            ]), 0..24),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            kind in 0..4,
        ) {
            let format = match kind {
                0 => ReasoningFormat::think(false),
                1 => ReasoningFormat::think(true),
                2 => ReasoningFormat::Channels { starts_in_header: false },
                _ => ReasoningFormat::Channels { starts_in_header: true },
            };
            let text = parts.concat();
            let boundary = |cut: &prop::sample::Index| text.floor_char_boundary(cut.index(text.len() + 1));
            let mut ends: Vec<usize> = cuts.iter().map(boundary).collect();
            ends.push(text.len());
            ends.sort_unstable();
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let pieces: Vec<&str> = starts.zip(&ends).map(|(start, &end)| &text[start..end]).collect();
            prop_assert_eq!(run(&format, pieces), run(&format, [text.as_str()]));
        }
    }
}
