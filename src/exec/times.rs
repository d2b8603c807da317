//! Times of single rounds -> their mean, spread and median, in a fixed amount of memory; and whether more rounds are needed.

use std::time::Duration;

use super::Tally;
use crate::device::Peak;
use crate::job::{Job, Stopping};
use crate::plan::Plan;
use crate::verdict::{Rates, Spread, StepTime, Stopped, TimeOf};

/// Times that are kept for the median; of more, every second, fourth, ...
const KEPT: usize = 1024;

/// Times without which nothing is said of the error of their mean.
const LEAST: u64 = 10;

/// Times of rounds, or of batches of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// What they are times of: that of the first one, and others are left out.
    of: Option<TimeOf>,
    /// Times, and the rounds that they are of.
    count: u64,
    rounds: u64,
    total: u64,
    /// Of the time of one round: mean, sum of squares of distances to it, least. *Units*: nanoseconds.
    mean: f64,
    squares: f64,
    min: f64,
    /// One in so many is kept.
    stride: u64,
    kept: Vec<f64>,
}

impl Samples {
    /// None yet, with room for those that are kept.
    pub fn new() -> Samples {
        Samples { kept: Vec::with_capacity(KEPT), ..Samples::default() }
    }

    /// Takes all out; room stays.
    pub fn clear(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        *self = Samples { kept, ..Samples::default() };
    }

    /// Adds the time of so many rounds that were timed as one. *Units*: nanoseconds.
    pub fn add(&mut self, of: TimeOf, time: u64, rounds: u64) {
        if rounds == 0 || *self.of.get_or_insert(of) != of {
            return;
        }
        let each = time as f64 / rounds as f64;
        if self.count.is_multiple_of(self.stride.max(1)) {
            self.keep(each);
        }
        self.min = if self.count == 0 { each } else { self.min.min(each) };
        self.count += 1;
        (self.rounds, self.total) = (self.rounds + rounds, self.total + time);
        let distance = each - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (each - self.mean);
    }

    /// Adds other times of the same kind. *Source*: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
    /// computing sample variances", 1979.
    pub fn merge(&mut self, other: &Samples) {
        let Some(of) = other.of else { return };
        if *self.of.get_or_insert(of) != of {
            return;
        }
        while self.stride < other.stride {
            self.thin();
        }
        let skip = (self.stride.max(1) / other.stride.max(1)) as usize;
        other.kept.iter().step_by(skip.max(1)).for_each(|&each| self.keep(each));
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        let (mine, theirs) = (self.count as f64, other.count as f64);
        let distance = other.mean - self.mean;
        self.count += other.count;
        (self.rounds, self.total) = (self.rounds + other.rounds, self.total + other.total);
        if self.count > 0 {
            let all = self.count as f64;
            self.mean += distance * theirs / all;
            self.squares += other.squares + distance * distance * mine * theirs / all;
        }
    }

    fn keep(&mut self, each: f64) {
        if self.kept.len() >= KEPT {
            self.thin();
        }
        self.kept.push(each);
    }

    /// Keeps one in twice as many.
    fn thin(&mut self) {
        let mut nth = 0;
        self.kept.retain(|_| {
            nth += 1;
            nth % 2 == 1
        });
        self.stride = 2 * self.stride.max(1);
    }

    /// Standard error of the mean, as a part of it.
    fn rel_error(&self) -> Option<f64> {
        let count = self.count as f64;
        let error = (self.squares / (count - 1.0) / count).sqrt() / self.mean;
        (self.count >= LEAST && error.is_finite()).then_some(error)
    }

    /// What they come to; `None` where there are none.
    pub fn spread(&self) -> Option<Spread> {
        let of = self.of.filter(|_| self.count > 0)?;
        let mut sorted = self.kept.clone();
        sorted.sort_by(f64::total_cmp);
        let (below, above) = (sorted.get((sorted.len().max(1) - 1) / 2)?, sorted.get(sorted.len() / 2)?);
        let (rounds, total) = (self.rounds, self.total);
        // By rounds: batches need not be of one size.
        let mean = total as f64 / rounds as f64;
        Some(Spread { of, rounds, total, mean, min: self.min, median: (below + above) / 2.0, rel_error: self.rel_error() })
    }

    /// Whether they are what a rule asks for.
    pub fn suffice(&self, rule: &Stopping) -> bool {
        let long = Duration::from_nanos(self.total) >= rule.min_time;
        long && rule.rel_error.is_none_or(|most| self.rel_error().is_some_and(|error| error <= most))
    }

    /// How many rounds are run next, after `run` of them in the time `since` the first one began; 0 where there are enough.
    /// A multiple of `count`, no more than were run unless one `count` is more, and no more than `most` in all.
    pub fn more(&self, rule: &Stopping, run: u64, count: u64, most: u64, since: Duration) -> u64 {
        if count == 0 || self.suffice(rule) || since >= rule.longest {
            return 0;
        }
        let ratio = |left: Duration, took: Duration| match took.is_zero() {
            true => run,
            false => (run as f64 * left.as_secs_f64() / took.as_secs_f64()).ceil() as u64,
        };
        let total = Duration::from_nanos(self.total);
        // Where the time is reached and the error is not, it falls with the root of the rounds.
        let wanted = if total < rule.min_time { ratio(rule.min_time - total, total) } else { run };
        let rounds = wanted.min(ratio(rule.longest - since, since)).min(run).max(1);
        let counts = rounds.div_ceil(count).min(most.saturating_sub(run) / count);
        counts * count
    }
}

/// What the times of a job's rounds came to.
pub(super) struct Measured {
    pub round: Option<Spread>,
    pub steps: Vec<StepTime>,
    pub rates: Option<Rates>,
    pub stopped: Option<Stopped>,
}

/// What the times of all rounds came to on a device of this peak.
pub(super) fn measured(job: &Job, plan: &Plan, tally: &Tally, peak: &Peak) -> Measured {
    let by_device = |spread: &Spread| matches!(spread.of, TimeOf::Steps | TimeOf::Device);
    // Where devices wait for each other, only their own clocks tell the time of one.
    let round = tally.samples.spread().filter(|spread| !job.compared || by_device(spread));
    let rates = round.and_then(|round| Rates::new(job.bench.bytes, job.bench.flops, job.reach(), round.mean, peak));
    let stopped = plan.rounds.more.as_ref().map(|rule| Stopped {
        min_time: rule.min_time.as_nanos() as u64,
        rel_error: rule.rel_error,
        reached: tally.samples.suffice(rule),
    });
    Measured { round, steps: super::clock::told(job, &tally.parts), rates, stopped }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(times: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::new();
        times.into_iter().for_each(|time| samples.add(TimeOf::Run, time, 1));
        samples
    }

    #[test]
    fn the_spread_of_times_is_that_of_the_formulae() {
        let spread = samples([10, 12, 14, 16, 18, 10, 12, 14, 16, 18]).spread().unwrap();
        assert_eq!((spread.rounds, spread.total, spread.mean, spread.min, spread.median), (10, 140, 14.0, 10.0, 14.0));
        // Variance 80 / 9, standard error sqrt(80 / 90).
        assert!((spread.rel_error.unwrap() - (80.0f64 / 90.0).sqrt() / 14.0).abs() < 1e-12);
        assert_eq!(samples([]).spread(), None);
        assert_eq!(samples([5; 9]).spread().unwrap().rel_error, None, "too few to say");
        assert_eq!(samples([5; 10]).spread().unwrap().rel_error, Some(0.0));
        assert_eq!(samples([0; 10]).spread().unwrap().rel_error, None);
        assert_eq!(samples([1, 2, 3, 10]).spread().unwrap().median, 2.5);
    }

    #[test]
    fn batches_count_by_their_rounds() {
        let mut samples = Samples::new();
        samples.add(TimeOf::Device, 80, 8);
        samples.add(TimeOf::Device, 40, 2);
        samples.add(TimeOf::Run, 1, 1);
        samples.add(TimeOf::Device, 0, 0);
        let spread = samples.spread().unwrap();
        assert_eq!((spread.of, spread.rounds, spread.total, spread.mean, spread.min), (TimeOf::Device, 10, 120, 12.0, 10.0));
    }

    #[test]
    fn merged_times_are_as_if_added_one_by_one() {
        let times = |from: u64, to: u64| (from..to).map(|i| 1000 + i * i % 37);
        let whole = samples(times(0, 6000));
        let mut merged = Samples::new();
        for from in (0..6000).step_by(1500) {
            merged.merge(&samples(times(from, from + 1500)));
        }
        merged.merge(&Samples::new());
        let (a, b) = (whole.spread().unwrap(), merged.spread().unwrap());
        assert_eq!((a.rounds, a.total, a.min), (b.rounds, b.total, b.min));
        assert!((a.mean - b.mean).abs() < 1e-9 && (a.rel_error.unwrap() - b.rel_error.unwrap()).abs() < 1e-9);
        assert!((a.median - b.median).abs() <= 2.0);
        assert!(whole.kept.len() <= KEPT && merged.kept.len() <= KEPT);
        merged.clear();
        assert_eq!(merged.spread(), None);
        assert!(merged.kept.capacity() >= KEPT);
    }

    #[test]
    fn rounds_go_on_until_the_rule_is_kept() {
        let ms = Duration::from_millis;
        let rule = |rel_error| Stopping { min_time: ms(100), rel_error, longest: ms(1000) };
        let million = 1_000_000;
        let even = |n: usize| samples(vec![million; n]);
        let uneven = |n: usize| samples((0..n as u64).map(|i| if i % 2 == 0 { million } else { 3 * million }));
        for (samples, rel_error, run, count, since, more) in [
            // 10 of 100 ms: not more than were run.
            (even(10), None, 10, 10, ms(10), 10),
            (even(80), None, 80, 10, ms(80), 20),
            (even(99), None, 99, 9, ms(99), 9),
            (even(100), None, 100, 10, ms(100), 0),
            (even(100), Some(0.01), 100, 10, ms(100), 0),
            // Standard error 5 %, of 100 rounds.
            (uneven(100), Some(0.01), 100, 10, ms(200), 100),
            (uneven(100), Some(0.06), 100, 10, ms(200), 0),
            // Ten times the time is the end.
            (uneven(100), Some(0.01), 100, 10, ms(900), 20),
            (uneven(100), Some(0.01), 100, 10, ms(1000), 0),
            // Without times too.
            (samples([]), None, 10, 10, ms(500), 10),
            (samples([]), None, 10, 10, ms(1000), 0),
            // What the job has numbers for.
            (even(10), None, 990, 10, ms(10), 10),
            (even(10), None, 1000, 10, ms(10), 0),
            (even(1), None, 1, 1, ms(1), 1),
            (even(0), None, 0, 0, ms(0), 0),
        ] {
            let found = samples.more(&rule(rel_error), run, count, 1000, since);
            assert_eq!(found, more, "{rel_error:?} {run} {count} {since:?}");
        }
    }
}
