//! From a question to the tokens of a prompt, by the model's own chat template.

use serde_json::{Map, Value, json};
use text::{ChatInput, ChatTemplate, ReasoningFormat, ReasoningPiece, ReasoningSplitter, Tokenizer};

/// A prompt and how its answer begins.
pub(super) struct Prompt {
    pub(super) tokens: Vec<u32>,
    pub(super) format: ReasoningFormat,
}

/// Makes prompts. The date is not given to templates: a prompt depends on nothing but its question.
pub(super) struct Prompter<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) template: &'a ChatTemplate,
    pub(super) variables: &'a Map<String, Value>,
}

impl Prompter<'_> {
    /// The prompt of a question that stands alone.
    pub(super) fn prompt(&self, question: &str) -> Result<Prompt, String> {
        let token = |id: Option<u32>| id.and_then(|id| self.tokenizer.token(id)).unwrap_or_default();
        let messages = [json!({ "role": "user", "content": question })];
        let input = ChatInput {
            messages: &messages,
            add_generation_prompt: true,
            bos_token: token(self.tokenizer.bos_id()),
            eos_token: token(self.tokenizer.eos_ids().first().copied()),
            variables: Some(self.variables),
            ..ChatInput::default()
        };
        let segments = self.template.render_segments(&input).map_err(|error| error.to_string())?;
        let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
        let tokens = self.tokenizer.encode_segments(&segments).map_err(|error| error.to_string())?;
        // gpt-oss answers in channels, the others reason between markers if at all.
        let channels = ["<|channel|>", "<|message|>"].iter().all(|marker| self.tokenizer.id(marker).is_some());
        let format = match channels {
            true => ReasoningFormat::Channels { starts_in_header: text.ends_with("<|start|>assistant") },
            false => ReasoningFormat::think_after(&text),
        };
        Ok(Prompt { tokens, format })
    }
}

/// The reasoning and the answer in what was written after a prompt; none if the reasoning does not end.
pub(super) fn parted(written: &str, format: &ReasoningFormat) -> Option<(String, String)> {
    let mut splitter = ReasoningSplitter::new(format.clone());
    let mut pieces = splitter.push(written);
    let open = splitter.in_reasoning();
    pieces.extend(splitter.finish());
    let (mut reasoning, mut answer) = (String::new(), String::new());
    for piece in pieces {
        match piece {
            ReasoningPiece::Reasoning(text) => reasoning += &text,
            ReasoningPiece::Content(text) => answer += &text,
            ReasoningPiece::Channel { .. } => {}
        }
    }
    (!open).then(|| (reasoning.trim().to_string(), answer.trim().to_string()))
}
