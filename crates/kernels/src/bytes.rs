//! Shared, immutable bytes: a range of a memory-mapped file, of an owned buffer, or of the program itself.
//!
//! Weights are views into these. Cloning and slicing share the owner, so that a checkpoint of any
//! size is opened without copying it.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Immutable bytes with a shared owner.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

enum Owner {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
    /// 32-bit floats, kept as such so that their alignment holds.
    Floats(Vec<f32>),
    /// Part of the program, which the system maps like any file.
    Static(&'static [u8]),
}

impl Bytes {
    /// Maps a whole file into memory, read-only. An empty file gives empty bytes.
    ///
    /// The file must not shrink while it is mapped: reading past its new end is a bus error, as
    /// with every memory-mapped reader. A file that is replaced (written anew and renamed) is safe.
    pub fn map(file: &File) -> io::Result<Bytes> {
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::from(Vec::<u8>::new()));
        }
        // SAFETY: the mapping is read-only and private to this owner; the requirement that the file
        // is not truncated meanwhile is stated above and is the caller's.
        let map = unsafe { memmap2::Mmap::map(file)? };
        let range = 0..map.len();
        Ok(Bytes { owner: Arc::new(Owner::Mapped(map)), range })
    }

    /// Bytes that are part of the program.
    pub fn from_static(bytes: &'static [u8]) -> Bytes {
        Bytes { owner: Arc::new(Owner::Static(bytes)), range: 0..bytes.len() }
    }

    /// The sub-range `range`, sharing the owner.
    ///
    /// # Panics
    /// If the range does not lie inside these bytes.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.len(), "slice {range:?} of {} bytes", self.len());
        let start = self.range.start + range.start;
        Bytes { owner: Arc::clone(&self.owner), range: start..start + range.len() }
    }

    /// Whether the bytes lie in a mapped file, the program's own included (and not in memory of our own).
    pub fn is_mapped(&self) -> bool {
        matches!(*self.owner, Owner::Mapped(_) | Owner::Static(_))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        let range = 0..bytes.len();
        Bytes { owner: Arc::new(Owner::Owned(bytes)), range }
    }
}

impl From<Vec<f32>> for Bytes {
    fn from(floats: Vec<f32>) -> Bytes {
        let range = 0..floats.len() * 4;
        Bytes { owner: Arc::new(Owner::Floats(floats)), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole: &[u8] = match &*self.owner {
            Owner::Mapped(map) => map,
            Owner::Owned(bytes) => bytes,
            Owner::Static(bytes) => bytes,
            Owner::Floats(floats) => {
                // SAFETY: every bit pattern of an f32 is four initialised bytes, u8 has no
                // alignment, and the length is that of the allocation.
                unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len() * 4) }
            }
        };
        &whole[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({}, {})", self.len(), if self.is_mapped() { "mapped" } else { "owned" })
    }
}
