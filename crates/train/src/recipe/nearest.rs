//! The nearest known name to one that is not known.

/// The known name with the fewest changes, if it is near enough to be meant.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let near = known.into_iter().map(|name| (distance(&wrong, &name.to_lowercase()), name)).min_by_key(|(d, _)| *d)?;
    // A third of the letters may differ: more is another word.
    (near.0 * 3 <= wrong.chars().count().max(near.1.chars().count()).max(3)).then_some(near.1)
}

/// Adds the nearest known key to a message about an unknown one.
pub(crate) fn with_hint(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !(message.starts_with("unknown field") || message.starts_with("unknown variant")) {
        return message;
    }
    let Some(wrong) = quoted.next() else { return message };
    match nearest(wrong, quoted) {
        Some(known) => format!("{message}; did you mean `{known}`?"),
        None => message,
    }
}

/// Changes of one character, with neighbours that swap places counted once (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_name_and_another_word_does_not() {
        let known = ["batch_tokens", "micro_batch_tokens", "precision", "clip"];
        assert_eq!(nearest("batch_token", known), Some("batch_tokens"));
        assert_eq!(nearest("percision", known), Some("precision"));
        assert_eq!(nearest("Clip", known), Some("clip"));
        assert_eq!(nearest("temperature", known), None);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
