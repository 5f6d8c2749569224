//! Energy: what the machine's own meters say (RAPL, the running average power limit counters of x86 processors), or an
//! estimate from the watts that the user gave, labelled as such, or nothing.

use std::time::Duration;

use engine::{EnergyCounters, EnergyReading};

/// Where joules come from.
#[derive(Debug)]
pub(crate) enum Meter {
    /// The machine's own counters.
    Measured(EnergyCounters),
    /// Watts while the engine computes.
    Estimated(f64),
    /// Nobody knows.
    Unknown,
}

/// The counters at a moment, where they can be read.
pub(crate) struct Reading(Option<EnergyReading>);

impl Meter {
    /// The machine's meters if they can be read, else the estimate if there is one.
    pub(crate) fn new(watts: Option<f64>) -> Meter {
        match (EnergyCounters::open(), watts) {
            (Some(counters), _) => Meter::Measured(counters),
            (None, Some(watts)) => Meter::Estimated(watts),
            (None, None) => Meter::Unknown,
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
            Meter::Measured(counters) => Reading(counters.read()),
            _ => Reading(None),
        }
    }

    /// Joules since a reading, `spent` ago.
    pub(crate) fn joules(&self, since: Reading, spent: Duration) -> Option<f64> {
        match self {
            Meter::Measured(counters) => Some(counters.joules(&since.0?, &counters.read()?)),
            Meter::Estimated(watts) => Some(watts * spent.as_secs_f64()),
            Meter::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_watts_times_seconds() {
        let meter = Meter::Estimated(40.0);
        assert_eq!(meter.joules(meter.read(), Duration::from_millis(500)), Some(20.0));
        assert_eq!((meter.label(), Meter::Unknown.label()), (Some("estimated"), None));
    }
}
