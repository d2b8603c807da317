//! Set-up: memories allocated, contents uploaded, kernels loaded once for all lanes; graphs recorded in each; and carried
//! tensors put at their start.

use std::cell::Cell;
use std::ops::Range;

use super::build::Building;
use super::host::{HostSide, Known};
use super::progress::{Phase, Progress};
use crate::device::{Arg, Cmd, Device, DeviceError, Graph, Kernel, Mem, Node, Place, Point, Queue, Result, Slice};
use crate::job::Job;
use crate::plan::{Class, Home, Plan, Zone, guard_bytes};

/// What all lanes of a plan have in common on a device: kernels, and memories that hold what no round changes.
pub(super) struct Shared {
    kernels: Vec<Kernel>,
    /// Device ids by plan memory; `None` for those that every slot has of its own.
    memories: Vec<Option<Mem>>,
}

/// What a plan has become in one lane.
pub(super) struct Session {
    /// Device ids by slot and plan memory; memories that all slots share have one id.
    memories: Vec<Vec<Mem>>,
    /// By slot: the graphs of the plan.
    pub graphs: Vec<Vec<Graph>>,
    kernels: Vec<Kernel>,
    start: Vec<Node>,
    /// By slot.
    poison: Vec<Vec<Node>>,
    /// All slots write the same carried tensors, so every round waits for the one before it.
    pub carries: bool,
    /// A memory that holds the guard pattern, once one had to be put back.
    pattern: Cell<Option<Mem>>,
}

impl Shared {
    /// Allocates and uploads what is set up once, while kernels are built, and loads them. On an error, `reset` of the
    /// device frees what was made.
    pub fn open(
        job: &Job,
        plan: &Plan,
        device: &mut dyn Device,
        kernels: &mut Building,
        known: &Known,
        progress: &Progress,
    ) -> Result<Shared> {
        let mut shared = Shared { kernels: Vec::new(), memories: Vec::with_capacity(plan.memories.len()) };
        for memory in &plan.memories {
            shared.memories.push(if memory.per_slot { None } else { Some(alloc(plan, device, shared.memories.len())?) });
        }
        for (id, memory) in plan.memories.iter().enumerate() {
            let Some(mem) = shared.memories[id].filter(|_| plan.setup.iter().any(|u| u.to.memory == id as u32)) else { continue };
            let mut bytes = device.map(mem)?;
            if memory.place == Place::ReadOnly {
                bytes.iter_mut().zip(guard_bytes(0)).for_each(|(byte, guard)| *byte = guard);
            }
            for upload in plan.setup.iter().filter(|u| u.to.memory == id as u32) {
                kernels.check(progress)?;
                progress.enter(Phase::Setup, 0);
                let range = range(upload.to, upload.bytes);
                known.generate_for_device(job, upload.tensor, upload.set, &mut bytes[range]);
            }
            device.unmap(bytes)?;
        }
        shared.kernels = kernels.load(job, device, progress)?;
        progress.enter(Phase::Setup, 0);
        let memories: Vec<Mem> = shared.memories.iter().map(|mem| mem.unwrap_or(Mem(u32::MAX))).collect();
        run(device, &translate(&written(plan, &plan.setup_nodes, false), &memories, &shared.kernels))?;
        Ok(shared)
    }
}

impl Session {
    /// Allocates and records what a lane has of its own. On an error, `reset` of the device frees what was made.
    pub fn open(plan: &Plan, device: &mut dyn Device, shared: &Shared) -> Result<Session> {
        let slots = plan.schedule.slots as usize;
        let kernels = &shared.kernels;
        let mut memories: Vec<Vec<Mem>> = vec![Vec::with_capacity(plan.memories.len()); slots];
        for (id, common) in shared.memories.iter().enumerate() {
            for slot in &mut memories {
                slot.push(match common {
                    Some(mem) => *mem,
                    None => alloc(plan, device, id)?,
                });
            }
        }
        let own = written(plan, &plan.setup_nodes, true);
        for memories in &memories {
            run(device, &translate(&own, memories, kernels))?;
        }
        let mut graphs = Vec::with_capacity(slots);
        for memories in &memories {
            graphs.push(plan.graphs.iter().map(|nodes| device.record(&translate(nodes, memories, kernels))).collect::<Result<Vec<_>>>()?);
        }
        Ok(Session {
            graphs,
            carries: slots > 1 && plan.tensors.iter().any(|t| t.class == Class::Carried),
            start: translate(&plan.start_nodes, &memories[0], kernels),
            poison: memories.iter().map(|memories| translate(&plan.poison_nodes, memories, kernels)).collect(),
            memories,
            kernels: kernels.clone(),
            pattern: Cell::new(None),
        })
    }

    /// Records nodes of a plan for a slot, beside its graphs.
    pub fn record(&self, device: &mut dyn Device, slot: usize, nodes: &[Node]) -> Result<Graph> {
        device.record(&translate(nodes, &self.memories[slot], &self.kernels))
    }

    /// Puts carried tensors at their start, and poison where a level has it once. Nothing is in flight.
    pub fn start(&self, device: &mut dyn Device) -> Result<()> {
        [&self.start].into_iter().chain(&self.poison).try_for_each(|nodes| run(device, nodes))
    }

    /// Puts the pattern back into guard zones of a round of a slot that only the device reaches.
    pub fn restore_guards(
        &self,
        plan: &Plan,
        device: &mut dyn Device,
        (slot, position): (usize, u32),
        zones: &[usize],
        after: &[Point],
    ) -> Result<()> {
        let pattern = match self.pattern.get() {
            Some(pattern) => pattern,
            None => {
                let longest = plan.zones.iter().map(|z| z.bytes).max().unwrap_or(0);
                let pattern = device.alloc(Place::Upload, longest + 4)?;
                let mut bytes = device.map(pattern)?;
                bytes.iter_mut().zip(guard_bytes(0)).for_each(|(byte, guard)| *byte = guard);
                device.unmap(bytes)?;
                self.pattern.set(Some(pattern));
                pattern
            }
        };
        let copy = |&zone: &usize| {
            let Zone { at, bytes, .. } = &plan.zones[zone];
            let at = plan.at(*at, position);
            // A copy, as fills start at whole words and guards where a tensor ends.
            let src = Slice { mem: pattern, offset: at.offset % 4, len: *bytes };
            let dst = Slice { mem: self.memory(slot, at.memory), offset: at.offset, len: *bytes };
            Node { cmd: Cmd::Copy { src, dst }, after: Vec::new() }
        };
        let nodes: Vec<Node> = zones.iter().map(copy).collect();
        let point = device.submit(Queue(0), after, &nodes)?;
        device.wait(point)
    }

    /// Device id of a plan's memory in a slot.
    pub fn memory(&self, slot: usize, memory: u32) -> Mem {
        self.memories[slot][memory as usize]
    }

    /// Reads carried tensors into the host's keeping, before a fresh round's tear-down.
    pub fn keep_carried(&self, device: &mut dyn Device, job: &Job, plan: &Plan, host: &mut HostSide) -> Result<()> {
        self.exchange_carried(device, job, plan, host, true)
    }

    /// Puts carried tensors back where a fresh round's predecessor left them.
    pub fn put_carried(&self, device: &mut dyn Device, job: &Job, plan: &Plan, host: &mut HostSide) -> Result<()> {
        if host.kept.is_empty() { Ok(()) } else { self.exchange_carried(device, job, plan, host, false) }
    }

    fn exchange_carried(&self, device: &mut dyn Device, job: &Job, plan: &Plan, host: &mut HostSide, keep: bool) -> Result<()> {
        let place = if device.caps().unified {
            Place::Shared
        } else if keep {
            Place::Readback
        } else {
            Place::Upload
        };
        for (id, placement) in plan.tensors.iter().enumerate().filter(|(_, p)| p.class == Class::Carried) {
            let Some(home) = placement.home else { continue };
            let bounce = device.alloc(place, placement.bytes)?;
            let there = Slice { mem: self.memory(0, home.memory), offset: home.offset, len: placement.bytes };
            let here = Slice { mem: bounce, offset: 0, len: placement.bytes };
            if !keep {
                let mut bytes = device.map(bounce)?;
                match host.kept.iter().find(|(tensor, _)| *tensor == id) {
                    Some((_, kept)) => bytes.copy_from_slice(kept),
                    None => host.known.generate_for_device(job, id, 0, &mut bytes),
                }
                device.unmap(bytes)?;
            }
            let (src, dst) = if keep { (there, here) } else { (here, there) };
            let point = device.submit(Queue(0), &[], &[Node { cmd: Cmd::Copy { src, dst }, after: Vec::new() }])?;
            device.wait(point)?;
            if keep {
                let bytes = device.map(bounce)?;
                host.kept.retain(|(tensor, _)| *tensor != id);
                host.kept.push((id, bytes.to_vec()));
                device.unmap(bytes)?;
            }
        }
        Ok(())
    }
}

/// Allocates a memory of a plan. *Errors*: where memory is short, with what the plan puts there and what would fit.
fn alloc(plan: &Plan, device: &mut dyn Device, id: usize) -> Result<Mem> {
    let memory = &plan.memories[id];
    device.alloc(memory.place, memory.bytes).map_err(|error| match error {
        DeviceError::OutOfMemory { place, bytes, available, what } => {
            let caps = device.caps();
            let copies = if memory.per_slot { plan.schedule.slots * plan.schedule.lanes } else { 1 };
            let each = if copies > 1 { format!(", one of {copies} alike") } else { String::new() };
            let before = if what.is_empty() { what } else { format!("{what}; ") };
            let what = format!(
                "{before}it is memory `{}`{each}, for {}; of all memories the job needs {} bytes, the device has {} and {} for one",
                memory.name,
                plan.held_in(id as u32),
                plan.allocated(),
                caps.memory,
                caps.largest_alloc
            );
            DeviceError::OutOfMemory { place, bytes, available, what }
        }
        other => other,
    })
}

/// Runs nodes and waits for them.
fn run(device: &mut dyn Device, nodes: &[Node]) -> Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let point = device.submit(Queue(0), &[], nodes)?;
    device.wait(point)
}

/// Of a plan's nodes, those that write memories of a slot's own, or those that write memories that all slots share. Nodes
/// of the one kind wait for none of the other: what is set up in one does not depend on what is in the other.
fn written(plan: &Plan, nodes: &[Node], per_slot: bool) -> Vec<Node> {
    let mut kept = Vec::new();
    let mut places: Vec<Option<u32>> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let keep = match &node.cmd {
            Cmd::Copy { dst, .. } | Cmd::Fill { dst, .. } => plan.memories[dst.mem.0 as usize].per_slot == per_slot,
            Cmd::Launch { .. } => !per_slot,
        };
        places.push(keep.then_some(kept.len() as u32));
        if keep {
            let after = node.after.iter().filter_map(|&at| places[at as usize]).collect();
            kept.push(Node { cmd: node.cmd.clone(), after });
        }
    }
    kept
}

/// A plan's nodes with the ids of a device.
fn translate(nodes: &[Node], memories: &[Mem], kernels: &[Kernel]) -> Vec<Node> {
    let slice = |slice: &Slice| Slice { mem: memories[slice.mem.0 as usize], ..*slice };
    let cmd = |cmd: &Cmd| match cmd {
        Cmd::Copy { src, dst } => Cmd::Copy { src: slice(src), dst: slice(dst) },
        Cmd::Fill { dst, pattern } => Cmd::Fill { dst: slice(dst), pattern: *pattern },
        Cmd::Launch { kernel, grid, offset, args } => Cmd::Launch {
            kernel: kernels[kernel.0 as usize],
            grid: *grid,
            offset: *offset,
            args: args
                .iter()
                .map(|arg| match arg {
                    Arg::In(s) => Arg::In(slice(s)),
                    Arg::Out(s) => Arg::Out(slice(s)),
                    Arg::Inout(s) => Arg::Inout(slice(s)),
                    by_value @ (Arg::Scalar(_) | Arg::Struct(_) | Arg::Null) => by_value.clone(),
                })
                .collect(),
        },
    };
    nodes.iter().map(|node| Node { cmd: cmd(&node.cmd), after: node.after.clone() }).collect()
}

/// The bytes of a home within its memory.
pub(super) fn range(home: Home, bytes: u64) -> Range<usize> {
    home.offset as usize..(home.offset + bytes) as usize
}

/// A device error for what the plan promises and the session does not hold.
pub(super) fn broken(message: &str) -> DeviceError {
    DeviceError::Failed { node: None, call: "plan", message: message.to_string() }
}
