//! The order of nodes: read-after-write, write-after-write and write-after-read over byte ranges, exactly; and, where a
//! person asks, the bytes that each edge is there for.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::device::{Arg, Cmd, Mem, Slice};

/// One byte range that a command uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Access {
    slice: Slice,
    read: bool,
    write: bool,
}

/// How two commands meet in the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HazardKind {
    ReadAfterWrite,
    WriteAfterRead,
    WriteAfterWrite,
}

impl HazardKind {
    pub fn name(self) -> &'static str {
        match self {
            HazardKind::ReadAfterWrite => "read after write",
            HazardKind::WriteAfterRead => "write after read",
            HazardKind::WriteAfterWrite => "write after write",
        }
    }
}

/// Bytes for which a command waits for an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Hazard {
    /// The earlier command.
    pub from: u32,
    pub kind: HazardKind,
    pub bytes: Slice,
}

fn accesses(cmd: &Cmd) -> Vec<Access> {
    match cmd {
        Cmd::Copy { src, dst } => {
            vec![Access { slice: *src, read: true, write: false }, Access { slice: *dst, read: false, write: true }]
        }
        Cmd::Fill { dst, .. } => vec![Access { slice: *dst, read: false, write: true }],
        Cmd::Launch { args, .. } => args
            .iter()
            .filter_map(|arg| match arg {
                Arg::In(slice) => Some(Access { slice: *slice, read: true, write: false }),
                Arg::Out(slice) => Some(Access { slice: *slice, read: false, write: true }),
                Arg::Inout(slice) => Some(Access { slice: *slice, read: true, write: true }),
                Arg::Scalar(_) | Arg::Struct(_) | Arg::Null => None,
            })
            .collect(),
    }
}

/// Bytes that were last written by one node and read by the same nodes since.
#[derive(Clone, Debug, Default)]
struct Segment {
    end: u64,
    writer: Option<u32>,
    readers: Vec<u32>,
}

/// Edges that a list of commands may have.
pub const MOST_EDGES: usize = 16 << 20;

/// For every command, the earlier ones it must wait for, ascending: the last writer of each byte it uses, and the
/// readers since of each byte it writes. Nothing transitive is added or removed. `None` where that is more than
/// [`MOST_EDGES`]: many readers of one place, each part of which is then written by many.
pub fn after_lists(cmds: &[&Cmd]) -> Option<Vec<Vec<u32>>> {
    let mut sweep = Sweep::new(cmds);
    let mut lists = Vec::with_capacity(cmds.len());
    let mut edges = 0;
    for node in 0..cmds.len() as u32 {
        let mut after: Vec<u32> = Vec::new();
        sweep.node(node, |met, _, _, _| after.push(met));
        after.sort_unstable();
        after.dedup();
        edges += after.len();
        if edges > MOST_EDGES {
            return None;
        }
        lists.push(after);
    }
    Some(lists)
}

/// Adds edges that a spec asks for to those of a node, ascending and each once.
pub(super) fn add_edges(after: &mut Vec<u32>, asked: impl Iterator<Item = u32>) {
    after.extend(asked);
    after.sort_unstable();
    after.dedup();
}

/// The bytes for which one of the first commands of a list waits for earlier ones, by command, kind and address.
pub fn explain(cmds: &[&Cmd], count: usize) -> Vec<Vec<Hazard>> {
    let mut sweep = Sweep::new(cmds);
    let explained = (0..cmds.len().min(count) as u32).map(|node| {
        let mut hazards: Vec<Hazard> = Vec::new();
        sweep.node(node, |from, kind, mem, (start, end)| {
            hazards.push(Hazard { from, kind, bytes: Slice { mem, offset: start, len: end - start } });
        });
        hazards.sort_by_key(|h| (h.from, h.kind, h.bytes.mem, h.bytes.offset));
        hazards.dedup();
        hazards.dedup_by(|later, earlier| {
            let continues = (later.from, later.kind, later.bytes.mem) == (earlier.from, earlier.kind, earlier.bytes.mem)
                && later.bytes.offset <= earlier.bytes.offset + earlier.bytes.len;
            if continues {
                let end = (later.bytes.offset + later.bytes.len).max(earlier.bytes.offset + earlier.bytes.len);
                earlier.bytes.len = end - earlier.bytes.offset;
            }
            continues
        });
        hazards
    });
    explained.collect()
}

/// What every byte was last used by, command after command.
struct Sweep {
    used: Vec<Vec<Access>>,
    /// By memory: the ranges that anything writes. What nothing writes orders nothing, however often it is read.
    written: HashMap<Mem, Vec<(u64, u64)>>,
    memories: HashMap<Mem, BTreeMap<u64, Segment>>,
}

impl Sweep {
    fn new(cmds: &[&Cmd]) -> Sweep {
        let used: Vec<Vec<Access>> = cmds.iter().map(|cmd| accesses(cmd)).collect();
        let mut written: HashMap<Mem, Vec<(u64, u64)>> = HashMap::new();
        for access in used.iter().flatten().filter(|a| a.write) {
            written.entry(access.slice.mem).or_default().push((access.slice.offset, access.slice.offset + access.slice.len));
        }
        for ranges in written.values_mut() {
            ranges.sort_unstable();
            let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
            for &(start, end) in ranges.iter() {
                match merged.last_mut() {
                    Some(last) if start <= last.1 => last.1 = last.1.max(end),
                    _ => merged.push((start, end)),
                }
            }
            *ranges = merged;
        }
        Sweep { used, written, memories: HashMap::new() }
    }

    /// Goes on to a command, and tells of each earlier one that it meets: how, and in which bytes.
    fn node(&mut self, node: u32, mut met: impl FnMut(u32, HazardKind, Mem, (u64, u64))) {
        for access in &self.used[node as usize] {
            let mem = access.slice.mem;
            let Some(ranges) = self.written.get(&mem) else { continue };
            let segments = self.memories.entry(mem).or_default();
            let (start, end) = (access.slice.offset, access.slice.offset + access.slice.len);
            let first = ranges.partition_point(|&(_, e)| e <= start);
            for &(from, to) in ranges[first..].iter().take_while(|&&(from, _)| from < end) {
                touch(segments, start.max(from), end.min(to), access, node, &mut |other, kind, bytes| {
                    if other != node {
                        met(other, kind, mem, bytes);
                    }
                });
            }
        }
    }
}

fn touch(
    segments: &mut BTreeMap<u64, Segment>,
    start: u64,
    end: u64,
    access: &Access,
    node: u32,
    met: &mut impl FnMut(u32, HazardKind, (u64, u64)),
) {
    split(segments, start);
    split(segments, end);
    let mut at = start;
    let mut fresh = Vec::new();
    for (&from, segment) in segments.range_mut(start..end) {
        if from > at {
            fresh.push((at, from));
        }
        at = segment.end;
        let bytes = (from, segment.end);
        if let Some(writer) = segment.writer {
            if access.read {
                met(writer, HazardKind::ReadAfterWrite, bytes);
            }
            if access.write {
                met(writer, HazardKind::WriteAfterWrite, bytes);
            }
        }
        if access.write {
            segment.readers.iter().for_each(|&reader| met(reader, HazardKind::WriteAfterRead, bytes));
            segment.writer = Some(node);
            segment.readers.clear();
        } else if segment.readers.last() != Some(&node) {
            segment.readers.push(node);
        }
    }
    if at < end {
        fresh.push((at, end));
    }
    for (from, to) in fresh {
        let (writer, readers) = if access.write { (Some(node), Vec::new()) } else { (None, vec![node]) };
        segments.insert(from, Segment { end: to, writer, readers });
    }
    if access.write {
        // One writer, no readers: its segments are one again, so that their number stays that of the live ranges.
        let inner: Vec<u64> = segments.range(start..end).map(|(&from, _)| from).skip(1).collect();
        for from in inner {
            segments.remove(&from);
        }
        if let Some(segment) = segments.get_mut(&start) {
            segment.end = end;
        }
    }
}

/// Makes `at` a border between segments.
fn split(segments: &mut BTreeMap<u64, Segment>, at: u64) {
    if let Some((&from, segment)) = segments.range_mut(..at).next_back()
        && segment.end > at
    {
        let behind = segment.clone();
        segment.end = at;
        debug_assert!(from < at);
        segments.insert(at, behind);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::{Kernel, NO_OFFSET, Word};

    /// The same by a map of single bytes: the definition, slowly.
    fn oracle(cmds: &[&Cmd]) -> Vec<Vec<u32>> {
        let mut bytes: HashMap<(u32, u64), (Option<u32>, Vec<u32>)> = HashMap::new();
        let mut lists = Vec::new();
        for (node, cmd) in cmds.iter().enumerate() {
            let node = node as u32;
            let mut after = Vec::new();
            for access in accesses(cmd) {
                for byte in access.slice.offset..access.slice.offset + access.slice.len {
                    let (writer, readers) = bytes.entry((access.slice.mem.0, byte)).or_default();
                    after.extend(*writer);
                    if access.write {
                        after.append(readers);
                        *writer = Some(node);
                    } else {
                        readers.push(node);
                    }
                }
            }
            after.sort_unstable();
            after.dedup();
            after.retain(|&a| a != node);
            lists.push(after);
        }
        lists
    }

    /// For every command the earlier ones that it meets, how, and in which single bytes.
    fn reasons(cmds: &[&Cmd]) -> Vec<Vec<(u32, HazardKind, Mem, u64)>> {
        let mut bytes: HashMap<(Mem, u64), (Option<u32>, Vec<u32>)> = HashMap::new();
        let mut all = Vec::new();
        for (node, cmd) in cmds.iter().enumerate() {
            let node = node as u32;
            let mut met = std::collections::BTreeSet::new();
            let uses: Vec<(Slice, bool, bool)> = match cmd {
                Cmd::Copy { src, dst } => vec![(*src, true, false), (*dst, false, true)],
                Cmd::Fill { dst, .. } => vec![(*dst, false, true)],
                Cmd::Launch { args, .. } => args
                    .iter()
                    .filter_map(|arg| match arg {
                        Arg::In(s) => Some((*s, true, false)),
                        Arg::Out(s) => Some((*s, false, true)),
                        Arg::Inout(s) => Some((*s, true, true)),
                        _ => None,
                    })
                    .collect(),
            };
            for (slice, read, write) in uses {
                for byte in slice.offset..slice.offset + slice.len {
                    let (writer, readers) = bytes.entry((slice.mem, byte)).or_default();
                    for &w in writer.iter() {
                        if read {
                            met.insert((w, HazardKind::ReadAfterWrite, slice.mem, byte));
                        }
                        if write {
                            met.insert((w, HazardKind::WriteAfterWrite, slice.mem, byte));
                        }
                    }
                    if write {
                        met.extend(readers.drain(..).map(|r| (r, HazardKind::WriteAfterRead, slice.mem, byte)));
                        *writer = Some(node);
                    } else {
                        readers.push(node);
                    }
                }
            }
            all.push(met.into_iter().filter(|m| m.0 != node).collect());
        }
        all
    }

    fn slice() -> impl Strategy<Value = Slice> {
        (0u32..2, 0u64..40, 1u64..24).prop_map(|(mem, offset, len)| Slice { mem: Mem(mem), offset, len })
    }

    fn cmd() -> impl Strategy<Value = Cmd> {
        let arg = (0u8..3, slice()).prop_map(|(kind, slice)| match kind {
            0 => Arg::In(slice),
            1 => Arg::Out(slice),
            _ => Arg::Inout(slice),
        });
        prop_oneof![
            (slice(), slice()).prop_map(|(src, dst)| Cmd::Copy { src, dst }),
            slice().prop_map(|dst| Cmd::Fill { dst, pattern: Word::Const(0) }),
            prop::collection::vec(arg, 0..4).prop_map(|args| Cmd::Launch {
                kernel: Kernel(0),
                grid: [Word::Const(1); 3],
                offset: NO_OFFSET,
                args
            }),
        ]
    }

    proptest! {
        #[test]
        fn edges_equal_those_of_a_byte_map(cmds in prop::collection::vec(cmd(), 0..40)) {
            let cmds: Vec<&Cmd> = cmds.iter().collect();
            prop_assert_eq!(after_lists(&cmds), Some(oracle(&cmds)));
        }

        #[test]
        fn reasons_of_edges_equal_those_of_a_byte_map(cmds in prop::collection::vec(cmd(), 0..40)) {
            let cmds: Vec<&Cmd> = cmds.iter().collect();
            let byte_of = |h: &Hazard| (h.bytes.offset..h.bytes.offset + h.bytes.len).map(|b| (h.from, h.kind, h.bytes.mem, b)).collect::<Vec<_>>();
            let explained = explain(&cmds, cmds.len());
            let lists: Vec<Vec<u32>> = explained.iter().map(|hazards| {
                let mut from: Vec<u32> = hazards.iter().map(|h| h.from).collect();
                from.dedup();
                from
            }).collect();
            prop_assert_eq!(&lists, &oracle(&cmds));
            for (hazards, wanted) in explained.iter().zip(reasons(&cmds)) {
                let mut found: Vec<_> = hazards.iter().flat_map(byte_of).collect();
                found.sort_unstable();
                prop_assert_eq!(found, wanted);
                for pair in hazards.windows(2) {
                    let apart = pair[0].bytes.offset + pair[0].bytes.len < pair[1].bytes.offset;
                    prop_assert!(apart || (pair[0].from, pair[0].kind, pair[0].bytes.mem) != (pair[1].from, pair[1].kind, pair[1].bytes.mem));
                }
            }
            prop_assert_eq!(explain(&cmds, 3), &explained[..cmds.len().min(3)]);
        }
    }

    #[test]
    fn a_long_list_of_readers_stays_linear() {
        let x = Slice { mem: Mem(0), offset: 0, len: 1 << 20 };
        let cmds: Vec<Cmd> = (0..50_000u64)
            .map(|i| Cmd::Copy { src: Slice { offset: (i % 1000) * 8, len: 64, ..x }, dst: Slice { mem: Mem(1), offset: i * 64, len: 64 } })
            .collect();
        let lists = after_lists(&cmds.iter().collect::<Vec<_>>()).unwrap();
        assert!(lists.iter().all(Vec::is_empty));
    }

    /// Readers of the whole, then writers of its parts: an edge from each writer to each reader.
    #[test]
    fn more_edges_than_memory_is_no_list() {
        let part = |mem, offset, len| Slice { mem: Mem(mem), offset, len };
        let reads = (0..6000u64).map(|i| Cmd::Copy { src: part(0, 0, 1 << 16), dst: part(1, i << 16, 1 << 16) });
        let writes = (0..6000u64).map(|i| Cmd::Fill { dst: part(0, i * 8, 8), pattern: Word::Const(0) });
        let cmds: Vec<Cmd> = reads.chain(writes).collect();
        assert_eq!(after_lists(&cmds.iter().collect::<Vec<_>>()), None);
    }
}
