//! Lists of several nodes: what they move, in which order, again and again; and what is refused.

use super::*;

fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytes)
}

pub(super) fn copies_go_in_all_directions(bench: &mut Bench<'_>) {
    let mut places = vec![Place::Device, Place::Upload, Place::Readback];
    if bench.device.caps().unified {
        places.push(Place::Shared);
    }
    for &from in &places {
        for &to in &places {
            for len in [1usize, 3, 255, 4096, 70_001] {
                let (a, b) = (bench.device.alloc(from, len as u64 + 5).unwrap(), bench.device.alloc(to, len as u64 + 9).unwrap());
                let start = bench.put(&numbered(len + 5));
                bench.run(&[copy(all(start, len + 5), all(a, len + 5)), after(copy(part(a, 5, len as u64), part(b, 9, len as u64)), 0)]);
                assert_eq!(bench.get(part(b, 9, len as u64)), numbered(len + 5)[5..], "{from:?} to {to:?}, {len} bytes");
            }
        }
    }
}

fn after(node: Node, index: u32) -> Node {
    Node { after: vec![index], ..node }
}

/// Upload, two launches of fixed arguments and a read-back: what a driver can keep as one piece.
pub(super) fn a_graph_is_replayed_with_data_that_changes(bench: &mut Bench<'_>) {
    let Some(kernel) = bench.load(Probe::Step) else { return };
    for queue in [Queue(0), Queue(1), Queue(2)] {
        let (up, down) = (bench.device.alloc(Place::Upload, 8).unwrap(), bench.device.alloc(Place::Readback, 8).unwrap());
        let y = bench.put(&[0; 8]);
        let mut nodes = vec![
            copy(all(up, 8), all(y, 8)),
            step(kernel, y, Word::Const(3), Word::Const(1)),
            step(kernel, y, Word::Const(5), Word::Const(2)),
            fill(part(y, 4, 4), Word::Const(0x0102_0304)),
            copy(all(y, 8), all(down, 8)),
        ];
        for (index, node) in nodes.iter_mut().enumerate().skip(1) {
            node.after = vec![index as u32 - 1];
        }
        let graph = bench.device.record(&nodes).unwrap();
        for round in 0..50u32 {
            bench.write(up, &[round.to_le_bytes(), [9; 4]].concat());
            let point = bench.device.replay(queue, &[], graph, &[]).unwrap();
            bench.device.wait(point).unwrap();
            let mapped = bench.device.map(down).unwrap();
            let got = u32s(&mapped);
            bench.device.unmap(mapped).unwrap();
            assert_eq!(got, [(round * 3 + 1) * 5 + 2, 0x0102_0304], "{queue:?}, round {round}");
        }
    }
}

pub(super) fn many_small_launches_run_in_order(bench: &mut Bench<'_>) {
    let Some(kernel) = bench.load(Probe::Step) else { return };
    let y = bench.put(&[0; 4]);
    let nodes: Vec<Node> = (0..300u32)
        .map(|i| {
            let node = step(kernel, y, Word::Const(3), Word::Const(u64::from(i % 7)));
            if i == 0 { node } else { after(node, i - 1) }
        })
        .collect();
    let graph = bench.device.record(&nodes).unwrap();
    let mut want = 0u32;
    for _ in 0..5 {
        let point = bench.device.replay(Queue(1), &[], graph, &[]).unwrap();
        bench.device.wait(point).unwrap();
        want = (0..300u32).fold(want, |y, i| y.wrapping_mul(3).wrapping_add(i % 7));
        assert_eq!(bench.get_u32(y), want);
    }
}

/// A device that runs things in other orders, with kernel and memory for `y`.
fn chaotic(bench: &Bench<'_>, seed: u64) -> Option<(Chaos, Kernel, Mem)> {
    let source = (bench.suite.kernel)(Probe::Step)?;
    let mut device = Chaos::new((bench.suite.open)(), ChaosOptions { seed, fail: None });
    // SAFETY: the probes keep to their arguments.
    let kernel = unsafe { device.load(&source) }.unwrap();
    let y = device.alloc(Place::Device, 4).unwrap();
    Some((device, kernel, y))
}

fn read(device: &mut Chaos, y: Mem, behind: &[Point]) -> u32 {
    let down = device.alloc(Place::Readback, 4).unwrap();
    let point = device.submit(Queue(0), behind, &[copy(all(y, 4), all(down, 4))]).unwrap();
    device.wait(point).unwrap();
    let mapped = device.map(down).unwrap();
    let got = u32s(&mapped)[0];
    device.unmap(mapped).unwrap();
    got
}

const SEEDS: u64 = 12;

pub(super) fn an_edge_that_is_left_out_is_seen_under_chaos(bench: &mut Bench<'_>) {
    let mut seen = [0; 2];
    for seed in 0..SEEDS {
        for dropped in [false, true] {
            let Some((mut device, kernel, y)) = chaotic(bench, seed) else { return };
            let mut nodes = vec![fill(all(y, 4), Word::Const(1))];
            for i in 0..4u32 {
                let node = step(kernel, y, Word::Const(3), Word::Const(u64::from(i)));
                nodes.push(if dropped && i == 2 { node } else { after(node, i) });
            }
            let point = device.submit(Queue(0), &[], &nodes).unwrap();
            let want = (0..4u32).fold(1, |y, i| y * 3 + i);
            seen[usize::from(dropped)] += u32::from(read(&mut device, y, &[point]) != want);
        }
    }
    assert_eq!(seen[0], 0, "all edges are there");
    assert!(seen[1] > 0, "an edge is left out");
}

pub(super) fn a_wait_that_is_left_out_is_seen_under_chaos(bench: &mut Bench<'_>) {
    let mut seen = [0; 2];
    for seed in 0..SEEDS {
        for dropped in [false, true] {
            let Some((mut device, kernel, y)) = chaotic(bench, seed) else { return };
            let mut last = vec![device.submit(Queue(0), &[], &[fill(all(y, 4), Word::Const(1))]).unwrap()];
            for i in 0..4u32 {
                let before = if dropped && i == 2 { Vec::new() } else { std::mem::take(&mut last) };
                let node = step(kernel, y, Word::Const(3), Word::Const(u64::from(i)));
                last.push(device.submit(Queue(1 + i), &before, &[node]).unwrap());
            }
            let want = (0..4u32).fold(1, |y, i| y * 3 + i);
            seen[usize::from(dropped)] += u32::from(read(&mut device, y, &last) != want);
        }
    }
    assert_eq!(seen[0], 0, "all waits are there");
    assert!(seen[1] > 0, "a wait is left out");
}

/// Not one that fills the machine: what is refused is refused by its size.
pub(super) fn an_allocation_past_the_largest_is_refused(bench: &mut Bench<'_>) {
    let limit = bench.device.caps().largest_alloc;
    for place in [Place::Device, Place::Upload] {
        match bench.device.alloc(place, limit + 1) {
            Err(DeviceError::OutOfMemory { bytes, available, .. }) => assert!(bytes == limit + 1 && available <= limit),
            other => panic!("{place:?}: {other:?}"),
        }
    }
    // What was refused takes nothing.
    let mem = bench.put(&numbered(64));
    assert_eq!(bench.get(all(mem, 64)), numbered(64));
}

pub(super) fn kernels_that_do_not_build_say_why(bench: &mut Bench<'_>) {
    let mut refused = |probe| {
        let kernel = (bench.suite.kernel)(probe)?;
        // SAFETY: it is not run.
        match unsafe { bench.device.load(&kernel) } {
            Err(DeviceError::Build { kernel: name, message, log }) => {
                assert_eq!(name, kernel.name);
                Some(format!("{message}\n{log}"))
            }
            other => panic!("{probe:?}: {other:?}"),
        }
    };
    if let Some(text) = refused(Probe::Broken) {
        assert!(text.contains("nowhere"), "{text}");
    }
    if let Some(text) = refused(Probe::Mismatch) {
        assert!(
            text.contains("disagrees with `params`")
                && (text.contains("float") || text.contains("f32"))
                && (text.contains("uint") || text.contains("unsigned int")),
            "{text}"
        );
    }
}
