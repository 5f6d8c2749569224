//! The other protocols: plain completions, Anthropic's messages, OpenAI's responses; and a client of others.

mod common;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::CreateChatCompletionRequest;
use common::{Running, ask};
use futures_util::StreamExt;
use serde_json::{Value, json};

/// The named events of a stream.
async fn named(server: &Running, path: &str, body: &Value) -> Vec<(String, Value)> {
    let response = server.client.post(server.url(path)).json(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    let events = text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
    let parsed = events.map(|event| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        let name = name.strip_prefix("event: ").unwrap();
        assert_eq!(data["type"], name);
        (name.to_string(), data)
    });
    parsed.collect()
}

const THINK: &str = "SAY:<think>\nhm\n</think>\n\nYes.";

#[tokio::test]
async fn plain_completions_go_on_with_text() {
    let server = Running::start();
    for (prompt, answers) in
        [(json!("Once upon"), 1), (json!(["a", "b"]), 2), (json!([10, 11, 12]), 1), (json!([[10, 11], [12]]), 2)]
    {
        let body = json!({"prompt": prompt, "max_tokens": 8, "n": 2, "temperature": 1.0, "seed": 1, "logprobs": 2});
        let (status, whole) = server.post("/v1/completions", &body).await;
        assert_eq!(status, 200, "{whole}");
        let choices = whole["choices"].as_array().unwrap();
        assert_eq!(choices.len(), answers * 2, "{prompt}");
        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        let mut texts = vec![String::new(); choices.len()];
        for event in server.stream("/v1/completions", &streamed).await {
            let Ok(chunk) = serde_json::from_str::<Value>(&event) else { continue };
            let choice = &chunk["choices"][0];
            texts[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
        }
        for (choice, text) in choices.iter().zip(texts) {
            assert_eq!(choice["text"], text);
            assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), 8);
            assert_eq!(choice["finish_reason"], "length");
        }
    }
    let (_, echo) = server.post("/v1/completions", &json!({"prompt": "abc", "echo": true, "max_tokens": 1})).await;
    assert!(echo["choices"][0]["text"].as_str().unwrap().starts_with("abc"));
    for (body, param) in [
        (json!({"prompt": "x", "suffix": "y"}), "suffix"),
        (json!({"prompt": [[]]}), "prompt"),
        (json!({"prompt": [400]}), "prompt"),
        (json!({"prompt": "x", "logprobs": 6}), "logprobs"),
        (json!({"prompt": "x", "best_of": 3}), "best_of"),
        (json!({"prompt": vec!["x"; 65]}), "prompt"),
    ] {
        let (status, error) = server.post("/v1/completions", &body).await;
        assert_eq!((status, error["error"]["param"].as_str()), (422, Some(param)), "{error}");
    }
    server.assert_at_rest().await;
}

#[tokio::test]
async fn anthropics_messages() {
    let server = Running::start();
    let body = json!({"model": "claude-sonnet-4", "max_tokens": 100, "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": THINK}]}]});
    let (status, answer) = server.post("/v1/messages", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["content"],
        json!([{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "Yes."}])
    );
    assert_eq!((&answer["type"], &answer["stop_reason"]), (&json!("message"), &json!("end_turn")));
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = named(&server, "/anthropic/v1/messages", &streamed).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names[0], names[names.len() - 1]), ("message_start", "message_stop"));
    assert!(events[0].1["message"]["usage"]["input_tokens"].as_u64().unwrap() > 0);
    let text = |field: &str| {
        let deltas = events.iter().filter_map(|(_, data)| data["delta"][field].as_str());
        deltas.collect::<String>()
    };
    assert_eq!((text("thinking"), text("text")), ("hm".to_string(), "Yes.".to_string()));
    let (_, counted) = server.post("/v1/messages/count_tokens", &body).await;
    let usage = &answer["usage"];
    let input = usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert_eq!(counted["input_tokens"], input);
    // Tools, and their answers.
    let call = "SAY:<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";
    let tools = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    let body = json!({"max_tokens": 100, "tools": tools, "messages": [{"role": "user", "content": call}]});
    let (_, answer) = server.post("/v1/messages", &body).await;
    let block = &answer["content"][0];
    assert_eq!(
        (&block["type"], &block["input"], &answer["stop_reason"]),
        (&json!("tool_use"), &json!({"a": 1}), &json!("tool_use"))
    );
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = named(&server, "/v1/messages", &streamed).await;
    let arguments: String = events.iter().filter_map(|(_, data)| data["delta"]["partial_json"].as_str()).collect();
    assert_eq!(arguments, "{\"a\":1}");
    let body = json!({"max_tokens": 50, "tools": tools, "messages": [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, block]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block["id"], "content": "42"},
                                     {"type": "text", "text": "SAY:Got it."}]},
    ]});
    assert_eq!(server.post("/v1/messages", &body).await.1["content"][0]["text"], "Got it.");
    for (body, status) in [
        (json!({"messages": [{"role": "user", "content": "x"}]}), 422),
        (json!({"max_tokens": 5, "messages": [{"role": "king", "content": "x"}]}), 422),
        (json!({"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "image"}]}]}), 422),
        (json!({"max_tokens": 5, "model": "gpt-9", "messages": [{"role": "user", "content": "x"}]}), 400),
    ] {
        let (got, error) = server.post("/v1/messages", &body).await;
        assert_eq!(
            (got, &error["type"], error["error"]["type"].as_str()),
            (status, &json!("error"), Some("invalid_request_error"))
        );
    }
    server.assert_at_rest().await;
}

#[tokio::test]
async fn openais_responses() {
    let server = Running::start();
    let body = json!({"model": "stub", "instructions": "Be brief.", "input": THINK});
    let (status, answer) = server.post("/v1/responses", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["object"], &answer["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(answer["output"][0]["content"][0]["text"], "hm");
    assert_eq!(answer["output"][1]["content"][0]["text"], "Yes.");
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = named(&server, "/v1/responses", &streamed).await;
    for (i, (_, data)) in events.iter().enumerate() {
        assert_eq!(data["sequence_number"], i);
    }
    let deltas: String = events
        .iter()
        .filter(|(name, _)| name == "response.output_text.delta")
        .map(|(_, data)| data["delta"].as_str().unwrap())
        .collect();
    let (last, data) = events.last().unwrap();
    assert_eq!((deltas.as_str(), last.as_str()), ("Yes.", "response.completed"));
    let texts = |value: &Value| -> Vec<Value> {
        value["output"].as_array().unwrap().iter().map(|item| item["content"].clone()).collect()
    };
    assert_eq!(texts(&data["response"]), texts(&answer));
    let call = "SAY:<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object"}}]);
    let (_, called) = server.post("/v1/responses", &json!({"input": call, "tools": tools})).await;
    let item = called["output"][0].clone();
    assert_eq!((&item["type"], &item["arguments"]), (&json!("function_call"), &json!("{}")));
    let input = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "go"}]},
        item,
        {"type": "function_call_output", "call_id": item["call_id"], "output": "42"},
        {"role": "user", "content": "SAY:Got it."},
    ]);
    let (_, answer) = server.post("/v1/responses", &json!({"input": input, "tools": tools})).await;
    assert_eq!(answer["output"][0]["content"][0]["text"], "Got it.", "{answer}");
    let (status, _) = server.post("/v1/responses", &json!({"input": "x", "previous_response_id": "resp_1"})).await;
    assert_eq!(status, 422);
    server.assert_at_rest().await;
}

#[tokio::test]
async fn async_openai_talks_to_it_unchanged() {
    let server = Running::start();
    let config = OpenAIConfig::new().with_api_base(server.url("/v1")).with_api_key("none");
    let client = Client::with_config(config).with_http_client(server.client.clone());
    let request: CreateChatCompletionRequest = serde_json::from_value(ask("SAY:Hello there")).unwrap();
    let answer = client.chat().create(request.clone()).await.unwrap();
    assert_eq!(answer.choices[0].message.content.as_deref(), Some("Hello there"));
    assert!(answer.usage.unwrap().total_tokens > 0);
    let mut stream = client.chat().create_stream(request).await.unwrap();
    let mut text = String::new();
    while let Some(chunk) = stream.next().await {
        text += chunk.unwrap().choices[0].delta.content.as_deref().unwrap_or_default();
    }
    assert_eq!(text, "Hello there");
    let wrong: CreateChatCompletionRequest = serde_json::from_value(json!({"model": "none", "messages": []})).unwrap();
    assert!(client.chat().create(wrong).await.unwrap_err().to_string().contains("Model Not Exist"));
}
