//! `--only` and the order of the sets -> which rounds of a job are run, and which set each has.
//!
//! Rounds are counted twice where some are left out: by their number, which says what they see and never changes, and by
//! their place among those that are run, by which they are dealt.

use super::names::{MOST_ROUNDS, Resolver};
use super::{Every, Job, Rounds};
use crate::data;
use crate::diag::{Diagnostic, Place};
use crate::spec::Order;

/// How rounds go through the sets, and which of them are run.
#[derive(Clone, Debug)]
pub struct SetOrder {
    sets: u32,
    shuffle: bool,
    seed: u64,
    /// By set: whether its rounds are run; empty where all are.
    chosen: Vec<bool>,
    /// The turn through the sets that `permutation` and `places` are of.
    epoch: Option<u32>,
    permutation: Vec<u32>,
    /// Where in a turn the chosen sets come.
    places: Vec<u32>,
    /// Rounds of a turn that are run.
    each: u64,
}

impl SetOrder {
    /// The order of a job.
    pub fn new(job: &Job) -> SetOrder {
        SetOrder::of(job.sets.len() as u32, job.rounds, &job.only)
    }

    fn of(sets: u32, rounds: Rounds, only: &[u32]) -> SetOrder {
        let mut chosen = vec![false; if only.is_empty() { 0 } else { sets as usize }];
        only.iter().for_each(|&set| chosen[set as usize] = true);
        SetOrder {
            sets,
            shuffle: rounds.order == Order::Shuffle,
            seed: rounds.seed,
            chosen,
            epoch: None,
            permutation: (0..sets).collect(),
            places: Vec::with_capacity(only.len()),
            each: (only.len() as u64).max(1),
        }
    }

    /// The set of a round.
    pub fn set(&mut self, round: u64) -> u32 {
        if self.sets == 0 {
            return 0;
        }
        let at = (round % u64::from(self.sets)) as usize;
        if self.shuffle {
            self.turn((round / u64::from(self.sets)) as u32);
        }
        self.permutation[at]
    }

    /// The number of the round that is run `nth`.
    pub fn round(&mut self, nth: u64) -> u64 {
        if self.chosen.is_empty() {
            return nth;
        }
        // Every turn has each chosen set once.
        let epoch = nth / self.each;
        self.turn(epoch as u32);
        let place = self.places.get((nth % self.each) as usize).copied().unwrap_or(0);
        epoch * u64::from(self.sets) + u64::from(place)
    }

    /// How many of the first rounds are run.
    pub fn runs_below(&mut self, round: u64) -> u64 {
        if self.chosen.is_empty() {
            return round;
        }
        let epoch = round / u64::from(self.sets);
        self.turn(epoch as u32);
        let rest = round % u64::from(self.sets);
        epoch * self.each + self.places.iter().filter(|&&place| u64::from(place) < rest).count() as u64
    }

    /// Puts `permutation` and `places` in the state of a turn through the sets.
    fn turn(&mut self, epoch: u32) {
        // Without shuffling every turn is as the first.
        if self.epoch.is_some_and(|current| current == epoch || !self.shuffle) {
            return;
        }
        if self.shuffle {
            data::permutation(self.seed, epoch, self.sets, &mut self.permutation);
        }
        self.epoch = Some(epoch);
        self.places.clear();
        if !self.chosen.is_empty() {
            let chosen = self.permutation.iter().zip(0..).filter(|&(&set, _)| self.chosen[set as usize]);
            self.places.extend(chosen.map(|(_, place): (_, u32)| place));
        }
    }
}

impl Job {
    /// How many rounds are run.
    pub fn runs(&self) -> u64 {
        SetOrder::new(self).runs_below(self.rounds.count)
    }

    /// How many rounds may be run where there are more than [`Job::runs`]: as many again each time, as long as they have numbers.
    pub fn most_runs(&self) -> u64 {
        let each = self.rounds.count.saturating_add(self.sets.len() as u64).max(1);
        self.runs().saturating_mul((MOST_ROUNDS / each).saturating_sub(1).max(1))
    }

    /// How many of the rounds that are run first a claim is checked in: it is in the last of every [`Job::runs`].
    pub fn due(&self, every: Every, run: u64) -> u64 {
        let count = self.runs();
        if self.only.is_empty() {
            return every.due(run, count);
        }
        let mut order = SetOrder::new(self);
        (0..run).filter(|&nth| every.is_due(order.round(nth), (nth + 1).is_multiple_of(count))).count() as u64
    }
}

impl Resolver<'_> {
    /// Whether the rounds of a set of this name are run.
    pub(super) fn is_chosen(&self, name: &str) -> bool {
        self.overrides.only.is_empty() || self.overrides.only.iter().any(|pattern| matches(pattern, name))
    }

    /// Ids of the sets whose rounds are run, ascending; empty where all are.
    pub(super) fn only(&self, rounds: Option<Rounds>) -> Vec<u32> {
        let patterns = &self.overrides.only;
        if patterns.is_empty() {
            return Vec::new();
        }
        let at = Place::root().to("sets");
        // Some may be of other jobs of the spec.
        let names: Vec<String> = self.all_rows().into_iter().map(|row| row.name).collect();
        if let Some((name, _)) = self.spec.tensors.iter().find(|(_, tensor)| tensor.carry) {
            let message = format!("--only: `{name}` is carried from round to round, so no round can be left out");
            let place = Place::root().to("tensors").to(name).to("carry");
            self.report(Diagnostic::error("only-of-carried", place, message).help("run all rounds; what each set does is in the report"));
            return Vec::new();
        }
        let unknown: Vec<&String> = patterns.iter().filter(|pattern| !names.iter().any(|name| matches(pattern, name))).collect();
        // Where nothing at all is chosen, nothing is wrong with the spec.
        let code = if unknown.len() == patterns.len() { super::NOTHING_SELECTED } else { "unknown-name" };
        if !unknown.is_empty() && !self.loaded.lacks(&at) {
            let quoted: Vec<String> = unknown.iter().map(|pattern| format!("`{pattern}`")).collect();
            let problem = if names.is_empty() {
                let message = format!("--only {}: the spec has no [[sets]] to choose from", quoted.join(", "));
                Diagnostic::error(code, Place::root(), message)
            } else {
                let message = format!("--only: there is no set {}", quoted.join(", "));
                unknown.iter().fold(Diagnostic::error(code, at.clone(), message), |problem, pattern| {
                    problem.did_you_mean_text(pattern, &names, "sets")
                })
            };
            self.report(problem);
        }
        let own = self.set_names();
        let chosen: Vec<u32> = (0..).zip(&own).filter(|(_, name)| self.is_chosen(name)).map(|(id, _)| id).collect();
        if let (Some(rounds), false) = (rounds, chosen.is_empty()) {
            let mut order = SetOrder::of(own.len() as u32, rounds, &chosen);
            if order.runs_below(rounds.count) == 0 {
                let first = order.round(0);
                let message = format!("--only: none of the {} rounds has a set that is chosen", rounds.count);
                let help = format!("the first that has one is round {first}: --rounds {}", first + 1);
                self.report(Diagnostic::error(super::NOTHING_SELECTED, Place::root().to("rounds").to("count"), message).help(help));
            }
        }
        chosen
    }
}

/// Whether a name is as a pattern says: `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        // The first place is as good as any later one.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, matched) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*bc", "abcbc", true),
            ("ab*ba", "aba", false),
            ("*b*", "aca", false),
            ("a**c", "ac", true),
            ("A*", "abc", false),
        ] {
            assert_eq!(matches(pattern, name), matched, "{pattern} {name}");
        }
    }

    #[test]
    fn rounds_of_chosen_sets_are_counted_as_a_filter_counts_them() {
        for order in [Order::Cycle, Order::Shuffle] {
            for only in [&[][..], &[0], &[2], &[1, 3], &[0, 1, 2, 3, 4]] {
                let rounds = Rounds { count: 0, warmup: 0, seed: 3, order };
                let mut by_set = SetOrder::of(5, rounds, &[]);
                let kept: Vec<u64> = (0..63).filter(|&round| only.is_empty() || only.contains(&by_set.set(round))).collect();
                let mut order = SetOrder::of(5, rounds, only);
                // In any order of asking.
                for (nth, round) in kept.iter().enumerate().rev() {
                    assert_eq!(order.round(nth as u64), *round, "{only:?} {nth}");
                    assert!(only.is_empty() || only.contains(&order.set(*round)));
                }
                for below in 0..63 {
                    assert_eq!(order.runs_below(below), kept.iter().filter(|&&round| round < below).count() as u64);
                }
            }
        }
    }

    #[test]
    fn without_sets_every_round_is_run() {
        let mut order = SetOrder::of(0, Rounds { count: 0, warmup: 0, seed: 0, order: Order::Shuffle }, &[]);
        assert_eq!((order.set(7), order.round(7), order.runs_below(7)), (0, 7, 7));
    }
}
