use super::*;
use crate::device::conformance::{Probe, Suite, conform, source};
use crate::device::{Code, Text};
use crate::tensor::Dtype;

/// The devices under test. Without a driver there are none, unless one is required.
fn devices() -> Vec<Caps> {
    list().unwrap_or_else(|error| {
        let required = std::env::var("RUNJOB_REQUIRE").is_ok_and(|all| all.split(',').any(|word| word.trim() == "opencl"));
        assert!(!required, "RUNJOB_REQUIRE names opencl: {error}");
        eprintln!("not run on OpenCL: {error}");
        Vec::new()
    })
}

fn text(text: &str) -> Code {
    Code::Text(Text { text: text.to_string(), lang: None, path: "probe.cl".into(), line: None })
}

/// How OpenCL C passes a dtype by value here; `None` where it cannot.
fn type_of(dtype: Dtype, caps: &Caps) -> Option<&'static str> {
    Some(match dtype {
        Dtype::F64 if caps.features.iter().any(|f| f == "f64") => "double",
        Dtype::F32 => "float",
        Dtype::F64 => return None,
        Dtype::F16 | Dtype::Bf16 | Dtype::U16 => "ushort",
        Dtype::F8e4m3 | Dtype::F8e5m2 | Dtype::U8 | Dtype::Bool => "uchar",
        Dtype::I64 => "long",
        Dtype::I32 => "int",
        Dtype::I16 => "short",
        Dtype::I8 => "char",
        Dtype::U64 => "ulong",
        Dtype::U32 => "uint",
    })
}

fn probe(probe: Probe, caps: &Caps) -> Option<KernelSource> {
    let code = match probe {
        Probe::Axpy => "kernel void axpy(global const float *x, global float *y, float a, uint n) {
            for (uint i = 0; i < n; i++) y[i] += a * x[i];
        }"
        .to_string(),
        Probe::Broken => "kernel void broken(global uint *y) { y[0] = nowhere; }".to_string(),
        Probe::Step | Probe::Mismatch => {
            "kernel void step(global uint *y, uint a, uint b) { y[0] = y[0] * a + b; }".replace("step(", "step_(")
        }
        Probe::Where => "kernel void where(global uint *y) {
            uint x = get_group_id(0), gx = get_num_groups(0), r = get_group_id(1), gy = get_num_groups(1), z = get_group_id(2);
            y[x + gx * (r + gy * z)] = 1 + x + 100 * r + 10000 * z;
        }"
        .to_string(),
        Probe::Scalar(dtype) => {
            let t = type_of(dtype, caps)?;
            format!("kernel void scalar_{dtype}(global {t} *y, {t} s) {{ y[0] = s; }}")
        }
        Probe::Struct => "struct mixed { uchar a; uint b; ushort c; };
        kernel void struct_(global uint *y, struct mixed p, global const void *none) {
            y[0] = p.a; y[1] = p.b; y[2] = p.c; y[3] = none == 0;
        }"
        .to_string(),
        Probe::Offset => "kernel void offset(global uint *y) {
            for (uint d = 0; d < 3; d++) y[d] = get_global_offset(d);
        }"
        .to_string(),
    };
    let mut kernel = source(probe, text(&code));
    if matches!(probe, Probe::Step | Probe::Mismatch) {
        kernel.entry = "step_".into();
    }
    Some(kernel)
}

fn conforms(options: &OpenclOptions) {
    for (index, caps) in devices().iter().enumerate() {
        let open = || Box::new(open(index, options.clone()).unwrap()) as Box<dyn Device>;
        conform(&Suite { open: &open, kernel: &|of| probe(of, caps) });
    }
}

#[test]
fn every_device_conforms() {
    conforms(&OpenclOptions::default());
}

#[test]
fn every_device_conforms_as_one_with_memory_of_its_own() {
    conforms(&OpenclOptions { discrete: true, ..OpenclOptions::default() });
}

#[test]
fn every_device_conforms_with_times() {
    conforms(&OpenclOptions { profile: true, ..OpenclOptions::default() });
}

#[test]
fn every_device_conforms_without_recorded_commands() {
    conforms(&OpenclOptions { unrecorded: true, ..OpenclOptions::default() });
}
