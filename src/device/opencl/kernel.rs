//! A built program and a kernel of the spec -> what can be launched: every parameter is held against what the driver
//! tells of the source, and knows how its argument is passed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use opencl_sys::*;

use super::Driver;
use super::api::cl;
use super::object::{Kernel, Object, Program};
use super::program::{ArgInfo, Workshop, arg_count, arg_info, build_error, group_info, unusable};
use crate::device::{KernelSource, Result};
use crate::tensor::{Access, Dtype, Param, ParamKind};

/// A kernel that can be launched. Kernel objects are made of it, as each holds one set of arguments.
pub(super) struct Loaded {
    pub source: KernelSource,
    program: Arc<Object<Program>>,
    /// By parameter, `local` ones included.
    pub passed: Vec<Passed>,
    /// It has run: the driver has compiled it for its block.
    pub has_run: AtomicBool,
}

/// How an argument is passed.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Passed {
    /// A buffer; its first byte is a multiple of the element's size. *Units*: bytes.
    Buffer {
        access: Access,
        element: u64,
    },
    /// Bytes: where each value goes, and how many there are in all.
    Bytes {
        places: Vec<(usize, Dtype)>,
        size: usize,
    },
    /// Scratch of each block. *Units*: bytes.
    Local(usize),
    Null,
}

/// Lanes of a vector type in memory: three take the room of four.
///
/// *Source*: OpenCL C 1.2, 6.1.5, alignment of types.
fn room(lanes: u32) -> u64 {
    u64::from(lanes.next_power_of_two())
}

impl Passed {
    fn of(param: &Param, local: Option<u64>) -> Passed {
        let size = param.dtype.size() as u64;
        match &param.kind {
            ParamKind::Tensor(access) => Passed::Buffer { access: *access, element: size * room(param.lanes) },
            ParamKind::Scalar => Passed::Bytes {
                places: (0..param.lanes as usize).map(|lane| (lane * param.dtype.size(), param.dtype)).collect(),
                size: (size * room(param.lanes)) as usize,
            },
            ParamKind::Local { .. } => Passed::Local((local.unwrap_or(1) * size * room(param.lanes)) as usize),
            ParamKind::Struct(layout) => {
                // As in C, but a vector is aligned to its own size, whatever that is.
                let (mut end, mut largest) = (0, 1);
                let mut places = Vec::new();
                for field in &layout.fields {
                    let bytes = field.dtype.size() as u64 * room(field.lanes);
                    let offset = u64::next_multiple_of(end, bytes);
                    places.extend((0..field.lanes as usize).map(|lane| (offset as usize + lane * field.dtype.size(), field.dtype)));
                    (end, largest) = (offset + bytes, largest.max(bytes));
                }
                Passed::Bytes { places, size: end.next_multiple_of(largest) as usize }
            }
            ParamKind::Null => Passed::Null,
        }
    }
}

impl Loaded {
    /// *Errors*: `Build`, where the source has no such kernel or has other parameters; `Unusable`, where it cannot run with
    /// the block.
    pub fn new(driver: &Driver, program: Arc<Object<Program>>, source: &KernelSource) -> Result<Loaded> {
        let object = Workshop::entry(driver, &program, source)?;
        agree(driver, object.raw(), source)?;
        let mut locals = source.local_lens.iter().copied();
        let passed = source.params.iter().map(|param| {
            let local = if matches!(param.kind, ParamKind::Local { .. }) { locals.next() } else { None };
            Passed::of(param, local)
        });
        let passed: Vec<Passed> = passed.collect();
        fits(driver, object.raw(), source, &passed)?;
        Ok(Loaded { source: source.clone(), program, passed, has_run: AtomicBool::new(false) })
    }

    /// A kernel object whose `local` parameters are set.
    pub fn object(&self, driver: &Driver) -> Result<Object<Kernel>> {
        let object = Workshop::entry(driver, &self.program, &self.source)?;
        let api = driver.api;
        for (index, passed) in self.passed.iter().enumerate() {
            if let Passed::Local(bytes) = passed {
                cl!(api.clSetKernelArg(object.raw(), index as cl_uint, *bytes, std::ptr::null()))?;
            }
        }
        Ok(object)
    }

    /// The parameters that take an argument, with their index in the source.
    pub fn taking(&self) -> impl Iterator<Item = (u32, &Passed)> {
        let all = self.passed.iter().enumerate().map(|(index, passed)| (index as u32, passed));
        all.filter(|(_, passed)| !matches!(passed, Passed::Local(_)))
    }
}

/// Whether the kernel can run with the spec's block.
fn fits(driver: &Driver, kernel: cl_kernel, source: &KernelSource, passed: &[Passed]) -> Result<()> {
    let refuse = |message: String| Err(unusable(source, message, String::new()));
    if source.shared > 0 {
        let bytes = source.shared;
        return refuse(format!(
            "`shared` asks for {bytes} bytes, OpenCL has no scratch of a block but `local` parameters: write one, as `local u8[{bytes}] scratch`"
        ));
    }
    let required: [usize; 3] = group_info(driver, kernel, CL_KERNEL_COMPILE_WORK_GROUP_SIZE)?;
    let block = source.block.map(|n| n as usize);
    if required != [0; 3] && required != block {
        return refuse(format!(
            "the source asks for blocks of {required:?} (reqd_work_group_size), the spec's are {block:?}: write block = {required:?}"
        ));
    }
    let most: usize = group_info(driver, kernel, CL_KERNEL_WORK_GROUP_SIZE)?;
    let threads = block.iter().product::<usize>();
    if threads > most {
        return refuse(format!("blocks of {threads} threads, on this device the kernel can have {most}"));
    }
    let own: cl_ulong = group_info(driver, kernel, CL_KERNEL_LOCAL_MEM_SIZE)?;
    let locals = passed.iter().map(|passed| if let Passed::Local(bytes) = passed { *bytes as u64 } else { 0 });
    let asked = locals.fold(own, u64::saturating_add);
    let has = driver.found.local_memory;
    if asked > has {
        return refuse(format!("a block needs {asked} bytes of local memory, the device has {has}"));
    }
    Ok(())
}

/// Whether the source's parameters are those of the spec; what the driver does not know is not held against anybody.
fn agree(driver: &Driver, kernel: cl_kernel, source: &KernelSource) -> Result<()> {
    let count = arg_count(driver, kernel)?;
    let infos: Option<Vec<ArgInfo>> = (0..count).map(|index| arg_info(driver, kernel, index).ok()).collect();
    disagreement(&source.params, count as usize, infos.as_deref())
        .map_or(Ok(()), |lines| Err(build_error(source, "the source disagrees with `params`", lines.join("\n"))))
}

/// A line for every parameter that is another one in the source; `None` where all agree.
fn disagreement(params: &[Param], count: usize, infos: Option<&[ArgInfo]>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    let theirs = |index: usize| infos.and_then(|infos| infos.get(index));
    for (index, param) in params.iter().enumerate().take(count) {
        let Some(info) = theirs(index) else { continue };
        let mut ok = agrees(param, info);
        // Where a name stands elsewhere in the source, two parameters have changed places.
        let elsewhere = |name: &String| infos.unwrap_or_default().iter().any(|other| other.name == *name);
        ok &= info.name.is_empty() || info.name == param.name || !elsewhere(&param.name) || param.kind == ParamKind::Null;
        if !ok {
            lines.push(format!("parameter {}: `params` has `{}`, the source has `{}`", index + 1, param, info.shown()));
        }
    }
    if params.len() != count {
        let all = infos.map(|infos| infos.iter().map(|info| format!("`{}`", info.shown())).collect::<Vec<_>>().join(", "));
        let all = all.map_or(String::new(), |all| format!(": {all}"));
        lines.push(format!("`params` has {} parameters, the source has {count}{all}", params.len()));
    }
    (!lines.is_empty()).then_some(lines)
}

impl ArgInfo {
    /// The parameter as it stands in the source.
    fn shown(&self) -> String {
        let address = match self.address {
            CL_KERNEL_ARG_ADDRESS_GLOBAL => "global ",
            CL_KERNEL_ARG_ADDRESS_LOCAL => "local ",
            CL_KERNEL_ARG_ADDRESS_CONSTANT => "constant ",
            _ => "",
        };
        let constant = if self.is_const && self.address == CL_KERNEL_ARG_ADDRESS_GLOBAL { "const " } else { "" };
        format!("{address}{constant}{} {}", self.type_name, self.name).trim_end().to_string()
    }
}

fn agrees(param: &Param, info: &ArgInfo) -> bool {
    let (element, pointers) = element(&info.type_name);
    let is_pointer = pointers > 0 || info.address != CL_KERNEL_ARG_ADDRESS_PRIVATE;
    let reached = matches!(info.address, CL_KERNEL_ARG_ADDRESS_GLOBAL | CL_KERNEL_ARG_ADDRESS_CONSTANT);
    match &param.kind {
        ParamKind::Tensor(access) => {
            let written = !info.is_const && info.address == CL_KERNEL_ARG_ADDRESS_GLOBAL;
            reached && (written || !access.writes()) && is_type(element, param.dtype, param.lanes)
        }
        ParamKind::Scalar => !is_pointer && is_type(element, param.dtype, param.lanes),
        ParamKind::Local { .. } => info.address == CL_KERNEL_ARG_ADDRESS_LOCAL && is_type(element, param.dtype, param.lanes),
        ParamKind::Struct(_) => !is_pointer && known(element).is_none(),
        ParamKind::Null => reached,
    }
}

/// A type's name without what does not matter, and how many pointers stand behind it.
fn element(type_name: &str) -> (&str, usize) {
    let pointers = type_name.matches('*').count();
    let mut name = type_name.trim_end_matches(|c: char| c == '*' || c.is_whitespace());
    for word in ["const ", "volatile ", "restrict ", "__global ", "global ", "__local ", "local ", "__constant ", "constant "] {
        name = name.trim_start().strip_prefix(word).unwrap_or(name);
    }
    (name.trim(), pointers)
}

/// The scalar types of OpenCL C, under every name that drivers use, with the dtypes that have their bits.
const TYPES: &[(&[&str], &[Dtype])] = &[
    (&["float"], &[Dtype::F32]),
    (&["double"], &[Dtype::F64]),
    (&["half"], &[Dtype::F16]),
    (&["char", "signed char"], &[Dtype::I8, Dtype::Bool, Dtype::F8e4m3, Dtype::F8e5m2]),
    (&["uchar", "unsigned char"], &[Dtype::U8, Dtype::Bool, Dtype::F8e4m3, Dtype::F8e5m2]),
    (&["short"], &[Dtype::I16, Dtype::F16, Dtype::Bf16]),
    (&["ushort", "unsigned short"], &[Dtype::U16, Dtype::F16, Dtype::Bf16]),
    (&["int"], &[Dtype::I32]),
    (&["uint", "unsigned int", "unsigned"], &[Dtype::U32]),
    (&["long"], &[Dtype::I64]),
    (&["ulong", "unsigned long"], &[Dtype::U64]),
    (&["bool", "_Bool"], &[Dtype::Bool]),
];

/// The dtypes that have the bits of a type of OpenCL C, and its lanes; `None` where it is a name of the source's own.
fn known(name: &str) -> Option<(&'static [Dtype], u32)> {
    if name == "void" {
        return Some((&Dtype::ALL, 0));
    }
    let of = |name: &str| TYPES.iter().find(|(names, _)| names.contains(&name)).map(|(_, dtypes)| *dtypes);
    if let Some(dtypes) = of(name) {
        return Some((dtypes, 1));
    }
    let end = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let lanes = name[end..].parse().ok().filter(|lanes| [2, 3, 4, 8, 16].contains(lanes))?;
    Some((of(&name[..end])?, lanes))
}

/// Whether a type of the source may stand for a dtype with lanes: a typedef may.
fn is_type(name: &str, dtype: Dtype, lanes: u32) -> bool {
    known(name).is_none_or(|(dtypes, has)| dtypes.contains(&dtype) && (has == lanes || has == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, type_name: &str, address: cl_kernel_arg_address_qualifier, is_const: bool) -> ArgInfo {
        ArgInfo { name: name.into(), type_name: type_name.into(), address, is_const }
    }

    const GLOBAL: cl_kernel_arg_address_qualifier = CL_KERNEL_ARG_ADDRESS_GLOBAL;
    const LOCAL: cl_kernel_arg_address_qualifier = CL_KERNEL_ARG_ADDRESS_LOCAL;
    const PRIVATE: cl_kernel_arg_address_qualifier = CL_KERNEL_ARG_ADDRESS_PRIVATE;

    #[test]
    fn parameters_agree_with_their_types() {
        let cases = [
            ("in f32 x", info("x", "float*", GLOBAL, true), true),
            ("in f32 x", info("x", "float*", GLOBAL, false), true),
            ("in f32 x", info("x", "float*", CL_KERNEL_ARG_ADDRESS_CONSTANT, true), true),
            ("out f32 x", info("x", "float*", GLOBAL, true), false),
            ("out f32 x", info("x", "float*", CL_KERNEL_ARG_ADDRESS_CONSTANT, true), false),
            ("out f32 x", info("x", "double*", GLOBAL, false), false),
            ("out f32x4 x", info("x", "float4*", GLOBAL, false), true),
            ("out f32x4 x", info("x", "float*", GLOBAL, false), false),
            ("out f32x3 x", info("x", "float3*", GLOBAL, false), true),
            ("out f32 x", info("x", "real_t*", GLOBAL, false), true),
            ("out f32 x", info("x", "void*", GLOBAL, false), true),
            ("out f32 x", info("x", "float", PRIVATE, false), false),
            ("in u32 x", info("x", "unsigned int*", GLOBAL, true), true),
            ("in u32 x", info("x", "int*", GLOBAL, true), false),
            ("in bf16 x", info("x", "ushort*", GLOBAL, true), true),
            ("in f16 x", info("x", "half*", GLOBAL, true), true),
            ("in bool x", info("x", "uchar*", GLOBAL, true), true),
            ("u32 n", info("n", "uint", PRIVATE, false), true),
            ("u32 n", info("n", "size", PRIVATE, false), true),
            ("u32 n", info("n", "float", PRIVATE, false), false),
            ("u32 n", info("n", "uint*", GLOBAL, false), false),
            ("f32x4 n", info("n", "float4", PRIVATE, false), true),
            ("local f32[4] t", info("t", "float*", LOCAL, false), true),
            ("local f32[4] t", info("t", "float*", GLOBAL, false), false),
            ("struct dims { u32 n } d", info("d", "struct dims", PRIVATE, false), true),
            ("struct dims { u32 n } d", info("d", "dims_t", PRIVATE, false), true),
            ("struct dims { u32 n } d", info("d", "uint", PRIVATE, false), false),
            ("null", info("x", "float*", GLOBAL, true), true),
            ("null", info("x", "uint", PRIVATE, false), false),
        ];
        for (text, info, want) in cases {
            assert_eq!(agrees(&Param::parse(text).unwrap(), &info), want, "{text} and {}", info.shown());
        }
    }

    #[test]
    fn a_disagreement_names_both_sides() {
        let params: Vec<Param> = ["in f32 x", "out f32 y", "u32 n"].map(|text| Param::parse(text).unwrap()).into();
        let theirs = |names: [&str; 3]| {
            vec![info(names[0], "float*", GLOBAL, true), info(names[1], "float*", GLOBAL, false), info(names[2], "uint", PRIVATE, false)]
        };
        assert_eq!(disagreement(&params, 3, Some(&theirs(["x", "y", "n"]))), None);
        assert_eq!(disagreement(&params, 3, Some(&theirs(["src", "dst", "count"]))), None);
        assert_eq!(disagreement(&params, 3, Some(&theirs(["", "", ""]))), None);
        assert_eq!(disagreement(&params, 3, None), None);
        assert_eq!(
            disagreement(&params, 3, Some(&theirs(["y", "x", "n"]))).unwrap(),
            [
                "parameter 1: `params` has `in f32 x`, the source has `global const float* y`",
                "parameter 2: `params` has `out f32 y`, the source has `global float* x`"
            ]
        );
        assert_eq!(
            disagreement(&params[..2], 3, Some(&theirs(["x", "y", "n"]))).unwrap(),
            ["`params` has 2 parameters, the source has 3: `global const float* x`, `global float* y`, `uint n`"]
        );
    }

    #[test]
    fn structs_are_laid_out_as_opencl_does() {
        let layout = |text: &str| match Passed::of(&Param::parse(text).unwrap(), None) {
            Passed::Bytes { places, size } => (places.into_iter().map(|(at, _)| at).collect::<Vec<_>>(), size),
            other => panic!("{other:?}"),
        };
        assert_eq!(layout("struct s { u8 a, u32 b, u16 c } p"), (vec![0, 4, 8], 12));
        assert_eq!(layout("struct s { f32 a, f32x3 b } p"), (vec![0, 16, 20, 24], 32));
        assert_eq!(layout("struct s { u8 a, f64x16 b } p").1, 256);
        assert_eq!(layout("f32x3 v"), (vec![0, 4, 8], 16));
        assert_eq!(layout("u16 v"), (vec![0], 2));
    }
}
