//! Turns single mismatches into counts, the first few and the worst.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::float;
use super::judge::round_to_bits;
use super::tolerance::{Tolerance, distance};
use crate::tensor::bits::ulp_distance;
use crate::tensor::{Dtype, Number};

/// How many mismatches are kept in order of index.
pub const FIRST: usize = 8;

/// One element that is not what it must be.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mismatch {
    /// Flat, row-major.
    pub index: u64,
    pub got: Number,
    /// Before it was rounded to the dtype.
    pub want: Number,
    /// |got - want|; NaN where either is.
    #[serde(with = "float")]
    pub abs: f64,
    /// `abs` over |want|.
    #[serde(with = "float")]
    pub rel: f64,
    /// Distance in units in the last place from `want` rounded to the dtype; `u64::MAX` is infinite.
    pub ulp: u64,
}

impl Mismatch {
    /// What there is to say of an element. `got` is its bits, in the low bytes of the word.
    pub fn new(dtype: Dtype, index: u64, got: u64, want: Number) -> Mismatch {
        let value = dtype.decode(got);
        let abs = distance(value, want);
        let ulp = if dtype.is_float() {
            ulp_distance(dtype, got, round_to_bits(dtype, want))
        } else {
            match (value.to_integer(), want.to_integer()) {
                (Some(a), Some(b)) => u64::try_from(a.abs_diff(b)).unwrap_or(u64::MAX),
                _ => u64::MAX,
            }
        };
        Mismatch { index, got: value, want, abs, rel: abs / want.to_f64().abs(), ulp }
    }

    fn has_nan(&self) -> bool {
        self.got.is_nan() || self.want.is_nan()
    }
}

/// The first few mismatches, in order of index.
#[derive(Clone, Copy, Debug)]
pub struct First {
    len: usize,
    items: [Mismatch; FIRST],
}

impl First {
    fn push(&mut self, mismatch: Mismatch) {
        if self.len < FIRST {
            self.items[self.len] = mismatch;
            self.len += 1;
        }
    }
}

impl PartialEq for First {
    fn eq(&self, other: &First) -> bool {
        **self == **other
    }
}

impl Default for First {
    fn default() -> First {
        let none = Mismatch { index: 0, got: Number::Int(0), want: Number::Int(0), abs: 0.0, rel: 0.0, ulp: 0 };
        First { len: 0, items: [none; FIRST] }
    }
}

impl Deref for First {
    type Target = [Mismatch];

    fn deref(&self) -> &[Mismatch] {
        &self.items[..self.len]
    }
}

/// What a comparison found. Allocates nothing.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Census {
    /// Elements compared.
    pub compared: u64,
    /// Of these, how many failed.
    pub mismatched: u64,
    /// Of these, how many are NaN.
    pub nan_got: u64,
    /// Of the failed, how many were expected to be NaN.
    pub nan_want: u64,
    pub first: First,
    /// The mismatch that is furthest off in allowances; NaN before all others, then by `abs`, then by index.
    pub worst: Option<Mismatch>,
    /// How far `worst` is off in allowances.
    excess: f64,
}

impl Census {
    pub(super) fn push(&mut self, mismatch: Mismatch, excess: f64) {
        self.mismatched += 1;
        self.nan_got += u64::from(mismatch.got.is_nan());
        self.nan_want += u64::from(mismatch.want.is_nan());
        self.first.push(mismatch);
        self.consider(mismatch, excess);
    }

    fn consider(&mut self, mismatch: Mismatch, excess: f64) {
        let key = |m: &Mismatch, excess: f64| (m.has_nan(), excess, if m.abs.is_nan() { f64::INFINITY } else { m.abs });
        if self.worst.is_none_or(|worst| key(&mismatch, excess) > key(&worst, self.excess)) {
            self.worst = Some(mismatch);
            self.excess = excess;
        }
    }

    /// Nothing compared, nothing found.
    pub fn clear(&mut self) {
        (self.compared, self.mismatched, self.nan_got, self.nan_want) = (0, 0, 0, 0);
        (self.first.len, self.worst, self.excess) = (0, None, 0.0);
    }

    /// Adds what was found in elements after this census's own.
    pub fn merge(&mut self, later: &Census) {
        self.compared += later.compared;
        self.mismatched += later.mismatched;
        self.nan_got += later.nan_got;
        self.nan_want += later.nan_want;
        later.first.iter().for_each(|mismatch| self.first.push(*mismatch));
        if let Some(worst) = later.worst {
            self.consider(worst, later.excess);
        }
    }

    /// Whether no more elements failed than the tolerance lets fail, and none of them for NaN.
    pub fn passes(&self, tolerance: &Tolerance) -> bool {
        self.mismatched <= tolerance.max_mismatches && self.nan_got == 0 && self.nan_want == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mismatch(index: u64, got: f32, want: f64) -> Mismatch {
        Mismatch::new(Dtype::F32, index, got.to_bits().into(), Number::Float(want))
    }

    #[test]
    fn a_mismatch_says_how_far_off_it_is() {
        let m = mismatch(3, 3.0, 2.0);
        assert_eq!((m.abs, m.rel, m.ulp), (1.0, 0.5, 1 << 22));
        assert_eq!(mismatch(0, f32::INFINITY, 1.0).ulp, u64::MAX);
        let m = Mismatch::new(Dtype::U64, 0, u64::MAX, Number::Int(-1));
        assert_eq!((m.abs, m.ulp), (2f64.powi(64), u64::MAX));
        assert_eq!(Mismatch::new(Dtype::I8, 0, 0xFF, Number::Int(1)).ulp, 2);
    }

    #[test]
    fn mismatches_survive_json() {
        for m in [mismatch(3, 3.0, 2.0), mismatch(1, f32::INFINITY, 0.0), mismatch(1, -0.0, 1e300)] {
            let json = serde_json::to_string(&m).unwrap();
            assert_eq!(serde_json::from_str::<Mismatch>(&json).unwrap(), m, "{json}");
        }
        let json = serde_json::to_string(&mismatch(1, f32::NAN, f64::NEG_INFINITY)).unwrap();
        assert_eq!(json, r#"{"index":1,"got":"nan","want":"-inf","abs":"nan","rel":"nan","ulp":18446744073709551615}"#);
        let back: Mismatch = serde_json::from_str(&json).unwrap();
        assert!(back.got.is_nan() && back.abs.is_nan() && back.rel.is_nan());
    }

    #[test]
    fn merging_in_order_is_counting_in_order() {
        let found: Vec<_> = (0..40u32).map(|i| (mismatch(i.into(), (i * 7 % 11) as f32, 0.5), f64::from(i * 7 % 11))).collect();
        let count = |part: &[(Mismatch, f64)]| {
            let mut census = Census { compared: part.len() as u64, ..Census::default() };
            part.iter().for_each(|(m, excess)| census.push(*m, *excess));
            census
        };
        let whole = count(&found);
        for split in [0, 1, 5, 8, 20, 40] {
            let mut census = count(&found[..split]);
            census.merge(&count(&found[split..]));
            assert_eq!(census, whole, "{split}");
        }
        assert_eq!(whole.worst.unwrap().index, 3);
        assert!(whole.first.iter().map(|m| m.index).eq(0..8));
    }

    #[test]
    fn nan_is_worst_and_never_forgiven() {
        let mut census = Census { compared: 3, ..Census::default() };
        census.push(mismatch(0, f32::MAX, 0.0), f64::INFINITY);
        census.push(mismatch(1, f32::NAN, 0.0), f64::INFINITY);
        census.push(mismatch(2, f32::INFINITY, 0.0), f64::INFINITY);
        assert_eq!(census.worst.unwrap().index, 1);
        let lenient = Tolerance { max_mismatches: 3, ..Tolerance::exact() };
        assert!(!census.passes(&lenient));
        let mut census = Census { compared: 1, ..Census::default() };
        census.push(mismatch(0, 0.0, f64::NAN), f64::INFINITY);
        assert!(!census.passes(&lenient));
    }

    #[test]
    fn a_cleared_census_is_a_new_one() {
        let mut census = Census { compared: 9, ..Census::default() };
        (0..20).for_each(|i| census.push(mismatch(i, f32::NAN, f64::NAN), f64::INFINITY));
        census.clear();
        assert_eq!(census, Census::default());
        census.push(mismatch(7, 1.0, 0.0), 2.0);
        assert_eq!((census.first.len(), census.first[0].index, census.worst.unwrap().index), (1, 7, 7));
    }

    #[test]
    fn so_many_mismatches_may_be() {
        let mut census = Census { compared: 9, ..Census::default() };
        let allow = |n| Tolerance { max_mismatches: n, ..Tolerance::exact() };
        assert!(census.passes(&allow(0)));
        census.push(mismatch(0, 1.0, 0.0), f64::INFINITY);
        assert!(census.passes(&allow(1)));
        assert!(!census.passes(&allow(0)));
    }
}
