//! A job, capabilities and options -> the plan; when it does not fit, with fewer slots, then with fewer sets on the device.

use super::classify::{self, Class, MOST_RESIDENT_SETS, Use};
use super::nodes::{ordered, slice};
use super::schedule::{self, Load};
use super::trust::{self, GUARD_WORD};
use super::{Cost, Fill, Home, Host, Memory, Placement, Plan, Poisoned, Read, Rounds, Schedule, Trust, Upload, Zone};
use crate::device::{Caps, Cmd, Place, Word};
use crate::job::{Action, Contents, Job, Want};

/// What the command line says of planning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub trust: Trust,
    /// Set-up and tear-down around every round: the yardstick for speed and results.
    pub fresh: bool,
    /// Threads that run rounds side by side; chosen where it is `None`.
    pub lanes: Option<u32>,
    /// Rounds that a lane has in flight; chosen where it is `None`.
    pub slots: Option<u32>,
    /// Where the host works; chosen where it is `None`.
    pub host: Option<Host>,
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the job needs {needs} bytes of {kind} memory, the limit is {limit}: {largest}; a limit of {needs} would do{help}")]
    TooLarge { kind: &'static str, needs: u64, limit: u64, largest: String, help: &'static str },
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

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub job: &'a Job,
    pub caps: &'a Caps,
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
    // Where the device is the host, its memory is all there is.
    let host_limit = job.limits.host_memory.unwrap_or(if caps.unified { caps.memory } else { u64::MAX });
    let device_limit = job.limits.device_memory.unwrap_or(u64::MAX).min(caps.memory);
    let sets_can_stay = job.sets.len() <= MOST_RESIDENT_SETS;
    let mut last = None;
    for sets_stay in if sets_can_stay { &[true, false][..] } else { &[false][..] } {
        let has_sets = job.tensors.iter().any(|t| matches!(t.contents, Contents::Sets(_)));
        if !sets_stay && sets_can_stay && !has_sets {
            break;
        }
        let (mut lanes, mut slots) = (options.lanes, options.slots);
        loop {
            let plan = attempt(job, caps, &Options { lanes, slots, ..*options }, *sets_stay)?;
            if plan.cost.device_peak <= device_limit && plan.cost.host_peak <= host_limit {
                return Ok(plan);
            }
            let schedule = &plan.schedule;
            let more = schedule.lanes > 1 || schedule.slots > 1;
            if schedule.lanes > 1 {
                lanes = Some(schedule.lanes / 2);
            } else {
                slots = Some(schedule.slots - 1);
            }
            last = Some(plan);
            if !more {
                break;
            }
        }
    }
    // The loop above runs at least once.
    let Some(plan) = last else { return attempt(job, caps, options, false) };
    let mut by_size: Vec<&Placement> = plan.tensors.iter().filter(|t| t.home.is_some() || !t.pristine.is_empty()).collect();
    by_size.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    let largest = by_size.iter().take(3).map(|t| format!("`{}` takes {}", t.name, t.bytes)).collect::<Vec<_>>().join(", ");
    let (kind, needs, limit) = if plan.cost.device_peak > device_limit {
        ("device", plan.cost.device_peak, device_limit)
    } else {
        ("host", plan.cost.host_peak, host_limit)
    };
    let limited = job.limits.device_memory.is_some() || job.limits.host_memory.is_some();
    let help = if limited { " (see [limits])" } else { "" };
    Err(PlanError::TooLarge { kind, needs, limit, largest, help })
}

fn attempt(job: &Job, caps: &Caps, options: &Options, sets_stay: bool) -> Result<Plan, PlanError> {
    let guard = if options.trust == Trust::Fast { 0 } else { GUARD_BYTES };
    let uses = classify::uses(job);
    let tensors = job
        .tensors
        .iter()
        .enumerate()
        .map(|(id, tensor)| {
            let of = uses[id];
            let (class, reason) = classify::class(job, id, of, sets_stay);
            let steps = of.first.map(|first| (first, of.last));
            Placement { name: tensor.name.clone(), bytes: tensor.bytes(), class, home: None, pristine: Vec::new(), reason, steps }
        })
        .collect();
    let mut draft = Draft {
        job,
        caps,
        uses,
        guard,
        tensors,
        memories: Vec::new(),
        setup: Vec::new(),
        setup_copies: Vec::new(),
        start: Vec::new(),
        poison: Vec::new(),
        zones: Vec::new(),
        fills: Vec::new(),
        reads: Vec::new(),
    };
    draft.place_pristine()?;
    draft.place_carried()?;
    draft.place_slot()?;
    draft.finish(options)
}

impl Draft<'_> {
    fn finish(mut self, options: &Options) -> Result<Plan, PlanError> {
        let job = self.job;
        let outputs: Vec<usize> = (0..self.tensors.len()).filter(|&id| self.tensors[id].class == Class::Output).collect();
        let output_bytes: u64 = outputs.iter().map(|&id| self.tensors[id].bytes).sum();
        let at_setup: Vec<Cmd> = if options.trust == Trust::Fast {
            let poison = |&id: &usize| {
                let word = trust::poison_of(job, id, 0);
                let home = self.tensors[id].home?;
                Some(Cmd::Fill { dst: slice(home, self.tensors[id].bytes), pattern: Word::Const(word.into()) })
            };
            outputs.iter().filter_map(poison).collect()
        } else {
            Vec::new()
        };
        let must_write = |id: usize| job.checks.iter().any(|c| c.written && c.tensor == id);
        let mut words: Vec<u32> = Vec::new();
        for id in outputs.into_iter().filter(|&id| options.trust != Trust::Fast || must_write(id)) {
            let word = trust::poison_of(job, id, 0);
            let at = words.iter().position(|of| *of == word).unwrap_or_else(|| {
                words.push(word);
                words.len() - 1
            });
            self.poison.push(Poisoned { tensor: id, var: (job.vars.len() + at) as u16, always: must_write(id) });
        }
        let mut cost = self.cost();
        let moved = cost.round_steps + cost.round_copied + cost.round_filled;
        cost.lower_bound_ns = (moved as f64 / self.caps.bytes_per_ns) as u64;
        let cheap = output_bytes * 20 <= moved;
        let stale_could_pass = self.poison.iter().any(|p| !classify::expected_anew(job, p.tensor));
        let modes = trust::modes(options.trust, output_bytes <= SMALL_OUTPUTS || cheap || stale_could_pass, output_bytes > 0);
        let sets = self.sets_on_device();
        let kinds = (0..sets.max(1)).flat_map(|set| modes.iter().map(move |mode| (set, mode)));
        let graphs = kinds.map(|(set, mode)| self.round_nodes(set, mode)).collect::<Result<Vec<_>, _>>()?;
        let widest = job.steps.iter().filter_map(|s| match &s.action {
            Action::Launch { grid, .. } => {
                Some(grid.iter().map(|g| if let Word::Const(n) = g { *n } else { 1 }).fold(1u64, u64::saturating_mul))
            }
            _ => None,
        });
        let load = Load {
            host_bytes: cost.round_upload + cost.round_download,
            device_bytes: moved,
            widest: widest.max().unwrap_or(1),
            rounds: job.runs(),
            alone: self.alone(options),
        };
        let schedule = self.schedule(options, &load)?;
        let slots = u64::from(schedule.slots) * u64::from(schedule.lanes);
        cost.device_peak = self.memories.iter().map(|m| m.bytes * if m.per_slot { slots } else { 1 }).sum();
        cost.allocs = self.memories.iter().map(|m| if m.per_slot { slots } else { 1 }).sum();
        cost.loads = job.kernels.len() as u64;
        let host_side = self.memories.iter().filter(|m| m.place != Place::Device).map(|m| m.bytes * if m.per_slot { slots } else { 1 });
        cost.host_peak = self.host_bytes() + host_side.sum::<u64>();
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
            setup: self.setup,
            setup_nodes: ordered(setup_nodes)?,
            start_nodes: ordered(self.start)?,
            poison_nodes: ordered(at_setup)?,
            graphs,
            sets,
            modes,
            poison: self.poison,
            zones: self.zones,
            fills: self.fills,
            reads: self.reads,
            rounds: Rounds {
                count: job.runs(),
                left_out: job.rounds.count - job.runs(),
                warmup: job.rounds.warmup,
                order: job.rounds.order,
            },
            cost,
            tensors: self.tensors,
            memories: self.memories,
        })
    }

    /// Why there can be one lane alone.
    fn alone(&self, options: &Options) -> Option<&'static str> {
        let carries = self.tensors.iter().any(|t| t.class == Class::Carried);
        match () {
            () if options.fresh => Some("fresh rounds come one after the other"),
            () if self.job.kernels.iter().any(|k| k.serial) => Some("a kernel is `serial`: it may not run twice at a time"),
            () if carries => Some("every round starts from what the one before it left in a carried tensor"),
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
        if options.host == Some(Host::Pool) || options.slots.is_some_and(|slots| slots > 1) {
            schedule.lanes = 1;
        }
        if let Some(slots) = options.slots.filter(|_| !options.fresh) {
            schedule.slots = slots.max(1);
            schedule.reason = format!("{} slots, as asked for or as memory allows", schedule.slots);
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
            schedule.reason =
                format!("{asked} and {}, as asked for or as memory allows", super::show::count(schedule.slots.into(), "slot"));
            if lanes > 1 {
                schedule.host = Host::Inline;
            }
        }
        let rounds = load.rounds;
        schedule.lanes = schedule.lanes.min(rounds.min(schedule::MOST_LANES) as u32).max(1);
        schedule.slots = schedule.slots.min(rounds.min(64) as u32).max(1);
        schedule.deal = schedule::deal(rounds, schedule.lanes);
        Ok(schedule)
    }

    /// Sets that have graphs of their own.
    fn sets_on_device(&self) -> u32 {
        let any = self
            .tensors
            .iter()
            .zip(&self.job.tensors)
            .any(|(p, t)| matches!(t.contents, Contents::Sets(_)) && matches!(p.class, Class::Resident | Class::Restored));
        if any { self.job.sets.len() as u32 } else { 0 }
    }

    fn cost(&self) -> Cost {
        let mut cost = Cost { setup_upload: self.setup.iter().map(|u| u.bytes).sum(), ..Cost::default() };
        cost.round_upload = self.fills.iter().map(|f| f.bytes).sum();
        cost.round_download = self.reads.iter().map(|r| r.bytes).sum();
        let mode = trust::modes(Trust::Fast, true, false)[0];
        for cmd in self.round(0, &mode) {
            match &cmd {
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

    /// What the host keeps: contents that are computed and what they are computed from; for expectations, copies of
    /// fixed contents and carried starts; and the scratch of programs.
    fn host_bytes(&self) -> u64 {
        let mut bytes = 0;
        for (id, tensor) in self.job.tensors.iter().enumerate() {
            if self.uses[id].computed {
                bytes += match &tensor.contents {
                    Contents::Sets(sources) => tensor.bytes() * sources.len() as u64,
                    Contents::Drawn(_) => tensor.bytes() * u64::from(self.caps.lanes),
                    _ => tensor.bytes(),
                };
            }
            if self.uses[id].expected {
                bytes += match &tensor.contents {
                    Contents::Sets(sources) => tensor.bytes() * sources.len() as u64,
                    Contents::Drawn(_) if self.tensors[id].class == Class::Streamed => 0,
                    _ if tensor.carry => 2 * tensor.bytes(),
                    _ => tensor.bytes(),
                };
            }
        }
        let programs = self.job.programs().map(|program| program.scratch_bytes(self.caps.lanes as usize));
        let goldens = self.job.checks.iter().flat_map(|c| &c.wants).map(|w| match w {
            Want::Bytes(bytes) => bytes.len() as u64,
            Want::Expr(_) | Want::File { .. } => 0,
        });
        let contents = self.job.tensors.iter().flat_map(|t| t.contents.programs()).map(|p| p.scratch_bytes(self.caps.lanes as usize));
        let sorted = self.job.checks.iter().map(|c| c.sorted_bytes(&self.job.tensors[c.tensor]));
        bytes + programs.sum::<u64>() + goldens.sum::<u64>() + sorted.sum::<u64>() + contents.sum::<u64>()
    }
}
