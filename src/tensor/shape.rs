//! Shapes: row-major, slowest dimension first.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Dtype;

/// The largest number of elements that a tensor may have (2^40: a terabyte of bytes).
pub const MAX_ELEMENTS: u64 = 1 << 40;

/// Extents of a tensor, slowest dimension first; `[]` is a scalar of one element.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Shape(Vec<u64>);

/// A shape with more than [`MAX_ELEMENTS`] elements.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShapeError {
    pub dims: Vec<u64>,
}

impl Shape {
    /// *Errors*: more than [`MAX_ELEMENTS`] elements.
    pub fn new(dims: Vec<u64>) -> Result<Shape, ShapeError> {
        let elements = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let nonzero = dims.iter().filter(|&&d| d > 0).try_fold(1u64, |n, &d| n.checked_mul(d));
        match (elements, nonzero) {
            (Some(n), Some(_)) if n <= MAX_ELEMENTS => Ok(Shape(dims)),
            _ => Err(ShapeError { dims }),
        }
    }

    pub fn dims(&self) -> &[u64] {
        &self.0
    }

    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> u64 {
        self.0.iter().product()
    }

    /// Size of a tensor of this shape. *Units*: bytes.
    pub fn bytes(&self, dtype: Dtype) -> u64 {
        self.elements() * dtype.size() as u64
    }

    /// The index in every dimension of the element at a flat, row-major position.
    pub fn index_of(&self, mut flat: u64) -> Vec<u64> {
        let mut index = vec![0; self.0.len()];
        for (slot, &dim) in index.iter_mut().zip(&self.0).rev() {
            *slot = flat % dim.max(1);
            flat /= dim.max(1);
        }
        index
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shape {:?} has more than 2^40 elements, the most that a tensor may have", self.dims)
    }
}

impl std::error::Error for ShapeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_shapes_are_errors_and_not_overflows() {
        assert!(Shape::new(vec![u64::MAX, 2]).is_err());
        assert!(Shape::new(vec![u64::MAX, u64::MAX, 0]).is_err());
        assert!(Shape::new(vec![1_000_000_000_000_000]).is_err());
        assert_eq!(Shape::new(vec![3, 0]).unwrap().elements(), 0);
        assert_eq!(Shape::new(vec![]).unwrap().elements(), 1);
    }

    #[test]
    fn index_is_row_major() {
        let shape = Shape::new(vec![2, 3, 4]).unwrap();
        assert_eq!(shape.index_of(23), [1, 2, 3]);
        assert_eq!(shape.index_of(5), [0, 1, 1]);
    }
}
