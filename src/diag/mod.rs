//! Diagnostics: what is wrong with a spec, where, and how to mend it. As data; `source` finds the place in the
//! text, `render` prints it.

mod render;
mod source;

use std::fmt;
use std::ops::Range;

use serde::Serialize;

pub use render::{Style, render};
pub use source::{Located, Source};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    Error,
}

/// One step of a way into a TOML document.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(untagged)]
pub enum Key {
    Name(String),
    Index(usize),
}

impl From<&str> for Key {
    fn from(name: &str) -> Key {
        Key::Name(name.to_string())
    }
}

impl From<&String> for Key {
    fn from(name: &String) -> Key {
        Key::Name(name.clone())
    }
}

impl From<usize> for Key {
    fn from(index: usize) -> Key {
        Key::Index(index)
    }
}

/// Which part of an entry is meant.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Key,
    Value,
    /// A byte range within a string value.
    Inside(Range<usize>),
    /// A byte range of the whole text, where it does not parse.
    Bytes(Range<usize>),
}

/// A place in a spec, by key path, so that nothing but the printer needs the text.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Place {
    pub path: Vec<Key>,
    pub part: Part,
}

impl Place {
    /// The whole document.
    pub fn root() -> Place {
        Place { path: Vec::new(), part: Part::Value }
    }

    /// The value under a path of this place.
    pub fn to(&self, key: impl Into<Key>) -> Place {
        let mut path = self.path.clone();
        path.push(key.into());
        Place { path, part: Part::Value }
    }

    /// The key of this entry.
    pub fn key(&self) -> Place {
        Place { path: self.path.clone(), part: Part::Key }
    }

    /// A part of the string at this place.
    pub fn inside(&self, span: Range<usize>) -> Place {
        Place { path: self.path.clone(), part: Part::Inside(span) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, key) in self.path.iter().enumerate() {
            match key {
                Key::Name(name) if at > 0 => write!(f, ".{name}")?,
                Key::Name(name) => f.write_str(name)?,
                Key::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One problem of a spec.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable name of the kind of problem, such as `unknown-name`.
    pub code: &'static str,
    pub at: Place,
    /// Lowercase, names the value and the limit.
    pub message: String,
    /// Stands beside the carets.
    pub label: Option<String>,
    /// How to mend it, a sentence each.
    pub help: Vec<String>,
    /// Text that would be right at the place, for "did you mean".
    pub fix: Option<String>,
    /// Other places that explain it.
    pub also: Vec<(Place, String)>,
}

impl Diagnostic {
    pub fn error(code: &'static str, at: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code,
            at,
            message: message.into(),
            label: None,
            help: Vec::new(),
            fix: None,
            also: Vec::new(),
        }
    }

    pub fn warning(code: &'static str, at: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, at, message) }
    }

    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = Some(label.into());
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help.push(help.into());
        self
    }

    pub fn also(mut self, place: Place, label: impl Into<String>) -> Diagnostic {
        self.also.push((place, label.into()));
        self
    }

    /// Adds "did you mean" when one of the candidates is near the word, else the list of them when it is short.
    pub fn did_you_mean<S: AsRef<str>>(mut self, word: &str, candidates: &[S], what: &str) -> Diagnostic {
        if let Some(near) = nearest(word, candidates) {
            self.label = Some(format!("did you mean `{near}`?"));
            self.fix = Some(near.to_string());
        } else if !candidates.is_empty() && candidates.len() <= 24 {
            let names: Vec<_> = candidates.iter().map(|c| format!("`{}`", c.as_ref())).collect();
            self.help.push(format!("{what}: {}", names.join(", ")));
        }
        self
    }

    /// The word at the place stands for another.
    pub fn meaning(mut self, word: &str) -> Diagnostic {
        self.label = Some(format!("did you mean `{word}`?"));
        self.fix = Some(word.to_string());
        self
    }

    /// As `did_you_mean`, for a word that does not stand at the place itself.
    pub fn did_you_mean_text<S: AsRef<str>>(self, word: &str, candidates: &[S], what: &str) -> Diagnostic {
        let mut diagnostic = self.did_you_mean(word, candidates, what);
        if let Some(near) = diagnostic.fix.take() {
            diagnostic.label = None;
            diagnostic.help.push(format!("did you mean `{near}`?"));
        }
        diagnostic
    }

    /// A problem inside the string at `at`.
    pub fn inside(code: &'static str, at: &Place, error: TextError) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(code, at.inside(error.span), error.message);
        diagnostic.help.extend(error.help);
        match error.unknown {
            Some((word, candidates)) => diagnostic.did_you_mean(&word, &candidates, "known here"),
            None => diagnostic,
        }
    }
}

/// The candidate that a misspelt word most likely stands for: Damerau-Levenshtein distance of at most a third of its
/// length. A single letter is as near to any other, so only its case may differ.
pub fn nearest<'a, S: AsRef<str>>(word: &str, candidates: &'a [S]) -> Option<&'a str> {
    let letters = word.chars().count();
    let limit = (letters / 3).max(1);
    candidates
        .iter()
        .map(|c| (strsim::damerau_levenshtein(word, c.as_ref()), c.as_ref()))
        .filter(|&(distance, candidate)| distance <= limit && candidate != word)
        .filter(|(_, candidate)| letters > 1 || candidate.eq_ignore_ascii_case(word))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// What is wrong inside one string of a spec (an expression, a parameter, a view), and where in it.
#[derive(Clone, PartialEq, Debug)]
pub struct TextError {
    /// Byte range within the string.
    pub span: Range<usize>,
    /// Lowercase, names the value and the limit.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// A word that is not known, with the words that could stand there, for "did you mean".
    pub unknown: Option<(String, Vec<String>)>,
}

impl TextError {
    pub fn new(span: Range<usize>, message: impl Into<String>) -> TextError {
        TextError { span, message: message.into(), help: None, unknown: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> TextError {
        self.help = Some(help.into());
        self
    }

    pub fn unknown(mut self, word: impl Into<String>, candidates: Vec<String>) -> TextError {
        self.unknown = Some((word.into(), candidates));
        self
    }
}

impl std::fmt::Display for TextError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TextError {}
