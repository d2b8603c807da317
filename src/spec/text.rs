//! What is looked at in a spec's text itself: nesting that no parser should follow, syntax errors in plain words, and
//! forms of TOML that editors refuse.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::diag::{Diagnostic, Key, Part, Place};

/// Keys, lists and tables nested deeper than this are refused, before a parser recurses into them.
const DEEPEST: usize = 64;

/// The byte where brackets and dotted keys nest too deep, strings and comments left out.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut scan = Brackets::default();
    let mut at = 0;
    while at < bytes.len() {
        let next = scan.step(bytes, at);
        if scan.depth() > DEEPEST {
            return Some(at);
        }
        at = next;
    }
    None
}

/// The bracket that is open at a byte, the innermost one.
fn open_bracket(text: &str, end: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut scan = Brackets::default();
    let mut at = 0;
    while at < end.min(bytes.len()) {
        at = scan.step(bytes, at);
    }
    scan.open.last().map(|(at, _)| *at)
}

/// Open brackets, each with its place and the dots of the key before it.
#[derive(Default)]
struct Brackets {
    open: Vec<(usize, usize)>,
    below: usize,
    dots: usize,
}

impl Brackets {
    fn depth(&self) -> usize {
        self.below + self.dots
    }

    /// Passes one byte, string or comment; returns the byte after it.
    fn step(&mut self, bytes: &[u8], at: usize) -> usize {
        match bytes[at] {
            b'#' => return bytes[at..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n),
            quote @ (b'"' | b'\'') => return string_end(bytes, at, quote),
            b'[' | b'{' => {
                self.open.push((at, self.dots));
                self.below += 1 + self.dots;
                self.dots = 0;
            }
            b']' | b'}' => {
                if let Some((_, dots)) = self.open.pop() {
                    self.below -= 1 + dots;
                    self.dots = dots;
                }
            }
            b'.' => self.dots += 1,
            b'\n' | b',' => self.dots = 0,
            _ => {}
        }
        at + 1
    }
}
/// The byte after a string that starts at `at`.
fn string_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let triple = bytes[at..].starts_with(&[quote; 3]);
    let mut i = at + if triple { 3 } else { 1 };
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if quote == b'"' => i += 1,
            b'\n' if !triple => return i,
            b if b == quote && !triple => return i + 1,
            b if b == quote && bytes[i..].starts_with(&[quote; 3]) => return i + 3,
            _ => {}
        }
        i += 1;
    }
    bytes.len()
}

/// A syntax error at its place, in the words of a person who edits specs.
pub(super) fn syntax(text: &str, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let end = span.end.clamp(start, text.len());
    let end = if text.is_char_boundary(end) { end } else { start };
    let place = Place { path: Vec::new(), part: Part::Bytes(start..end) };
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let found = &text[start..end];
    if message.contains("string values must be quoted") && !found.is_empty() && !found.contains('\n') {
        let found = found.trim();
        return Diagnostic::error("syntax", place, format!("`{found}` is not in quotes")).help(format!("a text is written `\"{found}\"`"));
    }
    if message.contains("string values must be quoted")
        && let Some(equals) = text[..start].rfind('=')
    {
        let place = Place { path: Vec::new(), part: Part::Bytes(equals..equals + 1) };
        return Diagnostic::error("syntax", place, "a value is missing after `=`");
    }
    let message = message.strip_suffix(", expected nothing").unwrap_or(&message);
    let array = message.contains("array");
    let mut diagnostic = Diagnostic::error("syntax", place, message);
    if message.contains("duplicate key") {
        diagnostic = diagnostic.help("a table or key may be written once; merge the two");
    } else if message.contains("invalid basic string") {
        diagnostic = diagnostic.help("a string ends on its line, with `\"`; one over several lines stands between `\"\"\"`");
    } else if array && let Some(open) = open_bracket(text, start) {
        let place = Place { path: Vec::new(), part: Part::Bytes(open..open + 1) };
        diagnostic = diagnostic.help("an array ends with `]`").also(place, "this array is open");
    }
    diagnostic
}

/// Refuses inline tables with line breaks between their entries: TOML 1.1 has them, editors refuse them.
pub(super) fn multi_line_tables(text: &str, root: &DeTable<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let mut stack: Vec<(Vec<Key>, Range<usize>, &DeValue<'_>)> = Vec::new();
    let push_table = |stack: &mut Vec<_>, path: &[Key], table| {
        let table: &DeTable<'_> = table;
        for (key, value) in table.iter() {
            let mut path = path.to_vec();
            path.push(Key::Name(key.get_ref().to_string()));
            stack.push((path, value.span(), value.get_ref()));
        }
    };
    // The walk keeps references into the root, so the roots of the stack are laid down first.
    for (key, value) in root.iter() {
        stack.push((vec![Key::Name(key.get_ref().to_string())], value.span(), value.get_ref()));
    }
    while let Some((path, span, value)) = stack.pop() {
        match value {
            DeValue::Table(table) => {
                let raw = text.get(span.clone()).unwrap_or("");
                if raw.starts_with('{') {
                    let mut gap = span.start;
                    let mut broken = false;
                    let mut inner: Vec<_> = table.iter().map(|(_, v)| v.span()).collect();
                    inner.sort_by_key(|s| s.start);
                    for child in inner.iter().chain([&(span.end..span.end)]) {
                        broken |= text.get(gap..child.start.max(gap)).is_some_and(|between| between.contains('\n'));
                        gap = child.end.max(gap);
                    }
                    if broken {
                        let name = Place { path: path.clone(), part: Part::Value };
                        diagnostics.push(
                            Diagnostic::error("multi-line-table", name.clone(), "an inline table goes over several lines")
                                .help(format!("write `[{name}]` with one key a line: editors refuse this form")),
                        );
                    }
                }
                push_table(&mut stack, &path, table);
            }
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let mut path = path.clone();
                    path.push(Key::Index(index));
                    stack.push((path, item.span(), item.get_ref()));
                }
            }
            _ => {}
        }
    }
}
