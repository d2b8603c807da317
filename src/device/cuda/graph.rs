//! A list -> a graph of the driver, which one call replays: edges as the list has them, so that what is independent runs
//! side by side. What depends on variables is set before a replay, where it changed.

use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys::{
    CUDA_KERNEL_NODE_PARAMS, CUDA_MEMCPY3D, CUDA_MEMSET_NODE_PARAMS, CUevent, CUgraph, CUgraphExec, CUgraphNode, CUmemorytype, CUstream,
};

use super::api::{Called, Failure, cu};
use super::list::{Copy, Fill, Launch, List, Op, failed, value};
use super::{Clock, Driver};
use crate::device::pieces::turned;
use crate::device::{DeviceError, Result, Word};

/// A recorded list.
pub(super) struct Graph {
    // First, as what it runs is in the list.
    execs: Vec<Exec>,
    raw: Raw,
    pub list: List,
    /// By entry: the driver's nodes, in the order of [`fills`] for fills.
    nodes: Vec<Vec<CUgraphNode>>,
    /// Rows that are filled with a variable are nodes of their own.
    by_row: bool,
    /// Entries that depend on variables.
    varying: Vec<u32>,
    /// Of the whole list, or of each entry, start and end.
    events: Vec<[Event; 2]>,
    /// The point that was submitted last.
    pub last: Option<(u32, u64)>,
    driver: Arc<Driver>,
}

// SAFETY: graphs, nodes and events are handles, which CUDA lets one thread at a time use; who has the graph has them.
unsafe impl Send for Graph {}

/// What can be launched, with the variables that it was set to.
struct Exec {
    raw: CUgraphExec,
    vars: Option<Vec<u64>>,
    /// Counts up with every launch of the graph.
    used: u64,
    driver: Arc<Driver>,
}

impl Drop for Exec {
    fn drop(&mut self) {
        let api = self.driver.api;
        self.driver.release(|| cu!(api.cuGraphExecDestroy(self.raw)));
    }
}

struct Raw(CUgraph, Arc<Driver>);

impl Drop for Raw {
    fn drop(&mut self) {
        let api = self.1.api;
        self.1.release(|| cu!(api.cuGraphDestroy(self.0)));
    }
}

/// An event that keeps the time.
pub(super) struct Event(pub CUevent, Arc<Driver>);

impl Event {
    /// With `flags` of the driver.
    pub fn new(driver: &Arc<Driver>, flags: u32) -> Called<Event> {
        let api = driver.api;
        let mut raw: CUevent = null_mut();
        cu!(api.cuEventCreate(&mut raw, flags))?;
        Ok(Event(raw, Arc::clone(driver)))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let api = self.1.api;
        self.1.release(|| cu!(api.cuEventDestroy_v2(self.0)));
    }
}

// SAFETY: a handle, which CUDA lets any thread use.
unsafe impl Send for Event {}

/// Graphs with patterns that change are there twice, as patterns alternate between two words: in the steady state neither
/// is set anew.
const ALTERNATING: usize = 2;

impl Graph {
    /// A graph that is put on the device by way of a stream, unless it is launched at once.
    ///
    /// *Errors*: what the driver refuses, with the node.
    pub fn new(driver: &Arc<Driver>, list: List, stream: Option<CUstream>) -> Result<Graph> {
        let graph = Graph::of(driver, list, stream, false)?;
        match graph.refuses_rows() {
            // Drivers before CUDA 12.2 set fills of one row alone.
            true => Graph::of(driver, graph.list, stream, true),
            false => Ok(graph),
        }
    }

    fn of(driver: &Arc<Driver>, list: List, stream: Option<CUstream>, by_row: bool) -> Result<Graph> {
        let api = driver.api;
        let mut raw: CUgraph = null_mut();
        cu!(api.cuGraphCreate(&mut raw, 0))?;
        let raw = Raw(raw, Arc::clone(driver));
        let mut graph = Graph {
            execs: Vec::new(),
            raw,
            nodes: Vec::with_capacity(list.entries.len()),
            by_row,
            varying: Vec::new(),
            events: Vec::new(),
            list,
            last: None,
            driver: Arc::clone(driver),
        };
        graph.add_all()?;
        let fills = graph.varying.iter().any(|&at| matches!(graph.list.entries[at as usize].op, Op::Fill(_)));
        for _ in 0..if fills { ALTERNATING } else { 1 } {
            let mut raw: CUgraphExec = null_mut();
            cu!(api.cuGraphInstantiateWithFlags(&mut raw, graph.raw.0, 0))?;
            let exec = Exec { raw, vars: None, used: 0, driver: Arc::clone(driver) };
            if let Some(stream) = stream {
                // Else the first launch does it.
                cu!(api.cuGraphUpload(exec.raw, stream))?;
            }
            graph.execs.push(exec);
        }
        if let Some(stream) = stream {
            // Launches in other streams do not wait for it.
            cu!(api.cuStreamSynchronize(stream))?;
        }
        Ok(graph)
    }

    /// Whether the driver refuses to set a fill of several rows, tried on the first.
    fn refuses_rows(&self) -> bool {
        let (api, context) = (self.driver.api, self.driver.context);
        let first = self.varying.iter().find_map(|&at| match &self.list.entries[at as usize].op {
            Op::Fill(fill) if fill.shape().1 > 1 => Some((fill, *self.nodes[at as usize].first()?)),
            _ => None,
        });
        let (Some((fill, node)), Some(exec)) = (first, self.execs.first()) else { return false };
        let params = fills(fill, 0, false).next();
        params.is_some_and(|params| cu!(api.cuGraphExecMemsetNodeSetParams(exec.raw, node, &params, context)).is_err())
    }

    fn add_all(&mut self) -> Result<()> {
        let steps = self.driver.options.clock == Clock::Steps;
        let rounds = self.driver.options.clock == Clock::Rounds;
        // What those wait for that wait for an entry.
        let mut ends: Vec<Vec<CUgraphNode>> = Vec::with_capacity(self.list.entries.len());
        let mut leaves = vec![true; self.list.entries.len()];
        let mut start = None;
        if rounds {
            let times = [Event::new(&self.driver, 0)?, Event::new(&self.driver, 0)?];
            start = Some(self.add_event(times[0].0, &[])?);
            self.events.push(times);
        }
        for index in 0..self.list.entries.len() {
            let entry = &self.list.entries[index];
            let node = entry.nodes.start;
            let mut before: Vec<CUgraphNode> = entry.after.iter().flat_map(|&of| ends[of as usize].iter().copied()).collect();
            entry.after.iter().for_each(|&of| leaves[of as usize] = false);
            before.extend(start.filter(|_| entry.after.is_empty()));
            let driver = Arc::clone(&self.driver);
            let told = |failure: Failure| of_node(&driver, failure, Some(node));
            if steps {
                let times = [Event::new(&self.driver, 0).map_err(told)?, Event::new(&self.driver, 0).map_err(told)?];
                before = vec![self.add_event(times[0].0, &before).map_err(told)?];
                self.events.push(times);
            }
            let nodes = self.add(index, &before).map_err(told)?;
            ends.push(match self.events.last() {
                Some(times) if steps => vec![self.add_event(times[1].0, &nodes).map_err(told)?],
                _ => nodes.clone(),
            });
            self.nodes.push(nodes);
        }
        if rounds {
            let last: Vec<CUgraphNode> =
                ends.iter().zip(&leaves).filter(|(_, leaf)| **leaf).flat_map(|(end, _)| end.iter().copied()).collect();
            let before = if last.is_empty() { start.into_iter().collect() } else { last };
            self.add_event(self.events[0][1].0, &before)?;
        }
        Ok(())
    }

    fn add_event(&self, event: CUevent, before: &[CUgraphNode]) -> Called<CUgraphNode> {
        let api = self.driver.api;
        let mut node: CUgraphNode = null_mut();
        cu!(api.cuGraphAddEventRecordNode(&mut node, self.raw.0, ptr(before), before.len(), event))?;
        Ok(node)
    }

    /// Adds the nodes of an entry.
    fn add(&mut self, index: usize, before: &[CUgraphNode]) -> Called<Vec<CUgraphNode>> {
        let (api, graph, context, most) = (self.driver.api, self.raw.0, self.driver.context, self.driver.found.grid);
        let mut node: CUgraphNode = null_mut();
        let mut nodes = Vec::with_capacity(1);
        match &mut self.list.entries[index].op {
            Op::Nothing => cu!(api.cuGraphAddEmptyNode(&mut node, graph, ptr(before), before.len()))?,
            Op::Copy(copy) => {
                let params = copy_params(copy);
                cu!(api.cuGraphAddMemcpyNode(&mut node, graph, ptr(before), before.len(), &params, context))?;
            }
            Op::Fill(fill) => {
                // Of a variable the size of the pieces alone counts, which is that of any word that repeats after a byte.
                let (word, by_row) = match fill.pattern {
                    Word::Const(word) => (word as u32, false),
                    Word::Var(_) => (0, self.by_row),
                };
                if let Word::Var(_) = fill.pattern {
                    self.varying.push(index as u32);
                }
                for params in fills(fill, word, by_row) {
                    cu!(api.cuGraphAddMemsetNode(&mut node, graph, ptr(before), before.len(), &params, context))?;
                    nodes.push(node);
                }
                return Ok(nodes);
            }
            Op::Launch(launch) => {
                if launch.vars().next().is_some() {
                    self.varying.push(index as u32);
                }
                let blocks = launch.blocks(&[], most).ok().flatten().unwrap_or([1; 3]);
                let params = launch_params(launch, blocks, &[]);
                cu!(api.cuGraphAddKernelNode_v2(&mut node, graph, ptr(before), before.len(), &params))?;
            }
        }
        nodes.push(node);
        Ok(nodes)
    }

    /// Launches the graph with these variables. *Errors*: `Failed` with the node that cannot have its variable.
    pub fn launch(&mut self, call: &'static str, stream: CUstream, vars: &[u64]) -> Result<()> {
        let needs = self.list.vars;
        if vars.len() < needs {
            let message = format!("the list needs {needs} variables, {} are given", vars.len());
            return Err(super::failed(call, message));
        }
        let vars = &vars[..needs];
        let at = self.nearest(vars);
        if !self.varying.is_empty() && self.execs.get(at).is_some_and(|exec| exec.vars.as_deref() != Some(vars)) {
            self.set(call, at, vars)?;
        }
        let used = self.execs.iter().map(|exec| exec.used).max().unwrap_or(0);
        let Some(exec) = self.execs.get_mut(at) else { return Err(super::failed(call, "the graph was never made")) };
        exec.used = used + 1;
        let api = self.driver.api;
        // Of a node alone it is known which one failed.
        let node = if let [entry] = &self.list.entries[..] { Some(entry.nodes.start) } else { None };
        cu!(api.cuGraphLaunch(exec.raw, stream)).map_err(|failure| of_node(&self.driver, failure, node))
    }

    /// The executable graph with the fewest fills to set, and of those the one that was launched the longest ago.
    fn nearest(&self, vars: &[u64]) -> usize {
        let fills = |exec: &Exec| {
            let words = self.varying.iter().filter_map(|&at| match &self.list.entries[at as usize].op {
                Op::Fill(Fill { pattern: Word::Var(var), .. }) => Some(usize::from(*var)),
                _ => None,
            });
            words.filter(|&var| exec.vars.as_ref().is_none_or(|kept| kept[var] != vars[var])).count()
        };
        (0..self.execs.len()).min_by_key(|&at| (fills(&self.execs[at]), self.execs[at].used)).unwrap_or(0)
    }

    /// Sets what depends on variables that are not as they were.
    fn set(&mut self, call: &'static str, at: usize, vars: &[u64]) -> Result<()> {
        let exec = &mut self.execs[at];
        // If a call fails, it is not known what is set.
        let mut kept = exec.vars.take();
        let changed = |var: u16| kept.as_ref().is_none_or(|kept| kept[usize::from(var)] != vars[usize::from(var)]);
        for &index in &self.varying {
            let entry = &mut self.list.entries[index as usize];
            let (node, nodes) = (entry.nodes.start, &self.nodes[index as usize]);
            let told = |failure: Failure| of_node(&self.driver, failure, Some(node));
            let (api, context) = (self.driver.api, self.driver.context);
            match &mut entry.op {
                Op::Fill(fill) if matches!(fill.pattern, Word::Var(var) if changed(var)) => {
                    let word = value(fill.pattern, vars) as u32;
                    fill.pieces(word).map_err(|message| failed(node as usize, call, message))?;
                    for (params, node) in fills(fill, word, self.by_row).zip(nodes) {
                        cu!(api.cuGraphExecMemsetNodeSetParams(exec.raw, *node, &params, context)).map_err(told)?;
                    }
                }
                Op::Launch(launch) if launch.vars().any(changed) => {
                    let blocks = launch.blocks(vars, self.driver.found.grid).map_err(|message| failed(node as usize, call, message))?;
                    let varies = launch.grid.iter().any(|word| matches!(word, Word::Var(_)));
                    if let Some(blocks) = blocks {
                        let params = launch_params(launch, blocks, vars);
                        cu!(api.cuGraphExecKernelNodeSetParams_v2(exec.raw, nodes[0], &params)).map_err(told)?;
                    }
                    if varies {
                        cu!(api.cuGraphNodeSetEnabled(exec.raw, nodes[0], u32::from(blocks.is_some()))).map_err(told)?;
                    }
                }
                _ => {}
            }
        }
        match &mut kept {
            Some(kept) => kept.copy_from_slice(vars),
            None => kept = Some(vars.to_vec()),
        }
        exec.vars = kept;
        Ok(())
    }

    /// What the last run took, by the device's clock, in all; `None` where it was not kept.
    pub fn elapsed(&self) -> Called<Option<Duration>> {
        match (self.driver.options.clock, self.events.first(), self.events.last()) {
            (Clock::Rounds, Some([start, end]), _) => between(start, end).map(Some),
            (Clock::Steps, Some(_), Some(_)) => {
                // From the earliest start to the latest end: entries may run side by side.
                let (mut least, mut most) = (0f64, 0f64);
                let first = &self.events[0][0];
                for [start, end] in &self.events {
                    least = least.min(milliseconds(first, start)?);
                    most = most.max(milliseconds(first, end)?);
                }
                Ok(Some(Duration::from_secs_f64((most - least).max(0.0) / 1e3)))
            }
            _ => Ok(None),
        }
    }

    /// What each node of the last run took, by the device's clock: nodes that were done as one share its time evenly.
    /// Whether it was kept.
    pub fn node_times(&self, times: &mut Vec<Option<Duration>>) -> Called<bool> {
        if self.driver.options.clock != Clock::Steps {
            return Ok(false);
        }
        for (entry, [start, end]) in self.list.entries.iter().zip(&self.events) {
            let time = between(start, end)?;
            times.extend(entry.nodes.clone().map(|_| Some(time / entry.nodes.len() as u32)));
        }
        Ok(true)
    }
}

/// The error of a node. What is lost may have been lost by whatever is in flight, unless each node is waited for.
fn of_node(driver: &Driver, failure: Failure, node: Option<u32>) -> DeviceError {
    failure.at(node.filter(|_| driver.options.stepwise || !failure.is_loss()))
}

/// A start and an end that is not before it, in milliseconds.
fn milliseconds(start: &Event, end: &Event) -> Called<f64> {
    let api = start.1.api;
    let mut time = 0f32;
    cu!(api.cuEventElapsedTime(&mut time, start.0, end.0))?;
    Ok(f64::from(time))
}

fn between(start: &Event, end: &Event) -> Called<Duration> {
    Ok(Duration::from_secs_f64(milliseconds(start, end)?.max(0.0) / 1e3))
}

/// What a call is given for a list of nodes.
fn ptr(nodes: &[CUgraphNode]) -> *const CUgraphNode {
    if nodes.is_empty() { null() } else { nodes.as_ptr() }
}

fn copy_params(copy: &Copy) -> CUDA_MEMCPY3D {
    // Rows without gaps are one.
    let len = copy.len as u64;
    let (len, rows) = match copy.rows {
        rows if copy.src.stride == len && copy.dst.stride == len => (copy.len * rows, 1),
        rows => (copy.len, rows),
    };
    // Where there is one row, it may be longer than a pitch.
    let pitch = |stride: u64| if rows > 1 { stride as usize } else { 0 };
    let height = if rows > 1 { rows } else { 0 };
    let both = copy.src.on_host && copy.dst.on_host;
    let kind = |on_host: bool| match on_host {
        // Page-locked memory is the device's too: the driver finds out.
        _ if both => CUmemorytype::CU_MEMORYTYPE_UNIFIED,
        true => CUmemorytype::CU_MEMORYTYPE_HOST,
        false => CUmemorytype::CU_MEMORYTYPE_DEVICE,
    };
    let host = |of: &super::list::Rows| std::ptr::with_exposed_provenance_mut(if of.on_host && !both { of.at as usize } else { 0 });
    let device = |of: &super::list::Rows| if of.on_host && !both { 0 } else { of.at };
    CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: kind(copy.src.on_host),
        srcHost: host(&copy.src),
        srcDevice: device(&copy.src),
        srcArray: null_mut(),
        reserved0: null_mut(),
        srcPitch: pitch(copy.src.stride),
        srcHeight: height,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: kind(copy.dst.on_host),
        dstHost: host(&copy.dst),
        dstDevice: device(&copy.dst),
        dstArray: null_mut(),
        reserved1: null_mut(),
        dstPitch: pitch(copy.dst.stride),
        dstHeight: height,
        WidthInBytes: len,
        Height: rows,
        Depth: 1,
    }
}

/// The fills of the driver that a fill with a word is made of: one for all rows, or one for each, of every piece.
fn fills(fill: &Fill, word: u32, by_row: bool) -> impl Iterator<Item = CUDA_MEMSET_NODE_PARAMS> {
    // A word that does not repeat was refused before.
    let pieces = fill.pieces(word).unwrap_or_default();
    let (start, stride) = (fill.at as usize, fill.stride as usize);
    let rows = fill.shape().1;
    let (times, height) = if by_row { (rows, 1) } else { (1, rows) };
    let of_row = move |row: usize| pieces.into_iter().filter(|(_, len, _)| *len > 0).map(move |piece| (row, piece));
    (0..times).flat_map(of_row).map(move |(row, (at, len, size))| {
        let value = turned(word, at - start);
        CUDA_MEMSET_NODE_PARAMS {
            dst: (at + row * stride) as u64,
            pitch: if height > 1 { stride } else { 0 },
            value: match size {
                4 => value,
                2 => value & 0xffff,
                _ => value & 0xff,
            },
            elementSize: size as u32,
            width: len / size,
            height,
        }
    })
}

fn launch_params(launch: &mut Launch, blocks: [u32; 3], vars: &[u64]) -> CUDA_KERNEL_NODE_PARAMS {
    let [block_x, block_y, block_z] = launch.kernel.source.block;
    CUDA_KERNEL_NODE_PARAMS {
        func: launch.kernel.function,
        gridDimX: blocks[0],
        gridDimY: blocks[1],
        gridDimZ: blocks[2],
        blockDimX: block_x,
        blockDimY: block_y,
        blockDimZ: block_z,
        sharedMemBytes: launch.kernel.shared,
        kernelParams: launch.arguments(vars),
        extra: null_mut(),
        kern: null_mut(),
        ctx: null_mut(),
    }
}
