//! One number: an exact integer or a double.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Dtype;

/// A number as specs and messages carry it: integers stay exact, everything else is f64.
///
/// Serialised as a number. What JSON has none for is text: integers beyond 64 bits, `"nan"`, `"inf"`, `"-inf"`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Int(i) => i as f64,
            Number::Float(f) => f,
        }
    }

    /// The value as an integer, if it is one.
    pub fn to_integer(self) -> Option<i128> {
        match self {
            Number::Int(i) => Some(i),
            // 2^96 is far beyond every dtype and exact in f64.
            Number::Float(f) if f.fract() == 0.0 && f.abs() <= 2f64.powi(96) => Some(f as i128),
            Number::Float(_) => None,
        }
    }

    pub fn is_nan(self) -> bool {
        matches!(self, Number::Float(f) if f.is_nan())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Int(i) => write!(f, "{i}"),
            Number::Float(x) if x.is_nan() => f.write_str("nan"),
            Number::Float(x) if *x != 0.0 && x.is_finite() && !(1e-4..1e16).contains(&x.abs()) => write!(f, "{x:e}"),
            Number::Float(x) => write!(f, "{x}"),
        }
    }
}

/// A number that a dtype cannot hold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RangeError {
    pub number: Number,
    pub dtype: Dtype,
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype.integer_range() {
            Some(_) if self.number.to_integer().is_none() => {
                write!(f, "{} is not a whole number, {} holds only those", self.number, self.dtype)
            }
            Some((low, high)) => write!(f, "{} is out of range for {} ({low} to {high})", self.number, self.dtype),
            None => write!(f, "{} does not fit {}", self.number, self.dtype),
        }
    }
}

impl std::error::Error for RangeError {}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Number::Int(i) => match (u64::try_from(i), i64::try_from(i)) {
                (Ok(i), _) => serializer.serialize_u64(i),
                (_, Ok(i)) => serializer.serialize_i64(i),
                _ => serializer.collect_str(&i),
            },
            Number::Float(f) if f.is_finite() => serializer.serialize_f64(f),
            Number::Float(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl de::Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, the digits of an integer, \"nan\", \"inf\" or \"-inf\"")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
        Ok(Number::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number::Int(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
        Ok(Number::Float(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        match text {
            "nan" => Ok(Number::Float(f64::NAN)),
            "inf" => Ok(Number::Float(f64::INFINITY)),
            "-inf" => Ok(Number::Float(f64::NEG_INFINITY)),
            _ => text.parse().map(Number::Int).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_json() {
        for (number, json) in [
            (Number::Int(-3), "-3"),
            (Number::Int(u64::MAX.into()), "18446744073709551615"),
            (Number::Int(i128::MIN), "\"-170141183460469231731687303715884105728\""),
            (Number::Float(5.0), "5.0"),
            (Number::Float(1e300), "1e+300"),
            (Number::Float(f64::INFINITY), "\"inf\""),
            (Number::Float(f64::NEG_INFINITY), "\"-inf\""),
        ] {
            assert_eq!(serde_json::to_string(&number).unwrap(), json);
            assert_eq!(serde_json::from_str::<Number>(json).unwrap(), number);
        }
        let negative_zero: Number = serde_json::from_str(&serde_json::to_string(&Number::Float(-0.0)).unwrap()).unwrap();
        assert!(negative_zero.to_f64().is_sign_negative());
        let nan: Number = serde_json::from_str(&serde_json::to_string(&Number::Float(f64::NAN)).unwrap()).unwrap();
        assert!(nan.is_nan());
        assert!(serde_json::from_str::<Number>("\"1.5x\"").is_err());
    }
}
