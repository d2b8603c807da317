//! One launch of `[[steps]]`: the kernel, its grid, and an argument for each parameter.

use super::kernels::Kernel;
use super::names::Resolver;
use super::steps::{Arg, Bound, Grid, Kernels, Lowered, Tensors};
use crate::diag::{Diagnostic, Place};
use crate::expr;
use crate::spec::{self, Args, Int, Num};
use crate::tensor::{Param, ParamKind};

impl Resolver<'_> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn bind_launch(
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
            if !self.loaded.lost("kernels", name) {
                let names: Vec<&String> = kernels.keys().collect();
                self.report(
                    Diagnostic::error("unknown-name", name_at, format!("there is no kernel `{name}`"))
                        .did_you_mean(name, &names, "kernels"),
                );
            }
            self.loose_launch(at, step, loops, tensors);
            return None;
        };
        self.use_name(&format!("kernel {name}"));
        let Some(kernel) = kernel else {
            self.loose_launch(at, step, loops, tensors);
            return None;
        };
        let grid = self.bind_grid(at, step, name, kernel);
        let params: Vec<&Param> = kernel.params.iter().filter(|p| !matches!(p.kind, ParamKind::Local { .. })).collect();
        let mut args = Vec::with_capacity(params.len());
        let mut ok = !self.loaded.is_damaged(&at.to("args"));
        let args_at = at.to("args");
        let mut places = Vec::new();
        // An argument that is not given is missing from the table of arguments, or from the step.
        let missing_at = match &step.args {
            Some(Args::Named(_)) => args_at.clone(),
            _ => name_at.clone(),
        };
        if let Some(Args::Positional(given)) = &step.args
            && given.len() != params.len()
        {
            let names = params.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
            self.report(
                Diagnostic::error("arity", args_at, format!("kernel `{name}` takes {} arguments, {} are given", params.len(), given.len()))
                    .help(format!("they are: {names} (`local` parameters take none)"))
                    .also(Place::root().to("kernels").to(name).to("params").key(), "its parameters"),
            );
            self.loose_launch(at, step, loops, tensors);
            return None;
        }
        if let Some(Args::Named(given)) = &step.args {
            for key in given.keys().filter(|key| !params.iter().any(|p| p.name == **key)) {
                ok = false;
                let names: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
                let local = kernel.params.iter().any(|p| p.name == *key);
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
                    let lost =
                        ["dims", "tensors"].iter().any(|list| self.loaded.lost(list, &param.name)) || self.loaded.is_damaged(&args_at);
                    if !scalar_known && !tensors.contains_key(&param.name) {
                        ok = false;
                        if !lost {
                            let what = if matches!(param.kind, ParamKind::Tensor(_)) { "tensor" } else { "dim or one-element tensor" };
                            self.report(
                                Diagnostic::error(
                                    "missing-argument",
                                    missing_at.clone(),
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
                Some(arg) => {
                    if matches!(arg, Arg::Tensor { .. }) {
                        places.push(arg_at);
                    }
                    args.push(arg);
                }
                None => ok = false,
            }
        }
        lowered.view_places[origin as usize] = places;
        if !ok {
            self.loose_launch(at, step, loops, tensors);
            return None;
        }
        Some(Bound::Launch { origin, kernel: kernel_id, grid: grid?, args })
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
                    Num::Float(f) => format!("{f:?}"),
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
            if expr::parse_view(text).is_err() && expr::parse(text).is_ok() {
                self.report(
                    Diagnostic::error(
                        "wrong-argument",
                        at.clone(),
                        format!("`{text}` is not a tensor, parameter `{param}` of `{kernel}` takes one"),
                    )
                    .help("write a tensor's name, or a view such as \"x[0:n]\""),
                );
                return None;
            }
            let region = self.region(at, text, tensors, loops)?;
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
            return Some(Arg::Tensor { access, region, lanes: param.lanes });
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
                Some(format!("`{name}` has shape {}, parameter `{param}` of `{kernel}` is a scalar and takes one number", tensor.shape))
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
