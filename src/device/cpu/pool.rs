//! Turns a launch of many blocks into ranges dealt to threads.
//!
//! One job runs at a time; the calling thread takes part. Its threads spin for some microseconds between jobs and then
//! sleep. A thread that comes late finds the job closed and does not hold anybody up.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread without work spins before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// What one job runs: `(thread, begin, end)` with `thread` below [`Pool::threads`], and no two calls with the same one at a time.
type Task<'a> = &'a (dyn Fn(usize, u64, u64) + Sync);

/// Threads that run kernels.
pub(super) struct Pool {
    shared: Arc<Shared>,
    /// Held by the job that runs; the threads start with the first one.
    started: Mutex<Vec<JoinHandle<()>>>,
    threads: usize,
}

struct Shared {
    /// The number of the job, whether it is open, and how many threads are in it: see [`OPEN`], [`JOB`].
    state: Line<AtomicU64>,
    /// First unit that nobody has taken.
    next: Line<AtomicU64>,
    /// Written only while no thread is in a job and none is open.
    job: UnsafeCell<Job>,
    sleepers: Box<[Sleeper]>,
    stop: AtomicBool,
}

/// On a cache line of its own.
#[repr(align(128))]
struct Line<T>(T);

struct Sleeper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

#[derive(Clone, Copy)]
struct Job {
    task: Task<'static>,
    total: u64,
    chunk: u64,
}

/// Bits of [`Shared::state`] below this one count the threads in the job.
const OPEN: u64 = 1 << 16;
/// The number of the job counts from this bit on.
const JOB: u64 = 1 << 17;

// SAFETY: `job` is only written by the holder of `Pool::started` while `state` says that no thread is in a job and none
// is open, and only read by a thread that `state` counts as being in the job.
unsafe impl Sync for Shared {}
// SAFETY: as above; the task is `Sync`.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of so many threads, the calling one included.
    pub fn new(threads: usize) -> Pool {
        let threads = threads.clamp(1, OPEN as usize - 1);
        let sleepers = (1..threads).map(|_| Sleeper { asleep: AtomicBool::new(false), thread: OnceLock::new() }).collect();
        let shared = Shared {
            state: Line(AtomicU64::new(0)),
            next: Line(AtomicU64::new(0)),
            job: UnsafeCell::new(Job { task: &|_, _, _| {}, total: 0, chunk: 1 }),
            sleepers,
            stop: AtomicBool::new(false),
        };
        Pool { shared: Arc::new(shared), started: Mutex::new(Vec::new()), threads }
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `task` over `0..total`, `chunk` units at a time, and returns when all are done. Jobs of several callers
    /// run one after the other. A task does not unwind.
    pub fn run(&self, total: u64, chunk: u64, task: Task<'_>) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if started.is_empty() && self.threads > 1 {
            self.start(&mut started);
        }
        let shared = &*self.shared;
        // SAFETY: the lifetime ends with this call: it returns after every thread has left the job, and `state` lets
        // none in after it is closed.
        let task = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        let job = Job { task, total, chunk: chunk.max(1) };
        // SAFETY: the lock is held and the last job was left by all.
        unsafe { *shared.job.get() = job };
        shared.next.0.store(0, Ordering::Relaxed);
        let number = shared.state.0.load(Ordering::Relaxed) / JOB + 1;
        shared.state.0.store(number * JOB + OPEN, Ordering::SeqCst);
        shared.wake(0);
        shared.work(0, job);
        shared.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while shared.state.0.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            spins += 1;
            if spins.is_multiple_of(1024) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        drop(started);
    }

    fn start(&self, started: &mut Vec<JoinHandle<()>>) {
        for index in 1..self.threads {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new().name(format!("runjob-cpu-{index}")).spawn(move || shared.serve(index));
            // With fewer threads the blocks are dealt to fewer.
            let Ok(handle) = spawned else { break };
            let _ = self.shared.sleepers[index - 1].thread.set(handle.thread().clone());
            started.push(handle);
        }
    }
}

impl Shared {
    /// Wakes the two threads below `index` in the heap order of threads; they wake theirs.
    fn wake(&self, index: usize) {
        for child in [2 * index + 1, 2 * index + 2] {
            let Some(sleeper) = self.sleepers.get(child - 1) else { return };
            if sleeper.asleep.load(Ordering::SeqCst)
                && sleeper.asleep.swap(false, Ordering::SeqCst)
                && let Some(thread) = sleeper.thread.get()
            {
                thread.unpark();
            }
        }
    }

    fn work(&self, thread: usize, job: Job) {
        loop {
            let begin = self.next.0.fetch_add(job.chunk, Ordering::Relaxed);
            if begin >= job.total {
                return;
            }
            (job.task)(thread, begin, job.total.min(begin.saturating_add(job.chunk)));
        }
    }

    /// The life of thread `index`.
    fn serve(&self, index: usize) {
        let mut seen = 0;
        while let Some(number) = self.enter(index, seen) {
            seen = number;
            // SAFETY: `state` counts this thread: the job stays as it is until it leaves.
            let job = unsafe { *self.job.get() };
            self.wake(index);
            self.work(index, job);
            super::float_mode::restore();
            self.state.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for an open job that is not `seen`, and goes into it; `None` when the pool ends.
    fn enter(&self, index: usize, seen: u64) -> Option<u64> {
        let is_new = |state: u64| state & OPEN != 0 && state / JOB != seen;
        loop {
            let mut state = self.state.0.load(Ordering::SeqCst);
            while is_new(state) {
                match self.state.0.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => return Some(state / JOB),
                    Err(now) => state = now,
                }
            }
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            let since = Instant::now();
            let spun = loop {
                if (0..64).any(|_| {
                    std::hint::spin_loop();
                    is_new(self.state.0.load(Ordering::Relaxed))
                }) {
                    break true;
                }
                if since.elapsed() > SPIN {
                    break false;
                }
            };
            if spun {
                continue;
            }
            let sleeper = &self.sleepers[index - 1];
            sleeper.asleep.store(true, Ordering::SeqCst);
            // A job that was opened before the store above is seen here; one opened after it sees a sleeper.
            while sleeper.asleep.load(Ordering::SeqCst) && !is_new(self.state.0.load(Ordering::SeqCst)) && !self.stop.load(Ordering::SeqCst)
            {
                std::thread::park();
            }
            sleeper.asleep.store(false, Ordering::SeqCst);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let started = self.started.get_mut().unwrap_or_else(PoisonError::into_inner);
        for handle in started.drain(..) {
            handle.thread().unpark();
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for (total, chunk) in [(0, 1), (1, 1), (7, 3), (1000, 1), (1000, 64), (3, 100)] {
                let hits: Vec<AtomicU64> = (0..total).map(|_| AtomicU64::new(0)).collect();
                pool.run(total, chunk, &|thread, begin, end| {
                    assert!(thread < threads);
                    (begin..end).for_each(|i| {
                        hits[i as usize].fetch_add(1, Ordering::Relaxed);
                    });
                });
                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1), "{threads} threads, {total} by {chunk}");
            }
        }
    }

    #[test]
    fn jobs_of_several_callers_do_not_mix_and_sleeping_threads_wake() {
        let pool = Pool::new(3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for round in 0..300u64 {
                        let sum = AtomicU64::new(0);
                        pool.run(50, 3, &|_, begin, end| {
                            sum.fetch_add((begin..end).sum(), Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 49 * 25);
                        if round.is_multiple_of(100) {
                            std::thread::sleep(Duration::from_micros(200));
                        }
                    }
                });
            }
        });
    }
}
