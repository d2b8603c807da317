//! What the host holds beside the memories of the device: contents for expectations, scratch of programs, hashes, and the
//! graphs. Files that goldens and contents are mapped from are not counted: their pages can be dropped at any time.

use super::Schedule;
use super::build::Draft;
use super::fit::Bytes;
use super::{Host, Trust};
use crate::device::{Arg, Cmd, Node};
use crate::job::{Contents, Want};

/// What the tallies of a lane take: results of checks, and failures with the mismatches that they explain.
const TALLY: u64 = 64 << 10;

/// Rounds that a device may be ahead of others that its outputs are compared with.
pub const MOST_AHEAD: u64 = 4;

/// Elements that one hash covers.
const HASHED: u64 = crate::expr::BLOCK as u64;

impl Draft<'_> {
    /// Bytes of the host's own. `graphs` are those of one slot, one for each of several rounds at once.
    pub(super) fn host_bytes(&self, schedule: &Schedule, graphs: u64, fresh: bool) -> Bytes {
        let threads = if schedule.host == Host::Pool { self.caps.lanes.max(1) as usize } else { 1 };
        let mut bytes = Bytes { lane: TALLY * (3 + self.job.checks.len() as u64), ..Bytes::default() };
        for (id, tensor) in self.job.tensors.iter().enumerate() {
            let placement = &self.tensors[id];
            // Between fresh rounds a carried tensor is kept, by way of a memory of its own.
            let kept = if fresh && tensor.carry { 2 } else { 0 };
            bytes.fixed = bytes.fixed.saturating_add(tensor.bytes().saturating_mul(u64::from(placement.held)));
            bytes.fixed = bytes.fixed.saturating_add(placement.bytes.saturating_mul(kept));
            if self.uses[id].computed {
                // What is computed, and what it is computed from: of a round in every lane, of a set once.
                match &tensor.contents {
                    Contents::Drawn(_) => bytes.lane = bytes.lane.saturating_add(tensor.bytes()),
                    Contents::Sets(sources) => {
                        bytes.fixed = bytes.fixed.saturating_add(tensor.bytes().saturating_mul(sources.len() as u64));
                    }
                    Contents::Fixed(_) | Contents::None => bytes.fixed = bytes.fixed.saturating_add(tensor.bytes()),
                }
            }
            if !self.uses[id].expected {
                continue;
            }
            if matches!(tensor.contents, Contents::Drawn(_)) && placement.class != super::Class::Streamed {
                bytes.lane = bytes.lane.saturating_add(tensor.bytes());
            }
            if tensor.carry {
                let keeps = self.job.checks.iter().any(|c| c.tensor == id && c.keeps);
                bytes.lane = bytes.lane.saturating_add(tensor.bytes().saturating_mul(if keeps { 2 } else { 1 }));
            }
        }
        let contents = self.job.tensors.iter().flat_map(|t| t.contents.programs());
        let programs = self.job.programs().map(|p| (p.scratch_bytes(threads), p.registers_bytes()));
        for (scratch, registers) in programs.chain(contents.map(|p| (p.scratch_bytes(threads), p.registers_bytes()))) {
            bytes.lane = bytes.lane.saturating_add(scratch).saturating_add(registers.saturating_mul(threads as u64));
        }
        for check in &self.job.checks {
            let tensor = &self.job.tensors[check.tensor];
            bytes.lane = bytes.lane.saturating_add(check.sorted_bytes(tensor));
            if self.job.compared && check.between.is_some() {
                // Rounds in which this device is ahead of others; with the places of elements that are chosen one by one.
                let place = if check.part.is_some() || check.mask.is_some() { size_of::<u64>() } else { 0 };
                let kept = check.elements(tensor).saturating_mul((tensor.dtype.size() + place) as u64);
                bytes.fixed = bytes.fixed.saturating_add(kept.saturating_mul(MOST_AHEAD + 1)).saturating_add(check.sorted_bytes(tensor));
            }
            for want in &check.wants {
                if let Want::Bytes(golden) = want {
                    bytes.fixed = bytes.fixed.saturating_add(golden.len() as u64);
                }
            }
        }
        if self.trust != Trust::Fast {
            let hashes = self.fills.iter().filter(|f| f.bound).map(|f| self.job.tensors[f.tensor].shape.elements().div_ceil(HASHED));
            bytes.slot += 8 * hashes.sum::<u64>() * u64::from(self.batch);
        }
        // What a slot is filled with and what is read of it, once more without padding.
        let crossing = self.fills.iter().map(|f| f.tensor).chain(self.reads.iter().map(|r| r.tensor));
        let spaced = crossing.map(|id| &self.job.tensors[id]).filter(|tensor| tensor.spaced);
        bytes.slot = spaced.fold(bytes.slot, |bytes, tensor| bytes.saturating_add(tensor.bytes().saturating_mul(self.batch.into())));
        // The plan's own list, and in every slot what the device makes of it.
        let list = self.cmds.iter().map(node_bytes).sum::<u64>().saturating_mul(graphs);
        bytes.fixed = bytes.fixed.saturating_add(list);
        bytes.slot = bytes.slot.saturating_add(list);
        bytes
    }
}

/// What a node takes in a list, with a few edges.
fn node_bytes(cmd: &Cmd) -> u64 {
    let args = if let Cmd::Launch { args, .. } = cmd { args.len() } else { 0 };
    (size_of::<Node>() + args * size_of::<Arg>() + 4 * size_of::<u64>()) as u64
}
