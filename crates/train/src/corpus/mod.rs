//! Corpora that this repository generates: their origin is known to the last token.
//!
//! A corpus is endless and seeded: document `i` is a pure function of the seed and `i`, so that any thread can make any
//! part of it, in any order, with the same result. `docs/DATA.md` describes them with samples.

mod chat;
mod countdown;
mod lists;
mod mix;
mod stories;
mod sums;
mod talk;
mod words;

use std::collections::BTreeMap;

use eval::Language;
use eval::rng::Rng;
use text::Segment;

/// A document, without begin and end tokens (packing puts them around each).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its text. Trusted segments may hold special tokens; what a generator or a file says is untrusted.
    pub segments: Vec<Segment>,
    /// What sort of document it is, such as `countdown/3`; counted in the manifest.
    pub kind: &'static str,
}

/// An endless seeded corpus.
pub trait Source: Send + Sync {
    /// The name by which recipes ask for it.
    fn name(&self) -> &'static str;

    /// One sentence for the manifest: what it is and how it was made.
    fn origin(&self) -> String;

    /// The document of this number: a pure function of the seed and the number.
    fn document(&self, index: u64) -> Document;
}

/// The names that [`open`] knows. `nano` is all others in the shares of the built-in model.
pub const NAMES: &[&str] = &["sums", "countdown", "words", "stories", "talk", "lists", "nano"];

/// The options of all corpora: name, value when it is not given. All are shares from 0 to 1.
///
/// - `arabic`: documents in Arabic.
/// - `chat`: documents in the chat format, of the corpora that also have plain ones (sums, words, stories).
/// - `retries`: countdown documents with several attempts.
/// - `solved`: countdown documents with one attempt that meets the target, for a control.
const OPTIONS: [(&str, f64); 4] = [("arabic", 0.3), ("chat", 0.5), ("retries", 0.2), ("solved", 0.0)];

/// The corpus of a name, with the options of the recipe's source table: `arabic`, `chat`, `retries` and `solved`, each
/// a share from 0 to 1.
///
/// # Errors
/// One sentence, if there is no such corpus, no such option, or a value is out of range.
pub fn open(name: &str, seed: u64, options: &BTreeMap<String, f64>) -> Result<Box<dyn Source>, String> {
    let known: &[&str] = match name {
        "sums" | "words" | "stories" => &["arabic", "chat"],
        "countdown" => &["arabic", "retries", "solved"],
        "talk" | "lists" => &["arabic"],
        "nano" => &["arabic", "chat", "retries"],
        _ => return Err(format!("there is no corpus {name:?}; known are: {}", NAMES.join(", "))),
    };
    for (option, value) in options {
        if !known.contains(&option.as_str()) {
            return Err(format!("the corpus {name} has no option {option:?}; known are: {}", known.join(", ")));
        }
        if !(0.0..=1.0).contains(value) {
            return Err(format!("option {option} of the corpus {name} is {value}; it is a share from 0 to 1"));
        }
    }
    let value = |option: &str| {
        let default = OPTIONS.iter().find(|(name, _)| *name == option).map_or(0.0, |(_, value)| *value);
        options.get(option).copied().unwrap_or(default)
    };
    let (arabic, chat, retries, solved) = (value("arabic"), value("chat"), value("retries"), value("solved"));
    let one = |name: &str| -> Box<dyn Source> {
        match name {
            // Most sums are the same in both languages.
            "sums" => Box::new(sums::Sums { seed, chat, arabic }),
            "countdown" => Box::new(countdown::Countdown { seed, retries, solved, arabic }),
            "words" => Box::new(words::Words { seed, chat, arabic }),
            "stories" => Box::new(stories::Stories { seed, chat, arabic }),
            "talk" => Box::new(talk::Talk { seed, arabic }),
            _ => Box::new(lists::Lists { seed, arabic }),
        }
    };
    if name != "nano" {
        return Ok(one(name));
    }
    Ok(Box::new(mix::Mix::new(seed, SHARES.iter().map(|(name, share)| (one(name), *share)).collect())))
}

/// The shares of bytes in the mix of the built-in model.
const SHARES: [(&str, f64); 6] =
    [("sums", 0.27), ("countdown", 0.27), ("words", 0.20), ("stories", 0.13), ("talk", 0.07), ("lists", 0.06)];

/// A document without chat format.
fn plain(kind: &'static str, text: String) -> Document {
    Document { segments: vec![Segment::untrusted(text)], kind }
}

/// What a user says, now and then as people type it: alef without hamza, no full stop, lower case.
fn typed(rng: &mut Rng, text: String, language: Language) -> String {
    match (language, rng.below(12)) {
        (Language::Arabic, 0 | 1) => text.replace(['أ', 'إ', 'آ'], "ا"),
        (Language::English, 0) => text.to_lowercase(),
        (_, 2) => text.trim_end_matches(['.', '?', '؟', '!']).to_string(),
        _ => text,
    }
}
