//! What planning and running take: linear in the steps, nothing for rounds, and on the host no more than the plan says.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[path = "it/planner/jobs.rs"]
#[allow(dead_code)]
mod jobs;

use runjob::data::Source;
use runjob::device::cpu::{self, CpuOptions};
use runjob::device::{Device, Place, Trace, TraceOptions};
use runjob::exec::{self, Progress};
use runjob::job::{Action, Contents, Job, View};
use runjob::plan::{self, Host, Options, Plan};
use runjob::tensor::Dtype;
use runjob::verdict::{Event, Verdict};

/// Counts what it passes on to the system.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

fn taken(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    let held = HELD.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        HELD.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// One test at a time: what others allocate would count.
static ALONE: Mutex<()> = Mutex::new(());

/// What comes of it, the allocations it makes, and the most bytes it holds at a time.
fn measured<T>(run: impl FnOnce() -> T) -> (T, u64, u64) {
    let (allocations, held) = (ALLOCATIONS.load(Ordering::Relaxed), HELD.load(Ordering::Relaxed));
    PEAK.store(held, Ordering::Relaxed);
    let result = run();
    (result, ALLOCATIONS.load(Ordering::Relaxed) - allocations, PEAK.load(Ordering::Relaxed) - held)
}

fn device(discrete: bool) -> cpu::CpuDevice {
    cpu::open(CpuOptions { threads: Some(2), discrete, compilers: Some(Vec::new()), ..CpuOptions::default() }).unwrap()
}

/// Copies a tensor to and fro so many times, to an output of `n` elements.
fn chain(n: u64, steps: u64, rounds: u64) -> Job {
    let tensors = vec![
        jobs::tensor("x", Dtype::F32, n, jobs::drawn(Source::Uniform { low: 0.0, high: 1.0 })),
        jobs::tensor("a", Dtype::F32, n, Contents::None),
        jobs::tensor("b", Dtype::F32, n, Contents::None),
        jobs::tensor("y", Dtype::F32, n, Contents::None),
    ];
    let view = |tensor| View { tensor, offset: 0, len: n * 4 };
    // Between the first and the last copy one element goes to and fro.
    let one = |tensor| View { tensor, offset: 4, len: 4 };
    let mut actions = vec![Action::Copy { src: view(0), dst: view(1) }, Action::Copy { src: view(0), dst: view(2) }];
    actions.extend(
        (0..steps).map(|i| if i % 2 == 0 { Action::Copy { src: one(1), dst: one(2) } } else { Action::Copy { src: one(2), dst: one(1) } }),
    );
    actions.push(Action::Copy { src: view(2), dst: view(3) });
    let checks = vec![jobs::check(3, vec![jobs::want(&tensors, 3, "x")])];
    jobs::job(tensors, Vec::new(), actions, checks, rounds, 0)
}

fn edges(plan: &Plan) -> usize {
    plan.graphs.iter().flatten().map(|node| node.after.len()).sum()
}

#[test]
fn planning_is_linear_in_steps_and_constant_in_rounds() {
    let _alone = ALONE.lock().unwrap();
    for (discrete, n) in [(false, 1000), (true, 1000), (false, 1 << 20)] {
        let device = device(discrete);
        let plan = |steps, rounds| {
            let job = chain(n, steps, rounds);
            measured(|| plan::build(&job, device.caps(), &Options { lanes: Some(1), ..Options::default() }).unwrap())
        };
        let (few, few_allocations, few_bytes) = plan(10_000, 100);
        let (many, many_allocations, many_bytes) = plan(100_000, 100);
        let nodes = |plan: &Plan| plan.graphs.iter().map(Vec::len).sum::<usize>();
        assert!(nodes(&many) <= 11 * nodes(&few) && nodes(&many) as u64 <= plan::MOST_NODES, "{} nodes", nodes(&many));
        assert!(edges(&many) <= 11 * edges(&few), "{} edges, then {}", edges(&few), edges(&many));
        assert!(many_allocations <= 11 * few_allocations, "{few_allocations} allocations, then {many_allocations}");
        assert!(many_bytes <= 11 * few_bytes, "{few_bytes} bytes, then {many_bytes}");
        let (_, few_allocations, few_bytes) = plan(100, 1_000);
        let (_, many_allocations, many_bytes) = plan(100, 100_000);
        assert!(many_allocations <= few_allocations + 8 && many_bytes <= few_bytes + 1000, "{few_bytes} bytes, then {many_bytes}");
    }
}

/// Runs a job; returns the bytes of heap that it took, and what the plan says of those.
fn taken_by(job: &Job, discrete: bool, options: &Options) -> (u64, u64) {
    let device = device(discrete);
    let (said, _, heap) = measured(|| {
        let plan = plan::build(job, device.caps(), options).unwrap();
        let mut device = Trace::new(Box::new(device), TraceOptions::default());
        let mut verdict = None;
        exec::run(job, &plan, &mut device, &exec::Options { threads: 2, ..exec::Options::default() }, &Progress::new(), &mut |event| {
            if let Event::Done(report) = event {
                verdict = Some((report.verdict, report.reason, report.failures));
            }
        });
        let (verdict, reason, failures) = verdict.unwrap();
        assert_eq!(verdict, Verdict::Pass, "{reason:?} {failures:?}");
        let slots = u64::from(plan.schedule.slots * plan.schedule.lanes);
        let reached = plan.memories.iter().filter(|m| !discrete || m.place != Place::Device);
        plan.cost.host_peak - reached.map(|m| m.bytes * if m.per_slot { slots } else { 1 }).sum::<u64>()
    });
    (heap, said)
}

#[test]
fn the_host_holds_no_more_than_the_plan_says() {
    let _alone = ALONE.lock().unwrap();
    let uniform = Source::Uniform { low: 0.0, high: 1.0 };
    let n = 2 << 20;
    let copied = |contents: Contents, text: &str| {
        let mut tensors = vec![jobs::tensor("x", Dtype::F32, n, contents), jobs::tensor("h", Dtype::F32, n, jobs::drawn(uniform.clone()))];
        tensors.push(jobs::tensor("c", Dtype::F32, n, Contents::Fixed(uniform.clone())));
        tensors.push(jobs::tensor("y", Dtype::F32, n, Contents::None));
        tensors[2].carry = true;
        let whole = |tensor| View { tensor, offset: 0, len: n * 4 };
        let steps = vec![Action::Copy { src: whole(0), dst: whole(3) }, Action::Copy { src: whole(0), dst: whole(2) }];
        let checks = vec![jobs::check(3, vec![jobs::want(&tensors, 3, text)]), jobs::check(2, vec![jobs::want(&tensors, 2, "x + 0 * c")])];
        let sets = if let Contents::Sets(sources) = &tensors[0].contents { sources.len() } else { 0 };
        jobs::job(tensors, Vec::new(), steps, checks, 6, sets)
    };
    let fixed = || Contents::Fixed(uniform.clone());
    let mut without_carry = copied(fixed(), "x + 0 * sum(h)");
    without_carry.checks.pop();
    without_carry.steps.pop();
    without_carry.tensors[2].carry = false;
    let jobs = [
        ("expectations", copied(fixed(), "x + 0 * h")),
        ("a reduction", copied(fixed(), "x + 0 * sum(h * h)")),
        ("sets", copied(Contents::Sets(vec![uniform.clone(); 8]), "x")),
        ("many sets", copied(Contents::Sets(vec![uniform.clone(); 20]), "x")),
        ("streamed", copied(jobs::drawn(uniform.clone()), "x")),
        ("lanes", without_carry),
        ("steps", chain(300_000, 10_000, 4)),
        ("many steps", chain(1000, 60_000, 40)),
    ];
    let mut wrong = Vec::new();
    for (name, job) in &jobs {
        for discrete in [false, true] {
            let carries = job.tensors.iter().any(|t| t.carry);
            let mut all = vec![Options { slots: Some(3), host: Some(Host::Pool), ..Options::default() }, Options::default()];
            if !carries && !discrete {
                all.push(Options { lanes: Some(2), ..Options::default() });
            }
            if *name == "expectations" {
                all.push(Options { fresh: true, ..Options::default() });
            }
            if matches!(*name, "expectations" | "sets" | "steps") {
                all.push(Options { batch: Some(2), slots: Some(2), ..Options::default() });
            }
            for options in all {
                let (heap, said) = taken_by(job, discrete, &options);
                let slack = 20 << 20;
                // No more than is said, and what is said is no guess.
                if heap > said + slack || said > heap + heap / 2 + slack {
                    wrong.push(format!("{name}, discrete {discrete}, {options:?}: {heap} bytes, the plan says {said}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
