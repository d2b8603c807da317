//! The spec language as Rust types: the one definition that serde reads and that the JSON schema is made of.
//! `load` turns a file into a [`Spec`] and the diagnostics of everything that does not fit it.
//!
//! Doc comments of the types are what an editor shows; they speak to the person who edits a spec.

mod bench;
mod check;
mod data;
mod device;
mod explain;
mod kernel;
mod limits;
mod load;
mod per_backend;
mod per_dtype;
mod schema;
mod step;
mod tables;
mod text;
mod value;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::tensor::Dtype;

pub use crate::tensor::Backend;
pub use bench::Bench;
pub use check::{Between, Build, Check, Expect, ExpectTable, NanPolicy, Set};
pub use data::{Data, Integers, Normal, Range, Tensor, Uniform};
pub use device::Device;
pub use kernel::{Kernel, Source};
pub use limits::{ByteSize, Limits, Order, Rounds, Span};
pub use load::{LoadError, Loaded, load, parse};
pub use per_backend::PerBackend;
pub use per_dtype::PerDtype;
pub use schema::schema;
pub use step::Step;
pub use value::{Args, Define, Int, Nested, Num, TypeName};

/// A runjob spec: kernels, the tensors of each round, the steps, and what the outputs must be.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Spec {
    /// Name of the job in reports. Default: the file's name.
    pub name: Option<String>,
    /// One line on what the job shows.
    pub summary: Option<String>,
    /// Words to select jobs by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Devices to run on: `"cpu"`, `"opencl"`, `"opencl:1"`, `"opencl:part of a name"`, as `runjob devices` lists them.
    /// Default: the first of `cpu`, `cuda`, `opencl`, `wgpu` that has a source of every kernel.
    #[schemars(example = &serde_json::json!(["opencl"]))]
    pub devices: Option<Vec<String>>,
    /// Features that a device must have: dtypes (`"f16"`), words of one backend (`"cl_khr_fp64"`, `"sm_90"`), versions
    /// (`"opencl_c >= 1.2"`), limits (`"max_block >= 256"`, and in bytes `memory` and `largest_alloc`). Without one of them the job is skipped, with the reason.
    #[serde(default)]
    pub requires: Vec<String>,
    /// The job is expected to fail, for this reason; a pass is then an error.
    pub xfail: Option<String>,
    /// Which of a backend's devices is meant where a backend alone is named, or nothing.
    #[serde(default)]
    pub device: Device,
    /// Named integers that shapes, grids, arguments and defines are written in. Order has no meaning.
    #[serde(default)]
    pub dims: IndexMap<String, PerBackend<Int>>,
    /// Named dtypes, for `params`, `dtype` and defines.
    #[serde(default)]
    pub types: IndexMap<String, Dtype>,
    /// Source of every kernel that names none.
    pub source: Option<PerBackend<Source>>,
    /// Kernels: entry points with their parameter lists.
    #[serde(default)]
    pub kernels: IndexMap<String, Kernel>,
    /// Tensors: dtype, shape, and where their contents come from.
    #[serde(default)]
    pub tensors: IndexMap<String, Tensor>,
    /// What one round does, in an order that follows from what the steps read and write.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// How often, and with which seed.
    #[serde(default)]
    pub rounds: Rounds,
    /// Named contents; rounds cycle through them.
    #[serde(default)]
    pub sets: Vec<Set>,
    /// What must hold after every round, and what compilers must make of kernels. A spec of the latter alone has no steps
    /// and no rounds.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Time and memory that the job may take.
    #[serde(default)]
    pub limits: Limits,
    /// What a round moves and computes, and how its time is measured.
    #[serde(default)]
    pub bench: Bench,
}
