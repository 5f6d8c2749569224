//! Drafts: guesses at the next tokens of an answer, computed together with its last token.
//!
//! A step that computes a token and a draft of n more gives the logits after each of them. The sampler chooses from
//! the first row as always; where it chooses the draft's token, the next row is the one that it would have been given
//! anyway, and so on. So a right draft makes an answer come faster, a wrong one changes nothing: tokens,
//! log-probabilities and random numbers are those of the answer without drafts.
//!
//! Drafts come from the text itself (prompt lookup): where its last tokens have occurred before, what followed them
//! then is the guess. Code, quotations and tables repeat themselves; for other text each sequence has a credit, which
//! bounds how much is computed in vain.

/// Whether drafts are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drafts {
    /// None.
    #[default]
    Off,
    /// From earlier occurrences of the last tokens.
    Lookup {
        /// Drafts are made in steps that compute at most so many requests: the more rows a step has, the more one row
        /// adds to its time.
        requests_max: usize,
        /// How many right guesses make up for a wrong one. A row that adds the share `c` to a step's time costs `c`
        /// where it is wrong and saves `1 - c` where it is right, so drafts pay if this is at least `c / (1 - c)`.
        wrong_cost: usize,
    },
}

impl Drafts {
    /// Lookup that pays even where a row more adds three quarters to a step's time (small models, experts): in steps of
    /// one or two requests, while three of four guesses are right.
    pub const AUTO: Drafts = Drafts::Lookup { requests_max: 2, wrong_cost: 3 };
    /// Lookup in every step, while half of the guesses are right.
    pub const ALWAYS: Drafts = Drafts::Lookup { requests_max: usize::MAX, wrong_cost: 1 };

    /// Whether a step that computes `requests` requests has drafts.
    pub fn are_made(self, requests: usize) -> bool {
        matches!(self, Drafts::Lookup { requests_max, .. } if requests <= requests_max)
    }
}

/// The most tokens of a draft.
pub const DRAFT_TOKENS_MAX: usize = 8;

/// What was drafted, and how much of it was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DraftCount {
    /// Tokens that were computed as drafts.
    pub drafted: usize,
    /// Those that were what the sampler chose, and after which the answer went on.
    pub accepted: usize,
}

impl DraftCount {
    /// Counts what `other` has counted as well.
    pub fn add(&mut self, other: DraftCount) {
        self.drafted += other.drafted;
        self.accepted += other.accepted;
    }

    /// What was counted after `earlier`.
    pub fn since(self, earlier: DraftCount) -> DraftCount {
        DraftCount { drafted: self.drafted - earlier.drafted, accepted: self.accepted - earlier.accepted }
    }
}

/// Appends a guess of up to `count` tokens at how `text` goes on: what followed the latest earlier occurrence of its
/// last three tokens, else of its last two. A text that repeats itself goes on repeating itself.
pub fn lookup(text: &[u32], count: usize, draft: &mut Vec<u32>) {
    let Some(mut from) = [3, 2].into_iter().find_map(|n| after_earlier(text, n)) else { return };
    let first = draft.len();
    for _ in 0..count {
        // What follows may be the draft's own beginning.
        let token = if from < text.len() { text[from] } else { draft[first + from - text.len()] };
        draft.push(token);
        from += 1;
    }
}

/// The place after the latest earlier occurrence of the last `n` tokens.
fn after_earlier(text: &[u32], n: usize) -> Option<usize> {
    let last = &text[text.len().checked_sub(n)?..];
    text[..text.len() - 1].windows(n).rposition(|window| window == last).map(|at| at + n)
}

/// How many tokens a sequence's next draft may have.
///
/// A right token earns one, a wrong one costs [`Drafts::Lookup::wrong_cost`], and no draft risks more than there is. So
/// drafts become shorter where they are wrong and longer where they are right. Where nothing is left the sequence goes
/// without drafts for some tokens, for twice as many each time until drafts have paid again, and then tries two tokens.
/// What all wrong tokens cost is at most what the right ones earned, and [`Credit::BEGIN`] tokens' cost more, and
/// [`Credit::AGAIN`] tokens' more after each pause.
#[derive(Clone, Debug)]
pub(crate) struct Credit {
    wrong_cost: usize,
    left: usize,
    /// Tokens until the next try.
    pause: usize,
    next_pause: usize,
}

impl Credit {
    const BEGIN: usize = 4;
    const AGAIN: usize = 2;
    const MOST: usize = 2 * DRAFT_TOKENS_MAX;
    const PAUSE_MIN: usize = 16;
    const PAUSE_MAX: usize = 512;

    pub(crate) fn new(drafts: Drafts) -> Credit {
        let wrong_cost = match drafts {
            Drafts::Off => 1,
            Drafts::Lookup { wrong_cost, .. } => wrong_cost.max(1),
        };
        Credit { wrong_cost, left: Credit::BEGIN * wrong_cost, pause: 0, next_pause: Credit::PAUSE_MIN }
    }

    /// The longest draft now.
    pub(crate) fn tokens(&self) -> usize {
        if self.pause > 0 { 0 } else { (self.left / self.wrong_cost).min(DRAFT_TOKENS_MAX) }
    }

    /// Takes the outcome of a step that has made the answer longer by `tokens`.
    pub(crate) fn settle(&mut self, tokens: usize, count: DraftCount) {
        if self.pause > 0 {
            self.pause = self.pause.saturating_sub(tokens);
            return;
        }
        let wrong = count.drafted - count.accepted;
        let earned = (self.left + count.accepted).min(Credit::MOST * self.wrong_cost);
        self.left = earned.saturating_sub(wrong * self.wrong_cost);
        if self.left >= DRAFT_TOKENS_MAX * self.wrong_cost {
            self.next_pause = Credit::PAUSE_MIN;
        }
        if self.left < self.wrong_cost {
            self.left = Credit::AGAIN * self.wrong_cost;
            self.pause = self.next_pause;
            self.next_pause = (2 * self.next_pause).min(Credit::PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(text: &[u32], count: usize) -> Vec<u32> {
        let mut draft = Vec::new();
        lookup(text, count, &mut draft);
        draft
    }

    #[test]
    fn the_latest_and_longest_occurrence_is_followed() {
        assert_eq!(guess(&[1, 2, 3, 9, 8, 7, 5, 1, 2, 3], 2), [9, 8]);
        assert_eq!(guess(&[2, 3, 4, 6, 2, 3, 5, 6, 2, 3], 2), [5, 6], "the latest");
        assert_eq!(guess(&[1, 2, 3, 4, 6, 2, 3, 5, 1, 2, 3], 1), [4], "three tokens before two");
        assert!(guess(&[1, 2, 3, 4], 4).is_empty());
    }

    #[test]
    fn what_repeats_itself_goes_on() {
        assert_eq!(guess(&[7, 7, 7], 4), [7; 4]);
        assert_eq!(guess(&[5, 1, 2, 1, 2, 1], 5), [2, 1, 2, 1, 2]);
        assert!([&[][..], &[1], &[1, 1]].iter().all(|text| guess(text, 3).is_empty()));
    }

    #[test]
    fn little_is_drafted_in_vain() {
        for (drafts, wrong_cost) in [(Drafts::ALWAYS, 1), (Drafts::AUTO, 3)] {
            for right in 0..=10 {
                let (total, pauses) = draft_often(drafts, right);
                let cost = (total.drafted - total.accepted) * wrong_cost;
                let bound = total.accepted + (Credit::BEGIN + Credit::AGAIN * pauses) * wrong_cost;
                assert!(cost <= bound, "{total:?}, {pauses} pauses");
                assert!(right > 0 || total.drafted < 60, "{total:?} of nothing but wrong ones");
                assert!(right < 10 || total.accepted > 70_000, "{total:?} of right ones alone");
            }
        }
    }

    /// What comes of ten thousand steps whose drafts are right as a whole in `right` of ten cases, and the pauses.
    fn draft_often(drafts: Drafts, right: u32) -> (DraftCount, usize) {
        let (mut credit, mut total, mut pauses) = (Credit::new(drafts), DraftCount::default(), 0);
        let mut random = 1u32;
        for _ in 0..10_000 {
            random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            let drafted = credit.tokens();
            let accepted = if (random >> 16) % 10 < right { drafted } else { 0 };
            let (count, paused) = (DraftCount { drafted, accepted }, credit.pause > 0);
            credit.settle(1 + accepted, count);
            pauses += usize::from(credit.pause > 0 && !paused);
            total.add(count);
        }
        (total, pauses)
    }
}
