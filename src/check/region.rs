//! Turns a set of flat indices into words for where it lies: rows, columns, a box, a range, every k-th element.

use crate::tensor::Shape;

/// Words for a set of elements, and whether they are a singular.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Region {
    pub words: String,
    pub one: bool,
}

impl Region {
    fn many(words: String) -> Region {
        Region { words, one: false }
    }

    /// The region with a verb: "rows 3-4 were ...".
    pub fn then(&self, one: &str, many: &str) -> String {
        format!("{} {}", self.words, if self.one { one } else { many })
    }
}

/// Names exactly the elements at `indices` (ascending, distinct) of a tensor; `None` where no short name fits.
pub(super) fn name(shape: &Shape, indices: &[usize]) -> Option<Region> {
    let (&first, &last) = (indices.first()?, indices.last()?);
    let elements = shape.elements();
    if indices.len() as u64 == elements {
        return Some(if elements == 1 {
            Region { words: "the only element".into(), one: true }
        } else {
            Region::many(format!("all {elements} elements"))
        });
    }
    if shape.rank() >= 2
        && indices.len() > 1
        && let Some(region) = bounding_box(shape, indices)
    {
        return Some(region);
    }
    if indices.len() == 1 {
        let words = match shape.rank() {
            0 | 1 => format!("element {first}"),
            _ => format!("element {:?}", shape.index_of(first as u64)),
        };
        return Some(Region { words, one: true });
    }
    if last - first + 1 == indices.len() {
        return Some(Region::many(format!("elements {first}-{last}")));
    }
    every(indices, elements)
}

/// A box that holds these elements and no others.
fn bounding_box(shape: &Shape, indices: &[usize]) -> Option<Region> {
    let mut sides: Vec<(u64, u64, u64)> = shape.dims().iter().map(|&dim| (dim, 0, dim)).collect();
    for &index in indices {
        let mut rest = index as u64;
        for (low, high, dim) in sides.iter_mut().rev() {
            let at = rest % *dim;
            rest /= *dim;
            (*low, *high) = ((*low).min(at), (*high).max(at));
        }
    }
    let volume: u64 = sides.iter().map(|(low, high, _)| high - low + 1).product();
    if volume != indices.len() as u64 {
        return None;
    }
    let partial: Vec<usize> = (0..sides.len()).filter(|&d| sides[d].1 - sides[d].0 + 1 < sides[d].2).collect();
    let span = |what: &str, d: usize| match sides[d] {
        (low, high, _) if low == high => format!("{what} {low}"),
        (low, high, _) => format!("{what}s {low}-{high}"),
    };
    let column = sides.len() - 1;
    let one = |d: usize| sides[d].0 == sides[d].1;
    Some(match partial[..] {
        [0] => Region { words: span("row", 0), one: one(0) },
        [d] if d == column => Region { words: span("column", d), one: one(d) },
        [0, 1] if column == 1 => Region::many(format!("{}, {}", span("row", 0), span("column", 1))),
        _ => {
            let side = |&(low, high, dim): &(u64, u64, u64)| match () {
                () if high - low + 1 == dim => ":".to_string(),
                () if low == high => low.to_string(),
                () => format!("{low}-{high}"),
            };
            Region::many(format!("elements [{}]", sides.iter().map(side).collect::<Vec<_>>().join(", ")))
        }
    })
}

/// Elements at equal distances, at least three.
fn every(indices: &[usize], elements: u64) -> Option<Region> {
    let &[first, second, _, ..] = indices else { return None };
    let step = second - first;
    if !indices.windows(2).all(|pair| pair[1] - pair[0] == step) {
        return None;
    }
    let last = indices[indices.len() - 1];
    let to = if (last + step) as u64 >= elements { String::new() } else { format!(" to {last}") };
    Some(Region { words: format!("every {} element from {first}{to}", ordinal(step)), one: true })
}

fn ordinal(n: usize) -> String {
    let suffix = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_names() {
        for (dims, indices, words) in [
            (vec![10], (0..10).collect::<Vec<_>>(), Some("all 10 elements")),
            (vec![], vec![0], Some("the only element")),
            (vec![10], vec![4], Some("element 4")),
            (vec![10], vec![4, 5, 6], Some("elements 4-6")),
            (vec![10], vec![1, 4, 7], Some("every 3rd element from 1")),
            (vec![100], vec![1, 23, 45], Some("every 22nd element from 1 to 45")),
            (vec![10], vec![1, 4, 8], None),
            (vec![10], vec![1, 4], None),
            (vec![4, 5], vec![10, 11, 12, 13, 14], Some("row 2")),
            (vec![4, 5], (10..20).collect(), Some("rows 2-3")),
            (vec![4, 5], vec![3, 8, 13, 18], Some("column 3")),
            (vec![4, 5], vec![3, 4, 8, 9, 13, 14, 18, 19], Some("columns 3-4")),
            (vec![4, 5], vec![6, 7, 11, 12], Some("rows 1-2, columns 1-2")),
            (vec![4, 5], vec![6, 7], Some("row 1, columns 1-2")),
            (vec![4, 5], vec![6], Some("element [1, 1]")),
            (vec![4, 5], vec![3, 4, 5, 6], Some("elements 3-6")),
            (vec![4, 5], vec![6, 7, 11], None),
            (vec![2, 3, 4], vec![4, 5, 6, 7], Some("elements [0, 1, :]")),
            (vec![2, 3, 4], (12..24).collect(), Some("row 1")),
            (vec![2, 3, 4], vec![], None),
        ] {
            let shape = Shape::new(dims).unwrap();
            assert_eq!(name(&shape, &indices).map(|r| r.words).as_deref(), words, "{shape} {indices:?}");
        }
    }
}
