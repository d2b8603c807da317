//! `x[i, a:b]` into nodes: what is the same in every round is a view, what tensors or the round decide is a gather.

use super::dims::Dim;
use super::graph::{Gather, Graph, NodeId, Op};
use crate::diag::TextError;
use crate::expr::ast::{Expr, ExprKind, Span, Subscript};
use crate::expr::ops::{Function, Kind, function};
use crate::expr::scalar::integer;
use crate::expr::scope::Name;

impl Graph<'_> {
    /// NumPy's rules: index arrays broadcast with each other, and with the single indices beside them; their dimensions
    /// stand where the first of them stood, or in front where a slice stands between two of them.
    pub(super) fn index(&mut self, base: NodeId, index: &[Subscript], span: &Span) -> Result<NodeId, TextError> {
        let from = self.nodes[base].shape.clone();
        if index.len() > from.len() {
            let message = format!("{} indices for shape {from:?}, which has {} dimensions", index.len(), from.len());
            return Err(TextError::new(span.clone(), message));
        }
        // The view that the slices and the fixed indices leave, and where its dimensions are indexed by a node.
        let (mut dims, mut shape, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        // Of the entries that drop a dimension: the dimensions kept before the first, and whether slices part them.
        let (mut first, mut parted, mut last) = (None, false, 0);
        for (at, &extent) in from.iter().enumerate() {
            let mut keep = |offset: u64, extent: u64, node: Option<NodeId>| {
                dims.push(Dim { offset, axis: Some(shape.len()) });
                shape.push(extent);
                nodes.push(node);
            };
            if let Some(Subscript::At(_)) = index.get(at) {
                parted |= first.is_some() && last + 1 != at;
                first.get_or_insert(at);
                last = at;
            }
            match index.get(at) {
                None => keep(0, extent, None),
                Some(Subscript::At(expr)) if self.is_computed(expr) => {
                    let node = self.build(expr)?;
                    match self.nodes[node].kind {
                        Kind::Bool => {
                            return Err(TextError::new(expr.span.clone(), "a mask is no index").help("write `compress(x, mask)`"));
                        }
                        _ => self.integers(node, "an index is an integer", expr)?,
                    }
                    keep(0, extent, Some(node));
                }
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
                    keep(low, high - low, None);
                }
            }
        }
        let view = self.view(span, base, dims, shape.clone())?;
        let computed: Vec<NodeId> = nodes.iter().copied().flatten().collect();
        if computed.is_empty() {
            return Ok(view);
        }
        let spread = self.broadcast(span, "index arrays", &computed)?;
        let first = if parted { 0 } else { first.unwrap_or(0) };
        let mut result: Vec<u64> = shape.iter().zip(&nodes).filter(|(_, node)| node.is_none()).map(|(&extent, _)| extent).collect();
        let rank = spread.len();
        result.splice(first..first, spread);
        let kind = self.nodes[view].kind;
        self.add(span, Op::Gather(Gather { from: view, index: nodes, first, rank }), result, kind)
    }

    /// An index or, where `end` may be named too, the bound of a slice.
    fn position(&self, expr: &Expr, extent: u64, end: bool) -> Result<u64, TextError> {
        if end && self.is_computed(expr) {
            return Err(TextError::new(expr.span.clone(), "the bounds of a slice are the same in every round")
                .help("they are integers, or expressions of dims; an index that is a tensor gathers: `x[i]`"));
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

    /// Whether a round or a tensor decides the value, so that it is not known yet.
    fn is_computed(&self, expr: &Expr) -> bool {
        let mut computed = false;
        expr.words(&mut |word, span, is_function| {
            computed |= if is_function {
                let scalar =
                    |f| matches!(f, Function::Unary(_) | Function::Binary(_) | Function::Extreme(..) | Function::Where | Function::Clamp);
                function(word, span).is_ok_and(|f| !scalar(f))
            } else {
                matches!(self.scope.get(word), Some(Name::Tensor { .. } | Name::Round))
            };
        });
        computed || matches!(expr.kind, ExprKind::Index { .. })
    }
}
