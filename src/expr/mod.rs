//! Expressions.

/// Up to 1,024 consecutive elements of an expectation: exact integers (bool: 0 or 1), or f64.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Block<'a> {
    Int(&'a [i128]),
    Float(&'a [f64]),
}
