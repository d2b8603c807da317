//! A device in words (`cpu`, `opencl`, `opencl:1`, `opencl:part of a name`) -> the device, or why it is not there.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicU32;

use serde::{Deserialize, Serialize};

use super::cpu::{self, CpuOptions};
use super::{Caps, Clock, Device, DeviceError};
use crate::tensor::Backend;

/// Names one device of a machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Choice {
    pub backend: Backend,
    pub which: Which,
}

/// Which of a backend's devices.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Which {
    First,
    /// In the order of [`list`]. A number that no device has may be part of a name.
    Nth(usize),
    /// The first whose name has this part, in whatever case.
    Named(String),
}

impl Choice {
    /// The first device of a backend.
    pub fn first(backend: Backend) -> Choice {
        Choice { backend, which: Which::First }
    }

    /// The device at a place of a backend's list.
    pub fn nth(backend: Backend, index: usize) -> Choice {
        Choice { backend, which: Which::Nth(index) }
    }

    /// The place in a backend's list of the device that is meant. *Errors*: why none is.
    pub fn find(&self, listed: &[Caps]) -> Result<usize, String> {
        let backend = self.backend.name();
        let named = |part: &str| listed.iter().position(|caps| caps.name.to_lowercase().contains(&part.to_lowercase()));
        let found = match &self.which {
            Which::First => (!listed.is_empty()).then_some(0),
            Which::Nth(index) => (*index < listed.len()).then_some(*index).or_else(|| named(&index.to_string())),
            Which::Named(part) => named(part),
        };
        found.ok_or_else(|| {
            let names: Vec<String> = listed.iter().enumerate().map(|(at, caps)| format!("{backend}:{at} `{}`", caps.name)).collect();
            let there = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            let what = match &self.which {
                Which::First => format!("there is no {backend} device"),
                Which::Nth(index) => format!("there is no device {backend}:{index}"),
                Which::Named(part) => format!("no {backend} device has `{part}` in its name"),
            };
            let basic = self.backend == Backend::Opencl && matches!(&self.which, Which::Named(part) if part.eq_ignore_ascii_case("basic"));
            let hint = if basic { POCL_BASIC } else { "" };
            format!("{what}; there are: {there}{hint}")
        })
    }
}

/// How PoCL is made to list the device that is asked for by its usual name.
const POCL_BASIC: &str =
    "; PoCL lists its `basic` device only where POCL_DEVICES names it before the driver is loaded: POCL_DEVICES=\"pthread basic\"";

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = self.backend.name();
        match &self.which {
            Which::First => f.write_str(backend),
            Which::Nth(index) => write!(f, "{backend}:{index}"),
            Which::Named(part) => write!(f, "{backend}:{part}"),
        }
    }
}

impl FromStr for Choice {
    type Err = String;
    fn from_str(text: &str) -> Result<Choice, String> {
        let (backend, which) = match text.split_once(':') {
            Some((backend, which)) => (backend, Some(which.trim())),
            None => (text, None),
        };
        let Some(backend) = Backend::ALL.into_iter().find(|b| b.name() == backend) else {
            let known = Backend::ALL.map(Backend::name).join(", ");
            return Err(format!("`{backend}` is no backend: they are {known}"));
        };
        let which = match which {
            None => Which::First,
            Some("") => return Err(format!("nothing stands behind `{}:`: an index or a part of a name does", backend.name())),
            Some(part) if part.bytes().all(|b| b.is_ascii_digit()) => {
                Which::Nth(part.parse().map_err(|_| format!("`{part}` is too large for an index"))?)
            }
            Some(part) => Which::Named(part.to_string()),
        };
        Ok(Choice { backend, which })
    }
}

impl TryFrom<String> for Choice {
    type Error = String;
    fn try_from(text: String) -> Result<Choice, String> {
        text.parse()
    }
}

impl From<Choice> for String {
    fn from(choice: Choice) -> String {
        choice.to_string()
    }
}

/// Why a device was not opened.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not there: no driver, no such device, a program without its backend.
    #[error("{0}")]
    Absent(String),
    /// It is there and failed.
    #[error(transparent)]
    Failed(#[from] DeviceError),
}

/// How a device is opened, whatever its backend.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// See [`CpuOptions::threads`].
    pub threads: Option<usize>,
    /// See [`CpuOptions::at_node`].
    pub at_node: Vec<&'static AtomicU32>,
    /// Stands for a device with memory of its own.
    pub discrete: bool,
    /// What the device's clock is asked for.
    pub clock: Clock,
    /// Every command is waited for before the next one starts, where an error would not tell which one failed.
    pub stepwise: bool,
}

/// What this version of runjob lacks.
const NOT_IN_THIS_VERSION: &str = "this version of runjob does not have it";

/// What a program without the feature of a backend lacks.
#[cfg(not(all(feature = "cuda", feature = "opencl")))]
fn built_without(feature: &str) -> OpenError {
    OpenError::Absent(format!("this program was built without it: build it with the cargo feature `{feature}`"))
}

/// Whether this program has a backend, be its devices there or not.
pub fn has(backend: Backend) -> bool {
    match backend {
        Backend::Cpu => true,
        Backend::Opencl => cfg!(feature = "opencl"),
        Backend::Cuda => cfg!(feature = "cuda"),
        Backend::Wgpu => false,
    }
}

/// The devices of a backend, in the order in which they are counted.
pub fn list(backend: Backend) -> Result<Vec<Caps>, OpenError> {
    match backend {
        Backend::Cpu => Ok(vec![cpu::open(CpuOptions::default())?.caps().clone()]),
        #[cfg(feature = "opencl")]
        Backend::Opencl => super::opencl::list().map_err(absent),
        #[cfg(not(feature = "opencl"))]
        Backend::Opencl => Err(built_without("opencl")),
        #[cfg(feature = "cuda")]
        Backend::Cuda => super::cuda::list().map_err(absent),
        #[cfg(not(feature = "cuda"))]
        Backend::Cuda => Err(built_without("cuda")),
        Backend::Wgpu => Err(OpenError::Absent(NOT_IN_THIS_VERSION.into())),
    }
}

/// Opens the device that is meant. Opening the same one twice gives two instances.
pub fn open(choice: &Choice, options: OpenOptions) -> Result<Box<dyn Device>, OpenError> {
    match choice.backend {
        Backend::Cpu => {
            let OpenOptions { threads, at_node, discrete, clock, .. } = options;
            let device = cpu::open(CpuOptions { threads, at_node, discrete, clock, ..CpuOptions::default() })?;
            choice.find(std::slice::from_ref(device.caps())).map_err(OpenError::Absent)?;
            Ok(Box::new(device))
        }
        #[cfg(feature = "opencl")]
        Backend::Opencl => {
            use super::opencl::{self, OpenclOptions};
            let index = choice.find(&opencl::list().map_err(absent)?).map_err(OpenError::Absent)?;
            let device =
                opencl::open(index, OpenclOptions { clock: options.clock, discrete: options.discrete, ..OpenclOptions::default() })?;
            Ok(Box::new(device))
        }
        #[cfg(feature = "cuda")]
        Backend::Cuda => {
            use super::cuda::{self, CudaOptions};
            let index = choice.find(&cuda::list().map_err(absent)?).map_err(OpenError::Absent)?;
            let device = cuda::open(index, CudaOptions { clock: options.clock, stepwise: options.stepwise, ..CudaOptions::default() })?;
            Ok(Box::new(device))
        }
        backend => Err(match list(backend) {
            Err(error) => OpenError::Absent(format!("`{}`: {error}", backend.name())),
            Ok(_) => OpenError::Absent(format!("devices of `{}` are listed, but cannot be opened", backend.name())),
        }),
    }
}

/// A backend that cannot list its devices has none.
#[cfg(any(feature = "cuda", feature = "opencl"))]
fn absent(error: DeviceError) -> OpenError {
    match error {
        DeviceError::Unsupported(reason) => OpenError::Absent(reason),
        other => OpenError::Failed(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(text: &str) -> Choice {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn listed(names: &[&str]) -> Vec<Caps> {
        let caps = cpu::open(CpuOptions::default()).expect("the CPU").caps().clone();
        names.iter().map(|name| Caps { name: name.to_string(), ..caps.clone() }).collect()
    }

    #[test]
    fn words_name_devices_and_back() {
        for text in ["cpu", "opencl", "opencl:1", "cuda:0", "wgpu:NVIDIA H200", "opencl:a:b"] {
            assert_eq!(choice(text).to_string(), text);
        }
        for (bad, says) in [
            ("", "`` is no backend"),
            ("gpu", "they are cpu, opencl, wgpu, cuda"),
            ("OpenCL", "`OpenCL` is no backend"),
            ("opencl:", "nothing stands behind"),
            ("opencl:99999999999999999999999", "too large"),
        ] {
            let error = bad.parse::<Choice>().unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn devices_are_found_by_index_and_by_part_of_their_name() {
        let there = listed(&["NVIDIA RTX 4090", "pthread-host", "Basic thing"]);
        for (text, found) in [
            ("opencl", 0),
            ("opencl:2", 2),
            ("opencl:nvidia", 0),
            ("opencl:PTHREAD", 1),
            ("opencl:basic", 2),
            // No device has that number.
            ("opencl:4090", 0),
        ] {
            assert_eq!(choice(text).find(&there), Ok(found), "{text}");
        }
    }

    #[test]
    fn who_is_not_there_is_told_who_is() {
        let there = listed(&["pthread-host"]);
        let why = |text: &str, there: &[Caps]| choice(text).find(there).unwrap_err();
        assert_eq!(why("opencl:7", &there), "there is no device opencl:7; there are: opencl:0 `pthread-host`");
        assert_eq!(why("cpu:intel", &there), "no cpu device has `intel` in its name; there are: cpu:0 `pthread-host`");
        assert!(why("opencl:basic", &there).contains("POCL_DEVICES=\"pthread basic\""));
        assert_eq!(why("opencl", &[]), "there is no opencl device; there are: none");
    }

    #[test]
    fn what_this_version_lacks_is_absent() {
        assert!(!has(Backend::Wgpu));
        let Err(OpenError::Absent(why)) = open(&Choice::first(Backend::Wgpu), OpenOptions::default()) else { panic!("it is there") };
        assert!(why.contains("wgpu") && why.contains("does not have it"), "{why}");
    }
}
