//! A machine that does not do its part: full disks, missing compilers, broken files, parents that are killed. Each ends in
//! a documented exit code and a message that names the place.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::verdicts::{runjob, text};

/// A job of one kernel in C, in a folder of its own, with a line more.
fn job(folder: &Path, count: u64, more: &str) -> PathBuf {
    let code = "void twice(const float *x, float *y, unsigned n) { for (unsigned i = 0; i < n; ++i) y[i] = 2 * x[i]; }\n";
    std::fs::write(folder.join("twice.c"), code).unwrap();
    let spec = folder.join("twice.toml");
    let text = format!(
        "[kernels.twice]\nparams = [\"in f32 x\", \"out f32 y\", \"u32 n\"]\nsource = \"twice.c\"\n\
         [tensors]\nx = {{ dtype = \"f32\", shape = [1000], each_round = {{ uniform = {{}} }} }}\n\
         y = {{ dtype = \"f32\", shape = [1000] }}\n[[steps]]\nkernel = \"twice\"\nargs = {{ n = 1000 }}\n\
         [rounds]\ncount = {count}\n[[checks]]\ntensor = \"y\"\nexpect = \"2 * x\"\n{more}"
    );
    std::fs::write(&spec, text).unwrap();
    spec
}

fn ends(command: &mut Command, code: i32, says: &[&str]) -> String {
    let output: Output = command.stdin(Stdio::null()).output().unwrap();
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(code), "{printed}");
    for said in says {
        assert!(printed.contains(said), "it does not say `{said}`:\n{printed}");
    }
    assert!(!printed.contains("itself failed") && !printed.contains("panicked"), "{printed}");
    printed
}

/// A program that stands for the compiler: it says a version, then does something.
fn compiler(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("fake-cc");
    std::fs::write(&path, format!("#!/bin/sh\ncase \"$1\" in --version) echo fake 1.0; exit;; esac\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The program under a shell's limit on the size of files, in its own blocks.
fn limited(blocks: u32, cache: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -f {blocks}; trap '' XFSZ; exec \"$@\"");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_runjob")]).args(args).env("RUNJOB_CACHE", cache).env("NO_COLOR", "1");
    command
}

#[test]
fn without_a_compiler_on_the_path_it_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let spec = job(folder.path(), 3, "");
    let mut command = runjob();
    command.arg(&spec).env("PATH", folder.path()).env("RUNJOB_CACHE", folder.path().join("cache"));
    for key in ["RUNJOB_CC", "CC", "RUNJOB_CXX", "CXX"] {
        command.env_remove(key);
    }
    ends(&mut command, 3, &["compiler", "install"]);
}

#[test]
fn a_compiler_that_fails_or_hangs_is_an_error_of_its_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let spec = job(folder.path(), 3, "[limits]\ncompile = \"400ms\"\n");
    let with = |script: &str| {
        let mut command = runjob();
        command.arg(&spec).env("RUNJOB_CC", compiler(folder.path(), script)).env("RUNJOB_CACHE", folder.path().join("cache"));
        command
    };
    ends(&mut with("echo 'twice.c:1:2: error: no'; exit 1"), 3, &["twice", "error: no"]);
    ends(&mut with("exec sleep 600"), 3, &["compile", "400"]);
}

/// What a kernel is refused by must be a compiler.
#[test]
fn a_kernel_that_must_not_build_passes_by_no_fault_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("refused.toml");
    let job = |source: &str| {
        let text = format!(
            "[limits]\ncompile = \"400ms\"\n[kernels.k]\nparams = [\"out f32 y\"]\nsource = {source}\n\
             [[checks]]\nkernel = \"k\"\nbuild = \"fails\"\n"
        );
        std::fs::write(&spec, text).unwrap();
    };
    let with = |cc: &Path| {
        let mut command = runjob();
        command.arg(&spec).env("RUNJOB_CC", cc).env("RUNJOB_CACHE", folder.path().join("cache"));
        command
    };
    let ended = |script: &str| with(&compiler(folder.path(), script));
    job("{ cpu = { text = 'void k(float *y) { y[0] = nowhere; }' } }");
    ends(&mut ended("echo 'k.c:1:2: error: no'; exit 1"), 0, &["pass refused: 1 build checked"]);
    ends(&mut with(Path::new("/no/such/cc")), 3, &["error refused: 0 of 1 build checked", "no C compiler", "install"]);
    ends(&mut ended("exit 1"), 3, &["error refused", "kernel `k`: ", "failed (exit status: 1)"]);
    ends(&mut ended("echo 'cc: fatal error: Killed signal terminated program cc1'; exit 1"), 3, &["error refused", "terminated"]);
    ends(&mut ended("echo 'k.c:1: internal compiler error: in fold'; exit 1"), 3, &["error refused", "internal compiler error"]);
    ends(&mut ended("echo 'error: no'; kill -9 $$"), 3, &["error refused", "error: no"]);
    ends(&mut ended("exec sleep 600"), 3, &["timeout refused", "while compiling and loading `k`", "limits.compile"]);
    // Of a source in another encoding and of a built object the compiler never hears.
    std::fs::write(folder.path().join("k.c"), b"void k(float *y) { y[0] = \xff; }").unwrap();
    job("\"k.c\"");
    ends(&mut with(Path::new("cc")), 3, &["error refused", "is not UTF-8"]);
    std::fs::write(folder.path().join("k.so"), "none").unwrap();
    job("\"k.so\"");
    ends(&mut with(Path::new("cc")), 3, &["error refused", "is not a shared object"]);
}

/// Neither a kernel that was built before nor one that failed before is taken for the other.
#[test]
fn the_cache_hides_no_build() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("cached.toml");
    let run = |build: &str, value: &str, code: i32, says: &str| {
        let text = format!(
            "[kernels.k]\nparams = [\"out f32 y\"]\nsource = {{ cpu = {{ text = 'void k(float *y) {{ y[0] = {value}; }}' }} }}\n\
             [[checks]]\nkernel = \"k\"\nbuild = \"{build}\"\n"
        );
        std::fs::write(&spec, text).unwrap();
        ends(runjob().arg(&spec).env("RUNJOB_CACHE", folder.path().join("cache")), code, &[says]);
    };
    for _ in 0..2 {
        run("ok", "1", 0, "pass cached: 1 build checked");
        run("fails", "1", 1, "kernel `k` builds, the check says it must not");
        run("fails", "nowhere", 0, "pass cached: 1 build checked");
        run("ok", "nowhere", 1, "kernel `k` does not build");
    }
}

#[test]
fn a_cache_below_a_file_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let spec = job(folder.path(), 3, "");
    std::fs::write(folder.path().join("file"), "").unwrap();
    ends(runjob().arg(&spec).env("RUNJOB_CACHE", folder.path().join("file/cache")), 0, &["pass"]);
}

#[test]
fn files_that_cannot_grow_end_in_an_error_or_are_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let spec = job(folder.path(), 3, "");
    let cache = folder.path().join("cache");
    for blocks in [0, 1, 8, 16] {
        let output = limited(blocks, &cache, &[spec.to_str().unwrap()]).output().unwrap();
        let printed = text(&output);
        assert!(matches!(output.status.code(), Some(0 | 3)), "{blocks} blocks: {:?}\n{printed}", output.status);
        assert!(!printed.contains("itself failed") && !printed.contains("panicked"), "{blocks} blocks: {printed}");
        assert_eq!(output.status.success(), printed.starts_with("pass"), "{blocks} blocks: {printed}");
    }
    // What a full disk left in the cache is not taken for a kernel.
    ends(runjob().arg(&spec).env("RUNJOB_CACHE", &cache), 0, &["pass"]);
}

#[test]
fn a_report_that_cannot_be_written_leaves_the_old_one_whole() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("copy.toml");
    let text = "[tensors]\nx = { dtype = \"f32\", shape = [8], data = \"ones\" }\ny = { dtype = \"f32\", shape = [8] }\n\
        [[steps]]\ncopy = \"x\"\nto = \"y\"\n[[checks]]\ntensor = \"y\"\nexpect = \"x + 1\"\n[rounds]\ncount = 40\n";
    std::fs::write(&spec, text).unwrap();
    let report = folder.path().join("report.json");
    std::fs::write(&report, "old").unwrap();
    let json = format!("--json={}", report.display());
    // Enough for the temporary files of a run in this process, not for the report.
    let mut command = limited(1, &folder.path().join("cache"), &[spec.to_str().unwrap(), &json, "--in-process"]);
    ends(&mut command, 3, &["cannot write", "report.json"]);
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "old");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.iter().filter(|name| name.to_string_lossy().contains(".new")).count(), 0, "{left:?}");
}

#[test]
fn what_is_no_spec_is_named_with_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(Command::new("mkfifo").arg(at("fifo.toml")).status().unwrap().success());
    std::fs::write(at("latin.toml"), b"name = \"caf\xe9\"\n").unwrap();
    std::fs::File::create(at("huge.toml")).unwrap().set_len(300 << 20).unwrap();
    std::fs::create_dir(at("folder.toml")).unwrap();
    std::fs::write(at("empty.toml"), "").unwrap();
    std::fs::write(at("closed.toml"), "").unwrap();
    std::fs::set_permissions(at("closed.toml"), std::fs::Permissions::from_mode(0o000)).unwrap();
    for command in ["run", "check", "plan"] {
        let with = |name: &str| {
            let mut program = runjob();
            program.arg(command).arg(at(name));
            program
        };
        ends(&mut with("fifo.toml"), 2, &["fifo.toml", "not a regular file"]);
        ends(&mut with("latin.toml"), 2, &["latin.toml", "not UTF-8", "byte 11"]);
        ends(&mut with("huge.toml"), 2, &["huge.toml", "314572800 bytes", "268435456"]);
        ends(&mut with("empty.toml"), 2, &["empty.toml:1", "[[steps]]"]);
        if command == "plan" {
            ends(&mut with("folder.toml"), 2, &["folder.toml", "not a regular file"]);
        } else {
            ends(&mut with("folder.toml"), 4, &["folder.toml", "files that end in .toml"]);
        }
        // The system's administrator reads everything.
        if std::fs::File::open(at("closed.toml")).is_err() {
            ends(&mut with("closed.toml"), 2, &["closed.toml", "ermission"]);
        }
    }
}

#[test]
fn a_golden_that_is_cut_is_an_error_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let golden = |bytes: &[u8]| std::fs::write(folder.path().join("golden.npy"), bytes).unwrap();
    let mut whole = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (8,), }".to_vec();
    whole.resize(127, b' ');
    whole.push(b'\n');
    whole.extend([1f32; 8].iter().flat_map(|v| v.to_le_bytes()));
    let spec = folder.path().join("golden.toml");
    let text = "[tensors]\nx = { dtype = \"f32\", shape = [8], data = \"ones\" }\ny = { dtype = \"f32\", shape = [8] }\n\
        [[steps]]\ncopy = \"x\"\nto = \"y\"\n[[checks]]\ntensor = \"y\"\nexpect = { file = \"golden.npy\" }\n";
    std::fs::write(&spec, text).unwrap();
    golden(&whole);
    ends(runjob().arg(&spec), 0, &["pass"]);
    for cut in [0, 5, 9, 10, 50, 127, 128, 131, 159] {
        golden(&whole[..cut]);
        ends(runjob().arg(&spec), 2, &["golden.toml:9:19", "golden.npy"]);
    }
    for flipped in 0..128 {
        let mut bytes = whole.clone();
        bytes[flipped] ^= 0x10;
        golden(&bytes);
        let loaded = runjob::spec::load(&spec).unwrap();
        // No panic; whether the header still says the same is its own matter.
        let (job, diagnostics) = runjob::job::resolve(&loaded, runjob::spec::Backend::Cpu, &runjob::job::Overrides::default());
        assert_eq!(job.is_none(), diagnostics.iter().any(|d| d.severity == runjob::diag::Severity::Error), "{flipped}");
    }
}

/// The processes whose command line has a word.
fn with_word(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(word) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// The worker notices that its parent is gone, and takes what it started with it: a compiler, for one.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_parent_leaves_no_worker_and_no_compiler() {
    let wait_until = |holds: &dyn Fn() -> bool| {
        let since = Instant::now();
        while !holds() && since.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(holds(), "still not after {:?}", since.elapsed());
    };
    let folder = tempfile::tempdir().unwrap();
    let spec = job(folder.path(), 4_000_000_000, "");
    let word = folder.path().to_str().unwrap();
    let slow = compiler(folder.path(), "sleep 600 # $*\nexit 1");
    for cc in [None, Some(slow)] {
        let mut command = runjob();
        command.arg(&spec).stdout(Stdio::null()).stderr(Stdio::null()).env("RUNJOB_CACHE", folder.path().join("cache"));
        let wanted = if let Some(cc) = &cc {
            command.env("RUNJOB_CC", cc);
            3
        } else {
            2
        };
        let mut parent = command.spawn().unwrap();
        wait_until(&|| with_word(word).len() >= wanted);
        parent.kill().unwrap();
        parent.wait().unwrap();
        wait_until(&|| with_word(word).is_empty());
    }
}
