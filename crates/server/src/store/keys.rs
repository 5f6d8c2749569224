//! API keys: who may ask, at what price, how much.
//!
//! A key is `fk-` and 256 random bits in hexadecimal, shown once when it is made. What is stored is its SHA-256, so
//! neither the file nor the time of a comparison tells anything about it.

use rusqlite::{OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use super::ledger::Prices;
use super::{Store, StoreError, now_ms};

/// A key as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its first characters.
    pub hint: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// When it was revoked.
    pub revoked_ms: Option<i64>,
    /// What tokens cost.
    pub prices: Prices,
    /// What is left, in millionths of a millionth; `None`: no limit.
    pub balance_pico: Option<i64>,
    /// Requests a minute.
    pub requests_per_minute: Option<u32>,
    /// Answers at the same time.
    pub answers_max: Option<u32>,
    /// The hash of its secret, to which what is kept for it is bound.
    pub(crate) hash: [u8; 32],
}

/// A key to be made.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// Its name, not empty, at most 100 characters.
    pub name: String,
    /// What tokens cost.
    pub prices: Prices,
    /// What it may spend, in millionths of a millionth.
    pub balance_pico: Option<i64>,
    /// Requests a minute.
    pub requests_per_minute: Option<u32>,
    /// Answers at the same time.
    pub answers_max: Option<u32>,
}

const COLUMNS: &str = "id, name, hint, created_ms, revoked_ms, currency, hit_micro, miss_micro, output_micro, \
                       balance_pico, requests_per_minute, answers_max, hash";

impl Store {
    /// Makes a key and returns its secret, which is nowhere else.
    ///
    /// # Errors
    /// If the name or a price cannot be used, or the store fails.
    pub fn key_new(&self, new: &NewKey) -> Result<(Key, String), StoreError> {
        let name = new.name.trim();
        if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
            let message = "a key's name has 1 to 100 characters, none of them control characters";
            return Err(StoreError::Value(message.into()));
        }
        new.prices.check().map_err(StoreError::Value)?;
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(|error| StoreError::Value(format!("no random numbers: {error}")))?;
        let secret = format!("fk-{}", hex(&random));
        let hint = format!("{}…", &secret[..9]);
        let prices = &new.prices;
        let write = self.write();
        write.execute(
            "INSERT INTO keys (name, hash, hint, created_ms, currency, hit_micro, miss_micro, output_micro, \
             balance_pico, requests_per_minute, answers_max) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                name,
                hash(&secret),
                hint,
                now_ms(),
                prices.currency,
                prices.hit_micro,
                prices.miss_micro,
                prices.output_micro,
                new.balance_pico,
                new.requests_per_minute,
                new.answers_max,
            ],
        )?;
        let id = write.last_insert_rowid();
        let key = write.query_row(&format!("SELECT {COLUMNS} FROM keys WHERE id = ?"), [id], key)?;
        Ok((key, secret))
    }

    /// All keys, the first made first.
    ///
    /// # Errors
    /// If the store fails.
    pub fn keys(&self) -> Result<Vec<Key>, StoreError> {
        let read = self.read();
        let mut statement = read.prepare_cached(&format!("SELECT {COLUMNS} FROM keys ORDER BY id"))?;
        let rows = statement.query_map([], key)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Revokes a key by number or name; false if there is none such that was not revoked before. What the prompt cache
    /// holds for it is removed.
    ///
    /// # Errors
    /// If several keys have the name, or the store fails.
    pub fn key_revoke(&self, which: &str) -> Result<bool, StoreError> {
        let keys = self.keys()?;
        let named = |key: &&Key| key.revoked_ms.is_none() && (key.name == which || key.id.to_string() == which);
        let found: Vec<&Key> = keys.iter().filter(named).collect();
        match found[..] {
            [] => Ok(false),
            [key] => {
                let change = "UPDATE keys SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL";
                let revoked = self.write().execute(change, params![now_ms(), key.id])? == 1;
                crate::prompt_cache::forget(&self.directory, &key.hash).map_err(StoreError::PromptCache)?;
                Ok(revoked)
            }
            _ => Err(StoreError::Value(format!("{} keys are called {which:?}; give the number", found.len()))),
        }
    }

    /// Adds to what a key may spend (or takes away); the new balance, or `None` if there is no such key.
    ///
    /// # Errors
    /// If the store fails.
    pub fn key_credit(&self, id: i64, pico: i64) -> Result<Option<i64>, StoreError> {
        let change = "UPDATE keys SET balance_pico = coalesce(balance_pico, 0) + ? WHERE id = ? RETURNING balance_pico";
        Ok(self.write().query_row(change, params![pico, id], |row| row.get(0)).optional()?)
    }

    /// The key with this secret, if it was not revoked.
    ///
    /// # Errors
    /// If the store fails.
    pub fn key_of(&self, secret: &str) -> Result<Option<Key>, StoreError> {
        let read = self.read();
        let query = format!("SELECT {COLUMNS} FROM keys WHERE hash = ? AND revoked_ms IS NULL");
        Ok(read.prepare_cached(&query)?.query_row([hash(secret)], key).optional()?)
    }

    /// Whether a key was ever made: from then on every request needs one.
    ///
    /// # Errors
    /// If the store fails.
    pub fn any_key(&self) -> Result<bool, StoreError> {
        let read = self.read();
        Ok(read.prepare_cached("SELECT EXISTS (SELECT 1 FROM keys)")?.query_row([], |row| row.get(0))?)
    }
}

fn key(row: &Row) -> rusqlite::Result<Key> {
    Ok(Key {
        id: row.get(0)?,
        name: row.get(1)?,
        hint: row.get(2)?,
        created_ms: row.get(3)?,
        revoked_ms: row.get(4)?,
        prices: Prices {
            currency: row.get(5)?,
            hit_micro: row.get(6)?,
            miss_micro: row.get(7)?,
            output_micro: row.get(8)?,
        },
        balance_pico: row.get(9)?,
        requests_per_minute: row.get(10)?,
        answers_max: row.get(11)?,
        hash: row.get(12)?,
    })
}

fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_secret_only_and_until_it_is_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert!(!store.any_key().unwrap());
        let new = NewKey { name: "laptop".into(), balance_pico: Some(5), ..NewKey::default() };
        let (made, secret) = store.key_new(&new).unwrap();
        assert_eq!(store.key_of(&secret).unwrap().as_ref(), Some(&made));
        assert_eq!(store.key_of("fk-00").unwrap(), None);
        assert_eq!(store.key_credit(made.id, 10).unwrap(), Some(15));
        let again = Store::open(directory.path()).unwrap();
        assert!(again.key_revoke("laptop").unwrap() && !again.key_revoke("laptop").unwrap());
        assert_eq!(store.key_of(&secret).unwrap(), None);
        assert!(store.any_key().unwrap(), "revoking the last key does not open the server");
    }

    #[test]
    fn the_file_does_not_hold_the_secret_and_is_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("data");
        let store = Store::open(&inner).unwrap();
        let (_, secret) = store.key_new(&NewKey { name: "a".into(), ..NewKey::default() }).unwrap();
        for entry in std::fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(16).any(|w| w == &secret.as_bytes()[20..36]), "{}", path.display());
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
            }
        }
    }

    #[test]
    fn a_later_store_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let file = rusqlite::Connection::open(directory.path().join(super::super::FILE)).unwrap();
        file.pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains("later version of fathom (store version 99; this one knows 2)"), "{error}");
    }
}
