//! A server that is told to stop: what runs is finished within a limit, and what is not is told so.

mod common;

use std::time::Duration;

use common::{Running, Setup, ask_with};
use serde_json::{Value, json};
use server::limits::Limits;

/// A server that has an answer in work while its engine stands still, and that answer's body.
async fn working(shutdown_wait: Duration, stream: bool) -> (Running, tokio::task::JoinHandle<(u16, String)>) {
    let server = Running::with(Setup { limits: Limits { shutdown_wait, ..Limits::default() }, ..Setup::default() });
    server.gate.close();
    let body = ask_with("SAY:one two three", json!({"stream": stream}));
    let request = server.client.post(server.url("/v1/chat/completions")).json(&body).send();
    let answer = tokio::spawn(async {
        let response = request.await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    });
    while server.handle.load().2 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (server, answer)
}

#[tokio::test]
async fn running_answers_are_finished_and_no_others_begun() {
    for stream in [true, false] {
        let (server, answer) = working(Duration::from_secs(20), stream).await;
        server.handle.stop();
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(server.address).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "no new connections");
        server.gate.open();
        let (status, text) = answer.await.unwrap();
        assert_eq!(status, 200);
        match stream {
            true => {
                let chunks = text.split("data: ").filter_map(|data| serde_json::from_str::<Value>(data.trim()).ok());
                let said = chunks.filter_map(|c| Some(c["choices"][0]["delta"]["content"].as_str()?.to_string()));
                assert_eq!(said.collect::<String>(), "one two three");
                assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
            }
            false => {
                let whole: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(whole["choices"][0]["message"]["content"], "one two three");
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_told_so() {
    for stream in [true, false] {
        let (server, answer) = working(Duration::from_millis(50), stream).await;
        server.handle.stop();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.gate.open();
        let (status, text) = answer.await.unwrap();
        assert_eq!(status, if stream { 200 } else { 503 });
        let error = text.split("data: ").last().unwrap();
        let error: Value = serde_json::from_str(error.trim()).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(error["error"]["message"], "the server is stopping", "{text}");
    }
}
