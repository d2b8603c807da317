//! A parsed expression into a graph of typed nodes with shapes. Equal parts become one node.

use std::collections::HashMap;

use super::dims::{Dim, MAX_RANK, broadcast, split};
use crate::diag::TextError;
use crate::expr::ast::{Expr, ExprKind, Span, Subscript};
use crate::expr::ops::{Binary, Class, Fold, Function, Kind, Unary, function};
use crate::expr::scalar::{integer, wrong_count};
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
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Node {
    pub op: Op,
    pub shape: Vec<u64>,
    pub kind: Kind,
}

pub(super) struct Graph<'a> {
    scope: &'a dyn Scope,
    /// The shape of the tensor that the whole expression is for.
    target: &'a Shape,
    pub nodes: Vec<Node>,
    /// The first place in the text that a node came from.
    pub spans: Vec<Span>,
    ids: HashMap<Node, NodeId>,
}

impl<'a> Graph<'a> {
    pub fn new(scope: &'a dyn Scope, target: &'a Shape) -> Graph<'a> {
        Graph { scope, target, nodes: Vec::new(), spans: Vec::new(), ids: HashMap::new() }
    }

    fn add(&mut self, span: &Span, op: Op, shape: Vec<u64>, kind: Kind) -> Result<NodeId, TextError> {
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

    fn name(&mut self, name: &str, after: bool, span: &Span) -> Result<NodeId, TextError> {
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

    fn unary(&mut self, span: &Span, op: Unary, operand: NodeId) -> Result<NodeId, TextError> {
        let Node { shape, kind, .. } = self.nodes[operand].clone();
        let (class, result) = op.types(kind).map_err(|fault| fault.at(span))?;
        // `~` of a bool is its negation, not -1 or -2.
        let op = if op == Unary::Invert && kind == Kind::Bool { Unary::Not } else { op };
        self.add(span, Op::Unary(op, class, operand), shape, result)
    }

    /// The node as bools, where it holds floats.
    fn truth(&mut self, span: &Span, node: NodeId) -> Result<NodeId, TextError> {
        if self.nodes[node].kind == Kind::Float { self.unary(span, Unary::Cast(Dtype::Bool), node) } else { Ok(node) }
    }

    fn binary(&mut self, span: &Span, op: Binary, mut a: NodeId, mut b: NodeId) -> Result<NodeId, TextError> {
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
    fn broadcast(&self, span: &Span, what: &str, nodes: &[NodeId]) -> Result<Vec<u64>, TextError> {
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

    fn call(&mut self, name: &str, name_span: &Span, args: &[Expr], axis: Option<&Expr>, span: &Span) -> Result<NodeId, TextError> {
        let found = function(name, name_span)?;
        let reduces = matches!((found, args), (Function::Reduce(_), _) | (Function::Extreme(..), [_]));
        if let Some(axis) = axis
            && !reduces
        {
            return Err(TextError::new(axis.span.clone(), format!("`{name}` has no axis")));
        }
        let wanted = match found {
            Function::Unary(_) | Function::Transpose | Function::Index | Function::After | Function::Reduce(_) => 1,
            Function::Binary(_) | Function::Matmul => 2,
            Function::Where | Function::Clamp => 3,
            Function::Extreme(..) => args.len().max(1),
        };
        if args.len() != wanted {
            return Err(wrong_count(name, &wanted.to_string(), args.len(), span));
        }
        if args.len() > crate::expr::MAX_NESTING {
            return Err(TextError::new(
                span.clone(),
                format!("`{name}` has {} arguments, the most are {}", args.len(), crate::expr::MAX_NESTING),
            ));
        }
        match found {
            Function::Index => return self.index_of(args, span),
            Function::After => return self.after(args),
            _ => {}
        }
        let mut nodes = Vec::with_capacity(args.len());
        for arg in args {
            nodes.push(self.build(arg)?);
        }
        match (found, nodes.as_slice()) {
            (Function::Unary(op), &[x]) => self.unary(span, op, x),
            (Function::Binary(op), &[a, b]) => self.binary(span, op, a, b),
            (Function::Reduce(fold) | Function::Extreme(_, fold), &[x]) => self.reduce(fold, name, x, axis, span),
            (Function::Extreme(op, _), &[first, ref rest @ ..]) => {
                rest.iter().try_fold(first, |left, &right| self.binary(span, op, left, right))
            }
            (Function::Clamp, &[x, low, high]) => {
                let raised = self.binary(span, Binary::Max, x, low)?;
                self.binary(span, Binary::Min, raised, high)
            }
            (Function::Where, &[c, a, b]) => {
                let c = self.truth(span, c)?;
                let shape = self.broadcast(span, "`where`", &[c, a, b])?;
                let kind = self.nodes[a].kind.max(self.nodes[b].kind);
                self.add(span, Op::Where(c, a, b), shape, kind)
            }
            (Function::Transpose, &[x]) => {
                let mut shape = self.nodes[x].shape.clone();
                shape.reverse();
                let dims = (0..shape.len()).rev().map(|axis| Dim { offset: 0, axis: Some(axis) }).collect();
                self.view(span, x, dims, shape)
            }
            (Function::Matmul, &[a, b]) => self.matmul(a, b, span),
            _ => Err(wrong_count(name, &wanted.to_string(), args.len(), span)),
        }
    }

    /// `after(y)`: the name is looked up as it is written; other expressions have no end of the round.
    fn after(&mut self, args: &[Expr]) -> Result<NodeId, TextError> {
        let arg = &args[0];
        let ExprKind::Name(name) = &arg.kind else {
            let error = TextError::new(arg.span.clone(), "`after` takes the name of a tensor");
            return Err(match &arg.kind {
                ExprKind::Index { .. } => error.help("write `after(y)[i]`"),
                _ => error.help("write `after(y)`, and the operations around it"),
            });
        };
        if !matches!(look_up(self.scope, name, true, &arg.span)?, Name::Tensor { .. }) {
            return Err(TextError::new(arg.span.clone(), format!("`{name}` is not a tensor: it has no contents at the end of a round")));
        }
        self.name(name, true, &arg.span)
    }

    /// The node as one truth value for each element of `target`, or as the only one where `target` has no dimensions.
    pub fn condition(&mut self, node: NodeId, span: &Span) -> Result<NodeId, TextError> {
        let Node { kind, shape, .. } = self.nodes[node].clone();
        if kind != Kind::Bool {
            let what = if kind == Kind::Float { "floats" } else { "integers" };
            return Err(TextError::new(span.clone(), format!("this place takes what is true or false, the expression gives {what}"))
                .help("compare: `x != 0`"));
        }
        if !self.target.dims().is_empty() || shape.is_empty() {
            return Ok(node);
        }
        if shape.iter().product::<u64>() != 1 {
            return Err(TextError::new(span.clone(), format!("this place takes one truth value, the expression has shape {shape:?}"))
                .help("write `all(...)` or `any(...)` around it"));
        }
        let dims = shape.iter().map(|_| Dim { offset: 0, axis: None }).collect();
        self.view(span, node, dims, Vec::new())
    }

    fn index_of(&mut self, args: &[Expr], span: &Span) -> Result<NodeId, TextError> {
        let axis = self.axis(&args[0], self.target.dims(), "the result")?;
        self.add(span, Op::Index(axis), self.target.dims().to_vec(), Kind::Int)
    }

    fn axis(&self, expr: &Expr, shape: &[u64], what: &str) -> Result<usize, TextError> {
        let (axis, rank) = (integer(expr, self.scope)?, shape.len() as i128);
        let counted = if axis < 0 { axis.saturating_add(rank) } else { axis };
        if (0..rank).contains(&counted) {
            return Ok(counted as usize);
        }
        let limit = if rank == 0 { "it has no dimensions".to_string() } else { format!("axes are {} to {}", -rank, rank - 1) };
        Err(TextError::new(expr.span.clone(), format!("axis {axis} of {what} of shape {shape:?}: {limit}")))
    }

    fn reduce(&mut self, fold: Fold, name: &str, x: NodeId, axis: Option<&Expr>, span: &Span) -> Result<NodeId, TextError> {
        let x = if matches!(fold, Fold::Any | Fold::All) { self.truth(span, x)? } else { x };
        let Node { shape, kind, .. } = self.nodes[x].clone();
        let axis = axis.map(|axis| self.axis(axis, &shape, "a value")).transpose()?;
        let folded = axis.map_or_else(|| shape.iter().product(), |axis| shape[axis]);
        if folded == 0 && matches!(fold, Fold::Min | Fold::Max | Fold::Mean) {
            return Err(TextError::new(span.clone(), format!("`{name}` of no elements: the shape is {shape:?}")));
        }
        let kind = match fold {
            Fold::Sum | Fold::Prod => kind.max(Kind::Int),
            Fold::Mean => Kind::Float,
            Fold::Min | Fold::Max => kind,
            Fold::Any | Fold::All => Kind::Bool,
        };
        let shape = match axis {
            Some(axis) => shape.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, &extent)| extent).collect(),
            None => Vec::new(),
        };
        self.add(span, Op::Reduce(fold, x, axis), shape, kind)
    }

    fn view(&mut self, span: &Span, node: NodeId, dims: Vec<Dim>, shape: Vec<u64>) -> Result<NodeId, TextError> {
        let kind = self.nodes[node].kind;
        self.add(span, Op::View(node, dims), shape, kind)
    }

    fn index(&mut self, base: NodeId, index: &[Subscript], span: &Span) -> Result<NodeId, TextError> {
        let from = self.nodes[base].shape.clone();
        if index.len() > from.len() {
            let message = format!("{} indices for shape {from:?}, which has {} dimensions", index.len(), from.len());
            return Err(TextError::new(span.clone(), message));
        }
        let (mut dims, mut shape) = (Vec::new(), Vec::new());
        for (at, &extent) in from.iter().enumerate() {
            let mut keep = |offset: u64, extent: u64| {
                dims.push(Dim { offset, axis: Some(shape.len()) });
                shape.push(extent);
            };
            match index.get(at) {
                None => keep(0, extent),
                Some(Subscript::At(expr)) => {
                    let offset = self.position(expr, extent, false)?;
                    dims.push(Dim { offset, axis: None });
                }
                Some(Subscript::Slice(low, high, slice)) => {
                    let low = low.as_ref().map_or(Ok(0), |low| self.position(low, extent, true))?;
                    let high = high.as_ref().map_or(Ok(extent), |high| self.position(high, extent, true))?;
                    if low > high {
                        return Err(TextError::new(slice.clone(), format!("slice {low}:{high} ends before it starts")));
                    }
                    keep(low, high - low);
                }
            }
        }
        self.view(span, base, dims, shape)
    }

    /// An index or, where `end` may be named too, the bound of a slice.
    fn position(&self, expr: &Expr, extent: u64, end: bool) -> Result<u64, TextError> {
        if self.mentions_tensor(expr) {
            return Err(TextError::new(expr.span.clone(), "an index that is a tensor (a gather) is not available yet")
                .help("an index is an integer, or an expression of dims"));
        }
        let value = integer(expr, self.scope)?;
        match u64::try_from(value) {
            Ok(position) if position < extent || (end && position == extent) => Ok(position),
            _ => {
                let what = if end { "bound" } else { "index" };
                let error = TextError::new(expr.span.clone(), format!("{what} {value} is out of range for the extent {extent}"));
                Err(if value < 0 { error.help("negative positions do not count from the end: write `n - 1`") } else { error })
            }
        }
    }

    fn mentions_tensor(&self, expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Number(_) | ExprKind::Bool(_) => false,
            ExprKind::Name(name) => matches!(self.scope.get(name), Some(Name::Tensor { .. })),
            ExprKind::Unary(_, x) => self.mentions_tensor(x),
            ExprKind::Binary(_, a, b) => self.mentions_tensor(a) || self.mentions_tensor(b),
            ExprKind::Call { args, .. } => args.iter().any(|arg| self.mentions_tensor(arg)),
            ExprKind::Index { base, .. } => self.mentions_tensor(base),
        }
    }

    /// NumPy's rules: a vector on the left is a row, one on the right a column, and their dimension is dropped again.
    fn matmul(&mut self, a: NodeId, b: NodeId, span: &Span) -> Result<NodeId, TextError> {
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
