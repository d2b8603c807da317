//! `[types]`: names -> dtypes, where a dtype may stand, and how each backend spells one.

use super::names::Resolver;
use crate::diag::{Diagnostic, Place, TextError};
use crate::spec::{Backend, TypeName};
use crate::tensor::{Dtype, NamedTypes};

impl NamedTypes for Resolver<'_> {
    fn get(&self, name: &str) -> Option<Option<Dtype>> {
        if let Some(dtype) = self.spec.types.get(name) {
            self.use_name(name);
            return Some(Some(*dtype));
        }
        self.loaded.lost("types", name).then_some(None)
    }

    fn names(&self) -> Vec<String> {
        self.spec.types.keys().cloned().collect()
    }
}

impl Resolver<'_> {
    /// The dtype of a name: one of its own, or one of `[types]`; `None` where a mistake is reported.
    pub(super) fn dtype(&self, at: &Place, name: &TypeName) -> Option<Dtype> {
        let TypeName(name) = name;
        self.dtype_of(name).unwrap_or_else(|| {
            let diagnostic = Diagnostic::error("unknown-value", at.clone(), format!("unknown dtype `{name}`"));
            self.report(match Dtype::from_alias(name) {
                Some(dtype) => diagnostic.meaning(dtype.name()),
                None => diagnostic.did_you_mean(name, &self.all_types(), "known here"),
            });
            None
        })
    }

    /// The dtype after `as` in a text.
    pub(super) fn cast(&self, at: &Place, name: &str, span: std::ops::Range<usize>) -> Option<Dtype> {
        self.dtype_of(name).unwrap_or_else(|| {
            let error = TextError::new(span, format!("`{name}` is not a dtype")).unknown(name, self.all_types());
            self.report_text("bad-view", at, error);
            None
        })
    }

    /// `None` for no dtype at all, `Some(None)` where the name's own mistake is reported.
    pub(super) fn dtype_of(&self, name: &str) -> Option<Option<Dtype>> {
        Dtype::from_name(name).map(Some).or_else(|| NamedTypes::get(self, name))
    }

    fn all_types(&self) -> Vec<String> {
        Dtype::ALL.iter().map(|d| d.name().to_string()).chain(NamedTypes::names(self)).collect()
    }
}

/// How kernels in Rust spell a dtype.
pub(super) fn rust_spelling(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "runjob::f16",
        Dtype::Bf16 => "runjob::bf16",
        Dtype::F8e4m3 => "runjob::f8e4m3",
        Dtype::F8e5m2 => "runjob::f8e5m2",
        plain => plain.name(),
    }
}

/// How kernels of a backend spell a dtype; `None` where their language has none for it.
pub(super) fn spelling(dtype: Dtype, backend: Backend) -> Option<&'static str> {
    use Dtype::*;
    Some(match (backend, dtype) {
        (Backend::Cpu | Backend::Opencl | Backend::Cuda, F64) => "double",
        (Backend::Cpu | Backend::Opencl | Backend::Cuda, F32) => "float",
        (Backend::Cpu, F16) => "rj_f16",
        (Backend::Cpu, Bf16) => "rj_bf16",
        (Backend::Cpu, F8e4m3) => "rj_f8e4m3",
        (Backend::Cpu, F8e5m2) => "rj_f8e5m2",
        (Backend::Cpu, I64) => "int64_t",
        (Backend::Cpu, I32) => "int32_t",
        (Backend::Cpu, I16) => "int16_t",
        (Backend::Cpu, I8) => "int8_t",
        (Backend::Cpu, U64) => "uint64_t",
        (Backend::Cpu, U32) => "uint32_t",
        (Backend::Cpu, U16) => "uint16_t",
        (Backend::Cpu, U8) => "uint8_t",
        (Backend::Cpu, Bool) => "_Bool",
        (Backend::Opencl, F16) => "half",
        (Backend::Opencl, I64) => "long",
        (Backend::Opencl | Backend::Cuda, I32) => "int",
        (Backend::Opencl | Backend::Cuda, I16) => "short",
        (Backend::Opencl, I8) => "char",
        (Backend::Opencl, U64) => "ulong",
        (Backend::Opencl, U32) => "uint",
        (Backend::Opencl, U16) => "ushort",
        (Backend::Opencl, U8) => "uchar",
        (Backend::Opencl | Backend::Cuda | Backend::Wgpu, Bool) => "bool",
        (Backend::Cuda, F16) => "__half",
        (Backend::Cuda, Bf16) => "__nv_bfloat16",
        (Backend::Cuda, F8e4m3) => "__nv_fp8_e4m3",
        (Backend::Cuda, F8e5m2) => "__nv_fp8_e5m2",
        (Backend::Cuda, I64) => "long long",
        (Backend::Cuda, I8) => "signed char",
        (Backend::Cuda, U64) => "unsigned long long",
        (Backend::Cuda, U32) => "unsigned int",
        (Backend::Cuda, U16) => "unsigned short",
        (Backend::Cuda, U8) => "unsigned char",
        (Backend::Wgpu, F32 | F16 | I32 | U32) => dtype.name(),
        (Backend::Opencl, Bf16 | F8e4m3 | F8e5m2) | (Backend::Wgpu, _) => return None,
    })
}
