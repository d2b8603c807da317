//! Kernels of a job -> kernels of a device: built in threads of their own while the host generates and uploads, then loaded;
//! and what came of them -> answers to the claims about builds.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::board::Board;
use super::collect::failure;
use super::progress::{Phase, Progress};
use super::told;
use crate::device::{Builder, Device, DeviceError, Kernel, KernelSource, Result};
use crate::job::{Build, Job};
use crate::spec::Build as Must;
use crate::verdict::{Failure, Kind};

/// How often a wait looks whether the threads still live.
const LOOK: Duration = Duration::from_millis(100);

/// The kernels of a job on their way to a device.
pub(super) struct Building {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
    loaded: Option<Vec<Kernel>>,
    /// By kernel: what came of loading it, where that was tried.
    tried: Vec<Option<Result<()>>>,
    /// That kernels cannot be had was given as an error.
    refused: bool,
}

/// What the threads share.
struct Work {
    kernels: Vec<KernelSource>,
    /// The rounds need the first so many of them.
    loads: usize,
    /// The first kernel that no thread has taken.
    next: AtomicUsize,
    /// What came of each that was built.
    results: Mutex<Vec<Option<Result<()>>>>,
    changed: Condvar,
    /// A kernel that the rounds need is known not to build.
    failed: AtomicBool,
    stop: AtomicBool,
}

impl Building {
    /// Starts building where the device can do so beside its other work.
    pub fn start(job: &Job, device: &dyn Device) -> Building {
        let builder = device.builder().filter(|_| !job.kernels.is_empty());
        let work = Arc::new(Work {
            kernels: if builder.is_some() { job.kernels.clone() } else { Vec::new() },
            loads: job.loads,
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
        Building { work, threads, loaded: None, tried: vec![None; job.kernels.len()], refused: false }
    }

    /// *Errors*: a kernel that the rounds need is known not to build; then all of them are waited for, so that every one that
    /// does not is told.
    pub fn check(&mut self, progress: &Progress) -> Result<()> {
        if self.work.failed.load(Ordering::Relaxed) { self.wait(progress) } else { Ok(()) }
    }

    /// Waits for the builds that the rounds need. *Errors*: those of all that failed.
    fn wait(&mut self, progress: &Progress) -> Result<()> {
        let mut errors = Vec::new();
        for index in 0..self.work.loads {
            if let Some(Err(error)) = self.built(index, progress) {
                add(&mut errors, error);
            }
        }
        self.give(errors)
    }

    /// Waits for a build. `None`: no thread made it.
    fn built(&self, index: usize, progress: &Progress) -> Option<Result<()>> {
        progress.compiling(index as u32);
        let mut results = self.work.results.lock().unwrap_or_else(PoisonError::into_inner);
        while results[index].is_none() && !self.threads.iter().all(JoinHandle::is_finished) {
            results = self.work.changed.wait_timeout(results, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        results[index].clone()
    }

    /// *Errors*: all of these, if there are any.
    fn give(&mut self, errors: Vec<DeviceError>) -> Result<()> {
        self.refused |= !errors.is_empty();
        all(errors)
    }

    /// Waits for the builds that the rounds need and loads those kernels, the first time it is called. *Errors*: those of all
    /// that failed.
    pub fn load(&mut self, job: &Job, device: &mut dyn Device, progress: &Progress) -> Result<Vec<Kernel>> {
        if let Some(kernels) = &self.loaded {
            return Ok(kernels.clone());
        }
        self.wait(progress)?;
        let mut kernels = Vec::with_capacity(job.loads);
        let mut errors = Vec::new();
        for index in 0..job.loads {
            match self.load_one(job, device, index, progress) {
                Ok(kernel) => kernels.push(kernel),
                Err(error) => add(&mut errors, error),
            }
        }
        self.give(errors)?;
        self.loaded = Some(kernels.clone());
        Ok(kernels)
    }

    fn load_one(&mut self, job: &Job, device: &mut dyn Device, index: usize, progress: &Progress) -> Result<Kernel> {
        progress.compiling(index as u32);
        // SAFETY: whoever runs a job trusts its kernels to keep to their arguments: the one promise of a run.
        let kernel = unsafe { device.load(&job.kernels[index]) };
        self.tried[index] = Some(kernel.as_ref().map(|_| ()).map_err(DeviceError::clone));
        kernel
    }

    /// Answers the claims about builds, once the rounds were set up, or could not be: `set_up`. Builds and loads the kernels
    /// that only claims name. `None`: the rounds cannot be run, as claims have failed that say why.
    ///
    /// *Errors*: that of the set-up; a kernel that cannot be had for a reason that answers no claim.
    pub fn settle<T>(
        &mut self,
        set_up: Result<T>,
        job: &Job,
        device: &mut dyn Device,
        progress: &Progress,
        board: &Board<'_>,
    ) -> Result<Option<T>> {
        if job.builds.is_empty() || (set_up.is_err() && !self.refused) {
            return set_up.map(Some);
        }
        for index in job.loads..job.kernels.len() {
            if !matches!(self.built(index, progress), Some(Err(_))) {
                // What came of it is kept; nothing launches it.
                let _ = self.load_one(job, device, index, progress);
            }
        }
        progress.enter(Phase::Setup, 0);
        let results: Vec<Option<Result<()>>> = {
            let built = self.work.results.lock().unwrap_or_else(PoisonError::into_inner);
            self.tried.iter().zip(&*built).map(|(tried, built)| tried.clone().or_else(|| built.clone())).collect()
        };
        let found = job.builds.iter().zip(job.claims_of_rounds()..).filter_map(|(claim, index)| {
            let failure = answer(job, claim, results[claim.kernel].as_ref()?).ok()?;
            Some((index, failure))
        });
        board.built(found.collect());
        let mut errors = Vec::new();
        for (index, result) in results.into_iter().enumerate() {
            let claimed = job.builds.iter().any(|claim| claim.kernel == index);
            match result {
                Some(Err(DeviceError::Build { .. })) if claimed => {}
                Some(Err(error)) => add(&mut errors, error),
                Some(Ok(())) | None => {}
            }
        }
        all(errors)?;
        Ok(set_up.ok())
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
            self.failed.fetch_or(result.is_err() && index < self.loads, Ordering::Relaxed);
            self.results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
            self.changed.notify_all();
        }
    }
}

/// What is wrong with a claim, by what came of its kernel. *Errors*: that is no answer: no compiler judged the kernel.
fn answer(job: &Job, claim: &Build, result: &Result<()>) -> std::result::Result<Option<Failure>, ()> {
    let name = &job.kernels[claim.kernel].name;
    let message = match (result, claim.must) {
        (Ok(()), Must::Ok) => return Ok(None),
        (Ok(()), Must::Fails) => format!("kernel `{name}` builds, the check says it must not"),
        (Err(DeviceError::Build { message, log, .. }), must) => {
            // Kernels with the same text are built once, under one of their names.
            let error = DeviceError::Build { kernel: name.clone(), message: message.clone(), log: log.clone() };
            match &claim.log {
                _ if must == Must::Ok => told(&error),
                Some(text) if !message.contains(text) && !log.contains(text) => {
                    format!("the compiler refuses the kernel, and does not say \"{text}\": {}", told(&error))
                }
                _ => return Ok(None),
            }
        }
        (Err(_), _) => return Err(()),
    };
    Ok(Some(Failure { check: Some(claim.text.clone()), ..failure(job, 0, NO_SET, Kind::Build, message) }))
}

/// A build is of no set.
const NO_SET: u32 = u32::MAX;

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
