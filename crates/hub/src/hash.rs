//! The two hashes that a hub's file list gives: SHA-256 of the content for large files (git LFS pointers), and git's
//! blob id for small ones: SHA-1 over the header `blob {length}\0` and the content (git object format).

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a file's content has to hash to, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileHash {
    /// SHA-256 of the content.
    Sha256(String),
    /// git's blob id.
    GitSha1(String),
}

impl FileHash {
    /// The hexadecimal digits.
    pub(crate) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitSha1(hex) => hex,
        }
    }

    /// The name of the algorithm, for messages.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitSha1(_) => "git SHA-1",
        }
    }

    /// Whether the digits are as many as the algorithm gives, and lower-case.
    pub(crate) fn is_well_formed(&self) -> bool {
        let digits = match self {
            Self::Sha256(_) => 64,
            Self::GitSha1(_) => 40,
        };
        is_hex(self.hex(), digits)
    }
}

/// Whether `text` is exactly `digits` lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Hashes content as it arrives.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    GitSha1(Sha1),
}

impl Hasher {
    /// For a file of `size_bytes` (git puts the length in front) that should become `expected`.
    pub(crate) fn new(expected: &FileHash, size_bytes: u64) -> Self {
        match expected {
            FileHash::Sha256(_) => Self::Sha256(Sha256::new()),
            FileHash::GitSha1(_) => {
                let mut sha = Sha1::new();
                sha.update(format!("blob {size_bytes}\0").as_bytes());
                Self::GitSha1(sha)
            }
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sha) => sha.update(bytes),
            Self::GitSha1(sha) => sha.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> String {
        match self {
            Self::Sha256(sha) => hex(&sha.finalize()),
            Self::GitSha1(sha) => hex(&sha.finalize()),
        }
    }

    /// Takes in all of a reader; `seen` gets the bytes so far and says whether to go on. Returns the byte count.
    pub(crate) fn read_all(&mut self, mut from: impl Read, mut seen: impl FnMut(u64) -> bool) -> io::Result<u64> {
        let mut buffer = vec![0; 1 << 17];
        let mut total_bytes = 0;
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(total_bytes),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.update(&buffer[..count]);
            total_bytes += count as u64;
            if !seen(total_bytes) {
                return Ok(total_bytes);
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(kind: FileHash, content: &[u8]) -> String {
        let mut hasher = Hasher::new(&kind, content.len() as u64);
        hasher.read_all(content, |_| true).unwrap();
        hasher.finish()
    }

    #[test]
    fn known_values() {
        // `printf 'hello\n' | git hash-object --stdin` and `sha256sum`; the empty blob is git's best-known id.
        let git = |content: &[u8]| hash_of(FileHash::GitSha1(String::new()), content);
        assert_eq!(git(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(git(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(
            hash_of(FileHash::Sha256(String::new()), b"hello\n"),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
    }

    #[test]
    fn hex_is_strict() {
        assert!(is_hex("0af9", 4));
        for (text, digits) in [("0AF9", 4), ("0af", 4), ("0ag9", 4), ("0af99", 4), ("é9", 3)] {
            assert!(!is_hex(text, digits), "{text}");
        }
    }
}
