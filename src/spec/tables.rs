//! Tables of the spec are written as tables: derived code alone would take an array for one, its values by position.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Bench, Between, Check, Device, Integers, Kernel, Limits, Normal, Range, Rounds, Set, Spec, Step, Tensor, Uniform};

/// Reads types by what `#[serde(remote = "Self")]` derives for them, from tables alone.
macro_rules! tables {
    ($($name:ident: $expecting:literal),* $(,)?) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct TableVisitor;
                impl<'de> Visitor<'de> for TableVisitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        // The inherent function that is derived, not this trait's.
                        $name::deserialize(MapAccessDeserializer::new(map))
                    }
                }
                deserializer.deserialize_map(TableVisitor)
            }
        }
    )*};
}

tables! {
    Spec: "a table",
    Device: "a table such as { match = \"part of a name\" }",
    Kernel: "a table",
    Tensor: "a table",
    Step: "a table",
    Rounds: "a table",
    Set: "a table",
    Check: "a table",
    Between: "a table such as { ulp = 2 }",
    Limits: "a table",
    Bench: "a table",
    Range: "a table such as { start = 0, step = 1 }",
    Uniform: "a table such as { low = 0.0, high = 1.0 }",
    Normal: "a table such as { mean = 0.0, std = 1.0 }",
    Integers: "a table such as { low = 0, high = 9 }",
}
