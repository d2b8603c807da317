//! `[rounds]` and `[limits]`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::Int;

/// How often, in which order, and with which seed.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Rounds {
    /// Rounds to run. Default: the number of sets, or 1.
    pub count: Option<Int>,
    /// Rounds before the first, with round 0's inputs; not timed, not checked. Default: 1.
    pub warmup: Option<Int>,
    /// Random contents are a function of this number. Default: 0.
    pub seed: Option<Int>,
    /// How rounds go through the sets. Default: `"cycle"`.
    pub order: Option<Order>,
}

/// How rounds go through the sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// In the order of the file, again and again.
    #[default]
    Cycle,
    /// Each pass through the sets in another order, a function of the seed.
    Shuffle,
}

/// Time and memory that the job may take.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Limits {
    /// Time for building one kernel, such as `"30s"`. Default: 120 s.
    pub compile: Option<Span>,
    /// Time for filling one round's inputs. Default: 60 s.
    pub prepare: Option<Span>,
    /// Time for one round on the device. Default: 60 s.
    pub run: Option<Span>,
    /// Time for checking one round. Default: 60 s.
    pub check: Option<Span>,
    /// Device memory, such as `"2GiB"`. Default: what the device has.
    pub device_memory: Option<ByteSize>,
    /// Host memory, such as `"4GiB"`. Default: what the machine has.
    pub host_memory: Option<ByteSize>,
}

/// A length of time: a number with `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Span(pub Duration);

/// A number of bytes: a number with `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB` or `B`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteSize(pub u64);

/// A number and its unit, with the unit's factor; nothing for a number that is not finite and positive.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')?;
    let number: f64 = text[..digits].replace('_', "").parse().ok()?;
    let (_, factor) = units.iter().find(|(unit, _)| *unit == text[digits..].trim_start())?;
    let value = number * factor;
    (value.is_finite() && value > 0.0).then_some(value)
}

macro_rules! quantity {
    ($name:ident, $expecting:literal, $example:literal, $parse:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct TextVisitor;
                impl Visitor<'_> for TextVisitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<$name, E> {
                        let parse: fn(&str) -> Option<$name> = $parse;
                        parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_any(TextVisitor)
            }
        }
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "examples": [$example] })
            }
        }
    };
}

quantity!(Span, "a time such as \"500ms\", \"5s\", \"2m\" or \"1h\"", "5s", |text| {
    let seconds = scaled(text, &[("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)])?;
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= Duration::from_secs(365 * 86400)).map(Span)
});

quantity!(ByteSize, "a size such as \"512MiB\" or \"2GiB\"", "2GiB", |text| {
    const UNITS: &[(&str, f64)] = &[
        ("B", 1.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", 1024.0),
        ("MiB", 1048576.0),
        ("GiB", 1073741824.0),
        ("TiB", 1099511627776.0),
    ];
    scaled(text, UNITS).filter(|bytes| *bytes < 2f64.powi(63)).map(|bytes| ByteSize(bytes as u64))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let span = |text: &str| serde_json::from_value::<Span>(text.into()).ok().map(|s| s.0);
        assert_eq!(span("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(span("1.5 s"), Some(Duration::from_millis(1500)));
        for bad in ["", "5", "s", "-1s", "0s", "5 minutes", "1e9s", "9999999999999h", "nan"] {
            assert_eq!(span(bad), None, "{bad}");
        }
        let size = |text: &str| serde_json::from_value::<ByteSize>(text.into()).ok().map(|s| s.0);
        assert_eq!(size("2GiB"), Some(2 << 30));
        assert_eq!(size("1_000kB"), Some(1_000_000));
        for bad in ["2", "GiB", "2gb", "9999999999TiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
