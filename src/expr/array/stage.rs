//! What a program does before its blocks: stages over numbers and buffers.

use super::body::{Arg, Body, Code};
use super::leaf::Leaf;
use crate::expr::ast::Span;
use crate::expr::number::to_f64;
use crate::expr::ops::{Class, Fold};

/// The slot of the round's number.
pub(super) const ROUND: usize = 0;

/// One number, both exact and as a double; floats have no exact side.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Slot {
    pub int: i128,
    pub float: f64,
}

impl Slot {
    pub fn int(int: i128) -> Slot {
        Slot { int, float: to_f64(int) }
    }

    pub fn float(float: f64) -> Slot {
        Slot { int: 0, float }
    }
}

/// Where a materialised value lies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Home {
    Slot(usize),
    Buffer(usize),
}

/// One action of `prepare`; each uses only what earlier ones gave.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Stage {
    /// One number computed from others.
    Number {
        code: Code,
        args: [Arg; 3],
        into: usize,
        span: Span,
    },
    /// One number read from a source.
    Read {
        leaf: Leaf,
        class: Class,
        into: usize,
    },
    /// A body written to a buffer as it is.
    Fill {
        body: Body,
        into: usize,
    },
    /// Each run of `run` elements of the body folded into one.
    Reduce {
        fold: Fold,
        body: Body,
        run: u64,
        results: u64,
        into: Home,
        span: Span,
    },
    Product(Product),
}

/// A batch of matrix products over buffers.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Product {
    pub class: Class,
    pub left: usize,
    pub right: usize,
    pub into: usize,
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
    /// Extent of each batch dimension, and how many matrices one step along it moves, left and right.
    pub batch: Vec<(u64, u64, u64)>,
    pub span: Span,
}

/// Class and elements of a buffer of the scratch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct BufferSize {
    pub class: Class,
    pub elements: u64,
}
