//! Turns floats into narrower ones and back by arithmetic alone, so that loops over them vectorise.
//!
//! Everything here is exact or rounds once, to nearest, ties to even; the same bits on every processor.

use super::Dtype;

/// A float format of 16 or 8 bits. The patterns of 8 bits are in the low byte.
///
/// *Source* of the 8-bit ones: Open Compute Project, 8-bit Floating Point Specification (OFP8), revision 1.0. What it
/// leaves open (overflow, the NaN that a conversion gives) is as the `float8_e4m3fn` and `float8_e5m2` of ml_dtypes have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Narrow {
    F16,
    Bf16,
    /// No infinities; one NaN per sign, which is also what overflow gives.
    F8e4m3,
    /// As IEEE 754 would have it: infinities, and overflow gives them.
    F8e5m2,
}

impl Narrow {
    /// The format of a dtype; `None` for one of at least 32 bits, or that is no float.
    #[inline(always)]
    pub const fn of(dtype: Dtype) -> Option<Narrow> {
        match dtype {
            Dtype::F16 => Some(Narrow::F16),
            Dtype::Bf16 => Some(Narrow::Bf16),
            Dtype::F8e4m3 => Some(Narrow::F8e4m3),
            Dtype::F8e5m2 => Some(Narrow::F8e5m2),
            _ => None,
        }
    }

    /// The bit of the sign.
    pub const fn sign(self) -> u16 {
        match self {
            Narrow::F16 | Narrow::Bf16 => 0x8000,
            Narrow::F8e4m3 | Narrow::F8e5m2 => 0x80,
        }
    }

    /// The value of a bit pattern, exactly.
    #[inline(always)]
    pub fn to_f32(self, bits: u16) -> f32 {
        match self {
            // The high byte of an f16.
            Narrow::F8e5m2 => Narrow::F16.to_f32(bits << 8),
            Narrow::F8e4m3 => {
                let magnitude = u32::from(bits & 0x7F) << 20;
                let finite = (f32::from_bits(magnitude) * f32::from_bits(0x7B80_0000)).to_bits();
                let magnitude = if bits & 0x7F == 0x7F { 0x7FC0_0000 } else { finite };
                f32::from_bits(magnitude | u32::from(bits & 0x80) << 24)
            }
            Narrow::Bf16 => f32::from_bits(u32::from(bits) << 16),
            Narrow::F16 => {
                let magnitude = u32::from(bits & 0x7FFF) << 13;
                // Shifting the exponent's bias by a product also normalises subnormals.
                let finite = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
                let special = magnitude | 0x7F80_0000;
                let magnitude = if bits & 0x7C00 == 0x7C00 { special } else { finite };
                f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
            }
        }
    }

    /// `x` rounded once to this format's values, as f64. NaN stays NaN, overflow is infinity, in `F8e4m3` NaN.
    #[inline(always)]
    pub fn round(self, x: f64) -> f64 {
        // `beyond` is the value that would follow the largest finite one.
        let (mantissa, least, beyond, overflow) = match self {
            Narrow::F16 => (10u64, 1023 - 14, 65536.0, f64::INFINITY),
            Narrow::Bf16 => (7u64, 1023 - 126, 2.0 * (1u128 << 127) as f64, f64::INFINITY),
            Narrow::F8e4m3 => (3u64, 1023 - 6, 480.0, f64::NAN),
            Narrow::F8e5m2 => (2u64, 1023 - 14, 65536.0, f64::INFINITY),
        };
        let bits = x.to_bits();
        let sign = bits & (1 << 63);
        let magnitude = f64::from_bits(bits ^ sign);
        let exponent = ((bits ^ sign) >> 52).max(least);
        // 1.5 * 2^52 units in the last place of the result: adding it leaves no bits below that place.
        let magic = f64::from_bits(((exponent + 52 - mantissa) << 52) | 1 << 51);
        let rounded = (magnitude + magic) - magic;
        // An infinite or NaN `x`, and one so large that `magic` is none, is past the largest finite value.
        let rounded = if magnitude < beyond { rounded } else { magnitude };
        let rounded = if rounded >= beyond { overflow } else { rounded };
        f64::from_bits(rounded.to_bits() | sign)
    }

    /// The bit pattern of a value of this format; what is none of its values gives other bits.
    #[inline(always)]
    pub fn to_bits(self, value: f64) -> u16 {
        let value = value as f32;
        let sign = ((value.to_bits() >> 16) & 0x8000) as u16;
        match self {
            Narrow::F8e5m2 => Narrow::F16.to_bits(f64::from(value)) >> 8,
            Narrow::F8e4m3 => {
                let magnitude = value.abs();
                let finite = ((magnitude * f32::from_bits(0x0380_0000)).to_bits() >> 20) as u16;
                (sign >> 8) | if magnitude < 480.0 { finite } else { 0x7F }
            }
            Narrow::Bf16 => {
                let quiet = if value.is_nan() { 0x40 } else { 0 };
                (value.to_bits() >> 16) as u16 | quiet
            }
            Narrow::F16 => {
                let magnitude = value.abs();
                let finite = ((magnitude * f32::from_bits(0x0780_0000)).to_bits() >> 13) as u16;
                let special = if value.is_nan() { 0x7E00 } else { 0x7C00 };
                sign | if magnitude < 65536.0 { finite } else { special }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn every_16_bit_pattern_widens_as_half_does() {
        for bits in 0..=u16::MAX {
            let pairs = [(Narrow::F16, f16::from_bits(bits).to_f32()), (Narrow::Bf16, bf16::from_bits(bits).to_f32())];
            for (narrow, want) in pairs {
                let got = narrow.to_f32(bits);
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{narrow:?} {bits:#x}");
                if !want.is_nan() {
                    assert_eq!(narrow.to_bits(f64::from(want)), bits, "{narrow:?}");
                    assert_eq!(narrow.round(f64::from(want)).to_bits(), f64::from(want).to_bits());
                } else {
                    assert!(narrow.to_f32(narrow.to_bits(f64::NAN)).is_nan());
                    assert!(narrow.round(f64::from(want)).is_nan());
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_nearest_even_at_every_boundary() {
        for bits in 0..0x7F80u16 {
            for (narrow, low, high) in [
                (Narrow::F16, f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64()),
                (Narrow::Bf16, bf16::from_bits(bits).to_f64(), bf16::from_bits(bits + 1).to_f64()),
            ] {
                if !low.is_finite() {
                    continue;
                }
                // Past the largest finite value the next step would have been to the power of two.
                let high = if high.is_finite() { high } else { low + (low - narrow.to_f32(bits - 1) as f64) };
                let middle = low + (high - low) / 2.0;
                for x in [low, middle.next_down(), middle, middle.next_up()] {
                    let up = if x == middle { bits & 1 == 1 } else { x > middle };
                    assert_eq!(narrow.to_bits(narrow.round(x)), bits + up as u16, "{narrow:?} {x:e}");
                    assert_eq!(narrow.to_bits(narrow.round(-x)), 0x8000 | (bits + up as u16), "{narrow:?} {x:e}");
                }
            }
        }
        for narrow in [Narrow::F8e4m3, Narrow::F8e5m2] {
            for bits in 0..0x80u16 {
                let value = f64::from(narrow.to_f32(bits));
                assert!(narrow.round(value) == value || value.is_nan(), "{narrow:?} {bits:#x}");
                assert!(narrow.to_bits(value) == bits || value.is_nan(), "{narrow:?} {bits:#x}");
                assert!(narrow.to_f32(narrow.to_bits(-value)).is_sign_negative(), "{narrow:?} {bits:#x}");
            }
        }
        for x in [1e300, f64::MAX, f64::INFINITY] {
            assert_eq!(Narrow::F16.round(-x), f64::NEG_INFINITY);
            assert_eq!(Narrow::Bf16.round(x), f64::INFINITY);
        }
        assert_eq!(Narrow::Bf16.round(5e-324).to_bits(), 0);
    }
}
