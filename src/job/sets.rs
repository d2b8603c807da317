//! `[[sets]]` -> rows: one for each set, or for each folder that a set matches; and the rows whose dims are alike as one job.

use std::path::{Path, PathBuf};

use super::names::Resolver;
use super::places::Places;
use crate::diag::{Diagnostic, Place};
use crate::spec::Set;

/// One set of contents.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Index in the spec's `sets`.
    pub index: usize,
    pub name: String,
    /// What its paths are relative to.
    pub folder: PathBuf,
    /// Dims that have other values in it, by name.
    pub dims: Vec<(String, i128)>,
}

/// The rows of one job of the spec.
#[derive(Clone, Debug, Default)]
pub(super) struct Point {
    pub dims: Vec<(String, i128)>,
    pub rows: Vec<Row>,
}

impl Point {
    /// What tells it from other jobs of the spec: `[batch=1, pages=512]`.
    pub fn suffix(&self) -> String {
        match self.dims.as_slice() {
            [] => String::new(),
            dims => format!(" [{}]", dims.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl Resolver<'_> {
    /// The jobs of the spec: one for all sets without dims of their own, and one for each distinct choice of dims.
    /// A spec without sets is one job.
    pub(super) fn points(&self) -> Vec<Point> {
        let mut points: Vec<Point> = Vec::new();
        for row in self.all_rows() {
            match points.iter_mut().find(|point| point.dims == row.dims) {
                Some(point) => point.rows.push(row),
                None => points.push(Point { dims: row.dims.clone(), rows: vec![row] }),
            }
        }
        if points.is_empty() {
            points.push(Point::default());
        }
        points
    }

    fn all_rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (index, set) in self.spec.sets.iter().enumerate() {
            let at = Place::root().to("sets").to(index);
            let dims = self.dims_of(&at.to("dims"), set);
            let Some(pattern) = &set.folder else {
                let name = set.name.clone().unwrap_or_else(|| format!("set {index}"));
                rows.push(Row { index, name, folder: self.loaded.folder.clone(), dims });
                continue;
            };
            for folder in self.folders(&at.to("folder"), pattern) {
                let own = folder.file_name().map_or_else(|| pattern.clone(), |name| name.to_string_lossy().into_owned());
                let name = set.name.as_ref().map_or(own.clone(), |name| format!("{name}/{own}"));
                rows.push(Row { index, name, folder, dims: dims.clone() });
            }
        }
        rows
    }

    /// The dims that a set gives other values, in the order of their names. What the command line says comes first.
    fn dims_of(&self, at: &Place, set: &Set) -> Vec<(String, i128)> {
        // Evaluated apart: a dim that is known here would not see the set's values.
        let apart = Resolver::new(self.loaded, self.spec, self.backend, self.overrides);
        let mut dims = Vec::new();
        for (name, value) in &set.dims {
            let here = at.to(name);
            if !self.spec.dims.contains_key(name) {
                let names: Vec<_> = self.spec.dims.keys().collect();
                if !self.loaded.lost("dims", name) {
                    self.report(
                        Diagnostic::error("unknown-name", here.key(), format!("there is no dim `{name}`"))
                            .did_you_mean(name, &names, "dims"),
                    );
                }
            } else if !self.overrides.dims.iter().any(|(given, _)| given == name)
                && let Some(value) = apart.int(&here, value, &Places::constant(&apart, &[]))
            {
                if i64::try_from(value).is_ok() {
                    dims.push((name.clone(), value));
                } else {
                    let message = format!("dim `{name}` is {value}, dims hold -2^63 to 2^63 - 1");
                    self.report(Diagnostic::error("overflow", here, message));
                }
            }
        }
        for problem in apart.into_problems() {
            self.report(problem);
        }
        dims.sort();
        dims
    }

    /// The folders that a pattern matches, in natural order.
    fn folders(&self, at: &Place, pattern: &str) -> Vec<PathBuf> {
        let base = &self.loaded.folder;
        let shown = base.display();
        let full = format!("{}/{pattern}", glob::Pattern::escape(&base.to_string_lossy()));
        let mut folders: Vec<PathBuf> = match glob::glob(&full) {
            Ok(paths) => paths.flatten().filter(|path| path.is_dir()).collect(),
            Err(error) => {
                self.report(
                    Diagnostic::error("bad-pattern", at.clone(), format!("`{pattern}` is no pattern for folders: {}", error.msg))
                        .help("`*` stands for any part of a name, `?` for one character, `[ab]` for one of some"),
                );
                return Vec::new();
            }
        };
        folders.sort_by_cached_key(|path| natural(path));
        if folders.is_empty() {
            self.report(
                Diagnostic::error("file", at.clone(), format!("no folder matches `{pattern}`"))
                    .help(format!("patterns are relative to the spec's folder, `{shown}`")),
            );
        }
        folders
    }
}

/// A part of a name: digits by their value, before everything else.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(usize, String),
    Text(String),
}

/// The key by which `set_2` comes before `set_10`.
fn natural(path: &Path) -> Vec<Part> {
    let text = path.to_string_lossy();
    let mut parts = Vec::new();
    let mut rest: &str = &text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (part, behind) = rest.split_at(end);
        rest = behind;
        parts.push(if digits {
            let value = part.trim_start_matches('0');
            // Of two numbers without leading zeros the longer one is larger.
            Part::Number(value.len(), value.to_string())
        } else {
            Part::Text(part.to_string())
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_by_their_value() {
        let mut names = ["set_10", "set_9", "set_1", "set_010b", "set", "set_1_2", "other"].map(Path::new).to_vec();
        names.sort_by_cached_key(|name| natural(name));
        assert_eq!(names, ["other", "set", "set_1", "set_1_2", "set_9", "set_10", "set_010b"].map(Path::new));
    }
}
