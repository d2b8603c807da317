//! One job on several devices: a report for each, and one for every two of them.

use std::path::Path;

use super::devices::has_opencl;
use super::verdicts::{runjob, text};

fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = runjob().env_remove("RUNJOB_REQUIRE").current_dir(folder).args(args).output().unwrap();
    (output.status.code(), text(&output))
}

/// A spec that doubles, on the CPU and on OpenCL by another factor.
fn spec(folder: &Path, name: &str, devices: &str, factor: &str, check: &str) {
    let cl = format!("kernel void twice(global const float *x, global float *y) {{ size_t i = get_group_id(0); y[i] = {factor}; }}");
    let text = format!(
        "name = \"{name}\"\ndevices = {devices}\n[kernels.twice]\nparams = [\"in f32 x\", \"out f32 y\"]\n\
         source.cpu.text = '''\n#include <runjob.h>\nvoid twice(const float *x, float *y) {{ unsigned i = rj_block(0); y[i] = 2 * x[i]; }}\n'''\n\
         source.opencl.text = '''\n{cl}\n'''\nsource.cuda.text = 'none'\nsource.wgpu.text = 'none'\n[tensors]\n\
         x = {{ dtype = \"f32\", shape = [70], each_round = {{ uniform = {{ low = 1.0, high = 2.0 }} }} }}\n\
         y = {{ dtype = \"f32\", shape = [70] }}\n\
         [[steps]]\nkernel = \"twice\"\ngrid = [70]\n[rounds]\ncount = 20\n[[checks]]\ntensor = \"y\"\nexpect = \"2 * x\"\n{check}"
    );
    std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
}

const TWO: &str = "[\"cpu\", \"opencl\"]";

#[test]
fn devices_that_agree_pass_with_every_round_compared() {
    if !has_opencl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "same", TWO, "2 * x[i]", "exact = true\n");
    for more in [&[][..], &["--fresh"], &["--slots", "3", "--host", "pool", "--contract"], &["--in-process"], &["--discrete"]] {
        let (code, printed) = run(folder, &[&["same.toml"], more].concat());
        assert_eq!(code, Some(0), "{more:?}: {printed}");
        for line in
            ["pass same [cpu]: 20 rounds", "pass same [opencl]: 20 rounds", "pass same [cpu ~ opencl]: 20 rounds, every one compared"]
        {
            assert!(printed.contains(line), "{more:?}: no `{line}`: {printed}");
        }
        assert!(printed.contains("3 jobs: 3 pass"), "{printed}");
    }
    // The command line beats the spec, and `all` is all that is there.
    let (code, printed) = run(folder, &["same.toml", "--device", "opencl", "--device", "cpu"]);
    assert!(code == Some(0) && printed.contains("pass same [opencl ~ cpu]: 20 rounds"), "{printed}");
    let (code, printed) = run(folder, &["same.toml", "--device", "all"]);
    assert!(code == Some(0) && printed.contains("pass same [cpu:0 ~ opencl:0]: 20 rounds"), "{printed}");
    let (code, printed) = run(folder, &["same.toml", "--device", "cpu"]);
    assert!(code == Some(0) && printed.starts_with("pass same: 20 rounds"), "{printed}");
}

#[test]
fn devices_that_differ_by_more_than_between_are_found_though_both_are_within_tolerance() {
    if !has_opencl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let near = "2 * x[i] * (1 + 1e-5f)";
    for (name, check) in [
        ("ulp", "rtol = 1e-3\nbetween = { ulp = 2 }\n"),
        ("exact", "rtol = 1e-3\nbetween = { exact = true }\n"),
        ("metric", "rtol = 1e-3\nbetween = { rel_l2 = 1e-7 }\n"),
        ("masked", "rtol = 1e-3\nbetween = { ulp = 2 }\nwhere = \"x > 1.5\"\n"),
        ("unordered", "rtol = 1e-3\nbetween = { ulp = 2 }\nunordered = true\n"),
    ] {
        spec(folder, name, TWO, near, check);
        let (code, printed) = run(folder, &[&format!("{name}.toml")]);
        assert_eq!(code, Some(1), "{printed}");
        for line in ["[cpu]: 20 rounds", "[opencl]: 20 rounds"] {
            assert!(printed.contains(&format!("pass {name} {line}")), "{printed}");
        }
        assert!(printed.contains(&format!("fail {name} [cpu ~ opencl]: 20 of 20 rounds failed")), "{printed}");
        assert!(printed.contains("`y` on `cpu` and on `opencl`"), "{printed}");
    }
    // Left out, it is the check's own tolerance.
    spec(folder, "own", TWO, near, "rtol = 1e-3\n");
    let (code, printed) = run(folder, &["own.toml"]);
    assert!(code == Some(0) && printed.contains("pass own [cpu ~ opencl]: 20 rounds"), "{printed}");
    // One element, in one part, in the last round: found where that part is compared.
    let one = "2 * x[i] + (i == 33 ? 1e-4f : 0)";
    spec(folder, "inside", TWO, one, "rtol = 1e-3\nbetween = { ulp = 2 }\nevery = 7\n");
    let (code, printed) = run(folder, &["inside.toml"]);
    assert!(code == Some(1) && printed.contains("1 of 70 elements differ") && printed.contains("[33]"), "{printed}");
    assert!(printed.contains("fail inside [cpu ~ opencl]: 3 of 20 rounds failed"), "{printed}");
}

#[test]
fn nan_on_both_devices_is_no_agreement_unless_the_check_says_so() {
    if !has_opencl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "nan", TWO, "i == 3 ? NAN : 2 * x[i]", "nan = \"equal\"\n");
    let (code, printed) = run(folder, &["nan.toml"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("fail nan [cpu ~ opencl]: 20 of 20"), "{printed}");
}

#[test]
fn an_absent_device_is_skipped_with_its_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "absent", "[\"cpu\", \"wgpu\"]", "2 * x[i]", "");
    let (code, printed) = run(folder, &["absent.toml"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("pass absent [cpu]: 20 rounds") && printed.contains("skip absent [wgpu]: 0 of 20 rounds"), "{printed}");
    assert!(printed.contains("skip absent [cpu ~ wgpu]: 0 of 20 rounds compared"), "{printed}");
    assert!(printed.contains("not compared: `wgpu`: "), "{printed}");
    let (code, printed) = run(folder, &["absent.toml", "--require", "wgpu"]);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("error absent [wgpu]") && printed.contains("pass absent [cpu]"), "{printed}");
}

#[test]
fn the_others_go_on_where_one_ends_early() {
    if !has_opencl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "early", TWO, "this is no OpenCL", "");
    let (code, printed) = run(folder, &["early.toml"]);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("pass early [cpu]: 20 rounds") && printed.contains("error early [opencl]"), "{printed}");
    assert!(printed.contains("error early [cpu ~ opencl]: 0 of 20 rounds compared"), "{printed}");
    assert!(printed.contains("0 of 20 rounds were compared in full: `opencl` ended with error"), "{printed}");
    // The same device by another name agrees with itself, which proves nothing.
    spec(folder, "self", "[\"opencl\", \"opencl:0\"]", "2 * x[i]", "");
    let (code, printed) = run(folder, &["self.toml"]);
    assert!(code == Some(3) && printed.contains("a device agrees with itself"), "{printed}");
    let (code, printed) = run(folder, &["self.toml", "--device", "cpu", "--device", "cpu"]);
    assert!(code == Some(2) && printed.contains("given twice"), "{printed}");
}

#[test]
fn a_crash_on_one_device_is_no_pass_for_any() {
    if !has_opencl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "crash", TWO, "2 * x[i]", "");
    let path = folder.join("crash.toml");
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("y[i] = 2 * x[i]; }\n'''\nsource.opencl", "*(volatile int *)0 = 1; }\n'''\nsource.opencl");
    std::fs::write(&path, text).unwrap();
    let (code, printed) = run(folder, &["crash.toml"]);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("crash crash [cpu]") && !printed.contains("pass crash"), "{printed}");
    assert!(printed.contains("error crash [cpu ~ opencl]") && printed.contains("not compared to the end"), "{printed}");
}
