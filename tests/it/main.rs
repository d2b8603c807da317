//! One binary for all tests from outside, a module per subject.

mod arrows;
mod bad;
mod between;
mod cli;
mod commands;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(all(unix, feature = "cuda"))]
mod cuda_calls;
#[cfg(all(unix, feature = "cuda"))]
mod cuda_faults;
#[cfg(all(unix, feature = "cuda"))]
mod cuda_machines;
#[cfg(feature = "cuda")]
mod cuda_sim;
mod devices;
mod docs;
mod executor;
#[cfg(unix)]
mod mutations;
#[cfg(feature = "opencl")]
mod opencl;
#[cfg(all(unix, feature = "opencl"))]
mod opencl_crashes;
#[cfg(all(unix, feature = "opencl"))]
mod opencl_faults;
mod planner;
#[cfg(unix)]
mod robust;
mod schema;
mod selection;
mod vectors;
mod verdicts;
