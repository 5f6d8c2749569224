//! Tokens that are matched in the text before anything else: special tokens and other added ones.

use std::collections::HashMap;
use std::ops::Range;

use super::error::{TokenizerError, shorten};
use super::pieces::char_to_byte;

/// Longest added token; the longest published one has some 130 bytes.
const MAX_BYTES: usize = 1024;

/// An added token as the tokenizer file describes it.
#[derive(Clone, Debug)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
    pub(crate) special: bool,
    pub(crate) single_word: bool,
    pub(crate) lstrip: bool,
    pub(crate) rstrip: bool,
}

impl AddedToken {
    /// Whether text of any origin may become this token. Everything that can steer a model may not: whether the file
    /// calls it special or not (DeepSeek's `<｜User｜>` and Qwen's `<think>` are not). What is left are runs of white
    /// space, Gemma's HTML elements, and single letters of the byte alphabet (DeepSeek's first models have `ö` and the
    /// like, left over from their byte table); these only encode text.
    fn is_plain(&self) -> bool {
        const HTML: [&str; 32] = [
            "a",
            "b",
            "blockquote",
            "body",
            "caption",
            "code",
            "div",
            "em",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "i",
            "img",
            "li",
            "ol",
            "p",
            "pre",
            "span",
            "strong",
            "sub",
            "sup",
            "table",
            "tbody",
            "td",
            "tfoot",
            "th",
            "thead",
            "tr",
            "ul",
        ];
        if self.special {
            return false;
        }
        let mut characters = self.content.chars();
        if characters.next().is_some_and(|c| char_to_byte(c).is_some()) && characters.next().is_none() {
            return true;
        }
        let element = self.content.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        let element = element.map(|name| name.strip_prefix('/').unwrap_or(name));
        self.content.chars().all(|c| c.is_whitespace() || c == '\u{2581}')
            || element.is_some_and(|name| HTML.binary_search(&name).is_ok())
    }
}

/// Finds added tokens in a text, leftmost and longest first.
pub(crate) struct AddedTokens {
    tokens: Vec<AddedToken>,
    plain: Vec<bool>,
    /// Trie over bytes; node 0 is the root.
    edges: HashMap<(u32, u8), u32>,
    /// The token that ends at a node.
    ends: Vec<Option<u32>>,
    starts: [bool; 256],
}

impl AddedTokens {
    pub(crate) fn new(tokens: Vec<AddedToken>) -> Result<AddedTokens, TokenizerError> {
        let plain = tokens.iter().map(AddedToken::is_plain).collect();
        let mut all =
            AddedTokens { tokens: Vec::new(), plain, edges: HashMap::new(), ends: vec![None], starts: [false; 256] };
        for (index, token) in tokens.iter().enumerate() {
            let bytes = token.content.as_bytes();
            if bytes.len() > MAX_BYTES {
                return Err(TokenizerError::Vocabulary(format!(
                    "added token {} ({:?}) has {} bytes; the limit is {MAX_BYTES}",
                    token.id,
                    shorten(&token.content),
                    bytes.len()
                )));
            }
            let Some(&first) = bytes.first() else { continue };
            all.starts[usize::from(first)] = true;
            let mut node = 0;
            for &byte in bytes {
                let fresh = all.ends.len() as u32;
                node = *all.edges.entry((node, byte)).or_insert(fresh);
                if node == fresh {
                    all.ends.push(None);
                }
            }
            // Two with the same text: the first one wins, as in the reference.
            all.ends[node as usize].get_or_insert(index as u32);
        }
        all.tokens = tokens;
        Ok(all)
    }

    /// Calls `emit` for every added token and every stretch of text between them, in order. A token that is not plain
    /// matches only inside one of the `trusted` ranges (ascending, not touching).
    pub(crate) fn split<E>(
        &self,
        text: &str,
        trusted: &[Range<usize>],
        mut emit: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = text.as_bytes();
        let mut trusted = trusted.iter().peekable();
        let (mut done, mut at) = (0, 0);
        while at < bytes.len() {
            while trusted.peek().is_some_and(|range| range.end <= at) {
                trusted.next();
            }
            let trusted_end = trusted.peek().map_or(0, |range| if range.start <= at { range.end } else { 0 });
            let hit = if self.starts[usize::from(bytes[at])] { self.longest_at(text, at, trusted_end) } else { None };
            let Some((index, end)) = hit else {
                at += 1;
                continue;
            };
            let token = &self.tokens[index];
            let mut start = at;
            let mut stop = end;
            if token.lstrip {
                start = done + text[done..at].trim_end_matches(char::is_whitespace).len();
            }
            if token.rstrip {
                stop = text.len() - text[end..].trim_start_matches(char::is_whitespace).len();
            }
            if start > done {
                emit(Part::Text { text: &text[done..start], at: done })?;
            }
            emit(Part::Token(token.id))?;
            (done, at) = (stop, stop);
        }
        if done < text.len() {
            emit(Part::Text { text: &text[done..], at: done })?;
        }
        Ok(())
    }

    /// The longest token that may match at `at`, and its end.
    fn longest_at(&self, text: &str, at: usize, trusted_end: usize) -> Option<(usize, usize)> {
        let bytes = text.as_bytes();
        let mut node = 0;
        let mut best = None;
        for (position, &byte) in bytes.iter().enumerate().skip(at) {
            let Some(&next) = self.edges.get(&(node, byte)) else { break };
            node = next;
            let end = position + 1;
            let Some(index) = self.ends[node as usize].map(|index| index as usize) else { continue };
            let alone = !self.tokens[index].single_word || stands_alone(text, at, end);
            if alone && (self.plain[index] || end <= trusted_end) {
                best = Some((index, end));
            }
        }
        best
    }

    /// The tokens that only trusted text can become.
    pub(crate) fn reserved(&self) -> impl Iterator<Item = u32> + '_ {
        self.tokens.iter().zip(&self.plain).filter(|(_, plain)| !**plain).map(|(token, _)| token.id)
    }
}

/// One part of a split text.
pub(crate) enum Part<'a> {
    /// An added token.
    Token(u32),
    /// Text between added tokens, and where it starts.
    Text {
        /// The text.
        text: &'a str,
        /// Its start in the whole text.
        at: usize,
    },
}

fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..start].chars().next_back().is_some_and(word) && !text[end..].chars().next().is_some_and(word)
}
