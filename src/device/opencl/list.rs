//! Nodes -> driver calls, everything that never changes looked up and set beforehand: a replay sets the arguments that
//! hold variables, and enqueues.

use std::collections::HashMap;
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use opencl_sys::*;

use super::Driver;
use super::api::{Called, Failure, cl};
use super::command_buffer::{CommandBuffer, Recorder};
use super::kernel::{Loaded, Passed};
use super::memory::{Held, Memory};
use super::object::{Buffer, Event, Kernel, Object};
use crate::device::{Arg, Cmd, DeviceError, Kernel as KernelId, Node, Place, Result, Slice, Word};
use crate::tensor::{Access, Dtype};

/// Kernel objects of an instance that keep their arguments; launches beyond share one for each kernel and set all anew.
const MOST_OBJECTS: usize = 16 << 10;

/// Largest number in a grid or an offset.
const MOST_IN_GRID: u64 = u32::MAX as u64;

/// Kernel objects with the arguments that they hold.
pub(super) type Objects = HashMap<(KernelId, Vec<Arg>), Arc<Object<Kernel>>>;

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
    /// The memories that it uses, each once.
    pub memories: Vec<u32>,
    /// Variables that it takes.
    vars: usize,
    /// What it uses of memories, for as long as it may run.
    held: Vec<Arc<Held>>,
    parts: Vec<Arc<Object<Buffer>>>,
    /// What copies between two memories of the host go through.
    bounces: Vec<Memory>,
}

/// Something that is enqueued.
enum Op {
    Copy {
        src: cl_mem,
        dst: cl_mem,
        from: usize,
        to: usize,
        len: usize,
    },
    /// From bytes that the host always reaches.
    Write {
        src: NonNull<u8>,
        dst: cl_mem,
        to: usize,
        len: usize,
    },
    /// To bytes that the host always reaches.
    Read {
        src: cl_mem,
        from: usize,
        dst: NonNull<u8>,
        len: usize,
    },
    Fill {
        dst: cl_mem,
        at: usize,
        len: usize,
        pattern: Word,
    },
    Launch(Box<Launch>),
    /// Several that need no variable.
    Recorded(CommandBuffer),
}

// SAFETY: addresses and handles of what lives as long as the list's instance does.
unsafe impl Send for List {}

pub(super) struct Launch {
    pub object: Arc<Object<Kernel>>,
    name: Arc<Loaded>,
    grid: [Word; 3],
    offset: [Word; 3],
    pub dims: u32,
    /// Arguments that are set before every run.
    sets: Vec<Set>,
}

/// An argument that is set.
struct Set {
    index: u32,
    value: Value,
}

enum Value {
    Buffer(cl_mem),
    Bytes { bytes: Vec<u8>, places: Vec<(usize, Dtype)>, words: Vec<Word> },
}

/// Events of a submission: of its first command, and of its last where that is another one.
#[derive(Default)]
pub(super) struct Times {
    pub first: Option<Object<Event>>,
    pub last: Option<Object<Event>>,
}

fn failed(index: usize, call: &'static str, message: String) -> DeviceError {
    DeviceError::Failed { node: u32::try_from(index).ok(), call, message }
}

impl List {
    /// *Errors*: `Failed` with the node that names what is not there, or takes other arguments.
    pub fn new(call: &'static str, nodes: &[Node], tables: &mut Tables<'_>) -> Result<List> {
        let mut list = List {
            ops: Vec::with_capacity(nodes.len()),
            memories: Vec::new(),
            vars: 0,
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
    pub fn record(&mut self, driver: &Arc<Driver>, queue: cl_command_queue) -> Result<()> {
        let Some(recorder) = Recorder::of(driver, queue) else { return Ok(()) };
        let mut ops = Vec::with_capacity(self.ops.len());
        let mut run: Vec<(u32, Op)> = Vec::new();
        let close = |run: &mut Vec<(u32, Op)>, ops: &mut Vec<(u32, Op)>| -> Result<()> {
            // One command costs one call either way.
            if run.len() < 2 {
                ops.append(run);
                return Ok(());
            }
            let mut buffer = recorder.start()?;
            let at = run[0].0;
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

    /// Enqueues everything, in order. With `times`, the first and the last event.
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
        for (at, (index, op)) in self.ops.iter_mut().enumerate() {
            let mut event = null_mut();
            let wanted = times.as_ref().is_some_and(|times| at == last || times.first.is_none());
            let ptr: *mut cl_event = if wanted { &mut event } else { null_mut() };
            op.run(driver, queue, vars, ptr).map_err(|problem| match problem {
                Problem::Message(message) => failed(*index as usize, call, message),
                Problem::Call(failure) => op.told(failure, *index),
                Problem::Device(error) => error,
            })?;
            if let Some(times) = times.as_mut().filter(|_| !event.is_null()) {
                let event = Object::new(driver.api, event);
                *(if times.first.is_none() { &mut times.first } else { &mut times.last }) = Some(event);
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
                let object = Arc::new(loaded.object(tables.driver).map_err(Problem::Device)?);
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

/// Puts the low bytes of words, variables among them where `vars` has them, in their places.
fn write(bytes: &mut [u8], places: &[(usize, Dtype)], words: &[Word], vars: &[u64]) {
    for ((at, dtype), word) in places.iter().zip(words) {
        let value = match word {
            Word::Const(value) => *value,
            Word::Var(var) => vars.get(usize::from(*var)).copied().unwrap_or(0),
        };
        let size = dtype.size();
        bytes[*at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

/// Why an op was not made, or not enqueued.
enum Problem {
    Message(String),
    Call(Failure),
    Device(DeviceError),
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

impl Set {
    fn has_vars(&self) -> bool {
        matches!(&self.value, Value::Bytes { words, .. } if words.iter().any(|word| matches!(word, Word::Var(_))))
    }

    fn run(&mut self, driver: &Driver, kernel: cl_kernel, vars: &[u64]) -> Called<()> {
        let api = driver.api;
        match &mut self.value {
            Value::Buffer(buffer) => {
                cl!(api.clSetKernelArg(kernel, self.index, size_of::<cl_mem>(), (&raw const *buffer).cast()))
            }
            Value::Bytes { bytes, places, words } => {
                write(bytes, places, words, vars);
                cl!(api.clSetKernelArg(kernel, self.index, bytes.len(), bytes.as_ptr().cast()))
            }
        }
    }
}

/// The fills that a fill is made of: where each starts, how long it is and how many bytes its pattern has. A driver's
/// fill starts and ends at multiples of its pattern; what is cut off is a fill of its own.
///
/// `None`: the word does not repeat where the fill starts.
fn pieces(at: usize, len: usize, word: u32) -> Option<[(usize, usize, usize); 3]> {
    let period = match word {
        _ if word == word.rotate_left(8) => 1,
        _ if word == word.rotate_left(16) => 2,
        _ => 4,
    };
    let size = [4, 2, 1].into_iter().find(|size| at.is_multiple_of(*size)).unwrap_or(1);
    if size < period {
        return None;
    }
    let whole = len / size * size;
    let two = if size == 4 && len - whole >= 2 { 2 } else { 0 };
    Some([(at, whole, size), (at + whole, two, 2), (at + whole + two, len - whole - two, 1)])
}

/// The word as it is so many bytes after the start of a fill.
fn turned(word: u32, bytes: usize) -> u32 {
    word.rotate_right(8 * (bytes % 4) as u32)
}

fn value(word: Word, vars: &[u64]) -> u64 {
    match word {
        Word::Const(value) => value,
        // The list was given as many variables as it takes.
        Word::Var(var) => vars.get(usize::from(var)).copied().unwrap_or(0),
    }
}

impl Op {
    /// Whether a buffer of commands can hold it.
    fn is_fixed(&self) -> bool {
        let fixed = |words: &[Word]| words.iter().all(|word| matches!(word, Word::Const(_)));
        match self {
            Op::Copy { .. } => true,
            Op::Fill { pattern, .. } => fixed(&[*pattern]),
            Op::Launch(launch) => launch.sets.is_empty() && fixed(&launch.grid) && fixed(&launch.offset),
            Op::Write { .. } | Op::Read { .. } | Op::Recorded(_) => false,
        }
    }

    /// Adds it to a buffer of commands.
    fn record(self, mut buffer: CommandBuffer) -> Called<CommandBuffer> {
        match self {
            Op::Copy { src, dst, from, to, len } => buffer.copy(src, dst, from, to, len)?,
            Op::Fill { dst, at, len, pattern } => {
                let word = value(pattern, &[]) as u32;
                // One that starts within a word was refused before.
                for (from, len, size) in pieces(at, len, word).into_iter().flatten().filter(|(_, len, _)| *len > 0) {
                    buffer.fill(dst, turned(word, from - at), size, from, len)?;
                }
            }
            Op::Launch(launch) => {
                if let Ok(Some(sizes)) = launch.sizes(&[]) {
                    buffer.launch(&launch, &sizes)?;
                }
            }
            Op::Write { .. } | Op::Read { .. } | Op::Recorded(_) => {}
        }
        Ok(buffer)
    }

    fn run(&mut self, driver: &Driver, queue: cl_command_queue, vars: &[u64], event: *mut cl_event) -> std::result::Result<(), Problem> {
        let api = driver.api;
        match self {
            Op::Copy { src, dst, from, to, len } => {
                cl!(api.clEnqueueCopyBuffer(queue, *src, *dst, *from, *to, *len, 0, null(), event))
            }
            Op::Write { src, dst, to, len } => {
                cl!(api.clEnqueueWriteBuffer(queue, *dst, CL_FALSE, *to, *len, src.as_ptr().cast(), 0, null(), event))
            }
            Op::Read { src, from, dst, len } => {
                cl!(api.clEnqueueReadBuffer(queue, *src, CL_FALSE, *from, *len, dst.as_ptr().cast(), 0, null(), event))
            }
            Op::Fill { dst, at, len, pattern } => {
                let word = value(*pattern, vars) as u32;
                let Some(pieces) = pieces(*at, *len, word) else {
                    return Err(Problem::Message(format!("a fill from byte {at} with {word:#x}, which does not repeat there")));
                };
                let mut event = event;
                for (from, len, size) in pieces.into_iter().filter(|(_, len, _)| *len > 0) {
                    let bytes = turned(word, from - *at).to_le_bytes();
                    cl!(api.clEnqueueFillBuffer(queue, *dst, bytes.as_ptr().cast(), size, from, len, 0, null(), event))
                        .map_err(Problem::Call)?;
                    event = null_mut();
                }
                Ok(())
            }
            Op::Launch(launch) => {
                let Some(sizes) = launch.sizes(vars).map_err(Problem::Message)? else { return Ok(()) };
                let kernel = launch.object.raw();
                for set in &mut launch.sets {
                    set.run(driver, kernel, vars).map_err(Problem::Call)?;
                }
                let Sizes { offset, global, local } = &sizes;
                let offset = sizes.offset_ptr(offset);
                cl!(api.clEnqueueNDRangeKernel(queue, kernel, launch.dims, offset, global.as_ptr(), local.as_ptr(), 0, null(), event))
            }
            Op::Recorded(buffer) => buffer.enqueue(queue, event),
        }
        .map_err(Problem::Call)
    }

    /// The error of a call that failed.
    fn told(&self, failure: Failure, node: u32) -> DeviceError {
        let mut error = failure.at(Some(node));
        if let (DeviceError::Failed { message, .. } | DeviceError::Lost(message), Op::Launch(launch)) = (&mut error, self) {
            message.push_str(&format!(", launching kernel `{}` in blocks of {:?}", launch.name.source.name, launch.name.source.block));
        }
        error
    }
}

/// Threads of a launch.
pub(super) struct Sizes {
    pub offset: [usize; 3],
    pub global: [usize; 3],
    pub local: [usize; 3],
}

impl Sizes {
    /// What a call is given as offset.
    pub fn offset_ptr(&self, offset: &[usize; 3]) -> *const usize {
        // A driver builds the kernel without offsets where it knows that there are none.
        if *offset == [0; 3] { null() } else { offset.as_ptr() }
    }
}

impl Launch {
    /// `None` for no launch. *Errors*: a number that a grid cannot have.
    pub fn sizes(&self, vars: &[u64]) -> std::result::Result<Option<Sizes>, String> {
        let block = self.name.source.block.map(|n| n as usize);
        let mut sizes = Sizes { offset: [0; 3], global: [0; 3], local: block };
        for axis in 0..3 {
            let (blocks, offset) = (value(self.grid[axis], vars), value(self.offset[axis], vars));
            for (what, number) in [("a grid", blocks), ("an offset", offset)] {
                if number > MOST_IN_GRID {
                    return Err(format!("kernel `{}`: {what} of {number}: at most {MOST_IN_GRID}", self.name.source.name));
                }
            }
            sizes.offset[axis] = offset as usize;
            sizes.global[axis] = (blocks as usize).saturating_mul(block[axis]);
        }
        Ok((!sizes.global.contains(&0)).then_some(sizes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_are_whole_patterns() {
        assert_eq!(pieces(0, 16, 0x7fc0_0001), Some([(0, 16, 4), (16, 0, 2), (16, 0, 1)]));
        assert_eq!(pieces(4, 7, 0xdead_beef), Some([(4, 4, 4), (8, 2, 2), (10, 1, 1)]));
        assert_eq!(pieces(4, 1, 0xdead_beef), Some([(4, 0, 4), (4, 0, 2), (4, 1, 1)]));
        assert_eq!(pieces(6, 10, 0xabcd_abcd), Some([(6, 10, 2), (16, 0, 2), (16, 0, 1)]));
        assert_eq!(pieces(3, 5, 0x7777_7777), Some([(3, 5, 1), (8, 0, 2), (8, 0, 1)]));
        assert_eq!(pieces(3, 5, 0xabcd_abcd), None);
        assert_eq!(pieces(2, 8, 0xdead_beef), None);
    }

    #[test]
    fn values_go_where_they_belong() {
        let mut bytes = [0xff; 12];
        let places = [(0, Dtype::U8), (4, Dtype::U32), (8, Dtype::U16)];
        write(&mut bytes, &places, &[Word::Const(0xffff_ff07), Word::Var(1), Word::Var(0)], &[0xabc0_fffe, 5]);
        assert_eq!(bytes, [7, 0xff, 0xff, 0xff, 5, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
    }
}
