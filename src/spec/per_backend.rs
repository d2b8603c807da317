//! Values that may differ per backend.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Backend;

/// One value, or one per backend with `default` for the rest.
#[derive(Clone, PartialEq, Debug)]
pub enum PerBackend<T> {
    All(T),
    Each { of: [Option<T>; 4], default: Option<T> },
}

impl<T> PerBackend<T> {
    /// The value for a backend with the key it stands under (`None`: it is not in a table).
    pub fn get(&self, backend: Backend) -> Option<(Option<&'static str>, &T)> {
        match self {
            PerBackend::All(value) => Some((None, value)),
            PerBackend::Each { of, default } => match &of[backend as usize] {
                Some(value) => Some((Some(backend.name()), value)),
                None => default.as_ref().map(|value| (Some("default"), value)),
            },
        }
    }

    /// Every value with its key.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&'static str>, &T)> {
        let all = match self {
            PerBackend::All(value) => Some((None, value)),
            PerBackend::Each { .. } => None,
        };
        let named = Backend::ALL.into_iter().filter_map(move |b| match self {
            PerBackend::Each { of, .. } => of[b as usize].as_ref().map(|v| (Some(b.name()), v)),
            PerBackend::All(_) => None,
        });
        let default = match self {
            PerBackend::Each { default, .. } => default.as_ref().map(|v| (Some("default"), v)),
            PerBackend::All(_) => None,
        };
        all.into_iter().chain(named).chain(default)
    }
}

/// How the message of a table without keys starts.
pub(super) const EMPTY_TABLE: &str = "an empty table";

pub(super) const DEFINE_KEYS: &[&str] = &["text", "cpu", "opencl", "wgpu", "cuda", "default"];
const BACKEND_KEYS: &[&str] = &["cpu", "opencl", "wgpu", "cuda", "default"];

/// Reads the entries of a per-backend table; `first` is a key that was already taken from the map.
pub(super) fn read_table<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    mut map: A,
    first: Option<String>,
    known: &'static [&'static str],
) -> Result<PerBackend<T>, A::Error> {
    let mut of = [None, None, None, None];
    let mut default = None;
    let mut next = first;
    loop {
        let key = match next.take() {
            Some(key) => key,
            None => match map.next_key::<String>()? {
                Some(key) => key,
                None => break,
            },
        };
        match Backend::ALL.iter().position(|b| b.name() == key) {
            Some(at) => of[at] = Some(map.next_value()?),
            None if key == "default" => default = Some(map.next_value()?),
            None => return Err(A::Error::unknown_field(&key, known)),
        }
    }
    if default.is_none() && of.iter().all(Option::is_none) {
        return Err(A::Error::custom(format!("{EMPTY_TABLE}: write a value, or one per backend")));
    }
    Ok(PerBackend::Each { of, default })
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for PerBackend<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PerBackend<T>, D::Error> {
        struct TableVisitor<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for TableVisitor<T> {
            type Value = PerBackend<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, or a table with one per backend (cpu, opencl, wgpu, cuda, default)")
            }
            fn visit_bool<E: Error>(self, v: bool) -> Result<PerBackend<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerBackend::All)
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<PerBackend<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerBackend::All)
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<PerBackend<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerBackend::All)
            }
            fn visit_i128<E: Error>(self, v: i128) -> Result<PerBackend<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerBackend::All)
            }
            fn visit_f64<E: Error>(self, v: f64) -> Result<PerBackend<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerBackend::All)
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<PerBackend<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerBackend::All)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<PerBackend<T>, A::Error> {
                T::deserialize(serde::de::value::SeqAccessDeserializer::new(seq)).map(PerBackend::All)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PerBackend<T>, A::Error> {
                read_table(map, None, BACKEND_KEYS)
            }
        }
        deserializer.deserialize_any(TableVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for PerBackend<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("PerBackend_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        let on = |backend: &str| json_schema!({ "description": format!("On {backend}."), "allOf": [one] });
        json_schema!({
            "description": "One value, or a table with one value per backend; `default` serves the others.",
            "anyOf": [one, {
                "type": "object",
                "properties": {
                    "cpu": on("the CPU"),
                    "opencl": on("OpenCL devices"),
                    "wgpu": on("WebGPU devices"),
                    "cuda": on("CUDA devices"),
                    "default": on("every backend that is not named"),
                },
                "additionalProperties": false,
                "minProperties": 1
            }]
        })
    }
}
