//! OpenCL: kernels in OpenCL C and SPIR-V on whatever drivers the machine has, found at run time.
//!
//! `api` loads the library, `platform` lists its devices. `program` and `kernel` turn sources into what can be launched,
//! `memory` holds buffers, `list` turns nodes into calls (`command_buffer` several into one), `queue` keeps the points.

mod api;
mod command_buffer;
mod kernel;
mod list;
mod memory;
mod object;
mod op;
mod platform;
mod program;
mod queue;
#[cfg(test)]
mod tests;

use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opencl_sys::*;

use super::{Builder, Caps, Clock, Device, DeviceError, Graph, Kernel, KernelSource, Mapped, Mem, Node, Place, Point, Queue, Result};
use api::{Api, make};
use command_buffer::Functions;
use kernel::Loaded;
use list::{List, Objects, Tables};
use memory::Memory;
use object::Object;
use platform::Found;
use program::Workshop;

/// How an OpenCL device is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenclOptions {
    /// What the device's clock is asked for: the more, the longer every submission takes.
    pub clock: Clock,
    /// Act as a device with memory of its own, whatever it is.
    pub discrete: bool,
    /// Replay graphs command by command, even where the driver can record them.
    pub unrecorded: bool,
}

/// A device of an OpenCL driver.
pub struct OpenclDevice {
    // First, as they use memories and queues.
    graphs: Vec<Arc<Mutex<List>>>,
    objects: Objects,
    memories: Vec<Memory>,
    queues: Vec<Option<queue::Queue>>,
    kernels: Vec<Arc<Loaded>>,
    /// How many of the graphs and memories are those of the instance that this one was forked from.
    inherited: (usize, usize),
    /// Events that a submission waits for.
    waits: Vec<cl_event>,
    /// A queue that was waited for, though nobody has looked: the next map of what it used waits by itself, and anything
    /// else is preceded by the wait.
    owed: Option<u32>,
    workshop: Arc<Workshop>,
    driver: Arc<Driver>,
}

// SAFETY: the events are handles, which OpenCL lets any thread use.
unsafe impl Send for OpenclDevice {}

/// What an instance and its forks share.
struct Driver {
    api: &'static Api,
    found: Found,
    caps: Caps,
    options: OpenclOptions,
    context: Object<object::Context>,
    command_buffers: Option<Functions>,
    /// All memories. *Units*: bytes.
    used: AtomicU64,
}

/// Queues that an instance may have.
const MOST_QUEUES: u32 = 65;

/// A point's queue stands above this bit, its number in the queue below.
const QUEUE_BIT: u32 = 48;

/// What every OpenCL device of this machine is, GPUs first, then accelerators, then CPUs.
///
/// *Errors*: `Unsupported` where there is no library, no driver or no device, with what to install.
pub fn list() -> Result<Vec<Caps>> {
    Ok(platform::devices()?.1.iter().map(|found| found.caps.clone()).collect())
}

/// Calls of the OpenCL library that this thread has made.
pub fn calls() -> u64 {
    api::calls()
}

/// Opens the device that stands at `index` in [`list()`].
///
/// *Errors*: `Unsupported` where there is none.
pub fn open(index: usize, options: OpenclOptions) -> Result<OpenclDevice> {
    let (api, devices) = platform::devices()?;
    let Some(found) = devices.get(index).cloned() else {
        return Err(DeviceError::Unsupported(format!("there is no OpenCL device {index}: there are {}", devices.len())));
    };
    let mut caps = found.caps.clone();
    caps.unified &= !options.discrete;
    let context = make!(api.clCreateContext(null(), 1, &found.device, None, null_mut()))?;
    let context = Object::new(api, context);
    let command_buffers = if options.unrecorded { None } else { Functions::of(api, &found) };
    let driver = Arc::new(Driver { api, found, caps, options, context, command_buffers, used: AtomicU64::new(0) });
    Ok(OpenclDevice::new(driver.clone(), Arc::new(Workshop::new(driver))))
}

fn point_of(queue: u32, number: u64) -> Point {
    Point(u64::from(queue) << QUEUE_BIT | number)
}

fn failed(call: &'static str, message: impl Into<String>) -> DeviceError {
    DeviceError::Failed { node: None, call, message: message.into() }
}

#[cold]
fn no_graph(graph: Graph) -> DeviceError {
    failed("replay", format!("there is no graph {}", graph.0))
}

impl OpenclDevice {
    fn new(driver: Arc<Driver>, workshop: Arc<Workshop>) -> OpenclDevice {
        OpenclDevice {
            graphs: Vec::new(),
            objects: Objects::new(),
            memories: Vec::new(),
            queues: Vec::new(),
            kernels: Vec::new(),
            inherited: (0, 0),
            waits: Vec::new(),
            owed: None,
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
        }
        let of = &mut self.queues[index];
        match of {
            Some(queue) => Ok(queue),
            None => Ok(of.insert(queue::Queue::new(&self.driver)?)),
        }
    }

    /// The queue and number of a point of this instance.
    fn locate(&mut self, call: &'static str, point: Point) -> Result<(&mut queue::Queue, u64)> {
        let (index, number) = ((point.0 >> QUEUE_BIT) as usize, point.0 & ((1 << QUEUE_BIT) - 1));
        let queue = self.queues.get_mut(index).and_then(Option::as_mut).filter(|queue| number > 0 && number <= queue.submitted);
        queue.map(|queue| (queue, number)).ok_or_else(|| failed(call, format!("there is no point {}", point.0)))
    }

    /// Waits for the queue that was waited for.
    fn pay(&mut self) -> Result<()> {
        let Some(Some(queue)) = self.owed.and_then(|owed| self.queues.get_mut(owed as usize)) else { return Ok(()) };
        let last = queue.submitted;
        queue.wait(&self.driver, last)?;
        // What could not be waited for is still owed.
        self.owed = None;
        Ok(())
    }

    /// Adds the event of another queue's submission to those that are waited for, unless it is done.
    fn wait_for(&mut self, call: &'static str, queue: Queue, point: Point) -> Result<()> {
        let same = (point.0 >> QUEUE_BIT) as u32 == queue.0;
        let driver = Arc::clone(&self.driver);
        let (of, number) = self.locate(call, point)?;
        // Within a queue everything is in order.
        if same || number <= of.finished {
            return Ok(());
        }
        let event = of.event(&driver, number)?;
        self.waits.push(event);
        Ok(())
    }

    /// Runs a list at the end of a queue.
    fn enqueue(&mut self, call: &'static str, queue: Queue, after: &[Point], list: &mut List, vars: &[u64]) -> Result<Point> {
        self.pay()?;
        let number = self.queue(queue)?.submitted + 1;
        self.waits.clear();
        for &point in after {
            self.wait_for(call, queue, point)?;
        }
        for &id in &list.memories {
            let memory = &mut self.memories[id as usize];
            if memory.lent {
                return Err(failed(call, format!("memory {id} is lent to the host")));
            }
            memory.queue = queue.0;
            // What another queue unmaps must be done before this one reads it.
            if let Some((of, behind)) = memory.released.filter(|(of, _)| *of != queue.0) {
                self.wait_for(call, queue, point_of(of, behind))?;
            }
        }
        let Some(Some(of)) = self.queues.get_mut(queue.0 as usize) else { return Err(failed(call, "the queue is gone")) };
        of.wait_for(&self.driver, &self.waits)?;
        of.submitted = number;
        let ran = Self::run(&self.driver, &mut self.memories, call, (queue, number), of, list, vars);
        if ran.is_err() {
            // Nobody gets a point to wait for what was enqueued before the call that failed. What this says, a later wait
            // says too.
            let _ = of.drain(&self.driver);
        }
        ran.map(|()| point_of(queue.0, number))
    }

    /// Runs a list at the end of a queue that waits for nothing else, under a number.
    fn run(
        driver: &Driver,
        memories: &mut [Memory],
        call: &'static str,
        (queue, number): (Queue, u64),
        of: &mut queue::Queue,
        list: &mut List,
        vars: &[u64],
    ) -> Result<()> {
        for &id in &list.memories {
            let memory = &mut memories[id as usize];
            if memory.is_pending() {
                memory.unmap(of.raw())?;
                memory.released = Some((queue.0, number));
            }
        }
        let mut times = (driver.options.clock != Clock::Off).then(|| of.times(driver.options.clock));
        // PoCL (3.1, 5.0) loses count of a kernel that two threads run for the first time at once, and aborts.
        static FIRST: Mutex<()> = Mutex::new(());
        let first = list.is_new().then(|| FIRST.lock().unwrap_or_else(PoisonError::into_inner));
        list.run(call, driver, of.raw(), vars, &mut times)?;
        if queue.0 != 0 {
            // What the host gave up for this it takes again after it: a map that comes later would stand behind later work.
            for &id in &list.memories {
                let memory = &mut memories[id as usize];
                if memory.released == Some((queue.0, number)) {
                    memory.map_behind(of.raw())?;
                }
            }
        }
        if first.is_some() {
            of.wait(driver, number)?;
            list.has_run();
        }
        drop(first);
        if let Some(times) = times {
            of.keep_times(number, times);
        }
        // Work in a queue of its own is meant to run while the host does something else; queue 0 is waited for.
        if queue.0 != 0 {
            of.flush(driver)?;
        }
        Ok(())
    }

    /// Gives memories that the host gave back to the device, and waits until it has them.
    fn settle(&self, memories: &[Memory]) -> Result<()> {
        let mut pending = memories.iter().filter(|memory| memory.is_pending()).peekable();
        if pending.peek().is_none() {
            return Ok(());
        }
        let mut queue = queue::Queue::new(&self.driver)?;
        for memory in pending {
            memory.unmap(queue.raw())?;
        }
        Ok(queue.drain(&self.driver)?)
    }
}

impl Device for OpenclDevice {
    fn caps(&self) -> &Caps {
        &self.driver.caps
    }

    fn alloc(&mut self, place: Place, bytes: u64) -> Result<Mem> {
        let mem = u32::try_from(self.memories.len()).map_err(|_| failed("alloc", "too many memories"))?;
        let queue = self.queue(Queue(0))?.raw();
        self.memories.push(Memory::new(&self.driver, place, bytes, queue)?);
        Ok(Mem(mem))
    }

    fn map(&mut self, mem: Mem) -> Result<Mapped> {
        let Some(memory) = self.memories.get_mut(mem.0 as usize) else {
            return Err(failed("map", format!("there is no memory {}", mem.0)));
        };
        if memory.place == Place::Device {
            return Err(failed("map", format!("memory {} is the device's alone", mem.0)));
        }
        if memory.lent {
            return Err(failed("map", format!("memory {} is lent already", mem.0)));
        }
        let ptr = match memory.at_hand() {
            Some(ptr) => {
                let released = memory.released;
                if let Some((of, behind)) = released {
                    self.wait(point_of(of, behind))?;
                    self.memories[mem.0 as usize].released = None;
                }
                self.pay()?;
                ptr
            }
            None => {
                // In the queue that used it last, so that it comes after that.
                let last = memory.queue;
                if self.owed != Some(last) {
                    self.pay()?;
                }
                let raw = self.queue(Queue(last))?.raw();
                let ptr = self.memories[mem.0 as usize].map(raw)?;
                if self.owed.take().is_some() {
                    self.queue(Queue(last))?.is_done();
                }
                ptr
            }
        };
        let memory = &mut self.memories[mem.0 as usize];
        memory.lent = true;
        // SAFETY: the bytes are mapped until `unmap`, and the caller keeps lent memory out of what is in flight.
        Ok(unsafe { Mapped::new(mem, ptr, memory.bytes as usize) })
    }

    fn unmap(&mut self, bytes: Mapped) -> Result<()> {
        let mem = bytes.mem();
        let owned = mem.0 as usize >= self.inherited.1;
        let Some(memory) = self.memories.get_mut(mem.0 as usize).filter(|memory| memory.lent) else {
            return Err(failed("unmap", format!("memory {} is not lent", mem.0)));
        };
        memory.lent = false;
        // What no round changes is there for all queues, and for all instances.
        if memory.place == Place::ReadOnly || !owned {
            self.settle(std::slice::from_ref(&self.memories[mem.0 as usize]))?;
            self.memories[mem.0 as usize].protect()?;
        }
        Ok(())
    }

    unsafe fn load(&mut self, kernel: &KernelSource) -> Result<Kernel> {
        let id = u32::try_from(self.kernels.len()).map_err(|_| failed("load", "too many kernels"))?;
        self.kernels.push(Arc::new(self.workshop.load(kernel)?));
        Ok(Kernel(id))
    }

    fn builder(&self) -> Option<Arc<dyn Builder>> {
        Some(Arc::clone(&self.workshop) as Arc<dyn Builder>)
    }

    fn record(&mut self, nodes: &[Node]) -> Result<Graph> {
        let id = u32::try_from(self.graphs.len()).map_err(|_| failed("record", "too many graphs"))?;
        let queue = self.queue(Queue(0))?.hold();
        let mut list = List::new("record", nodes, &mut self.tables())?;
        if self.driver.options.clock == Clock::Off {
            list.record(&self.driver, &queue)?;
        }
        self.graphs.push(Arc::new(Mutex::new(list)));
        Ok(Graph(id))
    }

    fn replay(&mut self, queue: Queue, after: &[Point], graph: Graph, vars: &[u64]) -> Result<Point> {
        let Some(list) = self.graphs.get(graph.0 as usize).map(Arc::clone) else { return Err(no_graph(graph)) };
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        self.enqueue("replay", queue, after, &mut list, vars)
    }

    fn submit(&mut self, queue: Queue, after: &[Point], nodes: &[Node]) -> Result<Point> {
        let mut list = List::new("submit", nodes, &mut self.tables())?;
        self.enqueue("submit", queue, after, &mut list, &[])
    }

    fn poll(&mut self, point: Point) -> Result<bool> {
        self.pay()?;
        let driver = Arc::clone(&self.driver);
        let (queue, number) = self.locate("poll", point)?;
        Ok(queue.poll(&driver, number)?)
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        let driver = Arc::clone(&self.driver);
        let (queue, number) = self.locate("wait", point)?;
        // What queue 0 wrote is mapped before the host looks at it where memory is shared, and that waits by itself.
        let of = (point.0 >> QUEUE_BIT) as u32;
        if of == 0 && driver.caps.unified && driver.options.clock == Clock::Off && number > queue.finished {
            if self.owed != Some(of) {
                self.pay()?;
                self.owed = Some(of);
            }
            return Ok(());
        }
        Ok(queue.wait(&driver, number)?)
    }

    fn elapsed(&mut self, point: Point) -> Result<Option<Duration>> {
        self.pay()?;
        let driver = Arc::clone(&self.driver);
        let (queue, number) = self.locate("elapsed", point)?;
        Ok(queue.elapsed(&driver, number)?)
    }

    fn node_times(&mut self, point: Point, times: &mut Vec<Option<Duration>>) -> Result<bool> {
        times.clear();
        self.pay()?;
        let driver = Arc::clone(&self.driver);
        let (queue, number) = self.locate("node_times", point)?;
        Ok(queue.node_times(&driver, number, times)?)
    }

    fn fork(&self) -> Result<Box<dyn Device>> {
        self.settle(&self.memories)?;
        let mut fork = OpenclDevice::new(Arc::clone(&self.driver), Arc::clone(&self.workshop));
        fork.inherited = (self.graphs.len(), self.memories.len());
        fork.graphs = self.graphs.clone();
        fork.memories = self.memories.iter().map(Memory::fork).collect();
        fork.kernels = self.kernels.clone();
        Ok(Box::new(fork))
    }

    fn reset(&mut self) -> Result<()> {
        self.owed = None;
        let result = self.drain().map_err(DeviceError::from);
        self.graphs.truncate(self.inherited.0);
        self.objects.clear();
        self.memories.truncate(self.inherited.1);
        for memory in &mut self.memories {
            memory.released = None;
        }
        match object::release_failure() {
            Some(failure) => result.and(Err(failure.into())),
            None => result,
        }
    }
}

impl OpenclDevice {
    /// Waits for everything. *Errors*: the first; pages of our own that the device may then still use are never freed.
    fn drain(&mut self) -> api::Called<()> {
        let mut result = Ok(());
        for queue in self.queues.iter_mut().flatten() {
            result = result.and(queue.drain(&self.driver));
        }
        if self.queues.iter().flatten().any(|queue| queue.finished < queue.submitted) {
            self.memories.iter().for_each(Memory::keep);
        }
        result
    }

    fn tables(&mut self) -> Tables<'_> {
        Tables {
            driver: &self.driver,
            memories: &mut self.memories,
            kernels: &self.kernels,
            inherited: self.inherited.1,
            objects: &mut self.objects,
        }
    }
}

impl Drop for OpenclDevice {
    fn drop(&mut self) {
        // What is in flight uses what is dropped next.
        let _ = self.drain();
    }
}
