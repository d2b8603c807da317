//! What a round took, with what it moves and computes -> rates, their share of what the device can do, and times that
//! cannot be.

use serde::{Deserialize, Serialize};

use crate::device::Peak;

/// What the time of a round is the time of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeOf {
    /// The steps alone, each by the device's clock.
    Steps,
    /// From the start of a round's first command to the end of its last, by the device's clock.
    Device,
    /// From when a round is submitted to when the host has its outputs, by the host's clock; no other round is in flight.
    Run,
    /// From the end of one round to the end of the next, by the host's clock.
    Whole,
}

impl TimeOf {
    /// In words, behind a time.
    pub fn words(self) -> &'static str {
        match self {
            TimeOf::Steps => "of the steps by the device's clock",
            TimeOf::Device => "of a round by the device's clock",
            TimeOf::Run => "of a run by the host's clock",
            TimeOf::Whole => "from one round to the next by the host's clock",
        }
    }
}

/// The times of rounds. *Units*: nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spread {
    pub of: TimeOf,
    /// Rounds that were timed.
    pub rounds: u64,
    /// All of them together.
    pub total: u64,
    pub mean: f64,
    pub min: f64,
    /// Of rounds taken evenly, where there are many.
    pub median: f64,
    /// Standard error of the mean as a part of it: the standard deviation by the root of how many were timed.
    pub rel_error: Option<f64>,
}

/// What a step of the spec took, all its turns of loops together. *Units*: nanoseconds a round.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepTime {
    /// `saxpy`; or what is done `before the steps` and `after the steps`.
    pub step: String,
    /// Turns of loops, in a round.
    pub turns: u64,
    pub mean: f64,
    pub min: u64,
    /// Of a round, as far as its nodes were timed; from 0 to 1.
    pub share: f64,
}

/// How rounds beyond those that were asked for came to their end.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stopped {
    /// *Units*: nanoseconds.
    pub min_time: u64,
    pub rel_error: Option<f64>,
    /// Whether both were reached.
    pub reached: bool,
}

/// What is done in a round, by time.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// In a round, as the spec says.
    pub bytes: Option<u64>,
    pub flops: Option<u64>,
    /// *Units*: bytes per nanosecond, which are GB/s.
    pub bytes_per_ns: Option<f64>,
    /// *Units*: operations per nanosecond, which are GFLOP/s.
    pub flops_per_ns: Option<f64>,
    /// Of what the device's memory can do; from 0 to 1, and above where caches help.
    pub of_peak_bytes: Option<f64>,
    /// Of what the units for f32 can do; above 1 where others, such as those for matrices, do the work.
    pub of_peak_flops: Option<f64>,
    /// Why the time cannot be, or what the spec says of bytes and operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub impossible: Vec<String>,
}

/// Times may be so much shorter than the shortest that can be: clocks and peaks are not exact.
const SLACK: f64 = 1.1;

impl Rates {
    /// The rates of a round that takes `ns` and moves and computes so much; nothing where the spec says nothing. `reach`
    /// are the distinct bytes that its steps can reach.
    ///
    /// What a cache can hold need not come from memory, and what is written may still be in it at the end: only what is
    /// larger than the cache has a shortest time. Where the cache or the peak is not known, nothing is impossible.
    pub fn new(bytes: Option<u64>, flops: Option<u64>, reach: u64, ns: f64, peak: &Peak) -> Option<Rates> {
        if bytes.is_none() && flops.is_none() {
            return None;
        }
        let rate = |amount: Option<u64>| amount.map(|n| n as f64 / ns).filter(|rate| rate.is_finite());
        let share = |rate: Option<f64>, peak: Option<f64>| Some(rate? / peak?);
        let (bytes_per_ns, flops_per_ns) = (rate(bytes), rate(flops));
        let mut impossible = Vec::new();
        if let (Some(bytes), Some(most), Some(cache)) = (bytes, peak.bytes_per_ns, peak.cache) {
            let least = bytes.min(reach).saturating_sub(cache);
            let needs = least as f64 / most;
            if least > 0 && ns * SLACK < needs {
                impossible.push(format!(
                    "of the {bytes} bytes at least {least} are not in its caches, for which its memory takes {:.3} us at {most:.0} GB/s",
                    needs / 1e3
                ));
            }
        }
        if let (Some(flops), Some(most)) = (flops, peak.most_flops_per_ns) {
            let needs = flops as f64 / most;
            if ns * SLACK < needs {
                impossible.push(format!(
                    "{flops} operations take {:.3} us at {most:.0} GFLOP/s, the most that any of its units can",
                    needs / 1e3
                ));
            }
        }
        Some(Rates {
            bytes,
            flops,
            bytes_per_ns,
            flops_per_ns,
            of_peak_bytes: share(bytes_per_ns, peak.bytes_per_ns),
            of_peak_flops: share(flops_per_ns, peak.flops_per_ns),
            impossible,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEAK: Peak =
        Peak { bytes_per_ns: Some(1000.0), flops_per_ns: Some(50_000.0), most_flops_per_ns: Some(2_000_000.0), cache: Some(1 << 20) };

    #[test]
    fn rates_are_by_the_time_of_a_round() {
        let rates = Rates::new(Some(4_000_000), Some(8_000_000), 4_000_000, 8_000.0, &PEAK).unwrap();
        assert_eq!((rates.bytes_per_ns, rates.flops_per_ns), (Some(500.0), Some(1000.0)));
        assert_eq!((rates.of_peak_bytes, rates.of_peak_flops), (Some(0.5), Some(0.02)));
        assert!(rates.impossible.is_empty());
        let rates = Rates::new(Some(10), None, 10, 5.0, &Peak::default()).unwrap();
        assert_eq!((rates.bytes_per_ns, rates.flops_per_ns, rates.of_peak_bytes, rates.of_peak_flops), (Some(2.0), None, None, None));
        assert_eq!(Rates::new(None, None, 10, 5.0, &PEAK), None);
        // A clock that stood still has no rate.
        assert_eq!(Rates::new(Some(10), None, 10, 0.0, &Peak::default()).unwrap().bytes_per_ns, None);
    }

    #[test]
    fn only_what_no_cache_and_no_unit_can_do_is_impossible() {
        let unknown = Peak { cache: None, most_flops_per_ns: None, ..PEAK };
        let mib = 1 << 20;
        for (bytes, flops, reach, ns, peak, impossible) in [
            // 9 MiB of 10 must come from memory: 9.4 us.
            (Some(10 * mib), None, 10 * mib, 9_500.0, PEAK, false),
            (Some(10 * mib), None, 10 * mib, 8_700.0, PEAK, false),
            (Some(10 * mib), None, 10 * mib, 8_500.0, PEAK, true),
            (Some(10 * mib), None, 10 * mib, 0.0, PEAK, true),
            // All of it fits the cache, or the steps come back to what does.
            (Some(mib), None, mib, 1.0, PEAK, false),
            (Some(1000 * mib), None, mib, 1.0, PEAK, false),
            // A part of what the steps reach.
            (Some(mib), None, 10 * mib, 1.0, PEAK, false),
            (Some(10 * mib), None, 10 * mib, 1.0, unknown, false),
            // Matrix units exceed the plain rate.
            (None, Some(4_000_000_000), 0, 2_100.0, PEAK, false),
            (None, Some(4_000_000_000), 0, 1_700.0, PEAK, true),
            (None, Some(4_000_000_000), 0, 1_700.0, unknown, false),
            (None, Some(4_000_000_000), 0, 1_700.0, Peak::default(), false),
        ] {
            let rates = Rates::new(bytes, flops, reach, ns, &peak).unwrap();
            assert_eq!(!rates.impossible.is_empty(), impossible, "{bytes:?} {flops:?} {reach} {ns}: {rates:?}");
        }
    }
}
