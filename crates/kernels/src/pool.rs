//! The thread pool: fork-join over numbered tasks.
//!
//! `run(n, f)` calls `f(0) .. f(n - 1)`, each once, on the calling thread and the workers, and
//! returns when all are done. Tasks are handed out by a shared counter, so a thread that the system
//! takes away delays only the task it holds. Which thread runs a task never changes a result: a task
//! writes only its own outputs.
//!
//! A waiting thread spins for some microseconds (decode has hundreds of short steps a token), then
//! yields, then sleeps: a machine that is busy with something else is not fought over.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Times a waiting thread pauses before it starts to yield (some 20 microseconds).
const SPINS: u32 = 400;
/// Times it yields before it sleeps.
const YIELDS: u32 = 200;

/// A fixed set of threads; the caller of [`Pool::run`] is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One `run` at a time: a second caller waits.
    running: Mutex<()>,
}

struct Shared {
    /// Rises by one with each job and at shutdown; workers wait for it to change.
    generation: AtomicUsize,
    /// The current job; valid from the rise of `generation` until `active` is back to zero.
    job: Mutex<Option<Job>>,
    /// Next task number to hand out.
    next: AtomicUsize,
    /// Workers that have not finished with the current job.
    active: AtomicUsize,
    stop: AtomicBool,
    panicked: AtomicBool,
    sleepers: Mutex<usize>,
    wake: Condvar,
}

/// A borrowed closure with its lifetime erased; `run` does not return before all workers let go.
#[derive(Clone, Copy)]
struct Job {
    call: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

// SAFETY: the pointee is `Sync`, and `Pool::run` keeps it alive until every worker is done with it.
unsafe impl Send for Job {}

impl Pool {
    /// A pool of `threads` threads in all, the caller included (at least one).
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            generation: AtomicUsize::new(0),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
        });
        let workers = (1..threads.max(1))
            .map(|i| {
                let shared = Arc::clone(&shared);
                let name = format!("fathom-{i}");
                std::thread::Builder::new().name(name).spawn(move || worker(&shared)).expect("start a worker thread")
            })
            .collect();
        Pool { shared, workers, running: Mutex::new(()) }
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
        let _turn = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = &*self.shared;
        let call: &(dyn Fn(usize) + Sync) = &f;
        // SAFETY: only the lifetime changes. Workers use the pointer between the rise of
        // `generation` below and their decrement of `active`, and this function waits for that
        // (also when a task panics) before `f` is dropped.
        let call: *const (dyn Fn(usize) + Sync) =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(call) };
        *lock(&shared.job) = Some(Job { call, tasks });
        shared.next.store(0, Ordering::Relaxed);
        shared.active.store(self.workers.len(), Ordering::Relaxed);
        shared.generation.fetch_add(1, Ordering::SeqCst);
        if *lock(&shared.sleepers) > 0 {
            shared.wake.notify_all();
        }
        let own = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_tasks(shared, tasks, &f)));
        wait_until(|| shared.active.load(Ordering::Acquire) == 0, None);
        let workers_panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(payload) = own {
            std::panic::resume_unwind(payload);
        }
        assert!(!workers_panicked, "a task of the thread pool panicked");
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
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        let _sleepers = lock(&self.shared.sleepers);
        self.shared.wake.notify_all();
        drop(_sleepers);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
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

fn worker(shared: &Shared) {
    let mut seen = 0;
    loop {
        wait_until(|| shared.generation.load(Ordering::Acquire) != seen, Some((shared, seen)));
        seen = shared.generation.load(Ordering::Acquire);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let job = *lock(&shared.job);
        if let Some(job) = job {
            // SAFETY: `run` published this job before it raised `generation` and keeps the closure
            // alive until `active` reaches zero, which needs our decrement below.
            let call = unsafe { &*job.call };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_tasks(shared, job.tasks, call)));
            if result.is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.active.fetch_sub(1, Ordering::AcqRel);
    }
}

fn take_tasks(shared: &Shared, tasks: usize, call: &(dyn Fn(usize) + Sync)) {
    loop {
        let task = shared.next.fetch_add(1, Ordering::Relaxed);
        if task >= tasks {
            return;
        }
        call(task);
    }
}

/// Spins, yields and (where `sleep` says on which generation) sleeps until `ready`.
fn wait_until(ready: impl Fn() -> bool, sleep: Option<(&Shared, usize)>) {
    for _ in 0..SPINS {
        if ready() {
            return;
        }
        std::hint::spin_loop();
    }
    let mut yields = 0;
    while !ready() {
        match sleep {
            Some((shared, seen)) if yields >= YIELDS => {
                let mut sleepers = lock(&shared.sleepers);
                // Under the lock, so that a wake-up cannot fall between the look and the wait: `run`
                // raises the generation first and takes the lock after.
                if shared.generation.load(Ordering::SeqCst) == seen {
                    *sleepers += 1;
                    sleepers = shared.wake.wait(sleepers).unwrap_or_else(|poisoned| poisoned.into_inner());
                    *sleepers -= 1;
                }
            }
            _ => {
                std::thread::yield_now();
                yields += 1;
            }
        }
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
