//! `requires` -> what a device must have, and whether a device has it.

use std::cmp::Ordering;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use super::names::Resolver;
use crate::device::Caps;
use crate::diag::{Diagnostic, Place, nearest};
use crate::spec::ByteSize;
use crate::tensor::Dtype;

/// A limit's name, its value on a device, and an example of what may be asked.
type Limit = (&'static str, fn(&Caps) -> u64, &'static str);

/// Limits that may be asked for. Those of bytes may have a unit.
const LIMITS: &[Limit] = &[
    ("max_block", |caps| caps.max_block, "256"),
    ("memory", |caps| caps.memory, "2GiB"),
    ("largest_alloc", |caps| caps.largest_alloc, "512MiB"),
];

/// Names of versions that backends are known to have, and an example of each: `cuda` is the driver's, `sm` the compute capability.
const VERSIONS: &[(&str, &str)] = &[("opencl", "1.2"), ("opencl_c", "1.2"), ("cuda", "12.4"), ("sm", "9.0")];

/// What a limit must at least be: a whole number, or of those in bytes one with a unit.
fn least(limit: &Limit, value: &str) -> Option<u64> {
    let of_bytes = || {
        let text: StrDeserializer<'_, Error> = value.into_deserializer();
        ByteSize::deserialize(text).ok().map(|size| size.0)
    };
    value.parse().ok().or_else(|| if limit.2.ends_with('B') { of_bytes() } else { None })
}

/// Compares versions number by number; what is not there is 0.
fn compare(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| text.split('.').map(|part| part.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
    let (a, b) = (numbers(a), numbers(b));
    let at = |numbers: &[u64], i: usize| numbers.get(i).copied().unwrap_or(0);
    (0..a.len().max(b.len())).map(|i| at(&a, i).cmp(&at(&b, i))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Something that a device must have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Requirement {
    /// A dtype, or a word of one backend.
    Feature(String),
    /// A limit, or a version of one backend's language, of at least so much.
    AtLeast { what: String, value: String },
}

impl Requirement {
    /// Why a device does not have it; `None` where it does. What a device says nothing of it does not have.
    pub fn unmet(&self, caps: &Caps) -> Option<String> {
        match self {
            Requirement::Feature(word) => {
                let met = caps.features.iter().any(|feature| feature == word);
                (!met).then(|| format!("the job requires `{word}`, which `{}` does not have", caps.backend))
            }
            Requirement::AtLeast { what, value } => {
                let here = caps.backend;
                let (met, has) = match LIMITS.iter().find(|(name, ..)| name == what) {
                    Some(limit) => (least(limit, value).is_some_and(|least| limit.1(caps) >= least), limit.1(caps).to_string()),
                    None => match caps.versions.iter().find(|(name, _)| name == what) {
                        Some((_, has)) => (compare(has, value).is_ge(), has.clone()),
                        None => return Some(format!("the job requires `{what} >= {value}`, and `{here}` has no `{what}`")),
                    },
                };
                (!met).then(|| format!("the job requires `{what} >= {value}`, on `{here}` it is {has}"))
            }
        }
    }
}

impl Resolver<'_> {
    pub(super) fn requirements(&self) -> Vec<Requirement> {
        let at = Place::root().to("requires");
        self.spec.requires.iter().enumerate().filter_map(|(index, text)| self.requirement(&at.to(index), text)).collect()
    }

    fn requirement(&self, at: &Place, text: &str) -> Option<Requirement> {
        let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let is_version =
            |value: &str| !value.is_empty() && value.split('.').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()));
        let (what, value) = match text.split_once(">=") {
            Some((what, value)) => (what.trim(), Some(value.trim())),
            None => (text.trim(), None),
        };
        let limit = LIMITS.iter().find(|(name, ..)| *name == what);
        if !is_word(what) || value.is_some_and(|value| limit.is_none() && !is_version(value)) {
            self.report(
                Diagnostic::error("bad-requirement", at.clone(), format!("`{text}` is not a requirement")).help(
                    "write a feature, such as \"f16\" or \"sm_90\", a version, such as \"opencl_c >= 1.2\", or a limit, such as \"max_block >= 256\"",
                ),
            );
            return None;
        }
        if let Some(limit) = limit
            && value.is_none_or(|value| least(limit, value).is_none())
        {
            let unit = if limit.2.ends_with('B') { " of bytes" } else { "" };
            self.report(
                Diagnostic::error("bad-requirement", at.clone(), format!("`{what}` is a limit, it is at least a whole number{unit}"))
                    .help(format!("write \"{what} >= {}\"", limit.2)),
            );
            return None;
        }
        let version = VERSIONS.iter().find(|(name, _)| *name == what);
        // Compute capability 9.0 is also called 90: taken for a version, no device would have it.
        let one_number = what == "sm" && value.is_some_and(|value| !value.contains('.'));
        if let Some((_, example)) = version.filter(|_| value.is_none() || one_number) {
            let rule = if one_number { "in two numbers" } else { "it is at least another" };
            self.report(
                Diagnostic::error("bad-requirement", at.clone(), format!("`{what}` is a version, {rule}"))
                    .help(format!("write \"{what} >= {example}\"")),
            );
            return None;
        }
        let dtype = Dtype::from_name(what).is_some();
        if dtype && value.is_some() {
            self.report(
                Diagnostic::error("bad-requirement", at.clone(), format!("`{what}` is a dtype, a device has it or not"))
                    .help(format!("write \"{what}\"")),
            );
            return None;
        }
        let named = LIMITS.iter().map(|l| l.0).chain(VERSIONS.iter().map(|v| v.0));
        let known: Vec<&str> = Dtype::ALL.iter().map(|d| d.name()).chain(named).collect();
        if !dtype
            && limit.is_none()
            && version.is_none()
            && let Some(near) = nearest(what, &known)
        {
            self.report(
                Diagnostic::warning(
                    "unknown-feature",
                    at.clone(),
                    format!("no device is known to have `{what}`: the job is skipped everywhere"),
                )
                .help(format!("did you mean `{near}`?")),
            );
        }
        Some(match value {
            Some(value) => Requirement::AtLeast { what: what.to_string(), value: value.to_string() },
            None => Requirement::Feature(what.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::cpu::{self, CpuOptions};

    fn caps() -> Caps {
        let cpu = cpu::open(CpuOptions::default()).expect("the CPU");
        Caps {
            backend: "opencl",
            max_block: 4096,
            memory: 8 << 30,
            largest_alloc: 2 << 30,
            features: vec!["f32".into(), "cl_khr_fp64".into()],
            versions: vec![("opencl_c".into(), "1.2".into())],
            ..cpu.caps().clone()
        }
    }

    #[test]
    fn requirements_are_met_by_what_a_device_says_of_itself() {
        let caps = caps();
        let unmet = |what: &str, value: &str| Requirement::AtLeast { what: what.into(), value: value.into() }.unmet(&caps);
        for (what, value, met) in [
            ("opencl_c", "1.2", true),
            ("opencl_c", "1", true),
            ("opencl_c", "1.2.0", true),
            ("opencl_c", "1.1.9", true),
            ("opencl_c", "1.10", false),
            ("opencl_c", "2.0", false),
            ("cuda_c", "1.0", false),
            ("max_block", "4096", true),
            ("max_block", "4097", false),
            ("memory", "8GiB", true),
            ("memory", "8589934593", false),
            ("largest_alloc", "2GiB", true),
            ("largest_alloc", "2.5GiB", false),
        ] {
            assert_eq!(unmet(what, value).is_none(), met, "{what} >= {value}: {:?}", unmet(what, value));
        }
        assert_eq!(unmet("opencl_c", "3.0").as_deref(), Some("the job requires `opencl_c >= 3.0`, on `opencl` it is 1.2"));
        let word = |word: &str| Requirement::Feature(word.into()).unmet(&caps);
        assert_eq!((word("f32"), word("cl_khr_fp64")), (None, None));
        assert!(word("f16").is_some_and(|why| why.contains("`f16`, which `opencl` does not have")));
    }
}
