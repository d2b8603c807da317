//! Views that a device cannot bind where they lie -> copies of them that it can: a launch is given the copy, which is
//! filled before and, where the launch writes it, put back after.

use super::build::Draft;
use super::{Home, Staged};
use crate::job::{Action, Argument};
use crate::tensor::{Param, ParamKind, rows};

impl Draft<'_> {
    /// Alignment of tensors in memories, so that a whole tensor can always be bound. *Units*: bytes.
    pub(super) fn alignment(&self) -> u64 {
        self.caps.alignment.max(self.caps.bind_alignment).max(4)
    }

    /// The views that cannot be bound, in the order of the steps and arguments; they have no home yet.
    pub(super) fn to_stage(&self) -> Vec<Staged> {
        let mut staged = Vec::new();
        for (step, action) in self.job.steps.iter().map(|step| &step.action).enumerate() {
            let Action::Launch { kernel, args, .. } = action else { continue };
            let params = self.job.kernels[*kernel].params.iter().filter(|p| !matches!(p.kind, ParamKind::Local { .. }));
            for (at, (arg, param)) in args.iter().zip(params).enumerate() {
                let Argument::Tensor { access, view } = arg else { continue };
                let alignment = self.bind_alignment(param, self.job.tensors[view.tensor].spaced);
                // Tensors start at multiples of every alignment, so the offset within one decides for all sets.
                if view.offset % alignment != 0 {
                    staged.push(Staged {
                        step: step as u32,
                        arg: at as u32,
                        tensor: view.tensor,
                        offset: view.offset,
                        bytes: view.len,
                        at: Home { memory: 0, offset: 0 },
                        back: access.writes(),
                        alignment,
                    });
                }
            }
        }
        staged
    }

    /// What an argument's first byte must be a multiple of: the device's demand, and the element as the kernel sees it.
    fn bind_alignment(&self, param: &Param, spaced: bool) -> u64 {
        let size = param.dtype.size() as u64;
        let element = match param.lanes {
            3 if spaced => rows::spaced(3 * size),
            // Rows of three lanes lie without padding, so that no element of them is aligned to more than its dtype.
            3 => size,
            lanes => size * u64::from(lanes),
        };
        self.caps.bind_alignment.max(element).min(self.alignment())
    }
}
