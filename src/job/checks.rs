//! `[[checks]]` and the expectations of `[[sets]]` -> claims with one source of expectation and a tolerance each.

use std::sync::Arc;

use super::names::Resolver;
use super::places::Places;
use super::steps::{Lowered, Tensors};
use super::{Check, Contents, Rounds, Tensor, Want};
use crate::check::Tolerance;
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Expr, ExprKind, Kind};
use crate::spec::{self, Expect, ExpectTable, NanPolicy, Num};

impl Resolver<'_> {
    pub(super) fn checks(&self, tensors: &Tensors, lowered: &Lowered, rounds: Option<Rounds>) -> Vec<Check> {
        let root = Place::root().to("checks");
        let mut checks = Vec::new();
        let mut from_sets: Vec<&str> = Vec::new();
        for (index, check) in self.spec.checks.iter().enumerate() {
            let at = root.to(index);
            let numbers = self.numbers(&at, check);
            let Some(name) = &check.tensor else {
                if !self.loaded.is_damaged(&at) {
                    self.report(
                        Diagnostic::error("missing-key", at.clone(), "a check without `tensor`")
                            .help("write `tensor = \"name\"`: what is read back and compared"),
                    );
                }
                self.loose_check(&at, check, tensors);
                continue;
            };
            let name_at = at.to("tensor");
            let Some((id, name, tensor)) = tensors.get_full(name.as_str()) else {
                if !self.loaded.lost("tensors", name) {
                    let names: Vec<_> = tensors.keys().collect();
                    self.report(
                        Diagnostic::error("unknown-name", name_at, format!("there is no tensor `{name}`"))
                            .did_you_mean(name, &names, "tensors"),
                    );
                }
                self.loose_check(&at, check, tensors);
                continue;
            };
            self.use_name(name);
            if check.expect.is_none() {
                from_sets.push(name);
            }
            let Some(tensor) = tensor else {
                self.loose_check(&at, check, tensors);
                continue;
            };
            let tolerance = self.tolerance(&at, check, numbers, tensor);
            if !written(lowered, id) && !self.spec.steps.is_empty() {
                self.report(
                    Diagnostic::error(
                        "cannot-fail",
                        name_at.clone(),
                        format!("no step writes `{name}`: this check compares what was put there with itself"),
                    )
                    .help("check a tensor that a step writes"),
                );
                self.loose_check(&at, check, tensors);
                continue;
            }
            let wants = match &check.expect {
                Some(expect) => {
                    for (set_index, set) in self.spec.sets.iter().enumerate() {
                        if set.expect.contains_key(name) {
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
                    }
                    self.want(&at.to("expect"), expect, tensor, tensors, rounds).map(|want| vec![want])
                }
                None if self.loaded.lacks(&at.to("expect")) => None,
                None => self.wants_of_sets(&at, name, tensor, tensors, rounds),
            };
            if let (Some(wants), Some((tolerance, default_tolerance))) = (wants, tolerance) {
                let text = match &check.expect {
                    Some(Expect::Expr(text)) => format!("{name} = {text}"),
                    Some(Expect::Table(_)) => format!("{name} = values of the spec"),
                    None => format!("{name} = the set's expectation"),
                };
                // The first check of a carried tensor that expressions can answer; a later one is a claim only.
                let keeps = tensor.carry
                    && wants.iter().all(|want| matches!(want, Want::Expr(_)))
                    && !checks.iter().any(|c: &Check| c.keeps && c.tensor == id);
                checks.push(Check { tensor: id, wants, keeps, tolerance, default_tolerance, place: at, text });
            }
        }
        self.uncovered(tensors, &from_sets);
        self.carried(&checks, tensors, lowered);
        checks
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
                } else if !self.spec.checks.iter().any(|c| c.tensor.as_ref() == Some(name)) && !from_sets.contains(&name.as_str()) {
                    self.report(
                        Diagnostic::error("uncovered", at, format!("this expectation of `{name}` is never compared"))
                            .help(format!("add a check: [[checks]] with tensor = \"{name}\"")),
                    );
                }
            }
        }
    }

    /// In an expectation, a carried tensor stands for the expectation of the round before; so it must have one.
    fn carried(&self, checks: &[Check], tensors: &Tensors, lowered: &Lowered) {
        for check in checks {
            for want in &check.wants {
                let Want::Expr(program) = want else { continue };
                for &id in program.tensors() {
                    let Some((name, Some(tensor))) = tensors.get_index(id) else { continue };
                    let expected = checks.iter().any(|c| c.keeps && c.tensor == id);
                    if tensor.carry && !expected && written(lowered, id) {
                        self.report(
                            Diagnostic::error("carried", check.place.to("expect"), format!("what carried `{name}` holds at the start of a round is not known"))
                                .help(format!("add a check of `{name}` with an expression: its value is then the start of the next round, never the device's bytes")),
                        );
                    }
                }
            }
        }
    }

    fn wants_of_sets(&self, at: &Place, name: &str, tensor: &Tensor, tensors: &Tensors, rounds: Option<Rounds>) -> Option<Vec<Want>> {
        let rows = self.rows();
        if rows.is_empty() {
            if !self.loaded.lacks(&Place::root().to("sets")) {
                self.report(
                    Diagnostic::error("no-expectation", at.to("tensor"), format!("nothing says what `{name}` must be"))
                        .help("write `expect = \"...\"` here, or `expect` in every set"),
                );
            }
            return None;
        }
        let mut wants = Vec::new();
        let mut ok = true;
        for row in rows {
            let set_at = Place::root().to("sets").to(row.index);
            match self.spec.sets[row.index].expect.get(name) {
                Some(expect) => match self.of_row(&row, || self.want(&set_at.to("expect").to(name), expect, tensor, tensors, rounds)) {
                    Some(want) => wants.push(want),
                    None => ok = false,
                },
                None => {
                    ok = false;
                    if !self.loaded.is_damaged(&set_at) {
                        self.report(
                            Diagnostic::error("no-expectation", set_at, format!("this set does not say what `{name}` must be"))
                                .help(format!("add `expect.{name} = ...`"))
                                .also(at.to("tensor"), "checked here, without an `expect` of its own"),
                        );
                    }
                }
            }
        }
        ok.then_some(wants)
    }

    fn want(&self, at: &Place, expect: &Expect, tensor: &Tensor, tensors: &Tensors, rounds: Option<Rounds>) -> Option<Want> {
        match expect {
            Expect::Expr(text) => self.want_expr(at, &self.parse(at, text)?, tensor, tensors),
            Expect::Table(table) => self.want_table(at, table, tensor, tensors, rounds),
        }
    }

    fn want_expr(&self, at: &Place, expr: &Expr, tensor: &Tensor, tensors: &Tensors) -> Option<Want> {
        let scope = Places::expectation(self, tensors);
        let program = expr::compile(expr, &scope, &tensor.shape)
            .and_then(|p| p.broadcast_to(&tensor.shape))
            .map_err(|e| self.report_expr(at, expr, &scope, e))
            .ok()?;
        if program.kind() == Kind::Float && !tensor.dtype.is_float() {
            self.report(
                Diagnostic::error("wrong-dtype", at.clone(), format!("this expectation is a float, `{}` is {}", tensor.name, tensor.dtype))
                    .help(format!(
                        "say how it becomes whole: `{0}(x)` cuts the fraction off, `{0}(rint(x))` rounds, `//` divides whole numbers",
                        tensor.dtype
                    )),
            );
            return None;
        }
        Some(Want::Expr(Arc::new(program)))
    }

    fn want_table(&self, at: &Place, table: &ExpectTable, tensor: &Tensor, tensors: &Tensors, rounds: Option<Rounds>) -> Option<Want> {
        let given = [("values", table.values.is_some()), ("fill", table.fill.is_some()), ("file", table.file.is_some())];
        let given: Vec<_> = given.into_iter().filter(|g| g.1).map(|g| g.0).collect();
        if given.len() != 1 {
            if !self.loaded.is_damaged(at) {
                self.report(Diagnostic::error(
                    "two-expectations",
                    at.clone(),
                    format!("an expectation with {} of `values`, `fill`, `file`: it has exactly one", given.len()),
                ));
            }
            return None;
        }
        if table.at.is_some() && table.file.is_none() {
            self.report(Diagnostic::error("misplaced-key", at.to("at").key(), "`at` picks a row of a `file`"));
            return None;
        }
        if let Some(values) = &table.values {
            return self.values(&at.to("values"), values, tensor.dtype, &tensor.shape).map(Want::Bytes);
        }
        if let Some(value) = &table.fill {
            let at = at.to("fill");
            let text = match value {
                Num::Text(text) if text.trim().starts_with("bits(") => {
                    let bits = self.bits(&at, value, tensor.dtype)?;
                    let number = Expr { span: 0..text.len(), kind: ExprKind::Number(tensor.dtype.decode(bits)) };
                    return self.want_expr(&at, &number, tensor, tensors);
                }
                Num::Text(text) => text.clone(),
                Num::Bool(b) => u8::from(*b).to_string(),
                Num::Int(i) => i.to_string(),
                Num::Float(f) => format!("{f:?}").to_lowercase(),
            };
            return self.want_expr(&at, &self.parse(&at, &text)?, tensor, tensors);
        }
        let path = table.file.as_deref()?;
        let file_at = at.to("file");
        let Some(row) = &table.at else {
            return self.npy(&file_at, path, tensor.dtype, Some(&tensor.shape)).map(|file| Want::File { file, row: None });
        };
        let file = self.npy(&file_at, path, tensor.dtype, None)?;
        let dims = file.shape().dims();
        if dims.first().is_none_or(|_| dims[1..] != *tensor.shape.dims()) {
            self.report(Diagnostic::error(
                "file",
                file_at,
                format!("`{path}` has shape {}, with `at` it must be [rows, ...] of {}", file.shape(), tensor.shape),
            ));
            return None;
        }
        let row_at = at.to("at");
        let scalar = self.scalar(&row_at, row, &Places::per_round(self, &[]), expr::Place::Integer)?;
        let last = rounds.map_or(0, |r| r.count.saturating_sub(1));
        for round in [0, last] {
            let row = scalar.eval(round).map_err(|e| self.report_text("expression", &row_at, e)).ok()?;
            if row.to_integer().is_none_or(|r| r < 0 || r >= i128::from(dims[0])) {
                self.report(Diagnostic::error(
                    "out-of-range",
                    row_at,
                    format!("row {row} in round {round}: `{path}` has {} rows", dims[0]),
                ));
                return None;
            }
        }
        Some(Want::File { file, row: Some(scalar) })
    }

    /// The numbers of a check's tolerance.
    fn numbers(&self, at: &Place, check: &spec::Check) -> Numbers {
        let (mut rtol, mut atol) = (None, None);
        let mut ok = true;
        for (key, value, slot) in [("rtol", &check.rtol, &mut rtol), ("atol", &check.atol, &mut atol)] {
            let Some(value) = value else { continue };
            *slot = self.relative(&at.to(key), key, value);
            ok &= slot.is_some();
        }
        let (mut ulp, mut most) = (None, None);
        for (key, value, slot) in [("ulp", &check.ulp, &mut ulp), ("max_mismatches", &check.max_mismatches, &mut most)] {
            let Some(value) = value else { continue };
            *slot = self.int_within(&at.to(key), value, &format!("`{key}`"), 0, i64::MAX as u64);
            ok &= slot.is_some();
        }
        Numbers { rtol, atol, ulp, most, ok }
    }

    /// `rtol` or `atol`.
    fn relative(&self, at: &Place, key: &str, value: &Num) -> Option<f64> {
        if let Num::Bool(value) = value {
            self.report(Diagnostic::error("wrong-type", at.clone(), format!("`{key}` is the boolean `{value}`, expected a number")));
            return None;
        }
        let scalar = self.scalar(at, value, &Places::constant(self, &[]), expr::Place::Float)?;
        let value = scalar.eval(0).map_err(|e| self.report_text("expression", at, e)).ok()?.to_f64();
        if value >= 0.0 && value.is_finite() {
            return Some(value);
        }
        let why = if value.is_nan() { "no comparison with it is true" } else { "it must be at least 0 and finite" };
        self.report(Diagnostic::error("bad-tolerance", at.clone(), format!("`{key}` is {value:?}: {why}")));
        None
    }

    /// The tolerance in resolved form, and whether it is the dtype's default.
    fn tolerance(&self, at: &Place, check: &spec::Check, numbers: Numbers, tensor: &Tensor) -> Option<(Tolerance, bool)> {
        let dtype = tensor.dtype;
        let Numbers { rtol, atol, ulp, most, mut ok } = numbers;
        let toleranced = check.rtol.is_some() || check.atol.is_some() || check.ulp.is_some();
        if check.exact && toleranced {
            ok = false;
            let key = if check.rtol.is_some() {
                "rtol"
            } else if check.atol.is_some() {
                "atol"
            } else {
                "ulp"
            };
            self.report(
                Diagnostic::error("bad-tolerance", at.to(key).key(), format!("`exact` leaves nothing for `{key}` to allow"))
                    .help("keep one of them")
                    .also(at.to("exact").key(), "here"),
            );
        }
        let elements = tensor.shape.elements();
        if let Some(most) = most.filter(|most| *most >= elements) {
            ok = false;
            self.report(Diagnostic::error(
                "cannot-fail",
                at.to("max_mismatches"),
                format!("`max_mismatches` is {most}, `{}` has {elements} elements: the check cannot fail", tensor.name),
            ));
        }
        let nan_equal = check.nan == Some(NanPolicy::Equal);
        let mut tolerance = if check.exact || toleranced {
            let relative = check.rtol.is_some() || check.atol.is_some();
            Tolerance {
                exact: check.exact,
                rtol: relative.then(|| rtol.unwrap_or(0.0)),
                atol: relative.then(|| atol.unwrap_or(0.0)),
                ulp,
                ..Tolerance::default_for(dtype)
            }
        } else {
            Tolerance::default_for(dtype)
        };
        tolerance.nan_equal = nan_equal;
        tolerance.max_mismatches = most.unwrap_or(0);
        ok.then_some((tolerance, !check.exact && !toleranced))
    }
}

/// The numbers of a tolerance; `ok` where all that are given can be used.
struct Numbers {
    rtol: Option<f64>,
    atol: Option<f64>,
    ulp: Option<u64>,
    most: Option<u64>,
    ok: bool,
}

/// Whether a step writes a tensor, or may.
fn written(lowered: &Lowered, id: usize) -> bool {
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
