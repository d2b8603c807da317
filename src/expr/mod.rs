//! Expressions: text into a tree ([`parse()`]), the tree into one number ([`Scalar`], [`integer`]) or into a
//! program over tensors ([`compile`]) that yields the elements of an expectation in blocks.

mod array;
mod ast;
mod lex;
mod number;
mod ops;
mod parse;
mod scalar;
mod scope;
#[cfg(test)]
mod tests;
mod view;

pub use array::{Inputs, Program, Registers, Scratch, compile, compile_condition};
pub use ast::{Expr, ExprKind, Span, Subscript};
pub use ops::{Binary, Kind, Unary, function_names};
pub use parse::{MAX_DEPTH, MAX_NESTING, is_reserved, parse};
pub use scalar::{Place, Scalar, integer};
pub use scope::{Name, Scope};
pub use view::{View, parse_range, parse_view};

use crate::tensor::Number;

/// The most elements that one [`Block`] has.
pub const BLOCK: usize = 1024;

/// Up to 1,024 consecutive elements of an expectation: exact integers (bool: 0 or 1), or f64.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Block<'a> {
    Int(&'a [i128]),
    Float(&'a [f64]),
}

impl Block<'_> {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Block::Int(values) => values.len(),
            Block::Float(values) => values.len(),
        }
    }

    /// One element. *Panics* when it lies beyond the block.
    pub fn number(&self, at: usize) -> Number {
        match self {
            Block::Int(values) => Number::Int(values[at]),
            Block::Float(values) => Number::Float(values[at]),
        }
    }
}
