//! Documents to sequences: best-fit packing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling").
//!
//! A sequence has room for its tokens and one more, the last one's target. Documents go, longest first, to the
//! sequence with the least room that still holds them; only those longer than a sequence are cut. As in V3 (report,
//! section 4.1), a document may see those before it in its sequence, unless the recipe says otherwise.

use std::collections::BTreeMap;

use crate::random::Random;

/// Set in a stored token that is no target: what a prompt says, the first token of a document, padding.
pub(crate) const UNLEARNED: u32 = 1 << 31;
/// Set in the first stored token of a document (or of a piece of one).
pub(crate) const FIRST: u32 = 1 << 30;
/// The token itself.
pub(crate) const TOKEN: u32 = FIRST - 1;

/// A run of tokens of the store that stays together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First token.
    pub(crate) start: u64,
    /// Tokens, at least two.
    pub(crate) len: u32,
    /// Bytes of the text that it stands for.
    pub(crate) bytes: u32,
}

/// Cuts a document into pieces of at most `room` tokens; each begins with the last token of the one before, which is
/// its context.
pub(crate) fn cut(start: u64, len: u64, bytes: u64, room: usize, pieces: &mut Vec<Piece>) {
    let room = room as u64;
    let mut at = 0;
    while at + 1 < len {
        let piece = room.min(len - at);
        // The share of the bytes by the share of the targets; what is rounded off goes to the last piece.
        let share = |tokens: u64| (u128::from(bytes) * u128::from(tokens) / u128::from(len - 1)) as u64;
        let bytes = share(at + piece - 1) - share(at);
        pieces.push(Piece { start: start + at, len: piece as u32, bytes: bytes.min(u64::from(u32::MAX)) as u32 });
        at += piece - 1;
    }
}

/// Packs pieces into sequences of `room` tokens; each sequence is a list of indices of pieces. The order of sequences,
/// and of the pieces in each, is random.
pub(crate) fn pack(pieces: &[Piece], room: usize, random: &mut Random) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..pieces.len() as u32).collect();
    random.shuffle(&mut order);
    order.sort_by_key(|&i| std::cmp::Reverse(pieces[i as usize].len));
    let mut rows: Vec<Vec<u32>> = Vec::new();
    // Sequences by the room that they have left.
    let mut open: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for i in order {
        let len = pieces[i as usize].len as usize;
        let best = open.range(len..).next().map(|(&left, _)| left);
        let (row, left) = match best {
            None => {
                rows.push(Vec::new());
                (rows.len() as u32 - 1, room)
            }
            Some(left) => {
                let list = open.get_mut(&left).unwrap_or_else(|| unreachable!("the room was just found"));
                let row = list.pop().unwrap_or_else(|| unreachable!("lists are removed when they are empty"));
                if list.is_empty() {
                    open.remove(&left);
                }
                (row, left)
            }
        };
        rows[row as usize].push(i);
        // A document has two tokens at least.
        if left - len >= 2 {
            open.entry(left - len).or_default().push(row);
        }
    }
    rows.iter_mut().for_each(|row| random.shuffle(row));
    random.shuffle(&mut rows);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_documents_are_cut_so_that_each_token_is_a_target_once() {
        let mut pieces = Vec::new();
        cut(100, 10, 90, 4, &mut pieces);
        let targets: Vec<u64> = pieces.iter().flat_map(|p| p.start + 1..p.start + u64::from(p.len)).collect();
        assert_eq!(targets, (101..110).collect::<Vec<u64>>());
        assert!(pieces.iter().all(|p| p.len >= 2 && p.len <= 4));
        assert_eq!(pieces.iter().map(|p| p.bytes).sum::<u32>(), 90);
    }

    #[test]
    fn every_piece_is_in_one_sequence_and_few_places_are_empty() {
        let mut random = Random::new(&[5]);
        let pieces: Vec<Piece> =
            (0..2000).map(|i| Piece { start: i * 100, len: 2 + random.below(96) as u32, bytes: 1 }).collect();
        let rows = pack(&pieces, 129, &mut Random::new(&[1]));
        let mut all: Vec<u32> = rows.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..2000).collect::<Vec<u32>>());
        let used: Vec<u32> = rows.iter().map(|row| row.iter().map(|&i| pieces[i as usize].len).sum()).collect();
        assert!(used.iter().all(|&n| n <= 129));
        let filled = f64::from(used.iter().sum::<u32>()) / (129 * rows.len()) as f64;
        assert!(filled > 0.97, "{filled}");
        assert_eq!(rows, pack(&pieces, 129, &mut Random::new(&[1])));
        assert_ne!(rows, pack(&pieces, 129, &mut Random::new(&[2])));
    }
}
