//! `[kernels]` -> what a backend builds: parameters, source, block, defines.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::names::Resolver;
use super::places::Places;
use super::source::is_built_for_cuda;
use super::types::{rust_spelling, spelling};
use crate::device::cpu::is_keyword;
use crate::device::{Code, KernelSource};
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Scalar};
use crate::spec::{self, Backend, Define, Num, PerBackend};
use crate::tensor::{Number, Param, ParamKind, Struct};

/// A kernel whose parameters can be read.
pub(super) struct Kernel {
    pub params: Vec<Param>,
    pub block: [u32; 3],
    /// `None` where another mistake of the kernel is reported.
    pub source: Option<KernelSource>,
    /// Whether `block` names a size, so that `threads` can be counted in blocks.
    pub has_block: bool,
    /// All steps that launch it are kept to other backends, and no check is about its build: nothing but its parameters is looked at.
    pub elsewhere: bool,
}

/// Threads per block; `None` where a kernel names none.
pub(super) type Block = Option<[u32; 3]>;

/// Whether a text can be a symbol: a word of C, with `$` in it where PTX has it.
fn is_symbol(text: &str, dollar: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || dollar && c == '$';
    !text.is_empty() && text.chars().all(fits) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether a text can name a function in C++: `scale`, `ns::scale<float, 4>`. What it names is the compiler's to say.
fn is_name_expression(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_:<>,*&()[]+-'. ".contains(c);
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    let depth = text.chars().filter(|c| "<([".contains(*c)).count() == text.chars().filter(|c| ">)]".contains(*c)).count();
    let ends = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '>';
    // Two words without a bracket between them are a name with its type, or two names.
    let words = text.split(['<', '(']).next().is_some_and(|name| !name.trim_end().contains(' '));
    text.starts_with(starts) && text.ends_with(ends) && text.chars().all(fits) && depth && words
}

impl Resolver<'_> {
    /// All kernels in the order of the spec; `None` where one's parameters are not known.
    pub(super) fn kernels(&self) -> IndexMap<String, Option<Kernel>> {
        let root = Place::root().to("kernels");
        let mut launched = HashMap::new();
        self.launched(&self.spec.steps, true, &mut launched);
        let kernels = self.spec.kernels.iter().map(|(name, kernel)| {
            let at = root.to(name);
            let elsewhere = launched.get(name.as_str()) == Some(&false) && !self.has_build_check(name);
            let kernel = if elsewhere {
                self.use_words(kernel);
                let (params, _) = self.params(&at.to("params"), kernel).unzip();
                params.map(|params| Kernel { params, block: [1; 3], source: None, has_block: true, elsewhere: true })
            } else {
                self.kernel(&at, name, kernel)
            };
            (name.clone(), kernel)
        });
        kernels.collect()
    }

    /// By name of a kernel that steps launch: whether one of them may run on this backend.
    fn launched<'s>(&self, steps: &'s [spec::Step], on: bool, found: &mut HashMap<&'s str, bool>) {
        for step in steps {
            let on = on && self.is_on(step);
            if let Some(kernel) = &step.kernel {
                *found.entry(kernel).or_default() |= on;
            }
            self.launched(step.body.as_deref().unwrap_or_default(), on, found);
        }
    }

    /// Counts the names in the expressions of a kernel that is not built here as used.
    fn use_words(&self, kernel: &spec::Kernel) {
        let blocks = kernel.block.iter().flat_map(PerBackend::iter).flat_map(|(_, block)| block);
        let mut texts: Vec<&str> = blocks
            .chain(&kernel.shared)
            .filter_map(|value| if let spec::Int::Text(text) = value { Some(text.as_str()) } else { None })
            .collect();
        for define in kernel.defines.values() {
            if let Define::Num(value) = define {
                texts.extend(value.iter().filter_map(|(_, value)| if let Num::Text(text) = value { Some(text.as_str()) } else { None }));
            }
        }
        for text in texts {
            if let Ok(expr) = expr::parse(text) {
                expr.names(&mut |name, _| self.use_name(name));
            }
        }
    }

    fn kernel(&self, at: &Place, name: &str, kernel: &spec::Kernel) -> Option<Kernel> {
        let params = self.params(&at.to("params"), kernel);
        let shared = match &kernel.shared {
            None => Some(0),
            Some(shared) => self.int_within(&at.to("shared"), shared, "`shared` in bytes", 0, 1 << 32),
        };
        let mut block = self.block(&at.to("block"), kernel);
        let code = self.code(at, name, kernel);
        let launch = self.triton(at, kernel, code.as_ref());
        let rust = code.as_ref().is_some_and(Code::is_rust);
        let defines = self.defines(&at.to("defines"), kernel, rust);
        let entry = match &launch {
            Some(Some(launch)) => Some(launch.entry.clone()),
            _ => self.entry(at, name, kernel, code.as_ref()),
        };
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
        let mut shared = shared;
        let hidden = match launch {
            Some(Some(launch)) => {
                let agrees = self.agrees_with_triton(at, kernel, &launch, &params, block?, shared?);
                (block, shared) = (Some(Some([launch.threads, 1, 1])), Some(launch.shared));
                agrees.then_some(launch.hidden)
            }
            launch => launch.map(|_| 0),
        };
        let damaged = self.loaded.is_damaged(at);
        let source = (|| {
            Some(KernelSource {
                name: name.to_string(),
                entry: entry?,
                code: code?,
                params: params.clone(),
                local_lens: local_lens?,
                block: block?.unwrap_or([1; 3]),
                shared: shared?,
                serial: kernel.serial,
                defines: defines?,
                flags,
                include: include?,
                hidden: hidden?,
            })
        })();
        Some(Kernel {
            // Where the metadata cannot be read, its mistake is reported alone.
            has_block: block != Some(None) || hidden.is_none() || self.loaded.lacks(&at.to("block")),
            block: block.flatten().unwrap_or([1; 3]),
            source: source.filter(|_| !damaged),
            elsewhere: false,
            params,
        })
    }

    /// The function's name in the source.
    fn entry(&self, at: &Place, name: &str, kernel: &spec::Kernel, code: Option<&Code>) -> Option<String> {
        let (at, entry) = match &kernel.entry {
            Some(entry) => self.pick(&at.to("entry"), entry)?,
            None => (at.key(), &name.to_string()),
        };
        let built = code.is_some_and(is_built_for_cuda);
        let is_entry = match self.backend {
            Backend::Cuda if !built => is_name_expression(entry),
            _ => is_symbol(entry, built),
        };
        if !is_entry {
            let help = match self.backend {
                Backend::Cuda if built => {
                    "write the symbol as the file has it; of a C++ function it is the mangled name, such as `_Z5scalePf`"
                }
                Backend::Cuda => "write the function's name, or that of an instance of a template, such as `scale<float, 4>`",
                _ => "write the function's name alone, as it stands in the source",
            };
            self.report(Diagnostic::error("bad-name", at, format!("`{entry}` is not a function's name")).help(help));
            return None;
        }
        if self.backend == Backend::Cpu && is_keyword(entry) {
            let help = match kernel.entry {
                Some(_) => "write the function's name as it stands in the source".to_string(),
                None => format!("rename the function, and write `entry = \"...\"` in [kernels.{name}]"),
            };
            self.report(Diagnostic::error("bad-name", at, format!("`{entry}` is a word of C and names no function")).help(help));
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
            let param = match Param::parse_with(text, self) {
                Ok(param) => param,
                Err(error) => {
                    self.report_text("bad-param", &here, error);
                    ok = false;
                    continue;
                }
            };
            ok &= self.has_type(&here, text, &param);
            if param.kind != ParamKind::Null
                && let Some(first) = params.iter().position(|p| p.name == param.name)
            {
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

    /// Whether the backend's language can take a parameter by value.
    fn has_type(&self, at: &Place, text: &str, param: &Param) -> bool {
        let at = at.inside(0..text.len());
        let diagnostic = match &param.kind {
            _ if self.backend != Backend::Cpu => return true,
            ParamKind::Struct(Struct { tag: None, .. }) => {
                let message = format!("struct `{}` has no tag: in C a struct without one agrees with no other", param.name);
                Diagnostic::error("bad-param", at, message)
                    .help(format!("write `struct tag {{ ... }} {}`, with the tag that the source gives it", param.name))
            }
            ParamKind::Struct(Struct { tag: Some(tag), .. }) if is_keyword(tag) => {
                Diagnostic::error("bad-param", at, format!("`{tag}` is a word of C and names no struct"))
            }
            ParamKind::Scalar if param.lanes == 3 => {
                let (dtype, name) = (param.dtype, &param.name);
                Diagnostic::error("bad-param", at, format!("`{text}`: C has no type of three lanes to pass by value"))
                    .help(format!("write `struct tag {{ {dtype}x3 v }} {name}`, or pass a tensor: `in {dtype}x3 {name}`"))
            }
            _ => return true,
        };
        self.report(diagnostic);
        false
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
    fn block(&self, at: &Place, kernel: &spec::Kernel) -> Option<Block> {
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

    fn defines(&self, at: &Place, kernel: &spec::Kernel, rust: bool) -> Option<Vec<(String, String)>> {
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
                Define::Num(value) => self.pick(&here, value).and_then(|(here, value)| self.define(&here, value, rust)),
            };
            match text {
                Some(text) => defines.push((name.clone(), text)),
                None => ok = false,
            }
        }
        ok.then_some(defines)
    }

    fn define(&self, at: &Place, value: &Num, rust: bool) -> Option<String> {
        if let Num::Bool(value) = value {
            return Some(u8::from(*value).to_string());
        }
        if let Num::Text(text) = value
            && !self.spec.dims.contains_key(text.trim())
            && let Some(dtype) = self.dtype_of(text.trim())
        {
            let (dtype, backend) = (dtype?, self.backend);
            let spelled = if rust { Some(rust_spelling(dtype)) } else { spelling(dtype, backend) };
            if spelled.is_none() {
                self.report(
                    Diagnostic::error("bad-define", at.clone(), format!("{dtype} has no name in kernels for `{}`", backend.name()))
                        .help("write { text = \"...\" }"),
                );
            }
            return spelled.map(String::from);
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
