//! A parsed expression into a graph of typed nodes with shapes. Equal parts become one node.

use std::collections::HashMap;

use super::dims::{Dim, MAX_RANK, broadcast, split};
use crate::diag::TextError;
use crate::expr::ast::{Expr, ExprKind, Span};
use crate::expr::ops::{Along, Binary, Class, Fold, Kind, Unary};
use crate::expr::scope::{Name, Scope, look_up};
use crate::tensor::{Dtype, Number, Shape};

pub(super) type NodeId = usize;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Op {
    Int(i128),
    /// The bits of an f64, so that -0 and NaN are constants like others.
    Float(u64),
    Round,
    Tensor {
        id: usize,
        dtype: Dtype,
        /// At the end of the round, not at its start.
        after: bool,
    },
    Index(usize),
    Unary(Unary, Class, NodeId),
    Binary(Binary, Class, NodeId, NodeId),
    Where(NodeId, NodeId, NodeId),
    View(NodeId, Vec<Dim>),
    Reduce(Fold, NodeId, Option<usize>),
    /// Both operands have two or more dimensions.
    Matmul(NodeId, NodeId),
    /// The same elements in row-major order.
    Reshape(NodeId),
    Along(Along, NodeId, usize),
    Gather(Gather),
    /// The leading part where a mask is true, in a result as long as the tensor that the expression is for.
    Compress(NodeId, NodeId),
    Bincount(NodeId),
    SegmentSum(NodeId, NodeId),
}

/// Elements at computed positions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Gather {
    pub from: NodeId,
    /// For each dimension of `from`, what it is indexed by; the dimensions of all broadcast to those of the result from
    /// `first` on, `rank` of them. The others follow each other in the rest of the result.
    pub index: Vec<Option<NodeId>>,
    pub first: usize,
    pub rank: usize,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Node {
    pub op: Op,
    pub shape: Vec<u64>,
    pub kind: Kind,
}

pub(super) struct Graph<'a> {
    pub(super) scope: &'a dyn Scope,
    /// The shape of the tensor that the whole expression is for.
    pub(super) target: &'a Shape,
    pub nodes: Vec<Node>,
    /// The first place in the text that a node came from.
    pub spans: Vec<Span>,
    ids: HashMap<Node, NodeId>,
}

impl<'a> Graph<'a> {
    pub fn new(scope: &'a dyn Scope, target: &'a Shape) -> Graph<'a> {
        Graph { scope, target, nodes: Vec::new(), spans: Vec::new(), ids: HashMap::new() }
    }

    pub(super) fn add(&mut self, span: &Span, op: Op, shape: Vec<u64>, kind: Kind) -> Result<NodeId, TextError> {
        if shape.len() > MAX_RANK {
            return Err(TextError::new(span.clone(), format!("{} dimensions, an expression has at most {MAX_RANK}", shape.len())));
        }
        if let Err(error) = Shape::new(shape.clone()) {
            return Err(TextError::new(span.clone(), error.to_string()));
        }
        let node = Node { op, shape, kind };
        if let Some(&id) = self.ids.get(&node) {
            return Ok(id);
        }
        let id = self.nodes.len();
        self.ids.insert(node.clone(), id);
        self.nodes.push(node);
        self.spans.push(span.clone());
        Ok(id)
    }

    pub fn build(&mut self, expr: &Expr) -> Result<NodeId, TextError> {
        let span = &expr.span;
        match &expr.kind {
            ExprKind::Number(number) => self.number(*number, span),
            ExprKind::Bool(value) => self.add(span, Op::Int((*value).into()), Vec::new(), Kind::Bool),
            ExprKind::Name(name) => self.name(name, false, span),
            ExprKind::Unary(op, operand) => {
                let operand = self.build(operand)?;
                self.unary(span, *op, operand)
            }
            ExprKind::Binary(op, a, b) => {
                let (a, b) = (self.build(a)?, self.build(b)?);
                self.binary(span, *op, a, b)
            }
            ExprKind::Call { function, function_span, args, axis } => self.call(function, function_span, args, axis.as_deref(), span),
            ExprKind::Index { base, index } => {
                let base = self.build(base)?;
                self.index(base, index, span)
            }
        }
    }

    fn number(&mut self, number: Number, span: &Span) -> Result<NodeId, TextError> {
        match number {
            Number::Int(i) => self.add(span, Op::Int(i), Vec::new(), Kind::Int),
            Number::Float(f) => self.add(span, Op::Float(f.to_bits()), Vec::new(), Kind::Float),
        }
    }

    pub(super) fn name(&mut self, name: &str, after: bool, span: &Span) -> Result<NodeId, TextError> {
        match look_up(self.scope, name, after, span)? {
            Name::Number(number) => self.number(number, span),
            Name::Round => self.add(span, Op::Round, Vec::new(), Kind::Int),
            Name::Tensor { id, dtype, shape } => {
                let kind = match dtype {
                    Dtype::Bool => Kind::Bool,
                    dtype if dtype.is_float() => Kind::Float,
                    _ => Kind::Int,
                };
                let dims = shape.dims().to_vec();
                self.add(span, Op::Tensor { id, dtype, after }, dims, kind)
            }
            Name::Refused(why) => Err(TextError::new(span.clone(), why)),
        }
    }

    pub(super) fn unary(&mut self, span: &Span, op: Unary, operand: NodeId) -> Result<NodeId, TextError> {
        let Node { shape, kind, .. } = self.nodes[operand].clone();
        let (class, result) = op.types(kind).map_err(|fault| fault.at(span))?;
        // `~` of a bool is its negation, not -1 or -2.
        let op = if op == Unary::Invert && kind == Kind::Bool { Unary::Not } else { op };
        self.add(span, Op::Unary(op, class, operand), shape, result)
    }

    /// The node as bools, where it holds floats.
    pub(super) fn truth(&mut self, span: &Span, node: NodeId) -> Result<NodeId, TextError> {
        if self.nodes[node].kind == Kind::Float { self.unary(span, Unary::Cast(Dtype::Bool), node) } else { Ok(node) }
    }

    pub(super) fn binary(&mut self, span: &Span, op: Binary, mut a: NodeId, mut b: NodeId) -> Result<NodeId, TextError> {
        let is_two = |op: &Op| matches!(op, Op::Int(2)) || *op == Op::Float(2f64.to_bits());
        if op == Binary::Pow && is_two(&self.nodes[b].op) {
            let promoted = self.nodes[a].kind.max(self.nodes[b].kind);
            if promoted == self.nodes[a].kind {
                return self.unary(span, Unary::Square, a);
            }
        }
        if matches!(op, Binary::And | Binary::Or) {
            (a, b) = (self.truth(span, a)?, self.truth(span, b)?);
        }
        let (class, kind) = op.types(self.nodes[a].kind, self.nodes[b].kind).map_err(|fault| fault.at(span))?;
        let shape = self.broadcast(span, &format!("`{}`", op.name()), &[a, b])?;
        self.add(span, Op::Binary(op, class, a, b), shape, kind)
    }

    /// The shape that the nodes broadcast to.
    pub(super) fn broadcast(&self, span: &Span, what: &str, nodes: &[NodeId]) -> Result<Vec<u64>, TextError> {
        let mut shape = Vec::new();
        for &node in nodes {
            let next = &self.nodes[node].shape;
            shape = broadcast(&shape, next).ok_or_else(|| {
                TextError::new(span.clone(), format!("{what} of shapes {shape:?} and {next:?}, which do not broadcast"))
                    .help("dimensions are matched from the last one back; each pair is equal or has a 1")
            })?;
        }
        Ok(shape)
    }

    pub(super) fn view(&mut self, span: &Span, node: NodeId, dims: Vec<Dim>, shape: Vec<u64>) -> Result<NodeId, TextError> {
        let kind = self.nodes[node].kind;
        self.add(span, Op::View(node, dims), shape, kind)
    }

    /// NumPy's rules: a vector on the left is a row, one on the right a column, and their dimension is dropped again.
    pub(super) fn matmul(&mut self, a: NodeId, b: NodeId, span: &Span) -> Result<NodeId, TextError> {
        let (shape_a, shape_b) = (self.nodes[a].shape.clone(), self.nodes[b].shape.clone());
        let wrong = || TextError::new(span.clone(), format!("`matmul` of shapes {shape_a:?} and {shape_b:?}"));
        if shape_a.is_empty() || shape_b.is_empty() {
            return Err(wrong().help("both operands need a dimension; write `*` for a product with a scalar"));
        }
        let row = |extent: u64, axis: usize| {
            (vec![Dim { offset: 0, axis: Some(axis) }], if axis == 1 { vec![1, extent] } else { vec![extent, 1] })
        };
        let (mut left, mut right) = (a, b);
        if let [extent] = shape_a[..] {
            let (dims, shape) = row(extent, 1);
            left = self.view(span, a, dims, shape)?;
        }
        if let [extent] = shape_b[..] {
            let (dims, shape) = row(extent, 0);
            right = self.view(span, b, dims, shape)?;
        }
        let ((batch_a, [m, k]), (batch_b, [k_b, n])) = (split(&self.nodes[left].shape), split(&self.nodes[right].shape));
        if k != k_b {
            return Err(wrong().help(format!("the last dimension of the left one, {k}, is summed with {k_b} of the right one")));
        }
        let Some(mut shape) = broadcast(batch_a, batch_b) else {
            return Err(wrong().help("the dimensions before the last two do not broadcast"));
        };
        shape.extend([m, n]);
        let kind = self.nodes[a].kind.max(self.nodes[b].kind).max(Kind::Int);
        let batch = shape.len() - 2;
        let product = self.add(span, Op::Matmul(left, right), shape.clone(), kind)?;
        // The dimensions that NumPy drops are read at 0.
        let keeps = [shape_a.len() > 1, shape_b.len() > 1];
        if keeps == [true, true] {
            return Ok(product);
        }
        let (mut dims, mut kept) = (Vec::new(), Vec::new());
        for (at, &extent) in shape.iter().enumerate() {
            let axis = (at < batch || keeps[at - batch]).then_some(kept.len());
            dims.push(Dim { offset: 0, axis });
            kept.extend(axis.map(|_| extent));
        }
        self.view(span, product, dims, kept)
    }
}
