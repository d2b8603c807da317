//! One job from request to events: read the spec, open the device, plan, run. Done in a process of its own
//! (`supervise`), so that a kernel can crash, hang or exit without taking the verdicts of earlier rounds along.

mod child;
mod parties;
mod supervise;
mod unix;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::device::choice::{self, Choice, OpenError, OpenOptions};
use crate::device::{Caps, Chaos, ChaosOptions, Device, Trace, TraceOptions};
use crate::diag::{self, Diagnostic, Severity, Style};
use crate::exec::{self, LaneProgress, Phase, Progress};
use crate::job::{self, Job, Overrides};
use crate::plan::{self, Host, Options, Plan, Trust};
use crate::spec::{self, Backend, Loaded};
use crate::verdict::{Event, Report, Verdict};

pub use child::child;
pub use supervise::{Outcome, Watcher, supervise};

/// What to run, and how.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub spec: PathBuf,
    pub overrides: Overrides,
    /// The devices to run on; otherwise the spec's, or one of the backend that its kernels are for.
    pub devices: Vec<Choice>,
    /// Run on every device that is there and that the spec has kernels for.
    pub all: bool,
    /// Backends that must be there: where a device of theirs is not, the job is an error instead of a skip.
    pub require: Vec<Backend>,
    /// The spec was found in a folder: where it has no kernels for the device that is asked for, it is skipped.
    pub found: bool,
    pub trust: Trust,
    pub fresh: bool,
    pub lanes: Option<u32>,
    pub slots: Option<u32>,
    pub batch: Option<u32>,
    pub host: Option<Host>,
    /// Threads for kernels and for host work; otherwise as many as the machine runs at once.
    pub threads: Option<usize>,
    /// Enforce the device contract: slow, for tests.
    pub contract: bool,
    /// Run everything as late and in as odd an order as is allowed, by this seed: slow, for tests.
    pub chaos: Option<u64>,
    /// Treat the device as one with memory of its own: for tests.
    pub discrete: bool,
    /// Ask the device's clock for the time of every round.
    pub device_times: bool,
    /// Every command is waited for before the next one starts, so that an error tells which one failed.
    pub stepwise: bool,
    /// A folder for the tensors of failing rounds.
    pub dump: Option<PathBuf>,
    /// Diagnostics with terminal colours.
    pub coloured: bool,
}

impl Request {
    /// A request for a spec, with everything else as it is by default.
    pub fn new(spec: impl Into<PathBuf>) -> Request {
        Request {
            spec: spec.into(),
            overrides: Overrides::default(),
            devices: Vec::new(),
            all: false,
            require: Vec::new(),
            found: false,
            trust: Trust::default(),
            fresh: false,
            lanes: None,
            slots: None,
            batch: None,
            host: None,
            threads: None,
            contract: false,
            chaos: None,
            discrete: false,
            device_times: false,
            stepwise: false,
            dump: None,
            coloured: false,
        }
    }

    pub fn plan_options(&self) -> Options {
        let Request { trust, fresh, lanes, slots, batch, host, .. } = *self;
        Options { trust, fresh, lanes, slots, batch, host }
    }
}

/// Times that the parent holds a worker to. *Units*: milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deadlines {
    pub compile: u64,
    pub prepare: u64,
    pub run: u64,
    pub check: u64,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { compile: 120_000, prepare: 60_000, run: 60_000, check: 60_000 }
    }
}

impl Deadlines {
    fn of(job: &Job) -> Deadlines {
        let ms = |d: Duration| (d.as_millis() as u64).max(1);
        Deadlines { compile: ms(job.limits.compile), prepare: ms(job.limits.prepare), run: ms(job.limits.run), check: ms(job.limits.check) }
    }

    /// The limit of a phase, with its name in the spec.
    pub fn of_phase(&self, phase: Phase) -> (Duration, &'static str) {
        let (ms, name) = match phase {
            Phase::Compile => (self.compile, "compile"),
            // Planning and set-up fill and upload.
            Phase::Start | Phase::Plan | Phase::Setup | Phase::Prepare => (self.prepare, "prepare"),
            Phase::Run | Phase::Done => (self.run, "run"),
            Phase::Check => (self.check, "check"),
            // It waits for lanes that have limits of their own.
            Phase::Idle => (u64::MAX, "run"),
        };
        (Duration::from_millis(ms), name)
    }
}

/// What a worker sends to its parent, a line each.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Problems of the spec, rendered.
    Diagnostics {
        text: String,
        errors: usize,
        warnings: usize,
        /// The only errors are that nothing is selected.
        unselected: bool,
    },
    /// Resolved and planned: the limits hold from here.
    Job {
        /// One for each device that it runs on.
        parties: Vec<PartyName>,
        /// Jobs of the spec.
        jobs: usize,
        xfail: Option<String>,
        deadlines: Deadlines,
        /// Number of the first round that is run.
        first: u64,
        /// Rounds that are not run, because their sets were not selected.
        not_selected: u64,
    },
    /// Of one of the parties; behind them come comparisons, of every two.
    Event { of: usize, event: Event },
    /// The job could not be started, for a reason that is neither the spec's nor a kernel's.
    Refused { message: String },
}

/// What a party is called.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PartyName {
    /// Of the job.
    pub name: String,
    pub device: String,
    pub backend: Backend,
    pub kernels: Vec<String>,
}

/// A job for one of the devices that a spec runs on.
pub struct Party {
    pub device: Choice,
    pub job: Job,
}

/// A job that was read and resolved for every device that it runs on; the diagnostics are in `text`.
pub struct Resolved {
    /// Empty where something is wrong with it on any device.
    pub parties: Vec<Party>,
    /// Why the job is not run, though nothing is wrong with the spec.
    pub skip: Option<String>,
    pub text: String,
    pub errors: usize,
    pub warnings: usize,
    /// The only errors are that nothing is selected.
    pub unselected: bool,
}

/// The devices that a spec is resolved for, and why it is not run on those that are asked for.
pub fn choose(loaded: &Loaded, request: &Request) -> (Vec<Choice>, Option<String>) {
    let Some(spec) = &loaded.spec else { return (vec![Choice::first(Backend::Cpu)], None) };
    if request.all {
        let with_sources = Backend::ALL.into_iter().filter(|&backend| job::has_sources(spec, backend));
        let there = |backend| choice::list(backend).map(|listed| listed.len()).unwrap_or(0);
        let every: Vec<Choice> = with_sources.flat_map(|b| (0..there(b)).map(move |index| Choice::nth(b, index))).collect();
        let none = every.is_empty();
        return (if none { job::choices(spec, &[]) } else { every }, None);
    }
    match request.devices.iter().find(|asked| request.found && !job::has_sources(spec, asked.backend)) {
        // What is wrong with it is wrong all the same: it is resolved for a device that it has kernels for.
        Some(asked) => (job::choices(spec, &[]), Some(format!("the spec has no kernels for `{}`", asked.backend.name()))),
        None => (job::choices(spec, &request.devices), None),
    }
}

/// Resolves a spec for every device that it runs on; no jobs where something is wrong on any of them.
pub fn resolve_parties(loaded: &Loaded, choices: Vec<Choice>, request: &Request) -> (Vec<Party>, Vec<Diagnostic>) {
    let several = choices.len() > 1;
    let mut problems: Vec<Diagnostic> = Vec::new();
    let mut parties = Vec::new();
    for (nth, device) in choices.into_iter().enumerate() {
        // Who asks for the first job of a spec is told what is wrong with any.
        let (job, diagnostics) = match request.overrides.point {
            0 => {
                let (mut jobs, diagnostics) = job::resolve_all(loaded, device.backend, &request.overrides);
                ((!jobs.is_empty()).then(|| jobs.swap_remove(0)), diagnostics)
            }
            _ => {
                let (job, mut diagnostics) = job::resolve(loaded, device.backend, &request.overrides);
                // Warnings were told with the first job.
                diagnostics.retain(|_| job.is_none());
                (job, diagnostics)
            }
        };
        // What one device does not use another may.
        problems.retain(|d| d.code != job::UNUSED || diagnostics.contains(d));
        problems.extend(
            diagnostics.into_iter().filter(|d| nth == 0 || d.code != job::UNUSED).filter(|d| !problems.contains(d)).collect::<Vec<_>>(),
        );
        if let Some(mut job) = job {
            job.compared = several;
            if several {
                job.name = format!("{} [{device}]", job.name);
            }
            parties.push(Party { device, job });
        }
    }
    let failed = |problems: &[Diagnostic]| problems.iter().any(|d| d.severity == Severity::Error);
    if !failed(&problems) {
        problems.extend(job::differences(&parties.iter().map(|party| &party.job).collect::<Vec<_>>()));
    }
    if failed(&problems) {
        parties.clear();
    }
    (parties, problems)
}

/// Reads and resolves a spec. *Errors*: only what keeps its text from being read.
pub fn resolve(request: &Request) -> Result<Resolved, spec::LoadError> {
    let loaded = spec::load(&request.spec)?;
    let (choices, skip) = choose(&loaded, request);
    let (parties, diagnostics) = resolve_parties(&loaded, choices, request);
    let style = if request.coloured { Style::Coloured } else { Style::Plain };
    let count = |severity| diagnostics.iter().filter(|d| d.severity == severity).count();
    let text = diagnostics.iter().map(|d| diag::render(&loaded.source, d, style) + "\n").collect::<Vec<_>>().join("\n");
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let unselected = errors > 0 && errors == diagnostics.iter().filter(|d| d.code == job::NOTHING_SELECTED).count();
    Ok(Resolved { parties, skip, text, errors, warnings, unselected })
}

/// Opens a device as a request wants it; its lanes say in `progress` where they are, from the `first` on.
pub fn open(request: &Request, device: &Choice, progress: Option<&'static Progress>, first: usize) -> Result<Trace, OpenError> {
    let at_node = progress.map(|progress| (first..exec::MOST_LANES).map(|lane| &progress.lane(lane).node).collect()).unwrap_or_default();
    let options = OpenOptions {
        threads: request.threads,
        at_node,
        discrete: request.discrete,
        clock: request.device_times,
        stepwise: request.stepwise,
    };
    let mut device: Box<dyn Device> = choice::open(device, options)?;
    if let Some(seed) = request.chaos {
        device = Box::new(Chaos::new(device, ChaosOptions { seed, fail: None }));
    }
    Ok(Trace::new(device, TraceOptions { log: false, contract: request.contract }))
}

/// Runs one job in this process, on every device that it runs on. The last messages are the reports, or say why there is
/// none.
pub fn execute(request: &Request, progress: &'static Progress, send: &mut (dyn FnMut(Message) + Send)) {
    progress.enter(Phase::Plan, 0);
    let resolved = match resolve(request) {
        Ok(resolved) => resolved,
        Err(error) => return send(Message::Diagnostics { text: format!("error: {error}\n"), errors: 1, warnings: 0, unselected: false }),
    };
    if !resolved.text.is_empty() {
        send(Message::Diagnostics {
            text: resolved.text,
            errors: resolved.errors,
            warnings: resolved.warnings,
            unselected: resolved.unselected,
        });
    }
    let parties = resolved.parties;
    let Some(Party { job: first, .. }) = parties.first() else { return };
    let backend = |party: &Party| match (&resolved.skip, request.devices.first()) {
        (Some(_), Some(asked)) => asked.backend,
        _ => party.job.backend,
    };
    send(Message::Job {
        parties: parties
            .iter()
            .map(|party| PartyName {
                name: party.job.name.clone(),
                device: party.device.to_string(),
                backend: backend(party),
                kernels: party.job.kernels.iter().map(|k| k.name.clone()).collect(),
            })
            .collect(),
        jobs: first.jobs,
        xfail: first.xfail.clone(),
        deadlines: Deadlines::of(first),
        first: job::SetOrder::new(first).round(0),
        not_selected: first.rounds.count - first.runs(),
    });
    if let Some(why) = &resolved.skip {
        for (of, party) in parties.iter().enumerate() {
            let report = unplanned(&party.job, backend(party), None, request, Verdict::Skip, why.clone());
            send(Message::Event { of, event: Event::Done(Box::new(report)) });
        }
        return;
    }
    let mut ready: Vec<std::result::Result<Ready, Box<Report>>> = Vec::new();
    let mut places: Vec<(Backend, usize)> = Vec::new();
    for (of, party) in parties.iter().enumerate() {
        ready.push(prepare(party, request, progress, of, &mut places));
    }
    parties::run(request, &parties, ready, progress, send);
}

/// A device and how the job runs on it.
struct Ready {
    device: Trace,
    plan: Plan,
}

/// Opens a party's device and plans its job. *Errors*: the report of one that does not run. `places`: devices that other
/// parties have.
fn prepare(
    party: &Party,
    request: &Request,
    progress: &'static Progress,
    of: usize,
    places: &mut Vec<(Backend, usize)>,
) -> std::result::Result<Ready, Box<Report>> {
    let (job, backend) = (&party.job, party.job.backend);
    let unplanned = |caps: Option<&Caps>, verdict, why: String| Box::new(unplanned(job, backend, caps, request, verdict, why));
    let absent = |error: OpenError| match error {
        OpenError::Absent(why) if request.require.contains(&backend) => {
            unplanned(None, Verdict::Error, format!("`{}` is required: {why}", backend.name()))
        }
        OpenError::Absent(why) => unplanned(None, Verdict::Skip, why),
        OpenError::Failed(error) => unplanned(None, Verdict::Error, error.to_string()),
    };
    if job.compared {
        let place = choice::list(backend).and_then(|listed| party.device.find(&listed).map_err(OpenError::Absent)).map_err(absent)?;
        if places.contains(&(backend, place)) {
            let why = format!("`{}` is {}:{place}, which runs the job already: a device agrees with itself", party.device, backend.name());
            return Err(unplanned(None, Verdict::Error, why));
        }
        places.push((backend, place));
    }
    let device = open(request, &party.device, Some(progress), of).map_err(absent)?;
    if let Some(why) = job.requires.iter().find_map(|requirement| requirement.unmet(device.caps())) {
        return Err(unplanned(Some(device.caps()), Verdict::Skip, why));
    }
    if let Some(why) = job.kernels[..job.loads].iter().find_map(|kernel| device.lacks(kernel)) {
        return Err(absent(OpenError::Absent(why)));
    }
    match plan::build(job, device.caps(), &request.plan_options()) {
        Ok(plan) => Ok(Ready { device, plan }),
        Err(error) => Err(unplanned(Some(device.caps()), Verdict::Error, error.to_string())),
    }
}

/// The step that a lane's device was at, in words: from the page of a worker that is gone, and the plan made again.
fn where_of(request: &Request, party: usize, lane: &LaneProgress) -> Option<String> {
    use std::sync::atomic::Ordering;
    let parties = resolve(request).ok()?.parties;
    // Other devices do not tell which node they are at.
    let Party { device, job } = parties.get(party).filter(|party| party.job.backend == Backend::Cpu)?;
    let device = open(request, device, None, 0).ok()?;
    let plan = plan::build(job, device.caps(), &request.plan_options()).ok()?;
    let mode = plan.mode(job::SetOrder::new(job).runs_below(lane.round()));
    // Of rounds that are submitted at once the last ones may be fewer; of those in flight with others nothing is said.
    let rounds = lane.flying().max(1);
    let nodes = plan.node_count(rounds, 0, mode);
    let (_, own) = plan.round_of(rounds, nodes, lane.node.load(Ordering::Relaxed) as usize);
    let index = plan.step_of(mode, nodes / rounds as usize, job.steps.len(), own)?;
    let step = job.steps.get(index)?;
    let words = job.step_in_words(index)?;
    let protected: Vec<String> = step
        .action
        .views()
        .filter(|(_, view)| device.caps().unified && plan.tensors[view.tensor].class == plan::Class::Resident)
        .map(|(_, view)| format!("`{}`", job.tensors[view.tensor].name))
        .collect();
    let note = match protected.as_slice() {
        [] => String::new(),
        [name] => format!("; its `in` {name} is mapped read-only, a kernel that writes there ends so"),
        names => format!("; its `in` {} are mapped read-only, a kernel that writes there ends so", names.join(", ")),
    };
    Some(format!("in step {index}, {words}{note}"))
}

/// The report of a job that is not run.
fn unplanned(job: &Job, backend: Backend, caps: Option<&Caps>, request: &Request, verdict: Verdict, why: String) -> Report {
    Report {
        reason: Some(why),
        backend: backend.name().to_string(),
        device: caps.map(|caps| caps.name.clone()).unwrap_or_default(),
        driver: caps.map(|caps| caps.driver.clone()).unwrap_or_default(),
        trust: request.trust,
        seed: job.rounds.seed,
        rounds: job.runs(),
        not_selected: job.rounds.count - job.runs(),
        summary: job.summary.clone(),
        ..Report::empty(&job.name, verdict)
    }
}
