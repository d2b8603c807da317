//! Times of rounds and steps, rates, and what is said of both, as text for people.

use std::fmt::Write as _;

use crate::plan::nanoseconds;
use crate::verdict::{Rates, Report, Spread, TimeOf};

/// A time with a fraction of a nanosecond.
fn time(ns: f64) -> String {
    nanoseconds(ns.round() as u64)
}

fn per_cent(part: f64) -> String {
    let per_cent = 100.0 * part;
    if per_cent >= 10.0 { format!("{per_cent:.0} %") } else { format!("{per_cent:.2} %") }
}

/// The time of a round behind the verdict: what a run of many rounds takes for each, or of cold caches what the steps do.
pub(super) fn of_round(report: &Report) -> Option<String> {
    let times = &report.times;
    match report.cold {
        true => times.round.map(|round| time(round.mean)),
        false => times.total.checked_div(times.rounds).filter(|&each| each > 0).map(nanoseconds),
    }
}

/// Whether a time of a report cannot be.
pub(super) fn is_impossible(report: &Report) -> bool {
    report.rates.as_ref().is_some_and(|rates| !rates.impossible.is_empty())
}

/// Where the time went; `clock`: the device's was asked for.
pub(super) fn told(text: &mut String, report: &Report, clock: bool) {
    let times = &report.times;
    let part = |ns: u64| ns.checked_div(times.sampled);
    if let (Some(fill), Some(run), Some(check)) = (part(times.fill), part(times.run), part(times.check)) {
        let moved = report.cost.round_steps;
        let more = match &report.rates {
            _ if report.cold => " with the flush of the caches".to_string(),
            None if run > 0 && moved > 0 => format!(" ({:.1} GB/s)", moved as f64 / run as f64),
            _ => String::new(),
        };
        let _ = writeln!(text, "  fill {}, run {}{more}, check {}", nanoseconds(fill), nanoseconds(run), nanoseconds(check));
    }
    let by_device = times.round.is_some_and(|round| matches!(round.of, TimeOf::Device | TimeOf::Steps));
    match times.device.and_then(|time| time.checked_div(times.rounds)) {
        Some(time) if !report.cold => drop(writeln!(text, "  {} a round by the device's clock", nanoseconds(time))),
        None if report.cold => text.push_str("  what a round takes with cold caches is not known: the device has no clock for its steps\n"),
        None if clock => text.push_str("  the device has no clock for these rounds\n"),
        _ => {}
    }
    if let Some(round) = times.round.filter(|_| by_device || report.rates.is_some() || report.stopped.is_some()) {
        spread(text, &round);
    }
    if let Some(stopped) = &report.stopped {
        let error = stopped.rel_error.map_or(String::new(), |error| format!(" and an error of at most {}", per_cent(error)));
        let (least, reached) = (nanoseconds(stopped.min_time), if stopped.reached { "reached" } else { "NOT reached" });
        let _ = writeln!(text, "  {} rounds for {least} in all{error}: {reached}", report.run);
    }
    if let Some(rates) = &report.rates {
        told_rates(text, rates);
    }
    steps(text, report);
}

fn spread(text: &mut String, round: &Spread) {
    let Spread { of, rounds, mean, min, median, rel_error, .. } = round;
    let error = rel_error.map_or(String::new(), |error| format!(", error of the mean {}", per_cent(error)));
    let (mean, min, median) = (time(*mean), time(*min), time(*median));
    let of = of.words();
    let over = if *rounds == 1 { "1 round".to_string() } else { format!("{rounds} rounds") };
    let _ = writeln!(text, "  mean {mean}, min {min}, median {median} {of}, over {over}{error}");
}

fn told_rates(text: &mut String, rates: &Rates) {
    let share = |part: Option<f64>, of: &str| part.map_or(String::new(), |part| format!(" ({} of {of})", per_cent(part)));
    let bytes = rates.bytes_per_ns.map(|rate| format!("{} GB/s{}", number(rate), share(rates.of_peak_bytes, "its memory's peak")));
    let flops = rates.flops_per_ns.map(|rate| format!("{} GFLOP/s{}", number(rate), share(rates.of_peak_flops, "its peak in f32")));
    let told: Vec<String> = bytes.into_iter().chain(flops).collect();
    if !told.is_empty() {
        let _ = writeln!(text, "  {}", told.join(", "));
    }
    for why in &rates.impossible {
        let _ = writeln!(text, "  IMPOSSIBLE: {why}: the time is wrong, or the spec counts more than a round does");
    }
}

/// Three digits, or all before the point.
fn number(rate: f64) -> String {
    let digits = if rate >= 100.0 {
        0
    } else if rate >= 10.0 {
        1
    } else if rate >= 1.0 {
        2
    } else {
        4
    };
    format!("{rate:.digits$}")
}

/// A line for each step, and for what is around them.
fn steps(text: &mut String, report: &Report) {
    let line = |step: &crate::verdict::StepTime| {
        let turns = if step.turns > 1 { format!("{} x{}", step.step, step.turns) } else { step.step.clone() };
        [turns, time(step.mean), nanoseconds(step.min), per_cent(step.share)]
    };
    let head = (!report.steps.is_empty()).then(|| ["a round, by the device's clock", "mean", "min", "share"].map(String::from));
    let rows: Vec<[String; 4]> = head.into_iter().chain(report.steps.iter().map(line)).collect();
    let widths: [usize; 4] = std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    for [step, mean, min, share] in &rows {
        let [first, second, third, fourth] = widths;
        let _ = writeln!(text, "  {step:<first$}  {mean:>second$}  {min:>third$}  {share:>fourth$}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{StepTime, Times, Verdict};

    fn report(rates: Rates) -> Report {
        let round = Spread { of: TimeOf::Steps, rounds: 100, total: 1000, mean: 10.0, min: 8.0, median: 9.0, rel_error: Some(0.0123) };
        let step = |step: &str, turns, share| StepTime { step: step.into(), turns, mean: 10.0, min: 8, share };
        Report {
            times: Times { total: 1_000_000, rounds: 100, round: Some(round), device: Some(2000), ..Times::default() },
            steps: vec![step("before the steps", 1, 0.001), step("saxpy", 3, 0.5)],
            rates: Some(rates),
            ..Report::empty("job", Verdict::Pass)
        }
    }

    fn text(report: &Report) -> String {
        let mut text = String::new();
        told(&mut text, report, true);
        text
    }

    #[test]
    fn times_are_told_with_what_they_are_of() {
        let rates = Rates { bytes_per_ns: Some(123.4), of_peak_bytes: Some(0.456), flops_per_ns: Some(1.25), ..Rates::default() };
        let mut report = report(rates);
        assert_eq!(
            text(&report),
            "  20 ns a round by the device's clock\n\
            \x20 mean 10 ns, min 8 ns, median 9 ns of the steps by the device's clock, over 100 rounds, error of the mean 1.23 %\n\
            \x20 123 GB/s (46 % of its memory's peak), 1.25 GFLOP/s\n\
            \x20 a round, by the device's clock   mean   min   share\n\
            \x20 before the steps                10 ns  8 ns  0.10 %\n\
            \x20 saxpy x3                        10 ns  8 ns    50 %\n"
        );
        assert_eq!(of_round(&report).as_deref(), Some("10.00 us"));
        // What a cold round takes on the whole is mostly the flush.
        report.cold = true;
        assert!(!text(&report).contains("a round by the device's clock"));
        assert_eq!(of_round(&report).as_deref(), Some("10 ns"));
        (report.times.round, report.times.device) = (None, None);
        assert!(text(&report).contains("is not known: the device has no clock for its steps"));
        assert_eq!(of_round(&report), None);
    }

    #[test]
    fn an_impossible_time_is_told_loudly() {
        let possible = report(Rates::default());
        assert!(!is_impossible(&possible) && !text(&possible).contains("IMPOSSIBLE"));
        let report = report(Rates { impossible: vec!["so much".into()], ..Rates::default() });
        assert!(is_impossible(&report));
        assert!(text(&report).contains("  IMPOSSIBLE: so much: the time is wrong, or the spec counts more than a round does\n"));
    }
}
