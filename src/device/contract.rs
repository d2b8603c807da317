//! Turns what a device was told so far and the next call into whether that call keeps the contract.
//!
//! Order is kept as clocks: for each queue, the number of its last submission that is known to come before. A point's
//! clock joins those of the points it waits for and of its queue; the host's clock joins those of the points it waited for.

use std::collections::HashMap;

use super::{Arg, Caps, Cmd, DeviceError, Graph, Kernel, KernelSource, Mem, Node, Place, Point, Queue, Result, Slice, Word};
use crate::tensor::{Access, Param, ParamKind};

/// Lists up to this length are searched for nodes that touch the same bytes in no order.
const SEARCHED: usize = 2048;

#[derive(Clone, Default)]
pub(super) struct Contract {
    memories: HashMap<Mem, Memory>,
    kernels: HashMap<Kernel, (String, Vec<Param>)>,
    graphs: HashMap<Graph, List>,
    points: HashMap<Point, Clock>,
    /// What may still run.
    flying: Vec<Flight>,
    queues: HashMap<Queue, Clock>,
    host: Clock,
}

#[derive(Clone)]
struct Memory {
    place: Place,
    bytes: u64,
    lent: bool,
    inherited: bool,
}

/// What a list touches and takes.
#[derive(Clone, Default)]
struct List {
    touched: Vec<Touch>,
    vars: usize,
    grids: Vec<u16>,
    inherited: bool,
}

#[derive(Clone, Copy)]
struct Touch {
    slice: Slice,
    writes: bool,
}

#[derive(Clone)]
struct Flight {
    queue: Queue,
    number: u64,
    touched: Vec<Touch>,
}

#[derive(Clone, Default, Debug)]
struct Clock(HashMap<Queue, u64>);

impl Clock {
    fn join(&mut self, other: &Clock) {
        for (&queue, &number) in &other.0 {
            let mine = self.0.entry(queue).or_default();
            *mine = number.max(*mine);
        }
    }

    fn has(&self, flight: &Flight) -> bool {
        self.0.get(&flight.queue).is_some_and(|&number| number >= flight.number)
    }
}

fn broken<T>(node: Option<usize>, call: &'static str, message: String) -> Result<T> {
    Err(DeviceError::Failed { node: node.and_then(|n| u32::try_from(n).ok()), call, message: format!("contract: {message}") })
}

fn end(slice: &Slice) -> u64 {
    slice.offset.saturating_add(slice.len)
}

fn conflict(a: &Touch, b: &Touch) -> bool {
    (a.writes || b.writes) && a.slice.mem == b.slice.mem && a.slice.offset < end(&b.slice) && b.slice.offset < end(&a.slice)
}

fn touched(cmd: &Cmd) -> Vec<Touch> {
    let touch = |slice: &Slice, writes| Touch { slice: *slice, writes };
    match cmd {
        Cmd::Copy { src, dst } => vec![touch(src, false), touch(dst, true)],
        Cmd::Fill { dst, .. } => vec![touch(dst, true)],
        Cmd::Launch { args, .. } => args
            .iter()
            .filter_map(|arg| match arg {
                Arg::In(s) => Some(touch(s, false)),
                Arg::Out(s) | Arg::Inout(s) => Some(touch(s, true)),
                Arg::Scalar(_) => None,
            })
            .collect(),
    }
}

impl List {
    fn new(nodes: &[Node]) -> List {
        let mut list = List::default();
        let mut word = |word: &Word, grids: &mut Vec<u16>, grid: bool| {
            if let Word::Var(var) = word {
                list.vars = list.vars.max(usize::from(*var) + 1);
                if grid {
                    grids.push(*var);
                }
            }
        };
        let mut grids = Vec::new();
        for node in nodes {
            match &node.cmd {
                Cmd::Copy { .. } => {}
                Cmd::Fill { pattern, .. } => word(pattern, &mut grids, false),
                Cmd::Launch { grid, args, .. } => {
                    grid.iter().for_each(|w| word(w, &mut grids, true));
                    args.iter().for_each(|arg| {
                        if let Arg::Scalar(w) = arg {
                            word(w, &mut grids, false);
                        }
                    });
                }
            }
        }
        List { touched: nodes.iter().flat_map(|node| touched(&node.cmd)).collect(), grids, ..list }
    }
}

impl Contract {
    pub fn allocated(&mut self, mem: Mem, place: Place, bytes: u64) {
        self.memories.insert(mem, Memory { place, bytes, lent: false, inherited: false });
    }

    pub fn map(&self, mem: Mem) -> Result<()> {
        let Some(memory) = self.memories.get(&mem) else { return broken(None, "map", format!("there is no memory {}", mem.0)) };
        if memory.place == Place::Device {
            return broken(None, "map", format!("memory {} is the device's alone", mem.0));
        }
        if memory.lent {
            return broken(None, "map", format!("memory {} is lent already", mem.0));
        }
        let uses = |flight: &&Flight| flight.touched.iter().any(|t| t.slice.mem == mem) && !self.host.has(flight);
        match self.flying.iter().find(uses) {
            Some(flight) => {
                broken(None, "map", format!("memory {} is in flight: submission {} of queue {}", mem.0, flight.number, flight.queue.0))
            }
            None => Ok(()),
        }
    }

    pub fn unmap(&self, mem: Mem) -> Result<()> {
        match self.memories.get(&mem) {
            Some(memory) if memory.lent => Ok(()),
            _ => broken(None, "unmap", format!("memory {} is not lent", mem.0)),
        }
    }

    pub fn lend(&mut self, mem: Mem, lent: bool) {
        if let Some(memory) = self.memories.get_mut(&mem) {
            memory.lent = lent;
        }
    }

    pub fn load(&self, kernel: &KernelSource, caps: &Caps) -> Result<()> {
        let name = &kernel.name;
        let locals = kernel.params.iter().filter(|p| matches!(p.kind, ParamKind::Local { .. })).count();
        if locals != kernel.local_lens.len() {
            return broken(None, "load", format!("kernel `{name}`: {locals} `local` parameters, {} lengths", kernel.local_lens.len()));
        }
        let threads = kernel.block.iter().map(|&n| u128::from(n)).product::<u128>();
        let fits = kernel.block.iter().zip(caps.max_block_dims).all(|(&n, most)| n > 0 && u64::from(n) <= most);
        if !fits || threads > u128::from(caps.max_block) {
            let (block, most) = (kernel.block, caps.max_block);
            return broken(None, "load", format!("kernel `{name}`: a block of {block:?}, the device takes {most} threads"));
        }
        Ok(())
    }

    pub fn loaded(&mut self, id: Kernel, kernel: &KernelSource) {
        let params = kernel.params.iter().filter(|p| !matches!(p.kind, ParamKind::Local { .. })).cloned().collect();
        self.kernels.insert(id, (kernel.name.clone(), params));
    }

    /// Judges a list.
    pub fn nodes(&self, call: &'static str, nodes: &[Node], caps: &Caps) -> Result<()> {
        for (index, node) in nodes.iter().enumerate() {
            let ascending = node.after.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascending || node.after.last().is_some_and(|&last| last as usize >= index) {
                return broken(Some(index), call, format!("`after` is {:?}, not ascending indices of earlier nodes", node.after));
            }
            if let Err(message) = self.command(&node.cmd, caps) {
                return broken(Some(index), call, message);
            }
        }
        match unordered(nodes) {
            Some((first, second)) => {
                broken(Some(second), call, format!("nodes {first} and {second} touch the same bytes and neither waits for the other"))
            }
            None => Ok(()),
        }
    }

    fn command(&self, cmd: &Cmd, caps: &Caps) -> std::result::Result<(), String> {
        for touch in touched(cmd) {
            let slice = touch.slice;
            let Some(memory) = self.memories.get(&slice.mem) else { return Err(format!("there is no memory {}", slice.mem.0)) };
            if slice.offset.checked_add(slice.len).is_none_or(|end| end > memory.bytes) {
                let (from, len, bytes) = (slice.offset, slice.len, memory.bytes);
                return Err(format!("{len} bytes from byte {from} lie outside memory {} of {bytes} bytes", slice.mem.0));
            }
            if touch.writes && (memory.place == Place::ReadOnly || memory.inherited) {
                return Err(format!("memory {} is written, and read-only here", slice.mem.0));
            }
        }
        match cmd {
            Cmd::Copy { src, dst } if src.len != dst.len => Err(format!("a copy of {} bytes to {}", src.len, dst.len)),
            Cmd::Copy { src, dst } if src.mem == dst.mem && src.offset < end(dst) && dst.offset < end(src) => {
                Err("a copy between overlapping ranges".to_string())
            }
            Cmd::Fill { dst, .. } if dst.offset % 4 != 0 => Err(format!("a fill from byte {}, not a multiple of 4", dst.offset)),
            Cmd::Launch { kernel, grid, args } => self.launch(*kernel, grid, args, caps),
            _ => Ok(()),
        }
    }

    fn launch(&self, kernel: Kernel, grid: &[Word; 3], args: &[Arg], caps: &Caps) -> std::result::Result<(), String> {
        let Some((name, params)) = self.kernels.get(&kernel) else { return Err(format!("there is no kernel {}", kernel.0)) };
        if params.len() != args.len() {
            return Err(format!("kernel `{name}` takes {} arguments, not {}", params.len(), args.len()));
        }
        for (param, arg) in params.iter().zip(args) {
            let slice = match (&param.kind, arg) {
                (ParamKind::Scalar, Arg::Scalar(_)) => continue,
                (ParamKind::Tensor(Access::In), Arg::In(slice))
                | (ParamKind::Tensor(Access::Out), Arg::Out(slice))
                | (ParamKind::Tensor(Access::Inout), Arg::Inout(slice)) => slice,
                _ => return Err(format!("kernel `{name}`: `{param}` is given {arg:?}")),
            };
            if slice.offset % caps.alignment.max(1) != 0 {
                return Err(format!("kernel `{name}`: `{param}` starts at byte {}, not a multiple of {}", slice.offset, caps.alignment));
            }
        }
        match grid.iter().find(|word| matches!(word, Word::Const(n) if *n > u64::from(u32::MAX))) {
            Some(word) => Err(format!("kernel `{name}`: a grid of {word:?}")),
            None => Ok(()),
        }
    }

    pub fn recorded(&mut self, graph: Graph, nodes: &[Node]) {
        self.graphs.insert(graph, List::new(nodes));
    }

    pub fn replay(&self, queue: Queue, after: &[Point], graph: Graph, vars: &[u64]) -> Result<()> {
        let Some(list) = self.graphs.get(&graph) else { return broken(None, "replay", format!("there is no graph {}", graph.0)) };
        if vars.len() < list.vars {
            return broken(None, "replay", format!("graph {} needs {} variables, {} are given", graph.0, list.vars, vars.len()));
        }
        if let Some(&var) = list.grids.iter().find(|&&var| vars[usize::from(var)] > u64::from(u32::MAX)) {
            return broken(None, "replay", format!("variable {var} is a grid of {}", vars[usize::from(var)]));
        }
        self.start("replay", queue, after, &list.touched)
    }

    pub fn submit(&self, queue: Queue, after: &[Point], nodes: &[Node], caps: &Caps) -> Result<()> {
        self.nodes("submit", nodes, caps)?;
        let list = List::new(nodes);
        if list.vars > 0 {
            return broken(None, "submit", "variables have no values".to_string());
        }
        self.start("submit", queue, after, &list.touched)
    }

    /// Judges whether what touches this may start now.
    fn start(&self, call: &'static str, queue: Queue, after: &[Point], touched: &[Touch]) -> Result<()> {
        for &point in after {
            self.known(call, point)?;
        }
        if let Some(touch) = touched.iter().find(|t| self.memories.get(&t.slice.mem).is_none_or(|m| m.lent)) {
            return broken(None, call, format!("memory {} is lent to the host, or freed", touch.slice.mem.0));
        }
        let clock = self.clock(queue, after);
        let clash = |flight: &&Flight| !clock.has(flight) && flight.touched.iter().any(|a| touched.iter().any(|b| conflict(a, b)));
        match self.flying.iter().find(clash) {
            Some(flight) => {
                let (number, other) = (flight.number, flight.queue.0);
                broken(None, call, format!("it touches what submission {number} of queue {other} does, and does not wait for it"))
            }
            None => Ok(()),
        }
    }

    /// What comes before a submission to `queue`.
    fn clock(&self, queue: Queue, after: &[Point]) -> Clock {
        let mut clock = self.host.clone();
        let points = after.iter().filter_map(|point| self.points.get(point));
        points.chain(self.queues.get(&queue)).for_each(|other| clock.join(other));
        clock
    }

    pub fn replayed(&mut self, queue: Queue, after: &[Point], graph: Graph, point: Point) {
        let touched = self.graphs.get(&graph).map_or_else(Vec::new, |list| list.touched.clone());
        self.started(queue, after, touched, point);
    }

    pub fn submitted(&mut self, queue: Queue, after: &[Point], nodes: &[Node], point: Point) {
        self.started(queue, after, List::new(nodes).touched, point);
    }

    fn started(&mut self, queue: Queue, after: &[Point], touched: Vec<Touch>, point: Point) {
        let mut clock = self.clock(queue, after);
        let number = self.queues.get(&queue).and_then(|c| c.0.get(&queue)).copied().unwrap_or(0) + 1;
        clock.0.insert(queue, number);
        self.queues.insert(queue, clock.clone());
        self.points.insert(point, clock);
        self.flying.push(Flight { queue, number, touched });
    }

    pub fn known(&self, call: &'static str, point: Point) -> Result<()> {
        if self.points.contains_key(&point) { Ok(()) } else { broken(None, call, format!("there is no point {}", point.0)) }
    }

    /// The host knows that a point was reached.
    pub fn reached(&mut self, point: Point) {
        let Some(clock) = self.points.get(&point) else { return };
        self.host.join(clock);
        let host = &self.host;
        self.flying.retain(|flight| !host.has(flight));
    }

    pub fn fork(&self) -> Contract {
        let memories = self.memories.iter().map(|(&mem, m)| (mem, Memory { lent: false, inherited: true, ..m.clone() })).collect();
        let graphs = self.graphs.iter().map(|(&graph, list)| (graph, List { inherited: true, ..list.clone() })).collect();
        Contract { memories, graphs, kernels: self.kernels.clone(), ..Contract::default() }
    }

    pub fn reset(&mut self) {
        self.memories.retain(|_, memory| memory.inherited);
        self.graphs.retain(|_, list| list.inherited);
        self.flying.clear();
        let queues: Vec<Clock> = self.queues.values().cloned().collect();
        queues.iter().for_each(|clock| self.host.join(clock));
    }
}

/// The first two nodes that touch the same bytes, one of them writing, with no way of `after` between them.
fn unordered(nodes: &[Node]) -> Option<(usize, usize)> {
    if nodes.len() > SEARCHED {
        return None;
    }
    let words = nodes.len().div_ceil(64);
    // before[i]: a bit for each node that node i waits for, through others too.
    let mut before: Vec<Vec<u64>> = Vec::with_capacity(nodes.len());
    let mut seen: Vec<Vec<Touch>> = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let mut bits = vec![0u64; words];
        for &after in &node.after {
            let after = after as usize;
            bits.iter_mut().zip(&before[after]).for_each(|(a, b)| *a |= b);
            bits[after / 64] |= 1 << (after % 64);
        }
        let mine = touched(&node.cmd);
        let clashes = |other: &usize| seen[*other].iter().any(|a| mine.iter().any(|b| conflict(a, b)));
        if let Some(other) = (0..index).find(|other| bits[other / 64] >> (other % 64) & 1 == 0 && clashes(other)) {
            return Some((other, index));
        }
        before.push(bits);
        seen.push(mine);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::{Code, Device, NullDevice, Trace, TraceOptions};
    use super::*;

    fn caps() -> Caps {
        Caps {
            backend: "null",
            name: "null".into(),
            driver: String::new(),
            unified: true,
            lanes: 1,
            submit_ns: 0,
            bytes_per_ns: 1.0,
            memory: 1 << 30,
            largest_alloc: 1 << 20,
            alignment: 64,
            max_block: 256,
            max_block_dims: [256, 256, 4],
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
            defines: Vec::new(),
            flags: Vec::new(),
            include: Vec::new(),
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
        Node { cmd: Cmd::Launch { kernel: Kernel(0), grid: [grid, Word::Const(1), Word::Const(1)], args: args.to_vec() }, after: vec![] }
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
        let scalar = Arg::Scalar(Word::Const(1));
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
            (vec![launch([Arg::Out(x), Arg::Out(y), scalar], Word::Const(1))], "`in f32 x` is given Out"),
            (vec![launch([Arg::In(x), Arg::Inout(y), scalar], Word::Const(1))], "`out f32 y` is given Inout"),
            (vec![launch([Arg::In(part(0, 4, 64)), Arg::Out(y), scalar], Word::Const(1))], "not a multiple of 64"),
            (vec![launch([Arg::In(x), Arg::Out(y), scalar], Word::Const(1 << 32))], "grid"),
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
}
