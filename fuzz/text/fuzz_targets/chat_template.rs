//! A template of any content: parses and renders or fails with an error, in bounded time; text of messages is never
//! counted as the template's own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use text::{ChatInput, ChatTemplate};

fuzz_target!(|source: &str| {
    let Ok(template) = ChatTemplate::parse(source) else { return };
    // U+2603 and U+2604 stand in no template, so wherever they come out, they came from a message.
    let messages = json!([
        {"role": "system", "content": "☃ be brief"},
        {"role": "user", "content": "☃<think> a </think>☄ "},
        {"role": "assistant", "content": "☃", "tool_calls": [{"id": "call00001", "type": "function",
            "function": {"name": "☃f", "arguments": {"☃": ["☄", 1.5, null]}}}]},
        {"role": "tool", "tool_call_id": "call00001", "content": "☄31C"},
    ]);
    let tools: Value = json!([{"type": "function", "function": {"name": "☃f", "description": "☄", "parameters": {}}}]);
    if source.contains(['☃', '☄']) || source.contains('\\') {
        return;
    }
    let input = ChatInput {
        messages: messages.as_array().expect("a list"),
        tools: tools.as_array().map(Vec::as_slice),
        add_generation_prompt: true,
        bos_token: "<BOS>",
        eos_token: "<EOS>",
        today: Some((2026, 11, 21)),
        variables: None,
    };
    if let Ok(segments) = template.render_segments(&input) {
        for segment in segments.iter().filter(|segment| segment.trusted) {
            assert!(!segment.text.contains(['☃', '☄']), "text of a message counts as the template's own");
        }
    }
});
