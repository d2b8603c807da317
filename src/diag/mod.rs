//! Diagnostics: what is wrong with a spec, where, and how to mend it. As data; rendering is in `render`.

use std::ops::Range;

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
