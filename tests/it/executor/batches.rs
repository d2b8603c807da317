//! Rounds that are submitted at once: what each came to does not depend on how many there are, and each has its own verdict.

use runjob::data::Source;
use runjob::device::cpu::BlockAt;
use runjob::device::{Chaos, ChaosOptions, NO_OFFSET, Word};
use runjob::exec::{self, Progress};
use runjob::job::{Action, Argument, Contents, Job, Var, VarSource, View};
use runjob::plan::{Host, Trust};
use runjob::tensor::{Access, Dtype, Param};
use runjob::verdict::{Event, Kind, Verdict};

use super::modes::{Mode, Outcome, run, run_on};
use crate::planner::jobs;

const N: u64 = 33;

/// What a kernel of these tests is given.
struct Args {
    x: *const f32,
    y: *mut f32,
    round: u32,
}

unsafe fn args(args: *const *mut u8) -> Args {
    // SAFETY: the arguments are those of `job`.
    unsafe { Args { x: (*args).cast(), y: (*args.add(1)).cast(), round: (*args.add(2)).cast::<u32>().read() } }
}

/// y = x + w + the round; in some rounds something else.
unsafe fn sums(list: *const *mut u8, _: &BlockAt) {
    // SAFETY: `x`, `y` and `w` have N elements, with guards behind them.
    unsafe {
        let Args { x, y, round } = args(list);
        let w = (*list.add(3)).cast::<f32>();
        for i in 0..N as usize {
            match round {
                // Nothing is written, a part is, one element is wrong, one is behind the end.
                11 => {}
                13 if i > 20 => {}
                17 if i == 5 => y.add(i).write(-1.0),
                _ => y.add(i).write(x.add(i).read() + w.add(i).read() + round as f32),
            }
        }
        if round == 19 {
            y.add(N as usize + 2).write(0.0);
        }
    }
}

/// A job with inputs that are new every round, sets, a variable and a warm-up.
fn job(code: runjob::device::cpu::Builtin, rounds: u64, spaced: bool) -> Job {
    let whole = Source::Integers { low: 0, high: 100 };
    let mut tensors = vec![
        jobs::tensor("x", Dtype::F32, N, jobs::drawn(whole.clone())),
        jobs::tensor("y", Dtype::F32, N, Contents::None),
        jobs::tensor("w", Dtype::F32, N, Contents::Sets(vec![whole; 3])),
    ];
    tensors.iter_mut().for_each(|t| t.spaced = spaced);
    let tensor = |access, tensor: usize| Argument::Tensor { access, view: View { tensor, offset: 0, len: tensors[tensor].device_bytes() } };
    let list = vec![tensor(Access::In, 0), tensor(Access::Out, 1), Argument::Scalar(Word::Var(0)), tensor(Access::In, 2)];
    let params = ["in f32 x", "out f32 y", "u32 round", "in f32 w"].iter().map(|p| Param::parse(p).unwrap()).collect();
    let steps = vec![Action::Launch { kernel: 0, grid: [Word::Const(1); 3], offset: NO_OFFSET, args: list }];
    let checks = vec![jobs::check(1, vec![jobs::want(&tensors, 1, "x + w + round")])];
    let mut job = jobs::job(tensors, vec![jobs::kernel("sums", code, params, [1; 3])], steps, checks, rounds, 3);
    job.vars.push(Var { text: "round".into(), source: VarSource::Scalar { value: jobs::scalar("round", false), dtype: Dtype::U32 } });
    job.rounds.warmup = 2;
    job
}

/// How many rounds are submitted at once, on devices with memory of their own and without.
fn modes() -> Vec<Mode> {
    let mut modes = Vec::new();
    for (batch, slots) in [(1, 3), (2, 1), (3, 3), (7, 2), (64, 3)] {
        for discrete in [true, false] {
            let host = if batch == 3 { Host::Pool } else { Host::Inline };
            modes.extend([Trust::Standard, Trust::Fast].map(|trust| Mode { discrete, batch, slots, host, trust, ..Mode::default() }));
        }
    }
    modes
}

/// All that a run tells of rounds, where NaN equals NaN.
fn told(outcome: &Outcome) -> String {
    let r = &outcome.report;
    format!("{:?}", (r.verdict, &r.reason, r.rounds, r.run, r.checked, r.failed_rounds, &r.checks, &r.failures))
}

#[test]
fn every_round_has_the_same_verdict_however_many_are_submitted_at_once() {
    let job = job(sums, 40, false);
    for trust in [Trust::Standard, Trust::Fast] {
        let mut first = None;
        for mode in modes().into_iter().filter(|mode| mode.trust == trust) {
            let outcome = run(&job, &mode);
            let report = &outcome.report;
            let rounds: Vec<(Kind, u64)> = report.failures.iter().map(|f| (f.kind, f.round)).collect();
            let mut wanted = vec![(Kind::Mismatch, 11), (Kind::Mismatch, 13), (Kind::Mismatch, 17)];
            wanted.extend((trust == Trust::Standard).then_some((Kind::OutOfBounds, 19)));
            assert_eq!((report.verdict, rounds), (Verdict::Fail, wanted), "{mode:?}");
            if trust == Trust::Standard {
                // What nothing wrote holds the poison, not what an earlier round of the slot left.
                assert!(report.failures[..2].iter().all(|f| f.mismatches.iter().all(|m| m.mismatch.got.to_f64().is_nan())), "{mode:?}");
                let patterns = report.failures[1].patterns.join("; ");
                assert!(patterns.contains("never written"), "{mode:?}: {patterns}");
                assert_eq!(&told(&outcome), first.get_or_insert_with(|| told(&outcome)), "{mode:?}");
            }
        }
    }
}

#[test]
fn rounds_before_one_that_cannot_be_filled_have_their_verdicts() {
    unsafe fn right(list: *const *mut u8, _: &BlockAt) {
        // SAFETY: as for `sums`.
        unsafe {
            let Args { x, y, round } = args(list);
            let w = (*list.add(3)).cast::<f32>();
            (0..N as usize).for_each(|i| y.add(i).write(x.add(i).read() + w.add(i).read() + round as f32));
        }
    }
    let mut job = job(right, 40, false);
    // No whole batch, and no number of rounds that there is a graph for.
    job.vars.push(Var {
        text: "10 // (19 - round)".into(),
        source: VarSource::Scalar { value: jobs::scalar("10 // (19 - round)", false), dtype: Dtype::U32 },
    });
    for mode in modes() {
        let report = run(&job, &mode).report;
        assert_eq!((report.verdict, report.run, report.checked), (Verdict::Error, 19, 19), "{mode:?}: {:?}", report.reason);
        assert!(report.reason.unwrap().contains("in round 19"), "{mode:?}");
    }
}

#[test]
fn a_call_that_fails_is_told_with_the_rounds_that_it_was_for() {
    let mut job = job(sums, 40, false);
    job.rounds.warmup = 0;
    let mode = Mode { discrete: true, batch: 4, slots: 2, ..Mode::default() };
    let mut told = std::collections::BTreeSet::new();
    for n in 1..200 {
        let outcome = run_on(&job, &mode, Box::new(Chaos::new(mode.device(), ChaosOptions { seed: n, fail: Some(n) })), &Progress::new());
        let report = outcome.report;
        if report.verdict != Verdict::Error {
            break;
        }
        let reason = report.reason.unwrap();
        if let Some((_, rounds)) = reason.split_once("; in one of rounds ") {
            let (first, last) = rounds.split_once(" to ").unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            assert!(first % 4 == 0 && last == first + 3 && report.run == first, "{reason}, {} rounds", report.run);
            // What the other rounds left is looked at, one by one.
            let looked: Vec<u64> = report.salvage.checks.iter().map(|check| check.round).collect();
            if reason.starts_with("wait failed") {
                assert!((first..=last).all(|round| looked.contains(&round)), "{reason}: {looked:?}");
                let wrong = |round: &u64| [11, 13, 17].contains(round);
                assert!(report.salvage.checks.iter().all(|check| check.problem.is_some() == wrong(&check.round)), "{:?}", report.salvage);
            }
            told.insert(first);
        }
    }
    assert_eq!(told.into_iter().collect::<Vec<_>>(), (0..10).map(|turn| turn * 4).collect::<Vec<_>>());
}

#[test]
fn poison_differs_from_batch_to_batch_and_not_within() {
    let job = job(sums, 40, false);
    let mode = Mode { discrete: true, batch: 4, slots: 1, ..Mode::default() };
    let plan = mode.plan(&job, mode.device().as_ref());
    let word = |nth| runjob::plan::poison_of(&job, 1, plan.turn(nth, nth));
    assert!((0..40).all(|nth| word(nth) == word(nth / 4 * 4)));
    assert!((0..36).all(|nth| word(nth) != word(nth + 4)));
}

#[test]
fn a_stale_output_is_found_in_every_place_of_a_batch() {
    // What the first batch computed would be right for ever: nothing else is written.
    unsafe fn copies(list: *const *mut u8, _: &BlockAt) {
        // SAFETY: as for `sums`.
        unsafe {
            let Args { x, y, round } = args(list);
            if round < 4 {
                (0..N as usize).for_each(|i| y.add(i).write(x.add(i).read()));
            }
        }
    }
    let mut job = job(copies, 12, false);
    // The same in every round: without poison, what a slot has would pass.
    job.tensors[0].contents = Contents::Fixed(Source::Integers { low: 0, high: 100 });
    job.tensors[2].contents = Contents::Fixed(Source::Fill(0));
    job.checks = vec![jobs::check(1, vec![jobs::want(&job.tensors, 1, "x + 0 * w")])];
    for discrete in [true, false] {
        let mode = Mode { discrete, batch: 4, slots: 1, ..Mode::default() };
        let report = run(&job, &mode).report;
        assert_eq!((report.verdict, report.failed_rounds), (Verdict::Fail, 8), "{mode:?}");
        assert_eq!(report.failures.iter().map(|f| f.round).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
        // The negative twin: at level fast nothing is poisoned after the set-up, and the old answer passes.
        assert_eq!(run(&job, &Mode { trust: Trust::Fast, ..mode }).report.verdict, Verdict::Pass);
    }
}

#[test]
fn the_device_s_time_of_a_batch_is_that_of_its_rounds() {
    let mut job = job(sums, 20, false);
    job.checks[0].tolerance.exact = false;
    job.checks[0].tolerance.max_mismatches = N;
    for mode in modes().into_iter().filter(|mode| mode.trust == Trust::Fast) {
        let device = mode.device();
        let plan = mode.plan(&job, device.as_ref());
        if plan.schedule.slots == 1 {
            // What runs inside the call that submits it has no time of its own.
            continue;
        }
        let mut device = runjob::device::Trace::new(device, runjob::device::TraceOptions::default());
        let options = exec::Options { threads: 1, device_times: true, ..exec::Options::default() };
        let mut times = None;
        exec::run(&job, &plan, &mut device, &options, &Progress::new(), &mut |event| {
            if let Event::Done(report) = event {
                times = Some(report.times);
            }
        });
        let times = times.unwrap();
        assert!(times.device.is_some_and(|ns| ns > 0) && times.rounds == 20, "{mode:?}: {times:?}");
        assert!(times.sampled <= 20 && times.fill + times.check <= times.total, "{mode:?}: {times:?}");
    }
}
