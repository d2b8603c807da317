//! The simulated CUDA driver and NVRTC (`tests/cuda/`) behave as real ones do, as far as they go.

use std::process::{Command, Output};

#[path = "../cuda/build.rs"]
pub mod build;

/// Runs a case of `selftest.cpp` with these variables; `None` where nothing can be built.
fn case(name: &str, env: &[(&str, &str)]) -> Option<Output> {
    let libraries = build::libraries()?;
    let folder = libraries.cuda.parent().unwrap();
    let mut command = Command::new(&libraries.selftest);
    for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("SIM_")) {
        command.env_remove(variable);
    }
    Some(command.arg(name).arg(folder).envs(env.iter().copied()).output().unwrap())
}

/// Runs a case that must hold.
fn holds(name: &str, env: &[(&str, &str)]) {
    if let Some(output) = case(name, env) {
        assert!(output.status.success(), "{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn kernels_run_on_the_host_from_cubin_and_ptx() {
    holds("kernels", &[]);
    holds("kernels", &[("SIM_CUDA_SEED", "2")]);
}

#[test]
fn streams_of_many_threads_work_at_once() {
    holds("at_once", &[]);
}

#[test]
fn graphs_keep_to_their_edges_whatever_the_order() {
    for seed in ["1", "2", "3"] {
        holds("graph", &[("SIM_CUDA_SEED", seed)]);
    }
}

#[test]
fn missing_edges_of_a_graph_are_seen() {
    holds("edgeless", &[]);
}

#[test]
fn errors_of_kernels_stay_until_the_context_is_made_anew() {
    holds("errors", &[]);
}

#[test]
fn work_runs_later_than_the_call_that_asks_for_it() {
    holds("unwaited", &[("SIM_CUDA_DELAY_US", "50000")]);
}

#[test]
fn planned_calls_and_works_fail() {
    holds("failing", &[("SIM_CUDA_FAIL", "cuMemAlloc_v2:2:2,kernel:1:719")]);
}

#[test]
fn host_memory_that_is_not_page_locked_ends_the_program() {
    if let Some(output) = case("pageable", &[]) {
        assert!(!output.status.success());
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(printed.contains("the host memory is not page-locked"), "{printed}");
    }
    holds("pageable", &[("SIM_CUDA_PAGEABLE", "1")]);
}

#[test]
fn log_names_every_call_and_what_is_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    if case("graph", &[("SIM_CUDA_LOG", path.to_str().unwrap())]).is_some() {
        let log = std::fs::read_to_string(path).unwrap();
        assert!(log.starts_with("cuInit\ncuDevicePrimaryCtxRetain\ncuCtxSetCurrent\ncuStreamCreate\n"), "{log}");
        assert!(log.lines().filter(|line| *line == "cuGraphLaunch").count() == 22, "{log}");
        assert!(log.contains("leak: device memory of 4000 bytes\n") && log.contains("leak: stream\n"), "{log}");
        assert!(!log.contains("leak: graph") && !log.contains("leak: executable graph"), "{log}");
    }
}
