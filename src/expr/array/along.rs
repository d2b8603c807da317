//! What is computed along an axis that lies contiguous in a buffer: running sums, sorting, softmax.
//!
//! A run is cut into chunks of 65,536 elements whose partial results are merged in order, so that the result does not
//! depend on threads. Running sums keep what each addition lost to rounding, as sums do.

use rayon::prelude::*;

use super::Buffer;
use super::reduce::{CHUNK, PARALLEL, Partial, fold_floats, fold_ints, identity, merge};
use crate::expr::ops::{Along, Class, Fault, Fold};

const LONG: usize = CHUNK as usize;

/// Replaces each run of `length` elements.
///
/// *Errors*: overflow of running sums of integers.
pub(super) fn along(what: Along, buffer: &mut Buffer, length: usize, partials: &mut [Partial], parallel: bool) -> Result<(), Fault> {
    match (what, buffer) {
        (Along::Sort, Buffer::Float(values)) => each(values, length, parallel, sort_floats),
        (Along::Sort, Buffer::Int(values)) => each(values, length, parallel, |run, parallel| match parallel {
            true => run.par_sort_unstable(),
            false => run.sort_unstable(),
        }),
        (Along::Softmax, Buffer::Float(values)) if length <= LONG => each(values, length, parallel, |run, _| softmax_short(run)),
        (Along::Softmax, Buffer::Float(values)) => {
            values.chunks_mut(length).try_for_each(|run| softmax_long(run, partials, parallel))?;
        }
        // Softmax is of floats.
        (Along::Softmax, Buffer::Int(_)) => {}
        (Along::Cumsum, Buffer::Float(values)) => {
            let add = |chunk: &mut [f64], start: Partial| {
                chunk.iter_mut().fold(start, |sum, value| {
                    let sum = sum.plus(*value);
                    *value = sum.total();
                    sum
                });
                Ok(())
            };
            let sum = |chunk: &[f64]| Ok(fold_floats(Fold::Sum, chunk));
            sums(values, length, partials, parallel, Class::Float, sum, add)?;
        }
        (Along::Cumsum, Buffer::Int(values)) => {
            let add = |chunk: &mut [i128], start: Partial| {
                let mut sum = start.int;
                for value in chunk {
                    sum = sum.checked_add(*value).ok_or(Fault::Overflow("cumsum"))?;
                    *value = sum;
                }
                Ok(())
            };
            let sum = |chunk: &[i128]| fold_ints(Fold::Sum, chunk).map_err(|_| Fault::Overflow("cumsum"));
            sums(values, length, partials, parallel, Class::Int, sum, add)?;
        }
    }
    Ok(())
}

/// Does something with each run: several at once where there are several, else with threads of its own.
fn each<T: Send>(values: &mut [T], length: usize, parallel: bool, work: impl Fn(&mut [T], bool) + Sync) {
    if length == 0 {
        return;
    }
    let parallel = parallel && values.len() as u64 > PARALLEL;
    match parallel && values.len() > length {
        true => values.par_chunks_mut(length).with_min_len((LONG / length).max(1)).for_each(|run| work(run, parallel)),
        false => values.chunks_mut(length).for_each(|run| work(run, parallel)),
    }
}

/// Ascending; NaN last, -0 before +0.
fn sort_floats(run: &mut [f64], parallel: bool) {
    for value in run.iter_mut().filter(|value| value.is_nan()) {
        *value = f64::NAN;
    }
    match parallel && run.len() > LONG {
        true => run.par_sort_unstable_by(f64::total_cmp),
        false => run.sort_unstable_by(f64::total_cmp),
    }
}

/// Replaces each run by its running sums: the sums of chunks first, then each chunk from the sum of those before it.
fn sums<T: Send + Sync>(
    values: &mut [T],
    length: usize,
    partials: &mut [Partial],
    parallel: bool,
    class: Class,
    sum: impl Fn(&[T]) -> Result<Partial, Fault> + Sync,
    add: impl Fn(&mut [T], Partial) -> Result<(), Fault> + Sync,
) -> Result<(), Fault> {
    if length == 0 {
        return Ok(());
    }
    if length <= LONG {
        let parallel = parallel && values.len() as u64 > PARALLEL;
        return match parallel {
            true => values.par_chunks_mut(length).with_min_len((LONG / length).max(1)).try_for_each(|run| add(run, Partial::default())),
            false => values.chunks_mut(length).try_for_each(|run| add(run, Partial::default())),
        };
    }
    for run in values.chunks_mut(length) {
        match parallel {
            true => run.par_chunks(LONG).zip(&mut *partials).try_for_each(|(chunk, partial)| sum(chunk).map(|s| *partial = s))?,
            false => run.chunks(LONG).zip(&mut *partials).try_for_each(|(chunk, partial)| sum(chunk).map(|s| *partial = s))?,
        }
        let mut all = identity(Fold::Sum);
        for partial in &mut partials[..length.div_ceil(LONG)] {
            let next = merge(Fold::Sum, class, all, *partial).map_err(|_| Fault::Overflow("cumsum"))?;
            *partial = std::mem::replace(&mut all, next);
        }
        match parallel {
            true => run.par_chunks_mut(LONG).zip(&*partials).try_for_each(|(chunk, &start)| add(chunk, start))?,
            false => run.chunks_mut(LONG).zip(&*partials).try_for_each(|(chunk, &start)| add(chunk, start))?,
        }
    }
    Ok(())
}

/// Replaces values by `exp(value - top)`. Gives their sum.
fn exponentials(values: &mut [f64], top: f64) -> Partial {
    for value in values.iter_mut() {
        *value = libm::exp(*value - top);
    }
    fold_floats(Fold::Sum, values)
}

fn softmax_short(run: &mut [f64]) {
    let top = fold_floats(Fold::Max, run).float;
    let sum = exponentials(run, top).total();
    run.iter_mut().for_each(|value| *value /= sum);
}

fn softmax_long(run: &mut [f64], partials: &mut [Partial], parallel: bool) -> Result<(), Fault> {
    let partials = &mut partials[..run.len().div_ceil(LONG)];
    let whole =
        |fold: Fold, partials: &[Partial]| partials.iter().try_fold(identity(fold), |all, &next| merge(fold, Class::Float, all, next));
    chunks(run, partials, parallel, |chunk, partial| *partial = fold_floats(Fold::Max, chunk));
    let top = whole(Fold::Max, partials)?.float;
    chunks(run, partials, parallel, |chunk, partial| *partial = exponentials(chunk, top));
    let sum = whole(Fold::Sum, partials)?.total();
    chunks(run, partials, parallel, |chunk, _| chunk.iter_mut().for_each(|value| *value /= sum));
    Ok(())
}

/// Does something with each chunk of a run and its partial result.
fn chunks(run: &mut [f64], partials: &mut [Partial], parallel: bool, work: impl Fn(&mut [f64], &mut Partial) + Sync + Send) {
    match parallel {
        true => run.par_chunks_mut(LONG).zip(partials).for_each(|(chunk, partial)| work(chunk, partial)),
        false => run.chunks_mut(LONG).zip(partials).for_each(|(chunk, partial)| work(chunk, partial)),
    }
}
