//! `holds = "..."` -> one truth value over the start and the end of a round, and both sides where it compares two numbers.

use std::sync::Arc;

use super::names::Resolver;
use super::places::Places;
use super::steps::Tensors;
use super::{Condition, Every};
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Binary, Expr, ExprKind, Program};
use crate::spec;
use crate::tensor::Shape;

impl Resolver<'_> {
    /// A claim about the round as a whole.
    pub(super) fn condition(
        &self,
        at: &Place,
        check: &spec::Check,
        text: &str,
        every: Option<Every>,
        tensors: &Tensors,
        written: &[bool],
    ) -> Option<Condition> {
        let mut ok = self.no_build(at, check);
        for key in of_tensor(check) {
            ok = false;
            self.report(
                Diagnostic::error(
                    "bad-check",
                    at.to(key).key(),
                    format!("`{key}` belongs to a check of a `tensor`, and this one says what `holds`"),
                )
                .help("make two checks of it"),
            );
        }
        let holds_at = at.to("holds");
        let expr = self.parse(&holds_at, text)?;
        let scope = Places::condition(self, tensors, written);
        let one = Shape::default();
        let program = expr::compile_condition(&expr, &scope, &one).map_err(|e| self.report_expr(&holds_at, &expr, &scope, e)).ok()?;
        if program.after_tensors().is_empty() {
            self.report(
                Diagnostic::error("cannot-fail", holds_at, "this names no `after(...)`: nothing that a step does can change it")
                    .help("`after(y)` is what `y` holds at the end of the round, `y` alone what it held at the start"),
            );
            return None;
        }
        let sides = match &expr.kind {
            ExprKind::Binary(op @ (Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::Eq | Binary::Ne), left, right) => {
                let side = |expr: &Expr| number(expr, &scope);
                side(left).zip(side(right)).map(|(left, right)| (left, *op, right))
            }
            _ => None,
        };
        let mut asks_nan = false;
        expr.words(&mut |word, _, is_function| asks_nan |= is_function && ["isnan", "isfinite"].contains(&word));
        let every = every?;
        ok.then(|| Condition { program: Arc::new(program), sides, asks_nan, every, place: at.clone(), text: text.to_string() })
    }
}

/// The keys of a check that are about a tensor.
pub(super) fn of_tensor(check: &spec::Check) -> impl Iterator<Item = &'static str> {
    let keys = [
        ("tensor", check.tensor.is_some()),
        ("expect", check.expect.is_some()),
        ("exact", check.exact.is_some()),
        ("bitwise", check.bitwise.is_some()),
        ("rtol", check.rtol.is_some()),
        ("atol", check.atol.is_some()),
        ("ulp", check.ulp.is_some()),
        ("rel_l2", check.rel_l2.is_some()),
        ("max_abs", check.max_abs.is_some()),
        ("min_cosine", check.min_cosine.is_some()),
        ("max_mismatches", check.max_mismatches.is_some()),
        ("nan", check.nan.is_some()),
        ("where", check.mask.is_some()),
        ("unordered", check.unordered),
        ("written", check.written),
        ("between", check.between.is_some()),
    ];
    keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key)
}

/// One number of a comparison; `None` where it has dimensions.
fn number(expr: &Expr, scope: &Places<'_>) -> Option<Arc<Program>> {
    let program = expr::compile(expr, scope, &Shape::default()).ok()?;
    (program.shape().elements() == 1).then(|| Arc::new(program))
}
