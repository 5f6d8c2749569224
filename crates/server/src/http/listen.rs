//! The loop that takes connections.
//!
//! Each connection has a time limit for its headers (which covers idle ones too), a size limit for them, and a reader
//! that must keep reading. One too many is told so and closed. At the end running requests may finish for a while.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::patient::Patient;
use crate::state::State;

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 129\r\n\r\n\
    {\"error\":{\"message\":\"the server has as many connections as it takes\",\
    \"type\":\"overloaded_error\",\"param\":null,\"code\":\"overloaded\"}}";

/// Time for the last words of answers that did not finish in time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Takes connections until `stop` is true, then lets what runs finish within the limit; what does not is told so after
/// `close`, which ends the engine.
pub(crate) async fn listen(
    listener: TcpListener,
    router: Router,
    state: Arc<State>,
    mut stop: watch::Receiver<bool>,
    close: impl FnOnce(),
) {
    let limits = &state.limits;
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_wait)
        .max_buf_size(limits.header_bytes_max.max(8192))
        .max_headers(100);
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                // Out of file handles, or a client that is gone already: the next one may do better.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            () = told(&mut stop) => break,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            state.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
            refuse(socket);
            continue;
        };
        // Tokens are small and should not wait for each other; a socket that cannot do this works all the same.
        let _ = socket.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(Patient::new(socket, limits.write_wait)), service);
        let connection = graceful.watch(connection);
        let open = Open::new(Arc::clone(&state), place);
        tokio::spawn(async move {
            // Broken connections are the client's affair.
            let _ = connection.await;
            drop(open);
        });
    }
    drop(listener);
    let mut finished = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(limits.shutdown_wait, &mut finished).await.is_err() {
        close();
        // Whoever does not read them by then is cut off.
        let _ = tokio::time::timeout(LAST_WORDS, finished).await;
    }
}

/// Waits until the server is told to stop (or nobody is left who could tell).
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

fn refuse(socket: TcpStream) {
    tokio::spawn(async move {
        let mut socket = socket;
        // Whether the client reads it or not, it is closed.
        let _ = tokio::time::timeout(LAST_WORDS, socket.write_all(FULL)).await;
    });
}

/// Counts a connection while it is open.
struct Open {
    state: Arc<State>,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(state: Arc<State>, place: OwnedSemaphorePermit) -> Open {
        state.metrics.connections.fetch_add(1, Ordering::Relaxed);
        Open { state, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.state.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_refusal_is_a_whole_answer() {
        let text = std::str::from_utf8(super::FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
