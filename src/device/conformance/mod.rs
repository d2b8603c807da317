//! What every backend must do: one list of cases, run against a way to open the device and a source for each probe.

mod lists;

use super::*;
use crate::tensor::{Dtype, Number, Param};

/// Kernels that the cases launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probe {
    /// `in f32 x, inout f32 y, f32 a, u32 n`: y += a * x.
    Axpy,
    /// `inout u32 y, u32 a, u32 b`: y\[0\] = y\[0\] * a + b.
    Step,
    /// `out u32 y`: element `x + gx * (y + gy * z)` of a grid gets `1 + x + 100 * y + 10000 * z`.
    Where,
    /// `out T y, T s`: y\[0\] = s.
    Scalar(Dtype),
    /// `out u32 y, struct mixed { u8 a, u32 b, u16 c } p, null`: y\[0..3\] = a, b, c; y\[3\] = 1.
    Struct,
    /// `out u32 y`: y\[d\] = the launch's offset in dimension d. Only where launches have one.
    Offset,
    /// Source that no compiler takes, which names `nowhere`.
    Broken,
    /// The source of `Step` under parameters that are not its own: `inout f32 y, u32 a, u32 b`.
    Mismatch,
}

/// A backend under test. `kernel` gives `None` for what it cannot run.
pub(crate) struct Suite<'a> {
    pub open: &'a dyn Fn() -> Box<dyn Device>,
    pub kernel: &'a dyn Fn(Probe) -> Option<KernelSource>,
}

/// The parameters of a probe.
pub(crate) fn params(probe: Probe) -> Vec<Param> {
    let texts = match probe {
        Probe::Axpy => vec!["in f32 x".to_string(), "inout f32 y".into(), "f32 a".into(), "u32 n".into()],
        Probe::Step => vec!["inout u32 y".into(), "u32 a".into(), "u32 b".into()],
        Probe::Where => vec!["out u32 y".into()],
        Probe::Scalar(dtype) => vec![format!("out {dtype} y"), format!("{dtype} s")],
        Probe::Struct => vec!["out u32 y".into(), "struct mixed { u8 a, u32 b, u16 c } p".into(), "null".into()],
        Probe::Offset | Probe::Broken => vec!["out u32 y".into()],
        Probe::Mismatch => vec!["inout f32 y".into(), "u32 a".into(), "u32 b".into()],
    };
    texts.iter().map(|text| Param::parse(text).unwrap()).collect()
}

/// A kernel of one thread per block.
pub(crate) fn source(probe: Probe, code: Code) -> KernelSource {
    let name = match probe {
        Probe::Scalar(dtype) => format!("scalar_{dtype}"),
        Probe::Struct => "struct_".to_string(),
        other => format!("{other:?}").to_lowercase(),
    };
    let (defines, flags, include) = (Vec::new(), Vec::new(), Vec::new());
    KernelSource {
        entry: name.clone(),
        name,
        code,
        params: params(probe),
        local_lens: Vec::new(),
        block: [1; 3],
        shared: 0,
        serial: false,
        defines,
        flags,
        include,
        hidden: 0,
    }
}

/// Runs all cases. *Panics* with the case and what is wrong.
pub(crate) fn conform(suite: &Suite<'_>) {
    for case in [
        memories_keep_what_the_host_writes,
        copies_move_exactly_their_bytes,
        fills_take_any_word_and_cut_off_the_last,
        fills_of_narrow_dtypes_start_anywhere,
        slices_and_scalars_reach_the_kernel,
        scalars_of_every_dtype_pass_fixed_and_variable,
        structs_and_null_pass_fixed_and_variable,
        offsets_reach_the_kernel,
        grids_have_three_dimensions_and_zero_is_no_launch,
        replays_take_their_own_variables_in_order,
        nodes_are_timed_in_list_order,
        points_order_queues,
        lists::copies_go_in_all_directions,
        lists::a_graph_is_replayed_with_data_that_changes,
        lists::many_small_launches_run_in_order,
        lists::an_edge_that_is_left_out_is_seen_under_chaos,
        lists::a_wait_that_is_left_out_is_seen_under_chaos,
        lists::an_allocation_past_the_largest_is_refused,
        lists::kernels_that_do_not_build_say_why,
        a_fork_reads_what_was_made_before,
        reset_leaves_kernels,
        mistakes_are_errors,
    ] {
        case(&mut Bench { device: (suite.open)(), suite });
    }
}

struct Bench<'a> {
    device: Box<dyn Device>,
    suite: &'a Suite<'a>,
}

fn all(mem: Mem, len: usize) -> Slice {
    Slice { mem, offset: 0, len: len as u64 }
}

fn part(mem: Mem, offset: u64, len: u64) -> Slice {
    Slice { mem, offset, len }
}

fn copy(src: Slice, dst: Slice) -> Node {
    Node { cmd: Cmd::Copy { src, dst }, after: Vec::new() }
}

fn fill(dst: Slice, pattern: Word) -> Node {
    Node { cmd: Cmd::Fill { dst, pattern }, after: Vec::new() }
}

fn launch(kernel: Kernel, grid: [Word; 3], args: Vec<Arg>) -> Node {
    Node { cmd: Cmd::Launch { kernel, grid, offset: NO_OFFSET, args }, after: Vec::new() }
}

const ONE: [Word; 3] = [Word::Const(1); 3];

fn f32_word(value: f32) -> Word {
    Word::Const(value.to_bits().into())
}

impl Bench<'_> {
    fn load(&mut self, probe: Probe) -> Option<Kernel> {
        let kernel = (self.suite.kernel)(probe)?;
        // SAFETY: the probes keep to their arguments.
        Some(unsafe { self.device.load(&kernel) }.unwrap())
    }

    fn run(&mut self, nodes: &[Node]) {
        let point = self.device.submit(Queue(0), &[], nodes).unwrap();
        self.device.wait(point).unwrap();
    }

    fn write(&mut self, mem: Mem, bytes: &[u8]) {
        let mut mapped = self.device.map(mem).unwrap();
        mapped[..bytes.len()].copy_from_slice(bytes);
        self.device.unmap(mapped).unwrap();
    }

    /// A device memory with these contents.
    fn put(&mut self, bytes: &[u8]) -> Mem {
        let mem = self.device.alloc(Place::Device, bytes.len() as u64).unwrap();
        let up = self.device.alloc(Place::Upload, bytes.len() as u64).unwrap();
        self.write(up, bytes);
        self.run(&[copy(all(up, bytes.len()), all(mem, bytes.len()))]);
        mem
    }

    fn get(&mut self, slice: Slice) -> Vec<u8> {
        let down = self.device.alloc(Place::Readback, slice.len).unwrap();
        self.run(&[copy(slice, part(down, 0, slice.len))]);
        let mapped = self.device.map(down).unwrap();
        let bytes = mapped.to_vec();
        self.device.unmap(mapped).unwrap();
        bytes
    }

    fn get_u32(&mut self, mem: Mem) -> u32 {
        bytemuck::pod_read_unaligned(&self.get(all(mem, 4)))
    }
}

fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn memories_keep_what_the_host_writes(bench: &mut Bench<'_>) {
    let mut places = vec![Place::Upload, Place::Readback];
    if bench.device.caps().unified {
        places.extend([Place::Shared, Place::ReadOnly]);
    } else {
        assert!(matches!(bench.device.alloc(Place::Shared, 4), Err(DeviceError::Unsupported(_))));
    }
    for place in places {
        for len in [0, 1, 3, 4096, 5001] {
            let mem = bench.device.alloc(place, len as u64).unwrap();
            for _ in 0..2 {
                bench.write(mem, &numbered(len));
                let mapped = bench.device.map(mem).unwrap();
                assert_eq!(mapped[..], numbered(len)[..], "{place:?} {len}");
                bench.device.unmap(mapped).unwrap();
            }
        }
    }
}

fn copies_move_exactly_their_bytes(bench: &mut Bench<'_>) {
    let size = (3 << 20) + 5;
    let from = bench.put(&numbered(size));
    for (src, dst, len) in [(0, 0, 0), (0, 4, 8), (64, 128, 4096), (4, 8, (3 << 20) - 4), (0, 0, size as u64)] {
        let to = bench.put(&vec![0xee; size]);
        bench.run(&[copy(part(from, src, len), part(to, dst, len))]);
        let mut want = vec![0xee; size];
        want[dst as usize..(dst + len) as usize].copy_from_slice(&numbered(size)[src as usize..(src + len) as usize]);
        assert!(bench.get(all(to, size)) == want, "{src} {dst} {len}");
    }
}

fn fills_take_any_word_and_cut_off_the_last(bench: &mut Bench<'_>) {
    let size = (2 << 20) + 64;
    for word in [0u32, 0x3f80_0000, 0x7fc0_0001, 0xdead_beef, 0x0101_0101] {
        for (offset, len) in [(0, 0), (4, 1), (4, 2), (8, 3), (64, 4), (4, 7), (0, 4097), (32, (2 << 20) + 3)] {
            let mem = bench.put(&vec![0xee; size]);
            let graph = bench.device.record(&[fill(part(mem, offset, len), Word::Var(0))]).unwrap();
            let point = bench.device.replay(Queue(0), &[], graph, &[word.into()]).unwrap();
            bench.device.wait(point).unwrap();
            let mut want = vec![0xee; size];
            let bytes = word.to_le_bytes();
            (0..len as usize).for_each(|i| want[offset as usize + i] = bytes[i % 4]);
            assert!(bench.get(all(mem, size)) == want, "{word:#x} {offset} {len}");
        }
    }
}

/// Words of an 8- or 16-bit dtype may start at any element.
fn fills_of_narrow_dtypes_start_anywhere(bench: &mut Bench<'_>) {
    let size = (2 << 20) + 64;
    for (word, offset, len) in [(0x7777_7777u32, 3u64, 1u64), (0x7777_7777, 5, 7), (0xabcd_abcd, 2, 10), (0xabcd_abcd, 6, (2 << 20) + 2)] {
        let mem = bench.put(&vec![0xee; size]);
        bench.run(&[fill(part(mem, offset, len), Word::Const(word.into()))]);
        let mut want = vec![0xee; size];
        let bytes = word.to_le_bytes();
        (0..len as usize).for_each(|i| want[offset as usize + i] = bytes[i % 4]);
        assert!(bench.get(all(mem, size)) == want, "{word:#x} {offset} {len}");
    }
}

fn slices_and_scalars_reach_the_kernel(bench: &mut Bench<'_>) {
    let Some(axpy) = bench.load(Probe::Axpy) else { return };
    let step = bench.device.caps().alignment.max(4);
    let size = step as usize * 2 + 40;
    let x: Vec<f32> = (0..size / 4).map(|i| i as f32).collect();
    let (x_mem, y_mem) = (bench.put(bytemuck::cast_slice(&x)), bench.put(&vec![0; size / 4 * 4]));
    let args = vec![
        Arg::In(part(x_mem, step, 40)),
        Arg::Inout(part(y_mem, 2 * step, 40)),
        Arg::Scalar(f32_word(0.5)),
        Arg::Scalar(Word::Const(10)),
    ];
    bench.run(&[launch(axpy, ONE, args)]);
    let got: Vec<f32> = bytemuck::pod_collect_to_vec(&bench.get(all(y_mem, size / 4 * 4)));
    let at = step as usize / 4;
    let want: Vec<f32> = (0..size / 4).map(|i| if (2 * at..2 * at + 10).contains(&i) { 0.5 * x[i - at] } else { 0.0 }).collect();
    assert_eq!(got, want);
}

fn scalars_of_every_dtype_pass_fixed_and_variable(bench: &mut Bench<'_>) {
    for dtype in Dtype::ALL {
        let Some(kernel) = bench.load(Probe::Scalar(dtype)) else { continue };
        let values = match dtype.integer_range() {
            Some((low, high)) => [low, high].map(|n| dtype.encode(Number::Int(n)).unwrap()),
            None => [-1.5, 640.0].map(|f| dtype.encode(Number::Float(f)).unwrap()),
        };
        for value in values {
            for (word, vars) in [(Word::Const(value), vec![]), (Word::Var(1), vec![0, value])] {
                let size = dtype.size().max(4);
                let y = bench.put(&vec![0; size]);
                let args = vec![Arg::Out(all(y, dtype.size())), Arg::Scalar(word)];
                let graph = bench.device.record(&[launch(kernel, ONE, args)]).unwrap();
                let point = bench.device.replay(Queue(0), &[], graph, &vars).unwrap();
                bench.device.wait(point).unwrap();
                assert_eq!(dtype.load(&bench.get(all(y, size)), 0), value, "{dtype} {word:?}");
            }
        }
    }
}

fn structs_and_null_pass_fixed_and_variable(bench: &mut Bench<'_>) {
    let Some(kernel) = bench.load(Probe::Struct) else { return };
    let y = bench.put(&[0; 16]);
    // What lies above a field's own bits is not its neighbour's.
    let words = [Word::Const(0xffff_ff07), Word::Var(1), Word::Var(0)];
    let node = launch(kernel, ONE, vec![Arg::Out(all(y, 16)), Arg::Struct(words.to_vec()), Arg::Null]);
    let graph = bench.device.record(&[node]).unwrap();
    for (b, c) in [(0xdead_beef_u64, 0xfffe_u64), (1, 2)] {
        let point = bench.device.replay(Queue(0), &[], graph, &[c | 0xabc0_0000, b]).unwrap();
        bench.device.wait(point).unwrap();
        let got: Vec<u32> = bytemuck::pod_collect_to_vec(&bench.get(all(y, 16)));
        assert_eq!(got, [7, b as u32, c as u32, 1]);
    }
    for args in [vec![Arg::Struct(words[..2].to_vec()), Arg::Null], vec![Arg::Struct(words.to_vec()), Arg::Scalar(words[0])]] {
        let node = launch(kernel, ONE, [vec![Arg::Out(all(y, 16))], args].concat());
        assert!(matches!(bench.device.record(&[node]), Err(DeviceError::Failed { .. })));
    }
}

fn offsets_reach_the_kernel(bench: &mut Bench<'_>) {
    let Some(kernel) = bench.load(Probe::Offset) else { return };
    let y = bench.put(&[0; 12]);
    let mut node = launch(kernel, ONE, vec![Arg::Out(all(y, 12))]);
    if let Cmd::Launch { offset, .. } = &mut node.cmd {
        *offset = [Word::Const(5), Word::Var(0), Word::Const(0)];
    }
    let graph = bench.device.record(&[node]).unwrap();
    for start in [0u64, 70_000] {
        let point = bench.device.replay(Queue(0), &[], graph, &[start]).unwrap();
        bench.device.wait(point).unwrap();
        let got: Vec<u32> = bytemuck::pod_collect_to_vec(&bench.get(all(y, 12)));
        assert_eq!(got, [5, start as u32, 0]);
    }
    assert!(matches!(bench.device.replay(Queue(0), &[], graph, &[1 << 32]), Err(DeviceError::Failed { .. })));
}

fn grids_have_three_dimensions_and_zero_is_no_launch(bench: &mut Bench<'_>) {
    let Some(kernel) = bench.load(Probe::Where) else { return };
    let grids = [[1, 1, 1], [97, 1, 1], [5, 7, 1], [3, 4, 5], [1, 1, 9], [0, 1, 1], [4, 0, 1], [0xffff_ffff, 0xffff_ffff, 0]];
    for [x, y, z] in grids {
        for var in [false, true] {
            let mem = bench.put(&[0; 4 * 128]);
            let grid = if var { [0, 1, 2].map(Word::Var) } else { [x, y, z].map(Word::Const) };
            let graph = bench.device.record(&[launch(kernel, grid, vec![Arg::Out(all(mem, 512))])]).unwrap();
            let point = bench.device.replay(Queue(0), &[], graph, &[x, y, z]).unwrap();
            bench.device.wait(point).unwrap();
            let got: Vec<u32> = bytemuck::pod_collect_to_vec(&bench.get(all(mem, 512)));
            let mut want = vec![0u32; 128];
            let blocks = if x * z == 0 { 0 } else { x * y * z };
            for i in 0..blocks {
                want[i as usize] = (1 + i % x + 100 * (i / x % y) + 10_000 * (i / x / y)) as u32;
            }
            assert_eq!(got, want, "{x} {y} {z}, variable: {var}");
        }
    }
}

fn step(kernel: Kernel, y: Mem, a: Word, b: Word) -> Node {
    launch(kernel, ONE, vec![Arg::Inout(all(y, 4)), Arg::Scalar(a), Arg::Scalar(b)])
}

fn replays_take_their_own_variables_in_order(bench: &mut Bench<'_>) {
    let Some(kernel) = bench.load(Probe::Step) else { return };
    for queue in [Queue(0), Queue(1), Queue(2)] {
        let y = bench.put(&[0; 4]);
        let mut twice = [step(kernel, y, Word::Const(3), Word::Var(0)), step(kernel, y, Word::Const(5), Word::Var(1))];
        twice[1].after = vec![0];
        let graph = bench.device.record(&twice).unwrap();
        let (mut want, mut last) = (0u32, None);
        for round in 0..200u64 {
            last = Some(bench.device.replay(queue, &[], graph, &[round, round * round]).unwrap());
            want = (want.wrapping_mul(3).wrapping_add(round as u32)).wrapping_mul(5).wrapping_add((round * round) as u32);
        }
        let point = last.unwrap();
        bench.device.wait(point).unwrap();
        assert!(bench.device.poll(point).unwrap());
        bench.device.elapsed(point).unwrap();
        assert_eq!(bench.get_u32(y), want, "{queue:?}");
    }
}

fn nodes_are_timed_in_list_order(bench: &mut Bench<'_>) {
    let mem = bench.put(&[0; 64]);
    let fill = |offset, len| Node { cmd: Cmd::Fill { dst: part(mem, offset, len), pattern: Word::Const(7) }, after: Vec::new() };
    let three = bench.device.record(&[fill(0, 16), fill(16, 0), fill(32, 32)]).unwrap();
    let one = bench.device.record(&[fill(0, 64)]).unwrap();
    let mut times = Vec::new();
    for queue in [Queue(0), Queue(1), Queue(0), Queue(2)] {
        let first = bench.device.replay(queue, &[], three, &[]).unwrap();
        bench.device.wait(first).unwrap();
        let kept = bench.device.node_times(first, &mut times).unwrap();
        assert_eq!(times.len(), if kept { 3 } else { 0 }, "{queue:?}");
        if kept {
            // Nodes may run side by side; clocks are read in steps of less than a microsecond.
            let longest = times.iter().flatten().max().copied().unwrap_or_default();
            let elapsed = bench.device.elapsed(first).unwrap().unwrap_or(Duration::MAX);
            assert!(elapsed.saturating_add(Duration::from_micros(1)) >= longest, "{queue:?}: {elapsed:?} {times:?}");
        }
        let second = bench.device.replay(queue, &[], one, &[]).unwrap();
        bench.device.wait(second).unwrap();
        assert_eq!(bench.device.node_times(second, &mut times).unwrap(), kept, "{queue:?}");
        assert_eq!(times.len(), usize::from(kept), "{queue:?}");
        // What was before may be forgotten, and is nothing else.
        let older = bench.device.node_times(first, &mut times).unwrap();
        assert_eq!(times.len(), if older { 3 } else { 0 }, "{queue:?}");
    }
}

fn points_order_queues(bench: &mut Bench<'_>) {
    let Some(kernel) = bench.load(Probe::Step) else { return };
    let y = bench.put(&[1, 0, 0, 0]);
    let graphs: Vec<Graph> = (2..5u64).map(|b| bench.device.record(&[step(kernel, y, Word::Const(3), Word::Const(b))]).unwrap()).collect();
    let (mut want, mut before) = (1u32, Vec::new());
    for round in 0..150usize {
        let queue = Queue([1, 2, 0, 3, 1, 1, 2][round % 7]);
        before = vec![bench.device.replay(queue, &before, graphs[round % 3], &[]).unwrap()];
        want = want.wrapping_mul(3).wrapping_add(2 + (round % 3) as u32);
    }
    bench.device.wait(before[0]).unwrap();
    assert_eq!(bench.get_u32(y), want);
}

fn a_fork_reads_what_was_made_before(bench: &mut Bench<'_>) {
    let Some(kernel) = bench.load(Probe::Axpy) else { return };
    let x = bench.put(bytemuck::cast_slice(&[2f32; 16]));
    let forks: Vec<Box<dyn Device>> = (0..3).map(|_| bench.device.fork().unwrap()).collect();
    let suite = bench.suite;
    let (open, source) = (suite.open, suite.kernel);
    for (lane, device) in forks.into_iter().enumerate() {
        let lane_suite = Suite { open, kernel: source };
        let mut fork = Bench { device, suite: &lane_suite };
        for _ in 0..2 {
            let y = fork.put(bytemuck::cast_slice(&[1f32; 16]));
            assert!(y > x);
            let args = vec![Arg::In(all(x, 64)), Arg::Inout(all(y, 64)), Arg::Scalar(f32_word(lane as f32)), Arg::Scalar(Word::Const(16))];
            fork.run(&[launch(kernel, ONE, args)]);
            let want = vec![1.0 + 2.0 * lane as f32; 16];
            assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&fork.get(all(y, 64))), want);
            fork.device.reset().unwrap();
        }
    }
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&bench.get(all(x, 64))), [2.0; 16]);
}

fn reset_leaves_kernels(bench: &mut Bench<'_>) {
    let Some(kernel) = bench.load(Probe::Step) else { return };
    for round in 0..3u64 {
        let y = bench.put(&[1, 0, 0, 0]);
        let graph = bench.device.record(&[step(kernel, y, Word::Const(2), Word::Var(0))]).unwrap();
        let point = bench.device.replay(Queue(1), &[], graph, &[round]).unwrap();
        bench.device.wait(point).unwrap();
        assert_eq!(bench.get_u32(y), 2 + round as u32);
        let point = bench.device.replay(Queue(1), &[], graph, &[round]).unwrap();
        // Not waited for: reset waits.
        let _ = point;
        bench.device.reset().unwrap();
        assert!(bench.device.replay(Queue(0), &[], graph, &[round]).is_err());
        assert!(bench.device.submit(Queue(0), &[], &[fill(all(y, 4), Word::Const(0))]).is_err());
    }
}

fn mistakes_are_errors(bench: &mut Bench<'_>) {
    for bytes in [u64::MAX, 1 << 60] {
        for place in [Place::Device, Place::Upload, Place::Readback] {
            assert!(matches!(bench.device.alloc(place, bytes), Err(DeviceError::OutOfMemory { .. })), "{place:?} {bytes}");
        }
    }
    let (a, b) = (bench.put(&[0; 256]), bench.put(&[0; 256]));
    assert!(bench.device.map(a).is_err());
    assert!(bench.device.map(Mem(4_000_000_000)).is_err());
    assert!(bench.device.wait(Point(u64::MAX >> 1)).is_err());
    assert!(bench.device.replay(Queue(0), &[], Graph(1 << 30), &[]).is_err());
    let mut wrong = vec![
        copy(part(a, 0, 8), part(b, 0, 9)),
        copy(part(a, 0, 8), part(a, 4, 8)),
        copy(part(a, 250, 8), part(b, 0, 8)),
        copy(part(a, u64::MAX, 8), part(b, 0, 8)),
        fill(part(a, 256, 1), Word::Const(0)),
        Node { after: vec![0], ..fill(all(a, 4), Word::Const(0)) },
    ];
    if let Some(kernel) = bench.load(Probe::Step) {
        let good = vec![Arg::Inout(all(a, 4)), Arg::Scalar(Word::Const(1)), Arg::Scalar(Word::Const(1))];
        let with = |at: usize, arg| {
            let mut args = good.clone();
            args[at] = arg;
            launch(kernel, ONE, args)
        };
        wrong.extend([
            with(0, Arg::In(all(a, 4))),
            with(0, Arg::Scalar(Word::Const(0))),
            with(0, Arg::Inout(part(a, 0, 257))),
            with(0, Arg::Inout(part(a, 1, 4))),
            with(1, Arg::In(all(a, 4))),
            launch(kernel, ONE, good[..2].to_vec()),
            launch(kernel, [Word::Const(1 << 32); 3], good.clone()),
            launch(Kernel(1 << 30), ONE, good.clone()),
        ]);
        let graph = bench.device.record(&[launch(kernel, [Word::Var(1), Word::Const(1), Word::Const(1)], good.clone())]).unwrap();
        for vars in [[].as_slice(), &[0], &[0, 1 << 32]] {
            assert!(matches!(bench.device.replay(Queue(0), &[], graph, vars), Err(DeviceError::Failed { .. })), "{vars:?}");
        }
    }
    for node in wrong {
        assert!(matches!(bench.device.record(std::slice::from_ref(&node)), Err(DeviceError::Failed { .. })), "{node:?}");
    }
}
