//! Characters that remember that they came from a message.
//!
//! Before a template runs, every character of the messages and tools is replaced, one for one, by a code point in the
//! unassigned planes 4 to 10 of Unicode ("inked"); after it ran, inked characters are turned back and mark untrusted
//! text. Concatenation, slicing and length need no care, because one character stays one character. Everything that
//! looks at characters (comparison, search, trimming, JSON) goes through the functions of this crate, which look at
//! the plain characters and move the inked ones.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use crate::segment::Segment;

/// Deepest nesting of a message.
const MAX_DEPTH: usize = 96;

/// The inked form of a character. Unassigned code points of planes 4 to 13, which no text uses, become U+FFFD.
pub(crate) fn ink(character: char) -> char {
    let code = u32::from(character);
    let inked = match code >> 16 {
        0..=3 => code + 0x4_0000,
        14..=16 => code - 0x6_0000,
        4..=10 => code,
        _ => 0x4_fffd,
    };
    char::from_u32(inked).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Whether a character came from a message.
pub(crate) fn is_inked(character: char) -> bool {
    (4..=10).contains(&(u32::from(character) >> 16))
}

/// The character as it was before it was inked; others unchanged.
pub(crate) fn plain(character: char) -> char {
    let code = u32::from(character);
    let plain = match code >> 16 {
        4..=7 => code - 0x4_0000,
        8..=10 => code + 0x6_0000,
        _ => code,
    };
    char::from_u32(plain).unwrap_or(character)
}

pub(crate) fn ink_text(text: &str) -> String {
    text.chars().map(ink).collect()
}

/// Text of a message: whatever it contains becomes inked; what looks inked already is unassigned and is replaced.
fn ink_fresh(text: &str) -> String {
    text.chars().map(|c| if matches!(u32::from(c) >> 16, 4..=13) { ink('\u{fffd}') } else { ink(c) }).collect()
}

pub(crate) fn plain_text(text: &str) -> String {
    text.chars().map(plain).collect()
}

/// A key that a template may look up by name: it stays as it is.
fn is_name(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'-'))
}

/// JSON from a message or tool as a value with inked strings.
pub(crate) fn ink_json(json: &serde_json::Value, depth: usize) -> Result<Value, Error> {
    use serde_json::Value as Json;
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::BadSerialization, "a message is nested more than 96 levels deep"));
    }
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(ink_fresh(text)),
        Json::Array(items) => {
            Value::from(items.iter().map(|item| ink_json(item, depth + 1)).collect::<Result<Vec<Value>, Error>>()?)
        }
        Json::Object(fields) => {
            let pairs: Result<Vec<(Value, Value)>, Error> = fields
                .iter()
                .map(|(key, value)| {
                    let key = if is_name(key) { Value::from(key.as_str()) } else { Value::from(ink_fresh(key)) };
                    Ok((key, ink_json(value, depth + 1)?))
                })
                .collect();
            Value::from_pairs(pairs?)
        }
    })
}

/// A message: as [`ink_json`], but a role that is a plain word stays as it is, because templates write it into their
/// markers (`'<|' + message.role + '|>'`).
pub(crate) fn ink_message(message: &serde_json::Value) -> Result<Value, Error> {
    let inked = ink_json(message, 0)?;
    let role = message.get("role").and_then(serde_json::Value::as_str);
    let Some(role) = role.filter(|role| role.len() <= 32 && role.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    else {
        return Ok(inked);
    };
    let keys = inked.try_iter()?;
    let pairs: Result<Vec<(Value, Value)>, Error> = keys
        .map(|key| {
            let value = if key.as_str() == Some("role") { Value::from(role) } else { inked.get_item(&key)? };
            Ok((key, value))
        })
        .collect();
    Ok(Value::from_pairs(pairs?))
}

/// A value with all ink removed, for comparisons and look-ups.
pub(crate) fn plain_value(value: &Value, depth: usize) -> Result<Value, Error> {
    map_text(value, depth, &|text| if text.chars().any(is_inked) { Some(plain_text(text)) } else { None })
}

/// A value with all strings inked.
pub(crate) fn ink_value(value: &Value) -> Result<Value, Error> {
    map_text(value, 0, &|text| Some(ink_text(text)))
}

fn map_text(value: &Value, depth: usize, change: &dyn Fn(&str) -> Option<String>) -> Result<Value, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested more than 96 levels deep"));
    }
    match value.kind() {
        ValueKind::String => Ok(value.as_str().and_then(change).map_or_else(|| value.clone(), Value::from)),
        ValueKind::Seq => {
            let items = value.try_iter()?.map(|item| map_text(&item, depth + 1, change));
            let items = items.collect::<Result<Vec<Value>, Error>>()?;
            Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
        }
        ValueKind::Map => {
            let pairs: Result<Vec<(Value, Value)>, Error> = value
                .try_iter()?
                .map(|key| {
                    Ok((map_text(&key, depth + 1, change)?, map_text(&value.get_item(&key)?, depth + 1, change)?))
                })
                .collect();
            Ok(Value::from_pairs(pairs?))
        }
        _ => Ok(value.clone()),
    }
}

/// Rendered text as runs of one origin.
pub(crate) fn segments(rendered: &str) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for character in rendered.chars() {
        let trusted = !is_inked(character);
        match segments.last_mut() {
            Some(last) if last.trusted == trusted => last.text.push(plain(character)),
            _ => segments.push(Segment { text: plain(character).to_string(), trusted }),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_is_undone_for_every_assigned_character() {
        for code in (0..0x4_0000u32).chain(0xE_0000..0x11_0000) {
            let Some(character) = char::from_u32(code) else { continue };
            assert!(is_inked(ink(character)) && !is_inked(character));
            assert_eq!(plain(ink(character)), character);
            assert_eq!(ink(ink(character)), ink(character));
        }
        assert_eq!(ink_fresh("\u{40041}"), ink_text("\u{fffd}"));
    }
}
