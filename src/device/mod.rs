//! Devices: one object-safe trait. Handles are `Copy` ids into tables that the device owns; commands are data.
//!
//! Contract, which the planner keeps and `trace` enforces: nodes run in an order that their `after` lists
//! allow (list order always is one); replays and submissions to one queue run in order; between queues only
//! `after` points order. Memory that is lent to the host (`map`) is not used by anything in flight. A `Fill`
//! takes any 32-bit word on every backend.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use crate::tensor::{Lang, Param};

pub mod chaos;
pub mod choice;
#[cfg(test)]
pub(crate) mod conformance;
mod contract;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod near;
pub mod null;
#[cfg(feature = "opencl")]
pub mod opencl;
mod pages;
#[cfg(any(feature = "cuda", feature = "opencl"))]
mod pieces;
mod store;
mod text;
pub mod trace;

pub use chaos::{Chaos, ChaosOptions};
pub use choice::{Choice, OpenError, OpenOptions, Which};
pub use null::NullDevice;
pub use text::text_of;
pub use trace::{Counts, Trace, TraceOptions};

/// A device memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct Mem(pub u32);

/// A loaded kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct Kernel(pub u32);

/// A recorded list of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct Graph(pub u32);

/// An in-order command queue. Queue 0 may run its work inside the call that submits it, where the device has
/// no submit cost to hide (the CPU); all others run in the background.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct Queue(pub u32);

/// The completion of one replay or submission.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct Point(pub u64);

/// Where a memory lives and who reaches it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Reached by the device alone.
    Device,
    /// Written by the host, copied from by the device.
    Upload,
    /// Copied to by the device, read by the host.
    Readback,
    /// One memory for both, on devices with unified memory.
    Shared,
    /// As `Shared`, but nothing writes it between `unmap` and the next `map`; where the device can, a write faults.
    ReadOnly,
}

/// A byte range of a memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Slice {
    pub mem: Mem,
    pub offset: u64,
    pub len: u64,
}

/// A value of a recorded list: fixed, or one of the variables of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    Const(u64),
    /// Index into the variables that `replay` is given.
    Var(u16),
}

/// One argument of a launch; `local` parameters take none.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    In(Slice),
    Out(Slice),
    Inout(Slice),
    /// The low bytes are the scalar's bits, in the dtype of the parameter.
    Scalar(Word),
    /// One word per field and lane of a struct, or per lane of a scalar with lanes, in order; its low bytes are the bits.
    Struct(Vec<Word>),
    /// A null pointer.
    Null,
}

impl Arg {
    /// The words that are passed by value.
    pub fn words(&self) -> &[Word] {
        match self {
            Arg::Scalar(word) => std::slice::from_ref(word),
            Arg::Struct(words) => words,
            Arg::In(_) | Arg::Out(_) | Arg::Inout(_) | Arg::Null => &[],
        }
    }

    /// The bytes that the kernel reaches, and whether it may write them.
    pub fn slice(&self) -> Option<(Slice, bool)> {
        match self {
            Arg::In(slice) => Some((*slice, false)),
            Arg::Out(slice) | Arg::Inout(slice) => Some((*slice, true)),
            Arg::Scalar(_) | Arg::Struct(_) | Arg::Null => None,
        }
    }
}

/// A launch that starts at the first thread.
pub const NO_OFFSET: [Word; 3] = [Word::Const(0); 3];

/// One command.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cmd {
    /// `src` and `dst` have the same length and do not overlap.
    Copy { src: Slice, dst: Slice },
    /// Repeats a little-endian 32-bit word from the first byte of `dst`; the last one may be cut off. A pattern that
    /// repeats within the word (of an 8- or 16-bit dtype) may start at any element of that size.
    Fill { dst: Slice, pattern: Word },
    /// A grid of 0 in any dimension is no launch. `args` has one entry per parameter that is not `local`.
    Launch {
        kernel: Kernel,
        grid: [Word; 3],
        /// Added to the threads' places where the kernel asks for it, x first; 0 where a device has none. *Units*: threads.
        offset: [Word; 3],
        args: Vec<Arg>,
    },
}

/// A command with the earlier nodes of its list that it waits for.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Node {
    pub cmd: Cmd,
    /// Indices of earlier nodes, ascending.
    pub after: Vec<u32>,
}

/// What a device is and can do: constants, so that plans are comparable.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Caps {
    /// `cpu`, `opencl`, ...
    pub backend: &'static str,
    /// What a person calls this device.
    pub name: String,
    /// Driver or compiler and its version.
    pub driver: String,
    /// Host and device share memory: `Place::Shared` and `Place::ReadOnly` exist, copies across are not needed.
    pub unified: bool,
    /// Instances that may run rounds at the same time.
    pub lanes: u32,
    /// Cost of one replay of one small node. *Units*: nanoseconds.
    pub submit_ns: u64,
    /// Cost of one more small node in a replayed list. *Units*: nanoseconds.
    pub node_ns: u64,
    /// Memory bandwidth that lower bounds count with. *Units*: bytes per nanosecond.
    pub bytes_per_ns: f64,
    /// Total memory. *Units*: bytes.
    pub memory: u64,
    /// Largest single allocation. *Units*: bytes.
    pub largest_alloc: u64,
    /// Alignment of tensors in a memory. *Units*: bytes.
    pub alignment: u64,
    /// Alignment that a slice must have to be bound to a kernel; 1 where an element's own size is enough. *Units*: bytes.
    pub bind_alignment: u64,
    /// Most threads in a block, and most per dimension.
    pub max_block: u64,
    pub max_block_dims: [u64; 3],
    /// Kernels run on the cores that the host fills and checks with.
    pub shares_cores: bool,
    /// What specs may require by name: dtypes that kernels can compute with, and extensions.
    pub features: Vec<String>,
    /// What specs may require at least so much of: a name such as `opencl_c`, and numbers parted by dots.
    pub versions: Vec<(String, String)>,
}

/// A kernel as a backend builds it: everything resolved to text and numbers.
#[derive(Clone, Debug)]
pub struct KernelSource {
    /// The kernel's name in the spec, for messages.
    pub name: String,
    /// The function in the source.
    pub entry: String,
    pub code: Code,
    /// In launch order, `local` ones included.
    pub params: Vec<Param>,
    /// Elements of each `local` parameter, in the order they appear in `params`.
    pub local_lens: Vec<u64>,
    /// Threads per block, x first.
    pub block: [u32; 3],
    /// Scratch of each block besides `local` parameters. *Units*: bytes.
    pub shared: u64,
    /// Not re-entrant: its blocks run in order, and never two of its launches at a time.
    pub serial: bool,
    /// Macro name and text.
    pub defines: Vec<(String, String)>,
    /// Given to the compiler as they stand.
    pub flags: Vec<String>,
    /// Folders for `#include`.
    pub include: Vec<PathBuf>,
    /// Pointers that the kernel takes behind `params`, which are null: those that a compiler added.
    pub hidden: u32,
}

/// What a kernel is made of.
#[derive(Clone, Debug)]
pub enum Code {
    /// A file; its suffix says in which language, or that it is built already.
    File(PathBuf),
    Text(Text),
    /// A kernel compiled into this program, for tests and embedders; only the CPU runs it.
    Builtin(cpu::Builtin),
}

impl Code {
    /// Whether it is source in Rust.
    pub fn is_rust(&self) -> bool {
        match self {
            Code::File(path) => path.extension().is_some_and(|e| e == "rs"),
            Code::Text(text) => text.lang == Some(Lang::Rust),
            Code::Builtin(_) => false,
        }
    }
}

/// Source that stands in a file of another kind, such as a spec.
#[derive(Clone, Debug)]
pub struct Text {
    pub text: String,
    /// Where a backend knows several.
    pub lang: Option<Lang>,
    /// The file in which it stands: relative names are meant from its folder.
    pub path: PathBuf,
    /// The line of that file on which the text starts; `None` where the text's lines are not lines of the file.
    pub line: Option<usize>,
}

/// Host bytes of a memory, lent by `Device::map` until `Device::unmap`.
#[derive(Debug)]
pub struct Mapped {
    mem: Mem,
    ptr: std::ptr::NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes belong to whoever holds the `Mapped`: the device promises in `Mapped::new` that nothing
// else touches them until they are given back.
unsafe impl Send for Mapped {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// # Safety
    /// `ptr` is valid for reads and writes of `len` bytes, and nothing else uses them, until `unmap`.
    pub unsafe fn new(mem: Mem, ptr: std::ptr::NonNull<u8>, len: usize) -> Mapped {
        Mapped { mem, ptr, len }
    }

    pub fn mem(&self) -> Mem {
        self.mem
    }
}

/// A part of the host bytes of a memory: they are given back when all parts are one again.
#[derive(Debug)]
pub struct Part {
    bytes: Mapped,
    /// Where what was lent starts, and how long it is.
    start: usize,
    len: usize,
}

impl From<Mapped> for Part {
    fn from(bytes: Mapped) -> Part {
        Part { start: bytes.ptr.as_ptr().addr(), len: bytes.len, bytes }
    }
}

impl Part {
    /// The first `at` bytes, or all where there are no more, and the rest.
    pub fn split(self, at: usize) -> (Part, Part) {
        let Part { bytes: Mapped { mem, ptr, len }, start, len: whole } = self;
        let at = at.min(len);
        // SAFETY: `at` is at most `len`, and the bytes are one allocation.
        let behind = unsafe { ptr.add(at) };
        let part = |ptr, len| Part { bytes: Mapped { mem, ptr, len }, start, len: whole };
        (part(ptr, at), part(behind, len - at))
    }

    /// One part of two that lie one behind the other. *Errors*: both, where they do not.
    pub fn join(self, behind: Part) -> std::result::Result<Part, (Part, Part)> {
        let (here, there) = (&self.bytes, &behind.bytes);
        // Parts of one memory that was lent once share no byte, and while one is there, the memory is not lent again.
        let neighbours =
            here.mem == there.mem && self.start == behind.start && here.ptr.as_ptr().wrapping_add(here.len) == there.ptr.as_ptr();
        if !neighbours {
            return Err((self, behind));
        }
        let len = here.len + there.len;
        Ok(Part { bytes: Mapped { len, ..self.bytes }, ..self })
    }

    /// What was lent. *Errors*: the part, where it is not all of it.
    pub fn whole(self) -> std::result::Result<Mapped, Part> {
        if self.bytes.ptr.as_ptr().addr() == self.start && self.bytes.len == self.len { Ok(self.bytes) } else { Err(self) }
    }
}

impl std::ops::Deref for Part {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::DerefMut for Part {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl std::ops::Deref for Mapped {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: promised in `Mapped::new`.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Mapped {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: promised in `Mapped::new`.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

/// Why a device did not do what it was asked.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device cannot do this at all.
    #[error("{0}")]
    Unsupported(String),
    /// `what` is what they were for, or why there are not so many.
    #[error("out of memory: {bytes} bytes of {place:?} memory, the device has {available}{}{what}", if what.is_empty() { "" } else { "; " })]
    OutOfMemory { place: Place, bytes: u64, available: u64, what: String },
    /// A compiler or linker was given the kernel and refused it; `log` is what it said. Nothing else may be this error:
    /// checks of builds pass by it.
    #[error("kernel `{kernel}` does not build: {message}")]
    Build { kernel: String, message: String, log: String },
    /// A kernel that no compiler refused cannot be used: its source cannot be read, the compiler cannot be run, was stopped or
    /// broke down, what was built cannot be loaded. `log` is what a compiler said, if one ran.
    #[error("kernel `{kernel}`: {message}")]
    Unusable { kernel: String, message: String, log: String },
    /// Several kernels cannot be built or loaded, each for its own reason.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<DeviceError>),
    /// A call failed; `node` is the index in the list that was running.
    #[error("{call} failed: {message}")]
    Failed { node: Option<u32>, call: &'static str, message: String },
    /// Nothing can be done with this device any more; `node` is the index in the list that was running, where it is known.
    #[error("the device is lost: {message}")]
    Lost { node: Option<u32>, message: String },
}

pub type Result<T> = std::result::Result<T, DeviceError>;

/// Builds kernels from any thread, several at a time.
pub trait Builder: Send + Sync {
    /// Builds a kernel; nothing of its code runs. The next `load` of the same kernel finds what was built, or what failed.
    ///
    /// Gives up soon after `stop` is set. *Errors*: those of `load` that can be found without loading.
    fn build(&self, kernel: &KernelSource, stop: &AtomicBool) -> Result<()>;
}

/// A device that runs recorded lists of commands.
pub trait Device: Send {
    fn caps(&self) -> &Caps;

    /// Allocates a memory; its contents are undefined. *Errors*: `OutOfMemory`, `Unsupported` for a place it lacks.
    fn alloc(&mut self, place: Place, bytes: u64) -> Result<Mem>;

    /// Lends the host bytes of a memory that is not `Place::Device`.
    fn map(&mut self, mem: Mem) -> Result<Mapped>;

    fn unmap(&mut self, bytes: Mapped) -> Result<()>;

    /// Builds and loads a kernel.
    ///
    /// # Safety
    /// The kernel's code keeps to its arguments: it is run in this process.
    unsafe fn load(&mut self, kernel: &KernelSource) -> Result<Kernel>;

    /// What builds kernels beside this instance, so that `load` finds them built; `None` where `load` does all.
    fn builder(&self) -> Option<Arc<dyn Builder>> {
        None
    }

    /// What this machine lacks to build such a kernel, in words; `None` where it can be tried.
    fn lacks(&self, _kernel: &KernelSource) -> Option<String> {
        None
    }

    fn record(&mut self, nodes: &[Node]) -> Result<Graph>;

    /// Runs a recorded list with these variables.
    fn replay(&mut self, queue: Queue, after: &[Point], graph: Graph, vars: &[u64]) -> Result<Point>;

    /// Runs a list once: the cold path.
    fn submit(&mut self, queue: Queue, after: &[Point], nodes: &[Node]) -> Result<Point>;

    /// Whether a point was reached. *Errors*: what made it fail.
    fn poll(&mut self, point: Point) -> Result<bool>;

    /// Waits for a point. *Errors*: what made it fail.
    fn wait(&mut self, point: Point) -> Result<()>;

    /// Time between start and end of a point's work by the device's clock; `None` where there is none.
    fn elapsed(&mut self, point: Point) -> Result<Option<Duration>>;

    /// Another instance for another thread: ids made so far stay valid in it, read-only.
    fn fork(&self) -> Result<Box<dyn Device>>;

    /// Waits for everything, then frees every memory and graph of this instance; kernels stay.
    fn reset(&mut self) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(bytes: &mut [u8], mem: u32) -> Part {
        let ptr = std::ptr::NonNull::from(&mut bytes[0]);
        // SAFETY: the bytes outlive what is made of them, and nothing else uses them meanwhile.
        Part::from(unsafe { Mapped::new(Mem(mem), ptr, bytes.len()) })
    }

    #[test]
    fn what_was_lent_is_given_back_when_all_parts_are_one_again() {
        let mut bytes: Vec<u8> = (0..10).collect();
        let (mut first, rest) = lent(&mut bytes, 1).split(4);
        let (second, third) = rest.split(3);
        assert_eq!((&*first, &*second, &*third), (&[0, 1, 2, 3][..], &[4, 5, 6][..], &[7, 8, 9][..]));
        first[0] = 20;
        // Not in another order, not with a part left out, not in part.
        let (first, third) = first.join(third).unwrap_err();
        let (third, second) = third.join(second).unwrap_err();
        let first = first.whole().unwrap_err();
        let second = second.join(third).unwrap().whole().unwrap_err();
        let all = first.join(second).unwrap().whole().unwrap();
        assert_eq!((all.mem(), &*all), (Mem(1), &[20, 1, 2, 3, 4, 5, 6, 7, 8, 9][..]));
        // Neighbours of two memories are no part of either.
        let (low, high) = bytes.split_at_mut(5);
        assert!(lent(low, 1).join(lent(high, 2)).is_err() && lent(low, 1).join(lent(high, 1)).is_err());
        let (all, none) = lent(low, 1).split(9);
        assert!(none.is_empty() && all.whole().is_ok());
    }
}
