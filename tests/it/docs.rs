//! Every spec that the README and the pages of `docs/` show runs and passes: whole ones as they stand, fragments merged
//! into the first whole one of their page.

use std::path::{Path, PathBuf};

use toml::Table;

use crate::verdicts::{for_each, runjob, text};

/// The blocks of one language, each with the line on which it starts.
fn blocks<'a>(page: &'a str, lang: &str) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    let (mut at, mut start, mut info): (usize, usize, Option<&str>) = (0, 0, None);
    let mut first = 0;
    for (number, line) in page.split_inclusive('\n').enumerate() {
        if let Some(fence) = line.trim_end().strip_prefix("```") {
            match info.take() {
                Some(opened) if opened == lang => found.push((first, &page[start..at])),
                Some(_) => {}
                None => (info, start, first) = (Some(fence), at + line.len(), number + 2),
            }
        }
        at += line.len();
    }
    assert!(info.is_none(), "a block is never closed");
    found
}

/// A spec with the entries of a fragment: a table's entries and lists of tables take the place of those that are there.
fn merged(base: &Table, fragment: &Table) -> Table {
    let mut spec = base.clone();
    for (key, value) in fragment {
        match (spec.get_mut(key).and_then(toml::Value::as_table_mut), value.as_table()) {
            (Some(table), Some(entries)) => table.extend(entries.clone()),
            _ => drop(spec.insert(key.clone(), value.clone())),
        }
    }
    spec
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = docs.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

#[test]
fn every_spec_of_the_docs_passes() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docs");
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/kernels");
    std::fs::create_dir_all(folder.join("kernels")).unwrap();
    for kernel in std::fs::read_dir(kernels).unwrap() {
        let kernel = kernel.unwrap().path();
        std::fs::copy(&kernel, folder.join("kernels").join(kernel.file_name().unwrap())).unwrap();
    }
    let (mut specs, mut shown) = (Vec::new(), 0);
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        shown += text.matches("```toml").count();
        let stem = page.file_stem().unwrap().to_str().unwrap().to_lowercase();
        for (_, source) in blocks(&text, "c") {
            if let Some((name, source)) = source.strip_prefix("// file: ").and_then(|rest| rest.split_once('\n')) {
                std::fs::write(folder.join(name), source).unwrap();
            }
        }
        let mut base: Option<Table> = None;
        for (line, block) in blocks(&text, "toml") {
            let whole = block.starts_with("name = ");
            let table: Table = toml::from_str(block).unwrap_or_else(|e| panic!("{stem} line {line}: {e}"));
            // A whole spec is run as it is written, comments and order included.
            let spec = match &base {
                _ if whole => block.to_string(),
                Some(base) => toml::to_string(&merged(base, &table)).unwrap(),
                None => panic!("{stem} line {line}: a fragment before the page's first whole spec"),
            };
            if whole {
                base.get_or_insert(table);
            }
            let path = folder.join(format!("{stem}_{line}.toml"));
            std::fs::write(&path, spec).unwrap();
            specs.push(path);
        }
    }
    assert!(specs.len() == shown && shown > 12, "{} of {shown} blocks are run", specs.len());
    for_each(&specs, |spec| {
        let output = runjob().arg(spec).output().unwrap();
        let text = text(&output);
        // Without a driver; where one is required, it is an error.
        let name = spec.file_name().unwrap().to_string_lossy();
        let may_skip = ["opencl-kernels", "cuda-kernels"].iter().any(|page| name.starts_with(page));
        let ran = output.status.success() && (may_skip || !text.lines().any(|line| line.starts_with("skip")));
        if ran { Ok(()) } else { Err(text) }
    });
}

/// A name that the language page does not mention is one that nobody finds.
#[test]
fn the_language_page_names_every_key_source_dtype_and_function() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/language.md")).unwrap();
    let words: std::collections::HashSet<&str> = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let schema = serde_json::to_value(runjob::spec::schema()).unwrap();
    let mut names: Vec<String> = runjob::expr::function_names();
    let mut open = vec![&schema];
    while let Some(value) = open.pop() {
        match value {
            serde_json::Value::Object(map) => {
                if let Some(keys) = map.get("properties").and_then(serde_json::Value::as_object) {
                    names.extend(keys.keys().cloned());
                }
                if let Some(values) = map.get("enum").and_then(serde_json::Value::as_array) {
                    names.extend(values.iter().filter_map(|v| v.as_str().map(String::from)));
                }
                open.extend(map.values());
            }
            serde_json::Value::Array(list) => open.extend(list),
            _ => {}
        }
    }
    assert!(names.len() > 100, "{names:?}");
    let named = |name: &str| words.contains(name) || page.contains(&format!("`{name}`"));
    let missing: Vec<_> = names.iter().filter(|name| !named(name)).collect();
    assert!(missing.is_empty(), "docs/language.md does not name {missing:?}");
}
