//! `[[steps]]` -> steps with names bound to kernels, tensors and parameters; loops are still loops.

use indexmap::IndexMap;

use super::kernels::Kernel;
use super::loose::Maybe;
use super::names::Resolver;
use super::places::Places;
use super::{Origin, Rounds, Step, Tensor, Var, unroll};
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Expr};
use crate::spec::{self, Int, Num};
use crate::tensor::{Access, Dtype};

/// Tensors by name; `None` where one's own mistake is reported.
pub(super) type Tensors = IndexMap<String, Option<Tensor>>;
pub(super) type Kernels = IndexMap<String, Option<Kernel>>;

/// The steps of one round, and what they refer to.
#[derive(Default)]
pub(super) struct Lowered {
    pub steps: Vec<Step>,
    pub origins: Vec<Origin>,
    pub vars: Vec<Var>,
    /// Tensors whose element is passed by value, with the place that does so.
    pub by_value: Vec<(usize, Place)>,
    /// By origin: where the tensors that a step reads and writes stand, in the order of `Action::views`.
    pub view_places: Vec<Vec<Place>>,
    /// What steps that are broken may write.
    pub maybe: Maybe,
}

impl Lowered {
    /// Where a step's tensor stands.
    pub fn view_place(&self, origin: u32, index: usize) -> Place {
        let places = self.view_places.get(origin as usize).and_then(|places| places.get(index));
        places.cloned().unwrap_or_else(|| self.origins[origin as usize].place.clone())
    }
}

/// A step whose names are bound.
pub(super) enum Bound {
    Launch { origin: u32, kernel: usize, grid: Grid, args: Vec<Arg> },
    Copy { origin: u32, src: Region, dst: Region },
    Fill { origin: u32, dst: Region, at: Place, value: Num },
    For { var: String, at: Place, low: Expr, high: Expr, body: Vec<Bound> },
}

/// The launch size in the spec's terms, x first.
pub(super) enum Grid {
    One,
    Blocks(Vec<(Place, Int)>),
    Threads(Vec<(Place, Int)>),
}

/// A tensor or a view of one.
pub(super) struct Region {
    pub at: Place,
    pub tensor: usize,
    pub view: expr::View,
}

pub(super) enum Arg {
    Tensor {
        access: Access,
        region: Region,
        /// The kernel takes so many elements at a time.
        lanes: u32,
    },
    Scalar {
        at: Place,
        value: Num,
        dtype: Dtype,
    },
    /// The one element of a tensor, passed by value.
    Element {
        tensor: usize,
    },
}

impl Resolver<'_> {
    /// All steps, loops unrolled. Tensors for fills that no 32-bit word can make are added to `tensors`.
    pub(super) fn steps(&self, tensors: &mut Tensors, kernels: &Kernels, rounds: Option<Rounds>) -> Lowered {
        let mut lowered = Lowered::default();
        self.lost_steps(&mut lowered.maybe);
        let bound = self.bind_steps(&Place::root().to("steps"), &self.spec.steps, tensors, kernels, &mut lowered, &mut Vec::new());
        unroll::unroll(self, bound, tensors, kernels, rounds, &mut lowered);
        for (tensor, place) in std::mem::take(&mut lowered.by_value) {
            let writer = lowered.steps.iter().find(|s| s.action.views().any(|(access, view)| access.writes() && view.tensor == tensor));
            if let Some(writer) = writer
                && let Some((name, _)) = tensors.get_index(tensor)
            {
                self.report(
                    Diagnostic::error("by-value", place, format!("`{name}` is passed by value here, but a step writes it"))
                        .help("a scalar parameter is fixed when the round is submitted; make the parameter a tensor (`in f32 x`)")
                        .also(lowered.origins[writer.origin as usize].place.clone(), "written here"),
                );
            }
        }
        lowered
    }

    fn bind_steps(
        &self,
        at: &Place,
        steps: &[spec::Step],
        tensors: &Tensors,
        kernels: &Kernels,
        lowered: &mut Lowered,
        loops: &mut Vec<String>,
    ) -> Vec<Bound> {
        let mut bound = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let here = at.to(index);
            match self.bind_step(&here, step, tensors, kernels, lowered, loops) {
                Some(next) => bound.push(next),
                None => self.may_write(&here, step, tensors, kernels, &mut lowered.maybe),
            }
        }
        bound
    }

    fn bind_step(
        &self,
        at: &Place,
        step: &spec::Step,
        tensors: &Tensors,
        kernels: &Kernels,
        lowered: &mut Lowered,
        loops: &mut Vec<String>,
    ) -> Option<Bound> {
        let kinds: Vec<&str> = [
            step.kernel.is_some().then_some("kernel"),
            step.copy.is_some().then_some("copy"),
            step.fill.is_some().then_some("fill"),
            step.each.is_some().then_some("for"),
        ]
        .into_iter()
        .flatten()
        .collect();
        // What was taken out while reading may be what says which kind of step it is.
        if kinds.is_empty() && self.loaded.is_damaged(at) {
            return None;
        }
        let [kind] = kinds.as_slice() else {
            let message = if kinds.is_empty() {
                "a step without `kernel`, `copy`, `fill` or `for`".to_string()
            } else {
                format!(
                    "a step with {}: it is exactly one of `kernel`, `copy`, `fill`, `for`",
                    kinds.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(" and ")
                )
            };
            let help = if kinds.is_empty() { "write one of them" } else { "write one [[steps]] for each action" };
            let place = if kinds.is_empty() { at.clone() } else { at.to(kinds[1]).key() };
            self.report(Diagnostic::error("step-kind", place, message).help(help));
            return None;
        };
        self.misplaced_keys(at, step, kind);
        let mut origin = |label: String, views: &[&str]| {
            lowered.origins.push(Origin { place: at.clone(), label, loops: loops.clone() });
            lowered.view_places.push(views.iter().map(|key| at.to(*key)).collect());
            lowered.origins.len() as u32 - 1
        };
        match *kind {
            "kernel" => {
                let origin = origin(step.kernel.clone().unwrap_or_default(), &[]);
                self.bind_launch(at, step, tensors, kernels, lowered, loops, origin)
            }
            "copy" => {
                let (from, to) = (step.copy.as_deref().unwrap_or(""), step.to.as_deref());
                let Some(to) = to else {
                    if !self.loaded.lacks(&at.to("to")) {
                        self.report(
                            Diagnostic::error("missing-key", at.to("copy").key(), "`copy` has no `to`")
                                .help("write `to = \"name\"`: the tensor that is written"),
                        );
                    }
                    return None;
                };
                let src = self.region(&at.to("copy"), from, tensors, loops);
                let dst = self.region(&at.to("to"), to, tensors, loops);
                let origin = origin(format!("copy {from} -> {to}"), &["copy", "to"]);
                src.zip(dst).map(|(src, dst)| Bound::Copy { origin, src, dst })
            }
            "fill" => {
                let name = step.fill.as_deref().unwrap_or("");
                let origin = origin(format!("fill {name}"), &["fill"]);
                let Some(value) = &step.value else {
                    if !self.loaded.lacks(&at.to("with")) {
                        self.report(
                            Diagnostic::error("missing-key", at.to("fill").key(), "`fill` has no `with`")
                                .help("write `with = 0.0`: the number"),
                        );
                    }
                    return None;
                };
                let region = self.region(&at.to("fill"), name, tensors, loops);
                if region.is_none() {
                    let loops: Vec<_> = loops.iter().map(|name| (name.clone(), 0)).collect();
                    self.loose_num(&at.to("with"), value, &Places::anything(self, &loops, tensors));
                }
                region.map(|dst| Bound::Fill { origin, dst, at: at.to("with"), value: value.clone() })
            }
            _ => self.bind_loop(at, step, tensors, kernels, lowered, loops),
        }
    }

    /// Keys that belong to another kind of step would be ignored; they are errors.
    fn misplaced_keys(&self, at: &Place, step: &spec::Step, kind: &str) {
        let present = [
            ("args", "kernel", step.args.is_some()),
            ("threads", "kernel", step.threads.is_some()),
            ("grid", "kernel", step.grid.is_some()),
            ("to", "copy", step.to.is_some()),
            ("with", "fill", step.value.is_some()),
            ("do", "for", step.body.is_some()),
        ];
        for (key, of, there) in present {
            if there && of != kind {
                self.report(Diagnostic::error(
                    "misplaced-key",
                    at.to(key).key(),
                    format!("`{key}` belongs to a `{of}` step, this is a `{kind}` step"),
                ));
            }
        }
    }

    fn bind_loop(
        &self,
        at: &Place,
        step: &spec::Step,
        tensors: &Tensors,
        kernels: &Kernels,
        lowered: &mut Lowered,
        loops: &mut Vec<String>,
    ) -> Option<Bound> {
        let each = step.each.as_ref()?;
        let for_at = at.to("for");
        let (var, range) = match each.first() {
            Some(first) if each.len() == 1 => first,
            _ if self.loaded.is_damaged(&for_at) => return None,
            _ => {
                self.report(
                    Diagnostic::error("loop", for_at, format!("`for` has {} variables, it has one", each.len()))
                        .help("write `for = { i = \"0:n\" }`; loops nest"),
                );
                return None;
            }
        };
        let range_at = for_at.to(var);
        let clash = [("dim", self.spec.dims.contains_key(var), "dims"), ("tensor", tensors.contains_key(var), "tensors")];
        let mut ok = true;
        for (what, _, list) in clash.into_iter().filter(|c| c.1) {
            ok = false;
            self.report(
                Diagnostic::error("name-clash", range_at.key(), format!("loop variable `{var}` is also a {what}"))
                    .help("rename the loop variable")
                    .also(Place::root().to(list).to(var).key(), format!("the {what}")),
            );
        }
        if loops.contains(var) {
            ok = false;
            self.report(Diagnostic::error("name-clash", range_at.key(), format!("loop variable `{var}` is also that of a loop around it")));
        }
        if expr::is_reserved(var) || !matches!(expr::parse(var).map(|e| e.kind), Ok(expr::ExprKind::Name(_))) {
            ok = false;
            self.report(Diagnostic::error("bad-name", range_at.key(), format!("`{var}` cannot name a loop variable")));
        }
        let parsed = expr::parse_range(range).map_err(|e| self.report_text("expression", &range_at, e)).ok();
        let Some(body) = &step.body else {
            if !self.loaded.lacks(&at.to("do")) {
                self.report(
                    Diagnostic::error("missing-key", for_at.key(), "`for` has no `do`")
                        .help("write `do = [...]` or [[steps.do]]: the steps of one turn"),
                );
            }
            return None;
        };
        if body.is_empty() {
            self.report(Diagnostic::error("loop", at.to("do"), "`do` is empty"));
        }
        loops.push(var.clone());
        let body = self.bind_steps(&at.to("do"), body, tensors, kernels, lowered, loops);
        loops.pop();
        let (low, high) = parsed?;
        ok.then(|| Bound::For { var: var.clone(), at: range_at, low, high, body })
    }

    /// A tensor or view by its text.
    pub(super) fn region(&self, at: &Place, text: &str, tensors: &Tensors, loops: &[String]) -> Option<Region> {
        let view = expr::parse_view(text).map_err(|e| self.report_text("bad-view", at, e)).ok()?;
        if let Some((_, span)) = &view.cast {
            self.report(Diagnostic::error("bad-view", at.inside(span.clone()), "a tensor cannot be passed as another dtype"));
            return None;
        }
        let declared = tensors.get_full(&view.name);
        if declared.is_none_or(|(_, _, known)| known.is_none()) {
            let loops: Vec<_> = loops.iter().map(|name| (name.clone(), 0)).collect();
            self.loose_subscripts(at, &view.index, &Places::constant(self, &loops));
        }
        let Some((tensor, _, known)) = declared else {
            if !self.loaded.lost("tensors", &view.name) {
                let names: Vec<&String> = tensors.keys().collect();
                let what = if self.spec.dims.contains_key(&view.name) { "is a dim, not a tensor" } else { "is not a tensor" };
                self.report(
                    Diagnostic::error("unknown-name", at.inside(view.name_span.clone()), format!("`{}` {what}", view.name))
                        .did_you_mean(&view.name, &names, "tensors"),
                );
            }
            return None;
        };
        self.use_name(&view.name);
        known.as_ref()?;
        Some(Region { at: at.clone(), tensor, view })
    }
}
