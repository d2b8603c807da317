//! A graph into a program: what is one number into slots, what must be whole into buffers, the rest into bodies.

use std::collections::{HashMap, HashSet};

use super::body::{Arg, Body, Code, Step};
use super::dims::{Dim, identity, onto, row_major, split};
use super::graph::{Graph, Node, NodeId, Op};
use super::leaf::{Leaf, Source};
use super::run::one;
use super::stage::{BufferSize, Home, Product, ROUND, Slot, Stage};
use crate::diag::TextError;
use crate::expr::ast::Span;
use crate::expr::ops::{Class, Fold, Unary};

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
    graph: &'g Graph<'s>,
    pub stages: Vec<Stage>,
    pub slots: Vec<Slot>,
    pub buffers: Vec<BufferSize>,
    homes: HashMap<NodeId, Home>,
    /// The slots that no input changes.
    constants: HashSet<usize>,
    steps: usize,
}

impl<'g, 's> Lowering<'g, 's> {
    pub fn new(graph: &'g Graph<'s>) -> Lowering<'g, 's> {
        let (stages, buffers, homes, constants) = Default::default();
        Lowering { graph, stages, slots: vec![Slot::default()], buffers, homes, constants, steps: 0 }
    }

    fn node(&self, id: NodeId) -> &'g Node {
        &self.graph.nodes[id]
    }

    /// The body that gives the node's elements in row-major order.
    pub fn body(&mut self, id: NodeId) -> Result<Body, TextError> {
        let shape = self.node(id).shape.clone();
        let map = identity(&shape);
        self.body_of(id, map, shape, self.node(id).kind.class())
    }

    fn body_of(&mut self, id: NodeId, map: Vec<Dim>, extents: Vec<u64>, class: Class) -> Result<Body, TextError> {
        let mut draft = Draft { extents, leaves: Vec::new(), steps: Vec::new(), known: HashMap::new() };
        let result = self.value(&mut draft, id, map, class)?;
        Ok(Body::new(draft.extents, draft.leaves, draft.steps, result.into(), class))
    }

    fn slot(&mut self, slot: Slot) -> usize {
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
            Op::Tensor { id, dtype, after } => {
                let source = Source::Tensor { id: *id, dtype: *dtype, after: *after };
                return self.leaf(draft, source, &row_major(&node.shape), map, class, span);
            }
            Op::Index(axis) => {
                let strides: Vec<u64> = (0..node.shape.len()).map(|at| u64::from(at == *axis)).collect();
                return self.leaf(draft, Source::Iota, &strides, map, class, span);
            }
            Op::Reduce(..) | Op::Matmul(..) => {
                return match self.home(id)? {
                    Home::Slot(slot) => Ok(Value::Slot(slot)),
                    Home::Buffer(buffer) => self.leaf(draft, Source::Buffer(buffer), &row_major(&node.shape), map, class, span),
                };
            }
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
        let loads = matches!(code, Code::LoadFloat(_) | Code::LoadInt(_));
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

    fn leaf(
        &mut self,
        draft: &mut Draft,
        source: Source,
        strides: &[u64],
        map: &[Dim],
        class: Class,
        span: &Span,
    ) -> Result<Value, TextError> {
        let mut offset = 0;
        let mut over = vec![0; draft.extents.len()];
        for (dim, stride) in map.iter().zip(strides) {
            offset += dim.offset * stride;
            if let Some(axis) = dim.axis {
                over[axis] += stride;
            }
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

    /// Where a reduction or a product lies, once the stage that computes it is there.
    fn home(&mut self, id: NodeId) -> Result<Home, TextError> {
        if let Some(&home) = self.homes.get(&id) {
            return Ok(home);
        }
        let home = match self.node(id).op {
            Op::Reduce(fold, from, axis) => self.reduce(id, fold, from, axis)?,
            Op::Matmul(left, right) => Home::Buffer(self.product(id, left, right)?),
            _ => Home::Buffer(self.fill(id, self.node(id).kind.class())?),
        };
        self.homes.insert(id, home);
        Ok(home)
    }

    fn buffer(&mut self, class: Class, shape: &[u64]) -> usize {
        self.buffers.push(BufferSize { class, elements: shape.iter().product() });
        self.buffers.len() - 1
    }

    /// The buffer that gets all elements of a node.
    fn fill(&mut self, id: NodeId, class: Class) -> Result<usize, TextError> {
        let shape = &self.node(id).shape;
        let body = self.body_of(id, identity(shape), shape.clone(), class)?;
        let into = self.buffer(class, shape);
        self.stages.push(Stage::Fill { body, into });
        Ok(into)
    }

    fn reduce(&mut self, id: NodeId, fold: Fold, from: NodeId, axis: Option<usize>) -> Result<Home, TextError> {
        let node = self.node(from);
        let shape = &node.shape;
        // The axis that is folded becomes the body's last one.
        let (map, extents, run) = match axis {
            None => (identity(shape), shape.clone(), shape.iter().product()),
            Some(axis) => {
                let last = shape.len() - 1;
                let place = |at: usize| if at == axis { last } else { at - usize::from(at > axis) };
                let map = shape.iter().enumerate().map(|(at, &extent)| Dim { offset: 0, axis: (extent != 1).then(|| place(at)) });
                let mut extents = self.node(id).shape.clone();
                extents.push(shape[axis]);
                (map.collect(), extents, shape[axis])
            }
        };
        let class = node.kind.class();
        let body = self.body_of(from, map, extents, class)?;
        let results = self.node(id).shape.iter().product();
        let into = if self.node(id).shape.is_empty() {
            Home::Slot(self.slot(Slot::default()))
        } else {
            let shape = &self.node(id).shape;
            Home::Buffer(self.buffer(self.node(id).kind.class(), shape))
        };
        self.stages.push(Stage::Reduce { fold, body, run, results, into, span: self.graph.spans[id].clone() });
        Ok(into)
    }

    fn product(&mut self, id: NodeId, left: NodeId, right: NodeId) -> Result<usize, TextError> {
        let (node, a, b) = (self.node(id), self.node(left), self.node(right));
        let ((batch_a, [rows, inner]), (batch_b, [_, columns])) = (split(&a.shape), split(&b.shape));
        // Sums of products below 2^53 are exact in f64, whose product is the fast one.
        let exact = match (self.bound(left), self.bound(right)) {
            (Some(x), Some(y)) => x.checked_mul(y).and_then(|xy| xy.checked_mul(inner.max(1).into())).is_some_and(|sum| sum <= 1 << 53),
            _ => false,
        };
        let class = if exact { Class::Float } else { node.kind.class() };
        let operands = (self.operand(left, class)?, self.operand(right, class)?);
        let (shape_batch, _) = split(&node.shape);
        let steps = |batch: &[u64]| {
            let strides = row_major(batch);
            let skip = shape_batch.len() - batch.len();
            let step = move |at: usize| if at < skip || batch[at - skip] == 1 { 0 } else { strides[at - skip] };
            (0..shape_batch.len()).map(step).collect::<Vec<u64>>()
        };
        let batch =
            shape_batch.iter().zip(steps(batch_a).into_iter().zip(steps(batch_b))).map(|(&extent, (a, b))| (extent, a, b)).collect();
        let into = self.buffer(class, &node.shape);
        let span = self.graph.spans[id].clone();
        let [rows, inner, columns] = [rows, inner, columns].map(|extent| extent as usize);
        self.stages.push(Stage::Product(Product { class, left: operands.0, right: operands.1, into, rows, inner, columns, batch, span }));
        Ok(into)
    }

    /// The buffer of an operand of a product.
    fn operand(&mut self, id: NodeId, class: Class) -> Result<usize, TextError> {
        if matches!(self.node(id).op, Op::Reduce(..) | Op::Matmul(..))
            && let Home::Buffer(buffer) = self.home(id)?
            && self.buffers[buffer].class == class
        {
            return Ok(buffer);
        }
        self.fill(id, class)
    }

    /// The largest magnitude of a node's elements, where the dtype it is read from tells.
    fn bound(&self, id: NodeId) -> Option<i128> {
        let range = match &self.node(id).op {
            Op::Int(i) => return i.checked_abs(),
            Op::Tensor { dtype, .. } | Op::Unary(Unary::Cast(dtype), ..) => dtype.integer_range()?,
            Op::View(from, _) => return self.bound(*from),
            _ => return None,
        };
        Some(range.0.abs().max(range.1.abs()))
    }
}
