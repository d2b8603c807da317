//! A plan as text for people.

use std::fmt::Write as _;

use super::{Host, Plan, Poison, Trust};

/// The plan as a table with its reasons, what moves, and the schedule.
pub fn summary(plan: &Plan) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{} on {} (trust {})", plan.job, plan.device, plan.trust.name());
    if plan.rounds.count + plan.rounds.left_out == 0 {
        let loads = count(plan.cost.loads, "kernel");
        let _ = writeln!(out, "builds    no rounds: kernels are built for their checks, and {loads} of them loaded");
        return out;
    }
    let mut rows = vec![["tensor", "bytes", "class", "where", "steps", "why"].map(String::from)];
    for t in &plan.tensors {
        let place = match (t.home, t.pristine.as_slice()) {
            (None, []) => "-".to_string(),
            (Some(home), _) => format!("{}+{:#x}", plan.memories[home.memory as usize].name, home.offset),
            (None, [one]) => format!("{}+{:#x}", plan.memories[one.memory as usize].name, one.offset),
            (None, many) => format!("{} x{}", plan.memories[many[0].memory as usize].name, many.len()),
        };
        let steps =
            t.steps.map_or("-".to_string(), |(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
        rows.push([t.name.clone(), bytes(t.bytes), t.class.name().into(), place, steps, t.reason.clone()]);
    }
    table(&mut out, &rows);
    let mut rows = vec![["memory", "bytes", "place", "copies"].map(String::from)];
    for m in &plan.memories {
        let copies = if m.per_slot { plan.schedule.slots * plan.schedule.lanes } else { 1 };
        rows.push([m.name.to_string(), bytes(m.bytes), format!("{:?}", m.place).to_lowercase(), copies.to_string()]);
    }
    out.push('\n');
    table(&mut out, &rows);
    let cost = &plan.cost;
    let host = match plan.schedule.host {
        Host::Inline => "inline",
        Host::Pool => "pool",
    };
    let lanes = match plan.schedule.lanes {
        1 => String::new(),
        n => format!("{n} lanes that take {} at a time, each with ", count(plan.schedule.deal, "round")),
    };
    let nodes = plan.graphs.first().map_or(0, Vec::len) / plan.schedule.batch.max(1) as usize;
    let poisoned = match plan.modes.last().map(|m| m.poison) {
        Some(Poison::Full) => "outputs in full, every round".to_string(),
        Some(Poison::Window { of, .. }) => format!("outputs in full in the first, last and every 64th round, 1/{of} in the others"),
        _ if plan.poison.iter().any(|p| p.always) => "outputs at set-up, those that must be written in full in every round".into(),
        _ if plan.trust == Trust::Fast => "outputs at set-up".into(),
        _ => "nothing to poison: what is checked starts every round from contents of its own".into(),
    };
    let graphs = count(plan.graphs.len() as u64, "graph");
    let sizes: Vec<String> = plan.batches.iter().map(u32::to_string).collect();
    let at_once = match plan.schedule.batch {
        0 | 1 => String::new(),
        batch => format!(" of {batch} rounds"),
    };
    let sets = if plan.sets > 1 {
        format!(", for {} sets and {}", plan.sets, count(plan.modes.len() as u64, "kind") + " of rounds")
    } else if plan.schedule.batch > 1 {
        format!(", for {} rounds at once", sizes.join(" and "))
    } else {
        String::new()
    };
    let fewer = plan.fewer_modes.as_ref().map_or(String::new(), |why| format!("; {why}"));
    let _ = write!(
        out,
        "\nset-up    {} uploaded once, {}, {}\n\
         a round   {} filled by the host, {} read back, {}, {}; at least {} on the device\n\
         naive     a loop that sets up every round anew: {} and {} moved a round; here none and {}\n\
         poison    {poisoned}\n\
         graphs    {graphs} in each slot{sets}{fewer}\n\
         memory    device {}, host {}\n\
         schedule  {lanes}{}{at_once}, host work {host}: {}\n",
        bytes(cost.setup_upload),
        count(cost.allocs, "allocation"),
        count(cost.loads, "kernel"),
        bytes(cost.round_upload),
        bytes(cost.round_download),
        if cost.launches == 1 { "1 launch".to_string() } else { format!("{} launches", cost.launches) },
        count(nodes as u64, "node"),
        nanoseconds(cost.lower_bound_ns),
        count(plan.tensors.iter().filter(|t| t.steps.is_some()).count() as u64, "allocation"),
        bytes(cost.naive),
        bytes(cost.round_upload + cost.round_download),
        bytes(cost.device_peak),
        bytes(cost.host_peak),
        count(plan.schedule.slots.into(), "slot"),
        plan.schedule.reason,
    );
    if plan.rounds.left_out > 0 {
        let all = plan.rounds.count + plan.rounds.left_out;
        let _ = writeln!(out, "rounds    {} of {all}: those of the sets that --only names", plan.rounds.count);
    }
    for rung in &plan.rungs {
        let _ = writeln!(out, "short     {}: {}", rung.what, rung.reason);
    }
    for staged in plan.staged.iter().take(STAGED) {
        let way = if staged.back { "copied before and put back after" } else { "copied before" };
        let _ = writeln!(
            out,
            "staged    `{}` bytes {}-{}, {way} step {}: kernels are given multiples of {} bytes",
            plan.tensors[staged.tensor].name,
            staged.offset,
            staged.offset + staged.bytes - 1,
            staged.step,
            staged.alignment
        );
    }
    if plan.staged.len() > STAGED {
        let _ = writeln!(out, "staged    and {} more", count((plan.staged.len() - STAGED) as u64, "view"));
    }
    out
}

/// Staged views that are told one by one.
const STAGED: usize = 4;

fn table<const N: usize>(out: &mut String, rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", line.join("  ").trim_end());
    }
}

/// A number of things.
pub fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// A number of bytes as people write it.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A number of bytes as a spec has it, rounded up.
pub(super) fn spec_bytes(n: u64) -> String {
    let (unit, name) = if n < 1 << 20 { (1 << 10, "KiB") } else { (1 << 20, "MiB") };
    format!("{}{name}", n.div_ceil(unit))
}

/// A time as people write it.
pub fn nanoseconds(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.2} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}
