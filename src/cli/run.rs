//! `runjob SPEC...`: every spec in a worker, one after the other; a line or a story for each; one exit code.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Cli, RunArgs, print, signals};
use crate::diag;
use crate::exec::{Phase, Progress};
use crate::tensor::Backend;
use crate::verdict::{Event, Report, Verdict};
use crate::worker::{self, Message, Outcome, Request, Watcher};

/// Of a job that runs in this process.
static PROGRESS: Progress = Progress::new();

/// All specs of the paths: files as they are, folders searched, in the order of their names; and whether a search found them.
///
/// *Errors*: the exit code, after a message.
pub(super) fn find(paths: &[PathBuf]) -> Result<Vec<(PathBuf, bool)>, u8> {
    let mut specs = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut found = Vec::new();
            if let Err(error) = search(path, 0, &mut found) {
                print::error(&format!("cannot search `{}`: {error}", path.display()));
                return Err(2);
            }
            found.sort();
            specs.extend(found.into_iter().map(|path| (path, true)));
        } else if path.exists() {
            specs.push((path.clone(), false));
        } else {
            print::error(&missing(path));
            return Err(2);
        }
    }
    if specs.is_empty() {
        let places: Vec<_> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
        print::error(&format!("no spec was found in {}: folders are searched for files that end in .toml", places.join(", ")));
        return Err(4);
    }
    Ok(specs)
}

/// A path that is no file: most likely a misspelt command or spec.
fn missing(path: &Path) -> String {
    let what = format!("there is no file `{}`", path.display());
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return what };
    if path.parent() == Some(Path::new("")) && path.extension().is_none() {
        let command = <Cli as clap::CommandFactory>::command();
        let commands: Vec<&str> = command.get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name).collect();
        if commands.contains(&name) {
            return format!("the command `{name}` must stand first, before all flags");
        }
        if let Some(near) = diag::nearest(name, &commands) {
            return format!("there is no command or file `{name}`; did you mean `runjob {near}`?");
        }
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return what };
    let specs = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(|name| name.ends_with(".toml"));
    let mut specs: Vec<String> = specs.collect();
    specs.sort();
    match diag::nearest(name, &specs) {
        Some(near) => format!("{what}; did you mean `{}`?", path.with_file_name(near).display()),
        None => what,
    }
}

/// Folders nested deeper than this are taken for a loop of links.
const DEEPEST: usize = 32;

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if depth > DEEPEST {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            search(&path, depth + 1, found)?;
        } else if path.extension().is_some_and(|e| e == "toml") {
            found.push(path);
        }
    }
    Ok(())
}

/// Exit codes from the one that says most to the one that says least.
const WORST_FIRST: [u8; 5] = [130, 2, 3, 1, 4];

pub(super) fn run(args: &RunArgs) -> u8 {
    if args.json.as_deref().is_some_and(|file| file.extension().is_some_and(|e| e == "toml")) {
        print::error("--json would write over a spec: give it a file that does not end in .toml, as in --json=report.json");
        return 2;
    }
    if args.json.as_deref() == Some(Path::new("-")) {
        print::keep_stdout_for_json();
    }
    let specs = match find(&args.specs) {
        Ok(specs) => specs,
        Err(code) => return code,
    };
    if let Some(folder) = &args.dump
        && let Err(message) = may_dump(folder, specs.len())
    {
        print::error(&message);
        return 2;
    }
    signals::listen(args.in_process, &PROGRESS);
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            print::error(&format!("cannot find this program to start it as a worker: {error}"));
            return 3;
        }
    };
    let mut many = specs.len() > 1;
    let mut codes = Vec::new();
    let mut reports: Vec<Report> = Vec::new();
    let mut refused: Vec<Report> = Vec::new();
    let mut invalid = 0;
    let mut several = false;
    let mut requests: VecDeque<Request> = match specs.into_iter().map(|(spec, found)| args.what.request(spec, found)).collect() {
        Ok(requests) => requests,
        Err(code) => return code,
    };
    requests.iter_mut().for_each(|request| request.dump.clone_from(&args.dump));
    while let Some(request) = requests.pop_front() {
        if signals::stops_asked() > 0 {
            codes.push(130);
            break;
        }
        let outcome = if args.in_process { in_process(&request) } else { worker::supervise(&request, &program, &mut Bar::new(args.quiet)) };
        match outcome {
            Outcome::Unselected { diagnostics } => {
                print::diagnostics(&diagnostics);
                codes.push(4);
                let name = request.spec.display().to_string();
                refused.push(Report { reason: Some(diagnostics), ..Report::empty(&name, Verdict::Skip) });
            }
            Outcome::Invalid { diagnostics } => {
                print::diagnostics(&diagnostics);
                print::invalid(&request.spec);
                invalid += 1;
                codes.push(2);
                let name = request.spec.display().to_string();
                refused.push(Report { reason: Some(diagnostics), ..Report::empty(&name, Verdict::Error) });
            }
            Outcome::Ended { diagnostics, reports: of_job, jobs } => {
                if request.overrides.point == 0 && jobs > 1 {
                    many = true;
                    for point in (1..jobs).rev() {
                        let mut next = request.clone();
                        next.overrides.point = point;
                        requests.push_front(next);
                    }
                }
                if !args.quiet {
                    print::diagnostics(&diagnostics);
                }
                if args.verbose {
                    print::plan_of(&request);
                }
                several |= of_job.len() > 1;
                for report in of_job {
                    print::report(&report, &request, args.quiet, args.verbose, many);
                    codes.push(report.verdict.exit_code());
                    reports.push(report);
                }
            }
        }
    }
    if many || several {
        print::totals(&reports, invalid);
    }
    // A spec that is wrong has a report too: what reads them must not take it for one that was not asked for.
    reports.append(&mut refused);
    if let Some(file) = &args.json
        && let Err(code) = write_json(file, &reports)
    {
        codes.push(code);
    }
    match WORST_FIRST.into_iter().find(|code| codes.contains(code)) {
        Some(130) => signals::code(),
        other => other.unwrap_or(0),
    }
}

/// Whether failing rounds may be written to a folder. *Errors*: why not.
fn may_dump(folder: &Path, specs: usize) -> Result<(), String> {
    if specs > 1 {
        return Err(format!("--dump takes the rounds of one spec, and {specs} were given"));
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // Rounds that pass now would seem to fail.
    match names
        .find(|name| name.starts_with("round-") || name.starts_with("job-") || Backend::ALL.iter().any(|b| name.starts_with(b.name())))
    {
        Some(name) => Err(format!("`{}` is of an earlier run: remove it, or give --dump another folder", folder.join(name).display())),
        None => Ok(()),
    }
}

fn write_json(file: &Path, reports: &[Report]) -> Result<(), u8> {
    let text = serde_json::to_string_pretty(reports).map_err(|error| {
        print::error(&format!("the reports cannot be written as JSON: {error}"));
        3
    })? + "\n";
    if file == Path::new("-") {
        print::out(&text);
        return Ok(());
    }
    save(file, &text).map_err(|error| {
        print::error(&format!("cannot write `{}`: {error}", file.display()));
        3
    })
}

/// Writes a file. A regular one stays whole until the new one is; links are followed, pipes and devices written to.
fn save(file: &Path, text: &str) -> std::io::Result<()> {
    let file = std::fs::canonicalize(file).unwrap_or(file.to_path_buf());
    if std::fs::metadata(&file).is_ok_and(|meta| !meta.is_file()) {
        return std::fs::File::options().write(true).open(&file)?.write_all(text.as_bytes());
    }
    let mut name = file.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let written = std::fs::File::create(&new).and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()));
    written.and_then(|()| std::fs::rename(&new, &file)).inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
    })
}

fn in_process(request: &Request) -> Outcome {
    let mut diagnostics = String::new();
    let mut errors = 0;
    let mut reports: Vec<Report> = Vec::new();
    let mut refused = None;
    let mut nothing = false;
    let mut jobs = 1;
    worker::execute(request, &PROGRESS, &mut |message| match message {
        Message::Diagnostics { text, errors: n, unselected, .. } => {
            diagnostics.push_str(&text);
            nothing |= unselected;
            errors += n;
        }
        Message::Job { jobs: of_spec, .. } => jobs = of_spec,
        Message::Event { event: Event::Done(done), .. } => reports.push(*done),
        Message::Refused { message } => refused = Some(message),
        _ => {}
    });
    if nothing {
        return Outcome::Unselected { diagnostics };
    }
    if errors > 0 {
        return Outcome::Invalid { diagnostics };
    }
    let name = request.spec.display().to_string();
    if reports.is_empty() {
        reports.push(Report { reason: refused, ..Report::empty(&name, Verdict::Error) });
    }
    Outcome::Ended { diagnostics, reports, jobs }
}

/// A bar on a terminal, nothing elsewhere.
struct Bar {
    bar: ProgressBar,
    since: Instant,
    verified: u64,
}

impl Bar {
    fn new(quiet: bool) -> Bar {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Bar { bar, since: Instant::now(), verified: 0 }
    }
}

impl Watcher for Bar {
    fn progress(&mut self, job: &str, rounds: u64, progress: &Progress) {
        // A job of a blink needs no bar.
        if self.since.elapsed() < Duration::from_millis(300) || progress.lane(0).phase() == Phase::Done {
            return;
        }
        let verified = progress.rounds_verified();
        // What it is at is worth saying only while no round comes to its end.
        let phase = if verified == self.verified { progress.lane(0).phase().name() } else { "" };
        self.verified = verified;
        // Rounds may go on until their times are known.
        let rounds = rounds.max(verified);
        if self.bar.length() != Some(rounds) {
            self.bar.set_prefix(job.to_string());
            self.bar.set_length(rounds);
        }
        self.bar.set_message(phase);
        self.bar.set_position(verified);
    }

    fn stops_asked(&self) -> u32 {
        signals::stops_asked()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
