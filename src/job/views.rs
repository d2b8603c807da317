//! Views as byte ranges: within their tensor, contiguous, and not overlapping within one action.

use super::places::Places;
use super::steps::Region;
use super::unroll::Unroller;
use super::{Action, View};
use crate::diag::Diagnostic;
use crate::expr::{Expr, Subscript};

impl Unroller<'_, '_> {
    /// The byte range of a view, which must be contiguous.
    pub(super) fn view(&mut self, region: &Region) -> Option<View> {
        let tensor = self.tensor(region.tensor)?;
        let (dims, size) = (tensor.shape.dims(), tensor.dtype.size() as u64);
        let report = |span: std::ops::Range<usize>, message: String, help: &str| {
            let diagnostic = Diagnostic::error("bad-view", region.at.inside(span), message);
            self.resolver.report(if help.is_empty() { diagnostic } else { diagnostic.help(help) });
        };
        if region.view.index.len() > dims.len() {
            let span = region.view.index[dims.len()].span();
            report(
                span,
                format!(
                    "`{}` has {} dimensions (shape {}), {} are indexed",
                    tensor.name,
                    dims.len(),
                    tensor.shape,
                    region.view.index.len()
                ),
                "",
            );
            return None;
        }
        let scope = Places::constant(self.resolver, &self.loops);
        let eval = |expr: &Expr| self.resolver.eval_int(&region.at, expr, &scope);
        let mut offset = 0u64;
        let mut extents = Vec::with_capacity(dims.len());
        for (axis, &dim) in dims.iter().enumerate() {
            let (start, len) = match region.view.index.get(axis) {
                None => (0, dim),
                Some(Subscript::At(expr)) => {
                    let at = eval(expr)?;
                    if at < 0 || at >= i128::from(dim) {
                        report(
                            expr.span.clone(),
                            format!("index {at} is out of range: `{}` has {dim} in dimension {axis}", tensor.name),
                            "indices count from 0",
                        );
                        return None;
                    }
                    (at as u64, 1)
                }
                Some(Subscript::Slice(low, high, span)) => {
                    let low = low.as_ref().map_or(Some(0), eval)?;
                    let high = high.as_ref().map_or(Some(i128::from(dim)), eval)?;
                    if low < 0 || high > i128::from(dim) {
                        report(
                            span.clone(),
                            format!("{low}:{high} is out of range: `{}` has {dim} in dimension {axis}", tensor.name),
                            "a slice a:b has the indices a up to and without b",
                        );
                        return None;
                    }
                    if low >= high {
                        report(span.clone(), format!("{low}:{high} is empty"), "a slice a:b has the indices a up to and without b");
                        return None;
                    }
                    (low as u64, (high - low) as u64)
                }
            };
            offset = offset * dim + start;
            extents.push(len);
        }
        // Contiguous: behind the first dimension that has more than one index, every dimension is whole.
        let first = extents.iter().position(|&n| n > 1).unwrap_or(dims.len());
        if let Some(axis) = (first + 1..dims.len()).find(|&axis| extents[axis] != dims[axis]) {
            let span = region.view.index.get(axis).map_or(0..1, |s| s.span());
            report(
                span,
                format!(
                    "this part of `{}` is not contiguous: dimension {axis} is cut, and dimension {first} has {} indices",
                    tensor.name, extents[first]
                ),
                "a view is one run of bytes: cut the leading dimension, or index it",
            );
            return None;
        }
        Some(View { tensor: region.tensor, offset: offset * size, len: extents.iter().product::<u64>() * size })
    }

    /// The byte range of a view that a kernel takes so many elements at a time: it starts and ends between groups of them.
    pub(super) fn view_in_lanes(&mut self, region: &Region, lanes: u32) -> Option<View> {
        let view = self.view(region)?;
        let tensor = self.tensor(region.tensor)?;
        let dtype = region.cast.unwrap_or(tensor.dtype);
        let size = dtype.size() as u64;
        for (what, bytes) in [("starts at byte", view.offset), ("has", view.len)] {
            if !bytes.is_multiple_of(size) {
                let span = region.view.cast.as_ref().map_or(0..1, |(_, span)| span.clone());
                let (name, unit) = (&tensor.name, if what == "has" { " bytes" } else { "" });
                self.resolver.report(Diagnostic::error(
                    "bad-view",
                    region.at.inside(span),
                    format!(
                        "`{name}` is {} and this {what} {bytes}{unit}, which is not a multiple of the {size} bytes of {dtype}",
                        tensor.dtype
                    ),
                ));
                return None;
            }
        }
        let (start, len) = (view.offset / size, view.len / size);
        if [start, len].iter().all(|n| n.is_multiple_of(lanes.into())) {
            return Some(view);
        }
        self.resolver.report(
            Diagnostic::error(
                "bad-lanes",
                region.at.clone(),
                format!(
                    "this part of `{}` starts at element {start} and has {len}, the kernel takes {}x{lanes}: both must be divisible by {lanes}",
                    tensor.name, dtype
                ),
            )
            .help("cut between groups of lanes"),
        );
        None
    }

    /// One action may not have the same bytes twice where it writes one of them: what it reads then depends on the device.
    pub(super) fn overlaps(&self, origin: u32, action: &Action) {
        let views: Vec<_> = action.views().collect();
        let allowed = self.lowered.notes[origin as usize].overlap;
        for (i, (access, view)) in views.iter().enumerate() {
            for (j, (other_access, other)) in views[..i].iter().enumerate() {
                let one_reads = !access.writes() || !other_access.writes();
                if (access.writes() || other_access.writes()) && !(allowed && one_reads) && view.overlaps(other) {
                    let name = self.tensor(view.tensor).map_or("", |t| t.name.as_str());
                    let label = &self.lowered.origins[origin as usize].label;
                    let (here, there) = (self.lowered.view_place(origin, i), self.lowered.view_place(origin, j));
                    self.resolver.report(
                        Diagnostic::error(
                            "overlap",
                            here,
                            format!(
                                "two arguments of `{label}` overlap: the same bytes of `{name}` are `{}` and `{}`",
                                other_access.name(),
                                access.name()
                            ),
                        )
                        .help(match (one_reads, action) {
                            (true, Action::Launch { .. }) => "pass tensors or views that do not overlap; what is read and written in place is one `inout` parameter, or `overlap = true` where the kernel allows it",
                            (true, _) => "name parts that do not overlap",
                            (false, _) => "pass tensors or views that do not overlap: of two that write the same bytes nobody knows which comes last",
                        })
                        .also(there, "the other"),
                    );
                    return;
                }
            }
        }
    }
}
