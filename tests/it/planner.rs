//! Plans of random jobs keep what a plan promises, whatever the device, the slots and the trust.

mod batches;
mod graph;
pub mod jobs;
mod rungs;
mod snapshots;

use std::collections::HashMap;

use proptest::prelude::*;
use runjob::device::{Arg, Caps, Cmd, Kernel, Mem, Node, Place, Slice, Word};
use runjob::job::{Action, Argument, Contents, Job, View};
use runjob::plan::{Class, Home, Options, Placement, Plan, Poison, Trust, build};
use runjob::tensor::Access;

pub fn caps(unified: bool) -> Caps {
    Caps {
        backend: "cpu",
        name: "a device".into(),
        driver: "none".into(),
        unified,
        lanes: 2,
        submit_ns: if unified { 50 } else { 10_000 },
        node_ns: if unified { 50 } else { 10_000 },
        bytes_per_ns: 10.0,
        memory: 1 << 30,
        largest_alloc: 1 << 28,
        alignment: 64,
        bind_alignment: 1,
        max_block: 1024,
        max_block_dims: [1024; 3],
        shares_cores: unified,
        peak: Default::default(),
        features: Vec::new(),
        versions: Vec::new(),
    }
}

/// What the bytes of a memory hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holds {
    Nothing,
    Guard,
    Poison,
    /// Contents of a tensor.
    Tensor(usize),
    /// The contents of a tensor in a set, which nothing may write.
    Pristine(usize, u32),
}

/// Plan memories, byte by byte.
struct Bytes(Vec<Vec<Holds>>);

impl Bytes {
    fn of(&mut self, slice: Slice) -> &mut [Holds] {
        let memory = &mut self.0[slice.mem.0 as usize];
        assert!(slice.offset + slice.len <= memory.len() as u64, "{slice:?} lies outside a memory of {} bytes", memory.len());
        &mut memory[slice.offset as usize..(slice.offset + slice.len) as usize]
    }

    fn put(&mut self, slice: Slice, holds: Holds) {
        self.of(slice).fill(holds);
    }

    fn all(&mut self, slice: Slice, what: &str, ok: impl Fn(Holds) -> bool) {
        let bytes = self.of(slice);
        assert!(bytes.iter().all(|&b| ok(b)), "{what}: {slice:?} holds {:?}", bytes.iter().find(|b| !ok(**b)));
    }
}

fn at(home: Home, len: u64) -> Slice {
    Slice { mem: Mem(home.memory), offset: home.offset, len }
}

fn overlap(a: Slice, b: Slice) -> bool {
    a.mem == b.mem && a.offset < b.offset + b.len && b.offset < a.offset + a.len
}

fn accesses(cmd: &Cmd) -> Vec<(bool, Slice)> {
    match cmd {
        Cmd::Copy { src, dst } => vec![(false, *src), (true, *dst)],
        Cmd::Fill { dst, .. } => vec![(true, *dst)],
        Cmd::Launch { args, .. } => args
            .iter()
            .filter_map(|arg| match arg {
                Arg::In(s) => Some((false, *s)),
                Arg::Out(s) | Arg::Inout(s) => Some((true, *s)),
                Arg::Scalar(_) | Arg::Struct(_) | Arg::Null => None,
            })
            .collect(),
    }
}

/// What each node waits for, byte by byte: the last writer of what it uses, the readers since of what it writes.
fn bitmap_oracle(nodes: &[Node]) -> Vec<Vec<u32>> {
    let mut bytes: HashMap<(u32, u64), (Option<u32>, Vec<u32>)> = HashMap::new();
    let mut lists = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let index = index as u32;
        let mut after = std::collections::BTreeSet::new();
        for (write, slice) in accesses(&node.cmd) {
            for byte in slice.offset..slice.offset + slice.len {
                let (writer, readers) = bytes.entry((slice.mem.0, byte)).or_default();
                after.extend(*writer);
                if write {
                    after.extend(readers.drain(..));
                    *writer = Some(index);
                } else {
                    readers.push(index);
                }
            }
        }
        after.remove(&index);
        lists.push(after.into_iter().collect());
    }
    lists
}

/// Where a step of a set finds a view.
fn place(plan: &Plan, view: View, set: u32) -> Slice {
    let placement = &plan.tensors[view.tensor];
    let home = match placement.class {
        Class::Resident if placement.pristine.len() > 1 => placement.pristine[set as usize],
        Class::Resident => placement.pristine[0],
        _ => placement.home.expect("a tensor that a step uses has a home"),
    };
    Slice { offset: home.offset + view.offset, ..at(home, view.len) }
}

/// What a launch is given for an argument: a copy, where the view cannot be bound.
fn bound(plan: &Plan, step: usize, arg: usize, view: View, set: u32) -> Slice {
    let staged = plan.staged.iter().find(|s| (s.step as usize, s.arg as usize) == (step, arg));
    staged.map_or_else(|| place(plan, view, set), |s| at(s.at, s.bytes))
}

/// The views of a step, each with the bytes that it uses.
fn uses(plan: &Plan, step: usize, action: &Action, set: u32) -> Vec<(Access, View, Slice)> {
    match action {
        Action::Launch { args, .. } => args
            .iter()
            .enumerate()
            .filter_map(|(arg, argument)| match argument {
                Argument::Tensor { access, view } => Some((*access, *view, bound(plan, step, arg, *view, set))),
                _ => None,
            })
            .collect(),
        _ => action.views().map(|(access, view)| (access, view, place(plan, view, set))).collect(),
    }
}

/// A step as a command, by the plan's tables alone.
fn command(plan: &Plan, step: usize, action: &Action, set: u32) -> Cmd {
    let place = |view: &View| place(plan, *view, set);
    let bound = |arg: usize, view: &View| bound(plan, step, arg, *view, set);
    match action {
        Action::Copy { src, dst } => Cmd::Copy { src: place(src), dst: place(dst) },
        Action::Fill { dst, pattern } => Cmd::Fill { dst: place(dst), pattern: *pattern },
        Action::Launch { kernel, grid, offset, args } => Cmd::Launch {
            offset: *offset,
            kernel: Kernel(*kernel as u32),
            grid: *grid,
            args: args
                .iter()
                .enumerate()
                .map(|(at, arg)| match arg {
                    Argument::Scalar(word) => Arg::Scalar(*word),
                    Argument::Struct(words) => Arg::Struct(words.clone()),
                    Argument::Null => Arg::Null,
                    Argument::Tensor { access: Access::In, view } => Arg::In(bound(at, view)),
                    Argument::Tensor { access: Access::Out, view } => Arg::Out(bound(at, view)),
                    Argument::Tensor { access: Access::Inout, view } => Arg::Inout(bound(at, view)),
                })
                .collect(),
        },
    }
}

/// The memories after set-up, with everything that a round may not rely on forgotten.
fn after_setup(job: &Job, plan: &Plan) -> Bytes {
    let mut bytes = Bytes(plan.memories.iter().map(|m| vec![Holds::Nothing; m.bytes as usize]).collect());
    let mut uploaded: HashMap<(usize, u32), u32> = HashMap::new();
    for upload in &plan.setup {
        bytes.put(at(upload.to, upload.bytes), Holds::Pristine(upload.tensor, upload.set));
        *uploaded.entry((upload.tensor, upload.set)).or_default() += 1;
    }
    for (id, placement) in plan.tensors.iter().enumerate() {
        let sets = if let Contents::Sets(sources) = &job.tensors[id].contents { sources.len() as u32 } else { 1 };
        let sets = if placement.pristine.is_empty() { 0 } else { sets };
        assert_eq!(placement.pristine.len(), sets as usize);
        assert!((0..sets).all(|set| uploaded.remove(&(id, set)) == Some(1)), "`{}` is not uploaded once", placement.name);
    }
    assert!(uploaded.is_empty(), "uploads that no tensor has: {uploaded:?}");
    for node in &plan.setup_nodes {
        match &node.cmd {
            Cmd::Fill { dst, pattern } => {
                assert!(matches!(pattern, Word::Const(_)));
                bytes.put(*dst, if dst.offset == 0 { Holds::Guard } else { Holds::Poison });
            }
            Cmd::Copy { src, dst } => {
                let from = bytes.of(*src).to_vec();
                bytes.of(*dst).copy_from_slice(&from);
            }
            Cmd::Launch { .. } => panic!("a launch in the set-up"),
        }
    }
    for (id, placement) in plan.tensors.iter().enumerate() {
        for (set, home) in placement.pristine.iter().enumerate() {
            bytes.all(at(*home, placement.bytes), "pristine", |h| h == Holds::Pristine(id, set as u32));
        }
    }
    for zone in plan.zones.iter().filter(|z| plan.memories[z.at.memory as usize].place != Place::ReadOnly) {
        bytes.all(at(zone.at, zone.bytes), "guard zone after set-up", |h| h == Holds::Guard);
    }
    for node in &plan.start_nodes {
        for (write, slice) in accesses(&node.cmd) {
            let carried = |p: &Placement| p.class == Class::Carried && p.home.is_some_and(|h| at(h, p.bytes) == slice);
            if write {
                let id = plan.tensors.iter().position(carried).expect("the start writes carried tensors alone");
                bytes.put(slice, Holds::Tensor(id));
            }
        }
    }
    for staged in &plan.staged {
        bytes.put(at(staged.at, staged.bytes), Holds::Nothing);
    }
    // What an earlier round left: outputs, scratch and what the host has not yet filled are all stale.
    for placement in plan.tensors.iter().filter(|p| p.class != Class::Carried) {
        if let Some(home) = placement.home {
            bytes.put(at(home, placement.bytes), Holds::Nothing);
        }
    }
    bytes
}

/// Walks one graph with what every byte holds; of rounds that are submitted at once, the first one's part of it.
fn walk(job: &Job, plan: &Plan, set: u32, mode: usize) {
    let nodes = &plan.first_rounds(1, set, mode);
    let mode_index = mode;
    let poison = plan.modes[mode].poison;
    let mut bytes = after_setup(job, plan);
    for fill in &plan.fills {
        bytes.put(at(fill.to, fill.bytes), Holds::Tensor(fill.tensor));
    }
    let class = |id: usize| plan.tensors[id].class;
    let own = |h: Holds, id: usize| {
        h == Holds::Tensor(id)
            || matches!(h, Holds::Pristine(t, s) if t == id && s == if plan.tensors[id].pristine.len() > 1 { set } else { 0 })
    };
    let tensors = 0..plan.tensors.len();
    let restores = tensors.clone().filter(|&id| matches!(class(id), Class::Restored | Class::Cleared)).count();
    let copied = plan.fills.iter().filter(|f| !f.bound).count();
    let poisons: Vec<&Node> = nodes[copied + restores..]
        .iter()
        .take_while(|n| matches!(n.cmd, Cmd::Fill { pattern: Word::Var(v), .. } if v as usize >= job.vars.len()))
        .collect();
    let first = copied + restores + poisons.len();
    if poison == Poison::Full {
        assert_eq!(poisons.len(), plan.poison.len());
    }

    let mut renewed = vec![0; plan.tensors.len()];
    for node in &nodes[..copied + restores] {
        let dst = accesses(&node.cmd).iter().find(|(write, _)| *write).map(|(_, s)| *s).unwrap();
        let id = tensors.clone().find(|&id| plan.tensors[id].home.is_some_and(|h| at(h, plan.tensors[id].bytes) == dst));
        let id = id.expect("what is renewed is one whole tensor");
        match &node.cmd {
            Cmd::Copy { src, .. } => bytes.all(*src, "copied from", |h| own(h, id)),
            Cmd::Fill { pattern, .. } => assert!(class(id) == Class::Cleared && matches!(pattern, Word::Const(_))),
            Cmd::Launch { .. } => panic!("a launch before the steps"),
        }
        bytes.put(dst, Holds::Tensor(id));
        renewed[id] += 1;
    }
    for id in tensors.clone() {
        let copied = plan.fills.iter().any(|f| f.tensor == id && !f.bound);
        let wanted = u32::from(copied || matches!(class(id), Class::Restored | Class::Cleared));
        assert_eq!(renewed[id], wanted, "`{}` ({:?}) is renewed once a round", plan.tensors[id].name, class(id));
    }
    for node in poisons {
        let Cmd::Fill { dst, .. } = &node.cmd else { unreachable!() };
        let id = tensors.clone().find(|&id| plan.tensors[id].home.is_some_and(|h| overlap(at(h, plan.tensors[id].bytes), *dst)));
        assert_eq!(id.map(class), Some(Class::Output));
        bytes.all(*dst, "poisoned", |h| h == Holds::Nothing);
        bytes.put(*dst, Holds::Poison);
    }

    let mut next = first;
    for (index, step) in job.steps.iter().enumerate() {
        let begin = next;
        let staged: Vec<_> = plan.staged.iter().filter(|s| s.step as usize == index).collect();
        for s in &staged {
            let (src, dst) = (place(plan, View { tensor: s.tensor, offset: s.offset, len: s.bytes }, set), at(s.at, s.bytes));
            assert_eq!(nodes[next].cmd, Cmd::Copy { src, dst }, "staged for step {index}");
            let there = bytes.of(src).to_vec();
            bytes.all(dst, "a copy of a view", |h| !matches!(h, Holds::Guard | Holds::Pristine(..)));
            bytes.of(dst).copy_from_slice(&there);
            next += 1;
        }
        assert_eq!(nodes[next].cmd, command(plan, index, &step.action, set), "step {index}");
        next += 1;
        let uses = uses(plan, index, &step.action, set);
        for (_, view, slice) in uses.iter().filter(|(access, ..)| access.reads()) {
            bytes.all(*slice, &format!("step {index} reads `{}`", plan.tensors[view.tensor].name), |h| own(h, view.tensor));
        }
        for (access, view, slice) in uses.into_iter().filter(|(access, ..)| access.writes()) {
            bytes.all(slice, &format!("step {index}, {access:?}"), |h| !matches!(h, Holds::Guard | Holds::Pristine(..)));
            bytes.put(slice, Holds::Tensor(view.tensor));
        }
        for s in staged.iter().filter(|s| s.back) {
            let (dst, src) = (place(plan, View { tensor: s.tensor, offset: s.offset, len: s.bytes }, set), at(s.at, s.bytes));
            assert_eq!(nodes[next].cmd, Cmd::Copy { src, dst }, "put back after step {index}");
            bytes.all(src, "put back", |h| h == Holds::Tensor(s.tensor));
            bytes.all(dst, "written", |h| !matches!(h, Holds::Guard | Holds::Pristine(..)));
            bytes.put(dst, Holds::Tensor(s.tensor));
            next += 1;
        }
        for s in staged {
            // What is staged is forgotten with its step.
            bytes.put(at(s.at, s.bytes), Holds::Nothing);
        }
        for node in begin..next {
            assert_eq!(plan.step_of(mode_index, nodes.len(), job.steps.len(), node), Some(index));
        }
    }
    for node in (0..first).chain(next..nodes.len()) {
        assert_eq!(plan.step_of(mode_index, nodes.len(), job.steps.len(), node), None);
    }

    for node in &nodes[next..] {
        let Cmd::Copy { src, dst } = &node.cmd else { panic!("after the steps there are copies alone") };
        let read = plan.reads.iter().find(|r| at(r.from, r.bytes) == *dst);
        let zone = plan.zones.iter().find(|z| at(z.read, z.bytes) == *dst && at(z.at, z.bytes) == *src);
        match (read, zone) {
            (Some(read), _) => {
                assert_eq!(Some(*src), plan.tensors[read.tensor].home.map(|h| at(h, read.bytes)));
                bytes.all(*src, "read back", |h| h == Holds::Tensor(read.tensor));
                bytes.put(*dst, Holds::Tensor(read.tensor));
            }
            (None, Some(zone)) => {
                assert!(plan.modes[mode].guards);
                bytes.all(at(zone.at, zone.bytes), "a guard", |h| h == Holds::Guard);
                bytes.put(*dst, Holds::Guard);
            }
            (None, None) => panic!("a copy for nobody: {src:?} -> {dst:?}"),
        }
    }
    for read in &plan.reads {
        bytes.all(at(read.from, read.bytes), "what the host reads", |h| h == Holds::Tensor(read.tensor));
    }
    let mode = &plan.modes[mode];
    for zone in plan.zones.iter().filter(|z| mode.guards && (mode.all_guards || z.near)) {
        bytes.all(at(zone.read, zone.bytes), "the guards that the host reads", |h| h == Holds::Guard);
    }
    for (id, placement) in plan.tensors.iter().enumerate() {
        for (set, home) in placement.pristine.iter().enumerate() {
            bytes.all(at(*home, placement.bytes), "pristine at the end", |h| h == Holds::Pristine(id, set as u32));
        }
    }
    // Expectations are computed from the host's bytes as generated: no node writes those of a fill.
    for fill in &plan.fills {
        bytes.all(at(fill.to, fill.bytes), "filled by the host", |h| h == Holds::Tensor(fill.tensor));
        let written = nodes.iter().flat_map(|n| accesses(&n.cmd)).any(|(write, s)| write && overlap(s, at(fill.to, fill.bytes)));
        assert!(!written, "`{}` is written where the host filled it", plan.tensors[fill.tensor].name);
    }
}

/// First and last step in whose time a tensor holds its bytes.
fn life(plan: &Plan, id: usize) -> (u32, u32) {
    match plan.tensors[id].class {
        Class::Scratch => plan.tensors[id].steps.unwrap(),
        _ => (0, u32::MAX),
    }
}

fn layout(job: &Job, plan: &Plan, caps: &Caps) {
    let mut spans: Vec<(Slice, (u32, u32))> = Vec::new();
    for (id, placement) in plan.tensors.iter().enumerate() {
        let of = &job.tensors[id];
        assert_eq!((placement.bytes, placement.spaced), (if of.spaced { of.bytes() / 3 * 4 } else { of.bytes() }, of.spaced));
        assert_eq!(placement.reason.ends_with("; rows of 3 spaced by 4"), of.spaced);
        let homes = placement.home.iter().map(|h| (*h, life(plan, id))).chain(placement.pristine.iter().map(|h| (*h, (0, u32::MAX))));
        for (home, life) in homes {
            assert_eq!(home.offset % caps.alignment, 0);
            spans.push((at(home, placement.bytes), life));
        }
        let on_device = !matches!(placement.class, Class::ByValue | Class::HostOnly | Class::Unused);
        assert_eq!(on_device, placement.home.is_some() || !placement.pristine.is_empty(), "{placement:?}");
        assert_eq!(on_device, placement.steps.is_some());
    }
    for staged in &plan.staged {
        assert_eq!(staged.at.offset % caps.bind_alignment.max(caps.alignment), 0);
        spans.push((at(staged.at, staged.bytes), (staged.step, staged.step)));
    }
    let whole = (0, u32::MAX);
    let homes: Vec<Slice> = spans.iter().map(|(s, _)| *s).collect();
    let elsewhere = |slice: &Slice| !homes.contains(slice);
    spans.extend(plan.fills.iter().map(|f| (at(f.to, f.bytes), whole)).filter(|(s, _)| elsewhere(s)));
    spans.extend(plan.reads.iter().map(|r| (at(r.from, r.bytes), whole)).filter(|(s, _)| elsewhere(s)));
    spans.extend(plan.zones.iter().map(|z| (at(z.read, z.bytes), whole)));
    spans.extend(plan.zones.iter().filter(|z| z.at != z.read).map(|z| (at(z.at, z.bytes), whole)));
    for (i, (a, alive)) in spans.iter().enumerate() {
        let memory = &plan.memories[a.mem.0 as usize];
        assert!(a.offset + a.len <= memory.bytes && a.len > 0);
        for (b, other) in &spans[..i] {
            let together = alive.0 <= other.1 && other.0 <= alive.1;
            assert!(!together || !overlap(*a, *b), "{a:?} and {b:?} are alive at once");
        }
    }
    assert!(plan.memories.iter().all(|m| m.bytes <= caps.largest_alloc));
    assert!(plan.memories.iter().all(|m| caps.unified || !matches!(m.place, Place::Shared | Place::ReadOnly)));
    for zone in &plan.zones {
        let end = |id: usize, from: u64| {
            plan.tensors[id].home.iter().chain(&plan.tensors[id].pristine).any(|h| h.offset + plan.tensors[id].bytes == from)
                || plan.staged.iter().any(|s| s.tensor == id && s.at.offset + s.bytes == from)
        };
        let start = |id: usize, to: u64| {
            plan.tensors[id].home.iter().chain(&plan.tensors[id].pristine).any(|h| h.offset == to)
                || plan.staged.iter().any(|s| s.tensor == id && s.at.offset == to)
        };
        let snapshot = |id: usize| plan.reads.iter().any(|r| r.tensor == id && plan.tensors[id].class == Class::Carried);
        assert!(zone.before.is_none_or(|id| end(id, zone.at.offset) || snapshot(id)));
        assert!(zone.behind.is_none_or(|id| start(id, zone.at.offset + zone.bytes) || snapshot(id)));
    }
    if plan.trust == Trust::Standard {
        // Whatever runs over a tensor that a kernel writes hits a guard, or a tensor that is dead.
        for (id, placement) in plan.tensors.iter().enumerate() {
            let Some(home) = placement.home else { continue };
            assert!(home.offset >= 128 && home.offset + placement.bytes + 128 <= plan.memories[home.memory as usize].bytes);
            let around = Slice { offset: home.offset - 128, ..at(home, placement.bytes + 256) };
            let lives = life(plan, id);
            let apart = |(other, p): (usize, &Placement)| {
                let other_life = life(plan, other);
                let together = lives.0 <= other_life.1 && other_life.0 <= lives.1;
                other == id || !together || p.home.is_none_or(|h| !overlap(around, at(h, p.bytes)))
            };
            assert!(plan.tensors.iter().enumerate().all(apart), "`{}` has a neighbour within 128 bytes", placement.name);
        }
    } else {
        assert!(plan.zones.is_empty());
    }
    for check in &job.checks {
        let reads: Vec<_> = plan.reads.iter().filter(|r| r.tensor == check.tensor).collect();
        assert_eq!(reads.len(), 1);
        assert_eq!(reads[0].bytes, job.tensors[check.tensor].device_bytes());
        if plan.tensors[check.tensor].class == Class::Carried {
            assert_ne!(Some(reads[0].from), plan.tensors[check.tensor].home, "the next round writes it while it is checked");
        }
    }
    assert_eq!(plan.reads.len(), job.checks.len());
}

fn holds(job: &Job, caps: &Caps, options: &Options) {
    let plan = build(job, caps, options).unwrap();
    let turns = (job.rounds.count as u32).div_ceil(plan.schedule.batch);
    assert_eq!(plan.schedule.slots, options.slots.unwrap_or(1).min(turns));
    assert!(plan.rungs.is_empty() && plan.fewer_modes.is_none() == (plan.schedule.batch == 1));
    plan_holds(job, caps, &plan);
}

/// Whether a node copies a guard zone to where the host reads it.
fn is_guard(plan: &Plan, cmd: &Cmd) -> bool {
    let Cmd::Copy { src, .. } = cmd else { return false };
    let from = |home: runjob::plan::Home| home.memory == src.mem.0 && home.offset == src.offset;
    let rounds = 0..plan.schedule.batch;
    plan.zones.iter().any(|zone| zone.at != zone.read && zone.bytes == src.len && rounds.clone().any(|at| from(plan.at(zone.at, at))))
}

/// Every copy of a guard zone comes behind all launches of its list, which may have written there; where rounds share zones,
/// behind those of its round and before those of the next. Returns whether there are any.
fn guards_are_read_last(plan: &Plan, graph: usize, nodes: &[Node]) -> bool {
    let rounds = plan.batches[graph / (plan.sets.max(1) as usize * plan.modes.len())];
    let mut before: Vec<std::collections::BTreeSet<usize>> = Vec::new();
    for node in nodes {
        let all = node.after.iter().flat_map(|&of| before[of as usize].iter().copied().chain([of as usize])).collect();
        before.push(all);
    }
    let round_of = |at: usize| plan.round_of(rounds, nodes.len(), at).0;
    let launches: Vec<usize> = (0..nodes.len()).filter(|&at| matches!(nodes[at].cmd, Cmd::Launch { .. })).collect();
    let guards: Vec<usize> = (0..nodes.len()).filter(|&at| is_guard(plan, &nodes[at].cmd)).collect();
    for &guard in &guards {
        for &launch in &launches {
            match round_of(launch).cmp(&round_of(guard)) {
                order if !plan.by_round() || order.is_eq() => {
                    assert!(before[guard].contains(&launch), "guard {guard} is read before launch {launch}")
                }
                std::cmp::Ordering::Greater => assert!(before[launch].contains(&guard), "launch {launch} before {guard}"),
                _ => {}
            }
        }
    }
    !guards.is_empty()
}

/// What every plan promises, whatever was given up for it.
fn plan_holds(job: &Job, caps: &Caps, plan: &Plan) {
    layout(job, plan, caps);
    assert_eq!(plan.graphs.len(), plan.batches.len() * plan.sets.max(1) as usize * plan.modes.len());
    assert!(plan.graphs.len() as u64 <= runjob::plan::MOST_GRAPHS);
    for (index, nodes) in plan.graphs.iter().chain([&plan.setup_nodes, &plan.start_nodes]).enumerate() {
        let lists: Vec<Vec<u32>> = nodes.iter().map(|n| n.after.clone()).collect();
        let guarded = index < plan.graphs.len() && guards_are_read_last(plan, index, nodes);
        for (at, (list, exact)) in lists.iter().zip(bitmap_oracle(nodes)).enumerate() {
            let more = guarded && (is_guard(plan, &nodes[at].cmd) || plan.by_round() && matches!(nodes[at].cmd, Cmd::Launch { .. }));
            assert!(if more { exact.iter().all(|of| list.contains(of)) } else { *list == exact }, "node {at}: {list:?}, {exact:?}");
        }
        for (write, slice) in nodes.iter().flat_map(|n| accesses(&n.cmd)) {
            let memory = &plan.memories[slice.mem.0 as usize];
            assert!(slice.offset + slice.len <= memory.bytes);
            assert!(!write || memory.place != Place::ReadOnly, "a node writes read-only memory");
        }
        for node in nodes {
            match &node.cmd {
                Cmd::Fill { dst, .. } => assert_eq!(dst.offset % 4, 0),
                Cmd::Launch { .. } => {
                    assert!(accesses(&node.cmd).iter().all(|(_, slice)| slice.offset % caps.bind_alignment == 0), "{:?}", node.cmd);
                }
                Cmd::Copy { .. } => {}
            }
        }
    }
    for set in 0..plan.sets.max(1) {
        for mode in 0..plan.modes.len() {
            walk(job, plan, set, mode);
        }
    }
    for (id, placement) in plan.tensors.iter().enumerate().filter(|(_, p)| p.class == Class::Resident) {
        assert!(placement.home.is_none());
        assert!(plan.fills.iter().all(|f| f.tensor != id), "`{}` is resident and filled", placement.name);
    }
    let copies = |m: &runjob::plan::Memory| if m.per_slot { u64::from(plan.schedule.slots * plan.schedule.lanes) } else { 1 };
    assert_eq!(plan.cost.allocs, plan.memories.iter().map(copies).sum::<u64>());
    let sum = |of: &dyn Fn(Place) -> bool| plan.memories.iter().filter(|m| of(m.place)).map(|m| m.bytes * copies(m)).sum::<u64>();
    assert_eq!(plan.allocated(), sum(&|_| true));
    assert_eq!(plan.cost.device_peak, sum(&|place| caps.unified || place == Place::Device));
    assert!(plan.cost.host_peak >= sum(&|place| place != Place::Device));
    assert_eq!(plan.cost.setup_upload, plan.setup.iter().map(|u| u.bytes).sum::<u64>());
    let launches = job.steps.iter().filter(|s| matches!(s.action, Action::Launch { .. })).count();
    assert_eq!(plan.cost.launches, launches as u64);
}

/// Numbers for a job.
pub fn tape() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(any::<u16>(), 80..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_of_random_jobs_hold(numbers in tape(), aligned: bool, small: bool, bind: bool) {
        let job = jobs::random(&numbers, jobs::Style { aligned, expressions: true });
        for unified in [true, false] {
            let mut caps = caps(unified);
            if small {
                // No memory holds many tensors.
                caps.largest_alloc = 2048;
            }
            if bind {
                (caps.bind_alignment, caps.largest_alloc) = (256, caps.largest_alloc * 2);
            }
            for (slots, trust) in [(1, Trust::Standard), (3, Trust::Standard), (2, Trust::Fast)] {
                holds(&job, &caps, &Options { trust, slots: Some(slots), ..Options::default() });
            }
        }
    }
}

/// The random jobs have what the properties are about.
#[test]
fn random_jobs_have_every_class() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let (mut shared, mut steps, mut spaced) = (0, 0, 0);
    for _ in 0..200 {
        let numbers = tape().new_tree(&mut runner).unwrap().current();
        let job = jobs::random(&numbers, jobs::Style { aligned: false, expressions: true });
        let plan = build(&job, &caps(true), &Options::default()).unwrap();
        for placement in &plan.tensors {
            *seen.entry(placement.class.name()).or_default() += 1;
            spaced += u32::from(placement.spaced && placement.steps.is_some());
        }
        let homes: Vec<Slice> = plan.tensors.iter().filter_map(|p| p.home.map(|h| at(h, p.bytes))).collect();
        shared += u32::from((1..homes.len()).any(|i| homes[..i].iter().any(|h| overlap(*h, homes[i]))));
        steps += job.steps.len();
    }
    let classes = ["resident", "restored", "cleared", "streamed", "carried", "output", "scratch", "by value", "host only", "unused"];
    assert!(classes.iter().all(|c| seen.get(c).is_some_and(|n| *n >= 10)), "{seen:?}");
    assert!(shared >= 10, "{shared} jobs whose scratch shares memory");
    assert!(steps > 800, "{steps} steps");
    assert!(spaced > 100, "{spaced} tensors on the device have spaced rows");
}

#[test]
fn windows_of_poison_cover_only_outputs_that_are_not_yet_written() {
    use runjob::tensor::Dtype;
    let source = runjob::data::Source::Uniform { low: 0.0, high: 1.0 };
    let n = 300_000;
    let tensors = vec![jobs::tensor("x", Dtype::F32, n, jobs::drawn(source)), jobs::tensor("y", Dtype::F32, n, Contents::None)];
    let whole = |tensor| View { tensor, offset: 0, len: n * 4 };
    let checks = vec![jobs::check(1, vec![jobs::want(&tensors, 1, "x")])];
    let job = jobs::job(tensors, Vec::new(), vec![Action::Copy { src: whole(0), dst: whole(1) }], checks, 200, 0);
    for unified in [true, false] {
        let plan = build(&job, &caps(unified), &Options { slots: Some(3), ..Options::default() }).unwrap();
        assert_eq!(plan.modes.len(), 17);
        for mode in [0, 1, 9, 16] {
            walk(&job, &plan, 0, mode);
        }
        let full: Vec<u64> = (0..200).filter(|&r| plan.modes[plan.mode(r)].poison == Poison::Full).collect();
        assert_eq!(full, [0, 1, 2, 63, 127, 191, 199], "each slot's first round, every 64th, and the last");
        let windows: std::collections::BTreeSet<usize> = (3..63).map(|r| plan.mode(r)).collect();
        assert_eq!(windows.len(), 16, "every window has its turn");
    }
}
