//! `[bench]` -> what a round moves and computes as numbers, and when its time is known well enough.

use std::time::Duration;

use serde::Serialize;

use super::Job;
use super::names::Resolver;
use crate::diag::{Diagnostic, Place};
use crate::spec;

/// The time that rounds take at least where a spec asks for an error alone.
const MIN_TIME: Duration = Duration::from_millis(500);

/// How often a job may take the time that it is to take at least.
const LONGEST: u32 = 10;

/// What a round moves and computes, and how its time is measured.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Bench {
    /// That the steps of a round move to or from the device's memory.
    pub bytes: Option<u64>,
    /// Arithmetic operations of the steps of a round.
    pub flops: Option<u64>,
    pub stopping: Option<Stopping>,
    /// The steps of every round find nothing in the device's caches.
    pub cold: bool,
}

/// When rounds beyond those that were asked for end.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Stopping {
    /// What the times of all rounds add up to at least.
    pub min_time: Duration,
    /// The largest standard error of their mean, as a part of it.
    pub rel_error: Option<f64>,
    /// No more rounds are begun this long after the first, whatever is known by then.
    pub longest: Duration,
}

impl Bench {
    /// Whether it asks for anything.
    pub fn is_asked(&self) -> bool {
        *self != Bench::default()
    }
}

impl Job {
    /// Distinct bytes of tensors that the steps of a round can reach.
    pub fn reach(&self) -> u64 {
        let views = self.steps.iter().flat_map(|step| step.action.views().map(|(_, view)| (view.tensor, view.offset, view.len)));
        let mut views: Vec<(usize, u64, u64)> = views.collect();
        views.sort_unstable();
        let (mut bytes, mut at) = (0u64, (usize::MAX, 0));
        for (tensor, offset, len) in views {
            let from = if at.0 == tensor { at.1.max(offset) } else { offset };
            bytes = bytes.saturating_add((offset + len).saturating_sub(from));
            at = (tensor, from.max(offset + len));
        }
        bytes
    }
}

impl Resolver<'_> {
    pub(super) fn bench(&self) -> Bench {
        let at = Place::root().to("bench");
        let asked = &self.spec.bench;
        if *asked != spec::Bench::default() && self.is_of_builds() {
            let message = "the spec has no [[steps]]: its checks are about builds, and there are no rounds to measure";
            let help = "drop it; or write the [[steps]] of a round, and a check of what they compute";
            self.report(Diagnostic::error("no-rounds", at.key(), message).help(help));
            return Bench::default();
        }
        let number =
            |key: &str, value: &Option<spec::Int>| self.int_within(&at.to(key), value.as_ref()?, &format!("`bench.{key}`"), 1, u64::MAX);
        if let Some(error) = asked.rel_error.filter(|error| !(*error > 0.0 && *error < 1.0)) {
            let message = format!("`bench.rel_error` is {error}, it must be above 0 and below 1");
            self.report(Diagnostic::error("out-of-range", at.to("rel_error"), message).help("0.01 is one per cent"));
        }
        let min_time = asked.min_time.map(|span| span.0).or(asked.rel_error.map(|_| MIN_TIME));
        let stopping =
            min_time.map(|min_time| Stopping { min_time, rel_error: asked.rel_error, longest: min_time.saturating_mul(LONGEST) });
        Bench { bytes: number("bytes", &asked.bytes), flops: number("flops", &asked.flops), stopping, cold: asked.cold }
    }
}
