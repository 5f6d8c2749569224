//! What the server tells of its model, and what a rule says about the model's answers.

mod common;

use common::{Kind, Running, Setup, VECTOR_LEN, ask, ask_with, curve};
use serde_json::{Value, json};

/// The verdict on an answer to a question, whole and streamed.
async fn verdict(server: &Running, question: &str, answer: &str, fields: Value) -> Value {
    let messages = json!([
        {"role": "system", "content": format!("SAY:{answer}::END")},
        {"role": "user", "content": question},
    ]);
    let mut body = json!({"model": "stub", "messages": messages, "max_tokens": 40});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let whole = server.chat(body.clone()).await["fathom"]["verdict"].clone();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let events = server.stream("/v1/chat/completions", &body).await;
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!(last["fathom"]["verdict"], whole, "streamed and whole");
    whole
}

#[tokio::test]
async fn answers_to_puzzles_and_sums_are_checked() {
    let server = Running::start();
    let puzzle = "Make 43 from 4, 10 and 49.";
    let right = verdict(&server, puzzle, "<think>\n49-10=39\n</think>\n\n49-10+4", json!({})).await;
    let detail = json!({"en": "49-10+4 = 43", "ar": "49-10+4 = 43"});
    assert_eq!(right, json!({"task": "countdown", "ok": true, "detail": detail}));
    // What stands in the reasoning does not count, nor does half of an answer.
    let wrong = verdict(&server, puzzle, "<think>\n49-10+4\n</think>\n\n49-10-4", json!({})).await;
    assert_eq!((&wrong["ok"], &wrong["detail"]["en"]), (&json!(false), &json!("49-10-4 = 35, not 43")));
    let open = verdict(&server, puzzle, "<think>\n49-10+4", json!({"max_tokens": 3})).await;
    assert_eq!(open["ok"], false);
    let arabic = verdict(&server, "احسب 84*32.", "2688", json!({})).await;
    assert_eq!((&arabic["task"], &arabic["ok"]), (&json!("arithmetic"), &json!(true)));
}

#[tokio::test]
async fn what_no_rule_can_check_has_no_verdict() {
    let server = Running::start();
    for (question, fields) in [
        ("Who are you?", json!({})),
        ("Find 84*32. Then tell a story.", json!({})),
        ("Find 84*32.", json!({"n": 2})),
        ("Find 84*32.", json!({"response_format": {"type": "json_object"}})),
    ] {
        assert_eq!(verdict(&server, question, "2688", fields).await, Value::Null, "{question}");
    }
    let messages = json!([
        {"role": "system", "content": "SAY:88::END"},
        {"role": "user", "content": "Find 84*32."},
        {"role": "assistant", "content": "26", "prefix": true},
    ]);
    let answer = server.chat(json!({"messages": messages, "max_tokens": 1})).await;
    assert_eq!(answer["fathom"]["verdict"]["detail"]["en"], "84*32 = 2688", "{answer}");
}

#[tokio::test]
async fn the_model_is_described() {
    let server = Running::start();
    let info = server.get("/api/info").await.1;
    let model = &info["models"][0];
    assert_eq!(model["built_in"], false);
    assert_eq!(model["budget_curve"], serde_json::to_value(curve()).unwrap());
    assert_eq!(model["budget_curve"]["points"], json!([[64, 0.25], [256, 0.5]]));
}

#[tokio::test]
async fn texts_become_vectors_of_length_one() {
    let server = Running::start();
    let (status, answer) = server.post("/v1/embeddings", &json!({"input": ["one text", "two", "one text"]})).await;
    assert_eq!(status, 200, "{answer}");
    let vector = |i: usize| -> Vec<f64> { serde_json::from_value(answer["data"][i]["embedding"].clone()).unwrap() };
    assert_eq!((&answer["data"][2]["index"], &answer["data"][2]["object"]), (&json!(2), &json!("embedding")));
    assert!(vector(0) == vector(2) && vector(0) != vector(1) && vector(0).len() == VECTOR_LEN);
    assert!((vector(1).iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-5);
    let (_, counted) = server.post("/api/tokenize", &json!({"text": "one text"})).await;
    let (_, single) = server.post("/v1/embeddings", &json!({"input": "one text", "encoding_format": "base64"})).await;
    let usage = &single["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["total_tokens"]), (&counted["count"], &counted["count"]));
    assert_eq!(usage["completion_tokens"], 0);
    assert_eq!(single["data"][0]["embedding"].as_str().unwrap().len(), (VECTOR_LEN * 4).div_ceil(3) * 4);
    let tokens = server.post("/embeddings", &json!({"input": counted["tokens"]})).await.1;
    assert_eq!(tokens["data"][0]["embedding"], answer["data"][0]["embedding"]);
    // Longer than a chunk and a page.
    let long = server.post("/v1/embeddings", &json!({"input": "words ".repeat(60)})).await;
    assert_eq!(long.0, 200);
    let (_, report) = server.get("/api/usage").await;
    assert_eq!(report["total"]["requests"], 4, "every request is in the ledger");
    server.assert_at_rest().await;
}

#[tokio::test]
async fn embeddings_that_cannot_be_made_are_refused_with_the_field() {
    let server = Running::start();
    let many = vec!["x"; 65];
    for (body, status, param) in [
        (json!({"input": []}), 422, "input"),
        (json!({"input": [""]}), 400, "input"),
        (json!({"input": many}), 422, "input"),
        (json!({"input": [[1, 99_999]]}), 422, "prompt"),
        (json!({"input": "long words ".repeat(2000)}), 400, "input"),
        (json!({"input": "x", "dimensions": 5}), 422, "dimensions"),
        (json!({"input": "x", "model": "other"}), 400, "model"),
        (json!({"input": "x", "encoding_format": "int8"}), 422, "encoding_format"),
        (json!({"input": {"a": 1}}), 422, "input"),
        (json!({}), 422, ""),
    ] {
        let (found, error) = server.post("/v1/embeddings", &body).await;
        assert_eq!(found, status, "{error}");
        let named = error["error"]["param"].as_str().unwrap_or_default();
        assert!(named == param || param.is_empty(), "{error}");
    }
    server.assert_at_rest().await;
}

#[tokio::test]
async fn several_answers_share_the_pages_of_their_prompt() {
    let server = Running::start();
    let messages = json!([{"role": "user", "content": "a long prompt of many words ".repeat(20)}]);
    let fields =
        |n: u32, seed: u64| json!({"messages": messages, "n": n, "seed": seed, "temperature": 1.0, "max_tokens": 9});
    let together = server.chat(fields(4, 10)).await;
    let prompt = together["usage"]["prompt_tokens"].as_u64().unwrap();
    let rows = || async {
        let text = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with("fathom_engine_rows_total")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let computed = rows().await;
    let tail = prompt % 64 + 64;
    assert!(prompt > 200 && computed < prompt + 4 * (tail + 9), "{computed} rows for a prompt of {prompt}");
    for i in 0..4 {
        let alone = server.chat(fields(1, 10 + i)).await;
        assert_eq!(alone["choices"][0]["message"], together["choices"][i as usize]["message"], "answer {i}");
    }
}

#[tokio::test]
async fn gaps_are_filled_where_the_model_has_the_tokens() {
    let server = Running::with(Setup { kind: Kind::Fill, ..Setup::default() });
    let (_, info) = server.get("/api/info").await;
    assert_eq!(info["models"][0]["fill_in_the_middle"], true);
    for path in ["/beta/completions", "/v1/completions"] {
        let body = json!({"prompt": "fn add(a) {", "suffix": "}\n", "max_tokens": 40, "temperature": 0});
        let (status, answer) = server.post(path, &body).await;
        assert_eq!((status, &answer["choices"][0]["text"]), (200, &json!("[fn add(a) {|}\n]")), "{answer}");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
    // What a user writes is text, not a marker of the gap.
    let body = json!({"prompt": "a<｜fim▁hole｜>b", "suffix": "c", "max_tokens": 60, "temperature": 0});
    let (_, answer) = server.post("/beta/completions", &body).await;
    assert_eq!(answer["choices"][0]["text"], "[a<｜fim▁hole｜>b|c]");
    let plain = Running::start();
    let (status, error) = plain.post("/beta/completions", &json!({"prompt": "a", "suffix": "b"})).await;
    assert_eq!((status, &error["error"]["param"]), (422, &json!("suffix")));
}

#[tokio::test]
async fn forms_are_kept_in_channels() {
    let server = Running::with(Setup { kind: Kind::Channels, ..Setup::default() });
    let thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant";
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
                        "required": ["n"], "additionalProperties": false});
    let function = json!({"name": "f", "parameters": schema, "strict": true});
    let tools = json!([{"type": "function", "function": function}]);
    let digit = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text:?} is JSON"));
        (0..=9).contains(&value["n"].as_i64().unwrap())
    };
    // Without a form the answer is what the model says.
    let text = format!("SAY:{thought}<|channel|>final<|message|>Yes.");
    let answer = server.chat(ask(&text)).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("hm"), &json!("Yes.")));
    // A schema: the model begins another answer than it may give.
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let text = format!("SAY:{thought}<|channel|>final<|message|>{{\"n\": 12}}");
    let answer = server.chat(ask_with(&text, json!({"response_format": format}))).await;
    let message = &answer["choices"][0]["message"];
    assert!(digit(message["content"].as_str().unwrap()), "{answer}");
    assert_eq!(message["reasoning_content"], "hm");
    // Strict tools, called by choice or by force.
    let call = "<|channel|>commentary to=functions.f json<|message|>{\"n\": 12}";
    let turned = " to=functions.f<|channel|>commentary json<|message|>{\"n\": 12}";
    let said = "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant";
    for (choice, text) in [("auto", format!("{said}{call}")), ("required", call.into()), ("auto", turned.into())] {
        let text = format!("SAY:{thought}{text}");
        let answer = server.chat(ask_with(&text, json!({"tools": tools, "tool_choice": choice}))).await;
        let (choice, message) = (&answer["choices"][0], &answer["choices"][0]["message"]);
        assert_eq!((&choice["finish_reason"], &message["reasoning_content"]), (&json!("tool_calls"), &json!("hm")));
        let call = &message["tool_calls"][0]["function"];
        assert!(call["name"] == "f" && digit(call["arguments"].as_str().unwrap()), "{answer}");
        assert_eq!(message["tool_calls"].as_array().unwrap().len(), 1, "{answer}");
        assert_eq!(message["content"] == "Let me see.", text.contains("Let me see."), "{answer}");
    }
    // No form for an answer that has begun.
    let prefix = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "So", "prefix": true}]);
    let body = json!({"messages": prefix, "response_format": {"type": "json_object"}});
    let (status, answer) = server.post("/v1/chat/completions", &body).await;
    assert_eq!((status, &answer["error"]["param"]), (422, &json!("response_format")), "{answer}");
    server.assert_at_rest().await;
}
