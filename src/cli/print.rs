//! Reports as text for people.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::times;
use crate::plan::{self, nanoseconds};
use crate::tensor::Number;
use crate::verdict::{CheckReport, Failure, Kind, Metric, Reached, Report, Verdict};
use crate::worker::{self, Request};

/// Whether diagnostics are coloured.
pub(super) fn coloured() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Whether something that was to be printed is lost.
static LOST: AtomicBool = AtomicBool::new(false);

/// Whether reports go to standard error, because standard output is for JSON alone.
static ASIDE: AtomicBool = AtomicBool::new(false);

/// Keeps standard output for what is read by programs.
pub(super) fn keep_stdout_for_json() {
    ASIDE.store(true, Ordering::Relaxed);
}

/// The exit code of a run that would end with `code`: what could not be written must not look like a success.
pub(super) fn code(code: u8) -> u8 {
    if code == 0 && LOST.load(Ordering::Relaxed) { 3 } else { code }
}

/// Writes to standard output. A reader that went away has seen enough; anything else that keeps it from being
/// written is an error.
pub(super) fn out(text: &str) {
    let mut stdout = anstream::stdout();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
        && !LOST.swap(true, Ordering::Relaxed)
    {
        self::error(&format!("cannot write to standard output: {error}"));
    }
}

/// Writes what is for people.
fn tell_people(text: &str) {
    if ASIDE.load(Ordering::Relaxed) {
        let _ = anstream::stderr().write_all(text.as_bytes());
    } else {
        out(text);
    }
}

/// A text of someone else's without what steers a terminal.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A message about the command line or the machine.
pub(super) fn error(message: &str) {
    let _ = writeln!(anstream::stderr(), "error: {message}");
}

/// Problems of a spec, rendered.
pub(super) fn diagnostics(text: &str) {
    let _ = anstream::stderr().write_all(text.as_bytes());
}

pub(super) fn invalid(spec: &Path) {
    let _ = writeln!(anstream::stderr(), "{}: the spec is wrong, nothing was run", spec.display());
}

/// The plan of a job, for `--verbose`.
pub(super) fn plan_of(request: &Request) {
    use crate::device::{Clock, Device};
    let Ok(resolved) = worker::resolve(request) else { return };
    for party in resolved.parties {
        let Ok(device) = worker::open(request, &party.device, Clock::Off, None, 0) else { continue };
        if let Ok(plan) = plan::build(&party.job, device.caps(), &request.plan_options()) {
            tell_people(&(plan::summary(&plan) + "\n"));
        }
    }
}

/// Rows of words, columns aligned.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out(&(cells.join("  ").trim_end().to_string() + "\n"));
    }
}

/// What a job came to: a line for a job among many that is well, else the whole story.
pub(super) fn report(report: &Report, request: &Request, quiet: bool, verbose: bool, brief: bool) {
    let good = report.verdict.exit_code() == 0;
    let impossible = times::is_impossible(report);
    if quiet && good && !impossible {
        return;
    }
    let mut text = headline(report);
    if report.verdict == Verdict::Pass {
        if !brief || impossible {
            passed(&mut text, report, request.device_times != crate::device::Clock::Off);
        }
    } else {
        failed(&mut text, report, brief && good);
    }
    if verbose {
        details(&mut text, report);
        if report.verdict == Verdict::Pass {
            printed(&mut text, report);
        }
    }
    tell_people(&text);
}

fn headline(report: &Report) -> String {
    use anstyle::{AnsiColor, Style};
    let colour = match report.verdict {
        Verdict::Pass | Verdict::Xfail => AnsiColor::Green,
        Verdict::Skip | Verdict::Unchecked | Verdict::Interrupted => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    let mut text = format!("{style}{}{style:#} {}: ", report.verdict.name(), harmless(&report.job));
    let plural = |n: u64| if n == 1 { "" } else { "s" };
    let builds = report.checks.iter().filter(|c| c.build);
    let (built, builds, unfit) = builds.fold((0, 0, 0), |(built, all, unfit), c| (built + c.rounds, all + 1, unfit + c.failed_rounds));
    let _ = match report.verdict {
        Verdict::Fail | Verdict::Xfail if unfit > 0 => {
            let of_rounds = format!(", {} of {} rounds failed", report.failed_rounds, report.run);
            write!(text, "{unfit} of {builds} build{} failed{}", plural(builds), if report.run > 0 { of_rounds.as_str() } else { "" })
        }
        Verdict::Pass | Verdict::Xpass if report.rounds == 0 => write!(text, "{builds} build{} checked", plural(builds)),
        Verdict::Unchecked if builds > 0 => write!(text, "{} round{}, builds alone checked", report.run, plural(report.run)),
        _ if builds > 0 && report.rounds == 0 => write!(text, "{built} of {builds} build{} checked", plural(builds)),
        Verdict::Pass if report.between.is_some() && report.left_out == 0 => {
            write!(text, "{} round{}, every one compared", report.run, plural(report.run))
        }
        Verdict::Pass | Verdict::Xpass if report.left_out > 0 => {
            write!(text, "{} round{}, {} of them not fully checked, by request", report.run, plural(report.run), report.left_out)
        }
        Verdict::Pass | Verdict::Xpass => write!(text, "{} round{}, every one checked", report.run, plural(report.run)),
        Verdict::Fail | Verdict::Xfail if report.run > 0 => write!(text, "{} of {} rounds failed", report.failed_rounds, report.run),
        Verdict::Unchecked => write!(text, "{} round{}, nothing checked", report.run, plural(report.run)),
        _ if report.between.is_some() => write!(text, "{} of {} rounds compared", report.run, report.rounds),
        _ => write!(text, "{} of {} rounds checked", report.checked, report.rounds),
    };
    if report.not_selected > 0 {
        let _ = write!(text, " ({} not selected)", report.not_selected);
    }
    // A time of rounds that were wrong is no result.
    if report.verdict == Verdict::Pass
        && let Some(time) = times::of_round(report)
    {
        let _ = write!(text, ", {time} a round");
    }
    if times::is_impossible(report) {
        let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let _ = write!(text, ", {style}FASTER THAN THE DEVICE CAN BE{style:#}");
    }
    text.push('\n');
    text
}

/// What was checked, where the time went, and on what.
fn passed(text: &mut String, report: &Report, clock: bool) {
    let width = report.checks.iter().map(|c| c.text.chars().count()).max().unwrap_or(0);
    for check in &report.checks {
        let _ = writeln!(text, "  {:<width$}  {}", check.text, told(check));
    }
    times::told(text, report, clock);
    device(text, report);
}

/// How close it was to be and came, over how many elements and rounds.
fn told(check: &CheckReport) -> String {
    let mut parts = Vec::new();
    let of_elements = !check.condition && !check.build;
    if !of_elements {
        parts.push("holds".to_string());
    }
    if !check.tolerance.is_empty() {
        let default = if check.default_tolerance { " (the dtype's default)" } else { "" };
        parts.push(format!("{}{default}", check.tolerance));
    }
    for Reached { metric, value, limit } in &check.metrics {
        let sign = if *metric == Metric::MinCosine { ">=" } else { "<=" };
        parts.push(format!("{} {} {sign} {}", metric.name(), brief(*value), Number::Float(*limit)));
    }
    if of_elements && check.elements == check.of {
        parts.push(format!("{} elements", grouped(check.elements)));
    } else if of_elements {
        parts.push(format!("{} of {} elements", grouped(check.elements), grouped(check.of)));
    }
    if check.left_out > 0 {
        parts.push(format!("in {} rounds, {} not checked by request", check.rounds, check.left_out));
    }
    parts.join(", ")
}

/// A value that a metric came to, to three digits; one that is just not 1 keeps those that say so.
fn brief(value: f64) -> String {
    let rounded = format!("{value:.2e}").parse().unwrap_or(value);
    let rounded = if rounded == 1.0 && value != 1.0 { format!("{value:.9}").parse().unwrap_or(value) } else { rounded };
    Number::Float(rounded).to_string()
}

fn device(text: &mut String, report: &Report) {
    if !report.device.is_empty() {
        let _ = writeln!(text, "  {}: {}, {}; trust {}", report.backend, report.device, report.driver, report.trust.name());
    }
}

/// What could still be learnt after a device call failed.
fn salvaged(text: &mut String, report: &Report) {
    for error in &report.salvage.errors {
        let _ = writeln!(text, "  also {}", indent(error, "  "));
    }
    if !report.salvage.checks.is_empty() {
        text.push_str("  what was in flight then does not count; it was looked at all the same:\n");
    }
    for check in &report.salvage.checks {
        let found = check.problem.as_deref().unwrap_or("right");
        let _ = writeln!(text, "    round {}: {}: {}", check.round, check.check, indent(found, "      "));
    }
}

fn failed(text: &mut String, report: &Report, brief: bool) {
    if let Some(reason) = &report.reason {
        let _ = writeln!(text, "  {}", indent(reason, "  "));
    }
    if brief {
        return;
    }
    salvaged(text, report);
    let mut shown: Vec<(Option<&str>, Option<&str>)> = Vec::new();
    for failure in &report.failures {
        // The first failure of each kind tells its story, those of later rounds a line.
        let kind = (failure.check.as_deref(), failure.tensor.as_deref());
        tell(text, failure, !shown.contains(&kind));
        shown.push(kind);
    }
    let mut explained: Vec<u64> = report.failures.iter().filter(|f| f.kind != Kind::Build).map(|f| f.round).collect();
    explained.dedup();
    match report.failed_rounds.saturating_sub(explained.len() as u64) {
        0 => {}
        1 => text.push_str("  and 1 more round\n"),
        more => {
            let _ = writeln!(text, "  and {more} more rounds");
        }
    }
    printed(text, report);
    device(text, report);
}

fn tell(text: &mut String, failure: &Failure, story: bool) {
    let set = failure.set.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
    let place = if failure.kind == Kind::Build { String::new() } else { format!("round {}{set}: ", failure.round) };
    let _ = writeln!(text, "  {place}{}", indent(&failure.message, "  "));
    if let Some(dump) = &failure.dump {
        let _ = writeln!(text, "    files  {}", dump.folder.display());
        for problem in &dump.problems {
            let _ = writeln!(text, "    warning: {problem}");
        }
    }
    if !story {
        return;
    }
    if let Some(check) = &failure.check {
        let _ = writeln!(text, "    check  {check}");
    }
    for pattern in &failure.patterns {
        let _ = writeln!(text, "    {pattern}");
    }
    if failure.mismatches.is_empty() {
        return;
    }
    let mut rows = vec![["at", "got", "want", "abs error", "rel error", "ulp"].map(String::from)];
    for at in &failure.mismatches {
        if at.worst && failure.mismatches.iter().any(|m| !m.worst && m.index == at.index) {
            continue;
        }
        let m = &at.mismatch;
        let ulp = if m.ulp == u64::MAX { "inf".to_string() } else { m.ulp.to_string() };
        let place = format!("{:?}{}", at.index, if at.worst { " (worst)" } else { "" });
        rows.push([place, digits(m.got), digits(m.want), short(m.abs), short(m.rel), ulp]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        let _ = writeln!(text, "    {}", cells.join("  "));
    }
}

fn printed(text: &mut String, report: &Report) {
    let lines: Vec<&str> = report.output.trim_end().lines().filter(|line| !is_tally(line)).collect();
    if lines.iter().all(|line| line.trim().is_empty()) {
        return;
    }
    let _ = writeln!(text, "  the kernels printed:");
    for line in lines.iter().take(20) {
        let _ = writeln!(text, "    | {}", harmless(line));
    }
    if lines.len() > 20 {
        let _ = writeln!(text, "    ... {} more lines", lines.len() - 20);
    }
}

/// Whether a line is what drivers' compilers write to the process's output besides their log: `2 errors generated.`
fn is_tally(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let counts = |pair: &[&str]| matches!(pair, [n, "error" | "errors" | "warning" | "warnings"] if n.parse::<u32>().is_ok());
    match words[..] {
        [ref pair @ .., "generated."] if pair.len() == 2 => counts(pair),
        [ref pairs @ .., "generated."] if pairs.len() == 5 && pairs[2] == "and" => counts(&pairs[..2]) && counts(&pairs[3..]),
        _ => false,
    }
}

fn details(text: &mut String, report: &Report) {
    let (setup, rounds) = (&report.setup_counts, &report.round_counts);
    let _ = writeln!(
        text,
        "  seed      {}\n  driver    {}\n  set-up    {}: {} allocations, {}, {} kernels loaded, {} graphs\n  rounds    {} replays, {} launches, {} copies, {} fills, {} allocations, {} kernels loaded",
        report.seed,
        report.driver,
        nanoseconds(report.times.setup),
        setup.allocs,
        plan::bytes(setup.bytes_allocated),
        setup.loads,
        setup.records,
        rounds.replays,
        rounds.launches,
        rounds.copies,
        rounds.fills,
        rounds.allocs,
        rounds.loads,
    );
}

/// The last lines of a run of several specs.
pub(super) fn totals(reports: &[Report], invalid: usize) {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for report in reports {
        match counts.iter_mut().find(|(name, _)| *name == report.verdict.name()) {
            Some((_, n)) => *n += 1,
            None => counts.push((report.verdict.name(), 1)),
        }
    }
    if invalid > 0 {
        counts.push(("wrong spec", invalid));
    }
    let listed: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
    tell_people(&format!("{} jobs: {}\n", reports.len() + invalid, listed.join(", ")));
}

/// A value to nine significant digits, which tell any two f32 apart.
fn digits(number: Number) -> String {
    match number {
        Number::Float(x) if x.is_finite() => Number::Float(format!("{x:.8e}").parse().unwrap_or(x)).to_string(),
        other => other.to_string(),
    }
}

/// A number to three digits.
fn short(x: f64) -> String {
    if x.is_nan() {
        "nan".into()
    } else if x == 0.0 || (1e-3..1e6).contains(&x.abs()) {
        format!("{x:.4}")
    } else {
        format!("{x:.2e}")
    }
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('_');
        }
        out.push(c);
    }
    out
}

fn indent(text: &str, by: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{by}"))
}
