//! `[[sets]]` and `[[checks]]`.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Data, Int, Nested, Num};

/// Named contents for the rounds that use them; rounds cycle through the sets.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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

/// One claim about one tensor, which must hold after every round.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The tensor that is read back and compared.
    pub tensor: Option<String>,
    /// What it must be: an expression over the tensors as they were at the start of the round, or `{ values }`, `{ fill }`, `{ file }`.
    /// Without it: the set's `expect`.
    pub expect: Option<Expect>,
    /// Bit for bit, after the expectation was rounded once to the dtype; -0 equals +0.
    #[serde(default)]
    pub exact: bool,
    /// Relative tolerance: |got - want| <= atol + rtol * |want|. Alone: atol is 0.
    pub rtol: Option<Num>,
    /// Absolute tolerance. Alone: rtol is 0.
    pub atol: Option<Num>,
    /// Largest distance in units in the last place, after the expectation was rounded to the dtype.
    pub ulp: Option<Int>,
    /// So many elements may be out of tolerance. Default: 0.
    pub max_mismatches: Option<Int>,
    /// `"equal"`: NaN matches NaN. Default: NaN never passes.
    pub nan: Option<NanPolicy>,
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
