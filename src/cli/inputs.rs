//! `runjob inputs`: what a round starts with, as `.npy` files.

use super::InputsArgs;
use super::print::{self, out};
use crate::diag;
use crate::exec::{self, InputsError};
use crate::job::{Job, SetOrder};
use crate::worker::{self, Request};

pub(super) fn inputs(args: &InputsArgs) -> u8 {
    let mut request = Request::new(args.spec.clone());
    request.overrides.dims.clone_from(&args.dim);
    (request.overrides.rounds, request.overrides.seed) = (args.rounds, args.seed);
    request.devices = args.device.clone().into_iter().collect();
    request.coloured = print::coloured();
    let (job, round) = match job(args, &mut request) {
        Ok(found) => found,
        Err((code, message)) => {
            if !message.is_empty() {
                print::error(&message);
            }
            return code;
        }
    };
    let inputs = match exec::inputs(&job, round, &args.out, args.force) {
        Ok(inputs) => inputs,
        Err(error @ InputsError::Exists(_)) => {
            print::error(&format!("{error}; --force writes over it"));
            return 2;
        }
        Err(error) => {
            print::error(&error.to_string());
            return 3;
        }
    };
    let set = job.sets.get(inputs.set as usize).map(|set| format!(", set {set}")).unwrap_or_default();
    out(&format!("{}: round {round}{set}\n", job.name));
    let mut rows = vec![["tensor", "dtype", "shape", "file"].map(String::from)];
    for (id, path) in &inputs.written {
        let tensor = &job.tensors[*id];
        rows.push([tensor.name.clone(), tensor.dtype.name().into(), tensor.shape.to_string(), path.display().to_string()]);
    }
    print::table(&rows);
    for &id in &inputs.carried {
        out(&format!(
            "`{}` is carried: what it holds in round {round} is what the rounds before left, only its start in round 0 is known without running\n",
            job.tensors[id].name
        ));
    }
    if inputs.written.is_empty() && inputs.carried.is_empty() {
        print::error("no tensor of this job has contents at the start of a round");
        return 4;
    }
    0
}

/// The job of the spec, and the round, that are asked for. *Errors*: exit code and message.
fn job(args: &InputsArgs, request: &mut Request) -> Result<(Job, u64), (u8, String)> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let resolved = worker::resolve(request).map_err(|error| (2, error.to_string()))?;
        print::diagnostics(&resolved.text);
        // A round starts with the same on every device.
        let job = resolved.parties.into_iter().next().ok_or((2, String::new()))?.job;
        let Some(name) = &args.set else {
            if job.jobs > 1 {
                let message = format!("the spec has {} jobs, as its sets have dims of their own: choose one by --set", job.jobs);
                return Err((2, message));
            }
            let round = args.round.unwrap_or(0);
            return within(round, &job).map(|()| (job, round));
        };
        if let Some(set) = job.sets.iter().position(|set| set == name) {
            return of_set(args.round, set as u32, &job).map(|round| (job, round));
        }
        names.extend_from_slice(&job.sets);
        request.overrides.point += 1;
        if request.overrides.point >= job.jobs {
            let near = diag::nearest(name, &names).map(|near| format!("; did you mean `{near}`?"));
            let what = if names.is_empty() { "the spec has no [[sets]]".to_string() } else { format!("there is no set `{name}`") };
            return Err((4, what + &near.unwrap_or_default()));
        }
    }
}

fn within(round: u64, job: &Job) -> Result<(), (u8, String)> {
    let count = job.rounds.count;
    if round < count {
        return Ok(());
    }
    if count == 0 {
        return Err((4, "the spec has no rounds: its checks are about builds of kernels".into()));
    }
    let message =
        format!("there is no round {round}: the job has {count}, from 0 to {}; --rounds {} makes it longer", count - 1, round + 1);
    Err((2, message))
}

/// The first round of a set, or the one that is asked for. *Errors*: it has another set; no round has this one.
fn of_set(asked: Option<u64>, set: u32, job: &Job) -> Result<u64, (u8, String)> {
    let (from, count, name) = (asked.unwrap_or(0), job.rounds.count, &job.sets[set as usize]);
    within(from, job)?;
    let mut order = SetOrder::new(job);
    // Every set comes once in as many rounds as there are sets.
    let mut later = (from..count).take(2 * job.sets.len()).filter(|&round| order.set(round) == set);
    match (asked, later.next()) {
        (Some(round), next) if next != Some(round) => {
            let next = next.map(|next| format!("; the next one of `{name}` is round {next}")).unwrap_or_default();
            let has = &job.sets[SetOrder::new(job).set(round) as usize];
            Err((2, format!("round {round} has set `{has}`, not `{name}`{next}")))
        }
        (_, Some(round)) => Ok(round),
        (_, None) => Err((4, format!("none of the {count} rounds has set `{name}`"))),
    }
}
