//! A round that failed -> its inputs, and what the failed checks got and wanted, as array files in a folder of the round.
//! Runs only for rounds that are explained. What cannot be written is said in the report and changes no verdict.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::collect::{Round, golden};
use super::explain::{each, rounded};
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
                results(Round { job, plan, slot }, host, failures, &mut files);
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

/// What each claim that failed got, and what was wanted where a claim is about one tensor.
fn results(round: Round<'_>, host: &HostSide, failures: &[Failure], files: &mut Files<impl Fn()>) {
    let Round { job, plan, slot } = round;
    let failed = |text: &str| failures.iter().any(|failure| failure.check.as_deref() == Some(text));
    let unknown = |text: &str| failures.iter().any(|f| f.kind == Kind::Evaluation && f.check.as_deref() == Some(text));
    let mut got: Vec<usize> = Vec::new();
    let mut result = |id: usize, files: &mut Files<_>| {
        let tensor = &job.tensors[id];
        if !got.contains(&id)
            && let Some(bytes) = slot.output(plan, id)
        {
            got.push(id);
            files.write("got", &tensor.name, tensor.dtype, &tensor.shape, bytes);
        }
    };
    let mut wanted: Vec<usize> = Vec::new();
    for (index, check) in job.checks.iter().enumerate().filter(|(_, check)| failed(&check.text)) {
        result(check.tensor, files);
        // Without a value there is nothing that was wanted.
        let Some(want) = (if unknown(&check.text) { None } else { want(round, host, index) }) else { continue };
        let tensor = &job.tensors[check.tensor];
        let earlier = wanted.iter().filter(|&&tensor| tensor == check.tensor).count();
        wanted.push(check.tensor);
        // No tensor's name has a `-` in it.
        let name = if earlier == 0 { tensor.name.clone() } else { format!("{}-{}", tensor.name, earlier + 1) };
        files.write("want", &name, tensor.dtype, &tensor.shape, &want);
    }
    for condition in job.conditions.iter().filter(|condition| failed(&condition.text)) {
        condition.program.after_tensors().iter().for_each(|&id| result(id, files));
    }
}

/// The expectation of a check in the round that is checked, rounded once to the dtype. It has the shape of the tensor;
/// elements that are not compared are as the round left them.
fn want(round: Round<'_>, host: &HostSide, index: usize) -> Option<Vec<u8>> {
    let Round { job, plan, slot } = round;
    let check = &job.checks[index];
    let want = check.wants.get(check.want(slot.set))?;
    let tensor = &job.tensors[check.tensor];
    if let (true, Want::Bytes(_) | Want::File { .. }) = (check.is_whole(), want) {
        // Every bit as it was given, those of a NaN too.
        return golden(want, slot.round).ok().map(<[u8]>::to_vec);
    }
    let mut bytes = slot.output(plan, check.tensor)?.to_vec();
    each(round, host, &host.work, index, &mut |place, _, want| {
        if let Some(want) = want {
            tensor.dtype.store(&mut bytes, place as usize, rounded(tensor.dtype, want));
        }
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
