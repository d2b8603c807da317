//! A slot: the part of a batch's buffers that one round occupies, from filling to checking.

use super::host::HostSide;
use super::session::{broken, range};
use super::{HASHED, Stop, spaced};
use crate::device::{DeviceError, Part};
use crate::job::Job;
use crate::plan::{Home, Plan, Poisoned, Trust, poison_of};

/// One round's part of a set of buffers, and the round that is in it.
pub(super) struct Slot {
    /// Its place in the batch.
    pub position: u32,
    pub round: u64,
    /// The place of the round among those that are run.
    pub nth: u64,
    /// What its poison alternates by; see [`Plan::turn`].
    pub turn: u64,
    pub set: u32,
    pub mode: usize,
    /// By plan memory: the round's part of the host bytes while they are lent.
    pub mapped: Vec<Option<Part>>,
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
}

impl Slot {
    pub fn new(position: u32, job: &Job, plan: &Plan) -> Slot {
        let hashed = plan.trust != Trust::Fast;
        let hashes = |fill: &crate::plan::Fill| {
            let hashes = job.tensors[fill.tensor].shape.elements().div_ceil(HASHED) as usize;
            vec![0; if fill.bound && hashed { hashes } else { 0 }]
        };
        let dense = |tensor: usize| vec![0; if plan.tensors[tensor].spaced { job.tensors[tensor].bytes() as usize } else { 0 }];
        Slot {
            position,
            round: 0,
            nth: 0,
            turn: 0,
            set: 0,
            mode: 0,
            mapped: plan.memories.iter().map(|_| None).collect(),
            hashes: plan.fills.iter().map(hashes).collect(),
            filled: plan.fills.iter().map(|f| dense(f.tensor)).collect(),
            gathered: plan.reads.iter().map(|r| dense(r.tensor)).collect(),
            hit: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// The round's part of the host bytes of a plan's memory, while they are lent.
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

    /// Writes the round's inputs, and its variables into `vars`. The memories that are filled are lent.
    pub fn fill(&mut self, job: &Job, plan: &Plan, host: &mut HostSide, vars: &mut [u64]) -> Result<(), Stop> {
        self.set = host.set(self.round);
        self.mode = plan.mode(self.nth);
        let failed = |message: String| Stop::Device(DeviceError::Failed { node: None, call: "fill", message });
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
            vars[index] = word;
        }
        for (poisoned, home) in by_host(plan) {
            let bytes = self.mapped[home.memory as usize].as_deref_mut().ok_or_else(|| broken("a poisoned memory is not mapped"))?;
            let tensor = &mut bytes[range(home, plan.tensors[poisoned.tensor].bytes)];
            let part = poisoned.range(tensor.len() as u64, &plan.modes[self.mode]);
            let word = poison_of(job, poisoned.tensor, self.turn).to_le_bytes();
            let mut words = tensor[part.start as usize..part.end as usize].chunks_exact_mut(word.len());
            words.by_ref().for_each(|bytes| bytes.copy_from_slice(&word));
            let rest = words.into_remainder();
            rest.copy_from_slice(&word[..rest.len()]);
        }
        Ok(())
    }
}

/// What the host poisons, and where.
pub(super) fn by_host(plan: &Plan) -> impl Iterator<Item = (&Poisoned, Home)> {
    plan.poison.iter().filter(|p| p.by_host).filter_map(|p| Some((p, plan.tensors[p.tensor].home?)))
}
