//! What protects pages on disk: their names, and how they are encrypted.
//!
//! All keys come from one secret of 32 random bytes in the cache's directory, the model's identity and what binds an
//! API key (the hash of its secret). A page's name is a keyed hash of the text up to its end, so nobody without the
//! secret can tell from a name what was said, and one API key never computes the name of another's page. A page is
//! encrypted with XChaCha20-Poly1305 under a random nonce and authenticated together with its name: a page that was
//! changed, cut, or put in another's place does not open.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use engine::step::PAGE_LEN;
use sha2::{Digest, Sha256};

/// What 32 secret or hashed bytes are.
pub(crate) type Bytes32 = [u8; 32];

/// The name of the secret's file.
pub(super) const SECRET: &str = "secret";
/// What a page's file begins with: the kind of file and its version.
const MAGIC: &[u8; 8] = b"fthmpg\x01\n";
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Bytes of the file of a page beyond the page's own.
pub(super) const OVERHEAD: usize = MAGIC.len() + NONCE_BYTES + TAG_BYTES;

/// The directory of an owner, in 16 bytes.
pub(super) type OwnerTag = [u8; 16];

/// The keys of one owner's pages of one model.
pub(super) struct Seal {
    pub(super) owner: OwnerTag,
    naming: Bytes32,
    cipher: XChaCha20Poly1305,
}

impl Seal {
    pub(super) fn new(secret: &Bytes32, identity: &Bytes32, binding: &Bytes32) -> Seal {
        let key = |purpose| hash(secret, purpose, &[identity, binding]);
        let cipher = XChaCha20Poly1305::new(&Key::from(key(b"page")));
        Seal { owner: owner_tag(secret, binding), naming: key(b"name"), cipher }
    }

    /// The names of the full pages of a user's text, each one standing for all that comes before its end.
    pub(super) fn names(&self, user: &Bytes32, tokens: &[u32]) -> Vec<Bytes32> {
        let mut before = *user;
        let names = tokens.chunks_exact(PAGE_LEN).map(|page| {
            let bytes: Vec<u8> = page.iter().flat_map(|token| token.to_le_bytes()).collect();
            before = hash(&self.naming, b"text", &[&before, &bytes]);
            before
        });
        names.collect()
    }

    /// The file of a page.
    pub(super) fn close(&self, name: &Bytes32, page: &[u8]) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: page, aad: &bound(name) });
        let sealed = sealed.map_err(|_| io::Error::other("a page is too long to be encrypted"))?;
        let mut file = Vec::with_capacity(OVERHEAD + page.len());
        file.extend(MAGIC);
        file.extend(nonce);
        file.extend(sealed);
        Ok(file)
    }

    /// The page in a file, if it is the one of this name, untouched.
    pub(super) fn open(&self, name: &Bytes32, file: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = file.strip_prefix(MAGIC)?.split_first_chunk::<NONCE_BYTES>()?;
        self.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &bound(name) }).ok()
    }
}

/// What is authenticated beside a page.
fn bound(name: &Bytes32) -> [u8; 40] {
    let mut all = [0; 40];
    all[..8].copy_from_slice(MAGIC);
    all[8..].copy_from_slice(name);
    all
}

/// The directory of an owner's pages, of all models.
pub(super) fn owner_tag(secret: &Bytes32, binding: &Bytes32) -> OwnerTag {
    let whole = hash(secret, b"ownr", &[binding]);
    *whole.first_chunk().unwrap_or(&[0; 16])
}

/// A keyed hash. Hashed twice, so that knowing one says nothing of that of a longer text.
fn hash(key: &Bytes32, purpose: &[u8; 4], parts: &[&[u8]]) -> Bytes32 {
    let mut inner = Sha256::new_with_prefix(key);
    inner.update(purpose);
    parts.iter().for_each(|part| inner.update(part));
    Sha256::digest(inner.finalize()).into()
}

/// The secret of a directory, made if there is none; false beside it if one was there that could not be used, so that
/// no page can be opened any more.
pub(super) fn secret(directory: &Path) -> io::Result<(Bytes32, bool)> {
    let path = directory.join(SECRET);
    let found = match fs::read(&path) {
        Ok(bytes) => Some(Bytes32::try_from(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(Ok(secret)) = found {
        return Ok((secret, true));
    }
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|error| io::Error::other(error.to_string()))?;
    let temporary = directory.join(format!("{SECRET}.new-{}", std::process::id()));
    let mut file = private(OpenOptions::new().write(true).create(true).truncate(true)).open(&temporary)?;
    file.write_all(&fresh)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    // Another process may have made one at the same moment.
    let secret = Bytes32::try_from(fs::read(&path)?).map_err(|_| io::Error::other("the secret has a wrong length"))?;
    Ok((secret, found.is_none()))
}

/// A file that only its owner can read.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_opens_under_its_own_name_and_keys_only() {
        let [secret, model, key] = [[1; 32], [2; 32], [3; 32]];
        let seal = Seal::new(&secret, &model, &key);
        let page: Vec<u8> = (0..200).map(|i| i as u8).collect();
        let names = seal.names(&[0; 32], &(0..3 * PAGE_LEN as u32 + 5).collect::<Vec<_>>());
        assert_eq!(names.len(), 3);
        let file = seal.close(&names[1], &page).unwrap();
        assert_eq!(file.len(), page.len() + OVERHEAD);
        assert_eq!(seal.open(&names[1], &file).as_deref(), Some(page.as_slice()));
        assert_ne!(seal.close(&names[1], &page).unwrap(), file, "another nonce");
        assert_eq!(seal.open(&names[2], &file), None);
        for other in [
            Seal::new(&[9; 32], &model, &key),
            Seal::new(&secret, &[9; 32], &key),
            Seal::new(&secret, &model, &[9; 32]),
        ] {
            assert_eq!(other.open(&names[1], &file), None);
            assert!(other.names(&[0; 32], &[0; PAGE_LEN]) != seal.names(&[0; 32], &[0; PAGE_LEN]));
        }
        // Every single bit counts, and every length.
        for bit in 0..file.len() * 8 {
            let mut changed = file.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seal.open(&names[1], &changed), None, "bit {bit}");
        }
        assert!((0..file.len()).all(|length| seal.open(&names[1], &file[..length]).is_none()));
    }

    #[test]
    fn names_stand_for_the_whole_text_before_them() {
        let seal = Seal::new(&[1; 32], &[2; 32], &[3; 32]);
        let (a, b) = ([1u32; PAGE_LEN], [2u32; PAGE_LEN]);
        let (first, second) = (seal.names(&[0; 32], &[a, b].concat()), seal.names(&[0; 32], &[b, b].concat()));
        assert_ne!(first[1], second[1], "the same page after another");
        assert_eq!(first[0], seal.names(&[0; 32], &a)[0]);
    }

    #[test]
    fn a_secret_is_kept_and_a_broken_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (made, usable) = secret(directory.path()).unwrap();
        assert!(usable);
        assert_eq!(secret(directory.path()).unwrap(), (made, true));
        fs::write(directory.path().join(SECRET), b"short").unwrap();
        let (again, usable) = secret(directory.path()).unwrap();
        assert!(again != made && !usable);
    }
}
