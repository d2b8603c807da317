//! Calls into nodes: which arguments a function takes, and what shape and kind comes out.

use super::dims::Dim;
use super::graph::{Graph, Node, NodeId, Op};
use crate::diag::TextError;
use crate::expr::MAX_NESTING;
use crate::expr::ast::{Expr, ExprKind, Span};
use crate::expr::ops::{Along, Binary, Fold, Function, Kind, Unary, function};
use crate::expr::scalar::{integer, wrong_count};
use crate::expr::scope::{Name, look_up};
use crate::tensor::Dtype;

/// How many of its arguments are tensors, and how many there may be in all.
fn arity(found: Function) -> (usize, std::ops::RangeInclusive<usize>) {
    match found {
        Function::Index | Function::After => (0, 1..=1),
        Function::Unary(_) | Function::Reduce(_) | Function::Norm | Function::Along(_) => (1, 1..=1),
        Function::Bincount | Function::Repeat => (1, 2..=2),
        Function::Reshape => (1, 2..=MAX_NESTING),
        Function::Transpose => (1, 1..=MAX_NESTING),
        Function::Binary(_) | Function::Matmul | Function::Compress | Function::SegmentSum => (2, 2..=2),
        Function::Where | Function::Clamp => (3, 3..=3),
        Function::Extreme(..) => (MAX_NESTING, 1..=MAX_NESTING),
    }
}

impl Graph<'_> {
    pub(super) fn call(
        &mut self,
        name: &str,
        name_span: &Span,
        args: &[Expr],
        axis: Option<&Expr>,
        span: &Span,
    ) -> Result<NodeId, TextError> {
        let found = function(name, name_span)?;
        let along = match found {
            Function::Reduce(_) | Function::Norm | Function::Along(_) | Function::Repeat => true,
            Function::Extreme(..) => args.len() == 1,
            _ => false,
        };
        if let Some(axis) = axis
            && !along
        {
            return Err(TextError::new(axis.span.clone(), format!("`{name}` has no axis")));
        }
        let (tensors, counts) = arity(found);
        if args.len() > MAX_NESTING {
            return Err(TextError::new(span.clone(), format!("`{name}` has {} arguments, the most are {MAX_NESTING}", args.len())));
        }
        if !counts.contains(&args.len()) {
            let wanted = if counts.start() == counts.end() { counts.start().to_string() } else { format!("at least {}", counts.start()) };
            let error = wrong_count(name, &wanted, args.len(), span);
            let extra = along && args.len() > *counts.end();
            return Err(if extra { error.help(format!("an axis has its name: `{name}(x, axis=0)`")) } else { error });
        }
        let nodes = args.iter().take(tensors).map(|arg| self.build(arg)).collect::<Result<Vec<NodeId>, TextError>>()?;
        match (found, nodes.as_slice()) {
            (Function::Index, _) => self.index_of(&args[0], span),
            (Function::After, _) => self.after(&args[0]),
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
            (Function::Matmul, &[a, b]) => self.matmul(a, b, span),
            (Function::Norm, &[x]) => {
                let x = if self.nodes[x].kind == Kind::Float { x } else { self.unary(span, Unary::Cast(Dtype::F64), x)? };
                let squares = self.unary(span, Unary::Square, x)?;
                let sum = self.reduce(Fold::Sum, name, squares, axis, span)?;
                self.unary(span, Unary::Sqrt, sum)
            }
            (Function::Along(along), &[x]) => self.along(along, name, x, axis, span),
            (Function::Transpose, &[x]) => self.transpose(x, &args[1..], span),
            (Function::Reshape, &[x]) => self.reshape_to(x, &args[1..], span),
            (Function::Repeat, &[x]) => self.repeat(x, &args[1], axis, span),
            (Function::Compress, &[x, mask]) => self.compress(x, mask, args, span),
            (Function::Bincount, &[x]) => {
                self.integers(x, "`bincount` counts integers", &args[0])?;
                let bins = self.count(&args[1], "the number of bins")?;
                self.add(span, Op::Bincount(x), vec![bins], Kind::Int)
            }
            (Function::SegmentSum, &[x, indptr]) => self.segment_sum(x, indptr, args, span),
            _ => Err(wrong_count(name, &counts.start().to_string(), args.len(), span)),
        }
    }

    /// `after(y)`: the name is looked up as it is written; other expressions have no end of the round.
    fn after(&mut self, arg: &Expr) -> Result<NodeId, TextError> {
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
    pub(super) fn condition(&mut self, node: NodeId, span: &Span) -> Result<NodeId, TextError> {
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

    fn index_of(&mut self, axis: &Expr, span: &Span) -> Result<NodeId, TextError> {
        let axis = self.axis(axis, self.target.dims(), "the result")?;
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

    /// A number of elements that is the same in every round.
    fn count(&self, expr: &Expr, what: &str) -> Result<u64, TextError> {
        let value = integer(expr, self.scope)?;
        u64::try_from(value).map_err(|_| TextError::new(expr.span.clone(), format!("{what} is {value}, it must be at least 0")))
    }

    /// *Errors*: the node holds floats.
    pub(super) fn integers(&self, node: NodeId, rule: &str, arg: &Expr) -> Result<(), TextError> {
        if self.nodes[node].kind != Kind::Float {
            return Ok(());
        }
        Err(TextError::new(arg.span.clone(), format!("{rule}, this is a float")).help("cast with `i64(x)`"))
    }

    fn reduce(&mut self, fold: Fold, name: &str, x: NodeId, axis: Option<&Expr>, span: &Span) -> Result<NodeId, TextError> {
        let x = if matches!(fold, Fold::Any | Fold::All) { self.truth(span, x)? } else { x };
        let Node { shape, kind, .. } = self.nodes[x].clone();
        let axis = axis.map(|axis| self.axis(axis, &shape, "a value")).transpose()?;
        let folded = axis.map_or_else(|| shape.iter().product(), |axis| shape[axis]);
        if folded == 0 && matches!(fold, Fold::Min | Fold::Max | Fold::Mean | Fold::ArgMin | Fold::ArgMax) {
            return Err(TextError::new(span.clone(), format!("`{name}` of no elements: the shape is {shape:?}")));
        }
        let kind = match fold {
            Fold::Sum | Fold::Prod => kind.max(Kind::Int),
            Fold::Mean => Kind::Float,
            Fold::Min | Fold::Max => kind,
            Fold::Any | Fold::All => Kind::Bool,
            Fold::ArgMin | Fold::ArgMax => Kind::Int,
        };
        let shape = match axis {
            Some(axis) => shape.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, &extent)| extent).collect(),
            None => Vec::new(),
        };
        self.add(span, Op::Reduce(fold, x, axis), shape, kind)
    }

    fn along(&mut self, along: Along, name: &str, x: NodeId, axis: Option<&Expr>, span: &Span) -> Result<NodeId, TextError> {
        let Node { shape, kind, .. } = self.nodes[x].clone();
        let rank = shape.len();
        let (x, axis) = match (along, axis) {
            (_, Some(axis)) => (x, self.axis(axis, &shape, "a value")?),
            (Along::Cumsum, None) => (self.flat(x, span)?, 0),
            (Along::Softmax, None) if rank > 1 => {
                return Err(TextError::new(span.clone(), format!("`{name}` of shape {shape:?} needs its axis"))
                    .help(format!("write `{name}(x, axis={})` for the last one", rank - 1)));
            }
            (_, None) if rank == 0 => {
                return Err(TextError::new(span.clone(), format!("`{name}` of one number, which has no dimensions")));
            }
            (_, None) => (x, rank - 1),
        };
        let kind = match along {
            Along::Cumsum => kind.max(Kind::Int),
            Along::Sort => kind,
            Along::Softmax => Kind::Float,
        };
        let shape = self.nodes[x].shape.clone();
        self.add(span, Op::Along(along, x, axis), shape, kind)
    }

    fn transpose(&mut self, x: NodeId, axes: &[Expr], span: &Span) -> Result<NodeId, TextError> {
        let from = self.nodes[x].shape.clone();
        let rank = from.len();
        let mut order: Vec<usize> = (0..rank).rev().collect();
        if !axes.is_empty() {
            if axes.len() != rank {
                let message = format!("`transpose` names {} axes, shape {from:?} has {rank}", axes.len());
                return Err(TextError::new(axes[0].span.start..axes[axes.len() - 1].span.end, message));
            }
            for (at, expr) in axes.iter().enumerate() {
                let axis = self.axis(expr, &from, "a value")?;
                if order[..at].contains(&axis) {
                    return Err(TextError::new(expr.span.clone(), format!("axis {axis} is named twice")));
                }
                order[at] = axis;
            }
        }
        let mut dims = vec![Dim { offset: 0, axis: None }; rank];
        for (to, &axis) in order.iter().enumerate() {
            dims[axis].axis = Some(to);
        }
        let shape = order.iter().map(|&axis| from[axis]).collect();
        self.view(span, x, dims, shape)
    }

    /// The node with another shape of as many elements.
    fn reshape(&mut self, x: NodeId, shape: Vec<u64>, span: &Span) -> Result<NodeId, TextError> {
        if self.nodes[x].shape == shape {
            return Ok(x);
        }
        // Of a reshape's source only the order counts.
        let x = if let Op::Reshape(from) = self.nodes[x].op { from } else { x };
        let kind = self.nodes[x].kind;
        self.add(span, Op::Reshape(x), shape, kind)
    }

    fn flat(&mut self, x: NodeId, span: &Span) -> Result<NodeId, TextError> {
        let elements = self.nodes[x].shape.iter().product();
        self.reshape(x, vec![elements], span)
    }

    fn reshape_to(&mut self, x: NodeId, extents: &[Expr], span: &Span) -> Result<NodeId, TextError> {
        let from = self.nodes[x].shape.clone();
        let elements: u64 = from.iter().product();
        let (mut shape, mut open) = (Vec::with_capacity(extents.len()), None);
        for (at, expr) in extents.iter().enumerate() {
            match integer(expr, self.scope)? {
                -1 if open.is_none() => {
                    open = Some(at);
                    shape.push(1);
                }
                -1 => return Err(TextError::new(expr.span.clone(), "only one extent can be -1, which stands for what is left")),
                value => shape.push(u64::try_from(value).map_err(|_| {
                    TextError::new(expr.span.clone(), format!("extent {value} of a shape must be at least 0"))
                        .help("-1 stands for what is left")
                })?),
            }
        }
        let given = shape.iter().try_fold(1u64, |all, &extent| all.checked_mul(extent));
        if let (Some(at), Some(given)) = (open, given)
            && given > 0
            && elements.is_multiple_of(given)
        {
            shape[at] = elements / given;
        } else if open.is_some() || given != Some(elements) {
            let wanted: Vec<String> =
                shape.iter().enumerate().map(|(at, extent)| if open == Some(at) { "-1".into() } else { extent.to_string() }).collect();
            let message = format!("`reshape` of shape {from:?}, which has {elements} elements, to [{}]", wanted.join(", "));
            return Err(TextError::new(extents[0].span.start..extents[extents.len() - 1].span.end, message));
        }
        self.reshape(x, shape, span)
    }

    /// Each element so many times in a row: a dimension behind the axis, merged with it.
    fn repeat(&mut self, x: NodeId, times: &Expr, axis: Option<&Expr>, span: &Span) -> Result<NodeId, TextError> {
        let times = self.count(times, "the number of repeats")?;
        let (x, axis) = match axis {
            Some(axis) => (x, self.axis(axis, &self.nodes[x].shape, "a value")?),
            None => (self.flat(x, span)?, 0),
        };
        let mut shape = self.nodes[x].shape.clone();
        let dims = (0..shape.len()).map(|at| Dim { offset: 0, axis: Some(if at > axis { at + 1 } else { at }) }).collect();
        let mut spread = shape.clone();
        spread.insert(axis + 1, times);
        shape[axis] = shape[axis].saturating_mul(times);
        let view = self.view(span, x, dims, spread)?;
        self.reshape(view, shape, span)
    }

    fn compress(&mut self, x: NodeId, mask: NodeId, args: &[Expr], span: &Span) -> Result<NodeId, TextError> {
        let (shape, rows) = (self.nodes[x].shape.clone(), self.nodes[mask].shape.clone());
        if self.nodes[mask].kind != Kind::Bool {
            return Err(TextError::new(args[1].span.clone(), "the mask of `compress` is not true or false").help("compare: `x != 0`"));
        }
        if rows.is_empty() || !shape.starts_with(&rows) {
            return Err(TextError::new(args[1].span.clone(), format!("`compress` of shape {shape:?} by a mask of shape {rows:?}"))
                .help("the mask has the leading dimensions of what it chooses from"));
        }
        let rest = &shape[rows.len()..];
        let target = self.target.dims();
        if target.len() != 1 + rest.len() {
            let chosen = if rest.is_empty() { "numbers".to_string() } else { format!("rows of shape {rest:?}") };
            return Err(TextError::new(
                span.clone(),
                format!("how many {chosen} `compress` gives depends on data, and a tensor of shape {target:?} does not say how many"),
            )
            .help("for a sum over them write `sum(where(mask, x, 0))`"));
        }
        let mut result = vec![target[0]];
        result.extend(rest);
        let kind = self.nodes[x].kind;
        self.add(span, Op::Compress(x, mask), result, kind)
    }

    fn segment_sum(&mut self, x: NodeId, indptr: NodeId, args: &[Expr], span: &Span) -> Result<NodeId, TextError> {
        self.integers(indptr, "`indptr` has integers", &args[1])?;
        let (mut shape, bounds) = (self.nodes[x].shape.clone(), self.nodes[indptr].shape.clone());
        let (&[ends], false) = (&bounds[..], shape.is_empty()) else {
            let at = if shape.is_empty() { 0 } else { 1 };
            let message = format!("`segment_sum` of shape {shape:?} with `indptr` of shape {bounds:?}");
            return Err(TextError::new(args[at].span.clone(), message).help("`indptr` has one dimension, what is summed at least one"));
        };
        let Some(segments) = ends.checked_sub(1) else {
            return Err(TextError::new(args[1].span.clone(), "`indptr` is empty; it has one entry more than there are segments"));
        };
        shape[0] = segments;
        let kind = self.nodes[x].kind.max(Kind::Int);
        self.add(span, Op::SegmentSum(x, indptr), shape, kind)
    }
}
