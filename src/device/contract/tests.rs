//! Calls that break the contract, each with one that keeps it.

use super::*;
use crate::device::{Code, Device, NO_OFFSET, NullDevice, Trace, TraceOptions};

fn caps() -> Caps {
    Caps {
        backend: "null",
        name: "null".into(),
        driver: String::new(),
        unified: true,
        lanes: 1,
        submit_ns: 0,
        node_ns: 0,
        bytes_per_ns: 1.0,
        memory: 1 << 30,
        largest_alloc: 1 << 20,
        alignment: 64,
        bind_alignment: 64,
        max_block: 256,
        max_block_dims: [256, 256, 4],
        shares_cores: true,
        features: Vec::new(),
        versions: Vec::new(),
    }
}

fn kernel(block: [u32; 3]) -> KernelSource {
    KernelSource {
        name: "k".into(),
        entry: "k".into(),
        code: Code::Builtin(|_, _| {}),
        params: ["in f32 x", "out f32 y", "u32 n"].map(|p| Param::parse(p).unwrap()).to_vec(),
        local_lens: Vec::new(),
        block,
        shared: 0,
        serial: false,
        defines: Vec::new(),
        flags: Vec::new(),
        include: Vec::new(),
        hidden: 0,
    }
}

/// A device with an upload (m0), a device (m1) and a read-only memory (m2) of 1024 bytes, and kernel k0.
fn device() -> Trace {
    let mut device = Trace::new(Box::new(NullDevice::new(caps())), TraceOptions { log: true, contract: true });
    for place in [Place::Upload, Place::Device, Place::ReadOnly] {
        device.alloc(place, 1024).unwrap();
    }
    // SAFETY: nothing is run.
    unsafe { device.load(&kernel([256, 1, 1])) }.unwrap();
    device
}

fn part(mem: u32, offset: u64, len: u64) -> Slice {
    Slice { mem: Mem(mem), offset, len }
}

fn copy(src: Slice, dst: Slice, after: &[u32]) -> Node {
    Node { cmd: Cmd::Copy { src, dst }, after: after.to_vec() }
}

fn launch(args: [Arg; 3], grid: Word) -> Node {
    Node {
        cmd: Cmd::Launch { kernel: Kernel(0), grid: [grid, Word::Const(1), Word::Const(1)], offset: NO_OFFSET, args: args.to_vec() },
        after: vec![],
    }
}

fn message<T>(result: Result<T>) -> String {
    match result {
        Err(DeviceError::Failed { message, .. }) if message.starts_with("contract: ") => message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the contract holds"),
    }
}

#[test]
fn lists_that_break_the_contract_are_refused() {
    let mut device = device();
    let scalar = || Arg::Scalar(Word::Const(1));
    let (x, y) = (part(0, 0, 64), part(1, 64, 64));
    for (nodes, part_of) in [
        (vec![copy(part(0, 0, 8), part(1, 0, 9), &[])], "8 bytes to 9"),
        (vec![copy(part(0, 0, 8), part(0, 4, 8), &[])], "overlapping"),
        (vec![copy(part(0, 1020, 8), part(1, 0, 8), &[])], "outside memory 0"),
        (vec![copy(x, part(2, 0, 64), &[])], "read-only"),
        (vec![copy(x, part(9, 0, 64), &[])], "no memory 9"),
        (vec![copy(x, y, &[0])], "ascending"),
        (vec![copy(x, y, &[]), copy(x, part(1, 512, 64), &[]), copy(y, part(1, 0, 64), &[1, 0])], "ascending"),
        (vec![copy(x, y, &[]), copy(y, part(1, 0, 64), &[])], "nodes 0 and 1 touch the same bytes"),
        (vec![launch([Arg::Out(x), Arg::Out(y), scalar()], Word::Const(1))], "`in f32 x` is given Out"),
        (vec![launch([Arg::In(x), Arg::Inout(y), scalar()], Word::Const(1))], "`out f32 y` is given Inout"),
        (vec![launch([Arg::In(part(0, 4, 64)), Arg::Out(y), scalar()], Word::Const(1))], "not a multiple of 64"),
        (vec![launch([Arg::In(x), Arg::Out(y), scalar()], Word::Const(1 << 32))], "grid"),
    ] {
        let text = message(device.record(&nodes));
        assert!(text.contains(part_of), "{text}");
        message(device.submit(Queue(0), &[], &nodes));
    }
    device.record(&[copy(x, y, &[]), copy(y, part(1, 0, 64), &[0])]).unwrap();
    // SAFETY: nothing is run.
    assert!(message(unsafe { device.load(&kernel([1, 1, 5])) }).contains("block"));
}

#[test]
fn memory_is_lent_or_in_flight_and_never_both() {
    let mut device = device();
    let graph = device.record(&[copy(part(0, 0, 64), part(1, 0, 64), &[])]).unwrap();
    let lent = device.map(Mem(0)).unwrap();
    assert!(message(device.map(Mem(0))).contains("lent already"));
    assert!(message(device.replay(Queue(1), &[], graph, &[])).contains("lent"));
    device.unmap(lent).unwrap();
    let point = device.replay(Queue(1), &[], graph, &[]).unwrap();
    assert!(message(device.map(Mem(0))).contains("in flight"));
    device.wait(point).unwrap();
    let lent = device.map(Mem(0)).unwrap();
    device.unmap(lent).unwrap();
    assert!(message(device.wait(Point(99))).contains("no point 99"));
    assert!(message(device.map(Mem(1))).contains("alone"));
}

#[test]
fn queues_that_share_bytes_wait_for_each_other() {
    let mut device = device();
    let write = device.record(&[copy(part(0, 0, 64), part(1, 0, 64), &[])]).unwrap();
    let elsewhere = device.record(&[copy(part(0, 0, 64), part(1, 64, 64), &[])]).unwrap();
    let first = device.replay(Queue(1), &[], write, &[]).unwrap();
    device.replay(Queue(2), &[], elsewhere, &[]).unwrap();
    assert!(message(device.replay(Queue(2), &[], write, &[])).contains("does not wait for it"));
    let second = device.replay(Queue(2), &[first], write, &[]).unwrap();
    // Through the point of queue 2 it waits for queue 1 as well.
    let third = device.replay(Queue(3), &[second], write, &[]).unwrap();
    device.wait(third).unwrap();
    device.replay(Queue(4), &[], write, &[]).unwrap();
}

#[test]
fn variables_are_given_and_grids_fit() {
    let mut device = device();
    let args = [Arg::In(part(0, 0, 64)), Arg::Out(part(1, 64, 64)), Arg::Scalar(Word::Var(1))];
    let graph = device.record(&[launch(args, Word::Var(0))]).unwrap();
    assert!(message(device.replay(Queue(0), &[], graph, &[1])).contains("needs 2 variables"));
    assert!(message(device.replay(Queue(0), &[], graph, &[1 << 32, 1])).contains("grid"));
    device.replay(Queue(0), &[], graph, &[1, 1]).unwrap();
}

#[test]
fn a_fork_does_not_write_what_it_inherited() {
    let device = device();
    let mut fork = device.fork().unwrap();
    assert!(message(fork.record(&[copy(part(0, 0, 64), part(1, 0, 64), &[])])).contains("read-only here"));
    let own = fork.alloc(Place::Device, 64).unwrap();
    fork.record(&[copy(part(0, 0, 64), Slice { mem: own, offset: 0, len: 64 }, &[])]).unwrap();
}

#[test]
fn the_log_says_what_was_asked() {
    let mut device = device();
    let args = [Arg::In(part(0, 0, 64)), Arg::Out(part(1, 64, 64)), Arg::Scalar(Word::Var(0))];
    let nodes = [
        copy(part(0, 0, 64), part(1, 0, 64), &[]),
        Node { cmd: Cmd::Fill { dst: part(1, 64, 64), pattern: Word::Const(0x7fc0_0001) }, after: vec![] },
        Node { after: vec![1], ..launch(args, Word::Const(4)) },
    ];
    let graph = device.record(&nodes).unwrap();
    let point = device.replay(Queue(1), &[], graph, &[7]).unwrap();
    device.replay(Queue(2), &[point], graph, &[8]).unwrap();
    device.reset().unwrap();
    let log = device.take_log().join("\n");
    let want = "\
alloc m0 Upload 1024
alloc m1 Device 1024
alloc m2 ReadOnly 1024
load k0 k(in f32 x, out f32 y, u32 n)
record g0
  0: copy m0[0..64] -> m1[0..64]
  1: fill m1[64..128] with 0x7fc00001
  2: launch k0 [4, 1, 1] (in m0[0..64], out m1[64..128], v0) after 1
replay q1 g0 [7] -> p1
replay q2 g0 [8] after p1 -> p2
reset";
    assert_eq!(log, want);
    let counts = device.counts();
    assert_eq!((counts.launches, counts.fills, counts.copied_bytes, counts.frees), (2, 2, 128, 3));
}
