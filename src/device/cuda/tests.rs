use std::path::{Path, PathBuf};

use super::program::Images;
use super::types::Type;
use super::*;
use crate::device::conformance::{Probe, Suite, conform, source};
use crate::device::{Code, Text};
use crate::tensor::{Dtype, Param};

#[path = "../../../tests/cuda/build.rs"]
mod build;

/// What stands in the place of the library that a variable names, unless a real one is asked for: by `RUNJOB_REQUIRE` a GPU,
/// by `RUNJOB_NVRTC` a compiler, whose kernels the simulated driver cannot run.
pub(super) fn simulated(variable: &str) -> Option<PathBuf> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_required = std::env::var("RUNJOB_REQUIRE").is_ok_and(|all| all.split(',').any(|word| word.trim() == "cuda"));
    if is_required || is_set("RUNJOB_CUDA") || is_set("RUNJOB_NVRTC") {
        return None;
    }
    let libraries = build::libraries()?;
    Some(if variable == api::LIBRARY { libraries.cuda.clone() } else { libraries.nvrtc.clone() })
}

fn text(text: &str) -> Code {
    Code::Text(Text { text: text.to_string(), lang: None, path: "probe.cu".into(), line: None })
}

/// How CUDA C++ passes a dtype by value.
fn type_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "double",
        Dtype::F32 => "float",
        Dtype::F16 | Dtype::Bf16 | Dtype::U16 => "unsigned short",
        Dtype::F8e4m3 | Dtype::F8e5m2 | Dtype::U8 | Dtype::Bool => "unsigned char",
        Dtype::I64 => "long long",
        Dtype::I32 => "int",
        Dtype::I16 => "short",
        Dtype::I8 => "signed char",
        Dtype::U64 => "unsigned long long",
        Dtype::U32 => "unsigned int",
    }
}

fn probe(probe: Probe) -> Option<KernelSource> {
    let code = match probe {
        Probe::Axpy => "extern \"C\" __global__ void axpy(const float *x, float *y, float a, unsigned n) {
            for (unsigned i = 0; i < n; i++) y[i] += a * x[i];
        }"
        .to_string(),
        Probe::Broken => "extern \"C\" __global__ void broken(unsigned *y) { y[0] = nowhere; }".into(),
        Probe::Step | Probe::Mismatch => "__global__ void step(unsigned *y, unsigned a, unsigned b) { y[0] = y[0] * a + b; }".into(),
        Probe::Where => "extern \"C\" __global__ void where(unsigned *y) {
            unsigned x = blockIdx.x, gx = gridDim.x, r = blockIdx.y, gy = gridDim.y, z = blockIdx.z;
            y[x + gx * (r + gy * z)] = 1 + x + 100 * r + 10000 * z;
        }"
        .into(),
        Probe::Scalar(dtype) => {
            let t = type_of(dtype);
            format!("extern \"C\" __global__ void scalar_{dtype}({t} *y, {t} s) {{ y[0] = s; }}")
        }
        Probe::Struct => "struct mixed { unsigned char a; unsigned b; unsigned short c; };
        extern \"C\" __global__ void struct_(unsigned *y, mixed p, const void *none) {
            y[0] = p.a; y[1] = p.b; y[2] = p.c; y[3] = none == 0;
        }"
        .into(),
        Probe::Offset => return None,
    };
    let mut kernel = source(probe, text(&code));
    if matches!(probe, Probe::Step | Probe::Mismatch) {
        kernel.entry = "step".into();
    }
    Some(kernel)
}

/// The devices under test. Without a driver there are none, unless one is required.
fn devices() -> Vec<Caps> {
    list().unwrap_or_else(|error| {
        let required = std::env::var("RUNJOB_REQUIRE").is_ok_and(|all| all.split(',').any(|word| word.trim() == "cuda"));
        assert!(!required, "RUNJOB_REQUIRE names cuda: {error}");
        assert!(simulated(api::LIBRARY).is_none(), "the simulated driver is not there: {error}");
        eprintln!("not run on CUDA: {error}");
        Vec::new()
    })
}

fn conforms(options: &CudaOptions) {
    for index in 0..devices().len() {
        let open = || Box::new(open(index, options.clone()).unwrap()) as Box<dyn Device>;
        conform(&Suite { open: &open, kernel: &probe });
    }
}

#[test]
fn every_device_conforms() {
    conforms(&CudaOptions::default());
}

#[test]
fn every_device_conforms_with_times() {
    for clock in [Clock::Rounds, Clock::Steps] {
        conforms(&CudaOptions { clock, ..CudaOptions::default() });
    }
}

#[test]
fn every_device_conforms_step_by_step() {
    conforms(&CudaOptions { stepwise: true, ..CudaOptions::default() });
}

/// NVRTC needs no GPU. *Returns* `None` where there is no NVRTC.
fn images(folder: &Path) -> Option<Images> {
    match nvrtc::version() {
        Ok(_) => Some(Images::new((9, 0), Some(folder.to_path_buf()))),
        Err(why) => {
            let named = std::env::var_os("RUNJOB_NVRTC").is_some_and(|path| !path.is_empty());
            assert!(!named && simulated("RUNJOB_NVRTC").is_none(), "the NVRTC that is named or simulated is not there: {why}");
            eprintln!("not compiled: {why}");
            None
        }
    }
}

fn kernel(entry: &str, params: &[&str], code: &str) -> KernelSource {
    let params = params.iter().map(|param| Param::parse(param).unwrap()).collect();
    KernelSource { entry: entry.into(), params, ..source(Probe::Step, text(code)) }
}

#[test]
fn compiled_kernels_tell_their_symbols_and_types() {
    let folder = tempfile::tempdir().unwrap();
    let Some(images) = images(folder.path()) else { return };
    let code = "struct dims { unsigned n; };
    extern \"C\" __global__ void first(const float *__restrict__ x, float *y, const unsigned n) {}
    __global__ void second(dims d, const float4 *x, const float4 *y) {}
    namespace inner { __global__ void third(long long *x) {} template <class T> __global__ void scale(T *x, T a) { x[0] *= a; }
      template __global__ void scale<float>(float *, float); }";
    for (entry, symbol, types) in [
        ("first", "first", Some("const float *, float *, unsigned int")),
        ("second", "_Z6second4dimsPK6float4S2_", Some("dims, const float4 *, const float4 *")),
        ("third", "_ZN5inner5thirdEPx", Some("long long *")),
        ("inner::third", "_ZN5inner5thirdEPx", Some("long long *")),
        ("inner::scale<double>", "_ZN5inner5scaleIdEEvPT_S1_", Some("double *, double")),
        ("_ZN5inner5scaleIfEEvPT_S1_", "_ZN5inner5scaleIfEEvPT_S1_", None),
    ] {
        let found = images.entry(&kernel(entry, &[], code)).unwrap_or_else(|error| panic!("{entry}: {error}"));
        let shown = found.types.map(|types| types.iter().map(Type::to_string).collect::<Vec<_>>().join(", "));
        assert_eq!((found.symbol.as_str(), shown.as_deref()), (symbol, types), "{entry}");
        assert!(!found.image.bytes.is_empty());
    }
    // What names of kernels are asked for does not matter: they share a module.
    let image = |entry| images.entry(&kernel(entry, &[], code)).unwrap().image;
    assert!(Arc::ptr_eq(&image("first"), &image("third")));
}

#[test]
fn kernels_that_do_not_compile_say_where_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let Some(images) = images(folder.path()) else { return };
    let refused = |entry: &str, code: &str, flags: &[&str]| {
        let flags = flags.iter().map(|flag| flag.to_string()).collect();
        match images.entry(&KernelSource { flags, ..kernel(entry, &[], code) }) {
            Err(DeviceError::Build { message, log, .. }) => format!("build: {message}\n{log}"),
            Err(DeviceError::Unusable { message, log, .. }) => format!("unusable: {message}\n{log}"),
            Err(other) => panic!("{entry}: {other}"),
            Ok(_) => panic!("{entry} is there"),
        }
    };
    let said = refused("k", "extern \"C\" __global__ void k(float *x) {\n  x[0] = nowhere; }", &[]);
    assert!(said.starts_with("build: ") && said.contains("(2): error") && said.contains("nowhere"), "{said}");
    let said = refused("sum", "extern \"C\" __global__ void sum_all(float *x) {}", &[]);
    assert!(said.starts_with("build: the source has no kernel `sum`") && said.contains("`sum_all`"), "{said}");
    let said = refused("k", "__device__ int x;", &[]);
    assert!(said.starts_with("build: the source has no kernel `k`; it has none at all"), "{said}");
    let said = refused("k", "extern \"C\" __global__ void k(float *x) {}", &["--no-such-flag"]);
    assert!(said.starts_with("unusable: NVRTC does not take `flags`: --no-such-flag"), "{said}");
    let said = refused("k", "extern \"C\" __global__ void k(float *x) { \0 }", &[]);
    assert!(said.starts_with("unusable: ") && said.contains("zero byte"), "{said}");
}

#[test]
fn headers_defines_and_flags_reach_the_compiler_and_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let Some(images) = images(folder.path()) else { return };
    let headers = tempfile::tempdir().unwrap();
    std::fs::write(headers.path().join("width.h"), "#define WIDTH 4\n").unwrap();
    let code = "#include \"width.h\"\nextern \"C\" __global__ void k(float *x) { static_assert(WIDTH * SCALE == 12 + MORE, \"\"); }";
    let with = |images: &Images, scale: &str, more: &str| {
        images.entry(&KernelSource {
            include: vec![headers.path().to_path_buf()],
            defines: vec![("SCALE".into(), scale.into())],
            flags: vec![format!("-DMORE={more}")],
            ..kernel("k", &[], code)
        })
    };
    let first = with(&images, "3", "0").unwrap().image;
    assert!(matches!(with(&images, "2", "0"), Err(DeviceError::Build { .. })));
    assert!(with(&images, "4", "4").is_ok());
    // Another process finds what is on disk, until a header is another one.
    let again = Images::new((9, 0), Some(folder.path().to_path_buf()));
    assert_eq!(with(&again, "3", "0").unwrap().image.bytes, first.bytes);
    std::fs::write(headers.path().join("width.h"), "#define WIDTH 5\n").unwrap();
    let later = Images::new((9, 0), Some(folder.path().to_path_buf()));
    assert!(matches!(with(&later, "3", "0"), Err(DeviceError::Build { .. })));
}
