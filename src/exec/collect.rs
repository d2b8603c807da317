//! Checks a round: every output against its expectation, the guards around it, and the inputs it must not have changed.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::explain;
use super::host::{HostSide, hash_of};
use super::session::range;
use super::slot::Slot;
use super::{CHUNK, HASHED, MOST_EXPLAINED, Tally};
use crate::check::{Census, compare, compare_bytes};
use crate::diag::TextError;
use crate::expr::{BLOCK, Block, Inputs, Program};
use crate::job::{Check, Job, Want};
use crate::plan::{GUARD_WORD, Plan, Zone, guard_bytes, poison_of};
use crate::tensor::simd::prefetch;
use crate::tensor::{Dtype, Number};
use crate::verdict::{Failure, Kind};

/// The tensors of one round as generated, for expectations.
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
        let fill = self.plan.fills.iter().find(|f| f.tensor == id);
        // An input that nothing holds has no bytes; the program then says that it has the wrong size.
        fill.and_then(|f| Some(&self.slot.bytes(f.to.memory)?[range(f.to, f.bytes)])).unwrap_or(&[])
    }
}

/// Checks the round in a slot. Returns whether anything was wrong with it. What the host knows is still of this round
/// afterwards: [`HostSide::advance`] goes on to the next.
pub(super) fn check(job: &Job, plan: &Plan, slot: &mut Slot, host: &mut HostSide, tally: &mut Tally) -> bool {
    let before = tally.failures.len();
    let mut bad = false;
    let mut complete = true;
    slot.hit.clear();
    if let Err(message) = host.draw_for_check(job, slot.set, slot.round) {
        if tally.explained < MOST_EXPLAINED {
            tally.failures.push(failure(job, slot.round, slot.set, Kind::Evaluation, message));
            tally.explained += 1;
        }
        return true;
    }
    let changed = AtomicBool::new(false);
    for (index, check) in job.checks.iter().enumerate() {
        let mut next = if check.keeps { std::mem::take(&mut host.next[check.tensor]) } else { Vec::new() };
        // The one of the last check is cleared, not made anew: it is large for a short round.
        let census = &mut tally.census;
        census.clear();
        let outcome = one(job, plan, slot, host, index, check, &mut next, if index == 0 { Some(&changed) } else { None }, census);
        if check.keeps {
            host.next[check.tensor] = next;
        }
        match outcome {
            Ok(()) => {
                let report = &mut tally.checks[index];
                report.rounds += 1;
                report.elements += census.compared;
                let whole = census.compared == job.tensors[check.tensor].shape.elements();
                let unwritten = if check.tolerance.nan_equal { poison_left(job, plan, slot, check.tensor) } else { 0 };
                if unwritten > 0 {
                    bad = true;
                    report.failed_rounds += u64::from(census.passes(&check.tolerance));
                    if tally.explained < MOST_EXPLAINED {
                        tally.failures.push(explain::never_written(job, slot, index, unwritten));
                    }
                }
                if !census.passes(&check.tolerance) || !whole {
                    report.failed_rounds += 1;
                    bad = true;
                    if tally.explained < MOST_EXPLAINED {
                        tally.failures.push(explain::mismatch(job, plan, slot, host, index, census));
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
    if job.checks.is_empty() {
        verify_hashes(plan, slot, 0, u64::MAX, &changed);
    }
    if changed.load(Ordering::Relaxed) {
        bad = true;
        if tally.explained < MOST_EXPLAINED {
            explain::changed_inputs(job, plan, slot, tally);
        }
    }
    let mode = plan.modes[slot.mode];
    if mode.guards {
        let read = |z: &Zone| mode.all_guards || z.near;
        for (index, zone) in plan.zones.iter().enumerate().filter(|(_, z)| read(z)) {
            let explain = tally.explained < MOST_EXPLAINED;
            let round = slot.round;
            let set = slot.set;
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
    }
    tally.checked += u64::from(complete);
    tally.explained += u64::from(tally.failures.len() > before);
    bad
}

/// Elements of a poisoned output that still hold this round's poison, bit for bit. Where NaN may match NaN, the
/// comparison alone would take them for written.
fn poison_left(job: &Job, plan: &Plan, slot: &Slot, tensor: usize) -> u64 {
    let poisoned = plan.poison.iter().any(|p| p.tensor == tensor);
    let Some(got) = slot.output(plan, tensor).filter(|_| poisoned) else { return 0 };
    let dtype = job.tensors[tensor].dtype;
    if dtype == Dtype::F8e4m3 {
        // Its poison is no NaN where NaN may match NaN: the comparison refuses it there, and elsewhere a kernel may mean it.
        return 0;
    }
    let word = u64::from(poison_of(job, tensor, slot.round));
    let pattern = (word << 32 | word).to_le_bytes();
    // The pattern repeats within every element or from element to element, so each has its place in it.
    let at = |i: usize| &pattern[i * dtype.size() % pattern.len()..][..dtype.size()];
    got.chunks_exact(dtype.size()).enumerate().filter(|(i, element)| *element == at(*i)).count() as u64
}

/// Compares one output with its expectation, chunk by chunk, and adds what it finds to `census` in the order of the chunks.
#[allow(clippy::too_many_arguments)]
fn one(
    job: &Job,
    plan: &Plan,
    slot: &Slot,
    host: &mut HostSide,
    index: usize,
    check: &Check,
    next: &mut [u8],
    changed: Option<&AtomicBool>,
    census: &mut Census,
) -> Result<(), String> {
    let tensor = &job.tensors[check.tensor];
    let (dtype, elements) = (tensor.dtype, tensor.shape.elements());
    let got = slot.output(plan, check.tensor).ok_or("the plan does not read this tensor back")?;
    let want_index = check.want(slot.set);
    let want = &check.wants[want_index];
    let chunks = elements.div_ceil(CHUNK);
    let mut scratch = None;
    if let Want::Expr(program) = want {
        let mut own = host.scratch[index][want_index].take().ok_or("the program has no scratch")?;
        let inputs = RoundInputs { plan, slot, host };
        let prepared = program.prepare(&mut own, &inputs, slot.round, host.parallel).map_err(|e| e.message);
        scratch = Some(own);
        if let Err(message) = prepared {
            host.scratch[index][want_index] = scratch;
            return Err(message);
        }
    }
    let size = dtype.size();
    let keeps = !next.is_empty();
    let result = {
        let host: &HostSide = host;
        let inputs = RoundInputs { plan, slot, host };
        let chunk = |at: u64, next: &mut [u8], census: &mut Census| -> Result<(), String> {
            let (start, end) = (at * CHUNK, ((at + 1) * CHUNK).min(elements));
            // Inputs may have more elements than the output: the last block takes their rest.
            let verify = |from: u64, to: u64| {
                if let Some(changed) = changed {
                    verify_hashes(plan, slot, from / HASHED, if to == elements { u64::MAX } else { to / HASHED }, changed);
                }
            };
            let got = &got[start as usize * size..end as usize * size];
            match want {
                Want::Expr(program) => {
                    let threads = &host.registers[index][want_index];
                    let thread = rayon::current_thread_index().unwrap_or(0) % threads.len();
                    let mut registers = threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
                    let scratch = scratch.as_ref().ok_or("the program has no scratch")?;
                    let mut from = start;
                    while from < end {
                        let len = (end - from).min(BLOCK as u64) as usize;
                        verify(from, from + len as u64);
                        let block =
                            program.block(scratch, &mut registers, &inputs, slot.round, from, len).map_err(|e: TextError| e.message)?;
                        let at = (from - start) as usize * size;
                        if host.parallel {
                            // The next block's expectation and this comparison share the way to memory.
                            let ahead = from + len as u64..(from + 2 * len as u64).min(end);
                            prefetch_inputs(job, program, &inputs, elements, ahead.clone());
                            prefetch(&got[at + len * size..][..(ahead.end.saturating_sub(ahead.start)) as usize * size]);
                        }
                        compare(dtype, &got[at..at + len * size], block, from, &check.tolerance, census);
                        if keeps {
                            encode(dtype, block, &mut next[at..at + len * size]);
                        }
                        from += len as u64;
                    }
                }
                other => {
                    verify(start, end);
                    let want = golden(other, slot.round, tensor.bytes())?;
                    compare_bytes(dtype, got, &want[start as usize * size..end as usize * size], start, &check.tolerance, census);
                }
            }
            Ok(())
        };
        let step = CHUNK as usize * size;
        if host.parallel && chunks > 1 {
            let apart = |at: u64, next: &mut [u8]| {
                let mut census = Census::default();
                chunk(at, next, &mut census).map(|()| census)
            };
            let found = if keeps {
                let parts = next.par_chunks_mut(step).enumerate().map(|(at, part)| apart(at as u64, part));
                parts.reduce(|| Ok(Census::default()), merge)
            } else {
                (0..chunks).into_par_iter().map(|at| apart(at, &mut [])).reduce(|| Ok(Census::default()), merge)
            };
            found.map(|found| census.merge(&found))
        } else {
            (0..chunks).try_for_each(|at| {
                let from = at as usize * step;
                let part = if keeps { &mut next[from..(from + step).min(elements as usize * size)] } else { &mut [][..] };
                chunk(at, part, census)
            })
        }
    };
    if scratch.is_some() {
        host.scratch[index][want_index] = scratch;
    }
    result
}

/// Asks for the elements of a program's inputs that lie beside those of its result.
fn prefetch_inputs(job: &Job, program: &Program, inputs: &RoundInputs<'_>, elements: u64, range: std::ops::Range<u64>) {
    for &id in program.tensors() {
        let size = job.tensors[id].dtype.size();
        if job.tensors[id].shape.elements() == elements {
            let bytes = range.start as usize * size..range.end as usize * size;
            prefetch(inputs.bytes(id).get(bytes).unwrap_or(&[]));
        }
    }
}

/// Merges neighbours, the lower indices first: rayon keeps their order.
fn merge(a: Result<Census, String>, b: Result<Census, String>) -> Result<Census, String> {
    let (mut a, b) = (a?, b?);
    a.merge(&b);
    Ok(a)
}

/// The bytes of a golden in a round.
pub(super) fn golden(want: &Want, round: u64, bytes: u64) -> Result<&[u8], String> {
    match want {
        Want::Bytes(all) => Ok(all),
        Want::File { file, row: None } => Ok(file.bytes()),
        Want::File { file, row: Some(row) } => {
            let rows = file.shape().dims().first().copied().unwrap_or(0);
            let row = row.eval(round).map_err(|e| e.message)?;
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
fn verify_hashes(plan: &Plan, slot: &Slot, from: u64, to: u64, changed: &AtomicBool) {
    for (fill, hashes) in plan.fills.iter().zip(&slot.hashes).filter(|(_, hashes)| !hashes.is_empty()) {
        let Some(memory) = slot.bytes(fill.to.memory) else { continue };
        let bytes = &memory[range(fill.to, fill.bytes)];
        let chunk = HASHED as usize * fill.element as usize;
        let end = (to.min(hashes.len() as u64)) as usize;
        for at in from as usize..end {
            let part = &bytes[at * chunk..((at + 1) * chunk).min(bytes.len())];
            if hash_of(part) != hashes[at] {
                changed.store(true, Ordering::Relaxed);
            }
        }
    }
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
