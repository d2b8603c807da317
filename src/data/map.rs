//! Turns a path into the bytes of the file, mapped read-only.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A file's bytes. A file that another program cuts short while it is mapped ends the process (SIGBUS).
#[derive(Debug)]
pub(super) struct Map(Option<Mmap>);

impl Map {
    pub(super) fn open(path: &Path) -> io::Result<Map> {
        // Asked before it is opened: opening a pipe waits for its other end.
        let meta = std::fs::metadata(path)?;
        if meta.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
        }
        if !meta.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let file = File::open(path)?;
        if meta.len() == 0 {
            // An empty file cannot be mapped.
            return Ok(Map(None));
        }
        // SAFETY: the mapping is read-only and private to this value. Input files are not changed while a job runs:
        // a program that writes into one meanwhile changes contents, but no length that was checked here.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Map(Some(map)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}
