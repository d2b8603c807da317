//! A graph into a program: what is one number into slots, what must be whole into buffers, the rest into bodies.

use std::collections::{HashMap, HashSet};

use super::body::{Arg, Body, Code, Step};
use super::dims::{Dim, identity, onto};
use super::graph::{Gather, Graph, Node, NodeId, Op};
use super::home::Lie;
use super::leaf::{Leaf, Source};
use super::run::one;
use super::stage::{BufferSize, Home, ROUND, Slot, Stage};
use crate::diag::TextError;
use crate::expr::ast::Span;
use crate::expr::ops::{Binary, Class, Unary};

/// The most steps of a program, all its bodies together.
const MAX_STEPS: usize = 65_536;

/// A value while lowering.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Value {
    Slot(usize),
    Step(usize),
}

impl From<Value> for Arg {
    fn from(value: Value) -> Arg {
        match value {
            Value::Slot(slot) => Arg::Slot(slot),
            Value::Step(step) => Arg::Register(step),
        }
    }
}

type Key = (NodeId, Vec<Dim>, Class);

/// A body that is being built.
struct Draft {
    extents: Vec<u64>,
    leaves: Vec<Leaf>,
    steps: Vec<Step>,
    known: HashMap<Key, Value>,
}

pub(super) struct Lowering<'g, 's> {
    pub(super) graph: &'g Graph<'s>,
    pub stages: Vec<Stage>,
    pub slots: Vec<Slot>,
    pub buffers: Vec<BufferSize>,
    pub(super) homes: HashMap<NodeId, Home>,
    /// The buffers that hold a node's elements in row-major order, in the node's own class.
    pub(super) filled: HashMap<NodeId, usize>,
    /// What the buffers take. *Units*: bytes.
    pub(super) bytes: u64,
    /// The slots that no input changes.
    constants: HashSet<usize>,
    steps: usize,
}

impl<'g, 's> Lowering<'g, 's> {
    pub fn new(graph: &'g Graph<'s>) -> Lowering<'g, 's> {
        let (stages, buffers, homes, filled, constants) = Default::default();
        Lowering { graph, stages, slots: vec![Slot::default()], buffers, homes, filled, bytes: 0, constants, steps: 0 }
    }

    pub(super) fn node(&self, id: NodeId) -> &'g Node {
        &self.graph.nodes[id]
    }

    /// The body that gives the node's elements in row-major order.
    pub fn body(&mut self, id: NodeId) -> Result<Body, TextError> {
        let shape = self.node(id).shape.clone();
        let map = identity(&shape);
        self.body_of(id, map, shape, self.node(id).kind.class())
    }

    pub(super) fn body_of(&mut self, id: NodeId, map: Vec<Dim>, extents: Vec<u64>, class: Class) -> Result<Body, TextError> {
        let mut draft = Draft { extents, leaves: Vec::new(), steps: Vec::new(), known: HashMap::new() };
        let result = self.value(&mut draft, id, map, class)?;
        Ok(Body::new(draft.extents, draft.leaves, draft.steps, result.into(), class))
    }

    pub(super) fn slot(&mut self, slot: Slot) -> usize {
        self.slots.push(slot);
        self.slots.len() - 1
    }

    fn constant(&mut self, value: Slot) -> usize {
        let slot = self.slot(value);
        self.constants.insert(slot);
        slot
    }

    /// The node's elements as the map lays them over the draft, in the class that is wanted.
    fn value(&mut self, draft: &mut Draft, id: NodeId, map: Vec<Dim>, class: Class) -> Result<Value, TextError> {
        let key = (id, map, class);
        if let Some(&value) = draft.known.get(&key) {
            return Ok(value);
        }
        let value = self.compute(draft, id, &key.1, class)?;
        draft.known.insert(key, value);
        Ok(value)
    }

    fn compute(&mut self, draft: &mut Draft, id: NodeId, map: &[Dim], class: Class) -> Result<Value, TextError> {
        let (node, span) = (self.node(id), &self.graph.spans[id]);
        let own = node.kind.class();
        let (code, operands) = match &node.op {
            Op::Int(i) => return Ok(Value::Slot(self.constant(Slot::int(*i)))),
            Op::Float(bits) => return Ok(Value::Slot(self.constant(Slot::float(f64::from_bits(*bits))))),
            Op::Round => return Ok(Value::Slot(ROUND)),
            Op::Index(axis) => {
                let strides = (0..node.shape.len()).map(|at| u64::from(at == *axis)).collect();
                return self.leaf(draft, Lie { source: Source::Iota, offset: 0, strides }, map, class, span);
            }
            op if op.is_stage() => {
                if let Home::Slot(slot) = self.home(id)? {
                    return Ok(Value::Slot(slot));
                }
                let lie = self.lie(id)?;
                return self.leaf(draft, lie, map, class, span);
            }
            Op::Tensor { .. } | Op::Reshape(_) => {
                let lie = self.lie(id)?;
                return self.leaf(draft, lie, map, class, span);
            }
            Op::Gather(gather) => return self.gather(draft, id, gather, map, class),
            Op::View(from, dims) => {
                let inner: Vec<Dim> = dims
                    .iter()
                    .zip(&self.node(*from).shape)
                    .map(|(dim, &extent)| match dim.axis {
                        Some(axis) if extent != 1 => Dim { offset: dim.offset + map[axis].offset, axis: map[axis].axis },
                        _ => Dim { offset: dim.offset, axis: None },
                    })
                    .collect();
                return self.value(draft, *from, inner, class);
            }
            Op::Unary(op, operand_class, x) => {
                let code = match (operand_class, own) {
                    (Class::Float, Class::Float) => Code::FloatToFloat(*op),
                    (Class::Float, Class::Int) => Code::FloatToInt(*op),
                    (Class::Int, Class::Int) => Code::IntToInt(*op),
                    (Class::Int, Class::Float) => match op {
                        Unary::Cast(dtype) => Code::IntToFloat(*dtype),
                        _ => Code::ToFloat,
                    },
                };
                (code, vec![*x])
            }
            Op::Binary(op, operand_class, a, b) => {
                let code = match (operand_class, own) {
                    (Class::Float, Class::Float) => Code::Float(*op),
                    (Class::Float, Class::Int) => Code::FloatCompare(*op),
                    (Class::Int, _) => Code::Int(*op),
                };
                (code, vec![*a, *b])
            }
            Op::Where(c, a, b) => (if own == Class::Float { Code::WhereFloat } else { Code::WhereInt }, vec![*c, *a, *b]),
            // Those above.
            _ => return Ok(Value::Slot(ROUND)),
        };
        let mut args = [Arg::None; 3];
        for (at, &operand) in operands.iter().enumerate() {
            let inner = onto(map, &node.shape, &self.node(operand).shape);
            args[at] = self.value(draft, operand, inner, code.operand(at))?.into();
        }
        let value = self.step(draft, code, args, span)?;
        if own == Class::Int && class == Class::Float {
            return match value {
                // A slot has both classes.
                Value::Slot(_) => Ok(value),
                Value::Step(_) => self.step(draft, Code::ToFloat, [value.into(), Arg::None, Arg::None], span),
            };
        }
        Ok(value)
    }

    fn step(&mut self, draft: &mut Draft, code: Code, args: [Arg; 3], span: &Span) -> Result<Value, TextError> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(TextError::new(span.clone(), format!("more than {MAX_STEPS} operations in one expression")));
        }
        let loads = matches!(code, Code::LoadFloat(_) | Code::LoadInt(_) | Code::GatherFloat(_) | Code::GatherInt(_));
        if !loads && args.iter().all(|arg| !matches!(arg, Arg::Register(_))) {
            let constant = args.iter().all(|arg| !matches!(arg, Arg::Slot(slot) if !self.constants.contains(slot)));
            if constant {
                let value = one(code, args, &self.slots).map_err(|fault| fault.at(span))?;
                return Ok(Value::Slot(self.constant(value)));
            }
            let into = self.slot(Slot::default());
            self.stages.push(Stage::Number { code, args, into, span: span.clone() });
            return Ok(Value::Slot(into));
        }
        draft.steps.push(Step { code, args, into: 0, span: span.clone() });
        Ok(Value::Step(draft.steps.len() - 1))
    }

    fn leaf(&mut self, draft: &mut Draft, lie: Lie, map: &[Dim], class: Class, span: &Span) -> Result<Value, TextError> {
        let Lie { source, mut offset, strides } = lie;
        let mut over = vec![0; draft.extents.len()];
        for (dim, stride) in map.iter().zip(strides) {
            offset += dim.offset * stride;
            if let Some(axis) = dim.axis {
                over[axis] += stride;
            }
        }
        let uniform = over.iter().zip(&draft.extents).all(|(&stride, &extent)| stride == 0 || extent == 1);
        if source == Source::Iota && uniform {
            return Ok(Value::Slot(self.constant(Slot::int(offset.into()))));
        }
        let leaf = Leaf::new(source, offset, over, &draft.extents);
        if leaf.is_uniform() {
            let read = Stage::Read { leaf, class, into: self.slots.len() };
            // The same number, read before.
            for stage in &self.stages {
                if let (Stage::Read { leaf, class, into }, Stage::Read { leaf: wanted, class: wanted_class, .. }) = (stage, &read)
                    && (leaf, class) == (wanted, wanted_class)
                {
                    return Ok(Value::Slot(*into));
                }
            }
            let into = self.slot(Slot::default());
            self.stages.push(read);
            return Ok(Value::Slot(into));
        }
        let at = draft.leaves.iter().position(|known| *known == leaf).unwrap_or_else(|| {
            draft.leaves.push(leaf);
            draft.leaves.len() - 1
        });
        let code = if class == Class::Float { Code::LoadFloat(at) } else { Code::LoadInt(at) };
        if let Some(step) = draft.steps.iter().position(|step| step.code == code) {
            return Ok(Value::Step(step));
        }
        self.step(draft, code, [Arg::None; 3], span)
    }

    /// The positions of a gather from its indices, each within its extent, and the elements there.
    fn gather(&mut self, draft: &mut Draft, id: NodeId, gather: &Gather, map: &[Dim], class: Class) -> Result<Value, TextError> {
        let (node, span) = (self.node(id), &self.graph.spans[id]);
        let Lie { source, offset, strides } = self.lie(gather.from)?;
        let spread = gather.first..gather.first + gather.rank;
        // What no index decides is a part of the position that the place in the result gives.
        let mut kept = (0..node.shape.len()).filter(|at| !spread.contains(at));
        let mut over = vec![0; node.shape.len()];
        for (_, &stride) in gather.index.iter().zip(&strides).filter(|(index, _)| index.is_none()) {
            over[kept.next().unwrap_or(0)] = stride;
        }
        let mut position = self.leaf(draft, Lie { source: Source::Iota, offset, strides: over }, map, Class::Int, span)?;
        for (at, &stride) in strides.iter().enumerate() {
            let Some(index) = gather.index[at] else { continue };
            let span = &self.graph.spans[index];
            let inner = onto(&map[spread.clone()], &node.shape[spread.clone()], &self.node(index).shape);
            let value = self.value(draft, index, inner, Class::Int)?;
            let within = Code::Within(self.node(gather.from).shape[at]);
            let mut value = self.step(draft, within, [value.into(), Arg::None, Arg::None], span)?;
            if stride != 1 {
                let stride = self.constant(Slot::int(stride.into()));
                value = self.step(draft, Code::Int(Binary::Mul), [value.into(), Arg::Slot(stride), Arg::None], span)?;
            }
            position = match position {
                Value::Slot(slot) if self.slots[slot].int == 0 && self.constants.contains(&slot) => value,
                _ => self.step(draft, Code::Int(Binary::Add), [position.into(), value.into(), Arg::None], span)?,
            };
        }
        let code = if class == Class::Float { Code::GatherFloat(source) } else { Code::GatherInt(source) };
        self.step(draft, code, [position.into(), Arg::None, Arg::None], span)
    }
}
