//! Compares the elements of an output with what is expected of them: all of them chunk by chunk, a part of them or those
//! that a mask selects through [`super::gather`], or in any order. Allocates nothing.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::collect::{Round, RoundInputs, encode, golden, verify_hashes};
use super::gather::Source;
use super::host::HostSide;
use super::work::{Work, lock};
use super::{CHUNK, HASHED};
use crate::check::{Census, Places, Reached, Sums, Tolerance, compare, compare_bytes};
use crate::diag::TextError;
use crate::expr::{BLOCK, Inputs, Program, Registers};
use crate::job::{Check, Job, Want};
use crate::plan::{self, Plan};
use crate::tensor::simd::prefetch;
use crate::tensor::{Dtype, rows};

/// What a check found beside its census.
#[derive(Default)]
pub(super) struct Found {
    /// Where metrics are asked for.
    sums: Option<Sums>,
    /// Elements that hold the poison and that nothing excuses.
    pub unwritten: u64,
}

impl Found {
    pub fn metrics<'a>(&'a self, tolerance: &'a Tolerance) -> impl Iterator<Item = Reached> + 'a {
        self.sums.iter().flat_map(move |sums| sums.reached(tolerance))
    }

    /// Whether the comparison passes; what was never written is apart from it.
    pub fn passes(&self, census: &Census, check: &Check) -> bool {
        check.wants.is_empty() || (census.passes(&check.tolerance) && self.metrics(&check.tolerance).all(|reached| reached.passes()))
    }
}

/// Checks one output. What was found of its elements is in `census`, which is cleared first.
///
/// *Errors*: an expectation or a mask without a value, a mask that selects nothing.
pub(super) fn check(
    round: Round<'_>,
    host: &mut HostSide,
    work: &mut Work,
    index: usize,
    changed: Option<&AtomicBool>,
    census: &mut Census,
) -> Result<Found, String> {
    // It is cleared, not made anew: it is large for a short round.
    census.clear();
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    if check.is_whole() && !check.wants.is_empty() {
        let mut next = take_next(host, check);
        let whole = all(round, host, work, index, &mut next, changed, census);
        put_next(host, check, next);
        whole?;
        let compared = job.tensors[check.tensor].shape.elements();
        if census.compared != compared {
            return Err(format!("{} of {compared} elements were compared", census.compared));
        }
    } else {
        some(round, host, work, index, census)?;
    }
    let chunks = check.elements(&job.tensors[check.tensor]).div_ceil(CHUNK);
    let sums = check.tolerance.has_metrics().then(|| work.total(if check.unordered { 1 } else { chunks }));
    let mut found = Found { sums, unwritten: 0 };
    // What failed nothing, or failed anyway, may hold what it likes.
    let forgiving =
        !check.wants.is_empty() && (!check.tolerance.is_elementwise() || (census.mismatched > 0 && found.passes(census, check)));
    if !(check.written || check.tolerance.nan_equal || forgiving) {
        return Ok(found);
    }
    let Some(poison) = poison_of(job, plan, check.tensor, slot.turn) else {
        let unknown = || "the plan does not poison this tensor: it is not known whether it was written".to_string();
        return if check.written { Err(unknown()) } else { Ok(found) };
    };
    let Some(got) = slot.output(plan, check.tensor) else { return Ok(found) };
    let dtype = job.tensors[check.tensor].dtype;
    let is_nan = dtype.decode(poison.element(dtype, 0)).is_nan();
    // Where NaN may match NaN, the comparison alone would take such a poison for written.
    let strict = check.written || (check.tolerance.nan_equal && is_nan);
    // NaN is forgiven nowhere else.
    if !(strict || (forgiving && !is_nan)) || poison.count(dtype, got) == 0 {
        return Ok(found);
    }
    // Rare from here on: an element holds the poison, or a value that is the same.
    let mut wrong = 0;
    let judge = check.tolerance.elementwise(dtype);
    super::explain::each(round, host, work, index, &mut |place, got, want| {
        let right = want.is_some_and(|want| judge.accepts(dtype, got, want));
        wrong += u64::from(!right);
        found.unwritten += u64::from(got == poison.element(dtype, place) && (strict || !right));
    });
    // One byte is the poison's by chance once in 256: a few among many say nothing.
    if !strict && dtype.size() == 1 && found.unwritten * 8 < wrong {
        found.unwritten = 0;
    }
    Ok(found)
}

/// The word that a tensor holds before a round, repeated from its first byte on the device, where it is poisoned in rounds.
#[derive(Clone, Copy)]
pub(super) struct PoisonWord {
    pub word: u32,
    /// The device spaces the rows of the tensor.
    spaced: bool,
}

impl PoisonWord {
    /// The element at a place of a tensor.
    pub fn element(self, dtype: Dtype, place: u64) -> u64 {
        let (word, size) = (u64::from(self.word), dtype.size() as u64);
        let place = if self.spaced { rows::spaced_place(place) } else { place };
        let shifted = (word << 32 | word) >> (8 * (place * size % 4));
        shifted & (u64::MAX >> (64 - 8 * size))
    }

    /// How many elements of a tensor hold it.
    fn count(self, dtype: Dtype, bytes: &[u8]) -> u64 {
        fn count<const SIZE: usize>(bytes: &[u8], word: u32) -> u64 {
            let pattern = (u64::from(word) << 32 | u64::from(word)).to_le_bytes();
            let (groups, rest) = bytes.as_chunks::<8>();
            let same = |group: &[u8]| group.chunks_exact(SIZE).zip(pattern.chunks_exact(SIZE)).map(|(a, b)| u64::from(a == b)).sum::<u64>();
            groups.iter().map(|group| same(group)).sum::<u64>() + same(rest)
        }
        let size = dtype.size();
        if self.spaced && size < 4 {
            // Which part of the word an element holds depends on where it lies on the device.
            let places = 0..bytes.len() / size;
            return places.filter(|&place| dtype.load(bytes, place) == self.element(dtype, place as u64)).count() as u64;
        }
        match size {
            1 => count::<1>(bytes, self.word),
            2 => count::<2>(bytes, self.word),
            4 => count::<4>(bytes, self.word),
            _ => count::<8>(bytes, self.word),
        }
    }
}

/// The poison of a tensor in rounds of a turn, where it has one in rounds; see [`Plan::turn`].
pub(super) fn poison_of(job: &Job, plan: &Plan, tensor: usize, turn: u64) -> Option<PoisonWord> {
    plan.poison
        .iter()
        .any(|p| p.tensor == tensor)
        .then(|| PoisonWord { word: plan::poison_of(job, tensor, turn), spaced: job.tensors[tensor].spaced })
}

/// The bytes that take a carried tensor's next start, where this check gives it.
fn take_next(host: &mut HostSide, check: &Check) -> Vec<u8> {
    if check.keeps { std::mem::take(&mut host.next[check.tensor]) } else { Vec::new() }
}

fn put_next(host: &mut HostSide, check: &Check, next: Vec<u8>) {
    if check.keeps {
        host.next[check.tensor] = next;
    }
}

/// Evaluates the expectation of a carried tensor in a round in which it is not compared: the next round starts from it.
pub(super) fn keep(round: Round<'_>, host: &mut HostSide, index: usize) -> Result<(), String> {
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    if !check.keeps {
        return Ok(());
    }
    let mut next = take_next(host, check);
    let want_index = check.want(slot.set);
    let dtype = job.tensors[check.tensor].dtype;
    let step = BLOCK * dtype.size();
    let result = prepared(round, host, index, |host| {
        let Want::Expr(program) = &check.wants[want_index] else { return Ok(()) };
        let scratch = host.scratch[index][want_index].as_ref().ok_or(NO_SCRATCH)?;
        let inputs = RoundInputs { plan, slot, host };
        let block = |at: usize, part: &mut [u8]| {
            let mut registers = lock(&host.registers[index][want_index]);
            let (from, len) = ((at * BLOCK) as u64, part.len() / dtype.size());
            let block = program.block(scratch, &mut registers, &inputs, slot.round, from, len).map_err(|e| e.message)?;
            encode(dtype, block, part);
            Ok(())
        };
        if host.parallel {
            next.par_chunks_mut(step).enumerate().try_for_each(|(at, part)| block(at, part))
        } else {
            next.chunks_mut(step).enumerate().try_for_each(|(at, part)| block(at, part))
        }
    });
    put_next(host, check, next);
    result
}

const NO_SCRATCH: &str = "the program has no scratch";

/// Prepares the expectation of a check, where it is a program, for what `then` does with it.
fn prepared<T>(
    round: Round<'_>,
    host: &mut HostSide,
    index: usize,
    then: impl FnOnce(&HostSide) -> Result<T, String>,
) -> Result<T, String> {
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    let want_index = check.want(slot.set);
    if let Some(Want::Expr(program)) = check.wants.get(want_index) {
        // It is away while the host is read.
        let mut own = host.scratch[index][want_index].take().ok_or(NO_SCRATCH)?;
        let inputs = RoundInputs { plan, slot, host };
        let prepared = program.prepare(&mut own, &inputs, slot.round, host.parallel);
        host.scratch[index][want_index] = Some(own);
        prepared.map_err(|e| e.message)?;
    }
    then(host)
}

/// Compares all elements, chunk by chunk, and adds what it finds to `census` in the order of the chunks.
fn all(
    round: Round<'_>,
    host: &mut HostSide,
    work: &Work,
    index: usize,
    next: &mut [u8],
    changed: Option<&AtomicBool>,
    census: &mut Census,
) -> Result<(), String> {
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    let tensor = &job.tensors[check.tensor];
    let (dtype, elements, size) = (tensor.dtype, tensor.shape.elements(), tensor.dtype.size());
    let got = slot.output(plan, check.tensor).ok_or("the plan does not read this tensor back")?;
    let want_index = check.want(slot.set);
    let want = &check.wants[want_index];
    let chunks = elements.div_ceil(CHUNK);
    let keeps = !next.is_empty();
    let metrics = check.tolerance.has_metrics();
    let nan_equal = check.tolerance.nan_equal;
    prepared(round, host, index, |host| {
        let inputs = RoundInputs { plan, slot, host };
        let chunk = |at: u64, next: &mut [u8], census: &mut Census| -> Result<(), String> {
            let (start, end) = (at * CHUNK, ((at + 1) * CHUNK).min(elements));
            let mut sums = metrics.then(Sums::default);
            // Inputs may have more elements than the output: the last block takes their rest.
            let verify = |from: u64, to: u64| {
                if let Some(changed) = changed {
                    verify_hashes(plan, slot, from / HASHED, if to == elements { u64::MAX } else { to / HASHED }, changed);
                }
            };
            let got = &got[start as usize * size..end as usize * size];
            match want {
                Want::Expr(program) => {
                    let mut registers = lock(&host.registers[index][want_index]);
                    let scratch = host.scratch[index][want_index].as_ref().ok_or(NO_SCRATCH)?;
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
                        let part = &got[at..at + len * size];
                        compare(dtype, part, block, Places::From(from), &check.tolerance, census);
                        if let Some(sums) = &mut sums {
                            sums.add(dtype, part, block, nan_equal);
                        }
                        if keeps {
                            encode(dtype, block, &mut next[at..at + len * size]);
                        }
                        from += len as u64;
                    }
                }
                other => {
                    verify(start, end);
                    let want = &golden(other, slot.round)?[start as usize * size..end as usize * size];
                    compare_bytes(dtype, got, want, start, &check.tolerance, census);
                    if let Some(sums) = &mut sums {
                        sums.add_bytes(dtype, got, want, nan_equal);
                    }
                }
            }
            if let Some(sums) = sums {
                work.put(at, sums);
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
    })
}

/// Compares what is not simply all elements in their order.
fn some(round: Round<'_>, host: &mut HostSide, work: &mut Work, index: usize, census: &mut Census) -> Result<(), String> {
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    let tensor = &job.tensors[check.tensor];
    if let (Some(mask), Some(evaluator)) = (&check.mask, &mut work.masks[index]) {
        evaluator.prepare(mask, &RoundInputs { plan, slot, host }, slot.round, host.parallel)?;
    }
    let mut set = work.sets[index].take();
    let result = prepared(round, host, index, |host| {
        let inputs = RoundInputs { plan, slot, host };
        let source = source(round, &inputs, work, index)?;
        let elements = source.elements();
        let chunks = elements.div_ceil(CHUNK);
        let measured = check.tolerance.has_metrics();
        if check.wants.is_empty() && check.mask.is_none() {
            census.compared = elements;
            return Ok(());
        }
        let selected = if let Some(set) = &mut set {
            set.clear();
            let add = &mut |got: &[u8], want: Option<crate::expr::Block<'_>>, _: &[u64]| {
                if let Some(want) = want {
                    set.add(tensor.dtype, got, want);
                }
            };
            let mut registers = registers(host, index, slot.set);
            let selected = source.blocks(0, elements, &mut lock(&work.gathers), registers.as_deref_mut(), add)?;
            let mut sums = Sums::default();
            set.compare(tensor.dtype, &check.tolerance, host.parallel, census, measured.then_some(&mut sums));
            if measured {
                work.put(0, sums);
            }
            selected
        } else {
            let chunk = |at: u64, census: &mut Census| -> Result<u64, String> {
                let mut sums = Sums::default();
                let compare = &mut |got: &[u8], want: Option<crate::expr::Block<'_>>, places: &[u64]| match want {
                    Some(want) => {
                        compare(tensor.dtype, got, want, Places::At(places), &check.tolerance, census);
                        if measured {
                            sums.add(tensor.dtype, got, want, check.tolerance.nan_equal);
                        }
                    }
                    None => census.compared += places.len() as u64,
                };
                let mut registers = registers(host, index, slot.set);
                let (from, to) = (at * CHUNK, ((at + 1) * CHUNK).min(elements));
                let selected = source.blocks(from, to, &mut lock(&work.gathers), registers.as_deref_mut(), compare)?;
                if measured {
                    work.put(at, sums);
                }
                Ok(selected)
            };
            if host.parallel && chunks > 1 {
                let apart = |at: u64| {
                    let mut census = Census::default();
                    chunk(at, &mut census).map(|_| census)
                };
                let found = (0..chunks).into_par_iter().map(apart).reduce(|| Ok(Census::default()), merge)?;
                census.merge(&found);
                census.compared
            } else {
                (0..chunks).try_fold(0, |selected, at| Ok::<u64, String>(selected + chunk(at, census)?))?
            }
        };
        if selected == 0 {
            return Err(format!("`where` selects no element in round {}: nothing of `{}` was compared", slot.round, tensor.name));
        }
        if census.compared != selected || (check.mask.is_none() && selected != elements) {
            return Err(format!("{} of {elements} elements were compared, {selected} were selected", census.compared));
        }
        Ok(())
    });
    work.sets[index] = set;
    result
}

/// The registers of this thread for the expectation of a round with a set, where it is a program.
pub(super) fn registers<'h>(host: &'h HostSide<'_>, index: usize, set: u32) -> Option<std::sync::MutexGuard<'h, Registers>> {
    let check = host.registers.get(index)?;
    let want = if check.len() > 1 { set as usize } else { 0 };
    check.get(want).filter(|threads| !threads.is_empty()).map(|threads| lock(threads))
}

/// The elements of a check whose programs are prepared.
pub(super) fn source<'a>(round: Round<'a>, inputs: &'a RoundInputs<'a>, work: &'a Work, index: usize) -> Result<Source<'a>, String> {
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    let want_index = check.want(slot.set);
    Ok(Source {
        check,
        tensor: &job.tensors[check.tensor],
        got: slot.output(plan, check.tensor).ok_or("the plan does not read this tensor back")?,
        want: check.wants.get(want_index),
        scratch: inputs.host.scratch[index].get(want_index).and_then(Option::as_ref),
        work,
        index,
        inputs,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poison_is_found_where_it_is() {
        for dtype in Dtype::ALL {
            let word = PoisonWord { word: 0xb3a5_9c71, spaced: false };
            let mut bytes = vec![0; 37 * dtype.size()];
            assert_eq!(word.count(dtype, &bytes), 0, "{dtype}");
            for place in [0, 5, 36] {
                dtype.store(&mut bytes, place, word.element(dtype, place as u64));
            }
            assert_eq!(word.count(dtype, &bytes), 3, "{dtype}");
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = word.word.to_le_bytes()[at % 4];
            }
            assert_eq!(word.count(dtype, &bytes), 37, "{dtype}");
        }
    }

    #[test]
    fn poison_is_found_where_rows_were_spaced() {
        for dtype in Dtype::ALL {
            let word = PoisonWord { word: 0xb3a5_9c71, spaced: true };
            let size = dtype.size();
            let on_device: Vec<u8> = word.word.to_le_bytes().into_iter().cycle().take(11 * 4 * size).collect();
            let mut bytes = vec![0; 11 * 3 * size];
            rows::gather(size, &on_device, 0, &mut bytes);
            assert_eq!(word.count(dtype, &bytes), 33, "{dtype}");
            assert!((0..33).all(|place| dtype.load(&bytes, place as usize) == word.element(dtype, place)), "{dtype}");
            dtype.store(&mut bytes, 20, 0);
            assert_eq!(word.count(dtype, &bytes), 32, "{dtype}");
        }
    }
}
