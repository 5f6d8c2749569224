//! The HTTP API and the web chat: wire types, keys, ledger, chats.
//!
//! ```text
//!   socket ── http (limits, Host, Origin) ── api (one handler a path) ── work (one task a request)
//!                                              │                            │ tokens   ^ commands
//!                                            store (keys, ledger, chats)  driver (the engine's thread)
//! ```
//!
//! [`Server`] binds an address and runs an engine behind it until it is told to stop. Everything that grows has a limit
//! in [`limits::Limits`]; everything that fails has a status and a sentence. Nothing here opens an outbound connection.

mod admission;
mod api;
mod driver;
mod error;
mod guide;
mod http;
mod language;
pub mod limits;
mod meter;
mod metrics;
pub mod openapi;
mod page;
pub mod prompt_cache;
mod reader;
mod scoring;
mod state;
pub mod store;
mod tools;
pub mod wire;
mod work;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::step::{Compute, Engine, PageUse};
use thiserror::Error;
use tokio::sync::watch;

pub use error::ApiError;
pub use http::guard::Allowed;
pub use language::{Embedder, Served};

use crate::admission::Admission;
use crate::driver::Driver;
use crate::guide::Grammars;
use crate::limits::Limits;
use crate::meter::Meter;
use crate::metrics::Metrics;
use crate::prompt_cache::{PromptCache, PromptCacheOptions, PromptCacheState};
use crate::state::State;
use crate::store::{Store, StoreError};

/// How the server is set up.
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where keys, ledger and chats are.
    pub data: PathBuf,
    /// How much it takes on.
    pub limits: Limits,
    /// Names and origins beyond this machine's own.
    pub allowed: Allowed,
    /// Watts while the engine computes, where the machine has no meter.
    pub watts: Option<f64>,
    /// The prompt cache on disk, if there is to be one.
    pub prompt_cache: Option<PromptCacheOptions>,
}

/// Why the server cannot start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The address cannot be had.
    #[error("{address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// Others could use the server, and there is no key that keeps them out.
    #[error(
        "{0} can be reached by other machines, and there are no API keys; make one first (`fathom keys new NAME`), or \
         listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime.
    #[error("the server cannot start: {0}")]
    Runtime(std::io::Error),
}

/// A server that has its address and its data, and takes no requests yet.
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
    allowed: Allowed,
    stop: watch::Sender<bool>,
}

/// Stops a server, and looks into it, from other threads.
#[derive(Clone)]
pub struct Handle {
    state: Arc<State>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Opens the data directory and binds the address.
    ///
    /// # Errors
    /// If either cannot be had, or the address can be reached by others and there are no keys.
    pub fn bind(options: Options, served: Served) -> Result<Server, ServerError> {
        let store = Store::open(&options.data)?;
        let address = options.listen;
        if !address.ip().is_loopback() && !store.any_key()? {
            return Err(ServerError::Open(address));
        }
        let failed = |error| ServerError::Listen { address, error };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let traits = served.traits();
        let prompt_cache = options.prompt_cache.map(|cache| PromptCache::new(&options.data, cache));
        let state = State {
            grammars: Grammars::new(&served, &traits),
            traits,
            served,
            limits: options.limits,
            driver: Driver::new(Meter::new(options.watts), prompt_cache.clone()),
            prompt_cache,
            store: Arc::new(store),
            admission: Arc::new(Admission::default()),
            metrics: Metrics::default(),
            started_s: state::now_s(),
            stopping: AtomicBool::new(false),
        };
        let (stop, _) = watch::channel(false);
        Ok(Server { listener, state: Arc::new(state), allowed: options.allowed, stop })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        Handle { state: Arc::clone(&self.state), stop: self.stop.clone() }
    }

    /// Serves until [`Handle::stop`] or until the process is told to terminate (SIGTERM); `make` makes the engine, on
    /// this thread, and another one if it breaks down.
    ///
    /// # Errors
    /// If the runtime cannot be started.
    pub fn run<C: Compute>(self, make: impl FnMut() -> Engine<C>) -> Result<(), ServerError> {
        // The engine's threads compute; these only carry.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(16)
            .thread_name("fathom-http")
            .enable_all()
            .build()
            .map_err(ServerError::Runtime)?;
        let state = Arc::clone(&self.state);
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener).map_err(ServerError::Runtime)?
        };
        #[cfg(unix)]
        runtime.spawn(stop_on_terminate(Handle { state: Arc::clone(&state), stop: self.stop.clone() }));
        let router = api::router(Arc::clone(&state), self.allowed);
        let stop = self.stop.subscribe();
        let serving = Arc::clone(&state);
        let listening = runtime.spawn(async move {
            // Closed at the end, however it comes.
            let close = Close(Arc::clone(&serving));
            http::listen::listen(listener, router, serving, stop, move || drop(close)).await;
        });
        state.driver.run(make);
        // A panic there has closed the engine and is told by the thread itself.
        let _ = runtime.block_on(listening);
        if let Some(cache) = &state.prompt_cache {
            cache.close();
        }
        runtime.shutdown_timeout(std::time::Duration::from_secs(2));
        Ok(())
    }
}

/// Stops the server as Ctrl-C does when a service manager or a container tells the process to terminate.
#[cfg(unix)]
async fn stop_on_terminate(handle: Handle) {
    use tokio::signal::unix::{SignalKind, signal};
    // Where the signal cannot be had it ends the process, as it would without this.
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        terminate.recv().await;
        handle.stop();
    }
}

/// Ends the engine's thread when it is dropped.
struct Close(Arc<State>);

impl Drop for Close {
    fn drop(&mut self) {
        self.0.driver.close();
    }
}

impl Handle {
    /// Takes no more connections, lets running requests finish for a while, and ends [`Server::run`].
    pub fn stop(&self) {
        self.state.stopping.store(true, Ordering::Relaxed);
        // An error would say that nobody waits: it has stopped already.
        let _ = self.stop.send(true);
    }

    /// Checks the engine's books and tells how its pages are used; `None` if it has stopped.
    pub async fn check(&self) -> Option<PageUse> {
        self.state.driver.check().await
    }

    /// Answers that run, that wait, and that count against the limit.
    pub fn load(&self) -> (usize, usize, usize) {
        let seen = self.state.driver.seen();
        (seen.running, seen.waiting, self.state.admission.answers())
    }

    /// Open connections.
    pub fn connections(&self) -> u64 {
        self.state.metrics.connections.load(Ordering::Relaxed)
    }

    /// The prompt cache on disk, if there is one.
    pub fn prompt_cache(&self) -> Option<PromptCacheState> {
        self.state.prompt_cache.as_ref().map(|cache| cache.state())
    }

    /// Keys, ledger and chats.
    pub fn store(&self) -> &Store {
        &self.state.store
    }
}
