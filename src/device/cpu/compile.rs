//! Turns C kernels into entries: finds the compiler, asks the cache, compiles, loads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::cache::{Cache, listed_files, write_atomically};
use super::shim::{self, Entry, HEADER, Unit};
use crate::device::{DeviceError, KernelSource, Result};

/// Given before the user's own flags. Contraction of `a * b + c` is left as the compiler has it: on where the processor
/// fuses them; a kernel that must not be contracted says `-ffp-contract=off`.
const FLAGS: [&str; 8] =
    ["-std=gnu11", "-O3", "-fno-math-errno", "-fPIC", "-shared", "-fvisibility=hidden", "-fdiagnostics-color=never", "-pipe"];

/// Builds for the processor it runs on.
const NATIVE: &str = if cfg!(target_arch = "aarch64") { "-mcpu=native" } else { "-march=native" };

/// Every symbol must be found when linking; and the libraries that C kernels expect.
const LINK: &[&str] = if cfg!(target_os = "linux") { &["-Wl,-z,defs", "-Wl,-z,now", "-lm"] } else { &["-lm"] };

/// A C compiler that answers.
#[derive(Clone, Debug)]
pub(super) struct Compiler {
    program: PathBuf,
    args: Vec<String>,
    /// First line of what it says of its version.
    pub version: String,
}

/// The commands that may be a C compiler, by preference: `$RUNJOB_CC` alone where it is set, else `$CC`, `cc`, `clang`, `gcc`.
pub(super) fn candidates() -> Vec<String> {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    match var("RUNJOB_CC") {
        Some(only) => vec![only],
        None => var("CC").into_iter().chain(["cc", "clang", "gcc"].map(String::from)).collect(),
    }
}

impl Compiler {
    /// The first of `candidates` that runs. A candidate may have arguments (`ccache gcc`).
    ///
    /// *Errors*: `Unsupported`, with what was tried and what to install.
    pub fn find(candidates: &[String], cache: &Cache) -> Result<Compiler> {
        candidates.iter().find_map(|candidate| Compiler::probe(candidate, cache)).ok_or_else(|| {
            let tried: Vec<String> = candidates.iter().map(|c| format!("`{c}`")).collect();
            let install = match std::env::consts::OS {
                "macos" => "`xcode-select --install` installs one",
                _ => "`apt-get install gcc` installs one",
            };
            DeviceError::Unsupported(format!("no C compiler: tried {}; {install}, or set RUNJOB_CC", tried.join(", ")))
        })
    }

    fn probe(candidate: &str, cache: &Cache) -> Option<Compiler> {
        let mut words = candidate.split_whitespace().map(String::from);
        let program = locate(&words.next()?)?;
        let args: Vec<String> = words.collect();
        let meta = fs::metadata(&program).ok()?;
        let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let identity = format!("{}\0{args:?}\0{modified}\0{}", program.display(), meta.len());
        let note = format!("compiler-{}.txt", &blake3::hash(identity.as_bytes()).to_hex()[..16]);
        let version = cache.note(&note).or_else(|| {
            let output = Command::new(&program).args(&args).arg("--version").env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().filter(|_| output.status.success())?.trim().to_string();
            cache.keep_note(&note, &line);
            Some(line)
        })?;
        Some(Compiler { program, args, version })
    }
}

/// The file that a command's name stands for.
fn locate(name: &str) -> Option<PathBuf> {
    let found = if name.contains(std::path::MAIN_SEPARATOR) {
        Some(PathBuf::from(name)).filter(|path| path.is_file())
    } else {
        std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
    };
    // Not resolved further: a compiler may go by the name it is called with.
    found.map(|path| std::path::absolute(&path).unwrap_or(path))
}

/// Builds and loads a kernel; what was loaded stays so for the life of the process.
///
/// *Errors*: `Build` with the compiler's messages, in terms of the user's file.
///
/// # Safety
/// Loading runs the object's constructors, calling the entry runs the kernel: both are the user's code.
pub(super) unsafe fn load(compiler: &Compiler, cache: &Cache, native: &str, kernel: &KernelSource, path: &Path) -> Result<Entry> {
    let source = read_source(kernel, path)?;
    let unit = shim::unit(kernel, path, &source)?;
    let flags = flags(kernel, path);
    let key = key(compiler, native, &unit, &flags, path);
    if let Some(object) = cache.find(&key) {
        // SAFETY: promised by the caller. An object that the system refuses is compiled again.
        if let Ok(entry) = unsafe { open(&object, &unit.symbol) } {
            return Ok(entry);
        }
    }
    let (folder, object) = match compile(compiler, cache, kernel, &unit, &flags, &source, false) {
        Err(DeviceError::Build { log, .. }) if log.contains("No space left on device") => {
            compile(compiler, cache, kernel, &unit, &flags, &source, true)?
        }
        other => other?,
    };
    let kept = cache.keep(&key, &object.path, &object.deps, object.started);
    // SAFETY: promised by the caller.
    let entry = unsafe { open(kept.as_deref().unwrap_or(&object.path), &unit.symbol) };
    drop(folder);
    entry.map_err(|message| build_error(kernel, format!("the compiled kernel cannot be loaded: {message}"), String::new()))
}

fn build_error(kernel: &KernelSource, message: String, log: String) -> DeviceError {
    DeviceError::Build { kernel: kernel.name.clone(), message, log }
}

fn read_source(kernel: &KernelSource, path: &Path) -> Result<String> {
    let shown = path.display();
    match path.extension().and_then(|e| e.to_str()) {
        Some("c") => {}
        _ => return Err(DeviceError::Unsupported(format!("kernel `{}`: `{shown}` is not a C source (`.c`)", kernel.name))),
    }
    let bytes = fs::read(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => build_error(kernel, format!("the source `{shown}` does not exist"), String::new()),
        _ => build_error(kernel, format!("the source `{shown}` cannot be read: {e}"), String::new()),
    })?;
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        build_error(kernel, format!("the source `{shown}` is not UTF-8 at line {line}"), String::new())
    })
}

/// The flags that depend on the kernel, in the order they are given.
fn flags(kernel: &KernelSource, path: &Path) -> Vec<String> {
    let mut flags: Vec<String> = FLAGS.iter().map(|f| f.to_string()).collect();
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
fn key(compiler: &Compiler, native: &str, unit: &Unit, flags: &[String], path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let folder = std::path::absolute(path).ok().and_then(|p| Some(p.parent()?.display().to_string())).unwrap_or_default();
    let here = std::env::current_dir().map(|p| p.display().to_string()).unwrap_or_default();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(&compiler.program.display().to_string());
    add(&compiler.version);
    add(native);
    // Relative folders in the flags are meant from here.
    add(&here);
    add(&folder);
    add(HEADER);
    add(&unit.text);
    compiler.args.iter().map(String::as_str).chain(flags.iter().map(String::as_str)).chain(LINK.iter().copied()).for_each(add);
    hasher.finalize()
}

struct Object {
    path: PathBuf,
    /// The headers that it was made from.
    deps: Vec<PathBuf>,
    started: SystemTime,
}

fn compile(
    compiler: &Compiler,
    cache: &Cache,
    kernel: &KernelSource,
    unit: &Unit,
    flags: &[String],
    source: &str,
    elsewhere: bool,
) -> Result<(tempfile::TempDir, Object)> {
    let failed = |what: &str, e: io::Error| build_error(kernel, format!("{what}: {e}"), String::new());
    let mut folder = cache.work_folder(elsewhere).map_err(|e| failed("no folder to compile in", e))?;
    let lay_out = |folder: &Path| {
        write_atomically(&folder.join("include").join("runjob.h"), HEADER.as_bytes())?;
        write_atomically(&folder.join("kernel.c"), unit.text.as_bytes())
    };
    if lay_out(folder.path()).is_err() {
        folder = cache.work_folder(true).map_err(|e| failed("no folder to compile in", e))?;
        lay_out(folder.path()).map_err(|e| failed("cannot write the source to compile", e))?;
    }
    let at = |name: &str| folder.path().join(name);
    let (input, output, rule) = (at("kernel.c"), at("kernel.so"), at("kernel.d"));
    let started = SystemTime::now();
    let run = Command::new(&compiler.program)
        .args(&compiler.args)
        .args(flags)
        .arg("-I")
        .arg(at("include"))
        .args(["-MMD", "-MF"])
        .arg(&rule)
        .arg("-o")
        .arg(&output)
        .arg(&input)
        .args(LINK)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(&format!("`{}` cannot be run", compiler.program.display()), e))?;
    cache.count_compile();
    if !run.status.success() {
        let raw = [run.stderr, run.stdout].concat();
        let log = clean(&String::from_utf8_lossy(&raw), folder.path());
        let (message, log) = explain(kernel, unit, source, log);
        return Err(build_error(kernel, message, log));
    }
    let deps = listed_files(&fs::read_to_string(&rule).unwrap_or_default());
    let deps = deps.into_iter().filter(|path| !path.starts_with(folder.path())).collect();
    Ok((folder, Object { path: output, deps, started }))
}

/// The compiler's messages without the names of temporary files.
fn clean(log: &str, folder: &Path) -> String {
    log.replace(&format!("{}/include/", folder.display()), "").replace(&format!("{}/", folder.display()), "")
}

/// What a failed compilation means.
fn explain(kernel: &KernelSource, unit: &Unit, source: &str, log: String) -> (String, String) {
    let (name, entry) = (&kernel.name, &kernel.entry);
    let of_shim = |line: &str| line.starts_with(unit.label.as_str());
    let disagrees = ["conflicting types for", "redeclared as different kind", "redefinition of"];
    if log.lines().any(|line| of_shim(line) && disagrees.iter().any(|text| line.contains(text))) {
        return (format!("kernel `{name}`: the source disagrees with `params`"), log);
    }
    let missing = |line: &str| {
        let quoted = [format!("`{entry}'"), format!("'{entry}'"), format!("symbol: {entry}"), format!("\"_{entry}\"")];
        let undefined = line.contains("undefined") || line.contains("Undefined") || line.contains("isn't defined");
        // The name of the symbol stands on its own line in the messages of some linkers.
        (undefined && quoted.iter().any(|q| line.contains(q))) || line.trim_start().starts_with(&format!("\"_{entry}\", referenced"))
    };
    if log.lines().any(missing) {
        return (no_function(entry, source), String::new());
    }
    if let Some(line) = log.lines().find(|line| line.contains("undefined reference") || line.contains("undefined symbol")) {
        let symbol = line.rsplit(['`', ':']).next().unwrap_or(line).trim().trim_end_matches('\'');
        return (format!("`{symbol}` is used and defined nowhere"), log);
    }
    match log.lines().find(|line| line.contains("error:")) {
        Some(line) => (line.trim().to_string(), log),
        None => ("the compiler failed".to_string(), log),
    }
}

fn no_function(entry: &str, source: &str) -> String {
    let functions = shim::functions(source);
    let near = functions.iter().map(|f| (strsim::damerau_levenshtein(f, entry), f)).min();
    let hint = match near {
        Some((distance, near)) if distance <= (entry.len() / 3).max(1) => format!("; did you mean `{near}`?"),
        _ if functions.is_empty() => String::new(),
        _ => {
            let names: Vec<String> = functions.iter().take(8).map(|f| format!("`{f}`")).collect();
            format!("; it has {}{}", names.join(", "), if functions.len() > 8 { ", ..." } else { "" })
        }
    };
    format!("the source has no function `{entry}`{hint}")
}

/// # Safety
/// Runs the constructors of the object; the symbol is an [`Entry`].
unsafe fn open(object: &Path, symbol: &str) -> std::result::Result<Entry, String> {
    // SAFETY: promised by the caller. Symbols stay local to the library; all are bound when it is opened.
    let library = unsafe { libloading::Library::new(object) }.map_err(|e| e.to_string());
    super::float_mode::restore();
    let library = library?;
    // SAFETY: the shim defines the symbol with this type.
    let entry = unsafe { library.get::<Entry>(symbol.as_bytes()) }.map(|s| *s).map_err(|e| e.to_string());
    // Entries stay callable: the library is never closed.
    std::mem::forget(library);
    entry
}

/// What `-march=native` depends on: the first processor's description.
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
