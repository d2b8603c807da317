//! Languages that kernels for the CPU are written in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Language of a kernel's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Lang {
    /// C
    #[serde(rename = "c")]
    C,
    /// C++
    #[serde(rename = "c++")]
    Cxx,
    /// Rust
    #[serde(rename = "rust")]
    Rust,
}

impl Lang {
    pub const ALL: [Lang; 3] = [Lang::C, Lang::Cxx, Lang::Rust];

    /// The name that specs use.
    pub const fn name(self) -> &'static str {
        match self {
            Lang::C => "c",
            Lang::Cxx => "c++",
            Lang::Rust => "rust",
        }
    }

    /// What a person calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Lang::C => "C",
            Lang::Cxx => "C++",
            Lang::Rust => "Rust",
        }
    }

    /// Suffixes of its source files, without the point.
    pub const fn suffixes(self) -> &'static [&'static str] {
        match self {
            Lang::C => &["c"],
            Lang::Cxx => &["cpp", "cc", "cxx"],
            Lang::Rust => &["rs"],
        }
    }

    /// The language of a file with that suffix.
    pub fn of_suffix(suffix: &str) -> Option<Lang> {
        Lang::ALL.into_iter().find(|lang| lang.suffixes().contains(&suffix))
    }
}
