//! `runjob devices`: what is here to run on, how it is named, and what would have to be installed for more.

use super::DevicesArgs;
use super::print::{self, out};
use crate::device::choice::{self, OpenError};
use crate::device::cpu::{self, CpuOptions, Tool};
use crate::device::{Caps, Choice, Peak};
use crate::plan;
use crate::tensor::Backend;

/// Columns that a line of words takes.
const COLUMNS: usize = 100;

/// A device, or a backend without one.
struct Here {
    backend: Backend,
    /// The words that name it.
    name: Option<Choice>,
    caps: Option<Caps>,
    /// What keeps kernels from running on it, and the mend.
    missing: Option<String>,
    tools: Vec<Compiles>,
}

pub(super) fn devices(args: &DevicesArgs) -> u8 {
    let required = match super::required(&args.require) {
        Ok(required) => required,
        Err(code) => return code,
    };
    let here: Vec<Here> = Backend::ALL.into_iter().flat_map(look).collect();
    if args.json {
        match serde_json::to_string_pretty(&here.iter().map(Listed::of).collect::<Vec<_>>()) {
            Ok(text) => out(&(text + "\n")),
            Err(error) => {
                print::error(&format!("the list cannot be written as JSON: {error}"));
                return 3;
            }
        }
    } else {
        here.iter().for_each(|device| out(&text(device)));
    }
    let mut code = 0;
    for backend in required {
        let of: Vec<&Here> = here.iter().filter(|device| device.backend == backend).collect();
        if let (false, Some(why)) = (of.iter().any(|d| d.missing.is_none()), of.iter().find_map(|d| d.missing.as_ref())) {
            print::error(&format!("`{}` is required: {why}", backend.name()));
            code = 3;
        }
    }
    code
}

/// The devices of a backend.
fn look(backend: Backend) -> Vec<Here> {
    let absent = |why: String| vec![Here { backend, name: None, caps: None, missing: Some(why), tools: Vec::new() }];
    let listed = match choice::list(backend) {
        Ok(listed) if listed.is_empty() => return absent("the driver has no device".to_string()),
        Ok(listed) => listed,
        Err(OpenError::Absent(why)) => return absent(why),
        Err(OpenError::Failed(error)) => return absent(error.to_string()),
    };
    let tools = match backend {
        Backend::Cpu => cpu::open(CpuOptions::default()).map(|cpu| cpu.tools()).unwrap_or_default(),
        _ => Vec::new(),
    };
    let here = listed.into_iter().enumerate().map(|(index, caps)| Here {
        backend,
        name: Some(if backend == Backend::Cpu { Choice::first(backend) } else { Choice::nth(backend, index) }),
        missing: (caps.driver == cpu::NO_COMPILER).then(|| no_compiler(&tools)),
        tools: tools.iter().map(Compiles::of).collect(),
        caps: Some(caps),
    });
    here.collect()
}

fn no_compiler(tools: &[Tool]) -> String {
    let mend = tools.iter().find(|tool| tool.found.is_none()).map_or("install one", |tool| tool.install);
    format!("there is no C compiler: {mend}")
}

fn text(device: &Here) -> String {
    let Some((name, caps)) = device.name.as_ref().zip(device.caps.as_ref()) else {
        return format!("{:<8}  not here: {}\n", device.backend.name(), device.missing.as_deref().unwrap_or_default());
    };
    let indent = " ".repeat(10);
    let mut text = format!("{:<8}  {}\n", name.to_string(), caps.name);
    text += &format!("{indent}{}\n", caps.driver);
    let bytes = plan::bytes;
    text += &format!(
        "{indent}{} memory, {} in one allocation, blocks of {} threads",
        bytes(caps.memory),
        bytes(caps.largest_alloc),
        caps.max_block
    );
    text += &if device.backend == Backend::Cpu { format!(", {} threads\n", caps.lanes) } else { "\n".to_string() };
    text += &peak(&caps.peak).map(|peak| format!("{indent}{peak}\n")).unwrap_or_default();
    let versions = caps.versions.iter().map(|(name, version)| format!("{name} {version},"));
    let words: Vec<String> = versions.chain(caps.features.iter().cloned()).collect();
    text += &wrapped(&words, &indent);
    for tool in &device.tools {
        text += &format!("{indent}kernels in {} ({}): {}\n", tool.language, tool.suffixes.join(" "), tool.how);
    }
    text
}

/// The most that a device can do, as far as it is known.
fn peak(peak: &Peak) -> Option<String> {
    let told = [
        peak.bytes_per_ns.map(|rate| format!("{rate:.0} GB/s")),
        peak.flops_per_ns.map(|rate| format!("{rate:.0} GFLOP/s in f32")),
        peak.most_flops_per_ns.map(|rate| format!("{rate:.0} GFLOP/s by any unit")),
        peak.cache.map(|cache| format!("{} cache", plan::bytes(cache))),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    (!told.is_empty()).then(|| format!("at most {}", told.join(", ")))
}

/// Words in lines.
fn wrapped(words: &[String], indent: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in words {
        if !line.is_empty() && indent.len() + line.len() + word.len() >= COLUMNS {
            text += &format!("{indent}{}\n", line.trim_end());
            line.clear();
        }
        line += word;
        line.push(' ');
    }
    if line.is_empty() { text } else { text + &format!("{indent}{}\n", line.trim_end()) }
}

/// A device as scripts read it.
#[derive(serde::Serialize)]
struct Listed<'a> {
    backend: &'a str,
    /// What `--device` takes.
    device: Option<&'a Choice>,
    missing: Option<&'a str>,
    caps: Option<&'a Caps>,
    tools: &'a [Compiles],
}

impl<'a> Listed<'a> {
    fn of(here: &'a Here) -> Listed<'a> {
        Listed {
            backend: here.backend.name(),
            device: here.name.as_ref(),
            missing: here.missing.as_deref(),
            caps: here.caps.as_ref(),
            tools: &here.tools,
        }
    }
}

/// A language that kernels may be written in, and what compiles it here or is missing.
#[derive(serde::Serialize)]
struct Compiles {
    language: String,
    suffixes: Vec<String>,
    found: bool,
    how: String,
}

impl Compiles {
    fn of(tool: &Tool) -> Compiles {
        let how = match &tool.found {
            Some(found) => format!("compiled by {}, {}", found.command, found.version),
            None => format!("no compiler: {}, or set {}", tool.install, tool.variable),
        };
        let suffixes = tool.suffixes.iter().map(|suffix| format!(".{suffix}")).collect();
        Compiles { language: tool.language.to_string(), suffixes, found: tool.found.is_some(), how }
    }
}
