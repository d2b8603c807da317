//! How rounds are measured: more of them until their times are known, cold caches, the device's clock, rates.

use std::time::Duration;

use runjob::device::cpu::{self, CpuOptions};
use runjob::device::{Caps, Clock, Cmd, NullDevice, Peak, Trace, TraceOptions};
use runjob::exec::{self, Progress};
use runjob::job::{Every, Job, Stopping};
use runjob::plan::{Options, Plan, PlanError, build};
use runjob::verdict::{Event, Report, TimeOf, Verdict};

use super::modes::{Mode, run, run_plan};
use super::{expressions, verdicts};

fn of_one_lane() -> Vec<Mode> {
    Mode::all().into_iter().filter(|mode| mode.lanes == 1).collect()
}

/// A rule that ends soon.
fn soon(rel_error: Option<f64>) -> Option<Stopping> {
    Some(Stopping { min_time: Duration::from_millis(2), rel_error, longest: Duration::from_millis(20) })
}

/// Runs a job on a device with a clock.
fn timed(job: &Job, mode: &Mode, clock: Clock) -> (Plan, Report) {
    let options =
        CpuOptions { threads: Some(mode.threads), discrete: mode.discrete, compilers: Some(Vec::new()), clock, ..CpuOptions::default() };
    let device = cpu::open(options).unwrap();
    let plan = mode.plan(job, &device);
    let mut device = Trace::new(Box::new(device), TraceOptions { log: false, contract: true });
    let mut report = None;
    let options = exec::Options { threads: mode.threads, clock, ..exec::Options::default() };
    exec::run(job, &plan, &mut device, &options, &Progress::new(), &mut |event| {
        if let Event::Done(done) = event {
            report = Some(*done);
        }
    });
    (plan, report.unwrap())
}

#[test]
fn rounds_go_on_by_whole_counts_and_every_one_is_checked() {
    let mut job = expressions();
    job.rounds.count = 5;
    job.bench.stopping = soon(None);
    job.checks[0].every = Every(3);
    for mode in of_one_lane() {
        let report = run(&job, &mode).report;
        assert_eq!(report.verdict, Verdict::Pass, "{mode:?}: {:?} {:?}", report.reason, report.failures);
        assert_eq!((report.rounds, report.checked, report.failed_rounds), (5, report.run, 0), "{mode:?}");
        assert!(report.run >= 5 && report.run.is_multiple_of(5), "{mode:?}: {}", report.run);
        // By its number, and at the end of every count.
        let due = (0..report.run).filter(|round| (round + 1) % 3 == 0 || (round + 1) % 5 == 0).count() as u64;
        assert_eq!((report.checks[0].rounds, report.checks[1].rounds), (due, report.run), "{mode:?}");
        let round = report.times.round.unwrap();
        assert_eq!((round.rounds, round.of), (report.run, if mode.slots == 1 { TimeOf::Run } else { TimeOf::Whole }), "{mode:?}");
        let stopped = report.stopped.unwrap();
        assert_eq!((stopped.min_time, stopped.reached), (2_000_000, round.total >= 2_000_000), "{mode:?}");
    }
}

#[test]
fn rounds_that_were_not_asked_for_are_none_where_the_rule_is_kept_at_once() {
    let mut job = expressions();
    let once = run(&job, &Mode::default());
    job.bench.stopping = Some(Stopping { min_time: Duration::from_nanos(1), rel_error: None, longest: Duration::from_secs(60) });
    let outcome = run(&job, &Mode::default());
    assert_eq!(verdicts(&outcome), verdicts(&once));
    assert_eq!((outcome.report.run, outcome.report.stopped.unwrap().reached), (12, true));
    assert_eq!(once.report.stopped, None);
}

#[test]
fn no_rounds_follow_one_that_failed() {
    let mut job = expressions();
    job.rounds.count = 3;
    job.bench.stopping = Some(Stopping { min_time: Duration::from_secs(60), rel_error: None, longest: Duration::from_secs(600) });
    job.checks[2].wants = vec![crate::planner::jobs::want(&job.tensors, 5, "where(round > 9, drawn + 1, drawn)")];
    for mode in of_one_lane() {
        let report = run(&job, &mode).report;
        assert_eq!((report.verdict, report.failures[0].round), (Verdict::Fail, 10), "{mode:?}");
        // 3, 6 and 12: not more than were run before.
        assert_eq!((report.run, report.stopped.unwrap().reached), (12, false), "{mode:?}");
    }
}

#[test]
fn fewer_rounds_than_a_count_are_never_all() {
    let mut job = expressions();
    let plan = |job: &Job| Mode::default().plan(job, Mode::default().device().as_ref());
    let rounds = plan(&job).rounds;
    for (run, all) in [(0, false), (11, false), (12, true), (13, false), (24, false)] {
        assert_eq!(rounds.are_all(run), all, "{run}");
    }
    job.bench.stopping = soon(None);
    let rounds = plan(&job).rounds;
    for (run, all) in [(0, false), (11, false), (12, true), (13, false), (24, true), (rounds.most + 12, false)] {
        assert_eq!(rounds.are_all(run), all, "{run}");
    }
    assert!(rounds.most > 1 << 31 && rounds.most % 12 == 0, "{}", rounds.most);
    assert_eq!([10, 11, 12, 23].map(|nth| rounds.is_last(nth)), [false, true, false, true]);
}

#[test]
fn devices_that_are_compared_run_what_was_asked_for() {
    let mut job = expressions();
    (job.bench.stopping, job.bench.cold, job.compared) = (soon(None), true, true);
    let plan = Mode::default().plan(&job, Mode::default().device().as_ref());
    assert_eq!((plan.rounds.more, plan.rounds.most, plan.flush), (None, 12, None));
}

#[test]
fn measured_rounds_have_one_lane() {
    let mut stopping = expressions();
    stopping.tensors.iter_mut().for_each(|tensor| tensor.carry = false);
    let mut cold = stopping.clone();
    (stopping.bench.stopping, cold.bench.cold) = (soon(None), true);
    for job in [stopping, cold] {
        let device = Mode::default().device();
        let two = build(&job, device.caps(), &Options { lanes: Some(2), ..Options::default() });
        assert!(matches!(two, Err(PlanError::Lanes { lanes: 2, .. })));
        assert_eq!(build(&job, device.caps(), &Options::default()).unwrap().schedule.lanes, 1);
    }
}

#[test]
fn caches_are_flushed_behind_all_that_comes_before_the_steps() {
    let mut job = expressions();
    job.bench.cold = true;
    for mode in of_one_lane() {
        let (device, mib) = (mode.device(), 1 << 20);
        for (cache, wanted) in [(Some(mib), 2 * mib + (64 << 10)), (None, 256 * mib)] {
            let caps = Caps { peak: Peak { cache, ..Peak::default() }, ..device.caps().clone() };
            let plan = build(&job, &caps, &mode.options()).unwrap();
            let flush = plan.flush.as_ref().unwrap();
            assert_eq!(flush.bytes, wanted.min(caps.memory / 4), "{mode:?}");
            let memory = &plan.memories[flush.memory as usize];
            assert_eq!((memory.name, memory.bytes), ("flush", flush.bytes));
            assert!(plan.cost.device_peak >= flush.bytes && plan.cost.round_filled < flush.bytes, "it is no work of the round");
            for nodes in &plan.graphs {
                let at = nodes.iter().position(|n| matches!(n.cmd, Cmd::Fill { dst, .. } if dst.mem.0 == flush.memory)).unwrap();
                assert_eq!(nodes[at].after, (0..at as u32).collect::<Vec<_>>());
                let mut behind = vec![false; nodes.len()];
                for node in at..nodes.len() {
                    behind[node] = node == at || nodes[node].after.iter().any(|&after| behind[after as usize]);
                }
                assert!(behind[at..].iter().all(|&behind| behind), "{mode:?}: {nodes:?}");
                assert!(nodes.len() - at > job.steps.len());
            }
        }
    }
}

#[test]
fn rounds_with_cold_caches_are_timed_by_their_steps() {
    let mut job = expressions();
    job.bench.cold = true;
    job.limits.device_memory = Some(4 << 20);
    for mode in of_one_lane() {
        let (_, report) = timed(&job, &mode, Clock::Steps);
        assert_eq!(report.verdict, Verdict::Pass, "{mode:?}: {:?}", report.failures);
        let round = report.times.round.unwrap();
        assert_eq!((round.of, round.rounds, Some(round.total)), (TimeOf::Steps, 12, report.times.device), "{mode:?}");
        // Without a clock of its own a device says nothing: what it takes is mostly the flush.
        let outcome = run(&job, &mode);
        assert_eq!(outcome.report.verdict, Verdict::Pass, "{mode:?}: {:?}", outcome.report.failures);
        assert!(outcome.report.cold && outcome.report.times.round.is_none() && outcome.report.times.device.is_none());
    }
}

#[test]
fn times_of_steps_add_up_to_those_of_rounds() {
    let job = expressions();
    // Of rounds that are submitted at once, no step has a time of its own.
    for mode in of_one_lane().into_iter().filter(|mode| mode.batch <= 1) {
        let (plan, report) = timed(&job, &mode, Clock::Steps);
        assert_eq!(report.verdict, Verdict::Pass, "{mode:?}: {:?}", report.failures);
        assert_eq!(report.steps.len(), job.origins.len() + 2, "{mode:?}");
        let round = report.times.round.unwrap();
        assert_eq!((round.of, round.rounds), (TimeOf::Steps, 12));
        let steps = &report.steps[1..report.steps.len() - 1];
        let sum: f64 = steps.iter().map(|step| step.mean).sum();
        assert!((sum - round.mean).abs() < 1.0 && (report.steps.iter().map(|s| s.share).sum::<f64>() - 1.0).abs() < 1e-9, "{report:?}");
        assert!(steps.iter().all(|step| step.turns >= 1 && step.min as f64 <= step.mean), "{steps:?}");
        assert!(report.times.device.unwrap() >= round.total, "{mode:?}");
        assert_eq!(report.steps[report.steps.len() - 1].mean == 0.0, plan.trailing(0) == 0, "{mode:?}");
        let (_, report) = timed(&job, &mode, Clock::Rounds);
        let round = report.times.round.unwrap();
        assert_eq!((round.of, round.rounds, round.total), (TimeOf::Device, 12, report.times.device.unwrap()), "{mode:?}");
        assert!(report.steps.is_empty());
    }
}

#[test]
fn a_time_that_cannot_be_is_told() {
    let mut job = expressions();
    (job.bench.bytes, job.bench.flops) = (Some(job.reach()), Some(1000));
    let mode = Mode::default();
    let plan = mode.plan(&job, mode.device().as_ref());
    let device = |peak| Box::new(NullDevice::new(Caps { peak, ..mode.device().caps().clone() }));
    let rates = |peak| run_plan(&job, plan.clone(), &mode, device(peak), &Progress::new()).report.rates.unwrap();
    let slow = Peak { bytes_per_ns: Some(1e-9), flops_per_ns: Some(1e-9), most_flops_per_ns: Some(1e-9), cache: Some(0) };
    assert_eq!(rates(slow).impossible.len(), 2);
    for possible in [
        Peak { most_flops_per_ns: None, cache: None, ..slow },
        Peak { most_flops_per_ns: None, cache: Some(job.reach()), ..slow },
        Peak { bytes_per_ns: Some(1e9), flops_per_ns: Some(1e9), most_flops_per_ns: Some(1e9), cache: Some(0) },
        Peak::default(),
    ] {
        assert_eq!(rates(possible).impossible, Vec::<String>::new(), "{possible:?}");
    }
    job.bench.flops = None;
    job.bench.bytes = None;
    assert_eq!(run(&job, &mode).report.rates, None);
}
