//! What is declared and used by nothing: warnings, most often of a misspelt name elsewhere.

use super::Condition;
use super::names::Resolver;
use super::steps::{Kernels, Lowered, Tensors};
use crate::diag::{Diagnostic, Place};

impl Resolver<'_> {
    /// Warns of what is declared and never used: most often a misspelt name elsewhere.
    pub(super) fn unused(&self, tensors: &Tensors, kernels: &Kernels, lowered: &Lowered, conditions: &[Condition]) {
        // While something is broken, what would have used a name may be what is missing.
        let broken = |d: &Diagnostic| d.severity == crate::diag::Severity::Error;
        if self.problems.borrow().iter().any(broken) || self.loaded.diagnostics.iter().any(broken) {
            return;
        }
        let root = Place::root();
        for name in self.spec.dims.keys().filter(|name| !self.is_used(name)) {
            self.report(Diagnostic::warning(super::UNUSED, root.to("dims").to(name).key(), format!("dim `{name}` is never used")));
        }
        for name in self.spec.types.keys().filter(|name| !self.is_used(name)) {
            self.report(Diagnostic::warning("unused", root.to("types").to(name).key(), format!("type `{name}` is never used")));
        }
        for name in tensors.keys().filter(|name| !name.starts_with('<') && !self.is_used(name)) {
            self.report(Diagnostic::warning(super::UNUSED, root.to("tensors").to(name).key(), format!("tensor `{name}` is never used")));
        }
        let mut read = vec![false; tensors.len()];
        let mut written = vec![false; tensors.len()];
        for (access, view) in lowered.steps.iter().flat_map(|step| step.action.views()) {
            read[view.tensor] |= access.reads();
            written[view.tensor] |= access.writes();
        }
        for (id, (name, tensor)) in tensors.iter().enumerate() {
            let at = root.to("tensors").to(name);
            let claimed = conditions.iter().any(|c| c.program.after_tensors().contains(&id));
            let checked = claimed || self.spec.checks.iter().any(|c| c.tensor_name() == Some(name.as_str()));
            if written[id] && !read[id] && !checked {
                self.report(
                    Diagnostic::warning(super::UNUSED, at.key(), format!("tensor `{name}` is written, and nothing reads or checks it"))
                        .help(format!("add a check: [[checks]] with tensor = \"{name}\"")),
                );
            }
            if !written[id] && self.is_used(name) && tensor.as_ref().is_some_and(|t| t.carry) {
                self.report(
                    Diagnostic::warning(super::UNUSED, at.to("carry").key(), format!("`{name}` is carried, and no step writes it"))
                        .help("its contents are the same in every round without `carry`"),
                );
            }
        }
        if self.spec.checks.is_empty() {
            self.report(
                Diagnostic::warning("unchecked", root.clone(), "the spec has no [[checks]]: nothing that it computes is compared")
                    .help("a job without a check is never a pass"),
            );
        }
        if !self.spec.steps.is_empty() && !self.spec.checks.is_empty() && self.spec.checks.iter().all(|c| c.kernel.is_some()) {
            self.report(
                Diagnostic::warning("unchecked", root.clone(), "no check looks at what the steps compute, only at builds of kernels")
                    .help("a job whose rounds nothing checks is never a pass: add a check, or leave the steps out"),
            );
        }
        for name in kernels.keys().filter(|name| !self.is_used(&format!("kernel {name}"))) {
            self.report(Diagnostic::warning(
                super::UNUSED,
                root.to("kernels").to(name).key(),
                format!("kernel `{name}` is never launched"),
            ));
        }
    }
}
