//! Addresses in one memory: tensors whose lives overlap never share bytes, and guard zones lie between them.

/// Something that needs bytes from its first to its last step, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Life {
    pub bytes: u64,
    pub first: u32,
    pub last: u32,
}

/// Offsets in the order of the lives, and the size of the memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub offsets: Vec<u64>,
    pub bytes: u64,
}

/// Above this many lives the quadratic placement by size is not tried.
const FEW: usize = 1000;

/// Lays lives out with at least `guard` bytes between neighbours and at both ends. Of two placements, by size
/// and by time, the smaller is taken.
pub(super) fn layout(lives: &[Life], alignment: u64, guard: u64) -> Layout {
    if lives.is_empty() {
        return Layout { offsets: Vec::new(), bytes: 0 };
    }
    let by_time = by_time(lives, alignment, guard);
    if lives.len() > FEW {
        return by_time;
    }
    let by_size = by_size(lives, alignment, guard);
    if by_size.bytes <= by_time.bytes { by_size } else { by_time }
}

/// Bytes from one life's offset to where the next may start: the tensor, a guard, and what alignment wants.
fn stride(bytes: u64, alignment: u64, guard: u64) -> u64 {
    (bytes + guard).next_multiple_of(alignment)
}

/// Largest first, each at the lowest offset that is free during its life.
fn by_size(lives: &[Life], alignment: u64, guard: u64) -> Layout {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lives[i].bytes), lives[i].first, i));
    let lead = guard.next_multiple_of(alignment);
    let mut offsets = vec![0; lives.len()];
    let mut placed: Vec<(u64, u64, usize)> = Vec::new();
    let mut end = lead;
    for i in order {
        let life = lives[i];
        let need = stride(life.bytes, alignment, guard);
        let mut at = lead;
        for &(start, stop, other) in &placed {
            let together = life.first <= lives[other].last && lives[other].first <= life.last;
            if together && at < stop {
                if start >= at + need {
                    break;
                }
                at = at.max(stop);
            }
        }
        offsets[i] = at;
        let slot = placed.partition_point(|&(start, _, _)| start <= at);
        placed.insert(slot, (at, at + need, i));
        end = end.max(at + need);
    }
    Layout { offsets, bytes: end }
}

/// In the order of their first step, each in the smallest hole that holds it: linear in the number of lives but for a tree.
fn by_time(lives: &[Life], alignment: u64, guard: u64) -> Layout {
    use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (lives[i].first, std::cmp::Reverse(lives[i].bytes), i));
    let lead = guard.next_multiple_of(alignment);
    let mut offsets = vec![0; lives.len()];
    let mut end = lead;
    let mut holes_by_start: BTreeMap<u64, u64> = BTreeMap::new();
    let mut holes_by_size: BTreeSet<(u64, u64)> = BTreeSet::new();
    let mut alive: BinaryHeap<std::cmp::Reverse<(u32, u64, u64)>> = BinaryHeap::new();
    for i in order {
        let life = lives[i];
        while let Some(&std::cmp::Reverse((last, start, len))) = alive.peek() {
            if last >= life.first {
                break;
            }
            alive.pop();
            let (mut start, mut len) = (start, len);
            if let Some((&before, &before_len)) = holes_by_start.range(..start).next_back()
                && before + before_len == start
            {
                holes_by_start.remove(&before);
                holes_by_size.remove(&(before_len, before));
                (start, len) = (before, before_len + len);
            }
            if let Some(&behind_len) = holes_by_start.get(&(start + len)) {
                holes_by_start.remove(&(start + len));
                holes_by_size.remove(&(behind_len, start + len));
                len += behind_len;
            }
            holes_by_start.insert(start, len);
            holes_by_size.insert((len, start));
        }
        let need = stride(life.bytes, alignment, guard);
        let hole = holes_by_size.range((need, 0)..).next().copied();
        let at = match hole {
            Some((len, start)) => {
                holes_by_start.remove(&start);
                holes_by_size.remove(&(len, start));
                if len > need {
                    holes_by_start.insert(start + need, len - need);
                    holes_by_size.insert((len - need, start + need));
                }
                start
            }
            None => {
                let at = end;
                end += need;
                at
            }
        };
        offsets[i] = at;
        alive.push(std::cmp::Reverse((life.last, at, need)));
    }
    Layout { offsets, bytes: end }
}

/// The ranges of a memory that no life ever covers, with the lives that end and start at their ends.
pub(super) fn gaps(lives: &[Life], layout: &Layout) -> Vec<(u64, u64, Option<usize>, Option<usize>)> {
    let mut spans: Vec<(u64, u64, usize)> = lives.iter().zip(&layout.offsets).enumerate().map(|(i, (l, &o))| (o, o + l.bytes, i)).collect();
    spans.sort_unstable();
    let mut gaps = Vec::new();
    let (mut end, mut before) = (0, None);
    for &(start, stop, i) in &spans {
        if start > end {
            gaps.push((end, start, before, Some(i)));
        }
        if stop > end {
            (end, before) = (stop, Some(i));
        }
    }
    if layout.bytes > end {
        gaps.push((end, layout.bytes, before, None));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(lives: &[Life], layout: &Layout, alignment: u64, guard: u64) {
        for (i, a) in lives.iter().enumerate() {
            let start = layout.offsets[i];
            assert_eq!(start % alignment, 0);
            assert!(start >= guard && start + a.bytes + guard <= layout.bytes);
            for (j, b) in lives.iter().enumerate().skip(i + 1) {
                let other = layout.offsets[j];
                let together = a.first <= b.last && b.first <= a.last;
                let apart = start + a.bytes + guard <= other || other + b.bytes + guard <= start;
                assert!(!together || apart, "{i} {j} {layout:?}");
            }
        }
        for (start, stop, ..) in gaps(lives, layout) {
            assert!(lives.iter().zip(&layout.offsets).all(|(l, &o)| stop <= o || o + l.bytes <= start));
        }
    }

    proptest! {
        #[test]
        fn lives_that_overlap_share_no_byte(raw in prop::collection::vec((1u64..300, 0u32..20, 0u32..8), 1..40)) {
            let lives: Vec<Life> = raw.iter().map(|&(bytes, first, more)| Life { bytes, first, last: first + more }).collect();
            for (alignment, guard) in [(64, 128), (256, 0), (16, 20)] {
                check(&lives, &by_size(&lives, alignment, guard), alignment, guard);
                check(&lives, &by_time(&lives, alignment, guard), alignment, guard);
                check(&lives, &layout(&lives, alignment, guard), alignment, guard);
            }
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let lives: Vec<Life> = (0..20).map(|i| Life { bytes: 4096, first: i, last: i + 1 }).collect();
        assert_eq!(layout(&lives, 64, 128).bytes, 128 + 2 * (4096 + 128));
    }
}
