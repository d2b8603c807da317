//! `[[sets]]` and `[[checks]]`.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Data, Int, Nested, Num, PerBackend, PerDtype};

/// Named contents for the rounds that use them; rounds cycle through the sets.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Set {
    /// Name in reports.
    pub name: Option<String>,
    /// A folder, or a pattern such as `"test_data_set_*"` that gives one set for each folder it matches, in natural order.
    /// Files of this set are relative to it.
    pub folder: Option<String>,
    /// Dims that have other values in this set. Sets with the same dims make a job of their own, with `rounds.count` rounds.
    #[serde(default)]
    pub dims: IndexMap<String, Int>,
    /// Contents of tensors in this set; they beat the tensor's own `data`.
    #[serde(default)]
    pub data: IndexMap<String, Data>,
    /// What tensors must be after a round with this set.
    #[serde(default)]
    pub expect: IndexMap<String, Expect>,
}

/// One claim, which must hold after every round: about a tensor, or, with `holds`, about all of them; or, with `kernel`, about
/// the build of a kernel.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Check {
    /// The tensor that is read back and compared; or a box of it, such as `"a[1:h-1, 1:w-1]"`: the rest is not looked at.
    pub tensor: Option<String>,
    /// What it must be: an expression over the tensors as they were at the start of the round, or `{ values }`, `{ fill }`, `{ file }`.
    /// For a box: of the tensor's shape, or of the box's. Without it: the set's `expect`.
    pub expect: Option<Expect>,
    /// Instead of `tensor`: what must be true, such as `"all(isfinite(after(y)))"`. A bare name is the contents at the start of the
    /// round, `after(y)` those at its end. NaN in an `after()` makes it false, unless it asks with `isnan` or `isfinite`.
    pub holds: Option<String>,
    /// Instead of `tensor`: the kernel whose build this is about; `build` says what must come of it. A kernel that no step
    /// launches is built for this check alone.
    pub kernel: Option<String>,
    /// With `kernel`, and needed there.
    pub build: Option<Build>,
    /// With `build = "fails"`: a part of the compiler's messages. Without it any mistake passes, a misspelt name too.
    pub log: Option<PerBackend<String>>,
    /// Equal to the expectation rounded once to the dtype; -0 equals +0.
    pub exact: Option<PerDtype<bool>>,
    /// Equal to the expectation rounded once to the dtype, bit for bit: -0 is not +0.
    pub bitwise: Option<PerDtype<bool>>,
    /// Relative tolerance: |got - want| <= atol + rtol * |want|. Alone: atol is 0.
    pub rtol: Option<PerDtype<Num>>,
    /// Absolute tolerance. Alone: rtol is 0.
    pub atol: Option<PerDtype<Num>>,
    /// Largest distance in units in the last place, after the expectation was rounded to the dtype.
    pub ulp: Option<PerDtype<Int>>,
    /// Largest norm(got - want) / norm(want) over all elements. An expectation of zeros: norm(got - want) is at most `atol`, or 0.
    pub rel_l2: Option<PerDtype<Num>>,
    /// Largest |got - want| over all elements.
    pub max_abs: Option<PerDtype<Num>>,
    /// Least cosine of the angle between all of got and all of want: 1 is the same direction. Zeros against zeros: 1; against else: 0.
    pub min_cosine: Option<PerDtype<Num>>,
    /// So many elements may be out of tolerance; none that is NaN or was never written. Default: 0.
    pub max_mismatches: Option<PerDtype<Int>>,
    /// `"equal"`: NaN matches NaN. Default: NaN never passes.
    pub nan: Option<NanPolicy>,
    /// Checked in every so many rounds, and in the last: 10 is rounds 9, 19, ... Reports count the others as not checked by request.
    pub every: Option<Int>,
    /// Only elements where this is true are compared: a `bool` tensor's name, or a condition on tensors as they were at the
    /// start of the round. Where it selects nothing, the round is an error.
    #[serde(rename = "where")]
    pub mask: Option<String>,
    /// The same elements in any order: both are sorted, then compared one by one.
    #[serde(default)]
    pub unordered: bool,
    /// Every element must be written in every round, whatever its value; needs no `expect`. Of integers: an element that is
    /// the pattern that was there before (it differs from round to round) counts as not written.
    #[serde(default)]
    pub written: bool,
    /// How close the outputs of any two devices must be, where the job runs on several. Default: as close as to what is
    /// expected.
    pub between: Option<Between>,
}

/// How close the outputs of two devices must be. The earlier one in the list of devices stands for what is expected.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Between {
    /// Equal; -0 equals +0.
    pub exact: Option<PerDtype<bool>>,
    /// Equal bit for bit: -0 is not +0.
    pub bitwise: Option<PerDtype<bool>>,
    /// Relative tolerance: |a - b| <= atol + rtol * |b|. Alone: atol is 0.
    pub rtol: Option<PerDtype<Num>>,
    /// Absolute tolerance. Alone: rtol is 0.
    pub atol: Option<PerDtype<Num>>,
    /// Largest distance in units in the last place.
    pub ulp: Option<PerDtype<Int>>,
    /// Largest norm(a - b) / norm(b) over all elements.
    pub rel_l2: Option<PerDtype<Num>>,
    /// Largest |a - b| over all elements.
    pub max_abs: Option<PerDtype<Num>>,
    /// Least cosine of the angle between all of a and all of b.
    pub min_cosine: Option<PerDtype<Num>>,
    /// So many elements may be out of tolerance. Default: 0.
    pub max_mismatches: Option<PerDtype<Int>>,
}

impl Between {
    /// A check that says as much of a tensor's expectation.
    pub fn as_check(&self, check: &Check) -> Check {
        let Between { exact, bitwise, rtol, atol, ulp, rel_l2, max_abs, min_cosine, max_mismatches } = self.clone();
        let tensor = check.tensor.clone();
        Check {
            tensor,
            nan: check.nan,
            unordered: check.unordered,
            exact,
            bitwise,
            rtol,
            atol,
            ulp,
            rel_l2,
            max_abs,
            min_cosine,
            max_mismatches,
            ..Check::default()
        }
    }
}

impl Check {
    /// The name of the tensor, without its box.
    pub fn tensor_name(&self) -> Option<&str> {
        self.tensor.as_deref().map(|text| text.split('[').next().unwrap_or(text).trim())
    }
}

/// What must come of building a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Build {
    /// It builds and can be loaded.
    Ok,
    /// The compiler refuses it. A compiler that is missing, breaks down or takes too long is an error of the job, and no pass.
    Fails,
}

/// What NaN matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NanPolicy {
    /// NaN where NaN is expected passes.
    Equal,
    /// NaN never passes, expected or not.
    Never,
}

/// What a tensor must be.
#[derive(Clone, PartialEq, Debug)]
pub enum Expect {
    Expr(String),
    Table(ExpectTable),
}

/// Expected contents that are no expression: exactly one of `values`, `fill`, `file`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectTable {
    /// These numbers, flat in row-major order or nested as the shape.
    pub values: Option<Vec<Nested>>,
    /// Every element this number.
    pub fill: Option<Num>,
    /// An `.npy` golden, relative to the spec.
    pub file: Option<String>,
    /// With `file`: the row of its leading dimension, an expression that may use `round`.
    pub at: Option<Num>,
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Expect, D::Error> {
        struct ExpectVisitor;
        impl<'de> Visitor<'de> for ExpectVisitor {
            type Value = Expect;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an expression in quotes, { values = [...] }, { fill = number } or { file = \"golden.npy\" }")
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Expect, E> {
                Ok(Expect::Expr(v.to_string()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Expect, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Expect::Table)
            }
        }
        deserializer.deserialize_any(ExpectVisitor)
    }
}

impl JsonSchema for Expect {
    fn schema_name() -> Cow<'static, str> {
        "Expect".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<ExpectTable>();
        json_schema!({
            "description": "An expression over the tensors as they were at the start of the round, or { values }, { fill }, { file }.",
            "anyOf": [{ "type": "string" }, table]
        })
    }
}
