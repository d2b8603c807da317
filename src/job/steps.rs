//! `[[steps]]` -> steps with names bound to kernels, tensors and parameters; loops are still loops.

use indexmap::IndexMap;

use super::kernels::Kernel;
use super::names::Resolver;
use super::{Origin, Rounds, Step, Tensor, Var, unroll};
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Expr};
use crate::spec::{self, Args, Int, Num};
use crate::tensor::{Access, Dtype, Param, ParamKind};

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
            if kinds.is_empty() && self.loaded.is_damaged(&here) {
                continue;
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
                let place = if kinds.is_empty() { here } else { here.to(kinds[1]).key() };
                self.report(Diagnostic::error("step-kind", place, message).help("write one [[steps]] for each action"));
                continue;
            };
            self.misplaced_keys(&here, step, kind);
            let mut origin = |label: String| {
                lowered.origins.push(Origin { place: here.clone(), label, loops: loops.clone() });
                lowered.origins.len() as u32 - 1
            };
            let next = match *kind {
                "kernel" => {
                    let origin = origin(step.kernel.clone().unwrap_or_default());
                    self.bind_launch(&here, step, tensors, kernels, lowered, loops, origin)
                }
                "copy" => {
                    let (from, to) = (step.copy.as_deref().unwrap_or(""), step.to.as_deref());
                    let Some(to) = to else {
                        if !self.loaded.lacks(&here.to("to")) {
                            self.report(
                                Diagnostic::error("missing-key", here.to("copy").key(), "`copy` has no `to`")
                                    .help("write `to = \"name\"`: the tensor that is written"),
                            );
                        }
                        continue;
                    };
                    let src = self.region(&here.to("copy"), from, tensors);
                    let dst = self.region(&here.to("to"), to, tensors);
                    let origin = origin(format!("copy {from} -> {to}"));
                    src.zip(dst).map(|(src, dst)| Bound::Copy { origin, src, dst })
                }
                "fill" => {
                    let name = step.fill.as_deref().unwrap_or("");
                    let origin = origin(format!("fill {name}"));
                    let Some(value) = &step.value else {
                        if !self.loaded.lacks(&here.to("with")) {
                            self.report(
                                Diagnostic::error("missing-key", here.to("fill").key(), "`fill` has no `with`")
                                    .help("write `with = 0.0`: the number"),
                            );
                        }
                        continue;
                    };
                    self.region(&here.to("fill"), name, tensors).map(|dst| Bound::Fill {
                        origin,
                        dst,
                        at: here.to("with"),
                        value: value.clone(),
                    })
                }
                _ => self.bind_loop(&here, step, tensors, kernels, lowered, loops),
            };
            bound.extend(next);
        }
        bound
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
    fn region(&self, at: &Place, text: &str, tensors: &Tensors) -> Option<Region> {
        let view = expr::parse_view(text).map_err(|e| self.report_text("bad-view", at, e)).ok()?;
        if let Some((_, span)) = &view.cast {
            self.report(Diagnostic::error("bad-view", at.inside(span.clone()), "a tensor cannot be passed as another dtype"));
            return None;
        }
        let Some((tensor, _, known)) = tensors.get_full(&view.name) else {
            if !self.loaded.lacks(&Place::root().to("tensors").to(&view.name)) {
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

    #[allow(clippy::too_many_arguments)]
    fn bind_launch(
        &self,
        at: &Place,
        step: &spec::Step,
        tensors: &Tensors,
        kernels: &Kernels,
        lowered: &mut Lowered,
        loops: &[String],
        origin: u32,
    ) -> Option<Bound> {
        let name = step.kernel.as_deref()?;
        let name_at = at.to("kernel");
        let Some((kernel_id, _, kernel)) = kernels.get_full(name) else {
            if !self.loaded.lacks(&Place::root().to("kernels").to(name)) {
                let names: Vec<&String> = kernels.keys().collect();
                self.report(
                    Diagnostic::error("unknown-name", name_at, format!("there is no kernel `{name}`"))
                        .did_you_mean(name, &names, "kernels"),
                );
            }
            // Its arguments use names all the same.
            return None;
        };
        self.use_name(&format!("kernel {name}"));
        let kernel = kernel.as_ref()?;
        let grid = self.bind_grid(at, step, name, kernel)?;
        let params: Vec<&Param> = kernel.source.params.iter().filter(|p| !matches!(p.kind, ParamKind::Local { .. })).collect();
        let mut args = Vec::with_capacity(params.len());
        let mut ok = !self.loaded.is_damaged(&at.to("args"));
        let args_at = at.to("args");
        if let Some(Args::Positional(given)) = &step.args
            && given.len() != params.len()
        {
            let names = params.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
            self.report(
                Diagnostic::error("arity", args_at, format!("kernel `{name}` takes {} arguments, {} are given", params.len(), given.len()))
                    .help(format!("they are: {names} (`local` parameters take none)"))
                    .also(Place::root().to("kernels").to(name).to("params").key(), "its parameters"),
            );
            return None;
        }
        if let Some(Args::Named(given)) = &step.args {
            for key in given.keys().filter(|key| !params.iter().any(|p| p.name == **key)) {
                ok = false;
                let names: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
                let local = kernel.source.params.iter().any(|p| p.name == *key);
                let message = if local {
                    format!("`{key}` is a local parameter of `{name}`, it takes no argument")
                } else {
                    format!("kernel `{name}` has no parameter `{key}`")
                };
                self.report(Diagnostic::error("unknown-name", args_at.to(key).key(), message).did_you_mean(key, &names, "its parameters"));
            }
        }
        for (index, param) in params.iter().enumerate() {
            let (arg_at, value) = match &step.args {
                Some(Args::Positional(given)) => (args_at.to(index), given[index].clone()),
                Some(Args::Named(given)) if given.contains_key(&param.name) => (args_at.to(&param.name), given[&param.name].clone()),
                _ => {
                    let scalar_known = !matches!(param.kind, ParamKind::Tensor(_))
                        && (self.spec.dims.contains_key(&param.name) || loops.contains(&param.name));
                    let lost = ["dims", "tensors"].iter().any(|list| self.loaded.lacks(&Place::root().to(*list).to(&param.name)));
                    if !scalar_known && !tensors.contains_key(&param.name) {
                        ok = false;
                        if !lost {
                            let what = if matches!(param.kind, ParamKind::Tensor(_)) { "tensor" } else { "dim or one-element tensor" };
                            self.report(
                                Diagnostic::error(
                                    "missing-argument",
                                    name_at.clone(),
                                    format!("kernel `{name}` needs `{param}`: no argument is given, and no {what} has that name"),
                                )
                                .help(format!("write `args = {{ {} = ... }}`", param.name)),
                            );
                        }
                        continue;
                    }
                    (name_at.clone(), Num::Text(param.name.clone()))
                }
            };
            match self.bind_arg(&arg_at, &value, param, name, tensors, loops, lowered) {
                Some(arg) => args.push(arg),
                None => ok = false,
            }
        }
        ok.then_some(Bound::Launch { origin, kernel: kernel_id, grid, args })
    }

    fn bind_grid(&self, at: &Place, step: &spec::Step, name: &str, kernel: &Kernel) -> Option<Grid> {
        let listed = |key: &str, dims: &[Int]| {
            let here = at.to(key);
            if dims.is_empty() || dims.len() > 3 {
                self.report(Diagnostic::error(
                    "bad-grid",
                    here,
                    format!("`{key}` has {} dimensions, it has one to three, x first", dims.len()),
                ));
                return None;
            }
            Some(dims.iter().enumerate().map(|(axis, dim)| (here.to(axis), dim.clone())).collect::<Vec<_>>())
        };
        match (&step.threads, &step.grid) {
            (Some(_), Some(_)) => {
                self.report(
                    Diagnostic::error("bad-grid", at.to("grid").key(), "a step has `threads` or `grid`, not both")
                        .help("`threads` counts threads and is divided by the kernel's block, `grid` counts blocks"),
                );
                None
            }
            (Some(threads), None) => {
                if !kernel.has_block {
                    self.report(
                        Diagnostic::error(
                            "bad-grid",
                            at.to("threads").key(),
                            format!("`threads` needs a block to divide by, kernel `{name}` has none"),
                        )
                        .help(format!("write `block = [...]` in [kernels.{name}], or `grid` here")),
                    );
                    return None;
                }
                listed("threads", threads).map(Grid::Threads)
            }
            (None, Some(grid)) => listed("grid", grid).map(Grid::Blocks),
            (None, None) => Some(Grid::One),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn bind_arg(
        &self,
        at: &Place,
        value: &Num,
        param: &Param,
        kernel: &str,
        tensors: &Tensors,
        loops: &[String],
        lowered: &mut Lowered,
    ) -> Option<Arg> {
        if let ParamKind::Tensor(access) = param.kind {
            let Num::Text(text) = value else {
                let what = match value {
                    Num::Int(i) => i.to_string(),
                    Num::Float(f) => f.to_string(),
                    _ => "a boolean".to_string(),
                };
                self.report(
                    Diagnostic::error(
                        "wrong-argument",
                        at.clone(),
                        format!("{what} is a number, parameter `{param}` of `{kernel}` takes a tensor"),
                    )
                    .help("write a tensor's name, or a view such as \"x[0:n]\""),
                );
                return None;
            };
            let region = self.region(at, text, tensors)?;
            let tensor = tensors.get_index(region.tensor).and_then(|(_, t)| t.as_ref())?;
            if tensor.dtype != param.dtype {
                self.report(
                    Diagnostic::error(
                        "wrong-dtype",
                        at.clone(),
                        format!("tensor `{}` is {}, parameter `{param}` of `{kernel}` takes {}", tensor.name, tensor.dtype, param.dtype),
                    )
                    .also(Place::root().to("tensors").to(&tensor.name).to("dtype"), format!("{} here", tensor.dtype)),
                );
                return None;
            }
            let last = tensor.shape.dims().last().copied().unwrap_or(1);
            let lanes = u64::from(param.lanes);
            if lanes == 3 && last != 3 || !last.is_multiple_of(lanes) {
                let rule = if lanes == 3 { "must be 3".to_string() } else { format!("must be divisible by {lanes}") };
                self.report(Diagnostic::error(
                    "bad-lanes",
                    at.clone(),
                    format!("the last dimension of `{}` is {last}, for `{param}` it {rule}", tensor.name),
                ));
                return None;
            }
            return Some(Arg::Tensor { access, region });
        }
        if param.lanes > 1 {
            self.report(Diagnostic::error(
                "wrong-argument",
                at.clone(),
                format!("parameter `{param}` is a scalar with lanes: pass a tensor, or one scalar a lane"),
            ));
            return None;
        }
        if let Num::Text(text) = value
            && let Some((id, name, tensor)) = tensors.get_full(text.trim())
            && !loops.contains(name)
        {
            self.use_name(name);
            let tensor = tensor.as_ref()?;
            let message = if tensor.shape.rank() > 0 {
                Some(format!("`{name}` has shape {}, parameter `{param}` of `{kernel}` takes one number", tensor.shape))
            } else if tensor.dtype != param.dtype {
                Some(format!("`{name}` is {}, parameter `{param}` of `{kernel}` takes {}", tensor.dtype, param.dtype))
            } else if matches!(tensor.contents, super::Contents::None) || tensor.carry {
                Some(format!("`{name}` is passed by value, but the host does not know its contents when the round starts"))
            } else {
                None
            };
            if let Some(message) = message {
                self.report(Diagnostic::error("wrong-argument", at.clone(), message));
                return None;
            }
            lowered.by_value.push((id, at.clone()));
            return Some(Arg::Element { tensor: id });
        }
        if let Num::Float(f) = value
            && !param.dtype.is_float()
            && f.fract() != 0.0
        {
            self.report(Diagnostic::error(
                "wrong-argument",
                at.clone(),
                format!("{f} is not a whole number, parameter `{param}` of `{kernel}` takes {}", param.dtype),
            ));
            return None;
        }
        Some(Arg::Scalar { at: at.clone(), value: value.clone(), dtype: param.dtype })
    }
}
