//! Turns any device into one that runs what it is told as late and in as odd an order as the contract allows, and whose
//! n-th call fails: the negative control for every edge, every wait and every way out of an error.

use std::collections::HashMap;
use std::time::Duration;

use super::{Arg, Caps, Cmd, Device, DeviceError, Graph, Kernel, KernelSource, Mapped, Mem, Node, Place, Point, Queue, Result, Word};

/// What a [`Chaos`] does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChaosOptions {
    /// Chooses the order.
    pub seed: u64,
    /// The call that fails, counted from 1 over all that may: `alloc`, `map`, `unmap`, `load`, `record`, `replay`,
    /// `submit`, `wait`.
    pub fail: Option<u64>,
}

/// A device that runs nothing before somebody waits for it; then what that wait needs, and half of the time also what
/// nobody waits for yet.
pub struct Chaos {
    device: Box<dyn Device>,
    options: ChaosOptions,
    /// Calls so far.
    calls: u64,
    random: u64,
    graphs: Vec<Vec<Node>>,
    /// Graphs that the instance had that this one was forked from.
    inherited: usize,
    /// Replays and submissions, by their points, which count from 1.
    runs: Vec<Run>,
    /// The last point of each queue.
    last: HashMap<Queue, Point>,
}

/// One replay or submission.
struct Run {
    /// The points that come before it: the last one of its queue, and those it was given.
    after: Vec<Point>,
    nodes: Vec<Node>,
    /// By node: whether it has run.
    done: Vec<bool>,
    left: usize,
    error: Option<DeviceError>,
    /// Times that somebody asked for it.
    polls: u32,
}

impl Chaos {
    pub fn new(device: Box<dyn Device>, options: ChaosOptions) -> Chaos {
        Chaos { device, options, calls: 0, random: options.seed, graphs: Vec::new(), inherited: 0, runs: Vec::new(), last: HashMap::new() }
    }

    /// Counts a call. *Errors*: it is the one that fails.
    fn call(&mut self, call: &'static str) -> Result<()> {
        self.calls += 1;
        match self.options.fail {
            Some(fail) if fail == self.calls => Err(DeviceError::Failed { node: None, call, message: "injected".into() }),
            _ => Ok(()),
        }
    }

    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        self.random = self.random.wrapping_add(GOLDEN);
        (mix(self.random) % n.max(1) as u64) as usize
    }

    fn run(&self, point: Point) -> Result<usize> {
        let at = (point.0 as usize).checked_sub(1).filter(|&at| at < self.runs.len());
        at.ok_or_else(|| DeviceError::Failed { node: None, call: "wait", message: format!("there is no point {}", point.0) })
    }

    fn enqueue(&mut self, queue: Queue, after: &[Point], nodes: Vec<Node>) -> Result<Point> {
        let mut after = after.to_vec();
        for &point in &after {
            self.run(point)?;
        }
        after.extend(self.last.get(&queue));
        let (done, left) = (vec![false; nodes.len()], nodes.len());
        self.runs.push(Run { after, nodes, done, left, error: None, polls: 0 });
        let point = Point(self.runs.len() as u64);
        self.last.insert(queue, point);
        Ok(point)
    }

    /// Runs what a point needs, node by node; nodes of different runs mix where nothing orders them.
    fn reach(&mut self, point: Point) -> Result<()> {
        let mut needed = vec![self.run(point)?];
        let mut next = 0;
        while let Some(&at) = needed.get(next) {
            for before in self.runs[at].after.clone() {
                let before = self.run(before)?;
                if self.runs[before].left > 0 && !needed.contains(&before) {
                    needed.push(before);
                }
            }
            next += 1;
        }
        if self.below(2) == 0 {
            needed.extend((0..self.runs.len()).filter(|at| self.runs[*at].left > 0 && !needed.contains(at)).collect::<Vec<_>>());
        }
        let habit = self.below(3);
        let whom = self.run(point)?;
        while self.runs[whom].left > 0 {
            let mut ready = Vec::new();
            for &at in &needed {
                let run = &self.runs[at];
                let begun = run.after.iter().all(|p| self.run(*p).is_ok_and(|before| self.runs[before].left == 0));
                if run.left > 0 && begun {
                    let free = |node: &usize| !run.done[*node] && run.nodes[*node].after.iter().all(|&a| run.done[a as usize]);
                    ready.extend((0..run.nodes.len()).filter(free).map(|node| (at, node)));
                }
            }
            if ready.is_empty() {
                break;
            }
            let pick = match habit {
                // The reverse of what a list suggests.
                0 => ready.len() - 1,
                1 => self.below(ready.len()),
                // Some nodes wait for as long as there are others.
                _ => (0..ready.len()).min_by_key(|&i| lateness(self.options.seed, ready[i])).unwrap_or(0),
            };
            let (at, node) = ready[pick];
            self.execute(at, node);
        }
        match &self.runs[self.run(point)?].error {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn execute(&mut self, at: usize, node: usize) {
        let run = &mut self.runs[at];
        run.done[node] = true;
        run.left -= 1;
        let alone = Node { cmd: run.nodes[node].cmd.clone(), after: Vec::new() };
        if run.left == 0 {
            (run.nodes, run.done) = (Vec::new(), Vec::new());
        }
        if run.error.is_some() {
            return;
        }
        let result = self.device.submit(Queue(0), &[], &[alone]).and_then(|point| self.device.wait(point));
        if let Err(error) = result {
            self.runs[at].error = Some(match error {
                DeviceError::Failed { call, message, .. } => DeviceError::Failed { node: Some(node as u32), call, message },
                other => other,
            });
        }
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The mixer of splitmix64. *Source*: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How late a node of a run is.
fn lateness(seed: u64, (run, node): (usize, usize)) -> u64 {
    mix(seed ^ mix(GOLDEN.wrapping_mul(run as u64 + 1) ^ node as u64))
}

/// A node whose variables have the values of a replay. *Errors*: a variable that has none.
fn with_vars(node: &Node, vars: &[u64]) -> Result<Node> {
    let word = |word: Word| match word {
        Word::Const(_) => Ok(word),
        Word::Var(var) => vars.get(usize::from(var)).map(|&value| Word::Const(value)).ok_or_else(|| DeviceError::Failed {
            node: None,
            call: "replay",
            message: format!("the list needs variable {var}, {} are given", vars.len()),
        }),
    };
    let cmd = match &node.cmd {
        Cmd::Copy { src, dst } => Cmd::Copy { src: *src, dst: *dst },
        Cmd::Fill { dst, pattern } => Cmd::Fill { dst: *dst, pattern: word(*pattern)? },
        Cmd::Launch { kernel, grid, offset, args } => {
            let arg = |arg: &Arg| match arg {
                Arg::Scalar(value) => Ok(Arg::Scalar(word(*value)?)),
                Arg::Struct(values) => values.iter().map(|value| word(*value)).collect::<Result<_>>().map(Arg::Struct),
                slice_or_null => Ok(slice_or_null.clone()),
            };
            let args = args.iter().map(arg).collect::<Result<_>>()?;
            let three = |[x, y, z]: [Word; 3]| Ok::<_, DeviceError>([word(x)?, word(y)?, word(z)?]);
            Cmd::Launch { kernel: *kernel, grid: three(*grid)?, offset: three(*offset)?, args }
        }
    };
    Ok(Node { cmd, after: node.after.clone() })
}

impl Device for Chaos {
    fn caps(&self) -> &Caps {
        self.device.caps()
    }

    fn alloc(&mut self, place: Place, bytes: u64) -> Result<Mem> {
        self.call("alloc")?;
        self.device.alloc(place, bytes)
    }

    fn map(&mut self, mem: Mem) -> Result<Mapped> {
        self.call("map")?;
        self.device.map(mem)
    }

    fn unmap(&mut self, bytes: Mapped) -> Result<()> {
        let call = self.call("unmap");
        self.device.unmap(bytes).and(call)
    }

    unsafe fn load(&mut self, kernel: &KernelSource) -> Result<Kernel> {
        self.call("load")?;
        // SAFETY: promised by the caller.
        unsafe { self.device.load(kernel) }
    }

    fn lacks(&self, kernel: &KernelSource) -> Option<String> {
        self.device.lacks(kernel)
    }

    fn record(&mut self, nodes: &[Node]) -> Result<Graph> {
        self.call("record")?;
        // The device finds what is wrong with the list.
        self.device.record(nodes)?;
        self.graphs.push(nodes.to_vec());
        Ok(Graph(self.graphs.len() as u32 - 1))
    }

    fn replay(&mut self, queue: Queue, after: &[Point], graph: Graph, vars: &[u64]) -> Result<Point> {
        self.call("replay")?;
        let Some(nodes) = self.graphs.get(graph.0 as usize) else {
            return Err(DeviceError::Failed { node: None, call: "replay", message: format!("there is no graph {}", graph.0) });
        };
        let nodes = nodes.iter().map(|node| with_vars(node, vars)).collect::<Result<_>>()?;
        self.enqueue(queue, after, nodes)
    }

    fn submit(&mut self, queue: Queue, after: &[Point], nodes: &[Node]) -> Result<Point> {
        self.call("submit")?;
        self.enqueue(queue, after, nodes.to_vec())
    }

    fn poll(&mut self, point: Point) -> Result<bool> {
        let at = self.run(point)?;
        self.runs[at].polls += 1;
        if self.runs[at].polls < 3 && self.runs[at].left > 0 {
            return Ok(false);
        }
        self.reach(point).map(|()| true)
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        let call = self.call("wait");
        self.reach(point).and(call)
    }

    fn elapsed(&mut self, point: Point) -> Result<Option<Duration>> {
        self.reach(point).map(|()| None)
    }

    fn fork(&self) -> Result<Box<dyn Device>> {
        Ok(Box::new(Chaos {
            device: self.device.fork()?,
            options: self.options,
            calls: 0,
            random: self.random ^ 0x5851_f42d_4c95_7f2d,
            graphs: self.graphs.clone(),
            inherited: self.graphs.len(),
            runs: Vec::new(),
            last: HashMap::new(),
        }))
    }

    fn reset(&mut self) -> Result<()> {
        // What failed is told to whoever waits for it.
        (1..=self.runs.len() as u64).for_each(|point| drop(self.reach(Point(point))));
        self.runs.clear();
        self.last.clear();
        self.graphs.truncate(self.inherited);
        self.device.reset()
    }
}
