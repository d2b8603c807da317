//! `--only`, which leaves rounds out, and `--dump`, which writes those that failed.

use std::path::{Path, PathBuf};

use crate::verdicts::{runjob, text};

/// Three sets; a copy that is wrong in rounds of set `b` from round 4 on.
const SPEC: &str = r#"
name = "selection"
[dims]
n = 100
[tensors]
x = { dtype = "f32", shape = ["n"], each_round = { uniform = {} } }
s = { dtype = "f32", shape = [] }
y = { dtype = "f32", shape = ["n"] }
[[steps]]
copy = "x"
to = "y"
[rounds]
count = 20
ORDER
[[sets]]
name = "a"
data.s = { fill = 0.0 }
[[sets]]
name = "b"
data.s = { fill = 1.0 }
[[sets]]
name = "other"
data.s = { fill = 0.0 }
[[checks]]
tensor = "y"
expect = "where(s * round > 3, x + 1, x)"
"#;

fn spec(folder: &Path, order: &str) -> PathBuf {
    let path = folder.join("spec.toml");
    std::fs::write(&path, SPEC.replace("ORDER", order)).unwrap();
    path
}

fn run(spec: &Path, args: &[&str]) -> (Option<i32>, serde_json::Value, String) {
    let output = runjob().current_dir(spec.parent().unwrap()).arg("spec.toml").arg("--json").args(args).output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), json, text(&output))
}

/// Rounds that failed, with the first value wanted in each.
fn failures(report: &serde_json::Value) -> Vec<(u64, String, f64)> {
    let failures = report[0]["failures"].as_array().unwrap().iter();
    let first = |f: &serde_json::Value| f["mismatches"][0]["mismatch"]["want"].as_f64().unwrap();
    failures.map(|f| (f["round"].as_u64().unwrap(), f["set"].as_str().unwrap().to_string(), first(f))).collect()
}

#[test]
fn chosen_rounds_keep_their_numbers_and_contents_in_every_mode() {
    let folder = tempfile::tempdir().unwrap();
    for order in ["order = \"cycle\"", "order = \"shuffle\""] {
        let spec = spec(folder.path(), order);
        let (code, all, printed) = run(&spec, &[]);
        assert_eq!(code, Some(1), "{printed}");
        let expected = failures(&all);
        assert!(expected.len() == 5 && expected.iter().all(|(_, set, _)| set == "b"), "{expected:?}");
        let more: [&[&str]; 4] = [&["--host", "pool"], &["--in-process"], &["--chaos", "3"], &["--batch", "4", "--discrete"]];
        for mode in [&[][..], &["--lanes", "2"], &["--slots", "3"], &["--fresh"]].into_iter().chain(more) {
            let (code, report, printed) = run(&spec, &[&["--only", "b"], mode].concat());
            assert_eq!(code, Some(1), "{mode:?}: {printed}");
            assert_eq!(failures(&report), expected, "{mode:?}");
            let (rounds, left_out) = (report[0]["rounds"].as_u64().unwrap(), report[0]["not_selected"].as_u64().unwrap());
            assert_eq!(rounds + left_out, 20, "{printed}");
            assert!((6..=7).contains(&rounds), "{rounds}");
            assert_eq!(report[0]["run"], rounds);
            assert_eq!(report[0]["failed_rounds"], all[0]["failed_rounds"]);
            let (code, report, printed) = run(&spec, &[&["--only", "a", "--only", "oth*"], mode].concat());
            assert_eq!(code, Some(0), "{mode:?}: {printed}");
            assert_eq!(report[0]["checked"].as_u64().unwrap() + report[0]["not_selected"].as_u64().unwrap(), 20);
            assert!(printed.contains("not selected)"), "{printed}");
        }
    }
}

#[test]
fn rounds_that_are_checked_every_so_often_are_the_same_of_chosen_sets() {
    let folder = tempfile::tempdir().unwrap();
    for order in ["cycle", "shuffle"] {
        let path = spec(folder.path(), &format!("order = \"{order}\""));
        let plain = std::fs::read_to_string(&path).unwrap().replace("count = 20", "count = 18");
        for (every, of_b) in [(4, &[7, 16][..]), (100, &[16]), (1, &[4, 7, 10, 13, 16])] {
            let condition = format!("[[checks]]\nholds = \"min(after(y)) >= 0\"\nevery = {every}\n");
            std::fs::write(&path, format!("{plain}every = {every}\n{condition}")).unwrap();
            for mode in [&[][..], &["--lanes", "2"], &["--slots", "3"], &["--fresh"], &["--host", "pool"], &["--batch", "4"]] {
                // Those of a round that is left out, and the last of those that are run.
                let (code, report, printed) = run(&path, &[&["--only", "b"], mode].concat());
                assert_eq!(code, Some(1), "{mode:?}: {printed}");
                let checks = report[0]["checks"].as_array().unwrap();
                assert!(checks.iter().all(|check| check["rounds"].as_u64().unwrap() + check["left_out"].as_u64().unwrap() == 6));
                let rounds: Vec<u64> = failures(&report).iter().map(|(round, ..)| *round).collect();
                if order == "cycle" {
                    assert_eq!(rounds, of_b, "{every} {mode:?}: {printed}");
                }
                let (code, report, printed) = run(&path, &[&["--only", "a", "--only", "other"], mode].concat());
                assert_eq!(code, Some(0), "{every} {mode:?}: {printed}");
                assert_eq!(report[0]["checked"], 12);
                assert!(report[0]["checks"][1]["rounds"].as_u64() > Some(0), "{printed}");
            }
        }
    }
}

#[test]
fn a_stale_output_is_of_the_round_that_was_run_before() {
    let folder = tempfile::tempdir().unwrap();
    // Its result comes one round late.
    let spec = r#"
name = "stale"
[tensors]
x = { dtype = "f32", shape = [64], each_round = { uniform = {} } }
y = { dtype = "f32", shape = [64] }
[kernels.k]
params = ["in f32 x", "out f32 y"]
source = { cpu = { lang = "c", text = """
#include <runjob.h>
static float kept[64];
void k(const float *x, float *y) { for (int i = 0; i < 64; i++) { y[i] = kept[i]; kept[i] = x[i]; } }
""" } }
[[steps]]
kernel = "k"
[rounds]
count = 12
[[sets]]
name = "a"
[[sets]]
name = "b"
[[sets]]
name = "c"
[[checks]]
tensor = "y"
expect = "x"
"#;
    let path = folder.path().join("spec.toml");
    std::fs::write(&path, spec).unwrap();
    for (only, before) in [(&[][..], 3), (&["--only", "b"], 1), (&["--only", "b", "--only", "a"], 3)] {
        let (code, report, printed) = run(&path, &[only, &["--lanes", "1", "--slots", "1"]].concat());
        assert_eq!(code, Some(1), "{printed}");
        let failure = report[0]["failures"].as_array().unwrap().iter().find(|failure| failure["round"] == 4).unwrap();
        let patterns = failure["patterns"].to_string();
        assert!(patterns.contains(&format!("round {before}")), "{only:?}: {patterns}");
    }
}

#[test]
fn a_plan_says_which_rounds_it_is_of() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(folder.path(), "");
    let output = runjob().arg("plan").arg(&spec).args(["--only", "b"]).output().unwrap();
    assert!(text(&output).contains("7 of 20: those of the sets that --only names"), "{}", text(&output));
}

#[test]
fn what_selects_nothing_is_no_pass() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(folder.path(), "");
    for (args, expected, message) in [
        (&["--only", "othre"][..], 4, "did you mean `other`?"),
        (&["--only", "z*"], 4, "there is no set `z*`"),
        (&["--only", "b", "--only", "c"], 2, "there is no set `c`"),
        (&["--only", "other", "--rounds", "2"], 4, "the first that has one is round 2: --rounds 3"),
    ] {
        for more in [&[][..], &["--in-process"]] {
            let (code, report, printed) = run(&spec, &[args, more].concat());
            assert_eq!(code, Some(expected), "{args:?}: {printed}");
            assert!(printed.contains(message), "{args:?}: {printed}");
            assert_ne!(report[0]["verdict"], "pass");
        }
        let output = runjob().arg("plan").arg(&spec).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{}", text(&output));
    }
    let plain = SPEC.split("[[sets]]").next().unwrap().replace("ORDER", "").replace("s = { dtype = \"f32\", shape = [] }\n", "");
    std::fs::write(&spec, plain + "[[checks]]\ntensor = \"y\"\nexpect = \"x\"\n").unwrap();
    let (code, _, printed) = run(&spec, &["--only", "b"]);
    assert_eq!(code, Some(4), "{printed}");
    assert!(printed.contains("the spec has no [[sets]]"), "{printed}");
}

#[test]
fn rounds_of_a_carried_job_are_not_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(folder.path(), "");
    let text = std::fs::read_to_string(&spec).unwrap();
    let carried = "y = { dtype = \"f32\", shape = [\"n\"], data = \"zeros\", carry = true }";
    std::fs::write(&spec, text.replace("y = { dtype = \"f32\", shape = [\"n\"] }", carried)).unwrap();
    let (code, _, printed) = run(&spec, &["--only", "b"]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("`y` is carried from round to round"), "{printed}");
}

/// The f32 elements of an array file.
fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[start..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn failing_rounds_are_dumped_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    spec(folder.path(), "");
    // Rounds 4, 7, 10, 13 and 16 are explained, 19 is counted.
    let expected = ["round-10", "round-13", "round-16", "round-4", "round-7"];
    for (at, mode) in [&[][..], &["--lanes", "4"], &["--slots", "3"], &["--fresh"], &["--in-process"]].into_iter().enumerate() {
        let out = format!("out {at}");
        let output = runjob().current_dir(folder.path()).args(["spec.toml", "--dump", &out]).args(mode).output().unwrap();
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(1), "{printed}");
        assert!(printed.contains(&format!("    files  {out}/round-16\n")), "{printed}");
        let out = folder.path().join(out);
        assert_eq!(names(&out), expected, "{mode:?}");
        let round = out.join("round-7");
        let (x, got, want) = (floats(&round.join("in/x.npy")), floats(&round.join("got/y.npy")), floats(&round.join("want/y.npy")));
        assert_eq!(got, x);
        assert!(x.len() == 100 && x.iter().zip(&want).all(|(x, want)| *want == (f64::from(*x) + 1.0) as f32), "{x:?} {want:?}");
        assert_eq!(floats(&round.join("in/s.npy")), [1.0]);
        assert_eq!(names(&round.join("in")), ["s.npy", "x.npy"]);
    }
    // They are what `inputs` writes.
    let output = runjob().current_dir(folder.path()).args(["inputs", "spec.toml", "--round", "7", "--out", "seven"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for name in ["x.npy", "s.npy"] {
        let [dumped, written] = ["out 0/round-7/in", "seven"].map(|of| std::fs::read(folder.path().join(of).join(name)).unwrap());
        assert_eq!(dumped, written, "{name}");
    }
}

/// Claims of every kind about copies of `x`, of which each fails.
const CLAIMS: &str = r#"
name = "claims"
[dims]
n = 6
[tensors]
x = { dtype = "f32", shape = ["n"], data = { values = [0, 1, 2, 3, 4, 5] } }
part = { dtype = "f32", shape = ["n"] }
masked = { dtype = "f32", shape = ["n"] }
any = { dtype = "f32", shape = ["n"] }
left = { dtype = "f32", shape = ["n"] }
right = { dtype = "f32", shape = ["n"] }
golden = { dtype = "f32", shape = [2, 3], data = { values = [0, 1, 2, 3, 4, 5] } }
box = { dtype = "f32", shape = [2, 3] }
steps = { dtype = "f32", shape = ["n"] }
[[steps]]
copy = "x"
to = "part"
[[steps]]
copy = "x"
to = "masked"
[[steps]]
copy = "x"
to = "any"
[[steps]]
copy = "x"
to = "left"
[[steps]]
copy = "x"
to = "right"
[[steps]]
copy = "golden"
to = "box"
[[steps]]
copy = "x[0:n-1]"
to = "steps[0:n-1]"
[[checks]]
tensor = "part[2:4]"
expect = "x + 10"
[[checks]]
tensor = "part[5:6]"
expect = { values = [70] }
[[checks]]
tensor = "masked"
where = "x > 3"
expect = "x + 10"
[[checks]]
tensor = "any"
unordered = true
expect = "n - index(0)"
[[checks]]
holds = "sum(after(left)) > sum(after(right))"
[[checks]]
tensor = "box[:, 1:3]"
expect = { values = [[1, 2], [9, 5]] }
[[checks]]
tensor = "box"
expect = { values = [[0, 1, 2], [3, 4, 5]] }
[[checks]]
tensor = "steps"
written = true
"#;

#[test]
fn a_dump_has_the_shape_of_the_tensor_whatever_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spec.toml");
    std::fs::write(&path, CLAIMS).unwrap();
    for (at, mode) in [&[][..], &["--fresh"], &["--host", "pool"]].into_iter().enumerate() {
        let out = format!("out {at}");
        let (code, _, printed) = run(&path, &[&["--dump", &out], mode].concat());
        assert_eq!(code, Some(1), "{printed}");
        assert!(!printed.contains("warning"), "{printed}");
        let round = folder.path().join(out).join("round-0");
        // What was not compared is wanted as it is; what no element is wanted of has no file.
        for (name, values) in [
            ("part", &[0.0, 1.0, 12.0, 13.0, 4.0, 5.0][..]),
            ("part-2", &[0.0, 1.0, 2.0, 3.0, 4.0, 70.0]),
            ("masked", &[0.0, 1.0, 2.0, 3.0, 14.0, 15.0]),
            ("any", &[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]),
            ("box", &[0.0, 1.0, 2.0, 3.0, 9.0, 5.0]),
        ] {
            assert_eq!(floats(&round.join(format!("want/{name}.npy"))), values, "{name}: {printed}");
        }
        assert_eq!(names(&round.join("want")), ["any.npy", "box.npy", "masked.npy", "part-2.npy", "part.npy"]);
        assert_eq!(names(&round.join("got")), ["any", "box", "left", "masked", "part", "right", "steps"].map(|name| format!("{name}.npy")));
        assert_eq!(floats(&round.join("got/left.npy")), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}

#[test]
fn what_cannot_be_dumped_is_told_and_changes_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(folder.path(), "");
    let (code, report, printed) = run(&spec, &["--dump", "/proc/no"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("warning: cannot make the folder `/proc/no/round-4`"), "{printed}");
    assert_eq!(report[0]["verdict"], "fail");
    assert_eq!(report[0]["failed_rounds"], 6);
    // A passing run leaves no folder.
    let (code, _, printed) = run(&spec, &["--dump", "none", "--only", "a"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(!folder.path().join("none").exists());
}

#[test]
fn a_dump_is_not_mixed_with_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(folder.path(), "");
    assert_eq!(run(&spec, &["--dump", "out"]).0, Some(1));
    let (code, _, printed) = run(&spec, &["--dump", "out"]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("is of an earlier run"), "{printed}");
    let output = runjob().arg(&spec).arg(&spec).args(["--dump", "two"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}
