//! Calls of tools in what a model says.
//!
//! Models write calls in a handful of forms. While an answer streams, text is passed on until a call may begin; a call
//! is told when it is complete. What turns out not to be a call is text.

use serde_json::Value;

/// How a model writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToolFormat {
    /// `<tool_call>{"name": .., "arguments": ..}</tool_call>` (Hermes, Qwen).
    Tags,
    /// DeepSeek V3 and R1, with or without the type and the fence around the arguments (V3.1).
    DeepSeek,
    /// `[TOOL_CALLS][{"name": .., "arguments": ..}]`, or `[TOOL_CALLS]NAME[ARGS]{..}` for each call, perhaps with
    /// `[CALL_ID]` and an id after the name (Mistral).
    Mistral,
    /// The answer is a JSON object with `name` and `parameters` (Llama 3).
    Bare,
    /// Messages to `functions.NAME` (gpt-oss).
    Channels,
}

/// A call that the model made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// A JSON object as text.
    pub(crate) arguments: String,
}

/// Text or a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Text(String),
    Call(Call),
}

pub(crate) const DEEPSEEK_BEGIN: &str = "<｜tool▁calls▁begin｜>";
pub(crate) const DEEPSEEK_END: &str = "<｜tool▁calls▁end｜>";
pub(crate) const DEEPSEEK_CALL: &str = "<｜tool▁call▁begin｜>";
pub(crate) const DEEPSEEK_CALL_END: &str = "<｜tool▁call▁end｜>";
pub(crate) const DEEPSEEK_SEP: &str = "<｜tool▁sep｜>";
pub(crate) const TAG: &str = "<tool_call>";
pub(crate) const TAG_END: &str = "</tool_call>";
pub(crate) const MISTRAL: &str = "[TOOL_CALLS]";
pub(crate) const MISTRAL_ID: &str = "[CALL_ID]";
pub(crate) const MISTRAL_ARGS: &str = "[ARGS]";

/// Tokens that are special in some vocabularies and have to be seen where calls are read.
pub(crate) const MARKERS: [&str; 11] = [
    DEEPSEEK_BEGIN,
    DEEPSEEK_END,
    DEEPSEEK_CALL,
    DEEPSEEK_CALL_END,
    DEEPSEEK_SEP,
    TAG,
    TAG_END,
    MISTRAL,
    MISTRAL_ID,
    MISTRAL_ARGS,
    "<|python_tag|>",
];

impl ToolFormat {
    /// The form that a template writes.
    pub(crate) fn of_template(source: &str) -> ToolFormat {
        if source.contains(DEEPSEEK_BEGIN) {
            ToolFormat::DeepSeek
        } else if source.contains(MISTRAL) {
            ToolFormat::Mistral
        } else if source.contains("<|python_tag|>") || source.contains("\"parameters\": ") {
            ToolFormat::Bare
        } else {
            ToolFormat::Tags
        }
    }

    /// What begins a call, and what ends what began so.
    fn border(self) -> Option<(&'static str, Option<&'static str>)> {
        match self {
            ToolFormat::Tags => Some((TAG, Some(TAG_END))),
            ToolFormat::DeepSeek => Some((DEEPSEEK_BEGIN, Some(DEEPSEEK_END))),
            ToolFormat::Mistral => Some((MISTRAL, None)),
            ToolFormat::Bare | ToolFormat::Channels => None,
        }
    }
}

/// Finds calls in streamed text.
pub(crate) struct ToolReader {
    format: ToolFormat,
    held: String,
    /// In a call: the marker has been read.
    inside: bool,
    /// Some text other than white space has been passed on.
    any_text: bool,
    /// A message to a function in a channel of its own: whom it is for, and its arguments so far.
    calling: Option<(String, String)>,
}

impl ToolReader {
    pub(crate) fn new(format: ToolFormat) -> ToolReader {
        ToolReader { format, held: String::new(), inside: false, any_text: false, calling: None }
    }

    /// Takes the next piece of the answer.
    pub(crate) fn push(&mut self, piece: &str) -> Vec<Said> {
        self.held.push_str(piece);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// A piece of a message in another channel, which is a call if it is to a function; the call before it, if that
    /// has ended.
    pub(crate) fn channel(&mut self, header: &str, text: &str) -> Option<Said> {
        let to = header.split_whitespace().find_map(|word| word.strip_prefix("to=functions."));
        let Some(to) = to else { return self.close_call() };
        let name: String = to.chars().take_while(|c| *c != '<').collect();
        let another = self.calling.as_ref().is_some_and(|(open, arguments)| {
            // Only what may begin another object is worth reading all of this one for.
            *open != name || (text.trim_start().starts_with('{') && is_object(arguments))
        });
        let ended = if another { self.close_call() } else { None };
        self.calling.get_or_insert_with(|| (name, String::new())).1.push_str(text);
        ended
    }

    /// The call whose message has ended, if there is one; without whole arguments it is text.
    pub(crate) fn close_call(&mut self) -> Option<Said> {
        let (name, arguments) = self.calling.take()?;
        Some(if is_object(&arguments) { Said::Call(Call { name, arguments }) } else { Said::Text(arguments) })
    }

    /// Ends the answer.
    pub(crate) fn finish(mut self) -> Vec<Said> {
        let last = self.close_call();
        let mut out = self.finish_text();
        out.extend(last);
        out
    }

    fn finish_text(mut self) -> Vec<Said> {
        let held = std::mem::take(&mut self.held);
        let calls = match self.format {
            ToolFormat::Bare => bare(&held),
            _ if self.inside => inside(self.format, &held),
            _ => None,
        };
        match calls {
            Some(calls) => calls.into_iter().map(Said::Call).collect(),
            None if held.is_empty() && !self.inside => Vec::new(),
            None => {
                let begin = self.format.border().filter(|_| self.inside).map_or("", |border| border.0);
                vec![Said::Text(format!("{begin}{held}"))]
            }
        }
    }

    fn step(&mut self, out: &mut Vec<Said>) -> bool {
        let Some((begin, end)) = self.format.border() else {
            // An answer that begins with a brace may be a call, and is known to be one at its end.
            let start = self.held.trim_start();
            let start = start.strip_prefix("<|python_tag|>").unwrap_or(start);
            let undecided = start.is_empty() || "<|python_tag|>".starts_with(start) || start.starts_with('{');
            if self.format == ToolFormat::Channels || self.any_text || !undecided {
                self.text(self.held.len(), out);
            }
            return false;
        };
        if !self.inside {
            if let Some(at) = self.held.find(begin) {
                // White space before a call is not part of the answer.
                let kept = self.held[..at].trim_end().len();
                self.text(kept, out);
                let rest = self.held.split_off(at - kept + begin.len());
                self.held = rest;
                self.inside = true;
                return true;
            }
            let certain = self.held.len() - partial(&self.held, begin);
            let certain = self.held[..certain].trim_end().len();
            self.text(certain, out);
            return false;
        }
        let Some((at, end)) = end.and_then(|end| Some((self.held.find(end)?, end))) else { return false };
        let body = self.held[..at].to_string();
        self.held.drain(..at + end.len());
        self.inside = false;
        match inside(self.format, &body) {
            Some(calls) => out.extend(calls.into_iter().map(Said::Call)),
            None => out.push(Said::Text(format!("{begin}{body}{end}"))),
        }
        true
    }

    /// Passes on the first `count` bytes of what is held. White space after a call is dropped.
    fn text(&mut self, count: usize, out: &mut Vec<Said>) {
        let rest = self.held.split_off(count);
        let text = std::mem::replace(&mut self.held, rest);
        if !text.is_empty() {
            self.any_text |= !text.trim().is_empty();
            out.push(Said::Text(text));
        }
    }
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
}

/// The length of the longest end of `text` that is a beginning of `marker`.
fn partial(text: &str, marker: &str) -> usize {
    let fits =
        |length: &usize| marker.is_char_boundary(*length) && text.as_bytes().ends_with(&marker.as_bytes()[..*length]);
    (1..marker.len()).rev().find(fits).unwrap_or(0)
}

/// The calls of a marked stretch.
fn inside(format: ToolFormat, body: &str) -> Option<Vec<Call>> {
    match format {
        ToolFormat::Tags => Some(vec![object_call(&serde_json::from_str(body.trim()).ok()?)?]),
        ToolFormat::DeepSeek => {
            let calls = body.split(DEEPSEEK_CALL).skip(1).map(deepseek_call);
            calls.collect::<Option<Vec<Call>>>().filter(|calls| !calls.is_empty())
        }
        ToolFormat::Mistral => mistral(body),
        ToolFormat::Bare | ToolFormat::Channels => None,
    }
}

/// `function<sep>NAME` and a fenced block, or `NAME<sep>ARGUMENTS`.
fn deepseek_call(text: &str) -> Option<Call> {
    let text = text.split(DEEPSEEK_CALL_END).next()?;
    let (left, right) = text.split_once(DEEPSEEK_SEP)?;
    let (name, arguments) = match right.split_once("```json") {
        Some((name, fenced)) => (name, fenced.rsplit_once("```").map_or(fenced, |(inner, _)| inner)),
        None => (left, right),
    };
    let arguments = arguments.trim();
    let name = name.trim().to_string();
    (is_object(arguments) && !name.is_empty()).then(|| Call { name, arguments: arguments.to_string() })
}

/// A list of objects, or `NAME[ARGS]{..}` once or more, each but the first after a marker of its own.
fn mistral(body: &str) -> Option<Vec<Call>> {
    let body = body.trim();
    if body.contains(MISTRAL_ARGS) {
        return body.split(MISTRAL).map(mistral_call).collect();
    }
    let Value::Array(list) = serde_json::from_str(body).ok()? else { return None };
    list.iter().map(object_call).collect::<Option<Vec<Call>>>().filter(|calls| !calls.is_empty())
}

/// `NAME[ARGS]{..}` or `NAME[CALL_ID]ID[ARGS]{..}`.
fn mistral_call(text: &str) -> Option<Call> {
    let (name, arguments) = text.split_once(MISTRAL_ARGS)?;
    let name = name.split(MISTRAL_ID).next()?.trim();
    let call = || Call { name: name.to_string(), arguments: arguments.trim().to_string() };
    (is_object(arguments) && !name.is_empty()).then(call)
}

/// Calls as JSON objects, one after the other or between semicolons.
fn bare(text: &str) -> Option<Vec<Call>> {
    let text = text.trim();
    let text = text.strip_prefix("<|python_tag|>").unwrap_or(text);
    let calls = text.split(';').map(|part| object_call(&serde_json::from_str(part.trim()).ok()?));
    calls.collect::<Option<Vec<Call>>>().or_else(|| Some(vec![object_call(&serde_json::from_str(text).ok()?)?]))
}

/// `{"name": .., "arguments": {..}}`, or `parameters` instead.
pub(crate) fn object_call(value: &Value) -> Option<Call> {
    let object = value.as_object()?;
    let name = object.get("name")?.as_str().filter(|name| !name.is_empty())?;
    let arguments = match object.get("arguments").or_else(|| object.get("parameters")) {
        None => "{}".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(value @ Value::Object(_)) => value.to_string(),
        Some(_) => return None,
    };
    Some(Call { name: name.to_string(), arguments })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that is said, neighbouring texts joined.
    fn read(format: ToolFormat, pieces: &[&str]) -> Vec<Said> {
        let mut reader = ToolReader::new(format);
        let mut all: Vec<Said> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
        all.extend(reader.finish());
        all.into_iter().fold(Vec::new(), |mut out, said| {
            match (out.last_mut(), said) {
                (Some(Said::Text(text)), Said::Text(more)) => text.push_str(&more),
                (_, said) => out.push(said),
            }
            out
        })
    }

    fn call(name: &str, arguments: &str) -> Said {
        Said::Call(Call { name: name.into(), arguments: arguments.into() })
    }

    const TAGS: &str = "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":1}}\n</tool_call>\n\
                        <tool_call>{\"name\": \"g\"}</tool_call>";
    const DEEPSEEK: &str = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\":1}\n```\
                            <｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";

    #[test]
    fn each_form_is_read() {
        let both = vec![call("f", "{\"a\":1}"), call("g", "{}")];
        let mut tagged = vec![Said::Text("Let me see.".into())];
        tagged.extend(both.clone());
        assert_eq!(read(ToolFormat::Tags, &[TAGS]), tagged);
        assert_eq!(read(ToolFormat::DeepSeek, &[DEEPSEEK]), both);
        let mistral = "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{\"a\":1}},{\"name\":\"g\",\"arguments\":{}}]";
        assert_eq!(read(ToolFormat::Mistral, &[mistral]), both);
        let named = "[TOOL_CALLS]f[CALL_ID]a1b2[ARGS]{\"a\":1}[TOOL_CALLS]g[ARGS]{}";
        assert_eq!(read(ToolFormat::Mistral, &[named]), both);
        assert_eq!(read(ToolFormat::Bare, &["{\"name\":\"f\",\"parameters\":{\"a\":1}}"]), both[..1]);
        // In channels a call comes in pieces, and another one follows it.
        let mut reader = ToolReader::new(ToolFormat::Channels);
        let f = "commentary to=functions.f";
        let pieces = [(f, "{\"a\""), (f, ":1}"), (f, "{"), (f, "}"), ("commentary to=functions.g json", "{\"a\":")];
        let mut heard: Vec<Said> = pieces.iter().filter_map(|(header, text)| reader.channel(header, text)).collect();
        heard.extend(reader.finish());
        assert_eq!(heard, [both[0].clone(), call("f", "{}"), Said::Text("{\"a\":".into())], "the last is cut short");
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for (format, text) in [
            (ToolFormat::Tags, "a <tool_call> b </tool_call> c"),
            (ToolFormat::Tags, "a <tool_call>{\"name\": 3}"),
            (ToolFormat::DeepSeek, "<｜tool▁calls▁begin｜>nothing"),
            (ToolFormat::Mistral, "[TOOL_CALLS] none"),
            (ToolFormat::Mistral, "[TOOL_CALLS]f[ARGS]{\"a\":1}[TOOL_CALLS]g[ARGS]"),
            (ToolFormat::Bare, "{\"a\": 1}"),
            (ToolFormat::Bare, "An answer. {\"name\": \"f\"}"),
        ] {
            let said = read(format, &[text]);
            let all: String =
                said.iter().map(|s| if let Said::Text(text) = s { text.as_str() } else { "CALL" }).collect();
            assert_eq!(all.split_whitespace().collect::<String>(), text.split_whitespace().collect::<String>());
        }
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(cuts in prop::collection::vec(0usize..400, 0..12), which in 0usize..2) {
            let (format, text) = [(ToolFormat::Tags, TAGS), (ToolFormat::DeepSeek, DEEPSEEK)][which];
            let at_boundary = |cut: usize| text.floor_char_boundary(cut.min(text.len()));
            let mut cuts: Vec<usize> = cuts.into_iter().map(at_boundary).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            prop_assert_eq!(read(format, &pieces), read(format, &[text]));
        }
    }
}
