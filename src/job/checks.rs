//! `[[checks]]` and the expectations of `[[sets]]` -> claims with one source of expectation and a tolerance each.
//! Those of builds are `builds`, those with `holds` are `conditions`.

use std::sync::Arc;

use super::names::Resolver;
use super::places::Places;
use super::steps::{Kernels, Lowered, Tensors};
use super::wants::Target;
use super::{Build, Check, Condition, Contents, Every, Rounds, Tensor, Want};
use crate::check::Tolerance;
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Program};
use crate::spec::{self, Expect, NanPolicy};
use crate::tensor::{Dtype, Shape};

impl Resolver<'_> {
    pub(super) fn checks(
        &self,
        tensors: &Tensors,
        kernels: &Kernels,
        lowered: &Lowered,
        rounds: Option<Rounds>,
    ) -> (Vec<Check>, Vec<Condition>, Vec<Build>) {
        let root = Place::root().to("checks");
        let (mut checks, mut conditions, mut builds) = (Vec::new(), Vec::new(), Vec::new());
        let mut from_sets: Vec<&str> = Vec::new();
        let written: Vec<bool> = (0..tensors.len()).map(|id| written(lowered, id)).collect();
        for (index, check) in self.spec.checks.iter().enumerate() {
            let at = root.to(index);
            if let Some(name) = &check.kernel {
                builds.extend(self.build(&at, check, name, kernels));
                continue;
            }
            let every = match &check.every {
                Some(every) => self.int_within(&at.to("every"), every, "`every`", 1, i64::MAX as u64).map(Every),
                None => Some(Every(1)),
            };
            if let Some(text) = &check.holds {
                let condition = self.condition(&at, check, text, every, tensors, &written);
                conditions.extend(condition);
                continue;
            }
            let resolved = self.check(&at, check, every, tensors, &written, rounds, &mut from_sets);
            // The first check of a carried tensor that expressions can answer; a later one is a claim only.
            checks.extend(resolved.map(|mut check| {
                check.keeps &= !checks.iter().any(|c: &Check| c.keeps && c.tensor == check.tensor);
                check
            }));
        }
        self.uncovered(tensors, &from_sets);
        self.carried(&checks, &conditions, tensors, lowered);
        (checks, conditions, builds)
    }

    /// A claim about a tensor.
    #[allow(clippy::too_many_arguments)]
    fn check<'s>(
        &'s self,
        at: &Place,
        check: &'s spec::Check,
        every: Option<Every>,
        tensors: &'s Tensors,
        written: &[bool],
        rounds: Option<Rounds>,
        from_sets: &mut Vec<&'s str>,
    ) -> Option<Check> {
        let numbers = self.numbers(at, check);
        let of_round = self.no_build(at, check);
        let Some(text) = &check.tensor else {
            if of_round && !self.loaded.is_damaged(at) {
                self.report(
                    Diagnostic::error("missing-key", at.clone(), "a check without `tensor`")
                        .help("write `tensor = \"name\"`: what is read back and compared; `holds = \"...\"`: what must be true; or `kernel = \"name\"` with `build`"),
                );
            }
            self.loose_check(at, check, tensors);
            return None;
        };
        let name_at = at.to("tensor");
        let Ok(view) = expr::parse_view(text).map_err(|e| self.report_text("expression", &name_at, e)) else {
            self.loose_check(at, check, tensors);
            return None;
        };
        let Some((id, name, tensor)) = tensors.get_full(view.name.as_str()) else {
            if !self.loaded.lost("tensors", &view.name) {
                let names: Vec<_> = tensors.keys().collect();
                let place = if text == &view.name { name_at } else { name_at.inside(view.name_span) };
                let message = format!("there is no tensor `{}`", view.name);
                self.report(Diagnostic::error("unknown-name", place, message).did_you_mean(&view.name, &names, "tensors"));
            }
            self.loose_check(at, check, tensors);
            return None;
        };
        self.use_name(name);
        if check.expect.is_none() {
            from_sets.push(name);
        }
        let Some(tensor) = tensor else {
            self.loose_check(at, check, tensors);
            return None;
        };
        if !written[id] && !self.spec.steps.is_empty() {
            self.report(
                Diagnostic::error(
                    "cannot-fail",
                    name_at.clone(),
                    format!("no step writes `{name}`: this check compares what was put there with itself"),
                )
                .help("check a tensor that a step writes"),
            );
            self.loose_check(at, check, tensors);
            return None;
        }
        // A part that is not known says nothing of the rest of the check.
        let part = self.part(&name_at, &view, tensor);
        let target = Target { tensor, part: part.as_ref().ok().and_then(Option::as_ref) };
        let elements = target.part.map_or(tensor.shape.elements(), crate::check::Part::elements);
        let tolerance = self.tolerance(at, check, numbers, tensor, elements);
        let between = self.between(at, check, tensor, elements);
        let wants = self.wants(at, check, target, tensors, rounds);
        let mask = self.mask(at, check, target, tensors);
        let flags = self.flags(at, check, tensor);
        let ((wants, (tolerance, default_tolerance)), (part, mask), every) = (wants.zip(tolerance)?, (part.ok()?, mask.ok()?), every?);
        // What only must be written may be anything, unless the spec says more.
        let between = between.ok()?.or_else(|| (!wants.is_empty()).then(|| tolerance.clone()));
        flags?;
        let claim = match &check.expect {
            Some(Expect::Expr(expect)) => format!("{text} = {expect}"),
            Some(Expect::Table(_)) => format!("{text} = values of the spec"),
            None if wants.is_empty() => format!("{text} is written"),
            None => format!("{text} = the set's expectation"),
        };
        let place = if check.mask.is_some() { format!(" where {}", check.mask.as_deref().unwrap_or_default()) } else { String::new() };
        let order = if check.unordered { ", in any order" } else { "" };
        let also = if check.written && !wants.is_empty() { ", and written" } else { "" };
        let mut resolved = Check {
            tensor: id,
            part,
            mask,
            wants,
            keeps: false,
            tolerance,
            default_tolerance,
            between,
            unordered: check.unordered,
            written: check.written,
            every,
            place: at.clone(),
            text: format!("{claim}{place}{order}{also}"),
        };
        let known = !resolved.wants.is_empty() && resolved.wants.iter().all(|want| matches!(want, Want::Expr(_)));
        resolved.keeps = tensor.carry && known && resolved.is_whole();
        Some(resolved)
    }

    /// How close the outputs of two devices must be, where that is said. *Errors*: one that is reported.
    fn between(&self, at: &Place, check: &spec::Check, tensor: &Tensor, elements: u64) -> Result<Option<Tolerance>, ()> {
        let at = at.to("between");
        let Some(between) = &check.between else {
            return if self.loaded.lacks(&at) { Err(()) } else { Ok(None) };
        };
        let as_check = between.as_check(check);
        let numbers = self.numbers(&at, &as_check);
        if *between == spec::Between::default() && !self.loaded.is_damaged(&at) {
            self.report(
                Diagnostic::error("bad-tolerance", at, "`between` says nothing of how close is close")
                    .help("leave it out: devices must then agree as closely as with what is expected; or write { ulp = 2 }"),
            );
            return Err(());
        }
        self.tolerance(&at, &as_check, numbers, tensor, elements).map(|(tolerance, _)| Some(tolerance)).ok_or(())
    }

    /// What the tensor must be; none where it only must be written.
    fn wants(&self, at: &Place, check: &spec::Check, target: Target<'_>, tensors: &Tensors, rounds: Option<Rounds>) -> Option<Vec<Want>> {
        let name = &target.tensor.name;
        let of_set = |set: &spec::Set| set.expect.contains_key(name);
        let Some(expect) = &check.expect else {
            if self.loaded.lacks(&at.to("expect")) {
                return None;
            }
            if check.written && !self.spec.sets.iter().any(of_set) {
                return Some(Vec::new());
            }
            return self.wants_of_sets(at, target, tensors, rounds);
        };
        for (set_index, _) in self.spec.sets.iter().enumerate().filter(|(_, set)| of_set(set)) {
            let set_at = Place::root().to("sets").to(set_index).to("expect").to(name);
            self.report(
                Diagnostic::error(
                    "two-expectations",
                    at.to("expect").key(),
                    format!("`{name}` has two expectations: this one and a set's"),
                )
                .help("keep one: without `expect` the check takes the set's")
                .also(set_at.key(), "the set's"),
            );
        }
        self.want(&at.to("expect"), expect, target, tensors, rounds).map(|want| vec![want])
    }

    /// The program of `where`. *Errors*: one that is reported.
    fn mask(&self, at: &Place, check: &spec::Check, target: Target<'_>, tensors: &Tensors) -> Result<Option<Arc<Program>>, ()> {
        let at = at.to("where");
        let Some(text) = &check.mask else {
            return if self.loaded.lacks(&at) { Err(()) } else { Ok(None) };
        };
        let expr = self.parse(&at, text).ok_or(())?;
        let scope = Places::expectation(self, tensors);
        let compile = |shape: &Shape| expr::compile_condition(&expr, &scope, shape);
        let program = self.for_target(&at, &expr, &scope, target, compile).ok_or(())?;
        if program.tensors().is_empty() && !program.uses_round() && matches!(expr.kind, expr::ExprKind::Bool(_)) {
            self.report(
                Diagnostic::error("bad-check", at, "`where` is the same for every element").help("name a mask, or write a condition"),
            );
            return Err(());
        }
        Ok(Some(Arc::new(program)))
    }

    /// What `unordered` and `written` do not go with.
    fn flags(&self, at: &Place, check: &spec::Check, tensor: &Tensor) -> Option<()> {
        let mut ok = true;
        let mut refuse = |key: &str, message: String, help: &str| {
            ok = false;
            self.report(Diagnostic::error("bad-check", at.to(key).key(), message).help(help));
        };
        let only_written = check.written && check.expect.is_none() && !self.spec.sets.iter().any(|s| s.expect.contains_key(&tensor.name));
        if only_written && check.unordered {
            refuse("unordered", "`unordered` compares, and this check has no expectation".into(), "add `expect`, or drop `unordered`");
        }
        if only_written && check.nan.is_some() {
            refuse("nan", "`nan` is about a comparison, and this check has no expectation".into(), "add `expect`, or drop `nan`");
        }
        if check.unordered && check.bitwise.is_some() && check.nan == Some(NanPolicy::Equal) {
            let message = "in any order NaN matches NaN, whatever its bits: `bitwise` cannot be promised".into();
            refuse("bitwise", message, "drop `bitwise` or `nan`");
        }
        if check.written && tensor.dtype.size() == 1 && tensor.dtype != Dtype::Bool {
            let message = format!(
                "an element of {} is one byte, and any byte may be its value: it cannot be told from one that was not written",
                tensor.dtype
            );
            refuse("written", message, "say with `expect` what it must be");
        }
        if check.written && !matches!(tensor.contents, Contents::None) {
            let message =
                format!("`{}` starts every round with contents of its own: it cannot be told whether they were written again", tensor.name);
            refuse("written", message, "say with `expect` what it must be");
        }
        ok.then_some(())
    }

    /// What can be said of a check whose tensor is not known.
    fn loose_check(&self, at: &Place, check: &spec::Check, tensors: &Tensors) {
        if let Some(expect) = &check.expect {
            self.loose_expect(&at.to("expect"), expect, tensors);
        }
    }

    /// Goldens that no check compares would look checked.
    fn uncovered(&self, tensors: &Tensors, from_sets: &[&str]) {
        if self.loaded.is_damaged(&Place::root().to("checks")) {
            return;
        }
        for (index, set) in self.spec.sets.iter().enumerate() {
            for name in set.expect.keys() {
                let at = Place::root().to("sets").to(index).to("expect").to(name).key();
                if !tensors.contains_key(name) {
                    if !self.loaded.lost("tensors", name) {
                        let names: Vec<_> = tensors.keys().collect();
                        self.report(
                            Diagnostic::error("unknown-name", at, format!("there is no tensor `{name}`"))
                                .did_you_mean(name, &names, "tensors"),
                        );
                    }
                } else if !self.spec.checks.iter().any(|c| c.tensor_name() == Some(name.as_str())) && !from_sets.contains(&name.as_str()) {
                    self.report(
                        Diagnostic::error("uncovered", at, format!("this expectation of `{name}` is never compared"))
                            .help(format!("add a check: [[checks]] with tensor = \"{name}\"")),
                    );
                }
            }
        }
    }

    /// In an expectation, a carried tensor stands for the expectation of the round before; so it must have one.
    fn carried(&self, checks: &[Check], conditions: &[Condition], tensors: &Tensors, lowered: &Lowered) {
        let of_checks = checks.iter().flat_map(|check| {
            let key =
                |program: &Arc<Program>| if check.mask.as_ref().is_some_and(|m| Arc::ptr_eq(m, program)) { "where" } else { "expect" };
            check.programs().map(move |program| (check.place.to(key(program)), program))
        });
        let of_conditions = conditions.iter().map(|condition| (condition.place.to("holds"), &condition.program));
        for (at, program) in of_checks.chain(of_conditions) {
            for &id in program.tensors() {
                let Some((name, Some(tensor))) = tensors.get_index(id) else { continue };
                let expected = checks.iter().any(|c| c.keeps && c.tensor == id);
                if tensor.carry && !expected && written(lowered, id) {
                    let message = format!("what carried `{name}` holds at the start of a round is not known");
                    self.report(Diagnostic::error("carried", at.clone(), message).help(format!(
                        "add a check of all of `{name}`, in order, with an expression: its value is then the start of the next round, never the device's bytes"
                    )));
                }
            }
        }
    }
}

/// Whether a step writes a tensor, or may.
pub(super) fn written(lowered: &Lowered, id: usize) -> bool {
    lowered.maybe.contains(id) || lowered.steps.iter().any(|s| s.action.views().any(|(access, view)| access.writes() && view.tensor == id))
}

/// Whether a tensor's contents can differ between rounds.
pub(super) fn varies(tensor: &Tensor) -> bool {
    tensor.carry || matches!(tensor.contents, Contents::Drawn(_) | Contents::Sets(_))
}

#[cfg(test)]
mod tests {
    use crate::job::{Job, Overrides, resolve};
    use crate::spec::{self, Backend};

    fn job(text: &str) -> Job {
        let loaded = spec::parse("specs/text.toml".into(), text.into(), "tests/specs/good".into());
        let (job, problems) = resolve(&loaded, Backend::Cpu, &Overrides::default());
        job.unwrap_or_else(|| panic!("{problems:?}"))
    }

    /// Eight terabytes of expectation are one number.
    #[test]
    fn expected_bits_take_no_memory() {
        let text = "[tensors]\nt = { dtype = \"u64\", shape = [1_000_000_000_000] }\n\
                    [[steps]]\nfill = \"t\"\nwith = \"bits(0xffff_ffff_ffff_ffff)\"\n\
                    [[checks]]\ntensor = \"t\"\nexpect = { fill = \"bits(0xffff_ffff_ffff_ffff)\" }\n";
        assert!(matches!(job(text).checks[0].wants[..], [crate::job::Want::Expr(_)]));
    }

    #[test]
    fn the_first_check_by_expression_gives_a_carried_start() {
        let text = "[tensors]\nt = { dtype = \"i32\", shape = [2], data = \"zeros\", carry = true }\n\
                    u = { dtype = \"i32\", shape = [2] }\n\
                    [[steps]]\nfill = \"t\"\nwith = 1\n[[steps]]\nfill = \"u\"\nwith = 1\n\
                    [[checks]]\ntensor = \"u\"\nexpect = \"1\"\n\
                    [[checks]]\ntensor = \"t\"\nexpect = { values = [1, 1] }\n\
                    [[checks]]\ntensor = \"t\"\nexpect = \"min(t + 1, 1)\"\n\
                    [[checks]]\ntensor = \"t\"\nexpect = \"1\"\n";
        let keeps: Vec<bool> = job(text).checks.iter().map(|c| c.keeps).collect();
        assert_eq!(keeps, [false, false, true, false]);
    }
}
