//! Turns the elements of an output and of an expectation, in any order, into what is missing and what is too much.
//!
//! Both are sorted by value and matched from the smallest on. Whatever an element may match is an interval around its
//! expectation whose ends grow with it, so this finds a match for every element wherever there is one.

use rayon::prelude::*;

use super::census::Census;
use super::metrics::{Sums, exact_or_rounded};
use super::tolerance::Tolerance;
use crate::expr::Block;
use crate::tensor::{Dtype, Number};

/// Which side an element without a match is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Odd {
    /// Expected, and not there.
    Missing,
    /// There, and not expected.
    Surplus,
}

/// How many elements have no match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmatched {
    pub missing: u64,
    pub surplus: u64,
    /// Of these, how many are NaN.
    pub nan_got: u64,
    pub nan_want: u64,
}

/// The elements of one check; allocated once.
#[derive(Debug)]
pub struct Multiset {
    values: Values,
    /// NaN is counted, not sorted.
    nan_got: u64,
    nan_want: u64,
}

#[derive(Debug)]
enum Values {
    /// As integers in the order of the floats, -0 before +0.
    Float {
        got: Vec<u64>,
        want: Vec<u64>,
    },
    Int {
        got: Vec<i128>,
        want: Vec<i128>,
    },
}

/// A float other than NaN as an integer in the same order.
fn key(x: f64) -> u64 {
    let bits = x.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn value(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key })
}

impl Multiset {
    /// Room for so many elements.
    pub fn new(dtype: Dtype, elements: u64) -> Multiset {
        let room = elements as usize;
        let values = if dtype.is_float() {
            Values::Float { got: Vec::with_capacity(room), want: Vec::with_capacity(room) }
        } else {
            Values::Int { got: Vec::with_capacity(room), want: Vec::with_capacity(room) }
        };
        Multiset { values, nan_got: 0, nan_want: 0 }
    }

    /// What [`Multiset::new`] allocates. *Units*: bytes.
    pub fn bytes(dtype: Dtype, elements: u64) -> u64 {
        elements.saturating_mul(if dtype.is_float() { 16 } else { 32 })
    }

    pub fn clear(&mut self) {
        (self.nan_got, self.nan_want) = (0, 0);
        match &mut self.values {
            Values::Float { got, want } => (got.clear(), want.clear()),
            Values::Int { got, want } => (got.clear(), want.clear()),
        };
    }

    /// Adds a block of elements and as many expectations.
    pub fn add(&mut self, dtype: Dtype, block: &[u8], expected: Block<'_>) {
        let elements = (0..expected.len()).map(|i| dtype.decode(dtype.load(block, i)));
        match &mut self.values {
            Values::Float { got, want } => {
                for (element, at) in elements.zip(0..) {
                    let expected = match expected {
                        Block::Float(values) => values[at],
                        Block::Int(values) => exact_or_rounded(dtype, values[at]),
                    };
                    for (x, values, nan) in [(element.to_f64(), &mut *got, &mut self.nan_got), (expected, &mut *want, &mut self.nan_want)] {
                        if x.is_nan() {
                            *nan += 1;
                        } else {
                            values.push(key(x));
                        }
                    }
                }
            }
            Values::Int { got, want } => {
                for (element, at) in elements.zip(0..) {
                    got.extend(element.to_integer());
                    match expected.number(at).to_integer() {
                        Some(expected) => want.push(expected),
                        // No integer is that.
                        None => self.nan_want += 1,
                    }
                }
            }
        }
    }

    /// Sorts and matches the elements, and adds the result to `census`.
    ///
    /// With `sums`, adds the pairs in order of value.
    pub fn compare(&mut self, dtype: Dtype, tolerance: &Tolerance, parallel: bool, census: &mut Census, sums: Option<&mut Sums>) {
        let compared = match &mut self.values {
            Values::Float { got, want } => {
                sort(got, parallel);
                sort(want, parallel);
                got.len()
            }
            Values::Int { got, want } => {
                sort(got, parallel);
                sort(want, parallel);
                got.len()
            }
        };
        census.compared += compared as u64 + self.nan_got;
        if let Some(sums) = sums {
            self.measure(sums, tolerance.nan_equal);
        }
        if tolerance.is_elementwise() {
            let odd = self.matched(dtype, tolerance, &mut |_, _| {});
            census.mismatched += odd.missing.max(odd.surplus);
            census.nan_got += odd.nan_got;
            census.nan_want += odd.nan_want;
        }
    }

    /// Matches elements that [`Multiset::compare`] has sorted; `each` is told every one without a match, in order of value.
    pub fn matched(&self, dtype: Dtype, tolerance: &Tolerance, each: &mut dyn FnMut(Odd, Number)) -> Unmatched {
        let (missing, surplus) = match &self.values {
            Values::Float { got, want } => odd(
                got,
                want,
                |&got, &want| {
                    let bits = dtype.encode(Number::Float(value(got))).unwrap_or(0);
                    got == want || tolerance.accepts(dtype, bits, Number::Float(value(want)))
                },
                |odd, &key| each(odd, Number::Float(value(key))),
            ),
            Values::Int { got, want } => odd(
                got,
                want,
                |&got, &want| got == want || tolerance.accepts(dtype, got as u64, Number::Int(want)),
                |odd, &value| each(odd, Number::Int(value)),
            ),
        };
        let matched = if tolerance.nan_equal && dtype.is_float() { self.nan_got.min(self.nan_want) } else { 0 };
        let (nan_got, nan_want) = (self.nan_got - matched, self.nan_want - matched);
        for (odd, count) in [(Odd::Surplus, nan_got), (Odd::Missing, nan_want)] {
            (0..count).for_each(|_| each(odd, Number::Float(f64::NAN)));
        }
        Unmatched { missing: missing + nan_want, surplus: surplus + nan_got, nan_got, nan_want }
    }

    /// Adds the pairs to sums; NaN without a match is within no limit.
    fn measure(&self, sums: &mut Sums, nan_equal: bool) {
        const BLOCK: usize = crate::expr::BLOCK;
        if self.nan_got != self.nan_want || (self.nan_got > 0 && !nan_equal) {
            return sums.spoil();
        }
        match &self.values {
            Values::Float { got, want } => {
                let (mut a, mut b) = ([0.0; BLOCK], [0.0; BLOCK]);
                for (got, want) in got.chunks(BLOCK).zip(want.chunks(BLOCK)) {
                    a.iter_mut().zip(got).for_each(|(a, &key)| *a = value(key));
                    b.iter_mut().zip(want).for_each(|(b, &key)| *b = value(key));
                    sums.add_floats(&a[..got.len()], &b[..want.len()]);
                }
            }
            Values::Int { got, want } => {
                got.chunks(BLOCK).zip(want.chunks(BLOCK)).for_each(|(got, want)| sums.add_integers(got, want));
            }
        }
    }
}

fn sort<T: Ord + Send>(values: &mut [T], parallel: bool) {
    if parallel { values.par_sort_unstable() } else { values.sort_unstable() }
}

/// Elements of two sorted lists that match none of the other: of `want`, and of `got`.
fn odd<T: Ord>(got: &[T], want: &[T], matches: impl Fn(&T, &T) -> bool, mut each: impl FnMut(Odd, &T)) -> (u64, u64) {
    let (mut g, mut w, mut missing, mut surplus) = (0, 0, 0, 0);
    loop {
        match (got.get(g), want.get(w)) {
            (None, None) => return (missing, surplus),
            (Some(a), Some(b)) if matches(a, b) => (g, w) = (g + 1, w + 1),
            (Some(a), b) if b.is_none_or(|b| a < b) => {
                each(Odd::Surplus, a);
                (g, surplus) = (g + 1, surplus + 1);
            }
            (_, Some(b)) => {
                each(Odd::Missing, b);
                (w, missing) = (w + 1, missing + 1);
            }
            // The guard above takes every element of `got` that nothing stands against.
            (Some(_), None) => g += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(got: &[f64], want: &[f64], tolerance: &Tolerance) -> (Census, Vec<(Odd, f64)>) {
        let bytes: Vec<u8> = got.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut set = Multiset::new(Dtype::F64, got.len() as u64);
        set.add(Dtype::F64, &bytes, Block::Float(want));
        let (mut census, mut odd) = (Census::default(), Vec::new());
        set.compare(Dtype::F64, tolerance, false, &mut census, None);
        set.matched(Dtype::F64, tolerance, &mut |side, x| odd.push((side, x.to_f64())));
        (census, odd)
    }

    #[test]
    fn order_does_not_matter_and_number_does() {
        let exact = Tolerance::exact();
        for (got, want, odd) in [
            (&[3.0, 1.0, 2.0][..], &[1.0, 2.0, 3.0][..], &[][..]),
            (&[1.0, 1.0, 2.0], &[1.0, 2.0, 2.0], &[(Odd::Surplus, 1.0), (Odd::Missing, 2.0)]),
            (&[-0.0, 0.0], &[0.0, 0.0], &[]),
            (&[f64::INFINITY, -1.0], &[-1.0, f64::NEG_INFINITY], &[(Odd::Missing, f64::NEG_INFINITY), (Odd::Surplus, f64::INFINITY)]),
        ] {
            let (census, found) = run(got, want, &exact);
            assert_eq!(found, odd, "{got:?} {want:?}");
            assert_eq!((census.compared, census.mismatched), (got.len() as u64, odd.len() as u64 / 2), "{got:?}");
            assert_eq!(census.passes(&exact), odd.is_empty());
        }
    }

    #[test]
    fn tolerances_match_neighbours() {
        let tolerance = Tolerance { atol: Some(0.25), ..Tolerance::default() };
        assert_eq!(run(&[2.25, 1.0, 1.75], &[1.0, 1.5, 2.0], &tolerance).1, []);
        let (census, odd) = run(&[5.0, 1.2, 2.2], &[1.0, 2.0, 3.0], &tolerance);
        assert_eq!((census.mismatched, odd), (1, vec![(Odd::Missing, 3.0), (Odd::Surplus, 5.0)]));
        let one = Tolerance { max_mismatches: 1, ..tolerance };
        assert!(census.passes(&one));
    }

    #[test]
    fn nan_matches_nan_only_by_the_policy() {
        let exact = Tolerance { max_mismatches: 1, ..Tolerance::exact() };
        let equal = Tolerance { nan_equal: true, ..exact.clone() };
        assert!(!run(&[f64::NAN, 1.0], &[1.0, f64::NAN], &exact).0.passes(&exact));
        assert!(run(&[f64::NAN, 1.0], &[1.0, f64::NAN], &equal).0.passes(&equal));
        assert!(!run(&[f64::NAN, 1.0], &[1.0, 2.0], &equal).0.passes(&equal));
        assert!(!run(&[3.0, 1.0], &[1.0, f64::NAN], &equal).0.passes(&equal));
    }

    #[test]
    fn integers_are_exact_and_metrics_are_of_sorted_pairs() {
        let big = (1i64 << 62) + 1;
        let bytes: Vec<u8> = [big, 5].iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut set = Multiset::new(Dtype::I64, 2);
        set.add(Dtype::I64, &bytes, Block::Int(&[5, i128::from(big) - 1]));
        let (mut census, mut sums) = (Census::default(), Sums::default());
        set.compare(Dtype::I64, &Tolerance::exact(), false, &mut census, Some(&mut sums));
        assert_eq!((census.mismatched, sums.value(super::super::Metric::MaxAbs, None)), (1, 1.0));
        set.clear();
        set.add(Dtype::I64, &bytes, Block::Int(&[5, i128::from(big)]));
        let mut census = Census::default();
        set.compare(Dtype::I64, &Tolerance::exact(), true, &mut census, None);
        assert_eq!(census.mismatched, 0);
    }
}
