//! `[tensors.NAME]` and the sources of contents.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Int, Nested, Num, TypeName};

/// A tensor: name, dtype and shape, and where its contents come from.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Tensor {
    /// Element type: a dtype, or a name of `[types]`.
    pub dtype: TypeName,
    /// Extents, slowest dimension first; `[]` is a scalar, passed by value where a scalar parameter stands.
    pub shape: Vec<Int>,
    /// Contents that are the same in every round. What steps write starts every round with them again.
    pub data: Option<Data>,
    /// Contents that are drawn anew every round.
    pub each_round: Option<Data>,
    /// Keeps what the last round left; starts from `data`.
    #[serde(default)]
    pub carry: bool,
}

/// Where contents come from: exactly one source.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Every element 0.
    Zeros,
    /// Every element 1.
    Ones,
    /// Every element this number.
    Fill(Num),
    /// These numbers, flat in row-major order or nested as the shape.
    Values(Vec<Nested>),
    /// These numbers again and again, in row-major order, until the tensor is full.
    Repeat(Vec<Num>),
    /// start, start + step, start + 2 step, ...
    Range(Range),
    /// Uniform random floats in [low, high).
    Uniform(Uniform),
    /// Normal random floats.
    Normal(Normal),
    /// Uniform random integers, both ends included.
    Integers(Integers),
    /// An expression over dims, `index(axis)`, the contents of other tensors in the same round and, in `each_round`, `round`.
    Expr(String),
    /// An `.npy` file with this dtype and shape, relative to the spec.
    File(String),
}

impl Data {
    /// The source's name in the language.
    pub fn name(&self) -> &'static str {
        match self {
            Data::Zeros => "zeros",
            Data::Ones => "ones",
            Data::Fill(_) => "fill",
            Data::Values(_) => "values",
            Data::Repeat(_) => "repeat",
            Data::Expr(_) => "expr",
            Data::Range(_) => "range",
            Data::Uniform(_) => "uniform",
            Data::Normal(_) => "normal",
            Data::Integers(_) => "integers",
            Data::File(_) => "file",
        }
    }
}

impl Data {
    /// Whether the spec gives a number of the source, and does not leave it to its default.
    pub fn gives(&self, part: &str) -> bool {
        let numbers = match self {
            Data::Range(r) => [("start", &r.start), ("step", &r.step)],
            Data::Uniform(u) => [("low", &u.low), ("high", &u.high)],
            Data::Normal(n) => [("mean", &n.mean), ("std", &n.std)],
            Data::Integers(i) => [("low", &i.low), ("high", &i.high)],
            _ => return false,
        };
        numbers.iter().any(|(name, number)| *name == part && number.is_some())
    }
}

/// start + i * step.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Range {
    /// Element 0. Default: 0.
    pub start: Option<Num>,
    /// Default: 1.
    pub step: Option<Num>,
}

/// Uniform random floats in [low, high).
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Uniform {
    /// Default: 0.
    pub low: Option<Num>,
    /// Never reached. Default: 1.
    pub high: Option<Num>,
}

/// Normal random floats.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Normal {
    /// Default: 0.
    pub mean: Option<Num>,
    /// Standard deviation. Default: 1.
    pub std: Option<Num>,
}

/// Uniform random integers, both ends included.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Integers {
    /// Default: the dtype's smallest value.
    pub low: Option<Num>,
    /// Default: the dtype's largest value.
    pub high: Option<Num>,
}
