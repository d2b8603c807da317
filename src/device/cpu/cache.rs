//! Turns the key of a compilation into a shared object on disk, or says that it has to be compiled.
//!
//! Two steps, as the headers that a source includes are known only after it was compiled once: `<key>.deps` lists them,
//! and the hash of the key with their contents names the object `<hash>.so`, whose own hash stands in `<hash>.sum`.
//! Everything is written to a temporary file and renamed. What cannot be read or is damaged counts as absent; a folder
//! that cannot be written to is replaced by one of this process's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tempfile::TempDir;

use crate::device::store::{self, write_atomically};

/// Changes when the meaning of what is stored changes.
const VERSION: &str = "1";

/// Compiled kernels by content.
#[derive(Debug)]
pub(super) struct Cache {
    root: Option<PathBuf>,
    /// Stands in for a `root` that is absent or cannot be written to.
    fallback: OnceLock<Option<TempDir>>,
    compiles: AtomicU64,
    hits: AtomicU64,
}

impl Cache {
    /// The cache in `dir`; without one in `$RUNJOB_CACHE`, `$XDG_CACHE_HOME/runjob` or `~/.cache/runjob`.
    pub fn open(dir: Option<PathBuf>) -> Cache {
        let root = store::folder(dir).map(|folder| folder.join(format!("cpu-{VERSION}")));
        Cache { root, fallback: OnceLock::new(), compiles: AtomicU64::new(0), hits: AtomicU64::new(0) }
    }

    /// Kernels compiled, and kernels found, so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.compiles.load(Ordering::Relaxed), self.hits.load(Ordering::Relaxed))
    }

    pub fn count_compile(&self) {
        self.compiles.fetch_add(1, Ordering::Relaxed);
    }

    fn fallback(&self) -> Option<&Path> {
        self.fallback.get_or_init(|| tempfile::Builder::new().prefix("runjob-").tempdir().ok()).as_ref().map(TempDir::path)
    }

    /// The folders that may hold something, the best first.
    fn folders(&self) -> impl Iterator<Item = &Path> {
        let made = self.fallback.get().and_then(Option::as_ref).map(TempDir::path);
        self.root.as_deref().into_iter().chain(made)
    }

    /// The object of `key`, if it is there, whole, and made from headers as they are now.
    pub fn find(&self, key: &blake3::Hash) -> Option<PathBuf> {
        let object = self.folders().find_map(|folder| {
            let list = fs::read_to_string(folder.join(format!("{}.deps", key.to_hex()))).ok()?;
            let deps: Vec<PathBuf> = list.lines().map(PathBuf::from).collect();
            let name = with_headers(key, &deps)?.to_hex();
            let object = folder.join(format!("{name}.so"));
            let sum = fs::read_to_string(folder.join(format!("{name}.sum"))).ok()?;
            (blake3::hash(&fs::read(&object).ok()?).to_hex().as_str() == sum).then_some(object)
        })?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(object)
    }

    /// Keeps an object that was compiled from `key` and `deps`, and gives the place where it is kept. `None` when it
    /// could not be kept, or when a header changed while it was compiled.
    pub fn keep(&self, key: &blake3::Hash, object: &Path, deps: &[PathBuf], started: SystemTime) -> Option<PathBuf> {
        let unchanged = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).is_ok_and(|at| at <= started);
        let listable = |path: &PathBuf| path.to_str().is_some_and(|text| !text.contains('\n'));
        if !deps.iter().all(|path| unchanged(path) && listable(path)) {
            return None;
        }
        let bytes = fs::read(object).ok()?;
        let name = with_headers(key, deps)?.to_hex();
        let list: String = deps.iter().map(|path| format!("{}\n", path.display())).collect();
        let write = |folder: &Path| -> io::Result<PathBuf> {
            let kept = folder.join(format!("{name}.so"));
            write_atomically(&kept, &bytes)?;
            write_atomically(&folder.join(format!("{name}.sum")), blake3::hash(&bytes).to_hex().as_bytes())?;
            write_atomically(&folder.join(format!("{}.deps", key.to_hex())), list.as_bytes())?;
            Ok(kept)
        };
        self.root.as_deref().and_then(|root| write(root).ok()).or_else(|| write(self.fallback()?).ok())
    }

    /// Keeps a built object under its hash, and gives the place where it is kept.
    pub fn keep_object(&self, hash: &blake3::Hash, bytes: &[u8]) -> io::Result<PathBuf> {
        let name = format!("built-{}.so", hash.to_hex());
        let whole = |path: &Path| fs::read(path).is_ok_and(|kept| blake3::hash(&kept) == *hash);
        if let Some(kept) = self.folders().map(|folder| folder.join(&name)).find(|path| whole(path)) {
            return Ok(kept);
        }
        let write = |folder: &Path| write_atomically(&folder.join(&name), bytes).map(|()| folder.join(&name));
        if let Some(Ok(kept)) = self.root.as_deref().map(write) {
            return Ok(kept);
        }
        self.fallback().map_or_else(|| Err(io::Error::other("the temporary folder cannot be written to")), write)
    }

    /// A fresh folder to compile in; with `elsewhere`, not in the cache's own folder.
    pub fn work_folder(&self, elsewhere: bool) -> io::Result<TempDir> {
        let in_root = self.root.as_deref().filter(|_| !elsewhere).and_then(|root| {
            fs::create_dir_all(root).ok()?;
            tempfile::Builder::new().prefix("work-").tempdir_in(root).ok()
        });
        in_root.map_or_else(|| tempfile::Builder::new().prefix("runjob-work-").tempdir(), Ok)
    }

    /// A small text by name; for facts that are slow to find out.
    pub fn note(&self, name: &str) -> Option<String> {
        self.folders().find_map(|folder| fs::read_to_string(folder.join(name)).ok()).filter(|text| !text.is_empty())
    }

    pub fn keep_note(&self, name: &str, text: &str) {
        let kept = self.root.as_deref().is_some_and(|root| write_atomically(&root.join(name), text.as_bytes()).is_ok());
        if !kept && let Some(folder) = self.fallback() {
            // A note that is not kept is found out again.
            let _ = write_atomically(&folder.join(name), text.as_bytes());
        }
    }
}

/// The key together with the names and contents of the headers; `None` if one cannot be read.
fn with_headers(key: &blake3::Hash, deps: &[PathBuf]) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    for path in deps {
        hasher.update(path.to_str()?.as_bytes());
        hasher.update(blake3::hash(&fs::read(path).ok()?).as_bytes());
    }
    Some(hasher.finalize())
}

/// The files that the first of some make rules lists after its colon, in order; `\ ` is a blank in a name.
pub(super) fn listed_files(rule: &str) -> Vec<PathBuf> {
    let rule = rule.replace("\\\r\n", " ").replace("\\\n", " ");
    let Some((_, files)) = rule.split_once(": ") else { return Vec::new() };
    let files = files.lines().next().unwrap_or("");
    let mut names = vec![String::new()];
    let mut chars = files.chars().peekable();
    while let Some(c) = chars.next() {
        let name = match names.last_mut() {
            Some(name) => name,
            None => break,
        };
        match c {
            '\\' if chars.peek().is_some_and(|c| matches!(c, ' ' | '#' | '\\')) => name.extend(chars.next()),
            '$' if chars.peek() == Some(&'$') => name.extend(chars.next()),
            c if c.is_whitespace() => names.push(String::new()),
            c => name.push(c),
        }
    }
    names.into_iter().filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(cache: &Cache) -> Vec<PathBuf> {
        let root = cache.root.as_deref().unwrap();
        let mut all: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_make_rule_lists_its_files() {
        let rule = "kernel.so: /w/kernel.c k/a.h \\\n dir\\ b/c.h \\\n  d$$.h\n";
        assert_eq!(listed_files(rule), ["/w/kernel.c", "k/a.h", "dir b/c.h", "d$.h"].map(PathBuf::from));
    }

    #[test]
    fn what_is_kept_is_found_until_a_header_changes_or_the_object_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path().join("cache")));
        let (key, object, header) = (blake3::hash(b"k"), dir.path().join("o"), dir.path().join("h.h"));
        fs::write(&object, b"object").unwrap();
        fs::write(&header, b"1").unwrap();
        assert_eq!(cache.find(&key), None);
        let later = SystemTime::now() + std::time::Duration::from_secs(1);
        let kept = cache.keep(&key, &object, std::slice::from_ref(&header), later).unwrap();
        assert_eq!(cache.find(&key), Some(kept.clone()));
        fs::write(&header, b"2").unwrap();
        assert_eq!(cache.find(&key), None);
        fs::write(&header, b"1").unwrap();
        assert_eq!(cache.find(&key), Some(kept.clone()));
        fs::write(&kept, b"objecT").unwrap();
        assert_eq!(cache.find(&key), None);
        assert!(files(&cache).iter().all(|path| !path.to_string_lossy().contains("new-")));
    }

    #[test]
    fn a_header_written_while_compiling_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path().join("cache")));
        let (object, header) = (dir.path().join("o"), dir.path().join("h.h"));
        fs::write(&object, b"object").unwrap();
        fs::write(&header, b"1").unwrap();
        let before = SystemTime::now() - std::time::Duration::from_secs(5);
        assert_eq!(cache.keep(&blake3::hash(b"k"), &object, &[header], before), None);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, b"").unwrap();
        let cache = Cache::open(Some(blocked.join("cache")));
        let object = dir.path().join("o");
        fs::write(&object, b"object").unwrap();
        let key = blake3::hash(b"k");
        let kept = cache.keep(&key, &object, &[], SystemTime::now()).unwrap();
        assert!(!kept.starts_with(dir.path()));
        assert_eq!(cache.find(&key), Some(kept));
    }
}
