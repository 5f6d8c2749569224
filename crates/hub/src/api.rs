//! The hub's API, as far as a pull needs it: which commit a revision is, and the list of files at that commit.
//!
//! - `GET {endpoint}/api/models/{org}/{name}/revision/{rev}`: JSON with `sha`, the commit.
//! - `GET {endpoint}/api/models/{org}/{name}/tree/{commit}?recursive=true`: JSON list of `{type, path, size, oid,
//!   lfs: {oid, size}}`, in pages; the next one is in the header `Link: <url>; rel="next"`. `oid` is git's blob id,
//!   `lfs.oid` the SHA-256 of the content.
//! - `GET {endpoint}/{org}/{name}/resolve/{commit}/{path}`: the file, mostly by a redirect to a store elsewhere.
//!
//! Source: Hugging Face's Hub API documentation and the behaviour of its own client, `huggingface_hub`.

use std::collections::HashSet;

use serde::Deserialize;
use ureq::http::HeaderMap;

use crate::error::{PullError, clip};
use crate::hash::{FileHash, is_hex};
use crate::http::Client;
use crate::progress::Progress;
use crate::reference::{Reference, plain_path};

/// Most files in a repository's list, and most pages it comes in.
const FILES_LIMIT: usize = 100_000;
const PAGES_LIMIT: usize = 1000;

/// A file on the hub whose name is safe to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
    pub(crate) hash: FileHash,
}

#[derive(Deserialize)]
struct RevisionAnswer {
    sha: String,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<LfsEntry>,
}

#[derive(Deserialize)]
struct LfsEntry {
    oid: String,
    size: u64,
}

/// The commit that the reference's revision stands for now.
pub(crate) fn commit_of(
    client: &Client<'_>,
    reference: &Reference,
    progress: &dyn Progress,
) -> Result<String, PullError> {
    let path = format!("/api/models/{}/revision/{}", reference.model(), reference.revision_or_main());
    let (json, _) = client.get_json(&path, progress)?;
    let answer: RevisionAnswer = serde_json::from_slice(&json)
        .map_err(|error| client.answer_error(&path, format!("it is not the JSON expected ({error})")))?;
    if !is_hex(&answer.sha, 40) {
        return Err(client.answer_error(&path, format!("{:?} is not a commit", clip(&answer.sha, 60))));
    }
    Ok(answer.sha)
}

/// The files at `commit`. A name that would leave the directory is an error; a name that is merely unusual (spaces,
/// other alphabets) belongs to no model file and is left out.
pub(crate) fn files_at(
    client: &Client<'_>,
    reference: &Reference,
    commit: &str,
    progress: &dyn Progress,
) -> Result<Vec<RemoteFile>, PullError> {
    let base = format!("/api/models/{}/tree/{commit}", reference.model());
    let mut query = "recursive=true".to_string();
    let mut files = Vec::new();
    let mut seen_paths = HashSet::new();
    for _ in 0..PAGES_LIMIT {
        let path = format!("{base}?{query}");
        let (json, headers) = client.get_json(&path, progress)?;
        let entries: Vec<TreeEntry> = serde_json::from_slice(&json)
            .map_err(|error| client.answer_error(&base, format!("it is not the JSON expected ({error})")))?;
        if seen_paths.len() + entries.len() > FILES_LIMIT {
            return Err(client.answer_error(&base, format!("it lists more than {FILES_LIMIT} files")));
        }
        for entry in entries {
            check_inside(&entry.path)?;
            if !seen_paths.insert(entry.path.clone()) {
                return Err(client.answer_error(&base, format!("it lists {:?} twice", clip(&entry.path, 200))));
            }
            files.extend(remote_file(client, &base, entry)?);
        }
        match next_query(&headers) {
            None => return Ok(files),
            Some(next) if next == query => break,
            Some(next) => query = next,
        }
    }
    Err(client.answer_error(&base, format!("its pages do not end (or are more than {PAGES_LIMIT})")))
}

/// The path to GET for a file of the list.
pub(crate) fn file_path(reference: &Reference, commit: &str, file: &str) -> String {
    // Plain characters only (`plain_path`), so nothing has to be escaped.
    format!("/{}/resolve/{commit}/{file}", reference.model())
}

fn remote_file(client: &Client<'_>, path: &str, entry: TreeEntry) -> Result<Option<RemoteFile>, PullError> {
    if entry.kind != "file" || plain_path(&entry.path).is_err() {
        return Ok(None);
    }
    let (hash, size_bytes) = match entry.lfs {
        Some(lfs) => {
            let digits = lfs.oid.strip_prefix("sha256:").unwrap_or(&lfs.oid).to_string();
            (FileHash::Sha256(digits), lfs.size)
        }
        None => (FileHash::GitSha1(entry.oid), entry.size),
    };
    if !hash.is_well_formed() {
        let why = format!("{:?} has the hash {:?}, which is no {}", entry.path, clip(hash.hex(), 80), hash.algorithm());
        return Err(client.answer_error(path, why));
    }
    Ok(Some(RemoteFile { path: entry.path, size_bytes, hash }))
}

/// An attempt to leave the model's directory is no accident, so it ends the pull.
fn check_inside(path: &str) -> Result<(), PullError> {
    let leaves = path.is_empty()
        || path.starts_with('/')
        || path.contains(['\\', ':'])
        || path.chars().any(char::is_control)
        || path.split('/').any(|component| matches!(component, ".." | "."));
    if leaves { Err(PullError::UnsafeName { name: clip(path, 200) }) } else { Ok(()) }
}

/// The query of the next page. Only the query is taken, never the address: mirrors pass on links to the original
/// hub, and a link must not choose where the token goes.
fn next_query(headers: &HeaderMap) -> Option<String> {
    let links = headers.get("link")?.to_str().ok()?;
    for link in links.split(',') {
        let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        if is_next {
            let (_, query) = url.split_once('?')?;
            let query = query.split('#').next().unwrap_or_default();
            let plain =
                query.len() <= 4096 && query.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&b));
            return plain.then(|| query.to_string());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_is_a_query_only() {
        let query = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("link", link.parse().unwrap());
            next_query(&headers)
        };
        let link = "<https://elsewhere.example/api/models/a/b/tree/x?recursive=true&cursor=ab%3D>; rel=\"next\"";
        assert_eq!(query(link).as_deref(), Some("recursive=true&cursor=ab%3D"));
        assert_eq!(
            query("<https://h/x?first>; rel=\"first\", </y?cursor=2>; rel=\"next\"").as_deref(),
            Some("cursor=2")
        );
        assert_eq!(query("<https://h/x?last>; rel=\"last\""), None);
        assert_eq!(query("nonsense"), None);
    }

    #[test]
    fn names_that_leave_the_directory() {
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a/..", ".", "a\\..\\x", "C:x", "a\nb", "a\0"] {
            assert!(check_inside(path).is_err(), "{path:?}");
        }
        for path in ["config.json", ".gitattributes", "figures/a b.png", "résumé.md", "a..b"] {
            check_inside(path).unwrap();
        }
    }
}
