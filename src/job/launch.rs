//! One launch of `[[steps]]`: the kernel, its grid, and an argument for each parameter.

use super::kernels::Kernel;
use super::steps::{Arg, Binder, Bound, Grid, Value};
use crate::diag::{Diagnostic, Place};
use crate::expr;
use crate::spec::{self, Args, Backend, Int, Nested, Num};
use crate::tensor::{Dtype, Param, ParamKind, Struct, type_name};

/// Backends whose launches have an offset.
const WITH_OFFSET: [Backend; 2] = [Backend::Cpu, Backend::Opencl];

/// Where a number by value goes, for messages.
struct Slot<'a> {
    kernel: &'a str,
    /// `parameter `f32 a``, or a field of one.
    what: String,
    dtype: Dtype,
}

impl Binder<'_, '_> {
    pub(super) fn launch(&mut self, at: &Place, step: &spec::Step, origin: u32) -> Option<Bound> {
        let name = step.kernel.as_deref()?;
        let (resolver, kernels) = (self.resolver, self.kernels);
        let Some((kernel_id, _, kernel)) = kernels.get_full(name) else {
            if !resolver.loaded.lost("kernels", name) {
                let names: Vec<&String> = kernels.keys().collect();
                resolver.report(
                    Diagnostic::error("unknown-name", at.to("kernel"), format!("there is no kernel `{name}`"))
                        .did_you_mean(name, &names, "kernels"),
                );
            }
            self.loose(at, step);
            return None;
        };
        resolver.use_name(&format!("kernel {name}"));
        let Some(kernel) = kernel else {
            self.loose(at, step);
            return None;
        };
        let grid = self.grid(at, step, name, kernel);
        let offset = self.offset(at, step);
        let Some(args) = self.args(at, step, name, kernel, origin) else {
            self.loose(at, step);
            return None;
        };
        Some(Bound::Launch { origin, kernel: kernel_id, grid: grid?, offset: offset?, args })
    }

    fn loose(&self, at: &Place, step: &spec::Step) {
        self.resolver.loose_launch(at, step, &self.loops, self.tensors);
    }

    /// One to three numbers, x first.
    fn listed(&self, at: &Place, key: &str, dims: &[Int]) -> Option<Vec<(Place, Int)>> {
        let here = at.to(key);
        if dims.is_empty() || dims.len() > 3 {
            let message = format!("`{key}` has {} dimensions, it has one to three, x first", dims.len());
            self.resolver.report(Diagnostic::error("bad-grid", here, message));
            return None;
        }
        Some(dims.iter().enumerate().map(|(axis, dim)| (here.to(axis), dim.clone())).collect())
    }

    fn offset(&self, at: &Place, step: &spec::Step) -> Option<Vec<(Place, Int)>> {
        let Some(offset) = &step.offset else { return Some(Vec::new()) };
        let backend = self.resolver.backend;
        if !WITH_OFFSET.contains(&backend) {
            if self.resolver.is_on(step) {
                self.resolver.report(
                    Diagnostic::error("no-offset", at.to("offset").key(), format!("launches on `{}` have no offset", backend.name()))
                        .help("`cpu` and `opencl` have it; elsewhere pass the offset as a scalar, or keep the step to them: `on = [\"cpu\", \"opencl\"]`"),
                );
            }
            return None;
        }
        self.listed(at, "offset", offset)
    }

    fn grid(&self, at: &Place, step: &spec::Step, name: &str, kernel: &Kernel) -> Option<Grid> {
        match (&step.threads, &step.grid) {
            (Some(_), Some(_)) => {
                self.resolver.report(
                    Diagnostic::error("bad-grid", at.to("grid").key(), "a step has `threads` or `grid`, not both")
                        .help("`threads` counts threads and is divided by the kernel's block, `grid` counts blocks"),
                );
                None
            }
            (Some(threads), None) => {
                if !kernel.has_block {
                    self.resolver.report(
                        Diagnostic::error(
                            "bad-grid",
                            at.to("threads").key(),
                            format!("`threads` needs a block to divide by, kernel `{name}` has none"),
                        )
                        .help(format!("write `block = [...]` in [kernels.{name}], or `grid` here")),
                    );
                    return None;
                }
                self.listed(at, "threads", threads).map(Grid::Threads)
            }
            (None, Some(grid)) => self.listed(at, "grid", grid).map(Grid::Blocks),
            (None, None) => Some(Grid::One),
        }
    }

    /// An argument for each parameter that is not `local`; `None` where a mistake is reported.
    fn args(&mut self, at: &Place, step: &spec::Step, name: &str, kernel: &Kernel, origin: u32) -> Option<Vec<Arg>> {
        let resolver = self.resolver;
        let args_at = at.to("args");
        let params: Vec<&Param> = kernel.params.iter().filter(|p| !matches!(p.kind, ParamKind::Local { .. })).collect();
        let named: Vec<&Param> = params.iter().copied().filter(|p| p.kind != ParamKind::Null).collect();
        let mut ok = !resolver.loaded.is_damaged(&args_at);
        match &step.args {
            Some(Args::Positional(given)) if given.len() != named.len() => {
                let names = named.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
                let message = format!("kernel `{name}` takes {} arguments, {} are given", named.len(), given.len());
                let params_at = Place::root().to("kernels").to(name).to("params").key();
                let none =
                    if named.len() == params.len() { "`local` parameters take none" } else { "`local` parameters and `null` take none" };
                resolver.report(
                    Diagnostic::error("arity", args_at, message)
                        .help(format!("they are: {names} ({none})"))
                        .also(params_at, "its parameters"),
                );
                return None;
            }
            Some(Args::Named(given)) => {
                for key in given.keys().filter(|key| !named.iter().any(|p| p.name == **key)) {
                    ok = false;
                    let names: Vec<&str> = named.iter().map(|p| p.name.as_str()).collect();
                    let message = if kernel.params.iter().any(|p| p.name == *key) {
                        format!("`{key}` is a local parameter of `{name}`, it takes no argument")
                    } else {
                        format!("kernel `{name}` has no parameter `{key}`")
                    };
                    resolver.report(Diagnostic::error("unknown-name", args_at.to(key).key(), message).did_you_mean(
                        key,
                        &names,
                        "its parameters",
                    ));
                }
            }
            Some(Args::Positional(_)) | None => {}
        }
        let (mut args, mut places, mut position) = (Vec::with_capacity(params.len()), Vec::new(), 0);
        for param in params {
            if param.kind == ParamKind::Null {
                args.push(Arg::Null);
                continue;
            }
            let (arg_at, value) = match &step.args {
                Some(Args::Positional(given)) => (args_at.to(position), given[position].clone()),
                Some(Args::Named(given)) if given.contains_key(&param.name) => (args_at.to(&param.name), given[&param.name].clone()),
                _ if self.is_known(at, step, param, name) => (at.to("kernel"), Nested::Num(Num::Text(param.name.clone()))),
                _ => {
                    ok = false;
                    continue;
                }
            };
            position += 1;
            match self.arg(&arg_at, &value, param, name) {
                Some(arg) => {
                    if matches!(arg, Arg::Tensor { .. }) {
                        places.push(arg_at);
                    }
                    args.push(arg);
                }
                None => ok = false,
            }
        }
        self.lowered.notes[origin as usize].views = places;
        ok.then_some(args)
    }

    /// Whether something has the name of a parameter that is given no argument; reports where nothing has.
    fn is_known(&self, at: &Place, step: &spec::Step, param: &Param, kernel: &str) -> bool {
        let resolver = self.resolver;
        let (args_at, name) = (at.to("args"), &param.name);
        let number = matches!(param.kind, ParamKind::Scalar) && param.lanes == 1;
        let listed = !number && !matches!(param.kind, ParamKind::Tensor(_));
        if !listed && (self.tensors.contains_key(name) || number && (resolver.spec.dims.contains_key(name) || self.loops.contains(name))) {
            return true;
        }
        if ["dims", "tensors"].iter().any(|list| resolver.loaded.lost(list, name)) || resolver.loaded.is_damaged(&args_at) {
            return false;
        }
        // An argument that is not given is missing from the table of arguments, or from the step.
        let at = if matches!(step.args, Some(Args::Named(_))) { args_at } else { at.to("kernel") };
        let (message, help) = if listed {
            let values = match &param.kind {
                ParamKind::Struct(layout) => layout.fields.iter().map(|f| f.name.clone()).collect::<Vec<_>>().join(", "),
                _ => format!("{} numbers", param.lanes),
            };
            (format!("kernel `{kernel}` needs `{param}`: no argument is given"), format!("write `args = {{ {name} = [...] }}`: {values}"))
        } else {
            let what = if number { "dim or one-element tensor" } else { "tensor" };
            (
                format!("kernel `{kernel}` needs `{param}`: no argument is given, and no {what} has that name"),
                format!("write `args = {{ {name} = ... }}`"),
            )
        };
        resolver.report(Diagnostic::error("missing-argument", at, message).help(help));
        false
    }

    fn wrong(&self, at: &Place, message: String, help: &str) {
        let diagnostic = Diagnostic::error("wrong-argument", at.clone(), message);
        self.resolver.report(if help.is_empty() { diagnostic } else { diagnostic.help(help.to_string()) });
    }

    fn arg(&mut self, at: &Place, value: &Nested, param: &Param, kernel: &str) -> Option<Arg> {
        let slot = || Slot { kernel, what: format!("parameter `{param}`"), dtype: param.dtype };
        match (&param.kind, value) {
            (ParamKind::Tensor(_), Nested::Num(value)) => self.tensor_arg(at, value, param, kernel),
            (ParamKind::Tensor(_), Nested::List(_)) => {
                self.wrong(
                    at,
                    format!("a list of numbers, parameter `{param}` of `{kernel}` takes a tensor"),
                    "declare it under [tensors], with `data = { values = [...] }`",
                );
                None
            }
            (ParamKind::Struct(layout), Nested::List(list)) => self.fields(at, list, param, layout, kernel),
            (ParamKind::Struct(layout), Nested::Num(_)) => {
                let values = layout.fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
                self.wrong(
                    at,
                    format!("parameter `{param}` of `{kernel}` takes a list, one entry a field"),
                    &format!("write `[{values}]`, each a number or an expression in quotes"),
                );
                None
            }
            (_, Nested::List(list)) if param.lanes > 1 => self.lanes(at, list, param.lanes, &slot()).map(Arg::Struct),
            (_, Nested::Num(_)) if param.lanes > 1 => {
                let lanes = param.lanes;
                self.wrong(at, format!("parameter `{param}` of `{kernel}` takes a list of {lanes} numbers, one a lane"), "");
                None
            }
            (_, Nested::List(_)) => {
                self.wrong(at, format!("a list, parameter `{param}` of `{kernel}` takes one number"), "");
                None
            }
            (_, Nested::Num(value)) => self.value(at, value, &slot()).map(Arg::Scalar),
        }
    }

    fn tensor_arg(&self, at: &Place, value: &Num, param: &Param, kernel: &str) -> Option<Arg> {
        let ParamKind::Tensor(access) = param.kind else { return None };
        let what = match value {
            Num::Text(text) if expr::parse_view(text).is_err() && expr::parse(text).is_ok() => {
                Some(format!("`{text}` is not a tensor, parameter `{param}` of `{kernel}` takes one"))
            }
            Num::Text(_) => None,
            Num::Int(i) => Some(format!("{i} is a number, parameter `{param}` of `{kernel}` takes a tensor")),
            Num::Float(f) => Some(format!("{f:?} is a number, parameter `{param}` of `{kernel}` takes a tensor")),
            Num::Bool(_) => Some(format!("a boolean is a number, parameter `{param}` of `{kernel}` takes a tensor")),
        };
        if let Some(message) = what {
            self.wrong(at, message, "write a tensor's name, or a view such as \"x[0:n]\"");
            return None;
        }
        let Num::Text(text) = value else { return None };
        let region = self.region(at, text)?;
        let tensor = self.tensors.get_index(region.tensor).and_then(|(_, t)| t.as_ref())?;
        let dtype = region.cast.unwrap_or(tensor.dtype);
        if dtype != param.dtype {
            let (name, wants) = (&tensor.name, param.dtype);
            let declared = Place::root().to("tensors").to(name).to("dtype");
            let diagnostic = match &region.view.cast {
                Some((_, span)) => Diagnostic::error(
                    "wrong-dtype",
                    at.inside(span.clone()),
                    format!("`{name}` is passed as {dtype}, parameter `{param}` of `{kernel}` takes {wants}"),
                ),
                None => Diagnostic::error(
                    "wrong-dtype",
                    at.clone(),
                    format!("tensor `{name}` is {dtype}, parameter `{param}` of `{kernel}` takes {wants}"),
                )
                .also(declared, format!("{dtype} here")),
            };
            self.resolver.report(diagnostic);
            return None;
        }
        let (last, lanes) = (tensor.shape.dims().last().copied().unwrap_or(1), u64::from(param.lanes));
        if region.cast.is_none() && (lanes == 3 && last != 3 || !last.is_multiple_of(lanes)) {
            let rule = if lanes == 3 { "must be 3".to_string() } else { format!("must be divisible by {lanes}") };
            let message = format!("the last dimension of `{}` is {last}, for `{param}` it {rule}", tensor.name);
            self.resolver.report(Diagnostic::error("bad-lanes", at.clone(), message));
            return None;
        }
        Some(Arg::Tensor { access, region, lanes: param.lanes })
    }

    /// One entry per field of a struct.
    fn fields(&mut self, at: &Place, list: &[Nested], param: &Param, layout: &Struct, kernel: &str) -> Option<Arg> {
        if list.len() != layout.fields.len() {
            let fields = layout.fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
            let message = format!("parameter `{param}` of `{kernel}` has {} fields, {} values are given", layout.fields.len(), list.len());
            self.resolver.report(Diagnostic::error("arity", at.clone(), message).help(format!("they are: {fields}")));
            return None;
        }
        let mut values = Vec::new();
        let mut ok = true;
        for (index, (field, entry)) in layout.fields.iter().zip(list).enumerate() {
            let at = at.to(index);
            let what = format!("field `{} {}` of parameter `{}`", type_name(field.dtype, field.lanes), field.name, param.name);
            let slot = Slot { kernel, what, dtype: field.dtype };
            let found = match (entry, field.lanes) {
                (Nested::Num(value), 1) => self.value(&at, value, &slot).map(|value| vec![value]),
                (Nested::List(list), lanes @ 2..) => self.lanes(&at, list, lanes, &slot),
                (Nested::Num(_), lanes) => {
                    self.wrong(&at, format!("{} of `{kernel}` takes a list of {lanes} numbers, one a lane", slot.what), "");
                    None
                }
                (Nested::List(_), _) => {
                    self.wrong(&at, format!("a list, {} of `{kernel}` takes one number", slot.what), "");
                    None
                }
            };
            match found {
                Some(found) => values.extend(found),
                None => ok = false,
            }
        }
        ok.then_some(Arg::Struct(values))
    }

    /// One number per lane.
    fn lanes(&mut self, at: &Place, list: &[Nested], lanes: u32, slot: &Slot<'_>) -> Option<Vec<Value>> {
        if list.len() != lanes as usize {
            let message = format!("{} of `{}` has {lanes} lanes, {} numbers are given", slot.what, slot.kernel, list.len());
            self.resolver.report(Diagnostic::error("arity", at.clone(), message));
            return None;
        }
        let mut values = Vec::new();
        for (lane, entry) in list.iter().enumerate() {
            let at = at.to(lane);
            match entry {
                Nested::Num(value) => values.extend(self.value(&at, value, slot)),
                Nested::List(_) => self.wrong(&at, format!("a list, a lane of {} of `{}` is one number", slot.what, slot.kernel), ""),
            }
        }
        (values.len() == list.len()).then_some(values)
    }

    /// A number, an expression, or the one element of a tensor.
    fn value(&mut self, at: &Place, value: &Num, slot: &Slot<'_>) -> Option<Value> {
        let Slot { kernel, what, dtype } = slot;
        if let Num::Text(text) = value
            && let Some((id, name, tensor)) = self.tensors.get_full(text.trim())
            && !self.loops.contains(name)
        {
            self.resolver.use_name(name);
            let tensor = tensor.as_ref()?;
            let message = if tensor.shape.rank() > 0 {
                Some(format!("`{name}` has shape {}, {what} of `{kernel}` is a scalar and takes one number", tensor.shape))
            } else if tensor.dtype != *dtype {
                Some(format!("`{name}` is {}, {what} of `{kernel}` takes {dtype}", tensor.dtype))
            } else if matches!(tensor.contents, super::Contents::None) || tensor.carry {
                Some(format!("`{name}` is passed by value, but the host does not know its contents when the round starts"))
            } else {
                None
            };
            if let Some(message) = message {
                self.wrong(at, message, "");
                return None;
            }
            self.lowered.by_value.push((id, at.clone()));
            return Some(Value::Element { tensor: id });
        }
        if let Num::Float(f) = value
            && !dtype.is_float()
            && f.fract() != 0.0
        {
            self.wrong(at, format!("{f} is not a whole number, {what} of `{kernel}` takes {dtype}"), "");
            return None;
        }
        Some(Value::Number { at: at.clone(), value: value.clone(), dtype: *dtype })
    }
}
