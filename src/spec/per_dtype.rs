//! Values that may differ per dtype.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::per_backend::EMPTY_TABLE;
use crate::tensor::Dtype;

/// One value, or one per dtype with `default` for the rest.
#[derive(Clone, PartialEq, Debug)]
pub enum PerDtype<T> {
    All(T),
    Each { of: Vec<(Dtype, T)>, default: Option<T> },
}

impl<T> PerDtype<T> {
    /// Every value with its dtype and its key; the one for all others has no dtype, the one without a table no key.
    pub fn iter(&self) -> impl Iterator<Item = (Option<Dtype>, Option<&'static str>, &T)> {
        let (all, of, default) = match self {
            PerDtype::All(value) => (Some(value), &[][..], None),
            PerDtype::Each { of, default } => (None, of.as_slice(), default.as_ref()),
        };
        let all = all.into_iter().map(|value| (None, None, value));
        let each = of.iter().map(|(dtype, value)| (Some(*dtype), Some(dtype.name()), value));
        all.chain(each).chain(default.into_iter().map(|value| (None, Some(DEFAULT), value)))
    }
}

const DEFAULT: &str = "default";

const KEYS: [&str; Dtype::ALL.len() + 1] = {
    let mut keys = [DEFAULT; Dtype::ALL.len() + 1];
    let mut at = 0;
    while at < Dtype::ALL.len() {
        keys[at] = Dtype::ALL[at].name();
        at += 1;
    }
    keys
};

impl<'de, T: DeserializeOwned> Deserialize<'de> for PerDtype<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PerDtype<T>, D::Error> {
        struct TableVisitor<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for TableVisitor<T> {
            type Value = PerDtype<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, or a table with one per dtype, such as { f16 = 1e-3, default = 1e-6 }")
            }
            fn visit_bool<E: Error>(self, v: bool) -> Result<PerDtype<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerDtype::All)
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<PerDtype<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerDtype::All)
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<PerDtype<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerDtype::All)
            }
            fn visit_i128<E: Error>(self, v: i128) -> Result<PerDtype<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerDtype::All)
            }
            fn visit_f64<E: Error>(self, v: f64) -> Result<PerDtype<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerDtype::All)
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<PerDtype<T>, E> {
                T::deserialize(v.into_deserializer()).map(PerDtype::All)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PerDtype<T>, A::Error> {
                let (mut of, mut default) = (Vec::new(), None);
                while let Some(key) = map.next_key::<String>()? {
                    match Dtype::from_name(&key) {
                        Some(dtype) => of.push((dtype, map.next_value()?)),
                        None if key == DEFAULT => default = Some(map.next_value()?),
                        None => return Err(A::Error::unknown_field(&key, &KEYS)),
                    }
                }
                if of.is_empty() && default.is_none() {
                    return Err(A::Error::custom(format!("{EMPTY_TABLE}: write a value, or one per dtype")));
                }
                Ok(PerDtype::Each { of, default })
            }
        }
        deserializer.deserialize_any(TableVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for PerDtype<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("PerDtype_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        let of = |key: &str| match key {
            DEFAULT => "Of every dtype that is not named.".to_string(),
            dtype => format!("Of {dtype}."),
        };
        let property = |key: &&str| (key.to_string(), serde_json::json!({ "description": of(key), "allOf": [one] }));
        let properties: serde_json::Map<String, serde_json::Value> = KEYS.iter().map(property).collect();
        json_schema!({
            "description": "One value, or a table with one value per dtype; `default` serves the others.",
            "anyOf": [one, {
                "type": "object",
                "properties": properties,
                "additionalProperties": false,
                "minProperties": 1
            }]
        })
    }
}
