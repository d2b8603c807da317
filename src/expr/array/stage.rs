//! What a program does before its blocks: stages over numbers and buffers.

use super::body::{Arg, Body, Code};
use super::leaf::Leaf;
use super::reduce::partials;
use crate::expr::ast::Span;
use crate::expr::number::to_f64;
use crate::expr::ops::{Along, Class, Fold};

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
    /// A body written to a buffer, and each run of `run` elements there replaced by what is computed along it.
    Along {
        along: Along,
        body: Body,
        run: u64,
        into: usize,
        span: Span,
    },
    Compress(Choice),
    /// How often each number below `bins` stands in a body.
    Bincount {
        body: Body,
        bins: u64,
        into: usize,
        span: Span,
    },
    Segments(Segments),
}

/// Bins up to which every thread counts in its own.
const MOST_BINS: u64 = 1 << 16;

impl Stage {
    /// The body that the stage evaluates.
    pub fn body(&self) -> Option<&Body> {
        match self {
            Stage::Fill { body, .. } | Stage::Reduce { body, .. } | Stage::Along { body, .. } | Stage::Bincount { body, .. } => Some(body),
            Stage::Compress(choice) => Some(&choice.body),
            Stage::Segments(segments) => Some(&segments.body),
            Stage::Number { .. } | Stage::Read { .. } | Stage::Product(_) => None,
        }
    }

    /// The buffer that the stage fills.
    pub fn into(&self) -> Option<usize> {
        match self {
            Stage::Fill { into, .. } | Stage::Along { into, .. } | Stage::Bincount { into, .. } => Some(*into),
            Stage::Reduce { into: Home::Buffer(into), .. } => Some(*into),
            Stage::Product(product) => Some(product.into),
            Stage::Compress(choice) => Some(choice.into),
            Stage::Segments(segments) => Some(segments.into),
            Stage::Number { .. } | Stage::Read { .. } | Stage::Reduce { into: Home::Slot(_), .. } => None,
        }
    }

    /// Partial results that the stage keeps.
    pub fn partials(&self) -> u64 {
        match self {
            Stage::Reduce { run, results, .. } => partials(*run, *results),
            Stage::Along { run, .. } => partials(*run, 1),
            _ => 0,
        }
    }

    /// Elements that both operands of a product need when they are packed.
    pub fn packed(&self) -> u64 {
        match self {
            Stage::Product(product) if product.class == Class::Float => product.extents().packed(),
            _ => 0,
        }
    }

    /// Bins of all threads.
    pub fn counts(&self, threads: usize) -> u64 {
        match self {
            Stage::Bincount { bins, .. } if *bins <= MOST_BINS && threads > 1 => bins * threads as u64,
            _ => 0,
        }
    }
}

/// The rows of a body where another one is true.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Choice {
    pub body: Body,
    pub mask: Body,
    pub rows: u64,
    /// Elements of a row.
    pub width: u64,
    /// The rows that the result has: as many must be chosen.
    pub wanted: u64,
    pub into: usize,
    pub span: Span,
}

/// Sums of segments of each run of a body.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Segments {
    pub body: Body,
    pub run: u64,
    /// The buffer of integers between which the segments lie: one more than there are segments.
    pub bounds: usize,
    pub segments: u64,
    pub into: usize,
    pub span: Span,
    pub bounds_span: Span,
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

impl BufferSize {
    /// *Units*: bytes.
    pub fn bytes(self) -> u64 {
        self.elements.saturating_mul(if self.class == Class::Float { 8 } else { 16 })
    }
}
