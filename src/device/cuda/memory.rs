//! Memories: the device's own, and page-locked ones of the host, which it copies from and to without the host's help.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cudarc::driver::sys::{CUdeviceptr, CUresult};

use super::Driver;
use super::api::{LACKS, NOTHING, cu, words};
use crate::device::{DeviceError, Place, Result};

/// A memory of an instance, or of the one that it was forked from.
pub(super) struct Memory {
    pub place: Place,
    pub bytes: u64,
    held: Arc<Held>,
    /// The host has its bytes.
    pub lent: bool,
}

/// What instances and lists share.
pub(super) struct Held {
    at: At,
    bytes: u64,
    driver: Arc<Driver>,
}

enum At {
    Device(CUdeviceptr),
    Host(NonNull<c_void>),
}

// SAFETY: an address alone does nothing; who may use the bytes is the contract of devices.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        let api = self.driver.api;
        self.driver.release(|| match self.at {
            At::Device(at) => cu!(api.cuMemFree_v2(at)),
            At::Host(at) => cu!(api.cuMemFreeHost(at.as_ptr())),
        });
        self.driver.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Memory {
    /// *Errors*: `OutOfMemory`, `Unsupported` for a place that the device lacks.
    pub fn new(driver: &Arc<Driver>, place: Place, bytes: u64) -> Result<Memory> {
        if matches!(place, Place::Shared | Place::ReadOnly) {
            return Err(DeviceError::Unsupported(format!("{place:?} memory needs a device that shares the host's memory")));
        }
        let (all, largest) = (driver.caps.memory, driver.caps.largest_alloc);
        let short = |available, what| DeviceError::OutOfMemory { place, bytes, available, what };
        if bytes > largest {
            return Err(short(largest, String::new()));
        }
        let take = |used: u64| used.checked_add(bytes).filter(|&after| after <= all);
        if let Err(used) = driver.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            return Err(short(all.saturating_sub(used), String::new()));
        }
        let at = At::new(driver, place, bytes).inspect_err(|_| {
            driver.used.fetch_sub(bytes, Ordering::Relaxed);
        })?;
        Ok(Memory { place, bytes, held: Arc::new(Held { at, bytes, driver: Arc::clone(driver) }), lent: false })
    }

    /// The same memory in an instance that is forked.
    pub fn fork(&self) -> Memory {
        Memory { place: self.place, bytes: self.bytes, held: Arc::clone(&self.held), lent: false }
    }

    /// What keeps the memory for as long as it is held.
    pub fn hold(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    /// Where it starts, as the device counts.
    pub fn address(&self) -> u64 {
        match self.held.at {
            At::Device(at) => at,
            At::Host(at) => at.as_ptr().expose_provenance() as u64,
        }
    }

    /// Where the host has the bytes; `None` where it has not.
    pub fn host(&self) -> Option<NonNull<u8>> {
        match self.held.at {
            At::Device(_) => None,
            At::Host(at) => Some(at.cast()),
        }
    }
}

impl At {
    fn new(driver: &Driver, place: Place, bytes: u64) -> Result<At> {
        let api = driver.api;
        let size = bytes.max(1) as usize;
        let made = match place {
            Place::Device => {
                let mut at = 0;
                cu!(api.cuMemAlloc_v2(&mut at, size)).map(|()| Some(At::Device(at)).filter(|_| at != 0))
            }
            // Not write-combined: the host reads what it filled when it checks.
            _ => {
                let mut at: *mut c_void = null_mut();
                cu!(api.cuMemHostAlloc(&mut at, size, 0)).map(|()| NonNull::new(at).map(At::Host))
            }
        };
        let call = if place == Place::Device { "cuMemAlloc" } else { "cuMemHostAlloc" };
        let failure = match made {
            Ok(Some(at)) => return Ok(at),
            Ok(None) => return Err(super::failed(call, words(NOTHING))),
            Err(failure) => failure,
        };
        if !failure.is(CUresult::CUDA_ERROR_OUT_OF_MEMORY) || failure.code == LACKS {
            return Err(failure.into());
        }
        let (mut free, mut total) = (0, 0);
        let available = match (place, cu!(api.cuMemGetInfo_v2(&mut free, &mut total))) {
            (Place::Device, Ok(())) => free as u64,
            _ => driver.caps.memory,
        };
        let what = match place {
            Place::Device => format!("{call} failed: {}", words(failure.code)),
            _ => format!("{call} failed: the host cannot lock so many pages"),
        };
        Err(DeviceError::OutOfMemory { place, bytes, available, what })
    }
}
