//! Turns a tolerance, an output's element and its expectation into pass or fail: the definition that the fast loops keep to.

use std::fmt;

use super::judge::{Wide, round_to_bits};
use super::metrics::Metric;
use crate::tensor::bits::ulp_distance;
use crate::tensor::{Dtype, Number};

/// How close is close. All that is given must hold; with nothing given the comparison is exact.
///
/// `rel_l2`, `max_abs` and `min_cosine` are of all elements at once ([`super::Sums`]): given alone, no element is judged
/// by itself.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tolerance {
    /// Floats: equal to the expectation rounded once to the dtype, -0 = +0. Integers: equal.
    pub exact: bool,
    /// The bits of the expectation rounded once to the dtype: -0 is not +0, and a NaN that may be one has the same payload.
    pub bitwise: bool,
    /// |got - want| <= atol + rtol * |want|, in f64 without fused operations; one of the two alone: the other is 0.
    pub rtol: Option<f64>,
    pub atol: Option<f64>,
    /// Largest distance in units in the last place from the expectation rounded to the dtype; integers: of the difference.
    pub ulp: Option<u64>,
    /// norm(got - want) <= rel_l2 * norm(want).
    pub rel_l2: Option<f64>,
    /// The largest |got - want|.
    pub max_abs: Option<f64>,
    /// The least cosine of the angle between all of `got` and all of `want`.
    pub min_cosine: Option<f64>,
    /// So many elements may fail. None of them may be NaN, or be expected to be, or never have been written.
    pub max_mismatches: u64,
    /// Whether NaN passes where NaN is expected.
    pub nan_equal: bool,
}

impl Tolerance {
    /// Nothing but the expectation rounded to the dtype.
    pub fn exact() -> Tolerance {
        Tolerance { exact: true, ..Tolerance::default() }
    }

    /// What holds where a check says nothing.
    ///
    /// *Source*: the defaults of `torch.testing.assert_close`; integers and `bool` exact.
    pub fn default_for(dtype: Dtype) -> Tolerance {
        let (rtol, atol) = match dtype {
            Dtype::F16 => (1e-3, 1e-5),
            Dtype::Bf16 => (1.6e-2, 1e-5),
            Dtype::F32 => (1.3e-6, 1e-5),
            Dtype::F64 => (1e-7, 1e-7),
            _ => return Tolerance::exact(),
        };
        Tolerance { rtol: Some(rtol), atol: Some(atol), ..Tolerance::default() }
    }

    /// Whether the numbers make sense.
    ///
    /// *Errors*: a message for a number that is negative, infinite or NaN; `min_cosine` may be negative.
    pub fn validate(&self) -> Result<(), String> {
        let cosine = self.min_cosine.map(f64::abs);
        let given = [("rtol", self.rtol), ("atol", self.atol), ("rel_l2", self.rel_l2), ("max_abs", self.max_abs), ("min_cosine", cosine)];
        for (name, value) in given {
            if let Some(value) = value
                && !(value.is_finite() && value >= 0.0)
            {
                return Err(format!("{name} is {}, it must be finite and not negative", Wide(value)));
            }
        }
        Ok(())
    }

    /// `(rtol, atol)` where one of them is given.
    pub(super) fn close(&self) -> Option<(f64, f64)> {
        (self.rtol.is_some() || self.atol.is_some()).then(|| (self.rtol.unwrap_or(0.0), self.atol.unwrap_or(0.0)))
    }

    pub(super) fn is_exact(&self) -> bool {
        self.exact || (self.close().is_none() && self.ulp.is_none() && !self.bitwise && !self.has_metrics())
    }

    /// Whether elements are judged one by one.
    pub fn is_elementwise(&self) -> bool {
        self.bitwise || self.close().is_some() || self.ulp.is_some() || self.is_exact()
    }

    /// Whether anything is asked of all elements at once.
    pub fn has_metrics(&self) -> bool {
        self.rel_l2.is_some() || self.max_abs.is_some() || self.min_cosine.is_some()
    }

    /// The metrics that are asked for, with their limits.
    pub fn metrics(&self) -> impl Iterator<Item = (Metric, f64)> + use<> {
        let given = [(Metric::RelL2, self.rel_l2), (Metric::MaxAbs, self.max_abs), (Metric::MinCosine, self.min_cosine)];
        given.into_iter().filter_map(|(metric, limit)| Some((metric, limit?)))
    }

    /// What judges single elements: this, or the dtype's default where nothing here does.
    pub fn elementwise(&self, dtype: Dtype) -> Tolerance {
        if self.is_elementwise() { self.clone() } else { Tolerance { nan_equal: self.nan_equal, ..Tolerance::default_for(dtype) } }
    }

    /// Whether one element passes. `got` is the element's bits, in the low bytes of the word.
    ///
    /// NaN passes only where NaN is expected and `nan_equal` is set; an infinity only where the same one is expected.
    pub fn accepts(&self, dtype: Dtype, got: u64, want: Number) -> bool {
        self.excess(dtype, got, want) <= 1.0
    }

    /// As [`Tolerance::accepts`], with an expectation that is an element of the same dtype.
    pub fn accepts_bits(&self, dtype: Dtype, got: u64, want: u64) -> bool {
        if self.bitwise {
            return got == want && (self.nan_equal || !dtype.decode(got).is_nan());
        }
        self.accepts(dtype, got, dtype.decode(want))
    }

    /// How far an element is off, in allowances: at most 1 passes. NaN, and what is off where nothing is allowed, is infinite.
    pub(super) fn excess(&self, dtype: Dtype, got: u64, want: Number) -> f64 {
        let value = dtype.decode(got);
        if value.is_nan() || want.is_nan() {
            let same = !self.bitwise || got == round_to_bits(dtype, want);
            return if self.nan_equal && value.is_nan() && want.is_nan() && same { 0.0 } else { f64::INFINITY };
        }
        let mut worst: f64 = 0.0;
        if self.bitwise {
            let same = if dtype.is_float() { round_to_bits(dtype, want) == got } else { value.to_integer() == want.to_integer() };
            worst = if same { 0.0 } else { f64::INFINITY };
        }
        if let Some((rtol, atol)) = self.close() {
            let allowance = atol + rtol * want.to_f64().abs();
            worst = worst.max(share(distance(value, want), allowance));
        }
        if self.is_exact() {
            let same = if dtype.is_float() {
                value.to_f64() == dtype.decode(round_to_bits(dtype, want)).to_f64()
            } else {
                value.to_integer() == want.to_integer()
            };
            worst = worst.max(if same { 0.0 } else { f64::INFINITY });
        }
        if let Some(ulp) = self.ulp {
            worst = worst.max(if dtype.is_float() {
                match ulp_distance(dtype, got, round_to_bits(dtype, want)) {
                    u64::MAX => f64::INFINITY,
                    // In integers first: neighbours beyond 2^53 are one f64.
                    distance if distance <= ulp => share(distance as f64, ulp as f64).min(1.0),
                    distance => share(distance as f64, ulp as f64).max(1.0f64.next_up()),
                }
            } else {
                share(distance(value, want), ulp as f64)
            });
        }
        worst
    }
}

/// |got - want|: exact for integers until it becomes f64. Equal infinities have none.
pub(super) fn distance(got: Number, want: Number) -> f64 {
    match (got, want) {
        (Number::Int(got), Number::Int(want)) => got.abs_diff(want) as f64,
        _ if got.to_f64() == want.to_f64() => 0.0,
        _ => (got.to_f64() - want.to_f64()).abs(),
    }
}

/// `distance` in allowances, at most 1 exactly where `distance <= allowance` and finite.
fn share(distance: f64, allowance: f64) -> f64 {
    if distance == 0.0 {
        0.0
    } else if distance.is_infinite() {
        f64::INFINITY
    } else if distance <= allowance {
        (distance / allowance).min(1.0)
    } else {
        (distance / allowance).max(1.0f64.next_up())
    }
}

impl Tolerance {
    /// What holds of single elements, in words; metrics are told with what they came to.
    pub fn words(&self) -> String {
        let mut parts = self.parts();
        parts.retain(|part| !self.metrics().any(|(metric, _)| part.starts_with(metric.name())));
        parts.join(", ")
    }

    fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        if self.is_exact() {
            parts.push("exact".to_string());
        }
        if self.bitwise {
            parts.push("bitwise".to_string());
        }
        if let Some(rtol) = self.rtol {
            parts.push(format!("rtol {}", Wide(rtol)));
        }
        if let Some(atol) = self.atol {
            parts.push(format!("atol {}", Wide(atol)));
        }
        if let Some(ulp) = self.ulp {
            parts.push(format!("ulp {ulp}"));
        }
        parts.extend(self.metrics().map(|(metric, limit)| format!("{} {}", metric.name(), Wide(limit))));
        if self.max_mismatches > 0 {
            parts.push(format!("up to {} mismatches", self.max_mismatches));
        }
        if self.nan_equal {
            parts.push("nan equal".to_string());
        }
        parts
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: Number = Number::Float(f64::NAN);

    fn rel(rtol: f64, atol: f64) -> Tolerance {
        Tolerance { rtol: Some(rtol), atol: Some(atol), ..Tolerance::default() }
    }

    fn ulp(ulp: u64) -> Tolerance {
        Tolerance { ulp: Some(ulp), ..Tolerance::default() }
    }

    fn f32(tolerance: &Tolerance, got: f32, want: f64) -> bool {
        tolerance.accepts(Dtype::F32, got.to_bits().into(), Number::Float(want))
    }

    #[test]
    fn nan_never_passes_unless_expected_and_allowed() {
        let everything = Tolerance { exact: true, rtol: Some(1e300), atol: Some(f64::MAX), ulp: Some(u64::MAX), ..Tolerance::default() };
        for tolerance in [Tolerance::exact(), Tolerance::default(), rel(1e300, f64::MAX), ulp(u64::MAX), ulp(u64::MAX - 1), everything] {
            for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let nan = dtype.encode(NAN).unwrap();
                let one = dtype.encode(Number::Int(1)).unwrap();
                assert!(!tolerance.accepts(dtype, nan, Number::Float(1.0)), "{tolerance} {dtype}");
                assert!(!tolerance.accepts(dtype, nan, Number::Int(1)), "{tolerance} {dtype}");
                assert!(!tolerance.accepts(dtype, nan, Number::Float(f64::INFINITY)), "{tolerance} {dtype}");
                assert!(!tolerance.accepts(dtype, nan, NAN), "{tolerance} {dtype}");
                assert!(!tolerance.accepts(dtype, one, NAN), "{tolerance} {dtype}");
                let equal = Tolerance { nan_equal: true, ..tolerance.clone() };
                assert!(equal.accepts(dtype, nan, NAN), "{tolerance} {dtype}");
                assert!(!equal.accepts(dtype, nan, Number::Float(1.0)), "{tolerance} {dtype}");
                assert!(!equal.accepts(dtype, one, NAN), "{tolerance} {dtype}");
            }
            assert!(!tolerance.accepts(Dtype::I32, 0, NAN), "{tolerance}");
        }
    }

    #[test]
    fn infinities_are_equal_only_if_the_same() {
        for tolerance in [Tolerance::exact(), rel(0.5, 1.0), rel(0.0, 1.0), rel(f64::MAX, f64::MAX), ulp(u64::MAX - 1), ulp(u64::MAX)] {
            assert!(f32(&tolerance, f32::INFINITY, f64::INFINITY), "{tolerance}");
            assert!(!f32(&tolerance, f32::NEG_INFINITY, f64::INFINITY), "{tolerance}");
            assert!(!f32(&tolerance, 1.0, f64::INFINITY), "{tolerance}");
            assert!(!f32(&tolerance, f32::INFINITY, 1.0), "{tolerance}");
            assert!(!f32(&tolerance, f32::MAX, f64::INFINITY), "{tolerance}");
        }
    }

    #[test]
    fn each_kind_passes_and_fails() {
        let next = 1.0f32.next_up();
        let half = f64::from(f32::EPSILON) / 2.0;
        for (tolerance, got, want, passes) in [
            (Tolerance::exact(), 1.0, 1.0, true),
            (Tolerance::exact(), next, 1.0, false),
            (Tolerance::exact(), 1.0, 1.0 + half, true),
            (Tolerance::exact(), -0.0, 0.0, true),
            (Tolerance::exact(), f32::INFINITY, 1e39, true),
            (Tolerance::default(), next, 1.0, false),
            (rel(0.0, 0.5), 1.5, 1.0, true),
            (rel(0.0, 0.5), 1.5f32.next_up(), 1.0, false),
            (rel(0.5, 0.0), 3.0, 2.0, true),
            (rel(0.5, 0.0), 3.0f32.next_up(), 2.0, false),
            (rel(0.5, 0.0), -3.0, -2.0, true),
            (rel(0.25, 0.5), 3.0, 2.0, true),
            (rel(0.0, 0.0), 2.0, 2.0, true),
            (rel(0.0, 0.0), -0.0, 0.0, true),
            (rel(0.0, 0.0), 1e-45, 0.0, false),
            (rel(0.1, 0.1), f32::INFINITY, 1e39, false),
            (ulp(1), next, 1.0, true),
            (ulp(1), next.next_up(), 1.0, false),
            (ulp(0), next, 1.0, false),
            (ulp(2), -1e-45, 1e-45, true),
            (ulp(1), -1e-45, 1e-45, false),
            (ulp(1 << 20), f32::INFINITY, f64::from(f32::MAX), false),
            (Tolerance { exact: true, ..rel(1.0, 1.0) }, next, 1.0, false),
            (Tolerance { ulp: Some(0), ..rel(1.0, 1.0) }, next, 1.0, false),
            (Tolerance { ulp: Some(5), ..rel(0.0, 0.0) }, next, 1.0, false),
        ] {
            assert_eq!(f32(&tolerance, got, want), passes, "{tolerance}: {got} {want}");
        }
        // One of the two alone: the other is 0.
        assert!(!f32(&Tolerance { atol: Some(0.5), ..Tolerance::default() }, 1e9, 1.1e9));
        assert!(!f32(&Tolerance { rtol: Some(0.5), ..Tolerance::default() }, 1e-9, 0.0));
    }

    #[test]
    fn integers_are_exact_beyond_f64() {
        let accepts = |tolerance: &Tolerance, got: i64, want: Number| tolerance.accepts(Dtype::I64, got as u64, want);
        let big = (1i64 << 62) + 1;
        assert!(accepts(&Tolerance::exact(), big, Number::Int(big.into())));
        assert!(!accepts(&Tolerance::exact(), big, Number::Int(i128::from(big) - 1)));
        assert!(!accepts(&Tolerance::exact(), big, Number::Float(big as f64)));
        assert!(!accepts(&Tolerance::exact(), 1, Number::Float(1.5)));
        assert!(!accepts(&Tolerance::exact(), -1, Number::Int(u64::MAX.into())));
        assert!(accepts(&rel(0.0, 1.0), 5, Number::Int(6)));
        assert!(!accepts(&rel(0.0, 1.0), 5, Number::Int(7)));
        assert!(!accepts(&ulp(1), big, Number::Int(i128::from(big) - 2)));
        assert!(!accepts(&rel(1.0, 1.0), 5, Number::Float(f64::INFINITY)));
    }

    #[test]
    fn numbers_without_sense_are_refused_and_let_nothing_pass() {
        for bad in [f64::NAN, -1.0] {
            assert!(!f32(&rel(bad, 0.0), 1.5, 1.0) && !f32(&rel(0.0, bad), 1.5, 1.0), "{bad}");
        }
        assert_eq!(rel(f64::NAN, 0.0).validate(), Err("rtol is nan, it must be finite and not negative".into()));
        assert_eq!(rel(0.0, -1.0).validate(), Err("atol is -1, it must be finite and not negative".into()));
        assert_eq!(rel(f64::INFINITY, 0.0).validate(), Err("rtol is inf, it must be finite and not negative".into()));
        assert_eq!(rel(0.0, 1e300).validate(), Ok(()));
    }

    #[test]
    fn bits_are_bits() {
        let bitwise = Tolerance { bitwise: true, ..Tolerance::default() };
        let equal = Tolerance { nan_equal: true, ..bitwise.clone() };
        assert!(f32(&bitwise, 1.0, 1.0) && f32(&bitwise, 0.1, 0.1));
        assert!(!f32(&bitwise, -0.0, 0.0) && !f32(&bitwise, 0.0, -0.0) && f32(&bitwise, -0.0, -0.0));
        assert!(!f32(&bitwise, f32::NAN, f64::NAN) && f32(&equal, f32::NAN, f64::NAN));
        assert!(!f32(&equal, f32::from_bits(0x7fc0_0001), f64::NAN));
        assert!(!bitwise.accepts(Dtype::I8, 0xff, Number::Int(255)));
        assert!(bitwise.accepts(Dtype::I8, 0xff, Number::Int(-1)));
    }

    #[test]
    fn a_metric_alone_judges_no_element_by_itself() {
        let metric = Tolerance { rel_l2: Some(0.1), ..Tolerance::default() };
        assert!(!metric.is_elementwise() && metric.has_metrics());
        assert_eq!(metric.elementwise(Dtype::F32), Tolerance::default_for(Dtype::F32));
        let both = Tolerance { ulp: Some(1), ..metric };
        assert!(both.is_elementwise() && both.elementwise(Dtype::F32) == both);
        assert!(Tolerance::default().is_elementwise() && !Tolerance::default().has_metrics());
    }

    #[test]
    fn words_for_tolerances() {
        assert_eq!(Tolerance::default_for(Dtype::F32).to_string(), "rtol 1.3e-6, atol 1e-5");
        assert_eq!(Tolerance::default_for(Dtype::I8).to_string(), "exact");
        assert_eq!(Tolerance::default().to_string(), "exact");
        let all = Tolerance {
            ulp: Some(2),
            rel_l2: Some(1e-4),
            max_abs: Some(0.5),
            min_cosine: Some(0.9),
            max_mismatches: 3,
            nan_equal: true,
            ..rel(0.5, 0.0)
        };
        assert_eq!(all.to_string(), "rtol 0.5, atol 0, ulp 2, rel_l2 0.0001, max_abs 0.5, min_cosine 0.9, up to 3 mismatches, nan equal");
        assert_eq!(Tolerance { rel_l2: Some(1e-5), ..Tolerance::default() }.to_string(), "rel_l2 1e-5");
        assert_eq!(Tolerance { bitwise: true, ..Tolerance::default() }.to_string(), "bitwise");
    }
}
