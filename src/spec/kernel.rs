//! `[kernels.NAME]`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Define, Int, PerBackend};

/// A kernel: an entry point with its parameter list.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Parameters in launch order, like the C signature: `in|out|inout TYPE name` (tensor), `TYPE name` (scalar),
    /// `local TYPE[len] name` (block-local scratch, takes no argument), `struct tag { u32 n, f32 alpha } name` (by value),
    /// `null` (a null pointer, takes no argument). TYPE is a dtype or a name of [types], with lanes if need be: `f32x4`.
    #[schemars(example = &serde_json::json!(["in f32 x", "inout f32 y", "f32 a", "u32 n"]))]
    pub params: Vec<String>,
    /// The file with the kernel's source, relative to the spec: one path (its suffix says for which backend: `.c`), or one per backend.
    pub source: Option<PerBackend<String>>,
    /// The function's name in the source. Default: the kernel's name.
    pub entry: Option<PerBackend<String>>,
    /// Threads per block, x first, at most three numbers; `[]` is one thread.
    pub block: Option<PerBackend<Vec<Int>>>,
    /// Scratch of each block besides `local` parameters, in bytes.
    pub shared: Option<Int>,
    /// The kernel is not re-entrant, because of static variables for example: its blocks run in order, one launch at a time.
    #[serde(default)]
    pub serial: bool,
    /// Macros: expressions over dims, names of types as the kernel's language spells them, or `{ text = "..." }`.
    #[serde(default)]
    pub defines: IndexMap<String, Define>,
    /// Options for the kernel's compiler, as they stand.
    pub flags: Option<PerBackend<Vec<String>>>,
    /// Folders for `#include`, relative to the spec.
    #[serde(default)]
    pub include: Vec<String>,
}
