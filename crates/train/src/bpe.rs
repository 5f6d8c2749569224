//! Training of the tokenizer, and the chat format that goes with it.
//!
//! A byte-level BPE: text is first cut so that every digit, bracket, sign and line break is a token of its own and a
//! word may have one space before it; then the most frequent pairs of neighbours merge until the vocabulary is full.
//! Arabic-Indic digits become 0 to 9, and Arabic vowel signs and tatweel are dropped. The result is a standard
//! `tokenizer.json` with a `tokenizer_config.json` beside it, and is the same for the same documents on any machine.

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::{NormalizerWrapper, Replace, Sequence as Normalizers, replace::ReplacePattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::corpus::{self, Document};

/// How text is cut before pairs are counted: a digit; a word with a space before it; a sign with a space before it;
/// white space. Every character falls in one of these.
const PATTERN: &str = r"\p{N}| ?[\p{L}\p{M}]+(?:'[a-z]+)?| ?[^\s\p{L}\p{M}\p{N}]|\s";
/// Arabic vowel signs and tatweel.
const DROPPED: &str = "[\u{64B}-\u{652}\u{640}]";
/// The largest vocabulary that is trained; larger ones take more memory than this trainer is for.
const VOCAB_MAX: usize = 1 << 17;
/// The bytes and what else is always there.
const VOCAB_MIN: usize = 256;

/// The chat template of the built-in model, in the manner of DeepSeek R1's: earlier answers without their reasoning,
/// the last one with it; a prompt ends inside the reasoning, or behind an empty one if `enable_thinking` (or
/// `thinking`) is false.
pub const CHAT_TEMPLATE: &str = r"{{- bos_token -}}
{%- set ns = namespace(last_user=-1) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set ns.last_user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- message['content'] -}}
{%- elif message['role'] == 'user' -%}
{{- '<|user|>' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{%- set content = message['content'] or '' -%}
{%- set reasoning = message['reasoning_content'] or '' -%}
{%- if '</think>' in content -%}
{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{{- '<|assistant|>' -}}
{%- if loop.index0 > ns.last_user -%}
{{- '<think>\n' + reasoning + '\n</think>\n' -}}
{%- endif -%}
{{- content + '<|eos|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|><think>\n' -}}
{%- if (enable_thinking is defined and not enable_thinking) or (thinking is defined and not thinking) -%}
{{- '\n</think>\n' -}}
{%- endif -%}
{%- endif -%}";

/// What a tokenizer is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of tokens, special ones included.
    pub vocab: usize,
    /// Special tokens in the order of their ids, from 0. `<|bos|>`, `<|eos|>` and `<|pad|>` are named in the
    /// configuration if they are among them.
    pub specials: Vec<String>,
}

impl Settings {
    /// The built-in model's: 4,096 tokens. `<think>` and `</think>` are among the special ones but stay visible when
    /// text is decoded.
    pub fn nano() -> Settings {
        let named = [
            "<|bos|>",
            "<|eos|>",
            "<|pad|>",
            "<|user|>",
            "<|assistant|>",
            "<think>",
            "</think>",
            "<|fim_prefix|>",
            "<|fim_suffix|>",
            "<|fim_middle|>",
        ];
        let reserved = (0..6).map(|index| format!("<|reserved_{index}|>"));
        Settings { vocab: 4096, specials: named.into_iter().map(String::from).chain(reserved).collect() }
    }
}

/// The files of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `tokenizer.json`
    pub tokenizer_json: String,
    /// `tokenizer_config.json`
    pub tokenizer_config_json: String,
}

/// Why no tokenizer came out.
#[derive(Debug, thiserror::Error)]
pub enum BpeError {
    /// A vocabulary out of range.
    #[error("a vocabulary of {vocab} tokens is not possible with {specials} special ones: from {} to {VOCAB_MAX}", VOCAB_MIN + specials)]
    Vocabulary {
        /// What was asked for.
        vocab: usize,
        /// Special tokens among them.
        specials: usize,
    },
    /// Too little or too uniform text.
    #[error("the documents give {found} tokens, {vocab} were asked for; give more or more varied text")]
    TooLittleText {
        /// Tokens that came out.
        found: usize,
        /// Tokens that were asked for.
        vocab: usize,
    },
    /// The library failed.
    #[error("tokenizer training: {0}")]
    Library(String),
}

/// Trains a tokenizer on the text of documents (special tokens in them do not count).
pub fn train(documents: &mut dyn Iterator<Item = Document>, settings: &Settings) -> Result<Files, BpeError> {
    let (vocab, specials) = (settings.vocab, settings.specials.len());
    if vocab < VOCAB_MIN + specials || vocab > VOCAB_MAX {
        return Err(BpeError::Vocabulary { vocab, specials });
    }
    let library = |error: tokenizers::Error| BpeError::Library(error.to_string());
    let mut tokenizer = skeleton().map_err(library)?;
    let added: Vec<AddedToken> = settings
        .specials
        .iter()
        .map(|token| {
            let visible = token.as_str() == "<think>" || token.as_str() == "</think>";
            AddedToken::from(token.as_str(), !visible).normalized(false)
        })
        .collect();
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab)
        .show_progress(false)
        .special_tokens(added)
        .initial_alphabet(tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect())
        .min_frequency(2)
        .build();
    let texts: Vec<String> = documents.flat_map(|document| texts(document, settings)).collect();
    tokenizer.train(&mut TrainerWrapper::from(trainer), texts.iter()).map_err(library)?;
    let found = tokenizer.get_vocab_size(true);
    if found != vocab {
        return Err(BpeError::TooLittleText { found, vocab });
    }
    Ok(Files {
        tokenizer_json: tokenizer.to_string(true).map_err(library)? + "\n",
        tokenizer_config_json: config(settings),
    })
}

/// The documents that the built-in model's tokenizer is trained on.
pub fn nano_documents() -> Result<impl Iterator<Item = Document>, String> {
    let options = [("arabic".to_string(), 0.4), ("chat".to_string(), 0.7)].into_iter().collect();
    let source = corpus::open("nano", 0, &options)?;
    Ok((0..60_000).map(move |index| source.document(index)))
}

/// A tokenizer without vocabulary.
fn skeleton() -> tokenizers::Result<Tokenizer> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    for (digit, from) in ('\u{660}'..='\u{669}').enumerate() {
        steps.push(Replace::new(ReplacePattern::String(from.into()), digit.to_string())?.into());
    }
    steps.push(Replace::new(ReplacePattern::Regex(DROPPED.into()), "")?.into());
    let cut = Split::new(SplitPattern::Regex(PATTERN.into()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_normalizer(Some(Normalizers::new(steps)))?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        PreTokenizerWrapper::Split(cut),
        PreTokenizerWrapper::ByteLevel(bytes),
    ])));
    tokenizer.with_decoder(Some(bytes));
    Ok(tokenizer)
}

/// The pieces of a document without its special tokens.
fn texts(document: Document, settings: &Settings) -> Vec<String> {
    let mut pieces = Vec::new();
    for segment in document.segments {
        let mut text = segment.text;
        if segment.trusted {
            for special in &settings.specials {
                text = text.replace(special.as_str(), "");
            }
        }
        pieces.push(text);
    }
    pieces
}

fn config(settings: &Settings) -> String {
    let mut config = serde_json::json!({
        "add_bos_token": false,
        "add_eos_token": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 2048,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
    });
    for (key, token) in [("bos_token", "<|bos|>"), ("eos_token", "<|eos|>"), ("pad_token", "<|pad|>")] {
        if settings.specials.iter().any(|special| special == token) {
            config[key] = token.into();
        }
    }
    format!("{config:#}\n")
}
