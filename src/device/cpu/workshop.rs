//! Turns kernels into entries: reads sources, builds each once from whichever thread asks first, and loads what was built.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::cache::Cache;
use super::compile::{Built, Task, unusable};
use super::prebuilt::{self, Prebuilt};
use super::shim::{self, Callee, Entry, HERE, HERE_ADDRESS, KERNEL_ADDRESS, SourceText};
use super::tools::Tools;
use super::{float_mode, rust};
use crate::device::{Builder, Code, DeviceError, KernelSource, Result, Text};
use crate::tensor::Lang;

/// Builds and loads the kernels of a device and its forks.
pub(super) struct Workshop {
    pub cache: Cache,
    pub tools: Tools,
    /// What a kernel built for this processor depends on.
    pub processor: String,
    /// What was built, or is being built, and not loaded yet.
    ahead: Mutex<HashMap<blake3::Hash, Arc<OnceLock<Result<Built>>>>>,
}

/// Nobody stops what has this.
static NEVER: AtomicBool = AtomicBool::new(false);

impl Workshop {
    pub fn new(cache: Cache, tools: Tools, processor: String) -> Workshop {
        Workshop { cache, tools, processor, ahead: Mutex::default() }
    }

    /// What has to be compiled for a kernel, and the built object that it is in, if it is.
    fn task(&self, kernel: &KernelSource) -> Result<(Task, Option<Prebuilt>)> {
        let path = match &kernel.code {
            Code::File(path) => path,
            Code::Text(text) => &text.path,
            Code::Builtin(_) => return Err(DeviceError::Unsupported(format!("kernel `{}` needs no building", kernel.name))),
        };
        let suffix = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        if matches!(kernel.code, Code::File(_)) && prebuilt::SUFFIXES.contains(&suffix) {
            let object = prebuilt::read(kernel, path, &self.cache)?;
            let unit = shim::unit(kernel, Callee::Address { object: &object.identity, asks: object.asks })?;
            let none = SourceText { text: String::new(), lang: Lang::C, shown: String::new(), line: 1, file: None };
            let compiler = self.tools.get(Lang::C, &self.cache).map_err(|error| match error {
                DeviceError::Unsupported(message) => DeviceError::Unsupported(format!(
                    "kernel `{}` is built, but how it is called has to be compiled: {message}",
                    kernel.name
                )),
                other => other,
            })?;
            // Neither flags nor defines are the shim's.
            let plain = KernelSource { flags: Vec::new(), defines: Vec::new(), include: Vec::new(), ..kernel.clone() };
            return Ok((Task::new(&plain, compiler, None, &self.processor, unit, &none, &object.path), Some(object)));
        }
        let source = match &kernel.code {
            Code::Text(text) => of_text(kernel, text),
            _ => read_source(kernel, path)?,
        };
        let compiler = self.tools.get(source.lang, &self.cache)?;
        let (unit, linker) = match source.lang {
            Lang::Rust => (rust::unit(kernel, &source)?, self.tools.get(Lang::C, &self.cache).ok().filter(|c| c.args.is_empty())),
            Lang::C | Lang::Cxx => (shim::unit(kernel, Callee::Source(&source))?, None),
        };
        Ok((Task::new(kernel, compiler, linker, &self.processor, unit, &source, path), None))
    }

    fn make(&self, kernel: &KernelSource, task: &Task, stop: &AtomicBool) -> Result<Built> {
        match self.cache.find(&task.key) {
            Some(path) => Ok(Built { path, folder: None, cached: true }),
            None => task.compile(kernel, &self.cache, stop),
        }
    }

    /// Builds a kernel unless it was built ahead, and loads it; what was loaded stays so for the life of the process.
    ///
    /// *Errors*: `Build` with the compiler's messages, in terms of the user's file.
    ///
    /// # Safety
    /// Loading runs the object's constructors, calling the entry runs the kernel: both are the user's code.
    pub unsafe fn load(&self, kernel: &KernelSource) -> Result<Entry> {
        let (task, object) = self.task(kernel)?;
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).remove(&task.key);
        let built = match ahead {
            Some(cell) => cell.get_or_init(|| self.make(kernel, &task, &NEVER)).clone()?,
            None => self.make(kernel, &task, &NEVER)?,
        };
        let kernel_address = match &object {
            // SAFETY: promised by the caller.
            Some(object) => Some(unsafe { Addresses::of(kernel, object) }?),
            None => None,
        };
        let symbol = &task.unit.symbol;
        // SAFETY: promised by the caller.
        let entry = match unsafe { open(&built.path, symbol, kernel_address.as_ref()) } {
            // The system refuses what the cache had.
            Err(_) if built.cached => {
                let Built { path, folder, .. } = task.compile(kernel, &self.cache, &NEVER)?;
                // SAFETY: promised by the caller.
                let entry = unsafe { open(&path, symbol, kernel_address.as_ref()) };
                drop(folder);
                entry
            }
            other => other,
        };
        drop(built.folder);
        entry.map_err(|message| unusable(kernel, format!("the compiled kernel cannot be loaded: {message}")))
    }
}

impl Builder for Workshop {
    fn build(&self, kernel: &KernelSource, stop: &AtomicBool) -> Result<()> {
        if matches!(kernel.code, Code::Builtin(_)) {
            return Ok(());
        }
        let (task, _) = self.task(kernel)?;
        let cell = Arc::clone(self.ahead.lock().unwrap_or_else(PoisonError::into_inner).entry(task.key).or_default());
        // Threads that want the same wait for the first of them.
        let result = cell.get_or_init(|| self.make(kernel, &task, stop)).clone();
        if stop.load(Ordering::Relaxed) {
            self.ahead.lock().unwrap_or_else(PoisonError::into_inner).remove(&task.key);
        }
        result.map(|_| ())
    }
}

/// The source of a text in another file.
fn of_text(kernel: &KernelSource, text: &Text) -> SourceText {
    let shown = match text.line {
        Some(_) => text.path.display().to_string(),
        None => format!("text of kernel `{}`", kernel.name),
    };
    SourceText { text: text.text.clone(), lang: text.lang.unwrap_or(Lang::C), shown, line: text.line.unwrap_or(1), file: None }
}

fn read_source(kernel: &KernelSource, path: &Path) -> Result<SourceText> {
    let shown = path.display().to_string();
    let error = |message: String| unusable(kernel, message);
    let suffix = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let Some(lang) = Lang::of_suffix(suffix) else {
        let known = Lang::ALL.map(|lang| lang.suffixes().iter().map(|s| format!(".{s}")).collect::<Vec<_>>().join(" ")).join(", ");
        return Err(DeviceError::Unsupported(format!("kernel `{}`: `{shown}` is no source for the CPU ({known}, .so)", kernel.name)));
    };
    let mut bytes = fs::read(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => error(format!("the source `{shown}` does not exist")),
        io::ErrorKind::IsADirectory => error(format!("the source `{shown}` is a folder")),
        _ => error(format!("the source `{shown}` cannot be read: {e}")),
    })?;
    // A mark of the encoding is known at a file's start alone, and the source is put behind other lines.
    let marked = bytes.starts_with(b"\xEF\xBB\xBF");
    if marked {
        bytes.drain(..3);
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        error(format!("the source `{shown}` is not UTF-8 at line {line}"))
    })?;
    Ok(SourceText { text, lang, shown, line: 1, file: (!marked).then(|| path.to_path_buf()) })
}

/// Where a built object has what its shim calls.
struct Addresses {
    kernel: *mut c_void,
    here: *mut c_void,
}

impl Addresses {
    /// Loads the object.
    ///
    /// # Safety
    /// Runs the constructors of the object.
    unsafe fn of(kernel: &KernelSource, object: &Prebuilt) -> Result<Addresses> {
        let failed = |message: String| unusable(kernel, format!("the object cannot be loaded: {message}"));
        // SAFETY: promised by the caller.
        let library = unsafe { library(&object.path) }.map_err(failed)?;
        // SAFETY: an address is taken, nothing is called. The object was read: it has the symbol itself, so that it is
        // found there before any of the libraries that it needs.
        let address =
            |symbol: &str| unsafe { library.get::<*mut c_void>(symbol.as_bytes()) }.map(|s| s.as_raw_ptr()).map_err(|e| reason(&e));
        let kernel = address(&kernel.entry).map_err(failed)?;
        let here = if object.asks { address(HERE).map_err(failed)? } else { std::ptr::null_mut() };
        // What it has stays callable: the library is never closed.
        std::mem::forget(library);
        Ok(Addresses { kernel, here })
    }
}

/// What the system says of a failure.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Loads an object: all that it needs is bound at once, and its symbols are no other object's.
///
/// # Safety
/// Runs the constructors of the object.
unsafe fn library(path: &Path) -> std::result::Result<Library, String> {
    let path: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    // SAFETY: promised by the caller.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }.map_err(|e| reason(&e));
    float_mode::restore();
    library
}

/// # Safety
/// Runs the constructors of the object; the symbol is an [`Entry`], and where there are addresses, the object has
/// variables for them.
unsafe fn open(object: &Path, symbol: &str, addresses: Option<&Addresses>) -> std::result::Result<Entry, String> {
    // SAFETY: promised by the caller.
    let library = unsafe { library(object) }?;
    if let Some(addresses) = addresses {
        for (suffix, address) in [(KERNEL_ADDRESS, addresses.kernel), (HERE_ADDRESS, addresses.here)] {
            let name = format!("{symbol}{suffix}");
            // SAFETY: the shim defines the symbol as a variable of a pointer's size.
            let variable = unsafe { library.get::<*mut c_void>(name.as_bytes()) }.map_err(|e| reason(&e))?;
            let variable = variable.as_raw_ptr().cast::<*mut c_void>();
            // SAFETY: as above. Where it has its value another thread may be reading it.
            unsafe {
                if variable.read() != address {
                    variable.write(address);
                }
            }
        }
    }
    // SAFETY: the shim defines the symbol with this type.
    let entry = unsafe { library.get::<Entry>(symbol.as_bytes()) }.map(|s| *s).map_err(|e| reason(&e));
    // Entries stay callable: the library is never closed.
    std::mem::forget(library);
    entry
}
