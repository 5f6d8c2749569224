//! Energy, where the machine tells: Intel's and AMD's counters through Linux' powercap (RAPL).

use std::path::{Path, PathBuf};

/// The counters of all processor packages.
pub(crate) struct Energy {
    /// For each package: its folder, where it wraps around, and what it said last, in microjoules.
    packages: Vec<(PathBuf, u64, u64)>,
}

impl Energy {
    /// The counters, if there are some and they can be read (most systems let only root).
    pub(crate) fn open() -> Option<Energy> {
        Energy::at(Path::new("/sys/class/powercap"))
    }

    fn at(folder: &Path) -> Option<Energy> {
        let mut packages = Vec::new();
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let name = entry.file_name();
            // Packages are `intel-rapl:N`; their parts, `intel-rapl:N:M`, are counted in them.
            let package = name.to_str().is_some_and(|n| n.starts_with("intel-rapl:") && n.matches(':').count() == 1);
            let path = entry.path();
            if let (true, Some(range), Some(now)) =
                (package, number(&path.join("max_energy_range_uj")), number(&path.join("energy_uj")))
            {
                packages.push((path, range, now));
            }
        }
        (!packages.is_empty()).then_some(Energy { packages })
    }

    /// Joules since the last call. The counters wrap around after some minutes under load, so calls must be frequent.
    pub(crate) fn joules_since(&mut self) -> f64 {
        let mut microjoules = 0;
        for (path, range, before) in &mut self.packages {
            let Some(now) = number(&path.join("energy_uj")) else { continue };
            microjoules += if now >= *before { now - *before } else { now + (*range).saturating_sub(*before) };
            *before = now;
        }
        microjoules as f64 / 1e6
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_added_and_a_counter_may_wrap_around() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, energy: u64| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("max_energy_range_uj"), "10000000\n").unwrap();
            std::fs::write(path.join("energy_uj"), format!("{energy}\n")).unwrap();
        };
        put("intel-rapl:0", 9_000_000);
        put("intel-rapl:1", 0);
        put("intel-rapl:0:0", 0);
        let mut energy = Energy::at(folder.path()).unwrap();
        put("intel-rapl:0", 1_000_000);
        put("intel-rapl:1", 500_000);
        put("intel-rapl:0:0", 900_000);
        assert_eq!(energy.joules_since(), 2.5);
        assert_eq!(energy.joules_since(), 0.0);
        assert!(Energy::at(&folder.path().join("nothing")).is_none());
    }
}
