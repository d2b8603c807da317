//! The device's clock -> the time of a round, and of each step of the spec.

use std::time::Duration;

use super::batch::Batch;
use crate::device::{Clock, Cmd, Device, DeviceError};
use crate::job::Job;
use crate::plan::Plan;
use crate::verdict::StepTime;

/// What a part of the rounds took: a step of the spec with all its turns, or what is before or after all steps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    /// *Units*: nanoseconds.
    pub total: u64,
    pub min: u64,
    pub rounds: u64,
}

impl Part {
    fn add(&mut self, time: u64) {
        self.merge(&Part { total: time, min: time, rounds: 1 });
    }

    pub fn merge(&mut self, other: &Part) {
        self.min = if self.rounds == 0 {
            other.min
        } else if other.rounds == 0 {
            self.min
        } else {
            self.min.min(other.min)
        };
        (self.total, self.rounds) = (self.total + other.total, self.rounds + other.rounds);
    }
}

/// What the device's clock says of a round. *Units*: nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OnDevice {
    /// From its first command to its last.
    pub round: Option<u64>,
    /// Its steps alone.
    pub steps: Option<u64>,
}

/// Reads the clock of a lane's device.
pub(super) struct StepClock {
    clock: Clock,
    /// By graph and node: the part that it belongs to.
    parts: Vec<Vec<u32>>,
    /// Of the round at hand, by node and by part.
    times: Vec<Option<Duration>>,
    sums: Vec<u64>,
}

/// Behind the steps of the spec come what is done before all of them, the flush of the caches, and what is done after.
const BEFORE: usize = 0;
const FLUSH: usize = 1;
const AFTER: usize = 2;
const AROUND: usize = 3;

impl StepClock {
    pub fn new(job: &Job, plan: &Plan, clock: Clock) -> StepClock {
        let origins = job.origins.len();
        let part = |mode: usize, nodes: usize, at: usize, cmd: &Cmd| {
            let around = match cmd {
                Cmd::Fill { dst, .. } if plan.flush.as_ref().is_some_and(|flush| flush.memory == dst.mem.0) => FLUSH,
                _ if at + plan.trailing(mode) >= nodes => AFTER,
                _ => BEFORE,
            };
            let step = plan.step_of(mode, nodes, job.steps.len(), at).filter(|_| around == BEFORE);
            step.map_or(origins + around, |step| job.steps[step].origin as usize) as u32
        };
        let of_graph = |(index, nodes): (usize, &Vec<crate::device::Node>)| {
            let mode = index % plan.modes.len().max(1);
            nodes.iter().enumerate().map(|(at, node)| part(mode, nodes.len(), at, &node.cmd)).collect()
        };
        let parts = if clock == Clock::Steps { plan.graphs.iter().enumerate().map(of_graph).collect() } else { Vec::new() };
        let most = plan.graphs.iter().map(Vec::len).max().filter(|_| clock == Clock::Steps).unwrap_or(0);
        let sums = vec![0; if clock == Clock::Steps { origins + AROUND } else { 0 }];
        StepClock { clock, parts, times: Vec::with_capacity(most), sums }
    }

    /// What the clock says of the rounds in a batch that was waited for; the parts of a round alone are added to `parts`.
    pub fn read(&mut self, plan: &Plan, batch: &Batch, device: &mut dyn Device, parts: &mut Vec<Part>) -> Result<OnDevice, DeviceError> {
        let Some(point) = batch.reached().filter(|_| self.clock != Clock::Off) else { return Ok(OnDevice::default()) };
        let round = device.elapsed(point)?.map(|time| time.as_nanos() as u64);
        if self.clock != Clock::Steps || !device.node_times(point, &mut self.times)? {
            return Ok(OnDevice { round, steps: None });
        }
        let Some(nodes) = batch.graph(plan).and_then(|graph| self.parts.get(graph)).filter(|_| batch.rounds() == 1) else {
            return Ok(OnDevice { round, steps: None });
        };
        if nodes.len() != self.times.len() || self.times.iter().any(Option::is_none) {
            return Ok(OnDevice { round, steps: None });
        }
        self.sums.fill(0);
        for (part, time) in nodes.iter().zip(&self.times) {
            self.sums[*part as usize] += time.map_or(0, |time| time.as_nanos() as u64);
        }
        parts.resize(self.sums.len(), Part::default());
        parts.iter_mut().zip(&self.sums).for_each(|(part, &time)| part.add(time));
        let steps = self.sums.len() - AROUND;
        Ok(OnDevice { round, steps: Some(self.sums[..steps].iter().sum()) })
    }
}

/// What the parts of the rounds came to, a line each; nothing where none was timed.
pub(super) fn told(job: &Job, parts: &[Part]) -> Vec<StepTime> {
    let Some(steps) = parts.len().checked_sub(AROUND) else { return Vec::new() };
    let all: u64 = parts.iter().enumerate().filter(|(at, _)| *at != steps + FLUSH).map(|(_, part)| part.total).sum();
    let told = |step: &str, turns: u64, part: &Part| StepTime {
        step: step.to_string(),
        turns,
        mean: part.total as f64 / part.rounds.max(1) as f64,
        min: part.min,
        share: part.total as f64 / all.max(1) as f64,
    };
    let turns = |origin: usize| job.steps.iter().filter(|step| step.origin as usize == origin).count() as u64;
    let mut lines = vec![told("before the steps", 1, &parts[steps + BEFORE])];
    lines.extend(
        job.origins.iter().enumerate().map(|(at, origin)| told(&origin.label, turns(at), &parts[at])).filter(|line| line.turns > 0),
    );
    lines.push(told("after the steps", 1, &parts[steps + AFTER]));
    lines
}
