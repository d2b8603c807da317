//! A plan -> the nodes of its rounds with the reason of every edge: as data, as Graphviz DOT, as Mermaid.
//!
//! The graph is that of most rounds, on the first set; of rounds that are submitted at once, the first one's.

use std::fmt::Write as _;

use serde::Serialize;

use super::order::{Hazard, explain};
use super::show::bytes;
use super::{Class, Home, Plan};
use crate::device::{Cmd, Slice, Word};
use crate::job::Job;

/// Nodes that are shown unless all are asked for.
const SHOWN: usize = 60;

/// The nodes of a round, with the reasons of their order.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Graph {
    pub job: String,
    pub nodes: Vec<GraphNode>,
    pub edges: Vec<Edge>,
    /// Nodes behind those that are shown.
    pub left_out: usize,
}

/// One command of a round.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GraphNode {
    pub label: String,
    /// In the unrolled list of steps.
    pub step: Option<usize>,
}

/// A node that waits for an earlier one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Edge {
    pub from: u32,
    pub to: u32,
    pub reasons: Vec<Reason>,
}

/// Why a node waits for another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Reason {
    /// `read after write`, `write after read`, `write after write`; `after` where the spec asks for it; `guards` where zones
    /// are read behind what may have written in them.
    pub kind: &'static str,
    /// The tensor of the later node, and where in it.
    pub tensor: Option<String>,
    pub offset: u64,
    pub bytes: u64,
    pub whole: bool,
    /// The tensor that the earlier node has in the same memory, where it is another.
    pub was: Option<String>,
}

impl Reason {
    fn text(&self) -> String {
        let Some(tensor) = &self.tensor else { return self.kind.to_string() };
        let part = match self.whole {
            true => format!(", {}", bytes(self.bytes)),
            false => format!(" bytes {}-{}", self.offset, self.offset + self.bytes - 1),
        };
        let was = self.was.as_ref().map_or(String::new(), |was| format!(", where {was} was"));
        format!("{}: {tensor}{part}{was}", self.kind)
    }
}

/// Who has a range of a memory, and in which steps.
struct Span {
    at: Slice,
    steps: (usize, usize),
    name: String,
    /// Where the range starts in the tensor.
    base: u64,
    /// All of the tensor.
    whole: bool,
}

/// The names of a plan's memory.
struct Owners(Vec<Span>);

impl Owners {
    fn new(plan: &Plan) -> Owners {
        let mut spans = Vec::new();
        let slice = super::nodes::slice;
        let mut add = |home: Home, bytes: u64, steps: (usize, usize), name: String, base: u64, whole: bool| {
            spans.push(Span { at: slice(home, bytes), steps, name, base, whole });
        };
        let always = (0, usize::MAX);
        for t in &plan.tensors {
            let steps = match (t.class, t.steps) {
                (Class::Scratch, Some((first, last))) => (first as usize, last as usize),
                _ => always,
            };
            t.home.iter().for_each(|&home| add(home, t.bytes, steps, t.name.clone(), 0, true));
            t.pristine.iter().for_each(|&home| add(home, t.bytes, always, format!("{} (pristine)", t.name), 0, true));
        }
        for s in &plan.staged {
            let name = format!("{} (staged)", plan.tensors[s.tensor].name);
            let whole = s.bytes == plan.tensors[s.tensor].bytes;
            add(s.at, s.bytes, (s.step as usize, s.step as usize), name, s.offset, whole);
        }
        let host = plan.fills.iter().map(|f| (f.tensor, f.to, f.bytes)).chain(plan.reads.iter().map(|r| (r.tensor, r.from, r.bytes)));
        for (tensor, home, bytes) in host.filter(|(tensor, home, _)| plan.tensors[*tensor].home != Some(*home)) {
            add(home, bytes, always, format!("{} (host)", plan.tensors[tensor].name), 0, true);
        }
        for z in &plan.zones {
            let mut homes = vec![z.at, z.read];
            homes.dedup();
            homes.into_iter().for_each(|home| add(home, z.bytes, always, "guards".into(), 0, true));
        }
        spans.sort_by_key(|s| (s.at.mem, s.at.offset));
        Owners(spans)
    }

    /// Who has a byte in a step; between steps, what is there in all of them.
    fn of(&self, at: Slice, step: Option<usize>) -> Option<&Span> {
        let end = self.0.partition_point(|s| (s.at.mem, s.at.offset) <= (at.mem, at.offset));
        let lives = |s: &Span| match step {
            Some(step) => s.steps.0 <= step && step <= s.steps.1,
            None => s.steps == (0, usize::MAX),
        };
        let spans = self.0[..end].iter().rev().take_while(|s| s.at.mem == at.mem);
        spans.into_iter().find(|s| at.offset < s.at.offset + s.at.len && lives(s))
    }

    fn name(&self, at: Slice, step: Option<usize>) -> &str {
        self.of(at, step).map_or("memory", |span| &span.name)
    }
}

impl Graph {
    /// The graph of most rounds: all of it, or its first nodes.
    pub fn new(plan: &Plan, job: &Job, all: bool) -> Graph {
        let mode = plan.modes.len() - 1;
        let nodes = plan.first_rounds(1, 0, mode);
        let shown = if all { nodes.len() } else { nodes.len().min(SHOWN) };
        let owners = Owners::new(plan);
        let steps: Vec<Option<usize>> = (0..shown).map(|node| plan.step_of(mode, nodes.len(), job.steps.len(), node)).collect();
        let label = |node: usize| {
            let cmd = &nodes[node].cmd;
            let step = steps[node];
            let Some(at) = step else { return around(cmd, plan, &owners) };
            let staging = matches!(cmd, Cmd::Copy { .. }) && plan.staged.iter().any(|s| s.step as usize == at);
            match cmd {
                Cmd::Copy { src, dst } if staging => format!("step {at}: copy {} to {}", owners.name(*src, step), owners.name(*dst, step)),
                _ => {
                    let of = &job.steps[at];
                    let origin = &job.origins[of.origin as usize];
                    let turns: Vec<String> = origin.loops.iter().zip(&of.turn).map(|(name, value)| format!("{name} = {value}")).collect();
                    let turn = if turns.is_empty() { String::new() } else { format!("\n{}", turns.join(", ")) };
                    format!("step {at}: {}{turn}", origin.label)
                }
            }
        };
        let labels = (0..shown).map(|node| GraphNode { label: label(node), step: steps[node] }).collect();
        let cmds: Vec<&Cmd> = nodes.iter().map(|node| &node.cmd).collect();
        let guards = nodes.len() - plan.guard_reads(mode);
        let mut edges = Vec::new();
        for (to, hazards) in explain(&cmds, shown).iter().enumerate() {
            for &from in &nodes[to].after {
                let of_edge = hazards.iter().filter(|h| h.from == from);
                let mut reasons: Vec<Reason> = of_edge.flat_map(|h| told(h, &owners, steps[from as usize], steps[to])).collect();
                if reasons.is_empty() {
                    // A launch may have written there though it says that it does not.
                    let is_guard = |node: usize| node >= guards;
                    let kind = if is_guard(to) || is_guard(from as usize) { "guards" } else { "after" };
                    reasons.push(Reason { kind, tensor: None, offset: 0, bytes: 0, whole: false, was: None });
                }
                edges.push(Edge { from, to: to as u32, reasons });
            }
        }
        Graph { job: plan.job.clone(), nodes: labels, edges, left_out: nodes.len() - shown }
    }

    /// As Graphviz reads it.
    pub fn dot(&self) -> String {
        let mut out = format!("digraph {} {{\n  rankdir=TB;\n  node [shape=box];\n", quoted(&self.job));
        for (index, node) in self.nodes.iter().enumerate() {
            let _ = writeln!(out, "  n{index} [label={}];", quoted(&node.label));
        }
        for edge in &self.edges {
            let _ = writeln!(out, "  n{} -> n{} [label={}];", edge.from, edge.to, quoted(&edge.text()));
        }
        if let Some(more) = self.more() {
            let _ = writeln!(out, "  more [shape=plaintext, label={}];", quoted(&more));
        }
        out + "}\n"
    }

    /// As Mermaid reads it.
    pub fn mermaid(&self) -> String {
        let mut out = String::from("flowchart TD\n");
        for (index, node) in self.nodes.iter().enumerate() {
            let _ = writeln!(out, "  n{index}[\"{}\"]", entities(&node.label));
        }
        for edge in &self.edges {
            let _ = writeln!(out, "  n{} -->|\"{}\"| n{}", edge.from, entities(&edge.text()), edge.to);
        }
        if let Some(more) = self.more() {
            let _ = writeln!(out, "  more[\"{}\"]", entities(&more));
        }
        out
    }

    fn more(&self) -> Option<String> {
        (self.left_out > 0).then(|| format!("{} more: --all shows them", super::show::count(self.left_out as u64, "node")))
    }
}

impl Edge {
    fn text(&self) -> String {
        self.reasons.iter().map(Reason::text).collect::<Vec<_>>().join("\n")
    }
}

/// What a node before or behind the steps does.
fn around(cmd: &Cmd, plan: &Plan, owners: &Owners) -> String {
    match cmd {
        Cmd::Copy { src, dst } => {
            let (from, to) = (owners.name(*src, None), owners.name(*dst, None));
            let read = plan.reads.iter().any(|r| super::nodes::slice(r.from, r.bytes) == *dst);
            let filled = plan.fills.iter().any(|f| super::nodes::slice(f.to, f.bytes) == *src);
            match () {
                () if read => format!("read back {from}"),
                () if filled => format!("upload {to}"),
                () if from == "guards" => "read guards".to_string(),
                () => format!("restore {to}"),
            }
        }
        Cmd::Fill { dst, .. } if plan.flush.as_ref().is_some_and(|flush| flush.memory == dst.mem.0) => "flush caches".to_string(),
        Cmd::Fill { dst, pattern: Word::Var(_) } => format!("poison {}", owners.name(*dst, None)),
        Cmd::Fill { dst, .. } => format!("clear {}", owners.name(*dst, None)),
        Cmd::Launch { .. } => "launch".to_string(),
    }
}

/// A hazard in the names of tensors: one reason for each tensor that the bytes belong to.
fn told(hazard: &Hazard, owners: &Owners, before: Option<usize>, after: Option<usize>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let (mut at, end) = (hazard.bytes, hazard.bytes.offset + hazard.bytes.len);
    while at.offset < end {
        at.len = end - at.offset;
        // A node between the steps may use what lives in them alone: an upload into memory that scratch had.
        let owner = owners.of(at, after).or_else(|| owners.of(at, before));
        let was = owners.of(at, before).map(|span| span.name.clone());
        let kind = hazard.kind.name();
        let Some(span) = owner else {
            reasons.push(Reason { kind, tensor: None, offset: 0, bytes: at.len, whole: false, was: None });
            break;
        };
        let stop = end.min(span.at.offset + span.at.len);
        let bytes = stop - at.offset;
        reasons.push(Reason {
            kind,
            tensor: Some(span.name.clone()),
            offset: span.base + at.offset - span.at.offset,
            bytes,
            whole: span.whole && bytes == span.at.len,
            was: was.filter(|was| *was != span.name),
        });
        at.offset = stop;
    }
    reasons
}

/// A string of DOT.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Text between quotes of Mermaid, which has entities and no escapes.
fn entities(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("#quot;"),
            '#' => out.push_str("#35;"),
            '&' => out.push_str("#amp;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '`' => out.push_str("#96;"),
            '\n' => out.push_str("<br/>"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
