//! Tensors that kernels take three lanes at a time -> marked as spaced, on backends that space three lanes by four, and
//! what steps name of them as byte ranges of the device. What cannot be both spaced and dense is reported.

use std::collections::HashSet;

use super::names::Resolver;
use super::steps::{Kernels, Lowered, Tensors};
use super::{Action, Argument, Tensor, View};
use crate::diag::{Diagnostic, Place};
use crate::tensor::{Param, ParamKind, rows};

/// A tensor that a launch is given.
struct Bound<'a> {
    tensor: usize,
    kernel: &'a str,
    param: &'a Param,
    place: Place,
}

/// Why a tensor is spaced, for messages.
#[derive(Clone)]
struct Why {
    place: Place,
    label: String,
}

impl Resolver<'_> {
    /// Marks the tensors whose rows the device spaces, those that are copied from or to them included.
    pub(super) fn spacing(&self, tensors: &mut Tensors, kernels: &Kernels, lowered: &mut Lowered) {
        let in_threes = |p: &Param| matches!(p.kind, ParamKind::Tensor(_)) && p.lanes == 3;
        let any = kernels.values().flatten().any(|kernel| kernel.params.iter().any(in_threes));
        if !any || !(self.backend.spaces_three_lanes() || self.overrides.spaced) {
            return;
        }
        let before = self.problems.borrow().len();
        let bound = bound(kernels, lowered);
        let why = self.spaced(tensors, &bound, lowered);
        for bound in bound.iter().filter(|bound| bound.param.lanes != 3) {
            if let (Some(why), Some(tensor)) = (&why[bound.tensor], known(tensors, bound.tensor)) {
                self.taken_otherwise(bound, tensor, why);
            }
        }
        self.copies(tensors, &bound, &why, lowered);
        self.parts(tensors, &why, lowered);
        if self.problems.borrow().len() > before {
            return;
        }
        for step in &mut lowered.steps {
            views_mut(&mut step.action).filter(|view| why[view.tensor].is_some()).for_each(|view| {
                (view.offset, view.len) = (rows::spaced(view.offset), rows::spaced(view.len));
            });
        }
        for (slot, _) in tensors.values_mut().zip(&why).filter(|(_, why)| why.is_some()) {
            if let Some(tensor) = slot {
                tensor.spaced = true;
            }
        }
    }

    /// By tensor: why it is spaced, if it is.
    fn spaced(&self, tensors: &Tensors, bound: &[Bound<'_>], lowered: &Lowered) -> Vec<Option<Why>> {
        let mut why: Vec<Option<Why>> = vec![None; tensors.len()];
        let mut otherwise = vec![false; tensors.len()];
        let mut found = Vec::new();
        for Bound { tensor: id, kernel, param, place } in bound {
            let Some(tensor) = known(tensors, *id) else { continue };
            if param.lanes != 3 {
                otherwise[*id] = true;
            } else if param.dtype != tensor.dtype || !has_rows(tensor) {
                let backend = self.backend.name();
                self.report(
                    Diagnostic::error(
                        "spaced-rows",
                        place.clone(),
                        format!(
                            "`{}` is {} of shape {}, and `{param}` of `{kernel}` takes its bytes in lanes of 3, which {backend} spaces by 4: \
                             only rows of three can be spaced",
                            tensor.name, tensor.dtype, tensor.shape
                        ),
                    )
                    .help(format!("declare `{}` as {} with 3 as its last dimension", tensor.name, param.dtype)),
                );
            } else if why[*id].is_none() {
                why[*id] =
                    Some(Why { place: place.clone(), label: format!("`{param}` of `{kernel}` takes `{}` in lanes of 3", tensor.name) });
                found.push(*id);
            }
        }
        // Tensors that no kernel takes in another way lie as what they are copied from and to.
        let mut beside: Vec<Vec<usize>> = vec![Vec::new(); tensors.len()];
        let mut seen = HashSet::new();
        for step in &lowered.steps {
            if let Action::Copy { src, dst } = &step.action
                && seen.insert((src.tensor, dst.tensor))
            {
                beside[src.tensor].push(dst.tensor);
                beside[dst.tensor].push(src.tensor);
            }
        }
        while let Some(from) = found.pop() {
            for &id in &beside[from] {
                if why[id].is_none() && !otherwise[id] && known(tensors, id).is_some_and(has_rows) {
                    why[id] = why[from].clone();
                    found.push(id);
                }
            }
        }
        why
    }

    /// A spaced tensor that a kernel takes in another way than three lanes at a time.
    fn taken_otherwise(&self, bound: &Bound<'_>, tensor: &Tensor, why: &Why) {
        let (Bound { kernel, param, place, .. }, name, backend) = (bound, &tensor.name, self.backend.name());
        let how = match (param.dtype == tensor.dtype, param.lanes) {
            (false, _) => format!("as {}", param.dtype),
            (true, 1) => "element by element".to_string(),
            (true, lanes) => format!("in lanes of {lanes}"),
        };
        self.report(
            Diagnostic::error(
                "spaced-rows",
                place.clone(),
                format!("`{param}` of `{kernel}` takes `{name}` {how}, and another parameter in lanes of 3, which {backend} spaces by 4"),
            )
            .help(format!("make the parameter `{}x3` too, or give `{kernel}` a tensor of its own", tensor.dtype))
            .also(why.place.clone(), why.label.clone()),
        );
    }

    /// Copies between a tensor that is spaced and one that cannot be.
    fn copies(&self, tensors: &Tensors, bound: &[Bound<'_>], why: &[Option<Why>], lowered: &Lowered) {
        for step in &lowered.steps {
            let Action::Copy { src, dst } = &step.action else { continue };
            let (of, spaced, dense) = match (&why[src.tensor], &why[dst.tensor]) {
                (Some(of), None) => (of, src, (1, dst)),
                (None, Some(of)) => (of, dst, (0, src)),
                _ => continue,
            };
            let (Some(of_rows), Some(without)) = (known(tensors, spaced.tensor), known(tensors, dense.1.tensor)) else { continue };
            let (name, other, backend) = (&of_rows.name, &without.name, self.backend.name());
            let taken = bound.iter().find(|bound| bound.tensor == dense.1.tensor);
            let (mend, also) = match taken {
                Some(bound) => {
                    let text = format!("`{}` of `{}` takes `{other}` in another way", bound.param, bound.kernel);
                    (format!("make that parameter `{}x3` too, or let a kernel copy", without.dtype), (bound.place.clone(), text))
                }
                None => {
                    let declared = Place::root().to("tensors").to(other).to("shape");
                    (format!("give `{other}` 3 as its last dimension"), (declared, format!("`{other}` has no rows of three")))
                }
            };
            self.report(
                Diagnostic::error(
                    "spaced-rows",
                    lowered.view_place(step.origin, dense.0),
                    format!("the rows of `{name}` are spaced by 4 on {backend}, those of `{other}` are not: a copy keeps the bytes"),
                )
                .help(mend)
                .also(of.place.clone(), of.label.clone())
                .also(also.0, also.1),
            );
        }
    }

    /// Parts of spaced tensors that start or end within a row.
    fn parts(&self, tensors: &Tensors, why: &[Option<Why>], lowered: &Lowered) {
        for step in &lowered.steps {
            for (index, (_, view)) in step.action.views().enumerate() {
                let (Some(why), Some(tensor)) = (&why[view.tensor], known(tensors, view.tensor)) else { continue };
                let size = tensor.dtype.size() as u64;
                let (start, len) = (view.offset / size, view.len / size);
                if start.is_multiple_of(3) && len.is_multiple_of(3) {
                    continue;
                }
                let (name, backend) = (&tensor.name, self.backend.name());
                // What a fill copies from has no place of its own.
                let written = lowered.notes[step.origin as usize].views.len();
                self.report(
                    Diagnostic::error(
                        "spaced-rows",
                        lowered.view_place(step.origin, index.min(written.saturating_sub(1))),
                        format!(
                            "this part of `{name}` starts at element {start} and has {len}, and its rows of three are spaced by 4 on {backend}: \
                             a part within a row is not one run of bytes"
                        ),
                    )
                    .help("name whole rows")
                    .also(why.place.clone(), why.label.clone()),
                );
            }
        }
    }
}

fn known(tensors: &Tensors, id: usize) -> Option<&Tensor> {
    tensors.get_index(id).and_then(|(_, tensor)| tensor.as_ref())
}

/// Whether a tensor has rows of three; what a fill copies from has those of what it fills.
fn has_rows(tensor: &Tensor) -> bool {
    tensor.shape.dims().last() == Some(&3) || tensor.name.starts_with('<')
}

/// The tensors that launches are given, each place once.
fn bound<'k>(kernels: &'k Kernels, lowered: &Lowered) -> Vec<Bound<'k>> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for step in &lowered.steps {
        let Action::Launch { kernel, args, .. } = &step.action else { continue };
        let Some((name, Some(of))) = kernels.get_index(*kernel) else { continue };
        let params = of.params.iter().filter(|p| !matches!(p.kind, ParamKind::Local { .. }));
        let given = args.iter().zip(params).filter_map(|(arg, param)| match arg {
            Argument::Tensor { view, .. } => Some((view.tensor, param)),
            _ => None,
        });
        for (index, (tensor, param)) in given.enumerate() {
            if seen.insert((step.origin, index, tensor)) {
                found.push(Bound { tensor, kernel: name, param, place: lowered.view_place(step.origin, index) });
            }
        }
    }
    found
}

/// The views of an action.
fn views_mut(action: &mut Action) -> impl Iterator<Item = &mut View> {
    let (args, pair): (&mut [Argument], [Option<&mut View>; 2]) = match action {
        Action::Launch { args, .. } => (args, [None, None]),
        Action::Copy { src, dst } => (&mut [], [Some(src), Some(dst)]),
        Action::Fill { dst, .. } => (&mut [], [Some(dst), None]),
    };
    let launched = args.iter_mut().filter_map(|arg| match arg {
        Argument::Tensor { view, .. } => Some(view),
        Argument::Scalar(_) | Argument::Struct(_) | Argument::Null => None,
    });
    launched.chain(pair.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use crate::job::{self, Overrides};
    use crate::spec::{self, Backend};

    const SPEC: &str = r#"
[kernels.three]
params = ["in f32x3 x", "out f32x3 y"]
source.cpu.text = "void three(const float *x, float *y) { y[0] = x[0]; }"
source.opencl.text = "kernel void three(global const float3 *x, global float3 *y) { y[0] = x[0]; }"

[tensors]
x = { dtype = "f32", shape = [2, 4, 3], each_round = { uniform = {} } }
y = { dtype = "f32", shape = [2, 4, 3] }
copied = { dtype = "f32", shape = [4, 3] }
apart = { dtype = "f32", shape = [4, 3] }

[[steps]]
kernel = "three"
args = ["x[1, 2:4]", "y[0, 1:3]"]

[[steps]]
copy = "y[0, 1]"
to = "copied[3]"

[[steps]]
fill = "apart"
with = 0.0

[[steps]]
kernel = "three"
args = ["x", "y"]
when = "1 < 0"

[[checks]]
tensor = "y[0, 1]"
expect = "x[1, 2]"
"#;

    fn job(backend: Backend, spaced: bool) -> job::Job {
        let loaded = spec::parse("three.toml".into(), SPEC.into(), ".".into());
        let (job, diagnostics) = job::resolve(&loaded, backend, &Overrides { spaced, ..Overrides::default() });
        job.unwrap_or_else(|| panic!("{diagnostics:?}"))
    }

    /// Offset and length of every view.
    fn views(job: &job::Job) -> Vec<(u64, u64)> {
        job.steps.iter().flat_map(|step| step.action.views().map(|(_, view)| (view.offset, view.len)).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn views_of_spaced_tensors_count_spaced_rows() {
        let dense = job(Backend::Cpu, false);
        assert!(dense.tensors.iter().all(|tensor| !tensor.spaced && tensor.device_bytes() == tensor.bytes()));
        assert_eq!(views(&dense), [(72, 24), (12, 24), (12, 12), (36, 12), (0, 48)]);
        for spaced in [job(Backend::Opencl, false), job(Backend::Cpu, true)] {
            let told: Vec<(bool, u64, u64)> = spaced.tensors.iter().map(|t| (t.spaced, t.bytes(), t.device_bytes())).collect();
            assert_eq!(told, [(true, 96, 128), (true, 96, 128), (true, 48, 64), (false, 48, 48)]);
            assert_eq!(views(&spaced), [(96, 32), (16, 32), (16, 16), (48, 16), (0, 48)]);
        }
    }
}
