//! Grammars of forms: schemas as the library may read them, and calls of tools in the middle of text.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use text::Tokenizer;

use crate::tools::{
    DEEPSEEK_BEGIN, DEEPSEEK_CALL, DEEPSEEK_CALL_END, DEEPSEEK_END, DEEPSEEK_SEP, MISTRAL, TAG, TAG_END, ToolFormat,
};
use crate::wire::chat::Tool;

/// Text in which calls follow the schemas of their tools, as a grammar in Lark's notation. Arguments of tools that are
/// not strict are any object. None where the form has no marker that tells a call from text.
pub(super) fn strict(
    tokenizer: &Tokenizer,
    tools: &[Tool],
    format: ToolFormat,
    one: bool,
) -> Option<Result<String, String>> {
    let begin = match format {
        ToolFormat::Tags => TAG,
        ToolFormat::DeepSeek => DEEPSEEK_BEGIN,
        ToolFormat::Mistral => MISTRAL,
        ToolFormat::Bare | ToolFormat::Channels => return None,
    };
    Some(calls(tokenizer, tools, format, one).map(|calls| {
        let mut text = String::from(if one { "start: TEXT | until call\n" } else { "start: (until call)* TEXT\n" });
        text += "TEXT: /(?s:.*)/\n";
        // A token ends the text before it; letters do where they first stand.
        text += &match special(tokenizer, begin) {
            Some(token) => format!("until: TEXT {token}\n"),
            None => format!("until[lazy]: TEXT {}\n", json!(begin)),
        };
        text + &calls
    }))
}

/// The rule `call`: what follows the marker.
fn calls(tokenizer: &Tokenizer, tools: &[Tool], format: ToolFormat, one: bool) -> Result<String, String> {
    let any = json!({"type": "object"});
    let strict: Vec<Tool> = tools
        .iter()
        .map(|tool| {
            let mut tool = tool.clone();
            if tool.function.strict != Some(true) {
                tool.function.parameters = Some(any.clone());
            }
            tool
        })
        .collect();
    let marker = |name: &str| special(tokenizer, name).unwrap_or_else(|| json!(name).to_string());
    let mut rules = String::new();
    match format {
        ToolFormat::DeepSeek => {
            let (call, call_end) = (marker(DEEPSEEK_CALL), marker(DEEPSEEK_CALL_END));
            let (sep, end) = (marker(DEEPSEEK_SEP), marker(DEEPSEEK_END));
            let many = if one { "" } else { " (\"\\n\"? one)*" };
            let _ = writeln!(rules, "call: one{many} {end}");
            let names: Vec<String> = (0..strict.len()).map(|i| format!("tool{i}")).collect();
            let _ = writeln!(rules, "one: {call} ({}) {call_end}", names.join(" | "));
            for (i, tool) in strict.iter().enumerate() {
                let (name, schema) = (json!(tool.function.name), parameters(tool));
                let fenced = format!("\"function\" {sep} {name} \"\\n```json\\n\" json{i} \"\\n```\"");
                let _ = writeln!(rules, "tool{i}: {fenced} | {name} {sep} json{i}");
                let _ = writeln!(rules, "json{i}: %json {}", readable(&schema)?);
            }
        }
        ToolFormat::Mistral => {
            let mut schema = json!({"type": "array", "items": calls_schema(&strict), "minItems": 1});
            if one {
                schema["maxItems"] = json!(1);
            }
            let _ = writeln!(rules, "call: %json {}", readable(&schema)?);
        }
        _ => {
            let _ = writeln!(rules, "call: SPACE object SPACE {}", marker(TAG_END));
            let _ = writeln!(rules, "SPACE: /[ \\n]{{0,4}}/");
            let _ = writeln!(rules, "object: %json {}", readable(&calls_schema(&strict))?);
        }
    }
    Ok(rules)
}

/// A marker that is a token and no text.
fn special(tokenizer: &Tokenizer, name: &str) -> Option<String> {
    tokenizer.id(name).filter(|&id| tokenizer.is_special(id)).map(|id| format!("<[{id}]>"))
}

/// What a tool takes.
fn parameters(tool: &Tool) -> Value {
    tool.function.parameters.clone().filter(Value::is_object).unwrap_or_else(|| json!({"type": "object"}))
}

/// A schema that the library may read, with little white space: small models may write it for ever where it is free.
pub(super) fn readable(schema: &Value) -> Result<Value, String> {
    check_schema(schema)?;
    let mut schema = schema.clone();
    if let Some(object) = schema.as_object_mut() {
        object.insert("x-guidance".into(), json!({"whitespace_pattern": "[\\x20\\x0A\\x0D\\x09]{0,8}"}));
    }
    Ok(schema)
}

/// The schema of a call of one of the tools.
pub(super) fn calls_schema(tools: &[Tool]) -> Value {
    let calls = tools.iter().map(|tool| {
        json!({
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": parameters(tool)},
            "required": ["name", "arguments"],
            "additionalProperties": false,
        })
    });
    let mut calls: Vec<Value> = calls.collect();
    match calls.len() {
        1 => calls.remove(0),
        _ => json!({"anyOf": calls}),
    }
}

/// A schema that the library reads must be a tree of a depth that it can walk, and refer to nothing outside.
fn check_schema(schema: &Value) -> Result<(), String> {
    const DEPTH_MAX: usize = 32;
    let mut open: Vec<(&Value, usize)> = vec![(schema, 0)];
    while let Some((value, depth)) = open.pop() {
        if depth > DEPTH_MAX {
            return Err(format!("the schema is more than {DEPTH_MAX} levels deep"));
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                check_reference(fields)?;
                open.extend(fields.values().map(|field| (field, depth + 1)));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_reference(fields: &Map<String, Value>) -> Result<(), String> {
    match fields.get("$ref").and_then(Value::as_str) {
        Some(target) if !target.starts_with('#') => {
            let target: String = target.chars().take(80).collect();
            Err(format!("the schema refers to {target:?}; only references within it (#/..) are followed"))
        }
        _ => Ok(()),
    }
}
