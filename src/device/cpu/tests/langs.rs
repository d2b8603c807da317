//! Kernels in C++, Rust and built objects: what builds, what does not and why, and that nothing mixes.

use super::*;
use crate::device::Text;
use crate::tensor::{Lang, Number};

impl Bench {
    /// A kernel in a file of that suffix.
    fn of(&self, file: &str, entry: &str, params: &[&str], text: &str) -> KernelSource {
        source(entry, params, Code::File(self.file(file, text)))
    }

    /// Links a shared object with the C compiler, as somebody else would.
    fn object(&self, name: &str, text: &str) -> PathBuf {
        let (input, output) = (self.file(&format!("{name}.c"), text), self.dir.path().join(name));
        fs::write(self.dir.path().join("runjob.h"), HEADER).unwrap();
        let status = std::process::Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&output, &input]).status().unwrap();
        assert!(status.success());
        output
    }
}

const CXX: &str = "#include <cstdint>\n#include <cstddef>\n\nextern \"C\" void saxpy(const float *__restrict x, float *__restrict y, float a, uint32_t n) {\n  for (size_t i = 0; i < n; ++i) y[i] += a * x[i];\n}\n";
const RUST: &str = "\n#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn saxpy(x: *const f32, y: *mut f32, a: f32, n: u32) {\n    for i in 0..n as usize { unsafe { *y.add(i) += a * *x.add(i) } }\n}\n";

fn saxpy(device: &mut CpuDevice, kernel: Kernel) -> Vec<f32> {
    let x = upload(device, bytemuck::cast_slice(&[1f32, 2.0, 3.0]));
    let y = upload(device, bytemuck::cast_slice(&[10f32, 20.0, 30.0]));
    let scalars = [Arg::Scalar(Word::Const(2f32.to_bits().into())), Arg::Scalar(Word::Const(3))];
    once(device, launch(kernel, [1; 3], [vec![Arg::In(all(x, 12)), Arg::Inout(all(y, 12))], scalars.to_vec()].concat()));
    bytemuck::pod_collect_to_vec::<u8, f32>(&download(device, y))
}

/// What a kernel that puts one number into `y` put there.
fn put(device: &mut CpuDevice, kernel: Kernel) -> i32 {
    let y = upload(device, &[0; 4]);
    once(device, launch(kernel, [1; 3], vec![Arg::Out(all(y, 4))]));
    i32::from_le_bytes(download(device, y).try_into().unwrap())
}

#[test]
fn a_kernel_in_every_language_runs_with_its_natural_signature() {
    let bench = Bench::new();
    let mut device = bench.open();
    for (file, text) in [
        ("a.cpp", CXX.to_string()),
        ("b.cc", CXX.replace("extern \"C\" ", "")),
        ("c.cxx", CXX.replace("extern \"C\" ", "static inline ")),
        // Of overloads and templates the one with the type of `params`.
        ("d.cpp", format!("{}\nvoid saxpy(double);\n", CXX.replace("extern \"C\" ", ""))),
        ("e.cpp", CXX.replace("extern \"C\" ", "template <class T> ").replace("float", "T")),
        ("f.cpp", CXX.replace("uint32_t n)", "uint32_t n) noexcept")),
        ("a.rs", RUST.to_string()),
        ("b.rs", RUST.replace("#[unsafe(no_mangle)]\npub ", "")),
        ("c.rs", RUST.replace("pub unsafe ", "").replace("#[unsafe(no_mangle)]", "#[unsafe(no_mangle)]\npub")),
        ("d.rs", format!("//! A kernel.\n#![allow(dead_code)] // why\n{RUST}")),
        ("e.rs", format!("\u{feff}{}", RUST.replace('\n', "\r\n"))),
        ("a.c", format!("\u{feff}{}", SAXPY.replace('\n', "\r\n"))),
    ] {
        let kernel = load(&mut device, &bench.of(file, "saxpy", &SAXPY_PARAMS, &text)).unwrap_or_else(|e| panic!("{file}: {e:?}"));
        assert_eq!(saxpy(&mut device, kernel), [12.0, 24.0, 36.0], "{file}");
    }
}

#[test]
fn params_that_disagree_are_an_error_that_names_both_types_in_every_language() {
    let bench = Bench::new();
    for params in [
        ["in f32 x", "inout f32 y", "f64 a", "u32 n"].as_slice(),
        &["inout f32 x", "inout f32 y", "f32 a", "u32 n"],
        &["in f32 x", "inout f32 y", "f32 a"],
        &["in f32x4 x", "inout f32 y", "f32 a", "u32 n"],
    ] {
        let (message, log) = build_failure(load(&mut bench.open(), &bench.of("saxpy.cpp", "saxpy", params, CXX)));
        assert_eq!(message, "kernel `saxpy`: the source disagrees with `params`", "{log}");
        assert!(log.contains("params of kernel `saxpy`") && log.contains("const float*, float*, float, uint32_t"), "{log}");
        let (message, log) = build_failure(load(&mut bench.open(), &bench.of("saxpy.rs", "saxpy", params, RUST)));
        assert_eq!(message, "kernel `saxpy`: the source disagrees with `params`", "{log}");
        assert!(log.contains("params of kernel `saxpy`") && log.contains("found fn item") && log.contains("expected fn pointer"), "{log}");
    }
}

#[test]
fn a_mistake_in_any_language_names_the_users_file_and_line() {
    let bench = Bench::new();
    for (file, text, line, says) in [
        ("k.cpp", CXX.replace("a * x", "b * x"), 5, "'b' was not declared"),
        ("k.rs", RUST.replace("a * *x", "b * *x"), 4, "cannot find value `b`"),
        // Copied, as it has an attribute of its own.
        ("l.rs", format!("#![allow(unused)]\n{}", RUST.replace("a * *x", "b * *x")), 5, "cannot find value `b`"),
    ] {
        let kernel = bench.of(file, "saxpy", &SAXPY_PARAMS, &text);
        let Code::File(path) = &kernel.code else { unreachable!() };
        let (message, log) = build_failure(load(&mut bench.open(), &kernel));
        assert!(message.starts_with(&format!("{}:{line}:", path.display())) && message.contains(says), "{message}\n{log}");
        assert!(!log.contains("work-"), "{log}");
    }
}

#[test]
fn a_missing_function_is_named_with_the_one_that_is_near_in_every_language() {
    let bench = Bench::new();
    for (file, text) in [("k.cpp", CXX), ("k.rs", RUST)] {
        let (message, _) = build_failure(load(&mut bench.open(), &bench.of(file, "saxpi", &SAXPY_PARAMS, text)));
        assert_eq!(message, "the source has no function `saxpi`; did you mean `saxpy`?");
    }
    let (message, _) = build_failure(load(&mut bench.open(), &bench.of("u.cpp", "k", &[], "void other(int);\nvoid k() { other(1); }")));
    assert_eq!(message, "`other(int)` is used and defined nowhere");
}

#[test]
fn kernels_with_the_same_symbols_do_not_mix_in_any_language() {
    let bench = Bench::new();
    let mut device = bench.open();
    let cxx = |value: i32| {
        format!(
            "#include <cstdint>\nint32_t counter = {value};\ninline int32_t *of() {{ static int32_t v = {value}; return &v; }}\n\
            template <class T> struct S {{ static T v; }}; template <class T> T S<T>::v = {value};\n\
            int32_t value() {{ return counter == *of() && S<int>::v == counter ? counter : -1; }}\n\
            extern \"C\" void put(int32_t *y) {{ y[0] = value(); }}\n"
        )
    };
    let rust = |value: i32| {
        format!(
            "#[unsafe(no_mangle)]\npub static COUNTER: i32 = {value};\n#[unsafe(no_mangle)]\npub fn value() -> i32 {{ COUNTER }}\n\
            #[unsafe(no_mangle)]\nextern \"C\" fn put(y: *mut i32) {{ unsafe {{ *y = value() }} }}\n"
        )
    };
    let c = |value: i32| {
        format!(
            "#include <stdint.h>\nint32_t counter = {value};\nint32_t value(void) {{ return counter; }}\nvoid put(int32_t *y) {{ y[0] = value(); }}\n"
        )
    };
    let mut kernels = Vec::new();
    for value in [1, 2] {
        for (file, text) in [("put.cpp", cxx(value)), ("put.rs", rust(value)), ("put.c", c(value))] {
            kernels.push((load(&mut device, &bench.of(file, "put", &["out i32 y"], &text)).unwrap(), value));
        }
        let object = bench.object(&format!("put{value}.so"), &c(value));
        kernels.push((load(&mut device, &source("put", &["out i32 y"], Code::File(object))).unwrap(), value));
        // Built anew in the same place.
        let again = bench.object("same.so", &c(value));
        kernels.push((load(&mut device, &source("put", &["out i32 y"], Code::File(again))).unwrap(), value));
    }
    for (kernel, want) in kernels.iter().chain(kernels.iter().rev()) {
        assert_eq!(put(&mut device, *kernel), *want);
    }
}

#[test]
fn one_object_has_several_kernels_and_one_of_them_several_names() {
    let bench = Bench::new();
    let mut device = bench.open();
    let object = bench.object("both.so", "void one(int *y) { *y = 1; }\nvoid two(int *y) { *y = 2; }\n");
    let mut named = |name: &str, entry: &str| {
        let mut kernel = source(name, &["out i32 y"], Code::File(object.clone()));
        kernel.entry = entry.into();
        load(&mut device, &kernel).unwrap()
    };
    let kernels = [named("a", "one"), named("b", "two"), named("c", "one")];
    assert_eq!(kernels.map(|kernel| put(&mut device, kernel)), [1, 2, 1]);
}

#[test]
fn a_built_object_that_has_the_header_knows_where_its_block_is() {
    let bench = Bench::new();
    let mut device = bench.open();
    let text = "#include \"runjob.h\"\nvoid k(uint32_t *y) {\n  uint32_t i = rj_block(0) + rj_grid(0) * rj_block(1);\n  y[i] = i + rj_block_dim(0); }\n";
    let mut kernel = source("k", &["out u32 y"], Code::File(bench.object("k.so", text)));
    kernel.block = [7, 1, 1];
    let id = load(&mut device, &kernel).unwrap();
    let y = upload(&mut device, &[0; 4 * 600]);
    once(&mut device, launch(id, [200, 3, 1], vec![Arg::Out(all(y, 2400))]));
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&download(&mut device, y)), (7..607).collect::<Vec<u32>>());
}

#[test]
fn rust_kernels_know_where_their_block_is_and_have_their_defines() {
    let bench = Bench::new();
    let mut device = bench.open();
    fs::write(bench.dir.path().join("helper.rs"), "pub fn double(x: u32) -> u32 { 2 * x }\n").unwrap();
    let text = "mod helper;\n#[unsafe(no_mangle)]\nunsafe extern \"C\" fn k(y: *mut u32) {\n\
        let i = runjob::block(0) + runjob::grid(0) * runjob::block(1);\n\
        unsafe { *y.add(i as usize) = helper::double(i) + runjob::block_dim(0) + OFFSET!() } }\n";
    let mut kernel = bench.of("k.rs", "k", &["out u32 y"], text);
    kernel.block = [7, 1, 1];
    kernel.defines = vec![("OFFSET".into(), "5".into())];
    let id = load(&mut device, &kernel).unwrap();
    let y = upload(&mut device, &[0; 4 * 600]);
    once(&mut device, launch(id, [200, 3, 1], vec![Arg::Out(all(y, 2400))]));
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&download(&mut device, y)), (0..600).map(|i| 2 * i + 12).collect::<Vec<u32>>());
    // A module beside the file is part of what the object is made from.
    fs::write(bench.dir.path().join("helper.rs"), "pub fn double(x: u32) -> u32 { 3 * x }\n").unwrap();
    let mut device = bench.open();
    load(&mut device, &kernel).unwrap();
    assert_eq!(device.builds().compiles, 1);
}

#[test]
fn what_is_no_object_or_lacks_the_function_is_named() {
    let bench = Bench::new();
    let fails = |path: PathBuf, entry: &str| build_failure(load(&mut bench.open(), &source(entry, &["out i32 y"], Code::File(path)))).0;
    let object = bench.object("o.so", "int data;\nvoid put(int *y) { *y = 1; }\nvoid other(int *y) { *y = 1; }\n");
    let shown = object.display().to_string();
    assert_eq!(fails(object.clone(), "pat"), format!("`{shown}` has no function `pat`; did you mean `put`?"));
    // Those of the libraries that it needs are not its own, and neither is data a function.
    assert_eq!(fails(object.clone(), "perror"), format!("`{shown}` has no function `perror`; it has `other`, `put`"));
    assert_eq!(fails(object.clone(), "data"), format!("`{shown}` has no function `data`; it has `other`, `put`"));
    let text = bench.file("text.so", "no object");
    assert!(fails(text.clone(), "put").starts_with(&format!("`{}` is not a shared object", text.display())));
    let mut foreign = fs::read(&object).unwrap();
    // The machine of an ELF file: 64-bit PowerPC.
    foreign[18..20].copy_from_slice(&21u16.to_le_bytes());
    fs::write(bench.dir.path().join("foreign.so"), &foreign).unwrap();
    let message = fails(bench.dir.path().join("foreign.so"), "put");
    assert!(message.contains("is built for PowerPc64,"), "{message}");
    foreign.truncate(100);
    fs::write(bench.dir.path().join("cut.so"), &foreign).unwrap();
    assert!(fails(bench.dir.path().join("cut.so"), "put").contains("is not a shared object"));
    let needs = bench.object("needs.so", "void elsewhere(void);\nvoid put(int *y) { elsewhere(); *y = 1; }\n");
    let message = fails(needs, "put");
    assert!(message.contains("elsewhere"), "{message}");
}

#[test]
fn text_has_its_language_and_its_place() {
    let bench = Bench::new();
    let text = |text: &str, lang, line| {
        let path = bench.dir.path().join("spec.toml");
        source("saxpy", &SAXPY_PARAMS, Code::Text(Text { text: text.into(), lang, path, line }))
    };
    for (source, lang) in [(SAXPY, None), (SAXPY, Some(Lang::C)), (CXX, Some(Lang::Cxx)), (RUST, Some(Lang::Rust))] {
        let mut device = bench.open();
        let kernel = load(&mut device, &text(source, lang, Some(12))).unwrap();
        assert_eq!(saxpy(&mut device, kernel), [12.0, 24.0, 36.0], "{lang:?}");
    }
    let spec = bench.dir.path().join("spec.toml").display().to_string();
    for (source, lang, line) in [(SAXPY, Lang::C, 4), (CXX, Lang::Cxx, 5), (RUST, Lang::Rust, 4)] {
        let wrong = source.replace("+=", "+ =");
        let (message, log) = build_failure(load(&mut bench.open(), &text(&wrong, Some(lang), Some(12))));
        assert!(message.starts_with(&format!("{spec}:{}:", line + 11)), "{message}\n{log}");
        let (message, log) = build_failure(load(&mut bench.open(), &text(&wrong, Some(lang), None)));
        assert!(message.starts_with(&format!("text of kernel `saxpy`:{line}:")), "{message}\n{log}");
    }
}

#[test]
fn a_language_without_a_compiler_says_what_was_tried_and_what_to_install() {
    let bench = Bench::new();
    let none = || Some(vec!["/nonexistent/compiler".to_string()]);
    let options = CpuOptions { cxx_compilers: none(), rust_compilers: none(), ..bench.options() };
    let mut device = open(options).unwrap();
    for (file, what, variable) in [("k.cpp", "no C++ compiler", "RUNJOB_CXX"), ("k.rs", "no Rust compiler", "RUNJOB_RUSTC")] {
        let Err(DeviceError::Unsupported(message)) = load(&mut device, &bench.of(file, "k", &[], "")) else { panic!() };
        assert!(message.starts_with(what) && message.contains("`/nonexistent/compiler`") && message.contains("install"), "{message}");
        assert!(message.contains(variable), "{message}");
    }
    let found: Vec<bool> = device.tools().iter().map(|tool| tool.found.is_some()).collect();
    assert_eq!(found, [true, false, false]);
    let object = bench.object("o.so", "void k(void) {}\n");
    let mut device = open(CpuOptions { compilers: none(), ..bench.options() }).unwrap();
    let Err(DeviceError::Unsupported(message)) = load(&mut device, &source("k", &[], Code::File(object))) else { panic!() };
    assert!(message.contains("is built, but how it is called has to be compiled: no C compiler"), "{message}");
}

/// What a type is called in C, C++ and Rust.
fn spellings(dtype: Dtype, lanes: u32) -> [String; 2] {
    let lanes_of = |name: String| if lanes == 1 || lanes == 3 { name } else { format!("{name}x{lanes}") };
    let plain = !matches!(dtype, Dtype::F16 | Dtype::Bf16) && !dtype.name().starts_with("f8");
    let rust = if plain && (lanes == 1 || lanes == 3) { dtype.to_string() } else { format!("runjob::{}", lanes_of(dtype.to_string())) };
    [lanes_of(format!("rj_{dtype}")), rust]
}

/// Every lane count with every access, by value where it fits, and as scratch: the kernel copies through all of them. The
/// sizes and alignments are what the generated part asserts: it builds.
#[test]
fn every_dtype_with_every_access_and_lanes_is_what_the_kernel_sees_in_every_language() {
    let bench = Bench::new();
    let mut device = bench.open();
    for dtype in Dtype::ALL {
        let (mut params, mut c_params, mut rust_params) = (Vec::new(), Vec::new(), Vec::new());
        let (mut c_body, mut rust_body) = (String::new(), String::new());
        let (mut args, mut expected) = (Vec::new(), Vec::new());
        for lanes in [1usize, 2, 3, 4, 8, 16] {
            let bytes = dtype.size() * lanes;
            let by_value = lanes != 3 && bytes <= 8;
            let [c, rust] = spellings(dtype, lanes as u32);
            let ty = if lanes == 1 { dtype.to_string() } else { format!("{dtype}x{lanes}") };
            params.extend([
                format!("in {ty} x{lanes}"),
                format!("out {ty} y{lanes}"),
                format!("inout {ty} z{lanes}"),
                format!("local {ty}[3] t{lanes}"),
            ]);
            c_params.push(format!("const {c} *x{lanes}, {c} *y{lanes}, {c} *z{lanes}, {c} *t{lanes}"));
            rust_params.push(format!("x{lanes}: *const {rust}, y{lanes}: *mut {rust}, z{lanes}: *mut {rust}, t{lanes}: *mut {rust}"));
            if by_value {
                params.push(format!("{ty} s{lanes}"));
                c_params.push(format!("{c} s{lanes}"));
                rust_params.push(format!("s{lanes}: {rust}"));
            }
            let each = if lanes == 3 { 3 } else { 1 };
            let (c_value, rust_value) = match by_value {
                true => (format!("s{lanes}"), format!("s{lanes}")),
                false => (format!("x{lanes}[i]"), format!("*x{lanes}.add(i)")),
            };
            c_body += &format!(
                "for (int i = 0; i < {each}; ++i) {{ {c} old = z{lanes}[i]; t{lanes}[i] = x{lanes}[i]; y{lanes}[i] = t{lanes}[i]; \
                 z{lanes}[i] = {c_value}; y{lanes}[i + {each}] = old; }}\n"
            );
            rust_body += &format!(
                "for i in 0..{each} {{ let old = *z{lanes}.add(i); *t{lanes}.add(i) = *x{lanes}.add(i); *y{lanes}.add(i) = *t{lanes}.add(i); \
                 *z{lanes}.add(i) = {rust_value}; *y{lanes}.add(i + {each}) = old; }}\n"
            );
            let value = |n: usize| {
                let mut one = vec![0; bytes];
                (0..lanes).for_each(|lane| dtype.store(&mut one, lane, dtype.encode(Number::Int(((n + lane) % 2) as i128)).unwrap()));
                one
            };
            let (x, y, z) = (upload(&mut device, &value(0)), upload(&mut device, &vec![0x55; 2 * bytes]), upload(&mut device, &value(1)));
            args.extend([Arg::In(all(x, bytes)), Arg::Out(all(y, 2 * bytes)), Arg::Inout(all(z, bytes))]);
            if by_value {
                let mut word = [0u8; 8];
                word[..bytes].copy_from_slice(&value(0));
                args.push(Arg::Scalar(Word::Const(u64::from_le_bytes(word))));
            }
            expected.push((lanes, y, z, value(0), value(1)));
        }
        let c = format!("#include <runjob.h>\nvoid k({}) {{\n{c_body}}}\n", c_params.join(", "));
        let rust = format!("unsafe extern \"C\" fn k({}) {{ unsafe {{\n{rust_body}}} }}\n", rust_params.join(", "));
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        for (suffix, text) in [("c", &c), ("cpp", &c), ("rs", &rust)] {
            let kernel = bench.of(&format!("{dtype}.{suffix}"), "k", &params, text);
            let id = load(&mut device, &kernel).unwrap_or_else(|e| panic!("{dtype} in {suffix}: {e:?}"));
            once(&mut device, launch(id, [1; 3], args.clone()));
            for (lanes, y, z, first, second) in &expected {
                assert_eq!(download(&mut device, *y), [first.clone(), second.clone()].concat(), "{dtype}x{lanes} in {suffix}");
                assert_eq!(&download(&mut device, *z), first, "{dtype}x{lanes} in {suffix}");
                // As it was, for the next language.
                let mut mapped = device.map(*z).unwrap();
                mapped.copy_from_slice(second);
                device.unmap(mapped).unwrap();
                let mut mapped = device.map(*y).unwrap();
                mapped.fill(0x55);
                device.unmap(mapped).unwrap();
            }
        }
    }
}

/// The conversions of Rust's module are those of the host.
#[test]
fn narrow_floats_of_rust_kernels_convert_as_the_host_does() {
    let bench = Bench::new();
    let mut device = bench.open();
    for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.is_float() && dtype.size() <= 2) {
        let count = 1usize << (8 * dtype.size());
        let text = format!(
            "extern \"C\" fn k(x: *const runjob::{dtype}, f: *mut f32, g: *const f32, y: *mut runjob::{dtype}, n: u32) {{\n\
            for i in 0..n as usize {{ unsafe {{ *f.add(i) = (*x.add(i)).to_f32(); *y.add(i) = runjob::{dtype}::from_f32(*g.add(i)); }} }} }}\n"
        );
        let ty = dtype.name();
        let params = [format!("in {ty} x"), "out f32 f".into(), "in f32 g".into(), format!("out {ty} y"), "u32 n".into()];
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        let kernel = load(&mut device, &bench.of(&format!("{dtype}.rs"), "k", &params, &text)).unwrap();
        let mut patterns = vec![0; count * dtype.size()];
        (0..count).for_each(|i| dtype.store(&mut patterns, i, i as u64));
        // Every value, the middle to the next one up, and a bit beside the middle.
        let value = |bits: usize| match dtype.decode(bits as u64) {
            Number::Float(f) => f,
            Number::Int(i) => i as f64,
        };
        let floats: Vec<f32> = (0..count)
            .map(|i| {
                let next = value((i + 1) % count);
                let middle = ((value(i) + next) / 2.0) as f32;
                match i % 4 {
                    0 => value(i) as f32,
                    1 => middle,
                    2 => f32::from_bits(middle.to_bits().wrapping_add(1)),
                    _ => f32::from_bits(middle.to_bits().wrapping_sub(1)),
                }
            })
            .collect();
        let x = upload(&mut device, &patterns);
        let (f, g) = (upload(&mut device, &vec![0; 4 * count]), upload(&mut device, bytemuck::cast_slice(&floats)));
        let y = upload(&mut device, &vec![0; count * dtype.size()]);
        let args = vec![
            Arg::In(all(x, patterns.len())),
            Arg::Out(all(f, 4 * count)),
            Arg::In(all(g, 4 * count)),
            Arg::Out(all(y, patterns.len())),
            Arg::Scalar(Word::Const(count as u64)),
        ];
        once(&mut device, launch(kernel, [1; 3], args));
        let f = bytemuck::pod_collect_to_vec::<u8, f32>(&download(&mut device, f));
        let y = download(&mut device, y);
        for i in 0..count {
            let (want, got) = (value(i) as f32, f[i]);
            assert!(want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan(), "{dtype} {i:#x}: {got}, not {want}");
            let want = dtype.encode(Number::Float(floats[i].into())).unwrap();
            let got = dtype.load(&y, i);
            let both_nan = floats[i].is_nan() && value(got as usize).is_nan();
            assert!(want == got || both_nan, "{dtype} of {}: {got:#x}, not {want:#x}", floats[i]);
        }
    }
}
