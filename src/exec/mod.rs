//! A plan on a device -> events: allocate once, run all rounds while the host fills and checks, free once.
//!
//! One loop serves every job and device. With one slot and inline host work it is the loop that one writes by
//! hand: fill, launch, check, in one thread and in cache; with three slots and a pool it is a pipeline.

mod build;
mod collect;
mod explain;
mod host;
mod progress;
mod session;
mod slot;

use std::time::Instant;

use crate::check::Census;
use crate::device::{DeviceError, Trace};
use crate::job::{Check, Job};
use crate::plan::{Host, Plan};
use crate::verdict::{CheckReport, Event, Failure, Kind, Report, Times, Verdict};

pub use progress::{Phase, Progress};

use build::Building;
use host::HostSide;
use session::Session;
use slot::Ring;

/// Failing rounds that are explained; later ones are counted.
const MOST_EXPLAINED: u64 = 5;

/// One round in so many has its phases timed, where a round is too short to time every one.
const SAMPLE: u64 = 64;

/// Elements that one thread fills or checks at a time. Results do not depend on how chunks are dealt.
pub(crate) const CHUNK: u64 = 64 << 10;

/// Elements that one hash covers: a block of an expectation, so that both read them from the nearest cache.
pub(crate) const HASHED: u64 = crate::expr::BLOCK as u64;

/// The rounds so far and what came of them.
pub(crate) struct Tally {
    pub run: u64,
    pub checked: u64,
    pub failed_rounds: u64,
    pub explained: u64,
    pub checks: Vec<CheckReport>,
    pub failures: Vec<Failure>,
    /// Failures that events have told.
    told: usize,
    /// The last round that is counted as failed.
    last_failed: Option<u64>,
    pub times: Times,
    /// What the last check found.
    pub census: Census,
}

impl Tally {
    fn new(job: &Job) -> Tally {
        let check = |c: &Check| CheckReport {
            text: c.text.clone(),
            tolerance: c.tolerance.to_string(),
            default_tolerance: c.default_tolerance,
            ..CheckReport::default()
        };
        Tally {
            run: 0,
            checked: 0,
            failed_rounds: 0,
            explained: 0,
            checks: job.checks.iter().map(check).collect(),
            failures: Vec::new(),
            told: 0,
            last_failed: None,
            times: Times::default(),
            census: Census::default(),
        }
    }
}

/// Runs a job as planned.
///
/// `threads` is the size of the pool for host work. Device failures end the job with verdict `error`; the rounds
/// before it keep theirs. The events are the only result.
pub fn run(job: &Job, plan: &Plan, device: &mut Trace, threads: usize, progress: &Progress, events: &mut (dyn FnMut(Event) + Send)) {
    let executor = Executor { job, plan, device, progress, events, started: Instant::now(), tally: Tally::new(job) };
    if plan.schedule.host == Host::Inline {
        return executor.run();
    }
    match rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).thread_name(|i| format!("host {i}")).build() {
        // The loop itself is one of the pool's threads: work is handed over without allocation.
        Ok(pool) => pool.install(|| executor.run()),
        // Without threads of its own the work goes to rayon's.
        Err(_) => executor.run(),
    }
}

struct Executor<'a> {
    job: &'a Job,
    plan: &'a Plan,
    device: &'a mut Trace,
    progress: &'a Progress,
    events: &'a mut (dyn FnMut(Event) + Send),
    started: Instant,
    tally: Tally,
}

/// Why the rounds ended early.
enum Stop {
    Device(DeviceError),
    Interrupted,
}

impl From<DeviceError> for Stop {
    fn from(error: DeviceError) -> Stop {
        Stop::Device(error)
    }
}

impl Executor<'_> {
    fn run(mut self) {
        use crate::device::Device;
        let (caps, name) = (self.device.caps().clone(), self.job.name.clone());
        (self.events)(Event::Planned { job: name, device: caps.name.clone(), driver: caps.driver.clone(), rounds: self.job.rounds.count });
        let mut setup_counts = self.device.counts();
        let outcome = self.all_rounds(&mut setup_counts);
        // Waits for what is in flight, then frees everything: allocations equal frees whatever happened.
        let freed = self.device.reset();
        let (mut verdict, mut reason) = match &outcome {
            Ok(()) => (self.verdict(), None),
            Err(Stop::Interrupted) => {
                (Verdict::Interrupted, Some(format!("stopped after {} of {} rounds", self.tally.run, self.job.rounds.count)))
            }
            Err(Stop::Device(error)) => (Verdict::Error, Some(told(error))),
        };
        if let (Ok(()), Err(error)) = (&outcome, freed) {
            (verdict, reason) = (Verdict::Error, Some(format!("after the last round: {error}")));
        }
        if verdict == Verdict::Unchecked {
            reason = Some("the spec has no [[checks]]: nothing was compared".into());
        }
        if let Some(why) = &self.job.xfail {
            (verdict, reason) = match verdict {
                Verdict::Fail => (Verdict::Xfail, Some(why.clone())),
                Verdict::Pass => (Verdict::Xpass, Some(format!("it passed, though `xfail` says: {why}"))),
                other => (other, reason),
            };
        }
        self.progress.enter(Phase::Done, self.tally.run);
        let report = Report {
            job: self.job.name.clone(),
            summary: self.job.summary.clone(),
            verdict,
            reason,
            device: caps.name,
            driver: caps.driver,
            backend: caps.backend.to_string(),
            trust: self.plan.trust,
            seed: self.job.rounds.seed,
            rounds: self.job.rounds.count,
            run: self.tally.run,
            checked: self.tally.checked,
            failed_rounds: self.tally.failed_rounds,
            checks: self.tally.checks,
            failures: self.tally.failures,
            cost: self.plan.cost,
            setup_counts,
            round_counts: self.device.counts() - setup_counts,
            times: self.tally.times,
            output: String::new(),
        };
        (self.events)(Event::Done(Box::new(report)));
    }

    fn verdict(&self) -> Verdict {
        if self.tally.failed_rounds > 0 {
            // Expectations that have no value say nothing of the kernels.
            let unknown = !self.tally.failures.is_empty() && self.tally.failures.iter().all(|f| f.kind == Kind::Evaluation);
            return if unknown { Verdict::Error } else { Verdict::Fail };
        }
        if self.job.checks.is_empty() {
            return Verdict::Unchecked;
        }
        // Nothing run, or a round without its checks, is never a pass.
        let whole = self.tally.run == self.job.rounds.count && self.tally.checked == self.tally.run && self.tally.run > 0;
        let counted = self.tally.checks.iter().all(|c| c.rounds == self.tally.run && c.elements > 0);
        if whole && counted { Verdict::Pass } else { Verdict::Error }
    }

    fn all_rounds(&mut self, setup_counts: &mut crate::device::Counts) -> Result<(), Stop> {
        let mut kernels = Building::start(self.job, self.device);
        self.progress.enter(Phase::Setup, 0);
        let mut host = HostSide::new(self.job, self.plan, self.progress);
        if self.plan.fresh {
            kernels.load(self.job, self.device, self.progress)?;
            return self.fresh_rounds(&mut kernels, &mut host, setup_counts);
        }
        let session = Session::open(self.job, self.plan, self.device, &mut kernels, &mut host, self.progress)?;
        session.start(self.device)?;
        let mut ring = Ring::new(self.job, self.plan);
        let result = self.warm_rounds(&session, &mut ring, &mut host, setup_counts);
        let released = ring.release(self.device);
        result?;
        Ok(released?)
    }

    /// The warm-up, then all rounds.
    fn warm_rounds(
        &mut self,
        session: &Session,
        ring: &mut Ring,
        host: &mut HostSide,
        setup_counts: &mut crate::device::Counts,
    ) -> Result<(), Stop> {
        for _ in 0..self.plan.rounds.warmup {
            self.interrupted()?;
            self.submit(session, ring, host, 0)?;
            self.finish_oldest(session, ring, host, false)?;
        }
        if self.plan.rounds.warmup > 0 {
            ring.release(self.device)?;
            session.start(self.device)?;
        }
        ring.restart();
        host.restart(self.job);
        *setup_counts = self.device.counts();
        self.tally.times.setup = self.started.elapsed().as_nanos() as u64;
        let begun = Instant::now();
        let result = self.rounds(session, ring, host);
        self.tally.times.total = begun.elapsed().as_nanos() as u64;
        self.tally.times.rounds = self.tally.run;
        result
    }

    fn rounds(&mut self, session: &Session, ring: &mut Ring, host: &mut HostSide) -> Result<(), Stop> {
        for round in 0..self.plan.rounds.count {
            let submitted = self.interrupted().and_then(|()| self.submit(session, ring, host, round));
            if let Err(stop) = submitted {
                // The rounds before this one get their verdicts; what goes wrong with them now is no news.
                let _ = self.drain(session, ring, host);
                return Err(stop);
            }
            while ring.in_flight() >= ring.len() {
                self.finish_oldest(session, ring, host, true)?;
            }
        }
        self.drain(session, ring, host)
    }

    fn drain(&mut self, session: &Session, ring: &mut Ring, host: &mut HostSide) -> Result<(), Stop> {
        while ring.in_flight() > 0 {
            self.finish_oldest(session, ring, host, true)?;
        }
        Ok(())
    }

    /// Set-up, one round, tear-down, for every round.
    fn fresh_rounds(&mut self, kernels: &mut Building, host: &mut HostSide, setup_counts: &mut crate::device::Counts) -> Result<(), Stop> {
        use crate::device::Device;
        *setup_counts = self.device.counts();
        self.tally.times.setup = self.started.elapsed().as_nanos() as u64;
        let begun = Instant::now();
        for round in 0..self.plan.rounds.count {
            self.interrupted()?;
            self.progress.enter(Phase::Setup, round);
            let session = Session::open(self.job, self.plan, self.device, kernels, host, self.progress)?;
            session.start(self.device)?;
            if self.job.tensors.iter().any(|t| t.carry) {
                session.put_carried(self.device, self.job, self.plan, host)?;
            }
            let mut ring = Ring::new(self.job, self.plan);
            let result = self.submit(&session, &mut ring, host, round).and_then(|()| self.finish_oldest(&session, &mut ring, host, true));
            let released = ring.release(self.device);
            result?;
            released?;
            if self.job.tensors.iter().any(|t| t.carry) {
                session.keep_carried(self.device, self.job, self.plan, host)?;
            }
            drop(session);
            self.device.reset()?;
        }
        self.tally.times.total = begun.elapsed().as_nanos() as u64;
        self.tally.times.rounds = self.tally.run;
        Ok(())
    }

    fn interrupted(&self) -> Result<(), Stop> {
        if self.progress.stop_asked() { Err(Stop::Interrupted) } else { Ok(()) }
    }

    /// Whether a round's phases are timed.
    fn timed(&self, round: u64) -> bool {
        self.plan.schedule.host == Host::Pool || round % SAMPLE == SAMPLE - 1
    }

    /// Fills a free slot for a round and submits it. After an error, the slot is free again.
    fn submit(&mut self, session: &Session, ring: &mut Ring, host: &mut HostSide, round: u64) -> Result<(), Stop> {
        self.progress.enter(Phase::Prepare, round);
        let clock = self.timed(round).then(Instant::now);
        let after = ring.last.filter(|_| session.carries);
        let slot = ring.next(round);
        let filled = slot.fill(self.job, self.plan, session, self.device, host);
        let filled = filled.map(|()| clock.map(|c| c.elapsed().as_nanos() as u64));
        self.progress.enter(Phase::Run, round);
        let submitted = filled.and_then(|filled| Ok((filled, slot.submit(self.plan, session, self.device, after)?)));
        match submitted {
            Ok((filled, point)) => {
                if let (Some(clock), Some(filled)) = (clock, filled) {
                    slot.phases.fill = filled;
                    slot.phases.run = clock.elapsed().as_nanos() as u64 - filled;
                }
                ring.last = Some(point);
                Ok(())
            }
            Err(stop) => {
                ring.give_back();
                Err(stop)
            }
        }
    }

    /// Waits for the oldest round in flight and checks it.
    fn finish_oldest(&mut self, session: &Session, ring: &mut Ring, host: &mut HostSide, checked: bool) -> Result<(), Stop> {
        let slot = ring.oldest();
        let round = slot.round;
        let clock = self.timed(round).then(Instant::now);
        self.progress.enter(Phase::Run, round);
        slot.wait(session, self.device)?;
        let waited = clock.map(|c| c.elapsed().as_nanos() as u64);
        if checked {
            self.progress.enter(Phase::Check, round);
            let bad = collect::check(self.job, self.plan, slot, host, &mut self.tally);
            self.tally.run += 1;
            if bad {
                self.failed(round);
            }
            self.progress.verified(self.tally.run);
            if let (Some(clock), Some(waited)) = (clock, waited) {
                let times = &mut self.tally.times;
                times.sampled += 1;
                times.fill += slot.phases.fill;
                times.run += slot.phases.run + waited;
                times.check += clock.elapsed().as_nanos() as u64 - waited;
            }
        }
        let hit = std::mem::take(&mut slot.hit);
        if !hit.is_empty() {
            // Else the next round in this slot would be blamed for what this one wrote.
            let index = slot.index;
            session.restore_guards(self.plan, self.device, index, &hit, &ring.younger())?;
        }
        ring.free_oldest();
        Ok(())
    }

    /// Counts a round as failed, and sends what was just found wrong with it, so that they stand even if a later round crashes.
    fn failed(&mut self, round: u64) {
        if self.tally.last_failed != Some(round) {
            self.tally.failed_rounds += 1;
            self.tally.last_failed = Some(round);
        }
        for failure in &self.tally.failures[self.tally.told..] {
            (self.events)(Event::Failed(Box::new(failure.clone())));
        }
        self.tally.told = self.tally.failures.len();
    }
}

/// Lines of a compiler's log that are kept.
const MOST_LOG: usize = 30;

/// A device error with the compiler's own words, where there are any.
fn told(error: &DeviceError) -> String {
    if let DeviceError::Several(errors) = error {
        return errors.iter().map(told).collect::<Vec<_>>().join("\n");
    }
    let DeviceError::Build { log, .. } = error else { return error.to_string() };
    let lines: Vec<&str> = log.trim_end().lines().collect();
    let mut text = error.to_string();
    for line in lines.iter().take(MOST_LOG) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if lines.len() > MOST_LOG {
        text.push_str(&format!("\n  ... {} more lines", lines.len() - MOST_LOG));
    }
    text
}
