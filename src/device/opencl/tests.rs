use super::*;
use crate::device::conformance::{Probe, Suite, conform, source};
use crate::device::{Code, Slice, Text, Word};
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
    conforms(&OpenclOptions { clock: Clock::Steps, ..OpenclOptions::default() });
}

#[test]
fn every_device_conforms_without_recorded_commands() {
    conforms(&OpenclOptions { unrecorded: true, ..OpenclOptions::default() });
}

/// A memory of words that count up from a number, given to the device.
fn counted(device: &mut dyn Device, from: u32, words: u32) -> Mem {
    let mem = device.alloc(Place::Upload, u64::from(words) * 4).unwrap();
    let mut bytes = device.map(mem).unwrap();
    for (word, bytes) in (from..).zip(bytes.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    device.unmap(bytes).unwrap();
    mem
}

fn copy(src: Mem, dst: Mem, len: u64) -> Node {
    let slice = |mem| Slice { mem, offset: 0, len };
    Node { cmd: crate::device::Cmd::Copy { src: slice(src), dst: slice(dst) }, after: Vec::new() }
}

#[test]
fn a_fork_outlives_the_device_that_it_was_forked_from() {
    for index in 0..devices().len() {
        for discrete in [false, true] {
            let mut device = open(index, OpenclOptions { discrete, ..OpenclOptions::default() }).unwrap();
            let (a, b) = (counted(&mut device, 7, 1024), device.alloc(Place::Device, 4096).unwrap());
            let graph = device.record(&[copy(a, b, 2048), copy(a, b, 4096)]).unwrap();
            let mut fork = device.fork().unwrap();
            let point = device.replay(Queue(1), &[], graph, &[]).unwrap();
            device.wait(point).unwrap();
            drop(device);
            // Its memories and graphs are there still.
            let out = fork.alloc(Place::Readback, 4096).unwrap();
            let first = fork.replay(Queue(2), &[], graph, &[]).unwrap();
            let point = fork.submit(Queue(0), &[first], &[copy(b, out, 4096)]).unwrap();
            fork.wait(point).unwrap();
            let bytes = fork.map(out).unwrap();
            assert!(bytes.chunks_exact(4).zip(7u32..).all(|(bytes, word)| bytes == word.to_le_bytes()));
            fork.unmap(bytes).unwrap();
            fork.reset().unwrap();
        }
    }
}

#[test]
fn a_device_is_dropped_with_work_in_flight_and_with_bytes_lent() {
    for index in 0..devices().len() {
        for discrete in [false, true] {
            let mut device = open(index, OpenclOptions { discrete, ..OpenclOptions::default() }).unwrap();
            let len = 4 << 20;
            let (a, b) = (counted(&mut device, 0, len / 4), device.alloc(Place::Device, u64::from(len)).unwrap());
            let c = device.alloc(Place::Readback, u64::from(len)).unwrap();
            for queue in 0..4 {
                let nodes = [copy(a, b, u64::from(len)), copy(b, c, u64::from(len))];
                device.submit(Queue(queue), &[], &nodes).unwrap();
            }
            let lent = counted(&mut device, 1, 4);
            let _bytes = device.map(lent).unwrap();
            drop(device);
        }
    }
}

#[test]
fn a_list_that_fails_half_way_leaves_nothing_in_flight() {
    for index in 0..devices().len() {
        let mut device = open(index, OpenclOptions { discrete: true, ..OpenclOptions::default() }).unwrap();
        let (a, b) = (counted(&mut device, 3, 1024), device.alloc(Place::Readback, 4096).unwrap());
        let bad = Node {
            cmd: crate::device::Cmd::Fill { dst: Slice { mem: device_memory(&mut device), offset: 2, len: 64 }, pattern: Word::Var(0) },
            after: Vec::new(),
        };
        let graph = device.record(&[copy(a, b, 4096), bad]).unwrap();
        // A word that does not repeat where the fill starts.
        let error = device.replay(Queue(1), &[], graph, &[0x0102_0304]).unwrap_err();
        assert!(matches!(error, DeviceError::Failed { node: Some(1), .. }), "{error:?}");
        let bytes = device.map(b).unwrap();
        assert!(bytes.chunks_exact(4).zip(3u32..).all(|(bytes, word)| bytes == word.to_le_bytes()));
        device.unmap(bytes).unwrap();
        let point = device.replay(Queue(1), &[], graph, &[0x0101_0101]).unwrap();
        device.wait(point).unwrap();
    }
}

fn device_memory(device: &mut dyn Device) -> Mem {
    device.alloc(Place::Device, 128).unwrap()
}
