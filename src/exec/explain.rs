//! What went wrong in a round, in words. Runs only for rounds that failed, so it may allocate.

use super::collect::{encode, failure, golden};
use super::host::{HostSide, hash_of};
use super::session::range;
use super::slot::Slot;
use super::{HASHED, Tally};
use crate::check::{Census, Evidence, describe};
use crate::expr::{BLOCK, Block, Inputs, Program, Scratch};
use crate::job::{Action, Contents, Job, Want};
use crate::plan::{Plan, Poison, Zone, guard_bytes, poison_word};
use crate::tensor::Access;
use crate::verdict::{At, Failure, Kind};

/// Tensors larger than this are described by their census alone. *Units*: elements.
const MOST_DESCRIBED: u64 = 1 << 26;

/// An earlier round is looked at only where drawing it again costs less. *Units*: bytes.
const MOST_REDRAWN: u64 = 32 << 20;

/// A check that found elements out of tolerance.
pub(super) fn mismatch(job: &Job, plan: &Plan, slot: &Slot, host: &HostSide, index: usize, census: &Census) -> Failure {
    let check = &job.checks[index];
    let tensor = &job.tensors[check.tensor];
    let mut out = failure(job, slot.round, slot.set, Kind::Mismatch, String::new());
    out.tensor = Some(tensor.name.clone());
    out.check = Some(check.text.clone());
    (out.compared, out.mismatched) = (census.compared, census.mismatched);
    let share = census.mismatched as f64 / census.compared.max(1) as f64 * 100.0;
    let share = if share >= 0.01 { format!(" ({share:.2} %)") } else { String::new() };
    let allowed = match check.tolerance.max_mismatches {
        0 => String::new(),
        n => format!(", {n} allowed"),
    };
    out.message =
        format!("{} of {} elements of `{}` are out of tolerance{share}{allowed}", census.mismatched, census.compared, tensor.name);
    let at = |m: &crate::check::Mismatch, worst| At { index: tensor.shape.index_of(m.index), mismatch: *m, worst };
    out.mismatches = census.first.iter().map(|m| at(m, false)).collect();
    out.mismatches.extend(census.worst.iter().map(|m| at(m, true)));
    if census.nan_want > 0 {
        let way = if check.tolerance.nan_equal {
            "nothing but NaN passes there"
        } else {
            "NaN never passes, unless the check says nan = \"equal\""
        };
        out.patterns.push(format!("{} of the expected elements are NaN: {way}", census.nan_want));
    }
    if tensor.shape.elements() > MOST_DESCRIBED {
        return out;
    }
    let Some(got) = slot.output(plan, check.tensor) else { return out };
    let want_index = check.want(slot.set);
    let inputs = super::collect::RoundInputs { plan, slot, host };
    let (dtype, size) = (tensor.dtype, tensor.dtype.size());
    let mut wrong = vec![false; got.len() / size];
    let mut want = vec![0; got.len()];
    let judge = |from: usize, block: Block<'_>| {
        let len = block.len();
        encode(dtype, block, &mut want[from * size..(from + len) * size]);
        for i in 0..len {
            wrong[from + i] = !check.tolerance.accepts(dtype, dtype.load(got, from + i), block.number(i));
        }
    };
    let evaluated = match &check.wants[want_index] {
        Want::Expr(program) => match &host.scratch[index][want_index] {
            // As the check prepared it.
            Some(scratch) => evaluate(program, scratch, &inputs, slot.round, judge),
            None => None,
        },
        other => golden(other, slot.round, tensor.bytes()).ok().map(|bytes| {
            want.copy_from_slice(bytes);
            for (i, wrong) in wrong.iter_mut().enumerate() {
                *wrong = !check.tolerance.accepts(dtype, dtype.load(got, i), dtype.decode(dtype.load(bytes, i)));
            }
        }),
    };
    if evaluated.is_none() {
        return out;
    }
    let poisoned = plan.poison.iter().any(|p| p.tensor == check.tensor)
        && matches!(plan.modes[slot.mode].poison, Poison::Full | Poison::Window { .. });
    let past = slot.round.checked_sub(1).and_then(|round| Some((round, past_expectation(job, host, check, round)?)));
    let evidence = Evidence {
        dtype,
        shape: &tensor.shape,
        wrong: &wrong,
        got,
        want: &want,
        poison: poisoned.then(|| poison_word(dtype, slot.round)),
        previous: past.as_ref().map(|(round, bytes)| (*round, bytes.as_slice())),
        block: block_of(job, check.tensor),
    };
    out.patterns.extend(describe(&evidence));
    out
}

/// Elements that hold the poison where NaN may match NaN.
pub(super) fn never_written(job: &Job, slot: &Slot, index: usize, unwritten: u64) -> Failure {
    let check = &job.checks[index];
    let tensor = &job.tensors[check.tensor];
    let elements = tensor.shape.elements();
    let message = format!(
        "{unwritten} of {elements} elements of `{}` were never written: they hold the poison, not a NaN of the kernel's",
        tensor.name
    );
    Failure {
        tensor: Some(tensor.name.clone()),
        check: Some(check.text.clone()),
        compared: elements,
        mismatched: unwritten,
        ..failure(job, slot.round, slot.set, Kind::Mismatch, message)
    }
}

/// All blocks of a program whose scratch is prepared.
fn evaluate(program: &Program, scratch: &Scratch, inputs: &dyn Inputs, round: u64, mut each: impl FnMut(usize, Block<'_>)) -> Option<()> {
    let mut registers = program.registers();
    let elements = program.shape().elements();
    let mut from = 0;
    while from < elements {
        let len = (elements - from).min(BLOCK as u64) as usize;
        each(from as usize, program.block(scratch, &mut registers, inputs, round, from, len).ok()?);
        from += len as u64;
    }
    Some(())
}

/// What an earlier round should have left: from its inputs, drawn again. Carried starts are not known any more.
fn past_expectation(job: &Job, host: &HostSide, check: &crate::job::Check, round: u64) -> Option<Vec<u8>> {
    struct Past(Vec<(usize, Vec<u8>)>);
    impl Inputs for Past {
        fn bytes(&self, id: usize) -> &[u8] {
            self.0.iter().find(|(tensor, _)| *tensor == id).map_or(&[], |(_, bytes)| bytes)
        }
    }
    let set = host.set_of(round);
    let want = &check.wants[check.want(set)];
    let tensor = &job.tensors[check.tensor];
    let Want::Expr(program) = want else {
        return golden(want, round, tensor.bytes()).ok().map(<[u8]>::to_vec);
    };
    let inputs: u64 = program.tensors().iter().map(|&id| job.tensors[id].bytes()).sum();
    if inputs + program.scratch_bytes(1) > MOST_REDRAWN {
        return None;
    }
    let mut past = Past(Vec::new());
    for &id in program.tensors() {
        let input = &job.tensors[id];
        if input.carry || matches!(input.contents, Contents::None) {
            return None;
        }
        let mut bytes = vec![0; input.bytes() as usize];
        host.draw(job, id, set, round, &mut bytes, &mut []).ok()?;
        past.0.push((id, bytes));
    }
    let mut scratch = program.scratch(1);
    program.prepare(&mut scratch, &past, round, false).ok()?;
    let size = tensor.dtype.size();
    let mut out = vec![0; tensor.bytes() as usize];
    evaluate(program, &scratch, &past, round, |from, block| {
        encode(tensor.dtype, block, &mut out[from * size..(from + block.len()) * size])
    })?;
    Some(out)
}

/// Threads of one block along x of the last launch that writes a tensor, where that is more than one.
fn block_of(job: &Job, tensor: usize) -> Option<u64> {
    let writer = job.steps.iter().rev().find(|s| s.action.views().any(|(access, view)| access.writes() && view.tensor == tensor))?;
    match &writer.action {
        Action::Launch { kernel, .. } => Some(u64::from(job.kernels[*kernel].block[0])).filter(|&b| b > 1),
        _ => None,
    }
}

/// Inputs that kernels were bound to and that hold other bytes than they were given.
pub(super) fn changed_inputs(job: &Job, plan: &Plan, slot: &Slot, tally: &mut Tally) {
    for (fill, hashes) in plan.fills.iter().zip(&slot.hashes).filter(|(_, h)| !h.is_empty()) {
        let Some(memory) = slot.bytes(fill.to.memory) else { continue };
        let chunk = HASHED as usize * fill.element as usize;
        let intact = memory[range(fill.to, fill.bytes)].chunks(chunk).zip(hashes).all(|(part, hash)| hash_of(part) == *hash);
        if intact {
            continue;
        }
        let name = &job.tensors[fill.tensor].name;
        let readers = kernels_with(job, fill.tensor, |_| true);
        let message = format!("`{name}` was changed, though every kernel has it as `in` (kernels that could: {readers})");
        tally.failures.push(Failure { tensor: Some(name.clone()), ..failure(job, slot.round, slot.set, Kind::InputChanged, message) });
    }
}

/// Names of the kernels that are given a tensor with an access.
fn kernels_with(job: &Job, tensor: usize, which: impl Fn(Access) -> bool) -> String {
    let mut names: Vec<&str> = Vec::new();
    for step in &job.steps {
        if let Action::Launch { kernel, .. } = step.action
            && step.action.views().any(|(access, view)| view.tensor == tensor && which(access))
            && !names.contains(&job.kernels[kernel].name.as_str())
        {
            names.push(&job.kernels[kernel].name);
        }
    }
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// A guard zone that was written: which tensor was run over, on which side, by how much.
pub(super) fn out_of_bounds(job: &Job, plan: &Plan, memory: &[u8], zone: &Zone, round: u64, set: u32) -> Failure {
    let start = zone.read.offset as usize;
    let bytes = &memory[start..start + zone.bytes as usize];
    let mut hit = bytes.iter().zip(guard_bytes(zone.at.offset)).enumerate().filter(|(_, (byte, guard))| *byte != guard).map(|(i, _)| i);
    let first = hit.next().unwrap_or(0);
    let last = hit.last().unwrap_or(first);
    // Whichever tensor is nearer to the bytes that were hit is the one that was run over.
    let past_end = match (zone.before, zone.behind) {
        (Some(_), Some(_)) => first <= bytes.len() - 1 - last,
        (before, _) => before.is_some(),
    };
    if zone.before.is_none() && zone.behind.is_none() {
        let mut writers: Vec<&str> = job.kernels.iter().map(|k| k.name.as_str()).collect();
        writers.dedup();
        let message = format!(
            "{} bytes written far behind the last tensor, {first} bytes after its guard (kernels: {})",
            last + 1 - first,
            writers.join(", ")
        );
        return failure(job, round, set, Kind::OutOfBounds, message);
    }
    let tensor = if past_end { zone.before } else { zone.behind };
    let (name, size) = tensor.map_or(("a tensor", 1), |t| (plan.tensors[t].name.as_str(), job.tensors[t].dtype.size()));
    let (span, gap) = if past_end { (last + 1 - first, first) } else { (last + 1 - first, bytes.len() - 1 - last) };
    let elements = span.div_ceil(size);
    let side = if past_end { "past the end of" } else { "before the start of" };
    let distance = if gap >= size { format!(", from {} elements on", gap / size) } else { String::new() };
    let writers = tensor.map_or("none".into(), |t| kernels_with(job, t, |access| access.writes()));
    let readers = if writers == "none" { tensor.map(|t| kernels_with(job, t, |_| true)).unwrap_or(writers) } else { writers };
    let s = if elements == 1 { "" } else { "s" };
    let message = format!("{elements} element{s} written {side} `{name}`{distance} (kernels that could: {readers})");
    Failure { tensor: tensor.map(|t| plan.tensors[t].name.clone()), ..failure(job, round, set, Kind::OutOfBounds, message) }
}
