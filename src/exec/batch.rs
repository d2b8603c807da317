//! A batch: one set of buffers and graphs with the rounds in it, which are submitted together; and the ring of batches.

use super::Stop;
use super::host::HostSide;
use super::progress::{LaneProgress, Phase};
use super::session::{Session, broken};
use super::slot::{Slot, by_host};
use crate::device::{Device, DeviceError, Part, Point, Queue};
use crate::job::Job;
use crate::plan::{Plan, poison_of};

/// One set of buffers, and the rounds that are in it.
pub(super) struct Batch {
    pub index: usize,
    /// As many as a whole batch has rounds.
    slots: Vec<Slot>,
    /// Of them, so many have a round.
    rounds: usize,
    point: Option<Point>,
    /// The point of the rounds that were waited for.
    reached: Option<Point>,
    /// Those of every round, then those of poison.
    vars: Vec<u64>,
    /// Memories that the host maps to fill, and to check.
    to_fill: Vec<u32>,
    to_read: Vec<u32>,
    pub phases: Phases,
}

/// Times of the rounds of a batch. *Units*: nanoseconds.
#[derive(Clone, Copy, Default)]
pub(super) struct Phases {
    pub fill: u64,
    pub run: u64,
}

impl Batch {
    fn new(index: usize, job: &Job, plan: &Plan) -> Batch {
        let memories = |ids: &mut dyn Iterator<Item = u32>| {
            let mut ids: Vec<u32> = ids.filter(|&id| plan.memories[id as usize].per_slot).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        // Expectations read what was uploaded, so those memories are mapped again to check.
        let read = plan
            .reads
            .iter()
            .map(|r| r.from.memory)
            .chain(plan.zones.iter().map(|z| z.read.memory))
            .chain(plan.fills.iter().map(|f| f.to.memory));
        let rounds = plan.schedule.batch.max(1);
        let own = rounds as usize * job.vars.len();
        Batch {
            index,
            slots: (0..rounds).map(|position| Slot::new(position, job, plan)).collect(),
            rounds: 0,
            point: None,
            reached: None,
            vars: vec![0; plan.poison.iter().map(|p| p.var as usize + 1).max().unwrap_or(0).max(own)],
            to_fill: memories(&mut plan.fills.iter().map(|f| f.to.memory).chain(by_host(plan).map(|(_, home)| home.memory))),
            to_read: memories(&mut read.into_iter()),
            phases: Phases::default(),
        }
    }

    /// The rounds in it.
    pub fn slots(&mut self) -> &mut [Slot] {
        &mut self.slots[..self.rounds]
    }

    /// How many rounds are in it.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// The place of its first round among those that are run.
    pub fn nth(&self) -> u64 {
        self.slots[0].nth
    }

    /// The number of its first round.
    pub fn round(&self) -> u64 {
        self.slots[0].round
    }

    /// Takes so many rounds from the `nth` on.
    fn begin(&mut self, plan: &Plan, host: &mut HostSide, nth: u64, rounds: usize) {
        self.rounds = rounds.min(self.slots.len());
        // They have the same poison.
        let turn = plan.turn(nth, host.round(nth));
        for (nth, slot) in (nth..).zip(&mut self.slots[..self.rounds]) {
            (slot.nth, slot.round, slot.turn) = (nth, host.round(nth), turn);
        }
    }

    /// Takes the host bytes of a memory, a part for every slot.
    fn map(&mut self, memory: u32, plan: &Plan, session: &Session, device: &mut dyn Device) -> Result<(), DeviceError> {
        let at = memory as usize;
        if self.slots[0].mapped[at].is_some() {
            return Ok(());
        }
        let mut rest = Part::from(device.map(session.memory(self.index, memory))?);
        let last = self.slots.len() - 1;
        for slot in &mut self.slots[..last] {
            let (own, behind) = rest.split(plan.memories[at].stride as usize);
            slot.mapped[at] = Some(own);
            rest = behind;
        }
        self.slots[last].mapped[at] = Some(rest);
        Ok(())
    }

    /// Writes the inputs and variables of all its rounds. After an error it has the rounds before the one that it is of.
    pub fn fill(
        &mut self,
        job: &Job,
        plan: &Plan,
        session: &Session,
        device: &mut dyn Device,
        host: &mut HostSide,
        at: &LaneProgress,
    ) -> Result<(), Stop> {
        let rounds = std::mem::take(&mut self.rounds);
        for index in 0..self.to_fill.len() {
            self.map(self.to_fill[index], plan, session, device)?;
        }
        let vars = job.vars.len();
        for (position, slot) in self.slots[..rounds].iter_mut().enumerate() {
            if position > 0 {
                at.enter(Phase::Prepare, slot.round);
            }
            slot.fill(job, plan, host, &mut self.vars[position * vars..(position + 1) * vars])?;
            self.rounds = position + 1;
        }
        for poisoned in &plan.poison {
            self.vars[poisoned.var as usize] = poison_of(job, poisoned.tensor, self.slots[0].turn).into();
        }
        Ok(())
    }

    /// Gives the host bytes back to the device.
    fn release(&mut self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let mut result = Ok(());
        let memories = self.slots[0].mapped.len();
        for memory in 0..memories {
            let mut parts = self.slots.iter_mut().filter_map(|slot| slot.mapped[memory].take());
            let Some(first) = parts.next() else { continue };
            let all = parts.try_fold(first, |all, part| all.join(part).map_err(|(all, _)| all)).and_then(Part::whole);
            result = result.and(match all {
                Ok(bytes) => device.unmap(bytes),
                Err(_) => Err(broken("a part of a lent memory is missing")),
            });
        }
        result
    }

    /// Hands the memories to the device and submits the rounds, to run after `after`.
    pub fn submit(
        &mut self,
        job: &Job,
        plan: &Plan,
        session: &Session,
        device: &mut dyn Device,
        after: Option<Point>,
    ) -> Result<Point, Stop> {
        self.release(device)?;
        let Slot { set, mode, .. } = self.slots[0];
        let rounds = self.rounds as u32;
        let graph = match session.graphs[self.index].get(plan.graph(rounds, set, mode)) {
            Some(&graph) => graph,
            // Only where the next round cannot be filled.
            None => session.record(device, self.index, &plan.first_rounds(rounds, set, mode))?,
        };
        // With one slot nothing else is to be done meanwhile: the round runs in this thread.
        let queue = if plan.schedule.slots == 1 { Queue(0) } else { Queue(self.index as u32 + 1) };
        let point = device.replay(queue, after.as_slice(), graph, &self.vars);
        let point = point.map_err(|error| self.located(job, plan, error))?;
        self.point = Some(point);
        Ok(point)
    }

    /// The error of the rounds in the batch with the round and the step that failed, where the device tells the node.
    pub fn located(&self, job: &Job, plan: &Plan, error: DeviceError) -> DeviceError {
        let Slot { set, mode, .. } = self.slots[0];
        let mut error = error;
        if let DeviceError::Failed { node, message, .. } | DeviceError::Lost { node, message } = &mut error {
            let place = match *node {
                Some(node) => {
                    let nodes = plan.node_count(self.rounds as u32, set, mode);
                    let (position, own) = plan.round_of(self.rounds as u32, nodes, node as usize);
                    let place = plan.at_node(job, mode, nodes / self.rounds.max(1), own);
                    match self.slots.get(position as usize) {
                        Some(slot) => format!("; in round {}, {place}", slot.round),
                        None => format!("; {place}"),
                    }
                }
                None if self.rounds > 1 => format!("; in one of rounds {} to {}", self.slots[0].round, self.slots[self.rounds - 1].round),
                None => String::new(),
            };
            message.push_str(&place);
        }
        error
    }

    /// Waits for the rounds.
    pub fn wait(&mut self, device: &mut dyn Device) -> Result<(), DeviceError> {
        self.reached = self.point.take();
        self.reached.map_or(Ok(()), |point| device.wait(point))
    }

    /// The point of the rounds that were waited for.
    pub fn reached(&self) -> Option<Point> {
        self.reached
    }

    /// Which of the plan's graphs its rounds are.
    pub fn graph(&self, plan: &Plan) -> Option<usize> {
        let Slot { set, mode, .. } = self.slots[0];
        Some(plan.graph(self.rounds as u32, set, mode)).filter(|&graph| graph < plan.graphs.len())
    }

    /// Takes the bytes that checks read.
    pub fn take(&mut self, plan: &Plan, session: &Session, device: &mut dyn Device) -> Result<(), DeviceError> {
        for at in 0..self.to_read.len() {
            self.take_one(self.to_read[at], plan, session, device)?;
        }
        Ok(())
    }

    /// Takes the bytes of one memory, where the batch has it of its own.
    pub fn take_one(&mut self, memory: u32, plan: &Plan, session: &Session, device: &mut dyn Device) -> Result<(), DeviceError> {
        match self.to_read.contains(&memory) {
            true => self.map(memory, plan, session, device),
            false => Ok(()),
        }
    }
}

/// Batches in the order in which rounds take them.
pub(super) struct Ring {
    batches: Vec<Batch>,
    next: usize,
    in_flight: usize,
    /// Rounds that are in the batches in flight.
    rounds: usize,
    /// The batch that was submitted last.
    pub last: Option<Point>,
}

impl Ring {
    pub fn new(job: &Job, plan: &Plan) -> Ring {
        let batches = (0..plan.schedule.slots as usize).map(|index| Batch::new(index, job, plan)).collect();
        Ring { batches, next: 0, in_flight: 0, rounds: 0, last: None }
    }

    pub fn len(&self) -> usize {
        self.batches.len()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Rounds in flight.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// The first rounds take batch 0 again. Nothing is in flight.
    pub fn restart(&mut self) {
        self.next = 0;
    }

    /// A free batch, now taken by so many rounds from the `nth` on.
    pub fn next(&mut self, plan: &Plan, host: &mut HostSide, nth: u64, rounds: usize) -> &mut Batch {
        let at = self.next;
        self.next = (at + 1) % self.batches.len();
        self.in_flight += 1;
        let batch = &mut self.batches[at];
        batch.begin(plan, host, nth, rounds);
        self.rounds += batch.rounds;
        batch
    }

    /// The batch whose rounds were submitted first.
    pub fn oldest(&mut self) -> &mut Batch {
        let at = (self.next + self.batches.len() - self.in_flight) % self.batches.len();
        &mut self.batches[at]
    }

    pub fn free_oldest(&mut self) {
        self.rounds -= self.oldest().rounds.min(self.rounds);
        self.in_flight -= 1;
    }

    /// Of the batch that `next` gave last, fewer rounds were submitted than it was given.
    pub fn cut(&mut self, given: usize, submitted: usize) {
        self.rounds -= (given - submitted).min(self.rounds);
    }

    /// What is in flight.
    pub fn flying(&self) -> Vec<Point> {
        (1..=self.in_flight).filter_map(|age| self.batches[(self.next + self.batches.len() - age) % self.batches.len()].point).collect()
    }

    /// The batch that `next` gave last, with so many rounds, is free again: they were not submitted.
    pub fn give_back(&mut self, rounds: usize) {
        self.next = (self.next + self.batches.len() - 1) % self.batches.len();
        self.in_flight -= 1;
        self.rounds -= rounds.min(self.rounds);
    }

    /// Gives all host bytes back to the device: what is still lent cannot be freed.
    pub fn release(&mut self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let mut result = Ok(());
        for batch in &mut self.batches {
            result = result.and(batch.release(device));
        }
        result
    }
}
