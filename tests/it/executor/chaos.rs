//! Order that the plan asks for and nothing else: everything is right on a device that runs nodes as late and in as odd
//! an order as it may, and wrong as soon as an edge or a wait is left out.

use std::time::Duration;

use proptest::prelude::*;
use runjob::device::{
    Caps, Chaos, ChaosOptions, Cmd, Device, Graph, Kernel, KernelSource, Mapped, Mem, Node, Place, Point, Queue, Result, Trace,
    TraceOptions,
};
use runjob::exec::{self, Progress};
use runjob::job::Job;
use runjob::plan::{Host, Plan, Trust};
use runjob::verdict::{Event, Report, Verdict};

use super::modes::{Mode, run_on};
use crate::planner::jobs::{self, Style};

fn chaos(mode: &Mode, seed: u64) -> Box<dyn Device> {
    Box::new(Chaos::new(mode.device(), ChaosOptions { seed, fail: None }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_that_is_allowed_changes_a_result(numbers in crate::planner::tape(), seed: u64) {
        let job = super::with_goldens(jobs::random(&numbers, Style { aligned: true, expressions: false }));
        for mode in Mode::all_of(&job) {
            let outcome = run_on(&job, &mode, chaos(&mode, seed), &Progress::new());
            prop_assert_eq!(outcome.report.verdict, Verdict::Pass, "{:?}: {:?} {:?}", mode, outcome.report.reason, outcome.report.failures);
        }
    }
}

/// Runs a plan that may have been changed.
fn run_plan(job: &Job, plan: &Plan, device: Box<dyn Device>) -> Report {
    let mut device = Trace::new(device, TraceOptions::default());
    let mut report = None;
    exec::run(job, plan, &mut device, &exec::Options { threads: 1, ..exec::Options::default() }, &Progress::new(), &mut |event| {
        if let Event::Done(done) = event {
            report = Some(*done);
        }
    });
    report.unwrap()
}

/// Whether a node waits for another by way of the rest.
fn waits(nodes: &[Node], node: u32, before: u32) -> bool {
    nodes[node as usize].after.iter().any(|&a| a == before || (a > before && waits(nodes, a, before)))
}

/// The edges of a job's rounds whose absence no order shows: what they order is the same either way, or is not looked at.
fn unseen(plan: &Plan, from: &Cmd, to: &Cmd) -> bool {
    let zone = |cmd: &Cmd| match cmd {
        Cmd::Copy { dst, .. } => plan.zones.iter().any(|z| z.read != z.at && z.read.memory == dst.mem.0 && z.read.offset == dst.offset),
        _ => false,
    };
    zone(from) || zone(to)
}

/// Whether two nodes are of different rounds that are submitted at once.
fn between_rounds(plan: &Plan, nodes: usize, a: usize, b: usize) -> bool {
    let round = |node| plan.round_of(plan.schedule.batch, nodes, node).0;
    round(a) != round(b)
}

#[test]
fn every_dropped_edge_is_seen_to_fail() {
    let job = super::with_integer_steps();
    for (discrete, batch) in [(false, 1), (true, 1), (true, 2)] {
        let mode = Mode { discrete, batch, ..Mode::default() };
        let plan = mode.plan(&job, mode.device().as_ref());
        let mut dropped = 0;
        for graph in 0..plan.graphs.len() {
            for node in 0..plan.graphs[graph].len() {
                for edge in 0..plan.graphs[graph][node].after.len() {
                    let mut broken = plan.clone();
                    let nodes = &mut broken.graphs[graph];
                    let before = nodes[node].after.remove(edge);
                    if waits(nodes, node as u32, before) || unseen(&plan, &nodes[before as usize].cmd, &nodes[node].cmd) {
                        continue;
                    }
                    if batch > 1 && !between_rounds(&plan, nodes.len(), node, before as usize) {
                        // Those within a round are the same in all of them.
                        continue;
                    }
                    // The mode of the graph must come in some round.
                    let runs = (0..200).map(|seed| run_plan(&job, &broken, chaos(&mode, seed)));
                    let seen = runs.into_iter().any(|report| report.verdict == Verdict::Fail);
                    let what = (&plan.graphs[graph][before as usize].cmd, &plan.graphs[graph][node].cmd);
                    assert!(seen, "discrete {discrete}: graph {graph}, node {node} without its wait for {before}: {what:?}");
                    dropped += 1;
                }
            }
        }
        assert!(dropped > if batch == 1 { 12 } else { 0 }, "{dropped} edges");
    }
}

/// Leaves waits out: those of the executor, or those between queues.
struct Hasty {
    device: Box<dyn Device>,
    waits: bool,
    after: bool,
}

impl Device for Hasty {
    fn caps(&self) -> &Caps {
        self.device.caps()
    }
    fn alloc(&mut self, place: Place, bytes: u64) -> Result<Mem> {
        self.device.alloc(place, bytes)
    }
    fn map(&mut self, mem: Mem) -> Result<Mapped> {
        self.device.map(mem)
    }
    fn unmap(&mut self, bytes: Mapped) -> Result<()> {
        self.device.unmap(bytes)
    }
    unsafe fn load(&mut self, kernel: &KernelSource) -> Result<Kernel> {
        // SAFETY: promised by the caller.
        unsafe { self.device.load(kernel) }
    }
    fn record(&mut self, nodes: &[Node]) -> Result<Graph> {
        self.device.record(nodes)
    }
    fn replay(&mut self, queue: Queue, after: &[Point], graph: Graph, vars: &[u64]) -> Result<Point> {
        self.device.replay(queue, if self.after { after } else { &[] }, graph, vars)
    }
    fn submit(&mut self, queue: Queue, after: &[Point], nodes: &[Node]) -> Result<Point> {
        self.device.submit(queue, after, nodes)
    }
    fn poll(&mut self, point: Point) -> Result<bool> {
        self.device.poll(point)
    }
    fn wait(&mut self, point: Point) -> Result<()> {
        if self.waits { self.device.wait(point) } else { Ok(()) }
    }
    fn elapsed(&mut self, point: Point) -> Result<Option<Duration>> {
        self.device.elapsed(point)
    }
    fn fork(&self) -> Result<Box<dyn Device>> {
        Ok(Box::new(Hasty { device: self.device.fork()?, ..*self }))
    }
    fn reset(&mut self) -> Result<()> {
        self.device.reset()
    }
}

#[test]
fn a_dropped_wait_is_seen_to_fail() {
    let job = super::expressions();
    for mode in Mode::all_of(&job).into_iter().filter(|m| m.trust == Trust::Standard) {
        let device = |waits| Box::new(Hasty { device: chaos(&mode, 1), waits, after: true });
        let plan = mode.plan(&job, mode.device().as_ref());
        assert_eq!(run_plan(&job, &plan, device(true)).verdict, Verdict::Pass, "{mode:?}");
        assert_eq!(run_plan(&job, &plan, device(false)).verdict, Verdict::Fail, "{mode:?}");
    }
}

#[test]
fn a_dropped_wait_between_rounds_that_carry_is_seen_to_fail() {
    let job = super::expressions();
    for discrete in [false, true] {
        let mode = Mode { discrete, slots: 3, host: Host::Inline, ..Mode::default() };
        let plan = mode.plan(&job, mode.device().as_ref());
        let verdict = |after, seed| run_plan(&job, &plan, Box::new(Hasty { device: chaos(&mode, seed), waits: true, after })).verdict;
        assert!((0..8).all(|seed| verdict(true, seed) == Verdict::Pass));
        assert!((0..20).any(|seed| verdict(false, seed) == Verdict::Fail), "discrete {discrete}");
    }
}
