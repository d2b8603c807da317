//! `[bench]`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Int, Span};

/// What a round moves and computes, and how its time is measured.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Bench {
    /// Bytes that the steps of a round must move to or from the device's memory, such as `"3 * 4 * n"`. Reports then tell
    /// GB/s, and the share of what the device can do where that is known.
    pub bytes: Option<Int>,
    /// Arithmetic operations of the steps of a round, such as `"2 * m * n * k"`. Reports then tell GFLOP/s.
    pub flops: Option<Int>,
    /// Rounds go on after `rounds.count`, `count` more at a time, until their times add up to this, such as `"2s"`. Every one of
    /// them is checked. Default: `rounds.count` rounds alone; with `rel_error` 500 ms.
    pub min_time: Option<Span>,
    /// Rounds go on until the standard error of their mean time is at most this part of it, such as `0.01` for one per cent;
    /// not for longer than ten times `min_time`.
    pub rel_error: Option<f64>,
    /// The steps of every round find nothing in the device's caches: a memory larger than twice the last one is written
    /// before them. Their times are those of the device's clock, without that. Default: `false`.
    #[serde(default)]
    pub cold: bool,
}
