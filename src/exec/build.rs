//! Kernels of a job -> kernels of a device: built in threads of their own while the host generates and uploads, then loaded.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::progress::Progress;
use crate::device::{Builder, Device, DeviceError, Kernel, KernelSource, Result};
use crate::job::Job;

/// How often a wait looks whether the threads still live.
const LOOK: Duration = Duration::from_millis(100);

/// The kernels of a job on their way to a device.
pub(super) struct Building {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
    loaded: Option<Vec<Kernel>>,
}

/// What the threads share.
struct Work {
    kernels: Vec<KernelSource>,
    /// The first kernel that no thread has taken.
    next: AtomicUsize,
    /// What came of each that was built.
    results: Mutex<Vec<Option<Result<()>>>>,
    changed: Condvar,
    failed: AtomicBool,
    stop: AtomicBool,
}

impl Building {
    /// Starts building where the device can do so beside its other work.
    pub fn start(job: &Job, device: &dyn Device) -> Building {
        let builder = device.builder().filter(|_| !job.kernels.is_empty());
        let work = Arc::new(Work {
            kernels: if builder.is_some() { job.kernels.clone() } else { Vec::new() },
            next: AtomicUsize::new(0),
            results: Mutex::new(vec![None; job.kernels.len()]),
            changed: Condvar::new(),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let most = std::thread::available_parallelism().map_or(1, NonZero::get);
        let start = |builder: &Arc<dyn Builder>| {
            let (work, builder) = (Arc::clone(&work), Arc::clone(builder));
            std::thread::Builder::new().name("build".into()).spawn(move || work.run(&*builder)).ok()
        };
        // Without threads, `load` builds.
        let threads = builder.iter().flat_map(|b| (0..job.kernels.len().min(most)).filter_map(move |_| start(b))).collect();
        Building { work, threads, loaded: None }
    }

    /// *Errors*: a kernel is known not to build; then all are waited for, so that every one that does not is told.
    pub fn check(&self, progress: &Progress) -> Result<()> {
        if self.work.failed.load(Ordering::Relaxed) { self.wait(progress) } else { Ok(()) }
    }

    /// Waits for every build. *Errors*: those of all that failed.
    fn wait(&self, progress: &Progress) -> Result<()> {
        let mut errors = Vec::new();
        for index in 0..self.work.kernels.len() {
            progress.compiling(index as u32);
            let mut results = self.work.results.lock().unwrap_or_else(PoisonError::into_inner);
            while results[index].is_none() && !self.threads.iter().all(JoinHandle::is_finished) {
                results = self.work.changed.wait_timeout(results, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
            if let Some(Err(error)) = &results[index] {
                add(&mut errors, error.clone());
            }
        }
        all(errors)
    }

    /// Waits for every build and loads all kernels, the first time it is called. *Errors*: those of all that failed.
    pub fn load(&mut self, job: &Job, device: &mut dyn Device, progress: &Progress) -> Result<Vec<Kernel>> {
        if let Some(kernels) = &self.loaded {
            return Ok(kernels.clone());
        }
        self.wait(progress)?;
        let mut kernels = Vec::with_capacity(job.kernels.len());
        let mut errors = Vec::new();
        for (index, source) in job.kernels.iter().enumerate() {
            progress.compiling(index as u32);
            // SAFETY: whoever runs a job trusts its kernels to keep to their arguments: the one promise of a run.
            match unsafe { device.load(source) } {
                Ok(kernel) => kernels.push(kernel),
                Err(error) => add(&mut errors, error),
            }
        }
        all(errors)?;
        self.loaded = Some(kernels.clone());
        Ok(kernels)
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.work.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Work {
    fn run(&self, builder: &dyn Builder) {
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(kernel) = self.kernels.get(index) else { return };
            let result = builder.build(kernel, &self.stop);
            self.failed.fetch_or(result.is_err(), Ordering::Relaxed);
            self.results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
            self.changed.notify_all();
        }
    }
}

/// What kernels have in common, such as a compiler that is not there, is said once.
fn add(errors: &mut Vec<DeviceError>, error: DeviceError) {
    if !errors.contains(&error) {
        errors.push(error);
    }
}

fn all(mut errors: Vec<DeviceError>) -> Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(DeviceError::Several(errors)),
    }
}
