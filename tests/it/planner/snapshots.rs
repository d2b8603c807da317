//! Plans of the examples as text, reviewed like code. `RUNJOB_BLESS=1` writes them anew.

use std::fs;
use std::path::Path;

use runjob::device::text_of;
use runjob::job::{self, Overrides};
use runjob::plan::{Options, build, summary};
use runjob::spec::{self, Backend};

use super::caps;

fn snapshot(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let loaded = spec::load(&root.join("specs").join(format!("{name}.toml"))).unwrap();
    let (job, diagnostics) = job::resolve(&loaded, Backend::Cpu, &Overrides::default());
    let job = job.unwrap_or_else(|| panic!("{name}: {diagnostics:?}"));
    let mut text = String::new();
    for unified in [true, false] {
        let mut caps = caps(unified);
        caps.max_block = 1 << 20;
        caps.max_block_dims = [1 << 20; 3];
        caps.name = if unified { "unified" } else { "discrete" }.into();
        let plan = build(&job, &caps, &Options::default()).unwrap();
        text += &format!("== {}\n{}\n", caps.name, summary(&plan));
        for (what, nodes) in [("set-up", &plan.setup_nodes), ("start", &plan.start_nodes)] {
            if !nodes.is_empty() {
                text += &format!("{what}\n{}\n", text_of(nodes));
            }
        }
        for (mode, nodes) in plan.modes.iter().zip(&plan.graphs).take(2) {
            text += &format!("{mode:?}\n{}\n", text_of(nodes));
        }
    }
    text
}

#[test]
fn plans_of_the_examples_are_as_reviewed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("snapshots");
    for name in ["saxpy", "chain", "accumulator"] {
        let (path, now) = (folder.join(format!("{name}.txt")), snapshot(name));
        if std::env::var_os("RUNJOB_BLESS").is_some() {
            fs::write(&path, &now).unwrap();
            continue;
        }
        let reviewed = fs::read_to_string(&path).unwrap_or_default();
        let differs =
            reviewed.lines().zip(now.lines()).position(|(a, b)| a != b).unwrap_or(reviewed.lines().count().min(now.lines().count()));
        assert!(
            reviewed == now,
            "the plan of {name} is no longer tests/snapshots/{name}.txt, from line {}:\n- {}\n+ {}\nRUNJOB_BLESS=1 writes it anew",
            differs + 1,
            reviewed.lines().nth(differs).unwrap_or("(end)"),
            now.lines().nth(differs).unwrap_or("(end)"),
        );
    }
}
