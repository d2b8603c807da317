//! Turns an instance's ids into addresses, kernels and scratch.

use std::sync::Arc;

use super::kernel::Loaded;
use super::program::Tables;
use crate::device::pages::{Budget, Region};
use crate::device::{DeviceError, Kernel, Place, Result, Slice};

/// Scratch holds this before the first block: NaN in every float dtype, never the zeros that fresh memory would have.
const POISON: u8 = 0xff;

/// Scratch that is poisoned, so that a large one costs no memory before it is used. *Units*: bytes.
const MOST_POISONED: usize = 64 << 20;

/// A memory of an instance, or of the one that it was forked from.
pub(super) struct Memory {
    pub place: Place,
    pub region: Arc<Region>,
    pub lent: bool,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.lent {
            // Whoever still holds the host bytes may use them: they stay.
            std::mem::forget(Arc::clone(&self.region));
        }
    }
}

/// What an instance's ids stand for.
pub(super) struct Resolver<'a> {
    pub memories: &'a [Memory],
    pub kernels: &'a [Arc<Loaded>],
    /// The first memories that may only be read.
    pub inherited: usize,
    pub budget: &'a Arc<Budget>,
}

impl Tables for Resolver<'_> {
    fn address(&self, slice: Slice, writes: bool) -> std::result::Result<*mut u8, String> {
        let index = slice.mem.0 as usize;
        let memory = self.memories.get(index).ok_or_else(|| format!("there is no memory {index}"))?;
        let len = memory.region.len() as u64;
        if slice.offset.checked_add(slice.len).is_none_or(|end| end > len) {
            return Err(format!("{} bytes from byte {} lie outside memory {index} of {len} bytes", slice.len, slice.offset));
        }
        if writes && memory.place == Place::ReadOnly {
            return Err(format!("memory {index} is read-only"));
        }
        if writes && index < self.inherited {
            return Err(format!("memory {index} belongs to the instance that this one was forked from"));
        }
        Ok(memory.region.ptr().as_ptr().wrapping_add(slice.offset as usize))
    }

    fn kernel(&self, kernel: Kernel) -> std::result::Result<Arc<Loaded>, String> {
        self.kernels.get(kernel.0 as usize).cloned().ok_or_else(|| format!("there is no kernel {}", kernel.0))
    }

    fn scratch(&self, bytes: u64) -> Result<Region> {
        let out_of_memory =
            |available| DeviceError::OutOfMemory { place: Place::Device, bytes, available, what: "scratch of a list".into() };
        let region = Region::new(bytes, self.budget).map_err(|short| out_of_memory(short.available))?;
        let poisoned = region.len().min(MOST_POISONED);
        // SAFETY: the region is fresh and has that many bytes; nobody else knows it yet.
        unsafe { region.ptr().as_ptr().write_bytes(POISON, poisoned) };
        Ok(region)
    }
}
