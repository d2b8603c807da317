//! Memories: buffers of the driver, the parts of them that kernels are bound to, and when the host has their bytes.
//!
//! A memory that the host gives back stays mapped until something is submitted that uses it: then it is unmapped in the
//! queue of that work. One that the host takes again before that costs no call.

use std::cell::Cell;
use std::collections::HashMap;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use opencl_sys::*;

use super::Driver;
use super::api::{Called, cl, make};
use super::object::{Buffer, Object};
use crate::device::pages::{Budget, Region};
use crate::device::{DeviceError, Place, Result, Slice};

/// A memory of an instance, or of the one that it was forked from.
pub(super) struct Memory {
    pub place: Place,
    pub bytes: u64,
    held: Arc<Held>,
    /// By offset and length: the parts that kernels are bound to.
    parts: HashMap<(u64, u64), Arc<Object<Buffer>>>,
    /// Where the driver has mapped it for the host.
    mapped: Cell<Option<NonNull<u8>>>,
    /// The host has its bytes.
    pub lent: bool,
    /// The queue that used it last.
    pub queue: u32,
    /// The queue and the number of the submission before which it was unmapped, while that may not be done: other queues
    /// come after it, and so does the host where it is mapped again.
    pub released: Option<(u32, u64)>,
}

// SAFETY: the mapped address belongs to the memory; whoever has the memory has it.
unsafe impl Send for Memory {}

/// What instances share.
pub(super) struct Held {
    // First, as it lies in the region.
    buffer: Object<Buffer>,
    /// Pages of our own, whose write access is taken away while the device has them.
    region: Option<Region>,
    /// For as long as the memory lives, where the device has memory of its own.
    host: Option<NonNull<u8>>,
    bytes: u64,
    driver: Arc<Driver>,
}

// SAFETY: as above.
unsafe impl Send for Held {}
// SAFETY: an address alone does nothing; who may use the bytes is the contract of devices.
unsafe impl Sync for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(region) = &self.region {
            // The driver may write back what it kept elsewhere.
            let _ = region.set_writable(true);
        }
        self.driver.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Memory {
    /// *Errors*: `OutOfMemory`, `Unsupported` for a place that the device lacks.
    pub fn new(driver: &Arc<Driver>, place: Place, bytes: u64, queue: cl_command_queue) -> Result<Memory> {
        let caps = &driver.caps;
        if !caps.unified && matches!(place, Place::Shared | Place::ReadOnly) {
            return Err(DeviceError::Unsupported(format!("{place:?} memory needs a device that shares the host's memory")));
        }
        let short = |available| DeviceError::OutOfMemory { place, bytes, available, what: String::new() };
        if bytes > caps.largest_alloc {
            return Err(short(caps.largest_alloc));
        }
        let take = |used: u64| used.checked_add(bytes).filter(|&after| after <= caps.memory);
        if let Err(used) = driver.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            return Err(short(caps.memory.saturating_sub(used)));
        }
        let made = Held::new(driver, place, bytes, queue).inspect_err(|_| {
            driver.used.fetch_sub(bytes, Ordering::Relaxed);
        });
        let held = made.map_err(|error| match error {
            DeviceError::OutOfMemory { what, .. } => {
                let available = caps.memory.saturating_sub(driver.used.load(Ordering::Relaxed));
                DeviceError::OutOfMemory { place, bytes, available, what }
            }
            other => other,
        })?;
        Ok(Memory::of(place, bytes, Arc::new(held)))
    }

    fn of(place: Place, bytes: u64, held: Arc<Held>) -> Memory {
        Memory { place, bytes, held, parts: HashMap::new(), mapped: Cell::new(None), lent: false, queue: 0, released: None }
    }

    /// The same memory in an instance that is forked.
    pub fn fork(&self) -> Memory {
        Memory::of(self.place, self.bytes, Arc::clone(&self.held))
    }

    pub fn buffer(&self) -> cl_mem {
        self.held.buffer.raw()
    }

    /// What keeps the memory for as long as it is held.
    pub fn hold(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    /// Never frees pages of our own: the device may use them for ever.
    pub fn keep(&self) {
        if self.held.region.is_some() {
            std::mem::forget(self.hold());
        }
    }

    /// Where the host has the bytes of a memory that it always reaches.
    pub fn host(&self) -> Option<NonNull<u8>> {
        self.held.host
    }

    /// Whether the driver has it mapped for the host, who gave it back.
    pub fn is_pending(&self) -> bool {
        self.mapped.get().is_some() && !self.lent
    }

    /// The buffer that a kernel is bound to for a slice; `None` where it is that of the whole memory.
    pub fn part(&mut self, driver: &Driver, slice: Slice) -> Called<Option<Arc<Object<Buffer>>>> {
        if slice.offset == 0 && slice.len == self.bytes || slice.len == 0 {
            return Ok(None);
        }
        if let Some(part) = self.parts.get(&(slice.offset, slice.len)) {
            return Ok(Some(Arc::clone(part)));
        }
        let (api, buffer) = (driver.api, self.buffer());
        let region = cl_buffer_region { origin: slice.offset as usize, size: slice.len as usize };
        let raw = make!(api.clCreateSubBuffer(buffer, 0, CL_BUFFER_CREATE_TYPE_REGION, (&raw const region).cast()))?;
        let part = Arc::new(Object::new(api, raw));
        self.parts.insert((slice.offset, slice.len), Arc::clone(&part));
        Ok(Some(part))
    }

    /// Where the host has the bytes, unless they have to be mapped.
    pub fn at_hand(&self) -> Option<NonNull<u8>> {
        self.host().or(self.mapped.get())
    }

    /// Maps the bytes for the host, after everything in the queue. Nothing that uses them is in flight elsewhere.
    pub fn map(&mut self, queue: cl_command_queue) -> Result<NonNull<u8>> {
        if let Some(region) = &self.held.region {
            region.set_writable(true).map_err(|e| super::failed("map", e.to_string()))?;
        }
        let ptr = map(&self.held.driver, queue, self.buffer(), self.bytes, CL_TRUE)?;
        self.mapped.set(Some(ptr));
        self.released = None;
        Ok(ptr)
    }

    /// Maps the bytes for the host behind the submission for which they were unmapped: it waits for that before it looks.
    pub fn map_behind(&mut self, queue: cl_command_queue) -> Result<()> {
        self.mapped.set(Some(map(&self.held.driver, queue, self.buffer(), self.bytes, CL_FALSE)?));
        Ok(())
    }

    /// Gives mapped bytes to the device, in this queue's order.
    pub fn unmap(&self, queue: cl_command_queue) -> Result<()> {
        let Some(ptr) = self.mapped.get() else { return Ok(()) };
        let (api, buffer) = (self.held.driver.api, self.buffer());
        cl!(api.clEnqueueUnmapMemObject(queue, buffer, ptr.as_ptr().cast(), 0, std::ptr::null(), null_mut()))?;
        self.mapped.set(None);
        Ok(())
    }

    /// Takes the host's write access away, where that can be done; nothing is mapped.
    pub fn protect(&self) -> Result<()> {
        match &self.held.region {
            Some(region) => region.set_writable(false).map_err(|e| super::failed("unmap", e.to_string())),
            None => Ok(()),
        }
    }
}

/// Maps a whole buffer; if it is to block, until it is mapped.
fn map(driver: &Driver, queue: cl_command_queue, buffer: cl_mem, bytes: u64, blocks: cl_bool) -> Result<NonNull<u8>> {
    let api = driver.api;
    let bytes = bytes.max(1) as usize;
    let flags = CL_MAP_READ | CL_MAP_WRITE;
    let ptr = make!(api.clEnqueueMapBuffer(queue, buffer, blocks, flags, 0, bytes, 0, std::ptr::null(), null_mut()))?;
    NonNull::new(ptr.cast()).ok_or_else(|| super::failed("clEnqueueMapBuffer", "the driver mapped nothing"))
}

impl Held {
    fn new(driver: &Arc<Driver>, place: Place, bytes: u64, queue: cl_command_queue) -> Result<Held> {
        let short = |what: String| DeviceError::OutOfMemory { place, bytes, available: driver.caps.memory, what };
        let (api, context) = (driver.api, driver.context.raw());
        // A write to pages without write access faults where the kernel runs in this process, and nowhere else.
        let region = match place {
            Place::ReadOnly if driver.found.is_cpu => {
                Some(Region::new(bytes, &Budget::of_machine()).map_err(|_| short("the machine has no pages for them".into()))?)
            }
            _ => None,
        };
        let (flags, ptr) = match (&region, place) {
            (Some(region), _) => (CL_MEM_USE_HOST_PTR, region.ptr().as_ptr().cast()),
            (None, Place::Device) => (0, null_mut()),
            (None, _) => (CL_MEM_ALLOC_HOST_PTR, null_mut()),
        };
        let size = bytes.max(1) as usize;
        let made = make!(api.clCreateBuffer(context, CL_MEM_READ_WRITE | flags, size, ptr));
        let raw = made.map_err(|failure| match failure.is_short() {
            true => short(format!("{} failed: {}", failure.call, super::api::words(failure.code))),
            false => failure.into(),
        })?;
        let buffer = Object::new(api, raw);
        let host = match place {
            // Page-locked for good: what is copied from and to it needs no call before and after.
            Place::Upload | Place::Readback if !driver.caps.unified => Some(map(driver, queue, raw, bytes, CL_TRUE)?),
            _ => None,
        };
        Ok(Held { buffer, region, host, bytes, driver: Arc::clone(driver) })
    }
}
