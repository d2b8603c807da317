//! The tolerances of a check -> those of its tensor's dtype; and what no output could fail is refused.

use super::Tensor;
use super::names::Resolver;
use super::places::Places;
use crate::check::Tolerance;
use crate::diag::{Diagnostic, Place};
use crate::expr;
use crate::spec::{self, Int, NanPolicy, Num, PerDtype};
use crate::tensor::{Dtype, Number};

/// A key's values: by dtype, where each stands, and what it is unless that was reported.
struct Key<T>(Vec<(Option<Dtype>, Place, Option<T>)>);

impl<T: Copy> Key<T> {
    /// What is said of a dtype.
    fn of(&self, dtype: Dtype) -> Option<(&Place, Option<T>)> {
        let entry = |wanted| self.0.iter().find(move |(dtype, ..)| *dtype == wanted);
        entry(Some(dtype)).or(entry(None)).map(|(_, place, value)| (place, *value))
    }
}

/// The numbers of a check's tolerance, for every dtype that they are given for.
pub(super) struct Numbers {
    switches: [(&'static str, Key<bool>); 2],
    floats: [(&'static str, Key<f64>); 5],
    integers: [(&'static str, Key<u64>); 2],
}

impl Resolver<'_> {
    /// Evaluates all numbers of a tolerance.
    pub(super) fn numbers(&self, at: &Place, check: &spec::Check) -> Numbers {
        let float = |key, value| (key, self.key(&at.to(key), value, |at: &Place, value: &Num| self.measure(at, key, value)));
        let integer = |key, value| {
            let read = |at: &Place, value: &Int| self.int_within(at, value, &format!("`{key}`"), 0, i64::MAX as u64);
            (key, self.key(&at.to(key), value, read))
        };
        let switch = |key, value| (key, self.key(&at.to(key), value, |_: &Place, on: &bool| Some(*on)));
        Numbers {
            switches: [switch("exact", &check.exact), switch("bitwise", &check.bitwise)],
            floats: [
                float("rtol", &check.rtol),
                float("atol", &check.atol),
                float("rel_l2", &check.rel_l2),
                float("max_abs", &check.max_abs),
                float("min_cosine", &check.min_cosine),
            ],
            integers: [integer("ulp", &check.ulp), integer("max_mismatches", &check.max_mismatches)],
        }
    }

    fn key<T, U>(&self, at: &Place, value: &Option<PerDtype<T>>, read: impl Fn(&Place, &T) -> Option<U>) -> Key<U> {
        let entries = value.iter().flat_map(PerDtype::iter).map(|(dtype, key, value)| {
            let at = key.map_or(at.clone(), |key| at.to(key));
            let value = read(&at, value);
            (dtype, at, value)
        });
        Key(entries.collect())
    }

    /// A float of a tolerance: finite, and not negative.
    fn measure(&self, at: &Place, key: &str, value: &Num) -> Option<f64> {
        if let Num::Bool(value) = value {
            self.report(Diagnostic::error("wrong-type", at.clone(), format!("`{key}` is the boolean `{value}`, expected a number")));
            return None;
        }
        let scalar = self.scalar(at, value, &Places::constant(self, &[]), expr::Place::Float)?;
        let value = scalar.eval(0).map_err(|e| self.report_text("expression", at, e)).ok()?.to_f64();
        let cosine = key == "min_cosine";
        if value.is_finite() && (value >= 0.0 || cosine) {
            return Some(value);
        }
        let why = if value.is_nan() {
            "no comparison with it is true"
        } else if cosine {
            "a cosine is at most 1"
        } else {
            "it must be at least 0 and finite"
        };
        self.report(Diagnostic::error("bad-tolerance", at.clone(), format!("`{key}` is {value:?}: {why}")));
        None
    }

    /// The tolerance for a tensor's dtype, and whether it is the dtype's default.
    pub(super) fn tolerance(
        &self,
        at: &Place,
        check: &spec::Check,
        numbers: Numbers,
        tensor: &Tensor,
        elements: u64,
    ) -> Option<(Tolerance, bool)> {
        let dtype = tensor.dtype;
        let given: Vec<(&str, &Place)> = numbers.places(dtype);
        let mut ok = true;
        let mut refuse = |diagnostic: Diagnostic| {
            ok = false;
            self.report(diagnostic);
        };
        let [exact, bitwise] = numbers.switches.each_ref().map(|(_, key)| key.of(dtype).is_some_and(|(_, on)| on == Some(true)));
        let strict = ["bitwise", "exact"].into_iter().zip([bitwise, exact]).find(|(_, on)| *on).map(|(key, _)| key);
        let looser = given.iter().find(|(key, _)| Some(*key) != strict && ["exact", "rtol", "atol", "ulp"].contains(key));
        if let (Some(strict), Some((key, place))) = (strict, looser) {
            let message = format!("`{strict}` leaves nothing for `{key}` to allow");
            refuse(Diagnostic::error("bad-tolerance", place.key(), message).help("keep one of them").also(at.to(strict).key(), "here"));
        }
        let written_for_others = numbers.first().is_some() && given.is_empty();
        if written_for_others {
            let message = format!("nothing here says how close `{}`, which is {dtype}, must be", tensor.name);
            let place = numbers.first().map_or(at.clone(), |key| at.to(key).key());
            refuse(Diagnostic::error("bad-tolerance", place, message).help(format!("add `{dtype} = ...` or `default = ...` to the table")));
        }
        let expected = check.expect.is_some() || self.spec.sets.iter().any(|s| s.expect.contains_key(&tensor.name));
        if check.written
            && !expected
            && let Some((key, place)) = given.first()
        {
            let message = format!("`{key}` is about a comparison, and this check has no expectation");
            refuse(Diagnostic::error("bad-check", place.key(), message).help("add `expect`, or drop it"));
        }
        for (key, values) in &numbers.floats {
            if let Some((place, Some(value))) = values.of(dtype)
                && let Some(why) = cannot_fail(key, value, dtype)
            {
                let code = if *key == "min_cosine" && value > 1.0 { "bad-tolerance" } else { "cannot-fail" };
                refuse(Diagnostic::error(code, place.clone(), format!("`{key}` is {}: {why}", Number::Float(value))));
            }
        }
        let [ulp, most] = numbers.integers.each_ref().map(|(_, key)| key.of(dtype));
        if let Some((place, Some(ulp))) = ulp
            && u128::from(ulp) >= 1 << (8 * dtype.size() as u32).min(100)
        {
            let message = format!("`ulp` is {ulp}: {dtype} has no two values that far apart, so the check cannot fail");
            refuse(Diagnostic::error("cannot-fail", place.clone(), message));
        }
        if let Some((place, Some(most))) = most
            && most >= elements
        {
            let of = if elements == tensor.shape.elements() { "" } else { "this part of " };
            let message = format!("`max_mismatches` is {most}, {of}`{}` has {elements} elements: the check cannot fail", tensor.name);
            refuse(Diagnostic::error("cannot-fail", place.clone(), message));
        }
        // What is given and was refused has been reported.
        let [rtol, atol, rel_l2, max_abs, min_cosine] = numbers.floats.each_ref().map(|(_, key)| key.of(dtype));
        let usable = [rtol, atol, rel_l2, max_abs, min_cosine].iter().all(|v| v.is_none_or(|(_, value)| value.is_some()))
            && [ulp, most].iter().all(|v| v.is_none_or(|(_, value)| value.is_some()));
        let number = |value: Option<(&Place, Option<f64>)>| value.and_then(|(_, value)| value);
        let mut tolerance = Tolerance {
            exact,
            bitwise,
            rtol: number(rtol),
            atol: number(atol),
            ulp: ulp.and_then(|(_, value)| value),
            rel_l2: number(rel_l2),
            max_abs: number(max_abs),
            min_cosine: number(min_cosine),
            ..Tolerance::default()
        };
        let close = tolerance.rtol.is_some() || tolerance.atol.is_some();
        if close {
            tolerance.rtol.get_or_insert(0.0);
            tolerance.atol.get_or_insert(0.0);
        }
        let default = !(exact || bitwise || close || tolerance.ulp.is_some() || tolerance.has_metrics());
        if default {
            tolerance = Tolerance::default_for(dtype);
        }
        tolerance.max_mismatches = most.and_then(|(_, value)| value).unwrap_or(0);
        tolerance.nan_equal = check.nan == Some(NanPolicy::Equal);
        (ok && usable).then_some((tolerance, default))
    }
}

impl Numbers {
    /// The keys that say something of a dtype, and where.
    fn places(&self, dtype: Dtype) -> Vec<(&'static str, &Place)> {
        let switches = self.switches.iter().filter_map(|(key, v)| Some((*key, v.of(dtype).filter(|(_, on)| *on == Some(true))?.0)));
        let floats = self.floats.iter().filter_map(|(key, v)| Some((*key, v.of(dtype)?.0)));
        let integers = self.integers.iter().filter_map(|(key, v)| Some((*key, v.of(dtype)?.0)));
        switches.chain(floats).chain(integers).collect()
    }

    /// The first key that says something of any dtype.
    fn first(&self) -> Option<&'static str> {
        let on = |(.., value): &(Option<Dtype>, Place, Option<bool>)| *value == Some(true);
        let switches = self.switches.iter().filter(|(_, key)| key.0.iter().any(on)).map(|(key, _)| *key);
        let floats = self.floats.iter().filter(|(_, key)| !key.0.is_empty()).map(|(key, _)| *key);
        let integers = self.integers.iter().filter(|(_, key)| !key.0.is_empty()).map(|(key, _)| *key);
        switches.chain(floats).chain(integers).next()
    }
}

/// Why every output, or one of zeros, is within a limit.
fn cannot_fail(key: &str, value: f64, dtype: Dtype) -> Option<String> {
    let widest = match dtype.integer_range() {
        Some((low, high)) => (high - low) as f64,
        None => largest(dtype),
    };
    match key {
        "rtol" | "rel_l2" if value >= 1.0 => Some("an output of zeros is within it, whatever is expected".into()),
        "atol" | "max_abs" if value >= widest => {
            Some(format!("the values of {dtype} reach to {}, so the check cannot fail", Number::Float(widest)))
        }
        "min_cosine" if value > 1.0 => Some("a cosine is at most 1".into()),
        "min_cosine" if value <= 0.0 => Some("an output of zeros has a cosine of 0 with any other".into()),
        _ => None,
    }
}

/// The largest finite value of a float dtype.
fn largest(dtype: Dtype) -> f64 {
    let bits = 8 * dtype.size() as u32 - 1;
    // The patterns above it are infinity and NaN.
    let patterns = (0..1u64 << bits.min(11)).map(|below| (u64::MAX >> (64 - bits)) - below);
    let finite = |bits: u64| Some(dtype.decode(bits).to_f64()).filter(|value| value.is_finite());
    match dtype {
        Dtype::F64 => f64::MAX,
        Dtype::F32 => f32::MAX.into(),
        _ => patterns.filter_map(finite).next().unwrap_or(f64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_values_are_those_of_the_formats() {
        assert_eq!(largest(Dtype::F16), 65504.0);
        assert_eq!(largest(Dtype::Bf16), 3.389_531_389_251_535_5e38);
        assert_eq!((largest(Dtype::F32), largest(Dtype::F64)), (f32::MAX.into(), f64::MAX));
    }

    #[test]
    fn what_cannot_fail_is_known_per_dtype() {
        for (key, value, dtype, refused) in [
            ("rtol", 0.99, Dtype::F32, false),
            ("rtol", 1.0, Dtype::F32, true),
            ("rel_l2", 1.0, Dtype::F16, true),
            ("atol", 65503.0, Dtype::F16, false),
            ("atol", 65504.0, Dtype::F16, true),
            ("atol", 65504.0, Dtype::F32, false),
            ("max_abs", 255.0, Dtype::I8, true),
            ("max_abs", 254.0, Dtype::I8, false),
            ("atol", 1.0, Dtype::Bool, true),
            ("min_cosine", 0.0, Dtype::F32, true),
            ("min_cosine", 0.1, Dtype::F32, false),
            ("min_cosine", 1.5, Dtype::F32, true),
        ] {
            assert_eq!(cannot_fail(key, value, dtype).is_some(), refused, "{key} {value} {dtype}");
        }
    }
}
