//! What tensors must be, as specs say it -> programs, bytes and goldens.

use std::sync::Arc;

use super::names::Resolver;
use super::places::Places;
use super::steps::Tensors;
use super::{Rounds, Tensor, Want};
use crate::check::Part;
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Expr, ExprKind, Kind, Program};
use crate::spec::{Expect, ExpectTable, Num};
use crate::tensor::Shape;

/// What an expectation is for: a tensor, or a part of it.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub tensor: &'a Tensor,
    pub part: Option<&'a Part>,
}

impl<'a> Target<'a> {
    /// The shapes that an expectation may have; the tensor's first.
    fn shapes(self) -> impl Iterator<Item = &'a Shape> {
        [Some(&self.tensor.shape), self.part.map(Part::shape)].into_iter().flatten()
    }
}

impl Resolver<'_> {
    /// The expectations of the sets.
    pub(super) fn wants_of_sets(&self, at: &Place, target: Target<'_>, tensors: &Tensors, rounds: Option<Rounds>) -> Option<Vec<Want>> {
        let name = &target.tensor.name;
        let rows = self.rows();
        if rows.is_empty() {
            if !self.loaded.lacks(&Place::root().to("sets")) {
                self.report(
                    Diagnostic::error("no-expectation", at.to("tensor"), format!("nothing says what `{name}` must be"))
                        .help("write `expect = \"...\"` here, or `expect` in every set"),
                );
            }
            return None;
        }
        let mut wants = Vec::new();
        let mut ok = true;
        for row in rows {
            let set_at = Place::root().to("sets").to(row.index);
            match self.spec.sets[row.index].expect.get(name) {
                Some(expect) => match self.of_row(&row, || self.want(&set_at.to("expect").to(name), expect, target, tensors, rounds)) {
                    Some(want) => wants.push(want),
                    None => ok = false,
                },
                None => {
                    ok = false;
                    if !self.loaded.is_damaged(&set_at) {
                        self.report(
                            Diagnostic::error("no-expectation", set_at, format!("this set does not say what `{name}` must be"))
                                .help(format!("add `expect.{name} = ...`"))
                                .also(at.to("tensor"), "checked here, without an `expect` of its own"),
                        );
                    }
                }
            }
        }
        ok.then_some(wants)
    }

    /// One expectation.
    pub(super) fn want(&self, at: &Place, expect: &Expect, target: Target<'_>, tensors: &Tensors, rounds: Option<Rounds>) -> Option<Want> {
        match expect {
            Expect::Expr(text) => self.want_expr(at, &self.parse(at, text)?, target, tensors),
            Expect::Table(table) => self.want_table(at, table, target, tensors, rounds),
        }
    }

    /// Compiles for the tensor's shape, or, where that does not fit, for the part's.
    pub(super) fn for_target<T>(
        &self,
        at: &Place,
        expr: &Expr,
        scope: &Places<'_>,
        target: Target<'_>,
        compile: impl Fn(&Shape) -> Result<T, crate::diag::TextError>,
    ) -> Option<T> {
        let mut errors = Vec::new();
        for shape in target.shapes() {
            match compile(shape) {
                Ok(compiled) => return Some(compiled),
                Err(error) => errors.push(error),
            }
        }
        let same = errors.windows(2).all(|pair| pair[0] == pair[1]);
        let error = errors.into_iter().next()?;
        let error = match target.part {
            Some(part) if !same => error.help(format!(
                "here it has the tensor's shape, {}, or that of the part, {}: each dimension, from the last one back, is equal or 1",
                target.tensor.shape,
                part.shape()
            )),
            _ => error,
        };
        self.report_expr(at, expr, scope, error);
        None
    }

    fn want_expr(&self, at: &Place, expr: &Expr, target: Target<'_>, tensors: &Tensors) -> Option<Want> {
        let (tensor, scope) = (target.tensor, Places::expectation(self, tensors));
        let compile = |shape: &Shape| -> Result<Program, _> { expr::compile(expr, &scope, shape)?.broadcast_to(shape) };
        let program = self.for_target(at, expr, &scope, target, compile)?;
        if program.kind() == Kind::Float && !tensor.dtype.is_float() {
            self.report(
                Diagnostic::error("wrong-dtype", at.clone(), format!("this expectation is a float, `{}` is {}", tensor.name, tensor.dtype))
                    .help(format!(
                        "say how it becomes whole: `{0}(x)` cuts the fraction off, `{0}(rint(x))` rounds, `//` divides whole numbers",
                        tensor.dtype
                    )),
            );
            return None;
        }
        Some(Want::Expr(Arc::new(program)))
    }

    fn want_table(&self, at: &Place, table: &ExpectTable, target: Target<'_>, tensors: &Tensors, rounds: Option<Rounds>) -> Option<Want> {
        let tensor = target.tensor;
        let given = [("values", table.values.is_some()), ("fill", table.fill.is_some()), ("file", table.file.is_some())];
        let given: Vec<_> = given.into_iter().filter(|g| g.1).map(|g| g.0).collect();
        if given.len() != 1 {
            if !self.loaded.is_damaged(at) {
                self.report(Diagnostic::error(
                    "two-expectations",
                    at.clone(),
                    format!("an expectation with {} of `values`, `fill`, `file`: it has exactly one", given.len()),
                ));
            }
            return None;
        }
        if table.at.is_some() && table.file.is_none() {
            self.report(Diagnostic::error("misplaced-key", at.to("at").key(), "`at` picks a row of a `file`"));
            return None;
        }
        if let Some(values) = &table.values {
            // Of the tensor where as many are given, else of the part, whose shape the message then names.
            let part = target.part.filter(|_| count(values) != tensor.shape.elements());
            let shape = part.map_or(&tensor.shape, Part::shape);
            return self.values(&at.to("values"), values, tensor.dtype, shape).map(Want::Bytes);
        }
        if let Some(value) = &table.fill {
            let at = at.to("fill");
            let text = match value {
                Num::Text(text) if text.trim().starts_with("bits(") => {
                    let bits = self.bits(&at, value, tensor.dtype)?;
                    let number = Expr { span: 0..text.len(), kind: ExprKind::Number(tensor.dtype.decode(bits)) };
                    return self.want_expr(&at, &number, target, tensors);
                }
                Num::Text(text) => text.clone(),
                Num::Bool(b) => u8::from(*b).to_string(),
                Num::Int(i) => i.to_string(),
                Num::Float(f) => format!("{f:?}").to_lowercase(),
            };
            return self.want_expr(&at, &self.parse(&at, &text)?, target, tensors);
        }
        let path = table.file.as_deref()?;
        let file_at = at.to("file");
        let Some(row) = &table.at else {
            let file = self.npy(&file_at, path, tensor.dtype, None)?;
            if !target.shapes().any(|shape| shape == file.shape()) {
                let or = target.part.map(|part| format!(", the part {}", part.shape())).unwrap_or_default();
                let message = format!("`{path}` has shape {}, the tensor has {}{or}", file.shape(), tensor.shape);
                self.report(Diagnostic::error("file", file_at, message));
                return None;
            }
            return Some(Want::File { file, row: None });
        };
        let file = self.npy(&file_at, path, tensor.dtype, None)?;
        let dims = file.shape().dims();
        if dims.is_empty() || !target.shapes().any(|shape| dims[1..] == *shape.dims()) {
            self.report(Diagnostic::error(
                "file",
                file_at,
                format!("`{path}` has shape {}, with `at` it must be [rows, ...] of {}", file.shape(), tensor.shape),
            ));
            return None;
        }
        let row_at = at.to("at");
        let scalar = self.scalar(&row_at, row, &Places::per_round(self, &[]), expr::Place::Integer)?;
        let last = rounds.map_or(0, |r| r.count.saturating_sub(1));
        for round in [0, last] {
            let row = scalar.eval(round).map_err(|e| self.report_text("expression", &row_at, e)).ok()?;
            if row.to_integer().is_none_or(|r| r < 0 || r >= i128::from(dims[0])) {
                self.report(Diagnostic::error(
                    "out-of-range",
                    row_at,
                    format!("row {row} in round {round}: `{path}` has {} rows", dims[0]),
                ));
                return None;
            }
        }
        Some(Want::File { file, row: Some(scalar) })
    }
}

/// Numbers in a nested list.
fn count(values: &[crate::spec::Nested]) -> u64 {
    let one = |value: &crate::spec::Nested| match value {
        crate::spec::Nested::Num(_) => 1,
        crate::spec::Nested::List(values) => count(values),
    };
    values.iter().map(one).sum()
}
