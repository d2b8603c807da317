//! Turns what a device was told so far and the next call into whether that call keeps the contract.
//!
//! Order is kept as clocks: for each queue, the number of its last submission that is known to come before. A point's
//! clock joins those of the points it waits for and of its queue; the host's clock joins those of the points it waited for.

use std::collections::HashMap;

use super::{Arg, Caps, Cmd, DeviceError, Graph, Kernel, KernelSource, Mem, Node, Place, Point, Queue, Result, Slice, Word};
use crate::tensor::{Access, Param, ParamKind};

/// Lists up to this length are searched for nodes that touch the same bytes in no order.
const SEARCHED: usize = 2048;

/// Bytes after which a word's bytes repeat: 1, 2 or 4.
pub(super) fn period(word: u32) -> u64 {
    match word {
        _ if word == word.rotate_left(8) => 1,
        _ if word == word.rotate_left(16) => 2,
        _ => 4,
    }
}

#[cfg(test)]
mod tests;

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
    /// Variables of grids and offsets.
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
        Cmd::Launch { args, .. } => args.iter().filter_map(|arg| arg.slice()).map(|(slice, writes)| touch(&slice, writes)).collect(),
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
                Cmd::Launch { grid, offset, args, .. } => {
                    grid.iter().chain(offset).for_each(|w| word(w, &mut grids, true));
                    args.iter().flat_map(Arg::words).for_each(|w| word(w, &mut grids, false));
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
            Cmd::Fill { dst, pattern: Word::Const(word) } if dst.offset % period(*word as u32) != 0 => {
                Err(format!("a fill with {word:#010x} from byte {}, not a multiple of {}", dst.offset, period(*word as u32)))
            }
            Cmd::Launch { kernel, grid, offset, args } => self.launch(*kernel, grid, offset, args, caps),
            _ => Ok(()),
        }
    }

    fn launch(&self, kernel: Kernel, grid: &[Word; 3], offset: &[Word; 3], args: &[Arg], caps: &Caps) -> std::result::Result<(), String> {
        let Some((name, params)) = self.kernels.get(&kernel) else { return Err(format!("there is no kernel {}", kernel.0)) };
        if params.len() != args.len() {
            return Err(format!("kernel `{name}` takes {} arguments, not {}", params.len(), args.len()));
        }
        for (param, arg) in params.iter().zip(args) {
            let slice = match (&param.kind, arg) {
                (ParamKind::Scalar, Arg::Scalar(_)) if param.lanes == 1 => continue,
                (ParamKind::Scalar, Arg::Struct(words)) if param.lanes > 1 && words.len() == param.lanes as usize => continue,
                (ParamKind::Struct(layout), Arg::Struct(words)) if words.len() == layout.places().count() => continue,
                (ParamKind::Null, Arg::Null) => continue,
                (ParamKind::Tensor(Access::In), Arg::In(slice))
                | (ParamKind::Tensor(Access::Out), Arg::Out(slice))
                | (ParamKind::Tensor(Access::Inout), Arg::Inout(slice)) => slice,
                _ => return Err(format!("kernel `{name}`: `{param}` is given {arg:?}")),
            };
            let alignment = caps.bind_alignment.max(param.dtype.size() as u64);
            if slice.offset % alignment != 0 {
                return Err(format!("kernel `{name}`: `{param}` starts at byte {}, not a multiple of {alignment}", slice.offset));
            }
        }
        let large = |word: &&Word| matches!(word, Word::Const(n) if *n > u64::from(u32::MAX));
        match (grid.iter().find(large), offset.iter().find(large)) {
            (Some(word), _) => Err(format!("kernel `{name}`: a grid of {word:?}")),
            (None, Some(word)) => Err(format!("kernel `{name}`: an offset of {word:?}")),
            (None, None) => Ok(()),
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
            return broken(None, "replay", format!("variable {var} is a grid or an offset of {}", vars[usize::from(var)]));
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
