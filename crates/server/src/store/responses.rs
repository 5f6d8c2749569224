//! Responses that are kept under a key, with the conversation that each of them answers.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, now_ms};

/// A kept response: both parts are JSON.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredResponse {
    /// The items of the conversation before it.
    pub(crate) conversation: String,
    /// The response object.
    pub(crate) response: String,
}

impl Store {
    /// A response that is not older than `age_max`.
    pub(crate) fn response(&self, key: i64, id: &str, age_max: Duration) -> Result<Option<StoredResponse>, StoreError> {
        let read = self.read();
        let query = "SELECT conversation, response FROM responses WHERE key = ? AND id = ? AND created_ms > ?";
        let found = |row: &rusqlite::Row| Ok(StoredResponse { conversation: row.get(0)?, response: row.get(1)? });
        Ok(read.prepare_cached(query)?.query_row(params![key, id, oldest_ms(age_max)], found).optional()?)
    }

    /// How many responses a key has.
    pub(crate) fn responses(&self, key: i64) -> Result<usize, StoreError> {
        let count = "SELECT count(*) FROM responses WHERE key = ?";
        let count: i64 = self.read().query_row(count, [key], |row| row.get(0))?;
        Ok(count as usize)
    }

    /// Keeps a response.
    pub(crate) fn response_put(&self, key: i64, id: &str, stored: &StoredResponse) -> Result<(), StoreError> {
        let StoredResponse { conversation, response } = stored;
        let values = params![key, id, now_ms(), conversation, response];
        self.write().execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?)", values)?;
        Ok(())
    }

    /// Deletes a response; whether there was one. What it said is gone from the files when this returns.
    pub(crate) fn response_delete(&self, key: i64, id: &str) -> Result<bool, StoreError> {
        let write = self.write();
        let count = write.execute("DELETE FROM responses WHERE key = ? AND id = ?", params![key, id])?;
        super::cut_log(&write)?;
        Ok(count > 0)
    }

    /// Deletes the responses of all keys that are older than `age_max`.
    pub(crate) fn responses_expire(&self, age_max: Duration) -> Result<(), StoreError> {
        let write = self.write();
        if write.execute("DELETE FROM responses WHERE created_ms <= ?", [oldest_ms(age_max)])? > 0 {
            super::cut_log(&write)?;
        }
        Ok(())
    }
}

fn oldest_ms(age_max: Duration) -> i64 {
    now_ms().saturating_sub(i64::try_from(age_max.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_response_is_its_keys_alone_and_ends_with_its_age() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let stored = StoredResponse { conversation: "[]".into(), response: "{\"id\":\"canary-19f2\"}".into() };
        store.response_put(1, "resp_1", &stored).unwrap();
        assert!(store.response_put(1, "resp_1", &stored).is_err(), "an id is used once");
        assert_eq!(store.response(1, "resp_1", DAY).unwrap().as_ref(), Some(&stored));
        assert_eq!(store.response(2, "resp_1", DAY).unwrap(), None);
        assert_eq!((store.responses(1).unwrap(), store.responses(2).unwrap()), (1, 0));
        assert!(!store.response_delete(2, "resp_1").unwrap(), "another key deletes nothing");
        store.responses_expire(DAY).unwrap();
        assert_eq!(store.responses(1).unwrap(), 1);
        assert_eq!(store.response(1, "resp_1", Duration::ZERO).unwrap(), None, "too old");
        store.responses_expire(Duration::ZERO).unwrap();
        assert_eq!(store.responses(1).unwrap(), 0);
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(11).any(|window| window == b"canary-19f2"), "deleted words are gone");
        }
    }
}
