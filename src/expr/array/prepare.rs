//! What a round evaluates before its blocks: the stages of a program, each once and whole.

use rayon::prelude::*;

use super::body::Body;
use super::matmul::{self, Extents};
use super::run::{self, Context, Registers};
use super::stage::{Home, Product, ROUND, Slot, Stage};
use super::{Buffer, Inputs, Program, Scratch, along, groups, reduce};
use crate::diag::TextError;
use crate::expr::ops::Class;
use crate::expr::{BLOCK, Block};

impl Program {
    /// Evaluates what must be whole before any element of the result is known, and what is one number.
    ///
    /// Comes before the blocks of every round. Allocates nothing. With `parallel`, uses the current pool of threads;
    /// the values do not depend on it.
    ///
    /// *Errors*: overflow and division by zero of exact integers; a tensor of the wrong size.
    pub fn prepare(&self, scratch: &mut Scratch, inputs: &dyn Inputs, round: u64, parallel: bool) -> Result<(), TextError> {
        self.check(inputs)?;
        scratch.slots[ROUND] = Slot::int(round.into());
        for stage in &self.stages {
            // The buffer is away while it is written; a stage never reads its own.
            let empty = || Buffer::Float(Vec::new());
            let mut into = stage.into().map_or_else(empty, |into| std::mem::replace(&mut scratch.buffers[into], empty()));
            let done = compute(stage, &mut into, scratch, inputs, parallel);
            if let Some(at) = stage.into() {
                scratch.buffers[at] = into;
            }
            done?;
        }
        Ok(())
    }
}

/// Computes one stage; `buffer` is the one that it fills, where it fills one.
fn compute(stage: &Stage, buffer: &mut Buffer, scratch: &mut Scratch, inputs: &dyn Inputs, parallel: bool) -> Result<(), TextError> {
    let Scratch { slots, buffers, partials, pack, counts, mask, workers } = scratch;
    match stage {
        Stage::Number { code, args, into, span } => {
            slots[*into] = run::one(*code, *args, slots).map_err(|fault| fault.at(span))?;
        }
        Stage::Read { leaf, class, into } => {
            slots[*into] = match class {
                Class::Float => {
                    let mut value = [0.0];
                    leaf.load(&mut value, 0, inputs, buffers);
                    Slot::float(value[0])
                }
                Class::Int => {
                    let mut value = [0];
                    leaf.load(&mut value, 0, inputs, buffers);
                    Slot::int(value[0])
                }
            };
        }
        Stage::Fill { body, .. } => fill(body, buffer, Context { slots, buffers, inputs }, workers, parallel)?,
        Stage::Reduce { fold, body, run, results, into, span } => {
            let mut slot = Slot::default();
            let store = |at: usize, value: Slot| match (into, &mut *buffer) {
                (Home::Slot(_), _) => slot = value,
                (_, Buffer::Float(values)) => values[at] = value.float,
                (_, Buffer::Int(values)) => values[at] = value.int,
            };
            let context = Context { slots, buffers, inputs };
            reduce::reduce((*fold, body, *run, span), *results, context, partials, workers, parallel, store)?;
            if let Home::Slot(into) = into {
                slots[*into] = slot;
            }
        }
        Stage::Product(product) => multiply(product, buffers, buffer, pack, parallel)?,
        Stage::Along { along, body, run, span, .. } => {
            fill(body, buffer, Context { slots, buffers, inputs }, workers, parallel)?;
            along::along(*along, buffer, *run as usize, partials, parallel).map_err(|fault| fault.at(span))?;
        }
        Stage::Compress(choice) => {
            if let Some(worker) = workers.first_mut() {
                groups::compress(choice, buffer, Context { slots, buffers, inputs }, worker, mask)?;
            }
        }
        Stage::Bincount { body, bins, span, .. } => {
            if let Buffer::Int(into) = buffer {
                let context = Context { slots, buffers, inputs };
                groups::bincount((body, *bins, span), into, counts, context, workers, parallel)?;
            }
        }
        Stage::Segments(segments) => {
            if let Buffer::Int(bounds) = &buffers[segments.bounds] {
                groups::segment_sum(segments, bounds, buffer, Context { slots, buffers, inputs }, workers, parallel)?;
            }
        }
    }
    Ok(())
}

/// Writes all elements of a body to a buffer.
fn fill(body: &Body, buffer: &mut Buffer, context: Context<'_>, workers: &mut [Registers], parallel: bool) -> Result<(), TextError> {
    match buffer {
        Buffer::Float(values) => fill_with(body, values, context, workers, parallel, |block, into| {
            if let Block::Float(block) = block {
                into.copy_from_slice(block);
            }
        }),
        Buffer::Int(values) => fill_with(body, values, context, workers, parallel, |block, into| {
            if let Block::Int(block) = block {
                into.copy_from_slice(block);
            }
        }),
    }
}

fn fill_with<T: Send>(
    body: &Body,
    values: &mut [T],
    context: Context<'_>,
    workers: &mut [Registers],
    parallel: bool,
    copy: impl Fn(Block<'_>, &mut [T]) + Sync,
) -> Result<(), TextError> {
    let threads = if parallel && values.len() > 64 * BLOCK { workers.len().max(1) } else { 1 };
    let share = values.len().div_ceil(threads).next_multiple_of(BLOCK).max(BLOCK);
    let work = |at: usize, part: &mut [T], registers: &mut Registers| -> Result<(), TextError> {
        for (block, into) in part.chunks_mut(BLOCK).enumerate() {
            copy(run::block(body, registers, context, (at * share + block * BLOCK) as u64, into.len())?, into);
        }
        Ok(())
    };
    if threads == 1 {
        return work(0, values, &mut workers[0]);
    }
    first_error(values.par_chunks_mut(share).zip(workers.par_iter_mut()).enumerate(), |(at, (part, registers))| work(at, part, registers))
}

/// Does all of some shares; of several errors the one of the first share is given.
pub(super) fn first_error<I: IndexedParallelIterator>(
    shares: I,
    work: impl Fn(I::Item) -> Result<(), TextError> + Sync + Send,
) -> Result<(), TextError> {
    match shares.filter_map(|share| work(share).err()).find_first(|_| true) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl Product {
    pub(super) fn extents(&self) -> Extents {
        Extents { rows: self.rows, inner: self.inner, columns: self.columns }
    }
}

/// All matrices of a batch.
fn multiply(product: &Product, buffers: &[Buffer], into: &mut Buffer, pack: &mut [f64], parallel: bool) -> Result<(), TextError> {
    let extents = product.extents();
    let (left_size, right_size, size) = (extents.rows * extents.inner, extents.inner * extents.columns, extents.rows * extents.columns);
    let count: u64 = product.batch.iter().map(|&(extent, ..)| extent).product();
    for at in 0..count {
        let (mut rest, mut left_at, mut right_at) = (at, 0, 0);
        for &(extent, left, right) in product.batch.iter().rev() {
            left_at += (rest % extent) * left;
            right_at += (rest % extent) * right;
            rest /= extent;
        }
        let (left_at, right_at, at) = (left_at as usize * left_size, right_at as usize * right_size, at as usize * size);
        match (&buffers[product.left], &buffers[product.right], &mut *into) {
            (Buffer::Float(left), Buffer::Float(right), Buffer::Float(into)) => {
                let (left, right) = (&left[left_at..left_at + left_size], &right[right_at..right_at + right_size]);
                matmul::floats(extents, left, right, &mut into[at..at + size], pack, parallel);
            }
            (Buffer::Int(left), Buffer::Int(right), Buffer::Int(into)) => {
                let (left, right) = (&left[left_at..left_at + left_size], &right[right_at..right_at + right_size]);
                matmul::ints(extents, left, right, &mut into[at..at + size], parallel).map_err(|fault| fault.at(&product.span))?;
            }
            // Both operands and the result have the product's class.
            _ => {}
        }
    }
    Ok(())
}
