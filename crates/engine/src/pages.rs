//! Who holds which page of the cache, and which pages can be found again by what they hold.
//!
//! A page is in one of three states:
//!
//! ```text
//!   free ──take──> held by sequences ──last holder lets go──> cached, if it is full and indexed ──┐
//!    ^                  ^      │                                       │ found again              │
//!    │                  └──────┼───────────────────────────────────────┘                          │
//!    └──────── let go, not indexed ──────────── the least recently used one is evicted ───────────┘
//! ```
//!
//! Only full pages whose tokens have been computed are indexed, so a shared page is never written. The
//! index is keyed by the content itself (owner, the entry before, the tokens), not by a hash of it:
//! two different prefixes can never be taken for each other, and one owner never finds another's pages.

use std::collections::{BTreeSet, HashMap};

use kernels::attention::PAGE_LEN;

/// Number of a page, in every layer's planes.
pub type PageId = u32;

/// Whose pages these are: requests share prefixes only within one owner.
pub type Owner = u64;

/// The pages of a cache.
pub struct Pages {
    free: Vec<PageId>,
    state: Vec<State>,
    index: HashMap<Key, PageId>,
    /// Cached pages nobody holds, least recently used first.
    idle: BTreeSet<(u64, PageId)>,
    clock: u64,
    next_entry: u64,
}

#[derive(Clone, Default)]
struct State {
    holders: u32,
    /// How it stands in the index, and since when nobody has held it.
    indexed: Option<(Key, u64)>,
    idle_since: u64,
}

/// The content of a full page: whose it is, which entry stands before it (0: none), its tokens.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    owner: Owner,
    before: u64,
    tokens: Box<[u32]>,
}

impl Pages {
    /// `count` free pages.
    pub fn new(count: usize) -> Pages {
        Pages {
            free: (0..count as PageId).rev().collect(),
            state: vec![State::default(); count],
            index: HashMap::new(),
            idle: BTreeSet::new(),
            clock: 0,
            next_entry: 1,
        }
    }

    /// Pages that can be had without taking one from a sequence.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Pages in all.
    pub fn total(&self) -> usize {
        self.state.len()
    }

    /// A page to write, held once; if none is free, the cached page that was used longest ago.
    pub fn take(&mut self) -> Option<PageId> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let (_, page) = self.idle.pop_first()?;
                let (key, _) = self.state[page as usize].indexed.take().expect("idle pages are indexed");
                self.index.remove(&key);
                page
            }
        };
        self.state[page as usize].holders = 1;
        Some(page)
    }

    /// Lets go of a page.
    pub fn release(&mut self, page: PageId) {
        let state = &mut self.state[page as usize];
        assert!(state.holders > 0, "page {page} is held");
        state.holders -= 1;
        if state.holders > 0 {
            return;
        }
        if state.indexed.is_some() {
            self.clock += 1;
            state.idle_since = self.clock;
            self.idle.insert((self.clock, page));
        } else {
            self.free.push(page);
        }
    }

    /// The pages that hold the longest known beginning of `tokens`, now held once more each. At most
    /// `tokens.len() - 1` tokens are found, so that there is always one to compute.
    pub fn find(&mut self, owner: Owner, tokens: &[u32]) -> Vec<PageId> {
        let mut found = Vec::new();
        let mut before = 0;
        for chunk in tokens[..tokens.len().saturating_sub(1)].chunks_exact(PAGE_LEN) {
            let key = Key { owner, before, tokens: chunk.into() };
            let Some(&page) = self.index.get(&key) else { break };
            let state = &mut self.state[page as usize];
            if state.holders == 0 {
                self.idle.remove(&(state.idle_since, page));
            }
            state.holders += 1;
            before = state.indexed.as_ref().expect("found in the index").1;
            found.push(page);
        }
        found
    }

    /// How many pages [`Pages::find`] would find.
    pub fn known(&self, owner: Owner, tokens: &[u32]) -> usize {
        let mut before = 0;
        let chunks = tokens[..tokens.len().saturating_sub(1)].chunks_exact(PAGE_LEN);
        chunks
            .take_while(|chunk| {
                let key = Key { owner, before, tokens: (*chunk).into() };
                let entry = self.index.get(&key).and_then(|&page| self.state[page as usize].indexed.as_ref());
                before = entry.map_or(0, |(_, entry)| *entry);
                entry.is_some()
            })
            .count()
    }

    /// Makes the full, computed pages of a sequence known: `pages[i]` holds the `i`-th `PAGE_LEN` tokens.
    /// Those of an equal content that are known already stay the known ones. Returns those that were not
    /// known before, with their places.
    pub fn publish(&mut self, owner: Owner, tokens: &[u32], pages: &[PageId]) -> Vec<(usize, PageId)> {
        let (mut before, mut new) = (0, Vec::new());
        for (place, (chunk, &page)) in tokens.chunks_exact(PAGE_LEN).zip(pages).enumerate() {
            let key = Key { owner, before, tokens: chunk.into() };
            before = match self.index.get(&key) {
                Some(&known) => self.state[known as usize].indexed.as_ref().expect("in the index").1,
                None => {
                    let entry = self.next_entry;
                    let state = &mut self.state[page as usize];
                    assert!(state.holders > 0, "page {page} is held");
                    // It is known after an entry that has been evicted since: it cannot be found any
                    // more, nor anything after it, and is let go like the others.
                    if state.indexed.is_some() {
                        return new;
                    }
                    state.indexed = Some((key.clone(), entry));
                    self.next_entry += 1;
                    self.index.insert(key, page);
                    new.push((place, page));
                    entry
                }
            };
        }
        new
    }

    /// Checks the ledger: every page is free, held or cached, and in one of these only. `held` are all
    /// pages that sequences hold, once for each holder.
    ///
    /// # Panics
    /// If the books do not balance.
    pub fn check(&self, held: impl Iterator<Item = PageId>) {
        let mut holders = vec![0u32; self.state.len()];
        held.for_each(|page| holders[page as usize] += 1);
        for (page, state) in self.state.iter().enumerate() {
            let page = page as PageId;
            assert_eq!(state.holders, holders[page as usize], "holders of page {page}");
            let free = self.free.contains(&page);
            let idle = self.idle.contains(&(state.idle_since, page));
            assert_eq!(free, state.holders == 0 && state.indexed.is_none(), "page {page} is free or not");
            assert_eq!(idle, state.holders == 0 && state.indexed.is_some(), "page {page} is cached or not");
            if let Some((key, _)) = &state.indexed {
                assert_eq!(self.index.get(key), Some(&page), "page {page} is found by its content");
            }
        }
        assert_eq!(self.index.len(), self.state.iter().filter(|s| s.indexed.is_some()).count(), "entries of the index");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(seed: u32, pages: usize) -> Vec<u32> {
        (0..(pages * PAGE_LEN) as u32).map(|i| i * 7 + seed).collect()
    }

    #[test]
    fn a_prefix_is_found_by_its_owner_only() {
        let mut pages = Pages::new(8);
        let text = tokens(1, 3);
        let own: Vec<PageId> = (0..3).map(|_| pages.take().unwrap()).collect();
        assert_eq!(pages.publish(5, &text, &own), [(0, own[0]), (1, own[1]), (2, own[2])]);
        assert_eq!(pages.publish(5, &text, &own), [], "they are known");
        assert!(pages.find(6, &text).is_empty());
        assert_eq!((pages.known(6, &text), pages.known(5, &text)), (0, 2));
        let found = pages.find(5, &text);
        assert_eq!(found, own[..2], "the last token is left to compute");
        pages.check(own.iter().chain(&found).copied());
    }

    #[test]
    fn let_go_pages_are_found_until_their_room_is_needed() {
        let mut pages = Pages::new(3);
        let text = tokens(1, 2);
        let own: Vec<PageId> = (0..2).map(|_| pages.take().unwrap()).collect();
        pages.publish(1, &text, &own);
        own.iter().for_each(|&p| pages.release(p));
        assert_eq!(pages.available(), 3);
        let mut longer = text.clone();
        longer.push(9);
        let found = pages.find(1, &longer);
        assert_eq!(found, own);
        found.iter().for_each(|&p| pages.release(p));
        let all: Vec<PageId> = (0..3).map(|_| pages.take().unwrap()).collect();
        assert_eq!(pages.take(), None);
        assert!(pages.find(1, &longer).is_empty());
        pages.check(all.into_iter());
    }

    #[test]
    fn the_same_tokens_after_another_beginning_are_another_page() {
        let mut pages = Pages::new(8);
        let (a, b) = (tokens(1, 1), tokens(2, 1));
        let first = [&a[..], &b[..]].concat();
        let own: Vec<PageId> = (0..2).map(|_| pages.take().unwrap()).collect();
        pages.publish(1, &first, &own);
        let second = [&b[..], &b[..], &[0]].concat();
        assert!(pages.find(1, &second).is_empty());
        pages.check(own.into_iter());
    }
}
