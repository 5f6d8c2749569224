//! The pages in a directory: one file each, found again, verified, and removed when they are old or too many.
//!
//! ```text
//!   prompt-cache/secret                          32 random bytes
//!   prompt-cache/pages/OWNER/NAME                one encrypted page
//! ```
//!
//! A file is written under another name and then renamed, so that a crash leaves a whole page or a leftover that is
//! removed. What cannot be opened is removed and computed again. Several programs may use a directory at once: what one
//! removes is a miss for the other.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::seal::{self, Bytes32, OVERHEAD, OwnerTag, Seal};
use crate::store::keys::hex;

/// The directory of the pages.
const PAGES: &str = "pages";
/// Files that are kept at most, whatever their size: looking through them at the start must not take long.
const FILES_MAX: usize = 500_000;
/// What is left free on the disk.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// How often the disk is asked for what is free, in bytes written.
const FREE_ASKED_EVERY: u64 = 64 << 20;
/// What is being written for longer was left behind by a crash.
const LEFTOVER_AFTER: Duration = Duration::from_secs(600);

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) bytes_max: u64,
    pub(super) age_max: Duration,
}

/// The pages of a model in a directory, and how many there are of others.
pub(super) struct Files {
    directory: PathBuf,
    secret: Bytes32,
    identity: Bytes32,
    page_bytes: usize,
    room: Room,
    seals: Mutex<HashMap<Bytes32, Arc<Seal>>>,
    index: Mutex<Index>,
}

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    owner: OwnerTag,
    name: Bytes32,
}

#[derive(Default)]
struct Index {
    /// Bytes, and when it was last used in milliseconds since 1970.
    entries: HashMap<Place, (u64, u64)>,
    by_use: BTreeSet<(u64, Place)>,
    bytes: u64,
    /// Written since the disk was asked for what is free.
    unasked: u64,
}

/// What is in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Pages.
    pub pages: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// API keys that they belong to (those without a key count as one).
    pub owners: usize,
    /// When the page that was not used for longest was used, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
}

impl Files {
    /// Opens or makes the directory.
    pub(super) fn open(
        directory: &Path,
        identity: Bytes32,
        page_bytes: usize,
        room: Room,
        now: SystemTime,
    ) -> io::Result<Files> {
        make(&directory.join(PAGES))?;
        let (secret, usable) = seal::secret(directory)?;
        if !usable {
            fs::remove_dir_all(directory.join(PAGES))?;
            make(&directory.join(PAGES))?;
        }
        let mut index = Index::default();
        scan(directory, now, |place, bytes, used| index.insert(place, bytes, used))?;
        let (seals, index) = (Mutex::default(), Mutex::new(index));
        let files = Files { directory: directory.to_path_buf(), secret, identity, page_bytes, room, seals, index };
        files.make_room(0, now);
        Ok(files)
    }

    /// The keys of an owner.
    pub(super) fn seal(&self, binding: &Bytes32) -> Arc<Seal> {
        let mut seals = lock(&self.seals);
        let make = || Arc::new(Seal::new(&self.secret, &self.identity, binding));
        Arc::clone(seals.entry(*binding).or_insert_with(make))
    }

    /// How many of the pages, from the first on, are there.
    pub(super) fn stored(&self, seal: &Seal, names: &[Bytes32], now: SystemTime) -> usize {
        let (index, now) = (lock(&self.index), milliseconds(now));
        let fresh = |name: &&Bytes32| {
            let entry = index.entries.get(&Place { owner: seal.owner, name: **name });
            entry.is_some_and(|(_, used)| !self.too_old(*used, now))
        };
        names.iter().take_while(fresh).count()
    }

    /// A page, if it is there and untouched.
    pub(super) fn load(&self, seal: &Seal, name: &Bytes32, now: SystemTime) -> Option<Vec<u8>> {
        let place = Place { owner: seal.owner, name: *name };
        let path = self.path(&place);
        let read = || -> io::Result<Option<Vec<u8>>> {
            let mut file = File::open(&path)?;
            if file.metadata()?.len() != self.file_bytes() {
                return Ok(None);
            }
            let mut bytes = Vec::with_capacity(self.page_bytes + OVERHEAD + 1);
            // A file that grows meanwhile is not read without end.
            (&mut file).take(self.file_bytes() + 1).read_to_end(&mut bytes)?;
            let page = seal.open(name, &bytes);
            if page.is_some() {
                // Of use for what is removed first only.
                let _ = file.set_modified(now);
            }
            Ok(page)
        };
        let page = read().ok().flatten();
        let mut index = lock(&self.index);
        match page {
            Some(_) => index.insert(place, self.file_bytes(), milliseconds(now)),
            None => {
                index.remove(&place);
                let _ = fs::remove_file(&path);
            }
        }
        page
    }

    /// Keeps a page; whether it is there now.
    pub(super) fn store(&self, seal: &Seal, name: &Bytes32, page: &[u8], now: SystemTime) -> io::Result<bool> {
        let place = Place { owner: seal.owner, name: *name };
        if page.len() != self.page_bytes || self.file_bytes() > self.room.bytes_max {
            return Ok(false);
        }
        if lock(&self.index).entries.contains_key(&place) {
            return Ok(true);
        }
        if !self.disk_has_room()? {
            return Ok(false);
        }
        self.make_room(self.file_bytes(), now);
        let bytes = seal.close(name, page)?;
        let path = self.path(&place);
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        if let Some(directory) = path.parent() {
            make(directory)?;
        }
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            seal::private(&mut options).open(&temporary)?.write_all(&bytes)?;
            // No synchronising: a page that the power took is found out and computed again.
            fs::rename(&temporary, &path)
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        let mut index = lock(&self.index);
        index.insert(place, self.file_bytes(), milliseconds(now));
        index.unasked += self.file_bytes();
        Ok(true)
    }

    /// Removes all pages of an owner.
    pub(super) fn forget(&self, binding: &Bytes32) -> io::Result<()> {
        let owner = seal::owner_tag(&self.secret, binding);
        let mut index = lock(&self.index);
        let own: Vec<Place> = index.entries.keys().filter(|place| place.owner == owner).copied().collect();
        own.iter().for_each(|place| index.remove(place));
        drop(index);
        remove(&self.directory.join(PAGES).join(hex(&owner)))
    }

    /// What is there.
    pub(super) fn kept(&self) -> Kept {
        lock(&self.index).kept()
    }

    /// Bytes of a page.
    pub(super) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn file_bytes(&self) -> u64 {
        (self.page_bytes + OVERHEAD) as u64
    }

    fn path(&self, place: &Place) -> PathBuf {
        self.directory.join(PAGES).join(hex(&place.owner)).join(hex(&place.name))
    }

    fn too_old(&self, used_ms: u64, now_ms: u64) -> bool {
        u128::from(now_ms.saturating_sub(used_ms)) > self.room.age_max.as_millis()
    }

    /// Removes what is too old, and the longest unused until `bytes` more fit.
    fn make_room(&self, bytes: u64, now: SystemTime) {
        let mut index = lock(&self.index);
        while let Some(&(used, place)) = index.by_use.first() {
            let full = index.bytes + bytes > self.room.bytes_max || index.entries.len() >= FILES_MAX;
            if !full && !self.too_old(used, milliseconds(now)) {
                break;
            }
            index.remove(&place);
            let _ = fs::remove_file(self.path(&place));
        }
    }

    /// Whether enough of the disk stays free; asked now and then.
    fn disk_has_room(&self) -> io::Result<bool> {
        let mut index = lock(&self.index);
        if index.unasked > 0 && index.unasked < FREE_ASKED_EVERY {
            return Ok(true);
        }
        let disk = rustix::fs::statvfs(&self.directory)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        index.unasked = u64::from(free >= FREE_BYTES_MIN);
        Ok(free >= FREE_BYTES_MIN)
    }
}

impl Index {
    fn insert(&mut self, place: Place, bytes: u64, used: u64) {
        self.remove(&place);
        self.entries.insert(place, (bytes, used));
        self.by_use.insert((used, place));
        self.bytes += bytes;
    }

    fn remove(&mut self, place: &Place) {
        if let Some((bytes, used)) = self.entries.remove(place) {
            self.by_use.remove(&(used, *place));
            self.bytes -= bytes;
        }
    }

    fn kept(&self) -> Kept {
        let owners: BTreeSet<OwnerTag> = self.entries.keys().map(|place| place.owner).collect();
        let oldest_ms = self.by_use.first().map(|(used, _)| *used);
        Kept { pages: self.entries.len(), bytes: self.bytes, owners: owners.len(), oldest_ms }
    }
}

/// What is in a directory that no server needs to have open.
pub(super) fn kept(directory: &Path) -> io::Result<Kept> {
    let mut index = Index::default();
    match scan(directory, SystemTime::now(), |place, bytes, used| index.insert(place, bytes, used)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(index.kept()),
    }
}

/// Removes all pages, and the secret with which they were encrypted.
pub(super) fn clear(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(seal::SECRET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove(&directory.join(PAGES))
}

/// Removes the pages of an owner from a directory that no server needs to have open.
pub(super) fn forget(directory: &Path, binding: &Bytes32) -> io::Result<()> {
    if !directory.join(seal::SECRET).try_exists()? {
        return Ok(());
    }
    let (secret, _) = seal::secret(directory)?;
    remove(&directory.join(PAGES).join(hex(&seal::owner_tag(&secret, binding))))
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Tells all pages: where, bytes, last use. Leftovers of crashes are removed.
fn scan(directory: &Path, now: SystemTime, mut found: impl FnMut(Place, u64, u64)) -> io::Result<()> {
    for owner in fs::read_dir(directory.join(PAGES))? {
        let owner = owner?;
        let Some(tag) = owner.file_name().to_str().and_then(bytes_of) else { continue };
        // What is no directory, or is gone by now, has no pages.
        for file in fs::read_dir(owner.path()).into_iter().flatten().flatten() {
            let Ok(metadata) = file.metadata() else { continue };
            let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
            match file.file_name().to_str().and_then(bytes_of) {
                Some(name) => found(Place { owner: tag, name }, metadata.len(), milliseconds(modified)),
                None if now.duration_since(modified).is_ok_and(|age| age > LEFTOVER_AFTER) => {
                    let _ = fs::remove_file(file.path());
                }
                None => {}
            }
        }
    }
    Ok(())
}

/// The bytes that a name in hexadecimal stands for.
fn bytes_of<const N: usize>(name: &str) -> Option<[u8; N]> {
    let digits = name.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(|d| d.is_ascii_digit() || (b'a'..=b'f').contains(d)) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A directory for its owner only.
fn make(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 100;
    const FILE: u64 = (PAGE + OVERHEAD) as u64;

    fn open(directory: &Path, pages_max: u64, now: SystemTime) -> Files {
        let room = Room { bytes_max: pages_max * FILE, age_max: Duration::from_secs(60) };
        Files::open(directory, [7; 32], PAGE, room, now).unwrap()
    }

    fn page(i: u8) -> Vec<u8> {
        vec![i; PAGE]
    }

    fn at(s: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + s)
    }

    #[test]
    fn pages_are_found_again_in_their_order_and_by_their_owner() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), 10, at(0));
        let (seal, other) = (files.seal(&[1; 32]), files.seal(&[2; 32]));
        let names = seal.names(&[0; 32], &(0..256).collect::<Vec<u32>>());
        for i in [0, 1, 3] {
            assert!(files.store(&seal, &names[i], &page(i as u8), SystemTime::now()).unwrap());
        }
        let again = open(directory.path(), 10, SystemTime::now());
        assert_eq!(again.kept(), kept(directory.path()).unwrap());
        assert_eq!((again.kept().pages, again.kept().bytes, again.kept().owners), (3, 3 * FILE, 1));
        assert_eq!(again.stored(&seal, &names, SystemTime::now()), 2, "until the first that is missing");
        assert_eq!(again.stored(&other, &names, SystemTime::now()), 0);
        assert_eq!(again.load(&seal, &names[1], SystemTime::now()), Some(page(1)));
        assert_eq!(again.load(&other, &names[1], SystemTime::now()), None);
        assert_eq!(again.kept().pages, 3, "what another asks for is not removed");
        forget(directory.path(), &[2; 32]).unwrap();
        assert_eq!(kept(directory.path()).unwrap().pages, 3);
        again.forget(&[1; 32]).unwrap();
        assert_eq!((again.kept(), kept(directory.path()).unwrap()), (Kept::default(), Kept::default()));
        assert!(again.store(&seal, &names[0], &page(0), SystemTime::now()).unwrap());
        clear(directory.path()).unwrap();
        assert_eq!(kept(directory.path()).unwrap(), Kept::default());
        assert_eq!(again.load(&seal, &names[0], SystemTime::now()), None, "gone under its hands");
    }

    #[test]
    fn old_pages_go_and_the_longest_unused_make_room() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), 3, at(0));
        let seal = files.seal(&[1; 32]);
        let names = seal.names(&[0; 32], &(0..64 * 6).collect::<Vec<u32>>());
        for i in 0..3 {
            files.store(&seal, &names[i], &page(0), at(i as u64)).unwrap();
        }
        assert!(files.load(&seal, &names[0], at(5)).is_some());
        files.store(&seal, &names[3], &page(0), at(6)).unwrap();
        let there = |i: usize, s: u64| files.stored(&seal, &names[i..=i], at(s)) == 1;
        assert!(there(0, 7) && !there(1, 7) && there(2, 7) && there(3, 7));
        assert_eq!(files.kept().bytes, 3 * FILE);
        assert!(there(0, 65) && !there(0, 66), "a minute after its last use");
        files.store(&seal, &names[4], &page(0), at(64)).unwrap();
        assert_eq!(files.kept().pages, 3, "the page of second 2 is too old");
        let mut small = open(directory.path(), 3, at(64));
        small.room.bytes_max = FILE - 1;
        assert!(!small.store(&seal, &names[5], &page(0), at(64)).unwrap());
        assert!(!files.store(&seal, &names[5], &page(0)[1..], at(64)).unwrap());
    }

    #[test]
    fn what_is_damaged_is_removed_and_never_given_out() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), 10, at(0));
        let seal = files.seal(&[1; 32]);
        let names = seal.names(&[0; 32], &(0..64 * 5).collect::<Vec<u32>>());
        let damage: [fn(&mut Vec<u8>); 5] =
            [|b| b[60] ^= 1, |b| b.truncate(50), |b| b.push(0), |b| b.clear(), |b| b[20] ^= 128];
        for (name, damage) in names.iter().zip(damage) {
            files.store(&seal, name, &page(1), at(0)).unwrap();
            let path = files.path(&Place { owner: seal.owner, name: *name });
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            assert_eq!(files.load(&seal, name, at(0)), None);
            assert!(!path.exists() && files.stored(&seal, &[*name], at(0)) == 0);
        }
        // Two pages that change places.
        let place = |i: usize| files.path(&Place { owner: seal.owner, name: names[i] });
        files.store(&seal, &names[0], &page(1), at(0)).unwrap();
        files.store(&seal, &names[1], &page(2), at(0)).unwrap();
        fs::rename(place(0), place(1)).unwrap();
        assert_eq!((files.load(&seal, &names[0], at(0)), files.load(&seal, &names[1], at(0))), (None, None));
        // A secret that is gone takes everything with it.
        files.store(&seal, &names[2], &page(2), at(0)).unwrap();
        fs::write(directory.path().join(seal::SECRET), b"x").unwrap();
        assert_eq!(open(directory.path(), 10, at(0)).kept(), Kept::default());
    }

    #[test]
    fn leftovers_and_strangers_do_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), 10, at(0));
        let seal = files.seal(&[1; 32]);
        let name = seal.names(&[0; 32], &[5; 64])[0];
        files.store(&seal, &name, &page(1), SystemTime::now()).unwrap();
        let own = files.path(&Place { owner: seal.owner, name });
        let left = own.with_extension("new-1");
        fs::write(&left, b"half").unwrap();
        fs::write(directory.path().join(PAGES).join("note.txt"), b"hello").unwrap();
        assert_eq!(open(directory.path(), 10, SystemTime::now()).kept().pages, 1);
        assert!(left.exists(), "another program may be writing it");
        let later = SystemTime::now() + LEFTOVER_AFTER + Duration::from_secs(5);
        let room = Room { bytes_max: 10 * FILE, age_max: Duration::from_secs(86_400) };
        let files = Files::open(directory.path(), [7; 32], PAGE, room, later).unwrap();
        assert!(!left.exists() && own.exists() && files.kept().pages == 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            for path in [own.as_path(), own.parent().unwrap(), &directory.path().join(seal::SECRET)] {
                assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
            }
        }
    }
}
