//! How a pull tells what it does. The command line draws a bar from it; tests listen; a program may ignore it.

use std::time::Duration;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The commit and the files are known; nothing was downloaded yet.
    Planned {
        /// The commit that the files come from.
        commit: &'a str,
        /// How many files belong to the model.
        files: usize,
        /// Their size in total.
        total_bytes: u64,
    },
    /// Work on a file starts.
    File {
        /// Its path in the model.
        path: &'a str,
        /// Its size.
        size_bytes: u64,
    },
    /// So many bytes of the current file are here and hashed. May go back to 0 when a server forces a restart.
    Position {
        /// Bytes of the current file.
        bytes: u64,
    },
    /// The current file is complete and verified.
    FileDone {
        /// Its path in the model.
        path: &'a str,
    },
    /// A failure that is tried again after a pause.
    Retry {
        /// What failed.
        cause: &'a str,
        /// The pause.
        pause: Duration,
    },
}

/// Listens to a pull, and can stop it.
pub trait Progress {
    /// Called often; has to be quick.
    fn event(&self, event: Event<'_>);

    /// Asked between reads; `true` stops the pull with [`PullError::Cancelled`](crate::PullError::Cancelled).
    fn cancelled(&self) -> bool {
        false
    }
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// A byte count for people: `812 B`, `4.66 GB` (decimal units, as disks and hubs count).
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::bytes_text;

    #[test]
    fn bytes_are_readable() {
        let cases =
            [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (4_660_000_000, "4.66 GB"), (10_500_000_000, "10.5 GB")];
        for (bytes, text) in cases {
            assert_eq!(bytes_text(bytes), text);
        }
        assert_eq!(bytes_text(999_999), "1.00 MB");
        assert!(bytes_text(u64::MAX).ends_with(" TB"));
    }
}
