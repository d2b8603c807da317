//! Turns a box of a tensor into runs of consecutive elements, in the order of the box's own elements.

use crate::tensor::Shape;

/// What a box takes of one dimension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    pub start: u64,
    pub extent: u64,
    /// One index, not a slice: the box has no such dimension.
    pub dropped: bool,
}

/// A box of a tensor: some indices of every dimension.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    dims: Vec<u64>,
    sides: Vec<Side>,
    shape: Shape,
    /// Elements that are consecutive in the tensor too.
    run: u64,
}

impl Part {
    /// A box with as many sides as the tensor has dimensions, each within its dimension; `None` where it is not.
    pub fn new(tensor: &Shape, sides: Vec<Side>) -> Option<Part> {
        let dims = tensor.dims().to_vec();
        let within = |(side, &dim): (&Side, &u64)| side.extent > 0 && side.start.checked_add(side.extent).is_some_and(|end| end <= dim);
        if sides.len() != dims.len() || !sides.iter().zip(&dims).all(within) {
            return None;
        }
        let shape = Shape::new(sides.iter().filter(|side| !side.dropped).map(|side| side.extent).collect()).ok()?;
        let mut run = 1;
        for (side, dim) in sides.iter().zip(&dims).rev() {
            run *= side.extent;
            if side.extent != *dim {
                break;
            }
        }
        Some(Part { dims, sides, shape, run })
    }

    /// The shape of the box, without the dimensions that are one index.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn elements(&self) -> u64 {
        self.shape.elements()
    }

    /// Where an element of the box lies in the tensor; both flat, row-major.
    pub fn index_of(&self, element: u64) -> u64 {
        let (mut rest, mut stride, mut index) = (element, 1, 0);
        for (side, dim) in self.sides.iter().zip(&self.dims).rev() {
            index += (side.start + rest % side.extent) * stride;
            rest /= side.extent;
            stride *= dim;
        }
        index
    }

    /// Elements `from..to` of the box as runs of the tensor: where each starts, and its length.
    pub fn runs(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = from;
        std::iter::from_fn(move || {
            (at < to).then(|| {
                let len = (self.run - at % self.run).min(to - at);
                let start = self.index_of(at);
                at += len;
                (start, len)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(dims: &[u64], sides: &[(u64, u64, bool)]) -> Option<Part> {
        let sides = sides.iter().map(|&(start, extent, dropped)| Side { start, extent, dropped }).collect();
        Part::new(&Shape::new(dims.to_vec()).unwrap(), sides)
    }

    #[test]
    fn runs_are_the_elements_of_the_box_in_order() {
        for (dims, sides, shape, runs) in [
            (&[5][..], &[(1, 3, false)][..], &[3][..], &[(1, 3)][..]),
            (&[4, 5], &[(1, 2, false), (1, 3, false)], &[2, 3], &[(6, 3), (11, 3)]),
            (&[4, 5], &[(1, 2, false), (0, 5, false)], &[2, 5], &[(5, 10)]),
            (&[4, 5], &[(0, 4, false), (2, 1, true)], &[4], &[(2, 1), (7, 1), (12, 1), (17, 1)]),
            (&[2, 3, 4], &[(1, 1, true), (0, 2, false), (0, 4, false)], &[2, 4], &[(12, 8)]),
            (&[2, 3, 4], &[(0, 2, false), (1, 2, false), (0, 4, false)], &[2, 2, 4], &[(4, 8), (16, 8)]),
            (&[], &[], &[], &[(0, 1)]),
        ] {
            let part = part(dims, sides).unwrap();
            assert_eq!(part.shape().dims(), shape, "{dims:?} {sides:?}");
            assert_eq!(part.runs(0, part.elements()).collect::<Vec<_>>(), runs, "{dims:?} {sides:?}");
            let one_by_one: Vec<u64> = (0..part.elements()).map(|at| part.index_of(at)).collect();
            assert_eq!(one_by_one, runs.iter().flat_map(|&(start, len)| start..start + len).collect::<Vec<_>>());
            for from in 0..part.elements() {
                let tail: Vec<u64> = part.runs(from, part.elements()).flat_map(|(start, len)| start..start + len).collect();
                assert_eq!(tail, one_by_one[from as usize..], "{dims:?} {sides:?} {from}");
            }
        }
    }

    #[test]
    fn what_is_not_within_the_tensor_is_no_box() {
        assert_eq!(part(&[4], &[(2, 3, false)]), None);
        assert_eq!(part(&[4], &[(2, 0, false)]), None);
        assert_eq!(part(&[4], &[]), None);
        assert_eq!(part(&[4], &[(u64::MAX, 2, false)]), None);
    }
}
