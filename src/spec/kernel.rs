//! `[kernels.NAME]`.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Define, Int, PerBackend};
use crate::tensor::Lang;

/// A kernel: an entry point with its parameter list.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Kernel {
    /// Parameters in launch order, like the C signature: `in|out|inout TYPE name` (tensor), `TYPE name` (scalar),
    /// `local TYPE[len] name` (block-local scratch, takes no argument), `struct tag { u32 n, f32 alpha } name` (by value),
    /// `null` (a null pointer, takes no argument). TYPE is a dtype or a name of `[types]`, with lanes if need be: `f32x4`.
    #[schemars(example = &serde_json::json!(["in f32 x", "inout f32 y", "f32 a", "u32 n"]))]
    pub params: Vec<String>,
    /// Where the kernel's source is: a path relative to the spec (its suffix says for which backend: `.c`, `.cpp`, `.rs`,
    /// `.so`, `.cl`, `.cu`, `.ptx`, `.cubin`), one per backend, or the text itself: `{ cpu = { text = '''...''' } }`.
    pub source: Option<PerBackend<Source>>,
    /// The function's name in the source, or the symbol in a built object. In CUDA C++ also an instance of a template, such as
    /// `scale<float, 4>`. Default: the kernel's name.
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
    /// Folders for `#include` of C and C++, relative to the spec.
    #[serde(default)]
    pub include: Vec<String>,
    /// The metadata that Triton wrote beside a `.cubin` or `.ptx`: a `.json`, relative to the spec. It says the kernel's entry, block
    /// and shared memory. `params` are those of the Triton function that are no `constexpr`.
    pub triton: Option<String>,
}

/// Where a kernel's source is for one backend.
#[derive(Clone, PartialEq, Debug)]
pub enum Source {
    File(String),
    Text {
        text: String,
        /// Of `cpu` alone, where it is C when nothing is said.
        lang: Option<Lang>,
    },
}

/// Source that stands in the spec.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SourceText {
    /// The source itself; best between three quotes, so that a compiler's messages have the spec's lines.
    text: String,
    /// Its language, of `cpu` alone. Default: `"c"`.
    lang: Option<Lang>,
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
        struct SourceVisitor;
        impl<'de> Visitor<'de> for SourceVisitor {
            type Value = Source;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path in quotes, or { text = \"...\" }")
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Source, E> {
                Ok(Source::File(v.to_string()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                let SourceText { text, lang } = SourceText::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Source::Text { text, lang })
            }
        }
        deserializer.deserialize_any(SourceVisitor)
    }
}

impl JsonSchema for Source {
    fn schema_name() -> Cow<'static, str> {
        "Source".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let text = generator.subschema_for::<SourceText>();
        json_schema!({
            "description": "A path relative to the spec, or the source itself: { text = \"...\" }.",
            "anyOf": [{ "type": "string" }, text]
        })
    }
}
