//! Keys, balances, usage and stored chats over real sockets.

mod common;

use std::sync::Arc;

use common::{Running, Setup, ask, ask_with};
use serde_json::{Value, json};
use server::store::keys::NewKey;
use server::store::ledger::{Prices, money, parse_money};

/// DeepSeek's prices of 2025, with a balance.
fn priced(name: &str, balance: &str) -> NewKey {
    let prices = Prices { hit_micro: 70_000, miss_micro: 270_000, output_micro: 1_100_000, ..Prices::default() };
    NewKey { name: name.into(), prices, balance_pico: Some(parse_money(balance, 12).unwrap()), ..NewKey::default() }
}

async fn send(
    server: &Running,
    method: reqwest::Method,
    path: &str,
    key: Option<&str>,
    body: Option<Value>,
) -> (u16, Value) {
    let mut request = server.client.request(method, server.url(path));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn from_the_first_key_on_every_request_needs_one() {
    let server = Running::start();
    assert_eq!(server.get("/api/info").await.1["key_needed"], false);
    assert_eq!(server.get("/v1/models").await.0, 200);
    let (key, secret) = server.handle.store().key_new(&priced("a", "1")).unwrap();
    assert_eq!(server.get("/api/info").await.1["key_needed"], true);
    let paths = [
        ("GET", "/v1/models"),
        ("GET", "/models/stub"),
        ("GET", "/metrics"),
        ("GET", "/user/balance"),
        ("GET", "/api/usage"),
        ("GET", "/api/chats"),
        ("GET", "/api/chats/export"),
        ("GET", "/api/chats/chat-0001"),
        ("PUT", "/api/chats/chat-0001"),
        ("PATCH", "/api/chats/chat-0001"),
        ("DELETE", "/api/chats/chat-0001"),
        ("DELETE", "/api/chats"),
        ("POST", "/api/tokenize"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/chat/completions"),
        ("POST", "/beta/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/messages"),
        ("POST", "/anthropic/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
    ];
    for (method, path) in paths {
        for wrong in [None, Some("fk-0000"), Some("")] {
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let (status, error) = send(&server, method, path, wrong, Some(json!({}))).await;
            assert_eq!((status, error["error"]["type"].as_str()), (401, Some("authentication_error")), "{path}");
        }
    }
    for open in ["/health", "/api/info"] {
        assert_eq!(server.get(open).await.0, 200);
    }
    assert_eq!(send(&server, reqwest::Method::GET, "/v1/models", Some(&secret), None).await.0, 200);
    let anthropic = server.client.get(server.url("/v1/models")).header("x-api-key", &secret).send().await.unwrap();
    assert_eq!(anthropic.status(), 200);
    assert!(server.handle.store().key_revoke(&key.id.to_string()).unwrap());
    assert_eq!(send(&server, reqwest::Method::GET, "/v1/models", Some(&secret), None).await.0, 401);
}

#[tokio::test]
async fn requests_are_billed_by_three_prices_before_they_are_told_to_be_done() {
    let server = Running::start();
    let (_, secret) = server.handle.store().key_new(&priced("a", "0.0002")).unwrap();
    let body = ask_with(&"shared words ".repeat(30), json!({"max_tokens": 20}));
    let mut spent = 0;
    for round in 0..2 {
        let path = "/v1/chat/completions";
        let (status, answer) = send(&server, reqwest::Method::POST, path, Some(&secret), Some(body.clone())).await;
        assert_eq!(status, 200, "{answer}");
        let number = |name: &str| answer["usage"][name].as_i64().unwrap();
        let (hit, miss) = (number("prompt_cache_hit_tokens"), number("prompt_cache_miss_tokens"));
        assert_eq!(hit > 0, round == 1, "the second one finds the first one's pages");
        let cost = hit * 70_000 + miss * 270_000 + number("completion_tokens") * 1_100_000;
        assert_eq!(answer["fathom"]["cost"], money(cost));
        spent += cost;
        let (_, balance) = send(&server, reqwest::Method::GET, "/user/balance", Some(&secret), None).await;
        assert_eq!(balance["balance_infos"][0]["total_balance"], money(200_000_000 - spent));
    }
    let (_, usage) = send(&server, reqwest::Method::GET, "/api/usage", Some(&secret), None).await;
    assert_eq!((&usage["total"]["requests"], &usage["total"]["cost"]), (&json!(2), &json!(money(spent))));
    assert_eq!((&usage["rows"][0]["model"], &usage["rows"][0]["joules_label"]), (&json!("stub"), &json!("estimated")));
    // The rest of the balance goes, and then nothing more.
    let rest = ask_with("x", json!({"max_tokens": 300}));
    let mut last = 200;
    for _ in 0..5 {
        let path = "/v1/chat/completions";
        last = send(&server, reqwest::Method::POST, path, Some(&secret), Some(rest.clone())).await.0;
        if last != 200 {
            break;
        }
    }
    assert_eq!(last, 402);
    let (_, balance) = send(&server, reqwest::Method::GET, "/user/balance", Some(&secret), None).await;
    assert_eq!(balance["is_available"], false);
}

#[tokio::test]
async fn whoever_goes_away_pays_for_what_was_made() {
    let server = Running::start();
    let body = ask_with("x", json!({"stream": true, "max_tokens": 900}));
    let mut response = server.client.post(server.url("/v1/chat/completions")).json(&body).send().await.unwrap();
    response.chunk().await.unwrap();
    drop(response);
    server.assert_at_rest().await;
    let (_, usage) = server.get("/api/usage").await;
    let made = usage["total"]["completion_tokens"].as_i64().unwrap();
    assert!(usage["total"]["requests"] == 1 && (1..900).contains(&made), "{usage}");
}

#[tokio::test]
async fn keys_share_no_cached_pages() {
    let server = Running::start();
    let store = server.handle.store();
    let keys = ["a", "b"].map(|name| store.key_new(&priced(name, "1")).unwrap().1);
    let body = ask_with(&"a secret prompt ".repeat(30), json!({"max_tokens": 1}));
    let mut hits = Vec::new();
    for key in [&keys[0], &keys[0], &keys[1], &keys[1]] {
        let (_, answer) =
            send(&server, reqwest::Method::POST, "/v1/chat/completions", Some(key), Some(body.clone())).await;
        hits.push(answer["usage"]["prompt_cache_hit_tokens"].as_i64().unwrap());
    }
    assert!(hits[0] == 0 && hits[1] > 0 && hits[2] == 0 && hits[3] > 0, "{hits:?}");
}

#[tokio::test]
async fn a_key_has_limits_of_its_own() {
    let server = Running::start();
    let new = NewKey { name: "a".into(), requests_per_minute: Some(2), answers_max: Some(1), ..NewKey::default() };
    let (_, secret) = server.handle.store().key_new(&new).unwrap();
    let path = "/v1/chat/completions";
    let post = |body: Value| send(&server, reqwest::Method::POST, path, Some(&secret), Some(body));
    assert_eq!(post(ask_with("x", json!({"n": 2}))).await.0, 429);
    assert_eq!(post(ask("SAY:a")).await.0, 200);
    assert_eq!(post(ask("SAY:b")).await.0, 200);
    let (status, error) = post(ask("SAY:c")).await;
    assert_eq!((status, error["error"]["code"].as_str()), (429, Some("rate_limit_reached")));
}

#[tokio::test]
async fn keys_ledger_and_chats_survive_a_restart() {
    let data = Arc::new(tempfile::tempdir().unwrap());
    let setup = || Setup { data: Some(Arc::clone(&data)), ..Setup::default() };
    let server = Running::with(setup());
    let (_, secret) = server.handle.store().key_new(&priced("a", "1")).unwrap();
    let path = "/v1/chat/completions";
    assert_eq!(send(&server, reqwest::Method::POST, path, Some(&secret), Some(ask("SAY:a"))).await.0, 200);
    let chat = json!({"revision": null, "chat": {"title": "t"}});
    let put = reqwest::Method::PUT;
    assert_eq!(send(&server, put, "/api/chats/chat-0001", Some(&secret), Some(chat)).await.0, 200);
    let before = send(&server, reqwest::Method::GET, "/api/usage", Some(&secret), None).await;
    drop(server);
    let server = Running::with(setup());
    assert_eq!(send(&server, reqwest::Method::GET, "/api/usage", Some(&secret), None).await, before);
    assert_eq!(send(&server, reqwest::Method::GET, "/api/chats/chat-0001", Some(&secret), None).await.0, 200);
}

#[tokio::test]
async fn chats_are_stored_found_changed_and_deleted_under_their_key() {
    let server = Running::start();
    let store = server.handle.store();
    let keys = ["a", "b"].map(|name| store.key_new(&priced(name, "1")).unwrap().1);
    let call = async |method: &str, path: &str, key: &str, body: Option<Value>| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        send(&server, method, path, Some(key), body).await
    };
    let (a, b) = (keys[0].as_str(), keys[1].as_str());
    for i in 0..5 {
        let chat = json!({"title": format!("Chat {i}"), "messages": [{"content": format!("مرحبا word{i}")}]});
        let body = json!({"revision": null, "chat": chat});
        let (status, row) = call("PUT", &format!("/api/chats/chat-000{i}"), a, Some(body)).await;
        assert_eq!((status, &row["revision"], &row["title"]), (200, &json!(1), &json!(format!("Chat {i}"))));
    }
    // A list in pages, newest change first.
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let (_, page) = call("GET", &format!("/api/chats?limit=2{next}"), a, None).await;
        seen.extend(page["chats"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap().to_string()));
        match page["next"].as_str() {
            Some(cursor) => next = format!("&before={cursor}"),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["chat-0000", "chat-0001", "chat-0002", "chat-0003", "chat-0004"]);
    let found = call("GET", "/api/chats?q=WORD3%20مرحبا", a, None).await.1;
    assert_eq!((found["chats"].as_array().unwrap().len(), &found["chats"][0]["id"]), (1, &json!("chat-0003")));
    assert!(found["chats"][0]["excerpt"].as_str().unwrap().contains("word3"));
    // Changes.
    let stale = json!({"revision": 7, "chat": {"title": "x"}});
    let (status, error) = call("PUT", "/api/chats/chat-0001", a, Some(stale)).await;
    assert_eq!((status, error["error"]["code"].as_str()), (409, Some("revision_conflict")));
    let (_, row) = call("PATCH", "/api/chats/chat-0001", a, Some(json!({"title": "New"}))).await;
    assert_eq!((&row["title"], &row["revision"]), (&json!("New"), &json!(2)));
    assert_eq!(call("GET", "/api/chats/chat-0001", a, None).await.1["chat"]["messages"][0]["content"], "مرحبا word1");
    // Nothing of one key exists for another.
    assert_eq!(call("GET", "/api/chats", b, None).await.1["chats"], json!([]));
    for (method, body) in [("GET", None), ("PATCH", Some(json!({"title": "x"}))), ("DELETE", None)] {
        assert_eq!(call(method, "/api/chats/chat-0001", b, body).await.0, 404, "{method}");
    }
    let (_, export) = call("GET", "/api/chats/export", a, None).await;
    assert_eq!((export["format"].as_str(), export["chats"].as_array().unwrap().len()), (Some("fathom-chats-1"), 5));
    // What cannot be stored.
    for (id, body, status) in [
        ("short", json!({"chat": {"title": "x"}}), 422),
        ("chat-9999", json!({"chat": {}}), 422),
        ("chat-9999", json!({"chat": []}), 422),
        ("chat-9999", json!({"chat": {"title": "x".repeat(201)}}), 422),
        ("chat-9999", json!({"chat": {"title": "x", "big": "y".repeat(4 << 20)}}), 413),
        ("chat-9999", json!({"revision": 3, "chat": {"title": "x"}}), 409),
    ] {
        assert_eq!(call("PUT", &format!("/api/chats/{id}"), a, Some(body)).await.0, status, "{id}");
    }
    assert_eq!(call("DELETE", "/api/chats/chat-0001", a, None).await.0, 204);
    assert_eq!(call("GET", "/api/chats/chat-0001", a, None).await.0, 404);
    assert_eq!(call("DELETE", "/api/chats", a, None).await.0, 204);
    assert_eq!(call("GET", "/api/chats", a, None).await.1["chats"], json!([]));
}

#[test]
fn an_open_address_without_keys_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let bind = || common::bind("0.0.0.0:0".parse().unwrap(), data.path());
    let error = bind().err().unwrap().to_string();
    assert!(error.contains("there are no API keys; make one first"), "{error}");
    server::store::Store::open(data.path()).unwrap().key_new(&priced("a", "1")).unwrap();
    assert!(bind().is_ok());
}
