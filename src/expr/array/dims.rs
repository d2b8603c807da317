//! How the dimensions of values map onto each other: broadcasting, views, row-major strides.

/// The most dimensions of a tensor in an expression.
pub(super) const MAX_RANK: usize = 16;

/// Where one dimension of a viewed value comes from: `offset`, plus the index along `axis` of the result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Dim {
    pub offset: u64,
    pub axis: Option<usize>,
}

/// The dimensions before the last two, and those two. The shape has at least two.
pub(super) fn split(shape: &[u64]) -> (&[u64], [u64; 2]) {
    match shape {
        [batch @ .., rows, columns] => (batch, [*rows, *columns]),
        _ => (&[], [1, 1]),
    }
}

/// The shape that two shapes broadcast to, if they do.
pub(super) fn broadcast(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let rank = a.len().max(b.len());
    let extent = |shape: &[u64], at: usize| (at + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
    (0..rank)
        .map(|at| match (extent(a, at), extent(b, at)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Each dimension from the axis of the same number.
pub(super) fn identity(shape: &[u64]) -> Vec<Dim> {
    shape.iter().enumerate().map(|(axis, &extent)| Dim { offset: 0, axis: (extent != 1).then_some(axis) }).collect()
}

/// Row-major strides. *Units*: elements.
pub(super) fn row_major(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at] * shape[at];
    }
    strides
}

/// The map of an operand that is broadcast to a node, from the node's own.
pub(super) fn onto(map: &[Dim], shape: &[u64], operand: &[u64]) -> Vec<Dim> {
    let skip = shape.len() - operand.len();
    let dim = |(at, &extent): (usize, &u64)| if extent == 1 { Dim { offset: 0, axis: None } } else { map[at + skip] };
    operand.iter().enumerate().map(dim).collect()
}
