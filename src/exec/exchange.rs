//! Outputs of the same round on several devices -> for every two of them, whether they agree.
//!
//! Every device leaves a copy of what its checks compare. The last one to leave a round compares every two, so each round
//! is compared once, and by a thread that has the time. A device waits while it is [`MOST_AHEAD`] rounds ahead of another
//! that still runs; one that ends keeps nobody waiting.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::MOST_EXPLAINED;
use super::collect::{Round, RoundInputs, failure};
use super::elements::source;
use super::gather::{Gather, Source};
use super::host::HostSide;
use super::slot::Slot;
use crate::check::{Census, Multiset, Reached, Sums, Tolerance, compare_bytes};
use crate::expr::{BLOCK, Block};
use crate::job::{Check, Job};
use crate::plan::{MOST_AHEAD, Plan};
use crate::verdict::{At, CheckReport, Failure, Kind, Report, Verdict};

/// Where devices that run the same job leave their outputs.
pub struct Exchange<'a> {
    job: &'a Job,
    names: Vec<String>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    /// By device: rounds that it has left so far.
    left: Vec<u64>,
    /// By device: whether more is to come.
    runs: Vec<bool>,
    /// By place among the rounds that are run: what was left of it, by device.
    rounds: BTreeMap<u64, Vec<Option<Left>>>,
    /// In the order of [`pairs`].
    pairs: Vec<Found>,
}

/// What one device leaves of a round.
struct Left {
    round: u64,
    set: u32,
    /// By check; `None` where it is not due, or has no elements that are known.
    outputs: Vec<Option<Output>>,
}

/// The elements that a check compares.
struct Output {
    bytes: Vec<u8>,
    /// Where they lie in the tensor, where they are not all in their order.
    places: Option<Vec<u64>>,
}

/// What was found of two devices.
struct Found {
    /// Rounds of which both left something.
    rounds: u64,
    failed_rounds: u64,
    checks: Vec<CheckReport>,
    failures: Vec<Failure>,
}

/// Every two of so many, the earlier one first.
pub fn pairs(devices: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..devices).flat_map(move |a| (a + 1..devices).map(move |b| (a, b)))
}

/// One device's place at an exchange.
#[derive(Clone, Copy)]
pub struct Seat<'a> {
    exchange: &'a Exchange<'a>,
    device: usize,
}

impl<'a> Exchange<'a> {
    /// For devices of these names, of which `runs` says whether they take part. `job` has the checks of all of them.
    pub fn new(job: &'a Job, names: Vec<String>, runs: Vec<bool>) -> Exchange<'a> {
        let check = |c: &Check| {
            let metrics = c.between.iter().flat_map(Tolerance::metrics);
            CheckReport {
                text: c.text.clone(),
                tolerance: c.between.as_ref().map(Tolerance::words).unwrap_or_default(),
                metrics: metrics.map(|(metric, limit)| Reached { metric, value: metric.best(), limit }).collect(),
                ..CheckReport::default()
            }
        };
        let found = || Found { rounds: 0, failed_rounds: 0, checks: job.checks.iter().map(check).collect(), failures: Vec::new() };
        let inner =
            Inner { left: vec![0; names.len()], runs, rounds: BTreeMap::new(), pairs: pairs(names.len()).map(|_| found()).collect() };
        Exchange { job, names, inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// The place of a device.
    pub fn seat(&self, device: usize) -> Seat<'_> {
        Seat { exchange: self, device }
    }

    /// A device ends, whatever the reason: the others go on without it.
    pub fn leaves_for_good(&self, device: usize) {
        self.inner().runs[device] = false;
        // It may be the one that the others waited for.
        self.compare_whole();
        self.changed.notify_all();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the rounds of which nothing more is to come.
    fn compare_whole(&self) {
        let mut inner = self.inner();
        loop {
            let Inner { left, runs, rounds, .. } = &*inner;
            let whole = |nth: u64| (0..left.len()).all(|device| !runs[device] || left[device] > nth);
            let Some(nth) = rounds.keys().copied().find(|&nth| whole(nth)) else { return };
            let Some(of_round) = inner.rounds.remove(&nth) else { return };
            drop(inner);
            let compared: Vec<Option<Vec<Compared>>> =
                pairs(self.names.len()).map(|(a, b)| Some(self.compare(of_round[a].as_ref()?, of_round[b].as_ref()?, (a, b)))).collect();
            inner = self.inner();
            for (found, compared) in inner.pairs.iter_mut().zip(compared) {
                if let Some(compared) = compared {
                    found.add(compared);
                }
            }
        }
    }

    /// Compares what two devices left of a round, check by check.
    fn compare(&self, want: &Left, got: &Left, pair: (usize, usize)) -> Vec<Compared> {
        let checks = self.job.checks.iter().zip(want.outputs.iter().zip(&got.outputs));
        checks
            .map(|(check, (a, b))| {
                let (Some(a), Some(b), Some(tolerance)) = (a, b, &check.between) else { return Compared::default() };
                let tensor = &self.job.tensors[check.tensor];
                let of = tensor.shape.elements();
                let mut compared = Compared { done: true, of, ..Compared::default() };
                if a.places != b.places || a.bytes.len() != b.bytes.len() {
                    compared.failure = Some(self.failure(check, want, pair, "they selected different elements to compare".into()));
                    return compared;
                }
                let (census, sums) = judge(check, tensor.dtype, tolerance, &b.bytes, &a.bytes);
                compared.elements = census.compared;
                compared.reached = sums.iter().flat_map(|sums| sums.reached(tolerance)).collect();
                if census.passes(tolerance) && compared.reached.iter().all(Reached::passes) {
                    return compared;
                }
                compared.failure = Some(self.explained(check, want, pair, &census, &compared.reached, a.places.as_deref()));
                compared
            })
            .collect()
    }

    fn failure(&self, check: &Check, of: &Left, (a, b): (usize, usize), what: String) -> Failure {
        let tensor = &self.job.tensors[check.tensor];
        let message = format!("`{}` on `{}` and on `{}`: {what}", tensor.name, self.names[a], self.names[b]);
        Failure {
            tensor: Some(tensor.name.clone()),
            check: Some(check.text.clone()),
            ..failure(self.job, of.round, of.set, Kind::Mismatch, message)
        }
    }

    fn explained(
        &self,
        check: &Check,
        of: &Left,
        pair: (usize, usize),
        census: &Census,
        reached: &[Reached],
        places: Option<&[u64]>,
    ) -> Failure {
        let missed = reached.iter().filter(|reached| !reached.passes());
        let missed: Vec<String> = missed.map(|r| format!("{} is {:.3e}, the limit is {:.3e}", r.metric.name(), r.value, r.limit)).collect();
        let what = match (census.mismatched, missed.as_slice()) {
            (0, missed) => format!("as a whole they differ: {}", missed.join("; ")),
            (n, _) => format!("{n} of {} elements differ", census.compared),
        };
        let mut out = self.failure(check, of, pair, what);
        (out.compared, out.mismatched) = (census.compared, census.mismatched);
        if census.mismatched > 0 {
            out.patterns.extend(missed.into_iter().map(|metric| format!("as a whole: {metric}")));
        }
        if let Some(tolerance) = &check.between {
            out.patterns.push(format!("between devices: {}", tolerance.words()));
        }
        if !check.unordered {
            out.patterns.push(format!("`got` is of {}, `want` of {}", self.names[pair.1], self.names[pair.0]));
            let shape = &self.job.tensors[check.tensor].shape;
            let place = |index: u64| places.map_or(index, |places| places[index as usize]);
            let at = |m: &crate::check::Mismatch, worst| {
                let index = place(m.index);
                At { index: shape.index_of(index), mismatch: crate::check::Mismatch { index, ..*m }, worst }
            };
            out.mismatches = census.first.iter().map(|m| at(m, false)).collect();
            out.mismatches.extend(census.worst.iter().map(|m| at(m, true)));
        }
        out
    }

    /// A report for every two devices, from what became of each.
    pub fn reports(self, of: &[&Report]) -> Vec<Report> {
        let inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        let each = pairs(self.names.len()).zip(inner.pairs);
        each.map(|((a, b), found)| found.report(self.job, [&self.names[a], &self.names[b]], [of[a], of[b]])).collect()
    }
}

/// What one check came to in a round.
#[derive(Default)]
struct Compared {
    /// It was compared at all.
    done: bool,
    elements: u64,
    of: u64,
    reached: Vec<Reached>,
    failure: Option<Failure>,
}

impl Found {
    fn add(&mut self, compared: Vec<Compared>) {
        self.rounds += 1;
        let explain = self.failed_rounds < MOST_EXPLAINED;
        let mut failed = false;
        for (report, compared) in self.checks.iter_mut().zip(compared) {
            if !compared.done {
                report.left_out += 1;
                continue;
            }
            report.rounds += 1;
            report.elements += compared.elements;
            report.of += compared.of;
            for (all, reached) in report.metrics.iter_mut().zip(&compared.reached) {
                all.value = all.metric.worse(all.value, reached.value);
            }
            if let Some(failure) = compared.failure {
                failed = true;
                report.failed_rounds += 1;
                self.failures.extend(explain.then_some(failure));
            }
        }
        self.failed_rounds += u64::from(failed);
    }

    fn report(self, job: &Job, names: [&String; 2], of: [&Report; 2]) -> Report {
        let count = job.runs();
        let compares = |check: &&Check| check.between.is_some();
        let whole = self.rounds == count
            && job
                .checks
                .iter()
                .zip(&self.checks)
                .filter(|(check, _)| compares(check))
                .all(|(check, report)| report.rounds == job.due(check.every, count) && report.elements > 0);
        let ended = of.iter().zip(names).find(|(report, _)| report.run < report.rounds);
        let (verdict, reason) =
            if let Some((absent, name)) = of.iter().zip(names).find(|(r, _)| r.verdict == Verdict::Skip || r.device.is_empty()) {
                (Verdict::Skip, Some(format!("not compared: `{name}`: {}", absent.reason.as_deref().unwrap_or("it did not run"))))
            } else if self.failed_rounds > 0 {
                if job.xfail.is_some() { (Verdict::Xfail, job.xfail.clone()) } else { (Verdict::Fail, None) }
            } else if !job.checks.iter().any(|check| compares(&check)) {
                (Verdict::Unchecked, Some("no check compares a tensor: devices agree on nothing".to_string()))
            } else if whole {
                (Verdict::Pass, None)
            } else {
                let interrupted = of.iter().any(|report| report.verdict == Verdict::Interrupted);
                let why = ended.map(|(report, name)| format!(": `{name}` ended with {}", report.verdict.name())).unwrap_or_default();
                let verdict = if interrupted { Verdict::Interrupted } else { Verdict::Error };
                (verdict, Some(format!("{} of {count} rounds were compared in full{why}", self.rounds)))
            };
        // What they have in common is said once; one that is absent has nothing to say.
        let both = |part: fn(&Report) -> &str| match of.map(part) {
            [a, b] if a == b || b.is_empty() => a.to_string(),
            ["", b] => b.to_string(),
            [a, b] => format!("{a} ~ {b}"),
        };
        let left_out = self.checks.iter().zip(&job.checks).filter(|(_, check)| compares(check)).map(|(report, _)| report.left_out).max();
        Report {
            summary: job.summary.clone(),
            reason,
            device: both(|report| &report.device),
            driver: both(|report| &report.driver),
            backend: both(|report| &report.backend),
            trust: of[0].trust,
            seed: job.rounds.seed,
            rounds: count,
            not_selected: job.rounds.count - count,
            run: self.rounds,
            checked: self.rounds,
            left_out: left_out.unwrap_or(0),
            failed_rounds: self.failed_rounds,
            checks: self.checks.into_iter().zip(&job.checks).filter(|(_, check)| compares(check)).map(|(report, _)| report).collect(),
            failures: self.failures,
            between: Some(names.map(String::clone)),
            ..Report::empty("", verdict)
        }
    }
}

/// Compares the elements of two outputs, of which `want` stands for what is expected.
fn judge(check: &Check, dtype: crate::tensor::Dtype, tolerance: &Tolerance, got: &[u8], want: &[u8]) -> (Census, Option<Sums>) {
    let mut census = Census::default();
    let mut sums = tolerance.has_metrics().then(Sums::default);
    if !check.unordered {
        compare_bytes(dtype, got, want, 0, tolerance, &mut census);
        if let Some(sums) = &mut sums {
            sums.add_bytes(dtype, got, want, tolerance.nan_equal);
        }
        return (census, sums);
    }
    let size = dtype.size();
    let mut set = Multiset::new(dtype, (got.len() / size) as u64);
    let (mut floats, mut ints) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
    for (got, want) in got.chunks(BLOCK * size).zip(want.chunks(BLOCK * size)) {
        let numbers = (0..want.len() / size).map(|i| dtype.decode(dtype.load(want, i)));
        if dtype.is_float() {
            floats.clear();
            floats.extend(numbers.map(|number| number.to_f64()));
            set.add(dtype, got, Block::Float(&floats));
        } else {
            ints.clear();
            ints.extend(numbers.map(|number| number.to_integer().unwrap_or(0)));
            set.add(dtype, got, Block::Int(&ints));
        }
    }
    set.compare(dtype, tolerance, false, &mut census, sums.as_mut());
    (census, sums)
}

impl Seat<'_> {
    /// The index of the device.
    pub fn device(&self) -> usize {
        self.device
    }

    /// Leaves the outputs of the round in a slot, which was just checked, and waits while it is too far ahead of another.
    pub(super) fn leave(&self, job: &Job, plan: &Plan, slot: &Slot, host: &HostSide) {
        let last = plan.rounds.is_last(slot.nth);
        let due = |check: &Check| check.between.is_some() && check.every.is_due(slot.round, last);
        let checks = job.checks.iter().enumerate();
        let outputs = checks.map(|(index, check)| due(check).then(|| output(Round { job, plan, slot }, host, index))?).collect();
        let left = Left { round: slot.round, set: slot.set, outputs };
        let exchange = self.exchange;
        let mut inner = exchange.inner();
        let devices = inner.left.len();
        inner.rounds.entry(slot.nth).or_insert_with(|| (0..devices).map(|_| None).collect())[self.device] = Some(left);
        inner.left[self.device] = slot.nth + 1;
        drop(inner);
        exchange.compare_whole();
        exchange.changed.notify_all();
        let mut inner = exchange.inner();
        let ahead = |inner: &Inner| (0..devices).any(|other| inner.runs[other] && inner.left[other] + MOST_AHEAD <= slot.nth);
        while ahead(&inner) {
            inner = exchange.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The elements that a check compares; `None` where they are not known.
fn output(round: Round<'_>, host: &HostSide, index: usize) -> Option<Output> {
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    if check.part.is_none() && check.mask.is_none() {
        return Some(Output { bytes: slot.output(plan, check.tensor)?.to_vec(), places: None });
    }
    let inputs = RoundInputs { plan, slot, host };
    // Its programs are prepared, as it was just evaluated; what is expected is another matter.
    let source = Source { want: None, scratch: None, ..source(round, &inputs, &host.work, index).ok()? };
    let mut output = Output { bytes: Vec::new(), places: Some(Vec::new()) };
    let take = &mut |got: &[u8], _: Option<Block<'_>>, at: &[u64]| {
        output.bytes.extend_from_slice(got);
        output.places.iter_mut().for_each(|places| places.extend_from_slice(at));
    };
    source.blocks(0, source.elements(), &mut Gather::default(), None, take).ok()?;
    Some(output)
}
