//! Rounds dealt to lanes, and what the lanes found merged in the order of the rounds: the same report for any number of lanes.
//!
//! Here a round is its place among those that are run; `job::SetOrder` knows its number.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::progress::Progress;
use super::{Stop, Tally};
use crate::device::Counts;
use crate::job::Job;
use crate::plan::Plan;
use crate::verdict::{Event, Failure};

/// What the lanes of a job share.
pub(super) struct Board<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
    /// Rounds from this one on are not run any more.
    limit: AtomicU64,
    inner: Mutex<Inner<'a>>,
    changed: Condvar,
}

struct Inner<'a> {
    events: &'a mut (dyn FnMut(Event) + Send),
    /// Lanes that are set up, and whether one could not be.
    ready: u32,
    failed: bool,
    begun: Option<Instant>,
    /// When the last rounds were merged.
    ended: Option<Instant>,
    /// The first round that no lane has taken.
    next: u64,
    /// Rounds below this one are run.
    granted: u64,
    /// What was found in all rounds below `frontier`.
    tally: Tally,
    frontier: u64,
    /// What was found in rounds that others still come before.
    ahead: Vec<Dealt>,
    /// Tallies to be used again: in the steady state none is made.
    spare: Vec<Tally>,
    /// The stop of the lowest round.
    stop: Option<(u64, Stop)>,
    setup_counts: Counts,
}

/// Rounds that a lane was dealt, and what it found in them.
struct Dealt {
    rounds: Range<u64>,
    tally: Tally,
    /// All of them were run.
    whole: bool,
}

impl<'a> Board<'a> {
    pub fn new(job: &Job, plan: &'a Plan, progress: &'a Progress, events: &'a mut (dyn FnMut(Event) + Send)) -> Board<'a> {
        Board {
            plan,
            progress,
            limit: AtomicU64::new(u64::MAX),
            inner: Mutex::new(Inner {
                events,
                ready: 0,
                failed: false,
                begun: None,
                ended: None,
                next: 0,
                granted: plan.rounds.count,
                tally: Tally::new(job),
                frontier: 0,
                ahead: Vec::with_capacity(plan.schedule.lanes as usize + 1),
                spare: (0..2 * plan.schedule.lanes).map(|_| Tally::new(job)).collect(),
                stop: None,
                setup_counts: Counts::default(),
            }),
            changed: Condvar::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<'a>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of failures when they are found, so that they stand even if a later round crashes.
    pub fn failed(&self, failures: &[Failure]) {
        let mut inner = self.inner();
        for failure in failures {
            (inner.events)(Event::Failed(Box::new(failure.clone())));
        }
    }

    /// Takes what claims about builds came to: each by its place among the checks, with what is wrong, and tells of it.
    pub fn built(&self, found: Vec<(usize, Option<Failure>)>) {
        let mut inner = self.inner();
        for (index, failure) in found {
            let report = &mut inner.tally.checks[index];
            (report.rounds, report.failed_rounds) = (1, u64::from(failure.is_some()));
            if let Some(failure) = failure {
                (inner.events)(Event::Failed(Box::new(failure.clone())));
                inner.tally.failures.push(failure);
            }
        }
    }

    /// Counts device calls that were made for all lanes.
    pub fn set_up(&self, counts: Counts) {
        self.inner().setup_counts += counts;
    }

    /// Waits until every lane is set up: all begin at once, or none does. `setup` are the device calls of this one so far.
    pub fn ready(&self, setup: Counts) -> bool {
        let mut inner = self.inner();
        inner.ready += 1;
        inner.setup_counts += setup;
        while inner.ready < self.plan.schedule.lanes && !inner.failed {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.begun.get_or_insert_with(Instant::now);
        self.changed.notify_all();
        !inner.failed
    }

    /// A lane that could not be set up.
    pub fn not_ready(&self, stop: Stop) {
        let mut inner = self.inner();
        inner.failed = true;
        inner.stop.get_or_insert((0, stop));
        self.changed.notify_all();
    }

    /// The next rounds for a lane, with a tally for them; `explained` rounds were explained by it already.
    pub fn deal(&self, explained: u64) -> Option<(Range<u64>, Tally)> {
        let mut inner = self.inner();
        let begin = inner.next;
        if begin == inner.granted {
            inner.granted += inner.more(self.plan);
        }
        // Those of one lane alone are measured: it takes all at a time.
        let deal = if self.plan.rounds.more.is_some() { u64::MAX } else { self.plan.schedule.deal };
        let end = begin.saturating_add(deal).min(inner.granted);
        if begin >= end || begin >= self.limit.load(Ordering::Relaxed) {
            return None;
        }
        inner.next = end;
        let mut tally = inner.spare.pop().unwrap_or_else(|| inner.tally.blank());
        tally.clear();
        tally.explained = explained;
        Some((begin..end, tally))
    }

    /// Whether a round is still to be run.
    pub fn runs(&self, round: u64) -> bool {
        round < self.limit.load(Ordering::Relaxed)
    }

    /// Takes what a lane found in the rounds that it was dealt, and why it stopped before their end.
    pub fn merge(&self, rounds: Range<u64>, mut tally: Tally, stop: Option<(u64, Stop)>) {
        let mut inner = self.inner();
        inner.ended = Some(Instant::now());
        let whole = stop.is_none() && tally.run == rounds.end - rounds.start;
        if let Some((round, stop)) = stop {
            let beats = match (&inner.stop, &stop) {
                (None, _) | (Some((_, Stop::Interrupted)), Stop::Device(_)) => true,
                (Some((lowest, Stop::Device(_))), Stop::Device(_)) => round < *lowest,
                (Some(_), Stop::Interrupted) => false,
            };
            if matches!(stop, Stop::Device(_)) {
                self.limit.fetch_min(round, Ordering::Relaxed);
            }
            if beats {
                inner.stop = Some((round, stop));
            }
        }
        // Those that are explained here, not by the lane so far.
        tally.explained = tally.failures.chunk_by(|a, b| a.round == b.round).count() as u64;
        inner.add(Dealt { rounds, tally, whole });
        inner.advance();
        self.progress.verified(inner.frontier);
    }

    /// What goes wrong when a lane's rounds are over.
    pub fn after_all(&self, stop: Stop) {
        self.inner().stop.get_or_insert((u64::MAX, stop));
    }

    /// What all lanes found, once they have ended.
    pub fn end(self) -> (Outcome, &'a mut (dyn FnMut(Event) + Send)) {
        let mut inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        // After a failure the rounds behind it count as not run, whatever became of them: with one lane they would not be.
        let failed_at = match &inner.stop {
            Some((round, Stop::Device(_))) => *round,
            _ => u64::MAX,
        };
        let mut ahead = std::mem::take(&mut inner.ahead);
        ahead.sort_by_key(|dealt| dealt.rounds.start);
        for dealt in ahead.iter().filter(|dealt| dealt.rounds.start <= failed_at) {
            inner.tally.merge(&dealt.tally);
        }
        let total = inner.begun.zip(inner.ended).map_or(0, |(begun, ended)| (ended - begun).as_nanos() as u64);
        let outcome = Outcome {
            tally: inner.tally,
            granted: inner.granted,
            stop: inner.stop.map(|(_, stop)| stop),
            begun: inner.begun,
            total,
            setup_counts: inner.setup_counts,
        };
        (outcome, inner.events)
    }
}

impl Inner<'_> {
    /// How many rounds more are run, once all that were dealt are merged. None after one that failed: its time is no result.
    fn more(&self, plan: &Plan) -> u64 {
        let (Some(rule), Some(begun)) = (&plan.rounds.more, self.begun) else { return 0 };
        if self.frontier != self.granted || self.tally.failed_rounds > 0 || self.stop.is_some() {
            return 0;
        }
        let rounds = &plan.rounds;
        self.tally.samples.more(rule, self.granted, rounds.count, rounds.most, begun.elapsed())
    }

    /// Keeps what was found; neighbours become one, so that there are never more than lanes.
    fn add(&mut self, mut dealt: Dealt) {
        let before = |other: &Dealt| other.whole && other.rounds.end == dealt.rounds.start;
        if let Some(at) = self.ahead.iter().position(before) {
            let mut earlier = self.ahead.swap_remove(at);
            earlier.tally.merge(&dealt.tally);
            self.spare.push(std::mem::replace(&mut dealt.tally, earlier.tally));
            dealt.rounds.start = earlier.rounds.start;
        }
        let behind = |other: &Dealt| dealt.whole && other.rounds.start == dealt.rounds.end;
        if let Some(at) = self.ahead.iter().position(behind) {
            let later = self.ahead.swap_remove(at);
            dealt.tally.merge(&later.tally);
            self.spare.push(later.tally);
            (dealt.rounds.end, dealt.whole) = (later.rounds.end, later.whole);
        }
        self.ahead.push(dealt);
    }

    /// Merges what continues the rounds without a gap.
    fn advance(&mut self) {
        while let Some(at) = self.ahead.iter().position(|dealt| dealt.whole && dealt.rounds.start == self.frontier) {
            let Dealt { rounds, tally, .. } = self.ahead.swap_remove(at);
            self.tally.merge(&tally);
            self.spare.push(tally);
            self.frontier = rounds.end;
        }
    }
}

/// What the rounds of a job came to.
pub(super) struct Outcome {
    pub tally: Tally,
    /// Rounds that were to be run.
    pub granted: u64,
    pub stop: Option<Stop>,
    pub begun: Option<Instant>,
    /// From the first round's start to the last round's end. *Units*: nanoseconds.
    pub total: u64,
    /// Device calls of the lanes before their rounds.
    pub setup_counts: Counts,
}
