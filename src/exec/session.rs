//! Set-up: memories allocated, contents uploaded, kernels loaded, graphs recorded; and carried tensors put at their start.

use std::cell::Cell;
use std::ops::Range;

use super::build::Building;
use super::host::HostSide;
use super::progress::{Phase, Progress};
use crate::device::{Arg, Cmd, Device, DeviceError, Graph, Kernel, Mem, Node, Place, Point, Queue, Result, Slice};
use crate::job::Job;
use crate::plan::{Class, Home, Plan, Zone, guard_bytes};

/// What a plan has become on a device.
pub(super) struct Session {
    /// Device ids by slot and plan memory; memories that all slots share have one id.
    memories: Vec<Vec<Mem>>,
    /// By slot: the graphs of the plan.
    pub graphs: Vec<Vec<Graph>>,
    start: Vec<Node>,
    /// By slot.
    poison: Vec<Vec<Node>>,
    /// All slots write the same carried tensors, so every round waits for the one before it.
    pub carries: bool,
    /// A memory that holds the guard pattern, once one had to be put back.
    pattern: Cell<Option<Mem>>,
}

impl Session {
    /// Allocates, uploads, loads and records. On an error, `reset` of the device frees what was made.
    pub fn open(
        job: &Job,
        plan: &Plan,
        device: &mut dyn Device,
        kernels: &mut Building,
        host: &mut HostSide,
        progress: &Progress,
    ) -> Result<Session> {
        let slots = plan.schedule.slots as usize;
        let mut memories: Vec<Vec<Mem>> = vec![Vec::with_capacity(plan.memories.len()); slots];
        for memory in &plan.memories {
            if memory.per_slot {
                for slot in &mut memories {
                    slot.push(device.alloc(memory.place, memory.bytes)?);
                }
            } else {
                let id = device.alloc(memory.place, memory.bytes)?;
                memories.iter_mut().for_each(|slot| slot.push(id));
            }
        }
        let mut session =
            Session { memories, graphs: Vec::new(), start: Vec::new(), poison: Vec::new(), carries: false, pattern: Cell::new(None) };
        session.upload(job, plan, device, kernels, host, progress)?;
        let kernels = &kernels.load(job, device, progress)?;
        progress.enter(Phase::Setup, 0);
        let set_up: Vec<Vec<Node>> = (0..slots).map(|slot| session.translate(&plan.setup_nodes, slot, kernels)).collect();
        for (slot, nodes) in set_up.iter().enumerate() {
            // Memories that all slots share are set up once, with the first.
            let nodes: Vec<Node> = if slot == 0 { nodes.clone() } else { own(plan, &plan.setup_nodes, nodes) };
            if !nodes.is_empty() {
                let point = device.submit(Queue(0), &[], &nodes)?;
                device.wait(point)?;
            }
        }
        for slot in 0..slots {
            let graphs =
                plan.graphs.iter().map(|nodes| device.record(&session.translate(nodes, slot, kernels))).collect::<Result<Vec<_>>>()?;
            session.graphs.push(graphs);
        }
        session.carries = slots > 1 && plan.tensors.iter().any(|t| t.class == Class::Carried);
        session.start = session.translate(&plan.start_nodes, 0, kernels);
        session.poison = (0..slots).map(|slot| session.translate(&plan.poison_nodes, slot, kernels)).collect();
        Ok(session)
    }

    fn upload(
        &mut self,
        job: &Job,
        plan: &Plan,
        device: &mut dyn Device,
        kernels: &Building,
        host: &mut HostSide,
        progress: &Progress,
    ) -> Result<()> {
        for (id, memory) in plan.memories.iter().enumerate() {
            if memory.per_slot || !plan.setup.iter().any(|u| u.to.memory == id as u32) {
                continue;
            }
            let mut bytes = device.map(self.memories[0][id])?;
            if memory.place == Place::ReadOnly {
                bytes.iter_mut().zip(guard_bytes(0)).for_each(|(byte, guard)| *byte = guard);
            }
            for upload in plan.setup.iter().filter(|u| u.to.memory == id as u32) {
                kernels.check(progress)?;
                progress.enter(Phase::Setup, 0);
                let range = range(upload.to, upload.bytes);
                host.generate(job, upload.tensor, upload.set, &mut bytes[range]);
            }
            device.unmap(bytes)?;
        }
        Ok(())
    }

    /// Puts carried tensors at their start, and poison where a level has it once. Nothing is in flight.
    pub fn start(&self, device: &mut dyn Device) -> Result<()> {
        for nodes in [&self.start].into_iter().chain(&self.poison).filter(|nodes| !nodes.is_empty()) {
            let point = device.submit(Queue(0), &[], nodes)?;
            device.wait(point)?;
        }
        Ok(())
    }

    /// Puts the pattern back into guard zones of a slot that only the device reaches.
    pub fn restore_guards(&self, plan: &Plan, device: &mut dyn Device, slot: usize, zones: &[usize], after: &[Point]) -> Result<()> {
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

    fn slice(&self, slot: usize, slice: Slice) -> Slice {
        Slice { mem: self.memory(slot, slice.mem.0), ..slice }
    }

    /// A plan's nodes with the ids of a slot.
    fn translate(&self, nodes: &[Node], slot: usize, kernels: &[Kernel]) -> Vec<Node> {
        let cmd = |cmd: &Cmd| match cmd {
            Cmd::Copy { src, dst } => Cmd::Copy { src: self.slice(slot, *src), dst: self.slice(slot, *dst) },
            Cmd::Fill { dst, pattern } => Cmd::Fill { dst: self.slice(slot, *dst), pattern: *pattern },
            Cmd::Launch { kernel, grid, args } => Cmd::Launch {
                kernel: kernels[kernel.0 as usize],
                grid: *grid,
                args: args
                    .iter()
                    .map(|arg| match arg {
                        Arg::In(s) => Arg::In(self.slice(slot, *s)),
                        Arg::Out(s) => Arg::Out(self.slice(slot, *s)),
                        Arg::Inout(s) => Arg::Inout(self.slice(slot, *s)),
                        Arg::Scalar(word) => Arg::Scalar(*word),
                    })
                    .collect(),
            },
        };
        nodes.iter().map(|node| Node { cmd: cmd(&node.cmd), after: node.after.clone() }).collect()
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
                    None => host.generate(job, id, 0, &mut bytes),
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

/// Of a slot's nodes, those that write memories of its own.
fn own(plan: &Plan, of_plan: &[Node], translated: &[Node]) -> Vec<Node> {
    let per_slot = |node: &Node| match &node.cmd {
        Cmd::Copy { dst, .. } | Cmd::Fill { dst, .. } => plan.memories[dst.mem.0 as usize].per_slot,
        Cmd::Launch { .. } => false,
    };
    // Fills of memories of their own wait for nothing.
    of_plan
        .iter()
        .zip(translated)
        .filter(|(plan, _)| per_slot(plan))
        .map(|(_, node)| Node { cmd: node.cmd.clone(), after: Vec::new() })
        .collect()
}

/// The bytes of a home within its memory.
pub(super) fn range(home: Home, bytes: u64) -> Range<usize> {
    home.offset as usize..(home.offset + bytes) as usize
}

/// A device error for what the plan promises and the session does not hold.
pub(super) fn broken(message: &str) -> DeviceError {
    DeviceError::Failed { node: None, call: "plan", message: message.to_string() }
}
