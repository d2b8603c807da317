//! Kernel sources -> modules, each built once for a device and its forks, from whichever thread asks first, and kept on disk.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::sys::{CUfunction, CUjit_option, CUmodule, CUresult};

use super::api::{Called, Failure, cu, driver_version, text};
use super::kernel::Loaded;
use super::nvrtc::{self, Image, Refused};
use super::types::{Type, parameters};
use super::{Driver, scan};
use crate::device::near::among;
use crate::device::{Builder, Code, DeviceError, KernelSource, Result, store};

/// Changes when the meaning of what is stored changes.
const VERSION: &str = "1";

/// A template over the type of a kernel, whose symbol tells the types of its parameters.
const TYPES: &str = "runjob_types";

/// What is made, by whoever asks first, or why it cannot be.
type Made<T> = Arc<OnceLock<Result<Arc<T>>>>;

/// What is made once for every key.
struct Once<T>(Mutex<HashMap<blake3::Hash, Made<T>>>);

impl<T> Once<T> {
    fn get(&self, key: blake3::Hash, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = Arc::clone(all().entry(key).or_default());
        let made = cell.get_or_init(|| make().map(Arc::new)).clone();
        // What a compiler says stays; what a machine is short of may pass.
        if !matches!(made, Ok(_) | Err(DeviceError::Build { .. } | DeviceError::Unusable { .. })) {
            all().remove(&key);
        }
        made
    }
}

/// Builds the modules of a device and its forks.
pub(super) struct Workshop {
    driver: Arc<Driver>,
    images: Images,
    modules: Once<Module>,
}

/// What is compiled for a kind of device.
pub(super) struct Images {
    arch: (u32, u32),
    made: Once<Image>,
    /// Where images are kept between runs.
    folder: Option<PathBuf>,
}

/// Where a kernel is in an image.
pub(super) struct Entry {
    pub image: Arc<Image>,
    pub symbol: String,
    /// What tells the types of its parameters, where that is known.
    pub types: Option<Vec<Type>>,
}

/// A module that is loaded into the device's context.
pub(super) struct Module {
    raw: CUmodule,
    driver: Arc<Driver>,
}

// SAFETY: a module is a handle, which CUDA lets any thread use.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        let api = self.driver.api;
        self.driver.release(|| cu!(api.cuModuleUnload(self.raw)));
    }
}

/// What is built, and how messages call it.
struct Input {
    source: String,
    shown: String,
    options: Vec<String>,
    /// Kernels that the source seems to define.
    kernels: Vec<String>,
    /// Of the source and all that it includes; `None` where that cannot be known.
    headers: Option<blake3::Hash>,
}

impl Workshop {
    pub fn new(driver: Arc<Driver>) -> Workshop {
        let images = Images::new(driver.found.arch, driver.options.cache.clone());
        Workshop { driver, images, modules: Once(Mutex::default()) }
    }

    /// Builds a kernel's module, and makes what can be launched of it.
    ///
    /// *Errors*: `Build` with the compiler's messages, or with how the source disagrees with the spec.
    pub fn load(&self, kernel: &KernelSource) -> Result<Loaded> {
        let Entry { image, symbol, types } = self.images.entry(kernel)?;
        let module = self.modules.get(blake3::hash(&image.bytes), || Module::new(&self.driver, kernel, &image));
        let module = module.map_err(|error| named(error, kernel))?;
        let Some(function) = module.function(kernel, &symbol)? else {
            return Err(no_kernel(kernel, &module.names().unwrap_or_else(|| symbols(&image.bytes))));
        };
        Loaded::new(&self.driver, module, function, kernel, types.as_deref())
    }
}

impl Images {
    pub fn new(arch: (u32, u32), folder: Option<PathBuf>) -> Images {
        let folder = store::folder(folder).map(|folder| folder.join(format!("cuda-{VERSION}")));
        Images { arch, made: Once(Mutex::default()), folder }
    }

    /// Where a kernel is.
    ///
    /// *Errors*: `Build` with the compiler's messages; `Unusable`.
    pub fn entry(&self, kernel: &KernelSource) -> Result<Entry> {
        if let Some(image) = built(kernel)? {
            return Ok(Entry { image: Arc::new(image), symbol: kernel.entry.clone(), types: None });
        }
        let input = input(kernel)?;
        let entry = &kernel.entry;
        let is_symbol = entry.starts_with("_Z");
        let last = |name: &String| name.rsplit("::").next() == Some(entry.as_str());
        let spelled = input.kernels.iter().find(|name| *name == entry).or_else(|| input.kernels.iter().find(|name| last(name)));
        let spelled = spelled.unwrap_or(entry);
        let types = |name: &str| format!("{TYPES}<decltype({name})>");
        let named = |names: &[&String]| names.iter().flat_map(|name| [name.to_string(), types(name)]).collect::<Vec<_>>();
        // Kernels of one source share a module, and with it what is global there, if it is their names that are asked for.
        let all: Vec<&String> = input.kernels.iter().collect();
        let ladder = match () {
            () if is_symbol => vec![Vec::new()],
            () if all.contains(&spelled) => vec![named(&all), named(&[spelled])],
            () => vec![named(&[spelled]), vec![spelled.clone()]],
        };
        let mut refusal = None;
        for expressions in ladder {
            match self.compiled(kernel, &input, &expressions) {
                Ok(image) => {
                    let symbol = if is_symbol { entry.clone() } else { image.names.get(spelled).unwrap_or(entry).clone() };
                    let types = image.names.get(&types(spelled)).and_then(|types| parameters(types, TYPES));
                    return Ok(Entry { image, symbol, types });
                }
                Err(error @ DeviceError::Build { .. }) => drop(refusal.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        // The names may be what is wrong: what the compiler says of the source itself is what counts.
        let image = self.compiled(kernel, &input, &[])?;
        let symbols = symbols(&image.bytes);
        if symbols.contains(entry) || is_symbol || refusal.is_none() {
            return Ok(Entry { image, symbol: entry.clone(), types: None });
        }
        let mut names: Vec<String> = input.kernels.clone();
        names.extend(symbols.into_iter().filter(|symbol| !symbol.starts_with("_Z") && !input.kernels.contains(symbol)));
        Err(no_kernel(kernel, &names))
    }

    /// An image of a source with these names asked for.
    fn compiled(&self, kernel: &KernelSource, input: &Input, expressions: &[String]) -> Result<Arc<Image>> {
        let arch = self.arch;
        let mut hasher = blake3::Hasher::new();
        let version = nvrtc::version().map_err(|why| unusable(kernel, format!("CUDA C++ cannot be compiled: {why}"), String::new()))?;
        hasher.update(format!("{VERSION} {version:?} {arch:?} {:?} {expressions:?} {}\n", input.options, input.shown).as_bytes());
        hasher.update(input.source.as_bytes());
        let key = hasher.finalize();
        let compile = || {
            let stored = input.headers.as_ref().zip(self.folder.as_ref()).map(|(headers, folder)| {
                let name = blake3::hash(&[*key.as_bytes(), *headers.as_bytes()].concat());
                folder.join(format!("{}.image", name.to_hex()))
            });
            if let Some(image) = stored.as_deref().and_then(read_image) {
                return Ok(image);
            }
            let image =
                nvrtc::compile(&input.source, &input.shown, &input.options, expressions, arch).map_err(|why| refused(kernel, why))?;
            if let Some(path) = stored {
                // What is not kept is compiled again.
                let _ = write_image(&path, &image);
            }
            Ok(image)
        };
        self.made.get(key, compile).map_err(|error| named(error, kernel))
    }
}

impl Builder for Workshop {
    fn build(&self, kernel: &KernelSource, _: &AtomicBool) -> Result<()> {
        self.images.entry(kernel).map(|_| ())
    }
}

/// Bytes for what the driver's own compiler says.
const MOST_SAID: usize = 16 << 10;

impl Module {
    fn new(driver: &Arc<Driver>, kernel: &KernelSource, image: &Image) -> Result<Module> {
        driver.enter()?;
        let api = driver.api;
        // PTX is text, which ends with a zero byte.
        let bytes = [image.bytes.as_slice(), &[0]].concat();
        let mut said = vec![0u8; MOST_SAID];
        let mut options = [CUjit_option::CU_JIT_ERROR_LOG_BUFFER as u32, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES as u32];
        // A number is passed as the address that it would be.
        let mut values: [*mut c_void; 2] = [said.as_mut_ptr().cast(), std::ptr::without_provenance_mut(MOST_SAID)];
        let mut raw: CUmodule = null_mut();
        let loaded = cu!(api.cuModuleLoadDataEx(&mut raw, bytes.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr()));
        let Err(failure) = loaded else { return Ok(Module { raw, driver: Arc::clone(driver) }) };
        Err(not_loaded(kernel, failure, text(&said)))
    }

    /// The function of a symbol; `None` where there is none.
    fn function(&self, kernel: &KernelSource, symbol: &str) -> Result<Option<CUfunction>> {
        self.driver.enter()?;
        let api = self.driver.api;
        let Ok(name) = CString::new(symbol) else { return Ok(None) };
        let mut function: CUfunction = null_mut();
        match cu!(api.cuModuleGetFunction(&mut function, self.raw, name.as_ptr())) {
            Ok(()) => Ok(Some(function)),
            Err(failure) if failure.is(CUresult::CUDA_ERROR_NOT_FOUND) => Ok(None),
            // Drivers may load a module when its first function is asked for.
            Err(failure) => Err(not_loaded(kernel, failure, String::new())),
        }
    }

    /// The symbols of all functions, where the driver tells them.
    fn names(&self) -> Option<Vec<String>> {
        let api = self.driver.api;
        let ask = || -> Called<Vec<String>> {
            let mut count = 0;
            cu!(api.cuModuleGetFunctionCount(&mut count, self.raw))?;
            let mut functions = vec![null_mut(); count as usize];
            cu!(api.cuModuleEnumerateFunctions(functions.as_mut_ptr(), count, self.raw))?;
            let name = |function| {
                let mut name = null();
                cu!(api.cuFuncGetName(&mut name, function))?;
                // SAFETY: the driver gave a string that lives as long as the module, or null.
                let name = (!name.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(name) });
                Ok(name.map_or(String::new(), |name| name.to_string_lossy().into_owned()))
            };
            functions.into_iter().map(name).collect()
        };
        ask().ok().map(|names| names.into_iter().filter(|name| !name.contains(TYPES)).collect())
    }
}

/// The error of an image that the driver does not load.
fn not_loaded(kernel: &KernelSource, failure: Failure, log: String) -> DeviceError {
    let message = format!("{} failed: {}", failure.call, super::api::words(failure.code));
    let newer = || {
        let compiler = nvrtc::version().ok().filter(|_| !is_built(&kernel.code))?;
        let driver = driver_version().filter(|driver| compiler.0 as i32 > driver / 1000)?;
        let (major, minor) = (driver / 1000, driver % 1000 / 10);
        Some(format!(
            "; NVRTC {}.{} is newer than the driver's CUDA {major}.{minor}: name an older one with RUNJOB_NVRTC",
            compiler.0, compiler.1
        ))
    };
    match () {
        () if failure.is(CUresult::CUDA_ERROR_INVALID_PTX) => build_error(kernel, format!("the driver refuses the PTX: {message}"), log),
        () if failure.is_loss() || failure.is(CUresult::CUDA_ERROR_OUT_OF_MEMORY) => failure.into(),
        () => {
            let hint = newer().unwrap_or_default();
            unusable(kernel, format!("the driver does not load what was built: {message}{hint}"), log)
        }
    }
}

fn no_kernel(kernel: &KernelSource, names: &[String]) -> DeviceError {
    let hint = if names.is_empty() { "; it has none at all".to_string() } else { among(&kernel.entry, names) };
    build_error(kernel, format!("the source has no kernel `{}`{hint}", kernel.entry), String::new())
}

/// The error of what NVRTC refuses.
fn refused(kernel: &KernelSource, why: Refused) -> DeviceError {
    match why {
        Refused::Source(log) => {
            let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
            let first = lines.iter().map(|line| line.trim()).find(|line| line.contains("error"));
            build_error(kernel, first.unwrap_or("NVRTC refuses the source"), lines.join("\n"))
        }
        Refused::Options(log) => {
            let given = kernel.flags.join(" ");
            unusable(kernel, format!("NVRTC does not take `flags`: {given}"), log)
        }
        Refused::Other(why) => unusable(kernel, format!("CUDA C++ cannot be compiled: {why}"), String::new()),
    }
}

/// The error of an image that several kernels share, in the name of one.
fn named(error: DeviceError, kernel: &KernelSource) -> DeviceError {
    match error {
        DeviceError::Build { message, log, .. } => DeviceError::Build { kernel: kernel.name.clone(), message, log },
        DeviceError::Unusable { message, log, .. } => unusable(kernel, message, log),
        other => other,
    }
}

pub(super) fn build_error(kernel: &KernelSource, message: impl Into<String>, log: String) -> DeviceError {
    DeviceError::Build { kernel: kernel.name.clone(), message: message.into(), log }
}

/// A kernel that cannot be used here, though no compiler refused it.
pub(super) fn unusable(kernel: &KernelSource, message: impl Into<String>, log: String) -> DeviceError {
    DeviceError::Unusable { kernel: kernel.name.clone(), message: message.into(), log }
}

fn read(kernel: &KernelSource, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| unusable(kernel, format!("cannot read `{}`: {error}", path.display()), String::new()))
}

/// A file that is built already, with its suffix.
fn built_file(code: &Code) -> Option<(&Path, &str)> {
    let Code::File(path) = code else { return None };
    let suffix = path.extension().and_then(|suffix| suffix.to_str()).filter(|suffix| ["ptx", "cubin", "fatbin"].contains(suffix));
    suffix.map(|suffix| (path.as_path(), suffix))
}

/// Whether no compiler is needed.
pub(super) fn is_built(code: &Code) -> bool {
    built_file(code).is_some()
}

/// The image of a kernel that is built already. *Errors*: it is told what only a compiler takes.
fn built(kernel: &KernelSource) -> Result<Option<Image>> {
    let Some((path, suffix)) = built_file(&kernel.code) else { return Ok(None) };
    for (given, what) in [(kernel.defines.is_empty(), "defines"), (kernel.flags.is_empty(), "flags")] {
        if !given {
            let message = format!("a .{suffix} file takes no `{what}`: they were given when it was made");
            return Err(unusable(kernel, message, String::new()));
        }
    }
    Ok(Some(Image { bytes: read(kernel, path)?, names: BTreeMap::new() }))
}

/// A name as a string of C.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Folders in which a toolkit may be.
pub(super) fn toolkits() -> impl Iterator<Item = PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).filter(|path| !path.is_empty());
    named.map(PathBuf::from).chain([PathBuf::from("/usr/local/cuda")])
}

/// Folders in which a toolkit has its headers; from CUDA 13 on, those of its C++ libraries lie a folder deeper.
fn toolkit() -> Vec<PathBuf> {
    let include = toolkits().map(|root| root.join("include")).find(|folder| folder.is_dir());
    include.into_iter().flat_map(|folder| [folder.join("cccl"), folder]).filter(|folder| folder.is_dir()).collect()
}

/// *Errors*: a source that cannot be read.
fn input(kernel: &KernelSource) -> Result<Input> {
    let (own, shown, line, beside) = match &kernel.code {
        Code::Builtin(_) => return Err(DeviceError::Unsupported(format!("kernel `{}` is one of the CPU's own", kernel.name))),
        Code::File(path) => (read(kernel, path)?, path.display().to_string(), 1, path.parent()),
        Code::Text(text) => match text.line {
            Some(line) => (text.text.clone().into_bytes(), text.path.display().to_string(), line, text.path.parent()),
            None => (text.text.clone().into_bytes(), format!("text of kernel `{}`", kernel.name), 1, text.path.parent()),
        },
    };
    let own = String::from_utf8(own).map_err(|_| unusable(kernel, format!("`{shown}` is not UTF-8"), String::new()))?;
    let mut source = String::new();
    for (name, value) in &kernel.defines {
        let _ = writeln!(source, "#define {name} {value}");
    }
    let _ = writeln!(source, "#line {line} {}", quoted(&shown));
    source.push_str(&own);
    let _ = write!(source, "\n#line 1 \"runjob\"\ntemplate <class {TYPES}_of> __global__ void {TYPES}() {{}}\n");
    let beside = beside.map(|folder| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() });
    let folders: Vec<PathBuf> = beside.into_iter().chain(kernel.include.iter().cloned()).chain(toolkit()).collect();
    let mut options: Vec<String> = folders.iter().map(|folder| format!("--include-path={}", folder.display())).collect();
    if !kernel.flags.iter().any(|flag| flag.starts_with("-std") || flag.starts_with("--std")) {
        options.push("--std=c++17".into());
    }
    options.extend(kernel.flags.iter().cloned());
    let headers = headers(&own, &folders);
    Ok(Input { source, shown, options, kernels: scan::kernels(&own), headers })
}

/// The contents of all files that a source includes, and that they include; `None` where a macro names one.
fn headers(source: &str, folders: &[PathBuf]) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut waiting: Vec<(String, Option<PathBuf>)> = vec![(source.to_string(), None)];
    while let Some((text, folder)) = waiting.pop() {
        for (name, quoted) in scan::includes(&text)? {
            let own = folder.iter().filter(|_| quoted);
            // What is nowhere is NVRTC's own.
            let Some(path) = own.chain(folders).map(|folder| folder.join(&name)).find(|path| path.is_file()) else { continue };
            if seen.contains(&path) {
                continue;
            }
            let bytes = fs::read(&path).ok()?;
            hasher.update(path.as_os_str().as_encoded_bytes()).update(blake3::hash(&bytes).as_bytes());
            waiting.push((String::from_utf8_lossy(&bytes).into_owned(), path.parent().map(Path::to_path_buf)));
            seen.push(path);
        }
    }
    Some(hasher.finalize())
}

/// The functions of a cubin; none of what is no cubin.
fn symbols(bytes: &[u8]) -> Vec<String> {
    use object::{Object as _, ObjectSymbol as _};
    let Ok(file) = object::File::parse(bytes) else { return Vec::new() };
    let functions = file.symbols().filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.is_global());
    functions.filter_map(|symbol| symbol.name().ok().map(String::from)).filter(|name| !name.contains(TYPES)).collect()
}

/// An image that was kept, if it is there and whole.
fn read_image(path: &Path) -> Option<Image> {
    let file = fs::read(path).ok()?;
    let end = file.iter().position(|&byte| byte == b'\n')?;
    let (sum, names): (String, BTreeMap<String, String>) = serde_json::from_slice(&file[..end]).ok()?;
    let bytes = file[end + 1..].to_vec();
    (blake3::hash(&bytes).to_hex().as_str() == sum).then_some(Image { bytes, names })
}

fn write_image(path: &Path, image: &Image) -> std::io::Result<()> {
    let head = (blake3::hash(&image.bytes).to_hex().to_string(), &image.names);
    let mut file = serde_json::to_vec(&head)?;
    file.push(b'\n');
    file.extend_from_slice(&image.bytes);
    store::write_atomically(path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_image_is_found_until_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("a.image");
        let image = Image { bytes: vec![1, 10, 2, 0], names: BTreeMap::from([("f<int>".to_string(), "_Z1fIiEvv".to_string())]) };
        assert_eq!(read_image(&path), None);
        write_image(&path, &image).unwrap();
        assert_eq!(read_image(&path), Some(image));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(read_image(&path), None);
    }

    #[test]
    fn what_a_header_says_counts_wherever_it_is_included() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_path_buf()];
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.h", "#include \"b.h\"\n");
        write("b.h", "int b;\n");
        let source = "#include \"a.h\"\n#include <cuda_fp16.h>\n";
        let first = headers(source, &folders).unwrap();
        assert_eq!(headers(source, &folders), Some(first));
        write("b.h", "int c;\n");
        assert_ne!(headers(source, &folders), Some(first));
        assert_eq!(headers("#include NAME\n", &folders), None);
    }
}
