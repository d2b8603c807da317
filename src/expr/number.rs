//! What the operations give for one number: exact integers (i128, checked) and f64.
//!
//! Functions come from `libm`, so that their bits do not depend on the platform.

use std::f64::consts::SQRT_2;

use super::ops::{Binary, Class, Fault, Unary};
use crate::tensor::Dtype;
use crate::tensor::narrow::Narrow;

/// An integer operation of one operand. *Errors*: overflow.
#[inline(always)]
pub(super) fn int_unary(op: Unary, x: i128) -> Result<i128, Fault> {
    let overflow = Fault::Overflow;
    Ok(match op {
        Unary::Neg => x.checked_neg().ok_or(overflow("-"))?,
        Unary::Abs => x.checked_abs().ok_or(overflow("abs"))?,
        Unary::Square => x.checked_mul(x).ok_or(overflow("**"))?,
        Unary::Not => (x == 0).into(),
        Unary::Invert => !x,
        Unary::Sign => x.signum(),
        Unary::Relu => x.max(0),
        Unary::Cast(dtype) => wrap(dtype, x),
        // Whole already; the functions that give floats are computed in f64.
        _ => x,
    })
}

/// An integer operation of two operands. `/` must come out even.
///
/// *Errors*: overflow, division by zero, a shift or an exponent out of range.
#[inline(always)]
pub(super) fn int_binary(op: Binary, a: i128, b: i128) -> Result<i128, Fault> {
    let overflow = Fault::Overflow(op.name());
    let divisor = || if b == 0 { Err(Fault::DivisionByZero(op.name())) } else { Ok(b) };
    Ok(match op {
        Binary::Add => a.checked_add(b).ok_or(overflow)?,
        Binary::Sub => a.checked_sub(b).ok_or(overflow)?,
        Binary::Mul => a.checked_mul(b).ok_or(overflow)?,
        Binary::Div => match a.checked_rem(divisor()?) {
            Some(0) => a / b,
            None => return Err(overflow),
            Some(_) => return Err(Fault::Uneven(a, b)),
        },
        Binary::FloorDiv => {
            let quotient = a.checked_div(divisor()?).ok_or(overflow)?;
            quotient - i128::from(a % b != 0 && (a < 0) != (b < 0))
        }
        // The one quotient that overflows, -2^127 / -1, leaves nothing.
        Binary::Mod => match a.checked_rem(divisor()?) {
            Some(rest) if rest != 0 && (rest < 0) != (b < 0) => rest + b,
            rest => rest.unwrap_or(0),
        },
        Binary::Cdiv => {
            let quotient = a.checked_div(divisor()?).ok_or(overflow)?;
            quotient + i128::from(a % b != 0 && (a < 0) == (b < 0))
        }
        Binary::Pow | Binary::PowFloat => power(a, b)?,
        Binary::BitAnd => a & b,
        Binary::BitOr => a | b,
        Binary::BitXor => a ^ b,
        Binary::Shl | Binary::Shr if !(0..=126).contains(&b) => return Err(Fault::Shift(b)),
        Binary::Shl => a.checked_mul(1 << b).ok_or(overflow)?,
        Binary::Shr => a >> b,
        Binary::Lt => (a < b).into(),
        Binary::Le => (a <= b).into(),
        Binary::Gt => (a > b).into(),
        Binary::Ge => (a >= b).into(),
        Binary::Eq => (a == b).into(),
        Binary::Ne => (a != b).into(),
        Binary::And => (a != 0 && b != 0).into(),
        Binary::Or => (a != 0 || b != 0).into(),
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
    })
}

fn power(base: i128, exponent: i128) -> Result<i128, Fault> {
    if exponent < 0 {
        return Err(Fault::NegativeExponent(exponent));
    }
    match base {
        0 | 1 => Ok(if exponent == 0 { 1 } else { base }),
        -1 => Ok(if exponent % 2 == 0 { 1 } else { -1 }),
        // Any other base overflows at the exponent 127, so the narrowing loses nothing.
        _ => base.checked_pow(exponent.min(128) as u32).ok_or(Fault::Overflow("**")),
    }
}

/// The low bits of an integer as the dtype reads them; floats keep it.
#[inline(always)]
pub(super) fn wrap(dtype: Dtype, x: i128) -> i128 {
    match dtype {
        Dtype::I64 => (x as i64).into(),
        Dtype::I32 => (x as i32).into(),
        Dtype::I16 => (x as i16).into(),
        Dtype::I8 => (x as i8).into(),
        Dtype::U64 => (x as u64).into(),
        Dtype::U32 => (x as u32).into(),
        Dtype::U16 => (x as u16).into(),
        Dtype::U8 => (x as u8).into(),
        Dtype::Bool => (x != 0).into(),
        _ => x,
    }
}

/// An integer dtype's cast of a float: truncated toward zero, then wrapped; NaN and infinities give 0.
#[inline(always)]
pub(super) fn float_to_int(dtype: Dtype, x: f64) -> i128 {
    match dtype {
        Dtype::Bool => (x != 0.0).into(),
        // A float of 2^127 or more is a multiple of 2^64: its low bits are 0 in every dtype.
        _ if x.abs() < 2f64.powi(127) => wrap(dtype, x as i128),
        _ => 0,
    }
}

/// An integer rounded once to a float dtype.
#[inline(always)]
pub(super) fn int_to_float(dtype: Dtype, x: i128) -> f64 {
    match dtype {
        Dtype::F32 => (x as f32).into(),
        Dtype::F16 | Dtype::Bf16 | Dtype::F8e4m3 | Dtype::F8e5m2 => {
            // Rounded to odd: a second rounding to fewer bits cannot err.
            let near = x as f64;
            let back = near as i128;
            let odd = if back == x || near.to_bits() & 1 == 1 {
                near
            } else {
                let away = (near < 0.0) == (x < back);
                f64::from_bits(if away { near.to_bits() + 1 } else { near.to_bits() - 1 })
            };
            round_to(dtype, odd)
        }
        _ => to_f64(x),
    }
}

/// The nearest f64.
#[inline(always)]
pub(super) fn to_f64(x: i128) -> f64 {
    let narrow = x as i64;
    if i128::from(narrow) == x { narrow as f64 } else { x as f64 }
}

/// A double rounded once to a float dtype, to nearest, ties to even.
#[inline(always)]
pub(super) fn round_to(dtype: Dtype, x: f64) -> f64 {
    match dtype {
        Dtype::F32 => (x as f32).into(),
        Dtype::F16 => Narrow::F16.round(x),
        Dtype::Bf16 => Narrow::Bf16.round(x),
        Dtype::F8e4m3 => Narrow::F8e4m3.round(x),
        Dtype::F8e5m2 => Narrow::F8e5m2.round(x),
        _ => x,
    }
}

/// A float operation of one operand that gives a float.
#[inline(always)]
pub(super) fn float_unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign => sign(x),
        Unary::Square => x * x,
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Rint => x.round_ties_even(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Exp => libm::exp(x),
        Unary::Log => libm::log(x),
        Unary::Log2 => libm::log2(x),
        Unary::Sin => libm::sin(x),
        Unary::Cos => libm::cos(x),
        Unary::Tan => libm::tan(x),
        Unary::Tanh => libm::tanh(x),
        Unary::Erf => libm::erf(x),
        Unary::Sigmoid => sigmoid(x),
        Unary::Relu => max(x, 0.0),
        Unary::Gelu => 0.5 * x * (1.0 + libm::erf(x / SQRT_2)),
        Unary::Cast(dtype) => round_to(dtype, x),
        Unary::Not | Unary::IsFinite | Unary::IsNan | Unary::Invert => float_test(op, x) as f64,
    }
}

/// A float operation of one operand that gives 0, 1 or an integer.
#[inline(always)]
pub(super) fn float_test(op: Unary, x: f64) -> i128 {
    match op {
        Unary::Not => (x == 0.0).into(),
        Unary::IsFinite => x.is_finite().into(),
        Unary::IsNan => x.is_nan().into(),
        Unary::Cast(dtype) => float_to_int(dtype, x),
        _ => (x != 0.0).into(),
    }
}

/// A float operation of two operands that gives a float.
#[inline(always)]
pub(super) fn float_binary(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::FloorDiv => floor_div(a, b),
        Binary::Mod => modulo(a, b),
        Binary::Pow | Binary::PowFloat => libm::pow(a, b),
        Binary::Min => min(a, b),
        Binary::Max => max(a, b),
        _ => f64::from(u8::from(float_compare(op, a, b))),
    }
}

/// Whether a comparison of two floats holds.
#[inline(always)]
pub(super) fn float_compare(op: Binary, a: f64, b: f64) -> bool {
    match op {
        Binary::Lt => a < b,
        Binary::Le => a <= b,
        Binary::Gt => a > b,
        Binary::Ge => a >= b,
        Binary::Eq => a == b,
        Binary::And => a != 0.0 && b != 0.0,
        Binary::Or => a != 0.0 || b != 0.0,
        _ => a != b,
    }
}

/// The greater one; NaN where either is NaN.
#[inline(always)]
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

/// The smaller one; NaN where either is NaN.
#[inline(always)]
pub(super) fn min(a: f64, b: f64) -> f64 {
    if a <= b || a.is_nan() { a } else { b }
}

#[inline(always)]
fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        // Zero of either sign gives +0; NaN stays.
        x + 0.0
    }
}

#[inline(always)]
fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + libm::exp(-x))
    } else {
        let e = libm::exp(x);
        e / (1.0 + e)
    }
}

/// The remainder with the divisor's sign. *Source*: NumPy's `npy_divmod`.
#[inline(always)]
fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        0f64.copysign(b)
    } else if (b < 0.0) != (rest < 0.0) && !rest.is_nan() {
        rest + b
    } else {
        rest
    }
}

/// The quotient rounded down. *Source*: NumPy's `npy_floor_divide`.
#[inline(always)]
fn floor_div(a: f64, b: f64) -> f64 {
    if b == 0.0 {
        return a / b;
    }
    let rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest != 0.0 && (b < 0.0) != (rest < 0.0) {
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return 0f64.copysign(a / b);
    }
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}

/// Whether an operation of one operand, computed in that class, gives an integer.
pub(super) fn gives_int(op: Unary, class: Class) -> bool {
    match op {
        Unary::Cast(dtype) => !dtype.is_float(),
        Unary::Not | Unary::IsFinite | Unary::IsNan | Unary::Invert => true,
        _ => class == Class::Int,
    }
}
