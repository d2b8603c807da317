//! Rounds through the whole library against hand-written C programs that do the same work.
//!
//!     cargo bench --bench rounds                  all rows
//!     cargo bench --bench rounds -- tiny          rows whose name or device holds the word
//!     RUNJOB_BENCH_PAIRS=3 cargo bench            fewer pairs
//!     RUNJOB_BENCH_WAY="" cargo bench             options of the device's program; without, OpenCL's submits every round by itself
//!     NVCC=/usr/local/cuda/bin/nvcc cargo bench   the compiler of the CUDA program; without, `nvcc`
//!
//! Each pair is one run of a C program of `baseline/` and one run of a spec of `specs/` at each trust level, one
//! right after the other; a ratio is the median of the pairs' ratios. A bare time on a shared machine says nothing.
//! Rows of OpenCL devices name one by a part of its name, `cuda` is the first GPU; where there is none they are printed as
//! not run. Beside a row of `cuda` the same work is done by a loop in Python where it has PyTorch or CuPy, once in each pair.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use runjob::device::cpu::{self, CpuOptions};
#[cfg(feature = "cuda")]
use runjob::device::cuda::{self, CudaOptions};
#[cfg(feature = "opencl")]
use runjob::device::opencl::{self, OpenclOptions};
use runjob::device::{Device, Trace, TraceOptions};
use runjob::exec::{self, Progress};
use runjob::job::{self, Overrides};
use runjob::plan::{self, Options, Trust};
use runjob::spec::{self, Backend};
use runjob::verdict::{Event, Report, Verdict};

/// PoCL's devices that the rows name. Its driver reads this when it is loaded.
const DEVICES: (&str, &str) = ("POCL_DEVICES", "pthread basic");

/// One row: a mode of a C program and the spec of the same name.
struct Row {
    name: &'static str,
    /// `cpu`, `cuda`, or a part of an OpenCL device's name.
    device: &'static str,
    /// Threads of the host: lanes of ours on the CPU; 0 stands for all, of which `ALL` are used at most.
    threads: usize,
    /// Rounds of one run of either program.
    rounds: u64,
    /// Greatest ratio to C at trust `fast`.
    fast: f64,
    standard: Target,
}

#[derive(Clone, Copy)]
enum Target {
    /// Greatest ratio to C.
    Ratio(f64),
    /// Greatest difference to `fast`. *Units*: nanoseconds.
    Over(f64),
    None,
}

impl Row {
    const fn new(name: &'static str, device: &'static str, threads: usize, rounds: u64, fast: f64, standard: Target) -> Row {
        Row { name, device, threads, rounds, fast, standard }
    }

    fn backend(&self) -> Backend {
        match self.device {
            "cpu" => Backend::Cpu,
            "cuda" => Backend::Cuda,
            _ => Backend::Opencl,
        }
    }
}

/// Threads that a row of all has at most.
const ALL: usize = 16;

const ROWS: [Row; 14] = [
    Row::new("tiny", "cpu", 1, 200_000, 1.2, Target::Over(300.0)),
    Row::new("tiny", "cpu", 2, 400_000, 1.2, Target::Over(300.0)),
    Row::new("stream", "cpu", 2, 20, 1.05, Target::Ratio(1.1)),
    Row::new("chain", "cpu", 2, 50, 1.2, Target::Ratio(1.2)),
    Row::new("matmul", "cpu", 2, 100, 1.05, Target::Ratio(1.05)),
    Row::new("tiny", "basic", 1, 100_000, 1.35, Target::None),
    Row::new("tiny", "pthread", 1, 20_000, 1.2, Target::None),
    Row::new("stream", "pthread", 2, 20, 1.05, Target::Ratio(1.1)),
    Row::new("chain", "pthread", 2, 50, 1.2, Target::Ratio(1.2)),
    Row::new("matmul", "pthread", 2, 100, 1.05, Target::Ratio(1.05)),
    Row::new("tiny", "cuda", 1, 200_000, 1.3, Target::None),
    Row::new("stream", "cuda", 0, 200, 1.3, Target::None),
    Row::new("chain", "cuda", 0, 1_000, 1.3, Target::None),
    Row::new("matmul", "cuda", 0, 500, 1.3, Target::None),
];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Failure> {
    if std::env::var_os(DEVICES.0).is_none() {
        let again = Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(DEVICES.0, DEVICES.1).status()?;
        return Ok(again.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from));
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let pairs = std::env::var("RUNJOB_BENCH_PAIRS").ok().and_then(|n| n.parse().ok()).unwrap_or(9usize).max(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let built = tempfile::tempdir()?;
    println!("{pairs} pairs; ns per round are medians, ratios are medians of the pairs' ratios");
    println!(
        "{:8} {:8} {:>7} {:9} {:>12} {:>12} {:>7} {:>9}  of a round: fill, run, check",
        "row", "device", "threads", "trust", "C", "runjob", "ratio", "target"
    );
    let is_wanted =
        |row: &&Row| wanted.is_empty() || wanted.iter().any(|word| [row.name, row.device].iter().any(|of| of.contains(word.as_str())));
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(ALL);
    for row in ROWS.iter().filter(is_wanted) {
        let row = &Row { threads: if row.threads == 0 { cores } else { row.threads }, ..*row };
        let program = match Program::new(row, &folder, built.path()) {
            Ok(program) => program,
            Err(reason) => {
                println!("{:8} {:8} {:>7} not run: {reason}", row.name, row.device, row.threads);
                continue;
            }
        };
        let peer = (row.backend() == Backend::Cuda).then(|| Program::in_python(row, &folder));
        measure(row, pairs, &program, peer.as_ref(), &folder.join("specs").join(row.name).with_extension("toml"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The hand-written program of a row, built, with all its arguments.
struct Program {
    path: PathBuf,
    args: Vec<String>,
}

/// What the C program printed.
struct Line {
    ns_per_round: f64,
    /// Driver calls per round, of OpenCL and CUDA.
    calls: Option<f64>,
    /// The way that it takes on a device, as its options.
    way: Vec<String>,
    /// With its version, of a program in Python.
    library: Option<String>,
}

impl Program {
    /// *Errors*: why the row cannot run here: no such device, or no compiler.
    fn new(row: &Row, folder: &Path, built: &Path) -> Result<Program, Failure> {
        let job = [row.name.to_string(), row.rounds.to_string(), row.threads.to_string()];
        if row.backend() == Backend::Cpu {
            let path = compile(&folder.join("baseline"), &["baseline.c", "work.c", "kernels.c"], &built.join("baseline"), &[])?;
            return Ok(Program { path, args: job.to_vec() });
        }
        open(row)?;
        if row.backend() == Backend::Cuda {
            let path = compile_cuda(&folder.join("baseline"), built)?;
            return Program { path, args: job.to_vec() }.in_its_way(std::env::var("RUNJOB_BENCH_WAY").unwrap_or_default());
        }
        let path = compile(&folder.join("baseline"), &["opencl.c", "work.c", "kernels.c"], &built.join("opencl"), &["-lOpenCL"])?;
        let kernels = folder.join("specs/kernels/kernels.cl").display().to_string();
        // As ours does. Otherwise it would put up to 64 tiny rounds into one submission.
        let options = std::env::var("RUNJOB_BENCH_WAY").unwrap_or_else(|_| "batch=1".to_string());
        Program { path, args: [kernels, row.device.to_string()].into_iter().chain(job).collect() }.in_its_way(options)
    }

    /// The loop in Python for a row. *Errors*: why it cannot run here.
    fn in_python(row: &Row, folder: &Path) -> Result<Program, Failure> {
        // It is slower by far: what it takes for a round is known after fewer.
        let rounds = row.rounds.min(2_000).to_string();
        let script = folder.join("baseline/loop.py").display().to_string();
        let path = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()).into();
        let mut program = Program { path, args: vec![script, row.name.to_string(), "1".to_string()] };
        program.run()?;
        program.args[2] = rounds;
        Ok(program)
    }

    /// The program with the options of the way that is fastest, which is looked for once and kept in all pairs.
    fn in_its_way(mut self, options: String) -> Result<Program, Failure> {
        let all = self.args.len();
        self.args.extend(options.split_whitespace().map(String::from));
        let way = self.run()?.way;
        self.args.truncate(all);
        self.args.extend(way);
        Ok(self)
    }

    fn run(&self) -> Result<Line, Failure> {
        let output = Command::new(&self.path).args(&self.args).output()?;
        if !output.status.success() {
            let words = self.args.join(" ");
            return Err(format!("{words}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end()).into());
        }
        let line: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let option = |key: &str| line.get(key).map(|value| format!("{key}={}", value.to_string().trim_matches('"')));
        Ok(Line {
            ns_per_round: line["ns_per_round"].as_f64().ok_or("the C program printed no time")?,
            calls: line["calls_per_round"].as_f64(),
            way: ["way", "sets", "batch"].into_iter().filter_map(option).collect(),
            library: line["library"].as_str().map(String::from),
        })
    }
}

/// The program, built where it is not there yet.
fn compile(sources: &Path, files: &[&str], program: &Path, libraries: &[&str]) -> Result<PathBuf, Failure> {
    if !program.exists() {
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let native = if cfg!(target_arch = "aarch64") { "-mcpu=native" } else { "-march=native" };
        let files = files.iter().map(|file| sources.join(file));
        let options = ["-O3", native, "-pthread"].map(OsStr::new);
        let status = Command::new(&compiler).args(options).args(files).arg("-o").arg(program).args(libraries).arg("-lm").status()?;
        if !status.success() {
            return Err(format!("{} ended with {status}", compiler.display()).into());
        }
    }
    Ok(program.to_path_buf())
}

/// The CUDA program. *Errors*: why it cannot be built here.
fn compile_cuda(sources: &Path, built: &Path) -> Result<PathBuf, Failure> {
    let program = built.join("cuda");
    if !program.exists() {
        let host = ["work", "kernels"].map(|name| {
            let object = built.join(name).with_extension("o");
            compile(sources, &[&format!("{name}.c")], &object, &["-c"]).map(|_| object)
        });
        let [work, kernels] = host;
        let compiler = std::env::var_os("NVCC").unwrap_or_else(|| "nvcc".into());
        let name = compiler.to_string_lossy().into_owned();
        let mut command = Command::new(&compiler);
        command.args(["-O3", "-std=c++17", "-arch=native", "-o"]).arg(&program).arg(sources.join("cuda.cu")).args([work?, kernels?]);
        let status = command.status().map_err(|error| format!("{name}: {error}"))?;
        if !status.success() {
            return Err(format!("{name} ended with {status}").into());
        }
    }
    Ok(program)
}

fn measure(row: &Row, pairs: usize, program: &Program, peer: Option<&Result<Program, Failure>>, spec: &Path) -> Result<(), Failure> {
    let trusts = [Trust::Fast, Trust::Standard];
    let (mut c, mut python) = (Vec::new(), Vec::new());
    let mut ours: [Vec<Report>; 2] = Default::default();
    for _ in 0..pairs {
        c.push(program.run()?);
        for (trust, reports) in trusts.into_iter().zip(&mut ours) {
            reports.push(rounds(row, row.rounds, spec, trust)?.0);
        }
        if let Some(Ok(peer)) = peer {
            python.push(peer.run()?);
        }
    }
    let fast = median(ours[0].iter().map(per_round));
    for (trust, reports) in trusts.into_iter().zip(&ours) {
        let ratio = median(reports.iter().zip(&c).map(|(report, c)| per_round(report) / c.ns_per_round));
        let time = median(reports.iter().map(per_round));
        let (target, met) = match (trust, &row.standard) {
            (Trust::Fast, _) => (format!("<= {}", row.fast), ratio <= row.fast),
            (_, Target::Ratio(most)) => (format!("<= {most}"), ratio <= *most),
            (_, Target::Over(most)) => (format!("+{most} ns"), time - fast <= *most),
            (_, Target::None) => (String::new(), true),
        };
        let phase = |of: fn(&Report) -> u64| median(reports.iter().map(|r| of(r) as f64 / r.times.sampled.max(1) as f64));
        println!(
            "{:8} {:8} {:>7} {:9} {:>12.0} {:>12.0} {:>7.3} {:>9}{} {:.0}, {:.0}, {:.0}",
            row.name,
            row.device,
            row.threads,
            trust.name(),
            median(c.iter().map(|c| c.ns_per_round)),
            time,
            ratio,
            target,
            if met { " " } else { "!" },
            phase(|r| r.times.fill),
            phase(|r| r.times.run),
            phase(|r| r.times.check),
        );
    }
    if let Some(Line { calls: Some(calls), way, .. }) = c.first() {
        let ours = trusts.map(|trust| Ok(format!("{:.3} at {}", calls_per_round(row, spec, trust)?, trust.name())));
        let ours = ours.into_iter().collect::<Result<Vec<_>, Failure>>()?.join(", ");
        println!("{:26}driver calls per round: C {calls:.3} ({}), runjob {ours}", "", way.join(" "));
    }
    if let Some(peer) = peer {
        println!("{:26}{}", "", beside(peer, &python, &ours[0]));
    }
    Ok(())
}

/// The line of the loop in Python beside a row, or why there is none.
fn beside(peer: &Result<Program, Failure>, python: &[Line], ours: &[Report]) -> String {
    match (peer, python.first()) {
        (Err(reason), _) => format!("a loop in Python is not run: {reason}"),
        (Ok(_), None) => String::new(),
        (Ok(_), Some(first)) => {
            let ratio = median(ours.iter().zip(python).map(|(report, python)| per_round(report) / python.ns_per_round));
            let time = median(python.iter().map(|python| python.ns_per_round));
            format!("a loop on {} takes {time:.0}, runjob at fast {ratio:.3} of it", first.library.as_deref().unwrap_or("Python"))
        }
    }
}

/// The report of a spec, run in this process, and the driver calls that were made for it.
fn rounds(row: &Row, rounds: u64, spec: &Path, trust: Trust) -> Result<(Report, u64), Failure> {
    let loaded = spec::load(spec).map_err(|error| error.to_string())?;
    let (job, problems) = job::resolve(&loaded, row.backend(), &Overrides { rounds: Some(rounds), ..Overrides::default() });
    let job = job.ok_or_else(|| problems.iter().map(|p| p.message.clone()).collect::<Vec<_>>().join("; "))?;
    static PROGRESS: Progress = Progress::new();
    let mut device = Trace::new(open(row)?, TraceOptions::default());
    let plan = plan::build(&job, device.caps(), &Options { trust, ..Options::default() }).map_err(|error| error.to_string())?;
    // The counter is a thread's own, and the thread that runs the job, which tells its end, may be a new one.
    let (here, before) = (std::thread::current().id(), driver_calls(row));
    let mut report = None;
    exec::run(&job, &plan, &mut device, &exec::Options { threads: row.threads, ..exec::Options::default() }, &PROGRESS, &mut |event| {
        if let Event::Done(done) = event {
            let other = std::thread::current().id() != here;
            report = Some((*done, driver_calls(row) - if other { 0 } else { before }));
        }
    });
    match report {
        Some((report, calls)) if report.verdict == Verdict::Pass => Ok((report, calls)),
        Some((report, _)) => Err(format!("{}: {}: {:?}", row.name, report.verdict.name(), report.reason).into()),
        None => Err(format!("{}: no report", row.name).into()),
    }
}

fn open(row: &Row) -> Result<Box<dyn Device + Send>, Failure> {
    match row.backend() {
        Backend::Cpu => Ok(Box::new(cpu::open(CpuOptions { threads: Some(row.threads), ..CpuOptions::default() })?)),
        Backend::Cuda => open_cuda(),
        _ => open_opencl(row.device),
    }
}

#[cfg(feature = "cuda")]
fn open_cuda() -> Result<Box<dyn Device + Send>, Failure> {
    Ok(Box::new(cuda::open(0, CudaOptions::default())?))
}

#[cfg(not(feature = "cuda"))]
fn open_cuda() -> Result<Box<dyn Device + Send>, Failure> {
    Err("built without the feature `cuda`".into())
}

#[cfg(feature = "opencl")]
fn open_opencl(part_of_name: &str) -> Result<Box<dyn Device + Send>, Failure> {
    let devices = opencl::list()?;
    let index = devices.iter().position(|caps| caps.name.contains(part_of_name));
    let index = index.ok_or_else(|| format!("no OpenCL device has `{part_of_name}` in its name"))?;
    Ok(Box::new(opencl::open(index, OpenclOptions::default())?))
}

#[cfg(not(feature = "opencl"))]
fn open_opencl(_: &str) -> Result<Box<dyn Device + Send>, Failure> {
    Err("built without the feature `opencl`".into())
}

/// Driver calls of a round in the steady state: what three times the rounds make more than one time.
fn calls_per_round(row: &Row, spec: &Path, trust: Trust) -> Result<f64, Failure> {
    let some = (row.rounds / 10).max(8);
    let (once, thrice) = (rounds(row, some, spec, trust)?.1, rounds(row, 3 * some, spec, trust)?.1);
    Ok((thrice as f64 - once as f64) / (2 * some) as f64)
}

/// Calls of a row's driver that this thread has made.
fn driver_calls(row: &Row) -> u64 {
    match row.backend() {
        #[cfg(feature = "cuda")]
        Backend::Cuda => cuda::calls(),
        #[cfg(feature = "opencl")]
        Backend::Opencl => opencl::calls(),
        _ => 0,
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
