//! The CPU as a device: kernels in C, C++ and Rust, compiled before they are loaded, or built already; called once per
//! block by threads of its own.
//!
//! `workshop` turns a source into an entry: `shim` and `rust` write what is compiled, `tools` finds the compiler, `cache`
//! what it made before. `program` turns a list of nodes into calls, `pool` deals their blocks to threads, `queue` runs
//! what is submitted to the background.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Builder, Caps, Code, Device, DeviceError, Graph, Kernel, KernelSource, Mapped, Mem, Node, Place, Point, Queue, Result};
use crate::tensor::{Dtype, Lang};

mod bytes;
mod cache;
mod compile;
mod explain;
mod float_mode;
mod kernel;
mod pool;
mod prebuilt;
mod program;
mod queue;
mod run;
mod rust;
mod shim;
mod tables;
#[cfg(test)]
mod tests;
mod tools;
mod workshop;

use super::pages::{Budget, Region};
use cache::Cache;
use kernel::Loaded;
use pool::Pool;
use program::{Context, Program};
use queue::{Background, Queued};
use tables::{Memory, Resolver};
use tools::Tools;
use workshop::Workshop;

pub use tools::{Found, Tool};

/// A kernel compiled into this program: called once per block.
///
/// `args` points to one pointer per parameter that is not `local`, then one per `local` parameter: to the tensor's
/// first byte, to the scalar's or the struct's bits, or to the block's scratch; for `null` it is null.
pub type Builtin = unsafe fn(args: *const *mut u8, at: &BlockAt);

/// Where a block is in its grid, x first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockAt {
    pub block: [u32; 3],
    pub grid: [u32; 3],
    pub block_dim: [u32; 3],
    /// *Units*: threads.
    pub offset: [u32; 3],
    /// The block's `KernelSource::shared` bytes, aligned to 64; without any it points nowhere.
    pub shared: *mut u8,
}

/// The text of `runjob.h`, which C and C++ kernels may include.
pub const HEADER: &str = shim::HEADER;

pub use shim::is_keyword;

/// How the CPU is opened as a device.
#[derive(Clone, Debug, Default)]
pub struct CpuOptions {
    /// Threads that run kernels, the calling one included; otherwise as many as the machine runs at once.
    pub threads: Option<usize>,
    /// Stands for a device with memory of its own: neither `Place::Shared` nor `Place::ReadOnly`.
    pub discrete: bool,
    /// Stands for a device that binds slices at multiples of so many bytes alone.
    pub bind_alignment: Option<u64>,
    /// Told the index of each node before it runs, so that whoever watches can say where a kernel crashed: the first by
    /// the instance that is opened and by its first fork, the others by further forks in their order.
    pub at_node: Vec<&'static AtomicU32>,
    /// Commands to try as C compiler; otherwise `$RUNJOB_CC` alone, or `$CC`, `cc`, `clang`, `gcc`.
    pub compilers: Option<Vec<String>>,
    /// Commands to try as C++ compiler; otherwise `$RUNJOB_CXX` alone, or `$CXX`, `c++`, `clang++`, `g++`.
    pub cxx_compilers: Option<Vec<String>>,
    /// Commands to try as Rust compiler; otherwise `$RUNJOB_RUSTC` alone, or `$RUSTC`, `rustc`, `~/.cargo/bin/rustc`.
    pub rust_compilers: Option<Vec<String>>,
    /// Folder of compiled kernels; otherwise `$RUNJOB_CACHE`, `$XDG_CACHE_HOME/runjob`, `~/.cache/runjob`.
    pub cache: Option<PathBuf>,
}

/// Kernels that a device compiled, and those it found compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Builds {
    pub compiles: u64,
    pub cache_hits: u64,
}

/// The CPU as a device.
pub struct CpuDevice {
    // First, as its threads use what the graphs and memories hold.
    queues: Vec<Option<Background>>,
    graphs: Vec<Recorded>,
    memories: Vec<Memory>,
    kernels: Vec<Arc<Loaded>>,
    /// How many of the graphs and memories are those of the instance that this one was forked from.
    inherited: (usize, usize),
    /// Replays and submissions to queue 0 so far.
    inline_points: u64,
    context: Arc<Context>,
    home: Arc<Home>,
}

/// What an instance and its forks share.
struct Home {
    caps: Caps,
    at_node: Vec<&'static AtomicU32>,
    forks: AtomicU32,
    workshop: Arc<Workshop>,
    budget: Arc<Budget>,
    discrete: bool,
}

/// A recorded list, ready to be replayed without allocation by whichever queue is first.
struct Recorded {
    /// For queue 0, unless another queue took it.
    inline: Option<Program>,
    /// Programs of their own for the queues that replay the graph in the background.
    queued: Vec<(Queue, Arc<Queued>)>,
    /// Where the first of these queues puts the recorded program.
    place: Option<Arc<Queued>>,
}

impl Recorded {
    fn new(program: Program) -> Recorded {
        Recorded { inline: Some(program), queued: Vec::with_capacity(1), place: Some(Arc::default()) }
    }

    /// Another program of the same list.
    fn another(&self, resolver: &Resolver<'_>) -> Result<Program> {
        let of_queue = || self.queued.first().map(|(_, program)| program.lock().unwrap_or_else(PoisonError::into_inner));
        match (&self.inline, of_queue().as_deref()) {
            (Some(program), _) | (None, Some(Some(program))) => program.another(resolver),
            _ => Err(failed("replay", "the graph has no program")),
        }
    }

    /// The program of a background queue.
    fn of_queue(&mut self, queue: Queue, another: impl FnOnce(&Recorded) -> Result<Program>) -> Result<Arc<Queued>> {
        if let Some((_, program)) = self.queued.iter().find(|(of, _)| *of == queue) {
            return Ok(Arc::clone(program));
        }
        let program = match (self.place.take(), self.inline.take()) {
            (Some(place), Some(program)) => {
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(program);
                place
            }
            (_, inline) => {
                self.inline = inline;
                Arc::new(Mutex::new(Some(another(self)?)))
            }
        };
        self.queued.push((queue, Arc::clone(&program)));
        Ok(program)
    }
}

/// The driver of a machine that cannot compile kernels.
pub const NO_COMPILER: &str = "no C compiler";

/// Alignment of slices that kernels are given. *Units*: bytes.
const ALIGNMENT: u64 = 64;

/// Most threads in a block: only a number that kernels read.
const MAX_BLOCK: u64 = 1 << 20;

/// Background queues that an instance may have.
const MAX_QUEUES: u32 = 64;

/// A point's queue stands above this bit, its number in the queue below.
const QUEUE_BIT: u32 = 48;

/// Opens the CPU. A machine without a C compiler is not an error before a C kernel is loaded.
pub fn open(options: CpuOptions) -> Result<CpuDevice> {
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let pool = Pool::new(threads);
    let cache = Cache::open(options.cache);
    let tools = Tools::new([options.compilers, options.cxx_compilers, options.rust_compilers]);
    let driver = tools.get(Lang::C, &cache).map_or_else(|_| NO_COMPILER.to_string(), |c| c.version.clone());
    let budget = Budget::of_machine();
    let (name, processor) = compile::processor();
    let caps = Caps {
        backend: "cpu",
        name,
        driver,
        unified: !options.discrete,
        lanes: pool.threads() as u32,
        submit_ns: 50,
        node_ns: 50,
        // Beyond what the caches of today's cores give, so that a lower bound by bytes is one.
        bytes_per_ns: 200.0 * pool.threads() as f64,
        memory: budget.total(),
        largest_alloc: budget.total(),
        alignment: ALIGNMENT,
        bind_alignment: options.bind_alignment.unwrap_or(1),
        max_block: MAX_BLOCK,
        max_block_dims: [MAX_BLOCK; 3],
        shares_cores: true,
        features: Dtype::ALL.iter().map(|d| d.name().to_string()).collect(),
        versions: Vec::new(),
    };
    let context = Arc::new(Context { pool, at_node: options.at_node.first().copied() });
    let workshop = Arc::new(Workshop::new(cache, tools, processor));
    let home = Home { caps, at_node: options.at_node, forks: AtomicU32::new(0), workshop, budget, discrete: options.discrete };
    Ok(CpuDevice {
        queues: Vec::new(),
        graphs: Vec::new(),
        memories: Vec::new(),
        kernels: Vec::new(),
        inherited: (0, 0),
        inline_points: 0,
        context,
        home: Arc::new(home),
    })
}

fn failed(call: &'static str, message: impl Into<String>) -> DeviceError {
    DeviceError::Failed { node: None, call, message: message.into() }
}

impl CpuDevice {
    /// Kernels compiled and found compiled, by this instance and its forks.
    pub fn builds(&self) -> Builds {
        let (compiles, cache_hits) = self.home.workshop.cache.counts();
        Builds { compiles, cache_hits }
    }

    /// The compilers of this machine, and what to install for those that are not there.
    pub fn tools(&self) -> Vec<Tool> {
        self.home.workshop.tools.list(&self.home.workshop.cache)
    }

    fn resolver(&self) -> Resolver<'_> {
        Resolver { memories: &self.memories, kernels: &self.kernels, inherited: self.inherited.1, budget: &self.home.budget }
    }

    /// The queue and number of a point of this instance.
    fn locate(&self, call: &'static str, point: Point) -> Result<(u32, u64)> {
        let (queue, number) = ((point.0 >> QUEUE_BIT) as u32, point.0 & ((1 << QUEUE_BIT) - 1));
        let last = match queue {
            0 => self.inline_points,
            _ => self.background(queue).map_or(0, |background| background.line().submitted()),
        };
        if number == 0 || number > last {
            return Err(failed(call, format!("there is no point {}", point.0)));
        }
        Ok((queue, number))
    }

    fn background(&self, queue: u32) -> Option<&Background> {
        self.queues.get((queue as usize).checked_sub(1)?)?.as_ref()
    }

    fn start_queue(&mut self, queue: Queue) -> Result<()> {
        if queue.0 > MAX_QUEUES {
            return Err(failed("queue", format!("queue {}: there are queues 0 to {MAX_QUEUES}", queue.0)));
        }
        let index = queue.0 as usize - 1;
        if self.queues.len() <= index {
            self.queues.resize_with(index + 1, || None);
        }
        if self.queues[index].is_none() {
            self.queues[index] = Some(Background::start(queue.0, Arc::clone(&self.context))?);
        }
        Ok(())
    }

    /// Puts a run at the end of a background queue.
    fn push(&self, call: &'static str, queue: Queue, after: &[Point], program: &Arc<Queued>, vars: &[u64]) -> Result<Point> {
        let Some(background) = self.background(queue.0) else { return Err(failed(call, "the queue has no thread")) };
        for &point in after {
            self.locate(call, point)?;
        }
        let lines = after.iter().filter_map(|point| {
            let (queue, number) = ((point.0 >> QUEUE_BIT) as u32, point.0 & ((1 << QUEUE_BIT) - 1));
            // Points of queue 0 are reached when they are given out.
            (queue != 0).then(|| self.background(queue).map(|b| (Arc::clone(b.line()), number)))?
        });
        let number = background.push(call, program, vars, lines);
        Ok(Point(u64::from(queue.0) << QUEUE_BIT | number))
    }
}

impl Device for CpuDevice {
    fn caps(&self) -> &Caps {
        &self.home.caps
    }

    fn alloc(&mut self, place: Place, bytes: u64) -> Result<Mem> {
        if self.home.discrete && matches!(place, Place::Shared | Place::ReadOnly) {
            return Err(DeviceError::Unsupported(format!("{place:?} memory needs a device that shares the host's memory")));
        }
        let out_of_memory = |available| DeviceError::OutOfMemory { place, bytes, available, what: String::new() };
        let region = Region::new(bytes, &self.home.budget).map_err(|short| out_of_memory(short.available))?;
        let mem = u32::try_from(self.memories.len()).map_err(|_| failed("alloc", "too many memories"))?;
        self.memories.push(Memory { place, region: Arc::new(region), lent: false });
        Ok(Mem(mem))
    }

    fn map(&mut self, mem: Mem) -> Result<Mapped> {
        let owned = mem.0 as usize >= self.inherited.1;
        let Some(memory) = self.memories.get_mut(mem.0 as usize) else {
            return Err(failed("map", format!("there is no memory {}", mem.0)));
        };
        if memory.place == Place::Device {
            return Err(failed("map", format!("memory {} is the device's alone", mem.0)));
        }
        if memory.lent {
            return Err(failed("map", format!("memory {} is lent already", mem.0)));
        }
        if memory.place == Place::ReadOnly && owned {
            memory.region.set_writable(true).map_err(|e| failed("map", e.to_string()))?;
        }
        memory.lent = true;
        // SAFETY: the region lives as long as this instance, and the caller keeps lent memory out of what is in flight.
        // Memory of the instance that this one was forked from is lent for reading: the contract of `fork`.
        Ok(unsafe { Mapped::new(mem, memory.region.ptr(), memory.region.len()) })
    }

    fn unmap(&mut self, bytes: Mapped) -> Result<()> {
        let mem = bytes.mem();
        let owned = mem.0 as usize >= self.inherited.1;
        let Some(memory) = self.memories.get_mut(mem.0 as usize).filter(|memory| memory.lent) else {
            return Err(failed("unmap", format!("memory {} is not lent", mem.0)));
        };
        memory.lent = false;
        if memory.place == Place::ReadOnly && owned {
            memory.region.set_writable(false).map_err(|e| failed("unmap", e.to_string()))?;
        }
        Ok(())
    }

    unsafe fn load(&mut self, kernel: &KernelSource) -> Result<Kernel> {
        let threads = kernel.block.iter().map(|&n| u128::from(n)).product::<u128>();
        if threads > u128::from(MAX_BLOCK) {
            let message = format!("a block of {threads} threads; at most {MAX_BLOCK}");
            return Err(compile::unusable(kernel, message));
        }
        let code = match &kernel.code {
            Code::Builtin(builtin) => kernel::Code::Builtin(*builtin),
            // SAFETY: promised by the caller.
            Code::File(_) | Code::Text(_) => kernel::Code::Compiled(unsafe { self.home.workshop.load(kernel) }?),
        };
        let loaded = Loaded::new(kernel, code)?;
        let id = u32::try_from(self.kernels.len()).map_err(|_| failed("load", "too many kernels"))?;
        self.kernels.push(Arc::new(loaded));
        Ok(Kernel(id))
    }

    fn builder(&self) -> Option<Arc<dyn Builder>> {
        Some(Arc::clone(&self.home.workshop) as Arc<dyn Builder>)
    }

    fn record(&mut self, nodes: &[Node]) -> Result<Graph> {
        let program = Program::new("record", nodes, &self.resolver(), self.context.pool.threads())?;
        let id = u32::try_from(self.graphs.len()).map_err(|_| failed("record", "too many graphs"))?;
        self.graphs.push(Recorded::new(program));
        Ok(Graph(id))
    }

    #[inline]
    fn replay(&mut self, queue: Queue, after: &[Point], graph: Graph, vars: &[u64]) -> Result<Point> {
        if queue.0 == 0 {
            for &point in after {
                self.wait(point)?;
            }
            let Some(recorded) = self.graphs.get_mut(graph.0 as usize) else { return Err(no_graph(graph)) };
            let program = match &mut recorded.inline {
                Some(program) => program,
                None => {
                    let resolver = Resolver {
                        memories: &self.memories,
                        kernels: &self.kernels,
                        inherited: self.inherited.1,
                        budget: &self.home.budget,
                    };
                    let program = recorded.another(&resolver)?;
                    recorded.inline.insert(program)
                }
            };
            program.run("replay", vars, &self.context)?;
            self.inline_points += 1;
            return Ok(Point(self.inline_points));
        }
        self.start_queue(queue)?;
        let Some(recorded) = self.graphs.get_mut(graph.0 as usize) else { return Err(no_graph(graph)) };
        let resolver =
            Resolver { memories: &self.memories, kernels: &self.kernels, inherited: self.inherited.1, budget: &self.home.budget };
        let program = recorded.of_queue(queue, |recorded| recorded.another(&resolver))?;
        self.push("replay", queue, after, &program, vars)
    }

    fn submit(&mut self, queue: Queue, after: &[Point], nodes: &[Node]) -> Result<Point> {
        let mut program = Program::new("submit", nodes, &self.resolver(), self.context.pool.threads())?;
        if queue.0 == 0 {
            for &point in after {
                self.wait(point)?;
            }
            program.run("submit", &[], &self.context)?;
            self.inline_points += 1;
            return Ok(Point(self.inline_points));
        }
        self.start_queue(queue)?;
        self.push("submit", queue, after, &Arc::new(Mutex::new(Some(program))), &[])
    }

    fn poll(&mut self, point: Point) -> Result<bool> {
        let (queue, number) = self.locate("poll", point)?;
        match self.background(queue) {
            Some(background) => background.line().poll(number),
            None => Ok(true),
        }
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        let (queue, number) = self.locate("wait", point)?;
        match self.background(queue) {
            Some(background) => background.line().wait(number),
            None => Ok(()),
        }
    }

    fn elapsed(&mut self, point: Point) -> Result<Option<Duration>> {
        let (queue, number) = self.locate("elapsed", point)?;
        let Some(background) = self.background(queue) else { return Ok(None) };
        background.line().wait(number)?;
        Ok(background.line().time(number))
    }

    fn fork(&self) -> Result<Box<dyn Device>> {
        let graphs = self.graphs.iter().map(|recorded| recorded.another(&self.resolver())).collect::<Result<Vec<_>>>()?;
        let fork = self.home.forks.fetch_add(1, Ordering::Relaxed) as usize;
        // A lane's launches run in the lane's own thread: the other lanes have the other cores.
        let context = Context { pool: Pool::new(1), at_node: self.home.at_node.get(fork).copied() };
        let memories: Vec<Memory> =
            self.memories.iter().map(|memory| Memory { place: memory.place, region: Arc::clone(&memory.region), lent: false }).collect();
        Ok(Box::new(CpuDevice {
            queues: Vec::new(),
            inherited: (graphs.len(), memories.len()),
            graphs: graphs.into_iter().map(Recorded::new).collect(),
            memories,
            kernels: self.kernels.clone(),
            inline_points: 0,
            context: Arc::new(context),
            home: Arc::clone(&self.home),
        }))
    }

    fn reset(&mut self) -> Result<()> {
        for background in self.queues.iter().flatten() {
            background.line().wait_all();
        }
        self.graphs.truncate(self.inherited.0);
        self.memories.truncate(self.inherited.1);
        Ok(())
    }
}

#[cold]
fn no_graph(graph: Graph) -> DeviceError {
    failed("replay", format!("there is no graph {}", graph.0))
}
