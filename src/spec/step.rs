//! `[[steps]]`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Args, Int, Num};

/// One action of a round: exactly one of `kernel`, `copy`, `fill`, `for`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Launches this kernel.
    pub kernel: Option<String>,
    /// Arguments by position (`["x", "y[0:n]", 2.0]`) or by parameter name; one left out is the tensor or dim of its name.
    pub args: Option<Args>,
    /// Total threads, x first; blocks are counted from them and the kernel's `block`. May use `round`.
    pub threads: Option<Vec<Int>>,
    /// Blocks, x first. May use `round`. Zero blocks is no launch.
    pub grid: Option<Vec<Int>>,
    /// Copies this tensor or view.
    pub copy: Option<String>,
    /// With `copy`: the tensor or view that is written.
    pub to: Option<String>,
    /// Fills this tensor or view with one number.
    pub fill: Option<String>,
    /// With `fill`: the number.
    #[serde(rename = "with")]
    pub value: Option<Num>,
    /// Repeats `do` with a variable, from the first number up to but not including the second.
    #[serde(rename = "for")]
    #[schemars(example = &serde_json::json!({ "i": "0:n" }))]
    pub each: Option<IndexMap<String, String>>,
    /// With `for`: the steps of one turn.
    #[serde(rename = "do")]
    pub body: Option<Vec<Step>>,
}
