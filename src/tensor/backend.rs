//! The kinds of device that there are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds of device that a spec can speak of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    Cpu,
    Opencl,
    Wgpu,
    Cuda,
}

impl Backend {
    pub const ALL: [Backend; 4] = [Backend::Cpu, Backend::Opencl, Backend::Wgpu, Backend::Cuda];

    pub fn name(self) -> &'static str {
        match self {
            Backend::Cpu => "cpu",
            Backend::Opencl => "opencl",
            Backend::Wgpu => "wgpu",
            Backend::Cuda => "cuda",
        }
    }
}
