//! Specs that somebody's hand slipped on: reading, resolving and planning them ends, in a job or in errors with a place;
//! running those that are left ends in a verdict.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runjob::diag::{self, Part, Severity, Style};
use runjob::job::{self, Overrides};
use runjob::plan::{self, Options};
use runjob::spec::{self, Backend};

use super::bad::specs;
use super::planner::caps;
use super::verdicts::{runjob, text};
use super::{bad, schema};

const FOLDERS: [&str; 4] = ["specs", "tests/specs/good", "tests/specs/fooled", "tests/specs/bad"];

/// No mutant may take longer: far more than the slowest takes on a slow machine, and less than for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// The memory that no mutant may make this process hold. *Units*: bytes.
const MOST_MEMORY: u64 = 6 << 30;

/// SplitMix64. *Source*: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators" (2014).
pub struct Draws(pub u64);

impl Draws {
    pub fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.next() % n.max(1)
    }

    pub fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len())]
    }
}

struct Original {
    folder: &'static str,
    name: String,
    text: String,
    value: Option<toml::Value>,
    places: Vec<Vec<String>>,
}

fn originals() -> Vec<Original> {
    let read = |folder: &'static str, path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let value = toml::from_str::<toml::Value>(&text).ok();
        let mut places = Vec::new();
        if let Some(value) = &value {
            schema::places(value, &mut Vec::new(), &mut places);
        }
        Original { folder, name: path.file_name().unwrap().to_string_lossy().into_owned(), text, value, places }
    };
    FOLDERS.into_iter().flat_map(|folder| specs(folder).into_iter().map(move |path| read(folder, path))).collect()
}

/// What stands between quotes in a text, and is one line of printable characters.
fn quoted(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let quotes: Vec<usize> = line.match_indices('"').map(|(at, _)| start + at).collect();
        found.extend(quotes.chunks_exact(2).map(|ends| ends[0] + 1..ends[1]));
        start += line.len();
    }
    found
}

const OPERATORS: [&str; 24] = [
    "+", "-", "*", "/", "//", "%", "**", "&", "|", "^", "<<", ">>", "~", "<", "<=", "==", "!=", " and ", " or ", " not ", ",", ":", "=",
    ".",
];

const PIECES: [&str; 30] = [
    "0",
    "1",
    "-1",
    "2**62",
    "2**63",
    "2**127",
    "1 << 126",
    "1e308",
    "0.5",
    "nan",
    "inf",
    "x",
    "y",
    "n",
    "round",
    "index(0)",
    "index(99)",
    "(",
    ")",
    "[",
    "]",
    "sum(x, axis=0)",
    "matmul(x, x)",
    "transpose(x)",
    "x[0]",
    "x[round]",
    "where(x > 0, x, 1)",
    "cdiv(n, 0)",
    "f16(x)",
    "after(x)",
];

/// An expression with one of its parts changed.
pub fn mutated_expression(expression: &str, draws: &mut Draws) -> String {
    let mut words: Vec<String> = Vec::new();
    for c in expression.chars() {
        match words.last_mut() {
            Some(word) if c.is_alphanumeric() && word.chars().all(char::is_alphanumeric) => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    if words.is_empty() {
        words.push("1".into());
    }
    let (at, other) = (draws.below(words.len()), draws.below(words.len()));
    match draws.below(8) {
        0 => words.swap(at, other),
        1 => drop(words.remove(at)),
        2 => words[at] = draws.of(&OPERATORS).to_string(),
        3 => words[at] = draws.of(&PIECES).to_string(),
        4 => words.insert(at, draws.of(&OPERATORS).to_string()),
        5 => words.insert(at, format!("{}{}", draws.of(&OPERATORS), draws.of(&PIECES))),
        6 => words = vec![format!("({expression}){}({})", draws.of(&OPERATORS), draws.of(&PIECES))],
        _ => {
            let (open, close) = *draws.of(&[("(", ")"), ("-", ""), ("~", ""), ("x[", "]"), ("abs(", ")"), ("sum(", ")"), ("not ", "")]);
            let times = *draws.of(&[1, 2, 20, 63, 64, 65, 300, 5_000]);
            words = vec![open.repeat(times) + expression + &close.repeat(times)];
        }
    }
    words.concat()
}

/// A text with one of its lines, words, numbers or characters changed.
fn mutated_text(text: &str, draws: &mut Draws) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.is_empty() {
        return "=".into();
    }
    let (at, other) = (draws.below(lines.len()), draws.below(lines.len()));
    match draws.below(10) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(other, lines[at]),
        2 => lines.swap(at, other),
        3 => {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..1 + draws.below(4) {
                let at = draws.below(bytes.len());
                bytes[at] ^= 1 << draws.below(8);
            }
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        4 => {
            let words: Vec<&str> = text.split_inclusive(|c: char| !c.is_alphanumeric()).collect();
            let (a, b) = (draws.below(words.len()), draws.below(words.len()));
            return words
                .iter()
                .enumerate()
                .map(|(i, word)| {
                    if i == a {
                        words[b]
                    } else if i == b {
                        words[a]
                    } else {
                        word
                    }
                })
                .collect();
        }
        5 => {
            let numbers: Vec<(usize, &str)> = text.match_indices(|c: char| c.is_ascii_digit()).collect();
            let huge = *draws.of(&[
                "9223372036854775807",
                "9223372036854775808",
                "-9223372036854775808",
                "1_000_000_000",
                "0",
                "-1",
                "1e400",
                "0x7fff_ffff_ffff_ffff",
                "1099511627776",
                "4294967296",
                "65536",
                "3",
                "\"2**62\"",
            ]);
            let Some((at, digit)) = numbers.get(draws.below(numbers.len())) else { return text.into() };
            return text[..*at].to_string() + huge + &text[at + digit.len()..];
        }
        6 => {
            let depth = *draws.of(&[2, 10, 63, 64, 65, 1000]);
            let (open, close) = *draws.of(&[("[", "]"), ("{ a = ", " }"), ("[{ a = ", "}]")]);
            let Some((key, value)) = lines[at].split_once(" = ") else { return text.into() };
            let line = format!("{key} = {}{}{}\n", open.repeat(depth), value.trim_end(), close.repeat(depth));
            return lines.iter().enumerate().map(|(i, old)| if i == at { &line } else { *old }).collect();
        }
        7 => {
            let edits: Vec<_> = (0..1 + draws.below(5)).map(|_| (draws.next() as u8, draws.next(), draws.next(), draws.next())).collect();
            return bad::mutate(text, &edits);
        }
        _ => {
            let expressions = quoted(text);
            if expressions.is_empty() {
                return text.into();
            }
            let range = draws.of(&expressions).clone();
            return text[..range.start].to_string() + &mutated_expression(&text[range.clone()], draws) + &text[range.end..];
        }
    }
    lines.concat()
}

struct Mutant {
    label: String,
    folder: &'static str,
    text: String,
}

fn mutant(originals: &[Original], number: usize) -> Mutant {
    let mut draws = Draws(number as u64);
    let original = draws.of(originals);
    let label = format!("mutant {number} of {}/{}", original.folder, original.name);
    let as_value = || {
        let mut draws = Draws(number as u64 ^ 0x5555);
        let mut value = original.value.clone()?;
        for _ in 0..1 + draws.below(2) {
            let (place, from) = (draws.of(&original.places), draws.of(&original.places));
            let (kind, token) = (draws.below(schema::KINDS.len()), draws.next());
            schema::mutate(&mut value, place, from, kind, token);
        }
        toml::to_string(&value).ok()
    };
    let text = match draws.below(3) {
        0 => as_value(),
        1 => None,
        _ => Some(mutated_text(&mutated_text(&original.text, &mut draws), &mut draws)),
    };
    Mutant { label, folder: original.folder, text: text.unwrap_or_else(|| mutated_text(&original.text, &mut draws)) }
}

/// Reads, resolves and plans. `Ok(true)`: it can run. *Errors*: what is wrong with how it was answered.
fn judge(mutant: &Mutant) -> Result<bool, String> {
    let loaded = spec::parse(format!("{}/mutant.toml", mutant.folder), mutant.text.clone(), mutant.folder.into());
    let (jobs, diagnostics) = job::resolve_all(&loaded, Backend::Cpu, &Overrides::default());
    let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
    if failed != jobs.is_empty() {
        return Err(format!("{} jobs, and errors: {failed}", jobs.len()));
    }
    let source = &loaded.source;
    for diagnostic in &diagnostics {
        let span = source.span(&diagnostic.at);
        let first_line = source.text.find('\n').unwrap_or(source.text.len());
        // What is missing in an expression or in the file's syntax is a point between two characters.
        let between = !matches!(diagnostic.at.part, Part::Key | Part::Value) || span.start <= first_line;
        if source.text.get(span.clone()).is_none() || span.is_empty() && !between {
            return Err(format!("{diagnostic:?} is at {span:?}"));
        }
        let rendered = diag::render(source, diagnostic, Style::Plain);
        if diagnostic.message.is_empty() || !rendered.contains(&source.name) {
            return Err(format!("{diagnostic:?} is printed as {rendered}"));
        }
    }
    // What a device lacks is an answer too.
    Ok(!jobs.is_empty() && jobs.iter().take(4).all(|job| plan::build(job, &caps(true), &Options::default()).is_ok()))
}

fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|t| t.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Does something for every number below, on two threads with the stack that threads have, and ends the test's process
/// where one takes for ever or all memory: a thread that hangs cannot be failed otherwise.
fn for_each(count: usize, work: impl Fn(usize) -> Result<(), String> + Sync) {
    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let at = [const { Mutex::new(None::<(usize, Instant)>) }; 2];
    let complaints = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let workers = [0, 1].map(|thread| {
            let (next, at, complaints, work) = (&next, &at, &complaints, &work);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    *at[thread].lock().unwrap() = Some((number, Instant::now()));
                    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(number)));
                    *at[thread].lock().unwrap() = None;
                    if let Err(complaint) = answer.unwrap_or_else(|_| Err(format!("number {number} panicked"))) {
                        complaints.lock().unwrap().push(complaint);
                    }
                }
            })
        });
        let (at, done) = (&at, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
                let now = at.each_ref().map(|at| *at.lock().unwrap());
                let hangs = now.iter().flatten().any(|(_, since)| since.elapsed() > PATIENCE);
                if hangs || resident() > MOST_MEMORY {
                    eprintln!("numbers and the times they began {now:?}: hangs {hangs}, {} bytes resident", resident());
                    std::process::exit(101);
                }
            }
        });
        for worker in workers {
            let _ = worker.join();
        }
        done.store(true, Ordering::Relaxed);
    });
    let complaints = complaints.into_inner().unwrap();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints[..complaints.len().min(8)].join("\n\n"));
}

/// `RUNJOB_MUTANTS` sets how many; the same ones every time. `RUNJOB_MUTANT` is the number of one to look at.
#[test]
fn ten_thousand_mutants_end_in_a_job_or_in_errors_with_a_place_and_two_hundred_of_them_in_a_verdict() {
    let originals = originals();
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<usize>().ok());
    if let Some(one) = number("RUNJOB_MUTANT") {
        let mutant = mutant(&originals, one);
        println!("{}\n{}\n{:?}", mutant.label, mutant.text, judge(&mutant));
        return;
    }
    let survivors = Mutex::new(Vec::new());
    let count = number("RUNJOB_MUTANTS").unwrap_or(10_000);
    for_each(count, |number| {
        let mutant = mutant(&originals, number);
        let answer = std::panic::catch_unwind(|| judge(&mutant)).unwrap_or_else(|_| Err("it panics".into()));
        let survives = answer.map_err(|e| format!("{}: {e}\n{}", mutant.label, mutant.text.chars().take(4000).collect::<String>()))?;
        if survives {
            survivors.lock().unwrap().push(number);
        }
        Ok(())
    });
    let mut survivors = survivors.into_inner().unwrap();
    survivors.sort_unstable();
    assert!(survivors.len() * 20 > count, "only {} of {count} mutants could run", survivors.len());
    run(&originals, &survivors);
}

/// Runs 200 of the mutants under limits, from folders beside which their kernels and data are.
fn run(originals: &[Original], survivors: &[usize]) {
    let tree = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in FOLDERS {
        std::fs::create_dir_all(tree.path().join(folder)).unwrap();
    }
    for folder in FOLDERS {
        for parent in [folder, "tests/specs"] {
            for entry in std::fs::read_dir(root.join(parent)).unwrap().map(Result::unwrap) {
                let link = tree.path().join(parent).join(entry.file_name());
                if entry.path().is_dir() && !link.exists() && !FOLDERS.contains(&&*format!("{parent}/{}", entry.file_name().display())) {
                    std::os::unix::fs::symlink(entry.path(), link).unwrap();
                }
            }
        }
    }
    let chosen: Vec<usize> = survivors.iter().step_by((survivors.len() / 200).max(1)).take(200).copied().collect();
    for_each(chosen.len(), |index| {
        let mutant = mutant(originals, chosen[index]);
        let path = tree.path().join(mutant.folder).join(format!("mutant_{index}.toml"));
        let mut table: toml::Table = toml::from_str(&mutant.text).map_err(|e| e.to_string())?;
        let limits = "compile = '20s'\nprepare = '3s'\nrun = '3s'\ncheck = '3s'\ndevice_memory = '256MiB'\nhost_memory = '512MiB'";
        table.insert("limits".into(), toml::from_str::<toml::Value>(limits).unwrap());
        if let Some(toml::Value::Table(rounds)) = table.get_mut("rounds") {
            rounds.remove("warmup");
        }
        std::fs::write(&path, toml::to_string(&table).unwrap()).unwrap();
        let mut command = runjob();
        command.arg(&path).args(["--rounds", "3"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.spawn().and_then(std::process::Child::wait_with_output).unwrap();
        let printed = text(&output);
        let known = [0, 1, 2, 3].map(Some).contains(&output.status.code());
        // Behind a bar is what kernels printed: the copy of a worker that one of them forked lacks its threads, and panics.
        let panics = printed.lines().any(|line| !line.starts_with("    |") && line.contains("panicked at"));
        if known && !panics && !printed.contains("itself failed") {
            return Ok(());
        }
        Err(format!("{}: {:?}\n{printed}\n{}", mutant.label, output.status, std::fs::read_to_string(&path).unwrap()))
    });
}
