//! Expressions over tensors: a tree into a [`Program`], which gives the elements of an expectation in blocks.
//!
//! `graph` types the tree (with `call` and `index`), `lower` and `home` cut it into bodies and stages, `body` and `run`
//! compute blocks, `leaf` loads. What must be whole before any element of the result is known is the stages', which
//! `prepare` goes through: `reduce`, `matmul`, `along` and `groups` compute them.

mod along;
mod body;
mod call;
mod dims;
mod graph;
mod groups;
mod home;
mod index;
mod leaf;
mod lower;
mod matmul;
mod prepare;
mod reduce;
mod run;
mod stage;
#[cfg(test)]
mod tests;

use self::body::Body;
use self::graph::{Graph, NodeId, Op};
use self::lower::Lowering;
use self::reduce::Partial;
use self::run::Context;
pub use self::run::Registers;
use self::stage::{BufferSize, ROUND, Slot, Stage};
use super::ast::Expr;
use super::ops::{Class, Kind};
use super::scope::Scope;
use super::{BLOCK, Block};
use crate::diag::TextError;
use crate::tensor::{Number, Shape};

/// The tensors that a program reads.
pub trait Inputs: Sync {
    /// The row-major, little-endian bytes of the tensor with that id of the scope, at the start of the round.
    fn bytes(&self, id: usize) -> &[u8];

    /// The same at the end of the round: what `after(y)` reads. None, unless an implementation has them.
    fn after(&self, id: usize) -> &[u8] {
        let _ = id;
        &[]
    }
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
    after_tensors: Vec<usize>,
    /// Bytes of each tensor, those of `tensors` first.
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
    /// Of each thread, how often each bin was met.
    counts: Vec<u64>,
    mask: Registers,
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
    lower(&graph, root, expr)
}

/// Compiles an expression that is true or false for each element of a tensor of that shape (a `where`), or, with the
/// shape `[]`, that is one truth value (a `holds`; a result of one element is one, whatever its dimensions are).
///
/// The program has that shape and the kind [`Kind::Bool`]; its blocks hold 0 and 1. [`Program::holds`] evaluates one
/// of shape `[]`; its `after(y)`s are [`Program::after_tensors`], which [`Inputs::after`] gives.
///
/// *Errors*: as [`compile`]; what is not true or false; more than one element for `[]`; shapes that do not broadcast.
pub fn compile_condition(expr: &Expr, scope: &dyn Scope, shape: &Shape) -> Result<Program, TextError> {
    let mut graph = Graph::new(scope, shape);
    let root = graph.build(expr)?;
    let root = graph.condition(root, &expr.span)?;
    lower(&graph, root, expr)?.broadcast_to(shape)
}

fn lower(graph: &Graph<'_>, root: NodeId, expr: &Expr) -> Result<Program, TextError> {
    let mut lowering = Lowering::new(graph);
    let body = lowering.body(root)?;
    let Lowering { stages, slots, buffers, .. } = lowering;
    let mut sized: Vec<(bool, usize, u64)> = Vec::new();
    for node in &graph.nodes {
        if let Op::Tensor { id, dtype, after } = node.op {
            sized.push((after, id, node.shape.iter().product::<u64>() * dtype.size() as u64));
        }
    }
    sized.sort_unstable();
    sized.dedup();
    let ids = |end: bool| sized.iter().filter(|(after, ..)| *after == end).map(|&(_, id, _)| id).collect();
    let (tensors, after_tensors) = (ids(false), ids(true));
    let sizes = sized.iter().map(|&(_, _, size)| size).collect();
    let shape = Shape::new(body.extents.clone()).map_err(|error| TextError::new(expr.span.clone(), error.to_string()))?;
    let uses_round = graph.nodes.iter().any(|node| node.op == Op::Round);
    let kind = graph.nodes[root].kind;
    Ok(Program { shape, kind, body, stages, slots, buffers, tensors, after_tensors, sizes, uses_round })
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

    /// The ids of the tensors that are read at the start of the round, ascending.
    pub fn tensors(&self) -> &[usize] {
        &self.tensors
    }

    /// The ids of the tensors that are read at the end of the round, ascending.
    pub fn after_tensors(&self) -> &[usize] {
        &self.after_tensors
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

    /// The bodies of the stages.
    fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.stages.iter().filter_map(Stage::body)
    }

    /// The most of something that a stage needs.
    fn most(&self, of: impl Fn(&Stage) -> u64) -> u64 {
        self.stages.iter().map(of).max().unwrap_or(0)
    }

    /// Workers of `prepare`, and the registers that each needs.
    fn workers(&self, threads: usize) -> (usize, [usize; 2]) {
        let registers = self.bodies().map(Body::registers).reduce(|[float, int], [f, i]| [float.max(f), int.max(i)]);
        (if registers.is_some() { threads.max(1) } else { 0 }, registers.unwrap_or([0, 0]))
    }

    /// Registers for the masks of `compress`, which are computed beside what they choose from.
    fn mask_registers(&self) -> [usize; 2] {
        let masks = self.stages.iter().filter_map(|stage| match stage {
            Stage::Compress(choice) => Some(choice.mask.registers()),
            _ => None,
        });
        masks.fold([0, 0], |[float, int], [f, i]| [float.max(f), int.max(i)])
    }

    /// Storage for [`Program::prepare`] on so many threads; one for each evaluation that is under way at the same time.
    pub fn scratch(&self, threads: usize) -> Scratch {
        let buffer = |size: &BufferSize| match size.class {
            Class::Float => Buffer::Float(vec![0.0; size.elements as usize]),
            Class::Int => Buffer::Int(vec![0; size.elements as usize]),
        };
        let (workers, registers) = self.workers(threads);
        Scratch {
            slots: self.slots.clone(),
            buffers: self.buffers.iter().map(buffer).collect(),
            partials: vec![Partial::default(); self.most(Stage::partials) as usize],
            pack: vec![0.0; self.most(Stage::packed) as usize],
            counts: vec![0; self.most(|stage| stage.counts(threads)) as usize],
            mask: Registers::new(self.mask_registers()),
            workers: vec![Registers::new(registers); workers],
        }
    }

    /// What [`Program::scratch`] allocates. *Units*: bytes.
    pub fn scratch_bytes(&self, threads: usize) -> u64 {
        let (workers, registers) = self.workers(threads);
        let parts = [
            self.buffers.iter().map(|size| size.bytes()).fold(0, u64::saturating_add),
            self.most(Stage::partials).saturating_mul(size_of::<Partial>() as u64),
            self.most(Stage::packed).saturating_mul(8),
            self.most(|stage| stage.counts(threads)).saturating_mul(8),
            Registers::bytes(self.mask_registers()),
            Registers::bytes(registers).saturating_mul(workers as u64),
            (self.slots.len() * size_of::<Slot>()) as u64,
        ];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// Registers for one thread.
    pub fn registers(&self) -> Registers {
        Registers::new(self.body.registers())
    }

    /// What [`Program::registers`] allocates. *Units*: bytes.
    pub fn registers_bytes(&self) -> u64 {
        Registers::bytes(self.body.registers())
    }

    fn check(&self, inputs: &dyn Inputs) -> Result<(), TextError> {
        let ids = self.tensors.iter().map(|&id| (id, false)).chain(self.after_tensors.iter().map(|&id| (id, true)));
        for ((id, after), &size) in ids.zip(&self.sizes) {
            let len = leaf::bytes_of(inputs, id, after).len() as u64;
            if len != size {
                return Err(TextError::new(0..0, format!("tensor {id} of the expression has {len} bytes, its shape needs {size}")));
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
        let context = Context { slots: &scratch.slots, buffers: &scratch.buffers, inputs };
        run::block(&self.body, registers, context, start, len)
    }

    /// Whether a condition of shape `[]` ([`compile_condition`]) is true in a round: prepares the scratch and evaluates.
    ///
    /// *Errors*: as [`Program::prepare`]; a program that is not one truth value.
    pub fn holds(
        &self,
        scratch: &mut Scratch,
        registers: &mut Registers,
        inputs: &dyn Inputs,
        round: u64,
        parallel: bool,
    ) -> Result<bool, TextError> {
        if self.kind != Kind::Bool || !self.shape.dims().is_empty() {
            return Err(TextError::new(0..0, format!("a condition is one truth value, this expression has shape {}", self.shape)));
        }
        self.prepare(scratch, inputs, round, parallel)?;
        Ok(self.block(scratch, registers, inputs, round, 0, 1)?.number(0) == Number::Int(1))
    }
}
