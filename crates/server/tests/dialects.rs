//! The other protocols: plain completions, Anthropic's messages, OpenAI's responses; and a client of others.

mod common;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::CreateChatCompletionRequest;
use async_openai::types::embeddings::CreateEmbeddingRequest;
use common::{Running, ask, ask_with};
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
        (json!({"prompt": "x", "logprobs": 21}), "logprobs"),
        (json!({"prompt": "x", "max_tokens": 0}), "max_tokens"),
        (json!({"prompt": "x", "echo": true, "suffix": "y"}), "echo"),
        (json!({"prompt": "x", "best_of": 3}), "best_of"),
        (json!({"prompt": vec!["x"; 65]}), "prompt"),
    ] {
        let (status, error) = server.post("/v1/completions", &body).await;
        assert_eq!((status, error["error"]["param"].as_str()), (422, Some(param)), "{error}");
    }
    server.assert_at_rest().await;
}

#[tokio::test]
async fn an_echo_tells_the_log_probabilities_of_the_prompt() {
    let server = Running::start();
    let text = "a prompt that is long enough to have pages of its own ".repeat(8);
    let fields = |more: Value| {
        let mut body = json!({"prompt": [text, "ab"], "max_tokens": 5, "echo": true, "logprobs": 2, "n": 2});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let (status, whole) = server.post("/v1/completions", &fields(json!({}))).await;
    assert_eq!(status, 200, "{whole}");
    let plain = fields(json!({"echo": false}));
    let (_, answers) = server.post("/v1/completions", &plain).await;
    let list = |choice: &Value, name: &str| choice["logprobs"][name].as_array().unwrap().clone();
    for (i, (choice, answer)) in
        whole["choices"].as_array().unwrap().iter().zip(answers["choices"].as_array().unwrap()).enumerate()
    {
        let (tokens, offsets) = (list(choice, "tokens"), list(choice, "text_offset"));
        let prompt = tokens.len() - 5;
        let said: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
        assert_eq!(choice["text"], json!(said), "choice {i}");
        // The answer is the one that there is without an echo, to the bit.
        assert_eq!(list(choice, "token_logprobs")[prompt..], list(answer, "token_logprobs"), "choice {i}");
        assert!(said.ends_with(answer["text"].as_str().unwrap()));
        for (token, offset) in tokens.iter().zip(&offsets) {
            let from: String = said.chars().skip(offset.as_u64().unwrap() as usize).collect();
            assert!(from.starts_with(token.as_str().unwrap()), "{token} at {offset}");
        }
        let logprobs = list(choice, "token_logprobs");
        assert!(logprobs[0].is_null() && list(choice, "top_logprobs")[0].is_null(), "nothing stands before the first");
        assert!(logprobs[1..].iter().all(|logprob| logprob.as_f64().unwrap() <= 0.0));
        let tops = list(choice, "top_logprobs");
        for ((token, logprob), top) in tokens.iter().zip(&logprobs).zip(tops).skip(1) {
            assert_eq!(&top[token.as_str().unwrap()], logprob, "the token itself is among them");
        }
    }
    // What a token of a prompt is worth is what it is worth as an answer to those before it.
    let (_, tokens) = server.post("/api/tokenize", &json!({"text": text})).await;
    let tokens = tokens["tokens"].as_array().unwrap();
    let body = json!({"prompt": tokens, "max_tokens": 0, "echo": true, "logprobs": 0});
    let (_, scored) = server.post("/v1/completions", &body).await;
    let choice = &scored["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["text"]), (&json!("length"), &json!(text)));
    let usage = &scored["usage"];
    assert_eq!((&usage["completion_tokens"], &usage["prompt_tokens"]), (&json!(0), &json!(tokens.len())));
    for place in [1, 2, 7, 70, tokens.len() - 1] {
        let bias = json!({tokens[place].to_string(): 100});
        let body = json!({"prompt": tokens[..place], "max_tokens": 1, "logit_bias": bias, "logprobs": 0});
        let (_, told) = server.post("/v1/completions", &body).await;
        let told = &told["choices"][0]["logprobs"];
        assert_eq!(told["tokens"][0], choice["logprobs"]["tokens"][place]);
        assert_eq!(told["token_logprobs"][0], choice["logprobs"]["token_logprobs"][place], "token {place}");
    }
    // A stream says the same.
    let mut put = vec![(String::new(), Vec::new()); 4];
    for event in server.stream("/v1/completions", &fields(json!({"stream": true}))).await {
        let Ok(chunk) = serde_json::from_str::<Value>(&event) else { continue };
        let choice = &chunk["choices"][0];
        let (text, logprobs) = &mut put[choice["index"].as_u64().unwrap() as usize];
        text.push_str(choice["text"].as_str().unwrap());
        logprobs.extend(choice["logprobs"]["token_logprobs"].as_array().into_iter().flatten().cloned());
    }
    for (choice, (text, logprobs)) in whole["choices"].as_array().unwrap().iter().zip(put) {
        assert_eq!((&choice["text"], list(choice, "token_logprobs")), (&json!(text), logprobs));
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
        json!([
            {"type": "thinking", "thinking": "hm", "signature": answer["id"]},
            {"type": "text", "text": "Yes."},
        ])
    );
    assert_eq!((&answer["type"], &answer["stop_reason"]), (&json!("message"), &json!("end_turn")));
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = named(&server, "/anthropic/v1/messages", &streamed).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    // Anthropic's order: each block begins, grows and ends before the next, thinking with its signature.
    let mut order = names.clone();
    order.dedup();
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let expected = [&["message_start"][..], &block, &block, &["message_delta", "message_stop"]].concat();
    assert_eq!(order, expected);
    let signed = events.iter().position(|(_, data)| data["delta"]["type"] == "signature_delta").unwrap();
    let stops: Vec<usize> = (0..events.len()).filter(|&i| names[i] == "content_block_stop").collect();
    assert_eq!((signed + 1, &events[signed].1["index"]), (stops[0], &json!(0)));
    assert_eq!(events[signed].1["delta"]["signature"], events[0].1["message"]["id"]);
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
    for body in [
        json!({"messages": [{"role": "user", "content": "x"}]}),
        json!({"max_tokens": 5, "messages": [{"role": "king", "content": "x"}]}),
        json!({"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "image"}]}]}),
        json!({"max_tokens": 5, "model": "gpt-9", "messages": [{"role": "user", "content": "x"}]}),
    ] {
        let (status, error) = server.post("/v1/messages", &body).await;
        assert_eq!(
            (status, &error["type"], error["error"]["type"].as_str()),
            (400, &json!("error"), Some("invalid_request_error"))
        );
    }
    server.assert_at_rest().await;
}

#[tokio::test]
async fn anthropics_switches_count_and_force() {
    let server = Running::start();
    let with = |more: Value| {
        let mut body = json!({"max_tokens": 120, "messages": [{"role": "user", "content": "SAY:Plain."}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let input =
        |usage: &Value| usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    // What is counted is what is computed, whatever is switched.
    let tools = json!([{"name": "f", "description": "F", "input_schema": {"type": "object"}}]);
    let mut counts = Vec::new();
    for more in [
        json!({}),
        json!({"thinking": {"type": "disabled"}}),
        json!({"tools": tools}),
        json!({"tools": tools, "tool_choice": {"type": "none"}}),
        json!({"system": [{"type": "text", "text": "Be brief."}]}),
    ] {
        let (status, answer) = server.post("/v1/messages", &with(more.clone())).await;
        assert_eq!((status, &answer["content"][0]["text"]), (200, &json!("Plain.")), "{more}: {answer}");
        let (_, counted) = server.post("/anthropic/v1/messages/count_tokens", &with(more.clone())).await;
        assert_eq!(counted["input_tokens"], input(&answer["usage"]), "{more}");
        counts.push(input(&answer["usage"]));
    }
    assert!(counts[1] > counts[0] && counts[2] > counts[0] && counts[3] == counts[0] && counts[4] > counts[0]);
    // A budget ends the thinking.
    let say = json!([{"role": "user", "content": "SAY:<think>\none two three four five six seven\n</think>\n\nDone."}]);
    let thinking = json!({"type": "enabled", "budget_tokens": 4});
    let (_, answer) = server.post("/v1/messages", &with(json!({"messages": say, "thinking": thinking}))).await;
    assert_eq!(answer["content"][0]["type"], "thinking");
    let (_, free) = server.post("/v1/messages", &with(json!({"messages": say}))).await;
    let length = |answer: &Value| answer["content"][0]["thinking"].as_str().unwrap().len();
    assert!(length(&answer) < length(&free), "{answer}");
    // The form of an answer, and one call where the model would make two.
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
                        "required": ["n"], "additionalProperties": false});
    let format = json!({"format": {"type": "json_schema", "schema": schema}});
    let noise = json!([{"role": "user", "content": "noise"}]);
    let (_, answer) = server.post("/v1/messages", &with(json!({"messages": noise, "output_config": format}))).await;
    let value: Value = serde_json::from_str(answer["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!((0..=9).contains(&value["n"].as_i64().unwrap()), "{answer}");
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    let twice = json!([{"role": "user", "content": format!("SAY:{call}\n{call} and more")}]);
    for (one, calls) in [(false, 2), (true, 1)] {
        let choice = json!({"type": "auto", "disable_parallel_tool_use": one});
        let body = with(json!({"messages": twice, "tools": tools, "tool_choice": choice}));
        let (_, answer) = server.post("/v1/messages", &body).await;
        let blocks = answer["content"].as_array().unwrap();
        assert_eq!(blocks.iter().filter(|block| block["type"] == "tool_use").count(), calls, "{answer}");
        assert_eq!(answer["stop_reason"], "tool_use");
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
    // A response says what it was asked for.
    let body = json!({"input": "SAY:x", "tools": tools, "tool_choice": "none", "temperature": 0.5, "top_p": 0.9,
        "max_output_tokens": 40, "instructions": "Be brief.", "metadata": {"a": "b"}, "parallel_tool_calls": false,
        "reasoning": {"effort": "none"}});
    let (_, answer) = server.post("/v1/responses", &body).await;
    for field in ["tool_choice", "top_p", "temperature", "max_output_tokens", "instructions", "metadata"] {
        match (answer[field].as_f64(), body[field].as_f64()) {
            (Some(said), Some(asked)) => assert!((said - asked).abs() < 1e-6, "{field}"),
            _ => assert_eq!(answer[field], body[field], "{field}"),
        }
    }
    assert_eq!((&answer["tools"][0]["name"], &answer["reasoning"]["effort"]), (&json!("f"), &json!("none")));
    assert_eq!((&answer["parallel_tool_calls"], &answer["text"]["format"]["type"]), (&json!(false), &json!("text")));
    server.assert_at_rest().await;
}

#[tokio::test]
async fn responses_that_are_kept() {
    let server = Running::start();
    let said = |answer: &Value| answer["output"].as_array().unwrap().last().unwrap()["content"][0]["text"].clone();
    // Nothing is kept unless the request says so.
    let (_, first) = server.post("/v1/responses", &json!({"input": THINK})).await;
    assert_eq!(first["store"], false);
    let id = first["id"].as_str().unwrap();
    let (status, error) = server.post("/v1/responses", &json!({"input": "x", "previous_response_id": id})).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("previous_response_not_found")));
    // One that is kept is gone on with, as if its conversation were sent again.
    let input = json!([{"role": "user", "content": THINK}]);
    let (_, first) = server.post("/v1/responses", &json!({"input": input, "store": true})).await;
    let id = first["id"].as_str().unwrap();
    let path = format!("/v1/responses/{id}");
    assert_eq!((&first["store"], server.get(&path).await), (&json!(true), (200, first.clone())));
    let next = json!({"input": "SAY:Second", "previous_response_id": id, "store": true, "stream": true});
    let events = named(&server, "/v1/responses", &next).await;
    let second = &events.last().unwrap().1["response"];
    assert_eq!((said(second), &second["previous_response_id"]), (json!("Second"), &json!(id)));
    let mut items = vec![input[0].clone()];
    items.extend(first["output"].as_array().unwrap().clone());
    items.push(json!({"role": "user", "content": "SAY:Second"}));
    let (_, whole) = server.post("/v1/responses", &json!({"input": items})).await;
    assert_eq!(whole["usage"]["input_tokens"], second["usage"]["input_tokens"], "the same prompt");
    let path_of_second = format!("/v1/responses/{}", second["id"].as_str().unwrap());
    let (_, list) = server.get(&format!("{path_of_second}/input_items")).await;
    let roles: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|item| &item["role"]).collect();
    assert_eq!(roles, [&json!("user"), &Value::Null, &json!("assistant"), &json!("user")], "{list}");
    // Deleted, it is gone; what went on with it is not.
    let deleted = server.client.delete(server.url(&path)).send().await.unwrap();
    assert_eq!(deleted.json::<Value>().await.unwrap()["deleted"], true);
    assert_eq!((server.get(&path).await.0, server.get(&path_of_second).await.0), (404, 200));
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
    // A tool is called, and its answer comes back.
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let say = "SAY:<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";
    let request: CreateChatCompletionRequest = serde_json::from_value(ask_with(say, json!({"tools": tools}))).unwrap();
    let message = client.chat().create(request).await.unwrap().choices.remove(0).message;
    let calls = serde_json::to_value(message.tool_calls.unwrap()).unwrap();
    assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": "{\"a\":1}"}));
    let messages = json!([{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": "42"}, {"role": "user", "content": "SAY:Good."}]);
    let request = json!({"model": "stub", "messages": messages, "tools": tools});
    let request: CreateChatCompletionRequest = serde_json::from_value(request).unwrap();
    assert_eq!(client.chat().create(request).await.unwrap().choices[0].message.content.as_deref(), Some("Good."));
    // A form that is forced.
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
                        "required": ["n"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}});
    let request = ask_with("noise", json!({"response_format": format}));
    let request: CreateChatCompletionRequest = serde_json::from_value(request).unwrap();
    let content = client.chat().create(request).await.unwrap().choices.remove(0).message.content.unwrap();
    let value: Value = serde_json::from_str(&content).unwrap();
    assert!((0..=9).contains(&value["n"].as_i64().unwrap()), "{content}");
    // Vectors.
    let request = json!({"model": "stub", "input": ["one text", "another"]});
    let request: CreateEmbeddingRequest = serde_json::from_value(request).unwrap();
    let vectors = client.embeddings().create(request).await.unwrap();
    let length = |vector: &[f32]| vector.iter().map(|v| v * v).sum::<f32>();
    assert!(vectors.data.len() == 2 && vectors.data.iter().all(|v| (length(&v.embedding) - 1.0).abs() < 1e-5));
    // Errors are the client's own.
    let wrong: CreateChatCompletionRequest = serde_json::from_value(json!({"model": "none", "messages": []})).unwrap();
    assert!(client.chat().create(wrong).await.unwrap_err().to_string().contains("Model Not Exist"));
}
