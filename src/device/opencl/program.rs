//! Kernel sources -> programs, each built once for a device and its forks, from whichever thread asks first.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use opencl_sys::*;

use super::api::{bytes_of, cl, make, text};
use super::kernel::Loaded;
use super::object::{Object, Program};
use super::platform::Found;
use super::{Driver, object};
use crate::device::near::among;
use crate::device::{Builder, Code, DeviceError, KernelSource, Result};

/// What every program is built with: the driver then knows the names and types of a kernel's parameters.
const ARG_INFO: &str = "-cl-kernel-arg-info";

/// Builds the programs of a device and its forks.
pub(super) struct Workshop {
    driver: Arc<Driver>,
    /// By what is built: the program, or why there is none.
    built: Mutex<HashMap<blake3::Hash, Arc<OnceLock<Built>>>>,
}

type Built = Result<Arc<Object<Program>>>;

/// What the driver's compiler is given.
struct Input {
    bytes: Vec<u8>,
    options: String,
    /// SPIR-V instead of OpenCL C.
    il: bool,
}

impl Workshop {
    pub fn new(driver: Arc<Driver>) -> Workshop {
        Workshop { driver, built: Mutex::default() }
    }

    /// The program that a kernel is in. Kernels of one source, with the same defines, flags and folders, share it.
    ///
    /// *Errors*: `Build` with the compiler's messages.
    fn program(&self, kernel: &KernelSource) -> Result<Arc<Object<Program>>> {
        let input = input(kernel, &self.driver.found)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(input.options.as_bytes()).update(&[0]).update(&input.bytes);
        let cell = Arc::clone(self.built.lock().unwrap_or_else(PoisonError::into_inner).entry(hasher.finalize()).or_default());
        cell.get_or_init(|| self.build_input(kernel, &input)).clone().map_err(|error| named(error, kernel))
    }

    fn build_input(&self, kernel: &KernelSource, input: &Input) -> Built {
        let (api, device) = (self.driver.api, self.driver.found.device);
        let context = self.driver.context.raw();
        let options = CString::new(input.options.as_str()).map_err(|_| unusable(kernel, "a flag has a zero byte", String::new()))?;
        let made = if input.il {
            make!(api.clCreateProgramWithIL(context, input.bytes.as_ptr().cast(), input.bytes.len()))
        } else {
            let (mut text, len) = (input.bytes.as_ptr().cast(), input.bytes.len());
            make!(api.clCreateProgramWithSource(context, 1, &raw mut text, &len))
        };
        let program: Object<Program> = match made {
            Ok(raw) => Object::new(api, raw),
            Err(failure) if failure.code == CL_INVALID_VALUE || failure.code == CL_INVALID_BINARY => {
                return Err(unusable(kernel, "the driver cannot read the source", String::new()));
            }
            Err(failure) => return Err(failure.into()),
        };
        let Err(failure) = cl!(api.clBuildProgram(program.raw(), 1, &device, options.as_ptr(), None, null_mut())) else {
            return Ok(Arc::new(program));
        };
        let log =
            bytes_of(|size, value, len| cl!(api.clGetProgramBuildInfo(program.raw(), device, CL_PROGRAM_BUILD_LOG, size, value, len)));
        let log = log.map_or(String::new(), |bytes| text(&bytes));
        match failure.code {
            CL_BUILD_PROGRAM_FAILURE => {
                let (message, log) = refused(&log, &self.driver.caps.features);
                Err(build_error(kernel, message, log))
            }
            CL_INVALID_BUILD_OPTIONS => {
                let given = if kernel.flags.is_empty() { &input.options } else { &kernel.flags.join(" ") };
                Err(unusable(kernel, format!("the driver's compiler does not take `flags`: {given}"), log))
            }
            _ => Err(failure.into()),
        }
    }

    /// Builds a kernel's program, and makes what can be launched of it.
    ///
    /// *Errors*: `Build` with the compiler's messages, or with how the source disagrees with the spec.
    pub fn load(&self, kernel: &KernelSource) -> Result<Loaded> {
        let program = self.program(kernel)?;
        let loaded = Loaded::new(&self.driver, program, kernel)?;
        Ok(loaded)
    }

    /// The kernel object of an entry. *Errors*: the program has no such kernel.
    pub fn entry(driver: &Driver, program: &Object<Program>, kernel: &KernelSource) -> Result<Object<object::Kernel>> {
        let api = driver.api;
        let entry = CString::new(kernel.entry.as_str()).unwrap_or_default();
        match make!(api.clCreateKernel(program.raw(), entry.as_ptr())) {
            Ok(raw) => Ok(Object::new(api, raw)),
            Err(failure) if failure.code == CL_INVALID_KERNEL_NAME => {
                let names =
                    bytes_of(|size, value, len| cl!(api.clGetProgramInfo(program.raw(), CL_PROGRAM_KERNEL_NAMES, size, value, len)));
                let names: Vec<String> = names.map_or(String::new(), |b| text(&b)).split(';').map(String::from).collect();
                // PoCL renames what OpenCL C has functions of.
                let hint = match &names[..] {
                    names if names.contains(&format!("_cl_{}", kernel.entry)) => {
                        "; OpenCL C has a function of this name: give the kernel another".to_string()
                    }
                    [none] if none.is_empty() => "; it has none at all".to_string(),
                    names => among(&kernel.entry, names),
                };
                Err(build_error(kernel, format!("the source has no kernel `{}`{hint}", kernel.entry), String::new()))
            }
            Err(failure) => Err(failure.into()),
        }
    }
}

impl Builder for Workshop {
    fn build(&self, kernel: &KernelSource, _: &AtomicBool) -> Result<()> {
        self.program(kernel).map(|_| ())
    }
}

/// Types that a device need not compute with: what a compiler calls them, their dtype, and what a kernel can do without.
const LACKING: [(&str, &str, &str); 2] =
    [("half", "f16", "read it with `vload_half`, take its bits as `ushort`, or write"), ("double", "f64", "write")];

/// What a compiler says of a source that it refuses: its first error, and all that it says where that is more.
fn refused(log: &str, features: &[String]) -> (String, String) {
    // PoCL ends with a line of its own.
    let own = |line: &str| line.starts_with("Device ") && line.ends_with(" failed to build the program");
    let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty() && !own(line)).collect();
    let Some(first) = lines.iter().map(|line| line.trim()).find(|line| line.contains("error:")) else {
        return ("the driver's compiler refuses the source".to_string(), lines.join("\n"));
    };
    let mut message = first.strip_prefix("error:").unwrap_or(first).trim_start().to_string();
    for (word, dtype, mend) in LACKING {
        if (first.contains(&format!("{word}'")) || first.contains(&format!("'{word}"))) && !features.iter().any(|has| has == dtype) {
            let _ = write!(message, "; this device does not compute with `{word}`: {mend} requires = [\"{dtype}\"]");
        }
    }
    (message, if lines.len() == 1 { String::new() } else { lines.join("\n") })
}

/// The error of a program that several kernels share, in the name of one.
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

/// A name as a string of C.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// *Errors*: a source that cannot be read, or that the device takes none of.
fn input(kernel: &KernelSource, found: &Found) -> Result<Input> {
    let read =
        |path: &Path| fs::read(path).map_err(|error| unusable(kernel, format!("cannot read `{}`: {error}", path.display()), String::new()));
    let (source, shown, line) = match &kernel.code {
        Code::Builtin(_) => return Err(DeviceError::Unsupported(format!("kernel `{}` is one of the CPU's own", kernel.name))),
        Code::File(path) if path.extension().is_some_and(|suffix| suffix == "spv") => {
            if !found.takes_il {
                let (name, path) = (&kernel.name, path.display());
                return Err(DeviceError::Unsupported(format!(
                    "kernel `{name}`: `{path}` is SPIR-V, which this driver does not take: give it OpenCL C"
                )));
            }
            if !kernel.defines.is_empty() {
                return Err(unusable(kernel, "SPIR-V takes no `defines`: they were given when it was made", String::new()));
            }
            let options = kernel.flags.join(" ");
            return Ok(Input { bytes: read(path)?, options, il: true });
        }
        Code::File(path) => (read(path)?, path.display().to_string(), 1),
        Code::Text(text) => match text.line {
            Some(line) => (text.text.clone().into_bytes(), text.path.display().to_string(), line),
            None => (text.text.clone().into_bytes(), format!("text of kernel `{}`", kernel.name), 1),
        },
    };
    let mut bytes = String::new();
    for (name, value) in &kernel.defines {
        let _ = writeln!(bytes, "#define {name} {value}");
    }
    let _ = writeln!(bytes, "#line {line} {}", quoted(&shown));
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(&source);
    bytes.push(b'\n');
    let mut options = vec![ARG_INFO.to_string()];
    // As a compiler does: beside the file that includes.
    let beside = match &kernel.code {
        Code::File(path) => path.parent(),
        Code::Text(text) => text.path.parent(),
        Code::Builtin(_) => None,
    };
    for folder in beside.into_iter().chain(kernel.include.iter().map(|folder| folder.as_path())) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let shown = folder.display().to_string();
        // Drivers take options apart at blanks, each in its own way.
        if shown.contains(|c: char| c.is_whitespace() || c == '"' || c == '\\') {
            if kernel.include.iter().any(|of| of == folder) {
                let message =
                    format!("OpenCL drivers cannot be told of the folder `{shown}`: its name has a blank, a quote or a backslash");
                return Err(unusable(kernel, message, String::new()));
            }
            continue;
        }
        options.push(format!("-I{shown}"));
    }
    options.extend(kernel.flags.iter().cloned());
    Ok(Input { bytes, options: options.join(" "), il: false })
}

/// A number that the driver tells of a kernel.
pub(super) fn group_info<T: Copy + Default>(driver: &Driver, kernel: cl_kernel, what: cl_kernel_work_group_info) -> Result<T> {
    let (api, device) = (driver.api, driver.found.device);
    let mut value = T::default();
    cl!(api.clGetKernelWorkGroupInfo(kernel, device, what, size_of::<T>(), (&raw mut value).cast(), null_mut()))?;
    Ok(value)
}

/// What the driver tells of a kernel's parameter.
pub(super) struct ArgInfo {
    /// Empty where it does not say.
    pub name: String,
    /// `float*`, `uint`, `struct dims`, ...
    pub type_name: String,
    pub address: cl_kernel_arg_address_qualifier,
    pub is_const: bool,
}

/// *Errors*: the driver does not know.
pub(super) fn arg_info(driver: &Driver, kernel: cl_kernel, index: cl_uint) -> super::api::Called<ArgInfo> {
    let api = driver.api;
    let ask = |what| bytes_of(|size, value, len| cl!(api.clGetKernelArgInfo(kernel, index, what, size, value, len)));
    let word = |bytes: Vec<u8>| bytes.try_into().map_or(0, u32::from_ne_bytes);
    // A bit field of 64 bits.
    let qualifiers = ask(CL_KERNEL_ARG_TYPE_QUALIFIER)?.try_into().map_or(0, u64::from_ne_bytes);
    Ok(ArgInfo {
        name: ask(CL_KERNEL_ARG_NAME).map(|bytes| text(&bytes)).unwrap_or_default(),
        type_name: text(&ask(CL_KERNEL_ARG_TYPE_NAME)?),
        address: word(ask(CL_KERNEL_ARG_ADDRESS_QUALIFIER)?),
        is_const: qualifiers & u64::from(CL_KERNEL_ARG_TYPE_CONST) != 0,
    })
}

/// How many parameters a kernel has.
pub(super) fn arg_count(driver: &Driver, kernel: cl_kernel) -> Result<u32> {
    let api = driver.api;
    let mut count: cl_uint = 0;
    cl!(api.clGetKernelInfo(kernel, CL_KERNEL_NUM_ARGS, size_of::<cl_uint>(), (&raw mut count).cast(), null::<usize>().cast_mut()))?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compiler_says_is_told_once() {
        let has = ["f32".to_string(), "f64".to_string()];
        let said = |log: &str| refused(log, &has);
        let one = "error: k.cl:4:2: expected ';'\nDevice basic failed to build the program\n";
        assert_eq!(said(one), ("k.cl:4:2: expected ';'".to_string(), String::new()));
        let two = "k.cl:1:1: warning: odd\nk.cl:4:2: error: no\n";
        assert_eq!(said(two), ("k.cl:4:2: error: no".to_string(), two.trim_end().to_string()));
        assert_eq!(said("ptxas died"), ("the driver's compiler refuses the source".to_string(), "ptxas died".to_string()));
        assert!(said("error: variable of type '__private half'").0.ends_with("requires = [\"f16\"]"));
        assert!(said("error: variable of type 'double'").0.ends_with("'double'"));
    }
}
