//! Turns a kernel's text into a shared object: flags, the key of the cache, and the compiler's run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use tempfile::TempDir;

use super::cache::{Cache, listed_files};
use super::explain::{clean, explain};
use super::run::run;
use super::shim::{HEADER, SourceText, Unit};
use super::tools::Compiler;
use crate::device::store::write_atomically;
use crate::device::{DeviceError, KernelSource, Result};
use crate::tensor::Lang;

/// Given to C and C++ compilers before the user's own flags. Contraction of `a * b + c` is left as the compiler has it: on
/// where the processor fuses them; a kernel that must not be contracted says `-ffp-contract=off`.
const FLAGS: [&str; 7] = ["-O3", "-fno-math-errno", "-fPIC", "-shared", "-fvisibility=hidden", "-fdiagnostics-color=never", "-pipe"];

/// Given to rustc before the user's own flags.
const RUST_FLAGS: [&str; 18] = [
    "--edition",
    "2024",
    "--crate-type",
    "cdylib",
    "--crate-name",
    "kernel",
    "-C",
    "opt-level=3",
    "-C",
    "target-cpu=native",
    "-C",
    "panic=abort",
    "-C",
    "codegen-units=1",
    "-C",
    "strip=debuginfo",
    "--color",
    "never",
];

/// Builds for the processor it runs on.
const NATIVE: &str = if cfg!(target_arch = "aarch64") { "-mcpu=native" } else { "-march=native" };

/// Every symbol must be found when linking; and the libraries that C kernels expect.
const LINK: &[&str] = if cfg!(target_os = "linux") { &["-Wl,-z,defs", "-Wl,-z,now", "-lm"] } else { &["-lm"] };

/// One compilation.
pub(super) struct Task {
    pub compiler: Compiler,
    pub unit: Unit,
    pub flags: Vec<String>,
    /// The text for messages about functions that are not there.
    pub source: String,
    pub key: blake3::Hash,
}

/// A shared object that was compiled or found.
#[derive(Clone)]
pub(super) struct Built {
    pub path: PathBuf,
    /// Where it lies, if the cache does not keep it.
    pub folder: Option<Arc<TempDir>>,
    pub cached: bool,
}

/// A kernel that cannot be used, though no compiler refused it.
pub(super) fn unusable(kernel: &KernelSource, message: impl Into<String>) -> DeviceError {
    DeviceError::Unusable { kernel: kernel.name.clone(), message: message.into(), log: String::new() }
}

/// Whether a compiler that failed says nothing of the kernel: it was ended, names no error, broke down, or lacks a part of
/// itself.
fn broke_down(status: ExitStatus, log: &str) -> bool {
    const SAYS: [&str; 14] = [
        "internal compiler error",
        "compiler unexpectedly panicked",
        "terminated program",
        "unable to execute command",
        "failed due to signal",
        "fatal error: cannot execute",
        "cannot find 'ld'",
        "No space left on device",
        "File too large",
        "Cannot allocate memory",
        "virtual memory exhausted",
        "out of memory allocating",
        "memory allocation of",
        "error: linker `",
    ];
    // Lines of the source are quoted behind a bar.
    let mut own = log.lines().filter(|line| !line.contains(" | "));
    status.code().is_none() || !log.contains("error") || own.any(|line| SAYS.iter().any(|text| line.contains(text)))
}

/// The flags that depend on the kernel, in the order they are given. `linker` is for Rust.
pub(super) fn flags(kernel: &KernelSource, lang: Lang, path: &Path, linker: Option<&Compiler>) -> Vec<String> {
    if lang == Lang::Rust {
        let mut flags: Vec<String> = RUST_FLAGS.iter().map(|f| f.to_string()).collect();
        if let Some(linker) = linker {
            flags.extend(["-C".to_string(), format!("linker={}", linker.program.display())]);
        }
        flags.extend(kernel.flags.iter().cloned());
        return flags;
    }
    let mut flags = vec![if lang == Lang::Cxx { "-std=gnu++17" } else { "-std=gnu11" }.to_string()];
    flags.extend(FLAGS.iter().map(|f| f.to_string()));
    flags.push(NATIVE.to_string());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.display().to_string(),
        _ => ".".to_string(),
    };
    // As if the source were compiled where it lies.
    flags.extend(["-iquote".to_string(), folder.clone()]);
    flags.extend(kernel.include.iter().map(|include| format!("-I{}", include.display())));
    flags.push(format!("-I{folder}"));
    flags.extend(kernel.defines.iter().map(|(name, text)| format!("-D{name}={text}")));
    flags.extend(kernel.flags.iter().cloned());
    flags
}

/// Everything that decides what the object is, except the contents of headers.
pub(super) fn key(compiler: &Compiler, native: &str, unit: &Unit, flags: &[String], path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let folder = std::path::absolute(path).ok().and_then(|p| Some(p.parent()?.display().to_string())).unwrap_or_default();
    let here = std::env::current_dir().map(|p| p.display().to_string()).unwrap_or_default();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(compiler.lang.name());
    add(&compiler.program.display().to_string());
    add(&compiler.identity);
    add(native);
    // Relative folders in the flags are meant from here.
    add(&here);
    add(&folder);
    add(HEADER);
    for (name, text) in &unit.files {
        add(name);
        add(text);
    }
    compiler.args.iter().map(String::as_str).chain(flags.iter().map(String::as_str)).chain(LINK.iter().copied()).for_each(add);
    hasher.finalize()
}

impl Task {
    pub fn new(
        kernel: &KernelSource,
        compiler: &Compiler,
        linker: Option<&Compiler>,
        native: &str,
        unit: Unit,
        of: &SourceText,
        path: &Path,
    ) -> Task {
        let flags = flags(kernel, compiler.lang, path, linker);
        let key = key(compiler, native, &unit, &flags, path);
        Task { compiler: compiler.clone(), unit, flags, source: of.text.clone(), key }
    }

    /// Compiles, and keeps what comes of it in the cache. *Errors*: `Build` with the compiler's messages, in terms of the
    /// user's file; `Unusable` where it did not come to judge the kernel.
    pub fn compile(&self, kernel: &KernelSource, cache: &Cache, stop: &AtomicBool) -> Result<Built> {
        let (folder, object) = match self.compile_in(kernel, cache, stop, false) {
            Err(DeviceError::Unusable { log, .. }) if log.contains("No space left on device") => {
                self.compile_in(kernel, cache, stop, true)?
            }
            other => other?,
        };
        Ok(match cache.keep(&self.key, &object.path, &object.deps, object.started) {
            Some(path) => Built { path, folder: None, cached: false },
            None => Built { path: object.path, folder: Some(Arc::new(folder)), cached: false },
        })
    }

    fn compile_in(&self, kernel: &KernelSource, cache: &Cache, stop: &AtomicBool, elsewhere: bool) -> Result<(TempDir, Object)> {
        let failed = |what: &str, e: io::Error| unusable(kernel, format!("{what}: {e}"));
        let mut folder = cache.work_folder(elsewhere).map_err(|e| failed("no folder to compile in", e))?;
        let lay_out = |folder: &Path| {
            write_atomically(&folder.join("include").join("runjob.h"), HEADER.as_bytes())?;
            self.unit.files.iter().try_for_each(|(name, text)| write_atomically(&folder.join(name), text.as_bytes()))
        };
        if lay_out(folder.path()).is_err() {
            folder = cache.work_folder(true).map_err(|e| failed("no folder to compile in", e))?;
            lay_out(folder.path()).map_err(|e| failed("cannot write the source to compile", e))?;
        }
        let at = |name: &str| folder.path().join(name);
        let input = at(self.unit.files.first().map_or("", |(name, _)| name));
        let (output, rule) = (at("kernel.so"), at("kernel.d"));
        let mut command = Command::new(&self.compiler.program);
        command.args(&self.compiler.args).args(&self.flags);
        if self.compiler.lang == Lang::Rust {
            for (file, shown) in &self.unit.shown {
                // A panic names the place in its message.
                command.arg("--remap-path-prefix").arg(format!("{}={shown}", at(file).display()));
            }
            // Else what it makes on the way would lie in the current folder.
            command.arg("--out-dir").arg(folder.path());
            command.arg(format!("--emit=link={},dep-info={}", output.display(), rule.display())).arg(&input);
        } else {
            command.arg("-I").arg(at("include")).args(["-MMD", "-MF"]).arg(&rule).arg("-o").arg(&output).arg(&input).args(LINK);
        }
        let started = SystemTime::now();
        let program = self.compiler.program.display();
        let ran = run(&mut command, None, stop).map_err(|e| failed(&format!("`{program}` cannot be run"), e))?;
        cache.count_compile();
        if !ran.status.success() {
            let log = clean(&ran.log, folder.path(), &self.unit);
            let broke_down = broke_down(ran.status, &log);
            let (message, log) = explain(kernel, self.compiler.lang, &self.unit, &self.source, log);
            let message = message.unwrap_or_else(|| format!("`{program}` failed ({})", ran.status));
            let kernel = kernel.name.clone();
            return Err(if broke_down {
                DeviceError::Unusable { kernel, message, log }
            } else {
                DeviceError::Build { kernel, message, log }
            });
        }
        let deps = listed_files(&fs::read_to_string(&rule).unwrap_or_default());
        let deps = deps.into_iter().filter(|path| !path.starts_with(folder.path())).collect();
        Ok((folder, Object { path: output, deps, started }))
    }
}

struct Object {
    path: PathBuf,
    /// The headers and modules that it was made from.
    deps: Vec<PathBuf>,
    started: SystemTime,
}

/// What `-march=native` depends on: the first processor's name and description.
pub(super) fn processor() -> (String, String) {
    use std::io::Read as _;
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open("/proc/cpuinfo") {
        // The description of one processor; the file repeats it for every other.
        let _ = file.take(8192).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let first: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).collect();
    let field = |name: &str| first.iter().find_map(|line| line.split_once(':').filter(|(k, _)| k.trim() == name)).map(|(_, v)| v.trim());
    let name = field("model name").unwrap_or("cpu").to_string();
    const FIXED: [&str; 8] = ["vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU implementer", "CPU part"];
    let identity: Vec<&str> = FIXED.iter().map(|k| field(k).unwrap_or("")).collect();
    (name, format!("{} {}", std::env::consts::ARCH, identity.join("\n")))
}
