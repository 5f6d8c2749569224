//! Documents that occurred before: exactly, by hash, and nearly, by MinHash (Broder 1997).
//!
//! Near duplicates: a document's shingles are all runs of five words; for each of 128 hash functions the least hash
//! over all shingles is kept. Two documents agree in as many of the 128 as their sets of shingles overlap. The 128 are
//! cut in 16 bands of 8: documents that agree in a whole band are compared, and from 0.8 on the later one is dropped.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use crate::random::mix;

const SHINGLE_WORDS: usize = 5;
const HASHES: usize = 128;
const BANDS: usize = 16;
const SAME_MIN: usize = 102; // 0.8 of 128

/// The first 128 bits of a text's SHA-256.
pub(crate) fn text_hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> u128 {
    let mut hasher = Sha256::new();
    texts.into_iter().for_each(|text| hasher.update(text.as_bytes()));
    let digest = hasher.finalize();
    digest[..16].iter().fold(0, |hash, &byte| hash << 8 | u128::from(byte))
}

/// The documents that were seen.
#[derive(Default)]
pub(crate) struct Seen {
    exact: HashSet<u128>,
    near: Option<Near>,
}

/// What a document is to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    New,
    Repeated,
    NearlyRepeated,
}

impl Seen {
    /// With or without near duplicates.
    pub(crate) fn new(near: bool) -> Seen {
        Seen { exact: HashSet::new(), near: near.then(Near::default) }
    }

    /// Judges a document and remembers it if it is new.
    pub(crate) fn judge(&mut self, hash: u128, text: impl FnOnce() -> String) -> Verdict {
        if !self.exact.insert(hash) {
            return Verdict::Repeated;
        }
        match self.near.as_mut().is_some_and(|near| near.seen(&text())) {
            true => Verdict::NearlyRepeated,
            false => Verdict::New,
        }
    }
}

#[derive(Default)]
struct Near {
    signatures: Vec<[u32; HASHES]>,
    /// For each band: the documents with these values in it.
    bands: HashMap<(usize, u64), Vec<u32>>,
}

impl Near {
    fn seen(&mut self, text: &str) -> bool {
        let Some(signature) = signature(text) else { return false };
        let width = HASHES / BANDS;
        let keys: Vec<(usize, u64)> = (0..BANDS)
            .map(|b| {
                (b, signature[b * width..(b + 1) * width].iter().fold(b as u64, |key, &v| mix(key ^ u64::from(v))))
            })
            .collect();
        let similar = |&other: &u32| {
            let other = &self.signatures[other as usize];
            other.iter().zip(&signature).filter(|(a, b)| a == b).count() >= SAME_MIN
        };
        if keys.iter().any(|key| self.bands.get(key).is_some_and(|list| list.iter().any(similar))) {
            return true;
        }
        let number = self.signatures.len() as u32;
        self.signatures.push(signature);
        keys.into_iter().for_each(|key| self.bands.entry(key).or_default().push(number));
        false
    }
}

/// The least hash of each function over all shingles; none for a text of fewer words than a shingle, where only
/// exact repetition counts.
fn signature(text: &str) -> Option<[u32; HASHES]> {
    let words: Vec<u64> = text
        .split_whitespace()
        .map(|word| {
            let lower = word.chars().flat_map(char::to_lowercase);
            lower.fold(0x51_7c_c1_b7, |hash, c| mix(hash ^ u64::from(c as u32)))
        })
        .collect();
    let mut least = [u32::MAX; HASHES];
    for shingle in words.windows(SHINGLE_WORDS) {
        let hash = shingle.iter().fold(0, |hash, &word| mix(hash ^ word));
        for (i, slot) in least.iter_mut().enumerate() {
            *slot = (*slot).min((mix(hash ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32) as u32);
        }
    }
    (words.len() >= SHINGLE_WORDS).then_some(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(words: usize, seed: u64) -> String {
        let mut random = crate::random::Random::new(&[seed]);
        (0..words).map(|_| format!("w{}", random.below(5000))).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn equal_and_nearly_equal_documents_are_told_from_new_ones() {
        let mut seen = Seen::new(true);
        let mut judge = |text: &str| seen.judge(text_hash([text]), || text.to_string());
        let first = story(400, 1);
        assert_eq!(judge(&first), Verdict::New);
        assert_eq!(judge(&first), Verdict::Repeated);
        // Two changed words of 400 touch 10 of 396 shingles.
        let near = first.replacen(' ', " X ", 1) + " end";
        assert_eq!(judge(&near), Verdict::NearlyRepeated);
        assert_eq!(judge(&story(400, 2)), Verdict::New);
        // Half of it is common: not a repetition.
        let half = format!("{} {}", story(200, 3), first.split(' ').take(200).collect::<Vec<_>>().join(" "));
        assert_eq!(judge(&half), Verdict::New);
        assert_eq!(judge("too short"), Verdict::New);
        assert_eq!(judge("too short for this"), Verdict::New);
    }

    #[test]
    fn without_near_duplicates_only_equal_documents_are_dropped() {
        let mut seen = Seen::new(false);
        let first = story(400, 1);
        assert_eq!(seen.judge(text_hash([first.as_str()]), || unreachable!()), Verdict::New);
        assert_eq!(seen.judge(text_hash([first.as_str()]), || unreachable!()), Verdict::Repeated);
        // The same text in two pieces is the same text.
        let (a, b) = first.split_at(50);
        assert_eq!(seen.judge(text_hash([a, b]), || unreachable!()), Verdict::Repeated);
    }
}
