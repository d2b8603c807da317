//! Specs that must pass pass, and specs that try to be taken for right are found out: each through the program, as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, with a cache of its own so that tests neither use nor fill the user's.
pub fn runjob() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runjob"));
    command.env("RUNJOB_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")).env("NO_COLOR", "1");
    command
}

pub fn specs_in(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut specs: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    specs.sort();
    assert!(!specs.is_empty(), "{} holds no specs", folder.display());
    specs
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The word that a report starts with.
pub fn verdict(output: &str) -> Option<&str> {
    const WORDS: [&str; 10] = ["pass", "skip", "fail", "error", "crash", "timeout", "unchecked", "xfail", "xpass", "interrupted"];
    output.lines().find_map(|line| {
        let word = line.split(' ').next()?;
        WORDS.contains(&word).then_some(word)
    })
}

/// Runs something for every spec, two at a time, and fails with all complaints at once.
pub fn for_each(specs: &[PathBuf], judge: impl Fn(&Path) -> Result<(), String> + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let complaints = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(spec) = specs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if let Err(complaint) = judge(spec) {
                        complaints.lock().unwrap().push(format!("{}: {complaint}", spec.display()));
                    }
                }
            });
        }
    });
    let complaints = complaints.into_inner().unwrap();
    assert!(complaints.is_empty(), "{} of {} specs:\n{}", complaints.len(), specs.len(), complaints.join("\n"));
}

pub fn passes(spec: &Path, args: &[&str]) -> Result<(), String> {
    passes_in(runjob(), spec, args)
}

pub fn passes_in(mut program: Command, spec: &Path, args: &[&str]) -> Result<(), String> {
    let output = program.arg(spec).args(args).output().unwrap();
    let text = text(&output);
    match (verdict(&text), output.status.code()) {
        (Some("pass"), Some(0)) => Ok(()),
        (found, code) => Err(format!("{found:?}, exit code {code:?}\n{text}")),
    }
}

#[test]
fn good_specs_pass() {
    for_each(&specs_in("tests/specs/good"), |spec| passes(spec, &["--contract"]));
}

const MODES: [&[&str]; 9] = [
    &["--trust", "fast"],
    &["--fresh", "--contract"],
    &["--slots", "3", "--host", "pool", "--contract"],
    &["--host", "pool", "--threads", "1"],
    &["--in-process", "--host", "inline"],
    &["--batch", "3", "--discrete", "--contract"],
    &["--batch", "7", "--slots", "2", "--discrete", "--chaos", "9", "--trust", "fast"],
    &["--chaos", "7", "--contract"],
    &["--chaos", "8", "--slots", "3", "--threads", "1"],
];

#[test]
fn good_specs_pass_in_every_mode() {
    for_each(&specs_in("tests/specs/good"), |spec| {
        MODES.iter().try_for_each(|mode| passes(spec, mode).map_err(|e| format!("{mode:?}: {e}")))
    });
}

#[test]
fn specs_that_try_to_fool_are_found_out() {
    for_each(&specs_in("tests/specs/fooled"), |spec| found_out(spec, &[]));
}

#[test]
fn specs_that_try_to_fool_are_found_out_where_rounds_are_submitted_at_once() {
    // Of rounds in flight together nobody knows which one ends the process, nor which one first writes past what they share.
    let alone = |spec: &PathBuf| {
        let source = std::fs::read_to_string(spec).unwrap();
        let ends = source.lines().any(|l| l.starts_with("#~ verdict:") && (l.contains("crash") || l.contains("timeout")));
        !ends && !spec.ends_with("past_carried.toml")
    };
    let specs: Vec<PathBuf> = specs_in("tests/specs/fooled").into_iter().filter(alone).collect();
    assert!(specs.len() > 90, "{} specs", specs.len());
    for_each(&specs, |spec| [&["--batch", "3"][..], &["--batch", "5", "--slots", "2"]].iter().try_for_each(|mode| found_out(spec, mode)));
}

/// Whether a run comes to the verdict that the spec names, and says what it names.
pub fn found_out(spec: &Path, args: &[&str]) -> Result<(), String> {
    found_out_in(runjob(), spec, args)
}

pub fn found_out_in(mut program: Command, spec: &Path, args: &[&str]) -> Result<(), String> {
    let source = std::fs::read_to_string(spec).unwrap();
    let notes = |key: &str| source.lines().filter_map(|l| l.strip_prefix(key)).map(|t| t.trim().to_string()).collect::<Vec<_>>();
    let wanted = notes("#~ verdict:");
    let output = program.arg(spec).args(args).output().unwrap();
    let text = text(&output);
    let found = verdict(&text).unwrap_or("none");
    if wanted.len() != 1 || !wanted[0].split('|').any(|w| w.trim() == found) {
        return Err(format!("verdict {found}, not {wanted:?}\n{text}"));
    }
    let code = if found == "fail" { 1 } else { 3 };
    if output.status.code() != Some(code) {
        return Err(format!("exit code {:?}, not {code}\n{text}", output.status.code()));
    }
    match notes("#~ says:").iter().find(|says| !text.contains(says.as_str())) {
        Some(missing) => Err(format!("does not say `{missing}`\n{text}")),
        None => Ok(()),
    }
}

/// As on a device that spaces three lanes by four: the kernels of these specs step from row to row by `row`.
const SPACED: [&str; 3] = ["--spaced", "--dim", "row=4"];

#[test]
fn rows_of_three_are_right_where_a_device_spaces_them() {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs/good/lanes_of_three.toml");
    let mut complaints = Vec::new();
    for mode in MODES.iter().chain([&["--contract"][..]].iter()) {
        complaints.extend(passes(&spec, &[&SPACED, *mode].concat()).err());
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    // A kernel that steps as if they lay side by side, and one that steps as if they did not.
    for args in [&["--spaced"][..], &["--dim", "row=4"]] {
        let output = runjob().arg(&spec).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}\n{}", text(&output));
    }
}

#[test]
fn kernels_that_are_wrong_about_spaced_rows_are_found_out() {
    let specs = specs_in("tests/specs/fooled").into_iter();
    let specs: Vec<PathBuf> = specs.filter(|spec| spec.file_name().unwrap().to_string_lossy().starts_with("three_")).collect();
    assert!(specs.len() >= 6);
    for_each(&specs, |spec| {
        [&[][..], &["--fresh"], &["--host", "pool", "--slots", "3"]].iter().try_for_each(|mode| found_out(spec, &[&SPACED, *mode].concat()))
    });
}

#[test]
fn examples_do_what_they_say() {
    for_each(&specs_in("specs"), |spec| {
        let source = std::fs::read_to_string(spec).unwrap();
        let expected = if source.lines().any(|l| l.starts_with("xfail")) { "xfail" } else { "pass" };
        let output = runjob().arg(spec).output().unwrap();
        let text = text(&output);
        match (verdict(&text), output.status.code()) {
            (Some(found), Some(0)) if found == expected => Ok(()),
            found => Err(format!("{found:?}, not {expected}\n{text}")),
        }
    });
}

/// A check that cannot be seen to fail proves nothing: one wrong element in one round of an otherwise right job.
#[test]
fn one_wrong_element_in_one_round_fails_whatever_the_mode() {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs/fooled/wrong_in_round_57.toml");
    for mode in [&["--slots", "3", "--host", "pool"][..], &["--fresh"], &["--trust", "fast"], &["--batch", "16"], &["--in-process"]] {
        let output = runjob().arg(&spec).args(mode).output().unwrap();
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{mode:?}\n{text}");
        assert!(text.contains("1 of 100 rounds failed") && text.contains("round 57:"), "{mode:?}\n{text}");
    }
}

/// At level fast the poison is laid once; the warm-up, which gets round 0's inputs, must not leave its answer there.
#[test]
fn what_only_the_warm_up_computed_is_not_round_0s_answer() {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs/fooled/works_once.toml");
    let output = runjob().arg(&spec).args(["--trust", "fast", "--rounds", "1"]).output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
}

/// What a compiler says of a kernel says nothing of what the steps compute.
#[test]
fn rounds_are_unchecked_where_only_builds_are() {
    let spec = Path::new(env!("CARGO_TARGET_TMPDIR")).join("builds_and_steps.toml");
    let text = "[kernels.k]\nparams = [\"out f32 y\"]\nsource = { cpu = { text = 'void k(float *y) { y[0] = 1; }' } }\n\
        [tensors]\ny = { dtype = \"f32\", shape = [1] }\n[[steps]]\nkernel = \"k\"\n[[checks]]\nkernel = \"k\"\nbuild = \"ok\"\n";
    std::fs::write(&spec, text).unwrap();
    let output = runjob().arg(&spec).output().unwrap();
    let text = self::text(&output);
    assert_eq!((verdict(&text), output.status.code()), (Some("unchecked"), Some(1)), "{text}");
    assert!(text.contains("1 round, builds alone checked"), "{text}");
}

/// A report has a row for each build, as for any check.
#[test]
fn builds_are_checks_of_the_report() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs");
    let report = |spec: &str| {
        let output = runjob().arg(root.join(spec)).args(["--json=-", "--quiet"]).output().unwrap();
        let reports: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        reports[0].clone()
    };
    let mixed = report("good/builds.toml");
    let rows: Vec<_> = mixed["checks"].as_array().unwrap().iter().map(|c| (c["build"].as_bool().unwrap(), c["rounds"].as_u64())).collect();
    assert_eq!(rows[..3], [(false, Some(300)), (false, Some(300)), (true, Some(1))], "{mixed}");
    assert_eq!(rows.len(), 6, "{mixed}");
    // Neither the kernels that are refused nor those of another backend are loaded.
    assert_eq!(mixed["setup_counts"]["loads"], mixed["cost"]["loads"], "{mixed}");
    let failed = report("fooled/builds_though_it_must_not.toml");
    assert_eq!((&failed["rounds"], &failed["failed_rounds"]), (&0.into(), &0.into()), "{failed}");
    assert_eq!((&failed["failures"][0]["kind"], &failed["checks"][0]["failed_rounds"]), (&"build".into(), &1.into()), "{failed}");
}

/// There is nothing to run: flags about rounds are refused, and what asks for a round says so.
#[test]
fn a_spec_of_builds_has_no_rounds() {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs/good/builds_alone.toml");
    let with = |before: &[&str], after: &[&str]| {
        let output = runjob().args(before).arg(&spec).args(after).output().unwrap();
        (output.status.code(), text(&output))
    };
    for (before, after, code, says) in [
        (&[][..], &["--rounds", "3"][..], 2, "there are no rounds"),
        (&["plan"], &[], 0, "no rounds: kernels are built for their checks"),
        (&["plan", "--json"], &[], 0, "\"graphs\""),
        (&["check"], &[], 0, ": ok"),
        (&["inputs"], &["--out", "never"], 4, "the spec has no rounds"),
    ] {
        let (found, text) = with(before, after);
        assert!(found == Some(code) && text.contains(says), "{before:?} {after:?}: {found:?}\n{text}");
    }
}

/// The poison of what must be written does not depend on the level.
#[test]
fn what_must_be_written_is_known_at_level_fast() {
    for (spec, found) in [("fooled/written_but_one.toml", "10 of 10 rounds failed"), ("good/checks_written.toml", "pass checks-written")] {
        let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs").join(spec);
        let text = text(&runjob().arg(&spec).args(["--trust", "fast"]).output().unwrap());
        assert!(text.contains(found), "{text}");
    }
}

/// What a device lacks is a skip with its reason: neither a failure nor a pass.
#[test]
fn an_unmet_requirement_is_a_skip_with_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join("tests/specs/good/rank0.toml")).unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("requires.toml");
    let kernels = root.join("tests/specs/kernels");
    for (requires, reason) in [("sm_90", "the job requires `sm_90`"), ("max_block >= 1000000000", "max_block")] {
        let text = format!("requires = [\"f32\", \"{requires}\"]\n{}", source.replace("../kernels", kernels.to_str().unwrap()));
        std::fs::write(&path, text).unwrap();
        let output = runjob().arg(&path).output().unwrap();
        let text = self::text(&output);
        assert!(text.starts_with("skip ") && text.contains(reason), "{text}");
        assert_eq!(output.status.code(), Some(0), "{text}");
    }
}

/// `xfail` excuses kernels, not what happens around them.
#[test]
fn xfail_does_not_excuse_a_crash_while_loading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join("tests/specs/fooled/exits_when_loaded.toml")).unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("xfail_exits.toml");
    let kernels = root.join("tests/specs/kernels");
    std::fs::write(&path, format!("xfail = \"known\"\n{}", source.replace("../kernels", kernels.to_str().unwrap()))).unwrap();
    let output = runjob().arg(&path).output().unwrap();
    let text = text(&output);
    assert_eq!((verdict(&text), output.status.code()), (Some("crash"), Some(3)), "{text}");
}

/// The object is built here, as somebody else would; then it is built anew in its place, wrong.
#[test]
fn a_built_object_is_run_as_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let build = |factor: &str| {
        let source = folder.path().join("twice.c");
        let text =
            format!("void twice(const float *x, float *y, unsigned n) {{ for (unsigned i = 0; i < n; ++i) y[i] = {factor} * x[i]; }}\n");
        std::fs::write(&source, text).unwrap();
        let object = folder.path().join("twice.so");
        assert!(Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&object, &source]).status().unwrap().success());
    };
    let spec = folder.path().join("built.toml");
    let text = "[kernels.twice]\nparams = [\"in f32 x\", \"out f32 y\", \"u32 n\"]\nsource = \"twice.so\"\n\
        [tensors]\nx = { dtype = \"f32\", shape = [1000], each_round = { uniform = {} } }\ny = { dtype = \"f32\", shape = [1000] }\n\
        [[steps]]\nkernel = \"twice\"\nargs = { n = 1000 }\n[rounds]\ncount = 10\n[[checks]]\ntensor = \"y\"\nexpect = \"2 * x\"\n";
    std::fs::write(&spec, text).unwrap();
    for (factor, wanted) in [("2", "pass"), ("3", "fail"), ("2", "pass")] {
        build(factor);
        let output = text_of_run(&spec);
        assert_eq!(verdict(&output), Some(wanted), "{output}");
    }
}

fn text_of_run(spec: &Path) -> String {
    text(&runjob().arg(spec).output().unwrap())
}
