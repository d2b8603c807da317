//! Kernels that crash, hang or divide by zero on an OpenCL device: the job says so, with the rounds that stand, and names no
//! step that it cannot know.

use super::devices::has_opencl;
use super::verdicts::{runjob, text};

/// Each does what its name says in round 3.
const KERNELS: &str = "kernel void fine(global int *z, uint n) { z[get_global_id(0)] = 1; }
kernel void null(global int *y, uint n) {
    y[get_global_id(0)] = 1;
    if (n == 3) *(volatile global int *)(size_t)(n - 3) = 1;
}
kernel void huge(global int *y, uint n) {
    y[get_global_id(0)] = 1;
    if (n == 3) ((volatile global int *)y)[(size_t)n << 44] = 1;
}
kernel void endless(global int *y, uint n) {
    y[get_global_id(0)] = 1;
    while (n == 3) ((volatile global int *)y)[get_global_id(0)] = 1;
}
kernel void divide(global int *y, uint n) { y[get_global_id(0)] = 6 * (2 / ((int)n - 3)); }
";

fn spec(kernel: &str, expect: &str) -> String {
    format!(
        "[kernels.fine]\nparams = [\"out i32 z\", \"u32 n\"]\nsource = \"k.cl\"\nblock = [8]\n\
         [kernels.{kernel}]\nparams = [\"out i32 y\", \"u32 n\"]\nsource = \"k.cl\"\nblock = [8]\n\
         [tensors]\nz = {{ dtype = \"i32\", shape = [64] }}\ny = {{ dtype = \"i32\", shape = [64] }}\n\
         [[steps]]\nkernel = \"fine\"\ngrid = [8]\nargs = {{ n = 7 }}\n\
         [[steps]]\nkernel = \"{kernel}\"\ngrid = [8]\nargs = {{ n = \"round\" }}\n\
         [rounds]\ncount = 6\n[limits]\nrun = \"900ms\"\n\
         [[checks]]\ntensor = \"z\"\nexpect = \"1\"\n[[checks]]\ntensor = \"y\"\nexpect = \"{expect}\"\n"
    )
}

/// Exit code and print of a job whose second kernel this is.
fn run(kernel: &str, expect: &str, device: &str, slots: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("k.cl"), KERNELS).unwrap();
    std::fs::write(folder.path().join("job.toml"), spec(kernel, expect)).unwrap();
    let mut command = runjob();
    command.current_dir(folder.path()).env("POCL_DEVICES", "pthread basic").env_remove("RUNJOB_REQUIRE");
    let output = command.args(["job.toml", "--device", device, "--slots", slots]).output().unwrap();
    (output.status.code(), text(&output))
}

/// The devices whose kernels run in this process: those of PoCL.
fn devices() -> Vec<String> {
    if !has_opencl() {
        return Vec::new();
    }
    let listed = runjob().args(["devices", "--json"]).env("POCL_DEVICES", "pthread basic").env_remove("RUNJOB_REQUIRE").output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let listed = listed.as_array().unwrap().iter();
    let ours = listed.filter(|d| d["backend"] == "opencl" && d["caps"]["shares_cores"] == true);
    let names: Vec<String> = ours.map(|d| d["device"].as_str().unwrap().to_string()).collect();
    if names.is_empty() {
        eprintln!("skipped: no OpenCL device runs its kernels in this process");
    }
    names
}

#[test]
fn a_kernel_that_crashes_is_told_with_its_round_and_no_step() {
    for device in devices() {
        for kernel in ["null", "huge"] {
            let (code, printed) = run(kernel, "1", &device, "1");
            assert_eq!(code, Some(3), "{printed}");
            assert!(printed.starts_with("crash job: 3 of 6 rounds checked\n"), "{printed}");
            assert!(printed.contains("SIGSEGV") && printed.contains(", in round 3, while running; 3 rounds before it"), "{printed}");
            let (code, printed) = run(kernel, "1", &device, "3");
            assert_eq!(code, Some(3), "{printed}");
            assert!(printed.starts_with("crash ") && printed.contains("SIGSEGV"), "{printed}");
            assert!(!printed.contains("step"), "{printed}");
            // Which of the rounds it was is not known; the third is one of them, and none from it on was checked.
            let checked: u64 = printed["crash job: ".len()..].split(' ').next().unwrap().parse().unwrap();
            assert!(checked <= 3, "{printed}");
        }
    }
}

#[test]
fn a_kernel_that_never_ends_is_ended_by_the_limit() {
    for device in devices() {
        for slots in ["1", "3"] {
            let (code, printed) = run("endless", "1", &device, slots);
            assert_eq!(code, Some(3), "{printed}");
            assert!(printed.starts_with("timeout job: ") && printed.contains("no progress for 900ms in round "), "{printed}");
            assert!(printed.contains("(`limits.run`)") && !printed.contains("step"), "{printed}");
            assert!(slots != "1" || printed.contains("in round 3, while running; 3 rounds before it were checked"), "{printed}");
        }
    }
}

/// What comes of a division by zero is the driver's: a crash, or a number that is not the expected one.
#[test]
fn a_division_by_zero_never_passes() {
    let expect =
        "where(round == 2, 0 - 12, where(round == 4, 12, where(round == 1, 0 - 6, where(round == 5, 6, where(round == 3, 77, 0)))))";
    for device in devices() {
        for slots in ["1", "3"] {
            let (code, printed) = run("divide", expect, &device, slots);
            assert!(matches!(code, Some(1 | 3)), "{printed}");
            let told = printed.starts_with("fail ") && printed.contains("round 3: 64 of 64 elements of `y`");
            assert!(told || printed.starts_with("crash ") && printed.contains("SIGFPE"), "{printed}");
        }
    }
}
