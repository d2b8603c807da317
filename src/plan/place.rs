//! Addresses: which memory each tensor lies in and where, what is uploaded once, filled and read every round, and the
//! guard zones between.

use super::arena::{Layout, Life, gaps, layout};
use super::build::{Draft, PlanError};
use super::classify::{self, Class};
use super::nodes::slice;
use super::{Fill, Home, Memory, Read, Upload, Zone};
use crate::device::{Cmd, Place, Word};
use crate::job::Contents;

/// Bytes behind an arena's last guard that are guarded too, up to twice as many; shared by the rounds of a batch.
const TAIL_BYTES: u64 = 4096;

/// What is laid out in an arena: a tensor's bytes, or the copy of a guard zone.
type Item = (Option<usize>, Life);

impl Draft<'_> {
    /// Adds the memories of an arena, split by the device's largest allocation; returns where each life lies.
    fn arena(&mut self, name: &'static str, place: Place, per_slot: bool, items: &[Item], zones: bool) -> Result<Vec<Home>, PlanError> {
        let alignment = self.alignment();
        // Every round of a batch has its part of a slot's memories.
        let rounds = if per_slot { u64::from(self.batch) } else { 1 };
        let limit = if rounds > 1 { self.caps.largest_alloc / rounds / alignment * alignment } else { self.caps.largest_alloc };
        let mut homes = vec![Home { memory: 0, offset: 0 }; items.len()];
        let mut from = 0;
        while from < items.len() {
            // All in one memory where it fits, else as many in order as do.
            let mut to = items.len();
            let mut lives: Vec<Life>;
            let mut laid: Layout;
            loop {
                lives = items[from..to].iter().map(|(_, life)| *life).collect();
                laid = layout(&lives, alignment, self.guard);
                if laid.bytes <= limit {
                    break;
                }
                if to - from == 1 {
                    let tensor = items[from].0.map_or("<guards>".to_string(), |id| self.tensors[id].name.clone());
                    return Err(PlanError::LargestAlloc { tensor, bytes: items[from].1.bytes, limit });
                }
                to = from + (to - from) / 2;
            }
            let memory = self.memories.len() as u32;
            for (index, &offset) in laid.offsets.iter().enumerate() {
                homes[from + index] = Home { memory, offset };
            }
            if zones && self.guard > 0 {
                for (start, end, before, behind) in gaps(&lives, &laid) {
                    let tensor = |life: Option<usize>| life.and_then(|l| items[from + l].0);
                    let output = |t: Option<usize>| t.is_some_and(|t| self.uses[t].checked);
                    let (before, behind) = (tensor(before), tensor(behind));
                    let at = Home { memory, offset: start };
                    self.zones.push(Zone { at, read: at, bytes: end - start, before, behind, near: output(before) || output(behind) });
                }
            }
            let mut bytes = laid.bytes;
            if zones && self.guard > 0 {
                // A kernel with a wrong stride jumps the guard: what is behind it, up to whole pages, is guarded too.
                let tail = (TAIL_BYTES / rounds).next_multiple_of(alignment).max(self.guard.next_multiple_of(alignment));
                bytes = (laid.bytes + tail).next_multiple_of(tail).min(limit.max(laid.bytes));
                if bytes > laid.bytes {
                    let at = Home { memory, offset: laid.bytes };
                    self.zones.push(Zone { at, read: at, bytes: bytes - laid.bytes, before: None, behind: None, near: false });
                }
            }
            self.memories.push(Memory { name, place, bytes: bytes * rounds, per_slot, stride: bytes });
            from = to;
        }
        Ok(homes)
    }

    /// Contents that are written once: residents, and what restored and carried tensors start from.
    pub(super) fn place_pristine(&mut self) -> Result<(), PlanError> {
        let mut items = Vec::new();
        for (id, placement) in self.tensors.iter().enumerate() {
            let copies = match placement.class {
                Class::Resident | Class::Restored => match &self.job.tensors[id].contents {
                    Contents::Sets(sources) => sources.len(),
                    _ => 1,
                },
                Class::Carried if classify::fill_word(self.job, id).is_none() => 1,
                _ => 0,
            };
            let life = Life { bytes: placement.bytes, first: 0, last: u32::MAX };
            items.extend((0..copies).map(|set| (id, set as u32, life)));
        }
        let lives: Vec<Item> = items.iter().map(|&(id, _, life)| (Some(id), life)).collect();
        let (name, place) = ("resident", if self.caps.unified { Place::ReadOnly } else { Place::Device });
        // Where they are mapped read-only, a write past their ends faults by itself.
        let homes = self.arena(name, place, false, &lives, !self.caps.unified)?;
        let staging = if self.caps.unified { homes.clone() } else { self.arena("staging", Place::Upload, false, &lives, false)? };
        for (((id, set, life), home), from) in items.into_iter().zip(homes).zip(staging) {
            self.tensors[id].pristine.push(home);
            self.setup.push(Upload { tensor: id, set, to: from, bytes: life.bytes });
            if from != home {
                self.setup_copies.push(Cmd::Copy { src: slice(from, life.bytes), dst: slice(home, life.bytes) });
            }
        }
        Ok(())
    }

    pub(super) fn place_carried(&mut self) -> Result<(), PlanError> {
        let ids: Vec<usize> = (0..self.tensors.len()).filter(|&id| self.tensors[id].class == Class::Carried).collect();
        let lives: Vec<_> = ids.iter().map(|&id| (Some(id), Life { bytes: self.tensors[id].bytes, first: 0, last: u32::MAX })).collect();
        let place = if self.caps.unified { Place::Shared } else { Place::Device };
        let homes = self.arena("carried", place, false, &lives, true)?;
        for (id, home) in ids.into_iter().zip(homes) {
            let bytes = self.tensors[id].bytes;
            self.tensors[id].home = Some(home);
            self.start.push(match (classify::fill_word(self.job, id), self.tensors[id].pristine.first()) {
                (None, Some(&from)) => Cmd::Copy { src: slice(from, bytes), dst: slice(home, bytes) },
                (word, _) => Cmd::Fill { dst: slice(home, bytes), pattern: Word::Const(word.unwrap_or(0).into()) },
            });
        }
        Ok(())
    }

    /// What every slot has of its own.
    pub(super) fn place_slot(&mut self) -> Result<(), PlanError> {
        let unified = self.caps.unified;
        let whole = |bytes| Life { bytes, first: 0, last: u32::MAX };
        let mut items = Vec::new();
        for (id, placement) in self.tensors.iter().enumerate() {
            match (placement.class, placement.steps) {
                (Class::Scratch, Some((first, last))) => items.push((Some(id), Life { bytes: placement.bytes, first, last })),
                (Class::Restored | Class::Cleared | Class::Streamed | Class::Output, _) => items.push((Some(id), whole(placement.bytes))),
                _ => {}
            }
        }
        // A carried tensor changes while an earlier round is checked, so the check reads a copy of its own.
        let checked: Vec<usize> = (0..self.tensors.len()).filter(|&id| self.uses[id].checked && self.tensors[id].steps.is_some()).collect();
        let snapshots: Vec<usize> = checked.iter().copied().filter(|&id| self.tensors[id].class == Class::Carried).collect();
        let tensors = items.len();
        // Its guards too: the zones so far are those of carried memory.
        let shared = self.zones.len();
        if unified {
            items.extend(snapshots.iter().map(|&id| (Some(id), whole(self.tensors[id].bytes))));
            items.extend(self.zones.iter().map(|z| (None, whole(z.bytes))));
        }
        // Copies of views live for one step; the zones beside them are told by the name of the tensor.
        let mut staged = self.to_stage();
        let views = items.len();
        items.extend(staged.iter().map(|s| (Some(s.tensor), Life { bytes: s.bytes, first: s.step, last: s.step })));
        let place = if unified { Place::Shared } else { Place::Device };
        let homes = self.arena("slot", place, true, &items, true)?;
        for (staged, &home) in staged.iter_mut().zip(&homes[views..]) {
            staged.at = home;
        }
        self.staged = staged;
        for (&(id, _), &home) in items.iter().zip(&homes).take(tensors) {
            if let Some(id) = id {
                self.tensors[id].home = Some(home);
            }
        }
        let streamed: Vec<usize> = (0..self.tensors.len()).filter(|&id| self.tensors[id].class == Class::Streamed).collect();
        let bound = |draft: &Draft<'_>, id: usize| unified && !draft.uses[id].written;
        let uploads: Vec<Item> =
            streamed.iter().filter(|&&id| !bound(self, id)).map(|&id| (Some(id), whole(self.tensors[id].bytes))).collect();
        let mut from = self.arena("upload", Place::Upload, true, &uploads, false)?.into_iter();
        for &id in &streamed {
            let bytes = self.tensors[id].bytes;
            let to = if bound(self, id) { self.tensors[id].home } else { from.next() };
            if let Some(to) = to {
                let element = self.job.tensors[id].dtype.size() as u32;
                self.fills.push(Fill { tensor: id, to, bytes, element, bound: bound(self, id) });
            }
        }
        if unified {
            let copies: Vec<Home> = homes[tensors..views].to_vec();
            for (zone, &read) in self.zones[..shared].iter_mut().zip(&copies[snapshots.len()..]) {
                zone.read = read;
            }
            for &id in &checked {
                let snapshot = snapshots.iter().position(|&s| s == id).map(|at| copies[at]);
                if let Some(from) = snapshot.or(self.tensors[id].home) {
                    self.reads.push(self.read(id, from));
                }
            }
        } else {
            let mut items: Vec<Item> = checked.iter().map(|&id| (Some(id), whole(self.tensors[id].bytes))).collect();
            let tensors = items.len();
            items.extend(self.zones.iter().map(|z| (None, whole(z.bytes))));
            let guard = std::mem::replace(&mut self.guard, 0);
            let homes = self.arena("readback", Place::Readback, true, &items, false)?;
            self.guard = guard;
            for (&tensor, &from) in checked.iter().zip(&homes) {
                self.reads.push(self.read(tensor, from));
            }
            for (zone, &read) in self.zones.iter_mut().zip(&homes[tensors..]) {
                zone.read = read;
            }
        }
        Ok(())
    }

    fn read(&self, tensor: usize, from: Home) -> Read {
        Read { tensor, from, bytes: self.tensors[tensor].bytes, element: self.job.tensors[tensor].dtype.size() as u32 }
    }
}
