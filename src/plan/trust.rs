//! What is spent on not being fooled: poison in outputs, guard patterns between tensors, and in which rounds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job::Job;
use crate::tensor::Dtype;

/// How much is spent on not being fooled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Poison at set-up, and in every round where a check says `written`; guards are not read; inputs are not hashed.
    Fast,
    /// Outputs are poisoned in every round, large ones in part; guards beside them are read in every round; inputs are hashed.
    #[default]
    Standard,
}

impl Trust {
    pub fn name(self) -> &'static str {
        match self {
            Trust::Fast => "fast",
            Trust::Standard => "standard",
        }
    }
}

/// What is poisoned before a round's steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    Nothing,
    Full,
    /// One of 16 equal parts of every output.
    Window(u8),
}

/// A kind of round: rounds of one mode and set replay one graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Mode {
    pub poison: Poison,
    /// All guard zones are read, else those beside outputs.
    pub all_guards: bool,
    /// Any guard zone is read at all.
    pub guards: bool,
}

/// The word that guard zones hold, from the memory's first byte.
pub const GUARD_WORD: u32 = 0xc5a3_7e91;

/// The guard pattern from a byte of a memory on, without end.
pub fn guard_bytes(offset: u64) -> impl Iterator<Item = u8> {
    GUARD_WORD.rotate_right(8 * (offset % 4) as u32).to_le_bytes().into_iter().cycle()
}

/// Windows that a large output is poisoned in, one a round.
pub(super) const WINDOWS: u8 = 16;

/// The word that an output holds before a round writes it.
pub fn poison_of(job: &Job, tensor: usize, round: u64) -> u32 {
    let dtype = job.tensors[tensor].dtype;
    let nan_passes = dtype == Dtype::F8e4m3 && job.checks.iter().any(|c| c.tensor == tensor && c.tolerance.nan_equal);
    poison_word(dtype, nan_passes, round)
}

/// The word that an output of a dtype holds before the round writes it: a NaN with a payload for floats, a value
/// far from what kernels produce for integers. It alternates with the round, so that what an earlier round
/// left is not taken for this round's poison.
///
/// f8e4m3 has one NaN per sign, which a kernel may well write. Where NaN may pass the check of such an output
/// (`nan_passes`), the word holds numbers instead, so that what was never written fails where NaN is expected.
fn poison_word(dtype: Dtype, nan_passes: bool, round: u64) -> u32 {
    let parity = (round & 1) as u32;
    match dtype {
        // The word stands in both halves; as the high half it is a NaN.
        Dtype::F64 => 0x7ffa_b1e4 ^ (parity * 0x11),
        Dtype::F32 => 0x7fda_b1e4 ^ (parity * 0x11),
        Dtype::F16 => 0x7eb1_7eb1 ^ (parity * 0x0011_0011),
        Dtype::Bf16 => 0x7fb1_7fb1 ^ (parity * 0x0011_0011),
        // NaNs of both signs, so that a kernel's NaN is not the poison everywhere.
        Dtype::F8e4m3 if !nan_passes => 0x7fff_7fff ^ (parity * 0x8080_8080),
        // Conversions give 0x7e or 0x7f.
        Dtype::F8e5m2 => 0x7dfd_7dfd ^ (parity * 0x8080_8080),
        Dtype::U8 | Dtype::I8 | Dtype::Bool | Dtype::F8e4m3 => 0xb3b3_b3b3 ^ (parity * 0x1d1d_1d1d),
        Dtype::U16 | Dtype::I16 => 0xb3a5_b3a5 ^ (parity * 0x1d11_1d11),
        _ => 0xb3a5_9c71 ^ (parity * 0x1d11_2b17),
    }
}

/// The modes of a plan: `always_full` where all outputs are poisoned in every round, `outputs` where there are any.
pub(super) fn modes(trust: Trust, always_full: bool, outputs: bool) -> Vec<Mode> {
    if trust == Trust::Fast {
        return vec![Mode { poison: Poison::Nothing, all_guards: false, guards: false }];
    }
    let full = if outputs { Poison::Full } else { Poison::Nothing };
    let first = Mode { poison: full, all_guards: true, guards: true };
    let mut modes = vec![first];
    if always_full || !outputs {
        modes.push(Mode { all_guards: false, ..first });
    } else {
        modes.extend((0..WINDOWS).map(|w| Mode { poison: Poison::Window(w), all_guards: false, guards: true }));
    }
    modes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poison_of_floats_is_nan_and_alternates() {
        for dtype in Dtype::ALL {
            let (even, odd) = (poison_word(dtype, false, 0), poison_word(dtype, false, 1));
            assert_ne!(even, odd, "{dtype}");
            assert_eq!(poison_word(dtype, false, 2), even, "{dtype}");
            for word in [even, odd] {
                let bytes: Vec<u8> = word.to_le_bytes().repeat(2);
                for index in 0..8 / dtype.size() {
                    let value = dtype.decode(dtype.load(&bytes, index));
                    assert_eq!(value.is_nan(), dtype.is_float(), "{dtype}");
                    if dtype == Dtype::F8e4m3 {
                        assert!(!dtype.decode(dtype.load(&poison_word(dtype, true, 0).to_le_bytes(), 0)).is_nan());
                    }
                    if dtype == Dtype::Bool {
                        assert!(value.to_integer().is_some_and(|v| v > 1));
                    }
                }
            }
        }
    }
}
