//! A driver that fails: every call of a job, one at a time, through a library that stands for OpenCL's
//! (`tests/opencl/faulty.c`). Whatever fails, the job ends in an error that names it, and never in a wrong verdict.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::devices::has_opencl;
use super::verdicts::{runjob, text};

/// How long a job of five rounds may take before it is said to hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Calls whose failure need not matter: what they ask for is of no use to the job, or can be done without.
const OPTIONAL: [&str; 4] = ["clGetDeviceInfo", "clGetPlatformInfo", "clGetKernelArgInfo", "clGetExtensionFunctionAddressForPlatform"];

/// A folder with the library and specs; `None` where OpenCL is not here.
struct Bench {
    folder: tempfile::TempDir,
    next: AtomicUsize,
}

/// What came of a job.
struct Ended {
    code: Option<i32>,
    printed: String,
    /// The calls of the driver, in order.
    calls: Vec<String>,
    /// The first call that was made to fail, and its place among the calls.
    hit: Option<(String, usize)>,
}

const KERNELS: &str = "kernel void scale(global const float *x, global float *t, float a) { size_t i = get_global_id(0); t[i] = a * x[i]; }
kernel void add(global const float *t, global const float *r, global float *y, global float *s) {
    size_t i = get_global_id(0);
    y[i] = t[i] + r[i];
    s[i] = s[i] + 1.0f;
}
";

/// Two kernels; of the tensors one is new in every round, one stays, one is restored and one is the device's alone.
fn spec(kernels: &str, scale: &str, count: u64) -> String {
    let by_value = if scale == "a" { "a = { dtype = \"f32\", shape = [], each_round = { uniform = {} } }\n" } else { "" };
    let args = if scale == "a" { String::new() } else { format!("args = {{ a = {scale} }}\n") };
    format!(
        "[kernels.scale]\nparams = [\"in f32 x\", \"out f32 t\", \"f32 a\"]\nsource = \"{kernels}\"\nblock = [8]\n\
         [kernels.add]\nparams = [\"in f32 t\", \"in f32 r\", \"out f32 y\", \"inout f32 s\"]\nsource = \"{kernels}\"\nblock = [8]\n\
         [tensors]\nx = {{ dtype = \"f32\", shape = [64], each_round = {{ uniform = {{}} }} }}\n{by_value}\
         r = {{ dtype = \"f32\", shape = [64], data = {{ uniform = {{}} }} }}\n\
         s = {{ dtype = \"f32\", shape = [64], data = {{ uniform = {{}} }} }}\n\
         t = {{ dtype = \"f32\", shape = [64] }}\ny = {{ dtype = \"f32\", shape = [64] }}\n\
         [[steps]]\nkernel = \"scale\"\ngrid = [8]\n{args}[[steps]]\nkernel = \"add\"\ngrid = [8]\n\
         [rounds]\ncount = {count}\n[[checks]]\ntensor = \"y\"\nexpect = \"{scale} * x + r\"\n\
         [[checks]]\ntensor = \"s\"\nexpect = \"s + 1\"\n"
    )
}

impl Bench {
    fn new() -> Option<Bench> {
        if !has_opencl() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/opencl/faulty.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(folder.path().join("faulty.so")).arg(source).args(["-ldl", "-lpthread"]);
        let built = cc.output().unwrap();
        assert!(built.status.success(), "{}", text(&built));
        std::fs::write(folder.path().join("k.cl"), KERNELS).unwrap();
        std::fs::write(folder.path().join("by_value.toml"), spec("k.cl", "a", 5)).unwrap();
        std::fs::write(folder.path().join("fixed.toml"), spec("k.cl", "3", 5)).unwrap();
        Some(Bench { folder, next: AtomicUsize::new(0) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the program on the library, with these variables of its environment.
    fn run(&self, args: &[&str], faults: &[(&str, &str)]) -> Ended {
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        let at = |what: &str| self.path(&format!("{what}-{nth}"));
        let (counts, hit, out, err) = (at("counts"), at("hit"), at("out"), at("err"));
        let file = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
        let mut command = runjob();
        command.current_dir(self.folder.path()).args(args).env("RUNJOB_OPENCL", self.path("faulty.so")).env_remove("RUNJOB_REQUIRE");
        command.env("POCL_DEVICES", "pthread basic").env("FAULTY_COUNTS", &counts).env("FAULTY_HIT", &hit);
        if let Some(real) = std::env::var_os("RUNJOB_OPENCL").filter(|real| !real.is_empty()) {
            command.env("FAULTY_REAL", real);
        }
        let mut child = command.envs(faults.iter().copied()).stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).spawn().unwrap();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        Ended {
            code: status.and_then(|status| status.code()),
            printed: read(&out) + &read(&err),
            calls: read(&counts).lines().map(String::from).collect(),
            hit: read(&hit).lines().next().and_then(|line| {
                let (name, nth) = line.split_once(' ')?;
                Some((name.to_string(), nth.parse::<usize>().ok()? - 1))
            }),
        }
    }

    /// Runs something for each of the faults, two at a time. *Panics* with all complaints at once.
    fn each(&self, faults: &[Vec<(&str, String)>], judge: impl Fn(&[(&str, String)]) -> Option<String> + Sync) {
        let (next, complaints) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Some(complaint) = judge(fault) {
                            complaints.lock().unwrap().push(format!("{fault:?}: {complaint}"));
                        }
                    }
                });
            }
        });
        let complaints = complaints.into_inner().unwrap();
        assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), faults.len(), complaints.join("\n"));
    }
}

/// Rounds that a report says were checked.
fn checked(printed: &str) -> Option<u64> {
    let words: Vec<&str> = printed.lines().next()?.split(' ').collect();
    let of = words.iter().position(|word| *word == "of")?;
    words.get(of.checked_sub(1)?)?.parse().ok()
}

/// What is wrong with how a job ended in which one call failed with a code.
fn complaint(ended: &Ended, code: &str) -> Option<String> {
    let say = |what: &str| Some(format!("{what} ({:?}, {:?}):\n{}", ended.hit, ended.code, ended.printed));
    if ended.code.is_none() || ["panicked", "itself failed", "crash "].iter().any(|word| ended.printed.contains(word)) {
        return say("it hangs, panics or crashes");
    }
    let Some((hit, at)) = ended.hit.as_ref().map(|(hit, at)| (hit.as_str(), *at)) else {
        return (ended.code != Some(0)).then(|| say("nothing failed, and it does not pass")).flatten();
    };
    // What comes after the report ends with the process.
    let after_all = ended.calls[at..].iter().all(|call| call.starts_with("clRelease") || call == "clFinish");
    match ended.code {
        Some(0) if OPTIONAL.contains(&hit) || after_all => (!ended.printed.starts_with("pass ")
            || !ended.printed.contains("5 rounds, every one checked"))
        .then(|| say("a pass that is none"))
        .flatten(),
        Some(0) => say("it passes"),
        Some(3) if !ended.printed.starts_with("error ") => say("its verdict is not `error`"),
        Some(3) if !ended.printed.contains(hit) || !ended.printed.contains(&format!("({code})")) => say("it does not name call and code"),
        Some(3) if checked(&ended.printed).is_none_or(|rounds| rounds > 5) => say("it does not say how many rounds were checked"),
        Some(3) if hit == "clEnqueueNDRangeKernel" => {
            let named = |step: usize, kernel: &str| {
                ended.printed.contains(&format!("launching kernel `{kernel}`"))
                    && (ended.printed.contains(&format!("in step {step}, `{kernel}`")))
            };
            (!named(0, "scale") && !named(1, "add")).then(|| say("it does not name kernel and step")).flatten()
        }
        Some(3) => None,
        _ => say("another exit code"),
    }
}

const MODES: [&[&str]; 4] = [
    &["by_value.toml", "--slots", "3"],
    &["by_value.toml", "--slots", "1"],
    &["by_value.toml", "--slots", "3", "--discrete"],
    &["fixed.toml", "--slots", "1", "--trust", "fast"],
];

/// The program's arguments on the device whose work is done in the calls, where there is one.
fn on_basic<'a>(bench: &Bench, mode: &[&'a str]) -> Vec<&'a str> {
    let args = |device| [mode, &["--device", device, "--require", "opencl"]].concat();
    let basic = args("opencl:basic");
    if bench.run(&basic, &[]).code == Some(0) { basic } else { args("opencl") }
}

#[test]
fn whatever_call_fails_the_job_is_an_error_that_names_it() {
    let Some(bench) = Bench::new() else { return };
    for (nth, mode) in MODES.into_iter().enumerate() {
        let args = on_basic(&bench, mode);
        let good = bench.run(&args, &[]);
        assert_eq!(good.code, Some(0), "{}", good.printed);
        // Queries come in long rows; every other call fails once.
        let calls = good.calls.iter().enumerate();
        let faults: Vec<Vec<(&str, String)>> = calls
            .filter(|(at, call)| at % if call.starts_with("clGet") { 16 } else { [2, 3, 2, 2][nth] } == 0)
            .map(|(at, _)| vec![("FAULTY_ANY", (at + 1).to_string())])
            .collect();
        assert!(faults.len() > 30, "{}", good.calls.len());
        bench.each(&faults, |fault| {
            let fault: Vec<(&str, &str)> = fault.iter().map(|(key, value)| (*key, value.as_str())).collect();
            complaint(&bench.run(&args, &[&fault[..], &[("FAULTY_CODE", "-5")]].concat()), "-5")
        });
        // The next job finds the device as it was.
        let after = bench.run(&args, &[]);
        assert_eq!(after.code, Some(0), "{}", after.printed);
    }
}

/// Each function by its name: the first time it is called, the second, and the last.
#[test]
fn every_function_of_the_driver_may_fail() {
    let Some(bench) = Bench::new() else { return };
    for mode in [MODES[0], MODES[2]] {
        let args = on_basic(&bench, mode);
        let good = bench.run(&args, &[]);
        assert_eq!(good.code, Some(0), "{}", good.printed);
        let names: BTreeSet<&String> = good.calls.iter().collect();
        let faults: Vec<Vec<(&str, String)>> = names
            .iter()
            .flat_map(|name| {
                let times = good.calls.iter().filter(|call| call == name).count();
                let nths: BTreeSet<usize> = [1, 2.min(times), times].into();
                nths.into_iter().map(|nth| vec![("FAULTY_CALL", name.to_string()), ("FAULTY_NTH", nth.to_string())])
            })
            .collect();
        for name in ["clEnqueueMapBuffer", "clEnqueueNDRangeKernel", "clFinish", "clFlush", "clCreateBuffer", "clSetKernelArg"] {
            assert!(names.iter().any(|of| *of == name), "{name} is not called: {names:?}");
        }
        bench.each(&faults, |fault| {
            let fault: Vec<(&str, &str)> = fault.iter().map(|(key, value)| (*key, value.as_str())).collect();
            complaint(&bench.run(&args, &[&fault[..], &[("FAULTY_CODE", "-59")]].concat()), "-59")
        });
    }
}

/// A driver that has gone fails in every call from one on; the job ends all the same.
#[test]
fn a_driver_that_is_gone_ends_the_job() {
    let Some(bench) = Bench::new() else { return };
    let args = on_basic(&bench, MODES[0]);
    for (call, nth, code) in [
        ("clEnqueueNDRangeKernel", "5", "-36"),
        ("clFinish", "2", "-36"),
        ("clEnqueueMapBuffer", "3", "-2"),
        ("clFlush", "1", "-5"),
        ("clEnqueueUnmapMemObject", "2", "-5"),
    ] {
        let ended = bench.run(&args, &[("FAULTY_CALL", call), ("FAULTY_NTH", nth), ("FAULTY_FROM", "1"), ("FAULTY_CODE", code)]);
        assert_eq!(ended.code, Some(3), "{}", ended.printed);
        assert!(ended.printed.starts_with("error ") && !ended.printed.contains("panicked"), "{}", ended.printed);
        for says in [call, &format!("({code})")] {
            assert!(ended.printed.contains(says), "it does not say `{says}`: {}", ended.printed);
        }
    }
}

#[test]
fn a_call_that_says_it_worked_and_gives_nothing_is_an_error() {
    let Some(bench) = Bench::new() else { return };
    let args = on_basic(&bench, MODES[0]);
    for call in [
        "clCreateContext",
        "clCreateCommandQueue",
        "clCreateBuffer",
        "clCreateSubBuffer",
        "clCreateProgramWithSource",
        "clCreateKernel",
        "clEnqueueMapBuffer",
    ] {
        let ended = bench.run(&args, &[("FAULTY_CALL", call), ("FAULTY_NULL", "1")]);
        assert_eq!(ended.code, Some(3), "{}", ended.printed);
        let says = "says that it worked, and gives nothing";
        assert!(ended.printed.starts_with("error ") && ended.printed.contains(call) && ended.printed.contains(says), "{}", ended.printed);
    }
}

#[test]
fn the_step_and_the_kernel_of_a_failed_launch_are_named_and_rounds_before_it_stand() {
    let Some(bench) = Bench::new() else { return };
    let args = on_basic(&bench, &["by_value.toml", "--slots", "1"]);
    let good = bench.run(&args, &[]);
    let launches = good.calls.iter().filter(|call| *call == "clEnqueueNDRangeKernel").count();
    // The last launches are the two of the last round.
    for (nth, says) in [(launches - 1, "in step 0, `scale`"), (launches, "in step 1, `add`")] {
        let nth = nth.to_string();
        let ended = bench.run(&args, &[("FAULTY_CALL", "clEnqueueNDRangeKernel"), ("FAULTY_NTH", &nth), ("FAULTY_CODE", "-5")]);
        assert_eq!((ended.code, checked(&ended.printed)), (Some(3), Some(4)), "{}", ended.printed);
        assert!(ended.printed.contains(says), "{}", ended.printed);
    }
}

#[test]
fn a_release_that_fails_is_told() {
    let Some(bench) = Bench::new() else { return };
    let args = on_basic(&bench, MODES[0]);
    for call in ["clReleaseMemObject", "clReleaseKernel"] {
        let ended = bench.run(&args, &[("FAULTY_CALL", call), ("FAULTY_NTH", "1"), ("FAULTY_CODE", "-5")]);
        let says = format!("after the last round: {call} failed: CL_OUT_OF_RESOURCES (-5)");
        assert!(ended.code == Some(3) && ended.printed.contains(&says), "{}", ended.printed);
        assert!(ended.printed.contains("5 of 5 rounds checked"), "{}", ended.printed);
    }
}

#[test]
fn what_memory_was_for_is_told_where_it_is_short() {
    let Some(bench) = Bench::new() else { return };
    for mode in [MODES[0], MODES[2]] {
        let args = on_basic(&bench, mode);
        let good = bench.run(&args, &[]);
        let buffers = good.calls.iter().filter(|call| *call == "clCreateBuffer").count();
        for nth in 1..=buffers.min(6) {
            let nth = nth.to_string();
            let ended = bench.run(&args, &[("FAULTY_CALL", "clCreateBuffer"), ("FAULTY_NTH", &nth), ("FAULTY_CODE", "-4")]);
            assert_eq!(ended.code, Some(3), "{}", ended.printed);
            for says in ["out of memory: ", "clCreateBuffer failed: CL_MEM_OBJECT_ALLOCATION_FAILURE (-4)", "it is memory `", " bytes)"] {
                assert!(ended.printed.contains(says), "it does not say `{says}`: {}", ended.printed);
            }
        }
    }
}

/// However many rounds there are, the same objects are made, and none is left.
#[test]
fn rounds_make_no_objects_of_the_driver_and_all_are_released() {
    let Some(bench) = Bench::new() else { return };
    for (name, scale) in [("by_value", "a"), ("fixed", "3")] {
        let (few, many) = (format!("{name}_20.toml"), format!("{name}_60.toml"));
        std::fs::write(bench.path(&few), spec("k.cl", scale, 20)).unwrap();
        std::fs::write(bench.path(&many), spec("k.cl", scale, 60)).unwrap();
        for mode in [&["--slots", "1"][..], &["--slots", "3"], &["--slots", "3", "--discrete"], &["--slots", "1", "--trust", "fast"]] {
            let run = |spec: &str| {
                let ended = bench.run(&on_basic(&bench, &[&[spec], mode].concat()), &[]);
                assert_eq!(ended.code, Some(0), "{}", ended.printed);
                ended.calls
            };
            let (few, many) = (run(&few), run(&many));
            let count = |calls: &[String], names: &[&str]| calls.iter().filter(|call| names.contains(&call.as_str())).count();
            for (made, released) in [
                (&["clCreateBuffer", "clCreateSubBuffer"][..], "clReleaseMemObject"),
                (&["clCreateKernel"], "clReleaseKernel"),
                (&["clCreateCommandQueue"], "clReleaseCommandQueue"),
                (&["clCreateProgramWithSource"], "clReleaseProgram"),
                (&["clCreateContext"], "clReleaseContext"),
                (&["clCreateCommandBufferKHR"], "clReleaseCommandBufferKHR"),
            ] {
                let of_few = count(&few, made);
                assert_eq!(of_few, count(&many, made), "{name} {mode:?} {made:?}");
                assert_eq!((of_few, of_few), (count(&few, &[released]), count(&many, &[released])), "{name} {mode:?} {released}");
            }
        }
    }
}

/// Devices that are not as one expects: each skips, or runs all the same.
#[test]
fn odd_devices_are_skipped_or_used() {
    let Some(bench) = Bench::new() else { return };
    for (device, says) in [
        ("no-platforms", Some("no driver")),
        ("no-devices", Some("no OpenCL driver offers a device")),
        ("unavailable", Some("no OpenCL driver offers a device")),
        ("absurd", Some("the driver's answer makes no sense")),
        ("endless", Some("the driver's answer makes no sense")),
        ("discrete", None),
        ("no-command-buffer", None),
        ("typedef", None),
        ("no-arg-info", None),
    ] {
        let ended = bench.run(&["fixed.toml", "--device", "opencl"], &[("FAULTY_DEVICE", device)]);
        assert_eq!(ended.code, Some(0), "{device}: {}", ended.printed);
        let verdict = if says.is_some() { "skip " } else { "pass " };
        assert!(ended.printed.starts_with(verdict) && ended.printed.contains(says.unwrap_or("")), "{device}: {}", ended.printed);
        let required = bench.run(&["fixed.toml", "--device", "opencl", "--require", "opencl"], &[("FAULTY_DEVICE", device)]);
        assert_eq!(required.code, Some(if says.is_some() { 3 } else { 0 }), "{device}: {}", required.printed);
    }
}
