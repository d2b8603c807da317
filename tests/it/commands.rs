//! The commands beside `run`: a spec to start from, a round's inputs, completions, devices, help, and how a run is stopped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::verdicts::{runjob, text};

/// Runs in a folder: exit code and what was printed.
fn run_in(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = runjob().current_dir(folder).args(args).output().unwrap();
    (output.status.code(), text(&output))
}

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn what_init_writes_passes_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let (code, printed) = run_in(folder.path(), &["init"]);
    assert_eq!(code, Some(0), "{printed}");
    for file in ["saxpy.toml", "saxpy.c", "runjob.schema.json"] {
        assert!(printed.contains(file) && folder.path().join(file).is_file(), "{file}: {printed}");
    }
    assert!(printed.ends_with("run it: runjob saxpy.toml\n"), "{printed}");
    let (code, printed) = run_in(folder.path(), &["saxpy.toml"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.starts_with("pass saxpy: 100 rounds, every one checked"), "{printed}");
    assert_eq!(run_in(folder.path(), &["check", "saxpy.toml"]), (Some(0), "saxpy.toml: ok\n".into()));
    let spec = std::fs::read_to_string(folder.path().join("saxpy.toml")).unwrap();
    assert!(spec.starts_with("#:schema ./runjob.schema.json\n"), "{spec}");
    let schema: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("runjob.schema.json")).unwrap()).unwrap();
    let spec: serde_json::Value = serde_json::to_value(toml::from_str::<toml::Table>(&spec).unwrap()).unwrap();
    assert!(jsonschema::is_valid(&schema, &spec));
}

#[test]
fn init_overwrites_nothing_and_names_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "saxpy.c", "mine");
    let (code, printed) = run_in(folder.path(), &["init"]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("`saxpy.c` is there already"), "{printed}");
    assert_eq!(std::fs::read_to_string(folder.path().join("saxpy.c")).unwrap(), "mine");
    assert!(!folder.path().join("saxpy.toml").exists());
    std::fs::remove_file(folder.path().join("saxpy.c")).unwrap();
    assert_eq!(run_in(folder.path(), &["init"]).0, Some(0));
    let (code, printed) = run_in(folder.path(), &["init"]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("`saxpy.toml` is there already"), "{printed}");
    // The kernel and the schema serve a second spec.
    let (code, printed) = run_in(folder.path(), &["init", "second.toml"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("kept  saxpy.c") && printed.contains("wrote second.toml"), "{printed}");
    assert_eq!(run_in(folder.path(), &["-q", "second.toml"]), (Some(0), String::new()));
}

#[test]
fn init_takes_folders_and_files_of_any_name() {
    let folder = tempfile::tempdir().unwrap();
    for (place, spec) in [("it's a [folder] ü/sub", "it's a [folder] ü/sub/saxpy.toml"), ("spécs/my job.toml", "spécs/my job.toml")] {
        let (code, printed) = run_in(folder.path(), &["init", place]);
        assert_eq!(code, Some(0), "{printed}");
        let (code, printed) = run_in(folder.path(), &["-q", spec]);
        assert_eq!((code, printed.as_str()), (Some(0), ""));
    }
    let (code, printed) = run_in(folder.path(), &["init", "it's a [folder] ü/sub/third.toml"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains(r"run it: runjob 'it'\''s a [folder] ü/sub/third.toml'"), "{printed}");
}

#[test]
fn where_init_cannot_write_it_says_so_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "file", "");
    for place in ["/proc/no/such", "file", "file/below"] {
        let (code, printed) = run_in(folder.path(), &["init", place]);
        assert_eq!(code, Some(3), "{printed}");
        assert!(printed.contains("cannot write") && printed.contains(place), "{printed}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A job with contents of every kind; its kernel is a copy.
const INPUTS: &str = r#"
name = "inputs"
[dims]
n = 5
[tensors]
x = { dtype = "f32", shape = ["n"], each_round = { range = { start = "round", step = 1 } } }
w = { dtype = "bf16", shape = [2], data = { values = [1.0, -2.0] } }
k = { dtype = "i32", shape = [], each_round = { integers = { low = "10 * round", high = "10 * round" } } }
s = { dtype = "u8", shape = [2] }
acc = { dtype = "f32", shape = ["n"], data = "ones", carry = true }
y = { dtype = "f32", shape = ["n"] }
v = { dtype = "bf16", shape = [2] }
z = { dtype = "u8", shape = [2] }
c = { dtype = "i32", shape = [] }
[[steps]]
copy = "x"
to = "y"
[[steps]]
copy = "w"
to = "v"
[[steps]]
copy = "k"
to = "c"
[[steps]]
copy = "s"
to = "z"
[[steps]]
copy = "y"
to = "acc"
[rounds]
count = 6
[[sets]]
name = "a"
data.s = { values = [1, 2] }
[[sets]]
name = "b"
data.s = { values = [3, 4] }
[[checks]]
tensor = "y"
expect = "x"
[[checks]]
tensor = "v"
expect = "w"
[[checks]]
tensor = "z"
expect = "s"
[[checks]]
tensor = "c"
expect = "k"
[[checks]]
tensor = "acc"
expect = "x"
"#;

/// The elements of an array file and its dtype and shape as NumPy writes them.
fn array(path: &Path) -> (String, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(start % 64, 0);
    (String::from_utf8_lossy(&bytes[10..start]).trim().to_string(), bytes[start..].to_vec())
}

fn floats(path: &Path) -> Vec<f32> {
    array(path).1.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn inputs_are_what_the_round_starts_with() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write(dir, "spec.toml", INPUTS);
    let (code, printed) = run_in(dir, &["spec.toml", "-q"]);
    assert_eq!((code, printed.as_str()), (Some(0), ""));
    let (code, printed) = run_in(dir, &["inputs", "spec.toml", "--round", "3", "--out", "out/three"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.starts_with("inputs: round 3, set b\n"), "{printed}");
    assert!(printed.contains("out/three/x.npy") && printed.contains("`acc` is carried"), "{printed}");
    let out = dir.join("out/three");
    assert_eq!(floats(&out.join("x.npy")), [3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!(array(&out.join("k.npy")), ("{'descr': '<i4', 'fortran_order': False, 'shape': (), }".into(), 30i32.to_le_bytes().to_vec()));
    let (header, bf16) = array(&out.join("w.npy"));
    assert!(header.contains("'<V2'") && bf16 == [0x80, 0x3f, 0x00, 0xc0], "{header} {bf16:?}");
    assert_eq!(array(&out.join("s.npy")).1, [3, 4]);
    assert!(!out.join("acc.npy").exists() && !out.join("y.npy").exists());
    // The carried tensor's start is known in round 0.
    assert_eq!(run_in(dir, &["inputs", "spec.toml", "--out", "zero"]).0, Some(0));
    assert_eq!(floats(&dir.join("zero/acc.npy")), [1.0; 5]);
    // A set's first round.
    let (code, printed) = run_in(dir, &["inputs", "spec.toml", "--set", "b", "--out", "b"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.starts_with("inputs: round 1, set b\n") && floats(&dir.join("b/x.npy"))[0] == 1.0, "{printed}");
    // As others write files: readable by whom the user lets.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = write(dir, "plain", "");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&plain), mode(&out.join("x.npy")));
    }
}

/// Contents computed from others: fixed, of sets, and of the round.
const COMPUTED: &str = r#"
name = "computed"
[dims]
n = 4
[tensors]
y = { dtype = "f32", shape = ["n"] }
sum = { dtype = "f32", shape = ["n"], each_round = { expr = "twice + k + round" } }
twice = { dtype = "f32", shape = ["n"], data = { expr = "base * 2" } }
base = { dtype = "f32", shape = ["n"] }
k = { dtype = "i8", shape = [], each_round = { expr = "round * 50" } }
[[steps]]
copy = "sum"
to = "y"
[rounds]
count = 4
[[sets]]
name = "a"
data.base = { values = [1, 2, 3, 4] }
[[sets]]
name = "b"
data.base = { values = [5, 6, 7, 8] }
[[checks]]
tensor = "y"
expect = "sum"
"#;

#[test]
fn computed_inputs_are_those_of_the_round_and_its_set() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write(dir, "spec.toml", COMPUTED);
    for (round, twice, k) in [(0u8, [2.0, 4.0, 6.0, 8.0], 0u8), (1, [10.0, 12.0, 14.0, 16.0], 50), (2, [2.0, 4.0, 6.0, 8.0], 100)] {
        let (number, out) = (round.to_string(), format!("out {round}"));
        let (code, printed) = run_in(dir, &["inputs", "spec.toml", "--round", &number, "--out", &out]);
        assert_eq!(code, Some(0), "{printed}");
        let out = dir.join(out);
        assert_eq!(floats(&out.join("twice.npy")), twice);
        assert_eq!(array(&out.join("k.npy")).1, [k]);
        assert_eq!(floats(&out.join("sum.npy")), twice.map(|x| x + f32::from(k) + f32::from(round)));
        assert!(!out.join("y.npy").exists());
    }
    // A round whose contents have no value has no files.
    let (code, printed) = run_in(dir, &["inputs", "spec.toml", "--round", "3", "--out", "three"]);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("contents of `k`: at [], 150"), "{printed}");
    assert!(!dir.join("three/base.npy").exists());
    // A run has the same in them.
    let (code, printed) = run_in(dir, &["spec.toml", "--rounds", "3", "-q"]);
    assert_eq!((code, printed.as_str()), (Some(0), ""));
    let wrong = COMPUTED.replace("expect = \"sum\"", "expect = \"sum + 1\"");
    write(dir, "wrong.toml", &wrong);
    let (code, printed) = run_in(dir, &["wrong.toml", "--rounds", "3", "--dump", "dump"]);
    assert_eq!(code, Some(1), "{printed}");
    for name in ["sum.npy", "twice.npy", "base.npy", "k.npy"] {
        let [dumped, written] = ["dump/round-1/in", "out 1"].map(|of| std::fs::read(dir.join(of).join(name)).unwrap());
        assert_eq!(dumped, written, "{name}");
    }
}

#[test]
fn inputs_write_over_nothing_unasked_and_refuse_rounds_that_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write(dir, "spec.toml", INPUTS);
    std::fs::create_dir(dir.join("out")).unwrap();
    write(&dir.join("out"), "k.npy", "mine");
    let (code, printed) = run_in(dir, &["inputs", "spec.toml", "--out", "out"]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("k.npy` is there already; --force"), "{printed}");
    assert_eq!(std::fs::read_dir(dir.join("out")).unwrap().count(), 1);
    assert_eq!(run_in(dir, &["inputs", "spec.toml", "--out", "out", "--force"]).0, Some(0));
    assert_eq!(array(&dir.join("out/k.npy")).1, [0; 4]);
    for (args, code, message) in [
        (&["--round", "6"][..], 2, "there is no round 6: the job has 6, from 0 to 5; --rounds 7 makes it longer"),
        (&["--set", "bb"], 4, "there is no set `bb`; did you mean `b`?"),
        (&["--round", "2", "--set", "b"], 2, "round 2 has set `a`, not `b`; the next one of `b` is round 3"),
        (&["--rounds", "1", "--set", "b"], 4, "none of the 1 rounds has set `b`"),
        (&["--lanes", "2"], 2, "--lanes"),
    ] {
        let output = runjob().current_dir(dir).args(["inputs", "spec.toml", "--out", "no"]).args(args).output().unwrap();
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {printed}");
        assert!(printed.contains(message), "{args:?}: {printed}");
    }
    assert!(!dir.join("no").exists());
    let (code, printed) = run_in(dir, &["inputs", "spec.toml", "--out", "/proc/no"]);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("cannot write `/proc/no`"), "{printed}");
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = runjob().args(["completions", shell]).output().unwrap();
        let script = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(script.contains("inputs") && script.contains("trust"), "{shell}: {script}");
    }
    assert_eq!(runjob().args(["completions", "cmd"]).output().unwrap().status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn completions_for_bash_parse() {
    let folder = tempfile::tempdir().unwrap();
    let script = runjob().args(["completions", "bash"]).output().unwrap().stdout;
    let path = folder.path().join("runjob.bash");
    std::fs::write(&path, script).unwrap();
    let output = std::process::Command::new("bash").arg("-n").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn devices_say_what_is_missing_and_how_to_get_it() {
    let (code, printed) = run_in(Path::new("."), &["devices"]);
    assert_eq!(code, Some(0), "{printed}");
    let line = printed.lines().find(|line| line.starts_with("wgpu"));
    assert!(line.is_some_and(|line| line.contains("this version of runjob does not have it")), "{printed}");
    assert!(printed.starts_with("cpu ") && printed.contains("threads") && printed.contains("memory"), "{printed}");
    let output = runjob().args(["devices", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let backends: Vec<_> = json.as_array().unwrap().iter().map(|d| d["backend"].as_str().unwrap()).collect();
    let mut once = backends.clone();
    once.dedup();
    assert_eq!(once, ["cpu", "opencl", "wgpu", "cuda"]);
    assert!(json[0]["missing"].is_null() && json[0]["caps"]["lanes"].as_u64() > Some(0), "{json}");
    for device in json.as_array().unwrap() {
        // Either it is there, with the words that name it, or it is said why not.
        assert_eq!(device["device"].is_string(), device["caps"].is_object(), "{device}");
        assert_eq!(device["missing"].is_string(), device["caps"].is_null(), "{device}");
    }
    // What is missing is told, and fails where it is required.
    for (required, code) in [("", 0), ("cpu", 3)] {
        let output = runjob().env("RUNJOB_CC", "/no/such/cc").env("RUNJOB_REQUIRE", required).arg("devices").output().unwrap();
        let text = text(&output);
        assert!(text.contains("kernels in C (.c): no compiler") && text.contains("install"), "{text}");
        assert_eq!(output.status.code(), Some(code), "RUNJOB_REQUIRE={required}: {text}");
    }
}

#[test]
fn help_fits_one_screen_and_every_flag_has_a_line() {
    let (code, help) = run_in(Path::new("."), &["--help"]);
    assert_eq!(code, Some(0));
    assert!(help.lines().count() <= 60, "{} lines:\n{help}", help.lines().count());
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    for line in help.lines().filter(|line| line.trim_start().starts_with('-')) {
        let words = line.trim().split("  ").filter(|part| !part.is_empty()).count();
        assert!(words >= 2, "no text: {line}");
    }
    for heading in ["What is run:", "How it is run:", "What is told:"] {
        assert!(help.contains(heading), "{help}");
    }
    for command in ["run", "init", "check", "plan", "inputs", "devices", "schema", "completions"] {
        let (code, of) = run_in(Path::new("."), &["help", command]);
        assert_eq!(code, Some(0), "{of}");
        assert!(of.contains("Usage: runjob"), "{of}");
    }
}

#[test]
fn what_is_neither_command_nor_file_is_answered_with_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "spec.toml", "");
    for (args, message) in [
        (&["sepc.toml"][..], "there is no file `sepc.toml`; did you mean `spec.toml`?"),
        (&["./sepc.toml"], "there is no file `./sepc.toml`; did you mean `./spec.toml`?"),
        (&["pln", "spec.toml"], "there is no command or file `pln`; did you mean `runjob plan`?"),
        (&["check", "elsewhere.toml"], "there is no file `elsewhere.toml`\n"),
    ] {
        let (code, printed) = run_in(folder.path(), args);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains(message), "{printed}");
    }
}

#[test]
fn flags_that_would_be_ignored_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["--rounds", "3", "plan", "spec.toml"][..],
        &["check", "--rounds", "3", "spec.toml"],
        &["plan", "--dump", "out", "spec.toml"],
        &["devices", "--trust", "fast"],
        &["--fresh", "--lanes", "2", "spec.toml"],
        &["-q", "-v", "spec.toml"],
        &["init", "--force"],
    ] {
        let (code, printed) = run_in(folder.path(), args);
        assert_eq!(code, Some(2), "{args:?}: {printed}");
        assert!(printed.contains("error:") && !printed.contains("there is no file"), "{args:?}: {printed}");
    }
}

/// A job that runs for an hour in one round, or in very many.
#[cfg(unix)]
fn stopped(folder: &Path, rounds: &str, sleeps: bool, signal: &str) -> (Option<i32>, String) {
    write(folder, "k.c", "#include <runjob.h>\n#include <unistd.h>\nvoid k(float *y) { if (SLEEPS) sleep(3600); y[0] = 1; }\n");
    let spec = format!(
        "name = \"stopped\"\n[kernels.k]\nparams = [\"out f32 y\"]\nsource = \"k.c\"\ndefines = {{ SLEEPS = {} }}\n[tensors]\n\
         y = {{ dtype = \"f32\", shape = [1] }}\n[[steps]]\nkernel = \"k\"\n[rounds]\ncount = {rounds}\n[limits]\nrun = \"3600s\"\n\
         [[checks]]\ntensor = \"y\"\nexpect = \"1\"\n",
        u8::from(sleeps)
    );
    write(folder, "spec.toml", &spec);
    let mut child = runjob().current_dir(folder).arg("spec.toml").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let code = child.wait().unwrap().code();
    let mut printed = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut printed).unwrap();
    (code, printed)
}

#[cfg(unix)]
#[test]
fn a_terminated_run_keeps_the_rounds_that_end_and_waits_for_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let (code, printed) = stopped(folder.path(), "4000000000", false, "-TERM");
    assert_eq!(code, Some(143), "{printed}");
    assert!(printed.starts_with("interrupted") && printed.contains("stopped after"), "{printed}");
    // A round that does not end is not waited for.
    let (code, printed) = stopped(folder.path(), "1", true, "-TERM");
    assert_eq!(code, Some(143), "{printed}");
    assert!(printed.starts_with("interrupted"), "{printed}");
}
