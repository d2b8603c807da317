//! Reductions: runs of a body's elements folded into one number each.
//!
//! A run is cut into chunks of 65,536 elements whose partial results are merged in order, so that the result
//! does not depend on threads. *Source* of the sums: Knuth's two-sum, the error of each addition kept beside it.

use rayon::prelude::*;

use super::body::{Arg, Body};
use super::run::{Context, Registers, run};
use super::stage::Slot;
use crate::diag::TextError;
use crate::expr::BLOCK;
use crate::expr::ast::Span;
use crate::expr::number::{max, min};
use crate::expr::ops::{Class, Fault, Fold};
use crate::tensor::simd::{Level, per_level};

/// Elements of a run that one partial result stands for.
pub(super) const CHUNK: u64 = 65_536;
/// Independent folds of one slice: the same number on every machine.
const LANES: usize = 16;
/// The same for sums, whose lanes stay in memory.
const SUM_LANES: usize = 64;
/// Elements from which threads are worth their start.
pub(super) const PARALLEL: u64 = 65_536;

/// A fold of some elements. Only the class of the elements is used.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Partial {
    pub float: f64,
    /// What the additions so far lost to rounding.
    pub error: f64,
    pub int: i128,
    /// Where in its run the smallest or greatest element is; [`NOWHERE`] while there is none.
    at: u64,
}

const NOWHERE: u64 = u64::MAX;

/// How many partial results a reduction keeps.
pub(super) fn partials(run: u64, results: u64) -> u64 {
    results.saturating_mul(run.div_ceil(CHUNK).max(1))
}

/// Folds each run of `length` elements of the body; gives `store` the results in order.
///
/// *Errors*: those of the body, and overflow of integer sums and products.
#[allow(clippy::too_many_arguments)]
pub(super) fn reduce(
    (fold, body, length, span): (Fold, &Body, u64, &Span),
    results: u64,
    context: Context<'_>,
    partials: &mut [Partial],
    workers: &mut [Registers],
    parallel: bool,
    mut store: impl FnMut(usize, Slot),
) -> Result<(), TextError> {
    let chunks = length.div_ceil(CHUNK).max(1) as usize;
    let partials = &mut partials[..results as usize * chunks];
    let job = Job { fold, body, length, chunks, span, context };
    let threads = if parallel && length.saturating_mul(results) >= PARALLEL { workers.len() } else { 1 };
    let share = partials.len().div_ceil(threads).max(1);
    if threads == 1 {
        job.units(0, partials, &mut workers[0])?;
    } else {
        let shares = partials.par_chunks_mut(share).zip(workers.par_iter_mut()).enumerate();
        let failed = shares.filter_map(|(at, (part, registers))| job.units(at * share, part, registers).err()).find_first(|_| true);
        if let Some(error) = failed {
            return Err(error);
        }
    }
    for (at, part) in partials.chunks(chunks).enumerate() {
        let whole = part[1..].iter().try_fold(part[0], |all, &next| merge(fold, body.class, all, next));
        let whole = whole.map_err(|fault| fault.at(span))?;
        let slot = match (fold, body.class) {
            (Fold::Mean, Class::Float) => Slot::float(whole.total() / length as f64),
            (Fold::Mean, Class::Int) => Slot::float(whole.int as f64 / length as f64),
            (Fold::ArgMin | Fold::ArgMax, _) => Slot::int(whole.at.into()),
            (_, Class::Float) => Slot::float(whole.total()),
            (_, Class::Int) => Slot::int(whole.int),
        };
        store(at, slot);
    }
    Ok(())
}

impl Partial {
    /// A sum with its error added; infinities and NaN have none.
    #[inline(always)]
    pub fn total(self) -> f64 {
        let sum = self.float + self.error;
        if self.float.is_finite() { sum } else { self.float }
    }

    /// The sum with one more element.
    #[inline(always)]
    pub fn plus(self, value: f64) -> Partial {
        let (float, lost) = two_sum(self.float, value);
        Partial { float, error: self.error + lost, ..self }
    }
}

struct Job<'a> {
    fold: Fold,
    body: &'a Body,
    length: u64,
    chunks: usize,
    span: &'a Span,
    context: Context<'a>,
}

impl Job<'_> {
    /// Computes partial results `first..`, each of one chunk of one run.
    fn units(&self, first: usize, partials: &mut [Partial], registers: &mut Registers) -> Result<(), TextError> {
        partials.fill(identity(self.fold));
        if self.length == 0 {
            return Ok(());
        }
        if self.length <= BLOCK as u64 {
            // Several whole runs fill a block.
            let length = self.length as usize;
            let group = BLOCK / length;
            for (at, part) in partials.chunks_mut(group).enumerate() {
                let start = (first + at * group) as u64 * self.length;
                run(self.body, registers, self.context, start, part.len() * length)?;
                for (of, partial) in part.iter_mut().enumerate() {
                    self.slice(partial, registers, of * length, length, 0)?;
                }
            }
            return Ok(());
        }
        for (at, partial) in partials.iter_mut().enumerate() {
            let (result, chunk) = ((first + at) / self.chunks, (first + at) % self.chunks);
            let (low, high) = (chunk as u64 * CHUNK, self.length.min((chunk as u64 + 1) * CHUNK));
            for from in (low..high).step_by(BLOCK) {
                let len = (high - from).min(BLOCK as u64) as usize;
                run(self.body, registers, self.context, result as u64 * self.length + from, len)?;
                self.slice(partial, registers, 0, len, from)?;
            }
        }
        Ok(())
    }

    /// Folds elements `from..from + len` of the block that was just computed, of which the first is number `position` of its run.
    fn slice(&self, partial: &mut Partial, registers: &Registers, from: usize, len: usize, position: u64) -> Result<(), TextError> {
        let mut one = [0.0; LANES];
        let next = match (self.body.class, self.body.result) {
            // Of equal elements the first counts.
            (_, Arg::Slot(slot)) if self.fold.is_position() => {
                Partial { float: self.context.slots[slot].float, int: self.context.slots[slot].int, at: position, error: 0.0 }
            }
            (Class::Float, Arg::Register(at)) => {
                let values = &registers.float(at)[from..from + len];
                let next = fold_floats(self.fold, values);
                let found = |x: &f64| *x == next.float || (x.is_nan() && next.float.is_nan());
                self.located(next, values.iter().position(found), position)
            }
            (Class::Int, Arg::Register(at)) => {
                let values = &registers.int(at)[from..from + len];
                let next = fold_ints(self.fold, values).map_err(|fault| fault.at(self.span))?;
                self.located(next, values.iter().position(|x| *x == next.int), position)
            }
            (class, result) => {
                // The same number so many times, as many at once as fit.
                let value = match result {
                    Arg::Slot(slot) => self.context.slots[slot],
                    _ => Slot::default(),
                };
                one.fill(value.float);
                let mut all = identity(self.fold);
                for at in (0..len).step_by(LANES) {
                    let count = (len - at).min(LANES);
                    let next = match class {
                        Class::Float => fold_floats(self.fold, &one[..count]),
                        Class::Int => fold_ints(self.fold, &[value.int; LANES][..count]).map_err(|fault| fault.at(self.span))?,
                    };
                    all = merge(self.fold, class, all, next).map_err(|fault| fault.at(self.span))?;
                }
                all
            }
        };
        *partial = merge(self.fold, self.body.class, *partial, next).map_err(|fault| fault.at(self.span))?;
        Ok(())
    }
}

impl Job<'_> {
    /// The fold of a slice, with the place of its smallest or greatest element.
    fn located(&self, next: Partial, found: Option<usize>, position: u64) -> Partial {
        let at = if self.fold.is_position() { found.map_or(position, |at| position + at as u64) } else { 0 };
        Partial { at, ..next }
    }
}

impl Fold {
    /// Whether the result is where an element is, not the element.
    fn is_position(self) -> bool {
        matches!(self, Fold::ArgMin | Fold::ArgMax)
    }
}

/// The fold of no elements.
pub(super) fn identity(fold: Fold) -> Partial {
    match fold {
        Fold::Sum | Fold::Mean | Fold::Any => Partial::default(),
        Fold::Prod | Fold::All => Partial { float: 1.0, int: 1, ..Partial::default() },
        Fold::Min | Fold::ArgMin => Partial { float: f64::INFINITY, error: 0.0, int: i128::MAX, at: NOWHERE },
        Fold::Max | Fold::ArgMax => Partial { float: f64::NEG_INFINITY, error: 0.0, int: i128::MIN, at: NOWHERE },
    }
}

/// The fold of the elements of both, those of `a` first.
pub(super) fn merge(fold: Fold, class: Class, a: Partial, b: Partial) -> Result<Partial, Fault> {
    if fold.is_position() {
        let better = match (class, fold) {
            (Class::Int, Fold::ArgMin) => b.int < a.int,
            (Class::Int, _) => b.int > a.int,
            (Class::Float, Fold::ArgMin) => b.float < a.float || (b.float.is_nan() && !a.float.is_nan()),
            (Class::Float, _) => b.float > a.float || (b.float.is_nan() && !a.float.is_nan()),
        };
        return Ok(if a.at == NOWHERE || better { b } else { a });
    }
    Ok(match class {
        Class::Int => Partial { int: fold_int(fold, a.int, b.int)?, ..a },
        Class::Float => match fold {
            Fold::Prod => Partial { float: a.float * b.float, ..a },
            Fold::Min => Partial { float: min(a.float, b.float), ..a },
            Fold::Max => Partial { float: max(a.float, b.float), ..a },
            _ => {
                let (float, error) = two_sum(a.float, b.float);
                Partial { float, error: a.error + b.error + error, ..a }
            }
        },
    })
}

#[inline(always)]
fn fold_int(fold: Fold, a: i128, b: i128) -> Result<i128, Fault> {
    match fold {
        Fold::Sum | Fold::Mean => a.checked_add(b).ok_or(Fault::Overflow("sum")),
        Fold::Prod => a.checked_mul(b).ok_or(Fault::Overflow("prod")),
        Fold::Min | Fold::ArgMin => Ok(a.min(b)),
        Fold::Max | Fold::ArgMax => Ok(a.max(b)),
        Fold::Any => Ok((a != 0 || b != 0).into()),
        Fold::All => Ok((a != 0 && b != 0).into()),
    }
}

pub(super) fn fold_ints(fold: Fold, values: &[i128]) -> Result<Partial, Fault> {
    let mut all = identity(fold);
    match fold {
        Fold::Sum | Fold::Mean => {
            for &value in values {
                all.int = fold_int(Fold::Sum, all.int, value)?;
            }
        }
        Fold::Any => all.int = values.iter().any(|&value| value != 0).into(),
        Fold::All => all.int = values.iter().all(|&value| value != 0).into(),
        _ => {
            for &value in values {
                all.int = fold_int(fold, all.int, value)?;
            }
        }
    }
    Ok(all)
}

/// The sum, rounded, and exactly what rounding lost.
#[inline(always)]
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_rounded = sum - a;
    (sum, (a - (sum - b_rounded)) + (b - b_rounded))
}

pub(super) fn fold_floats(fold: Fold, values: &[f64]) -> Partial {
    fold_at(Level::detect(), fold, values)
}

per_level! {
    fn fold_at(level; fold: Fold, values: &[f64]) -> Partial {
        lanes(fold, values)
    }
}

/// Folds a slice in lanes, then the lanes, always in the same order.
#[inline(always)]
fn lanes(fold: Fold, values: &[f64]) -> Partial {
    match fold {
        Fold::Prod => fold_lanes(fold, values, |a, b| a * b),
        Fold::Min | Fold::ArgMin => fold_lanes(fold, values, min),
        Fold::Max | Fold::ArgMax => fold_lanes(fold, values, max),
        Fold::Sum | Fold::Mean | Fold::Any | Fold::All => {
            let mut all = Partial::default();
            let (whole, rest) = values.as_chunks::<SUM_LANES>();
            if !whole.is_empty() {
                let (mut sums, mut errors) = ([0.0; SUM_LANES], [0.0; SUM_LANES]);
                for chunk in whole {
                    for ((sum, error), &value) in sums.iter_mut().zip(&mut errors).zip(chunk) {
                        let (rounded, lost) = two_sum(*sum, value);
                        *sum = rounded;
                        *error += lost;
                    }
                }
                let mut width = SUM_LANES / 2;
                while width >= 8 {
                    let ((low, high), (low_errors, high_errors)) = (sums.split_at_mut(width), errors.split_at_mut(width));
                    let lanes = low.iter_mut().zip(high).zip(low_errors.iter_mut().zip(high_errors));
                    for ((sum, value), (error, value_error)) in lanes {
                        let (rounded, lost) = two_sum(*sum, *value);
                        *sum = rounded;
                        *error += *value_error + lost;
                    }
                    width /= 2;
                }
                for (&sum, &error) in sums.iter().zip(&errors).take(8) {
                    let (rounded, lost) = two_sum(all.float, sum);
                    all.float = rounded;
                    all.error += error + lost;
                }
            }
            for &value in rest {
                let (rounded, lost) = two_sum(all.float, value);
                all.float = rounded;
                all.error += lost;
            }
            all
        }
    }
}

#[inline(always)]
fn fold_lanes(fold: Fold, values: &[f64], f: impl Fn(f64, f64) -> f64) -> Partial {
    let start = identity(fold);
    let mut lanes = [start.float; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for lane in 0..LANES {
            lanes[lane] = f(lanes[lane], chunk[lane]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, value);
    }
    Partial { float: lanes.into_iter().fold(start.float, f), ..start }
}
