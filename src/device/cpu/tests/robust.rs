//! Compilers and caches that misbehave.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::AtomicBool;

use super::*;

impl Bench {
    /// A C compiler that says a version, and otherwise does what this script says; `real` stands for a real one.
    fn with_compiler(&self, script: &str) -> CpuDevice {
        let text = format!("#!/bin/sh\ncase \"$1\" in --version) echo fake 1.0; exit;; esac\n{}\n", script.replace("real", "exec cc"));
        let path = self.file("fake-cc", &text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        open(CpuOptions { compilers: Some(vec![path.display().to_string()]), ..self.options() }).unwrap()
    }
}

#[test]
fn a_compiler_that_crashes_or_says_nothing_is_named_with_how_it_ended() {
    let bench = Bench::new();
    for (script, says) in [("kill -SEGV $$", "signal: 11"), ("exit 7", "exit status: 7")] {
        let (message, _) = build_failure(load(&mut bench.with_compiler(script), &bench.kernel("saxpy", &SAXPY_PARAMS, SAXPY)));
        assert!(message.contains("fake-cc` failed") && message.contains(says), "{message}");
    }
    let (message, _) = build_failure(load(&mut bench.with_compiler("exit 0"), &bench.kernel("saxpy", &SAXPY_PARAMS, SAXPY)));
    assert!(message.starts_with("the compiled kernel cannot be loaded"), "{message}");
}

#[test]
fn a_compiler_that_prints_without_end_is_cut_off() {
    let bench = Bench::new();
    let mut device = bench.with_compiler("echo 'saxpy.c:1:1: error: first'; yes 'more words' | head -c 5000000; exit 1");
    let (message, log) = build_failure(load(&mut device, &bench.kernel("saxpy", &SAXPY_PARAMS, SAXPY)));
    assert_eq!(message, "saxpy.c:1:1: error: first");
    assert!(log.len() < 100_000 && log.contains("more bytes]"));
}

#[test]
fn a_compiler_that_hangs_is_ended_when_building_stops() {
    let bench = Bench::new();
    let device = bench.with_compiler("exec sleep 100");
    let builder = device.builder().unwrap();
    let kernel = bench.kernel("saxpy", &SAXPY_PARAMS, SAXPY);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let building = scope.spawn(|| builder.build(&kernel, &stop));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(building.join().unwrap(), Err(DeviceError::Unusable { message, .. }) if message.contains("it was stopped")));
    });
}

#[test]
fn a_cache_on_a_full_disk_is_done_without() {
    let bench = Bench::new();
    let mut device = bench.with_compiler("case \"$*\" in */cpu-1/work-*) echo 'No space left on device' >&2; exit 1;; esac\nreal \"$@\"");
    load(&mut device, &bench.kernel("saxpy", &SAXPY_PARAMS, SAXPY)).unwrap();
    assert_eq!(device.builds(), Builds { compiles: 2, cache_hits: 0 });
}

#[test]
fn what_is_built_ahead_is_built_once_and_loaded() {
    let bench = Bench::new();
    let mut device = bench.open();
    let kernel = bench.kernel("saxpy", &SAXPY_PARAMS, SAXPY);
    let builder = device.builder().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| builder.build(&kernel, &AtomicBool::new(false)).unwrap());
        }
    });
    load(&mut device, &kernel).unwrap();
    assert_eq!(device.builds(), Builds { compiles: 1, cache_hits: 0 });
    let wrong = bench.kernel("saxpi", &SAXPY_PARAMS, SAXPY);
    let failed = builder.build(&wrong, &AtomicBool::new(false)).unwrap_err();
    assert_eq!(load(&mut device, &wrong), Err(failed));
}

#[test]
fn devices_that_share_a_cache_build_the_same_kernel_at_once() {
    let bench = Bench::new();
    let kernel = bench.kernel("saxpy", &SAXPY_PARAMS, SAXPY);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| load(&mut bench.open(), &kernel).map(drop).unwrap());
        }
    });
}

#[test]
fn a_source_that_is_a_folder_is_named() {
    let bench = Bench::new();
    let path = bench.dir.path().join("folder.c");
    fs::create_dir(&path).unwrap();
    let (message, _) = build_failure(load(&mut bench.open(), &source("k", &[], Code::File(path.clone()))));
    assert_eq!(message, format!("the source `{}` is a folder", path.display()));
}
