//! What should not come: requests that are no requests, clients that are too slow, pages of others.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Running, Setup, ask, ask_with};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use server::limits::Limits;

/// Sends bytes and returns all that comes back until the server closes or says nothing for a while.
fn raw(server: &Running, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The server may have answered and closed before all is written.
    let _ = socket.write_all(bytes);
    let mut out = Vec::new();
    let _ = socket.read_to_end(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn requests_of_others_are_refused_before_any_handler() {
    let server = Running::start();
    let request = |headers: &str| format!("GET /v1/models HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
    for (headers, expected) in [
        ("host: localhost\r\n", 200),
        ("host: 127.0.0.1:1\r\n", 200),
        ("host: evil.example\r\n", 421),
        ("host: 0.0.0.0\r\n", 421),
        ("host: localhost\r\norigin: null\r\n", 403),
        ("host: localhost\r\norigin: http://evil.example\r\n", 403),
        ("host: localhost\r\norigin: http://localhost\r\n", 200),
        ("host: localhost\r\nhost: evil.example\r\n", 400),
        ("", 400),
    ] {
        let answer = raw(&server, request(headers).as_bytes());
        assert_eq!(status(&answer), expected, "{headers:?}: {answer}");
        assert!(!answer.to_lowercase().contains("access-control-allow-origin"), "{answer}");
    }
    let answer = raw(&server, request("host: localhost\r\n").as_bytes());
    for header in ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "no-referrer"] {
        assert!(answer.contains(header), "{answer}");
    }
}

#[test]
fn framing_tricks_get_4xx() {
    let server = Running::start();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let long = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(200 << 10));
    for (bytes, name) in [
        (format!("{head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), "both lengths"),
        (format!("{head}content-length: 5\r\ncontent-length: 6\r\n\r\n12345"), "two lengths"),
        (format!("{head}content-length: -1\r\n\r\n"), "a negative length"),
        (format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n"), "no size of a chunk"),
        (format!("{head}content-length: 99999999999\r\n\r\n"), "more than the limit"),
        (long, "long headers"),
        ("GET / HTTP/9.9\r\n\r\n".to_string(), "no version"),
        ("\x16\x03\x01\x02\x00\x01".to_string() + &"\0".repeat(600), "TLS"),
    ] {
        let answer = raw(&server, bytes.as_bytes());
        assert!((400..500).contains(&status(&answer)), "{name}: {answer:?}");
    }
    // A body of one byte a chunk is a body.
    let body = ask("SAY:ok").to_string();
    let chunks: String = body.bytes().map(|byte| format!("1\r\n{}\r\n", byte as char)).collect();
    let bytes = format!("{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunks}0\r\n\r\n");
    let answer = raw(&server, bytes.as_bytes());
    assert!(status(&answer) == 200 && answer.contains("\"content\":\"ok\""), "{answer}");
}

#[tokio::test]
async fn bodies_of_other_kinds_and_sizes() {
    let server = Running::start();
    let url = server.url("/v1/chat/completions");
    let form = server.client.post(&url).header("content-type", "text/plain").body("{}").send().await.unwrap();
    assert_eq!(form.status(), 415);
    let json = |body: String| server.client.post(&url).header("content-type", "application/json").body(body).send();
    let large = json(format!("{{\"x\": \"{}\"}}", "a".repeat(9 << 20))).await;
    // The server may close while the client still writes.
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status() == 413));
    let deep = json(format!("{{\"messages\": {}", "[".repeat(1 << 20))).await.unwrap();
    assert!(deep.status().is_client_error());
    for (path, method, expected) in
        [("/v1/nothing", "POST", 404), ("/v1/chat/completions", "DELETE", 405), ("/x.js", "GET", 404)]
    {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = server.client.request(method, server.url(path)).json(&json!({})).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{path}");
        let error: Value = answer.json().await.unwrap();
        assert!(error["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn slow_clients_are_cut_and_others_served() {
    let limits =
        Limits { header_wait: Duration::from_millis(300), body_wait: Duration::from_millis(300), ..Limits::default() };
    let server = Running::with(Setup { limits, ..Setup::default() });
    let open = |bytes: &'static [u8]| {
        let address = server.address;
        move || {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(bytes).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket
        }
    };
    let head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 1000\r\n\r\n{\"mess";
    let half = std::env::var("FATHOM_SLOW").map_or(100, |count| count.parse::<usize>().unwrap() / 2);
    let mut slow: Vec<TcpStream> = (0..half).map(|_| open(b"GET / HTT")()).collect();
    slow.extend((0..half).map(|_| open(head)()));
    assert_eq!(server.chat(ask("SAY:served")).await["choices"][0]["message"]["content"], "served");
    // Every one of them is closed by the server: a read ends, with an answer or without.
    let closed = tokio::task::spawn_blocking(move || {
        slow.into_iter().all(|mut socket| socket.read_to_end(&mut Vec::new()).is_ok())
    });
    assert!(closed.await.unwrap());
}

#[tokio::test]
async fn readers_that_read_nothing_are_cut() {
    let limits = Limits { write_wait: Duration::from_millis(300), tokens_behind_max: 64, ..Limits::default() };
    let server = Running::with(Setup { limits, ..Setup::default() });
    let body =
        ask_with("noise", json!({"stream": true, "max_tokens": 900, "n": 8, "logprobs": true, "top_logprobs": 20}));
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let sockets: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut socket = TcpStream::connect(server.address).unwrap();
            socket.write_all(head.as_bytes()).unwrap();
            socket
        })
        .collect();
    // Most have begun; the first may be cut before the last begins.
    for _ in 0..400 {
        if server.handle.load().2 >= 8 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.assert_at_rest().await;
    drop(sockets);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let limits = Limits { connections_max: 3, ..Limits::default() };
    let server = Running::with(Setup { limits, ..Setup::default() });
    let held: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    while server.handle.connections() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = raw(&server, b"");
    assert_eq!(status(&answer), 503, "{answer}");
    drop(held);
    while server.handle.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.get("/health").await.0, 200);
}

/// Any JSON, with numbers and texts that tend to break things.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![0i64, 1, -1, 7, 1 << 31, i64::MAX, i64::MIN]).prop_map(Value::from),
        prop::sample::select(vec![0.5, -0.0, 1e308, -1e308, 1e-320]).prop_map(Value::from),
        Just(Value::from(u64::MAX)),
        "[a-z<|>/\\\\\"\u{0}é]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(FIELDS.to_vec()), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_string(), v)).collect())),
        ]
    })
}

const FIELDS: [&str; 40] = [
    "model",
    "messages",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "logprobs",
    "top_logprobs",
    "response_format",
    "tools",
    "tool_choice",
    "thinking",
    "reasoning_effort",
    "chat_template_kwargs",
    "prompt",
    "suffix",
    "echo",
    "best_of",
    "role",
    "content",
    "type",
    "function",
    "name",
    "parameters",
    "schema",
    "json_schema",
    "prefix",
    "text",
    "tool_calls",
];

/// A good request with some fields replaced: near enough to get far.
fn nearly_good() -> impl Strategy<Value = Value> {
    prop::collection::vec((prop::sample::select(FIELDS.to_vec()), any_json()), 1..4).prop_map(|pairs| {
        let mut request = json!({
            "messages": [{"role": "user", "content": "x"}], "prompt": "x", "max_tokens": 2,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        });
        // Fields of the message first: the messages themselves may be replaced afterwards.
        let inside = |name: &str| ["role", "content", "prefix", "tool_calls"].contains(&name);
        let (inner, outer): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(name, _)| inside(name));
        for (name, value) in inner {
            request["messages"][0][name] = value;
        }
        for (name, value) in outer {
            request[name] = value;
        }
        request
    })
}

#[tokio::test]
async fn malformed_requests_never_get_5xx() {
    let cases = std::env::var("FATHOM_MALFORMED").ok().map_or(1500, |cases| cases.parse().unwrap());
    let server = Running::start();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let strategy = prop_oneof![any_json(), nearly_good(), nearly_good()];
    let paths = [
        "/v1/chat/completions",
        "/v1/completions",
        "/api/tokenize",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
        "/v1/embeddings",
    ];
    let mut seen = [0usize; 6];
    for case in 0..cases {
        let body = strategy.new_tree(&mut runner).unwrap().current().to_string();
        // Now and then broken as JSON too.
        let cut = if case % 11 == 0 { body.floor_char_boundary(body.len() / 2) } else { body.len() };
        let request =
            server.client.post(server.url(paths[case % paths.len()])).header("content-type", "application/json");
        let response = request.body(body[..cut].to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        assert!(status < 500, "{status} for {}: {text}", &body[..cut]);
        if status >= 400 {
            let error: Value = serde_json::from_str(&text).unwrap();
            assert!(error["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{text}");
        }
        seen[status as usize / 100] += 1;
    }
    println!("{cases} requests: {} answered 4xx with a JSON error, {} were good by chance", seen[4], seen[2]);
    assert!(seen[4] > cases / 2 && seen[2] > 0 && seen[4] + seen[2] == cases, "{seen:?}");
    server.assert_at_rest().await;
    assert_eq!(server.chat(ask("SAY:alive")).await["choices"][0]["message"]["content"], "alive");
}
