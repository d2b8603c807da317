//! What needs Unix: the page that parent and worker map, the private descriptor, and ending a process group.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use memmap2::MmapMut;

use crate::exec::Progress;

const PAGE_BYTES: u64 = 4096;

/// A page that two processes map, as a file that goes with it.
pub(super) struct Page {
    file: tempfile::NamedTempFile,
    map: MmapMut,
}

impl Page {
    /// *Errors*: no temporary folder can be written.
    pub fn create() -> io::Result<Page> {
        let memory = Path::new("/dev/shm");
        let builder = tempfile::Builder::new();
        // A file in memory where there is one: the page is written millions of times a second.
        let file = match memory.is_dir().then(|| builder.tempfile_in(memory)) {
            Some(Ok(file)) => file,
            _ => builder.tempfile()?,
        };
        file.as_file().set_len(PAGE_BYTES)?;
        let map = map(file.as_file())?;
        Ok(Page { file, map })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub fn progress(&self) -> &Progress {
        view(&self.map)
    }
}

fn map(file: &File) -> io::Result<MmapMut> {
    // SAFETY: the file is `PAGE_BYTES` long and only ever read and written as the atomics of `Progress`.
    unsafe { memmap2::MmapOptions::new().len(PAGE_BYTES as usize).map_mut(file) }
}

fn view(map: &MmapMut) -> &Progress {
    const { assert!(size_of::<Progress>() <= PAGE_BYTES as usize) };
    // SAFETY: a mapping is page-aligned and longer than `Progress`, which is atomics alone: every bit pattern is one.
    unsafe { &*map.as_ptr().cast::<Progress>() }
}

/// The parent's page, mapped for the life of this process.
pub(super) fn open_page(path: &Path) -> io::Result<&'static Progress> {
    let file = File::options().read(true).write(true).open(path)?;
    if file.metadata()?.len() < PAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is shorter than a page"));
    }
    Ok(view(Box::leak(Box::new(map(&file)?))))
}

/// The descriptor for messages: the parent gives it as standard input, from where it is moved out of a kernel's way.
pub(super) fn event_pipe() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Ends a process group at once.
pub(super) fn kill_group(leader: u32) {
    if let Ok(group) = i32::try_from(leader)
        && group > 1
    {
        // SAFETY: a plain system call; the group is the worker's, which is not yet reaped, so its number is its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// What a signal is called.
pub(super) fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV: it touched memory that is not its own",
        libc::SIGBUS => "SIGBUS: it touched memory that is not there",
        libc::SIGFPE => "SIGFPE: an integer division by zero or overflow",
        libc::SIGILL => "SIGILL: an instruction that this processor lacks",
        libc::SIGABRT => "SIGABRT: it called abort",
        libc::SIGKILL => "SIGKILL: it was killed, by hand or for want of memory",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        _ => return format!("signal {signal}"),
    };
    name.to_string()
}
