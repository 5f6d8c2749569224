//! The thread pool: fork-join over numbered tasks.
//!
//! `run(n, f)` calls `f(0) .. f(n - 1)`, each once, on the calling thread and the workers, and
//! returns when all are done. Tasks are claimed one by one; a thread that the system takes away delays
//! only the task that it holds, and one that comes late, or not at all, delays nothing: the others take
//! its tasks. Which thread runs a task never changes a result: a task writes only its own outputs.
//!
//! A waiting thread spins for a moment (decode has hundreds of short steps a token) and then sleeps in
//! the system. How long a moment is, it learns: where the clock jumps while it spins, the system has
//! given the processor to somebody else, and it sleeps at once the next times. That is fair to others
//! and good for us: a thread that gave its processor up willingly gets it back when it wakes, and a
//! caller that sleeps leaves its processor to the worker it waits for.
//!
//! The protocol, and why it is right:
//!
//! - `word` holds the number of tasks of the current job and the number of the next one to claim, in one
//!   atomic. A claim is a compare-and-swap that raises `next` while it is below `tasks`. That it succeeds
//!   means that `word` is current, whatever happened since it was read, so the claimed task belongs to
//!   the job at hand and is claimed once.
//! - `left` counts tasks that are not done. A job is replaced only when `left` is zero, hence never while
//!   a claimed task is unfinished: from its claim until it has lowered `left`, a thread may read `job` and
//!   call the closure. Nobody else does. The claim acquires what the publishing store of `word` released
//!   (`job` and `left` were written before it), and `run` acquires by `left` what tasks have written.
//! - Sleeping: a worker raises its `asleep` and then looks at `word` once more; `run` stores `word` and
//!   then looks at `asleep`. All four are sequentially consistent, so at least one of the two sees the
//!   other, and no wake-up is lost: the worker does not park, or it is unparked (a token, if it has not
//!   parked yet). The caller sleeps by the same rule, with `left` and `caller_asleep`.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// The most tasks of one job: more are run as several jobs.
const TASKS_MAX: usize = 1 << 31;

/// The longest that a thread spins before it sleeps.
const SPIN_MAX: Duration = Duration::from_micros(100);
/// The shortest, where others want the processor.
const SPIN_MIN: Duration = Duration::from_micros(2);
/// What a wait that ended in time adds to the next one's patience.
const SPIN_STEP: Duration = Duration::from_micros(1);
/// A spinning thread looks at the clock every microsecond or so; when this passes between two looks, it
/// did not have the processor meanwhile.
const JUMP: Duration = Duration::from_micros(80);

/// A fixed set of threads; the caller of [`Pool::run`] is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One `run` at a time: a second caller waits. Inside is the patience of callers.
    running: Mutex<Patience>,
}

/// A cache line of its own, also where the processor fetches lines in pairs.
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    /// `tasks << 32 | next`
    word: Line<AtomicU64>,
    /// Tasks of the current job that are not done.
    left: Line<AtomicUsize>,
    /// The current job; see the module's doc for who may look at it when.
    job: UnsafeCell<Option<Job>>,
    /// Of each worker.
    asleep: Vec<Line<AtomicBool>>,
    /// How many of them are true: one look instead of many.
    sleepers: Line<AtomicUsize>,
    caller_asleep: AtomicBool,
    caller: Mutex<Option<Thread>>,
    threads: OnceLock<Vec<Thread>>,
    stop: AtomicBool,
    panicked: AtomicBool,
}

/// A borrowed closure with its lifetime erased; `run` does not return before all its tasks are done.
#[derive(Clone, Copy)]
struct Job {
    call: *const (dyn Fn(usize) + Sync),
}

// SAFETY: `job` alone is not shareable by itself. It is written only while no task is claimed, and read
// only by threads that hold a claimed task (the module's doc has the argument); its pointee is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is not tied to a thread.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads in all, the caller included (at least one).
    pub fn new(threads: usize) -> Pool {
        let others = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            word: Line(AtomicU64::new(0)),
            left: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            asleep: (0..others).map(|_| Line(AtomicBool::new(false))).collect(),
            sleepers: Line(AtomicUsize::new(0)),
            caller_asleep: AtomicBool::new(false),
            caller: Mutex::new(None),
            threads: OnceLock::new(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let workers: Vec<JoinHandle<()>> = (0..others)
            .map(|i| {
                let shared = Arc::clone(&shared);
                let name = format!("fathom-{}", i + 1);
                std::thread::Builder::new().name(name).spawn(move || worker(&shared, i)).expect("start a worker thread")
            })
            .collect();
        let handles = workers.iter().map(|worker| worker.thread().clone()).collect();
        shared.threads.set(handles).expect("set once");
        Pool { shared, workers, running: Mutex::new(Patience::default()) }
    }

    /// A pool with one thread for each processor that this process may use.
    pub fn with_all_processors() -> Pool {
        Pool::new(std::thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// Threads in all, the caller of `run` included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f` once for each number below `tasks` and returns when all calls have returned.
    ///
    /// # Panics
    /// If a task panics, after all others have ended. A task must not call `run` on its own pool.
    pub fn run(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(f);
            return;
        }
        let mut patience = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for first in (0..tasks).step_by(TASKS_MAX) {
            let own = self.run_job(TASKS_MAX.min(tasks - first), &|i| f(first + i), &mut patience);
            let workers_panicked = self.shared.panicked.swap(false, Ordering::Relaxed);
            if let Err(payload) = own {
                drop(patience);
                resume_unwind(payload);
            }
            assert!(!workers_panicked, "a task of the thread pool panicked");
        }
    }

    /// One job of fewer tasks than `TASKS_MAX`; the first panic of the caller's own tasks, if any.
    fn run_job(&self, tasks: usize, f: &(dyn Fn(usize) + Sync), patience: &mut Patience) -> std::thread::Result<()> {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Threads use the pointer between the claim of a task and the
        // lowering of `left` for it, and this function returns when `left` is zero (also when a task panics).
        let call: *const (dyn Fn(usize) + Sync) =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        // SAFETY: `left` is zero and `next` is not below `tasks`, so nobody holds or gets a task and reads it.
        unsafe { *shared.job.get() = Some(Job { call }) };
        shared.left.0.store(tasks, Ordering::Relaxed);
        shared.word.0.store((tasks as u64) << 32, Ordering::SeqCst);
        if shared.sleepers.0.load(Ordering::SeqCst) > 0 {
            shared.wake(tasks - 1);
        }
        let (done, own) = shared.take_tasks();
        if done > 0 && shared.left.0.fetch_sub(done, Ordering::SeqCst) == done {
            return own;
        }
        let finished = || shared.left.0.load(Ordering::SeqCst) == 0;
        if !patience.spin(finished) {
            *lock(&shared.caller) = Some(std::thread::current());
            shared.caller_asleep.store(true, Ordering::SeqCst);
            while !finished() {
                std::thread::park();
            }
            shared.caller_asleep.store(false, Ordering::SeqCst);
        }
        own
    }

    /// As [`Pool::run`], where task `i + 1` reads on where task `i` stopped: a thread mostly gets tasks that follow one
    /// another, so that what it asks for ahead of time is its own, and only its first task begins with a cold stream.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub(crate) fn run_streams(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        let streams = self.threads().min(tasks);
        self.run(tasks, |i| f(place_in_stream(i, tasks, streams)));
    }

    /// Splits `data` into pieces of `piece` elements (the last may be shorter) and calls
    /// `f(index, piece)` for each, in parallel.
    ///
    /// # Panics
    /// If `piece` is zero.
    pub fn for_each_piece<T: Send>(&self, data: &mut [T], piece: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        assert!(piece > 0, "pieces of no elements");
        let tasks = data.len().div_ceil(piece);
        let shared = SharedMut::new(data);
        self.run(tasks, |i| {
            let start = i * piece;
            // SAFETY: the ranges of different task numbers do not overlap.
            let part = unsafe { shared.range(start, piece.min(shared.len() - start)) };
            f(i, part);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.workers.iter().for_each(|worker| worker.thread().unpark());
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Claims a task of the current job.
    fn claim(&self) -> Option<usize> {
        let mut word = self.word.0.load(Ordering::SeqCst);
        while (word as u32) < (word >> 32) as u32 {
            match self.word.0.compare_exchange_weak(word, word + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some(word as u32 as usize),
                Err(now) => word = now,
            }
        }
        None
    }

    fn has_tasks(&self) -> bool {
        let word = self.word.0.load(Ordering::SeqCst);
        (word as u32) < (word >> 32) as u32
    }

    /// Runs tasks until none is left to claim; how many, and the first panic among them. The caller lowers
    /// `left` by their number.
    fn take_tasks(&self) -> (usize, std::thread::Result<()>) {
        let (mut done, mut result) = (0, Ok(()));
        while let Some(task) = self.claim() {
            // SAFETY: the claimed task is not done, so the job is the one that was published with it, and
            // stays until `left` is lowered for it.
            let call = unsafe { (*self.job.get()).expect("published with its tasks").call };
            // SAFETY: as above, and the closure lives as long.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*call)(task) }));
            done += 1;
            if result.is_ok() {
                result = outcome;
            }
        }
        (done, result)
    }

    /// Wakes up to `most` sleeping workers.
    fn wake(&self, most: usize) {
        let Some(threads) = self.threads.get() else { return };
        let asleep = threads.iter().zip(&self.asleep).filter(|(_, asleep)| asleep.0.load(Ordering::SeqCst));
        asleep.take(most).for_each(|(thread, _)| thread.unpark());
    }
}

fn worker(shared: &Shared, number: usize) {
    let mut patience = Patience::default();
    let ready = || shared.has_tasks() || shared.stop.load(Ordering::SeqCst);
    loop {
        if !patience.spin(ready) {
            shared.asleep[number].0.store(true, Ordering::SeqCst);
            shared.sleepers.0.fetch_add(1, Ordering::SeqCst);
            while !ready() {
                std::thread::park();
            }
            shared.asleep[number].0.store(false, Ordering::SeqCst);
            shared.sleepers.0.fetch_sub(1, Ordering::SeqCst);
        }
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let (done, result) = shared.take_tasks();
        if result.is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        // The last one wakes the caller. The job may be over and another one be running by the time it
        // does; a wake-up too many is no harm.
        if done > 0
            && shared.left.0.fetch_sub(done, Ordering::SeqCst) == done
            && shared.caller_asleep.load(Ordering::SeqCst)
            && let Some(caller) = &*lock(&shared.caller)
        {
            caller.unpark();
        }
    }
}

/// The `i`-th task to be claimed of `tasks` that lie in `streams` runs of neighbours: the runs take turns.
fn place_in_stream(i: usize, tasks: usize, streams: usize) -> usize {
    let (stream, position) = (i % streams, i / streams);
    let (length, longer) = (tasks / streams, tasks % streams);
    stream * length + stream.min(longer) + position
}

/// How long a thread spins before it sleeps.
struct Patience {
    limit: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { limit: SPIN_MAX }
    }
}

impl Patience {
    /// Spins until `ready`, or until patience is over; whether it is ready.
    fn spin(&mut self, ready: impl Fn() -> bool) -> bool {
        // Most waits are over before it is worth asking for the time.
        for _ in 0..50 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let start = Instant::now();
        let mut last = start;
        loop {
            for _ in 0..20 {
                if ready() {
                    self.limit = (self.limit + SPIN_STEP).min(SPIN_MAX);
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if now - last > JUMP {
                self.limit = SPIN_MIN;
                return ready();
            }
            if now - start > self.limit {
                return ready();
            }
            last = now;
        }
    }
}

/// A mutable slice that the tasks of one `run` write in disjoint ranges.
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out disjoint ranges (the contract of `range`), so sharing it between threads
// moves exclusive access to elements between them, which `T: Send` allows.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> SharedMut<'a, T> {
        SharedMut { start: data.as_mut_ptr(), len: data.len(), _borrow: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first element, for tiles whose rows interleave with those of others.
    pub(crate) fn start(&self) -> *mut T {
        self.start
    }

    /// The elements `start .. start + count`.
    ///
    /// # Safety
    /// No two live ranges may overlap.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn range(&self, start: usize, count: usize) -> &mut [T] {
        assert!(start <= self.len && count <= self.len - start, "range {start}+{count} of {}", self.len);
        // SAFETY: inside the borrowed slice (checked above); not overlapping (the caller's promise).
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), count) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_task_runs_once_for_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 64, 1000] {
                let counts: Vec<AtomicU64> = (0..tasks).map(|_| AtomicU64::new(0)).collect();
                pool.run(tasks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn streams_are_runs_of_neighbours() {
        assert_eq!((0..7).map(|i| place_in_stream(i, 7, 2)).collect::<Vec<_>>(), [0, 4, 1, 5, 2, 6, 3]);
        for (tasks, streams) in [(1, 1), (5, 2), (64, 3), (64, 64), (7, 5)] {
            let mut places: Vec<usize> = (0..tasks).map(|i| place_in_stream(i, tasks, streams)).collect();
            places.sort_unstable();
            assert_eq!(places, (0..tasks).collect::<Vec<_>>(), "{tasks} tasks, {streams} streams");
        }
        Pool::new(2).run_streams(0, |_| unreachable!("no tasks"));
    }

    #[test]
    fn many_short_jobs_with_pauses_between_them() {
        let pool = Pool::new(3);
        let sum = AtomicU64::new(0);
        for round in 0..2000 {
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5)); // workers fall asleep
            }
            pool.run(5, |i| {
                sum.fetch_add(i as u64, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.load(Ordering::Relaxed), 2000 * 10);
    }

    /// Jobs one after the other without a pause, each with data that is spoiled as soon as it is over: a
    /// thread that comes late must find the new job, or none, but never the old one.
    #[test]
    fn late_threads_do_not_touch_a_job_that_is_over() {
        for threads in [2, 3, 7] {
            let pool = Pool::new(threads);
            for round in 0..20_000usize {
                let tasks = 2 + round % 5;
                let mut slots = [0u8; 8];
                let expected = (round % 251) as u8;
                {
                    let shared = SharedMut::new(&mut slots);
                    pool.run(tasks, |i| {
                        // SAFETY: each task has its own element.
                        let slot = unsafe { shared.range(i, 1) };
                        assert_eq!(slot[0], 0, "task {i} runs once");
                        slot[0] = expected.wrapping_add(i as u8) | 1;
                    });
                }
                for (i, slot) in slots.iter_mut().enumerate() {
                    let want = if i < tasks { expected.wrapping_add(i as u8) | 1 } else { 0 };
                    assert_eq!(std::mem::replace(slot, 255), want, "round {round}, {threads} threads");
                }
            }
        }
    }

    /// Pauses around the time that threads spin before they sleep, so that jobs meet them on the way.
    #[test]
    fn no_wake_up_is_lost_between_spinning_and_sleeping() {
        let pool = Pool::new(3);
        let sum = AtomicU64::new(0);
        let spin = |time: Duration| {
            let start = Instant::now();
            while start.elapsed() < time {
                std::hint::spin_loop();
            }
        };
        for round in 0..3000u32 {
            spin(SPIN_MAX * (round % 21) / 10);
            pool.run(4, |i| {
                // The caller's wait ends around its patience as well.
                if i == 3 {
                    spin(SPIN_MAX * (round % 19) / 10);
                }
                sum.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.load(Ordering::Relaxed), 3000 * 4);
    }

    #[test]
    fn patience_shrinks_when_the_processor_is_taken_away_and_grows_back() {
        let mut patience = Patience::default();
        let begin = Instant::now();
        assert!(!patience.spin(|| false), "nothing comes");
        assert!(begin.elapsed() >= SPIN_MAX || patience.limit == SPIN_MIN);
        // A look that takes long is what a spinning thread sees of being suspended.
        assert!(!patience.spin(|| {
            std::thread::sleep(Duration::from_millis(1));
            false
        }));
        assert_eq!(patience.limit, SPIN_MIN);
        let looks = std::cell::Cell::new(0);
        for _ in 0..100_000 {
            looks.set(0);
            patience.spin(|| {
                looks.set(looks.get() + 1);
                looks.get() > 60
            });
        }
        assert!(patience.limit > SPIN_MIN);
    }

    /// More threads than processors, several pools at once and a caller each: whoever waits must let
    /// others run, and a wake-up must not be lost.
    #[test]
    fn a_busy_machine_does_not_hang() {
        let (done, finished) = std::sync::mpsc::channel();
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let pool = Arc::new(Pool::new(4 * processors + 3));
        for caller in 0..3 {
            let (done, pool) = (done.clone(), Arc::clone(&pool));
            std::thread::spawn(move || {
                let own = Pool::new(2 * processors + 1);
                let sum = AtomicU64::new(0);
                for round in 0..60u64 {
                    let pool = if (round + caller) % 2 == 0 { &own } else { &*pool };
                    if round % 20 == 7 {
                        std::thread::sleep(std::time::Duration::from_millis(3)); // workers fall asleep
                    }
                    pool.run(50, |i| {
                        sum.fetch_add(i as u64, Ordering::Relaxed);
                    });
                }
                done.send(sum.load(Ordering::Relaxed)).expect("the test waits");
            });
        }
        for _ in 0..3 {
            let sum = finished.recv_timeout(std::time::Duration::from_secs(120)).expect("no caller hangs");
            assert_eq!(sum, 60 * 49 * 50 / 2);
        }
    }

    #[test]
    fn pieces_cover_the_slice() {
        let pool = Pool::new(2);
        let mut data = vec![0usize; 103];
        pool.for_each_piece(&mut data, 10, |i, piece| piece.fill(i + 1));
        assert!(data.iter().enumerate().all(|(j, &v)| v == j / 10 + 1));
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(16, |i| assert!(i != 9, "task nine"));
        }));
        assert!(result.is_err());
        let sum = AtomicU64::new(0);
        pool.run(4, |i| {
            sum.fetch_add(i as u64, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 6);
    }
}
