//! Element types: names, sizes, and the way to and from bits.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::narrow::Narrow;
use super::{Number, RangeError};

/// Element type of a tensor or a scalar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 64-bit float
    F64,
    /// 32-bit float
    F32,
    /// 16-bit float (IEEE binary16)
    F16,
    /// 16-bit float with the exponent range of f32 (bfloat16)
    Bf16,
    /// 8-bit float with 4 exponent bits (OCP E4M3): up to 448, no infinity, one NaN per sign
    F8e4m3,
    /// 8-bit float with 5 exponent bits (OCP E5M2): up to 57344, with infinities
    F8e5m2,
    /// 64-bit signed integer
    I64,
    /// 32-bit signed integer
    I32,
    /// 16-bit signed integer
    I16,
    /// 8-bit signed integer
    I8,
    /// 64-bit unsigned integer
    U64,
    /// 32-bit unsigned integer
    U32,
    /// 16-bit unsigned integer
    U16,
    /// 8-bit unsigned integer
    U8,
    /// one byte, 0 or 1
    Bool,
}

impl Dtype {
    pub const ALL: [Dtype; 15] = [
        Dtype::F64,
        Dtype::F32,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::F8e4m3,
        Dtype::F8e5m2,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U64,
        Dtype::U32,
        Dtype::U16,
        Dtype::U8,
        Dtype::Bool,
    ];

    /// The name that specs use.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "f64",
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F8e4m3 => "f8e4m3",
            Dtype::F8e5m2 => "f8e5m2",
            Dtype::I64 => "i64",
            Dtype::I32 => "i32",
            Dtype::I16 => "i16",
            Dtype::I8 => "i8",
            Dtype::U64 => "u64",
            Dtype::U32 => "u32",
            Dtype::U16 => "u16",
            Dtype::U8 => "u8",
            Dtype::Bool => "bool",
        }
    }

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The dtype that goes by another name in C, NumPy or a framework.
    pub fn from_alias(name: &str) -> Option<Dtype> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("torch.").or_else(|| name.strip_prefix("np.")).unwrap_or(&name);
        Some(match name.strip_suffix("_t").unwrap_or(name) {
            "float64" | "double" | "fp64" => Dtype::F64,
            "float32" | "float" | "single" | "fp32" => Dtype::F32,
            "float16" | "half" | "fp16" => Dtype::F16,
            "bfloat16" | "bfloat" => Dtype::Bf16,
            "float8_e4m3fn" | "float8_e4m3" | "fp8_e4m3" | "e4m3" | "e4m3fn" => Dtype::F8e4m3,
            "float8_e5m2" | "fp8_e5m2" | "e5m2" => Dtype::F8e5m2,
            "int64" | "long" => Dtype::I64,
            "int32" | "int" => Dtype::I32,
            "int16" | "short" => Dtype::I16,
            "int8" | "char" => Dtype::I8,
            "uint64" | "ulong" | "size" => Dtype::U64,
            "uint32" | "uint" | "unsigned" => Dtype::U32,
            "uint16" | "ushort" => Dtype::U16,
            "uint8" | "uchar" | "byte" => Dtype::U8,
            "boolean" | "_bool" | "bool_" => Dtype::Bool,
            _ => return Dtype::from_name(name),
        })
    }

    /// Size of one element. *Units*: bytes.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::F8e4m3 | Dtype::F8e5m2 | Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    pub const fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16 | Dtype::F8e4m3 | Dtype::F8e5m2)
    }

    /// Whether it is an integer dtype; `bool` is not.
    pub const fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, Dtype::Bool)
    }

    pub const fn is_signed(self) -> bool {
        matches!(self, Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8)
    }

    /// Smallest and largest value of an integer dtype or `bool`; `None` for floats.
    pub const fn integer_range(self) -> Option<(i128, i128)> {
        Some(match self {
            Dtype::I64 => (i64::MIN as i128, i64::MAX as i128),
            Dtype::I32 => (i32::MIN as i128, i32::MAX as i128),
            Dtype::I16 => (i16::MIN as i128, i16::MAX as i128),
            Dtype::I8 => (i8::MIN as i128, i8::MAX as i128),
            Dtype::U64 => (0, u64::MAX as i128),
            Dtype::U32 => (0, u32::MAX as i128),
            Dtype::U16 => (0, u16::MAX as i128),
            Dtype::U8 => (0, u8::MAX as i128),
            Dtype::Bool => (0, 1),
            _ => return None,
        })
    }

    /// The bits of a number in this dtype, in the low bytes of a word.
    ///
    /// Floats round once, to nearest, ties to even; overflow becomes infinity (IEEE 754), in f8e4m3, which has none, NaN.
    ///
    /// *Errors*: a value out of an integer dtype's range, or a fraction for an integer dtype.
    pub fn encode(self, number: Number) -> Result<u64, RangeError> {
        let out_of_range = || RangeError { number, dtype: self };
        if let Some(format) = Narrow::of(self) {
            return Ok(narrow(format, number));
        }
        if self.is_float() {
            return Ok(match (self, number) {
                (Dtype::F32, Number::Int(i)) => (i as f32).to_bits().into(),
                (Dtype::F32, Number::Float(f)) => (f as f32).to_bits().into(),
                (_, n) => n.to_f64().to_bits(),
            });
        }
        let value = number.to_integer().ok_or_else(out_of_range)?;
        let (low, high) = self.integer_range().ok_or_else(out_of_range)?;
        if value < low || value > high {
            return Err(out_of_range());
        }
        let mask = if self.size() == 8 { u64::MAX } else { (1u64 << (8 * self.size())) - 1 };
        Ok(value as u64 & mask)
    }

    /// The number that the low bytes of a word stand for.
    pub fn decode(self, bits: u64) -> Number {
        match self {
            Dtype::F64 => Number::Float(f64::from_bits(bits)),
            Dtype::F32 => Number::Float(f32::from_bits(bits as u32).into()),
            Dtype::F16 => Number::Float(f64::from(Narrow::F16.to_f32(bits as u16))),
            Dtype::Bf16 => Number::Float(f64::from(Narrow::Bf16.to_f32(bits as u16))),
            Dtype::F8e4m3 => Number::Float(f64::from(Narrow::F8e4m3.to_f32(bits as u16))),
            Dtype::F8e5m2 => Number::Float(f64::from(Narrow::F8e5m2.to_f32(bits as u16))),
            Dtype::I64 => Number::Int((bits as i64).into()),
            Dtype::I32 => Number::Int((bits as i32).into()),
            Dtype::I16 => Number::Int((bits as i16).into()),
            Dtype::I8 => Number::Int((bits as i8).into()),
            Dtype::U64 => Number::Int(bits.into()),
            Dtype::U32 => Number::Int((bits as u32).into()),
            Dtype::U16 => Number::Int((bits as u16).into()),
            Dtype::U8 | Dtype::Bool => Number::Int((bits as u8).into()),
        }
    }

    /// The bits of element `index` of row-major little-endian `bytes`.
    ///
    /// *Panics* when the element lies outside `bytes`.
    pub fn load(self, bytes: &[u8], index: usize) -> u64 {
        let size = self.size();
        let mut word = [0u8; 8];
        word[..size].copy_from_slice(&bytes[index * size..(index + 1) * size]);
        u64::from_le_bytes(word)
    }

    /// Writes the low bytes of `bits` as element `index` of `bytes`.
    ///
    /// *Panics* when the element lies outside `bytes`.
    pub fn store(self, bytes: &mut [u8], index: usize, bits: u64) {
        let size = self.size();
        bytes[index * size..(index + 1) * size].copy_from_slice(&bits.to_le_bytes()[..size]);
    }
}

/// The bits of a number rounded once to a float of 16 or 8 bits.
fn narrow(format: Narrow, number: Number) -> u64 {
    let wide = match number {
        Number::Float(x) => x,
        Number::Int(i) => to_odd(i),
    };
    format.to_bits(format.round(wide)).into()
}

/// An integer as f64, rounded to odd, so that rounding it again to fewer bits rounds as if once.
fn to_odd(value: i128) -> f64 {
    let nearest = value as f64;
    if nearest as i128 == value {
        return nearest;
    }
    let toward_zero = if (nearest as i128).unsigned_abs() > value.unsigned_abs() { f64::from_bits(nearest.to_bits() - 1) } else { nearest };
    f64::from_bits(toward_zero.to_bits() | 1)
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_out_of_range_are_refused_and_in_range_round_trip() {
        for dtype in Dtype::ALL {
            let Some((low, high)) = dtype.integer_range() else { continue };
            for value in [low, high, 0, 1] {
                let bits = dtype.encode(Number::Int(value)).unwrap();
                assert_eq!(dtype.decode(bits), Number::Int(value), "{dtype}");
            }
            assert!(dtype.encode(Number::Int(high + 1)).is_err(), "{dtype}");
            assert!(dtype.encode(Number::Int(low - 1)).is_err(), "{dtype}");
            assert!(dtype.encode(Number::Float(0.5)).is_err(), "{dtype}");
        }
    }

    #[test]
    fn floats_round_to_nearest_even_once() {
        // 2049 lies between 2048 and 2050 in f16; the even mantissa is 2048.
        assert_eq!(Dtype::F16.encode(Number::Float(2049.0)), Ok(0x6800));
        // 257 lies between 256 and 258 in bf16.
        assert_eq!(Dtype::Bf16.encode(Number::Float(257.0)), Ok(0x4380));
        assert_eq!(Dtype::F32.encode(Number::Int((1 << 24) + 1)), Ok(0x4b80_0000));
        assert_eq!(Dtype::F16.encode(Number::Float(1e9)), Ok(0x7c00));
        // The middle of 448 and what would be 480 is even at 448; beyond it is the NaN of its sign, as is infinity.
        for (x, bits) in [(464.0, 0x7e), (464.0f64.next_up(), 0x7f), (-1e9, 0xff), (f64::INFINITY, 0x7f), (-f64::NAN, 0xff)] {
            assert_eq!(Dtype::F8e4m3.encode(Number::Float(x)), Ok(bits), "{x}");
        }
        for (x, bits) in [(61440.0f64.next_down(), 0x7b), (61440.0, 0x7c), (-1e9, 0xfc), (f64::NAN, 0x7e)] {
            assert_eq!(Dtype::F8e5m2.encode(Number::Float(x)), Ok(bits), "{x}");
        }
        assert_eq!(Dtype::F8e4m3.encode(Number::Int(-(1 << 100))), Ok(0xff));
        // Just above the middle of two values, by less than f32 holds: rounded twice it would go down.
        assert_eq!(Dtype::F16.encode(Number::Float(1.0 + 2f64.powi(-11) + 2f64.powi(-40))), Ok(0x3c01));
        assert_eq!(Dtype::Bf16.encode(Number::Float(1.0 + 2f64.powi(-8) + 2f64.powi(-40))), Ok(0x3f81));
        let middle = (1i128 << 70) + (1 << 62);
        assert_eq!(Dtype::Bf16.encode(Number::Int(middle + 1)), Dtype::Bf16.encode(Number::Int(middle)).map(|b| b + 1));
    }

    #[test]
    fn a_name_names_one_dtype() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::from_name("float"), None);
        for (alias, dtype) in [("float", Dtype::F32), ("uint8_t", Dtype::U8), ("torch.bfloat16", Dtype::Bf16), ("F32", Dtype::F32)] {
            assert_eq!(Dtype::from_alias(alias), Some(dtype));
        }
        assert_eq!(Dtype::from_alias("f23"), None);
    }
}
