//! A round that failed -> its inputs, and what the failed checks got and wanted, as array files in a folder of the round.
//! Runs only for rounds that are explained. What cannot be written is said in the report and changes no verdict.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::collect::{RoundInputs, encode, golden};
use super::explain::evaluate;
use super::host::HostSide;
use super::slot::Slot;
use crate::data;
use crate::job::{Contents, Job, Want};
use crate::plan::Plan;
use crate::tensor::{Dtype, Shape};
use crate::verdict::{self, Failure, Kind};

/// Where failing rounds are written to: `FOLDER/round-57/in/x.npy`, `got/y.npy`, `want/y.npy`.
pub(super) struct Dump {
    folder: PathBuf,
    /// Rounds that have a folder of this run. Each lane writes its own first failing rounds.
    rounds: Mutex<Vec<u64>>,
}

impl Dump {
    pub fn new(folder: &Path) -> Dump {
        Dump { folder: folder.to_path_buf(), rounds: Mutex::default() }
    }

    fn of_round(&self, round: u64) -> PathBuf {
        self.folder.join(format!("round-{round}"))
    }

    /// Writes the tensors of the round in a slot, whose failures these are, and says so in the first of them. `step` is
    /// called before every file.
    pub fn round(&self, job: &Job, plan: &Plan, slot: &Slot, host: &mut HostSide, failures: &mut [Failure], step: impl Fn()) {
        if failures.is_empty() {
            return;
        }
        let mut files = Files { folder: self.of_round(slot.round), problems: Vec::new(), broken: false, step };
        match std::fs::create_dir_all(&self.folder).and_then(|()| std::fs::create_dir(&files.folder)) {
            Ok(()) => {
                self.rounds.lock().unwrap_or_else(PoisonError::into_inner).push(slot.round);
                inputs(job, slot, host, &mut files);
                results(job, plan, slot, host, failures, &mut files);
            }
            Err(error) => files.problems.push(format!("cannot make the folder `{}`: {error}", files.folder.display())),
        }
        failures[0].dump = Some(verdict::Dump { folder: files.folder, problems: files.problems });
    }

    /// Takes away the folders of rounds that are not told of: which are is the same for any number of lanes.
    pub fn keep(&self, failures: &[Failure]) {
        for &round in self.rounds.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if !failures.iter().any(|failure| failure.round == round) {
                // One that stays is one too many, and right all the same.
                let _ = std::fs::remove_dir_all(self.of_round(round));
            }
        }
    }
}

/// What the host filled the round with, drawn again.
fn inputs(job: &Job, slot: &Slot, host: &mut HostSide, files: &mut Files<impl Fn()>) {
    if let Err(message) = host.begin(job, slot.set, slot.round) {
        files.problems.push(message);
        return;
    }
    for (id, tensor) in job.tensors.iter().enumerate().filter(|(_, tensor)| !matches!(tensor.contents, Contents::None)) {
        if tensor.carry && slot.nth > 0 {
            match host.carried[id].as_slice() {
                [] => files.problems.push(format!("`{}` is carried, and no expectation says what it held at the start", tensor.name)),
                start => files.write("in", &tensor.name, tensor.dtype, &tensor.shape, start),
            }
            continue;
        }
        let mut bytes = vec![0; tensor.bytes() as usize];
        match host.draw(job, id, slot.set, slot.round, &mut bytes, &mut []) {
            Ok(()) => files.write("in", &tensor.name, tensor.dtype, &tensor.shape, &bytes),
            Err(message) => files.problems.push(format!("`{}` has no contents in this round: {message}", tensor.name)),
        }
    }
}

/// What each check that failed got and wanted.
fn results(job: &Job, plan: &Plan, slot: &Slot, host: &HostSide, failures: &[Failure], files: &mut Files<impl Fn()>) {
    let mut told: Vec<usize> = Vec::new();
    for (index, check) in job.checks.iter().enumerate() {
        let failed = |failure: &&Failure| failure.check.as_ref() == Some(&check.text);
        let Some(failure) = failures.iter().find(failed) else { continue };
        let tensor = &job.tensors[check.tensor];
        let earlier = told.iter().filter(|&&tensor| tensor == check.tensor).count();
        if earlier == 0
            && let Some(got) = slot.output(plan, check.tensor)
        {
            files.write("got", &tensor.name, tensor.dtype, &tensor.shape, got);
        }
        told.push(check.tensor);
        // Without a value there is nothing that was wanted.
        let wanted = if failure.kind == Kind::Evaluation { None } else { want(job, plan, slot, host, index) };
        if let Some(wanted) = wanted {
            // No tensor's name has a `-` in it.
            let name = if earlier == 0 { tensor.name.clone() } else { format!("{}-{}", tensor.name, earlier + 1) };
            files.write("want", &name, tensor.dtype, &tensor.shape, &wanted);
        }
    }
}

/// The expectation of a check in the round that is checked, rounded once to the dtype.
fn want(job: &Job, plan: &Plan, slot: &Slot, host: &HostSide, index: usize) -> Option<Vec<u8>> {
    let check = &job.checks[index];
    let tensor = &job.tensors[check.tensor];
    let at = check.want(slot.set);
    let Want::Expr(program) = &check.wants[at] else {
        return golden(&check.wants[at], slot.round, tensor.bytes()).ok().map(<[u8]>::to_vec);
    };
    let size = tensor.dtype.size();
    let mut bytes = vec![0; tensor.bytes() as usize];
    let inputs = RoundInputs { plan, slot, host };
    // As the check prepared it.
    let scratch = host.scratch[index][at].as_ref()?;
    evaluate(program, scratch, &inputs, slot.round, |from, block| {
        encode(tensor.dtype, block, &mut bytes[from * size..(from + block.len()) * size])
    })?;
    Some(bytes)
}

/// The files of one round.
struct Files<S> {
    folder: PathBuf,
    problems: Vec<String>,
    /// One could not be written: the next ones could not either.
    broken: bool,
    step: S,
}

impl<S: Fn()> Files<S> {
    fn write(&mut self, kind: &str, name: &str, dtype: Dtype, shape: &Shape, bytes: &[u8]) {
        if self.broken {
            return;
        }
        (self.step)();
        let folder = self.folder.join(kind);
        let path = folder.join(format!("{name}.npy"));
        if let Err(error) = std::fs::create_dir_all(&folder).and_then(|()| data::write(&path, dtype, shape, bytes)) {
            self.problems.push(format!("cannot write `{}`: {error}; the rest of the round was left out", path.display()));
            self.broken = true;
        }
    }
}
