//! The box of a tensor that a check names, such as `a[1:h-1, 3]`: within the tensor, and not empty.

use super::Tensor;
use super::names::Resolver;
use super::places::Places;
use crate::check::{Part, Side};
use crate::diag::{Diagnostic, Place};
use crate::expr::{Expr, Subscript, View};

impl Resolver<'_> {
    /// The box of a view; `None` for the whole tensor. *Errors*: one that is reported.
    pub(super) fn part(&self, at: &Place, view: &View, tensor: &Tensor) -> Result<Option<Part>, ()> {
        let dims = tensor.shape.dims();
        let refuse = |span: std::ops::Range<usize>, message: String, help: &str| {
            let diagnostic = Diagnostic::error("bad-view", at.inside(span), message);
            self.report(if help.is_empty() { diagnostic } else { diagnostic.help(help) });
        };
        if let Some((dtype, span)) = &view.cast {
            refuse(span.clone(), format!("a check has no `as {dtype}`: a tensor is compared in its own dtype"), "");
            return Err(());
        }
        if let Some(beyond) = view.index.get(dims.len()) {
            let message =
                format!("`{}` has {} dimensions (shape {}), {} are indexed", tensor.name, dims.len(), tensor.shape, view.index.len());
            refuse(beyond.span(), message, "");
            return Err(());
        }
        let scope = Places::constant(self, &[]);
        let eval = |expr: &Expr| self.eval_int(at, expr, &scope);
        let side = |axis: usize, dim: u64| -> Option<Side> {
            match view.index.get(axis) {
                None => Some(Side { start: 0, extent: dim, dropped: false }),
                Some(Subscript::At(expr)) => {
                    let index = eval(expr)?;
                    let Some(start) = u64::try_from(index).ok().filter(|index| *index < dim) else {
                        let message = format!("index {index} is out of range: `{}` has {dim} in dimension {axis}", tensor.name);
                        refuse(expr.span.clone(), message, "indices count from 0");
                        return None;
                    };
                    Some(Side { start, extent: 1, dropped: true })
                }
                Some(Subscript::Slice(low, high, span)) => {
                    let low = low.as_ref().map_or(Some(0), eval);
                    let high = high.as_ref().map_or(Some(i128::from(dim)), eval);
                    let (low, high) = (low?, high?);
                    const WHAT: &str = "a slice a:b has the indices a up to and without b";
                    if low < 0 || high > i128::from(dim) {
                        let message = format!("{low}:{high} is out of range: `{}` has {dim} in dimension {axis}", tensor.name);
                        refuse(span.clone(), message, WHAT);
                        return None;
                    }
                    if low >= high {
                        refuse(span.clone(), format!("{low}:{high} is empty: nothing would be compared"), WHAT);
                        return None;
                    }
                    Some(Side { start: low as u64, extent: (high - low) as u64, dropped: false })
                }
            }
        };
        // Every dimension is looked at, so that all that is wrong is said.
        let sides: Vec<Option<Side>> = dims.iter().enumerate().map(|(axis, &dim)| side(axis, dim)).collect();
        let sides: Vec<Side> = sides.into_iter().collect::<Option<_>>().ok_or(())?;
        if sides.iter().zip(dims).all(|(side, &dim)| side.extent == dim && !side.dropped) {
            return Ok(None);
        }
        Part::new(&tensor.shape, sides).map(Some).ok_or(())
    }
}
