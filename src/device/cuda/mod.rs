//! CUDA: kernels in CUDA C++, PTX and cubins on NVIDIA's GPUs. Driver and NVRTC are found at run time.
//!
//! `api` loads the driver, `platform` lists its GPUs. `nvrtc`, `scan`, `types` and `program` turn sources into modules, `kernel`
//! holds their functions against the spec, `memory` holds what is allocated, `list` turns nodes into operations and `graph`
//! those into what one call replays, `queue` keeps the points.

mod api;
mod graph;
mod kernel;
mod list;
mod memory;
mod nvrtc;
mod platform;
mod program;
mod queue;
mod scan;
#[cfg(test)]
mod tests;
mod types;

use std::cell::Cell;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::sys::{CUcontext, CUdevice, CUlimit, CUresult};

use super::{Builder, Caps, Clock, Device, DeviceError, Graph, Kernel, KernelSource, Mapped, Mem, Node, Place, Point, Queue, Result};
use api::{Api, Called, Failure, cu};
use kernel::Loaded;
use list::{List, Tables};
use memory::Memory;
use platform::Found;
use program::Workshop;
use queue::Recorded;

/// How a CUDA device is opened.
#[derive(Clone, Debug, Default)]
pub struct CudaOptions {
    /// Which times of the device are kept: events around each replay, or around each of its operations.
    pub clock: Clock,
    /// Every node is waited for before the next one starts, so that an error names it.
    pub stepwise: bool,
    /// Where compiled kernels are kept; without one where all are.
    pub cache: Option<PathBuf>,
}

/// A GPU.
pub struct CudaDevice {
    // First, as they use memories and queues.
    graphs: Vec<Recorded>,
    queues: Vec<Option<queue::Queue>>,
    memories: Vec<Memory>,
    kernels: Vec<Arc<Loaded>>,
    /// How many of the graphs and memories are those of the instance that this one was forked from.
    inherited: (usize, usize),
    /// By queue: what was submitted last, where times are kept.
    timed: Vec<Option<Recorded>>,
    workshop: Arc<Workshop>,
    driver: Arc<Driver>,
}

/// What an instance and its forks share.
struct Driver {
    api: &'static Api,
    found: Found,
    caps: Caps,
    options: CudaOptions,
    /// The primary context of the device.
    context: CUcontext,
    /// No two drivers of a process have the same.
    id: u64,
    /// All memories of the device itself. *Units*: bytes.
    used: AtomicU64,
    /// Nothing can be done with the context any more.
    is_lost: AtomicBool,
    /// The first release that failed and was not told.
    unreleased: Mutex<Option<Failure>>,
}

// SAFETY: a context is a handle, which CUDA lets any thread use.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

thread_local! {
    /// The driver whose context this thread has, by its id.
    static ENTERED: Cell<u64> = const { Cell::new(0) };
}

/// The devices that are open in this process, each as often as it is.
static OPEN: Mutex<Vec<CUdevice>> = Mutex::new(Vec::new());

impl Driver {
    fn new(api: &'static Api, found: Found, options: CudaOptions) -> Result<Driver> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let mut context: CUcontext = null_mut();
        // Nobody closes the device meanwhile.
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        cu!(api.cuDevicePrimaryCtxRetain(&mut context, found.device)).map_err(|failure| match failure.at(None) {
            DeviceError::Lost { message, .. } if failure.is(CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE) => {
                failed("open", format!("{message}; another process has it for itself, or it is busy"))
            }
            other => other,
        })?;
        open.push(found.device);
        drop(open);
        let driver = Driver {
            api,
            caps: found.caps.clone(),
            found,
            options,
            context,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            used: AtomicU64::new(0),
            is_lost: AtomicBool::new(false),
            unreleased: Mutex::default(),
        };
        driver.enter()?;
        // Lines that an earlier program asked to stay would make memory look faster than it is. Devices without them refuse.
        let _ = cu!(api.cuCtxSetLimit(CUlimit::CU_LIMIT_PERSISTING_L2_CACHE_SIZE as u32, 0));
        Ok(driver)
    }

    /// Makes the context that of this thread.
    #[inline]
    fn enter(&self) -> Called<()> {
        if ENTERED.get() == self.id {
            return Ok(());
        }
        let api = self.api;
        cu!(api.cuCtxSetCurrent(self.context))?;
        ENTERED.set(self.id);
        Ok(())
    }

    /// Releases something, unless that went with the context.
    fn release(&self, call: impl FnOnce() -> Called<()>) {
        if self.is_lost.load(Ordering::Relaxed) {
            return;
        }
        if let Err(failure) = self.enter().and_then(|()| call()) {
            self.is_lost.fetch_or(failure.is_loss(), Ordering::Relaxed);
            self.unreleased.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
    }

    /// Notes whether an error means the end of the context.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(DeviceError::Lost { .. }) = &result {
            self.is_lost.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let (api, device) = (self.api, self.found.device);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().position(|of| *of == device) {
            open.swap_remove(at);
        }
        // A context that is lost goes with all that is in it, for whoever opens the device next; others that have it open hold
        // the same one.
        if self.is_lost.load(Ordering::Relaxed) && !open.contains(&device) {
            let _ = cu!(api.cuDevicePrimaryCtxReset_v2(device));
        }
        let _ = cu!(api.cuDevicePrimaryCtxRelease_v2(device));
    }
}

/// Queues that an instance may have.
const MOST_QUEUES: u32 = 65;

/// A point's queue stands above this bit, its number in the queue below.
const QUEUE_BIT: u32 = 48;

/// What every GPU of this machine is, in the driver's order.
///
/// *Errors*: `Unsupported` where there is no driver, one that is too old, or no GPU, with what helps.
pub fn list() -> Result<Vec<Caps>> {
    Ok(platform::devices()?.1.iter().map(|found| found.caps.clone()).collect())
}

/// Calls of the driver that this thread has made.
pub fn calls() -> u64 {
    api::calls()
}

/// Opens the GPU that stands at `index` in [`list()`].
///
/// *Errors*: `Unsupported` where there is none.
pub fn open(index: usize, options: CudaOptions) -> Result<CudaDevice> {
    let (api, devices) = platform::devices()?;
    let Some(found) = devices.get(index).cloned() else {
        return Err(DeviceError::Unsupported(format!("there is no CUDA device {index}: there are {}", devices.len())));
    };
    let driver = Arc::new(Driver::new(api, found, options)?);
    Ok(CudaDevice::new(Arc::clone(&driver), Arc::new(Workshop::new(driver))))
}

/// Builds a kernel for a compute capability, such as `(9, 0)`: NVRTC does so without a GPU. *Returns* its image, a cubin or
/// PTX. `cache`: where it is kept; without one where all are.
///
/// *Errors*: those of [`Device::load`] that can be found without a device.
pub fn compile(kernel: &KernelSource, arch: (u32, u32), cache: Option<PathBuf>) -> Result<Vec<u8>> {
    program::Images::new(arch, cache).entry(kernel).map(|entry| entry.image.bytes.clone())
}

fn failed(call: &'static str, message: impl Into<String>) -> DeviceError {
    DeviceError::Failed { node: None, call, message: message.into() }
}

#[cold]
fn no_graph(graph: Graph) -> DeviceError {
    failed("replay", format!("there is no graph {}", graph.0))
}

/// The queue and the number of a point.
fn parts(point: Point) -> (usize, u64) {
    ((point.0 >> QUEUE_BIT) as usize, point.0 & ((1 << QUEUE_BIT) - 1))
}

impl CudaDevice {
    fn new(driver: Arc<Driver>, workshop: Arc<Workshop>) -> CudaDevice {
        CudaDevice {
            graphs: Vec::new(),
            queues: Vec::new(),
            memories: Vec::new(),
            kernels: Vec::new(),
            inherited: (0, 0),
            timed: Vec::new(),
            workshop,
            driver,
        }
    }

    /// The queue, made where this is its first use.
    fn queue(&mut self, queue: Queue) -> Result<&mut queue::Queue> {
        if queue.0 >= MOST_QUEUES {
            return Err(failed("queue", format!("queue {}: there are queues 0 to {}", queue.0, MOST_QUEUES - 1)));
        }
        let index = queue.0 as usize;
        if self.queues.len() <= index {
            self.queues.resize_with(index + 1, || None);
            self.timed.resize_with(index + 1, || None);
        }
        let of = &mut self.queues[index];
        match of {
            Some(queue) => Ok(queue),
            None => Ok(of.insert(queue::Queue::new(&self.driver)?)),
        }
    }

    /// The queue and number of a point of this instance.
    fn locate(&mut self, call: &'static str, point: Point) -> Result<(&mut queue::Queue, u64)> {
        let (index, number) = parts(point);
        let queue = self.queues.get_mut(index).and_then(Option::as_mut).filter(|queue| number > 0 && number <= queue.submitted);
        queue.map(|queue| (queue, number)).ok_or_else(|| failed(call, format!("there is no point {}", point.0)))
    }

    fn tables(&self) -> Tables<'_> {
        Tables { driver: &self.driver, memories: &self.memories, kernels: &self.kernels, inherited: self.inherited.1 }
    }

    /// A list as what is launched.
    fn recorded(&mut self, call: &'static str, nodes: &[Node]) -> Result<Recorded> {
        let stream = match call {
            "record" => Some(self.queue(Queue(0))?.raw()),
            _ => None,
        };
        let list = List::new(call, nodes, &self.tables())?;
        let lists = if self.driver.options.stepwise { list.split() } else { vec![list] };
        let graphs = lists.into_iter().map(|list| graph::Graph::new(&self.driver, list, stream)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Mutex::new(graphs)))
    }

    /// Launches what was recorded at the end of a queue.
    fn launch(&mut self, call: &'static str, queue: Queue, after: &[Point], recorded: &Recorded, vars: &[u64]) -> Result<Point> {
        let mut graphs = recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.queue(queue)?.submitted + 1;
        for graph in &*graphs {
            if let Some(id) = graph.list.memories.iter().find(|&&id| self.memories[id as usize].lent) {
                return Err(failed(call, format!("memory {id} is lent to the host")));
            }
        }
        for &point in after {
            let same = parts(point).0 == queue.0 as usize;
            let (of, number) = self.locate(call, point)?;
            // Within a queue everything is in order.
            if !same && number > of.finished {
                let event = of.event(number)?;
                self.queue(queue)?.wait_for(event)?;
            }
        }
        let stepwise = self.driver.options.stepwise;
        let of = self.queue(queue)?;
        of.submitted = number;
        for graph in &mut *graphs {
            graph.launch(call, of.raw(), vars)?;
            if stepwise {
                let node = graph.list.entries.first().map(|entry| entry.nodes.start);
                of.wait(number).map_err(|failure| failure.at(node))?;
                of.finished = number - 1;
            }
            graph.last = Some((queue.0, number));
        }
        if self.driver.options.clock != Clock::Off {
            self.timed[queue.0 as usize] = Some(Arc::clone(recorded));
        }
        Ok(Point(u64::from(queue.0) << QUEUE_BIT | number))
    }

    /// What kept the times of a point, if nothing has run since that takes its place.
    fn timed(&mut self, call: &'static str, point: Point) -> Result<Option<Recorded>> {
        let (queue, number) = self.locate(call, point)?;
        queue.wait(number)?;
        let (index, number) = parts(point);
        let recorded = self.timed.get(index).and_then(Option::as_ref);
        let is_of = |recorded: &&Recorded| {
            let graphs = recorded.lock().unwrap_or_else(PoisonError::into_inner);
            graphs.iter().all(|graph| graph.last == Some((index as u32, number)))
        };
        Ok(recorded.filter(is_of).map(Arc::clone))
    }

    /// Waits for everything. *Errors*: the first.
    fn drain(&mut self) -> Called<()> {
        // Of a context that is lost nothing ends any more.
        let is_lost = self.driver.is_lost.load(Ordering::Relaxed);
        let mut result = if is_lost { Ok(()) } else { self.driver.enter() };
        for queue in self.queues.iter_mut().flatten().filter(|_| !is_lost) {
            let last = queue.submitted;
            result = result.and(queue.wait(last));
        }
        self.timed.iter_mut().for_each(|timed| *timed = None);
        result
    }
}

impl Device for CudaDevice {
    fn caps(&self) -> &Caps {
        &self.driver.caps
    }

    fn alloc(&mut self, place: Place, bytes: u64) -> Result<Mem> {
        self.driver.enter()?;
        let mem = u32::try_from(self.memories.len()).map_err(|_| failed("alloc", "too many memories"))?;
        let memory = self.driver.noted(Memory::new(&self.driver, place, bytes))?;
        self.memories.push(memory);
        Ok(Mem(mem))
    }

    fn map(&mut self, mem: Mem) -> Result<Mapped> {
        let Some(memory) = self.memories.get_mut(mem.0 as usize) else {
            return Err(failed("map", format!("there is no memory {}", mem.0)));
        };
        let Some(ptr) = memory.host() else {
            return Err(failed("map", format!("memory {} is the device's alone", mem.0)));
        };
        if memory.lent {
            return Err(failed("map", format!("memory {} is lent already", mem.0)));
        }
        memory.lent = true;
        // SAFETY: the bytes are page-locked for good, and the caller keeps lent memory out of what is in flight.
        Ok(unsafe { Mapped::new(mem, ptr, memory.bytes as usize) })
    }

    fn unmap(&mut self, bytes: Mapped) -> Result<()> {
        let mem = bytes.mem();
        let Some(memory) = self.memories.get_mut(mem.0 as usize).filter(|memory| memory.lent) else {
            return Err(failed("unmap", format!("memory {} is not lent", mem.0)));
        };
        memory.lent = false;
        Ok(())
    }

    unsafe fn load(&mut self, kernel: &KernelSource) -> Result<Kernel> {
        let id = u32::try_from(self.kernels.len()).map_err(|_| failed("load", "too many kernels"))?;
        let loaded = self.driver.noted(self.workshop.load(kernel))?;
        self.kernels.push(Arc::new(loaded));
        Ok(Kernel(id))
    }

    fn builder(&self) -> Option<Arc<dyn Builder>> {
        Some(Arc::clone(&self.workshop) as Arc<dyn Builder>)
    }

    fn lacks(&self, kernel: &KernelSource) -> Option<String> {
        if program::is_built(&kernel.code) { None } else { nvrtc::version().err().map(String::from) }
    }

    fn record(&mut self, nodes: &[Node]) -> Result<Graph> {
        self.driver.enter()?;
        let id = u32::try_from(self.graphs.len()).map_err(|_| failed("record", "too many graphs"))?;
        let recorded = self.recorded("record", nodes);
        let recorded = self.driver.noted(recorded)?;
        self.graphs.push(recorded);
        Ok(Graph(id))
    }

    fn replay(&mut self, queue: Queue, after: &[Point], graph: Graph, vars: &[u64]) -> Result<Point> {
        self.driver.enter()?;
        let Some(recorded) = self.graphs.get(graph.0 as usize).map(Arc::clone) else { return Err(no_graph(graph)) };
        let launched = self.launch("replay", queue, after, &recorded, vars);
        self.driver.noted(launched)
    }

    fn submit(&mut self, queue: Queue, after: &[Point], nodes: &[Node]) -> Result<Point> {
        self.driver.enter()?;
        let recorded = self.recorded("submit", nodes);
        let recorded = self.driver.noted(recorded)?;
        let launched = self.launch("submit", queue, after, &recorded, &[]);
        let of = self.queue(queue)?;
        let number = of.submitted;
        of.once.push((number, recorded));
        self.driver.noted(launched)
    }

    fn poll(&mut self, point: Point) -> Result<bool> {
        self.driver.enter()?;
        let (queue, number) = self.locate("poll", point)?;
        let polled = queue.poll(number).map_err(DeviceError::from);
        self.driver.noted(polled)
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        self.driver.enter()?;
        let (queue, number) = self.locate("wait", point)?;
        let waited = queue.wait(number).map_err(DeviceError::from);
        self.driver.noted(waited)
    }

    fn elapsed(&mut self, point: Point) -> Result<Option<Duration>> {
        self.driver.enter()?;
        let recorded = self.timed("elapsed", point);
        let Some(recorded) = self.driver.noted(recorded)? else { return Ok(None) };
        let graphs = recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let times = graphs.iter().map(|graph| graph.elapsed().map_err(DeviceError::from));
        // One that has none leaves all unknown.
        self.driver.noted(times.sum::<Result<Option<Duration>>>())
    }

    fn node_times(&mut self, point: Point, times: &mut Vec<Option<Duration>>) -> Result<bool> {
        times.clear();
        self.driver.enter()?;
        let recorded = self.timed("node_times", point);
        let Some(recorded) = self.driver.noted(recorded)? else { return Ok(false) };
        let graphs = recorded.lock().unwrap_or_else(PoisonError::into_inner);
        for graph in &*graphs {
            if !self.driver.noted(graph.node_times(times).map_err(DeviceError::from))? {
                times.clear();
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fork(&self) -> Result<Box<dyn Device>> {
        let mut fork = CudaDevice::new(Arc::clone(&self.driver), Arc::clone(&self.workshop));
        fork.inherited = (self.graphs.len(), self.memories.len());
        fork.graphs = self.graphs.clone();
        fork.memories = self.memories.iter().map(Memory::fork).collect();
        fork.kernels = self.kernels.clone();
        Ok(Box::new(fork))
    }

    fn reset(&mut self) -> Result<()> {
        let drained = self.drain().map_err(DeviceError::from);
        let drained = self.driver.noted(drained);
        self.graphs.truncate(self.inherited.0);
        self.memories.truncate(self.inherited.1);
        let unreleased = self.driver.unreleased.lock().unwrap_or_else(PoisonError::into_inner).take();
        drained.and(unreleased.map_or(Ok(()), |failure| Err(failure.into())))
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // What is in flight uses what is dropped next.
        let drained = self.drain().map_err(DeviceError::from);
        let _ = self.driver.noted(drained);
    }
}
