//! `[kernels]` -> what a backend builds: parameters, source, block, defines.

use indexmap::IndexMap;

use super::names::Resolver;
use super::places::Places;
use crate::device::KernelSource;
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Scalar};
use crate::spec::{self, Define, Num};
use crate::tensor::{Number, Param, ParamKind};

/// A kernel whose parameters can be read.
pub(super) struct Kernel {
    pub params: Vec<Param>,
    pub block: [u32; 3],
    /// `None` where another mistake of the kernel is reported.
    pub source: Option<KernelSource>,
    /// Whether `block` names a size, so that `threads` can be counted in blocks.
    pub has_block: bool,
}

impl Resolver<'_> {
    /// All kernels in the order of the spec; `None` where one's parameters are not known.
    pub(super) fn kernels(&self) -> IndexMap<String, Option<Kernel>> {
        let root = Place::root().to("kernels");
        self.spec.kernels.iter().map(|(name, kernel)| (name.clone(), self.kernel(&root.to(name), name, kernel))).collect()
    }

    fn kernel(&self, at: &Place, name: &str, kernel: &spec::Kernel) -> Option<Kernel> {
        let params = self.params(&at.to("params"), kernel);
        let block = self.block(&at.to("block"), kernel);
        let defines = self.defines(&at.to("defines"), kernel);
        let code = self.code(at, name, kernel);
        let entry = self.entry(at, name, kernel);
        let include = self.include(&at.to("include"), kernel);
        let flags = match &kernel.flags {
            None => Vec::new(),
            // A backend without flags of its own has none.
            Some(flags) => flags.get(self.backend).map(|(_, f)| f.clone()).unwrap_or_default(),
        };
        if self.loaded.is_damaged(&at.to("params")) {
            return None;
        }
        let (params, local_lens) = params?;
        let damaged = self.loaded.is_damaged(at);
        let source = (|| {
            Some(KernelSource {
                name: name.to_string(),
                entry: entry?,
                code: code?,
                params: params.clone(),
                local_lens: local_lens?,
                block: block?.unwrap_or([1; 3]),
                defines: defines?,
                flags,
                include: include?,
            })
        })();
        Some(Kernel {
            has_block: block != Some(None) || self.loaded.lacks(&at.to("block")),
            block: block.flatten().unwrap_or([1; 3]),
            source: source.filter(|_| !damaged),
            params,
        })
    }

    /// The function's name in the source.
    fn entry(&self, at: &Place, name: &str, kernel: &spec::Kernel) -> Option<String> {
        let Some(entry) = &kernel.entry else { return Some(name.to_string()) };
        let (at, entry) = self.pick(&at.to("entry"), entry)?;
        let plain = entry.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !entry.starts_with(|c: char| c.is_ascii_digit());
        if entry.is_empty() || !plain {
            self.report(
                Diagnostic::error("bad-name", at, format!("`{entry}` is not a function's name"))
                    .help("write the function's name alone, as it stands in the source"),
            );
            return None;
        }
        Some(entry.clone())
    }

    /// The folders for `#include`, which must exist.
    fn include(&self, at: &Place, kernel: &spec::Kernel) -> Option<Vec<std::path::PathBuf>> {
        let mut ok = true;
        let folders = kernel.include.iter().enumerate().map(|(index, folder)| {
            let full = self.loaded.folder.join(folder);
            if !full.is_dir() {
                ok = false;
                self.report(
                    Diagnostic::error("file", at.to(index), format!("there is no folder `{folder}`"))
                        .help(format!("paths are relative to the spec's folder, `{}`", self.loaded.folder.display())),
                );
            }
            full
        });
        let folders = folders.collect();
        ok.then_some(folders)
    }

    /// The parameters where all can be read, and the lengths of the local ones where all are known.
    fn params(&self, at: &Place, kernel: &spec::Kernel) -> Option<(Vec<Param>, Option<Vec<u64>>)> {
        let mut params: Vec<Param> = Vec::new();
        let mut local_lens = Some(Vec::new());
        let mut ok = true;
        for (index, text) in kernel.params.iter().enumerate() {
            let here = at.to(index);
            let param = match Param::parse(text) {
                Ok(param) => param,
                Err(error) => {
                    self.report_text("bad-param", &here, error);
                    ok = false;
                    continue;
                }
            };
            if let Some(first) = params.iter().position(|p| p.name == param.name) {
                ok = false;
                self.report(
                    Diagnostic::error("name-clash", here.clone(), format!("two parameters are called `{}`", param.name))
                        .also(at.to(first), "the first"),
                );
            }
            if let ParamKind::Local { len, at: span } = &param.kind {
                let len = self.local_len(&here, len, span.start);
                local_lens = local_lens.zip(len).map(|(mut lens, len)| {
                    lens.push(len);
                    lens
                });
            }
            params.push(param);
        }
        ok.then_some((params, local_lens))
    }

    /// The length of a local parameter: an expression inside the parameter's text, from byte `start`.
    fn local_len(&self, at: &Place, text: &str, start: usize) -> Option<u64> {
        let shifted = |mut e: crate::diag::TextError| {
            e.span = e.span.start + start..e.span.end + start;
            self.report_text("bad-param", at, e);
        };
        let expr = expr::parse(text).map_err(shifted).ok()?;
        let len = expr::integer(&expr, &Places::constant(self, &[])).map_err(shifted).ok()?;
        match u64::try_from(len) {
            Ok(len) if (1..=1 << 32).contains(&len) => Some(len),
            _ => {
                let span = start..start + text.len();
                self.report(Diagnostic::error("bad-extent", at.inside(span), format!("a local length of {len}: it must be 1 to 2^32")));
                None
            }
        }
    }

    /// Threads per block; `Some(None)` where the kernel has no block.
    fn block(&self, at: &Place, kernel: &spec::Kernel) -> Option<Option<[u32; 3]>> {
        let Some(block) = &kernel.block else { return Some(None) };
        let (at, dims) = self.pick(at, block)?;
        if dims.len() > 3 {
            self.report(Diagnostic::error("bad-block", at, format!("a block of {} dimensions: there are at most 3, x first", dims.len())));
            return None;
        }
        let mut out = [1u32; 3];
        let mut ok = true;
        for (axis, dim) in dims.iter().enumerate() {
            match self.int_within(&at.to(axis), dim, "threads per block", 1, u32::MAX.into()) {
                Some(n) => out[axis] = n as u32,
                None => ok = false,
            }
        }
        let threads = out.iter().try_fold(1u32, |n, &d| n.checked_mul(d));
        if ok && threads.is_none() {
            self.report(Diagnostic::error("bad-block", at, format!("a block of {out:?} has more than 2^32 threads")));
            return None;
        }
        ok.then_some((!dims.is_empty()).then_some(out))
    }

    fn defines(&self, at: &Place, kernel: &spec::Kernel) -> Option<Vec<(String, String)>> {
        let mut defines = Vec::new();
        let mut ok = true;
        for (name, define) in &kernel.defines {
            let here = at.to(name);
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || name.starts_with(|c: char| c.is_ascii_digit()) {
                self.report(Diagnostic::error("bad-name", here.key(), format!("`{name}` is not a macro's name")));
                ok = false;
                continue;
            }
            let text = match define {
                Define::Text(text) if text.contains(['\n', '\r', '\0']) => {
                    self.report(Diagnostic::error("bad-define", here.to("text"), "a macro is one line"));
                    None
                }
                Define::Text(text) => Some(text.clone()),
                Define::Num(value) => self.pick(&here, value).and_then(|(here, value)| self.define(&here, value)),
            };
            match text {
                Some(text) => defines.push((name.clone(), text)),
                None => ok = false,
            }
        }
        ok.then_some(defines)
    }

    fn define(&self, at: &Place, value: &Num) -> Option<String> {
        if let Num::Bool(value) = value {
            return Some(u8::from(*value).to_string());
        }
        let scalar: Scalar = self.scalar(at, value, &Places::constant(self, &[]), expr::Place::Float)?;
        match scalar.eval(0).map_err(|e| self.report_text("expression", at, e)).ok()? {
            Number::Int(i) => Some(i.to_string()),
            // Every digit counts, and C reads a number without point or exponent as an integer.
            Number::Float(f) if f.is_finite() => Some(format!("{f:?}")),
            Number::Float(f) => {
                self.report(
                    Diagnostic::error("bad-define", at.clone(), format!("{f} has no spelling in the kernel's language"))
                        .help("write { text = \"...\" }"),
                );
                None
            }
        }
    }
}
