//! The prompt cache on disk: what the engine has computed of prompts and answers, found again after a restart.
//!
//! ```text
//!   engine's thread ── pages that became known ──> writer ──> encrypted files
//!          ^                                                       │
//!          └──── pages restored, then the request <── reader <─────┘
//! ```
//!
//! Writing is behind: what cannot be kept up with is dropped, never waited for. Reading stands before a request that
//! would find more on disk than in memory; other requests go on meanwhile. Pages are bound to the model's identity, the
//! form of the cache and the API key (`seal`), and what does not open is computed: an answer has the same bits with
//! its beginning computed, from memory or from disk.

mod files;
mod identity;
mod seal;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use engine::pages::{Owner, PageId};
use engine::request::{Published, RequestId, Restored};
use engine::step::PAGE_LEN;
use sha2::{Digest, Sha256};

pub use files::Kept;
pub use identity::{Part, identity};
pub(crate) use seal::Bytes32;

use files::{Files, Room};
use seal::Seal;

/// The cache's directory in the data directory.
const DIRECTORY: &str = "prompt-cache";
/// Pages that wait to be written, in bytes.
const QUEUE_BYTES_MAX: u64 = 256 << 20;
/// Requests that wait to be read for.
const READS_MAX: usize = 64;
/// Bytes that are read for one request at most.
const READ_BYTES_MAX: usize = 2 << 30;

/// Says what a model computes: equal for two servers only if all pages of one are, bit for bit, what the other would
/// compute. May take long; it is asked once, beside the first requests.
pub type Identity = Box<dyn FnOnce() -> io::Result<[u8; 32]> + Send>;

/// How the prompt cache on disk is set up.
pub struct PromptCacheOptions {
    /// The model's identity.
    pub identity: Identity,
    /// Bytes on disk.
    pub bytes_max: u64,
    /// How long pages are kept that nobody uses.
    pub age_max: Duration,
    /// Told once why there is no cache, if that is so.
    pub problem: Box<dyn FnOnce(String) + Send>,
}

/// What the threads begin with.
type Beginning = (Identity, Box<dyn FnOnce(String) + Send>);

/// What the cache has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptCacheState {
    /// The model's identity is known, and the directory open.
    pub ready: bool,
    /// What is on disk.
    pub kept: Kept,
    /// Pages written.
    pub written: u64,
    /// Pages not written: the queue or the disk was full, or failed.
    pub dropped: u64,
    /// Pages restored.
    pub read: u64,
    /// Pages that were there and could not be opened.
    pub damaged: u64,
}

/// What is in the cache of a data directory.
///
/// # Errors
/// If the directory cannot be read.
pub fn kept(data: &Path) -> io::Result<Kept> {
    files::kept(&data.join(DIRECTORY))
}

/// Removes everything from the cache of a data directory, and the secret with which it was encrypted.
///
/// # Errors
/// If something cannot be removed.
pub fn clear(data: &Path) -> io::Result<()> {
    files::clear(&data.join(DIRECTORY))
}

/// Removes the pages of an API key (given by what its pages are bound to) from the cache of a data directory.
pub(crate) fn forget(data: &Path, binding: &Bytes32) -> io::Result<()> {
    files::forget(&data.join(DIRECTORY), binding)
}

/// The cache, as the engine's thread and the handlers use it.
pub(crate) struct PromptCache {
    directory: PathBuf,
    room: Room,
    /// Until the threads are started.
    beginning: Mutex<Option<Beginning>>,
    files: OnceLock<Files>,
    /// What the pages of an owner are bound to.
    bindings: Mutex<HashMap<Owner, Binding>>,
    ways: Mutex<Ways>,
    queued_bytes: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
    read: AtomicU64,
    damaged: AtomicU64,
}

/// The ways to the threads, and the threads.
#[derive(Default)]
struct Ways {
    writes: Option<Sender<Write>>,
    reads: Option<SyncSender<Read>>,
    threads: Vec<JoinHandle<()>>,
}

/// What an owner's pages are bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    /// The API key: its pages lie together and go together.
    pub(crate) key: Bytes32,
    /// The key's user, in the names of the pages; zeros if there is none.
    pub(crate) user: Bytes32,
}

/// The most owners whose bindings are kept.
const BINDINGS_MAX: usize = 65_536;

/// A page to be written.
struct Write {
    seal: Arc<Seal>,
    name: Bytes32,
    page: Vec<u8>,
}

/// Pages to be read for a request.
pub(crate) struct Read {
    pub(crate) request: RequestId,
    owner: Owner,
    seal: Arc<Seal>,
    tokens: Vec<u32>,
    first: usize,
    names: Vec<Bytes32>,
}

/// Where read pages go.
pub(crate) type Deliver = Box<dyn Fn(RequestId, Restored) + Send>;

impl PromptCache {
    /// A cache in a data directory; nothing happens before [`PromptCache::start`].
    pub(crate) fn new(data: &Path, options: PromptCacheOptions) -> Arc<PromptCache> {
        Arc::new(PromptCache {
            directory: data.join(DIRECTORY),
            room: Room { bytes_max: options.bytes_max, age_max: options.age_max },
            beginning: Mutex::new(Some((options.identity, options.problem))),
            files: OnceLock::new(),
            bindings: Mutex::default(),
            ways: Mutex::default(),
            queued_bytes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            read: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        })
    }

    /// Starts the threads, once, for pages of so many bytes (none if 0).
    pub(crate) fn start(self: &Arc<Self>, page_bytes: usize, deliver: Deliver) {
        let Some(beginning) = lock(&self.beginning).take().filter(|_| page_bytes > 0) else { return };
        let (writes, to_write) = channel();
        let (reads, to_read) = sync_channel(READS_MAX);
        let mut ways = lock(&self.ways);
        (ways.writes, ways.reads) = (Some(writes), Some(reads));
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let (writer, reader) = (Arc::clone(self), Arc::clone(self));
        let writer = named("cache-write").spawn(move || writer.write(beginning, page_bytes, to_write));
        let reader = named("cache-read").spawn(move || reader.read(to_read, deliver));
        // Without threads there is no cache; nothing else depends on it.
        ways.threads.extend([writer, reader].into_iter().flatten());
    }

    /// Writes what waits and ends the threads.
    pub(crate) fn close(&self) {
        let mut ways = lock(&self.ways);
        (ways.writes, ways.reads) = (None, None);
        let threads = std::mem::take(&mut ways.threads);
        drop(ways);
        if self.files.get().is_none() {
            // A large model is being read for its identity; nothing waits to be written.
            return;
        }
        for thread in threads {
            // A panic there has cost pages and nothing else.
            let _ = thread.join();
        }
    }

    /// Tells what the pages of an owner are bound to; before its first request.
    pub(crate) fn bind(&self, owner: Owner, binding: Binding) {
        let mut bindings = lock(&self.bindings);
        // Every request tells its own again.
        if bindings.len() >= BINDINGS_MAX {
            bindings.clear();
        }
        bindings.insert(owner, binding);
    }

    /// What would be read for a request of which `known` pages are in memory already; `None` if that is nothing.
    pub(crate) fn find(&self, request: RequestId, owner: Owner, tokens: &[u32], known: usize) -> Option<Read> {
        let files = self.files.get()?;
        // One token is always left to be computed.
        let pages = tokens.len().saturating_sub(1) / PAGE_LEN;
        if pages <= known {
            return None;
        }
        let Binding { key, user } = *lock(&self.bindings).get(&owner)?;
        let seal = files.seal(&key);
        let mut names = seal.names(&user, &tokens[..pages * PAGE_LEN]);
        names.drain(..known);
        names.truncate(READ_BYTES_MAX / files.page_bytes());
        names.truncate(files.stored(&seal, &names, SystemTime::now()));
        let tokens = tokens.to_vec();
        (!names.is_empty()).then_some(Read { request, owner, seal, tokens, first: known, names })
    }

    /// Has pages read; false if too many wait.
    pub(crate) fn fetch(&self, read: Read) -> bool {
        lock(&self.ways).reads.as_ref().is_some_and(|reads| reads.try_send(read).is_ok())
    }

    /// Has pages written that have become known.
    pub(crate) fn keep(&self, published: &[Published], page: impl Fn(PageId, &mut Vec<u8>)) {
        let (Some(files), ways) = (self.files.get(), lock(&self.ways)) else { return };
        let Some(writes) = &ways.writes else { return };
        for Published { owner, tokens, pages } in published {
            let Some(Binding { key, user }) = lock(&self.bindings).get(owner).copied() else { continue };
            let seal = files.seal(&key);
            let names = seal.names(&user, tokens);
            for &(place, number) in pages {
                let bytes = files.page_bytes() as u64;
                if self.queued_bytes.load(Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let mut content = Vec::with_capacity(files.page_bytes());
                page(number, &mut content);
                self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
                // The thread takes it, or has ended and nobody will.
                let _ = writes.send(Write { seal: Arc::clone(&seal), name: names[place], page: content });
            }
        }
    }

    /// Removes all pages of a binding.
    pub(crate) fn forget(&self, binding: &Bytes32) -> io::Result<()> {
        match self.files.get() {
            Some(files) => files.forget(binding),
            None => files::forget(&self.directory, binding),
        }
    }

    /// What it holds and has done.
    pub(crate) fn state(&self) -> PromptCacheState {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PromptCacheState {
            ready: self.files.get().is_some(),
            kept: self.files.get().map(Files::kept).unwrap_or_default(),
            written: count(&self.written),
            dropped: count(&self.dropped),
            read: count(&self.read),
            damaged: count(&self.damaged),
        }
    }

    /// The writing thread.
    fn write(&self, (identity, problem): Beginning, page_bytes: usize, to_write: Receiver<Write>) {
        let open = move || {
            let mut all = Sha256::new_with_prefix(identity()?);
            // The form of a page.
            all.update((PAGE_LEN as u64).to_le_bytes());
            all.update((page_bytes as u64).to_le_bytes());
            Files::open(&self.directory, all.finalize().into(), page_bytes, self.room, SystemTime::now())
        };
        let files = match open() {
            Ok(files) => self.files.get_or_init(|| files),
            Err(error) => return problem(format!("{}: {error}", self.directory.display())),
        };
        for Write { seal, name, page } in to_write {
            self.queued_bytes.fetch_sub(page.len() as u64, Ordering::Relaxed);
            let done = files.store(&seal, &name, &page, SystemTime::now());
            let counter = if matches!(done, Ok(true)) { &self.written } else { &self.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The reading thread.
    fn read(&self, to_read: Receiver<Read>, deliver: Deliver) {
        for Read { request, owner, seal, tokens, first, names } in to_read {
            let mut pages = Vec::with_capacity(names.len());
            if let Some(files) = self.files.get() {
                for name in &names {
                    let Some(page) = files.load(&seal, name, SystemTime::now()) else {
                        self.damaged.fetch_add(1, Ordering::Relaxed);
                        break;
                    };
                    pages.push(page);
                }
            }
            self.read.fetch_add(pages.len() as u64, Ordering::Relaxed);
            deliver(request, Restored { owner, tokens, first, pages });
        }
    }
}

/// The locks here hold plain data that is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
