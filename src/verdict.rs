//! What happened, as data: verdicts, failures, events and the report of a job.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::check::Mismatch;
use crate::device::Counts;
use crate::plan::{Cost, Trust};

pub use crate::check::{Metric, Reached};

/// What a job came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    /// A check failed.
    Fail,
    /// A kernel did not build, a call failed, a value could not be computed.
    Error,
    /// It could not run here, for a reason that is given.
    Skip,
    /// It ran, and nothing was checked.
    Unchecked,
    /// A limit of time was reached.
    Timeout,
    /// Its process ended without a verdict.
    Crash,
    /// It failed, as the spec expects.
    Xfail,
    /// It passed, though the spec expects it to fail.
    Xpass,
    /// Stopped by the user before all rounds.
    Interrupted,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Error => "error",
            Verdict::Skip => "skip",
            Verdict::Unchecked => "unchecked",
            Verdict::Timeout => "timeout",
            Verdict::Crash => "crash",
            Verdict::Xfail => "xfail",
            Verdict::Xpass => "xpass",
            Verdict::Interrupted => "interrupted",
        }
    }

    /// The exit code of a run with this verdict.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Pass | Verdict::Skip | Verdict::Xfail => 0,
            Verdict::Fail | Verdict::Unchecked | Verdict::Xpass => 1,
            Verdict::Error | Verdict::Timeout | Verdict::Crash => 3,
            Verdict::Interrupted => 130,
        }
    }
}

/// What kind of thing went wrong in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Elements out of tolerance.
    Mismatch,
    /// A condition that is not true.
    Condition,
    /// Bytes outside a tensor were written.
    OutOfBounds,
    /// An input that no step may write has other bytes than it was given.
    InputChanged,
    /// An expectation has no value.
    Evaluation,
    /// A kernel builds that must not, or does not build as it must. It is of no round.
    Build,
}

/// One thing that went wrong in one round.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub kind: Kind,
    /// 0 where it is of no round.
    pub round: u64,
    pub set: Option<String>,
    pub tensor: Option<String>,
    /// The claim, in the spec's words.
    pub check: Option<String>,
    pub message: String,
    /// Where the mismatches lie, in words.
    pub patterns: Vec<String>,
    pub compared: u64,
    pub mismatched: u64,
    /// The first mismatches, and the worst one last.
    pub mismatches: Vec<At>,
    /// Where the round's tensors were written to, of its first failure and where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<Dump>,
}

/// Tensors of a failing round as `.npy` files.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Dump {
    pub folder: PathBuf,
    /// What could not be written, and why. It changes no verdict.
    pub problems: Vec<String>,
}

/// A mismatch with its index in every dimension.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct At {
    pub index: Vec<u64>,
    pub mismatch: Mismatch,
    pub worst: bool,
}

/// What could still be learnt after a device call failed: nothing of it counts towards the verdict.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Salvage {
    /// Further calls that failed, each with its tensor, direction and bytes, as far as they are known.
    pub errors: Vec<String>,
    /// Checks of the round that failed and of those in flight behind it.
    pub checks: Vec<Salvaged>,
}

/// A check of a round that does not count.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Salvaged {
    pub round: u64,
    /// The claim, in the spec's words.
    pub check: String,
    /// What was wrong with the output; `None`: nothing.
    pub problem: Option<String>,
}

/// What one check came to over all rounds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CheckReport {
    pub text: String,
    pub tolerance: String,
    pub default_tolerance: bool,
    /// The claim is a condition, not about one tensor's elements.
    pub condition: bool,
    /// The claim is about the build of a kernel, which is of no round: it counts as one where it was made.
    #[serde(default)]
    pub build: bool,
    /// Rounds in which it was evaluated.
    pub rounds: u64,
    /// Rounds in which it was not, as the spec asks.
    pub left_out: u64,
    pub failed_rounds: u64,
    /// Elements that were compared, of so many that the tensor had; over all rounds.
    pub elements: u64,
    pub of: u64,
    /// The worst over all rounds.
    pub metrics: Vec<Reached>,
}

impl CheckReport {
    /// Takes out what was counted.
    pub(crate) fn clear(&mut self) {
        (self.rounds, self.left_out, self.failed_rounds, self.elements, self.of) = (0, 0, 0, 0, 0);
        self.metrics.iter_mut().for_each(|reached| reached.value = reached.metric.best());
    }

    /// Adds what was counted in other rounds.
    pub(crate) fn merge(&mut self, other: &CheckReport) {
        self.rounds += other.rounds;
        self.left_out += other.left_out;
        self.failed_rounds += other.failed_rounds;
        self.elements += other.elements;
        self.of += other.of;
        for (reached, other) in self.metrics.iter_mut().zip(&other.metrics) {
            reached.value = reached.metric.worse(reached.value, other.value);
        }
    }
}

/// Where the time went. *Units*: nanoseconds, over all rounds that were timed.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// From the first round's start to the last round's end; 0, as are those of its parts, where devices waited for each other.
    pub total: u64,
    pub rounds: u64,
    /// Rounds whose phases were timed one by one; those that were submitted at once together, as if each took the same.
    pub sampled: u64,
    pub fill: u64,
    pub run: u64,
    pub check: u64,
    /// Opening, planning, compiling, allocating, uploading, warm-up.
    pub setup: u64,
    /// By the device's clock, over all rounds, of which several at once have one time; where it was asked for and there is one.
    #[serde(default)]
    pub device: Option<u64>,
}

impl Times {
    /// Adds the phases of other rounds.
    pub(crate) fn merge(&mut self, other: &Times) {
        self.sampled += other.sampled;
        self.fill += other.fill;
        self.run += other.run;
        self.check += other.check;
        self.add_device(other.device);
    }

    /// Adds time by the device's clock.
    pub(crate) fn add_device(&mut self, time: Option<u64>) {
        if let Some(time) = time {
            *self.device.get_or_insert(0) += time;
        }
    }
}

/// What a job came to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    pub job: String,
    pub summary: Option<String>,
    pub verdict: Verdict,
    /// Why, where the verdict alone does not say it.
    pub reason: Option<String>,
    pub device: String,
    pub driver: String,
    pub backend: String,
    pub trust: Trust,
    pub seed: u64,
    /// Rounds that were asked for.
    pub rounds: u64,
    /// Rounds of the job that were not, because their sets were not selected.
    #[serde(default)]
    pub not_selected: u64,
    pub run: u64,
    /// Rounds in which every check was evaluated that was to be.
    pub checked: u64,
    /// Rounds in which a check was left out, as the spec asks.
    pub left_out: u64,
    pub failed_rounds: u64,
    pub checks: Vec<CheckReport>,
    /// Of the lowest failing rounds.
    pub failures: Vec<Failure>,
    /// After a device call failed.
    #[serde(default)]
    pub salvage: Salvage,
    pub cost: Cost,
    /// Device calls of the set-up, and of everything after it.
    pub setup_counts: Counts,
    pub round_counts: Counts,
    pub times: Times,
    /// What the kernels printed.
    pub output: String,
    /// The device was lost: what it was doing then is found by running the job again, step by step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// Of a comparison of two devices: what they are called. The second one's outputs are `got`, the first one's `want`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<[String; 2]>,
}

impl Report {
    /// A report of a job that has not run.
    pub fn empty(job: &str, verdict: Verdict) -> Report {
        Report {
            job: job.to_string(),
            summary: None,
            verdict,
            reason: None,
            device: String::new(),
            driver: String::new(),
            backend: "cpu".to_string(),
            trust: Trust::default(),
            seed: 0,
            rounds: 0,
            not_selected: 0,
            run: 0,
            checked: 0,
            left_out: 0,
            failed_rounds: 0,
            checks: Vec::new(),
            failures: Vec::new(),
            salvage: Salvage::default(),
            cost: Cost::default(),
            setup_counts: Counts::default(),
            round_counts: Counts::default(),
            times: Times::default(),
            output: String::new(),
            lost: false,
            between: None,
        }
    }
}

/// What the executor says while it runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Planned: what will be run.
    Planned { job: String, device: String, driver: String, rounds: u64 },
    /// Something went wrong in a round.
    Failed(Box<Failure>),
    /// The end of the job; without it, the job crashed.
    Done(Box<Report>),
}
