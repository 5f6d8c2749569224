//! Byte-pair encoding of one piece of text.
//!
//! The piece starts as one symbol per character; of all adjacent pairs that have a merge, the one with the lowest rank
//! (the leftmost of equals) is joined, until none is left (Sennrich et al. 2016). Pairs wait in a heap, so a piece of
//! n characters takes O(n log n) time however long it is. SentencePiece's BPE is the same algorithm with ranks taken
//! from the scores of the joined tokens; [`MergeTable::from_scores`] writes its vocabulary as such a table.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

use super::error::{TokenizerError, shorten};

/// Longest token of a vocabulary that is merged by scores; every split of every token is looked up.
const MAX_SCORED_TOKEN_BYTES: usize = 512;

/// Which pairs of symbols join, in which order, into what.
#[derive(Default)]
pub(crate) struct MergeTable {
    /// (left, right) to (rank, joined).
    pairs: HashMap<u64, (u32, u32), PairHash>,
    /// Characters that are no token themselves but part of one: symbols above all token ids.
    extra_chars: HashMap<char, u32>,
}

impl MergeTable {
    /// Adds a merge; a later one for the same pair replaces an earlier one.
    pub(crate) fn insert(&mut self, left: u32, right: u32, rank: u32, joined: u32) {
        self.pairs.insert(pair_key(left, right), (rank, joined));
    }

    /// The merges of a SentencePiece vocabulary: any two symbols join whose concatenation is a token; the highest
    /// score first. `tokens` holds what may be formed: (id, text, score).
    pub(crate) fn from_scores(tokens: &[(u32, &str, f32)], first_free_id: u32) -> Result<MergeTable, TokenizerError> {
        let mut distinct: Vec<f32> = tokens.iter().map(|token| token.2).collect();
        distinct.sort_by(|a, b| b.total_cmp(a));
        distinct.dedup();
        let mut symbols: HashMap<&str, u32> = tokens.iter().map(|&(id, text, _)| (text, id)).collect();
        let mut extra_chars = HashMap::new();
        let mut next_id = first_free_id;
        for &(id, text, _) in tokens {
            if text.len() > MAX_SCORED_TOKEN_BYTES {
                return Err(TokenizerError::Vocabulary(format!(
                    "token {id} ({:?}) has {} bytes; the limit is {MAX_SCORED_TOKEN_BYTES}",
                    shorten(text),
                    text.len()
                )));
            }
            for (at, character) in text.char_indices() {
                let symbol = &text[at..at + character.len_utf8()];
                symbols.entry(symbol).or_insert_with(|| {
                    extra_chars.insert(character, next_id);
                    next_id += 1;
                    next_id - 1
                });
            }
        }
        let mut pairs: HashMap<u64, (u32, u32), PairHash> = HashMap::default();
        for &(_, text, score) in tokens {
            let joined = symbols[text];
            let rank = distinct.partition_point(|&other| other > score) as u32;
            for (at, _) in text.char_indices().skip(1) {
                if let (Some(&left), Some(&right)) = (symbols.get(&text[..at]), symbols.get(&text[at..])) {
                    pairs.insert(pair_key(left, right), (rank, joined));
                }
            }
        }
        Ok(MergeTable { pairs, extra_chars })
    }

    /// Drops the merges that would make one of these tokens.
    pub(crate) fn forbid(&mut self, reserved: &HashSet<u32>) {
        self.pairs.retain(|_, (_, joined)| !reserved.contains(joined));
    }

    /// The symbol of a character that is part of tokens without being one.
    pub(crate) fn extra_char(&self, character: char) -> Option<u32> {
        self.extra_chars.get(&character).copied()
    }

    /// The character of a symbol that is no token.
    pub(crate) fn extra_symbols(&self) -> impl Iterator<Item = (u32, char)> + '_ {
        self.extra_chars.iter().map(|(&character, &id)| (id, character))
    }

    fn get(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        self.pairs.get(&pair_key(left, right)).copied()
    }
}

fn pair_key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Hashes pairs with a random key, so that a file cannot be written to make them collide; one multiplication, because
/// the table is what long texts spend their time in.
#[derive(Clone, Copy)]
struct PairHash(u64, u64);

impl Default for PairHash {
    fn default() -> PairHash {
        let random = RandomState::new();
        PairHash(random.hash_one(1u8), random.hash_one(2u8) | 1)
    }
}

impl BuildHasher for PairHash {
    type Hasher = PairHasher;
    fn build_hasher(&self) -> PairHasher {
        PairHasher { key: *self, hash: 0 }
    }
}

struct PairHasher {
    key: PairHash,
    hash: u64,
}

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.hash
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(value ^ self.hash ^ self.key.0) * u128::from(self.key.1);
        self.hash = product as u64 ^ (product >> 64) as u64;
    }
}

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    previous: u32,
    next: u32,
}

/// A pair that waits: its rank above the position of its left symbol, so that the lowest is the next to join.
type Waiting = Reverse<u64>;

/// Buffers that are kept from piece to piece.
#[derive(Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Waiting>,
}

impl Merger {
    /// Joins the symbols `ids` of one piece and appends the result to `out`.
    pub(crate) fn merge(&mut self, table: &MergeTable, ids: &[u32], out: &mut Vec<u32>) {
        if ids.len() < 2 {
            out.extend_from_slice(ids);
            return;
        }
        let last = ids.len() as u32 - 1;
        self.symbols.clear();
        self.symbols.extend(ids.iter().zip(0u32..).map(|(&id, at)| Symbol {
            id,
            previous: if at == 0 { NONE } else { at - 1 },
            next: if at == last { NONE } else { at + 1 },
        }));
        let mut waiting = std::mem::take(&mut self.heap).into_vec();
        waiting.clear();
        waiting.extend((0..last).filter_map(|at| self.pair_at(table, at)));
        self.heap = BinaryHeap::from(waiting);
        while let Some(Reverse(waiting)) = self.heap.pop() {
            let (rank, at) = ((waiting >> 32) as u32, waiting as u32);
            let symbol = self.symbols[at as usize];
            // The pair may have changed since it was queued; one that has this rank now is the one to join.
            let right = self.symbols.get(symbol.next as usize).map(|right| right.id);
            let Some((_, joined)) = right.and_then(|right| table.get(symbol.id, right)).filter(|pair| pair.0 == rank)
            else {
                continue;
            };
            let after = self.symbols[symbol.next as usize].next;
            self.symbols[symbol.next as usize].id = NONE;
            self.symbols[at as usize] = Symbol { id: joined, previous: symbol.previous, next: after };
            if after != NONE {
                self.symbols[after as usize].previous = at;
                self.heap.extend(self.pair_at(table, at));
            }
            if symbol.previous != NONE {
                self.heap.extend(self.pair_at(table, symbol.previous));
            }
        }
        let mut at = 0;
        while at != NONE {
            let symbol = self.symbols[at as usize];
            out.push(symbol.id);
            at = symbol.next;
        }
    }

    fn pair_at(&self, table: &MergeTable, at: u32) -> Option<Waiting> {
        let left = self.symbols[at as usize];
        let right = self.symbols.get(left.next as usize)?;
        let (rank, _) = table.get(left.id, right.id)?;
        Some(Reverse(u64::from(rank) << 32 | u64::from(at)))
    }
}
