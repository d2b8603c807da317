//! Rounds that are submitted at once: each has a part of every memory of its slot and nothing of another's, their list is
//! that of one round so many times over, and there are as many as pay.

use proptest::prelude::*;
use runjob::data::Source;
use runjob::device::{Arg, Caps, Cmd, Slice, Word};
use runjob::job::{Action, Argument, Contents, Job, View};
use runjob::plan::{Class, Graph, Host, Options, Plan, PlanError, Trust, build, summary};
use runjob::tensor::{Access, Dtype, Param};

use super::{at, caps, jobs, plan_holds, tape};

/// A device for which one more node costs far less than a submission.
fn far() -> Caps {
    Caps { submit_ns: 5000, node_ns: 700, shares_cores: false, bytes_per_ns: 4800.0, ..caps(false) }
}

/// A command of the first round for another, by the plan's tables alone.
fn moved(plan: &Plan, vars: usize, cmd: &Cmd, position: u64) -> Cmd {
    let slice = |s: Slice| {
        let memory = &plan.memories[s.mem.0 as usize];
        Slice { offset: s.offset + if memory.per_slot { memory.stride * position } else { 0 }, ..s }
    };
    let word = |w: Word| match w {
        Word::Var(var) if (var as usize) < vars => Word::Var(var + position as u16 * vars as u16),
        w => w,
    };
    match cmd.clone() {
        Cmd::Copy { src, dst } => Cmd::Copy { src: slice(src), dst: slice(dst) },
        Cmd::Fill { dst, pattern } => Cmd::Fill { dst: slice(dst), pattern: word(pattern) },
        Cmd::Launch { kernel, grid, offset, args } => {
            let arg = |arg| match arg {
                Arg::In(s) => Arg::In(slice(s)),
                Arg::Out(s) => Arg::Out(slice(s)),
                Arg::Inout(s) => Arg::Inout(slice(s)),
                Arg::Scalar(w) => Arg::Scalar(word(w)),
                Arg::Struct(words) => Arg::Struct(words.into_iter().map(word).collect()),
                Arg::Null => Arg::Null,
            };
            Cmd::Launch { kernel, grid: grid.map(word), offset: offset.map(word), args: args.into_iter().map(arg).collect() }
        }
    }
}

/// What every plan of rounds at once promises beyond what [`plan_holds`] looks at.
fn batch_holds(job: &Job, caps: &Caps, plan: &Plan) {
    let batch = plan.schedule.batch;
    let carries = plan.tensors.iter().any(|t| t.class == Class::Carried);
    assert_eq!((plan.schedule.lanes, plan.modes.len(), plan.batches[0]), (1, 1, batch));
    let rest = (job.rounds.count % u64::from(batch)) as u32;
    assert!(rest == 0 || plan.batches.contains(&rest));
    assert!(job.rounds.warmup == 0 || plan.batches.contains(&1));
    assert!(plan.sets <= 1, "rounds of several sets have one graph");
    for memory in &plan.memories {
        let parts = if memory.per_slot { u64::from(batch) } else { 1 };
        assert_eq!(memory.bytes, memory.stride * parts);
        assert!(parts == 1 || memory.stride % caps.alignment.max(caps.bind_alignment) == 0);
    }
    // All that has an address has it in the first round's part.
    let homes = plan.tensors.iter().flat_map(|t| t.home.map(|home| at(home, t.bytes)));
    let zones = plan.zones.iter().flat_map(|z| [at(z.at, z.bytes), at(z.read, z.bytes)]);
    let crossing = plan.fills.iter().map(|f| at(f.to, f.bytes)).chain(plan.reads.iter().map(|r| at(r.from, r.bytes)));
    for slice in homes.chain(zones).chain(crossing).chain(plan.staged.iter().map(|s| at(s.at, s.bytes))) {
        assert!(slice.offset + slice.len <= plan.memories[slice.mem.0 as usize].stride);
    }
    let first = plan.first_rounds(1, 0, 0);
    for &rounds in &plan.batches {
        let nodes = &plan.graphs[plan.graph(rounds, 0, 0)];
        assert_eq!(nodes.len(), first.len() * rounds as usize);
        assert_eq!(nodes.len(), plan.node_count(rounds, 0, 0));
        assert_eq!(nodes, &plan.first_rounds(rounds, 0, 0), "{rounds} of {batch}");
        let mut seen = vec![0; rounds as usize];
        for (index, node) in nodes.iter().enumerate() {
            let (position, own) = plan.round_of(rounds, nodes.len(), index);
            seen[position as usize] += 1;
            assert_eq!(node.cmd, moved(plan, job.vars.len(), &first[own].cmd, position.into()));
            let place =
                |own: usize| if carries { position as usize * first.len() + own } else { own * rounds as usize + position as usize };
            assert_eq!(place(own), index);
            if !carries && super::is_guard(plan, &node.cmd) {
                // What may write in a zone is in any round.
                continue;
            }
            // In their own round all wait for the same; for other rounds only where these hand something on.
            let inside: Vec<u32> =
                node.after.iter().copied().filter(|&a| plan.round_of(rounds, nodes.len(), a as usize).0 == position).collect();
            assert_eq!(inside, first[own].after.iter().map(|&a| place(a as usize) as u32).collect::<Vec<_>>());
            assert!(carries || inside == node.after, "node {index} of {rounds} rounds waits for another round");
        }
        assert!(seen.iter().all(|&n| n == first.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_of_rounds_at_once_hold(numbers in tape(), aligned: bool, small: bool, bind: bool, fast: bool) {
        let mut job = jobs::random(&numbers, jobs::Style { aligned, expressions: true });
        job.rounds.count += 20;
        let trust = if fast { Trust::Fast } else { Trust::Standard };
        for unified in [true, false] {
            let mut caps = caps(unified);
            if small {
                caps.largest_alloc = 1 << 14;
            }
            if bind {
                (caps.bind_alignment, caps.largest_alloc) = (256, caps.largest_alloc * 2);
            }
            for (slots, batch) in [(1, 2), (3, 3), (2, 7), (3, 16)] {
                let plan = build(&job, &caps, &Options { trust, slots: Some(slots), batch: Some(batch), ..Options::default() }).unwrap();
                prop_assert!(plan.schedule.batch == batch || small);
                plan_holds(&job, &caps, &plan);
                if plan.schedule.batch > 1 {
                    batch_holds(&job, &caps, &plan);
                }
            }
        }
    }
}

#[test]
fn what_a_step_asks_to_wait_for_is_in_its_own_round() {
    let view = |tensor| View { tensor, offset: 0, len: 40 };
    let mut tensors = vec![jobs::tensor("x", Dtype::F32, 10, jobs::drawn(Source::Fill(0)))];
    tensors.extend(["y", "z"].map(|name| jobs::tensor(name, Dtype::F32, 10, Contents::None)));
    let checks = [1, 2].map(|id| jobs::check(id, vec![jobs::want(&tensors, id, "x")])).to_vec();
    let steps = vec![Action::Copy { src: view(0), dst: view(1) }, Action::Copy { src: view(0), dst: view(2) }];
    let mut job = jobs::job(tensors, Vec::new(), steps, checks, 20, 0);
    job.steps[1].after = vec![0];
    let plan = build(&job, &caps(false), &Options { batch: Some(4), ..Options::default() }).unwrap();
    batch_holds(&job, &caps(false), &plan);
    let nodes = &plan.graphs[0];
    let step = |node: usize| plan.step_of(0, nodes.len() / 4, 2, plan.round_of(4, nodes.len(), node).1);
    let second: Vec<usize> = (0..nodes.len()).filter(|&node| step(node) == Some(1)).collect();
    assert_eq!(second.len(), 4);
    assert!(second.iter().all(|&node| nodes[node].after.iter().any(|&a| step(a as usize) == Some(0))));
    // The graph that people see is one round's.
    assert_eq!(Graph::new(&plan, &job, true).nodes.len(), nodes.len() / 4);
}

/// y = x, by a launch of a kernel that nobody runs.
fn tiny(n: u64, rounds: u64, sets: usize) -> Job {
    unsafe fn nothing(_: *const *mut u8, _: &runjob::device::cpu::BlockAt) {}
    let uniform = Source::Uniform { low: 0.0, high: 1.0 };
    let mut tensors =
        vec![jobs::tensor("x", Dtype::F32, n, jobs::drawn(uniform.clone())), jobs::tensor("y", Dtype::F32, n, Contents::None)];
    if sets > 0 {
        tensors.push(jobs::tensor("w", Dtype::F32, n, Contents::Sets(vec![uniform; sets])));
    }
    let view = |tensor| View { tensor, offset: 0, len: n * 4 };
    let mut args = vec![Argument::Tensor { access: Access::In, view: view(0) }, Argument::Tensor { access: Access::Out, view: view(1) }];
    let mut params = vec![Param::parse("in f32 x").unwrap(), Param::parse("out f32 y").unwrap()];
    if sets > 0 {
        args.push(Argument::Tensor { access: Access::In, view: view(2) });
        params.push(Param::parse("in f32 w").unwrap());
    }
    let steps = vec![Action::Launch { kernel: 0, grid: [Word::Const(1); 3], offset: runjob::device::NO_OFFSET, args }];
    let checks = vec![jobs::check(1, vec![jobs::want(&tensors, 1, if sets > 0 { "x + 0 * w" } else { "x" })])];
    jobs::job(tensors, vec![jobs::kernel("k", nothing, params, [1; 3])], steps, checks, rounds, sets)
}

#[test]
fn as_many_rounds_are_submitted_at_once_as_pay() {
    let batch = |job: &Job, caps: &Caps, options: &Options| build(job, caps, options).unwrap().schedule.batch;
    let plain = Options::default();
    // 16 x 5000 ns are 115 launches of 700 ns and a few.
    assert_eq!(batch(&tiny(1024, 100_000, 0), &far(), &plain), 128);
    // Several batches are in flight.
    assert_eq!(batch(&tiny(1024, 100, 0), &far(), &plain), 32);
    assert_eq!(batch(&tiny(1024, 3, 0), &far(), &plain), 1);
    assert_eq!(batch(&tiny(1024, 1, 0), &far(), &plain), 1);
    // 4 MiB hold 15 rounds of four times 64 KiB.
    assert_eq!(batch(&tiny(16 << 10, 100_000, 0), &far(), &plain), 16);
    assert_eq!(batch(&tiny(1 << 20, 100_000, 0), &far(), &plain), 1);
    // Nodes that cost next to nothing: as many as may be.
    assert_eq!(batch(&tiny(16, 100_000, 0), &Caps { node_ns: 1, ..far() }, &plain), 256);
    // Those that cost what a submission does gain nothing.
    for near in [caps(true), caps(false), Caps { node_ns: 5000, ..far() }, Caps { node_ns: 1251, ..far() }] {
        assert_eq!(batch(&tiny(1024, 100_000, 0), &near, &plain), 1);
    }
    // Where rounds are wanted one by one.
    let job = tiny(1024, 100_000, 0);
    for options in [
        Options { fresh: true, ..plain },
        Options { batch: Some(1), ..plain },
        Options { host: Some(Host::Pool), ..plain },
        Options { fresh: true, batch: Some(8), ..plain },
    ] {
        assert_eq!(batch(&job, &far(), &options), 1, "{options:?}");
    }
    assert_eq!(batch(&Job { compared: true, ..job.clone() }, &far(), &plain), 1);
    let mut serial = job.clone();
    serial.kernels[0].serial = true;
    assert_eq!(batch(&serial, &far(), &plain), 1);
    // What is asked for, on any device; no more than there are rounds.
    for caps in [caps(true), far()] {
        assert_eq!(batch(&job, &caps, &Options { batch: Some(7), ..plain }), 7);
        assert_eq!(batch(&tiny(1024, 5, 0), &caps, &Options { batch: Some(7), ..plain }), 5);
    }
    let error = build(&job, &caps(true), &Options { batch: Some(7), lanes: Some(2), ..plain }).unwrap_err();
    assert!(matches!(error, PlanError::Lanes { lanes: 2, .. }), "{error}");
}

#[test]
fn sets_are_uploaded_every_round_where_rounds_are_submitted_at_once() {
    let job = tiny(1024, 1000, 3);
    let plan = build(&job, &far(), &Options::default()).unwrap();
    assert!(plan.schedule.batch > 1);
    let w = &plan.tensors[2];
    let why = "3 sets that cycle, uploaded every round: rounds that are submitted at once are of several";
    assert_eq!((w.class, w.reason.as_str(), w.held, plan.graphs.len()), (Class::Streamed, why, 3, 2));
    batch_holds(&job, &far(), &plan);
    // Sets that are large stay, and so do those of a device that gains nothing.
    for (job, caps) in [(tiny(1 << 18, 1000, 3), far()), (tiny(1024, 1000, 3), caps(false))] {
        let plan = build(&job, &caps, &Options::default()).unwrap();
        assert_eq!((plan.schedule.batch, plan.tensors[2].class), (1, Class::Resident));
    }
    // One set is no reason to upload it again.
    let plan = build(&tiny(1024, 1000, 1), &far(), &Options::default()).unwrap();
    assert!(plan.schedule.batch > 1 && plan.tensors[2].class == Class::Resident);
}

#[test]
fn where_memory_is_short_fewer_rounds_are_submitted_at_once_before_slots_are_given_up() {
    let mut job = tiny(1024, 100_000, 0);
    let mut seen = Vec::new();
    loop {
        let plan = build(&job, &far(), &Options::default()).unwrap();
        plan_holds(&job, &far(), &plan);
        let (batch, slots) = (plan.schedule.batch, plan.schedule.slots);
        if let Some(last) = seen.last() {
            let rung = &plan.rungs[0];
            assert!((batch, slots) < *last);
            assert_eq!(rung.what, format!("{batch} round{} at once", if batch == 1 { "" } else { "s" }));
            assert!(rung.reason.starts_with("128 would need ") && rung.reason.contains("of device memory, the limit is"), "{rung:?}");
            assert!(summary(&plan).contains(&format!("short     {}: {}", rung.what, rung.reason)));
        }
        seen.push((batch, slots));
        if (batch, slots) == (1, 1) {
            break;
        }
        job.limits.device_memory = Some(plan.cost.device_peak - 1);
    }
    let wanted: Vec<(u32, u32)> = (0..8).rev().map(|n| (1 << n, 3)).chain([(1, 2), (1, 1)]).collect();
    assert_eq!(seen, wanted);
    // A memory that cannot be so large.
    let small = Caps { largest_alloc: 100 << 10, ..far() };
    job.limits.device_memory = None;
    let plan = build(&job, &small, &Options::default()).unwrap();
    batch_holds(&job, &small, &plan);
    assert!(plan.schedule.batch < 32 && plan.schedule.reason.contains("more do not fit into memories of 100.0 KiB"), "{:?}", plan.schedule);
}

#[test]
fn rounds_at_once_are_told_with_their_reason() {
    let plan = build(&tiny(1024, 1000, 0), &far(), &Options::default()).unwrap();
    let text = summary(&plan);
    let schedule = "schedule  3 slots of 128 rounds, host work inline: rounds in flight hide the cost of submitting; 128 rounds are \
                    submitted at once: a submission costs 5.00 us, a round of 16.0 KiB at least 70";
    assert!(text.contains(schedule), "{text}");
    assert!(text.contains("graphs    2 graphs in each slot, for 128 and 104 rounds at once; every round has all poison"), "{text}");
    assert!(serde_json::to_string(&plan).unwrap().contains("\"batch\":128"));
}
