//! One number: an exact integer or a double.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Dtype;

/// A number as specs and messages carry it: integers stay exact, everything else is f64.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
