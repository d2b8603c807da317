//! `[[steps]]`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Args, Backend, Int, Num};

/// One action of a round: exactly one of `kernel`, `copy`, `fill`, `for`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Step {
    /// What `after` of later steps calls this one.
    pub name: Option<String>,
    /// Names of earlier steps that this one waits for, besides those that its reads and writes make it wait for. Of a
    /// step in a loop it is the last turn so far. Adds to the order, never takes from it.
    pub after: Option<Vec<String>>,
    /// Keeps the step to these backends; on others it is as if it were not there.
    pub on: Option<Vec<Backend>>,
    /// Keeps the step to dims (and loop variables) for which this holds, such as `"splits > 1"`.
    pub when: Option<Num>,
    /// Launches this kernel.
    pub kernel: Option<String>,
    /// Arguments by position (`["x", "y[0:n]", 2.0]`) or by parameter name; one left out is the tensor or dim of its name.
    /// A tensor, a view, `"w as u32"` (the same bytes as another dtype), a number or an expression; a list for a struct or for lanes.
    pub args: Option<Args>,
    /// Total threads, x first; blocks are counted from them and the kernel's `block`. May use `round`.
    pub threads: Option<Vec<Int>>,
    /// Blocks, x first. May use `round`. Zero blocks is no launch.
    pub grid: Option<Vec<Int>>,
    /// Where threads start to count, x first. May use `round`. `cpu` and `opencl` have it.
    pub offset: Option<Vec<Int>>,
    /// Allows the same bytes under `in` and `out` parameters.
    #[serde(default)]
    pub overlap: bool,
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
