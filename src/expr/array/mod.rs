//! Expressions over tensors: a tree into a [`Program`], which gives the elements of an expectation in blocks.
//!
//! `graph` types the tree, `lower` cuts it into stages and bodies, `body` and `run` compute blocks, `leaf` loads,
//! `reduce` and `matmul` do what must be whole before any element of the result is known.

mod body;
mod dims;
mod graph;
mod leaf;
mod lower;
mod matmul;
mod reduce;
mod run;
mod stage;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::body::{Arg, Body};
use self::graph::{Graph, Op};
use self::lower::Lowering;
use self::matmul::Extents;
use self::reduce::Partial;
pub use self::run::Registers;
use self::run::{Context, run};
use self::stage::{BufferSize, Home, Product, ROUND, Slot, Stage};
use super::ast::Expr;
use super::ops::{Class, Kind};
use super::scope::Scope;
use super::{BLOCK, Block};
use crate::diag::TextError;
use crate::tensor::Shape;

/// The tensors that a program reads.
pub trait Inputs: Sync {
    /// The row-major, little-endian bytes of the tensor with that id of the scope.
    fn bytes(&self, id: usize) -> &[u8];
}

/// An expression over tensors, ready to give its elements.
///
/// Floats are f64 throughout; integers and bools stay exact.
#[derive(Clone, Debug)]
pub struct Program {
    shape: Shape,
    kind: Kind,
    body: Body,
    stages: Vec<Stage>,
    slots: Vec<Slot>,
    buffers: Vec<BufferSize>,
    tensors: Vec<usize>,
    /// Bytes of each tensor.
    sizes: Vec<u64>,
    /// Whether the expression names `round`.
    uses_round: bool,
}

/// What `prepare` fills and blocks read: all of a program's storage that threads share.
pub struct Scratch {
    slots: Vec<Slot>,
    buffers: Vec<Buffer>,
    partials: Vec<Partial>,
    pack: Vec<f64>,
    workers: Vec<Registers>,
}

enum Buffer {
    Float(Vec<f64>),
    Int(Vec<i128>),
}

/// Compiles an expression whose result is for a tensor of that shape (`index(axis)` counts along it).
///
/// The program has the expression's own shape until [`Program::broadcast_to`].
///
/// *Errors*: names and functions that are unknown, shapes that do not match, kinds that an operation does not take.
pub fn compile(expr: &Expr, scope: &dyn Scope, shape: &Shape) -> Result<Program, TextError> {
    let mut graph = Graph::new(scope, shape);
    let root = graph.build(expr)?;
    let mut lowering = Lowering::new(&graph);
    let body = lowering.body(root)?;
    let Lowering { stages, slots, buffers, .. } = lowering;
    let mut sized: Vec<(usize, u64)> = Vec::new();
    for node in &graph.nodes {
        if let Op::Tensor { id, dtype } = node.op {
            sized.push((id, node.shape.iter().product::<u64>() * dtype.size() as u64));
        }
    }
    sized.sort_unstable();
    sized.dedup();
    let shape = Shape::new(body.extents.clone()).map_err(|error| TextError::new(expr.span.clone(), error.to_string()))?;
    let uses_round = graph.nodes.iter().any(|node| node.op == Op::Round);
    let kind = graph.nodes[root].kind;
    let (tensors, sizes) = sized.into_iter().unzip();
    Ok(Program { shape, kind, body, stages, slots, buffers, tensors, sizes, uses_round })
}

impl Program {
    /// The shape of the result.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What the elements of the result are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The ids of the tensors that are read, ascending.
    pub fn tensors(&self) -> &[usize] {
        &self.tensors
    }

    /// Whether the result depends on the round's number (beside what the tensors hold).
    pub fn uses_round(&self) -> bool {
        self.uses_round
    }

    /// The program with its result broadcast to a tensor's shape, as NumPy does.
    ///
    /// *Errors*: the shapes do not broadcast; the message names both.
    pub fn broadcast_to(mut self, shape: &Shape) -> Result<Program, TextError> {
        if dims::broadcast(self.shape.dims(), shape.dims()).as_deref() != Some(shape.dims()) {
            return Err(TextError::new(0..0, format!("the expression has shape {}, the tensor has {shape}", self.shape))
                .help("each dimension, from the last one back, is equal or 1"));
        }
        self.body = self.body.broadcast(shape.dims().to_vec());
        self.shape = shape.clone();
        Ok(self)
    }

    /// The stages that have a body.
    fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.stages.iter().filter_map(|stage| match stage {
            Stage::Fill { body, .. } | Stage::Reduce { body, .. } => Some(body),
            Stage::Number { .. } | Stage::Read { .. } | Stage::Product(_) => None,
        })
    }

    /// Registers that a worker of `prepare` needs.
    fn worker_registers(&self) -> [usize; 2] {
        self.bodies().fold([0, 0], |[float, int], body| [float.max(body.registers[0]), int.max(body.registers[1])])
    }

    fn partials(&self) -> u64 {
        let count = |stage: &Stage| match stage {
            Stage::Reduce { run, results, .. } => reduce::partials(*run, *results),
            _ => 0,
        };
        self.stages.iter().map(count).max().unwrap_or(0)
    }

    fn packed(&self) -> u64 {
        let count = |stage: &Stage| match stage {
            Stage::Product(product) if product.class == Class::Float => product.extents().packed(),
            _ => 0,
        };
        self.stages.iter().map(count).max().unwrap_or(0)
    }

    /// Storage for [`Program::prepare`] on so many threads; one for each evaluation that is under way at the same time.
    pub fn scratch(&self, threads: usize) -> Scratch {
        let buffer = |size: &BufferSize| match size.class {
            Class::Float => Buffer::Float(vec![0.0; size.elements as usize]),
            Class::Int => Buffer::Int(vec![0; size.elements as usize]),
        };
        let workers = if self.bodies().next().is_some() { threads.max(1) } else { 0 };
        Scratch {
            slots: self.slots.clone(),
            buffers: self.buffers.iter().map(buffer).collect(),
            partials: vec![Partial::default(); self.partials() as usize],
            pack: vec![0.0; self.packed() as usize],
            workers: vec![Registers::new(self.worker_registers()); workers],
        }
    }

    /// What [`Program::scratch`] allocates. *Units*: bytes.
    pub fn scratch_bytes(&self, threads: usize) -> u64 {
        let size = |size: &BufferSize| size.elements.saturating_mul(if size.class == Class::Float { 8 } else { 16 });
        let buffers = self.buffers.iter().map(size).fold(0, u64::saturating_add);
        let workers = if self.bodies().next().is_some() { threads.max(1) as u64 } else { 0 };
        let registers = workers * Registers::bytes(self.worker_registers());
        let partials = self.partials().saturating_mul(size_of::<Partial>() as u64);
        let slots = (self.slots.len() * size_of::<Slot>()) as u64;
        buffers.saturating_add(partials).saturating_add(self.packed().saturating_mul(8)).saturating_add(registers + slots)
    }

    /// Registers for one thread.
    pub fn registers(&self) -> Registers {
        Registers::new(self.block_registers())
    }

    /// What [`Program::registers`] allocates. *Units*: bytes.
    pub fn registers_bytes(&self) -> u64 {
        Registers::bytes(self.block_registers())
    }

    fn block_registers(&self) -> [usize; 2] {
        let [float, int] = self.body.registers;
        // A result that is one number is spread over a register of its class.
        match self.body.class {
            Class::Float => [float.max(1), int],
            Class::Int => [float, int.max(1)],
        }
    }

    fn check(&self, inputs: &dyn Inputs) -> Result<(), TextError> {
        for (&id, &size) in self.tensors.iter().zip(&self.sizes) {
            let len = inputs.bytes(id).len() as u64;
            if len != size {
                return Err(TextError::new(0..0, format!("tensor {id} of the expression has {len} bytes, its shape needs {size}")));
            }
        }
        Ok(())
    }

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
            let Scratch { slots, buffers, partials, pack, workers } = &mut *scratch;
            match stage {
                Stage::Number { code, args, into, span } => {
                    slots[*into] = run::one(*code, *args, slots).map_err(|fault| fault.at(span))?;
                }
                Stage::Read { leaf, class, into } => {
                    slots[*into] = match class {
                        Class::Float => {
                            let mut value = [0.0];
                            leaf.load_float(&mut value, 0, inputs, buffers);
                            Slot::float(value[0])
                        }
                        Class::Int => {
                            let mut value = [0];
                            leaf.load_int(&mut value, 0, inputs, buffers);
                            Slot::int(value[0])
                        }
                    };
                }
                Stage::Fill { body, into } => {
                    // The buffer is away while it is written; a body never reads its own.
                    let mut buffer = std::mem::replace(&mut buffers[*into], Buffer::Float(Vec::new()));
                    let done = fill(body, &mut buffer, Context { slots, buffers, inputs }, workers, parallel);
                    buffers[*into] = buffer;
                    done?;
                }
                Stage::Reduce { fold, body, run, results, into, span } => {
                    let mut slot = Slot::default();
                    let mut buffer = match into {
                        Home::Buffer(into) => std::mem::replace(&mut buffers[*into], Buffer::Float(Vec::new())),
                        Home::Slot(_) => Buffer::Float(Vec::new()),
                    };
                    let store = |at: usize, value: Slot| match (into, &mut buffer) {
                        (Home::Slot(_), _) => slot = value,
                        (_, Buffer::Float(values)) => values[at] = value.float,
                        (_, Buffer::Int(values)) => values[at] = value.int,
                    };
                    let context = Context { slots, buffers, inputs };
                    let done = reduce::reduce((*fold, body, *run, span), *results, context, partials, workers, parallel, store);
                    match into {
                        Home::Slot(into) => slots[*into] = slot,
                        Home::Buffer(into) => buffers[*into] = buffer,
                    }
                    done?;
                }
                Stage::Product(product) => {
                    let mut into = std::mem::replace(&mut buffers[product.into], Buffer::Float(Vec::new()));
                    let done = multiply(product, buffers, &mut into, pack, parallel);
                    buffers[product.into] = into;
                    done?;
                }
            }
        }
        Ok(())
    }

    /// Elements `start..start + len` of the result, flat and row-major; `len` is at most [`BLOCK`].
    ///
    /// Follows a [`Program::prepare`] of the same round. Allocates nothing; several threads may call it at once, each
    /// with registers of its own.
    ///
    /// *Errors*: overflow and division by zero of exact integers; elements beyond the result.
    ///
    /// *Panics* when a tensor has become smaller since `prepare`.
    pub fn block<'r>(
        &self,
        scratch: &Scratch,
        registers: &'r mut Registers,
        inputs: &dyn Inputs,
        round: u64,
        start: u64,
        len: usize,
    ) -> Result<Block<'r>, TextError> {
        debug_assert_eq!(scratch.slots[ROUND].int, i128::from(round), "prepare comes before the blocks of a round");
        let elements = self.shape.elements();
        if len > BLOCK || start > elements || len as u64 > elements - start {
            let message = format!("{len} elements from {start}: a block has at most {BLOCK}, and the result has {elements}");
            return Err(TextError::new(0..0, message));
        }
        debug_assert!(self.check(inputs).is_ok(), "prepare has seen the same inputs");
        let mut result = 0;
        if len > 0 {
            let context = Context { slots: &scratch.slots, buffers: &scratch.buffers, inputs };
            run(&self.body, registers, context, start, len)?;
            match self.body.result {
                Arg::Register(at) => result = at,
                Arg::Slot(slot) => registers.filled(self.body.class, scratch.slots[slot], len),
                Arg::Leaf(_) | Arg::None => {}
            }
        }
        Ok(match self.body.class {
            Class::Float => Block::Float(&registers.float(result)[..len]),
            Class::Int => Block::Int(&registers.int(result)[..len]),
        })
    }
}

/// Writes all elements of a body to a buffer.
fn fill(body: &Body, buffer: &mut Buffer, context: Context<'_>, workers: &mut [Registers], parallel: bool) -> Result<(), TextError> {
    match buffer {
        Buffer::Float(values) => fill_with(body, values, context, workers, parallel, |registers, slot, into| match body.result {
            Arg::Register(at) => into.copy_from_slice(&registers.float(at)[..into.len()]),
            _ => into.fill(slot.float),
        }),
        Buffer::Int(values) => fill_with(body, values, context, workers, parallel, |registers, slot, into| match body.result {
            Arg::Register(at) => into.copy_from_slice(&registers.int(at)[..into.len()]),
            _ => into.fill(slot.int),
        }),
    }
}

fn fill_with<T: Send>(
    body: &Body,
    values: &mut [T],
    context: Context<'_>,
    workers: &mut [Registers],
    parallel: bool,
    copy: impl Fn(&Registers, Slot, &mut [T]) + Sync,
) -> Result<(), TextError> {
    let slot = match body.result {
        Arg::Slot(slot) => context.slots[slot],
        _ => Slot::default(),
    };
    let threads = if parallel && values.len() > 64 * BLOCK { workers.len().max(1) } else { 1 };
    let share = values.len().div_ceil(threads).next_multiple_of(BLOCK).max(BLOCK);
    let work = |at: usize, part: &mut [T], registers: &mut Registers| -> Result<(), TextError> {
        for (block, into) in part.chunks_mut(BLOCK).enumerate() {
            run(body, registers, context, (at * share + block * BLOCK) as u64, into.len())?;
            copy(registers, slot, into);
        }
        Ok(())
    };
    if threads == 1 {
        return work(0, values, &mut workers[0]);
    }
    let shares = values.par_chunks_mut(share).zip(workers.par_iter_mut()).enumerate();
    match shares.filter_map(|(at, (part, registers))| work(at, part, registers).err()).find_first(|_| true) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl Product {
    fn extents(&self) -> Extents {
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
