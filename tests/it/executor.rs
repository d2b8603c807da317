//! What `exec::run` does with a job, in every mode: the same results as an interpreter that allocates everything afresh.

mod batches;
mod chaos;
mod faults;
mod interpreter;
mod modes;

use std::sync::Arc;

use proptest::prelude::*;
use runjob::job::{Job, Want};
use runjob::plan::Trust;
use runjob::verdict::{Kind, Verdict};

use crate::planner::jobs::{self, Style};
use interpreter::Interpreter;
use modes::{Mode, Outcome, run};

/// Puts what the interpreter computes into the job's goldens, by set.
fn with_goldens(mut job: Job) -> Job {
    let mut interpreter = Interpreter::new(&job);
    let mut wants = vec![vec![Want::Bytes(Arc::from([])); job.sets.len()]; job.checks.len()];
    for round in 0..job.rounds.count {
        let (set, tensors) = interpreter.round(round);
        for (check, wants) in job.checks.iter().zip(&mut wants) {
            let bytes = &tensors[check.tensor];
            match &wants[set] {
                Want::Bytes(before) if !before.is_empty() => assert_eq!(&before[..], bytes, "what a set gives depends on the round"),
                _ => wants[set] = Want::Bytes(Arc::from(bytes.as_slice())),
            }
        }
    }
    for (check, wants) in job.checks.iter_mut().zip(wants) {
        check.wants = wants;
    }
    job
}

/// Flips a bit of what one check wants in one set.
fn corrupt(job: &mut Job, check: usize, set: usize) {
    let Want::Bytes(bytes) = &job.checks[check].wants[set] else { panic!("a golden") };
    let mut bytes = bytes.to_vec();
    bytes[0] ^= 1;
    job.checks[check].wants[set] = Want::Bytes(Arc::from(bytes));
}

/// What no mode may change.
fn verdicts(outcome: &Outcome) -> impl PartialEq + std::fmt::Debug + use<> {
    let r = outcome.report.clone();
    (r.verdict, r.reason, r.rounds, r.run, r.checked, r.failed_rounds, r.checks, r.failures)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_equal_those_of_a_naive_interpreter(numbers in crate::planner::tape()) {
        let job = with_goldens(jobs::random(&numbers, Style { aligned: true, expressions: false }));
        for mode in Mode::all_of(&job) {
            let outcome = run(&job, &mode);
            prop_assert_eq!(outcome.report.verdict, Verdict::Pass, "{:?}: {:?} {:?}", mode, outcome.report.reason, outcome.report.failures);
            prop_assert_eq!(outcome.report.checked, job.rounds.count);
            outcome.counts_are_those_of_the_plan(&job, &mode);
        }
    }

    #[test]
    fn results_do_not_depend_on_where_views_start(numbers in crate::planner::tape()) {
        let job = with_goldens(jobs::random(&numbers, Style { aligned: false, expressions: false }));
        for (at, mode) in Mode::all_of(&job).into_iter().enumerate() {
            // Two of three bind at multiples of 256 bytes: views that start elsewhere are staged.
            let mode = Mode { bind: if at % 3 == 0 { 1 } else { 256 }, ..mode };
            let outcome = run(&job, &mode);
            prop_assert_eq!(outcome.report.verdict, Verdict::Pass, "{:?}: {:?} {:?}", mode, outcome.report.reason, outcome.report.failures);
            outcome.counts_are_those_of_the_plan(&job, &mode);
        }
    }

    #[test]
    fn one_wrong_golden_is_found_in_its_rounds_and_reported_alike(numbers in crate::planner::tape(), which: u16) {
        let mut job = with_goldens(jobs::random(&numbers, Style { aligned: true, expressions: false }));
        let (check, set) = (usize::from(which) % job.checks.len(), usize::from(which / 16) % job.sets.len());
        corrupt(&mut job, check, set);
        let mut first = None;
        for mode in Mode::all_of(&job) {
            let outcome = run(&job, &mode);
            let report = &outcome.report;
            prop_assert_eq!(report.verdict, Verdict::Fail);
            prop_assert!(report.failures.iter().all(|f| f.kind == Kind::Mismatch && f.mismatched == 1));
            prop_assert!(report.failures.iter().all(|f| f.set.as_ref() == Some(&job.sets[set])));
            prop_assert_eq!(report.checks[check].failed_rounds, report.failed_rounds);
            prop_assert_eq!(report.checked, job.rounds.count);
            prop_assert_eq!(&outcome.failed, &report.failures, "every failure is told once, when it is found");
            let said = verdicts(&outcome);
            prop_assert_eq!(&said, first.get_or_insert_with(|| verdicts(&outcome)), "{:?}", mode);
        }
    }
}

/// A job whose checks are expressions over every class of input.
fn expressions() -> Job {
    expressions_of(100, false)
}

/// Of so many elements; `spaced`: in rows of three that lie by four on the device.
fn expressions_of(n: u64, spaced: bool) -> Job {
    use runjob::data::Source;
    use runjob::job::{Action, Contents, View};
    use runjob::tensor::Dtype;
    let whole = Source::Integers { low: 0, high: 1000 };
    let u32s = |name: &str, contents| jobs::tensor(name, Dtype::U32, n, contents);
    let mut tensors = vec![
        u32s("resident", Contents::Fixed(whole.clone())),
        u32s("drawn", jobs::drawn(whole.clone())),
        u32s("sets", Contents::Sets(vec![whole.clone(); 3])),
        u32s("restored", Contents::Fixed(whole.clone())),
        u32s("overwritten", jobs::drawn(whole.clone())),
        u32s("carried", Contents::Fixed(whole.clone())),
        u32s("follower", Contents::Fixed(whole.clone())),
        u32s("hidden", jobs::drawn(whole)),
        u32s("out", Contents::None),
    ];
    tensors[5].carry = true;
    tensors[6].carry = true;
    tensors.iter_mut().for_each(|tensor| tensor.spaced = spaced);
    let len = tensors[0].device_bytes();
    let view = |tensor| View { tensor, offset: 0, len };
    let copy = |src, dst| Action::Copy { src: view(src), dst: view(dst) };
    // restored = sets, overwritten = carried, carried = drawn, out = resident, follower = out
    let steps = vec![copy(2, 3), copy(5, 4), copy(1, 5), copy(0, 8), copy(8, 6)];
    let claims = [
        (3, "sets + hidden - hidden"),
        (4, "carried + 0 * overwritten"),
        (5, "drawn"),
        (8, "resident + 0 * restored + 0 * sum(hidden)"),
        (6, "resident + 0 * follower"),
    ];
    let checks = claims.iter().map(|(t, text)| jobs::check(*t, vec![jobs::want(&tensors, *t, text)])).collect();
    jobs::job(tensors, Vec::new(), steps, checks, 12, 3)
}

/// Checks tensors against a row of a golden for each round, by the interpreter.
fn with_goldens_by_round(mut job: Job, outputs: &[usize]) -> Job {
    let mut interpreter = Interpreter::new(&job);
    let rounds: Vec<Vec<Vec<u8>>> = (0..job.rounds.count).map(|round| interpreter.round(round).1).collect();
    for &id in outputs {
        let tensor = &job.tensors[id];
        let rows: Vec<u32> = rounds.iter().flat_map(|tensors| bytemuck::pod_collect_to_vec::<u8, u32>(&tensors[id])).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        let shape = runjob::tensor::Shape::new(vec![rounds.len() as u64, tensor.shape.elements()]).unwrap();
        runjob::data::write(file.path(), tensor.dtype, &shape, bytemuck::cast_slice(&rows)).unwrap();
        let row = Some(jobs::scalar("round", false));
        let want = Want::File { file: Arc::new(runjob::data::Npy::open(file.path()).unwrap()), row };
        job.checks.push(jobs::check(id, vec![want]));
    }
    job
}

/// A job whose steps hang together in every way: read after write, write after read, write after write, with what is
/// streamed, restored, cleared, carried and poisoned; every byte comes to an output that differs from round to round.
fn with_integer_steps() -> Job {
    use runjob::data::Source;
    use runjob::job::{Action, Contents, View};
    use runjob::tensor::Dtype;
    let whole = Source::Integers { low: 0, high: 1000 };
    let n = 16;
    let u32s = |name: &str, contents| jobs::tensor(name, Dtype::U32, n, contents);
    let mut tensors = vec![
        u32s("drawn", jobs::drawn(whole.clone())),
        u32s("streamed", jobs::drawn(whole.clone())),
        u32s("restored", Contents::Fixed(whole.clone())),
        u32s("cleared", Contents::Fixed(Source::Fill(5))),
        u32s("carried", Contents::Fixed(whole)),
        u32s("scratch", Contents::None),
        u32s("out_a", Contents::None),
        u32s("out_b", Contents::None),
        u32s("out_c", Contents::None),
        u32s("out_d", Contents::None),
    ];
    tensors[4].carry = true;
    let view = |tensor| View { tensor, offset: 0, len: n * 4 };
    let half = |tensor, at| View { tensor, offset: at * n * 2, len: n * 2 };
    let copy = |src, dst| Action::Copy { src, dst };
    let steps = vec![
        copy(view(4), view(5)),       // scratch = carried
        copy(view(5), view(6)),       // out_a = carried
        copy(view(0), view(5)),       // scratch = drawn, after it was read
        copy(half(5, 0), half(4, 1)), // carried = [.., drawn]
        copy(half(3, 0), half(5, 1)), // scratch = [drawn, 5]
        copy(view(5), view(7)),       // out_b
        copy(half(1, 1), half(3, 0)), // cleared = [streamed, 5]
        copy(view(3), view(8)),       // out_c
        copy(half(2, 1), half(1, 0)), // streamed = [restored, streamed]
        copy(half(1, 1), half(2, 1)), // restored = [restored, streamed]
        copy(view(2), view(9)),       // out_d
    ];
    with_goldens_by_round(jobs::job(tensors, Vec::new(), steps, Vec::new(), 12, 0), &[1, 2, 3, 4, 6, 7, 8, 9])
}

#[test]
fn expectations_see_the_contents_of_their_round_in_every_mode() {
    for (warmup, spaced) in [(0, false), (2, false), (0, true), (2, true)] {
        let mut job = expressions_of(if spaced { 102 } else { 100 }, spaced);
        job.rounds.warmup = warmup;
        for mode in Mode::all_of(&job) {
            let outcome = run(&job, &mode);
            assert_eq!(outcome.report.verdict, Verdict::Pass, "{mode:?}: {:?} {:?}", outcome.report.reason, outcome.report.failures);
            outcome.counts_are_those_of_the_plan(&job, &mode);
        }
    }
}

/// A kernel that writes the even elements of a view that cannot be bound: the odd ones keep what they had.
#[test]
fn what_a_launch_leaves_of_a_staged_output_stays() {
    use runjob::data::Source;
    use runjob::device::Word;
    use runjob::job::{Action, Argument, Contents, View};
    use runjob::tensor::{Access, Dtype, Param};
    unsafe fn evens(args: *const *mut u8, _: &runjob::device::cpu::BlockAt) {
        // SAFETY: the argument is a view of 10 elements.
        (0..10).step_by(2).for_each(|i| unsafe { (*args).cast::<u32>().add(i).write(7) });
    }
    let tensors = vec![
        jobs::tensor("x", Dtype::U32, 16, jobs::drawn(Source::Integers { low: 100, high: 1000 })),
        jobs::tensor("y", Dtype::U32, 16, Contents::None),
    ];
    let whole = |tensor| View { tensor, offset: 0, len: 64 };
    let part = View { tensor: 1, offset: 12, len: 40 };
    let launch = Action::Launch {
        kernel: 0,
        grid: [Word::Const(1); 3],
        offset: runjob::device::NO_OFFSET,
        args: vec![Argument::Tensor { access: Access::Out, view: part }],
    };
    let copy = Action::Copy { src: whole(0), dst: whole(1) };
    let want = |text: &str| jobs::check(1, vec![jobs::want(&tensors, 1, text)]);
    let right = "where((index(0) >= 3 and index(0) < 13) and index(0) % 2 == 1, 7, x)";
    let checks = vec![want(right)];
    let kernels = vec![jobs::kernel("evens", evens, vec![Param::parse("out u32 y").unwrap()], [1; 3])];
    let mut job = jobs::job(tensors.clone(), kernels, vec![copy, launch], checks, 6, 0);
    let mut wrong = job.clone();
    for mode in Mode::all_of(&job) {
        for bind in [1, 256] {
            let mode = Mode { bind, ..mode };
            let outcome = run(&job, &mode);
            assert_eq!(outcome.report.verdict, Verdict::Pass, "{mode:?}: {:?} {:?}", outcome.report.reason, outcome.report.failures);
            assert_eq!(outcome.plan.staged.len(), usize::from(bind == 256));
            outcome.counts_are_those_of_the_plan(&job, &mode);
        }
    }
    // The negative twin: what nothing put there is missed.
    wrong.checks = vec![want("where(index(0) >= 3 and index(0) < 13, 7, x)")];
    assert_eq!(run(&wrong, &Mode { bind: 256, ..Mode::default() }).report.verdict, Verdict::Fail);
    // A kernel that runs over its copy hits a guard.
    unsafe fn over(args: *const *mut u8, _: &runjob::device::cpu::BlockAt) {
        // SAFETY: behind the view's 10 elements are 128 bytes of guard.
        (0..12).for_each(|i| unsafe { (*args).cast::<u32>().add(i).write(7) });
    }
    job.kernels = vec![jobs::kernel("over", over, vec![Param::parse("out u32 y").unwrap()], [1; 3])];
    job.checks = vec![want("where(index(0) >= 3 and index(0) < 13, 7, x)")];
    for discrete in [false, true] {
        let report = run(&job, &Mode { discrete, bind: 256, ..Mode::default() }).report;
        assert!(report.failures.iter().all(|f| f.kind == Kind::OutOfBounds), "{:?}", report.failures);
        assert_eq!((report.verdict, report.failed_rounds), (Verdict::Fail, 6));
    }
}

type SetLimit = fn(&mut Job, u64);
type Peak = fn(&runjob::plan::Plan) -> u64;

/// Runs a job with less and less memory, until it does not fit; returns what was given up.
fn with_less_and_less(job: &Job, mode: &Mode, set: SetLimit, peak: Peak) -> String {
    let mut job = job.clone();
    let mut given_up = String::new();
    let options = runjob::plan::Options { lanes: None, slots: None, batch: None, host: None, ..mode.options() };
    loop {
        let device = mode.device();
        let plan = match runjob::plan::build(&job, device.caps(), &options) {
            Ok(plan) => plan,
            Err(error) => {
                given_up += &error.to_string();
                return given_up;
            }
        };
        plan.rungs.iter().for_each(|rung| given_up += &format!("{}: {}\n", rung.what, rung.reason));
        let outcome = modes::run_plan(&job, plan.clone(), mode, device, &runjob::exec::Progress::new());
        assert_eq!(outcome.report.verdict, Verdict::Pass, "{:?}: {:?} {:?}", plan.rungs, outcome.report.reason, outcome.report.failures);
        set(&mut job, peak(&plan) - 1);
    }
}

#[test]
fn rounds_are_right_whatever_memory_is_short() {
    [false, true].into_iter().for_each(rounds_are_right_with_little_memory);
}

fn rounds_are_right_with_little_memory(spaced: bool) {
    let mut job = expressions_of(3000, spaced);
    job.rounds.count = 40;
    let device: (SetLimit, Peak) = (|job, limit| job.limits.device_memory = Some(limit), |p| p.cost.device_peak);
    let host: (SetLimit, Peak) = (|job, limit| job.limits.host_memory = Some(limit), |p| p.cost.host_peak);
    for discrete in [false, true] {
        let mode = Mode { discrete, threads: 2, ..Mode::default() };
        for (set, peak) in [device, host] {
            let given_up = with_less_and_less(&job, &mode, set, peak);
            for rung in ["uploads instead of pristine copies: ", "uploads instead of sets that stay: ", "the job needs ", "would do"] {
                assert!(given_up.contains(rung), "{discrete}: {rung}\n{given_up}");
            }
        }
    }
    job.tensors.iter_mut().for_each(|t| t.carry = false);
    job.checks.retain(|c| !matches!(c.tensor, 4..=6));
    let given_up = with_less_and_less(&job, &Mode { threads: 2, ..Mode::default() }, device.0, device.1);
    assert!(given_up.contains("1 lane: 2 would need "), "{given_up}");
}

#[test]
fn an_expectation_that_is_off_by_one_in_late_rounds_fails_in_those_alone() {
    let mut job = expressions();
    job.checks[2].wants = vec![jobs::want(&job.tensors, 5, "where(round > 8, drawn + 1, drawn)")];
    let mut first = None;
    for mode in Mode::all_of(&job) {
        let outcome = run(&job, &mode);
        assert_eq!((outcome.report.verdict, outcome.report.failed_rounds), (Verdict::Fail, 3), "{mode:?}");
        // `overwritten` is what `carried` was by expectation: it fails from the round after on.
        let rounds: Vec<u64> = outcome.report.failures.iter().map(|f| f.round).collect();
        assert_eq!(rounds, [9, 10, 10, 11, 11], "{mode:?}");
        assert_eq!(&verdicts(&outcome), first.get_or_insert_with(|| verdicts(&outcome)), "{mode:?}");
    }
}

#[test]
fn shuffled_sets_come_in_the_order_of_the_seed() {
    let mut job = expressions();
    job.rounds.order = runjob::spec::Order::Shuffle;
    for mode in Mode::all_of(&job) {
        let outcome = run(&job, &mode);
        assert_eq!(outcome.report.verdict, Verdict::Pass, "{mode:?}: {:?}", outcome.report.failures);
    }
}

#[test]
fn nothing_run_and_nothing_checked_are_no_pass() {
    let mut job = expressions();
    let checks = std::mem::take(&mut job.checks);
    assert_eq!(run(&job, &Mode::default()).report.verdict, Verdict::Unchecked);
    job.checks = checks;
    job.rounds.count = 0;
    for mode in Mode::all_of(&job) {
        assert_eq!(run(&job, &mode).report.verdict, Verdict::Error);
    }
}

#[test]
fn poison_stands_in_outputs_before_the_first_round_at_every_level() {
    use runjob::job::{Action, Contents, View};
    use runjob::tensor::{Access, Dtype};
    unsafe fn nothing(_: *const *mut u8, _: &runjob::device::cpu::BlockAt) {}
    let tensors = vec![jobs::tensor("y", Dtype::F32, 50, Contents::None)];
    let params = vec![runjob::tensor::Param::parse("out f32 y").unwrap()];
    let view = View { tensor: 0, offset: 0, len: 200 };
    let args = vec![runjob::job::Argument::Tensor { access: Access::Out, view }];
    let grid = [runjob::device::Word::Const(1); 3];
    let checks = vec![jobs::check(0, vec![jobs::want(&tensors, 0, "0.0")])];
    let kernels = vec![jobs::kernel("nothing", nothing, params, [1; 3])];
    let job = jobs::job(tensors, kernels, vec![Action::Launch { kernel: 0, grid, offset: runjob::device::NO_OFFSET, args }], checks, 2, 0);
    for mode in Mode::all_of(&job) {
        // A kernel that writes nothing would pass where memory starts as zeros.
        let outcome = run(&job, &mode);
        assert_eq!(outcome.report.verdict, Verdict::Fail, "{mode:?}");
        assert!(outcome.report.failures[0].mismatches[0].mismatch.got.to_f64().is_nan() || mode.trust == Trust::Fast, "{mode:?}");
    }
}
