//! Read bandwidth from memory: the limit of decoding, since each token reads every active weight.
//!
//! The buffers are much larger than the last-level cache and each is written first by the thread
//! that reads it, so that on a machine with several memory nodes it lies near that thread.

use std::hint::black_box;
use std::time::Duration;

use super::machine::Machine;
use super::team::{Effort, time_rounds};
use super::{Spread, machine};

/// How fast memory is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadBandwidth {
    /// Number of threads that read at once.
    pub threads: usize,
    /// Bytes that all threads together read in one run.
    pub bytes_per_run: usize,
    /// Gigabytes (1e9) per second.
    pub gb_per_s: Spread,
}

/// Why the bandwidth could not be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BandwidthError {
    /// A buffer much larger than the caches does not fit into the memory that is available.
    NotEnoughMemory {
        /// What the buffers need.
        needed_bytes: u64,
        /// What may be used of it: half of what is available.
        usable_bytes: u64,
    },
    /// The system refused the buffers.
    Refused {
        /// What was asked for.
        bytes: u64,
    },
}

impl std::fmt::Display for BandwidthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            BandwidthError::NotEnoughMemory { needed_bytes, usable_bytes } => write!(
                f,
                "measuring memory bandwidth needs buffers of {} MiB, but only {} MiB (half of the available memory) \
                 may be used for it",
                needed_bytes >> 20,
                usable_bytes >> 20
            ),
            BandwidthError::Refused { bytes } => {
                write!(f, "the system refused {} MiB of memory for measuring its bandwidth", bytes >> 20)
            }
        }
    }
}

impl std::error::Error for BandwidthError {}

/// Without a known cache size the buffers are this large in all; also their least size.
const BYTES_MIN: u64 = 512 << 20;
/// Larger caches than an eighth of this exist, but then half the buffer still comes from memory.
const BYTES_MAX: u64 = 4 << 30;
/// What one thread reads in one run: a few milliseconds, short enough to fit between disturbances.
const WINDOW_BYTES: usize = 32 << 20;
const EFFORT: Effort = Effort { runs_min: 5, runs_max: 100, budget: Duration::from_millis(350) };

/// Measures the read bandwidth for each of the given numbers of threads, over the same buffers.
///
/// # Errors
/// If the buffers (at least 512 MiB) do not fit into half of the available memory.
pub fn read_bandwidth<const N: usize>(
    machine: &Machine,
    threads: [usize; N],
) -> Result<[ReadBandwidth; N], BandwidthError> {
    let bytes = buffer_bytes(machine.last_level_cache_bytes, machine.memory)?;
    let parts = threads.into_iter().max().unwrap_or(1).max(1);
    let buffers = allocate(bytes, parts)?;
    let words = buffers.iter().map(Vec::len).min().unwrap_or(0).clamp(1, WINDOW_BYTES / 8);
    Ok(threads.map(|threads| {
        let threads = threads.max(1);
        // Each round reads on where the last one ended; until it comes round, the caches have forgotten.
        let windows =
            |thread| buffers.iter().skip(thread).step_by(threads).flat_map(|buffer| buffer.chunks_exact(words));
        let windows: Vec<Vec<&[u64]>> = (0..threads).map(|thread| windows(thread).collect()).collect();
        let seconds = time_rounds(threads, EFFORT, |thread, round| {
            let own = &windows[thread];
            black_box(sum(black_box(own[round % own.len()])));
        });
        let bytes_per_run = threads * words * 8;
        let gb_per_s = seconds.iter().map(|s| bytes_per_run as f64 / s / 1e9).collect();
        ReadBandwidth { threads, bytes_per_run, gb_per_s: Spread::of(gb_per_s).expect("at least five runs") }
    }))
}

/// Eight times the last-level cache, within bounds; an error if memory is too small for that.
fn buffer_bytes(cache_bytes: Option<u64>, memory: machine::Memory) -> Result<u64, BandwidthError> {
    let wanted = cache_bytes.unwrap_or(0).saturating_mul(8).clamp(BYTES_MIN, BYTES_MAX);
    match memory.available_bytes {
        Some(available) if available / 2 < wanted => {
            Err(BandwidthError::NotEnoughMemory { needed_bytes: wanted, usable_bytes: available / 2 })
        }
        _ => Ok(wanted),
    }
}

/// `parts` buffers of `bytes` in all, each written by a thread of its own.
fn allocate(bytes: u64, parts: usize) -> Result<Vec<Vec<u64>>, BandwidthError> {
    let refused = BandwidthError::Refused { bytes };
    let words = usize::try_from(bytes).map_err(|_| refused)? / 8 / parts;
    let one = |part: usize| -> Result<Vec<u64>, BandwidthError> {
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(words).map_err(|_| refused)?;
        // Not zero: the system may map fresh zero pages all to one page of memory.
        buffer.resize(words, part as u64 + 1);
        Ok(buffer)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..parts).map(|part| scope.spawn(move || one(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(refused))).collect()
    })
}

/// The sum of all words, by the widest loads that the processor has.
fn sum(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F.
            return unsafe { sum_avx512(words) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { sum_avx2(words) };
        }
    }
    sum_plain(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(words: &[u64]) -> u64 {
    sum_plain(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(words: &[u64]) -> u64 {
    sum_plain(words)
}

/// Compiled anew into each caller, with that caller's instruction set. Integer addition may be done
/// in any order, so the compiler makes independent vector sums of it and the loads are the limit.
#[inline(always)]
fn sum_plain(words: &[u64]) -> u64 {
    // A kibibyte at a time, and what is 8 KiB on is asked for: the processor by itself asks only within a page.
    words.chunks(128).fold(0, |total, piece| {
        #[cfg(target_arch = "x86_64")]
        for line in 0..16 {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: SSE, which every x86-64 processor has; a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(piece.as_ptr().wrapping_add(1024 + 8 * line).cast()) };
        }
        piece.iter().fold(total, |total, &word| total.wrapping_add(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Memory;

    #[test]
    fn every_word_is_read() {
        for length in [0, 1, 31, 32, 33, 1000] {
            let words: Vec<u64> = (0..length).map(|i| i * i + 7).collect();
            assert_eq!(sum(&words), words.iter().sum::<u64>(), "{length} words");
            assert_eq!(sum_plain(&words), words.iter().sum::<u64>(), "{length} words, portable");
        }
    }

    #[test]
    fn the_buffers_outgrow_the_cache_and_fit_into_memory() {
        let memory = |available| Memory { total_bytes: None, available_bytes: available };
        assert_eq!(buffer_bytes(None, memory(None)), Ok(BYTES_MIN));
        assert_eq!(buffer_bytes(Some(100 << 20), memory(Some(64 << 30))), Ok(800 << 20));
        assert_eq!(buffer_bytes(Some(u64::MAX), memory(None)), Ok(BYTES_MAX));
        let error = buffer_bytes(None, memory(Some(600 << 20))).unwrap_err();
        assert_eq!(error, BandwidthError::NotEnoughMemory { needed_bytes: 512 << 20, usable_bytes: 300 << 20 });
        assert!(error.to_string().contains("512 MiB"), "{error}");
    }

    #[test]
    fn buffers_are_split_among_the_threads() {
        let buffers = allocate(1 << 20, 3).unwrap();
        assert_eq!(buffers.len(), 3);
        assert!(buffers.iter().all(|buffer| buffer.len() == (1 << 20) / 8 / 3));
    }
}
