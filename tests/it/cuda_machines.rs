//! Machines on which CUDA is not as one expects: no driver, no GPU, an old driver, little memory. A job is skipped with the
//! reason, refused with what it is short of, or runs all the same.

use super::cuda_faults::Bench;

const JOB: [&str; 3] = ["by_value.toml", "--device", "cuda"];

#[test]
fn without_a_driver_or_gpu_jobs_are_skipped_with_the_reason() {
    let Some(bench) = Bench::new() else { return };
    let nowhere = bench.path("nowhere.so");
    let nowhere = nowhere.to_str().unwrap();
    bench.write("text.so", "not a library");
    let text = bench.path("text.so");
    for (variable, value, says) in [
        ("RUNJOB_CUDA", nowhere, "nowhere.so`, which cannot be loaded"),
        ("RUNJOB_CUDA", text.to_str().unwrap(), "text.so`, which cannot be loaded"),
        ("SIM_CUDA_DEVICES", "0", "the CUDA driver has no GPU"),
        ("SIM_CUDA_VERSION", "11080", "the CUDA driver is too old: it has CUDA 11.8, runjob needs 12.0"),
        ("SIM_CUDA_FAIL", "cuInit:1+:803", "the CUDA driver does not start (cuInit said "),
    ] {
        let skipped = bench.run(&JOB, &[(variable, value)]);
        assert!(skipped.code == Some(0) && skipped.printed.starts_with("skip by_value: "), "{}", skipped.printed);
        let required = bench.run(&[&JOB[..], &["--require", "cuda"]].concat(), &[(variable, value)]);
        assert!(required.code == Some(3) && required.printed.starts_with("error by_value: "), "{}", required.printed);
        assert!(required.printed.contains("`cuda` is required"), "{}", required.printed);
        let listed = bench.run(&["devices"], &[(variable, value)]);
        assert!(listed.code == Some(0) && listed.printed.contains("cuda      not here: "), "{}", listed.printed);
        for printed in [&skipped.printed, &required.printed, &listed.printed] {
            assert!(printed.contains(says), "it does not say `{says}`: {printed}");
            assert!(printed.contains("install NVIDIA's driver, version 525 or later"), "{printed}");
        }
    }
}

#[test]
fn without_a_compiler_what_is_built_already_runs_and_source_is_skipped() {
    let Some(bench) = Bench::new() else { return };
    let nowhere = bench.path("nowhere.so");
    let none = [("RUNJOB_NVRTC", nowhere.to_str().unwrap())];
    let skipped = bench.run(&JOB, &none);
    assert!(skipped.code == Some(0) && skipped.printed.starts_with("skip by_value: "), "{}", skipped.printed);
    assert!(skipped.printed.contains("nowhere.so") && skipped.printed.contains("install a CUDA toolkit"), "{}", skipped.printed);
    let required = bench.run(&[&JOB[..], &["--require", "cuda"]].concat(), &none);
    assert!(required.code == Some(3) && required.printed.starts_with("error by_value: "), "{}", required.printed);
    for built in ["k.ptx", "k.cubin"] {
        bench.libraries.image(&bench.path("k.cu"), &bench.path(built));
        let text = super::cuda_faults::spec("a", 5).replace("source = \"k.cu\"", &format!("source = \"{built}\""));
        bench.write("built.toml", &text);
        bench.passes(&["built.toml", "--device", "cuda"], &none);
        // Of what is built the sizes of parameters are known.
        bench.write("other.toml", &text.replace("\"f32 a\"", "\"f64 a\"").replace("a = { dtype = \"f32\"", "a = { dtype = \"f64\""));
        let ended = bench.run(&["other.toml", "--device", "cuda"], &none);
        assert!(ended.code == Some(3), "{}", ended.printed);
        for says in ["the source disagrees with `params`", "parameter 3: `params` has `f64 a` of 8 bytes, the kernel takes 4"] {
            assert!(ended.printed.contains(says), "it does not say `{says}`: {}", ended.printed);
        }
    }
}

/// Functions that came with CUDA 12.3 and 12.4.
const NEWER: [&str; 4] = ["cuFuncGetName", "cuFuncGetParamInfo", "cuModuleEnumerateFunctions", "cuModuleGetFunctionCount"];

/// Writes the simulated driver under another name, without some of its functions: their symbols are called otherwise.
fn without(bench: &Bench, names: &[&str]) -> String {
    let mut bytes = std::fs::read(&bench.libraries.cuda).unwrap();
    for name in names {
        let symbol = format!("\0{name}\0");
        let places: Vec<usize> = (0..bytes.len() - symbol.len()).filter(|&at| bytes[at..].starts_with(symbol.as_bytes())).collect();
        assert!(!places.is_empty(), "{name} is not there");
        places.into_iter().for_each(|at| bytes[at + 1] = b'x');
    }
    let path = bench.path("older.so");
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn a_driver_that_lacks_newer_functions_does_the_same() {
    let Some(bench) = Bench::new() else { return };
    let older = without(&bench, &NEWER);
    for version in ["12000", "12030"] {
        for args in [&["--slots", "3"][..], &["--device-times"]] {
            let ended = bench.passes(&[&JOB, args].concat(), &[("RUNJOB_CUDA", &older), ("SIM_CUDA_VERSION", version)]);
            assert!(NEWER.iter().all(|name| ended.times(name) == 0), "{:?}", ended.log);
        }
    }
    // A kernel that is not there is told without the driver's list of those that are.
    let text = super::cuda_faults::spec("3", 5).replace("[kernels.scale]\n", "[kernels.scale]\nentry = \"scales\"\n");
    bench.write("misspelled.toml", &text);
    let ended = bench.run(&["misspelled.toml", "--device", "cuda"], &[("RUNJOB_CUDA", &older), ("SIM_CUDA_VERSION", "12000")]);
    assert!(ended.code == Some(3) && ended.printed.contains("the source has no kernel `scales`"), "{}", ended.printed);
    // One that lacks what it must have says which it is.
    let broken = without(&bench, &["cuGraphInstantiateWithFlags"]);
    let ended = bench.run(&JOB, &[("RUNJOB_CUDA", &broken)]);
    assert!(
        ended.code == Some(3) && ended.printed.contains("cuGraphInstantiateWithFlags failed: the CUDA driver does not have this call"),
        "{}",
        ended.printed
    );
}

#[test]
fn a_job_that_needs_more_memory_than_there_is_names_its_tensors_and_the_limit() {
    let Some(bench) = Bench::new() else { return };
    for memory in ["1000", "5000"] {
        let ended = bench.run(&JOB, &[("SIM_CUDA_MEMORY", memory)]);
        assert!(ended.code == Some(3) && ended.printed.starts_with("error by_value: 0 of 5 rounds"), "{}", ended.printed);
        assert!(ended.complaints().is_empty(), "{:?}", ended.complaints());
        for says in ["of device memory, there are ", &format!("({memory} bytes)"), "`x` takes ", "`s` takes "] {
            assert!(ended.printed.contains(says), "it does not say `{says}`: {}", ended.printed);
        }
    }
    // Page-locked memory of the host takes none of the device's.
    bench.passes(&JOB, &[("SIM_CUDA_MEMORY", "40000")]);
}

/// The driver has less than it said, as other programs have taken some.
#[test]
fn memory_that_others_have_taken_is_told_with_what_it_was_for() {
    let Some(bench) = Bench::new() else { return };
    let good = bench.passes(&JOB, &[]);
    for (call, names) in [("cuMemAlloc_v2", "of Device memory"), ("cuMemHostAlloc", "the host cannot lock so many pages")] {
        for nth in 1..=good.times(call) {
            let ended = bench.run(&JOB, &[("SIM_CUDA_FAIL", &format!("{call}:{nth}:2"))]);
            assert!(ended.code == Some(3) && ended.complaints().is_empty(), "{}{:?}", ended.printed, ended.complaints());
            for says in ["out of memory: ", names, "CUDA_ERROR_OUT_OF_MEMORY (2)", "it is memory `", " bytes)"] {
                assert!(ended.printed.contains(says), "it does not say `{says}`: {}", ended.printed);
            }
        }
    }
}
