//! Turns a list of nodes into a flat program: addresses resolved, arguments laid out, so that running it only puts the
//! variables into their words and calls.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::bytes::{copy, fill};
use super::kernel::{Code, Loaded};
use super::pool::Pool;
use super::shim::Range;
use crate::device::pages::Region;
use crate::device::{Arg, Clock, Cmd, DeviceError, Node, Result, Slice, Word};
use crate::tensor::{Access, Dtype, ParamKind};

/// A launch that takes less than this on one thread is not worth waking others for. *Units*: nanoseconds.
const WORTH_DEALING: f64 = 3_000.0;

/// Held by the launch of a serial kernel.
static SERIAL: Mutex<()> = Mutex::new(());

/// What running a program needs besides itself.
pub(super) struct Context {
    pub pool: Pool,
    /// Told the index of each node before it runs.
    pub at_node: Option<&'static AtomicU32>,
    pub clock: Clock,
}

/// How a list's ids are resolved.
pub(super) trait Tables {
    /// Address of a slice that lies in its memory; `writes` asks for one that may be written.
    fn address(&self, slice: Slice, writes: bool) -> std::result::Result<*mut u8, String>;
    fn kernel(&self, kernel: crate::device::Kernel) -> std::result::Result<std::sync::Arc<Loaded>, String>;
    fn scratch(&self, bytes: u64) -> Result<Region>;
}

/// A recorded list.
pub(super) struct Program {
    ops: Vec<Op>,
    /// Scalars, structs and patterns.
    words: Box<[u64]>,
    /// Argument arrays of all launches, one after the other.
    args: Box<[*mut u8]>,
    /// Which entries of `args` point to which words.
    scalars: Vec<(u32, u32)>,
    /// Which words are which variables.
    patches: Vec<(u32, u16)>,
    /// Which bytes of the words are the low bytes of which variables: the parts of structs.
    parts: Vec<Part>,
    /// Which entries of `args` point to which byte of the scratch.
    locals: Vec<(u32, usize)>,
    /// Scratch of `local` parameters: one part of `stride` bytes per thread.
    scratch: Option<Region>,
    stride: usize,
    /// Variables that a run must be given.
    vars: usize,
    /// What each node of the last run took, where that is timed. *Units*: nanoseconds.
    times: Vec<u64>,
}

// SAFETY: the addresses in a program are of its own boxes and of memories that the device keeps for as long as the
// program can run; a program is run by one thread at a time (`run` takes `&mut self`).
unsafe impl Send for Program {}

/// The low bytes of a variable in the words of a program.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    len: usize,
    var: u16,
}

#[derive(Clone)]
enum Op {
    Copy { src: *const u8, dst: *mut u8, len: usize },
    Fill { dst: *mut u8, len: usize, word: u32 },
    Launch(Launch),
}

#[derive(Clone)]
struct Launch {
    code: Code,
    /// Where the arguments start in `Program::args`, and how far apart they are for one thread and the next.
    args: usize,
    args_stride: usize,
    range: Range,
    /// The grid and the offset, where one of them holds a variable: apart, as few do.
    sizes: Option<Box<[[Word; 3]; 2]>>,
    /// Never run twice at a time, blocks in order.
    serial: bool,
    /// What one block takes, by the last time it was measured. *Units*: nanoseconds.
    cost: f64,
    runs: u32,
}

impl Program {
    /// Compiles a list. *Errors*: an id, a range, an argument or an order that the contract does not allow.
    pub fn new(call: &'static str, nodes: &[Node], tables: &dyn Tables, threads: usize) -> Result<Program> {
        let mut builder = Builder::default();
        let mut ops = Vec::with_capacity(nodes.len());
        let (mut local_bytes, mut vars) = (0u64, 0usize);
        for (index, node) in nodes.iter().enumerate() {
            let failed = |message: String| DeviceError::Failed { node: u32::try_from(index).ok(), call, message };
            if node.after.iter().any(|&after| after as usize >= index) {
                return Err(failed(format!("it waits for {:?}, which are not all earlier nodes", node.after)));
            }
            let (op, local) = builder.op(&node.cmd, tables, threads).map_err(failed)?;
            local_bytes = local_bytes.max(local);
            ops.push(op);
            for word in words_of(&node.cmd) {
                if let Word::Var(var) = word {
                    vars = vars.max(usize::from(var) + 1);
                }
            }
        }
        let stride = local_bytes.next_multiple_of(128);
        let scratch = if local_bytes == 0 { None } else { Some(tables.scratch(stride.saturating_mul(threads as u64))?) };
        let mut program = Program {
            ops,
            words: builder.words.into(),
            args: builder.args.into(),
            scalars: builder.scalars,
            patches: builder.patches,
            parts: builder.parts,
            locals: Vec::new(),
            scratch,
            stride: stride as usize,
            vars,
            times: Vec::new(),
        };
        program.locals = builder.locals.iter().map(|&(arg, thread, offset)| (arg, thread * program.stride + offset)).collect();
        program.link();
        Ok(program)
    }

    /// Another program of the same list, with words and scratch of its own.
    pub fn another(&self, tables: &dyn Tables) -> Result<Program> {
        let mut other = Program {
            ops: self.ops.clone(),
            words: self.words.clone(),
            args: self.args.clone(),
            scalars: self.scalars.clone(),
            patches: self.patches.clone(),
            parts: self.parts.clone(),
            locals: self.locals.clone(),
            scratch: self.scratch.as_ref().map(|scratch| tables.scratch(scratch.len() as u64)).transpose()?,
            stride: self.stride,
            vars: self.vars,
            times: Vec::new(),
        };
        other.link();
        Ok(other)
    }

    /// Points arguments to the program's own words and scratch.
    fn link(&mut self) {
        let words = self.words.as_mut_ptr();
        for &(arg, word) in &self.scalars {
            debug_assert!((word as usize) < self.words.len());
            // SAFETY: `word` is an index of `words`.
            self.args[arg as usize] = unsafe { words.add(word as usize) }.cast();
        }
        let base = self.scratch.as_ref().map_or(std::ptr::null_mut(), |scratch| scratch.ptr().as_ptr());
        for &(arg, offset) in &self.locals {
            self.args[arg as usize] = base.wrapping_add(offset);
        }
        for op in &mut self.ops {
            if let Op::Launch(launch) = op {
                launch.range.local = base;
            }
        }
    }

    /// Runs all nodes in list order. *Errors*: too few variables, or a variable that is no grid; a node's index with it.
    pub fn run(&mut self, call: &'static str, vars: &[u64], context: &Context) -> Result<()> {
        if vars.len() < self.vars {
            return Err(few_variables(call, vars.len(), self.vars));
        }
        for &(word, var) in &self.patches {
            self.words[word as usize] = vars[usize::from(var)];
        }
        if !self.parts.is_empty() {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
            for &Part { start, len, var } in &self.parts {
                bytes[start..start + len].copy_from_slice(&vars[usize::from(var)].to_le_bytes()[..len]);
            }
        }
        let args = self.args.as_ptr();
        let mut clock = (context.clock == Clock::Steps).then(Instant::now);
        self.times.clear();
        for (index, op) in self.ops.iter_mut().enumerate() {
            if let Some(at) = context.at_node {
                at.store(index as u32, Ordering::Relaxed);
            }
            match op {
                Op::Launch(launch) => {
                    if let Some(sizes) = &launch.sizes {
                        let sizes = **sizes;
                        launch.set_sizes(sizes, vars).map_err(|message| failed_node(index, call, message))?;
                    }
                    // SAFETY: the launch's arguments start there; see `Send for Program`.
                    let args = unsafe { args.add(launch.args) };
                    let done = if launch.range.end <= 1 && !launch.serial {
                        launch.inline(args)
                    } else {
                        launch.run(args, self.stride, &context.pool)
                    };
                    super::float_mode::restore();
                    if !done {
                        return Err(failed_node(index, call, "the kernel panicked".to_string()));
                    }
                }
                Op::Copy { src, dst, len } => {
                    // SAFETY: both ranges were found to lie in memories of the device, and apart.
                    unsafe { copy(*src, *dst, *len, &context.pool) }
                }
                Op::Fill { dst, len, word } => {
                    // SAFETY: the range was found to lie in a memory of the device.
                    unsafe { fill(*dst, *len, self.words[*word as usize] as u32, &context.pool) }
                }
            }
            if let Some(since) = &mut clock {
                let now = Instant::now();
                self.times.push(u64::try_from((now - *since).as_nanos()).unwrap_or(u64::MAX));
                *since = now;
            }
        }
        Ok(())
    }

    /// Runs all nodes as `run` does and tells how long that took, and in `nodes` each of them where they are timed.
    pub fn timed(&mut self, call: &'static str, vars: &[u64], context: &Context, nodes: &mut Vec<u64>) -> Result<u64> {
        let start = Instant::now();
        let result = self.run(call, vars, context);
        let time = nanoseconds(start);
        // Both keep what they have room for.
        std::mem::swap(nodes, &mut self.times);
        result.map(|()| time)
    }
}

#[cold]
fn few_variables(call: &'static str, given: usize, needed: usize) -> DeviceError {
    DeviceError::Failed { node: None, call, message: format!("the list needs {needed} variables, {given} are given") }
}

#[cold]
fn failed_node(index: usize, call: &'static str, message: String) -> DeviceError {
    DeviceError::Failed { node: u32::try_from(index).ok(), call, message }
}

fn words_of(cmd: &Cmd) -> Vec<Word> {
    match cmd {
        Cmd::Copy { .. } => Vec::new(),
        Cmd::Fill { pattern, .. } => vec![*pattern],
        Cmd::Launch { grid, offset, args, .. } => grid.iter().chain(offset).chain(args.iter().flat_map(Arg::words)).copied().collect(),
    }
}

#[derive(Default)]
struct Builder {
    words: Vec<u64>,
    args: Vec<*mut u8>,
    scalars: Vec<(u32, u32)>,
    /// Argument, thread, offset in the thread's scratch.
    locals: Vec<(u32, usize, usize)>,
    patches: Vec<(u32, u16)>,
    parts: Vec<Part>,
}

impl Builder {
    fn word(&mut self, word: Word) -> u32 {
        let index = self.words.len() as u32;
        match word {
            Word::Const(value) => self.words.push(value),
            Word::Var(var) => {
                self.words.push(0);
                self.patches.push((index, var));
            }
        }
        index
    }

    /// Words that hold `size` bytes, with values at some of them; the index of the first.
    fn bytes(&mut self, size: u64, places: impl Iterator<Item = (u64, Dtype)>, values: &[Word]) -> u32 {
        let first = self.words.len();
        self.words.resize(first + size.div_ceil(8) as usize, 0);
        for ((offset, dtype), value) in places.zip(values) {
            let (start, len) = (8 * first + offset as usize, dtype.size());
            match *value {
                Word::Const(value) => {
                    bytemuck::cast_slice_mut::<u64, u8>(&mut self.words)[start..start + len].copy_from_slice(&value.to_le_bytes()[..len]);
                }
                Word::Var(var) => self.parts.push(Part { start, len, var }),
            }
        }
        first as u32
    }

    /// An operation and the scratch bytes per thread that it needs.
    fn op(&mut self, cmd: &Cmd, tables: &dyn Tables, threads: usize) -> std::result::Result<(Op, u64), String> {
        match cmd {
            Cmd::Copy { src, dst } => {
                if src.len != dst.len {
                    return Err(format!("the copy's source has {} bytes, its destination {}", src.len, dst.len));
                }
                if src.mem == dst.mem && src.offset < dst.offset + dst.len && dst.offset < src.offset + src.len {
                    return Err("the copy's source and destination overlap".to_string());
                }
                let (src, dst, len) = (tables.address(*src, false)?, tables.address(*dst, true)?, src.len as usize);
                Ok((Op::Copy { src, dst, len }, 0))
            }
            Cmd::Fill { dst, pattern } => {
                Ok((Op::Fill { dst: tables.address(*dst, true)?, len: dst.len as usize, word: self.word(*pattern) }, 0))
            }
            Cmd::Launch { kernel, grid, offset, args } => {
                let loaded = tables.kernel(*kernel)?;
                self.launch(&loaded, [*grid, *offset], args, tables, threads)
                    .map_err(|message| format!("kernel `{}`: {message}", loaded.name))
            }
        }
    }

    fn launch(
        &mut self,
        loaded: &Loaded,
        sizes: [[Word; 3]; 2],
        args: &[Arg],
        tables: &dyn Tables,
        threads: usize,
    ) -> std::result::Result<(Op, u64), String> {
        let params = || loaded.params.iter().filter(|p| !matches!(p.kind, ParamKind::Local { .. }));
        if params().count() != args.len() {
            return Err(format!("it takes {} arguments, the launch gives {}", params().count(), args.len()));
        }
        let start = self.args.len();
        for (param, arg) in params().zip(args) {
            let by_value = |this: &mut Builder, word| {
                this.scalars.push((this.args.len() as u32, word));
                this.args.push(std::ptr::null_mut());
            };
            let (slice, access) = match (&param.kind, arg) {
                (ParamKind::Scalar, Arg::Scalar(word)) if param.lanes == 1 => {
                    let word = self.word(*word);
                    by_value(self, word);
                    continue;
                }
                (ParamKind::Scalar, Arg::Struct(values)) if param.lanes > 1 && values.len() == param.lanes as usize => {
                    let size = param.dtype.size() as u64;
                    let word = self.bytes(param.element_bytes(), (0..param.lanes.into()).map(|lane| (lane * size, param.dtype)), values);
                    by_value(self, word);
                    continue;
                }
                (ParamKind::Struct(layout), Arg::Struct(values)) if values.len() == layout.places().count() => {
                    let word = self.bytes(layout.size, layout.places(), values);
                    by_value(self, word);
                    continue;
                }
                (ParamKind::Null, Arg::Null) => {
                    self.args.push(std::ptr::null_mut());
                    continue;
                }
                (ParamKind::Tensor(access @ Access::In), Arg::In(slice))
                | (ParamKind::Tensor(access @ Access::Out), Arg::Out(slice))
                | (ParamKind::Tensor(access @ Access::Inout), Arg::Inout(slice)) => (slice, access),
                _ => return Err(format!("`{param}` cannot take the argument {arg:?}")),
            };
            let address = tables.address(*slice, access.writes())?;
            let element = if param.lanes == 3 { param.dtype.size() as u64 } else { param.element_bytes().min(64) };
            if slice.offset % element != 0 {
                return Err(format!("`{param}` starts at byte {}, which is not a multiple of {element}", slice.offset));
            }
            self.args.push(address);
        }
        let mut args_stride = 0;
        if matches!(loaded.code, Code::Builtin(_)) && !loaded.locals.is_empty() {
            // A builtin finds its scratch among its arguments, so each thread has a list of its own.
            let own: Vec<*mut u8> = self.args[start..].to_vec();
            let scalars: Vec<(u32, u32)> = self.scalars.iter().copied().filter(|&(arg, _)| arg as usize >= start).collect();
            args_stride = own.len() + loaded.locals.len();
            for thread in 0..threads {
                let base = start + thread * args_stride;
                if thread > 0 {
                    self.args.extend(&own);
                    self.scalars.extend(scalars.iter().map(|&(arg, word)| ((base + arg as usize - start) as u32, word)));
                }
                for &offset in &loaded.locals {
                    self.locals.push((self.args.len() as u32, thread, offset as usize));
                    self.args.push(std::ptr::null_mut());
                }
            }
        }
        let range = Range { begin: 0, end: 0, grid: [0; 3], block_dim: loaded.block, offset: [0; 3], local: std::ptr::null_mut() };
        let varies = sizes.iter().flatten().any(|word| matches!(word, Word::Var(_)));
        let mut launch = Launch {
            code: loaded.code,
            args: start,
            args_stride,
            range,
            sizes: varies.then(|| Box::new(sizes)),
            serial: loaded.serial,
            cost: f64::INFINITY,
            runs: 0,
        };
        if !varies {
            launch.set_sizes(sizes, &[])?;
        }
        Ok((Op::Launch(launch), loaded.local_bytes))
    }
}

impl Launch {
    fn set_sizes(&mut self, [grid, offset]: [[Word; 3]; 2], vars: &[u64]) -> std::result::Result<(), String> {
        let value = |word| match word {
            Word::Const(value) => value,
            Word::Var(var) => vars.get(usize::from(var)).copied().unwrap_or(0),
        };
        for dim in 0..3 {
            let (blocks, start) = (value(grid[dim]), value(offset[dim]));
            self.range.grid[dim] =
                u32::try_from(blocks).map_err(|_| format!("{blocks} blocks in dimension {dim}; a dimension has at most {}", u32::MAX))?;
            self.range.offset[dim] =
                u32::try_from(start).map_err(|_| format!("an offset of {start} in dimension {dim}; it is at most {}", u32::MAX))?;
        }
        let blocks = self.range.grid.iter().map(|&n| u128::from(n)).product::<u128>();
        // Zero times anything is no launch, whatever the other dimensions are.
        self.range.end = u64::try_from(blocks).ok().filter(|&n| n < 1 << 63).ok_or_else(|| format!("{blocks} blocks; at most 2^63"))?;
        Ok(())
    }

    /// Runs all blocks on the calling thread.
    #[inline]
    fn inline(&self, args: *const *mut u8) -> bool {
        // SAFETY: `args` is this launch's arguments, which fit the kernel's parameters. A grid of 0 is an empty range.
        self.range.end == 0 || unsafe { self.code.call(args, &self.range) }
    }

    /// Runs two or more blocks, on several threads if that is worth it; or those of a kernel that is not re-entrant.
    fn run(&mut self, args: *const *mut u8, stride: usize, pool: &Pool) -> bool {
        if self.serial {
            // Held over all its blocks: other queues and lanes run the same code, with the same static memory.
            let _alone = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
            return self.inline(args);
        }
        let blocks = self.range.end;
        self.runs = self.runs.wrapping_add(1);
        let cheap = self.cost * (blocks as f64) < WORTH_DEALING;
        if cheap || pool.threads() == 1 {
            if pool.threads() == 1 || !self.runs.is_multiple_of(256) {
                return self.inline(args);
            }
            let start = Instant::now();
            let done = self.inline(args);
            self.cost = nanoseconds(start) as f64 / blocks as f64;
            return done;
        }
        let measured = self.runs <= 4 || self.runs.is_multiple_of(64);
        let chunk = (blocks / (8 * pool.threads() as u64)).max(1);
        let (time, timed, sound) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(true));
        let shared = Shared { args, base: self.range };
        let (code, args_stride) = (self.code, self.args_stride);
        pool.run(blocks, chunk, &|thread, begin, end| {
            let range = Range { begin, end, local: shared.base().local.wrapping_add(thread * stride), ..shared.base() };
            let start = (measured && thread == 0).then(Instant::now);
            // SAFETY: as in `inline`; each thread has its own scratch, and its own arguments where they point to it.
            if !unsafe { code.call(shared.args().add(thread * args_stride), &range) } {
                sound.store(false, Ordering::Relaxed);
            }
            if let Some(start) = start {
                time.fetch_add(nanoseconds(start), Ordering::Relaxed);
                timed.fetch_add(end - begin, Ordering::Relaxed);
            }
        });
        let timed = timed.into_inner();
        if measured && timed > 0 {
            self.cost = time.into_inner() as f64 / timed as f64;
        }
        sound.into_inner()
    }
}

/// What the threads of one launch share.
struct Shared {
    args: *const *mut u8,
    base: Range,
}

// SAFETY: the arguments are only read while a launch runs; what kernels do through them is the kernels' affair.
unsafe impl Sync for Shared {}

impl Shared {
    fn args(&self) -> *const *mut u8 {
        self.args
    }

    fn base(&self) -> Range {
        self.base
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
