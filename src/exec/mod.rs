//! A plan on a device -> events: allocate once, run all rounds while the host fills and checks, free once.
//!
//! One loop serves every job and device (`lane`). With one slot and inline host work it is the loop that one writes by
//! hand: fill, launch, check, in one thread and in cache; with three slots and a pool it is a pipeline; with several lanes
//! it runs in several threads, which are dealt rounds (`board`).

mod batch;
mod board;
mod build;
mod collect;
mod compute;
mod dump;
mod elements;
mod exchange;
mod explain;
mod fresh;
mod gather;
mod holds;
mod host;
mod inputs;
mod lane;
mod progress;
mod salvage;
mod session;
mod slot;
mod spaced;
mod work;

use std::path::Path;
use std::time::Instant;

use crate::check::Census;
use crate::device::{Device, DeviceError, Trace};
use crate::job::{Build, Check, Condition, Job};
use crate::plan::{Host, Plan};
use crate::verdict::{CheckReport, Event, Failure, Kind, Reached, Report, Salvage, Times, Verdict};

pub use exchange::{Exchange, Seat, pairs};
pub use inputs::{Inputs, InputsError, inputs};
pub use progress::{LaneProgress, MOST_LANES, Phase, Progress};

use board::{Board, Outcome};
use build::Building;
use dump::Dump;
use host::Known;
use lane::Lane;
use session::Shared;

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
    /// Rounds in which a check was left out, as the spec asks.
    pub left_out: u64,
    pub failed_rounds: u64,
    pub explained: u64,
    pub checks: Vec<CheckReport>,
    pub failures: Vec<Failure>,
    pub salvage: Salvage,
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
            tolerance: if c.wants.is_empty() { String::new() } else { c.tolerance.words() },
            default_tolerance: c.default_tolerance && !c.wants.is_empty(),
            metrics: c.tolerance.metrics().map(|(metric, limit)| Reached { metric, value: metric.best(), limit }).collect(),
            ..CheckReport::default()
        };
        let condition = |c: &Condition| CheckReport { text: c.text.clone(), condition: true, ..CheckReport::default() };
        let build = |b: &Build| CheckReport { text: b.text.clone(), build: true, ..CheckReport::default() };
        let of_rounds = job.checks.iter().map(check).chain(job.conditions.iter().map(condition));
        let checks = of_rounds.chain(job.builds.iter().map(build)).collect();
        Tally { checks, ..Tally::empty() }
    }

    /// One of no job.
    fn empty() -> Tally {
        Tally {
            run: 0,
            checked: 0,
            left_out: 0,
            failed_rounds: 0,
            explained: 0,
            checks: Vec::new(),
            failures: Vec::new(),
            salvage: Salvage::default(),
            told: 0,
            last_failed: None,
            times: Times::default(),
            census: Census::default(),
        }
    }

    /// One of the same job with nothing in it.
    fn blank(&self) -> Tally {
        let mut blank = Tally { checks: self.checks.clone(), ..Tally::empty() };
        blank.clear();
        blank
    }

    /// Takes out what was found; what was allocated stays.
    fn clear(&mut self) {
        (self.run, self.checked, self.left_out, self.failed_rounds, self.explained) = (0, 0, 0, 0, 0);
        self.checks.iter_mut().for_each(CheckReport::clear);
        self.failures.clear();
        self.salvage.errors.clear();
        self.salvage.checks.clear();
        (self.told, self.last_failed, self.times) = (0, None, Times::default());
    }

    /// Adds what was found in later rounds. The failures of the lowest failing rounds stay.
    fn merge(&mut self, later: &Tally) {
        self.run += later.run;
        self.checked += later.checked;
        self.left_out += later.left_out;
        self.failed_rounds += later.failed_rounds;
        self.last_failed = later.last_failed.or(self.last_failed);
        self.checks.iter_mut().zip(&later.checks).for_each(|(check, later)| check.merge(later));
        self.times.merge(&later.times);
        self.salvage.errors.extend_from_slice(&later.salvage.errors);
        self.salvage.checks.extend_from_slice(&later.salvage.checks);
        for failures in later.failures.chunk_by(|a, b| a.round == b.round) {
            if self.explained < MOST_EXPLAINED {
                self.failures.extend_from_slice(failures);
                self.explained += 1;
            }
        }
    }
}

/// How a planned job is run.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Size of the pool for host work.
    pub threads: usize,
    /// A folder for the tensors of failing rounds.
    pub dump: Option<&'a Path>,
    /// The device's clock is asked for the time of every round.
    pub device_times: bool,
    /// Where outputs are compared with those of other devices that run the same job meanwhile.
    pub seat: Option<Seat<'a>>,
}

/// What is done with a round beside checking it.
struct Beside<'a> {
    dump: Option<Dump>,
    device_times: bool,
    seat: Option<Seat<'a>>,
}

impl Beside<'_> {
    /// The lane of a job that has one.
    fn lane(&self) -> usize {
        self.seat.map_or(0, |seat| seat.device())
    }
}

/// Runs a job as planned.
///
/// Device failures end the job with verdict `error`; the rounds before it keep theirs. The events are the only result.
pub fn run(job: &Job, plan: &Plan, device: &mut Trace, options: &Options<'_>, progress: &Progress, events: &mut (dyn FnMut(Event) + Send)) {
    let beside = Beside { dump: options.dump.map(Dump::new), device_times: options.device_times, seat: options.seat };
    let lane = options.seat.map(|seat| seat.device());
    let executor = Executor { job, plan, device, progress, beside, events, started: Instant::now() };
    if plan.schedule.host == Host::Inline {
        return executor.run_for(lane);
    }
    match rayon::ThreadPoolBuilder::new().num_threads(options.threads.max(1)).thread_name(|i| format!("host {i}")).build() {
        // The loop itself is one of the pool's threads: work is handed over without allocation.
        Ok(pool) => pool.install(|| executor.run_for(lane)),
        // Without threads of its own the work goes to rayon's.
        Err(_) => executor.run_for(lane),
    }
}

struct Executor<'a> {
    job: &'a Job,
    plan: &'a Plan,
    device: &'a mut Trace,
    progress: &'a Progress,
    beside: Beside<'a>,
    events: &'a mut (dyn FnMut(Event) + Send),
    started: Instant,
}

/// Why the rounds ended early.
#[derive(Debug)]
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
    /// Runs in this thread, which works for a lane where several devices run the job.
    fn run_for(self, lane: Option<usize>) {
        lane.inspect(|&lane| progress::work_for(lane));
        self.run();
    }

    fn run(self) {
        let (caps, name) = (self.device.caps().clone(), self.job.name.clone());
        (self.events)(Event::Planned { job: name, device: caps.name.clone(), driver: caps.driver.clone(), rounds: self.plan.rounds.count });
        let board = Board::new(self.job, self.plan, self.progress, self.events);
        if let Err(stop) = all_rounds(self.job, self.plan, self.device, self.progress, &board, &self.beside) {
            board.not_ready(stop);
        }
        let (outcome, events) = board.end();
        if let Some(dump) = &self.beside.dump {
            dump.keep(&outcome.tally.failures);
        }
        // Waits for what is in flight, then frees everything: allocations equal frees whatever happened.
        let freed = self.device.reset();
        let Outcome { tally, stop, begun, total, setup_counts } = outcome;
        let (mut verdict, mut reason) = match &stop {
            None => (verdict(self.job, self.plan.rounds.count, &tally), None),
            Some(Stop::Interrupted) => {
                (Verdict::Interrupted, Some(format!("stopped after {} of {} rounds", tally.run, self.plan.rounds.count)))
            }
            Some(Stop::Device(error)) => (Verdict::Error, Some(told(error))),
        };
        if let (None, Err(error)) = (&stop, freed) {
            (verdict, reason) = (Verdict::Error, Some(format!("after the last round: {error}")));
        }
        if verdict == Verdict::Unchecked {
            let why = if self.job.builds.is_empty() { "has no [[checks]]" } else { "has checks of builds alone" };
            reason = Some(format!("the spec {why}: nothing that the steps compute was compared"));
        }
        if verdict == Verdict::Fail && tally.run == 0 && self.plan.rounds.count > 0 {
            reason = Some("no round was run: a kernel that they need does not build".into());
        }
        if let Some(why) = &self.job.xfail {
            (verdict, reason) = match verdict {
                Verdict::Fail => (Verdict::Xfail, Some(why.clone())),
                Verdict::Pass => (Verdict::Xpass, Some(format!("it passed, though `xfail` says: {why}"))),
                other => (other, reason),
            };
        }
        self.progress.enter(Phase::Done, tally.run);
        let setup = begun.map_or(0, |begun| (begun - self.started).as_nanos() as u64);
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
            rounds: self.plan.rounds.count,
            not_selected: self.plan.rounds.left_out,
            run: tally.run,
            checked: tally.checked,
            left_out: tally.left_out,
            failed_rounds: tally.failed_rounds,
            checks: tally.checks,
            failures: tally.failures,
            salvage: tally.salvage,
            cost: self.plan.cost,
            setup_counts,
            round_counts: self.device.counts() - setup_counts,
            times: match self.job.compared {
                // Devices that wait for each other are as fast as the slowest, which is no time of any.
                true => Times { rounds: tally.run, setup, device: tally.times.device, ..Times::default() },
                false => Times { total, rounds: tally.run, setup, ..tally.times },
            },
            output: String::new(),
            lost: matches!(stop, Some(Stop::Device(DeviceError::Lost { .. }))),
            between: None,
        };
        events(Event::Done(Box::new(report)));
    }
}

fn verdict(job: &Job, rounds: u64, tally: &Tally) -> Verdict {
    let (of_rounds, of_builds) = tally.checks.split_at(job.claims_of_rounds().min(tally.checks.len()));
    if tally.failed_rounds > 0 || of_builds.iter().any(|c| c.failed_rounds > 0) {
        // Expectations that have no value say nothing of the kernels.
        let unknown = !tally.failures.is_empty() && tally.failures.iter().all(|f| f.kind == Kind::Evaluation);
        return if unknown { Verdict::Error } else { Verdict::Fail };
    }
    if of_rounds.is_empty() && !job.is_of_builds() {
        return Verdict::Unchecked;
    }
    // Nothing run, a round without its checks, or a build that was not made is never a pass.
    let whole = tally.run == rounds && tally.checked == tally.run && (tally.run > 0 || job.is_of_builds());
    let built = of_builds.len() == job.builds.len() && of_builds.iter().all(|c| c.rounds == 1);
    let every = job.checks.iter().map(|c| c.every).chain(job.conditions.iter().map(|c| c.every));
    let counted = of_rounds.iter().zip(every).all(|(c, every)| c.rounds == job.due(every, tally.run) && (c.condition || c.elements > 0));
    if whole && counted && built { Verdict::Pass } else { Verdict::Error }
}

/// Sets up, and runs all rounds in as many lanes as planned. *Errors*: of what is set up for all lanes.
fn all_rounds(job: &Job, plan: &Plan, device: &mut Trace, progress: &Progress, board: &Board<'_>, beside: &Beside<'_>) -> Result<(), Stop> {
    progress.work_in(plan.schedule.lanes as usize);
    let mut kernels = Building::start(job, device);
    progress.enter(Phase::Setup, 0);
    let known = Known::new(job, Some(plan), progress);
    if plan.fresh {
        let loaded = kernels.load(job, device, progress);
        if kernels.settle(loaded, job, device, progress, board)?.is_some() && plan.rounds.count > 0 {
            fresh::rounds(job, plan, device, &mut kernels, &known, progress, board, beside);
        }
        return Ok(());
    }
    let shared = Shared::open(job, plan, device, &mut kernels, &known, progress);
    let Some(shared) = kernels.settle(shared, job, device, progress, board)? else { return Ok(()) };
    if plan.rounds.count == 0 {
        return Ok(());
    }
    if plan.schedule.lanes <= 1 {
        Lane::new(job, plan, device, beside.lane(), &known, progress, board, beside).run(&shared);
        return Ok(());
    }
    board.set_up(device.counts());
    let mut lanes = (0..plan.schedule.lanes).map(|_| device.lane()).collect::<Result<Vec<Trace>, _>>()?;
    std::thread::scope(|scope| {
        for (index, device) in lanes.iter_mut().enumerate() {
            let (known, shared) = (&known, &shared);
            let lane = move || {
                progress::work_for(index);
                Lane::new(job, plan, device, index, known, progress, board, beside).run(shared);
            };
            if let Err(error) = std::thread::Builder::new().name(format!("lane {index}")).spawn_scoped(scope, lane) {
                board.not_ready(Stop::Device(DeviceError::Failed { node: None, call: "lane", message: format!("no thread: {error}") }));
            }
        }
    });
    progress.work_in(1);
    for lane in &mut lanes {
        if let Err(error) = lane.reset() {
            board.after_all(Stop::Device(error));
        }
    }
    Ok(())
}

/// Lines of a compiler's log that are kept.
const MOST_LOG: usize = 30;

/// A device error with the compiler's own words, where there are any.
fn told(error: &DeviceError) -> String {
    if let DeviceError::Several(errors) = error {
        return errors.iter().map(told).collect::<Vec<_>>().join("\n");
    }
    let (DeviceError::Build { log, .. } | DeviceError::Unusable { log, .. }) = error else { return error.to_string() };
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
