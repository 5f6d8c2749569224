//! Tokenizers: `tokenizer.json` (Hugging Face) and the vocabularies inside GGUF files, both byte-pair encodings, either
//! over bytes (GPT-2 and what follows it) or over characters with bytes to fall back on (SentencePiece).
//!
//! The steps of [`Tokenizer::encode`]: added tokens are found in the text ([`added`]); each stretch between them is
//! normalised and cut into pieces ([`pieces`], [`pattern`]); each piece is merged ([`bpe`]). The rules are data: a file
//! with a rule that is not implemented is refused by name, because leaving a rule out would give wrong tokens.
//!
//! The tokenizer is our own rather than a library's for three promises that matter with hostile files and text: no
//! panic, time linear in the text for every pattern (or a typed error), and a border between text that may and text
//! that may not become a special token.

mod added;
mod bpe;
mod directory;
mod error;
mod gguf;
mod json;
mod pattern;
mod pieces;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

pub use error::{EncodeError, TokenizerError};
pub use gguf::{GgufVocabulary, known_pre_tokenizers};

use crate::segment::Segment;
use added::{AddedToken, AddedTokens, Part};
use bpe::{MergeTable, Merger};
use error::shorten;
use pieces::{Normalizer, Pieces, PreTokenizer, char_to_byte};

/// Longest text that is encoded in one call.
const MAX_TEXT_BYTES: usize = 256 << 20;

/// Whether special tokens appear in decoded text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Specials {
    /// Special tokens are written out, such as `<|im_end|>`.
    Show,
    /// Special tokens are left out.
    Hide,
}

/// Text to tokens and back.
pub struct Tokenizer {
    /// By id; gaps are `None`.
    tokens: Vec<Option<String>>,
    /// By text; of tokens with the same text the one that text encodes to.
    ids: HashMap<String, u32>,
    special: HashSet<u32>,
    added: AddedTokens,
    normalizers: Vec<Normalizer>,
    pre_tokenizers: Vec<PreTokenizer>,
    model: Model,
    /// The bytes that each token decodes to.
    decoded: Vec<Box<[u8]>>,
    pub(crate) decoding: Decoding,
    pub(crate) meta: Meta,
}

/// How pieces become tokens.
struct Model {
    /// Tokens that text may become, without special ones.
    vocabulary: HashMap<String, u32>,
    merges: MergeTable,
    /// A piece that is a token as a whole is not merged.
    ignore_merges: bool,
    /// The tokens for single bytes, for characters without a token.
    byte_tokens: Option<Box<[u32; 256]>>,
    /// The characters of symbols that are no tokens.
    extra_symbols: HashMap<u32, char>,
    unknown: Option<u32>,
    fuse_unknown: bool,
}

/// How the bytes of tokens become text.
#[derive(Clone, Copy, Default)]
pub(crate) struct Decoding {
    /// Spaces that are cut off the beginning.
    pub(crate) leading_spaces: usize,
    /// All spaces of the first token are cut off.
    pub(crate) first_token_spaces: bool,
    /// One replacement character for each invalid byte (SentencePiece) instead of one for each invalid sequence.
    pub(crate) replace_each_byte: bool,
    /// A run of byte tokens is text if all of it is UTF-8, and else one replacement character for each of its bytes
    /// (`ByteFallback` of the Hugging Face library).
    pub(crate) byte_runs: bool,
}

/// What stands beside the vocabulary.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meta {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Vec<u32>,
    pub(crate) add_bos: bool,
    pub(crate) templates: Vec<(String, String)>,
}

impl Tokenizer {
    /// Encodes text of unknown origin: nothing in it becomes a special token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        self.encode_trusting(text, &[])
    }

    /// Encodes text in which special tokens are meant, such as a rendered prompt that is trusted as a whole.
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        self.encode_trusting(text, std::slice::from_ref(&(0..text.len())))
    }

    /// Encodes a prompt. The tokens are those of the whole text, special tokens recognised only inside trusted text.
    pub fn encode_segments(&self, segments: &[Segment]) -> Result<Vec<u32>, EncodeError> {
        let mut text = String::with_capacity(segments.iter().map(|segment| segment.text.len()).sum());
        let mut trusted: Vec<Range<usize>> = Vec::new();
        for segment in segments {
            let start = text.len();
            text.push_str(&segment.text);
            if !segment.trusted || start == text.len() {
                continue;
            }
            match trusted.last_mut() {
                Some(last) if last.end == start => last.end = text.len(),
                _ => trusted.push(start..text.len()),
            }
        }
        self.encode_trusting(&text, &trusted)
    }

    /// The text of `ids`. An id outside the vocabulary is written as U+FFFD, and so are bytes that are no UTF-8.
    pub fn decode(&self, ids: &[u32], specials: Specials) -> String {
        let mut stream = crate::StreamDecoder::new(self, specials);
        let mut text = String::new();
        for &id in ids {
            text.push_str(&stream.push(id));
        }
        text.push_str(&stream.finish());
        text
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// A token as the vocabulary writes it, such as `Ġthe`; `None` for an id that has no token.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize)?.as_deref()
    }

    /// The id of a token as the vocabulary writes it, special or not.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// Whether a token is special: no text of a user becomes it, and [`Specials::Hide`] hides it.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The tokens that only trusted text can become: special ones, and added ones that mark structure.
    pub fn reserved_ids(&self) -> Vec<u32> {
        let all = self.added.reserved().chain(self.special.iter().copied());
        // What has no token of its own is written as the unknown token, whoever wrote it.
        let mut ids: Vec<u32> = all.filter(|&id| self.model.unknown != Some(id)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The token that begins a sequence.
    pub fn bos_id(&self) -> Option<u32> {
        self.meta.bos
    }

    /// The tokens that end an answer, the main one first.
    pub fn eos_ids(&self) -> &[u32] {
        &self.meta.eos
    }

    /// Whether the model expects plain text (without a chat template) to begin with [`Tokenizer::bos_id`].
    pub fn add_bos(&self) -> bool {
        self.meta.add_bos
    }

    /// The chat template that comes with the tokenizer; of several the one named `name`, or `default`.
    pub fn chat_template(&self, name: Option<&str>) -> Option<&str> {
        let wanted = name.unwrap_or("default");
        self.meta.templates.iter().find(|(name, _)| name == wanted).map(|(_, source)| source.as_str())
    }

    /// The bytes that a token decodes to; `None` for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.tokens.get(id as usize)?.as_ref()?;
        self.decoded.get(id as usize).map(|bytes| &**bytes)
    }

    /// Whether a token stands for a single byte, like `<0x41>`.
    pub(crate) fn is_byte(&self, id: u32) -> bool {
        byte_token(&self.tokens, id)
    }

    fn encode_trusting(&self, text: &str, trusted: &[Range<usize>]) -> Result<Vec<u32>, EncodeError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(EncodeError::TooLong { bytes: text.len(), limit: MAX_TEXT_BYTES });
        }
        let mut out = Vec::with_capacity(text.len() / 3 + 1);
        let mut scratch = Scratch::default();
        self.added.split(text, trusted, |part| {
            match part {
                Part::Token(id) => out.push(id),
                Part::Text { text, at } => self.encode_stretch(text, at == 0, &mut scratch, &mut out)?,
            }
            Ok::<(), EncodeError>(())
        })?;
        Ok(out)
    }

    fn encode_stretch(
        &self,
        text: &str,
        at_start: bool,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> Result<(), EncodeError> {
        let mut normal = text.to_string();
        for rule in &self.normalizers {
            normal = rule.apply(normal, text.len())?;
        }
        let pieces = Pieces::cut(normal, at_start, &self.pre_tokenizers)?;
        for range in &pieces.ranges {
            self.model.encode_piece(&pieces.text[range.clone()], scratch, out);
        }
        Ok(())
    }
}

/// Buffers that are kept from piece to piece.
#[derive(Default)]
struct Scratch {
    merger: Merger,
    symbols: Vec<u32>,
    merged: Vec<u32>,
}

impl Model {
    fn encode_piece(&self, piece: &str, scratch: &mut Scratch, out: &mut Vec<u32>) {
        if self.ignore_merges
            && let Some(&id) = self.vocabulary.get(piece)
        {
            out.push(id);
            return;
        }
        let Scratch { merger, symbols, merged } = scratch;
        symbols.clear();
        let mut buffer = [0; 4];
        let mut after_unknown = false;
        for character in piece.chars() {
            let encoded: &str = character.encode_utf8(&mut buffer);
            let symbol = self.vocabulary.get(encoded).copied().or_else(|| self.merges.extra_char(character));
            match (symbol, &self.byte_tokens, self.unknown) {
                (Some(symbol), _, _) => symbols.push(symbol),
                (None, Some(bytes), _) => symbols.extend(encoded.bytes().map(|byte| bytes[usize::from(byte)])),
                (None, None, Some(unknown)) if !(self.fuse_unknown && after_unknown) => symbols.push(unknown),
                // As in the reference: a character that the vocabulary has no way to write is dropped.
                (None, None, _) => {}
            }
            after_unknown = symbol.is_none();
        }
        if self.extra_symbols.is_empty() {
            merger.merge(&self.merges, symbols, out);
            return;
        }
        merged.clear();
        merger.merge(&self.merges, symbols, merged);
        for &symbol in merged.iter() {
            match (self.extra_symbols.get(&symbol), &self.byte_tokens) {
                (None, _) => out.push(symbol),
                (Some(character), Some(bytes)) => {
                    let encoded: &str = character.encode_utf8(&mut buffer);
                    out.extend(encoded.bytes().map(|byte| bytes[usize::from(byte)]));
                }
                (Some(_), None) => out.extend(self.unknown),
            }
        }
    }
}

/// What a loader hands over to be checked and assembled.
#[derive(Default)]
struct Parts {
    /// (id, text) of the model's vocabulary.
    vocabulary: Vec<(u32, String)>,
    /// Tokens of the vocabulary that text never becomes, though they are no added tokens.
    hidden: HashSet<u32>,
    added: Vec<AddedToken>,
    normalizers: Vec<Normalizer>,
    pre_tokenizers: Vec<PreTokenizer>,
    ignore_merges: bool,
    byte_fallback: bool,
    unknown: Option<u32>,
    fuse_unknown: bool,
    decoder: TokenDecoder,
    meta: Meta,
    /// A later token may have the text of an earlier one, and then text encodes to the later.
    duplicates_allowed: bool,
}

/// How the text of a token becomes bytes.
#[derive(Default)]
struct TokenDecoder {
    /// The byte alphabet of GPT-2.
    byte_level: bool,
    /// Texts that are replaced in each token, in order.
    replace: Vec<(String, String)>,
    /// `<0x41>` is the byte 0x41.
    byte_fallback: bool,
    decoding: Decoding,
}

impl TokenDecoder {
    fn bytes(&self, token: &str, added: bool) -> Box<[u8]> {
        if self.byte_fallback
            && let Some(byte) = byte_of_token(token)
        {
            return Box::new([byte]);
        }
        if self.byte_level {
            let bytes: Option<Vec<u8>> = if added { None } else { token.chars().map(char_to_byte).collect() };
            return bytes.unwrap_or_else(|| token.as_bytes().to_vec()).into();
        }
        let mut text = token.to_string();
        for (from, to) in &self.replace {
            text = text.replace(from.as_str(), to);
        }
        text.into_bytes().into()
    }
}

/// The byte that a token like `<0x0A>` stands for.
fn byte_of_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    if hexadecimal { u8::from_str_radix(digits, 16).ok() } else { None }
}

impl Parts {
    /// Checks that ids and texts fit together; `merges` writes the merge table from what text may become.
    fn assemble(
        self,
        merges: impl FnOnce(&HashMap<String, u32>, u32) -> Result<MergeTable, TokenizerError>,
    ) -> Result<Tokenizer, TokenizerError> {
        let count = self.vocabulary.len() + self.added.len();
        if count == 0 {
            return Err(TokenizerError::Vocabulary("it has no tokens".into()));
        }
        // Gaps in the ids occur, but not many times more gaps than tokens; this bounds what a small file can allocate.
        let limit = count.saturating_mul(4).saturating_add(65536);
        let in_range = |id: u32, text: &str| match (id as usize) < limit {
            true => Ok(id as usize),
            false => Err(TokenizerError::Vocabulary(format!(
                "token {:?} has id {id}, too large for a vocabulary of {count} tokens (limit {limit})",
                shorten(text)
            ))),
        };
        let mut tokens: Vec<Option<String>> = Vec::new();
        let mut ids = HashMap::with_capacity(count);
        let entries = self.vocabulary.iter().map(|(id, text)| (*id, text));
        for (id, text) in entries.chain(self.added.iter().map(|token| (token.id, &token.content))) {
            let index = in_range(id, text)?;
            if tokens.len() <= index {
                tokens.resize(index + 1, None);
            }
            if let Some(other) = tokens[index].as_ref().filter(|other| *other != text) {
                let (other, text) = (shorten(other), shorten(text));
                return Err(TokenizerError::Vocabulary(format!("id {id} belongs to both {other:?} and {text:?}")));
            }
            if let Some(other) = ids.insert(text.clone(), id).filter(|&other| other != id && !self.duplicates_allowed) {
                let text = shorten(text);
                return Err(TokenizerError::Vocabulary(format!("token {text:?} has two ids, {other} and {id}")));
            }
            tokens[index] = Some(text.clone());
        }
        self.check_meta(&tokens)?;
        self.finish(tokens, ids, merges)
    }

    fn check_meta(&self, tokens: &[Option<String>]) -> Result<(), TokenizerError> {
        let named = [("beginning of sequence", self.meta.bos), ("unknown token", self.unknown)];
        let ends = self.meta.eos.iter().map(|&id| ("end of sequence", Some(id)));
        for (name, id) in named.into_iter().chain(ends) {
            if let Some(id) = id.filter(|&id| tokens.get(id as usize).is_none_or(Option::is_none)) {
                let size = tokens.len();
                return Err(TokenizerError::Vocabulary(format!("{name}: id {id} is no token (vocabulary of {size})")));
            }
        }
        Ok(())
    }

    fn finish(
        self,
        tokens: Vec<Option<String>>,
        ids: HashMap<String, u32>,
        merges: impl FnOnce(&HashMap<String, u32>, u32) -> Result<MergeTable, TokenizerError>,
    ) -> Result<Tokenizer, TokenizerError> {
        let added_ids: HashSet<u32> = self.added.iter().map(|token| token.id).collect();
        let mut special: HashSet<u32> = self.hidden.clone();
        special.retain(|id| self.unknown == Some(*id) || !byte_token(&tokens, *id));
        special.extend(self.added.iter().filter(|token| token.special).map(|token| token.id));
        let added = AddedTokens::new(self.added)?;
        let reserved: HashSet<u32> = added.reserved().chain(self.hidden.iter().copied()).collect();
        let byte_tokens = if self.byte_fallback { byte_table(&ids) } else { None };
        let mut merge_table = merges(&ids, tokens.len() as u32)?;
        merge_table.forbid(&reserved);
        let vocabulary = ids.iter().filter(|(_, id)| !reserved.contains(id)).map(|(text, &id)| (text.clone(), id));
        let model = Model {
            vocabulary: vocabulary.collect(),
            extra_symbols: merge_table.extra_symbols().collect(),
            merges: merge_table,
            ignore_merges: self.ignore_merges,
            byte_tokens,
            unknown: self.unknown,
            fuse_unknown: self.fuse_unknown,
        };
        let decoded = tokens.iter().zip(0u32..).map(|(token, id)| match token {
            Some(token) => self.decoder.bytes(token, added_ids.contains(&id)),
            None => Box::default(),
        });
        Ok(Tokenizer {
            decoded: decoded.collect(),
            tokens,
            ids,
            special,
            added,
            normalizers: self.normalizers,
            pre_tokenizers: self.pre_tokenizers,
            model,
            decoding: self.decoder.decoding,
            meta: self.meta,
        })
    }
}

fn byte_token(tokens: &[Option<String>], id: u32) -> bool {
    tokens.get(id as usize).and_then(|token| byte_of_token(token.as_ref()?)).is_some()
}

/// The ids of `<0x00>` to `<0xFF>`, if all are there.
fn byte_table(ids: &HashMap<String, u32>) -> Option<Box<[u32; 256]>> {
    let mut table = Box::new([0; 256]);
    for (byte, slot) in (0..=255u8).zip(table.iter_mut()) {
        *slot = *ids.get(&format!("<0x{byte:02X}>"))?;
    }
    Some(table)
}
