//! The examples of `specs/` and the specs of `tests/specs/cuda` through the program, on CUDA: on the simulated driver of
//! `tests/cuda`, or on a GPU where `RUNJOB_REQUIRE` asks for one.

use std::path::{Path, PathBuf};
use std::process::Command;

use runjob::device::cuda;
use runjob::job::{self, Overrides};
use runjob::spec::{self, Backend};

use super::cuda_sim::build::libraries;
use super::verdicts::{for_each, found_out_in, passes_in, runjob, specs_in, text, verdict};

/// A GPU is asked for: nothing is simulated.
fn is_real() -> bool {
    std::env::var("RUNJOB_REQUIRE").is_ok_and(|all| all.split(',').any(|word| word.trim() == "cuda"))
}

/// The program, where it finds a CUDA device; `None` where none can be had.
pub fn program() -> Option<Command> {
    let mut command = runjob();
    if !is_real() {
        let Some(libraries) = libraries() else {
            eprintln!("not run on CUDA: nothing can be simulated without a C++ compiler");
            return None;
        };
        command.env("RUNJOB_CUDA", &libraries.cuda).env("RUNJOB_NVRTC", &libraries.nvrtc);
    }
    Some(command)
}

const ON_CUDA: [&str; 2] = ["--device", "cuda"];

/// The simulation runs a kernel's threads one after the other: what waits at barriers a lot is run less.
const SLOW: [&str; 1] = ["scan.toml"];

#[test]
fn examples_do_on_cuda_what_they_say() {
    if program().is_none() {
        return;
    }
    for_each(&specs_in("specs"), |spec| {
        let is_slow = SLOW.iter().any(|slow| spec.ends_with(slow)) && !is_real();
        for trust in if is_slow { &["standard"][..] } else { &["fast", "standard"] } {
            let mut args = [&ON_CUDA[..], &["--trust", trust]].concat();
            if is_slow {
                args.extend(["--dim", "n=5000"]);
            }
            let output = program().unwrap().arg(spec).args(&args).output().unwrap();
            let wanted = if spec.ends_with("fails.toml") { "xfail" } else { "pass" };
            let text = text(&output);
            if verdict(&text) != Some(wanted) || output.status.code() != Some(0) {
                return Err(format!("{args:?}\n{text}"));
            }
        }
        Ok(())
    });
}

const MODES: [&[&str]; 7] = [
    &["--contract"],
    &["--trust", "fast"],
    &["--fresh", "--contract"],
    &["--slots", "3", "--host", "pool", "--contract"],
    &["--slots", "1", "--threads", "1"],
    &["--device-times"],
    &["--chaos", "7", "--contract"],
];

/// Judges every spec of a folder in every mode.
fn in_every_mode(folder: &str, judge: fn(Command, &Path, &[&str]) -> Result<(), String>) {
    if program().is_none() {
        return;
    }
    for_each(&specs_in(folder), |spec| {
        // Level fast leaves out guards, and looks at no input.
        let standard = std::fs::read_to_string(spec).unwrap().lines().any(|line| line == "#~ trust: standard");
        // The simulation is slow: of the modes each spec has the first and two others.
        let shift = spec.as_os_str().len();
        let chosen = |nth: usize| is_real() || nth == 0 || (nth + shift).is_multiple_of(3);
        let modes = MODES.into_iter().enumerate().filter(|(nth, mode)| chosen(*nth) && (!standard || !mode.contains(&"fast")));
        modes.into_iter().try_for_each(|(nth, mode)| {
            let mut program = program().unwrap();
            // Another order of what may run side by side, and everything a little later.
            program.env("SIM_CUDA_SEED", (nth + 2).to_string()).env("SIM_CUDA_DELAY_US", (nth % 2 * 20).to_string());
            judge(program, spec, &[&ON_CUDA, mode].concat()).map_err(|complaint| format!("{mode:?}: {complaint}"))
        })
    });
}

#[test]
fn good_specs_pass_on_cuda_in_every_mode() {
    in_every_mode("tests/specs/cuda/good", passes_in);
}

#[test]
fn specs_that_try_to_fool_are_found_out_on_cuda_in_every_mode() {
    in_every_mode("tests/specs/cuda/fooled", found_out_in);
}

/// What has instructions of a GPU.
#[test]
fn specs_for_hardware_pass_on_hardware() {
    if is_real() {
        in_every_mode("tests/specs/cuda/hardware", passes_in);
    }
}

/// Stands in specs whose mistake the simulation does not see.
const ON_HARDWARE: &str = "#~ hardware";

/// What runjob prints of a kernel that cannot be used, without the line that names the device.
fn complaint(spec: &Path) -> String {
    // As from the repository's root, so that paths are those of everybody.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = program().unwrap().current_dir(root).arg(spec.strip_prefix(root).unwrap()).args(ON_CUDA).output().unwrap();
    let text = text(&output);
    assert_eq!((verdict(&text), output.status.code()), (Some("error"), Some(3)), "{}\n{text}", spec.display());
    text.lines().filter(|line| !line.starts_with("  cuda: ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn kernels_that_cannot_be_used_are_errors_that_name_the_mistake() {
    if program().is_none() {
        return;
    }
    for_each(&specs_in("tests/specs/cuda/broken"), |spec| {
        let source = std::fs::read_to_string(spec).unwrap();
        if !is_real() && source.lines().any(|line| line == ON_HARDWARE) {
            return Ok(());
        }
        let text = complaint(spec);
        let mut wanted = source.lines().filter_map(|line| line.strip_prefix("#~ says: "));
        wanted.find(|says| !text.contains(says)).map_or(Ok(()), |missing| Err(format!("does not say `{missing}`\n{text}")))
    });
}

/// `RUNJOB_BLESS=1` writes the texts anew. They are those of the simulation, whose compiler is the host's.
#[test]
fn what_is_said_of_kernels_that_cannot_be_used_is_what_was_reviewed() {
    if program().is_none() || is_real() {
        return;
    }
    let bless = std::env::var_os("RUNJOB_BLESS").is_some();
    let seen = |spec: &PathBuf| !std::fs::read_to_string(spec).unwrap().lines().any(|line| line == ON_HARDWARE);
    let specs: Vec<PathBuf> = specs_in("tests/specs/cuda/broken").into_iter().filter(seen).collect();
    for_each(&specs, |spec| {
        let text = complaint(spec);
        let kept = spec.with_extension("stderr");
        if bless {
            std::fs::write(&kept, &text).unwrap();
        }
        let reviewed = std::fs::read_to_string(&kept).unwrap_or_default();
        if reviewed == text { Ok(()) } else { Err(format!("says\n{text}and {} has\n{reviewed}", kept.display())) }
    });
}

/// NVRTC needs no GPU: where `RUNJOB_NVRTC` names it, every kernel that is here is compiled for several kinds of GPU.
#[test]
fn kernels_compile_with_nvrtc() {
    if std::env::var_os("RUNJOB_NVRTC").is_none_or(|path| path.is_empty()) {
        eprintln!("not compiled: RUNJOB_NVRTC names no NVRTC");
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut compiled = 0;
    for folder in ["specs", "benches/specs", "tests/specs/cuda/good", "tests/specs/cuda/hardware"] {
        for path in specs_in(folder) {
            let loaded = spec::load(&path).unwrap();
            let (job, problems) = job::resolve(&loaded, Backend::Cuda, &Overrides::default());
            let job = job.unwrap_or_else(|| panic!("{}: {problems:?}", path.display()));
            // What is built for a claim may be refused.
            for kernel in &job.kernels[..job.loads] {
                for arch in [(9, 0), (10, 0)] {
                    let image = cuda::compile(kernel, arch, Some(cache.path().to_path_buf()));
                    let bytes = image.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    assert!(!bytes.is_empty());
                    compiled += 1;
                }
            }
        }
    }
    assert!(compiled > 100, "{compiled} were compiled");
}
