//! A kernel's `source` -> the file or the text that a backend builds.

use std::path::{Path, PathBuf};

use super::names::Resolver;
use crate::device::{Code, Text};
use crate::diag::{Diagnostic, Place, nearest};
use crate::spec::{self, Backend, PerBackend, Source};
use crate::tensor::Lang;

/// Suffixes of source files by backend.
const SUFFIXES: &[(&str, Backend)] = &[
    ("c", Backend::Cpu),
    ("cpp", Backend::Cpu),
    ("cc", Backend::Cpu),
    ("cxx", Backend::Cpu),
    ("rs", Backend::Cpu),
    ("so", Backend::Cpu),
    ("dylib", Backend::Cpu),
    ("cl", Backend::Opencl),
    ("wgsl", Backend::Wgpu),
    ("cu", Backend::Cuda),
    ("ptx", Backend::Cuda),
    ("cubin", Backend::Cuda),
    ("fatbin", Backend::Cuda),
];

/// What the CPU takes, for messages.
const FOR_CPU: &str = ".c, .cpp .cc .cxx, .rs, or built .so .dylib";

/// What others take, for messages.
const FOR_OTHERS: &str = ".cl (opencl), .wgsl (wgpu), .cu .ptx .cubin .fatbin (cuda)";

/// The backend that a source file is for, by its suffix.
pub(super) fn backend_of(path: &str) -> Option<Backend> {
    let suffix = Path::new(path).extension().and_then(|s| s.to_str()).unwrap_or("");
    SUFFIXES.iter().find(|(s, _)| *s == suffix).map(|(_, of)| *of)
}

/// Whether a source is PTX, a cubin or several of them: it has been compiled, and its entry is a symbol.
pub(super) fn is_built_for_cuda(code: &Code) -> bool {
    let Code::File(path) = code else { return false };
    path.extension().is_some_and(|suffix| ["ptx", "cubin", "fatbin"].iter().any(|built| suffix == *built))
}

impl Resolver<'_> {
    /// The kernel's source for this backend.
    pub(super) fn code(&self, at: &Place, name: &str, kernel: &spec::Kernel) -> Option<Code> {
        let backend = self.backend.name();
        let (at, per_backend) = match (&kernel.source, &self.spec.source) {
            (Some(source), _) => (at.to("source"), source),
            (None, Some(source)) => (Place::root().to("source"), source),
            (None, None) => {
                if !self.loaded.lacks(&at.to("source")) && !self.loaded.is_damaged(&Place::root().to("source")) {
                    self.report(
                        Diagnostic::error("no-source", at.key(), format!("`{at}` has no source"))
                            .help("write `source = \"kernels/name.c\"` here, or a [source] table for all kernels"),
                    );
                }
                return None;
            }
        };
        let (at, source) = match per_backend.get(self.backend) {
            Some((None, source)) => (at, source),
            Some((Some(key), source)) => (at.to(key), source),
            None if self.loaded.is_damaged(&at) => return None,
            None => {
                self.report(
                    Diagnostic::error("no-backend", at.clone(), format!("`{at}` names no file for `{backend}`"))
                        .help(format!("add `{backend} = \"...\"`")),
                );
                return None;
            }
        };
        match source {
            Source::File(path) => self.file(at, path, matches!(per_backend, PerBackend::All(_))),
            Source::Text { text, lang } => self.text(&at, name, text, *lang),
        }
    }

    /// Source that stands in the spec.
    fn text(&self, at: &Place, name: &str, text: &str, lang: Option<Lang>) -> Option<Code> {
        if text.trim().is_empty() {
            self.report(Diagnostic::error("no-source", at.to("text"), format!("the text of kernel `{name}` is empty")));
            return None;
        }
        if self.backend != Backend::Cpu && lang.is_some() {
            let backend = self.backend.name();
            self.report(
                Diagnostic::error("bad-lang", at.to("lang"), format!("`{backend}` has one language: `lang` is for `cpu`"))
                    .help("leave `lang` out"),
            );
            return None;
        }
        let path = PathBuf::from(&self.loaded.source.name);
        Some(Code::Text(Text { line: self.first_line(&at.to("text"), text), text: text.to_string(), lang, path }))
    }

    /// The line of the spec on which a text starts, where all its lines are lines of the spec.
    fn first_line(&self, at: &Place, text: &str) -> Option<usize> {
        let span = self.loaded.source.span(at);
        let raw = self.loaded.source.text.get(span.clone())?;
        let quotes = ["'''", "\"\"\""].into_iter().find(|quotes| raw.starts_with(quotes))?;
        let inside = raw.strip_prefix(quotes)?.strip_suffix(quotes)?;
        let (skipped, inside) = match inside.strip_prefix("\r\n").or_else(|| inside.strip_prefix('\n')) {
            Some(rest) => (1, rest),
            None => (0, inside),
        };
        // Escapes and line ends that a backslash swallows would shift what follows them.
        let plain = inside.replace("\r\n", "\n") == text.replace("\r\n", "\n");
        plain.then(|| self.loaded.source.locate(span.start).line + skipped)
    }

    /// A source file, which must exist; with `by_suffix` its suffix says for which backend it is.
    fn file(&self, at: Place, path: &str, by_suffix: bool) -> Option<Code> {
        let backend = self.backend.name();
        if path.is_empty() {
            self.report(Diagnostic::error("file", at, "the name of the source file is empty"));
            return None;
        }
        match backend_of(path) {
            Some(of) if of != self.backend && by_suffix => {
                self.report(
                    Diagnostic::error("no-backend", at, format!("`{path}` is a kernel for `{}`, there is none for `{backend}`", of.name()))
                        .help(format!("write source = {{ {} = \"{path}\", {backend} = \"...\" }}", of.name())),
                );
                return None;
            }
            None if by_suffix => {
                self.report(
                    Diagnostic::error("bad-suffix", at, format!("the suffix of `{path}` does not say which backend it is for"))
                        .help(format!("known are {FOR_CPU} (cpu), {FOR_OTHERS}; else write source = {{ {backend} = \"{path}\" }}")),
                );
                return None;
            }
            of if self.backend == Backend::Cpu && of != Some(Backend::Cpu) => {
                self.report(
                    Diagnostic::error("bad-suffix", at, format!("the suffix of `{path}` does not say in which language it is"))
                        .help(format!("kernels for `cpu` are {FOR_CPU}")),
                );
                return None;
            }
            _ => {}
        }
        self.source_file(at, path).map(Code::File)
    }

    /// The path of a file that a kernel is made of, which must exist.
    pub(super) fn source_file(&self, at: Place, path: &str) -> Option<PathBuf> {
        let full = self.loaded.folder.join(path);
        if full.is_dir() {
            self.report(Diagnostic::error("file", at, format!("`{path}` is a folder, not a file")));
            return None;
        }
        if !full.is_file() {
            let mut diagnostic = Diagnostic::error("file", at, format!("there is no file `{path}`"))
                .help(format!("paths are relative to the spec's folder, `{}`", self.loaded.folder.display()));
            let beside: Vec<String> = std::fs::read_dir(full.parent().unwrap_or(Path::new(".")))
                .map(|entries| entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).take(1000).collect())
                .unwrap_or_default();
            let file = full.file_name().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(near) = nearest(&file, &beside) {
                diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
            }
            self.report(diagnostic);
            return None;
        }
        Some(full)
    }
}
