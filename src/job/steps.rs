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
    /// By origin.
    pub notes: Vec<Notes>,
    /// What steps that are broken may write.
    pub maybe: Maybe,
}

/// What is known of a step of the spec besides its `Origin`.
#[derive(Default)]
pub(super) struct Notes {
    /// Where the tensors that it reads and writes stand, in the order of `Action::views`.
    pub views: Vec<Place>,
    /// Origins that it waits for by its `after`.
    pub after: Vec<u32>,
    /// The same bytes may be read and written.
    pub overlap: bool,
}

impl Lowered {
    /// Where a step's tensor stands.
    pub fn view_place(&self, origin: u32, index: usize) -> Place {
        let places = self.notes.get(origin as usize).and_then(|notes| notes.views.get(index));
        places.cloned().unwrap_or_else(|| self.origins[origin as usize].place.clone())
    }
}

/// A step whose names are bound.
pub(super) enum Bound {
    Launch {
        origin: u32,
        kernel: usize,
        grid: Grid,
        offset: Vec<(Place, Int)>,
        args: Vec<Arg>,
    },
    Copy {
        origin: u32,
        src: Region,
        dst: Region,
    },
    Fill {
        origin: u32,
        dst: Region,
        at: Place,
        value: Num,
    },
    For {
        var: String,
        at: Place,
        low: Expr,
        high: Expr,
        body: Vec<Bound>,
    },
    /// A step that is left out where its condition is 0.
    When {
        at: Place,
        condition: Expr,
        step: Box<Bound>,
    },
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
    /// Its bytes are elements of this dtype.
    pub cast: Option<Dtype>,
}

pub(super) enum Arg {
    Tensor {
        access: Access,
        region: Region,
        /// The kernel takes so many elements at a time.
        lanes: u32,
    },
    Scalar(Value),
    /// A struct, or a scalar with lanes.
    Struct(Vec<Value>),
    Null,
}

/// One number that is passed by value.
pub(super) enum Value {
    Number {
        at: Place,
        value: Num,
        dtype: Dtype,
    },
    /// The one element of a tensor.
    Element {
        tensor: usize,
    },
}

/// Binds the names of steps, one after the other.
pub(super) struct Binder<'r, 'a> {
    pub resolver: &'r Resolver<'a>,
    pub tensors: &'r Tensors,
    pub kernels: &'r Kernels,
    pub lowered: &'r mut Lowered,
    /// Variables of the loops around, outermost first.
    pub loops: Vec<String>,
    /// Named steps so far.
    names: IndexMap<String, (u32, Place)>,
}

impl Resolver<'_> {
    /// All steps, loops unrolled. Tensors for fills that no 32-bit word can make are added to `tensors`.
    pub(super) fn steps(&self, tensors: &mut Tensors, kernels: &Kernels, rounds: Option<Rounds>) -> Lowered {
        let mut lowered = Lowered::default();
        self.lost_steps(&mut lowered.maybe);
        let mut binder = Binder { resolver: self, tensors, kernels, lowered: &mut lowered, loops: Vec::new(), names: IndexMap::new() };
        let bound = binder.steps(&Place::root().to("steps"), &self.spec.steps);
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

    /// Whether a step may run on this backend, by its `on`.
    pub(super) fn is_on(&self, step: &spec::Step) -> bool {
        step.on.as_ref().is_none_or(|on| on.is_empty() || on.contains(&self.backend))
    }
}

impl Binder<'_, '_> {
    fn steps(&mut self, at: &Place, steps: &[spec::Step]) -> Vec<Bound> {
        let mut bound = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let here = at.to(index);
            let by_value = self.lowered.by_value.len();
            let on = self.on(&here, step);
            let next = self.conditional(&here, step);
            if !on {
                // Its names are known and used, and that is all.
                self.lowered.by_value.truncate(by_value);
                continue;
            }
            match next {
                Some(next) => bound.push(next),
                None => self.resolver.may_write(&here, step, self.tensors, self.kernels, &mut self.lowered.maybe),
            }
        }
        bound
    }

    fn on(&self, at: &Place, step: &spec::Step) -> bool {
        if step.on.as_ref().is_some_and(Vec::is_empty) {
            self.resolver.report(
                Diagnostic::error("empty", at.to("on"), "`on` names no backend: the step would run nowhere")
                    .help("write the backends that have the step, such as `on = [\"cpu\", \"cuda\"]`, or leave `on` out"),
            );
        }
        self.resolver.is_on(step)
    }

    fn conditional(&mut self, at: &Place, step: &spec::Step) -> Option<Bound> {
        let Some(when) = &step.when else { return self.step(at, step) };
        let when_at = at.to("when");
        let condition = match when {
            Num::Bool(value) => Some(Expr { span: 0..0, kind: expr::ExprKind::Number(crate::tensor::Number::Int((*value).into())) }),
            Num::Text(text) => self.resolver.parse(&when_at, text),
            Num::Int(_) | Num::Float(_) => {
                self.resolver.report(
                    Diagnostic::error("wrong-type", when_at.clone(), "`when` is a number, it is a condition")
                        .help("write a comparison of dims in quotes, such as `when = \"splits > 1\"`"),
                );
                None
            }
        };
        let step = self.step(at, step);
        Some(Bound::When { at: when_at, condition: condition?, step: Box::new(step?) })
    }

    /// The place of `Lowered::origins` of a step, once its kind is known.
    fn origin(&mut self, at: &Place, step: &spec::Step, label: String, views: &[&str]) -> u32 {
        let origin = self.lowered.origins.len() as u32;
        let after = self.after(at, step);
        self.lowered.origins.push(Origin { place: at.clone(), label, loops: self.loops.clone() });
        self.lowered.notes.push(Notes { views: views.iter().map(|key| at.to(*key)).collect(), after, overlap: step.overlap });
        if let Some(name) = &step.name {
            self.name(&at.to("name"), name, origin);
        }
        origin
    }

    fn name(&mut self, at: &Place, name: &str, origin: u32) {
        if name.trim().is_empty() {
            self.resolver.report(Diagnostic::error("empty", at.clone(), "the name of a step is empty").help("leave it out, or write one"));
        } else if let Some((_, first)) = self.names.get(name) {
            self.resolver.report(
                Diagnostic::error("name-clash", at.clone(), format!("two steps are called `{name}`"))
                    .help("`after` names steps: rename one of them")
                    .also(first.clone(), "the first"),
            );
        } else {
            self.names.insert(name.to_string(), (origin, at.clone()));
        }
    }

    /// The origins of the steps that a step's `after` names.
    fn after(&self, at: &Place, step: &spec::Step) -> Vec<u32> {
        let mut origins = Vec::new();
        for (index, name) in step.after.iter().flatten().enumerate() {
            let at = at.to("after").to(index);
            match self.names.get(name) {
                Some((origin, _)) => origins.push(*origin),
                None if step.name.as_ref() == Some(name) => {
                    self.resolver.report(Diagnostic::error("after", at, format!("`{name}` is this step: it cannot wait for itself")));
                }
                None if is_named(&self.resolver.spec.steps, name) => {
                    self.resolver.report(
                        Diagnostic::error("after", at, format!("step `{name}` stands after this one: a step waits for earlier ones"))
                            .help(format!("move this step behind `{name}`")),
                    );
                }
                None => {
                    let names: Vec<&String> = self.names.keys().collect();
                    let mut diagnostic = Diagnostic::error("unknown-name", at, format!("no earlier step is called `{name}`"));
                    diagnostic = match names.is_empty() {
                        true => diagnostic.help(format!("write `name = \"{name}\"` in the step that this one waits for")),
                        false => diagnostic.did_you_mean(name, &names, "named steps so far"),
                    };
                    self.resolver.report(diagnostic);
                }
            }
        }
        origins
    }

    fn step(&mut self, at: &Place, step: &spec::Step) -> Option<Bound> {
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
        if kinds.is_empty() && self.resolver.loaded.is_damaged(at) {
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
            self.resolver.report(Diagnostic::error("step-kind", place, message).help(help));
            return None;
        };
        self.misplaced_keys(at, step, kind);
        match *kind {
            "kernel" => {
                let origin = self.origin(at, step, step.kernel.clone().unwrap_or_default(), &[]);
                self.launch(at, step, origin)
            }
            "copy" => {
                let from = step.copy.as_deref().unwrap_or("");
                let Some(to) = step.to.as_deref() else {
                    self.missing(at, "copy", "to", "write `to = \"name\"`: the tensor that is written");
                    return None;
                };
                let src = self.whole_dtype(self.region(&at.to("copy"), from), "copy");
                let dst = self.whole_dtype(self.region(&at.to("to"), to), "copy");
                let origin = self.origin(at, step, format!("copy {from} -> {to}"), &["copy", "to"]);
                src.zip(dst).map(|(src, dst)| Bound::Copy { origin, src, dst })
            }
            "fill" => {
                let name = step.fill.as_deref().unwrap_or("");
                let origin = self.origin(at, step, format!("fill {name}"), &["fill"]);
                let Some(value) = &step.value else {
                    self.missing(at, "fill", "with", "write `with = 0.0`: the number");
                    return None;
                };
                let region = self.whole_dtype(self.region(&at.to("fill"), name), "fill");
                if region.is_none() {
                    let loops = self.turn_zero();
                    self.resolver.loose_num(&at.to("with"), value, &Places::anything(self.resolver, &loops, self.tensors));
                }
                region.map(|dst| Bound::Fill { origin, dst, at: at.to("with"), value: value.clone() })
            }
            _ => self.repeated(at, step),
        }
    }

    /// Reports a key that a kind of step needs.
    fn missing(&self, at: &Place, kind: &str, key: &str, help: &str) {
        if !self.resolver.loaded.lacks(&at.to(key)) {
            self.resolver
                .report(Diagnostic::error("missing-key", at.to(kind).key(), format!("`{kind}` has no `{key}`")).help(help.to_string()));
        }
    }

    /// A region that keeps its dtype: only kernels take bytes as another one.
    fn whole_dtype(&self, region: Option<Region>, kind: &str) -> Option<Region> {
        let region = region?;
        let Some((_, span)) = region.view.cast.as_ref().filter(|_| region.cast.is_some()) else { return Some(region) };
        self.resolver.report(Diagnostic::error(
            "bad-view",
            region.at.inside(span.clone()),
            format!("`as` belongs to arguments of kernels, a {kind} keeps the dtype"),
        ));
        None
    }

    /// The loop variables with values that only say that they are numbers.
    pub fn turn_zero(&self) -> Vec<(String, i128)> {
        self.loops.iter().map(|name| (name.clone(), 0)).collect()
    }

    /// Keys that belong to another kind of step would be ignored; they are errors.
    fn misplaced_keys(&self, at: &Place, step: &spec::Step, kind: &str) {
        let present = [
            ("args", "kernel", step.args.is_some()),
            ("threads", "kernel", step.threads.is_some()),
            ("grid", "kernel", step.grid.is_some()),
            ("offset", "kernel", step.offset.is_some()),
            ("overlap", "kernel", step.overlap),
            ("to", "copy", step.to.is_some()),
            ("with", "fill", step.value.is_some()),
            ("do", "for", step.body.is_some()),
        ];
        for (key, of, there) in present {
            if there && of != kind {
                self.resolver.report(Diagnostic::error(
                    "misplaced-key",
                    at.to(key).key(),
                    format!("`{key}` belongs to a `{of}` step, this is a `{kind}` step"),
                ));
            }
        }
        for (key, there) in [("name", step.name.is_some()), ("after", step.after.is_some())] {
            if there && kind == "for" {
                self.resolver.report(
                    Diagnostic::error("misplaced-key", at.to(key).key(), format!("`{key}` belongs to a single step, this is a `for` step"))
                        .help("write it in a step of `do`"),
                );
            }
        }
    }

    fn repeated(&mut self, at: &Place, step: &spec::Step) -> Option<Bound> {
        let (resolver, each) = (self.resolver, step.each.as_ref()?);
        let for_at = at.to("for");
        let (var, range) = match each.first() {
            Some(first) if each.len() == 1 => first,
            _ if resolver.loaded.is_damaged(&for_at) => return None,
            _ => {
                resolver.report(
                    Diagnostic::error("loop", for_at, format!("`for` has {} variables, it has one", each.len()))
                        .help("write `for = { i = \"0:n\" }`; loops nest"),
                );
                return None;
            }
        };
        let range_at = for_at.to(var);
        let clash = [
            ("dim", resolver.spec.dims.contains_key(var), "dims"),
            ("type", resolver.spec.types.contains_key(var), "types"),
            ("tensor", self.tensors.contains_key(var), "tensors"),
        ];
        let mut ok = true;
        for (what, _, list) in clash.into_iter().filter(|c| c.1) {
            ok = false;
            resolver.report(
                Diagnostic::error("name-clash", range_at.key(), format!("loop variable `{var}` is also a {what}"))
                    .help("rename the loop variable")
                    .also(Place::root().to(list).to(var).key(), format!("the {what}")),
            );
        }
        if self.loops.contains(var) {
            ok = false;
            resolver.report(Diagnostic::error(
                "name-clash",
                range_at.key(),
                format!("loop variable `{var}` is also that of a loop around it"),
            ));
        }
        if expr::is_reserved(var) || !matches!(expr::parse(var).map(|e| e.kind), Ok(expr::ExprKind::Name(_))) {
            ok = false;
            resolver.report(Diagnostic::error("bad-name", range_at.key(), format!("`{var}` cannot name a loop variable")));
        }
        let parsed = expr::parse_range(range).map_err(|e| resolver.report_text("expression", &range_at, e)).ok();
        let Some(body) = &step.body else {
            self.missing(at, "for", "do", "write `do = [...]` or [[steps.do]]: the steps of one turn");
            return None;
        };
        if body.is_empty() {
            resolver.report(Diagnostic::error("loop", at.to("do"), "`do` is empty"));
        }
        self.loops.push(var.clone());
        let body = self.steps(&at.to("do"), body);
        self.loops.pop();
        let (low, high) = parsed?;
        ok.then(|| Bound::For { var: var.clone(), at: range_at, low, high, body })
    }

    /// A tensor or view by its text.
    pub fn region(&self, at: &Place, text: &str) -> Option<Region> {
        let resolver = self.resolver;
        let view = expr::parse_view(text).map_err(|e| resolver.report_text("bad-view", at, e)).ok()?;
        let cast = view.cast.as_ref().map(|(name, span)| resolver.cast(at, name, span.clone()));
        let declared = self.tensors.get_full(&view.name);
        if declared.is_none_or(|(_, _, known)| known.is_none()) {
            resolver.loose_subscripts(at, &view.index, &Places::constant(resolver, &self.turn_zero()));
        }
        let Some((tensor, _, known)) = declared else {
            if !resolver.loaded.lost("tensors", &view.name) {
                let names: Vec<&String> = self.tensors.keys().collect();
                let what = match resolver.spec {
                    spec if spec.dims.contains_key(&view.name) => "is a dim, not a tensor",
                    spec if spec.types.contains_key(&view.name) => "is a type, not a tensor",
                    _ => "is not a tensor",
                };
                resolver.report(
                    Diagnostic::error("unknown-name", at.inside(view.name_span.clone()), format!("`{}` {what}", view.name))
                        .did_you_mean(&view.name, &names, "tensors"),
                );
            }
            return None;
        };
        resolver.use_name(&view.name);
        known.as_ref()?;
        let cast = match cast {
            Some(dtype) => Some(dtype?),
            None => None,
        };
        Some(Region { at: at.clone(), tensor, view, cast })
    }
}

/// Whether a step, however deep, has a name.
fn is_named(steps: &[spec::Step], name: &str) -> bool {
    steps.iter().any(|step| step.name.as_deref() == Some(name) || step.body.as_ref().is_some_and(|body| is_named(body, name)))
}
