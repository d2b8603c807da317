//! What gathers elements by what others say: `compress`, `bincount`, `segment_sum`.

use rayon::prelude::*;

use super::Buffer;
use super::body::Body;
use super::prepare::first_error;
use super::reduce::{Partial, fold_floats, fold_ints, identity, merge};
use super::run::{Context, Registers, block};
use super::stage::{Choice, Segments};
use crate::diag::TextError;
use crate::expr::ast::Span;
use crate::expr::ops::Fold;
use crate::expr::{BLOCK, Block};

/// Elements from which threads are worth their start.
const PARALLEL: u64 = 64 * BLOCK as u64;

/// Copies the rows that the mask chooses, in order.
///
/// *Errors*: those of both bodies; more or fewer rows than the result has.
pub(super) fn compress(
    choice: &Choice,
    into: &mut Buffer,
    context: Context<'_>,
    registers: &mut Registers,
    masks: &mut Registers,
) -> Result<(), TextError> {
    let (width, wanted) = (choice.width as usize, choice.wanted);
    let mut chosen = 0u64;
    for start in (0..choice.rows).step_by(BLOCK) {
        let len = (choice.rows - start).min(BLOCK as u64) as usize;
        let Block::Int(mask) = block(&choice.mask, masks, context, start, len)? else { continue };
        // Rows of one element are computed a block at a time.
        let singles = match width {
            1 if mask.iter().any(|&bit| bit != 0) => Some(block(&choice.body, registers, context, start, len)?),
            _ => None,
        };
        if let Some(values) = singles {
            for (at, _) in mask.iter().enumerate().filter(|(_, bit)| **bit != 0) {
                if chosen < wanted {
                    copy(values, at, 1, into, chosen as usize);
                }
                chosen += 1;
            }
            continue;
        }
        for (at, _) in mask.iter().enumerate().filter(|(_, bit)| **bit != 0) {
            for from in (0..if chosen < wanted { width } else { 0 }).step_by(BLOCK) {
                let len = (width - from).min(BLOCK);
                let first = (start + at as u64) * choice.width + from as u64;
                let values = block(&choice.body, registers, context, first, len)?;
                copy(values, 0, len, into, chosen as usize * width + from);
            }
            chosen += 1;
        }
    }
    if chosen == wanted {
        return Ok(());
    }
    let rows = |n: u64| if n == 1 { "row" } else { "rows" };
    let message = format!("`compress` gives {chosen} {} in this round, the tensor has {wanted}", rows(chosen));
    Err(TextError::new(choice.span.clone(), message))
}

fn copy(values: Block<'_>, from: usize, len: usize, into: &mut Buffer, at: usize) {
    match (values, into) {
        (Block::Float(values), Buffer::Float(into)) => into[at..at + len].copy_from_slice(&values[from..from + len]),
        (Block::Int(values), Buffer::Int(into)) => into[at..at + len].copy_from_slice(&values[from..from + len]),
        // The buffer has the body's class.
        _ => {}
    }
}

/// Counts how often each number below `bins` stands in a body; `counts` has room for each thread, or none.
///
/// *Errors*: those of the body; numbers that are no bin.
pub(super) fn bincount(
    (body, bins, span): (&Body, u64, &Span),
    into: &mut [i128],
    counts: &mut [u64],
    context: Context<'_>,
    workers: &mut [Registers],
    parallel: bool,
) -> Result<(), TextError> {
    let elements: u64 = body.extents.iter().product();
    let share = |from: u64, to: u64, registers: &mut Registers, count: &mut dyn FnMut(usize)| -> Result<(), TextError> {
        for start in (from..to).step_by(BLOCK) {
            let len = (to - start).min(BLOCK as u64) as usize;
            let Block::Int(values) = block(body, registers, context, start, len)? else { continue };
            for (at, &value) in values.iter().enumerate() {
                match u64::try_from(value) {
                    Ok(bin) if bin < bins => count(bin as usize),
                    _ => {
                        let position = start + at as u64;
                        let range = if bins == 0 { "there are no bins".to_string() } else { format!("the bins are 0 to {}", bins - 1) };
                        return Err(TextError::new(span.clone(), format!("`bincount` of {value}, at position {position}: {range}")));
                    }
                }
            }
        }
        Ok(())
    };
    into.fill(0);
    let threads = workers.len() as u64;
    let room = bins > 0 && threads > 1 && counts.len() as u64 >= bins * threads;
    if !(parallel && room && elements > PARALLEL) {
        return share(0, elements, &mut workers[0], &mut |bin| into[bin] += 1);
    }
    let counts = &mut counts[..(bins * threads) as usize];
    counts.fill(0);
    let each = elements.div_ceil(threads).next_multiple_of(BLOCK as u64);
    let shares = counts.par_chunks_mut(bins as usize).zip(workers.par_iter_mut()).enumerate();
    first_error(shares, |(at, (counts, registers))| {
        let from = (at as u64 * each).min(elements);
        share(from, (from + each).min(elements), registers, &mut |bin| counts[bin] += 1)
    })?;
    for counts in counts.chunks(bins as usize) {
        into.iter_mut().zip(counts).for_each(|(all, &count)| *all += i128::from(count));
    }
    Ok(())
}

/// Sums the elements between neighbours of `bounds`, in each run of the body.
///
/// A sum is cut where blocks of the run end, and nowhere else, so that it does not depend on threads.
///
/// *Errors*: those of the body; bounds that descend or lie outside of the run; overflow of integers.
pub(super) fn segment_sum(
    segments: &Segments,
    bounds: &[i128],
    into: &mut Buffer,
    context: Context<'_>,
    workers: &mut [Registers],
    parallel: bool,
) -> Result<(), TextError> {
    let mut least = 0;
    for (at, &bound) in bounds.iter().enumerate() {
        let message = match bound {
            _ if bound < least && at == 0 => format!("entry 0 of `indptr` is {bound}, it must be at least 0"),
            _ if bound < least => format!("entry {at} of `indptr` is {bound}, less than the {least} before it"),
            _ if bound > segments.run.into() => format!("entry {at} of `indptr` is {bound}, beyond the {} elements", segments.run),
            _ => {
                least = bound;
                continue;
            }
        };
        return Err(TextError::new(segments.bounds_span.clone(), message));
    }
    let sum = |first: usize, len: usize, registers: &mut Registers, store: &mut dyn FnMut(usize, Partial)| {
        sums(segments, bounds, context, first, len, registers, store)
    };
    match into {
        Buffer::Float(values) => shared(values, segments.run, workers, parallel, |first, part, registers| {
            sum(first, part.len(), registers, &mut |at, sum| part[at] = sum.total())
        }),
        Buffer::Int(values) => shared(values, segments.run, workers, parallel, |first, part, registers| {
            sum(first, part.len(), registers, &mut |at, sum| part[at] = sum.int)
        }),
    }
}

/// Deals results to threads.
fn shared<T: Send>(
    values: &mut [T],
    run: u64,
    workers: &mut [Registers],
    parallel: bool,
    work: impl Fn(usize, &mut [T], &mut Registers) -> Result<(), TextError> + Sync + Send,
) -> Result<(), TextError> {
    let threads = if parallel && values.len() > 1 && run > PARALLEL { workers.len().max(1) } else { 1 };
    if threads == 1 {
        return work(0, values, &mut workers[0]);
    }
    let share = values.len().div_ceil(threads);
    let shares = values.par_chunks_mut(share).zip(workers.par_iter_mut()).enumerate();
    first_error(shares, |(at, (part, registers))| work(at * share, part, registers))
}

/// The sums `first..first + len` of all runs' segments.
fn sums(
    of: &Segments,
    bounds: &[i128],
    context: Context<'_>,
    first: usize,
    len: usize,
    registers: &mut Registers,
    store: &mut dyn FnMut(usize, Partial),
) -> Result<(), TextError> {
    let (ends, count) = ([bounds[0] as u64, bounds[bounds.len() - 1] as u64], of.segments as usize);
    // The run and the elements of it that the registers hold.
    let mut held = (usize::MAX, 0..0);
    for at in 0..len {
        let (run, segment) = ((first + at) / count, (first + at) % count);
        let mut sum = identity(Fold::Sum);
        let (mut from, end) = (bounds[segment] as u64, bounds[segment + 1] as u64);
        while from < end {
            // The part of a block that some segment has.
            let start = (from / BLOCK as u64 * BLOCK as u64).max(ends[0]);
            let stop = ((from / BLOCK as u64 + 1) * BLOCK as u64).min(ends[1]);
            let part = block_of(of, (run, start..stop), &mut held, context, registers)?;
            let inside = (from - start) as usize..(end.min(stop) - start) as usize;
            let next = match part {
                Block::Float(values) => fold_floats(Fold::Sum, &values[inside]),
                Block::Int(values) => fold_ints(Fold::Sum, &values[inside]).map_err(|fault| fault.at(&of.span))?,
            };
            sum = merge(Fold::Sum, of.body.class, sum, next).map_err(|fault| fault.at(&of.span))?;
            from = stop.min(end);
        }
        store(at, sum);
    }
    Ok(())
}

/// Elements of a run, computed where the registers do not hold them.
fn block_of<'r>(
    of: &Segments,
    wanted: (usize, std::ops::Range<u64>),
    held: &mut (usize, std::ops::Range<u64>),
    context: Context<'_>,
    registers: &'r mut Registers,
) -> Result<Block<'r>, TextError> {
    let len = (wanted.1.end - wanted.1.start) as usize;
    if *held == wanted {
        return Ok(registers.last(&of.body, len));
    }
    let start = wanted.0 as u64 * of.run + wanted.1.start;
    // An error leaves nothing that could be taken for held.
    *held = (usize::MAX, 0..0);
    let values = block(&of.body, registers, context, start, len)?;
    *held = wanted;
    Ok(values)
}
