//! A job, a device's capabilities and options -> a [`Plan`]: plain data that can be printed, compared and tested
//! without a device. `build` goes through it in order: `classify` the tensors, `place` them in memories (`arena`), with
//! copies of views that cannot be bound (`stage`), choose the `schedule` and the `batch` of rounds, `fit` it into the limits with what the `host`
//! holds, list the `nodes` of a round and `order` them by hazards. `show` and `graph` print it.
//!
//! Memory and kernel ids in a plan are its own, counted from 0; the executor maps them to those of a device.

mod arena;
mod batch;
mod build;
mod classify;
mod fit;
mod graph;
mod host;
mod nodes;
mod order;
mod place;
mod schedule;
mod show;
mod stage;
mod trust;

use serde::{Deserialize, Serialize};

use crate::device::{Node, Place};
use crate::job::{Job, Stopping};
use crate::spec::Order;

pub use batch::MOST_BATCH;
pub use build::{Options, PlanError, build};
pub use classify::Class;
pub use fit::{Rung, TooLarge};
pub use graph::{Edge, Graph, GraphNode, Reason};
pub use host::MOST_AHEAD;
pub use order::{Hazard, HazardKind, MOST_EDGES, after_lists, explain};
pub use schedule::{Host, MOST_LANES, Schedule};
pub use show::{bytes, count, nanoseconds, summary};
pub use trust::{GUARD_WORD, MOST_GRAPHS, MOST_NODES, Mode, Poison, Trust, guard_bytes, poison_of};

/// How a job runs on a device.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Plan {
    pub job: String,
    pub device: String,
    pub trust: Trust,
    /// Set-up and tear-down around every round.
    pub fresh: bool,
    pub schedule: Schedule,
    /// What was given up to save memory, in this order.
    pub rungs: Vec<Rung>,
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
    /// Per number of rounds at once, set (or one) and mode, the nodes of those rounds; see [`Plan::graph`].
    pub graphs: Vec<Vec<Node>>,
    /// How many rounds there are graphs for: a whole batch, what is left of the rounds, a round of the warm-up.
    pub batches: Vec<u32>,
    pub sets: u32,
    pub modes: Vec<Mode>,
    /// Why there are fewer modes than there could be.
    pub fewer_modes: Option<String>,
    /// By step and argument: views that launches are given a copy of.
    pub staged: Vec<Staged>,
    pub poison: Vec<Poisoned>,
    /// Bytes between tensors that no tensor ever covers.
    pub zones: Vec<Zone>,
    /// What the host fills every round.
    pub fills: Vec<Fill>,
    /// What the host reads every checked round, in the order of the tensors.
    pub reads: Vec<Read>,
    pub rounds: Rounds,
    pub flush: Option<Flush>,
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
    /// When there are more than `count`: as many again each time, until their times are known well enough.
    pub more: Option<Stopping>,
    /// The most that there may be.
    pub most: u64,
}

impl Rounds {
    /// Whether the round that is run `nth` may be the last one: the end of every `count`.
    pub fn is_last(&self, nth: u64) -> bool {
        (nth + 1).is_multiple_of(self.count)
    }

    /// Whether so many rounds are all that there are.
    pub fn are_all(&self, run: u64) -> bool {
        match self.more {
            None => run == self.count,
            Some(_) => (self.count..=self.most).contains(&run) && run.is_multiple_of(self.count),
        }
    }
}

/// A memory that is written before the steps of a round, so that they find nothing in the device's caches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Flush {
    pub memory: u32,
    pub bytes: u64,
    /// Why so many bytes.
    pub reason: String,
}

/// Where one tensor lives, and why there.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Placement {
    pub name: String,
    /// On the device, padding between rows included.
    pub bytes: u64,
    /// Its rows of three elements are spaced by four on the device.
    pub spaced: bool,
    pub class: Class,
    /// `None`: no device memory.
    pub home: Option<Home>,
    /// Contents that the device copies from at the start of a round, or reads in place: one per set, or one.
    pub pristine: Vec<Home>,
    /// Copies of its contents that the host holds for expectations: one per set, one, or none.
    pub held: u32,
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

/// A view that the device cannot bind where it lies: the launch is given a copy, which is filled before it. One that the
/// launch may write is filled too, so that what it leaves out stays as it was when all is put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Staged {
    pub step: u32,
    /// Index of the argument.
    pub arg: u32,
    pub tensor: usize,
    /// Where the view starts in the tensor. *Units*: bytes.
    pub offset: u64,
    pub bytes: u64,
    /// Where the copy is.
    pub at: Home,
    /// The copy is put back after the launch, which may write it.
    pub back: bool,
    /// What `offset` would have to be a multiple of.
    pub alignment: u64,
}

/// One device memory.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Memory {
    pub name: &'static str,
    pub place: Place,
    pub bytes: u64,
    /// Every slot has its own, with a part for each round of a batch.
    pub per_slot: bool,
    /// From one round's part to that of the next. *Units*: bytes.
    pub stride: u64,
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
    /// Size of one element.
    pub element: u32,
}

/// A tensor that is poisoned before it is written.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Poisoned {
    pub tensor: usize,
    /// Index of the variable that holds its pattern.
    pub var: u16,
    /// In full in every round, whatever the mode: a check says that all of it must be written.
    pub always: bool,
    /// The host writes it while it has the memory, which costs less than a command.
    pub by_host: bool,
}

impl Poisoned {
    /// The bytes of a tensor of so many that are poisoned in a round of a mode.
    pub fn range(&self, bytes: u64, mode: &Mode) -> std::ops::Range<u64> {
        match mode.poison {
            Poison::Full => 0..bytes,
            _ if self.always => 0..bytes,
            Poison::Nothing => 0..0,
            Poison::Window { part, of } => nodes::window(bytes, part, of),
        }
    }
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
    /// All memories that lie on the device.
    pub device_peak: u64,
    /// All that lies on the host: memories that it reaches and what it holds beside them, but for mapped files.
    pub host_peak: u64,
    /// Least time of a round on the device, by the bytes that must move. *Units*: nanoseconds.
    pub lower_bound_ns: u64,
    pub allocs: u64,
    pub loads: u64,
}

impl Plan {
    /// Index into `graphs` for so many rounds at once, of a number in `batches`.
    pub fn graph(&self, rounds: u32, set: u32, mode: usize) -> usize {
        let set = if self.sets > 0 { set as usize } else { 0 };
        let at = self.batches.iter().position(|of| *of == rounds).unwrap_or(self.batches.len());
        (at * self.sets.max(1) as usize + set) * self.modes.len() + mode
    }

    /// Where a round of a batch has what the first one has at an address.
    pub fn at(&self, home: Home, position: u32) -> Home {
        let memory = &self.memories[home.memory as usize];
        let apart = if memory.per_slot { memory.stride * u64::from(position) } else { 0 };
        Home { offset: home.offset + apart, ..home }
    }

    /// Rounds of a batch run one after the other, as each starts from what the one before it left.
    pub fn by_round(&self) -> bool {
        self.tensors.iter().any(|t| t.class == Class::Carried)
    }

    /// Which round of so many at once a node of their graph is of, and which node of that round's it is.
    pub fn round_of(&self, rounds: u32, nodes: usize, node: usize) -> (u32, usize) {
        let rounds = rounds.max(1) as usize;
        let own = (nodes / rounds).max(1);
        if self.by_round() { ((node / own) as u32, node % own) } else { ((node % rounds) as u32, node / rounds) }
    }

    /// How many nodes the graph of so many rounds at once has.
    pub fn node_count(&self, rounds: u32, set: u32, mode: usize) -> usize {
        let batch = self.schedule.batch.max(1);
        self.graphs.get(self.graph(batch, set, mode)).map_or(0, Vec::len) / batch as usize * rounds as usize
    }

    /// The nodes of the first rounds of a whole batch, as if there were no others.
    pub fn first_rounds(&self, rounds: u32, set: u32, mode: usize) -> Vec<Node> {
        let batch = self.schedule.batch.max(1);
        let Some(nodes) = self.graphs.get(self.graph(batch, set, mode)) else { return Vec::new() };
        let place = |node: usize| {
            let (position, own) = self.round_of(batch, nodes.len(), node);
            let (each, at, rounds) = (nodes.len() / batch as usize, position as usize, rounds as usize);
            (at < rounds).then(|| (if self.by_round() { at * each + own } else { own * rounds + at }) as u32)
        };
        let alone = |(index, node): (usize, &Node)| {
            let after = || node.after.iter().filter_map(|&after| place(after as usize)).collect();
            place(index).map(|_| Node { cmd: node.cmd.clone(), after: after() })
        };
        nodes.iter().enumerate().filter_map(alone).collect()
    }

    /// What poison alternates by: the round, or the batch where there are several rounds in one, as it is the same for all
    /// of them. `nth` is the round's place among those that are run.
    pub fn turn(&self, nth: u64, round: u64) -> u64 {
        match self.schedule.batch {
            0 | 1 => round,
            batch => {
                let (count, batch) = (self.rounds.count.max(1), u64::from(batch));
                nth / count * count.div_ceil(batch) + nth % count / batch
            }
        }
    }

    /// *Units*: bytes of all memories, of all lanes and slots.
    pub fn allocated(&self) -> u64 {
        let slots = u64::from(self.schedule.slots) * u64::from(self.schedule.lanes);
        self.memories.iter().map(|m| m.bytes * if m.per_slot { slots } else { 1 }).sum()
    }

    /// The step that a node of a round of a mode belongs to, where `nodes` and `steps` are how many there are. The copies of
    /// staged views belong to their step.
    pub fn step_of(&self, mode: usize, nodes: usize, steps: usize, node: usize) -> Option<usize> {
        let before = nodes.checked_sub(self.trailing(mode) + steps + self.staged.iter().map(|s| 1 + usize::from(s.back)).sum::<usize>())?;
        let at = node.checked_sub(before)?;
        let mut extra = 0;
        for here in self.staged.chunk_by(|a, b| a.step == b.step) {
            let step = here[0].step as usize;
            if at < step + extra {
                break;
            }
            let more = here.iter().map(|s| 1 + usize::from(s.back)).sum::<usize>();
            if at <= step + extra + more {
                return Some(step);
            }
            extra += more;
        }
        Some(at - extra).filter(|&step| step < steps)
    }

    /// Where a node of a round of a mode stands, of so many, in words.
    pub fn at_node(&self, job: &Job, mode: usize, nodes: usize, node: usize) -> String {
        let step = self.step_of(mode, nodes, job.steps.len(), node);
        match step.and_then(|step| Some((step, job.step_in_words(step)?))) {
            Some((step, words)) => format!("in step {step}, {words}"),
            None if node >= nodes.saturating_sub(self.trailing(mode)) => "after the steps, while outputs are copied".to_string(),
            None => "before the steps, while tensors are put at their start".to_string(),
        }
    }

    /// What lies in a memory, the largest first, in words.
    pub fn held_in(&self, memory: u32) -> String {
        const MOST: usize = 4;
        let mut held: Vec<(u64, &str)> = Vec::new();
        for placement in &self.tensors {
            let homes = placement.home.iter().chain(&placement.pristine).filter(|home| home.memory == memory).count() as u64;
            held.extend((homes > 0).then_some((homes * placement.bytes, placement.name.as_str())));
        }
        let inputs = self.fills.iter().map(|fill| (fill.tensor, fill.to)).chain(self.setup.iter().map(|upload| (upload.tensor, upload.to)));
        for (tensor, home) in inputs.chain(self.reads.iter().map(|read| (read.tensor, read.from))) {
            let name = self.tensors[tensor].name.as_str();
            if home.memory == memory && held.iter().all(|(_, held)| *held != name) {
                held.push((self.tensors[tensor].bytes, name));
            }
        }
        held.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut words: Vec<String> = held.iter().take(MOST).map(|(bytes, name)| format!("`{name}` ({bytes} bytes)")).collect();
        if held.len() > MOST {
            words.push(format!("{} more", held.len() - MOST));
        }
        if words.is_empty() { "copies and guards alone".to_string() } else { words.join(", ") }
    }

    /// Nodes of a round of a mode that come after the steps: read-back, and copies of guard zones.
    pub fn trailing(&self, mode: usize) -> usize {
        let reads = self.reads.iter().filter(|r| self.tensors[r.tensor].home.is_some_and(|home| home != r.from)).count();
        reads + self.guard_reads(mode)
    }

    /// Copies of guard zones in a round of a mode: its last nodes.
    pub fn guard_reads(&self, mode: usize) -> usize {
        let mode = &self.modes[mode];
        self.zones.iter().filter(|z| mode.guards && (mode.all_guards || z.near) && z.at != z.read).count()
    }

    /// Index into `modes` for the round that is run `nth`: the same for any number of lanes and slots. The first three and
    /// the last of every `rounds.count` are in full, as are every 64th and three of 256, as lanes take so many at a time.
    pub fn mode(&self, nth: u64) -> usize {
        if self.modes.len() == 1 {
            return 0;
        }
        let full = nth % 256 < 3 || self.rounds.is_last(nth) || nth % 64 == 63;
        if full { 0 } else { 1 + (nth % (self.modes.len() as u64 - 1)) as usize }
    }
}
