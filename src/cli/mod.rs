//! The command line: arguments in, text and an exit code out. Everything that prints is here.

mod commands;
mod devices;
mod init;
mod inputs;
mod print;
mod run;
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::device::Choice;
use crate::plan::{Host, Trust};
use crate::tensor::Backend;
use crate::worker::Request;

/// Runs compute kernels many times, as a spec says, and checks every round.
#[derive(Parser, Debug)]
#[command(name = "runjob", version, about, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

const EXIT_CODES: &str = "Exit codes: 0 all passed, 1 a check failed or nothing was checked, 2 the spec or the command line is wrong, \
3 the device or the machine failed (crash, hang), 4 nothing was selected, 130 interrupted, 143 terminated.\n\
Ctrl-C stops after the rounds in flight, a second one at once; SIGTERM lets them end for two seconds.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run specs (the default)
    Run(RunArgs),
    /// Write a spec that runs as it stands, to start from
    Init(InitArgs),
    /// Report every problem of specs, without running anything
    Check(CheckArgs),
    /// Show how a spec would run: what stays on the device, what moves, and why
    Plan(PlanArgs),
    /// Write what a round starts with as .npy files
    ///
    /// Every tensor that has contents is written, scalars too, by the code that fills rounds. A carried tensor is written for
    /// round 0 alone: later it holds what the rounds before left. NumPy has no bf16 and no fp8: they are written as
    /// raw bytes, which `a.view(ml_dtypes.bfloat16)` and the like turn into numbers.
    Inputs(InputsArgs),
    /// List devices, and what is missing for more
    Devices(DevicesArgs),
    /// Print the JSON schema of specs
    Schema,
    /// Print a shell's completions
    Completions {
        /// Shell to print them for
        shell: Shell,
    },
    /// Run one job for a parent process
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        request: String,
        #[arg(long)]
        page: String,
        #[arg(long)]
        parent: u32,
    },
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Specs, or folders that are searched for them
    #[arg(value_name = "SPEC", required = true)]
    specs: Vec<PathBuf>,
    #[command(flatten)]
    what: WhatArgs,
    /// Run in this process, for debuggers: limits are not kept
    #[arg(long, help_heading = HOW)]
    in_process: bool,
    /// Write reports as JSON: --json=FILE, or alone to stdout
    #[arg(long, help_heading = TOLD, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Write got, want and inputs of failing rounds as .npy
    #[arg(long, help_heading = TOLD, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Print failures only
    #[arg(short, long, help_heading = TOLD, conflicts_with = "verbose")]
    quiet: bool,
    /// Print the plan, device calls and times of each job
    #[arg(short, long, help_heading = TOLD)]
    verbose: bool,
}

/// Headings of the flags.
const WHAT: &str = "What is run";
const HOW: &str = "How it is run";
const TOLD: &str = "What is told";

/// What is run, of one spec.
#[derive(Args, Debug, Clone)]
struct WhatArgs {
    /// Rounds to run, instead of `rounds.count`
    #[arg(long, help_heading = WHAT, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=crate::job::MOST_ROUNDS))]
    rounds: Option<u64>,
    /// Seed of the contents, instead of `rounds.seed`
    #[arg(long, help_heading = WHAT, value_name = "N")]
    seed: Option<u64>,
    /// Value of a dim, as n=1024; may be given again
    #[arg(long, help_heading = WHAT, value_name = "NAME=VALUE", value_parser = parse_dim)]
    dim: Vec<(String, i64)>,
    /// Only rounds of this set (`*`: any characters); may be given again
    #[arg(long, help_heading = WHAT, value_name = "SET")]
    only: Vec<String>,
    /// Device: cpu, opencl:1, opencl:PART-OF-NAME, all; given again, every two are compared.
    /// Default: the spec's, or the first of cpu, cuda, opencl, wgpu that it has all kernels for
    #[arg(long, help_heading = HOW, value_name = "NAME", value_parser = parse_device)]
    device: Vec<Asked>,
    /// Backends that must be there: without, it is an error, not a skip; also RUNJOB_REQUIRE
    #[arg(long, help_heading = HOW, value_name = "NAMES", value_delimiter = ',', value_parser = parse_backend)]
    require: Vec<Backend>,
    /// What is spent on not being fooled: standard or fast
    #[arg(long, help_heading = HOW, value_name = "LEVEL", default_value = "standard", value_parser = parse_trust)]
    trust: Trust,
    /// Set up and tear down around every round, as a yardstick
    #[arg(long, help_heading = HOW, conflicts_with_all = ["slots", "lanes", "batch"])]
    fresh: bool,
    /// Threads that run rounds side by side
    #[arg(long, help_heading = HOW, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=crate::plan::MOST_LANES as i64))]
    lanes: Option<u32>,
    /// Rounds in flight, of each lane; where several are submitted at once, so many times
    #[arg(long, help_heading = HOW, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: Option<u32>,
    /// Rounds that are submitted at once
    #[arg(long, help_heading = HOW, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=crate::plan::MOST_BATCH as i64))]
    batch: Option<u32>,
    /// Where the host fills and checks: inline or pool
    #[arg(long, help_heading = HOW, value_name = "WHERE", value_parser = parse_host)]
    host: Option<Host>,
    /// Threads for kernels, and as many to fill and check
    #[arg(long, help_heading = HOW, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,
    /// Time every round by the device's own clock too
    #[arg(long, help_heading = TOLD)]
    device_times: bool,
    /// Treat the device as one with memory of its own: for tests of runjob itself
    #[arg(long, hide = true)]
    discrete: bool,
    /// Refuse device calls that break the contract between planner and device: for tests of runjob itself
    #[arg(long, hide = true)]
    contract: bool,
    /// Run everything as late and in as odd an order as the contract allows: for tests of runjob itself
    #[arg(long, hide = true, value_name = "SEED")]
    chaos: Option<u64>,
    /// Space rows of three lanes by four, as other devices than this do: for tests of runjob itself
    #[arg(long, hide = true)]
    spaced: bool,
}

#[derive(Args, Debug)]
struct PlanArgs {
    /// Spec to plan
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    #[command(flatten)]
    what: WhatArgs,
    /// Print the whole plan as JSON
    #[arg(long, help_heading = TOLD)]
    json: bool,
    /// Print the steps of a round with the reason of every edge, for Graphviz or Mermaid; with `--json`, as part of it
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "dot")]
    graph: Option<GraphFormat>,
    /// Print a graph of any length
    #[arg(long, requires = "graph")]
    all: bool,
}

/// Languages of graphs.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum GraphFormat {
    Dot,
    Mermaid,
}

#[derive(Args, Debug)]
struct InitArgs {
    /// Folder for the spec, or the spec's file; nothing is overwritten
    #[arg(value_name = "DIR or FILE.toml")]
    place: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct InputsArgs {
    /// Spec of the job
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// Folder for the files, NAME.npy each
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Round to write; otherwise the first, of the set where one is given
    #[arg(long, value_name = "N")]
    round: Option<u64>,
    /// Set that the round must have
    #[arg(long, visible_alias = "only", value_name = "NAME")]
    set: Option<String>,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
    /// Device that the job is for, where dims depend on it
    #[arg(long, value_name = "NAME")]
    device: Option<Choice>,
    /// Rounds of the job, instead of `rounds.count`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=crate::job::MOST_ROUNDS))]
    rounds: Option<u64>,
    /// Seed of the contents, instead of `rounds.seed`
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Value of a dim, as n=1024; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_dim)]
    dim: Vec<(String, i64)>,
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// Specs, or folders that are searched for them
    #[arg(value_name = "SPEC", required = true)]
    specs: Vec<PathBuf>,
    /// Value of a dim, such as `n=1024`; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_dim)]
    dim: Vec<(String, i64)>,
    /// Device that the jobs are for; otherwise as for a run
    #[arg(long, value_name = "NAME", value_parser = parse_device)]
    device: Vec<Asked>,
    /// Print the problems as JSON, a line each
    #[arg(long)]
    json: bool,
    /// Print problems only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Debug)]
struct DevicesArgs {
    /// Backends that must be there: without, the exit code is 3; also RUNJOB_REQUIRE
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = parse_backend)]
    require: Vec<Backend>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

fn parse_dim(text: &str) -> Result<(String, i64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as n=1024")?;
    let value = value.trim().replace('_', "");
    Ok((name.trim().to_string(), value.parse().map_err(|e| format!("`{value}` is not a whole number: {e}"))?))
}

/// What `--device` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Asked {
    /// Every device that is there and that the spec has kernels for.
    All,
    One(Choice),
}

fn parse_device(text: &str) -> Result<Asked, String> {
    if text == "all" { Ok(Asked::All) } else { text.parse().map(Asked::One) }
}

/// Puts the devices that are asked for into a request. *Errors*: the exit code, after a message.
fn ask(request: &mut Request, asked: &[Asked]) -> Result<(), u8> {
    let one = |asked: &Asked| if let Asked::One(choice) = asked { Some(choice.clone()) } else { None };
    (request.devices, request.all) = (asked.iter().filter_map(one).collect(), asked.contains(&Asked::All));
    let twice = request.devices.iter().enumerate().find(|(at, choice)| request.devices[..*at].contains(choice));
    if let Some((_, choice)) = twice {
        print::error(&format!("--device {choice} is given twice: a device agrees with itself"));
        return Err(2);
    }
    if request.all && asked.len() > 1 {
        print::error("--device all is all of them: give it alone");
        return Err(2);
    }
    Ok(())
}

fn parse_backend(name: &str) -> Result<Backend, String> {
    let known = || Backend::ALL.map(Backend::name).join(", ");
    Backend::ALL.into_iter().find(|backend| backend.name() == name).ok_or_else(|| format!("backends are {}", known()))
}

/// Backends that must be there: those of the command line and of `RUNJOB_REQUIRE=cpu,...`. What needs one that is missing
/// is a failure, so that a skip hides nothing. *Errors*: the exit code, after a message.
fn required(asked: &[Backend]) -> Result<Vec<Backend>, u8> {
    let mut required = asked.to_vec();
    let names = std::env::var("RUNJOB_REQUIRE").unwrap_or_default();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match parse_backend(name) {
            Ok(backend) => required.push(backend),
            Err(known) => {
                print::error(&format!("RUNJOB_REQUIRE asks for `{name}`: {known}"));
                return Err(3);
            }
        }
    }
    Ok(required)
}

fn parse_trust(text: &str) -> Result<Trust, String> {
    match text {
        "fast" => Ok(Trust::Fast),
        "standard" => Ok(Trust::Standard),
        _ => Err("levels are `fast` and `standard`".into()),
    }
}

fn parse_host(text: &str) -> Result<Host, String> {
    match text {
        "inline" => Ok(Host::Inline),
        "pool" => Ok(Host::Pool),
        _ => Err("it is `inline` or `pool`".into()),
    }
}

fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=4096) => Ok(n),
        _ => Err("1 to 4096".into()),
    }
}

impl WhatArgs {
    /// What to run of a spec, which a search of a folder `found` or not. *Errors*: the exit code, after a message.
    fn request(&self, spec: PathBuf, found: bool) -> Result<Request, u8> {
        let mut request = Request::new(spec);
        ask(&mut request, &self.device)?;
        (request.found, request.require) = (found, required(&self.require)?);
        (request.discrete, request.device_times) = (self.discrete, self.device_times);
        request.overrides.dims.clone_from(&self.dim);
        (request.overrides.rounds, request.overrides.seed) = (self.rounds, self.seed);
        request.overrides.only.clone_from(&self.only);
        request.overrides.spaced = self.spaced;
        (request.trust, request.fresh) = (self.trust, self.fresh);
        (request.lanes, request.slots, request.batch, request.host) = (self.lanes, self.slots, self.batch, self.host);
        (request.threads, request.contract, request.chaos, request.coloured) = (self.threads, self.contract, self.chaos, print::coloured());
        Ok(request)
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    ExitCode::from(print::code(match cli.command {
        None => run::run(&cli.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Init(args)) => init::init(&args),
        Some(Command::Inputs(args)) => inputs::inputs(&args),
        Some(Command::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "runjob", &mut text);
            print::out(&String::from_utf8_lossy(&text));
            0
        }
        Some(Command::Plan(args)) => commands::plan(&args),
        Some(Command::Check(args)) => commands::check(&args),
        Some(Command::Devices(args)) => devices::devices(&args),
        Some(Command::Schema) => commands::schema(),
        Some(Command::Worker { request, page, parent }) => crate::worker::child(&request, &page, parent),
    }))
}
