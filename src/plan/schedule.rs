//! How many slots are in flight, and whether the host fills and checks in the calling thread or on a pool.

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
    /// Rounds in flight, each with its own buffers.
    pub slots: u32,
    pub host: Host,
    pub reason: String,
}

/// What the choice depends on.
pub(super) struct Load {
    /// Bytes that the host fills and reads in a round.
    pub host_bytes: u64,
    /// Bytes that the device moves in a round.
    pub device_bytes: u64,
    /// Blocks of the launch with the most of them.
    pub widest: u64,
}

/// Rounds below this many bytes are not worth a pool: handing work over costs more than doing it.
const INLINE_BYTES: u64 = 512 << 10;

/// The schedule for a load. Devices without a submit cost gain nothing from rounds in flight, unless their kernels
/// leave cores idle that could fill and check.
pub(super) fn choose(caps: &Caps, load: &Load) -> Schedule {
    let make = |slots, host, reason: &str| Schedule { slots, host, reason: reason.to_string() };
    if caps.submit_ns < 1000 {
        if load.host_bytes + load.device_bytes < INLINE_BYTES {
            return make(1, Host::Inline, "small rounds: fill, run and check in one thread, in cache");
        }
        if load.widest < u64::from(caps.lanes) {
            return make(3, Host::Pool, "launches of few blocks leave cores idle: the host fills and checks other rounds meanwhile");
        }
        return make(1, Host::Pool, "kernels and host share the cores: each phase takes all of them");
    }
    if load.host_bytes < INLINE_BYTES {
        return make(3, Host::Inline, "rounds in flight hide the cost of submitting");
    }
    make(3, Host::Pool, "the host checks round r-2 and fills r+1 while r-1 and r are on the device")
}
