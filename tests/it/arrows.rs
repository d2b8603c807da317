//! Who may know whom: the modules of `src` use those below them alone, and no file is too long to read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every module with those it may use, in the order of the pipeline: none uses one that stands below it here.
const ARROWS: [(&str, &[&str]); 14] = [
    ("diag", &[]),
    ("tensor", &["diag"]),
    ("expr", &["tensor", "diag"]),
    // A source may be a compiled expression.
    ("data", &["tensor", "expr"]),
    // Expectations come as `expr::Block`.
    ("check", &["tensor", "expr"]),
    ("device", &["tensor"]),
    ("spec", &["tensor", "diag", "expr"]),
    ("job", &["tensor", "diag", "data", "expr", "check", "device", "spec"]),
    ("plan", &["tensor", "data", "expr", "device", "spec", "job"]),
    // What happened, in the words of those who found it: `Mismatch`, `Counts`, `Cost` and `Trust`.
    ("verdict", &["check", "device", "plan"]),
    ("exec", &["tensor", "diag", "data", "expr", "check", "device", "spec", "job", "plan", "verdict"]),
    ("worker", &["diag", "device", "spec", "job", "plan", "verdict", "exec"]),
    ("cli", &["tensor", "diag", "device", "spec", "job", "plan", "verdict", "exec", "worker"]),
    ("main", &[]),
];

/// The longest file. *Units*: lines.
const LONGEST: usize = 600;

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Files with their path within `src`.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&src(), &mut found);
    assert!(found.len() > 60);
    found.sort();
    let name =
        |path: &Path| path.strip_prefix(src()).unwrap().components().map(|c| c.as_os_str().to_str().unwrap()).collect::<Vec<_>>().join("/");
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Whether a file holds tests alone, as a `mod` line under `#[cfg(test)]` declares it.
fn is_test(name: &str, sources: &[(String, String)]) -> bool {
    let parts: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
    (1..=parts.len()).any(|depth| {
        let module = parts[depth - 1];
        let line = format!("mod {module};");
        let folder = parts[..depth - 1].join("/");
        let declared_in = |file: &str| {
            file == format!("{folder}.rs") || file.strip_suffix("/mod.rs") == Some(&folder) || (folder.is_empty() && file == "lib.rs")
        };
        let beside = |file: &str| depth == parts.len() && file.rsplit_once('/').map_or("", |(f, _)| f) == folder;
        sources.iter().filter(|(file, _)| declared_in(file) || beside(file)).any(|(_, text)| {
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            lines.iter().enumerate().any(|(at, l)| {
                l.trim_start_matches("pub(crate) ").ends_with(&line)
                    && l.len() <= line.len() + 12
                    && at > 0
                    && lines[at - 1..at].iter().chain(lines[at.saturating_sub(2)..at].iter()).any(|l| *l == "#[cfg(test)]")
            })
        })
    })
}

/// The code that ships: without comments, and without modules and functions under `#[cfg(test)]`.
fn shipped(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indent = line.len() - line.trim_start().len();
            // An item ends at its closing brace, or on its own line.
            for item in lines.by_ref() {
                let ends =
                    item.len() - item.trim_start().len() == indent && (item.trim_end().ends_with(';') || item.trim().starts_with('}'));
                if ends {
                    break;
                }
            }
            continue;
        }
        out.push_str(line.split("//").next().unwrap_or_default());
        out.push('\n');
    }
    out
}

/// Modules named as `crate::x` or in `crate::{x, y::z}`.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let word = |s: &str| s.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + 7..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' if depth == 0 => {
                    names.insert(word(&group[start..i]));
                    start = i + 1;
                }
                '}' => {
                    names.insert(word(&group[start..i]));
                    break;
                }
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn modules_use_only_those_below_them() {
    let sources = sources();
    let mut used: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (name, text) in &sources {
        if is_test(name, &sources) || name == "lib.rs" {
            continue;
        }
        let module = name.split(['/', '.']).next().unwrap().to_string();
        for other in named(&shipped(text)) {
            if other != module && !other.starts_with(char::is_uppercase) {
                used.entry(module.clone()).or_default().insert(other, name.clone());
            }
        }
    }
    let mut wrong = Vec::new();
    for (module, others) in &used {
        let Some((_, allowed)) = ARROWS.iter().find(|(m, _)| m == module) else {
            wrong.push(format!("module `{module}` has no arrows here"));
            continue;
        };
        for (other, file) in others {
            if !allowed.contains(&other.as_str()) {
                wrong.push(format!("src/{file} uses `{other}`; `{module}` may use {allowed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The scan sees arrows at all.
    assert!(used["exec"].contains_key("plan") && used["job"].contains_key("expr"));
}

#[test]
fn arrows_go_upwards() {
    for (at, (module, allowed)) in ARROWS.iter().enumerate() {
        for other in *allowed {
            assert!(ARROWS[..at].iter().any(|(m, _)| m == other), "`{module}` uses `{other}`, which does not stand before it");
        }
    }
}

#[test]
fn every_module_of_the_library_has_its_arrows() {
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    for module in lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')) {
        assert!(ARROWS.iter().any(|(m, _)| *m == module), "`{module}`");
    }
}

#[test]
fn files_are_short_enough_to_read() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(name, lines)| format!("src/{name} has {lines} lines, the most is {LONGEST}"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn only_shipped_code_counts() {
    let text = "use crate::tensor::Dtype;\n/// As [`crate::cli`].\nfn f() {} // crate::cli\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\nuse crate::{plan, exec::{run, crate_}};\n#[cfg(test)]\nmod more;\n";
    assert_eq!(named(&shipped(text)).into_iter().collect::<Vec<_>>(), ["exec", "plan", "tensor"]);
}
