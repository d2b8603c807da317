//! What serde says of a key or value that does not fit -> a diagnostic in the words of a person who edits specs.

use toml::de::{DeTable, DeValue};

use super::load::{TOP, find};
use crate::diag::{Diagnostic, Key, Part, Place, Source, nearest};

/// The key that a message misses.
pub(super) fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// The words in backticks of a message.
fn ticked(message: &str) -> Vec<String> {
    message.split('`').skip(1).step_by(2).map(String::from).collect()
}

/// The key that a message does not know, and those that it does.
pub(super) fn unknown_key(message: &str) -> Option<(String, Vec<String>)> {
    let words = message.starts_with("unknown field").then(|| ticked(message))?;
    words.split_first().map(|(name, known)| (name.clone(), known.to_vec()))
}

/// A key of the file's top that stands after a `[table]`.
pub(super) fn misplaced(at: &Place, name: &str) -> Diagnostic {
    let owner = Place { path: at.path[..at.path.len().saturating_sub(1)].to_vec(), part: Part::Value };
    Diagnostic::error("misplaced-key", at.key(), format!("`{name}` belongs to the top of the file, here it is a key of `{owner}`"))
        .help(format!("keys after a [table] belong to that table: move `{name}` before the first one"))
}

/// Serde's message in the words of a person who edits specs.
pub(super) fn explain(text: &str, root: &DeTable<'_>, path: &[Key], message: &str) -> Diagnostic {
    let at = Place { path: path.to_vec(), part: Part::Value };
    if let Some((name, known)) = unknown_key(message) {
        let owner = Place { path: path[..path.len().saturating_sub(1)].to_vec(), part: Part::Value };
        if TOP.contains(&name.as_str()) && !owner.path.is_empty() {
            return misplaced(&at, &name);
        }
        let place = if owner.path.is_empty() { "at the top of the file".to_string() } else { format!("in `{owner}`") };
        let diagnostic = Diagnostic::error("unknown-key", at.key(), format!("unknown key `{name}` {place}"));
        if let Some(near) = nearest(&name, &known) {
            let mut beside = owner.path.clone();
            beside.push(near.into());
            if find(root, &beside).is_some() {
                return diagnostic.help(format!("`{near}` stands there already"));
            }
        }
        return diagnostic.did_you_mean(&name, &known, "keys here");
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
            _ if matches!(path, [Key::Name(list), _] if list == "types") => "dtype",
            _ if path.iter().any(|k| matches!(k, Key::Name(name) if name == "on")) => "backend",
            Some("data" | "each_round") => "source of contents",
            _ => "value",
        };
        let written = matches!(find(root, path), Some(DeValue::Table(t)) if t.contains_key(name.as_str()));
        let place = if written { at.to(&name).key() } else { at };
        let alias = crate::tensor::Dtype::from_alias(&name).filter(|_| what == "dtype");
        let diagnostic = Diagnostic::error("unknown-value", place, format!("unknown {what} `{name}`"));
        if let Some(dtype) = alias {
            return diagnostic.meaning(dtype.name());
        }
        return diagnostic.did_you_mean(&name, &known, "known here");
    }
    if message.starts_with("wanted exactly 1 element") {
        let found = match find(root, path) {
            Some(DeValue::Table(table)) => table.iter().map(|(k, _)| format!("`{}`", k.get_ref())).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        return if found.is_empty() {
            Diagnostic::error("no-source", at, format!("`{}` is an empty table: it names no source of contents", place_of(path)))
                .help("write one, such as { uniform = {} } or \"zeros\"")
        } else {
            Diagnostic::error(
                "two-sources",
                at,
                format!("`{}` has {} sources of contents: {}", place_of(path), found.len(), found.join(", ")),
            )
            .help("keep one")
        };
    }
    let message = message.lines().next().unwrap_or(message);
    let what = match find(root, path) {
        Some(DeValue::Datetime(_)) => "a date".to_string(),
        Some(DeValue::Table(_)) => "a table".to_string(),
        Some(DeValue::Array(_)) => "an array".to_string(),
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
    let last = path.last().and_then(|key| match key {
        Key::Name(name) => Some(name.as_str()),
        Key::Index(_) => None,
    });
    let expected = match message.split_once(", expected ") {
        Some((_, expected)) => expected,
        None if message == "wanted string or table" => match last {
            Some("dtype") => "a dtype in quotes, such as \"f32\"",
            Some("order") => "\"cycle\" or \"shuffle\"",
            Some("nan") => "\"equal\" or \"never\"",
            _ => "a source in quotes or a table, such as \"zeros\" or { uniform = {} }",
        },
        None => return Diagnostic::error("wrong-type", at.clone(), format!("`{at}` is {message}")),
    };
    let expected = match (expected, last) {
        (_, Some("xfail")) => "the reason in quotes",
        ("a string", Some("dtype")) => "a dtype in quotes, such as \"f32\"",
        ("a sequence", _) => "an array",
        ("a string", _) => "a string in quotes",
        ("a map", _) => "a table",
        ("u64", _) => "a whole number of at least 0",
        ("f64", _) => "a number",
        (expected, _) => expected,
    };
    let diagnostic = Diagnostic::error("wrong-type", at.clone(), format!("`{at}` is {what}, expected {expected}"));
    match (path, find(root, path)) {
        ([Key::Name(list)], Some(DeValue::Table(_))) if ["steps", "sets", "checks"].contains(&list.as_str()) => {
            diagnostic.help(format!("write `[[{list}]]`, once for each"))
        }
        ([Key::Name(list)], Some(DeValue::Array(_))) => diagnostic.help(format!("write `[{list}]`, once")),
        _ => diagnostic,
    }
}

fn place_of(path: &[Key]) -> Place {
    Place { path: path.to_vec(), part: Part::Value }
}
