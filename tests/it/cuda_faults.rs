//! A CUDA driver that fails, through the program: every function that a job calls, kernels that go astray, no driver, an old
//! one. Whatever fails, the job ends in an error that names it, and never in a wrong verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::cuda_sim::build::{Libraries, libraries};
use super::verdicts::runjob;

/// How long a job of some rounds may take before it is said to hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Calls whose failure changes nothing: a device may do without what they ask for.
const OPTIONAL: [&str; 2] = ["cuCtxSetLimit", "cuDriverGetVersion"];

/// After these codes the context is lost, and with it all that is in it.
const STICKY: [i32; 3] = [700, 719, 999];

/// A folder with specs and kernels, and the simulated libraries.
pub struct Bench {
    pub libraries: &'static Libraries,
    folder: tempfile::TempDir,
    next: AtomicUsize,
}

/// What came of a job.
pub struct Ended {
    pub code: Option<i32>,
    pub printed: String,
    /// The calls of the driver, in order, with `leak:` and `misuse:`.
    pub log: Vec<String>,
}

impl Ended {
    /// How often a function was called.
    pub fn times(&self, name: &str) -> usize {
        self.log.iter().filter(|line| *line == name).count()
    }

    /// What was not done as it must be.
    pub fn complaints(&self) -> Vec<&String> {
        self.log.iter().filter(|line| line.contains(':')).collect()
    }
}

const KERNELS: &str = r#"extern "C" __global__ void scale(const float *x, float *t, float a) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    t[i] = a * x[i];
}
extern "C" __global__ void add(const float *t, const float *r, float *y, float *s) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = t[i] + r[i];
    s[i] = s[i] + 1.0f;
}
"#;

/// Two kernels; of the tensors one is new in every round, one stays, one is restored and one is the device's alone. The
/// factor `a` is new in every round, or a number that stays.
pub fn spec(scale: &str, count: u64) -> String {
    let by_value = if scale == "a" { "a = { dtype = \"f32\", shape = [], each_round = { uniform = {} } }\n" } else { "" };
    let args = if scale == "a" { String::new() } else { format!("args = {{ a = {scale} }}\n") };
    format!(
        "[kernels.scale]\nparams = [\"in f32 x\", \"out f32 t\", \"f32 a\"]\nsource = \"k.cu\"\nblock = [8]\n\
         [kernels.add]\nparams = [\"in f32 t\", \"in f32 r\", \"out f32 y\", \"inout f32 s\"]\nsource = \"k.cu\"\nblock = [8]\n\
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
    /// `None` where nothing can be simulated.
    pub fn new() -> Option<Bench> {
        let Some(libraries) = libraries() else {
            eprintln!("skipped: nothing can be simulated without a C++ compiler");
            return None;
        };
        let bench = Bench { libraries, folder: tempfile::tempdir().unwrap(), next: AtomicUsize::new(0) };
        bench.write("k.cu", KERNELS);
        bench.write("by_value.toml", &spec("a", 5));
        bench.write("fixed.toml", &spec("3", 5));
        Some(bench)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Runs the program on the simulated driver, with these variables in its environment.
    pub fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        let at = |what: &str| self.path(&format!("{what}-{nth}"));
        let (log, out, err) = (at("log"), at("out"), at("err"));
        let file = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
        let mut command = runjob();
        for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("SIM_")) {
            command.env_remove(variable);
        }
        command.current_dir(self.folder.path()).args(args).env_remove("RUNJOB_REQUIRE").env("RUNJOB_CACHE", self.path("cache"));
        command.env("RUNJOB_CUDA", &self.libraries.cuda).env("RUNJOB_NVRTC", &self.libraries.nvrtc).env("SIM_CUDA_LOG", &log);
        let mut child = command.envs(env.iter().copied()).stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).spawn().unwrap();
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
        let log = read(&log).lines().map(String::from).collect();
        Ended { code: status.and_then(|status| status.code()), printed: read(&out) + &read(&err), log }
    }

    /// Runs a job that must pass and leave nothing behind.
    pub fn passes(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        let ended = self.run(args, env);
        assert_eq!(ended.code, Some(0), "{args:?} {env:?}: {}", ended.printed);
        assert!(ended.printed.starts_with("pass "), "{args:?} {env:?}: {}", ended.printed);
        assert!(ended.complaints().is_empty(), "{args:?} {env:?}: {:?}", ended.complaints());
        ended
    }
}

/// Rounds that a report says were checked.
fn checked(printed: &str) -> Option<u64> {
    let words: Vec<&str> = printed.lines().next()?.split(' ').collect();
    let of = words.iter().position(|word| *word == "of")?;
    words.get(of.checked_sub(1)?)?.parse().ok()
}

/// A call that gives something back.
fn releases(name: &str) -> bool {
    ["Destroy", "Free", "Unload", "Release"].iter().any(|word| name.contains(word))
}

/// What is wrong with how a job of five rounds ended in which the `nth` call of a function failed with a code.
fn complaint(ended: &Ended, name: &str, nth: usize, code: i32) -> Option<String> {
    let say = |what: &str| Some(format!("{name}:{nth}:{code}: {what} ({:?}):\n{}{:?}", ended.code, ended.printed, ended.complaints()));
    if ended.code.is_none() || ["panicked", "itself failed", "crash "].iter().any(|word| ended.printed.contains(word)) {
        return say("it hangs, panics or crashes");
    }
    // What is lost with the context is not given back, and what refuses to be given back is left.
    if !STICKY.contains(&code) && !releases(name) && !ended.complaints().is_empty() {
        return say("something is left behind");
    }
    // So the driver says that there are no more parameters: too few for the spec, or as many as there are.
    let ends_the_list = name == "cuFuncGetParamInfo" && code == 1;
    // Asked whether it takes fills with rows; if not, the graph is made anew with a fill for each row.
    let mut places = ended.log.iter().enumerate().filter(|(_, call)| *call == name).map(|(at, _)| at);
    let next = places.nth(nth - 1).and_then(|at| ended.log.get(at + 1));
    let asks = name == "cuGraphExecMemsetNodeSetParams" && next.is_some_and(|next| releases(next) || next == "cuGraphCreate");
    let passes = ended.printed.starts_with("pass ") && ended.printed.contains("5 rounds, every one checked");
    match ended.code {
        // Where the driver was not called as often, nothing failed.
        Some(0) if OPTIONAL.contains(&name) || releases(name) || ends_the_list || asks || ended.times(name) < nth => {
            (!passes).then(|| say("a pass that is none")).flatten()
        }
        Some(3) if !ended.printed.starts_with("error ") => say("its verdict is not `error`"),
        Some(3) if ends_the_list => (!ended.printed.contains("disagrees with `params`")).then(|| say("it says something else")).flatten(),
        Some(3) if !ended.printed.contains(name.trim_end_matches("_v2")) => say("it does not name the call"),
        Some(3) if !ended.printed.contains(&format!("({code})")) => say("it does not name the code"),
        Some(3) if checked(&ended.printed).is_none_or(|rounds| rounds > 5) => say("it does not say how many rounds were checked"),
        Some(3) => None,
        Some(0) => say("it passes"),
        _ => say("another exit code"),
    }
}

/// Arguments, and what the calls fail with.
const MODES: [(&[&str], &[i32]); 3] = [
    (&["by_value.toml", "--slots", "3"], &[1, 2, 700, 719, 999, 12345]),
    (&["by_value.toml", "--slots", "2", "--device-times"], &[2, 700, 12345]),
    (&["fixed.toml", "--slots", "1", "--trust", "fast"], &[1, 719, 12345]),
];

/// Each function by its name: the first time it is called, the second, and the last.
#[test]
fn whatever_call_fails_the_job_is_an_error_that_names_it() {
    let Some(bench) = Bench::new() else { return };
    for (mode, codes) in MODES {
        let args = [mode, &["--device", "cuda", "--require", "cuda"]].concat();
        let good = bench.passes(&args, &[]);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        good.log.iter().for_each(|name| *counts.entry(name).or_default() += 1);
        for name in ["cuInit", "cuGraphLaunch", "cuStreamSynchronize", "cuMemAlloc_v2", "cuMemHostAlloc", "cuModuleLoadDataEx"] {
            assert!(counts.contains_key(name), "{name} is not called: {counts:?}");
        }
        let mut faults = Vec::new();
        for (name, times) in counts {
            for nth in BTreeSet::from([1, 2.min(times), times]) {
                faults.extend(codes.iter().map(|code| (name, nth, *code)));
            }
        }
        let (next, complaints) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(&(name, nth, code)) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let ended = bench.run(&args, &[("SIM_CUDA_FAIL", &format!("{name}:{nth}:{code}"))]);
                        complaints.lock().unwrap().extend(complaint(&ended, name, nth, code));
                    }
                });
            }
        });
        let complaints = complaints.into_inner().unwrap();
        assert!(complaints.is_empty(), "{mode:?}: {} of {}:\n{}", complaints.len(), faults.len(), complaints.join("\n"));
        bench.passes(&args, &[]);
    }
}

/// A driver that has gone fails in every call from one on; the job ends all the same.
#[test]
fn a_driver_that_is_gone_ends_the_job() {
    let Some(bench) = Bench::new() else { return };
    for fault in ["cuGraphLaunch:2+:719", "cuStreamSynchronize:3+:999", "*:40+:719", "*:100+:46", "*:150+:2", "cuGraphLaunch:4+:2"] {
        let ended = bench.run(&["by_value.toml", "--slots", "3", "--device", "cuda"], &[("SIM_CUDA_FAIL", fault)]);
        assert_eq!(ended.code, Some(3), "{fault}: {}", ended.printed);
        assert!(ended.printed.starts_with("error ") && !ended.printed.contains("panicked"), "{fault}: {}", ended.printed);
        let code = fault.rsplit_once(':').unwrap().1;
        assert!(ended.printed.contains(&format!("({code})")), "{fault}: {}", ended.printed);
    }
}

/// Each does what its name says in round 5.
const ASTRAY: &str = r#"#define I (blockIdx.x * blockDim.x + threadIdx.x)
extern "C" __global__ void fine(int *z, unsigned n) { z[I] = 1; }
extern "C" __global__ void outside(int *y, unsigned n) { y[I] = 1; if (n == 5) y[1ull << 40] = 1; }
extern "C" __global__ void null(int *y, unsigned n) { y[I] = 1; if (n == 5) *(volatile int *)(unsigned long long)(n - 5) = 1; }
extern "C" __global__ void trap(int *y, unsigned n) { y[I] = 1; if (n == 5) __trap(); }
extern "C" __global__ void asserts(int *y, unsigned n) { y[I] = 1; assert(n != 5); }
"#;

/// Two kernels, of which the second is one of those.
fn astray(kernel: &str) -> String {
    format!(
        "[kernels.fine]\nparams = [\"out i32 z\", \"u32 n\"]\nsource = \"astray.cu\"\nblock = [8]\n\
         [kernels.{kernel}]\nparams = [\"out i32 y\", \"u32 n\"]\nsource = \"astray.cu\"\nblock = [8]\n\
         [tensors]\nz = {{ dtype = \"i32\", shape = [64] }}\ny = {{ dtype = \"i32\", shape = [64] }}\n\
         [[steps]]\nkernel = \"fine\"\ngrid = [8]\nargs = {{ n = 7 }}\n\
         [[steps]]\nkernel = \"{kernel}\"\ngrid = [8]\nargs = {{ n = \"round\" }}\n[rounds]\ncount = 12\n\
         [[checks]]\ntensor = \"z\"\nexpect = \"1\"\n[[checks]]\ntensor = \"y\"\nexpect = \"1\"\n"
    )
}

/// The job is run again step by step to find out; what was checked before stands, and the next job has a context that works.
#[test]
fn a_kernel_that_goes_astray_is_told_with_its_round_and_step() {
    let Some(bench) = Bench::new() else { return };
    bench.write("astray.cu", ASTRAY);
    for (kernel, code) in [("outside", 700), ("null", 700), ("trap", 719), ("asserts", 710)] {
        let name = format!("{kernel}.toml");
        bench.write(&name, &astray(kernel));
        for slots in ["1", "3"] {
            let ended = bench.run(&[&name, "fixed.toml", "--device", "cuda", "--batch", "1", "--slots", slots], &[]);
            let printed = &ended.printed;
            assert_eq!(ended.code, Some(3), "{printed}");
            assert!(printed.starts_with(&format!("error {kernel}: ")) && printed.contains("\npass fixed: 5 rounds"), "{printed}");
            // Those in flight beside it do not count.
            let stands = checked(printed).unwrap();
            assert!(if slots == "1" { stands == 5 } else { stands <= 5 }, "{printed}");
            for says in [&format!("({code})"), "run again step by step: ", &format!("in round 5, in step 1, `{kernel}`")] {
                assert!(printed.contains(says), "it does not say `{says}`: {printed}");
            }
            assert!(ended.complaints().iter().all(|line| line.starts_with("leak: ")), "{:?}", ended.complaints());
        }
    }
}

/// A fault that comes with the timing: in the second run the call that fails is not made.
#[test]
fn a_loss_that_does_not_come_again_is_told() {
    let Some(bench) = Bench::new() else { return };
    let args = ["by_value.toml", "--device", "cuda", "--slots", "3"];
    // With one slot there is one stream less for each of the others.
    let streams = bench.passes(&args, &[]).times("cuStreamCreate");
    let ended = bench.run(&args, &[("SIM_CUDA_FAIL", &format!("cuStreamCreate:{streams}:719"))]);
    assert_eq!(ended.code, Some(3), "{}", ended.printed);
    assert!(ended.printed.contains("run again step by step, it did not happen"), "{}", ended.printed);
}
