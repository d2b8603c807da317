//! The commands that run no kernel.

use super::print::{self, out};
use super::{CheckArgs, GraphFormat, PlanArgs};
use crate::device::{Clock, Device, Trace};
use crate::diag::{Diagnostic, Located, Severity};
use crate::job::{Job, Overrides};
use crate::plan::{Graph, Plan};
use crate::worker::Request;
use crate::{plan, spec, worker};

pub(super) fn plan(args: &PlanArgs) -> u8 {
    let mut request = match args.what.request(args.spec.clone(), false) {
        Ok(request) => request,
        Err(code) => return code,
    };
    let mut opened: Vec<Trace> = Vec::new();
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
        let Some(first) = resolved.parties.first() else { return if resolved.unselected { 4 } else { 2 } };
        jobs = first.job.jobs;
        for (of, party) in resolved.parties.iter().enumerate() {
            if (request.overrides.point > 0 || of > 0) && !args.json {
                out("\n");
            }
            // All jobs of a spec run on the same devices.
            if opened.len() == of {
                match worker::open(&request, &party.device, Clock::Off, None, 0) {
                    Ok(device) => opened.push(device),
                    Err(error) => {
                        print::error(&error.to_string());
                        return 3;
                    }
                }
            }
            code = code.max(plan_of(args, &request, &party.job, &opened[of]));
        }
        request.overrides.point += 1;
    }
    code
}

/// Prints the plan of a job on a device.
fn plan_of(args: &PlanArgs, request: &Request, job: &Job, device: &Trace) -> u8 {
    match plan::build(job, device.caps(), &request.plan_options()) {
        Ok(plan) if args.json => match plan_as_json(&plan, args.graph.map(|_| Graph::new(&plan, job, args.all))) {
            Ok(text) => out(&(text + "\n")),
            Err(error) => {
                print::error(&format!("the plan cannot be written as JSON: {error}"));
                return 3;
            }
        },
        Ok(plan) => out(&match args.graph {
            None => plan::summary(&plan),
            Some(GraphFormat::Dot) => Graph::new(&plan, job, args.all).dot(),
            Some(GraphFormat::Mermaid) => Graph::new(&plan, job, args.all).mermaid(),
        }),
        Err(error) => {
            print::error(&format!("{}: {error}", job.name));
            return 3;
        }
    }
    0
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
    for (path, found) in specs {
        let mut request = Request::new(path);
        request.found = found;
        if let Err(code) = super::ask(&mut request, &args.device) {
            return code;
        }
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
            let (_, diagnostics) = worker::resolve_parties(&loaded, worker::choose(&loaded, &request).0, &request);
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
                    let skip = resolved.skip.map(|why| format!(", but {why}")).unwrap_or_default();
                    let warnings = if resolved.warnings > 0 { format!(", {}", count(resolved.warnings, "warning")) } else { String::new() };
                    out(&format!("{name}: ok{warnings}{skip}\n"));
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
