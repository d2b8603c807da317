//! A file's text -> [`Spec`], with a diagnostic for everything that does not fit.
//!
//! What does not fit is taken out and the rest read again, so that one mistake hides no other. Places where
//! something was taken out are *damaged*: semantic checks stay silent about them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_path_to_error::Segment;
use toml::de::{DeArray, DeTable, DeValue};

use super::Spec;
use super::explain::{explain, missing_field, unknown_key};
use super::per_backend::EMPTY_TABLE;
use super::text::{multi_line_tables, syntax, too_deep};
use crate::diag::{Diagnostic, Key, Part, Place, Source, nearest};
use crate::expr;
use crate::tensor::Dtype;

/// A spec's file larger than this is refused. *Units*: bytes.
const LARGEST_FILE: u64 = 256 << 20;

/// After so many problems the rest is not looked for.
const MOST_PROBLEMS: usize = 200;

/// Keys that stand at the top of the file only.
pub(super) const TOP: &[&str] = &["name", "summary", "tags", "devices", "requires", "xfail"];

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

    /// Whether a name may have been declared in what was taken out of a table of names.
    pub fn lost(&self, list: &str, name: &str) -> bool {
        let list = Place::root().to(list);
        self.lacks(&list) || self.lacks(&list.to(name))
    }
}

/// Reads a spec's file. *Errors*: only what keeps its text from being read; problems in the text are diagnostics.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let name = path.display().to_string();
    let io = |error| LoadError::Io { path: name.clone(), error };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(io(std::io::Error::other("it is not a regular file")));
    }
    let bytes = metadata.len();
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
        loaded.diagnostics.push(Diagnostic::error("syntax", place, "lists, tables and dotted keys are nested more than 64 deep"));
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
    misplaced(root.get_mut(), &mut loaded.diagnostics);
    empty_lists(root.get_ref(), &mut loaded.diagnostics);
    while loaded.diagnostics.len() < MOST_PROBLEMS {
        let attempt: Result<Spec, _> = serde_path_to_error::deserialize(toml::de::Deserializer::from(root.clone()));
        let error = match attempt {
            Ok(spec) => {
                loaded.spec = Some(spec);
                break;
            }
            Err(error) => error,
        };
        let message = error.inner().message().to_string();
        let unknown = unknown_key(&message);
        let mut path = real_path(root.get_ref(), error.path());
        // An error of a map's own visitor stops at the map.
        if let Some((name, _)) = &unknown
            && path.last() != Some(&Key::Name(name.clone()))
        {
            path.push(Key::Name(name.clone()));
        }
        let follows = missing_field(&message).is_some_and(|field| {
            let mut full = path.clone();
            full.push(field.into());
            loaded.damaged.contains(&full)
        }) || message.starts_with(EMPTY_TABLE) && loaded.is_damaged(&Place { path: path.clone(), part: Part::Value });
        if !follows {
            loaded.diagnostics.push(explain(&text, root.get_ref(), &path, &message));
        }
        let Some(taken) = take_out(root.get_mut(), &path) else { break };
        match unknown {
            // What was meant is missing now; where nothing is near, nothing is known to be missing.
            Some((name, known)) if taken == path => {
                if let Some(near) = nearest(&name, &known) {
                    *path.last_mut().unwrap_or(&mut Key::Index(0)) = near.into();
                    if find(root.get_ref(), &path).is_none() {
                        loaded.damaged.insert(path);
                    }
                }
            }
            _ => {
                loaded.damaged.insert(taken);
            }
        }
    }
    loaded
}

/// Takes out keys of the file's top that landed in a table of names, where they would be read as a dim or a tensor.
fn misplaced(root: &mut DeTable<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for list in ["dims", "types", "tensors", "kernels"] {
        let Some(table) = root.get_mut(list) else { continue };
        let DeValue::Table(table) = table.get_mut() else { continue };
        for name in TOP {
            let lost = match table.get(*name).map(|value| value.get_ref()) {
                Some(DeValue::Table(_)) | None => false,
                Some(DeValue::String(text)) => match list {
                    "dims" => !is_dim(text, table),
                    "types" => Dtype::from_name(text).is_none(),
                    _ => true,
                },
                Some(DeValue::Array(_)) => true,
                Some(_) => list != "dims",
            };
            if lost {
                table.remove(*name);
                diagnostics.push(super::explain::misplaced(&Place::root().to(list).to(*name), name));
            }
        }
    }
}

/// Whether a text among dims is an expression of dims.
fn is_dim(text: &str, dims: &DeTable<'_>) -> bool {
    expr::parse(text).is_ok_and(|tree| {
        let mut known = true;
        tree.names(&mut |name, _| known &= dims.contains_key(name));
        known
    })
}

/// A list of sets or checks that is written and empty.
fn empty_lists(root: &DeTable<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for list in ["sets", "checks"] {
        if matches!(root.get(list).map(|value| value.get_ref()), Some(DeValue::Array(items)) if items.is_empty()) {
            let at = Place::root().to(list).key();
            diagnostics
                .push(Diagnostic::error("empty", at, format!("`{list}` is empty")).help(format!("leave it out, or write [[{list}]]")));
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

pub(super) fn find<'t, 'i>(root: &'t DeTable<'i>, path: &[Key]) -> Option<&'t DeValue<'i>> {
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
    items.get_mut(index).map(|item| item.get_mut())
}
