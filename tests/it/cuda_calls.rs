//! Calls of the CUDA driver that jobs make: a round makes few and no object, all that is made is given back, and in whatever
//! order the driver runs what may run side by side, the verdict is the same.

use std::collections::BTreeMap;

use super::cuda_faults::{Bench, spec};

/// Sets a fill's word: once for each of the two that alternate, in each graph. Some graphs serve few rounds, and are first
/// used late.
const SETS_WORD: &str = "cuGraphExecMemsetNodeSetParams";

/// How often each function is called in the rounds from the `few`-th to the `many`-th. *Panics* where one is called less.
fn between(bench: &Bench, write: impl Fn(u64) -> String, args: &[&str], few: u64, many: u64) -> BTreeMap<String, usize> {
    let run = |count: u64| {
        let name = format!("of_{count}.toml");
        bench.write(&name, &write(count));
        let ended = bench.passes(&[&[name.as_str(), "--device", "cuda"], args].concat(), &[]);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        ended.log.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
        counts
    };
    let (before, mut after) = (run(few), run(many));
    for (name, times) in before {
        if name == SETS_WORD {
            continue;
        }
        let more = after.get_mut(&name).unwrap_or_else(|| panic!("{name} is not called any more"));
        *more = more.checked_sub(times).unwrap_or_else(|| panic!("{name} is called less"));
    }
    after.retain(|_, times| *times > 0);
    after
}

/// A tensor that rounds hand on.
fn carried(count: u64) -> String {
    format!(
        "[kernels.add]\nparams = [\"in f32 x\", \"inout f32 s\", \"out f32 y\"]\nsource = \"carried.cu\"\nblock = [8]\n\
         [tensors]\nx = {{ dtype = \"f32\", shape = [64], each_round = {{ uniform = {{}} }} }}\n\
         s = {{ dtype = \"f32\", shape = [64], data = {{ uniform = {{}} }}, carry = true }}\n\
         y = {{ dtype = \"f32\", shape = [64] }}\n[[steps]]\nkernel = \"add\"\ngrid = [8]\n[rounds]\ncount = {count}\n\
         [[checks]]\ntensor = \"y\"\nexpect = \"2 * x\"\n[[checks]]\ntensor = \"s\"\nexpect = \"s + x\"\n"
    )
}

const CARRIED: &str = r#"extern "C" __global__ void add(const float *x, float *s, float *y) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    s[i] = s[i] + x[i];
    y[i] = 2.0f * x[i];
}
"#;

/// Rounds at the end, of which the calls are counted.
const ROUNDS: u64 = 50;

#[test]
fn a_round_makes_at_most_four_calls_and_no_object() {
    let Some(bench) = Bench::new() else { return };
    bench.write("carried.cu", CARRIED);
    let fixed: &dyn Fn(u64) -> String = &|count| spec("3", count);
    let by_value: &dyn Fn(u64) -> String = &|count| spec("a", count);
    let plain = &["cuGraphLaunch", "cuStreamSynchronize"][..];
    let scalar = &["cuGraphExecKernelNodeSetParams_v2", "cuGraphLaunch", "cuStreamSynchronize"][..];
    let timed = &["cuEventElapsedTime", "cuGraphLaunch", "cuStreamSynchronize"][..];
    let handed_on = &["cuEventRecord", "cuGraphLaunch", "cuStreamSynchronize", "cuStreamWaitEvent"][..];
    for (write, args, want) in [
        (fixed, &["--slots", "1", "--trust", "fast"][..], plain),
        (fixed, &["--slots", "3", "--trust", "fast"], plain),
        // Outputs hold another word in every round.
        (fixed, &["--slots", "1"], plain),
        (fixed, &["--slots", "3"], plain),
        (by_value, &["--slots", "1"], scalar),
        (by_value, &["--slots", "3"], scalar),
        (fixed, &["--slots", "2", "--device-times"], timed),
        (&carried, &["--slots", "3"], handed_on),
    ] {
        let args = [args, &["--batch", "1"]].concat();
        let mut calls = between(&bench, write, &args, 40, 40 + ROUNDS);
        let words = calls.remove(SETS_WORD).unwrap_or(0);
        // Two words, two graphs in each slot.
        assert!(words <= 2 * 2 * 3, "{args:?}: {words} words set");
        let names: Vec<&str> = calls.keys().map(String::as_str).collect();
        assert!(names.iter().all(|name| want.contains(name)), "{args:?}: {calls:?}");
        assert!(calls.values().all(|times| *times <= ROUNDS as usize), "{args:?}: {calls:?}");
        assert!(calls.values().sum::<usize>() <= 4 * ROUNDS as usize, "{args:?}: {calls:?}");
    }
}

#[test]
fn rounds_that_are_submitted_at_once_make_the_calls_of_one() {
    let Some(bench) = Bench::new() else { return };
    for slots in ["1", "3"] {
        let mut calls = between(&bench, |count| spec("3", count), &["--slots", slots, "--batch", "5"], 40, 40 + ROUNDS);
        calls.remove(SETS_WORD);
        let want = ["cuGraphLaunch", "cuStreamSynchronize"].map(|name| (name.to_string(), ROUNDS as usize / 5));
        assert_eq!(calls, want.into(), "{slots} slots");
    }
}

#[test]
fn what_is_made_is_given_back() {
    let Some(bench) = Bench::new() else { return };
    for args in [
        &["fixed.toml", "--slots", "3"][..],
        &["by_value.toml", "--slots", "1"],
        &["by_value.toml", "--device-times"],
        &["fixed.toml", "--fresh"],
    ] {
        let ended = bench.passes(&[args, &["--device", "cuda"]].concat(), &[]);
        for (made, given_back) in [
            ("cuMemAlloc_v2", "cuMemFree_v2"),
            ("cuMemHostAlloc", "cuMemFreeHost"),
            ("cuGraphCreate", "cuGraphDestroy"),
            ("cuGraphInstantiateWithFlags", "cuGraphExecDestroy"),
            ("cuStreamCreate", "cuStreamDestroy_v2"),
            ("cuEventCreate", "cuEventDestroy_v2"),
            ("cuModuleLoadDataEx", "cuModuleUnload"),
            ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2"),
        ] {
            let (made, given_back) = (ended.times(made), ended.times(given_back));
            assert!(made > 0 && made == given_back, "{args:?}: {made} made, {given_back} given back: {:?}", ended.log);
        }
    }
}

/// Four chains of two steps, and a step that takes what all of them give.
fn chains() -> (String, String) {
    let source = r#"extern "C" __global__ void times(const float *x, float *y, float a) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = a * x[i];
}
extern "C" __global__ void sum(const float *p, const float *q, const float *r, const float *s, float *y) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = p[i] + q[i] + r[i] + s[i];
}
"#;
    let mut text = "[kernels.times]\nparams = [\"in f32 x\", \"out f32 y\", \"f32 a\"]\nsource = \"chains.cu\"\nblock = [8]\n\
         [kernels.sum]\nparams = [\"in f32 p\", \"in f32 q\", \"in f32 r\", \"in f32 s\", \"out f32 y\"]\nsource = \"chains.cu\"\nblock = [8]\n\
         [tensors]\nx = { dtype = \"f32\", shape = [64], each_round = { uniform = {} } }\ny = { dtype = \"f32\", shape = [64] }\n"
        .to_string();
    for of in ["p", "q", "r", "s"] {
        text += &format!("{of} = {{ dtype = \"f32\", shape = [64] }}\n{of}2 = {{ dtype = \"f32\", shape = [64] }}\n");
    }
    for (step, a) in [("x", 2), ("", 3)] {
        for of in ["p", "q", "r", "s"] {
            let (from, to) = if step == "x" { ("x".to_string(), of.to_string()) } else { (of.to_string(), format!("{of}2")) };
            text += &format!("[[steps]]\nkernel = \"times\"\ngrid = [8]\nargs = {{ x = \"{from}\", y = \"{to}\", a = {a} }}\n");
        }
    }
    text += "[[steps]]\nkernel = \"sum\"\ngrid = [8]\nargs = { p = \"p2\", q = \"q2\", r = \"r2\", s = \"s2\" }\n[rounds]\ncount = 12\n\
         [[checks]]\ntensor = \"y\"\nexpect = \"24 * x\"\n";
    (source.to_string(), text)
}

/// That the simulation finds an edge that is missing is shown by `missing_edges_of_a_graph_are_seen` and by the conformance
/// list, which leaves waits out.
#[test]
fn the_order_of_what_may_run_side_by_side_changes_no_verdict() {
    let Some(bench) = Bench::new() else { return };
    let (source, text) = chains();
    bench.write("chains.cu", &source);
    bench.write("chains.toml", &text);
    bench.write("carried.cu", CARRIED);
    bench.write("carried.toml", &carried(12));
    for seed in ["1", "2", "3", "4", "5"] {
        for (slots, delay) in [("1", "0"), ("3", "200")] {
            for name in ["chains.toml", "carried.toml"] {
                bench.passes(&[name, "--device", "cuda", "--slots", slots], &[("SIM_CUDA_SEED", seed), ("SIM_CUDA_DELAY_US", delay)]);
            }
        }
    }
}
