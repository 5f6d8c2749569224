//! From a stretch of text to the pieces that are encoded one by one: normalizers, then pre-tokenizers.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;

use super::error::EncodeError;
use super::pattern::Pattern;

/// How many times longer rules may make a text. NFKC reaches 18, the byte alphabet 2.
const MAX_GROWTH: usize = 32;
/// SentencePiece's visible space.
pub(crate) const LOWER_BLOCK: char = '\u{2581}';

/// A rule that rewrites text before it is cut.
pub(crate) enum Normalizer {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    Strip { left: bool, right: bool },
    Prepend(String),
    Replace { pattern: Pattern, content: String },
}

impl Normalizer {
    /// Rewrites one stretch of text.
    pub(crate) fn apply(&self, text: String, original_bytes: usize) -> Result<String, EncodeError> {
        let result: String = match self {
            Normalizer::Nfc => text.nfc().collect(),
            Normalizer::Nfd => text.nfd().collect(),
            Normalizer::Nfkc => text.nfkc().collect(),
            Normalizer::Nfkd => text.nfkd().collect(),
            Normalizer::Lowercase => text.chars().flat_map(char::to_lowercase).collect(),
            Normalizer::Strip { left, right } => {
                let text = if *left { text.trim_start() } else { &text };
                if *right { text.trim_end() } else { text }.to_string()
            }
            Normalizer::Prepend(prefix) if text.is_empty() || prefix.is_empty() => text,
            Normalizer::Prepend(prefix) => format!("{prefix}{text}"),
            Normalizer::Replace { pattern, content } => {
                let mut found = Vec::new();
                pattern.find_all(&text, &mut found)?;
                check_growth(original_bytes, text.len().saturating_add(found.len().saturating_mul(content.len())))?;
                let mut result = String::with_capacity(text.len());
                let mut done = 0;
                for range in found {
                    result.push_str(&text[done..range.start]);
                    result.push_str(content);
                    done = range.end;
                }
                result.push_str(&text[done..]);
                result
            }
        };
        check_growth(original_bytes, result.len())?;
        Ok(result)
    }
}

fn check_growth(from: usize, to: usize) -> Result<(), EncodeError> {
    let limit = from.saturating_mul(MAX_GROWTH).saturating_add(4096);
    if to > limit { Err(EncodeError::Growth { from, limit }) } else { Ok(()) }
}

/// What becomes of the text that a split found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// When SentencePiece's visible space is put before a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Prepend {
    First,
    Never,
    Always,
}

/// A rule that cuts text into pieces, or rewrites the pieces.
pub(crate) enum PreTokenizer {
    Split {
        pattern: Pattern,
        behavior: Behavior,
        invert: bool,
    },
    /// Every piece begins with a space.
    PrefixSpace,
    /// Every byte becomes a printable character (GPT-2).
    ByteAlphabet {
        add_prefix_space: bool,
    },
    Metaspace {
        replacement: char,
        prepend: Prepend,
        split: Option<Pattern>,
    },
}

/// A text and the pieces that it is cut into.
pub(crate) struct Pieces {
    pub(crate) text: String,
    pub(crate) ranges: Vec<Range<usize>>,
}

impl Pieces {
    /// Cuts `text`, which starts at the beginning of the whole text if `at_start`.
    pub(crate) fn cut(text: String, at_start: bool, rules: &[PreTokenizer]) -> Result<Pieces, EncodeError> {
        let original_bytes = text.len();
        let whole = 0..text.len();
        let mut pieces = Pieces { text, ranges: Vec::from([whole]) };
        for rule in rules {
            match rule {
                PreTokenizer::Split { pattern, behavior, invert } => pieces.split(pattern, *behavior, *invert)?,
                PreTokenizer::PrefixSpace => pieces.rewrite(|piece, _, out| {
                    out.push_str(if piece.starts_with(' ') { "" } else { " " });
                    out.push_str(piece);
                }),
                PreTokenizer::ByteAlphabet { add_prefix_space } => pieces.rewrite(|piece, _, out| {
                    if *add_prefix_space && !piece.starts_with(' ') {
                        out.push(byte_to_char(b' '));
                    }
                    out.extend(piece.bytes().map(byte_to_char));
                }),
                PreTokenizer::Metaspace { replacement, prepend, split } => {
                    pieces.rewrite(|piece, start, out| {
                        let wanted =
                            *prepend == Prepend::Always || (*prepend == Prepend::First && at_start && start == 0);
                        if wanted && !piece.starts_with([' ', *replacement]) {
                            out.push(*replacement);
                        }
                        out.extend(piece.chars().map(|c| if c == ' ' { *replacement } else { c }));
                    });
                    if let Some(pattern) = split {
                        pieces.split(pattern, Behavior::MergedWithNext, false)?;
                    }
                }
            }
            check_growth(original_bytes, pieces.text.len())?;
        }
        Ok(pieces)
    }

    fn split(&mut self, pattern: &Pattern, behavior: Behavior, invert: bool) -> Result<(), EncodeError> {
        let mut cut = Vec::with_capacity(self.ranges.len());
        let mut found = Vec::new();
        for range in &self.ranges {
            let piece = &self.text[range.clone()];
            pattern.find_all(piece, &mut found)?;
            cut_piece(&found, piece.len(), range.start, behavior, invert, &mut cut);
        }
        self.ranges = cut;
        Ok(())
    }

    fn rewrite(&mut self, mut write: impl FnMut(&str, usize, &mut String)) {
        let mut text = String::with_capacity(self.text.len() + self.text.len() / 8 + 4);
        for range in &mut self.ranges {
            let start = text.len();
            write(&self.text[range.clone()], range.start, &mut text);
            *range = start..text.len();
        }
        self.text = text;
    }
}

/// Cuts a piece of `length` bytes at the matches `found`; the pieces are moved by `offset`.
fn cut_piece(
    found: &[Range<usize>],
    length: usize,
    offset: usize,
    behavior: Behavior,
    invert: bool,
    out: &mut Vec<Range<usize>>,
) {
    // Matches and the gaps between them, in order; `true` is what the rule is about.
    let mut parts = Vec::with_capacity(found.len() * 2 + 1);
    let mut done = 0;
    for range in found {
        if range.start > done {
            parts.push((done..range.start, invert));
        }
        parts.push((range.clone(), !invert));
        done = range.end;
    }
    if done < length {
        parts.push((done..length, invert));
    }
    let mut previous_matched = false;
    let mut joinable = false;
    for (range, matched) in parts {
        let moved = range.start + offset..range.end + offset;
        let joins = match behavior {
            Behavior::Removed if matched => continue,
            Behavior::Removed | Behavior::Isolated => false,
            Behavior::MergedWithPrevious => matched && !previous_matched && joinable,
            Behavior::MergedWithNext => !matched && previous_matched && joinable,
            Behavior::Contiguous => matched == previous_matched && joinable,
        };
        match out.last_mut() {
            Some(last) if joins => last.end = moved.end,
            _ => out.push(moved),
        }
        previous_matched = matched;
        joinable = true;
    }
}

/// The printable character that stands for a byte in byte-level vocabularies (GPT-2's table): printable Latin-1 stands
/// for itself, the other bytes take the code points from U+0100 on, in order.
pub(crate) fn byte_to_char(byte: u8) -> char {
    let code = u32::from(byte);
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x00..=0x20 => 0x100 + code,
        0x7f..=0xa0 => 0x121 + code - 0x7f,
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a printable character stands for.
pub(crate) fn char_to_byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_a_bijection() {
        let chars: std::collections::HashSet<char> = (0..=255).map(byte_to_char).collect();
        assert_eq!(chars.len(), 256);
        assert!((0..=255).all(|byte| char_to_byte(byte_to_char(byte)) == Some(byte)));
        assert_eq!(byte_to_char(b' '), 'Ġ');
    }

    #[test]
    fn behaviors_cut_as_the_reference_does() {
        // The example of the reference's documentation: "the-final--countdown", split at "-".
        let cut = |behavior, invert| {
            let rule = PreTokenizer::Split { pattern: Pattern::literal("-").unwrap(), behavior, invert };
            let pieces = Pieces::cut("the-final--countdown".into(), true, &[rule]).unwrap();
            pieces.ranges.iter().map(|range| pieces.text[range.clone()].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(cut(Behavior::Removed, false), ["the", "final", "countdown"]);
        assert_eq!(cut(Behavior::Removed, true), ["-", "-", "-"]);
        assert_eq!(cut(Behavior::Isolated, false), ["the", "-", "final", "-", "-", "countdown"]);
        assert_eq!(cut(Behavior::MergedWithPrevious, false), ["the-", "final-", "-", "countdown"]);
        assert_eq!(cut(Behavior::MergedWithNext, false), ["the", "-final", "-", "-countdown"]);
        assert_eq!(cut(Behavior::Contiguous, false), ["the", "-", "final", "--", "countdown"]);
    }
}
