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
    /// One of so many equal parts of every output.
    Window {
        part: u8,
        of: u8,
    },
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

/// Windows that a large output is poisoned in, one a round: the most there are, and fewer where graphs are few.
const WINDOWS: [u8; 4] = [16, 8, 4, 2];

/// The most graphs that a slot has: sets times modes.
pub const MOST_GRAPHS: u64 = 32;

/// The most nodes of all graphs of a slot, beyond one graph: each takes memory, in the plan and on the device.
pub const MOST_NODES: u64 = 1 << 18;

/// The word that an output holds before a round of a turn writes it; see [`super::Plan::turn`].
pub fn poison_of(job: &Job, tensor: usize, turn: u64) -> u32 {
    let dtype = job.tensors[tensor].dtype;
    let nan_passes = dtype == Dtype::F8e4m3 && job.checks.iter().any(|c| c.tensor == tensor && c.tolerance.nan_equal);
    poison_word(dtype, nan_passes, turn)
}

/// The word that an output of a dtype holds before the round writes it: a NaN with a payload for floats, a value
/// far from what kernels produce for integers. It alternates with the turn, so that what an earlier round
/// left is not taken for this round's poison.
///
/// f8e4m3 has one NaN per sign, which a kernel may well write. Where NaN may pass the check of such an output
/// (`nan_passes`), the word holds numbers instead, so that what was never written fails where NaN is expected.
fn poison_word(dtype: Dtype, nan_passes: bool, turn: u64) -> u32 {
    let parity = (turn & 1) as u32;
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

/// The modes of a plan, and what is said of graphs that it does without.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Modes {
    pub modes: Vec<Mode>,
    pub reason: Option<String>,
}

/// What the modes depend on.
#[derive(Clone, Copy)]
pub(super) struct Poisoning {
    pub trust: Trust,
    /// All outputs are poisoned in full in every round.
    pub always_full: bool,
    /// There are outputs.
    pub outputs: bool,
    /// Sets that have graphs of their own; at least 1.
    pub sets: u64,
    /// Nodes of one graph.
    pub nodes: u64,
}

/// The one mode of rounds that are submitted at once: they are tiny, so all of them have everything.
pub(super) fn one_mode(trust: Trust, outputs: bool) -> Modes {
    if trust == Trust::Fast {
        return Modes { modes: vec![Mode { poison: Poison::Nothing, all_guards: false, guards: false }], reason: None };
    }
    let poison = if outputs { Poison::Full } else { Poison::Nothing };
    let reason = "every round has all poison and reads all guards, as one list runs several".to_string();
    Modes { modes: vec![Mode { poison, all_guards: true, guards: true }], reason: Some(reason) }
}

/// The modes of a plan: as many as graphs may be. *Errors*: not even one for every set, and why.
pub(super) fn modes(of: Poisoning) -> Result<Modes, String> {
    let Poisoning { sets, nodes, .. } = of;
    let by_nodes = MOST_NODES / nodes.max(1);
    let limit = if by_nodes < MOST_GRAPHS {
        format!("graphs of {nodes} nodes are at most {by_nodes}, as they take memory")
    } else {
        format!("{sets} sets have graphs of their own, {MOST_GRAPHS} at most")
    };
    let room = match by_nodes.min(MOST_GRAPHS) / sets {
        0 if sets > 1 => return Err(limit),
        room => room.max(1),
    };
    if of.trust == Trust::Fast {
        return Ok(Modes { modes: vec![Mode { poison: Poison::Nothing, all_guards: false, guards: false }], reason: None });
    }
    let full = if of.outputs { Poison::Full } else { Poison::Nothing };
    let first = Mode { poison: full, all_guards: true, guards: true };
    let near = |poison| Mode { poison, all_guards: false, guards: true };
    if room < 2 {
        let reason = format!("every round has all poison and reads all guards: {limit}");
        return Ok(Modes { modes: vec![first], reason: Some(reason) });
    }
    if of.always_full || !of.outputs {
        return Ok(Modes { modes: vec![first, near(full)], reason: None });
    }
    let windows = WINDOWS.into_iter().find(|&windows| u64::from(windows) < room);
    let reason = match windows {
        Some(most) if most == WINDOWS[0] => None,
        Some(fewer) => Some(format!("{fewer} windows of poison instead of {}: {limit}", WINDOWS[0])),
        None => Some(format!("outputs are poisoned in full every round: {limit}")),
    };
    let mut modes = vec![first];
    match windows {
        Some(of) => modes.extend((0..of).map(|part| near(Poison::Window { part, of }))),
        None => modes.push(near(full)),
    }
    Ok(Modes { modes, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_and_their_nodes_are_bounded() {
        for trust in [Trust::Fast, Trust::Standard] {
            for (always_full, outputs) in [(true, true), (false, true), (false, false)] {
                for sets in 1..=16 {
                    for nodes in [0, 1, 10, 1000, 5000, 10_000, 15_420, 15_421, 50_000, 100_000, 262_144, 262_145, 1 << 40] {
                        let Ok(Modes { modes, reason }) = modes(Poisoning { trust, always_full, outputs, sets, nodes }) else {
                            assert!(sets > 1 && sets * nodes > MOST_NODES);
                            continue;
                        };
                        let graphs = modes.len() as u64 * sets;
                        assert!(graphs <= MOST_GRAPHS && (graphs == 1 || graphs * nodes <= MOST_NODES), "{sets} sets, {nodes} nodes");
                        if trust == Trust::Fast {
                            assert_eq!(modes.len(), 1);
                            continue;
                        }
                        let wanted = if always_full || !outputs { 2 } else { 17 };
                        assert_eq!(reason.is_none(), modes.len() == wanted);
                        assert!(modes[0].all_guards && (modes[0].poison == Poison::Full) == outputs);
                        for (at, mode) in modes[1..].iter().enumerate() {
                            let part = Poison::Window { part: at as u8, of: modes.len() as u8 - 1 };
                            assert!(mode.poison == part || modes.len() == 2 && mode.poison == modes[0].poison);
                        }
                    }
                }
            }
        }
        let windows = |sets, nodes| {
            let of = Poisoning { trust: Trust::Standard, always_full: false, outputs: true, sets, nodes };
            modes(of).map(|m| (m.modes.len() - 1, m.reason))
        };
        assert_eq!(windows(1, 100), Ok((16, None)));
        let reason = "4 windows of poison instead of 16: 5 sets have graphs of their own, 32 at most";
        assert_eq!(windows(5, 100), Ok((4, Some(reason.into()))));
        let reason = "outputs are poisoned in full every round: graphs of 100000 nodes are at most 2, as they take memory";
        assert_eq!(windows(1, 100_000), Ok((1, Some(reason.into()))));
        assert_eq!(windows(3, 100_000), Err("graphs of 100000 nodes are at most 2, as they take memory".into()));
    }

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
