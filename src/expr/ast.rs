//! The tree of an expression. Every node knows the bytes of the text that it came from.

use std::ops::Range;

use super::ops::{Binary, Unary};
use crate::tensor::Number;

/// A byte range of the text that an expression was parsed from.
pub type Span = Range<usize>;

/// One node of an expression and everything below it.
#[derive(Clone, PartialEq, Debug)]
pub struct Expr {
    pub span: Span,
    pub kind: ExprKind,
}

#[derive(Clone, PartialEq, Debug)]
pub enum ExprKind {
    /// A literal, `pi`, `inf` or `nan`.
    Number(Number),
    /// `true` or `false`.
    Bool(bool),
    /// A name, or the reserved word `round`.
    Name(String),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// `f(a, b, axis=k)`.
    Call {
        function: String,
        function_span: Span,
        args: Vec<Expr>,
        axis: Option<Box<Expr>>,
    },
    /// `x[i, a:b]`.
    Index {
        base: Box<Expr>,
        index: Vec<Subscript>,
    },
}

impl Expr {
    /// Calls `f` with every name of a value, in the order of the text, and its place.
    pub fn names(&self, f: &mut dyn FnMut(&str, &Span)) {
        self.words(&mut |word, span, is_function| {
            if !is_function {
                f(word, span);
            }
        });
    }

    /// Calls `f` with every name, in the order of the text, its place, and whether it is a function's.
    pub fn words(&self, f: &mut dyn FnMut(&str, &Span, bool)) {
        match &self.kind {
            ExprKind::Number(_) | ExprKind::Bool(_) => {}
            ExprKind::Name(name) => f(name, &self.span, false),
            ExprKind::Unary(_, of) => of.words(f),
            ExprKind::Binary(_, left, right) => {
                left.words(f);
                right.words(f);
            }
            ExprKind::Call { function, function_span, args, axis } => {
                f(function, function_span, true);
                for arg in args.iter().chain(axis.as_deref()) {
                    arg.words(f);
                }
            }
            ExprKind::Index { base, index } => {
                base.words(f);
                for entry in index {
                    entry.words(f);
                }
            }
        }
    }
}

impl Subscript {
    /// As [`Expr::words`].
    pub fn words(&self, f: &mut dyn FnMut(&str, &Span, bool)) {
        match self {
            Subscript::At(expr) => expr.words(f),
            Subscript::Slice(low, high, _) => {
                for bound in [low, high].into_iter().flatten() {
                    bound.words(f);
                }
            }
        }
    }
}

/// One entry between the brackets of `x[i, a:b]`.
#[derive(Clone, PartialEq, Debug)]
pub enum Subscript {
    /// `i`: drops the dimension.
    At(Expr),
    /// `a:b`, with the span from `a` to `b`; either end may be left out.
    Slice(Option<Expr>, Option<Expr>, Span),
}

impl Subscript {
    /// The bytes that the entry came from.
    pub fn span(&self) -> Span {
        match self {
            Subscript::At(expr) => expr.span.clone(),
            Subscript::Slice(_, _, span) => span.clone(),
        }
    }
}
