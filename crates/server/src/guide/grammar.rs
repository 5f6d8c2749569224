//! Grammars of forms: schemas as the library may read them, and calls of tools in the middle of text.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use text::Tokenizer;

use crate::tools::{
    DEEPSEEK_BEGIN, DEEPSEEK_CALL, DEEPSEEK_CALL_END, DEEPSEEK_END, DEEPSEEK_SEP, MISTRAL, MISTRAL_ARGS, MISTRAL_ID,
    TAG, TAG_END, ToolFormat,
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
    let strict = loosened(tools);
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
            let (id, args) = (marker(MISTRAL_ID), marker(MISTRAL_ARGS));
            let names: Vec<String> = (0..strict.len()).map(|i| format!("tool{i}")).collect();
            let _ = writeln!(rules, "call: list | {}", names.join(" | "));
            let _ = writeln!(rules, "list: %json {}", readable(&schema)?);
            let _ = writeln!(rules, "ID: /[A-Za-z0-9_-]{{1,40}}/");
            for (i, tool) in strict.iter().enumerate() {
                let _ = writeln!(rules, "tool{i}: {} ({id} ID)? {args} json{i}", json!(tool.function.name));
                let _ = writeln!(rules, "json{i}: %json {}", readable(&parameters(tool))?);
            }
        }
        _ => {
            let _ = writeln!(rules, "call: SPACE object SPACE {}", marker(TAG_END));
            let _ = writeln!(rules, "SPACE: /[ \\n]{{0,4}}/");
            let _ = writeln!(rules, "object: %json {}", readable(&calls_schema(&strict))?);
        }
    }
    Ok(rules)
}

/// What the last message of an answer in channels must be.
pub(super) enum Last<'a> {
    /// JSON after this schema.
    Json(&'a Value),
    /// A call of one of these.
    Call(&'a [Tool]),
    /// Text, or a call of one of these, whose arguments follow the schemas of strict tools.
    Any(&'a [Tool]),
}

/// A whole answer in gpt-oss' channels ("harmony"), from the header of its first message on: thoughts, then a last
/// message of this kind. A call ends the answer, so there is one at most.
pub(super) fn channels(tokenizer: &Tokenizer, last: &Last) -> Result<String, String> {
    let token = |name: &str| special(tokenizer, name).ok_or(format!("the vocabulary has no token {name}"));
    let (start, channel, message, end) =
        (token("<|start|>")?, token("<|channel|>")?, token("<|message|>")?, token("<|end|>")?);
    let json_mark = match special(tokenizer, "<|constrain|>") {
        Some(constrain) => format!("(\" \"? {constrain} \"json\" | \" json\")?"),
        None => "\" json\"?".to_string(),
    };
    // Text before a call may be for the reader; before the answer itself only thoughts are.
    let thoughts = if let Last::Any(_) = last { "(\"analysis\" | \"commentary\")" } else { "\"analysis\"" };
    let mut rules = String::from("start: (thought next)* last\nTEXT: /(?s:.*)/\n");
    let _ = writeln!(rules, "thought: {channel} {thoughts} {message} TEXT {end}");
    let _ = writeln!(rules, "next: {start} \"assistant\"");
    let tools = match last {
        Last::Json(schema) => {
            let _ = writeln!(rules, "last: {channel} \"final\" {json_mark} {message} json");
            let _ = writeln!(rules, "json: %json {}", readable(schema)?);
            return Ok(rules);
        }
        Last::Call(tools) => {
            rules += "last: call\n";
            tools.to_vec()
        }
        Last::Any(tools) => {
            let _ = writeln!(rules, "last: call | {channel} \"final\" {message} TEXT");
            loosened(tools)
        }
    };
    let calls: Vec<String> = (0..tools.len()).map(|i| format!("call{i}")).collect();
    let _ = writeln!(rules, "call: {}", calls.join(" | "));
    for (i, tool) in tools.iter().enumerate() {
        // The one that is spoken to stands before the channel or after it.
        let to = json!(format!(" to=functions.{}", tool.function.name));
        let header = format!("({channel} \"commentary\" {to} | {to} {channel} \"commentary\")");
        let _ = writeln!(rules, "call{i}: {header} {json_mark} {message} json{i}");
        let _ = writeln!(rules, "json{i}: %json {}", readable(&parameters(tool))?);
    }
    Ok(rules)
}

/// The tools; those that are not strict take any object.
fn loosened(tools: &[Tool]) -> Vec<Tool> {
    let loose = |tool: &Tool| {
        let mut tool = tool.clone();
        if tool.function.strict != Some(true) {
            tool.function.parameters = Some(json!({"type": "object"}));
        }
        tool
    };
    tools.iter().map(loose).collect()
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use llguidance::Matcher;
    use llguidance::api::TopLevelGrammar;
    use serde_json::from_str;

    use super::*;
    use crate::tools::MARKERS;

    /// A tokenizer whose markers of calls are letters like any others, or tokens of their own.
    fn tokenizer(tokens: bool) -> &'static Tokenizer {
        with_tokens(if tokens { &MARKERS } else { &[] })
    }

    fn with_tokens(names: &[&str]) -> &'static Tokenizer {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fathom/tests/fixtures/tiny-chat");
        let mut file: Value = from_str(&std::fs::read_to_string(fixture.join("tokenizer.json")).unwrap()).unwrap();
        let added = file["added_tokens"].as_array_mut().unwrap();
        let next = added.iter().filter_map(|token| token["id"].as_u64()).max().unwrap() + 1;
        for (id, name) in (next..).zip(names) {
            let no = false;
            added.push(json!({"id": id, "content": name, "special": true, "single_word": no, "lstrip": no,
                "rstrip": no, "normalized": no}));
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["tokenizer_config.json", "generation_config.json", "config.json"] {
            std::fs::copy(fixture.join(name), folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
        Box::leak(Box::new(Tokenizer::from_directory(folder.path()).unwrap()))
    }

    /// Whether a text is a whole answer under a grammar.
    fn fits(tokenizer: &'static Tokenizer, matcher: &Matcher, text: &str) -> bool {
        let mut matcher = matcher.deep_clone();
        let tokens = tokenizer.encode_with_specials(text).unwrap();
        matcher.try_consume_tokens(&tokens).unwrap() == tokens.len() && matcher.is_accepting().unwrap()
    }

    #[test]
    fn calls_in_the_middle_of_text_fit_strict_schemas_in_every_form() {
        let city = json!({"type": "object", "properties": {"city": {"enum": ["Rome", "Cairo"]}}, "required": ["city"],
            "additionalProperties": false});
        let tool = |name: &str, strict: bool| -> Tool {
            let function = json!({"name": name, "parameters": city, "strict": strict});
            serde_json::from_value(json!({"type": "function", "function": function})).unwrap()
        };
        let tools = [tool("weather", true), tool("free", false)];
        // A call with its marker, of a name and arguments.
        type Call = fn(&str, &str) -> String;
        let forms: [(ToolFormat, Call); 6] = [
            (ToolFormat::Tags, |name, arguments| {
                format!("{TAG}\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n{TAG_END}")
            }),
            (ToolFormat::DeepSeek, |name, arguments| {
                format!(
                    "{DEEPSEEK_BEGIN}{DEEPSEEK_CALL}function{DEEPSEEK_SEP}{name}\n```json\n{arguments}\n```\
                     {DEEPSEEK_CALL_END}{DEEPSEEK_END}"
                )
            }),
            (ToolFormat::DeepSeek, |name, arguments| {
                format!(
                    "{DEEPSEEK_BEGIN}{DEEPSEEK_CALL}{name}{DEEPSEEK_SEP}{arguments}{DEEPSEEK_CALL_END}{DEEPSEEK_END}"
                )
            }),
            (ToolFormat::Mistral, |name, arguments| {
                format!("{MISTRAL}[{{\"name\": \"{name}\", \"arguments\": {arguments}}}]")
            }),
            (ToolFormat::Mistral, |name, arguments| format!("{MISTRAL}{name}{MISTRAL_ARGS}{arguments}")),
            (ToolFormat::Mistral, |name, arguments| {
                format!("{MISTRAL}{name}{MISTRAL_ID}a1B2{MISTRAL_ARGS}{arguments}")
            }),
        ];
        for tokens in [false, true] {
            let tokenizer = tokenizer(tokens);
            let size = 1 + (0..4096).rev().find(|&id| tokenizer.token(id).is_some()).unwrap();
            let factory = super::super::factory(tokenizer, size as usize).unwrap();
            for (format, call) in forms {
                for one in [false, true] {
                    let grammar = strict(tokenizer, &tools, format, one).unwrap().unwrap();
                    let matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(grammar)));
                    assert!(!matcher.is_error(), "{format:?}: {:?}", matcher.get_error());
                    let fits = |text: &str| fits(tokenizer, &matcher, text);
                    let right = call("weather", "{\"city\": \"Rome\"}");
                    for text in ["", "No call {\"name\": 1} < at all.", &right, &format!("Let me see. {right}")] {
                        assert!(fits(text), "{format:?} {tokens} {one}: {text}");
                    }
                    assert!(fits(&call("free", "{\"city\": \"Paris\"}")), "{format:?}: not strict");
                    assert_eq!(fits(&format!("{right}{right}")), !one, "{format:?} {tokens}: two calls");
                    for wrong in [
                        call("weather", "{\"city\": \"Paris\"}"),
                        call("weather", "{}"),
                        call("nobody", "{\"city\": \"Rome\"}"),
                        format!("Let me see. {}", call("weather", "{\"city\": 3}")),
                        right[..right.len() - 1].to_string(),
                    ] {
                        assert!(!fits(&wrong), "{format:?} {tokens} {one}: {wrong}");
                    }
                }
            }
        }
        assert!(strict(tokenizer(false), &tools, ToolFormat::Bare, true).is_none());
    }

    #[test]
    fn answers_in_channels_end_with_what_is_asked() {
        let names = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"];
        let tokenizer = with_tokens(&names);
        let size = 1 + (0..4096).rev().find(|&id| tokenizer.token(id).is_some()).unwrap();
        let factory = super::super::factory(tokenizer, size as usize).unwrap();
        let schema = json!({"type": "object", "properties": {"city": {"enum": ["Rome", "Cairo"]}},
            "required": ["city"], "additionalProperties": false});
        let tool = |name: &str, strict: bool| -> Tool {
            let function = json!({"name": name, "parameters": schema, "strict": strict});
            serde_json::from_value(json!({"type": "function", "function": function})).unwrap()
        };
        let tools = [tool("weather", true), tool("free", false)];
        let thought = "<|channel|>analysis<|message|>Hm {<|end|><|start|>assistant";
        let to = |header: &str, arguments: &str| format!("{header}<|message|>{arguments}");
        let (rome, paris) = ("{\"city\": \"Rome\"}", "{\"city\": \"Paris\"}");
        let json = to("<|channel|>final", rome);
        let marked = to("<|channel|>final <|constrain|>json", rome);
        let text = to("<|channel|>final", "It rains in Rome.");
        let call = to("<|channel|>commentary to=functions.weather <|constrain|>json", rome);
        let turned = to(" to=functions.weather<|channel|>commentary json", rome);
        let loose = to("<|channel|>commentary to=functions.free", paris);
        let wrong = to("<|channel|>commentary to=functions.weather", paris);
        let other = to("<|channel|>commentary to=functions.nobody", rome);
        let all = [&json, &marked, &text, &call, &turned, &loose, &wrong, &other];
        for (last, right) in [
            (Last::Json(&schema), vec![&json, &marked]),
            (Last::Call(&tools), vec![&call, &turned]),
            (Last::Any(&tools), vec![&json, &text, &call, &turned, &loose]),
        ] {
            let grammar = channels(tokenizer, &last).unwrap();
            let matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(grammar)));
            assert!(!matcher.is_error(), "{:?}", matcher.get_error());
            for answer in all {
                for before in ["".to_string(), thought.to_string(), thought.repeat(2)] {
                    let whole = format!("{before}{answer}");
                    assert_eq!(fits(tokenizer, &matcher, &whole), right.contains(&answer), "{whole}");
                }
            }
            assert!(!fits(tokenizer, &matcher, thought), "a thought is no answer");
            assert!(!fits(tokenizer, &matcher, rome), "nor is what is in no channel");
        }
    }
}
