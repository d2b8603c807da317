//! Turns a failed compilation into one line that says what is wrong, in terms of the user's source and `params`.

use std::path::Path;

use super::shim::Unit;
use crate::device::KernelSource;
use crate::device::near::among;
use crate::tensor::Lang;

/// A compiler's messages without the names of temporary files.
pub(super) fn clean(log: &str, folder: &Path, unit: &Unit) -> String {
    let mut log = log.replace(&format!("{}/include/", folder.display()), "");
    for (file, shown) in &unit.shown {
        log = log.replace(&format!("{}/{file}", folder.display()), shown);
    }
    log.replace(&format!("{}/", folder.display()), "")
}

/// What a failed compilation means, if its messages say so, and those that say more.
pub(super) fn explain(kernel: &KernelSource, lang: Lang, unit: &Unit, source: &str, log: String) -> (Option<String>, String) {
    let (name, entry) = (&kernel.name, &kernel.entry);
    let missing = match lang {
        Lang::Rust => log.contains(&format!("cannot find value `{entry}` in")),
        Lang::C | Lang::Cxx => log.lines().any(|line| names_missing(line, entry, &unit.label)),
    };
    if missing {
        return (Some(no_function(entry, source, lang)), String::new());
    }
    if disagrees(lang, &unit.label, &log) {
        return (Some(format!("kernel `{name}`: the source disagrees with `params`")), log);
    }
    if let Some(line) = log.lines().find(|line| line.contains("undefined reference") || line.contains("undefined symbol")) {
        let symbol = match line.rsplit_once('`') {
            Some((_, symbol)) => symbol.trim_end_matches('\''),
            None => line.rsplit(": ").next().unwrap_or(line).trim(),
        };
        return (Some(format!("`{symbol}` is used and defined nowhere")), log);
    }
    if log.contains("linker `") && log.contains("not found") {
        return (Some("rustc needs a C compiler to link with: install one, or set RUNJOB_CC".to_string()), log);
    }
    let first = log.lines().position(|line| line.contains("error:") || line.starts_with("error["));
    let Some(first) = first else { return (None, log) };
    let mut lines = log.lines().skip(first);
    let line = lines.next().unwrap_or("").trim();
    // Rust names the place on the next line.
    match lines.next().and_then(|next| next.trim_start().strip_prefix("--> ")) {
        Some(place) if lang == Lang::Rust => (Some(format!("{place}: {line}")), log),
        _ => (Some(line.to_string()), log),
    }
}

/// Whether a line says that the entry is not there, or only declared.
fn names_missing(line: &str, entry: &str, label: &str) -> bool {
    let quoted = [
        format!("`{entry}'"),
        format!("'{entry}'"),
        format!("'::{entry}'"),
        format!("symbol: {entry}"),
        format!("\"_{entry}\""),
        format!("'{entry}' in the global namespace"),
    ];
    let undefined = line.contains("undefined") || line.contains("Undefined") || line.contains("isn't defined");
    let undeclared =
        line.starts_with(label) && (line.contains("not been declared") || line.contains("undeclared") || line.contains("no member named"));
    // The name of the symbol stands on its own line in the messages of some linkers.
    ((undefined || undeclared) && quoted.iter().any(|q| line.contains(q)))
        || line.trim_start().starts_with(&format!("\"_{entry}\", referenced"))
}

/// Whether the generated part found that the source's types are not those of `params`.
fn disagrees(lang: Lang, label: &str, log: &str) -> bool {
    let mut lines = log.lines();
    match lang {
        Lang::C => {
            let says = ["conflicting types for", "redeclared as different kind", "redefinition of"];
            lines.any(|line| line.starts_with(label) && says.iter().any(|text| line.contains(text)))
        }
        Lang::Cxx => lines.any(|line| line.starts_with(label) && line.contains("error:")),
        Lang::Rust => {
            let at = format!("--> {label}:");
            let lines: Vec<&str> = lines.collect();
            lines.windows(2).any(|pair| pair[0].starts_with("error") && pair[1].trim_start().starts_with(&at))
        }
    }
}

/// That a function is not there, with those that are.
fn no_function(entry: &str, source: &str, lang: Lang) -> String {
    let functions = match lang {
        Lang::Rust => super::rust::functions(source),
        Lang::C | Lang::Cxx => super::shim::functions(source),
    };
    format!("the source has no function `{entry}`{}", among(entry, &functions))
}
