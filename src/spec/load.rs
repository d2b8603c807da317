//! A file's text -> [`Spec`], with a diagnostic for everything that does not fit.
//!
//! What does not fit is taken out and the rest read again, so that one mistake hides no other. Places where
//! something was taken out are *damaged*: semantic checks stay silent about them.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_path_to_error::Segment;
use toml::de::{DeArray, DeTable, DeValue};

use super::Spec;
use crate::diag::{Diagnostic, Key, Part, Place, Source};

/// A spec's file larger than this is refused. *Units*: bytes.
const LARGEST_FILE: u64 = 256 << 20;

/// After so many problems the rest is not looked for.
const MOST_PROBLEMS: usize = 200;

/// A spec as far as it could be read.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub source: Source,
    /// Paths in the spec are relative to this folder.
    pub folder: PathBuf,
    /// `None` after a syntax error.
    pub spec: Option<Spec>,
    pub diagnostics: Vec<Diagnostic>,
    damaged: HashSet<Vec<Key>>,
}

/// A spec's file that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the spec `{path}`: {error}")]
    Io { path: String, error: std::io::Error },
    #[error("the spec `{path}` has {bytes} bytes, at most {LARGEST_FILE} are read")]
    TooLarge { path: String, bytes: u64 },
    #[error("the spec `{path}` is not UTF-8: byte {at} is not part of a character")]
    NotUtf8 { path: String, at: usize },
}

impl Loaded {
    /// Whether something was taken out at or below a place, so that nothing more can be said of it.
    pub fn is_damaged(&self, place: &Place) -> bool {
        self.damaged.iter().any(|path| path.starts_with(&place.path) || place.path.starts_with(path))
    }

    /// Whether something was taken out exactly here.
    pub fn lacks(&self, place: &Place) -> bool {
        self.damaged.contains(&place.path)
    }
}

/// Reads a spec's file. *Errors*: only what keeps its text from being read; problems in the text are diagnostics.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let name = path.display().to_string();
    let io = |error| LoadError::Io { path: name.clone(), error };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes > LARGEST_FILE {
        return Err(LoadError::TooLarge { path: name, bytes });
    }
    let text = String::from_utf8(std::fs::read(path).map_err(io)?)
        .map_err(|e| LoadError::NotUtf8 { path: name.clone(), at: e.utf8_error().valid_up_to() })?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(parse(name, text, folder.to_path_buf()))
}

/// Reads a spec's text; `name` is what messages call it.
pub fn parse(name: String, text: String, folder: PathBuf) -> Loaded {
    let source = Source { name, text };
    let mut loaded = Loaded { source, folder, spec: None, diagnostics: Vec::new(), damaged: HashSet::new() };
    let text = loaded.source.text.clone();
    if let Some(at) = too_deep(&text) {
        let place = Place { path: Vec::new(), part: Part::Bytes(at..at + 1) };
        loaded.diagnostics.push(Diagnostic::error("syntax", place, "lists and tables are nested more than 64 deep"));
        return loaded;
    }
    let mut root = match DeTable::parse(&text) {
        Ok(root) => root,
        Err(error) => {
            loaded.diagnostics.push(syntax(&text, &error));
            return loaded;
        }
    };
    multi_line_tables(&text, root.get_ref(), &mut loaded.diagnostics);
    while loaded.diagnostics.len() < MOST_PROBLEMS {
        let attempt: Result<Spec, _> = serde_path_to_error::deserialize(toml::de::Deserializer::from(root.clone()));
        let error = match attempt {
            Ok(spec) => {
                loaded.spec = Some(spec);
                break;
            }
            Err(error) => error,
        };
        let path = real_path(root.get_ref(), error.path());
        let message = error.inner().message().to_string();
        let follows = missing_field(&message).is_some_and(|field| {
            let mut full = path.clone();
            full.push(field.into());
            loaded.damaged.contains(&full)
        });
        let unknown_key = message.starts_with("unknown field");
        if !follows {
            loaded.diagnostics.push(explain(&text, root.get_ref(), &path, &message));
        }
        let Some(taken) = take_out(root.get_mut(), &path) else { break };
        if !unknown_key || taken != path {
            loaded.damaged.insert(taken);
        }
    }
    loaded
}

/// The byte where brackets nest more than 64 deep, strings and comments left out.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'#' => at += bytes[at..].iter().position(|&b| b == b'\n').unwrap_or(bytes.len() - at),
            quote @ (b'"' | b'\'') => {
                at = string_end(bytes, at, quote);
                continue;
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > 64 {
                    return Some(at);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
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

fn syntax(text: &str, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let end = span.end.clamp(start, text.len());
    let end = if text.is_char_boundary(end) { end } else { start };
    let place = Place { path: Vec::new(), part: Part::Bytes(start..end) };
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let mut diagnostic = Diagnostic::error("syntax", place, message.clone());
    if message.contains("duplicate key") {
        diagnostic = diagnostic.help("a table or key may be written once; merge the two");
    }
    diagnostic
}

/// Refuses inline tables with line breaks between their entries: TOML 1.1 has them, editors refuse them.
fn multi_line_tables(text: &str, root: &DeTable<'_>, diagnostics: &mut Vec<Diagnostic>) {
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

/// The path in the document of an error: variants of enums are keys there, or values.
fn real_path(root: &DeTable<'_>, path: &serde_path_to_error::Path) -> Vec<Key> {
    let mut real = Vec::new();
    for segment in path.iter() {
        match segment {
            Segment::Map { key } => real.push(Key::Name(key.clone())),
            Segment::Seq { index } => real.push(Key::Index(*index)),
            Segment::Enum { variant } => {
                let mut longer = real.clone();
                longer.push(Key::Name(variant.clone()));
                if find(root, &longer).is_some() {
                    real = longer;
                }
            }
            Segment::Unknown => break,
        }
    }
    real
}

fn find<'t, 'i>(root: &'t DeTable<'i>, path: &[Key]) -> Option<&'t DeValue<'i>> {
    let (first, rest) = path.split_first()?;
    let Key::Name(name) = first else { return None };
    let mut value = root.get(name.as_str())?.get_ref();
    for key in rest {
        value = match (key, value) {
            (Key::Name(name), DeValue::Table(table)) => table.get(name.as_str())?.get_ref(),
            (Key::Index(index), DeValue::Array(items)) => items.get(*index)?.get_ref(),
            _ => return None,
        };
    }
    Some(value)
}

/// Takes the innermost entry with a name out of the document, or empties a table of a list (so that those after it
/// keep their index). Returns its path.
fn take_out(root: &mut DeTable<'_>, path: &[Key]) -> Option<Vec<Key>> {
    for len in (1..=path.len()).rev() {
        let (path, last) = (&path[..len], &path[len - 1]);
        match last {
            Key::Name(name) => {
                let parent = &path[..len - 1];
                let table = if parent.is_empty() {
                    Some(&mut *root)
                } else {
                    match find_mut(root, parent) {
                        Some(DeValue::Table(table)) => Some(table),
                        _ => None,
                    }
                };
                if let Some(table) = table
                    && table.remove(name.as_str()).is_some()
                {
                    return Some(path.to_vec());
                }
            }
            Key::Index(_) => {
                let in_tables =
                    matches!(&path[..len - 1].last(), Some(Key::Name(list)) if ["steps", "do", "sets", "checks"].contains(&list.as_str()));
                if in_tables && let Some(value) = find_mut(root, path) {
                    *value = DeValue::Table(DeTable::default());
                    return Some(path.to_vec());
                }
            }
        }
    }
    None
}

fn find_mut<'t, 'i>(root: &'t mut DeTable<'i>, path: &[Key]) -> Option<&'t mut DeValue<'i>> {
    let (first, rest) = path.split_first()?;
    let Key::Name(name) = first else { return None };
    let mut value = root.get_mut(name.as_str())?.get_mut();
    for key in rest {
        value = match (key, value) {
            (Key::Name(name), DeValue::Table(table)) => table.get_mut(name.as_str())?.get_mut(),
            (Key::Index(index), DeValue::Array(items)) => element_mut(items, *index)?,
            _ => return None,
        };
    }
    Some(value)
}

fn element_mut<'t, 'i>(items: &'t mut DeArray<'i>, index: usize) -> Option<&'t mut DeValue<'i>> {
    items.iter_mut().nth(index).map(|item| item.get_mut())
}

fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// The words in backticks of a message.
fn ticked(message: &str) -> Vec<String> {
    message.split('`').skip(1).step_by(2).map(String::from).collect()
}

/// Serde's message in the words of a person who edits specs.
fn explain(text: &str, root: &DeTable<'_>, path: &[Key], message: &str) -> Diagnostic {
    let at = Place { path: path.to_vec(), part: Part::Value };
    if message.starts_with("unknown field") {
        let words = ticked(message);
        let (name, known) = words.split_first().map(|(n, k)| (n.clone(), k.to_vec())).unwrap_or_default();
        let owner = Place { path: path[..path.len().saturating_sub(1)].to_vec(), part: Part::Value };
        let place = if owner.path.is_empty() { "at the top of the file".to_string() } else { format!("in `{owner}`") };
        let mut diagnostic = Diagnostic::error("unknown-key", at.key(), format!("unknown key `{name}` {place}"));
        const TOP: &[&str] = &["name", "summary", "tags", "xfail"];
        if TOP.contains(&name.as_str()) && !owner.path.is_empty() {
            diagnostic = diagnostic
                .label(format!("belongs to `{owner}` here"))
                .help(format!("keys after a [table] belong to that table: move `{name}` to the top of the file, before the first one"));
        } else {
            diagnostic = diagnostic.did_you_mean(&name, &known, "keys here");
        }
        return diagnostic;
    }
    if let Some(field) = missing_field(message) {
        let diagnostic = Diagnostic::error("missing-key", at.key(), format!("`{at}` has no `{field}`"));
        return match field {
            "shape" => diagnostic.help("write `shape = [\"n\"]`, slowest dimension first; `shape = []` is a scalar"),
            "dtype" => {
                diagnostic.help(format!("write `dtype = \"f32\"`; dtypes are {}", crate::tensor::Dtype::ALL.map(|d| d.name()).join(" ")))
            }
            "params" => diagnostic.help("write `params = [\"in f32 x\", \"out f32 y\", \"u32 n\"]`, in the order of the C signature"),
            _ => diagnostic,
        };
    }
    if message.starts_with("unknown variant") {
        let words = ticked(message);
        let (name, known) = words.split_first().map(|(n, k)| (n.clone(), k.to_vec())).unwrap_or_default();
        let last = path.iter().rev().find_map(|k| match k {
            Key::Name(name) => Some(name.as_str()),
            Key::Index(_) => None,
        });
        let what = match last {
            Some("dtype") => "dtype",
            Some("data" | "each_round") => "source of contents",
            _ => "value",
        };
        let written = matches!(find(root, path), Some(DeValue::Table(t)) if t.contains_key(name.as_str()));
        let place = if written { at.to(&name).key() } else { at };
        return Diagnostic::error("unknown-value", place, format!("unknown {what} `{name}`")).did_you_mean(&name, &known, "known here");
    }
    if message.starts_with("wanted exactly 1 element") {
        let found = match find(root, path) {
            Some(DeValue::Table(table)) => table.iter().map(|(k, _)| format!("`{}`", k.get_ref())).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        return if found.is_empty() {
            Diagnostic::error("no-source", at, "an empty table: it names no source of contents")
                .help("write one, such as { uniform = {} } or \"zeros\"")
        } else {
            Diagnostic::error("two-sources", at, format!("{} sources of contents: {}", found.len(), found.join(", "))).help("keep one")
        };
    }
    let message = message.lines().next().unwrap_or(message);
    let what = match find(root, path) {
        Some(DeValue::Datetime(_)) => "a date".to_string(),
        Some(DeValue::Table(_)) => "a table".to_string(),
        Some(DeValue::Array(_)) => "a list".to_string(),
        Some(value) => {
            let kind = match value {
                DeValue::String(_) => "the string",
                DeValue::Integer(_) => "the integer",
                DeValue::Float(_) => "the float",
                _ => "the boolean",
            };
            let span = Source { name: String::new(), text: text.to_string() }.span(&at);
            let raw: String = text.get(span).unwrap_or("").chars().take(40).collect();
            format!("{kind} `{raw}`")
        }
        None => "something else".to_string(),
    };
    let expected = match message.split_once(", expected ") {
        Some((_, expected)) => expected.to_string(),
        None if message == "wanted string or table" => "a name in quotes or a table, such as \"zeros\" or { uniform = {} }".to_string(),
        None => return Diagnostic::error("wrong-type", at, message.to_string()),
    };
    let expected = match expected.as_str() {
        "a sequence" => "a list".to_string(),
        "a map" => "a table".to_string(),
        other if other.starts_with("struct ") => "a table".to_string(),
        "u64" => "a whole number of at least 0".to_string(),
        "f64" => "a number".to_string(),
        _ => expected,
    };
    Diagnostic::error("wrong-type", at.clone(), format!("`{at}` is {what}, expected {expected}"))
}
