//! Specs that are wrong: every mistake is reported at its place, nothing else is, and no text makes runjob panic.

use std::fmt::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use runjob::diag::{self, Diagnostic, Severity, Source, Style};
use runjob::job::{self, Overrides};
use runjob::spec::{self, Backend, Loaded};
use runjob::worker::{self, Request};

/// The specs of a folder, by name.
pub fn specs(folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{folder}: {e}"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder} has no specs");
    paths
}

pub fn resolve(loaded: &Loaded) -> Vec<Diagnostic> {
    let request = Request::new(&loaded.source.name);
    let (choices, _) = worker::choose(loaded, &request);
    match choices.len() {
        0 | 1 => job::resolve_all(loaded, backend(&loaded.source.text), &Overrides::default()).1,
        _ => worker::resolve_parties(loaded, choices, &request).1,
    }
}

/// What the first line of a spec says of the backend for which it is wrong.
const OF_BACKEND: &str = "#~ backend = ";

/// The backend that a spec is for: the CPU, unless its first line says another.
fn backend(text: &str) -> Backend {
    let named = text.lines().next().and_then(|line| line.strip_prefix(OF_BACKEND));
    let named = named.and_then(|name| Backend::ALL.into_iter().find(|backend| backend.name() == name.trim()));
    named.unwrap_or(Backend::Cpu)
}

pub fn parse(text: &str, folder: &str) -> Loaded {
    spec::parse(format!("{folder}/text.toml"), text.to_string(), folder.into())
}

/// What a spec says about itself: line, severity, text.
fn annotations(text: &str) -> Vec<(usize, Severity, String)> {
    let mut out = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(index, line)| *index > 0 || !line.starts_with(OF_BACKEND)) {
        for note in line.split("#~").skip(1) {
            let (line, note) = match note.strip_prefix('^') {
                Some(note) => (index, note),
                None => (index + 1, note),
            };
            let (severity, note) = match note.trim().strip_prefix("warning:") {
                Some(note) => (Severity::Warning, note),
                None => (Severity::Error, note),
            };
            out.push((line, severity, note.trim().to_string()));
        }
    }
    out
}

/// All that a diagnostic says, without the source line that is printed beside it.
fn words(diagnostic: &Diagnostic) -> String {
    let mut words = diagnostic.message.clone();
    for text in diagnostic.label.iter().chain(&diagnostic.help).chain(diagnostic.also.iter().map(|(_, label)| label)) {
        let _ = write!(words, "\n{text}");
    }
    words
}

fn line_of(source: &Source, diagnostic: &Diagnostic) -> usize {
    source.locate(source.span(&diagnostic.at).start).line
}

#[test]
fn every_mistake_is_reported_at_its_place_and_nothing_else() {
    let mut deviations = String::new();
    for path in specs("tests/specs/bad") {
        let loaded = spec::load(&path).expect("a spec that can be read");
        let diagnostics = resolve(&loaded);
        let notes = annotations(&loaded.source.text);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if notes.is_empty() {
            let _ = writeln!(deviations, "{name}: no annotation");
        }
        for (line, severity, note) in &notes {
            let met = |d: &&Diagnostic| {
                d.severity == *severity && line_of(&loaded.source, d) == *line && words(d).to_lowercase().contains(&note.to_lowercase())
            };
            if !diagnostics.iter().any(|d| met(&d)) {
                let _ = writeln!(deviations, "{name}:{line}: nothing says `{note}`");
                for d in diagnostics.iter().filter(|d| line_of(&loaded.source, d) == *line) {
                    let _ = writeln!(deviations, "    here: {}", words(d).replace('\n', " | "));
                }
            }
        }
        for d in diagnostics.iter().filter(|d| d.severity == Severity::Error) {
            let line = line_of(&loaded.source, d);
            if !notes.iter().any(|(at, severity, _)| *at == line && *severity == Severity::Error) {
                let _ = writeln!(deviations, "{name}:{line}: unexpected: {}", words(d).replace('\n', " | "));
            }
        }
    }
    assert!(deviations.is_empty(), "\n{deviations}");
}

/// `RUNJOB_BLESS=1` writes the texts anew.
#[test]
fn what_is_printed_is_what_was_reviewed() {
    let bless = std::env::var_os("RUNJOB_BLESS").is_some();
    let mut stale = Vec::new();
    for path in specs("tests/specs/bad") {
        let loaded = spec::load(&path).expect("a spec that can be read");
        let mut text = String::new();
        for diagnostic in resolve(&loaded) {
            let _ = writeln!(text, "{}\n", diag::render(&loaded.source, &diagnostic, Style::Plain).trim_end());
        }
        let kept = path.with_extension("stderr");
        if bless {
            std::fs::write(&kept, &text).expect("a file that can be written");
        } else if std::fs::read_to_string(&kept).unwrap_or_default() != text {
            stale.push(format!("{}\n{text}", kept.display()));
        }
    }
    for entry in std::fs::read_dir("tests/specs/bad").expect("the folder") {
        let kept = entry.expect("an entry").path();
        if kept.extension().is_some_and(|e| e == "stderr") && !kept.with_extension("toml").exists() {
            stale.push(format!("{} has no spec", kept.display()));
        }
    }
    assert!(stale.is_empty(), "look at these, then run with RUNJOB_BLESS=1:\n{}", stale.join("\n"));
}

fn errors_of(text: &str) -> String {
    let loaded = parse(text, "tests/specs/good");
    let mut out = String::new();
    for diagnostic in resolve(&loaded).iter().filter(|d| d.severity == Severity::Error) {
        let span = loaded.source.span(&diagnostic.at);
        assert!(loaded.source.text.get(span.clone()).is_some(), "{diagnostic:?} is at {span:?}");
        let _ = write!(out, "{}", diag::render(&loaded.source, diagnostic, Style::Plain));
    }
    out
}

/// On a stack as small as a thread's.
#[test]
fn nesting_without_end_is_refused() {
    let many = 100_000;
    let texts = [
        format!("{}a = 1", "a.".repeat(many)),
        format!("[{}a]", "a.".repeat(many)),
        format!("[[{}a]]", "\"a\" . ".repeat(many)),
        format!("x = {}", "[".repeat(many)),
        format!("x = {}", "{a=".repeat(many)),
        format!("x = {}", "{a.a.a.a=[".repeat(many)),
        format!("[{}a]\n{}a = {}1", "a.".repeat(60), "b.".repeat(60), "{c.c.c.c.c.c.c.c.c.c=".repeat(6)),
        format!("[[steps]]\nfor = {{ i = \"{}0:1\" }}\ndo = []", "(".repeat(many)),
        format!("[dims]\nn = \"{}1\"", "-".repeat(many)),
        format!("[dims]\nn = \"1{}\"", " + 1".repeat(many)),
    ];
    for text in texts {
        assert!(!errors_of(&text).is_empty(), "{} ...", text.chars().take(40).collect::<String>());
    }
    let mut dims = "[dims]\nd0 = 1\n".to_string();
    for i in 1..5_000 {
        let _ = writeln!(dims, "d{i} = \"d{} + 1\"", i - 1);
    }
    // Dims of a file's order are found in it; the other way round they are too deep.
    let mut reversed = "[dims]\n".to_string();
    for i in 1..5_000 {
        let _ = writeln!(reversed, "d{} = \"d{} + 1\"", i - 1, i);
    }
    assert!(errors_of(&dims).contains("no [[steps]]"));
    assert!(errors_of(&format!("{reversed}d4999 = 1")).contains("deep"));
    let mut chains = "[dims]\n".to_string();
    for i in 0..199 {
        let _ = writeln!(chains, "d{i} = \"{}d{}{}\"", "(".repeat(60), i + 1, ") + 1 - 1".repeat(60) + &" + 0".repeat(130));
    }
    let errors = errors_of(&format!("{chains}d199 = 1"));
    assert!(errors.contains("no [[steps]]") && errors.matches("error[").count() == 1, "{errors}");
}

#[test]
fn loops_that_do_nothing_end() {
    let text = "[tensors]\nx = { dtype = \"f32\", shape = [4], data = \"zeros\" }\n[[steps]]\nfor = { i = \"0:1_000_000\" }\n\
                do = [{ for = { j = \"0:1_000_000\" }, do = [{ copy = \"x[j + 9]\", to = \"x[0]\" }] }]\n";
    let errors = errors_of(text);
    assert!(errors.contains("out of range") && errors.contains("2000000 steps"), "{errors}");
}

#[test]
fn an_unknown_dim_of_the_command_line_is_an_error() {
    let loaded = parse("[dims]\nrows = 4\n", "specs");
    let overrides = Overrides { dims: vec![("row".into(), 4)], ..Overrides::default() };
    let (_, diagnostics) = job::resolve(&loaded, Backend::Cpu, &overrides);
    let found = diagnostics.iter().find(|d| d.message.contains("--dim row=4")).expect("an error");
    assert_eq!(line_of(&loaded.source, found), 1);
    assert!(words(found).contains("did you mean `rows`?"));
}

#[test]
fn rounds_of_the_command_line_are_in_range() {
    let text = std::fs::read_to_string("tests/specs/good/loops.toml").expect("a spec");
    let loaded = parse(&text, "tests/specs/good");
    for (count, ok) in [(0, false), (1, true), (job::MOST_ROUNDS, true), (job::MOST_ROUNDS + 1, false), (u64::MAX, false)] {
        let overrides = Overrides { rounds: Some(count), ..Overrides::default() };
        let (job, diagnostics) = job::resolve(&loaded, Backend::Cpu, &overrides);
        assert_eq!(job.is_some(), ok, "{count}: {diagnostics:?}");
        assert!(ok || diagnostics.iter().any(|d| d.message.contains(&format!("--rounds {count}"))), "{diagnostics:?}");
    }
}

/// Pieces that a mutation puts into a spec.
const TOKENS: &[&str] = &[
    "9223372036854775807",
    "9223372036854775808",
    "-1",
    "0",
    "1e400",
    "nan",
    "inf",
    "\"",
    "'''",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\t",
    "\r\n",
    "é",
    "日本",
    "\u{feff}",
    "\0",
    "[[steps]]\n",
    "[[checks]]\n",
    "[[sets]]\n",
    "[dims]\n",
    "\"2**62\"",
    "\"2**200\"",
    "\"1 << 127\"",
    "\"n / 0\"",
    "\"round\"",
    "\"x[0:n]\"",
    "\"x[\"",
    "\"bits(0x1)\"",
    "true",
    "1979-05-27",
    "f32",
    "\"f16\"",
    "\"0:2**60\"",
    "{ file = \"../data/four.npy\" }",
    "{ values = [1, [2], \"n\"] }",
    "do = [{}]",
    "fill = \"y\"\nwith = 1\n",
    "4_000_000_000",
    "\"where(x\"",
    "\"sum(x, axis=1)\"",
    "carry = true",
    "count = 1_000_000_000_000",
    "\\",
    "\"\\u00e9\"",
];

pub fn mutate(text: &str, edits: &[(u8, usize, usize, usize)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for &(kind, a, b, token) in edits {
        let len = chars.len().max(1);
        let start = a % len;
        let end = (start + 1 + b % 24).min(chars.len());
        if start > end {
            continue;
        }
        let span: Vec<char> = chars[start..end].to_vec();
        match kind % 5 {
            0 => drop(chars.drain(start..end)),
            1 => drop(chars.splice(end..end, span)),
            2 => {
                drop(chars.drain(start..end));
                let at = token % (chars.len() + 1);
                drop(chars.splice(at..at, span));
            }
            3 => drop(chars.splice(start..start, TOKENS[token % TOKENS.len()].chars())),
            _ => drop(chars.splice(start..end, TOKENS[token % TOKENS.len()].chars())),
        }
    }
    chars.into_iter().collect()
}

/// `RUNJOB_CASES=20000` for a long run.
#[test]
fn no_text_makes_it_panic() {
    let cases = std::env::var("RUNJOB_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    let texts: Vec<(String, String)> = ["specs", "tests/specs/good", "tests/specs/bad"]
        .iter()
        .flat_map(|folder| specs(folder).into_iter().map(|path| (folder.to_string(), std::fs::read_to_string(path).expect("a spec"))))
        .collect();
    let edits = prop::collection::vec((any::<u8>(), any::<usize>(), any::<usize>(), any::<usize>()), 1..6);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&(0..texts.len(), edits), |(which, edits)| {
        let (folder, text) = &texts[which];
        let text = mutate(text, &edits);
        let started = std::time::Instant::now();
        let loaded = parse(&text, folder);
        let diagnostics = resolve(&loaded);
        let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
        prop_assert!(failed || loaded.spec.is_some(), "no spec and no error");
        for diagnostic in diagnostics.iter().take(20) {
            let span = loaded.source.span(&diagnostic.at);
            prop_assert!(loaded.source.text.get(span.clone()).is_some(), "{:?} is at {:?}", diagnostic, span);
            prop_assert!(!diagnostic.message.is_empty());
            prop_assert!(!diag::render(&loaded.source, diagnostic, Style::Plain).is_empty());
        }
        prop_assert!(started.elapsed().as_secs() < 20, "took {:?}", started.elapsed());
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn specs_that_run_have_no_errors() {
    let mut wrong = String::new();
    let mut complain = |loaded: &Loaded, diagnostics: Vec<Diagnostic>| {
        for diagnostic in diagnostics.iter().filter(|d| d.severity == Severity::Error) {
            let _ = writeln!(wrong, "{}", diag::render(&loaded.source, diagnostic, Style::Plain));
        }
    };
    for path in ["specs", "tests/specs/good", "tests/specs/fooled"].iter().flat_map(|folder| specs(folder)) {
        let loaded = spec::load(&path).expect("a spec that can be read");
        complain(&loaded, resolve(&loaded));
    }
    // Without the devices.
    for (backend, folder) in [
        (Backend::Opencl, "specs"),
        (Backend::Opencl, "tests/specs/opencl/good"),
        (Backend::Opencl, "tests/specs/opencl/fooled"),
        (Backend::Cuda, "specs"),
        (Backend::Cuda, "benches/specs"),
        (Backend::Cuda, "tests/specs/cuda/good"),
        (Backend::Cuda, "tests/specs/cuda/fooled"),
        (Backend::Cuda, "tests/specs/cuda/broken"),
        (Backend::Cuda, "tests/specs/cuda/hardware"),
    ] {
        for path in specs(folder) {
            let loaded = spec::load(&path).expect("a spec that can be read");
            let (_, diagnostics) = job::resolve_all(&loaded, backend, &Overrides::default());
            complain(&loaded, diagnostics);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
