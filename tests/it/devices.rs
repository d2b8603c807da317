//! Which device a job runs on, and what is said where it is not there.

use std::path::{Path, PathBuf};
use std::process::Output;

use super::verdicts::{runjob, text};

/// Runs in a folder without requirements of the environment.
fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output: Output = runjob().env_remove("RUNJOB_REQUIRE").current_dir(folder).args(args).output().unwrap();
    (output.status.code(), text(&output))
}

/// Whether OpenCL is here. A machine without it skips what needs it, unless it is required.
pub fn has_opencl() -> bool {
    let output = runjob().env_remove("RUNJOB_REQUIRE").args(["devices", "--require", "opencl"]).output().unwrap();
    let here = output.status.success();
    let required = std::env::var("RUNJOB_REQUIRE").is_ok_and(|names| names.split(',').any(|name| name.trim() == "opencl"));
    assert!(here || !required, "RUNJOB_REQUIRE asks for opencl: {}", text(&output));
    if !here {
        eprintln!("skipped: there is no OpenCL device");
    }
    here
}

const C: &str = "#include <runjob.h>\nvoid twice(const float *x, float *y) { unsigned i = rj_block(0); y[i] = 2 * x[i]; }\n";
const CL: &str = "kernel void twice(global const float *x, global float *y) { size_t i = get_group_id(0); y[i] = 2 * x[i]; }\n";

/// A spec with kernels for what `source` names.
fn spec(folder: &Path, name: &str, top: &str, source: &str, rest: &str) -> PathBuf {
    std::fs::write(folder.join("twice.c"), C).unwrap();
    std::fs::write(folder.join("twice.cl"), CL).unwrap();
    let text = format!(
        "name = \"{name}\"\n{top}\n[kernels.twice]\nparams = [\"in f32 x\", \"out f32 y\"]\nsource = {source}\n[tensors]\n\
         x = {{ dtype = \"f32\", shape = [8], each_round = {{ uniform = {{}} }} }}\ny = {{ dtype = \"f32\", shape = [8] }}\n\
         [[steps]]\nkernel = \"twice\"\ngrid = [8]\n[rounds]\ncount = 3\n[[checks]]\ntensor = \"y\"\nexpect = \"2 * x\"\n{rest}"
    );
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    path
}

const BOTH: &str = "{ cpu = \"twice.c\", opencl = \"twice.cl\" }";

#[test]
fn an_absent_device_is_a_skip_and_an_error_where_it_is_required() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "wgpu", "", "{ cpu = \"twice.c\", wgpu = \"twice.c\" }", "");
    spec(folder, "named", "devices = [\"cpu:no such processor\"]", "\"twice.c\"", "");
    spec(folder, "matched", "", "\"twice.c\"", "[device]\nmatch = \"no such processor\"\n");
    for (args, says) in [
        (&["wgpu.toml", "--device", "wgpu"][..], "`wgpu`: this version of runjob does not have it"),
        (&["wgpu.toml", "--device", "cpu:7"], "there is no device cpu:7; there are: cpu:0 `"),
        (&["named.toml"], "no cpu device has `no such processor` in its name; there are: cpu:0 `"),
        (&["matched.toml"], "no cpu device has `no such processor` in its name"),
        (&["matched.toml", "--in-process"], "no cpu device has `no such processor` in its name"),
    ] {
        let (code, printed) = run(folder, args);
        assert_eq!(code, Some(0), "{printed}");
        assert!(printed.starts_with("skip ") && printed.contains(says) && printed.contains("0 of 3 rounds"), "{printed}");
        let (code, printed) = run(folder, &[args, &["--require", "cpu,wgpu"]].concat());
        assert_eq!(code, Some(3), "{printed}");
        assert!(printed.starts_with("error ") && printed.contains("is required: ") && printed.contains(says), "{printed}");
    }
    let output = runjob().env("RUNJOB_REQUIRE", "cpu").current_dir(folder).arg("named.toml").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let output = runjob().env("RUNJOB_REQUIRE", "abacus").current_dir(folder).arg("wgpu.toml").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("RUNJOB_REQUIRE asks for `abacus`"), "{}", text(&output));
    // Skips are counted.
    let (code, printed) = run(folder, &["wgpu.toml", "named.toml"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("2 jobs: 1 pass, 1 skip"), "{printed}");
}

#[test]
fn a_named_device_beats_that_of_the_spec() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "named", "devices = [\"cuda\"]", "{ cpu = \"twice.c\", cuda = \"twice.c\" }", "");
    let (code, printed) = run(folder, &["named.toml", "--device", "cpu"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.starts_with("pass ") && printed.contains("  cpu: "), "{printed}");
    let (_, printed) = run(folder, &["named.toml"]);
    assert!(printed.starts_with("skip "), "{printed}");
    for (words, says) in [("gpu", "`gpu` is no backend"), ("opencl:", "nothing stands behind")] {
        let (code, printed) = run(folder, &["named.toml", "--device", words]);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains(says), "{printed}");
    }
}

#[test]
fn a_spec_without_kernels_is_wrong_where_it_is_named_and_skipped_where_it_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "one", "", "\"twice.c\"", "");
    for command in ["run", "check", "plan", "inputs"] {
        let mut args = vec![command, "one.toml", "--device", "opencl"];
        args.extend(if command == "inputs" { &["--out", "inputs"][..] } else { &[] });
        let (code, printed) = run(folder, &args);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains("`twice.c` is a kernel for `cpu`, there is none for `opencl`"), "{printed}");
    }
    let (code, printed) = run(folder, &[".", "--device", "opencl"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.starts_with("skip one") && printed.contains("the spec has no kernels for `opencl`"), "{printed}");
    // It is a device that can be required, not a spec's kernels.
    assert_eq!(run(folder, &[".", "--device", "opencl", "--require", "opencl"]).0, Some(0));
    let (code, printed) = run(folder, &["check", ".", "--device", "opencl"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("ok, but the spec has no kernels for `opencl`"), "{printed}");
    // What is wrong with it is wrong for every device.
    spec(folder, "two", "", "\"twice.c\"", "[rounds2]\n");
    assert_eq!(run(folder, &[".", "--device", "opencl"]).0, Some(2));
}

#[test]
fn a_device_without_what_the_job_requires_skips_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (requires, met) in [("memory >= 1MiB", true), ("largest_alloc >= 1000000TiB", false), ("opencl_c >= 1.0", false), ("sm_90", false)]
    {
        spec(folder, "requires", &format!("requires = [\"{requires}\"]"), "\"twice.c\"", "");
        let (code, printed) = run(folder, &["requires.toml", "--require", "cpu"]);
        assert_eq!(code, Some(0), "{printed}");
        assert!(printed.starts_with(if met { "pass" } else { "skip" }), "{requires}: {printed}");
        assert!(met || printed.contains(&format!("the job requires `{requires}`")), "{printed}");
    }
}

#[test]
fn the_report_names_backend_device_and_driver() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "both", "", BOTH, "");
    let (code, printed) = run(folder, &["both.toml", "--json"]);
    assert_eq!(code, Some(0), "{printed}");
    let listed = runjob().args(["devices", "--json"]).output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(&printed[printed.find("[\n").unwrap()..=printed.rfind(']').unwrap()]).unwrap();
    assert_eq!(report[0]["backend"], "cpu");
    assert_eq!((&report[0]["device"], &report[0]["driver"]), (&listed[0]["caps"]["name"], &listed[0]["caps"]["driver"]));
    if has_opencl() {
        let opencl = listed.as_array().unwrap().iter().find(|d| d["backend"] == "opencl").unwrap();
        let (code, printed) = run(folder, &["both.toml", "--device", "opencl"]);
        assert_eq!(code, Some(0), "{printed}");
        let line = format!(
            "  opencl: {}, {}; trust standard",
            opencl["caps"]["name"].as_str().unwrap(),
            opencl["caps"]["driver"].as_str().unwrap()
        );
        assert!(printed.starts_with("pass ") && printed.contains(&line), "{printed}");
    }
}

#[test]
fn a_device_that_stands_for_one_with_its_own_memory_is_planned_so() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "both", "", BOTH, "");
    let devices = if has_opencl() { &["cpu", "opencl"][..] } else { &["cpu"] };
    for device in devices {
        let (code, printed) = run(folder, &["both.toml", "--device", device, "--discrete", "--contract"]);
        assert_eq!(code, Some(0), "{printed}");
        let (_, plan) = run(folder, &["plan", "both.toml", "--device", device, "--discrete", "--json"]);
        assert!(plan.contains("\"upload\"") && plan.contains("\"readback\"") && !plan.contains("\"shared\""), "{device}: {plan}");
    }
}

#[test]
fn device_times_are_told_where_the_device_has_a_clock() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "both", "", BOTH, "");
    let (code, printed) = run(folder, &["both.toml", "--device-times"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("a round by the device's clock"), "{printed}");
    let (code, printed) = run(folder, &["both.toml", "--device-times", "--chaos", "1"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("the device has no clock for these rounds"), "{printed}");
    let (code, printed) = run(folder, &["both.toml", "--device-times=sometimes"]);
    assert!(code == Some(2) && printed.contains("it is `rounds` or `steps`"), "{printed}");
    let (_, printed) = run(folder, &["both.toml"]);
    assert!(!printed.contains("clock"), "{printed}");
    let mut args = vec![vec!["both.toml", "--device-times", "--slots", "3"]];
    if has_opencl() {
        args.push(vec!["both.toml", "--device-times", "--device", "opencl"]);
    }
    for args in args {
        let (code, printed) = run(folder, &args);
        assert_eq!(code, Some(0), "{printed}");
        assert!(printed.contains("a round by the device's clock"), "{printed}");
    }
}

#[test]
fn times_of_steps_have_a_line_each_in_text_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "both", "", BOTH, "[bench]\nbytes = 1000\nflops = 500\nmin_time = \"1ms\"\n");
    for device in if has_opencl() { &["cpu", "opencl"][..] } else { &["cpu"] } {
        let (code, printed) = run(folder, &["both.toml", "--device-times=steps", "--device", device, "--json=report.json"]);
        assert_eq!(code, Some(0), "{printed}");
        let lines = [
            "a round, by the device's clock",
            "before the steps",
            "twice",
            "after the steps",
            " of the steps by the device's clock, over ",
        ];
        for line in lines.iter().chain(&["GB/s", "GFLOP/s", " rounds for 1.00 ms in all: "]) {
            assert!(printed.contains(line), "{line}: {printed}");
        }
        let text = std::fs::read_to_string(folder.join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        let report = &report[0];
        assert_eq!(report["times"]["round"]["of"], "steps");
        assert_eq!(report["times"]["round"]["rounds"], report["run"]);
        assert_eq!(report["steps"].as_array().unwrap().len(), 3);
        assert!(report["rates"]["bytes"] == 1000 && report["rates"]["impossible"].is_null() && report["stopped"]["reached"].is_boolean());
    }
}

#[test]
fn opencl_devices_are_named_by_index_and_part_of_their_name() {
    if !has_opencl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    spec(folder, "both", "", BOTH, "");
    spec(folder, "alone", "", "\"twice.cl\"", "");
    let (code, printed) = run(folder, &["alone.toml"]);
    assert!(code == Some(0) && printed.contains("  opencl: "), "an OpenCL kernel runs on OpenCL: {printed}");
    let listed = runjob().args(["devices", "--json"]).output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    for device in listed.as_array().unwrap().iter().filter(|d| d["backend"] == "opencl") {
        let name = device["caps"]["name"].as_str().unwrap();
        let part = format!("opencl:{}", name.to_uppercase());
        for words in [device["device"].as_str().unwrap(), &part] {
            let (code, printed) = run(folder, &["both.toml", "--device", words, "--rounds", "1"]);
            assert_eq!(code, Some(0), "{printed}");
            assert!(printed.starts_with("pass ") && printed.contains(&format!("  opencl: {name},")), "{words}: {printed}");
        }
    }
    let (code, printed) = run(folder, &["both.toml", "--device", "opencl:no such thing"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.starts_with("skip ") && printed.contains("there are: opencl:0 `"), "{printed}");
}
