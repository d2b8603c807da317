//! What a plan takes against the limits: the ladder of what is given up where memory is short, one rung after the other,
//! and the message where nothing fits.

use std::fmt;

use serde::Serialize;

use super::build::Draft;
use super::show::{bytes, count, spec_bytes};
use super::{Class, Placement, Schedule};
use crate::device::{Caps, Place};
use crate::job::{Contents, Job, Tensor};

/// Something that was given up to save memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Rung {
    pub what: String,
    pub reason: String,
}

/// Bytes by lanes and slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Bytes {
    pub fixed: u64,
    pub lane: u64,
    /// Of each slot of each lane.
    pub slot: u64,
}

impl Bytes {
    pub fn at(&self, lanes: u32, slots: u32) -> u64 {
        let slot = self.slot.saturating_mul(slots.into());
        self.lane.saturating_add(slot).saturating_mul(lanes.into()).saturating_add(self.fixed)
    }
}

/// What a draft needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Needs {
    pub device: Bytes,
    pub host: Bytes,
}

/// The most that a job may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub device: u64,
    pub host: u64,
}

impl Limits {
    pub fn of(job: &Job, caps: &Caps) -> Limits {
        // Where the device is the host, its memory is all there is.
        let machine = if caps.unified { caps.memory } else { u64::MAX };
        Limits { device: job.limits.device_memory.unwrap_or(u64::MAX).min(caps.memory), host: job.limits.host_memory.unwrap_or(machine) }
    }

    /// What is short with so many lanes and slots, in words.
    pub fn short(&self, needs: &Needs, lanes: u32, slots: u32) -> Option<String> {
        let over = |kind: &str, needs: u64, limit: u64| {
            (needs > limit).then(|| format!("would need {} of {kind} memory, the limit is {}", bytes(needs), bytes(limit)))
        };
        over("device", needs.device.at(lanes, slots), self.device).or_else(|| over("host", needs.host.at(lanes, slots), self.host))
    }
}

/// The schedule with as few lanes and then as few slots as the limits ask for, and a rung for each. *Errors*: what one slot
/// of one lane would need.
pub(super) fn reduce(mut schedule: Schedule, needs: &Needs, limits: &Limits) -> Result<(Schedule, Vec<Rung>), String> {
    let mut rungs = Vec::new();
    let wanted = schedule.lanes;
    let mut why = None;
    while let Some(short) = limits.short(needs, schedule.lanes, schedule.slots).filter(|_| schedule.lanes > 1) {
        why.get_or_insert(short);
        schedule.lanes -= 1;
    }
    if let Some(short) = why {
        rungs.push(Rung { what: count(schedule.lanes.into(), "lane"), reason: format!("{wanted} {short}") });
    }
    while let Some(short) = limits.short(needs, schedule.lanes, schedule.slots) {
        if schedule.slots == 1 {
            return Err(short);
        }
        let more = schedule.slots;
        schedule.slots -= 1;
        rungs.push(Rung { what: count(schedule.slots.into(), "slot"), reason: format!("{more} {short}") });
    }
    Ok((schedule, rungs))
}

/// What is given up beside lanes and slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Spared {
    /// Restored tensors have no pristine copy: the host uploads them every round.
    pub copies: bool,
    /// No set stays: the host uploads and generates its contents in every round that uses it.
    pub sets: bool,
    /// The same, as rounds that are submitted at once are of several sets; where expectations read them, the host keeps them.
    pub mixed: bool,
}

impl Spared {
    /// The next thing to give up, by what one slot of the draft would need.
    pub fn next(self, draft: &Draft<'_>, short: &str) -> Option<(Spared, Rung)> {
        let rung = |what: &str| Rung { what: what.into(), reason: format!("with them, 1 slot {short}") };
        let held = |of: &Placement, job: &Tensor| matches!(job.contents, Contents::Sets(_)) && (of.held > 0 || !of.pristine.is_empty());
        if draft.tensors.iter().any(|t| t.class == Class::Restored) {
            Some((Spared { copies: true, ..self }, rung("uploads instead of pristine copies")))
        } else if !self.sets && draft.tensors.iter().zip(&draft.job.tensors).any(|(of, job)| held(of, job)) {
            Some((Spared { sets: true, ..self }, rung("uploads instead of sets that stay")))
        } else {
            None
        }
    }
}

/// A job that fits in no way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TooLarge {
    /// Kind of memory, bytes needed, the limit, and whether the job itself sets it.
    pub short: Vec<(&'static str, u64, u64, bool)>,
    /// The tensors that take most.
    pub largest: String,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self
            .short
            .iter()
            .map(|&(kind, needs, limit, own)| {
                let (needed, has) = (bytes(needs), bytes(limit));
                if own {
                    let would_do = format!("[limits] {kind}_memory = \"{}\" would do", spec_bytes(needs));
                    format!("the job needs {needed} ({needs} bytes) of {kind} memory, the limit is {has} ({limit} bytes): {would_do}")
                } else {
                    format!("the job needs {needed} ({needs} bytes) of {kind} memory, there are {has} ({limit} bytes)")
                }
            })
            .collect();
        write!(f, "{}; {}", all.join("; "), self.largest)
    }
}

impl Draft<'_> {
    /// What the memories take on the device, and all that is held on the host.
    pub(super) fn needs(&self, schedule: &Schedule, graphs: u64, fresh: bool) -> Needs {
        let mut needs = Needs { device: Bytes::default(), host: self.host_bytes(schedule, graphs, fresh) };
        for memory in &self.memories {
            let add = |bytes: &mut Bytes| *if memory.per_slot { &mut bytes.slot } else { &mut bytes.fixed } += memory.bytes;
            if self.caps.unified || memory.place == Place::Device {
                add(&mut needs.device);
            }
            if self.caps.unified || memory.place != Place::Device {
                add(&mut needs.host);
            }
        }
        needs
    }

    /// Why the job fits in no way, at one slot of one lane.
    pub(super) fn too_large(&self, needs: &Needs, limits: &Limits) -> TooLarge {
        let own = &self.job.limits;
        let kinds = [
            ("device", needs.device.at(1, 1), limits.device, own.device_memory.is_some_and(|limit| limit <= self.caps.memory)),
            ("host", needs.host.at(1, 1), limits.host, own.host_memory.is_some()),
        ];
        let copies = |at: usize| {
            let placement = &self.tensors[at];
            let there = u64::from(placement.home.is_some()) + placement.pristine.len() as u64 + u64::from(placement.held);
            there + u64::from(placement.class == Class::Streamed && self.fills.iter().any(|f| f.tensor == at && !f.bound))
        };
        let mut by_size: Vec<(u64, usize)> =
            (0..self.tensors.len()).map(|at| (self.tensors[at].bytes.saturating_mul(copies(at)), at)).collect();
        by_size.sort_by_key(|&(taken, at)| (std::cmp::Reverse(taken), at));
        let tell = |&(taken, at): &(u64, usize)| match copies(at) {
            1 => format!("`{}` takes {}", self.tensors[at].name, bytes(taken)),
            n => format!("`{}` takes {} in {n} copies", self.tensors[at].name, bytes(taken)),
        };
        let largest: Vec<String> = by_size.iter().filter(|(taken, _)| *taken > 0).take(3).map(tell).collect();
        TooLarge { short: kinds.into_iter().filter(|&(_, needs, limit, _)| needs > limit).collect(), largest: largest.join(", ") }
    }
}
