//! `requires` -> what a device must have, and whether a device has it.

use super::names::Resolver;
use crate::device::Caps;
use crate::diag::{Diagnostic, Place, nearest};
use crate::tensor::Dtype;

/// A limit's name, and its value on a device.
type Limit = (&'static str, fn(&Caps) -> u64);

/// Limits that may be asked for, with their values on a device.
const LIMITS: &[Limit] = &[("max_block", |caps| caps.max_block)];

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
            Requirement::AtLeast { what, value } => match LIMITS.iter().find(|(name, _)| name == what) {
                Some((_, of)) => {
                    let has = of(caps);
                    let met = value.parse::<u64>().is_ok_and(|least| has >= least);
                    (!met).then(|| format!("the job requires `{what} >= {value}`, on `{}` it is {has}", caps.backend))
                }
                None => Some(format!("the job requires `{what} >= {value}`, and `{}` has no `{what}`", caps.backend)),
            },
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
        if !is_word(what) || value.is_some_and(|value| !is_version(value)) {
            self.report(
                Diagnostic::error("bad-requirement", at.clone(), format!("`{text}` is not a requirement"))
                    .help("write a feature, such as \"f16\" or \"sm_90\", or a limit, such as \"max_block >= 256\""),
            );
            return None;
        }
        let limit = LIMITS.iter().any(|(name, _)| *name == what);
        if limit && value.is_none_or(|value| value.parse::<u64>().is_err()) {
            self.report(
                Diagnostic::error("bad-requirement", at.clone(), format!("`{what}` is a limit, it is at least a whole number"))
                    .help(format!("write \"{what} >= 256\"")),
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
        let known: Vec<&str> = Dtype::ALL.iter().map(|d| d.name()).chain(LIMITS.iter().map(|l| l.0)).collect();
        if !dtype
            && !limit
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
