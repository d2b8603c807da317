//! What checks need beyond their expectations: programs of masks and conditions, sums, sorted elements. Made once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::CHUNK;
use super::gather::Gather;
use crate::check::{Multiset, Sums};
use crate::expr::{Inputs, Program, Registers, Scratch};
use crate::job::{Condition, Job};

/// The storage of one program.
pub(super) struct Evaluator {
    scratch: Scratch,
    /// By thread.
    registers: Vec<Mutex<Registers>>,
}

impl Evaluator {
    fn new(program: &Program, threads: usize) -> Evaluator {
        Evaluator { scratch: program.scratch(threads), registers: (0..threads).map(|_| Mutex::new(program.registers())).collect() }
    }

    /// See [`Program::prepare`].
    pub fn prepare(&mut self, program: &Program, inputs: &dyn Inputs, round: u64, parallel: bool) -> Result<(), String> {
        program.prepare(&mut self.scratch, inputs, round, parallel).map_err(|e| e.message)
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The registers of this thread.
    pub fn registers(&self) -> MutexGuard<'_, Registers> {
        lock(&self.registers)
    }
}

/// What belongs to this thread of a list with one for each.
pub(super) fn lock<T>(of: &[Mutex<T>]) -> MutexGuard<'_, T> {
    let thread = rayon::current_thread_index().unwrap_or(0) % of.len();
    of[thread].lock().unwrap_or_else(PoisonError::into_inner)
}

/// The storage of all checks of a job.
#[derive(Default)]
pub(super) struct Work {
    /// By check: its mask.
    pub masks: Vec<Option<Evaluator>>,
    /// By check: its elements, where they may come in any order.
    pub sets: Vec<Option<Multiset>>,
    /// By chunk: what it adds to the metrics of the check that is being evaluated.
    pub sums: Vec<Mutex<Sums>>,
    /// By thread.
    pub gathers: Vec<Mutex<Gather>>,
    /// By condition: the whole, then its sides.
    pub conditions: Vec<Vec<Evaluator>>,
}

impl Work {
    pub fn new(job: &Job, threads: usize) -> Work {
        let measured = job.checks.iter().filter(|c| c.tolerance.has_metrics()).map(|c| c.elements(&job.tensors[c.tensor]).div_ceil(CHUNK));
        let set = |c: &crate::job::Check| {
            let tensor = &job.tensors[c.tensor];
            c.unordered.then(|| Multiset::new(tensor.dtype, c.elements(tensor)))
        };
        let gathers = if job.checks.iter().any(|c| !c.is_whole()) { threads } else { 0 };
        let evaluators = |c: &Condition| c.programs().map(|p| Evaluator::new(p, threads)).collect();
        Work {
            masks: job.checks.iter().map(|c| c.mask.as_ref().map(|p| Evaluator::new(p, threads))).collect(),
            sets: job.checks.iter().map(set).collect(),
            sums: (0..measured.max().unwrap_or(0)).map(|_| Mutex::default()).collect(),
            gathers: (0..gathers).map(|_| Mutex::default()).collect(),
            conditions: job.conditions.iter().map(evaluators).collect(),
        }
    }

    /// The sums of the first chunks, added in their order.
    pub fn total(&self, chunks: u64) -> Sums {
        let mut total = Sums::default();
        for sums in &self.sums[..chunks as usize] {
            total.merge(&sums.lock().unwrap_or_else(PoisonError::into_inner));
        }
        total
    }

    /// Puts down what a chunk adds.
    pub fn put(&self, chunk: u64, sums: Sums) {
        *self.sums[chunk as usize].lock().unwrap_or_else(PoisonError::into_inner) = sums;
    }
}
