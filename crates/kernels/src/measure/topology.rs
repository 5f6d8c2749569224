//! Whether two processors are two cores, or two threads of one core, at this moment.
//!
//! A virtual machine is not told, and its host may move its processors at any time; two threads of
//! one core then give little more than one, and every figure measured meanwhile is worthless. So it
//! is measured: two pinned threads run multiply-adds from registers, alone and together. The time
//! of a message there and back by shared memory is reported beside it: some tens of nanoseconds in
//! one core, several times that across a mesh.

/// What two processors are to each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Topology {
    /// The two processors, by the system's numbers.
    pub processors: [usize; 2],
    /// A message there and back by shared memory, the best block of many, in nanoseconds.
    pub round_trip_ns: f64,
    /// Arithmetic of two threads in units of that of one: 2 for two cores.
    pub two_thread_scaling: f64,
}

impl Topology {
    /// Whether the two are threads of one core.
    pub fn siblings(&self) -> bool {
        // Two cores reach 2.0 and two threads of one core 1.0 to 1.3.
        self.two_thread_scaling < 1.4
    }
}

/// Measures the first two processors that this process may use, in about a tenth of a second.
///
/// `None` with only one processor, or on a system where a thread cannot be pinned to one.
pub fn topology() -> Option<Topology> {
    #[cfg(target_os = "linux")]
    return linux::topology();
    #[cfg(not(target_os = "linux"))]
    return None;
}

#[cfg(target_os = "linux")]
mod linux {
    use super::Topology;
    use crate::measure::arithmetic::widest_f32;
    use std::hint::spin_loop;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    /// Short against the time slices of the system, so that some rounds go undisturbed.
    const ROUND: Duration = Duration::from_micros(400);
    const ROUNDS: usize = 40;
    const MESSAGES_PER_BLOCK: u64 = 500;
    const PING_PONG_BUDGET: Duration = Duration::from_millis(60);

    pub(super) fn topology() -> Option<Topology> {
        let [a, b, ..] = allowed_processors()[..] else { return None };
        let one = multiply_add_s(&[a])?;
        let two = multiply_add_s(&[a, b])?;
        Some(Topology { processors: [a, b], round_trip_ns: round_trip_ns(a, b)?, two_thread_scaling: 2.0 * one / two })
    }

    fn allowed_processors() -> Vec<usize> {
        // SAFETY: all-zero is a valid (empty) set of processors.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is as large as the size says, and 0 is the calling thread.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
        if result != 0 {
            return Vec::new();
        }
        // SAFETY: the numbers are less than the set's size.
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
    }

    /// Keeps the calling thread on one processor; whether the system agreed.
    fn pin(cpu: usize) -> bool {
        // SAFETY: all-zero is a valid (empty) set of processors.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `allowed_processors` gives numbers less than the set's size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        // SAFETY: the set is as large as the size says, and 0 is the calling thread.
        unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) == 0 }
    }

    /// The best time of one fixed piece of arithmetic, done by all `processors` at once: in each
    /// round the slowest of them counts. `None` if a thread cannot be pinned.
    fn multiply_add_s(processors: &[usize]) -> Option<f64> {
        let (run, _) = widest_f32();
        let iterations = iterations_for(run);
        let arrived = AtomicUsize::new(0);
        let seconds = std::thread::scope(|scope| {
            let work = |cpu: usize| -> Option<Vec<f64>> {
                let pinned = pin(cpu);
                let rounds = (1..=ROUNDS).map(|round| {
                    // All start together, also after a disturbance; even unpinned, or the others would wait for ever.
                    arrived.fetch_add(1, Ordering::AcqRel);
                    while arrived.load(Ordering::Acquire) < round * processors.len() {
                        spin_loop();
                    }
                    let start = Instant::now();
                    run(iterations);
                    start.elapsed().as_secs_f64()
                });
                let seconds: Vec<f64> = rounds.collect();
                pinned.then_some(seconds)
            };
            let threads: Vec<_> = processors.iter().map(|&cpu| scope.spawn(move || work(cpu))).collect();
            threads.into_iter().map(|thread| thread.join().ok().flatten()).collect::<Option<Vec<_>>>()
        })?;
        let slowest = (0..ROUNDS).map(|round| seconds.iter().map(|thread| thread[round]).fold(0.0, f64::max));
        Some(slowest.fold(f64::INFINITY, f64::min))
    }

    fn iterations_for(run: fn(usize)) -> usize {
        // The best of a few: a disturbance would make the rounds too short.
        let best = |iterations: usize| {
            (0..5)
                .map(|_| {
                    let start = Instant::now();
                    run(iterations);
                    start.elapsed()
                })
                .min()
                .unwrap_or_default()
        };
        let mut iterations = 1000;
        while best(iterations) < ROUND {
            iterations *= 2;
        }
        iterations
    }

    /// One cache line of its own, also where the processor fetches lines in pairs.
    #[repr(align(128))]
    struct Line(AtomicU64);

    /// The best block of messages between two threads. `None` if one cannot be pinned.
    fn round_trip_ns(a: usize, b: usize) -> Option<f64> {
        const STOP: u64 = u64::MAX;
        let (there, back) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)));
        std::thread::scope(|scope| {
            let echo = scope.spawn(|| {
                let pinned = pin(b);
                let mut last = 0;
                loop {
                    let message = there.0.load(Ordering::Acquire);
                    if message == STOP {
                        return pinned;
                    }
                    if message != last {
                        last = message;
                        back.0.store(message, Ordering::Release);
                    }
                    spin_loop();
                }
            });
            let caller = scope.spawn(|| {
                let pinned = pin(a);
                let begin = Instant::now();
                let mut best = Duration::MAX;
                let mut message = 0;
                while best == Duration::MAX || begin.elapsed() < PING_PONG_BUDGET {
                    let block = Instant::now();
                    for _ in 0..MESSAGES_PER_BLOCK {
                        message += 1;
                        there.0.store(message, Ordering::Release);
                        while back.0.load(Ordering::Acquire) != message {
                            spin_loop();
                        }
                    }
                    best = best.min(block.elapsed());
                }
                there.0.store(STOP, Ordering::Release);
                pinned.then_some(best)
            });
            let best = caller.join().ok().flatten()?;
            let echo_pinned = echo.join().ok()?;
            echo_pinned.then(|| best.as_secs_f64() * 1e9 / MESSAGES_PER_BLOCK as f64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_more_than_one_core_is_one_core() {
        let of = |scaling| Topology { processors: [0, 1], round_trip_ns: 1.0, two_thread_scaling: scaling };
        assert!(of(1.06).siblings());
        assert!(!of(1.97).siblings());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_measured_is_possible() {
        // One processor only: nothing to measure.
        let Some(topology) = topology() else { return };
        assert_ne!(topology.processors[0], topology.processors[1]);
        // Any number of other processes may be in the way: only what no machine can beat is asserted.
        assert!(topology.round_trip_ns > 0.0 && topology.round_trip_ns.is_finite(), "{topology:?}");
        assert!(topology.two_thread_scaling > 0.0 && topology.two_thread_scaling.is_finite(), "{topology:?}");
    }
}
