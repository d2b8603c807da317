//! Checks a round: every claim about its outputs, the guards around them, and the inputs it must not have changed.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::host::{HostSide, hash_of};
use super::session::range;
use super::slot::Slot;
use super::work::Work;
use super::{HASHED, MOST_EXPLAINED, Tally, elements, explain, holds, spaced};
use crate::expr::{Block, Inputs};
use crate::job::{Job, Want};
use crate::plan::{Fill, GUARD_WORD, Plan, Zone, guard_bytes};
use crate::tensor::{Dtype, Number};
use crate::verdict::{Failure, Kind};

/// The tensors of one round, for expectations and conditions: as generated, and as the round left them.
pub(super) struct RoundInputs<'a> {
    pub plan: &'a Plan,
    pub slot: &'a Slot,
    pub host: &'a HostSide<'a>,
}

impl Inputs for RoundInputs<'_> {
    fn bytes(&self, id: usize) -> &[u8] {
        if let Some(bytes) = self.host.held(id, self.slot.set) {
            return bytes;
        }
        // An input that nothing holds has no bytes; the program then says that it has the wrong size.
        self.slot.input(self.plan, id).unwrap_or(&[])
    }

    fn after(&self, id: usize) -> &[u8] {
        self.slot.output(self.plan, id).unwrap_or(&[])
    }
}

/// What a round's claims are checked against.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub job: &'a Job,
    pub plan: &'a Plan,
    pub slot: &'a Slot,
}

/// Checks the round in a slot. Returns whether anything was wrong with it. What the host knows is still of this round
/// afterwards: [`HostSide::advance`] goes on to the next.
pub(super) fn check(job: &Job, plan: &Plan, slot: &mut Slot, host: &mut HostSide, tally: &mut Tally) -> bool {
    let before = tally.failures.len();
    slot.hit.clear();
    slot.gather(plan, host.parallel);
    if let Err(message) = host.draw_for_check(job, slot.set, slot.round) {
        if tally.explained < MOST_EXPLAINED {
            tally.failures.push(failure(job, slot.round, slot.set, Kind::Evaluation, message));
            tally.explained += 1;
        }
        return true;
    }
    let mut work = std::mem::take(&mut host.work);
    let changed = AtomicBool::new(false);
    let round = Round { job, plan, slot };
    let (mut bad, complete) = claims(round, host, &mut work, &changed, tally);
    host.work = work;
    if changed.load(Ordering::Relaxed) {
        bad = true;
        if tally.explained < MOST_EXPLAINED {
            explain::changed_inputs(job, plan, slot, tally);
        }
    }
    bad |= guards(job, plan, slot, tally);
    tally.checked += u64::from(complete);
    tally.explained += u64::from(tally.failures.len() > before);
    bad
}

/// Evaluates the claims that are due. Returns whether one failed, and whether all had a value.
fn claims(round: Round<'_>, host: &mut HostSide, work: &mut Work, changed: &AtomicBool, tally: &mut Tally) -> (bool, bool) {
    let Round { job, plan, slot } = round;
    let (mut bad, mut complete, mut left_out) = (false, true, false);
    let last = plan.rounds.is_last(slot.nth);
    // The first comparison of all elements reads the inputs anyway; without one they are verified by themselves.
    let reader = job.checks.iter().position(|c| c.every.is_due(slot.round, last) && c.is_whole() && !c.wants.is_empty());
    if reader.is_none() {
        verify_all(plan, slot, host.parallel, changed);
    }
    for (index, check) in job.checks.iter().enumerate() {
        let due = check.every.is_due(slot.round, last);
        let outcome = if due {
            let changed = (reader == Some(index)).then_some(changed);
            elements::check(round, host, work, index, changed, &mut tally.census)
        } else {
            tally.checks[index].left_out += 1;
            left_out = true;
            elements::keep(round, host, index).map(|()| elements::Found::default())
        };
        match outcome {
            Ok(_) if !due => {}
            Ok(found) => {
                let census = &tally.census;
                let report = &mut tally.checks[index];
                report.rounds += 1;
                report.elements += census.compared;
                report.of += job.tensors[check.tensor].shape.elements();
                for (all, reached) in report.metrics.iter_mut().zip(found.metrics(&check.tolerance)) {
                    all.value = all.metric.worse(all.value, reached.value);
                }
                if found.unwritten > 0 {
                    bad = true;
                    report.failed_rounds += u64::from(found.passes(census, check));
                    if tally.explained < MOST_EXPLAINED {
                        tally.failures.push(explain::never_written(round, host, work, index, found.unwritten, census));
                    }
                }
                if !found.passes(census, check) {
                    report.failed_rounds += 1;
                    bad = true;
                    if tally.explained < MOST_EXPLAINED {
                        tally.failures.push(explain::mismatch(round, host, work, index, census, &found));
                    }
                }
            }
            Err(message) => {
                bad = true;
                complete = false;
                if tally.explained < MOST_EXPLAINED {
                    let mut failure = failure(job, slot.round, slot.set, Kind::Evaluation, message);
                    failure.check = Some(check.text.clone());
                    tally.failures.push(failure);
                }
            }
        }
    }
    for (index, condition) in job.conditions.iter().enumerate() {
        let report = &mut tally.checks[job.checks.len() + index];
        if !condition.every.is_due(slot.round, last) {
            report.left_out += 1;
            left_out = true;
            continue;
        }
        let inputs = RoundInputs { plan, slot, host };
        let failed = match holds::condition(job, condition, &mut work.conditions[index], &inputs, host.parallel) {
            Ok(failed) => {
                report.rounds += 1;
                report.failed_rounds += u64::from(failed.is_some());
                failed
            }
            Err(message) => {
                complete = false;
                let mut failure = failure(job, slot.round, slot.set, Kind::Evaluation, message);
                failure.check = Some(condition.text.clone());
                Some(failure)
            }
        };
        bad |= failed.is_some();
        tally.failures.extend(failed.filter(|_| tally.explained < MOST_EXPLAINED));
    }
    tally.left_out += u64::from(left_out);
    (bad, complete)
}

/// Reads the guard zones of a round's mode, and puts the pattern back where it was hit. Returns whether any was.
fn guards(job: &Job, plan: &Plan, slot: &mut Slot, tally: &mut Tally) -> bool {
    let mode = plan.modes[slot.mode];
    let mut bad = false;
    if !mode.guards {
        return bad;
    }
    let read = |z: &Zone| mode.all_guards || z.near;
    for (index, zone) in plan.zones.iter().enumerate().filter(|(_, z)| read(z)) {
        let explain = tally.explained < MOST_EXPLAINED;
        let (round, set) = (slot.round, slot.set);
        let Some(bytes) = slot.bytes_mut(zone.read.memory) else { continue };
        if !guard_holds(bytes, zone) {
            bad = true;
            if explain {
                tally.failures.push(explain::out_of_bounds(job, plan, bytes, zone, round, set));
            }
            restore_guard(bytes, zone);
            if zone.at != zone.read {
                slot.hit.push(index);
            }
        }
    }
    bad
}

/// The bytes of a golden in a round; of the tensor's shape, or the part's.
pub(super) fn golden(want: &Want, round: u64) -> Result<&[u8], String> {
    match want {
        Want::Bytes(all) => Ok(all),
        Want::File { file, row: None } => Ok(file.bytes()),
        Want::File { file, row: Some(row) } => {
            let rows = file.shape().dims().first().copied().unwrap_or(0);
            let row = row.eval(round).map_err(|e| e.message)?;
            let bytes = (file.bytes().len() as u64).checked_div(rows).unwrap_or(0);
            match row.to_integer().and_then(|r| u64::try_from(r).ok()) {
                Some(at) if at < rows => Ok(&file.bytes()[(at * bytes) as usize..((at + 1) * bytes) as usize]),
                _ => Err(format!("row {row} of the golden in round {round}: it has {rows} rows")),
            }
        }
        Want::Expr(_) => Err("an expression is no golden".into()),
    }
}

/// Writes expected elements, rounded once to the dtype.
pub(super) fn encode(dtype: Dtype, block: Block<'_>, out: &mut [u8]) {
    match (dtype, block) {
        (Dtype::F32, Block::Float(values)) => {
            for (out, value) in out.chunks_exact_mut(4).zip(values) {
                out.copy_from_slice(&(*value as f32).to_le_bytes());
            }
        }
        (_, Block::Float(values)) => {
            for (i, value) in values.iter().enumerate() {
                dtype.store(out, i, dtype.encode(Number::Float(*value)).unwrap_or(0));
            }
        }
        (_, Block::Int(values)) => {
            for (i, value) in values.iter().enumerate() {
                // What does not fit is a mismatch of its own; its low bits stand for it here.
                dtype.store(out, i, dtype.encode(Number::Int(*value)).unwrap_or(*value as u64));
            }
        }
    }
}

/// Hashes parts of the inputs that kernels were bound to, and compares with what was filled.
pub(super) fn verify_hashes(plan: &Plan, slot: &Slot, from: u64, to: u64, changed: &AtomicBool) {
    for (fill, hashes) in plan.fills.iter().zip(&slot.hashes).filter(|(_, hashes)| !hashes.is_empty()) {
        let Some(memory) = slot.bytes(fill.to.memory) else { continue };
        let bytes = &memory[range(fill.to, fill.bytes)];
        let end = (to.min(hashes.len() as u64)) as usize;
        let from = (from as usize).min(end);
        for (at, hash) in (from..).zip(&hashes[from..end]) {
            if hash_of_part(plan, fill, bytes, at) != *hash {
                changed.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// The hash of the `at`th [`HASHED`] elements of what was filled; padding between rows counts for nothing.
pub(super) fn hash_of_part(plan: &Plan, fill: &Fill, bytes: &[u8], at: usize) -> u64 {
    let size = fill.element as usize;
    if plan.tensors[fill.tensor].spaced {
        return spaced::hash_of_part(size, bytes, at);
    }
    let chunk = HASHED as usize * size;
    hash_of(&bytes[at * chunk..((at + 1) * chunk).min(bytes.len())])
}

/// Hashes all inputs that kernels were bound to.
fn verify_all(plan: &Plan, slot: &Slot, parallel: bool, changed: &AtomicBool) {
    if !parallel {
        return verify_hashes(plan, slot, 0, u64::MAX, changed);
    }
    const STEP: u64 = super::CHUNK / HASHED;
    let most = slot.hashes.iter().map(|hashes| hashes.len() as u64).max().unwrap_or(0);
    (0..most.div_ceil(STEP)).into_par_iter().for_each(|at| verify_hashes(plan, slot, at * STEP, (at + 1) * STEP, changed));
}

/// Whether a zone still holds the guard pattern.
fn guard_holds(memory: &[u8], zone: &Zone) -> bool {
    let start = zone.read.offset as usize;
    let bytes = &memory[start..start + zone.bytes as usize];
    // The pattern is laid from the device memory's first byte; zones that are not word-aligned start within a word.
    let phase = (zone.at.offset % 4) as usize;
    let word = GUARD_WORD.rotate_right(8 * phase as u32).to_le_bytes();
    let whole = bytes.len() / 4 * 4;
    let expected = u32::from_le_bytes(word);
    let mut same = true;
    for chunk in bytes[..whole].chunks_exact(4) {
        same &= u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) == expected;
    }
    same && bytes[whole..].iter().zip(word).all(|(a, b)| *a == b)
}

fn restore_guard(memory: &mut [u8], zone: &Zone) {
    let start = zone.read.offset as usize;
    for (byte, guard) in memory[start..start + zone.bytes as usize].iter_mut().zip(guard_bytes(zone.at.offset)) {
        *byte = guard;
    }
}

/// A failure of a round with nothing said yet.
pub(super) fn failure(job: &Job, round: u64, set: u32, kind: Kind, message: String) -> Failure {
    Failure {
        kind,
        round,
        set: job.sets.get(set as usize).cloned(),
        tensor: None,
        check: None,
        message,
        patterns: Vec::new(),
        compared: 0,
        mismatched: 0,
        mismatches: Vec::new(),
        dump: None,
    }
}
