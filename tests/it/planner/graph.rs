//! `runjob plan --graph`: every edge has its reasons, and the text is what Graphviz and Mermaid read.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use runjob::job::{self, Overrides};
use runjob::plan::{Graph, Options, build};
use runjob::spec::{self, Backend};

use super::{caps, jobs, tape};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_edge_of_a_random_job_has_a_reason(numbers in tape(), unified: bool, aligned: bool, bind: bool) {
        let job = jobs::random(&numbers, jobs::Style { aligned, expressions: true });
        let mut caps = caps(unified);
        caps.bind_alignment = if bind { 256 } else { 1 };
        let plan = build(&job, &caps, &Options::default()).unwrap();
        let graph = Graph::new(&plan, &job, true);
        let nodes = &plan.first_rounds(1, 0, plan.modes.len() - 1);
        let edges: Vec<(u32, u32)> = nodes.iter().enumerate().flat_map(|(to, n)| n.after.iter().map(move |&from| (from, to as u32))).collect();
        prop_assert_eq!(graph.edges.iter().map(|e| (e.from, e.to)).collect::<Vec<_>>(), edges);
        prop_assert_eq!((graph.nodes.len(), graph.left_out), (nodes.len(), 0));
        for edge in &graph.edges {
            prop_assert!(!edge.reasons.is_empty());
            for reason in &edge.reasons {
                // What a launch may write where it says that it does not has no tensor.
                if reason.kind == "guards" {
                    prop_assert!(graph.nodes[edge.to as usize].label == "read guards", "{edge:?}");
                    continue;
                }
                prop_assert!(["read after write", "write after read", "write after write"].contains(&reason.kind), "{edge:?}");
                prop_assert!(reason.tensor.is_some() && reason.bytes > 0, "{edge:?}");
            }
        }
        let (shown, edges) = parse(&graph.dot());
        prop_assert_eq!((shown, edges), (graph.nodes.len(), graph.edges.len()));
    }
}

/// Words and strings of DOT, in their order.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(&c) = rest.peek() {
        let mut token = String::new();
        if c.is_whitespace() {
            rest.next();
            continue;
        } else if c == '"' {
            token.push(rest.next().unwrap());
            loop {
                let c = rest.next().expect("a string ends");
                assert!(c != '\n', "a string on one line");
                token.push(c);
                match c {
                    '\\' => token.push(rest.next().expect("something escaped")),
                    '"' => break,
                    _ => {}
                }
            }
        } else if c.is_alphanumeric() || c == '_' {
            while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                token.push(c);
            }
        } else {
            token.push(rest.next().unwrap());
            if c == '-' {
                token.push(rest.next().unwrap());
                assert_eq!(token, "->");
            }
        }
        tokens.push(token);
    }
    tokens
}

/// Reads a `digraph` by the grammar of DOT; returns its nodes and edges.
fn parse(dot: &str) -> (usize, usize) {
    let tokens = tokens(dot);
    let id = |t: &str| t.starts_with('"') || t.chars().all(|c| c.is_alphanumeric() || c == '_');
    assert!(tokens[0] == "digraph" && id(&tokens[1]) && tokens[2] == "{" && tokens.last().unwrap() == "}");
    let (mut nodes, mut edges) = (BTreeSet::new(), 0);
    for statement in tokens[3..tokens.len() - 1].split(|t| t == ";").filter(|s| !s.is_empty()) {
        let attributes = statement.iter().position(|t| t == "[").unwrap_or(statement.len());
        match &statement[..attributes] {
            [key, equals, value] if equals == "=" => assert!(id(key) && id(value)),
            [from, arrow, to] if arrow == "->" => {
                assert!(nodes.contains(from) && nodes.contains(to), "{from} -> {to}");
                edges += 1;
            }
            [node] => {
                assert!(id(node));
                if node != "node" {
                    assert!(nodes.insert(node.clone()), "{node} stands there twice");
                }
            }
            other => panic!("{other:?}"),
        }
        if let Some(list) = statement.get(attributes + 1..) {
            assert_eq!(list.last().unwrap(), "]");
            for pair in list[..list.len() - 1].split(|t| t == ",") {
                assert!(pair.len() == 3 && id(&pair[0]) && pair[1] == "=" && id(&pair[2]), "{pair:?}");
            }
        }
    }
    (nodes.iter().filter(|n| *n != "more").count(), edges)
}

#[test]
fn names_are_quoted_and_long_graphs_are_cut_with_a_count() {
    let numbers: Vec<u16> = (0..300).map(|i| i * 37).collect();
    let mut job = jobs::random(&numbers, jobs::Style { aligned: true, expressions: false });
    job.name = "a \"job\" \\ <b> #1".into();
    job.tensors.iter_mut().for_each(|t| t.name += "\"<&>\\`#\n");
    let few = job.steps.clone();
    job.steps = few.iter().cycle().take(1000).cloned().collect();
    let plan = build(&job, &caps(false), &Options::default()).unwrap();
    let all = Graph::new(&plan, &job, true);
    let cut = Graph::new(&plan, &job, false);
    assert!(all.nodes.len() > 1000 && cut.nodes.len() == 60);
    assert_eq!(cut.left_out, all.nodes.len() - 60);
    assert_eq!(cut.nodes, all.nodes[..60]);
    assert_eq!(cut.edges[..], all.edges[..cut.edges.len()]);
    assert!(all.edges[cut.edges.len()].to >= 60);
    parse(&all.dot());
    let dot = cut.dot();
    parse(&dot);
    assert!(dot.starts_with("digraph \"a \\\"job\\\" \\\\ <b> #1\" {"), "{dot}");
    assert!(dot.contains(&format!("{} more nodes: --all shows them", cut.left_out)) || dot.contains("nodes more"), "{dot}");
    for line in all.mermaid().lines().skip(1) {
        // Between the quotes there are entities alone.
        let inner: Vec<&str> = line.split('"').collect();
        assert!(inner.len() == 3, "{line}");
        assert!(!inner[1].replace("<br/>", "").contains(['<', '>', '&', '`']), "{line}");
    }
}

#[test]
fn graphs_of_the_examples_are_as_reviewed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["saxpy", "accumulator"] {
        let loaded = spec::load(&root.join("specs").join(format!("{name}.toml"))).unwrap();
        let job = job::resolve(&loaded, Backend::Cpu, &Overrides::default()).0.unwrap();
        let mut caps = caps(false);
        (caps.max_block, caps.max_block_dims) = (1 << 20, [1 << 20; 3]);
        let plan = build(&job, &caps, &Options::default()).unwrap();
        let graph = Graph::new(&plan, &job, false);
        parse(&graph.dot());
        let now = graph.dot() + "\n" + &graph.mermaid();
        let path = root.join("tests").join("snapshots").join(format!("{name}_graph.txt"));
        if std::env::var_os("RUNJOB_BLESS").is_some() {
            fs::write(&path, &now).unwrap();
            continue;
        }
        let reviewed = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(now, reviewed, "the graph of {name} is no longer {}: RUNJOB_BLESS=1 writes it anew", path.display());
    }
}
