//! Kernels and devices that go wrong, and what is said of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use runjob::data::Source;
use runjob::device::cpu::{BlockAt, Builtin};
use runjob::device::{Caps, Chaos, ChaosOptions, NO_OFFSET, NullDevice, Word};
use runjob::exec::Progress;
use runjob::job::{Action, Argument, Contents, Job, Tensor, Var, VarSource, View, Want};
use runjob::plan::Trust;
use runjob::tensor::{Access, Dtype, Param};
use runjob::verdict::{Kind, Verdict};

use super::modes::{Mode, run, run_on, run_plan};
use crate::planner::jobs;

#[test]
fn after_any_failed_call_everything_is_freed_and_the_rounds_before_stand() {
    let mut job = super::expressions();
    job.rounds.warmup = 1;
    for mode in Mode::all_of(&job).into_iter().filter(|m| m.threads == 1 && m.trust == Trust::Standard) {
        let mut runs = Vec::new();
        for n in 1.. {
            let outcome =
                run_on(&job, &mode, Box::new(Chaos::new(mode.device(), ChaosOptions { seed: n, fail: Some(n) })), &Progress::new());
            let report = &outcome.report;
            assert!(report.failures.is_empty(), "{mode:?}, call {n}: {:?}", report.failures);
            assert_eq!(report.run, report.checked);
            if report.verdict == Verdict::Pass {
                break;
            }
            assert_eq!(report.verdict, Verdict::Error);
            assert!(report.reason.as_ref().unwrap().contains("failed: injected"), "{mode:?}, call {n}: {:?}", report.reason);
            runs.push(report.run);
        }
        assert!(runs.len() > if mode.batch == 1 { 60 } else { 20 }, "{mode:?}: {} calls", runs.len());
        // With rounds in flight, what fails next may be a wait for an earlier round.
        assert!(mode.slots > 1 || runs.is_sorted(), "{mode:?}: a later failure leaves no fewer rounds: {runs:?}");
        assert_eq!(runs.last(), Some(&job.rounds.count), "{mode:?}");
    }
}

#[test]
fn after_a_failed_call_the_other_outputs_are_still_checked() {
    the_other_outputs_are_checked(super::expressions());
    the_other_outputs_are_checked(super::expressions_of(102, true));
}

fn the_other_outputs_are_checked(mut job: Job) {
    // One output is wrong in every round.
    job.checks[3].wants = vec![jobs::want(&job.tensors, 8, "resident + 1")];
    job.checks.swap(0, 3);
    for mode in Mode::all_of(&job).into_iter().filter(|m| m.trust == Trust::Standard && m.threads == 1) {
        let mut looked = 0;
        for n in 1.. {
            let outcome =
                run_on(&job, &mode, Box::new(Chaos::new(mode.device(), ChaosOptions { seed: n, fail: Some(n) })), &Progress::new());
            let report = &outcome.report;
            if report.verdict == Verdict::Fail {
                break;
            }
            assert_eq!(report.verdict, Verdict::Error, "{mode:?}, call {n}");
            assert_eq!(report.failed_rounds, report.run, "what failed before stands: {mode:?}, call {n}");
            for check in &report.salvage.checks {
                assert!(check.round >= report.run, "{mode:?}, call {n}: {check:?}");
                let wrong = check.check == job.checks[0].text;
                if check.problem.as_deref() == Some("its bytes could not be fetched") {
                    assert!(mode.slots > 1 || mode.batch > 1, "later rounds change what is carried: {mode:?}, call {n}: {check:?}");
                    continue;
                }
                assert_eq!(check.problem.is_some(), wrong, "{mode:?}, call {n}: {check:?} {:?}", report.salvage.errors);
                looked += 1;
            }
        }
        let enough = if mode.batch == 1 { 2 * job.checks.len() } else { job.checks.len() };
        assert!(looked >= enough, "{mode:?}: {looked} checks");
    }
}

/// `x` is drawn, `y` is an output, and both have guards around them; the kernel also gets the round.
fn job_of(name: &str, code: Builtin, rounds: u64) -> Job {
    let n = 37;
    let tensors = vec![
        jobs::tensor("x", Dtype::U8, n, jobs::drawn(Source::Integers { low: 0, high: 200 })),
        jobs::tensor("y", Dtype::U8, n, Contents::None),
    ];
    let checks = vec![jobs::check(1, vec![jobs::want(&tensors, 1, "x + 1")])];
    launch(name, code, tensors, checks, rounds)
}

/// One launch of one block: `in x`, `out y`, `u32 round`.
fn launch(name: &str, code: Builtin, tensors: Vec<Tensor>, checks: Vec<runjob::job::Check>, rounds: u64) -> Job {
    let dtype = tensors[0].dtype;
    let params = [format!("in {dtype} x"), format!("out {dtype} y"), "u32 round".into()];
    let params = params.iter().map(|p| Param::parse(p).unwrap()).collect();
    let whole = |access, tensor: usize| Argument::Tensor { access, view: View { tensor, offset: 0, len: tensors[tensor].bytes() } };
    let args = vec![whole(Access::In, 0), whole(Access::Out, 1), Argument::Scalar(Word::Var(0))];
    let steps = vec![Action::Launch { kernel: 0, grid: [Word::Const(1); 3], offset: NO_OFFSET, args }];
    let mut job = jobs::job(tensors, vec![jobs::kernel(name, code, params, [1; 3])], steps, checks, rounds, 0);
    job.vars.push(Var { text: "round".into(), source: VarSource::Scalar { value: jobs::scalar("round", false), dtype: Dtype::U32 } });
    job
}

/// y = x + 1; gives x, y and the round.
unsafe fn right(args: *const *mut u8) -> (*mut u8, *mut u8, u32) {
    // SAFETY: the arguments are those of `launch`.
    unsafe {
        let (x, y, round) = (*args, *args.add(1), (*args.add(2)).cast::<u32>().read());
        (0..37).for_each(|i| y.add(i).write(x.add(i).read() + 1));
        (x, y, round)
    }
}

#[test]
fn a_write_past_an_output_is_found_in_its_round_alone() {
    unsafe fn runs_over(args: *const *mut u8, _: &BlockAt) {
        // SAFETY: what it writes besides its arguments is a guard, which the plan laid there.
        unsafe {
            let (_, y, round) = right(args);
            if matches!(round, 5 | 9) {
                y.add(38).write(0);
            }
        }
    }
    let job = job_of("runs_over", runs_over, 20);
    let mut first = None;
    for mode in Mode::all_of(&job) {
        let outcome = run(&job, &mode);
        if mode.trust == Trust::Fast {
            assert_eq!(outcome.report.verdict, Verdict::Pass);
            continue;
        }
        assert_eq!((outcome.report.verdict, outcome.report.failed_rounds), (Verdict::Fail, 2), "{mode:?}");
        let told: Vec<_> = outcome.report.failures.iter().map(|f| (f.kind, f.round, f.tensor.as_deref())).collect();
        assert_eq!(told, [(Kind::OutOfBounds, 5, Some("y")), (Kind::OutOfBounds, 9, Some("y"))], "{mode:?}");
        assert!(
            outcome.report.failures[0].message.starts_with("1 element written past the end of `y`"),
            "{}",
            outcome.report.failures[0].message
        );
        let said = super::verdicts(&outcome);
        assert_eq!(&said, first.get_or_insert_with(|| super::verdicts(&outcome)), "{mode:?}");
    }
}

#[test]
fn an_input_that_a_kernel_changes_in_shared_memory_is_found_in_its_round() {
    unsafe fn writes_x(args: *const *mut u8, _: &BlockAt) {
        // SAFETY: `x` is not shared with anything that runs now.
        unsafe {
            let (x, _, round) = right(args);
            if round == 4 {
                x.write(x.read() ^ 1);
                (*args.add(1)).write(x.read() + 1);
            }
        }
    }
    let job = job_of("writes_x", writes_x, 8);
    for mode in Mode::all_of(&job).into_iter().filter(|m| !m.discrete && m.trust == Trust::Standard) {
        let outcome = run(&job, &mode);
        // The output agrees with the changed input: the hash alone tells.
        let told: Vec<_> = outcome.report.failures.iter().map(|f| (f.kind, f.round)).collect();
        assert_eq!(told, [(Kind::InputChanged, 4)], "{mode:?}");
    }
}

#[test]
fn a_kernel_that_panics_in_round_seven_leaves_the_verdicts_of_seven_rounds() {
    unsafe fn panics(args: *const *mut u8, _: &BlockAt) {
        // SAFETY: as for `right`.
        let (_, y, round) = unsafe { right(args) };
        if round == 2 {
            // SAFETY: `y` has 37 elements.
            unsafe { y.add(3).write(0) };
        }
        assert_ne!(round, 7, "a panic that a test wants");
    }
    let job = job_of("panics", panics, 12);
    for mode in Mode::all_of(&job) {
        let report = run(&job, &mode).report;
        // Of rounds that are submitted at once none has a verdict where one fails, but it is known which one does.
        let (run, place) = match mode.batch {
            1 => (7, "; in step 0, `step`"),
            batch => (7 - 7 % u64::from(batch), "; in round 7, in step 0, `step`"),
        };
        assert_eq!((report.verdict, report.run, report.failed_rounds), (Verdict::Error, run, u64::from(run > 2)), "{mode:?}");
        assert!(report.failures.iter().all(|failure| failure.round == 2));
        let reason = report.reason.unwrap();
        assert!(reason.contains("kernel panicked") && reason.contains(place), "{mode:?}: {reason}");
        let late = Box::new(Chaos::new(mode.device(), ChaosOptions { seed: 3, fail: None }));
        let report = run_on(&job, &mode, late, &Progress::new()).report;
        let reason = report.reason.unwrap();
        assert!(reason.contains("kernel panicked") && reason.contains(place), "{mode:?}: {reason}");
    }
}

#[test]
fn memory_that_is_short_is_told_with_its_tensors_and_the_limit() {
    unsafe fn nothing(_: *const *mut u8, _: &BlockAt) {}
    let job = job_of("nothing", nothing, 2);
    for mode in Mode::all_of(&job) {
        let device = mode.device();
        let plan = mode.plan(&job, device.as_ref());
        for largest_alloc in [0, 64] {
            let small = NullDevice::new(Caps { largest_alloc, ..device.caps().clone() });
            let report = run_plan(&job, plan.clone(), &mode, Box::new(small), &Progress::new()).report;
            let reason = report.reason.unwrap_or_default();
            assert_eq!((report.verdict, report.run), (Verdict::Error, 0), "{mode:?}: {reason}");
            let of_tensor = job.tensors.iter().any(|tensor| reason.contains(&format!("`{}` ({} bytes)", tensor.name, tensor.bytes())));
            let limits = format!("the device has {} and {largest_alloc} for one", device.caps().memory);
            assert!(reason.starts_with("out of memory: ") && of_tensor && reason.ends_with(&limits), "{mode:?}: {reason}");
        }
    }
}

#[test]
fn a_stop_leaves_every_started_round_with_its_verdict() {
    static PROGRESS: Mutex<Option<&'static Progress>> = Mutex::new(None);
    unsafe fn stops(args: *const *mut u8, _: &BlockAt) {
        // SAFETY: as for `right`.
        let (.., round) = unsafe { right(args) };
        if round == 5 {
            PROGRESS.lock().unwrap().unwrap().ask_to_stop();
        }
    }
    let job = job_of("stops", stops, 1000);
    for mode in Mode::all_of(&job) {
        let progress: &'static Progress = Box::leak(Box::default());
        *PROGRESS.lock().unwrap() = Some(progress);
        let outcome = run_on(&job, &mode, mode.device(), progress);
        let report = outcome.report;
        assert_eq!(report.verdict, Verdict::Interrupted, "{mode:?}");
        // Other lanes are where they are.
        let most = if mode.lanes == 1 { 6 + u64::from(mode.slots * mode.batch) } else { 999 };
        assert!((6..=most).contains(&report.run), "{mode:?}: {}", report.run);
        let replays = report.run.div_ceil(mode.batch.into());
        assert_eq!((replays, report.checked), (report.round_counts.replays, report.run), "{mode:?}");
    }
}

#[test]
fn nan_never_passes() {
    unsafe fn writes_nan(args: *const *mut u8, _: &BlockAt) {
        // SAFETY: the arguments are those of `launch`; `y` has 8 elements.
        unsafe {
            let (x, y, round) = ((*args).cast::<f32>(), (*args.add(1)).cast::<f32>(), (*args.add(2)).cast::<u32>().read());
            (0..8).for_each(|i| y.add(i).write(if round == 3 && i == 6 { f32::NAN } else { x.add(i).read() }));
        }
    }
    let tensors = vec![
        jobs::tensor("x", Dtype::F32, 8, jobs::drawn(Source::Uniform { low: 0.0, high: 1.0 })),
        jobs::tensor("y", Dtype::F32, 8, Contents::None),
    ];
    let mut check = jobs::check(1, vec![jobs::want(&tensors, 1, "x")]);
    check.tolerance.exact = false;
    (check.tolerance.atol, check.tolerance.max_mismatches) = (Some(1e30), 8);
    let mut job = launch("writes_nan", writes_nan, tensors, vec![check], 6);
    for mode in Mode::all_of(&job) {
        let report = run(&job, &mode).report;
        assert_eq!((report.verdict, report.failed_rounds), (Verdict::Fail, 1), "{mode:?}");
        assert_eq!(report.failures[0].round, 3);
    }
    // Nor where it is expected, unless the check says so.
    job.checks[0].wants = vec![jobs::want(&job.tensors, 1, "where(round == 3, where(index(0) == 6, 0.0 / (x - x), x), x)")];
    job.checks[0].tolerance.max_mismatches = 0;
    assert_eq!(run(&job, &Mode::default()).report.failed_rounds, 1);
    job.checks[0].tolerance.nan_equal = true;
    assert_eq!(run(&job, &Mode::default()).report.verdict, Verdict::Pass);
}

#[test]
fn inputs_that_differ_at_one_address_give_outputs_that_differ() {
    static SEEN: Mutex<Vec<(usize, u32, Vec<u8>)>> = Mutex::new(Vec::new());
    unsafe fn notes(args: *const *mut u8, _: &BlockAt) {
        // SAFETY: as for `right`; `x` has 37 elements.
        unsafe {
            let (x, _, round) = right(args);
            SEEN.lock().unwrap().push((x as usize, round, std::slice::from_raw_parts(x, 37).to_vec()));
        }
    }
    let job = job_of("notes", notes, 30);
    let mut first: Option<Vec<Vec<u8>>> = None;
    for mode in Mode::all_of(&job).into_iter().filter(|m| !m.fresh) {
        assert_eq!(run(&job, &mode).report.verdict, Verdict::Pass);
        let mut seen = std::mem::take(&mut *SEEN.lock().unwrap());
        seen.sort_by_key(|(_, round, _)| *round);
        let addresses: std::collections::BTreeSet<usize> = seen.iter().map(|(at, ..)| *at).collect();
        let rounds = mode.batch.min(30);
        let (slots, lanes) = ((mode.slots.min(30_u32.div_ceil(rounds)) * rounds) as usize, mode.lanes as usize);
        // A lane may come too late to be dealt a round.
        assert!((slots..=slots * lanes).contains(&addresses.len()), "{mode:?}: {}", addresses.len());
        let contents: Vec<Vec<u8>> = seen.into_iter().map(|(.., bytes)| bytes).collect();
        assert_eq!(contents.len(), 30, "each step ran once a round");
        let mut distinct = contents.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 30, "every round has inputs of its own");
        assert_eq!(&contents, first.get_or_insert(contents.clone()), "the same inputs in every mode: {mode:?}");
    }
}

#[test]
fn each_step_runs_once_a_round_in_an_order_that_the_plan_allows() {
    static LOG: Mutex<Vec<(u32, usize)>> = Mutex::new(Vec::new());
    unsafe fn logs<const STEP: usize>(args: *const *mut u8, _: &BlockAt) {
        // SAFETY: as for `right`.
        let (.., round) = unsafe { right(args) };
        LOG.lock().unwrap().push((round, STEP));
    }
    let mut job = job_of("logs", logs::<0>, 25);
    for id in 2..5 {
        job.tensors.push(jobs::tensor(&format!("t{id}"), Dtype::U8, 37, Contents::None));
    }
    let codes: [Builtin; 4] = [logs::<0>, logs::<1>, logs::<2>, logs::<3>];
    let kernel = job.kernels[0].clone();
    job.kernels = codes.iter().map(|code| jobs::kernel("logs", *code, kernel.params.clone(), [1; 3])).collect();
    job.loads = job.kernels.len();
    // x -> t2 -> t3 and x -> t4; y from t3.
    let view = |tensor| View { tensor, offset: 0, len: 37 };
    let template = job.steps[0].clone();
    job.steps = [(0, 2), (2, 3), (0, 4), (3, 1)]
        .iter()
        .enumerate()
        .map(|(kernel, &(src, dst))| {
            let args = vec![
                Argument::Tensor { access: Access::In, view: view(src) },
                Argument::Tensor { access: Access::Out, view: view(dst) },
                Argument::Scalar(Word::Var(0)),
            ];
            runjob::job::Step { action: Action::Launch { kernel, grid: [Word::Const(1); 3], offset: NO_OFFSET, args }, ..template.clone() }
        })
        .collect();
    job.checks = vec![jobs::check(1, vec![jobs::want(&job.tensors, 1, "x + 3")])];
    for mode in Mode::all_of(&job) {
        assert_eq!(run(&job, &mode).report.verdict, Verdict::Pass);
        let log = std::mem::take(&mut *LOG.lock().unwrap());
        assert_eq!(log.len(), 100, "{mode:?}");
        for round in 0..25 {
            let steps: Vec<usize> = log.iter().filter(|(r, _)| *r == round).map(|(_, step)| *step).collect();
            let at = |step| steps.iter().position(|s| *s == step).unwrap();
            assert!(steps.len() == 4 && at(0) < at(1) && at(1) < at(3), "{mode:?}: {steps:?}");
            at(2);
        }
    }
}

#[test]
fn a_golden_with_nan_passes_only_by_the_policy() {
    let tensors = vec![jobs::tensor("x", Dtype::F32, 1, Contents::Fixed(Source::Fill(f32::NAN.to_bits().into()))), {
        jobs::tensor("y", Dtype::F32, 1, Contents::None)
    }];
    let view = |tensor| View { tensor, offset: 0, len: 4 };
    let check = jobs::check(1, vec![Want::Bytes(f32::NAN.to_le_bytes().to_vec().into())]);
    let mut job = jobs::job(tensors, Vec::new(), vec![Action::Copy { src: view(0), dst: view(1) }], vec![check], 3, 0);
    for (nan_equal, verdict) in [(false, Verdict::Fail), (true, Verdict::Pass)] {
        job.checks[0].tolerance.nan_equal = nan_equal;
        assert!(Mode::all_of(&job).iter().all(|mode| run(&job, mode).report.verdict == verdict));
    }
}

#[test]
fn a_value_that_a_round_cannot_have_is_an_error_of_that_round() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    unsafe fn counts(args: *const *mut u8, _: &BlockAt) {
        // SAFETY: as for `right`.
        unsafe { right(args) };
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    let mut job = job_of("counts", counts, 10);
    job.vars[0].source = VarSource::Scalar { value: jobs::scalar("10 // (6 - round)", false), dtype: Dtype::U32 };
    for mode in Mode::all_of(&job) {
        CALLS.store(0, Ordering::Relaxed);
        let report = run(&job, &mode).report;
        assert_eq!((report.verdict, report.run, CALLS.load(Ordering::Relaxed)), (Verdict::Error, 6, 6), "{mode:?}");
    }
}
