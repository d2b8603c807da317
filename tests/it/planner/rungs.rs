//! Plans of random jobs with less and less memory: what is given up, in which order, and what is said when nothing is left.

use proptest::prelude::*;
use runjob::job::Job;
use runjob::plan::{Options, PlanError, Trust, build};

use super::{caps, jobs, plan_holds, tape};

/// How far down the ladder a rung is.
fn height(what: &str) -> u32 {
    match what {
        _ if what.ends_with("lane") || what.ends_with("lanes") || what.ends_with(" at once") => 0,
        _ if what.ends_with("slot") || what.ends_with("slots") => 1,
        "uploads instead of pristine copies" => 2,
        "uploads instead of sets that stay" => 3,
        _ => panic!("{what}"),
    }
}

/// Takes memory away until nothing fits; returns how many rungs were seen.
fn descend(mut job: Job, unified: bool, device: bool, trust: Trust, batch: Option<u32>) -> u32 {
    let (mut caps, options) = (caps(unified), Options { trust, batch, ..Options::default() });
    caps.lanes = 4;
    job.rounds.count += 100;
    let mut seen = 0;
    let mut last = u64::MAX;
    loop {
        match build(&job, &caps, &options) {
            Ok(plan) => {
                plan_holds(&job, &caps, &plan);
                let peak = if device { plan.cost.device_peak } else { plan.cost.host_peak };
                assert!(peak <= last, "{peak} bytes, the limit is {last}: {:?}", plan.rungs);
                // Lanes and slots are given up anew on each of the rungs below.
                let below: Vec<u32> = plan.rungs.iter().map(|r| height(&r.what)).filter(|h| *h > 1).collect();
                let above: Vec<u32> = plan.rungs.iter().map(|r| height(&r.what)).filter(|h| *h < 2).collect();
                assert!(below.is_sorted() && above.is_sorted(), "{:?}", plan.rungs);
                assert_eq!(plan.rungs.is_empty(), last == u64::MAX);
                seen |= plan.rungs.iter().fold(0, |seen, r| seen | 1 << height(&r.what));
                last = peak - 1;
            }
            Err(PlanError::TooLarge(too_large)) => {
                let &[(kind, needs, limit, own)] = too_large.short.as_slice() else { panic!("{too_large}") };
                assert_eq!((kind, limit, own), (if device { "device" } else { "host" }, last, true));
                assert!(needs > last && too_large.to_string().contains(&format!("{kind}_memory = ")), "{too_large}");
                last = needs;
                if device {
                    job.limits.device_memory = Some(last)
                } else {
                    job.limits.host_memory = Some(last)
                }
                assert!(build(&job, &caps, &options).is_ok(), "a limit of {needs} would do");
                return seen;
            }
            Err(error) => panic!("{error}"),
        }
        if device { job.limits.device_memory = Some(last) } else { job.limits.host_memory = Some(last) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_hold_on_every_rung(numbers in tape(), unified: bool, device: bool, fast: bool, batch: bool) {
        let job = jobs::random(&numbers, jobs::Style { aligned: false, expressions: true });
        descend(job, unified, device, if fast { Trust::Fast } else { Trust::Standard }, batch.then_some(12));
    }
}

#[test]
fn every_rung_is_needed_by_some_job() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = 0;
    for at in 0..40 {
        let numbers = tape().new_tree(&mut runner).unwrap().current();
        let job = jobs::random(&numbers, jobs::Style { aligned: true, expressions: true });
        seen |= descend(job, at % 2 == 0, true, Trust::Standard, None);
    }
    assert_eq!(seen, 0b1111);
}

#[test]
fn what_does_not_fit_is_told_with_its_largest_tensors_and_a_limit_that_would_do() {
    use runjob::data::Source;
    use runjob::job::{Action, Contents, View};
    use runjob::tensor::Dtype;
    let n = 1 << 20;
    let source = Source::Uniform { low: 0.0, high: 1.0 };
    let tensors = vec![
        jobs::tensor("x", Dtype::F32, n, jobs::drawn(source.clone())),
        jobs::tensor("y", Dtype::F32, n, Contents::None),
        jobs::tensor("z", Dtype::F32, 10, Contents::Fixed(source)),
    ];
    let whole = |tensor| View { tensor, offset: 0, len: n * 4 };
    let checks = vec![jobs::check(1, vec![jobs::want(&tensors, 1, "x + 0 * sum(z)")])];
    let mut job = jobs::job(tensors, Vec::new(), vec![Action::Copy { src: whole(0), dst: whole(1) }], checks, 200, 0);
    job.limits.device_memory = Some(5 << 20);
    let error = build(&job, &caps(true), &Options::default()).unwrap_err().to_string();
    let wanted = "the job needs 8.0 MiB (8396800 bytes) of device memory, the limit is 5.0 MiB (5242880 bytes): \
                  [limits] device_memory = \"9MiB\" would do; `x` takes 4.0 MiB, `y` takes 4.0 MiB, `z` takes 40 B";
    assert!(
        error.starts_with(&wanted[..40]) && error.contains("device_memory = \"9MiB\" would do; `x` takes 4.0 MiB, `y` takes 4.0 MiB"),
        "{error}"
    );
    job.limits.device_memory = Some(9 << 20);
    assert!(build(&job, &caps(true), &Options::default()).is_ok());
    // What the machine lacks no limit gives.
    job.limits.device_memory = None;
    let mut small = caps(false);
    small.memory = 6 << 20;
    let error = build(&job, &small, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("of device memory, there are 6.0 MiB") && !error.contains("would do"), "{error}");
    // Fewer slots, told with what more would need.
    let mut plain = caps(false);
    plain.memory = 20 << 20;
    let plan = build(&job, &plain, &Options::default()).unwrap();
    assert_eq!(plan.schedule.slots, 2);
    assert_eq!((plan.rungs.len(), plan.rungs[0].what.as_str()), (1, "2 slots"));
    assert!(plan.rungs[0].reason.starts_with("3 would need 24.0 MiB of device memory, the limit is 20.0 MiB"), "{:?}", plan.rungs);
    assert!(runjob::plan::summary(&plan).contains("short     2 slots: 3 would need"));
}
