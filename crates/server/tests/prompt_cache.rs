//! The prompt cache on disk: found after a restart, by its owner and its model alone, and never wrong.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Running, Setup, ask_with, fixture};
use engine::compute::ModelCompute;
use engine::limits::Limits as EngineLimits;
use kernels::attention::CacheFormat;
use kernels::pool::Pool;
use model::load::Model;
use serde_json::{Value, json};
use server::store::keys::NewKey;

const MODEL: [u8; 32] = [1; 32];

async fn start(data: &Arc<tempfile::TempDir>, identity: [u8; 32]) -> Running {
    let setup = Setup { data: Some(Arc::clone(data)), prompt_cache: Some(identity), ..Setup::default() };
    ready(Running::with(setup)).await
}

async fn ready(server: Running) -> Running {
    while !server.handle.prompt_cache().unwrap().ready {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server
}

/// The answer to a prompt of some hundred tokens, and how many of them were in the cache.
async fn answer(server: &Running, secret: Option<&str>) -> (Value, u64) {
    let body = ask_with(&"many shared words ".repeat(40), json!({"max_tokens": 90, "logprobs": true, "seed": 3}));
    let mut request = server.client.post(server.url("/v1/chat/completions")).json(&body);
    if let Some(secret) = secret {
        request = request.bearer_auth(secret);
    }
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let cached = answer["usage"]["prompt_cache_hit_tokens"].as_u64().unwrap_or_else(|| panic!("{answer}"));
    (answer["choices"].clone(), cached)
}

/// All pages in a data directory.
fn pages(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for owner in std::fs::read_dir(data.join("prompt-cache/pages")).unwrap() {
        found.extend(std::fs::read_dir(owner.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_prompt_is_found_after_a_restart_with_the_same_bits() {
    let data = Arc::new(tempfile::tempdir().unwrap());
    let server = start(&data, MODEL).await;
    let (first, cold) = answer(&server, None).await;
    let (again, warm) = answer(&server, None).await;
    assert!(first == again && cold == 0 && warm >= 128, "{warm} tokens from memory");
    drop(server);
    assert!(pages(data.path()).len() as u64 > warm / 64, "pages of the answer are kept as well");
    for (path, canary) in pages(data.path()).iter().zip(std::iter::repeat("shared words")) {
        let bytes = std::fs::read(path).unwrap();
        assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()));
    }
    let server = start(&data, MODEL).await;
    let (restored, from_disk) = answer(&server, None).await;
    assert_eq!((&restored, from_disk), (&first, warm));
    let state = server.handle.prompt_cache().unwrap();
    assert_eq!((state.read, state.damaged, state.dropped), (warm / 64, 0, 0));
    server.assert_at_rest().await;
    drop(server);
    // Another model under the same name, and then the first one again.
    let server = start(&data, [2; 32]).await;
    assert_eq!(answer(&server, None).await, (first.clone(), 0));
    drop(server);
    let server = start(&data, MODEL).await;
    assert_eq!(answer(&server, None).await, (first, warm));
}

#[tokio::test]
async fn damaged_pages_are_computed_again() {
    let data = Arc::new(tempfile::tempdir().unwrap());
    let server = start(&data, MODEL).await;
    let (first, _) = answer(&server, None).await;
    drop(server);
    let all = pages(data.path());
    for path in &all {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(path, bytes).unwrap();
    }
    let server = start(&data, MODEL).await;
    assert_eq!(answer(&server, None).await, (first.clone(), 0));
    assert_eq!(server.handle.prompt_cache().unwrap().damaged, 1, "nothing after the first is asked for");
    drop(server);
    let server = start(&data, MODEL).await;
    let (same, cached) = answer(&server, None).await;
    assert!(same == first && cached > 0 && cached % 64 == 0, "{cached}");
}

#[tokio::test]
async fn no_other_key_finds_what_one_has_computed() {
    let data = Arc::new(tempfile::tempdir().unwrap());
    let server = start(&data, MODEL).await;
    let key = |name: &str| NewKey { name: name.into(), ..NewKey::default() };
    let (open, _) = answer(&server, None).await;
    let (_, first) = server.handle.store().key_new(&key("first")).unwrap();
    let (_, second) = server.handle.store().key_new(&key("second")).unwrap();
    assert_eq!(answer(&server, Some(&first)).await, (open.clone(), 0), "not those of nobody");
    drop(server);
    let server = start(&data, MODEL).await;
    assert_eq!(answer(&server, Some(&second)).await, (open.clone(), 0));
    let (same, own) = answer(&server, Some(&first)).await;
    assert!(same == open && own > 0);
    drop(server);
    let server = start(&data, MODEL).await;
    assert!(answer(&server, Some(&second)).await.1 > 0);
    // What is revoked or deleted is gone from the disk.
    let before = pages(data.path()).len();
    server.handle.store().key_revoke("first").unwrap();
    let without_first = pages(data.path()).len();
    let deleted = server.client.delete(server.url("/api/chats")).bearer_auth(&second).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert!(before > without_first && without_first > pages(data.path()).len(), "{before}, {without_first}");
}

#[tokio::test]
async fn users_of_one_key_find_only_what_was_computed_for_them() {
    let data = Arc::new(tempfile::tempdir().unwrap());
    let server = start(&data, MODEL).await;
    let long = "many shared words ".repeat(40);
    let cached = async |server: &Running, path: &str, user: Value| {
        let mut body = ask_with(&long, json!({"max_tokens": 4}));
        let body = body.as_object_mut().unwrap();
        body.extend(user.as_object().unwrap().clone());
        let answer = server.client.post(server.url(path)).json(body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let usage = &answer["usage"];
        let hit = usage.get("prompt_cache_hit_tokens").or_else(|| usage.get("cache_read_input_tokens"));
        hit.and_then(Value::as_u64).unwrap_or_else(|| panic!("{answer}"))
    };
    let chat = "/v1/chat/completions";
    let user = |name: &str| json!({"user_id": name});
    assert_eq!(cached(&server, chat, json!({})).await, 0);
    assert_eq!(cached(&server, chat, user("ada")).await, 0, "not what was computed for nobody in particular");
    assert_eq!(cached(&server, chat, user("ben")).await, 0, "nor for another one");
    let own = cached(&server, chat, user("ada")).await;
    assert!(own > 0);
    assert_eq!(cached(&server, chat, user("")).await, own, "no name is nobody in particular");
    let anthropic = json!({"metadata": {"user_id": "ada"}});
    assert_eq!(cached(&server, "/v1/messages", anthropic).await, own);
    drop(server);
    let server = start(&data, MODEL).await;
    assert_eq!(cached(&server, chat, user("eve")).await, 0, "nor from the disk");
    assert_eq!(cached(&server, chat, user("ada")).await, own);
    let body = ask_with("hello", json!({"user_id": "u".repeat(513)}));
    let refused = server.client.post(server.url(chat)).json(&body).send().await.unwrap();
    assert_eq!(refused.status(), 422);
    assert!(refused.text().await.unwrap().contains("user_id has 513 bytes; the limit is 512"));
    // All of them are the key's pages.
    let deleted = server.client.delete(server.url("/api/chats")).send().await.unwrap();
    assert_eq!((deleted.status().as_u16(), pages(data.path()).len()), (204, 0));
}

#[tokio::test]
async fn requests_that_are_given_up_while_pages_are_read_leave_nothing_behind() {
    let data = Arc::new(tempfile::tempdir().unwrap());
    let server = start(&data, MODEL).await;
    let (first, _) = answer(&server, None).await;
    drop(server);
    let server = start(&data, MODEL).await;
    let body = ask_with(&"many shared words ".repeat(40), json!({"max_tokens": 90, "stream": true}));
    for _ in 0..30 {
        let sent = server.client.post(server.url("/v1/chat/completions")).json(&body).send();
        // Gone at some moment between sending and the answer's end.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(3), sent).await;
    }
    assert_eq!(answer(&server, None).await.0, first);
    server.assert_at_rest().await;
}

#[tokio::test]
async fn a_long_beginning_is_read_in_under_a_tenth_of_the_time_that_it_took() {
    let model: &'static Model = Box::leak(Box::new(Model::open(&fixture()).unwrap()));
    let pool: &'static Pool = Box::leak(Box::new(Pool::new(2)));
    let data = Arc::new(tempfile::tempdir().unwrap());
    let start = || {
        let engine = EngineLimits { context_tokens_max: 8192, pages: 160, ..EngineLimits::default() };
        let (data, prompt_cache) = (Some(Arc::clone(&data)), Some(MODEL));
        let setup = Setup { engine, data, prompt_cache, ..Setup::default() };
        ready(Running::on(setup, move |engine, _| ModelCompute::new(model, pool, engine.pages, CacheFormat::F32)))
    };
    let text = "many shared words ".repeat(280);
    let ask = async |server: &Running, question: &str| {
        let begin = std::time::Instant::now();
        let answer =
            server.chat(ask_with(&format!("{text}{question}"), json!({"max_tokens": 1, "logprobs": true}))).await;
        let cached = answer["usage"]["prompt_cache_hit_tokens"].as_u64().unwrap();
        (answer["choices"].clone(), cached, begin.elapsed())
    };
    let server = start().await;
    let (_, cold, first) = ask(&server, "One?").await;
    // The fastest of three: what else the machine does is not what is measured.
    let mut memory = Vec::new();
    for question in ["Two?", "Three?", "Four?"] {
        memory.push(ask(&server, question).await);
    }
    drop(server);
    let mut disk = Vec::new();
    for question in ["Two?", "Three?", "Four?"] {
        disk.push(ask(&start().await, question).await);
    }
    let fastest = |all: &[(Value, u64, std::time::Duration)]| all.iter().map(|(_, _, took)| *took).min().unwrap();
    let (from_memory, from_disk) = (fastest(&memory), fastest(&disk));
    println!("{} tokens: {first:.1?}, from memory {from_memory:.1?}, after a restart {from_disk:.1?}", memory[0].1);
    assert_eq!(cold, 0);
    for ((answer, cached, _), (again, restored, _)) in memory.iter().zip(&disk) {
        assert!(answer == again && *cached >= 4096 && cached == restored, "{cached} and {restored} tokens");
    }
    assert!(from_memory * 10 < first && from_disk * 10 < first, "{first:?}, {from_memory:?}, {from_disk:?}");
}
