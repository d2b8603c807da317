//! C kernels: what builds, what does not and why, and what is found built.

use std::fs;
use std::path::PathBuf;

use super::*;

mod by_value;
mod conformance;
mod langs;
mod robust;
use crate::device::{Arg, Cmd, NO_OFFSET, Slice, Word};
use crate::tensor::{Dtype, Param, ParamKind};

/// A folder with sources and a cache of its own.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> CpuOptions {
        CpuOptions { threads: Some(2), cache: Some(self.dir.path().join("cache")), ..CpuOptions::default() }
    }

    fn open(&self) -> CpuDevice {
        open(self.options()).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn kernel(&self, entry: &str, params: &[&str], text: &str) -> KernelSource {
        source(entry, params, Code::File(self.file(&format!("{entry}.c"), text)))
    }
}

fn source(entry: &str, params: &[&str], code: Code) -> KernelSource {
    let params: Vec<Param> = params.iter().map(|p| Param::parse(p).unwrap()).collect();
    let local_lens = params
        .iter()
        .filter_map(|p| match &p.kind {
            ParamKind::Local { len, .. } => Some(len.parse().unwrap()),
            _ => None,
        })
        .collect();
    KernelSource {
        name: entry.into(),
        entry: entry.into(),
        code,
        params,
        local_lens,
        block: [1; 3],
        shared: 0,
        serial: false,
        defines: Vec::new(),
        flags: Vec::new(),
        include: Vec::new(),
        hidden: 0,
    }
}

fn load(device: &mut CpuDevice, kernel: &KernelSource) -> Result<Kernel> {
    // SAFETY: the kernels of these tests keep to their arguments.
    unsafe { device.load(kernel) }
}

fn all(mem: Mem, len: usize) -> Slice {
    Slice { mem, offset: 0, len: len as u64 }
}

fn upload(device: &mut CpuDevice, bytes: &[u8]) -> Mem {
    let mem = device.alloc(Place::Shared, bytes.len() as u64).unwrap();
    let mut mapped = device.map(mem).unwrap();
    mapped.copy_from_slice(bytes);
    device.unmap(mapped).unwrap();
    mem
}

fn download(device: &mut CpuDevice, mem: Mem) -> Vec<u8> {
    let mapped = device.map(mem).unwrap();
    let bytes = mapped.to_vec();
    device.unmap(mapped).unwrap();
    bytes
}

fn launch(kernel: Kernel, grid: [u64; 3], args: Vec<Arg>) -> Node {
    Node { cmd: Cmd::Launch { kernel, grid: grid.map(Word::Const), offset: NO_OFFSET, args }, after: Vec::new() }
}

fn once(device: &mut CpuDevice, node: Node) {
    let point = device.submit(Queue(0), &[], &[node]).unwrap();
    device.wait(point).unwrap();
}

const SAXPY: &str = "#include <stdint.h>\n\nvoid saxpy(const float *restrict x, float *restrict y, const float a, uint32_t n) {\n    for (uint32_t i = 0; i < n; ++i) y[i] += a * x[i];\n}\n";
const SAXPY_PARAMS: [&str; 4] = ["in f32 x", "inout f32 y", "f32 a", "u32 n"];

#[test]
fn a_kernel_runs_with_its_natural_signature() {
    let bench = Bench::new();
    for text in
        [SAXPY.to_string(), SAXPY.replace("void saxpy", "static void saxpy"), SAXPY.replace("void saxpy", "static inline void saxpy")]
    {
        let mut device = bench.open();
        let kernel = load(&mut device, &bench.kernel("saxpy", &SAXPY_PARAMS, &text)).unwrap();
        let x = upload(&mut device, bytemuck::cast_slice(&[1f32, 2.0, 3.0]));
        let y = upload(&mut device, bytemuck::cast_slice(&[10f32, 20.0, 30.0]));
        let scalars = [Arg::Scalar(Word::Const(2f32.to_bits().into())), Arg::Scalar(Word::Const(3))];
        once(&mut device, launch(kernel, [1; 3], [vec![Arg::In(all(x, 12)), Arg::Inout(all(y, 12))], scalars.to_vec()].concat()));
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&download(&mut device, y)), [12.0, 24.0, 36.0]);
    }
}

fn build_failure(result: Result<Kernel>) -> (String, String) {
    match result {
        Err(DeviceError::Build { message, log, .. } | DeviceError::Unusable { message, log, .. }) => (message, log),
        other => panic!("not a build failure: {other:?}"),
    }
}

#[test]
fn a_syntax_error_names_the_users_file_and_line() {
    let bench = Bench::new();
    let kernel = bench.kernel("saxpy", &SAXPY_PARAMS, &SAXPY.replace("+= a", "+= b"));
    let Code::File(path) = &kernel.code else { unreachable!() };
    let (message, log) = build_failure(load(&mut bench.open(), &kernel));
    assert!(message.starts_with(&format!("{}:4:", path.display())), "{message}\n{log}");
    assert!(log.contains("'b' undeclared") || log.contains("undeclared identifier 'b'"), "{log}");
    assert!(!log.contains("work-"), "{log}");
}

#[test]
fn params_that_disagree_are_an_error_that_names_both_types() {
    let bench = Bench::new();
    for params in [
        ["in f32 x", "inout f32 y", "f64 a", "u32 n"].as_slice(),
        &["inout f32 x", "inout f32 y", "f32 a", "u32 n"],
        &["in f32 x", "inout f32 y", "f32 a"],
        &["in f32x4 x", "inout f32 y", "f32 a", "u32 n"],
    ] {
        for text in [SAXPY.to_string(), SAXPY.replace("void saxpy", "static void saxpy")] {
            let (message, log) = build_failure(load(&mut bench.open(), &bench.kernel("saxpy", params, &text)));
            assert_eq!(message, "kernel `saxpy`: the source disagrees with `params`", "{log}");
            assert!(log.contains("params of kernel `saxpy`") && log.contains("saxpy.c:3:"), "{log}");
            assert!(log.contains("const float *"), "{log}");
        }
    }
    let (message, _) = build_failure(load(&mut bench.open(), &bench.kernel("saxpy", &SAXPY_PARAMS, "int saxpy = 3;")));
    assert_eq!(message, "kernel `saxpy`: the source disagrees with `params`");
}

#[test]
fn a_missing_function_is_named_with_the_one_that_is_near() {
    let bench = Bench::new();
    let (message, _) = build_failure(load(&mut bench.open(), &bench.kernel("saxpi", &SAXPY_PARAMS, SAXPY)));
    assert_eq!(message, "the source has no function `saxpi`; did you mean `saxpy`?");
    // A function of the C library is not taken for the kernel.
    let (message, _) = build_failure(load(&mut bench.open(), &bench.kernel("perror", &["in i8 x"], SAXPY)));
    assert_eq!(message, "the source has no function `perror`; it has `saxpy`");
    let (message, _) = build_failure(load(&mut bench.open(), &bench.kernel("k", &[], "void other(void);\nvoid k(void) { other(); }")));
    assert_eq!(message, "`other` is used and defined nowhere");
}

#[test]
fn a_missing_source_and_a_foreign_one_are_named() {
    let bench = Bench::new();
    let gone = bench.dir.path().join("gone.c");
    let (message, _) = build_failure(load(&mut bench.open(), &source("k", &[], Code::File(gone.clone()))));
    assert_eq!(message, format!("the source `{}` does not exist", gone.display()));
    let foreign = source("k", &[], Code::File(bench.file("k.cl", "")));
    assert!(matches!(load(&mut bench.open(), &foreign), Err(DeviceError::Unsupported(m)) if m.contains("k.cl")));
}

#[test]
fn without_a_compiler_c_kernels_are_unsupported_and_builtins_run() {
    let bench = Bench::new();
    let compilers = Some(vec!["/nonexistent/cc -O1".to_string(), "no-such-compiler".to_string()]);
    let mut device = open(CpuOptions { compilers, ..bench.options() }).unwrap();
    assert_eq!(device.caps().driver, "no C compiler");
    let Err(DeviceError::Unsupported(message)) = load(&mut device, &bench.kernel("saxpy", &SAXPY_PARAMS, SAXPY)) else { panic!() };
    assert!(message.contains("`/nonexistent/cc -O1`, `no-such-compiler`") && message.contains("install"), "{message}");
    load(&mut device, &source("k", &[], Code::Builtin(|_, _| {}))).unwrap();
}

#[test]
fn a_kernel_is_compiled_once_and_again_when_what_it_is_made_from_changes() {
    let bench = Bench::new();
    let header = bench.file("factor.h", "#define FACTOR 2\n");
    let text = "#include \"factor.h\"\n#include <stdint.h>\nvoid put(int32_t *y) { y[0] = FACTOR * SCALE; }\n";
    let mut kernel = bench.kernel("put", &["out i32 y"], text);
    kernel.defines = vec![("SCALE".into(), "(1 + 1)".into())];
    let run = |kernel: &KernelSource| {
        let mut device = bench.open();
        let id = load(&mut device, kernel).unwrap();
        let y = upload(&mut device, &[0; 4]);
        once(&mut device, launch(id, [1; 3], vec![Arg::Out(all(y, 4))]));
        (download(&mut device, y)[0], device.builds().compiles)
    };
    assert_eq!(run(&kernel), (4, 1));
    assert_eq!(run(&kernel), (4, 0));
    fs::write(&header, "#define FACTOR 3\n").unwrap();
    assert_eq!(run(&kernel), (6, 1));
    kernel.defines[0].1 = "5".into();
    assert_eq!(run(&kernel), (15, 1));
    kernel.flags = vec!["-O1".into()];
    assert_eq!(run(&kernel), (15, 1));
    assert_eq!(run(&kernel), (15, 0));
    // Every object is damaged: none is used.
    for entry in fs::read_dir(bench.dir.path().join("cache").join("cpu-1")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "so") {
            let half = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(&path, &half[..half.len() / 2]).unwrap();
        }
    }
    assert_eq!(run(&kernel), (15, 1));
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let bench = Bench::new();
    let blocked = bench.file("blocked", "");
    let mut device = open(CpuOptions { cache: Some(blocked.join("cache")), ..bench.options() }).unwrap();
    let kernel = bench.kernel("saxpy", &SAXPY_PARAMS, SAXPY);
    load(&mut device, &kernel).unwrap();
    load(&mut device, &kernel).unwrap();
    assert_eq!(device.builds(), Builds { compiles: 1, cache_hits: 1 });
}

#[test]
fn kernels_with_the_same_symbols_do_not_mix() {
    let bench = Bench::new();
    let mut device = bench.open();
    let text = |value: i32| {
        format!("#include <stdint.h>\nint32_t value(void) {{ return {value}; }}\nvoid put(int32_t *y) {{ y[0] = value(); }}\n")
    };
    let first = load(&mut device, &bench.kernel("put", &["out i32 y"], &text(1))).unwrap();
    let second = load(&mut device, &bench.kernel("put", &["out i32 y"], &text(2))).unwrap();
    let y = upload(&mut device, &[0; 4]);
    for (kernel, want) in [(first, 1), (second, 2), (first, 1)] {
        once(&mut device, launch(kernel, [1; 3], vec![Arg::Out(all(y, 4))]));
        assert_eq!(download(&mut device, y)[0], want);
    }
}

#[test]
fn scalars_and_tensors_of_every_dtype_have_their_c_type() {
    let bench = Bench::new();
    for dtype in Dtype::ALL {
        let c = match dtype {
            Dtype::F16 => "rj_f16",
            Dtype::Bf16 => "rj_bf16",
            Dtype::Bool => "rj_bool",
            Dtype::I64 => "int64_t",
            Dtype::U8 => "uint8_t",
            other => &format!("rj_{other}"),
        };
        let params = [format!("in {dtype} x"), format!("out {dtype} y"), format!("{dtype} s")];
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        let text = format!("#include <runjob.h>\nvoid k(const {c} *x, {c} *y, {c} s) {{ y[0] = x[0]; y[1] = s; }}\n");
        let mut device = bench.open();
        let kernel = load(&mut device, &bench.kernel("k", &params, &text)).unwrap();
        let (a, b) = (dtype.encode(crate::tensor::Number::Int(1)).unwrap(), dtype.encode(crate::tensor::Number::Int(0)).unwrap());
        let mut x = vec![0; dtype.size()];
        dtype.store(&mut x, 0, a);
        let x = upload(&mut device, &x);
        let y = upload(&mut device, &vec![0xff; 2 * dtype.size()]);
        let args = vec![Arg::In(all(x, dtype.size())), Arg::Out(all(y, 2 * dtype.size())), Arg::Scalar(Word::Const(b))];
        once(&mut device, launch(kernel, [1; 3], args));
        let y = download(&mut device, y);
        assert_eq!((dtype.load(&y, 0), dtype.load(&y, 1)), (a, b), "{dtype}");
    }
}

#[test]
fn lanes_are_vectors_and_three_lanes_are_packed() {
    let bench = Bench::new();
    let mut device = bench.open();
    let text = "#include <runjob.h>\nvoid k(const rj_f32x4 *x, rj_f32x2 s, const float *t, rj_f32x4 *y, rj_u8x16 *z, rj_f64x16 *w, const rj_bf16x2 *b) {\n\
        y[0] = x[1] * x[0] + s[1]; y[1] = (rj_f32x4){t[3], t[4], t[5], b[0][1]};\n  z[0] += 1; w[1][15] = 7.0; }\n";
    let params = ["in f32x4 x", "f32x2 s", "in f32x3 t", "out f32x4 y", "inout u8x16 z", "out f64x16 w", "in bf16x2 b"];
    let kernel = load(&mut device, &bench.kernel("k", &params, text)).unwrap();
    let x = upload(&mut device, bytemuck::cast_slice(&[1f32, 2., 3., 4., 5., 6., 7., 8.]));
    let t = upload(&mut device, bytemuck::cast_slice(&[0f32, 1., 2., 3., 4., 5.]));
    let (y, z, w) = (upload(&mut device, &[0; 32]), upload(&mut device, &[255; 16]), upload(&mut device, &[0; 256]));
    let args = vec![
        Arg::In(all(x, 32)),
        Arg::Struct(vec![Word::Const(0), Word::Const(0.5f32.to_bits().into())]),
        Arg::In(all(t, 24)),
        Arg::Out(all(y, 32)),
        Arg::Inout(all(z, 16)),
        Arg::Out(all(w, 256)),
        Arg::In(all(t, 4)),
    ];
    once(&mut device, launch(kernel, [1; 3], args));
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&download(&mut device, y)), [5.5, 12.5, 21.5, 32.5, 3., 4., 5., 0.]);
    assert_eq!(download(&mut device, z), [0; 16]);
}

#[test]
fn local_scratch_is_aligned_and_each_block_in_flight_has_its_own() {
    let bench = Bench::new();
    let mut device = bench.open();
    let text = "#include <runjob.h>\nvoid k(float *a, uint32_t *y, uint8_t *b, uint32_t n) {\n\
        uint32_t me = rj_block(0);\n  for (uint32_t i = 0; i < n; ++i) { a[i] = (float)me; b[i % 100] = (uint8_t)me; }\n\
        uint32_t ok = ((uintptr_t)a % 64 == 0) && ((uintptr_t)b % 64 == 0);\n\
        for (uint32_t i = 0; i < n; ++i) ok = ok && a[i] == (float)me && b[i % 100] == (uint8_t)me;\n  y[me] = ok ? me + 1 : 0; }\n";
    let kernel = load(&mut device, &bench.kernel("k", &["local f32[1001] a", "out u32 y", "local u8[100] b", "u32 n"], text)).unwrap();
    let y = upload(&mut device, &[0; 4 * 400]);
    once(&mut device, launch(kernel, [400, 1, 1], vec![Arg::Out(all(y, 1600)), Arg::Scalar(Word::Const(1001))]));
    let want: Vec<u32> = (1..=400).collect();
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&download(&mut device, y)), want);
}

#[test]
fn a_builtin_that_panics_fails_its_node() {
    let mut device = Bench::new().open();
    let kernel = load(&mut device, &source("k", &[], Code::Builtin(|_, at| assert!(at.block[0] != 3, "no")))).unwrap();
    for queue in [0, 1] {
        let nodes = [launch(kernel, [2, 1, 1], Vec::new()), launch(kernel, [40, 1, 1], Vec::new())];
        let result = device.submit(Queue(queue), &[], &nodes).and_then(|point| device.wait(point));
        assert_eq!(result, Err(DeviceError::Failed { node: Some(1), call: "submit", message: "the kernel panicked".into() }));
    }
}

#[test]
fn the_running_node_is_told() {
    static AT: AtomicU32 = AtomicU32::new(u32::MAX);
    let bench = Bench::new();
    let mut device = open(CpuOptions { at_node: vec![&AT], ..bench.options() }).unwrap();
    let kernel = load(&mut device, &source("k", &[], Code::Builtin(|_, _| {}))).unwrap();
    let nodes: Vec<Node> = (0..3).map(|_| launch(kernel, [1; 3], Vec::new())).collect();
    device.submit(Queue(0), &[], &nodes).unwrap();
    assert_eq!(AT.load(std::sync::atomic::Ordering::Relaxed), 2);
}

/// Runs itself once more as a process, which must die of the fault.
#[test]
fn a_kernel_that_writes_read_only_memory_faults() {
    const CHILD: &str = "RUNJOB_TEST_FAULT";
    if std::env::var_os(CHILD).is_none() {
        let name = "device::cpu::tests::a_kernel_that_writes_read_only_memory_faults";
        let child = std::process::Command::new(std::env::current_exe().unwrap()).args(["--exact", name]).env(CHILD, "1").output().unwrap();
        // Neither passed nor failed: a signal ended it.
        assert_eq!(child.status.code(), None, "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let mut device = Bench::new().open();
    let write: Builtin = |args, _| {
        // SAFETY: the tensor has a byte; that it may not be written is the point.
        unsafe { (*args).write_volatile(1) }
    };
    let kernel = load(&mut device, &source("k", &["in u8 x"], Code::Builtin(write))).unwrap();
    let mem = device.alloc(Place::ReadOnly, 8).unwrap();
    let mapped = device.map(mem).unwrap();
    device.unmap(mapped).unwrap();
    once(&mut device, launch(kernel, [1; 3], vec![Arg::In(all(mem, 8))]));
}

#[test]
fn a_strict_users_flags_find_nothing_in_what_is_generated() {
    let bench = Bench::new();
    for text in [SAXPY.to_string(), format!("#include <runjob.h>\n{SAXPY}")] {
        let mut kernel = bench.kernel("saxpy", &SAXPY_PARAMS, &text);
        kernel.flags = ["-Wall", "-Wextra", "-Werror", "-Wmissing-prototypes", "-Wshadow"].map(String::from).to_vec();
        kernel.flags.push("-Wno-error=missing-prototypes".into());
        load(&mut bench.open(), &kernel).unwrap();
    }
}

/// What launches cost beside the kernel; printed with `--nocapture`, judged by nobody.
#[test]
#[ignore = "a measurement"]
fn cost_of_launches() {
    let bench = Bench::new();
    let mut device = bench.open();
    let empty = load(&mut device, &bench.kernel("k", &["u32 n"], "#include <stdint.h>\nvoid k(uint32_t n) { (void)n; }\n")).unwrap();
    let text = "#include <runjob.h>\nvoid k2(uint32_t n) { __asm__ volatile(\"\" :: \"r\"(n + rj_block(0))); }\n";
    let asks = load(&mut device, &bench.kernel("k2", &["u32 n"], text)).unwrap();
    for (what, kernel, blocks) in
        [("1 block", empty, 1), ("1 block, asks where", asks, 1), ("64 blocks", empty, 64), ("64 blocks, ask", asks, 64)]
    {
        let node = Node {
            cmd: Cmd::Launch { kernel, grid: [blocks, 1, 1].map(Word::Const), offset: NO_OFFSET, args: vec![Arg::Scalar(Word::Var(0))] },
            after: Vec::new(),
        };
        let graph = device.record(&[node]).unwrap();
        let device: &mut dyn Device = &mut device;
        let rounds = 2_000_000;
        let start = std::time::Instant::now();
        for round in 0..rounds {
            device.replay(Queue(0), &[], graph, &[round]).unwrap();
        }
        println!("{what}: {:.1} ns", start.elapsed().as_nanos() as f64 / rounds as f64);
    }
    let start = std::time::Instant::now();
    let kernel = bench.kernel("k2", &["u32 n"], text);
    load(&mut bench.open(), &kernel).unwrap();
    println!("open and load, found in the cache: {:?}", start.elapsed());
    let pool = Pool::new(2);
    let rounds = 100_000;
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        pool.run(64, 4, &|_, begin, end| {
            std::hint::black_box(begin..end);
        });
    }
    println!("64 empty blocks dealt to 2 threads: {:.1} ns", start.elapsed().as_nanos() as f64 / rounds as f64);
}
