//! What went wrong in a round, in words. Runs only for rounds that failed, so it may allocate.

use super::Tally;
use super::collect::{Round, RoundInputs, encode, failure, golden, hash_of_part};
use super::elements::{Found, poison_of, registers, source};
use super::gather::{Each, Gather};
use super::host::HostSide;
use super::session::range;
use super::slot::Slot;
use super::work::Work;
use crate::check::{Census, Evidence, Metric, Odd, Places, Reached, compare, describe};
use crate::expr::{BLOCK, Block, Inputs, Program, Scratch};
use crate::job::{Action, Check, Contents, Job, Tensor, Want};
use crate::plan::{Plan, Poison, Zone, guard_bytes};
use crate::tensor::{Access, Dtype, Number};
use crate::verdict::{At, Failure, Kind};

/// Tensors larger than this are described by their census alone. *Units*: elements.
const MOST_DESCRIBED: u64 = 1 << 26;

/// An earlier round is looked at only where drawing it again costs less. *Units*: bytes.
const MOST_REDRAWN: u64 = 32 << 20;

/// Values that are named where elements may come in any order, by side.
const MOST_NAMED: usize = 8;

/// A check that found elements, or all of them at once, out of tolerance.
pub(super) fn mismatch(round: Round<'_>, host: &HostSide, work: &Work, index: usize, census: &Census, found: &Found) -> Failure {
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    let tensor = &job.tensors[check.tensor];
    let mut out = failure(job, slot.round, slot.set, Kind::Mismatch, String::new());
    out.tensor = Some(tensor.name.clone());
    out.check = Some(check.text.clone());
    (out.compared, out.mismatched) = (census.compared, census.mismatched);
    let missed = |reached: &Reached| {
        let Reached { metric, value, limit } = *reached;
        let sign = if metric == Metric::MinCosine { "at least" } else { "at most" };
        // Four digits, unless they hide that it is beyond the limit.
        let rounded = format!("{value:.3e}").parse().unwrap_or(value);
        let value = if (Reached { value: rounded, ..*reached }).passes() { value } else { rounded };
        format!("{} is {}, it must be {sign} {}", metric.name(), Number::Float(value), Number::Float(limit))
    };
    let metrics: Vec<String> = found.metrics(&check.tolerance).filter(|reached| !reached.passes()).map(|r| missed(&r)).collect();
    if census.passes(&check.tolerance) {
        out.message = format!("`{}` as a whole is out of tolerance: {}", tensor.name, metrics.join("; "));
    } else {
        out.message = counted(census, check, &tensor.name);
        out.patterns.extend(metrics.into_iter().map(|metric| format!("as a whole: {metric}")));
    }
    if census.nan_want > 0 {
        let way = if check.tolerance.nan_equal {
            "nothing but NaN passes there"
        } else {
            "NaN never passes, unless the check says nan = \"equal\""
        };
        out.patterns.push(format!("{} of the expected elements are NaN: {way}", census.nan_want));
    }
    if check.unordered {
        out.patterns.extend(odd(check, tensor, work, index));
        return out;
    }
    // Where single elements are not judged, those are shown that the dtype's default would refuse.
    let judge = check.tolerance.elementwise(tensor.dtype);
    let mut own = Census::default();
    let described = tensor.shape.elements() <= MOST_DESCRIBED;
    let (dtype, size) = (tensor.dtype, tensor.dtype.size());
    let got = slot.output(plan, check.tensor).filter(|_| described).unwrap_or(&[]);
    let mut wrong = vec![false; got.len() / size];
    // What is not compared counts as right.
    let mut want = got.to_vec();
    let evaluated = blocks(round, host, work, index, &mut |part, block, places| {
        let Some(block) = block else { return };
        compare(dtype, part, block, Places::At(places), &judge, &mut own);
        for (i, &place) in places.iter().enumerate().filter(|_| described) {
            let number = block.number(i);
            wrong[place as usize] = !judge.accepts(dtype, dtype.load(part, i), number);
            dtype.store(&mut want, place as usize, rounded(dtype, number));
        }
    });
    let shown = if check.tolerance.is_elementwise() { census } else { &own };
    let at = |m: &crate::check::Mismatch, worst| At { index: tensor.shape.index_of(m.index), mismatch: *m, worst };
    out.mismatches = shown.first.iter().map(|m| at(m, false)).collect();
    out.mismatches.extend(shown.worst.iter().map(|m| at(m, true)));
    if !check.tolerance.is_elementwise() && !out.mismatches.is_empty() {
        out.patterns.push(format!("below are elements that the default tolerance of {dtype} would refuse: {judge}"));
    }
    if evaluated.is_none() || !described {
        return out;
    }
    let poison = poison_of(job, plan, check.tensor, slot.turn).filter(|_| poisoned(plan, slot, check.tensor));
    let past = host.before(slot.nth).and_then(|(round, set)| Some((round, past_expectation(job, host, check, round, set)?)));
    let evidence = Evidence {
        dtype,
        shape: &tensor.shape,
        wrong: &wrong,
        all: check.is_whole(),
        got,
        want: &want,
        poison: poison.map(|poison| poison.word),
        spaced: tensor.spaced,
        previous: past.as_ref().map(|(round, bytes)| (*round, bytes.as_slice())),
        block: block_of(job, check.tensor),
    };
    out.patterns.extend(describe(&evidence));
    out
}

/// How many elements failed, of how many.
fn counted(census: &Census, check: &Check, name: &str) -> String {
    let share = census.mismatched as f64 / census.compared.max(1) as f64 * 100.0;
    let share = if share >= 0.01 { format!(" ({share:.2} %)") } else { String::new() };
    let allowed = match check.tolerance.max_mismatches {
        0 => String::new(),
        n => format!(", {n} allowed"),
    };
    let of = if check.part.is_some() || check.mask.is_some() { "compared elements" } else { "elements" };
    let what = if check.unordered { "have no match" } else { "are out of tolerance" };
    format!("{} of {} {of} of `{name}` {what}{share}{allowed}", census.mismatched, census.compared)
}

/// Whether a tensor held the poison before the round, all of it or a part.
fn poisoned(plan: &Plan, slot: &Slot, tensor: usize) -> bool {
    let laid = matches!(plan.modes[slot.mode].poison, Poison::Full | Poison::Window { .. });
    plan.poison.iter().any(|p| p.tensor == tensor && (laid || p.always))
}

/// What is missing and what is too much, by value, each with how often.
fn odd(check: &Check, tensor: &Tensor, work: &Work, index: usize) -> Vec<String> {
    let Some(set) = &work.sets[index] else { return Vec::new() };
    let mut sides: [Vec<(Number, u64)>; 2] = Default::default();
    let mut beyond = [0u64; 2];
    set.matched(tensor.dtype, &check.tolerance, &mut |side, number| {
        let at = usize::from(side == Odd::Surplus);
        let values = &mut sides[at];
        let room = values.len() < MOST_NAMED;
        match values.last_mut() {
            Some((last, count)) if *last == number || (last.is_nan() && number.is_nan()) => *count += 1,
            _ if room => values.push((number, 1)),
            _ => beyond[at] += 1,
        }
    });
    let named = |(number, count): &(Number, u64)| if *count > 1 { format!("{number} ({count} times)") } else { number.to_string() };
    let side = |what: &str, values: &[(Number, u64)], beyond: u64| {
        let more = if beyond > 0 { format!(" and {beyond} more") } else { String::new() };
        (!values.is_empty()).then(|| format!("{what}: {}{more}", values.iter().map(named).collect::<Vec<_>>().join(", ")))
    };
    let [missing, surplus] = &sides;
    [side("missing", missing, beyond[0]), side("too much", surplus, beyond[1])].into_iter().flatten().collect()
}

/// An expectation as an element of the dtype; of one that does not fit, the low bits.
pub(super) fn rounded(dtype: Dtype, number: Number) -> u64 {
    dtype.encode(number).unwrap_or(match number {
        Number::Int(value) => value as u64,
        Number::Float(_) => 0,
    })
}

/// Goes once more through the elements of a check whose programs are prepared; `None` where they have no values.
fn blocks(round: Round<'_>, host: &HostSide, work: &Work, index: usize, each: Each<'_>) -> Option<()> {
    let inputs = RoundInputs { plan: round.plan, slot: round.slot, host };
    let source = source(round, &inputs, work, index).ok()?;
    let mut registers = registers(host, index, round.slot.set);
    source.blocks(0, source.elements(), &mut Gather::default(), registers.as_deref_mut(), each).ok().map(|_| ())
}

/// Tells of every element of a check: where it lies, its bits, and what is expected; `None` where some have no values.
pub(super) fn each(
    round: Round<'_>,
    host: &HostSide,
    work: &Work,
    index: usize,
    tell: &mut dyn FnMut(u64, u64, Option<Number>),
) -> Option<()> {
    let dtype = round.job.tensors[round.job.checks[index].tensor].dtype;
    blocks(round, host, work, index, &mut |got, want, places| {
        for (i, &place) in places.iter().enumerate() {
            tell(place, dtype.load(got, i), want.map(|want| want.number(i)));
        }
    })
}

/// Elements that hold the poison, which nothing excuses.
pub(super) fn never_written(round: Round<'_>, host: &HostSide, work: &Work, index: usize, unwritten: u64, census: &Census) -> Failure {
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    let tensor = &job.tensors[check.tensor];
    let why = if tensor.dtype.is_float() {
        "they hold the poison, not a NaN of the kernel's"
    } else {
        "they hold the value that was there before"
    };
    let message = format!("{unwritten} of {} elements of `{}` were never written: {why}", census.compared, tensor.name);
    let mut patterns = Vec::new();
    if let Some(poison) = poison_of(job, plan, check.tensor, slot.turn)
        && tensor.shape.elements() <= MOST_DESCRIBED
    {
        let mut places = Vec::new();
        each(round, host, work, index, &mut |place, got, _| {
            places.extend((got == poison.element(tensor.dtype, place)).then_some(place as usize))
        });
        places.sort_unstable();
        patterns.extend(crate::check::region(&tensor.shape, &places));
    }
    Failure {
        tensor: Some(tensor.name.clone()),
        check: Some(check.text.clone()),
        compared: census.compared,
        mismatched: unwritten,
        patterns,
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
/// An expectation of a part is none of the tensor.
fn past_expectation(job: &Job, host: &HostSide, check: &Check, round: u64, set: u32) -> Option<Vec<u8>> {
    struct Past(Vec<(usize, Vec<u8>)>);
    impl Inputs for Past {
        fn bytes(&self, id: usize) -> &[u8] {
            self.0.iter().find(|(tensor, _)| *tensor == id).map_or(&[], |(_, bytes)| bytes)
        }
    }
    let want = check.wants.get(check.want(set))?;
    let tensor = &job.tensors[check.tensor];
    let Want::Expr(program) = want else {
        return golden(want, round).ok().filter(|bytes| bytes.len() as u64 == tensor.bytes()).map(<[u8]>::to_vec);
    };
    if program.shape() != &tensor.shape {
        return None;
    }
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
        let bytes = &memory[range(fill.to, fill.bytes)];
        let intact = hashes.iter().enumerate().all(|(at, hash)| hash_of_part(plan, fill, bytes, at) == *hash);
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
        let mut writers: Vec<&str> = job.kernels[..job.loads].iter().map(|k| k.name.as_str()).collect();
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
