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

    /// Whether kernels find three lanes at every fourth element. A `float3` of OpenCL and a `vec3<f32>` of WGSL take 16 bytes;
    /// one of CUDA takes 12, and C for the CPU has no type of three.
    pub fn spaces_three_lanes(self) -> bool {
        matches!(self, Backend::Opencl | Backend::Wgpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lanes_are_spaced_where_their_type_is_wider() {
        assert_eq!(Backend::ALL.map(Backend::spaces_three_lanes), [false, true, true, false]);
    }
}
