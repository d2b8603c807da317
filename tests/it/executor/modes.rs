//! The ways to run a job, and what a run came to.

use runjob::device::cpu::{self, CpuOptions};
use runjob::device::{Counts, Device, Trace, TraceOptions};
use runjob::exec::{self, Progress};
use runjob::job::Job;
use runjob::plan::{self, Host, Options, Plan, Trust};
use runjob::verdict::{Event, Failure, Report};

#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub discrete: bool,
    pub lanes: u32,
    pub slots: u32,
    pub batch: u32,
    pub host: Host,
    pub fresh: bool,
    pub trust: Trust,
    pub threads: usize,
    pub contract: bool,
    /// What kernels are bound at multiples of. *Units*: bytes.
    pub bind: u64,
}

impl Default for Mode {
    fn default() -> Mode {
        Mode {
            discrete: false,
            lanes: 1,
            slots: 1,
            batch: 1,
            host: Host::Inline,
            fresh: false,
            trust: Trust::Standard,
            threads: 1,
            contract: true,
            bind: 1,
        }
    }
}

impl Mode {
    /// Every combination of one lane, several rounds at once, and those of several lanes.
    pub fn all() -> Vec<Mode> {
        let mut modes = Vec::new();
        for bits in 0..64 {
            let bit = |n: u32| bits >> n & 1 == 1;
            let mode = Mode {
                discrete: bit(0),
                lanes: 1,
                slots: if bit(1) { 3 } else { 1 },
                host: if bit(2) { Host::Pool } else { Host::Inline },
                fresh: bit(3),
                trust: if bit(4) { Trust::Fast } else { Trust::Standard },
                threads: if bit(5) { 2 } else { 1 },
                ..Mode::default()
            };
            // Fresh rounds have one slot.
            if !(mode.fresh && mode.slots > 1) {
                modes.push(mode);
            }
        }
        for (at, (batch, slots)) in [(2, 1), (3, 3), (7, 2), (64, 3)].into_iter().enumerate() {
            for trust in [Trust::Standard, Trust::Fast] {
                let host = if at % 2 == 0 { Host::Inline } else { Host::Pool };
                modes.extend([true, false].map(|discrete| Mode { discrete, batch, slots, trust, host, ..Mode::default() }));
            }
        }
        for (lanes, slots) in [(2, 1), (3, 1), (5, 3)] {
            for trust in [Trust::Standard, Trust::Fast] {
                modes.push(Mode { lanes, slots, trust, ..Mode::default() });
            }
        }
        modes
    }

    /// Whether a job can run so: what rounds carry over keeps them to one lane.
    pub fn allows(&self, job: &Job) -> bool {
        self.lanes == 1 || !job.tensors.iter().any(|t| t.carry)
    }

    /// Those of every mode that a job can run in.
    pub fn all_of(job: &Job) -> Vec<Mode> {
        Mode::all().into_iter().filter(|mode| mode.allows(job)).collect()
    }

    pub fn options(&self) -> Options {
        let Mode { trust, fresh, lanes, slots, batch, host, .. } = *self;
        Options { trust, fresh, lanes: Some(lanes), slots: Some(slots), batch: Some(batch), host: Some(host) }
    }

    pub fn device(&self) -> Box<dyn Device> {
        // No C kernels here, so no compiler is looked for.
        let options = CpuOptions {
            threads: Some(self.threads),
            discrete: self.discrete,
            bind_alignment: Some(self.bind),
            compilers: Some(Vec::new()),
            ..CpuOptions::default()
        };
        Box::new(cpu::open(options).unwrap())
    }

    pub fn plan(&self, job: &Job, device: &dyn Device) -> Plan {
        plan::build(job, device.caps(), &self.options()).unwrap()
    }
}

pub struct Outcome {
    pub plan: Plan,
    pub report: Report,
    /// As they were told.
    pub failed: Vec<Failure>,
    /// Of the device, with all it did.
    pub counts: Counts,
}

pub fn run(job: &Job, mode: &Mode) -> Outcome {
    run_on(job, mode, mode.device(), &Progress::new())
}

pub fn run_on(job: &Job, mode: &Mode, device: Box<dyn Device>, progress: &Progress) -> Outcome {
    let plan = mode.plan(job, device.as_ref());
    run_plan(job, plan, mode, device, progress)
}

pub fn run_plan(job: &Job, plan: Plan, mode: &Mode, device: Box<dyn Device>, progress: &Progress) -> Outcome {
    let mut device = Trace::new(device, TraceOptions { log: false, contract: mode.contract });
    let (mut report, mut failed, mut planned) = (None, Vec::new(), 0);
    exec::run(job, &plan, &mut device, &exec::Options { threads: mode.threads, ..exec::Options::default() }, progress, &mut |event| {
        match event {
            Event::Planned { .. } => planned += 1,
            Event::Failed(failure) => failed.push(*failure),
            Event::Done(done) => assert!(report.replace(*done).is_none(), "the end is told once"),
        }
    });
    assert_eq!(planned, 1);
    let counts = device.counts();
    let report = report.expect("the end is told");
    // Lanes tell what they find when they find it; the report has the lowest rounds of all.
    failed.sort_by_key(|failure| failure.round);
    failed.truncate(report.failures.len());
    assert_eq!((counts.allocs, counts.bytes_allocated), (counts.frees, counts.bytes_freed), "everything was freed: {mode:?}");
    Outcome { plan, report, failed, counts }
}

impl Outcome {
    /// The counters of the run against the plan's numbers.
    pub fn counts_are_those_of_the_plan(&self, job: &Job, mode: &Mode) {
        let (plan, setup, rounds) = (&self.plan, self.report.setup_counts, self.report.round_counts);
        let count = job.rounds.count;
        assert_eq!(setup.loads + rounds.loads, plan.cost.loads);
        assert_eq!(rounds.loads, 0, "no kernel is loaded after the set-up");
        assert_eq!(self.counts.maps, self.counts.unmaps, "what was lent came back: {mode:?}");
        let batch = u64::from(plan.schedule.batch);
        let replays = count.div_ceil(batch);
        assert_eq!(rounds.replays, replays);
        let sets = self.sets(job);
        let nodes = |turn: u64| {
            let (round, rounds) = (turn * batch, batch.min(count - turn * batch) as u32);
            &plan.graphs[plan.graph(rounds, sets[round as usize], plan.mode(round))]
        };
        let of = |kind: fn(&runjob::device::Cmd) -> bool| {
            (0..replays).map(|turn| nodes(turn).iter().filter(|n| kind(&n.cmd)).count() as u64).sum::<u64>()
        };
        use runjob::device::Cmd;
        assert_eq!(rounds.launches, of(|c| matches!(c, Cmd::Launch { .. })));
        assert_eq!(rounds.launches, plan.cost.launches * count);
        if mode.fresh {
            let carried = plan.tensors.iter().filter(|t| t.class == plan::Class::Carried && t.home.is_some()).count() as u64;
            assert_eq!(rounds.allocs, plan.cost.allocs * count + carried * (2 * count - 1), "{mode:?}");
            return;
        }
        assert_eq!((setup.allocs, setup.bytes_allocated), (plan.cost.allocs, plan.allocated()));
        let resets = if plan.schedule.lanes > 1 { u64::from(plan.schedule.lanes) + 1 } else { 1 };
        assert_eq!((rounds.allocs, rounds.records, rounds.submits, rounds.resets), (0, 0, 0, resets), "{mode:?}");
        let slots = u64::from(plan.schedule.slots * plan.schedule.lanes);
        assert_eq!(setup.records, plan.graphs.len() as u64 * slots);
        assert_eq!(rounds.copies, of(|c| matches!(c, Cmd::Copy { .. })));
        assert_eq!(rounds.fills, of(|c| matches!(c, Cmd::Fill { .. })));
        assert_eq!(rounds.waits, replays);
    }

    /// The set of each round.
    fn sets(&self, job: &Job) -> Vec<u32> {
        let n = job.sets.len() as u32;
        (0..job.rounds.count)
            .map(|round| match job.rounds.order {
                _ if n == 0 => 0,
                runjob::spec::Order::Cycle => (round % u64::from(n)) as u32,
                runjob::spec::Order::Shuffle => {
                    let mut order = vec![0; n as usize];
                    runjob::data::permutation(job.rounds.seed, (round / u64::from(n)) as u32, n, &mut order);
                    order[(round % u64::from(n)) as usize]
                }
            })
            .collect()
    }
}
