//! A loaded module and a kernel of the spec -> what can be launched: every parameter is held against what compiler and
//! driver tell of the source, and knows how its argument is passed.

use std::sync::Arc;

use cudarc::driver::sys::{CUfunction, CUfunction_attribute as Attribute, CUresult};

use super::Driver;
use super::api::{LACKS, cu};
use super::program::{Module, build_error, unusable};
use super::types::Type;
use crate::device::{KernelSource, Result};
use crate::tensor::{Access, Dtype, Param, ParamKind};

/// A kernel that can be launched.
pub(super) struct Loaded {
    pub source: KernelSource,
    pub function: CUfunction,
    /// By parameter that takes an argument.
    pub passed: Vec<Passed>,
    /// Scratch of a block that is given at launch. *Units*: bytes.
    pub shared: u32,
    /// That there are so many parameters was held against compiler or driver.
    pub is_counted: bool,
    // What keeps the function.
    _module: Arc<Module>,
}

// SAFETY: a function is a handle, which CUDA lets any thread use.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

/// How an argument is passed.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Passed {
    /// The address of a tensor, which is a multiple of `alignment`. *Units*: bytes.
    Pointer {
        access: Access,
        alignment: u64,
    },
    /// Bytes: where each value goes, and how many there are in all.
    Bytes {
        places: Vec<(usize, Dtype)>,
        size: usize,
    },
    Null,
}

/// Bytes that an address of an element with lanes is a multiple of: two and four lanes are types of CUDA's own, of at most
/// 16 bytes; others are aligned as one lane is.
///
/// *Source*: CUDA C++ programming guide, alignment requirements of built-in vector types.
fn alignment(dtype: Dtype, lanes: u32) -> u64 {
    let size = dtype.size() as u64;
    match lanes {
        2 | 4 => (size * u64::from(lanes)).min(16),
        _ => size,
    }
}

impl Passed {
    /// `None` for what takes no argument.
    fn of(param: &Param) -> Option<Passed> {
        let size = param.dtype.size();
        Some(match &param.kind {
            ParamKind::Tensor(access) => Passed::Pointer { access: *access, alignment: alignment(param.dtype, param.lanes) },
            ParamKind::Scalar => Passed::Bytes {
                places: (0..param.lanes as usize).map(|lane| (lane * size, param.dtype)).collect(),
                size: size * param.lanes as usize,
            },
            ParamKind::Struct(layout) => {
                let (mut end, mut largest) = (0, 1);
                let mut places = Vec::new();
                for field in &layout.fields {
                    let (size, of) = (field.dtype.size(), alignment(field.dtype, field.lanes));
                    let offset = u64::next_multiple_of(end, of);
                    places.extend((0..field.lanes as usize).map(|lane| (offset as usize + lane * size, field.dtype)));
                    (end, largest) = (offset + (size * field.lanes as usize) as u64, largest.max(of));
                }
                Passed::Bytes { places, size: end.next_multiple_of(largest) as usize }
            }
            ParamKind::Null => Passed::Null,
            ParamKind::Local { .. } => return None,
        })
    }

    /// What the kernel takes for it. *Units*: bytes.
    pub fn size(&self) -> usize {
        match self {
            Passed::Pointer { .. } | Passed::Null => 8,
            Passed::Bytes { size, .. } => *size,
        }
    }
}

/// Scratch of a block: `local` parameters in their order, each where its elements may start, then `shared`. *Units*: bytes.
fn scratch(source: &KernelSource) -> u64 {
    let mut lens = source.local_lens.iter();
    let mut end = 0u64;
    for param in source.params.iter().filter(|param| matches!(param.kind, ParamKind::Local { .. })) {
        let element = (param.dtype.size() as u64).saturating_mul(param.lanes.into());
        let start = end.checked_next_multiple_of(alignment(param.dtype, param.lanes)).unwrap_or(u64::MAX);
        end = start.saturating_add(element.saturating_mul(lens.next().copied().unwrap_or(1)));
    }
    end.saturating_add(source.shared)
}

impl Loaded {
    /// A function of a module, with the types of its parameters where they are known.
    ///
    /// *Errors*: `Build`, where the source has other parameters; `Unusable`, where it cannot run with the block.
    pub fn new(
        driver: &Driver,
        module: Arc<Module>,
        function: CUfunction,
        source: &KernelSource,
        types: Option<&[Type]>,
    ) -> Result<Loaded> {
        let passed: Vec<Passed> = source.params.iter().filter_map(Passed::of).collect();
        let taking: Vec<&Param> = source.params.iter().filter(|param| !matches!(param.kind, ParamKind::Local { .. })).collect();
        let lines = types.and_then(|types| disagreement(&taking, types));
        let mut known = sizes(driver, function)?;
        if let Some(sizes) = &mut known {
            // What a compiler added behind them is no matter of the spec's.
            let (own, hidden) = (taking.len(), source.hidden as usize);
            if sizes.len() == own + hidden && sizes[own..].iter().all(|&size| size == 8) {
                sizes.truncate(own);
            }
        }
        let bytes = passed.iter().fold(0usize, |sum, passed| sum.saturating_add(passed.size().next_multiple_of(8)));
        if bytes > MOST_BYTES {
            return Err(unusable(source, format!("the parameters take {bytes} bytes, runjob passes at most {MOST_BYTES}"), String::new()));
        }
        let lines = match lines {
            Some(lines) => Some(lines),
            None => known.as_deref().and_then(|sizes| other_sizes(&taking, &passed, sizes)),
        };
        if let Some(lines) = lines {
            return Err(build_error(source, "the source disagrees with `params`", lines.join("\n")));
        }
        let shared = fits(driver, function, source)?;
        let is_counted = types.is_some() || known.is_some();
        Ok(Loaded { source: source.clone(), function, passed, shared, is_counted, _module: module })
    }
}

/// The most that parameters take: what every kernel may have. *Units*: bytes.
///
/// *Source*: CUDA C++ programming guide, function parameters.
const MOST_BYTES: usize = 4096;

/// Whether the kernel can run with the spec's block; its scratch is then allowed to be as large as it is. *Units*: bytes.
fn fits(driver: &Driver, function: CUfunction, source: &KernelSource) -> Result<u32> {
    let refuse = |message: String| Err(unusable(source, message, String::new()));
    let api = driver.api;
    let number = |attribute: Attribute| {
        let mut value = 0;
        cu!(api.cuFuncGetAttribute(&mut value, attribute as u32, function)).map(|()| value.max(0) as u64)
    };
    let most = number(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
    let threads: u64 = source.block.iter().map(|&n| u64::from(n)).product();
    if threads > most {
        return refuse(format!(
            "blocks of {threads} threads, on this device the kernel can have {most}: its registers are too many for more"
        ));
    }
    let (own, asked) = (number(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?, scratch(source));
    let (needed, has) = (own.saturating_add(asked), driver.found.shared);
    if needed > has {
        let both = if own > 0 && asked > 0 { format!(" ({own} in the source, {asked} by the spec)") } else { String::new() };
        return refuse(format!("a block needs {needed} bytes of shared memory{both}, the device has {has}"));
    }
    // Beyond 48 KiB a kernel has it only where this says so. Kernels of the spec may share the function: it is never less.
    let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    if asked > number(attribute)? {
        cu!(api.cuFuncSetAttribute(function, attribute as u32, asked as i32))?;
    }
    Ok(asked as u32)
}

/// The sizes of a function's parameters; `None` where the driver does not tell. *Units*: bytes.
fn sizes(driver: &Driver, function: CUfunction) -> Result<Option<Vec<usize>>> {
    let api = driver.api;
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        match cu!(api.cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut size)) {
            Ok(()) => sizes.push(size),
            Err(failure) if failure.code == LACKS || failure.is(CUresult::CUDA_ERROR_NOT_SUPPORTED) => return Ok(None),
            // There are no more.
            Err(failure) if failure.is(CUresult::CUDA_ERROR_INVALID_VALUE) => return Ok(Some(sizes)),
            Err(failure) => return Err(failure.into()),
        }
    }
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A line for every parameter of another size; `None` where all agree.
fn other_sizes(params: &[&Param], passed: &[Passed], sizes: &[usize]) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    for (index, ((param, passed), size)) in params.iter().zip(passed).zip(sizes).enumerate() {
        if passed.size() != *size {
            let ours = passed.size();
            lines.push(format!("parameter {}: `params` has `{param}` of {ours} bytes, the kernel takes {size}", index + 1));
        }
    }
    if params.len() != sizes.len() {
        lines.push(format!("`params` has {} that take an argument, the kernel has {}", plural(params.len(), "parameter"), sizes.len()));
    }
    (!lines.is_empty()).then_some(lines)
}

/// A line for every parameter that is another one in the source; `None` where all agree.
fn disagreement(params: &[&Param], types: &[Type]) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    for (index, (param, of)) in params.iter().zip(types).enumerate() {
        if !agrees(param, of) {
            lines.push(format!("parameter {}: `params` has `{param}`, the source has `{of}`", index + 1));
        }
    }
    if params.len() != types.len() {
        let all = types.iter().map(|of| format!("`{of}`")).collect::<Vec<_>>().join(", ");
        let all = if all.is_empty() { all } else { format!(": {all}") };
        let ours = plural(params.len(), "parameter");
        lines.push(format!("`params` has {ours} that take an argument, the source has {}{all}", types.len()));
    }
    (!lines.is_empty()).then_some(lines)
}

fn agrees(param: &Param, of: &Type) -> bool {
    match &param.kind {
        ParamKind::Tensor(access) => match of {
            Type::Pointer(to) => match &**to {
                Type::Const(to) => !access.writes() && is_type(to, param.dtype, param.lanes),
                to => is_type(to, param.dtype, param.lanes),
            },
            Type::Other => true,
            _ => false,
        },
        ParamKind::Scalar => is_type(of, param.dtype, param.lanes),
        ParamKind::Struct(_) => matches!(of, Type::Named(_) | Type::Other),
        ParamKind::Null => matches!(of, Type::Pointer(_) | Type::Other),
        ParamKind::Local { .. } => true,
    }
}

/// The types of CUDA C++ with the dtypes that have their bits, and their lanes.
const TYPES: &[(&str, &[Dtype], u32)] = &[
    ("float", &[Dtype::F32], 1),
    ("double", &[Dtype::F64], 1),
    ("bool", &[Dtype::Bool], 1),
    ("char", &[Dtype::I8, Dtype::Bool, Dtype::F8e4m3, Dtype::F8e5m2], 1),
    ("signed char", &[Dtype::I8, Dtype::Bool, Dtype::F8e4m3, Dtype::F8e5m2], 1),
    ("unsigned char", &[Dtype::U8, Dtype::Bool, Dtype::F8e4m3, Dtype::F8e5m2], 1),
    ("short", &[Dtype::I16, Dtype::F16, Dtype::Bf16], 1),
    ("unsigned short", &[Dtype::U16, Dtype::F16, Dtype::Bf16], 1),
    ("int", &[Dtype::I32], 1),
    ("unsigned int", &[Dtype::U32], 1),
    ("long", &[Dtype::I64], 1),
    ("unsigned long", &[Dtype::U64], 1),
    ("long long", &[Dtype::I64], 1),
    ("unsigned long long", &[Dtype::U64], 1),
    ("__half", &[Dtype::F16], 1),
    ("__half2", &[Dtype::F16], 2),
    ("__nv_bfloat16", &[Dtype::Bf16], 1),
    ("__nv_bfloat162", &[Dtype::Bf16], 2),
    ("__nv_fp8_e4m3", &[Dtype::F8e4m3], 1),
    ("__nv_fp8_e5m2", &[Dtype::F8e5m2], 1),
];

/// The words of vector types, as in `uchar4`, with the type of one lane.
const VECTORS: &[(&str, &str)] = &[
    ("float", "float"),
    ("double", "double"),
    ("char", "signed char"),
    ("uchar", "unsigned char"),
    ("short", "short"),
    ("ushort", "unsigned short"),
    ("int", "int"),
    ("uint", "unsigned int"),
    ("long", "long"),
    ("ulong", "unsigned long"),
    ("longlong", "long long"),
    ("ulonglong", "unsigned long long"),
];

/// The dtypes that have the bits of a type, and its lanes; `None` where it is a type of the source's own.
fn known(of: &Type) -> Option<(&'static [Dtype], u32)> {
    let name = match of {
        Type::Builtin("void") => return Some((&Dtype::ALL, 0)),
        Type::Builtin(name) => name,
        Type::Named(name) => name.as_str(),
        Type::Const(of) => return known(of),
        // A pointer has the bits of no dtype.
        Type::Pointer(_) => return Some((&[], 1)),
        Type::Other => return None,
    };
    let of = |name: &str| TYPES.iter().find(|(known, ..)| *known == name).map(|(_, dtypes, lanes)| (*dtypes, *lanes));
    if let Some(known) = of(name) {
        return Some(known);
    }
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let lanes = name[word.len()..].parse().ok().filter(|lanes| (1..=4).contains(lanes))?;
    let (_, lane) = VECTORS.iter().find(|(vector, _)| *vector == word)?;
    of(lane).map(|(dtypes, _)| (dtypes, lanes))
}

/// Whether a type of the source may stand for a dtype with lanes: one of its own may.
fn is_type(of: &Type, dtype: Dtype, lanes: u32) -> bool {
    known(of).is_none_or(|(dtypes, has)| dtypes.contains(&dtype) && (has == lanes || has == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(text: &str) -> Param {
        Param::parse(text).unwrap()
    }

    fn pointer(to: Type) -> Type {
        Type::Pointer(Box::new(to))
    }

    fn constant(of: Type) -> Type {
        Type::Const(Box::new(of))
    }

    #[test]
    fn parameters_agree_with_their_types() {
        let (float, named) = (Type::Builtin("float"), |name: &str| Type::Named(name.into()));
        for (text, of, want) in [
            ("in f32 x", pointer(constant(float.clone())), true),
            ("in f32 x", pointer(float.clone()), true),
            ("out f32 x", pointer(constant(float.clone())), false),
            ("out f32 x", pointer(Type::Builtin("double")), false),
            ("out f32 x", float.clone(), false),
            ("out f32 x", pointer(Type::Builtin("void")), true),
            ("out f32 x", pointer(pointer(float.clone())), false),
            ("out f32x4 x", pointer(named("float4")), true),
            ("out f32x4 x", pointer(float.clone()), false),
            ("out f32x4 x", pointer(named("my_vector")), true),
            ("in i64x2 x", pointer(constant(named("longlong2"))), true),
            ("in f16 x", pointer(named("__half")), true),
            ("in bf16x2 x", pointer(named("__nv_bfloat162")), true),
            ("in bf16 x", pointer(named("__half")), false),
            ("in f16 x", pointer(Type::Builtin("unsigned short")), true),
            ("in u32 x", pointer(Type::Builtin("int")), false),
            ("u32 n", Type::Builtin("unsigned int"), true),
            ("u32 n", Type::Builtin("int"), false),
            ("u32 n", pointer(Type::Builtin("unsigned int")), false),
            ("f32x2 v", named("float2"), true),
            ("struct dims { u32 n } d", named("dims"), true),
            ("struct dims { u32 n } d", Type::Builtin("unsigned int"), false),
            ("null", pointer(float), true),
            ("null", Type::Builtin("unsigned int"), false),
        ] {
            assert_eq!(agrees(&param(text), &of), want, "{text} and {of}");
        }
    }

    #[test]
    fn a_disagreement_names_both_sides() {
        let (y, a) = (param("inout f32 y"), param("u32 a"));
        let theirs = [pointer(Type::Builtin("unsigned int")), Type::Builtin("unsigned int")];
        assert_eq!(disagreement(&[&y, &a], &theirs).unwrap(), ["parameter 1: `params` has `inout f32 y`, the source has `unsigned int *`"]);
        assert_eq!(
            disagreement(&[&a], &[theirs[1].clone(), theirs[1].clone()]).unwrap(),
            ["`params` has 1 parameter that take an argument, the source has 2: `unsigned int`, `unsigned int`"]
        );
        let passed = [Passed::of(&y).unwrap(), Passed::of(&a).unwrap()];
        assert_eq!(other_sizes(&[&y, &a], &passed, &[8, 4]), None);
        assert_eq!(other_sizes(&[&y, &a], &passed, &[8, 8]).unwrap(), ["parameter 2: `params` has `u32 a` of 4 bytes, the kernel takes 8"]);
        assert!(other_sizes(&[&y, &a], &passed, &[8]).is_some());
    }

    #[test]
    fn structs_and_vectors_are_laid_out_as_cuda_does() {
        let layout = |text: &str| match Passed::of(&param(text)) {
            Some(Passed::Bytes { places, size }) => (places.into_iter().map(|(at, _)| at).collect::<Vec<_>>(), size),
            other => panic!("{other:?}"),
        };
        assert_eq!(layout("struct s { u8 a, u32 b, u16 c } p"), (vec![0, 4, 8], 12));
        assert_eq!(layout("struct s { f32 a, f32x3 b } p"), (vec![0, 4, 8, 12], 16));
        assert_eq!(layout("struct s { f32 a, f32x4 b } p").1, 32);
        assert_eq!(layout("struct s { f64 a, f64x4 b } p").1, 48);
        assert_eq!(layout("f32x3 v"), (vec![0, 4, 8], 12));
    }

    #[test]
    fn scratch_starts_where_its_elements_may() {
        let source = |params: &[&str], local_lens: &[u64], shared| KernelSource {
            params: params.iter().map(|text| param(text)).collect(),
            local_lens: local_lens.to_vec(),
            shared,
            ..crate::device::conformance::source(crate::device::conformance::Probe::Step, crate::device::Code::File("k.cu".into()))
        };
        assert_eq!(scratch(&source(&["in f32 x", "u32 n"], &[], 0)), 0);
        assert_eq!(scratch(&source(&["local u8[5] a", "in f32 x", "local f32[3] b"], &[5, 3], 0)), 20);
        assert_eq!(scratch(&source(&["local u8[5] a", "local f32x4[1] b"], &[5, 1], 100)), 132);
        assert_eq!(scratch(&source(&["local f64[2] a"], &[u64::MAX], 100)), u64::MAX);
    }
}
