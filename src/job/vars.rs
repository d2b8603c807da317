//! Values that differ from round to round -> the words of a replay.

use crate::diag::TextError;
use crate::expr::Scalar;
use crate::tensor::{Dtype, Number, RangeError};

/// A value that differs from round to round: one 64-bit word of a replay.
#[derive(Clone, Debug)]
pub struct Var {
    pub text: String,
    pub source: VarSource,
}

#[derive(Clone, Debug)]
pub enum VarSource {
    /// A scalar argument, in the bits of a dtype.
    Scalar { value: Scalar, dtype: Dtype },
    /// The word of a fill, the bits of a dtype repeated to 32.
    Pattern { value: Scalar, dtype: Dtype },
    /// Blocks of a launch.
    Blocks(Scalar),
    /// Where the threads of a launch start to count.
    Offset(Scalar),
    /// Blocks that cover so many threads.
    Threads { value: Scalar, block: u32 },
    /// The one element of a tensor's contents in this round.
    Tensor(usize),
}

/// Why a variable has no value in a round.
#[derive(Clone, PartialEq, Debug)]
pub struct VarError(pub String);

impl From<TextError> for VarError {
    fn from(error: TextError) -> VarError {
        VarError(error.message)
    }
}

impl From<RangeError> for VarError {
    fn from(error: RangeError) -> VarError {
        VarError(error.to_string())
    }
}

impl Var {
    /// The word of a round; `element` gives the bits of a one-element tensor's contents in it.
    ///
    /// *Errors*: division by zero, a value out of the dtype's range, a negative grid.
    pub fn word(&self, round: u64, element: &mut dyn FnMut(usize) -> u64) -> Result<u64, VarError> {
        let blocks = |number: Number| match number.to_integer() {
            Some(n) if (0..=i128::from(u32::MAX)).contains(&n) => Ok(n as u64),
            _ => Err(VarError(format!("`{}` is {number} in round {round}, a grid holds 0 to {}", self.text, u32::MAX))),
        };
        Ok(match &self.source {
            VarSource::Scalar { value, dtype } => dtype.encode(value.eval(round)?)?,
            VarSource::Pattern { value, dtype } => repeat_to_32(dtype.encode(value.eval(round)?)?, *dtype),
            VarSource::Blocks(value) => blocks(value.eval(round)?)?,
            VarSource::Offset(value) => {
                let offset = value.eval(round)?;
                let fits = offset.to_integer().and_then(|n| u32::try_from(n).ok());
                let error = || VarError(format!("`{}` is {offset} in round {round}, an offset is 0 to {}", self.text, u32::MAX));
                u64::from(fits.ok_or_else(error)?)
            }
            VarSource::Threads { value, block } => {
                let threads = value.eval(round)?;
                match threads.to_integer() {
                    Some(n) if n >= 0 => {
                        let block = i128::from(*block);
                        blocks(Number::Int(n / block + i128::from(n % block != 0)))?
                    }
                    _ => return Err(VarError(format!("`{}` is {threads} in round {round}, threads are at least 0", self.text))),
                }
            }
            VarSource::Tensor(tensor) => element(*tensor),
        })
    }
}

/// The bits of an element of at most 4 bytes, repeated to a 32-bit word.
pub(crate) fn repeat_to_32(bits: u64, dtype: Dtype) -> u64 {
    match dtype.size() {
        1 => (bits & 0xff) * 0x0101_0101,
        2 => (bits & 0xffff) * 0x0001_0001,
        _ => bits & 0xffff_ffff,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::scalar;
    use super::*;

    #[test]
    fn blocks_cover_the_threads_and_no_number_overflows() {
        let word = |text: &str| {
            let source = VarSource::Threads { value: scalar(text, crate::expr::Place::Integer), block: 32 };
            Var { text: text.into(), source }.word(0, &mut |_| 0)
        };
        for (text, blocks) in [("0", 0), ("1", 1), ("32", 1), ("33", 2), ("2**37 - 32", u64::from(u32::MAX))] {
            assert_eq!(word(text), Ok(blocks), "{text}");
        }
        assert!(word("2**126 - 1 + 2**126").is_err());
    }
}
