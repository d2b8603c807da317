//! What needs Unix: the page that parent and worker map, the private descriptor, and ending a process group.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::OnceLock;

use memmap2::MmapMut;

use crate::exec::Progress;

const PAGE_BYTES: u64 = 8192;

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

    /// Takes the file's name away once the worker has it open: whatever ends this process then leaves nothing behind.
    pub fn unname(&self) {
        // It is gone already, or will be when this value is dropped.
        let _ = std::fs::remove_file(self.file.path());
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

/// The descriptor for messages: the parent gives it as standard input, and a kernel that reads or writes that one
/// finds nothing there. One that looks for the real one can still write to it: this keeps accidents out, not attacks.
pub(super) fn event_pipe() -> io::Result<File> {
    let events = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: both descriptors are open; the old standard input lives on as `events`.
    if unsafe { libc::dup2(nothing.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(events)
}

/// Signals that end a process because of what a thread did.
const FAULTS: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT];

/// The page, and what was done about each of [`FAULTS`] before.
static NOTED: OnceLock<(&Progress, [libc::sigaction; 5])> = OnceLock::new();

/// From now on the page says which lane's thread a fault ended.
pub(super) fn note_crashes(progress: &'static Progress) {
    // SAFETY: all zeros is a value of this plain C struct.
    let mut before: [libc::sigaction; 5] = unsafe { std::mem::zeroed() };
    for (signal, before) in FAULTS.iter().zip(&mut before) {
        // SAFETY: reads what stands, into a struct that outlives the call.
        unsafe { libc::sigaction(*signal, std::ptr::null(), before) };
    }
    if NOTED.set((progress, before)).is_err() {
        return;
    }
    // SAFETY: all zeros is a value of this plain C struct.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    // On a stack of its own where the thread has one: the fault may be that its stack is full.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for signal in FAULTS {
        // SAFETY: the handler only stores to the page and makes calls that are safe in one.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// Notes the lane, then lets the signal do what it did before.
extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let Some((progress, before)) = NOTED.get() else { return };
    progress.note_crash();
    if let Some(at) = FAULTS.iter().position(|of| *of == signal) {
        // SAFETY: `before` is what the system gave; the call is safe in a handler.
        unsafe { libc::sigaction(signal, &raw const before[at], std::ptr::null_mut()) };
    }
    // SAFETY: the system gives a handler with SA_SIGINFO a valid `info`.
    if unsafe { (*info).si_code } <= 0 {
        // It was sent, not caused: it does not come again by itself.
        // SAFETY: safe in a handler; it is delivered when this one returns.
        unsafe { libc::raise(signal) };
    }
}

/// Whether a child has ended; its number stays its own until it is waited for.
pub(super) fn has_ended(child: u32) -> io::Result<bool> {
    // SAFETY: all zeros is a value of this plain C struct.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call, which only looks (WNOWAIT).
    let result = unsafe { libc::waitid(libc::P_PID, child, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // Without an ended child nothing is written.
    Ok(info.si_signo != 0)
}

/// Ends a process group at once. The leader has not been waited for, so that the number is still the group's.
pub(super) fn kill_group(leader: u32) {
    if let Ok(group) = i32::try_from(leader)
        && group > 1
    {
        // SAFETY: a plain system call.
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
