//! Files that are kept between runs: where they are, and written whole or not at all.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The folder for what is kept: `dir`; without one `$RUNJOB_CACHE`, `$XDG_CACHE_HOME/runjob` or `~/.cache/runjob`.
pub(super) fn folder(dir: Option<PathBuf>) -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = dir
        .or_else(|| var("RUNJOB_CACHE"))
        .or_else(|| var("XDG_CACHE_HOME").map(|folder| folder.join("runjob")))
        .or_else(|| var("HOME").map(|folder| folder.join(".cache").join("runjob")))?;
    Some(std::path::absolute(&folder).unwrap_or(folder))
}

/// Makes the folder of `path` and puts a file of these contents there, whole or not at all.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix("new-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
