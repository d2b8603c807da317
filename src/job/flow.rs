//! What one round reads and writes: nothing may be read before it has contents.

use std::collections::HashMap;

use super::checks::varies;
use super::names::Resolver;
use super::steps::{Lowered, Tensors};
use super::{Contents, View};
use crate::diag::{Diagnostic, Place};
use crate::tensor::Access;

impl Resolver<'_> {
    /// Reports reads of bytes that nothing has written, and warns of rounds that are all the same.
    pub(super) fn flow(&self, tensors: &Tensors, lowered: &Lowered) {
        let mut written: HashMap<usize, Ranges> = HashMap::new();
        let bare = |id: usize| tensors.get_index(id).and_then(|(_, t)| t.as_ref()).filter(|t| matches!(t.contents, Contents::None));
        for step in &lowered.steps {
            for (index, (access, view)) in step.action.views().enumerate().filter(|(_, (access, _))| access.reads()) {
                let Some(tensor) = bare(view.tensor).filter(|_| !lowered.maybe.contains(view.tensor)) else { continue };
                let Some((from, to)) = written.entry(view.tensor).or_default().gap(view.offset, view.offset + view.len) else { continue };
                let size = tensor.dtype.size() as u64;
                let origin = &lowered.origins[step.origin as usize];
                let part = if (from, to) == (0, tensor.bytes()) {
                    String::new()
                } else {
                    format!(" (elements {} to {})", from / size, to / size - 1)
                };
                let what = if access == Access::Inout { "reads and writes" } else { "reads" };
                let name = &tensor.name;
                let mut diagnostic = Diagnostic::error(
                    "read-before-written",
                    lowered.view_place(step.origin, index),
                    format!("`{}` {what} `{name}`{part}, which nothing has written", origin.label),
                )
                .also(Place::root().to("tensors").to(name).key(), "has no contents of its own");
                diagnostic = match access {
                    Access::Inout => diagnostic.help(format!(
                        "give `{name}` contents, such as `data = \"zeros\"`; or, if the kernel does not read it, make the parameter `out`"
                    )),
                    _ => diagnostic.help(format!("give `{name}` `data` or `each_round`, or write it in an earlier step")),
                };
                self.report(diagnostic);
            }
            for (_, view) in step.action.views().filter(|(access, _)| access.writes()) {
                if bare(view.tensor).is_some() {
                    written.entry(view.tensor).or_default().add(view);
                }
            }
        }
        let any_checked = !self.spec.checks.is_empty();
        let same = tensors.values().all(|t| t.as_ref().is_some_and(|t| !varies(t))) && lowered.vars.is_empty();
        let rounds = self.spec.rounds.count.is_some() && self.spec.rounds.count != Some(crate::spec::Int::Int(1));
        if any_checked && same && rounds && !tensors.is_empty() {
            self.report(
                Diagnostic::warning(
                    "same-rounds",
                    Place::root().to("rounds").to("count").key(),
                    "every round has the same inputs: a kernel that answers from memory would pass",
                )
                .help("draw an input anew with `each_round`, or give the job [[sets]]"),
            );
        }
    }
}

/// Byte ranges, merged and sorted.
#[derive(Default)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn add(&mut self, view: View) {
        let (mut start, mut end) = (view.offset, view.offset + view.len);
        let first = self.0.partition_point(|&(_, e)| e < start);
        let mut last = first;
        while last < self.0.len() && self.0[last].0 <= end {
            start = start.min(self.0[last].0);
            end = end.max(self.0[last].1);
            last += 1;
        }
        self.0.splice(first..last, [(start, end)]);
    }

    /// The first part of a range that is not covered.
    fn gap(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let at = self.0.partition_point(|&(_, e)| e <= start);
        match self.0.get(at) {
            Some(&(s, e)) if s <= start => (e < end).then(|| (e, self.0.get(at + 1).map_or(end, |n| n.0.min(end)))),
            Some(&(s, _)) => Some((start, s.min(end))),
            None => Some((start, end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_show_their_gaps() {
        let mut ranges = Ranges::default();
        let view = |a, b| View { tensor: 0, offset: a, len: b - a };
        assert_eq!(ranges.gap(0, 8), Some((0, 8)));
        ranges.add(view(4, 8));
        assert_eq!(ranges.gap(0, 8), Some((0, 4)));
        assert_eq!(ranges.gap(4, 12), Some((8, 12)));
        ranges.add(view(12, 16));
        assert_eq!(ranges.gap(4, 16), Some((8, 12)));
        ranges.add(view(8, 12));
        assert_eq!(ranges.gap(4, 16), None);
        assert_eq!(ranges.0, [(4, 16)]);
    }
}
