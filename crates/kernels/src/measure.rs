//! The limits of this machine, measured: memory bandwidth, arithmetic peaks, processor topology.
//!
//! Decoding is bound by memory and prefill by arithmetic, so every speed that fathom reports is a
//! share of one of these limits. [`Limits::measure`] takes about two seconds and is what
//! `fathom doctor` prints; [`Machine::read`] only asks the processor and the system.
//!
//! Every figure is taken from many short runs and comes as best and median: on a virtual machine
//! the host may lend the processors to others, and the best run is the one that it did not disturb.
//! What the system does not tell is `None`, never a guess.

mod arithmetic;
mod bandwidth;
mod energy;
mod machine;
mod team;
mod topology;

pub use arithmetic::{ArithmeticPeak, Operation, arithmetic_peaks};
pub use bandwidth::{BandwidthError, ReadBandwidth, read_bandwidth};
pub use energy::{EnergyCounters, EnergyReading};
pub use machine::{Amx, Feature, Machine, Memory};
pub use topology::{Topology, topology};

/// Best and median of several runs of one measurement; the unit is in the name of the field that
/// holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The largest value.
    pub best: f64,
    /// The median value.
    pub median: f64,
    /// How many runs there were.
    pub runs: usize,
}

impl Spread {
    /// The spread of `values`, of which a larger one is better. `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let best = *values.last()?;
        Some(Spread { best, median: values[values.len() / 2], runs: values.len() })
    }
}

/// Everything that is measured, by one call.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What the processor and the system say of themselves.
    pub machine: Machine,
    /// Reading from memory with one thread.
    pub read_one_thread: ReadBandwidth,
    /// Reading from memory with a thread per processor.
    pub read_all_threads: ReadBandwidth,
    /// Multiply-add peaks, one per instruction set that this processor has.
    pub arithmetic: Vec<ArithmeticPeak>,
    /// Whether the first two processors are two cores. `None` where it cannot be measured.
    pub topology: Option<Topology>,
    /// How long all this took.
    pub duration_s: f64,
}

impl Limits {
    /// Reads and measures everything, in about two seconds.
    ///
    /// # Errors
    /// If there is no memory for a buffer that is much larger than the caches.
    pub fn measure() -> Result<Limits, BandwidthError> {
        let start = std::time::Instant::now();
        let machine = Machine::read();
        let threads = machine.processors;
        let [read_one_thread, read_all_threads] = read_bandwidth(&machine, [1, threads])?;
        Ok(Limits {
            read_one_thread,
            read_all_threads,
            arithmetic: arithmetic_peaks(threads),
            topology: topology(),
            machine,
            duration_s: start.elapsed().as_secs_f64(),
        })
    }
}

/// What a number of threads can do: the two limits of every speed.
#[derive(Clone, Debug)]
pub struct ThreadLimits {
    /// Number of threads.
    pub threads: usize,
    /// Reading from memory.
    pub read: ReadBandwidth,
    /// Billions (1e9) of operations per second, by operation: the best instruction set of this
    /// processor.
    pub gop_per_s: Vec<(Operation, Spread)>,
}

impl ThreadLimits {
    /// Measures with `threads` threads, in one or two seconds.
    ///
    /// # Errors
    /// If there is no memory for a buffer that is much larger than the caches.
    pub fn measure(machine: &Machine, threads: usize) -> Result<ThreadLimits, BandwidthError> {
        let [read] = read_bandwidth(machine, [threads])?;
        let mut gop_per_s: Vec<(Operation, Spread)> = Vec::new();
        for peak in arithmetic_peaks(threads) {
            let (operation, spread) = (peak.operation, peak.all_threads_gop_per_s);
            match gop_per_s.iter_mut().find(|(known, _)| *known == operation) {
                Some((_, best)) if best.best >= spread.best => {}
                Some((_, best)) => *best = spread,
                None => gop_per_s.push((operation, spread)),
            }
        }
        Ok(ThreadLimits { threads, read, gop_per_s })
    }

    /// The peak of an operation; of f32 where the processor has no instruction for it.
    pub fn peak_gop_per_s(&self, operation: Operation) -> f64 {
        let find = |wanted| self.gop_per_s.iter().find(|(known, _)| *known == wanted).map(|(_, spread)| spread.best);
        let of_f32 = find(Operation::F32Fma).unwrap_or(f64::NAN);
        // On some processors bf16 instructions do less than f32 multiply-adds.
        find(operation).map_or(of_f32, |peak| peak.max(of_f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_largest_and_the_middle() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![2.0, 9.0, 1.0]), Some(Spread { best: 9.0, median: 2.0, runs: 3 }));
    }
}
