//! After a failed call: what can still be fetched is fetched, output by output, and checked; what fails is collected.

use super::batch::{Batch, Ring};
use super::lane::Lane;
use super::session::Session;
use super::slot::Slot;
use super::{Tally, collect};
use crate::device::{Cmd, Device, Node, Queue, Slice};
use crate::plan::{Home, Plan};
use crate::verdict::Salvaged;

/// Said of an output that is nowhere any more.
const LOST: &str = "its bytes could not be fetched";

impl Lane<'_, '_> {
    /// Looks at the rounds whose end failed, the oldest in flight, and at those behind them.
    pub(super) fn salvage(&mut self, session: &Session, ring: &mut Ring) {
        let mut first = true;
        while ring.in_flight() > 0 {
            let others = ring.in_flight() > 1;
            let batch = ring.oldest();
            let waited = batch.wait(self.device).map_err(|error| batch.located(self.job, self.plan, error));
            if let Err(error) = &waited {
                self.tally.salvage.errors.push(format!("round {}: {error}", batch.round()));
            }
            // What rounds hand on, those in flight behind them have changed.
            let gone = session.carries && others || self.plan.by_round() && batch.rounds() > 1;
            // Of the first the list itself may have failed: its copies to the host may be missing.
            let again = first || waited.is_err();
            self.tally.salvage.errors.extend(fetch(batch, self.plan, session, self.device, again, gone));
            for slot in batch.slots() {
                // A round that started from what a failed one left says nothing.
                if first || !self.plan.by_round() {
                    self.look_at(slot);
                }
                first = false;
                slot.lost.clear();
            }
            ring.free_oldest();
            first = false;
        }
    }

    /// Checks a round that does not count.
    fn look_at(&mut self, slot: &mut Slot) {
        let mut apart = Tally::new(self.job);
        collect::check(self.job, self.plan, slot, &mut self.host, &mut apart);
        self.host.advance();
        let checks = self.job.checks.iter().map(|c| (&c.text, vec![c.tensor]));
        let conditions = self.job.conditions.iter().map(|c| (&c.text, c.program.after_tensors().to_vec()));
        // What a round leaves out as the spec asks is not said to be right.
        let evaluated = checks.chain(conditions).zip(&apart.checks).filter(|(_, found)| found.left_out == 0);
        self.tally.salvage.checks.extend(evaluated.map(|((text, outputs), found)| {
            let failure = apart.failures.iter().find(|f| f.check.as_ref() == Some(text));
            let problem = match failure {
                _ if outputs.iter().any(|output| slot.lost.contains(output)) => Some(LOST.into()),
                Some(failure) => Some(failure.message.clone()),
                None if found.failed_rounds > 0 => Some("it is wrong".into()),
                None => None,
            };
            Salvaged { round: slot.round, check: text.clone(), problem }
        }));
    }
}

/// Takes the bytes of every output by itself; `again`: the device copies them to where the host reads them once more;
/// `gone`: carried tensors are not as the rounds left them. Returns what could not be had.
fn fetch(batch: &mut Batch, plan: &Plan, session: &Session, device: &mut dyn Device, again: bool, gone: bool) -> Vec<String> {
    let mut problems = Vec::new();
    let (index, round) = (batch.index, batch.round());
    for slot in batch.slots() {
        for read in &plan.reads {
            let placement = &plan.tensors[read.tensor];
            let name = &placement.name;
            let at = |home: Home| {
                let home = plan.at(home, slot.position);
                Slice { mem: session.memory(index, home.memory), offset: home.offset, len: read.bytes }
            };
            let apart = placement.home.filter(|home| *home != read.from);
            let copied = match apart {
                Some(home) if again && gone && !plan.memories[home.memory as usize].per_slot => {
                    slot.lost.push(read.tensor);
                    continue;
                }
                // What the host holds already cannot be written by the device.
                Some(home) if again && slot.bytes(read.from.memory).is_none() => {
                    let node = Node { cmd: Cmd::Copy { src: at(home), dst: at(read.from) }, after: Vec::new() };
                    device.submit(Queue(0), &[], &[node]).and_then(|point| device.wait(point))
                }
                _ => Ok(()),
            };
            if let Err(error) = copied {
                let (round, bytes) = (slot.round, read.bytes);
                problems.push(format!("round {round}: `{name}` cannot be fetched ({bytes} bytes, device to host): {error}"));
                slot.lost.push(read.tensor);
            }
        }
    }
    let memories: Vec<u32> = plan.reads.iter().map(|r| r.from.memory).chain(plan.fills.iter().map(|f| f.to.memory)).collect();
    for (at, memory) in memories.iter().enumerate().filter(|(at, memory)| !memories[..*at].contains(memory)) {
        if let Err(error) = batch.take_one(*memory, plan, session, device) {
            let of = plan.reads.get(at).map_or("the inputs".to_string(), |r| format!("`{}`", plan.tensors[r.tensor].name));
            let bytes = plan.memories[*memory as usize].bytes;
            problems.push(format!("round {round}: the memory of {of} cannot be read ({bytes} bytes): {error}"));
        }
    }
    problems
}
