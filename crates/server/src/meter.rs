//! Energy: what the machine's own meters say (RAPL, the running average power limit counters of x86 processors), or an
//! estimate from the watts that the user gave, labelled as such, or nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const RAPL: &str = "/sys/class/powercap";

/// Where joules come from.
#[derive(Debug)]
pub(crate) enum Meter {
    /// The counters of all processor packages: file in microjoules, and where it wraps.
    Measured(Vec<(PathBuf, u64)>),
    /// Watts while the engine computes.
    Estimated(f64),
    /// Nobody knows.
    Unknown,
}

/// The counters at a moment.
pub(crate) struct Reading(Vec<u64>);

impl Meter {
    /// The machine's meters if they can be read, else the estimate if there is one.
    pub(crate) fn new(watts: Option<f64>) -> Meter {
        let packages: Vec<(PathBuf, u64)> = packages().collect();
        match watts {
            _ if !packages.is_empty() => Meter::Measured(packages),
            Some(watts) => Meter::Estimated(watts),
            None => Meter::Unknown,
        }
    }

    /// How joules are labelled.
    pub(crate) fn label(&self) -> Option<&'static str> {
        match self {
            Meter::Measured(_) => Some("measured"),
            Meter::Estimated(_) => Some("estimated"),
            Meter::Unknown => None,
        }
    }

    /// The counters now.
    pub(crate) fn read(&self) -> Reading {
        match self {
            Meter::Measured(files) => Reading(files.iter().filter_map(|(file, _)| number(file)).collect()),
            _ => Reading(Vec::new()),
        }
    }

    /// Joules since a reading, `spent` ago.
    pub(crate) fn joules(&self, since: Reading, spent: Duration) -> Option<f64> {
        match self {
            Meter::Measured(files) => {
                let now = self.read();
                if now.0.len() != files.len() || since.0.len() != files.len() {
                    return None;
                }
                let spans = files.iter().zip(since.0.iter().zip(&now.0));
                Some(spans.map(|((_, range), (old, new))| difference(*old, *new, *range) as f64 / 1e6).sum())
            }
            Meter::Estimated(watts) => Some(watts * spent.as_secs_f64()),
            Meter::Unknown => None,
        }
    }
}

/// The counter of each package (`intel-rapl:0`; its parts are `intel-rapl:0:0` and are not counted twice).
fn packages() -> impl Iterator<Item = (PathBuf, u64)> {
    let entries = fs::read_dir(RAPL).into_iter().flatten().flatten();
    let domains = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("intel-rapl:") && name.matches(':').count() == 1
    });
    domains.filter_map(|entry| {
        let (counter, range) = (entry.path().join("energy_uj"), entry.path().join("max_energy_range_uj"));
        number(&counter)?;
        Some((counter, number(&range)?))
    })
}

fn number(file: &PathBuf) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Microjoules between two readings of a counter that begins again after `range`.
fn difference(old: u64, new: u64, range: u64) -> u64 {
    if new >= old { new - old } else { (range - old.min(range)).saturating_add(new) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_begins_again_is_understood() {
        assert_eq!(difference(10, 25, 100), 15);
        assert_eq!(difference(90, 5, 100), 15);
    }

    #[test]
    fn an_estimate_is_watts_times_seconds() {
        let meter = Meter::Estimated(40.0);
        assert_eq!(meter.joules(meter.read(), Duration::from_millis(500)), Some(20.0));
        assert_eq!((meter.label(), Meter::Unknown.label()), (Some("estimated"), None));
    }
}
