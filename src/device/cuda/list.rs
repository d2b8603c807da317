//! Nodes -> operations with addresses, everything that never changes looked up beforehand. Copies, and fills with one word,
//! that stand side by side in a list and go through memory in equal strides are one operation with rows.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use super::Driver;
use super::kernel::{Loaded, Passed};
use super::memory::{Held, Memory};
use crate::device::pieces::pieces;
use crate::device::{Arg, Cmd, DeviceError, Kernel as KernelId, Mem, Node, Place, Result, Slice, Word};
use crate::tensor::{Access, Dtype};

/// What the ids of an instance stand for.
pub(super) struct Tables<'a> {
    pub driver: &'a Arc<Driver>,
    pub memories: &'a [Memory],
    pub kernels: &'a [Arc<Loaded>],
    /// The first memories that may only be read.
    pub inherited: usize,
}

/// A list of nodes, ready to become a graph.
pub(super) struct List {
    pub entries: Vec<Entry>,
    /// The memories that it uses, each once.
    pub memories: Vec<u32>,
    /// Variables that it takes.
    pub vars: usize,
    /// What it uses, for as long as it may run.
    _held: Vec<Arc<Held>>,
}

/// An operation for a run of nodes.
pub(super) struct Entry {
    pub op: Op,
    /// The nodes that it does.
    pub nodes: Range<u32>,
    /// Earlier entries that it waits for, ascending.
    pub after: Vec<u32>,
}

pub(super) enum Op {
    Copy(Copy),
    Fill(Fill),
    Launch(Box<Launch>),
    /// No bytes, no blocks.
    Nothing,
}

/// Rows of bytes that are copied. *Units*: bytes.
pub(super) struct Copy {
    pub src: Rows,
    pub dst: Rows,
    pub len: usize,
    pub rows: usize,
}

/// Where rows start.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    mem: Mem,
    pub at: u64,
    pub on_host: bool,
    /// From the start of one row to that of the next; 0 while there is one.
    pub stride: u64,
}

/// Rows that are filled with a word. *Units*: bytes.
pub(super) struct Fill {
    mem: Mem,
    pub at: u64,
    pub len: usize,
    pub rows: usize,
    pub stride: u64,
    pub pattern: Word,
}

pub(super) struct Launch {
    pub kernel: Arc<Loaded>,
    pub grid: [Word; 3],
    pub offset: [Word; 3],
    /// The arguments' bytes, one behind the other.
    bytes: Vec<u8>,
    /// Where each argument stands in `bytes`.
    starts: Vec<usize>,
    /// Where values go in `bytes` that are variables.
    values: Vec<(usize, Dtype, u16)>,
    /// What a call is given: addresses in `bytes`.
    pointers: Vec<*mut c_void>,
}

// SAFETY: the addresses are those of bytes that the launch holds itself.
unsafe impl Send for Launch {}

pub(super) fn failed(index: usize, call: &'static str, message: String) -> DeviceError {
    DeviceError::Failed { node: u32::try_from(index).ok(), call, message }
}

/// What a word stands for, with the variables of a replay.
pub(super) fn value(word: Word, vars: &[u64]) -> u64 {
    match word {
        Word::Const(value) => value,
        // The list was given as many variables as it takes.
        Word::Var(var) => vars.get(usize::from(var)).copied().unwrap_or(0),
    }
}

type Checked<T> = std::result::Result<T, String>;

impl List {
    /// *Errors*: `Failed` with the node that names what is not there, or takes other arguments.
    pub fn new(call: &'static str, nodes: &[Node], tables: &Tables<'_>) -> Result<List> {
        let mut list = List { entries: Vec::with_capacity(nodes.len().min(1024)), memories: Vec::new(), vars: 0, _held: Vec::new() };
        let mut uses = vec![false; tables.memories.len()];
        // By node: its entry.
        let mut places: Vec<u32> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            if let Some(after) = node.after.iter().find(|&&after| after as usize >= index) {
                return Err(failed(index, call, format!("the node waits for node {after}, which does not come before it")));
            }
            let op = list.op(&node.cmd, tables, &mut uses).map_err(|message| failed(index, call, message))?;
            let after = node.after.iter().map(|&node| places[node as usize]);
            let at = index as u32;
            let last = list.entries.len().wrapping_sub(1);
            let merged = match list.entries.last_mut() {
                // Rows wait for none of their own.
                Some(entry) if !after.clone().any(|of| of as usize == last) => entry.op.merge(&op, tables.driver.found.pitch),
                _ => false,
            };
            if merged {
                let entry = &mut list.entries[last];
                entry.nodes.end = at + 1;
                entry.after.extend(after);
                places.push(last as u32);
            } else {
                list.entries.push(Entry { op, nodes: at..at + 1, after: after.collect() });
                places.push(last.wrapping_add(1) as u32);
            }
        }
        for entry in &mut list.entries {
            entry.after.sort_unstable();
            entry.after.dedup();
        }
        list.memories = (0..uses.len() as u32).filter(|&memory| uses[memory as usize]).collect();
        list._held = list.memories.iter().map(|&memory| tables.memories[memory as usize].hold()).collect();
        Ok(list)
    }

    /// Lists of one entry each, to run one after the other.
    pub fn split(self) -> Vec<List> {
        let List { entries, memories, vars, _held } = self;
        let one = |entry: Entry| List {
            entries: vec![Entry { after: Vec::new(), ..entry }],
            memories: memories.clone(),
            vars,
            _held: _held.clone(),
        };
        entries.into_iter().map(one).collect()
    }

    fn word(&mut self, word: Word) {
        if let Word::Var(var) = word {
            self.vars = self.vars.max(usize::from(var) + 1);
        }
    }

    fn op(&mut self, cmd: &Cmd, tables: &Tables<'_>, uses: &mut [bool]) -> Checked<Op> {
        match cmd {
            Cmd::Copy { src, dst } => {
                if src.len != dst.len {
                    return Err(format!("copies {} bytes to {}", src.len, dst.len));
                }
                if src.mem == dst.mem && src.offset < dst.offset.saturating_add(dst.len) && dst.offset < src.offset.saturating_add(src.len)
                {
                    return Err("copies between bytes that overlap".into());
                }
                let (from, to) = (tables.reach(*src, false, uses)?, tables.reach(*dst, true, uses)?);
                Ok(if src.len > 0 { Op::Copy(Copy { src: from, dst: to, len: src.len as usize, rows: 1 }) } else { Op::Nothing })
            }
            Cmd::Fill { dst, pattern } => {
                let to = tables.reach(*dst, true, uses)?;
                if to.on_host {
                    return Err("fills memory that the host has".into());
                }
                self.word(*pattern);
                let fill = Fill { mem: dst.mem, at: to.at, len: dst.len as usize, rows: 1, stride: 0, pattern: *pattern };
                if let Word::Const(word) = *pattern {
                    fill.pieces(word as u32).map_err(|message| format!("{message} (byte {} of its memory)", dst.offset))?;
                }
                Ok(if dst.len > 0 { Op::Fill(fill) } else { Op::Nothing })
            }
            Cmd::Launch { kernel, grid, offset, args } => self.launch(*kernel, grid, offset, args, tables, uses),
        }
    }

    fn launch(
        &mut self,
        id: KernelId,
        grid: &[Word; 3],
        offset: &[Word; 3],
        args: &[Arg],
        tables: &Tables<'_>,
        uses: &mut [bool],
    ) -> Checked<Op> {
        let Some(kernel) = tables.kernels.get(id.0 as usize).map(Arc::clone) else {
            return Err(format!("there is no kernel {}", id.0));
        };
        let named = Arc::clone(&kernel);
        let of_kernel = |message: String| format!("kernel `{}`: {message}", named.source.name);
        grid.iter().chain(offset).for_each(|word| self.word(*word));
        if kernel.passed.len() != args.len() {
            return Err(of_kernel(format!("{} arguments, it takes {}", args.len(), kernel.passed.len())));
        }
        let (mut bytes, mut starts, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (passed, arg)) in kernel.passed.iter().zip(args).enumerate() {
            // As far apart as any type may ask for.
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            starts.push(bytes.len());
            arg.words().iter().for_each(|word| self.word(*word));
            argument(passed, arg, tables, uses, &mut bytes, &mut values)
                .map_err(|message| of_kernel(format!("argument {}: {message}", index + 1)))?;
        }
        for _ in 0..kernel.source.hidden {
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            starts.push(bytes.len());
            bytes.extend([0; 8]);
        }
        let mut launch = Launch { kernel, grid: *grid, offset: *offset, bytes, starts, values, pointers: Vec::new() };
        launch.point();
        let fixed = |words: &[Word; 3]| words.iter().all(|word| matches!(word, Word::Const(_)));
        if fixed(grid) && fixed(offset) && launch.blocks(&[], tables.driver.found.grid)?.is_none() {
            return Ok(Op::Nothing);
        }
        for word in grid.iter().chain(offset) {
            if let Word::Const(number) = word
                && u32::try_from(*number).is_err()
            {
                return Err(of_kernel(format!("a grid of {number}: at most {}", u32::MAX)));
            }
        }
        Ok(Op::Launch(Box::new(launch)))
    }
}

/// More parameters than a kernel can have.
const MOST_PARAMETERS: usize = 4096;

/// What stands for parameters of a kernel that the spec does not have.
static ZEROS: [u8; 4096] = [0; 4096];

/// Appends an argument's bytes, and notes where its variables go.
fn argument(
    passed: &Passed,
    arg: &Arg,
    tables: &Tables<'_>,
    uses: &mut [bool],
    bytes: &mut Vec<u8>,
    values: &mut Vec<(usize, Dtype, u16)>,
) -> Checked<()> {
    let kind = |text: &str| Err(format!("the kernel takes {text}"));
    let words = arg.words();
    match (passed, arg) {
        (Passed::Null, Arg::Null) => bytes.extend([0; 8]),
        (Passed::Null, _) => return kind("a null pointer"),
        (Passed::Pointer { access, alignment }, _) => {
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
            if reached.on_host {
                return Err("lies in memory that the host has".into());
            }
            if slice.offset % alignment != 0 {
                return Err(format!("starts at byte {}, which is no multiple of {alignment}", slice.offset));
            }
            bytes.extend(reached.at.to_ne_bytes());
        }
        (Passed::Bytes { places, size }, Arg::Scalar(_) | Arg::Struct(_)) if places.len() == words.len() => {
            let start = bytes.len();
            bytes.resize(start + size, 0);
            for ((at, dtype), word) in places.iter().zip(words) {
                match word {
                    Word::Const(value) => put(bytes, start + at, *dtype, *value),
                    Word::Var(var) => values.push((start + at, *dtype, *var)),
                }
            }
        }
        (Passed::Bytes { places, .. }, _) => return kind(&format!("{} values", places.len())),
    }
    Ok(())
}

/// Puts the low bytes of a value in their place.
fn put(bytes: &mut [u8], at: usize, dtype: Dtype, value: u64) {
    let size = dtype.size();
    bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

impl Launch {
    fn point(&mut self) {
        let base = self.bytes.as_mut_ptr();
        self.pointers = self.starts.iter().map(|&start| base.wrapping_add(start).cast()).collect();
        if !self.kernel.is_counted {
            // A driver reads one for each parameter that the kernel has.
            self.pointers.resize(self.starts.len().max(MOST_PARAMETERS), std::ptr::from_ref(&ZEROS).cast_mut().cast());
        }
    }

    /// Where each argument stands, once the variables among them have their values.
    pub fn arguments(&mut self, vars: &[u64]) -> *mut *mut c_void {
        for &(at, dtype, var) in &self.values {
            put(&mut self.bytes, at, dtype, value(Word::Var(var), vars));
        }
        self.pointers.as_mut_ptr()
    }

    /// The variables that it uses.
    pub fn vars(&self) -> impl Iterator<Item = u16> {
        let sizes = self.grid.iter().chain(&self.offset).filter_map(|word| if let Word::Var(var) = word { Some(*var) } else { None });
        sizes.chain(self.values.iter().map(|(.., var)| *var))
    }

    /// Blocks by dimension; `None` for no launch. *Errors*: a number that a grid cannot have.
    pub fn blocks(&self, vars: &[u64], most: [u64; 3]) -> Checked<Option<[u32; 3]>> {
        let name = &self.kernel.source.name;
        let grid = self.grid.map(|word| value(word, vars));
        let offset = self.offset.map(|word| value(word, vars));
        for number in grid.into_iter().chain(offset) {
            if u32::try_from(number).is_err() {
                return Err(format!("kernel `{name}`: a grid of {number}: at most {}", u32::MAX));
            }
        }
        if grid.contains(&0) {
            return Ok(None);
        }
        if let Some(axis) = (0..3).find(|&axis| grid[axis] > most[axis]) {
            let (blocks, most) = (grid[axis], most[axis]);
            return Err(format!("kernel `{name}`: a grid of {blocks} in dimension {axis}: on this device at most {most}"));
        }
        if offset != [0; 3] {
            return Err(format!("kernel `{name}`: an offset of {offset:?}: launches of CUDA have none"));
        }
        Ok(Some(grid.map(|blocks| blocks as u32)))
    }
}

impl Rows {
    /// Takes the start of one more row in, if it lies one stride behind the last of so many.
    fn next(&self, start: &Rows, rows: usize, len: usize, pitch: usize) -> Option<u64> {
        let stride = if rows == 1 { start.at.checked_sub(self.at)? } else { self.stride };
        let fits = stride >= len as u64 && stride <= pitch as u64 && start.at == self.at + stride * rows as u64;
        (fits && self.mem == start.mem).then_some(stride)
    }
}

impl Op {
    /// Takes in an operation that is one more row of this one.
    fn merge(&mut self, other: &Op, pitch: usize) -> bool {
        match (self, other) {
            (Op::Copy(copy), Op::Copy(more)) if copy.len == more.len => {
                let src = copy.src.next(&more.src, copy.rows, copy.len, pitch);
                let dst = copy.dst.next(&more.dst, copy.rows, copy.len, pitch);
                let Some((src, dst)) = src.zip(dst) else { return false };
                (copy.src.stride, copy.dst.stride) = (src, dst);
                copy.rows += 1;
                true
            }
            // Rows of whole words.
            (Op::Fill(fill), Op::Fill(more)) if (fill.len, fill.pattern) == (more.len, more.pattern) && fill.len % 4 == 0 => {
                let rows = |of: &Fill| Rows { mem: of.mem, at: of.at, on_host: false, stride: of.stride };
                match rows(fill).next(&rows(more), fill.rows, fill.len, pitch) {
                    Some(stride) if fill.at % 4 == 0 && stride % 4 == 0 => {
                        (fill.stride, fill.rows) = (stride, fill.rows + 1);
                        true
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

impl Fill {
    /// See [`pieces`]. *Errors*: the word does not repeat where the fill starts.
    pub fn pieces(&self, word: u32) -> Checked<[(usize, usize, usize); 3]> {
        let none = || format!("a fill with {word:#x}, which does not repeat where it starts");
        pieces(self.at as usize, self.shape().0, word).ok_or_else(none)
    }

    /// How long rows are, and how many: those without gaps are one.
    pub fn shape(&self) -> (usize, usize) {
        if self.stride == self.len as u64 { (self.len * self.rows, 1) } else { (self.len, self.rows) }
    }
}

impl Tables<'_> {
    fn reach(&self, slice: Slice, writes: bool, uses: &mut [bool]) -> Checked<Rows> {
        let index = slice.mem.0 as usize;
        let memory = self.memories.get(index).ok_or_else(|| format!("there is no memory {index}"))?;
        if slice.offset.checked_add(slice.len).is_none_or(|end| end > memory.bytes) {
            let (len, at, bytes) = (slice.len, slice.offset, memory.bytes);
            return Err(format!("{len} bytes from byte {at} lie outside memory {index} of {bytes} bytes"));
        }
        if writes && memory.place == Place::ReadOnly {
            return Err(format!("memory {index} is read-only"));
        }
        if writes && index < self.inherited {
            return Err(format!("memory {index} belongs to the instance that this one was forked from"));
        }
        uses[index] = true;
        Ok(Rows { mem: slice.mem, at: memory.address() + slice.offset, on_host: memory.host().is_some(), stride: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(src: u64, dst: u64) -> Op {
        let rows = |mem, at| Rows { mem: Mem(mem), at, on_host: false, stride: 0 };
        Op::Copy(Copy { src: rows(0, src), dst: rows(1, dst), len: 8, rows: 1 })
    }

    fn fill(at: u64, len: usize, pattern: Word) -> Op {
        Op::Fill(Fill { mem: Mem(0), at, len, rows: 1, stride: 0, pattern })
    }

    #[test]
    fn what_goes_on_in_equal_strides_is_one() {
        let pitch = 1 << 20;
        let mut op = copy(0, 0);
        assert!(op.merge(&copy(8, 64), pitch) && op.merge(&copy(16, 128), pitch));
        assert!(!op.merge(&copy(24, 200), pitch) && !op.merge(&copy(25, 192), pitch) && !op.merge(&copy(0, 0), pitch));
        let Op::Copy(Copy { src, dst, rows, .. }) = op else { panic!() };
        assert_eq!((src.stride, dst.stride, rows), (8, 64, 3));
        // Rows that overlap, go backwards, or are too far apart.
        for (src, dst) in [(4, 64), (8, 4), (0, 64), (2 << 20, 64)] {
            assert!(!copy(0, 0).merge(&copy(src, dst), pitch), "{src} {dst}");
        }
        assert!(!copy(64, 64).merge(&copy(0, 128), pitch));
        let mut op = fill(0, 8, Word::Var(1));
        assert!(op.merge(&fill(12, 8, Word::Var(1)), pitch) && !op.merge(&fill(24, 8, Word::Var(2)), pitch));
        assert!(!fill(0, 6, Word::Var(1)).merge(&fill(8, 6, Word::Var(1)), pitch));
        assert!(!fill(2, 8, Word::Var(1)).merge(&fill(12, 8, Word::Var(1)), pitch));
        assert!(!fill(0, 8, Word::Var(1)).merge(&copy(8, 8), pitch));
    }
}
