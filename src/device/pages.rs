//! Turns byte counts into page-aligned memory whose write access can be taken away.
//!
//! The one file of the devices that speaks to the operating system's memory calls.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// From this size on, memory asks for huge pages. *Units*: bytes.
#[cfg(target_os = "linux")]
const HUGE: usize = 4 << 20;

/// What all regions of a process's devices may use together.
#[derive(Debug)]
pub(super) struct Budget {
    total: u64,
    used: AtomicU64,
}

impl Budget {
    /// The machine's memory, or the limit that this process's control group sets below it.
    pub fn of_machine() -> Arc<Budget> {
        Arc::new(Budget { total: total_memory(), used: AtomicU64::new(0) })
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    fn available(&self) -> u64 {
        self.total.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Takes `bytes` if they are there.
    fn take(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_add(bytes).filter(|&after| after <= self.total))
            .is_ok()
    }
}

/// Too little memory: how much is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Short {
    pub available: u64,
}

/// Page-aligned memory of its own pages, freed when dropped.
#[derive(Debug)]
pub(super) struct Region {
    ptr: NonNull<u8>,
    len: usize,
    /// `len` rounded up to pages, at least one.
    span: usize,
    budget: Arc<Budget>,
}

// SAFETY: a region is an address and a length; who may touch the bytes is decided by its users.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps fresh memory. *Errors*: more than the budget has left, or the system refuses.
    pub fn new(bytes: u64, budget: &Arc<Budget>) -> Result<Region, Short> {
        let short = || Short { available: budget.available() };
        let page = page_size();
        let len = usize::try_from(bytes).map_err(|_| short())?;
        let span = len.max(1).checked_next_multiple_of(page).ok_or_else(short)?;
        if isize::try_from(span).is_err() || !budget.take(span as u64) {
            return Err(short());
        }
        // SAFETY: an anonymous private mapping at an address of the system's choice touches nothing that exists.
        let ptr = unsafe {
            libc::mmap(std::ptr::null_mut(), span, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0)
        };
        let mapped = (ptr != libc::MAP_FAILED).then_some(ptr.cast::<u8>()).and_then(NonNull::new);
        let Some(ptr) = mapped else {
            budget.used.fetch_sub(span as u64, Ordering::Relaxed);
            return Err(short());
        };
        #[cfg(target_os = "linux")]
        if span >= HUGE {
            // SAFETY: the pages were mapped above; the advice changes no contents, and may be refused.
            unsafe { libc::madvise(ptr.as_ptr().cast(), span, libc::MADV_HUGEPAGE) };
        }
        Ok(Region { ptr, len, span, budget: Arc::clone(budget) })
    }

    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The length that was asked for. *Units*: bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Allows or forbids writes to all of the region; a forbidden write is a fault.
    pub fn set_writable(&self, writable: bool) -> io::Result<()> {
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: the pages belong to this region, which lives as long as `self`.
        match unsafe { libc::mprotect(self.ptr.as_ptr().cast(), self.span, access) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the pages were mapped in `new` and nothing refers to them any more.
        unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.span) };
        self.budget.used.fetch_sub(self.span as u64, Ordering::Relaxed);
    }
}

fn page_size() -> usize {
    // SAFETY: reads a constant of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn total_memory() -> u64 {
    // SAFETY: reads a constant of the system.
    let pages = u64::try_from(unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) }).unwrap_or(0);
    let machine = pages.saturating_mul(page_size() as u64);
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    match (machine, group) {
        (0, group) => group.unwrap_or(1 << 32),
        (machine, Some(group)) => machine.min(group),
        (machine, None) => machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_page_aligned_and_gives_its_bytes_back() {
        let budget = Arc::new(Budget { total: 1 << 20, used: AtomicU64::new(0) });
        let region = Region::new(100, &budget).unwrap();
        assert_eq!(region.ptr().as_ptr() as usize % 4096, 0);
        assert_eq!(region.len(), 100);
        assert!(budget.available() < 1 << 20);
        drop(region);
        assert_eq!(budget.available(), 1 << 20);
    }

    #[test]
    fn absurd_sizes_are_short_and_zero_is_fine() {
        let budget = Budget::of_machine();
        assert!(budget.total() > 1 << 20);
        for bytes in [u64::MAX, 1 << 62, budget.total() + 1] {
            assert!(Region::new(bytes, &budget).is_err(), "{bytes}");
        }
        assert_eq!(Region::new(0, &budget).unwrap().len(), 0);
    }

    #[test]
    fn a_region_without_write_access_can_be_read_and_made_writable_again() {
        let region = Region::new(64, &Budget::of_machine()).unwrap();
        region.set_writable(false).unwrap();
        // SAFETY: the region has 64 readable bytes.
        assert_eq!(unsafe { region.ptr().read() }, 0);
        region.set_writable(true).unwrap();
        // SAFETY: the region has 64 writable bytes.
        unsafe { region.ptr().write(7) };
    }
}
