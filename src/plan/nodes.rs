//! The commands of a round for one set and mode, alone or for several rounds at once: uploads, restores, clears, poison, steps with the copies of views that
//! the device cannot bind, read-back, guards.

use super::build::{Draft, PlanError};
use super::order::{MOST_EDGES, add_edges, after_lists};
use super::{Class, Flush, Home, Memory, Mode, Staged, Zone};
use crate::device::{Arg, Cmd, Kernel, Mem, Node, Slice, Word};
use crate::job::{Action, Argument, View};
use crate::tensor::Access;

pub(super) fn slice(home: Home, bytes: u64) -> Slice {
    Slice { mem: Mem(home.memory), offset: home.offset, len: bytes }
}

/// Commands in list order with what each waits for. *Errors*: more edges than a plan may have.
pub(super) fn ordered(cmds: Vec<Cmd>) -> Result<Vec<Node>, PlanError> {
    let lists = after_lists(&cmds.iter().collect::<Vec<_>>()).ok_or(TOO_MANY)?;
    Ok(cmds.into_iter().zip(lists).map(|(cmd, after)| Node { cmd, after }).collect())
}

const TOO_MANY: PlanError = PlanError::TooManyEdges { limit: MOST_EDGES as u64 };

/// The part of an output that a window covers; windows are whole words and tile the output.
pub(super) fn window(bytes: u64, part: u8, of: u8) -> std::ops::Range<u64> {
    let words = bytes.div_ceil(4);
    let border = |w: u64| (words * w / u64::from(of) * 4).min(bytes);
    border(part.into())..border(u64::from(part) + 1)
}

/// What caches are flushed with: a word whose bytes differ, as drivers write others by ways that pass the caches by.
const FLUSH_WORD: u32 = 0x0f1e_2d3c;

/// The node of a round that flushes the caches.
fn flush_node(nodes: &[Node], flush: Option<&Flush>) -> Option<usize> {
    let memory = flush?.memory;
    nodes.iter().position(|node| matches!(node.cmd, Cmd::Fill { dst, .. } if dst.mem.0 == memory))
}

/// A list for several rounds at once, made of the commands of one.
pub(super) struct Batch<'a> {
    pub rounds: u32,
    /// One round after the other, as each starts from what the one before it left; else command after command, each for all
    /// rounds, so that a device can make one of copies and fills that lie at equal distances.
    pub by_round: bool,
    pub memories: &'a [Memory],
    /// Variables of one round.
    pub vars: usize,
}

impl Batch<'_> {
    /// Where a command of a round stands, of so many that a round has.
    fn place(&self, commands: usize, command: usize, position: u32) -> u32 {
        let (rounds, position) = (self.rounds as usize, position as usize);
        (if self.by_round { position * commands + command } else { command * rounds + position }) as u32
    }

    /// The commands of all rounds, in an order that is legal.
    pub fn list(&self, round: &[Cmd]) -> Vec<Cmd> {
        let at = |position| move |cmd| self.at(position, cmd);
        match self.by_round {
            _ if self.rounds == 1 => round.to_vec(),
            true => (0..self.rounds).flat_map(|position| round.iter().map(at(position))).collect(),
            false => round.iter().flat_map(|cmd| (0..self.rounds).map(move |position| self.at(position, cmd))).collect(),
        }
    }

    /// A command of the first round of a batch for another.
    fn at(&self, position: u32, cmd: &Cmd) -> Cmd {
        let slice = |slice: &Slice| {
            let memory = &self.memories[slice.mem.0 as usize];
            let apart = if memory.per_slot { memory.stride * u64::from(position) } else { 0 };
            Slice { offset: slice.offset + apart, ..*slice }
        };
        let word = |word: &Word| match *word {
            Word::Var(var) if usize::from(var) < self.vars => Word::Var(var + (position as usize * self.vars) as u16),
            // Poison is the same for all rounds of a batch.
            word => word,
        };
        match cmd {
            Cmd::Copy { src, dst } => Cmd::Copy { src: slice(src), dst: slice(dst) },
            Cmd::Fill { dst, pattern } => Cmd::Fill { dst: slice(dst), pattern: word(pattern) },
            Cmd::Launch { kernel, grid, offset, args } => Cmd::Launch {
                kernel: *kernel,
                grid: grid.each_ref().map(word),
                offset: offset.each_ref().map(word),
                args: args
                    .iter()
                    .map(|arg| match arg {
                        Arg::In(s) => Arg::In(slice(s)),
                        Arg::Out(s) => Arg::Out(slice(s)),
                        Arg::Inout(s) => Arg::Inout(slice(s)),
                        Arg::Scalar(w) => Arg::Scalar(word(w)),
                        Arg::Struct(words) => Arg::Struct(words.iter().map(word).collect()),
                        Arg::Null => Arg::Null,
                    })
                    .collect(),
            },
        }
    }
}

impl Draft<'_> {
    /// Where a step finds a tensor in rounds of a set.
    fn home(&self, tensor: usize, set: u32) -> Option<Home> {
        let placement = &self.tensors[tensor];
        match placement.class {
            Class::Resident => placement.pristine.get(set as usize).or(placement.pristine.first()).copied(),
            _ => placement.home,
        }
    }

    fn view(&self, view: View, set: u32) -> Slice {
        // Every tensor that a step names was given a home by `place`.
        let home = self.home(view.tensor, set).unwrap_or(Home { memory: 0, offset: 0 });
        Slice { mem: Mem(home.memory), offset: home.offset + view.offset, len: view.len }
    }

    /// The nodes of so many rounds at once. *Errors*: more edges than a plan may have.
    pub(super) fn nodes(&self, rounds: u32, set: u32, mode: &Mode) -> Result<Vec<Node>, PlanError> {
        let (cmds, steps) = self.round_and_steps(set, mode);
        let batch = self.list_of(rounds);
        let mut nodes = ordered(batch.list(&cmds))?;
        // A batch has one round where caches are flushed.
        if let Some(flush) = flush_node(&nodes, self.flush.as_ref()) {
            // Everything before it comes first, everything else behind it, though they have no bytes in common.
            nodes[flush].after = (0..flush as u32).collect();
            let waits = |node: &Node| node.after.iter().any(|&after| after >= flush as u32);
            nodes[flush + 1..].iter_mut().filter(|node| !waits(node)).for_each(|node| node.after.push(flush as u32));
        }
        let mut edges: usize = nodes.iter().map(|node| node.after.len()).sum();
        for (index, step) in self.job.steps.iter().enumerate().filter(|(_, step)| !step.after.is_empty()) {
            for position in 0..rounds {
                let place = |step: usize| batch.place(cmds.len(), steps[step] as usize, position);
                let after = &mut nodes[place(index) as usize].after;
                edges -= after.len();
                add_edges(after, step.after.iter().map(|&step| place(step as usize)));
                edges += after.len();
            }
        }
        let guards = cmds.len() - self.guards(mode).count();
        if guards < cmds.len() {
            let launches: Vec<u32> = steps.iter().copied().filter(|&at| matches!(cmds[at as usize], Cmd::Launch { .. })).collect();
            // A kernel that leaves its slices may write in any zone, so zones are read behind all launches of the list; where
            // rounds share them, behind those of the round and before those of the next.
            let mut waited = vec![false; nodes.len()];
            // Where rounds come one after the other, by launches of the same one.
            let round_of = |node: usize| if batch.by_round { node / cmds.len() } else { 0 };
            for (at, node) in nodes.iter().enumerate().filter(|(_, node)| matches!(node.cmd, Cmd::Launch { .. })) {
                let own = node.after.iter().filter(|&&of| round_of(of as usize) == round_of(at));
                own.for_each(|&of| waited[of as usize] = true);
            }
            let mut before = None;
            for position in 0..rounds {
                let place = |command: usize| batch.place(cmds.len(), command, position);
                if let Some(before) = before.filter(|_| batch.by_round) {
                    for &launch in &launches {
                        let after = &mut nodes[place(launch as usize) as usize].after;
                        edges -= after.len();
                        add_edges(after, [before].into_iter());
                        edges += after.len();
                    }
                }
                // The first one waits for all, the others for it.
                let first = if batch.by_round { place(guards) } else { batch.place(cmds.len(), guards, 0) };
                let positions = if batch.by_round { position..position + 1 } else { 0..rounds };
                for guard in guards..cmds.len() {
                    let after = &mut nodes[place(guard) as usize].after;
                    edges -= after.len();
                    match guard {
                        _ if place(guard) == first => {
                            let (batch, commands) = (&batch, cmds.len());
                            let of = |position| launches.iter().map(move |&launch| batch.place(commands, launch as usize, position));
                            add_edges(after, positions.clone().flat_map(of).filter(|&launch| !waited[launch as usize]));
                        }
                        // One after the other, so that the last one stands for all.
                        _ if batch.by_round => add_edges(after, [place(guard - 1)].into_iter()),
                        _ => add_edges(after, [first].into_iter()),
                    }
                    edges += after.len();
                }
                before = Some(place(cmds.len() - 1));
            }
        }
        if edges > MOST_EDGES { Err(TOO_MANY) } else { Ok(nodes) }
    }

    /// The guard zones that rounds of a mode copy to where the host reads them.
    fn guards(&self, mode: &Mode) -> impl Iterator<Item = &Zone> {
        let read = (mode.guards, mode.all_guards);
        self.zones.iter().filter(move |zone| read.0 && (read.1 || zone.near) && zone.at != zone.read)
    }

    /// The commands of a batch's first round, in an order that is legal.
    pub(super) fn round(&self, set: u32, mode: &Mode) -> Vec<Cmd> {
        self.round_and_steps(set, mode).0
    }

    /// The commands of a batch's first round, in an order that is legal, and which of them are the steps' own.
    fn round_and_steps(&self, set: u32, mode: &Mode) -> (Vec<Cmd>, Vec<u32>) {
        let mut cmds = Vec::new();
        for fill in self.fills.iter().filter(|f| !f.bound) {
            if let Some(home) = self.tensors[fill.tensor].home {
                cmds.push(Cmd::Copy { src: slice(fill.to, fill.bytes), dst: slice(home, fill.bytes) });
            }
        }
        for (tensor, placement) in self.tensors.iter().enumerate() {
            let Some(home) = placement.home else { continue };
            match placement.class {
                Class::Restored => {
                    let pristine = placement.pristine.get(set as usize).or(placement.pristine.first());
                    if let Some(&pristine) = pristine {
                        cmds.push(Cmd::Copy { src: slice(pristine, placement.bytes), dst: slice(home, placement.bytes) });
                    }
                }
                Class::Cleared => {
                    let word = super::classify::fill_word(self.job, tensor).unwrap_or(0);
                    cmds.push(Cmd::Fill { dst: slice(home, placement.bytes), pattern: Word::Const(word.into()) });
                }
                _ => {}
            }
        }
        for poisoned in self.poison.iter().filter(|poisoned| !poisoned.by_host) {
            let placement = &self.tensors[poisoned.tensor];
            let Some(home) = placement.home else { continue };
            let range = poisoned.range(placement.bytes, mode);
            if !range.is_empty() {
                let dst = Slice { mem: Mem(home.memory), offset: home.offset + range.start, len: range.end - range.start };
                cmds.push(Cmd::Fill { dst, pattern: Word::Var(poisoned.var) });
            }
        }
        cmds.extend(self.flush.as_ref().map(|flush| Cmd::Fill {
            dst: slice(Home { memory: flush.memory, offset: 0 }, flush.bytes),
            pattern: Word::Const(FLUSH_WORD.into()),
        }));
        let mut steps = Vec::with_capacity(self.job.steps.len());
        let mut staged = self.staged.as_slice();
        for (index, step) in self.job.steps.iter().enumerate() {
            let (here, later) = staged.split_at(staged.iter().take_while(|s| s.step == index as u32).count());
            staged = later;
            let there = |s: &Staged| self.view(View { tensor: s.tensor, offset: s.offset, len: s.bytes }, set);
            let bind = |arg: usize, view: View| match here.iter().find(|s| s.arg == arg as u32) {
                Some(staged) => slice(staged.at, staged.bytes),
                None => self.view(view, set),
            };
            cmds.extend(here.iter().map(|s| Cmd::Copy { src: there(s), dst: slice(s.at, s.bytes) }));
            steps.push(cmds.len() as u32);
            cmds.push(match &step.action {
                Action::Launch { kernel, grid, offset, args } => Cmd::Launch {
                    kernel: Kernel(*kernel as u32),
                    grid: *grid,
                    offset: *offset,
                    args: args
                        .iter()
                        .enumerate()
                        .map(|(at, arg)| match arg {
                            Argument::Scalar(word) => Arg::Scalar(*word),
                            Argument::Struct(words) => Arg::Struct(words.clone()),
                            Argument::Null => Arg::Null,
                            Argument::Tensor { access: Access::In, view } => Arg::In(bind(at, *view)),
                            Argument::Tensor { access: Access::Out, view } => Arg::Out(bind(at, *view)),
                            Argument::Tensor { access: Access::Inout, view } => Arg::Inout(bind(at, *view)),
                        })
                        .collect(),
                },
                Action::Copy { src, dst } => Cmd::Copy { src: self.view(*src, set), dst: self.view(*dst, set) },
                Action::Fill { dst, pattern } => Cmd::Fill { dst: self.view(*dst, set), pattern: *pattern },
            });
            cmds.extend(here.iter().filter(|s| s.back).map(|s| Cmd::Copy { src: slice(s.at, s.bytes), dst: there(s) }));
        }
        for read in &self.reads {
            if let Some(home) = self.tensors[read.tensor].home
                && home != read.from
            {
                cmds.push(Cmd::Copy { src: slice(home, read.bytes), dst: slice(read.from, read.bytes) });
            }
        }
        for zone in self.guards(mode) {
            cmds.push(Cmd::Copy { src: slice(zone.at, zone.bytes), dst: slice(zone.read, zone.bytes) });
        }
        (cmds, steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_tile_the_output() {
        for bytes in [1u64, 3, 4, 63, 64, 65, 1000, 1 << 20, (1 << 20) + 3] {
            for of in [2, 4, 8, 16] {
                let mut end = 0;
                for part in 0..of {
                    let range = window(bytes, part, of);
                    assert_eq!(range.start, end);
                    assert!(range.start.is_multiple_of(4) && range.end >= range.start);
                    end = range.end;
                }
                assert_eq!(end, bytes);
            }
        }
    }
}
