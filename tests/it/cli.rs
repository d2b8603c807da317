//! The command line: exit codes, overrides, files, and what nothing selected means.

use std::path::Path;

use crate::verdicts::{runjob, text};

fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = runjob().current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap();
    (output.status.code(), text(&output))
}

/// A spec of one plain copy, with parts that a test replaces.
fn spec(name: &str, rounds: &str, check: &str) -> std::path::PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli_{name}.toml"));
    let text = format!(
        "name = \"{name}\"\n[dims]\nn = 100\n[tensors]\nx = {{ dtype = \"f32\", shape = [\"n\"], each_round = {{ uniform = {{}} }} }}\n\
         y = {{ dtype = \"f32\", shape = [\"n\"] }}\n[[steps]]\ncopy = \"x\"\nto = \"y\"\n[rounds]\n{rounds}\n{check}"
    );
    std::fs::write(&path, text).unwrap();
    path
}

const RIGHT: &str = "[[checks]]\ntensor = \"y\"\nexpect = \"x\"\nexact = true\n";
const WRONG: &str = "[[checks]]\ntensor = \"y\"\nexpect = \"x + 1\"\n";

#[test]
fn exit_codes_are_as_documented() {
    let (right, wrong) = (spec("right", "count = 3", RIGHT), spec("wrong", "count = 3", WRONG));
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let unchecked = spec("unchecked", "count = 3", "");
    let invalid = spec("invalid", "cuont = 3", RIGHT);
    assert_eq!(run(&[right]).0, Some(0));
    assert_eq!(run(&[wrong]).0, Some(1));
    let (code, text) = run(&[unchecked.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("unchecked") && text.contains("[[checks]]"), "{text}");
    let (code, text) = run(&[invalid.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("did you mean `count`"), "{text}");
    assert_eq!(run(&[right, wrong]).0, Some(1));
    assert_eq!(run(&[right, invalid.to_str().unwrap(), wrong]).0, Some(2));
    assert_eq!(run(&["no/such/spec.toml"]).0, Some(2));
    assert_eq!(run(&["--no-such-flag", right]).0, Some(2));
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&["--rounds", "0", right]).0, Some(2));
    assert_eq!(run(&["--device", "abacus", right]).0, Some(2));
}

#[test]
fn an_empty_folder_selects_nothing_and_is_no_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = run(&[folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(4), "{text}");
}

#[test]
fn an_unexpected_pass_is_an_error() {
    let path = spec("xpass", "count = 2", RIGHT);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("xfail = \"broken\"\n{text}")).unwrap();
    let (code, text) = run(&[path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("xpass"), "{text}");
}

#[test]
fn overrides_reach_the_job_and_unknown_ones_are_errors() {
    let path = spec("overrides", "count = 3", RIGHT);
    let path = path.to_str().unwrap();
    let (code, text) = run(&[path, "--rounds", "7", "--dim", "n=33"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("7 rounds") && text.contains("231 elements"), "{text}");
    let (code, text) = run(&[path, "--dim", "m=33"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("no dim `m`"), "{text}");
    assert_eq!(run(&[path, "--dim", "n"]).0, Some(2));
    assert_eq!(run(&[path, "--dim", "n=-1"]).0, Some(2));
}

#[test]
fn the_same_seed_draws_the_same_and_another_seed_draws_other_inputs() {
    let path = spec("seeds", "count = 1", WRONG);
    let first_want = |seed: &str| {
        let output = runjob().args([path.to_str().unwrap(), "--seed", seed, "--json"]).output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json[0]["failures"][0]["mismatches"][0]["mismatch"]["want"].as_f64().unwrap()
    };
    assert_eq!(first_want("1"), first_want("1"));
    assert_ne!(first_want("1"), first_want("2"));
}

#[test]
fn reports_as_json_hold_verdicts_and_counters() {
    let path = spec("json", "count = 5", RIGHT);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let (code, text) = run(&[path.to_str().unwrap(), &format!("--json={}", file.display())]);
    assert_eq!(code, Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let report = &json[0];
    assert_eq!(report["verdict"], "pass");
    assert_eq!((report["run"].as_u64(), report["checked"].as_u64()), (Some(5), Some(5)));
    assert_eq!(report["checks"][0]["elements"], 500);
    assert_eq!(report["round_counts"]["allocs"], 0);
    assert_eq!(report["round_counts"]["replays"], 5);
    let missing = folder.path().join("no").join("report.json");
    let (code, text) = run(&[path.to_str().unwrap(), &format!("--json={}", missing.display())]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("cannot write"), "{text}");
}

#[test]
fn quiet_says_nothing_of_what_is_well() {
    let (right, wrong) = (spec("quiet_right", "count = 2", RIGHT), spec("quiet_wrong", "count = 2", WRONG));
    assert_eq!(run(&["-q", right.to_str().unwrap()]), (Some(0), String::new()));
    assert!(run(&["-q", wrong.to_str().unwrap()]).1.starts_with("fail"));
}

#[test]
fn check_runs_nothing_and_reports_all_problems() {
    let (code, text) = run(&["check", "specs"]);
    assert_eq!(code, Some(0), "{text}");
    let path = spec("check", "cuont = 3\nsede = 1", "[[checks]]\ntensor = \"z\"\nexpect = \"x\"\n");
    let (code, text) = run(&["check", path.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("cuont") && text.contains("sede") && text.contains("`z`"), "{text}");
    let (code, text) = run(&["check", "--json", path.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{text}");
    let problems: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(problems.len(), 3);
    assert!(problems.iter().all(|p| p["line"].as_u64() > Some(1) && p["message"].is_string()), "{text}");
}

#[test]
fn plan_shows_classes_and_reasons() {
    let (code, text) = run(&["plan", "specs/chain.toml"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("scratch") && text.contains("written and read by steps alone"), "{text}");
    let (code, text) = run(&["plan", "--json", "specs/saxpy.toml"]);
    assert_eq!(code, Some(0), "{text}");
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan["tensors"][1]["class"], "restored");
}

#[test]
fn schema_and_devices_print() {
    let (code, text) = run(&["schema"]);
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["$schema"], "http://json-schema.org/draft-07/schema#");
    let (code, text) = run(&["devices"]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("cpu "), "{text}");
}

/// In CI `RUNJOB_REQUIRE` names every backend that can exist there, so that a skip hides nothing.
#[test]
fn every_required_backend_is_there() {
    let (code, printed) = run(&["devices"]);
    assert_eq!(code, Some(0), "{printed}");
    for args in [&["devices", "--require", "wgpu"][..], &["devices", "--require", "cpu,wgpu"]] {
        let (code, printed) = run(args);
        assert_eq!(code, Some(3), "{printed}");
        assert!(printed.contains("` is required: this version of runjob does not have it"), "{printed}");
    }
    let output = runjob().env("RUNJOB_REQUIRE", "cpu,abacus").arg("devices").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("abacus"));
}

#[test]
fn a_missing_compiler_is_named_with_its_mend() {
    let output = runjob().current_dir(env!("CARGO_MANIFEST_DIR")).env("RUNJOB_CC", "/no/such/cc").arg("specs/saxpy.toml").output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("/no/such/cc") && text.contains("install"), "{text}");
}

#[test]
fn a_read_only_cache_is_no_obstacle() {
    let output =
        runjob().current_dir(env!("CARGO_MANIFEST_DIR")).env("RUNJOB_CACHE", "/proc/no").args(["specs/fails.toml", "-q"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[cfg(unix)]
#[test]
fn the_first_interrupt_ends_after_the_round_and_keeps_its_report() {
    use std::process::Stdio;
    let path = spec("interrupt", "count = 4000000000", RIGHT);
    let mut child = runjob().arg(&path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let code = child.wait().unwrap().code();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
    assert_eq!(code, Some(130), "{text}");
    assert!(text.starts_with("interrupted") && text.contains("stopped after"), "{text}");
}

/// Numbers with a unit of time, rates and the machine's name differ from run to run; everything else is as shown.
fn normal(text: &str) -> Vec<String> {
    let numeric = |word: &str| word.trim_matches(|c: char| "(,".contains(c)).parse::<f64>().is_ok();
    let device = |line: &str| match (line.find("cpu: "), line.find("; trust"), line.find(" on "), line.find(" (trust")) {
        (Some(from), Some(to), ..) => format!("{}DEVICE{}", &line[..from + 5], &line[to..]),
        (_, _, Some(from), Some(to)) => format!("{}DEVICE{}", &line[..from + 4], &line[to..]),
        _ => line.to_string(),
    };
    let mut lines = Vec::new();
    for line in text.lines() {
        let words: Vec<String> = device(line.trim_end()).split(' ').map(String::from).collect();
        let unit = |word: Option<&String>| {
            word.is_some_and(|w| ["ns", "us", "ms", "s", "GB/s"].contains(&w.trim_matches(|c: char| "(),".contains(c))))
        };
        let kept = words.iter().enumerate().map(|(i, word)| match word {
            w if numeric(w) && unit(words.get(i + 1)) => "N".to_string(),
            w if i > 0 && numeric(&words[i - 1]) && unit(Some(w)) => "UNIT".to_string(),
            w => w.clone(),
        });
        lines.push(kept.collect::<Vec<_>>().join(" "));
    }
    lines
}

#[test]
fn the_readme_shows_what_the_program_prints() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut shown = 0;
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let (command, expected) = block.split_once('\n').unwrap();
        let args: Vec<&str> = command.strip_prefix("$ runjob ").unwrap().split(' ').collect();
        let output = runjob().current_dir(env!("CARGO_MANIFEST_DIR")).args(&args).output().unwrap();
        assert_eq!(normal(&String::from_utf8_lossy(&output.stdout)), normal(expected), "{command}");
        shown += 1;
    }
    assert_eq!(shown, 3);
}

#[test]
fn the_readme_shows_the_spec_that_it_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let shown = readme.split("```toml\n").nth(1).and_then(|b| b.split("```").next()).unwrap();
    let real = std::fs::read_to_string(root.join("specs/saxpy.toml")).unwrap();
    let table = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
    assert_eq!(table(shown), table(&real));
}

#[test]
fn json_never_takes_a_spec_for_its_file_and_writes_through_links_and_to_devices() {
    let (right, other) = (spec("json_right", "count = 2", RIGHT), spec("json_other", "count = 2", RIGHT));
    let before = std::fs::read_to_string(&other).unwrap();
    let (code, printed) = run(&["--json", other.to_str().unwrap(), right.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("2 jobs: 2 pass"), "{printed}");
    assert_eq!(run(&[right.to_str().unwrap(), &format!("--json={}", other.display())]).0, Some(2));
    assert_eq!(std::fs::read_to_string(&other).unwrap(), before);
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target.json"), folder.path().join("link.json"));
    std::fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert_eq!(run(&[right.to_str().unwrap(), &format!("--json={}", link.display())]).0, Some(0));
    assert!(std::fs::read_to_string(&target).unwrap().contains("\"pass\""));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let (code, printed) = run(&[right.to_str().unwrap(), "--json=/dev/full"]);
    assert_eq!(code, Some(3), "{printed}");
    assert!(!std::fs::metadata("/dev/full").unwrap().is_file());
}

#[test]
fn what_cannot_be_printed_is_no_success() {
    let right = spec("full", "count = 2", RIGHT);
    for args in [vec![right.to_str().unwrap()], vec!["schema"], vec!["plan", right.to_str().unwrap()]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = runjob().args(&args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", text(&output));
    }
    let output = runjob().args([right.to_str().unwrap(), "--json"]).output().unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok(), "{}", text(&output));
}
