//! `[device]`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::PerBackend;

/// Which of a backend's devices is meant where a backend alone is named, or nothing.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Device {
    /// A part of its name, in whatever case; or one per backend: `{ opencl = "part" }`. Default: the first device. Where no
    /// device has it, the job is skipped.
    #[serde(rename = "match")]
    pub part: Option<PerBackend<String>>,
}
