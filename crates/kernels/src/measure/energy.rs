//! Energy, where the machine tells: Intel's and AMD's counters (RAPL) through Linux' powercap.

use std::path::{Path, PathBuf};

/// The counters of all processor packages.
#[derive(Debug)]
pub struct EnergyCounters {
    /// Each in microjoules, and where it begins again.
    packages: Vec<(PathBuf, u64)>,
}

/// What the counters said at one moment.
#[derive(Clone, Debug)]
pub struct EnergyReading(Vec<u64>);

impl EnergyCounters {
    /// The counters, if there are some and they can be read (most systems let only root).
    pub fn open() -> Option<EnergyCounters> {
        EnergyCounters::at(Path::new("/sys/class/powercap"))
    }

    fn at(folder: &Path) -> Option<EnergyCounters> {
        let mut packages = Vec::new();
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let name = entry.file_name();
            // Packages are `intel-rapl:N`; their parts, `intel-rapl:N:M`, are counted in them.
            let package = name.to_str().is_some_and(|n| n.starts_with("intel-rapl:") && n.matches(':').count() == 1);
            let (counter, range) = (entry.path().join("energy_uj"), entry.path().join("max_energy_range_uj"));
            if let (true, Some(range), Some(_)) = (package, number(&range), number(&counter)) {
                packages.push((counter, range));
            }
        }
        (!packages.is_empty()).then_some(EnergyCounters { packages })
    }

    /// The counters now; none where one cannot be read any more.
    pub fn read(&self) -> Option<EnergyReading> {
        self.packages.iter().map(|(counter, _)| number(counter)).collect::<Option<_>>().map(EnergyReading)
    }

    /// Joules from one reading to a later one. A counter begins again after some minutes under load, so readings must
    /// be closer than that.
    pub fn joules(&self, before: &EnergyReading, after: &EnergyReading) -> f64 {
        let spans = self.packages.iter().zip(before.0.iter().zip(&after.0));
        let microjoules = |((_, range), (before, after)): (&(PathBuf, u64), (&u64, &u64))| match after >= before {
            true => after - before,
            false => after.saturating_add(range.saturating_sub(*before)),
        };
        spans.map(microjoules).sum::<u64>() as f64 / 1e6
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_added_and_a_counter_may_begin_again() {
        let folder = std::env::temp_dir().join(format!("fathom-energy-{}", std::process::id()));
        let put = |name: &str, energy: u64| {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("max_energy_range_uj"), "10000000\n").unwrap();
            std::fs::write(path.join("energy_uj"), format!("{energy}\n")).unwrap();
        };
        put("intel-rapl:0", 9_000_000);
        put("intel-rapl:1", 0);
        put("intel-rapl:0:0", 0);
        let counters = EnergyCounters::at(&folder).unwrap();
        let before = counters.read().unwrap();
        put("intel-rapl:0", 1_000_000);
        put("intel-rapl:1", 500_000);
        put("intel-rapl:0:0", 900_000);
        let after = counters.read().unwrap();
        assert_eq!(counters.joules(&before, &after), 2.5);
        assert_eq!(counters.joules(&after, &after), 0.0);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(counters.read().is_none());
        assert!(EnergyCounters::at(&folder).is_none());
    }
}
