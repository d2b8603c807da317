//! How many rounds are submitted at once. Where one more node of a list costs a device far less than a submission does, tiny
//! rounds come in batches: each has a part of every memory of its slot, and one list runs them all.

use super::build::{Draft, Options, PlanError};
use super::fit::Spared;
use super::nodes::Batch;
use super::schedule::{Load, is_small};
use super::show::{bytes, count, nanoseconds};
use super::trust::MOST_NODES;
use super::{Class, Host};

/// A submission must cost so many times what one more node of a list does.
const SEVERAL: u64 = 4;

/// One part in so many of a batch's time may go to its submission.
const SHARE: u64 = 16;

/// The most rounds of a batch that is not asked for.
const MOST_ROUNDS: u64 = 256;

/// The most rounds of a batch.
pub const MOST_BATCH: u32 = 4096;

/// The most bytes that the rounds of a batch have of their own: what the host fills and reads stays in its caches.
const MOST_BYTES: u64 = 4 << 20;

/// Variables that a list can name.
const MOST_VARS: u64 = 1 << 16;

impl<'a> Draft<'a> {
    /// The draft for as many rounds at once as pay and may be, which are no more than `most`; or this one.
    ///
    /// *Errors*: sets that are uploaded in every round do not fit.
    pub(super) fn batched(self, options: &Options, spared: Spared, most: u32) -> Result<Draft<'a>, PlanError> {
        if options.fresh || self.bench().cold || most <= 1 || !(options.batch.is_some_and(|batch| batch > 1) || self.may_batch(options)) {
            return Ok(self);
        }
        // A batch has rounds of several sets, and one list.
        let spared = Spared { mixed: self.sets_on_device() > 1, ..spared };
        let another = |batch| Draft::new(self.job, self.caps, self.trust, spared, batch);
        let (mut batch, mut reason) = match spared.mixed {
            true => another(1)?.rounds_at_once(options),
            false => self.rounds_at_once(options),
        };
        batch = batch.min(most);
        while batch > 1 {
            match another(batch) {
                Ok(mut draft) => {
                    draft.batch_reason = reason;
                    return Ok(draft);
                }
                Err(PlanError::LargestAlloc { .. }) => {
                    batch /= 2;
                    reason = format!("more do not fit into memories of {}", bytes(self.caps.largest_alloc));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self)
    }

    /// Whether the device gains from batches, and nothing asks for rounds one by one.
    fn may_batch(&self, options: &Options) -> bool {
        let (job, caps) = (self.job, self.caps);
        options.batch.is_none()
            && caps.submit_ns >= SEVERAL * caps.node_ns.max(1)
            && options.lanes.unwrap_or(1) == 1
            && options.host != Some(Host::Pool)
            && !job.compared
            // Rounds of a batch may run side by side.
            && !job.kernels[..job.loads].iter().any(|kernel| kernel.serial)
    }

    /// Rounds of a batch, and why so many.
    fn rounds_at_once(&self, options: &Options) -> (u32, String) {
        let load = self.load(&self.cost(), options);
        let words = self.poison.len() as u64;
        let by_lists = (MOST_NODES / 3 / (self.cmds.len() as u64).max(1)).max(1);
        let by_vars = MOST_VARS.saturating_sub(words) / (self.job.vars.len() as u64).max(1);
        let runs = self.job.runs();
        let most = by_lists.min(by_vars).min(runs).min(MOST_BATCH.into()).max(1);
        if let Some(asked) = options.batch {
            let batch = u64::from(asked).min(most);
            let reason = if batch == u64::from(asked) { "as asked for".into() } else { format!("{asked} were asked for") };
            return (batch as u32, reason);
        }
        if !is_small(self.caps, &load) {
            return (1, String::new());
        }
        let (round_ns, own) = (self.round_ns(&load), self.own_bytes());
        let by_cost = (SHARE * self.caps.submit_ns).div_ceil(round_ns.max(1)).next_power_of_two();
        let slots = u64::from(options.slots.unwrap_or(super::schedule::SLOTS));
        let batch = by_cost.min(MOST_BYTES / own.max(1)).min(MOST_ROUNDS).min(runs / slots.max(1)).min(most);
        // Half of it is a whole number of rounds too.
        let batch = if batch < 2 { 1 } else { 1 << batch.ilog2() };
        let costs = (nanoseconds(self.caps.submit_ns), nanoseconds(round_ns));
        (batch, format!("a submission costs {}, a round of {} at least {}", costs.0, bytes(own), costs.1))
    }

    /// Least time of a round on the device, by the bytes that it moves and the launches of its list. *Units*: nanoseconds.
    fn round_ns(&self, load: &Load) -> u64 {
        (load.device_bytes as f64 / self.caps.bytes_per_ns) as u64 + load.launches * self.caps.node_ns
    }

    /// Bytes that a round has of its own, in all memories of its slot.
    fn own_bytes(&self) -> u64 {
        let homes = self.tensors.iter().filter(|t| t.home.is_some() && t.class != Class::Carried).map(|t| t.bytes);
        let crossing = self.fills.iter().filter(|f| !f.bound).map(|f| f.bytes).chain(self.reads.iter().map(|r| r.bytes));
        homes.chain(crossing).sum()
    }

    /// How many rounds there are lists for, beginning with a whole batch: what is left of the rounds, and a warm-up round.
    pub(super) fn batches(&self) -> Vec<u32> {
        let mut batches = vec![self.batch];
        let rest = (self.job.runs() % u64::from(self.batch)) as u32;
        let warmup = u32::from(self.job.rounds.warmup > 0);
        for rounds in [rest, warmup] {
            if rounds > 0 && !batches.contains(&rounds) {
                batches.push(rounds);
            }
        }
        batches
    }

    /// How nodes of one round become those of a list for so many.
    pub(super) fn list_of(&self, rounds: u32) -> Batch<'_> {
        let by_round = self.tensors.iter().any(|t| t.class == Class::Carried);
        Batch { rounds, by_round, memories: &self.memories, vars: self.job.vars.len() }
    }

    /// The schedule's rounds at once, in words.
    pub(super) fn batch_words(&self) -> Option<String> {
        let rounds = count(self.batch.into(), "round");
        (self.batch > 1).then(|| format!("{rounds} are submitted at once: {}", self.batch_reason))
    }
}
