//! Runs one piece of work on several threads at once and times it, as every measurement here does.

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// How often and how long a measurement is repeated.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// At least so many runs, whatever they take.
    pub runs_min: usize,
    /// At most so many runs.
    pub runs_max: usize,
    /// No further run starts after this time.
    pub budget: Duration,
}

/// Runs `work(thread, round)` on each of `threads` threads at once, again and again, and returns the time
/// of each round in seconds: from the common start to the end of the last thread.
///
/// A round that warms caches, page tables and clocks comes first and is not counted.
pub(super) fn time_rounds(threads: usize, effort: Effort, work: impl Fn(usize, usize) + Sync) -> Vec<f64> {
    let (start, end) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (start, end, stop, work) = (&start, &end, &stop, &work);
            scope.spawn(move || {
                for round in 0.. {
                    start.wait();
                    if stop.load(std::sync::atomic::Ordering::Acquire) {
                        return;
                    }
                    work(thread, round);
                    end.wait();
                }
            });
        }
        let mut seconds = Vec::with_capacity(effort.runs_max + 1);
        let begin = Instant::now();
        while seconds.len() <= effort.runs_min || (seconds.len() <= effort.runs_max && begin.elapsed() < effort.budget)
        {
            let round = Instant::now();
            start.wait();
            end.wait();
            seconds.push(round.elapsed().as_secs_f64());
        }
        stop.store(true, std::sync::atomic::Ordering::Release);
        start.wait();
        seconds.split_off(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_thread_takes_part_in_every_round() {
        let rounds = [const { AtomicUsize::new(0) }; 3];
        let effort = Effort { runs_min: 2, runs_max: 5, budget: Duration::ZERO };
        let seconds = time_rounds(3, effort, |thread, _| {
            rounds[thread].fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
        });
        assert_eq!(seconds.len(), 2);
        assert!(seconds.iter().all(|&s| s >= 0.002), "{seconds:?}");
        assert!(rounds.iter().all(|count| count.load(Ordering::Relaxed) == 3));
    }
}
