//! A packed set on disk: a file of sequences and a small index.
//!
//! `NAME.rows` holds sequences of `sequence + 1` 32-bit numbers, little-endian, a token and two marks each (`pack`).
//! `NAME.index` holds for each sequence the bytes of text that its targets stand for, and its source (held-out sets).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::pack::{FIRST, Piece, TOKEN, UNLEARNED};
use super::{DataError, SetEntry};
use crate::files;
use crate::random::Random;

/// An opened set.
pub struct Set {
    path: PathBuf,
    file: Mutex<File>,
    rows: usize,
    sequence: usize,
    /// For each sequence: bytes of text, source.
    index: Vec<(u32, u32)>,
}

/// Sequences as the model takes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The tokens of all sequences, one after the other.
    pub tokens: Vec<u32>,
    /// The lengths of what is causal in itself: sequences, or documents where they are masked.
    pub lengths: Vec<usize>,
    /// The token that follows each.
    pub targets: Vec<u32>,
    /// Whether it is learned.
    pub learned: Vec<bool>,
    /// Where each stored sequence begins, in tokens.
    pub starts: Vec<usize>,
}

impl Batch {
    /// How many targets are learned.
    pub fn learned_count(&self) -> usize {
        self.learned.iter().filter(|learned| **learned).count()
    }
}

impl Set {
    pub(super) fn open(folder: &Path, name: &str, entry: &SetEntry, sequence: usize) -> Result<Set, DataError> {
        let path = folder.join(format!("{name}.rows"));
        let read = |path: &Path, wanted: &str, length: u64| -> Result<(), DataError> {
            let found = files::sha256_file(path);
            let (hash, found) = found.map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
            match hash == wanted && found == length {
                true => Ok(()),
                false => {
                    let reason = "its content is not what the manifest says".to_string();
                    Err(DataError::Damaged { path: path.to_path_buf(), reason })
                }
            }
        };
        let index_path = folder.join(format!("{name}.index"));
        read(&path, &entry.sha256, entry.rows * (sequence as u64 + 1) * 4)?;
        read(&index_path, &entry.index_sha256, entry.rows * 8)?;
        let bytes =
            std::fs::read(&index_path).map_err(|source| DataError::Read { path: index_path.clone(), source })?;
        let index = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect::<Vec<u32>>();
        let index = index.as_chunks::<2>().0.iter().map(|[bytes, source]| (*bytes, *source)).collect();
        let file = File::open(&path).map_err(|source| DataError::Read { path: path.clone(), source })?;
        Ok(Set { path, file: Mutex::new(file), rows: entry.rows as usize, sequence, index })
    }

    /// Sequences.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of text that a sequence's targets stand for.
    pub fn text_bytes(&self, row: usize) -> u32 {
        self.index[row].0
    }

    /// The source of a held-out sequence, by its number in the manifest.
    pub fn source(&self, row: usize) -> Option<usize> {
        Some(self.index[row].1).filter(|&source| source != u32::MAX).map(|source| source as usize)
    }

    /// Reads sequences; with `mask`, each document is causal in itself.
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub fn batch(&self, rows: &[usize], mask: bool) -> Result<Batch, DataError> {
        let mut batch = Batch::default();
        let room = self.sequence + 1;
        let mut bytes = vec![0; room * 4];
        for &row in rows {
            assert!(row < self.rows, "sequence {row} of {}", self.rows);
            let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let read = file.seek(SeekFrom::Start((row * room * 4) as u64)).and_then(|_| file.read_exact(&mut bytes));
            read.map_err(|source| DataError::Read { path: self.path.clone(), source })?;
            let stored: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
            batch.starts.push(batch.tokens.len());
            batch.tokens.extend(stored[..self.sequence].iter().map(|token| token & TOKEN));
            batch.targets.extend(stored[1..].iter().map(|token| token & TOKEN));
            batch.learned.extend(stored[1..].iter().map(|token| token & UNLEARNED == 0));
            let mut start = 0;
            for at in (1..self.sequence).filter(|&at| mask && stored[at] & FIRST != 0) {
                batch.lengths.push(at - start);
                start = at;
            }
            batch.lengths.push(self.sequence - start);
        }
        Ok(batch)
    }
}

/// The order in which a run goes through a set: every sequence once, in random order, then again in another.
pub struct Order {
    rows: usize,
    seeds: [u64; 2],
    epoch: Option<u64>,
    permutation: Vec<u32>,
}

impl Order {
    /// The order of a set of `rows` sequences; `number` tells the sets of a run apart.
    pub fn new(rows: usize, seed: u64, number: u64) -> Order {
        Order { rows, seeds: [seed, number], epoch: None, permutation: Vec::new() }
    }

    /// The `n`-th sequence of the run: a pure function of the seed and `n`.
    pub fn row(&mut self, n: u64) -> usize {
        let (epoch, at) = (n / self.rows as u64, (n % self.rows as u64) as usize);
        if self.epoch != Some(epoch) {
            self.permutation = (0..self.rows as u32).collect();
            Random::new(&[self.seeds[0], self.seeds[1], 4, epoch]).shuffle(&mut self.permutation);
            self.epoch = Some(epoch);
        }
        self.permutation[at] as usize
    }
}

/// Writes a set; `source` says whose a piece is.
pub(super) fn write(
    folder: &Path,
    name: &str,
    store: &[u32],
    pieces: &[Piece],
    rows: &[Vec<u32>],
    room: usize,
    padding: u32,
    source: &dyn Fn(&Piece) -> u32,
) -> Result<SetEntry, DataError> {
    let (path, index_path) = (folder.join(format!("{name}.rows")), folder.join(format!("{name}.index")));
    let (mut learned, mut empty) = (0, 0);
    let written = files::write_whole(&path, |out| {
        let (mut row, mut bytes) = (Vec::with_capacity(room), Vec::with_capacity(room * 4));
        for list in rows {
            row.clear();
            for &i in list {
                let piece = pieces[i as usize];
                let first = row.len();
                row.extend_from_slice(&store[piece.start as usize..][..piece.len as usize]);
                row[first] |= FIRST | UNLEARNED;
            }
            empty += room - row.len();
            if row.len() < room {
                row.push(padding | FIRST | UNLEARNED);
                row.resize(room, padding | UNLEARNED);
            }
            learned += row[1..].iter().filter(|token| *token & UNLEARNED == 0).count() as u64;
            bytes.clear();
            row.iter().for_each(|token| bytes.extend_from_slice(&token.to_le_bytes()));
            out.write_all(&bytes)?;
        }
        Ok(())
    });
    let sha256 = written.map_err(|source| DataError::Write { path, source })?;
    let written = files::write_whole(&index_path, |out| {
        rows.iter().try_for_each(|list| {
            let pieces = || list.iter().map(|&i| &pieces[i as usize]);
            let bytes = pieces().map(|piece| u64::from(piece.bytes)).sum::<u64>().min(u64::from(u32::MAX)) as u32;
            let owner = pieces().next().map_or(u32::MAX, source);
            out.write_all(&bytes.to_le_bytes())?;
            out.write_all(&owner.to_le_bytes())
        })
    });
    let index_sha256 = written.map_err(|source| DataError::Write { path: index_path, source })?;
    let padding_share = empty as f64 / (rows.len() * room).max(1) as f64;
    Ok(SetEntry { rows: rows.len() as u64, learned, padding_share, sha256, index_sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_has_every_sequence_once_and_can_be_entered_anywhere() {
        let mut order = Order::new(10, 7, 1);
        let all: Vec<usize> = (0..30).map(|n| order.row(n)).collect();
        for pass in all.chunks(10) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<usize>>());
        }
        assert_ne!(all[..10], all[10..20]);
        assert_eq!(Order::new(10, 7, 1).row(25), all[25]);
        assert!((0..10).any(|n| Order::new(10, 8, 1).row(n) != all[n as usize]));
    }

    #[test]
    fn targets_follow_tokens_and_documents_are_parted_where_asked() {
        let folder = tempfile::tempdir().unwrap();
        let store = [1, 10, 11, 2, 1, 20 | UNLEARNED, 21, 2];
        let pieces = [Piece { start: 0, len: 4, bytes: 5 }, Piece { start: 4, len: 4, bytes: 6 }];
        let rows = [vec![0, 1], vec![1]];
        let entry = write(folder.path(), "x", &store, &pieces, &rows, 9, 2, &|_| 3).unwrap();
        assert_eq!((entry.rows, entry.learned), (2, 3 + 2 + 2));
        let set = Set::open(folder.path(), "x", &entry, 8).unwrap();
        let batch = set.batch(&[0, 1], true).unwrap();
        assert_eq!(batch.tokens, [1, 10, 11, 2, 1, 20, 21, 2, 1, 20, 21, 2, 2, 2, 2, 2]);
        assert_eq!(batch.targets, [10, 11, 2, 1, 20, 21, 2, 2, 20, 21, 2, 2, 2, 2, 2, 2]);
        let learned: Vec<u8> = batch.learned.iter().map(|l| u8::from(*l)).collect();
        assert_eq!(learned, [1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0]);
        assert_eq!(batch.lengths, [4, 4, 4, 4]);
        assert_eq!(batch.starts, [0, 8]);
        assert_eq!(set.batch(&[1], false).unwrap().lengths, [8]);
        assert_eq!((set.text_bytes(0), set.source(1)), (11, Some(3)));

        // A changed bit is found.
        let path = folder.path().join("x.rows");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[17] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = Set::open(folder.path(), "x", &entry, 8).err().unwrap().to_string();
        assert!(error.contains("x.rows: is damaged"), "{error}");
    }
}
