//! Chats under a key: the page's own objects, found again by id and by their words.

use rusqlite::{OptionalExtension, Row, params, params_from_iter};
use serde_json::Value;

use super::{Store, StoreError, now_ms};
use crate::wire::chats::{ChatRow, StoredChat};

/// What became of a change.
#[derive(Debug, PartialEq)]
pub(crate) enum Put {
    Stored(ChatRow),
    /// The chat has this revision, or none if it does not exist.
    Conflict(Option<i64>),
    /// The key has as many chats as it may have.
    Full,
}

const COLUMNS: &str = "id, title, created_ms, updated_ms, revision, length(CAST(body AS BLOB))";
const EXCERPT_CHARS: usize = 160;

impl Store {
    /// The chats of a key, newest change first, with all of `words` in them; those after `before`, if it is given.
    pub(crate) fn chats(
        &self,
        key: i64,
        words: &[String],
        before: Option<(i64, String)>,
        limit: usize,
    ) -> Result<Vec<ChatRow>, StoreError> {
        let read = self.read();
        let mut query = format!("SELECT {COLUMNS}, body FROM chats WHERE key = ?");
        let mut values: Vec<rusqlite::types::Value> = vec![key.into()];
        for word in words {
            query.push_str(" AND instr(words, ?) > 0");
            values.push(word.clone().into());
        }
        if let Some((updated_ms, id)) = before {
            query.push_str(" AND (updated_ms < ? OR (updated_ms = ? AND id > ?))");
            values.extend([updated_ms.into(), updated_ms.into(), id.into()]);
        }
        query.push_str(" ORDER BY updated_ms DESC, id LIMIT ?");
        values.push((limit as i64).into());
        let mut statement = read.prepare_cached(&query)?;
        let rows = statement.query_map(params_from_iter(values), |found| {
            let mut chat = row(found)?;
            if let Some(word) = words.first() {
                let body: String = found.get(6)?;
                chat.excerpt = excerpt(&serde_json::from_str(&body).unwrap_or_default(), word);
            }
            Ok(chat)
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A whole chat.
    pub(crate) fn chat(&self, key: i64, id: &str) -> Result<Option<StoredChat>, StoreError> {
        let read = self.read();
        let query = format!("SELECT {COLUMNS}, body FROM chats WHERE key = ? AND id = ?");
        Ok(read.prepare_cached(&query)?.query_row(params![key, id], stored).optional()?)
    }

    /// Stores a chat if its revision is the one that is known (`None`: it is new).
    pub(crate) fn chat_put(
        &self,
        key: i64,
        id: &str,
        known: Option<i64>,
        chat: &Value,
        chats_max: usize,
    ) -> Result<Put, StoreError> {
        let mut write = self.write();
        let transaction = write.transaction()?;
        let found = "SELECT revision FROM chats WHERE key = ? AND id = ?";
        let revision: Option<i64> = transaction.query_row(found, params![key, id], |row| row.get(0)).optional()?;
        if revision != known {
            return Ok(Put::Conflict(revision));
        }
        let count: i64 = transaction.query_row("SELECT count(*) FROM chats WHERE key = ?", [key], |row| row.get(0))?;
        if known.is_none() && count as usize >= chats_max {
            return Ok(Put::Full);
        }
        let title = chat["title"].as_str().unwrap_or_default();
        transaction.execute(
            "INSERT INTO chats VALUES (?1, ?2, ?3, ?4, ?4, 1, ?5, ?6) ON CONFLICT DO UPDATE SET \
             title = excluded.title, updated_ms = excluded.updated_ms, revision = revision + 1, \
             body = excluded.body, words = excluded.words",
            params![key, id, title, now_ms(), chat.to_string(), words_of(chat)],
        )?;
        let query = format!("SELECT {COLUMNS} FROM chats WHERE key = ? AND id = ?");
        let stored = transaction.query_row(&query, params![key, id], row)?;
        transaction.commit()?;
        Ok(Put::Stored(stored))
    }

    /// Deletes a chat, or all of a key; how many. What they said is gone from the files when this returns.
    pub(crate) fn chats_delete(&self, key: i64, id: Option<&str>) -> Result<usize, StoreError> {
        let write = self.write();
        let count = match id {
            Some(id) => write.execute("DELETE FROM chats WHERE key = ? AND id = ?", params![key, id])?,
            None => write.execute("DELETE FROM chats WHERE key = ?", [key])?,
        };
        super::cut_log(&write)?;
        Ok(count)
    }

    /// The ids of all chats of a key, in the order of their making.
    pub(crate) fn chat_ids(&self, key: i64) -> Result<Vec<String>, StoreError> {
        let read = self.read();
        let mut statement = read.prepare_cached("SELECT id FROM chats WHERE key = ? ORDER BY created_ms, id")?;
        Ok(statement.query_map([key], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }
}

fn row(row: &Row) -> rusqlite::Result<ChatRow> {
    Ok(ChatRow {
        id: row.get(0)?,
        title: row.get(1)?,
        created_ms: row.get(2)?,
        updated_ms: row.get(3)?,
        revision: row.get(4)?,
        bytes: row.get(5)?,
        excerpt: None,
    })
}

fn stored(found: &Row) -> rusqlite::Result<StoredChat> {
    let body: String = found.get(6)?;
    Ok(StoredChat { row: row(found)?, chat: serde_json::from_str(&body).unwrap_or_default() })
}

/// All texts of a chat in small letters, one a line; keys and what is not text left out.
fn words_of(chat: &Value) -> String {
    let mut out = String::new();
    texts(chat, &mut |text| {
        out.push_str(&text.to_lowercase());
        out.push('\n');
        false
    });
    out
}

/// Tells the texts of a value in order until one is enough; whether one was.
fn texts(value: &Value, enough: &mut impl FnMut(&str) -> bool) -> bool {
    match value {
        Value::String(text) => enough(text),
        Value::Array(items) => items.iter().any(|item| texts(item, enough)),
        Value::Object(fields) => fields.values().any(|field| texts(field, enough)),
        _ => false,
    }
}

/// The text around the first place of a word.
fn excerpt(chat: &Value, word: &str) -> Option<String> {
    let mut found = None;
    texts(chat, &mut |text| {
        let lower = text.to_lowercase();
        let Some(at) = lower.find(word) else { return false };
        // Small letters may be longer or shorter than capitals; characters are counted instead of bytes.
        let before = lower[..at].chars().count();
        let start = before.saturating_sub(EXCERPT_CHARS / 3);
        let excerpt: String = text.chars().skip(start).take(EXCERPT_CHARS).collect();
        found = Some(excerpt.split_whitespace().collect::<Vec<_>>().join(" "));
        true
    });
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store)
    }

    #[test]
    fn a_change_needs_the_revision_that_it_changes() {
        let (_directory, store) = store();
        let put = |known, title: &str| store.chat_put(1, "chat-0001", known, &json!({"title": title}), 2).unwrap();
        assert!(matches!(put(None, "a"), Put::Stored(ChatRow { revision: 1, .. })));
        assert_eq!(put(None, "b"), Put::Conflict(Some(1)));
        assert!(matches!(put(Some(1), "b"), Put::Stored(ChatRow { revision: 2, .. })));
        assert_eq!(put(Some(1), "c"), Put::Conflict(Some(2)));
        assert_eq!(store.chat(1, "chat-0001").unwrap().unwrap().chat, json!({"title": "b"}));
        assert!(store.chat(2, "chat-0001").unwrap().is_none(), "another key does not see it");
        assert!(matches!(store.chat_put(1, "chat-0002", None, &json!({}), 2).unwrap(), Put::Stored(_)));
        assert_eq!(store.chat_put(1, "chat-0003", None, &json!({}), 2).unwrap(), Put::Full);
    }

    #[test]
    fn chats_are_found_by_their_words_in_any_language() {
        let (_directory, store) = store();
        let long = format!("{} the Needle {}", "hay ".repeat(100), "hay ".repeat(100));
        for (id, text) in [("chat-0001", long.as_str()), ("chat-0002", "مرحبا بالعالم"), ("chat-0003", "Ärger")]
        {
            store.chat_put(1, id, None, &json!({"title": "T", "messages": [{"content": text}]}), 9).unwrap();
        }
        let find = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| w.to_lowercase()).collect();
            store.chats(1, &words, None, 10).unwrap()
        };
        let ids = |rows: Vec<ChatRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
        let found = find(&["needle"]);
        let excerpt = found[0].excerpt.clone().unwrap();
        assert!(excerpt.contains("the Needle") && excerpt.chars().count() <= EXCERPT_CHARS);
        assert_eq!(ids(find(&["needle", "hay"])), ["chat-0001"]);
        assert_eq!(ids(find(&["العالم"])), ["chat-0002"]);
        assert_eq!(ids(find(&["ärger"])), ["chat-0003"]);
        assert!(find(&["content"]).is_empty(), "names of fields are not words");
    }

    #[test]
    fn deleted_words_are_gone_from_the_files() {
        let (directory, store) = store();
        let canary = "canary-7f3a91";
        for i in 0..50 {
            let chat = json!({"title": canary, "text": canary.repeat(200)});
            store.chat_put(1, &format!("chat-{i:04}"), None, &chat, 99).unwrap();
        }
        assert_eq!(store.chats_delete(1, None).unwrap(), 50);
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(canary.len()).any(|w| w == canary.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}
