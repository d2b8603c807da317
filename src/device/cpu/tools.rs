//! Finds the compilers of this machine: one each for C, C++ and Rust, when it is first needed, or what to install.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::cache::Cache;
use super::run::run;
use crate::device::{DeviceError, Result};
use crate::tensor::Lang;

/// How long a compiler may take to say its version.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// A compiler of this machine, or that there is none.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Tool {
    /// `C`, `C++` or `Rust`.
    pub language: &'static str,
    /// Suffixes of the sources that need it.
    pub suffixes: &'static [&'static str],
    /// The command that runs it, and the first line of what it says of its version.
    pub found: Option<Found>,
    /// Commands that were looked for, the best first.
    pub tried: Vec<String>,
    /// The variable that names another one.
    pub variable: &'static str,
    /// How to install one.
    pub install: &'static str,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Found {
    pub command: String,
    pub version: String,
}

/// A compiler that answers.
#[derive(Clone, Debug)]
pub(super) struct Compiler {
    pub lang: Lang,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// First line of what it says of its version.
    pub version: String,
    /// All that it says of itself.
    pub identity: String,
}

/// The compilers of this machine.
pub(super) struct Tools {
    candidates: [Vec<String>; 3],
    found: [OnceLock<Option<Compiler>>; 3],
}

impl Tools {
    /// Those among `candidates` (by language), otherwise among the usual ones.
    pub fn new(candidates: [Option<Vec<String>>; 3]) -> Tools {
        let mut langs = Lang::ALL.into_iter();
        let candidates = candidates.map(|given| given.or_else(|| langs.next().map(usual)).unwrap_or_default());
        Tools { candidates, found: Default::default() }
    }

    /// The compiler of a language. *Errors*: `Unsupported`, with what was tried and what to install.
    pub fn get(&self, lang: Lang, cache: &Cache) -> Result<&Compiler> {
        let candidates = &self.candidates[lang as usize];
        let find = || candidates.iter().find_map(|candidate| Compiler::probe(lang, candidate, cache));
        self.found[lang as usize].get_or_init(find).as_ref().ok_or_else(|| {
            let tried: Vec<String> = candidates.iter().map(|c| format!("`{c}`")).collect();
            let tried = if tried.is_empty() { "nothing".to_string() } else { tried.join(", ") };
            let (what, install, variable) = (lang.title(), install(lang), variable(lang));
            DeviceError::Unsupported(format!("no {what} compiler: tried {tried}; {install}, or set {variable}"))
        })
    }

    /// What there is for every language.
    pub fn list(&self, cache: &Cache) -> Vec<Tool> {
        let tool = |lang: Lang| Tool {
            language: lang.title(),
            suffixes: lang.suffixes(),
            found: self.get(lang, cache).ok().map(|c| {
                let words = [vec![c.program.display().to_string()], c.args.clone()].concat();
                Found { command: words.join(" "), version: c.version.clone() }
            }),
            tried: self.candidates[lang as usize].clone(),
            variable: variable(lang),
            install: install(lang),
        };
        Lang::ALL.map(tool).to_vec()
    }
}

/// The variable that names the one compiler to use.
fn variable(lang: Lang) -> &'static str {
    match lang {
        Lang::C => "RUNJOB_CC",
        Lang::Cxx => "RUNJOB_CXX",
        Lang::Rust => "RUNJOB_RUSTC",
    }
}

/// The commands that may be a compiler, by preference: runjob's own variable alone where it is set, else what others use.
fn usual(lang: Lang) -> Vec<String> {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    if let Some(only) = var(variable(lang)) {
        return vec![only];
    }
    let (common, names): (&str, &[&str]) = match lang {
        Lang::C => ("CC", &["cc", "clang", "gcc"]),
        Lang::Cxx => ("CXX", &["c++", "clang++", "g++"]),
        Lang::Rust => ("RUSTC", &["rustc"]),
    };
    // Where rustup puts it, for programs that were not started from a shell.
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo/bin/rustc").to_str()?.to_string());
    let at_home = (lang == Lang::Rust).then(home).flatten().filter(|path| !path.contains(char::is_whitespace));
    var(common).into_iter().chain(names.iter().map(|name| name.to_string())).chain(at_home).collect()
}

/// How to install a compiler on this machine.
fn install(lang: Lang) -> &'static str {
    let system = if cfg!(target_os = "macos") { "macos".to_string() } else { distribution() };
    match (lang, system.as_str()) {
        (Lang::Rust, _) => "https://rustup.rs installs one",
        (_, "macos") => "`xcode-select --install` installs one",
        (Lang::C, "debian") => "`apt-get install gcc libc6-dev` installs one",
        (Lang::C, "fedora") => "`dnf install gcc` installs one",
        (Lang::C, _) => "`apt-get install gcc libc6-dev` (Debian, Ubuntu) or `dnf install gcc` (Fedora) installs one",
        (Lang::Cxx, "debian") => "`apt-get install g++` installs one",
        (Lang::Cxx, "fedora") => "`dnf install gcc-c++` installs one",
        (Lang::Cxx, _) => "`apt-get install g++` (Debian, Ubuntu) or `dnf install gcc-c++` (Fedora) installs one",
    }
}

/// The family of a Linux distribution: `debian`, `fedora` or nothing that is known.
fn distribution() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let ids: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|ids| ids.trim_matches('"').split_whitespace())
        .collect();
    let family = ["debian", "fedora"].into_iter().find(|family| ids.contains(family));
    family.or_else(|| ids.contains(&"rhel").then_some("fedora")).unwrap_or("").to_string()
}

impl Compiler {
    /// The compiler that a command runs. It may have arguments (`ccache gcc`).
    fn probe(lang: Lang, candidate: &str, cache: &Cache) -> Option<Compiler> {
        let mut words = candidate.split_whitespace().map(String::from);
        let program = locate(&words.next()?)?;
        let args: Vec<String> = words.collect();
        let ask = |option: &str| {
            let mut command = Command::new(&program);
            command.args(&args).arg(option);
            let ran = run(&mut command, Some(ANSWERS_WITHIN), &AtomicBool::new(false)).ok()?;
            ran.status.success().then_some(ran.log)
        };
        if lang == Lang::Rust {
            // What a rustup proxy runs may change while the proxy itself does not: it is asked every time.
            let identity = ask("-vV")?;
            let version = identity.lines().next()?.trim().to_string();
            return version.starts_with("rustc ").then_some(Compiler { lang, program, args, version, identity });
        }
        let meta = fs::metadata(&program).ok()?;
        let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let file = format!("{}\0{args:?}\0{modified}\0{}", program.display(), meta.len());
        let note = format!("compiler-{}.txt", &blake3::hash(file.as_bytes()).to_hex()[..16]);
        let version = cache.note(&note).or_else(|| {
            let line = ask("--version")?.lines().next()?.trim().to_string();
            cache.keep_note(&note, &line);
            Some(line)
        })?;
        Some(Compiler { lang, program, args, identity: version.clone(), version })
    }
}

/// The file that a command's name stands for.
fn locate(name: &str) -> Option<PathBuf> {
    let found = if name.contains(std::path::MAIN_SEPARATOR) {
        Some(PathBuf::from(name)).filter(|path| path.is_file())
    } else {
        std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
    };
    // Not resolved further: a compiler may go by the name it is called with.
    found.map(|path| std::path::absolute(&path).unwrap_or(path))
}
