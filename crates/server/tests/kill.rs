//! A server that is killed at any moment: nothing that was acknowledged is lost from keys, ledger and chats, and the
//! prompt cache gives the same bits or nothing. The count is small here; the full one is set from outside:
//!
//!     FATHOM_KILLS=1000 cargo test --release -p server --test kill -- --nocapture
//!
//! The server is this program again, in a process of its own, so that a kill is one.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{Stub, ask_with, bind_with, tokenizer};
use engine::limits::Limits as EngineLimits;
use engine::step::Engine;
use serde_json::{Value, json};
use server::limits::Limits;
use server::store::Store;
use server::store::keys::NewKey;
use server::store::ledger::{Prices, money, parse_money};

/// Where the server of [`served_until_it_is_killed`] finds its data.
const DATA: &str = "FATHOM_KILLED_DATA";
const MODEL: [u8; 32] = [7; 32];
const CHATS: usize = 6;
const PROMPTS: usize = 4;
const BALANCE: &str = "1000000";

#[test]
#[ignore = "the server that the other test starts and kills"]
fn served_until_it_is_killed() {
    let Some(data) = std::env::var_os(DATA).map(PathBuf::from) else { return };
    let limits = EngineLimits { running_max: 8, context_tokens_max: 1024, pages: 128, ..EngineLimits::default() };
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = bind_with(listen, &data, Limits::default(), 1024, Some(MODEL), tokenizer()).unwrap();
    println!("\naddress {}", server.address().unwrap());
    let handle = server.handle();
    std::thread::spawn(move || {
        for i in 0.. {
            let name = format!("{}-{i}", std::process::id());
            handle.store().key_new(&NewKey { name: name.clone(), ..NewKey::default() }).unwrap();
            println!("key {name}");
            std::thread::sleep(Duration::from_millis(7));
        }
    });
    server.run(|| Engine::new(Stub::new(&limits), limits)).unwrap();
}

/// The server in its process.
struct Killable {
    child: Child,
    address: SocketAddr,
    /// Names of keys that it said it had made.
    keys: Receiver<String>,
}

impl Killable {
    fn start(data: &Path) -> Killable {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "served_until_it_is_killed", "--ignored", "--nocapture"]).env(DATA, data);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.by_ref().find_map(|line| line.unwrap().strip_prefix("address ").map(str::to_string));
        let address = address.expect("the server starts whatever happened before").parse().unwrap();
        let (sender, keys) = channel();
        std::thread::spawn(move || {
            // A line is acknowledged when it is whole; the last one may not be.
            for name in lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("key ").map(str::to_string)) {
                if sender.send(name).is_err() {
                    return;
                }
            }
        });
        Killable { child, address, keys }
    }

    /// Kills it; the keys that it acknowledged.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut keys: Vec<String> = self.keys.iter().collect();
        // Killed in the middle of a line, perhaps: what has no line after it is not counted on.
        keys.pop();
        keys
    }
}

/// A whole answer, or nothing.
fn call(address: SocketAddr, method: &str, path: &str, key: &str, body: Option<&Value>) -> Option<(u16, Value)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(&[head.as_bytes(), body.as_bytes()].concat()).ok()?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().unwrap();
    let status = head.split(' ').nth(1)?.parse().unwrap();
    (body.len() == length).then(|| (status, serde_json::from_str(body).unwrap_or_default()))
}

/// All that was acknowledged.
#[derive(Default)]
struct Acknowledged {
    keys: Vec<String>,
    /// Versions by chat.
    chats: BTreeMap<usize, u64>,
    requests: u64,
    cost_pico: i64,
    /// What each prompt is answered.
    answers: BTreeMap<usize, Value>,
    /// Tokens that were found in the cache.
    cached: u64,
}

fn version(chat: &Value) -> u64 {
    chat["chat"]["title"].as_str().unwrap().parse().unwrap()
}

fn path_of(chat: usize) -> String {
    format!("/api/chats/chat-{chat:04}")
}

impl Acknowledged {
    /// Everything is there.
    fn check(&self, data: &Path, address: SocketAddr, key: &str) {
        let names: HashSet<String> =
            Store::open(data).unwrap().keys().unwrap().into_iter().map(|key| key.name).collect();
        for name in &self.keys {
            assert!(names.contains(name), "key {name} is lost");
        }
        for (&chat, &last) in &self.chats {
            let (status, stored) = call(address, "GET", &path_of(chat), key, None).unwrap();
            assert_eq!(status, 200, "chat {chat} is lost");
            // The write that nobody heard the end of may have come through.
            assert!((last..=last + 1).contains(&version(&stored)), "chat {chat}: {last} and {stored}");
            assert_eq!(stored["chat"]["body"], json!(body_of(version(&stored))), "half a chat");
        }
        let (_, usage) = call(address, "GET", "/api/usage", key, None).unwrap();
        let (requests, cost) = (&usage["total"]["requests"], usage["total"]["cost"].as_str().unwrap());
        assert!(requests.as_u64().unwrap() >= self.requests, "{requests} requests, {} acknowledged", self.requests);
        let cost = parse_money(cost, 12).unwrap();
        assert!(cost >= self.cost_pico, "{} billed, {} acknowledged", money(cost), money(self.cost_pico));
        let (_, balance) = call(address, "GET", "/user/balance", key, None).unwrap();
        let left = parse_money(balance["balance_infos"][0]["total_balance"].as_str().unwrap(), 12).unwrap();
        assert_eq!(left + cost, parse_money(BALANCE, 12).unwrap(), "ledger and balance are one");
    }

    /// Takes a whole answer to prompt `which`.
    fn answered(&mut self, which: usize, answer: &Value) {
        let (choices, usage) = (&answer["choices"], &answer["usage"]);
        let known = self.answers.entry(which).or_insert_with(|| choices.clone());
        assert_eq!(known, choices, "the same bits whatever was found in the cache");
        self.requests += 1;
        self.cost_pico += parse_money(answer["fathom"]["cost"].as_str().unwrap(), 12).unwrap();
        self.cached += usage["prompt_cache_hit_tokens"].as_u64().unwrap();
    }
}

/// A chat's text: long, so that a write has a middle.
fn body_of(version: u64) -> String {
    format!("version {version} ").repeat(400)
}

/// Writes chats until the server is gone; the last versions that were acknowledged.
fn write_chats(address: SocketAddr, key: &str, chats: &mut BTreeMap<usize, u64>) {
    for chat in (0..CHATS).cycle() {
        let Some((status, stored)) = call(address, "GET", &path_of(chat), key, None) else { return };
        let (revision, last) = match status {
            404 => (Value::Null, 0),
            _ => (stored["revision"].clone(), version(&stored)),
        };
        // What was read was there: it must stay as well.
        assert!(last >= chats.get(&chat).copied().unwrap_or(0), "chat {chat} went back to {last}");
        if last > 0 {
            chats.insert(chat, last);
        }
        let next = json!({"title": (last + 1).to_string(), "body": body_of(last + 1)});
        let put = json!({"revision": revision, "chat": next});
        let Some((status, row)) = call(address, "PUT", &path_of(chat), key, Some(&put)) else { return };
        assert_eq!(status, 200, "{row}");
        chats.insert(chat, last + 1);
    }
}

/// Asks until the server is gone.
fn ask_prompts(address: SocketAddr, key: &str, first: usize) -> Vec<(usize, Value)> {
    let mut answers = Vec::new();
    for which in (0..PROMPTS).cycle().skip(first) {
        let text = format!("{} {which}", "words that many prompts begin with ".repeat(12));
        let body = ask_with(&text, json!({"max_tokens": 70, "logprobs": true, "seed": which, "temperature": 1.0}));
        match call(address, "POST", "/v1/chat/completions", key, Some(&body)) {
            Some((200, answer)) => answers.push((which, answer)),
            Some((status, answer)) => panic!("{status}: {answer}"),
            None => return answers,
        }
    }
    answers
}

#[test]
#[cfg(unix)]
fn a_server_that_is_told_to_terminate_finishes_what_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let new = NewKey { name: "client".into(), ..NewKey::default() };
    let (_, key) = Store::open(directory.path()).unwrap().key_new(&new).unwrap();
    let mut server = Killable::start(directory.path());
    let (address, pid) = (server.address, server.child.id().to_string());
    let asked = std::thread::spawn(move || ask_prompts(address, &key, 0));
    std::thread::sleep(Duration::from_millis(100));
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = server.child.wait().unwrap();
    assert!(ended.success(), "{ended}: ended by its own will, not by the signal");
    assert!(!asked.join().unwrap().is_empty(), "whole answers before, none broken after");
}

#[test]
fn what_was_acknowledged_survives_kills_at_any_moment() {
    let kills: usize = std::env::var("FATHOM_KILLS").ok().map_or(8, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let prices = Prices { hit_micro: 70_000, miss_micro: 270_000, output_micro: 1_100_000, ..Prices::default() };
    let balance_pico = Some(parse_money(BALANCE, 12).unwrap());
    let new = NewKey { name: "client".into(), prices, balance_pico, ..NewKey::default() };
    let (_, key) = Store::open(data).unwrap().key_new(&new).unwrap();
    let (mut known, mut random, begin) = (Acknowledged::default(), 0x9e37_79b9_7f4a_7c15u64, Instant::now());
    for _ in 0..kills {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let server = Killable::start(data);
        known.check(data, server.address, &key);
        let (address, mut chats) = (server.address, known.chats.clone());
        let (answers, keys) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_chats(address, &key, &mut chats));
            let askers = [0, 1].map(|first| {
                scope.spawn({
                    let key = &key;
                    move || ask_prompts(address, key, first)
                })
            });
            // From before the first answer to long after it.
            std::thread::sleep(Duration::from_micros((random >> 33) % 120_000));
            let keys = server.kill();
            writer.join().unwrap();
            (askers.map(|asker| asker.join().unwrap()).concat(), keys)
        });
        answers.iter().for_each(|(which, answer)| known.answered(*which, answer));
        known.chats = chats;
        known.keys.extend(keys);
    }
    let server = Killable::start(data);
    known.check(data, server.address, &key);
    server.kill();
    println!(
        "{kills} kills in {:.1?}: {} keys, {} requests, {} versions of chats there; {} tokens from the cache, \
         the same bits",
        begin.elapsed(),
        known.keys.len(),
        known.requests,
        known.chats.values().sum::<u64>(),
        known.cached,
    );
    if kills >= 100 {
        assert!(known.requests > 0 && known.cached > 0 && !known.keys.is_empty(), "the kills came too early to tell");
    }
}
