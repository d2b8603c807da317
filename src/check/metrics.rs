//! Turns outputs and expectations into measures of all of their elements at once: relative norm, largest error, cosine.
//!
//! Every block of elements is scaled by a power of two before it is squared, so that no square overflows or vanishes;
//! the blocks' sums are added with compensation. What comes out depends on the elements and their order alone.
//!
//! *Source*: the scaling is that of J. L. Blue, "A portable Fortran program to find the Euclidean norm of a vector"
//! (1978); the compensated sum is A. Neumaier's (1974).

use serde::{Deserialize, Serialize};

use super::compare::widen;
use super::float;
use super::judge::round_to_bits;
use super::tolerance::Tolerance;
use crate::expr::Block;
use crate::tensor::simd::Level;
use crate::tensor::{Dtype, Number};

/// A measure of all elements of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// norm(got - want) / norm(want), Euclidean.
    ///
    /// *Source*: the relative error in the 2-norm, N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 6.
    RelL2,
    /// The largest |got - want|.
    MaxAbs,
    /// dot(got, want) / (norm(got) * norm(want)).
    MinCosine,
}

impl Metric {
    /// The key of a spec.
    pub fn name(self) -> &'static str {
        match self {
            Metric::RelL2 => "rel_l2",
            Metric::MaxAbs => "max_abs",
            Metric::MinCosine => "min_cosine",
        }
    }

    /// What elements give that are what they must be.
    pub fn best(self) -> f64 {
        if self == Metric::MinCosine { 1.0 } else { 0.0 }
    }

    /// The worse of two values; NaN is worst.
    pub fn worse(self, a: f64, b: f64) -> f64 {
        if a.is_nan() || b.is_nan() {
            f64::NAN
        } else if self == Metric::MinCosine {
            a.min(b)
        } else {
            a.max(b)
        }
    }
}

/// What a metric came to, and what it may be.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    pub metric: Metric,
    #[serde(with = "float")]
    pub value: f64,
    #[serde(with = "float")]
    pub limit: f64,
}

impl Reached {
    /// Whether the value is within the limit; NaN is not.
    pub fn passes(&self) -> bool {
        if self.metric == Metric::MinCosine { self.value >= self.limit } else { self.value <= self.limit }
    }
}

/// A sum times a power of two: `(sum + low) * 2^exponent`.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Scaled {
    exponent: i32,
    sum: f64,
    low: f64,
}

impl Scaled {
    fn add(&mut self, other: Scaled) {
        if other.sum == 0.0 && other.low == 0.0 {
            return;
        }
        if self.sum == 0.0 && self.low == 0.0 {
            *self = other;
            return;
        }
        let exponent = self.exponent.max(other.exponent);
        let lift = |scaled: Scaled| {
            // What vanishes here is less than the last bit of the larger one.
            let by = scaled.exponent - exponent;
            (libm::scalbn(scaled.sum, by), libm::scalbn(scaled.low, by))
        };
        let ((a, a_low), (b, b_low)) = (lift(*self), lift(other));
        let sum = a + b;
        let lost = if a.abs() >= b.abs() { (a - sum) + b } else { (b - sum) + a };
        *self = Scaled { exponent, sum, low: a_low + b_low + lost };
    }

    fn total(&self) -> f64 {
        self.sum + self.low
    }

    /// The square root of a sum of squares, as a number and a power of two: their exponents are even.
    fn root(&self) -> (f64, i32) {
        (self.total().max(0.0).sqrt(), self.exponent / 2)
    }
}

/// Elements of a block at most.
const BLOCK: usize = crate::expr::BLOCK;

/// Partial sums of a block.
const LANES: usize = 8;

/// The sums of a chunk of elements, or of many chunks. Allocates nothing.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sums {
    difference: Scaled,
    want: Scaled,
    got: Scaled,
    dot: Scaled,
    largest: f64,
    /// A NaN or an infinity that is not what is expected.
    broken: bool,
}

impl Sums {
    /// Adds a block of elements and their expectations. Equal infinities, and NaN where it may match NaN, add nothing.
    ///
    /// *Shapes*: as for [`super::compare()`].
    pub fn add(&mut self, dtype: Dtype, got: &[u8], want: Block<'_>, nan_equal: bool) {
        let mut pairs = Pairs::new();
        let size = dtype.size();
        for (at, got) in got.chunks(BLOCK * size).enumerate() {
            let len = got.len() / size;
            let range = at * BLOCK..at * BLOCK + len;
            match want {
                Block::Float(want) => pairs.floats(dtype, got, &want[range]),
                Block::Int(want) => pairs.integers(dtype, got, &want[range]),
            }
            self.block(&mut pairs, len, nan_equal);
        }
    }

    /// Adds up to [`crate::expr::BLOCK`] pairs of floats.
    pub(super) fn add_floats(&mut self, got: &[f64], want: &[f64]) {
        let mut pairs = Pairs::new();
        pairs.got[..got.len()].copy_from_slice(got);
        pairs.against(want);
        self.block(&mut pairs, got.len(), false);
    }

    /// Adds up to [`crate::expr::BLOCK`] pairs of integers.
    pub(super) fn add_integers(&mut self, got: &[i128], want: &[i128]) {
        let mut pairs = Pairs::new();
        got.iter().zip(want).enumerate().for_each(|(i, (&got, &want))| pairs.integer(i, got, want));
        self.block(&mut pairs, got.len(), false);
    }

    /// As [`Sums::add`], with expectations that are elements of the same dtype. Any length.
    pub fn add_bytes(&mut self, dtype: Dtype, got: &[u8], want: &[u8], nan_equal: bool) {
        let step = BLOCK * dtype.size();
        for (got, want) in got.chunks(step).zip(want.chunks(step)) {
            let len = want.len() / dtype.size();
            let mut pairs = Pairs::new();
            if dtype.is_float() {
                let mut values = [0.0; BLOCK];
                widen(Level::detect(), dtype, want, &mut values);
                pairs.floats(dtype, got, &values[..len]);
            } else {
                let integer = |bytes: &[u8], i| dtype.decode(dtype.load(bytes, i)).to_integer().unwrap_or(0);
                (0..len).for_each(|i| pairs.integer(i, integer(got, i), integer(want, i)));
            }
            self.block(&mut pairs, len, nan_equal);
        }
    }

    /// No metric of these sums is within any limit.
    pub(super) fn spoil(&mut self) {
        self.broken = true;
    }

    fn block(&mut self, pairs: &mut Pairs, len: usize, nan_equal: bool) {
        let largest = |values: &[f64; BLOCK]| values[..len].iter().fold(0.0f64, |most, x| if x.abs() > most { x.abs() } else { most });
        // A NaN or an infinity in either shows in the difference.
        if !pairs.difference[..len].iter().fold(0.0, |sum, x| sum + x * 0.0).eq(&0.0) {
            for at in 0..len {
                let (got, want) = (pairs.got[at], pairs.want[at]);
                if pairs.difference[at].is_finite() {
                    continue;
                }
                let same = got == want || (nan_equal && got.is_nan() && want.is_nan());
                self.broken |= !same && (got.is_nan() || want.is_nan() || got.is_infinite() || want.is_infinite());
                // Two finite numbers of opposite signs may be further apart than f64 reaches.
                let apart = if same || self.broken { 0.0 } else { f64::MAX.copysign(pairs.difference[at]) };
                let keep = |x: f64| if x.is_finite() && !same { x } else { 0.0 };
                (pairs.got[at], pairs.want[at], pairs.difference[at]) = (keep(got), keep(want), apart);
            }
        }
        let most = [largest(&pairs.difference), largest(&pairs.want), largest(&pairs.got)];
        self.largest = self.largest.max(most[0]);
        let [difference, want, got] = most.map(exponent);
        self.difference.add(product(&pairs.difference[..len], difference, &pairs.difference[..len], difference));
        self.want.add(product(&pairs.want[..len], want, &pairs.want[..len], want));
        self.got.add(product(&pairs.got[..len], got, &pairs.got[..len], got));
        self.dot.add(product(&pairs.got[..len], got, &pairs.want[..len], want));
    }

    /// Adds the sums of elements behind these. The result depends on the order.
    pub fn merge(&mut self, later: &Sums) {
        self.difference.add(later.difference);
        self.want.add(later.want);
        self.got.add(later.got);
        self.dot.add(later.dot);
        self.largest = self.largest.max(later.largest);
        self.broken |= later.broken;
    }

    /// The value of a metric; NaN where an element is NaN or infinite and should not be.
    ///
    /// `RelL2` of an expectation that is zero throughout is 0 where the norm of the difference is at most `atol` (0 where
    /// none is given), else infinite. `MinCosine` is 1 where both are zero throughout, and 0 where one is.
    pub fn value(&self, metric: Metric, atol: Option<f64>) -> f64 {
        if self.broken {
            return f64::NAN;
        }
        let ((difference, d), (want, w), (got, g)) = (self.difference.root(), self.want.root(), self.got.root());
        match metric {
            Metric::MaxAbs => self.largest,
            Metric::RelL2 if difference == 0.0 => 0.0,
            Metric::RelL2 if want == 0.0 => {
                if libm::scalbn(difference, d) <= atol.unwrap_or(0.0) {
                    0.0
                } else {
                    f64::INFINITY
                }
            }
            Metric::RelL2 => libm::scalbn(difference / want, d - w),
            Metric::MinCosine if want == 0.0 && got == 0.0 => 1.0,
            Metric::MinCosine if want == 0.0 || got == 0.0 => 0.0,
            Metric::MinCosine => libm::scalbn(self.dot.total() / (got * want), self.dot.exponent - g - w).clamp(-1.0, 1.0),
        }
    }

    /// What the metrics of a tolerance came to.
    pub fn reached(&self, tolerance: &Tolerance) -> impl Iterator<Item = Reached> + '_ {
        let atol = tolerance.atol;
        tolerance.metrics().map(move |(metric, limit)| Reached { metric, value: self.value(metric, atol), limit })
    }
}

/// A block of elements as f64, with their differences.
struct Pairs {
    got: [f64; BLOCK],
    want: [f64; BLOCK],
    difference: [f64; BLOCK],
}

impl Pairs {
    fn new() -> Pairs {
        Pairs { got: [0.0; BLOCK], want: [0.0; BLOCK], difference: [0.0; BLOCK] }
    }

    fn floats(&mut self, dtype: Dtype, got: &[u8], want: &[f64]) {
        if dtype.is_float() {
            widen(Level::detect(), dtype, got, &mut self.got);
        } else {
            for (i, out) in self.got[..want.len()].iter_mut().enumerate() {
                *out = dtype.decode(dtype.load(got, i)).to_f64();
            }
        }
        self.against(want);
    }

    fn against(&mut self, want: &[f64]) {
        self.want[..want.len()].copy_from_slice(want);
        for ((difference, got), want) in self.difference.iter_mut().zip(&self.got).zip(want) {
            *difference = got - want;
        }
    }

    /// Differences of integers are exact until they become f64.
    fn integers(&mut self, dtype: Dtype, got: &[u8], want: &[i128]) {
        if dtype.is_float() {
            let mut rounded = [0.0; BLOCK];
            for (out, &want) in rounded.iter_mut().zip(want) {
                *out = exact_or_rounded(dtype, want);
            }
            return self.floats(dtype, got, &rounded[..want.len()]);
        }
        for (i, &want) in want.iter().enumerate() {
            self.integer(i, dtype.decode(dtype.load(got, i)).to_integer().unwrap_or(0), want);
        }
    }

    fn integer(&mut self, at: usize, got: i128, want: i128) {
        let apart = got.abs_diff(want) as f64;
        (self.got[at], self.want[at]) = (got as f64, want as f64);
        self.difference[at] = if got < want { -apart } else { apart };
    }
}

/// An integer as the f64 that stands for it beside elements of a float dtype: itself, or rounded to the dtype.
pub(super) fn exact_or_rounded(dtype: Dtype, want: i128) -> f64 {
    if want.unsigned_abs() <= 1 << 53 { want as f64 } else { dtype.decode(round_to_bits(dtype, Number::Int(want))).to_f64() }
}

/// The power of two that brings a block with that largest magnitude near 1; within what f64 can multiply by.
fn exponent(largest: f64) -> i32 {
    if largest == 0.0 { 0 } else { (libm::frexp(largest).1).clamp(-1000, 1000) }
}

/// The sum of products of two blocks, each scaled down by its power of two.
fn product(a: &[f64], a_exponent: i32, b: &[f64], b_exponent: i32) -> Scaled {
    let (a_scale, b_scale) = (libm::scalbn(1.0, -a_exponent), libm::scalbn(1.0, -b_exponent));
    let mut lanes = [0.0; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for lane in 0..LANES {
            lanes[lane] += (a[lane] * a_scale) * (b[lane] * b_scale);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += (a * a_scale) * (b * b_scale);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    Scaled { exponent: a_exponent + b_exponent, sum: ((a + e) + (b + f)) + ((c + g) + (d + h)), low: 0.0 }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
