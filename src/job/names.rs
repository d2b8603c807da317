//! Names -> values: dims in any order, and what is one of a spec: rounds and limits.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use indexmap::IndexMap;

use super::places::Places;
use super::sets::Row;
use super::{Job, Limits, Overrides, Rounds};
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Expr, Scalar, Scope};
use crate::spec::{Backend, Int, Loaded, Num, PerBackend, Spec};
use crate::tensor::{Dtype, Number};

/// Dims that refer to each other deeper than this are refused.
const DEEPEST_DIM: usize = 200;

/// The most rounds a job can have: the round is a 32-bit word of the random generator's counter, of which one value stands for "every round".
pub const MOST_ROUNDS: u64 = u32::MAX as u64 - 1;

#[derive(Clone, Copy, PartialEq)]
enum Dim {
    /// Being evaluated: met again, it is a cycle.
    Open,
    Known(i128),
    /// Its own mistake is reported where it stands.
    Broken,
}

/// A dim that is being evaluated.
struct OpenDim {
    name: String,
    at: Place,
    /// `None` where its own mistake is reported.
    value: Option<(Place, DimValue)>,
    /// The dims that it names and that have not been looked at, last first.
    names: Vec<String>,
}

enum DimValue {
    Known(i128),
    Expr(Expr),
}

/// The state of resolving one spec.
pub(super) struct Resolver<'a> {
    pub loaded: &'a Loaded,
    pub spec: &'a Spec,
    pub backend: Backend,
    pub overrides: &'a Overrides,
    pub(super) problems: RefCell<Vec<Diagnostic>>,
    reported: RefCell<HashSet<(&'static str, Place)>>,
    dims: RefCell<HashMap<String, Dim>>,
    open: RefCell<Vec<String>>,
    used: RefCell<HashSet<String>>,
    /// The last round of the job.
    pub last_round: Cell<u64>,
    /// The sets of the job.
    rows: RefCell<Vec<Row>>,
    /// What paths are relative to, where it is not the spec's folder.
    folder: RefCell<Option<PathBuf>>,
}

impl<'a> Resolver<'a> {
    pub fn new(loaded: &'a Loaded, spec: &'a Spec, backend: Backend, overrides: &'a Overrides) -> Resolver<'a> {
        Resolver {
            loaded,
            spec,
            backend,
            overrides,
            problems: RefCell::default(),
            reported: RefCell::default(),
            dims: RefCell::default(),
            open: RefCell::default(),
            used: RefCell::default(),
            last_round: Cell::new(0),
            rows: RefCell::default(),
            folder: RefCell::default(),
        }
    }

    /// The sets of the job.
    pub fn rows(&self) -> Vec<Row> {
        self.rows.borrow().clone()
    }

    /// What paths are relative to here.
    pub fn folder(&self) -> PathBuf {
        self.folder.borrow().clone().unwrap_or_else(|| self.loaded.folder.clone())
    }

    /// Reads what a row says, whose paths are relative to its folder.
    pub fn of_row<T>(&self, row: &Row, read: impl FnOnce() -> T) -> T {
        let before = self.folder.replace(Some(row.folder.clone()));
        let value = read();
        self.folder.replace(before);
        value
    }

    pub fn into_problems(self) -> Vec<Diagnostic> {
        self.problems.into_inner()
    }

    /// Adds a problem; one place is told the same kind of problem once, however often a loop passes it.
    pub fn report(&self, diagnostic: Diagnostic) {
        if self.reported.borrow_mut().insert((diagnostic.code, diagnostic.at.clone())) {
            self.problems.borrow_mut().push(diagnostic);
        }
    }

    pub fn use_name(&self, name: &str) {
        if !self.used.borrow().contains(name) {
            self.used.borrow_mut().insert(name.to_string());
        }
    }

    pub fn is_used(&self, name: &str) -> bool {
        self.used.borrow().contains(name)
    }

    /// A problem inside a text; an empty message stands for a mistake that is reported elsewhere.
    pub fn report_text(&self, code: &'static str, at: &Place, error: crate::diag::TextError) {
        if !error.message.is_empty() {
            let code = if error.unknown.is_some() { "unknown-name" } else { code };
            self.report(Diagnostic::inside(code, at, error));
        }
    }

    pub fn job(&self) -> Option<Job> {
        self.names();
        self.dim_overrides();
        let mut points = self.points();
        let jobs = points.len();
        let point = points.swap_remove(self.overrides.point.min(jobs - 1));
        for (name, value) in &point.dims {
            self.dims.borrow_mut().insert(name.clone(), Dim::Known(*value));
        }
        let suffix = point.suffix();
        self.rows.replace(point.rows);
        let dims = self.all_dims();
        let rounds = self.rounds();
        self.last_round.set(rounds.map_or(0, |r| r.count.saturating_sub(1)));
        let mut tensors = self.tensors();
        let kernels = self.kernels();
        let mut lowered = self.steps(&mut tensors, &kernels, rounds);
        let (checks, conditions, builds) = self.checks(&tensors, &kernels, &lowered, rounds);
        self.flow(&tensors, &lowered);
        self.spacing(&mut tensors, &kernels, &mut lowered);
        self.unused(&tensors, &kernels, &lowered, &conditions);
        self.header();
        self.devices();
        let only = self.only(rounds);
        let bench = self.bench();
        let requires = self.requirements();
        let clean = self.problems.borrow().iter().all(|d| d.severity < crate::diag::Severity::Error);
        if !clean || !self.loaded.diagnostics.iter().all(|d| d.severity < crate::diag::Severity::Error) {
            return None;
        }
        let mut table = Vec::with_capacity(tensors.len());
        for tensor in tensors.into_values() {
            table.push(tensor?);
        }
        let (mut steps, mut builds) = (lowered.steps, builds);
        let (sources, loads) = super::builds::table(kernels, &mut steps, &mut builds)?;
        let fallback =
            || std::path::Path::new(&self.loaded.source.name).file_stem().map_or("job".into(), |s| s.to_string_lossy().into_owned());
        Some(Job {
            name: self.spec.name.clone().unwrap_or_else(fallback) + &suffix,
            jobs,
            summary: self.spec.summary.clone(),
            tags: self.spec.tags.clone(),
            xfail: self.spec.xfail.clone(),
            requires,
            backend: self.backend,
            dims: dims.into_iter().collect(),
            tensors: table,
            kernels: sources,
            loads,
            steps,
            origins: lowered.origins,
            vars: lowered.vars,
            sets: self.set_names(),
            only,
            rounds: rounds?,
            checks,
            conditions,
            builds,
            limits: self.limits(),
            bench,
            compared: false,
        })
    }

    fn header(&self) {
        let root = Place::root();
        if self.spec.xfail.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
            self.report(
                Diagnostic::error("empty", root.to("xfail"), "`xfail` is empty")
                    .help("write the reason for which the job is expected to fail"),
            );
        }
        if self.spec.name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            self.report(Diagnostic::error("empty", root.to("name"), "`name` is empty"));
        }
        let of_builds = self.is_of_builds() || (self.has_builds() && self.loaded.is_damaged(&root.to("checks")));
        if self.spec.steps.is_empty() && !of_builds && !self.loaded.is_damaged(&root.to("steps")) {
            self.report(Diagnostic::error("no-steps", root.to("steps").key(), "the spec has no [[steps]]: there is nothing to run"));
        }
    }

    /// Dims, types, tensors and kernels have names that are names, and all but kernels share one namespace.
    fn names(&self) {
        let root = Place::root();
        let spec = self.spec;
        let lists = [
            ("dims", spec.dims.keys().collect::<Vec<_>>()),
            ("types", spec.types.keys().collect()),
            ("tensors", spec.tensors.keys().collect()),
            ("kernels", spec.kernels.keys().collect()),
        ];
        for (list, names) in lists {
            for name in names {
                let at = root.to(list).to(name).key();
                let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
                if name.is_empty() || !plain {
                    self.report(
                        Diagnostic::error("bad-name", at, format!("`{name}` is not a name"))
                            .help("a name is a letter or `_`, then letters, digits or `_`"),
                    );
                } else if list != "kernels" && (expr::is_reserved(name) || Dtype::from_name(name).is_some()) {
                    self.report(Diagnostic::error("bad-name", at, format!("`{name}` is a word of the language and can name nothing else")));
                } else if let Some((other, first)) = self.other_of_name(list, name) {
                    let what = if list == "types" { "type" } else { "tensor" };
                    self.report(
                        Diagnostic::error("name-clash", at, format!("`{name}` names a {other} and a {what}"))
                            .help("dims, types, tensors and loop variables share one namespace: rename one of them")
                            .also(first, format!("the {other}")),
                    );
                }
            }
        }
    }

    /// What else has a name of a list, where it stands before that list in the order dims, types, tensors.
    fn other_of_name(&self, list: &str, name: &str) -> Option<(&'static str, Place)> {
        let at = |list: &str| Place::root().to(list).to(name).key();
        match list {
            "types" | "tensors" if self.spec.dims.contains_key(name) => Some(("dim", at("dims"))),
            "tensors" if self.spec.types.contains_key(name) => Some(("type", at("types"))),
            _ => None,
        }
    }

    fn dim_overrides(&self) {
        for (name, value) in &self.overrides.dims {
            if self.spec.dims.contains_key(name) {
                self.dims.borrow_mut().insert(name.clone(), Dim::Known((*value).into()));
            } else {
                let names: Vec<_> = self.spec.dims.keys().collect();
                self.report(
                    Diagnostic::error(
                        "unknown-name",
                        Place::root().to("dims").key(),
                        format!("--dim {name}={value}: the spec has no dim `{name}`"),
                    )
                    .did_you_mean_text(name, &names, "dims"),
                );
            }
        }
    }

    fn all_dims(&self) -> IndexMap<String, i128> {
        self.spec.dims.keys().filter_map(|name| Some((name.clone(), self.dim(name)?))).collect()
    }

    /// The value of a dim; `None` where its own mistake is reported.
    pub(super) fn dim(&self, name: &str) -> Option<i128> {
        if let Some(dim) = self.dims.borrow().get(name) {
            match dim {
                Dim::Known(value) => return Some(*value),
                Dim::Broken => return None,
                Dim::Open => {}
            }
        }
        // What an expression names is evaluated before it, from a list: however deep dims go, nothing nests.
        let mut work: Vec<_> = self.open_dim(name).into_iter().collect();
        while let Some(dim) = work.last_mut() {
            match dim.names.pop() {
                Some(name) if !matches!(self.dims.borrow().get(&name), Some(Dim::Known(_) | Dim::Broken)) => {
                    work.extend(self.open_dim(&name));
                }
                Some(_) => {}
                None => self.close_dim(work.pop()?),
            }
        }
        match self.dims.borrow().get(name) {
            Some(Dim::Known(value)) => Some(*value),
            _ => None,
        }
    }

    /// Starts with a dim, where it may be evaluated now.
    fn open_dim(&self, name: &str) -> Option<OpenDim> {
        let at = Place::root().to("dims").to(name);
        if self.dims.borrow().get(name) == Some(&Dim::Open) {
            let open = self.open.borrow();
            let from = open.iter().position(|n| n == name).unwrap_or(0);
            let cycle = open[from..].iter().chain([&name.to_string()]).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" -> ");
            self.report(Diagnostic::error("dim-cycle", at, format!("dims refer to each other in a cycle: {cycle}")));
            return None;
        }
        if self.open.borrow().len() >= DEEPEST_DIM {
            self.report(Diagnostic::error("dim-depth", at, format!("dims refer to each other more than {DEEPEST_DIM} deep")));
            return None;
        }
        self.dims.borrow_mut().insert(name.to_string(), Dim::Open);
        self.open.borrow_mut().push(name.to_string());
        let value = self.spec.dims.get(name).filter(|_| !self.loaded.is_damaged(&at)).and_then(|value| {
            let (at, value) = self.pick(&at, value)?;
            let value = match value {
                Int::Int(value) => DimValue::Known(*value),
                Int::Text(text) => DimValue::Expr(self.parse(&at, text)?),
            };
            Some((at, value))
        });
        let mut names = Vec::new();
        if let Some((_, DimValue::Expr(expr))) = &value {
            expr.names(&mut |name, _| {
                if name != "round" && self.spec.dims.contains_key(name) {
                    names.push(name.to_string());
                }
            });
            names.reverse();
        }
        Some(OpenDim { name: name.to_string(), at, value, names })
    }

    /// Evaluates a dim whose names have been.
    fn close_dim(&self, dim: OpenDim) {
        let OpenDim { name, at, value, .. } = dim;
        let value = value.and_then(|(at, value)| match value {
            DimValue::Known(value) => Some(value),
            DimValue::Expr(expr) => self.eval_int(&at, &expr, &Places::constant(self, &[])),
        });
        self.open.borrow_mut().pop();
        let value = value.filter(|v| {
            let fits = i64::try_from(*v).is_ok();
            if !fits {
                self.report(Diagnostic::error("overflow", at, format!("dim `{name}` is {v}, dims hold -2^63 to 2^63 - 1")));
            }
            fits
        });
        self.dims.borrow_mut().insert(name, value.map_or(Dim::Broken, Dim::Known));
    }

    /// The value for this backend, with its place; reports where there is none.
    pub fn pick<'v, T>(&self, at: &Place, value: &'v PerBackend<T>) -> Option<(Place, &'v T)> {
        match value.get(self.backend) {
            Some((None, value)) => Some((at.clone(), value)),
            Some((Some(key), value)) => Some((at.to(key), value)),
            None if self.loaded.is_damaged(at) => None,
            None => {
                let backend = self.backend.name();
                self.report(
                    Diagnostic::error("no-backend", at.clone(), format!("`{at}` has no value for `{backend}`"))
                        .help(format!("add `{backend} = ...` or `default = ...`")),
                );
                None
            }
        }
    }

    /// The value of an integer place.
    pub fn int(&self, at: &Place, value: &Int, scope: &dyn Scope) -> Option<i128> {
        match value {
            Int::Int(value) => Some(*value),
            Int::Text(text) => {
                let expr = self.parse(at, text)?;
                self.eval_int(at, &expr, scope)
            }
        }
    }

    pub fn parse(&self, at: &Place, text: &str) -> Option<Expr> {
        expr::parse(text).map_err(|e| self.report_text("expression", at, e)).ok()
    }

    pub fn eval_int(&self, at: &Place, expr: &Expr, scope: &dyn Scope) -> Option<i128> {
        expr::integer(expr, scope).map_err(|e| self.report_expr(at, expr, scope, e)).ok()
    }

    /// A problem of an expression. One that is reported elsewhere hides none behind it.
    pub fn report_expr(&self, at: &Place, expr: &Expr, scope: &dyn Scope, error: crate::diag::TextError) {
        if error.message.is_empty() || error.unknown.is_some() {
            self.loose_expr(at, expr, scope);
        }
        self.report_text("expression", at, error);
    }

    /// An integer that must be one of a range.
    pub fn int_within(&self, at: &Place, value: &Int, what: &str, low: u64, high: u64) -> Option<u64> {
        let value = self.int(at, value, &Places::constant(self, &[]))?;
        match u64::try_from(value) {
            Ok(v) if (low..=high).contains(&v) => Some(v),
            _ => {
                self.report(Diagnostic::error("out-of-range", at.clone(), format!("{what} is {value}, it must be {low} to {high}")));
                None
            }
        }
    }

    /// A number or expression bound to its names; `place` says how it is evaluated.
    pub fn scalar(&self, at: &Place, value: &Num, scope: &dyn Scope, place: expr::Place) -> Option<Scalar> {
        let bind = |expr: &Expr| Scalar::bind(expr, scope, place).map_err(|e| self.report_expr(at, expr, scope, e)).ok();
        let literal = |kind| Expr { span: 0..0, kind };
        match value {
            Num::Int(i) => bind(&literal(expr::ExprKind::Number(Number::Int(*i)))),
            Num::Float(f) if place == expr::Place::Integer => match Number::Float(*f).to_integer() {
                Some(whole) => bind(&literal(expr::ExprKind::Number(Number::Int(whole)))),
                None => {
                    self.report(Diagnostic::error("not-whole", at.clone(), format!("{f} is not a whole number")));
                    None
                }
            },
            Num::Float(f) => bind(&literal(expr::ExprKind::Number(Number::Float(*f)))),
            Num::Bool(b) => bind(&literal(expr::ExprKind::Number(Number::Int((*b).into())))),
            Num::Text(text) => bind(&self.parse(at, text)?),
        }
    }

    fn rounds(&self) -> Option<Rounds> {
        let at = Place::root().to("rounds");
        let rounds = &self.spec.rounds;
        if self.is_of_builds() {
            return self.no_rounds();
        }
        let ok = std::cell::Cell::new(true);
        let read = |key: &str, value: &Option<Int>, low: u64, high: u64, default: u64| match value {
            None => default,
            Some(value) => self.int_within(&at.to(key), value, &format!("`rounds.{key}`"), low, high).unwrap_or_else(|| {
                ok.set(false);
                default
            }),
        };
        let count = match self.overrides.rounds {
            Some(count) if (1..=MOST_ROUNDS).contains(&count) => count,
            Some(count) => {
                let message = format!("--rounds {count}: a job has 1 to {MOST_ROUNDS} rounds");
                self.report(Diagnostic::error("out-of-range", at.to("count"), message));
                return None;
            }
            None => read("count", &rounds.count, 1, MOST_ROUNDS, (self.rows.borrow().len() as u64).max(1)),
        };
        let warmup = read("warmup", &rounds.warmup, 0, MOST_ROUNDS, 1);
        let seed = match self.overrides.seed {
            Some(seed) => seed,
            None => read("seed", &rounds.seed, 0, u64::MAX, 0),
        };
        ok.get().then_some(Rounds { count, warmup, seed, order: rounds.order.unwrap_or_default() })
    }

    fn limits(&self) -> Limits {
        use std::time::Duration;
        let limits = &self.spec.limits;
        let time = |span: &Option<crate::spec::Span>, default: u64| span.map_or(Duration::from_secs(default), |s| s.0);
        Limits {
            compile: time(&limits.compile, 120),
            prepare: time(&limits.prepare, 60),
            run: time(&limits.run, 60),
            check: time(&limits.check, 60),
            device_memory: limits.device_memory.map(|b| b.0),
            host_memory: limits.host_memory.map(|b| b.0),
        }
    }
}
