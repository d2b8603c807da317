//! A job, capabilities and options -> the plan; where memory is short, with what is given up to make it fit.

use super::classify::{self, Class, Use};
use super::fit::{Limits, Needs, Rung, Spared, TooLarge, reduce};
use super::nodes::{ordered, slice};
use super::schedule::{self, Load};
use super::trust::{self, GUARD_WORD, Modes, Poisoning};
use super::{
    Cost, Fill, Flush, Home, Host, Memory, Placement, Plan, Poison, Poisoned, Read, Rounds, Schedule, Staged, Trust, Upload, Zone,
};
use crate::device::{Caps, Cmd, Place, Word};
use crate::job::{Action, Bench, Contents, Job};
use crate::spec;

/// What the command line says of planning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub trust: Trust,
    /// Set-up and tear-down around every round: the yardstick for speed and results.
    pub fresh: bool,
    /// Threads that run rounds side by side; chosen where it is `None`.
    pub lanes: Option<u32>,
    /// Batches of rounds that a lane has in flight; chosen where it is `None`.
    pub slots: Option<u32>,
    /// Rounds that are submitted at once; chosen where it is `None`.
    pub batch: Option<u32>,
    /// Where the host works; chosen where it is `None`.
    pub host: Option<Host>,
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{0}")]
    TooLarge(TooLarge),
    #[error("tensor `{tensor}` has {bytes} bytes, the largest allocation of the device is {limit}")]
    LargestAlloc { tensor: String, bytes: u64, limit: u64 },
    #[error(
        "the steps of a round depend on each other in more than {limit} places: let fewer steps read what many others write part by part"
    )]
    TooManyEdges { limit: u64 },
    #[error("{lanes} lanes were asked for, the job can have one: {why}")]
    Lanes { lanes: u32, why: &'static str },
    #[error("kernel `{kernel}` has a block of {block:?}, the device's largest is {limit}")]
    Block { kernel: String, block: [u32; 3], limit: String },
}

/// Bytes of guard pattern between tensors: a kernel that runs over by a few elements of any dtype hits them.
const GUARD_BYTES: u64 = 128;

/// Outputs up to this size are poisoned in full in every round.
const SMALL_OUTPUTS: u64 = 1 << 20;

/// A submit cost from which commands cost more than what they save the host. *Units*: nanoseconds.
const COMMAND_NS: u64 = 500;

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub job: &'a Job,
    pub caps: &'a Caps,
    pub trust: Trust,
    pub uses: Vec<Use>,
    pub guard: u64,
    pub tensors: Vec<Placement>,
    pub memories: Vec<Memory>,
    pub setup: Vec<Upload>,
    pub setup_copies: Vec<Cmd>,
    pub start: Vec<Cmd>,
    pub poison: Vec<Poisoned>,
    pub zones: Vec<Zone>,
    pub fills: Vec<Fill>,
    pub reads: Vec<Read>,
    pub staged: Vec<Staged>,
    pub flush: Option<Flush>,
    /// Of the round with the most nodes.
    pub cmds: Vec<Cmd>,
    /// Rounds that are submitted at once, and why so many.
    pub batch: u32,
    pub batch_reason: String,
}

/// The plan of a job on a device. *Errors*: it does not fit, by memory or by block size.
pub fn build(job: &Job, caps: &Caps, options: &Options) -> Result<Plan, PlanError> {
    for kernel in &job.kernels {
        let threads: u64 = kernel.block.iter().map(|&b| u64::from(b)).product();
        if threads > caps.max_block || kernel.block.iter().zip(caps.max_block_dims).any(|(&b, max)| u64::from(b) > max) {
            let limit = format!("{} threads, {:?} by dimension", caps.max_block, caps.max_block_dims);
            return Err(PlanError::Block { kernel: kernel.name.clone(), block: kernel.block, limit });
        }
    }
    let limits = Limits::of(job, caps);
    let (mut spared, mut rungs) = (Spared::default(), Vec::new());
    // Rounds at once that memory has room for, and why no more.
    let (mut most, mut fewer_at_once): (u32, Option<String>) = (u32::MAX, None);
    loop {
        let draft = Draft::new(job, caps, options.trust, spared, 1)?.batched(options, spared, most)?;
        let modes = match draft.modes() {
            Ok(modes) => modes,
            // There are several sets on the device, and without them one graph.
            Err(reason) => {
                rungs.push(Rung { what: "sets are uploaded in every round that uses them".into(), reason });
                spared.sets = true;
                continue;
            }
        };
        let cost = draft.cost();
        let schedule = draft.schedule(options, &draft.load(&cost, options))?;
        let graphs = u64::from(draft.sets_on_device().max(1)) * modes.modes.len() as u64;
        let rounds: u64 = draft.batches().iter().map(|&rounds| u64::from(rounds)).sum();
        let needs = draft.needs(&schedule, graphs * rounds, options.fresh);
        if let (2.., Some(short)) = (draft.batch, limits.short(&needs, schedule.lanes, schedule.slots)) {
            fewer_at_once.get_or_insert(format!("{} {short}", draft.batch));
            most = draft.batch / 2;
            continue;
        }
        match reduce(schedule, &needs, &limits) {
            Ok((mut schedule, fewer)) => {
                schedule.deal = schedule::deal(job.runs(), schedule.lanes);
                let what = format!("{} at once", super::show::count(draft.batch.into(), "round"));
                let at_once = fewer_at_once.clone().map(|reason| Rung { what, reason });
                let rungs = at_once.into_iter().chain(rungs.iter().cloned()).chain(fewer).collect();
                let batch = draft.batch;
                match draft.finish(options, schedule, modes, cost, &needs, rungs) {
                    Err(PlanError::TooManyEdges { .. }) if batch > 1 => {
                        fewer_at_once = Some(format!("the steps of {batch} depend on each other in too many places"));
                        most = batch / 2;
                    }
                    plan => return plan,
                }
            }
            Err(short) => match spared.next(&draft, &short) {
                Some((more, rung)) => {
                    spared = more;
                    rungs.push(rung);
                }
                None => return Err(PlanError::TooLarge(draft.too_large(&needs, &limits))),
            },
        }
    }
}

impl<'a> Draft<'a> {
    /// Classes, addresses and commands.
    pub(super) fn new(job: &'a Job, caps: &'a Caps, trust: Trust, spared: Spared, batch: u32) -> Result<Draft<'a>, PlanError> {
        let uses = classify::uses(job);
        let tensor = |(id, tensor): (usize, &crate::job::Tensor)| {
            let of = uses[id];
            let (class, reason) = classify::class(job, id, of, spared);
            let held = classify::held(job, id, class, of, spared);
            let steps = of.first.map(|first| (first, of.last));
            let (name, bytes, spaced) = (tensor.name.clone(), tensor.device_bytes(), tensor.spaced);
            Placement { name, bytes, spaced, class, home: None, pristine: Vec::new(), held, reason, steps }
        };
        let tensors = job.tensors.iter().enumerate().map(tensor).collect();
        let mut draft = Draft {
            job,
            caps,
            trust,
            uses,
            guard: if trust == Trust::Fast { 0 } else { GUARD_BYTES },
            tensors,
            memories: Vec::new(),
            setup: Vec::new(),
            setup_copies: Vec::new(),
            start: Vec::new(),
            poison: Vec::new(),
            zones: Vec::new(),
            fills: Vec::new(),
            reads: Vec::new(),
            staged: Vec::new(),
            flush: None,
            cmds: Vec::new(),
            batch,
            batch_reason: String::new(),
        };
        draft.place_pristine()?;
        draft.place_carried()?;
        draft.place_slot()?;
        draft.place_flush();
        let must_write = |id: usize| job.checks.iter().any(|c| c.written && c.tensor == id);
        let mut words: Vec<u32> = Vec::new();
        for id in draft.outputs().into_iter().filter(|&id| trust != Trust::Fast || must_write(id)) {
            let word = trust::poison_of(job, id, 0);
            let at = words.iter().position(|of| *of == word).unwrap_or_else(|| {
                words.push(word);
                words.len() - 1
            });
            // A command costs more than the bytes of a small output.
            let by_host = caps.unified && caps.submit_ns >= COMMAND_NS && draft.tensors[id].bytes <= SMALL_OUTPUTS;
            draft.poison.push(Poisoned { tensor: id, var: (batch as usize * job.vars.len() + at) as u16, always: must_write(id), by_host });
        }
        draft.cmds = draft.round(0, &trust::Mode { poison: Poison::Full, all_guards: true, guards: trust != Trust::Fast });
        Ok(draft)
    }

    fn outputs(&self) -> Vec<usize> {
        (0..self.tensors.len()).filter(|&id| self.tensors[id].class == Class::Output).collect()
    }

    fn output_bytes(&self) -> u64 {
        self.outputs().iter().map(|&id| self.tensors[id].bytes).sum()
    }

    /// The kinds of rounds. *Errors*: why not every set can have graphs.
    fn modes(&self) -> Result<Modes, String> {
        if self.batch > 1 {
            return Ok(trust::one_mode(self.trust, !self.outputs().is_empty()));
        }
        let bytes = self.output_bytes();
        let cheap = bytes * 20 <= moved(&self.cost());
        let stale_could_pass = self.poison.iter().any(|p| !classify::expected_anew(self.job, p.tensor));
        trust::modes(Poisoning {
            trust: self.trust,
            always_full: bytes <= SMALL_OUTPUTS || cheap || stale_could_pass,
            outputs: bytes > 0,
            sets: self.sets_on_device().max(1).into(),
            nodes: self.cmds.len() as u64,
        })
    }

    /// What the schedule depends on.
    pub(super) fn load(&self, cost: &Cost, options: &Options) -> Load {
        let widest = self.job.steps.iter().filter_map(|s| match &s.action {
            Action::Launch { grid, .. } => {
                Some(grid.iter().map(|g| if let Word::Const(n) = g { *n } else { 1 }).fold(1u64, u64::saturating_mul))
            }
            _ => None,
        });
        Load {
            host_bytes: cost.round_upload + cost.round_download,
            device_bytes: moved(cost),
            widest: widest.max().unwrap_or(1),
            launches: cost.launches,
            rounds: if self.bench().stopping.is_some() { self.job.most_runs() } else { self.job.runs() },
            alone: self.alone(options),
        }
    }

    fn finish(
        mut self,
        options: &Options,
        schedule: Schedule,
        modes: Modes,
        mut cost: Cost,
        needs: &Needs,
        rungs: Vec<Rung>,
    ) -> Result<Plan, PlanError> {
        let (job, more) = (self.job, self.bench().stopping);
        let poison = |&id: &usize| {
            let word = trust::poison_of(job, id, 0);
            let home = self.tensors[id].home?;
            Some(Cmd::Fill { dst: slice(home, self.tensors[id].bytes), pattern: Word::Const(word.into()) })
        };
        let at_setup: Vec<Cmd> = if self.trust == Trust::Fast { self.outputs().iter().filter_map(poison).collect() } else { Vec::new() };
        let at_setup = self.list_of(self.batch).list(&at_setup);
        cost.lower_bound_ns = (moved(&cost) as f64 / self.caps.bytes_per_ns) as u64;
        let sets = self.sets_on_device();
        let batches = self.batches();
        let kinds = (0..sets.max(1)).flat_map(|set| modes.modes.iter().map(move |mode| (set, mode)));
        let kinds = batches.iter().flat_map(|&rounds| kinds.clone().map(move |(set, mode)| (rounds, set, mode)));
        let graphs = kinds.map(|(rounds, set, mode)| self.nodes(rounds, set, mode)).collect::<Result<Vec<_>, _>>()?;
        let slots = u64::from(schedule.slots) * u64::from(schedule.lanes);
        cost.device_peak = needs.device.at(schedule.lanes, schedule.slots);
        cost.host_peak = needs.host.at(schedule.lanes, schedule.slots);
        cost.allocs = self.memories.iter().map(|m| if m.per_slot { slots } else { 1 }).sum();
        let refused = |id: &usize| job.builds.iter().any(|claim| claim.kernel == *id && claim.must == spec::Build::Fails);
        cost.loads = (0..job.kernels.len()).filter(|id| !refused(id)).count() as u64;
        let mut setup_nodes: Vec<Cmd> = Vec::new();
        if self.guard > 0 {
            for (id, memory) in self.memories.iter().enumerate() {
                let guarded = matches!(memory.place, Place::Device | Place::Shared);
                if guarded && memory.bytes > 0 {
                    let whole = slice(Home { memory: id as u32, offset: 0 }, memory.bytes);
                    setup_nodes.push(Cmd::Fill { dst: whole, pattern: Word::Const(GUARD_WORD.into()) });
                }
            }
        }
        setup_nodes.append(&mut self.setup_copies);
        Ok(Plan {
            job: job.name.clone(),
            device: self.caps.name.clone(),
            trust: options.trust,
            fresh: options.fresh,
            schedule,
            rungs,
            setup: self.setup,
            setup_nodes: ordered(setup_nodes)?,
            start_nodes: ordered(self.start)?,
            poison_nodes: ordered(at_setup)?,
            graphs,
            batches,
            sets,
            modes: modes.modes,
            fewer_modes: modes.reason,
            staged: self.staged,
            poison: self.poison,
            zones: self.zones,
            fills: self.fills,
            reads: self.reads,
            rounds: Rounds {
                count: job.runs(),
                left_out: job.rounds.count - job.runs(),
                warmup: job.rounds.warmup,
                order: job.rounds.order,
                more,
                most: if more.is_some() { job.most_runs() } else { job.runs() },
            },
            flush: self.flush,
            cost,
            tensors: self.tensors,
            memories: self.memories,
        })
    }

    /// How rounds are measured: not at all where devices wait for each other, as their times are told of none.
    pub(super) fn bench(&self) -> Bench {
        if self.job.compared { Bench::default() } else { self.job.bench }
    }

    /// Why there can be one lane alone.
    fn alone(&self, options: &Options) -> Option<&'static str> {
        let carries = self.tensors.iter().any(|t| t.class == Class::Carried);
        match () {
            () if options.fresh => Some("fresh rounds come one after the other"),
            () if self.job.compared => Some("every round is compared with those of other devices, in their order"),
            () if self.job.kernels[..self.job.loads].iter().any(|k| k.serial) => {
                Some("a kernel is `serial`: it may not run twice at a time")
            }
            () if self.bench().cold => Some("every round has the device's caches to itself"),
            () if self.bench().stopping.is_some() => Some("rounds that are measured do not share the machine"),
            () if carries => Some("every round starts from what the one before it left in a carried tensor"),
            () if self.batch > 1 => Some("rounds that are submitted at once fill the slots of one lane"),
            () if options.host == Some(Host::Pool) => Some("host work on a pool takes all threads for one round"),
            () if !self.caps.unified => Some("the device has memory of its own, which rounds in flight keep busy from one lane"),
            () => None,
        }
    }

    /// The schedule that is asked for, and what is best where nothing is said.
    fn schedule(&self, options: &Options, load: &Load) -> Result<Schedule, PlanError> {
        let mut schedule: Schedule = schedule::choose(self.caps, load);
        if options.fresh {
            schedule.reason = "fresh: set-up and tear-down around every round".into();
            (schedule.lanes, schedule.slots) = (1, 1);
        }
        if self.bench().cold {
            (schedule.lanes, schedule.slots) = (1, 1);
            schedule.reason = "cold caches: one round at a time has them to itself".into();
        }
        if options.host == Some(Host::Pool) || options.slots.is_some_and(|slots| slots > 1) || self.batch > 1 {
            schedule.lanes = 1;
        }
        if let Some(slots) = options.slots.filter(|_| !options.fresh && !self.bench().cold) {
            schedule.slots = slots.max(1);
            schedule.reason = format!("{}, as asked for", super::show::count(schedule.slots.into(), "slot"));
        }
        if let Some(host) = options.host {
            schedule.host = host;
        }
        if let Some(lanes) = options.lanes {
            if let (2.., Some(why)) = (lanes, load.alone) {
                return Err(PlanError::Lanes { lanes, why });
            }
            schedule.lanes = lanes.clamp(1, schedule::MOST_LANES as u32);
            let asked = super::show::count(schedule.lanes.into(), "lane");
            schedule.reason = format!("{asked} and {}, as asked for", super::show::count(schedule.slots.into(), "slot"));
            if lanes > 1 {
                schedule.host = Host::Inline;
            }
        }
        let rounds = load.rounds;
        schedule.lanes = schedule.lanes.min(rounds.min(schedule::MOST_LANES) as u32).max(1);
        schedule.slots = schedule.slots.min(rounds.div_ceil(self.batch.into()).min(64) as u32).max(1);
        schedule.batch = self.batch;
        if let Some(words) = self.batch_words() {
            schedule.reason = format!("{}; {words}", schedule.reason);
        }
        schedule.deal = schedule::deal(rounds, schedule.lanes);
        Ok(schedule)
    }

    /// Sets that have graphs of their own.
    pub(super) fn sets_on_device(&self) -> u32 {
        let any = self
            .tensors
            .iter()
            .zip(&self.job.tensors)
            .any(|(p, t)| matches!(t.contents, Contents::Sets(_)) && matches!(p.class, Class::Resident | Class::Restored));
        if any { self.job.sets.len() as u32 } else { 0 }
    }

    pub(super) fn cost(&self) -> Cost {
        let mut cost = Cost { setup_upload: self.setup.iter().map(|u| u.bytes).sum(), ..Cost::default() };
        cost.round_upload = self.fills.iter().map(|f| f.bytes).sum();
        cost.round_download = self.reads.iter().map(|r| r.bytes).sum();
        let mode = trust::Mode { poison: Poison::Nothing, all_guards: false, guards: false };
        for cmd in self.round(0, &mode) {
            match &cmd {
                Cmd::Fill { dst, .. } if self.flush.as_ref().is_some_and(|flush| flush.memory == dst.mem.0) => {}
                Cmd::Copy { src, .. } => cost.round_copied += 2 * src.len,
                Cmd::Fill { dst, .. } => cost.round_filled += dst.len,
                Cmd::Launch { .. } => cost.launches += 1,
            }
        }
        for step in &self.job.steps {
            if matches!(step.action, Action::Launch { .. }) {
                cost.round_steps +=
                    step.action.views().map(|(access, v)| v.len * (u64::from(access.reads()) + u64::from(access.writes()))).sum::<u64>();
            }
        }
        let with_contents =
            self.tensors.iter().zip(&self.job.tensors).filter(|(p, t)| p.steps.is_some() && !matches!(t.contents, Contents::None));
        cost.naive = with_contents.map(|(p, _)| p.bytes).sum::<u64>() + cost.round_download;
        cost
    }
}

/// Bytes that the device moves in a round.
fn moved(cost: &Cost) -> u64 {
    cost.round_steps + cost.round_copied + cost.round_filled
}
