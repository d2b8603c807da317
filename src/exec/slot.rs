//! A slot: one set of buffers and graphs that a round occupies, from filling to checking; and the ring of slots.

use super::host::HostSide;
use super::session::{Session, broken, range};
use super::{HASHED, Stop, spaced};
use crate::device::{Device, DeviceError, Mapped, Mem, Point, Queue};
use crate::job::Job;
use crate::plan::{Home, Plan, Poisoned, Trust, poison_of};

/// One set of buffers, and the round that is in it.
pub(super) struct Slot {
    pub index: usize,
    pub round: u64,
    /// The place of the round among those that are run.
    pub nth: u64,
    pub set: u32,
    pub mode: usize,
    point: Option<Point>,
    /// The point of the round that was waited for.
    reached: Option<Point>,
    vars: Vec<u64>,
    /// By plan memory: the host bytes while they are lent.
    mapped: Vec<Option<Mapped>>,
    /// Memories that the host maps to fill, and to check.
    to_fill: Vec<u32>,
    to_read: Vec<u32>,
    /// By fill: a hash per [`HASHED`] elements of what was filled, for bytes that kernels are bound to.
    pub hashes: Vec<Vec<u64>>,
    /// By fill: what was filled, where the device has it spaced. No kernel reaches it.
    filled: Vec<Vec<u8>>,
    /// By read: what the round left, where the device has it spaced; see [`Slot::gather`].
    gathered: Vec<Vec<u8>>,
    /// Guard zones that the round wrote and that the device alone reaches.
    pub hit: Vec<usize>,
    /// Tensors whose bytes could not be fetched after a call failed.
    pub lost: Vec<usize>,
    pub phases: Phases,
}

/// Times of the round in a slot. *Units*: nanoseconds.
#[derive(Clone, Copy, Default)]
pub(super) struct Phases {
    pub fill: u64,
    pub run: u64,
}

impl Slot {
    fn new(index: usize, job: &Job, plan: &Plan) -> Slot {
        let memories = |ids: &mut dyn Iterator<Item = u32>| {
            let mut ids: Vec<u32> = ids.filter(|&id| plan.memories[id as usize].per_slot).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let hashed = plan.trust != Trust::Fast;
        let hashes = |fill: &crate::plan::Fill| {
            let hashes = job.tensors[fill.tensor].shape.elements().div_ceil(HASHED) as usize;
            vec![0; if fill.bound && hashed { hashes } else { 0 }]
        };
        let dense = |tensor: usize| vec![0; if plan.tensors[tensor].spaced { job.tensors[tensor].bytes() as usize } else { 0 }];
        // Expectations read what was uploaded, so those memories are mapped again to check.
        let read = plan
            .reads
            .iter()
            .map(|r| r.from.memory)
            .chain(plan.zones.iter().map(|z| z.read.memory))
            .chain(plan.fills.iter().map(|f| f.to.memory));
        Slot {
            index,
            round: 0,
            nth: 0,
            set: 0,
            mode: 0,
            point: None,
            reached: None,
            vars: vec![0; job.vars.len() + plan.poison.iter().map(|p| p.var as usize + 1 - job.vars.len()).max().unwrap_or(0)],
            mapped: plan.memories.iter().map(|_| None).collect(),
            to_fill: memories(&mut plan.fills.iter().map(|f| f.to.memory).chain(by_host(plan).map(|(_, home)| home.memory))),
            to_read: memories(&mut read.into_iter()),
            hashes: plan.fills.iter().map(hashes).collect(),
            filled: plan.fills.iter().map(|f| dense(f.tensor)).collect(),
            gathered: plan.reads.iter().map(|r| dense(r.tensor)).collect(),
            hit: Vec::new(),
            lost: Vec::new(),
            phases: Phases::default(),
        }
    }

    /// The host bytes of a plan's memory, while they are lent.
    pub fn bytes(&self, memory: u32) -> Option<&[u8]> {
        self.mapped[memory as usize].as_deref()
    }

    /// The bytes of a tensor that is read back, as the round left them.
    pub fn output(&self, plan: &Plan, tensor: usize) -> Option<&[u8]> {
        let at = plan.reads.iter().position(|r| r.tensor == tensor && !self.lost.contains(&tensor))?;
        let read = &plan.reads[at];
        let bytes = self.bytes(read.from.memory)?;
        Some(if self.gathered[at].is_empty() { &bytes[range(read.from, read.bytes)] } else { &self.gathered[at] })
    }

    /// The bytes of a tensor that the host filled for the round, as generated.
    pub fn input(&self, plan: &Plan, tensor: usize) -> Option<&[u8]> {
        let at = plan.fills.iter().position(|f| f.tensor == tensor)?;
        let fill = &plan.fills[at];
        if self.filled[at].is_empty() { Some(&self.bytes(fill.to.memory)?[range(fill.to, fill.bytes)]) } else { Some(&self.filled[at]) }
    }

    /// Closes up the rows of what the round left: before it is looked at, once the host has the bytes.
    pub fn gather(&mut self, plan: &Plan, parallel: bool) {
        for (read, gathered) in plan.reads.iter().zip(&mut self.gathered).filter(|(_, gathered)| !gathered.is_empty()) {
            if let Some(bytes) = self.mapped[read.from.memory as usize].as_deref() {
                spaced::gather(read.element as usize, &bytes[range(read.from, read.bytes)], gathered, parallel);
            }
        }
    }

    pub fn bytes_mut(&mut self, memory: u32) -> Option<&mut [u8]> {
        self.mapped[memory as usize].as_deref_mut()
    }

    fn map(&mut self, memory: u32, id: Mem, device: &mut dyn Device) -> Result<(), DeviceError> {
        let slot = &mut self.mapped[memory as usize];
        if slot.is_none() {
            *slot = Some(device.map(id)?);
        }
        Ok(())
    }

    /// Writes the round's inputs and variables.
    pub fn fill(&mut self, job: &Job, plan: &Plan, session: &Session, device: &mut dyn Device, host: &mut HostSide) -> Result<(), Stop> {
        self.set = host.set(self.round);
        self.mode = plan.mode(self.nth);
        let failed = |message: String| Stop::Device(DeviceError::Failed { node: None, call: "fill", message });
        for at in 0..self.to_fill.len() {
            let memory = self.to_fill[at];
            self.map(memory, session.memory(self.index, memory), device)?;
        }
        host.begin(job, self.set, self.round).map_err(failed)?;
        for (index, fill) in plan.fills.iter().enumerate() {
            let bytes = self.mapped[fill.to.memory as usize].as_deref_mut().ok_or_else(|| broken("a filled memory is not mapped"))?;
            let (bytes, filled) = (&mut bytes[range(fill.to, fill.bytes)], &mut self.filled[index]);
            let drawn = if filled.is_empty() { &mut *bytes } else { &mut filled[..] };
            host.draw(job, fill.tensor, self.set, self.round, drawn, &mut self.hashes[index]).map_err(failed)?;
            if !filled.is_empty() {
                spaced::spread(fill.element as usize, filled, bytes, host.parallel);
            }
        }
        for (index, var) in job.vars.iter().enumerate() {
            let mut problem = None;
            let mut element = |tensor| {
                host.element(job, tensor, self.set, self.round).unwrap_or_else(|message| {
                    problem = Some(message);
                    0
                })
            };
            let word =
                var.word(self.round, &mut element).map_err(|e| failed(format!("`{}` in round {}: {}", var.text, self.round, e.0)))?;
            if let Some(message) = problem {
                return Err(failed(message));
            }
            self.vars[index] = word;
        }
        for poisoned in &plan.poison {
            self.vars[poisoned.var as usize] = poison_of(job, poisoned.tensor, self.round).into();
        }
        for (poisoned, home) in by_host(plan) {
            let bytes = self.mapped[home.memory as usize].as_deref_mut().ok_or_else(|| broken("a poisoned memory is not mapped"))?;
            let tensor = &mut bytes[range(home, plan.tensors[poisoned.tensor].bytes)];
            let part = poisoned.range(tensor.len() as u64, &plan.modes[self.mode]);
            let word = (self.vars[poisoned.var as usize] as u32).to_le_bytes();
            let mut words = tensor[part.start as usize..part.end as usize].chunks_exact_mut(word.len());
            words.by_ref().for_each(|bytes| bytes.copy_from_slice(&word));
            let rest = words.into_remainder();
            rest.copy_from_slice(&word[..rest.len()]);
        }
        Ok(())
    }

    /// Gives the host bytes back to the device.
    fn release(&mut self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let mut result = Ok(());
        for bytes in self.mapped.iter_mut().filter_map(Option::take) {
            result = result.and(device.unmap(bytes));
        }
        result
    }

    /// Hands the slot's memories to the device and submits the round, to run after `after`.
    pub fn submit(
        &mut self,
        job: &Job,
        plan: &Plan,
        session: &Session,
        device: &mut dyn Device,
        after: Option<Point>,
    ) -> Result<Point, Stop> {
        self.release(device)?;
        let graph = session.graphs[self.index][plan.graph(self.set, self.mode)];
        // With one slot nothing else is to be done meanwhile: the round runs in this thread.
        let queue = if plan.schedule.slots == 1 { Queue(0) } else { Queue(self.index as u32 + 1) };
        let point = device.replay(queue, after.as_slice(), graph, &self.vars);
        let point = point.map_err(|error| self.located(job, plan, error))?;
        self.point = Some(point);
        Ok(point)
    }

    /// The error of the round in the slot with the step that failed, where the device tells the node.
    pub fn located(&self, job: &Job, plan: &Plan, error: DeviceError) -> DeviceError {
        let mut error = error;
        if let DeviceError::Failed { node: Some(node), message, .. } | DeviceError::Lost { node: Some(node), message } = &mut error {
            let nodes = plan.graphs.get(plan.graph(self.set, self.mode)).map_or(0, Vec::len);
            let place = plan.at_node(job, self.mode, nodes, *node as usize);
            message.push_str(&format!("; {place}"));
        }
        error
    }

    /// Waits for the round.
    pub fn wait(&mut self, device: &mut dyn Device) -> Result<(), DeviceError> {
        self.reached = self.point.take();
        self.reached.map_or(Ok(()), |point| device.wait(point))
    }

    /// The point of the round that was waited for.
    pub fn reached(&self) -> Option<Point> {
        self.reached
    }

    /// Takes the bytes that a check reads.
    pub fn take(&mut self, session: &Session, device: &mut dyn Device) -> Result<(), DeviceError> {
        for at in 0..self.to_read.len() {
            self.take_one(self.to_read[at], session, device)?;
        }
        Ok(())
    }

    /// Takes the bytes of one memory, where the slot has it of its own.
    pub fn take_one(&mut self, memory: u32, session: &Session, device: &mut dyn Device) -> Result<(), DeviceError> {
        match self.to_read.contains(&memory) {
            true => self.map(memory, session.memory(self.index, memory), device),
            false => Ok(()),
        }
    }
}

/// What the host poisons, and where.
fn by_host(plan: &Plan) -> impl Iterator<Item = (&Poisoned, Home)> {
    plan.poison.iter().filter(|p| p.by_host).filter_map(|p| Some((p, plan.tensors[p.tensor].home?)))
}

/// Slots in the order in which rounds take them.
pub(super) struct Ring {
    slots: Vec<Slot>,
    next: usize,
    in_flight: usize,
    /// The round that was submitted last.
    pub last: Option<Point>,
}

impl Ring {
    pub fn new(job: &Job, plan: &Plan) -> Ring {
        let slots = (0..plan.schedule.slots as usize).map(|index| Slot::new(index, job, plan)).collect();
        Ring { slots, next: 0, in_flight: 0, last: None }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The first round takes slot 0 again. Nothing is in flight.
    pub fn restart(&mut self) {
        self.next = 0;
    }

    /// A free slot, now taken by a round.
    pub fn next(&mut self, nth: u64, round: u64) -> &mut Slot {
        let at = self.next;
        self.next = (at + 1) % self.slots.len();
        self.in_flight += 1;
        let slot = &mut self.slots[at];
        (slot.nth, slot.round) = (nth, round);
        slot
    }

    /// The slot whose round was submitted first.
    pub fn oldest(&mut self) -> &mut Slot {
        let at = (self.next + self.slots.len() - self.in_flight) % self.slots.len();
        &mut self.slots[at]
    }

    pub fn free_oldest(&mut self) {
        self.in_flight -= 1;
    }

    /// What is in flight.
    pub fn flying(&self) -> Vec<Point> {
        (1..=self.in_flight).filter_map(|age| self.slots[(self.next + self.slots.len() - age) % self.slots.len()].point).collect()
    }

    /// The slot that `next` gave last is free again: its round was not submitted.
    pub fn give_back(&mut self) {
        self.next = (self.next + self.slots.len() - 1) % self.slots.len();
        self.in_flight -= 1;
    }

    /// Gives all host bytes back to the device: what is still lent cannot be freed.
    pub fn release(&mut self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let mut result = Ok(());
        for slot in &mut self.slots {
            result = result.and(slot.release(device));
        }
        result
    }
}
