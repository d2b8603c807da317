//! Reads a shared object that somebody else built: which functions it has, and a copy of it that stays as it is.

use std::fs;
use std::path::{Path, PathBuf};

use object::{Architecture, Object as _, ObjectSymbol as _, SymbolKind};

use super::cache::Cache;
use super::compile::unusable;
use super::shim::HERE;
use crate::device::near::among;
use crate::device::{KernelSource, Result};

/// A built object that has the kernel's function.
pub(super) struct Prebuilt {
    /// The file to load.
    pub path: PathBuf,
    /// Tells it from any other.
    pub identity: String,
    /// Whether it can be told where its block is.
    pub asks: bool,
}

/// Suffixes of built objects.
pub(super) const SUFFIXES: [&str; 2] = ["so", "dylib"];

/// Reads an object and copies it, so that what is loaded is what was read: one that is built anew in its place is another
/// file. An object that looks for libraries beside itself is loaded where it lies.
///
/// *Errors*: `Unusable` for what is no object of this processor, or has no such function.
pub(super) fn read(kernel: &KernelSource, path: &Path, cache: &Cache) -> Result<Prebuilt> {
    let error = |message: String| unusable(kernel, message);
    let shown = path.display();
    let bytes = fs::read(path).map_err(|e| error(format!("the object `{shown}` cannot be read: {e}")))?;
    let names = functions(&bytes).map_err(|message| error(format!("`{shown}` {message}")))?;
    let entry = &kernel.entry;
    if !names.iter().any(|name| name == entry) {
        let names: Vec<String> = names.into_iter().filter(|name| name != HERE).collect();
        return Err(error(format!("`{shown}` has no function `{entry}`{}", among(entry, &names))));
    }
    let asks = names.iter().any(|name| name == HERE);
    let hash = blake3::hash(&bytes);
    let beside = ["$ORIGIN", "${ORIGIN}", "@loader_path"].iter().any(|text| contains(&bytes, text.as_bytes()));
    let (path, identity) = if beside {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        (path.clone(), format!("{}\0{}", hash.to_hex(), path.display()))
    } else {
        let kept = cache.keep_object(&hash, &bytes).map_err(|e| error(format!("no place for a copy of `{shown}`: {e}")))?;
        (kept, hash.to_hex().to_string())
    };
    Ok(Prebuilt { path, identity, asks })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The functions that an object exports. *Errors*: why it is none.
fn functions(bytes: &[u8]) -> std::result::Result<Vec<String>, String> {
    let file = object::File::parse(bytes).map_err(|e| format!("is not a shared object: {e}"))?;
    if file.kind() != object::ObjectKind::Dynamic {
        return Err("is not a shared object: link it with `-shared`".to_string());
    }
    let here = if cfg!(target_arch = "x86_64") {
        Some(Architecture::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Architecture::Aarch64)
    } else {
        None
    };
    if let Some(here) = here.filter(|here| *here != file.architecture()) {
        return Err(match file.architecture() {
            Architecture::Unknown => format!("is built for another processor than this machine's, {here:?}"),
            other => format!("is built for {other:?}, this machine is {here:?}"),
        });
    }
    let mut names: Vec<String> = match file.format() {
        object::BinaryFormat::MachO => {
            let exports = file.exports().map_err(|e| format!("is not a shared object: {e}"))?;
            exports.iter().map(|e| String::from_utf8_lossy(e.name()).trim_start_matches('_').to_string()).collect()
        }
        _ => file
            .dynamic_symbols()
            .filter(|s| s.is_definition() && matches!(s.kind(), SymbolKind::Text | SymbolKind::Unknown))
            .filter_map(|s| s.name().ok().map(String::from))
            .collect(),
    };
    names.retain(|name| !["_init", "_fini"].contains(&name.as_str()));
    names.sort();
    names.dedup();
    Ok(names)
}
