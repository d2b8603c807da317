//! Turns a declared source of contents into one that is known to fit its tensor, or into words that say why not.

use std::fmt;
use std::sync::Arc;

use super::npy::Npy;
use crate::expr::Program;
use crate::tensor::narrow::Narrow;
use crate::tensor::{Dtype, Number};

/// Where the contents of a tensor come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Every element has these bits (in the low bytes of the word).
    Fill(u64),
    /// The tensor's bytes: row-major, little-endian.
    Values(Arc<[u8]>),
    /// Element `i` is element `i % n` of these `n`.
    Repeat(Arc<[u8]>),
    /// Element `i` is `start + i * step`: exact for integers; for floats one f64 product and one f64 sum, rounded once to the dtype.
    Range { start: Number, step: Number },
    /// Uniform in [low, high). Exact formula: [`super::fill`].
    Uniform { low: f64, high: f64 },
    /// Normal with mean and standard deviation. Exact formula: [`super::fill`].
    Normal { mean: f64, std: f64 },
    /// Whole numbers from `low` to `high`, both included, all equally likely. Exact formula: [`super::fill`].
    Integers { low: i128, high: i128 },
    /// The contents of a file.
    File(Arc<Npy>),
    /// What an expression over other tensors' contents of the same round gives. [`super::fill`] has not those: whoever
    /// runs rounds evaluates it.
    Program(Arc<Program>),
}

/// Why a source cannot fill a tensor.
#[derive(Clone, PartialEq, Debug)]
pub struct Refusal {
    /// The number of the source that is wrong, by its name in the language, where it is one.
    pub part: Option<&'static str>,
    /// Names the value and the limit, with the mend where there is one.
    pub message: String,
}

impl From<String> for Refusal {
    fn from(message: String) -> Refusal {
        Refusal { part: None, message }
    }
}

impl Refusal {
    /// What is wrong with one number.
    fn of(part: &'static str) -> impl Fn(Refusal) -> Refusal {
        move |refusal| Refusal { part: Some(part), ..refusal }
    }
}

/// Whether a source can fill so many elements of a dtype.
///
/// *Errors*: what is wrong, and with which of its numbers.
pub fn validate(source: &Source, dtype: Dtype, elements: u64) -> Result<(), Refusal> {
    match source {
        Source::Fill(bits) => {
            let unused = if dtype.size() == 8 { 0 } else { bits >> (8 * dtype.size()) };
            check(unused == 0, || format!("fill bits {bits:#x} are wider than {dtype}, {} bits", 8 * dtype.size()))
        }
        Source::Values(bytes) => {
            let need = u128::from(elements) * dtype.size() as u128;
            check(bytes.len() as u128 == need, || {
                format!("{} values of {dtype} for {elements} elements", bytes.len() as f64 / dtype.size() as f64)
            })
        }
        Source::Repeat(bytes) => {
            check(bytes.len().is_multiple_of(dtype.size()), || format!("{} bytes are no whole number of {dtype}", bytes.len()))?;
            check(!bytes.is_empty() || elements == 0, || format!("no values to repeat for {elements} elements"))
        }
        Source::Range { start, step } => range(*start, *step, dtype, elements),
        Source::Uniform { low, high } => uniform(*low, *high, dtype),
        Source::Normal { mean, std } => normal(*mean, *std, dtype),
        Source::Integers { low, high } => integers(*low, *high, dtype),
        Source::Program(program) => check(program.shape().elements() == elements, || {
            format!("the expression has {} elements, the tensor has {elements}", program.shape().elements())
        }),
        Source::File(npy) => {
            check(npy.dtype_matches(dtype), || format!("the file holds {}, the tensor is {dtype}", npy.describe_dtype()))?;
            check(npy.shape().elements() == elements, || {
                format!("the file has shape {}, {} elements, the tensor has {elements}", npy.shape(), npy.shape().elements())
            })
        }
    }
}

fn check(holds: bool, message: impl FnOnce() -> String) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(message().into()) }
}

/// The largest finite value of a float dtype.
pub(super) fn largest(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F16 => 65504.0,
        Dtype::Bf16 => f64::from(Narrow::Bf16.to_f32(0x7F7F)),
        Dtype::F8e4m3 => 448.0,
        Dtype::F8e5m2 => 57344.0,
        Dtype::F32 => f64::from(f32::MAX),
        _ => f64::MAX,
    }
}

fn finite(what: impl fmt::Display, value: f64, dtype: Dtype) -> Result<(), Refusal> {
    check(value.is_finite(), || format!("{what} is {}, it must be finite", Number::Float(value)))?;
    check(value.abs() <= largest(dtype), || {
        format!("{what} is {}, the largest value of {dtype} is {}", Number::Float(value), Number::Float(largest(dtype)))
    })
}

fn range(start: Number, step: Number, dtype: Dtype, elements: u64) -> Result<(), Refusal> {
    let last = elements.saturating_sub(1);
    if dtype.is_float() {
        finite("range's start", start.to_f64(), dtype).map_err(Refusal::of("start"))?;
        finite("range's step", step.to_f64(), dtype).map_err(Refusal::of("step"))?;
        return finite(format_args!("range's last value, at element {last},"), start.to_f64() + step.to_f64() * last as f64, dtype);
    }
    let whole = |what: &'static str, number: Number| {
        let fraction = || Refusal { part: Some(what), message: format!("range's {what} is {number}, {dtype} holds whole numbers") };
        number.to_integer().ok_or_else(fraction)
    };
    let (start, step) = (whole("start", start)?, whole("step", step)?);
    let end = step.checked_mul(i128::from(last)).and_then(|span| start.checked_add(span));
    for (at, value) in [(0, Some(start)), (last, end)] {
        match value {
            None => return Err(format!("range's value at element {at} is out of range for {dtype}").into()),
            Some(value) => dtype.encode(Number::Int(value)).map(drop).map_err(|e| format!("range's value at element {at}: {e}"))?,
        }
    }
    Ok(())
}

fn uniform(low: f64, high: f64, dtype: Dtype) -> Result<(), Refusal> {
    check(dtype.is_float(), || {
        format!("uniform draws fractions, {dtype} holds whole numbers; write `integers = {{ low = ..., high = ... }}`")
    })?;
    finite("uniform's low", low, dtype).map_err(Refusal::of("low"))?;
    finite("uniform's high", high, dtype).map_err(Refusal::of("high"))?;
    check(low <= high, || format!("uniform's low {} is above its high {}", Number::Float(low), Number::Float(high)))
        .map_err(Refusal::of("low"))?;
    // Narrower floats are drawn as f32.
    let limit = if dtype == Dtype::F64 { f64::MAX } else { f64::from(f32::MAX) };
    check(high - low <= limit, || {
        let (low, high) = (Number::Float(low), Number::Float(high));
        format!("uniform from {low} to {high} is wider than {}, the largest value of its draw", Number::Float(limit))
    })
}

fn normal(mean: f64, std: f64, dtype: Dtype) -> Result<(), Refusal> {
    check(dtype.is_float(), || {
        format!("normal draws fractions, {dtype} holds whole numbers; write `integers = {{ low = ..., high = ... }}`")
    })?;
    finite("normal's mean", mean, dtype).map_err(Refusal::of("mean"))?;
    finite("normal's std", std, dtype).map_err(Refusal::of("std"))?;
    check(std >= 0.0, || format!("normal's std is {}, it must not be negative", Number::Float(std))).map_err(Refusal::of("std"))?;
    // The draw that lies furthest out has probability 2^-53: 8.21 standard deviations.
    let furthest = mean.abs() + 8.3 * std;
    check(furthest <= largest(dtype), || {
        format!("normal draws values up to {}, the largest value of {dtype} is {}", Number::Float(furthest), Number::Float(largest(dtype)))
    })
}

fn integers(low: i128, high: i128, dtype: Dtype) -> Result<(), Refusal> {
    check(low <= high, || format!("integers' low {low} is above its high {high}")).map_err(Refusal::of("low"))?;
    if let Some((least, most)) = dtype.integer_range() {
        return check(low >= least && high <= most, || {
            format!("integers from {low} to {high} are out of range for {dtype} ({least} to {most})")
        });
    }
    // All whole numbers up to 2^(bits of the significand) are values of the dtype.
    let exact: i128 = match dtype {
        Dtype::F16 => 1 << 11,
        Dtype::Bf16 => 1 << 8,
        Dtype::F8e4m3 => 1 << 4,
        Dtype::F8e5m2 => 1 << 3,
        Dtype::F32 => 1 << 24,
        _ => 1 << 53,
    };
    check(low >= -exact && high <= exact, || {
        format!("integers from {low} to {high}: {dtype} holds all whole numbers only from {} to {exact}", -exact)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_sources() {
        let int = Number::Int;
        for (source, dtype, elements) in [
            (Source::Fill(0xFFFF), Dtype::F16, 3),
            (Source::Values([0u8; 12].into()), Dtype::F32, 3),
            (Source::Repeat([0u8; 4].into()), Dtype::F32, 3),
            (Source::Range { start: int(0), step: int(1) }, Dtype::U8, 256),
            (Source::Range { start: int(-128), step: Number::Float(1.0) }, Dtype::I8, 256),
            (Source::Range { start: int(u64::MAX.into()), step: int(-1) }, Dtype::U64, 1 << 40),
            (Source::Range { start: int(0), step: Number::Float(0.5) }, Dtype::F16, 1000),
            (Source::Range { start: int(0), step: int(1) }, Dtype::U8, 0),
            (Source::Uniform { low: 1.0, high: 1.0 }, Dtype::F32, 1),
            (Source::Uniform { low: -65504.0, high: 65504.0 }, Dtype::F16, 1),
            (Source::Normal { mean: 0.0, std: 0.0 }, Dtype::Bf16, 1),
            (Source::Integers { low: 0, high: 1 }, Dtype::Bool, 1),
            (Source::Integers { low: i64::MIN.into(), high: i64::MAX.into() }, Dtype::I64, 1),
            (Source::Integers { low: -256, high: 256 }, Dtype::Bf16, 1),
        ] {
            assert_eq!(validate(&source, dtype, elements), Ok(()), "{source:?} {dtype}");
        }
    }

    #[test]
    fn bad_sources_name_value_and_limit() {
        let (int, float) = (Number::Int, Number::Float);
        for (source, dtype, elements, message) in [
            (Source::Fill(0x10000), Dtype::F16, 1, "fill bits 0x10000 are wider than f16, 16 bits"),
            (Source::Values([0u8; 12].into()), Dtype::F32, 4, "3 values of f32 for 4 elements"),
            (Source::Repeat([0u8; 0].into()), Dtype::F32, 4, "no values to repeat for 4 elements"),
            (Source::Repeat([0u8; 3].into()), Dtype::F16, 4, "3 bytes are no whole number of f16"),
            (
                Source::Range { start: int(0), step: int(1) },
                Dtype::U8,
                257,
                "range's value at element 256: 256 is out of range for u8 (0 to 255)",
            ),
            (Source::Range { start: int(5), step: int(i128::MAX) }, Dtype::I32, 3, "range's value at element 2 is out of range for i32"),
            (Source::Range { start: int(0), step: float(0.5) }, Dtype::I32, 3, "range's step is 0.5, i32 holds whole numbers"),
            (
                Source::Range { start: int(0), step: int(1) },
                Dtype::F16,
                70000,
                "range's last value, at element 69999, is 69999, the largest value of f16 is 65504",
            ),
            (Source::Range { start: float(f64::NAN), step: int(1) }, Dtype::F32, 2, "range's start is nan, it must be finite"),
            (
                Source::Uniform { low: 0.0, high: 1.0 },
                Dtype::I32,
                1,
                "uniform draws fractions, i32 holds whole numbers; write `integers = { low = ..., high = ... }`",
            ),
            (Source::Uniform { low: 2.0, high: 1.0 }, Dtype::F32, 1, "uniform's low 2 is above its high 1"),
            (Source::Uniform { low: 0.0, high: f64::INFINITY }, Dtype::F32, 1, "uniform's high is inf, it must be finite"),
            (Source::Uniform { low: 0.0, high: 1e5 }, Dtype::F16, 1, "uniform's high is 100000, the largest value of f16 is 65504"),
            (
                Source::Uniform { low: -3e38, high: 3e38 },
                Dtype::F32,
                1,
                "uniform from -3e38 to 3e38 is wider than 3.4028234663852886e38, the largest value of its draw",
            ),
            (Source::Normal { mean: 0.0, std: -1.0 }, Dtype::F32, 1, "normal's std is -1, it must not be negative"),
            (
                Source::Normal { mean: 0.0, std: 10000.0 },
                Dtype::F16,
                1,
                "normal draws values up to 83000, the largest value of f16 is 65504",
            ),
            (Source::Integers { low: 2, high: 1 }, Dtype::I32, 1, "integers' low 2 is above its high 1"),
            (Source::Integers { low: -1, high: 1 }, Dtype::U8, 1, "integers from -1 to 1 are out of range for u8 (0 to 255)"),
            (Source::Integers { low: 0, high: 2 }, Dtype::Bool, 1, "integers from 0 to 2 are out of range for bool (0 to 1)"),
            (
                Source::Integers { low: 0, high: 4096 },
                Dtype::F16,
                1,
                "integers from 0 to 4096: f16 holds all whole numbers only from -2048 to 2048",
            ),
        ] {
            assert_eq!(validate(&source, dtype, elements).map_err(|e| e.message), Err(message.to_string()), "{source:?} {dtype}");
        }
    }
}
