//! NVRTC, found at run time: CUDA C++ -> a cubin, or PTX where the device is newer than NVRTC.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};
use libloading::Library;

use super::api::{driver_version, find, text};

/// The environment variable that names another library.
const LIBRARY: &str = "RUNJOB_NVRTC";

type Code = u32;

macro_rules! functions {
    ($($name:ident: ($($arg:ty),*),)*) => {
        /// The functions of the library; those that it lacks are `None`.
        #[allow(non_snake_case)]
        struct Nvrtc {
            $($name: Option<unsafe extern "C" fn($($arg),*) -> Code>,)*
        }

        impl Nvrtc {
            fn of(library: &'static Library) -> Nvrtc {
                Nvrtc {
                    // SAFETY: a symbol of this name has this type in every version of NVRTC.
                    $($name: unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }.ok().map(|f| *f),)*
                }
            }
        }
    };
}

functions! {
    nvrtcVersion: (*mut c_int, *mut c_int),
    nvrtcGetNumSupportedArchs: (*mut c_int),
    nvrtcGetSupportedArchs: (*mut c_int),
    nvrtcCreateProgram: (*mut nvrtcProgram, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char),
    nvrtcDestroyProgram: (*mut nvrtcProgram),
    nvrtcAddNameExpression: (nvrtcProgram, *const c_char),
    nvrtcCompileProgram: (nvrtcProgram, c_int, *const *const c_char),
    nvrtcGetLoweredName: (nvrtcProgram, *const c_char, *mut *const c_char),
    nvrtcGetProgramLogSize: (nvrtcProgram, *mut usize),
    nvrtcGetProgramLog: (nvrtcProgram, *mut c_char),
    nvrtcGetCUBINSize: (nvrtcProgram, *mut usize),
    nvrtcGetCUBIN: (nvrtcProgram, *mut c_char),
    nvrtcGetPTXSize: (nvrtcProgram, *mut usize),
    nvrtcGetPTX: (nvrtcProgram, *mut c_char),
}

/// A call that failed, in words.
struct Failure {
    call: &'static str,
    code: Code,
}

impl Failure {
    fn is(&self, code: nvrtcResult) -> bool {
        self.code == code as Code
    }

    fn words(&self) -> String {
        match self.code {
            Code::MAX => format!("this NVRTC does not have {}", self.call),
            code => format!("{} failed with code {code}", self.call),
        }
    }
}

/// Calls a function of NVRTC: `nv!(api.nvrtcDestroyProgram(program))`.
macro_rules! nv {
    ($api:ident.$name:ident($($arg:expr),* $(,)?)) => {{
        let code = match $api.$name {
            // SAFETY: the program lives; what is pointed to outlives the call.
            Some(function) => unsafe { function($($arg),*) },
            None => Code::MAX,
        };
        if code == 0 { Ok(()) } else { Err(Failure { call: stringify!($name), code }) }
    }};
}

/// A compiler that was found.
struct Compiler {
    api: Nvrtc,
    version: (u32, u32),
    /// Compute capabilities that it builds for, as `90`, ascending.
    archs: Vec<u32>,
}

/// What helps where there is no NVRTC.
const HELP: &str = "install a CUDA toolkit, or name the library with RUNJOB_NVRTC";

/// The compiler, loaded once and never unloaded. *Errors*: why there is none, and what helps.
fn compiler() -> Result<&'static Compiler, &'static str> {
    static FOUND: OnceLock<Result<Compiler, String>> = OnceLock::new();
    FOUND.get_or_init(|| load().map_err(|why| format!("{why}: {HELP}"))).as_ref().map_err(String::as_str)
}

/// Files of NVRTC, the best first: of the driver's own major version and of those before it, then what a toolkit has, then
/// any. What a newer one builds, an older driver does not load.
fn names() -> Vec<PathBuf> {
    let own = driver_version().map_or(NEWEST, |version| (version / 1000).unsigned_abs().min(NEWEST));
    let of_major = |major: u32| PathBuf::from(format!("libnvrtc.so.{major}"));
    let toolkit = super::program::toolkits().map(|root| root.join("lib64").join("libnvrtc.so"));
    let named = (OLDEST..=own).rev().map(of_major).chain(toolkit).chain([PathBuf::from("libnvrtc.so")]);
    named.chain((own + 1..=NEWEST).map(of_major)).collect()
}

/// Major versions that are looked for by name.
const OLDEST: u32 = 12;
const NEWEST: u32 = 13;

/// Loads what an NVRTC that is named by its path opens by name, which lies beside it: it may look for it elsewhere.
fn load_builtins() {
    let Some(path) = std::env::var_os(LIBRARY).map(PathBuf::from) else { return };
    let beside = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    for file in beside.into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so") {
            // SAFETY: it runs nothing but its own initialisation. What cannot be loaded NVRTC misses itself.
            let _ = unsafe { Library::new(file.path()) }.map(Box::new).map(Box::leak);
        }
    }
}

fn load() -> Result<Compiler, String> {
    load_builtins();
    let names = names();
    let names: Vec<&Path> = names.iter().map(PathBuf::as_path).collect();
    let Some(library) = find(LIBRARY, &names)? else {
        return Err("there is no NVRTC (`libnvrtc.so`), which compiles CUDA C++".into());
    };
    let api = Nvrtc::of(library);
    let said = |failure: Failure| format!("NVRTC does not start: {}", failure.words());
    let (mut major, mut minor, mut count) = (0, 0, 0);
    nv!(api.nvrtcVersion(&mut major, &mut minor)).map_err(said)?;
    nv!(api.nvrtcGetNumSupportedArchs(&mut count)).map_err(said)?;
    let mut archs = vec![0; count.clamp(0, 1024) as usize];
    nv!(api.nvrtcGetSupportedArchs(archs.as_mut_ptr())).map_err(said)?;
    let mut archs: Vec<u32> = archs.into_iter().map(|arch| arch.max(0) as u32).collect();
    archs.sort_unstable();
    Ok(Compiler { api, version: (major as u32, minor as u32), archs })
}

/// The version of the compiler that was found. *Errors*: why there is none, and what helps.
pub(super) fn version() -> Result<(u32, u32), &'static str> {
    compiler().map(|compiler| compiler.version)
}

/// What a compilation gives.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Image {
    /// A cubin, or PTX.
    pub bytes: Vec<u8>,
    /// The symbol of each name expression.
    pub names: BTreeMap<String, String>,
}

/// Why there is no image.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Refused {
    /// The compiler refuses the source, with what it said.
    Source(String),
    /// The compiler does not take the options, with what it said.
    Options(String),
    /// There is no compiler, it builds for no such device, or it broke down.
    Other(String),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused::Other(failure.words())
    }
}

/// The option that names the device: the device itself where the compiler knows it, else the newest that it has of what came
/// before; and whether the result is a cubin. *Errors*: the device is older than all that the compiler knows.
pub(super) fn target(archs: &[u32], arch: (u32, u32)) -> Result<(String, bool), String> {
    let of = arch.0 * 10 + arch.1;
    if archs.contains(&of) {
        return Ok((format!("--gpu-architecture=sm_{of}"), true));
    }
    match archs.iter().rfind(|&&known| known < of) {
        Some(before) => Ok((format!("--gpu-architecture=compute_{before}"), false)),
        None => {
            let first = archs.first().map_or_else(|| "nothing".to_string(), |first| format!("sm_{first} and later"));
            Err(format!("it builds for {first}, the device is sm_{of}: install an older CUDA toolkit"))
        }
    }
}

/// A program, destroyed at its end.
struct Program<'a>(&'a Nvrtc, nvrtcProgram);

impl Drop for Program<'_> {
    fn drop(&mut self) {
        let api = self.0;
        // What it leaves behind is memory.
        let _ = nv!(api.nvrtcDestroyProgram(&mut self.1));
    }
}

fn c_string(text: &str) -> Result<CString, Refused> {
    CString::new(text).map_err(|_| Refused::Other(format!("a zero byte stands in `{}`", text.replace('\0', "\\0"))))
}

/// Compiles CUDA C++ that the compiler's messages call `name`, for a device. An option of `options` that names one wins.
pub(super) fn compile(source: &str, name: &str, options: &[String], expressions: &[String], arch: (u32, u32)) -> Result<Image, Refused> {
    let Compiler { api, version, archs } = compiler().map_err(|why| Refused::Other(why.to_string()))?;
    let own = ["--gpu-architecture", "-arch", "-gencode"];
    let (mut given, mut is_cubin) = (Vec::new(), true);
    match options.iter().find(|option| own.iter().any(|own| option.starts_with(own))) {
        Some(named) => is_cubin = !named.contains("compute_"),
        None => {
            let (option, cubin) = target(archs, arch).map_err(|why| Refused::Other(format!("NVRTC {}.{}: {why}", version.0, version.1)))?;
            given.push(c_string(&option)?);
            is_cubin &= cubin;
        }
    }
    for option in options {
        given.push(c_string(option)?);
    }
    let (source, name) = (c_string(source)?, c_string(name)?);
    let mut raw: nvrtcProgram = null_mut();
    nv!(api.nvrtcCreateProgram(&mut raw, source.as_ptr(), name.as_ptr(), 0, null(), null()))?;
    let program = Program(api, raw);
    let expressions = expressions.iter().map(|e| Ok((e, c_string(e)?))).collect::<Result<Vec<_>, Refused>>()?;
    for (_, expression) in &expressions {
        nv!(api.nvrtcAddNameExpression(program.1, expression.as_ptr()))?;
    }
    if let Err(failure) = compile_apart(&program, &given)? {
        let (size, fetch) = (api.nvrtcGetProgramLogSize, api.nvrtcGetProgramLog);
        let log = bytes(program.1, ("nvrtcGetProgramLog", size, fetch)).map_or(String::new(), |log| text(&log));
        return Err(match () {
            () if failure.is(nvrtcResult::NVRTC_ERROR_COMPILATION) => Refused::Source(log),
            () if failure.is(nvrtcResult::NVRTC_ERROR_INVALID_OPTION) => Refused::Options(log),
            () if failure.is(nvrtcResult::NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID) => Refused::Source(log),
            () => Refused::Other(format!("{}; {log}", failure.words())),
        });
    }
    let mut names = BTreeMap::new();
    for (expression, c) in &expressions {
        let mut lowered = null();
        nv!(api.nvrtcGetLoweredName(program.1, c.as_ptr(), &mut lowered))?;
        if !lowered.is_null() {
            // SAFETY: a string that lives as long as the program.
            let lowered = unsafe { CStr::from_ptr(lowered) }.to_string_lossy().into_owned();
            names.insert(expression.to_string(), lowered);
        }
    }
    let mut image = Vec::new();
    if is_cubin {
        image = bytes(program.1, ("nvrtcGetCUBIN", api.nvrtcGetCUBINSize, api.nvrtcGetCUBIN))?;
    }
    // An option of the user's may have asked for PTX.
    if image.is_empty() {
        image = bytes(program.1, ("nvrtcGetPTX", api.nvrtcGetPTXSize, api.nvrtcGetPTX))?;
    }
    Ok(Image { bytes: image, names })
}

/// Stack for a compilation: large templates take more than threads have. *Units*: bytes.
const STACK: usize = 64 << 20;

/// Compiles a program in a thread that has the stack for it. *Errors*: there is no such thread.
fn compile_apart(program: &Program<'_>, options: &[CString]) -> Result<Result<(), Failure>, Refused> {
    struct Lent<'a>(&'a Program<'a>);
    // SAFETY: the other thread alone uses the program while this one waits for it.
    unsafe impl Send for Lent<'_> {}
    let lent = Lent(program);
    std::thread::scope(|scope| {
        let compile = move || {
            let lent = lent;
            let Program(api, raw) = lent.0;
            let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
            nv!(api.nvrtcCompileProgram(*raw, pointers.len() as c_int, pointers.as_ptr()))
        };
        let thread = std::thread::Builder::new().name("nvrtc".into()).stack_size(STACK).spawn_scoped(scope, compile);
        let thread = thread.map_err(|error| Refused::Other(format!("no thread for NVRTC: {error}")))?;
        thread.join().map_err(|_| Refused::Other("the thread that ran NVRTC ended".into()))
    })
}

type SizeOf = Option<unsafe extern "C" fn(nvrtcProgram, *mut usize) -> Code>;
type Fetch = Option<unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> Code>;

/// What a program gives by a function for its size and one for its bytes.
fn bytes(program: nvrtcProgram, (call, size_of, fetch): (&'static str, SizeOf, Fetch)) -> Result<Vec<u8>, Failure> {
    struct Pair {
        size_of: SizeOf,
        fetch: Fetch,
    }
    let pair = Pair { size_of, fetch };
    let named = |failure: Failure| Failure { call, ..failure };
    let mut len = 0usize;
    nv!(pair.size_of(program, &mut len)).map_err(named)?;
    let mut bytes = vec![0u8; len];
    nv!(pair.fetch(program, bytes.as_mut_ptr().cast())).map_err(named)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_itself_or_what_came_before_it_is_built_for() {
        let archs = [75, 80, 86, 90, 100];
        assert_eq!(target(&archs, (9, 0)), Ok(("--gpu-architecture=sm_90".into(), true)));
        assert_eq!(target(&archs, (8, 9)), Ok(("--gpu-architecture=compute_86".into(), false)));
        assert_eq!(target(&archs, (12, 0)), Ok(("--gpu-architecture=compute_100".into(), false)));
        let why = target(&archs, (7, 0)).unwrap_err();
        assert!(why.contains("sm_75 and later") && why.contains("sm_70"), "{why}");
        assert!(target(&[], (7, 0)).unwrap_err().contains("nothing"));
    }
}
