//! The small values of a spec: a number or an expression, and a value per backend.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::per_backend::{DEFINE_KEYS, EMPTY_TABLE, PerBackend, read_table};
use crate::tensor::Dtype;

/// A number, or an expression in quotes.
#[derive(Clone, PartialEq, Debug)]
pub enum Num {
    Int(i128),
    Float(f64),
    Bool(bool),
    Text(String),
}

impl<'de> Deserialize<'de> for Num {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Num, D::Error> {
        struct NumVisitor;
        impl Visitor<'_> for NumVisitor {
            type Value = Num;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or an expression in quotes")
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<Num, E> {
                Ok(Num::Int(v.into()))
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<Num, E> {
                Ok(Num::Int(v.into()))
            }
            fn visit_i128<E: Error>(self, v: i128) -> Result<Num, E> {
                Ok(Num::Int(v))
            }
            fn visit_f64<E: Error>(self, v: f64) -> Result<Num, E> {
                Ok(Num::Float(v))
            }
            fn visit_bool<E: Error>(self, v: bool) -> Result<Num, E> {
                Ok(Num::Bool(v))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Num, E> {
                Ok(Num::Text(v.to_string()))
            }
        }
        deserializer.deserialize_any(NumVisitor)
    }
}

impl JsonSchema for Num {
    fn schema_name() -> Cow<'static, str> {
        "Num".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "A number, or an expression in quotes.", "type": ["number", "string", "boolean"] })
    }
}

/// An integer, or an integer expression in quotes.
#[derive(Clone, PartialEq, Debug)]
pub enum Int {
    Int(i128),
    Text(String),
}

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Int, D::Error> {
        struct IntVisitor;
        impl Visitor<'_> for IntVisitor {
            type Value = Int;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or an integer expression in quotes")
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<Int, E> {
                Ok(Int::Int(v.into()))
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<Int, E> {
                Ok(Int::Int(v.into()))
            }
            fn visit_i128<E: Error>(self, v: i128) -> Result<Int, E> {
                Ok(Int::Int(v))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Int, E> {
                Ok(Int::Text(v.to_string()))
            }
        }
        deserializer.deserialize_any(IntVisitor)
    }
}

impl JsonSchema for Int {
    fn schema_name() -> Cow<'static, str> {
        "Int".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "An integer, or an integer expression over dims in quotes.", "type": ["integer", "string"] })
    }
}

/// Numbers, nested as the tensor's dimensions or flat.
#[derive(Clone, PartialEq, Debug)]
pub enum Nested {
    Num(Num),
    List(Vec<Nested>),
}

impl<'de> Deserialize<'de> for Nested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Nested, D::Error> {
        struct NestedVisitor;
        impl<'de> Visitor<'de> for NestedVisitor {
            type Value = Nested;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, an expression in quotes, or a list of them")
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<Nested, E> {
                Ok(Nested::Num(Num::Int(v.into())))
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<Nested, E> {
                Ok(Nested::Num(Num::Int(v.into())))
            }
            fn visit_i128<E: Error>(self, v: i128) -> Result<Nested, E> {
                Ok(Nested::Num(Num::Int(v)))
            }
            fn visit_f64<E: Error>(self, v: f64) -> Result<Nested, E> {
                Ok(Nested::Num(Num::Float(v)))
            }
            fn visit_bool<E: Error>(self, v: bool) -> Result<Nested, E> {
                Ok(Nested::Num(Num::Bool(v)))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Nested, E> {
                Ok(Nested::Num(Num::Text(v.to_string())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Nested, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Nested::List(list))
            }
        }
        deserializer.deserialize_any(NestedVisitor)
    }
}

impl JsonSchema for Nested {
    fn schema_name() -> Cow<'static, str> {
        "Nested".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<Nested>();
        json_schema!({
            "description": "A number, an expression in quotes, or a list of them.",
            "type": ["number", "string", "boolean", "array"],
            "items": item
        })
    }
}

/// A macro of a kernel: a number, an expression over dims, or text as it stands.
#[derive(Clone, PartialEq, Debug)]
pub enum Define {
    Num(PerBackend<Num>),
    Text(String),
}

impl<'de> Deserialize<'de> for Define {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Define, D::Error> {
        struct DefineVisitor;
        impl<'de> Visitor<'de> for DefineVisitor {
            type Value = Define;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, an expression in quotes, { text = \"...\" }, or a table with one per backend")
            }
            fn visit_bool<E: Error>(self, v: bool) -> Result<Define, E> {
                Ok(Define::Num(PerBackend::All(Num::Bool(v))))
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<Define, E> {
                Ok(Define::Num(PerBackend::All(Num::Int(v.into()))))
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<Define, E> {
                Ok(Define::Num(PerBackend::All(Num::Int(v.into()))))
            }
            fn visit_i128<E: Error>(self, v: i128) -> Result<Define, E> {
                Ok(Define::Num(PerBackend::All(Num::Int(v))))
            }
            fn visit_f64<E: Error>(self, v: f64) -> Result<Define, E> {
                Ok(Define::Num(PerBackend::All(Num::Float(v))))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Define, E> {
                Ok(Define::Num(PerBackend::All(Num::Text(v.to_string()))))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Define, A::Error> {
                let Some(key) = map.next_key::<String>()? else {
                    return Err(A::Error::custom(format!("{EMPTY_TABLE}: write {{ text = \"...\" }} or a value per backend")));
                };
                if key != "text" {
                    return read_table(map, Some(key), DEFINE_KEYS).map(Define::Num);
                }
                let text = map.next_value()?;
                match map.next_key::<String>()? {
                    None => Ok(Define::Text(text)),
                    Some(other) => Err(A::Error::unknown_field(&other, &["text"])),
                }
            }
        }
        deserializer.deserialize_any(DefineVisitor)
    }
}

impl JsonSchema for Define {
    fn schema_name() -> Cow<'static, str> {
        "Define".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let num = generator.subschema_for::<PerBackend<Num>>();
        json_schema!({
            "description": "A number, an expression over dims, or { text = \"...\" } for text as it stands.",
            "anyOf": [num, {
                "type": "object",
                "properties": { "text": { "type": "string", "description": "The macro's text, as it stands." } },
                "required": ["text"],
                "additionalProperties": false
            }]
        })
    }
}

/// A dtype, or a name of `[types]`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(transparent)]
pub struct TypeName(pub String);

impl JsonSchema for TypeName {
    fn schema_name() -> Cow<'static, str> {
        "TypeName".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let dtype = generator.subschema_for::<Dtype>();
        json_schema!({ "description": "A dtype, or a name of [types].", "anyOf": [dtype, { "type": "string" }] })
    }
}

/// Arguments by position or by name.
#[derive(Clone, PartialEq, Debug)]
pub enum Args {
    Positional(Vec<Nested>),
    Named(indexmap::IndexMap<String, Nested>),
}

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Args, D::Error> {
        struct ArgsVisitor;
        impl<'de> Visitor<'de> for ArgsVisitor {
            type Value = Args;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of arguments, or a table of them by parameter name")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Args, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Args::Positional(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Args, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Args::Named)
            }
        }
        deserializer.deserialize_any(ArgsVisitor)
    }
}

impl JsonSchema for Args {
    fn schema_name() -> Cow<'static, str> {
        "Args".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let num = generator.subschema_for::<Nested>();
        json_schema!({
            "description": "Arguments in the order of `params`, or a table of them by parameter name; one left out is the tensor or dim of its name.",
            "anyOf": [{ "type": "array", "items": num }, { "type": "object", "additionalProperties": num }]
        })
    }
}
