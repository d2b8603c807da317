//! A job and a round -> what the round starts with, as array files: the contents that rounds are filled with, by the same
//! code, without a device.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::host::Known;
use super::progress::Progress;
use crate::data;
use crate::job::{Contents, Job, SetOrder};

/// The array files of a round.
#[derive(Clone, PartialEq, Debug)]
pub struct Inputs {
    /// The set of the round.
    pub set: u32,
    /// Tensors that have contents, with the file of each.
    pub written: Vec<(usize, PathBuf)>,
    /// Carried tensors of a later round than the first: they hold what the rounds before left.
    pub carried: Vec<usize>,
}

/// Why the inputs of a round are not all written.
#[derive(Debug, Error)]
pub enum InputsError {
    #[error("`{}` is there already", .0.display())]
    Exists(PathBuf),
    #[error("`{name}` has no contents in round {round}: {message}")]
    Contents { name: String, round: u64, message: String },
    #[error("{0}")]
    Computed(String),
    #[error("cannot write `{}`: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Writes `NAME.npy` for every tensor that has contents at the start of a round.
///
/// *Errors*: a file that is there already, unless they may be overwritten: then none is written; contents that cannot be
/// computed; what the file system says.
pub fn inputs(job: &Job, round: u64, folder: &Path, overwrite: bool) -> Result<Inputs, InputsError> {
    let set = SetOrder::new(job).set(round);
    let mut inputs = Inputs { set, written: Vec::new(), carried: Vec::new() };
    for (id, tensor) in job.tensors.iter().enumerate().filter(|(_, tensor)| !matches!(tensor.contents, Contents::None)) {
        if tensor.carry && round > 0 {
            inputs.carried.push(id);
        } else {
            inputs.written.push((id, folder.join(format!("{}.npy", tensor.name))));
        }
    }
    let there = inputs.written.iter().find(|(_, path)| !overwrite && path.symlink_metadata().is_ok());
    if let Some((_, path)) = there {
        return Err(InputsError::Exists(path.clone()));
    }
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |error| InputsError::Io { path, error }
    };
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let progress = Progress::new();
    let known = Known::new(job, None, &progress);
    let start = known.start(job, set, round).map_err(InputsError::Computed)?;
    for (id, path) in &inputs.written {
        let tensor = &job.tensors[*id];
        let mut bytes = vec![0; tensor.bytes() as usize];
        start.draw(*id, &mut bytes).map_err(|message| InputsError::Contents { name: tensor.name.clone(), round, message })?;
        data::write(path, tensor.dtype, &tensor.shape, &bytes).map_err(io(path))?;
    }
    Ok(inputs)
}
