//! `devices`, `[device]` and what the command line asks for -> the devices that a job runs on.

use super::Job;
use super::names::Resolver;
use crate::device::choice::has;
use crate::device::{Choice, Which};
use crate::diag::{Diagnostic, Place};
use crate::spec::{Backend, PerBackend, Source, Spec, Step};

/// The order in which backends are preferred where nothing names one.
const PREFERRED: [Backend; 4] = [Backend::Cpu, Backend::Cuda, Backend::Opencl, Backend::Wgpu];

/// The devices that a spec runs on: those that are `asked` for, else those that it names, else one of the backend that
/// its kernels are for. `[device] match` says which of a backend's devices is meant where nothing else does.
pub fn choices(spec: &Spec, asked: &[Choice]) -> Vec<Choice> {
    let mut choices = asked.to_vec();
    if choices.is_empty() {
        // What cannot be read is reported when the job is resolved.
        choices = spec.devices.iter().flatten().filter_map(|text| text.parse().ok()).collect();
    }
    if choices.is_empty() {
        choices.push(Choice::first(preferred(spec)));
    }
    for choice in choices.iter_mut().filter(|choice| choice.which == Which::First) {
        let part = spec.device.part.as_ref().and_then(|part| part.get(choice.backend));
        if let Some((_, part)) = part.filter(|(_, part)| !part.trim().is_empty()) {
            choice.which = Which::Named(part.clone());
        }
    }
    choices
}

/// What keeps jobs of one spec for several devices from being compared: elements that are not the same ones.
pub fn differences(jobs: &[&Job]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let Some((first, others)) = jobs.split_first() else { return found };
    for other in others {
        let (here, there) = (first.backend.name(), other.backend.name());
        let mut differ = |at: Place, what: String| {
            let diagnostic = Diagnostic::error("devices-differ", at, what);
            found.push(diagnostic.help("what is compared must be the same on every device: give the backends' dims another way"));
        };
        if (first.rounds.count, first.sets.len()) != (other.rounds.count, other.sets.len()) {
            let what = format!("{} rounds on `{here}`, {} on `{there}`", first.rounds.count, other.rounds.count);
            differ(Place::root().to("rounds").to("count").key(), what);
        }
        for (a, b) in first.checks.iter().zip(&other.checks) {
            let of = |job: &Job, check: &super::Check| {
                let tensor = &job.tensors[check.tensor];
                (tensor.name.clone(), format!("{} {}", tensor.dtype, tensor.shape), check.elements(tensor))
            };
            let ((name, form, elements), (other_name, other_form, other_elements)) = (of(first, a), of(other, b));
            if (&name, &form, elements, a.every) != (&other_name, &other_form, other_elements, b.every) {
                let what = if form == other_form {
                    format!("{elements} elements of `{name}` on `{here}`, {other_elements} on `{there}`, or in other rounds")
                } else {
                    format!("`{name}` is {form} on `{here}` and {other_form} on `{there}`")
                };
                differ(a.place.to("tensor"), what);
            }
        }
    }
    found
}

/// The first backend that has a source of every kernel that it would launch; one that this program lacks comes last.
fn preferred(spec: &Spec) -> Backend {
    let ordered = || PREFERRED.into_iter().filter(|b| has(*b)).chain(PREFERRED.into_iter().filter(|b| !has(*b)));
    let whole = ordered().find(|&backend| has_sources(spec, backend));
    // Of a spec that no backend can run, the problems of the nearest are told.
    let some = || ordered().find(|&backend| launched(spec, backend).iter().any(|name| has_source(spec, name, backend)));
    whole.or_else(some).unwrap_or(Backend::Cpu)
}

/// Whether a backend has a source of every kernel that it would launch, and launches one if any backend does.
pub fn has_sources(spec: &Spec, backend: Backend) -> bool {
    let names = launched(spec, backend);
    let none = names.is_empty() && Backend::ALL.into_iter().any(|other| !launched(spec, other).is_empty());
    !none && names.iter().all(|name| has_source(spec, name, backend))
}

/// Names of the kernels that steps launch on a backend.
fn launched(spec: &Spec, backend: Backend) -> Vec<&str> {
    fn collect<'s>(steps: &'s [Step], backend: Backend, names: &mut Vec<&'s str>) {
        for step in steps.iter().filter(|step| step.on.as_ref().is_none_or(|on| on.is_empty() || on.contains(&backend))) {
            names.extend(step.kernel.as_deref().filter(|name| !names.contains(name)));
            collect(step.body.as_deref().unwrap_or_default(), backend, names);
        }
    }
    let mut names = Vec::new();
    collect(&spec.steps, backend, &mut names);
    names
}

/// Whether a kernel names a source for a backend; a file by its suffix, where it stands for all.
fn has_source(spec: &Spec, name: &str, backend: Backend) -> bool {
    let Some(kernel) = spec.kernels.get(name) else { return false };
    let Some(source) = kernel.source.as_ref().or(spec.source.as_ref()) else { return false };
    match source {
        PerBackend::All(Source::File(path)) => super::source::backend_of(path) == Some(backend),
        PerBackend::All(Source::Text { .. }) => true,
        PerBackend::Each { .. } => source.get(backend).is_some(),
    }
}

impl Resolver<'_> {
    /// Reports what is wrong with `devices` and `[device]`.
    pub(super) fn devices(&self) {
        let root = Place::root();
        if let Some(devices) = &self.spec.devices {
            let at = root.to("devices");
            if devices.is_empty() && !self.loaded.is_damaged(&at) {
                self.report(
                    Diagnostic::error("empty", at.key(), "`devices` is empty")
                        .help("leave it out, or name devices: \"cpu\", \"opencl\", \"opencl:1\", \"opencl:part of a name\""),
                );
            }
            for (index, text) in devices.iter().enumerate() {
                match text.parse::<Choice>() {
                    Ok(choice) => {
                        if let Some(first) = devices[..index].iter().position(|other| other.parse() == Ok(choice.clone())) {
                            let message = format!("`{text}` stands here twice: a device agrees with itself");
                            self.report(Diagnostic::error("bad-device", at.to(index), message).also(at.to(first), "the first"));
                        }
                    }
                    Err(message) => {
                        let backend = text.split(':').next().unwrap_or(text);
                        let names: Vec<&str> = Backend::ALL.iter().map(|b| b.name()).collect();
                        let diagnostic = Diagnostic::error("bad-device", at.to(index), message);
                        let near = crate::diag::nearest(&backend.to_lowercase(), &names).filter(|near| *near != backend);
                        self.report(match near {
                            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                            None => diagnostic
                                .help("write \"opencl\", \"opencl:1\" or \"opencl:part of a name\", as `runjob devices` lists them"),
                        });
                    }
                }
            }
        }
        let at = root.to("device").to("match");
        for (key, part) in self.spec.device.part.iter().flat_map(PerBackend::iter) {
            if part.trim().is_empty() {
                let at = key.map_or(at.clone(), |key| at.to(key));
                self.report(
                    Diagnostic::error("empty", at, "it is empty: every name has that in it")
                        .help("write a part of the device's name, as `runjob devices` lists it"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    const TENSORS: &str = "[tensors]\ny = { dtype = \"f32\", shape = [4] }\n";

    fn parsed(text: &str) -> Spec {
        let loaded = spec::parse("specs/text.toml".into(), text.to_string() + TENSORS, "specs".into());
        loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
    }

    fn chosen(text: &str, asked: &[&str]) -> Vec<String> {
        let asked: Vec<Choice> = asked.iter().map(|a| a.parse().expect("a device")).collect();
        choices(&parsed(text), &asked).iter().map(Choice::to_string).collect()
    }

    fn kernel(name: &str, source: &str) -> String {
        format!("[kernels.{name}]\nparams = [\"out f32 y\"]\nsource = {source}\n[[steps]]\nkernel = \"{name}\"\n")
    }

    #[test]
    fn the_first_backend_with_every_source_is_taken() {
        let first = if has(Backend::Cuda) { "cuda" } else { "opencl" };
        for (source, found) in [
            ("\"k.c\"", "cpu"),
            ("\"k.rs\"", "cpu"),
            ("\"k.cl\"", "opencl"),
            ("\"k.wgsl\"", "wgpu"),
            ("{ opencl = \"k.cl\", cuda = \"k.cu\" }", first),
            ("{ cuda = \"k.cu\", wgpu = \"k.wgsl\" }", "cuda"),
            ("{ opencl = \"k.cl\", default = \"k.c\" }", "cpu"),
            ("{ opencl = \"k.cl\", cpu = \"k.c\" }", "cpu"),
        ] {
            assert_eq!(chosen(&kernel("k", source), &[]), [found], "{source}");
        }
        let two = kernel("k", "{ cpu = \"k.c\", opencl = \"k.cl\" }") + &kernel("l", "\"l.cl\"");
        assert_eq!(chosen(&two, &[]), ["opencl"]);
        // None can run it: the problems of the first that has some are told.
        let none = kernel("k", "\"k.cl\"") + &kernel("l", "\"l.c\"");
        assert_eq!(chosen(&none, &[]), ["cpu"]);
        assert_eq!(chosen("[[steps]]\nfill = \"y\"\nwith = 1\n", &[]), ["cpu"]);
    }

    #[test]
    fn steps_for_other_backends_do_not_count() {
        let on = |source: &str, on: &str| kernel("k", source) + &format!("on = [\"{on}\"]\n");
        assert_eq!(chosen(&on("{ cpu = \"k.c\", opencl = \"k.cl\" }", "opencl"), &[]), ["opencl"]);
        let both = on("\"k.cl\"", "opencl") + &kernel("l", "\"l.c\"") + "on = [\"cpu\"]\n";
        assert_eq!(chosen(&both, &[]), ["cpu"]);
    }

    #[test]
    fn the_command_line_beats_the_spec_and_match_says_which() {
        let spec = "devices = [\"opencl\"]\n".to_string() + &kernel("k", "\"k.cl\"") + "[device]\nmatch = { opencl = \"basic\" }\n";
        assert_eq!(chosen(&spec, &[]), ["opencl:basic"]);
        assert_eq!(chosen(&spec, &["cpu"]), ["cpu"]);
        assert_eq!(chosen(&spec, &["opencl"]), ["opencl:basic"]);
        assert_eq!(chosen(&spec, &["opencl:1", "cuda"]), ["opencl:1", "cuda"]);
    }
}
