//! Turns a kernel's source into something that can be called for a range of blocks.

use std::panic::AssertUnwindSafe;

use super::shim::{Entry, Range, local_layout};
use super::{BlockAt, Builtin};
use crate::device::{KernelSource, Result};
use crate::tensor::Param;

/// A kernel that can be launched.
pub(super) struct Loaded {
    pub name: String,
    pub params: Vec<Param>,
    pub block: [u32; 3],
    /// Never run twice at a time, blocks in order.
    pub serial: bool,
    /// Offset of each `local` parameter in a thread's scratch.
    pub locals: Vec<u64>,
    /// Scratch of one thread. *Units*: bytes.
    pub local_bytes: u64,
    pub code: Code,
}

/// What a launch calls.
#[derive(Clone, Copy)]
pub(super) enum Code {
    Compiled(Entry),
    Builtin(Builtin),
}

impl Loaded {
    pub fn new(kernel: &KernelSource, code: Code) -> Result<Loaded> {
        let (locals, local_bytes) = local_layout(kernel)?;
        Ok(Loaded {
            name: kernel.name.clone(),
            params: kernel.params.clone(),
            block: kernel.block,
            serial: kernel.serial,
            locals,
            local_bytes,
            code,
        })
    }
}

impl Code {
    /// Runs the blocks of a range; `false` when a builtin panicked.
    ///
    /// # Safety
    /// `args` are arguments of this kernel, for memory that nobody else uses as the parameters do; the range's grid has
    /// no dimension of 0.
    #[inline]
    pub unsafe fn call(self, args: *const *mut u8, range: &Range) -> bool {
        match self {
            Code::Compiled(entry) => {
                // SAFETY: promised by the caller.
                unsafe { entry(args, range) };
                true
            }
            // SAFETY: promised by the caller.
            Code::Builtin(builtin) => unsafe { call_builtin(builtin, args, range) },
        }
    }
}

/// # Safety
/// As for [`Code::call`].
unsafe fn call_builtin(builtin: Builtin, args: *const *mut u8, range: &Range) -> bool {
    let [gx, gy, _] = range.grid.map(u64::from);
    let blocks = AssertUnwindSafe(|| {
        for i in range.begin..range.end {
            let block = [(i % gx) as u32, (i / gx % gy) as u32, (i / gx / gy) as u32];
            // SAFETY: promised by the caller.
            unsafe {
                builtin(args, &BlockAt { block, grid: range.grid, block_dim: range.block_dim, offset: range.offset, shared: range.local })
            };
        }
    });
    std::panic::catch_unwind(blocks).is_ok()
}
