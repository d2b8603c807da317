//! How many lanes run rounds side by side, how many slots each has in flight, how many rounds a slot takes, and whether the host fills and checks in
//! the thread that submits or on a pool.

use serde::{Deserialize, Serialize};

use crate::device::Caps;

/// Where the host fills and checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// In the thread that submits.
    Inline,
    /// In chunks on all threads of a pool.
    Pool,
}

/// The shape of the executor's loop.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Schedule {
    /// Threads that each run rounds of their own, with a device instance and slots of their own.
    pub lanes: u32,
    /// Batches of rounds that a lane has in flight, each with its own buffers.
    pub slots: u32,
    /// Rounds that are submitted at once; the last ones may be fewer.
    pub batch: u32,
    /// Rounds that a lane takes at a time.
    pub deal: u64,
    pub host: Host,
    pub reason: String,
}

/// The most lanes that a job may have.
pub const MOST_LANES: u64 = 64;

/// What the choice depends on.
pub(super) struct Load {
    /// Bytes that the host fills and reads in a round.
    pub host_bytes: u64,
    /// Bytes that the device moves in a round.
    pub device_bytes: u64,
    /// Blocks of the launch with the most of them.
    pub widest: u64,
    /// Launches of a round.
    pub launches: u64,
    pub rounds: u64,
    /// Why there can be one lane alone.
    pub alone: Option<&'static str>,
}

/// Rounds in flight where they hide something.
pub(super) const SLOTS: u32 = 3;

/// Rounds below this many bytes are not worth a pool: handing work over costs more than doing it.
const INLINE_BYTES: u64 = 512 << 10;

/// The most rounds that a lane takes at a time: few enough that lanes end together, so many that dealing costs nothing.
const DEAL: u64 = 256;

/// Rounds for each lane below which another thread is not worth its start.
const ROUNDS_PER_LANE: u64 = 16;

/// Rounds that a lane takes at a time.
pub(super) fn deal(rounds: u64, lanes: u32) -> u64 {
    match lanes {
        0 | 1 => rounds,
        _ => (rounds / (4 * u64::from(lanes))).clamp(1, DEAL),
    }
}

/// Whether one thread fills and checks rounds faster than several would.
pub(super) fn is_small(caps: &Caps, load: &Load) -> bool {
    load.host_bytes + if caps.shares_cores { load.device_bytes } else { 0 } < INLINE_BYTES
}

/// The schedule for a load. Small rounds of a device without a submit cost gain nothing from rounds in flight; where one
/// has a cost, rounds in flight hide it. Large ones overlap with the host's work where the device has cores of its own, or
/// leaves some of the host's idle.
pub(super) fn choose(caps: &Caps, load: &Load) -> Schedule {
    let make = |slots, host, reason: &str| Schedule { lanes: 1, slots, batch: 1, deal: load.rounds, host, reason: reason.to_string() };
    let is_small = is_small(caps, load);
    if is_small && caps.submit_ns < 1000 {
        let lanes = u64::from(caps.lanes).min(load.rounds / ROUNDS_PER_LANE).clamp(1, MOST_LANES) as u32;
        let one = make(1, Host::Inline, "small rounds: fill, run and check in one thread, in cache");
        return match load.alone {
            _ if lanes == 1 => one,
            Some(why) => Schedule { reason: format!("{}; one lane: {why}", one.reason), ..one },
            None => Schedule {
                lanes,
                deal: deal(load.rounds, lanes),
                reason: "small rounds: each lane fills, runs and checks its own in one thread, in cache".into(),
                ..one
            },
        };
    }
    if is_small {
        return make(SLOTS, Host::Inline, "rounds in flight hide the cost of submitting");
    }
    if !caps.shares_cores {
        return make(SLOTS, Host::Pool, "the host checks round r-2 and fills r+1 while r-1 and r are on the device");
    }
    if load.widest < u64::from(caps.lanes) {
        return make(SLOTS, Host::Pool, "launches of few blocks leave cores idle: the host fills and checks other rounds meanwhile");
    }
    make(1, Host::Pool, "kernels and host share the cores: each phase takes all of them")
}
