//! The functions, filters and methods that templates call: Python's, on text whose characters remember their origin.

use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::{Kwargs, Object, Rest, Tuple, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::ink::{ink, ink_text, ink_value, is_inked, plain, plain_text, plain_value};
use super::python::{JsonLayout, to_json, to_str};

/// Longest string or list that an expression may make.
const MAX_VALUE: usize = 64 << 20;

/// How much text a render may still touch; the bound on its time besides the number of its instructions.
#[derive(Debug)]
pub(crate) struct Budget(pub(crate) AtomicU64);

impl Object for Budget {}

/// The name under which the budget stands among the variables.
pub(crate) const BUDGET: &str = "__budget";

/// The start of the message of an error that `raise_exception` raised.
pub(crate) const RAISED: &str = "raised by the template: ";

fn failed(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Takes from the budget what touching `amount` characters or items costs.
pub(crate) fn charge(state: &State, amount: usize) -> Result<(), Error> {
    let budget = state.lookup(BUDGET);
    let left = budget.as_ref().and_then(|value| value.downcast_object_ref::<Budget>());
    let left = left.ok_or_else(|| failed("the budget of the template is gone"))?;
    let amount = amount as u64;
    let enough = left.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount));
    enough.map(drop).map_err(|_| Error::new(ErrorKind::OutOfFuel, "the template copies too much text"))
}

/// What copying a value costs: the bytes of a text, and for each item of a list as much as it takes in memory.
fn size(value: &Value) -> usize {
    value.as_str().map_or_else(|| value.len().unwrap_or(0).saturating_mul(64), str::len)
}

/// Takes from the budget what looking at each character of a text costs, which is more than copying it.
fn charge_work(state: &State, value: &Value) -> Result<(), Error> {
    let times = if value.kind() == ValueKind::String { 6 } else { 1 };
    charge(state, size(value).saturating_mul(times))
}

/// A value without ink, paid for.
fn bare(state: &State, value: &Value) -> Result<Value, Error> {
    charge(state, size(value))?;
    plain_value(value, 0)
}

/// Puts all of it into the environment.
pub(crate) fn install(environment: &mut Environment<'static>) {
    environment.add_function("__charge", |state: &State, value: Value| {
        charge(state, size(&value))?;
        Ok::<Value, Error>(value)
    });
    environment.add_function("__plain", |state: &State, value: Value| bare(state, &value));
    environment.add_function("__compare", compare);
    environment.add_function("__add", |state: &State, terms: Rest<Value>| add(state, &terms.0));
    environment.add_function("__concat", |state: &State, terms: Rest<Value>| {
        let texts: Vec<String> = terms.0.iter().map(to_str).collect::<Result<_, Error>>()?;
        charge(state, texts.iter().map(String::len).sum())?;
        Ok::<Value, Error>(Value::from(texts.concat()))
    });
    environment.add_function("__multiply", multiply);
    environment.add_function("__slice", slice);
    environment.add_function("__method", method);
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(failed(format!("{RAISED}{}", plain_text(&to_str(&message)?))))
    });
    install_filters(environment);
    install_tests(environment);
}

fn install_filters(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: Value| to_str(&value));
    environment.add_filter("trim", |text: Value, chars: Option<String>| strip(&to_str(&text)?, chars, true, true));
    environment.add_filter("upper", |state: &State, text: Value| {
        charge_work(state, &text)?;
        Ok::<_, Error>(change_case(&to_str(&text)?, char::to_uppercase))
    });
    environment.add_filter("lower", |state: &State, text: Value| {
        charge_work(state, &text)?;
        Ok::<_, Error>(change_case(&to_str(&text)?, char::to_lowercase))
    });
    environment.add_filter("capitalize", |state: &State, text: Value| {
        charge_work(state, &text)?;
        Ok::<_, Error>(capitalize(&to_str(&text)?))
    });
    environment.add_filter("title", |state: &State, text: Value| {
        charge_work(state, &text)?;
        Ok::<_, Error>(title(&to_str(&text)?))
    });
    environment.add_filter("replace", |state: &State, text: Value, from: String, to: String, count: Option<usize>| {
        replace(state, &to_str(&text)?, &from, &to, count)
    });
    environment.add_filter("join", |state: &State, items: Value, separator: Option<String>, kwargs: Kwargs| {
        let attribute: Option<String> = kwargs.get("attribute")?;
        kwargs.assert_all_used()?;
        let items = items.try_iter()?.map(|item| match &attribute {
            Some(name) => item.get_attr(name),
            None => Ok(item),
        });
        join(state, items, separator.as_deref().unwrap_or(""))
    });
    environment.add_filter("indent", indent);
    environment.add_filter("safe", |value: Value| value);
    environment.add_filter("int", |state: &State, value: Value, default: Option<Value>| {
        let value = bare(state, &value)?;
        let parsed = value.as_str().map(|text| text.trim().parse::<i64>().ok());
        Ok::<Value, Error>(match parsed {
            Some(Some(number)) => Value::from(number),
            Some(None) => default.unwrap_or_else(|| Value::from(0)),
            None if value.is_integer() => value,
            None if value.is_number() => Value::from(f64::try_from(value)?.trunc() as i64),
            None if value.kind() == ValueKind::Bool => Value::from(i64::from(value.is_true())),
            None => default.unwrap_or_else(|| Value::from(0)),
        })
    });
    for name in ["pprint", "urlencode", "escape", "e", "format"] {
        environment.remove_filter(name);
    }
}

fn install_tests(environment: &mut Environment<'static>) {
    for (names, operator) in [
        (&["eq", "equalto", "=="][..], "=="),
        (&["ne", "!="], "!="),
        (&["lt", "lessthan", "<"], "<"),
        (&["le", "<="], "<="),
        (&["gt", "greaterthan", ">"], ">"),
        (&["ge", ">="], ">="),
        (&["in"], "in"),
    ] {
        for name in names {
            environment.add_test(*name, move |state: &State, left: Value, right: Value| {
                Ok::<bool, Error>(compare(state, operator, left, right)?.is_true())
            });
        }
    }
    // In Python a string and a map are sequences, too.
    environment.add_test("sequence", |value: Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
}

fn compare(state: &State, operator: &str, left: Value, right: Value) -> Result<Value, Error> {
    let (left, right) = (bare(state, &left)?, bare(state, &right)?);
    let ordered = left.kind() == right.kind() || (left.kind(), right.kind()) == (ValueKind::Bool, ValueKind::Number);
    let order = || {
        let kinds = format!("cannot compare {} and {}", left.kind(), right.kind());
        if ordered { Ok(left.cmp(&right)) } else { Err(failed(kinds)) }
    };
    let contained = || match (right.kind(), right.as_str(), left.as_str()) {
        (_, Some(text), Some(part)) => Ok(text.contains(part)),
        (ValueKind::String, ..) => Err(failed("'in <string>' requires string as left operand")),
        (ValueKind::Map, ..) => Ok(right.try_iter()?.any(|key| key == left)),
        (ValueKind::Seq | ValueKind::Iterable, ..) => Ok(right.try_iter()?.any(|item| item == left)),
        (kind, ..) => Err(failed(format!("cannot search in {kind}"))),
    };
    Ok(Value::from(match operator {
        "==" => left == right,
        "!=" => left != right,
        "<" => order()?.is_lt(),
        "<=" => order()?.is_le(),
        ">" => order()?.is_gt(),
        ">=" => order()?.is_ge(),
        "in" => contained()?,
        _ => !contained()?,
    }))
}

fn add(state: &State, terms: &[Value]) -> Result<Value, Error> {
    if terms.iter().all(|term| term.kind() == ValueKind::String) {
        charge(state, terms.iter().map(size).sum())?;
        return Ok(Value::from(terms.iter().filter_map(Value::as_str).collect::<String>()));
    }
    let (first, rest) = terms.split_first().ok_or_else(|| failed("nothing to add"))?;
    rest.iter().try_fold(first.clone(), |sum, term| add_two(state, &sum, term))
}

fn add_two(state: &State, left: &Value, right: &Value) -> Result<Value, Error> {
    charge(state, size(left).saturating_add(size(right)))?;
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        return Ok(Value::from(format!("{left}{right}")));
    }
    let sequence = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if sequence(left) && sequence(right) {
        return Ok(Value::from(left.try_iter()?.chain(right.try_iter()?).collect::<Vec<Value>>()));
    }
    if left.is_integer() && right.is_integer() {
        let sum = i64::try_from(left.clone())?.checked_add(i64::try_from(right.clone())?);
        return sum.map(Value::from).ok_or_else(|| failed("integer overflow"));
    }
    if left.is_number() && right.is_number() {
        return Ok(Value::from(f64::try_from(left.clone())? + f64::try_from(right.clone())?));
    }
    Err(failed(format!("cannot add {} and {}", left.kind(), right.kind())))
}

fn multiply(state: &State, left: Value, right: Value) -> Result<Value, Error> {
    let (many, times) = if left.is_number() { (&right, &left) } else { (&left, &right) };
    if many.is_number() && times.is_number() {
        if left.is_integer() && right.is_integer() {
            let product = i64::try_from(left)?.checked_mul(i64::try_from(right)?);
            return product.map(Value::from).ok_or_else(|| failed("integer overflow"));
        }
        return Ok(Value::from(f64::try_from(left)? * f64::try_from(right)?));
    }
    let times = usize::try_from(i64::try_from(times.clone())?.max(0)).unwrap_or(usize::MAX);
    let total = size(many).saturating_mul(times);
    charge(state, total)?;
    if total > MAX_VALUE {
        return Err(failed("the repeated value is too large"));
    }
    match many.kind() {
        ValueKind::String => Ok(Value::from(many.as_str().unwrap_or_default().repeat(times))),
        ValueKind::Seq if total > 0 => {
            let items: Vec<Value> = many.try_iter()?.collect();
            let count = items.len().saturating_mul(times);
            Ok(Value::from(items.iter().cloned().cycle().take(count).collect::<Vec<Value>>()))
        }
        ValueKind::Seq => Ok(Value::from(Vec::<Value>::new())),
        kind => Err(failed(format!("cannot multiply {kind}"))),
    }
}

/// `value[start:stop:step]` by Python's rules. The interpreter's own slices panic on an empty text or list and on
/// bounds that cross when the step is negative.
fn slice(state: &State, value: Value, start: Value, stop: Value, step: Value) -> Result<Value, Error> {
    charge(state, size(&value))?;
    let bound = |value: Value| if value.is_none() { Ok(None) } else { i64::try_from(value).map(Some) };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(failed("slice step cannot be zero"));
    }
    match value.kind() {
        ValueKind::String => {
            let chars: Vec<char> = value.as_str().unwrap_or_default().chars().collect();
            Ok(Value::from(slice_indices(chars.len(), start, stop, step).map(|at| chars[at]).collect::<String>()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            charge(state, items.len().saturating_mul(64))?;
            let picked = slice_indices(items.len(), start, stop, step).map(|at| items[at].clone());
            let picked: Vec<Value> = picked.collect();
            Ok(if value.is_tuple() { Value::from(Tuple::from(picked)) } else { Value::from(picked) })
        }
        ValueKind::Undefined | ValueKind::None => Ok(Value::from(Vec::<Value>::new())),
        kind => Err(failed(format!("cannot slice {kind}"))),
    }
}

/// The positions that a slice picks, as Python's `slice.indices` has them.
fn slice_indices(length: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i64| {
        let from_start = if bound < 0 { bound.saturating_add(length) } else { bound };
        from_start.clamp(lowest, highest)
    };
    let (first, last) = if step > 0 { (lowest, highest) } else { (highest, lowest) };
    let (start, stop) = (start.map_or(first, clamp), stop.map_or(last, clamp));
    std::iter::successors(Some(start), move |at| at.checked_add(step))
        .take_while(move |&at| if step > 0 { at < stop } else { at > stop })
        .filter_map(|at| usize::try_from(at).ok())
}

fn tojson(state: &State, value: Value, indent: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => kwargs.get::<Option<Value>>("indent")?,
    };
    let indent = match indent {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) => Some(match (value.as_str(), value.as_usize()) {
            (Some(text), _) if text.len() <= 16 => text.to_string(),
            (None, Some(width)) if width <= 16 => " ".repeat(width),
            _ => return Err(failed("tojson: indent must be a number or text of at most 16 characters")),
        }),
    };
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let [item_separator, key_separator] = match separators.as_deref() {
        Some([item, key]) if item.len() + key.len() <= 32 => [item.clone(), key.clone()],
        Some(_) => return Err(failed("tojson: separators must be two short texts")),
        None => [if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()],
    };
    let layout = JsonLayout {
        indent,
        item_separator,
        key_separator,
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let text = to_json(&value, &layout)?;
    charge(state, text.len())?;
    Ok(Value::from(text))
}

/// A method of a value: Python's for texts, maps and lists, the value's own for everything else.
fn method(state: &mut State, value: Value, name: String, arguments: Rest<Value>) -> Result<Value, Error> {
    charge_work(state, &value)?;
    match value.kind() {
        ValueKind::String => text_method(state, &value, &name, &arguments.0),
        ValueKind::Map if matches!(name.as_str(), "items" | "keys" | "values" | "get") => {
            map_method(&value, &name, &arguments.0)
        }
        ValueKind::Seq if matches!(name.as_str(), "index" | "count") => {
            let wanted = plain_value(arguments.0.first().unwrap_or(&Value::UNDEFINED), 0)?;
            let items: Vec<Value> =
                value.try_iter()?.map(|item| plain_value(&item, 0)).collect::<Result<_, Error>>()?;
            if name == "count" {
                return Ok(Value::from(items.iter().filter(|item| **item == wanted).count()));
            }
            let at = items.iter().position(|item| *item == wanted);
            at.map(Value::from).ok_or_else(|| failed("the value is not in the list"))
        }
        _ => value.call_method(state, &name, &arguments.0),
    }
}

fn map_method(value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let keys = value.try_iter()?;
    match name {
        "keys" => Ok(Value::from(keys.collect::<Vec<Value>>())),
        "values" => Ok(Value::from(keys.map(|key| value.get_item(&key)).collect::<Result<Vec<Value>, Error>>()?)),
        "items" => {
            let pair = |key: Value| Ok(Value::from(Vec::from([key.clone(), value.get_item(&key)?])));
            Ok(Value::from(keys.map(pair).collect::<Result<Vec<Value>, Error>>()?))
        }
        _ => {
            let key = plain_value(arguments.first().ok_or_else(|| failed("get: no key"))?, 0)?;
            let found = value.get_item(&key)?;
            let default = || arguments.get(1).cloned().unwrap_or(Value::from(()));
            Ok(if found.is_undefined() { default() } else { found })
        }
    }
}

fn text_argument(arguments: &[Value], index: usize) -> Result<Option<String>, Error> {
    match arguments.get(index) {
        None => Ok(None),
        Some(value) if value.is_none() => Ok(None),
        Some(value) => {
            let text = value.as_str().ok_or_else(|| failed(format!("a text was expected, not {}", value.kind())))?;
            Ok(Some(text.to_string()))
        }
    }
}

fn text_method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or_default();
    let first = || text_argument(arguments, 0);
    let needed = || first()?.ok_or_else(|| failed(format!("{name}: an argument is missing")));
    let count = arguments.get(1).and_then(Value::as_i64).and_then(|count| usize::try_from(count).ok());
    let list = |parts: Vec<String>| Ok(Value::from(parts.into_iter().map(Value::from).collect::<Vec<Value>>()));
    match name {
        "strip" => strip(text, first()?, true, true).map(Value::from),
        "lstrip" => strip(text, first()?, true, false).map(Value::from),
        "rstrip" => strip(text, first()?, false, true).map(Value::from),
        "split" => list(split(text, first()?.as_deref(), count, false)?),
        "rsplit" => list(split(text, first()?.as_deref(), count, true)?),
        "splitlines" => list(split_lines(text, arguments.first().is_some_and(Value::is_true))),
        "startswith" | "endswith" => {
            let bare = plain_text(text);
            let hit = |part: &Value| {
                let part = plain_text(part.as_str().unwrap_or("\u{fffd}"));
                if name == "startswith" { bare.starts_with(&part) } else { bare.ends_with(&part) }
            };
            let part = arguments.first().ok_or_else(|| failed(format!("{name}: an argument is missing")))?;
            Ok(Value::from(if part.kind() == ValueKind::Seq {
                part.try_iter()?.any(|part| hit(&part))
            } else {
                hit(part)
            }))
        }
        "replace" => {
            let to = text_argument(arguments, 1)?.ok_or_else(|| failed("replace: an argument is missing"))?;
            let count = arguments.get(2).and_then(Value::as_i64).and_then(|count| usize::try_from(count).ok());
            replace(state, text, &needed()?, &to, count).map(Value::from)
        }
        "removeprefix" | "removesuffix" => {
            let (bare, part) = (plain_text(text), plain_text(&needed()?));
            let kept = text.chars().count().saturating_sub(part.chars().count());
            Ok(Value::from(match name {
                "removeprefix" if bare.starts_with(&part) => text.chars().skip(part.chars().count()).collect(),
                "removesuffix" if bare.ends_with(&part) => text.chars().take(kept).collect(),
                _ => text.to_string(),
            }))
        }
        "upper" => Ok(Value::from(change_case(text, char::to_uppercase))),
        "lower" => Ok(Value::from(change_case(text, char::to_lowercase))),
        "capitalize" => Ok(Value::from(capitalize(text))),
        "title" => Ok(Value::from(title(text))),
        "join" => {
            let items = arguments.first().ok_or_else(|| failed("join: an argument is missing"))?.try_iter()?;
            join(state, items.map(Ok), text).map(Value::from)
        }
        _ => {
            // Everything else looks at the plain text; if there was ink, its whole result is inked.
            let inked = text.chars().any(is_inked);
            let bare: Vec<Value> = arguments.iter().map(|value| plain_value(value, 0)).collect::<Result<_, Error>>()?;
            let result = minijinja_contrib::pycompat::unknown_method_callback(
                state,
                &Value::from(plain_text(text)),
                name,
                &bare,
            )?;
            charge(state, size(&result))?;
            if inked || bare.iter().zip(arguments).any(|(bare, value)| bare != value) {
                ink_value(&result)
            } else {
                Ok(result)
            }
        }
    }
}

/// Python's white space.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

fn strip(text: &str, chars: Option<String>, left: bool, right: bool) -> Result<String, Error> {
    let chars = chars.map(|chars| plain_text(&chars));
    let cut = |character: char| match &chars {
        Some(chars) => chars.contains(plain(character)),
        None => is_space(plain(character)),
    };
    let text = if left { text.trim_start_matches(cut) } else { text };
    Ok(if right { text.trim_end_matches(cut) } else { text }.to_string())
}

/// Where `part` occurs in `text`, both compared without ink; byte ranges of `text`, not overlapping.
fn find_all(text: &str, part: &str) -> Vec<std::ops::Range<usize>> {
    let (bare, part) = (plain_text(text), plain_text(part));
    // Byte positions of the plain text to those of the inked one.
    let mut hits = bare.match_indices(&part).map(|(at, _)| (at, at + part.len())).peekable();
    let mut found = Vec::new();
    let (mut start, mut bare_at) = (0, 0);
    for (at, character) in text.char_indices() {
        let Some(&(from, to)) = hits.peek() else { break };
        if bare_at == from {
            start = at;
        }
        bare_at += plain(character).len_utf8();
        if bare_at == to {
            found.push(start..at + character.len_utf8());
            hits.next();
        }
    }
    found
}

fn split(text: &str, separator: Option<&str>, limit: Option<usize>, from_right: bool) -> Result<Vec<String>, Error> {
    let limit = limit.unwrap_or(usize::MAX);
    let Some(separator) = separator else {
        let mut words: Vec<String> = Vec::new();
        let space = |character: char| is_space(plain(character));
        if limit == usize::MAX {
            return Ok(text.split(space).filter(|word| !word.is_empty()).map(String::from).collect());
        }
        let mut rest = if from_right { text.trim_end_matches(space) } else { text.trim_start_matches(space) };
        while words.len() < limit && !rest.is_empty() {
            let at = if from_right { rest.rfind(space) } else { rest.find(space) };
            let Some(at) = at else { break };
            let (left, right) = rest.split_at(at);
            let (word, remaining) = if from_right { (right, left.trim_end_matches(space)) } else { (left, right) };
            words.push(word.trim_matches(space).to_string());
            rest = if from_right { remaining } else { remaining.trim_start_matches(space) };
        }
        if !rest.is_empty() {
            words.push(rest.to_string());
        }
        if from_right {
            words.reverse();
        }
        return Ok(words);
    };
    if separator.is_empty() {
        return Err(failed("empty separator"));
    }
    let mut cuts = find_all(text, separator);
    let many = cuts.len().saturating_sub(limit);
    if from_right {
        cuts.drain(..many);
    } else {
        cuts.truncate(limit);
    }
    let mut parts = Vec::with_capacity(cuts.len() + 1);
    let mut done = 0;
    for cut in cuts {
        parts.push(text[done..cut.start].to_string());
        done = cut.end;
    }
    parts.push(text[done..].to_string());
    Ok(parts)
}

fn split_lines(text: &str, keep_ends: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let ends = matches!(
            plain(character),
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        );
        if !ends {
            line.push(character);
            continue;
        }
        if keep_ends {
            line.push(character);
        }
        if plain(character) == '\r'
            && let Some(feed) = characters.next_if(|next| plain(*next) == '\n')
            && keep_ends
        {
            line.push(feed);
        }
        lines.push(std::mem::take(&mut line));
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn replace(state: &State, text: &str, from: &str, to: &str, count: Option<usize>) -> Result<String, Error> {
    if from.is_empty() {
        return Err(failed("replace: the text to replace is empty"));
    }
    // Each character may be a hit, and a hit costs more than a byte.
    charge(state, text.len().saturating_mul(8))?;
    let mut found = find_all(text, from);
    found.truncate(count.unwrap_or(usize::MAX));
    charge(state, found.len().saturating_mul(to.len()).saturating_add(text.len()))?;
    let mut result = String::with_capacity(text.len());
    let mut done = 0;
    for hit in found {
        result.push_str(&text[done..hit.start]);
        result.push_str(to);
        done = hit.end;
    }
    result.push_str(&text[done..]);
    Ok(result)
}

fn join(state: &State, items: impl Iterator<Item = Result<Value, Error>>, separator: &str) -> Result<String, Error> {
    let mut result = String::new();
    for (index, item) in items.enumerate() {
        let item = to_str(&item?)?;
        charge(state, item.len() + separator.len())?;
        result.push_str(if index > 0 { separator } else { "" });
        result.push_str(&item);
    }
    Ok(result)
}

fn indent(state: &State, text: Value, arguments: Rest<Value>) -> Result<String, Error> {
    let (width, first, blank, kwargs): (Option<Value>, Option<bool>, Option<bool>, Kwargs) = from_args(&arguments.0)?;
    let width = match width {
        Some(width) => Some(width),
        None => kwargs.get::<Option<Value>>("width")?,
    };
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let prefix = match width.as_ref().map(|width| (width.as_str(), width.as_usize())) {
        None => "    ".to_string(),
        Some((Some(text), _)) if text.len() <= 64 => text.to_string(),
        Some((None, Some(width))) if width <= 64 => " ".repeat(width),
        _ => return Err(failed("indent: the width must be a number or text of at most 64 characters")),
    };
    let text = to_str(&text)?;
    let lines = split(&text, Some("\n"), None, false)?;
    charge(state, text.len().saturating_add(lines.len().saturating_mul(prefix.len())))?;
    let newline = if text.chars().any(is_inked) { ink('\n') } else { '\n' };
    let mut result = String::with_capacity(text.len());
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            result.push(newline);
        }
        if (index > 0 || first) && (blank || !line.is_empty()) {
            result.push_str(&prefix);
        }
        result.push_str(line);
    }
    Ok(result)
}

/// Changes the case of each character and keeps its ink.
fn change_case<I: Iterator<Item = char>>(text: &str, change: impl Fn(char) -> I) -> String {
    let changed = |character: char| {
        let changed: String = change(plain(character)).collect();
        if is_inked(character) { ink_text(&changed) } else { changed }
    };
    text.chars().map(changed).collect()
}

fn capitalize(text: &str) -> String {
    let rest = text.char_indices().nth(1).map_or(text.len(), |(at, _)| at);
    change_case(&text[..rest], char::to_uppercase) + &change_case(&text[rest..], char::to_lowercase)
}

fn title(text: &str) -> String {
    let mut in_word = false;
    let mut result = String::with_capacity(text.len());
    let mut buffer = [0; 4];
    for character in text.chars() {
        let one = character.encode_utf8(&mut buffer);
        result.push_str(&if in_word {
            change_case(one, char::to_lowercase)
        } else {
            change_case(one, char::to_uppercase)
        });
        in_word = plain(character).is_alphabetic();
    }
    result
}
