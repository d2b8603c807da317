//! Which class each tensor has. Three facts decide: where a round's contents come from, whether steps write it,
//! and who asks for it.

use serde::{Deserialize, Serialize};

use super::fit::Spared;
use crate::data::Source;
use crate::job::{Contents, Job, Want};

/// How a tensor is kept between rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Uploaded once, for all sets; never written.
    Resident,
    /// Put back every round by a copy on the device from a pristine copy.
    Restored,
    /// Put back every round by a fill on the device.
    Cleared,
    /// Written by the host every round.
    Streamed,
    /// Stays on the device from round to round.
    Carried,
    /// Written by steps, read by the host.
    Output,
    /// Written and read by steps alone; shares memory with others whose lives don't overlap.
    Scratch,
    /// Passed by value: no device memory.
    ByValue,
    /// Only expectations read it: no device memory.
    HostOnly,
    /// No step, check or expectation names it.
    Unused,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::Resident => "resident",
            Class::Restored => "restored",
            Class::Cleared => "cleared",
            Class::Streamed => "streamed",
            Class::Carried => "carried",
            Class::Output => "output",
            Class::Scratch => "scratch",
            Class::ByValue => "by value",
            Class::HostOnly => "host only",
            Class::Unused => "unused",
        }
    }
}

/// What the steps and checks do with a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Use {
    pub read: bool,
    pub written: bool,
    pub by_value: bool,
    pub checked: bool,
    /// An expectation reads its contents.
    pub expected: bool,
    /// Its contents are computed, or others' from them.
    pub computed: bool,
    pub first: Option<u32>,
    pub last: u32,
}

/// What every tensor is used for.
pub(super) fn uses(job: &Job) -> Vec<Use> {
    let mut uses = vec![Use::default(); job.tensors.len()];
    for (index, step) in job.steps.iter().enumerate() {
        for (access, view) in step.action.views() {
            let of = &mut uses[view.tensor];
            of.read |= access.reads();
            of.written |= access.writes();
            of.first.get_or_insert(index as u32);
            of.last = index as u32;
        }
    }
    for var in &job.vars {
        if let crate::job::VarSource::Tensor(id) = var.source {
            uses[id].by_value = true;
        }
    }
    for (id, tensor) in job.tensors.iter().enumerate() {
        for program in tensor.contents.programs() {
            program.tensors().iter().chain([&id]).for_each(|&id| uses[id].computed = true);
        }
    }
    for id in job.read_back() {
        uses[id].checked = true;
    }
    for &id in job.programs().flat_map(|program| program.tensors()) {
        uses[id].expected = true;
    }
    uses
}

/// The most sets that stay on the device, each with graphs of its own.
const MOST_RESIDENT_SETS: usize = 16;

/// The class of a tensor, and why; of one whose rows the device spaces, that it does.
pub(super) fn class(job: &Job, tensor: usize, of: Use, spared: Spared) -> (Class, String) {
    let (class, mut reason) = unspaced_class(job, tensor, of, spared);
    if job.tensors[tensor].spaced {
        reason.push_str("; rows of 3 spaced by 4");
    }
    (class, reason)
}

fn unspaced_class(job: &Job, tensor: usize, of: Use, spared: Spared) -> (Class, String) {
    let t = &job.tensors[tensor];
    let on_device = of.first.is_some();
    if !on_device {
        return if of.by_value {
            (Class::ByValue, "one element, passed by value; no step needs it in memory".into())
        } else if of.expected {
            (Class::HostOnly, "only expectations read it".into())
        } else if of.computed {
            (Class::HostOnly, "only contents of other tensors are computed from it".into())
        } else {
            (Class::Unused, "passed as a constant, or named by nothing".into())
        };
    }
    if t.carry {
        return (Class::Carried, "`carry`: keeps what the last round left".into());
    }
    let written = of.written;
    match &t.contents {
        Contents::None if of.checked => (Class::Output, "written by steps and checked".into()),
        Contents::None => (Class::Scratch, "written and read by steps alone".into()),
        Contents::Drawn(_) if written => {
            (Class::Streamed, "new contents every round; steps write it, so the host keeps the original".into())
        }
        Contents::Drawn(_) => (Class::Streamed, "new contents every round".into()),
        Contents::Fixed(Source::Fill(_)) if written && fill_word(job, tensor).is_some() => {
            (Class::Cleared, "starts every round with one value; steps write it".into())
        }
        Contents::Fixed(_) if written && spared.copies => {
            (Class::Streamed, "the same contents every round, uploaded again as memory is short; steps write it".into())
        }
        Contents::Fixed(_) if written => (Class::Restored, "starts every round with the same contents; steps write it".into()),
        Contents::Fixed(_) => (Class::Resident, "the same in every round; no step writes it".into()),
        Contents::Sets(sources) if sources.len() > MOST_RESIDENT_SETS => {
            (Class::Streamed, format!("{} sets, more than the {MOST_RESIDENT_SETS} that stay on the device", sources.len()))
        }
        Contents::Sets(sources) if spared.sets => {
            (Class::Streamed, format!("{} sets, more than the device is given room for", sources.len()))
        }
        Contents::Sets(sources) if spared.mixed => (
            Class::Streamed,
            format!("{} sets that cycle, uploaded every round: rounds that are submitted at once are of several", sources.len()),
        ),
        Contents::Sets(sources) if written && spared.copies => {
            (Class::Streamed, format!("{} sets that cycle, uploaded again as memory is short; steps write it", sources.len()))
        }
        Contents::Sets(sources) if written => (Class::Restored, format!("{} sets that cycle; steps write it", sources.len())),
        Contents::Sets(sources) => (Class::Resident, format!("{} sets that cycle, each uploaded once", sources.len())),
    }
}

/// How many copies of a tensor's contents the host holds for expectations; without any, they read what a slot was filled
/// with, or what is drawn for them.
pub(super) fn held(job: &Job, tensor: usize, class: Class, of: Use, spared: Spared) -> u32 {
    let refilled = |given_up| class == Class::Streamed && given_up;
    match &job.tensors[tensor].contents {
        _ if !of.expected => 0,
        Contents::Sets(_) if refilled(spared.sets || of.written && spared.copies) => 0,
        Contents::Sets(sources) => sources.len() as u32,
        Contents::Fixed(_) if job.tensors[tensor].carry || refilled(spared.copies) => 0,
        Contents::Fixed(_) => 1,
        Contents::Drawn(_) | Contents::None => 0,
    }
}

/// The 32-bit word that fills a tensor with its one value, if there is one.
pub(super) fn fill_word(job: &Job, tensor: usize) -> Option<u32> {
    let t = &job.tensors[tensor];
    let Contents::Fixed(Source::Fill(bits)) = t.contents else { return None };
    if t.dtype.size() == 8 {
        return (bits >> 32 == bits & 0xffff_ffff).then_some(bits as u32);
    }
    Some(crate::job::repeat_to_32(bits, t.dtype) as u32)
}

/// Whether what a checked tensor must be differs from round to round, so that what an earlier round left cannot pass.
pub(super) fn expected_anew(job: &Job, tensor: usize) -> bool {
    let anew = |want: &Want| match want {
        Want::Expr(program) => {
            let drawn = |&id: &usize| job.tensors[id].carry || matches!(job.tensors[id].contents, Contents::Drawn(_));
            program.uses_round() || program.tensors().iter().any(drawn)
        }
        Want::File { row: Some(row), .. } => row.uses_round(),
        Want::File { row: None, .. } | Want::Bytes(_) => false,
    };
    let claimed = job.conditions.iter().any(|c| c.program.after_tensors().contains(&tensor));
    // What a condition says of an output, an old one may fulfil.
    !claimed && job.checks.iter().filter(|c| c.tensor == tensor).all(|c| c.wants.iter().all(anew))
}
