//! Every OpenCL device that is here: the examples of `specs/` through the library, with the contract held by `Trace`, and the
//! specs of `tests/specs/opencl` through the program. The verdicts are those of the CPU.

use std::path::{Path, PathBuf};

use runjob::device::opencl::{self, OpenclOptions};
use runjob::device::{Caps, Device, Trace, TraceOptions};
use runjob::exec::{self, Progress};
use runjob::job::{self, Overrides};
use runjob::plan::{self, Options, Trust};
use runjob::spec::{self, Backend};
use runjob::verdict::{Event, Report, Verdict};

use super::verdicts::{for_each, found_out, passes, runjob, specs_in, text, verdict};

/// Without a driver there are none, unless one is required.
fn devices() -> Vec<Caps> {
    opencl::list().unwrap_or_else(|error| {
        let required = std::env::var("RUNJOB_REQUIRE").is_ok_and(|all| all.split(',').any(|word| word.trim() == "opencl"));
        assert!(!required, "RUNJOB_REQUIRE names opencl: {error}");
        eprintln!("not run on OpenCL: {error}");
        Vec::new()
    })
}

fn run(spec: &Path, index: usize, trust: Trust) -> Result<Report, String> {
    let loaded = spec::load(spec).map_err(|error| error.to_string())?;
    let (job, problems) = job::resolve(&loaded, Backend::Opencl, &Overrides::default());
    let job = job.ok_or_else(|| problems.iter().map(|p| p.message.clone()).collect::<Vec<_>>().join("; "))?;
    let device = opencl::open(index, OpenclOptions::default()).map_err(|error| error.to_string())?;
    let mut device = Trace::new(Box::new(device), TraceOptions { contract: true, ..TraceOptions::default() });
    let options = Options { trust, ..Options::default() };
    let plan = plan::build(&job, device.caps(), &options).map_err(|error| error.to_string())?;
    let mut report = None;
    let options = exec::Options { threads: 2, ..exec::Options::default() };
    exec::run(&job, &plan, &mut device, &options, &Progress::new(), &mut |event| {
        if let Event::Done(done) = event {
            report = Some(*done);
        }
    });
    report.ok_or_else(|| "the end is not told".to_string())
}

#[test]
fn examples_do_on_opencl_what_they_say() {
    let mut complaints = Vec::new();
    for (index, caps) in devices().iter().enumerate() {
        for spec in specs_in("specs") {
            let wanted = if spec.ends_with("fails.toml") { Verdict::Xfail } else { Verdict::Pass };
            for trust in [Trust::Fast, Trust::Standard] {
                match run(&spec, index, trust) {
                    Ok(report) if report.verdict == wanted && report.run == report.rounds => {}
                    found => complaints.push(format!("{} on {} at {}: {found:?}", spec.display(), caps.name, trust.name())),
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn an_example_that_fails_does_so_in_its_last_block_in_every_round() {
    for index in 0..devices().len() {
        let report = run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/fails.toml"), index, Trust::Standard).unwrap();
        assert_eq!((report.failed_rounds, report.run), (10, 10));
        for failure in &report.failures {
            assert_eq!((failure.compared, failure.mismatched), (1000, 1000 % 256), "{failure:?}");
            let words = failure.patterns.join("; ");
            assert!(words.contains("never written"), "{words}");
        }
    }
}

const MODES: [&[&str]; 9] = [
    &["--contract"],
    &["--trust", "fast"],
    &["--fresh", "--contract"],
    &["--slots", "3", "--host", "pool", "--contract"],
    &["--slots", "1", "--lanes", "1", "--threads", "1"],
    &["--discrete", "--contract"],
    &["--discrete", "--slots", "3", "--trust", "fast"],
    &["--device-times"],
    &["--batch", "4", "--slots", "2", "--contract"],
];

/// `--device` for every device that is here.
fn names() -> Vec<String> {
    (0..devices().len()).map(|index| format!("opencl:{index}")).collect()
}

/// Judges every spec of a folder on every device in every mode.
fn in_every_mode(folder: &str, judge: fn(&Path, &[&str]) -> Result<(), String>) {
    let names = names();
    for_each(&specs_in(folder), |spec| {
        // Level fast leaves out guards, and looks at no input.
        let standard = std::fs::read_to_string(spec).unwrap().lines().any(|line| line == "#~ trust: standard");
        let modes = MODES.into_iter().filter(|mode| !standard || !mode.contains(&"fast"));
        let mut runs = modes.flat_map(|mode| names.iter().map(move |name| (name, mode)));
        runs.try_for_each(|(name, mode)| {
            judge(spec, &[&["--device", name], mode].concat()).map_err(|complaint| format!("{name} {mode:?}: {complaint}"))
        })
    });
}

#[test]
fn good_specs_pass_on_every_device_in_every_mode() {
    in_every_mode("tests/specs/opencl/good", passes);
}

#[test]
fn specs_that_try_to_fool_are_found_out_on_every_device_in_every_mode() {
    in_every_mode("tests/specs/opencl/fooled", found_out);
}

/// What runjob prints of a kernel that cannot be used, without the line that names the device.
fn complaint(spec: &Path, device: &str) -> String {
    // As from the repository's root, so that paths are those of everybody.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = runjob().current_dir(root).arg(spec.strip_prefix(root).unwrap()).args(["--device", device]).output().unwrap();
    let text = text(&output);
    assert_eq!((verdict(&text), output.status.code()), (Some("error"), Some(3)), "{}\n{text}", spec.display());
    text.lines().filter(|line| !line.starts_with("  opencl: ")).map(|line| format!("{line}\n")).collect()
}

/// The mistakes that a device can see: one that has arithmetic on halves takes a kernel that needs it.
fn broken(caps: &Caps) -> Vec<PathBuf> {
    let takes = |spec: &PathBuf| spec.ends_with("needs_f16.toml") && caps.features.iter().any(|feature| feature == "f16");
    specs_in("tests/specs/opencl/broken").into_iter().filter(|spec| !takes(spec)).collect()
}

#[test]
fn kernels_that_cannot_be_used_are_errors_that_name_the_mistake() {
    for (index, caps) in devices().iter().enumerate() {
        for_each(&broken(caps), |spec| {
            let text = complaint(spec, &format!("opencl:{index}"));
            let source = std::fs::read_to_string(spec).unwrap();
            let mut wanted = source.lines().filter_map(|line| line.strip_prefix("#~ says: "));
            wanted.find(|says| !text.contains(says)).map_or(Ok(()), |missing| Err(format!("does not say `{missing}`\n{text}")))
        });
    }
}

/// The driver whose compiler is quoted in `tests/specs/opencl/broken/*.stderr`; others have words of their own.
const QUOTED: &str = "Portable Computing Language 3.1";

/// The scratch that a device has is a property of the machine.
fn without_sizes(text: &str) -> String {
    match text.split_once("bytes of local memory, the device has ") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}bytes of local memory, the device has SOME{rest}")
        }
        None => text.to_string(),
    }
}

/// `RUNJOB_BLESS=1` writes the texts anew.
#[test]
fn what_is_said_of_kernels_that_cannot_be_used_is_what_was_reviewed() {
    let bless = std::env::var_os("RUNJOB_BLESS").is_some();
    for (index, _) in devices().iter().enumerate().filter(|(_, caps)| caps.driver.starts_with(QUOTED)) {
        for_each(&specs_in("tests/specs/opencl/broken"), |spec| {
            let text = without_sizes(&complaint(spec, &format!("opencl:{index}")));
            let kept = spec.with_extension("stderr");
            if bless {
                std::fs::write(&kept, &text).unwrap();
            }
            let reviewed = std::fs::read_to_string(&kept).unwrap_or_default();
            if reviewed == text { Ok(()) } else { Err(format!("says\n{text}and {} has\n{reviewed}", kept.display())) }
        });
    }
}

/// What a device has is met, what it lacks is a skip with its reason: both by what it says of itself.
#[test]
fn requirements_are_held_against_what_the_driver_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join("tests/specs/opencl/good/carry.toml")).unwrap();
    for (index, caps) in devices().iter().enumerate() {
        let has = |feature: &str| caps.features.iter().any(|of| of == feature);
        let cases = [
            ("opencl_c >= 1.2", true),
            ("opencl >= 1.2", true),
            ("opencl_c >= 99.0", false),
            ("f32", true),
            ("f64", has("f64")),
            ("f16", has("f16")),
            ("bf16", false),
            ("cl_khr_int64_base_atomics", has("cl_khr_int64_base_atomics")),
            ("cl_nobody_has_this", false),
            ("max_block >= 16", true),
            ("max_block >= 99999999", false),
        ];
        for (place, (requires, met)) in cases.into_iter().enumerate() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("opencl_requires_{index}_{place}.toml"));
            std::fs::write(&path, format!("requires = [\"{requires}\"]\n{source}")).unwrap();
            let output = runjob().arg(&path).args(["--device", &format!("opencl:{index}")]).output().unwrap();
            let text = text(&output);
            assert_eq!(verdict(&text), Some(if met { "pass" } else { "skip" }), "{requires}\n{text}");
            assert!(!text.contains("warning"), "{requires}\n{text}");
            let what = requires.split(' ').next().unwrap();
            assert!(met || text.contains(what), "{requires}\n{text}");
        }
    }
}

/// What PoCL's compiler writes beside its log is not taken for something that a kernel printed.
#[test]
fn what_compilers_print_is_not_the_kernels() {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs/opencl/broken/syntax_in_a_file.toml");
    for name in names() {
        let text = complaint(&spec, &name);
        assert!(!text.contains("printed"), "{text}");
    }
}
