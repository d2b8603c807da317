//! Turns the calls of any device into counts, into lines of text, and into errors where they break the contract.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contract::Contract;
use super::text::{text_of, text_of_points};
use super::{Builder, Caps, Cmd, Device, Graph, Kernel, KernelSource, Mapped, Mem, Node, Place, Point, Queue, Result};

/// What a device was asked to do and did. Launches, copies and fills are counted each time their list runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub allocs: u64,
    pub bytes_allocated: u64,
    /// Memories that a reset, or the end of the device, freed.
    pub frees: u64,
    pub bytes_freed: u64,
    pub maps: u64,
    pub unmaps: u64,
    pub loads: u64,
    pub records: u64,
    pub replays: u64,
    pub submits: u64,
    pub launches: u64,
    pub copies: u64,
    pub copied_bytes: u64,
    pub fills: u64,
    pub filled_bytes: u64,
    pub waits: u64,
    pub forks: u64,
    pub resets: u64,
}

macro_rules! each_count {
    ($with:ident) => {
        $with!(
            allocs bytes_allocated frees bytes_freed maps unmaps loads records replays submits
            launches copies copied_bytes fills filled_bytes waits forks resets
        )
    };
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        macro_rules! add {
            ($($field:ident)*) => { $(self.$field += other.$field;)* };
        }
        each_count!(add);
    }
}

/// What differs between two readings of the same device, the later one first.
impl std::ops::Sub for Counts {
    type Output = Counts;
    fn sub(self, earlier: Counts) -> Counts {
        let mut difference = Counts::default();
        macro_rules! subtract {
            ($($field:ident)*) => { $(difference.$field = self.$field.saturating_sub(earlier.$field);)* };
        }
        each_count!(subtract);
        difference
    }
}

/// What a trace does besides counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceOptions {
    /// Keep a line of text per command.
    pub log: bool,
    /// Refuse calls that break the contract of [`Device`], with `DeviceError::Failed` and a message that starts with
    /// `contract: `. Costs time with every call.
    pub contract: bool,
}

/// A device whose calls are counted; its forks are counted with it.
pub struct Trace {
    device: Box<dyn Device>,
    /// Of this instance, where they are not yet in `totals`.
    counts: Counts,
    /// What one replay of each graph adds.
    graphs: Vec<Counts>,
    inherited: Option<usize>,
    held: Counts,
    contract: Option<Contract>,
    totals: Arc<Totals>,
    options: TraceOptions,
    /// 0 for the first instance; forks count up.
    instance: u32,
}

#[derive(Default)]
struct Totals {
    counts: Mutex<Counts>,
    lines: Mutex<Vec<String>>,
    instances: AtomicU32,
}

impl Trace {
    /// Counts the calls of a device.
    pub fn new(device: Box<dyn Device>, options: TraceOptions) -> Trace {
        let contract = options.contract.then(Contract::default);
        Trace {
            device,
            counts: Counts::default(),
            graphs: Vec::new(),
            inherited: None,
            held: Counts::default(),
            contract,
            totals: Arc::default(),
            options,
            instance: 0,
        }
    }

    /// Counts so far: this instance's, and those of forks up to their last `reset` or their end.
    pub fn counts(&self) -> Counts {
        let mut counts = *self.totals.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts += self.counts;
        counts
    }

    /// Counts of this instance that are not yet among those of all.
    pub fn own_counts(&self) -> Counts {
        self.counts
    }

    /// A fork, with its counts at hand.
    pub fn lane(&self) -> Result<Trace> {
        let device = self.device.fork()?;
        let instance = self.totals.instances.fetch_add(1, Ordering::Relaxed) + 1;
        self.line(|| format!("fork -> [{instance}]"));
        Ok(Trace {
            device,
            counts: Counts { forks: 1, ..Counts::default() },
            graphs: self.graphs.clone(),
            inherited: Some(self.graphs.len()),
            held: Counts::default(),
            contract: self.contract.as_ref().map(Contract::fork),
            totals: Arc::clone(&self.totals),
            options: self.options,
            instance,
        })
    }

    /// The lines so far, of all instances, and none of them again.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.totals.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[inline]
    fn line(&self, line: impl FnOnce() -> String) {
        if self.options.log {
            let line = if self.instance == 0 { line() } else { format!("[{}] {}", self.instance, line()) };
            self.totals.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    fn free_all(&mut self) {
        self.counts.frees += self.held.allocs;
        self.counts.bytes_freed += self.held.bytes_allocated;
        self.held = Counts::default();
    }

    fn flush(&mut self) {
        *self.totals.counts.lock().unwrap_or_else(PoisonError::into_inner) += std::mem::take(&mut self.counts);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.free_all();
        self.flush();
    }
}

/// What running a list once adds to the counts.
fn work(nodes: &[Node]) -> Counts {
    let mut counts = Counts::default();
    for node in nodes {
        match &node.cmd {
            Cmd::Copy { src, .. } => {
                counts.copies += 1;
                counts.copied_bytes += src.len;
            }
            Cmd::Fill { dst, .. } => {
                counts.fills += 1;
                counts.filled_bytes += dst.len;
            }
            Cmd::Launch { .. } => counts.launches += 1,
        }
    }
    counts
}

impl Device for Trace {
    fn caps(&self) -> &Caps {
        self.device.caps()
    }

    fn alloc(&mut self, place: Place, bytes: u64) -> Result<Mem> {
        let mem = self.device.alloc(place, bytes)?;
        let one = Counts { allocs: 1, bytes_allocated: bytes, ..Counts::default() };
        self.counts += one;
        self.held += one;
        if let Some(contract) = &mut self.contract {
            contract.allocated(mem, place, bytes);
        }
        self.line(|| format!("alloc m{} {place:?} {bytes}", mem.0));
        Ok(mem)
    }

    fn map(&mut self, mem: Mem) -> Result<Mapped> {
        if let Some(contract) = &mut self.contract {
            contract.map(mem)?;
        }
        let mapped = self.device.map(mem)?;
        self.counts.maps += 1;
        if let Some(contract) = &mut self.contract {
            contract.lend(mem, true);
        }
        self.line(|| format!("map m{}", mem.0));
        Ok(mapped)
    }

    fn unmap(&mut self, bytes: Mapped) -> Result<()> {
        let mem = bytes.mem();
        if let Some(contract) = &mut self.contract {
            contract.unmap(mem)?;
        }
        self.device.unmap(bytes)?;
        self.counts.unmaps += 1;
        if let Some(contract) = &mut self.contract {
            contract.lend(mem, false);
        }
        self.line(|| format!("unmap m{}", mem.0));
        Ok(())
    }

    unsafe fn load(&mut self, kernel: &KernelSource) -> Result<Kernel> {
        if let Some(contract) = &self.contract {
            contract.load(kernel, self.device.caps())?;
        }
        // SAFETY: promised by the caller.
        let id = unsafe { self.device.load(kernel) }?;
        self.counts.loads += 1;
        if let Some(contract) = &mut self.contract {
            contract.loaded(id, kernel);
        }
        self.line(|| {
            let params: Vec<String> = kernel.params.iter().map(|p| p.to_string()).collect();
            format!("load k{} {}({})", id.0, kernel.name, params.join(", "))
        });
        Ok(id)
    }

    fn builder(&self) -> Option<Arc<dyn Builder>> {
        self.device.builder()
    }

    fn lacks(&self, kernel: &KernelSource) -> Option<String> {
        self.device.lacks(kernel)
    }

    fn record(&mut self, nodes: &[Node]) -> Result<Graph> {
        if let Some(contract) = &self.contract {
            contract.nodes("record", nodes, self.device.caps())?;
        }
        let graph = self.device.record(nodes)?;
        self.counts.records += 1;
        let index = graph.0 as usize;
        if self.graphs.len() <= index {
            self.graphs.resize(index + 1, Counts::default());
        }
        self.graphs[index] = Counts { replays: 1, ..work(nodes) };
        if let Some(contract) = &mut self.contract {
            contract.recorded(graph, nodes);
        }
        self.line(|| format!("record g{}\n{}", graph.0, text_of(nodes)).trim_end().to_string());
        Ok(graph)
    }

    fn replay(&mut self, queue: Queue, after: &[Point], graph: Graph, vars: &[u64]) -> Result<Point> {
        if let Some(contract) = &self.contract {
            contract.replay(queue, after, graph, vars)?;
        }
        let point = self.device.replay(queue, after, graph, vars)?;
        if let Some(work) = self.graphs.get(graph.0 as usize) {
            let counts = &mut self.counts;
            counts.replays += 1;
            counts.launches += work.launches;
            counts.copies += work.copies;
            counts.copied_bytes += work.copied_bytes;
            counts.fills += work.fills;
            counts.filled_bytes += work.filled_bytes;
        }
        if let Some(contract) = &mut self.contract {
            contract.replayed(queue, after, graph, point);
        }
        self.line(|| format!("replay q{} g{} {vars:?}{} -> p{}", queue.0, graph.0, text_of_points(after), point.0));
        Ok(point)
    }

    fn submit(&mut self, queue: Queue, after: &[Point], nodes: &[Node]) -> Result<Point> {
        if let Some(contract) = &self.contract {
            contract.submit(queue, after, nodes, self.device.caps())?;
        }
        let point = self.device.submit(queue, after, nodes)?;
        self.counts.submits += 1;
        self.counts += work(nodes);
        if let Some(contract) = &mut self.contract {
            contract.submitted(queue, after, nodes, point);
        }
        self.line(|| format!("submit q{}{} -> p{}\n{}", queue.0, text_of_points(after), point.0, text_of(nodes)).trim_end().to_string());
        Ok(point)
    }

    fn poll(&mut self, point: Point) -> Result<bool> {
        if let Some(contract) = &self.contract {
            contract.known("poll", point)?;
        }
        let reached = self.device.poll(point)?;
        if let Some(contract) = &mut self.contract
            && reached
        {
            contract.reached(point);
        }
        Ok(reached)
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        if let Some(contract) = &self.contract {
            contract.known("wait", point)?;
        }
        let result = self.device.wait(point);
        self.counts.waits += 1;
        if let Some(contract) = &mut self.contract {
            contract.reached(point);
        }
        self.line(|| format!("wait p{}", point.0));
        result
    }

    fn elapsed(&mut self, point: Point) -> Result<Option<Duration>> {
        if let Some(contract) = &self.contract {
            contract.known("elapsed", point)?;
        }
        self.device.elapsed(point)
    }

    fn fork(&self) -> Result<Box<dyn Device>> {
        Ok(Box::new(self.lane()?))
    }

    fn reset(&mut self) -> Result<()> {
        let result = self.device.reset();
        self.counts.resets += 1;
        self.free_all();
        self.flush();
        self.graphs.truncate(self.inherited.unwrap_or(0));
        if let Some(contract) = &mut self.contract {
            contract.reset();
        }
        self.line(|| "reset".to_string());
        result
    }
}
