//! A job, a device's capabilities and options -> a [`Plan`]: plain data that can be printed, compared and tested
//! without a device. `build` goes through it in order: `classify` the tensors, `place` them in memories (`arena`), list
//! the `nodes` of a round, `order` them by hazards, choose the `schedule`.
//!
//! Memory and kernel ids in a plan are its own, counted from 0; the executor maps them to those of a device.

mod arena;
mod build;
mod classify;
mod nodes;
mod order;
mod place;
mod schedule;
mod show;
mod trust;

use serde::{Deserialize, Serialize};

use crate::device::{Node, Place};
use crate::spec::Order;

pub use build::{Options, PlanError, build};
pub use classify::Class;
pub use order::{MOST_EDGES, after_lists};
pub use schedule::{Host, MOST_LANES, Schedule};
pub use show::{bytes, count, nanoseconds, summary};
pub use trust::{GUARD_WORD, Mode, Poison, Trust, guard_bytes, poison_of};

/// How a job runs on a device.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Plan {
    pub job: String,
    pub device: String,
    pub trust: Trust,
    /// Set-up and tear-down around every round.
    pub fresh: bool,
    pub schedule: Schedule,
    /// One per tensor of the job.
    pub tensors: Vec<Placement>,
    pub memories: Vec<Memory>,
    /// Bytes that the host writes once, before any round.
    pub setup: Vec<Upload>,
    /// Run once after the uploads: copies to where the device alone reaches, guard patterns.
    pub setup_nodes: Vec<Node>,
    /// Put carried tensors at their start: before the warm-up and again after it.
    pub start_nodes: Vec<Node>,
    /// Fill outputs with poison at level fast, which has no other: at set-up, and again after the warm-up.
    pub poison_nodes: Vec<Node>,
    /// Per set (or one) and mode, the nodes of a round; see [`Plan::graph`].
    pub graphs: Vec<Vec<Node>>,
    pub sets: u32,
    pub modes: Vec<Mode>,
    pub poison: Vec<Poisoned>,
    /// Bytes between tensors that no tensor ever covers.
    pub zones: Vec<Zone>,
    /// What the host fills every round.
    pub fills: Vec<Fill>,
    /// What the host reads every checked round, in the order of the tensors.
    pub reads: Vec<Read>,
    pub rounds: Rounds,
    pub cost: Cost,
}

/// Which rounds there are, and how they go through the sets.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Rounds {
    /// Those that are run.
    pub count: u64,
    /// Those that are not, because their sets were not chosen.
    pub left_out: u64,
    pub warmup: u64,
    pub order: Order,
}

/// Where one tensor lives, and why there.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Placement {
    pub name: String,
    pub bytes: u64,
    pub class: Class,
    /// `None`: no device memory.
    pub home: Option<Home>,
    /// Contents that the device copies from at the start of a round, or reads in place: one per set, or one.
    pub pristine: Vec<Home>,
    /// Why this class.
    pub reason: String,
    /// First and last step that uses it, in the unrolled list.
    pub steps: Option<(u32, u32)>,
}

/// An address in a plan's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Home {
    pub memory: u32,
    pub offset: u64,
}

/// One device memory.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Memory {
    pub name: &'static str,
    pub place: Place,
    pub bytes: u64,
    /// Every slot has its own.
    pub per_slot: bool,
}

/// Contents of a tensor (in a set) that the host writes once.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Upload {
    pub tensor: usize,
    pub set: u32,
    pub to: Home,
    pub bytes: u64,
}

/// Contents of a tensor that the host writes every round.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Fill {
    pub tensor: usize,
    pub to: Home,
    pub bytes: u64,
    /// Size of one element.
    pub element: u32,
    /// Kernels read these very bytes, so they are hashed when filled and again when checked.
    pub bound: bool,
}

/// Where the host finds a checked tensor after a round.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Read {
    pub tensor: usize,
    pub from: Home,
    pub bytes: u64,
}

/// A tensor that is poisoned before it is written.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Poisoned {
    pub tensor: usize,
    /// Index of the variable that holds its pattern.
    pub var: u16,
    /// In full in every round, whatever the mode: a check says that all of it must be written.
    pub always: bool,
}

/// Bytes between tensors, filled with the guard pattern at set-up.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Zone {
    /// Where the device has it.
    pub at: Home,
    /// Where the host reads it: the same, or its copy.
    pub read: Home,
    pub bytes: u64,
    /// The tensor that ends where the zone starts, and the one that starts where it ends.
    pub before: Option<usize>,
    pub behind: Option<usize>,
    /// Beside an output: read every round.
    pub near: bool,
}

/// What a plan costs. *Units*: bytes and counts.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    pub setup_upload: u64,
    pub round_upload: u64,
    pub round_download: u64,
    pub round_copied: u64,
    pub round_filled: u64,
    /// Read and written by steps.
    pub round_steps: u64,
    pub launches: u64,
    /// What a loop moves between host and device that uploads every input and fetches every output anew, per round.
    pub naive: u64,
    pub device_peak: u64,
    pub host_peak: u64,
    /// Least time of a round on the device, by the bytes that must move. *Units*: nanoseconds.
    pub lower_bound_ns: u64,
    pub allocs: u64,
    pub loads: u64,
}

impl Plan {
    /// Index into `graphs`.
    pub fn graph(&self, set: u32, mode: usize) -> usize {
        let set = if self.sets > 0 { set as usize } else { 0 };
        set * self.modes.len() + mode
    }

    /// Nodes of a mode's graphs that come after the steps: read-back, and copies of guard zones.
    pub fn trailing(&self, mode: usize) -> usize {
        let mode = &self.modes[mode];
        let reads = self.reads.iter().filter(|r| self.tensors[r.tensor].home.is_some_and(|home| home != r.from)).count();
        reads + self.zones.iter().filter(|z| mode.guards && (mode.all_guards || z.near) && z.at != z.read).count()
    }

    /// Index into `modes` for the round that is run `nth`: the same for any number of lanes and slots. The first three and
    /// the last are in full, as are every 64th and three of 256, as lanes take so many at a time.
    pub fn mode(&self, nth: u64) -> usize {
        if self.modes.len() == 1 {
            return 0;
        }
        let full = nth % 256 < 3 || nth + 1 >= self.rounds.count || nth % 64 == 63;
        if full { 0 } else { 1 + (nth % (self.modes.len() as u64 - 1)) as usize }
    }
}
