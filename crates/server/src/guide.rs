//! What answers must look like: JSON after a schema, a call of a tool, a length of reasoning.
//!
//! A grammar (llguidance) tells before every token which ones may come, so an answer has its form the first time or is
//! cut short by its length; nothing is tried again. Reasoning comes before the form and is not bound by it. A budget
//! of reasoning closes it when it is used up. Only in gpt-oss' channels, where every message has its header, the
//! grammar is that of the whole answer.

mod grammar;

use std::sync::{Arc, OnceLock};

use engine::constraint::{Allowed, Constraint, ConstraintError, TokenSet};
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use text::{ReasoningFormat, Specials, StreamDecoder, Tokenizer};

use self::grammar::Last;
use crate::error::{ApiError, ApiResult};
use crate::language::{Prompt, Served, Traits};
use crate::reader::{Calls, Reader};
use crate::tools::ToolFormat;
use crate::wire::chat::Tool;

/// Makes grammars for a vocabulary; the tables that this needs are made when the first one is asked for.
pub(crate) struct Grammars {
    tokenizer: &'static Tokenizer,
    vocab: usize,
    factory: OnceLock<Result<ParserFactory, String>>,
    think_open: Option<u32>,
    think_close: Vec<u32>,
}

/// What all answers to a request must look like.
#[derive(Clone)]
pub(crate) struct Guide {
    matcher: Option<Matcher>,
    budget: Option<u32>,
    forces_calls: bool,
    /// The grammar is that of the whole answer, reasoning too.
    whole: bool,
    tokens: Arc<Tokens>,
}

/// Tokens that a guide knows.
struct Tokens {
    tokenizer: &'static Tokenizer,
    eos: Vec<u32>,
    think_open: Option<u32>,
    think_close: Vec<u32>,
}

/// What a request wants of its answers' form.
pub(crate) enum Form<'a> {
    Any,
    Schema(&'a Value),
    /// A call of one of these.
    Calls(&'a [Tool]),
    /// Whatever the model says, but calls, which it writes in this form, follow the schemas of strict tools; one call
    /// at most, or any number.
    Strict(&'a [Tool], ToolFormat, bool),
}

impl Grammars {
    pub(crate) fn new(served: &Served, traits: &Traits) -> Grammars {
        let id = |name: &str| served.tokenizer.id(name);
        // Where the marker is not one token, its text is what text encodes to.
        let close = id("</think>").map(|id| vec![id]);
        let close = close.or_else(|| served.tokenizer.encode("</think>").ok()).unwrap_or_default();
        Grammars {
            tokenizer: served.tokenizer,
            vocab: served.vocab,
            factory: OnceLock::new(),
            think_open: id("<think>").filter(|_| traits.reasoning),
            think_close: if traits.reasoning { close } else { Vec::new() },
        }
    }

    /// The guide of a request; `None` if nothing is asked for. Compiling takes a moment; not on a thread that serves
    /// others. `read_as` is how the answer is read: `None` where all of it is content.
    pub(crate) fn guide(
        &self,
        form: Form,
        budget: Option<u32>,
        read_as: Option<&ReasoningFormat>,
    ) -> ApiResult<Option<Guide>> {
        if let Some(ReasoningFormat::Channels { starts_in_header }) = read_as {
            return self.channel_guide(form, *starts_in_header);
        }
        let budget = budget.filter(|_| !self.think_close.is_empty());
        let forces_calls = matches!(form, Form::Calls(_));
        let (param, grammar) = match form {
            Form::Any => {
                return Ok(budget.map(|budget| self.make(None, Some(budget))));
            }
            Form::Schema(schema) => ("response_format", grammar_of(schema)),
            Form::Calls(tools) => ("tools", grammar_of(&grammar::calls_schema(tools))),
            Form::Strict(tools, format, one) => match grammar::strict(self.tokenizer, tools, format, one) {
                Some(grammar) => ("tools", grammar.map(TopLevelGrammar::from_lark)),
                None => return self.guide(Form::Any, budget, read_as),
            },
        };
        let matcher = grammar.and_then(|grammar| self.compile(grammar));
        let matcher = matcher.map_err(|message| ApiError::value(param, message))?;
        Ok(Some(Guide { forces_calls, ..self.make(Some(matcher), budget) }))
    }

    /// The same where the answer is in channels.
    fn channel_guide(&self, form: Form, starts_in_header: bool) -> ApiResult<Option<Guide>> {
        let (param, last) = match form {
            Form::Any => return Ok(None),
            Form::Schema(schema) => ("response_format", Last::Json(schema)),
            Form::Calls(tools) => ("tools", Last::Call(tools)),
            Form::Strict(tools, ..) => ("tools", Last::Any(tools)),
        };
        if !starts_in_header {
            let message = "this model answers in channels; no form can be forced on an answer that has begun (prefix)";
            return Err(ApiError::value(param, message));
        }
        let grammar = grammar::channels(self.tokenizer, &last).map(TopLevelGrammar::from_lark);
        let matcher = grammar.and_then(|grammar| self.compile(grammar));
        let matcher = matcher.map_err(|message| ApiError::value(param, message))?;
        Ok(Some(Guide { whole: true, ..self.make(Some(matcher), None) }))
    }

    fn make(&self, matcher: Option<Matcher>, budget: Option<u32>) -> Guide {
        let tokens = Tokens {
            tokenizer: self.tokenizer,
            eos: self.tokenizer.eos_ids().to_vec(),
            think_open: self.think_open,
            think_close: self.think_close.clone(),
        };
        Guide { matcher, budget, forces_calls: false, whole: false, tokens: Arc::new(tokens) }
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<Matcher, String> {
        let factory = self.factory.get_or_init(|| factory(self.tokenizer, self.vocab).map_err(|e| e.to_string()));
        let factory = factory.as_ref().map_err(String::clone)?;
        let mut matcher = Matcher::new(factory.create_parser(grammar));
        let cannot = |error: String| format!("the schema cannot be followed: {}", first_line(&error));
        match matcher.get_error() {
            Some(error) => Err(cannot(error)),
            // A schema that nothing fits shows at the first mask.
            None => matcher.compute_mask().map(|_| matcher.deep_clone()).map_err(|error| cannot(error.to_string())),
        }
    }
}

impl Guide {
    /// Whether all of the content is a call.
    pub(crate) fn forces_calls(&self) -> bool {
        self.forces_calls
    }

    /// The constraint of one answer to a prompt.
    pub(crate) fn constraint(&self, prompt: &Prompt) -> Box<dyn Constraint> {
        Box::new(Guided::new(self.clone(), prompt.clone()))
    }
}

/// One answer under a guide.
struct Guided {
    guide: Guide,
    prompt: Prompt,
    /// What was accepted, so that a copy can be brought to the same state.
    accepted: Vec<u32>,
    reader: Reader,
    /// Something of the content has been said: no reasoning can begin any more.
    content: bool,
    reasoned: u32,
    /// Tokens of the closing marker that are still to come.
    closing: Vec<u32>,
}

impl Guided {
    fn new(guide: Guide, prompt: Prompt) -> Guided {
        let format = prompt.format.clone().filter(|_| !guide.whole);
        let reader = Reader::new(guide.tokens.tokenizer, format, Vec::new(), Calls::Ignored);
        // A prompt that has closed its reasoning is followed by content.
        let tokens = &guide.tokens;
        let content =
            guide.whole || prompt.format.is_none() || tokens.think_close.is_empty() || closed(&prompt, tokens);
        let mut matcher = guide.matcher.clone();
        // Caches are not shared between answers: they would make one answer wait for another.
        matcher = matcher.map(|matcher| matcher.deep_clone());
        let guide = Guide { matcher, ..guide };
        Guided { guide, prompt, accepted: Vec::new(), reader, content, reasoned: 0, closing: Vec::new() }
    }

    fn mask(&mut self) -> Result<Allowed, ConstraintError> {
        let eos = &self.guide.tokens.eos;
        let Some(matcher) = &mut self.guide.matcher else { return Ok(Allowed::All) };
        if matcher.is_stopped() {
            return Ok(eos.first().map_or(Allowed::All, |&eos| Allowed::Only(eos)));
        }
        let mask = matcher.compute_mask().map_err(failed)?;
        let mut set = TokenSet::from_words(mask.as_slice().to_vec());
        // The grammar knows one end token; where it may come, all may.
        if eos.iter().any(|&eos| set.contains(eos)) {
            eos.iter().for_each(|&eos| set.insert(eos));
        }
        Ok(Allowed::Set(set))
    }
}

impl Constraint for Guided {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        if let Some(&next) = self.closing.first() {
            return Ok(Allowed::Only(next));
        }
        if self.reader.in_reasoning() {
            if self.guide.budget.is_some_and(|budget| self.reasoned >= budget) {
                self.closing = self.guide.tokens.think_close.clone();
                return Ok(self.closing.first().map_or(Allowed::All, |&token| Allowed::Only(token)));
            }
            // An answer that has a form must not end before it began.
            let bound = self.guide.matcher.is_some();
            return Ok(if bound { Allowed::Except(self.guide.tokens.eos.clone()) } else { Allowed::All });
        }
        let mut allowed = self.mask()?;
        if let (false, Some(open), Allowed::Set(set)) = (self.content, self.guide.tokens.think_open, &mut allowed) {
            set.insert(open);
        }
        Ok(allowed)
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.accepted.push(token);
        if self.guide.tokens.eos.contains(&token) {
            return Ok(());
        }
        let closing = self.closing.first() == Some(&token);
        if closing {
            self.closing.remove(0);
        }
        let was_reasoning = self.reader.in_reasoning();
        self.reader.push(token);
        if self.reader.in_reasoning() {
            self.reasoned += 1;
            return Ok(());
        }
        if was_reasoning || closing {
            self.content = true;
            return Ok(());
        }
        self.content |= Some(token) != self.guide.tokens.think_open;
        match &mut self.guide.matcher {
            Some(matcher) if self.content => matcher.consume_token(token).map_err(failed),
            _ => Ok(()),
        }
    }

    fn certain(&self, most: usize) -> Vec<u32> {
        self.closing.iter().take(most).copied().collect()
    }

    fn copy(&self) -> Box<dyn Constraint> {
        let mut copy = Guided::new(self.guide.clone(), self.prompt.clone());
        // The matcher is in its state already; the rest follows from the tokens.
        let matcher = copy.guide.matcher.take();
        for &token in &self.accepted {
            // Without a matcher nothing is refused.
            let _ = copy.allowed();
            let _ = copy.accept(token);
        }
        copy.guide.matcher = matcher;
        Box::new(copy)
    }
}

/// Whether a prompt ends after its reasoning.
fn closed(prompt: &Prompt, tokens: &Tokens) -> bool {
    // The marker and some white space.
    let tail = &prompt.tokens[prompt.tokens.len().saturating_sub(16)..];
    let mut decoder = StreamDecoder::new(tokens.tokenizer, Specials::Show);
    let text: String = tail.iter().map(|&token| decoder.push(token)).collect();
    text.trim_end().ends_with("</think>")
}

fn failed(error: impl std::fmt::Display) -> ConstraintError {
    ConstraintError(format!("the form of the answer could not be kept: {}", first_line(&error.to_string())))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

/// The tables of a vocabulary.
fn factory(tokenizer: &Tokenizer, vocab: usize) -> Result<ParserFactory, String> {
    let words: Vec<Vec<u8>> = (0..vocab as u32)
        .map(|id| match tokenizer.token(id) {
            None => Vec::new(),
            Some(name) if tokenizer.is_special(id) => [&[TokTrie::SPECIAL_TOKEN_MARKER][..], name.as_bytes()].concat(),
            Some(_) => tokenizer.token_bytes(id).map(<[u8]>::to_vec).unwrap_or_default(),
        })
        .collect();
    let eos = *tokenizer.eos_ids().first().ok_or("the vocabulary has no token that ends an answer")?;
    let trie = TokTrie::from(&TokRxInfo::new(vocab as u32, eos), &words);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&environment).map_err(|error| error.to_string())?;
    factory.quiet();
    let limits = factory.limits_mut();
    // Errors are told to clients: no states of the parser in them.
    limits.verbose_errors = false;
    Ok(factory)
}

/// The grammar of a schema.
fn grammar_of(schema: &Value) -> Result<TopLevelGrammar, String> {
    grammar::readable(schema).map(TopLevelGrammar::from_json_schema)
}
