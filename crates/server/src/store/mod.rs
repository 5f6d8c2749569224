//! Keys, ledger, chats and kept responses: one SQLite file in the data directory.
//!
//! Writes are transactions in a write-ahead log that is synchronised with the disk before a request is told that it is
//! done. Deleted content is overwritten (`secure_delete`). Readers have a connection of their own and never wait for
//! writers. The directory is for its owner only.

pub mod chats;
pub mod keys;
pub mod ledger;
pub mod responses;

use std::fs::{DirBuilder, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use thiserror::Error;

/// The name of the file.
const FILE: &str = "fathom.db";

/// What takes the store from one version to the next; the file's `user_version` counts them.
const MIGRATIONS: [&str; 2] = [
    "
CREATE TABLE keys (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    hint TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    currency TEXT NOT NULL,
    hit_micro INTEGER NOT NULL,
    miss_micro INTEGER NOT NULL,
    output_micro INTEGER NOT NULL,
    balance_pico INTEGER,
    requests_per_minute INTEGER,
    answers_max INTEGER
) STRICT;
CREATE TABLE ledger (
    key INTEGER NOT NULL,
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    hit_tokens INTEGER NOT NULL,
    miss_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost_pico INTEGER NOT NULL,
    seconds REAL NOT NULL,
    joules REAL,
    joules_label TEXT,
    PRIMARY KEY (key, day, model)
) STRICT;
CREATE TABLE chats (
    key INTEGER NOT NULL,
    id TEXT NOT NULL,
    title TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL,
    words TEXT NOT NULL,
    PRIMARY KEY (key, id)
) STRICT;
CREATE INDEX chats_by_change ON chats (key, updated_ms DESC, id);
",
    "
CREATE TABLE responses (
    key INTEGER NOT NULL,
    id TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    conversation TEXT NOT NULL,
    response TEXT NOT NULL,
    PRIMARY KEY (key, id)
) STRICT;
CREATE INDEX responses_by_age ON responses (created_ms);
",
];

/// Why the store cannot do something.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The directory or the file cannot be made or opened.
    #[error("{path}: {error}")]
    Open {
        /// What.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file was made by a later version.
    #[error("{path}: made by a later version of fathom (store version {found}; this one knows {known})")]
    Later {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The latest that is known.
        known: usize,
    },
    /// SQLite's own words.
    #[error("the store failed: {0}")]
    Sql(#[from] rusqlite::Error),
    /// Pages of the prompt cache that cannot be removed.
    #[error("the prompt cache cannot be cleared: {0}")]
    PromptCache(std::io::Error),
    /// A value that cannot be stored.
    #[error("{0}")]
    Value(String),
}

/// The store.
pub struct Store {
    directory: PathBuf,
    write: Mutex<Connection>,
    read: Mutex<Connection>,
}

impl Store {
    /// Opens or makes the store in a directory.
    ///
    /// # Errors
    /// If directory or file cannot be used.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| StoreError::Open { path, error }
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        let file = directory.join(FILE);
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        {
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        builder.create(directory).map_err(failed(directory))?;
        drop(options.open(&file).map_err(failed(&file))?);
        let mut write = connect(&file)?;
        write.pragma_update(None, "journal_mode", "wal")?;
        write.pragma_update(None, "synchronous", "full")?;
        write.pragma_update(None, "secure_delete", "on")?;
        migrate(&mut write, &file)?;
        let read = connect(&file)?;
        read.pragma_update(None, "query_only", "on")?;
        Ok(Store { directory: directory.to_path_buf(), write: Mutex::new(write), read: Mutex::new(read) })
    }

    fn write(&self) -> MutexGuard<'_, Connection> {
        self.write.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> MutexGuard<'_, Connection> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(file)?;
    // Another process (`fathom keys`) may write for a moment.
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(connection)
}

/// Brings the file to the version of this program, each step whole or not at all.
fn migrate(connection: &mut Connection, file: &Path) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let found = found as usize;
    if found > MIGRATIONS.len() {
        return Err(StoreError::Later { path: file.to_path_buf(), found, known: MIGRATIONS.len() });
    }
    for step in &MIGRATIONS[found..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as u32)?;
    Ok(transaction.commit()?)
}

/// Writes the log back and cuts it: old versions of pages, deleted words among them, are there until then.
fn cut_log(write: &Connection) -> Result<(), StoreError> {
    Ok(write.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
