//! Nodes -> driver calls, everything that never changes looked up and set beforehand: a replay sets the arguments that
//! hold variables, and enqueues.

use std::collections::HashMap;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use opencl_sys::*;

use super::Driver;
use super::command_buffer::Recorder;
use super::kernel::{Loaded, Passed};
use super::memory::{Held, Memory};
use super::object::{Buffer, Event, Object, Queue};
use super::op::{Kept, Launch, MOST_IN_GRID, Op, Problem, Set, Value, write};
use crate::device::pieces::pieces;
use crate::device::{Arg, Cmd, DeviceError, Kernel as KernelId, Node, Place, Result, Slice, Word};
use crate::tensor::Access;

/// Kernel objects of an instance that keep their arguments; launches beyond share one for each kernel and set all anew.
const MOST_OBJECTS: usize = 16 << 10;

/// Kernel objects with the arguments that they hold.
pub(super) type Objects = HashMap<(KernelId, Vec<Arg>), Arc<Kept>>;

/// What the ids of an instance stand for.
pub(super) struct Tables<'a> {
    pub driver: &'a Arc<Driver>,
    pub memories: &'a mut [Memory],
    pub kernels: &'a [Arc<Loaded>],
    /// The first memories that may only be read.
    pub inherited: usize,
    pub objects: &'a mut Objects,
}

/// A list of nodes, ready to run.
pub(super) struct List {
    ops: Vec<(u32, Op)>,
    /// Nodes that it was made of.
    nodes: usize,
    /// The memories that it uses, each once.
    pub memories: Vec<u32>,
    /// Variables that it takes.
    vars: usize,
    /// Kernels that had not run when the list was made.
    new: Vec<Arc<Loaded>>,
    /// What it uses of memories, for as long as it may run.
    held: Vec<Arc<Held>>,
    parts: Vec<Arc<Object<Buffer>>>,
    /// What copies between two memories of the host go through.
    bounces: Vec<Memory>,
}

// SAFETY: addresses and handles of what the list holds itself: memories, their parts, kernels.
unsafe impl Send for List {}

/// Events of commands, with the node that each belongs to.
pub(super) type NodeEvents = Vec<(u32, Object<Event>)>;

/// Events of a submission: of its first command, and of its last where that is another one.
#[derive(Default)]
pub(super) struct Times {
    pub first: Option<Object<Event>>,
    pub last: Option<Object<Event>>,
    /// Where every node is timed: how many there are, and the events of their commands besides. Of a fill, the end that is
    /// cut off has none.
    pub nodes: Option<(usize, NodeEvents)>,
}

fn failed(index: usize, call: &'static str, message: String) -> DeviceError {
    DeviceError::Failed { node: u32::try_from(index).ok(), call, message }
}

impl List {
    /// *Errors*: `Failed` with the node that names what is not there, or takes other arguments.
    pub fn new(call: &'static str, nodes: &[Node], tables: &mut Tables<'_>) -> Result<List> {
        let mut list = List {
            ops: Vec::with_capacity(nodes.len()),
            nodes: nodes.len(),
            memories: Vec::new(),
            vars: 0,
            new: Vec::new(),
            held: Vec::new(),
            parts: Vec::new(),
            bounces: Vec::new(),
        };
        let mut uses = vec![false; tables.memories.len()];
        for (index, node) in nodes.iter().enumerate() {
            if let Some(after) = node.after.iter().find(|&&after| after as usize >= index) {
                return Err(failed(index, call, format!("the node waits for node {after}, which does not come before it")));
            }
            list.add(index, &node.cmd, tables, &mut uses).map_err(|error| match error {
                Problem::Message(message) => failed(index, call, message),
                Problem::Call(failure) => failure.at(u32::try_from(index).ok()),
                Problem::Device(error) => error,
            })?;
        }
        list.memories = (0..uses.len() as u32).filter(|&memory| uses[memory as usize]).collect();
        list.held = list.memories.iter().map(|&memory| tables.memories[memory as usize].hold()).collect();
        Ok(list)
    }

    /// Puts what needs no variable into buffers of commands, where the driver has them.
    pub fn record(&mut self, driver: &Arc<Driver>, queue: &Arc<Object<Queue>>) -> Result<()> {
        let Some(recorder) = Recorder::of(driver, queue) else { return Ok(()) };
        let mut ops = Vec::with_capacity(self.ops.len());
        let mut run: Vec<(u32, Op)> = Vec::new();
        let close = |run: &mut Vec<(u32, Op)>, ops: &mut Vec<(u32, Op)>| -> Result<()> {
            // One command costs one call either way.
            let Some(&(at, _)) = run.get(1).and(run.first()) else {
                ops.append(run);
                return Ok(());
            };
            let mut buffer = recorder.start()?;
            for (index, op) in run.drain(..) {
                buffer = op.record(buffer).map_err(|failure| failure.at(Some(index)))?;
            }
            ops.push((at, Op::Recorded(buffer.finish()?)));
            Ok(())
        };
        for (index, op) in self.ops.drain(..) {
            if op.is_fixed() {
                run.push((index, op));
            } else {
                close(&mut run, &mut ops)?;
                ops.push((index, op));
            }
        }
        close(&mut run, &mut ops)?;
        self.ops = ops;
        Ok(())
    }

    /// Whether one of its kernels has not run yet.
    pub fn is_new(&self) -> bool {
        self.new.iter().any(|kernel| !kernel.has_run.load(Ordering::Relaxed))
    }

    /// All of its kernels have run.
    pub fn has_run(&mut self) {
        self.new.drain(..).for_each(|kernel| kernel.has_run.store(true, Ordering::Relaxed));
    }

    /// Enqueues everything, in order. With `times`, the first and the last event, and those between where they are asked for.
    pub fn run(
        &mut self,
        call: &'static str,
        driver: &Driver,
        queue: cl_command_queue,
        vars: &[u64],
        times: &mut Option<Times>,
    ) -> Result<()> {
        if vars.len() < self.vars {
            let message = format!("the list needs {} variables, {} are given", self.vars, vars.len());
            return Err(DeviceError::Failed { node: None, call, message });
        }
        let last = self.ops.len().wrapping_sub(1);
        if let Some((nodes, _)) = times.as_mut().and_then(|times| times.nodes.as_mut()) {
            *nodes = self.nodes;
        }
        for (at, (index, op)) in self.ops.iter_mut().enumerate() {
            let mut event = null_mut();
            let wanted = times.as_ref().is_some_and(|times| at == last || times.first.is_none() || times.nodes.is_some());
            let ptr: *mut cl_event = if wanted { &mut event } else { null_mut() };
            op.run(driver, queue, vars, ptr).map_err(|problem| match problem {
                Problem::Message(message) => failed(*index as usize, call, message),
                Problem::Call(failure) => op.told(failure, *index),
                Problem::Device(error) => error,
            })?;
            if let Some(times) = times.as_mut().filter(|_| !event.is_null()) {
                let event = Object::new(driver.api, event);
                match &mut times.nodes {
                    Some((_, nodes)) => nodes.push((*index, event)),
                    None if times.first.is_none() => times.first = Some(event),
                    None => times.last = Some(event),
                }
            }
        }
        Ok(())
    }

    fn word(&mut self, word: Word, most: u64, what: &str) -> std::result::Result<Word, Problem> {
        match word {
            Word::Const(value) if value > most => Err(Problem::Message(format!("{what} of {value}: at most {most}"))),
            Word::Var(var) => {
                self.vars = self.vars.max(usize::from(var) + 1);
                Ok(word)
            }
            Word::Const(_) => Ok(word),
        }
    }

    fn add(&mut self, index: usize, cmd: &Cmd, tables: &mut Tables<'_>, uses: &mut [bool]) -> std::result::Result<(), Problem> {
        let index = index as u32;
        match cmd {
            Cmd::Copy { src, dst } => {
                if src.len != dst.len {
                    return Err(Problem::Message(format!("copies {} bytes to {}", src.len, dst.len)));
                }
                if src.mem == dst.mem && src.offset < dst.offset.saturating_add(dst.len) && dst.offset < src.offset.saturating_add(src.len)
                {
                    return Err(Problem::Message("copies between bytes that overlap".into()));
                }
                let (src, dst) = (tables.reach(*src, false, uses)?, tables.reach(*dst, true, uses)?);
                if src.len > 0 {
                    self.copy(index, &src, &dst, tables)?;
                }
            }
            Cmd::Fill { dst, pattern } => {
                let dst = tables.reach(*dst, true, uses)?;
                if dst.host.is_some() {
                    return Err(Problem::Message("fills memory that the host has".into()));
                }
                let pattern = self.word(*pattern, u64::MAX, "a pattern")?;
                if let Word::Const(word) = pattern
                    && pieces(dst.at, dst.len, word as u32).is_none()
                {
                    let (at, word) = (dst.at, word as u32);
                    return Err(Problem::Message(format!("a fill from byte {at} with {word:#x}, which does not repeat there")));
                }
                if dst.len > 0 {
                    self.ops.push((index, Op::Fill { dst: dst.buffer, at: dst.at, len: dst.len, pattern }));
                }
            }
            Cmd::Launch { kernel, grid, offset, args } => {
                let launch = self.launch(*kernel, grid, offset, args, tables, uses)?;
                self.ops.push((index, Op::Launch(Box::new(launch))));
            }
        }
        Ok(())
    }

    fn copy(&mut self, index: u32, src: &Reached, dst: &Reached, tables: &mut Tables<'_>) -> std::result::Result<(), Problem> {
        let len = src.len;
        match (src.host, dst.host) {
            (None, None) => self.ops.push((index, Op::Copy { src: src.buffer, dst: dst.buffer, from: src.at, to: dst.at, len })),
            (Some(host), None) => self.ops.push((index, Op::Write { src: host, dst: dst.buffer, to: dst.at, len })),
            (None, Some(host)) => self.ops.push((index, Op::Read { src: src.buffer, from: src.at, dst: host, len })),
            (Some(from), Some(to)) => {
                // Through the device, so that it happens in the queue's order.
                let bounce = Memory::new(tables.driver, Place::Device, len as u64, null_mut()).map_err(Problem::Device)?;
                let buffer = bounce.buffer();
                self.bounces.push(bounce);
                self.ops.push((index, Op::Write { src: from, dst: buffer, to: 0, len }));
                self.ops.push((index, Op::Read { src: buffer, from: 0, dst: to, len }));
            }
        }
        Ok(())
    }

    fn launch(
        &mut self,
        id: KernelId,
        grid: &[Word; 3],
        offset: &[Word; 3],
        args: &[Arg],
        tables: &mut Tables<'_>,
        uses: &mut [bool],
    ) -> std::result::Result<Launch, Problem> {
        let Some(loaded) = tables.kernels.get(id.0 as usize).map(Arc::clone) else {
            return Err(Problem::Message(format!("there is no kernel {}", id.0)));
        };
        let of_kernel = |message: String| Problem::Message(format!("kernel `{}`: {message}", loaded.source.name));
        for word in grid {
            self.word(*word, MOST_IN_GRID, "a grid")?;
        }
        for word in offset {
            self.word(*word, MOST_IN_GRID, "an offset")?;
        }
        let taking = loaded.taking().count();
        if taking != args.len() {
            return Err(of_kernel(format!("{} arguments, it takes {taking}", args.len())));
        }
        let mut sets = Vec::with_capacity(taking);
        for ((index, passed), arg) in loaded.taking().zip(args) {
            let value = self.value(passed, arg, tables, uses).map_err(|problem| match problem {
                Problem::Message(message) => of_kernel(format!("argument {}: {message}", index + 1)),
                other => other,
            })?;
            sets.push(Set { index, value });
        }
        // Objects with the same arguments are one; too many hold none.
        let key = if tables.objects.len() < MOST_OBJECTS { (id, args.to_vec()) } else { (id, Vec::new()) };
        let keeps = !key.1.is_empty() || args.is_empty();
        let object = match tables.objects.get(&key) {
            Some(object) => Arc::clone(object),
            None => {
                let object = Arc::new(Kept::new(loaded.object(tables.driver).map_err(Problem::Device)?));
                for set in sets.iter_mut().filter(|_| keeps) {
                    if !set.has_vars() {
                        set.run(tables.driver, object.raw(), &[]).map_err(Problem::Call)?;
                    }
                }
                tables.objects.insert(key, Arc::clone(&object));
                object
            }
        };
        if keeps {
            sets.retain(Set::has_vars);
        }
        if !loaded.has_run.load(Ordering::Relaxed) && !self.new.iter().any(|new| Arc::ptr_eq(new, &loaded)) {
            self.new.push(Arc::clone(&loaded));
        }
        // Blocks and grids of one element in the last dimensions have none there.
        let spans = |axis: usize| grid[axis] != Word::Const(1) || loaded.source.block[axis] != 1 || offset[axis] != Word::Const(0);
        let dims = (0..3).rev().find(|&axis| spans(axis)).map_or(1, |axis| axis as u32 + 1);
        Ok(Launch { object, name: loaded, grid: *grid, offset: *offset, dims, sets })
    }

    fn value(&mut self, passed: &Passed, arg: &Arg, tables: &mut Tables<'_>, uses: &mut [bool]) -> std::result::Result<Value, Problem> {
        let kind = |text: &str| Err(Problem::Message(format!("the kernel takes {text}")));
        let words = arg.words();
        for word in words {
            self.word(*word, u64::MAX, "a value")?;
        }
        match (passed, arg) {
            (Passed::Null, Arg::Null) => Ok(Value::Buffer(null_mut())),
            (Passed::Null, _) => kind("a null pointer"),
            (Passed::Buffer { access, element }, _) => {
                let (slice, matches) = match arg {
                    Arg::In(slice) => (slice, *access == Access::In),
                    Arg::Out(slice) => (slice, *access == Access::Out),
                    Arg::Inout(slice) => (slice, *access == Access::Inout),
                    Arg::Scalar(_) | Arg::Struct(_) | Arg::Null => return kind("a tensor"),
                };
                if !matches {
                    return kind(&format!("an `{}` tensor", access.name()));
                }
                let reached = tables.reach(*slice, access.writes(), uses)?;
                if reached.host.is_some() {
                    return Err(Problem::Message("lies in memory that the host has".into()));
                }
                let alignment = tables.driver.caps.bind_alignment.max(*element);
                if slice.offset % alignment != 0 {
                    return Err(Problem::Message(format!("starts at byte {}, which is no multiple of {alignment}", slice.offset)));
                }
                let driver = Arc::clone(tables.driver);
                let Some(part) = tables.memories[slice.mem.0 as usize].part(&driver, *slice).map_err(Problem::Call)? else {
                    return Ok(Value::Buffer(reached.buffer));
                };
                let raw = part.raw();
                self.parts.push(part);
                Ok(Value::Buffer(raw))
            }
            (Passed::Bytes { places, size }, Arg::Scalar(_) | Arg::Struct(_)) if places.len() == words.len() => {
                let mut bytes = vec![0; *size];
                write(&mut bytes, places, words, &[]);
                Ok(Value::Bytes { bytes, places: places.clone(), words: words.to_vec() })
            }
            (Passed::Bytes { places, .. }, _) => kind(&format!("{} values", places.len())),
            // `taking` leaves them out.
            (Passed::Local(_), _) => kind("nothing"),
        }
    }
}

/// The bytes of a slice.
struct Reached {
    buffer: cl_mem,
    at: usize,
    len: usize,
    /// Where the host has them for good.
    host: Option<NonNull<u8>>,
}

impl Tables<'_> {
    fn reach(&self, slice: Slice, writes: bool, uses: &mut [bool]) -> std::result::Result<Reached, Problem> {
        let index = slice.mem.0 as usize;
        let message = |text: String| Problem::Message(text);
        let memory = self.memories.get(index).ok_or_else(|| message(format!("there is no memory {index}")))?;
        if slice.offset.checked_add(slice.len).is_none_or(|end| end > memory.bytes) {
            let (len, at, bytes) = (slice.len, slice.offset, memory.bytes);
            return Err(message(format!("{len} bytes from byte {at} lie outside memory {index} of {bytes} bytes")));
        }
        if writes && memory.place == Place::ReadOnly {
            return Err(message(format!("memory {index} is read-only")));
        }
        if writes && index < self.inherited {
            return Err(message(format!("memory {index} belongs to the instance that this one was forked from")));
        }
        uses[index] = true;
        let at = slice.offset as usize;
        // SAFETY: the offset was just found to lie within the memory.
        let host = memory.host().map(|host| unsafe { host.add(at) });
        Ok(Reached { buffer: memory.buffer(), at, len: slice.len as usize, host })
    }
}
