//! Constants and listed numbers in a dtype's bytes, and the `.npy` files that stand for them.

use std::sync::Arc;

use super::names::Resolver;
use super::places::Places;
use crate::data::Npy;
use crate::diag::{Diagnostic, Place};
use crate::expr;
use crate::spec::{self, Nested, Num};
use crate::tensor::{Dtype, Shape};

impl Resolver<'_> {
    /// The bits of a constant in a dtype.
    pub(super) fn bits(&self, at: &Place, value: &Num, dtype: Dtype) -> Option<u64> {
        if let Some((inner, text)) = raw_bits(value) {
            let number = self.int(at, &spec::Int::Text(text.to_string()), &Places::constant(self, &[]))?;
            let limit = 1u128 << (8 * dtype.size());
            return match u64::try_from(number) {
                Ok(bits) if u128::from(bits) < limit => Some(bits),
                _ => {
                    self.report(Diagnostic::error(
                        "out-of-range",
                        at.inside(inner),
                        format!("{number} does not fit the {} bits of {dtype}", 8 * dtype.size()),
                    ));
                    None
                }
            };
        }
        let place = if dtype.is_float() { expr::Place::Float } else { expr::Place::Integer };
        let scalar = self.scalar(at, value, &Places::constant(self, &[]), place)?;
        let number = scalar.eval(0).map_err(|e| self.report_text("expression", at, e)).ok()?;
        dtype.encode(number).map_err(|e| self.report(Diagnostic::error("out-of-range", at.clone(), e.to_string()))).ok()
    }

    /// Listed numbers as row-major bytes: flat, or nested as the shape.
    pub(super) fn values(&self, at: &Place, values: &[Nested], dtype: Dtype, shape: &Shape) -> Option<Arc<[u8]>> {
        let mut bytes = Vec::new();
        let mut ok = true;
        let nested = values.iter().any(|v| matches!(v, Nested::List(_)));
        let extents: &[u64] = if nested { shape.dims() } else { &[] };
        self.collect(at, values, dtype, extents, &mut bytes, &mut ok);
        let found = (bytes.len() / dtype.size()) as u64;
        if ok && found != shape.elements() {
            self.report(
                Diagnostic::error("wrong-count", at.clone(), format!("{found} values, shape {shape} has {} elements", shape.elements()))
                    .help("a constant for every element is { fill = v }"),
            );
            return None;
        }
        ok.then(|| bytes.into())
    }

    /// The bytes of a list that is repeated until a tensor is full.
    pub(super) fn repeated(&self, at: &Place, values: &[Num], dtype: Dtype, shape: &Shape) -> Option<Arc<[u8]>> {
        if values.is_empty() {
            self.report(Diagnostic::error("wrong-count", at.clone(), "there is no number to repeat").help("write one, or `\"zeros\"`"));
            return None;
        }
        if values.len() as u64 > shape.elements() {
            self.report(
                Diagnostic::error(
                    "wrong-count",
                    at.clone(),
                    format!("{} numbers to repeat, shape {shape} has {} elements: the last are never used", values.len(), shape.elements()),
                )
                .help("leave them out"),
            );
            return None;
        }
        // Every number is looked at, also after a wrong one.
        let bits: Vec<Option<u64>> = values.iter().enumerate().map(|(index, value)| self.bits(&at.to(index), value, dtype)).collect();
        let bits: Option<Vec<u64>> = bits.into_iter().collect();
        Some(bits?.iter().flat_map(|bits| bits.to_le_bytes().into_iter().take(dtype.size())).collect())
    }

    fn collect(&self, at: &Place, values: &[Nested], dtype: Dtype, extents: &[u64], bytes: &mut Vec<u8>, ok: &mut bool) {
        if let [extent, ..] = extents
            && values.len() as u64 != *extent
        {
            *ok = false;
            let noun = if values.len() == 1 { "entry" } else { "entries" };
            self.report(Diagnostic::error("wrong-count", at.clone(), format!("{} {noun} here, the shape has {extent}", values.len())));
            return;
        }
        for (index, value) in values.iter().enumerate() {
            let here = at.to(index);
            match (value, extents) {
                (Nested::List(inner), [_, rest @ ..]) if !rest.is_empty() => self.collect(&here, inner, dtype, rest, bytes, ok),
                (Nested::Num(num), [] | [_]) => match self.bits(&here, num, dtype) {
                    Some(bits) => bytes.extend_from_slice(&bits.to_le_bytes()[..dtype.size()]),
                    None => *ok = false,
                },
                _ => {
                    *ok = false;
                    self.report(
                        Diagnostic::error("wrong-nesting", here, "the lists are not nested as the shape")
                            .help("write the values flat, in row-major order, or one list per dimension"),
                    );
                    return;
                }
            }
        }
    }

    /// An `.npy` file of a dtype and, where given, a shape.
    pub(super) fn npy(&self, at: &Place, path: &str, dtype: Dtype, shape: Option<&Shape>) -> Option<Arc<Npy>> {
        if path.is_empty() {
            self.report(Diagnostic::error("file", at.clone(), "the file's name is empty"));
            return None;
        }
        let (folder, full) = (self.folder(), self.folder().join(path));
        // One line of a set may stand for files in many folders.
        let shown = match folder.strip_prefix(&self.loaded.folder).ok().filter(|part| !part.as_os_str().is_empty()) {
            _ if folder == self.loaded.folder => path.to_string(),
            Some(part) => part.join(path).display().to_string(),
            None => full.display().to_string(),
        };
        let path = shown.as_str();
        let npy = match Npy::open(&full) {
            Ok(npy) => npy,
            Err(error) => {
                let mut diagnostic = Diagnostic::error("file", at.clone(), format!("`{path}`: {error}"));
                if !full.exists() {
                    diagnostic = Diagnostic::error("file", at.clone(), format!("there is no file `{path}`"));
                    diagnostic = diagnostic.help(format!("paths are relative to `{}`", self.folder().display()));
                }
                self.report(diagnostic);
                return None;
            }
        };
        if !npy.dtype_matches(dtype) {
            self.report(
                Diagnostic::error("file", at.clone(), format!("`{path}` holds {}, the tensor is {dtype}", npy.describe_dtype()))
                    .help("change the tensor's dtype, or convert the file: `np.save(path, a.astype(...))`"),
            );
            return None;
        }
        if let Some(shape) = shape
            && npy.shape() != shape
        {
            self.report(Diagnostic::error("file", at.clone(), format!("`{path}` has shape {}, the tensor has {shape}", npy.shape())));
            return None;
        }
        Some(Arc::new(npy))
    }
}

/// The text between the parentheses of `bits(...)`, and where it is.
pub(super) fn raw_bits(value: &Num) -> Option<(std::ops::Range<usize>, &str)> {
    let Num::Text(text) = value else { return None };
    let inner = text.trim().strip_prefix("bits(")?.strip_suffix(')')?;
    let start = text.find("bits(")? + 5;
    Some((start..start + inner.len(), inner))
}
