//! After the set-up no round allocates on the heap, and the memory that the process holds stays what it is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[path = "it/planner/jobs.rs"]
#[allow(dead_code)]
mod jobs;

use runjob::check::{Part, Side};
use runjob::data::Source;
use runjob::device::cpu::{self, BlockAt, CpuOptions};
use runjob::device::{Device, NO_OFFSET, Trace, TraceOptions, Word};
use runjob::diag::Place;
use runjob::exec::{self, Progress};
use runjob::expr::{self, Expr, ExprKind, Name, Scope};
use runjob::job::{Action, Argument, Check, Condition, Contents, Every, Job, Tensor, Var, VarSource, View};
use runjob::plan::{self, Host, Options, Trust};
use runjob::tensor::{Access, Dtype, Param, Shape};
use runjob::verdict::{Event, Verdict};

/// Counts what it passes on to the system.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// Launches so far, and the allocations at the first and the last that count.
static LAUNCHES: AtomicU64 = AtomicU64::new(0);
static AT_FIRST: AtomicU64 = AtomicU64::new(0);
static AT_LAST: AtomicU64 = AtomicU64::new(0);

/// The first launch that counts: every slot has had rounds.
const FIRST: u64 = 20;

/// Memory that this process holds at the launch that [`SETTLED`] counts to, and at the last. *Units*: bytes.
static HELD_AT_FIRST: AtomicU64 = AtomicU64::new(0);
static HELD_AT_LAST: AtomicU64 = AtomicU64::new(0);

/// The first launch whose memory counts: threads have their stacks, and every page that a round uses was touched.
const SETTLED: u64 = 100;

/// What may come in 900 rounds: pages of stacks and tables that are first used late. A leak of a tensor or a message a
/// round is more. *Units*: bytes.
const MOST_GROWTH: u64 = 4 << 20;

/// Resident memory, read without the heap; nothing where the system does not tell. *Units*: bytes.
fn held() -> Option<u64> {
    let mut text = [0; 128];
    let len = std::fs::File::open("/proc/self/statm").and_then(|mut file| file.read(&mut text)).ok()?;
    let pages: u64 = std::str::from_utf8(&text[..len]).ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// y = y + a * x; s = s + x
unsafe fn both(args: *const *mut u8, at: &BlockAt) {
    if at.block[0] == 0 {
        let launch = LAUNCHES.fetch_add(1, Ordering::Relaxed);
        if launch == FIRST {
            // Threads that were just made allocate when the machine lets them start.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let when = if launch == FIRST { &AT_FIRST } else { &AT_LAST };
        when.store(ALLOCATIONS.load(Ordering::Relaxed), Ordering::Relaxed);
        if launch >= SETTLED
            && let Some(bytes) = held()
        {
            let when = if launch == SETTLED { &HELD_AT_FIRST } else { &HELD_AT_LAST };
            when.store(bytes, Ordering::Relaxed);
        }
    }
    // SAFETY: the arguments are those of `job`.
    unsafe {
        let [x, y, s, a] = std::array::from_fn(|i| (*args.add(i)).cast::<f32>());
        let n = (*args.add(4)).cast::<u32>().read() as usize;
        let (from, step) = (at.block[0] as usize * 1024, 1024);
        for i in from..(from + step).min(n) {
            y.add(i).write(y.add(i).read() + a.read() * x.add(i).read());
            s.add(i).write(s.add(i).read() + x.add(i).read());
        }
    }
}

/// One of every class that crosses: streamed, restored, carried, output, by value; sets and a variable. The rows of
/// `spaced` tensors are three elements, and four on the device.
fn job(n: u64, rounds: u64, spaced: bool) -> Job {
    let uniform = Source::Uniform { low: -1.0, high: 1.0 };
    let mut tensors = vec![
        jobs::tensor("x", Dtype::F32, n, jobs::drawn(uniform.clone())),
        jobs::tensor("y", Dtype::F32, n, Contents::Sets(vec![uniform.clone(); 3])),
        jobs::tensor("s", Dtype::F32, n, Contents::Fixed(Source::Fill(0))),
        jobs::tensor("a", Dtype::F32, 1, jobs::drawn(uniform)),
        jobs::tensor("copy", Dtype::F32, n, Contents::None),
    ];
    tensors[2].carry = true;
    tensors.iter_mut().filter(|t| t.name != "a").for_each(|t| t.spaced = spaced);
    let there = tensors[0].device_bytes() / 4;
    let view = |tensor| View { tensor, offset: 0, len: there * 4 };
    let tensor = |access, id| Argument::Tensor { access, view: view(id) };
    let args = vec![
        tensor(Access::In, 0),
        tensor(Access::Inout, 1),
        tensor(Access::Inout, 2),
        Argument::Scalar(Word::Var(0)),
        Argument::Scalar(Word::Const(there)),
    ];
    let grid = [Word::Const(there.div_ceil(1024)), Word::Const(1), Word::Const(1)];
    let steps = vec![Action::Launch { kernel: 0, grid, offset: NO_OFFSET, args }, Action::Copy { src: view(2), dst: view(4) }];
    let params = ["in f32 x", "inout f32 y", "inout f32 s", "f32 a", "u32 n"].iter().map(|p| Param::parse(p).unwrap()).collect();
    let claims = [(1, "y + a * x"), (2, "s + x"), (4, "s + x + 0 * max(x)")];
    let mut checks: Vec<_> = claims.iter().map(|(t, text)| jobs::check(*t, vec![jobs::want(&tensors, *t, text)])).collect();
    checks[0].tolerance = runjob::check::Tolerance { atol: Some(1e-5), ..Default::default() };
    // And one of every other kind of check.
    let mut more: Vec<Check> =
        ["s + x"; 6].iter().map(|text| Check { keeps: false, ..jobs::check(4, vec![jobs::want(&tensors, 4, text)]) }).collect();
    more[0].tolerance.nan_equal = true;
    (more[1].tolerance.exact, more[1].tolerance.rel_l2, more[1].tolerance.min_cosine) = (false, Some(1e-6), Some(0.9));
    let middle = Side { start: 10, extent: n - 20, dropped: false };
    more[2].part = Part::new(&tensors[4].shape, vec![middle]);
    let mask = expr::compile_condition(&expr::parse("x > 0").unwrap(), &jobs::Names(&tensors), &tensors[4].shape).unwrap();
    more[3].mask = Some(Arc::new(mask));
    (more[4].unordered, more[4].tolerance.max_abs) = (true, Some(1e-3));
    more[5].every = Every(7);
    more.push(Check { keeps: false, written: true, ..jobs::check(4, Vec::new()) });
    checks.extend(more);
    let conditions = ["max(after(copy)) <= max(s) + 2", "max(after(copy)) != max(s) + 100"].map(|text| condition(&tensors, text));
    let mut job = jobs::job(tensors, vec![jobs::kernel("both", both, params, [1; 3])], steps, checks, rounds, 3);
    job.vars.push(Var { text: "a".into(), source: VarSource::Tensor(3) });
    job.rounds.warmup = 2;
    job.conditions.extend(conditions);
    job
}

/// A comparison of two numbers.
fn condition(tensors: &[Tensor], text: &str) -> Condition {
    struct Ends<'a>(jobs::Names<'a>);
    impl Scope for Ends<'_> {
        fn get(&self, name: &str) -> Option<Name<'_>> {
            self.0.get(name)
        }
        fn after(&self, name: &str) -> Option<Name<'_>> {
            self.0.get(name)
        }
        fn names(&self) -> Vec<String> {
            self.0.names()
        }
    }
    let (scope, one) = (Ends(jobs::Names(tensors)), Shape::default());
    let expr = expr::parse(text).unwrap();
    let ExprKind::Binary(op, left, right) = &expr.kind else { panic!("a comparison") };
    let side = |expr: &Expr| Arc::new(expr::compile(expr, &scope, &one).unwrap());
    Condition {
        program: Arc::new(expr::compile_condition(&expr, &scope, &one).unwrap()),
        sides: Some((side(left), *op, side(right))),
        asks_nan: false,
        every: Every(1),
        place: Place::root(),
        text: text.into(),
    }
}

/// Allocations between round 20 of a run and its last.
fn allocations(job: &Job, discrete: bool, options: &Options) -> u64 {
    let device = cpu::open(CpuOptions { threads: Some(2), discrete, compilers: Some(Vec::new()), ..CpuOptions::default() }).unwrap();
    let plan = plan::build(job, device.caps(), options).unwrap();
    let mut device = Trace::new(Box::new(device), TraceOptions::default());
    let mut verdict = None;
    for counter in [&LAUNCHES, &HELD_AT_FIRST, &HELD_AT_LAST] {
        counter.store(0, Ordering::Relaxed);
    }
    exec::run(job, &plan, &mut device, &exec::Options { threads: 2, ..exec::Options::default() }, &Progress::new(), &mut |event| {
        if let Event::Done(report) = event {
            verdict = Some((report.verdict, report.failures));
        }
    });
    let (verdict, failures) = verdict.unwrap();
    assert_eq!(verdict, Verdict::Pass, "{failures:?}");
    assert_eq!(LAUNCHES.load(Ordering::Relaxed), job.rounds.count + job.rounds.warmup * u64::from(plan.schedule.lanes));
    let (before, after) = (HELD_AT_FIRST.load(Ordering::Relaxed), HELD_AT_LAST.load(Ordering::Relaxed));
    assert!(job.rounds.count < 1000 || !cfg!(target_os = "linux") || before > 0, "the memory held was not read");
    let growth = after.saturating_sub(before);
    assert!(job.rounds.count < 1000 || growth <= MOST_GROWTH, "{options:?}: {growth} bytes more after {} rounds", job.rounds.count);
    AT_LAST.load(Ordering::Relaxed) - AT_FIRST.load(Ordering::Relaxed)
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn no_round_allocates() {
    // The test's own process has started everything after a run.
    allocations(&job(1000, 500, false), false, &Options::default());
    let mut wrong = Vec::new();
    for (n, rounds, spaced) in [(1000, 1000, false), (150_000, 60, false), (999, 1000, true), (150_000, 60, true)] {
        for discrete in [false, true] {
            // What is spread and gathered does not depend on the level.
            for trust in [Trust::Standard, Trust::Fast].into_iter().take(if spaced { 1 } else { 2 }) {
                for (slots, host) in [(1, Host::Inline), (3, Host::Inline), (1, Host::Pool), (3, Host::Pool)] {
                    let options = Options { trust, fresh: false, lanes: Some(1), slots: Some(slots), batch: None, host: Some(host) };
                    let allocations = allocations(&job(n, rounds, spaced), discrete, &options);
                    if allocations > 0 {
                        wrong.push(format!(
                            "{n} elements, spaced {spaced}, discrete {discrete}, {options:?}: {allocations} in {rounds} rounds"
                        ));
                    }
                }
                if n < 1000 || !spaced && n == 1000 {
                    for (batch, host) in [(4, Host::Inline), (7, Host::Pool)] {
                        let options = Options { trust, fresh: false, lanes: Some(1), slots: Some(2), batch: Some(batch), host: Some(host) };
                        let allocations = allocations(&job(n, rounds, spaced), discrete, &options);
                        if allocations > 0 {
                            wrong.push(format!(
                                "{n} elements, spaced {spaced}, discrete {discrete}, {options:?}: {allocations} in {rounds} rounds"
                            ));
                        }
                    }
                }
                for slots in [1, 3] {
                    // What is carried keeps a job to one lane.
                    let mut job = job(n, rounds, spaced);
                    job.tensors[2].carry = false;
                    let options = Options { trust, fresh: false, lanes: Some(2), slots: Some(slots), batch: None, host: None };
                    let allocations = if discrete { 0 } else { allocations(&job, discrete, &options) };
                    if allocations > 0 {
                        wrong.push(format!("{n} elements, spaced {spaced}, {options:?}: {allocations} in {rounds} rounds"));
                    }
                }
            }
        }
    }
    #[cfg(feature = "opencl")]
    on_opencl::rounds(&mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The driver allocates as it likes, by other means; of what is counted here it does nothing.
#[cfg(feature = "opencl")]
mod on_opencl {
    use std::time::Duration;

    use runjob::device::opencl::{self, OpenclOptions};
    use runjob::device::{
        Builder, Caps, Code, DeviceError, Graph, Kernel, KernelSource, Mapped, Mem, Node, Place, Point, Queue, Result, Text,
    };

    use super::*;

    const BOTH: &str = "kernel void both(global const float *x, global float *y, global float *s, float a, uint n) {
        uint from = get_group_id(0) * 1024;
        for (uint i = from; i < min(from + 1024, n); ++i) {
            y[i] = y[i] + a * x[i];
            s[i] = s[i] + x[i];
        }
    }";

    /// Replays so far, and the driver's calls at the first that counts and at the last.
    static REPLAYS: AtomicU64 = AtomicU64::new(0);
    static CALLS_AT_FIRST: AtomicU64 = AtomicU64::new(0);
    static CALLS_AT_LAST: AtomicU64 = AtomicU64::new(0);

    /// Looks at the counters at every replay.
    struct Watched(Box<dyn Device>);

    impl Device for Watched {
        fn caps(&self) -> &Caps {
            self.0.caps()
        }
        fn alloc(&mut self, place: Place, bytes: u64) -> Result<Mem> {
            self.0.alloc(place, bytes)
        }
        fn map(&mut self, mem: Mem) -> Result<Mapped> {
            self.0.map(mem)
        }
        fn unmap(&mut self, bytes: Mapped) -> Result<()> {
            self.0.unmap(bytes)
        }
        unsafe fn load(&mut self, kernel: &KernelSource) -> Result<Kernel> {
            // SAFETY: promised by the caller.
            unsafe { self.0.load(kernel) }
        }
        fn builder(&self) -> Option<Arc<dyn Builder>> {
            self.0.builder()
        }
        fn record(&mut self, nodes: &[Node]) -> Result<Graph> {
            self.0.record(nodes)
        }
        fn replay(&mut self, queue: Queue, after: &[Point], graph: Graph, vars: &[u64]) -> Result<Point> {
            let replay = REPLAYS.fetch_add(1, Ordering::Relaxed);
            if replay == FIRST {
                // Threads that were just made allocate when the machine lets them start.
                std::thread::sleep(Duration::from_millis(50));
            }
            let (allocations, calls) = if replay == FIRST { (&AT_FIRST, &CALLS_AT_FIRST) } else { (&AT_LAST, &CALLS_AT_LAST) };
            allocations.store(ALLOCATIONS.load(Ordering::Relaxed), Ordering::Relaxed);
            calls.store(opencl::calls(), Ordering::Relaxed);
            self.0.replay(queue, after, graph, vars)
        }
        fn submit(&mut self, queue: Queue, after: &[Point], nodes: &[Node]) -> Result<Point> {
            self.0.submit(queue, after, nodes)
        }
        fn poll(&mut self, point: Point) -> Result<bool> {
            self.0.poll(point)
        }
        fn wait(&mut self, point: Point) -> Result<()> {
            self.0.wait(point)
        }
        fn elapsed(&mut self, point: Point) -> Result<Option<Duration>> {
            self.0.elapsed(point)
        }
        fn fork(&self) -> Result<Box<dyn Device>> {
            Err(DeviceError::Unsupported("one instance is watched".into()))
        }
        fn reset(&mut self) -> Result<()> {
            self.0.reset()
        }
    }

    /// Allocations and calls of the driver between round 20 of a run and its last, and how many rounds those are.
    fn watched(job: &Job, index: usize, discrete: bool, options: &Options) -> (u64, u64, u64) {
        let device = opencl::open(index, OpenclOptions { discrete, ..OpenclOptions::default() }).unwrap();
        let plan = plan::build(job, device.caps(), options).unwrap();
        let mut device = Trace::new(Box::new(Watched(Box::new(device))), TraceOptions::default());
        REPLAYS.store(0, Ordering::Relaxed);
        let mut verdict = None;
        exec::run(job, &plan, &mut device, &exec::Options { threads: 2, ..exec::Options::default() }, &Progress::new(), &mut |event| {
            if let Event::Done(report) = event {
                verdict = Some((report.verdict, report.reason, report.failures));
            }
        });
        let verdict = verdict.unwrap();
        assert_eq!(verdict.0, Verdict::Pass, "{verdict:?}");
        let count = |to: &AtomicU64, from: &AtomicU64| to.load(Ordering::Relaxed) - from.load(Ordering::Relaxed);
        (count(&AT_LAST, &AT_FIRST), count(&CALLS_AT_LAST, &CALLS_AT_FIRST), REPLAYS.load(Ordering::Relaxed) - FIRST - 1)
    }

    /// One kernel that reads what is new in every round and writes what is checked.
    fn one_kernel(rounds: u64) -> Job {
        let tensors = vec![
            jobs::tensor("x", Dtype::F32, 256, jobs::drawn(Source::Uniform { low: -1.0, high: 1.0 })),
            jobs::tensor("y", Dtype::F32, 256, Contents::None),
        ];
        let view = |tensor| View { tensor, offset: 0, len: 1024 };
        let args = vec![Argument::Tensor { access: Access::In, view: view(0) }, Argument::Tensor { access: Access::Out, view: view(1) }];
        let grid = [Word::Const(8), Word::Const(1), Word::Const(1)];
        let steps = vec![Action::Launch { kernel: 0, grid, offset: NO_OFFSET, args }];
        let checks = vec![jobs::check(1, vec![jobs::want(&tensors, 1, "2 * x")])];
        let params = ["in f32 x", "out f32 y"].iter().map(|p| Param::parse(p).unwrap()).collect();
        let kernel = jobs::kernel("twice", both, params, [32, 1, 1]);
        let text = "kernel void twice(global const float *x, global float *y) { size_t i = get_global_id(0); y[i] = 2 * x[i]; }";
        jobs::job(tensors, vec![in_opencl_c(kernel, text)], steps, checks, rounds, 0)
    }

    fn in_opencl_c(kernel: KernelSource, text: &str) -> KernelSource {
        let code = Code::Text(Text { text: text.into(), lang: None, path: "watched.cl".into(), line: None });
        KernelSource { code, ..kernel }
    }

    pub fn rounds(wrong: &mut Vec<String>) {
        let devices = opencl::list().unwrap_or_else(|error| {
            let required = std::env::var("RUNJOB_REQUIRE").is_ok_and(|all| all.split(',').any(|word| word.trim() == "opencl"));
            assert!(!required, "RUNJOB_REQUIRE names opencl: {error}");
            eprintln!("not run on OpenCL: {error}");
            Vec::new()
        });
        for (index, caps) in devices.iter().enumerate() {
            for discrete in [false, true] {
                for trust in [Trust::Standard, Trust::Fast] {
                    for (slots, host) in [(1, Host::Inline), (3, Host::Inline), (3, Host::Pool)] {
                        let options = Options { trust, fresh: false, lanes: Some(1), slots: Some(slots), batch: None, host: Some(host) };
                        let mut job = job(1000, 300, false);
                        job.kernels = job.kernels.into_iter().map(|kernel| in_opencl_c(kernel, BOTH)).collect();
                        let (allocations, ..) = watched(&job, index, discrete, &options);
                        if allocations > 0 {
                            wrong.push(format!("{}, discrete {discrete}, {options:?}: {allocations} in 300 rounds", caps.name));
                        }
                    }
                }
            }
            if !caps.unified {
                continue;
            }
            // Unmap, launch, map; what runs beside the host is flushed and waited for too.
            for (slots, each) in [(1, 3), (3, 5)] {
                let options =
                    Options { trust: Trust::Fast, fresh: false, lanes: Some(1), slots: Some(slots), batch: None, host: Some(Host::Inline) };
                let (allocations, calls, rounds) = watched(&one_kernel(100), index, false, &options);
                if allocations > 0 || calls != each * rounds {
                    wrong.push(format!("{}, {slots} slots: {calls} calls, {allocations} allocations in {rounds} rounds", caps.name));
                }
            }
        }
    }
}
