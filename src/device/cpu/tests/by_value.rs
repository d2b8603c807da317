//! Structs, lanes and null pointers as arguments; offsets, shared bytes and kernels that are not re-entrant.

use super::*;
use crate::tensor::{Dtype, Number};

fn word(dtype: Dtype, number: Number) -> Word {
    Word::Const(dtype.encode(number).unwrap())
}

/// The offsets that the compiler gives the fields of a struct, and its size, as the kernel sees them.
fn offsets_of(bench: &Bench, param: &str, fields: &[(&str, &str)]) -> Vec<u64> {
    let mut device = bench.open();
    let declared: String = fields.iter().map(|(ty, name)| format!("{ty} {name}; ")).collect();
    let stores: String = fields.iter().enumerate().map(|(i, (_, name))| format!("o[{i}] = offsetof(struct s, {name}); ")).collect();
    let n = fields.len();
    let text =
        format!("#include <runjob.h>\nstruct s {{ {declared} }};\nvoid k(uint64_t *o, struct s p) {{ {stores} o[{n}] = sizeof p; }}\n");
    let kernel = load(&mut device, &bench.kernel("k", &["out u64 o", param], &text)).unwrap();
    let o = upload(&mut device, &vec![0; 8 * (n + 1)]);
    let ParamKind::Struct(layout) = Param::parse(param).unwrap().kind else { panic!("{param}") };
    let words = layout.places().map(|_| Word::Const(0)).collect();
    once(&mut device, launch(kernel, [1; 3], vec![Arg::Out(all(o, 8 * (n + 1))), Arg::Struct(words)]));
    bytemuck::pod_collect_to_vec(&download(&mut device, o))
}

#[test]
fn structs_are_laid_out_as_the_compiler_does() {
    let bench = Bench::new();
    let dtypes: Vec<&str> = Dtype::ALL.iter().map(|d| d.name()).collect();
    // Every dtype behind a byte, with every number of lanes.
    for lanes in ["", "x2", "x4", "x8", "x16"] {
        let names: Vec<String> = dtypes.iter().map(|d| format!("v_{d}")).collect();
        let pads: Vec<String> = dtypes.iter().map(|d| format!("p_{d}")).collect();
        let types: Vec<String> = dtypes.iter().map(|d| format!("rj_{d}{lanes}")).collect();
        let mut fields: Vec<(&str, &str)> = Vec::new();
        let mut param = String::new();
        for i in 0..dtypes.len() {
            fields.extend([("uint8_t", pads[i].as_str()), (types[i].as_str(), names[i].as_str())]);
            param += &format!("u8 {}, {}{lanes} {}, ", pads[i], dtypes[i], names[i]);
        }
        let param = format!("struct s {{ {} }} p", param.trim_end_matches(", "));
        let ParamKind::Struct(layout) = Param::parse(&param).unwrap().kind else { panic!("{param}") };
        let want: Vec<u64> = layout.fields.iter().map(|f| f.offset).chain([layout.size]).collect();
        assert_eq!(offsets_of(&bench, &param, &fields), want, "{param}");
    }
}

#[test]
fn struct_fields_and_lanes_reach_the_kernel_fixed_and_variable() {
    let bench = Bench::new();
    let mut device = bench.open();
    let text = "#include <runjob.h>\nstruct dims { uint8_t a; float v[3]; rj_f32x4 w; int64_t n; _Bool b; };\n\
        void k(struct dims p, rj_i16x4 s, double *y) {\n\
        y[0] = p.a; y[1] = p.v[2]; y[2] = p.w[3]; y[3] = (double)p.n; y[4] = p.b; y[5] = s[3]; y[6] = p.w[0]; }\n";
    let params = ["struct dims { u8 a, f32x3 v, f32x4 w, i64 n, bool b } p", "i16x4 s", "out f64 y"];
    let kernel = load(&mut device, &bench.kernel("k", &params, text)).unwrap();
    let y = upload(&mut device, &[0; 56]);
    let f = |x: f64| Number::Float(x);
    let floats = [1.0, 2.0, 3.5, 4.0, 5.0, 6.0, 7.25].map(|x| word(Dtype::F32, f(x)));
    let mut fields = vec![word(Dtype::U8, Number::Int(200))];
    fields.extend(floats);
    fields.extend([Word::Var(1), Word::Var(2)]);
    fields[4] = Word::Var(0);
    let lanes = vec![Word::Const(0), Word::Const(0), Word::Const(0), Word::Var(3)];
    let node = launch(kernel, [1; 3], vec![Arg::Struct(fields), Arg::Struct(lanes), Arg::Out(all(y, 56))]);
    let graph = device.record(&[node]).unwrap();
    for (queue, n, b, s) in [(0, -5i64, 1, -300i16), (1, i64::MAX, 0, 77), (0, 9, 1, 1)] {
        let vars = [u64::from(0.5f32.to_bits()), n as u64, b, u64::from(s as u16) | 0xabcd << 16];
        let point = device.replay(Queue(queue), &[], graph, &vars).unwrap();
        device.wait(point).unwrap();
        let got: Vec<f64> = bytemuck::pod_collect_to_vec(&download(&mut device, y));
        assert_eq!(got, [200.0, 3.5, 7.25, n as f64, b as f64, s.into(), 0.5]);
    }
}

#[test]
fn a_struct_of_the_source_that_differs_is_named_with_its_field_and_both_offsets() {
    let bench = Bench::new();
    let mut device = bench.open();
    let mut fails = |fields: &str| {
        let text = format!("#include <runjob.h>\nstruct dims {{ {fields} }};\nvoid k(struct dims p) {{ (void)p; }}\n");
        let result = load(&mut device, &bench.kernel("k", &["struct dims { u32 m, f32 alpha } p"], &text));
        let (message, log) = build_failure(result);
        format!("{message}\n{log}")
    };
    for (fields, part) in [
        ("uint32_t m; float beta, alpha;", "parameter `p`: field `alpha` of `struct dims` is at byte 8 in the source, at byte 4 by params"),
        ("float alpha; uint32_t m;", "parameter `p`: field `m` of `struct dims` is at byte 4 in the source, at byte 0 by params"),
        ("uint32_t m; double alpha;", "field `alpha` of `struct dims` is not `float` in the source, as `f32 alpha` in params says"),
        ("uint32_t m; float pad[100], alpha;", "field `alpha` of `struct dims` is not at byte 4 as by params"),
        ("uint32_t m; float alpha, beta;", "the 8 bytes by params"),
        ("uint32_t m;", "alpha"),
    ] {
        let text = fails(fields);
        assert!(text.contains(part), "{fields}: {text}");
    }
    let tagless = bench.kernel("k", &["struct { u32 m } p"], "void k(void) {}\n");
    assert!(build_failure(load(&mut device, &tagless)).0.contains("a struct without a tag has no type in C"));
    let three = bench.kernel("k", &["f32x3 v"], "void k(void) {}\n");
    assert!(build_failure(load(&mut device, &three)).0.contains("struct tag { f32x3 v } v"));
}

#[test]
fn null_agrees_with_any_pointer_and_all_else_is_still_compared() {
    let bench = Bench::new();
    let mut device = bench.open();
    for ty in ["void *", "const void *", "const float *restrict ", "rj_f32x4 *", "rj_bf16 *", "const char *", "uint8_t *const "] {
        let text = format!("#include <runjob.h>\nvoid k({ty}a, uint32_t *y, {ty}b) {{ y[0] = !a + 2 * !b; }}\n");
        let kernel = load(&mut device, &bench.kernel("k", &["null", "out u32 y", "null"], &text)).unwrap();
        let y = upload(&mut device, &[0; 4]);
        once(&mut device, launch(kernel, [1; 3], vec![Arg::Null, Arg::Out(all(y, 4)), Arg::Null]));
        assert_eq!(download(&mut device, y), [3, 0, 0, 0], "{ty}");
    }
    for declared in ["void k(int a, uint32_t *y)", "void k(void *a, float *y)", "void k(void *a)"] {
        let text = format!("#include <runjob.h>\n{declared} {{ (void)a; }}\n");
        let result = load(&mut device, &bench.kernel("k", &["null", "out u32 y"], &text));
        assert!(build_failure(result).0.contains("disagrees with `params`"), "{declared}");
    }
}

#[test]
fn offsets_and_shared_bytes_are_told() {
    let bench = Bench::new();
    let mut device = bench.open();
    let text = "#include <runjob.h>\nvoid k(uint32_t *y, uint32_t *t) {\n\
        uint32_t *s = rj_shared(), me = rj_block(0), ok = (uintptr_t)s % 64 == 0 && (char *)t - (char *)s == 128;\n\
        for (int i = 0; i < 25; ++i) s[i] = t[i] = me;\n  for (int i = 0; i < 25; ++i) ok = ok && s[i] == me;\n\
        y[me] = ok ? rj_offset(0) + 1000 * rj_offset(1) + 1000000 * rj_offset(2) + me : 0; }\n";
    let mut kernel = bench.kernel("k", &["out u32 y", "local u32[25] t"], text);
    kernel.shared = 100;
    let id = load(&mut device, &kernel).unwrap();
    let y = upload(&mut device, &[0; 1600]);
    let mut node = launch(id, [400, 1, 1], vec![Arg::Out(all(y, 1600))]);
    let Cmd::Launch { offset, .. } = &mut node.cmd else { panic!() };
    *offset = [Word::Var(0), Word::Const(3), Word::Const(4)];
    let graph = device.record(&[node]).unwrap();
    for start in [0u64, 17] {
        let point = device.replay(Queue(0), &[], graph, &[start]).unwrap();
        device.wait(point).unwrap();
        let want: Vec<u32> = (0..400).map(|i| start as u32 + 4_003_000 + i).collect();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&download(&mut device, y)), want);
    }
    assert!(matches!(device.replay(Queue(0), &[], graph, &[1 << 32]), Err(DeviceError::Failed { node: Some(0), .. })));
    kernel.shared = 5 << 30;
    assert!(build_failure(load(&mut device, &kernel)).0.contains("`shared` of 5368709120 bytes is larger than 4 GiB"));
}

/// Each block appends its place to a static list: blocks that ran out of order, or two launches at a time, would show.
#[test]
fn a_serial_kernel_runs_its_blocks_in_order_and_alone() {
    let bench = Bench::new();
    let mut device = bench.open();
    let text = "#include <runjob.h>\nstatic uint32_t next, inside;\nvoid k(uint32_t *y) {\n\
        y[0] += __atomic_fetch_add(&inside, 1, __ATOMIC_SEQ_CST);\n  if (rj_block(0) == 0) next = 0;\n\
        y[0] += next++ != rj_block(0);\n  for (volatile int i = 0; i < 50; ++i) { }\n\
        __atomic_fetch_sub(&inside, 1, __ATOMIC_SEQ_CST);\n  ++y[1]; }\n";
    let kernel = KernelSource { serial: true, ..bench.kernel("k", &["inout u32 y"], text) };
    let kernel = load(&mut device, &kernel).unwrap();
    let outs: Vec<Mem> = (0..3).map(|_| upload(&mut device, &[0; 8])).collect();
    let graphs: Vec<Graph> =
        outs.iter().map(|&y| device.record(&[launch(kernel, [5000, 1, 1], vec![Arg::Inout(all(y, 8))])]).unwrap()).collect();
    let mut points = Vec::new();
    for _ in 0..4 {
        for (queue, &graph) in graphs.iter().enumerate() {
            points.push(device.replay(Queue(queue as u32 + 1), &[], graph, &[]).unwrap());
        }
    }
    points.into_iter().for_each(|point| device.wait(point).unwrap());
    for y in outs {
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&download(&mut device, y)), [0, 20_000]);
    }
}

#[test]
fn an_entry_that_is_a_word_of_c_is_refused() {
    let bench = Bench::new();
    let kernel = KernelSource { entry: "register".into(), ..bench.kernel("k", &[], "void k(void) {}\n") };
    assert!(build_failure(load(&mut bench.open(), &kernel)).0.contains("`register` is a word of C"));
}
