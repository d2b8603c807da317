//! The commands that run no kernel.

use super::print::{self, out};
use super::{CheckArgs, DevicesArgs, GraphFormat, PlanArgs};
use crate::device::Device;
use crate::device::cpu::{self, CpuOptions};
use crate::diag::{Diagnostic, Located, Severity};
use crate::job::Overrides;
use crate::plan::{Graph, Plan};
use crate::spec::Backend;
use crate::worker::Request;
use crate::{job, plan, spec, worker};

pub(super) fn plan(args: &PlanArgs) -> u8 {
    let mut request = args.what.request(args.spec.clone(), print::coloured());
    let device = match worker::open(&request, None) {
        Ok(device) => device,
        Err(error) => {
            print::error(&error.to_string());
            return 3;
        }
    };
    let (mut code, mut jobs) = (0, 1);
    while request.overrides.point < jobs {
        let resolved = match worker::resolve(&request) {
            Ok(resolved) => resolved,
            Err(error) => {
                print::error(&error.to_string());
                return 2;
            }
        };
        print::diagnostics(&resolved.text);
        let Some(job) = resolved.job else { return 2 };
        jobs = job.jobs;
        if request.overrides.point > 0 && !args.json {
            out("\n");
        }
        match plan::build(&job, device.caps(), &request.plan_options()) {
            Ok(plan) if args.json => match plan_as_json(&plan, args.graph.map(|_| Graph::new(&plan, &job, args.all))) {
                Ok(text) => out(&(text + "\n")),
                Err(error) => {
                    print::error(&format!("the plan cannot be written as JSON: {error}"));
                    code = 3;
                }
            },
            Ok(plan) => out(&match args.graph {
                None => plan::summary(&plan),
                Some(GraphFormat::Dot) => Graph::new(&plan, &job, args.all).dot(),
                Some(GraphFormat::Mermaid) => Graph::new(&plan, &job, args.all).mermaid(),
            }),
            Err(error) => {
                print::error(&format!("{}: {error}", job.name));
                code = 3;
            }
        }
        request.overrides.point += 1;
    }
    code
}

/// A plan, with its graph where that is asked for.
fn plan_as_json(plan: &Plan, graph: Option<Graph>) -> serde_json::Result<String> {
    let Some(graph) = graph else { return serde_json::to_string_pretty(plan) };
    let mut value = serde_json::to_value(plan)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("graph".into(), serde_json::to_value(graph)?);
    }
    serde_json::to_string_pretty(&value)
}

/// A problem as editors and scripts read it.
#[derive(serde::Serialize)]
struct Problem<'a> {
    #[serde(flatten)]
    at: Located,
    end_line: usize,
    end_column: usize,
    #[serde(flatten)]
    diagnostic: &'a Diagnostic,
}

pub(super) fn check(args: &CheckArgs) -> u8 {
    let specs = match super::run::find(&args.specs) {
        Ok(specs) => specs,
        Err(code) => return code,
    };
    let mut code = 0;
    for path in specs {
        let mut request = Request::new(path);
        request.overrides = Overrides { dims: args.dim.clone(), ..Overrides::default() };
        request.coloured = print::coloured();
        if args.json {
            let loaded = match spec::load(&request.spec) {
                Ok(loaded) => loaded,
                Err(error) => {
                    print::error(&error.to_string());
                    code = 2;
                    continue;
                }
            };
            let (_, diagnostics) = job::resolve_all(&loaded, Backend::Cpu, &request.overrides);
            for diagnostic in &diagnostics {
                let span = loaded.source.span(&diagnostic.at);
                let end = loaded.source.locate(span.end);
                let problem = Problem { at: loaded.source.locate(span.start), end_line: end.line, end_column: end.column, diagnostic };
                if let Ok(line) = serde_json::to_string(&problem) {
                    out(&(line + "\n"));
                }
                if diagnostic.severity == Severity::Error {
                    code = 2;
                }
            }
            continue;
        }
        match worker::resolve(&request) {
            Ok(resolved) => {
                print::diagnostics(&resolved.text);
                let count = |n: usize, what: &str| plan::count(n as u64, what);
                let name = request.spec.display();
                if resolved.errors > 0 {
                    code = 2;
                    out(&format!("{name}: {}, {}\n", count(resolved.errors, "error"), count(resolved.warnings, "warning")));
                } else if !args.quiet {
                    let warnings = if resolved.warnings > 0 { format!(", {}", count(resolved.warnings, "warning")) } else { String::new() };
                    out(&format!("{name}: ok{warnings}\n"));
                }
            }
            Err(error) => {
                print::error(&error.to_string());
                code = 2;
            }
        }
    }
    code
}

pub(super) fn schema() -> u8 {
    match serde_json::to_string_pretty(&spec::schema()) {
        Ok(text) => {
            out(&(text + "\n"));
            0
        }
        Err(error) => {
            print::error(&format!("the schema cannot be written: {error}"));
            3
        }
    }
}

pub(super) fn devices(args: &DevicesArgs) -> u8 {
    let device = match cpu::open(CpuOptions::default()) {
        Ok(device) => device,
        Err(error) => {
            print::error(&error.to_string());
            return 3;
        }
    };
    let caps = device.caps();
    let missing = required().into_iter().find(|name| name != "cpu" || caps.driver == cpu::NO_COMPILER);
    if args.json {
        match serde_json::to_string_pretty(&[caps]) {
            Ok(text) => out(&(text + "\n")),
            Err(_) => return 3,
        }
        return missing_code(missing);
    }
    out(&format!("cpu  {}\n     {} threads, {} memory\n", caps.name, caps.lanes, plan::bytes(caps.memory)));
    for tool in device.tools() {
        let suffixes: Vec<String> = tool.suffixes.iter().map(|s| format!(".{s}")).collect();
        let how = match &tool.found {
            Some(found) => format!("compiled by {}, {}", found.command, found.version),
            None => format!("no compiler: {}, or set {}", tool.install, tool.variable),
        };
        out(&format!("     kernels in {} ({}): {how}\n", tool.language, suffixes.join(" ")));
    }
    missing_code(missing)
}

/// Backends that must be there, from `RUNJOB_REQUIRE=cpu,...`: a missing one is a failure, so that a skip hides nothing.
fn required() -> Vec<String> {
    let names = std::env::var("RUNJOB_REQUIRE").unwrap_or_default();
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect()
}

fn missing_code(missing: Option<String>) -> u8 {
    match missing {
        None => 0,
        Some(name) if name == "cpu" => {
            print::error("RUNJOB_REQUIRE asks for `cpu`, and there is no C compiler: install one (`apt-get install gcc`)");
            3
        }
        Some(name) => {
            print::error(&format!("RUNJOB_REQUIRE asks for `{name}`, which this version of runjob does not have: it has cpu"));
            3
        }
    }
}
