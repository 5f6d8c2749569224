//! Stop strings in text that arrives in pieces.

/// Watches streamed text for stop strings. Text that may become a stop string is held back; the first stop string that
/// is complete ends the text. Of several that begin in the text, the one that begins first wins; of those that begin
/// at the same place, the shortest, because it is complete first.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    done: bool,
}

/// What became of a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopMatch {
    /// Text that can be shown now. After a stop, what stood before the stop string.
    pub text: String,
    /// The stop string that ended the text.
    pub stopped_by: Option<String>,
}

impl StopStrings {
    /// Watches for these strings; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> StopStrings {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        StopStrings { stops, held: String::new(), done: false }
    }

    /// Takes the next piece. After a stop everything is ignored.
    pub fn push(&mut self, piece: &str) -> StopMatch {
        if self.done {
            return StopMatch { text: String::new(), stopped_by: None };
        }
        if self.stops.is_empty() {
            return StopMatch { text: piece.to_string(), stopped_by: None };
        }
        self.held.push_str(piece);
        let complete = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.len(), stop)));
        let first = complete.min().map(|(at, _, stop)| (at, stop.clone()));
        let undecided = self.undecided_from();
        // A complete stop string loses to one that began before it and may still become complete.
        if let Some((at, stop)) = first.filter(|(at, _)| *at <= undecided) {
            self.done = true;
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return StopMatch { text, stopped_by: Some(stop) };
        }
        let rest = self.held.split_off(undecided);
        StopMatch { text: std::mem::replace(&mut self.held, rest), stopped_by: None }
    }

    /// Ends the text: what was held back is ordinary text now, unless a complete stop string waited in it.
    pub fn finish(mut self) -> StopMatch {
        let complete = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.len(), stop)));
        match complete.min().map(|(at, _, stop)| (at, stop.clone())) {
            Some((at, stop)) => {
                self.held.truncate(at);
                StopMatch { text: self.held, stopped_by: Some(stop) }
            }
            None => StopMatch { text: self.held, stopped_by: None },
        }
    }

    /// Where text begins that is the beginning of a stop string and reaches the end of what is held.
    fn undecided_from(&self) -> usize {
        let suffix = |stop: &String| longest_suffix_prefix(&self.held, stop);
        self.held.len() - self.stops.iter().map(suffix).max().unwrap_or(0)
    }
}

/// The length of the longest end of `text` that is a beginning of `marker`, but not all of it.
pub(crate) fn longest_suffix_prefix(text: &str, marker: &str) -> usize {
    let lengths = (1..marker.len().min(text.len() + 1)).rev();
    lengths
        .filter(|&length| marker.is_char_boundary(length))
        .find(|&length| text.as_bytes().ends_with(&marker.as_bytes()[..length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification, on the whole text: the stop string that begins first, then the shortest.
    fn whole(stops: &[String], text: &str) -> (String, Option<String>) {
        let hits = stops
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| Some((text.find(stop.as_str())?, stop.len(), stop)));
        match hits.min() {
            Some((at, _, stop)) => (text[..at].to_string(), Some(stop.clone())),
            None => (text.to_string(), None),
        }
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
            pieces in prop::collection::vec("[abcé]{0,4}", 0..12),
        ) {
            let mut matcher = StopStrings::new(stops.clone());
            let mut text = String::new();
            let mut stopped = None;
            for piece in &pieces {
                let found = matcher.push(piece);
                text.push_str(&found.text);
                stopped = stopped.or(found.stopped_by);
            }
            if stopped.is_none() {
                let rest = matcher.finish();
                text.push_str(&rest.text);
                stopped = rest.stopped_by;
            }
            prop_assert_eq!((text, stopped), whole(&stops, &pieces.concat()));
        }
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held_back() {
        let mut matcher = StopStrings::new(["\nUser:".to_string()]);
        assert_eq!(matcher.push("Hello\nUs").text, "Hello");
        assert_eq!(matcher.push("age").text, "\nUsage");
        let end = matcher.push("\nUser: hi");
        assert_eq!((end.text.as_str(), end.stopped_by.as_deref()), ("", Some("\nUser:")));
    }
}
