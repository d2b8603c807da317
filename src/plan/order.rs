//! The order of nodes: read-after-write, write-after-write and write-after-read over byte ranges, exactly.

use std::collections::{BTreeMap, HashMap};

use crate::device::{Arg, Cmd, Slice};

/// One byte range that a command uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Access {
    slice: Slice,
    write: bool,
}

fn accesses(cmd: &Cmd) -> Vec<Access> {
    match cmd {
        Cmd::Copy { src, dst } => vec![Access { slice: *src, write: false }, Access { slice: *dst, write: true }],
        Cmd::Fill { dst, .. } => vec![Access { slice: *dst, write: true }],
        Cmd::Launch { args, .. } => args.iter().filter_map(Arg::slice).map(|(slice, write)| Access { slice, write }).collect(),
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
    let used: Vec<Vec<Access>> = cmds.iter().map(|cmd| accesses(cmd)).collect();
    // Bytes that nothing writes order nothing, however often they are read.
    let mut written: HashMap<u32, Vec<(u64, u64)>> = HashMap::new();
    for access in used.iter().flatten().filter(|a| a.write) {
        written.entry(access.slice.mem.0).or_default().push((access.slice.offset, access.slice.offset + access.slice.len));
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
    let mut memories: HashMap<u32, BTreeMap<u64, Segment>> = HashMap::new();
    let mut lists = Vec::with_capacity(cmds.len());
    let mut edges = 0;
    for (node, accesses) in used.iter().enumerate() {
        let node = node as u32;
        let mut after: Vec<u32> = Vec::new();
        for access in accesses {
            let Some(ranges) = written.get(&access.slice.mem.0) else { continue };
            let segments = memories.entry(access.slice.mem.0).or_default();
            let (start, end) = (access.slice.offset, access.slice.offset + access.slice.len);
            let first = ranges.partition_point(|&(_, e)| e <= start);
            for &(from, to) in ranges[first..].iter().take_while(|&&(from, _)| from < end) {
                touch(segments, start.max(from), end.min(to), access.write, node, &mut after);
            }
        }
        after.sort_unstable();
        after.dedup();
        after.retain(|&a| a != node);
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

fn touch(segments: &mut BTreeMap<u64, Segment>, start: u64, end: u64, write: bool, node: u32, after: &mut Vec<u32>) {
    split(segments, start);
    split(segments, end);
    let mut at = start;
    let mut fresh = Vec::new();
    for (&from, segment) in segments.range_mut(start..end) {
        if from > at {
            fresh.push((at, from));
        }
        at = segment.end;
        after.extend(segment.writer);
        if write {
            after.extend(&segment.readers);
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
        let (writer, readers) = if write { (Some(node), Vec::new()) } else { (None, vec![node]) };
        segments.insert(from, Segment { end: to, writer, readers });
    }
    if write {
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
    use crate::device::{Kernel, Mem, NO_OFFSET, Word};

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
