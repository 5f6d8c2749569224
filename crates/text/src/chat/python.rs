//! Values as Python writes them: `str()`, `repr()` and `json.dumps()`, which the published templates were written for.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::ink::{ink_text, plain_text};

/// Deepest value that is written.
const MAX_DEPTH: usize = 100;

/// How `json.dumps` lays its text out.
#[derive(Clone, Debug)]
pub(crate) struct JsonLayout {
    pub(crate) indent: Option<String>,
    pub(crate) item_separator: String,
    pub(crate) key_separator: String,
    pub(crate) sort_keys: bool,
    pub(crate) ascii: bool,
}

/// `str(value)`. Strings keep their ink; the text of lists and maps is inked as a whole.
pub(crate) fn to_str(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_string()),
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let mut text = String::new();
            repr(value, &mut text, 0)?;
            Ok(ink_text(&text))
        }
        _ => {
            let mut text = String::new();
            repr(value, &mut text, 0)?;
            Ok(text)
        }
    }
}

fn too_deep(depth: usize) -> Result<(), Error> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, "a value is nested more than 100 levels deep"))
}

/// `repr(value)`, without ink.
fn repr(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    too_deep(depth)?;
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(value, out),
        ValueKind::String => repr_text(&plain_text(value.as_str().unwrap_or_default()), out),
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            let mut count = 0;
            for item in value.try_iter()? {
                out.push_str(if count > 0 { ", " } else { "" });
                repr(&item, out, depth + 1)?;
                count += 1;
            }
            out.push_str(if value.is_tuple() && count == 1 { "," } else { "" });
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(&key, out, depth + 1)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        let code = u32::from(character);
        let written = match character {
            '\\' => write!(out, "\\\\"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            _ if character == quote => write!(out, "\\{quote}"),
            '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' => write!(out, "\\x{code:02x}"),
            '\u{2000}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{205f}'..='\u{206f}'
            | '\u{3000}'
            | '\u{feff}'
            | '\u{1680}'
            | '\u{e000}'..='\u{f8ff}' => write!(out, "\\u{code:04x}"),
            _ => {
                out.push(character);
                Ok(())
            }
        };
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    out.push(quote);
}

fn number(value: &Value, out: &mut String) {
    if value.is_integer() {
        out.push_str(&value.to_string());
    } else {
        out.push_str(&float(f64::try_from(value.clone()).unwrap_or(f64::NAN), ["inf", "-inf", "nan"]));
    }
}

/// `repr` of a float: the shortest digits that read back, in positional form from 1e-4 to 1e16.
fn float(value: f64, special: [&str; 3]) -> String {
    if value.is_nan() {
        return special[2].into();
    }
    if value.is_infinite() {
        return special[usize::from(value < 0.0)].into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let text = format!("{value}");
    if text.contains('.') { text } else { text + ".0" }
}

/// `json.dumps(value)`. All of it is inked: it speaks of messages and tools.
pub(crate) fn to_json(value: &Value, layout: &JsonLayout) -> Result<String, Error> {
    let mut out = String::new();
    json(value, layout, &mut out, 0)?;
    Ok(ink_text(&out))
}

fn json(value: &Value, layout: &JsonLayout, out: &mut String, depth: usize) -> Result<(), Error> {
    too_deep(depth)?;
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => {
            let value = f64::try_from(value.clone()).unwrap_or(f64::NAN);
            out.push_str(&float(value, ["Infinity", "-Infinity", "NaN"]));
        }
        ValueKind::String => json_text(value.as_str().unwrap_or_default(), layout.ascii, out),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            json_items(layout, out, depth, ['[', ']'], items.len(), |index, out| {
                json(&items[index], layout, out, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<(String, Value)> =
                value.try_iter()?.map(|key| Ok((json_key(&key)?, key))).collect::<Result<_, Error>>()?;
            if layout.sort_keys {
                keys.sort_by(|a, b| a.0.cmp(&b.0));
            }
            json_items(layout, out, depth, ['{', '}'], keys.len(), |index, out| {
                let (name, key) = &keys[index];
                json_text(name, layout.ascii, out);
                out.push_str(&layout.key_separator);
                json(&value.get_item(key)?, layout, out, depth + 1)
            })?;
        }
        kind => {
            let message = format!("Object of type {kind} is not JSON serializable");
            return Err(Error::new(ErrorKind::BadSerialization, message));
        }
    }
    Ok(())
}

fn json_key(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => plain_text(key.as_str().unwrap_or_default()),
        ValueKind::None => "null".into(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.into(),
        _ => to_str(key)?,
    })
}

fn json_items(
    layout: &JsonLayout,
    out: &mut String,
    depth: usize,
    [open, close]: [char; 2],
    count: usize,
    mut write: impl FnMut(usize, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = layout.indent.as_ref().filter(|_| count > 0) {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    };
    out.push(open);
    for index in 0..count {
        out.push_str(if index > 0 { &layout.item_separator } else { "" });
        line(out, depth + 1);
        write(index, out)?;
    }
    line(out, depth);
    out.push(close);
    Ok(())
}

fn json_text(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for character in plain_text(text).chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ if ascii && !character.is_ascii() => {
                let mut units = [0; 2];
                character.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let written = |value| float(value, ["inf", "-inf", "nan"]);
        for (value, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(written(value), text);
        }
    }
}
