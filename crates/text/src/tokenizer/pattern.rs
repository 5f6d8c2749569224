//! Pre-tokenizer patterns in linear time.
//!
//! Published tokenizers carry a regular expression that is written for a backtracking engine. Backtracking takes
//! exponential time on hostile patterns, so patterns run here as lazy automata, each search walked byte by byte with
//! its work counted. The one look-ahead that published patterns use, `\s+(?!\S)` (white space but for its last
//! character when something follows), is no regular expression in the strict sense but is a simple rule on top of
//! `\s+`. Every other look-around, back-reference or possessive quantifier is refused by name.

use std::ops::Range;

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input, MatchKind};

use super::error::{EncodeError, TokenizerError, shorten};

/// Looks per byte of text after which a pattern counts as slower than linear. Published ones need two to five.
const MAX_LOOKS_PER_BYTE: usize = 64;
/// Longest pattern that is compiled; the longest published one has 900 bytes.
const MAX_PATTERN_BYTES: usize = 16 << 10;
/// Most memory of a compiled pattern.
const MAX_AUTOMATON_BYTES: usize = 8 << 20;

type CachePool = Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync>>;

/// A pattern that finds pieces of a text.
pub(crate) struct Pattern {
    source: String,
    kind: Kind,
}

enum Kind {
    /// `\s+$`: the white space at the end.
    TrailingSpace,
    /// A fixed text.
    Literal(String),
    Automaton(Box<Automaton>),
}

struct Automaton {
    dfa: DFA,
    caches: CachePool,
    /// Alternative 1 is `\s+` and gives its last character back before something that is not white space.
    gives_back: bool,
    /// After giving back everything, the alternative `\s+` still matches.
    then_any_space: bool,
}

impl Pattern {
    /// A pattern that matches this text and nothing else.
    pub(crate) fn literal(text: &str) -> Result<Pattern, TokenizerError> {
        if text.is_empty() {
            return Err(refuse(text, "an empty text matches everywhere"));
        }
        Ok(Pattern { source: text.to_string(), kind: Kind::Literal(text.to_string()) })
    }

    /// Compiles a regular expression in the dialect of published tokenizers.
    pub(crate) fn regex(source: &str) -> Result<Pattern, TokenizerError> {
        if source.len() > MAX_PATTERN_BYTES {
            return Err(refuse(source, "longer than 16 KiB"));
        }
        if source == r"\s+$" {
            return Ok(Pattern { source: source.to_string(), kind: Kind::TrailingSpace });
        }
        // Possessive forms of the first GPT-4 conversions, where giving back could never help: the class that follows
        // excludes what the quantifier took, or nothing that follows can fail.
        let plain = source
            .replace(r"[^\r\n\p{L}\p{N}]?+\p{L}", r"[^\r\n\p{L}\p{N}]?\p{L}")
            .replace(r" ?[^\s\p{L}\p{N}]++[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n]*");
        let (head, gives_back, then_any_space) = if let Some(head) = plain.strip_suffix(r"|\s+(?!\S)|\s+") {
            (head, true, true)
        } else if let Some(head) = plain.strip_suffix(r"|\s+(?!\S)") {
            (head, true, false)
        } else {
            (plain.as_str(), false, false)
        };
        check_dialect(source, head)?;
        let patterns: &[&str] = if gives_back { &[head, r"\s+"] } else { &[head] };
        let dfa = DFA::builder()
            .configure(DFA::config().match_kind(MatchKind::LeftmostFirst).cache_capacity(MAX_AUTOMATON_BYTES))
            .thompson(thompson::Config::new().nfa_size_limit(Some(MAX_AUTOMATON_BYTES / 4)))
            .build_many(patterns)
            .map_err(|error| refuse(source, &describe(&error)))?;
        let for_caches = dfa.clone();
        let create: Box<dyn Fn() -> Cache + Send + Sync> = Box::new(move || for_caches.create_cache());
        let automaton = Automaton { dfa, caches: Pool::new(create), gives_back, then_any_space };
        Ok(Pattern { source: source.to_string(), kind: Kind::Automaton(Box::new(automaton)) })
    }

    /// All matches in `text`, left to right, not overlapping, none empty.
    pub(crate) fn find_all(&self, text: &str, found: &mut Vec<Range<usize>>) -> Result<(), EncodeError> {
        found.clear();
        match &self.kind {
            Kind::TrailingSpace => {
                let start = text.trim_end_matches(char::is_whitespace).len();
                if start < text.len() {
                    found.push(start..text.len());
                }
            }
            Kind::Literal(literal) => {
                found.extend(text.match_indices(literal.as_str()).map(|(at, hit)| at..at + hit.len()));
            }
            Kind::Automaton(automaton) => {
                let mut cache = automaton.caches.get();
                let mut looks_left = text.len().saturating_add(64).saturating_mul(MAX_LOOKS_PER_BYTE);
                let mut at = 0;
                while at < text.len() {
                    let end = automaton.match_at(&mut cache, text, at, &mut looks_left).ok_or_else(|| {
                        EncodeError::SlowPattern { pattern: shorten(&self.source), limit: MAX_LOOKS_PER_BYTE }
                    })?;
                    if end > at {
                        found.push(at..end);
                        at = end;
                    } else {
                        at += char_length(text, at);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Automaton {
    /// The end of the match that starts at `at` (`at` itself when there is none), or `None` when the work is used up.
    fn match_at(&self, cache: &mut Cache, text: &str, at: usize, looks_left: &mut usize) -> Option<usize> {
        let bytes = text.as_bytes();
        let input = Input::new(bytes).range(at..).anchored(Anchored::Yes);
        // An automaton fails only on "quit" bytes and on a limit of cache clearings; neither is configured.
        let mut state = self.dfa.start_state_forward(cache, &input).ok()?;
        let mut last: Option<(usize, usize)> = None;
        let mut position = at;
        loop {
            if state.is_match() {
                last = Some((position.saturating_sub(1), self.dfa.match_pattern(cache, state, 0).as_usize()));
            }
            if state.is_dead() || state.is_quit() || position == bytes.len() {
                break;
            }
            *looks_left = looks_left.checked_sub(1)?;
            state = self.dfa.next_state(cache, state, bytes[position]).ok()?;
            position += 1;
        }
        if position == bytes.len() && !state.is_dead() {
            state = self.dfa.next_eoi_state(cache, state).ok()?;
            if state.is_match() {
                last = Some((bytes.len(), self.dfa.match_pattern(cache, state, 0).as_usize()));
            }
        }
        let Some((end, alternative)) = last else { return Some(at) };
        if !(self.gives_back && alternative == 1) || end == bytes.len() {
            return Some(end);
        }
        // `\s+` took all white space there is, so what follows is something else.
        let last_length = text[at..end].chars().next_back().map_or(0, char::len_utf8);
        let shorter = end - last_length;
        Some(if shorter > at || !self.then_any_space { shorter } else { end })
    }
}

fn char_length(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

fn refuse(pattern: &str, reason: &str) -> TokenizerError {
    TokenizerError::Pattern { pattern: shorten(pattern), reason: reason.to_string() }
}

/// The innermost cause of a compiler's error, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("not a regular expression");
    shorten(line.trim())
}

/// Refuses what other engines read differently (possessive quantifiers) or cannot do in linear time (look-around).
fn check_dialect(source: &str, head: &str) -> Result<(), TokenizerError> {
    let bytes = head.as_bytes();
    let mut depth_of_class = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            // `\p{L}+` is a class with a quantifier, not a doubled quantifier.
            b'\\'
                if matches!(bytes.get(at + 1), Some(b'p' | b'P' | b'x' | b'u')) && bytes.get(at + 2) == Some(&b'{') =>
            {
                at += head[at..].find('}').unwrap_or(1);
            }
            b'\\' => at += 1,
            b'[' => depth_of_class += 1,
            b']' => depth_of_class = depth_of_class.saturating_sub(1),
            _ if depth_of_class > 0 => {}
            b'?' | b'*' | b'+' | b'}' if bytes.get(at + 1) == Some(&b'+') => {
                return Err(refuse(source, "possessive quantifiers are not supported"));
            }
            b'(' => {
                let rest = &head[at..];
                if ["(?=", "(?!", "(?<=", "(?<!", "(?>"].iter().any(|look| rest.starts_with(look)) {
                    return Err(refuse(
                        source,
                        r"look-around is not supported, except \s+(?!\S) at the end: it needs more than linear time",
                    ));
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<'a>(pattern: &str, text: &'a str) -> Vec<&'a str> {
        let mut found = Vec::new();
        Pattern::regex(pattern).unwrap().find_all(text, &mut found).unwrap();
        found.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn white_space_gives_its_last_character_back() {
        let pattern = r" ?\p{L}+|\s+(?!\S)|\s+";
        assert_eq!(pieces(pattern, "a   b"), ["a", "  ", " b"]);
        assert_eq!(pieces(pattern, "a\t\tb\t"), ["a", "\t", "\t", "b", "\t"]);
        assert_eq!(pieces(pattern, "a  "), ["a", "  "]);
        assert_eq!(pieces(r" ?\p{L}+|\s+(?!\S)", "a\tb"), ["a", "b"]);
        assert_eq!(pieces(r"\s*[\r\n]+|\s+(?!\S)|\s+", " \n x"), [" \n", " "]);
    }

    #[test]
    fn what_is_not_linear_is_refused_by_name() {
        for pattern in [r"(?=a)b", r"a(?<!b)", r"(a)\1", r"a++b", r"\p{L}*+", r"(\p{L}{500}){500}", "(", "[a"] {
            let error = Pattern::regex(pattern).err().expect(pattern).to_string();
            assert!(error.contains("pattern"), "{error}");
        }
    }

    #[test]
    fn a_pattern_that_needs_quadratic_time_ends_in_an_error() {
        let pattern = Pattern::regex(r"a*b|a").unwrap();
        let mut found = Vec::new();
        let error = pattern.find_all(&"a".repeat(100_000), &mut found).unwrap_err();
        assert!(matches!(error, EncodeError::SlowPattern { .. }), "{error}");
    }
}
