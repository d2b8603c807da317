//! Turns submissions to a queue into runs on the queue's own thread, in order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::program::{Context, Program};
use crate::device::{DeviceError, Result};

/// Submissions that may be in flight on one queue; the next one waits.
const IN_FLIGHT: u64 = 64;

/// Points of one queue whose times are remembered.
const TIMES: u64 = 256;

/// How long a wait spins before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// A program that a queue's thread runs.
pub(super) type Queued = Mutex<Option<Program>>;

/// A queue with its thread, which ends when this is dropped, after all that was submitted.
pub(super) struct Background {
    line: Arc<Line>,
    thread: Option<JoinHandle<()>>,
}

/// What the submitting thread, the queue's thread, and the threads of queues that wait for it share.
pub(super) struct Line {
    ring: Mutex<Ring>,
    changed: Condvar,
    /// Submissions so far, and how many of them are done: the first has number 1.
    submitted: AtomicU64,
    done: AtomicU64,
    any_failed: AtomicBool,
    failed: Mutex<Vec<(u64, DeviceError)>>,
    times: Box<[AtomicU64]>,
    /// The last run, and what each of its nodes took. *Units*: nanoseconds.
    nodes: Mutex<(u64, Vec<u64>)>,
}

struct Ring {
    entries: Vec<Entry>,
    /// Emptied entries whose lists keep their memory: in the steady state none grows.
    spare: Vec<Entry>,
    stop: bool,
}

#[derive(Default)]
struct Entry {
    call: &'static str,
    program: Option<Arc<Queued>>,
    vars: Vec<u64>,
    after: Vec<(Arc<Line>, u64)>,
}

impl Background {
    pub fn start(number: u32, context: Arc<Context>) -> Result<Background> {
        let line = Arc::new(Line {
            ring: Mutex::new(Ring {
                entries: (0..IN_FLIGHT).map(|_| Entry::default()).collect(),
                spare: Vec::with_capacity(IN_FLIGHT as usize),
                stop: false,
            }),
            changed: Condvar::new(),
            submitted: AtomicU64::new(0),
            done: AtomicU64::new(0),
            any_failed: AtomicBool::new(false),
            failed: Mutex::new(Vec::new()),
            times: (0..TIMES).map(|_| AtomicU64::new(0)).collect(),
            nodes: Mutex::default(),
        });
        let served = Arc::clone(&line);
        let thread = std::thread::Builder::new()
            .name(format!("runjob-queue-{number}"))
            .spawn(move || served.serve(&context))
            .map_err(|e| DeviceError::Failed { node: None, call: "queue", message: format!("no thread for queue {number}: {e}") })?;
        Ok(Background { line, thread: Some(thread) })
    }

    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Puts a run at the end of the queue and gives its number.
    pub fn push(&self, call: &'static str, program: &Arc<Queued>, vars: &[u64], after: impl Iterator<Item = (Arc<Line>, u64)>) -> u64 {
        let line = &*self.line;
        let mut ring = line.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let number = line.submitted.load(Ordering::Relaxed) + 1;
        while number - line.done.load(Ordering::Relaxed) > IN_FLIGHT {
            ring = line.changed.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
        let mut entry = ring.spare.pop().unwrap_or_default();
        entry.call = call;
        entry.program = Some(Arc::clone(program));
        entry.vars.extend_from_slice(vars);
        entry.after.extend(after);
        ring.entries[(number % IN_FLIGHT) as usize] = entry;
        line.submitted.store(number, Ordering::Release);
        drop(ring);
        line.changed.notify_all();
        number
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.line.ring.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.line.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Line {
    pub fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Relaxed)
    }

    /// Whether a run is done. *Errors*: what made it fail.
    pub fn poll(&self, number: u64) -> Result<bool> {
        if self.done.load(Ordering::Acquire) < number {
            return Ok(false);
        }
        if self.any_failed.load(Ordering::Acquire) {
            let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, error)) = failed.iter().find(|(at, _)| *at == number) {
                return Err(error.clone());
            }
        }
        Ok(true)
    }

    /// Waits for a run. *Errors*: what made it fail.
    pub fn wait(&self, number: u64) -> Result<()> {
        if !spin(|| self.done.load(Ordering::Acquire) >= number) {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            while self.done.load(Ordering::Acquire) < number {
                ring = self.changed.wait(ring).unwrap_or_else(PoisonError::into_inner);
            }
        }
        self.poll(number).map(drop)
    }

    /// Waits for everything that was submitted; failures are those of their points.
    pub fn wait_all(&self) {
        let last = self.submitted();
        // An error is told to whoever asks for its point.
        let _ = self.wait(last);
    }

    /// How long a run that is done took; `None` when that is long past.
    pub fn time(&self, number: u64) -> Option<Duration> {
        let time = self.times[(number % TIMES) as usize].load(Ordering::Acquire);
        let remembered = self.done.load(Ordering::Acquire) < number + TIMES;
        remembered.then(|| Duration::from_nanos(time))
    }

    /// What the nodes of a run that is done took, in nanoseconds; false when another run followed.
    pub fn node_times(&self, number: u64, put: impl FnOnce(&[u64])) -> bool {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = nodes.0 == number;
        put(if known { &nodes.1 } else { &[] });
        known
    }

    /// The life of the queue's thread.
    fn serve(&self, context: &Context) {
        for number in 1.. {
            spin(|| self.submitted.load(Ordering::Acquire) >= number);
            let slot = (number % IN_FLIGHT) as usize;
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            while self.submitted.load(Ordering::Acquire) < number {
                if ring.stop {
                    return;
                }
                ring = self.changed.wait(ring).unwrap_or_else(PoisonError::into_inner);
            }
            let mut entry = std::mem::take(&mut ring.entries[slot]);
            drop(ring);
            if let Err(error) = self.run(number, &entry, context) {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
                self.any_failed.store(true, Ordering::Release);
            }
            entry.program = None;
            entry.vars.clear();
            entry.after.clear();
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.spare.push(entry);
            self.done.store(number, Ordering::Release);
            drop(ring);
            self.changed.notify_all();
        }
    }

    fn run(&self, number: u64, entry: &Entry, context: &Context) -> Result<()> {
        entry.after.iter().try_for_each(|(line, point)| line.wait(*point))?;
        let mut program = match &entry.program {
            Some(program) => program.lock().unwrap_or_else(PoisonError::into_inner),
            None => return Ok(()),
        };
        let Some(program) = program.as_mut() else { return Ok(()) };
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.0 = number;
        let time = program.timed(entry.call, &entry.vars, context, &mut nodes.1)?;
        self.times[(number % TIMES) as usize].store(time, Ordering::Release);
        Ok(())
    }
}

/// Whether a condition came true within [`SPIN`].
fn spin(ready: impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    let since = Instant::now();
    loop {
        for _ in 0..64 {
            std::hint::spin_loop();
            if ready() {
                return true;
            }
        }
        if since.elapsed() > SPIN {
            return false;
        }
    }
}
