//! `runjob init`: a spec that runs and passes as it stands, its kernel, and the schema that editors read it by.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::InitArgs;
use super::print::{self, out};
use crate::spec;

const SPEC: &str = include_str!("starter/saxpy.toml");
const KERNEL: &str = include_str!("starter/saxpy.c");

pub(super) fn init(args: &InitArgs) -> u8 {
    let place = args.place.as_deref().unwrap_or(Path::new(""));
    let is_spec = place.extension().is_some_and(|e| e == "toml") && !place.is_dir();
    let (folder, name) = match place.file_name() {
        Some(name) if is_spec => (place.parent().unwrap_or(Path::new("")).to_path_buf(), PathBuf::from(name)),
        _ => (place.to_path_buf(), PathBuf::from("saxpy.toml")),
    };
    let schema = match serde_json::to_string_pretty(&spec::schema()) {
        Ok(text) => text + "\n",
        Err(error) => {
            print::error(&format!("the schema cannot be written: {error}"));
            return 3;
        }
    };
    // The spec speaks of itself by its name.
    let spec = name.to_str().map_or(SPEC.to_string(), |name| SPEC.replace("saxpy.toml", name));
    let files = [
        (folder.join(&name), spec.as_str(), "the spec: start here"),
        (folder.join("saxpy.c"), KERNEL, "its kernel"),
        (folder.join("runjob.schema.json"), &schema, "what editors complete and check it by"),
    ];
    // The kernel and the schema of an earlier spec serve this one too.
    let same = |path: &Path, text: &str| path != files[0].0 && fs::read(path).is_ok_and(|there| there == text.as_bytes());
    let mut refused = false;
    for (path, text, _) in &files {
        if path.symlink_metadata().is_ok() && !same(path, text) {
            print::error(&format!("`{}` is there already, and nothing is overwritten", path.display()));
            refused = true;
        }
    }
    if refused {
        return 2;
    }
    let mut made: Vec<&Path> = Vec::new();
    let result = make_folder(&folder).map_err(|error| (folder.as_path(), error)).and_then(|()| {
        files.iter().filter(|(path, text, _)| !same(path, text)).try_for_each(|(path, text, _)| {
            let mut file = File::create_new(path).map_err(|error| (path.as_path(), error))?;
            made.push(path);
            file.write_all(text.as_bytes()).map_err(|error| (path.as_path(), error))
        })
    });
    if let Err((path, error)) = result {
        print::error(&format!("cannot write `{}`: {error}", path.display()));
        // Half a job is none.
        for path in made {
            let _ = fs::remove_file(path);
        }
        return 3;
    }
    let width = files.iter().map(|(path, ..)| path.display().to_string().chars().count()).max().unwrap_or(0);
    for (path, _, what) in &files {
        let did = if made.contains(&path.as_path()) { "wrote" } else { "kept " };
        out(&format!("{did} {:<width$}  {what}\n", path.display().to_string()));
    }
    out(&format!("run it: runjob {}\n", quoted(&files[0].0)));
    0
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    match fs::create_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(std::io::Error::other("it is a file, not a folder")),
        other => other,
    }
}

/// A path as a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,@%".contains(c);
    if !text.starts_with('-') && text.chars().all(plain) {
        return text;
    }
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    format!("'{}'", text.replace('\'', "'\\''"))
}
