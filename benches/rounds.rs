//! Rounds through the whole library against hand-written C programs that do the same work.
//!
//!     cargo bench --bench rounds                  all rows
//!     cargo bench --bench rounds -- tiny          rows whose name holds the word
//!     RUNJOB_BENCH_PAIRS=3 cargo bench            fewer pairs
//!
//! Each pair is one run of the C program of `baseline/` and one run of a spec of `specs/` at each trust level, one
//! right after the other; a ratio is the median of the pairs' ratios. A bare time on a shared machine says nothing.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use runjob::device::cpu::{self, CpuOptions};
use runjob::device::{Device, Trace, TraceOptions};
use runjob::exec::{self, Progress};
use runjob::job::{self, Overrides};
use runjob::plan::{self, Options, Trust};
use runjob::spec::{self, Backend};
use runjob::verdict::{Event, Report, Verdict};

/// One row: a mode of the C program and the spec of the same name.
struct Row {
    name: &'static str,
    /// Lanes of ours, threads of the C program.
    threads: usize,
    /// Rounds of one run of either program.
    rounds: u64,
    /// Greatest ratio to C at trust `fast`.
    fast: f64,
    standard: Target,
}

enum Target {
    /// Greatest ratio to C.
    Ratio(f64),
    /// Greatest difference to `fast`. *Units*: nanoseconds.
    Over(f64),
}

const ROWS: [Row; 4] = [
    Row { name: "tiny", threads: 1, rounds: 200_000, fast: 1.2, standard: Target::Over(300.0) },
    Row { name: "tiny", threads: 2, rounds: 400_000, fast: 1.2, standard: Target::Over(300.0) },
    Row { name: "stream", threads: 2, rounds: 20, fast: 1.05, standard: Target::Ratio(1.1) },
    Row { name: "chain", threads: 2, rounds: 50, fast: 1.2, standard: Target::Ratio(1.2) },
];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let pairs = std::env::var("RUNJOB_BENCH_PAIRS").ok().and_then(|n| n.parse().ok()).unwrap_or(9usize).max(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let built = tempfile::tempdir()?;
    let program = built.path().join("baseline");
    compile(&folder.join("baseline"), &program)?;
    println!("{pairs} pairs; ns per round are medians, ratios are medians of the pairs' ratios");
    println!(
        "{:8} {:>7} {:9} {:>12} {:>12} {:>7} {:>9}  of a round: fill, run, check",
        "row", "threads", "trust", "C", "runjob", "ratio", "target"
    );
    for row in ROWS.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|word| row.name.contains(word.as_str()))) {
        measure(row, pairs, &program, &folder.join("specs").join(row.name).with_extension("toml"))?;
    }
    Ok(())
}

fn compile(sources: &Path, program: &Path) -> Result<(), Failure> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let native = if cfg!(target_arch = "aarch64") { "-mcpu=native" } else { "-march=native" };
    let files = ["baseline.c", "kernels.c"].map(|file| sources.join(file));
    let options = ["-O3", native, "-pthread"].map(OsStr::new);
    let status = Command::new(&compiler).args(options).args(&files).arg("-o").arg(program).arg("-lm").status()?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", compiler.display()).into()) }
}

fn measure(row: &Row, pairs: usize, program: &Path, spec: &Path) -> Result<(), Failure> {
    let trusts = [Trust::Fast, Trust::Standard];
    let mut c = Vec::new();
    let mut ours: [Vec<Report>; 2] = Default::default();
    for _ in 0..pairs {
        c.push(baseline(row, program)?);
        for (trust, reports) in trusts.into_iter().zip(&mut ours) {
            reports.push(rounds(row, spec, trust)?);
        }
    }
    let fast = median(ours[0].iter().map(per_round));
    for (trust, reports) in trusts.into_iter().zip(&ours) {
        let ratio = median(reports.iter().zip(&c).map(|(report, c)| per_round(report) / c));
        let time = median(reports.iter().map(per_round));
        let (target, met) = match (trust, &row.standard) {
            (Trust::Fast, _) => (format!("<= {}", row.fast), ratio <= row.fast),
            (_, Target::Ratio(most)) => (format!("<= {most}"), ratio <= *most),
            (_, Target::Over(most)) => (format!("+{most} ns"), time - fast <= *most),
        };
        let phase = |of: fn(&Report) -> u64| median(reports.iter().map(|r| of(r) as f64 / r.times.sampled.max(1) as f64));
        println!(
            "{:8} {:>7} {:9} {:>12.0} {:>12.0} {:>7.3} {:>9}{} {:.0}, {:.0}, {:.0}",
            row.name,
            row.threads,
            trust.name(),
            median(c.iter().copied()),
            time,
            ratio,
            target,
            if met { " " } else { "!" },
            phase(|r| r.times.fill),
            phase(|r| r.times.run),
            phase(|r| r.times.check),
        );
    }
    Ok(())
}

/// Nanoseconds per round of the C program.
fn baseline(row: &Row, program: &Path) -> Result<f64, Failure> {
    let output = Command::new(program).args([row.name, &row.rounds.to_string(), &row.threads.to_string()]).output()?;
    if !output.status.success() {
        return Err(format!("baseline {}: {}: {}", row.name, output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    let line: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    line["ns_per_round"].as_f64().ok_or_else(|| "the baseline printed no time".into())
}

/// The report of a spec, run in this process.
fn rounds(row: &Row, spec: &Path, trust: Trust) -> Result<Report, Failure> {
    let loaded = spec::load(spec).map_err(|error| error.to_string())?;
    let (job, problems) = job::resolve(&loaded, Backend::Cpu, &Overrides { rounds: Some(row.rounds), ..Overrides::default() });
    let job = job.ok_or_else(|| problems.iter().map(|p| p.message.clone()).collect::<Vec<_>>().join("; "))?;
    static PROGRESS: Progress = Progress::new();
    let device = cpu::open(CpuOptions { threads: Some(row.threads), ..CpuOptions::default() })?;
    let mut device = Trace::new(Box::new(device), TraceOptions::default());
    let plan = plan::build(&job, device.caps(), &Options { trust, ..Options::default() }).map_err(|error| error.to_string())?;
    let mut report = None;
    exec::run(&job, &plan, &mut device, &exec::Options { threads: row.threads, ..exec::Options::default() }, &PROGRESS, &mut |event| {
        if let Event::Done(done) = event {
            report = Some(*done);
        }
    });
    match report {
        Some(report) if report.verdict == Verdict::Pass => Ok(report),
        Some(report) => Err(format!("{}: {}: {:?}", row.name, report.verdict.name(), report.reason).into()),
        None => Err(format!("{}: no report", row.name).into()),
    }
}

fn per_round(report: &Report) -> f64 {
    report.times.total as f64 / report.times.rounds.max(1) as f64
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
