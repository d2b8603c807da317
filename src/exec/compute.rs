//! Contents that are computed from other contents of the same round, and those: each after what its expression names.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::CHUNK;
use super::collect::encode;
use crate::data::Source;
use crate::expr::{BLOCK, Block, Inputs, Program, Registers, Scratch};
use crate::job::{Contents, Draw, Job, Tensor};
use crate::tensor::Number;

/// The tensors with an expression as contents and all that these name, each after those that its expressions name.
///
/// Nothing names itself: such specs are refused when the job is resolved.
pub(super) fn order(job: &Job) -> Vec<usize> {
    let names = |id: usize| job.tensors[id].contents.programs().flat_map(Program::tensors);
    let mut order = Vec::new();
    let mut seen = vec![false; job.tensors.len()];
    for id in 0..job.tensors.len() {
        if job.tensors[id].contents.programs().next().is_none() {
            continue;
        }
        // A tensor comes off the list a second time when what it names is in the order.
        let mut work = vec![(id, false)];
        while let Some((id, named)) = work.pop() {
            if named {
                order.push(id);
            } else if !std::mem::replace(&mut seen[id], true) {
                work.push((id, true));
                work.extend(names(id).map(|&id| (id, false)));
            }
        }
    }
    order
}

/// What evaluating one program takes: allocated once.
pub(super) struct Tools {
    scratch: Scratch,
    /// By thread.
    registers: Vec<Mutex<Registers>>,
}

impl Tools {
    pub fn new(program: &Program, parallel: bool) -> Tools {
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        Tools { scratch: program.scratch(threads), registers: (0..threads).map(|_| Mutex::new(program.registers())).collect() }
    }
}

/// Writes all elements of a tensor as its program has them in a round.
///
/// *Errors*: what the program cannot compute, and a value that the dtype does not hold, with its index.
pub(super) fn evaluate(
    program: &Program,
    tools: &mut Tools,
    inputs: &dyn Inputs,
    tensor: &Tensor,
    round: u64,
    parallel: bool,
    out: &mut [u8],
) -> Result<(), String> {
    let failed = |message: String| format!("contents of `{}`: {message}", tensor.name);
    program.prepare(&mut tools.scratch, inputs, round, parallel).map_err(|e| failed(e.message))?;
    let Tools { scratch, registers } = tools;
    let size = tensor.dtype.size();
    let part = |at: usize, part: &mut [u8]| {
        let thread = rayon::current_thread_index().unwrap_or(0) % registers.len();
        let mut registers = registers[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = at as u64 * CHUNK;
        for out in part.chunks_mut(BLOCK * size) {
            let block = program.block(scratch, &mut registers, inputs, round, first, out.len() / size).map_err(|e| failed(e.message))?;
            store(tensor, block, first, out).map_err(failed)?;
            first += BLOCK as u64;
        }
        Ok(())
    };
    let chunk = CHUNK as usize * size;
    if parallel && out.len() > chunk {
        let failures = out.par_chunks_mut(chunk).enumerate().filter_map(|(at, out)| part(at, out).err());
        failures.find_first(|_| true).map_or(Ok(()), Err)
    } else {
        out.chunks_mut(chunk).enumerate().try_for_each(|(at, out)| part(at, out))
    }
}

/// Writes computed elements: floats rounded once, whole numbers as they are.
fn store(tensor: &Tensor, block: Block<'_>, first: u64, out: &mut [u8]) -> Result<(), String> {
    let dtype = tensor.dtype;
    let Block::Int(values) = block else {
        encode(dtype, block, out);
        return Ok(());
    };
    for (i, value) in values.iter().enumerate() {
        let bits = dtype.encode(Number::Int(*value)).map_err(|error| {
            let index = tensor.shape.index_of(first + i as u64);
            format!("at {index:?}, {error}")
        })?;
        dtype.store(out, i, bits);
    }
    Ok(())
}

/// What the contents of one lane's round are computed from, and what comes of it.
pub(super) struct Computed {
    order: Vec<usize>,
    /// The round and set that `bytes` are of.
    now: Option<(u64, u32)>,
    /// By tensor: contents of the round, of those in `order` that are drawn.
    bytes: Vec<Vec<u8>>,
    /// By tensor.
    tools: Vec<Option<Tools>>,
}

impl Computed {
    pub fn new(job: &Job, parallel: bool) -> Computed {
        let order: Vec<usize> = order(job).into_iter().filter(|&id| job.tensors[id].contents.is_drawn()).collect();
        let mut bytes = vec![Vec::new(); job.tensors.len()];
        let mut tools: Vec<Option<Tools>> = (0..job.tensors.len()).map(|_| None).collect();
        for &id in &order {
            bytes[id] = vec![0; job.tensors[id].bytes() as usize];
            if let Contents::Drawn(draw) = &job.tensors[id].contents
                && let Source::Program(program) = &draw.source
            {
                tools[id] = Some(Tools::new(program, parallel));
            }
        }
        Computed { order, now: None, bytes, tools }
    }

    /// Makes the contents of a round. `draw` writes those that no expression gives, `fixed` has those that no round changes.
    pub fn begin(
        &mut self,
        job: &Job,
        (set, round): (u32, u64),
        parallel: bool,
        draw: impl Fn(usize, &mut [u8]) -> Result<(), String>,
        fixed: &[Vec<Vec<u8>>],
    ) -> Result<(), String> {
        if self.now == Some((round, set)) {
            return Ok(());
        }
        self.now = None;
        for at in 0..self.order.len() {
            let id = self.order[at];
            // They are away while they are written; nothing names itself.
            let mut out = std::mem::take(&mut self.bytes[id]);
            let made = match (&job.tensors[id].contents, &mut self.tools[id]) {
                (Contents::Drawn(Draw { source: Source::Program(program), .. }), Some(tools)) => {
                    let inputs = Made { drawn: &self.bytes, fixed, set };
                    evaluate(program, tools, &inputs, &job.tensors[id], round, parallel, &mut out)
                }
                _ => draw(id, &mut out),
            };
            self.bytes[id] = out;
            made?;
        }
        self.now = Some((round, set));
        Ok(())
    }

    /// The contents of a tensor in a round, where they are made here.
    ///
    /// *Errors*: they are of another round.
    pub fn of(&self, tensor: usize, set: u32, round: u64) -> Result<Option<&[u8]>, String> {
        match (self.bytes[tensor].is_empty(), self.now == Some((round, set))) {
            (true, _) => Ok(None),
            (false, true) => Ok(Some(&self.bytes[tensor])),
            (false, false) => Err(format!("the contents of round {round} are not at hand")),
        }
    }
}

/// What programs read: the contents of a set and, where there is one, of a round.
pub(super) struct Made<'a> {
    /// By tensor.
    pub drawn: &'a [Vec<u8>],
    /// By tensor and set.
    pub fixed: &'a [Vec<Vec<u8>>],
    pub set: u32,
}

impl Inputs for Made<'_> {
    fn bytes(&self, id: usize) -> &[u8] {
        match self.drawn.get(id) {
            Some(bytes) if !bytes.is_empty() => bytes,
            _ => of_set(self.fixed, id, self.set).unwrap_or(&[]),
        }
    }
}

/// A tensor's contents in a set: of its own, or those of all sets.
pub(super) fn of_set(fixed: &[Vec<Vec<u8>>], id: usize, set: u32) -> Option<&[u8]> {
    let sets = &fixed[id];
    sets.get((set as usize).min(sets.len().saturating_sub(1))).map(Vec::as_slice)
}
