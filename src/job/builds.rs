//! `[[checks]]` with `kernel` -> claims about builds; and kernels in the order in which they are loaded or only built.

use std::collections::HashMap;

use super::conditions::of_tensor;
use super::names::Resolver;
use super::steps::Kernels;
use super::{Action, Build, Rounds, Step};
use crate::device::KernelSource;
use crate::diag::{Diagnostic, Place};
use crate::spec;

impl Resolver<'_> {
    /// Whether the spec is about builds of kernels alone: it then has neither steps nor rounds.
    pub(super) fn is_of_builds(&self) -> bool {
        let (spec, root) = (self.spec, Place::root());
        let damaged = self.loaded.is_damaged(&root.to("steps")) || self.loaded.is_damaged(&root.to("checks"));
        !damaged && spec.steps.is_empty() && !spec.checks.is_empty() && spec.checks.iter().all(|check| check.kernel.is_some())
    }

    /// Whether a check is about the build of any kernel, as far as can be told.
    pub(super) fn has_builds(&self) -> bool {
        self.spec.checks.iter().any(|check| check.kernel.is_some() || check.build.is_some())
    }

    /// Whether a check is about the build of a kernel.
    pub(super) fn has_build_check(&self, name: &str) -> bool {
        self.spec.checks.iter().any(|check| check.kernel.as_deref() == Some(name))
    }

    /// The rounds of a spec of builds alone: none, and nothing may ask for any.
    pub(super) fn no_rounds(&self) -> Option<Rounds> {
        let at = Place::root().to("rounds");
        let help = "drop it; or write the [[steps]] of a round, and a check of what they compute";
        if self.spec.rounds != spec::Rounds::default() {
            let message = "the spec has no [[steps]]: its checks are about builds, and there are no rounds";
            self.report(Diagnostic::error("no-rounds", at.key(), message).help(help));
        }
        if let Some(count) = self.overrides.rounds {
            let message = format!("--rounds {count}: the spec has no [[steps]]: its checks are about builds, and there are no rounds");
            self.report(Diagnostic::error("no-rounds", at.to("count"), message));
        }
        Some(Rounds { count: 0, warmup: 0, seed: self.overrides.seed.unwrap_or(0), order: spec::Order::default() })
    }

    /// Whether a check that is of no build has none of its keys.
    pub(super) fn no_build(&self, at: &Place, check: &spec::Check) -> bool {
        let given = [("build", check.build.is_some()), ("log", check.log.is_some())];
        let mut ok = true;
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            if !self.loaded.lacks(&at.to("kernel")) {
                let message = format!("`{key}` is about the build of a kernel, and this check names none");
                let help = "write `kernel = \"name\"`, in a check of its own";
                self.report(Diagnostic::error("bad-check", at.to(key).key(), message).help(help));
            }
            ok = false;
        }
        ok
    }

    /// A claim about the build of a kernel; its `kernel` is an index into the spec's.
    pub(super) fn build(&self, at: &Place, check: &spec::Check, name: &str, kernels: &Kernels) -> Option<Build> {
        let name_at = at.to("kernel");
        let mut ok = true;
        let of_round = [("holds", check.holds.is_some()), ("every", check.every.is_some())];
        for key in of_tensor(check).chain(of_round.into_iter().filter(|(_, given)| *given).map(|(key, _)| key)) {
            ok = false;
            let message = format!("`{key}` belongs to a check of a round, and this one is about the build of kernel `{name}`");
            let help = if matches!(key, "tensor" | "holds") { "make two checks of it" } else { "drop it: a kernel is built once" };
            self.report(Diagnostic::error("bad-check", at.to(key).key(), message).help(help));
        }
        let Some((id, name, _)) = kernels.get_full(name) else {
            if !self.loaded.lost("kernels", name) {
                let names: Vec<_> = kernels.keys().collect();
                let message = format!("there is no kernel `{name}`");
                self.report(Diagnostic::error("unknown-name", name_at, message).did_you_mean(name, &names, "kernels"));
            }
            return None;
        };
        self.use_name(&format!("kernel {name}"));
        let Some(must) = check.build else {
            if !self.loaded.is_damaged(at) {
                let message = format!("a check of kernel `{name}` without `build`");
                let help = "write `build = \"ok\"`: it must build; or `build = \"fails\"`: the compiler must refuse it";
                self.report(Diagnostic::error("missing-key", name_at, message).help(help));
            }
            return None;
        };
        if must == spec::Build::Fails {
            ok &= self.never_launched(&at.to("build"), name);
        }
        ok &= self.agrees(at, name, must);
        let log = self.log(at, check, must)?;
        let text = match (must, &log) {
            (spec::Build::Ok, _) => format!("kernel `{name}` builds"),
            (spec::Build::Fails, None) => format!("kernel `{name}` does not build"),
            (spec::Build::Fails, Some(log)) => format!("kernel `{name}` does not build: \"{log}\""),
        };
        ok.then(|| Build { kernel: id, must, log, place: at.clone(), text })
    }

    /// Whether no step launches a kernel that must not build, on whichever backend.
    fn never_launched(&self, at: &Place, name: &str) -> bool {
        let mut found = None;
        launches(&self.spec.steps, &Place::root().to("steps"), name, &mut found);
        let Some(step) = found else { return true };
        let message = format!("a kernel that must not build cannot be launched: a step launches `{name}`");
        self.report(
            Diagnostic::error("cannot-build", at.clone(), message)
                .help("declare it as a kernel of its own, which no step launches")
                .also(step, "the step"),
        );
        false
    }

    /// Whether no earlier check says the opposite of a kernel.
    fn agrees(&self, at: &Place, name: &str, must: spec::Build) -> bool {
        let root = Place::root().to("checks");
        let earlier =
            self.spec.checks.iter().enumerate().map(|(index, check)| (root.to(index), check)).take_while(|(place, _)| place != at);
        let mut opposite = earlier.filter(|(_, c)| c.kernel.as_deref() == Some(name) && c.build.is_some_and(|b| b != must));
        let Some((first, _)) = opposite.next() else { return true };
        let message = format!("kernel `{name}` must build, and must not: no kernel does both");
        self.report(
            Diagnostic::error("bad-check", at.to("build"), message).help("keep one of the checks").also(first.to("build"), "the other"),
        );
        false
    }

    /// What the compiler's messages must hold, on this backend. `None`: its mistake is reported.
    fn log(&self, at: &Place, check: &spec::Check, must: spec::Build) -> Option<Option<String>> {
        let at = at.to("log");
        let Some(log) = &check.log else {
            return (!self.loaded.lacks(&at)).then_some(None);
        };
        if must == spec::Build::Ok {
            let message = "`log` is what the compiler says of a kernel that it refuses, and this one must build";
            self.report(Diagnostic::error("bad-check", at.key(), message).help("drop `log`, or write `build = \"fails\"`"));
            return None;
        }
        let mut empty = log.iter().filter(|(_, text)| text.trim().is_empty());
        if let Some((key, _)) = empty.next() {
            let at = key.map_or(at.clone(), |key| at.to(key));
            self.report(Diagnostic::error("empty", at, "`log` is empty: every message holds it").help("write a part of the message"));
            return None;
        }
        self.pick(&at, log).map(|(_, text)| Some(text.clone()))
    }
}

/// Finds the first step that launches a kernel.
fn launches(steps: &[spec::Step], at: &Place, name: &str, found: &mut Option<Place>) {
    for (index, step) in steps.iter().enumerate() {
        let here = at.to(index);
        if found.is_none() && step.kernel.as_deref() == Some(name) {
            *found = Some(here.to("kernel"));
        }
        launches(step.body.as_deref().unwrap_or_default(), &here.to("do"), name, found);
    }
}

/// The kernels that are built on this backend, and how many of them are loaded before the rounds: those come first. What
/// steps and claims name by the spec's order names them by this one afterwards. `None`: a kernel's mistake is reported.
///
/// Kernels that no step of this backend launches are not built for it, unless a claim is about them or nothing names them.
pub(super) fn table(kernels: Kernels, steps: &mut [Step], builds: &mut [Build]) -> Option<(Vec<KernelSource>, usize)> {
    let mut launched = vec![false; kernels.len()];
    for step in steps.iter() {
        if let Action::Launch { kernel, .. } = &step.action {
            launched[*kernel] = true;
        }
    }
    let (mut loaded, mut built) = (Vec::with_capacity(kernels.len()), Vec::new());
    for (id, kernel) in kernels.into_values().enumerate() {
        let kernel = kernel?;
        if !kernel.elsewhere {
            let alone = !launched[id] && builds.iter().any(|claim| claim.kernel == id);
            let list = if alone { &mut built } else { &mut loaded };
            list.push((id, kernel.source?));
        }
    }
    let loads = loaded.len();
    let (ids, sources): (Vec<usize>, Vec<KernelSource>) = loaded.into_iter().chain(built).unzip();
    let ids: HashMap<usize, usize> = ids.into_iter().enumerate().map(|(new, id)| (id, new)).collect();
    for step in steps {
        if let Action::Launch { kernel, .. } = &mut step.action {
            *kernel = *ids.get(kernel)?;
        }
    }
    for claim in builds {
        claim.kernel = *ids.get(&claim.kernel)?;
    }
    Some((sources, loads))
}
