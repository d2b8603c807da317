//! Turns expectations into the bits that a dtype holds for them: rounded once.

use std::fmt;

use crate::tensor::{Dtype, Number};

/// The bits of an expectation rounded once to a dtype, to nearest, ties to even. For integers that do not fit: 0.
pub(super) fn round_to_bits(dtype: Dtype, want: Number) -> u64 {
    dtype.encode(want).unwrap_or(0)
}

/// A float in a message: plain where that is short, with an exponent where it is not.
pub(super) struct Wide(pub f64);

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Number::Float(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_dtypes_round_once() {
        // Just above the middle of two bf16 values, by less than f32 holds.
        let middle = 1.0 + 2f64.powi(-8);
        let bf16 = |want| round_to_bits(Dtype::Bf16, want);
        assert_eq!(bf16(Number::Float(middle)), 0x3F80);
        assert_eq!(bf16(Number::Float(middle.next_up())), 0x3F81);
        assert_eq!(round_to_bits(Dtype::F16, Number::Float((1.0 + 2f64.powi(-11)).next_up())), 0x3C01);
        // 2^70 + 2^62 is the middle of two bf16 values; one more is beyond it.
        let middle = (1i128 << 70) + (1 << 62);
        assert_eq!(bf16(Number::Int(middle)) + 1, bf16(Number::Int(middle + 1)));
        assert_eq!(bf16(Number::Int(middle)), bf16(Number::Int(middle - 1)));
        assert_eq!(bf16(Number::Int(-middle)) + 1, bf16(Number::Int(-middle - 1)));
        assert_eq!(round_to_bits(Dtype::F32, Number::Int((1 << 24) + 1)), 0x4B80_0000);
    }
}
