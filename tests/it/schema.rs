//! The JSON schema: up to date, true of every good spec, and never stricter than runjob itself.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use runjob::diag::Severity;
use runjob::spec::schema;
use serde_json::Value;

use super::bad::{parse, resolve, specs};

const FILE: &str = "schema/runjob.schema.json";

/// Bad specs whose mistake is one of form, by the start of their names: an editor with the schema marks them.
const OF_FORM: &[&str] = &[
    "bench.",
    "blocks",
    "between_types",
    "checks_are_tables",
    "counts",
    "device_types",
    "defines",
    "expressions_of_checks",
    "grids",
    "kernel_kinds",
    "limits.",
    "loops",
    "many_mistakes",
    "misplaced_name",
    "misplaced_top",
    "misplaced_xfail",
    "missing_in_tensor",
    "missing_params",
    "name_types",
    "per_backend",
    "shapes",
    "source_suffix",
    "steps_are_tables",
    "tag_types",
    "tensors_are_a_table",
    "tolerances",
    "two_sources_in_one",
    "unknown_in_tables",
    "unknown_source_of_data",
    "unknown_top",
    "wrong_types",
    "wrong_types_in_steps",
    "xfail_type",
];

fn validator() -> jsonschema::Validator {
    jsonschema::draft7::new(&schema()).expect("a schema")
}

/// A spec as an editor sees it. Numbers that JSON lacks, such as `nan`, are numbers all the same.
fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(s) => s.as_str().into(),
        toml::Value::Integer(i) => (*i).into(),
        toml::Value::Float(f) if f.is_finite() => (*f).into(),
        toml::Value::Float(_) => 0.5.into(),
        toml::Value::Boolean(b) => (*b).into(),
        toml::Value::Datetime(d) => d.to_string().into(),
        toml::Value::Array(items) => items.iter().map(json).collect(),
        toml::Value::Table(table) => table.iter().map(|(k, v)| (k.clone(), json(v))).collect(),
    }
}

fn read(text: &str) -> Option<Value> {
    toml::from_str::<toml::Value>(text).ok().map(|value| json(&value))
}

fn good() -> Vec<(String, String)> {
    ["specs", "tests/specs/good"]
        .iter()
        .flat_map(|folder| specs(folder).into_iter().map(|path| (folder.to_string(), std::fs::read_to_string(path).expect("a spec"))))
        .collect()
}

/// `RUNJOB_BLESS=1` writes it anew.
#[test]
fn the_file_is_up_to_date() {
    let text = serde_json::to_string_pretty(&schema()).expect("JSON") + "\n";
    if std::env::var_os("RUNJOB_BLESS").is_some() {
        std::fs::create_dir_all("schema").expect("a folder");
        std::fs::write(FILE, &text).expect("a file that can be written");
    }
    assert!(std::fs::read_to_string(FILE).is_ok_and(|kept| kept == text), "{FILE} is stale: run with RUNJOB_BLESS=1");
}

#[test]
fn every_good_spec_validates() {
    let validator = validator();
    for (folder, text) in good() {
        let value = read(&text).expect("TOML");
        let errors: Vec<_> = validator.iter_errors(&value).map(|e| format!("{} at {}", e, e.instance_path())).collect();
        assert!(errors.is_empty(), "{folder}: {}\n{errors:#?}", value["name"]);
    }
}

#[test]
fn specs_of_bad_form_are_refused() {
    let validator = validator();
    let mut accepted = Vec::new();
    for path in specs("tests/specs/bad") {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a spec");
        let Some(value) = read(&text) else { continue };
        if OF_FORM.iter().any(|start| name.starts_with(start)) && validator.is_valid(&value) {
            accepted.push(name);
        }
    }
    assert!(accepted.is_empty(), "{accepted:?}");
}

/// Every place of a value, as the keys and indices that lead there.
pub fn places(value: &toml::Value, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    let mut visit = |key: String, value| {
        path.push(key);
        out.push(path.clone());
        places(value, path, out);
        path.pop();
    };
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(key, value)| visit(key.clone(), value)),
        toml::Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| visit(at.to_string(), value)),
        _ => {}
    }
}

fn parent<'v>(value: &'v mut toml::Value, path: &[String]) -> Option<&'v mut toml::Value> {
    path.iter().try_fold(value, |value, key| match value {
        toml::Value::Table(table) => table.get_mut(key),
        toml::Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Values that stand in place of others: every type, the forms of the language where they do not belong, and names
/// that are none.
fn others() -> Vec<toml::Value> {
    let text = r#"all = [3, -1, 0.5, nan, true, 1979-05-27, "word", "zeros", "f23", "", "1 +", [], [[]], [1], ["n"], ["in f32 x"], [{}],
        [true], {}, { fill = 1 }, { zeros = 1 }, { fill = 1, uniform = {} }, { uniform = { low = [] } }, { cpu = 1 }, { default = {} },
        { cpu = {}, gpu = 1 }, { text = "1" }, { text = 1 }, { f32 = 1 }, { kernel = "k" }, { i = "0:2" }, { values = {} }, { file = 3 }]"#;
    match toml::from_str::<toml::Table>(text).expect("TOML").remove("all") {
        Some(toml::Value::Array(all)) => all,
        _ => Vec::new(),
    }
}

pub const KINDS: [&str; 9] = ["rename", "drop", "double", "replace", "swap", "number to text", "text to number", "list", "nest"];

/// Changes the value at a path in one of the [`KINDS`] of ways. `None`: that kind does not apply there.
pub fn mutate(value: &mut toml::Value, path: &[String], from: &[String], kind: usize, token: usize) -> Option<()> {
    use toml::Value::{Array, Float, Integer, String, Table};
    let old = parent(value, path)?.clone();
    let others = others();
    let new = match KINDS[kind] {
        "rename" | "drop" | "double" => {
            let (last, above) = path.split_last()?;
            match parent(value, above)? {
                Table(table) => {
                    let letter = token % last.len().max(1);
                    let mut letters: Vec<char> = last.chars().collect();
                    letters.insert(letter.min(letters.len()), 's');
                    if KINDS[kind] != "double" {
                        table.remove(last)?;
                    }
                    if KINDS[kind] != "drop" {
                        table.insert(letters.into_iter().collect(), old);
                    }
                }
                Array(items) => {
                    let at = last.parse::<usize>().ok()?;
                    if KINDS[kind] == "drop" {
                        items.remove(at);
                    } else {
                        items.insert(at, old);
                    }
                }
                _ => return None,
            }
            return Some(());
        }
        "replace" => others[token % others.len()].clone(),
        "swap" => parent(&mut value.clone(), from)?.clone(),
        "number to text" => match old {
            Integer(i) => String(i.to_string()),
            Float(f) => String(f.to_string()),
            toml::Value::Boolean(b) => String(b.to_string()),
            _ => return None,
        },
        "text to number" => match old {
            String(text) => [Integer(text.len() as i64), Float(1.5)][token % 2].clone(),
            _ => return None,
        },
        "list" => Array(vec![old; 1 + token % 2]),
        _ => Table([(["cpu", "default", "fill", "text", "x"][token % 5].to_string(), old)].into_iter().collect()),
    };
    *parent(value, path)? = new;
    Some(())
}

/// `RUNJOB_CASES` sets how many mutants are tried. The same ones every time: a failure says what to look at.
#[test]
fn what_the_schema_refuses_runjob_refuses() {
    let cases = std::env::var("RUNJOB_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(6000);
    let validator = validator();
    let specs: Vec<(String, toml::Value, Vec<Vec<String>>)> = good()
        .into_iter()
        .map(|(folder, text)| {
            let value: toml::Value = toml::from_str(&text).expect("TOML");
            let mut all = Vec::new();
            places(&value, &mut Vec::new(), &mut all);
            (folder, value, all)
        })
        .collect();
    let config = Config { cases, failure_persistence: None, max_global_rejects: u32::MAX, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let input = (0..specs.len(), any::<usize>(), any::<usize>(), 0..KINDS.len(), any::<usize>());
    let counts = RefCell::new([(0u32, 0u32); KINDS.len()]);
    let result = runner.run(&input, |(which, place, from, kind, token)| {
        let (folder, value, places) = &specs[which];
        let mut value = value.clone();
        let (place, from) = (&places[place % places.len()], &places[from % places.len()]);
        prop_assume!(mutate(&mut value, place, from, kind, token).is_some());
        counts.borrow_mut()[kind].0 += 1;
        if validator.is_valid(&json(&value)) {
            return Ok(());
        }
        counts.borrow_mut()[kind].1 += 1;
        let text = toml::to_string(&value).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let refused = resolve(&parse(&text, folder)).iter().any(|d| d.severity == Severity::Error);
        let why: Vec<_> = validator.iter_errors(&json(&value)).map(|e| format!("{} at {}", e, e.instance_path())).collect();
        prop_assert!(refused, "the schema refuses it, runjob does not ({}): {why:?}\n{text}", KINDS[kind]);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    for (kind, (tried, refused)) in KINDS.iter().zip(counts.into_inner()) {
        println!("{kind}: the schema refuses {refused} of {tried} mutants, and runjob refuses them too");
        assert!(refused * 20 >= tried && tried * 100 >= cases, "{kind}: only {refused} of {tried} mutants were refused");
    }
}
