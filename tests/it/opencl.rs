//! Every example of `specs/` on every OpenCL device that is here, through the library, with the contract held by `Trace`:
//! the verdicts are those of the CPU.

use std::path::Path;

use runjob::device::opencl::{self, OpenclOptions};
use runjob::device::{Caps, Device, Trace, TraceOptions};
use runjob::exec::{self, Progress};
use runjob::job::{self, Overrides};
use runjob::plan::{self, Options, Trust};
use runjob::spec::{self, Backend};
use runjob::verdict::{Event, Report, Verdict};

use super::verdicts::specs_in;

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
